# Wrong calls: what somebody reads who takes timerheap for another timer library. finish.pxi looks at the shape of a
# call; nothing here runs for one that is right.

cdef frozenset FUNCTION_WORDS = frozenset(
    ("func", "function", "callback", "cb", "fn", "f", "target", "args", "kwargs", "context"))
cdef frozenset DURATION_WORDS = frozenset(
    ("delay", "period", "seconds", "secs", "interval", "timeout", "time", "duration"))


cdef str advice(str argument, tuple others, tuple extra, object keywords):
    """What was meant by arguments too many and by unknown keywords, of a callable that takes one duration."""
    named = "heap" in keywords
    for thing in extra:
        named = named or isinstance(thing, TimerHeap)
    if named and "heap" in others:
        return ": a heap is given by keyword, heap=heap"
    if named and argument == "delay":
        return ": after(delay, heap=heap).recv() waits by the clock of a heap"
    called = not FUNCTION_WORDS.isdisjoint(keywords)
    for thing in extra:
        called = called or callable(thing)
    if called and argument == "delay":
        return ": AfterFunc(delay, func, *args) is what calls a function"
    if called and argument == "period":
        return ": every(period, func, *args) is what calls a function"
    if not DURATION_WORDS.isdisjoint(keywords):
        return f": the duration is called {argument}"
    return ""


cdef str by_keyword(tuple names):
    cdef str listed = ", ".join(names)
    if not names:
        return ""
    if len(names) > 1:
        listed = " and ".join(listed.rsplit(", ", 1))
    return f": {listed} by keyword"


cdef int check_call(str what, str argument, bint needed, tuple others, tuple args, object keywords) except -1:
    """TypeError unless there is one argument, by position or by keyword (none, if it is not needed), and by keyword
    nothing but that and the others."""
    unknown = [name for name in keywords if name != argument and name not in others]
    if len(args) > 1:
        raise TypeError(f"{what} takes one positional argument, {argument}, got {len(args)}"
                        f"{advice(argument, others, args[1:], unknown) or by_keyword(others)}")
    if unknown:
        raise TypeError(f"{what} got an unexpected keyword argument {unknown[0]!r}"
                        f"{advice(argument, others, (), unknown)}")
    if args and argument in keywords:
        raise TypeError(f"{what} got {argument} by position and by keyword")
    if needed and not args and argument not in keywords:
        raise TypeError(f"{what} needs an argument, {argument}")
    return 0


cdef str an_instance(object thing, type kind):
    """For a message: that thing is the class where an instance was meant."""
    if isinstance(thing, type) and issubclass(thing, kind):
        return f"the class {thing.__name__} itself: {thing.__name__}() makes one"
    return type(thing).__name__


# ---- AfterFunc and every --------------------------------------------------------------------------------------------

cdef str maker(bint periodic):
    return "every" if periodic else "AfterFunc"


cdef str first_of(bint periodic):
    return "period" if periodic else "delay"


cdef str form_of(bint periodic):
    return f"{maker(periodic)}({first_of(periodic)}, func, *args)"


cdef int refuse_too_few(bint periodic, PyObject** args, Py_ssize_t nargs, PyObject* kwnames) except -1:
    """With less than two positional arguments."""
    names = <object>kwnames if kwnames != NULL else ()
    form = form_of(periodic)
    first = first_of(periodic)
    what = maker(periodic)
    wrong = [name for name in names if name in FUNCTION_WORDS or name in DURATION_WORDS]
    if wrong:
        raise TypeError(f"{what}() takes {first} and func by position, {form}, not by keyword: {', '.join(wrong)}")
    if nargs == 0:
        raise TypeError(f"{what}() needs two arguments, a {first} and a function: {form}")
    if PyCallable_Check(args[0]):
        raise TypeError(f"{what}() needs a {first} before the function: {form}")
    raise TypeError(f"{what}() needs a function after the {first}: {form}; "
                    f"{'Timer' if first == 'delay' else 'Ticker'}({first}) has a channel instead")


cdef int refuse_func(bint periodic, object first, object func) except -1:
    """With a func that cannot be called."""
    got = f"{maker(periodic)}() func must be callable, not {type(func).__name__}"
    if callable(first) and not has_float(first):
        raise TypeError(f"{got}: the {first_of(periodic)} comes first, {form_of(periodic)}")
    if isinstance(func, TimerHeap):
        raise TypeError(f"{got}: a heap is given by keyword, heap=heap")
    if func is None or hasattr(func, "cr_code"):
        raise TypeError(f"{got}: pass the function itself, func, not what it returns, func()")
    raise TypeError(got)


cdef int refuse_keyword(bint periodic, str name) except -1:
    """With a keyword that is not its own."""
    got = f"{maker(periodic)}() got an unexpected keyword argument {name!r}"
    if name in DURATION_WORDS or name in FUNCTION_WORDS:
        raise TypeError(f"{got}: {first_of(periodic)}, func and arguments for func go by position, {form_of(periodic)}")
    raise TypeError(f"{got}: keywords for func go through functools.partial(func, {name}=...)")
