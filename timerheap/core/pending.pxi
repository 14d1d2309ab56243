# A snapshot of what is armed: TimerHeap.pending.
#
# Keys and run are copied as they stand, a reference to each handle is taken, and what follows (the sort, which needs no
# GIL, and the list) is done with these. The memory for it is there, and touched, before M is taken; should more be
# armed by then than there is room for, it is made anew.
#
# What is atomic. With a GIL all of it: callers arm, stop and reset with the GIL, and so does the worker launch, and the
# GIL is not given up between the copy and the last reference. All that is one hold of M, for nobody but the worker can
# want it, and the worker would want the GIL next. Without a GIL the copy is one hold of M, 16 bytes a key; the
# references are taken by slices. So a timer that is pending all the time is there once, with a deadline that it had
# meanwhile, and one that is armed, stopped or launched meanwhile may be there or not. A handle that has been copied may
# die before its slice comes: its memory stays until nobody has such a copy any more (core.readers, core.kept).
#
# Handles that were dropped, of which only an interpreter with a GIL has any:
#
#   orphan     the record moves into a handle that was made for it beforehand, and the slot is free again
#   carcass    is a handle again, in its own memory
#   put aside  is left out: for CPython it is dead already, and it would die twice. See handles.pxi

cdef enum:
    PAIRS_SLICE = 1024    # pairs, or handles for them, made between two offers of the GIL


cdef struct snapshot:
    th_key* memory          # of entries, and as much again for the sort
    size_t room             # entries that have a place
    th_key* entries         # copies; then {when, timer}, with a reference to the handle of each
    size_t keys             # so many copies are of keys, those behind them of the run
    uint64_t run            # which is this one
    size_t len              # so many references
    size_t carcasses        # so many of them are yet to be made
    PyObject* blanks        # inactive handles for orphans, linked through t.when; a reference to each
    size_t spare            # so many of them


cdef int make_room(TimerHeap heap, snapshot* s) except -1:
    """For all that is armed by now, and an eighth more. May give up the GIL."""
    cdef th_core* c = heap.core
    cdef Timer blank
    cdef size_t n, orphans
    th_lock(c)
    n = c.len + c.run_len - c.run_head
    orphans = c.orphans.used
    th_unlock(c)
    n += n // 8 + 1
    if n > s.room:
        free(s.memory)
        s.memory = <th_key*>malloc(2 * n * sizeof(th_key))
        s.room = n if s.memory != NULL else 0
        if s.memory == NULL:
            raise MemoryError()
        with nogil:
            memset(s.memory, 0, n * sizeof(th_key))
    while s.spare < orphans + orphans // 8:
        blank = new_timer(heap)
        incref(<PyObject*>blank)            # the snapshot's, for a pair or given up by let_snapshot_go
        blank.t.when = <int64_t><size_t>s.blanks
        s.blanks = <PyObject*>blank
        s.spare += 1
        if s.spare % PAIRS_SLICE == 0:
            with nogil:
                pass
    return 0


cdef th_timer* move_back(th_core* c, snapshot* s, th_timer* orphan) noexcept nogil:
    """A handle for an orphan: the record moves there. Whoever points at the orphan is to point there as well."""
    cdef th_timer* t = &(<Timer>s.blanks).t
    th_assert_held(c)
    s.blanks = <PyObject*><size_t>t.when
    s.spare -= 1
    t[0] = orphan[0]
    th_unmark(t, TH_ORPHAN)
    th_slab_free(&c.orphans, orphan, sizeof(th_timer))
    return t


cdef void take_handles(th_core* c, snapshot* s, size_t first, size_t last) noexcept:
    """With M held, and the GIL where there is one. A reference to the handle of each pending timer among the copies
    first to last. What has one closes up behind those that have one already.

    The copy of a key is of a timer that was ARMED, or dead. The entry of a run may have been void already, its timer
    ARMED and among the keys: so it counts only while that is DUE, and for that run.
    """
    cdef size_t i
    cdef th_timer* t
    th_assert_held(c)
    for i in range(first, last):
        if i + PREFETCH < last:
            fetch_handle(handle_of(s.entries[i + PREFETCH].timer))
        t = s.entries[i].timer
        if th_flags(t) & TH_CELL:
            continue                        # which has no handle
        if th_state(t) == TH_IDLE or (i >= s.keys and (t.state != TH_DUE or c.runs != s.run)):
            continue
        if t.flags & TH_ORPHAN:
            t = move_back(c, s, t)
            if i < s.keys:
                c.keys[i].timer = t
            else:
                c.run[c.run_head + i - s.keys].timer = t
        elif t.flags & TH_CARCASS:
            s.carcasses += 1
        elif put_aside(handle_of(t)):
            continue
        else:
            incref(handle_of(t))            # its pair's at last; given up by let_snapshot_go
        s.entries[s.len].when = t.when
        s.entries[s.len].timer = t
        s.len += 1


cdef bint copy_armed(th_core* c, snapshot* s) noexcept:
    """Takes M. Copy keys and run, and take the references. False when there is not enough room."""
    cdef size_t n, i
    cdef bint roomy
    cdef PyObject* kept = NULL
    th_lock(c)
    while c.sorting:
        th_yield_lock(c)
    debug_check(c)
    s.keys = c.len
    s.run = c.runs
    n = s.keys + c.run_len - c.run_head
    roomy = c.closed or (n <= s.room and (FREE_THREADED or c.orphans.used <= s.spare))
    if roomy and not c.closed:
        s.entries = s.memory
        memcpy(s.entries, c.keys, s.keys * sizeof(th_key))
        memcpy(s.entries + s.keys, c.run + c.run_head, (n - s.keys) * sizeof(th_key))
        if FREE_THREADED:
            c.readers += 1
            for i in range(0, n, SCAN_SLICE):
                th_yield_lock(c)
                if not c.closed:
                    take_handles(c, s, i, min(n, i + SCAN_SLICE))
            c.readers -= 1
            if c.readers == 0:
                kept = <PyObject*>c.kept
                c.kept = NULL
                if c.run_len == 0:
                    th_free_retired(&c.arrays)
        else:
            take_handles(c, s, 0, n)
            debug_check(c)
    th_unlock(c)
    release_kept(kept)
    return roomy


cdef void revive_carcasses(TimerHeap heap, snapshot* s) noexcept:
    """The worker, which would free them, has not had the GIL since they were counted."""
    cdef th_core* c = heap.core
    cdef th_timer* t
    cdef size_t i
    for i in range(s.len):
        if s.carcasses == 0:
            return
        t = s.entries[i].timer
        if t.flags & TH_CARCASS:
            s.carcasses -= 1
            th_lock(c)
            th_unmark(t, TH_CARCASS)
            th_unlock(c)
            init_object(handle_of(t), <PyTypeObject*>Timer)     # and a reference, as take_handles has
            incref(<PyObject*>heap)                             # the handle's; timer_let_go has given it up
            th_count(&c.handles, 1)


cdef list pairs_of(snapshot* s):
    cdef size_t i
    cdef list pairs = []
    for i in range(s.len):
        pairs.append((deadline_or_inf(s.entries[i].when), <object>handle_of(s.entries[i].timer)))
        if i % PAIRS_SLICE == 0:
            with nogil:
                pass
    return pairs


cdef void let_snapshot_go(snapshot* s) noexcept:
    cdef PyObject* blank
    cdef size_t i
    for i in range(s.len):
        decref(handle_of(s.entries[i].timer))
    while s.blanks != NULL:
        blank = s.blanks
        s.blanks = <PyObject*><size_t>(<Timer>blank).t.when
        decref(blank)
    free(s.memory)


cdef list pending_pairs(TimerHeap heap):
    """(when, timer) of each pending function timer, by deadline, equal ones in the order of arming."""
    cdef th_core* c = heap.core
    cdef snapshot s
    cdef size_t i
    memset(&s, 0, sizeof(s))
    try:
        make_room(heap, &s)
        while not copy_armed(c, &s):
            make_room(heap, &s)
        revive_carcasses(heap, &s)
        if always_tracked(c):
            for i in range(s.len):
                if not gc_is_tracked(handle_of(s.entries[i].timer)):
                    gc_track(handle_of(s.entries[i].timer))
        if s.len:
            with nogil:
                s.entries = sort_entries(s.entries, s.memory + s.room, s.len)
        return pairs_of(&s)
    finally:
        let_snapshot_go(&s)
