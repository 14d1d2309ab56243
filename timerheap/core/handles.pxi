# Handles: the memory of Timer objects, what the collector is shown of it, and what becomes of an armed timer whose
# handle goes.
#
# A Timer handle is 64 bytes of object over a 16-byte collector header: the heap and the 40-byte
# record. Its type is laid out by Cython and finished by hand (finish_timer_type): handles have
# their own memory, and three slots depend on the state of the record:
#
#   tp_alloc      takes a slot of the handles' slab
#   tp_traverse   reveals func and args only while the timer is IDLE
#   tp_clear      likewise
#   tp_dealloc    leaves the record behind, in a slab slot or in place, when the heap or the run still points at it
#
# The handle of a channel timer is a Timer as well; its record is never armed, and func is its
# Channel.
#
# The collector. A timer that a worker will fire is a root. A handle reveals func and args to the
# collector only while it is IDLE, and with a GIL it is tracked only then, so a million armed timers
# cost a collection nothing. What is armed on a ManualHeap, or a loop's, fires only if somebody drives that: there the
# handle is tracked all the time, and the heap shows what its armed timers hold, as if that were its own (manual.pxi). A
# free-threaded collector walks through every object of a collectable type, tracked or not, and comes back once a
# quarter more of them exist than were tracked the last time: handles that it did not count would have it come back
# every 2000 timers. So there they are tracked from beginning to end, and what makes an armed one a root is the heap's
# reference: it owns one to the handle of each ARMED or DUE timer, taken before arming and given up by stop or after the
# call.
#
# With a GIL the heap owns that of a periodic timer likewise, which is armed for ever: its launch need not care whether
# there is a handle. It owns no other, and a handle that dies while armed leaves an orphan (40 bytes instead of 80):
# that is decided under the GIL, which no launch can have at the same time.
#
# Put aside. From 3.14 on CPython puts an object aside whose last reference goes while the stack is nearly used up, and
# calls tp_dealloc once there is room again. With a GIL the timer of such a handle is armed as before, and that nobody
# holds the handle any more shows by its count, which is 0. It gets no reference then, and is not tracked: it would die
# twice.

cdef enum:
    NESTING = 40          # handles released within one another before the rest waits


cdef inline bint always_tracked(th_core* c) noexcept nogil:
    """Whether the collector knows the handles of armed timers as well."""
    return FREE_THREADED or c.driven


cdef inline bint owned(th_timer* t) noexcept nogil:
    """Whether the heap has a reference to the handle of t while that is ARMED or DUE."""
    return FREE_THREADED or th_fixed_flags(t) & TH_PERIODIC


cdef inline PyObject* handle_of(th_timer* t) noexcept nogil:
    return <PyObject*>(<char*>t - <size_t>&(<Timer>NULL).t)


cdef inline bint put_aside(PyObject* handle) noexcept:
    return not FREE_THREADED and refcount(handle) == 0


cdef inline void fetch_handle(PyObject* self) noexcept nogil:
    """Ask for the ends of a handle, whose middle is being waited for: they lie in two cache lines mostly."""
    prefetch(<char*>self - COLLECTOR_BYTES)
    prefetch(<char*>self + TH_TIMER_SIZE - 1)


# ---- what a record owns ---------------------------------------------------------------------------------------------

cdef th_block* new_block(PyObject** args, Py_ssize_t nargs, PyObject* context, size_t before) except NULL:
    """With so many bytes before it, zeroed."""
    cdef char* memory = <char*>PyMem_Malloc(before + sizeof(th_block) + nargs * sizeof(void*))
    cdef th_block* block
    cdef Py_ssize_t i
    if memory == NULL:
        raise MemoryError()
    memset(memory, 0, before)
    block = <th_block*>(memory + before)
    if context != NULL:
        incref(context)
    block.context = context
    block.nargs = nargs
    for i in range(nargs):
        incref(args[i])
        block.items[i] = args[i]
    return block


cdef inline void drop_call(void* func, void* args, uint16_t flags) noexcept:
    """Release what a record owned. Runs finalizers: no lock is held, and the record must not point
    here any more."""
    cdef th_block* block
    cdef size_t i
    if flags & TH_ARGS_BLOCK and args != NULL:
        block = <th_block*>args
        for i in range(block.nargs):
            decref(block.items[i])
        xdecref(block.context)
        PyMem_Free(<char*>block - (sizeof(th_periodic) if flags & TH_PERIODIC else 0))
    else:
        xdecref(args)
    xdecref(func)


cdef tuple items_of_call(void* args, uint16_t flags):
    """The arguments of a record."""
    cdef th_block* block
    cdef size_t i
    if args == NULL:
        return ()
    if flags & TH_ARGS_ONE:
        return (<object><PyObject*>args,)
    block = <th_block*>args
    return tuple([<object><PyObject*>block.items[i] for i in range(block.nargs)])


cdef int visit_call(th_timer* t, visitproc visit, void* arg) noexcept:
    """Show what a record owns."""
    cdef th_block* block
    cdef size_t i
    cdef int result
    cdef uint16_t flags = th_fixed_flags(t)
    if t.func == NULL:
        return 0
    result = visit(<PyObject*>t.func, arg)
    if result == 0 and flags & TH_ARGS_ONE:
        result = visit(<PyObject*>t.args, arg)
    if result == 0 and flags & TH_ARGS_BLOCK:
        block = <th_block*>t.args
        if block.context != NULL:
            result = visit(<PyObject*>block.context, arg)
        for i in range(block.nargs):
            if result:
                break
            result = visit(<PyObject*>block.items[i], arg)
    return result


cdef inline bint keep(th_core* c, th_timer* t) noexcept nogil:
    """With M held. Whether the memory of an IDLE handle has to stay, for the sake of a pending() in another thread:
    then it goes by release_kept."""
    if not FREE_THREADED or c.readers == 0:
        return False
    t.when = <int64_t><size_t>c.kept
    c.kept = <void*>handle_of(t)
    return True


cdef void free_record(th_core* c, th_timer* t) noexcept:
    """Free the memory of an orphan or a carcass whose func and args have been moved out."""
    cdef bint kept
    if FREE_THREADED:
        th_lock(c)
        kept = keep(c, t)
        th_unlock(c)
        if kept:
            return
    if t.flags & TH_ORPHAN:
        th_lock(c)
        th_slab_free(&c.orphans, t, sizeof(th_timer))
        th_unlock(c)
    else:
        th_del_timer(handle_of(t))


# ---- making ---------------------------------------------------------------------------------------------------------

cdef inline Timer new_timer(TimerHeap heap):
    """An inactive, untracked Timer without a function: every field is set, nothing else has seen
    it."""
    cdef PyObject* o = th_new_timer(<PyTypeObject*>Timer)
    if o == NULL:
        raise MemoryError()
    incref(<PyObject*>heap)
    init_fields(o, <PyObject*>heap)
    timer = <Timer>o
    decref(o)
    return timer


cdef inline void init_fields(PyObject* o, PyObject* heap) noexcept:
    # heap lies right before t. Not by assignment, which would release what was there before: the
    # memory is fresh.
    (<PyObject**>&(<Timer>o).t - 1)[0] = heap
    memset(&(<Timer>o).t, 0, sizeof(th_timer))
    th_count(&(<TimerHeap>heap).core.handles, 1)


cdef Timer adopt(TimerHeap heap, th_timer* record):
    """A handle for a fired timer that had none: it takes over func and args, and record has them no
    longer."""
    cdef Timer timer = new_timer(heap)
    timer.t.func = record.func
    timer.t.args = record.args
    timer.t.flags = record.flags & (TH_ARGS_ONE | TH_ARGS_BLOCK)
    record.func = record.args = NULL
    gc_track(<PyObject*>timer)
    return timer


# ---- slots of the type ----------------------------------------------------------------------------------------------

cdef int timer_traverse(PyObject* self, visitproc visit, void* arg) noexcept:
    cdef th_timer* t = &(<Timer>self).t
    cdef int result = visit(<PyObject*>(<Timer>self).heap, arg)
    if result or th_state(t) != TH_IDLE:
        return result
    return visit_call(t, visit, arg)


cdef int timer_clear(PyObject* self) noexcept:
    """Let go of the callback, not of the heap: methods of a cleared handle may still be called by
    finalizers."""
    cdef th_timer* t = &(<Timer>self).t
    cdef void* func
    cdef void* args
    cdef uint16_t flags = th_fixed_flags(t)
    if flags & TH_CHANNEL or (<Timer>self).heap is None:
        return 0
    # A finalizer may have handed the timer to another thread, which arms it at this moment.
    if FREE_THREADED:
        th_lock((<Timer>self).heap.core)
    func = t.func
    args = t.args
    if th_state(t) == TH_IDLE:
        t.func = t.args = NULL
    else:
        func = args = NULL
    if FREE_THREADED:
        th_unlock((<Timer>self).heap.core)
    drop_call(func, args, flags)
    return 0


cdef int timer_let_go(PyObject* self) noexcept:
    """The handle's last reference is gone. True if its memory may be freed; False if the heap or
    the run goes on with it. An ARMED or DUE handle that is the heap's as well does not come here.
    """
    cdef th_timer* t = &(<Timer>self).t
    cdef th_core* c
    cdef void* func = NULL
    cdef void* args = NULL
    cdef uint16_t flags
    cdef bint kept
    cdef PyObject* heap = <PyObject*>(<Timer>self).heap
    if (<Timer>self).heap is None:
        return True
    if th_state(t) == TH_IDLE and not th_flags(t) & (TH_PINNED | TH_KEYED | TH_RISING) and not FREE_THREADED:
        return True
    c = (<Timer>self).heap.core
    th_lock(c)
    if let_go(c, t):
        kept = keep(c, t)
        th_unlock(c)
        return not kept
    flags = t.flags
    if t.state == TH_IDLE:
        func = t.func
        args = t.args
        t.func = t.args = NULL
    th_unlock(c)
    # From here on self is the worker's: a finalizer that gives up the GIL lets it launch the entry and free the memory.
    th_count(&c.handles, -1)
    drop_call(func, args, flags)
    decref(heap)
    return False


cdef void timer_release(PyObject* self) noexcept:
    """Free an IDLE handle and what it owns."""
    cdef th_timer* t = &(<Timer>self).t
    cdef PyObject* heap = <PyObject*>(<Timer>self).heap
    if (<Timer>self).heap is not None:
        th_count(&(<Timer>self).heap.core.handles, -1)
    drop_call(t.func, t.args, t.flags)
    xdecref(heap)
    th_del_timer(self)


cdef void release_kept(PyObject* kept) noexcept:
    """What keep() has kept, once core.kept is empty again. A carcass has nothing left but its memory."""
    cdef PyObject* self
    while kept != NULL:
        self = kept
        kept = <PyObject*><size_t>(<Timer>self).t.when
        if (<Timer>self).t.flags & TH_CARCASS:
            th_del_timer(self)
        else:
            timer_release(self)


cdef void put_off(PyObject* self) noexcept:
    """Leave a dead handle to the outermost release. Only IDLE, or it would be launched; with its key out, for its
    deadline becomes the link. A run entry may point at it: the worker finds nothing to do there."""
    global th_later
    cdef th_timer* t = &(<Timer>self).t
    if th_state(t) != TH_IDLE:
        if not timer_let_go(self):
            return
    elif th_flags(t) & (TH_KEYED | TH_RISING):
        th_lock((<Timer>self).heap.core)
        if inherited((<Timer>self).heap.core, t):
            make_void(t)
        entomb((<Timer>self).heap.core, t)
        th_unlock((<Timer>self).heap.core)
    t.when = <int64_t><size_t>th_later
    th_later = self


cdef void timer_dealloc(PyObject* self) noexcept:
    """tp_dealloc. A chain of handles, each the last holder of the next, must not nest as deep as it
    is long: from NESTING on the rest is put off until the outermost release is done. (CPython's own
    trashcan allows 10,000 levels on 3.13, which is more than a small thread's stack holds.)"""
    global th_depth, th_later
    gc_untrack(self)
    if th_depth == NESTING:
        put_off(self)
        return
    th_depth += 1
    if timer_let_go(self):
        timer_release(self)
    if th_depth == 1:
        while th_later != NULL:
            self = th_later
            th_later = <PyObject*><size_t>(<Timer>self).t.when
            if timer_let_go(self):
                timer_release(self)
    th_depth -= 1
