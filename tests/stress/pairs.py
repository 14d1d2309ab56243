"""What a pair of AfterFunc and stop costs beside many live handles, from one thread and from several at once.

    python tests/stress/pairs.py --live 1000 1000000 --threads 1 2

One line for each number of live handles and of threads: nanoseconds of wall time from the start of the pairs to the
end of them, for each pair of one thread, and how often the collector ran meanwhile. "shared" has all threads on one
heap, "own" gives each its own. Asserts no speed: it prints one.
"""

import argparse
import gc
import sys
import threading
import time

from timerheap import AfterFunc, TimerHeap

FAR = 3600.0


def work(heap, pairs, batch, barrier, spans):
    barrier.wait()
    start = time.perf_counter_ns()
    for _ in range(pairs // batch):
        made = [AfterFunc(FAR, int, heap=heap) for _ in range(batch)]
        for timer in made:
            timer.stop()
    spans.append((start, time.perf_counter_ns()))


def measure(heaps, pairs, batch):
    """Wall time per pair of one thread, one thread a heap, and the collections meanwhile."""
    barrier, spans = threading.Barrier(len(heaps)), []
    threads = [threading.Thread(target=work, args=(heap, pairs, batch, barrier, spans)) for heap in heaps]
    before = sum(generation["collections"] for generation in gc.get_stats())
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    after = sum(generation["collections"] for generation in gc.get_stats())
    return (max(end for _, end in spans) - min(start for start, _ in spans)) / pairs, after - before


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--live", type=int, nargs="+", default=[1000, 1_000_000], help="handles held meanwhile")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--pairs", type=int, default=300_000, help="of each thread")
    parser.add_argument("--batch", type=int, default=1, help="arm so many, then stop them (the collector counts them)")
    args = parser.parse_args()
    gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    print(f"Python {sys.version.split()[0]}, {'with' if gil else 'without'} a GIL")
    print(f"{args.pairs} pairs a thread, {args.batch} at a time")
    print(f"{'live':>9} {'threads':>7} {'heap':>6} | {'ns a pair':>9} {'collections':>11}")
    for live in args.live:
        with TimerHeap("shared") as shared:
            start = time.perf_counter()
            held = [AfterFunc(FAR, int, heap=shared) for _ in range(live)]
            built = time.perf_counter() - start
            for count in args.threads:
                own = [shared, *(TimerHeap(f"own {number}") for number in range(1, count))]
                for name, heaps in (("shared", [shared] * count), ("own", own))[: 1 + (count > 1)]:
                    ns, collections = measure(heaps, args.pairs, args.batch)
                    print(f"{live:>9} {count:>7} {name:>6} | {ns:>9.0f} {collections:>11}", flush=True)
                for heap in own[1:]:
                    heap.close()
            print(f"{live:>9} handles were made in {built:.2f} s")
            del held


if __name__ == "__main__":
    sys.exit(main())
