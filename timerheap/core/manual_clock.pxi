# The clock of a ManualHeap: turned from deadline to deadline, and what is due fires there.
#
# One thread at a time turns it, core.advancer, and is where callbacks run. What a callback raises, where the heap has no
# on_error, breaks that off (callbacks.pxi, leave_advance): the clock stands at that deadline, and what is left of the
# run stays in it, DUE. Whoever turns the clock next fires that before anything moves.

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
        leaving = heap.leaving
        heap.leaving = None
        if leaving is not None:
            raise leaving
        PyErr_CheckSignals()
    return 0


cdef int enter_clock(ManualHeap heap) except -1:
    """Takes M. leave_clock has to follow."""
    if not enter_turn(heap.core):
        raise RuntimeError("advance() is under way already")
    return 0


cdef void leave_clock(ManualHeap heap) noexcept:
    """Takes M. enter_turn has let the caller in."""
    cdef th_core* c = heap.core
    if c.closed:
        let_run_go(c, <PyObject*>heap)
    th_lock(c)
    if c.run_len and c.run_head == c.run_len:
        end_run(c)                      # the last one of it has broken the turn off
    c.advancer = 0
    th_unlock(c)
    if c.closed:
        drop_hooks(heap)
    wake_waiters(c)
