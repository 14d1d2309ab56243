"""How long a heap lives, and its worker with it."""

import ctypes
import gc
import math
import threading
import time
import weakref
from datetime import timedelta

import pytest
from helpers import FAR, PATIENCE, Background, run_ok, wait_until

from timerheap import AfterFunc, Ticker, Timer, TimerHeap, default_heap, sleep
from timerheap.testing import ManualHeap, use


def workers(name):
    return [thread for thread in threading.enumerate() if thread.name == name]


class Held:
    """Something that a heap, a timer and a callback can hold, and that can be watched."""

    def callback(self, *args):
        pass


def test_fifty_heaps_used_once_and_dropped_leave_no_thread():
    for _ in range(50):
        heap = TimerHeap("once")
        done = threading.Event()
        AfterFunc(0, done.set, heap=heap)
        assert done.wait(PATIENCE)
    del heap
    wait_until(lambda: not workers("once"))


@pytest.mark.parametrize("use_it", ["stop", "reset and stop", "close", "nothing", "far stop", "drop and fire"])
def test_a_dropped_heap_with_nothing_armed_goes_at_once(use_it):
    heap = TimerHeap("dropped")
    reference = weakref.ref(heap)
    if use_it != "nothing":
        timer = AfterFunc(FAR if "stop" in use_it or use_it == "close" else 0.01, int, heap=heap)
    if use_it == "reset and stop":
        timer.reset(0.5 * FAR)
    if "stop" in use_it:
        assert timer.stop()
    if use_it == "close":
        heap.close()
    timer = None
    del heap
    wait_until(lambda: reference() is None and not workers("dropped"))


def test_a_handle_keeps_its_heap_and_its_worker():
    timer = AfterFunc(FAR, int, heap=TimerHeap("by handle"))
    gc.collect()
    assert timer.active
    assert workers("by handle")
    timer.stop()
    fired = threading.Event()
    again = AfterFunc(FAR, fired.set, heap=TimerHeap("by handle"))
    again.stop()
    assert again.reset(0) is False
    assert fired.wait(PATIENCE)
    del timer, again
    wait_until(lambda: not workers("by handle"))


def test_a_dropped_heap_fires_what_is_armed_and_goes_then():
    heap = TimerHeap("last wish")
    reference = weakref.ref(heap)
    fired = []
    for number in range(5):
        AfterFunc(0.05 + number * 0.01, fired.append, number, heap=heap)
    del heap
    gc.collect()
    assert fired or workers("last wish")
    wait_until(lambda: not workers("last wish"))
    assert fired == list(range(5))
    assert reference() is None


def test_a_dropped_heap_whose_callback_arms_again_lives_on():
    heap = TimerHeap("again")
    reference = weakref.ref(heap)
    fired = []

    def step():
        fired.append(1)
        if len(fired) < 10:
            AfterFunc(0.001, step, heap=reference())

    AfterFunc(0.001, step, heap=heap)
    del heap
    wait_until(lambda: reference() is None and not workers("again"))
    assert len(fired) == 10


@pytest.mark.parametrize("way", ["arms", "revives"])
def test_a_finalizer_that_wants_a_heap_that_the_collector_took_for_garbage(way):
    """The weak references to it are cleared by then."""
    run_ok(f"""
        import gc, os, sys, threading, warnings
        warnings.simplefilter("ignore", DeprecationWarning)     # of 3.12, about a fork beside threads
        from timerheap import AfterFunc, TimerHeap

        fired, kept, way = threading.Event(), [], {way!r}

        class Session:
            def __init__(self):
                self.heap = TimerHeap(on_error=self.fail)
                self.begun = threading.Event()
                AfterFunc(0, self.begun.set, heap=self.heap)
                assert self.begun.wait(30)

            def fail(self, exc, timer):
                pass

            def __del__(self):
                if way == "arms":
                    AfterFunc(0.01, fired.set, heap=self.heap)
                else:
                    kept.append(self.heap)

        def fires(heap):
            fired = threading.Event()
            AfterFunc(0.01, fired.set, heap=heap)
            return fired.wait(30)

        def fires_in_child(heap):
            pid = os.fork()
            if pid == 0:
                os._exit(not fires(heap))
            return os.waitpid(pid, 0)[1] == 0

        session = Session()
        del session
        gc.collect()
        if kept:
            assert fires_in_child(kept[0])
            assert fires(kept[0])
            assert fires_in_child(kept[0])
            kept.pop().check()
        else:
            assert fired.wait(30)
    """)


def test_a_heap_that_was_found_again_by_a_weak_reference_starts_another_worker():
    heap = TimerHeap("found")
    reference = weakref.ref(heap)
    done = threading.Event()
    AfterFunc(0.05, done.set, heap=heap)
    del heap
    heap = reference()
    assert done.wait(PATIENCE)
    done.clear()
    AfterFunc(0, done.set, heap=heap)
    assert done.wait(PATIENCE)
    heap.check()
    del heap
    wait_until(lambda: reference() is None and not workers("found"))


@pytest.mark.parametrize("make", [Timer, Ticker])
def test_a_channel_keeps_its_heap(make):
    heap = TimerHeap("channel")
    reference = weakref.ref(heap)
    channel = make(0.01, heap=heap).c
    del heap
    assert channel.recv(PATIENCE)
    assert reference() is not None
    del channel
    assert reference() is None


def test_a_heap_in_a_cycle_with_its_own_hook_is_collected_with_its_worker():
    owner = Held()
    owner.heap = TimerHeap("cycle", on_error=owner.callback)
    done = threading.Event()
    AfterFunc(0, done.set, heap=owner.heap)
    assert done.wait(PATIENCE)
    reference = weakref.ref(owner)
    del owner

    def gone():
        gc.collect()
        return reference() is None and not workers("cycle")

    wait_until(gone)


@pytest.mark.parametrize("worker", [False, True], ids=["no worker yet", "a worker"])
@pytest.mark.parametrize("late", [False, True], ids=["armed in the finalizer", "armed later"])
def test_a_heap_that_a_finalizer_saves_from_the_collector_works_on(worker, late):
    """The collector has given up the weak references to it by then."""
    run_ok(f"""
        import gc, os, threading, time, warnings
        from timerheap import AfterFunc, TimerHeap
        warnings.simplefilter("ignore", DeprecationWarning)
        fired, saved = [], []

        def wait_for(count):
            deadline = time.monotonic() + 20
            while len(fired) < count:
                assert time.monotonic() < deadline, fired
                time.sleep(0.001)

        class Owner:
            def __init__(self):
                self.heap = TimerHeap("saved", on_error=self.on_error)
            def on_error(self, exc, timer):
                pass
            def __del__(self):
                saved.append(self.heap)
                if not {late}:
                    AfterFunc(0.01, fired.append, 1, heap=self.heap)

        owner = Owner()
        if {worker}:
            AfterFunc(0, fired.append, 0, heap=owner.heap)
            wait_for(1)
        del owner
        gc.collect()
        [heap] = saved
        if {late}:
            AfterFunc(0.01, fired.append, 1, heap=heap)
        wait_for(1 + {worker})
        heap.check()
        timer = AfterFunc(3600, int, heap=heap)
        pid = os.fork()
        if pid == 0:
            fired.clear()
            AfterFunc(0, fired.append, 2, heap=heap)
            wait_for(1)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        assert timer.stop()
    """)


def test_a_heap_dropped_while_its_callback_runs_is_there_to_its_end():
    heap = TimerHeap("running")
    reference = weakref.ref(heap)
    inside, leave, seen = threading.Event(), threading.Event(), []

    def callback():
        inside.set()
        leave.wait(PATIENCE)
        seen.append(reference() is not None)
        raise LookupError

    heap = TimerHeap("running", on_error=lambda exc, timer: seen.append(type(exc)))
    reference = weakref.ref(heap)
    AfterFunc(0, callback, heap=heap)
    assert inside.wait(PATIENCE)
    del heap
    leave.set()
    wait_until(lambda: reference() is None and not workers("running"))
    assert seen == [True, LookupError]


def test_heaps_that_are_dropped_under_load_lose_nothing_and_leave_nothing(fast_switching):
    """Stopped, fired and dropped at the very moment when their workers are about to fire or to park."""
    fired, expected = [], 0
    for turn in range(300):
        heap = TimerHeap("loaded")
        timers = [AfterFunc(turn % 7 * 1e-5, fired.append, 1, heap=heap) for _ in range(5)]
        sleep(turn % 5 * 1e-5)
        stopped = sum(timer.stop() for timer in timers[: turn % 6])
        expected += 5 - stopped
        if turn % 2:
            del heap, timers
        else:
            timers.clear()
            del heap
    wait_until(lambda: len(fired) == expected and not workers("loaded"))
    time.sleep(0.02)
    assert len(fired) == expected


def test_a_dropped_heap_is_no_resource_warning():
    run_ok("""
        import gc, threading, time
        from timerheap import AfterFunc, TimerHeap
        heap = TimerHeap()
        done = threading.Event()
        AfterFunc(0.05, done.set, heap=heap)
        del heap
        gc.collect()
        assert done.wait(30)
    """, "-W", "error")


def test_a_closed_default_heap_is_replaced():
    default_heap().close()
    assert not default_heap().closed


@pytest.mark.parametrize("make", [ManualHeap, TimerHeap])
def test_a_closed_heap_is_not_replaced_inside_use(make):
    """Code under test would run in real time without anybody being told."""
    with use(make()) as heap:
        heap.close()
        for call in (default_heap, lambda: AfterFunc(1, int), lambda: Timer(1), lambda: Ticker(1)):
            with pytest.raises(RuntimeError, match="use"):
                call()
        with use(ManualHeap()) as inner:
            assert default_heap() is inner
        with pytest.raises(RuntimeError, match="use"):
            default_heap()
    fired = threading.Event()
    AfterFunc(0, fired.set)
    assert fired.wait(PATIENCE)


def test_two_heaps_whose_callbacks_close_each_other_end():
    one, other = TimerHeap("one"), TimerHeap("other")
    barrier = threading.Barrier(2)
    ended = []

    def close(heap):
        barrier.wait(PATIENCE)
        heap.close()
        ended.append(heap)

    AfterFunc(0, close, other, heap=one)
    AfterFunc(0, close, one, heap=other)
    wait_until(lambda: len(ended) == 2)
    wait_until(lambda: not workers("one") and not workers("other"))


@pytest.mark.parametrize("timeout", [0, -1, 0.05, timedelta(milliseconds=50)])
def test_a_close_with_a_timeout_waits_no_longer_and_the_heap_is_closed(timeout):
    heap, inside, leave = TimerHeap("late"), threading.Event(), threading.Event()
    AfterFunc(0, lambda: inside.set() or leave.wait(PATIENCE), heap=heap)
    neighbour = AfterFunc(FAR, int, heap=heap)
    assert inside.wait(PATIENCE)
    for _ in range(2):
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            heap.close(timeout)
        assert time.monotonic() - began >= (0.05 if timeout not in (0, -1) else 0)
        assert heap.closed
        assert not neighbour.active
        assert len(heap) == 0
    with pytest.raises(RuntimeError, match="closed"):
        neighbour.reset(1)
    closing = Background(heap.close, PATIENCE)
    time.sleep(0.02)
    assert closing.running
    leave.set()
    assert closing.result() is None
    assert not workers("late")
    heap.close(0)


def test_a_close_with_a_timeout_is_over_when_nothing_runs(heap):
    AfterFunc(FAR, int, heap=heap)
    heap.close(PATIENCE)
    heap.close(0)
    assert heap.closed
    assert not workers("test")


def test_a_close_that_only_looks_finds_nothing_running_in_a_parked_worker():
    """Which needs a moment to leave, and is in no callback."""
    for _ in range(50):
        heap = TimerHeap()
        AfterFunc(FAR, int, heap=heap)
        heap.close(0)
        heap.close()


def test_a_close_that_only_looks_lets_go_of_the_hook():
    """Though the worker is there for another moment: it calls nothing any more."""
    for _ in range(50):
        heap = TimerHeap(on_error=print)
        AfterFunc(FAR, int, heap=heap)
        heap.close(0)
        assert heap.on_error is None


@pytest.mark.parametrize("patience", [None, 10])
def test_a_close_from_a_callback_does_not_wait_for_that_one(patience):
    ended = []
    heap = TimerHeap(patience=patience)
    AfterFunc(0, lambda: ended.append(heap.close(0)), heap=heap)
    wait_until(lambda: ended)
    assert ended == [None]
    assert heap.closed
    heap.close()


def test_a_close_with_a_timeout_knows_of_callbacks_that_were_left_to_themselves():
    """They have lost the worker's post: close() waits for them as well, and says so if they still run."""
    heap, leave = TimerHeap("patient", patience=0.01), threading.Event()
    for _ in range(3):
        AfterFunc(0, leave.wait, PATIENCE, heap=heap)
    wait_until(lambda: heap.stats()["handovers"] >= 2)
    with pytest.raises(TimeoutError):
        heap.close(0.02)
    with pytest.raises(TimeoutError):
        heap.close(0)
    leave.set()
    heap.close(PATIENCE)
    assert not workers("patient")
    assert heap.on_error is None


def test_a_manual_heap_closes_with_a_timeout_too(manual):
    AfterFunc(1, int, heap=manual)
    manual.close(1)
    manual.close(timeout=0)
    assert manual.closed
    assert len(manual) == 0


@pytest.mark.parametrize(("timeout", "kind"), [("5", TypeError), (math.nan, ValueError)])
def test_a_close_with_a_bad_timeout_closes_nothing(heap, timeout, kind):
    timer = AfterFunc(FAR, int, heap=heap)
    with pytest.raises(kind):
        heap.close(timeout)
    assert not heap.closed
    assert timer.active


def test_ctrl_c_breaks_out_of_a_close_with_a_timeout():
    run_ok("""
        import os, signal, threading, time
        from timerheap import AfterFunc, TimerHeap
        inside, leave = threading.Event(), threading.Event()
        heap = TimerHeap()
        AfterFunc(0, lambda: inside.set() or leave.wait(30), heap=heap)
        inside.wait(30)
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
        began = time.monotonic()
        try:
            heap.close(25)
        except KeyboardInterrupt:
            leave.set()
        assert leave.is_set() and time.monotonic() - began < 25
        heap.close(25)
    """)


def test_the_greatest_lateness_is_told(heap):
    """Of the first sixteen of a run, and of each 128th from its first on."""
    gate = threading.Event()
    assert heap.stats()["late_max"] == 0.0
    AfterFunc(0, gate.wait, PATIENCE, heap=heap)
    AfterFunc(0, time.sleep, 0.05, heap=heap)
    AfterFunc(0, int, heap=heap)
    gate.set()
    wait_until(lambda: heap.stats()["fired"] == 3)
    first = heap.stats()["late_max"]
    assert 0.05 <= first < PATIENCE

    gate = threading.Event()
    begun = threading.Event()
    AfterFunc(0, lambda: begun.set() or gate.wait(PATIENCE), heap=heap)
    assert begun.wait(PATIENCE)
    for number in range(129):
        AfterFunc(0, time.sleep, first if number == 100 else 0, heap=heap)
    gate.set()
    wait_until(lambda: heap.stats()["fired"] == 133)
    assert heap.stats()["late_max"] > first


def test_a_callback_that_is_on_time_by_a_manual_clock_is_not_late(manual):
    for delay in range(300):
        AfterFunc(delay, int, heap=manual)
    manual.advance(300)
    assert manual.stats()["late_max"] == 0.0


def test_check_tells_what_is_broken_with_index_and_values():
    """The deadline in a handle's record is made earlier than its key, as only a stray pointer would."""
    heap = ManualHeap()
    timer = AfterFunc(12.345678901, print, heap=heap)
    deadline = 12_345_678_901
    record = (ctypes.c_int64 * (type(timer).__basicsize__ // 8)).from_address(id(timer))
    place = list(record).index(deadline)
    record[place] = 5
    try:
        with pytest.raises(AssertionError, match=f"^a key is later than its timer at index 0: {deadline} and 5$"):
            heap.check()
    finally:
        record[place] = deadline
    heap.check()


# ---- tolerance ------------------------------------------------------------------------------------------------------


def test_a_heap_with_tolerance_puts_off_its_wake_up_and_fires_neighbours_together():
    """In order, and none of them early."""
    calls = []
    with TimerHeap(tolerance=0.5) as heap:
        for delay in (0.4, 0.3, 0.2, 0.1):
            timer = AfterFunc(delay, lambda when: calls.append((when[0], time.monotonic())), when := [], heap=heap)
            when.append(timer.when)
        wait_until(lambda: len(calls) == 4)
        assert heap.stats()["batches"] == 1
    assert calls == sorted(calls)
    assert all(when <= at for when, at in calls)


def test_tolerance_puts_off_the_wake_up_for_a_deadline_and_no_other():
    calls = []
    with TimerHeap(tolerance=FAR) as heap:
        AfterFunc(FAR, calls.append, "far", heap=heap)
        AfterFunc(0, calls.append, "at once", heap=heap)
        wait_until(lambda: calls)
        first = AfterFunc(1, calls.append, "put off", heap=heap)
        time.sleep(1.3)
        assert calls == ["at once"]
        assert first.active
        assert first.stop() is True


def test_tolerance_ends():
    done = threading.Event()
    with TimerHeap(tolerance=0.05) as heap:
        AfterFunc(0.01, done.set, heap=heap)
        assert done.wait(PATIENCE)
        assert heap.stats()["batches"] == 1


def test_a_channel_knows_no_tolerance():
    with TimerHeap(tolerance=FAR) as heap:
        assert Timer(0.01, heap=heap).c.recv(PATIENCE)


@pytest.mark.parametrize("tolerance", [-1, float("inf"), float("nan")])
def test_a_tolerance_is_finite_and_not_negative(tolerance):
    with pytest.raises(ValueError, match=r"TimerHeap\(\) tolerance"):
        TimerHeap(tolerance=tolerance)
