# The heap: a 4-ary min-heap of 16-byte keys over 40-byte timer records, and the slab for records
# without a handle.
#
# Model. core.keys[0 .. len) holds one key {when, timer} for each ARMED timer; the children of i are
# 4i + 1 .. 4i + 4. A key's place is written into its timer's record (pos), so that stop and reset
# find it without a search.
#
# Invariants (check() walks them all):
#   1. keys[i].when >= keys[parent(i)].when.
#   2. keys[i].timer.pos == i.
#   3. keys[i].when <= keys[i].timer.when, but for those of the risers.  "<" marks a stale key: a reset to a later
#      deadline writes the record alone, which is one cache line instead of three, and the key is sifted when it
#      reaches the root.
#   4. Every run entry from run_head on points at a PINNED record, every PINNED record has such an entry.
#   5. A key whose timer is not ARMED is dead: stop left it behind. There are stops - buried of them. Invariants 2 and 3
#      hold for it too, unless it points at the tomb.
#   6. The records in risers are those that are RISING.
#   7. live == len - dead keys + the DUE timers of the run;  orphans.used == orphans in the heap and in the run.
#
# The order among equal deadlines is not the heap's business: what is due is collected as one run,
# and the run is sorted by (when, seq). That keeps the heap's comparison at one int64.
#
# Lock. Unless it says otherwise each function here runs with the core's mutex held and, being
# nogil, touches no Python object: func and args are moved as plain pointers. No function here reads
# the clock.

cdef inline void place(th_core* c, size_t i, th_key key) noexcept nogil:
    c.keys[i] = key
    key.timer.pos = <uint32_t>i


cdef void siftup(th_core* c, size_t i, th_key key) noexcept nogil:
    """Put key into the hole at i or above: the hole rises while its parent is later than key."""
    cdef size_t parent
    while i > 0:
        parent = (i - 1) >> 2
        if c.keys[parent].when <= key.when:
            break
        place(c, i, c.keys[parent])
        i = parent
    place(c, i, key)


cdef void siftdown(th_core* c, size_t i, th_key key) noexcept nogil:
    """Put key into the hole at i or below: the hole sinks while its earliest child is earlier than
    key."""
    cdef size_t n = c.len
    cdef size_t child, first, end
    cdef int64_t when
    cdef th_key* keys = c.keys
    while True:
        first = 4 * i + 1
        if first >= n:
            break
        child = first
        when = keys[first].when
        if first + 3 < n:
            # The full group, unrolled: the compiler makes conditional moves of it.
            if keys[first + 1].when < when:
                child = first + 1
                when = keys[child].when
            if keys[first + 2].when < when:
                child = first + 2
                when = keys[child].when
            if keys[first + 3].when < when:
                child = first + 3
                when = keys[child].when
        else:
            end = n
            first += 1
            while first < end:
                if keys[first].when < when:
                    child = first
                    when = keys[first].when
                first += 1
        if when >= key.when:
            break
        place(c, i, keys[child])
        i = child
    place(c, i, key)


# ---- memory ---------------------------------------------------------------------------------------------------------

cdef inline size_t pages_for(size_t n) noexcept nogil:
    """Bytes of the pages that hold n keys."""
    return th_whole_pages(n * sizeof(th_key))


cdef inline void set_room(th_core* c, size_t size) noexcept nogil:
    """The mapping below the keys now has size bytes."""
    c.key_bytes = size
    c.cap = size // sizeof(th_key) - TH_KEY_PAD
    if c.cap > KEYS_MAX:
        c.cap = KEYS_MAX
    c.key_peak = min(c.key_peak, c.cap)


cdef bint resize_keys(th_core* c, size_t size) noexcept nogil:
    """Give the keys a mapping of size bytes, a multiple of th_page. False when there is no memory: nothing has changed
    then."""
    cdef void* old = <void*>(c.keys - TH_KEY_PAD) if c.keys != NULL else NULL
    cdef void* base = th_remap(old, c.key_bytes, size)
    if base == NULL:
        return False
    c.keys = <th_key*>base + TH_KEY_PAD
    set_room(c, size)
    return True


cdef inline bint grow_keys(th_core* c) noexcept nogil:
    """Make room for one more key; False when memory or the 32 bits of pos are exhausted."""
    if c.len < c.cap:
        return True
    if c.cap >= KEYS_MAX:
        return False
    return resize_keys(c, 2 * c.key_bytes)


cdef inline size_t snug(th_core* c) noexcept nogil:
    """What the keys' mapping should have: half of its bytes as long as three quarters of them lie idle. Halving keeps
    it from swinging back at the next arm."""
    cdef size_t size = c.key_bytes
    while size > th_page and 4 * c.len < size // sizeof(th_key) - TH_KEY_PAD:
        size >>= 1
    return size


cdef inline void shrink_keys(th_core* c) noexcept nogil:
    """Hand idle memory back."""
    cdef size_t size = snug(c)
    if size < c.key_bytes:
        resize_keys(c, size)


cdef size_t native_bytes(th_core* c) noexcept nogil:
    """Resident bytes of keys, run and slab.  Mapped and never touched is not resident."""
    cdef size_t keys = pages_for(c.key_peak + TH_KEY_PAD) if c.key_peak else 0
    return keys + pages_for(max(c.run_peak, c.run_len)) + th_slab_bytes(&c.orphans, sizeof(th_timer))


# ---- single timers --------------------------------------------------------------------------------------------------

cdef inline void note_live(th_core* c) noexcept nogil:
    c.live += 1
    if c.live > c.peak:
        c.peak = c.live


cdef inline bint precedes_wake(th_core* c, int64_t when) noexcept nogil:
    """Whether the worker is parked until later than when, and the caller has to signal. It is awake from then on."""
    if when >= c.wake_at:
        return False
    c.wake_at = INT64_MIN
    return True


cdef inline bint push(th_core* c, th_timer* t, int64_t when) noexcept nogil:
    """IDLE without a key -> ARMED at when.  False when there is no memory: the timer is as it was."""
    cdef th_key key
    if not grow_keys(c):
        return False
    c.seq += 1
    t.when = when
    th_set_seq(t, c.seq)
    t.state = TH_ARMED
    th_mark(t, TH_KEYED)
    key.when = when
    key.timer = t
    c.len += 1
    if c.len > c.key_peak:
        c.key_peak = c.len
    note_live(c)
    siftup(c, c.len - 1, key)
    return True


cdef inline void remove_at(th_core* c, size_t i) noexcept nogil:
    """Take keys[i] out: the last key fills the hole and finds its place.

    What was at i is no earlier than its parent and no later than its children, so comparing the
    last key with it alone tells which way to sift. The room stays, until shrink_keys.
    """
    cdef int64_t was = c.keys[i].when
    cdef th_key last
    c.len -= 1
    if i != c.len:
        last = c.keys[c.len]
        if last.when < was:
            siftup(c, i, last)
        else:
            siftdown(c, i, last)


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
    c.buried += 1
    remove_at(c, i)
    th_unkeyed(t)


cdef inline void entomb(th_core* c, th_timer* t) noexcept nogil:
    """The memory of t is about to go: nothing of the heap shall point there, but for the key of an ARMED timer."""
    if t.flags & TH_RISING:
        raise_keys(c)
    if t.state == TH_IDLE and t.flags & TH_KEYED:
        c.keys[t.pos].timer = &c.tomb
        th_unkeyed(t)


cdef void sweep(th_core* c) noexcept nogil:
    """One slice of the walk through all keys, from the end to the root and over again."""
    cdef size_t i = min(c.sweep_at, c.len), steps = SWEEP_SLICE
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


cdef inline void clear_away(th_core* c, th_timer* t) noexcept nogil:
    """After stop has cancelled t: take its key out if that is cheap; now and then a slice of the sweep."""
    if t.flags & TH_KEYED and c.seq - t.seq < JUST_ARMED:
        bury(c, t.pos)
        shrink_keys(c)
    elif c.stops % STOPS_A_SLICE == 0:
        sweep(c)


cdef inline bint cancel(th_core* c, th_timer* t) noexcept nogil:
    """ARMED or DUE -> IDLE, counted as a cancel. False when there was nothing to cancel; close() has cancelled
    what is DUE, though the worker has yet to let go of it. Caller holds M, or the GIL where there is one."""
    if th_leave_armed(t, TH_IDLE):
        c.stops += 1
    elif t.state == TH_IDLE or c.closed:
        return False
    else:
        t.state = TH_IDLE
    c.live -= 1
    c.cancelled += 1
    return True


cdef inline th_timer* cancel_last(th_core* c) noexcept nogil:
    """ARMED -> IDLE for the timer of the last live key, which is taken out, as are dead ones behind it. NULL when there
    is none."""
    cdef th_timer* t
    while c.len > 0:
        t = c.keys[c.len - 1].timer
        if t.state == TH_ARMED:
            c.len -= 1
            shrink_keys(c)
            t.state = TH_IDLE
            th_unkeyed(t)
            c.live -= 1
            c.cancelled += 1
            return t
        bury(c, c.len - 1)
    shrink_keys(c)
    return NULL


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


cdef inline void postpone(th_core* c, th_timer* t, int64_t when) noexcept nogil:
    """A new arming for a timer that has a key: it is ARMED, or was stopped and its key is still there."""
    if when < t.when and not t.flags & TH_RISING:
        c.risers[c.rising] = t
        c.rising += 1
        th_mark(t, TH_RISING)
    c.seq += 1
    th_set_seq(t, c.seq)
    t.when = when
    if t.state == TH_ARMED:
        c.cancelled += 1
    else:
        t.state = TH_ARMED
        c.buried += 1
        note_live(c)
    if c.rising == TH_RISERS:
        raise_keys(c)


# ---- runs -----------------------------------------------------------------------------------------------------------

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
    cdef void* base = th_remap(c.run, run_bytes(c), size)
    if base == NULL:
        return False
    c.run = <th_key*>base
    c.run_cap = size // sizeof(th_key)
    c.run_peak = min(c.run_peak, c.run_cap)
    return True


cdef inline bint reserve_run(th_core* c, size_t cap) noexcept nogil:
    """Room for cap entries in the run; False when there is no memory."""
    return cap <= c.run_cap or resize_run(c, pages_for(cap))


cdef inline void trim_run(th_core* c) noexcept nogil:
    """After a large run: keep RUN_KEPT bytes of its room, in whole pages."""
    if run_bytes(c) > th_whole_pages(RUN_KEPT):
        resize_run(c, th_whole_pages(RUN_KEPT))


cdef inline bint enter_run(th_core* c, size_t i) noexcept nogil:
    """ARMED -> DUE for the timer of keys[i], which is taken out: an entry for it, for which there is room. False, and
    the key is dead, when a stop came first."""
    cdef th_timer* t = c.keys[i].timer
    if not th_leave_armed(t, TH_DUE):
        return False
    c.run[c.run_len].when = t.when
    c.run[c.run_len].timer = t
    c.run_len += 1
    th_mark(t, TH_PINNED)
    remove_at(c, i)
    th_unkeyed(t)
    return True


cdef inline void pause_slice(th_core* c, size_t* work, size_t slice) noexcept nogil:
    """Every slice steps let go of the mutex for a moment, so that nobody waits longer than a slice
    takes."""
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
    """The run lives in other from now on, size bytes, and other is what the run was in."""
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


# ---- the checker ----------------------------------------------------------------------------------------------------

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
    return True


cdef bint check_heap(th_core* c, fault* f) noexcept nogil:
    """Every invariant, by brute force; False with the first fault found."""
    cdef size_t i, due = 0, orphans = 0, dead = 0
    cdef int64_t rising = 0
    cdef th_timer* t
    if c.len > c.cap:
        return fails(f, b"more keys than room", 0, <int64_t>c.len, <int64_t>c.cap)
    for i in range(c.len):
        if not check_key(c, i, f):
            return False
        orphans += (c.keys[i].timer.flags & TH_ORPHAN) != 0
        dead += c.keys[i].timer.state != TH_ARMED
        rising += (c.keys[i].timer.flags & TH_RISING) != 0
    for i in range(c.run_head, c.run_len):
        t = c.run[i].timer
        if not t.flags & TH_PINNED:
            return fails(f, b"a run entry's timer is not pinned", i, t.flags, TH_PINNED)
        if t.state == TH_DUE:
            due += 1
            orphans += (t.flags & TH_ORPHAN) != 0
    for i in range(c.rising):
        rising -= (c.risers[i].flags & TH_KEYED) != 0
        if not c.risers[i].flags & TH_RISING:
            return fails(f, b"a riser does not know it", i, c.risers[i].flags, TH_RISING)
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
