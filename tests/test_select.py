"""select: waits for the first of several channels, and chooses at random among the ready."""

import time
from collections import Counter

import pytest
from helpers import FAR, Background

from timerheap import AfterFunc, Ticker, Timer, TimerHeap, select
from timerheap.testing import ManualHeap


def test_gives_the_channel_and_its_value(manual):
    timer = Timer(1, heap=manual)
    manual.advance(2)
    assert select(timer.c) == (timer.c, 1.0)


def test_gives_the_channel_that_is_ready():
    never, soon = Timer(FAR), Timer(0.01)
    channel, at = select(never.c, soon.c)
    assert channel is soon.c
    assert time.monotonic() >= at
    assert never.active
    assert not soon.active


def test_a_ready_channel_is_found_without_waiting():
    for _ in range(200):
        never, now = Timer(FAR), Timer(0)
        assert select(never.c, now.c, timeout=0)[0] is now.c


def test_leaves_the_values_of_the_others(manual):
    timers = [Timer(1, heap=manual) for _ in range(5)]
    manual.advance(1)
    chosen, _ = select(*(timer.c for timer in timers))
    for timer in timers:
        assert (timer.c.poll() is None) == (timer.c is chosen)


def test_chooses_at_random_among_the_ready(manual):
    timers = [Timer(0, heap=manual) for _ in range(3)]
    counts = Counter()
    for _ in range(600):
        channel, _ = select(*(timer.c for timer in timers))
        index = [timer.c for timer in timers].index(channel)
        counts[index] += 1
        timers[index].reset(0)
    # Each is expected 200 times; below 100 is eleven standard deviations away.
    assert min(counts[index] for index in range(3)) > 100


def test_times_out():
    timers = [Timer(FAR) for _ in range(3)]
    start = time.monotonic()
    with pytest.raises(TimeoutError):
        select(*(timer.c for timer in timers), timeout=0.05)
    assert time.monotonic() - start >= 0.05
    assert all(timer.active for timer in timers)


@pytest.mark.parametrize("timeout", [0, -1, 0.0])
def test_without_patience_it_only_looks(manual, timeout):
    timer = Timer(1, heap=manual)
    with pytest.raises(TimeoutError):
        select(timer.c, timeout=timeout)
    manual.advance(1)
    assert select(timer.c, timeout=timeout) == (timer.c, 1.0)


def test_refuses_an_empty_list():
    with pytest.raises(ValueError):
        select()
    with pytest.raises(ValueError):
        select(timeout=1)


@pytest.mark.parametrize("bad", [None, 1, "channel", [], object()])
def test_refuses_what_is_no_channel(bad):
    timer = Timer(0)
    with pytest.raises(TypeError):
        select(bad)
    with pytest.raises(TypeError):
        select(timer.c, bad)
    assert timer.c.poll() is not None


def test_refuses_a_timer_in_place_of_its_channel():
    with pytest.raises(TypeError):
        select(Timer(0))


@pytest.mark.parametrize(("timeout", "error"), [(float("nan"), ValueError), ("1", TypeError)])
def test_refuses_a_bad_timeout_and_takes_no_value(timeout, error):
    timer = Timer(0)
    with pytest.raises(error):
        select(timer.c, timeout=timeout)
    assert timer.c.poll() is not None


def test_takes_one_channel_twice(manual):
    timer = Timer(1, heap=manual)
    manual.advance(1)
    assert select(timer.c, timer.c) == (timer.c, 1.0)
    with pytest.raises(TimeoutError):
        select(timer.c, timer.c, timeout=0)


def test_takes_tickers_and_timers_together():
    timer = Timer(0.1)
    seen = Counter()
    with Ticker(0.01) as ticker:
        while timer.active:
            channel, _ = select(ticker.c, timer.c)
            seen["tick" if channel is ticker.c else "timer"] += 1
    assert seen["timer"] == 1
    assert seen["tick"] >= 1


def test_takes_channels_of_several_heaps():
    with TimerHeap("one") as one, TimerHeap("other") as other:
        never, soon = Timer(FAR, heap=one), Timer(0.02, heap=other)
        assert select(never.c, soon.c)[0] is soon.c
        assert select(never.c, Timer(0.02, heap=one).c)[0] is not never.c


def test_takes_many_channels(manual):
    timers = [Timer(1 + n, heap=manual) for n in range(1000)]
    manual.advance(1)
    assert select(*(timer.c for timer in timers)) == (timers[0].c, 1.0)


def test_a_blocked_select_follows_a_reset_of_any_of_its_channels():
    timers = [Timer(FAR) for _ in range(5)]
    for index in (0, 4, 2):
        selecting = Background(select, *(timer.c for timer in timers))
        time.sleep(0.02)
        timers[index].reset(0)
        assert selecting.result()[0] is timers[index].c


def test_a_blocked_select_is_woken_by_a_callback():
    timer = Timer(FAR)
    AfterFunc(0.05, timer.reset, 0)
    assert select(timer.c, timeout=20)[0] is timer.c


def test_of_several_selects_on_one_channel_one_gets_the_value():
    timer, stopper = Timer(FAR), Timer(FAR)
    selecting = [Background(select, timer.c, stopper.c) for _ in range(4)]
    time.sleep(0.05)
    for left in (3, 2, 1, 0):
        timer.reset(0)
        deadline = time.monotonic() + 20
        while sum(s.running for s in selecting) > left:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        time.sleep(0.01)
        assert sum(s.running for s in selecting) == left
    assert all(s.result()[0] is timer.c for s in selecting)


def test_a_select_on_a_closed_heap_raises():
    heap = TimerHeap("closing")
    timer = Timer(FAR, heap=heap)
    selecting = Background(select, timer.c)
    time.sleep(0.05)
    heap.close()
    with pytest.raises(RuntimeError):
        selecting.result()


def test_channels_of_a_manual_and_of_a_real_heap_can_be_asked_together():
    manual = ManualHeap()
    timer = Timer(1, heap=manual)
    manual.advance(1)
    assert select(timer.c, Timer(FAR).c, timeout=0)[0] is timer.c
