# Fork: the parent's timers go on, the child starts with none.
#
# csrc/fork.h keeps the child's copy consistent and disowns it, whatever is armed, at the price of some stores a heap;
# here is what takes Python. CPython from 3.12 on warns of a fork beside other threads. So there, where the forking
# thread is the only one beside the workers, each worker that is in no callback leaves first, all of them at the same
# time: os.fork() then has nothing to warn of. With more threads, or with an older Python, that would be waiting for
# nothing. A callback that is about to end is waited for: whoever forks has often just been told by it that he can. In
# the parent the workers that have something to fire come back by a pending call, after os.fork() has counted the
# threads.

cdef enum:
    FORK_GRACE = 50000000       # ns a fork waits for callbacks to end

cdef list paused = []           # strong references: heaps whose workers have left for a fork
cdef bint FORKS_WARN = sys.version_info >= (3, 12)
cdef object is_finalizing = sys.is_finalizing


def before_fork():
    cdef TimerHeap heap
    cdef Post holder
    cdef list heaps, posts = []
    cdef th_post* mine = th_my_post
    cdef Py_ssize_t others
    cdef int64_t left, until = th_monotonic() + FORK_GRACE
    if mine != NULL and mine.thread != NULL:
        # A callback forks. In the child its thread will be the main one, which threading makes of a thread that it does
        # not know.
        unlist_worker(<object>mine.thread)
    if not FORKS_WARN:
        return
    heaps = live_heaps()
    others = threading.active_count() - (mine == NULL)
    for heap in heaps:
        others -= heap.core.running and not heap.core.driven
    if others > 0:
        return
    for heap in heaps:
        while heap.core.firing and not heap.core.driven and th_monotonic() < until:
            with nogil:
                th_pause(FORK_GRACE // 500)
    for heap in heaps:
        leaving = posts_of(heap)        # before they can have left
        th_lock(heap.core)
        leaves = heap.core.running and not heap.core.firing and not heap.core.driven
        if leaves:
            heap.core.pausing = True
        th_unlock(heap.core)
        if leaves:
            with cython.critical_section(all_heaps):
                paused.append(heap)
            posts.extend(leaving)
            th_signal_all(heap.core)
    for holder in posts:
        await_leaving(holder.post)
    left = th_monotonic()
    for holder in posts:
        with nogil:
            th_post_await_system(holder.post, left)


cdef void await_leaving(th_post* post) noexcept:
    """A second at most. Runs no signal handler: what that raised would go no further than the fork's hook."""
    cdef int64_t until = th_monotonic() + NS_PER_S
    with nogil:
        while th_monotonic() < until and not th_post_await(post, False, until):
            pass


def after_fork_in_parent():
    if th_my_post != NULL and not th_post_disappeared(th_my_post):
        list_worker(<object>th_my_post.thread)
    if paused and (current_thread() != main_thread or Py_AddPendingCall(resume_pending, NULL) < 0):
        resume_workers()


cdef int resume_pending(void* unused) except -1:
    return resume_workers()


cdef int resume_workers() except -1:
    """Bring back the workers that left for a fork: all of them, whatever is raised meanwhile."""
    global paused
    cdef TimerHeap heap
    cdef PyObject* started
    cdef list heaps
    with cython.critical_section(all_heaps):    # without a GIL a callback may fork as well meanwhile
        heaps = paused
        paused = []
    error = None
    for heap in heaps:
        th_lock(heap.core)
        heap.core.pausing = False
        th_unlock(heap.core)
        if heap.core.firing and heap.core.patience:
            courtesy(start_standby, <PyObject*>heap)    # the worker had begun when the standby left
        if heap.core.live and not heap.core.closed:
            started = call_objects(<PyObject*>restart_worker, <PyObject*>heap, NULL)
            if started == NULL:
                error = take_exception()
            else:
                decref(started)
    if error is not None:
        raise error
    return 0


def restart_worker(TimerHeap heap):
    start_worker(heap)


cdef void release_left_arrays(th_core* c) noexcept:
    """The references that the parent's heap had to its arrays."""
    cdef PyObject* array
    cdef th_array* a
    cdef size_t i
    while True:
        array = NULL
        th_lock(c)
        for i in range(c.arrays.len):
            a = c.arrays.items[i]
            if a.left_holding:
                a.left_holding -= 1
                array = <PyObject*>a.object
                break
        th_unlock(c)
        if array == NULL:
            return
        decref(array)


def after_fork_in_child():
    global paused, main_thread
    cdef TimerHeap heap
    cdef list heaps = live_heaps()
    main_thread = current_thread()
    paused = []                         # heaps that lived by this alone now live by the list above
    # Where a finalizer at the end of the program has forked, no other thread can run Python any more, here as there.
    th_settle_child(is_finalizing())
    for heap in heaps:
        forget_jobs(heap)
        while heap.core.left_holding:
            heap.core.left_holding -= 1
            decref(<PyObject*>heap)     # taken by an arming of the parent's
        release_left_arrays(heap.core)
    for heap in heaps:
        if heap.core.live and not heap.core.running:
            start_worker(heap)          # an earlier hook has armed
