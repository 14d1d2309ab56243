"""AfterFunc: a function runs once, on the heap's worker, some seconds from now."""

import functools
import threading
import time

import pytest
from helpers import FAR, wait_until

from timerheap import AfterFunc, Timer
from timerheap.testing import ManualHeap


def test_calls_its_function_once(manual):
    calls = []
    AfterFunc(1, calls.append, "hello", heap=manual)
    manual.advance(10)
    assert calls == ["hello"]


def test_does_not_call_before_its_deadline(manual):
    calls = []
    AfterFunc(1, calls.append, "hello", heap=manual)
    manual.advance(1 - 1e-9)
    assert calls == []
    manual.advance(1e-9)
    assert calls == ["hello"]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 100])
def test_passes_positional_arguments(manual, count):
    calls = []
    AfterFunc(0, lambda *args: calls.append(args), *range(count), heap=manual)
    manual.advance(0)
    assert calls == [tuple(range(count))]


def test_a_tuple_as_the_only_argument_arrives_as_it_is(manual):
    calls = []
    AfterFunc(0, calls.append, (1, 2), heap=manual)
    AfterFunc(0, calls.append, (), heap=manual)
    manual.advance(0)
    assert calls == [(1, 2), ()]


def test_none_as_the_only_argument_arrives_as_it_is(manual):
    calls = []
    AfterFunc(0, calls.append, None, heap=manual)
    manual.advance(0)
    assert calls == [None]


def test_passes_the_same_arguments_at_every_run(manual):
    calls = []
    timer = AfterFunc(0, lambda *args: calls.append(args), "a", "b", heap=manual)
    for _ in range(3):
        manual.advance(0)
        timer.reset(0)
    manual.advance(0)
    assert calls == [("a", "b")] * 4


def test_refuses_keyword_arguments(manual):
    with pytest.raises(TypeError):
        AfterFunc(1, print, sep="", heap=manual)
    with pytest.raises(TypeError):
        AfterFunc(delay=1, func=print, heap=manual)
    assert len(manual) == 0


def test_partial_carries_keyword_arguments(manual):
    calls = []
    AfterFunc(0, functools.partial(dict, a=1), heap=manual)
    AfterFunc(0, functools.partial(lambda **kw: calls.append(kw), a=1), heap=manual)
    manual.advance(0)
    assert calls == [{"a": 1}]


@pytest.mark.parametrize("func", [None, 1, "print", object()])
def test_refuses_what_cannot_be_called(manual, func):
    with pytest.raises(TypeError):
        AfterFunc(1, func, heap=manual)
    assert len(manual) == 0


def test_refuses_a_missing_function(manual):
    with pytest.raises(TypeError):
        AfterFunc(1, heap=manual)
    with pytest.raises(TypeError):
        AfterFunc(heap=manual)


@pytest.mark.parametrize("bad", [1, "heap", object(), TimeoutError])
def test_refuses_what_is_no_heap(bad):
    with pytest.raises(TypeError):
        AfterFunc(FAR, print, heap=bad)


def test_gives_a_timer_without_a_channel(manual):
    timer = AfterFunc(1, print, heap=manual)
    assert isinstance(timer, Timer)
    assert timer.c is None


def test_is_active_until_it_runs(manual):
    timer = AfterFunc(1, int, heap=manual)
    assert timer.active
    assert timer.when == 1.0
    manual.advance(1)
    assert not timer.active
    assert timer.when is None


def test_is_inactive_inside_its_own_callback(manual):
    seen = []
    timer = AfterFunc(1, lambda: seen.append((timer.active, timer.when)), heap=manual)
    manual.advance(1)
    assert seen == [(False, None)]


def test_runs_although_its_handle_is_dropped(manual):
    calls = []
    timer = AfterFunc(1, calls.append, 1, heap=manual)
    del timer
    manual.advance(1)
    assert calls == [1]


def test_runs_on_the_worker(heap):
    names = []
    AfterFunc(0, lambda: names.append(threading.current_thread().name), heap=heap)
    wait_until(lambda: names)
    assert names == ["test"]


def test_is_never_early(heap):
    lateness = []

    def arm(delay):
        earliest = time.monotonic() + delay
        AfterFunc(delay, lambda: lateness.append(time.monotonic() - earliest), heap=heap)

    for step in range(2000):
        arm(step * 2.5e-5)
    wait_until(lambda: len(lateness) == 2000)
    assert min(lateness) >= 0


def test_a_chain_that_never_ends_does_not_starve_its_neighbours(heap):
    neighbours = []
    links = []

    def again():
        links.append(1)
        if len(neighbours) < 100:
            AfterFunc(0, again, heap=heap)

    again()
    for _ in range(100):
        AfterFunc(0.01, neighbours.append, 1, heap=heap)
    wait_until(lambda: len(neighbours) == 100)
    wait_until(lambda: len(heap) == 0)


def test_an_earlier_deadline_wakes_a_worker_that_sleeps_for_a_later_one(heap):
    AfterFunc(FAR, print, heap=heap)
    calls = []
    for _ in range(200):
        before = len(calls)
        AfterFunc(0, calls.append, 1, heap=heap)
        wait_until(lambda before=before: len(calls) > before)


def test_a_reset_to_an_earlier_deadline_wakes_the_worker(heap):
    calls = []
    timer = AfterFunc(FAR, calls.append, 1, heap=heap)
    for expected in range(1, 101):
        timer.reset(FAR)
        assert timer.reset(0)
        wait_until(lambda expected=expected: len(calls) == expected)


def test_a_reset_of_a_stopped_timer_wakes_the_worker(heap):
    AfterFunc(3600, print, heap=heap)
    done = threading.Event()
    timer = AfterFunc(3600, done.set, heap=heap)
    timer.stop()
    time.sleep(0.05)
    timer.reset(0.01)
    assert done.wait(30)


def test_a_timer_pushed_back_again_and_again_runs_at_its_last_deadline(manual):
    runs = []
    timer = AfterFunc(5, lambda: runs.append(manual.time()), heap=manual)
    for _ in range(100):
        manual.advance(4)
        assert timer.reset(5)
    assert runs == []
    manual.advance(5)
    assert runs == [405.0]


def test_a_timer_pushed_back_while_the_worker_sleeps_is_not_early(heap):
    """The worker sleeps for the first deadline, and finds that it is not the timer's any more."""
    runs = []
    timers = [AfterFunc(0.03, lambda: runs.append(time.monotonic()), heap=heap) for _ in range(10)]
    time.sleep(0.01)
    for timer in timers:
        timer.reset(0.1)
    when = timers[0].when
    wait_until(lambda: len(runs) == 10)
    assert min(runs) >= when


def test_a_timer_pushed_back_and_pulled_forward_runs_at_its_last_deadline(manual):
    runs = []
    timer = AfterFunc(5, lambda: runs.append(manual.time()), heap=manual)
    others = [AfterFunc(n, int, heap=manual) for n in range(20)]
    for delay in (100, 7, 50, 3, 80, 9):
        assert timer.reset(delay)
        manual.check()
    manual.advance(100)
    assert runs == [9.0]
    assert not any(other.active for other in others)


def test_a_pushed_back_timer_keeps_its_deadline_when_its_handle_is_dropped(manual):
    runs = []
    timer = AfterFunc(5, lambda: runs.append(manual.time()), heap=manual)
    timer.reset(8)
    del timer
    manual.check()
    manual.advance(20)
    assert runs == [8.0]


def test_uses_the_heap_it_is_given():
    one, other = ManualHeap(), ManualHeap()
    AfterFunc(1, print, heap=one)
    assert (len(one), len(other)) == (1, 0)
