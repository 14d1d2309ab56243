"""Durations: seconds in, whole nanoseconds inside, rounded once; bad ones change nothing."""

import datetime
import decimal
import fractions
import math
import sys
import time
import types

import pytest
from helpers import wait_until
from hypothesis import example, given, settings
from hypothesis import strategies as st

from timerheap import AfterFunc, Ticker, Timer, TimerHeap, after, select, sleep, tick
from timerheap.testing import ManualHeap

LONGEST = 2**63 - 1
"""Nanoseconds: whatever reaches this never fires."""


class Floating:
    """Something that has `__float__` and nothing else."""

    def __init__(self, value):
        self._value = value

    def __float__(self):
        if isinstance(self._value, Exception):
            raise self._value
        return self._value


class Indexed:
    """Something that has `__index__`, which `float` takes too."""

    def __index__(self):
        return 2


def when_of(delay):
    """The deadline, in seconds, of a delay counted from 0."""
    return AfterFunc(delay, int, heap=ManualHeap()).when


@pytest.mark.parametrize(
    ("delay", "seconds"),
    [
        (1, 1.0),
        (1.5, 1.5),
        (True, 1.0),
        (0, 0.0),
        (-1, 0.0),
        (-0.0, 0.0),
        (-math.inf, 0.0),
        (-(10**400), 0.0),
        (5e-324, 1e-9),
        (1e-10, 1e-9),
        (1e-9, 1e-9),
        (1.5e-9, 2e-9),
        (0.1, 0.1),
        (datetime.timedelta(seconds=1.5), 1.5),
        (datetime.timedelta(microseconds=1), 1e-6),
        (datetime.timedelta(days=-1), 0.0),
        (datetime.timedelta.min, 0.0),
        (datetime.timedelta.max, math.inf),
        (decimal.Decimal("0.25"), 0.25),
        (fractions.Fraction(1, 4), 0.25),
        (Floating(0.25), 0.25),
        (math.inf, math.inf),
        (1e300, math.inf),
        (10**400, math.inf),
        (LONGEST // 10**9 + 1, math.inf),
        (9.3e9, math.inf),
        (9e9, 9e9),
        (9 * 10**9, 9e9),
    ],
)
def test_a_delay_becomes_a_deadline(delay, seconds):
    assert when_of(delay) == seconds


def test_a_delay_may_have_index_only():
    assert when_of(Indexed()) == 2.0


@pytest.mark.parametrize("delay", ["1", b"1", bytearray(b"1"), None, 1j, object(), [], (), {}, int])
def test_what_has_no_float_is_a_type_error(delay):
    with pytest.raises(TypeError):
        when_of(delay)


@pytest.mark.parametrize(
    "delay", [math.nan, -math.nan, decimal.Decimal("NaN"), Floating(math.nan)]
)
def test_nan_is_a_value_error(delay):
    with pytest.raises(ValueError):
        when_of(delay)


def test_an_error_of_float_is_passed_on():
    with pytest.raises(ZeroDivisionError):
        when_of(Floating(ZeroDivisionError()))


def test_a_float_that_gives_no_float_is_a_type_error():
    with pytest.raises(TypeError):
        when_of(Floating("1"))


BAD = [(math.nan, ValueError), ("1", TypeError), (None, TypeError), (b"", TypeError)]


@pytest.mark.parametrize(("bad", "error"), BAD)
@pytest.mark.parametrize(
    "take",
    [
        lambda bad, heap: AfterFunc(bad, print, heap=heap),
        lambda bad, heap: Timer(bad, heap=heap),
        lambda bad, heap: Ticker(bad, heap=heap),
        lambda bad, heap: after(bad),
        lambda bad, heap: tick(bad),
        lambda bad, heap: sleep(bad),
        lambda bad, heap: heap.advance(bad),
        lambda bad, heap: ManualHeap(bad),
    ],
    ids=["AfterFunc", "Timer", "Ticker", "after", "tick", "sleep", "advance", "ManualHeap"],
)
def test_everything_that_takes_a_duration_refuses_a_bad_one(manual, take, bad, error):
    with pytest.raises(error):
        take(bad, manual)
    assert len(manual) == 0
    assert manual.time() == 0.0
    assert manual.stats()["arms"] == 0


@pytest.mark.parametrize(("bad", "error"), BAD)
def test_a_bad_reset_leaves_a_function_timer_as_it_was(manual, bad, error):
    calls = []
    timer = AfterFunc(1, calls.append, 1, heap=manual)
    with pytest.raises(error):
        timer.reset(bad)
    assert timer.active
    assert timer.when == 1.0
    manual.advance(1)
    assert calls == [1]
    with pytest.raises(error):
        timer.reset(bad)
    assert not timer.active


@pytest.mark.parametrize(("bad", "error"), BAD)
def test_a_bad_reset_leaves_a_channel_timer_as_it_was(manual, bad, error):
    timer = Timer(1, heap=manual)
    manual.advance(1)
    with pytest.raises(error):
        timer.reset(bad)
    assert timer.c.poll() == 1.0


def test_what_a_delay_does_while_it_is_read_does_not_hurt(manual):
    """`__float__` is code: here it stops and resets the very timer that is being reset."""
    timer = AfterFunc(1, int, heap=manual)

    class Meddling:
        def __float__(self):
            timer.stop()
            timer.reset(7)
            timer.stop()
            return 2.0

    assert timer.reset(Meddling()) is False
    assert timer.when == 2.0
    manual.check()


def test_an_endless_delay_disturbs_nobody(heap):
    never = [AfterFunc(delay, print, heap=heap) for delay in (math.inf, 1e300, 10**400)]
    calls = []
    AfterFunc(0.01, calls.append, 1, heap=heap)
    wait_until(lambda: calls)
    assert all(timer.stop() for timer in never)


def test_an_endless_delay_does_not_run_when_the_clock_reaches_its_end():
    heap = ManualHeap(9e9)
    calls = []
    timer = AfterFunc(1e9, calls.append, 1, heap=heap)
    assert timer.when == math.inf
    AfterFunc(1e8, calls.append, 2, heap=heap)
    heap.advance(2e8)
    assert calls == [2]
    assert timer.stop()
    heap.check()


@given(st.integers(0, LONGEST - 1))
def test_an_integer_number_of_nanoseconds_is_kept_in_a_timedelta(microseconds):
    delay = datetime.timedelta(microseconds=microseconds // 1000)
    assert when_of(delay) == microseconds // 1000 * 1000 / 1e9


def nanoseconds_of(delay):
    """What a float becomes, by exact arithmetic, below 2**53 nanoseconds."""
    exact = fractions.Fraction(delay) * 10**9
    return round(exact) if round(exact) / 10**9 == delay else math.ceil(exact)


BELOW_2_TO_53_NS = st.one_of(
    st.floats(0, 9e6),
    st.floats(4e6, 4.6e6),  # a product of 1e9 has a fraction of a half here, at most
    st.integers(0, 2**53 - 1).map(lambda ns: ns / 1e9),
    st.integers(0, 2**53 - 2).map(lambda ns: math.nextafter(ns / 1e9, math.inf)),
    st.integers(1, 2**53 - 1).map(lambda ns: math.nextafter(ns / 1e9, 0)),
)


@given(BELOW_2_TO_53_NS)
@example(0.067)
@example(0.134)
@example(4198061.130108521)
@example(4364065.2 + 0.43683819)
def test_a_float_is_the_nanoseconds_it_is_nearest_to_and_rounded_up_otherwise(delay):
    assert when_of(delay) == nanoseconds_of(delay) / 1e9


@given(st.floats(2**53 / 1e9, 9.2e9))
def test_a_float_beyond_all_whole_nanoseconds_is_rounded_up(delay):
    """There the doubles are further apart than nanoseconds; one of them may be skipped, so that none is early."""
    assert delay <= when_of(delay) <= math.nextafter(delay, math.inf)


@given(st.integers(0, 86_400_000_000))
def test_a_decimal_is_as_many_nanoseconds_as_it_says(microseconds):
    assert when_of(microseconds / 1e6) == when_of(datetime.timedelta(microseconds=microseconds)) == microseconds / 1e6
    assert Ticker(microseconds / 1e6 or 1, heap=ManualHeap()).period == (microseconds / 1e6 or 1)


@given(st.floats(0, 9.2e9), st.floats(0, 9.2e9))
def test_a_longer_delay_is_not_due_before_a_shorter_one(one, other):
    assert when_of(min(one, other)) <= when_of(max(one, other))


@given(st.integers(0, 8 * 10**15), BELOW_2_TO_53_NS, st.integers(0, 10**6))
def test_a_deadline_is_never_early_by_the_clocks_own_float(now, delay, late):
    """The clock is read and shown as time.monotonic() does it: nanoseconds by 1e9. Whenever a timer may fire, it shows
    no less than the deadline, and had it begun at zero no less than the delay."""
    heap = ManualHeap(now / 1e9)
    assert heap.time() == now / 1e9
    span = nanoseconds_of(delay)
    when = AfterFunc(delay, int, heap=heap).when
    assert when == (now + span) / 1e9
    assert (now + span + late) / 1e9 >= when
    assert span / 1e9 >= delay


@settings(max_examples=50, deadline=None)
@given(st.one_of(st.floats(0, 2e-3), st.integers(0, 2000).map(lambda microseconds: microseconds / 1e6)))
def test_a_real_timer_is_never_early(delay):
    fired = []
    before = time.monotonic()
    timer = AfterFunc(delay, lambda: fired.append(time.monotonic()))
    when = timer.when
    wait_until(lambda: fired)
    assert fired[0] >= before + delay
    assert when is None or fired[0] >= when


@pytest.mark.parametrize("module", [types.ModuleType("datetime"), types.SimpleNamespace(timedelta=3), None])
def test_a_datetime_module_that_is_not_whole_disturbs_nobody(monkeypatch, module):
    """Another thread may be importing it for the first time."""
    monkeypatch.setitem(sys.modules, "datetime", module)
    assert when_of(Floating(0.25)) == 0.25
    assert when_of(datetime.timedelta(seconds=0.25)) == 0.25


@pytest.mark.parametrize("moment", [datetime.datetime(2030, 1, 1), datetime.date(2030, 1, 1), datetime.time(12)])
def test_a_moment_is_no_duration(moment):
    with pytest.raises(TypeError, match=r"AfterFunc\(\) delay must be a duration"):
        when_of(moment)


class NotATime(datetime.datetime):
    """As pandas.NaT: a datetime that is unlike itself."""

    __hash__ = None

    def __ne__(self, other):
        return True


def test_no_time_is_a_value_error():
    with pytest.raises(ValueError, match="NaT"):
        when_of(NotATime(2030, 1, 1))


class Finer(datetime.timedelta):
    """As pandas.Timedelta: what is below a microsecond is in an attribute."""

    nanoseconds = 7


def test_the_nanoseconds_of_a_timedelta_count():
    assert when_of(Finer(microseconds=2)) == 2007 / 1e9
    assert when_of(Finer(days=-1)) == 0.0


def test_an_overflow_of_what_has_no_sign_is_passed_on():
    with pytest.raises(OverflowError):
        when_of(Floating(OverflowError()))


def test_what_is_too_large_for_a_float_is_endless_or_over(manual):
    """A fraction has no index, and its float overflows; what it is compared with 0 tells which."""
    fired = []
    AfterFunc(fractions.Fraction(10**400), fired.append, "never", heap=manual)
    AfterFunc(fractions.Fraction(-(10**400)), fired.append, "at once", heap=manual)
    manual.advance(1e9)
    assert fired == ["at once"]


def test_a_type_error_of_a_kind_of_its_own_is_passed_on_as_it_is():
    class MyTypeError(TypeError):
        pass

    error = MyTypeError("mine")
    with pytest.raises(MyTypeError) as caught:
        AfterFunc(Floating(error), print)
    assert caught.value is error


def test_an_index_may_be_of_any_size():
    class Huge:
        def __index__(self):
            return 10**400

    assert when_of(Huge()) == math.inf


@given(st.integers(-(2**70), 2**70))
def test_an_integer_is_exact_or_endless(delay):
    nanoseconds = max(delay, 0) * 10**9
    assert when_of(delay) == (nanoseconds / 1e9 if nanoseconds < LONGEST else math.inf)


@given(st.timedeltas())
def test_a_timedelta_is_exact_or_endless(delay):
    nanoseconds = max(delay // datetime.timedelta(microseconds=1), 0) * 1000
    assert when_of(delay) == (nanoseconds / 1e9 if nanoseconds < LONGEST else math.inf)


@given(st.one_of(st.floats(), st.integers(), st.timedeltas(), st.decimals(allow_nan=False)))
def test_no_number_breaks_the_heap(delay):
    heap = ManualHeap()
    control = AfterFunc(1, int, heap=heap)
    try:
        AfterFunc(delay, int, heap=heap)
    except ValueError:
        assert delay != delay
    heap.check()
    heap.advance(1)
    assert not control.active
    heap.check()


@pytest.mark.parametrize("delay", [0, -1, -math.inf, -(10**400), datetime.timedelta(-1)])
def test_sleep_returns_at_once_when_there_is_nothing_to_wait_for(delay):
    sleep(delay)


def test_select_and_recv_take_a_timedelta():
    timer = Timer(math.inf)
    with pytest.raises(TimeoutError):
        timer.c.recv(datetime.timedelta(milliseconds=1))
    with pytest.raises(TimeoutError):
        select(timer.c, timeout=datetime.timedelta(milliseconds=1))


def test_a_period_is_told_in_seconds(manual):
    assert Ticker(datetime.timedelta(seconds=90), heap=manual).period == 90.0
    assert Ticker(2, heap=manual).period == 2.0


def test_an_endless_delay_does_not_keep_a_heap_from_closing():
    with TimerHeap("endless") as heap:
        AfterFunc(math.inf, print, heap=heap)
