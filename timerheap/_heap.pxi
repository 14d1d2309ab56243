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

cdef inline size_t key_bytes_for(size_t cap) noexcept nogil:
    return ((cap + TH_KEY_PAD) * sizeof(th_key) + TH_PAGE - 1) & ~(TH_PAGE - 1)


cdef bint resize_keys(th_core* c, size_t cap) noexcept nogil:
    """Give the keys room for cap entries. False when there is no memory: nothing has changed
    then."""
    cdef size_t size = key_bytes_for(cap)
    cdef void* old = <void*>(c.keys - TH_KEY_PAD) if c.keys != NULL else NULL
    cdef void* base
    if size == c.key_bytes:
        return True
    base = th_remap(old, c.key_bytes, size)
    if base == NULL:
        return False
    c.keys = <th_key*>base + TH_KEY_PAD
    c.key_bytes = size
    c.cap = size // sizeof(th_key) - TH_KEY_PAD
    if c.cap > KEYS_MAX:
        c.cap = KEYS_MAX
    c.key_peak = c.len
    return True


cdef inline bint grow_keys(th_core* c) noexcept nogil:
    """Make room for one more key; False when memory or the 32 bits of pos are exhausted."""
    if c.len < c.cap:
        return True
    if c.cap >= KEYS_MAX:
        return False
    return resize_keys(c, 2 * (c.cap + TH_KEY_PAD) - TH_KEY_PAD)


cdef inline void shrink_keys(th_core* c) noexcept nogil:
    """Hand memory back once three quarters of it lie idle. Halving keeps it from swinging back at
    the next arm."""
    if c.len < c.cap >> 2 and c.key_bytes > TH_PAGE:
        resize_keys(c, c.cap >> 1)


cdef size_t native_bytes(th_core* c) noexcept nogil:
    """Resident bytes of keys, run and slab.  Mapped and never touched is not resident."""
    cdef size_t keys = key_bytes_for(c.key_peak) if c.key_peak else 0
    cdef size_t run = c.run_cap * sizeof(th_entry)
    return keys + run + th_slab_bytes(&c.orphans, sizeof(th_timer))


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
    t.seq = c.seq
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
    last key with it alone tells which way to sift.
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
    shrink_keys(c)


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


cdef inline void clear_away(th_core* c, th_timer* t) noexcept nogil:
    """After stop has cancelled t: take its key out if that is cheap; now and then a slice of the sweep."""
    if t.flags & TH_KEYED and c.seq - t.seq < JUST_ARMED:
        bury(c, t.pos)
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
    t.seq = c.seq
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

cdef bint reserve_run(th_core* c, size_t cap) noexcept nogil:
    """Room for cap entries in the run; False when there is no memory."""
    cdef size_t size
    cdef void* base
    if cap <= c.run_cap:
        return True
    size = (cap * sizeof(th_entry) + TH_PAGE - 1) & ~(TH_PAGE - 1)
    base = th_remap(c.run, run_bytes(c), size)
    if base == NULL:
        return False
    c.run = <th_entry*>base
    c.run_cap = size // sizeof(th_entry)
    return True


cdef inline size_t run_bytes(th_core* c) noexcept nogil:
    return (c.run_cap * sizeof(th_entry) + TH_PAGE - 1) & ~(TH_PAGE - 1)


cdef void trim_run(th_core* c) noexcept nogil:
    """After a large run: keep a page of it."""
    cdef void* base
    if run_bytes(c) > RUN_KEPT:
        base = th_remap(c.run, run_bytes(c), RUN_KEPT)
        if base != NULL:
            c.run = <th_entry*>base
            c.run_cap = RUN_KEPT // sizeof(th_entry)


cdef inline bint enter_run(th_core* c, size_t i) noexcept nogil:
    """ARMED -> DUE for the timer of keys[i], which is taken out: an entry for it, for which there is room. False, and
    the key is dead, when a stop came first."""
    cdef th_timer* t = c.keys[i].timer
    cdef th_entry* entry = c.run + c.run_len
    if not th_leave_armed(t, TH_DUE):
        return False
    entry.when = t.when
    entry.seq = t.seq
    entry.timer = t
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
    million; so when many are due, a scan from the end takes the rest. There a due key in the last
    place is simply cut off, and one above it takes a last key that cannot rise (its parent is due
    as well), only sink through what is already clean: O(n) in all.

    The mutex is let go of between slices. What callers arm meanwhile is due at now at the earliest,
    so it may wait for the next run, and so must a timer that still has an entry in this one.
    """
    cdef size_t budget = 64 if c.len < 64 * 64 else c.len >> 6
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
    if popped < budget or c.len == 0 or not reserve_run(c, c.run_len + c.len):
        return
    i = c.len
    while i > 0 and not c.closed:
        i -= 1
        if i >= c.len:
            i = c.len
            continue
        if i >= PREFETCH:
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


cdef inline bint entry_before(th_entry* a, th_entry* b) noexcept nogil:
    return a.when < b.when or (a.when == b.when and a.seq < b.seq)


cdef void insertion_sort(th_entry* run, size_t n) noexcept nogil:
    cdef size_t i, j
    cdef th_entry entry
    for i in range(1, n):
        entry = run[i]
        j = i
        while j > 0 and entry_before(&entry, run + j - 1):
            run[j] = run[j - 1]
            j -= 1
        run[j] = entry


cdef int compare_entries(const void* a, const void* b) noexcept nogil:
    if entry_before(<th_entry*>a, <th_entry*>b):
        return -1
    return entry_before(<th_entry*>b, <th_entry*>a)


cdef inline uint64_t entry_field(th_entry* entry, bint by_seq) noexcept nogil:
    return entry.seq if by_seq else <uint64_t>entry.when


cdef th_entry* radix_passes(th_entry* run, th_entry* other, size_t n, bint by_seq) noexcept nogil:
    """Sort n entries by one field, stable, 11 bits a pass over the bits that differ. Returns run or
    other, whichever the result is in."""
    cdef size_t[2048] start
    cdef size_t i, at, count
    cdef uint64_t low = entry_field(run, by_seq), high = low, value
    cdef int shift = 0
    cdef th_entry* swap
    for i in range(n):
        value = entry_field(run + i, by_seq)
        if value < low:
            low = value
        if value > high:
            high = value
    while shift < 64 and (high - low) >> shift:
        memset(start, 0, sizeof(start))
        for i in range(n):
            start[((entry_field(run + i, by_seq) - low) >> shift) & 2047] += 1
        at = 0
        for i in range(2048):
            count = start[i]
            start[i] = at
            at += count
        for i in range(n):
            count = ((entry_field(run + i, by_seq) - low) >> shift) & 2047
            other[start[count]] = run[i]
            start[count] += 1
        swap = run
        run = other
        other = swap
        shift += 11
    return run


cdef th_entry* sort_entries(th_entry* run, th_entry* other, size_t n) noexcept nogil:
    """Sort n entries by (when, seq); other has room for as many. Returns whichever of the two the
    result is in."""
    cdef th_entry* result = radix_passes(run, other, n, False)
    cdef th_entry* spare = other if result == run else run
    cdef th_entry* group
    cdef size_t i = 0, end
    while i < n:
        end = i + 1
        while end < n and result[end].when == result[i].when:
            end += 1
        if end - i > 1:
            if end - i <= INSERTION_MAX:
                insertion_sort(result + i, end - i)
            else:
                group = radix_passes(result + i, spare + i, end - i, True)
                if group != result + i:
                    memcpy(result + i, group, (end - i) * sizeof(th_entry))
        i = end
    return result


cdef void sort_run(th_core* c) noexcept nogil:
    """Bring the run into firing order, from run_head on: by deadline, equal deadlines by arming.

    What was launched already (of a run that was broken off for want of memory) must not come back.
    Needs no lock, the run is its worker's own. A radix sort takes about 25 ns an entry at a million
    where a comparison sort takes 150.
    """
    cdef size_t n = c.run_len - c.run_head, i = 1, size
    cdef th_entry* run = c.run + c.run_head
    cdef th_entry* other
    cdef th_entry* result
    while i < n and entry_before(run + i - 1, run + i):
        i += 1
    if i >= n:
        return
    if n <= INSERTION_MAX:
        insertion_sort(run, n)
        return
    size = (n * sizeof(th_entry) + TH_PAGE - 1) & ~(TH_PAGE - 1)
    other = <th_entry*>th_remap(NULL, 0, size)
    if other == NULL:
        qsort(run, n, sizeof(th_entry), compare_entries)
        return
    result = sort_entries(run, other, n)
    if result != run:
        memcpy(run, result, n * sizeof(th_entry))
    th_unmap(other, size)


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
