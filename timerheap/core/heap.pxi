# The heap: a 4-ary min-heap of 16-byte keys over 40-byte timer records.
#
# Model. core.keys[0 .. len) holds one key {when, timer} for each ARMED timer; the children of i are
# 4i + 1 .. 4i + 4. A key's place is written into its timer's record (pos), so that stop and reset
# find it without a search.
#
# Invariants (check.pxi walks them all):
#   1. keys[i].when >= keys[parent(i)].when.
#   2. keys[i].timer.pos == i.
#   3. keys[i].when <= keys[i].timer.when, but for those of the risers.  "<" marks a stale key: a reset to a later
#      deadline writes the record alone, which is one cache line instead of three, and the key is sifted when it
#      reaches the root.
#   4. Every run entry from run_head on points at a PINNED record, every PINNED record has such an entry.
#   5. A key whose timer is not ARMED is dead: stop left it behind. There are stops - buried of them. Invariants 2 and 3
#      hold for it too, unless it points at the tomb.
#   6. The records in risers are those that are RISING.
#   7. A periodic timer that is ARMED or DUE is in its handle.
#   8. live == len - dead keys + the DUE timers of the run;  orphans.used == orphans in the heap and in the run.
#   9. A TimerArray has so many cells ARMED or DUE as it counts. One that is held has some.
#
# The order among equal deadlines is not the heap's business: what is due is collected as one run,
# and the run is sorted by (when, seq). That keeps the heap's comparison at one int64. Nor are a timer's states: keys
# come and go here, states.pxi says when.
#
# Lock. Unless it says otherwise each function of heap, check, states and run works with the core's mutex M held and,
# being nogil, touches no Python object: func and args are moved as plain pointers. None of them reads the clock.

cdef inline void place(th_core* c, size_t i, th_key key) noexcept nogil:
    c.keys[i] = key
    key.timer.pos = <uint32_t>i


cdef void siftup(th_core* c, size_t i, th_key key) noexcept nogil:
    """Put key into the hole at i or above: the hole rises while its parent is later than key."""
    cdef size_t parent
    th_assert_held(c)
    while i > 0:
        parent = (i - 1) >> 2
        if c.keys[parent].when <= key.when:
            break
        place(c, i, c.keys[parent])
        i = parent
    place(c, i, key)


cdef inline size_t earliest_child(const th_key* keys, size_t n, size_t i, int64_t* when) noexcept nogil:
    """Of the children of i among n keys, and its key's when; n if there are none."""
    cdef size_t first = 4 * i + 1
    cdef size_t child = first, end
    if first >= n:
        return n
    when[0] = keys[first].when
    if first + 3 < n:
        # The full group, unrolled: the compiler makes conditional moves of it.
        if keys[first + 1].when < when[0]:
            child = first + 1
            when[0] = keys[child].when
        if keys[first + 2].when < when[0]:
            child = first + 2
            when[0] = keys[child].when
        if keys[first + 3].when < when[0]:
            child = first + 3
            when[0] = keys[child].when
    else:
        end = n
        first += 1
        while first < end:
            if keys[first].when < when[0]:
                child = first
                when[0] = keys[first].when
            first += 1
    return child


cdef void siftdown(th_core* c, size_t i, th_key key) noexcept nogil:
    """Put key into the hole at i or below: the hole sinks while its earliest child is earlier than
    key."""
    cdef size_t n = c.len
    cdef size_t child
    cdef int64_t when
    cdef th_key* keys = c.keys
    th_assert_held(c)
    while True:
        child = earliest_child(keys, n, i, &when)
        if child == n or when >= key.when:
            break
        place(c, i, keys[child])
        i = child
    place(c, i, key)


cdef void siftdown_all(th_core* c, uint32_t* at, size_t count) noexcept nogil:
    """Sift down the keys at count indices, in descending order, with a heap below each but for those before it. They go
    side by side, so that their misses overlap, a level at a time, the lowest first: none comes to where another one's
    hole is. at is used up."""
    cdef th_key[LANES] lanes
    cdef th_key* keys = c.keys
    cdef size_t n = c.len, left = 0, k, child
    cdef int64_t when
    th_assert_held(c)
    if count == 1 and at[0] < n:
        siftdown(c, at[0], keys[at[0]])
        return
    for k in range(count):
        if at[k] < n:                       # what is not was cut off meanwhile
            prefetch(keys + 4 * <size_t>at[k] + 1)
            at[left] = at[k]
            lanes[left] = keys[at[k]]
            prefetch(lanes[left].timer)
            left += 1
    while left:
        count = left
        left = 0
        for k in range(count):
            child = earliest_child(keys, n, at[k], &when)
            if child == n or when >= lanes[k].when:
                place(c, at[k], lanes[k])
                continue
            prefetch(keys + 4 * child + 1)
            place(c, at[k], keys[child])
            at[left] = <uint32_t>child
            lanes[left] = lanes[k]
            left += 1


# ---- memory ---------------------------------------------------------------------------------------------------------

cdef inline size_t pages_for(size_t n) noexcept nogil:
    """Bytes of the pages that hold n keys."""
    return th_whole_pages(n * sizeof(th_key))


cdef inline void set_room(th_core* c, size_t size) noexcept nogil:
    """The mapping below the keys now has size bytes."""
    th_assert_held(c)
    c.key_bytes = size
    c.cap = size // sizeof(th_key) - TH_KEY_PAD
    if c.cap > KEYS_MAX:
        c.cap = KEYS_MAX
    c.key_peak = min(c.key_peak, c.cap)


cdef bint resize_keys(th_core* c, size_t size) noexcept nogil:
    """Give the keys a mapping of size bytes, a multiple of th_page. False when there is no memory: nothing has changed
    then."""
    cdef void* old = <void*>(c.keys - TH_KEY_PAD) if c.keys != NULL else NULL
    cdef void* base
    th_assert_held(c)
    base = th_remap(old, c.key_bytes, size)
    if base == NULL:
        return False
    c.keys = <th_key*>base + TH_KEY_PAD
    set_room(c, size)
    return True


cdef inline bint room_for(th_core* c, size_t more) noexcept nogil:
    """For so many keys more; False when memory or the 32 bits of pos are exhausted."""
    cdef size_t size = c.key_bytes
    th_assert_held(c)
    if c.len + more <= c.cap:
        return True
    if c.len + more > KEYS_MAX:
        return False
    while size // sizeof(th_key) - TH_KEY_PAD < c.len + more:
        size *= 2
    return resize_keys(c, size)


cdef inline size_t snug(th_core* c) noexcept nogil:
    """What the keys' mapping should have: half of its bytes as long as three quarters of them lie idle. Halving keeps
    it from swinging back at the next arm."""
    cdef size_t size = c.key_bytes
    th_assert_held(c)
    while size > th_page and 4 * c.len < size // sizeof(th_key) - TH_KEY_PAD:
        size >>= 1
    return size


cdef inline void shrink_keys(th_core* c) noexcept nogil:
    """Hand idle memory back."""
    cdef size_t size = snug(c)
    if size < c.key_bytes:
        resize_keys(c, size)


# ---- keys -----------------------------------------------------------------------------------------------------------

cdef inline void add_key(th_core* c, th_timer* t) noexcept nogil:
    """A key for t at its deadline. There is room for it."""
    cdef th_key key
    th_assert_held(c)
    key.when = t.when
    key.timer = t
    c.len += 1
    if c.len > c.key_peak:
        c.key_peak = c.len
    siftup(c, c.len - 1, key)


cdef inline bint fill(th_core* c, size_t i) noexcept nogil:
    """Take keys[i] out: the last key fills the hole. True if it has yet to sink from there.

    What was at i is no earlier than its parent and no later than its children, so comparing the
    last key with it alone tells which way to sift. The room stays, until shrink_keys.
    """
    cdef int64_t was = c.keys[i].when
    cdef th_key last
    th_assert_held(c)
    c.len -= 1
    if i == c.len:
        return False
    last = c.keys[c.len]
    if last.when < was:
        siftup(c, i, last)
        return False
    c.keys[i] = last
    return True


cdef inline void remove_at(th_core* c, size_t i) noexcept nogil:
    """Take keys[i] out: the last key fills the hole and finds its place."""
    th_assert_held(c)
    if fill(c, i):
        siftdown(c, i, c.keys[i])


# Stopping. Taking a key out of the middle touches places far from the handle: the key, the last key, the record that
# the last key belongs to, and more while the hole is filled. Each is a cache miss. So stop only changes the state, in
# the handle's own memory, and the key stays behind, dead. A dead key
#
#   - is dropped when it reaches the root, as a live one would be fired;
#   - is used again when its timer is reset;
#   - points at the tomb when its timer's memory is freed;
#   - is swept: while more than a quarter of the keys are dead, each stop pays for eight steps of a walk through all
#     keys. That takes two dead keys out for one left behind, so they stay about a quarter, and no call is long.
#
# A timer stopped right after it was armed is the exception: all is at hand still, and its key goes at once.

cdef inline void bury(th_core* c, size_t i) noexcept nogil:
    """Take a dead key out."""
    cdef th_timer* t = c.keys[i].timer
    th_assert_held(c)
    c.buried += 1
    remove_at(c, i)
    th_unkeyed(t)


cdef inline void entomb(th_core* c, th_timer* t) noexcept nogil:
    """The memory of t is about to go: nothing of the heap shall point there, but for the key of an ARMED timer."""
    th_assert_held(c)
    if t.flags & TH_RISING:
        raise_keys(c)
    if t.state == TH_IDLE and t.flags & TH_KEYED:
        c.keys[t.pos].timer = &c.tomb
        th_unkeyed(t)


cdef void sweep(th_core* c) noexcept nogil:
    """One slice of the walk through all keys, from the end to the root and over again."""
    cdef size_t i = min(c.sweep_at, c.len), steps = SWEEP_SLICE
    th_assert_held(c)
    if 4 * (c.stops - c.buried) <= c.len:
        return
    while steps and c.len:
        steps -= 1
        if i == 0:
            i = c.len
        i -= 1
        if i >= PREFETCH:
            prefetch(c.keys[i - PREFETCH].timer)
        if th_state(c.keys[i].timer) != TH_ARMED:
            if c.len > PREFETCH:
                prefetch(c.keys[c.len - PREFETCH].timer)    # what bury moves: the last key
            bury(c, i)
    c.sweep_at = i
    shrink_keys(c)


# Resetting. A timer with a key, live or dead, keeps it. Behind a later deadline the key is merely stale. For an earlier
# one it has to rise, and the way there goes by its place, its parent's and the record that the parent's key belongs to,
# each a cache miss that can only begin when the one before is over. So reset does not walk. It notes the timer among
# the risers, and when they are TH_RISERS, or the root is about to be looked at, all of them rise, step by step side by
# side, so that their misses overlap. Nothing waits for that: an awake worker raises them before it looks at the root,
# a parked one is woken by the first deadline before its own, and behind that no riser is missed while it sleeps.

cdef void raise_keys(th_core* c) noexcept nogil:
    """Sift up the keys of the risers that are earlier than that, and be done with the risers."""
    cdef size_t n = c.rising, k, pos
    cdef th_timer* t
    cdef th_key key
    th_assert_held(c)
    for k in range(n):
        pos = c.risers[k].pos
        prefetch(c.keys + pos)
        prefetch(c.keys + ((pos - 1) >> 2 if pos else 0))
    for k in range(n):
        pos = c.risers[k].pos
        if pos and pos < c.len and c.keys[(pos - 1) >> 2].when > c.risers[k].when:
            pos = (pos - 1) >> 2
            prefetch(c.keys[pos].timer)
            prefetch(c.keys + ((pos - 1) >> 2 if pos else 0))
    c.rising = 0
    for k in range(n):
        t = c.risers[k]
        if t.flags & TH_KEYED and t.when < c.keys[t.pos].when:
            key.when = t.when
            key.timer = t
            siftup(c, t.pos, key)
        th_risen(t)
