"""Go's timers for Python: Timer, Ticker and AfterFunc, millions of them on one native thread.

>>> from timerheap import AfterFunc
>>> timer = AfterFunc(30, print, "too late")
>>> timer.stop()
True

Durations are in seconds: int, float, anything with __float__, or datetime.timedelta. Deadlines are
on time.monotonic().
"""

from timerheap._core import (
    AfterFunc,
    Channel,
    Ticker,
    Timer,
    TimerArray,
    TimerHeap,
    after,
    default_heap,
    every,
    select,
    sleep,
    tick,
)

__version__ = "0.1.0"

__all__ = [
    "AfterFunc",
    "Channel",
    "Ticker",
    "Timer",
    "TimerArray",
    "TimerHeap",
    "after",
    "default_heap",
    "every",
    "select",
    "sleep",
    "tick",
]
