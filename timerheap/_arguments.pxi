# Wrong calls and wrong names: what somebody reads who takes timerheap for another timer library. Nothing here runs for
# a call that is right, but for the look at its shape.

cdef frozenset FUNCTION_WORDS = frozenset(
    ("func", "function", "callback", "cb", "fn", "f", "target", "args", "kwargs", "context"))
cdef frozenset DURATION_WORDS = frozenset(
    ("delay", "period", "seconds", "secs", "interval", "timeout", "time", "duration"))


cdef str advice(str argument, tuple extra, object keywords):
    """What was meant by arguments too many and by unknown keywords, of a callable that takes one duration."""
    for thing in extra:
        if isinstance(thing, TimerHeap):
            return ": a heap is given by keyword, heap=heap"
    called = not FUNCTION_WORDS.isdisjoint(keywords)
    for thing in extra:
        called = called or callable(thing)
    if called and argument == "delay":
        return ": AfterFunc(delay, func, *args) is what calls a function"
    if called and argument == "period":
        return ": it calls no function, but can be iterated, for at in Ticker(period)"
    if "heap" in keywords:
        return ": it uses the default heap, Timer(delay, heap=heap).c or Ticker(period, heap=heap).c another"
    if not DURATION_WORDS.isdisjoint(keywords):
        return f": the duration is called {argument}"
    return ""


cdef str by_keyword(tuple names):
    return f": {' and '.join(names)} by keyword" if names else ""


cdef int check_call(str what, str argument, bint needed, tuple others, tuple args, object keywords) except -1:
    """TypeError unless there is one argument, by position or by keyword (none, if it is not needed), and by keyword
    nothing but that and the others."""
    unknown = [name for name in keywords if name != argument and name not in others]
    if len(args) > 1:
        raise TypeError(f"{what} takes one positional argument, {argument}, got {len(args)}"
                        f"{advice(argument, args[1:], unknown) or by_keyword(others)}")
    if unknown:
        raise TypeError(f"{what} got an unexpected keyword argument {unknown[0]!r}{advice(argument, (), unknown)}")
    if args and argument in keywords:
        raise TypeError(f"{what} got {argument} by position and by keyword")
    if needed and not args and argument not in keywords:
        raise TypeError(f"{what} needs an argument, {argument}")
    return 0


cdef int check_constructor(str what, str argument, bint needed, tuple others, PyObject* args,
                           PyObject* keywords) except -1:
    return check_call(what, argument, needed, others, <tuple><object>args, <object>keywords if keywords != NULL else ())


# These look at the shape of a call before Cython does, which would speak of __cinit__ and __init__ and give no advice.
# Timer and Ticker are called by tp_vectorcall, or by tp_new with a tuple and a dict.

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
    if nargs != 1 or names != NULL:
        check_call("after()", "delay", True, (), items_of(args, nargs), <object>names if names != NULL else ())
    return after_unchecked(module, args, nargs, names)


cdef PyObject* tick_call(PyObject* module, PyObject* const* args, Py_ssize_t nargs, PyObject* names) except NULL:
    if nargs != 1 or names != NULL:
        check_call("tick()", "period", True, (), items_of(args, nargs), <object>names if names != NULL else ())
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
    check_constructor("TimerHeap()", "name", False, ("executor", "on_error"), args, keywords)
    return heap_init_unchecked(self, args, keywords)


cdef int manual_init(PyObject* self, PyObject* args, PyObject* keywords) except -1:
    check_constructor("ManualHeap()", "start", False, ("name", "on_error"), args, keywords)
    return manual_init_unchecked(self, args, keywords)


cdef str an_instance(object thing, type kind):
    """For a message: that thing is the class where an instance was meant."""
    if isinstance(thing, type) and issubclass(thing, kind):
        return f"the class {thing.__name__} itself: {thing.__name__}() makes one"
    return type(thing).__name__


# ---- AfterFunc ------------------------------------------------------------------------------------------------------

cdef int refuse_too_few(PyObject** args, Py_ssize_t nargs, PyObject* kwnames) except -1:
    """AfterFunc with less than two positional arguments."""
    names = <object>kwnames if kwnames != NULL else ()
    form = "AfterFunc(delay, func, *args)"
    wrong = [name for name in names if name in FUNCTION_WORDS or name in DURATION_WORDS]
    if wrong:
        raise TypeError(f"AfterFunc() takes delay and func by position, {form}, not by keyword: {', '.join(wrong)}")
    if nargs == 0:
        raise TypeError(f"AfterFunc() needs two arguments, a delay and a function: {form}")
    if PyCallable_Check(args[0]):
        raise TypeError(f"AfterFunc() needs a delay before the function: {form}")
    raise TypeError(f"AfterFunc() needs a function after the delay: {form}; Timer(delay) has a channel instead")


cdef int refuse_func(object delay, object func) except -1:
    """AfterFunc with a func that cannot be called."""
    got = f"AfterFunc() func must be callable, not {type(func).__name__}"
    if callable(delay) and not has_float(delay):
        raise TypeError(f"{got}: the delay comes first, AfterFunc(delay, func, *args)")
    if isinstance(func, TimerHeap):
        raise TypeError(f"{got}: a heap is given by keyword, heap=heap")
    if func is None or hasattr(func, "cr_code"):
        raise TypeError(f"{got}: pass the function itself, func, not what it returns, func()")
    raise TypeError(got)


cdef int refuse_keyword(str name) except -1:
    """AfterFunc with a keyword that is not its own."""
    got = f"AfterFunc() got an unexpected keyword argument {name!r}"
    if name in DURATION_WORDS or name in FUNCTION_WORDS:
        raise TypeError(f"{got}: delay, func and arguments for func go by position, AfterFunc(delay, func, *args)")
    raise TypeError(f"{got}: keywords for func go through functools.partial(func, {name}=...)")


# ---- names that others have for it ----------------------------------------------------------------------------------

# __getattr__ would be the place to help, but a type with one pays at every attribute that it has: CPython's quick way
# to call a method is for types without. So the names are found, as descriptors that say what to take instead. They are
# in a class of the __mro__ that is not among the bases: dir(), completion and mock's specs do not know them. Protocols,
# which ask whether a Timer can be closed, look into each __dict__ of the __mro__: that class has none to show.

@cython.final
cdef class Misnomer:
    """An attribute that is not there, for whose name there is another."""

    cdef str name
    cdef str instead

    def __init__(self, name, instead):
        self.name = name
        self.instead = instead

    def __get__(self, instance, owner):
        if instance is None:
            raise AttributeError(f"type object 'timerheap.{owner.__name__}' has no attribute {self.name!r}")
        raise AttributeError(f"'timerheap.{owner.__name__}' object has no attribute {self.name!r}: {self.instead}")

    def __set__(self, instance, value):
        self.__get__(instance, type(instance))

    def __delete__(self, instance):
        self.__get__(instance, type(instance))


cdef int add_misnomers(type cls, dict names) except -1:
    """To a final class: a subclass could have attributes of these names."""
    fields = {name: Misnomer(name, instead) for name, instead in names.items()}
    unlisted = type("Unlisted", (type,), {"__module__": "timerheap", "__dict__": property(lambda cls: {})})
    mro = (cls, unlisted("Misnomers", (), {"__module__": "timerheap", "__slots__": (), **fields}), object)
    incref(<PyObject*>mro)
    decref(change_mro(<PyTypeObject*>cls, <PyObject*>mro))
    return 0


cdef PyObject* no_iterator(PyObject* self) except NULL:
    """tp_iter. By the slot alone: hasattr(x, "__iter__") stays False."""
    raise TypeError(f"'timerheap.{type(<object>self).__name__}' object is not iterable: a Ticker is, and a channel's "
                    "recv() waits for one value")


cdef dict TIMER_MISNOMERS = {
    "cancel": "stop() cancels a timer",
    "close": "stop() cancels a timer",
    "Stop": "it is called stop",
    "start": "a timer runs from its making, and again from reset(delay)",
    "restart": "reset(delay) arms a timer anew",
    "Reset": "it is called reset",
    "is_alive": "active tells whether it is pending",
    "cancelled": "active tells whether it is pending",
    "done": "active tells whether it is pending",
    "join": "it is no thread; timer.c.recv() waits for a channel timer",
    "daemon": "it is no thread; the one that serves all timers is a daemon",
    "deadline": "it is called when",
    "C": "its channel is called c",
    "recv": "receive from its channel, timer.c.recv()",
    "poll": "receive from its channel, timer.c.poll()",
}
cdef dict TICKER_MISNOMERS = {
    "cancel": "stop() ends the ticks",
    "close": "stop() ends the ticks",
    "Stop": "it is called stop",
    "start": "a Ticker runs from its making, and again from reset(period)",
    "restart": "reset(period) begins anew",
    "Reset": "it is called reset",
    "interval": "it is called period",
    "join": "it is no thread; iterating waits for its ticks",
    "daemon": "it is no thread",
    "C": "its channel is called c",
    "recv": "receive from its channel, ticker.c.recv(), or iterate",
    "poll": "receive from its channel, ticker.c.poll()",
}
cdef dict CHANNEL_MISNOMERS = {
    "get": "recv() waits for the value",
    "receive": "it is called recv",
    "wait": "recv() waits for the value",
    "get_nowait": "poll() gives the value or None",
    "recv_nowait": "poll() gives the value or None",
    "send": "timers alone send",
    "put": "timers alone send",
    "close": "stop() of its timer ends it",
    "stop": "its timer has stop(); a channel goes when it is dropped",
}
