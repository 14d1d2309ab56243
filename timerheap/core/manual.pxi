# ManualHeap: virtual time, for tests.

cdef class ManualHeap(TimerHeap):
    """A TimerHeap whose clock stands still until advance() moves it. It has no worker: callbacks
    run in the thread that advances.

    The thread that makes it is the one expected to advance it. A receive, select or sleep there,
    or in a callback that advance() runs, that nothing but advance() could end raises RuntimeError
    at once; in other threads it waits for advance().

    With auto it moves the clock instead, from deadline to deadline until it is over, and what falls due meanwhile runs
    in this thread; RuntimeError only where nothing is armed that could end it. In a callback of the heap's nothing else
    runs meanwhile: what falls due is late, as where a callback blocks a worker. Other threads are not waited for, that
    is block_until's.

    pending() lists function timers alone, as that of any heap; len() counts channel timers, too.
    """

    def __cinit__(self, *args, **kwargs):
        self.core.driven = self.core.manual = True
        self.core.running = self.core.ready = True
        self.core.exiting = False
        self.core.driver = th_thread()

    def __dealloc__(self):
        free(self.roster)

    def __init__(self, start=0.0, *, auto=False, name="manual", on_error=None):
        cdef int64_t ns = 0
        to_ns(start, &ns, b"ManualHeap() start")
        if ns == TH_NEVER or ns == INT64_MIN:
            raise ValueError(f"ManualHeap() start must be a time of the clock, which {start!r} is beyond")
        TimerHeap.__init__(self, name, on_error=on_error)
        self.moves = auto
        th_set_due(self.core, ns)
        th_set_manual(self.core, ns)

    @property
    def auto(self):
        """Whether a wait in the thread that drives the heap moves the clock."""
        return self.moves

    def time(self):
        """The manual clock, in seconds.
        """
        return to_seconds(th_now(self.core))

    @cython.embedsignature(False)
    def advance(self, seconds=MISSING):
        """advance($self, seconds)\n--\n
        Move the clock on, from deadline to deadline: whatever falls due by then runs in this
        thread, in order, each callback when time() is its deadline exactly. What the callbacks arm
        for that span runs as well.

        Raises what a callback raises, at once and whatever it is, unless the heap has an on_error, which gets it then.
        The clock stands at that deadline, what else is due stays so, and another advance() goes on.

        A timer is due by then when it is so to the nanosecond, and also when it looks so: when t.when is not above the
        float time() + seconds, or above time() afterwards. So advance(t.when - time()) fires t. The clock
        ends at the sum in nanoseconds (less one that came by rounding seconds up, where as floats they lead to a whole
        one), or at the last deadline that fired, if that is later.

        ValueError for a negative number of seconds and for one that leads beyond the end of the clock,
        which stays as it was; RuntimeError from within a callback of this heap.
        """
        cdef th_core* c = self.core
        cdef int64_t ns = 0, target = 0, due
        cdef double span, before
        to_ns(seconds, &ns, b"ManualHeap.advance() seconds")
        span = seconds if isinstance(seconds, float) else to_seconds(ns)
        if ns < 0 or span < 0:
            raise ValueError(f"ManualHeap.advance() seconds must not be negative, as {seconds!r} is: time does not run "
                             "backwards")
        enter_clock(self)
        try:
            before = to_seconds(th_now(c))
            if add_overflow(th_now(c), ns, &target) or target == TH_NEVER:
                raise ValueError("ManualHeap.advance() seconds must not lead beyond the end of the clock, as "
                                 f"{seconds!r} would")
            due = th_last_shown(target, max(before + span, to_seconds(target)))
            if (ns > 1 and to_seconds(ns) > span and not is_sum(before, span, to_seconds(target))
                    and is_sum(before, span, to_seconds(target - 1))):
                target -= 1                 # seconds was rounded up, though it leads to a whole nanosecond
            turn_clock(self, target, due)
            th_set_due(c, max(due, th_due(c)))
        finally:
            leave_clock(self)

    def advance_to_next(self):
        """Move the clock to the next deadline of whatever is armed on the heap, channel timers, Tickers and arrays
        among it, or of the timeout of a thread that waits, and run what is due then, as advance() does. The time
        then; None, and nothing moves, if there is none.

        A Ticker's next tick counts only once its last one has been received: until then it would be dropped.
        """
        cdef int64_t when
        enter_clock(self)
        try:
            when = what_is_next(self)
            if when == TH_NEVER:
                return None
            turn_to(self, when)
        finally:
            leave_clock(self)
        return to_seconds(th_now(self.core))

    def block_until(self, n, timeout=30):
        """Wait until n threads or coroutines, at least, wait in a recv, select, sleep or iteration on channels of this
        heap, and have seen all there is to see: one that has been woken, and has yet to take its value and to come
        back, does not count. So what advance() has made ready is dealt with when this returns.

        TimeoutError after timeout seconds of real time; RuntimeError when the heap is closed.
        """
        cdef int64_t ns = 0, until
        cdef census seen
        if not has_index(n):
            raise TypeError(f"ManualHeap.block_until() n must be an int, not {type(n).__name__}")
        count = PyNumber_Index(n)
        if count < 0:
            raise ValueError(f"ManualHeap.block_until() n must not be negative, not {count}")
        to_ns(timeout, &ns, b"ManualHeap.block_until() timeout")
        until = TH_NEVER if ns == TH_NEVER else th_deadline(th_monotonic(), ns)
        while True:
            next_timeout(self.core, &seen)
            if seen.asleep >= count:
                return
            if self.core.closed:
                raise RuntimeError(CLOSED_HEAP)
            if th_monotonic() >= until:
                raise TimeoutError(f"{seen.asleep} wait on the manual heap {self.name!r}, and not {count}, after "
                                   f"{timeout} s")
            with nogil:
                th_nap()
            PyErr_CheckSignals()

    def _threads_waiting(self):
        """Of those whom block_until counts."""
        cdef census seen
        next_timeout(self.core, &seen)
        return seen.threads

    def _go_on(self, double until):
        """For an event loop that has nothing to do: move the clock to what is next, until at the latest, and run what
        is due then. False if nothing is."""
        cdef int64_t ns = TH_NEVER
        if until < INFINITY:
            ns = th_from_seconds(until) if until > -INFINITY else th_now(self.core)
        return go_on_to(self, ns)

    def _others_armed(self):
        """Beside what pending() lists: a list of (TimerArray, slots), and the number of channel timers and Tickers.
        What is ready and was not received is armed no more, but for a Ticker's."""
        cdef th_core* c = self.core
        cdef list arrays = []
        cdef PyObject* array = <PyObject*>self
        cdef size_t i = 0, armed = 0
        while array != NULL:
            array = NULL
            th_lock(c)
            while array == NULL and i < c.arrays.len:
                if c.arrays.items[i].held and c.arrays.items[i].armed:
                    array = <PyObject*>c.arrays.items[i].object
                    armed = c.arrays.items[i].armed
                    incref(array)
                i += 1
            th_unlock(c)
            if array != NULL:
                arrays.append((<object>array, armed))
                decref(array)
        next_on_roster(self, &armed)
        return arrays, armed

    def close(self, timeout=None):
        """TimerHeap.close. What is left of an advance() that a callback has broken off is cancelled as well.
        """
        TimerHeap.close(self, timeout)
        if enter_turn(self.core):       # else whoever turns the clock does this
            leave_clock(self)


# ---- what the collector is shown ------------------------------------------------------------------------------------

# What is armed on a manual heap fires only if somebody turns the clock, and on a loop's if that runs: a heap that
# nobody reaches any more goes with all that its timers hold. So it shows that to the collector: functions and arguments
# of what is armed, while the handles show their heap alone; and the handles that belong to it, see owned. Only attached
# threads work on such a heap: the world stands still, and nothing is half done.

ctypedef int (*traverse_fields)(PyObject* self, visitproc visit, void* arg) noexcept
ctypedef int (*clear_fields)(PyObject* self) noexcept

cdef (traverse_fields)[2] heap_fields_traverse      # of ManualHeap, of LoopHeap
cdef (clear_fields)[2] heap_fields_clear


cdef inline int visit_armed(th_timer* t, visitproc visit, void* arg) noexcept:
    cdef int result
    if t.flags & TH_CELL:
        return 0
    result = visit(handle_of(t), arg) if owned(t) else 0
    return result if result else visit_call(t, visit, arg)


cdef int heap_traverse(PyObject* self, visitproc visit, void* arg) noexcept:
    cdef th_core* c = (<TimerHeap>self).core
    cdef size_t i
    cdef int result = heap_fields_traverse[type(<object>self) is LoopHeap](self, visit, arg)
    if c == NULL:
        return result
    for i in range(c.len):
        if result == 0 and c.keys[i].timer.state == TH_ARMED:
            result = visit_armed(c.keys[i].timer, visit, arg)
    for i in range(c.run_head, c.run_len):
        if result == 0 and c.run[i].timer.state == TH_DUE:
            result = visit_armed(c.run[i].timer, visit, arg)
    for i in range(c.arrays.len):
        if result == 0 and c.arrays.items[i].held:
            result = visit(<PyObject*>c.arrays.items[i].object, arg)
    return result


cdef int heap_clear(PyObject* self) noexcept:
    cdef th_core* c = (<TimerHeap>self).core
    if c != NULL:
        let_all_go(<TimerHeap>self)
        let_run_go(c, self)
    return heap_fields_clear[type(<object>self) is LoopHeap](self)


cdef int reveal_timers(type cls) except -1:
    """For ManualHeap and LoopHeap."""
    cdef PyTypeObject* t = <PyTypeObject*>cls
    heap_fields_traverse[cls is LoopHeap] = <traverse_fields>t.tp_traverse
    heap_fields_clear[cls is LoopHeap] = <clear_fields>t.tp_clear
    t.tp_traverse = <traverseproc><void*>heap_traverse
    t.tp_clear = <inquiry><void*>heap_clear
    return 0
