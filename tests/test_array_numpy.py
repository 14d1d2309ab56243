"""TimerArray and numpy: columns of its numbers, and what it has for durations."""

import threading

import pytest
from helpers import SANITIZER, turns

from timerheap import AfterFunc, TimerArray
from timerheap.testing import ManualHeap

if SANITIZER:
    pytest.skip("numpy is not what is to be looked at", allow_module_level=True)
np = pytest.importorskip("numpy")

N = 10

PACKED = np.dtype([("before", "i1"), ("slot", "i4"), ("delay", "f8"), ("flag", "u1")])
"""Records of 14 bytes, whose numbers are aligned to none."""


@pytest.fixture
def slots(manual):
    return TimerArray(N, int, heap=manual)


def armed(timers):
    return np.flatnonzero(np.frombuffer(timers.active(), np.uint8)).tolist()


def whens(timers, slots):
    return [timers.when(slot) for slot in slots]


def when_of(delay):
    return AfterFunc(delay, int, heap=ManualHeap()).when


def columns_of(numbers, dtype):
    """The same numbers, laid out in every way."""
    plain = np.array(numbers, dtype)
    apart = np.zeros((len(numbers), 3), dtype)
    apart[:, 1] = plain
    packed = np.zeros(len(numbers), [("before", "i1"), ("number", dtype)])
    packed["number"] = plain
    frozen = plain.copy()
    frozen.flags.writeable = False
    return [plain, plain[::-1].copy()[::-1], apart[:, 1], packed["number"], frozen, memoryview(plain)]


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int16, np.int32, np.int64, np.uint64, np.intp, np.longlong])
def test_one_number_of_numpy_is_one_slot(slots, kind):
    for slot in (kind(3), np.array(3, kind)):
        assert slots.reset(slot, 5) is False
        assert slots.stop(slot) is True
        with pytest.raises(IndexError, match="slot 10 is out of range"):
            slots.reset(slot + kind(7), 5)


@pytest.mark.parametrize("dtype", ["i4", "u4", "i8", "u8", "intp", "longlong", "=i8"])
def test_integers_are_slots(slots, dtype):
    for column in columns_of([3, 1, 4], dtype):
        assert slots.reset(column, [5, 6, 7]) == 0
        assert whens(slots, [3, 1, 4]) == [5.0, 6.0, 7.0]
        assert slots.stop(column) == 3
    for column in columns_of([3, 1, N], dtype):
        with pytest.raises(IndexError, match=f"slot {N} at position 2 is out of range for {N} slots"):
            slots.reset(column, 5)


def test_other_forms_of_slots(slots):
    for several in ([np.int64(3), np.uint8(1)], np.array([3, 1], object), np.flatnonzero([0, 1, 0, 1])):
        slots.reset(several, 5)
        assert armed(slots) == [1, 3]
        assert slots.stop(np.broadcast_to(np.int32(3), 5)) == 1
    assert slots.reset(np.array([], np.int64), np.array([])) == 0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (np.array([1.0]), "ndarray of format 'd'"),
        (np.array([]), "ndarray of format 'd'"),
        (np.array([True, False]), "ndarray of format '?': numpy.flatnonzero() has the slots of a mask"),
        (np.array([1], "i2"), "ndarray of format 'h'"),
        (np.array([1], "i8").astype(np.dtype("i8").newbyteorder()), "ndarray of format"),
        (np.array([[1]]), "ndarray of 2 dimensions"),
        (np.zeros(2, PACKED), "ndarray of format 'T{"),
        (np.array([1], "m8[s]"), "timedelta64 at position 0"),
        (np.array(["1"]), "ndarray of format"),
        (np.array([1.5], object), "float at position 0"),
        (np.array(1.5), "ndarray of format 'd'"),
        (np.float64(1), "float64 of format 'd'"),
        ([np.array([1, 2])], "ndarray at position 0"),
    ],
    ids=repr,
)
def test_what_is_no_slot_is_a_type_error(slots, wrong, message):
    with pytest.raises(TypeError) as caught:
        slots.reset(wrong, 5)
    assert message in str(caught.value)
    assert armed(slots) == []


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
def test_numbers_are_seconds(slots, dtype):
    for column in columns_of([5, 0, 7], dtype):
        slots.reset([1, 2, 3], column)
        assert whens(slots, [1, 2, 3]) == [5.0, 0.0, 7.0]
        if dtype[0] != "f":
            slots.reset([1, 2, 3], ns=column)
            assert whens(slots, [1, 2, 3]) == [5 / 1e9, 0.0, 7 / 1e9]


def test_other_forms_of_durations(slots):
    for delays in (
        np.array([5000, 7000], "m8[ms]"),
        [np.timedelta64(5, "s"), np.float32(7)],
        np.array([5, np.timedelta64(7, "s")], object),
    ):
        slots.reset([1, 2], delays)
        assert whens(slots, [1, 2]) == [5.0, 7.0]
    for delay in (np.timedelta64(67, "ms"), np.float64(0.067), np.array(0.067), np.float32(0.5), np.int16(3)):
        slots.reset(1, delay)
        slots.reset([2, 3], delay)
        assert whens(slots, [1, 2, 3]) == [when_of(delay)] * 3
    slots.reset([1, 2], ns=np.uint64(2**64 - 1))
    assert whens(slots, [1, 2]) == [float("inf")] * 2


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (np.array([1, "NaT"], "m8[s]"), ValueError, "delay at position 1 must not be NaT"),
        (np.array([1, np.nan]), ValueError, "delay at position 1 must not be NaN"),
        (np.array([1, np.nan], "f4"), ValueError, "delay at position 1 must not be NaN"),
        (np.array([1, 2, 3]), ValueError, "delay has a length of 3, for 2 slots"),
        (np.array([1, 2, 3], "m8[s]"), ValueError, "delay has a length of 3, for 2 slots"),
        (np.array([1, 2], "m8[M]"), TypeError, "delay at position 0 must have a unit of a fixed length"),
        (np.array([1, 2], "M8[s]"), TypeError, "delay at position 0 must be a duration, from now"),
        (np.array([1, 2], "f2"), TypeError, "ndarray of format 'e'"),
        (np.array([1, 2], np.longdouble), TypeError, "ndarray of format 'g'"),
        (np.array([1, 2], complex), TypeError, "ndarray of format 'Zd'"),
        (np.array([True, False]), TypeError, "ndarray of format '?'"),
        (np.array([[1.0, 2.0]]), TypeError, "ndarray of 2 dimensions"),
    ],
    ids=repr,
)
def test_what_is_no_duration_for_each_slot_is_an_error(slots, wrong, error, message):
    with pytest.raises(error) as caught:
        slots.reset([1, 2], wrong)
    assert message in str(caught.value)
    assert armed(slots) == []


def test_the_fields_of_records_are_columns(slots):
    records = np.zeros(3, PACKED)
    records["slot"], records["delay"] = [3, 1, 4], [5, 6, 7]
    slots.reset(1, 1)
    slots.reset(records["slot"], records["delay"], out=records["flag"])
    assert records["flag"].tolist() == [0, 1, 0]
    assert slots.when(records["slot"], out=records["delay"][::-1]).tolist() == [5.0, 6.0, 7.0]
    assert records["delay"].tolist() == [7.0, 6.0, 5.0]
    assert records["slot"].tolist() == [3, 1, 4]
    assert not records["before"].any()


def test_flags_and_deadlines_go_into_arrays(slots):
    slots.reset([1, 3], 5)
    for dtype in (np.uint8, np.int8, np.bool_):
        assert slots.active(out=np.ones(N, dtype)).astype(bool).tolist() == [slot in (1, 3) for slot in range(N)]
    assert np.flatnonzero(slots.when(out=np.zeros(N)) == 5.0).tolist() == [1, 3]
    for out in (np.broadcast_to(np.uint8(0), N), np.zeros(N, np.uint16), np.zeros((N, 1), np.uint8)):
        with pytest.raises(TypeError, match="out must be a writable, one-dimensional buffer of bytes"):
            slots.active(out=out)
    with pytest.raises(TypeError, match="out must be a writable, one-dimensional buffer of float64"):
        slots.when(out=np.zeros(N, np.float32))


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint64])
def test_whatever_is_written_meanwhile_no_other_slot_is_touched(heap, dtype):
    """numpy copies without the GIL, so buffers change under the eyes of the call. Odd slots are never named."""
    size = 50_000
    timers = TimerArray(2 * size, int, heap=heap)
    good = np.arange(0, 2 * size, 2).astype(dtype)
    wild = good.copy()
    wild[1::2] = np.random.default_rng(1).integers(2 * size, np.iinfo(np.int32).max, size // 2).astype(dtype)
    numbers, delays = good.copy(), np.full(size, 3600.0)
    over = threading.Event()

    def write():
        while not over.is_set():
            np.copyto(numbers, wild)
            np.copyto(delays, np.nan)
            np.copyto(numbers, good)
            np.copyto(delays, 3600.0)

    writer = threading.Thread(target=write)
    writer.start()
    refused = set()
    try:
        for _ in turns(300, seconds=2):
            try:
                timers.reset(numbers, delays)
            except (IndexError, ValueError) as error:
                refused.add(str(error))
    finally:
        over.set()
        writer.join()
    assert refused
    for message in refused:
        assert "must not be NaN" in message or int(message.split()[2]) in wild[1::2]
    timers.reset(numbers, delays)
    assert armed(timers) == good.tolist()
    heap.check()
    assert timers.stop() == size
