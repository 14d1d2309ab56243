"""Virtual time for tests: a heap whose clock moves only when told.

>>> from timerheap import AfterFunc
>>> from timerheap.testing import use
>>> with use() as heap:
...     timer = AfterFunc(3600, print, "an hour later")
...     heap.advance(3600)
an hour later
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, TypeVar, cast, overload

from timerheap._core import ManualHeap, TimerHeap, swap_default_heap

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator
    from typing import Any

_Heap = TypeVar("_Heap", bound=TimerHeap)
_T = TypeVar("_T")

__all__ = ["ManualHeap", "run", "use"]

_LISTED = 10  # timers in a message


@overload
@contextmanager
def use(heap: None = None, *, strict: bool = True) -> Generator[ManualHeap]: ...
@overload
@contextmanager
def use(heap: _Heap, *, strict: bool = True) -> Generator[_Heap]: ...
@contextmanager
def use(heap: TimerHeap | None = None, *, strict: bool = True) -> Generator[TimerHeap]:
    """Make heap the default heap for the length of a with block, so that code which names no heap
    is driven by it. Without one it makes a ManualHeap, and closes it at the end of the block.

    strict: AssertionError at the end of the block, unless that is left by an exception, if timers are still armed on
    the heap, listing them: callbacks to come, slots of arrays, channel timers whose deadline has not come, and Tickers.

    Process-wide: other threads see it too. Timers armed before the block stay where they are. Once
    heap is closed, arming on the default heap raises RuntimeError until the block ends. TypeError
    for what is no TimerHeap.
    """
    if not isinstance(cast(object, heap), TimerHeap | None):
        got = "the class itself" if isinstance(heap, type) else type(heap).__name__
        raise TypeError(f"use() heap must be a TimerHeap, as in use(ManualHeap()), not {got}")
    used = ManualHeap() if heap is None else heap
    before = swap_default_heap(used, True)
    try:
        yield used
        if strict:
            refuse_armed(used)
    finally:
        swap_default_heap(*before)
        if heap is None:
            used.close()


def run(main: Coroutine[Any, Any, _T], *, debug: bool | None = None) -> _T:
    """asyncio.run(main, debug=debug) under virtual time: await asyncio.sleep(3600) takes none.

    On a timerheap.asyncio.EventLoop(heap=ManualHeap(auto=True)), and with that heap as the default one, so that
    channels are awaited and functions called on the same clock. It starts at 0. See EventLoop for what is waited for.
    """
    from asyncio import Runner

    from timerheap.asyncio import EventLoop

    with ManualHeap(auto=True) as heap, use(heap, strict=False):
        with Runner(debug=debug, loop_factory=partial(EventLoop, heap=heap)) as runner:
            return runner.run(main)


def refuse_armed(heap: TimerHeap) -> None:
    """AssertionError if timers are armed on that heap."""
    timers: list[object] = [timer for _, timer in heap.pending()]
    count = len(timers)
    others = "with a channel"
    if isinstance(heap, ManualHeap):
        arrays, channels = heap._others_armed()
        timers += [array for array, _ in arrays]
        count += sum(armed for _, armed in arrays) + channels
    else:
        channels = len(heap) - count
        count += channels
        others = "with a channel or of an array"
    if count == 0:
        return
    listed = [repr(timer) for timer in timers[:_LISTED]]
    if len(timers) > _LISTED:
        listed.append(f"{len(timers) - _LISTED} more")
    if channels:
        listed.append(f"{channels} {others}")
    at = f" at {heap.time()}" if isinstance(heap, ManualHeap) else ""
    raise AssertionError(
        f"timers are left armed on the heap {heap.name!r}{at}, {count} in all: {', '.join(listed)}. Stop them, "
        "advance() to them, close() the heap, or say use(strict=False)"
    )
