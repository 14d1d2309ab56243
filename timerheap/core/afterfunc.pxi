# AfterFunc and every: a function timer in one call, without a Python frame or an argument tuple. That of every is one
# that its launch arms anew, as timerproc does where period > 0.

cdef const char* AFTER_FUNC_DOC = b"""AfterFunc(delay, func, /, *args, context=None, heap=None)
--

Call func(*args) once, delay seconds from now, on the heap's worker thread. Returns the Timer.

delay is in seconds: an int, a float, anything with __float__, or a datetime.timedelta; zero and
less is due at once, inf is never. A float that is nearest to a whole number of nanoseconds is that
number, any other is rounded up. The call is made in context, a contextvars.Context, or else in an
empty one. Keyword arguments for func go through functools.partial. The timer fires whether or not
its handle is kept; stop() of the handle cancels it, reset() arms it anew, postpone() only if it is
pending.

Raises TypeError for a func that cannot be called and a delay that is no real number, ValueError for
NaN, RuntimeError for a closed heap."""


cdef const char* EVERY_DOC = b"""every(period, func, /, *args, context=None, heap=None)
--

Call func(*args) every period seconds, first after one period, on the heap's worker thread. Returns
the Timer: its stop() ends the calls, True if they were going on, from inside func as well; one that
has begun, or was handed to an executor, it does not call back. reset(period) changes the period,
postpone(period) too, if the calls are going on.

The deadlines are exactly on the grid start + k * period. A call that has been missed is dropped,
not made up, and there are never two at once: where an executor, or a thread that has lost the
worker's post, still runs the last call, the next is skipped. An exception that func raises is
reported, and the next call comes all the same. period is a positive duration. The calls are made in
context, a contextvars.Context, or else each in an empty one. Keyword arguments for func go through
functools.partial. The calls go on whether or not the handle is kept, until stop() or the end of the
heap.

Raises TypeError for a func that cannot be called and a period that is no real number, ValueError for
one that is not positive and for NaN, RuntimeError for a closed heap."""


cdef int after_func_keywords(bint periodic, PyObject** values, PyObject* kwnames, PyObject** context,
                             PyObject** heap) except -1:
    cdef Py_ssize_t i
    cdef PyObject* name
    for i in range(PyTuple_GET_SIZE(kwnames)):
        name = PyTuple_GET_ITEM(kwnames, i)
        if values[i] == <PyObject*>None and PyUnicode_Compare(name, b"context") == 0:
            continue
        if PyUnicode_Compare(name, b"context") == 0:
            if not PyContext_CheckExact(values[i]):
                raise TypeError(f"{maker(periodic)}() context must be a contextvars.Context, as copy_context() gives "
                                f"one, not {type(<object>values[i]).__name__}")
            context[0] = values[i]
        elif PyUnicode_Compare(name, b"heap") == 0:
            heap[0] = values[i]
        else:
            refuse_keyword(periodic, <str><object>name)
    return 0


cdef inline int read_call(bint periodic, PyObject** args, Py_ssize_t nargs, PyObject* kwnames, PyObject** context,
                          PyObject** heap) except -1:
    """What a call gives by keyword; TypeError for one that cannot be right."""
    if nargs < 2:
        refuse_too_few(periodic, args, nargs, kwnames)
    if kwnames != NULL:
        after_func_keywords(periodic, args + nargs, kwnames, context, heap)
    if not PyCallable_Check(args[1]):
        refuse_func(periodic, <object>args[0], <object>args[1])
    return 0


cdef PyObject* after_func(PyObject* module, PyObject** args, Py_ssize_t nargs, PyObject* kwnames) except NULL:
    """AfterFunc, without a Python frame or an argument tuple."""
    cdef PyObject* context = NULL
    cdef PyObject* where = NULL
    cdef TimerHeap heap
    cdef Timer timer
    cdef int64_t ns = 0
    read_call(False, args, nargs, kwnames, &context, &where)
    to_ns(<object>args[0], &ns, b"AfterFunc() delay")
    heap = current_default() if where == NULL else heap_or_default(<object>where, "AfterFunc()")
    timer = new_timer(heap)
    if nargs == 3 and context == NULL:
        incref(args[2])
        timer.t.args = args[2]
        timer.t.flags = TH_ARGS_ONE
    elif nargs > 2 or context != NULL:
        timer.t.args = new_block(args + 2, nargs - 2, context, 0)
        timer.t.flags = TH_ARGS_BLOCK
    incref(args[1])
    timer.t.func = args[1]
    if always_tracked(heap.core):
        gc_track(<PyObject*>timer)
    arm(heap, <PyObject*>timer, &timer.t, ns)
    incref(<PyObject*>timer)
    return <PyObject*>timer


cdef PyObject* every_func(PyObject* module, PyObject** args, Py_ssize_t nargs, PyObject* kwnames) except NULL:
    """every, likewise."""
    cdef PyObject* context = NULL
    cdef PyObject* where = NULL
    cdef TimerHeap heap
    cdef Timer timer
    cdef int64_t ns
    read_call(True, args, nargs, kwnames, &context, &where)
    ns = positive_period(<object>args[0], b"every() period")
    heap = current_default() if where == NULL else heap_or_default(<object>where, "every()")
    timer = new_timer(heap)
    timer.t.args = new_block(args + 2, nargs - 2, context, sizeof(th_periodic))
    timer.t.flags = TH_ARGS_BLOCK | TH_PERIODIC
    incref(args[1])
    timer.t.func = args[1]
    gc_track(<PyObject*>timer)
    rearm_grid(timer, ns, True)
    incref(<PyObject*>timer)
    return <PyObject*>timer


cdef PyMethodDef after_func_method
after_func_method.ml_name = b"AfterFunc"
after_func_method.ml_meth = <PyCFunction><void*>after_func
after_func_method.ml_flags = METH_FASTCALL | METH_KEYWORDS
after_func_method.ml_doc = AFTER_FUNC_DOC

AfterFunc = PyCFunction_NewEx(&after_func_method, NULL, "timerheap")

cdef PyMethodDef every_method
every_method.ml_name = b"every"
every_method.ml_meth = <PyCFunction><void*>every_func
every_method.ml_flags = METH_FASTCALL | METH_KEYWORDS
every_method.ml_doc = EVERY_DOC

every = PyCFunction_NewEx(&every_method, NULL, "timerheap")
