"""Retries with exponential backoff and jitter that hold no thread while they wait.

A thousand calls that are waiting for their next attempt are a thousand armed timers, not a thousand sleeping threads.
"""

import random
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from math import inf
from typing import TypeVar

from timerheap import AfterFunc, TimerHeap

T = TypeVar("T")


def retry(
    func: Callable[[], T],
    *,
    attempts: int = 5,
    base: float = 0.1,
    cap: float = 10.0,
    jitter: Callable[[float, float], float] = random.uniform,
    heap: TimerHeap | None = None,
) -> "Future[T]":
    """Call func on the heap until it succeeds; at most so many times. Before attempt n + 1 it waits for
    jitter(0, d) seconds, where d doubles each time from base up to cap.

    The future has what func returned, or raised the last time. Its cancel() calls off what is to come.
    """
    future: Future[T] = Future()
    made = 0

    def attempt() -> None:
        nonlocal made
        made += 1
        try:
            result = func()
        except Exception as exc:  # noqa: BLE001 - it is for func's caller
            if made == attempts:
                with suppress(InvalidStateError):  # cancelled meanwhile
                    future.set_exception(exc)
            else:
                timer.reset(jitter(0, min(cap, base * 2 ** (made - 1))))
                if future.cancelled():  # before there was something to stop
                    timer.stop()
        else:
            with suppress(InvalidStateError):
                future.set_result(result)

    timer = AfterFunc(inf, attempt, heap=heap)  # not before it has a name
    future.add_done_callback(lambda _: timer.stop())
    timer.reset(0)
    return future


def main() -> None:
    failures = [ConnectionError("refused"), TimeoutError("no answer")]

    def ask() -> int:
        if failures:
            print("failed:", failures[0])
            raise failures.pop(0)
        return 42

    # Patience: an attempt that blocks keeps no other from its turn.
    with TimerHeap("retries", patience=0.01) as heap:
        print("answer:", retry(ask, base=0.05, heap=heap).result(timeout=30))


if __name__ == "__main__":
    main()
