"""Threads that really run at the same time: what a GIL gives by itself holds without one.

Each of these is a promise with a GIL as well, where most of them have no way to fail.
"""

import asyncio
import concurrent.futures
import random
import sys
import threading
import time

import pytest
from helpers import (
    FAR,
    FREE_THREADED,
    PATIENCE,
    SANITIZER,
    Background,
    balance,
    run_ok,
    run_threads,
    turns,
    wait_until,
)

from timerheap import AfterFunc, Ticker, TimerArray, TimerHeap, default_heap
from timerheap.asyncio import heap as heap_of
from timerheap.testing import ManualHeap

MANY = 16

without_gil = pytest.mark.skipif(not FREE_THREADED, reason="the interpreter always has a GIL")


@without_gil
def test_importing_timerheap_leaves_the_gil_off():
    """-I: whatever PYTHON_GIL says here, it does not say it there."""
    run_ok("import sys, timerheap; assert not sys._is_gil_enabled()", "-I", "-W", "error")


@without_gil
def test_these_tests_run_without_a_gil():
    assert not sys._is_gil_enabled()


def test_sixteen_threads_on_one_handle(heap):
    """stop, reset, repr, when and active in any mixture: no surprise, and the accounts are right."""
    runs = []
    timer = AfterFunc(FAR, runs.append, 1, heap=heap)

    def work(index):
        chance = random.Random(index)
        arms = cancels = 0
        for _ in range(2000):
            match chance.randrange(6):
                case 0:
                    cancels += timer.stop()
                case 1 | 2:
                    cancels += timer.reset(chance.choice([0, 1e-5, 1e-4, FAR]))
                    arms += 1
                case 3:
                    assert repr(timer).startswith("<timerheap.AfterFunc ")
                case 4:
                    assert timer.when is None or timer.when != 0.0
                case 5:
                    assert timer.active in (True, False)
        return arms, cancels

    totals = [sum(column) for column in zip(*run_threads(MANY, work), strict=True)]
    arms, cancels = totals[0] + 1, totals[1] + timer.stop()
    wait_until(lambda: len(runs) == arms - cancels)
    heap.check()
    assert (heap.stats()["arms"], heap.stats()["cancelled"]) == (arms, cancels)
    assert sys.getrefcount(timer) < 100


def test_sixteen_threads_on_a_fresh_array(heap):
    """Bulk calls in any mixture, of an array whose memory nobody has touched, beside arrays that come and go."""
    n = 8192
    timers = TimerArray(n, len, batch=100, heap=heap)

    def work(index):
        chance = random.Random(index)
        timers.reset(slice(None), FAR)
        for _ in range(20):
            some = slice(chance.randrange(n), None, chance.randrange(1, 5))
            match chance.randrange(6):
                case 0:
                    timers.stop(some)
                case 1:
                    timers.reset(some, chance.choice([0, 1e-4, FAR]))
                case 2:
                    timers.postpone(some, 1e-3)
                case 3:
                    timers.when(some)
                case 4:
                    assert 0 <= timers.armed <= n
                    assert sum(timers.active()) <= n
                case _:
                    mine = TimerArray(1000, len, heap=heap)
                    mine.reset(slice(None), 0)
                    mine.stop()

    run_threads(MANY, work)
    heap.check()
    timers.stop()
    assert timers.armed == 0
    assert balance(heap) == 0


def test_when_and_active_belong_together(manual):
    """when never shows the deadline of an arming that was over before it was asked for."""
    timer = AfterFunc(1, int, heap=manual)
    over = 1
    timer.stop()
    stop = threading.Event()

    def read(index):
        while not stop.is_set():
            ended = over
            when = timer.when
            assert when is None or when > ended

    def write():
        nonlocal over
        for number in range(2, 20_000):
            timer.reset(number)
            timer.stop()
            over = number
        stop.set()

    run_threads(4, lambda index: write() if index == 0 else read(index))


def test_a_default_heap_stays_so_until_it_is_closed():
    stop = threading.Event()

    def work(index):
        if index == 0:
            for _ in turns(500):
                default_heap().close()
            stop.set()
        while not stop.is_set():
            heap = default_heap()
            assert default_heap() is heap or heap.closed
            try:
                AfterFunc(FAR, int).stop()
            except RuntimeError as exc:
                if "closed" not in str(exc):
                    raise

    run_threads(4, work)
    default_heap().check()


def test_errors_of_an_executors_threads_are_all_counted():
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        with TimerHeap("counted", executor=pool, on_error=lambda exc, timer: None) as heap:
            for _ in range(5_000):
                AfterFunc(0, divmod, 1, 0, heap=heap)
            wait_until(lambda: heap.stats()["errors"] == 5_000)


def test_one_thread_at_a_time_advances_a_manual_heap():
    heap = ManualHeap()
    inside, runs, overlaps = [], [], []

    def callback(number):
        inside.append(number)
        runs.append(number)
        overlaps.extend(inside[1:])
        inside.pop()

    for number in range(20_000):
        AfterFunc(number + 1, callback, number, heap=heap)

    def advance(index):
        while len(heap):
            try:
                heap.advance(1)
            except RuntimeError as exc:
                if "under way" not in str(exc):
                    raise

    run_threads(4, advance)
    assert overlaps == []
    assert runs == list(range(20_000))
    assert balance(heap) == 0
    heap.check()
    heap.close()


def test_a_tickers_period_is_that_of_its_ticks(manual, fast_switching):
    """Of two resets at the same time the later one counts, for both."""
    ticker = Ticker(1, heap=manual)
    turn = [0, 0]

    def meet(index, number):
        """Not a lock: the two are to go on at the same moment."""
        turn[index] = number
        while turn[1 - index] < number:
            pass

    def work(index):
        try:
            for number in turns(500):
                meet(index, number + 1)
                ticker.reset(number + 1 + index / 2)
                meet(index, number + 1.5)
                if index == 0:
                    period, before = ticker.period, manual.time()
                    manual.advance(period)
                    assert ticker.c.poll() == before + period
        finally:
            turn[index] = FAR

    run_threads(2, work)


def test_close_waits_for_a_callback_whoever_started_the_worker():
    for _ in turns(50):
        heap = TimerHeap("contended")
        running, over = threading.Event(), []

        def callback(running=running, over=over):
            running.set()
            threading.Event().wait(0.01)
            over.append(1)

        run_threads(8, lambda _, heap=heap, callback=callback: AfterFunc(0, callback, heap=heap))
        assert running.wait(PATIENCE)
        heap.close()
        assert len(over) == heap.stats()["fired"]


def test_a_loops_heap_is_closed_at_every_moment():
    """By another thread, while what the loop has planned comes due, is taken and ends."""

    def close(heap, turn):
        time.sleep(turn % 10 / 10_000)
        heap.close()

    async def main():
        for turn in turns(300, 5.0):
            heap, seen = heap_of(), []
            timer = AfterFunc(0.0005, seen.append, turn, heap=heap)
            closer = Background(close, heap, turn)
            while closer.running:
                await asyncio.sleep(0.0002)
            closer.result()
            assert not timer.active
            assert heap.stats()["fired"] == len(seen)
            assert balance(heap) == 0

    asyncio.run(main())


def test_a_heap_is_closed_at_every_moment_of_an_arrays_run():
    """A batch is launched as a whole, or cancelled: what its function gets is what counts as fired."""
    for turn in turns(150, 5.0):
        fired, heap = [], TimerHeap()
        timers = TimerArray(2000, fired.extend, batch=64, heap=heap)
        timers.reset(range(2000), 0)
        stopper = Background(timers.stop, range(0, 2000, 3))
        time.sleep(turn % 10 / 20_000)
        heap.close()
        stopper.result()
        assert timers.armed == 0
        assert heap.stats()["fired"] == len(fired) == len(set(fired))
        assert balance(heap) == 0
        heap.check()


def test_threads_that_stop_what_is_being_launched_know_whether_it_is(heap):
    """Of all who stop a slot one at most has stopped it, and then it does not fire."""
    for turn in turns(60, 5.0):
        fired = []
        timers = TimerArray(1000, fired.extend, batch=turn + 1, heap=heap)
        timers.reset(range(1000), 0)

        def work(index, timers=timers):
            out = bytearray(1000)
            timers.stop(range(1000), out=out)
            return out

        outs = run_threads(3, work)
        wait_until(lambda timers=timers: not timers.armed)
        stopped = [slot for out in outs for slot in range(1000) if out[slot]]
        assert len(stopped) == len(set(stopped))
        wait_until(lambda fired=fired, stopped=stopped: len(fired) + len(stopped) == 1000)
        assert sorted(fired + stopped) == list(range(1000))
        heap.check()


def test_an_array_is_kept_and_let_go_whoever_arms_and_stops_it(heap):
    """The heap's reference comes with the first slot that is armed and goes with the last, of several threads."""
    timers = TimerArray(8, int, heap=heap)
    before = sys.getrefcount(timers)

    def work(index):
        for _ in range(3000):
            timers.reset(index, FAR)
            timers.stop(index)
            timers.reset([index, index], FAR)
            timers.stop([index])

    run_threads(8, work)
    heap.check()
    assert timers.armed == 0
    assert sys.getrefcount(timers) == before


def test_threads_that_reset_the_same_inherited_handles_in_the_child_of_a_fork():
    """The first of them makes a handle the child's own. What it has armed is no parent's."""
    run_ok("""
        import os, threading
        from timerheap import AfterFunc, TimerHeap
        MANY = 20_000
        heap = TimerHeap()
        timers = [AfterFunc(3600, int, heap=heap) for _ in range(MANY)]

        def child():
            start = threading.Barrier(4)
            cancels = []

            def run():
                start.wait(30)
                cancels.append(sum(timer.reset(1800) for timer in timers))

            threads = [threading.Thread(target=run) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            heap.check()
            return len(heap) == MANY and sum(cancels) == 3 * MANY

        for _ in range(12):
            pid = os.fork()
            if pid == 0:
                os._exit(0 if child() else 1)
            assert os.waitpid(pid, 0)[1] == 0
    """, "-W", "ignore::DeprecationWarning")


@pytest.mark.skipif(SANITIZER == "asan", reason="handles are malloc's there, not the slab's")
def test_many_handles_do_not_call_the_collector_again_and_again():
    """It walks through all of them each time, so it has to come more and more rarely."""
    out = run_ok("""
        import gc
        from timerheap import AfterFunc
        from timerheap.testing import ManualHeap
        collections = []
        gc.callbacks.append(lambda phase, info: collections.append(phase))
        heap = ManualHeap()
        timers = [AfterFunc(1, int, heap=heap) for _ in range(300_000)]
        print(collections.count("start"))
    """)
    assert int(out) < 60
