# Channels: Channel, Ticker, after, tick, select, sleep.  The model is in csrc/channel.h.
#
# Lock. The chan_ and line functions run with C held unless their first line says that they take it.

cdef th_core nowhere        # the closed heap of a Channel that no timer made
nowhere.closed = True


@cython.final
@cython.no_gc
cdef class Channel:
    """The receiving end of a channel timer.  Made by timers only.

    Holding the channel keeps its timer working; dropping it with the timer's handle cancels the
    timer.
    """

    # No collector: a channel refers to its heap alone, and a million of them should cost a
    # collection nothing.
    cdef TimerHeap heap
    cdef th_chan ch

    def __cinit__(self):
        self.ch.core = &nowhere     # until new_channel names the heap; Channel.__new__ alone gets this far

    def __init__(self):
        raise TypeError("channels are made by timers")

    def __dealloc__(self):
        th_chan_lock()
        if th_chan_live(&self.ch):
            chan_retire(&self.ch)
        th_chan_unlock()
        th_count(&self.ch.core.channels, -1)

    def recv(self, timeout=None):
        """Wait for the timer and return its deadline, in seconds on time.monotonic(); for a Ticker,
        that of the oldest tick not received.

        TimeoutError when timeout seconds (as a delay is given) have passed first; RuntimeError when
        the heap is closed. On a stopped timer it waits for a reset. The GIL is released, signal
        handlers run, and an exception in one ends the wait.
        """
        cdef PyObject* channel = <PyObject*>self
        cdef double value = 0
        receive(&channel, 1, timeout, False, &value)
        return value

    def poll(self):
        """The deadline in seconds if the timer has expired and was not received, else None. Never
        waits.
        """
        cdef int64_t when = 0, now
        cdef bint taken
        now = th_now(self.ch.core)
        th_chan_lock()
        taken = chan_take(&self.ch, now, &when)
        th_chan_unlock()
        return to_seconds(when) if taken else None

    def __repr__(self):
        return f"<timerheap.Channel {'live' if chan_active(&self.ch) else 'idle'}>"

    def __reduce__(self):
        raise TypeError("cannot copy or pickle 'Channel' objects")


cdef Channel new_channel(TimerHeap heap):
    cdef Channel channel = Channel.__new__(Channel)
    channel.heap = heap
    channel.ch.core = heap.core
    th_count(&heap.core.channels, 1)
    return channel


# ---- one channel ----------------------------------------------------------------------------------------------------

cdef inline void chan_retire(th_chan* ch) noexcept nogil:
    """live -> idle, for a one-shot counted as a cancel."""
    ch.live = False
    if ch.period:
        ch.core.tickers -= 1
    else:
        ch.core.chan_live -= 1
        ch.core.chan_cancelled += 1


cdef inline void wake_head(th_chan* ch) noexcept nogil:
    """Whoever is first in line has to look again: at a new deadline, or at having become the
    first."""
    if ch.head != NULL:
        th_wake(ch.head.waiter)


cdef inline bint chan_take(th_chan* ch, int64_t now, int64_t* when) noexcept nogil:
    """Receive: True and the deadline if ch has expired at now. A Ticker goes on to its next tick
    after now."""
    if not th_chan_live(ch) or ch.when > now or ch.when == TH_NEVER:
        return False
    when[0] = ch.when
    if ch.period:
        ch.when = th_next_tick(ch.when, ch.period, now)
        ch.core.ticks += 1
    else:
        ch.live = False
        ch.core.chan_live -= 1
        ch.core.received += 1
    return True


cdef int chan_refuse() except -1:
    raise RuntimeError(CLOSED_HEAP)


cdef inline object chan_arm(th_chan* ch, int64_t ns, int64_t period):
    """Takes C. Arm or re-arm, ns from now. True if an earlier arming was live, or expired and not
    received."""
    cdef bint was, closed
    cdef int64_t when = th_deadline(th_now(ch.core), ns)
    th_chan_lock()
    closed = ch.core.closed
    was = th_chan_live(ch)
    if not closed:
        if was:
            chan_retire(ch)
        ch.when = when
        ch.period = period
        ch.epoch = ch.core.epoch
        ch.live = True
        if period:
            ch.core.tickers += 1
        else:
            ch.core.chan_live += 1
            ch.core.chan_arms += 1
        wake_head(ch)
    th_chan_unlock()
    if closed:
        chan_refuse()
    return was


cdef inline object chan_stop(th_chan* ch):
    """Takes C.  True if there was something to cancel."""
    cdef bint was
    th_chan_lock()
    was = th_chan_live(ch)
    if was:
        chan_retire(ch)
        wake_head(ch)               # an iteration ends when its Ticker is stopped
    th_chan_unlock()
    return was


cdef object chan_active(th_chan* ch):
    """Takes C."""
    th_chan_lock()
    cdef bint live = th_chan_live(ch)
    th_chan_unlock()
    return live


cdef object chan_when(th_chan* ch):
    """Takes C."""
    th_chan_lock()
    cdef bint live = th_chan_live(ch)
    cdef int64_t when = ch.when
    th_chan_unlock()
    return deadline_or_inf(when) if live else None


cdef void wake_waiters(th_core* core) noexcept:
    """Takes C.  Everyone blocked on a channel of this heap looks again."""
    cdef th_waiter* w
    cdef size_t i
    th_chan_lock()
    w = th_waiters
    while w != NULL:
        for i in range(w.count):
            if w.nodes[i].chan.core == core:
                th_wake(w)
                break
        w = w.next
    th_chan_unlock()


cdef void close_channels(th_core* core) noexcept:
    """Takes C.  Void every arming of this heap's channels and wake who waits for them."""
    th_chan_lock()
    core.epoch += 1
    core.chan_cancelled += core.chan_live
    core.chan_live = core.tickers = 0
    th_chan_unlock()
    wake_waiters(core)


# ---- blocking -------------------------------------------------------------------------------------------------------

cdef enum outcome:
    RECEIVED
    TIMED_OUT
    SIGNALLED
    HEAP_CLOSED
    STOPPED
    DEADLOCK


cdef inline void set_waiters(th_waiter* first) noexcept nogil:
    global th_waiters
    th_waiters = first


cdef void join_lines(th_waiter* w) noexcept nogil:
    """Stand in line at each channel of w, and be known as blocked."""
    cdef size_t i
    cdef th_node* node
    cdef th_chan* ch
    for i in range(w.count):
        node = w.nodes + i
        ch = node.chan
        node.waiter = w
        node.next = NULL
        node.prev = ch.tail
        if ch.tail != NULL:
            ch.tail.next = node
        else:
            ch.head = node
        ch.tail = node
    w.prev = NULL
    w.next = th_waiters
    if w.next != NULL:
        w.next.prev = w
    set_waiters(w)


cdef void leave_lines(th_waiter* w) noexcept nogil:
    """Leave every line; where w was the first, the next one takes over the watch."""
    cdef size_t i
    cdef th_node* node
    cdef th_chan* ch
    cdef bint was_head
    for i in range(w.count):
        node = w.nodes + i
        ch = node.chan
        was_head = node.prev == NULL
        if was_head:
            ch.head = node.next
        else:
            node.prev.next = node.next
        if node.next != NULL:
            node.next.prev = node.prev
        else:
            ch.tail = node.prev
        if was_head:
            wake_head(ch)
    if w.prev != NULL:
        w.prev.next = w.next
    else:
        set_waiters(w.next)
    if w.next != NULL:
        w.next.prev = w.prev


cdef outcome look(th_waiter* w, bint once, size_t* chosen, int64_t* when, int64_t* wake_at) noexcept nogil:
    """Try to receive: one of the ready channels, each with the same chance.

    TIMED_OUT here means nothing to receive yet; wake_at then is the earliest deadline that this
    waiter has to watch. once: a stopped channel counts as an end (STOPPED), as it does for
    iteration.
    """
    cdef size_t i, ready_count = 0, pick = 0
    cdef th_chan* ch
    cdef int64_t now = 0
    cdef th_core* last = NULL
    cdef bint live
    wake_at[0] = TH_NEVER
    for i in range(w.count):
        ch = w.nodes[i].chan
        if ch.core.closed:
            return HEAP_CLOSED
        if ch.core != last:
            last = ch.core
            now = th_now(last)
        live = th_chan_live(ch)
        if live and ch.when <= now and ch.when != TH_NEVER:
            ready_count += 1
            if th_random_below(ready_count) == 0:
                pick = i
        elif live and ch.when < wake_at[0] and not ch.core.manual and w.nodes[i].prev == NULL:
            wake_at[0] = ch.when
        elif once and not live:
            return STOPPED
    if ready_count == 0:
        return TIMED_OUT
    ch = w.nodes[pick].chan
    chan_take(ch, th_now(ch.core), when)
    chosen[0] = pick
    return RECEIVED


cdef inline int64_t signals_at() noexcept nogil:
    """When a blocked thread has to look for signals, whose handlers run in the main thread. One that arrives between
    the last look and the system call interrupts nothing: so the main thread wakes once a second."""
    return th_monotonic() + NS_PER_S if current_thread() == main_thread else TH_NEVER


cdef outcome wait_lines(th_waiter* w, th_core* clock, int64_t until, bint once, size_t* chosen,
                        int64_t* when) noexcept nogil:
    """Takes C. Block in line until there is something to receive, until has come on clock's clock,
    or a signal arrived."""
    cdef outcome result
    cdef int64_t look_at = signals_at()
    cdef int64_t wake_at = TH_NEVER
    cdef bint interrupted = False
    cdef unsigned long slack = th_slack_fine()
    th_chan_lock()
    join_lines(w)
    while True:
        th_rearm_wait(w)
        result = look(w, once, chosen, when, &wake_at)
        if result != TIMED_OUT or (until != TH_NEVER and th_now(clock) >= until):
            break
        if interrupted:
            result = SIGNALLED
            break
        if until < wake_at and not clock.manual:
            wake_at = until
        th_chan_unlock()
        interrupted = th_wait(w, min(wake_at, look_at)) == EINTR or (look_at < TH_NEVER and th_monotonic() >= look_at)
        th_chan_lock()
    leave_lines(w)
    th_chan_unlock()
    th_slack_restore(slack)
    return result


cdef size_t receive(PyObject** channels, size_t count, object timeout, bint once, double* value) except? -1:
    """Receive from one of count > 0 channels; returns its index, and the deadline in value. With
    once, -1 and no exception when the channel is stopped."""
    cdef th_node[4] few
    cdef th_node* nodes = few
    cdef th_waiter w
    cdef th_core* clock
    cdef int64_t ns = TH_NEVER, until = TH_NEVER, when = 0, wake_at = 0
    cdef size_t i, chosen = 0
    cdef outcome result
    cdef bint driver = False
    if timeout is not None:
        to_ns(timeout, &ns)
    if count > 4:
        nodes = <th_node*>malloc(count * sizeof(th_node))
        if nodes == NULL:
            raise MemoryError()
    memset(nodes, 0, count * sizeof(th_node))
    memset(&w, 0, sizeof(w))
    w.nodes = nodes
    w.count = count
    clock = (<Channel>channels[0]).ch.core
    for i in range(count):
        nodes[i].chan = &(<Channel>channels[i]).ch
        if not nodes[i].chan.core.manual:
            clock = nodes[i].chan.core
    try:
        th_chan_lock()
        result = look(&w, once, &chosen, &when, &wake_at)
        th_chan_unlock()
        if result == TIMED_OUT and ns > 0:
            if clock.manual and (<Channel>channels[0]).heap.driver == current_thread():
                result = DEADLOCK
            else:
                until = th_deadline(th_now(clock), ns)
        while result == TIMED_OUT and ns > 0:
            with nogil:
                result = wait_lines(&w, clock, until, once, &chosen, &when)
            if result == SIGNALLED:
                PyErr_CheckSignals()
                result = TIMED_OUT
                if clock.closed:
                    result = HEAP_CLOSED
                continue
            break
    finally:
        if nodes != few:
            free(nodes)
    if result == RECEIVED:
        value[0] = to_seconds(when)
        return chosen
    if result == STOPPED or (once and result == HEAP_CLOSED):
        return <size_t>-1
    if result == HEAP_CLOSED:
        raise RuntimeError(CLOSED_HEAP)
    if result == DEADLOCK:
        raise RuntimeError("this receive would never end: its manual heap is advanced by this very thread")
    raise TimeoutError("no value within the timeout")


# ---- the rest of the surface ----------------------------------------------------------------------------------------

@cython.final
@cython.no_gc
cdef class Ticker:
    """Delivers a value on its channel, c, every period seconds, first after one period. The values
    are deadlines, exactly on the grid start + k * period.

    A slow receiver finds one tick, the oldest it has not received; those after it up to now are
    dropped. period is a positive duration, else ValueError. Iterating receives ticks until the
    Ticker is stopped; as a context manager it is stopped at the end of the block.
    """

    cdef Channel channel

    def __cinit__(self, period, *, heap=None):
        cdef int64_t ns = positive_period(period)
        cdef TimerHeap home = heap_or_default(heap)
        self.channel = new_channel(home)
        chan_arm(&self.channel.ch, ns, ns)

    @property
    def c(self):
        """The Channel, the same across resets."""
        return self.channel

    @property
    def period(self):
        """Seconds between ticks."""
        cdef int64_t ns
        th_chan_lock()
        ns = self.channel.ch.period
        th_chan_unlock()
        return deadline_or_inf(ns)

    def stop(self):
        """No more ticks; one that was not received is gone. May be called again, and undone by
        reset.
        """
        chan_stop(&self.channel.ch)

    def reset(self, period):
        """Begin anew with another period: the next tick comes one period from now. Raises as the
        constructor does, and leaves the Ticker as it was then.
        """
        cdef int64_t ns = positive_period(period)
        chan_arm(&self.channel.ch, ns, ns)

    def __iter__(self):
        return self

    def __next__(self):
        cdef PyObject* channel = <PyObject*>self.channel
        cdef double value = 0
        if receive(&channel, 1, None, True, &value) == <size_t>-1:
            raise StopIteration
        return value

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        chan_stop(&self.channel.ch)

    def __repr__(self):
        return f"<timerheap.Ticker every {self.period} s, {'running' if chan_active(&self.channel.ch) else 'stopped'}>"

    def __reduce__(self):
        raise TypeError("cannot copy or pickle 'Ticker' objects")


cdef int64_t positive_period(object period) except -1:
    cdef int64_t ns = 0
    to_ns(period, &ns)
    if ns <= 0:
        raise ValueError("a period must be positive")
    return ns


def after(delay):
    """Timer(delay).c: a channel that delivers one value, delay seconds from now.
    """
    cdef int64_t ns = 0
    cdef Channel channel
    to_ns(delay, &ns)
    channel = new_channel(current_default())
    chan_arm(&channel.ch, ns, 0)
    return channel


def tick(period):
    """Ticker(period).c: a channel that delivers a value every period seconds until it is dropped.
    """
    cdef int64_t ns = positive_period(period)
    cdef Channel channel = new_channel(current_default())
    chan_arm(&channel.ch, ns, ns)
    return channel


def select(*channels, timeout=None):
    """Receive from whichever channel is ready first: (channel, value). Of several ready ones each
    has the same chance.

    timeout, in seconds: 0 only looks, None waits for ever; TimeoutError when it has passed. Waits
    as Channel.recv does.
    """
    cdef size_t count = len(channels), i
    cdef double value = 0
    cdef PyObject** items
    if count == 0:
        raise ValueError("select() needs at least one channel")
    for channel in channels:
        if not isinstance(channel, Channel):
            raise TypeError(f"select() takes channels, not {type(channel).__name__}")
    items = tuple_items(<PyObject*>channels)
    i = receive(items, count, timeout, False, &value)
    return channels[i], value


def sleep(delay):
    """Block the calling thread for at least delay seconds. The GIL is released, signal handlers
    run, and an exception in one ends it.
    """
    cdef int64_t ns = 0, until, look_at
    cdef int interrupted = True
    cdef unsigned long slack
    to_ns(delay, &ns)
    if ns <= 0:
        return
    cdef TimerHeap heap = shared_default(False) if FREE_THREADED else the_default
    if heap is not None and heap.core.manual:
        after(delay).recv()
        return
    until = th_deadline(th_monotonic(), ns)
    while interrupted:
        with nogil:
            look_at = signals_at()
            slack = th_slack_fine()
            interrupted = th_sleep_until(min(until, look_at)) or look_at < until
            th_slack_restore(slack)
        if interrupted:
            PyErr_CheckSignals()


# ---- virtual time ---------------------------------------------------------------------------------------------------

cdef class ManualHeap(TimerHeap):
    """A TimerHeap whose clock stands still until advance() moves it. It has no worker: callbacks
    run in the thread that advances.

    The thread that makes it is the one expected to advance it. A receive, select or sleep there
    that would have to wait raises RuntimeError at once; in other threads it waits for advance().
    """

    def __cinit__(self, *args, **kwargs):
        self.core.manual = True
        self.core.running = True
        self.core.exiting = False
        self.driver = current_thread()

    def __init__(self, start=0.0, *, name="manual", on_error=None):
        cdef int64_t ns = 0
        to_ns(start, &ns)
        TimerHeap.__init__(self, name, on_error=on_error)
        th_set_manual(self.core, ns)

    def time(self):
        """The manual clock, in seconds.
        """
        return to_seconds(th_now(self.core))

    def advance(self, seconds):
        """Move the clock on, from deadline to deadline: whatever falls due by then runs in this
        thread, in order, each callback when time() is its deadline exactly. What the callbacks arm
        for that span runs as well.

        ValueError for a negative number of seconds; RuntimeError from within a callback of this
        heap.
        """
        cdef th_core* c = self.core
        cdef int64_t ns = 0, target
        cdef bint busy
        to_ns(seconds, &ns)
        if ns < 0:
            raise ValueError("time does not run backwards")
        if FREE_THREADED:
            th_lock(c)
        busy = self.advancer != 0
        if not busy:
            self.advancer = current_thread()
        if FREE_THREADED:
            th_unlock(c)
        if busy:
            raise RuntimeError("advance() is under way already")
        target = th_deadline(th_now(c), ns)
        try:
            while step(c, target):
                wake_waiters(c)
                fire_run(self)
                PyErr_CheckSignals()
        finally:
            let_run_go(c, <PyObject*>self)
            if FREE_THREADED:
                th_lock(c)
            self.advancer = 0
            if FREE_THREADED:
                th_unlock(c)
            if c.closed:
                drop_hooks(self)
        wake_waiters(c)


cdef bint step(th_core* c, int64_t target) noexcept nogil:
    """Turn the clock to the next deadline, not beyond target, and collect what is due then. False
    when nothing was, and the clock stands at target."""
    cdef int64_t now = th_now(c)
    th_lock(c)
    collect(c, now)
    if c.run_len == 0:
        if c.len and c.keys[0].when <= target and not c.closed:
            now = c.keys[0].when
        else:
            now = target
        th_set_manual(c, now)
        collect(c, now)
    sort_run(c)
    th_unlock(c)
    return c.run_len > 0


reveal_timers(ManualHeap)
publish(Channel, "()")
publish(Ticker, "(period, *, heap=None)")
publish(ManualHeap, "(start=0.0, *, name='manual', on_error=None)")
atexit.register(stop_at_exit)
if th_watch_threads() != 0 or th_watch_forks() != 0:
    raise MemoryError()
Py_AtExit(th_note_finalized)
os.register_at_fork(before=before_fork, after_in_parent=after_fork_in_parent, after_in_child=after_fork_in_child)
