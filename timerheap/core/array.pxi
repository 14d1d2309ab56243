# TimerArray: deadlines by number.
#
# Here a call's columns (columns.pxi) meet the cells (cells.pxi). A bulk call goes by pieces of 512: the slots, and what
# goes with them, are copied to the stack, and range-checked there; then M is taken and the cells are changed. M is
# given back after each piece, and the GIL offered after eight. So a bulk call is exact for each slot, and not atomic
# for all: others may come in between two pieces, and what is due may be fired.
#
# The heap owns a reference to the array exactly while something of it is armed (th_array.held). It is taken before M,
# for what is armed may be fired, and given up, as soon as M is free again.

cdef enum:
    PIECES_A_TURN = 8       # pieces between two offers of the GIL
    LET_IN = 50000          # ns: a thread that has been woken comes for M


cdef inline int unlock_changed(TimerArray self, size_t live, int64_t earliest) except -1:
    """Give M back. live: timers that there were before; earliest: what was armed, TH_NEVER at the latest. The caller
    has a reference to the array too many, which the heap gets if it needs one."""
    cdef TimerHeap heap = self.heap
    cdef th_core* c = heap.core
    cdef bint taken = hold_array(self.array)
    cdef bint first = live == 0 and c.live > 0
    cdef bint wakes = c.live > 0 and precedes_wake(c, earliest)
    th_unlock(c)
    if not taken:
        decref(<PyObject*>self)
    if wakes and c.driven:
        ask_loop(<LoopHeap>heap)
    elif wakes:
        th_signal(c)
    if first:
        hold(c, <PyObject*>heap)
    return 0


cdef inline int unlock_stopped(TimerArray self, size_t live) except -1:
    """Give M back, after stops."""
    cdef th_core* c = self.heap.core
    cdef bint released = release_if_idle(self.array)
    cdef bint last = live > 0 and c.live == 0
    th_unlock(c)
    if released:
        decref(<PyObject*>self)         # never the last one: the caller has another
    if last:
        hold_no_more(c, <PyObject*>self.heap)
    return 0


cdef int refuse_change(TimerArray self) except -1:
    """Why an arming did not happen; M is free again."""
    if self.function is None:
        raise RuntimeError("the timer array has been cleared by the garbage collector")
    refuse(self.heap)


# ---- one slot -------------------------------------------------------------------------------------------------------

cdef object change_one(TimerArray self, uint32_t slot, int64_t ns, bint revive):
    """reset and, without revive, postpone: whether it was pending."""
    cdef th_core* c = self.heap.core
    cdef th_array* a = self.array
    cdef int64_t when
    cdef size_t live
    cdef bint was = False, armed
    prefetch(th_cell(a, slot))
    if revive:
        lock_to_arm(self.heap, NULL, False, ns, &when)
    else:
        when = th_deadline(th_now(c), ns)
        th_lock(c)                      # what is pending has a worker, or will have one
    incref(<PyObject*>self)
    live = c.live
    armed = not c.closed and self.function is not None and arm_cell(c, a, slot, when, revive, &was)
    unlock_changed(self, live, when if armed and (was or revive) else TH_NEVER)
    if not armed and (revive or was):
        refuse_change(self)
    return was


cdef object stop_one(TimerArray self, uint32_t slot):
    cdef th_core* c = self.heap.core
    cdef size_t live
    cdef bint stopped
    prefetch(th_cell(self.array, slot))
    th_lock(c)
    live = c.live
    stopped = stop_cell(c, self.array, slot)
    unlock_stopped(self, live)
    return stopped


# ---- several --------------------------------------------------------------------------------------------------------

cdef inline void offer_turn(th_core* c, Py_ssize_t at) noexcept:
    """The GIL, and M. Both are taken again at once, long before somebody who has been woken comes for them: so a worker
    that waits is waited for."""
    cdef bint waits
    if at % (PIECES_A_TURN * PIECE) == 0:
        th_lock(c)
        waits = th_worker_waits(c)
        th_unlock(c)
        with nogil:
            if waits:
                th_pause(LET_IN)
            th_give_way(c)


cdef int make_room_for(TimerArray self, Py_ssize_t count) except -1:
    """Room for the keys of so many slots, before anything is changed: later pieces mostly find it. No more than there
    are slots without one; what is armed has one, unless it is in the run. And where a good part of a fresh array is
    about to be armed, its memory at once, where each page would be a fault under M."""
    cdef th_core* c = self.heap.core
    cdef th_array* a = self.array
    cdef size_t keyed, in_run
    cdef bint roomy, fresh
    th_lock(c)
    in_run = c.run_len - c.run_head
    keyed = a.armed - in_run if a.armed > in_run else 0
    roomy = c.closed or room_for(c, min(<size_t>count, a.n - keyed))
    fresh = a.top == 0 and count >= PIECES_A_TURN * PIECE and <size_t>count * 4 >= a.n
    th_unlock(c)
    if not roomy:
        raise MemoryError()
    if fresh:
        with nogil:
            th_populate(a.base, a.bytes)
    return 0


cdef object change_column(TimerArray self, slot_column* s, ns_column* d, out_column* o, bint revive):
    """reset and postpone: how many were pending."""
    cdef th_core* c = self.heap.core
    cdef th_array* a = self.array
    cdef uint32_t[PIECE] slots
    cdef int64_t[PIECE] whens
    cdef uint8_t[PIECE] were
    cdef Py_ssize_t at = 0, n, i, total = 0
    cdef int64_t now, present, when = 0     # one reading of the clock is that of all pieces
    cdef size_t live
    cdef piece p
    cdef bint armed
    if revive:
        make_room_for(self, s.count)
    now = th_now(c)
    if d.single:
        when = th_deadline(now, d.ns)
    while at < s.count:
        n = min(<Py_ssize_t>PIECE, s.count - at)
        read_slots(s, at, n, slots)
        if not d.single:
            read_ns(d, at, n, whens)
            for i in range(n):
                whens[i] = th_deadline(now, whens[i])
        if revive:
            lock_to_arm(self.heap, NULL, False, 0, &present)
        else:
            th_lock(c)
        incref(<PyObject*>self)
        live = c.live
        p.were = 0
        p.earliest = TH_NEVER
        if c.closed and not revive:     # nothing is pending
            armed = True
            memset(were, 0, n)
        else:
            armed = (not c.closed and self.function is not None
                     and arm_cells(c, a, slots, n, NULL if d.single else whens, when, revive, were, &p))
        unlock_changed(self, live, p.earliest)
        if not armed:
            refuse_change(self)
        write_out(o, at, n, were)
        total += p.were
        at += n
        offer_turn(c, at)
    return total


cdef inline object change(TimerArray self, object slots, object delay, object ns, object out, bint revive,
                          const char* what):
    """reset and postpone. An int and a float, the commonest, have nothing to be opened."""
    cdef uint32_t slot
    cdef int64_t duration
    if (PyLong_CheckExact(<PyObject*>slots) and PyFloat_CheckExact(delay) and ns is None and out is None
            and seconds_to_ns(PyFloat_AS_DOUBLE(delay), &duration)):
        slot_of(slots, -1, self.array.n, &slot, what)
        return change_one(self, slot, duration, revive)
    return change_any(self, slots, delay, ns, out, revive, what)


cdef object change_any(TimerArray self, object slots, object delay, object ns, object out, bint revive,
                       const char* what):
    cdef slot_column s
    cdef ns_column d
    cdef out_column o
    cdef uint32_t slot
    cdef uint8_t was
    if one_slot(slots, self.array.n, &slot, what):
        open_ns(&d, delay, ns, -1, what)
        if out is None:
            return change_one(self, slot, d.ns, revive)
        open_out(&o, out, 1, what)
        try:
            result = change_one(self, slot, d.ns, revive)
            was = <bint>result
            write_out(&o, 0, 1, &was)
            return result
        finally:
            close_out(&o)
    if slots is None:                   # all of them, for stop; to arm them all by mistake is too easy
        refuse_slots(slots, what)
    open_slots(&s, slots, self.array.n, what)
    try:
        open_ns(&d, delay, ns, s.count, what)
        try:
            open_out(&o, out, s.count, what)
            try:
                return change_column(self, &s, &d, &o, revive)
            finally:
                close_out(&o)
        finally:
            close_ns(&d)
    finally:
        close_slots(&s)


cdef bint open_some(slot_column* s, object slots, uint32_t n, const char* what) except -1:
    """open_slots, for one as well: True then."""
    cdef uint32_t slot
    cdef bint single = slots is not None and one_slot(slots, n, &slot, what)
    open_slots(s, range(slot, slot + 1) if single else slots, n, what)
    return single


cdef object stop_column(TimerArray self, slot_column* s, out_column* o):
    cdef th_core* c = self.heap.core
    cdef uint32_t[PIECE] slots
    cdef uint8_t[PIECE] were
    cdef Py_ssize_t at = 0, n, total = 0
    cdef size_t live
    while at < s.count:
        n = min(<Py_ssize_t>PIECE, s.count - at)
        read_slots(s, at, n, slots)
        th_lock(c)
        live = c.live
        total += stop_cells(c, self.array, slots, n, were)
        unlock_stopped(self, live)
        write_out(o, at, n, were)
        at += n
        offer_turn(c, at)
    return total


cdef Py_ssize_t armed_before(TimerArray self) noexcept:
    """Slots from this one on have never been armed."""
    cdef Py_ssize_t top
    th_lock(self.heap.core)
    top = self.array.top
    th_unlock(self.heap.core)
    return top


cdef bint look_at_one(TimerArray self, uint32_t slot, int64_t* when) noexcept:
    """Whether it is pending, and until when."""
    cdef uint8_t active
    th_lock(self.heap.core)
    look_at_cells(self.heap.core, self.array, &slot, 1, &active, when)
    th_unlock(self.heap.core)
    return active


cdef int look_at_column(TimerArray self, slot_column* s, out_column* active, time_column* times) except -1:
    """Which are pending, or until when. One of the two columns is NULL."""
    cdef th_core* c = self.heap.core
    cdef uint32_t[PIECE] slots
    cdef uint8_t[PIECE] flags
    cdef int64_t[PIECE] whens
    cdef double[PIECE] seconds
    cdef Py_ssize_t at = 0, n, i
    while at < s.count:
        n = min(<Py_ssize_t>PIECE, s.count - at)
        read_slots(s, at, n, slots)
        th_lock(c)
        look_at_cells(c, self.array, slots, n, flags, whens)
        th_unlock(c)
        if active != NULL:
            write_out(active, at, n, flags)
        else:
            for i in range(n):
                seconds[i] = (INFINITY if whens[i] == TH_NEVER else to_seconds(whens[i])) if flags[i] else NAN
            write_times(times, at, n, seconds)
        at += n
        offer_turn(c, at)
    return 0


# ---- the class ------------------------------------------------------------------------------------------------------

cdef uint32_t array_length(object n) except? 0:
    """ValueError unless that many slots can be."""
    if not has_index(n):
        raise TypeError(f"TimerArray() n must be an int, not {type(n).__name__}")
    number = PyNumber_Index(n)
    if not 0 <= number <= KEYS_MAX:
        raise ValueError(f"TimerArray() n must be from 0 to {KEYS_MAX}, not {number}")
    return number


cdef uint32_t batch_length(object batch) except 0:
    if not has_index(batch):
        raise TypeError(f"TimerArray() batch must be an int, not {type(batch).__name__}")
    number = PyNumber_Index(batch)
    if number < 1:
        raise ValueError(f"TimerArray() batch must be positive, not {number}")
    return min(number, KEYS_MAX)


@cython.final
cdef class TimerArray:
    """n timers without an object each: slots 0 to n - 1, idle to begin with, that call one function.

    func gets what is due as a read-only memoryview of format 'I', at most batch slots in the order of their deadlines,
    equal ones in that of arming; it may be kept. Timers of the heap that are due in between come in between. With each,
    func(slot) is called for each of them. An armed slot fires whether or not the array is kept. What func raises is
    given to the heap's on_error(exception, array), once for the call: its slots have fired.

    slots, in the methods: an int; or several: a slice, a range, a buffer of int32, uint32, int64 or uint64 in one
    dimension (array.array, numpy), or a sequence of ints. Several act one after another, so that of duplicates the last
    one wins. What is wrong with an argument is raised before anything is touched. A call for several slots is exact for
    each of them and not atomic: other threads, and what is due, may come in between.

    out: a writable buffer of bytes, one for each slot, that gets 1 where the answer is True, else 0.
    """

    def __cinit__(self, n, func, /, *, each=False, batch=4096, heap=None):
        cdef uint32_t length, most
        cdef bint singly, enlisted
        gc_untrack(<PyObject*>self)     # what runs here, or beside, shall not find one that is half made
        length = array_length(n)
        most = batch_length(batch)
        singly = bool(each)
        if not callable(func):
            raise TypeError(f"TimerArray() func must be callable, not {type(func).__name__}")
        self.heap = heap_or_default(heap, "TimerArray()")
        self.function = func
        self.array = th_array_new(length)
        if self.array == NULL:
            raise MemoryError()
        self.array.object = <void*>self
        self.array.each = singly
        self.array.batch = 1 if singly else most
        th_lock(self.heap.core)
        enlisted = th_enlist_array(&self.heap.core.arrays, self.array)
        th_unlock(self.heap.core)
        if not enlisted:
            th_array_free(self.array)
            self.array = NULL
            raise MemoryError()
        gc_track(<PyObject*>self)

    def __dealloc__(self):
        cdef th_array* a = self.array
        cdef th_core* c
        cdef size_t at
        cdef bint alone
        if a == NULL:
            return
        c = self.heap.core
        th_lock(c)
        at = a.top
        while not entomb_cells(c, a, &at):
            th_unlock(c)
            offer_turn(c, 0)
            th_lock(c)
        alone = end_array(c, a)
        th_unlock(c)
        if alone:
            th_array_free(a)

    def reset(self, slots, delay=None, /, *, ns=None, out=None):
        """Arm the slots anew, each for so long from now. delay is in seconds: what a Timer takes, for all of them; a
        sequence of such, or a buffer of float64, float32 or integers, one for each. ns, in its place: nanoseconds, an
        int or a buffer or sequence of ints.

        For one slot, whether that cancelled a pending run; for several, how many it cancelled.
        """
        return change(self, slots, delay, ns, out, True, b"TimerArray.reset()")

    def postpone(self, slots, delay=None, /, *, ns=None, out=None):
        """reset, of those slots that are pending; the others are not touched."""
        return change(self, slots, delay, ns, out, False, b"TimerArray.postpone()")

    def stop(self, slots=None, /, *, out=None):
        """Cancel the slots, None for all: those that were pending will not fire. For one slot whether it was, for
        several how many were."""
        cdef slot_column s
        cdef out_column o
        cdef uint32_t slot
        if out is None and slots is not None and one_slot(slots, self.array.n, &slot, b"TimerArray.stop()"):
            return stop_one(self, slot)
        single = open_some(&s, slots, self.array.n, b"TimerArray.stop()")
        if slots is None and out is None:
            s.count = armed_before(self)
        try:
            open_out(&o, out, s.count, b"TimerArray.stop()")
            try:
                stopped = stop_column(self, &s, &o)
            finally:
                close_out(&o)
        finally:
            close_slots(&s)
        return bool(stopped) if single else stopped

    def active(self, slots=None, /, *, out=None):
        """Whether the slots, None for all, are pending: a bool for one, for several bytes of 0 and 1, or out."""
        cdef slot_column s
        cdef out_column o
        cdef uint32_t slot
        cdef int64_t when
        if out is None and slots is not None and one_slot(slots, self.array.n, &slot, b"TimerArray.active()"):
            return look_at_one(self, slot, &when)
        open_some(&s, slots, self.array.n, b"TimerArray.active()")
        try:
            answer = bytearray(s.count) if out is None else out
            open_out(&o, answer, s.count, b"TimerArray.active()")
            try:
                look_at_column(self, &s, &o, NULL)
            finally:
                close_out(&o)
        finally:
            close_slots(&s)
        return bytes(answer) if out is None else answer

    def when(self, slots=None, /, *, out=None):
        """The deadlines of the slots, None for all, in seconds on the heap's clock, inf for never. For one slot None if
        it is not pending; for several an array('d'), or out, a writable buffer of float64, with nan for those."""
        cdef slot_column s
        cdef time_column t
        cdef uint32_t slot
        cdef int64_t when
        if out is None and slots is not None and one_slot(slots, self.array.n, &slot, b"TimerArray.when()"):
            return deadline_or_inf(when) if look_at_one(self, slot, &when) else None
        open_some(&s, slots, self.array.n, b"TimerArray.when()")
        try:
            answer = array_of("d", bytes(8 * s.count)) if out is None else out
            open_times(&t, answer, s.count, b"TimerArray.when()")
            try:
                look_at_column(self, &s, NULL, &t)
            finally:
                close_times(&t)
        finally:
            close_slots(&s)
        return answer

    @property
    def armed(self):
        """How many slots stop() would cancel."""
        cdef size_t armed
        th_lock(self.heap.core)
        armed = 0 if self.heap.core.closed else self.array.armed
        th_unlock(self.heap.core)
        return armed

    @property
    def func(self):
        """The function that it calls; None once the collector has cleared the array."""
        return self.function

    def __len__(self):
        return self.array.n

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.stop()

    def __repr__(self):
        return f"<timerheap.TimerArray of {len(self)} slots, {self.armed} armed>"

    def __reduce__(self):
        raise TypeError("cannot copy or pickle 'TimerArray' objects")


cdef int array_clear(PyObject* self) noexcept:
    """tp_clear. Not its heap: methods of a cleared array may still be called by finalizers; nor what is armed, of a
    heap that is cleared as well."""
    cdef TimerArray array = <TimerArray>self
    cdef bint idle
    if array.array == NULL:
        return 0
    th_lock(array.heap.core)
    idle = array.array.armed == 0
    th_unlock(array.heap.core)
    if idle:
        array.function = None
    return 0
