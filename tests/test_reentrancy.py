"""Code that runs at awkward moments, finalizers and the collector's hooks, uses timers too."""

import gc
import random
import threading
import weakref

import pytest
from helpers import FAR, PATIENCE, balance, wait_until

from timerheap import AfterFunc, Ticker, Timer, TimerHeap
from timerheap.testing import ManualHeap


def test_a_callback_may_arm_stop_and_reset_any_timer(manual):
    log = []
    other, third = AfterFunc(5, log.append, "no", heap=manual), AfterFunc(9, int, heap=manual)

    def callback():
        log.append(other.stop())
        log.append(third.reset(20))
        AfterFunc(1, log.append, "armed inside", heap=manual)
        Timer(0, heap=manual).c.recv()
        Ticker(1, heap=manual).stop()
        manual.check()

    AfterFunc(1, callback, heap=manual)
    manual.advance(10)
    assert log == [True, True, "armed inside"]


def test_a_callback_may_block_on_a_timer_of_its_own_heap(heap):
    seen = []

    def callback():
        seen.append(Timer(0.01, heap=heap).c.recv())

    AfterFunc(0, callback, heap=heap)
    wait_until(lambda: seen)


def test_a_callback_may_close_its_heap():
    heap = TimerHeap("closing")
    seen = []
    armed = threading.Event()

    def callback():
        assert armed.wait(PATIENCE)
        heap.close()
        seen.append((heap.closed, len(heap), later.stop()))

    later = AfterFunc(FAR, print, heap=heap)
    AfterFunc(0, callback, heap=heap)
    AfterFunc(0, seen.append, "ran after close", heap=heap)
    armed.set()
    wait_until(lambda: seen)
    heap.close()
    assert seen == [(True, 0, False)]


def test_closing_a_manual_heap_from_a_callback_ends_the_advance():
    heap = ManualHeap()
    log = []
    AfterFunc(1, heap.close, heap=heap)
    AfterFunc(1, log.append, "no", heap=heap)
    heap.advance(2)
    assert log == []
    assert heap.closed


class Meddler:
    """Its finalizer arms, resets and stops timers of the heap it is given."""

    def __init__(self, heap, shared):
        self.heap = heap
        self.shared = shared

    def __call__(self, *args):
        pass

    def __del__(self):
        AfterFunc(FAR, int, heap=self.heap).stop()
        AfterFunc(FAR, int, heap=self.heap)
        self.shared.reset(2 * FAR)


@pytest.fixture
def shared(manual):
    return AfterFunc(FAR, int, heap=manual)


def meddlers(heap, shared, count=200):
    return [AfterFunc(1, Meddler(heap, shared), heap=heap) for _ in range(count)]


def test_finalizers_that_meddle_run_when_callbacks_have_fired(manual, shared):
    del meddlers(manual, shared)[:]
    manual.advance(1)
    manual.check()
    assert len(manual) == 201
    assert balance(manual) == 0


def test_finalizers_that_meddle_run_when_handles_are_stopped_and_dropped(manual, shared):
    timers = meddlers(manual, shared)
    while timers:
        timers.pop().stop()
        manual.check()
    assert len(manual) == 201
    assert balance(manual) == 0


def test_finalizers_that_meddle_run_when_arguments_go(manual, shared):
    for _ in range(100):
        AfterFunc(1, int, Meddler(manual, shared), heap=manual).stop()
        AfterFunc(1, print, Meddler(manual, shared), 2, heap=manual).stop()
    manual.check()
    assert len(manual) == 201
    assert balance(manual) == 0


def test_finalizers_that_meddle_find_a_closing_heap_closed(unraisable):
    heap = ManualHeap()
    shared = AfterFunc(FAR, int, heap=heap)
    meddlers(heap, shared)
    heap.close()
    gc.collect()
    assert len(heap) == 0
    heap.check()
    assert len(unraisable) == 200
    assert {seen.exc_type for seen in unraisable} == {RuntimeError}


def test_a_finalizer_may_stop_the_neighbours_of_the_timer_that_held_it(manual):
    class Killer:
        def __call__(self):
            pass

        def __del__(self):
            log.append([timer.stop() for timer in neighbours])

    log = []
    AfterFunc(1, Killer(), heap=manual)
    neighbours = [AfterFunc(1, log.append, "no", heap=manual) for _ in range(3)]
    manual.advance(2)
    assert log == [[True, True, True]]


def test_weak_reference_callbacks_may_arm_and_stop(manual, eager_collector):
    class Owner:
        pass

    def gone(_):
        AfterFunc(1, int, heap=manual)
        timers.pop().stop()

    timers = [AfterFunc(FAR, int, heap=manual) for _ in range(300)]
    references = []
    for _ in range(300):
        owner = Owner()
        owner.timer = AfterFunc(FAR, int, owner, heap=manual)
        references.append(weakref.ref(owner, gone))
        owner.timer.stop()
        del owner
        manual.check()
    gc.collect()
    assert timers == []
    assert len(manual) == 300
    assert balance(manual) == 0


def test_weakref_finalize_may_stop_a_timer(manual):
    class Owner:
        pass

    owner = Owner()
    timer = AfterFunc(FAR, int, heap=manual)
    weakref.finalize(owner, timer.stop)
    del owner
    assert not timer.active


@pytest.fixture
def meddling_collector(eager_collector):
    """Each collection arms and stops timers of the heap in the list this gives."""
    heaps = []
    runs = []

    def hook(phase, info):
        for heap in heaps:
            timer = AfterFunc(FAR, int, heap=heap)
            AfterFunc(1e-3, int, heap=heap)
            timer.stop()
            runs.append(phase)

    gc.callbacks.append(hook)
    yield heaps
    gc.callbacks.remove(hook)
    assert runs


def test_the_collector_may_arm_and_stop_inside_every_allocation(manual, meddling_collector):
    meddling_collector.append(manual)
    chance = random.Random(8)
    timers = []
    for step in range(1500):
        match chance.randrange(6):
            case 0 | 1 | 2:
                timers.append(AfterFunc(chance.randrange(50), [].append, [step], heap=manual))
            case 3 if timers:
                chance.choice(timers).stop()
            case 4 if timers:
                chance.choice(timers).reset(chance.randrange(50))
            case 5 if timers:
                timers.pop(chance.randrange(len(timers)))
        Timer(1, heap=manual)
        Ticker(1, heap=manual)
        if step % 100 == 0:
            manual.advance(1)
            manual.check()
    meddling_collector.clear()
    manual.check()
    assert len(manual.stats()) > 0
    gc.collect()


def test_the_collector_may_arm_and_stop_while_a_real_worker_runs(heap, meddling_collector):
    meddling_collector.append(heap)
    runs = []
    for number in range(1000):
        AfterFunc(1e-4, lambda *args: runs.append([args]), number, [number], heap=heap)
    wait_until(lambda: len(runs) == 1000)
    meddling_collector.clear()


def test_the_ledger_balances_with_finalizers_and_the_collector_at_work(heap, eager_collector):
    shared = AfterFunc(FAR, int, heap=heap)
    stop = threading.Event()
    made = []

    def churn():
        while not stop.wait(1e-3):
            made.append(None)
            owner = Meddler(heap, shared)
            owner.timer = AfterFunc(1e-4, owner, heap=heap)
            owner.cycle = owner

    threads = [threading.Thread(target=churn) for _ in range(3)]
    for thread in threads:
        thread.start()
    stop.wait(1)
    stop.set()
    for thread in threads:
        thread.join()
    wait_until(lambda: heap.stats()["fired"] >= len(made))
    gc.collect()
    heap.check()
    assert balance(heap) == 0
