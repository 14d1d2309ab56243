"""The heap of an event loop, and select for coroutines: what timerheap.asyncio has of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from timerheap._core import loop_heap, loop_select

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from timerheap._core import Channel, TimerHeap, _Seconds


def heap(loop: AbstractEventLoop | None = None) -> TimerHeap:
    """The TimerHeap of the running event loop, or of the one that is given: asyncio's, uvloop's, or any other with
    their methods. Made on first use, and anew should it have been closed; closed with the loop.

    Its callbacks run in the loop's thread, each in an empty context unless it was given one. Arming is safe from every
    thread. What they raise is given to on_error, else to the loop's exception handler; KeyboardInterrupt and SystemExit
    leave the loop, as they do from its own callbacks. RuntimeError when no loop runs, or the given one is closed.
    """
    return loop_heap(loop)


async def select(*channels: Channel, timeout: _Seconds | None = None) -> tuple[Channel, float]:
    """timerheap.select for coroutines: receive from whichever channel is ready first, (channel, value). No thread
    waits. When it is cancelled, every value stays in its channel.
    """
    return await loop_select(channels, timeout)
