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

    def __init__(self, *args, **keywords):
        raise TypeError("Channel() is not to be called: channels are made by timers, Timer(delay).c or after(delay)")

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
        the heap is closed, and in the child of a fork when the timer was armed before it: there
        reset() arms it anew. On a stopped timer it waits for a reset. The GIL is released, signal
        handlers run, and an exception in one ends the wait.
        """
        cdef PyObject* channel = <PyObject*>self
        cdef double value = 0
        receive(&channel, 1, timeout, False, &value, b"Channel.recv() timeout")
        return value

    def poll(self):
        """The deadline in seconds if the timer has expired and was not received, else None. Never
        waits.
        """
        cdef int64_t when = 0, now
        cdef bint taken
        now = th_due(self.ch.core)
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
        if not was or when < ch.when:
            th_note_head(ch)        # whose key would be too late
        th_limit_due(ch.core, when)
        ch.when = when
        ch.period = period
        ch.epoch = ch.core.epoch
        ch.live = True
        if period:
            ch.core.tickers += 1
        else:
            ch.core.chan_live += 1
            ch.core.chan_arms += 1
    th_chan_unlock()
    if closed:
        chan_refuse()
    return was


cdef inline object chan_stop(th_chan* ch):
    """Takes C.  True if there was something to cancel. What was armed before a fork is as any stopped channel then."""
    cdef bint was
    th_chan_lock()
    was = th_chan_live(ch)
    if was:
        chan_retire(ch)
        th_note_head(ch)            # an iteration ends when its Ticker is stopped
    ch.live = False
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


cdef void wake_waiters(th_core* core) noexcept nogil:
    """Takes C.  Everyone blocked on a channel of this heap looks again.

    The ring turns past those who have been told. Who joins later, or is told by another thread meanwhile, has a mark
    that says so.
    """
    cdef uint64_t turn
    cdef th_group* group
    cdef size_t work = 0
    th_chan_lock()
    core.turns += 1
    turn = core.turns
    while core.ring != NULL and core.ring.mark < turn:
        group = core.ring
        group.mark = core.turns
        core.ring = group.next
        group.waiter.again = True
        work += STEPS_A_WAKE if th_wake(group.waiter) else 1
        offer(&work)
    th_chan_unlock()


cdef void close_channels(th_core* core) noexcept nogil:
    """Takes C.  Void every arming of this heap's channels and wake who waits for them."""
    th_chan_lock()
    core.epoch += 1
    core.chan_cancelled += core.chan_live
    core.chan_live = core.tickers = 0
    th_chan_unlock()
    wake_waiters(core)


# ---- looking --------------------------------------------------------------------------------------------------------

cdef enum:
    SLICE = 64            # steps between two offers of C: about 5 us when none of the channels is in the cache
    STEPS_A_WAKE = 16     # what a system call counts for
    NODES_ON_STACK = 4    # of a receiver of so few channels, which allocates nothing

cdef enum outcome:
    RECEIVED
    TIMED_OUT
    SIGNALLED
    HEAP_CLOSED
    STOPPED
    INHERITED
    DEADLOCK


cdef struct glance:
    bint once             # a stopped channel counts as an end, as it does for iteration
    int64_t now           # the time, but for manual heaps; as of when C was taken last
    size_t work           # steps in this slice
    size_t ready          # channels seen ready
    size_t pick           # one of them, each with the same chance: its index
    th_core* clock        # what a timeout counts by: real time if any of the channels does
    bint driving          # some are on a manual clock that this thread turns
    bint hope             # another thread or real time may yet make one of them ready


cdef inline bint offer(size_t* work) noexcept nogil:
    """Let others have C if a slice is over. True if so: C may have been free meanwhile."""
    if work[0] < SLICE:
        return False
    work[0] = 0
    th_chan_offer()
    return True


cdef inline void pause(glance* g, size_t steps) noexcept nogil:
    g.work += steps
    if offer(&g.work):
        g.now = th_monotonic()


cdef inline outcome see(glance* g, th_chan* ch, size_t i) noexcept nogil:
    """Look at one channel. RECEIVED: it is ready; TIMED_OUT: not yet; else an end."""
    cdef th_core* core = ch.core
    if core.closed:
        return HEAP_CLOSED
    if not th_chan_live(ch):
        if ch.live:
            return INHERITED
        return STOPPED if g.once else TIMED_OUT
    if ch.when > (th_due(core) if core.manual else g.now) or ch.when == TH_NEVER:
        return TIMED_OUT
    g.ready += 1
    if th_random_below(g.ready) == 0:
        g.pick = i
    return RECEIVED


cdef inline void weigh(glance* g, th_chan* ch) noexcept nogil:
    """What waiting for this channel, which is not ready, would mean."""
    cdef th_core* core = ch.core
    if not core.manual:
        g.clock = core
        g.hope = g.hope or (th_chan_live(ch) and ch.when != TH_NEVER)
        return
    if g.clock == NULL:
        g.clock = core
    if core.driver == th_thread() or core.advancer == th_thread():
        g.driving = True
    else:
        g.hope = True


cdef inline th_chan* chan_of(PyObject* channel) noexcept nogil:
    return &(<Channel>channel).ch


cdef outcome look_once(PyObject** channels, size_t count, glance* g, int64_t* when) noexcept nogil:
    """Takes C. Receive from one of the ready channels. TIMED_OUT: there are none, and g says what waiting would
    mean."""
    cdef size_t i
    cdef th_chan* ch
    cdef outcome result
    cdef bint taken = False
    g.work = 0
    th_chan_lock()
    g.now = th_monotonic()
    while not taken:
        g.ready = 0
        g.clock = NULL
        g.driving = g.hope = False
        for i in range(count):
            if i + PREFETCH < count:
                prefetch(chan_of(channels[i + PREFETCH]))
            ch = chan_of(channels[i])
            result = see(g, ch, i)
            if result == TIMED_OUT:
                weigh(g, ch)
            elif result != RECEIVED:
                th_chan_unlock()
                return result
            pause(g, 1)
        if g.ready == 0:
            break
        ch = chan_of(channels[g.pick])
        taken = chan_take(ch, th_due(ch.core), when)    # else another came first, between two slices
    th_chan_unlock()
    return RECEIVED if taken else TIMED_OUT


# ---- waiting --------------------------------------------------------------------------------------------------------

# The heap of a waiter: binary, by when. A node knows the place of its key. The functions that move keys return how many
# steps it took.

cdef inline void put_watch(th_waiter* w, size_t i, th_watch key) noexcept nogil:
    w.watches[i] = key
    key.node.place = i + 1


cdef size_t raise_watch(th_waiter* w, size_t i, th_watch key) noexcept nogil:
    """Put key into the hole at i or above."""
    cdef size_t steps = 1
    while i > 0 and w.watches[(i - 1) >> 1].when > key.when:
        put_watch(w, i, w.watches[(i - 1) >> 1])
        i = (i - 1) >> 1
        steps += 1
    put_watch(w, i, key)
    return steps


cdef size_t sink_watch(th_waiter* w, size_t i, th_watch key) noexcept nogil:
    """Put key into the hole at i or below."""
    cdef size_t child = 2 * i + 1, steps = 1
    while child < w.watched:
        if child + 1 < w.watched and w.watches[child + 1].when < w.watches[child].when:
            child += 1
        if w.watches[child].when >= key.when:
            break
        put_watch(w, i, w.watches[child])
        i = child
        child = 2 * i + 1
        steps += 1
    put_watch(w, i, key)
    return steps


cdef size_t watch(th_waiter* w, th_node* node, int64_t when) noexcept nogil:
    """A key for node no later than when."""
    cdef th_watch key
    key.when = when
    key.node = node
    if node.place == 0:
        w.watched += 1
        return raise_watch(w, w.watched - 1, key)
    if when < w.watches[node.place - 1].when:
        return raise_watch(w, node.place - 1, key)
    return 0


cdef size_t unwatch(th_waiter* w, th_node* node) noexcept nogil:
    """No key for node."""
    cdef size_t i = node.place - 1
    cdef int64_t was
    cdef th_watch last
    if node.place == 0:
        return 0
    was = w.watches[i].when
    node.place = 0
    w.watched -= 1
    if i == w.watched:
        return 1
    last = w.watches[w.watched]
    return raise_watch(w, i, last) if last.when < was else sink_watch(w, i, last)


cdef inline outcome look_at(th_waiter* w, glance* g, th_node* node) noexcept nogil:
    """Look at one node, and keep an eye on it where it is this waiter's to watch. A channel seen ready is not to be
    seen a second time, or it would have twice the chance."""
    cdef th_chan* ch = node.chan
    cdef outcome result = see(g, ch, node - w.nodes)
    cdef size_t steps = 1
    if result == RECEIVED:
        steps += unwatch(w, node)
    elif th_chan_live(ch) and ch.when != TH_NEVER and not ch.core.manual and node.prev == NULL:
        steps += watch(w, node, ch.when)
    pause(g, steps)
    return result


cdef inline bint has_unseen(th_waiter* w, glance* g) noexcept nogil:
    return w.again or w.changed != NULL or (w.watched and w.watches[0].when <= g.now)


cdef inline th_node* take_changed(th_waiter* w, glance* g) noexcept nogil:
    """One of the changed nodes, of which there are some. That a Ticker has been stopped concerns all of its line, of
    whom each tells the next."""
    cdef th_node* node = th_next_changed(w)
    if node.chan.period and not th_chan_live(node.chan) and th_note(node.next):
        g.work += STEPS_A_WAKE
    return node


cdef outcome look_at_all(th_waiter* w, glance* g) noexcept nogil:
    """Look at every node."""
    cdef size_t i
    cdef outcome result
    while w.changed != NULL:
        take_changed(w, g)
        pause(g, 1)
    w.again = False
    for i in range(w.count):
        if i + PREFETCH < w.count:
            prefetch(w.nodes[i + PREFETCH].chan)
        result = look_at(w, g, w.nodes + i)
        if result != RECEIVED and result != TIMED_OUT:
            return result
    return TIMED_OUT


cdef outcome look(th_waiter* w, glance* g, int64_t* when) noexcept nogil:
    """Look at what this waiter has not seen, and receive: from one of the ready channels, each with the same chance.
    TIMED_OUT means nothing was received; if C has been let go of meanwhile, there may be something unseen again."""
    cdef outcome result = TIMED_OUT
    cdef th_node* node
    cdef th_chan* ch
    g.ready = 0
    if w.again:
        result = look_at_all(w, g)
    while result == TIMED_OUT or result == RECEIVED:
        if w.changed != NULL:
            node = take_changed(w, g)
        elif w.watched and w.watches[0].when <= g.now:
            node = w.watches[0].node
            pause(g, unwatch(w, node))
            if node.prev != NULL:
                continue                # who was there before it has come back, and watches
        else:
            break
        result = look_at(w, g, node)
    if result != TIMED_OUT and result != RECEIVED:
        return result
    if g.ready == 0:
        return TIMED_OUT
    ch = w.nodes[g.pick].chan
    if chan_take(ch, th_due(ch.core), when):
        return RECEIVED
    w.again = True                      # another came first, and what else was ready is not watched any more
    return TIMED_OUT


cdef void join_lines(th_waiter* w, glance* g) noexcept nogil:
    """Stand in line at each channel of w, all of which are to be looked at then."""
    cdef size_t i
    th_stay_awake(w)
    th_arrive(w)
    for i in range(w.heaps):
        th_join_ring(w.groups + i)
        pause(g, 1)
    for i in range(w.count):
        if i + PREFETCH < w.count:
            prefetch(w.nodes[i + PREFETCH].chan)
        w.nodes[i].place = 0
        pause(g, th_join_line(w.nodes + i))
    w.watched = 0
    w.again = True


cdef void leave_lines(th_waiter* w, glance* g) noexcept nogil:
    """Leave every line; where w was the first, the next one takes over the watch."""
    cdef size_t i
    for i in range(w.count):
        if i + PREFETCH < w.count:
            prefetch(w.nodes[i + PREFETCH].chan)
        if th_leave_line(w.nodes + i) and th_note(w.nodes[i].next):
            g.work += STEPS_A_WAKE
        pause(g, 1)
    for i in range(w.heaps):
        th_leave_ring(w.groups + i)
        pause(g, 1)
    w.changed = NULL


cdef outcome wait_lines(th_waiter* w, glance* g, int64_t until, int64_t* when) noexcept nogil:
    """Takes C. Block in line until there is something to receive, until has come on the clock, or a signal arrived."""
    cdef outcome result
    cdef int64_t look_at = signals_at()
    cdef int64_t wake_at
    cdef bint late, interrupted = False
    cdef unsigned long slack = th_slack_fine()
    th_chan_lock()
    join_lines(w, g)
    while True:
        g.now = th_monotonic()
        late = until != TH_NEVER and th_due(g.clock) >= until
        result = look(w, g, when)
        if result != TIMED_OUT or (late and g.ready == 0):      # else there was something, and may be more
            break
        if interrupted or g.now >= look_at:
            result = SIGNALLED
            break
        if has_unseen(w, g):
            continue
        wake_at = w.watches[0].when if w.watched else TH_NEVER
        if until < wake_at and not g.clock.manual:
            wake_at = until
        debug_watches(w)
        th_rearm_wait(w)
        th_chan_unlock()
        interrupted = th_wait(w, min(wake_at, look_at)) == EINTR
        th_chan_lock()
        th_stay_awake(w)
        g.work = 0
    leave_lines(w, g)
    th_chan_unlock()
    th_slack_restore(slack)
    return result


cdef void debug_watches(th_waiter* w) noexcept nogil:
    """Debug builds run this before each sleep over a few channels: the invariant of csrc/channel.h."""
    cdef size_t i
    cdef th_node* node
    cdef th_chan* ch
    cdef bint good = True
    if not DEBUG_BUILD or w.count > SLICE:
        return
    for i in range(w.watched):
        good = good and w.watches[i].node.place == i + 1
        good = good and (i == 0 or w.watches[i].when >= w.watches[(i - 1) >> 1].when)
    for i in range(w.count):
        node = w.nodes + i
        ch = node.chan
        if node.prev == NULL and th_chan_live(ch) and ch.when != TH_NEVER and not ch.core.manual:
            good = good and node.place and w.watches[node.place - 1].when <= ch.when
    if not good:
        fprintf(stderr, b"timerheap: a receiver sleeps past a deadline\n")
        abort()


cdef size_t find_heaps(th_waiter* w, th_group* groups) noexcept nogil:
    """A group for each heap that w has a channel of; groups may be NULL, to count them. Of many heaps some may have
    more than one."""
    cdef (th_core*)[16] recent
    cdef th_core* core
    cdef size_t i, slot, n = 0
    memset(recent, 0, sizeof(recent))
    for i in range(w.count):
        core = w.nodes[i].chan.core
        slot = (<size_t>core >> 6) & 15
        if recent[slot] == core:
            continue
        recent[slot] = core
        if groups != NULL:
            groups[n].core = core
            groups[n].waiter = w
        n += 1
    return n


cdef int compare_heaps(const void* a, const void* b) noexcept nogil:
    cdef size_t first = <size_t>(<th_group*>a).core, second = <size_t>(<th_group*>b).core
    return (first > second) - (first < second)


cdef size_t merge_heaps(th_group* groups, size_t count) noexcept nogil:
    """One group for each heap; returns how many are left."""
    cdef size_t i, n = 0
    qsort(groups, count, sizeof(th_group), compare_heaps)
    for i in range(count):
        if n == 0 or groups[i].core != groups[n - 1].core:
            groups[n] = groups[i]
            n += 1
    return n


cdef bint prepare(th_waiter* w, PyObject** channels, size_t count) noexcept nogil:
    """Nodes for so many channels, the room for their keys, and the groups. w has room for NODES_ON_STACK of each.
    False when there is no memory; abandon(w) in any case."""
    cdef size_t i
    w.count = count
    if count > NODES_ON_STACK:
        w.nodes = <th_node*>malloc(count * sizeof(th_node))
        w.watches = <th_watch*>malloc(count * sizeof(th_watch))
        if w.nodes == NULL or w.watches == NULL:
            return False
    for i in range(count):
        w.nodes[i].chan = chan_of(channels[i])
        w.nodes[i].waiter = w
    w.heaps = find_heaps(w, NULL)
    if w.heaps > NODES_ON_STACK:
        w.groups = <th_group*>malloc(w.heaps * sizeof(th_group))
        if w.groups == NULL:
            return False
    find_heaps(w, w.groups)
    if w.heaps > NODES_ON_STACK:
        w.heaps = merge_heaps(w.groups, w.heaps)
    return True


cdef outcome wait(PyObject** channels, size_t count, glance* g, int64_t until, int64_t* when) except *:
    """Block until there is something to receive, or until has come on the clock. Signal handlers run meanwhile, out
    of line: they may receive themselves."""
    cdef th_node[NODES_ON_STACK] nodes
    cdef th_watch[NODES_ON_STACK] watches
    cdef th_group[NODES_ON_STACK] groups
    cdef th_waiter w
    cdef outcome result = SIGNALLED
    cdef bint ready
    memset(&w, 0, sizeof(w))
    w.nodes = nodes
    w.watches = watches
    w.groups = groups
    try:
        with nogil:
            ready = prepare(&w, channels, count)
            if ready:
                result = wait_lines(&w, g, until, when)
        if not ready:
            raise MemoryError()
        while result == SIGNALLED:
            PyErr_CheckSignals()
            with nogil:
                result = wait_lines(&w, g, until, when)
    finally:
        if w.nodes != nodes:
            free(w.nodes)
        if w.watches != watches:
            free(w.watches)
        if w.groups != groups:
            free(w.groups)
    return result


cdef size_t receive(PyObject** channels, size_t count, object timeout, bint once, double* value,
                    const char* what) except? -1:
    """Receive from one of count > 0 channels; returns its index, and the deadline in value. With
    once, -1 and no exception when the channel is stopped. what is timeout's name in a message."""
    cdef glance g
    cdef int64_t ns = TH_NEVER, when = 0
    cdef outcome result
    if timeout is not None:
        to_ns(timeout, &ns, what)
    g.once = once
    if count <= SLICE:
        result = look_once(channels, count, &g, &when)
    else:
        with nogil:
            result = look_once(channels, count, &g, &when)
    if result == TIMED_OUT and ns > 0:
        if g.driving and not g.hope and (ns == TH_NEVER or g.clock.manual):
            result = DEADLOCK
        else:
            result = wait(channels, count, &g, th_deadline(th_now(g.clock), ns), &when)
    if result == RECEIVED:
        value[0] = to_seconds(when)
        return g.pick
    if result == STOPPED or (once and result == HEAP_CLOSED):
        return <size_t>-1
    if result == HEAP_CLOSED:
        raise RuntimeError(CLOSED_HEAP)
    if result == INHERITED:
        raise RuntimeError("the timer was armed before the fork and goes on in the parent only; "
                           "reset() arms it anew in this process")
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
    Ticker is stopped, and raises as Channel.recv does in the child of a fork; as a context manager
    it is stopped at the end of the block.
    """

    cdef Channel channel

    def __cinit__(self, period, *, heap=None):
        cdef int64_t ns = positive_period(period, b"Ticker() period")
        cdef TimerHeap home = heap_or_default(heap, "Ticker()")
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

    @cython.embedsignature(False)
    def reset(self, period=MISSING):
        """reset($self, period)\n--\n
        Begin anew with another period: the next tick comes one period from now. Raises as the
        constructor does, and leaves the Ticker as it was then.
        """
        cdef int64_t ns = positive_period(period, b"Ticker.reset() period")
        chan_arm(&self.channel.ch, ns, ns)

    def __iter__(self):
        return self

    def __next__(self):
        cdef PyObject* channel = <PyObject*>self.channel
        cdef double value = 0
        if receive(&channel, 1, None, True, &value, NULL) == <size_t>-1:
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


def after(delay):
    """Timer(delay).c: a channel that delivers one value, delay seconds from now.
    """
    cdef int64_t ns = 0
    cdef Channel channel
    to_ns(delay, &ns, b"after() delay")
    channel = new_channel(current_default())
    chan_arm(&channel.ch, ns, 0)
    return channel


def tick(period):
    """Ticker(period).c: a channel that delivers a value every period seconds until it is dropped.
    """
    cdef int64_t ns = positive_period(period, b"tick() period")
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
            refuse_to_select(channel)
    items = tuple_items(<PyObject*>channels)
    i = receive(items, count, timeout, False, &value, b"select() timeout")
    return channels[i], value


cdef int refuse_to_select(object thing) except -1:
    got = f"select() takes channels, not {type(thing).__name__}"
    if isinstance(thing, (Timer, Ticker)) and thing.c is not None:
        raise TypeError(f"{got}: its channel is called c")
    if thing is None or isinstance(thing, Timer):
        raise TypeError(f"{got}: a timer of AfterFunc has no channel")
    if hasattr(thing, "__iter__"):
        raise TypeError(f"{got}: one argument each, select(*channels)")
    if has_float(thing):
        raise TypeError(f"{got}: a timeout is given by keyword, timeout={thing!r}")
    raise TypeError(got)


def longest_slice():
    """For tests: in a debug build the most steps of channel work under one hold of the mutex since the last call."""
    return th_longest_slice()


def sleep(delay):
    """Block the calling thread for at least delay seconds. The GIL is released, signal handlers
    run, and an exception in one ends it.
    """
    cdef int64_t ns = 0, until, look_at
    cdef int interrupted = True
    cdef unsigned long slack
    to_ns(delay, &ns, b"sleep() delay")
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

    The thread that makes it is the one expected to advance it. A receive, select or sleep there,
    or in a callback that advance() runs, that nothing but advance() could end raises RuntimeError
    at once; in other threads it waits for advance().
    """

    def __cinit__(self, *args, **kwargs):
        self.core.manual = True
        self.core.running = self.core.ready = True
        self.core.exiting = False
        self.core.driver = th_thread()

    def __init__(self, start=0.0, *, name="manual", on_error=None):
        cdef int64_t ns = 0
        to_ns(start, &ns, b"ManualHeap() start")
        if ns == TH_NEVER or ns == INT64_MIN:
            raise ValueError(f"ManualHeap() start must be a time of the clock, which {start!r} is beyond")
        TimerHeap.__init__(self, name, on_error=on_error)
        th_set_due(self.core, ns)
        th_set_manual(self.core, ns)

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
        cdef bint busy
        to_ns(seconds, &ns, b"ManualHeap.advance() seconds")
        span = seconds if isinstance(seconds, float) else to_seconds(ns)
        if ns < 0 or span < 0:
            raise ValueError(f"ManualHeap.advance() seconds must not be negative, as {seconds!r} is: time does not run "
                             "backwards")
        if FREE_THREADED:
            th_lock(c)
        busy = c.advancer != 0
        if not busy:
            c.advancer = th_thread()
        if FREE_THREADED:
            th_unlock(c)
        if busy:
            raise RuntimeError("advance() is under way already")
        try:
            before = to_seconds(th_now(c))
            if add_overflow(th_now(c), ns, &target) or target == TH_NEVER:
                raise ValueError("ManualHeap.advance() seconds must not lead beyond the end of the clock, as "
                                 f"{seconds!r} would")
            due = th_last_shown(target, max(before + span, to_seconds(target)))
            if (ns > 1 and to_seconds(ns) > span and not is_sum(before, span, to_seconds(target))
                    and is_sum(before, span, to_seconds(target - 1))):
                target -= 1                 # seconds was rounded up, though it leads to a whole nanosecond
            while step(c, target, due):
                wake_waiters(c)
                fire_run(self)
                PyErr_CheckSignals()
            th_set_due(c, max(due, th_due(c)))
        finally:
            let_run_go(c, <PyObject*>self)
            if FREE_THREADED:
                th_lock(c)
            c.advancer = 0
            if FREE_THREADED:
                th_unlock(c)
            if c.closed:
                drop_hooks(self)
        wake_waiters(c)


cdef inline bint is_sum(double before, double span, double after) noexcept nogil:
    """Whether span leads from before to after, as somebody finds who adds or subtracts."""
    return before + span == after or after - before == span


cdef bint step(th_core* c, int64_t target, int64_t due) noexcept nogil:
    """Turn the clock to the next deadline, not beyond due, and collect what is due then. False
    when nothing was, and the clock stands at target, or where a deadline beyond that has left it."""
    cdef int64_t now = th_now(c)
    th_lock(c)
    collect(c, now)
    if c.run_len == 0:
        if c.len and c.keys[0].when <= due and not c.closed:
            now = c.keys[0].when
        else:
            now = max(now, target)
        th_set_manual(c, now)
        collect(c, now)
    sort_run(c)
    th_unlock(c)
    return c.run_len > 0


cdef int finish_channel_types() except -1:
    global ticker_call_unchecked, ticker_new_unchecked, manual_init_unchecked
    global after_unchecked, tick_unchecked, sleep_unchecked
    after_unchecked = change_function(<PyObject*>after, after_call)
    tick_unchecked = change_function(<PyObject*>tick, tick_call)
    sleep_unchecked = change_function(<PyObject*>sleep, sleep_call)
    ticker_call_unchecked = change_vectorcall(<PyTypeObject*>Ticker, ticker_call)
    ticker_new_unchecked = change_new(<PyTypeObject*>Ticker, ticker_new)
    manual_init_unchecked = change_init(<PyTypeObject*>ManualHeap, manual_init)
    set_iter(<PyTypeObject*>Channel, no_iterator)
    add_misnomers(Ticker, TICKER_MISNOMERS)
    add_misnomers(Channel, CHANNEL_MISNOMERS)
    return 0


reveal_timers(ManualHeap)
finish_channel_types()
publish(Channel, "()")
publish(Ticker, "(period, *, heap=None)")
publish(ManualHeap, "(start=0.0, *, name='manual', on_error=None)")
atexit.register(stop_at_exit)
if th_watch_threads() != 0 or th_watch_forks() != 0:
    raise MemoryError()
Py_AtExit(th_note_finalized)
os.register_at_fork(before=before_fork, after_in_parent=after_fork_in_parent, after_in_child=after_fork_in_child)
