# The worker, "timerproc": one daemon thread a heap that sleeps until the earliest deadline and
# fires what is due.
#
# Its life is a loop of two halves.
#
#   next_run   without the GIL (park.pxi).  Takes M; parks on the condition variable until the root is due; collects the
#              due timers into the run, and sorts it; callers have M in between.
#   fire_run   with the GIL, taken once a run.  Launches the run's entries one after another.  No mutex is held while a
#              callback runs.
#
# Life. A heap holds itself (one reference, taken by the arming that makes it live, given back by whatever leaves
# nothing armed) as long as something is armed that its worker will fire. The worker holds it while it fires, and in
# between only the core: it may take a reference as long as something is armed. So a heap that nobody holds fires what
# is armed, then goes, and takes its worker with it; where nothing is armed it goes at once. There is no ResourceWarning
# for that: nothing is lost, and nothing is left.
#
# Hand-over. A heap with patience has a second thread, the standby, started with the first run that is fired. It watches
# (park.pxi), and when a callback has run for longer than the heap has patience, it takes the post, and with it the rest
# of the run, and starts another standby. The one that has lost the post returns from its callback some day, finds the
# generation changed, leaves the core as it is, and ends. So what blocks costs a thread while it blocks.
#
#   - There is one worker at any time, the one with the post: it alone collects, launches and empties the run. A
#     take-over is one step under M and the GIL, and so is (without the GIL) a launch: whoever is about to launch finds,
#     under the same hold, that it has lost the run, or launches before it does.
#   - A launch is looked for under the number of the turn, core.generation, that came with the run; a standby that is
#     started in between belongs to a later one.
#   - The loser keeps what its callback needs: a reference to the heap, and to the handle or what the record held.
#   - close() waits for all of them; the last to return from a callback of a closed heap drops its hooks.
#
# Sharing the GIL. A thread that waits for the GIL asks for it once it has waited for a switch interval; and each time
# that it is given up the waiting begins anew, for whoever gives it up and takes it again at once mostly gets it, long
# before the one that it has woken. So a worker with more to do than it can must not give it up often. Within a run it
# does so after somewhat more than a switch interval (a function in Python does so by itself): who waits has asked by
# then, and CPython keeps the giver waiting until the other has had it. Between two runs it has to, for it collects
# without; a worker that has not parked for that long leaves the GIL alone for a moment there.
#
# Launching. Up to the launch stop() gets True; the launch makes the timer IDLE and counts the fire,
# so whoever comes later gets False. A periodic timer it leaves ARMED for the next call. What keeps func and args alive
# during the call:
#
#   the handle exists       a strong reference to the handle, taken before the call, dropped after it; so for every
#                           periodic timer
#   orphan or carcass       the record's references, moved into the launch; the record's memory is freed first
#   put aside               likewise, but the handle's memory is CPython's to free

cdef enum:
    CLOCK_SLICE = 128     # callbacks between two looks at the clock
    LATE_FIRST = 16       # callbacks of a run whose lateness is looked at, before one in CLOCK_SLICE is
    LEFT_ALONE = 50000    # ns: a thread that has been woken comes to take the GIL


cdef void submit(TimerHeap heap, th_timer* t, PyObject* handle) noexcept:
    timer = <Timer>handle if handle != NULL else adopt(heap, t)
    hand_over(heap, timer, 0, timer)


cdef void judge(TimerHeap heap, th_timer* t, PyObject* handle, PyObject* result) noexcept:
    """Report it if a callback has failed: it has returned something else than None, or raised."""
    exc = failure(result, <PyObject*>t.func)
    if exc is not None:
        report(heap, hook_of(heap), exc, <Timer>handle if handle != NULL else adopt(heap, t))


cdef inline void call(TimerHeap heap, th_timer* t, PyObject* handle) noexcept:
    """Run one callback, or submit it to the heap's executor.

    handle is NULL for a timer whose handle is gone: t is then the caller's copy of the record, and
    a new handle takes it over where somebody gets to see one.
    """
    cdef PyObject* result
    if t.func == NULL:
        return
    if heap.executor is not None:
        submit(heap, t, handle)
        return
    result = invoke(t)
    if result == <PyObject*>None:
        decref(result)
    else:
        judge(heap, t, handle, result)


cdef bint launch_periodic(th_core* c, PyObject* heap, th_timer* t) noexcept:
    """launch, where the next run entry is t, periodic. False, and nothing has changed: it is not to be fired. Without a
    GIL M is held, and still is when it is False."""
    cdef PyObject* handle = handle_of(t)
    cdef uint64_t number = 0
    cdef int goes
    if not FREE_THREADED:
        th_lock(c)
    goes = go_on(c, th_now(c), &number)
    if goes == GOES_ON:
        incref(handle)                  # given back below; under M, for a stop gives back the heap's
    if not (FREE_THREADED and goes == GOES_VOID):
        th_unlock(c)
    if goes == GOES_ON:
        if (<TimerHeap>heap).executor is not None:
            hand_over(<TimerHeap>heap, <Timer>handle, number, <Timer>handle)   # whose end ends the call
        else:
            call(<TimerHeap>heap, t, handle)
            end_call(<Timer>handle, number)
        decref(handle)
    elif goes == GOES_NOWHERE:
        with nogil:
            th_nap()                    # memory may come back; fire_run will be at this entry again
    return goes != GOES_VOID


cdef void launch(th_core* c, PyObject* heap, uint32_t turn, bint fire) noexcept:
    """Settle the next run entry: fire its timer if that is still DUE. With fire false (closing) only let go of it. heap
    is the TimerHeap; NULL once that is gone: it held itself no longer, so nothing is DUE then. turn: the caller's; with
    a GIL it has looked, without one the run may have been lost since."""
    cdef th_timer* t
    cdef th_timer record
    cdef PyObject* handle
    cdef uint16_t state
    cdef bint idle
    if FREE_THREADED:
        th_lock(c)
        if c.generation != turn:
            th_unlock(c)
            return
        fire = fire and not c.closed    # after close() has cancelled what is due, nothing is launched
    t = c.run[c.run_head].timer
    if th_fixed_flags(t) & TH_CELL:
        launch_cells(c, heap, turn, fire)
        return
    if fire and th_fixed_flags(t) & TH_PERIODIC and launch_periodic(c, heap, t):
        return
    t = settle(c, fire, &state, &idle)
    if t.flags & (TH_ORPHAN | TH_CARCASS):
        record = t[0]
        if FREE_THREADED:
            th_unlock(c)
        if state == TH_ARMED:
            return                  # armed anew before its handle died: it stays in the heap
        free_record(c, t)
        if state == TH_DUE and fire:
            call(<TimerHeap>heap, &record, NULL)
        drop_call(record.func, record.args, record.flags)
    else:
        if FREE_THREADED:
            th_unlock(c)
        handle = handle_of(t)
        if state == TH_DUE and put_aside(handle):
            record = t[0]
            t.func = t.args = NULL
            if fire:
                call(<TimerHeap>heap, &record, NULL)
            drop_call(record.func, record.args, record.flags)
        elif state == TH_DUE:
            if not owned(t):
                incref(handle)          # given back below; else that is the heap's own, of lock_to_arm
            if not always_tracked(c):
                gc_track(handle)
            if fire:
                call(<TimerHeap>heap, t, handle)
            decref(handle)
    if idle:
        hold_no_more(c, heap)


cdef void look_at_lateness(th_core* c, uint32_t turn) noexcept:
    """Of the run entry that is launched next, if there is one, and if the run is still the caller's. Not of each: the
    clock is a good part of a launch."""
    if FREE_THREADED:
        th_lock(c)
    if (c.generation == turn and c.run_head < c.run_len and th_state(c.run[c.run_head].timer) == TH_DUE
            and not c.closed):
        th_note_late(c, c.run[c.run_head].when)
    if FREE_THREADED:
        th_unlock(c)


cdef inline bint had_long(int64_t* since) noexcept:
    """Whether a worker has gone on for so long, by these looks at the clock, that others shall have the GIL now. The
    first look, or one after that, begins anew."""
    cdef int64_t now = th_monotonic(), interval = th_switch_interval()
    if since[0] and now - since[0] < interval + (interval >> 2):
        return False
    had = since[0] != 0
    since[0] = 0 if had else now
    return had


cdef void fire_run(TimerHeap heap, uint32_t turn) noexcept:
    """Launch every entry of the run, in order, each callback in an empty context. The run is empty
    afterwards, unless the worker has to leave or has lost it.

    One empty context serves all callbacks until one of them leaves a variable behind in it.
    """
    cdef th_core* c = heap.core
    cdef PyObject* context = NULL
    cdef size_t count = 0
    cdef int64_t since = 0
    cdef bint told = False
    # A callback may fork: in the child the run has been let go of, and a new worker may already fill it. Or it was
    # handed over while a callback, or a finalizer, took its time.
    while th_generation(c) == turn and th_run_head(c) < c.run_len and not c.exiting:
        if context == NULL and not c.closed:
            if enter_fresh_context(&context):
                continue            # finalizers may have run
            if not told:
                write_unraisable(NULL)
            told = True
            PyErr_Clear()
            with nogil:
                th_nap()            # memory may come back; until then what is due is late
            continue
        if not (FREE_THREADED and c.patience) and c.run_head + PREFETCH < c.run_len:
            prefetch(c.run[c.run_head + PREFETCH].timer)
        if count < LATE_FIRST:
            look_at_lateness(c, turn)
        launch(c, <PyObject*>heap, turn, context != NULL and not c.closed)
        if context != NULL and PyObject_Size(context) != 0:
            leave_context(&context)
        count += 1
        if count % CLOCK_SLICE == 0:
            if FREE_THREADED or had_long(&since):
                with nogil:
                    pass
            look_at_lateness(c, turn)
    leave_context(&context)
    th_lock(c)
    if c.generation == turn:
        if c.run_head == c.run_len:
            end_run(c)
        c.firing = False
    th_unlock(c)


cdef void let_run_go(th_core* c, PyObject* heap) noexcept:
    """Cancel what is left of the run. For the thread that owns it: the worker, or whoever stands in
    for it."""
    while c.run_head < c.run_len:
        launch(c, heap, c.generation, False)
    empty_run(c)


cdef int let_all_go(TimerHeap heap) except -1:
    """Cancel every timer in the heap, for close(). One by one, because
    releasing a callback may run a finalizer, which must find the heap in order."""
    cdef th_core* c = heap.core
    cdef th_timer* t
    cdef th_timer record
    cdef th_array* a
    cdef PyObject* array
    cdef bint idle
    while True:
        th_lock(c)
        t = cancel_last(c)
        if t == NULL:
            th_unlock(c)
            return 0
        idle = c.live == 0
        if t.flags & TH_CELL:
            a = th_owner(&c.arrays, t)
            a.armed -= 1
            array = <PyObject*>a.object if release_if_idle(a) else NULL
            th_unlock(c)
            xdecref(array)
            if idle:
                hold_no_more(c, <PyObject*>heap)
            continue
        record = t[0]
        if record.flags & (TH_ORPHAN | TH_CARCASS):
            t.func = t.args = NULL
            if record.flags & TH_ORPHAN:
                th_slab_free(&c.orphans, t, sizeof(th_timer))
            th_unlock(c)
            if record.flags & TH_CARCASS and not record.flags & TH_PINNED:
                th_del_timer(handle_of(t))
            drop_call(record.func, record.args, record.flags)
        else:
            th_unlock(c)
            if not always_tracked(c) and not put_aside(handle_of(t)):
                gc_track(handle_of(t))
            if owned(&record):
                decref(handle_of(t))
        if idle:
            hold_no_more(c, <PyObject*>heap)


cdef void drop_hooks(TimerHeap heap) noexcept:
    """After the last callback of a closed heap. The collector does not look into channels: an object that owns a Ticker
    and a heap with one of its methods as on_error would live for ever by it."""
    with cython.critical_section(heap):
        hooks = heap.executor, heap.hook        # let go of at the return
        heap.executor = heap.hook = None


# ---- the thread -----------------------------------------------------------------------------------------------------

cdef PyObject* hold_to_fire(th_core* c, th_post* post) noexcept:
    """A reference to the heap, which is firing from now on; or NULL if nothing of the run is left: then there may be
    none. As long as something is armed the heap holds itself, or is about to and held by whoever arms: so this, of all
    counts, is safe under M."""
    cdef PyObject* heap = NULL
    cdef bint asleep = False
    th_lock(c)
    if c.live:
        heap = <PyObject*>post.heap
        incref(heap)
        post.turn = c.generation
        c.firing = True
        asleep = c.asleep
    th_unlock(c)
    if asleep:
        th_rouse(c)
    return heap


cdef PyObject* take_over(th_core* c, th_post* post, progress* seen) noexcept:
    """The standby becomes the worker, in the middle of a run: a reference to the heap, and the other's post is lost.
    NULL if that has come back meanwhile, or all have to leave. The loser holds the heap as long as it fires."""
    cdef PyObject* heap = NULL
    th_lock(c)
    if unmoved(c, seen) and c.firing and not called_off(c):
        heap = <PyObject*>post.heap
        incref(heap)
        th_post_take(post)
    th_unlock(c)
    return heap


cdef void come_back(TimerHeap heap, th_post* post) noexcept:
    """The callback over which a worker has lost its post has returned."""
    cdef th_core* c = heap.core
    cdef bint last
    th_lock(c)
    th_post_return(post)
    last = c.closed and c.losers == NULL and not c.firing
    th_unlock(c)
    if last:
        drop_hooks(heap)


cdef void timerproc(th_post* post) noexcept:
    """The worker's whole life, between the thread's birth and its end; before that, if it begins so, the standby's."""
    cdef th_core* c = post.core
    cdef PyObject* heap = NULL
    cdef progress seen
    cdef uint64_t parks = 0
    cdef int64_t since = 0
    cdef bint due = True, hogs = False
    if post.standby:
        memset(&seen, 0, sizeof(seen))
        while due and heap == NULL:
            with nogil:
                due = stand_by(post, &seen)
                if due:
                    th_ask_for_gil()
            if due:
                heap = take_over(c, post, &seen)
    if due:
        appear(post)
    while due:
        if heap == NULL:
            with nogil:
                if hogs:
                    th_pause(LEFT_ALONE)
                due = next_run(post)
                if due:
                    th_ask_for_gil()    # nothing may come between this and the GIL
            th_post_to_call(post)       # finalizers may start processes as callbacks may
            if not due:
                break
            heap = hold_to_fire(c, post)
        if heap == NULL:
            let_run_go(c, NULL)
            continue
        th_post_to_call(post)
        if c.patience and c.spare == NULL:
            courtesy(start_standby, heap)
        fire_run(<TimerHeap>heap, post.turn)
        due = post.core != NULL         # else this is the child of a callback's fork, or another has the post
        if due and c.wakeups == parks:
            hogs = had_long(&since)
        elif due:
            hogs = since = 0            # it has parked before this run
            parks = c.wakeups
        if due and c.closed and c.losers == NULL:
            drop_hooks(<TimerHeap>heap)
        if post.lost != NULL:
            come_back(<TimerHeap>heap, post)
        decref(heap)
        heap = NULL
    disappear(post)


th_timerproc = timerproc
