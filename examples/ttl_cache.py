"""A cache whose entries live for so many seconds, with a million keys.

An entry has a number, its slot in a TimerArray: 40 bytes, no object. Whole columns are armed by one call, and what has
expired comes by the chunk. Any thread may use the cache.
"""

import sys
import threading
import time
from collections.abc import Hashable, Mapping
from typing import Generic, TypeVar

from timerheap import TimerArray, TimerHeap

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class TTLCache(Generic[K, V]):
    def __init__(self, size: int, ttl: float, *, heap: TimerHeap | None = None) -> None:
        self.ttl = ttl
        self._lock = threading.Lock()
        self._slots: dict[K, int] = {}
        self._entries: list[tuple[K, V] | None] = [None] * size
        self._free = list(range(size))
        self._timers = TimerArray(size, self._expire, heap=heap)

    def __len__(self) -> int:
        return len(self._slots)

    def get(self, key: K) -> V | None:
        with self._lock:
            entry = self._entries[self._slots[key]] if key in self._slots else None
            return entry[1] if entry else None

    def update(self, entries: Mapping[K, V]) -> None:
        """Put them in, each to live from now on. IndexError when the cache is full."""
        with self._lock:
            self._timers.reset([self._put(key, value) for key, value in entries.items()], self.ttl)

    def touch(self, key: K) -> bool:
        """Let it live from now on; False if it is there no more."""
        with self._lock:
            return key in self._slots and self._timers.postpone(self._slots[key], self.ttl)

    def pop(self, key: K) -> V | None:
        with self._lock:
            if key not in self._slots:
                return None
            self._timers.stop(self._slots[key])
            return self._drop(self._slots[key])

    def _put(self, key: K, value: V) -> int:
        slot = self._slots[key] if key in self._slots else self._free.pop()
        self._slots[key] = slot
        self._entries[slot] = (key, value)
        return slot

    def _drop(self, slot: int) -> V | None:
        entry, self._entries[slot] = self._entries[slot], None
        if entry is None:
            return None
        del self._slots[entry[0]]
        self._free.append(slot)
        return entry[1]

    def _expire(self, slots: "memoryview[int]") -> None:
        with self._lock:
            # Between the deadline and this lock an entry may have been put anew: its slot is armed again then.
            for slot, armed in zip(slots, self._timers.active(slots), strict=True):
                if not armed:
                    self._drop(slot)


def main(keys: int = 1_000_000, ttl: float = 2.0) -> None:
    cache: TTLCache[str, int] = TTLCache(keys, ttl)
    entries = {f"user:{number}": number for number in range(keys)}
    begin = time.perf_counter()
    cache.update(entries)
    print(f"{len(cache):,} entries put in {time.perf_counter() - begin:.2f} s; user:17 is {cache.get('user:17')}")
    deadline = time.monotonic() + ttl
    cache.touch("user:17")
    while len(cache):
        time.sleep(0.01)
    print(f"all gone {time.monotonic() - deadline:.2f} s after their time; user:17 is {cache.get('user:17')}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
