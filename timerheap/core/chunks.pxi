# Chunks: how what is due of a TimerArray is fired.
#
# A chunk is a stretch of the run whose entries are cells of one array, at most `batch` of them, and one call of the
# array's function has all their slots. Where something else is due in between, the stretch ends: the order of a heap's
# callbacks is that of their deadlines. An array that wants a call for each slot has chunks of one.
#
# The launch is the chunk's, in one step: up to it stop and reset find a slot pending, and after it the slot is idle.
# What is void by then is left out. An error is the chunk's as well: it is reported once, and its slots have fired.

cdef char* SLOT_FORMAT = "I"


@cython.final
@cython.no_gc
cdef class Chunk:
    """The slots of one call, whose memoryview keeps them."""

    cdef uint32_t* slots
    cdef Py_ssize_t n

    def __dealloc__(self):
        free(self.slots)

    def __getbuffer__(self, Py_buffer* view, int flags):
        if flags & PyBUF_WRITABLE:
            raise BufferError("the slots that are due are read-only")
        view.buf = self.slots
        view.obj = self
        view.len = self.n * sizeof(uint32_t)
        view.itemsize = sizeof(uint32_t)
        view.readonly = True
        view.ndim = 1
        view.format = SLOT_FORMAT
        view.shape = &self.n
        view.strides = &view.itemsize
        view.suboffsets = NULL
        view.internal = NULL


cdef inline void leave_launch(th_core* c) noexcept:
    """Launches happen under the GIL, where there is one, and else under M."""
    if FREE_THREADED:
        th_unlock(c)


cdef bint lost_launch(th_core* c, uint32_t turn) noexcept:
    """Begin to launch, after something that may have run finalizers. True, and there is nothing to leave: somebody else
    has the run by now, or nothing is to be fired any more."""
    if FREE_THREADED:
        th_lock(c)
    if c.generation == turn and not c.closed:
        return False
    leave_launch(c)
    return True


cdef inline th_timer* next_cell(th_core* c, size_t ahead) noexcept nogil:
    """Of the run entry so far ahead; NULL if it is none of a cell."""
    cdef size_t i = c.run_head + ahead
    cdef th_timer* t
    if i >= c.run_len:
        return NULL
    if i + PREFETCH < c.run_len:
        prefetch(c.run[i + PREFETCH].timer)
    t = c.run[i].timer
    return t if th_fixed_flags(t) & TH_CELL else NULL


cdef size_t count_chunk(th_core* c, th_array* a) noexcept nogil:
    """How many slots the next chunk has, if none of them is stopped before."""
    cdef size_t ahead = 0, n = 0
    cdef th_timer* t = next_cell(c, 0)
    while t != NULL and n < a.batch:
        if th_state(t) == TH_DUE:
            if not th_owns_cell(a, t):
                break
            n += 1
        ahead += 1
        t = next_cell(c, ahead)
    return n


cdef size_t take_chunk(th_core* c, th_array* a, uint32_t* slots, size_t most, bint* idle) noexcept nogil:
    """Launch so many cells of the array, that follow one another in the run, and write down their slots. How many."""
    cdef size_t n = 0
    cdef uint16_t was
    cdef bint last
    cdef th_timer* t = next_cell(c, 0)
    while t != NULL and n < most and (th_state(t) != TH_DUE or th_owns_cell(a, t)):
        settle(c, True, &was, &last)
        if was == TH_DUE:
            slots[n] = th_cell_index(a, t)
            n += 1
            idle[0] = last
        t = next_cell(c, 0)
    a.armed -= n
    return n


cdef Chunk new_chunk(size_t n):
    cdef Chunk chunk = Chunk.__new__(Chunk)
    chunk.slots = <uint32_t*>malloc(n * sizeof(uint32_t))
    if chunk.slots == NULL:
        raise MemoryError()
    chunk.n = n
    return chunk


cdef int submit_chunk(TimerHeap heap, TimerArray array, object slots) except -1:
    """To the heap's executor, as a timer that has fired."""
    cdef Timer timer = new_timer(heap)
    incref(<PyObject*>array.function)
    incref(<PyObject*>slots)
    timer.t.func = <void*>array.function
    timer.t.args = <void*>slots
    timer.t.flags = TH_ARGS_ONE
    gc_track(<PyObject*>timer)
    hand_over(heap, timer, 0, array)
    return 0


cdef int call_array(TimerHeap heap, TimerArray array, object slots) except -1:
    """Its function, with a memoryview, or a slot."""
    cdef PyObject* result
    if array.function is None:              # cleared by the collector
        return 0
    if heap.executor is not None:
        return submit_chunk(heap, array, slots)
    result = call_one(<PyObject*>array.function, <PyObject*>slots)
    if result == <PyObject*>None:
        decref(result)
        return 0
    exc = failure(result, <PyObject*>array.function)
    if exc is not None:
        report(heap, hook_of(heap), exc, array)
    return 0


cdef int launch_chunk(th_core* c, PyObject* heap, TimerArray array, size_t n, uint32_t turn) except -1:
    """The next n cells of the run are that array's. MemoryError, and nothing has been launched. All that needs memory
    comes before the launch, but where something was stopped in between."""
    cdef Chunk chunk = new_chunk(n)
    cdef bint released, idle = False
    slots = memoryview(chunk)
    if lost_launch(c, turn):
        return 0
    chunk.n = take_chunk(c, array.array, chunk.slots, n, &idle)
    released = release_if_idle(array.array)
    leave_launch(c)
    if released:
        decref(<PyObject*>array)        # never the last one: the caller has another
    try:
        if array.array.each and chunk.n:
            call_array(<TimerHeap>heap, array, chunk.slots[0])
        elif <size_t>chunk.n == n:
            call_array(<TimerHeap>heap, array, slots)
        elif chunk.n:
            call_array(<TimerHeap>heap, array, memoryview(chunk))
    except BaseException as exc:
        report(<TimerHeap>heap, hook_of(<TimerHeap>heap), exc, array)
    if idle:
        hold_no_more(c, heap)
    return 0


cdef void let_cell_go(th_core* c, PyObject* heap) noexcept:
    """In a launch, which ends. Settle the next run entry, that of a cell which is void or not to be fired."""
    cdef uint16_t was
    cdef bint idle
    cdef th_array* a = settle_cell(c, False, &was, &idle)
    cdef bint released = a != NULL and release_if_idle(a)
    cdef PyObject* array = <PyObject*>a.object if released else NULL
    leave_launch(c)
    xdecref(array)
    if idle:
        hold_no_more(c, heap)


cdef void launch_cells(th_core* c, PyObject* heap, uint32_t turn, bint fire) noexcept:
    """launch, where the next run entry is that of a cell; in a launch, which ends."""
    cdef th_timer* t = next_cell(c, 0)
    cdef th_array* a
    cdef size_t n
    if not fire or th_state(t) != TH_DUE:
        let_cell_go(c, heap)
        return
    a = th_owner(&c.arrays, t)
    n = 1 if a.each else count_chunk(c, a)
    array = <TimerArray><PyObject*>a.object
    leave_launch(c)
    try:
        launch_chunk(c, heap, array, n, turn)
    except MemoryError:
        with nogil:
            th_nap()                    # it may come back; fire_run will be at this entry again
