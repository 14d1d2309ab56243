# Receiving: to look at channels, to wait in their lines, and to take a value. The model is in csrc/channel.h.
#
# Lock. C is held, unless a function says that it takes it; what stands under "receiving" works without C.

cdef enum:
    NODES_ON_STACK = 4    # of a receiver of so few channels, which allocates nothing


cdef enum outcome:
    RECEIVED
    TIMED_OUT
    SIGNALLED
    HEAP_CLOSED
    STOPPED
    INHERITED
    DEADLOCK
    NOT_READY             # only while receiving: there is nothing that has not been looked at


cdef struct glance:
    bint once             # a stopped channel counts as an end, as it does for iteration
    int64_t now           # the time, but for manual heaps; as of when C was taken last
    size_t work           # steps in this slice
    size_t ready          # channels seen ready
    size_t pick           # one of them, each with the same chance: its index
    th_core* clock        # what a timeout counts by: real time if any of the channels does
    bint driving          # some are on a manual clock that this thread turns
    bint hope             # another thread or real time may yet make one of them ready


# ---- looking --------------------------------------------------------------------------------------------------------

cdef inline th_chan* chan_of(PyObject* channel) noexcept nogil:
    return &(<Channel>channel).ch


cdef inline void pause(glance* g, size_t steps) noexcept nogil:
    g.work += steps
    if offer(&g.work):
        g.now = th_monotonic()


cdef inline outcome see(glance* g, th_chan* ch, size_t i) noexcept nogil:
    """Look at one channel. RECEIVED: it is ready; TIMED_OUT: not yet; else an end."""
    cdef th_core* core = ch.core
    th_assert_chan_held()
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
    th_assert_chan_held()
    if not core.manual:
        g.clock = core
        g.hope = g.hope or (th_chan_live(ch) and ch.when != TH_NEVER)
        return
    if g.clock == NULL:
        g.clock = core
    if drives(core):
        g.driving = True
    else:
        g.hope = True


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
    th_assert_chan_held()
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
    th_assert_chan_held()
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
    th_assert_chan_held()
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


# ---- waiting --------------------------------------------------------------------------------------------------------

cdef void join_lines(th_waiter* w, glance* g, int64_t until) noexcept nogil:
    """Stand in line at each channel of w, all of which are to be looked at then."""
    cdef size_t i
    th_assert_chan_held()
    th_stay_awake(w)
    th_arrive(w)
    w.clock = g.clock
    w.until = until
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
    th_assert_chan_held()
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


cdef outcome look_in_line(th_waiter* w, glance* g, int64_t until, int64_t* when) noexcept nogil:
    """Look at what w has not seen. NOT_READY: nothing was received, and until has not come on the clock."""
    cdef outcome result
    cdef bint late
    th_assert_chan_held()
    g.now = th_monotonic()
    late = until != TH_NEVER and th_due(g.clock) >= until
    if late and g.clock.manual:
        w.again = True                  # whoever has turned the clock may have yet to say so
    result = look(w, g, when)
    if result == TIMED_OUT and not (late and g.ready == 0):     # else there was something, and may be more
        return NOT_READY
    return result


cdef inline int64_t when_to_wake(th_waiter* w, glance* g, int64_t until) noexcept nogil:
    """Until when w may sleep, which has seen all."""
    cdef int64_t wake_at = w.watches[0].when if w.watched else TH_NEVER
    th_assert_chan_held()
    debug_watches(w)
    return wake_at if g.clock.manual else min(wake_at, until)


cdef outcome wait_lines(th_waiter* w, glance* g, int64_t until, int64_t* when) noexcept nogil:
    """Takes C. Block in line until there is something to receive, until has come on the clock, a signal arrived, or
    there are bells to ring."""
    cdef outcome result
    cdef int64_t look_at = signals_at()
    cdef int64_t wake_at
    cdef bint interrupted = False
    cdef unsigned long slack = th_slack_fine()
    th_chan_lock()
    join_lines(w, g, until)
    while True:
        result = look_in_line(w, g, until, when)
        if result != NOT_READY:
            break
        if interrupted or g.now >= look_at or th_bells():
            result = SIGNALLED
            break
        if has_unseen(w, g):
            continue
        wake_at = when_to_wake(w, g, until)
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


# ---- receiving ------------------------------------------------------------------------------------------------------

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
    """Block until there is something to receive, or until has come on the clock. Signal handlers run meanwhile, and
    bells are rung, out of line: they may receive themselves."""
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
            ring_bells()
            PyErr_CheckSignals()
            with nogil:
                result = wait_lines(&w, g, until, when)
    finally:
        ring_bells()
        if w.nodes != nodes:
            free(w.nodes)
        if w.watches != watches:
            free(w.watches)
        if w.groups != groups:
            free(w.groups)
    return result


cdef int refuse_to_receive(outcome result) except -1:
    """Why there is no value."""
    if result == HEAP_CLOSED:
        raise RuntimeError(CLOSED_HEAP)
    if result == INHERITED:
        raise RuntimeError("the timer was armed before the fork and goes on in the parent only; "
                           "reset() arms it anew in this process")
    raise TimeoutError("no value within the timeout")


cdef inline int64_t end_of_wait(th_core* clock, int64_t ns) noexcept nogil:
    """When a wait of ns that begins now ends."""
    return TH_NEVER if ns == TH_NEVER else th_deadline(th_now(clock), ns)


cdef outcome look_now(PyObject** channels, size_t count, glance* g, int64_t* when) noexcept:
    """look_once; with the GIL where it is short."""
    cdef outcome result
    if count <= SLICE:
        return look_once(channels, count, g, when)
    with nogil:
        result = look_once(channels, count, g, when)
    return result


cdef outcome move_or_wait(PyObject** channels, size_t count, glance* g, int64_t until, int64_t* when) except *:
    """Nothing is ready. Where only the calling thread could change that it moves the clock, if it may."""
    cdef outcome result
    while g.driving and not g.hope and (until == TH_NEVER or g.clock.manual):
        heap = driven_heap(channels, count, True)
        if heap is None or not move_on(heap, channels, count, until if g.clock == heap.core else TH_NEVER):
            return DEADLOCK
        result = look_now(channels, count, g, when)
        if result != TIMED_OUT or until != TH_NEVER and th_due(g.clock) >= until:
            return result
    return wait(channels, count, g, until, when)


cdef size_t receive(PyObject** channels, size_t count, object timeout, bint once, double* value,
                    const char* what, str call) except? -1:
    """Receive from one of count > 0 channels; returns its index, and the deadline in value. With
    once, -1 and no exception when the channel is stopped. In messages what is timeout's name, and call that of the
    call."""
    cdef glance g
    cdef int64_t ns = TH_NEVER, when = 0, until
    cdef outcome result
    if timeout is not None:
        to_ns(timeout, &ns, what)
    g.once = once
    result = look_now(channels, count, &g, &when)
    if result == TIMED_OUT and ns > 0:
        until = end_of_wait(g.clock, ns)
        result = move_or_wait(channels, count, &g, until, &when)
        if result == DEADLOCK:
            raise endless(channels, count, until, call)
    if result == RECEIVED:
        value[0] = to_seconds(when)
        return g.pick
    if result == STOPPED or (once and result == HEAP_CLOSED):
        return <size_t>-1
    return refuse_to_receive(result)
