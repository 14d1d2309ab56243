# The worker's thread: its start, its end, and what the threading module shows of it. csrc/post.h has the native side.
#
# Nothing here goes by a name that programs replace. What the threading module is asked or told (the trace function of
# all threads, the Worker in its list) is a courtesy: where that fails, the worker works all the same.

cdef enum:
    START_TRIES = 3       # of a worker for timers that others have armed


cdef object set_trace = sys.settrace
cdef object set_profile = sys.setprofile


@cython.final
@cython.no_gc
cdef class Post:
    """A th_post, for Python objects to hold."""

    cdef th_post* post

    def __dealloc__(self):
        th_post_drop(self.post)


# A program may be at replacing names just while this is imported.
cdef object Thread = threading.Thread if isinstance(threading.Thread, type) else threading.Timer.__mro__[1]


class Worker(Thread):
    """The threading.Thread that stands for a heap's worker in threading.enumerate() and current_thread().

    Made without Thread.__init__ and never started: no code of threading's, which a program may have wrapped, takes part
    in the start of a worker.
    """

    _initialized = True
    _daemonic = True
    _started = threading.Event()
    _started.set()

    def start(self):
        raise RuntimeError("threads can only be started once")

    def is_alive(self):
        return not th_post_ended((<Post>self._post).post)

    def join(self, timeout=None):
        cdef Post post = self._post
        cdef int64_t ns = TH_NEVER
        if th_post_mine(post.post):
            raise RuntimeError("cannot join current thread")
        if timeout is not None:
            to_ns(timeout, &ns, b"Thread.join() timeout")
        await_end(post.post, th_deadline(th_monotonic(), ns) if ns < TH_NEVER else TH_NEVER)

    @property
    def native_id(self):
        cdef th_post* post = (<Post>self._post).post
        while th_post_tid(post) == 0:   # started, and about to know it
            with nogil:
                th_nap()
        return th_post_tid(post)

    def __repr__(self):
        state = "started" if self.is_alive() else "stopped"
        return f"<Thread({self.name}, {state} daemon {self.ident})>"

    # Around a fork threading puts the locks of its threads in order. A Worker has none.

    def _after_fork(self, new_ident=None):
        pass

    def _reset_internal_locks(self, is_alive):
        pass

    def _stop(self):
        pass


cdef object new_worker(TimerHeap heap):
    """A Worker with a post for it."""
    cdef Post holder = Post.__new__(Post)
    holder.post = th_post_new(heap.core)
    if holder.post == NULL:
        raise MemoryError()
    worker = object.__new__(Worker)
    worker.__dict__.update(_post=holder, _name=heap.name or "timerheap", _ident=None)
    return worker


cpdef dict listed_threads():
    """What threading.enumerate() lists, by thread; an empty dict should it be kept otherwise one day."""
    listed = getattr(threading, "_active", None)
    return listed if type(listed) is dict else {}


def list_worker(worker):
    worker._ident = th_post_ident((<Post>worker._post).post)
    listed_threads()[worker._ident] = worker


def unlist_worker(worker):
    cdef dict listed = listed_threads()
    for ident in (worker._ident, threading.get_ident()):
        if listed.get(ident) is worker:
            listed.pop(ident, None)     # without a GIL its thread and its starter may do this at once, see try_start


def be_watched():
    """By the trace and profile functions that are set for all threads, and by no others: as a thread that begins."""
    trace, profile = threading.gettrace(), threading.getprofile()
    if profile is not None or sys.getprofile() is not None:
        set_profile(profile)
    if trace is not None or sys.gettrace() is not None:
        set_trace(trace)


def settle_in(worker):
    """In the new thread: be found under whatever number threading has for it (greenlets have their own), and be watched
    by the trace and profile functions that are set for all threads."""
    list_worker(worker)
    ident = threading.get_ident()
    if ident != worker._ident:
        listed_threads()[ident] = listed_threads().pop(worker._ident)
    be_watched()


cdef void courtesy(object func, PyObject* worker) noexcept:
    """func(worker), whose failure is told and changes nothing."""
    cdef PyObject* result = call_objects(<PyObject*>func, worker, NULL)
    if result == NULL:
        write_unraisable(<PyObject*>func)
    else:
        decref(result)


cdef void appear(th_post* post) noexcept:
    """Show up in threading's list."""
    courtesy(settle_in, <PyObject*>post.thread)


cdef void disappear(th_post* post) noexcept:
    """And release what the thread owns. What it still runs after that, finalizers of its locals, may fork."""
    cdef PyObject* worker = <PyObject*>post.thread
    th_post_disappear(post)
    courtesy(unlist_worker, worker)
    post.thread = NULL
    decref(worker)


# ---- start ----------------------------------------------------------------------------------------------------------

cdef int start_worker(TimerHeap heap) except -1:
    """Start the worker. RuntimeError when the heap is closed or the system refuses a thread. False when the program has
    come to its end (the exit handler has run): there will be no worker, and arming goes on without.

    With a GIL nothing comes between the decision and the thread. Without one somebody may arm meanwhile and rely on a
    start that then fails: so it is tried again while there are timers in the heap, START_TRIES times in all. Should
    every try fail, these timers stay armed, and fire once some later arming, on this heap or on another, has got a
    worker.
    """
    global th_stranded
    cdef th_core* c = heap.core
    cdef int tries = START_TRIES
    if c.closed:
        raise RuntimeError(CLOSED_HEAP)
    if c.exiting:
        return False
    if heap.reference is None or heap.reference() is None:
        remember(heap)                  # the collector had given it up before a finalizer arms on it
    while tries and not try_start(heap):
        tries = tries - 1 if c.live else 0
    if tries == 0:
        if c.live:
            th_stranded = True
        raise RuntimeError("can't start new thread: the timer heap has no worker")
    if th_stranded:
        rescue()
    return True


cdef bint try_start(TimerHeap heap) except -1:
    """One try of start_worker. True: there is a worker, or none is wanted."""
    cdef th_core* c = heap.core
    cdef th_post* post
    cdef bint wanted
    worker = new_worker(heap)
    post = (<Post>worker._post).post
    th_lock(c)
    wanted = not (c.running or called_off(c))       # else another came first, or no worker is to be had
    if wanted:
        c.running = True
        c.post = post
    c.ready = c.running
    th_unlock(c)
    if not wanted:
        return True
    if not start_post(heap, post, worker):
        return False
    courtesy(list_worker, <PyObject*>worker)
    if th_post_disappeared(post):   # without a GIL it may be over already
        courtesy(unlist_worker, <PyObject*>worker)
    return True


cdef bint start_post(TimerHeap heap, th_post* post, object worker) except -1:
    """Start the thread of a post that is written down in the core. False, and it is taken back, when there is none."""
    cdef th_core* c = heap.core
    post.heap = <void*>heap
    post.thread = <void*>worker
    th_post_hold(post)                      # these two are the thread's, see disappear and th_post_end
    incref(post.thread)
    if th_prepare_state(post):
        if th_post_start(post, start_thread, run_worker):
            return True
        th_discard_state(post)
    th_lock(c)
    th_post_leave(post)
    th_unlock(c)
    decref(post.thread)
    th_post_over(post)                      # somebody may wait in a close() by now
    return False


def start_standby(TimerHeap heap):
    """By the worker, before it fires. Should there be no thread, the next run tries again. By the time that there is a
    Worker the caller may be in the child of a fork, which no worker fires in."""
    cdef th_core* c = heap.core
    cdef th_post* post
    cdef bint wanted
    worker = new_worker(heap)
    post = (<Post>worker._post).post
    post.standby = True
    th_lock(c)
    wanted = c.firing and c.spare == NULL and not called_off(c)
    if wanted:
        c.spare = post
    th_unlock(c)
    if wanted:
        start_post(heap, post, worker)


cdef int rescue() except -1:
    """Threads can be had (again): for whoever could not get one before."""
    global th_stranded
    cdef TimerHeap heap
    th_stranded = False
    for heap in live_heaps():
        if heap.core.live and not heap.core.running and not called_off(heap.core) and not try_start(heap):
            th_stranded = True
    return 0


cdef inline int ready(TimerHeap heap) except -1:
    """Before arming: the worker is there, or on its way. False: there will be none."""
    if heap.core.ready:
        return True
    return start_worker(heap)


# ---- end ------------------------------------------------------------------------------------------------------------

cdef bint await_end(th_post* post, int64_t until) except -1:
    """Wait for the end of a worker until the absolute time, TH_NEVER for ever, or until its callback waits in a close()
    itself: False when neither has come. Runs signal handlers."""
    cdef bint over = False, late = False
    while not (over or late):
        late = th_monotonic() >= until      # asked before the look: the last one comes after that time
        with nogil:
            over = th_post_await(post, True, min(until, signals_at()))
        PyErr_CheckSignals()
    return over


cdef list posts_of(TimerHeap heap):
    """The posts of the worker, of the standby and of those that have lost theirs, as they are at one moment."""
    cdef Post holder
    cdef th_post** posts = NULL
    cdef size_t n, room = 0
    cdef list holders = []
    while True:
        n = th_posts_of(heap.core, posts, room)
        for i in range(min(n, room)):
            holder = Post.__new__(Post)
            holder.post = posts[i]
            holders.append(holder)
        if n <= room:
            break
        holders.clear()
        room = n
        PyMem_Free(posts)
        posts = <th_post**>PyMem_Malloc(room * sizeof(th_post*))
        if posts == NULL:
            raise MemoryError()
    PyMem_Free(posts)
    return holders


cdef bint calls_back(th_core* c, th_post* post) noexcept nogil:
    """Takes M. Whether the thread is in a callback, or about to find that it has none to launch."""
    cdef bint busy
    th_lock(c)
    busy = post.lost != NULL or (c.post == post and c.firing)
    th_unlock(c)
    return busy


cdef bint join_workers(TimerHeap heap, int64_t until, int64_t until_called) except -1:
    """Wait for the worker and the standby, that have been told to leave (closed or exiting), and for those that have
    lost the post, until the absolute time, TH_NEVER for ever; until the other one for those that are in a callback.
    False when some still are. A parked one needs a moment to leave, and so does one that has yet to begin.

    Not for the calling thread, should it be one of them, that is in a callback.
    """
    cdef Post holder
    cdef bint over = True
    posts = posts_of(heap)
    th_signal_all(heap.core)
    for holder in posts:
        if not th_post_mine(holder.post):
            called = calls_back(heap.core, holder.post)
            ended = await_end(holder.post, until_called if called else until)
            over = (ended or not calls_back(heap.core, holder.post)) and over
    return over


def stop_at_exit():
    """Exit waits for no timer: parked workers leave, and those about to begin; one inside a callback is left behind
    (it is a daemon)."""
    global at_exit
    cdef TimerHeap heap
    cdef int64_t now
    at_exit = True
    with nogil:
        th_ask_no_more()
    heaps = live_heaps()
    for heap in heaps:
        th_lock(heap.core)
        heap.core.exiting = not heap.core.driven    # who has driven a heap may go on with that
        th_unlock(heap.core)
        th_signal_all(heap.core)
    # All are waited for at the same time: a hundred workers inside callbacks take no longer than one.
    now = th_monotonic()
    for heap in heaps:
        join_workers(heap, now + NS_PER_S, now + NS_PER_S // 20)
