# LoopTimers: the timers of one asyncio event loop.
#
# A heap as any other, with three differences. Nobody waits for it: the loop is its worker. Its deadlines are doubles,
# on whatever clock the loop has, and its keys their bits (th_key_of_double): so when() is what was passed. And under a
# GIL it has no mutex.
#
# Who asks for what is due, and knows when that will be, is one of two:
#
#   a selector    of EventLoop: its select() waits for the earlier of the two, the loop's files and this heap, and
#                 reports what is due as one event more, behind those of the files, whose handler is the LoopTimers
#   a plan        of any other loop, by public methods alone: its call_later for the earliest deadline, planned anew
#                 where something earlier is armed
#
# Firing. What is due is collected as one run, sorted by deadline and arming, and called one after another. What the
# callbacks arm waits for the next run, so the loop's files get their turn in between. A callback that lets
# KeyboardInterrupt or SystemExit out leaves the rest of the run to the next call: run_head says how far it has come,
# also for a nested one.
#
# The clock is the loop's time(). Where that is asyncio's own, time.monotonic() is read without it; that it still is,
# and that nobody has put another clock in the place of time.monotonic(), is looked at each time: the version of the
# loop's type, and whether the loop's own attributes and two modules' globals may have changed. The version says as well
# that the class may have got another call_at or call_later, which the loop's own must not stand before then.

cdef str TIME = "time", MONOTONIC = "monotonic", CALL_AT = "call_at", CALL_LATER = "call_later"


cdef inline int call_items(th_loop_handle* h, PyObject* func, PyObject** args, Py_ssize_t nargs) except -1:
    """h will call func with these arguments."""
    if nargs == 1:
        incref(args[0])
        h.t.args = args[0]
        h.t.flags |= TH_ARGS_ONE
    elif nargs:
        h.t.args = new_block(args, nargs, NULL, 0)
        h.t.flags |= TH_ARGS_BLOCK
    incref(func)
    h.t.func = func
    return 0


cdef inline object loop_arm(LoopTimers timers, double when, PyObject* func, PyObject** args, Py_ssize_t nargs,
                            PyObject* context, bint copies):
    """An armed handle. It is called in that context; NULL: with copies, as in a copy of the present one, else in none
    of its own."""
    handle = th_new_loop_handle(<PyTypeObject*>LoopHandle)
    cdef th_loop_handle* h = <th_loop_handle*><PyObject*>handle
    init_loop_handle(h, timers, when)
    if copies:
        take_present_context(h, timers)
    elif context != NULL:
        incref(context)
        h.context = context
    call_items(h, func, args, nargs)
    if arm_loop_handle(h):
        try:
            timers.plan()
        except BaseException:
            cancel_loop_handle(h)
            raise
    return handle


cdef inline int as_seconds(PyObject* value, double* seconds) except -1:
    if PyFloat_CheckExact(<object>value):
        seconds[0] = PyFloat_AS_DOUBLE(<object>value)
        return 0
    seconds[0] = int_as_double(value) if PyLong_CheckExact(value) else float_as_double(<object>value)
    return raise_pending() if seconds[0] == -1 else 0


cdef inline bint usual_call(LoopTimers self, PyObject** args, Py_ssize_t nargs, PyObject* kwnames,
                            PyObject** context) except -1:
    """Whether a call of call_at or call_later is one that is made here. context: NULL for a copy."""
    cdef PyObject* given
    context[0] = NULL
    if nargs < 2 or self.closed or self.loop.debug or self.loop.planning:
        return False
    if type_version(<PyObject*>self.owner) != self.version or self.version == 0:
        examine_class(self)
        if dict_get(self.attributes, CALL_AT) == NULL:
            return False
    if kwnames != NULL and PyTuple_GET_SIZE(kwnames):
        if PyTuple_GET_SIZE(kwnames) > 1 or PyUnicode_Compare(PyTuple_GET_ITEM(kwnames, 0), b"context") != 0:
            return False
        given = args[nargs]
        if given != <PyObject*>None:
            if not PyContext_CheckExact(given):
                return False
            context[0] = given
    return True


cdef object unusual_call(LoopTimers self, str name, PyObject** args, Py_ssize_t nargs, PyObject* kwnames):
    """As the method of the loop's class does it, which has a signature, and checks in debug mode; or whatever has come
    into its place."""
    cdef Py_ssize_t i
    positional = [<object>args[i] for i in range(nargs)]
    named = {}
    if kwnames != NULL:
        for i in range(PyTuple_GET_SIZE(kwnames)):
            named[<object>PyTuple_GET_ITEM(kwnames, i)] = <object>args[nargs + i]
    if dict_get(self.attributes, name) == NULL:
        return getattr(self.owner, name)(*positional, **named)
    return getattr(type(self.owner), name)(self.owner, *positional, **named)


cdef object loop_call_at(PyObject* timers, PyObject** args, Py_ssize_t nargs, PyObject* kwnames):
    """loop.call_at(when, callback, *args, context=None), in the loop's own dict."""
    cdef LoopTimers self = <LoopTimers>timers
    cdef PyObject* context
    cdef double when = 0
    if usual_call(self, args, nargs, kwnames, &context):
        as_seconds(args[0], &when)
        return loop_arm(self, when, args[1], args + 2, nargs - 2, context, context == NULL)
    return unusual_call(self, CALL_AT, args, nargs, kwnames)


cdef object loop_call_later(PyObject* timers, PyObject** args, Py_ssize_t nargs, PyObject* kwnames):
    """loop.call_later(delay, callback, *args, context=None), likewise."""
    cdef LoopTimers self = <LoopTimers>timers
    cdef PyObject* context
    cdef double delay = 0
    if usual_call(self, args, nargs, kwnames, &context):
        as_seconds(args[0], &delay)
        return loop_arm(self, loop_time(self) + delay, args[1], args + 2, nargs - 2, context, context == NULL)
    return unusual_call(self, CALL_LATER, args, nargs, kwnames)


cdef PyMethodDef loop_call_at_method
loop_call_at_method.ml_name = b"call_at"
loop_call_at_method.ml_meth = <PyCFunction><void*>loop_call_at
loop_call_at_method.ml_flags = METH_FASTCALL | METH_KEYWORDS
loop_call_at_method.ml_doc = b"call_at(when, callback, *args, context=None)\n--\n\nCall it at that loop time."

cdef PyMethodDef loop_call_later_method
loop_call_later_method.ml_name = b"call_later"
loop_call_later_method.ml_meth = <PyCFunction><void*>loop_call_later
loop_call_later_method.ml_flags = METH_FASTCALL | METH_KEYWORDS
loop_call_later_method.ml_doc = b"call_later(delay, callback, *args, context=None)\n--\n\nCall it in so many seconds."


# ---- the clock ------------------------------------------------------------------------------------------------------

cdef int examine_class(LoopTimers self) except -1:
    """What the loop's class says of its time(), call_at() and call_later()."""
    method = getattr(type(self.owner), TIME)
    self.version = type_version(<PyObject*>self.owner)
    self.native_clock = self.is_monotonic(method)
    self.make_way()
    return 0


cdef bint names_differ(LoopTimers self) except -1:
    """Whether somebody has put another clock in the place of time.monotonic(), another module in that of time, or
    another time() in the loop."""
    th_watch_names(&self.loop.names, self.loop.dicts)
    if (dict_get(self.time_module, MONOTONIC) == <PyObject*>self.monotonic
            and dict_get(self.base_module, TIME) == <PyObject*>self.time and dict_get(self.attributes, TIME) == NULL):
        return False
    th_forget_names(&self.loop.names)       # to be looked at again
    return True


cdef inline double loop_time(LoopTimers self) except? -1:
    """loop.time()"""
    if type_version(<PyObject*>self.owner) != self.version or self.version == 0:
        examine_class(self)
    if self.native_clock and not (th_names_may_differ(&self.loop.names, self.loop.dicts) and names_differ(self)):
        return to_seconds(th_monotonic())
    return self.owner.time()


# ---- what is due ----------------------------------------------------------------------------------------------------

cdef int collect_due(LoopTimers self) except -1:
    """What is due by now joins the run. The root is clean after that."""
    cdef th_core* c = &self.loop.core
    cdef double now
    if c.len == 0:
        return 0
    now = loop_time(self)
    if c.rising == 0 and th_double_of_key(c.keys[0].when) > now and c.keys[0].timer.state == TH_ARMED:
        return 0                        # which most often is so
    th_lock(c)
    collect(c, th_key_of_double(now))
    th_unlock(c)
    return 0


cdef inline bint run_waits(LoopTimers self) noexcept:
    return self.loop.core.run_head < self.loop.core.run_len


cdef double next_deadline(LoopTimers self) except? -1:
    """When something will be due: -inf if it is, inf if nothing will be."""
    cdef th_core* c = &self.loop.core
    drop_lonely_snapshot(self)
    collect_due(self)
    if run_waits(self):
        return -INFINITY
    return th_double_of_key(c.keys[0].when) if c.len else INFINITY


cdef inline void fetch_call(th_loop_handle* h) noexcept:
    """Ask for what a handle calls."""
    prefetch(h.t.func)
    prefetch(h.t.args)
    prefetch(h.context)


cdef th_loop_handle* next_of_run(th_core* c, bint fire) noexcept:
    """Settle the next entry of the run. Its handle, with the heap's reference, if it is to be called."""
    cdef th_timer* t
    cdef uint16_t state
    cdef bint idle
    while c.run_head < c.run_len:
        if c.run_head + PREFETCH < c.run_len:
            prefetch(c.run[c.run_head + PREFETCH].timer)
            if not FREE_THREADED:
                fetch_call(th_handle_of_loop(c.run[c.run_head + PREFETCH // 2].timer))
        enter_loop(c)
        t = settle(c, fire, &state, &idle)
        leave_loop(c)
        if state == TH_DUE:
            return th_handle_of_loop(t)
        give_up(th_handle_of_loop(t))
    enter_loop(c)
    if c.run_len:
        end_run(c)
    leave_loop(c)
    return NULL


cdef int fire_due(LoopTimers self) except -1:
    """Call what is due."""
    cdef th_core* c = &self.loop.core
    cdef th_loop_handle* h
    cdef PyObject* result
    cdef PyObject* copy = NULL
    self.announced = False
    if not run_waits(self):
        collect_due(self)
    th_lock(c)
    sort_run(c)
    th_unlock(c)
    try:
        while True:
            h = next_of_run(c, True)
            if h == NULL:
                return 0
            result = call_loop_handle(h, &copy)
            if result == NULL:
                try:
                    report_loop_error(h)
                finally:
                    give_up(h)
            else:
                decref(result)
                give_up(h)
    finally:
        xdecref(copy)


cdef list take_due(LoopTimers self):
    """The handles of what is due, for somebody else to run."""
    cdef th_core* c = &self.loop.core
    cdef th_loop_handle* h
    cdef list handles = []
    self.announced = False
    collect_due(self)
    th_lock(c)
    sort_run(c)
    th_unlock(c)
    while True:
        h = next_of_run(c, True)
        if h == NULL:
            return handles
        handles.append(<object><PyObject*>h)
        give_up(h)


cdef void show_all(LoopTimers self) noexcept:
    """The loop has stopped: what was hidden is shown to the collector."""
    cdef th_core* c = &self.loop.core
    cdef size_t i
    i = 0
    while self.loop.hidden and i < c.len:
        if i + PREFETCH < c.len:
            prefetch(c.keys[i + PREFETCH].timer)
        if c.keys[i].timer.state == TH_ARMED and c.keys[i].timer.flags & TH_HIDDEN:
            show(th_handle_of_loop(c.keys[i].timer))
        i += 1
    i = c.run_head
    while self.loop.hidden and i < c.run_len:
        if c.run[i].timer.flags & TH_HIDDEN:
            show(th_handle_of_loop(c.run[i].timer))
        i += 1


cdef void let_loop_go(LoopTimers self) noexcept:
    """Nothing is armed any more. What is dropped may run finalizers, which find the heap in order."""
    cdef th_core* c = &self.loop.core
    cdef th_loop_handle* h
    cdef th_timer* t
    while True:
        h = next_of_run(c, False)
        if h == NULL:
            break
        give_up(h)
    while True:
        enter_loop(c)
        t = cancel_last(c)
        leave_loop(c)
        if t == NULL:
            return
        give_up(th_handle_of_loop(t))


# ---- waiting for files as well --------------------------------------------------------------------------------------

cdef enum:
    EVENTS_MAX = 256        # files of one wait; the others are ready for the next
    EVENT_READ = 1          # of selectors
    EVENT_WRITE = 2


cdef int64_t ns_until(LoopTimers self, double deadline, double longest) except? -1:
    """For how long to wait, negative for ever, neither beyond the deadline nor for longer than that, in seconds."""
    cdef double left = longest
    if deadline < INFINITY:
        left = min(left, deadline - loop_time(self)) if deadline > -INFINITY else 0
    if left == INFINITY:
        return -1
    return th_from_seconds(left) if left > 0 else 0


cdef list ready_files(dict keys, epoll_event* events, int n):
    """What a selector's select() returns: keys with the events that have come."""
    cdef list ready = []
    cdef PyObject* key
    cdef int i, mask
    for i in range(n):
        key = dict_get(keys, events[i].data.fd)
        if key == NULL:
            continue
        mask = 0
        if events[i].events & ~EPOLLIN:
            mask |= EVENT_WRITE
        if events[i].events & ~EPOLLOUT:
            mask |= EVENT_READ
        ready.append((<object>key, mask & (<tuple><object>key)[2]))
    return ready


cdef PyObject* last_timers      # those that were asked for last, see loop_waits.pxi


cdef class LoopTimers:
    """The timers of one event loop. timerheap.asyncio makes subclasses, with what is seldom and better done in Python:
    TimerHandle, report(handle, exception), note_cancel(handle), plan(), is_monotonic(time method), make_way()."""

    _cancelled = False                      # to the loop it is a handle to run, see _run
    _callback = None                        # by which the loop names it

    def __cinit__(self, *args, **kwargs):
        cdef bint roomy
        self.loop = <th_loop*>calloc(1, sizeof(th_loop))
        if self.loop == NULL:
            raise MemoryError()
        th_init_locks(&self.loop.core)
        th_lock(&self.loop.core)
        roomy = resize_keys(&self.loop.core, th_page) and reserve_run(&self.loop.core, 1)
        th_unlock(&self.loop.core)
        if not roomy:
            raise MemoryError()
        self.loop.core.running = self.loop.core.ready = True
        self.set_names({}, {}, {})

    def __dealloc__(self):
        global last_timers
        if last_timers == <PyObject*>self:
            last_timers = NULL
        if self.loop != NULL:
            th_core_unmap(&self.loop.core)
            th_destroy_locks(&self.loop.core)
            free(self.loop)

    cdef int set_names(self, dict attributes, dict time_module, dict base_module) except -1:
        self.attributes = attributes
        self.time_module = time_module
        self.base_module = base_module
        self.loop.dicts[0] = <PyObject*>attributes
        self.loop.dicts[1] = <PyObject*>time_module
        self.loop.dicts[2] = <PyObject*>base_module
        th_forget_names(&self.loop.names)
        return 0

    def attach(self, loop, dict attributes, module):
        """These are the timers of loop, whose attributes are in that dict. module: where asyncio's own time() looks up
        the module time."""
        self.owner = loop
        self.set_names(attributes, vars(module.time), vars(module))
        self.time = module.time
        monotonic = module.time.monotonic
        if type(monotonic) is type(len):        # else another is in its place as yet
            self.monotonic = monotonic

    def methods(self):
        """call_at and call_later for the loop's dict."""
        return (PyCFunction_NewEx(&loop_call_at_method, <PyObject*>self, None),
                PyCFunction_NewEx(&loop_call_later_method, <PyObject*>self, None))

    def arm(self, when, callback, args, context):
        """A handle, armed."""
        cdef double seconds = 0
        as_seconds(<PyObject*>when, &seconds)
        cdef tuple items = tuple(args)
        return loop_arm(self, seconds, <PyObject*>callback, tuple_items(<PyObject*>items), len(items),
                        NULL if context is None else <PyObject*>context, context is None)

    def next_deadline(self):
        """When something will be due, on the loop's clock: -inf if it is, inf if nothing will be."""
        return next_deadline(self)

    def due(self):
        """Whether something is."""
        return next_deadline(self) == -INFINITY

    def select(self, int file, dict keys, timeout):
        """An epoll selector's select(timeout), with that file descriptor and those keys, by theirs; it waits no longer
        than until something is due here."""
        cdef epoll_event events[EVENTS_MAX]
        cdef double longest = INFINITY if timeout is None else timeout
        cdef int64_t ns = ns_until(self, next_deadline(self), longest)
        cdef int n
        with nogil:
            n = th_epoll_wait(file, events, EVENTS_MAX, ns)
        if n >= 0:
            return ready_files(keys, events, n)
        if errno != EINTR:
            raise_errno(<PyObject*>OSError)
        PyErr_CheckSignals()
        return []

    def wait_for(self, deadline):
        """plan() is called from now on where something is armed that is earlier."""
        enter_loop(&self.loop.core)
        self.loop.core.wake_at = th_key_of_double(deadline)
        leave_loop(&self.loop.core)

    def fire(self):
        """Call what is due, in order."""
        fire_due(self)

    _run = fire

    def take(self):
        """The handles of what is due, in order, for somebody else to run."""
        return take_due(self)

    def begin(self):
        """The loop runs from now on."""
        self.loop.running += 1

    def end(self):
        """And no longer."""
        self.loop.running -= 1
        if self.loop.running == 0:
            show_all(self)
            drop_lonely_snapshot(self)

    def close(self):
        """The loop is closed: nothing is armed any more."""
        self.closed = True
        let_loop_go(self)

    @property
    def debug(self):
        return bool(self.loop.debug)

    @debug.setter
    def debug(self, bint debug):
        self.loop.debug = debug

    @property
    def planning(self):
        return bool(self.loop.planning)

    @planning.setter
    def planning(self, bint planning):
        self.loop.planning = planning

    def __len__(self):
        return self.loop.core.live

    def __bool__(self):
        return True

    @property
    def nbytes(self):
        """Bytes of the heap's own memory, handles left out."""
        th_lock(&self.loop.core)
        native = native_bytes(&self.loop.core)
        th_unlock(&self.loop.core)
        return native

    def stats(self):
        """arms == fired + cancelled + armed"""
        cdef th_core* c = &self.loop.core
        return {"armed": c.live, "arms": c.seq, "fired": c.fired, "cancelled": c.cancelled, "peak": c.peak,
                "batches": c.runs, "hidden": self.loop.hidden, "nbytes": self.nbytes}

    def check(self):
        """Walk every invariant of the heap; AssertionError for the first one broken."""
        cdef fault f
        cdef bint good
        th_lock(&self.loop.core)
        good = check_heap(&self.loop.core, &f)
        th_unlock(&self.loop.core)
        if not good:
            raise AssertionError(f"{f.what.decode()} at index {f.index}: {f.left} and {f.right}")


# ---- what the collector is shown ------------------------------------------------------------------------------------

cdef int (*loop_fields_traverse)(PyObject* self, visitproc visit, void* arg) noexcept
cdef int (*loop_fields_clear)(PyObject* self) noexcept


cdef int loop_timers_traverse(PyObject* self, visitproc visit, void* arg) noexcept:
    cdef th_loop* loop = (<LoopTimers>self).loop
    cdef int result = loop_fields_traverse(self, visit, arg)
    cdef size_t i
    if loop == NULL or loop.running:
        return result
    for i in range(loop.core.len):
        if result == 0 and loop.core.keys[i].timer.state == TH_ARMED:
            result = visit(<PyObject*>th_handle_of_loop(loop.core.keys[i].timer), arg)
    for i in range(loop.core.run_head, loop.core.run_len):
        if result == 0:
            result = visit(<PyObject*>th_handle_of_loop(loop.core.run[i].timer), arg)
    return result


cdef int loop_timers_clear(PyObject* self) noexcept:
    if (<LoopTimers>self).loop != NULL:
        let_loop_go(<LoopTimers>self)
    return loop_fields_clear(self)
