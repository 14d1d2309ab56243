# select over several channels, and sleep.

cdef int refuse_to_select(object thing) except -1:
    got = f"select() takes channels, not {type(thing).__name__}"
    if isinstance(thing, (Timer, Ticker)) and thing.c is not None:
        raise TypeError(f"{got}: its channel is called c")
    if thing is None or isinstance(thing, Timer):
        raise TypeError(f"{got}: a timer of AfterFunc has no channel")
    if hasattr(thing, "__iter__"):
        raise TypeError(f"{got}: one argument each, select(*channels)")
    if has_float(thing):
        raise TypeError(f"{got}: a timeout is given by keyword, timeout={thing!r}")
    raise TypeError(got)


def select(*channels, timeout=None):
    """Receive from whichever channel is ready first: (channel, value). Of several ready ones each
    has the same chance.

    timeout, in seconds: 0 only looks, None waits for ever; TimeoutError when it has passed. Waits
    as Channel.recv does.
    """
    cdef size_t count = len(channels), i
    cdef double value = 0
    cdef PyObject** items
    if count == 0:
        raise ValueError("select() needs at least one channel")
    for channel in channels:
        if not isinstance(channel, Channel):
            refuse_to_select(channel)
    items = tuple_items(<PyObject*>channels)
    i = receive(items, count, timeout, False, &value, b"select() timeout", "select()")
    return channels[i], value


cdef int sleep_virtually(TimerHeap heap, object delay) except -1:
    cdef Channel channel = after(delay, heap=heap)
    cdef PyObject* c = <PyObject*>channel
    cdef double value = 0
    receive(&c, 1, None, False, &value, NULL, f"sleep({delay!r})")
    return 0


def sleep(delay):
    """Block the calling thread for at least delay seconds. The GIL is released, signal handlers
    run, and an exception in one ends it.
    """
    cdef int64_t ns = 0, until, look_at
    cdef int interrupted = True
    cdef unsigned long slack
    to_ns(delay, &ns, b"sleep() delay")
    if ns <= 0:
        return
    cdef TimerHeap heap = shared_default(False) if FREE_THREADED else the_default
    if heap is not None and heap.core.manual:
        sleep_virtually(heap, delay)
        return
    until = th_deadline(th_monotonic(), ns)
    while interrupted:
        with nogil:
            look_at = signals_at()
            slack = th_slack_fine()
            interrupted = th_sleep_until(min(until, look_at)) or look_at < until
            th_slack_restore(slack)
        if interrupted:
            PyErr_CheckSignals()


def longest_slice():
    """For tests: in a debug build the most steps of channel work under one hold of the mutex since the last call."""
    return th_longest_slice()
