"""Ticker and tick: a grid of deadlines that never drifts, and a receiver that may be slow."""

import gc
import itertools
import math
import time
from contextlib import suppress

import pytest
from helpers import FAR, PATIENCE, Background, wait_until
from hypothesis import given
from hypothesis import strategies as st

from timerheap import AfterFunc, Channel, Ticker, TimerHeap, tick
from timerheap.testing import ManualHeap


def test_ticks_lie_on_the_grid(manual):
    ticker = Ticker(1, heap=manual)
    ticks = []
    for _ in range(5):
        manual.advance(1)
        ticks.append(ticker.c.poll())
    assert ticks == [1.0, 2.0, 3.0, 4.0, 5.0]


def test_the_first_tick_comes_after_a_period(manual):
    ticker = Ticker(1, heap=manual)
    assert ticker.c.poll() is None
    manual.advance(1 - 1e-9)
    assert ticker.c.poll() is None


def test_a_slow_receiver_finds_the_oldest_tick_and_then_the_grid(manual):
    ticker = Ticker(1, heap=manual)
    manual.advance(5.5)
    assert ticker.c.poll() == 1.0
    assert ticker.c.poll() is None
    manual.advance(0.5)
    assert ticker.c.poll() == 6.0


def test_a_receiver_exactly_on_the_grid_gets_the_next_tick_a_period_later(manual):
    ticker = Ticker(1, heap=manual)
    manual.advance(5)
    assert ticker.c.poll() == 1.0
    assert ticker.c.poll() is None
    manual.advance(1)
    assert ticker.c.poll() == 6.0


@given(
    period=st.integers(1, 10**10), pauses=st.lists(st.integers(0, 10**11), min_size=1, max_size=30)
)
def test_every_tick_follows_the_rule(period, pauses):
    """next = when + period * (1 + late // period), in whole nanoseconds."""
    heap = ManualHeap()
    ticker = Ticker(period / 1e9, heap=heap)
    now, due = 0, period
    for pause in pauses:
        heap.advance(pause / 1e9)
        now += pause
        expected = None
        if due <= now:
            expected = due / 1e9
            due += period * (1 + (now - due) // period)
        assert ticker.c.poll() == expected


def test_real_ticks_lie_on_the_grid_and_are_never_early():
    with Ticker(0.003) as ticker:
        ticks = []
        for at in itertools.islice(ticker, 30):
            assert time.monotonic() >= at
            ticks.append(at)
            time.sleep(0.004 * (len(ticks) % 3 == 0))
    for earlier, later in itertools.pairwise(ticks):
        periods = (later - earlier) / 0.003
        assert round(periods) >= 1
        assert periods == pytest.approx(round(periods), abs=1e-4)


def test_iterates(manual):
    ticker = Ticker(1, heap=manual)
    assert iter(ticker) is ticker
    manual.advance(1)
    assert next(ticker) == 1.0


def test_the_end_of_the_block_stops_it(manual):
    with Ticker(1, heap=manual) as ticker:
        assert len(manual) == 1
    assert len(manual) == 0
    manual.advance(5)
    assert ticker.c.poll() is None


def test_an_exception_leaves_the_block_and_stops_it(manual):
    with pytest.raises(KeyError), Ticker(1, heap=manual):
        raise KeyError
    assert len(manual) == 0


def test_iteration_ends_when_it_is_stopped():
    ticker = Ticker(0.01)
    AfterFunc(0.1, ticker.stop)
    receiver = Background(lambda: list(ticker))
    receiver.result()
    with pytest.raises(StopIteration):
        next(ticker)


def test_iteration_ends_when_it_is_stopped_far_from_its_next_tick():
    ticker = Ticker(FAR)
    receiver = Background(lambda: list(ticker))
    time.sleep(0.05)
    ticker.stop()
    assert receiver.result() == []


def test_iterations_end_wherever_they_stand_in_the_line():
    """Behind receivers whom a stop does not concern, one of whom gives up at that moment."""
    ticker = Ticker(FAR)
    receivers, iterations = [], []
    for timeout in (PATIENCE, 0.3, None):
        receivers.append(Background(patiently, ticker.c, timeout))
        time.sleep(0.05)
        iterations.append(Background(list, ticker))
        time.sleep(0.05)
    ticker.stop()
    assert [iteration.result() for iteration in iterations] == [[], [], []]
    assert receivers[0].running
    assert receivers[2].running
    ticker.reset(0.001)
    for receiver in receivers:
        receiver.result()


def patiently(channel, timeout):
    with suppress(TimeoutError):
        channel.recv(timeout)


def test_iteration_ends_when_the_heap_is_closed():
    heap = TimerHeap("closing")
    ticker = Ticker(FAR, heap=heap)
    receiver = Background(lambda: list(ticker))
    time.sleep(0.05)
    heap.close()
    assert receiver.result() == []


def test_stop_gives_nothing_and_may_be_repeated(manual):
    ticker = Ticker(1, heap=manual)
    assert ticker.stop() is None
    assert ticker.stop() is None


def test_stop_discards_the_undelivered_tick(manual):
    ticker = Ticker(1, heap=manual)
    manual.advance(1)
    ticker.stop()
    assert ticker.c.poll() is None
    manual.advance(10)
    assert ticker.c.poll() is None


def test_reset_discards_the_undelivered_tick_and_starts_a_new_grid(manual):
    ticker = Ticker(1, heap=manual)
    manual.advance(2.5)
    assert ticker.reset(2) is None
    assert ticker.period == 2.0
    assert ticker.c.poll() is None
    manual.advance(2)
    assert ticker.c.poll() == 4.5
    manual.advance(2)
    assert ticker.c.poll() == 6.5


def test_reset_starts_a_stopped_ticker_again(manual):
    ticker = Ticker(1, heap=manual)
    ticker.stop()
    manual.advance(5)
    ticker.reset(1)
    manual.advance(1)
    assert ticker.c.poll() == 6.0
    assert len(manual) == 1


def test_a_blocked_receiver_follows_a_reset():
    ticker = Ticker(FAR)
    receiver = Background(ticker.c.recv)
    time.sleep(0.02)
    ticker.reset(0.01)
    receiver.result()
    ticker.stop()


BAD_PERIODS = [
    (0, ValueError),
    (0.0, ValueError),
    (-1, ValueError),
    (-1e-9, ValueError),
    (-math.inf, ValueError),
    (math.nan, ValueError),
    ("1", TypeError),
    (None, TypeError),
    (1j, TypeError),
]


@pytest.mark.parametrize(("period", "error"), BAD_PERIODS)
def test_refuses_a_period_that_is_not_positive(manual, period, error):
    with pytest.raises(error):
        Ticker(period, heap=manual)
    assert len(manual) == 0


@pytest.mark.parametrize(("period", "error"), BAD_PERIODS)
def test_tick_refuses_a_period_that_is_not_positive(period, error):
    with pytest.raises(error):
        tick(period)


@pytest.mark.parametrize(("period", "error"), BAD_PERIODS)
def test_a_bad_reset_leaves_it_as_it_was(manual, period, error):
    ticker = Ticker(1, heap=manual)
    manual.advance(1)
    with pytest.raises(error):
        ticker.reset(period)
    assert ticker.period == 1.0
    assert ticker.c.poll() == 1.0
    manual.advance(1)
    assert ticker.c.poll() == 2.0


@pytest.mark.parametrize("period", [math.inf, 1e300, 10**30])
def test_an_endless_period_never_ticks(manual, period):
    ticker = Ticker(period, heap=manual)
    control = AfterFunc(1, int, heap=manual)
    manual.advance(10**9)
    assert ticker.c.poll() is None
    assert not control.active


def test_a_period_that_overflows_after_its_first_tick_never_ticks_again():
    heap = ManualHeap()
    ticker = Ticker(6e9, heap=heap)
    heap.advance(7e9)
    assert ticker.c.poll() == 6e9
    heap.advance(2e9)
    assert ticker.c.poll() is None
    heap.check()


def test_the_shortest_period_is_a_nanosecond(manual):
    ticker = Ticker(1e-12, heap=manual)
    assert ticker.period == 1e-9
    manual.advance(1e-9)
    assert ticker.c.poll() == 1e-9


def test_a_ticker_of_a_nanosecond_does_not_wear_out_its_heap(heap):
    ticker = Ticker(1e-9, heap=heap)
    calls = []
    AfterFunc(0.05, calls.append, 1, heap=heap)
    ticks = [ticker.c.recv() for _ in range(1000)]
    assert all(earlier < later for earlier, later in itertools.pairwise(ticks))
    wait_until(lambda: calls)


def test_recv_times_out_between_ticks():
    ticker = Ticker(FAR)
    with pytest.raises(TimeoutError):
        ticker.c.recv(timeout=0.01)
    ticker.stop()


def test_tick_gives_a_channel_that_keeps_its_ticker_working():
    channel = tick(0.01)
    assert isinstance(channel, Channel)
    gc.collect()
    first = channel.recv()
    assert channel.recv() > first


def test_a_dropped_ticker_with_its_channel_leaves_the_heap(manual):
    ticker = Ticker(1, heap=manual)
    channel = ticker.c
    del ticker
    assert len(manual) == 1
    manual.advance(1)
    assert channel.poll() == 1.0
    del channel
    gc.collect()
    assert len(manual) == 0


def test_several_receivers_share_the_ticks_without_doubles():
    with Ticker(0.002) as ticker:
        receivers = [Background(lambda: [ticker.c.recv() for _ in range(25)]) for _ in range(4)]
        ticks = [at for receiver in receivers for at in receiver.result()]
    assert len(ticks) == len(set(ticks)) == 100
