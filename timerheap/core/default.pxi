# The default heap: of all timers that name no other.

cdef TimerHeap the_default = None
cdef bint substituted = False       # by use(): a closed one is not replaced


def default_heap():
    """The heap of all timers that name no other: made on first use, and anew should it have been
    closed. Within timerheap.testing.use() it is the heap given there, and a RuntimeError once that
    is closed.
    """
    return current_default()


cdef inline TimerHeap current_default():
    if FREE_THREADED:
        return shared_default(True)
    if the_default is None or the_default.core.closed:
        return new_default()
    return the_default


cdef TimerHeap new_default():
    global the_default
    cdef TimerHeap heap
    if substituted and the_default is not None:
        raise RuntimeError("the heap that use() has made the default one is closed")
    heap = TimerHeap()
    if the_default is None or the_default.core.closed:          # else a finalizer or a thread came first
        the_default = heap
    return the_default


cdef TimerHeap shared_default(bint make):
    """The default heap where other threads may change it meanwhile: without a GIL, reading it and taking a reference
    are two steps. None if there is none and it is not to be made.

    Making a heap may give up the critical section (a finalizer runs), so the second look is needed here as well.
    """
    global the_default
    cdef TimerHeap heap
    with cython.critical_section(all_heaps):
        heap = the_default
        if make and (heap is None or heap.core.closed):
            heap = new_default()
    return heap


def swap_default_heap(TimerHeap heap, bint substitute):
    """Make heap (None: a new one on the next use) the default heap, which is not to be replaced when it is closed if it
    is a substitute. Returns both as they were."""
    global the_default, substituted
    with cython.critical_section(all_heaps):
        before = the_default, substituted
        the_default = heap
        substituted = substitute
    return before


cdef inline TimerHeap heap_or_default(object heap, str what):
    if heap is None:
        return current_default()
    if not isinstance(heap, TimerHeap):
        raise TypeError(f"{what} heap must be a TimerHeap, not {an_instance(heap, TimerHeap)}")
    return <TimerHeap>heap
