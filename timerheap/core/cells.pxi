# Cells: what TimerArrays arm, stop and look at, by the piece.
#
# A cell is a record as any other (csrc/array.h), so one of them changes as states.pxi has it: arm_cell and stop_cell. A
# bulk call gets its gain from what a piece of cells has in common:
#
#   - one hold of M, and one look whether the worker has to be woken;
#   - the cells are known beforehand, and fetched ahead;
#   - keys that are new are put behind the others as they come, and find their places together. A few by siftup. Many by
#     Floyd's way of making a heap, but of what is above them only: their parents sink from the last to the first, then
#     the parents of these, up to the root. A piece has a third as many parents as keys, and what is above those is the
#     same for the next piece: so it is linear in the piece even where every key is earlier than all before. Until then
#     keys[0 .. first) are a heap and what is behind is not; a riser among them may sift through both: it moves earlier
#     keys up alone, and Floyd's way asks nothing of the places that it goes through.
#   - what has a key is a riser or merely stale, as with any reset; a stop leaves the key, and a piece of stops pays for
#     its share of the sweep at its end, though only while more than half of the keys are dead: each look then finds
#     one to take out twice as often, and looking is what a sweep costs.
#
# What is armed, an array counts itself, for its heap holds it as long as that is not nothing.
#
# Lock. As in heap.pxi: M is held, and the GIL where there is one.

cdef struct piece:
    int64_t earliest        # deadline that was armed
    size_t were             # cells that were ARMED or DUE


cdef inline void sink(th_core* c, size_t i) noexcept nogil:
    """Siftdown of keys[i], whose record is touched only if it moves."""
    cdef int64_t when = 0
    if earliest_child(c.keys, c.len, i, &when) < c.len and when < c.keys[i].when:
        siftdown(c, i, c.keys[i])


cdef void place_new(th_core* c, size_t first) noexcept nogil:
    """keys[0 .. first) are a heap, those behind are new: make a heap of all."""
    cdef size_t i, low = first, high = c.len - 1
    th_assert_held(c)
    if first == c.len:
        return
    c.key_peak = max(c.key_peak, c.len)
    if c.len - first <= SIFTED_SINGLY:
        for i in range(first, c.len):
            siftup(c, i, c.keys[i])
        return
    while high > 0:
        low = (low - 1) >> 2 if low else 0
        high = (high - 1) >> 2
        i = high + 1
        while i > low:
            i -= 1
            sink(c, i)


cdef inline void fetch_first(th_array* a, const uint32_t* slots, size_t n) noexcept nogil:
    """Before a walk over the cells of n slots by next_of_column."""
    cdef size_t i
    for i in range(min(n, CELLS_AHEAD)):
        prefetch(th_cell(a, slots[i]))


cdef inline th_timer* next_of_column(th_array* a, const uint32_t* slots, size_t i, size_t n) noexcept nogil:
    """That of slots[i]; one further on is asked for."""
    if i + CELLS_AHEAD < n:
        prefetch(th_cell(a, slots[i + CELLS_AHEAD]))
    return th_cell(a, slots[i])


cdef inline void append_cell(th_core* c, th_timer* t, int64_t when) noexcept nogil:
    """IDLE without a key -> ARMED, its key behind all others. There is room for it."""
    cdef size_t i = c.len
    c.seq += 1
    t.when = when
    t.pos = <uint32_t>i
    th_set_seq(t, c.seq)
    t.state = TH_ARMED
    th_mark(t, TH_CELL | TH_KEYED)
    note_live(c)
    c.keys[i].when = when
    c.keys[i].timer = t
    c.len = i + 1


cdef inline bint arm_cells(th_core* c, th_array* a, const uint32_t* slots, size_t n, const int64_t* whens, int64_t when,
                           bint revive, uint8_t* out, piece* p) noexcept nogil:
    """n slots, PIECE at most, one after another: their deadlines, or when for each if whens is NULL. Without revive
    only what is pending. out: whether each was. False, and nothing has changed, when there is no memory."""
    cdef size_t first, i, were = 0, top = a.top
    cdef int64_t deadline = when, earliest = TH_NEVER
    cdef th_timer* t
    cdef bint was
    debug_check(c)
    if not room_for(c, n):
        return False
    first = c.len
    fetch_first(a, slots, n)
    for i in range(n):
        t = next_of_column(a, slots, i, n)
        was = t.state != TH_IDLE
        out[i] = was
        were += was
        if not (was or revive):
            continue
        if whens != NULL:
            deadline = whens[i]
        earliest = min(earliest, deadline)
        if t.flags & TH_KEYED:
            postpone(c, t, deadline)
        else:
            if was:
                cancel(c, t)
            append_cell(c, t, deadline)
            top = max(top, slots[i] + <size_t>1)
        a.armed += not was
    a.top = top
    place_new(c, first)
    p.earliest = earliest
    p.were = were
    debug_check(c)
    return True


cdef inline bint arm_cell(th_core* c, th_array* a, uint32_t slot, int64_t when, bint revive, bint* was) noexcept nogil:
    """arm_cells for one."""
    cdef th_timer* t = th_cell(a, slot)
    cdef bint armed = True
    debug_check(c)
    was[0] = t.state != TH_IDLE
    if not (was[0] or revive):
        return True
    if t.flags & TH_KEYED:
        postpone(c, t, when)
    else:
        th_mark(t, TH_CELL)
        armed = enter_anew(c, t, when)
        a.top = max(a.top, slot + <size_t>1)
    a.armed += armed and not was[0]
    debug_check(c)
    return armed


cdef inline size_t stop_cells(th_core* c, th_array* a, const uint32_t* slots, size_t n, uint8_t* out) noexcept nogil:
    """How many of n slots, PIECE at most, were pending, and are no longer. out: which."""
    cdef size_t i, stopped = 0
    cdef uint64_t before = c.stops
    cdef bint was
    debug_check(c)
    fetch_first(a, slots, n)
    for i in range(n):
        was = cancel(c, next_of_column(a, slots, i, n))
        out[i] = was
        stopped += was
    a.armed -= stopped
    while before // STOPS_A_SLICE < c.stops // STOPS_A_SLICE and 2 * (c.stops - c.buried) > c.len:
        before += STOPS_A_SLICE
        sweep(c)
    debug_check(c)
    return stopped


cdef inline bint stop_cell(th_core* c, th_array* a, uint32_t slot) noexcept nogil:
    """stop_cells for one."""
    cdef bint idle
    cdef bint stopped = stop_record(c, th_cell(a, slot), &idle)
    a.armed -= stopped
    return stopped


cdef inline void look_at_cells(th_core* c, th_array* a, const uint32_t* slots, size_t n, uint8_t* active,
                               int64_t* whens) noexcept nogil:
    """Of n slots, PIECE at most, which are pending, and until when."""
    cdef size_t i
    cdef th_timer* t
    th_assert_held(c)
    fetch_first(a, slots, n)
    for i in range(n):
        t = next_of_column(a, slots, i, n)
        active[i] = t.state != TH_IDLE and not c.closed
        whens[i] = t.when


cdef inline bint hold_array(th_array* a) noexcept nogil:
    """True when something is armed by now, and the heap gets a reference to the object."""
    cdef bint taken = a.armed > 0 and not a.held
    if taken:
        a.held = True
    return taken


cdef inline bint release_if_idle(th_array* a) noexcept nogil:
    """True when nothing is armed any more, and the caller has to give up the heap's reference to the object."""
    cdef bint released = a.held and a.armed == 0
    if released:
        a.held = False
    return released


cdef inline th_array* settle_cell(th_core* c, bint fire, uint16_t* was, bint* idle) noexcept nogil:
    """settle for the next run entry, that of a cell. Its array if it was DUE, and is IDLE now."""
    cdef th_timer* t = settle(c, fire, was, idle)
    cdef th_array* a = NULL
    if was[0] == TH_DUE:
        a = th_owner(&c.arrays, t)
        a.armed -= 1
    return a


cdef bint entomb_cells(th_core* c, th_array* a, size_t* at) noexcept nogil:
    """A slice of the end of an array of which nothing is armed: no key points at its cells from at on, which is 0
    in the end. False: there is more to do. Where a slice holds all keys they are looked at, and not the cells, which
    may be many more."""
    cdef size_t i, steps = SCAN_SLICE
    cdef th_timer* t
    th_assert_held(c)
    if c.rising:
        raise_keys(c)
    if c.len <= min(at[0], steps):
        for i in range(c.len):
            if th_owns_cell(a, c.keys[i].timer):
                entomb(c, c.keys[i].timer)
        at[0] = 0
    while at[0] and steps:
        steps -= 1
        at[0] -= 1
        t = th_cell(a, at[0])
        if t.flags & TH_KEYED:
            entomb(c, t)
    return at[0] == 0


cdef bint end_array(th_core* c, th_array* a) noexcept nogil:
    """The array, entombed, is no longer its heap's. True if its memory may be freed."""
    th_assert_held(c)
    th_delist_array(&c.arrays, a)
    if c.run_len == 0 and c.readers == 0:
        return True
    th_retire_array(&c.arrays, a)
    return False
