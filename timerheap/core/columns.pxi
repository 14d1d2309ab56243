# The arguments of TimerArray: slots and durations, one or very many, and the columns that take results.
#
# A column is one of three things. A buffer is read where it is, by raw Py_buffer: typed memoryviews take a microsecond.
# A slice or a range is three numbers. Any other sequence is copied to memory of our own, for its items are converted by
# Python code. A single slot and a single duration are told apart before all that, by a test or two.
#
# All or nothing: open_... looks at every item, and an error leaves nothing held. But another thread may write to a
# buffer as long as we read it. So nobody acts upon a buffer: read_... copies a piece of it to the stack, and judges and
# converts the copy, at the opening and once more when its turn comes. What the copy holds is a slot, or IndexError.
#
# A piece goes through int64 or double, whatever the buffer holds, so each format is one loop, in load. The words of
# uint64 stay as they are: what does not fit into an int64 is negative there, and told by the column's kind.
#
# `what` is the method, "TimerArray.reset()"; the argument's name is put behind it here.

cdef enum:
    OFFER_EVERY = 1 << 16       # items of a sequence, between two offers of the GIL; that is given up for as long as
    #                             a buffer of so many is checked
    NAMED = 96                  # bytes of the name of an argument

cdef enum:
    # The kinds of items: one of these, and their size in bytes. 0 is what no argument takes.
    OF_INT = 16
    OF_UINT = 32
    OF_FLOAT = 48
    OF_BOOL = 64
    OF_CHAR = 80
    OF_OBJECT = 96

cdef char OUR_ORDER = c"<" if sys.byteorder == "little" else c">"      # in a format
cdef str SLOTS_ARE = "an int, a slice, a sequence of ints or a one-dimensional buffer of 32 or 64-bit integers"
cdef str DELAYS_ARE = (
    "a duration, a sequence of durations or a one-dimensional buffer of float32, float64 or integers, of seconds")
cdef str NS_ARE = "an int, a sequence of ints or a one-dimensional buffer of integers"
cdef str OUT_IS = "a writable, one-dimensional buffer of bytes"
cdef str TIMES_ARE = "a writable, one-dimensional buffer of float64"

ctypedef fused th_item:
    int8_t
    int16_t
    int32_t
    int64_t
    uint8_t
    uint16_t
    uint32_t
    float
    double

ctypedef fused th_eight:
    int64_t
    double


cdef struct column:
    Py_ssize_t count
    int kind                # of a buffer, else 0
    char* first             # its first item
    Py_ssize_t stride       # bytes from one to the next, any number
    bint held
    buffer_view view        # if it is held


cdef struct slot_column:
    Py_ssize_t count
    uint32_t n              # each slot is below it
    Py_ssize_t start        # without a buffer and own: start + position * step
    Py_ssize_t step
    uint32_t* own           # malloc's
    column buffer
    const char* what


cdef struct ns_column:
    bint single             # one for all, ns
    int64_t ns
    bint seconds            # what the buffer has: else nanoseconds
    int64_t* own            # malloc's
    column buffer
    const char* what


cdef struct out_column:
    column buffer


cdef struct time_column:
    column buffer


# ---- buffers --------------------------------------------------------------------------------------------------------

cdef int kind_of(const char* format, Py_ssize_t itemsize) noexcept:
    """By the letter and the size, for the size of a letter depends on what stands before it. 0 for the other order of
    bytes as well."""
    if format == NULL:
        return OF_UINT + 1 if itemsize == 1 else 0
    if format[0] == c"@" or format[0] == c"=" or format[0] == OUR_ORDER:
        format += 1
    if format[0] == 0 or format[1] != 0:
        return 0
    if itemsize in (1, 2, 4, 8):
        if strchr("bhilqn", format[0]) != NULL:
            return OF_INT + itemsize
        if strchr("BHILQN", format[0]) != NULL:
            return OF_UINT + itemsize
    if (format[0] == c"f" and itemsize == 4) or (format[0] == c"d" and itemsize == 8):
        return OF_FLOAT + itemsize
    if format[0] == c"?" and itemsize == 1:
        return OF_BOOL + 1
    if format[0] == c"c" and itemsize == 1:
        return OF_CHAR + 1
    if format[0] == c"O":
        return OF_OBJECT + itemsize
    return 0


cdef bint is_number(int kind) noexcept nogil:
    return OF_INT < kind < OF_BOOL


cdef bint is_integer(int kind) noexcept nogil:
    return OF_INT < kind < OF_FLOAT


cdef bint is_slot(int kind) noexcept nogil:
    return is_integer(kind) and kind & 15 >= 4


cdef bint is_byte(int kind) noexcept nogil:
    return kind in (OF_INT + 1, OF_UINT + 1, OF_BOOL + 1, OF_CHAR + 1)


cdef bint is_time(int kind) noexcept nogil:
    return kind == OF_FLOAT + 8


cdef str format_of(buffer_view* view):
    return view.format.decode("latin-1") if view.format != NULL else "B"


cdef str describe(object thing, column* c):
    """What an argument is, for a message."""
    if c.view.ndim > 1:
        return f"{type(thing).__name__} of {c.view.ndim} dimensions"
    return f"{type(thing).__name__} of format {format_of(&c.view)!r}"


cdef void close_column(column* c) noexcept:
    if c.held:
        c.held = False
        release_buffer(&c.view)


cdef bint open_column(column* c, object thing, bint (*takes)(int) noexcept nogil, str name, str must_be,
                      const char* what) except -1:
    """False when thing is no buffer, or one of objects, which are taken one by one; numpy has none of timedelta64.
    TypeError for other items."""
    c.held = False
    if not is_buffer(thing) or isinstance(thing, (bytes, bytearray)):
        return False
    if get_buffer(thing, &c.view, PyBUF_FORMAT | PyBUF_STRIDES) < 0:
        return no_buffer()
    hold_column(c)
    if c.kind == OF_OBJECT + sizeof(PyObject*):
        close_column(c)
        return False
    demand_kind(c, thing, takes, name, must_be, what)
    return True


cdef bint no_buffer() except -1:
    """After a failure of get_buffer: False if that is what there is, else its error."""
    if error_matches(BufferError) or error_matches(TypeError) or error_matches(ValueError):
        PyErr_Clear()
        return False
    raise_pending()
    return False


cdef void hold_column(column* c) noexcept:
    """ctypes leaves the strides out, though they were asked for."""
    c.kind = kind_of(c.view.format, c.view.itemsize)
    c.held = True
    c.first = <char*>c.view.buf
    c.count = c.view.shape[0] if c.view.ndim == 1 else 0
    c.stride = c.view.strides[0] if c.view.ndim == 1 and c.view.strides != NULL else c.view.itemsize


cdef int demand_kind(column* c, object thing, bint (*takes)(int) noexcept nogil, str name, str must_be,
                     const char* what) except -1:
    if c.view.ndim != 1 or not takes(c.kind):
        advice = ": numpy.flatnonzero() has the slots of a mask" if name == "slots" and c.kind == OF_BOOL + 1 else ""
        raise TypeError(f"{what.decode()} {name} must be {must_be}, not {describe(thing, c)}{advice}")
    return 0


cdef int open_writable(column* c, object thing, bint (*takes)(int) noexcept nogil, str must_be, Py_ssize_t count,
                       const char* what) except -1:
    cdef bint good = False
    c.held = False
    if thing is None:
        return 0
    if get_buffer(thing, &c.view, PyBUF_FORMAT | PyBUF_STRIDES | PyBUF_WRITABLE) < 0:
        no_buffer()
        raise TypeError(f"{what.decode()} out must be {must_be}, not {type(thing).__name__}"
                        f"{', which is read-only' if is_buffer(thing) else ''}")
    hold_column(c)
    try:
        demand_kind(c, thing, takes, "out", must_be, what)
        if c.count != count:
            raise ValueError(f"{what.decode()} out has a length of {c.count}, for {count} slots")
        good = True
    finally:
        if not good:
            close_column(c)
    return 0


cdef tuple copy_items(object thing):
    """A copy of a sequence, None for what is no such. Python code runs between its items, and other threads."""
    if type(thing) is list or type(thing) is tuple:
        return tuple(thing)
    if isinstance(thing, (str, bytes, bytearray, Mapping)) or not PySequence_Check(thing) or not is_several(thing):
        return None
    return tuple(thing)


cdef bint is_several(object thing) except -1:
    """Whether it has a length. numpy's arrays without a dimension are of the type of those that have one."""
    if not has_length(thing):
        return False
    if PyObject_Size(<PyObject*>thing) >= 0:
        return True
    if error_matches(TypeError):
        PyErr_Clear()
        return False
    raise_pending()
    return False


cdef object index_of(object thing):
    """The int that thing is, or None."""
    cdef PyObject* index
    if not has_index(thing):
        return None
    index = index_or_error(thing)
    if index != NULL:
        whole = <object>index
        decref(index)
        return whole
    if not error_matches(TypeError):
        raise_pending()
    PyErr_Clear()
    return None


cdef void* new_memory(Py_ssize_t count, size_t size) except NULL:
    cdef void* memory = malloc(max(count, 1) * size)
    if memory == NULL:
        raise MemoryError()
    return memory


cdef inline int offer_gil(Py_ssize_t i) except -1:
    """The GIL, once in a while."""
    if i % OFFER_EVERY == OFFER_EVERY - 1:
        with nogil:
            pass
    return 0


cdef inline void load(const th_item* first, Py_ssize_t stride, Py_ssize_t k, th_eight* words) noexcept nogil:
    """k items to words. They may lie anywhere: packed records are not aligned."""
    cdef const char* at = <const char*>first
    cdef th_item item
    cdef Py_ssize_t i
    if stride == sizeof(th_item):
        for i in range(k):
            memcpy(&item, at + i * <Py_ssize_t>sizeof(th_item), sizeof(th_item))
            words[i] = <th_eight>item
    else:
        for i in range(k):
            memcpy(&item, at + i * stride, sizeof(th_item))
            words[i] = <th_eight>item


cdef void load_integers(column* c, Py_ssize_t position, Py_ssize_t k, int64_t* words) noexcept nogil:
    cdef const char* at = c.first + position * c.stride
    if c.kind & 15 == 8:
        load(<const int64_t*>at, c.stride, k, words)
    elif c.kind == OF_INT + 4:
        load(<const int32_t*>at, c.stride, k, words)
    elif c.kind == OF_UINT + 4:
        load(<const uint32_t*>at, c.stride, k, words)
    elif c.kind == OF_INT + 2:
        load(<const int16_t*>at, c.stride, k, words)
    elif c.kind == OF_UINT + 2:
        load(<const uint16_t*>at, c.stride, k, words)
    elif c.kind == OF_INT + 1:
        load(<const int8_t*>at, c.stride, k, words)
    else:
        load(<const uint8_t*>at, c.stride, k, words)


cdef void load_floats(column* c, Py_ssize_t position, Py_ssize_t k, double* words) noexcept nogil:
    cdef const char* at = c.first + position * c.stride
    if c.kind == OF_FLOAT + 8:
        load(<const double*>at, c.stride, k, words)
    else:
        load(<const float*>at, c.stride, k, words)


# ---- slots ----------------------------------------------------------------------------------------------------------

cdef int refuse_slot(object slot, Py_ssize_t position, uint32_t n, const char* what) except -1:
    """position: -1 for the only one."""
    where = f" at position {position}" if position >= 0 else ""
    raise IndexError(f"{what.decode()} slot {slot}{where} is out of range for {n} slots")


cdef int slot_of(object whole, Py_ssize_t position, uint32_t n, uint32_t* slot, const char* what) except -1:
    """whole: an int."""
    cdef int overflow = 0
    cdef long long value = PyLong_AsLongLongAndOverflow(whole, &overflow)
    if overflow or value < 0 or value >= n:
        refuse_slot(whole, position, n, what)
    slot[0] = <uint32_t>value
    return 0


cdef inline bint one_slot(object slots, uint32_t n, uint32_t* slot, const char* what) except -1:
    """Whether slots is one, an int; then slot is it."""
    if PyLong_CheckExact(<PyObject*>slots):
        slot_of(slots, -1, n, slot, what)
        return True
    return other_slot(slots, n, slot, what)


cdef bint other_slot(object slots, uint32_t n, uint32_t* slot, const char* what) except -1:
    if not has_index(slots) or is_several(slots):
        return False
    whole = index_of(slots)
    if whole is None:
        return False
    slot_of(whole, -1, n, slot, what)
    return True


cdef void close_slots(slot_column* s) noexcept:
    close_column(&s.buffer)
    free(s.own)


cdef int range_of(slot_column* s, object numbers) except -1:
    """A range, whose numbers may be of any size."""
    if not numbers:
        s.start, s.step, s.count = 0, 1, 0
        return 0
    first, last, step = numbers[0], numbers[::-1][0], numbers.step
    if not 0 <= first < s.n:
        refuse_slot(first, 0, s.n, s.what)
    if not 0 <= last < s.n:
        position = ((s.n - 1 - first) // step if step > 0 else first // -step) + 1
        refuse_slot(numbers[position], position, s.n, s.what)
    s.start, s.count = first, len(numbers)
    s.step = step if s.count > 1 else 1
    return 0


cdef int own_slots(slot_column* s, tuple items) except -1:
    cdef Py_ssize_t i
    s.count = len(items)
    s.own = <uint32_t*>new_memory(s.count, sizeof(uint32_t))
    for i in range(s.count):
        item = items[i]
        whole = item if PyLong_CheckExact(<PyObject*>item) else index_of(item)
        if whole is None:
            raise TypeError(f"{s.what.decode()} slots must be ints, not {type(item).__name__} at position {i}")
        slot_of(whole, i, s.n, &s.own[i], s.what)
        offer_gil(i)
    return 0


cdef Py_ssize_t narrow(slot_column* s, Py_ssize_t position, Py_ssize_t k, uint32_t* piece,
                       int64_t* wrong) noexcept nogil:
    """k slots of the buffer to piece: the position of the first that is out of range, wrong being it, or -1."""
    cdef int64_t words[PIECE]
    cdef uint64_t last = <uint64_t>s.n - 1, out = 0
    cdef Py_ssize_t i
    load_integers(&s.buffer, position, k, words)
    for i in range(k):
        out |= <uint64_t>words[i] | (last - <uint64_t>words[i])     # the highest bit, if it is negative or too large
        piece[i] = <uint32_t>words[i]
    if out >> 63:
        for i in range(k):
            if not 0 <= words[i] < <int64_t>s.n:
                wrong[0] = words[i]
                return position + i
    return -1


cdef int refuse_word(slot_column* s, Py_ssize_t position, int64_t wrong) except -1:
    refuse_slot(<uint64_t>wrong if s.buffer.kind == OF_UINT + 8 else wrong, position, s.n, s.what)
    return 0


cdef Py_ssize_t find_wrong(slot_column* s, int64_t* wrong) noexcept nogil:
    cdef uint32_t piece[PIECE]
    cdef Py_ssize_t at = 0, position = -1
    while position < 0 and at < s.count:
        position = narrow(s, at, min(<Py_ssize_t>PIECE, s.count - at), piece, wrong)
        at += PIECE
    return position


cdef int check_slots(slot_column* s) except -1:
    cdef int64_t wrong = 0
    cdef Py_ssize_t position
    if s.count < OFFER_EVERY:
        position = find_wrong(s, &wrong)
    else:
        with nogil:
            position = find_wrong(s, &wrong)
    if position >= 0:
        refuse_word(s, position, wrong)
    return 0


cdef int refuse_slots(object slots, const char* what) except -1:
    raise TypeError(f"{what.decode()} slots must be {SLOTS_ARE}, not {type(slots).__name__}")


cdef int take_slots(slot_column* s, object slots) except -1:
    cdef Py_ssize_t stop
    if slots is None:
        s.start, s.step, s.count = 0, 1, s.n
    elif type(slots) is slice:
        PySlice_Unpack(slots, &s.start, &stop, &s.step)
        s.count = PySlice_AdjustIndices(s.n, &s.start, &stop, s.step)
    elif type(slots) is range:
        range_of(s, slots)
    elif open_column(&s.buffer, slots, is_slot, "slots", SLOTS_ARE, s.what):
        s.count = s.buffer.count
        check_slots(s)
    else:
        items = copy_items(slots)
        if items is None:
            refuse_slots(slots, s.what)
        own_slots(s, items)
    return 0


cdef int open_slots(slot_column* s, object slots, uint32_t n, const char* what) except -1:
    """Several, each of them looked at; None: all there are. close_slots is for what was opened."""
    cdef bint good = False
    s.n = n
    s.own = NULL
    s.buffer.held = False
    s.what = what
    try:
        take_slots(s, slots)
        good = True
    finally:
        if not good:
            close_slots(s)
    return 0


cdef int read_slots(slot_column* s, Py_ssize_t at, Py_ssize_t k, uint32_t* piece) except -1:
    """k of them, at most PIECE, from position at on. IndexError when somebody has changed one meanwhile."""
    cdef int64_t wrong = 0
    cdef Py_ssize_t i, position
    if s.buffer.held:
        position = narrow(s, at, k, piece, &wrong)
        if position >= 0:
            refuse_word(s, position, wrong)
    elif s.own != NULL:
        memcpy(piece, s.own + at, k * sizeof(uint32_t))
    else:
        for i in range(k):
            piece[i] = <uint32_t>(s.start + (at + i) * s.step)
    return 0


# ---- durations ------------------------------------------------------------------------------------------------------

cdef inline void close_ns(ns_column* d) noexcept:
    if not d.single:
        close_column(&d.buffer)
        free(d.own)


cdef int64_t saturated(object whole) except? -1:
    """An int."""
    cdef int overflow = 0
    cdef long long value = PyLong_AsLongLongAndOverflow(whole, &overflow)
    if overflow:
        return TH_NEVER if overflow > 0 else INT64_MIN
    return value


cdef int int_to_ns(object value, int64_t* ns, const char* what) except -1:
    """Nanoseconds, which are an int."""
    whole = value if PyLong_CheckExact(<PyObject*>value) else index_of(value)
    if whole is None:
        raise TypeError(f"{what.decode()} must be an int, of nanoseconds, not {type(value).__name__}")
    ns[0] = saturated(whole)
    return 0


cdef int item_to_ns(ns_column* d, object item, Py_ssize_t position, int64_t* ns) except -1:
    """position: -1 for the only one. Of an exact float or int the name is needed by an error alone, and it is dear."""
    cdef char named[NAMED]
    cdef double value
    if PyLong_CheckExact(<PyObject*>item):
        return other_to_ns(item, ns, d.what) if d.seconds else int_to_ns(item, ns, d.what)
    if d.seconds and PyFloat_CheckExact(item):
        value = PyFloat_AS_DOUBLE(item)
        if value == value:
            ns[0] = th_from_seconds(value)
            return 0
    if position < 0:
        snprintf(named, NAMED, "%s %s", d.what, name_of(d))
    else:
        snprintf(named, NAMED, "%s %s at position %lld", d.what, name_of(d), <long long>position)
    return to_ns(item, ns, named) if d.seconds else int_to_ns(item, ns, named)


cdef const char* name_of(ns_column* d) noexcept:
    return b"delay" if d.seconds else b"ns"


cdef int demand_count(ns_column* d, Py_ssize_t found, Py_ssize_t count) except -1:
    if found != count:
        raise ValueError(f"{d.what.decode()} {name_of(d).decode()} has a length of {found}, for {count} slots")
    return 0


cdef int own_durations(ns_column* d, tuple items) except -1:
    cdef Py_ssize_t i, count = len(items)
    d.own = <int64_t*>new_memory(count, sizeof(int64_t))
    for i in range(count):
        item_to_ns(d, items[i], i, &d.own[i])
        offer_gil(i)
    return 0


cdef Py_ssize_t find_nan(column* c) noexcept nogil:
    """The position of the first, or -1."""
    cdef double words[PIECE]
    cdef Py_ssize_t at = 0, k, i
    cdef bint nan = False
    while at < c.count:
        k = min(<Py_ssize_t>PIECE, c.count - at)
        load_floats(c, at, k, words)
        for i in range(k):
            nan |= words[i] != words[i]
        if nan:
            for i in range(k):
                if words[i] != words[i]:
                    return at + i
        at += PIECE
    return -1


cdef int refuse_nan(ns_column* d, Py_ssize_t position) except -1:
    raise ValueError(f"{d.what.decode()} delay at position {position} must not be NaN")


cdef int check_durations(ns_column* d) except -1:
    """Whole numbers are all good."""
    cdef Py_ssize_t position
    if is_integer(d.buffer.kind):
        return 0
    if d.buffer.count < OFFER_EVERY:
        position = find_nan(&d.buffer)
    else:
        with nogil:
            position = find_nan(&d.buffer)
    if position >= 0:
        refuse_nan(d, position)
    return 0


cdef int take_durations(ns_column* d, object durations, Py_ssize_t count) except -1:
    """Several. count: -1 for a single slot, which has one."""
    must_be = DELAYS_ARE if d.seconds else NS_ARE
    name = name_of(d).decode()
    if count < 0:
        raise TypeError(f"{d.what.decode()} {name} must be one duration for one slot, not {type(durations).__name__}")
    if open_column(&d.buffer, durations, is_number if d.seconds else is_integer, name, must_be, d.what):
        demand_count(d, d.buffer.count, count)
        return check_durations(d)
    items = copy_items(durations)
    if items is None:
        raise TypeError(f"{d.what.decode()} {name} must be {must_be}, not {type(durations).__name__}")
    demand_count(d, len(items), count)
    return own_durations(d, items)


cdef int open_other_ns(ns_column* d, object delay, object ns, Py_ssize_t count, const char* what) except -1:
    cdef bint good = False
    cdef bint missing = delay is None or delay is MISSING
    d.seconds = ns is None or ns is MISSING
    d.own = NULL
    d.buffer.held = False
    d.what = what
    if d.seconds == missing:
        raise TypeError(f"{what.decode()} " + ("needs a delay, in seconds, or ns=, in nanoseconds" if missing else
                                               "takes a delay or ns=, not both"))
    durations = delay if d.seconds else ns
    if PyLong_CheckExact(<PyObject*>durations) or not is_several(durations):
        return item_to_ns(d, durations, -1, &d.ns)
    d.single = False
    try:
        take_durations(d, durations, count)
        good = True
    finally:
        if not good:
            close_ns(d)
    return 0


cdef inline int open_ns(ns_column* d, object delay, object ns, Py_ssize_t count, const char* what) except -1:
    """One duration for all slots, or one for each of count; count is -1 for a single slot, and then it must be one."""
    cdef double seconds
    d.single = True
    if PyFloat_CheckExact(delay) and ns is None:
        seconds = PyFloat_AS_DOUBLE(delay)
        if seconds == seconds:
            d.ns = th_from_seconds(seconds)
            return 0
    return open_other_ns(d, delay, ns, count, what)


cdef inline bint seconds_to_ns(double seconds, int64_t* ns) noexcept nogil:
    """th_from_seconds, in fewer steps for up to three weeks: they take one conversion. False for NaN."""
    cdef double product = seconds * 1e9, distance, near
    cdef int64_t nearest
    if 0 < product < 2e15:
        nearest = <int64_t>(product + 0.5)
        distance = product - <double>nearest
        near = product * 4.5e-16
        if distance * distance > near * near:
            ns[0] = nearest + (distance > 0)
            return True
        if th_to_seconds(nearest) == seconds:
            ns[0] = nearest
            return True
    if seconds != seconds:
        return False
    ns[0] = th_from_seconds(seconds)
    return True


cdef Py_ssize_t convert_piece(ns_column* d, Py_ssize_t at, Py_ssize_t k, int64_t* piece) noexcept:
    """k items of the buffer to nanoseconds: the position of the first that is NaN, or -1."""
    cdef double words[PIECE]
    cdef Py_ssize_t i
    if not is_integer(d.buffer.kind):
        load_floats(&d.buffer, at, k, words)
        for i in range(k):
            if not seconds_to_ns(words[i], &piece[i]):
                return at + i
        return -1
    load_integers(&d.buffer, at, k, piece)
    if d.buffer.kind == OF_UINT + 8:
        for i in range(k):
            piece[i] = piece[i] if piece[i] >= 0 else TH_NEVER
    if d.seconds:
        for i in range(k):
            whole_to_ns(piece[i], 0, &piece[i])
    return -1


cdef int read_ns(ns_column* d, Py_ssize_t at, Py_ssize_t k, int64_t* piece) except -1:
    """k of them, at most PIECE, from position at on. ValueError when somebody has made one NaN meanwhile."""
    cdef Py_ssize_t i, position
    if d.single:
        for i in range(k):
            piece[i] = d.ns
    elif d.own != NULL:
        memcpy(piece, d.own + at, k * sizeof(int64_t))
    else:
        position = convert_piece(d, at, k, piece)
        if position >= 0:
            refuse_nan(d, position)
    return 0


# ---- results --------------------------------------------------------------------------------------------------------

cdef int open_out(out_column* o, object out, Py_ssize_t count, const char* what) except -1:
    """None: nobody wants to know."""
    return open_writable(&o.buffer, out, is_byte, OUT_IS, count, what)


cdef void write_out(out_column* o, Py_ssize_t at, Py_ssize_t k, const uint8_t* piece) noexcept nogil:
    cdef column* c = &o.buffer
    cdef Py_ssize_t i
    if c.held:
        for i in range(k):
            c.first[(at + i) * c.stride] = piece[i]


cdef void close_out(out_column* o) noexcept:
    close_column(&o.buffer)


cdef int open_times(time_column* o, object out, Py_ssize_t count, const char* what) except -1:
    return open_writable(&o.buffer, out, is_time, TIMES_ARE, count, what)


cdef void write_times(time_column* o, Py_ssize_t at, Py_ssize_t k, const double* piece) noexcept nogil:
    cdef column* c = &o.buffer
    cdef Py_ssize_t i
    if c.held:
        for i in range(k):
            memcpy(c.first + (at + i) * c.stride, &piece[i], sizeof(double))


cdef void close_times(time_column* o) noexcept:
    close_column(&o.buffer)
