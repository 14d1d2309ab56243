"""Bytes a timer: resident memory of processes that arm many, for timerheap and its peers.

    python perf/footprint.py [--count 1000 100000 1000000 ...] [--subject timerheap Go ...] [--json] [--plot FILE.svg]

Each figure comes from a process of its own: resident bytes after arming less those before, by the number of timers. The
list that holds the handles is made beforehand, so its 8 bytes a timer are not in the figure; the callback is one
function for all. At 1000 timers a few pages more or less are several bytes a timer.

    held, dropped   with the handles kept, and not
    own             what the heap itself counts (TimerHeap.nbytes)
    split           of it: record, ordering (a key), handle (object and collector header around the record), slack (the
                    rest)
    peak            most resident while they were armed, above the figure itself: what growing costs for a moment
    after stop      still resident when all were stopped and dropped
    gc              milliseconds that gc.collect() takes more than with as many floats in place of the timers, in the
                    same list if held; "plain" is the same for bytes objects as large as timerheap's handles
    B/op, allocs/op of an operation, as go test -benchmem counts: blocks of Python's and the C library's allocators
"""

import argparse
import gc
import json
import os
import resource
import subprocess
import sys
import time

from peers import SUBJECTS, Timerheap, ask_go, present

OPERATIONS = ("arm", "arm_stop", "stop", "reset")


def resident():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def pause(now=time.perf_counter):
    """Seconds of a full collection: the least of five."""
    times = []
    for _ in range(5):
        start = now()
        gc.collect()
        times.append(now() - start)
    return min(times)


def arm(name, count, keep):
    """Arm count timers far ahead, into keep if that is a list."""
    loops = SUBJECTS[name]().loops()
    if keep is not None:
        return loops, loops.arm(range(3600, 3600 + count), keep)
    slot = [None]
    step = 64
    for at in range(0, count, step):
        # Into a short list that is overwritten: nothing is held. Arming 100 to warm up has kept more at once.
        slot = [None] * min(step, count - at)
        loops.arm(range(3600 + at, 3600 + at + len(slot)), slot)
    return loops, slot.clear()


def measure(name, count, held):
    """Armed in this process; bytes."""
    arm(name, 100, [None] * 100)
    keep = [None] * count if held else None
    gc.collect()
    before = resident()
    loops, _ = arm(name, count, keep)
    after = resident()
    found = {"subject": name, "count": count, "held": held, "rss": (after - before) / count}
    found["peak"] = max(0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - after) / count
    if name == "timerheap":
        found |= split(count, held)
    if held and not SUBJECTS[name].few:
        loops.stop(keep)
        loops.sweep()
        keep.clear()
        gc.collect()
        found["after_stop"] = max(0, resident() - before) / count
    return found


def collecting(name, count, held):
    """Milliseconds. The collector looks at each object of a list, whatever it is: so floats take the timers' places."""
    arm(name, 100, [None] * 100)
    keep = [float(i) for i in range(count)] if held else None
    idle = pause()
    armed = arm(name, count, keep)
    spent = pause()
    del armed
    return 1e3 * (spent - idle)


def handle_bytes():
    """Of a handle, its record and the collector's header included."""
    from timerheap import Timer

    return Timer.__basicsize__ + 16


def plain(count):
    """Milliseconds: what collecting() gives for objects of a handle's size that the collector has no interest in."""
    size = handle_bytes() - sys.getsizeof(b"")
    keep = [float(i) for i in range(count)]
    idle = pause()
    keep[:] = (bytes(size) for _ in range(count))
    return 1e3 * (pause() - idle)


def split(count, held):
    import timerheap

    own = timerheap.default_heap().nbytes / count
    record, key = 40, 16
    handle = handle_bytes() - record if held else 0
    return {
        "own": own,
        "split": {"record": record, "ordering": key, "handle": handle, "slack": own - record - key - handle},
    }


def allocations(operation, count=10_000):
    """(bytes, blocks) of one operation of timerheap: Python's allocator by its count of blocks, the heap by its own."""
    import timerheap

    loops = Timerheap().loops()
    heap = timerheap.default_heap()
    delays, handles = [3600.0] * count, [None] * count
    loops.arm(delays, handles)
    gc.collect()
    blocks, size = sys.getallocatedblocks(), heap.nbytes
    if operation == "arm":
        more = [None] * count
        loops.arm(delays, more)
        made = count
    else:
        made = 0
        {"arm_stop": lambda: loops.arm_stop(delays), "stop": lambda: loops.stop(handles),
         "reset": lambda: loops.reset(handles, delays)}[operation]()  # fmt: skip
    return [max(0, heap.nbytes - size) / count, (max(0, sys.getallocatedblocks() - blocks) + made) / count]


def alone(*words):
    command = [sys.executable, __file__, "--one", *map(str, words)]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def collect(subjects, counts):
    """Every row and the allocations, as plain data."""
    rows = []
    for count in counts:
        for name in subjects:
            if count > SUBJECTS[name].most:
                continue
            for held in ("held", "dropped"):
                if name == "Go":
                    bytes_more = ask_go("memory", held, count)
                    rows.append({"subject": name, "count": count, "held": held == "held", "rss": bytes_more / count})
                else:
                    rows.append(alone(name, count, held))
                    rows[-1]["gc_ms"] = alone(name, count, f"{held}-gc")
                    if name == "timerheap" and held == "held":
                        rows[-1]["gc_plain_ms"] = alone("plain", count, "-")
                print(line(rows[-1]), file=sys.stderr)
    per_operation = {"timerheap": {operation: alone("allocations", 0, operation) for operation in OPERATIONS}}
    if "Go" in subjects:
        per_operation["Go"] = {operation: ask_go("allocations", operation) for operation in ("arm", "arm_stop")}
    return {"rows": rows, "allocations": per_operation}


def line(row):
    parts = [
        f"{row['subject']:15} {row['count']:>10} {'held' if row['held'] else 'dropped':8} {row['rss']:9.1f} B/timer"
    ]
    for key, unit in (("own", "own"), ("peak", "peak +"), ("after_stop", "after stop"), ("gc_ms", "gc ms"),
                      ("gc_plain_ms", "plain")):  # fmt: skip
        if key in row:
            parts.append(f"{unit} {row[key]:.1f}")
    if "split" in row:
        parts.append(" ".join(f"{part} {size:.1f}" for part, size in row["split"].items()))
    return ", ".join(parts)


def plot(found, path):
    from report import plot_footprint

    plot_footprint(found, path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", nargs="+", type=int, default=[1000, 100_000, 1_000_000, 10_000_000], metavar="N")
    parser.add_argument("--subject", nargs="+", choices=SUBJECTS, default=list(SUBJECTS), metavar="NAME")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--plot", metavar="FILE.svg")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        name, count, what = args.one
        if name == "allocations":
            found = allocations(what)
        elif name == "plain":
            found = plain(int(count))
        elif what.endswith("-gc"):
            found = collecting(name, int(count), what == "held-gc")
        else:
            found = measure(name, int(count), what == "held")
        print(json.dumps(found))
        return
    found = collect([name for name in args.subject if name in present()], args.count)
    if args.plot:
        plot(found, args.plot)
    if args.json:
        print(json.dumps(found, indent=1))
    else:
        for name, operations in found["allocations"].items():
            for operation, (size, blocks) in operations.items():
                print(f"{name:15} {operation:10} {size:8.1f} B/op {blocks:6.2f} allocs/op")


if __name__ == "__main__":
    main()
