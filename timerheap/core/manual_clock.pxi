# The clock of a ManualHeap: turned from deadline to deadline, and what is due fires there.
#
# One thread at a time turns it, core.advancer, and is where callbacks run. What a callback raises, where the heap has
# no on_error, breaks that off (callbacks.pxi, break_off): the clock stands at that deadline, and what is left of
# the run stays in it, DUE. Whoever turns the clock next fires that before anything moves.
#
# What comes next on the clock is the earliest of
#
#   the keys       of function timers and arrays
#   the roster     of channels. They are in no heap, for nobody waits for their deadlines but who receives; so a manual
#                  heap keeps a table of its channels, and looks at all. What is ready has no deadline any more: nothing
#                  comes of it until it is received, or its later ticks are dropped
#   the timeouts   of those who wait in line
#
# auto. Who would wait for this clock in the thread that drives it, and for nothing else, turns it to what comes next,
# looks, and so on (move_on). In a callback of the heap's nothing is fired: the clock merely goes on to where the wait
# is over, and the neighbours come late, as on a heap whose one worker a callback blocks.

cdef inline bint is_sum(double before, double span, double after) noexcept nogil:
    """Whether span leads from before to after, as somebody finds who adds or subtracts."""
    return before + span == after or after - before == span


cdef bint step(th_core* c, int64_t target, int64_t due) noexcept nogil:
    """Takes M. Turn the clock to the next deadline, not beyond due, and collect what is due then. False
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


cdef int turn_clock(ManualHeap heap, int64_t target, int64_t due) except -1:
    """By the advancer: fire what is due, from deadline to deadline, as step has it. Raises what a callback has."""
    cdef th_core* c = heap.core
    while step(c, target, due):
        wake_waiters(c)
        fire_run(heap, c.generation)
        raise_leaving(heap)
        PyErr_CheckSignals()
    return 0


cdef inline int turn_to(ManualHeap heap, int64_t when) except -1:
    """Likewise: that time comes, and all that looks due then."""
    when = max(when, th_now(heap.core))
    return turn_clock(heap, when, th_last_shown(when, to_seconds(when)))


cdef int enter_clock(ManualHeap heap) except -1:
    """Takes M. leave_clock has to follow."""
    if not enter_turn(heap.core):
        raise RuntimeError("advance() is under way already")
    return 0


cdef void leave_clock(ManualHeap heap) noexcept:
    """Takes M. enter_turn has let the caller in."""
    end_turn(heap)
    wake_waiters(heap.core)


# ---- the roster -----------------------------------------------------------------------------------------------------

# A hash table of addresses, open and at most half full. With a GIL that guards it; without one the heap's critical
# section does, under which no Python runs. So a channel that is found in it lives until the section ends.

cdef enum:
    ROSTER_FIRST = 16       # places


cdef inline size_t place_of(th_chan* ch, size_t room) noexcept nogil:
    """Where to look first."""
    return <size_t>((<uint64_t><size_t>ch >> 4) * <uint64_t>0x9E3779B97F4A7C15 >> 24) & (room - 1)


cdef inline size_t find_place(th_chan** roster, size_t room, th_chan* ch) noexcept nogil:
    """Its own, or the free one for it."""
    cdef size_t i = place_of(ch, room)
    while roster[i] != NULL and roster[i] != ch:
        i = (i + 1) & (room - 1)
    return i


cdef bint make_places(ManualHeap heap) noexcept:
    """For one more. False when there is no memory."""
    cdef size_t i, room = heap.room * 2 if heap.room else ROSTER_FIRST
    cdef th_chan** roster
    if heap.enrolled * 2 < heap.room:
        return True
    roster = <th_chan**>calloc(room, sizeof(th_chan*))
    if roster == NULL:
        return False
    for i in range(heap.room):
        if heap.roster[i] != NULL:
            roster[find_place(roster, room, heap.roster[i])] = heap.roster[i]
    free(heap.roster)
    heap.roster = roster
    heap.room = room
    return True


cdef int enrol(ManualHeap heap, th_chan* ch) except -1:
    """A new channel, which its dealloc strikes off."""
    cdef bint roomy
    with cython.critical_section(heap):
        roomy = make_places(heap)
        if roomy:
            heap.roster[find_place(heap.roster, heap.room, ch)] = ch
            heap.enrolled += 1
    if not roomy:
        raise MemoryError()
    return 0


cdef void strike_off(ManualHeap heap, th_chan* ch) noexcept:
    """If it was enrolled. What stands behind it, and might have stood in its place, moves up."""
    cdef size_t i, j, mask
    with cython.critical_section(heap):
        mask = heap.room - 1
        i = find_place(heap.roster, heap.room, ch) if heap.room else 0
        if heap.room and heap.roster[i] != NULL:
            heap.enrolled -= 1
            heap.roster[i] = NULL
            j = (i + 1) & mask
            while heap.roster[j] != NULL:
                if ((j - place_of(heap.roster[j], heap.room)) & mask) >= ((j - i) & mask):
                    heap.roster[i] = heap.roster[j]
                    heap.roster[j] = NULL
                    i = j
                j = (j + 1) & mask


cdef inline bint to_come(th_chan* ch) noexcept nogil:
    """Whether the clock has yet to come to its deadline."""
    return th_chan_live(ch) and ch.when != TH_NEVER and ch.when > th_due(ch.core)


cdef int64_t next_on_roster(ManualHeap heap, size_t* armed) noexcept:
    """Takes C. The earliest deadline of a channel, TH_NEVER if there is none. armed: how many have a deadline before
    them, one that never comes, or a period."""
    cdef int64_t when = TH_NEVER
    cdef size_t i, work = 0
    cdef th_chan* ch
    armed[0] = 0
    with cython.critical_section(heap):
        th_chan_lock()
        for i in range(heap.room):
            ch = heap.roster[i]
            if ch != NULL and th_chan_live(ch):
                if to_come(ch):
                    when = min(when, ch.when)
                armed[0] += ch.period != 0 or ch.when == TH_NEVER or to_come(ch)
            work += 1
            offer(&work)
        th_chan_unlock()
    return when


# ---- what comes next ------------------------------------------------------------------------------------------------

cdef inline bint counted_already(th_group* group) noexcept nogil:
    """Whether an earlier group of its waiter is of the same heap; where there are many they have been merged."""
    cdef th_group* other = group.waiter.groups
    while other != group and other.core != group.core:
        other += 1
    return other != group


cdef struct census:
    size_t asleep           # waiters who have seen all there is to see
    size_t threads          # of these


cdef int64_t next_timeout(th_core* c, census* seen) noexcept nogil:
    """Takes C. Of those who wait for channels of this heap: when the next timeout ends, and how many they are. In one
    hold."""
    cdef int64_t when = TH_NEVER
    cdef th_group* group
    cdef th_waiter* w
    seen.asleep = seen.threads = 0
    th_chan_lock()
    group = <th_group*>c.ring
    while group != NULL:
        w = group.waiter
        if not counted_already(group):
            if th_asleep(w):
                seen.asleep += 1
                seen.threads += w.bell == NULL
            if w.clock == c and w.until > th_due(c):
                when = min(when, w.until)
        group = group.next if group.next != c.ring else NULL
    th_chan_unlock()
    return when


cdef int64_t next_key(th_core* c) noexcept nogil:
    """Takes M. Of function timers and arrays."""
    cdef int64_t when = TH_NEVER
    th_lock(c)
    collect(c, INT64_MIN)               # nothing: it brings the root up to date
    if c.run_head < c.run_len:
        when = th_now(c)                # the rest of a run that was broken off
    elif c.len and not c.closed:
        when = c.keys[0].when
    th_unlock(c)
    return when


cdef int64_t what_is_next(ManualHeap heap) noexcept:
    """Takes M, and C. By the advancer."""
    cdef size_t armed
    cdef census seen
    return min(next_key(heap.core), next_on_roster(heap, &armed), next_timeout(heap.core, &seen))


# ---- moving on ------------------------------------------------------------------------------------------------------

cdef inline bint drives(th_core* c) noexcept nogil:
    """Whether the clock of this manual heap is for the calling thread to turn."""
    return c.driver == th_thread() or c.advancer == th_thread()


cdef ManualHeap driven_heap(PyObject** channels, size_t count, bint moves):
    """The first among those of the channels that this thread drives, or, with moves, whose clock it may move. None if
    there is none."""
    cdef size_t i
    cdef TimerHeap heap
    for i in range(count):
        heap = (<Channel>channels[i]).heap
        if heap.core.manual and drives(heap.core) and (not moves or (<ManualHeap>heap).moves):
            return <ManualHeap>heap
    return None


cdef int64_t next_of(PyObject** channels, size_t count, th_core* c) noexcept nogil:
    """Takes C. The earliest deadline of those of the channels that are the heap's."""
    cdef int64_t when = TH_NEVER
    cdef size_t i, work = 0
    cdef th_chan* ch
    th_chan_lock()
    for i in range(count):
        ch = &(<Channel>channels[i]).ch
        if ch.core == c and to_come(ch):
            when = min(when, ch.when)
        work += 1
        offer(&work)
    th_chan_unlock()
    return when


cdef bint go_on_to(ManualHeap heap, int64_t until) except -1:
    """Turn the clock to what is next, until at the latest. False: nothing is. Where another thread is turning it,
    nothing happens, for a moment."""
    cdef int64_t when = TH_NEVER
    if heap.core.advancer == th_thread():
        enter_clock(heap)               # an error
    if not enter_turn(heap.core):
        with nogil:
            th_nap()
        PyErr_CheckSignals()
        return True
    try:
        when = min(until, what_is_next(heap))
        if when != TH_NEVER:
            turn_to(heap, when)
    finally:
        leave_clock(heap)
    PyErr_CheckSignals()
    return when != TH_NEVER


cdef bint move_on(ManualHeap heap, PyObject** channels, size_t count, int64_t until) except -1:
    """The caller, who drives the heap, would wait for these channels until then. False: nothing would ever come."""
    cdef th_core* c = heap.core
    cdef int64_t when
    if c.advancer != th_thread():
        return go_on_to(heap, until)
    when = min(until, next_of(channels, count, c))
    if when == TH_NEVER:
        return False
    th_set_manual(c, max(when, th_now(c)))
    wake_waiters(c)
    PyErr_CheckSignals()
    return True


cdef object endless(PyObject** channels, size_t count, int64_t until, str call):
    """The error of a receive that nothing would end."""
    cdef ManualHeap heap = driven_heap(channels, count, False)
    cdef th_core* c = heap.core
    cdef int64_t when = min(until, next_of(channels, count, c))
    cdef str awaited = "what is not armed" if when == TH_NEVER else f"{to_seconds(when)}"
    if heap.moves:
        rest = ", and none of its callbacks runs before this one has returned" if c.advancer == th_thread() else ""
        return RuntimeError(f"{call} would never end: nothing is armed on the manual heap {heap.name!r} that could end "
                            f"it{rest}")
    return RuntimeError(
        f"{call} would never end: it waits for {awaited} on the manual heap {heap.name!r}, whose clock stands at "
        f"{to_seconds(th_now(c))} and is advanced by this very thread. Call advance() before, or have another thread "
        "wait; or make it a ManualHeap(auto=True), whose clock moves on by itself when that thread waits")
