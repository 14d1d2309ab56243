"""Timer and after: one value, the deadline, on a channel whose readiness follows the clock."""

import gc
import time

import pytest
from helpers import FAR, Background

from timerheap import Channel, Timer, after


def test_the_value_is_the_deadline_not_the_time_of_delivery(manual):
    timer = Timer(2, heap=manual)
    manual.advance(5)
    assert timer.c.recv() == 2.0


def test_the_value_is_the_deadline_by_the_monotonic_clock():
    before = time.monotonic()
    timer = Timer(0.02)
    after_arming = time.monotonic()
    when = timer.when
    assert timer.c.recv() == when
    assert before + 0.02 - 1e-6 <= when <= after_arming + 0.02 + 1e-6


def test_recv_is_never_early():
    for delay in (0.0001, 0.001, 0.01, 0.05):
        start = time.monotonic()
        at = Timer(delay).c.recv()
        assert time.monotonic() >= at
        assert time.monotonic() - start >= delay


@pytest.mark.parametrize("delay", [0, -1, -0.0, float("-inf")])
def test_a_timer_due_at_once_is_readable_at_once(delay):
    for _ in range(1000):
        assert Timer(delay).c.poll() is not None


@pytest.mark.parametrize("delay", [0, -1])
def test_a_timer_reset_to_now_is_readable_at_once(delay):
    timer = Timer(FAR)
    for _ in range(1000):
        timer.reset(delay)
        assert timer.c.poll() is not None


def test_poll_gives_none_before_the_deadline(manual):
    timer = Timer(2, heap=manual)
    manual.advance(1)
    assert timer.c.poll() is None
    assert timer.active


def test_poll_gives_each_value_once(manual):
    timer = Timer(2, heap=manual)
    manual.advance(2)
    assert timer.c.poll() == 2.0
    assert timer.c.poll() is None
    assert not timer.active


def test_an_expired_value_stays_until_it_is_received(manual):
    timer = Timer(2, heap=manual)
    manual.advance(1000)
    assert timer.active
    assert timer.when == 2.0
    assert timer.c.poll() == 2.0


def test_recv_times_out():
    timer = Timer(FAR)
    start = time.monotonic()
    with pytest.raises(TimeoutError):
        timer.c.recv(timeout=0.05)
    assert time.monotonic() - start >= 0.05
    assert timer.active


@pytest.mark.parametrize("timeout", [0, -1])
def test_recv_without_patience_only_looks(timeout):
    timer = Timer(FAR)
    with pytest.raises(TimeoutError):
        timer.c.recv(timeout)
    timer.reset(0)
    assert timer.c.recv(timeout) is not None


def test_recv_prefers_the_value_to_the_timeout(manual):
    timer = Timer(1, heap=manual)
    manual.advance(1)
    assert timer.c.recv(timeout=0) == 1.0


@pytest.mark.parametrize("timeout", ["1", b"1", object(), 1j])
def test_recv_refuses_a_timeout_that_is_no_duration(timeout):
    with pytest.raises(TypeError):
        Timer(0).c.recv(timeout)


def test_recv_refuses_a_timeout_that_is_not_a_number():
    timer = Timer(0)
    with pytest.raises(ValueError):
        timer.c.recv(float("nan"))
    assert timer.c.poll() is not None


def test_recv_takes_an_endless_timeout():
    assert Timer(0.01).c.recv(timeout=float("inf")) is not None


def test_the_channel_stays_the_same_across_reset(manual):
    timer = Timer(1, heap=manual)
    channel = timer.c
    timer.reset(2)
    timer.stop()
    assert timer.c is channel
    assert isinstance(channel, Channel)


def test_no_value_of_an_earlier_arming_survives_stop(manual):
    timer = Timer(1, heap=manual)
    manual.advance(1)
    assert timer.stop()
    assert timer.c.poll() is None


def test_no_value_of_an_earlier_arming_survives_reset(manual):
    timer = Timer(1, heap=manual)
    manual.advance(1)
    assert timer.reset(5)
    assert timer.c.poll() is None
    manual.advance(5)
    assert timer.c.poll() == 6.0


def test_a_blocked_receiver_gets_the_value_of_a_reset():
    timer = Timer(FAR)
    receiver = Background(timer.c.recv)
    time.sleep(0.02)
    assert timer.reset(0.01)
    when = timer.when
    got = receiver.result()
    assert when is None or got == when


def test_a_blocked_receiver_waits_out_a_reset_to_later():
    timer = Timer(0.1)
    receiver = Background(timer.c.recv)
    time.sleep(0.01)
    earliest = time.monotonic() + 0.3
    timer.reset(0.3)
    assert receiver.result() >= earliest


def test_a_receiver_of_a_stopped_timer_waits_for_a_reset():
    timer = Timer(0.05)
    receiver = Background(timer.c.recv)
    if timer.stop():
        time.sleep(0.1)
        assert receiver.running
        timer.reset(0)
    receiver.result()


def test_recv_on_a_stopped_timer_times_out():
    timer = Timer(0)
    timer.stop()
    with pytest.raises(TimeoutError):
        timer.c.recv(timeout=0.02)


def test_after_gives_a_channel():
    channel = after(0)
    assert isinstance(channel, Channel)
    assert channel.recv() is not None


def test_holding_only_the_channel_keeps_the_timer_working():
    channel = Timer(0.05).c
    gc.collect()
    assert channel.recv() is not None
    channel = after(0.05)
    gc.collect()
    assert channel.recv() is not None


def test_a_dropped_timer_with_its_channel_leaves_the_heap(manual):
    timer = Timer(1, heap=manual)
    channel = timer.c
    assert len(manual) == 1
    del timer
    assert len(manual) == 1
    del channel
    gc.collect()
    assert len(manual) == 0


def test_channels_are_made_by_timers_only():
    with pytest.raises(TypeError):
        Channel()


def test_a_far_deadline_is_not_due(manual):
    timer = Timer(float("inf"), heap=manual)
    assert timer.when == float("inf")
    manual.advance(10**9)
    assert timer.c.poll() is None
    assert timer.stop()


def test_a_channel_timer_needs_no_worker(heap):
    timer = Timer(0.01, heap=heap)
    assert timer.c.recv() is not None
