"""Order: by deadline within a heap, equal deadlines as they were armed."""

import random
import threading
import time

from helpers import wait_until

from timerheap import AfterFunc, TimerHeap


def test_callbacks_run_in_deadline_order(manual):
    log = []
    for delay in (5, 1, 4, 2, 3):
        AfterFunc(delay, log.append, delay, heap=manual)
    manual.advance(5)
    assert log == [1, 2, 3, 4, 5]


def test_equal_deadlines_run_in_arming_order(manual):
    log = []
    for number in range(1000):
        AfterFunc(1, log.append, number, heap=manual)
    manual.advance(1)
    assert log == list(range(1000))


def test_equal_deadlines_armed_at_different_times_run_in_arming_order(manual):
    log = []
    AfterFunc(3, log.append, "first", heap=manual)
    manual.advance(1)
    AfterFunc(2, log.append, "second", heap=manual)
    manual.advance(1)
    AfterFunc(1, log.append, "third", heap=manual)
    manual.advance(1)
    assert log == ["first", "second", "third"]


def test_a_reset_to_the_same_deadline_goes_to_the_end(manual):
    log = []
    timers = [AfterFunc(1, log.append, number, heap=manual) for number in range(5)]
    timers[1].reset(1)
    manual.check()
    manual.advance(1)
    assert log == [0, 2, 3, 4, 1]


def test_a_reset_to_a_later_deadline_goes_behind_those_armed_before(manual):
    log = []
    early = AfterFunc(1, log.append, "reset", heap=manual)
    for number in range(5):
        AfterFunc(2, log.append, number, heap=manual)
    early.reset(2)
    AfterFunc(2, log.append, "last", heap=manual)
    manual.advance(2)
    assert log == [0, 1, 2, 3, 4, "reset", "last"]


def test_a_reset_to_an_earlier_deadline_goes_behind_those_armed_before(manual):
    log = []
    AfterFunc(1, log.append, "first", heap=manual)
    late = AfterFunc(2, log.append, "reset", heap=manual)
    late.reset(1)
    AfterFunc(1, log.append, "last", heap=manual)
    manual.advance(1)
    assert log == ["first", "reset", "last"]


def test_what_a_callback_arms_for_now_runs_after_what_is_due_already(manual):
    log = []
    AfterFunc(1, lambda: AfterFunc(0, log.append, "armed inside", heap=manual), heap=manual)
    AfterFunc(1, log.append, "armed before", heap=manual)
    manual.advance(1)
    assert log == ["armed before", "armed inside"]


def test_what_a_callback_arms_for_a_time_that_is_due_runs_in_its_place(manual):
    log = []
    AfterFunc(1, lambda: AfterFunc(1, log.append, 2, heap=manual), heap=manual)
    AfterFunc(1.5, log.append, 1.5, heap=manual)
    AfterFunc(3, log.append, 3, heap=manual)
    manual.advance(3)
    assert log == [1.5, 2, 3]


def test_a_stop_does_not_disturb_the_order_of_the_others(manual):
    log = []
    chance = random.Random(6)
    delays = [chance.randrange(20) for _ in range(500)]
    timers = [AfterFunc(delay, log.append, n, heap=manual) for n, delay in enumerate(delays)]
    for number in range(0, 500, 3):
        timers[number].stop()
        manual.check()
    manual.advance(20)
    left = [number for number in range(500) if number % 3]
    assert log == sorted(left, key=delays.__getitem__)


def test_a_real_worker_runs_bursts_in_deadline_order():
    """Each falls due behind a callback that waits, and so is one run. Its sort has three digits of 11 bits to go
    through, in the room that its own keys leave, and ends there: where the run lives while the next burst is armed."""
    chance = random.Random(7)
    with TimerHeap("burst") as heap:
        for _ in range(3):
            log, whens, gate = [], [], threading.Event()
            before = heap.stats()["fired"]
            AfterFunc(0, gate.wait, heap=heap)
            timers = [AfterFunc(60, log.append, number, heap=heap) for number in range(50_000)]
            wait_until(lambda before=before: heap.stats()["fired"] > before)
            for timer in timers:
                timer.reset(0.1 + chance.random() * 0.1)
                whens.append(timer.when)
            time.sleep(0.3)
            gate.set()
            wait_until(lambda log=log, timers=timers: len(log) == len(timers))
            assert heap.stats()["longest_batch"] == len(timers)
            heap.check()
            # Deadlines are told as floats: where two are equal as floats, either may be first.
            ran = [whens[number] for number in log]
            assert ran == sorted(ran)


def test_a_real_worker_runs_zero_delays_in_arming_order(heap):
    log = []
    for number in range(10_000):
        AfterFunc(0, log.append, number, heap=heap)
    wait_until(lambda: len(log) == 10_000)
    assert log == list(range(10_000))
