"""A rate limiter that threads share: so many a second, with bursts of a bounded size.

There is no thread that refills a bucket. Each caller is given the moment of its turn, and sleeps until then: in the
order of arrival, and never early. Without bursts a Ticker is the same in one line: each thread
waits for `ticker.c.recv()` before it goes on.
"""

import threading
import time
from collections.abc import Callable

from timerheap import sleep


class RateLimiter:
    def __init__(self, rate: float, burst: int = 1, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._period = 1 / rate
        self._burst = burst
        self._clock = clock
        self._lock = threading.Lock()
        self._next = clock() - (burst - 1) * self._period

    def acquire(self) -> float:
        """Wait for this call's turn; how long that was to be, in seconds."""
        with self._lock:
            wait = self._turn()
            self._next += self._period
        if wait > 0:
            sleep(wait)
        return wait

    def try_acquire(self) -> bool:
        """Take a turn if there is one now."""
        with self._lock:
            free = self._turn() <= 0
            if free:
                self._next += self._period
        return free

    def _turn(self) -> float:
        """Seconds until the next turn. With the lock held."""
        now = self._clock()
        self._next = max(self._next, now - (self._burst - 1) * self._period)  # what was not used is not kept for ever
        return self._next - now


def main(rate: float = 20.0, burst: int = 5, calls: int = 15) -> None:
    begin = time.monotonic()
    limiter = RateLimiter(rate, burst)
    for call in range(calls):
        limiter.acquire()
        print(f"call {call} at {time.monotonic() - begin:.3f} s")


if __name__ == "__main__":
    main()
