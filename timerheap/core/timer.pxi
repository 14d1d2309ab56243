# Timer: arming, stopping and resetting by handle; after.

# ---- arming ---------------------------------------------------------------------------------------------------------

cdef inline int lock_to_arm(TimerHeap heap, PyObject* handle, bint owns, int64_t ns, int64_t* when) except -1:
    """Take M, with a worker there or on its way, and when set to ns from now. The heap has a reference to the handle
    then, if it owns what is armed. On an error neither M nor a reference is held.

    The worker may have gone since, for a fork or because it died, or the start that ready() saw under way may have
    failed, and whoever saw that does not know of this timer. So it is looked at once more under M.
    """
    cdef th_core* c = heap.core
    cdef bint wanted
    while True:
        wanted = ready(heap)
        if owns:
            incref(handle)                  # the heap's; given up by stop, launch, let_all_go or disown
        when[0] = th_deadline(th_now(c), ns)
        th_lock(c)
        if not wanted or c.running or c.pausing or c.closed:
            return 0
        th_unlock(c)
        if owns:
            decref(handle)


cdef int ask_or_stop(LoopHeap heap, PyObject* handle, bint extra) except -1:
    """wake for a loop's heap. When the loop cannot be asked, the timer is not armed after all."""
    try:
        ask_loop(heap)
    except BaseException:
        if extra:
            decref(handle)
        (<Timer>handle).stop()
        raise
    return 0


cdef inline int wake(th_core* c, PyObject* heap, PyObject* handle, bint extra) except -1:
    """Something was armed that is earlier than what the worker, or the loop, waits for. extra: the caller has a
    reference to the handle too many, which is given up if there is an error."""
    if c.driven:
        return ask_or_stop(<LoopHeap>heap, handle, extra)
    th_signal(c)
    return 0


cdef inline int unlock_armed(th_core* c, PyObject* heap, PyObject* handle, bint extra, arming* a) except -1:
    """Give M back after an arming, or one that was refused: the worker is woken, and the heap holds itself, where a
    says so."""
    th_unlock(c)
    if a.wake:
        wake(c, heap, handle, extra)
    if a.first:
        hold(c, heap)
    return 0


cdef int refuse_rearming(TimerHeap heap, arming* a) except -1:
    if a.cleared:
        raise RuntimeError("the timer has been cleared by the garbage collector")
    refuse(heap)


cdef inline int arm(TimerHeap heap, PyObject* handle, th_timer* t, int64_t ns) except -1:
    """IDLE -> ARMED, ns from now. t is no channel timer's, nor periodic. RuntimeError, MemoryError: nothing was
    armed."""
    cdef th_core* c = heap.core
    cdef int64_t when
    cdef arming a
    cdef bint armed
    lock_to_arm(heap, handle, FREE_THREADED, ns, &when)
    armed = arm_record(c, t, when, &a)
    unlock_armed(c, <PyObject*>heap, handle, False, &a)
    if not armed:
        if FREE_THREADED:
            decref(handle)
        refuse(heap)
    return 0


cdef void disown(Timer self) noexcept:
    """make_void for a handle, which the collector gets back, and which gets back what the parent's heap has held.
    Unless another thread came first, which may have armed it by now."""
    cdef bint was
    th_lock(self.heap.core)
    was = inherited(self.heap.core, &self.t) and make_void(&self.t)
    th_unlock(self.heap.core)
    if was and not always_tracked(self.heap.core):
        gc_track(<PyObject*>self)
    if was and owned(&self.t):
        decref(<PyObject*>self)


cdef object rearm(Timer self, int64_t ns):
    """reset of a function timer that is not periodic."""
    cdef TimerHeap heap = self.heap
    cdef th_core* c = heap.core
    cdef th_timer* t = &self.t
    cdef int64_t when
    cdef arming a
    cdef bint armed
    if inherited(c, t):
        disown(self)
    lock_to_arm(heap, <PyObject*>self, FREE_THREADED, ns, &when)
    armed = rearm_record(c, t, when, &a)
    unlock_armed(c, <PyObject*>heap, <PyObject*>self, FREE_THREADED and a.was, &a)
    if FREE_THREADED and (a.was or not armed):
        decref(<PyObject*>self)             # the heap has its reference already, or needs none
    if not armed:
        refuse_rearming(heap, &a)
    if not always_tracked(c) and not a.was:
        gc_untrack(<PyObject*>self)
    return a.was


cdef object rearm_grid(Timer self, int64_t ns, bint revive):
    """Arm a periodic timer, new or not, with a period of ns. Without revive only what is pending; False otherwise."""
    cdef TimerHeap heap = self.heap
    cdef th_core* c = heap.core
    cdef int64_t when
    cdef arming a
    cdef bint armed
    if revive:
        if inherited(c, &self.t):
            disown(self)
        lock_to_arm(heap, <PyObject*>self, True, ns, &when)
    else:
        when = th_deadline(th_now(c), ns)
        th_lock(c)                          # what is pending has a worker, or will have one, and is the heap's
    armed = rearm_periodic(c, &self.t, when, ns, revive, &a)
    unlock_armed(c, <PyObject*>heap, <PyObject*>self, revive and a.was, &a)
    if revive and (a.was or not armed):
        decref(<PyObject*>self)             # the heap has its reference already, or needs none
    if not armed and (revive or a.was):
        refuse_rearming(heap, &a)
    if not always_tracked(c) and not a.was and revive:
        gc_untrack(<PyObject*>self)
    return a.was


cdef object rearm_pending(Timer self, int64_t ns):
    """postpone of a function timer that is not periodic. What is pending has a worker, or will have one, and is the
    heap's already where that owns it."""
    cdef th_core* c = self.heap.core
    cdef th_timer* t = &self.t
    cdef int64_t when
    cdef arming a
    cdef bint armed
    if not FREE_THREADED and not pending(c, t):
        return False
    when = th_deadline(th_now(c), ns)
    th_lock(c)
    armed = postpone_record(c, t, when, &a)
    th_unlock(c)
    if a.wake:
        wake(c, <PyObject*>self.heap, <PyObject*>self, False)
    if a.was and not armed:
        refuse(self.heap)
    return armed


# ---- the class ------------------------------------------------------------------------------------------------------

cdef int init_channel_timer(Timer self, object delay, object heap) except -1:
    cdef int64_t ns = 0
    cdef Channel channel
    to_ns(delay, &ns, b"Timer() delay")
    self.heap = heap_or_default(heap, "Timer()")
    th_count(&self.heap.core.handles, 1)
    self.t.flags = TH_CHANNEL
    channel = new_channel(self.heap)
    incref(<PyObject*>channel)              # the handle's, released with func
    self.t.func = <void*>channel
    if FREE_THREADED:
        gc_track(<PyObject*>self)
    chan_arm(&channel.ch, ns, 0, True)
    return 0


cdef object reset_other(Timer self, int64_t ns, object delay):
    """reset of a channel timer, or of a periodic one."""
    if th_fixed_flags(&self.t) & TH_CHANNEL:
        return chan_arm(&(<Channel>self.t.func).ch, ns, 0, True)
    demand_positive(ns, delay, b"Timer.reset() period")
    return rearm_grid(self, ns, True)


cdef object postpone_other(Timer self, int64_t ns, object delay):
    """postpone, likewise."""
    if th_fixed_flags(&self.t) & TH_CHANNEL:
        return chan_arm(&(<Channel>self.t.func).ch, ns, 0, False)
    demand_positive(ns, delay, b"Timer.postpone() period")
    return rearm_grid(self, ns, False)


cdef object called(Timer self):
    """What a function timer calls. None for a channel timer, and for one that the collector has cleared."""
    cdef PyObject* func = NULL
    if not th_fixed_flags(&self.t) & TH_CHANNEL:
        if FREE_THREADED:
            th_lock(self.heap.core)
        func = <PyObject*>self.t.func
        if FREE_THREADED:
            th_unlock(self.heap.core)
    return <object>func if func != NULL else None


cdef tuple arguments_of(Timer self):
    """What a function timer calls it with; () where called() is None."""
    cdef void* args
    if FREE_THREADED:
        th_lock(self.heap.core)
    args = self.t.args                      # NULL once the collector has cleared the timer
    if FREE_THREADED:
        th_unlock(self.heap.core)
    return items_of_call(args, th_fixed_flags(&self.t))


cdef str time_left(Timer self):
    """For people to read."""
    when = self.when                        # once: without a GIL it may be None the next time
    if when is None:
        return "inactive"
    if when == INFINITY:
        return "never due"
    left = when - to_seconds(th_now(self.heap.core))
    return f"due in {left:.6f} s" if left > 0 else "due now"


@cython.final
cdef class Timer:
    """A timer that delivers one value on its channel, c, delay seconds from now: the deadline, as
    time.monotonic() counts.

    delay is in seconds: an int, a float, anything with __float__, or a datetime.timedelta; zero and
    less is due at once, inf is never. A float that is nearest to a whole number of nanoseconds is
    that number, any other is rounded up. AfterFunc and every make Timers that call a function instead; their c
    is None. Dropping a channel timer with its channel cancels it; a function timer fires whether or
    not its handle is kept. heap is the TimerHeap that it is armed on.
    """

    def __cinit__(self, delay, *, heap=None):
        init_channel_timer(self, delay, heap)

    def stop(self):
        """Cancel the timer. True if this call did: then the function will not run, and no receive
        gets the value, even one that was due already. False if the timer was not active: its
        function was launched (stop does not wait for it), its value received, or it had been
        stopped before.
        """
        cdef th_core* c
        cdef bint cancelled, idle = False
        if th_fixed_flags(&self.t) & TH_CHANNEL:
            return chan_stop(&(<Channel>self.t.func).ch)
        if not FREE_THREADED and th_state(&self.t) == TH_IDLE:
            return False
        fetch_handle(<PyObject*>self)
        c = self.heap.core
        if inherited(c, &self.t):
            disown(self)
            return False
        if FREE_THREADED or c.seq - self.t.seq < JUST_ARMED:
            th_lock(c)
            cancelled = stop_record(c, &self.t, &idle)
            th_unlock(c)
        else:
            cancelled = cancel(c, &self.t)
            if cancelled and c.stops % STOPS_A_SLICE == 0:
                th_lock(c)
                sweep(c)
                debug_check(c)
                th_unlock(c)
        if cancelled:
            if not always_tracked(c):
                gc_track(<PyObject*>self)
            if owned(&self.t):
                decref(<PyObject*>self)     # taken by lock_to_arm
            if idle if FREE_THREADED else c.live == 0:
                hold_no_more(c, <PyObject*>self.heap)
        return cancelled

    @cython.embedsignature(False)
    def reset(self, delay=MISSING):
        """reset($self, delay)\n--\n
        Arm the timer anew, delay seconds from now; for a timer of every() that is its period, too.
        True if that cancelled a pending run or an unreceived value, False if the timer was not
        active. Raises as the constructor does, and leaves the timer as it was then; RuntimeError when
        its heap is closed.
        """
        cdef int64_t ns = 0
        fetch_handle(<PyObject*>self)
        to_ns(delay, &ns, b"Timer.reset() delay")
        if th_fixed_flags(&self.t) & (TH_CHANNEL | TH_PERIODIC):
            return reset_other(self, ns, delay)
        return rearm(self, ns)

    @cython.embedsignature(False)
    def postpone(self, delay=MISSING):
        """postpone($self, delay)\n--\n
        reset(delay) if the timer is active, and True; else False, and nothing is touched: a timer
        that has expired, or was stopped, is not revived.
        """
        cdef int64_t ns = 0
        fetch_handle(<PyObject*>self)
        to_ns(delay, &ns, b"Timer.postpone() delay")
        if th_fixed_flags(&self.t) & (TH_CHANNEL | TH_PERIODIC):
            return postpone_other(self, ns, delay)
        return rearm_pending(self, ns)

    @property
    def c(self):
        """The Channel of a channel timer, the same across resets; None for a function timer."""
        if th_fixed_flags(&self.t) & TH_CHANNEL:
            return <Channel>self.t.func
        return None

    @property
    def period(self):
        """Seconds between the calls of a timer that every() made, inf for never; None for any other."""
        cdef int64_t ns
        if not th_fixed_flags(&self.t) & TH_PERIODIC:
            return None
        th_lock(self.heap.core)
        ns = th_periodic_of(&self.t).period if self.t.args != NULL else 0   # 0: the collector has cleared it
        th_unlock(self.heap.core)
        return deadline_or_inf(ns) if ns else None

    @property
    def active(self):
        """Whether stop() would return True: armed, or due and neither launched nor received."""
        cdef bint active
        if th_fixed_flags(&self.t) & TH_CHANNEL:
            return chan_active(&(<Channel>self.t.func).ch)
        if FREE_THREADED:
            th_lock(self.heap.core)
        active = pending(self.heap.core, &self.t)
        if FREE_THREADED:
            th_unlock(self.heap.core)
        return active

    @property
    def when(self):
        """The deadline in seconds on time.monotonic() (the heap's own clock for a manual heap), inf
        for never; None when not active."""
        cdef int64_t when
        cdef bint active
        if th_fixed_flags(&self.t) & TH_CHANNEL:
            return chan_when(&(<Channel>self.t.func).ch)
        th_lock(self.heap.core)
        when = self.t.when
        active = pending(self.heap.core, &self.t)
        th_unlock(self.heap.core)
        return deadline_or_inf(when) if active else None

    @property
    def func(self):
        """The function that it calls; None for a channel timer."""
        return called(self)

    @property
    def args(self):
        """The arguments that it calls its function with, a tuple."""
        return arguments_of(self)

    def __repr__(self):
        what = "Timer"
        func = called(self)
        if func is not None:
            period = self.period
            what = f"AfterFunc {func!r}" if period is None else f"every {period} s {func!r}"
        return f"<timerheap.{what} {time_left(self)}>"

    def __reduce__(self):
        raise TypeError("cannot copy or pickle 'Timer' objects")

    @classmethod
    def __class_getitem__(cls, item, /):
        """Timer[Channel] and Timer[None], by what c is: for annotations."""
        return GenericAlias(cls, item)


def after(delay, *, heap=None):
    """Timer(delay, heap=heap).c: a channel that delivers one value, delay seconds from now.
    """
    cdef int64_t ns = 0
    cdef Channel channel
    to_ns(delay, &ns, b"after() delay")
    channel = new_channel(heap_or_default(heap, "after()"))
    chan_arm(&channel.ch, ns, 0, True)
    return channel
