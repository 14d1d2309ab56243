# The watches of a waiter: a binary heap, by when, of the channels that it has to look at by itself. The model is in
# csrc/channel.h.
#
# A node knows the place of its key. The functions that move keys return how many steps it took. C is held.

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
    th_assert_chan_held()
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
    th_assert_chan_held()
    if node.place == 0:
        return 0
    was = w.watches[i].when
    node.place = 0
    w.watched -= 1
    if i == w.watched:
        return 1
    last = w.watches[w.watched]
    return raise_watch(w, i, last) if last.when < was else sink_watch(w, i, last)


cdef void debug_watches(th_waiter* w) noexcept nogil:
    """Debug builds run this before each sleep over a few channels: the invariant of csrc/channel.h."""
    cdef size_t i
    cdef th_node* node
    cdef th_chan* ch
    cdef bint good = True
    th_assert_chan_held()
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
