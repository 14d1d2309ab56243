"""What TimerArray takes for slots, durations and results; what is wrong is said by position, and changes nothing."""

import array
import collections
import ctypes
import datetime
import fractions
import math
import re
import struct
import sys
import types

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timerheap import AfterFunc, TimerArray
from timerheap.testing import ManualHeap

N = 10
LONGEST = 2**63 - 1
"""Nanoseconds: whatever reaches this never fires."""

PIECE = 512
"""So many items are read at a time, and the next piece has its own positions to count on from."""

UNGUARDED = 1 << 16
"""Buffers of so many are checked without the GIL."""


class Indexed:
    """Something that has `__index__` and nothing else."""

    def __init__(self, value):
        self._value = value

    def __index__(self):
        if isinstance(self._value, Exception):
            raise self._value
        return self._value


class Doing:
    """A duration that does something when it is converted: between the look at the slots and their arming."""

    def __init__(self, deed):
        self._deed = deed

    def __float__(self):
        self._deed()
        return 1.0


OTHER_ORDER = ">" if sys.byteorder == "little" else "<"
"""Of bytes, in a format."""


def swapped(kind):
    return kind.__ctype_be__ if OTHER_ORDER == ">" else kind.__ctype_le__


def label(thing):
    """For a test's id: the same in each of pytest-xdist's processes."""
    return re.sub(" at 0x[0-9a-f]+", "", repr(thing))[:40]


@pytest.fixture
def slots(manual):
    """An array of N slots, all idle, its clock at 0."""
    return TimerArray(N, int, heap=manual)


def armed(timers):
    return [slot for slot, flag in enumerate(timers.active()) if flag]


def whens(timers, slots):
    return [timers.when(slot) for slot in slots]


def when_of(delay):
    """The deadline of one AfterFunc, counted from 0."""
    return AfterFunc(delay, int, heap=ManualHeap()).when


# ---- slots ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slot", [3, True, Indexed(3), type("Int", (int,), {})(3)], ids=label)
def test_one_slot_is_an_int(slots, slot):
    assert slots.reset(slot, 5) is False
    assert armed(slots) == [slot.__index__()]
    assert slots.active(slot) is True
    assert slots.when(slot) == 5.0
    assert slots.stop(slot) is True


FORMS = [
    [3, 1, 4],
    (3, 1, 4),
    [3, True, Indexed(4)],
    collections.deque([3, 1, 4]),
    collections.UserList([3, 1, 4]),
    *(array.array(code, [3, 1, 4]) for code in "iIlLqQ"),
    memoryview(array.array("q", [4, 1, 3]))[::-1],
    memoryview(array.array("i", [3, 0, 1, 0, 4]))[::2],
    memoryview(array.array("Q", [3, 1, 4])).cast("B").cast("N"),
    *((kind * 3)(3, 1, 4) for kind in (ctypes.c_int32, ctypes.c_uint32, ctypes.c_int64, ctypes.c_uint64)),
]


@pytest.mark.parametrize("several", FORMS, ids=label)
def test_several_slots_come_in_many_forms(slots, several):
    assert slots.reset(several, [5, 6, 7]) == 0
    assert whens(slots, [3, 1, 4]) == [5.0, 6.0, 7.0]
    assert list(slots.active(several)) == [1, 1, 1]
    assert slots.stop(several) == 3


@pytest.mark.parametrize("none", [[], (), range(0), range(70, 3), slice(4, 4), array.array("i")], ids=label)
def test_no_slots_are_no_work(slots, none):
    assert slots.reset(none, 5) == slots.reset(none, []) == slots.postpone(none, ns=[]) == slots.stop(none) == 0
    assert slots.active(none) == b""
    assert armed(slots) == []


edges = st.none() | st.integers(-13, 13) | st.sampled_from([2**80, -(2**80)])


@given(edges, edges, edges.filter(bool))
def test_a_slice_selects_as_in_a_list(start, stop, step):
    timers = TimerArray(N, int, heap=ManualHeap())
    found = list(range(N))[start:stop:step]
    assert timers.reset(slice(start, stop, step), list(range(1, len(found) + 1))) == 0
    assert whens(timers, found) == [float(delay) for delay in range(1, len(found) + 1)]
    assert armed(timers) == sorted(found)


def test_a_bad_slice_is_an_error_of_slices(slots):
    with pytest.raises(ValueError, match="step"):
        slots.reset(slice(0, 3, 0), 5)
    with pytest.raises(TypeError, match="slice"):
        slots.reset(slice(1.5, 3), 5)


def first_out(numbers, n):
    """The position and the number of the first that is no slot; None if all are."""
    return next(((position, slot) for position, slot in enumerate(numbers) if not 0 <= slot < n), None)


def try_slots(several, numbers):
    """Arms `several`, which has these numbers: all of them, or none and IndexError names the first wrong one."""
    timers = TimerArray(N, int, heap=ManualHeap())
    out = first_out(numbers, N)
    if out is None:
        timers.reset(several, 5)
        assert armed(timers) == sorted(set(numbers))
        return
    with pytest.raises(IndexError) as caught:
        timers.reset(several, 5)
    assert str(caught.value) == f"TimerArray.reset() slot {out[1]} at position {out[0]} is out of range for {N} slots"
    assert armed(timers) == []


bounds = st.integers(-25, 25)


@given(bounds, bounds, bounds.filter(bool))
def test_each_number_of_a_range_is_a_slot(start, stop, step):
    try_slots(range(start, stop, step), range(start, stop, step))


@pytest.mark.parametrize(
    "numbers",
    [
        range(3, 2**80, 2**80),
        range(7, 2**80),
        range(3, -(2**80), -3),
        range(2**80, 2**80 + 5),
        range(3, 2**80, 2**62),
        range(9, -(2**80), -(2**70)),
    ],
    ids=label,
)
def test_a_range_may_have_numbers_of_any_size(numbers):
    try_slots(numbers, numbers)


values = st.integers(0, N - 1) | st.integers(-3, N + 3) | st.sampled_from([2**31 - 1, 2**31, 2**32, 2**32 + 1, 2**63])


@given(st.lists(values), st.sampled_from([*"iIlLqQ", list, tuple]), st.sampled_from([1, -1, 2, -3]))
def test_what_is_out_of_range_is_named_in_every_format(numbers, form, step):
    if form in (list, tuple):
        try_slots(form(numbers[::step]), numbers[::step])
        return
    bits = 8 * array.array(form).itemsize
    numbers = [
        (number + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1) if form.islower() else number % 2**bits
        for number in numbers
    ]
    try_slots(memoryview(array.array(form, numbers))[::step], numbers[::step])


@pytest.mark.parametrize("wrong", [-1, N, 2**31, 2**32, 2**63, 2**64 - 1, 2**64, -(2**64)])
def test_a_slot_out_of_range_is_named(slots, wrong):
    for slot in (wrong, Indexed(wrong)):
        for call in (lambda slot: slots.reset(slot, 5), lambda slot: slots.postpone(slot, 5), slots.stop, slots.when):
            with pytest.raises(IndexError, match=rf"TimerArray.\w+\(\) slot {wrong} is out of range for 10 slots$"):
                call(slot)
    try_slots([3, wrong], [3, wrong])
    try_slots([3, Indexed(wrong)], [3, wrong])


@pytest.mark.parametrize("position", [0, PIECE - 1, PIECE, 3 * PIECE + 7, UNGUARDED, UNGUARDED + 999])
@pytest.mark.parametrize("code", ["i", "Q"])
def test_a_position_counts_from_the_beginning(position, code):
    numbers = array.array(code, [3]) * (UNGUARDED + 1000)
    numbers[position] = 77
    try_slots(numbers, numbers)
    try_slots(memoryview(numbers)[::-1], numbers[::-1])
    try_slots(list(numbers), numbers)


def test_an_array_without_slots_has_none(manual):
    timers = TimerArray(0, int, heap=manual)
    assert timers.stop() == timers.stop(slice(None)) == timers.reset([], 5) == 0
    for wrong in ([0], range(1), array.array("i", [0])):
        with pytest.raises(IndexError, match="slot 0 at position 0 is out of range for 0 slots"):
            timers.reset(wrong, 5)


def test_all_slots_are_meant_only_where_nothing_is_armed(slots):
    for arm in (slots.reset, slots.postpone):
        with pytest.raises(TypeError, match=r"slots must be .*, not NoneType"):
            arm(None, 5)
    slots.reset(slice(None), 5)
    assert slots.stop(None) == N


NO_SLOTS = [
    (1.5, "not float"),
    ("123", "not str"),
    (b"123", "not bytes"),
    (bytearray(b"123"), "not bytearray"),
    ({1: 2}, "not dict"),
    (collections.UserDict({0: 1}), "not UserDict"),
    (types.MappingProxyType({0: 1}), "not mappingproxy"),
    ({1, 2}, "not set"),
    (iter([1]), "not list_iterator"),
    (object(), "not object"),
    (int, "not type"),
    (array.array("d", [1.0]), "not array of format 'd'"),
    (array.array("h", [1]), "not array of format 'h'"),
    (array.array("B", [1]), "not array of format 'B'"),
    (memoryview(b"\1\0").cast("?"), "not memoryview of format '?': numpy.flatnonzero"),
    (memoryview(b"12"), "not memoryview of format 'B'"),
    (memoryview(bytes(16)).cast("i", (2, 2)), "not memoryview of 2 dimensions"),
    (memoryview(array.array("i", [3])).cast("B").cast("i", ()), "not memoryview of format 'i'"),
    ((swapped(ctypes.c_int32) * 1)(3), f"Array_1 of format '{OTHER_ORDER}i'"),
    ((ctypes.c_void_p * 1)(3), "not c_void_p_Array_1 of format"),
    ([1, 2.0], "must be ints, not float at position 1"),
    ([1, None], "must be ints, not NoneType at position 1"),
    ([[1]], "must be ints, not list at position 0"),
    ([1, Indexed(TypeError("no"))], "must be ints, not Indexed at position 1"),
]


@pytest.mark.parametrize(("wrong", "message"), NO_SLOTS, ids=[message for _, message in NO_SLOTS])
def test_what_is_no_slot_is_a_type_error(slots, wrong, message):
    slots.reset(7, 5)
    for call in (lambda wrong: slots.reset(wrong, 6), slots.stop, slots.active, slots.when):
        with pytest.raises(TypeError) as caught:
            call(wrong)
        assert str(caught.value).startswith("TimerArray.")
        assert "() slots must be " in str(caught.value)
        assert message in str(caught.value)
    assert armed(slots) == [7]
    assert slots.when(7) == 5.0


def test_an_error_of_an_item_is_its_own(slots):
    for wrong in (Indexed(ZeroDivisionError("mine")), [1, Indexed(ZeroDivisionError("mine"))]):
        with pytest.raises(ZeroDivisionError, match="mine"):
            slots.reset(wrong, 5)
    with pytest.raises(ZeroDivisionError):
        slots.reset([1, 2], [5, Doing(lambda: 1 // 0)])
    assert armed(slots) == []


def test_a_list_is_taken_as_it_was(slots):
    class Emptying:
        def __index__(self):
            numbers.clear()
            return 2

    numbers = [1, Emptying(), 3]
    slots.reset(numbers, 5)
    assert armed(slots) == [1, 2, 3]
    delays = [1, Doing(lambda: delays.clear()), 3]
    slots.reset([1, 2, 3], delays)
    assert whens(slots, [1, 2, 3]) == [1.0, 1.0, 3.0]


def test_of_slots_that_come_twice_the_last_one_wins(slots):
    assert slots.reset([4, 4, 5, 4], [1, 2, 3, 4]) == 2
    assert whens(slots, [4, 5]) == [4.0, 3.0]
    assert slots.stop([4, 4, 5]) == 2


# ---- durations ------------------------------------------------------------------------------------------------------

WHOLE = [5, 0, 7]

DURATIONS = [
    WHOLE,
    tuple(WHOLE),
    [5.0, 0.0, 7.0],
    [datetime.timedelta(seconds=5), fractions.Fraction(0), Indexed(7)],
    collections.deque(WHOLE),
    range(5, 8, 1)[::1],
    *(array.array(code, WHOLE) for code in "bBhHiIlLqQfd"),
    memoryview(array.array("d", WHOLE[::-1]))[::-1],
    memoryview(array.array("f", [5, 1, 0, 1, 7]))[::2],
    memoryview(array.array("h", [5, 1, 0, 1, 7]))[::2],
    *((kind * 3)(*WHOLE) for kind in (ctypes.c_double, ctypes.c_float, ctypes.c_uint8, ctypes.c_int64)),
]


@pytest.mark.parametrize("delays", DURATIONS, ids=label)
def test_durations_come_in_many_forms(slots, delays):
    assert slots.reset([1, 2, 3], delays) == 0
    assert whens(slots, [1, 2, 3]) == [float(delay) for delay in (range(5, 8) if type(delays) is range else WHOLE)]


NANOSECONDS = [
    WHOLE,
    [5, False, Indexed(7)],
    *(array.array(code, WHOLE) for code in "bBhHiIlLqQ"),
    memoryview(array.array("q", WHOLE[::-1]))[::-1],
]


@pytest.mark.parametrize("ns", NANOSECONDS, ids=label)
def test_nanoseconds_come_in_many_forms(slots, ns):
    assert slots.reset([1, 2, 3], ns=ns) == 0
    assert whens(slots, [1, 2, 3]) == [5 / 1e9, 0.0, 7 / 1e9]


@pytest.mark.parametrize(
    "delay",
    [5, 5.5, True, -1, 10**400, math.inf, datetime.timedelta(microseconds=7), fractions.Fraction(1, 3)],
    ids=label,
)
def test_one_duration_is_for_all(slots, delay):
    slots.reset(3, delay)
    slots.reset([1, 2], delay)
    assert whens(slots, [1, 2, 3]) == [when_of(delay)] * 3


@pytest.mark.parametrize("ns", [5, True, -1, 10**400, Indexed(7)], ids=label)
def test_nanoseconds_for_all_are_an_int(slots, ns):
    slots.reset(3, ns=ns)
    slots.reset([1, 2], ns=ns)
    nanoseconds = max(ns.__index__(), 0)
    assert whens(slots, [1, 2, 3]) == [nanoseconds / 1e9 if nanoseconds < LONGEST else math.inf] * 3


def moved(seconds, steps):
    """So many doubles further."""
    (bits,) = struct.unpack("q", struct.pack("d", seconds))
    return struct.unpack("d", struct.pack("q", bits + steps))[0]


near = st.builds(lambda ns, steps: moved(ns / 1e9, steps), st.integers(1, 2**58), st.integers(-3, 3))


@given(st.lists(st.floats(allow_nan=False) | st.floats(0, 100) | near, min_size=1, max_size=N))
def test_a_buffer_of_floats_is_as_exact_as_a_float(delays):
    timers = TimerArray(N, int, heap=ManualHeap())
    expected = [when_of(delay) for delay in delays]
    for form in (delays, array.array("d", delays)):
        timers.reset(slice(len(delays)), form)
        assert whens(timers, range(len(delays))) == expected


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=N))
def test_a_float32_is_the_number_that_it_is(delays):
    timers = TimerArray(N, int, heap=ManualHeap())
    timers.reset(slice(len(delays)), array.array("f", delays))
    assert whens(timers, range(len(delays))) == [when_of(delay) for delay in delays]


@pytest.mark.parametrize("code", ["q", "Q"])
def test_what_has_no_place_saturates(slots, code):
    large = array.array(code, [2**63 - 1, 10**10, 2**63 - 1 if code == "q" else 2**64 - 1])
    slots.reset([1, 2, 3], large)
    assert whens(slots, [1, 2, 3]) == [math.inf] * 3
    slots.reset([1, 2, 3], ns=large)
    assert whens(slots, [1, 2, 3]) == [math.inf, 10.0, math.inf]
    slots.reset([1, 2], array.array("q", [-(2**63), -(10**10)]))
    assert whens(slots, [1, 2]) == [0.0, 0.0]


@pytest.mark.parametrize("position", [0, 1, PIECE, UNGUARDED + 5])
@pytest.mark.parametrize("form", [lambda delays: delays, lambda delays: array.array("f", delays), list], ids="dfl")
def test_nan_is_named_by_its_position(position, form):
    timers = TimerArray(UNGUARDED + 10, int, heap=ManualHeap())
    delays = array.array("d", [5.0]) * len(timers)
    delays[position] = math.nan
    with pytest.raises(ValueError, match=rf"^TimerArray.reset\(\) delay at position {position} must not be NaN$"):
        timers.reset(slice(None), form(delays))
    assert timers.armed == 0


def test_one_nan_is_a_value_error(slots):
    for slot in (1, [1, 2]):
        with pytest.raises(ValueError, match=r"^TimerArray.postpone\(\) delay must not be NaN$"):
            slots.postpone(slot, math.nan)


@pytest.mark.parametrize("length", [0, 1, 3])
@pytest.mark.parametrize("form", [list, lambda whole: array.array("q", whole)], ids=["list", "array"])
def test_unequal_lengths_are_a_value_error(slots, length, form):
    with pytest.raises(ValueError, match=rf"^TimerArray.reset\(\) delay has a length of {length}, for 2 slots$"):
        slots.reset([1, 2], form([5] * length))
    with pytest.raises(ValueError, match=rf"^TimerArray.reset\(\) ns has a length of {length}, for 2 slots$"):
        slots.reset([1, 2], ns=form([5] * length))
    assert armed(slots) == []


def test_a_duration_is_given_once(slots):
    for slot in (1, [1, 2]):
        with pytest.raises(TypeError, match=r"TimerArray.reset\(\) needs a delay, in seconds, or ns=, in nanoseconds"):
            slots.reset(slot)
        with pytest.raises(TypeError, match=r"TimerArray.reset\(\) takes a delay or ns=, not both"):
            slots.reset(slot, 5, ns=5)
    assert armed(slots) == []


@pytest.mark.parametrize("several", [[5], (5,), array.array("d", [5]), "5", b"5"], ids=label)
def test_one_slot_has_one_duration(slots, several):
    for arm in (lambda: slots.reset(1, several), lambda: slots.reset(1, ns=several)):
        with pytest.raises(TypeError, match=rf"must be one duration for one slot, not {type(several).__name__}"):
            arm()


NO_DURATIONS = [
    ("12", "delay must be .*, not str"),
    (b"12", "delay must be .*, not bytes"),
    ({1: 2, 3: 4}, "delay must be .*, not dict"),
    ({1, 2}, "delay must be .*, not set"),
    (object(), "delay must be a number of seconds .*, not object"),
    (iter([1, 2]), "delay must be a number of seconds .*, not list_iterator"),
    (datetime.date(2030, 1, 1), "delay must be a duration, from now"),
    ([1, "2"], "delay at position 1 must be a number .*, not str"),
    ([1, [2]], "delay at position 1 must be a number .*, not list"),
    ([None, 1], "delay at position 0 must be a number .*, not NoneType"),
    (memoryview(b"\1\0").cast("?"), r"delay must be .*, not memoryview of format '\?'$"),
    (memoryview(b"12").cast("c"), "delay must be .*, not memoryview of format 'c'"),
    (memoryview(bytes(16)).cast("d", (1, 2)), "delay must be .*, not memoryview of 2 dimensions"),
    ((swapped(ctypes.c_double) * 2)(1, 2), f"delay must be .*Array_2 of format '{OTHER_ORDER}d'"),
]


@pytest.mark.parametrize(("wrong", "message"), NO_DURATIONS, ids=[message for _, message in NO_DURATIONS])
def test_what_is_no_duration_is_a_type_error(slots, wrong, message):
    with pytest.raises(TypeError, match=rf"^TimerArray.reset\(\) {message}"):
        slots.reset([1, 2], wrong)
    assert armed(slots) == []


NO_NANOSECONDS = [
    (5.0, "ns must be an int, of nanoseconds, not float"),
    (datetime.timedelta(1), "ns must be an int, of nanoseconds, not timedelta"),
    ([1, 2.0], "ns at position 1 must be an int, of nanoseconds, not float"),
    ("12", "ns must be an int, a sequence of ints .*, not str"),
    (array.array("d", [1, 2]), "ns must be an int, a sequence of ints .*, not array of format 'd'"),
    (array.array("f", [1, 2]), "ns must be an int, a sequence of ints .*, not array of format 'f'"),
]


@pytest.mark.parametrize(("wrong", "message"), NO_NANOSECONDS, ids=[message for _, message in NO_NANOSECONDS])
def test_what_is_no_int_is_no_nanoseconds(slots, wrong, message):
    with pytest.raises(TypeError, match=rf"^TimerArray.reset\(\) {message}"):
        slots.reset([1, 2], ns=wrong)
    assert armed(slots) == []


# ---- results --------------------------------------------------------------------------------------------------------

BYTES = [
    bytearray(b"999"),
    *(array.array(code, [9, 9, 9]) for code in "bB"),
    memoryview(bytearray(b"999")),
    memoryview(bytearray(b"999")).cast("?"),
    memoryview(bytearray(b"999")).cast("c"),
    memoryview(bytearray(b"99999"))[::2],
    memoryview(bytearray(b"999"))[::-1],
    (ctypes.c_ubyte * 3)(9, 9, 9),
    (ctypes.c_bool * 3)(),
]


@pytest.mark.parametrize("out", BYTES, ids=label)
def test_out_gets_an_answer_for_each_slot(slots, out):
    slots.reset([1, 3], 5)
    assert slots.reset([1, 2, 3], 6, out=out) == 2
    assert [flag not in (0, b"\0") for flag in out] == [True, False, True]
    assert slots.active([3, 4, 5], out=out) is out
    assert [flag not in (0, b"\0") for flag in out] == [True, False, False]


def test_out_is_filled_beyond_a_piece(manual):
    timers = TimerArray(3 * PIECE + 5, int, heap=manual)
    timers.reset(slice(None, None, 7), range(len(range(0, len(timers), 7))))
    flags = bytearray(2 * len(timers))
    seconds = array.array("d", bytes(16 * len(timers)))
    timers.active(out=memoryview(flags)[::2])
    timers.when(out=memoryview(seconds)[::2])
    assert flags[::2] == bytes(slot % 7 == 0 for slot in range(len(timers)))
    assert [when for when in seconds[::2] if when == when] == [float(slot) for slot in range(len(timers) // 7 + 1)]
    assert not any(flags[1::2])
    assert not any(seconds[1::2])


NO_OUTS = [
    (bytes(3), TypeError, "out must be a writable, one-dimensional buffer of bytes, not bytes, which is read-only"),
    (memoryview(bytes(3)), TypeError, "not memoryview, which is read-only"),
    ([0, 0, 0], TypeError, "not list"),
    (1, TypeError, "not int"),
    (array.array("i", [0, 0, 0]), TypeError, "not array of format 'i'"),
    (memoryview(bytearray(3)).cast("B", (1, 3)), TypeError, "not memoryview of 2 dimensions"),
    (bytearray(2), ValueError, "out has a length of 2, for 3 slots"),
    (bytearray(4), ValueError, "out has a length of 4, for 3 slots"),
]


@pytest.mark.parametrize(("out", "error", "message"), NO_OUTS, ids=[message for _, _, message in NO_OUTS])
def test_what_cannot_be_written_to_is_no_out(slots, out, error, message):
    slots.reset(1, 5)
    for call in (
        lambda: slots.reset([1, 2, 3], 6, out=out),
        lambda: slots.postpone([1, 2, 3], 6, out=out),
        lambda: slots.stop([1, 2, 3], out=out),
        lambda: slots.active([1, 2, 3], out=out),
    ):
        with pytest.raises(error, match=message):
            call()
    assert whens(slots, [1, 2, 3]) == [5.0, None, None]


@pytest.mark.parametrize("out", [bytearray(24), array.array("f", [0, 0, 0]), array.array("q", [0, 0, 0])], ids=label)
def test_deadlines_go_into_float64(slots, out):
    with pytest.raises(TypeError, match=r"TimerArray.when\(\) out must be .* of float64, not \w+ of format"):
        slots.when([1, 2, 3], out=out)


def test_one_slot_has_an_out_of_one(slots):
    out = bytearray(1)
    slots.reset(3, 5)
    assert slots.stop(3, out=out) is True
    assert out == b"\1"
    with pytest.raises(ValueError, match="out has a length of 2, for 1 slots"):
        slots.reset(3, 5, out=bytearray(2))


# ---- buffers belong to others ---------------------------------------------------------------------------------------


def test_buffers_are_given_back(slots):
    numbers, delays, out = array.array("i", [1, 2]), array.array("d", [5, 6]), bytearray(2)
    slots.reset(numbers, delays, out=out)
    for wrong in (
        lambda: slots.reset(numbers, delays, out=bytearray(3)),
        lambda: slots.reset(numbers, array.array("d"), out=out),
        lambda: slots.reset(numbers, "12", out=out),
        lambda: slots.reset(array.array("i", [1, 2, 3]), delays, out=out),
        lambda: slots.active([1, 2, 3], out=out),
    ):
        with pytest.raises((TypeError, ValueError)):
            wrong()
    for wrong in (array.array("i", [1, 77]), array.array("d", [1.0]), array.array("h", [1])):
        with pytest.raises((IndexError, TypeError)):
            slots.reset(wrong, 5)
        wrong.append(0)
    with pytest.raises(ValueError, match="NaN"):
        slots.reset(numbers, nans := array.array("d", [math.nan, 1.0]))
    for column in (numbers, delays, out, nans):
        column.append(0)  # BufferError as long as somebody reads it


def test_a_released_buffer_is_an_error(slots):
    view = memoryview(array.array("i", [1]))
    view.release()
    with pytest.raises(ValueError, match="released"):
        slots.reset(view, 5)


@pytest.mark.parametrize("wild", [77, -1, 2**31 - 1, -(2**31)])
def test_a_slot_that_is_changed_meanwhile_is_looked_at_again(slots, wild):
    """All slots were good when the call began."""
    numbers = array.array("i", [1, 2, 3])

    def change():
        numbers[1] = wild

    with pytest.raises(IndexError, match=rf"slot {wild} at position 1 is out of range for 10 slots"):
        slots.reset(numbers, Doing(change))
    assert armed(slots) == []


def test_the_pieces_before_a_changed_slot_stay(manual):
    timers = TimerArray(3 * PIECE, int, heap=manual)
    numbers = array.array("q", range(len(timers)))

    def change():
        numbers[PIECE + 3] = 2**40

    with pytest.raises(IndexError, match=rf"slot {2**40} at position {PIECE + 3} "):
        timers.reset(numbers, Doing(change))
    assert armed(timers) == list(range(PIECE))


@pytest.mark.skipif(sys.version_info < (3, 12), reason="no __buffer__ before Python 3.12: nothing to run in between")
def test_a_duration_that_is_changed_meanwhile_is_looked_at_again(slots):
    class Out:
        def __buffer__(self, flags):
            delays[1] = math.nan
            return memoryview(bytearray(3))

    delays = array.array("d", [5, 6, 7])
    with pytest.raises(ValueError, match="delay at position 1 must not be NaN"):
        slots.reset([1, 2, 3], delays, out=Out())
    assert armed(slots) == []
