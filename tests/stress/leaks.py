"""References and memory gained by millions of operations: none.

    make leaks                                   on a debug interpreter, which counts every reference
    python tests/stress/leaks.py --operations 1e7

Rounds of the same work: timers armed, reset, postponed, stopped, fired, dropped, and found again by pending();
periodic ones, which their owner stops or they themselves; channels received from and selected among; tickers;
callbacks that raise; finalizers that arm; all on a heap with a worker and on one with a manual clock; and callbacks
that outrun the patience of a third. After each round everything is dropped and collected. Two rounds warm up; over the
rest sys.gettotalrefcount() (a debug interpreter has it), the interpreter's allocated blocks, and the resident memory
must not grow. Then a million timers are armed and stopped, another million armed, dropped and fired, and the memory has
to return.

Exits with 1 if anything grew: by a single reference, by SLACK_BLOCKS, or by SLACK_BYTES.
"""

import argparse
import gc
import os
import sys
import threading
import time
from array import array

from timerheap import AfterFunc, Ticker, Timer, TimerHeap, every, select
from timerheap.testing import ManualHeap

SLACK_BLOCKS = 50
"""Blocks by which a round may differ from the first: caches of the interpreter's own, no multiple of the operations."""

SLACK_BYTES = 2 << 20
"""Resident bytes likewise: the allocator keeps arenas as they happen to be filled."""

OPERATIONS = 51
"""Calls of the library in one pass of work()."""

HAND_OVERS = 100
"""In each round."""

count_references = getattr(sys, "gettotalrefcount", None)


def resident():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Owner:
    def __init__(self, heap):
        self.heap = heap
        self.cycle = self

    def callback(self, *args):
        pass

    def dropped(self):
        pass

    def once(self):
        """The call of a periodic timer that may not be known here yet."""
        beat = getattr(self, "beat", None)
        if beat is not None:
            beat.stop()

    def fail(self):
        raise ValueError("mine")

    def __del__(self):
        AfterFunc(60, int, heap=self.heap).stop()


def work(heap, operations):
    """So many operations on a heap, all of which have come to an end on return."""
    fired = threading.Event()
    for _ in range(operations // OPERATIONS):
        owner = Owner(heap)
        timers = [AfterFunc(60, owner.callback, *range(n), heap=heap) for n in range(4)]
        for timer in timers:
            timer.reset(30)
            timer.reset(90)
        for timer in timers:
            timer.stop()
            timer.stop()
            timer.postpone(60)
        timers[0].reset(0)
        timers[0].postpone(0)
        owner.timer = timers[1]
        AfterFunc(0, owner.callback, 1, 2, heap=heap)
        AfterFunc(0, owner.fail, heap=heap)
        channel = Timer(0, heap=heap)
        channel.c.poll()
        channel.postpone(60)
        channel.reset(60)
        channel.postpone(30)
        channel.stop()
        beat = every(60, owner.callback, 1, heap=heap)
        beat.reset(30)
        beat.postpone(90)
        beat.stop()
        owner.beat = every(1e-4, owner.once, heap=heap)
        AfterFunc(60, owner.dropped, heap=heap)
        every(60, owner.dropped, heap=heap)
        for _, timer in heap.pending():
            if timer.func == owner.dropped:
                timer.stop()
        ticker = Ticker(60, heap=heap)
        select(Timer(0, heap=heap).c, ticker.c, timeout=0)
        ticker.reset(30)
        if isinstance(heap, ManualHeap):
            heap.advance(1e-3)
    if not isinstance(heap, ManualHeap):
        AfterFunc(0, fired.set, heap=heap)
        fired.wait()


def hand_over(heap, times):
    """Callbacks over which the worker loses its post, one after another."""
    for _ in range(times):
        lock, ran = threading.Lock(), threading.Event()
        lock.acquire()
        AfterFunc(0, lock.acquire, heap=heap)
        AfterFunc(0, ran.set, heap=heap)
        ran.wait()
        lock.release()
        while heap.stats()["threads"] > 2:
            time.sleep(0.0005)


def settle(heap):
    """Drop what is left to drop."""
    gc.collect()
    while len(heap):
        time.sleep(0.001)
    gc.collect()


def rounds(operations, count):
    heaps = [TimerHeap("leaks", on_error=lambda exc, timer: None), ManualHeap(on_error=lambda exc, timer: None)]
    patient = TimerHeap("patient", patience=1e-3)
    # Not lists: numbers that are kept would count as references gained.
    first, last = array("q", [0, 0, 0]), array("q", [0, 0, 0])
    for index in range(count + 2):
        started = time.monotonic()
        for heap in heaps:
            work(heap, operations // count // 2)
        hand_over(patient, HAND_OVERS)
        settle(heaps[0])
        last[0] = count_references() if count_references else 0
        last[1] = sys.getallocatedblocks()
        last[2] = resident()
        if index < 2:
            first[:] = last
        print(
            f"round {index + 1}{' (warm-up)' if index < 2 else ''}: {last[0]} references, {last[1]} blocks, "
            f"{last[2] / 2**20:.1f} MiB resident, {time.monotonic() - started:.1f} s",
            flush=True,
        )
    print(f"{patient.stats()['handovers']} hand-overs")
    for heap in (*heaps, patient):
        heap.check()
        heap.close()
    return [after - before for before, after in zip(first, last, strict=True)]


def million(end):
    """Resident bytes that a million timers took, and what is left of them after their end."""
    heap = ManualHeap()
    before = resident()
    timers = [AfterFunc(3600, int, heap=heap) for _ in range(1_000_000)]
    full = resident() - before
    if end == "stopped":
        for timer in timers:
            timer.stop()
    del timers
    if end != "stopped":
        heap.advance(3600)
    gc.collect()
    heap.check()
    left = resident() - before
    heap.close()
    return full, left


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--operations", type=float, default=1e7, help="in the rounds that count (default 1e7)")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    kind = "a debug interpreter" if count_references else "no debug interpreter: references are not counted"
    print(f"Python {sys.version.split()[0]}, {kind}", flush=True)
    references, blocks, size = rounds(int(args.operations), args.rounds)
    print(f"gained over {args.operations:.0e} operations: {references} references, {blocks} blocks, {size} bytes")
    bad = references > 0 or blocks > SLACK_BLOCKS or size > SLACK_BYTES
    for end in ("stopped", "fired"):
        full, left = million(end)
        print(f"a million timers: {full / 2**20:.0f} MiB; {end} and dropped: {left / 2**20:.0f} MiB")
        bad = bad or left > full / 4
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
