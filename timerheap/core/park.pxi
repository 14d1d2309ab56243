# The halves without the GIL: the worker's, which sleeps until the earliest deadline and makes a run of what is due
# then, and the standby's, which watches a run being fired.
#
# The wake protocol. A caller that arms earlier than core.wake_at signals, and sets wake_at to
# INT64_MIN, so that the callers after it need not. The worker writes wake_at and begins to wait
# under one hold of M, and while it is awake wake_at is INT64_MIN: it looks at the root before it
# parks again. So each deadline is either seen by the worker before it parks, or earlier than the
# wake_at it parked with and signalled. A stale root is brought up to date before parking (collect_some
# does it, by slices): timers that are only ever reset to later wake nobody.
#
# tests/model has the protocol in Promela, with every interleaving.

cdef inline bint called_off(th_core* c) noexcept nogil:
    """Whether the worker has to leave."""
    return c.closed or c.exiting or c.pausing


cdef inline void leave_post(th_post* post) noexcept nogil:
    """M is held on entry, and not on return."""
    cdef th_core* c = post.core
    cdef bint last
    th_assert_held(c)
    last = th_post_leave(post)
    th_unlock(c)
    if last:
        th_core_free(c)


cdef bint next_run(th_post* post) noexcept nogil:
    """Park until something is due and make it the run, sorted. False when the worker has left its post: the core is out
    of bounds then."""
    cdef th_core* c = post.core
    th_lock(c)
    while not called_off(c):
        collect_some(c, th_now(c), TAKE_SLICE)
        if c.run_len:
            sort_run(c)
            c.batches += 1
            if c.run_len > c.longest:
                c.longest = c.run_len
            th_unlock(c)
            return True
        if called_off(c):
            break
        if not fresh_root(c):
            continue                    # there is more to bring up to date, and something may be due meanwhile
        th_post_to_park(post)
        th_park(c, c.keys[0].when if c.len else TH_NEVER)
    leave_post(post)
    return False


# ---- the standby ----------------------------------------------------------------------------------------------------

# The standby of a heap with patience sees what the worker launches by three numbers that the worker has anyway: which
# entry, of which run, in whose turn. They are the same for as long as one callback lasts. While they change, it looks
# again every WATCH_EVERY, so it learns of a callback that much too late at most; once they have been the same for
# core.patience it is time to take over, which worker.pxi does. When nothing is fired it sleeps for ever: whoever begins
# to fire, under M, rouses it if so.

cdef struct progress:
    uint32_t generation
    uint64_t batches
    size_t head
    int64_t since           # when the standby first saw these, while firing; 0: not yet


cdef inline bint unmoved(th_core* c, progress* seen) noexcept nogil:
    th_assert_held(c)
    return c.batches == seen.batches and th_run_head(c) == seen.head and c.generation == seen.generation


cdef inline int64_t next_look(th_core* c, progress* seen, int64_t now) noexcept nogil:
    """When to look again at what is fired: TH_NEVER when nothing is, now when it is time to take over."""
    th_assert_held(c)
    if not unmoved(c, seen):
        seen.batches = c.batches
        seen.head = th_run_head(c)
        seen.generation = c.generation
        seen.since = now if c.firing else 0
        return now + min(WATCH_EVERY, c.patience)
    if not c.firing:
        seen.since = 0          # a worker that waits for the GIL has made its run, and fires nothing yet
        return TH_NEVER
    if seen.since == 0:
        seen.since = now
    return max(now, th_deadline(seen.since, c.patience))


cdef bint stand_by(th_post* post, progress* seen) noexcept nogil:
    """Sleep until a callback has held the worker up for as long as the heap has patience. False when the standby has
    left its post: the core is out of bounds then."""
    cdef th_core* c = post.core
    cdef int64_t now, until
    th_lock(c)
    while not called_off(c):
        now = th_monotonic()
        until = next_look(c, seen, now)
        if until == now:
            th_unlock(c)
            return True
        th_stand_by(c, until)
    leave_post(post)
    return False
