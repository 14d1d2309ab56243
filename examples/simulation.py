"""A simulation of many machines that fail and are repaired, by a TimerArray under virtual time, with numpy.

Each machine is a slot. The clock goes on minute by minute, and only to minutes in which something happens; all that
happens in one comes as a column of slots, and one call of numpy draws the delays to the next change of each.
"""

import sys
import time

import numpy as np
from numpy.typing import NDArray

from timerheap import TimerArray
from timerheap.testing import ManualHeap

MINUTE = 60.0
DAY = 24 * 60 * MINUTE


class Plant:
    """Machines that run for `mtbf` minutes on average, then are repaired for `mttr`."""

    def __init__(self, machines: int, mtbf: float, mttr: float, seed: int) -> None:
        self._mean = np.array([mttr, mtbf])  # of the time in a state: 0 is down, 1 is up
        self._random = np.random.default_rng(seed)
        self._state = np.ones(machines, dtype=np.intp)
        self._since = 0.0
        self._up_seconds = 0.0
        self.changes = 0
        self.heap = ManualHeap()
        self._timers = TimerArray(machines, self._change, heap=self.heap)
        self._arm(np.arange(machines))

    def run(self, seconds: float) -> float:
        """Go on for so long; the share of its time that an average machine has run, since the beginning."""
        self.heap.advance(seconds)
        self._count()
        return self._up_seconds / (self.heap.time() * len(self._state))

    def _arm(self, slots: NDArray[np.integer]) -> None:
        minutes = self._random.geometric(1 / self._mean[self._state[slots]])
        self._timers.reset(slots, minutes * MINUTE)

    def _change(self, due: "memoryview[int]") -> None:
        self._count()
        slots = np.asarray(due)
        self._state[slots] ^= 1
        self._arm(slots)
        self.changes += len(slots)

    def _count(self) -> None:
        now = self.heap.time()
        self._up_seconds += int(self._state.sum()) * (now - self._since)
        self._since = now


def main(machines: int = 100_000, days: int = 7, mtbf: float = 2000.0, mttr: float = 100.0) -> float:
    plant = Plant(machines, mtbf, mttr, seed=1)
    begin = time.perf_counter()
    share = plant.run(days * DAY)
    took = time.perf_counter() - begin
    print(f"{machines:,} machines, {days} days: {plant.changes:,} changes in {took:.1f} s")
    print(f"a machine ran {share:.2%} of the time; in the long run it would {mtbf / (mtbf + mttr):.2%}")
    plant.heap.close()
    return share


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
