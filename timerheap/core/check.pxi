# The checker: every invariant of heap.pxi, by brute force. TimerHeap.check() walks all of them; a debug build walks
# those of single keys around each change of a state.

cdef struct fault:
    const char* what
    size_t index
    int64_t left
    int64_t right


cdef bint fails(fault* f, const char* what, size_t index, int64_t left, int64_t right) noexcept nogil:
    f.what = what
    f.index = index
    f.left = left
    f.right = right
    return False


cdef bint check_key(th_core* c, size_t i, fault* f) noexcept nogil:
    """Invariants 1 to 3 at one index."""
    cdef th_key key = c.keys[i]
    cdef size_t parent = (i - 1) >> 2
    if i > 0 and key.when < c.keys[parent].when:
        return fails(f, b"a key is earlier than its parent", i, key.when, c.keys[parent].when)
    if key.timer == &c.tomb:
        return True
    if key.timer.pos != i:
        return fails(f, b"a timer does not know its place", i, key.timer.pos, <int64_t>i)
    if not key.timer.flags & TH_KEYED:
        return fails(f, b"a timer in the heap does not know it", i, key.timer.flags, TH_KEYED)
    if key.timer.when < key.when and not key.timer.flags & TH_RISING:
        return fails(f, b"a key is later than its timer", i, key.when, key.timer.when)
    if key.timer.flags & TH_CELL and th_owner(&c.arrays, key.timer) == NULL:
        return fails(f, b"a cell has lost its array", i, key.timer.flags, TH_CELL)
    if key.timer.flags & TH_PERIODIC and key.timer.state == TH_ARMED and key.timer.flags & (TH_ORPHAN | TH_CARCASS):
        return fails(f, b"a periodic timer has lost its handle", i, key.timer.flags, TH_PERIODIC)
    return True


cdef bint check_array(th_core* c, th_array* a, fault* f) noexcept nogil:
    """Invariant 9."""
    cdef size_t i, armed = 0
    cdef th_timer* t
    th_assert_held(c)
    for i in range(a.n):
        t = th_cell(a, i)
        armed += t.state != TH_IDLE
        if t.flags & TH_KEYED and (t.pos >= c.len or c.keys[t.pos].timer != t):
            return fails(f, b"a cell does not know its place", i, t.pos, <int64_t>c.len)
    if a.armed != armed:
        return fails(f, b"an array's armed cells miscounted", 0, <int64_t>a.armed, <int64_t>armed)
    if a.held and armed == 0:
        return fails(f, b"an idle array is held", 0, a.held, 0)
    return True


cdef bint check_heap(th_core* c, fault* f) noexcept nogil:
    """Every invariant, by brute force; False with the first fault found."""
    cdef size_t i, due = 0, orphans = 0, dead = 0
    cdef int64_t rising = 0, pinned = 0
    cdef th_timer* t
    th_assert_held(c)
    if c.len > c.cap:
        return fails(f, b"more keys than room", 0, <int64_t>c.len, <int64_t>c.cap)
    for i in range(c.len):
        if not check_key(c, i, f):
            return False
        orphans += (c.keys[i].timer.flags & TH_ORPHAN) != 0
        dead += c.keys[i].timer.state != TH_ARMED
        rising += (c.keys[i].timer.flags & TH_RISING) != 0
        pinned += (c.keys[i].timer.flags & TH_PINNED) != 0
    for i in range(c.run_head, c.run_len):
        t = c.run[i].timer
        if not t.flags & TH_PINNED:
            return fails(f, b"a run entry's timer is not pinned", i, t.flags, TH_PINNED)
        pinned -= (t.flags & TH_KEYED) != 0
        if t.state == TH_DUE:
            due += 1
            if t.flags & TH_PERIODIC and t.flags & (TH_ORPHAN | TH_CARCASS):
                return fails(f, b"a periodic timer has lost its handle", i, t.flags, TH_PERIODIC)
            orphans += (t.flags & TH_ORPHAN) != 0
    for i in range(c.rising):
        rising -= (c.risers[i].flags & TH_KEYED) != 0
        if not c.risers[i].flags & TH_RISING:
            return fails(f, b"a riser does not know it", i, c.risers[i].flags, TH_RISING)
    for i in range(c.arrays.len):
        if not check_array(c, c.arrays.items[i], f):
            return False
    if pinned != 0:
        return fails(f, b"pinned timers miscounted", 0, pinned, 0)
    if rising != 0:
        return fails(f, b"risers miscounted", 0, rising, 0)
    if c.stops - c.buried != dead:
        return fails(f, b"dead keys miscounted", 0, <int64_t>(c.stops - c.buried), <int64_t>dead)
    if c.live != c.len - dead + due:
        return fails(f, b"live timers miscounted", 0, <int64_t>c.live, <int64_t>(c.len - dead + due))
    if c.orphans.used != orphans:
        return fails(f, b"orphans miscounted", 0, <int64_t>c.orphans.used, <int64_t>orphans)
    return True


cdef void debug_check(th_core* c) noexcept nogil:
    """Debug builds run this around each mutation: all of a small heap, a window that wanders
    through a large one."""
    cdef fault f
    cdef bint good = True
    cdef size_t i, step
    th_assert_held(c)
    if not DEBUG_BUILD:
        return
    if c.len <= 256:
        for i in range(c.len):
            good = good and check_key(c, i, &f)
    else:
        for step in range(64):
            i = (c.seq * 64 + step) % c.len
            good = good and check_key(c, i, &f)
    if not good:
        fprintf(stderr, b"timerheap: %s at index %zu: %lld and %lld\n", f.what, f.index,
                <long long>f.left, <long long>f.right)
        abort()
