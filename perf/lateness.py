"""By how much timers are late, and how often the process wakes for them.

    python perf/lateness.py [--subject timerheap Go asyncio ...] [--scenario idle many ...] [--seconds 4] [--json]

A row is a subject in a process of its own under one scenario: number of timers, p50, p90, p99, p99.9 and the maximum of
the lateness in microseconds, and how many fired early (before arming time + delay, by the monotonic clock).

    idle        single timers, 1 to 10 ms ahead, each arming the next, in a process that does nothing else
    many        10,000 timers a second at random moments, all armed beforehand
    computing   idle, beside a Python thread that computes (a goroutine, for Go)
    computing, main    the same where it is the main thread that computes, and event loops run in another; Go once more
    native      idle, beside a thread that computes in C without the GIL
    burst       idle, while a million other timers fall due at one instant
    ticker      ticks every 5 ms: Ticker, time.Ticker, and what a peer's own timers make of a grid

wakeups, for timerheap alone: how often the worker wakes a second with a million far timers armed, and while they are
reset, each to a later deadline.
"""

import argparse
import hashlib
import json
import random
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from peers import SUBJECTS, ask_go, clock, present

SCENARIOS = ("idle", "many", "computing", "computing, main", "native", "burst", "ticker")
DEFAULT = ("timerheap", "Go", "asyncio", "uvloop", "gevent", "Twisted", "threading.Timer")
PERIOD = 0.005


def randomly(seconds):
    """Due times for late(): 1 to 10 ms ahead, for so many seconds."""
    end = clock() + seconds

    def next_due():
        now = clock()
        return None if now > end else now + 0.001 + 0.009 * random.random()

    return next_due


def on_grid(seconds):
    """Due times for late() on a grid that does not drift."""
    start = clock()

    def next_due():
        now = clock()
        return None if now > start + seconds else start + PERIOD * (1 + (now - start) // PERIOD)

    return next_due


def beside(compute):
    """A daemon thread that calls compute for ever."""

    def run():
        while True:
            compute()

    threading.Thread(target=run, daemon=True).start()


def count_up():
    x = 0
    for i in range(100_000):
        x += i
    return x


def above(measured, compute):
    """What measured() gives, in a thread, while this one calls compute."""
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(measured)
        while not answer.done():
            compute()
    return answer.result()


def ticks(seconds):
    from timerheap import Ticker

    found, end = [], clock() + seconds
    with Ticker(PERIOD) as ticker:
        for at in ticker:
            now = clock()
            found.append(now - at)
            if now > end:
                break
    return found


def measure(name, scenario, seconds):
    """Lateness in seconds, a list."""
    if name == "Go":
        return [ns / 1e9 for ns in ask_go("late", scenario, seconds)]
    if name == "timerheap" and scenario == "ticker":
        return ticks(seconds)
    if scenario == "computing, main":
        # All in the thread: an event loop may belong to the thread that makes it.
        return above(lambda: SUBJECTS[name]().loops().late(randomly(seconds)), count_up)
    loops = SUBJECTS[name]().loops()
    if scenario == "many":
        soon = clock() + 0.2 + seconds / 4
        return loops.late_all([soon + seconds * random.random() for _ in range(int(10_000 * seconds))])
    if scenario == "computing":
        beside(count_up)
    elif scenario == "native":
        data = bytes(1 << 24)
        beside(lambda: hashlib.sha256(data).digest())
    elif scenario == "burst":
        # Armed first: most peers take seconds for that. Then the chain has the burst in its middle.
        lead = 8.0 if name != "timerheap" else 2.0
        due = clock() + lead
        handles = [None] * 1_000_000
        loops.arm([due - clock()] * len(handles), handles)
        time.sleep(max(0, due - clock() - seconds / 2))
    return loops.late(randomly(seconds) if scenario != "ticker" else on_grid(seconds))


def switches():
    """Voluntary context switches of this process's threads so far."""
    total = 0
    for task in threading.enumerate():
        with open(f"/proc/self/task/{task.native_id}/status") as status:
            total += next(int(line.split()[1]) for line in status if line.startswith("voluntary"))
    return total


def wakeups(seconds):
    from timerheap import AfterFunc, default_heap

    handles = [AfterFunc(3600 + i / 1000, int) for i in range(1_000_000)]
    time.sleep(0.5)
    before, woken = switches(), default_heap().stats()["wakeups"]
    time.sleep(seconds)
    idle = {
        "worker": (default_heap().stats()["wakeups"] - woken) / seconds,
        "switches": (switches() - before) / seconds,
    }
    woken, start = default_heap().stats()["wakeups"], clock()
    while clock() - start < seconds:
        for handle in handles:
            handle.reset(7200)
    spent = clock() - start
    return {"idle": idle, "resetting": {"worker": (default_heap().stats()["wakeups"] - woken) / spent}}


def row(name, scenario, found):
    found = sorted(found)

    def at(share):
        return 1e6 * found[min(len(found) - 1, int(share * len(found)))]

    return {
        "subject": name, "scenario": scenario, "timers": len(found), "early": sum(late < 0 for late in found),
        "p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "p99.9": at(0.999), "max": at(1.0),
        "quantiles": [round(at(i / 200), 2) for i in range(201)],
    }  # fmt: skip


def alone(*words):
    """This script's answer to --one, from a process of its own."""
    done = subprocess.run([sys.executable, __file__, "--one", *map(str, words)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{words}: {done.stderr}")
    return json.loads(done.stdout)


def collect(subjects, scenarios, seconds):
    """All rows and the wake-ups, as plain data; a line a row on stderr on the way."""
    rows = []
    for scenario in scenarios:
        for name in subjects:
            if scenario in ("many", "burst") and name == "threading.Timer":
                continue
            rows.append(row(name, scenario, alone(name, scenario, seconds)))
            print(line(rows[-1]), file=sys.stderr)
    return {"rows": rows, "wakeups": alone("wakeups", "-", seconds) if "timerheap" in subjects else None}


def line(found):
    figures = " ".join(f"{key} {found[key]:.0f}" for key in ("p50", "p90", "p99", "p99.9", "max"))
    who = f"{found['scenario']:15} {found['subject']:16}"
    return f"{who} {found['timers']:6} timers, early {found['early']}; us: {figures}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--subject", nargs="+", choices=DEFAULT, default=DEFAULT, metavar="NAME")
    parser.add_argument("--scenario", nargs="+", choices=SCENARIOS, default=SCENARIOS, metavar="NAME")
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        name, scenario, seconds = args.one
        print(json.dumps(wakeups(float(seconds)) if name == "wakeups" else measure(name, scenario, float(seconds))))
        return
    found = collect([name for name in args.subject if name in present()], args.scenario, args.seconds)
    if args.json:
        print(json.dumps(found))
    elif found["wakeups"]:
        print("wake-ups a second:", json.dumps(found["wakeups"]))


if __name__ == "__main__":
    main()
