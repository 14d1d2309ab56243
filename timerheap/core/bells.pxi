# Bells: how a coroutine that waits for channels is told of something. The model is in csrc/channel.h.
#
# Whoever wakes a waiter does so under C, and to wake a coroutine takes Python. So under C its bell is merely put among
# th_told, and rung as soon as C is free. A reference to the bell, taken before the coroutine was put to sleep, goes
# with it: from the waiter (th_waiter.bell) to th_told, and from there to whoever rings, or back to a waiter that was
# not told. No count is touched under C.
#
# A bell holds the waiter and the loop by weak references alone, for the collector cannot see who holds the bell. Many
# are told by a thread other than the loop's; what is rung too late, or twice, does no harm: the coroutine looks.

cdef object get_running_loop = None     # asyncio's, which gives None where no loop runs
cdef object fresh_context = None        # contextvars.Context: the loop keeps nothing of whoever asks it


cdef int import_asyncio() except -1:
    """By whoever first has to do with a loop: that has been imported then."""
    global get_running_loop, fresh_context
    if get_running_loop is None:
        from asyncio import _get_running_loop
        from contextvars import Context
        fresh_context = Context
        get_running_loop = _get_running_loop
    return 0


@cython.final
@cython.no_gc
cdef class Bell:
    """Wakes one sleep of a coroutine: called in the thread of its loop."""

    cdef th_bell bell
    cdef object loop            # weak references
    cdef object waiter

    def __call__(self):
        waiter = self.waiter()
        if waiter is not None:
            waiter.rouse()


cdef int ring(Bell bell) except -1:
    loop = bell.loop()
    waiter = bell.waiter()
    if waiter is None:
        return 0
    if loop is not None and not loop.is_closed():
        if get_running_loop() is loop:
            bell()
            return 0
        try:
            loop.call_soon_threadsafe(bell, context=fresh_context())
        except RuntimeError:
            if not loop.is_closed():
                raise
        else:
            return 0
    waiter.leave()              # it will never look: the next in its lines has to
    return 0


cdef void ring_bells() noexcept:
    """Takes C. After anything that may have woken waiters."""
    cdef th_bell* bell
    cdef PyObject* o
    while th_bells():
        th_chan_lock()
        bell = th_take_bells()
        th_chan_unlock()
        while bell != NULL:
            o = <PyObject*>bell.object
            bell = bell.next
            ring_one(o)
            decref(o)


cdef void ring_one(PyObject* bell) noexcept:
    """A failure is told, and stops nobody's arming."""
    try:
        ring(<Bell>bell)
    except BaseException:
        write_unraisable(bell)
