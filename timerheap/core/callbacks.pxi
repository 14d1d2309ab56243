# Calling back: contexts, what a call has ended with, and where errors go.
#
# A callback's error goes to the heap's on_error, else to threading.excepthook, as the current exception:
# sys.exc_info(), a bare raise and logging.exception find it there, and what the hook itself raises has it as its
# context. On a manual heap without an on_error it goes to whoever turns the clock: a test does not pass then.

cdef object ExceptHookArgs = threading.ExceptHookArgs
cdef str CLOSE = "close"
cdef tuple LEAVING = (KeyboardInterrupt, SystemExit)    # what asyncio lets out of a loop


# ---- errors ---------------------------------------------------------------------------------------------------------

cdef inline bint looped(th_core* c) noexcept nogil:
    """Whether an event loop drives the heap."""
    return c.driven and not c.manual


def report_to_threading(exc, timer):
    """The default on_error: what an exception in a thread's target would get."""
    threading.excepthook(ExceptHookArgs((type(exc), exc, exc.__traceback__, threading.current_thread())))


def report_to_loop(exc, timer):
    """The default on_error of a loop's heap: what an exception in a callback of the loop's own would get."""
    cdef LoopHeap heap = timer.heap
    heap.loop().call_exception_handler(
        {"message": f"Exception in callback of {timer!r}", "exception": exc, "timer": timer})


cdef void break_off(TimerHeap heap, object exc) noexcept:
    """Takes M. That leaves run_forever, or advance(), at once. The turn is over: fire_run finds that it has lost the
    run, as by a hand-over, and what is left of that is fired in the next turn."""
    heap.leaving = exc
    th_lock(heap.core)
    heap.core.generation += 1
    th_unlock(heap.core)


cdef int raise_leaving(TimerHeap heap) except -1:
    """What has broken the turn off, if something has."""
    leaving = heap.leaving
    heap.leaving = None
    if leaving is not None:
        raise leaving
    return 0


cdef object hook_of(TimerHeap heap):
    """The heap's on_error as it is now."""
    with cython.critical_section(heap):
        hook = heap.hook
    return hook


cdef void report(TimerHeap heap, object on_error, object exc, object timer) noexcept:
    """Hand what a callback raised to on_error or threading.excepthook, or that of the loop, as the current exception.
    What the hook itself raises goes to sys.unraisablehook: the worker lives on. In a loop what leaves that is left
    for its end of the turn, and so is, on a manual heap, what no on_error gets."""
    cdef object hook = on_error
    cdef PyObject* result
    cdef PyObject* before
    th_count(&heap.core.errors, 1)
    if (looped(heap.core) and isinstance(exc, LEAVING)) or (heap.core.manual and hook is None):
        break_off(heap, exc)
        return
    before = get_handled()
    if hook is None:
        hook = report_to_loop if looped(heap.core) else report_to_threading
    set_handled(<PyObject*>exc)
    result = call_objects(<PyObject*>hook, <PyObject*>exc, <PyObject*>timer, NULL)
    if result != NULL:
        decref(result)
    elif looped(heap.core) and error_matches(LEAVING):
        break_off(heap, take_exception())
    else:
        write_unraisable(<PyObject*>hook)
    set_handled(before)
    xdecref(before)


cdef object failure(PyObject* result, PyObject* func):
    """The exception that a call ended with, None if it went well. result, a reference or NULL, is consumed."""
    if result == NULL:
        return take_exception()
    value = <object>result
    decref(result)
    if not may_suspend(result) or not isinstance(value, (Coroutine, Generator, AsyncGenerator)):
        return None
    return never_run(value, <object>func)


cdef object never_run(suspended, func):
    """The TypeError for a callback that has returned a coroutine or a generator, which is closed: nobody would run it,
    and of a coroutine Python would complain in some other place."""
    if not isinstance(suspended, AsyncGenerator):       # that one has nothing to close before it has begun
        result = call_method(<PyObject*>suspended, <PyObject*>CLOSE, NULL)
        if result == NULL:
            write_unraisable(<PyObject*>suspended)
        else:
            decref(result)
    kind = "generator" if isinstance(suspended, Generator) else "coroutine"
    if isinstance(suspended, AsyncGenerator):
        kind = "asynchronous generator"
    name = getattr(func, "__qualname__", None) or repr(func)
    return TypeError(f"{name}() returned a {kind}, which nobody would run: a timer calls plain functions. "
                     "asyncio.run_coroutine_threadsafe hands a coroutine to its loop")


# ---- periodic calls -------------------------------------------------------------------------------------------------

cdef inline void end_call(Timer timer, uint64_t call) noexcept:
    """The call that go_on has begun is over: the next one need not be skipped. May come twice. call is 0 for a
    timer that is not periodic."""
    if call == 0:
        return
    if FREE_THREADED:
        th_lock(timer.heap.core)
    if timer.t.args != NULL and th_periodic_of(&timer.t).running == call:
        th_periodic_of(&timer.t).running = 0
    if FREE_THREADED:
        th_unlock(timer.heap.core)


# ---- calling --------------------------------------------------------------------------------------------------------

cdef bint enter_fresh_context(PyObject** context) noexcept:
    """An empty context for callbacks to run in; False, with an exception set, when there is no memory."""
    context[0] = PyContext_New()
    if context[0] == NULL or PyContext_Enter(context[0]) < 0:
        xdecref(context[0])
        context[0] = NULL
        return False
    return True


cdef void leave_context(PyObject** context) noexcept:
    if context[0] != NULL:
        PyContext_Exit(context[0])
        decref(context[0])
        context[0] = NULL


cdef inline PyObject* invoke(th_timer* t) noexcept:
    """Call func with its arguments.  A new reference, or NULL with an exception set."""
    cdef th_block* block
    cdef PyObject* result
    cdef uint16_t flags = th_fixed_flags(t)
    if flags & TH_ARGS_ONE:
        return call_one(<PyObject*>t.func, <PyObject*>t.args)
    if not flags & TH_ARGS_BLOCK:
        return call_none(<PyObject*>t.func)
    block = <th_block*>t.args
    if block.context == NULL:
        return call_many(<PyObject*>t.func, <PyObject**>block.items, block.nargs, NULL)
    if PyContext_Enter(<PyObject*>block.context) < 0:
        return NULL
    result = call_many(<PyObject*>t.func, <PyObject**>block.items, block.nargs, NULL)
    PyContext_Exit(<PyObject*>block.context)
    return result
