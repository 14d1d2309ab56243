# TimerHeap, the class: what a user holds, counts, checks and closes.

cdef size_t TIMER_BYTES = (<PyTypeObject*>Timer).tp_basicsize + COLLECTOR_BYTES
cdef size_t CHANNEL_BYTES = (<PyTypeObject*>Channel).tp_basicsize


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


cdef int refuse(TimerHeap heap) except -1:
    """Why an arming did not happen; M is free again."""
    if heap.core.closed:
        raise RuntimeError(CLOSED_HEAP)
    raise MemoryError()


cdef int check_hook(object hook, str what) except -1:
    if hook is not None and not callable(hook):
        raise TypeError(f"{what} must be callable, not {type(hook).__name__}")
    return 0


cdef class TimerHeap:
    """A set of timers with one worker thread, which is started by the first function timer and
    named after the heap. Channel timers need none.

    Callbacks run on the worker, one after another, or are submitted to executor, anything with
    submit(func, *args). What they raise is given to on_error(exception, timer), else to
    threading.excepthook. tolerance is how many seconds a wake-up may be put off, so that neighbours
    fire together; nothing fires early.

    patience, seconds: a callback that has run for longer loses the worker's post to a standby, a second thread, which
    goes on with what is due. Its thread ends when it returns. None: the neighbours of what blocks are late by that.

    len(heap) is the number of timers that stop() would cancel: armed, due and not yet launched,
    expired and not yet received. A heap is true even when it is empty. As a context manager it is
    closed at the end of the block. A heap that nobody holds any more fires the function timers that
    are armed on it, then ends its worker and goes.
    """

    def __cinit__(self, *args, **kwargs):
        cdef bint roomy
        self.core = <th_core*>calloc(1, sizeof(th_core))
        if self.core == NULL:
            raise MemoryError()
        th_init_locks(self.core)
        th_enlist(self.core)
        th_lock(self.core)
        roomy = resize_keys(self.core, th_page) and reserve_run(self.core, 1)
        th_unlock(self.core)
        if not roomy:
            raise MemoryError()
        self.jobs = set()
        remember(self)              # here: a subclass may forget to call __init__
        self.core.exiting = at_exit     # last: the exit handler finds the heap, or this finds that it has run

    def __init__(self, name="timerheap", *, executor=None, on_error=None, patience=None, tolerance=0.0):
        cdef int64_t patience_ns = 0, tolerance_ns = 0
        if not isinstance(name, str):
            raise TypeError(f"{type(self).__name__}() name must be a str, not {type(name).__name__}")
        if executor is not None and (isinstance(executor, type) or not hasattr(executor, "submit")):
            raise TypeError(f"{type(self).__name__}() executor must be an object with a submit method, not "
                            f"{an_instance(executor, object)}")
        check_hook(on_error, f"{type(self).__name__}() on_error")
        if patience is not None:
            patience_ns = positive_period(patience, b"TimerHeap() patience")
            patience_ns = patience_ns if patience_ns < TH_NEVER else 0
        to_ns(tolerance, &tolerance_ns, b"TimerHeap() tolerance")
        if tolerance_ns < 0 or tolerance_ns == TH_NEVER:
            raise ValueError(f"TimerHeap() tolerance must be finite and not negative, not {tolerance!r}")
        with cython.critical_section(self):
            if self.name is not None:
                raise RuntimeError("a timer heap cannot be initialised twice")
            self.name = str.__str__(name)       # a plain str even of a subclass, an enumeration's member for one
            self.executor = executor
            self.hook = on_error
            self.core.patience = patience_ns
            self.core.tolerance = tolerance_ns

    def __dealloc__(self):
        # No handle is left, and nothing is armed where a worker would fire it, or the heap would hold itself. The
        # worker, if there is one, is parked, or has a run whose timers were all stopped: the rest is its to free.
        cdef th_core* c = self.core
        cdef bint alone
        if c == NULL:
            return
        th_delist(c)
        if c.driven:
            let_all_go(self)
            let_run_go(c, <PyObject*>self)      # of a turn that was broken off
        th_lock(c)
        alone = c.post == NULL and c.spare == NULL
        if not alone:
            c.closed = c.detached = True
            th_signal_all(c)
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
    def on_error(self):
        """Who gets what callbacks raise: on_error(exception, timer), or None for threading.excepthook.
        May be set: what is reported from then on goes to the new one. A closed heap refuses another
        with RuntimeError, and lets go of the one it has once no callback can need it.
        """
        return hook_of(self)

    @on_error.setter
    def on_error(self, hook):
        cdef bint closed
        check_hook(hook, f"{type(self).__name__}.on_error")
        with cython.critical_section(self):
            before = self.hook                  # let go of at the return
            closed = self.core.closed and hook is not None
            if not closed:
                self.hook = hook
        if closed:
            raise RuntimeError(CLOSED_HEAP)

    @on_error.deleter
    def on_error(self):
        self.on_error = None

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

    def pending(self):
        """What the heap is going to call: a list of (when, timer) for each function timer that
        stop() would cancel, by deadline, equal ones in the order of arming; inf is never. Timers
        whose handles were dropped are there too, with a handle again. Empty once the heap is closed.

        A snapshot, whole with a GIL. Without one, a timer that another thread arms or stops meanwhile
        may be in it or not.
        """
        return pending_pairs(self)

    def stats(self):
        """Counts since the heap was made. The ledger: arms == fired + received +
        cancelled + armed - tickers.

        armed: len(heap). arms: armings, each call of every() is one more. fired: callbacks launched. received:
        values received. cancelled: armings undone by stop, reset, close or fork. tickers: Tickers
        running, which none of the former but armed counts. ticks: ticks received. dropped: ticks and calls of every()
        that came to nothing, for the receiver or the last call was slow. errors: callbacks that
        raised. wakeups: times the worker woke. batches, longest_batch: runs of due timers and the
        size of the largest. late_max: seconds by which a callback was launched behind its deadline,
        at most, of those looked at: the first 16 of each run, and one in 128 after them. rekeyed:
        postponed timers sorted anew. peak: most function timers armed at once. nbytes: see nbytes.
        threads: of the heap, the standby of one with patience and what callbacks block included.
        handovers: callbacks over which a worker has lost its post.
        """
        cdef th_core* c = self.core
        nbytes = self.nbytes
        th_chan_lock()
        cdef uint64_t chan_arms = c.chan_arms, received = c.received, chan_cancelled = c.chan_cancelled, ticks = c.ticks
        cdef size_t chan_live = c.chan_live, tickers = c.tickers
        cdef uint64_t dropped = c.chan_dropped
        th_chan_unlock()
        th_lock(c)
        dropped += c.dropped
        cdef uint64_t arms = c.seq, fired = c.fired, cancelled = c.cancelled, wakeups = c.wakeups
        cdef uint64_t batches = c.batches, longest = c.longest, rekeyed = c.rekeyed
        cdef size_t live = c.live, peak = c.peak
        cdef uint64_t handovers = c.handovers
        cdef bint closed = c.closed
        th_unlock(c)
        cdef size_t threads = th_posts_of(c, NULL, 0)
        return {
            "armed": 0 if closed else live + chan_live + tickers,
            "arms": arms + chan_arms,
            "fired": fired,
            "received": received,
            "cancelled": cancelled + chan_cancelled,
            "tickers": tickers,
            "ticks": ticks,
            "dropped": dropped,
            "errors": th_counted(&c.errors),
            "wakeups": wakeups,
            "batches": batches,
            "longest_batch": longest,
            "late_max": to_seconds(c.late_max),
            "rekeyed": rekeyed,
            "peak": peak,
            "nbytes": nbytes,
            "threads": threads,
            "handovers": handovers,
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

    def close(self, timeout=None):
        """Cancel every timer: handles are inactive, blocked receivers get RuntimeError, arming
        raises RuntimeError. Callbacks that an executor has not begun are called off.

        Waits for callbacks that are running, the executor's too: none begins once close() has
        returned. Not for the one that it is called from, nor for one that is in a close() itself,
        nor when the interpreter is on its way out.

        TimeoutError when some still run after timeout seconds (as a delay is given; 0 only looks).
        The heap is closed then all the same, none begins any more, and another close() waits on.
        """
        cdef th_core* c = self.core
        cdef int64_t ns = 0, until = TH_NEVER
        cdef bint over = True, abandoned, last
        if timeout is not None:
            to_ns(timeout, &ns, b"TimerHeap.close() timeout")
            until = th_deadline(th_monotonic(), ns)
        th_lock(c)
        c.closed = True
        th_unlock(c)
        close_channels(c)
        let_all_go(self)
        if not c.driven and not c.exiting:
            mine = enter_close()
            try:
                over = join_workers(self, until, until)
                over = end_jobs(self, until) and over
            finally:
                leave_close(mine)
        th_lock(c)
        abandoned = not (c.running or c.firing) and c.run_head < c.run_len      # by a worker that has died
        if abandoned:
            c.firing = True                     # and nobody else's now
        th_unlock(c)
        if abandoned:
            let_run_go(c, <PyObject*>self)
        th_lock(c)
        if abandoned:
            c.firing = False
        last = c.advancer == 0 if c.driven else not c.firing and c.losers == NULL
        th_unlock(c)
        if last:                                # else by whoever runs a callback
            drop_hooks(self)
        if not over:
            raise TimeoutError("callbacks of the timer heap still run; it is closed")
