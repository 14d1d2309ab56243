# LoopHeap: a TimerHeap whose callbacks an event loop runs, in its own thread.
#
# It has no worker. What is due is fired in a turn, which the loop is asked for by its public methods alone, so any loop
# will do. Between two turns core.wake_at, guarded by M, is
#
#   a deadline    the loop has planned a turn for then, by call_later: handle and handle_at
#   TH_NEVER      none: nothing is armed
#   INT64_MIN     one is asked for, by call_soon, or under way: no arming need ask
#
# and the wake protocol is that of park.pxi: an arming earlier than wake_at sets it to INT64_MIN under M, and asks for a
# turn; a turn writes it again, under the hold of M under which it has looked at the root. So a loop iteration that arms
# a thousand timers asks once, from other threads too (call_soon_threadsafe), and what is later than the plan asks for
# nothing. Not by call_later, which is less than a plan needs: heaps of loops are not made to be entered again, and a
# finalizer may arm in the middle of one.
#
# A turn collects, sorts and fires one run, and plans the next. What its callbacks arm comes in a later turn, so I/O
# comes in between. A plan that comes too early, for its timer was stopped or postponed meanwhile, is left: it costs one
# turn that finds nothing, and less than to plan anew each time. Loops come early as well: uvloop rounds to
# milliseconds. To ask such a loop for what is left would be to spin, so it is asked for a millisecond at least.
#
# The collector sees what is armed, and the handles, as on a ManualHeap (manual.pxi): a loop that is dropped takes its
# heap along. Its thread is attached to the interpreter all through a turn, for that. The heap has but a weak reference
# to its loop, in whose __dict__ it is kept; where there is none, a WeakKeyDictionary does.
#
# The end of a turn that a callback breaks off (KeyboardInterrupt, SystemExit) is in callbacks.pxi, break_off.

cdef enum:
    EARLY = 20000           # ns: a loop that comes so early does not wait more exactly than that
    COARSE = 1000000        # ns: what it is asked for at least then
    LEFT = 50000000         # ns: by then a loop that is being left has been, or it would fire the rest before
    DAY = 86400             # s: the longest wait that a loop is asked for


cdef object open_loop(LoopHeap heap):
    """The loop, or None if it is gone, or closed. Such a loop's heap is closed as well."""
    loop = heap.loop() if heap.loop is not None else None
    if loop is not None and not loop.is_closed():
        return loop
    heap.close()
    return None


cdef int ask_loop(LoopHeap heap) except -1:
    """Ask for a turn, as soon as can be: wake_at is INT64_MIN. What is raised in between by a signal handler must not
    have it that nobody asks: so a second try."""
    cdef bint again = False
    loop = open_loop(heap)
    if loop is None:
        raise RuntimeError(CLOSED_HEAP)
    try:
        ask(heap, loop)
    except BaseException:
        if loop.is_closed():
            heap.close()
            raise RuntimeError(CLOSED_HEAP) from None
        again = True
        raise
    finally:
        if again and not try_to_ask(heap, loop):
            set_wake(heap.core, TH_NEVER)       # the next arming asks
    return 0


cdef bint try_to_ask(LoopHeap heap, object loop):
    try:
        ask(heap, loop)
    except BaseException:
        return False
    return True


cdef int ask(LoopHeap heap, object loop) except -1:
    if get_running_loop() is loop:
        loop.call_soon(heap._asked, context=fresh_context())
    else:
        loop.call_soon_threadsafe(heap._asked, context=fresh_context())
    return 0


cdef void set_wake(th_core* c, int64_t when) noexcept nogil:
    """Takes M."""
    th_lock(c)
    c.wake_at = when
    th_unlock(c)


# ---- turns ----------------------------------------------------------------------------------------------------------

cdef int64_t next_turn(LoopHeap heap) noexcept:
    """Takes M. Write down what is planned from now on: the deadline to plan a turn for, TH_NEVER if none is to be."""
    cdef th_core* c = heap.core
    cdef int64_t when = TH_NEVER
    th_lock(c)
    collect(c, INT64_MIN)               # nothing: it brings the root up to date
    if c.run_head < c.run_len:
        when = th_monotonic()           # the rest of a run that was broken off
    elif c.len:
        when = c.keys[0].when
    if c.closed:
        when = TH_NEVER
    elif heap.handle is not None and heap.handle_at <= when:
        c.wake_at = heap.handle_at
        when = TH_NEVER
    else:
        c.wake_at = when
    th_unlock(c)
    return when


cdef int plan(LoopHeap heap, int64_t least) except -1:
    """In the loop's thread: the next turn, in so many ns at least."""
    cdef double delay
    cdef int64_t left, when = next_turn(heap)
    if when == TH_NEVER:
        return 0
    loop = open_loop(heap)
    if loop is None:
        return 0
    if heap.handle is not None:
        heap.handle.cancel()
        heap.handle = None
    left = max(when - th_monotonic(), least)
    delay = min(left / 1e9, <double>DAY)
    heap.handle_at = when
    heap.handle = loop.call_later(delay, heap._due, context=fresh_context())
    return 0


cdef bint begin_turn(LoopHeap heap, uint32_t* turn) noexcept:
    """Takes M. The run, sorted, in firing order. False: there is none."""
    cdef th_core* c = heap.core
    cdef bint due
    th_lock(c)
    c.wake_at = INT64_MIN
    c.wakeups += 1
    collect(c, th_now(c))
    sort_run(c)
    due = c.run_head < c.run_len
    if due:
        c.batches += 1
        c.longest = max(c.longest, c.run_len - c.run_head)
    c.firing = due
    turn[0] = c.generation
    th_unlock(c)
    return due


cdef bint enter_turn(th_core* c) noexcept:
    """Takes M. False: one is under way, in a callback of which the loop runs again. It plans what comes after it."""
    cdef bint free
    th_lock(c)
    free = c.advancer == 0
    if free:
        c.advancer = th_thread()
    th_unlock(c)
    return free


cdef void end_turn(TimerHeap heap) noexcept:
    """Takes M. enter_turn has let the caller in."""
    cdef th_core* c = heap.core
    if c.closed:
        let_run_go(c, <PyObject*>heap)
    th_lock(c)
    if c.run_len and c.run_head == c.run_len:
        end_run(c)                      # the last one of it has broken the turn off
    c.firing = False
    c.advancer = 0
    th_unlock(c)
    if c.closed:
        drop_hooks(heap)


cdef void leave_turn(LoopHeap heap) noexcept:
    """Takes M."""
    end_turn(heap)
    if heap.core.closed:
        drop_plan(heap)


cdef bint await_turn(th_core* c, int64_t until) except -1:
    """Wait for the turn that is under way in another thread until the absolute time, or until its callback waits in a
    close() itself. False when neither has come. Runs signal handlers."""
    while c.advancer and c.advancer != th_thread() and not c.closing:
        if th_monotonic() >= until:
            return False
        with nogil:
            th_nap()
        PyErr_CheckSignals()
    return True


cdef object take_plan(LoopHeap heap):
    """Its handle, or None, which is no longer there: to whoever comes first, its loop, where it has come due, or who
    closes the heap meanwhile."""
    with cython.critical_section(heap):
        handle = heap.handle
        heap.handle = None
    return handle


cdef void drop_plan(LoopHeap heap) noexcept:
    """Of a closed heap. Where the loop runs in another thread, the handle is left to come, and finds nothing."""
    handle = take_plan(heap)
    if handle is None:
        return
    try:
        loop = heap.loop()
        if loop is not None and (get_running_loop() is loop or not (loop.is_running() or loop.is_closed())):
            handle.cancel()
    except BaseException:
        write_unraisable(<PyObject*>heap)


cdef int take_turn(LoopHeap heap, bint early) except -1:
    """early: the loop does not wait exactly."""
    cdef uint32_t turn
    if not enter_turn(heap.core):
        return 0
    try:
        if begin_turn(heap, &turn):
            fire_run(heap, turn)
        plan(heap, LEFT if heap.leaving is not None else COARSE if early else 0)
    except BaseException:
        loop = heap.loop()
        if loop is None or not try_to_ask(heap, loop):
            set_wake(heap.core, TH_NEVER)
        raise
    finally:
        leave_turn(heap)
    return raise_leaving(heap)


# ---- the class ------------------------------------------------------------------------------------------------------

@cython.final
cdef class LoopHeap(TimerHeap):
    """The TimerHeap of an event loop, which runs its callbacks in its own thread. timerheap.asyncio.heap() has it."""

    def __cinit__(self, *args, **kwargs):
        self.waiters = set()
        self.core.driven = True
        self.core.running = self.core.ready = True
        self.core.exiting = False
        set_wake(self.core, TH_NEVER)

    def __init__(self, loop, name):
        TimerHeap.__init__(self, name)
        self.loop = weakref.ref(loop)

    def _asked(self):
        """A turn, for an arming has asked for it."""
        take_turn(self, False)

    def _due(self):
        """A turn, for it was planned."""
        take_plan(self)
        take_turn(self, self.handle_at - th_monotonic() > EARLY)

    def close(self, timeout=None):
        """TimerHeap.close, which the end of the loop is as well. timerheap.asyncio.heap() makes another then, as long
        as the loop is open.
        """
        cdef int64_t ns = 0, until = TH_NEVER
        cdef bint over = True
        if timeout is not None:
            to_ns(timeout, &ns, b"TimerHeap.close() timeout")
            until = th_deadline(th_monotonic(), ns)
        TimerHeap.close(self)
        mine = enter_close()
        try:
            over = await_turn(self.core, until)
        finally:
            leave_close(mine)
        if enter_turn(self.core):       # else whoever is in a turn does this
            leave_turn(self)
        if not over:
            raise TimeoutError("callbacks of the timer heap still run; it is closed")


# ---- a loop's heaps -------------------------------------------------------------------------------------------------

cdef str HEAP_OF_LOOP = "_timerheap_heap", WAITS_OF_LOOP = "_timerheap_waits", CLOSE_OF_LOOP = "close"
cdef str MANUAL_OF_LOOP = "_timerheap_manual"       # of a loop under virtual time: the ManualHeap that it was given
cdef object bare_loops = weakref.WeakKeyDictionary()        # without a __dict__: what would be in there


@cython.final
cdef class LoopEnd:
    """Stands in a loop's __dict__ for its close(), after which it closes the loop's heaps, and is no more. The loop's
    coroutines leave the lines of their channels then. Holds the loop, whose finalizer may call it, when weak references
    are gone."""

    cdef object loop
    cdef object before          # what stood there before, or None

    def __call__(self):
        loop = self.loop
        kept = loop.__dict__
        if self.before is not None:
            self.before()
        else:
            type(loop).close(loop)
        if kept.get(CLOSE_OF_LOOP) is self:
            del kept[CLOSE_OF_LOOP]
            if self.before is not None:
                kept[CLOSE_OF_LOOP] = self.before
        for key in (HEAP_OF_LOOP, WAITS_OF_LOOP):
            heap = kept.pop(key, None)
            if heap is not None:
                send_away(heap)
                heap.close()

    def __repr__(self):
        return f"<close of {self.loop!r} and its timer heaps>"


cdef int send_away(LoopHeap heap) except -1:
    """Its loop will not run again: who waits has to make room for the next in line."""
    for found in list(heap.waiters):
        waiter = found()
        if waiter is not None:
            waiter.leave()
    return 0


cdef int close_with_loop(object loop, dict kept) except -1:
    """The loop's close() closes its heaps."""
    cdef LoopEnd end
    if type(kept.get(CLOSE_OF_LOOP)) is LoopEnd:
        return 0
    end = LoopEnd.__new__(LoopEnd)
    end.loop = loop
    end.before = kept.get(CLOSE_OF_LOOP)
    kept[CLOSE_OF_LOOP] = end
    return 0


cdef LoopHeap heap_of(object loop, str key):
    """The loop's heap of that name, made on first use, and anew should it have been closed."""
    cdef LoopHeap heap, made
    cdef dict own = getattr(loop, "__dict__", None)
    cdef dict kept = bare_loops.setdefault(loop, {}) if own is None else own
    heap = kept.get(key)
    if heap is not None and not heap.core.closed:
        return heap
    if loop.is_closed():
        raise RuntimeError("Event loop is closed")
    import_asyncio()
    made = LoopHeap(loop, "asyncio" if key is HEAP_OF_LOOP else "asyncio's waits")
    with cython.critical_section(all_heaps):
        heap = kept.get(key)
        if heap is None or heap.core.closed:
            kept[key] = heap = made
        if own is not None:
            close_with_loop(loop, own)
    return heap


cdef object running_loop():
    """RuntimeError where there is none."""
    import_asyncio()
    loop = get_running_loop()
    if loop is None:
        raise RuntimeError("no running event loop")
    return loop


def loop_heap(loop):
    """timerheap.asyncio.heap."""
    if loop is None:
        loop = running_loop()
    elif isinstance(loop, type) or not (hasattr(loop, "call_soon_threadsafe") and hasattr(loop, "call_later")):
        got = "the class itself" if isinstance(loop, type) else type(loop).__name__
        raise TypeError(f"heap() loop must be an event loop, not {got}")
    manual = getattr(loop, "__dict__", {}).get(MANUAL_OF_LOOP)
    return heap_of(loop, HEAP_OF_LOOP) if manual is None or loop.is_closed() else manual
