# The process: its heaps, its main thread, its end. What fork, exit and executors go by.

cdef str CLOSED_HEAP = "the timer heap is closed"
cdef bint at_exit = False       # the exit handler has run
cdef dict all_heaps = {}        # weak references and cores by the reference's id, in the order of creation
cdef unsigned long main_thread = threading.main_thread().ident


cdef void remember(TimerHeap heap):
    """Note the heap for fork and exit. By single steps: a collection in between may make another heap."""
    reference = weakref.ref(heap, forget)
    heap.reference = reference
    all_heaps[id(reference)] = reference, <size_t>heap.core


def forget(reference):
    """The heap is about to go; or the collector takes it for garbage, and a finalizer may yet arm on it: see
    start_worker, which arming asks again then."""
    cdef th_core* c
    entry = all_heaps.pop(id(reference), None)
    if entry is not None:
        c = <th_core*><size_t>entry[1]
        th_lock(c)
        c.ready = c.driven
        th_unlock(c)


cdef list live_heaps():
    """Strong references to all heaps in the order of creation."""
    cdef list heaps = []
    for reference, _ in list(all_heaps.values()):
        heap = reference()
        if heap is not None:
            heaps.append(heap)
    return heaps


cdef inline void hold(th_core* c, PyObject* heap) noexcept:
    """What is armed will fire: the heap takes a reference to itself (worker.pxi, "Life"). Given up by hold_no_more."""
    if not c.driven:
        incref(heap)


cdef inline void hold_no_more(th_core* c, PyObject* heap) noexcept:
    """Nothing is armed any more: the heap gives up the reference to itself. Never the last one here."""
    if not c.driven:
        decref(heap)


cdef inline int64_t signals_at() noexcept nogil:
    """When a blocked thread has to look for signals, whose handlers run in the main thread. One that arrives between
    the last look and the system call interrupts nothing, and not every system lets one interrupt a wait: so the main
    thread wakes now and then."""
    return th_monotonic() + SIGNALS_EVERY if current_thread() == main_thread else TH_NEVER


cdef bint program_ends():
    """Whether nothing is left but the end of the program. Its pools are shut down then before the exit handlers run,
    and what falls due is not to be run: no error of anybody's. While threads outlast the main one, but for those of the
    pools, the program goes on."""
    if at_exit:
        return True
    if not getattr(threading, "_SHUTTING_DOWN", False):
        return False
    main = threading.main_thread()
    pools = getattr(sys.modules.get("concurrent.futures.thread"), "_threads_queues", ())
    for thread in threading.enumerate():
        if not (thread is main or thread.daemon or thread in pools) and thread.is_alive():
            return False
    return True
