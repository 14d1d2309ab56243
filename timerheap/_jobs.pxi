# Calling back: contexts, jobs for executors, and where errors go.
#
# A callback's error goes to the heap's on_error, else to threading.excepthook, as the current exception:
# sys.exc_info(), a bare raise and logging.exception find it there, and what the hook itself raises has it as its
# context.
#
# A Job is what an executor gets for a due timer. It is in one of these states, and leaves WAITS once:
#
#   WAITS   handed over, not begun
#   RUNS    an executor's thread runs it in this process
#   AWAY    pickled, for an executor with other processes: begun, as far as anybody here can tell
#   DONE    over, and reported if it failed
#   OFF     called off by close() before it had begun: whoever runs it finds nothing to do
#
# close() calls off what waits, and waits for what has begun: but not for jobs of its own thread (its caller for one;
# with greenlets there may be several), not for those whose thread is waiting in a close() itself (two that close each
# other's heaps do not stand still for ever), and not for what is away and whose end no future tells. Whatever a job's
# future ends with that the job has not reported itself (it could not be pickled, the pool broke or was shut down) is
# reported when it ends.

cdef object ExceptHookArgs = threading.ExceptHookArgs
cdef str SUBMIT = "submit", EXCEPTION = "exception", CLOSE = "close"

cdef enum:
    JOB_WAITS
    JOB_RUNS
    JOB_AWAY
    JOB_DONE
    JOB_OFF


cdef extern from *:
    """
    /* Whether an object may be a coroutine or a generator: cheap, for most results of callbacks are not. */
    static inline int th_may_suspend(PyObject *o)
    {
        PyTypeObject *t = Py_TYPE(o);
        return t->tp_iternext != NULL || (t->tp_as_async != NULL
                && (t->tp_as_async->am_await != NULL || t->tp_as_async->am_anext != NULL));
    }
    """
    bint may_suspend "th_may_suspend"(PyObject* o)


# ---- errors ---------------------------------------------------------------------------------------------------------

def report_to_threading(exc, timer):
    """The default on_error: what an exception in a thread's target would get."""
    threading.excepthook(ExceptHookArgs((type(exc), exc, exc.__traceback__, threading.current_thread())))


cdef void report(TimerHeap heap, object on_error, object exc, object timer) noexcept:
    """Hand what a callback raised to on_error or threading.excepthook, as the current exception. What the hook itself
    raises goes to sys.unraisablehook: the worker lives on."""
    cdef object hook = on_error if on_error is not None else report_to_threading
    cdef PyObject* result
    cdef PyObject* before = get_handled()
    th_count(&heap.core.errors, 1)
    set_handled(<PyObject*>exc)
    result = call_objects(<PyObject*>hook, <PyObject*>exc, <PyObject*>timer, NULL)
    if result == NULL:
        write_unraisable(<PyObject*>hook)
    else:
        decref(result)
    set_handled(before)
    xdecref(before)


cdef object failure(PyObject* result, PyObject* func):
    """The exception that a call ended with, None if it went well. result, a reference or NULL, is consumed."""
    if result == NULL:
        return take_exception()
    value = <object>result
    decref(result)
    if not may_suspend(result) or not isinstance(value, (Coroutine, Generator, AsyncGenerator)):
        return None
    return never_run(value, <object>func)


cdef object never_run(suspended, func):
    """The TypeError for a callback that has returned a coroutine or a generator, which is closed: nobody would run it,
    and of a coroutine Python would complain in some other place."""
    if not isinstance(suspended, AsyncGenerator):       # that one has nothing to close before it has begun
        result = call_method(<PyObject*>suspended, <PyObject*>CLOSE, NULL)
        if result == NULL:
            write_unraisable(<PyObject*>suspended)
        else:
            decref(result)
    kind = "generator" if isinstance(suspended, Generator) else "coroutine"
    if isinstance(suspended, AsyncGenerator):
        kind = "asynchronous generator"
    name = getattr(func, "__qualname__", None) or repr(func)
    return TypeError(f"{name}() returned a {kind}, which nobody would run: a timer calls plain functions. "
                     "asyncio.run_coroutine_threadsafe hands a coroutine to its loop")


# ---- calling --------------------------------------------------------------------------------------------------------

cdef bint enter_fresh_context(PyObject** context) noexcept:
    """An empty context for callbacks to run in; False, with an exception set, when there is no memory."""
    context[0] = PyContext_New()
    if context[0] == NULL or PyContext_Enter(context[0]) < 0:
        xdecref(context[0])
        context[0] = NULL
        return False
    return True


cdef void leave_context(PyObject** context) noexcept:
    if context[0] != NULL:
        PyContext_Exit(context[0])
        decref(context[0])
        context[0] = NULL


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


cdef void call(TimerHeap heap, th_timer* t, PyObject* handle) noexcept:
    """Run one callback, or submit it to the heap's executor.

    handle is NULL for a timer whose handle is gone: t is then the caller's copy of the record, and
    a new handle takes it over where somebody gets to see one.
    """
    cdef PyObject* result
    if t.func == NULL:
        return
    if heap.executor is not None:
        hand_over(heap, <Timer>handle if handle != NULL else adopt(heap, t))
        return
    result = invoke(t)
    if result == <PyObject*>None:
        decref(result)
        return
    exc = failure(result, <PyObject*>t.func)
    if exc is not None:
        report(heap, heap.on_error, exc, <Timer>handle if handle != NULL else adopt(heap, t))


# ---- jobs -----------------------------------------------------------------------------------------------------------

@cython.final
cdef class Job:
    """A due timer's callback, for an executor to call, here or pickled in another process."""

    cdef Timer timer
    cdef object on_error        # the heap's at the hand-over: one that is closed meanwhile has no longer one
    cdef object future          # what submit has returned
    cdef bint unheard           # that says nothing of its end: what is AWAY then, nobody waits for
    cdef uint32_t state         # a word to wait for
    cdef unsigned long thread   # that runs it
    cdef int closing            # close() calls that its thread is in

    def __call__(self):
        cdef PyObject* context = NULL
        self.thread = current_thread()
        if not th_move(&self.state, JOB_WAITS, JOB_RUNS):
            return
        if enter_fresh_context(&context):
            exc = failure(invoke(&self.timer.t), <PyObject*>self.timer.t.func)
            leave_context(&context)
        else:
            exc = take_exception()
        if exc is not None:
            report(self.timer.heap, self.on_error, exc, self.timer)
        finish(self, JOB_DONE)

    def __reduce__(self):
        """For another process, which gets the function and its arguments alone; its errors come back by the future."""
        from functools import partial
        cdef th_timer* t = &self.timer.t
        cdef th_block* block
        if not th_move(&self.state, JOB_WAITS, JOB_AWAY) and self.state != JOB_AWAY:
            return partial, (int,)      # called off: nothing to do there
        if self.unheard:
            strike(self)
        args = []
        if th_fixed_flags(t) & TH_ARGS_ONE:
            args.append(<object><PyObject*>t.args)
        if not th_fixed_flags(t) & TH_ARGS_BLOCK:
            return partial, (run_away, None, <object><PyObject*>t.func, *args)
        block = <th_block*>t.args
        args.extend([<object><PyObject*>block.items[i] for i in range(block.nargs)])
        context = <object><PyObject*>block.context if block.context != NULL else None
        return partial, (run_away, context, <object><PyObject*>t.func, *args)

    def ended(self, future):
        """The future is done. What the job has not reported itself has kept it from running, or from coming back."""
        cdef PyObject* result
        if not (th_move(&self.state, JOB_WAITS, JOB_RUNS) or th_move(&self.state, JOB_AWAY, JOB_RUNS)):
            return
        result = call_method(<PyObject*>future, <PyObject*>EXCEPTION, NULL)     # raises after a cancellation
        if result == NULL:
            exc = take_exception()
        else:
            exc = <object>result
            decref(result)
        if exc is not None:
            report(self.timer.heap, self.on_error, exc, self.timer)
        finish(self, JOB_DONE)


def run_away(context, func, *args):
    """What a Job comes down to in another process. Nothing is sent back but an exception."""
    from contextvars import Context
    result = (Context() if context is None else context).run(func, *args)
    if isinstance(result, (Coroutine, Generator, AsyncGenerator)):
        raise never_run(result, func)


cdef int strike(Job job) except -1:
    if job.timer.heap.jobs is not None:         # else the collector has cleared it
        job.timer.heap.jobs.discard(job)
    return 0


cdef int finish(Job job, uint32_t state) except -1:
    strike(job)
    job.future = None
    th_set_word(&job.state, state)
    return 0


cdef void hand_over(TimerHeap heap, Timer timer) noexcept:
    cdef PyObject* result
    cdef Job job = Job.__new__(Job)
    job.timer = timer
    job.on_error = heap.on_error
    heap.jobs.add(job)
    result = call_method(<PyObject*>heap.executor, <PyObject*>SUBMIT, <PyObject*>job, NULL)
    if result != NULL:
        future = <object>result
        decref(result)
        follow(job, future)
        return
    exc = take_exception()
    if not th_move(&job.state, JOB_WAITS, JOB_DONE):
        return                          # submit has run it, and has failed after that
    finish(job, JOB_DONE)
    if not (isinstance(exc, RuntimeError) and program_ends()):
        report(heap, job.on_error, exc, timer)


cdef int follow(Job job, future) except -1:
    """Hear of the end of a job's future, if it is one (asyncio's may be touched in its loop's thread only)."""
    follows = None
    if getattr(type(future), "_asyncio_future_blocking", None) is None:
        follows = getattr(future, "add_done_callback", None)
    job.unheard = follows is None
    if job.unheard and th_word(&job.state) == JOB_AWAY:
        strike(job)
    if follows is not None:
        job.future = future
        follows(job.ended)
        if job.state == JOB_DONE:
            job.future = None
    return 0


cdef bint program_ends():
    """Whether nothing is left but the end of the program. Its pools are shut down then before the exit handlers run,
    and what falls due is not to be run: no error of anybody's. While threads outlast the main one, but for those of the
    pools, the program goes on."""
    if at_exit:
        return True
    if not getattr(threading, "_SHUTTING_DOWN", False):
        return False
    main = threading.main_thread()
    pools = getattr(sys.modules.get("concurrent.futures.thread"), "_threads_queues", ())
    for thread in threading.enumerate():
        if not (thread is main or thread.daemon or thread in pools) and thread.is_alive():
            return False
    return True


cdef int end_jobs(TimerHeap heap) except -1:
    """Call off the jobs that have not begun, and wait for those that have."""
    cdef Job job
    cdef list jobs = list(heap.jobs or ())
    for job in jobs:
        call_off(job)
    for job in jobs:
        await_job(job)
    return 0


cdef int call_off(Job job) except -1:
    cancel = getattr(job.future, "cancel", None)
    cancelled = th_move(&job.state, JOB_WAITS, JOB_OFF)
    try:
        if cancel is not None and cancel() and not cancelled:
            cancelled = th_move(&job.state, JOB_AWAY, JOB_OFF)
    except Exception as exc:                    # of a future of the executor's own make
        report(job.timer.heap, job.on_error, exc, job.timer)
    if cancelled:
        finish(job, JOB_OFF)
    return 0


cdef int await_job(Job job) except -1:
    cdef uint32_t state
    while True:
        state = th_word(&job.state)
        mine = state == JOB_RUNS and job.thread == current_thread()
        if state == JOB_DONE or state == JOB_OFF or mine or job.closing:
            return 0
        if state == JOB_AWAY and job.unheard:
            return 0
        with nogil:
            th_await_word(&job.state, state, signals_at())
        PyErr_CheckSignals()


cdef list enter_close():
    """This thread is going to wait in a close(): whoever waits for its jobs, or its worker, in another need not.
    Returns what leave_close takes."""
    cdef TimerHeap heap
    cdef Job job
    cdef list mine = []
    for heap in live_heaps():
        for job in list(heap.jobs or ()):
            if th_word(&job.state) == JOB_RUNS and job.thread == current_thread():
                job.closing += 1
                th_wake_word(&job.state)
                mine.append(job)
    if th_my_post != NULL:
        th_post_note_closing(th_my_post, 1)
    return mine


cdef void leave_close(list mine) noexcept:
    cdef Job job
    for job in mine:
        job.closing -= 1
    if th_my_post != NULL:
        th_post_note_closing(th_my_post, -1)


cdef void forget_jobs(TimerHeap heap) noexcept:
    """In the child of a fork: an executor's threads are not there, and letting go of what they had would take as long
    as that is."""
    if heap.jobs:
        incref(<PyObject*>heap.jobs)
        heap.jobs = set()
