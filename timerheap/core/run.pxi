# A run: what is due, collected from the heap and sorted, for the worker to fire.
#
# Due timers are moved from the keys to the run, in any order, by collect, and then sorted by sort_run, both beside the
# callers. A run of a million costs what it touches first: a page that the kernel has to clear and map takes as long as
# a hundred entries to sort. So an entry is no more than a key, {when, timer}: only where deadlines are equal is the
# number of the arming fetched from the record. And of the two arrays that the sort needs, the second is what the keys
# of these very timers have left empty.

cdef inline size_t run_bytes(th_core* c) noexcept nogil:
    return c.run_cap * sizeof(th_key)


cdef bint resize_run(th_core* c, size_t size) noexcept nogil:
    """Give the run a mapping of size bytes, a multiple of th_page. False when there is no memory: nothing has changed
    then."""
    cdef void* base
    th_assert_held(c)
    base = th_remap(c.run, run_bytes(c), size)
    if base == NULL:
        return False
    c.run = <th_key*>base
    c.run_cap = size // sizeof(th_key)
    c.run_peak = min(c.run_peak, c.run_cap)
    return True


cdef inline bint reserve_run(th_core* c, size_t cap) noexcept nogil:
    """Room for cap entries in the run; False when there is no memory."""
    th_assert_held(c)
    return cap <= c.run_cap or resize_run(c, pages_for(cap))


cdef inline void trim_run(th_core* c) noexcept nogil:
    """After a large run: keep RUN_KEPT bytes of its room, in whole pages."""
    th_assert_held(c)
    if run_bytes(c) > th_whole_pages(RUN_KEPT):
        resize_run(c, th_whole_pages(RUN_KEPT))


cdef size_t native_bytes(th_core* c) noexcept nogil:
    """Resident bytes of keys, run, slab and arrays.  Mapped and never touched is not resident."""
    cdef size_t keys = pages_for(c.key_peak + TH_KEY_PAD) if c.key_peak else 0
    th_assert_held(c)
    return (keys + pages_for(max(c.run_peak, c.run_len)) + th_slab_bytes(&c.orphans, sizeof(th_timer))
            + th_array_bytes(&c.arrays))


# ---- collecting -----------------------------------------------------------------------------------------------------

# A few due timers are popped: the last key takes the root's place, and sinks over the whole height of the heap, which
# at ten million is twelve levels, each a cache miss for the keys and one for a record. 100,000 due of ten million cost
# 540 ns each so, 10,000 of a million 410. But what is due hangs together, from the root downwards. Therefore
#
#   walk_due   walks breadth-first from the root over due keys alone, and writes down where they are: the indices come
#              in ascending order;
#   take_all   takes these keys out in descending order. The last key fills the hole and has only to sink, for what is
#              above is due, and not far, for what was due below is gone: most holes lie where the due keys end, two or
#              three levels above the bottom. In ascending order each would sink through all that is still due. Sixteen
#              sink side by side, so that their misses overlap.
#
# That takes 196 and 190 ns. When nearly all is due most holes are in the last place, which is simply cut off: a million
# of a million cost 25 ns each, page faults included.
#
# A dead key goes the same way, without an entry. A stale one gets its timer's deadline, and sinks from where it is. The
# key of a PINNED timer, which was armed anew before its entry was settled, stays until that is: each walk comes by, and
# one that finds nothing else is the last.
#
# The indices are hints. The key there is looked at again before it is taken, and any key may be taken out at any time:
# so the mutex is let go of between slices, whatever callers do meanwhile. What has moved is found by the next walk, and
# so is what there was no memory to write down. The hints are in the run's own room, from its end downwards, and are
# used up from the lowest on: four are as large as one entry, of which each makes one at most, so none is overwritten
# before it is used.

cdef inline void pause_slice(th_core* c, size_t* work, size_t slice) noexcept nogil:
    """Every slice steps let go of the mutex for a moment, so that nobody waits longer than a slice
    takes."""
    th_assert_held(c)
    if work[0] >= slice:
        work[0] = 0
        th_yield_lock(c)


cdef inline bint take_key(th_core* c, size_t i, int64_t now) noexcept nogil:
    """Take keys[i] out if it is dead or its timer due at now, for which there is room in the run, or bring it up to
    date. True if the key that is there now has yet to sink."""
    cdef th_timer* t = c.keys[i].timer
    cdef bint sinks
    th_assert_held(c)
    if th_state(t) == TH_ARMED:
        if t.when > now:
            c.keys[i].when = t.when
            c.rekeyed += 1
            return True
        if t.flags & TH_PINNED:
            return False
    if not enter_run(c, t):
        c.buried += 1
    sinks = fill(c, i)
    th_unkeyed(t)
    return sinks


cdef struct walk:
    uint32_t* end           # of the indices, which stand in front of it: the first walked by last
    size_t count
    size_t room             # for so many, where as many run entries would be


cdef bint widen(th_core* c, walk* w) noexcept nogil:
    """Make room for all keys. False when there is no memory."""
    cdef size_t room = c.len + 4
    cdef uint32_t* end
    th_assert_held(c)
    if room <= w.room or not reserve_run(c, c.run_len + room):
        return False
    end = <uint32_t*>(c.run + c.run_len + room)
    memmove(end - w.count, <uint32_t*>(c.run + c.run_len + w.room) - w.count, w.count * sizeof(uint32_t))
    w.end = end
    w.room = room
    return True


cdef void walk_due(th_core* c, walk* w, int64_t now) noexcept nogil:
    """Write down where the keys are that are due at now, as the root is, as long as there is memory."""
    cdef size_t seen = 0, work = 0, child
    cdef int k
    cdef uint32_t* at
    th_assert_held(c)
    w.room = min(WALK_ROOM, c.len + 4)
    if not reserve_run(c, c.run_len + w.room):
        w.room = c.run_cap - c.run_len
    w.end = <uint32_t*>(c.run + c.run_len + w.room)
    at = w.end - 1
    at[0] = 0
    w.count = 1
    while seen < w.count and not c.closed:
        seen += 1
        child = 4 * <size_t>(w.end - seen)[0] + 1
        if child >= c.len or (w.count + 4 > w.room and not widen(c, w)):
            break
        if seen + PREFETCH <= w.count:
            prefetch(c.keys + 4 * <size_t>(w.end - seen - PREFETCH)[0] + 1)
        at = w.end - w.count
        for k in range(<int>min(<size_t>4, c.len - child)):
            (at - 1)[0] = <uint32_t>(child + k)         # for nothing, if it is not due: no branch to mispredict
            at -= c.keys[child + k].when <= now
        w.count = w.end - at
        work += 1
        pause_slice(c, &work, SCAN_SLICE)
    c.run_peak = max(c.run_peak, min(c.run_cap, c.run_len + w.count + w.count // 4))


cdef bint take_all(th_core* c, int64_t now) noexcept nogil:
    """Take what is due at now, or dead, or stale, as the root is. False if that changed nothing."""
    cdef walk w
    cdef uint32_t[LANES] lanes
    cdef uint32_t* at
    cdef uint32_t* end
    cdef size_t i, before, sinking, work = 0
    cdef bint changed = False
    th_assert_held(c)
    walk_due(c, &w, now)
    at = w.end - w.count
    end = w.end
    while at < end and not c.closed:
        sinking = 0
        before = c.run_len + c.buried + c.rekeyed
        while at < end and sinking < LANES and work < TAKE_SLICE:
            if <size_t>(end - at) > 2 * PREFETCH and at[PREFETCH] < c.len:
                prefetch(c.keys + at[2 * PREFETCH])
                prefetch(c.keys[at[PREFETCH]].timer)
            i = at[0]                       # which the entry may overwrite
            at += 1
            work += 1
            if i < c.len and c.keys[i].when <= now and take_key(c, i, now):
                lanes[sinking] = <uint32_t>i
                sinking += 1
        changed = changed or c.run_len + c.buried + c.rekeyed != before
        siftdown_all(c, lanes, sinking)
        pause_slice(c, &work, TAKE_SLICE)
    return changed


cdef inline bint fresh_root(th_core* c) noexcept nogil:
    """Whether the root, if any, is neither stale nor dead."""
    th_assert_held(c)
    return c.len == 0 or (th_state(c.keys[0].timer) == TH_ARMED and c.keys[0].timer.when == c.keys[0].when)


cdef void collect_some(th_core* c, int64_t now, size_t most) noexcept nogil:
    """Move every timer due at now into the run, unsorted. If there is none, bring the root up to date, which may be the
    work of a million keys: of so many at most, for now is past by then.

    Afterwards the root, if any, is later than now. Unless the run has entries: then there may be no memory for more, or
    a timer is due again that still has one. What callers arm while the mutex is let go of is due at now at the
    earliest, so it may wait for the next run. Room that is left over goes to the sort first, if there is one.
    """
    cdef size_t enough = c.run_len + c.len, steps = 0, work = 0
    cdef size_t few = FEW if c.len > CACHED_KEYS else 4 * FEW
    cdef th_key root
    th_assert_held(c)
    now = min(now, TH_NEVER - 1)            # even a clock that stands at the end makes nothing due there
    while c.len > 0 and not c.closed:
        if c.rising:
            raise_keys(c)
        root = c.keys[0]
        if root.when > now:
            if c.run_len or most == 0 or fresh_root(c):
                break
            most -= 1
        elif c.run_len >= enough or not reserve_run(c, c.run_len + 1):
            break
        if root.when > now or steps < few:
            if take_key(c, 0, now):
                siftdown(c, 0, c.keys[0])
        elif not take_all(c, now) and c.run_len:
            break
        steps += 1
        work += 1
        pause_slice(c, &work, TAKE_SLICE)
    if c.run_len == 0:
        shrink_keys(c)


cdef void collect(th_core* c, int64_t now) noexcept nogil:
    """collect_some, where the clock stands still, or nobody else looks at it: a root that is later than now is not
    stale afterwards, unless the run has entries, and so the next deadline."""
    collect_some(c, now, <size_t>-1)


# ---- sorting --------------------------------------------------------------------------------------------------------

# Without M, up to sort_run, which lets go of it for them: while core.sorting is set nobody else looks at the run.

cdef void insertion_sort(th_key* run, size_t n) noexcept nogil:
    cdef size_t i, j
    cdef th_key entry
    for i in range(1, n):
        entry = run[i]
        j = i
        while j > 0 and entry.when < run[j - 1].when:
            run[j] = run[j - 1]
            j -= 1
        run[j] = entry


cdef int compare_keys(const void* a, const void* b) noexcept nogil:
    cdef int64_t first = (<th_key*>a).when, second = (<th_key*>b).when
    return (first > second) - (first < second)


cdef th_key* radix_sort(th_key* run, th_key* other, size_t n) noexcept nogil:
    """By when, 11 bits a pass over the bits that differ."""
    cdef size_t[2048] start
    cdef size_t i, at, count
    cdef int64_t low = run[0].when, high = low
    cdef int shift = 0
    cdef th_key* swap
    for i in range(n):
        low = min(low, run[i].when)
        high = max(high, run[i].when)
    while shift < 64 and <uint64_t>(high - low) >> shift:
        memset(start, 0, sizeof(start))
        for i in range(n):
            start[(<uint64_t>(run[i].when - low) >> shift) & 2047] += 1
        at = 0
        for i in range(2048):
            count = start[i]
            start[i] = at
            at += count
        for i in range(n):
            count = (<uint64_t>(run[i].when - low) >> shift) & 2047
            other[start[count]] = run[i]
            start[count] += 1
        swap = run
        run = other
        other = swap
        shift += 11
    return run


cdef th_key* sort_by_when(th_key* run, th_key* other, size_t n) noexcept nogil:
    """Sort n entries; other has room for as many, or is NULL: it makes a large sort take about 20 ns an entry instead
    of 150. Returns whichever of the two the result is in."""
    if n <= INSERTION_MAX:
        insertion_sort(run, n)
        return run
    if other == NULL:
        qsort(run, n, sizeof(th_key), compare_keys)
        return run
    return radix_sort(run, other, n)


cdef void sort_ties(th_key* run, th_key* other, size_t n) noexcept nogil:
    """Bring n entries of the same deadline into the order of arming: by seq, which takes the place of when for as long
    as that lasts. An entry whose timer is armed anew meanwhile is void, and its place does not matter."""
    cdef int64_t when = run[0].when
    cdef size_t i
    cdef th_key* result
    for i in range(n):
        if i + PREFETCH < n:
            prefetch(run[i + PREFETCH].timer)
        run[i].when = <int64_t>th_seq(run[i].timer)
    result = sort_by_when(run, other, n)
    for i in range(n):
        run[i].when = when
        run[i].timer = result[i].timer


cdef th_key* sort_entries(th_key* run, th_key* other, size_t n) noexcept nogil:
    """Sort n entries by (when, seq); else as sort_by_when."""
    cdef th_key* result = sort_by_when(run, other, n)
    cdef th_key* spare = other if result == run else run
    cdef size_t i = 0, end
    while i < n:
        end = i + 1
        while end < n and result[end].when == result[i].when:
            end += 1
        if end - i > 1:
            sort_ties(result + i, spare + i if spare != NULL else NULL, end - i)
        i = end
    return result


cdef bint in_order(th_key* run, size_t n) noexcept nogil:
    cdef size_t i
    for i in range(1, n):
        if run[i].when < run[i - 1].when:
            return False
        if run[i].when == run[i - 1].when and th_seq(run[i].timer) < th_seq(run[i - 1].timer):
            return False
    return True


cdef void swap_run(th_core* c, th_key** other, size_t* size) noexcept nogil:
    """Takes M. The run lives in other from now on, size bytes, and other is what the run was in."""
    cdef th_key* run = c.run
    cdef size_t bytes = run_bytes(c)
    th_lock(c)
    c.run = other[0]
    c.run_cap = c.run_peak = size[0] // sizeof(th_key)
    th_unlock(c)
    other[0] = run
    size[0] = bytes


cdef void sort_run(th_core* c) noexcept nogil:
    """Bring the run into firing order, from run_head on: by deadline, equal deadlines by arming. Hand back what room
    collect has left over.

    What was launched already (of a run that was broken off for want of memory) must not come back. The mutex is let go
    of meanwhile: the run is its worker's own.
    """
    cdef size_t n = c.run_len - c.run_head
    cdef size_t size = pages_for(n), kept = snug(c)
    cdef th_key* run = c.run + c.run_head
    cdef th_key* other = NULL
    cdef th_key* result = run
    th_assert_held(c)
    c.run_peak = max(c.run_peak, c.run_len)
    if n <= INSERTION_MAX or c.key_bytes - kept < size:
        shrink_keys(c)
    else:
        size = c.key_bytes - kept
        other = <th_key*>(<char*>(c.keys - TH_KEY_PAD) + kept)
        set_room(c, kept)
    if n < 2:
        return
    c.sorting = True
    th_unlock(c)
    if not in_order(run, n):
        if n > INSERTION_MAX and other == NULL:
            other = <th_key*>th_remap(NULL, 0, size)
        result = sort_entries(run, other, n)
    if result != run and c.run_head:
        memcpy(run, result, n * sizeof(th_key))
    elif result != run:
        swap_run(c, &other, &size)
    if other != NULL:
        th_unmap(other, size)
    th_lock(c)
    c.sorting = False


cdef inline void end_run(th_core* c) noexcept nogil:
    """All of the run has been launched."""
    th_assert_held(c)
    c.run_head = c.run_len = 0
    c.runs += 1
    trim_run(c)
    if c.readers == 0:
        th_free_retired(&c.arrays)


cdef void empty_run(th_core* c) noexcept nogil:
    """Takes M."""
    th_lock(c)
    end_run(c)
    th_unlock(c)
