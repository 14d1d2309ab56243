"""Programs as users type them: `make types` has mypy and pyright look at them, both strict, and nobody runs them.

A line with `type: ignore` is one that both must call an error.
"""

# pyright: reportUnnecessaryTypeIgnoreComment=true

import array
import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any, assert_type

import timerheap.asyncio
import timerheap.testing
import timerheap.threading
from timerheap import (
    AfterFunc,
    Channel,
    Ticker,
    Timer,
    TimerArray,
    TimerHeap,
    after,
    every,
    select,
    sleep,
    tick,
)
from timerheap.testing import ManualHeap, use


def greet(name: str, times: int) -> None:
    print(name, times)


# What the c of a Timer is depends on who has made it.


def function_timers_have_no_channel() -> None:
    assert_type(AfterFunc(1, print), Timer[None])
    assert_type(AfterFunc(1, print).c, None)
    assert_type(every(1, print).c, None)
    AfterFunc(1, print).c.recv()  # type: ignore[attr-defined]
    every(1, print).c.poll()  # type: ignore[attr-defined]
    for _, timer in TimerHeap().pending():
        assert_type(timer.c, None)


def channel_timers_have_one() -> None:
    timer = Timer(1)
    assert_type(timer, Timer[Channel])
    assert_type(timer.c.recv(), float)
    assert_type(timer.c.poll(), float | None)
    timer.c.send(1)  # type: ignore[attr-defined]


def of_one_kind(timer: Timer[Channel]) -> float:
    return timer.c.recv(timeout=3)


def only_that_kind() -> None:
    of_one_kind(Timer(1))
    of_one_kind(AfterFunc(1, print))  # type: ignore[arg-type]


# A plain Timer is any of them.


class Session:
    timer: Timer | None = None
    timers: list[Timer]

    def __init__(self) -> None:
        self.timers = []

    def touch(self) -> None:
        if self.timer is None or not self.timer.postpone(30):
            self.timer = AfterFunc(30, self.expire)
        self.timers.append(self.timer)
        self.timers.append(Timer(1))

    def expire(self) -> None:
        stop_all(self.timers)


def stop_all(timers: list[Timer]) -> int:
    return sum(timer.stop() for timer in timers)


def lists_of_either_kind() -> None:
    stop_all([AfterFunc(1, print), Timer(1)])
    functions = [AfterFunc(1, print)]
    stop_all(functions)
    channels = [Timer(1)]
    stop_all(channels)
    by_name: dict[str, Timer] = {"a": AfterFunc(1, print), "b": Timer(1)}
    pending: list[tuple[float, Timer]] = TimerHeap().pending()
    print(by_name, pending)


def either_kind(timer: Timer) -> None:
    if timer.c is not None:
        timer.c.recv()


def made_by(factory: Callable[[], Timer]) -> Timer:
    return factory()


def from_factories() -> None:
    made_by(lambda: AfterFunc(1, print))
    made_by(lambda: Timer(1))


def told_apart(thing: Timer | Ticker | None) -> bool:
    if isinstance(thing, Timer):
        return thing.stop()
    return thing is None


# Arguments.


def functions_get_their_arguments() -> None:
    AfterFunc(1, greet, "you", 2)
    every(timedelta(seconds=1), greet, "you", 2)
    AfterFunc(1, greet, "you")  # type: ignore[arg-type]
    AfterFunc(1, greet, 2, "you")  # type: ignore[arg-type]
    AfterFunc("1", print)  # type: ignore[arg-type]


def fields() -> None:
    timer = AfterFunc(1, print)
    assert_type(timer.when, float | None)
    assert_type(timer.period, float | None)
    assert_type(timer.active, bool)
    assert_type(timer.heap, TimerHeap)
    assert_type(timer.args, tuple[Any, ...])
    timer.when = 3.0  # type: ignore[misc]


def heaps() -> None:
    def report(exc: BaseException, timer: Timer) -> None:
        print(exc, timer)

    with ThreadPoolExecutor() as executor, TimerHeap("mine", executor=executor, on_error=report, patience=1) as heap:
        AfterFunc(1, print, heap=heap)
        assert_type(heap.stats()["fired"], int)
        heap.on_error = None
        print(after(1, heap=heap), Ticker(1, heap=heap))


# Channels.


def channels() -> None:
    channel, value = select(after(1), tick(2), timeout=3)
    assert_type(channel, Channel)
    assert_type(value, float)
    with Ticker(0.5) as ticker:
        for at in ticker:
            assert_type(at, float)
            break
    sleep(0.1)
    select(Timer(1))  # type: ignore[arg-type]


async def coroutines() -> None:
    assert_type(await after(1), float)
    async for at in Ticker(1):
        assert_type(at, float)
        break
    channel, _ = await timerheap.asyncio.select(after(1), after(2))
    assert_type(channel, Channel)
    async with timerheap.asyncio.timeout(1):
        assert_type(await timerheap.asyncio.sleep(1, "slept"), str)
    AfterFunc(1, print, heap=timerheap.asyncio.heap())


async def answer() -> int:
    return 42


def event_loops() -> None:
    assert_type(timerheap.asyncio.run(answer()), int)
    assert_type(timerheap.testing.run(answer()), int)
    with asyncio.Runner(loop_factory=timerheap.asyncio.EventLoop) as runner:
        assert_type(runner.run(answer()), int)


# Timers by number.


def arrays() -> None:
    def expired(slots: memoryview[int]) -> None:
        print(list(slots))

    def expired_one(slot: int) -> None:
        print(slot)

    timers = TimerArray(100, expired)
    TimerArray(100, expired_one, each=True)
    TimerArray(100, expired, each=True)  # type: ignore[call-overload]
    assert_type(timers.reset(1, 2.0), bool)
    assert_type(timers.reset(range(3), 2.0), int)
    assert_type(timers.reset(array.array("I", [1, 2]), [1.0, 2.0]), int)
    assert_type(timers.when(3), float | None)
    assert_type(timers.when(), "array.array[float]")
    assert_type(timers.active([1, 2]), bytes)


# Tests, and threading.Timer's place.


def virtual_time() -> None:
    with use() as heap:
        assert_type(heap, ManualHeap)
        heap.advance(3)
        assert_type(heap.advance_to_next(), float | None)
    with use(TimerHeap()) as real:
        assert_type(real, TimerHeap)


def threading_timer() -> None:
    timer = timerheap.threading.Timer(1, greet, args=("you", 2))
    timer.start()
    timer.cancel()
