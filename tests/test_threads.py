"""One worker a heap, however many timers and threads use it."""

import gc
import os
import random
import threading

import pytest
from helpers import (
    FAR,
    PATIENCE,
    SANITIZER,
    Background,
    asks_proc,
    balance,
    no_threads,
    run_ok,
    run_threads,
    wait_until,
)

from timerheap import AfterFunc, TimerHeap, default_heap


def names():
    return [thread.name for thread in threading.enumerate()]


# Counting the system's threads needs a process of its own: in this one threads of earlier tests, which Python has
# joined, may be on their way out still, and the test runner has a watchdog.
COUNTING = """
import time
import psutil
from timerheap import AfterFunc, Ticker, Timer, TimerHeap

def native():
    return psutil.Process().num_threads()

def settles_at(count):
    deadline = time.monotonic() + 30
    while native() != count and time.monotonic() < deadline:
        time.sleep(0.001)
    return native() == count

"""


def test_a_heap_without_timers_has_no_thread():
    run_ok(COUNTING + "heap = TimerHeap('idle'); assert native() == 1; heap.close()")


@pytest.mark.skipif(SANITIZER == "tsan", reason="the runtime has a thread of its own, which is counted")
def test_channel_timers_need_no_thread():
    """Not even where none can be had, and where the program is ending; a callback has its worker as ever."""
    run_ok(COUNTING + """
import atexit, threading
from timerheap import after, select, sleep, tick

def use_channels(heap):
    timer, ticker = Timer(0, heap=heap), Ticker(0.001, heap=heap)
    assert timer.c.recv() and ticker.c.recv() and next(ticker)
    assert timer.reset(3600) is False and timer.reset(0.001) is True
    ticker.reset(0.002)
    assert select(timer.c, Timer(3600, heap=heap).c)[0] is timer.c
    assert after(0.001).recv() and tick(0.001).recv()
    sleep(0.001)
    assert native() == 1, native()

heap = TimerHeap("channels")
use_channels(heap)
threading.stack_size(1 << 47)           # no thread can have one
use_channels(heap)
try:
    AfterFunc(0, print, heap=heap)
except RuntimeError:
    pass
else:
    raise AssertionError
threading.stack_size(0)
done = threading.Event()
AfterFunc(0, done.set, heap=heap)
assert done.wait(30) and native() == 2
heap.close()
assert settles_at(1)
atexit.register(use_channels, TimerHeap("last"))

class Late:
    def __del__(self, Timer=Timer):
        assert Timer(0).c.recv() and Timer(3600).stop()

late = Late()
""")


def test_the_first_function_timer_starts_the_worker_named_after_its_heap(heap):
    before = threading.active_count()
    AfterFunc(FAR, print, heap=heap)
    wait_until(lambda: "test" in names())
    assert threading.active_count() == before + 1


def test_the_worker_is_a_daemon(heap):
    AfterFunc(FAR, print, heap=heap)
    wait_until(lambda: "test" in names())
    [worker] = [thread for thread in threading.enumerate() if thread.name == "test"]
    assert worker.daemon
    assert worker.is_alive()


def test_the_worker_can_be_joined(heap):
    AfterFunc(FAR, print, heap=heap)
    [worker] = [thread for thread in threading.enumerate() if thread.name == "test"]
    worker.join(0.01)
    assert worker.is_alive()
    heap.close()
    worker.join(PATIENCE)
    assert not worker.is_alive()
    assert worker not in threading.enumerate()


def test_a_callback_finds_its_worker_as_the_current_thread(heap):
    seen = []
    AfterFunc(0, lambda: seen.extend((threading.get_native_id(), threading.current_thread())), heap=heap)
    wait_until(lambda: len(seen) == 2)
    [worker] = [thread for thread in threading.enumerate() if thread.name == "test"]
    native_id, current = seen
    assert current is worker
    assert isinstance(worker, threading.Thread)
    assert worker.native_id == native_id
    assert repr(worker) == f"<Thread(test, started daemon {worker.ident})>"

    def join_itself():
        with pytest.raises(RuntimeError):
            worker.join()
        seen.append("refused")

    AfterFunc(0, join_itself, heap=heap)
    wait_until(lambda: "refused" in seen)


def test_a_refused_thread_is_an_error_and_arms_nothing(heap):
    with no_threads(), pytest.raises(RuntimeError, match="can't start new thread"):
        AfterFunc(FAR, print, heap=heap)
    assert len(heap) == 0
    assert "test" not in names()
    fired = threading.Event()
    AfterFunc(0, fired.set, heap=heap)
    assert fired.wait(PATIENCE)
    assert names().count("test") == 1


def test_a_refused_reset_leaves_the_timer_as_it_was(heap):
    """The worker has gone with a heap that was armed in vain: what is left is a handle."""
    fired = threading.Event()
    timer = AfterFunc(FAR, fired.set, heap=heap)
    assert timer.stop()
    other = TimerHeap("other")
    with no_threads(), pytest.raises(RuntimeError, match="can't start new thread"):
        AfterFunc(FAR, print, heap=other)
    assert timer.reset(0) is False
    assert fired.wait(PATIENCE)
    other.close()


def test_what_a_fork_leaves_without_a_worker_fires_once_a_thread_can_be_had():
    """On Pythons that warn of a fork beside threads the workers leave for it; here none can come back at first."""
    run_ok(f"""
        import os, sys, threading, time
        sys.path.insert(0, {os.path.dirname(__file__)!r})
        from helpers import no_threads
        from timerheap import AfterFunc, TimerHeap
        fired = threading.Event()
        one, other = TimerHeap("one"), TimerHeap("other")
        AfterFunc(0.2, fired.set, heap=one)
        try:
            with no_threads():
                pid = os.fork()
                if pid == 0:
                    os._exit(0)
                os.waitpid(pid, 0)
                time.sleep(0.05)
        except RuntimeError as exc:
            assert sys.version_info >= (3, 12) and "can't start new thread" in str(exc), exc
        assert len(one) == 1
        AfterFunc(3600, print, heap=other)      # another heap gets a thread: so can the first
        assert fired.wait(10)
    """)


def test_close_does_not_wait_for_a_worker_that_was_refused(fast_switching):
    """One thread arms and gets none, another closes the heap just then."""
    turns = 300
    heaps = [TimerHeap("refused") for _ in range(turns)]
    barrier = threading.Barrier(3)

    def arm():
        for heap in heaps:
            barrier.wait(PATIENCE)
            with pytest.raises(RuntimeError):
                AfterFunc(FAR, print, heap=heap)

    def close():
        for heap in heaps:
            barrier.wait(PATIENCE)
            heap.close()

    works = [Background(arm), Background(close)]
    with no_threads():
        for _ in range(turns):
            barrier.wait(PATIENCE)
        for work in works:
            work.result()
    assert not any(map(len, heaps))


def test_a_parked_worker_cannot_be_cancelled():
    """It would end inside its wait, holding what everybody wants."""
    run_ok("""
        import ctypes, threading, time
        from timerheap import AfterFunc
        AfterFunc(0, int)
        [worker] = [thread for thread in threading.enumerate() if thread is not threading.main_thread()]
        time.sleep(0.05)
        cancel = ctypes.CDLL(None).pthread_cancel
        cancel.argtypes = [ctypes.c_ulong]
        assert cancel(worker.ident) == 0
        time.sleep(0.05)
        fired = threading.Event()
        AfterFunc(0, fired.set)
        assert fired.wait(20)
    """)


def test_close_accounts_for_what_a_dead_worker_has_left():
    run_ok("""
        import ctypes, threading, time
        from timerheap import AfterFunc, TimerHeap
        heap = TimerHeap("ended")
        inside, go = threading.Event(), threading.Event()
        leave = ctypes.CDLL(None).pthread_exit
        timers = [AfterFunc(0, lambda: inside.set() or go.wait(20), heap=heap)]
        assert inside.wait(20)
        timers += [AfterFunc(0, leave, None, heap=heap), *(AfterFunc(0, int, heap=heap) for _ in range(10))]
        [worker] = [thread for thread in threading.enumerate() if thread.name == "ended"]
        go.set()
        worker.join(20)
        assert not worker.is_alive() and len(heap) == 10
        heap.close()
        heap.check()
        stats = heap.stats()
        assert (stats["arms"], stats["fired"], stats["cancelled"]) == (12, 2, 10), stats
    """)


def test_close_accounts_for_what_a_worker_leaves_that_dies_after_an_earlier_close():
    run_ok("""
        import ctypes, threading, weakref
        from timerheap import AfterFunc, TimerHeap
        heap = TimerHeap("ended")
        inside, go = threading.Event(), threading.Event()
        leave = ctypes.CDLL(None).pthread_exit

        def end():
            inside.set()
            go.wait(20)
            leave(None)

        AfterFunc(0.01, end, heap=heap)
        timers = [AfterFunc(0.01, int, heap=heap) for _ in range(10)]
        assert inside.wait(20)
        try:
            heap.close(0)
        except TimeoutError:
            go.set()
        heap.close()
        heap.check()
        stats = heap.stats()
        assert stats["arms"] == stats["fired"] + stats["cancelled"] == 11, stats
    """)


def test_a_worker_whose_thread_is_ended_by_foreign_code_is_replaced():
    """C code in a callback may call pthread_exit. What is armed fires, at the next arming at the latest."""
    run_ok("""
        import ctypes, sys, threading, time
        from timerheap import AfterFunc, TimerHeap
        heap = TimerHeap("ended")
        fired = threading.Event()
        leave = ctypes.CDLL(None).pthread_exit      # without the GIL
        timers = [AfterFunc(1, fired.set, heap=heap), AfterFunc(0, leave, None, heap=heap)]
        deadline = time.monotonic() + 30
        while "ended" not in [t.name for t in threading.enumerate() if not t.is_alive()]:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        AfterFunc(0, int, heap=heap)
        assert fired.wait(10)
        heap.check()
    """)


def test_what_a_worker_leaves_that_was_ended_fires_once_a_thread_can_be_had():
    """No other can take its place at first. That another heap gets one is enough."""
    run_ok(f"""
        import ctypes, os, sys, threading, time
        sys.path.insert(0, {os.path.dirname(__file__)!r})
        from helpers import no_threads
        from timerheap import AfterFunc, TimerHeap
        one, other = TimerHeap("one"), TimerHeap("other")
        fired = threading.Event()
        AfterFunc(1, fired.set, heap=one)
        AfterFunc(0, ctypes.CDLL(None).pthread_exit, None, heap=one)
        deadline = time.monotonic() + 30
        while "one" not in [t.name for t in threading.enumerate() if not t.is_alive()]:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        with no_threads():
            try:
                AfterFunc(3600, print, heap=one)
            except RuntimeError as exc:
                assert "can't start new thread" in str(exc), exc
            else:
                raise AssertionError
        AfterFunc(3600, print, heap=other)
        assert fired.wait(20)
        one.check()
    """)


@pytest.mark.skipif(SANITIZER == "tsan", reason="the runtime has a thread of its own, which is counted")
def test_ten_thousand_timers_add_one_thread():
    run_ok(COUNTING + "timers = [AfterFunc(3600, print) for _ in range(10_000)]; assert native() == 2")


@pytest.mark.skipif(SANITIZER == "tsan", reason="the runtime has a thread of its own, which is counted")
def test_channels_and_tickers_add_no_more():
    run_ok(
        COUNTING
        + "AfterFunc(3600, print); assert native() == 2; "
        + "held = [make(3600) for make in (Timer, Ticker) for _ in range(1000)]; assert native() == 2"
    )


def test_each_heap_has_its_own_worker():
    with TimerHeap("one") as one, TimerHeap("other") as other:
        AfterFunc(FAR, print, heap=one)
        AfterFunc(FAR, print, heap=other)
        wait_until(lambda: {"one", "other"} <= set(names()))


def test_the_first_timer_of_many_threads_starts_one_worker():
    for _ in range(20):
        with TimerHeap("contended") as heap:
            run_threads(8, lambda _, heap=heap: AfterFunc(FAR, print, heap=heap))
            wait_until(lambda: "contended" in names())
            assert names().count("contended") == 1
            assert len(heap) == 8


def test_a_finalizer_that_arms_in_the_middle_of_a_start_has_no_second_worker():
    """A collection may come at any allocation before the thread is there."""

    class Cycle:
        def __init__(self, heap):
            self.me = self
            self.heap = heap

        def __del__(self):
            AfterFunc(FAR, int, heap=self.heap)

    thresholds = gc.get_threshold()
    for allocations in range(1, 40):
        with TimerHeap("once") as heap:
            gc.collect()
            Cycle(heap)
            gc.set_threshold(allocations)
            try:
                AfterFunc(FAR, int, heap=heap)
            finally:
                gc.set_threshold(*thresholds)
            gc.collect()
            assert len(heap) == 2
            assert names().count("once") == 1


def test_close_ends_the_worker():
    heap = TimerHeap("ending")
    AfterFunc(FAR, print, heap=heap)
    wait_until(lambda: "ending" in names())
    heap.close()
    wait_until(lambda: "ending" not in names())


@pytest.mark.skipif(SANITIZER == "tsan", reason="the runtime has a thread of its own, which is counted")
def test_a_closed_and_dropped_heap_leaves_no_thread_behind():
    run_ok(
        COUNTING
        + "heap = TimerHeap('dropped'); AfterFunc(0, int, heap=heap); assert native() == 2; "
        + "heap.close(); del heap; assert settles_at(1)"
    )


def test_the_default_heap_is_made_once():
    assert len(set(run_threads(8, lambda _: id(default_heap())))) == 1
    assert default_heap().name == "timerheap"


@asks_proc
def test_an_idle_worker_does_not_wake():
    """A far deadline costs nothing: no context switch of the worker in half a second."""
    run_ok("""
        import threading, time
        from timerheap import AfterFunc
        timers = [AfterFunc(3600, print) for _ in range(1000)]
        [worker] = [t for t in threading.enumerate() if t is not threading.main_thread()]

        def switches():
            with open(f"/proc/self/task/{worker.native_id}/status") as status:
                return sum(int(line.split()[1]) for line in status if "ctxt_switches" in line)

        time.sleep(0.2)
        before = switches()
        time.sleep(0.5)
        assert switches() - before <= 2, (before, switches())
    """)


def test_eight_threads_arming_stopping_and_resetting_lose_nothing(heap, fast_switching):
    shared = [AfterFunc(FAR, int, heap=heap) for _ in range(50)]
    runs = []

    def work(index):
        chance = random.Random(index)
        mine = []
        arms = cancels = 0
        for _ in range(2500):
            choice = chance.random()
            if choice < 0.3:
                mine.append(AfterFunc(chance.random() * 1e-3, runs.append, 1, heap=heap))
                arms += 1
            elif choice < 0.4 and mine:
                mine.pop(chance.randrange(len(mine)))
            elif choice < 0.6:
                cancels += chance.choice(shared).stop()
            elif choice < 0.8:
                cancels += chance.choice(shared).reset(chance.choice([1e-4, 1e-3, FAR]))
                arms += 1
            elif mine:
                timer = chance.choice(mine)
                if choice < 0.9:
                    cancels += timer.stop()
                else:
                    cancels += timer.reset(chance.random() * 1e-3)
                    arms += 1
        return arms, cancels

    totals = [sum(column) for column in zip(*run_threads(8, work), strict=True)]
    arms, cancels = totals[0] + len(shared), totals[1]
    cancels += sum(timer.stop() for timer in shared)
    wait_until(lambda: len(heap) == 0)
    wait_until(lambda: heap.stats()["fired"] == arms - cancels)
    stats = heap.stats()
    assert (stats["arms"], stats["cancelled"]) == (arms, cancels)
    assert balance(heap) == 0
    heap.check()


def test_trace_and_profile_functions_see_callbacks():
    """A debugger, a profiler or coverage set for all threads sees what runs on the worker."""
    out = run_ok("""
        import threading
        from timerheap import AfterFunc
        seen, done = set(), threading.Event()

        def watch(frame, event, arg):
            seen.add((frame.f_code.co_name, event))
            return watch

        threading.settrace(watch)
        threading.setprofile(lambda frame, event, arg: seen.add((frame.f_code.co_name, "p")))

        def callback():
            done.set()

        AfterFunc(0, callback)
        assert done.wait(30)
        print(("callback", "call") in seen, ("callback", "p") in seen)
    """)
    assert out == "True True\n"


def test_thread_locals_of_the_worker_last(heap):
    local = threading.local()
    seen = []

    def callback():
        local.count = getattr(local, "count", 0) + 1
        seen.append(local.count)

    for number in range(1, 6):
        AfterFunc(0, callback, heap=heap)
        wait_until(lambda number=number: len(seen) == number)
    assert seen == [1, 2, 3, 4, 5]


def test_a_worker_cannot_be_started_again(heap):
    AfterFunc(FAR, print, heap=heap)
    [worker] = [thread for thread in threading.enumerate() if "test" in thread.name and thread.daemon]
    with pytest.raises(RuntimeError, match="only be started once"):
        worker.start()


def test_check_waits_for_the_worker_to_sort(heap):
    """A herd is due when the callback before it ends, and is sorted without the lock."""
    rng, count = random.Random(1), 200_000
    gate = threading.Event()
    AfterFunc(0, gate.wait, PATIENCE, heap=heap)
    wait_until(lambda: heap.stats()["fired"] == 1)
    herd = [AfterFunc(rng.random() * 1e-3, int, heap=heap) for _ in range(count)]
    gate.set()
    while heap.stats()["fired"] < 1 + count:
        heap.check()
    assert heap.stats()["fired"] == 1 + len(herd)
