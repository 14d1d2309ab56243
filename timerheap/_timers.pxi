# TimerHeap, and the function timers: Timer and AfterFunc.
#
# A Timer handle is 64 bytes of object over a 16-byte collector header: the heap and the 40-byte
# record. Its type is laid out by Cython and finished by hand (finish_timer_type): handles have
# their own memory, and three slots depend on the state of the record:
#
#   tp_alloc      takes a slot of the handles' slab
#   tp_traverse   reveals func and args only while the timer is IDLE
#   tp_clear      likewise
#   tp_dealloc    leaves the record behind, in a slab slot or in place, when the heap or the run still points at it
#
# The handle of a channel timer is a Timer as well; its record is never armed, and func is its
# Channel.

cdef extern from *:
    """
    TH_THREAD int th_depth;         /* releases nested in this thread */
    TH_THREAD PyObject *th_later;   /* handles put off because of that, linked through t.when */
    """
    int th_depth
    PyObject* th_later

cdef TimerHeap the_default = None
cdef bint substituted = False       # by use(): a closed one is not replaced
cdef size_t TIMER_BYTES = (<PyTypeObject*>Timer).tp_basicsize + COLLECTOR_BYTES
cdef size_t CHANNEL_BYTES = (<PyTypeObject*>Channel).tp_basicsize


# ---- the heap object ------------------------------------------------------------------------------------------------

cdef class TimerHeap:
    """A set of timers with one worker thread, which is started by the first function timer and
    named after the heap. Channel timers need none.

    Callbacks run on the worker, one after another, or are submitted to executor, anything with
    submit(func, *args). What they raise is given to on_error(exception, timer), else to
    threading.excepthook.

    len(heap) is the number of timers that stop() would cancel: armed, due and not yet launched,
    expired and not yet received. A heap is true even when it is empty. As a context manager it is
    closed at the end of the block. A heap that nobody holds any more fires the function timers that
    are armed on it, then ends its worker and goes.
    """

    cdef th_core* core
    cdef readonly str name
    cdef object executor
    cdef object on_error
    cdef object reference     # a weak one to this heap, in all_heaps
    cdef set jobs             # what the executor has, see _jobs.pxi
    cdef object __weakref__

    def __cinit__(self, *args, **kwargs):
        self.core = <th_core*>calloc(1, sizeof(th_core))
        if self.core == NULL:
            raise MemoryError()
        th_init_locks(self.core)
        th_enlist(self.core)
        if not resize_keys(self.core, th_page):
            raise MemoryError()
        if not reserve_run(self.core, 1):
            raise MemoryError()
        self.jobs = set()
        remember(self)              # here: a subclass may forget to call __init__
        self.core.exiting = at_exit     # last: the exit handler finds the heap, or this finds that it has run

    def __init__(self, name="timerheap", *, executor=None, on_error=None):
        if not isinstance(name, str):
            raise TypeError(f"{type(self).__name__}() name must be a str, not {type(name).__name__}")
        if executor is not None and (isinstance(executor, type) or not hasattr(executor, "submit")):
            raise TypeError(f"{type(self).__name__}() executor must be an object with a submit method, not "
                            f"{an_instance(executor, object)}")
        if on_error is not None and not callable(on_error):
            raise TypeError(f"{type(self).__name__}() on_error must be callable, not {type(on_error).__name__}")
        with cython.critical_section(self):
            if self.name is not None:
                raise RuntimeError("a timer heap cannot be initialised twice")
            self.name = str.__str__(name)       # a plain str even of a subclass, an enumeration's member for one
            self.executor = executor
            self.on_error = on_error

    def __dealloc__(self):
        # No handle is left, and nothing is armed where a worker would fire it, or the heap would hold itself. The
        # worker, if there is one, is parked, or has a run whose timers were all stopped: the rest is its to free.
        cdef th_core* c = self.core
        cdef bint alone
        if c == NULL:
            return
        th_delist(c)
        if c.manual:
            let_all_go(self)
        th_lock(c)
        alone = c.post == NULL
        if not alone:
            c.closed = c.detached = True
            th_signal(c)
        th_unlock(c)
        if alone:
            th_core_free(c)

    def __len__(self):
        # What is left of a run when its heap is closed is void, even while the worker still lets go
        # of it.
        if FREE_THREADED:
            return armed_locked(self.core)
        return 0 if self.core.closed else self.core.live + self.core.chan_live + self.core.tickers

    def __bool__(self):
        return True

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.close()

    def __repr__(self):
        state = "closed" if self.core.closed else f"{len(self)} armed"
        return f"<timerheap.{type(self).__name__} {self.name!r}: {state}>"

    def __reduce__(self):
        raise TypeError(f"cannot copy or pickle {type(self).__name__!r} objects")

    def __sizeof__(self):
        return object.__sizeof__(self) + sizeof(th_core) + self.nbytes

    @property
    def closed(self):
        """Whether close() has been called."""
        return bool(self.core.closed)

    @property
    def nbytes(self):
        """Bytes of memory this heap holds for its timers: the native arrays as far as they have
        been touched, in whole pages, and the Timer and Channel objects that exist. Callbacks and their
        arguments belong to the caller and do not count."""
        cdef size_t native
        th_lock(self.core)
        native = native_bytes(self.core)
        th_unlock(self.core)
        return native + th_counted(&self.core.handles) * TIMER_BYTES + th_counted(&self.core.channels) * CHANNEL_BYTES

    def stats(self):
        """Counts since the heap was made, all ints. The ledger: arms == fired + received +
        cancelled + armed - tickers.

        armed: len(heap). arms: armings of one-shot timers. fired: callbacks launched. received:
        values received. cancelled: armings undone by stop, reset, close or fork. tickers: Tickers
        running, which none of the former counts. ticks: ticks received. errors: callbacks that
        raised. wakeups: times the worker woke. batches, longest_batch: runs of due timers and the
        size of the largest. rekeyed: postponed timers sorted anew. peak: most function timers armed
        at once. nbytes: see nbytes.
        """
        cdef th_core* c = self.core
        nbytes = self.nbytes
        th_chan_lock()
        cdef uint64_t chan_arms = c.chan_arms, received = c.received, chan_cancelled = c.chan_cancelled, ticks = c.ticks
        cdef size_t chan_live = c.chan_live, tickers = c.tickers
        th_chan_unlock()
        th_lock(c)
        cdef uint64_t arms = c.seq, fired = c.fired, cancelled = c.cancelled, wakeups = c.wakeups
        cdef uint64_t batches = c.batches, longest = c.longest, rekeyed = c.rekeyed
        cdef size_t live = c.live, peak = c.peak
        cdef bint closed = c.closed
        th_unlock(c)
        return {
            "armed": 0 if closed else live + chan_live + tickers,
            "arms": arms + chan_arms,
            "fired": fired,
            "received": received,
            "cancelled": cancelled + chan_cancelled,
            "tickers": tickers,
            "ticks": ticks,
            "errors": th_counted(&c.errors),
            "wakeups": wakeups,
            "batches": batches,
            "longest_batch": longest,
            "rekeyed": rekeyed,
            "peak": peak,
            "nbytes": nbytes,
        }

    def check(self):
        """Walk every invariant of the native heap. AssertionError names the first one broken, with
        index and both values.
        """
        cdef th_core* c = self.core
        cdef fault f
        cdef bint good
        # Under the GIL, so that no launch is half done (without one a launch is a single hold of M);
        # sorting needs no GIL and ends by itself.
        th_lock(c)
        while c.sorting:
            th_yield_lock(c)
        good = check_heap(c, &f)
        th_unlock(c)
        if not good:
            raise AssertionError(f"{f.what.decode()} at index {f.index}: {f.left} and {f.right}")

    def close(self):
        """Cancel every timer: handles are inactive, blocked receivers get RuntimeError, arming
        raises RuntimeError. Callbacks that an executor has not begun are called off.

        Waits for callbacks that are running, the executor's too: none begins once close() has
        returned. Not for the one that it is called from, nor for one that is in a close() itself,
        nor when the interpreter is on its way out. May be called again.
        """
        cdef th_core* c = self.core
        th_lock(c)
        first = not c.closed
        c.closed = True
        th_unlock(c)
        close_channels(c)
        let_all_go(self)
        if not c.manual and not c.exiting:
            mine = enter_close()
            try:
                join_worker(self, TH_NEVER)
                end_jobs(self)
            finally:
                leave_close(mine)
        if first and not c.running:
            let_run_go(c, <PyObject*>self)      # of a worker that has died
        if not (c.advancer if c.manual else c.running):     # else by whoever runs a callback at the moment
            drop_hooks(self)


cdef size_t armed_locked(th_core* c) noexcept nogil:
    """Takes C, then M. The length of a heap where other threads may run meanwhile."""
    cdef size_t channels, armed
    th_chan_lock()
    channels = c.chan_live + c.tickers
    th_chan_unlock()
    th_lock(c)
    armed = 0 if c.closed else c.live + channels
    th_unlock(c)
    return armed


# What is armed on a manual heap fires only if somebody turns the clock: a heap that nobody reaches any more goes with
# all that its timers hold. So it shows that to the collector: functions and arguments of what is armed, while the
# handles show their heap alone; and, without a GIL, the handles that belong to it. Only attached threads work on a
# manual heap: the world stands still, and nothing is half done.

cdef int (*heap_fields_traverse)(PyObject* self, visitproc visit, void* arg) noexcept
cdef int (*heap_fields_clear)(PyObject* self) noexcept


cdef int heap_traverse(PyObject* self, visitproc visit, void* arg) noexcept:
    cdef th_core* c = (<TimerHeap>self).core
    cdef size_t i
    cdef int result = heap_fields_traverse(self, visit, arg)
    if c == NULL:
        return result
    for i in range(c.len):
        if result == 0 and c.keys[i].timer.state == TH_ARMED:
            result = visit_armed(c.keys[i].timer, visit, arg)
    for i in range(c.run_head, c.run_len):
        if result == 0 and c.run[i].timer.state == TH_DUE:
            result = visit_armed(c.run[i].timer, visit, arg)
    return result


cdef inline int visit_armed(th_timer* t, visitproc visit, void* arg) noexcept:
    cdef int result = visit(handle_of(t), arg) if FREE_THREADED else 0
    return result if result else visit_call(t, visit, arg)


cdef int heap_clear(PyObject* self) noexcept:
    cdef th_core* c = (<TimerHeap>self).core
    if c != NULL:
        let_all_go(<TimerHeap>self)
    return heap_fields_clear(self)


cdef int reveal_timers(type cls) except -1:
    """For ManualHeap."""
    global heap_fields_traverse, heap_fields_clear
    cdef PyTypeObject* t = <PyTypeObject*>cls
    heap_fields_traverse = <int (*)(PyObject*, visitproc, void*) noexcept>t.tp_traverse
    heap_fields_clear = <int (*)(PyObject*) noexcept>t.tp_clear
    t.tp_traverse = <traverseproc><void*>heap_traverse
    t.tp_clear = <inquiry><void*>heap_clear
    return 0


cdef void remember(TimerHeap heap):
    """Note the heap for fork and exit. By single steps: a collection in between may make another heap."""
    reference = weakref.ref(heap, forget)
    heap.reference = reference
    all_heaps[id(reference)] = reference, <size_t>heap.core


def forget(reference):
    """The heap is about to go; or the collector takes it for garbage, and a finalizer may yet arm on it, see ready."""
    cdef th_core* c
    entry = all_heaps.pop(id(reference), None)
    if entry is not None:
        c = <th_core*><size_t>entry[1]
        th_lock(c)
        c.ready = c.manual
        th_unlock(c)


def default_heap():
    """The heap of all timers that name no other: made on first use, and anew should it have been
    closed. Within timerheap.testing.use() it is the heap given there, and a RuntimeError once that
    is closed.
    """
    return current_default()


cdef inline TimerHeap current_default():
    if FREE_THREADED:
        return shared_default(True)
    if the_default is None or the_default.core.closed:
        return new_default()
    return the_default


cdef TimerHeap new_default():
    global the_default
    cdef TimerHeap heap
    if substituted and the_default is not None:
        raise RuntimeError("the heap that use() has made the default one is closed")
    heap = TimerHeap()
    if the_default is None or the_default.core.closed:          # else a finalizer or a thread came first
        the_default = heap
    return the_default


cdef TimerHeap shared_default(bint make):
    """The default heap where other threads may change it meanwhile: without a GIL, reading it and taking a reference
    are two steps. None if there is none and it is not to be made.

    Making a heap may give up the critical section (a finalizer runs), so the second look is needed here as well.
    """
    global the_default
    cdef TimerHeap heap
    with cython.critical_section(all_heaps):
        heap = the_default
        if make and (heap is None or heap.core.closed):
            heap = new_default()
    return heap


def swap_default_heap(TimerHeap heap, bint substitute):
    """Make heap (None: a new one on the next use) the default heap, which is not to be replaced when it is closed if it
    is a substitute. Returns both as they were."""
    global the_default, substituted
    with cython.critical_section(all_heaps):
        before = the_default, substituted
        the_default = heap
        substituted = substitute
    return before


cdef inline TimerHeap heap_or_default(object heap, str what):
    if heap is None:
        return current_default()
    if not isinstance(heap, TimerHeap):
        raise TypeError(f"{what} heap must be a TimerHeap, not {an_instance(heap, TimerHeap)}")
    return <TimerHeap>heap


cdef inline int ready(TimerHeap heap) except -1:
    """Before arming: the worker is there, or on its way. False: there will be none."""
    if heap.core.ready:
        return True
    return start_worker(heap)


cdef inline void hold(th_core* c, PyObject* heap) noexcept:
    """What is armed will fire: the heap takes a reference to itself. Given up by hold_no_more."""
    if not c.manual:
        incref(heap)


cdef int refuse(TimerHeap heap) except -1:
    """Why an arming did not happen; M is free again."""
    if heap.core.closed:
        raise RuntimeError(CLOSED_HEAP)
    raise MemoryError()


# ---- function timers ------------------------------------------------------------------------------------------------

@cython.final
cdef class Timer:
    """A timer that delivers one value on its channel, c, delay seconds from now: the deadline, as
    time.monotonic() counts.

    delay is in seconds: an int, a float, anything with __float__, or a datetime.timedelta; zero and
    less is due at once, inf is never. A float that is nearest to a whole number of nanoseconds is
    that number, any other is rounded up. AfterFunc makes Timers that call a function instead; their c
    is None. Dropping a channel timer with its channel cancels it; a function timer fires whether or
    not its handle is kept.
    """

    cdef TimerHeap heap
    cdef th_timer t

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
            debug_check(c)
            cancelled = cancel(c, &self.t)
            idle = c.live == 0
            if cancelled:
                clear_away(c, &self.t)
            debug_check(c)
            th_unlock(c)
        else:
            cancelled = cancel(c, &self.t)
            if cancelled and c.stops % STOPS_A_SLICE == 0:
                th_lock(c)
                sweep(c)
                debug_check(c)
                th_unlock(c)
        if cancelled:
            if FREE_THREADED:
                decref(<PyObject*>self)     # taken by arm
            elif not always_tracked(c):
                gc_track(<PyObject*>self)
            if idle if FREE_THREADED else c.live == 0:
                hold_no_more(c, <PyObject*>self.heap)
        return cancelled

    @cython.embedsignature(False)
    def reset(self, delay=MISSING):
        """reset($self, delay)\n--\n
        Arm the timer anew, delay seconds from now. True if that cancelled a pending run or an
        unreceived value, False if the timer was not active. Raises as the constructor does, and
        leaves the timer as it was then; RuntimeError when its heap is closed.
        """
        cdef int64_t ns = 0
        fetch_handle(<PyObject*>self)
        to_ns(delay, &ns, b"Timer.reset() delay")
        if th_fixed_flags(&self.t) & TH_CHANNEL:
            return chan_arm(&(<Channel>self.t.func).ch, ns, 0)
        return rearm(self, ns)

    @property
    def c(self):
        """The Channel of a channel timer, the same across resets; None for a function timer."""
        if th_fixed_flags(&self.t) & TH_CHANNEL:
            return <Channel>self.t.func
        return None

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

    def __repr__(self):
        what = "Timer"
        func = called(self)
        if func is not None:
            what = f"AfterFunc {func!r}"
        when = self.when                # once: without a GIL it may be None the next time
        return f"<timerheap.{what} {'inactive' if when is None else f'due at {when:.9f}'}>"

    def __reduce__(self):
        raise TypeError("cannot copy or pickle 'Timer' objects")


cdef inline void fetch_handle(PyObject* self) noexcept nogil:
    """Ask for the ends of a handle, whose middle is being waited for: they lie in two cache lines mostly."""
    prefetch(<char*>self - COLLECTOR_BYTES)
    prefetch(<char*>self + TH_TIMER_SIZE - 1)


cdef inline bint inherited(th_core* c, th_timer* t) noexcept nogil:
    """Whether t was last armed by the parent of a fork, in its child: whatever the record says is void then."""
    return th_seq(t) <= c.inherited


cdef inline bint pending(th_core* c, th_timer* t) noexcept nogil:
    return th_state(t) != TH_IDLE and not c.closed and not inherited(c, t)


cdef inline bint make_void(th_timer* t) noexcept nogil:
    """An inherited record becomes one that was never armed. True if it was, by the parent."""
    cdef bint was = t.state != TH_IDLE
    t.state = TH_IDLE
    th_unmark(t, TH_PINNED | TH_KEYED | TH_RISING)
    return was


cdef void disown(Timer self) noexcept:
    """make_void for a handle, which the collector gets back, or which gets back what the parent's heap has held. Unless
    another thread came first, which may have armed it by now."""
    cdef bint was
    th_lock(self.heap.core)
    was = inherited(self.heap.core, &self.t) and make_void(&self.t)
    th_unlock(self.heap.core)
    if was and FREE_THREADED:
        decref(<PyObject*>self)
    elif was and not always_tracked(self.heap.core):
        gc_track(<PyObject*>self)


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


cdef inline Timer new_timer(TimerHeap heap):
    """An inactive, untracked Timer without a function: every field is set, nothing else has seen
    it."""
    cdef PyObject* o = th_new_timer(<PyTypeObject*>Timer)
    if o == NULL:
        raise MemoryError()
    incref(<PyObject*>heap)
    init_fields(o, <PyObject*>heap)
    timer = <Timer>o
    decref(o)
    return timer


cdef inline void init_fields(PyObject* o, PyObject* heap) noexcept:
    # heap lies right before t. Not by assignment, which would release what was there before: the
    # memory is fresh.
    (<PyObject**>&(<Timer>o).t - 1)[0] = heap
    memset(&(<Timer>o).t, 0, sizeof(th_timer))
    th_count(&(<TimerHeap>heap).core.handles, 1)


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
    chan_arm(&channel.ch, ns, 0)
    return 0


cdef inline int lock_to_arm(TimerHeap heap, PyObject* handle, int64_t ns, int64_t* when) except -1:
    """Take M, with a worker there or on its way, and when set to ns from now. Without a GIL the heap has a reference to
    the handle then. On an error neither M nor a reference is held.

    The worker may have gone since, for a fork or because it died, or the start that ready() saw under way may have
    failed, and whoever saw that does not know of this timer. So it is looked at once more under M.
    """
    cdef th_core* c = heap.core
    cdef bint wanted
    while True:
        wanted = ready(heap)
        if FREE_THREADED:
            incref(handle)                  # the heap's; given up by stop, launch or let_all_go
        when[0] = th_deadline(th_now(c), ns)
        th_lock(c)
        if not wanted or c.running or c.pausing or c.closed:
            return 0
        th_unlock(c)
        if FREE_THREADED:
            decref(handle)


cdef inline int arm(TimerHeap heap, PyObject* handle, th_timer* t, int64_t ns) except -1:
    """IDLE -> ARMED, ns from now. t is no channel timer's. RuntimeError, MemoryError: nothing was
    armed."""
    cdef th_core* c = heap.core
    cdef int64_t when
    cdef bint wake, armed, first
    lock_to_arm(heap, handle, ns, &when)
    debug_check(c)
    armed = not c.closed and push(c, t, when)
    wake = armed and precedes_wake(c, when)
    first = armed and c.live == 1
    debug_check(c)
    th_unlock(c)
    if wake:
        th_signal(c)
    if first:
        hold(c, <PyObject*>heap)
    if not armed:
        if FREE_THREADED:
            decref(handle)
        refuse(heap)
    return 0


cdef object rearm(Timer self, int64_t ns):
    """reset of a function timer."""
    cdef TimerHeap heap = self.heap
    cdef th_core* c = heap.core
    cdef th_timer* t = &self.t
    cdef int64_t when
    cdef bint wake, first, armed = True, cleared = False
    cdef uint16_t was
    if inherited(c, t):
        disown(self)
    lock_to_arm(heap, <PyObject*>self, ns, &when)
    debug_check(c)
    was = t.state
    if c.closed:
        armed = False
    elif was == TH_ARMED:
        postpone(c, t, when)
    elif t.func == NULL:
        armed = False
        cleared = True                      # by the collector
    elif t.flags & TH_KEYED:
        postpone(c, t, when)
    else:
        armed = grow_keys(c)
        if armed:
            cancel(c, t)
            push(c, t, when)
    wake = armed and precedes_wake(c, when)
    first = armed and was == TH_IDLE and c.live == 1
    debug_check(c)
    th_unlock(c)
    if wake:
        th_signal(c)
    if first:
        hold(c, <PyObject*>heap)
    if FREE_THREADED and (was != TH_IDLE or not armed):
        decref(<PyObject*>self)             # the heap has its reference already, or needs none
    if not armed:
        if cleared:
            raise RuntimeError("the timer has been cleared by the garbage collector")
        refuse(heap)
    if not always_tracked(c) and was == TH_IDLE:
        gc_untrack(<PyObject*>self)
    return was != TH_IDLE


cdef Timer adopt(TimerHeap heap, th_timer* record):
    """A handle for a fired timer that had none: it takes over func and args, and record has them no
    longer."""
    cdef Timer timer = new_timer(heap)
    timer.t.func = record.func
    timer.t.args = record.args
    timer.t.flags = record.flags & (TH_ARGS_ONE | TH_ARGS_BLOCK)
    record.func = record.args = NULL
    gc_track(<PyObject*>timer)
    return timer


# ---- slots of the Timer type ----------------------------------------------------------------------------------------

cdef int timer_traverse(PyObject* self, visitproc visit, void* arg) noexcept:
    cdef th_timer* t = &(<Timer>self).t
    cdef int result = visit(<PyObject*>(<Timer>self).heap, arg)
    if result or th_state(t) != TH_IDLE:
        return result
    return visit_call(t, visit, arg)


cdef int visit_call(th_timer* t, visitproc visit, void* arg) noexcept:
    """Show what a record owns."""
    cdef th_block* block
    cdef size_t i
    cdef int result
    cdef uint16_t flags = th_fixed_flags(t)
    if t.func == NULL:
        return 0
    result = visit(<PyObject*>t.func, arg)
    if result == 0 and flags & TH_ARGS_ONE:
        result = visit(<PyObject*>t.args, arg)
    if result == 0 and flags & TH_ARGS_BLOCK:
        block = <th_block*>t.args
        if block.context != NULL:
            result = visit(<PyObject*>block.context, arg)
        for i in range(block.nargs):
            if result:
                break
            result = visit(<PyObject*>block.items[i], arg)
    return result


cdef int timer_clear(PyObject* self) noexcept:
    """Let go of the callback, not of the heap: methods of a cleared handle may still be called by
    finalizers."""
    cdef th_timer* t = &(<Timer>self).t
    cdef void* func
    cdef void* args
    cdef uint16_t flags = th_fixed_flags(t)
    if flags & TH_CHANNEL or (<Timer>self).heap is None:
        return 0
    # A finalizer may have handed the timer to another thread, which arms it at this moment.
    if FREE_THREADED:
        th_lock((<Timer>self).heap.core)
    func = t.func
    args = t.args
    if th_state(t) == TH_IDLE:
        t.func = t.args = NULL
    else:
        func = args = NULL
    if FREE_THREADED:
        th_unlock((<Timer>self).heap.core)
    drop_call(func, args, flags)
    return 0


cdef int timer_let_go(PyObject* self) noexcept:
    """The handle's last reference is gone. True if its memory may be freed; False if the heap or
    the run goes on with it.

    ARMED: the record moves to a slab slot. Where there is no memory for one, or a run entry points
    here, it stays as a carcass that the worker frees. Free-threaded, an ARMED or DUE handle has the
    heap's reference and does not come here.
    """
    cdef th_timer* t = &(<Timer>self).t
    cdef th_timer* orphan
    cdef th_core* c
    cdef void* func
    cdef void* args
    cdef uint16_t flags
    cdef PyObject* heap = <PyObject*>(<Timer>self).heap
    if (<Timer>self).heap is None:
        return True
    if th_state(t) == TH_IDLE and not th_flags(t) & (TH_PINNED | TH_KEYED | TH_RISING) and not FREE_THREADED:
        return True
    c = (<Timer>self).heap.core
    th_lock(c)
    if inherited(c, t):
        make_void(t)
    entomb(c, t)
    flags = t.flags
    if t.state == TH_IDLE and not (flags & TH_PINNED):
        th_unlock(c)
        return True
    if t.state == TH_ARMED and not (flags & TH_PINNED):
        orphan = <th_timer*>th_slab_alloc(&c.orphans, sizeof(th_timer))
        if orphan != NULL:
            orphan[0] = t[0]
            orphan.flags |= TH_ORPHAN
            c.keys[t.pos].timer = orphan
            th_unkeyed(t)
            t.state = TH_IDLE
            t.func = t.args = NULL
            th_unlock(c)
            return True
    func = args = NULL
    if t.state == TH_IDLE:
        func = t.func
        args = t.args
        t.func = t.args = NULL
    th_mark(t, TH_CARCASS)
    th_unlock(c)
    # From here on self is the worker's: a finalizer that gives up the GIL lets it launch the entry and free the memory.
    th_count(&c.handles, -1)
    drop_call(func, args, flags)
    decref(heap)
    return False


cdef void timer_release(PyObject* self) noexcept:
    """Free an IDLE handle and what it owns."""
    cdef th_timer* t = &(<Timer>self).t
    cdef PyObject* heap = <PyObject*>(<Timer>self).heap
    if (<Timer>self).heap is not None:
        th_count(&(<Timer>self).heap.core.handles, -1)
    drop_call(t.func, t.args, t.flags)
    xdecref(heap)
    th_del_timer(self)


cdef void put_off(PyObject* self) noexcept:
    """Leave a dead handle to the outermost release. Only IDLE, or it would be launched; with its key out, for its
    deadline becomes the link. A run entry may point at it: the worker finds nothing to do there."""
    global th_later
    cdef th_timer* t = &(<Timer>self).t
    if th_state(t) != TH_IDLE:
        if not timer_let_go(self):
            return
    elif th_flags(t) & (TH_KEYED | TH_RISING):
        th_lock((<Timer>self).heap.core)
        if inherited((<Timer>self).heap.core, t):
            make_void(t)
        entomb((<Timer>self).heap.core, t)
        th_unlock((<Timer>self).heap.core)
    t.when = <int64_t><size_t>th_later
    th_later = self


cdef void timer_dealloc(PyObject* self) noexcept:
    """tp_dealloc. A chain of handles, each the last holder of the next, must not nest as deep as it
    is long: from NESTING on the rest is put off until the outermost release is done. (CPython's own
    trashcan allows 10,000 levels on 3.13, which is more than a small thread's stack holds.)"""
    global th_depth, th_later
    gc_untrack(self)
    if th_depth == NESTING:
        put_off(self)
        return
    th_depth += 1
    if timer_let_go(self):
        timer_release(self)
    if th_depth == 1:
        while th_later != NULL:
            self = th_later
            th_later = <PyObject*><size_t>(<Timer>self).t.when
            if timer_let_go(self):
                timer_release(self)
    th_depth -= 1


cdef int finish_timer_type() except -1:
    global timer_call_unchecked, timer_new_unchecked
    cdef PyTypeObject* type = <PyTypeObject*>Timer
    assert type.tp_basicsize == TH_TIMER_SIZE
    timer_call_unchecked = change_vectorcall(type, timer_call)
    timer_new_unchecked = change_new(type, timer_new)
    set_iter(type, no_iterator)
    set_alloc(type, <void*>th_alloc_timer)
    type.tp_dealloc = <destructor><void*>timer_dealloc
    type.tp_traverse = <traverseproc><void*>timer_traverse
    type.tp_clear = <inquiry><void*>timer_clear
    th_examine_header(type, sys.getsizeof([]) - [].__sizeof__())
    return 0


# ---- AfterFunc ------------------------------------------------------------------------------------------------------

cdef const char* AFTER_FUNC_DOC = b"""AfterFunc(delay, func, /, *args, context=None, heap=None)
--

Call func(*args) once, delay seconds from now, on the heap's worker thread. Returns the Timer.

delay is in seconds: an int, a float, anything with __float__, or a datetime.timedelta; zero and
less is due at once, inf is never. A float that is nearest to a whole number of nanoseconds is that
number, any other is rounded up. The call is made in context, a contextvars.Context, or else in an
empty one. Keyword arguments for func go through functools.partial. The timer fires whether or not
its handle is kept; stop() and reset() of the handle cancel and postpone it.

Raises TypeError for a func that cannot be called and a delay that is no real number, ValueError for
NaN, RuntimeError for a closed heap."""

cdef PyMethodDef after_func_method
after_func_method.ml_name = b"AfterFunc"
after_func_method.ml_meth = <PyCFunction><void*>after_func
after_func_method.ml_flags = METH_FASTCALL | METH_KEYWORDS
after_func_method.ml_doc = AFTER_FUNC_DOC


cdef PyObject* after_func(PyObject* module, PyObject** args, Py_ssize_t nargs, PyObject* kwnames) except NULL:
    """AfterFunc, without a Python frame or an argument tuple."""
    cdef PyObject* context = NULL
    cdef PyObject* where = NULL
    cdef TimerHeap heap
    cdef Timer timer
    cdef int64_t ns = 0
    if nargs < 2:
        refuse_too_few(args, nargs, kwnames)
    if kwnames != NULL:
        after_func_keywords(args + nargs, kwnames, &context, &where)
    if not PyCallable_Check(args[1]):
        refuse_func(<object>args[0], <object>args[1])
    to_ns(<object>args[0], &ns, b"AfterFunc() delay")
    heap = current_default() if where == NULL else heap_or_default(<object>where, "AfterFunc()")
    timer = new_timer(heap)
    if nargs == 3 and context == NULL:
        incref(args[2])
        timer.t.args = args[2]
        timer.t.flags = TH_ARGS_ONE
    elif nargs > 2 or context != NULL:
        timer.t.args = new_block(args + 2, nargs - 2, context)
        timer.t.flags = TH_ARGS_BLOCK
    incref(args[1])
    timer.t.func = args[1]
    if always_tracked(heap.core):
        gc_track(<PyObject*>timer)
    arm(heap, <PyObject*>timer, &timer.t, ns)
    incref(<PyObject*>timer)
    return <PyObject*>timer


cdef int after_func_keywords(PyObject** values, PyObject* kwnames, PyObject** context, PyObject** heap) except -1:
    cdef Py_ssize_t i
    cdef PyObject* name
    for i in range(PyTuple_GET_SIZE(kwnames)):
        name = PyTuple_GET_ITEM(kwnames, i)
        if values[i] == <PyObject*>None and PyUnicode_Compare(name, b"context") == 0:
            continue
        if PyUnicode_Compare(name, b"context") == 0:
            if not PyContext_CheckExact(values[i]):
                raise TypeError("AfterFunc() context must be a contextvars.Context, as copy_context() gives one, not "
                                f"{type(<object>values[i]).__name__}")
            context[0] = values[i]
        elif PyUnicode_Compare(name, b"heap") == 0:
            heap[0] = values[i]
        else:
            refuse_keyword(<str><object>name)
    return 0


cdef th_block* new_block(PyObject** args, Py_ssize_t nargs, PyObject* context) except NULL:
    cdef th_block* block = <th_block*>PyMem_Malloc(sizeof(th_block) + nargs * sizeof(void*))
    cdef Py_ssize_t i
    if block == NULL:
        raise MemoryError()
    if context != NULL:
        incref(context)
    block.context = context
    block.nargs = nargs
    for i in range(nargs):
        incref(args[i])
        block.items[i] = args[i]
    return block


cdef list published = []                # keeps the C strings below alive


cdef int publish(type cls, str signature) except -1:
    """Give a class its public name and the signature that help() and inspect show."""
    cdef PyTypeObject* t = <PyTypeObject*>cls
    cdef bytes name = f"timerheap.{cls.__name__}".encode()
    cdef bytes doc = f"{cls.__name__}{signature}\n--\n\n{cls.__doc__}".replace("\n    ", "\n").encode()
    published.extend((name, doc))
    t.tp_name = name
    t.tp_doc = doc
    return 0


AfterFunc = PyCFunction_NewEx(&after_func_method, NULL, "timerheap")
finish_timer_type()
add_misnomers(Timer, TIMER_MISNOMERS)
heap_init_unchecked = change_init(<PyTypeObject*>TimerHeap, heap_init)
publish(Timer, "(delay, *, heap=None)")
publish(TimerHeap, "(name='timerheap', *, executor=None, on_error=None)")
