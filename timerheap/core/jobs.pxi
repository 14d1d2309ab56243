# Jobs: callbacks for an executor.
#
# A Job is what an executor gets for a due timer. It is in one of these states, and leaves WAITS once:
#
#   WAITS   handed over, not begun
#   RUNS    an executor's thread runs it in this process
#   CLOSES  that thread is in a close() itself, and RUNS again after it
#   AWAY    pickled, for an executor with other processes: begun, as far as anybody here can tell
#   DONE    over, and reported if it failed
#   OFF     called off by close() before it had begun: whoever runs it finds nothing to do
#
# close() calls off what waits, and waits for what has begun: but not for jobs of its own thread (its caller for one;
# with greenlets there may be several), not for those whose thread is waiting in a close() itself (two that close each
# other's heaps do not stand still for ever), and not for what is away and whose end no future tells. Whatever a job's
# future ends with that the job has not reported itself (it could not be pickled, the pool broke or was shut down) is
# reported when it ends.
#
# Without a GIL several threads meet in a job: what they all touch, but for the state, they touch in its critical
# section.
#
# A periodic timer's next job is not submitted before the last one is over, called off, or away where nothing tells its
# end.

cdef str SUBMIT = "submit", EXCEPTION = "exception"


cdef enum:
    JOB_WAITS
    JOB_RUNS
    JOB_CLOSES
    JOB_AWAY
    JOB_DONE
    JOB_OFF


@cython.final
cdef class Job:
    """A due timer's callback, for an executor to call, here or pickled in another process."""

    cdef Timer timer
    cdef object subject         # whose error it would be: the timer, or a TimerArray
    cdef object hook            # the heap's on_error at the hand-over, see hook_for
    cdef object future          # what submit has returned
    cdef bint unwanted          # a close() calls it off
    cdef bint unheard           # that says nothing of its end: what is AWAY then, nobody waits for
    cdef uint32_t state         # a word to wait for
    cdef unsigned long thread   # that runs it
    cdef uint64_t call          # of a periodic timer: what ends with the job, see end_call

    def __call__(self):
        cdef PyObject* context = NULL
        if not begin(self, JOB_WAITS):
            return
        if enter_fresh_context(&context):
            exc = failure(invoke(&self.timer.t), <PyObject*>self.timer.t.func)
            leave_context(&context)
        else:
            exc = take_exception()
        if exc is not None:
            report(self.timer.heap, hook_for(self), exc, self.subject)
        finish(self, JOB_DONE)

    def __reduce__(self):
        """For another process, which gets the function and its arguments alone; its errors come back by the future."""
        from functools import partial
        cdef th_timer* t = &self.timer.t
        cdef th_block* block
        if not th_move(&self.state, JOB_WAITS, JOB_AWAY) and th_word(&self.state) != JOB_AWAY:
            return partial, (int,)      # called off: nothing to do there
        with cython.critical_section(self):     # in which follow looks whether it is away: one of the two strikes it
            unheard = self.unheard
        if unheard:
            strike(self)
        args = []
        if isinstance(self.subject, TimerArray) and isinstance(<object><PyObject*>t.args, memoryview):
            return partial, (run_slots_away, <object><PyObject*>t.func, bytes(<object><PyObject*>t.args))
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
        cdef bint cancelled
        if not (begin(self, JOB_WAITS) or begin(self, JOB_AWAY)):
            return
        result = call_method(<PyObject*>future, <PyObject*>EXCEPTION, NULL)
        cancelled = result == NULL      # it raises then
        if cancelled:
            exc = take_exception()
        else:
            exc = <object>result
            decref(result)
        with cython.critical_section(self):
            unwanted = self.unwanted
        if exc is not None and not (cancelled and unwanted):
            report(self.timer.heap, hook_for(self), exc, self.subject)
        finish(self, JOB_DONE)


def run_away(context, func, *args):
    """What a Job comes down to in another process. Nothing is sent back but an exception."""
    from contextvars import Context
    result = (Context() if context is None else context).run(func, *args)
    if isinstance(result, (Coroutine, Generator, AsyncGenerator)):
        raise never_run(result, func)


def run_slots_away(func, slots):
    """What the Job of an array comes down to there: no memoryview can be pickled."""
    run_away(None, func, memoryview(slots).cast("I"))


cdef object hook_for(Job job):
    """Who is told of a job's error: the heap's on_error as it is now; as it was at the hand-over, once the heap has
    been closed and has let go of it."""
    cdef TimerHeap heap = job.timer.heap
    with cython.critical_section(heap):
        hook = heap.hook if heap.executor is not None else job.hook
    return hook


cdef bint begin(Job job, uint32_t state):
    """Whether this thread has taken the job out of that state, to run it or to report how it has ended."""
    with cython.critical_section(job):
        begun = th_move(&job.state, state, JOB_RUNS)
        if begun:
            job.thread = current_thread()
    return begun


cdef int strike(Job job) except -1:
    """Nobody waits for the job any more."""
    end_call(job.timer, job.call)
    if job.timer.heap.jobs is not None:         # else the collector has cleared it
        job.timer.heap.jobs.discard(job)
    return 0


cdef int finish(Job job, uint32_t state) except -1:
    strike(job)
    with cython.critical_section(job):
        future, job.future = job.future, None
        th_set_word(&job.state, state)
    return 0


cdef void hand_over(TimerHeap heap, Timer timer, uint64_t call, object subject) noexcept:
    cdef PyObject* result
    cdef Job job = Job.__new__(Job)
    job.timer = timer
    job.subject = subject
    job.hook = hook_of(heap)
    job.call = call
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
        report(heap, hook_for(job), exc, subject)


cdef int follow(Job job, future) except -1:
    """Hear of the end of a job's future, if it is one (asyncio's may be touched in its loop's thread only)."""
    follows = None
    if getattr(type(future), "_asyncio_future_blocking", None) is None:
        follows = getattr(future, "add_done_callback", None)
    with cython.critical_section(job):
        state = th_word(&job.state)
        job.unheard = follows is None
        if follows is not None and state != JOB_DONE and state != JOB_OFF:
            job.future = future         # until finish
    if follows is not None:
        follows(job.ended)
    elif state == JOB_AWAY:
        strike(job)
    return 0


# ---- the end of a heap, and a fork ----------------------------------------------------------------------------------

cdef bint end_jobs(TimerHeap heap, int64_t until) except -1:
    """Call off the jobs that have not begun, and wait for those that have until the absolute time, TH_NEVER for ever:
    False when some of them are not over by then."""
    cdef Job job
    cdef bint over = True
    cdef list jobs = list(heap.jobs or ())
    for job in jobs:
        call_off(job)
    for job in jobs:
        over = await_job(job, until) and over
    return over


cdef int call_off(Job job) except -1:
    with cython.critical_section(job):
        job.unwanted = True
        future = job.future
    cancel = getattr(future, "cancel", None)
    cancelled = th_move(&job.state, JOB_WAITS, JOB_OFF)
    try:
        if cancel is not None and cancel() and not cancelled:
            cancelled = th_move(&job.state, JOB_AWAY, JOB_OFF)
    except Exception as exc:                    # of a future of the executor's own make
        report(job.timer.heap, hook_for(job), exc, job.subject)
    if cancelled:
        finish(job, JOB_OFF)
    return 0


cdef bint await_job(Job job, int64_t until) except -1:
    cdef uint32_t state
    cdef bint late = False
    while not late:
        late = th_monotonic() >= until      # as await_end does
        with cython.critical_section(job):
            state = th_word(&job.state)
            mine = state == JOB_RUNS and job.thread == current_thread()
            untold = state == JOB_AWAY and job.unheard
        if state == JOB_DONE or state == JOB_OFF or state == JOB_CLOSES or mine or untold:
            return True
        with nogil:
            th_await_word(&job.state, state, min(until, signals_at()))
        PyErr_CheckSignals()
    return False


cdef void note_closing(th_core* c, int by) noexcept nogil:
    """Takes M."""
    th_lock(c)
    c.closing += by
    th_unlock(c)


cdef list enter_close():
    """This thread is going to wait in a close(): whoever waits for its jobs, its worker, or its turn of a loop's heap,
    in another need not. Returns what leave_close takes."""
    cdef TimerHeap heap
    cdef Job job
    cdef list mine = []
    for heap in live_heaps():
        if looped(heap.core) and heap.core.advancer == th_thread():
            note_closing(heap.core, 1)
            mine.append(heap)
        for job in list(heap.jobs or ()):
            with cython.critical_section(job):
                closes = job.thread == current_thread() and th_move(&job.state, JOB_RUNS, JOB_CLOSES)
            if closes:
                th_wake_word(&job.state)
                mine.append(job)
    if th_my_post != NULL:
        th_post_note_closing(th_my_post, 1)
    return mine


cdef void leave_close(list mine) noexcept:
    for waits in mine:
        if isinstance(waits, Job):
            th_move(&(<Job>waits).state, JOB_CLOSES, JOB_RUNS)
        else:
            note_closing((<TimerHeap>waits).core, -1)
    if th_my_post != NULL:
        th_post_note_closing(th_my_post, -1)


cdef void forget_jobs(TimerHeap heap) noexcept:
    """In the child of a fork: an executor's threads are not there, and letting go of what they had would take as long
    as that is."""
    if heap.jobs:
        incref(<PyObject*>heap.jobs)
        heap.jobs = set()
