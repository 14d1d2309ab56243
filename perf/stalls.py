"""The longest that any one call takes with a million timers: what a growth, a sweep or a burst costs whoever happens to
call then.

    python perf/stalls.py [--count 1000000] [--json]

Each call is timed by itself; 99.99 % of them and the longest, in microseconds. The figures hold what the system adds (a
page fault, another process's turn), so run it alone. `burst`: resets of one timer while the worker collects and sorts a
million that have fallen due, up to the first callback: until then no other thread wants the GIL, and what the caller
waits for is the heap's mutex. `select`: resets of a channel timer beside a select over a twentieth as many of another
heap, the first of which is reset a thousand times a second. `close`: of empty heaps, beside four selects over a
million."""

import argparse
import contextlib
import json
import random
import threading
import time

from timerheap import AfterFunc, Timer, TimerHeap, select

clock = time.perf_counter_ns


def summary(times):
    times.sort()
    return {
        "calls": len(times),
        "p99_us": times[int(0.99 * len(times))] / 1e3,
        "p99.99_us": times[int(0.9999 * len(times))] / 1e3,
        "max_us": times[-1] / 1e3,
    }


def timed(call, items):
    """Nanoseconds of call(item), each by itself."""
    times = []
    for item in items:
        start = clock()
        call(item)
        times.append(clock() - start)
    return times


def burst(count):
    fired = []
    due = time.monotonic() + 0.5 + count * 2e-6
    for _ in range(count):
        AfterFunc(due - time.monotonic(), fired.append, None)
    bystander, times = AfterFunc(3600, fired.append, None), []
    time.sleep(max(0, due - time.monotonic() - 0.05))
    while not fired:
        start = clock()
        bystander.reset(3600)
        times.append(clock() - start)
    # The last ones may have waited for the GIL, which the first callback held.
    return times[:-2]


def blocked(count, selects):
    """A heap with so many timers, and threads that select over all of them, until it is closed."""
    heap = TimerHeap("selected")
    timers = [Timer(3600, heap=heap) for _ in range(count)]
    channels = [timer.c for timer in timers]

    def wait():
        with contextlib.suppress(RuntimeError):
            select(*channels)

    for _ in range(selects):
        threading.Thread(target=wait, daemon=True).start()
    time.sleep(0.2 + selects * count * 2e-6)
    return heap, timers


def beside_select(count, seconds=4):
    heap, timers = blocked(count, 1)
    over = threading.Event()

    def resets():
        sooner = False
        while not over.wait(0.001):
            timers[0].reset(1800 if sooner else 3600)
            sooner = not sooner

    threading.Thread(target=resets, daemon=True).start()
    times, bystander = [], Timer(3600)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        times += timed(bystander.reset, [3600])
        time.sleep(1e-4)
    over.set()
    heap.close()
    return times


def beside_selects(count):
    heap, _ = blocked(count, 4)
    times = timed(TimerHeap.close, [TimerHeap(str(n)) for n in range(100)])
    heap.close()
    return times


def collect(count):
    handles = [None] * count

    def arm(i):
        handles[i] = AfterFunc(3600 + 1000 * random.random(), int)

    found = {"grow": summary(timed(arm, range(count)))}
    random.shuffle(handles)
    found["reset"] = summary(timed(lambda handle: handle.reset(3600 + 1000 * random.random()), handles))
    found["sweep"] = summary(timed(lambda handle: handle.stop(), handles))
    handles.clear()
    found["burst"] = summary(burst(count))
    found["select"] = summary(beside_select(count // 20))
    found["close"] = summary(beside_selects(count))
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    found = collect(args.count)
    if args.json:
        print(json.dumps(found))
        return
    for name, figures in found.items():
        print(
            f"{name:6} {figures['calls']:8} calls, 99 % within {figures['p99_us']:.1f} us, "
            f"99.99 % within {figures['p99.99_us']:.1f} us, longest {figures['max_us']:.1f} us"
        )


if __name__ == "__main__":
    main()
