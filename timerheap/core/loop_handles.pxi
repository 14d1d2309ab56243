# The handles that an event loop's call_later and call_at return, and what becomes of them.
#
# A LoopHandle is what programs know as asyncio.TimerHandle: it has its attributes and methods, and isinstance says so,
# by __class__. A real subclass would carry 80 bytes of slots. It is 88 bytes of object over a 16-byte collector header:
# its LoopTimers, the 40-byte record, the context, and two fields that are mostly empty.
#
# Life. It is armed once, when it is made. The heap owns a reference to it as long as it is ARMED, or a run entry points
# at it (TH_PINNED): so a handle that nobody keeps fires all the same, and one that dies has at most a dead key, which
# is left to the tomb. cancel() lets go of function and arguments at once.
#
# Context. Where a program names none, a handle is called in a copy of the context in which it was armed. To copy one is
# as much work as the rest of an arming, and mostly copies are alike; so what is armed in one context shares a snapshot
# of it (TH_SHARED), which LoopTimers keeps and nothing ever enters. The copy is made when it is wanted, by the call or
# by a program that reads _context, and is the handle's own from then on. After a call the next one may have that copy
# for its own, if nobody can tell: no variable was changed in it, and nobody else holds it, as a Token does. A snapshot
# that only LoopTimers holds goes when the loop waits or has stopped. Where contexts are not as expected
# (th_examine_contexts), and without a GIL, each handle has its copy when it is armed.
#
# The collector. As long as its loop runs, an armed handle is a root, and hidden: it is not tracked, and LoopTimers does
# not show its handles. So a million of them cost a collection nothing. When the loop has stopped, what is hidden is
# shown, and LoopTimers shows what it owns: a loop that is dropped goes with all that is armed on it. A handle that was
# hidden and has come to its end is tracked if somebody still holds it. Contexts are tracked always; a snapshot is held
# by handles that the collector does not see, and so by something beyond what it looks at. Without a GIL everything is
# tracked, for the reasons in handles.pxi.
#
# Lock. Under a GIL a loop's heap needs no mutex: nobody but threads that have the GIL ever looks at it. Without one it
# has M, as any other.

cdef inline void enter_loop(th_core* c) noexcept:
    """Begin to change a loop's heap."""
    if FREE_THREADED:
        th_lock(c)
    else:
        th_lock_alone(c)


cdef inline void leave_loop(th_core* c) noexcept:
    if FREE_THREADED:
        th_unlock(c)
    else:
        th_unlock_alone(c)


cdef inline th_loop* loop_of(th_loop_handle* h) noexcept:
    return (<LoopTimers>h.timers).loop


# ---- the collector --------------------------------------------------------------------------------------------------

cdef inline void hide(th_loop_handle* h, th_loop* loop) noexcept:
    """h is new, and was never tracked."""
    h.t.flags |= TH_HIDDEN
    loop.hidden += 1


cdef inline void unhide(th_loop_handle* h) noexcept:
    loop_of(h).hidden -= 1
    h.t.flags &= <uint16_t>~TH_HIDDEN


cdef void show(th_loop_handle* h) noexcept:
    unhide(h)
    gc_track(<PyObject*>h)


cdef inline void give_up(th_loop_handle* h) noexcept:
    """The heap's reference goes."""
    if h.t.flags & TH_HIDDEN and refcount(h) > 1:
        show(h)
    decref(h)


cdef int loop_handle_traverse(PyObject* self, visitproc visit, void* arg) noexcept:
    cdef th_loop_handle* h = <th_loop_handle*>self
    cdef int result = visit(h.timers, arg) if h.timers != NULL else 0
    if result == 0 and h.context != NULL:
        result = visit(h.context, arg)
    if result == 0 and h.notes != NULL:
        result = visit(h.notes, arg)
    return result if result else visit_call(&h.t, visit, arg)


cdef void drop_loop_call(th_loop_handle* h) noexcept:
    """Unless it is being called at this moment: then end_calling does."""
    cdef void* func = NULL
    cdef void* args = NULL
    handle = <LoopHandle><PyObject*>h
    with cython.critical_section(handle):       # in which others take references to them
        enter_loop(&loop_of(h).core)
        if not h.t.flags & TH_CALLING:
            func = h.t.func
            args = h.t.args
            h.t.func = h.t.args = NULL
        leave_loop(&loop_of(h).core)
    drop_call(func, args, th_fixed_flags(&h.t))


cdef int loop_handle_clear(PyObject* self) noexcept:
    """Not its LoopTimers: methods of a cleared handle may still be called by finalizers."""
    drop_loop_call(<th_loop_handle*>self)
    return 0


# ---- contexts -------------------------------------------------------------------------------------------------------

cdef inline void drop_lonely_snapshot(LoopTimers timers) noexcept:
    """The snapshot, if no handle has it."""
    if refcount(<PyObject*>timers.snapshot) == 1:
        before = timers.snapshot        # what it holds may run finalizers, which find another
        timers.snapshot = None


cdef inline void give_snapshot_back(LoopTimers timers, PyObject* snapshot) noexcept:
    """A handle's reference."""
    decref(snapshot)
    if not timers.loop.running:
        drop_lonely_snapshot(timers)


cdef int take_present_context(th_loop_handle* h, LoopTimers timers) except -1:
    """h, which is new, is called as in a copy of the context that is current now."""
    cdef PyObject* snapshot = <PyObject*>timers.snapshot
    if not th_shares_contexts:
        copy = copy_current_context()
        incref(<PyObject*>copy)
        h.context = <PyObject*>copy
        return 0
    if snapshot == <PyObject*>None or not th_is_current(snapshot):
        before = timers.snapshot        # likewise
        timers.snapshot = copy_current_context()
        snapshot = <PyObject*>timers.snapshot
    incref(snapshot)
    h.context = snapshot
    h.t.flags |= TH_SHARED
    return 0


cdef inline bint shares_snapshot(th_loop_handle* h) noexcept:
    return th_shares_contexts and h.t.flags & TH_SHARED


cdef inline void own_context(th_loop_handle* h, PyObject* context) noexcept:
    """In the place of the snapshot, a reference to which is left to the caller."""
    h.context = context
    h.t.flags &= <uint16_t>~TH_SHARED


# ---- the end of a handle --------------------------------------------------------------------------------------------

cdef void release_loop_handle(th_loop_handle* h) noexcept:
    cdef PyObject* timers = h.timers
    if h.t.flags & TH_HIDDEN:
        unhide(h)
    drop_call(h.t.func, h.t.args, h.t.flags)
    if shares_snapshot(h):
        give_snapshot_back(<LoopTimers>timers, h.context)
    else:
        xdecref(h.context)
    xdecref(h.notes)
    th_del_loop_handle(<PyObject*>h)
    xdecref(timers)


cdef void loop_handle_dealloc(PyObject* self) noexcept:
    """tp_dealloc. A chain of handles, each the last holder of the next, is released one after another from NESTING
    on."""
    global th_loop_depth, th_loop_later
    cdef th_loop_handle* h = <th_loop_handle*>self
    gc_untrack(self)
    if h.weak != NULL:
        clear_weak_references(self)
    if th_flags(&h.t) & (TH_KEYED | TH_RISING):
        enter_loop(&loop_of(h).core)
        entomb(&loop_of(h).core, &h.t)
        leave_loop(&loop_of(h).core)
    if th_loop_depth == NESTING:
        h.t.when = <int64_t><size_t>th_loop_later
        th_loop_later = self
        return
    th_loop_depth += 1
    release_loop_handle(h)
    while th_loop_depth == 1 and th_loop_later != NULL:
        h = <th_loop_handle*>th_loop_later
        th_loop_later = <PyObject*><size_t>h.t.when
        release_loop_handle(h)
    th_loop_depth -= 1


# ---- states ---------------------------------------------------------------------------------------------------------

cdef inline void init_loop_handle(th_loop_handle* h, LoopTimers timers, double when) noexcept:
    """A new object becomes a handle: never armed, untracked, calling nothing."""
    incref(<PyObject*>timers)
    h.timers = <PyObject*>timers
    memset(&h.t, 0, sizeof(th_timer))
    h.t.when = th_key_of_double(when)
    h.context = h.notes = h.weak = NULL


cdef inline bint arm_loop_handle(th_loop_handle* h) except -1:
    """IDLE -> ARMED, for a handle with its function, arguments and context. True when the loop has planned to look at
    its heap later than that. MemoryError, and nothing has changed."""
    cdef th_loop* loop = loop_of(h)
    cdef arming a
    cdef bint armed
    enter_loop(&loop.core)
    armed = arm_record(&loop.core, &h.t, h.t.when, &a)
    leave_loop(&loop.core)
    if not armed:
        raise MemoryError()
    incref(h)                           # the heap's
    if not FREE_THREADED and loop.running:
        hide(h, loop)
    else:
        gc_track(<PyObject*>h)
    return a.wake


cdef void cancel_loop_handle(th_loop_handle* h) noexcept:
    """Whatever it was, it is IDLE now, and will call nothing. What it calls at this moment it lets go of later."""
    cdef th_core* c = &loop_of(h).core
    cdef bint idle, cancelled
    cdef uint16_t flags
    enter_loop(c)
    th_mark(&h.t, TH_CANCELLED)
    cancelled = stop_record(c, &h.t, &idle)
    flags = h.t.flags
    leave_loop(c)
    drop_loop_call(h)
    if cancelled and not flags & TH_PINNED:
        give_up(h)


cdef inline uint16_t mark_calling(th_loop_handle* h) noexcept:
    """Its flags before."""
    cdef uint16_t before
    enter_loop(&loop_of(h).core)
    before = h.t.flags
    th_mark(&h.t, TH_CALLING)
    leave_loop(&loop_of(h).core)
    return before


cdef inline void end_calling(th_loop_handle* h) noexcept:
    cdef uint16_t flags
    enter_loop(&loop_of(h).core)
    th_unmark(&h.t, TH_CALLING)
    flags = h.t.flags
    leave_loop(&loop_of(h).core)
    if flags & TH_CANCELLED:
        drop_loop_call(h)


cdef inline PyObject* invoke_in_context(th_loop_handle* h) noexcept:
    cdef PyObject* result
    if PyContext_Enter(h.context) < 0:
        return NULL
    result = invoke(&h.t)
    PyContext_Exit(h.context)
    return result


cdef inline PyObject* invoke_in_copy(th_loop_handle* h, PyObject** copy) noexcept:
    """In a copy of its snapshot: in copy, or NULL, which another handle was called in, if it is one; and what is there
    afterwards serves the next."""
    cdef PyObject* snapshot = h.context
    cdef PyObject* before = copy[0]
    cdef PyObject* own
    cdef PyObject* result
    copy[0] = NULL
    if before != NULL and th_context_vars(before) == th_context_vars(snapshot):
        own = before
        before = NULL
    else:
        own = copy_context(snapshot)
        if own != NULL and not shares_snapshot(h):      # a finalizer has read _context meanwhile
            decref(own)
            xdecref(before)
            return invoke_in_context(h)
    if own != NULL:
        own_context(h, own)
    xdecref(before)
    if own == NULL:
        return NULL
    result = invoke_in_context(h)
    if refcount(own) == 1 and th_context_vars(own) == th_context_vars(snapshot):
        h.context = snapshot
        h.t.flags |= TH_SHARED
        copy[0] = own
    else:
        give_snapshot_back(<LoopTimers>h.timers, snapshot)
    return result


ctypedef PyObject* (*loop_call)(th_loop_handle* h) noexcept


cdef object call_apart(th_loop_handle* h):
    """Call its function with references of its own: another call of it has begun, which may return, and let go of them,
    before this one. Or in what a program has given it for a context, which has a method run, or is none."""
    handle = <LoopHandle><PyObject*>h
    with cython.critical_section(handle):
        if h.t.func == NULL:
            return None
        func = <object><PyObject*>h.t.func
        args = items_of_call(h.t.args, h.t.flags)
    return func(*args) if h.context == NULL else (<object>h.context).run(func, *args)


cdef inline PyObject* call_loop_handle(th_loop_handle* h, PyObject** copy) noexcept:
    """Call its function, in its context. A new reference, or NULL with an exception set. copy: see invoke_in_copy."""
    cdef PyObject* result
    if mark_calling(h) & TH_CALLING:    # by itself, or by another thread
        return (<loop_call>call_apart)(h)
    if h.t.func == NULL:                # cancelled: by _run() of it, or meanwhile by another thread
        result = <PyObject*>None
        incref(result)
    elif shares_snapshot(h):
        result = invoke_in_copy(h, copy)
    elif h.context == NULL:
        result = invoke(&h.t)
    elif PyContext_CheckExact(h.context):
        result = invoke_in_context(h)
    else:
        result = (<loop_call>call_apart)(h)
    end_calling(h)
    return result


cdef int report_loop_error(th_loop_handle* h) except -1:
    """What a callback has raised goes to the loop's exception handler. KeyboardInterrupt and SystemExit, of the
    callback or of the handler, are raised."""
    exc = take_exception()
    if isinstance(exc, (KeyboardInterrupt, SystemExit)):
        raise exc
    (<LoopTimers>h.timers).report(<object><PyObject*>h, exc)
    return 0


@cython.final
cdef class LoopHandle:
    """asyncio.TimerHandle: what call_later and call_at return."""

    @property
    def __class__(self):
        return self.timers.TimerHandle

    def when(self):
        """The deadline, in seconds of the loop's time."""
        return th_double_of_key(self.t.when)

    def cancel(self):
        """Not call it, if it has not been called. No error where it has, or was cancelled before."""
        cdef th_loop_handle* h = <th_loop_handle*><PyObject*>self
        if h.t.flags & TH_CANCELLED:
            return
        if self.timers.loop.debug:
            self.timers.note_cancel(self)
        cancel_loop_handle(h)

    def cancelled(self):
        """Whether cancel() was called."""
        return bool(self.t.flags & TH_CANCELLED)

    def get_loop(self):
        return self.timers.owner

    def get_context(self):
        return self._context

    def _run(self):
        cdef PyObject* copy = NULL
        cdef PyObject* result = call_loop_handle(<th_loop_handle*><PyObject*>self, &copy)
        xdecref(copy)
        if result == NULL:
            report_loop_error(<th_loop_handle*><PyObject*>self)
        else:
            decref(result)

    @property
    def _loop(self):
        return self.timers.owner

    @property
    def _when(self):
        return th_double_of_key(self.t.when)

    @property
    def _callback(self):
        cdef object func = None
        with cython.critical_section(self):
            if not th_flags(&self.t) & TH_CANCELLED and self.t.func != NULL:
                func = <object><PyObject*>self.t.func
        return func

    @property
    def _args(self):
        cdef object args = None
        with cython.critical_section(self):
            if not th_flags(&self.t) & TH_CANCELLED and self.t.func != NULL:
                args = items_of_call(self.t.args, self.t.flags)
        return args

    @property
    def _context(self):
        cdef th_loop_handle* h = <th_loop_handle*><PyObject*>self
        cdef PyObject* snapshot = h.context
        if shares_snapshot(h):
            copy = copy_of_context(snapshot)
            if shares_snapshot(h):      # else a finalizer, which the copy's memory has made run, was here
                incref(<PyObject*>copy)
                own_context(h, <PyObject*>copy)
                give_snapshot_back(self.timers, snapshot)
        return None if self.context == NULL else <object>self.context

    @property
    def _cancelled(self):
        return bool(self.t.flags & TH_CANCELLED)

    @property
    def _scheduled(self):
        return self.t.state == TH_ARMED

    @property
    def _notes(self):
        """In debug mode [its source traceback, its repr when it was cancelled, the handle that calls it soon]."""
        return None if self.notes == NULL else <object>self.notes

    @_notes.setter
    def _notes(self, list notes):
        cdef PyObject* before = self.notes
        incref(<PyObject*>notes)
        self.notes = <PyObject*>notes
        xdecref(before)

    @property
    def _source_traceback(self):
        return None if self.notes == NULL else (<object>self.notes)[0]

    @property
    def _repr(self):
        return None if self.notes == NULL else (<object>self.notes)[1]

    def _repr_info(self):
        return self.timers.TimerHandle._repr_info(self)

    def __repr__(self):
        return self.timers.TimerHandle.__repr__(self)

    def __hash__(self):
        return hash(th_double_of_key(self.t.when))

    def __lt__(self, other):
        return self.timers.TimerHandle.__lt__(self, other)

    def __le__(self, other):
        return self.timers.TimerHandle.__le__(self, other)

    def __gt__(self, other):
        return self.timers.TimerHandle.__gt__(self, other)

    def __ge__(self, other):
        return self.timers.TimerHandle.__ge__(self, other)

    def __eq__(self, other):
        return self.timers.TimerHandle.__eq__(self, other)

    def __reduce__(self):
        raise TypeError("cannot copy or pickle 'TimerHandle' objects")
