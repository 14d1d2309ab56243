# What is left to do once all is there: the types get the slots that Cython does not write, the module its hooks.

# ---- the shape of calls ---------------------------------------------------------------------------------------------

# These look at the shape of a call before Cython does, which would speak of __cinit__ and __init__ and give no advice.
# Timer and Ticker are called by tp_vectorcall, or by tp_new with a tuple and a dict.

cdef int check_constructor(str what, str argument, bint needed, tuple others, PyObject* args,
                           PyObject* keywords) except -1:
    return check_call(what, argument, needed, others, <tuple><object>args, <object>keywords if keywords != NULL else ())


cdef vectorcallfunc timer_call_unchecked, ticker_call_unchecked
cdef newfunc timer_new_unchecked, ticker_new_unchecked
cdef initproc heap_init_unchecked, manual_init_unchecked
cdef fastcallfunc after_unchecked, tick_unchecked, sleep_unchecked

cdef str HEAP = "heap"              # interned, as the names in calls are


cdef tuple items_of(PyObject* const* items, Py_ssize_t n):
    return tuple([<object>items[i] for i in range(n)])


cdef inline bint usual(Py_ssize_t nargs, PyObject* names) noexcept:
    """One positional argument, and no keyword but heap, as it is written in a call."""
    if nargs != 1:
        return False
    return names == NULL or (PyTuple_GET_SIZE(names) == 1 and PyTuple_GET_ITEM(names, 0) == <PyObject*>HEAP)


cdef PyObject* timer_call(PyObject* type, PyObject* const* args, size_t nargs, PyObject* names) except NULL:
    cdef Py_ssize_t n = PyVectorcall_NARGS(nargs)
    if not usual(n, names):
        check_call("Timer()", "delay", True, ("heap",), items_of(args, n), <object>names if names != NULL else ())
    return timer_call_unchecked(type, args, nargs, names)


cdef PyObject* ticker_call(PyObject* type, PyObject* const* args, size_t nargs, PyObject* names) except NULL:
    cdef Py_ssize_t n = PyVectorcall_NARGS(nargs)
    if not usual(n, names):
        check_call("Ticker()", "period", True, ("heap",), items_of(args, n), <object>names if names != NULL else ())
    return ticker_call_unchecked(type, args, nargs, names)


cdef PyObject* after_call(PyObject* module, PyObject* const* args, Py_ssize_t nargs, PyObject* names) except NULL:
    if not usual(nargs, names):
        check_call("after()", "delay", True, ("heap",), items_of(args, nargs), <object>names if names != NULL else ())
    return after_unchecked(module, args, nargs, names)


cdef PyObject* tick_call(PyObject* module, PyObject* const* args, Py_ssize_t nargs, PyObject* names) except NULL:
    if not usual(nargs, names):
        check_call("tick()", "period", True, ("heap",), items_of(args, nargs), <object>names if names != NULL else ())
    return tick_unchecked(module, args, nargs, names)


cdef PyObject* sleep_call(PyObject* module, PyObject* const* args, Py_ssize_t nargs, PyObject* names) except NULL:
    if nargs != 1 or names != NULL:
        check_call("sleep()", "delay", True, (), items_of(args, nargs), <object>names if names != NULL else ())
    return sleep_unchecked(module, args, nargs, names)


cdef PyObject* timer_new(PyTypeObject* type, PyObject* args, PyObject* keywords) except NULL:
    check_constructor("Timer()", "delay", True, ("heap",), args, keywords)
    return timer_new_unchecked(type, args, keywords)


cdef PyObject* ticker_new(PyTypeObject* type, PyObject* args, PyObject* keywords) except NULL:
    check_constructor("Ticker()", "period", True, ("heap",), args, keywords)
    return ticker_new_unchecked(type, args, keywords)


cdef int heap_init(PyObject* self, PyObject* args, PyObject* keywords) except -1:
    check_constructor("TimerHeap()", "name", False, ("executor", "on_error", "patience", "tolerance"), args, keywords)
    return heap_init_unchecked(self, args, keywords)


cdef int manual_init(PyObject* self, PyObject* args, PyObject* keywords) except -1:
    check_constructor("ManualHeap()", "start", False, ("auto", "name", "on_error"), args, keywords)
    return manual_init_unchecked(self, args, keywords)


# ---- names and signatures -------------------------------------------------------------------------------------------

cdef list published = []                # keeps the C strings below alive


cdef int publish(type cls, str signature) except -1:
    """Give a class its public name and the signature that help() and inspect show."""
    cdef PyTypeObject* t = <PyTypeObject*>cls
    cdef bytes name = f"timerheap.{cls.__name__}".encode()
    cdef bytes doc = f"{cls.__name__}{signature}\n--\n\n{cls.__doc__}".replace("\n    ", "\n").encode()
    published.extend((name, doc))
    t.tp_name = name
    t.tp_doc = doc
    return 0


# ---- all of it ------------------------------------------------------------------------------------------------------

cdef int finish_timer_type() except -1:
    global timer_call_unchecked, timer_new_unchecked
    cdef PyTypeObject* type = <PyTypeObject*>Timer
    assert type.tp_basicsize == TH_TIMER_SIZE
    timer_call_unchecked = change_vectorcall(type, timer_call)
    timer_new_unchecked = change_new(type, timer_new)
    set_iter(type, no_iterator)
    set_alloc(type, <void*>th_alloc_timer)
    type.tp_dealloc = <destructor><void*>timer_dealloc
    type.tp_traverse = <traverseproc><void*>timer_traverse
    type.tp_clear = <inquiry><void*>timer_clear
    th_examine_header(type, sys.getsizeof([]) - [].__sizeof__())
    return 0


cdef int finish_channel_types() except -1:
    global ticker_call_unchecked, ticker_new_unchecked
    global after_unchecked, tick_unchecked, sleep_unchecked
    after_unchecked = change_function(<PyObject*>after, after_call)
    tick_unchecked = change_function(<PyObject*>tick, tick_call)
    sleep_unchecked = change_function(<PyObject*>sleep, sleep_call)
    ticker_call_unchecked = change_vectorcall(<PyTypeObject*>Ticker, ticker_call)
    ticker_new_unchecked = change_new(<PyTypeObject*>Ticker, ticker_new)
    set_iter(<PyTypeObject*>Channel, no_iterator)
    return 0


cdef int finish_array_type() except -1:
    (<PyTypeObject*>TimerArray).tp_clear = <inquiry><void*>array_clear
    return 0


cdef int finish_loop_types() except -1:
    global loop_fields_traverse, loop_fields_clear
    cdef PyTypeObject* handle = <PyTypeObject*>LoopHandle
    cdef PyTypeObject* timers = <PyTypeObject*>LoopTimers
    assert handle.tp_basicsize == TH_LOOP_HANDLE_SIZE
    handle.tp_dealloc = <destructor><void*>loop_handle_dealloc
    handle.tp_traverse = <traverseproc><void*>loop_handle_traverse
    handle.tp_clear = <inquiry><void*>loop_handle_clear
    forbid_new(handle)
    loop_fields_traverse = <int (*)(PyObject*, visitproc, void*) noexcept>timers.tp_traverse
    loop_fields_clear = <int (*)(PyObject*) noexcept>timers.tp_clear
    timers.tp_traverse = <traverseproc><void*>loop_timers_traverse
    timers.tp_clear = <inquiry><void*>loop_timers_clear
    set_next(<PyTypeObject*>Timeout, timeout_next)
    set_next(<PyTypeObject*>Sleep, sleep_next)
    return 0


finish_timer_type()
finish_channel_types()
finish_array_type()
finish_loop_types()
reveal_timers(ManualHeap)
reveal_timers(LoopHeap)
heap_init_unchecked = change_init(<PyTypeObject*>TimerHeap, heap_init)
manual_init_unchecked = change_init(<PyTypeObject*>ManualHeap, manual_init)
add_misnomers(Timer, TIMER_MISNOMERS)
add_misnomers(Ticker, TICKER_MISNOMERS)
add_misnomers(Channel, CHANNEL_MISNOMERS)
publish(TimerHeap, "(name='timerheap', *, executor=None, on_error=None, patience=None, tolerance=0.0)")
publish(Timer, "(delay, *, heap=None)")
publish(TimerArray, "(n, func, /, *, each=False, batch=4096, heap=None)")
publish(Channel, "()")
publish(Ticker, "(period, *, heap=None)")
publish(LoopHeap, "(loop, name)")
publish(ManualHeap, "(start=0.0, *, auto=False, name='manual', on_error=None)")
ASKS_FOR_GIL = th_examine_gil(sys.getswitchinterval())
th_examine_contexts(sys.getsizeof(new_context()))
SHARES_CONTEXTS = bool(th_shares_contexts)
atexit.register(stop_at_exit)
if th_watch_threads() != 0 or th_watch_forks() != 0:
    raise MemoryError()
Py_AtExit(th_note_finalized)
os.register_at_fork(before=before_fork, after_in_parent=after_fork_in_parent, after_in_child=after_fork_in_child)
