# The worker's half without the GIL: it sleeps until the earliest deadline, and makes a run of what is due then.
#
# The wake protocol. A caller that arms earlier than core.wake_at signals, and sets wake_at to
# INT64_MIN, so that the callers after it need not. The worker writes wake_at and begins to wait
# under one hold of M, and while it is awake wake_at is INT64_MIN: it looks at the root before it
# parks again. So each deadline is either seen by the worker before it parks, or earlier than the
# wake_at it parked with and signalled. A stale root is brought up to date before parking (collect
# does it): timers that are only ever reset to later wake nobody.
#
# tests/model has the protocol in Promela, with every interleaving.

cdef inline bint called_off(th_core* c) noexcept nogil:
    """Whether the worker has to leave."""
    return c.closed or c.exiting or c.pausing


cdef bint next_run(th_post* post) noexcept nogil:
    """Park until something is due and make it the run, sorted. False when the worker has left its post: the core is out
    of bounds then."""
    cdef th_core* c = post.core
    cdef bint last
    th_lock(c)
    while not called_off(c):
        collect(c, th_now(c))
        if c.run_len:
            sort_run(c)
            c.batches += 1
            if c.run_len > c.longest:
                c.longest = c.run_len
            th_unlock(c)
            return True
        if called_off(c):
            break
        th_post_to_park(post)
        th_park(c, c.keys[0].when if c.len else TH_NEVER)
    last = th_post_leave(post)
    th_unlock(c)
    if last:
        th_core_free(c)
    return False
