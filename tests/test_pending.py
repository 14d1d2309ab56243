"""TimerHeap.pending: what is armed, by deadline, and what the handles in it can do."""

import gc
import math
import os
import random
import threading
import time
import weakref

import pytest
from helpers import FAR, FREE_THREADED, PATIENCE, Background, balance, run_ok, wait_until

from timerheap import AfterFunc, Ticker, Timer, TimerHeap
from timerheap.testing import ManualHeap

keeps_every_handle = pytest.mark.skipif(FREE_THREADED, reason="without a GIL an armed timer's handle never goes")


class Callback:
    def __call__(self, *args):
        pass


def nothing(*args):
    pass


def arguments(heap):
    return [timer.args[0] for _, timer in heap.pending()]


def test_it_lists_function_timers_by_deadline_and_equal_ones_in_the_order_of_arming(manual):
    delays = [3, 1, 2, 1, math.inf, 3, 0, 1]
    timers = [AfterFunc(delay, print, heap=manual) for delay in delays]
    timers[3].reset(2)
    others = Timer(1, heap=manual), Ticker(1, heap=manual)
    when = [(delay, timers[i]) for delay, i in ((0, 6), (1, 1), (1, 7), (2, 2), (2, 3), (3, 0), (3, 5), (math.inf, 4))]
    assert manual.pending() == when
    assert all(timer.when == at for at, timer in manual.pending())
    assert others


def test_nothing_is_pending_on_a_new_a_stopped_and_a_closed_heap(manual):
    assert manual.pending() == []
    timer = AfterFunc(1, print, heap=manual)
    assert timer.stop()
    assert manual.pending() == []
    AfterFunc(1, print, heap=manual)
    assert len(manual.pending()) == 1
    manual.close()
    assert manual.pending() == []


def test_it_agrees_with_a_sorted_list_through_random_histories(manual):
    """Few deadlines, so that there are ties; handles are dropped; the clock moves and what is due goes."""
    chance = random.Random(1)
    now, number, model, handles = 0, 0, {}, {}
    order = {}
    for step in range(4000):
        what = chance.randrange(10)
        if what < 4:
            key, delay = step, chance.randrange(1, 30)
            handles[key] = AfterFunc(delay, model.pop, key, heap=manual)
            number += 1
            model[key], order[key] = now + delay, number
        elif what < 6 and handles:
            key = chance.choice(list(handles))
            delay = chance.randrange(1, 30)
            assert handles[key].reset(delay) == (key in model)
            number += 1
            model[key], order[key] = now + delay, number
        elif what < 7 and handles:
            key = chance.choice(list(handles))
            assert handles[key].stop() == (model.pop(key, None) is not None)
        elif what < 8 and handles:
            del handles[chance.choice(list(handles))]
        elif what < 9:
            manual.advance(1)
            now += 1
        expected = sorted(((when, key) for key, when in model.items()), key=lambda pair: (pair[0], order[pair[1]]))
        pairs = manual.pending()
        assert [(when, timer.args[0]) for when, timer in pairs] == expected
        for _, timer in pairs:
            assert handles.get(timer.args[0], timer) is timer
        if what == 9 and pairs:             # one handle that was dropped is in use again
            _, timer = chance.choice(pairs)
            handles[timer.args[0]] = timer
        del pairs
        manual.check()


def test_a_dropped_timer_has_a_handle_again_that_stops_it(heap):
    callback = Callback()
    gone = weakref.ref(callback)
    AfterFunc(FAR, callback, 1, 2, heap=heap)
    [(when, timer)] = heap.pending()
    assert (timer.func, timer.args, timer.heap, timer.when) == (callback, (1, 2), heap, when)
    assert timer.active
    assert len(heap) == 1
    heap.check()
    assert timer.stop()
    assert not timer.stop()
    assert heap.pending() == []
    assert timer.reset(FAR) is False
    assert heap.pending() == [(timer.when, timer)]
    assert timer.stop()
    heap.check()
    del callback, timer
    gc.collect()
    assert gone() is None


def test_a_dropped_timer_that_had_a_handle_again_fires(heap):
    fired = []
    gate = threading.Event()
    AfterFunc(0, gate.wait, PATIENCE, heap=heap)
    for number in range(100):
        AfterFunc(0.01, fired.append, number, heap=heap)
    pairs = heap.pending()
    gate.set()
    wait_until(lambda: len(fired) == 100)
    assert fired == list(range(100))
    assert not any(timer.active for _, timer in pairs)
    assert balance(heap) == 0


@pytest.mark.parametrize("kind", [TimerHeap, ManualHeap])
def test_a_handle_that_is_dropped_again_leaves_all_as_it_was(kind):
    """Counters, bytes and slots: a hundred snapshots cost nothing that stays."""
    with kind() as heap:
        for number in range(1000):
            AfterFunc(FAR, int, number, heap=heap)
        kept = heap.pending()[::2]
        del kept[::2]
        before = heap.nbytes, len(heap), heap.stats()["arms"]
        for _ in range(100):
            assert len(heap.pending()) == 1000
        heap.check()
        assert (heap.nbytes, len(heap), heap.stats()["arms"]) == before
        assert all(timer.stop() for _, timer in kept)
        assert len(heap.pending()) == len(heap) == 750
        heap.check()


@keeps_every_handle
def test_handles_in_a_snapshot_count_while_it_is_held(heap):
    for _ in range(100):
        AfterFunc(FAR, int, heap=heap)
    before = heap.nbytes
    pairs = heap.pending()
    assert heap.nbytes - before == 100 * 80
    heap.check()
    pairs.clear()
    assert heap.nbytes == before


def test_what_is_due_and_not_launched_is_pending_and_what_runs_is_not(manual):
    seen = []

    def look(number):
        seen.append((number, arguments(manual)))
        manual.check()

    handles = [AfterFunc(1, look, number, heap=manual) for number in range(4)]
    AfterFunc(2, look, 4, heap=manual)
    del handles[::2]
    manual.advance(2)
    assert seen == [(number, list(range(number + 1, 5))) for number in range(5)]


@pytest.mark.parametrize("act", ["stop", "reset", "drop", "keep"])
def test_a_due_handle_that_was_dropped_is_pending(manual, act):
    """The first of a run drops the handles of the others, then finds them in a snapshot."""
    log, held = [], []

    def first():
        timers.clear()
        fillers.extend(AfterFunc(FAR, log.append, "filler", heap=manual) for _ in range(100))
        pairs = [pair for pair in manual.pending() if pair[0] == 1]
        manual.check()
        assert [timer.args for _, timer in pairs] == [(number,) for number in range(100)]
        assert all(timer.active for _, timer in pairs)
        if act == "stop":
            assert all(timer.stop() for _, timer in pairs)
        elif act == "reset":
            assert all(timer.reset(1) for _, timer in pairs)
        elif act == "keep":
            held.extend(pairs)
        manual.check()

    fillers, timers = [], []
    AfterFunc(1, first, heap=manual)
    timers.extend(AfterFunc(1, log.append, number, heap=manual) for number in range(100))
    manual.advance(1)
    manual.check()
    assert log == ([] if act in ("stop", "reset") else list(range(100)))
    assert not any(timer.active for _, timer in held)
    manual.advance(1)
    assert log == ([] if act == "stop" else list(range(100)))
    fillers.clear()
    gc.collect()
    manual.check()
    assert len(manual) == 100


@pytest.mark.parametrize("act", ["reset", "reset and drop"])
def test_a_due_timer_that_is_armed_anew_is_listed_once(manual, act):
    seen = []

    def first():
        for timer in timers:
            timer.reset(5)
        if act != "reset":
            timers.clear()
        seen.extend(manual.pending())
        manual.check()

    AfterFunc(1, first, heap=manual)
    timers = [AfterFunc(1, print, number, heap=manual) for number in range(50)]
    manual.advance(1)
    assert [(when, timer.args) for when, timer in seen] == [(6, (number,)) for number in range(50)]


def test_what_is_void_in_the_run_of_a_closed_heap_is_not_pending(heap):
    seen = []

    def close():
        heap.close()
        seen.append(heap.pending())

    gate = threading.Event()
    AfterFunc(0, gate.wait, PATIENCE, heap=heap)
    AfterFunc(0, close, heap=heap)
    AfterFunc(0, seen.append, "fired", heap=heap)
    gate.set()
    wait_until(lambda: seen)
    assert seen == [[]]


def test_timers_that_are_pending_all_the_time_are_listed_whatever_others_do(heap, fast_switching):
    """Other threads arm, stop, reset and drop neighbours, earlier and later ones, and the worker fires some."""
    stop = threading.Event()
    kept = [AfterFunc(FAR + number % 37, nothing, "kept", number, heap=heap) for number in range(3000)]
    for number in range(3000, 4000):
        AfterFunc(FAR + number % 37, nothing, "kept", number, heap=heap)

    def disturb(seed):
        chance = random.Random(seed)
        while not stop.is_set():
            delays = chance.choices([0, 1e-4, FAR / 2, 2 * FAR], k=50)
            mine = [AfterFunc(delay, nothing, "other", heap=heap) for delay in delays]
            for timer in chance.sample(mine, 40):
                chance.choice([timer.stop, lambda timer=timer: timer.reset(chance.choice([0, FAR]))])()
            del mine[:3]
            for timer in mine:
                timer.stop()
            del timer, mine
            time.sleep(0.001)

    threads = [Background(disturb, seed) for seed in range(3)]
    try:
        for _ in range(40):
            pairs = heap.pending()
            assert [when for when, _ in pairs] == sorted(when for when, _ in pairs)
            assert len({id(timer) for _, timer in pairs}) == len(pairs)
            listed = [timer.args[1] for _, timer in pairs if timer.args[0] == "kept"]
            assert sorted(listed) == list(range(4000))
            del pairs
    finally:
        stop.set()
    for thread in threads:
        thread.result()
    heap.check()
    assert all(timer.stop() for timer in kept)
    for _, timer in heap.pending():
        timer.stop()
    wait_until(lambda: len(heap) == 0)
    del timer
    assert balance(heap) == 0


def test_stop_of_what_a_snapshot_shows_is_exact_beside_the_worker(heap):
    """Each timer is either stopped by the handle that a snapshot gave, or has fired: never both, never neither."""
    fired, stopped = [], []
    for round_ in range(20):
        for number in range(200):
            AfterFunc(number * 1e-5, fired.append, (round_, number), heap=heap)
        while pairs := heap.pending():
            stopped += [timer.args[0] for _, timer in pairs[::3] if timer.stop()]
    wait_until(lambda: len(fired) + len(stopped) == 4000)
    assert sorted(fired + stopped) == [(round_, number) for round_ in range(20) for number in range(200)]
    assert heap.stats()["cancelled"] == len(stopped)
    assert balance(heap) == 0


def test_handles_of_a_snapshot_pin_no_heap_that_nobody_drives():
    """A manual heap goes with what is armed on it, also if that has handles again."""

    class Holder:
        pass

    holder = Holder()
    heap = holder.heap = ManualHeap()
    AfterFunc(1, print, holder, heap=heap)
    holder.pairs = heap.pending()
    gone = weakref.ref(holder)
    del holder, heap
    gc.collect()
    assert gone() is None


def test_a_cycle_through_a_handle_that_came_back_is_collectable(heap):
    callback = Callback()
    AfterFunc(FAR, callback, heap=heap)
    [(_, callback.timer)] = heap.pending()
    gone = weakref.ref(callback)
    assert callback.timer.stop()
    del callback
    gc.collect()
    assert gone() is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_child_has_nothing_pending_of_its_parents():
    run_ok("""
        import os, warnings
        from timerheap import AfterFunc, TimerHeap
        warnings.simplefilter("ignore")
        heap = TimerHeap()
        kept = AfterFunc(3600, print, heap=heap)
        AfterFunc(3600, print, heap=heap)
        pid = os.fork()
        if pid == 0:
            assert heap.pending() == []
            own = AfterFunc(3600, print, heap=heap)
            kept.reset(7200)
            assert [timer for _, timer in heap.pending()] == [own, kept]
            heap.check()
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert len(heap.pending()) == 2
    """)


def test_a_handle_that_the_interpreter_has_put_aside_is_left_out():
    """CPython 3.14 puts off the release of an object where the stack is nearly used up. Such a handle is dead, and its
    timer armed: a second life would be followed by a second death."""
    run_ok("""
        import threading
        from timerheap import AfterFunc
        from timerheap.testing import ManualHeap

        class End:
            def __del__(self):
                try:
                    pairs = heap.pending()
                    assert all(timer.func is print and timer.active for _, timer in pairs)
                    looked.append(len(pairs))
                except RecursionError:
                    pass                # too deep yet

        def scenario():
            chain = None
            for n in range(DEPTH):      # a list releases its last item first
                chain = [End() if n % 2000 == 0 else None, chain, AfterFunc(1, print, heap=heap)]
            del chain

        DEPTH, looked = 20_000, []
        heap = ManualHeap()
        threading.stack_size(512 * 1024)
        thread = threading.Thread(target=scenario)
        thread.start()
        thread.join()
        assert looked and max(looked) <= DEPTH
        heap.check()
        assert len(heap) == len(heap.pending()) == DEPTH
        heap.close()
    """)


@pytest.mark.parametrize("dropped", [False, True])
def test_a_large_heap_is_listed_in_order(heap, dropped):
    """Large enough for the radix sort, and for many slices."""
    chance = random.Random(2)
    timers = [AfterFunc(FAR + chance.random(), int, heap=heap) for _ in range(50_000)]
    if dropped:
        timers.clear()
    pairs = heap.pending()
    assert len(pairs) == 50_000
    when = [at for at, _ in pairs]
    assert when == sorted(when)
    assert sum(timer.stop() for _, timer in pairs) == 50_000
    heap.check()
