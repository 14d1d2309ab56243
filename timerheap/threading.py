"""threading.Timer for programs with many of them: the same class, on a heap instead of a thread each.

>>> from timerheap.threading import Timer
>>> timer = Timer(30.0, print, ["too late"])
>>> timer.start()
>>> timer.cancel()

`install()` puts it in the place of `threading.Timer`, `uninstall()` takes it away.

What is pending has no thread: `ident` is None until the function runs, and `threading.enumerate()` has the timer only
while it runs. Then it is the `current_thread()`, under its own name, on a worker that is shared: what a function leaves
in a `threading.local` the next one finds there. A function that blocks for longer than 10 ms costs a thread as long as
it does, and its neighbours no more than that.
"""

# How a Timer is a Thread without one.
#
# Timer inherits from threading.Timer, so that isinstance() and annotations hold, and calls Thread.__init__ only where a
# real thread is needed (see _th_needs_thread): its locks and events are most of what a threading.Timer weighs. What
# threading keeps of each thread is here made when it is first asked for: args, kwargs, finished, what join() waits for.
#
#   _th_phase    None          not started
#                _home         started, in this process: pending or running. In the child of a fork _home is another
#                              object, and with that whatever the parent had started is dead, at no cost
#                _OWN          started, with a thread of its own: all that follows is Thread's
#                _ENDED        over
#   _th_timer    the handle while pending or running: whoever gets True from its stop() ends the timer, else _th_fire
#   _th_finished None: finished is not set, nobody has looked; True: set, nobody has looked; else the event
#   _th_ended    the event that join() waits for, once somebody does
#
# Changes are made under _home.lock, which is held for some bytecodes at a time, and for an arming. It is an RLock, as
# a finalizer or a signal handler may cancel a timer in the midst of that. No function is called under it, and no event
# set that is the timer's.
#
# Exit. Non-daemon timers are counted. When threading begins to wait for its threads, and from then on, a real
# non-daemon thread stands for them as long as there are any, and threading waits for that one. A thread that is started
# only then costs nothing before, and covers what the last threads and the last timers start while they are waited for.

import contextvars
import os
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from threading import ExceptHookArgs, current_thread
from typing import Any, Final, NoReturn, SupportsFloat, SupportsIndex, cast
from weakref import ref

from timerheap._core import AfterFunc, TimerHeap, be_watched, listed_threads
from timerheap._core import Timer as _Handle

__all__ = ["Timer", "install", "uninstall"]

_OWN: Final = object()
_ENDED: Final = object()
_UNSET: Final[Any] = object()
_NEVER: Final = float("inf")
_CONTEXTS_ARE_INHERITED: Final = bool(getattr(sys.flags, "thread_inherit_context", False))  # of Python 3.14

_Standard = threading.Timer
_standard_run = _Standard.run
_newname: Callable[[str], str] = threading._newname  # type: ignore[attr-defined]

_heap: Final = TimerHeap("threading.Timer", patience=0.01)


class _Home:
    """The timers of one process."""

    lock: threading.RLock

    def __init__(self) -> None:
        self.ready = False  # the worker has been started, and is listed
        self.keeping = 0  # non-daemon timers that are pending or running
        self.leaving = False  # threading waits for its non-daemon threads
        self.idle: threading.Event | None = None  # set when keeping is 0 again; there is a keeper then

    def __getattr__(self, name: str) -> Any:
        """The lock, when it is first wanted: eventlet complains of every RLock that was there before it."""
        if name != "lock":
            raise AttributeError(name)
        return self.__dict__.setdefault(name, threading.RLock())

    def make_ready(self) -> None:
        """Under lock: start the worker, before there is anything that it could fire. Who starts it puts it in
        threading's list afterwards, and must not find a timer in its place there."""
        if not self.ready:
            AfterFunc(_NEVER, _nothing, heap=_heap).stop()
            self.ready = True

    def keep(self) -> None:
        """Under lock: one more that the program waits for. RuntimeError when that takes a thread, which is refused."""
        if self.leaving and self.idle is None:
            idle = threading.Event()
            _keep_waiting(idle)
            self.idle = idle
        self.keeping += 1

    def let_go(self) -> threading.Event | None:
        """Under lock: one less. The event that the caller has to set, without the lock."""
        idle = None
        self.keeping -= 1
        if self.keeping == 0:
            idle, self.idle = self.idle, None
        return idle

    def wait(self, ended: threading.Event, timeout: float | None) -> None:
        """For the end of a timer. Who joins it in a finalizer may have interrupted itself under the lock, which that
        timer needs to end: it is as it would be between any two finalizers, and is given up meanwhile."""
        lock: Any = self.lock
        if not lock._is_owned():
            ended.wait(timeout)
            return
        depth = lock._release_save()
        try:
            ended.wait(timeout)
        finally:
            lock._acquire_restore(depth)

    def leave(self) -> None:
        """The program has come to its end, and waits for its threads from now on."""
        with self.lock:
            self.leaving = True
            if self.keeping == 0:
                return
            idle = self.idle = threading.Event()
        try:
            _keep_waiting(idle)
        except RuntimeError:  # no Python from 3.12.0 to 3.12.2 starts one that late
            idle.wait()


def _keep_waiting(idle: threading.Event) -> None:
    """Make threading wait at the end of the program until idle is set."""
    threading.Thread(target=idle.wait, name="threading.Timer keeper", daemon=False).start()


_home = _Home()


def _nothing() -> None:
    pass


class _Finished(threading.Event):
    """Timer.finished: an event whose set() ends the wait of a timer that has no thread to wait in."""

    def __init__(self, timer: "Timer", is_set: bool) -> None:
        super().__init__()
        if is_set:
            super().set()
        self._timer = ref(timer)

    def belongs_to(self, timer: "Timer") -> bool:
        return self._timer() is timer

    def set(self) -> None:
        super().set()
        timer = self._timer()
        if timer is not None:
            timer._th_woken()


class Timer(_Standard):
    """Call function(*args, **kwargs) after interval seconds, as threading.Timer does, with no thread of its own.

    It is a threading.Thread in all but the thread. A subclass that overrides `run` gets a real one, and so does a timer
    whose `finished` has been replaced before the start.

    interval is read by start(): an int or a float, a Decimal, a Fraction, a timedelta; None and inf wait until the
    timer is cancelled. What is none of these goes to threading.excepthook, as it does with a thread. function, args and
    kwargs are read at the end of the wait. Timers can be neither copied nor pickled.
    """

    _initialized = False
    _name: str
    _daemonic: bool
    _ident: int | None = None
    _native_id: int | None = None
    _stderr = sys.__stderr__  # where threading.excepthook writes when there is no sys.stderr

    _th_phase: object = None
    _th_timer: _Handle | None = None
    _th_finished: Any = None
    _th_ended: threading.Event | None = None
    _th_args: Any = _UNSET
    _th_kwargs: Any = _UNSET

    interval: Any
    function: Callable[..., Any]

    def __init__(
        self,
        interval: SupportsFloat | SupportsIndex | timedelta | None,
        function: Callable[..., object],
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        timer = self._th_timer
        if timer is not None:  # made anew by another __init__, the way some restart a thread
            timer.stop()
            self._th_end(timer)
        # All of them here, also where the class has the same: an object whose first values are fewer than those of its
        # whole life gets a dictionary of its own, which weighs as much as all the rest.
        self._th_phase = self._th_timer = self._th_finished = self._th_ended = self._ident = self._native_id = None
        self._th_args = _UNSET if args is None else args
        self._th_kwargs = _UNSET if kwargs is None else kwargs
        self._name = _newname("Thread-%d")
        self._daemonic = current_thread().daemon
        self._initialized = True
        self.interval = interval
        self.function = function

    # ---- attributes ---------------------------------------------------------------------------------------------

    @property
    def args(self) -> Any:
        """What function is called with: a list of the timer's own unless one was given."""
        if self._th_args is _UNSET:
            with _home.lock:
                if self._th_args is _UNSET:
                    self._th_args = []
        return self._th_args

    @args.setter
    def args(self, args: Any) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        self._th_args = args

    @property
    def kwargs(self) -> Any:
        """The keywords that function is called with: a dict of the timer's own unless one was given."""
        if self._th_kwargs is _UNSET:
            with _home.lock:
                if self._th_kwargs is _UNSET:
                    self._th_kwargs = {}
        return self._th_kwargs

    @kwargs.setter
    def kwargs(self, kwargs: Any) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        self._th_kwargs = kwargs

    @property
    def finished(self) -> threading.Event:
        """An event, set by cancel() and after the function has returned. To set it is to cancel."""
        with _home.lock:
            event = self._th_finished
            if event is None or event is True:
                event = self._th_finished = _Finished(self, event is True)
        return cast(threading.Event, event)

    @finished.setter
    def finished(self, event: threading.Event) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        self._th_finished = event

    @property
    def daemon(self) -> bool:
        """Whether the program ends without waiting for this timer. By default as the thread that made it; RuntimeError
        to set it after the start."""
        assert self._initialized, "Thread.__init__() not called"
        return self._daemonic

    @daemon.setter
    def daemon(self, daemonic: bool) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        if not self._initialized:
            raise RuntimeError("Thread.__init__() not called")
        if self._th_phase is not None:
            raise RuntimeError("cannot set daemon status of active thread")
        self._daemonic = daemonic

    def __repr__(self) -> str:
        if self._th_phase is _OWN or not self._initialized:
            return super().__repr__()
        state = "initial" if self._th_phase is None else "started" if self.is_alive() else "stopped"
        daemon = " daemon" if self._daemonic else ""
        ident = "" if self._ident is None else f" {self._ident}"
        return f"<{type(self).__name__}({self._name}, {state}{daemon}{ident})>"

    def __getstate__(self) -> NoReturn:
        raise TypeError(f"cannot pickle '{type(self).__name__}' object: a timer can be neither copied nor pickled")

    # ---- what a thread can do -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to wait. RuntimeError the second time, and where a thread is needed and refused."""
        if not self._initialized:
            raise RuntimeError("thread.__init__() not called")
        with _home.lock:
            if self._th_phase is not None:
                raise RuntimeError("threads can only be started once")
            if not self._th_needs_thread():
                self._th_arm()
                return
            self._th_phase = _OWN
        try:
            self._th_start_thread()
        except BaseException:
            self._th_phase = None
            raise

    def cancel(self) -> None:
        """Call the timer off if its function has not begun."""
        if type(self).finished is not Timer.finished:
            super().cancel()
            return
        with _home.lock:
            event = self._th_finished
            if event is None:
                self._th_finished = True
        if event is None or event is True:
            self._th_woken()
        else:
            event.set()

    def is_alive(self) -> bool:
        """Whether the timer is pending or running."""
        assert self._initialized, "Thread.__init__() not called"
        if self._th_phase is _OWN:
            return super().is_alive()
        return self._th_phase is _home

    def join(self, timeout: float | None = None) -> None:
        """Wait until the timer has run, or has been cancelled, for timeout seconds at most. RuntimeError before the
        start, and in the timer's own function."""
        if not self._initialized:
            raise RuntimeError("Thread.__init__() not called")
        if self._th_phase is None:
            raise RuntimeError("cannot join thread before it is started")
        if self._th_phase is _OWN:
            super().join(timeout)
            return
        if timeout is not None:
            timeout = max(timeout, 0)
        with _home.lock:
            if self._th_phase is not _home:
                if self is current_thread():
                    raise RuntimeError("cannot join current thread")
                return
            if self is current_thread() or self._ident == threading.get_ident():
                raise RuntimeError("cannot join current thread")
            ended = self._th_ended
            if ended is None:
                ended = self._th_ended = threading.Event()
        _home.wait(ended, timeout)

    # Around a fork threading puts the locks of its threads in order. There are some where Thread.__init__ was called.

    def _th_around_fork(self, name: str, *args: Any) -> None:
        if hasattr(self, "_started"):
            getattr(super(), name)(*args)

    def _after_fork(self, new_ident: int | None = None) -> None:
        self._th_around_fork("_after_fork", new_ident)

    def _reset_internal_locks(self, is_alive: bool) -> None:
        self._th_around_fork("_reset_internal_locks", is_alive)

    def _stop(self) -> None:
        self._th_around_fork("_stop")

    # ---- how it is done -----------------------------------------------------------------------------------------

    def _th_needs_thread(self) -> bool:
        """Whether somebody else's code is to wait, which takes a thread to do it in."""
        event = self._th_finished
        return (
            getattr(self.run, "__func__", None) is not _standard_run
            or type(self).finished is not Timer.finished
            or not (event is None or event is True or (isinstance(event, _Finished) and event.belongs_to(self)))
        )

    def _th_start_thread(self) -> None:
        started = getattr(self, "_started", None)
        if started is None or started.is_set():  # else a subclass has called Thread.__init__ itself
            threading.Thread.__init__(self, name=self._name, daemon=self._daemonic)
        super().start()

    def _th_arm(self) -> None:
        """Under the lock: as start()."""
        home = _home
        if self._th_is_set():
            self._th_phase = _ENDED  # its thread would look at finished, and leave
            return
        home.make_ready()
        if not self._daemonic:
            home.keep()
        self._th_phase = home
        context = contextvars.copy_context() if _CONTEXTS_ARE_INHERITED else None
        interval = _NEVER if self.interval is None else self.interval
        try:
            try:
                self._th_timer = AfterFunc(interval, Timer._th_fire, self, context=context, heap=_heap)
            except (TypeError, ValueError, ArithmeticError) as exc:
                exc.add_note(f"The delay is the interval of {self!r}.")
                self._th_timer = AfterFunc(0, Timer._th_fire, self, exc, context=context, heap=_heap)
        except BaseException:
            self._th_phase = None
            idle = None if self._daemonic else home.let_go()
            if idle is not None:
                idle.set()
            raise
        if self._th_is_set():
            self._th_woken()

    def _th_is_set(self) -> bool:
        event = self._th_finished
        return event is not None and (event is True or event.is_set())

    def _th_woken(self) -> None:
        """finished has been set: the wait is over. Its thread would look at finished now, which may have been replaced
        by another event since then."""
        with _home.lock:
            timer = self._th_timer
            if timer is None or not timer.stop():
                return
            if not self._th_is_set():
                timer.reset(0)
                return
        self._th_end(timer)

    def _th_end(self, timer: _Handle | None) -> None:
        """It is over. For whoever got True from the handle's stop(), or for its launch."""
        idle = None
        with _home.lock:
            if self._th_timer is not timer:
                return
            counted = self._th_phase is _home and not self._daemonic
            self._th_phase = _ENDED
            self._th_timer = None
            ended, self._th_ended = self._th_ended, None
            if counted:
                idle = _home.let_go()
        if ended is not None:
            ended.set()
        if idle is not None:
            idle.set()

    def _th_fire(self, error: Exception | None = None) -> None:
        """On the worker: be the current thread, and do what its run() would do at the end of the wait."""
        with _home.lock:  # start() has it until it knows the handle
            timer = self._th_timer
        listed = listed_threads()
        ident = threading.get_ident()
        worker = listed.get(ident)
        self._ident = ident
        self._native_id = threading.get_native_id()
        listed[ident] = self
        try:
            be_watched()
            if error is not None:
                _report(self, error)
            elif not self._th_is_set():
                self.function(*self.args, **self.kwargs)
            if error is None:
                Timer.cancel(self)
        except BaseException as exc:  # noqa: BLE001 - all of them, as in a thread
            _report(self, exc)
        finally:
            error = None
            if listed.get(ident) is self:  # else a fork has made the main thread of this one
                if worker is None:
                    del listed[ident]
                else:
                    listed[ident] = worker
            self._th_end(timer)


# ---- on the worker ---------------------------------------------------------------------------------------------------


def _report(timer: Timer, exc: BaseException) -> None:
    """Hand exc to threading.excepthook, and to sys.excepthook what that raises."""
    try:
        threading.excepthook(ExceptHookArgs((type(exc), exc, exc.__traceback__, timer)))
    except SystemExit:
        pass
    except BaseException as exc:  # noqa: BLE001 - of the hook nobody else hears
        exc.__suppress_context__ = True
        if sys.stderr is not None:
            print("Exception in threading.excepthook:", file=sys.stderr, flush=True)
        sys.excepthook(type(exc), exc, exc.__traceback__)


# ---- fork ------------------------------------------------------------------------------------------------------------


class _Forking(threading.local):
    timer: Timer | None = None


_forking = _Forking()


def _before_fork() -> None:
    """A function of a timer forks: its thread will be the main thread of the child, which threading makes of a thread
    that it does not know."""
    listed = listed_threads()
    timer = listed.get(threading.get_ident())
    _forking.timer = timer if isinstance(timer, Timer) and timer._th_phase is _home else None
    if _forking.timer is not None:
        del listed[threading.get_ident()]


def _after_fork_in_parent() -> None:
    timer, _forking.timer = _forking.timer, None
    if timer is not None:
        listed_threads()[threading.get_ident()] = timer


def _after_fork_in_child() -> None:
    """Of the timers only the one whose function has forked lives on."""
    global _home
    timer, _forking.timer = _forking.timer, None
    _home = _Home()
    if timer is not None:
        timer._th_phase = _home
        timer._native_id = threading.get_native_id()
        timer._th_ended = None
        if not timer._daemonic:
            _home.keeping = 1


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)


# ---- exit ------------------------------------------------------------------------------------------------------------


def _leave() -> None:
    _home.leave()


threading._register_atexit(_leave)  # type: ignore[attr-defined]


# ---- under threading's name ------------------------------------------------------------------------------------------

_install_lock = threading.Lock()
_replaced: Any = _Standard


def install() -> None:
    """Put Timer in the place of threading.Timer, for whoever asks for it from now on: what has been made before, and
    what has been imported by name, stays what it is. Once is enough; again does nothing."""
    global _replaced
    with _install_lock:
        if threading.Timer is not Timer:
            _replaced = threading.Timer
            threading.Timer = Timer  # type: ignore[misc]


def uninstall() -> None:
    """Give threading.Timer its place back. Does nothing where install() has not been called, or where something else
    has taken the place since then."""
    with _install_lock:
        if threading.Timer is Timer:
            threading.Timer = _replaced  # type: ignore[misc]
