"""What numpy and its relatives have for numbers and durations."""

import datetime

import pytest
from helpers import SANITIZER

from timerheap import AfterFunc, Ticker
from timerheap.testing import ManualHeap

if SANITIZER:
    pytest.skip("numpy is not what is to be looked at", allow_module_level=True)
np = pytest.importorskip("numpy")


def when_of(delay):
    """The deadline, in seconds, of a delay counted from 0."""
    return AfterFunc(delay, int, heap=ManualHeap()).when


SECONDS = {"W": 604800, "D": 86400, "h": 3600, "m": 60, "s": 1, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}


@pytest.mark.parametrize("wrap", [lambda delta: delta, np.array, lambda delta: np.array(delta, dtype=object)])
@pytest.mark.parametrize(("unit", "seconds"), SECONDS.items())
def test_a_timedelta64_counts_in_its_unit(wrap, unit, seconds):
    assert when_of(wrap(np.timedelta64(5, unit))) == pytest.approx(5 * seconds, abs=1e-12)
    assert when_of(wrap(np.timedelta64(5, f"3{unit}"))) == pytest.approx(15 * seconds, abs=1e-12)
    assert when_of(wrap(np.timedelta64(-5, unit))) == 0.0


def test_a_timedelta64_is_exact_or_endless():
    assert when_of(np.timedelta64(86_400_000_000_001, "ns")) == 86_400_000_000_001 / 1e9
    assert when_of(np.timedelta64(2**62, "W")) == float("inf")
    assert when_of(np.timedelta64(-(2**62), "W")) == 0.0
    assert Ticker(np.timedelta64(67, "ms"), heap=ManualHeap()).period == 0.067


@pytest.mark.parametrize("unit", ["ps", "fs", "as"])
def test_a_timedelta64_below_a_nanosecond_is_rounded_up(unit):
    assert when_of(np.timedelta64(1, unit)) == 1e-9
    assert when_of(np.timedelta64(-1, unit)) == 0.0


@pytest.mark.parametrize("unit", ["s", "ns", "M"])
def test_not_a_time_is_a_value_error(unit):
    for bad in (np.timedelta64("NaT", unit), np.array("NaT", dtype=f"m8[{unit}]")):
        with pytest.raises(ValueError, match="NaT"):
            when_of(bad)


@pytest.mark.parametrize("unit", ["Y", "M"])
def test_months_have_no_fixed_length(unit):
    with pytest.raises(TypeError, match="fixed length"):
        when_of(np.timedelta64(1, unit))


@pytest.mark.parametrize("bad", [np.datetime64("2030-01-01"), np.array("2030-01-01", dtype="M8[s]")])
def test_a_moment_is_no_duration(bad):
    with pytest.raises(TypeError, match="must be a duration"):
        when_of(bad)


@pytest.mark.parametrize(
    "bad",
    [
        np.array([np.timedelta64(1, "s")]),
        np.array([1.0, 2.0]),
        np.array([]),
        np.str_("1"),
        np.array("1"),
        np.bytes_(b"1"),
        np.array("1", dtype=object),
        np.complex128(1),
        np.void(b"1"),
    ],
    ids=repr,
)
def test_what_is_not_one_number_is_a_type_error(bad):
    with pytest.raises(TypeError, match=r"AfterFunc\(\) delay must be"):
        when_of(bad)


def test_masked_is_no_value():
    with pytest.raises(ValueError, match="NaT"):
        when_of(np.ma.array(np.timedelta64(1, "s"), mask=True))


@pytest.mark.parametrize(
    "kind", [np.float16, np.float32, np.float64, np.longdouble, np.int8, np.uint8, np.int64, np.uint64, np.bool_]
)
def test_numbers_are_welcome(kind):
    assert when_of(kind(1)) == 1.0
    assert when_of(np.array(1, dtype=kind)) == 1.0


def test_a_float64_is_a_float():
    assert when_of(np.float64(0.067)) == 0.067
    with pytest.raises(ValueError, match="NaN"):
        when_of(np.float64("nan"))
    with pytest.raises(ValueError, match="NaN"):
        when_of(np.float32("nan"))


def test_pandas_durations_are_exact():
    pd = pytest.importorskip("pandas")
    assert when_of(pd.Timedelta(86_400_000_000_001, "ns")) == 86_400_000_000_001 / 1e9
    assert when_of(pd.Timedelta(-1, "ns")) == 0.0
    for bad in (pd.NaT, pd.Timedelta("NaT")):
        with pytest.raises(ValueError, match="NaT"):
            when_of(bad)
    for bad in (pd.Timestamp(0), pd.Series([pd.Timedelta(1, "s")]), pd.Period("2030")):
        with pytest.raises(TypeError, match=r"AfterFunc\(\) delay must be"):
            when_of(bad)
    assert when_of(np.array(datetime.timedelta(seconds=1), dtype=object)) == 1.0
