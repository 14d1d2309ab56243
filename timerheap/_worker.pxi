# The worker, "timerproc": one daemon thread a heap that sleeps until the earliest deadline and
# fires what is due.
#
# Its life is a loop of two halves.
#
#   next_run   without the GIL.  Takes M; parks on the condition variable until the root is due; collects the due
#              timers into the run; lets M go; sorts the run.
#   fire_run   with the GIL, taken once a run (and offered to others every GIL_SLICE callbacks).  Launches the
#              run's entries one after another.  No mutex is held while a callback runs.
#
# The wake protocol. A caller that arms earlier than core.wake_at signals, and sets wake_at to
# INT64_MIN, so that the callers after it need not. The worker writes wake_at and begins to wait
# under one hold of M, and while it is awake wake_at is INT64_MIN: it looks at the root before it
# parks again. So each deadline is either seen by the worker before it parks, or earlier than the
# wake_at it parked with and signalled. A stale root is brought up to date before parking (collect
# does it): timers that are only ever reset to later wake nobody.
#
# Starting. A worker is there, or on its way, when a timer enters the heap: whoever arms starts one if not, and waits
# for no start of another. That one may fail. So a timer is armed either before the failure is noted, under M, and then
# whoever failed finds it in the heap and tries again; or after it, and then its own caller finds that there is none.
#
# Launching. Up to the launch stop() gets True; the launch makes the timer IDLE and counts the fire,
# so whoever comes later gets False. What keeps func and args alive during the call:
#
#   the handle exists       a strong reference to the handle, taken before the call, dropped after it
#   orphan or carcass       the record's references, moved into the launch; the record's memory is freed first
#
# On a free-threaded interpreter the heap owns a strong reference to the handle of each ARMED or DUE
# timer, taken before arming and given up by stop or after the call. With a GIL it owns none, and a
# handle that dies while armed leaves an orphan (40 bytes instead of 80): that is decided under the
# GIL, which no launch can have at the same time.
#
# The collector. An armed timer is a root: it will fire. A handle reveals func and args to the
# collector only while it is IDLE, and with a GIL it is tracked only then, so a million armed timers
# cost a collection nothing. A free-threaded collector walks through every object of a collectable
# type, tracked or not, and comes back once a quarter more of them exist than were tracked the last
# time: handles that it did not count would have it come back every 2000 timers. So there they are
# tracked from beginning to end, and what makes an armed one a root is the heap's reference.

cdef class TimerHeap
cdef class Timer

cdef dict all_heaps = {}          # weak references by their id, in the order of creation; for fork and exit
cdef list paused = []             # strong references: heaps whose workers have left for a fork
cdef bint at_exit = False         # the exit handler has run
cdef unsigned long main_thread = threading.main_thread().ident

cdef str CLOSED_HEAP = "the timer heap is closed"
cdef str SUBMIT = "submit"


cdef inline PyObject* handle_of(th_timer* t) noexcept nogil:
    return <PyObject*>(<char*>t - <size_t>&(<Timer>NULL).t)


# ---- collecting: no GIL ---------------------------------------------------------------------------------------------

cdef bint next_run(th_core* c, th_signals* signals) noexcept nogil:
    """Park until something is due and make it the run, sorted. False when the worker has to
    leave."""
    th_lock(c)
    while not (c.closed or c.exiting or c.pausing):
        collect(c, th_now(c))
        if c.run_len:
            sort_run(c)
            c.batches += 1
            if c.run_len > c.longest:
                c.longest = c.run_len
            th_unlock(c)
            return True
        if c.closed or c.exiting or c.pausing:
            break
        th_mask_signals(signals)
        th_park(c, c.keys[0].when if c.len else TH_NEVER)
    c.running = c.arrived = False
    th_unlock(c)
    return False


# ---- firing: with the GIL -------------------------------------------------------------------------------------------

cdef inline PyObject* invoke(th_timer* t) noexcept:
    """Call func with its arguments.  A new reference, or NULL with an exception set."""
    cdef th_block* block
    cdef PyObject* result
    cdef uint16_t flags = th_fixed_flags(t)
    if flags & TH_ARGS_ONE:
        return call_one(<PyObject*>t.func, <PyObject*>t.args)
    if not flags & TH_ARGS_BLOCK:
        return call_none(<PyObject*>t.func)
    block = <th_block*>t.args
    if block.context == NULL:
        return call_many(<PyObject*>t.func, <PyObject**>block.items, block.nargs, NULL)
    if PyContext_Enter(<PyObject*>block.context) < 0:
        return NULL
    result = call_many(<PyObject*>t.func, <PyObject**>block.items, block.nargs, NULL)
    PyContext_Exit(<PyObject*>block.context)
    return result


cdef inline void drop_call(void* func, void* args, uint16_t flags) noexcept:
    """Release what a record owned. Runs finalizers: no lock is held, and the record must not point
    here any more."""
    cdef th_block* block
    cdef size_t i
    if flags & TH_ARGS_BLOCK and args != NULL:
        block = <th_block*>args
        for i in range(block.nargs):
            decref(block.items[i])
        xdecref(block.context)
        PyMem_Free(block)
    else:
        xdecref(args)
    xdecref(func)


def report_to_threading(exc, timer):
    """The default on_error: what an exception in a thread's target would get."""
    threading.excepthook(threading.ExceptHookArgs((type(exc), exc, exc.__traceback__, threading.current_thread())))


cdef void report(TimerHeap heap, object on_error, object exc, object timer) noexcept:
    """Hand what a callback raised to on_error or threading.excepthook. What the hook itself raises
    goes to sys.unraisablehook: the worker lives on."""
    cdef object hook = on_error if on_error is not None else report_to_threading
    cdef PyObject* result
    th_count(&heap.core.errors, 1)
    result = call_objects(<PyObject*>hook, <PyObject*>exc, <PyObject*>timer, NULL)
    if result == NULL:
        write_unraisable(<PyObject*>hook)
    else:
        decref(result)


cdef void call(TimerHeap heap, th_timer* t, PyObject* handle) noexcept:
    """Run one callback, or submit it to the heap's executor.

    handle is NULL for a timer whose handle is gone: t is then the caller's copy of the record, and
    a new handle takes it over where somebody gets to see one.
    """
    cdef PyObject* result
    if t.func == NULL:
        return
    if heap.executor is None:
        result = invoke(t)
        if result != NULL:
            decref(result)
        else:
            report(heap, heap.on_error, take_exception(), <Timer>handle if handle != NULL else adopt(heap, t))
        return
    timer = <Timer>handle if handle != NULL else adopt(heap, t)
    hook = heap.on_error
    result = call_method(<PyObject*>heap.executor, <PyObject*>SUBMIT, <PyObject*>run_job, <PyObject*>timer,
                         <PyObject*>hook, NULL)
    if result != NULL:
        decref(result)
        return
    exc = take_exception()
    # When the program ends, its pools do so before the exit handlers: what falls due after that is not to be run.
    if not (isinstance(exc, RuntimeError) and getattr(threading, "_SHUTTING_DOWN", False)):
        report(heap, hook, exc, timer)


cdef bint enter_fresh_context(PyObject** context) noexcept:
    """An empty context for callbacks to run in; False, with the error reported, when there is no
    memory."""
    context[0] = PyContext_New()
    if context[0] == NULL or PyContext_Enter(context[0]) < 0:
        xdecref(context[0])
        context[0] = NULL
        write_unraisable(NULL)
        return False
    return True


cdef void leave_context(PyObject** context) noexcept:
    if context[0] != NULL:
        PyContext_Exit(context[0])
        decref(context[0])
        context[0] = NULL


def run_job(Timer timer, on_error):
    """What an executor runs for a due timer: its callback in an empty context, errors to the heap's hook, which a heap
    closed meanwhile has no longer."""
    cdef PyObject* context = NULL
    cdef PyObject* result
    if not enter_fresh_context(&context):
        return
    result = invoke(&timer.t)
    leave_context(&context)
    if result != NULL:
        decref(result)
    else:
        report(timer.heap, on_error, take_exception(), timer)


cdef void free_record(th_core* c, th_timer* t) noexcept:
    """Free the memory of an orphan or a carcass whose func and args have been moved out."""
    if t.flags & TH_ORPHAN:
        th_lock(c)
        th_slab_free(&c.orphans, t, sizeof(th_timer))
        th_unlock(c)
    else:
        th_del_timer(handle_of(t))


cdef void launch(TimerHeap heap, bint fire) noexcept:
    """Settle the next run entry: fire its timer if that is still DUE. With fire false (closing)
    only let go of it."""
    cdef th_core* c = heap.core
    cdef th_timer* t = c.run[c.run_head].timer
    cdef th_timer record
    cdef PyObject* handle
    cdef uint16_t state
    if FREE_THREADED:
        th_lock(c)
        fire = fire and not c.closed    # after close() has cancelled what is due, nothing is launched
    c.run_head += 1
    th_unmark(t, TH_PINNED)
    state = t.state
    if state == TH_DUE:
        t.state = TH_IDLE
        c.live -= 1
        if fire:
            c.fired += 1
        else:
            c.cancelled += 1
    if t.flags & (TH_ORPHAN | TH_CARCASS):
        record = t[0]
        if FREE_THREADED:
            th_unlock(c)
        if state == TH_ARMED:
            return                  # armed anew before its handle died: it stays in the heap
        free_record(c, t)
        if state == TH_DUE and fire:
            call(heap, &record, NULL)
        drop_call(record.func, record.args, record.flags)
        return
    if FREE_THREADED:
        th_unlock(c)
    if state == TH_DUE:
        handle = handle_of(t)
        if not FREE_THREADED:
            incref(handle)          # given back below; free-threaded: the heap's own reference, taken by arm
            gc_track(handle)
        if fire:
            call(heap, t, handle)
        decref(handle)


cdef void fire_run(TimerHeap heap) noexcept:
    """Launch every entry of the run, in order, each callback in an empty context. The run is empty
    afterwards.

    One empty context serves all callbacks until one of them leaves a variable behind in it.
    """
    cdef th_core* c = heap.core
    cdef PyObject* context = NULL
    cdef size_t count = 0
    cdef uint32_t generation = c.generation
    if not enter_fresh_context(&context):
        return
    # A callback may fork: in the child the run has been let go of, and a new worker may already
    # fill it.
    while c.generation == generation and c.run_head < c.run_len and not c.exiting:
        if c.run_head + PREFETCH < c.run_len:
            prefetch(c.run[c.run_head + PREFETCH].timer)
        launch(heap, not c.closed)
        if PyObject_Size(context) != 0:
            leave_context(&context)
            if not enter_fresh_context(&context):
                break
        count += 1
        if count % GIL_SLICE == 0:
            with nogil:
                pass
    leave_context(&context)
    if c.generation == generation and c.run_head == c.run_len:
        empty_run(c)


cdef void empty_run(th_core* c) noexcept:
    th_lock(c)
    c.run_head = c.run_len = 0
    trim_run(c)
    th_unlock(c)


cdef bint arrive(th_core* c, th_signals* signals) noexcept nogil:
    """Take up the worker's post. False when it is taken, or no longer offered: see start_worker."""
    cdef bint mine
    th_lock(c)
    mine = c.running and not c.arrived
    if mine:
        c.arrived = True
        c.worker = gettid()
        th_take_up_mask(c, signals)
    th_unlock(c)
    return mine


cdef int timerproc(TimerHeap heap) except -1:
    """The worker's whole life."""
    cdef th_core* c = heap.core
    cdef uint32_t generation = c.generation
    cdef th_signals signals
    cdef bint due = True
    if not arrive(c, &signals):
        return 0
    set_worker(heap, threading.current_thread(), True)
    th_precise_sleeps()
    while due and generation == c.generation:
        with nogil:
            due = next_run(c, &signals)
        if due:
            th_unmask_signals(&signals)
            c.firing = True
            fire_run(heap)
            if generation == c.generation:
                c.firing = False
    if c.closed and generation == c.generation:
        th_unmask_signals(&signals)     # finalizers may start processes as callbacks may
        drop_hooks(heap)
    return 0


cdef int drop_hooks(TimerHeap heap) except -1:
    """After the last callback of a closed heap. The collector does not look into channels: an object that owns a Ticker
    and a heap with one of its methods as on_error would live for ever by it."""
    with cython.critical_section(heap):
        hooks = heap.executor, heap.on_error    # let go of at the return
        heap.executor = heap.on_error = None
    return 0


cdef object worker_of(TimerHeap heap):
    """The worker's threading.Thread, or None."""
    with cython.critical_section(heap):     # nothing where there is a GIL
        thread = heap.thread
    return thread


cdef int set_worker(TimerHeap heap, object thread, bint arrived) except -1:
    """Note the worker's Thread. Who has only started it knows less than a worker that has arrived."""
    with cython.critical_section(heap):
        if arrived or not heap.core.arrived:
            heap.thread = thread
    return 0


# ---- start and stop -------------------------------------------------------------------------------------------------

cdef int start_worker(TimerHeap heap) except -1:
    """Start the worker. RuntimeError when the heap is closed or the system refuses a thread. False when the program is
    ending: there will be no worker, and arming goes on without.

    Starting gives up the GIL. Who arms meanwhile (another thread, a finalizer) does not wait: the
    worker looks at the heap as soon as it runs. Waiting could deadlock, since the new thread may
    run a finalizer that arms before it reports as started.

    When the start fails, those who relied on it have armed their timers and gone. So whoever failed tries again while
    there are timers in the heap and nobody else has begun a start, START_TRIES times in all. Its own call fails
    whatever comes of that: nobody else is there to be told, and what a signal handler raised must arrive. Should
    every try fail, these timers stay armed, and fire once some later arming has got the worker that it asks for.

    Thread.start may fail when the thread is there already: out of memory, or interrupted by a signal
    handler that raises. Where it has arrived it is the worker; one that arrives after the failure finds
    no post, or takes that of the next start. So there are never two.
    """
    cdef th_core* c = heap.core
    cdef bint stranded = True
    cdef int tries = START_TRIES
    if c.closed:
        raise RuntimeError(CLOSED_HEAP)
    if c.exiting:
        return False
    error = None
    while stranded and tries:
        tries -= 1
        exc = try_start(heap, &stranded)
        if exc is None:
            break
        # A program that is ending gets no new threads, and no complaint: its timers would not fire anyway.
        if error is None and isinstance(exc, RuntimeError) and not threading.main_thread().is_alive():
            return False
        # The system's refusal says less than what anybody else has raised.
        if error is None or isinstance(error, (RuntimeError, MemoryError)):
            error = exc
    if error is not None:
        raise error
    return True


cdef object try_start(TimerHeap heap, bint* stranded):
    """One try of start_worker; the exception if it failed, else None. stranded: whether it leaves timers behind for
    which nobody starts a worker."""
    cdef sigset_t mask
    cdef PyObject* started
    cdef bint failed
    cdef th_core* c = heap.core
    stranded[0] = False
    th_lock(c)
    if c.running or c.closed or c.exiting or c.pausing:     # another came first, or no worker is wanted
        th_unlock(c)
        return None
    c.running = True
    th_mask_for_start(c)
    mask = c.starter_mask
    th_unlock(c)
    started = call_objects(<PyObject*>start_thread, <PyObject*>heap, NULL)
    th_unmask_after_start(&mask)
    if started != NULL:
        decref(started)
        return None
    exc = take_exception()
    th_lock(c)
    failed = not c.arrived
    if failed:
        c.running = False
        stranded[0] = c.live > 0
    th_unlock(c)
    if not failed and isinstance(exc, MemoryError):
        return None                     # all that was lost is the news of the start
    return exc


def start_thread(TimerHeap heap):
    thread = threading.Thread(target=heap._timerproc, name=heap.name, daemon=True)
    thread.start()
    set_worker(heap, thread, False)


cdef int join_worker(TimerHeap heap, double patience) except -1:
    """Wait for a worker that has been told to leave (closed, exiting or pausing), patience seconds
    at most; negative: for ever.

    Returns at once in the worker itself, that is in a callback.
    """
    thread = worker_of(heap)
    th_signal(heap.core)
    if thread is not None and thread.is_alive() and thread is not threading.current_thread():
        thread.join(None if patience < 0 else patience)
    return 0


cdef list live_heaps():
    """Strong references to all heaps in the order of creation."""
    cdef list heaps = []
    for reference in list(all_heaps.values()):
        heap = reference()
        if heap is not None:
            heaps.append(heap)
    return heaps


def stop_at_exit():
    """Exit waits for no timer: parked workers leave, a worker inside a callback is left behind (it
    is a daemon)."""
    global at_exit
    cdef TimerHeap heap
    cdef int64_t until
    cdef list ends = []
    at_exit = True
    heaps = live_heaps()
    for heap in heaps:
        th_lock(heap.core)
        # All wait at the same time: a hundred workers inside callbacks take no longer than one.
        ends.append(th_monotonic() + (NS_PER_S if heap.core.parked else NS_PER_S // 20))
        heap.core.exiting = not heap.core.manual    # virtual time goes on as long as somebody turns it
        th_unlock(heap.core)
        th_signal(heap.core)
    for heap, until in zip(heaps, ends):
        join_worker(heap, to_seconds(max(0, until - th_monotonic())))


# ---- fork -----------------------------------------------------------------------------------------------------------
#
# The parent's timers go on, the child starts with none. csrc/fork.h keeps the child's copy consistent;
# here is what takes Python. Where the forking thread is the only one beside the workers, each worker
# that is in no callback leaves first: os.fork() then has nothing to warn of. With more threads that
# would be waiting for nothing. In the parent the workers come back by a pending call, after os.fork()
# has counted the threads.
#
# A signal's handler may raise wherever Python code runs, in these hooks too, whose exceptions are
# only reported. So whatever fails, the heaps in paused get their workers back.

def before_fork():
    cdef TimerHeap heap
    cdef list heaps = live_heaps()
    cdef Py_ssize_t others = threading.active_count() - 1
    for heap in heaps:
        thread = worker_of(heap)
        others -= thread is not None and thread.is_alive()
    if others:
        return
    for heap in heaps:
        th_lock(heap.core)
        leaves = heap.core.running and not heap.core.firing and not heap.core.manual
        if leaves:
            heap.core.pausing = True
        th_unlock(heap.core)
        if leaves:
            with cython.critical_section(all_heaps):
                paused.append(heap)     # first: a signal handler may raise in the join
            join_worker(heap, 1.0)
            with nogil:
                th_await_end(heap.core.worker)


def after_fork_in_parent():
    if paused and (current_thread() != main_thread or Py_AddPendingCall(resume_pending, NULL) < 0):
        resume_workers()


cdef int resume_pending(void* unused) except -1:
    return resume_workers()


cdef int resume_workers() except -1:
    """Bring back the workers that left for a fork: all of them, whatever is raised meanwhile."""
    global paused
    cdef TimerHeap heap
    cdef PyObject* started
    cdef list heaps
    with cython.critical_section(all_heaps):    # without a GIL a callback may fork as well meanwhile
        heaps = paused
        paused = []
    error = None
    for heap in heaps:
        th_lock(heap.core)
        heap.core.pausing = False
        th_unlock(heap.core)
        if not heap.core.closed:
            started = call_objects(<PyObject*>restart_worker, <PyObject*>heap, NULL)
            if started == NULL:
                error = take_exception()
            else:
                decref(started)
    if error is not None:
        raise error
    return 0


def restart_worker(TimerHeap heap):
    start_worker(heap)


def after_fork_in_child():
    global paused, main_thread
    cdef TimerHeap heap
    cdef list heaps = []
    for heap in live_heaps():
        if heap.core.pausing:           # else it was made in the child, by somebody else's hook
            heaps.append(heap)
    main_thread = current_thread()
    paused = []                         # heaps that lived by this alone now live by the list above
    for heap in heaps:
        heap.thread = None
        if heap.advancer != current_thread():
            heap.advancer = 0           # that thread is not in the child
    for heap in heaps:
        # Finalizers may arm meanwhile. No worker may start before the run is let go of, or both would own it.
        let_run_go(heap)
        let_all_go(heap)
        heap.core.pausing = False


cdef int let_all_go(TimerHeap heap) except -1:
    """Cancel every timer in the heap: close() and the child of a fork. One by one, because
    releasing a callback may run a finalizer, which must find the heap in order."""
    cdef th_core* c = heap.core
    cdef th_timer* t
    cdef th_timer record
    while True:
        th_lock(c)
        t = cancel_last(c)
        if t == NULL:
            th_unlock(c)
            return 0
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
            if FREE_THREADED:
                decref(handle_of(t))
            else:
                gc_track(handle_of(t))


cdef void let_run_go(TimerHeap heap) noexcept:
    """Cancel what is left of the run. For the thread that owns it: the worker, or whoever stands in
    for it."""
    cdef th_core* c = heap.core
    while c.run_head < c.run_len:
        launch(heap, False)
    empty_run(c)
