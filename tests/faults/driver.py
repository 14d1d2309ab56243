"""Lets each allocation of a scenario fail in turn; run with shim.c preloaded and PYTHONMALLOC=malloc.

    python tests/faults/driver.py NAME...       (all without a name)

A scenario is a function of a heap that yields once what it needs is there. What it does from then on is done again and
again, with the first, the second, ... allocation of the process failing, until there are no more of them. Each time:
the scenario ends well or with MemoryError (RuntimeError where a thread is to be started), nothing hangs, check() finds
every invariant in place, the ledger balances, what was armed and not refused fires, and the same step, repeated with
all the memory it wants, works.

Prints a line for each scenario and for each kind of failure: the name, and how many sites were survived.
"""

import contextvars
import ctypes
import faulthandler
import gc
import os
import sys
import threading
import time

from timerheap import AfterFunc, Ticker, Timer, TimerArray, TimerHeap, every, select
from timerheap.testing import ManualHeap

NONE, PAGES, ALLOCATIONS, THREADS = 0, 2, 1 | 2, 4
SELF, OTHERS = 0, 1
KEYS_IN_A_PAGE = os.sysconf("SC_PAGESIZE") // 16 - 3

shim = ctypes.CDLL(None)
shim.fault_set.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long]
shim.fault_set.restype = None

variable = contextvars.ContextVar("variable")


class Fired:
    """A callback that counts its calls without needing memory for long."""

    def __init__(self):
        self.count = 0

    def __call__(self, *args):
        self.count += 1


def arm(heap):
    """A function timer without arguments, its handle kept; then dropped."""
    fired = Fired()
    yield
    timer = AfterFunc(0, fired, heap=heap)
    del timer


def arm_with_arguments(heap):
    """One argument in the record; three, and a context, beside it."""
    fired, context = Fired(), contextvars.copy_context()
    yield
    AfterFunc(0, fired, 1, heap=heap)
    AfterFunc(0, fired, 1, 2, 3, heap=heap)
    AfterFunc(0, fired, context=context, heap=heap)


def grow(heap):
    """The key that needs another page."""
    timers = [AfterFunc(3600, int, heap=heap) for _ in range(KEYS_IN_A_PAGE)]
    yield
    timers.append(AfterFunc(3600, int, heap=heap))


def drop(heap):
    """Handles dropped while they are armed: their records want a slab slot."""
    timers = [AfterFunc(delay, int, heap=heap) for delay in (3600, 0.001, 3600)]
    yield
    timers.clear()


def stop(heap):
    timers = [AfterFunc(3600, int, heap=heap) for _ in range(600)]
    yield
    for timer in timers:
        timer.stop()


def reset(heap):
    timer, other = AfterFunc(3600, int, heap=heap), AfterFunc(3600, int, heap=heap)
    other.stop()
    yield
    timer.reset(7200)
    timer.reset(0)
    other.reset(3600)


def reset_when_due(_):
    """In the callback before its own, with the keys full: a refused reset must leave it due."""
    fired, errors, hits, wanted = Fired(), [], [], []
    heap = ManualHeap(on_error=lambda exc, timer: errors.append(type(exc)))

    def first():
        filling = [AfterFunc(3600, int, heap=heap) for _ in range(KEYS_IN_A_PAGE)]
        try:
            shim.fault_set(ALLOCATIONS if wanted[0] >= 0 else 0, SELF, wanted[0])
            second.reset(1)
        finally:
            hits.append(shim.fault_end())
        for timer in filling:
            timer.stop()

    AfterFunc(1, first, heap=heap)
    second = AfterFunc(1, fired, heap=heap)
    wanted.append((yield))
    heap.advance(2)
    heap.check()
    stats = heap.stats()
    assert fired.count == 1, fired.count
    assert stats["arms"] == stats["fired"] + stats["cancelled"] + stats["armed"], stats
    assert set(errors) <= {MemoryError}, errors
    report_hit(any(hits))
    heap.close()


def periodic(heap):
    """Made with and without arguments, a context of its own among them; armed anew, running and stopped."""
    fired, context = Fired(), contextvars.copy_context()
    timer = every(3600, fired, heap=heap)
    timer.stop()
    yield
    every(3600, fired, heap=heap)
    every(0.0005, fired, 1, 2, context=context, heap=heap)
    assert timer.reset(1800) is False
    assert timer.postpone(0.0005) is True
    assert timer.stop() is True
    assert timer.postpone(3600) is False


def launch_periodic(_):
    """The key for the next call, with the keys full: the launch waits for memory, and the call comes all the same."""
    errors, hits, wanted, filling = [], [], [], []
    heap = ManualHeap(on_error=lambda exc, timer: errors.append(type(exc)))

    def first():
        for _ in range(KEYS_IN_A_PAGE):
            filling.append(AfterFunc(3600, int, heap=heap))
        shim.fault_set(ALLOCATIONS if wanted[0] >= 0 else 0, SELF, wanted[0])

    def called():
        hits.append(shim.fault_end())

    AfterFunc(1, first, heap=heap)
    every(1, called, heap=heap)
    wanted.append((yield))
    heap.advance(1)
    heap.check()
    assert len(hits) == 1, (hits, errors)
    heap.advance(1)
    assert len(hits) == 2, (hits, errors)
    stats = heap.stats()
    assert stats["arms"] == stats["fired"] + stats["cancelled"] + stats["armed"], stats
    assert stats["fired"] == 3, stats
    assert set(errors) <= {MemoryError}, errors
    report_hit(hits[0])
    heap.close()


class FiredSlots(Fired):
    """The same of an array's batches."""

    def __call__(self, slots):
        self.count += len(slots)


def make_array(heap):
    """One more than the heap's table has room for, and a block of its own each."""
    fired = FiredSlots()
    arrays = [TimerArray(10, fired, heap=heap) for _ in range(4)]

    def idle():  # made here: CPython 3.13.0 crashes where there is no memory for a function
        return not arrays[-1].armed

    yield
    arrays.append(TimerArray(1_000_000, fired, heap=heap))
    assert arrays[-1].reset([1, 2], 0) == 0
    wait_for(idle)


def arm_array(heap):
    """Several pieces, for which the keys have to grow: refused as a whole, or from some piece on where the worker has
    given the room back that the call had made for all."""
    timers, out = TimerArray(5000, int, heap=heap), bytearray(5000)
    yield
    try:
        assert timers.reset(range(5000), 3600) == 0
        assert timers.armed == 5000
        assert timers.postpone(list(range(100)), [7200] * 100, out=memoryview(out)[:100]) == 100
        assert timers.active() == b"\1" * 5000
        assert len(timers.when()) == 5000
    finally:
        armed = timers.armed
        assert armed == 5000 or armed % 512 == 0, armed
        heap.check()
        assert timers.stop(out=out) == armed
        assert out == (b"\1" * armed).ljust(5000, b"\0")


def arm_slot(heap):
    """The key that needs another page."""
    timers = TimerArray(KEYS_IN_A_PAGE + 1, int, heap=heap)
    timers.reset(range(KEYS_IN_A_PAGE), 3600)
    yield
    try:
        assert timers.reset(KEYS_IN_A_PAGE, 3600) is False
    finally:
        heap.check()
        armed = timers.active(KEYS_IN_A_PAGE)
        assert timers.stop() == KEYS_IN_A_PAGE + armed


def reset_slots_when_due(_):
    """In a callback of the same run, with the keys full: a refused reset must leave them due."""
    fired, errors, hits, wanted = FiredSlots(), [], [], []
    heap = ManualHeap(on_error=lambda exc, timer: errors.append(type(exc)))
    timers = TimerArray(300, fired, heap=heap)

    def first():
        filling = [AfterFunc(3600, int, heap=heap) for _ in range(KEYS_IN_A_PAGE)]
        try:
            shim.fault_set(ALLOCATIONS if wanted[0] >= 0 else 0, SELF, wanted[0])
            timers.reset(range(100), 1)
            timers.reset(100, 1)
            timers.postpone(range(150, 200), 1)
            timers.postpone(200, 1)
        finally:
            hits.append(shim.fault_end())
            assert timers.armed == 300, timers.armed
            heap.check()
        for timer in filling:
            timer.stop()

    AfterFunc(1, first, heap=heap)
    timers.reset(range(300), 1)
    wanted.append((yield))
    heap.advance(2)
    heap.check()
    stats = heap.stats()
    assert fired.count == 300, fired.count
    assert stats["arms"] == stats["fired"] + stats["cancelled"] + stats["armed"], stats
    assert set(errors) <= {MemoryError}, errors
    report_hit(any(hits))
    heap.close()


def launch_slots(_):
    """What a batch and a slot of its own want for their call: the launch waits for memory, and the call comes all the
    same. Once launched it lacks nothing."""
    batches, calls, errors, wanted = FiredSlots(), [], [], []
    heap = ManualHeap(on_error=lambda exc, timer: errors.append(type(exc)))
    each = TimerArray(4, calls.append, each=True, heap=heap)
    timers = TimerArray(1000, batches, batch=300, heap=heap)

    def first():
        shim.fault_set(ALLOCATIONS if wanted[0] >= 0 else 0, SELF, wanted[0])

    AfterFunc(1, first, heap=heap)
    timers.reset(range(1000), 1)
    each.reset(range(4), 1)
    wanted.append((yield))
    heap.advance(1)
    hit = shim.fault_end()
    heap.check()
    stats = heap.stats()
    assert stats["fired"] == 1005, stats
    assert (batches.count, calls) == (1000, [0, 1, 2, 3]) or errors == [MemoryError], (batches.count, calls, errors)
    report_hit(hit)
    heap.close()


def fire_slots(_):
    """Likewise of a worker, with the errors that have to be told."""
    errors, fired = [], FiredSlots()

    def fails(slots):
        fired(slots)
        raise ValueError("mine")

    heap = TimerHeap("firing", on_error=lambda exc, timer: errors.append(type(exc)))
    timers = TimerArray(1000, fails, batch=100, heap=heap)
    timers.reset(range(1000), 0)
    wait_for(lambda: not timers.armed)
    timers.reset(range(1000), 0.02)
    yield
    wait_for(lambda: len(heap) == 0)
    after = Fired()
    AfterFunc(0.02, after, heap=heap)
    wait_for(lambda: after.count == 1)
    hit = shim.fault_end()
    stats = heap.stats()
    assert stats["fired"] == stats["arms"] == 2001, stats
    assert stats["errors"] == 20 or MemoryError in errors, (stats, errors)
    assert fired.count == 2000 or MemoryError in errors, (fired.count, errors)
    heap.check()
    heap.close()
    report_hit(hit)


def pending(heap):
    """Copies, and handles for timers that were dropped."""
    timers = [AfterFunc(3600, int, heap=heap) for _ in range(5)]
    timers.append(every(3600, int, heap=heap))
    del timers[::2]
    yield
    assert len(heap.pending()) == 6


def channel(heap):
    yield
    timer = Timer(0, heap=heap)
    assert timer.c.recv(1) is not None
    timer.reset(0.0001)
    assert timer.c.recv(5) is not None
    timer.reset(3600)
    assert timer.stop()
    assert timer.c.poll() is None


def ticker(heap):
    yield
    with Ticker(1e-4, heap=heap) as ticker:
        assert next(ticker) < next(ticker)
        ticker.reset(1e-4)
        assert ticker.c.recv(5)


def wait_for_many(heap):
    """More channels than fit the lines kept on the stack."""
    channels = [Timer(3600, heap=heap).c for _ in range(6)]
    yield
    try:
        select(*channels, timeout=1e-4)
    except TimeoutError:
        return
    raise AssertionError("a value from nowhere")


def make_heap(_):
    yield
    heap = TimerHeap("another")
    heap.close()


def make_manual_heap(_):
    """Callbacks that leave a variable in their context, so that each wants a new one."""
    yield
    heap = ManualHeap()
    fired = Fired()
    for _ in range(3):
        AfterFunc(0, fired, heap=heap)
    AfterFunc(1, variable.set, 1, heap=heap)
    AfterFunc(1, fired, heap=heap)
    heap.advance(2)
    assert fired.count == 4
    assert len(heap) == 0
    heap.check()
    heap.close()


def start(_):
    """The first timer of a heap starts its worker."""
    heap = TimerHeap("starting")
    fired = Fired()
    refused = False
    yield
    try:
        AfterFunc(0, fired, heap=heap)
    except (MemoryError, RuntimeError):
        refused = True
        raise
    finally:
        hit = shim.fault_end()
        assert fired.count + len(heap) <= 1  # in this order: it may fire in between
        AfterFunc(0, fired, heap=heap)
        wait_for(lambda: fired.count >= 2 - refused)
        # One whose start was given up leaves; of two that stay each would think the heap its own.
        wait_for(lambda: sum(thread.name == "starting" and thread.is_alive() for thread in threading.enumerate()) == 1)
        heap.check()
        heap.close()
        assert fired.count == 2 - refused
        report_hit(hit)


def settle_in(_):
    """What the new thread wants before its first callback."""
    heap = TimerHeap("settling")
    fired = Fired()
    yield
    AfterFunc(0, fired, heap=heap)
    wait_for(lambda: fired.count == 1)
    hit = shim.fault_end()
    heap.check()
    heap.close()
    report_hit(hit)


def fire(_):
    """The worker's own allocations: contexts, and the handles and tracebacks that an error needs."""
    errors, fired = [], Fired()

    def fails():
        raise ValueError("mine")

    heap = TimerHeap("firing", on_error=lambda exc, timer: errors.append(type(exc)))
    AfterFunc(0, fired, heap=heap)
    wait_for(lambda: fired.count == 1)
    for number in range(4):
        AfterFunc(0.02, fired, heap=heap)
        AfterFunc(0.02, variable.set, number, heap=heap)
        AfterFunc(0.02, fails, heap=heap)
    last = threading.Event()
    AfterFunc(0.02, last.set, heap=heap)
    yield
    wait_for(lambda: len(heap) == 0)
    hit = shim.fault_end()
    after = Fired()
    AfterFunc(0, after, heap=heap)
    wait_for(lambda: after.count == 1)
    assert heap.stats()["fired"] == heap.stats()["arms"]
    assert fired.count == 5, fired.count
    heap.check()
    heap.close()
    report_hit(hit)


def patient(errors):
    """A heap whose patience is short, and a callback that waits for a lock."""
    lock = threading.Lock()
    lock.acquire()
    return TimerHeap("patient", patience=0.001, on_error=lambda exc, timer: errors.append(type(exc))), lock


def block(heap, lock):
    """A callback that waits for the lock, and one behind it, which runs because of a hand-over."""
    before, fired = heap.stats()["handovers"], Fired()
    AfterFunc(0, lock.acquire, heap=heap)
    AfterFunc(0, fired, heap=heap)
    wait_for(lambda: fired.count == 1)
    assert heap.stats()["handovers"] > before
    lock.release()
    wait_for(lambda: heap.stats()["threads"] <= 2)
    assert lock.locked()  # the callback's


def stand_by(_):
    """The first run starts the standby. Where that is refused the next run does, and it takes over."""
    errors, fired = [], Fired()
    heap, lock = patient(errors)
    yield
    AfterFunc(0, fired, heap=heap)
    wait_for(lambda: fired.count + len(errors) == 1)
    wait_for(lambda: not heap.pending())
    hit = shim.fault_end()
    block(heap, lock)
    heap.check()
    heap.close()
    assert set(errors) <= {MemoryError}, errors
    report_hit(hit)


def take_over(_):
    """What the standby wants that takes over, and the next one that it starts."""
    errors, fired = [], Fired()
    heap, lock = patient(errors)
    AfterFunc(0, fired, heap=heap)
    wait_for(lambda: fired.count == 1 and heap.stats()["threads"] == 2)
    yield
    AfterFunc(0, lock.acquire, heap=heap)
    AfterFunc(0, fired, heap=heap)
    wait_for(lambda: fired.count + len(errors) == 2)
    hit = shim.fault_end()
    assert heap.stats()["handovers"] >= 1
    lock.release()
    wait_for(lambda: lock.locked() and heap.stats()["threads"] <= 2)
    block(heap, lock)
    heap.check()
    heap.close()
    assert set(errors) <= {MemoryError}, errors
    report_hit(hit)


def report_hit(hit):
    """A scenario that ended the faults itself has attempt() find what it found."""
    shim.fault_set(0, SELF, -1 if hit else 1)


def wait_for(condition):
    deadline = time.monotonic() + 30
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError("what was waited for did not happen")
        time.sleep(0.0005)


def settle(heap):
    """The ledger and every invariant of a heap after a scenario, and one timer more."""
    heap.check()
    fired = Fired()
    AfterFunc(0, fired, heap=heap)
    wait_for(lambda: fired.count == 1)
    stats = heap.stats()
    accounted = stats["fired"] + stats["received"] + stats["cancelled"] + stats["armed"] - stats["tickers"]
    assert stats["arms"] == accounted, stats
    heap.check()


def attempt(scenario, what, whose, n):
    """One go with the n-th allocation failing (n < 0: none). Whether there was an n-th, and what it led to. A scenario
    for which what is NONE gets n, and lets it fail where it matters."""
    heap = TimerHeap("faults")
    held = AfterFunc(0, int, heap=heap)  # held, so that the slab is still untouched
    wait_for(lambda: not held.active)
    steps = scenario(heap)
    next(steps)
    outcome = "ended well"
    try:
        shim.fault_set(what if n >= 0 else 0, whose, n)
        try:
            steps.send(n)
        finally:
            hit = shim.fault_end()
    except StopIteration:
        pass
    except MemoryError:
        outcome = "MemoryError"
    except RuntimeError as exc:
        if not (what & THREADS):
            raise
        outcome = f"RuntimeError: {exc}"
    del steps
    settle(heap)
    heap.close()
    heap.check()
    return hit, outcome


SCENARIOS = {
    function.__name__: (function, what, whose)
    for function, what, whose in (
        (arm, ALLOCATIONS, SELF),
        (arm_with_arguments, ALLOCATIONS, SELF),
        (grow, ALLOCATIONS, SELF),
        (drop, ALLOCATIONS, SELF),
        (stop, ALLOCATIONS, SELF),
        (reset, ALLOCATIONS, SELF),
        (reset_when_due, NONE, SELF),
        (periodic, ALLOCATIONS, SELF),
        (launch_periodic, NONE, SELF),
        (make_array, ALLOCATIONS, SELF),
        (arm_array, ALLOCATIONS, SELF),
        (arm_slot, ALLOCATIONS, SELF),
        (reset_slots_when_due, NONE, SELF),
        (launch_slots, NONE, SELF),
        (fire_slots, ALLOCATIONS, OTHERS),
        (pending, ALLOCATIONS, SELF),
        (channel, ALLOCATIONS, SELF),
        (ticker, ALLOCATIONS, SELF),
        (wait_for_many, ALLOCATIONS, SELF),
        (make_heap, ALLOCATIONS, SELF),
        (make_manual_heap, ALLOCATIONS, SELF),
        (start, ALLOCATIONS | THREADS, SELF),
        (settle_in, ALLOCATIONS, OTHERS),
        (fire, ALLOCATIONS, OTHERS),
        (stand_by, ALLOCATIONS | THREADS, OTHERS),
        (take_over, ALLOCATIONS | THREADS, OTHERS),
    )
}


def main(names):
    unraisable = []
    sys.unraisablehook = lambda seen: unraisable.append(seen.exc_type)
    gc.disable()
    for name in names or SCENARIOS:
        faulthandler.dump_traceback_later(60, exit=True)
        attempt(*SCENARIOS[name], -1)
        unraisable.clear()
        n, outcomes = 0, {}
        while True:
            hit, outcome = attempt(*SCENARIOS[name], n)
            if not hit:
                assert outcome == "ended well", outcome
                break
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
            n += 1
        assert n, "nothing failed"
        assert set(unraisable) <= {MemoryError}, unraisable
        told = ", ".join(f"{count} x {outcome}" for outcome, count in sorted(outcomes.items()))
        print(f"{name}: {n} of {n} sites survived ({told})", flush=True)
    faulthandler.cancel_dump_traceback_later()


if __name__ == "__main__":
    main(sys.argv[1:])
