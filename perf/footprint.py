"""Bytes a timer: resident memory of a process that arms many, handles held and dropped.

    python perf/footprint.py [--count 1000000 ...] [--json]

Each figure comes from a process of its own: resident bytes after arming less those before, by the number of timers. The
list that holds the handles is made beforehand, so its 8 bytes a timer are not in the figure. asyncio keeps its timers
whether or not the handle is kept.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys


def resident():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def measure(subject, count, held):
    """Armed in this process: bytes a timer by the system's account, and by the heap's own where it keeps one."""
    def nothing():
        pass

    if subject == "timerheap":
        import timerheap

        arm = timerheap.AfterFunc
        heap = timerheap.default_heap()
    else:
        arm = asyncio.new_event_loop().call_later
    keep = [None] * count if held else None
    arm(3600.0, nothing)
    before = resident()
    if held:
        for i in range(count):
            keep[i] = arm(3600.0 + i, nothing)
    else:
        for i in range(count):
            arm(3600.0 + i, nothing)
    after = resident()
    own = heap.nbytes / count if subject == "timerheap" else None
    return {"subject": subject, "count": count, "held": held, "rss": (after - before) / count, "own": own}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", nargs="+", type=int, default=[1000, 100_000, 1_000_000])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        subject, count, held = args.worker
        print(json.dumps(measure(subject, int(count), held == "held")))
        return
    rows = []
    for count in args.count:
        for subject in ("timerheap", "asyncio"):
            for held in ("held", "dropped"):
                command = [sys.executable, __file__, "--worker", subject, str(count), held]
                rows.append(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))
    if args.json:
        print(json.dumps(rows, indent=1))
        return
    print(f"{'subject':10} {'timers':>10} {'handle':8} {'RSS B/timer':>12} {'own B/timer':>12}")
    for row in rows:
        handle = "held" if row["held"] else "dropped"
        own = "" if row["own"] is None else f"{row['own']:.1f}"
        print(f"{row['subject']:10} {row['count']:>10} {handle:8} {row['rss']:>12.1f} {own:>12}")


if __name__ == "__main__":
    main()
