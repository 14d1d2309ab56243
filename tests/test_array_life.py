"""How a TimerArray lives and goes: what keeps it, what it keeps, its memory, and the child of a fork."""

import asyncio
import gc
import random
import sys
import threading
import weakref

import pytest
from helpers import FAR, FORKED, PATIENCE, Background, asks_proc, balance, run_ok, run_threads, wait_until

from timerheap import AfterFunc, TimerArray, TimerHeap
from timerheap.asyncio import heap as heap_of
from timerheap.testing import ManualHeap, use

ALL = slice(None)


class Owner:
    """Has an array that calls one of its methods: a cycle."""

    def __init__(self, heap, n=10):
        self.calls = []
        self.timers = TimerArray(n, self.call, heap=heap)

    def call(self, slots):
        self.calls.extend(slots)


def gone(reference):
    gc.collect()
    return reference() is None


# ---- how an array begins --------------------------------------------------------------------------------------------


def refuse():
    raise ValueError("refused")


class Asked:
    """Whoever makes an array asks it for n, or for each."""

    def __init__(self, act):
        self._act = act

    def __index__(self):
        self._act()
        return 5

    def __bool__(self):
        self._act()
        return False


@pytest.mark.parametrize("make", [lambda it: TimerArray(it, print), lambda it: TimerArray(5, print, each=it)])
def test_an_array_that_comes_to_nothing_leaves_the_others_alone(manual, make):
    fired = []
    timers = TimerArray(10, fired.extend, heap=manual)
    with use(manual):
        for _ in range(3):
            with pytest.raises(ValueError, match="refused"):
                make(Asked(refuse))
    timers.reset([1, 2], 1)
    manual.check()
    manual.advance(1)
    assert fired == [1, 2]


@pytest.mark.parametrize("make", [lambda it: TimerArray(it, print), lambda it: TimerArray(5, print, each=it)])
def test_nobody_finds_an_array_that_is_half_made(manual, make):
    def arrays():
        return [thing for thing in gc.get_objects() if type(thing) is TimerArray]

    found = []
    before = len(arrays())
    with use(manual):
        timers = make(Asked(lambda: found.append(len(arrays()))))
    assert found == [before]
    assert len(arrays()) == before + 1  # and the collector knows the whole one
    assert len(timers) == 5


# ---- what keeps an array --------------------------------------------------------------------------------------------


def test_an_idle_array_goes_with_its_last_reference(manual):
    timers = TimerArray(10, print, heap=manual)
    timers.reset(ALL, FAR)
    timers.stop()
    timers.reset(3, 1)
    manual.advance(0)
    timers.stop(3)
    reference = weakref.ref(timers)
    del timers
    assert reference() is None
    manual.check()


@pytest.mark.parametrize("end", ["fire", "fire each", "close", "stop one by one"])
def test_what_is_armed_keeps_an_array_that_nobody_holds(end):
    heap, fired = ManualHeap(), []
    each = end == "fire each"
    timers = TimerArray(10, fired.append if each else fired.extend, each=each, heap=heap)
    timers.reset(range(5), [1, 2, 3, 4, 5])
    reference = weakref.ref(timers)
    del timers
    gc.collect()
    assert reference() is not None
    heap.advance(4)
    assert reference().armed == 1
    heap.check()
    match end:
        case "close":
            heap.close()
        case "stop one by one":
            assert reference().stop(4) is True
        case _:
            heap.advance(1)
            assert fired == [0, 1, 2, 3, 4]
    assert gone(reference)
    heap.check()


def test_an_array_on_a_worker_fires_though_nobody_holds_it_or_its_heap():
    fired, done = [], threading.Event()

    def call(slots):
        fired.extend(slots)
        if len(fired) == 1000:
            done.set()

    heap = TimerHeap()
    timers = TimerArray(1000, call, heap=heap)
    timers.reset(ALL, ns=range(0, 20_000_000, 20_000))
    references = [weakref.ref(timers), weakref.ref(heap)]
    del timers, heap
    assert done.wait(PATIENCE)
    wait_until(lambda: all(map(gone, references)))
    assert fired == list(range(1000))


def test_an_idle_cycle_is_collected_and_an_armed_one_is_not(heap):
    owner = Owner(heap)
    reference = weakref.ref(owner)
    owner.timers.reset(ALL, FAR)
    timers = owner.timers
    del owner
    assert not gone(reference)
    timers.stop()
    del timers
    assert gone(reference)
    heap.check()


def test_a_cycle_goes_when_its_last_slot_has_fired(heap):
    owner = Owner(heap)
    owner.timers.reset(ALL, [0] * 9 + [0.01])
    calls, reference = owner.calls, weakref.ref(owner)
    del owner
    wait_until(lambda: len(calls) == 10)
    wait_until(lambda: gone(reference))
    heap.check()


def test_a_cycle_that_is_armed_goes_with_its_manual_heap():
    heap = ManualHeap()
    owner = Owner(heap)
    owner.heap = heap
    owner.timers.reset(range(5), FAR)
    references = [weakref.ref(owner), weakref.ref(heap), weakref.ref(owner.timers)]
    del owner
    assert not gone(references[0])
    del heap
    assert all(map(gone, references))


def test_a_cycle_that_is_armed_goes_with_the_heap_of_its_loop():
    async def main():
        owner = Owner(heap_of())
        owner.timers.reset(range(5), FAR)
        return weakref.ref(owner), weakref.ref(owner.timers)

    loop = asyncio.new_event_loop()
    references = loop.run_until_complete(main())
    loop.close()
    del loop
    assert all(map(gone, references))


def test_a_cycle_goes_with_a_closed_heap():
    heap = TimerHeap()
    owner = Owner(heap)
    owner.timers.reset(ALL, FAR)
    reference = weakref.ref(owner)
    del owner
    assert not gone(reference)
    heap.close()
    assert gone(reference)
    heap.check()


def test_a_finalizer_in_a_cycle_may_arm_its_array_which_lives_on(heap):
    """Until that has fired: then it goes for good."""

    class Phoenix(Owner):
        def __del__(self):
            self.timers.reset([1, 2], 0.001)

    phoenix = Phoenix(heap)
    calls, reference = phoenix.calls, weakref.ref(phoenix.timers)
    del phoenix
    gc.collect()
    wait_until(lambda: calls == [1, 2])
    wait_until(lambda: gone(reference))
    heap.check()


def test_an_array_shows_its_heap_and_its_function_to_the_collector(manual):
    timers = TimerArray(3, lambda slots: None, heap=manual)
    assert gc.is_tracked(timers)
    assert {id(found) for found in gc.get_referents(timers)} >= {id(manual), id(timers.func)}
    assert all(found is not timers for found in gc.get_referents(manual))
    timers.reset(1, FAR)
    assert any(found is timers for found in gc.get_referents(manual))
    timers.stop()
    assert all(found is not timers for found in gc.get_referents(manual))


def test_references_to_an_array_and_its_heap_are_given_back(heap):
    """Each way from nothing armed to something and back."""
    fired = []
    timers = TimerArray(2000, fired.extend, heap=heap)
    before = sys.getrefcount(timers), sys.getrefcount(heap)
    for _ in range(20):
        timers.reset(ALL, FAR)
        assert sys.getrefcount(timers) > before[0]
        assert timers.stop() == 2000
        timers.reset(3, FAR)
        timers.postpone(3, 2 * FAR)
        timers.postpone(ALL, FAR)
        assert timers.stop(3) is True
        timers.reset([3, 3], 0)
        wait_until(lambda: not timers.armed)
        with pytest.raises(IndexError):
            timers.reset([1, 2000], 1)
    wait_until(lambda: (sys.getrefcount(timers), sys.getrefcount(heap)) == before)
    assert fired == [3] * 20


# ---- the end of an array --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 100, 20_000])
@pytest.mark.parametrize("others", [0, 50, 3000])
def test_an_array_whose_keys_are_dead_leaves_the_heap_in_order(manual, count, others):
    """Stopped slots leave keys and risers behind, which point at its memory."""
    log, chance = [], random.Random(count)
    timers = TimerArray(count, print, heap=manual)
    timers.reset(ALL, [chance.randrange(5, 100) for _ in range(count)])
    kept = [AfterFunc(chance.randrange(5, 100), log.append, n, heap=manual) for n in range(others)]
    for slot in range(0, count, 2):
        timers.reset(slot, chance.randrange(1, 5))
        timers.stop(slot)
    timers.postpone(range(1, count, 4), 1)
    timers.stop()
    manual.check()
    del timers
    manual.check()
    manual.advance(200)
    assert len(log) == others == len({id(timer) for timer in kept})
    manual.check()
    assert balance(manual) == 0


def test_arrays_come_and_go_beside_each_other(manual):
    """Whose a cell is, is found by its address, whichever arrays there are."""
    chance, log, arrays = random.Random(7), [], []
    expected = 0
    for turn in range(300):
        size = chance.choice([1, 2, 170, 171, 5000])
        timers = TimerArray(size, lambda slots, turn=turn: log.append((turn, len(slots))), heap=manual)
        timers.reset(ALL, 1 + turn % 7)
        expected += size
        arrays.append(timers)
        if len(arrays) > 10:
            gone = arrays.pop(chance.randrange(10))
            expected -= gone.stop() if chance.random() < 0.5 else 0
            del gone
        if turn % 50 == 0:
            manual.advance(1)
        manual.check()
    arrays.clear()
    manual.advance(10)
    assert sum(size for _, size in log) == expected
    assert balance(manual) == 0
    manual.check()


@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize("make_another", [False, True])
def test_an_array_may_go_while_the_run_has_void_entries_of_it(manual, each, make_another):
    """Dropped by a callback of the run that is under way: its memory stays until that is over."""
    log, holder = [], []

    def drop():
        timers = holder.pop()
        assert timers.stop(range(0, 500, 2)) == 250
        timers.reset(range(100), FAR)
        assert timers.stop() == 300
        reference = weakref.ref(timers)
        del timers
        assert gone(reference)
        manual.check()
        if make_another:
            holder.append(TimerArray(500, lambda slots: log.append(("another", len(slots))), heap=manual))
            holder[0].reset(ALL, 0)
            manual.check()

    AfterFunc(1, drop, heap=manual)
    holder.append(TimerArray(500, log.append, each=each, heap=manual))
    holder[0].reset(ALL, 1)
    AfterFunc(1, log.append, "behind", heap=manual)
    manual.advance(1)
    assert log == (["behind", ("another", 500)] if make_another else ["behind"])
    manual.advance(1)
    assert balance(manual) == 0


def test_an_array_may_go_in_the_middle_of_its_own_run(manual):
    """Its first batch stops the rest and lets go of it."""
    batches, holder = [], []

    def call(slots):
        batches.append(list(slots))
        holder[0].stop()
        holder.clear()

    holder.append(TimerArray(1000, call, batch=10, heap=manual))
    reference = weakref.ref(holder[0])
    holder[0].reset(ALL, 1)
    AfterFunc(1, lambda: batches.append(gone(reference)), heap=manual)
    manual.advance(1)
    assert batches == [list(range(10)), True]
    assert balance(manual) == 0


@asks_proc
def test_arrays_that_go_during_runs_give_their_memory_back():
    run_ok("""
        from timerheap import AfterFunc, TimerArray
        from timerheap.testing import ManualHeap

        def mapped():
            return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmSize"))

        def turn():
            timers = TimerArray(2_000_000, print, heap=heap)
            timers.reset(range(100_000), 0)
            timers.stop()

        heap = ManualHeap()
        heap.advance(1)
        turn()
        before = mapped()
        for _ in range(20):
            AfterFunc(1, turn, heap=heap)
            AfterFunc(1, int, heap=heap)
            heap.advance(1)
            turn()
        heap.check()
        assert mapped() < before + 100_000, (before, mapped())      # two blocks, of 40
        assert heap.nbytes < 1 << 24, heap.nbytes
    """)


def test_a_chain_of_arrays_does_not_use_up_the_stack():
    """Each the last holder of the next."""
    run_ok("""
        from timerheap import TimerArray
        from timerheap.testing import ManualHeap
        heap = ManualHeap()
        last = TimerArray(1, print, heap=heap)
        for _ in range(20_000):
            last = TimerArray(1, last.stop, heap=heap)
        del last
        heap.check()
    """)


def test_a_large_array_goes_by_slices_and_leaves_its_dead_keys_to_the_tomb(manual):
    """More dead keys than one slice takes, without a sweep in between: they are a quarter at most."""
    kept = TimerArray(200_000, print, heap=manual)
    kept.reset(ALL, 2)
    timers = TimerArray(60_000, print, heap=manual)
    timers.reset(ALL, 1)
    assert timers.stop() == 60_000
    del timers
    manual.check()
    assert len(manual) == 200_000
    manual.advance(1)
    manual.check()
    assert kept.stop() == 200_000


def test_an_array_of_very_many_slots_goes_by_the_few_that_have_keys():
    """A hundred million cells in address space, of which three are touched: to look at each would map all pages."""
    run_ok("""
        import resource
        from timerheap import AfterFunc, TimerArray
        from timerheap.testing import ManualHeap
        heap, fired, n = ManualHeap(), [], 100_000_000
        timers = TimerArray(n, fired.extend, heap=heap)
        assert timers.reset([n - 1, 0, n - 2], [1, 2, 3]) == 0
        others = [AfterFunc(1 + at % 7, int, heap=heap) for at in range(100)]
        heap.advance(1)
        assert fired == [n - 1] and timers.stop(n - 2) is True and timers.armed == 1
        timers.stop(0)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        del timers
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
        assert faults < 100, faults             # of 1,100, with pages of 2 MiB
        heap.check()
        assert len(heap) == sum(other.stop() for other in others)
    """)


def test_threads_make_arm_and_drop_arrays_on_one_heap(heap):
    """Beside pending(), which copies the keys, and the collector."""
    fired = []

    def work(index):
        chance = random.Random(index)
        armed = 0
        for turn in range(150):
            timers = TimerArray(chance.choice([1, 50, 1000]), fired.extend, batch=100, heap=heap)
            slots = range(0, len(timers), 3)
            timers.reset(slots, chance.choice([0, 1e-4, FAR]))
            armed += len(slots)
            if chance.random() < 0.7:
                armed -= timers.stop()
            elif timers.armed:
                armed -= timers.stop(slots)
            if turn % 10 == index:
                heap.check()
                assert heap.pending() == []
                gc.collect()
        return armed

    armed = sum(run_threads(5, work))
    wait_until(lambda: len(fired) == armed)
    heap.check()
    assert balance(heap) == 0
    assert len(heap) == 0


def test_pending_beside_arrays_that_go(heap):
    """Without a GIL the copy of the keys points at cells whose array is dropped meanwhile."""
    handles = [AfterFunc(FAR, int, heap=heap) for _ in range(3000)]
    stop = threading.Event()

    def churn():
        while not stop.is_set():
            timers = TimerArray(5000, print, heap=heap)
            timers.reset(ALL, FAR)
            timers.stop()
            del timers

    churner = Background(churn)
    try:
        for _ in range(30):
            assert {timer for _, timer in heap.pending()} == set(handles)
            heap.check()
    finally:
        stop.set()
        churner.result()


@asks_proc
def test_what_has_a_key_and_what_comes_twice_takes_no_more_memory():
    run_ok("""
        import os, resource
        from timerheap import TimerArray
        from timerheap.testing import ManualHeap
        heap = ManualHeap()
        fired = []
        timers = TimerArray(2_000_000, lambda slots: fired.append(len(slots)), heap=heap)
        few = TimerArray(10, lambda slots: fired.append(len(slots)), heap=heap)
        timers.reset(slice(None), 2)
        twice = memoryview(bytes(4 * 8_000_000)).cast("I")      # so many times slot 0
        mapped = int(open("/proc/self/statm").read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (mapped + (4 << 20), resource.RLIM_INFINITY))
        assert timers.reset(slice(None), 1) == 2_000_000
        assert few.reset(twice, 1) == len(twice) - 1
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        heap.check()
        heap.advance(1)
        assert sum(fired) == 2_000_001
    """)


@asks_proc
def test_a_fresh_array_takes_no_memory_and_one_that_goes_gives_it_back():
    run_ok("""
        import gc, os
        from timerheap import TimerArray
        from timerheap.testing import ManualHeap

        def resident():
            gc.collect()
            return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGESIZE")

        heap = ManualHeap()
        base = resident()
        timers = TimerArray(10_000_000, print, heap=heap)
        assert resident() - base < 8 << 20, resident() - base
        timers.reset(range(1_000_000), 3600)
        assert resident() - base < 64 << 20, resident() - base
        timers.stop()
        del timers
        heap.advance(7200)
        assert resident() - base < 16 << 20, resident() - base
    """)


# ---- fork -----------------------------------------------------------------------------------------------------------

CHILD = """
    import os, sys, threading, time
    from timerheap import AfterFunc, TimerArray, TimerHeap, default_heap
    from timerheap.testing import ManualHeap

    def wait_until(condition):
        end = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < end, "what was waited for did not happen"
            time.sleep(0.001)
"""


def run_fork(code):
    """Forks beside other threads are what some of these are about, and CPython warns of them."""
    run_ok(FORKED + CHILD + code, "-W", "ignore::DeprecationWarning")


@pytest.mark.parametrize("n", [10, 5000, 2_000_000])
def test_the_child_of_a_fork_has_an_idle_array_and_arms_its_own(n):
    run_fork(f"""
    n, fired = {n}, []
    timers = TimerArray(n, fired.extend)
    timers.reset(range(0, n, 2), 3600)
    timers.reset(range(1, n, 2), 7200)
    timers.stop(range(0, n, 3))
    before = timers.armed

    def child():
        assert timers.armed == len(default_heap()) == 0
        default_heap().check()
        assert timers.active() == bytes(n)
        assert timers.stop() == timers.postpone(slice(None), 1) == 0
        assert timers.when(1) is None
        assert timers.reset(range(0, n, 3), 0.01) == 0
        wait_until(lambda: len(fired) == len(range(0, n, 3)))
        assert timers.reset(slice(None), 3600) == 0
        assert timers.armed == n
        default_heap().check()
        assert forked(grandchild) == 0
        assert timers.stop() == n

    def grandchild():
        assert timers.active() == bytes(n)
        default_heap().check()
        assert timers.reset([n - 1, 0], 3600) == 0
        assert timers.stop() == 2

    assert forked(child) == 0
    assert fired == [] and timers.armed == before
    default_heap().check()
    assert timers.stop() == before
    """)


def test_the_parents_array_fires_on():
    run_fork("""
    fired = []
    timers = TimerArray(1000, fired.extend)
    timers.reset(slice(None), 0.3)
    for _ in range(3):
        assert forked(lambda: timers.reset(slice(None), 0)) == 0
    wait_until(lambda: len(fired) == 1000)
    assert sorted(fired) == list(range(1000))
    """)


@pytest.mark.parametrize("each", [False, True])
def test_a_fork_from_an_arrays_callback(each):
    """In the child the rest of the run is void, and the callback returns like any other."""
    run_fork(f"""
    import gc, weakref
    parent, calls, statuses, inside = os.getpid(), [], [], []

    def call(slots):
        slot = slots if {each} else slots[0]
        calls.append(slot)
        if slot == 0:
            pid = os.fork()
            if pid == 0:
                inside.append(timers.armed)
                threading.Thread(target=look).start()
                return
            statuses.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

    def look():
        code = 1
        try:
            time.sleep(0.2)
            assert inside == [0] and calls == [0], (inside, calls)
            default_heap().check()
            assert timers.reset([5, 6], [0.001, 0.002]) == 0
            wait_until(lambda: calls == [0, 5, 6])
            default_heap().check()
            code = 0
        except BaseException as exc:
            os.write(2, repr(exc).encode())
        finally:
            os._exit(code)

    timers = TimerArray(100, call, each={each}, batch=1)
    timers.reset(slice(None), 0.05)
    wait_until(lambda: len(calls) == 100)
    assert statuses == [0], statuses
    default_heap().check()
    """)


def test_the_child_gives_up_the_heaps_references_to_arrays():
    run_fork("""
    import gc, weakref
    arrays = [TimerArray(10, print) for _ in range(50)]
    dropped = [weakref.ref(timers) for timers in arrays[:25]]
    for timers in arrays:
        timers.reset(range(5), 3600)
    del arrays[:25], timers
    gc.collect()
    assert all(reference() is not None for reference in dropped)

    def child():
        gc.collect()
        assert all(reference() is None for reference in dropped)
        default_heap().check()
        references = [weakref.ref(timers) for timers in arrays]
        arrays[0].reset(1, 3600)
        arrays.clear()
        gc.collect()
        assert [reference() is None for reference in references] == [False] + [True] * 24
        default_heap().check()
        assert references[0]().stop() == 1

    assert forked(child) == 0
    assert all(reference() is not None for reference in dropped)
    default_heap().close()
    gc.collect()
    assert all(reference() is None for reference in dropped)
    """)


def test_a_manual_heap_with_an_array_in_the_child_of_a_fork_from_its_callback():
    run_fork("""
    calls, heap = [], ManualHeap()

    def call(slots):
        calls.append(list(slots))
        if calls == [[0, 1]]:
            pid = os.fork()
            if pid:
                assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
            else:
                children.append(1)
                timers.reset([7, 8], 1)

    children = []
    timers = TimerArray(10, call, batch=2, heap=heap)
    timers.reset(range(6), 1)
    heap.advance(3)
    heap.check()
    if children:
        code = calls != [[0, 1], [7, 8]]
        os._exit(code)
    assert calls == [[0, 1], [2, 3], [4, 5]]
    """)


def test_forks_beside_threads_that_arm_and_fire():
    run_fork("""
    import warnings
    warnings.simplefilter("ignore")
    stop, fired = threading.Event(), []
    arrays = [TimerArray(3000, fired.extend) for _ in range(3)]

    def work(timers):
        while not stop.is_set():
            timers.reset(slice(None), 0.0001)
            timers.stop(range(0, 3000, 2))
            TimerArray(500, bytes).reset(slice(None), 0.001)

    threads = [threading.Thread(target=work, args=(timers,)) for timers in arrays]
    for thread in threads:
        thread.start()

    def child():
        default_heap().check()
        for timers in arrays:
            assert timers.armed == 0 and timers.active() == bytes(3000)
            assert timers.reset(slice(None), 3600) == 0
            default_heap().check()
            assert timers.stop() == 3000

    try:
        for _ in range(30):
            assert forked(child) == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    default_heap().check()
    """)
