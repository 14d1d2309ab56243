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

cdef inline void pause_slice(th_core* c, size_t* work, size_t slice) noexcept nogil:
    """Every slice steps let go of the mutex for a moment, so that nobody waits longer than a slice
    takes."""
    th_assert_held(c)
    work[0] += 1
    if work[0] % slice == 0:
        th_yield_lock(c)


cdef void collect(th_core* c, int64_t now) noexcept nogil:
    """Move every timer due at now into the run, unsorted, and bring a stale root up to date.

    Afterwards the root, if any, is later than now and not stale: the deadline to sleep for. Few due
    timers are popped. Popping costs a siftdown over the whole height each, about 300 ns at a
    million; so when many are due, as many as make popping as dear as looking at every key, a scan
    from the end takes the rest. There a due key in the last place is simply cut off, and one above
    it takes a last key that cannot rise (its parent is due as well), only sink through what is
    already clean: O(n) in all.

    The mutex is let go of between slices. What callers arm meanwhile is due at now at the earliest,
    so it may wait for the next run, and so must a timer that still has an entry in this one. Room
    that is left over goes to the sort first, if there is one.
    """
    cdef size_t budget = max(<size_t>64, c.len >> 8)
    cdef size_t popped = 0, work = 0
    cdef size_t i
    cdef th_key key
    cdef th_timer* t
    th_assert_held(c)
    now = min(now, TH_NEVER - 1)            # even a clock that stands at the end makes nothing due there
    while c.len > 0 and not c.closed:
        if c.rising:
            raise_keys(c)
        key = c.keys[0]
        t = key.timer
        if th_state(t) != TH_ARMED:
            bury(c, 0)
        elif t.when <= now:
            if popped == budget or t.flags & TH_PINNED or not reserve_run(c, c.run_len + 1):
                break
            popped += enter_run(c, 0)
        elif t.when > key.when:
            key.when = t.when
            siftdown(c, 0, key)
            c.rekeyed += 1
        else:
            break
        pause_slice(c, &work, POP_SLICE)
    if c.run_len == 0:
        shrink_keys(c)
    if popped < budget or c.len == 0 or not reserve_run(c, c.run_len + c.len):
        return
    i = c.len
    while i > 0 and not c.closed:
        i -= 1
        if i >= c.len:
            i = c.len
            continue
        if i >= PREFETCH and c.keys[i - PREFETCH].when <= now:
            prefetch(c.keys[i - PREFETCH].timer)
        key = c.keys[i]
        if key.when <= now:
            t = key.timer
            if th_state(t) != TH_ARMED:
                bury(c, i)
            elif t.when > now:
                key.when = t.when
                siftdown(c, i, key)
                c.rekeyed += 1
            elif not t.flags & TH_PINNED and c.run_len < c.run_cap:
                enter_run(c, i)
        pause_slice(c, &work, SCAN_SLICE)


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
