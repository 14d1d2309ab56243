"""Worst lateness of a bystander: a timer that has nothing to do with what keeps the worker busy.

    python tests/stress/lateness.py --seconds 5

A bystander is armed again and again, 1 to 20 ms ahead; its lateness is taken where its callback begins. Beside it, in
turn, on the same heap:

    nothing              what the machine itself adds
    a zero-delay chain   every callback arms the next one at once, without end
    a herd               a million timers at one instant; callbacks run in the order of their deadlines, so a bystander
                         due meanwhile has to wait for those of the herd: their time, from the first to the bystander in
                         the worst place, 1 ms after the herd, is shown beside it and taken off. What is left is what
                         the herd's first callback waits for: the worker collects and sorts the million
    a fast ticker        a receiver that takes 10 ms over each tick of a ticker of 1 ms
    a slow callback      5 ms of sleep every 10 ms: taken off as well

Prints milliseconds, and exits with 1 if a bystander was early.
"""

import argparse
import sys
import threading
import time

from timerheap import AfterFunc, Ticker, TimerHeap

HERD = 1_000_000


class Bystander:
    """Re-arms itself from its callback; knows the worst it has seen."""

    def __init__(self, heap):
        self.heap, self.count, self.worst, self.early = heap, 0, 0.0, False
        self.arm()

    def arm(self):
        delay = 0.001 * (1 + self.count * 7 % 20)
        self.due = time.monotonic() + delay  # a little before the deadline: never less than the lateness
        AfterFunc(delay, self.run, heap=self.heap)

    def run(self):
        self.note(time.monotonic() - self.due)
        self.arm()

    def note(self, late):
        self.early = self.early or late < 0
        self.worst = max(self.worst, late)
        self.count += 1


def nothing(bystander, seconds):
    time.sleep(seconds)
    return 0.0


def chain(bystander, seconds):
    until = time.monotonic() + seconds

    def again():
        if time.monotonic() < until:
            AfterFunc(0, again, heap=bystander.heap)

    again()
    time.sleep(seconds)
    return 0.0


def herd(bystander, seconds):
    heap = bystander.heap
    ran = []
    done = threading.Event()
    at = time.monotonic() + 5

    def last():
        ran.append(time.monotonic())
        bystander.note(ran[1] - at - 1e-3)
        done.set()

    for _ in range(HERD - 2):
        AfterFunc(at - time.monotonic(), int, heap=heap)
    # The first callback of the herd, by a hair: late enough to be collected with the others. Armed now that arming is
    # quick, and not at first, when it starts the worker and its deadline would be that much later.
    AfterFunc(at - 5e-6 - time.monotonic(), lambda: ran.append(time.monotonic()), heap=heap)
    AfterFunc(at + 1e-3 - time.monotonic(), last, heap=heap)
    done.wait()
    return ran[1] - ran[0]


def ticker(bystander, seconds):
    until = time.monotonic() + seconds
    with Ticker(0.001, heap=bystander.heap) as ticker:
        for _ in ticker:
            time.sleep(0.01)
            if time.monotonic() > until:
                break
    return 0.0


def slow(bystander, seconds):
    until = time.monotonic() + seconds
    longest = [0.0]

    def callback():
        started = time.monotonic()
        time.sleep(0.005)
        longest[0] = max(longest[0], time.monotonic() - started)
        if started < until:
            AfterFunc(0.005, callback, heap=bystander.heap)

    callback()
    longest[0] = 0.0
    time.sleep(seconds)
    return longest[0]


SCENES = {
    "nothing": nothing,
    "a zero-delay chain": chain,
    "a herd of a million": herd,
    "a ticker faster than its receiver": ticker,
    "a slow callback": slow,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5, help="for each but the herd (default 5)")
    args = parser.parse_args()
    early = False
    print("beside | bystanders | worst, ms | of which callbacks, ms | beyond them, ms")
    for name, scene in SCENES.items():
        with TimerHeap("lateness") as heap:
            bystander = Bystander(heap)
            callbacks = scene(bystander, args.seconds)
            deadline = time.monotonic() + 30
            seen = bystander.count
            while bystander.count == seen and time.monotonic() < deadline:
                time.sleep(0.001)
            worst, count = bystander.worst * 1e3, bystander.count
        early = early or bystander.early
        beyond = max(worst - callbacks * 1e3, 0.0)
        print(f"{name} | {count} | {worst:.2f} | {callbacks * 1e3:.2f} | {beyond:.2f}", flush=True)
    return int(early)


if __name__ == "__main__":
    sys.exit(main())
