"""A TimerArray beside AfterFunc and Go: the same work on a million timers, by number and by handle.

    python perf/arrays.py [--subject TimerArray AfterFunc Go] [--operation arm stop ...] [--count 1000000] [--rounds 5]
                          [--json] [--plot FILE.svg]

Each figure comes from a fresh process; the subjects take turns, round after round. ns an operation unless a unit is
given, medians. AfterFunc and Go go through their timers in a loop, a call each; the array gets columns: array('I'),
array('d'). Deadlines are random, an hour and more away. `shuffled`: the slots of a call in random order, of a list the
handles.

arm                 all of them, into an empty heap, slots in order; arm_shuffled, which for those with handles is arm
reset_later, reset  all of them, shuffled, to a later deadline, or to a random one
stop                all of them, shuffled, the sweep included
fire                deadlines spread over a second, and a callback that holds up the worker until all have passed: from
                    its end to that of the last callback. AfterFunc has a call for each, the array one for a chunk. Go,
                    which cannot be held up so: all due at one instant
fire_spread         processor time of firing them as they fall due, all in one second; fire_spread_tolerant, on a heap
                    that may put off its wake-ups by half a millisecond, where for Go it is fire_spread
one_hot, one_cold   reset of a single slot, the same one again and again, or each of them, shuffled, at random
calls_of_16         reset to later with 16 slots a call, shuffled, a timer; calls_of_256. With handles it is reset_later
bytes               resident bytes a timer, handles held
late                ms: how late 500 timers of the heap are at the most, beside calls for all slots, one after another;
                    late_call, the longest that a call for another timer takes there, of its own thread: it waits for
                    the heap's mutex, and the GIL
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import threading
import time
from array import array

from footprint import resident
from peers import Timerheap, ask_go, build_go, clock

MILLION = 1_000_000
HOUR = 3600.0
SPREAD = 1.0
ONES = 100_000
"""Calls for a single slot that are timed in one go."""
BYSTANDERS = 500
BARS = [
    ("arm", "AfterFunc", 0.2), ("arm", "Go", 0.1), ("arm_shuffled", "AfterFunc", 0.4), ("arm_shuffled", "Go", 0.2),
    ("reset_later", "AfterFunc", 0.1), ("reset_later", "Go", 0.15), ("reset", "AfterFunc", 0.25), ("reset", "Go", 0.3),
    ("stop", "AfterFunc", 0.3), ("stop", "Go", 0.5), ("fire", "AfterFunc", 0.7), ("fire", "Go", 0.15),
    ("one_hot", "AfterFunc", 1.05), ("one_cold", "AfterFunc", 1.0), ("calls_of_16", "AfterFunc", 0.2),
    ("calls_of_256", "AfterFunc", 0.1), ("bytes", "Go", 0.31),
]  # fmt: skip
"""(figure, whose it is set against, how much of that at most)."""
LIMITS = [("bytes", 41), ("late", 5)]
AS = {"arm_shuffled": "arm", "one_cold": "reset", "calls_of_16": "reset_later", "calls_of_256": "reset_later"}
"""What it is set against, where there are handles."""


def far(count, after=HOUR):
    chance = random.Random(1)
    return array("d", (after + 1000 * chance.random() for _ in range(count)))


def shuffled(count, seed=2):
    numbers = list(range(count))
    random.Random(seed).shuffle(numbers)
    return numbers


def timed(call, *args):
    start = clock()
    call(*args)
    return clock() - start


class Fired:
    """Counts down what fires, and notes the end."""

    def __init__(self, left, now):
        self.left, self.now = left, now
        self.end = 0.0
        self.all = threading.Event()

    def one(self):
        self.left -= 1
        if not self.left:
            self.end = self.now()
            self.all.set()

    def chunk(self, slots):
        self.left -= len(slots)
        if not self.left:
            self.end = self.now()
            self.all.set()


def fire_held_up(count, heap, arm):
    """Seconds from when the worker is let go. arm(fired, delays) arms them."""
    from timerheap import AfterFunc

    fired, ends = Fired(count, clock), []
    lead = 0.2 + 2e-6 * count
    due = clock() + lead

    def hold_up():
        time.sleep(due + SPREAD + 0.1 - clock())
        ends.append(clock())

    chance = random.Random(1)
    keep = AfterFunc(lead - 0.1, hold_up, heap=heap), arm(fired, lambda: due + SPREAD * chance.random() - clock())
    if clock() > due - 0.1:
        raise SystemExit("armed too slowly for the lead")
    fired.all.wait()
    del keep
    return fired.end - ends[0]


def fire_spread(count, arm):
    """Processor time."""
    fired = Fired(count, time.process_time)
    lead = 0.2 + 2e-6 * count
    due = clock() + lead
    chance = random.Random(1)
    keep = arm(fired, lambda: due + SPREAD * chance.random() - clock())
    used = time.process_time()
    if clock() > due:
        raise SystemExit("armed too slowly for the lead")
    fired.all.wait()
    del keep
    return fired.end - used


def tolerant_heap(operation):
    from timerheap import TimerHeap

    return TimerHeap(tolerance=5e-4) if operation == "fire_spread_tolerant" else TimerHeap()


def by_number(operation, count):
    """Seconds for all of them, by a TimerArray."""
    from timerheap import TimerArray

    if operation in ("fire", "fire_spread", "fire_spread_tolerant"):
        heap = tolerant_heap(operation)

        def arm(fired, delay):
            timers = TimerArray(count, fired.chunk, heap=heap)
            timers.reset(slice(None), array("d", (delay() for _ in range(count))))
            return timers

        return fire_held_up(count, heap, arm) if operation == "fire" else fire_spread(count, arm)
    timers = TimerArray(count, print)
    order = array("I", shuffled(count))
    if operation in ("arm", "arm_shuffled"):
        return timed(timers.reset, array("I", range(count)) if operation == "arm" else order, far(count))
    timers.reset(slice(None), far(count))
    later = operation == "reset_later" or operation.startswith("calls_of_")
    fresh = far(count, 2 * HOUR if later else HOUR)
    if operation in ("reset", "reset_later"):
        return timed(timers.reset, order, fresh)
    if operation == "stop":
        return timed(timers.stop, order)
    if operation == "one_hot":
        return timed(reset_one, timers.reset, count // 2) * count / ONES
    if operation == "one_cold":
        cold = order[:ONES].tolist()
        return timed(reset_each, timers.reset, cold, fresh[:ONES].tolist()) * count / len(cold)
    size = int(operation.removeprefix("calls_of_"))
    parts = [(order[at : at + size], fresh[at : at + size]) for at in range(0, count, size)]
    return timed(reset_each, timers.reset, *zip(*parts, strict=True))


def reset_one(reset, slot):
    for _ in range(ONES):
        reset(slot, HOUR)


def reset_each(reset, items, delays):
    for item, delay in zip(items, delays, strict=True):
        reset(item, delay)


def reset_this(reset):
    for _ in range(ONES):
        reset(HOUR)


def by_handle(operation, count):
    """Seconds for all of them, by AfterFuncs."""
    from timerheap import AfterFunc

    if operation in ("fire", "fire_spread", "fire_spread_tolerant"):
        heap = tolerant_heap(operation)

        def arm_all(fired, delay):
            call = fired.one
            return [AfterFunc(delay(), call, heap=heap) for _ in range(count)]

        return fire_held_up(count, heap, arm_all) if operation == "fire" else fire_spread(count, arm_all)
    loops = Timerheap().loops()
    handles = [None] * count
    delays = list(far(count))
    spent = loops.arm(delays, handles)
    if operation == "arm":
        return spent
    if operation == "one_hot":
        return timed(reset_this, handles[count // 2].reset) * count / ONES
    handles = [handles[i] for i in shuffled(count)]
    if operation == "stop":
        return loops.stop(handles)
    return loops.reset(handles, list(far(count, 2 * HOUR if operation == "reset_later" else HOUR)))


def by_go(operation, count):
    fires = {"fire": "fire", "fire_spread": "fire_second"}
    return ask_go(fires.get(operation, f"all_{operation}"), count)


def memory(subject, count):
    """Resident bytes a timer."""
    if subject == "Go":
        return ask_go("memory", "held", count) / count
    delays, handles = far(count), [None] * count
    from timerheap import TimerArray

    loops = Timerheap().loops()
    loops.arm(delays[:100], [None] * 100)
    before = resident()
    if subject == "TimerArray":
        timers = TimerArray(count, print)
        timers.reset(slice(None), delays)
    else:
        loops.arm(delays, handles)
    return (resident() - before) / count


def bystanders(count):
    """ms: {late: , late_call: } beside calls for all slots."""
    from timerheap import AfterFunc, TimerArray, TimerHeap

    heap = TimerHeap()
    timers = TimerArray(count, print, heap=heap)
    order = array("I", shuffled(count))
    columns = [far(count, HOUR * turn) for turn in (1, 2)]
    calls, over = [], threading.Event()

    def bulk():
        while not over.is_set():
            for delays in columns:
                timers.reset(order, delays)
            timers.stop(order)

    def call():
        other = AfterFunc(HOUR, print, heap=heap)
        while not over.wait(1e-3):
            calls.append(timed(other.reset, HOUR))

    threads = [threading.Thread(target=work) for work in (bulk, call)]
    for thread in threads:
        thread.start()
    for _ in range(BYSTANDERS):
        AfterFunc(0.005, int, heap=heap)
        time.sleep(0.01)
    over.set()
    for thread in threads:
        thread.join()
    late = heap.stats()["late_max"]
    heap.close()
    return {"late": 1e3 * late, "late_call": 1e3 * max(calls)}


BY = {"TimerArray": by_number, "AfterFunc": by_handle, "Go": by_go}
SHARED = ("arm", "reset_later", "reset", "stop", "fire", "fire_spread", "bytes")
OPERATIONS = {
    "TimerArray": (
        "arm", "arm_shuffled", "reset_later", "reset", "stop", "fire", "fire_spread", "fire_spread_tolerant", "one_hot",
        "one_cold", "calls_of_16", "calls_of_256", "bytes", "late",
    ),
    "AfterFunc": (*SHARED, "fire_spread_tolerant", "one_hot"),
    "Go": SHARED,
}  # fmt: skip
QUICK = ("arm", "arm_shuffled", "reset_later", "reset", "stop", "fire", "bytes")


def present():
    """The subjects that can run here."""
    return [subject for subject in BY if subject != "Go" or build_go() is not None]


def measure(subject, operation, count):
    """{figure: value}, measured in this process."""
    if operation == "late":
        return bystanders(count)
    if operation == "bytes":
        return {"bytes": memory(subject, count)}
    return {operation: 1e9 * BY[subject](operation, count) / count}


def alone(*words):
    done = subprocess.run([sys.executable, __file__, "--one", *map(str, words)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{words}: {done.stderr}")
    return json.loads(done.stdout)


def collect(subjects, operations, count, rounds):
    """{figure: {subject: its values}}; a line a process on stderr on the way."""
    found = {}
    for turn in range(rounds):
        for operation in operations:
            for subject in subjects:
                if operation not in OPERATIONS[subject]:
                    continue
                figures = alone(subject, operation, count)
                for figure, value in figures.items():
                    found.setdefault(figure, {}).setdefault(subject, []).append(value)
                shown = ", ".join(f"{figure} {value:,.1f}" for figure, value in figures.items())
                print(f"round {turn + 1} of {rounds}: {subject}: {shown}", file=sys.stderr)
    return found


def medians(found):
    """{(figure, subject): the median of its values}, with handles also of what has another name there."""
    middle = {
        (name, subject): statistics.median(values) for name, row in found.items() for subject, values in row.items()
    }
    for name, other in AS.items():
        for subject in BY:
            if subject != "TimerArray" and (other, subject) in middle:
                middle[name, subject] = middle[other, subject]
    if ("fire_spread", "Go") in middle:
        middle["fire_spread_tolerant", "Go"] = middle["fire_spread", "Go"]
    return middle


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--subject", nargs="+", choices=BY, default=list(BY), metavar="NAME")
    every = OPERATIONS["TimerArray"]
    parser.add_argument("--operation", nargs="+", choices=every, default=list(every), metavar="NAME")
    parser.add_argument("--count", type=int, default=MILLION)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--plot", metavar="FILE.svg")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        subject, operation, count = args.one
        print(json.dumps(measure(subject, operation, int(count))))
        return
    subjects = [subject for subject in args.subject if subject in present()]
    found = collect(subjects, args.operation, args.count, args.rounds)
    if args.plot:
        from report import plot_arrays

        plot_arrays(found, args.plot)
    if args.json:
        print(json.dumps(found, indent=1))
    else:
        from report import array_tables

        print(*array_tables(found), sep="\n")


if __name__ == "__main__":
    main()
