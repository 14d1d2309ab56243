"""The loops that the programs run on, and what tells that a loop's timers are timerheap's."""

import asyncio

import uvloop

import timerheap.asyncio

LOOPS = {
    "stock": asyncio.SelectorEventLoop,
    "timerheap": timerheap.asyncio.EventLoop,
    "timerheap-uvloop": timerheap.asyncio.loop_class(uvloop.Loop),
}


def timers_of(loop):
    """The native timers of a loop; None if it has none."""
    return getattr(loop, "_native_timers", None)


def armed(loop):
    """How many timers have been armed on them; None likewise."""
    timers = timers_of(loop)
    return None if timers is None else timers.stats()["arms"]
