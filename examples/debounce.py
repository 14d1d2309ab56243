"""Debounce and throttle: of many calls, one when they have come to rest, or one a period.

Each has a single timer for its whole life. A call that puts it off costs a fraction of a microsecond, and no
thread, so both may stand before the busiest of callbacks.
"""

import logging
import sys
import threading
from collections.abc import Callable
from functools import partial
from math import inf
from typing import Generic, ParamSpec

from timerheap import AfterFunc, Timer, TimerHeap, sleep

P = ParamSpec("P")


def idle_timer(func: Callable[[], object], heap: TimerHeap | None) -> Timer:
    """A timer to reset() later, which fires only then."""
    timer = AfterFunc(inf, func, heap=heap)
    timer.stop()
    return timer


class Debounce(Generic[P]):
    """Calls func, with the last arguments, once there has been no call for `wait` seconds."""

    def __init__(self, wait: float, func: Callable[P, object], *, heap: TimerHeap | None = None) -> None:
        self._wait = wait
        self._func = func
        self._lock = threading.Lock()
        self._call: Callable[[], object] | None = None
        self._timer = idle_timer(self._rested, heap)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> None:
        with self._lock:
            self._call = partial(self._func, *args, **kwargs)
            self._timer.reset(self._wait)

    def flush(self) -> None:
        """Call now, in this thread, if a call is to come."""
        self._timer.stop()
        self._rested()

    def cancel(self) -> bool:
        with self._lock:
            self._call = None
            return self._timer.stop()

    def _rested(self) -> None:
        with self._lock:
            if self._timer.active:
                return  # called once more since the timer has fired
            call, self._call = self._call, None
        if call is not None:
            call()


class Throttle(Generic[P]):
    """Calls func at once, then at most once in `period` seconds: with the last arguments there were meanwhile."""

    def __init__(self, period: float, func: Callable[P, object], *, heap: TimerHeap | None = None) -> None:
        self._period = period
        self._func = func
        self._lock = threading.Lock()
        self._open = True
        self._call: Callable[[], object] | None = None
        self._timer = idle_timer(self._next, heap)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> None:
        call = partial(self._func, *args, **kwargs)
        with self._lock:
            if not self._open:
                self._call = call
                return
            self._open = False
            self._timer.reset(self._period)
        call()

    def _next(self) -> None:
        with self._lock:
            call, self._call = self._call, None
            self._open = call is None
            if call is not None:
                self._timer.reset(self._period)
        if call is not None:
            call()


def main() -> None:
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
    save = Debounce(0.1, partial(logging.info, "saved: %s"))
    draw = Throttle(0.1, partial(logging.info, "drawn: %s"))
    text = "a letter of thanks"
    for typed in range(1, len(text) + 1):
        save(text[:typed])
        draw(text[:typed])
        sleep(0.02)
    sleep(0.5)


if __name__ == "__main__":
    main()
