"""One worker a heap, however many timers and threads use it."""

import random
import threading
import time

import pytest
from helpers import FAR, PATIENCE, SANITIZER, balance, run_ok, run_threads, wait_until

from timerheap import AfterFunc, TimerHeap, default_heap


def names():
    return [thread.name for thread in threading.enumerate()]


# Counting the system's threads needs a process of its own: in this one threads of earlier tests, which Python has
# joined, may be on their way out still, and the test runner has a watchdog.
COUNTING = """
import os, time
from timerheap import AfterFunc, Ticker, Timer, TimerHeap

def native():
    return len(os.listdir("/proc/self/task"))

def settles_at(count):
    deadline = time.monotonic() + 30
    while native() != count and time.monotonic() < deadline:
        time.sleep(0.001)
    return native() == count

"""


def test_a_heap_without_timers_has_no_thread():
    run_ok(COUNTING + "heap = TimerHeap('idle'); assert native() == 1; heap.close()")


def test_the_first_timer_starts_the_worker_named_after_its_heap(heap):
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


@pytest.mark.parametrize("late", [False, True], ids=["under way", "not yet begun"])
def test_an_interrupted_start_never_leaves_two_workers(heap, monkeypatch, late):
    """A signal handler may raise while the thread is being started, and the thread may still come to life."""
    start = threading.Thread.start
    interrupted = []

    def interrupted_start(thread):
        interrupted.append(thread)
        if not late:
            start(thread)
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted_start)
    with pytest.raises(KeyboardInterrupt):
        AfterFunc(FAR, print, heap=heap)
    monkeypatch.undo()
    assert len(heap) == 0
    fired = threading.Event()
    AfterFunc(0, fired.set, heap=heap)
    if late:
        start(interrupted[0])
    assert fired.wait(PATIENCE)
    wait_until(lambda: names().count("test") == 1)


class Refusals:
    """Stands in for Thread.start: `meanwhile()` runs while a start is under way, and the first `count` of them fail."""

    def __init__(self, monkeypatch, count, meanwhile, kind=RuntimeError):
        self.start, self.count, self.meanwhile, self.kind = threading.Thread.start, count, meanwhile, kind
        self.tries = 0
        monkeypatch.setattr(threading.Thread, "start", lambda thread: self(thread))

    def __call__(self, thread):
        self.tries += 1
        if self.tries == 1:
            self.meanwhile()
        if self.tries <= self.count:
            raise self.kind("refused")
        self.start(thread)


@pytest.mark.parametrize("kind", [RuntimeError, MemoryError, KeyboardInterrupt])
@pytest.mark.parametrize("count", [1, 2])
def test_a_start_that_fails_leaves_nobody_elses_timer_behind(heap, monkeypatch, count, kind):
    """Who arms while another thread starts the worker does not wait for it. Nothing is armed afterwards here."""
    fired = threading.Event()
    refusals = Refusals(monkeypatch, count, lambda: AfterFunc(0, fired.set, heap=heap), kind)
    with pytest.raises(kind, match="refused"):
        AfterFunc(FAR, print, heap=heap)
    assert refusals.tries == count + 1
    assert fired.wait(PATIENCE)
    assert len(heap) == 0
    assert names().count("test") == 1


def test_a_start_that_fails_for_nobody_else_is_tried_once(heap, monkeypatch):
    refusals = Refusals(monkeypatch, 100, lambda: AfterFunc(0, print, heap=heap).stop())
    with pytest.raises(RuntimeError, match="refused"):
        AfterFunc(FAR, print, heap=heap)
    assert refusals.tries == 1
    assert len(heap) == 0


def test_where_every_start_fails_the_next_arming_brings_the_worker(heap, monkeypatch):
    fired = threading.Event()
    refusals = Refusals(monkeypatch, 100, lambda: AfterFunc(0, fired.set, heap=heap))
    for armings in range(1, 3):
        with pytest.raises(RuntimeError, match="refused"):
            AfterFunc(FAR, print, heap=heap)
        assert refusals.tries == 3 * armings
        assert len(heap) == 1
        heap.check()
    refusals.count = 0
    timer = AfterFunc(FAR, print, heap=heap)
    assert fired.wait(PATIENCE)
    assert timer.stop()
    assert names().count("test") == 1


def test_what_anybody_raises_goes_before_a_refusal(heap, monkeypatch):
    """The system refuses the first try; a signal handler breaks into the second."""
    start = threading.Thread.start
    fired = threading.Event()
    refusals = [RuntimeError, KeyboardInterrupt]

    def refused_start(thread):
        if len(refusals) == 2:
            AfterFunc(0, fired.set, heap=heap)
        if refusals:
            raise refusals.pop(0)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refused_start)
    with pytest.raises(KeyboardInterrupt):
        AfterFunc(FAR, print, heap=heap)
    assert fired.wait(PATIENCE)


def test_starts_that_fail_under_many_threads_leave_no_timer_behind(monkeypatch, fast_switching):
    """Each thread's first try to start the worker fails. What was armed all the same fires, though nobody arms any
    more."""
    start = threading.Thread.start
    failed = set()

    def start_or_fail(thread):
        if thread.name == "refused" and threading.get_ident() not in failed:
            failed.add(threading.get_ident())
            raise RuntimeError("refused")
        start(thread)

    def arm(heap, runs):
        try:
            AfterFunc(0, runs.append, 1, heap=heap)
        except RuntimeError:
            return False
        return True

    monkeypatch.setattr(threading.Thread, "start", start_or_fail)
    for _ in range(100):
        failed.clear()
        with TimerHeap("refused") as heap:
            runs = []
            armed = sum(run_threads(4, lambda _, heap=heap, runs=runs: arm(heap, runs)))
            wait_until(lambda armed=armed, runs=runs: len(runs) == armed)


@pytest.mark.parametrize("kind", [TimeoutError, RuntimeError, KeyboardInterrupt])
def test_what_a_signal_handler_raises_during_a_start_arrives(heap, monkeypatch, kind):
    """The worker lives, but the handler's exception is the program's: a timeout for instance."""
    start = threading.Thread.start

    def interrupted_start(thread):
        start(thread)
        time.sleep(0.05)                # the worker takes up its post
        raise kind

    monkeypatch.setattr(threading.Thread, "start", interrupted_start)
    with pytest.raises(kind):
        AfterFunc(FAR, print, heap=heap)
    monkeypatch.undo()
    fired = threading.Event()
    AfterFunc(0, fired.set, heap=heap)
    assert fired.wait(PATIENCE)


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
