"""A watchdog over a main thread that computes: it says where it hangs, and interrupts it.

The heap's worker gets the GIL within microseconds from a thread that runs Python, so the watchdog bites on time however
busy that is. What it cannot do: a call into C that holds the GIL, such as sum(range(10**12)) or a regular expression
that backtracks for ever, keeps every Python thread from running, this one too, until it returns. For that there is
faulthandler.dump_traceback_later(limit, exit=True), whose thread needs no GIL: it shows the stacks, and can end the
process, but cannot interrupt the call. A program that must not hang at all uses both, as main() does.
"""

import _thread
import faulthandler
import sys
import threading
import time
import traceback
from collections.abc import Callable

from timerheap import AfterFunc, TimerHeap


class Watchdog:
    """Calls bite() once `limit` seconds have gone by without a feed()."""

    def __init__(self, limit: float, bite: Callable[[], object], *, heap: TimerHeap | None = None) -> None:
        self._limit = limit
        self._timer = AfterFunc(limit, bite, heap=heap)

    def feed(self) -> bool:
        """False if it has bitten, or has been stopped."""
        return self._timer.postpone(self._limit)

    def stop(self) -> None:
        self._timer.stop()


def interrupt_main() -> None:
    """Print the main thread's stack, and raise KeyboardInterrupt there."""
    frame = sys._current_frames()[threading.main_thread().ident or 0]
    print("the main thread hangs:", traceback.format_list(traceback.extract_stack(frame)[-1:])[0].strip())
    _thread.interrupt_main()


def step() -> None:
    sum(range(1000))


def hang() -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        pass


def main(limit: float = 1.0) -> None:
    faulthandler.dump_traceback_later(10 * limit, exit=True)  # the last resort
    watchdog = Watchdog(limit, interrupt_main)
    try:
        for work in [step, step, hang, step]:
            watchdog.feed()
            work()
    except KeyboardInterrupt:
        print("interrupted")
    finally:
        watchdog.stop()
        faulthandler.cancel_dump_traceback_later()


if __name__ == "__main__":
    main()
