"""make bench-huge: so many slots of one TimerArray that nobody could keep handles for them.

    python perf/huge.py [--count 100000000] [--part 1000000]

Arms all slots by calls for a part each, in order, with random deadlines; then resets a tenth of them, slots drawn at
random from all, to random deadlines; and stops all. Prints ns a slot, the calls alone, and the resident memory that the
array has added, with all of them armed and after the stop. The columns, which are made beforehand and used again, are
not in it. A hundred million take 5 GB of memory, and some minutes.
"""

import argparse
import random
import time
from array import array

from footprint import resident
from peers import clock

from timerheap import TimerArray, TimerHeap

HOUR = 3600.0
BAR = 4.2
"""GB that a hundred million may take."""


def far(chance, count):
    return array("d", (HOUR + 1000 * chance.random() for _ in range(count)))


def report(what, spent, count):
    print(f"{what:32} {1e9 * spent / count:8.1f} ns a slot, {spent:8.2f} s", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=100_000_000)
    parser.add_argument("--part", type=int, default=1_000_000)
    args = parser.parse_args()
    count, part = args.count, min(args.part, args.count)
    chance = random.Random(1)
    columns = [far(chance, part) for _ in range(4)]
    before = resident()
    heap = TimerHeap()
    timers = TimerArray(count, print, heap=heap)
    spent = 0.0
    for turn, at in enumerate(range(0, count, part)):
        slots = range(at, min(at + part, count))
        delays = memoryview(columns[turn % 4])[: len(slots)]
        start = clock()
        timers.reset(slots, delays)
        spent += clock() - start
    report("arm, in order", spent, count)
    grown = resident() - before
    own = heap.nbytes
    print(
        f"{'resident, all armed':32} {grown / 1e9:8.2f} GB, {grown / count:.1f} bytes a slot; nbytes {own / 1e9:.2f} GB"
    )
    if count == 100_000_000:
        print(f"{'':32} {'holds' if grown <= BAR * 1e9 else 'missed'}: at most {BAR} GB")

    spent, some = 0.0, max(count // 10, part)
    for turn in range(some // part):
        slots = array("I", (int(count * chance.random()) for _ in range(part)))
        start = clock()
        timers.reset(slots, columns[turn % 4])
        spent += clock() - start
    report("reset, a tenth, at random", spent, some // part * part)
    start = clock()
    timers.stop()
    report("stop, all", clock() - start, count)
    time.sleep(0.1)
    left = resident() - before
    print(f"{'resident, all stopped':32} {left / 1e9:8.2f} GB; nbytes {heap.nbytes / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
