"""A timer nobody can observe is freed, and nothing pins a callback that will not run."""

import contextvars
import functools
import gc
import sys
import threading
import time
import weakref

import pytest
from helpers import FAR, FREE_THREADED, SANITIZER, asks_proc, run_ok, wait_until

from timerheap import AfterFunc, Ticker, Timer, TimerHeap, after
from timerheap.testing import ManualHeap

ONE_MILLION = 1_000_000


class Owner:
    """Someone whose bound method is a callback, and who may hold the timer: a cycle."""

    def __init__(self):
        self.calls = 0

    def callback(self, *args):
        self.calls += 1

    __call__ = callback


class Inline:
    """An executor."""

    def submit(self, func, /, *args):
        func(*args)


def freed(reference):
    gc.collect()
    return reference() is None


# What a callback keeps alive, and until when.


def test_a_pending_timer_keeps_its_callback(manual):
    owner = Owner()
    reference = weakref.ref(owner)
    AfterFunc(1, owner.callback, heap=manual)
    del owner
    assert not freed(reference)
    manual.advance(1)
    assert freed(reference)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_fired_timer_lets_its_arguments_go_when_its_handle_is_gone(manual, count):
    owners = [Owner() for _ in range(count)]
    references = [weakref.ref(owner) for owner in owners]
    AfterFunc(1, Owner.callback, *owners, heap=manual)
    del owners
    manual.advance(1)
    assert all(freed(reference) for reference in references)


def test_a_stopped_timer_lets_its_callback_go_when_its_handle_is_gone(manual):
    owner = Owner()
    reference = weakref.ref(owner)
    timer = AfterFunc(1, owner.callback, owner, heap=manual)
    del owner
    timer.stop()
    del timer
    assert freed(reference)


def test_a_stopped_timer_keeps_its_callback_for_a_reset(manual):
    owner = Owner()
    timer = AfterFunc(1, owner.callback, heap=manual)
    timer.stop()
    gc.collect()
    timer.reset(1)
    manual.advance(1)
    timer.reset(1)
    manual.advance(1)
    assert owner.calls == 2


def test_stopped_timers_give_their_keys_back(manual):
    """16 bytes each, while the handles live on; a few may stay for later."""
    handles = [AfterFunc(1 + n % 1000, print, heap=manual) for n in range(100_000)]
    before = manual.nbytes
    for handle in handles[::-1]:
        assert handle.stop()
    assert before - manual.nbytes > 15 * len(handles)
    manual.check()


def test_a_stopped_timer_is_not_pinned_by_the_heap_it_left_among_many(manual):
    """Neither a deadline pushed back nor neighbours that stay keep a stopped callback alive."""
    others = [AfterFunc(n % 50 + 1, int, heap=manual) for n in range(1000)]
    references = []
    for number in range(100):
        owner = Owner()
        references.append(weakref.ref(owner))
        timer = AfterFunc(number % 40 + 1, owner.callback, heap=manual)
        timer.reset(60)
        timer.stop()
    del owner, timer
    assert all(freed(reference) for reference in references)
    assert len(manual) == len(others)


def test_a_closed_heap_lets_callbacks_go():
    heap = ManualHeap()
    owner = Owner()
    reference = weakref.ref(owner)
    AfterFunc(1, owner.callback, heap=heap)
    del owner
    heap.close()
    assert freed(reference)


def test_a_callback_that_failed_to_arm_is_not_kept(manual):
    owner = Owner()
    reference = weakref.ref(owner)
    with pytest.raises(TypeError):
        AfterFunc("soon", owner.callback, owner, heap=manual)
    manual.close()
    with pytest.raises(RuntimeError):
        AfterFunc(1, owner.callback, owner, heap=manual)
    del owner
    assert freed(reference)


def test_a_worker_that_sleeps_pins_no_callback(heap):
    """The worker forgets what it ran before it parks."""
    owner = Owner()
    reference = weakref.ref(owner)
    AfterFunc(0, owner.callback, owner, heap=heap)
    wait_until(lambda owner=owner: owner.calls)
    del owner
    wait_until(lambda: freed(reference))


def test_a_worker_pins_no_callback_that_ran_earlier_in_a_long_batch(heap):
    owner = Owner()
    reference = weakref.ref(owner)
    seen, armed = [], threading.Event()
    AfterFunc(0, armed.wait, 30, heap=heap)
    AfterFunc(0, owner.callback, owner, heap=heap)
    AfterFunc(0, lambda: seen.append(freed(reference)), heap=heap)
    del owner
    armed.set()
    wait_until(lambda: seen)
    assert seen == [True]


def test_the_context_of_a_dead_timer_is_let_go(manual):
    variable = contextvars.ContextVar("variable")
    owner = Owner()
    reference = weakref.ref(owner)
    context = contextvars.Context()
    context.run(variable.set, owner)
    AfterFunc(1, int, context=context, heap=manual)
    del owner, context
    assert not freed(reference)
    manual.advance(1)
    assert freed(reference)


def test_what_a_callback_returns_is_let_go(manual):
    references = []

    def callback():
        owner = Owner()
        references.append(weakref.ref(owner))
        return owner

    AfterFunc(1, callback, heap=manual)
    kept = AfterFunc(1, callback, heap=manual)
    manual.advance(1)
    assert not kept.active
    assert [reference() for reference in references] == [None, None]


# Cycles.


def cycle(heap):
    """An owner that holds the timer which calls it; nobody else holds either."""
    owner = Owner()
    owner.timer = AfterFunc(1, owner.callback, owner, heap=heap)
    return weakref.ref(owner)


def test_a_cycle_lives_while_it_is_pending(manual):
    reference = cycle(manual)
    assert not freed(reference)
    assert reference().timer.active


def test_a_cycle_is_collectable_once_it_fired(manual):
    reference = cycle(manual)
    gc.collect()
    manual.advance(1)
    assert freed(reference)


def test_a_cycle_is_collectable_once_it_was_stopped(manual):
    reference = cycle(manual)
    gc.collect()
    reference().timer.stop()
    assert freed(reference)


def test_a_cycle_that_was_armed_again_lives_and_dies_again(manual):
    reference = cycle(manual)
    manual.advance(1)
    # The collector has not run yet: whoever still reaches the timer may arm it again.
    reference().timer.reset(1)
    assert not freed(reference)
    manual.advance(1)
    assert freed(reference)


def test_a_cycle_is_collectable_once_its_heap_is_closed():
    heap = ManualHeap()
    reference = cycle(heap)
    heap.close()
    assert freed(reference)


def test_a_hundred_thousand_cycles_live_and_die(manual):
    references = [cycle(manual) for _ in range(100_000)]
    gc.collect()
    assert all(reference() is not None for reference in references)
    for reference in references[::2]:
        reference().timer.stop()
    manual.advance(1)
    gc.collect()
    assert not any(reference() is not None for reference in references)
    assert len(manual) == 0


def test_a_cycle_through_a_channel_timer_is_collectable(manual):
    owner = Owner()
    owner.timer = Timer(1, heap=manual)
    owner.ticker = Ticker(1, heap=manual)
    owner.me = owner
    reference = weakref.ref(owner)
    del owner
    assert freed(reference)
    assert len(manual) == 0


def test_a_cycle_through_the_heaps_own_hook_is_collectable():
    class Reporter:
        def __init__(self):
            self.heap = ManualHeap(on_error=self.report)

        def report(self, exc, timer):
            pass

    reference = weakref.ref(Reporter())
    assert freed(reference)


@pytest.mark.parametrize("closer", ["outside", "callback"])
@pytest.mark.parametrize("make", [Timer, Ticker, lambda delay, heap: Timer(delay, heap=heap).c])
@pytest.mark.parametrize("kind", [TimerHeap, ManualHeap, functools.partial(TimerHeap, executor=Inline())])
def test_a_closed_heap_whose_hook_owns_a_channel_timer_is_collectable(kind, make, closer):
    class Service:
        def __init__(self):
            self.heap = kind(on_error=self.report)
            self.timer = make(3600, heap=self.heap)

        def report(self, exc, timer):
            pass

    service = Service()
    heap = service.heap
    if closer == "outside":
        heap.close()
    else:
        AfterFunc(0, heap.close, heap=heap)
        if isinstance(heap, ManualHeap):
            heap.advance(0)
        while not heap.closed:
            time.sleep(0.001)
    reference = weakref.ref(service)
    del service, heap
    wait_until(lambda: freed(reference))


@pytest.mark.parametrize("end", ["fire", "stop", "stop later", "close"])
def test_a_cycle_on_a_heap_with_a_worker_is_collectable_in_the_end(end):
    """There the collector does not know what is armed: whatever disarms it has to give it back."""
    heap = TimerHeap("cycle")
    owner = Owner()
    owner.timer = AfterFunc(0.01 if end == "fire" else FAR, owner.callback, owner, heap=heap)
    reference = weakref.ref(owner)
    if end == "stop later":
        for _ in range(100):
            AfterFunc(FAR, int, heap=heap)
    if end != "fire":
        del owner
        assert not freed(reference)
        reference().timer.stop() if end != "close" else heap.close()
    else:
        wait_until(lambda: owner.calls)
        del owner
    wait_until(lambda: freed(reference))
    heap.close()


@pytest.mark.parametrize("position", [0, 1, 2])
def test_a_cycle_through_any_argument_is_collectable(manual, position):
    owner = Owner()
    arguments = [None] * 3
    arguments[position] = owner
    owner.timer = AfterFunc(1, Owner.callback, *arguments, heap=manual)
    reference = weakref.ref(owner)
    del owner, arguments
    assert not freed(reference)
    reference().timer.stop()
    assert freed(reference)


def test_an_idle_timer_is_found_among_the_referrers_of_all_it_holds(manual):
    context = contextvars.copy_context()
    held = [Owner(), object(), object(), context]
    timer = AfterFunc(1, *held[:3], heap=manual, context=context)
    single = AfterFunc(1, held[0], held[1], heap=manual)
    manual.advance(1)
    assert [timer in gc.get_referrers(thing) for thing in held] == [True] * 4
    assert [single in gc.get_referrers(thing) for thing in held] == [True, True, False, False]
    assert timer in gc.get_referrers(manual)


def test_what_is_due_on_a_manual_heap_is_reached_through_it(manual):
    seen = []
    second = Owner()
    AfterFunc(1, lambda: seen.append(second in gc.get_referents(manual)), heap=manual)
    AfterFunc(1, second, heap=manual)
    manual.advance(1)
    assert seen == [True]
    assert second.calls == 1
    assert second not in gc.get_referents(manual)


def test_an_armed_timer_shows_its_callback_to_nobody(manual):
    """It is a root: the collector must not count its references among those from garbage."""
    owner, extra = Owner(), Owner()
    timer = AfterFunc(1, owner, extra, owner, heap=manual)
    assert not {owner, extra} & set(gc.get_referents(timer))
    timer.stop()
    assert {owner, extra} <= set(gc.get_referents(timer))
    timer.reset(1)
    assert not {owner, extra} & set(gc.get_referents(timer))


def test_a_pending_cycle_goes_with_its_manual_heap():
    """A heap nobody can drive fires nothing: then it and its timers are a plain cycle."""
    owner = Owner()
    owner.heap = ManualHeap()
    owner.timer = AfterFunc(1, owner.callback, heap=owner.heap)
    reference, heap_reference = weakref.ref(owner), weakref.ref(owner.heap)
    gc.collect()
    assert owner.timer.active
    del owner
    assert freed(reference)
    assert freed(heap_reference)


@pytest.mark.parametrize("arguments", ["none", "one", "many", "context"])
def test_sessions_on_a_dropped_manual_heap_go_with_it(arguments):
    """Each holds the timer that holds it; some are armed, some were stopped, some armed anew."""
    heap = ManualHeap()
    context = contextvars.Context() if arguments == "context" else None
    references = []
    for number in range(50):
        session = Owner()
        args = {"none": (), "one": (session,), "many": (session, [session])}.get(arguments, ())
        session.idle = AfterFunc(60, session.callback, *args, context=context, heap=heap)
        if number % 3:
            session.idle.stop()
        if number % 3 == 1:
            session.idle.reset(30)
        AfterFunc(60, session.callback, session, heap=heap)     # and one whose handle nobody has
        references.append(weakref.ref(session))
    references.append(weakref.ref(heap))
    del session, args
    gc.collect()
    assert len(heap) == 50 + 34
    heap.check()
    assert all(reference() is not None for reference in references)
    del heap
    gc.collect()
    assert all(reference() is None for reference in references)


def test_what_is_armed_on_a_manual_heap_is_reached_through_it():
    """A collection between any two steps takes nothing that a turn of the clock would still run."""
    heap = ManualHeap()
    fired = []
    for number in range(20):
        owner = Owner()
        owner.timer = AfterFunc(number, fired.append, number, heap=heap)
        owner.other = AfterFunc(number, lambda owner=owner: fired.append(owner), heap=heap)
        owner.me = owner
    del owner
    for _ in range(20):
        gc.collect()
        heap.check()
        heap.advance(1)
    assert len(fired) == 40


def test_a_finalizer_finds_a_dropped_manual_heap_in_order():
    seen = []

    class Session:
        def __del__(self):
            seen.append((self.idle.stop(), self.idle.active, len(self.heap)))
            self.heap.check()

    heap = ManualHeap()
    for _ in range(10):
        session = Session()
        session.heap = heap
        session.idle = AfterFunc(60, print, session, heap=heap)
    del heap, session
    gc.collect()
    assert seen == [(True, False, left) for left in range(9, -1, -1)]


def test_a_dropped_manual_heap_takes_its_pending_timers_with_it():
    class Heap(ManualHeap):
        pass

    heap, owner = Heap(), Owner()
    heap_reference, reference = weakref.ref(heap), weakref.ref(owner)
    AfterFunc(1, owner.callback, heap=heap)
    AfterFunc(2, owner.callback, owner, heap=heap).reset(1)
    del heap, owner
    assert freed(heap_reference)
    assert freed(reference)


@pytest.mark.parametrize("arguments", [(), (1,), (1, 2)])
def test_a_callback_that_drops_its_own_handle_lives_to_its_end(manual, arguments):
    log = []

    def callback(*args):
        handles.clear()
        log.append("returned")

    func = functools.partial(callback)
    reference = weakref.ref(func, lambda _: log.append("freed"))
    handles = [AfterFunc(1, func, *arguments, heap=manual)]
    del func
    manual.advance(1)
    assert log == ["returned", "freed"]
    assert reference() is None


# A handle that dies while the run of due timers still points at its record.


@pytest.mark.parametrize("act", ["stop", "reset", "neither"])
def test_a_due_handle_may_be_dropped(manual, act):
    """The first of the run drops the handles of the others, and new timers take whatever memory is free then."""
    log = []

    def drop():
        if act == "stop":
            assert all(timer.stop() for timer in timers)
        elif act == "reset":
            assert all(timer.reset(1) for timer in timers)
        timers.clear()
        fillers.extend(AfterFunc(FAR, log.append, "filler", heap=manual) for _ in range(200))
        manual.check()

    fillers, timers = [], []
    AfterFunc(1, drop, heap=manual)
    timers.extend(AfterFunc(1, log.append, number, heap=manual) for number in range(100))
    manual.advance(1)
    manual.check()
    assert log == (list(range(100)) if act == "neither" else [])
    fillers.clear()
    manual.advance(1)
    manual.check()
    assert log == ([] if act == "stop" else list(range(100)))
    assert len(manual) == 200
    manual.advance(FAR)
    assert log[-200:] == ["filler"] * 200


def test_handles_that_died_while_due_count_no_more(manual):
    def burst():
        timers = []
        AfterFunc(1, timers.clear, heap=manual)
        timers.extend(AfterFunc(1, int, heap=manual) for _ in range(100))
        manual.advance(1)
        return manual.nbytes

    burst()
    assert burst() == burst()


# Counting bytes.


def test_an_empty_heap_counts_no_timer(manual):
    assert len(manual) == 0
    assert 0 <= manual.nbytes < 65536
    manual.check()


def test_one_timer_counts(manual):
    before = manual.nbytes
    timer = AfterFunc(1, int, heap=manual)
    assert len(manual) == 1
    assert manual.nbytes > before
    assert timer.active
    manual.check()


def test_a_million_timers_count_at_most_104_bytes_each_with_their_handles():
    heap = ManualHeap()
    before = heap.nbytes
    timers = [AfterFunc(FAR, int, heap=heap) for _ in range(ONE_MILLION)]
    assert len(heap) == ONE_MILLION
    heap.check()
    # The native arrays grow in steps: a step more than the timers need is allowed.
    assert 96 * ONE_MILLION <= heap.nbytes - before <= 104 * ONE_MILLION + 2**20
    assert sum(timer.stop() for timer in timers) == ONE_MILLION
    assert len(heap) == 0
    heap.check()
    timers.clear()
    assert heap.nbytes - before < 2**20


# Without a GIL an armed timer keeps its handle: that it is dropped spares nothing.
DROPPED = 96 if FREE_THREADED else 56


def test_a_million_dropped_timers_count_no_more_than_their_records():
    heap = ManualHeap()
    before = heap.nbytes
    for _ in range(ONE_MILLION):
        AfterFunc(FAR, int, heap=heap)
    assert len(heap) == ONE_MILLION
    heap.check()
    assert DROPPED * ONE_MILLION <= heap.nbytes - before <= DROPPED * ONE_MILLION + 2**20
    heap.advance(FAR)
    assert len(heap) == 0
    heap.check()
    assert heap.nbytes - before < 2 * 2**20  # a chunk of records is kept


RESIDENT = """
        from timerheap import AfterFunc
        from timerheap.testing import ManualHeap

        def resident():
            with open("/proc/self/status") as status:
                return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS"))

"""


def counts_what_is_resident(test):
    """Only where handles are in the slab, and nothing else is resident for them."""
    for marker in (
        asks_proc,
        pytest.mark.skipif(SANITIZER == "asan", reason="handles are malloc's there, not the slab's"),
        pytest.mark.skipif(SANITIZER == "tsan", reason="its shadow of the memory is resident as well"),
        pytest.mark.skipif(FREE_THREADED, reason="without a GIL the handles stay, and are of Python's own allocator"),
    ):
        test = marker(test)
    return test


@counts_what_is_resident
def test_a_million_dropped_timers_return_their_memory_to_the_system():
    out = run_ok(RESIDENT + """
        heap = ManualHeap()
        before = resident()
        for _ in range(1_000_000):
            AfterFunc(3600, int, heap=heap)
        full = resident() - before
        heap.advance(3600)
        print(full // 10**6, (resident() - before) // 10**6)
    """)
    full, left = map(int, out.split())
    assert 40 < full < 80
    assert left < 20


@counts_what_is_resident
def test_heaps_that_go_before_their_workers_leave_nothing():
    """Keys, run and the rest are the worker's to free then."""
    out = run_ok(RESIDENT + """
        import gc, threading, time
        from timerheap import TimerHeap

        def use_and_drop(count):
            for _ in range(count):
                heap = TimerHeap("dropped")
                timer = AfterFunc(3600, int, heap=heap)
                timer.stop()
                del heap, timer
                deadline = time.monotonic() + 30
                while threading.active_count() > 1:
                    assert time.monotonic() < deadline
                    time.sleep(1e-4)
            gc.collect()
            return resident()

        before = use_and_drop(100)
        print((use_and_drop(1000) - before) // 1024)
    """)
    assert int(out) < 2000              # KiB; what is left behind would be a page a heap at least


@counts_what_is_resident
@pytest.mark.parametrize("order", ["in order", "shuffled"])
def test_a_handle_that_lives_pins_no_megabyte(order):
    """One of every 13,000 is kept: about one a chunk of their memory. Then that memory is used again."""
    out = run_ok(RESIDENT + f"""
        import random

        heap = ManualHeap()
        timers = [None] * 260_000
        before = resident()
        for n in range(len(timers)):
            timers[n] = AfterFunc(3600, int, heap=heap)
        full = resident() - before
        numbers = [n for n in range(len(timers)) if n % 13_000]
        if {order!r} == "shuffled":
            random.Random(1).shuffle(numbers)
        held = resident()
        for n in numbers:
            timers[n].stop()
            timers[n] = None
        print(full // 10**5, (held - resident()) // 10**5)
        heap.check()
        for _ in range(2):
            for n in numbers:
                timers[n] = AfterFunc(3600, int, heap=heap)
            heap.check()
            random.Random(2).shuffle(numbers)
            for n in numbers:
                assert timers[n].stop()
                timers[n] = None
        heap.check()
        assert len(heap) == 20
        assert sum(timer is not None and timer.stop() for timer in timers) == 20
    """)
    full, freed = map(int, out.split())
    assert 240 < full < 300
    assert full - freed < 60, (full, freed)


@counts_what_is_resident
def test_a_dropped_timer_that_lives_pins_no_megabyte():
    """Likewise the records without a handle, whose bytes the heap counts: no less than are resident."""
    out = run_ok(RESIDENT + """
        heap = ManualHeap()
        count = 520_000
        before, counted = resident(), heap.nbytes
        for n in range(count):
            AfterFunc(1 + (n % 26_000 == 0), int, heap=heap)
        full = resident() - before
        heap.advance(1)
        heap.check()
        assert len(heap) == 20
        left, counted = resident() - before, heap.nbytes - counted
        for n in range(count):
            AfterFunc(1, int, heap=heap)
        heap.check()
        heap.advance(1)
        heap.check()
        assert heap.stats()["fired"] == 2 * count
        print(full // 10**5, left // 10**5, counted // 10**5)
    """)
    full, left, counted = map(int, out.split())
    assert 250 < full < 400
    assert left < 60, (left, counted)
    assert counted < 50, (left, counted)


def test_churn_does_not_grow_a_heap(manual):
    def churn():
        for _ in range(1000):
            timers = [AfterFunc(FAR, int, n, heap=manual) for n in range(100)]
            for timer in timers[::2]:
                timer.reset(2 * FAR)
            for timer in timers:
                timer.stop()

    churn()
    before = manual.nbytes
    blocks = sys.getallocatedblocks()
    churn()
    assert manual.nbytes == before
    assert sys.getallocatedblocks() - blocks < 200
    assert len(manual) == 0


def test_references_do_not_leak(manual):
    """The counts of what is passed in come back to where they were."""
    owner = Owner()
    args = [object() for _ in range(3)]
    watched = [owner, *args, manual, Owner.callback]
    before = [sys.getrefcount(each) for each in watched]
    for round_ in range(300):
        for count in range(4):
            timer = AfterFunc(1, owner.callback, *args[:count], heap=manual)
            if round_ % 3 == 0:
                timer.stop()
            elif round_ % 3 == 1:
                timer.reset(2)
            del timer
        Timer(1, heap=manual).c.poll()
        Ticker(1, heap=manual).stop()
    manual.advance(10)
    gc.collect()
    assert [sys.getrefcount(each) for each in watched] == before


def test_dropped_channel_timers_leave_nothing(manual):
    before = manual.nbytes
    for _ in range(10_000):
        Timer(FAR, heap=manual)
        Ticker(FAR, heap=manual)
        after(FAR)
    assert len(manual) == 0
    assert manual.nbytes - before < 65536


def test_a_closed_and_dropped_heap_is_freed():
    for kind in (TimerHeap, ManualHeap):

        class Heap(kind):
            pass

        heap = Heap()
        AfterFunc(0, int, heap=heap)
        timer = AfterFunc(FAR, int, heap=heap)
        heap.close()
        reference = weakref.ref(heap)
        del heap
        timer.stop()
        del timer
        wait_until(lambda reference=reference: freed(reference))


def test_a_handle_keeps_its_heap_usable():
    timer = AfterFunc(1, int, heap=ManualHeap())
    gc.collect()
    assert timer.stop()
    timer.reset(2)
    assert timer.when == 2.0


# Chains: the last one gone must not bring the C stack down.

@pytest.mark.parametrize(
    "end",
    [
        "heap.close()",
        "heap.advance(3 * 10**6)",
        "timer.stop(); del timer; heap.close()",
        "timer.stop(); del timer; heap.advance(3 * 10**6)",
    ],
    ids=["closed", "fired", "last one stopped, closed", "last one stopped, fired"],
)
@pytest.mark.parametrize("delay", ["n", "10**6 - n", "1"], ids=["forth", "back", "together"])
@pytest.mark.parametrize(
    "link", ["int, timer", "int, timer, timer", "timer.stop"], ids=["argument", "two", "method"]
)
def test_a_chain_of_handles_is_freed_without_recursion(link, delay, end):
    run_ok(f"""
        import threading
        from timerheap import AfterFunc
        from timerheap.testing import ManualHeap

        def scenario():
            heap = ManualHeap(on_error=lambda exc, timer: None)
            timer = AfterFunc(1, int, heap=heap)
            for n in range(200_000):
                timer = AfterFunc({delay}, {link}, heap=heap)
            {end}
            heap.check()
            timer = None
            heap.close()
            assert len(heap) == 0
            done.append(1)

        done = []
        threading.stack_size(256 * 1024)
        thread = threading.Thread(target=scenario)
        thread.start()
        thread.join()
        assert done
    """)


def test_a_chain_of_a_million_stopped_handles_is_freed_without_recursion():
    """Each handle was stopped while the next one holds it: dropping the last drops them all."""
    run_ok("""
        import threading
        from timerheap import AfterFunc, Timer
        from timerheap.testing import ManualHeap

        def scenario():
            heap = ManualHeap()
            timer = None
            for _ in range(1_000_000):
                timer = AfterFunc(1, print, timer, heap=heap)
                timer.stop()
            assert len(heap) == 0
            del timer
            heap.check()
            done.append(1)

        done = []
        threading.stack_size(256 * 1024)
        thread = threading.Thread(target=scenario)
        thread.start()
        thread.join()
        assert done
    """)


def test_a_chain_of_handles_stopped_while_due_is_freed_without_recursion():
    """Run entries point at all of them when the first callback stops them and drops the last."""
    run_ok("""
        import threading
        from timerheap import AfterFunc
        from timerheap.testing import ManualHeap

        def stop_all():
            assert sum(timer.stop() for timer in chain) == len(chain)
            last = chain.pop()
            chain.clear()
            del last
            heap.check()

        def scenario():
            timer = AfterFunc(0, stop_all, heap=heap)
            for _ in range(200_000):
                timer = AfterFunc(0, print, timer, heap=heap)
                chain.append(timer)
            del timer
            heap.advance(0)
            heap.check()
            assert (len(heap), heap.stats()["fired"]) == (0, 1)
            done.append(heap.nbytes)

        heap = ManualHeap()
        empty = heap.nbytes
        chain, done = [], []
        threading.stack_size(256 * 1024)
        thread = threading.Thread(target=scenario)
        thread.start()
        thread.join()
        assert done and done[0] < empty + 2**20, (empty, done)
    """)


@pytest.mark.parametrize("when", [4, 5], ids=["armed", "due"])
def test_a_chain_of_stopped_handles_is_freed_and_those_beside_it_that_are_not_fire(when):
    """Deep in the release of the last, each stopped one has a key in the heap still, and each other one lives on."""
    run_ok(f"""
        from timerheap import AfterFunc
        from timerheap.testing import ManualHeap

        heap, fired, chain = ManualHeap(), [], [None]
        AfterFunc({when}, lambda: chain.pop() and heap.check(), heap=heap)
        for n in range(600):
            chain.append(AfterFunc(9, print, chain[-1], AfterFunc(5, fired.append, n, heap=heap), heap=heap))
        others = [AfterFunc(9, int, heap=heap) for _ in range(1800)]
        assert all(timer.stop() for timer in chain[1:])
        del chain[:-1]
        heap.advance({when})
        assert chain == []
        heap.advance(9)
        heap.check()
        assert fired == list(range(600))
    """)


def test_a_due_handle_dropped_with_a_finalizer_that_lets_the_worker_on():
    """Stopped while due and dropped: its finalizer gives up the GIL, and the worker disposes of the run meanwhile."""
    run_ok("""
        import threading, time
        from timerheap import AfterFunc, TimerHeap

        class Callback:
            def __call__(self):
                raise AssertionError("it was stopped")
            def __del__(self):
                go_on.set()
                while not over.is_set():
                    time.sleep(0.001)

        heap = TimerHeap()
        for _ in range(20):
            held, gate, busy, go_on, over = (threading.Event() for _ in range(5))
            AfterFunc(0, lambda: held.set() or gate.wait(30), heap=heap)
            assert held.wait(30)
            AfterFunc(0, busy.set, heap=heap)
            AfterFunc(0, go_on.wait, 30, heap=heap)
            timer = AfterFunc(0, Callback(), heap=heap)
            AfterFunc(0, over.set, heap=heap)
            gate.set()
            assert busy.wait(30)        # these four are one run, the second of them is under way
            assert timer.stop()
            del timer
            heap.check()
        heap.close()
    """, "-X", "dev")


@pytest.mark.parametrize(
    ("heap", "delay", "end"),
    [
        ("ManualHeap()", 1, "heap.advance(1)"),
        ("TimerHeap()", FAR, "heap.close()"),
        ("TimerHeap()", 0, "gate.set() or over.wait(30)"),
    ],
    ids=["driven", "closed", "fired"],
)
def test_a_dead_handle_that_the_interpreter_has_put_aside_is_let_be(heap, delay, end):
    """Where the stack is nearly used up, CPython 3.14 puts off the release of an object, before the type hears of it.
    What runs until then may come upon a timer that is armed, and whose handle nobody holds any more."""
    run_ok(f"""
        import sys, threading
        from timerheap import AfterFunc, TimerHeap
        from timerheap.testing import ManualHeap

        class End:
            def __del__(self):
                try:
                    {end}
                    ended.append(1)
                except RecursionError:
                    pass                # too deep yet

        def scenario():
            chain = None
            for n in range(DEPTH):      # a list releases its last item first
                chain = [End() if n % 8 == 0 else None, chain, AfterFunc({delay}, count, heap=heap)]
            AfterFunc({delay}, over.set, heap=heap)
            del chain

        def count():
            counted[0] += 1

        DEPTH = 20_000
        gate, over, ended, counted = threading.Event(), threading.Event(), [], [0]
        heap = {heap}
        if {delay} == 0:
            AfterFunc(0, gate.wait, 30, heap=heap)
        threading.stack_size(512 * 1024)
        thread = threading.Thread(target=scenario)
        thread.start()
        thread.join()
        assert ended
        assert counted[0] == ({delay} < {FAR}) * DEPTH, counted
        heap.check()
        assert len(heap) == 0
        heap.close()
    """)
