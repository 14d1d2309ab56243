# Durations: what callers give as seconds, to int64 nanoseconds. The rounding itself is th_from_seconds in csrc/clock.h.
#
# to_ns is on the path of every arming: a float or an int is done with after a test or two. All that is dear, the
# messages as well, stands behind that. Each caller names itself and its argument for them: "Timer.reset() delay".

cdef object MISSING = object()      # the default of an argument that has to be given: to_ns says that it was not
cdef str MUST_BE = "must be a number of seconds or a datetime.timedelta"
cdef str NO_MOMENT = "must be a duration, from now to the moment that is meant"


cdef inline int to_ns(object seconds, int64_t* ns, const char* what) except -1:
    """Seconds to whole nanoseconds; what has no place in an int64 saturates.

    ValueError for NaN, TypeError for what is no duration. May run Python code (__float__), so call
    it before locking.
    """
    if PyFloat_CheckExact(seconds):
        return float_to_ns(PyFloat_AS_DOUBLE(seconds), ns, what)
    return other_to_ns(seconds, ns, what)


cdef inline int float_to_ns(double value, int64_t* ns, const char* what) except -1:
    if value != value:
        raise ValueError(f"{what.decode()} must not be NaN")
    ns[0] = th_from_seconds(value)
    return 0


cdef inline void whole_to_ns(long long seconds, long long extra, int64_t* ns) noexcept:
    """seconds and extra nanoseconds; extra is small."""
    if mul_overflow(seconds, NS_PER_S, ns) or add_overflow(ns[0], extra, ns):
        ns[0] = TH_NEVER if seconds > 0 else INT64_MIN


cdef int other_to_ns(object seconds, int64_t* ns, const char* what) except -1:
    cdef long long whole
    cdef int overflow = 0
    if PyLong_Check(seconds):
        whole = PyLong_AsLongLongAndOverflow(seconds, &overflow)
        if overflow == 0:
            whole_to_ns(whole, 0, ns)
        else:
            ns[0] = TH_NEVER if overflow > 0 else INT64_MIN
        return 0
    kind = datetime_kind(type(seconds))
    if kind == "timedelta":
        return timedelta_to_ns(seconds, ns)
    if kind is not None:
        if seconds != seconds:              # pandas.NaT, which passes for a datetime
            raise ValueError(f"{what.decode()} must not be NaT")
        raise TypeError(f"{what.decode()} {NO_MOMENT}, not {type(seconds).__name__}")
    kind = getattr(getattr(seconds, "dtype", None), "kind", None)
    if kind == "m":
        return timedelta64_to_ns(seconds, ns, what)
    if kind == "M":
        raise TypeError(f"{what.decode()} {NO_MOMENT}, not {with_dtype(seconds)}")
    if kind == "O" and getattr(seconds, "shape", None) == ():
        content = seconds.item()
        if type(content) is not type(seconds):
            return to_ns(content, ns, what)
    if kind in ("S", "U", "T", "O", "c") or (kind == "V" and getattr(seconds.dtype, "char", None) == "V"):
        # Texts, objects, complex numbers, bare bytes: their __float__ makes a number of what is none.
        raise TypeError(f"{what.decode()} {MUST_BE}, not {with_dtype(seconds)}")
    return number_to_ns(seconds, ns, what)


cdef str with_dtype(object thing):
    return f"{type(thing).__name__} of dtype {thing.dtype}"


cdef int number_to_ns(object seconds, int64_t* ns, const char* what) except -1:
    """By __float__, or __index__ alone. Without try and except, see th_take_exception."""
    cdef double value
    cdef int sign
    if seconds is MISSING:
        raise TypeError(f"{' needs an argument, '.join(what.decode().rsplit(' ', 1))}")
    if not has_float(seconds):
        if not has_index(seconds):
            raise TypeError(f"{what.decode()} {MUST_BE}, not {type(seconds).__name__}")
        return to_ns(PyNumber_Index(seconds), ns, what)
    value = float_as_double(seconds)
    if value == -1.0 and error_matches(OverflowError):
        error = take_exception()
        sign = compare_or_error(seconds, 0, Py_GT)
        if sign < 0:                        # by what cannot be compared, and has no sign to be known
            PyErr_Clear()
            raise error
        ns[0] = TH_NEVER if sign else INT64_MIN
        return 0
    if value == -1.0 and error_matches(TypeError):
        error = take_exception()
        if type(error) is not TypeError:
            raise error
        raise TypeError(f"{what.decode()} {MUST_BE}, not {type(seconds).__name__}: {error}") from error
    raise_pending()
    return float_to_ns(value, ns, what)


cdef str datetime_kind(type cls):
    """Which of the datetime module's types cls is or derives from, by its name, or None.

    The module itself is not asked: it may be half imported by another thread, replaced or gone.
    """
    for base in cls.__mro__:
        if base.__module__ == "datetime" and base.__name__ in ("timedelta", "datetime", "date", "time"):
            return base.__name__
    return None


cdef int timedelta_to_ns(object delta, int64_t* ns) except -1:
    cdef long long whole = delta.days * 86400 + delta.seconds
    cdef long long extra = delta.microseconds * 1000
    rest = getattr(delta, "nanoseconds", 0)         # pandas.Timedelta has what is below a microsecond in this
    if isinstance(rest, int) and 0 <= rest < 1000:
        extra += rest
    whole_to_ns(whole, extra, ns)
    return 0


# numpy.timedelta64, and arrays of it without a dimension. Its __float__ gives the count of whatever unit it has.

cdef dict UNITS = {                         # numpy's units of a fixed length: how many attoseconds
    "W": 604800 * 10**18, "D": 86400 * 10**18, "h": 3600 * 10**18, "m": 60 * 10**18, "s": 10**18, "ms": 10**15,
    "us": 10**12, "\N{GREEK SMALL LETTER MU}s": 10**12, "ns": 10**9, "ps": 10**6, "fs": 10**3, "as": 1,
}


cdef int timedelta64_to_ns(object delta, int64_t* ns, const char* what) except -1:
    """Exact down to a nanosecond, rounded up below it."""
    cdef int overflow = 0
    if getattr(delta, "shape", None) != ():
        raise TypeError(f"{what.decode()} must be one duration, not {with_dtype(delta)}")
    if delta != delta or getattr(delta, "mask", False):
        raise ValueError(f"{what.decode()} must not be NaT")
    # "<m8[25ms]": the byte order, the type, how many of which unit.
    unit = delta.dtype.str.partition("[")[2].rstrip("]")
    name = unit.lstrip("0123456789")
    if name not in UNITS:
        raise TypeError(f"{what.decode()} must have a unit of a fixed length, not be {with_dtype(delta)}")
    count = delta.astype("int64").item() * int(unit[:len(unit) - len(name)] or 1)
    ns[0] = PyLong_AsLongLongAndOverflow(-(-count * UNITS[name] // 10**9), &overflow)
    if overflow:
        ns[0] = TH_NEVER if overflow > 0 else INT64_MIN
    return 0


cdef int demand_positive(int64_t ns, object period, const char* what) except -1:
    if ns <= 0:
        raise ValueError(f"{what.decode()} must be positive, not {period!r}")
    return 0


cdef int64_t positive_period(object period, const char* what) except -1:
    cdef int64_t ns = 0
    to_ns(period, &ns, what)
    demand_positive(ns, period, what)
    return ns


cdef inline double to_seconds(int64_t when) noexcept nogil:
    return th_to_seconds(when)


cdef inline object deadline_or_inf(int64_t when):
    return INFINITY if when == TH_NEVER else to_seconds(when)
