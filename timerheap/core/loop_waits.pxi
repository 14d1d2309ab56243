# Waiting in a task: timeout(), timeout_at() and sleep() of timerheap.asyncio, without a frame of Python.
#
# The timers. What a task waits for is armed in the LoopTimers of the running loop: a loop of ours has one, and any
# other is given one on first use, planned for by its own methods (timers_for of timerheap.asyncio). The last one is
# remembered, but not owned: it is the right one if its owner is the running loop, which as an owner is alive; and it is
# forgotten when it is freed (LoopTimers.__dealloc__). Without a GIL it might be freed in between: each is looked up.
#
# Timeout. The states and what happens in them are those of asyncio.Timeout, of the interpreter that runs. __aenter__
# and __aexit__ have done their work when they return: what they return is to be awaited, and over at once; the Timeout
# itself, which nobody may await at other times, and Nothing. A timer that is armed calls expire_timeout, in no context
# of its own: all that it does is to cancel the task. What has passed is called soon, in its turn; of a deadline that
# timeout() has just computed it is not asked again whether it has.
#
# Sleep. To a task and to asyncio.create_task it is a coroutine, and once it has begun a future as well, that the task
# waits for directly: its wakeup is what the timer calls, in the context that came with it. So there is neither an
# asyncio.Future nor a turn of the loop in between. _asyncio_future_blocking is what asyncio knows futures by; before a
# Sleep has begun it is None, so that wait_for and gather take it for the coroutine that asyncio.sleep() is.
#
#   NEW -> YIELDED       delay <= 0: the task is to step once more
#   NEW -> WAITING       the deadline counts from here; the timer is armed when the task says what to wake up
#   WAITING -> CALLED_OFF  cancel(): the wakeup is called soon, and finds a CancelledError
#   any -> OVER          by its result, throw() or close(); to go on is an error
#
# Names of asyncio are looked up as late as asyncio itself does: programs put others in their place.

cdef dict of_events = {}, of_tasks = {}     # names of asyncio.events and asyncio.tasks
cdef object CancelledError, InvalidStateError, TimeoutKind, timers_for
cdef bint tells_causes                      # from 3.13 on: a TimeoutError in what the CancelledError has become
cdef str GET_RUNNING_LOOP = "get_running_loop", CURRENT_TASK = "current_task", TIMERS = "_native_timers"


def learn_asyncio(events, tasks, timeouts, exceptions, attach):
    """These are asyncio's modules. attach(loop): the LoopTimers of a loop that is none of ours."""
    global of_events, of_tasks, CancelledError, InvalidStateError, TimeoutKind, timers_for, tells_causes
    of_events = vars(events)
    of_tasks = vars(tasks)
    CancelledError = exceptions.CancelledError
    InvalidStateError = exceptions.InvalidStateError
    TimeoutKind = timeouts.Timeout
    timers_for = attach
    tells_causes = sys.version_info >= (3, 13)


cdef LoopTimers find_timers(loop):
    global last_timers
    timers = getattr(loop, TIMERS, None)
    if not isinstance(timers, LoopTimers) or (<LoopTimers>timers).owner is not loop:
        timers = timers_for(loop)
    if not FREE_THREADED:
        last_timers = <PyObject*>timers
    return timers


cdef inline LoopTimers timers_of_running():
    """The LoopTimers of the running loop; RuntimeError if there is none."""
    loop = of_events[GET_RUNNING_LOOP]()
    if not FREE_THREADED and last_timers != NULL and (<LoopTimers>last_timers).owner is loop:
        return <LoopTimers>last_timers
    return find_timers(loop)


# ---- timeouts -------------------------------------------------------------------------------------------------------

@cython.final
@cython.no_gc
cdef class Nothing:
    """Awaited, it is over at once."""

    def __await__(self):
        return self

    def __next__(self):
        raise StopIteration


cdef Nothing NOTHING = Nothing()


cdef enum:
    CREATED, ENTERED, EXPIRING, EXPIRED, EXITED

cdef tuple STATE_NAMES = ("created", "active", "expiring", "expired", "finished")


@cython.final
@cython.freelist(64)
cdef class Timeout:
    """asyncio.Timeout: what timeout() and timeout_at() return."""
    cdef int state
    cdef bint ahead             # the deadline is a moment old, and was not passed then
    cdef bint entering          # __aenter__ has returned this, which is to be awaited
    cdef object deadline        # as it was given; None for never
    cdef object task
    cdef object cancelling      # how many cancellations of the task were under way when it was entered
    cdef object handle          # LoopHandle, or what call_soon returns

    def __init__(self):
        raise TypeError("a Timeout is made by timeout() and timeout_at()")

    @property
    def __class__(self):
        return TimeoutKind

    def when(self):
        """The deadline, in seconds of the loop's time; None for never."""
        return self.deadline

    @cython.critical_section
    def reschedule(self, when):
        """Another deadline, None for never. RuntimeError unless the block is under way."""
        if self.state != ENTERED:
            if self.state == CREATED:
                raise RuntimeError("Timeout has not been entered")
            raise RuntimeError(f"Cannot change state of {STATE_NAMES[self.state]} Timeout")
        schedule(self, when)

    def expired(self):
        """Whether the deadline has passed within the block."""
        return self.state in (EXPIRING, EXPIRED)

    def __repr__(self):
        info = ""
        if self.state == ENTERED:
            info = f" when={None if self.deadline is None else round(self.deadline, 3)}"
        return f"<Timeout [{STATE_NAMES[self.state]}]{info}>"

    @cython.critical_section
    def __aenter__(self):
        if self.state != CREATED:
            raise RuntimeError("Timeout has already been entered")
        task = of_tasks[CURRENT_TASK]()
        if task is None:
            raise RuntimeError("Timeout should be used inside a task")
        self.state = ENTERED
        self.task = task
        self.cancelling = task.cancelling()
        schedule(self, self.deadline)
        self.ahead = False
        self.entering = True
        return self

    def __await__(self):
        if not self.entering:
            refuse_await()
        return self

    def __next__(self):
        if not self.entering:
            refuse_await()
        self.entering = False
        raise StopIteration(self)

    @cython.critical_section
    def __aexit__(self, exc_type, exc_val, exc_tb):
        if self.state != ENTERED and self.state != EXPIRING:
            raise AssertionError("Timeout is not entered")
        unschedule(self)
        if self.state == ENTERED:
            self.state = EXITED
        else:
            self.state = EXPIRED
            if self.task.uncancel() <= self.cancelling and exc_type is not None:
                convert(exc_type, exc_val)
        return NOTHING


cdef int refuse_await() except -1:
    raise TypeError("object Timeout can't be used in 'await' expression")


cdef PyObject* timeout_next(PyObject* self) except? NULL:
    if not (<Timeout>self).entering:
        refuse_await()
    (<Timeout>self).entering = False
    stop_with(<object>self)
    return NULL


cdef int unschedule(Timeout self) except -1:
    handle = self.handle
    if handle is None:
        return 0
    self.handle = None
    if type(handle) is LoopHandle:
        cancel_loop_handle(<th_loop_handle*><PyObject*>handle)
    else:
        handle.cancel()
    return 0


cdef int schedule(Timeout self, when) except -1:
    """What is due already is called soon: in its turn, among what the loop has to do."""
    cdef LoopTimers timers
    cdef double seconds = 0
    cdef PyObject* arg = <PyObject*>self
    self.deadline = when
    unschedule(self)
    if when is None:
        return 0
    timers = timers_of_running()
    as_seconds(<PyObject*>when, &seconds)
    if not self.ahead and seconds <= loop_time(timers):
        self.handle = timers.owner.call_soon(EXPIRE, self)
    else:
        self.handle = loop_arm(timers, seconds, <PyObject*>EXPIRE, &arg, 1, NULL, False)
    return 0


def expire_timeout(Timeout timeout not None):
    """Called by a timer."""
    assert timeout.state == ENTERED
    timeout.task.cancel()
    timeout.state = EXPIRING
    timeout.handle = None


cdef object EXPIRE = expire_timeout


cdef int convert(exc_type, exc_val) except -1:
    """There is no other request to cancel the task: TimeoutError in the place of the CancelledError."""
    if exc_type is CancelledError or tells_causes and issubclass(exc_type, CancelledError):
        raise TimeoutError() from exc_val
    if tells_causes and exc_val is not None:
        insert_timeout_error(exc_val)
        if isinstance(exc_val, ExceptionGroup):
            for exc in exc_val.exceptions:
                insert_timeout_error(exc)
    return 0


cdef int insert_timeout_error(exc) except -1:
    """Before the CancelledError, if an exception was raised while that was handled."""
    while exc.__context__ is not None:
        if isinstance(exc.__context__, CancelledError):
            error = TimeoutError()
            error.__context__ = error.__cause__ = exc.__context__
            exc.__context__ = error
            return 0
        exc = exc.__context__
    return 0


cdef Timeout new_timeout(when):
    cdef Timeout timeout = Timeout.__new__(Timeout)
    timeout.deadline = when
    return timeout


def timeout(delay):
    """asyncio.timeout(delay), native: async with timeout(delay) raises TimeoutError when the block
    takes longer than that, in seconds; None for never.
    """
    cdef LoopTimers timers = timers_of_running()
    cdef Timeout timeout
    cdef double seconds = 0
    if delay is None:
        return new_timeout(None)
    if PyFloat_CheckExact(delay) or PyLong_Check(delay):
        as_seconds(<PyObject*>delay, &seconds)
        timeout = new_timeout(loop_time(timers) + seconds)
        timeout.ahead = seconds > 0 and timers.native_clock
        return timeout
    return new_timeout(timers.owner.time() + delay)


def timeout_at(when):
    """asyncio.timeout_at(when), native: likewise, with a deadline in seconds of the loop's time."""
    return new_timeout(when)


# ---- sleep ----------------------------------------------------------------------------------------------------------

cdef enum:
    NEW, YIELDED, WAITING, CALLED_OFF, OVER


@cython.final
@cython.freelist(64)
cdef class Sleep:
    """What sleep() returns: to be awaited once, by one task."""
    cdef int state
    cdef bint blocking          # _asyncio_future_blocking
    cdef double seconds         # the delay; the deadline, in seconds of the loop's time, once it has begun
    cdef LoopTimers timers
    cdef LoopHandle handle      # armed when there is something to call
    cdef object value           # its result; what cancel() was told, once that was called

    def __init__(self):
        raise TypeError("a Sleep is made by sleep()")

    @staticmethod
    def sleep(delay, result=None):
        """asyncio.sleep(delay, result), native: await sleep(delay) waits for so many seconds, and has
        the result. With none, or fewer, the other tasks get a turn.
        """
        cdef Sleep it = Sleep.__new__(Sleep)
        as_seconds(<PyObject*>delay, &it.seconds)
        if it.seconds != it.seconds:
            raise ValueError("Invalid delay: NaN (not a number)")
        it.value = result
        return it

    # A coroutine.

    @property
    def __qualname__(self):
        return "sleep"

    def __await__(self):
        if self.state != NEW:
            refuse_wait(self)
        return self

    def __next__(self):
        return step_or_stop(self)

    def send(self, value):
        if self.state == NEW and value is not None:
            raise TypeError("can't send non-None value to a just-started sleep()")
        return step_or_stop(self)

    def throw(self, kind, value=None, traceback=None):
        over = self.state == OVER
        self.close()
        if over:
            refuse_wait(self)
        if isinstance(kind, type):
            value = value if isinstance(value, kind) else kind() if value is None else kind(value)
        else:
            value = kind
        raise value if traceback is None else value.with_traceback(traceback)

    @cython.critical_section
    def close(self):
        handle = self.handle
        self.state = OVER
        self.handle = None
        if handle is not None:
            cancel_loop_handle(<th_loop_handle*><PyObject*>handle)

    # A future.

    @property
    def _asyncio_future_blocking(self):
        return bool(self.blocking) if self.state == WAITING or self.state == CALLED_OFF else None

    @_asyncio_future_blocking.setter
    def _asyncio_future_blocking(self, bint blocking):
        self.blocking = blocking

    def get_loop(self):
        return None if self.timers is None else self.timers.owner

    @cython.critical_section
    def add_done_callback(self, fn, *, context=None):
        """Once."""
        cdef PyObject* arg = <PyObject*>self
        cdef PyObject* given = NULL if context is None else <PyObject*>context
        if self.state != WAITING or self.handle is not None:
            refuse_wait(self)
        if given != NULL and not PyContext_CheckExact(given):
            raise TypeError(f"context must be a contextvars.Context, not {type(context).__name__}")
        self.handle = loop_arm(self.timers, self.seconds, <PyObject*>fn, &arg, 1, given, given == NULL)

    @cython.critical_section
    def cancel(self, msg=None):
        cdef LoopHandle handle = self.handle
        if self.state != WAITING or handle is None or fired(self):
            return False
        fn = handle._callback
        context = handle._context
        self.state = CALLED_OFF
        self.handle = None
        self.value = msg
        cancel_loop_handle(<th_loop_handle*><PyObject*>handle)
        self.timers.owner.call_soon(fn, self, context=context)
        return True

    def cancelled(self):
        return self.state == CALLED_OFF

    def done(self):
        return self.state > WAITING or self.state == WAITING and fired(self)

    def result(self):
        if self.state == CALLED_OFF:
            raise CancelledError() if self.value is None else CancelledError(self.value)
        if not self.done():
            raise InvalidStateError("Result is not set.")
        return self.value

    def exception(self):
        self.result()


cdef inline bint fired(Sleep self) noexcept:
    """Whether its timer has."""
    return self.handle is not None and th_state(&self.handle.t) == TH_IDLE


cdef int refuse_wait(Sleep self) except -1:
    raise RuntimeError("cannot reuse already awaited sleep()" if self.state == OVER else
                       "sleep() is being awaited already")


cdef int step_sleep(Sleep self) except -1:
    """Whether it is over now; else it is to be yielded, or None is."""
    if self.state == NEW and self.seconds <= 0:
        self.state = YIELDED
        return False
    if self.state == NEW:
        self.timers = timers_of_running()
        self.seconds += loop_time(self.timers)
        self.state = WAITING
        self.blocking = True
        return False
    if self.state == CALLED_OFF:
        self.result()
    if self.state == OVER or self.state == WAITING and not fired(self):
        refuse_wait(self)
    self.state = OVER
    self.handle = None
    return True


cdef PyObject* step_once(Sleep self) except? NULL:
    """What it yields, a new reference; NULL when it is over."""
    cdef PyObject* yielded = NULL
    with cython.critical_section(self):
        if not step_sleep(self):
            yielded = <PyObject*>None if self.state == YIELDED else <PyObject*>self
            incref(yielded)
    return yielded


cdef PyObject* sleep_next(PyObject* self) except? NULL:
    cdef PyObject* yielded = step_once(<Sleep>self)
    if yielded == NULL:
        stop_with((<Sleep>self).value)
    return yielded


cdef object step_or_stop(Sleep self):
    cdef PyObject* yielded = step_once(self)
    if yielded == NULL:
        raise StopIteration(self.value)
    value = <object>yielded
    decref(yielded)
    return value
