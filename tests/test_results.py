"""stop, reset and postpone say whether they cancelled a pending run: every state, every race.

| state                                | stop  | reset, postpone |
| ------------------------------------ | ----- | --------------- |
| armed, deadline ahead                | True  | True            |
| function: due, not launched          | True  | True            |
| function: running or done            | False | False           |
| channel: expired, not received       | True  | True            |
| channel: received                    | False | False           |
| stopped                              | False | False           |
"""

import random
import threading
import time

import pytest
from helpers import FAR, PATIENCE, Background, balance, run_threads, wait_until

from timerheap import AfterFunc, Timer, TimerHeap, select
from timerheap.testing import ManualHeap

CANCEL = {
    "stop": lambda timer: timer.stop(),
    "reset": lambda timer: timer.reset(FAR),
    "postpone": lambda timer: timer.postpone(FAR),
}


@pytest.fixture(params=CANCEL)
def cancel(request):
    return CANCEL[request.param]


@pytest.fixture(params=["function", "channel"])
def timer(request, manual):
    """A timer due at 1."""
    if request.param == "function":
        return AfterFunc(1, int, heap=manual)
    return Timer(1, heap=manual)


def test_true_while_the_deadline_is_ahead(timer, cancel):
    assert cancel(timer) is True


def test_false_after_a_stop(timer, cancel):
    timer.stop()
    assert cancel(timer) is False


def test_reset_makes_a_stopped_timer_active(timer):
    timer.stop()
    timer.reset(1)
    assert timer.active
    assert timer.stop() is True


def test_postpone_moves_what_is_pending(timer, manual):
    manual.advance(0.5)
    assert timer.postpone(1) is True
    assert timer.when == 1.5
    assert timer.postpone(0.25) is True
    assert timer.when == 0.75
    assert len(manual) == 1
    assert balance(manual) == 0


@pytest.mark.parametrize("end", ["stopped", "expired"])
def test_postpone_revives_nothing(timer, manual, end):
    if end == "stopped":
        timer.stop()
    else:
        manual.advance(1)
        if timer.c is not None:
            timer.c.recv()
    before = manual.stats()
    assert timer.postpone(1) is False
    assert not timer.active
    assert manual.stats() == before
    manual.advance(5)
    assert manual.stats()["fired"] == before["fired"]
    assert timer.reset(1) is False  # reset does


def test_postpone_of_an_unread_value_takes_it_back(manual):
    timer = Timer(1, heap=manual)
    manual.advance(2)
    assert timer.postpone(1) is True
    assert timer.c.poll() is None
    manual.advance(1)
    assert timer.c.poll() == 3.0


@pytest.mark.parametrize(("delay", "error"), [(float("nan"), ValueError), ("1", TypeError)])
def test_postpone_with_a_bad_delay_leaves_the_timer_as_it_was(timer, delay, error):
    with pytest.raises(error, match=r"Timer\.postpone\(\) delay"):
        timer.postpone(delay)
    assert timer.when == 1.0


def test_a_postponed_timer_wakes_the_worker_that_sleeps_for_longer(heap):
    done = threading.Event()
    timer = AfterFunc(FAR, done.set, heap=heap)
    time.sleep(0.05)
    assert timer.postpone(0.01) is True
    assert done.wait(PATIENCE)


def test_stop_makes_a_timer_inactive(timer):
    timer.stop()
    assert not timer.active
    assert timer.when is None


def test_false_when_the_function_has_run(manual, cancel):
    timer = AfterFunc(1, int, heap=manual)
    manual.advance(1)
    assert cancel(timer) is False


def test_false_when_the_value_was_received(manual, cancel):
    timer = Timer(1, heap=manual)
    manual.advance(1)
    timer.c.recv()
    assert cancel(timer) is False


def test_true_when_the_value_was_not_received(manual, cancel):
    timer = Timer(1, heap=manual)
    manual.advance(5)
    assert cancel(timer) is True
    assert timer.c.poll() is None


def test_false_inside_its_own_callback(manual, cancel):
    results = []
    timer = AfterFunc(1, lambda: results.append(cancel(timer)), heap=manual)
    manual.advance(1)
    assert results == [False]


def test_a_second_reset_inside_its_own_callback_is_true(manual):
    results = []
    timer = AfterFunc(1, lambda: results.extend([timer.reset(1), timer.reset(5)]), heap=manual)
    manual.advance(1)
    assert results == [False, True]
    assert timer.when == 6.0


def test_stop_after_reset_inside_its_own_callback_is_true(manual):
    results = []
    timer = AfterFunc(1, lambda: results.extend([timer.reset(0), timer.stop()]), heap=manual)
    manual.advance(10)
    assert results == [False, True]
    assert len(manual) == 0


def test_true_for_a_function_that_is_due_and_not_launched(manual, cancel):
    results = []
    AfterFunc(1, lambda: results.append(cancel(second)), heap=manual)
    second = AfterFunc(1, results.append, "ran", heap=manual)
    manual.advance(2)
    assert results == [True]


def test_what_is_stopped_while_it_is_due_counts_as_cancelled_only(manual):
    AfterFunc(1, lambda: second.stop(), heap=manual)
    second = AfterFunc(1, int, heap=manual)
    manual.advance(1)
    stats = manual.stats()
    assert (stats["arms"], stats["fired"], stats["cancelled"]) == (2, 1, 1)
    assert balance(manual) == 0


def test_true_for_a_function_due_on_a_real_worker_and_not_launched(heap, cancel):
    results, wanted = [], []
    blocked = AfterFunc(0, lambda: wait_until(lambda: wanted), heap=heap)
    wait_until(lambda: not blocked.active)
    due = [AfterFunc(0, results.append, "ran", heap=heap) for _ in range(10)]
    time.sleep(0.01)
    assert all(timer.active for timer in due)
    assert [cancel(timer) for timer in due] == [True] * 10
    wanted.append(1)
    heap.close()
    assert results == []


def test_five_due_together_may_stop_and_reset_each_other(manual):
    """The first stops the second and the fourth; the third stops the fifth and resets itself."""
    log = []
    timers = {}

    def first():
        log.append((1, timers[2].stop(), timers[4].stop()))

    def third():
        log.append((3, timers[5].stop(), timers.pop(3).reset(0) if 3 in timers else None))

    actions = {1: first, 2: log.append, 3: third, 4: log.append, 5: log.append}
    for number, action in actions.items():
        arguments = () if number in (1, 3) else (number,)
        timers[number] = AfterFunc(1, action, *arguments, heap=manual)
    manual.advance(1)
    assert log == [(1, True, True), (3, True, False), (3, False, None)]


def test_a_blocked_receiver_does_not_change_the_answer(cancel):
    timer = Timer(FAR)
    receiver = Background(timer.c.recv)
    time.sleep(0.05)
    assert cancel(timer) is True
    assert receiver.running
    timer.reset(0)
    receiver.result()
    assert timer.stop() is False


def test_stop_does_not_wait_for_a_running_callback(heap):
    state = []

    def callback():
        state.append("running")
        wait_until(lambda: "stopped" in state)

    timer = AfterFunc(0, callback, heap=heap)
    wait_until(lambda: state)
    assert timer.stop() is False
    state.append("stopped")


def test_a_reset_while_it_runs_runs_it_again(heap):
    state = []

    def callback():
        state.append("run")
        wait_until(lambda: "reset" in state)

    timer = AfterFunc(0, callback, heap=heap)
    wait_until(lambda: state)
    assert timer.reset(0) is False
    state.append("reset")
    wait_until(lambda: state.count("run") == 2)


def test_false_on_a_closed_heap():
    heap = ManualHeap()
    function, channel = AfterFunc(1, int, heap=heap), Timer(1, heap=heap)
    expired = Timer(0, heap=heap)
    heap.close()
    for timer in (function, channel, expired):
        assert timer.stop() is False
        assert timer.postpone(1) is False
        assert not timer.active
        assert timer.when is None


def test_of_racing_stops_exactly_one_is_true(heap, fast_switching):
    timers = [AfterFunc(FAR, print, heap=heap) for _ in range(2000)]
    timers += [Timer(FAR, heap=heap) for _ in range(2000)]
    answers = run_threads(8, lambda _: [timer.stop() for timer in timers])
    assert [sum(column) for column in zip(*answers, strict=True)] == [1] * len(timers)
    assert balance(heap) == 0


def test_of_a_stop_racing_with_the_run_exactly_one_wins(fast_switching):
    with TimerHeap("racing") as heap:
        chance = random.Random(1)
        runs = [0] * 6000
        timers, cancelled = [], 0

        def run(index):
            runs[index] += 1

        for index in range(len(runs)):
            timers.append(AfterFunc(chance.random() * 2e-3, run, index, heap=heap))
            victim = chance.randrange(len(timers))
            if timers[victim].stop():
                cancelled += 1
                assert runs[victim] == 0
                runs[victim] = 1
        wait_until(lambda: len(heap) == 0)
        wait_until(lambda: heap.stats()["fired"] + cancelled == len(runs))
        wait_until(lambda: runs == [1] * len(runs))
        heap.check()


def test_racing_stops_and_resets_cancel_every_arming_once(fast_switching):
    with TimerHeap("racing") as heap:
        runs = []
        timers = [AfterFunc(1e-4, runs.append, None, heap=heap) for _ in range(20)]

        def race(index):
            chance = random.Random(index)
            arms = cancels = 0
            for _ in range(3000):
                timer = chance.choice(timers)
                match chance.randrange(4):
                    case 0 | 1:
                        cancels += timer.stop()
                    case 2:
                        arms += 1
                        cancels += timer.reset(chance.random() * 2e-4)
                    case 3:
                        postponed = timer.postpone(chance.random() * 2e-4)
                        arms += postponed
                        cancels += postponed
            return arms, cancels

        totals = [sum(column) for column in zip(*run_threads(4, race), strict=True)]
        wait_until(lambda: len(heap) == 0)
        arms, cancels = totals[0] + len(timers), totals[1]
        wait_until(lambda: len(runs) == arms - cancels)
        stats = heap.stats()
        assert (stats["arms"], stats["cancelled"], stats["fired"]) == (arms, cancels, len(runs))
        heap.check()


def test_racing_receives_stops_and_resets_take_every_arming_once(fast_switching):
    with TimerHeap("racing") as heap:
        timers = [Timer(0, heap=heap) for _ in range(5)]

        def race(index):
            chance = random.Random(index)
            arms = cancels = receives = 0
            for _ in range(2000):
                timer = chance.choice(timers)
                match chance.randrange(6):
                    case 0:
                        cancels += timer.stop()
                    case 1:
                        arms += 1
                        cancels += timer.reset(chance.choice([0, 5e-5]))
                    case 2:
                        receives += timer.c.poll() is not None
                    case 3:
                        receives += received(timer.c.recv, 1e-4)
                    case 4:
                        channels = [each.c for each in timers]
                        receives += received(lambda: select(*channels, timeout=1e-4))  # noqa: B023
                    case 5:
                        postponed = timer.postpone(chance.choice([0, 5e-5]))
                        arms += postponed
                        cancels += postponed
            return arms, cancels, receives

        arms, cancels, receives = (sum(column) for column in zip(*run_threads(4, race), strict=True))
        cancels += sum(timer.stop() for timer in timers)
        assert receives + cancels == arms + len(timers)
        assert balance(heap) == 0


def received(take, *arguments):
    try:
        take(*arguments)
    except TimeoutError:
        return False
    return True


def test_ten_thousand_stops_racing_with_one_deadline(heap):
    """A thousand due together; several threads stop them while the worker runs through them."""
    for _ in range(5):
        runs = []
        timers = [AfterFunc(0.005, runs.append, index, heap=heap) for index in range(1000)]

        def stop(index, timers=timers):
            order = list(range(len(timers)))
            random.Random(index).shuffle(order)
            time.sleep(0.004)
            return [number for number in order if timers[number].stop()]

        stopped = [number for mine in run_threads(4, stop) for number in mine]
        wait_until(lambda: len(heap) == 0)
        wait_until(lambda stopped=stopped, runs=runs: len(runs) + len(stopped) == 1000)
        assert len(set(runs) | set(stopped)) == 1000


def test_what_is_stopped_while_a_large_burst_is_collected_does_not_run(heap, fast_switching):
    """The worker lets callers in between two slices of a collection: what they stop then is due, and must not fire."""
    count = 300_000
    for seed in range(2):
        runs, state = [], []

        def hold(state=state):
            state.append("holds")
            wait_until(lambda: "go" in state)
            state.append("gone")

        AfterFunc(0, hold, heap=heap)
        wait_until(lambda state=state: state)
        timers = [AfterFunc(0, runs.append, index, heap=heap) for index in range(count)]
        order = random.Random(seed).sample(range(count), count)
        state.append("go")
        while "gone" not in state:
            pass
        stopped = [index for index in order if timers[index].stop()]
        wait_until(lambda: len(heap) == 0)
        wait_until(lambda stopped=stopped, runs=runs: len(runs) + len(stopped) >= count)
        assert len(runs) + len(stopped) == count
        assert set(runs).isdisjoint(stopped)
        heap.check()


def test_writes_before_arming_are_seen_by_the_callback(heap):
    box = {}
    seen = []
    for number in range(500):
        box["value"] = number
        AfterFunc(0, lambda: seen.append(box["value"]), heap=heap)
        wait_until(lambda number=number: len(seen) > number, PATIENCE)
    assert seen == list(range(500))
