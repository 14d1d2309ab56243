# A record's states, and every change of them.
#
# csrc/timer.h has the table: IDLE, ARMED, DUE, and who may change which. Here are the changes, each whole, with the
# books that go with it (live, fired, cancelled, stops): whoever takes M, calls one function and gives M back has left
# the heap in order. What else a change asks for, of a caller with the GIL (references, the collector), is the caller's:
# timer.pxi arms and stops, handles.pxi lets go, worker.pxi launches and, for close(), cancels.
#
#   IDLE  -> ARMED   arm_record, rearm_record     under M; for a periodic timer always rearm_periodic
#   ARMED -> ARMED   rearm_record                 under M
#   DUE   -> ARMED   rearm_record                 under M; its run entry is void then
#                    go_on                        under M, and the GIL where there is one: a periodic timer's launch
#   ARMED -> DUE     enter_run                    under M, by compare-and-swap, for a stop may come at the same time
#   ARMED -> IDLE    cancel                       by compare-and-swap, under the GIL, or under M where there is none
#                    cancel_last                  under M, and the GIL where there is one: close()
#   DUE   -> IDLE    cancel, settle               under the GIL, or under M where there is none
#   any   -> IDLE    make_void                    under M, in the child of a fork, for what the parent had armed
#   ARMED -> gone    let_go                       under M; the record moves to a slot, and is ARMED there
#
# Lock. M is held, unless a function says otherwise. nogil, and no clock is read.

cdef struct arming:
    bint wake       # the worker sleeps past the new deadline: signal it
    bint first      # nothing was armed before
    bint was        # the timer was ARMED or DUE
    bint cleared    # by the collector: there is nothing to call


cdef inline bint inherited(th_core* c, th_timer* t) noexcept nogil:
    """Without M. Whether t was last armed by the parent of a fork, in its child: whatever the record says is void
    then."""
    return th_seq(t) <= c.inherited


cdef inline bint pending(th_core* c, th_timer* t) noexcept nogil:
    """Without M where there is a GIL."""
    return th_state(t) != TH_IDLE and not c.closed and not inherited(c, t)


cdef inline bint make_void(th_timer* t) noexcept nogil:
    """An inherited record becomes one that was never armed. True if it was, by the parent."""
    cdef bint was = t.state != TH_IDLE
    t.state = TH_IDLE
    th_unmark(t, TH_PINNED | TH_KEYED | TH_RISING)
    return was


# ---- single changes -------------------------------------------------------------------------------------------------

cdef inline void note_live(th_core* c) noexcept nogil:
    c.live += 1
    if c.live > c.peak:
        c.peak = c.live


cdef inline bint push(th_core* c, th_timer* t, int64_t when) noexcept nogil:
    """IDLE without a key -> ARMED at when.  False when there is no memory: the timer is as it was."""
    th_assert_held(c)
    if not room_for(c, 1):
        return False
    c.seq += 1
    t.when = when
    th_set_seq(t, c.seq)
    t.state = TH_ARMED
    th_mark(t, TH_KEYED)
    note_live(c)
    add_key(c, t)
    return True


cdef inline void postpone(th_core* c, th_timer* t, int64_t when) noexcept nogil:
    """A new arming for a timer that has a key: it is ARMED, or was stopped and its key is still there."""
    th_assert_held(c)
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


cdef inline bint cancel(th_core* c, th_timer* t) noexcept nogil:
    """ARMED or DUE -> IDLE, counted as a cancel. False when there was nothing to cancel; close() has cancelled
    what is DUE, though the worker has yet to let go of it. Caller holds M, or the GIL where there is one."""
    if FREE_THREADED:
        th_assert_held(c)
    if th_leave_armed(t, TH_IDLE):
        c.stops += 1
    elif t.state == TH_IDLE or c.closed:
        return False
    else:
        t.state = TH_IDLE
    c.live -= 1
    c.cancelled += 1
    return True


cdef inline void clear_away(th_core* c, th_timer* t) noexcept nogil:
    """After stop has cancelled t: take its key out if that is cheap; now and then a slice of the sweep."""
    th_assert_held(c)
    if t.flags & TH_KEYED and c.seq - t.seq < JUST_ARMED:
        bury(c, t.pos)
        shrink_keys(c)
    elif c.stops % STOPS_A_SLICE == 0:
        sweep(c)


cdef inline th_timer* cancel_last(th_core* c) noexcept nogil:
    """ARMED -> IDLE for the timer of the last live key, which is taken out, as are dead ones behind it. NULL when there
    is none."""
    cdef th_timer* t
    th_assert_held(c)
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


cdef inline bint enter_run(th_core* c, th_timer* t) noexcept nogil:
    """ARMED -> DUE: an entry for it, for which there is room. Its key is the caller's to take out. False, and the key
    is dead, when a stop came first."""
    th_assert_held(c)
    if not th_leave_armed(t, TH_DUE):
        return False
    c.run[c.run_len].when = t.when
    c.run[c.run_len].timer = t
    c.run_len += 1
    th_mark(t, TH_PINNED)
    return True


# ---- what callers and the worker do under one hold of M -------------------------------------------------------------

cdef inline bint precedes_wake(th_core* c, int64_t when) noexcept nogil:
    """Whether the worker is parked until later than when, and the caller has to signal. It is awake from then on."""
    th_assert_held(c)
    if when >= c.wake_at:
        return False
    c.wake_at = INT64_MIN
    return True


cdef inline bint arm_record(th_core* c, th_timer* t, int64_t when, arming* a) noexcept nogil:
    """AfterFunc: a record that was never armed. False, and nothing has changed, when the heap is closed or there is no
    memory."""
    cdef bint armed
    debug_check(c)
    armed = not c.closed and push(c, t, when)
    a.wake = armed and precedes_wake(c, when)
    a.first = armed and c.live == 1
    debug_check(c)
    return armed


cdef bint enter_anew(th_core* c, th_timer* t, int64_t when) noexcept nogil:
    """IDLE without a key, or DUE -> ARMED at when. False when there is no memory: the timer is as it was."""
    if not room_for(c, 1):
        return False
    cancel(c, t)
    return push(c, t, when)


cdef inline bint rearm_record(th_core* c, th_timer* t, int64_t when, arming* a) noexcept nogil:
    """Timer.reset. False, and nothing has changed, when the heap is closed, the timer cleared, or there is no
    memory."""
    cdef bint armed = True
    debug_check(c)
    a.was = t.state != TH_IDLE
    a.cleared = False
    if c.closed:
        armed = False
    elif t.state == TH_ARMED:
        postpone(c, t, when)
    elif t.func == NULL:
        armed = False
        a.cleared = True
    elif t.flags & TH_KEYED:
        postpone(c, t, when)
    else:
        armed = enter_anew(c, t, when)
    a.wake = armed and precedes_wake(c, when)
    a.first = armed and not a.was and c.live == 1
    debug_check(c)
    return armed


cdef inline bint postpone_record(th_core* c, th_timer* t, int64_t when, arming* a) noexcept nogil:
    """Timer.postpone. False, and nothing has changed, when the timer is not pending, or (a.was) there is no memory."""
    cdef bint armed
    debug_check(c)
    a.was = armed = pending(c, t)
    if armed and t.state == TH_ARMED:
        postpone(c, t, when)
    elif armed:
        armed = enter_anew(c, t, when)
    a.wake = armed and precedes_wake(c, when)
    debug_check(c)
    return armed


cdef bint rearm_periodic(th_core* c, th_timer* t, int64_t when, int64_t period, bint revive, arming* a) noexcept nogil:
    """Timer.reset, and without revive Timer.postpone, of a periodic timer: as rearm_record and postpone_record."""
    cdef bint armed
    debug_check(c)
    a.was = pending(c, t)
    a.cleared = t.func == NULL
    armed = not c.closed and not a.cleared and (a.was or revive)
    if armed and t.flags & TH_KEYED:
        postpone(c, t, when)
    elif armed:
        armed = enter_anew(c, t, when)
    if armed:
        th_periodic_of(t).period = period
    a.wake = armed and precedes_wake(c, when)
    a.first = armed and not a.was and c.live == 1
    debug_check(c)
    return armed


cdef inline bint stop_record(th_core* c, th_timer* t, bint* idle) noexcept nogil:
    """Timer.stop, where it takes M. idle: nothing is armed any more."""
    cdef bint cancelled
    debug_check(c)
    cancelled = cancel(c, t)
    idle[0] = c.live == 0
    if cancelled:
        clear_away(c, t)
    debug_check(c)
    return cancelled


cdef inline bint let_go(th_core* c, th_timer* t) noexcept nogil:
    """The handle of t dies. True if its memory may be freed: t was IDLE, or has moved to a slot, an orphan. False if
    something of the heap still points there: t is a carcass from now on, which the worker frees."""
    cdef th_timer* orphan
    th_assert_held(c)
    if inherited(c, t):
        make_void(t)
    entomb(c, t)
    if t.state == TH_IDLE and not t.flags & TH_PINNED:
        return True
    if t.state == TH_ARMED and not t.flags & TH_PINNED:
        orphan = <th_timer*>th_slab_alloc(&c.orphans, sizeof(th_timer))
        if orphan != NULL:
            orphan[0] = t[0]
            orphan.flags |= TH_ORPHAN
            c.keys[t.pos].timer = orphan
            th_unkeyed(t)
            t.state = TH_IDLE
            t.func = t.args = NULL
            return True
    th_mark(t, TH_CARCASS)
    return False


cdef inline th_timer* settle(th_core* c, bint fire, uint16_t* was, bint* idle) noexcept nogil:
    """Be done with the next run entry, and return its timer: if it is still DUE it becomes IDLE, counted as fired, or
    as a cancel. was: its state before. idle: nothing is armed any more. Caller holds M, or the GIL where there is
    one."""
    cdef th_timer* t
    if FREE_THREADED:
        th_assert_held(c)
    t = c.run[th_next_entry(c)].timer
    th_unmark(t, TH_PINNED)
    was[0] = t.state
    idle[0] = False
    if t.state == TH_DUE:
        t.state = TH_IDLE
        c.live -= 1
        idle[0] = c.live == 0
        if fire:
            c.fired += 1
        else:
            c.cancelled += 1
    return t


cdef enum:
    GOES_VOID             # t was stopped or reset, or the heap is closed: settle has it
    GOES_NOWHERE          # there is no memory for a key
    GOES_ON               # launched: running is set, and whoever makes the call clears it
    GOES_UNCALLED         # its last call has not returned: this one is dropped


cdef inline int go_on(th_core* c, int64_t now, uint64_t* call) noexcept nogil:
    """Be done with the next run entry, of a periodic timer: if that is still DUE it becomes ARMED for the first point
    of its grid after now, and the points before that are dropped. Nothing has changed if it goes void or nowhere. call:
    the number of the arming that is launched. Caller holds the GIL as well where there is one."""
    cdef th_timer* t = c.run[c.run_head].timer
    cdef th_periodic* p
    cdef int64_t when
    cdef bint skips
    debug_check(c)
    if t.state != TH_DUE or c.closed:
        return GOES_VOID
    if not room_for(c, 1):
        return GOES_NOWHERE
    p = th_periodic_of(t)
    when = th_next_tick(t.when, p.period, now)
    skips = p.running > c.inherited         # a call that the parent of a fork has begun is void
    c.dropped += th_missed_ticks(t.when, p.period, now) + skips
    th_next_entry(c)
    th_unmark(t, TH_PINNED)
    if not skips:
        call[0] = p.running = t.seq
        c.fired += 1
        c.seq += 1
        th_set_seq(t, c.seq)
    t.when = when
    t.state = TH_ARMED
    th_mark(t, TH_KEYED)
    add_key(c, t)
    debug_check(c)
    return GOES_UNCALLED if skips else GOES_ON
