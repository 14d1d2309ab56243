"""A program that reports its throughput each period, and on Ctrl-C the rest of it.

Reports lie on an exact grid, are on time however busy the main thread is, and never cut in half by Ctrl-C, which comes
only to the main thread. Leaving the heap's block waits for a report that is under way: then there is nobody else left.
"""

import sys
import threading
import time
from collections import Counter

from timerheap import TimerHeap, every


class Metrics:
    """Counters that any thread may add to."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._recent: Counter[str] = Counter()
        self.total: Counter[str] = Counter()

    def add(self, name: str, count: int = 1) -> None:
        with self._lock:
            self._recent[name] += count

    def report(self) -> None:
        """Print what has come since the last report."""
        with self._lock:
            recent, self._recent = self._recent, Counter()
        self.total.update(recent)
        show("recent", recent)


def show(title: str, counts: "Counter[str]") -> None:
    print(f"{title}:", *(f"{name}={count}" for name, count in sorted(counts.items())), flush=True)


def work(metrics: Metrics) -> None:
    while True:
        time.sleep(0.001)
        metrics.add("requests")
        metrics.add("bytes", 512)


def main(period: float = 1.0) -> int:
    metrics = Metrics()
    try:
        with TimerHeap("metrics") as heap:
            every(period, metrics.report, heap=heap)
            work(metrics)
    except KeyboardInterrupt:
        metrics.report()
        show("total", metrics.total)
    return 130  # what a shell expects of a program that Ctrl-C has ended


if __name__ == "__main__":
    sys.exit(main(*map(float, sys.argv[1:])))
