"""asyncio's event loops with their timers on a native heap.

>>> import asyncio, timerheap.asyncio
>>> async def main():
...     async with asyncio.timeout(60):
...         await asyncio.sleep(0.001)
...     return "in time"
>>> timerheap.asyncio.run(main())
'in time'
"""

# An event loop's timers are a LoopTimers (core/loop_timers.pxi), which the loop has as _native_timers, and whose native
# call_at and call_later it has in its own dict, where a call finds them without a Python frame: unless a subclass has
# overridden one of the two; then the methods of the class are called, which end in the same. Here is the rest: what
# asks the heap for what is due, a selector's select() or a plan, and what is seldom.

from __future__ import annotations

import asyncio
import selectors
import sys
from asyncio import base_events, coroutines, events, exceptions, format_helpers, tasks, timeouts
from inspect import iscoroutinefunction
from threading import get_ident
from types import FunctionType, new_class
from typing import TYPE_CHECKING

from timerheap._core import EPOLL, LoopTimers, ManualHeap, Sleep, learn_asyncio, timeout, timeout_at
from timerheap._loop_heap import heap, select

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from contextvars import Context
    from types import FrameType
    from typing import Any, TypeVar, TypeVarTuple

    _T = TypeVar("_T")
    _Ts = TypeVarTuple("_Ts")
    _Loop = asyncio.BaseEventLoop
else:
    _Loop = object

__all__ = [
    "EventLoop",
    "heap",
    "loop_class",
    "new_event_loop",
    "run",
    "select",
    "sleep",
    "timeout",
    "timeout_at",
]

_TIME = base_events.BaseEventLoop.time  # asyncio's own
_LONGEST = 24 * 3600.0  # seconds of one wait: more than some systems take
_LEFT = 0.05  # seconds by which a loop that is being left has been


class _Timers(LoopTimers):
    """What is seldom asked of a loop's timers."""

    TimerHandle = events.TimerHandle
    thread: int | None = None  # in which the loop runs

    def report(self, handle: Any, exc: BaseException) -> None:
        """What a callback has raised, as asyncio's own handles tell it."""
        # Private, and its arguments have changed: asyncio's own handle makes the message.
        source = format_helpers._format_callback_source(handle._callback, handle._args or ())
        context = {"message": f"Exception in callback {source}", "exception": exc, "handle": handle}
        if handle._source_traceback:
            context["source_traceback"] = handle._source_traceback
        self.owner.call_exception_handler(context)

    def note_cancel(self, handle: Any) -> None:
        """For debug mode: a handle is about to be cancelled."""
        source, _, soon = handle._notes or (None, None, None)
        if soon is not None:
            soon.cancel()
        handle._notes = [source, repr(handle).replace(" ", " cancelled ", 1), None]

    def note_source(self, handle: Any) -> None:
        """For debug mode: where a handle was made."""
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and frame.f_code.co_filename == __file__:
            frame = frame.f_back
        handle._notes = [format_helpers.extract_stack(frame), None, None]

    def is_monotonic(self, method: object) -> bool:
        """Whether that method of the loop's class reads the clock of time.monotonic(), as asyncio's own does, and what
        is compiled, if it shows the same."""
        if method is _TIME:
            return True
        compiled = not isinstance(method, FunctionType) and hasattr(method, "__name__")  # which a mock has not
        return compiled and abs(self.owner.time() - _TIME(self.owner)) < 1

    def make_way(self) -> None:
        """Whoever puts another call_at or call_later into the loop's class means this loop as well."""
        kind: type[Any] = type(self.owner)  # pyright: ignore[reportUnknownVariableType]
        if issubclass(kind, _TimersOfLoop) and not _has_our_methods(kind):
            for name in ("call_at", "call_later"):
                if getattr(self.owner.__dict__.get(name), "__self__", None) is self:
                    del self.owner.__dict__[name]

    def check_call(self, method: str, callback: Any) -> None:
        """For debug mode."""
        if self.thread is not None and self.thread != get_ident():
            raise RuntimeError("Non-thread-safe operation invoked on an event loop other than the current one")
        if coroutines.iscoroutine(callback) or iscoroutinefunction(callback):
            raise TypeError(f"coroutines cannot be used with {method}()")
        if not callable(callback):
            raise TypeError(f"a callable object was expected by {method}(), got {callback!r}")


class _NoTimers:
    """Of a loop that is closed, or not yet made."""

    closed = True
    debug = planning = False
    thread: int | None = None

    def begin(self) -> None:
        pass

    end = close = begin


class _Call:
    """The call of a handle, by the name of its callback: the loop tells which was slow, the handle which has failed."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self.__qualname__ = getattr(handle._callback, "__qualname__", repr(handle._callback))

    def __call__(self) -> None:
        self._handle._run()


# ---- asked by a plan ------------------------------------------------------------------------------------------------


class _Planned(_Timers):
    """Asked by a callback of the loop's own, planned for the earliest deadline. What is armed earlier is planned for
    anew, in the loop's next iteration, once: it may be armed in great numbers.

    wait_for(deadline) says that nothing earlier is planned for; what is armed before that calls plan(), once.
    """

    planned: Any = None

    def __init__(self, base: type) -> None:
        self.base: Any = base  # its methods plan: what overrides them is for what programs arm
        self.exact = issubclass(base, base_events.BaseEventLoop)
        self.wait_for(float("inf"))

    def plan(self) -> None:
        if self.planned is None:
            self.ask()
            return
        try:
            self.owner.call_soon(self.replan)
        except BaseException:
            self.wait_for(float("inf"))  # who arms next asks again
            raise

    def replan(self) -> None:
        planned, self.planned = self.planned, None
        if planned is not None:
            try:
                planned.cancel()
            finally:
                self.ask()

    def ask(self, least: float = 0.0) -> None:
        """Have wake() called in time, and in so many seconds at least."""
        loop, base = self.owner, self.base
        deadline = self.next_deadline()
        self.wait_for(deadline)
        if deadline == float("inf"):
            return
        self.planning = True
        try:
            if deadline == float("-inf") and not least:
                self.planned = loop.call_soon(self.wake)
            elif self.exact:
                now = loop.time()
                self.planned = base.call_at(loop, min(max(deadline, now + least), now + _LONGEST), self.wake)
            else:
                self.planned = base.call_later(loop, min(max(deadline - loop.time(), least), _LONGEST), self.wake)
        except BaseException:
            self.wait_for(float("inf"))
            raise
        finally:
            self.planning = False

    def wake(self) -> None:
        self.planned = None
        self.wait_for(float("-inf"))  # until ask() has planned anew
        # Loops come early: asyncio's by what its clock is fine, and others count in milliseconds. To ask these for what
        # is left would be to spin.
        least = 0.0 if self.due() else 2e-9 if self.exact else 0.001
        try:
            if self.debug:
                self.fire_watched()
            else:
                self.fire()
        except (KeyboardInterrupt, SystemExit):
            least = _LEFT
            raise
        finally:
            self.ask(least)

    def close(self) -> None:
        self.planned = None
        super().close()

    def fire_watched(self) -> None:
        """In debug mode: each callback by itself, for the loop to name the slow ones."""
        for handle in self.take():
            soon = self.owner.call_soon(_Call(handle))
            handle._notes = [handle._source_traceback, None, soon]


# ---- asked by a selector --------------------------------------------------------------------------------------------


class _Watched:
    """In debug mode: each handle by itself, for the loop to name the slow ones."""

    _cancelled = False
    _callback = None  # the loop names it by, where this itself has been slow

    def __init__(self, timers: LoopTimers) -> None:
        self._timers = timers

    def __repr__(self) -> str:
        return f"<timers of {self._timers.owner!r}>"

    def _run(self) -> None:
        for handle in self._timers.take():
            self._timers.owner._add_callback(handle)


def _timers_event(timers: LoopTimers) -> list[tuple[selectors.SelectorKey, int]]:
    """What select() says of a heap where something is due: to the loop it is a file to be read, whose handler calls
    it. Programs that have put something else in the place of what hears that, as tests do, have it called soon."""
    no_file: Any = None
    handler: Any = _Watched(timers) if timers.debug else timers
    if timers.announced:
        timers.owner.call_soon(handler._run)
        return []
    timers.announced = True
    return [(selectors.SelectorKey(no_file, -1, selectors.EVENT_READ, (handler, None)), selectors.EVENT_READ)]


class _AnySelector(selectors.BaseSelector):
    """A selector that waits for another, and for a loop's timers: as precisely as that one does."""

    def __init__(self, timers: LoopTimers, selector: selectors.BaseSelector) -> None:
        self._timers = timers
        self._selector = selector

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._selector.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._selector.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._selector.modify(fileobj, events, data)

    def select(self, timeout: float | None = None) -> list[Any]:
        deadline = self._timers.next_deadline()
        if deadline < float("inf"):
            left = min(max(deadline - self._timers.owner.time(), 0.0), _LONGEST)
            timeout = left if timeout is None else min(timeout, left)
        ready = self._selector.select(timeout)
        return [*ready, *_timers_event(self._timers)] if self._timers.due() else ready

    def get_map(self) -> Any:
        return self._selector.get_map()

    def close(self) -> None:
        self._selector.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._selector, name)


class _VirtualSelector(_AnySelector):
    """Of a loop under virtual time. Where the loop has nothing to do and no file is ready, the heap's clock goes on to
    what is next, of the loop's timers and on the heap. It stands still while a job is at work: one that an executor
    has and that does not wait on the heap itself. Where nothing is next this is a selector as any other."""

    def __init__(
        self, timers: LoopTimers, selector: selectors.BaseSelector, heap: ManualHeap, jobs: set[object]
    ) -> None:
        super().__init__(timers, selector)
        self._heap = heap
        self._jobs = jobs

    def select(self, timeout: float | None = None) -> list[Any]:
        timers = self._timers
        ready = self._selector.select(0)
        if not ready and (timeout is None or timeout > 0) and not timers.due():
            ready = self._wait(timeout)
        return [*ready, *_timers_event(timers)] if timers.due() else ready

    def _wait(self, timeout: float | None) -> list[Any]:
        while len(self._jobs) > self._heap._threads_waiting():
            ready = self._selector.select(0.001)  # the end of a job is an event, that it waits is none
            if ready:
                return ready
        if self._heap._go_on(self._timers.next_deadline()):
            return []
        return self._selector.select(timeout)


if EPOLL:

    class _EpollSelector(selectors.EpollSelector):
        """The system's, which waits for a loop's timers as well, to the nanosecond."""

        def __init__(self, timers: LoopTimers) -> None:
            super().__init__()
            self._timers = timers
            self._file = self.fileno()
            self._by_file: dict[int, selectors.SelectorKey] = {}

        def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
            key = super().register(fileobj, events, data)
            self._by_file[key.fd] = key
            return key

        def unregister(self, fileobj: Any) -> selectors.SelectorKey:
            key = super().unregister(fileobj)
            self._by_file.pop(key.fd, None)
            return key

        def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
            key = super().modify(fileobj, events, data)
            self._by_file[key.fd] = key
            return key

        def close(self) -> None:
            super().close()
            self._file = -1

        def select(self, timeout: float | None = None) -> list[Any]:
            if self._file < 0:
                self.fileno()  # which says that it is closed
            timers = self._timers
            ready = timers.select(self._file, self._by_file, timeout)
            if timers.due():
                ready.extend(_timers_event(timers))
            return ready


def _selector_for(timers: LoopTimers, selector: selectors.BaseSelector | None) -> selectors.BaseSelector:
    if selector is not None:
        return _AnySelector(timers, selector)
    best: type = selectors.DefaultSelector
    if EPOLL and best is selectors.EpollSelector:
        return _EpollSelector(timers)
    return _AnySelector(timers, best())


# ---- loops ----------------------------------------------------------------------------------------------------------


class _TimersOfLoop(_Loop):
    """Before a class of loops among the bases of another: its timers are the LoopTimers that an instance has as
    _native_timers before anything else."""

    _native_timers: Any = _NoTimers()

    def _attach_timers(self) -> None:
        timers = self._native_timers
        timers.attach(self, self.__dict__, base_events)
        timers.debug = self.get_debug()
        if _has_our_methods(type(self)):
            self.__dict__.update(zip(("call_at", "call_later"), timers.methods(), strict=True))

    def call_later(
        self, delay: float, callback: Callable[[*_Ts], object], *args: *_Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        if self._native_timers.planning:
            return super().call_later(delay, callback, *args, context=context)
        if delay is None:
            raise TypeError("delay must not be None")
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[*_Ts], object], *args: *_Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        timers = self._native_timers
        if timers.planning:
            return super().call_at(when, callback, *args, context=context)
        if when is None:
            raise TypeError("when cannot be None")
        if timers.closed:
            raise RuntimeError("Event loop is closed")
        if timers.debug:
            timers.check_call("call_at", callback)
        handle: asyncio.TimerHandle = timers.arm(when, callback, args, context)
        if timers.debug:
            timers.note_source(handle)
        return handle

    def set_debug(self, enabled: bool) -> None:
        super().set_debug(enabled)
        if not self._native_timers.closed:
            self._native_timers.debug = enabled

    def run_forever(self) -> None:
        timers = self._native_timers
        before, timers.thread = timers.thread, get_ident()
        timers.begin()
        try:
            super().run_forever()
        finally:
            timers.end()
            timers.thread = before

    def close(self) -> None:
        super().close()
        self._native_timers.close()
        for name in ("_native_timers", "call_at", "call_later"):  # and with them the cycle that they are part of
            self.__dict__.pop(name, None)


_CALL_AT: object = _TimersOfLoop.call_at
_CALL_LATER: object = _TimersOfLoop.call_later


def _has_our_methods(kind: type[_TimersOfLoop]) -> bool:
    return kind.call_at is _CALL_AT and kind.call_later is _CALL_LATER


class _PlannedLoop(_TimersOfLoop):
    """What loop_class() puts before a class of loops."""

    _native_base: type

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._native_timers = _Planned(self._native_base)
        super().__init__(*args, **kwargs)
        self._attach_timers()


class EventLoop(_TimersOfLoop, asyncio.SelectorEventLoop):
    """asyncio.SelectorEventLoop with its timers on a native heap.

    For asyncio.run(main(), loop_factory=EventLoop) and asyncio.Runner(loop_factory=EventLoop). call_at and call_later,
    and with them asyncio's sleep, timeout and wait_for, take a fifth of the time or less; a cancelled timer is gone at
    once; the garbage collector does not see what is pending; deadlines are kept to the nanosecond, and none is early.
    selector: another one than the system's best; deadlines are as precise as that then.

    heap, a ManualHeap(auto=True), for tests: the loop is under its time. When nothing else is to be done the clock goes
    on at once to the next deadline, of the loop's timers and on the heap, whose callbacks run in the loop's thread;
    what one of them raises leaves the loop. heap(loop) is that heap, which the loop does not close. Jobs of
    run_in_executor and to_thread are waited for meanwhile, but where they wait on the heap themselves. What comes from
    outside is not, files, sockets and other processes: it takes its time where no timer is pending, and else is late.
    Channels of a heap on real time are not to be awaited there.
    """

    _jobs: set[object] | None = None  # under virtual time: what executors have

    def __init__(self, selector: selectors.BaseSelector | None = None, *, heap: ManualHeap | None = None) -> None:
        self._native_timers = timers = _Timers()
        if heap is None:
            super().__init__(_selector_for(timers, selector))
        else:
            if not isinstance(heap, ManualHeap) or not heap.auto:
                self.__dict__["_closed"] = True  # as its __del__ asks
                raise TypeError(f"EventLoop() heap must be a ManualHeap(auto=True), not {heap!r}")
            self._jobs = set()
            self.__dict__.update(time=heap.time, _timerheap_manual=heap)
            super().__init__(_VirtualSelector(timers, selector or selectors.DefaultSelector(), heap, self._jobs))
        self._attach_timers()

    def run_in_executor(self, executor: Any, func: Callable[[*_Ts], Any], *args: *_Ts) -> asyncio.Future[Any]:
        future = super().run_in_executor(executor, func, *args)
        if self._jobs is not None:
            self._jobs.add(future)
            future.add_done_callback(self._jobs.discard)
        return future

    async def shutdown_default_executor(self, *args: Any, **kwargs: Any) -> None:
        job = object()
        jobs: set[object] = set() if self._jobs is None else self._jobs
        jobs.add(job)
        try:
            await super().shutdown_default_executor(*args, **kwargs)
        finally:
            jobs.discard(job)


def loop_class(base: type[Any]) -> type[Any]:
    """A subclass of an event loop class, as uvloop.Loop, with its timers on a native heap. Public methods of base are
    all that is used, so it may be any. Of one that has such timers it is the class itself.

    TypeError for what is no class of event loops.
    """
    needed = ("call_later", "call_soon", "run_forever")
    if not isinstance(base, type) or not all(hasattr(base, name) for name in needed):
        raise TypeError(f"loop_class() base must be a class of event loops, not {base!r}")
    if issubclass(base, _TimersOfLoop):
        return base
    attributes = {"_native_base": base, "__module__": __name__, "__qualname__": f"loop_class({base.__qualname__})"}
    return new_class(base.__name__, (_PlannedLoop, base), {}, lambda names: names.update(attributes))


# ---- waiting in a task, on any loop ----------------------------------------------------------------------------------

_kept: list[_Planned] = []      # by us, as their loop has no attributes to do so


def _timers_for(loop: Any) -> LoopTimers:
    """Those of a loop of another class, which are planned for by its own call_later. It keeps them."""
    timers = next((kept for kept in _kept if kept.owner is loop), None)
    if timers is not None:
        return timers
    timers = _Planned(type(loop))  # pyright: ignore[reportUnknownArgumentType]
    timers.attach(loop, getattr(loop, "__dict__", {}), base_events)
    try:
        loop._native_timers = timers
    except AttributeError:
        _kept[:] = [kept for kept in _kept if not kept.owner.is_closed()]
        _kept.append(timers)
    return timers


sleep = Sleep.sleep
learn_asyncio(events, tasks, timeouts, exceptions, _timers_for)


def new_event_loop() -> EventLoop:
    """EventLoop()"""
    return EventLoop()


def run(main: Coroutine[Any, Any, _T], *, debug: bool | None = None) -> _T:
    """asyncio.run(main, debug=debug) on an EventLoop."""
    with asyncio.Runner(debug=debug, loop_factory=EventLoop) as runner:
        return runner.run(main)
