import asyncio
from array import array
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable, Sequence
from concurrent.futures import Future
from contextvars import Context
from datetime import timedelta
from threading import Thread
from types import GenericAlias, ModuleType, TracebackType
from typing import (
    Any,
    Final,
    Generic,
    Literal,
    Never,
    Protocol,
    Self,
    SupportsFloat,
    SupportsIndex,
    TypeAlias,
    TypedDict,
    TypeVarTuple,
    final,
    overload,
)
from weakref import ReferenceType

from typing_extensions import Buffer, TypeVar, disjoint_base

_T = TypeVar("_T")
_R = TypeVar("_R")
_Ts = TypeVarTuple("_Ts")
_Out = TypeVar("_Out", bound=Buffer)
_Seconds: TypeAlias = SupportsFloat | SupportsIndex | timedelta

# What the c of a Timer is. A plain Timer is either: whoever writes list[Timer] takes lists of both.
_C = TypeVar("_C", bound=Channel | None, default=Any, covariant=True)

# Who has failed is a Timer, or a TimerArray.
_Hook: TypeAlias = Callable[[BaseException, Any], object]

class _Executor(Protocol):
    def submit(self, fn: Callable[..., Any], /, *args: Any) -> object: ...

class _Stats(TypedDict):
    armed: int
    arms: int
    fired: int
    received: int
    cancelled: int
    tickers: int
    ticks: int
    dropped: int
    errors: int
    wakeups: int
    batches: int
    longest_batch: int
    late_max: float
    rekeyed: int
    peak: int
    nbytes: int
    threads: int
    handovers: int

DEBUG: Final[bool]
PORTABLE: Final[bool]
EPOLL: Final[bool]
SHARES_CONTEXTS: Final[bool]
ASKS_FOR_GIL: Final[bool]

@disjoint_base
class TimerHeap:
    """A set of timers with one worker thread, which is started by the first function timer and
    named after the heap. Channel timers need none.

    Callbacks run on the worker, one after another, or are submitted to executor, anything with
    submit(func, *args). What they raise is given to on_error(exception, timer), else to
    threading.excepthook. tolerance is how many seconds a wake-up may be put off, so that neighbours
    fire together; nothing fires early.

    patience, seconds: a callback that has run for longer loses the worker's post to a standby, a second thread, which
    goes on with what is due. Its thread ends when it returns. None: the neighbours of what blocks are late by that.

    len(heap) is the number of timers that stop() would cancel: armed, due and not yet launched,
    expired and not yet received. A heap is true even when it is empty. As a context manager it is
    closed at the end of the block. A heap that nobody holds any more fires the function timers that
    are armed on it, then ends its worker and goes.
    """
    def __init__(
        self,
        name: str = "timerheap",
        *,
        executor: _Executor | None = None,
        on_error: _Hook | None = None,
        patience: _Seconds | None = None,
        tolerance: _Seconds = 0.0,
    ) -> None: ...
    @property
    def name(self) -> str: ...
    @property
    def closed(self) -> bool:
        """Whether close() has been called."""
    @property
    def on_error(self) -> _Hook | None:
        """Who gets what callbacks raise: on_error(exception, timer), or None for threading.excepthook.
        May be set: what is reported from then on goes to the new one. A closed heap refuses another
        with RuntimeError, and lets go of the one it has once no callback can need it.
        """
    @on_error.setter
    def on_error(self, hook: _Hook | None) -> None: ...
    @on_error.deleter
    def on_error(self) -> None: ...
    @property
    def nbytes(self) -> int:
        """Bytes of memory this heap holds for its timers: the native arrays as far as they have
        been touched, in whole pages, and the Timer and Channel objects that exist. Callbacks and their
        arguments belong to the caller and do not count.
        """
    def pending(self) -> list[tuple[float, Timer[None]]]:
        """What the heap is going to call: a list of (when, timer) for each function timer that
        stop() would cancel, by deadline, equal ones in the order of arming; inf is never. Timers
        whose handles were dropped are there too, with a handle again. Empty once the heap is closed.

        A snapshot, whole with a GIL. Without one, a timer that another thread arms or stops meanwhile
        may be in it or not.
        """
    def stats(self) -> _Stats:
        """Counts since the heap was made. The ledger: arms == fired + received +
        cancelled + armed - tickers.

        armed: len(heap). arms: armings, each call of every() is one more. fired: callbacks launched. received:
        values received. cancelled: armings undone by stop, reset, close or fork. tickers: Tickers
        running, which none of the former but armed counts. ticks: ticks received. dropped: ticks and calls of every()
        that came to nothing, for the receiver or the last call was slow. errors: callbacks that
        raised. wakeups: times the worker woke. batches, longest_batch: runs of due timers and the
        size of the largest. late_max: seconds by which a callback was launched behind its deadline,
        at most, of those looked at: the first 16 of each run, and one in 128 after them. rekeyed:
        postponed timers sorted anew. peak: most function timers armed at once. nbytes: see nbytes.
        threads: of the heap, the standby of one with patience and what callbacks block included.
        handovers: callbacks over which a worker has lost its post.
        """
    def check(self) -> None:
        """Walk every invariant of the native heap. AssertionError names the first one broken, with
        index and both values.
        """
    def close(self, timeout: _Seconds | None = None) -> None:
        """Cancel every timer: handles are inactive, blocked receivers get RuntimeError, arming
        raises RuntimeError. Callbacks that an executor has not begun are called off.

        Waits for callbacks that are running, the executor's too: none begins once close() has
        returned. Not for the one that it is called from, nor for one that is in a close() itself,
        nor when the interpreter is on its way out.

        TimeoutError when some still run after timeout seconds (as a delay is given; 0 only looks).
        The heap is closed then all the same, none begins any more, and another close() waits on.
        """
    def __len__(self) -> int: ...
    def __bool__(self) -> bool: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc: BaseException | None = None,
        tb: TracebackType | None = None,
        /,
    ) -> None: ...

@disjoint_base
class ManualHeap(TimerHeap):
    """A TimerHeap whose clock stands still until advance() moves it. It has no worker: callbacks
    run in the thread that advances.

    The thread that makes it is the one expected to advance it. A receive, select or sleep there,
    or in a callback that advance() runs, that nothing but advance() could end raises RuntimeError
    at once; in other threads it waits for advance().

    With auto it moves the clock instead, from deadline to deadline until it is over, and what falls due meanwhile runs
    in this thread; RuntimeError only where nothing is armed that could end it. In a callback of the heap's nothing else
    runs meanwhile: what falls due is late, as where a callback blocks a worker. Other threads are not waited for, that
    is block_until's.

    pending() lists function timers alone, as that of any heap; len() counts channel timers, too.
    """
    def __init__(
        self,
        start: _Seconds = 0.0,
        *,
        auto: bool = False,
        name: str = "manual",
        on_error: _Hook | None = None,
    ) -> None: ...
    @property
    def auto(self) -> bool:
        """Whether a wait in the thread that drives the heap moves the clock."""
    def time(self) -> float:
        """The manual clock, in seconds."""
    def advance(self, seconds: _Seconds) -> None:
        """Move the clock on, from deadline to deadline: whatever falls due by then runs in this
        thread, in order, each callback when time() is its deadline exactly. What the callbacks arm
        for that span runs as well.

        Raises what a callback raises, at once and whatever it is, unless the heap has an on_error, which gets it then.
        The clock stands at that deadline, what else is due stays so, and another advance() goes on.

        A timer is due by then when it is so to the nanosecond, and also when it looks so: when t.when is not above the
        float time() + seconds, or above time() afterwards. So advance(t.when - time()) fires t. The clock
        ends at the sum in nanoseconds (less one that came by rounding seconds up, where as floats they lead to a whole
        one), or at the last deadline that fired, if that is later.

        ValueError for a negative number of seconds and for one that leads beyond the end of the clock,
        which stays as it was; RuntimeError from within a callback of this heap.
        """
    def advance_to_next(self) -> float | None:
        """Move the clock to the next deadline of whatever is armed on the heap, channel timers, Tickers and arrays
        among it, or of the timeout of a thread that waits, and run what is due then, as advance() does. The time
        then; None, and nothing moves, if there is none.

        A Ticker's next tick counts only once its last one has been received: until then it would be dropped.
        """
    def block_until(self, n: SupportsIndex, timeout: _Seconds = 30) -> None:
        """Wait until n threads or coroutines, at least, wait in a recv, select, sleep or iteration on channels of this
        heap, and have seen all there is to see: one that has been woken, and has yet to take its value and to come
        back, does not count. So what advance() has made ready is dealt with when this returns.

        TimeoutError after timeout seconds of real time; RuntimeError when the heap is closed.
        """
    def _threads_waiting(self) -> int:
        """Of those whom block_until counts."""
    def _go_on(self, until: float) -> bool:
        """For an event loop that has nothing to do: move the clock to what is next, until at the latest, and run what
        is due then. False if nothing is.
        """
    def _others_armed(self) -> tuple[list[tuple[TimerArray, int]], int]:
        """Beside what pending() lists: a list of (TimerArray, slots), and the number of channel timers and Tickers.
        What is ready and was not received is armed no more, but for a Ticker's.
        """

@final
class LoopHeap(TimerHeap):
    """The TimerHeap of an event loop, which runs its callbacks in its own thread. timerheap.asyncio.heap() has it."""
    def __init__(self, loop: asyncio.AbstractEventLoop, name: str) -> None: ...

@final
class Channel:
    """The receiving end of a channel timer.  Made by timers only.

    Holding the channel keeps its timer working; dropping it with the timer's handle cancels the
    timer.
    """
    def recv(self, timeout: _Seconds | None = None) -> float:
        """Wait for the timer and return its deadline, in seconds on time.monotonic(); for a Ticker,
        that of the oldest tick not received.

        TimeoutError when timeout seconds (as a delay is given) have passed first; RuntimeError when
        the heap is closed, and in the child of a fork when the timer was armed before it: there
        reset() arms it anew. On a stopped timer it waits for a reset. The GIL is released, signal
        handlers run, and an exception in one ends the wait.
        """
    def poll(self) -> float | None:
        """The deadline in seconds if the timer has expired and was not received, else None. Never
        waits.
        """
    def __await__(self) -> Generator[Any, Any, float]: ...

@final
class Timer(Generic[_C]):
    """A timer that delivers one value on its channel, c, delay seconds from now: the deadline, as
    time.monotonic() counts.

    delay is in seconds: an int, a float, anything with __float__, or a datetime.timedelta; zero and
    less is due at once, inf is never. A float that is nearest to a whole number of nanoseconds is
    that number, any other is rounded up. AfterFunc and every make Timers that call a function instead; their c
    is None. Dropping a channel timer with its channel cancels it; a function timer fires whether or
    not its handle is kept. heap is the TimerHeap that it is armed on.
    """
    def __new__(cls, delay: _Seconds, *, heap: TimerHeap | None = None) -> Timer[Channel]: ...
    def __class_getitem__(cls, item: Any, /) -> GenericAlias: ...
    @property
    def c(self) -> _C:
        """The Channel of a channel timer, the same across resets; None for a function timer."""
    @property
    def active(self) -> bool:
        """Whether stop() would return True: armed, or due and neither launched nor received."""
    @property
    def when(self) -> float | None:
        """The deadline in seconds on time.monotonic() (the heap's own clock for a manual heap), inf
        for never; None when not active.
        """
    @property
    def period(self) -> float | None:
        """Seconds between the calls of a timer that every() made, inf for never; None for any other."""
    @property
    def heap(self) -> TimerHeap: ...
    @property
    def func(self) -> Callable[..., object] | None:
        """The function that it calls; None for a channel timer."""
    @property
    def args(self) -> tuple[Any, ...]:
        """The arguments that it calls its function with, a tuple."""
    def stop(self) -> bool:
        """Cancel the timer. True if this call did: then the function will not run, and no receive
        gets the value, even one that was due already. False if the timer was not active: its
        function was launched (stop does not wait for it), its value received, or it had been
        stopped before.
        """
    def reset(self, delay: _Seconds) -> bool:
        """Arm the timer anew, delay seconds from now; for a timer of every() that is its period, too.
        True if that cancelled a pending run or an unreceived value, False if the timer was not
        active. Raises as the constructor does, and leaves the timer as it was then; RuntimeError when
        its heap is closed.
        """
    def postpone(self, delay: _Seconds) -> bool:
        """reset(delay) if the timer is active, and True; else False, and nothing is touched: a timer
        that has expired, or was stopped, is not revived.
        """

_Slots: TypeAlias = slice | Sequence[SupportsIndex] | Buffer
_Delays: TypeAlias = _Seconds | Sequence[_Seconds] | Buffer
_Nanoseconds: TypeAlias = SupportsIndex | Sequence[SupportsIndex] | Buffer

@final
class Chunk:
    """The slots of one call, whose memoryview keeps them."""

@final
class TimerArray:
    """n timers without an object each: slots 0 to n - 1, idle to begin with, that call one function.

    func gets what is due as a read-only memoryview of format 'I', at most batch slots in the order of their deadlines,
    equal ones in that of arming; it may be kept. Timers of the heap that are due in between come in between. With each,
    func(slot) is called for each of them. An armed slot fires whether or not the array is kept. What func raises is
    given to the heap's on_error(exception, array), once for the call: its slots have fired.

    slots, in the methods: an int; or several: a slice, a range, a buffer of int32, uint32, int64 or uint64 in one
    dimension (array.array, numpy), or a sequence of ints. Several act one after another, so that of duplicates the last
    one wins. What is wrong with an argument is raised before anything is touched. A call for several slots is exact for
    each of them and not atomic: other threads, and what is due, may come in between.

    out: a writable buffer of bytes, one for each slot, that gets 1 where the answer is True, else 0.
    """
    @overload
    def __new__(
        cls,
        n: SupportsIndex,
        func: Callable[[memoryview[int]], object],
        /,
        *,
        each: Literal[False] = False,
        batch: SupportsIndex = 4096,
        heap: TimerHeap | None = None,
    ) -> Self: ...
    @overload
    def __new__(
        cls,
        n: SupportsIndex,
        func: Callable[[int], object],
        /,
        *,
        each: Literal[True],
        batch: SupportsIndex = 4096,
        heap: TimerHeap | None = None,
    ) -> Self: ...
    @property
    def heap(self) -> TimerHeap: ...
    @property
    def func(self) -> Callable[..., object] | None:
        """The function that it calls; None once the collector has cleared the array."""
    @property
    def armed(self) -> int:
        """How many slots stop() would cancel."""
    @overload
    def reset(
        self, slots: SupportsIndex, delay: _Seconds, /, *, ns: None = None, out: Buffer | None = None
    ) -> bool:
        """Arm the slots anew, each for so long from now. delay is in seconds: what a Timer takes, for all of them; a
        sequence of such, or a buffer of float64, float32 or integers, one for each. ns, in its place: nanoseconds, an
        int or a buffer or sequence of ints.

        For one slot, whether that cancelled a pending run; for several, how many it cancelled.
        """
    @overload
    def reset(
        self, slots: SupportsIndex, delay: None = None, /, *, ns: SupportsIndex, out: Buffer | None = None
    ) -> bool: ...
    @overload
    def reset(self, slots: _Slots, delay: _Delays, /, *, ns: None = None, out: Buffer | None = None) -> int: ...
    @overload
    def reset(
        self, slots: _Slots, delay: None = None, /, *, ns: _Nanoseconds, out: Buffer | None = None
    ) -> int: ...
    @overload
    def postpone(
        self, slots: SupportsIndex, delay: _Seconds, /, *, ns: None = None, out: Buffer | None = None
    ) -> bool:
        """reset, of those slots that are pending; the others are not touched."""
    @overload
    def postpone(
        self, slots: SupportsIndex, delay: None = None, /, *, ns: SupportsIndex, out: Buffer | None = None
    ) -> bool: ...
    @overload
    def postpone(self, slots: _Slots, delay: _Delays, /, *, ns: None = None, out: Buffer | None = None) -> int: ...
    @overload
    def postpone(
        self, slots: _Slots, delay: None = None, /, *, ns: _Nanoseconds, out: Buffer | None = None
    ) -> int: ...
    @overload
    def stop(self, slots: SupportsIndex, /, *, out: Buffer | None = None) -> bool:
        """Cancel the slots, None for all: those that were pending will not fire. For one slot whether it was, for
        several how many were.
        """
    @overload
    def stop(self, slots: _Slots | None = None, /, *, out: Buffer | None = None) -> int: ...
    @overload
    def active(self, slots: SupportsIndex, /, *, out: None = None) -> bool:
        """Whether the slots, None for all, are pending: a bool for one, for several bytes of 0 and 1, or out."""
    @overload
    def active(self, slots: _Slots | None = None, /, *, out: None = None) -> bytes: ...
    @overload
    def active(self, slots: SupportsIndex | _Slots | None = None, /, *, out: _Out) -> _Out: ...
    @overload
    def when(self, slots: SupportsIndex, /, *, out: None = None) -> float | None:
        """The deadlines of the slots, None for all, in seconds on the heap's clock, inf for never. For one slot None if
        it is not pending; for several an array('d'), or out, a writable buffer of float64, with nan for those.
        """
    @overload
    def when(self, slots: _Slots | None = None, /, *, out: None = None) -> array[float]: ...
    @overload
    def when(self, slots: SupportsIndex | _Slots | None = None, /, *, out: _Out) -> _Out: ...
    def __len__(self) -> int: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc: BaseException | None = None,
        tb: TracebackType | None = None,
        /,
    ) -> None: ...

@final
class Ticker:
    """Delivers a value on its channel, c, every period seconds, first after one period. The values
    are deadlines, exactly on the grid start + k * period.

    A slow receiver finds one tick, the oldest it has not received; those after it up to now are
    dropped. period is a positive duration, else ValueError. Iterating receives ticks until the
    Ticker is stopped, and raises as Channel.recv does in the child of a fork; as a context manager
    it is stopped at the end of the block.
    """
    def __new__(cls, period: _Seconds, *, heap: TimerHeap | None = None) -> Self: ...
    @property
    def c(self) -> Channel:
        """The Channel, the same across resets."""
    @property
    def period(self) -> float:
        """Seconds between ticks."""
    def stop(self) -> None:
        """No more ticks; one that was not received is gone. May be called again, and undone by
        reset.
        """
    def reset(self, period: _Seconds) -> None:
        """Begin anew with another period: the next tick comes one period from now. Raises as the
        constructor does, and leaves the Ticker as it was then.
        """
    def __iter__(self) -> Self: ...
    def __next__(self) -> float: ...
    def __aiter__(self) -> Self: ...
    def __anext__(self) -> Awaitable[float]: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc: BaseException | None = None,
        tb: TracebackType | None = None,
        /,
    ) -> None: ...

@final
class Misnomer:
    """An attribute that is not there, for whose name there is another."""
    def __init__(self, name: str, instead: str) -> None: ...
    def __get__(self, instance: object, owner: type | None = None, /) -> Never: ...
    def __set__(self, instance: object, value: object, /) -> None: ...
    def __delete__(self, instance: object, /) -> None: ...

def AfterFunc(
    delay: _Seconds,
    func: Callable[[*_Ts], object],
    /,
    *args: *_Ts,
    context: Context | None = None,
    heap: TimerHeap | None = None,
) -> Timer[None]:
    """Call func(*args) once, delay seconds from now, on the heap's worker thread. Returns the Timer.

    delay is in seconds: an int, a float, anything with __float__, or a datetime.timedelta; zero and
    less is due at once, inf is never. A float that is nearest to a whole number of nanoseconds is that
    number, any other is rounded up. The call is made in context, a contextvars.Context, or else in an
    empty one. Keyword arguments for func go through functools.partial. The timer fires whether or not
    its handle is kept; stop() of the handle cancels it, reset() arms it anew, postpone() only if it is
    pending.

    Raises TypeError for a func that cannot be called and a delay that is no real number, ValueError for
    NaN, RuntimeError for a closed heap.
    """
def every(
    period: _Seconds,
    func: Callable[[*_Ts], object],
    /,
    *args: *_Ts,
    context: Context | None = None,
    heap: TimerHeap | None = None,
) -> Timer[None]:
    """Call func(*args) every period seconds, first after one period, on the heap's worker thread. Returns
    the Timer: its stop() ends the calls, True if they were going on, from inside func as well; one that
    has begun, or was handed to an executor, it does not call back. reset(period) changes the period,
    postpone(period) too, if the calls are going on.

    The deadlines are exactly on the grid start + k * period. A call that has been missed is dropped,
    not made up, and there are never two at once: where an executor, or a thread that has lost the
    worker's post, still runs the last call, the next is skipped. An exception that func raises is
    reported, and the next call comes all the same. period is a positive duration. The calls are made in
    context, a contextvars.Context, or else each in an empty one. Keyword arguments for func go through
    functools.partial. The calls go on whether or not the handle is kept, until stop() or the end of the
    heap.

    Raises TypeError for a func that cannot be called and a period that is no real number, ValueError for
    one that is not positive and for NaN, RuntimeError for a closed heap.
    """
def after(delay: _Seconds, *, heap: TimerHeap | None = None) -> Channel:
    """Timer(delay, heap=heap).c: a channel that delivers one value, delay seconds from now."""
def tick(period: _Seconds, *, heap: TimerHeap | None = None) -> Channel:
    """Ticker(period, heap=heap).c: a channel that delivers a value every period seconds until it is dropped."""
def select(*channels: Channel, timeout: _Seconds | None = None) -> tuple[Channel, float]:
    """Receive from whichever channel is ready first: (channel, value). Of several ready ones each
    has the same chance.

    timeout, in seconds: 0 only looks, None waits for ever; TimeoutError when it has passed. Waits
    as Channel.recv does.
    """
def sleep(delay: _Seconds) -> None:
    """Block the calling thread for at least delay seconds. The GIL is released, signal handlers
    run, and an exception in one ends it.
    """
def longest_slice() -> int:
    """For tests: in a debug build the most steps of channel work under one hold of the mutex since the last call."""
def default_heap() -> TimerHeap:
    """The heap of all timers that name no other: made on first use, and anew should it have been
    closed. Within timerheap.testing.use() it is the heap given there, and a RuntimeError once that
    is closed.
    """
def swap_default_heap(heap: TimerHeap | None, substitute: bool) -> tuple[TimerHeap | None, bool]:
    """Make heap (None: a new one on the next use) the default heap, which is not to be replaced when it is closed if it
    is a substitute. Returns both as they were.
    """
def report_to_threading(exc: BaseException, timer: Timer) -> None:
    """The default on_error: what an exception in a thread's target would get."""
def run_slots_away(func: Callable[[memoryview[int]], object], slots: bytes) -> None:
    """What the Job of an array comes down to there: no memoryview can be pickled."""
def run_away(context: Context | None, func: Callable[[*_Ts], object], *args: *_Ts) -> None:
    """What a Job comes down to in another process. Nothing is sent back but an exception."""
def forget(reference: ReferenceType[TimerHeap]) -> None:
    """The heap is about to go; or the collector takes it for garbage, and a finalizer may yet arm on it: see
    start_worker, which arming asks again then.
    """
@final
class Post:
    """A th_post, for Python objects to hold."""

@final
class Bell:
    """Wakes one sleep of a coroutine: called in the thread of its loop."""
    def __call__(self) -> None: ...

@final
class Reception:
    """One receive of a coroutine: awaited once at a time."""
    def __await__(self) -> Generator[Any, Any, Any]: ...
    def rouse(self) -> None:
        """In the thread of the loop: look again."""
    def leave(self) -> None:
        """The lines, if it stands in them. The alarm is called off."""

@final
class LoopEnd:
    """Stands in a loop's __dict__ for its close(), after which it closes the loop's heaps, and is no more. The loop's
    coroutines leave the lines of their channels then. Holds the loop, whose finalizer may call it, when weak references
    are gone.
    """
    def __call__(self) -> None: ...

def loop_heap(loop: asyncio.AbstractEventLoop | None) -> TimerHeap:
    """timerheap.asyncio.heap."""
def loop_select(channels: tuple[Channel, ...], timeout: _Seconds | None) -> Awaitable[tuple[Channel, float]]:
    """What timerheap.asyncio.select awaits."""
def wake_future(future: Future[None]) -> None:
    """For an alarm."""
def receive_in_turn(self: Reception) -> Generator[Any, Any, Any]:
    """The generator that is awaited."""
def report_to_loop(exc: BaseException, timer: Timer) -> None:
    """The default on_error of a loop's heap: what an exception in a callback of the loop's own would get."""

@final
class Job:
    """A due timer's callback, for an executor to call, here or pickled in another process."""
    def __call__(self) -> None: ...
    def ended(self, future: Future[None]) -> None:
        """The future is done. What the job has not reported itself has kept it from running, or from coming back."""

class Worker(Thread):
    """The threading.Thread that stands for a heap's worker in threading.enumerate() and current_thread().

    Made without Thread.__init__ and never started: no code of threading's, which a program may have wrapped, takes part
    in the start of a worker.
    """

def list_worker(worker: Worker) -> None: ...
def unlist_worker(worker: Worker) -> None: ...
def listed_threads() -> dict[int, Thread]:
    """What threading.enumerate() lists, by thread; an empty dict should it be kept otherwise one day."""
def be_watched() -> None:
    """By the trace and profile functions that are set for all threads, and by no others: as a thread that begins."""
def settle_in(worker: Worker) -> None:
    """In the new thread: be found under whatever number threading has for it (greenlets have their own), and be watched
    by the trace and profile functions that are set for all threads.
    """
def restart_worker(heap: TimerHeap) -> None: ...
def start_standby(heap: TimerHeap) -> None:
    """By the worker, before it fires. Should there be no thread, the next run tries again. By the time that there is a
    Worker the caller may be in the child of a fork, which no worker fires in.
    """
def stop_at_exit() -> None:
    """Exit waits for no timer: parked workers leave, and those about to begin; one inside a callback is left behind
    (it is a daemon).
    """
def before_fork() -> None: ...
def after_fork_in_parent() -> None: ...
def after_fork_in_child() -> None: ...

class _LoopStats(TypedDict):
    armed: int
    arms: int
    fired: int
    cancelled: int
    peak: int
    batches: int
    hidden: int
    nbytes: int

@disjoint_base
class LoopTimers:
    """The timers of one event loop. timerheap.asyncio makes subclasses, with what is seldom and better done in Python:
    TimerHandle, report(handle, exception), note_cancel(handle), plan(), is_monotonic(time method), make_way().
    """
    debug: bool
    planning: bool
    announced: bool
    TimerHandle: type
    def __init__(self) -> None: ...
    @property
    def owner(self) -> Any: ...
    @property
    def closed(self) -> bool: ...
    @property
    def nbytes(self) -> int:
        """Bytes of the heap's own memory, handles left out."""
    def __len__(self) -> int: ...
    def __bool__(self) -> bool: ...
    def attach(self, loop: object, attributes: dict[str, Any], module: object) -> None:
        """These are the timers of loop, whose attributes are in that dict. module: where asyncio's own time() looks up
        the module time.
        """
    def methods(self) -> tuple[Callable[..., Any], Callable[..., Any]]:
        """call_at and call_later for the loop's dict."""
    def arm(
        self, when: float, callback: Callable[..., object], args: Iterable[Any], context: Context | None
    ) -> asyncio.TimerHandle:
        """A handle, armed."""
    def next_deadline(self) -> float:
        """When something will be due, on the loop's clock: -inf if it is, inf if nothing will be."""
    def due(self) -> bool:
        """Whether something is."""
    def select(self, file: int, keys: dict[int, Any], timeout: float | None) -> list[Any]:
        """An epoll selector's select(timeout), with that file descriptor and those keys, by theirs; it waits no longer
        than until something is due here.
        """
    def wait_for(self, deadline: float) -> None:
        """plan() is called from now on where something is armed that is earlier."""
    def fire(self) -> None:
        """Call what is due, in order."""
    def take(self) -> list[Any]:
        """The handles of what is due, in order, for somebody else to run."""
    def begin(self) -> None:
        """The loop runs from now on."""
    def end(self) -> None:
        """And no longer."""
    def close(self) -> None:
        """The loop is closed: nothing is armed any more."""
    def stats(self) -> _LoopStats:
        """arms == fired + cancelled + armed"""
    def check(self) -> None:
        """Walk every invariant of the heap; AssertionError for the first one broken."""

@final
class LoopHandle:
    """asyncio.TimerHandle: what call_later and call_at return."""
    def when(self) -> float:
        """The deadline, in seconds of the loop's time."""
    def cancel(self) -> None:
        """Not call it, if it has not been called. No error where it has, or was cancelled before."""
    def cancelled(self) -> bool:
        """Whether cancel() was called."""
    def get_loop(self) -> Any: ...
    def get_context(self) -> Context | None: ...
    def __lt__(self, other: object, /) -> bool: ...
    def __le__(self, other: object, /) -> bool: ...
    def __gt__(self, other: object, /) -> bool: ...
    def __ge__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

@final
class Timeout:
    """asyncio.Timeout: what timeout() and timeout_at() return."""
    def __init__(self, *args: Never, **kwargs: Never) -> None: ...
    def __await__(self) -> Self: ...
    def __next__(self) -> Never: ...
    def when(self) -> float | None:
        """The deadline, in seconds of the loop's time; None for never."""
    def reschedule(self, when: float | None) -> None:
        """Another deadline, None for never. RuntimeError unless the block is under way."""
    def expired(self) -> bool:
        """Whether the deadline has passed within the block."""
    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None: ...

@final
class Nothing:
    """Awaited, it is over at once."""
    def __await__(self) -> Self: ...
    def __next__(self) -> Never: ...

@final
class Sleep(Coroutine[Any, Any, _T]):
    """What sleep() returns: to be awaited once, by one task."""
    _asyncio_future_blocking: bool | None
    __qualname__: str
    def __init__(self, *args: Never, **kwargs: Never) -> None: ...
    def __next__(self) -> Any: ...
    @overload
    @staticmethod
    def sleep(delay: float) -> Sleep[None]:
        """asyncio.sleep(delay, result), native: await sleep(delay) waits for so many seconds, and has
        the result. With none, or fewer, the other tasks get a turn.
        """
    @overload
    @staticmethod
    def sleep(delay: float, result: _R) -> Sleep[_R]: ...
    def __await__(self) -> Generator[Any, Any, _T]: ...
    def send(self, value: Any) -> Any: ...
    def throw(self, kind: Any, value: Any = None, traceback: TracebackType | None = None) -> Any: ...
    def close(self) -> None: ...
    def get_loop(self) -> asyncio.AbstractEventLoop | None: ...
    def add_done_callback(self, fn: Callable[[Any], object], *, context: Context | None = None) -> None:
        """Once."""
    def cancel(self, msg: Any | None = None) -> bool: ...
    def cancelled(self) -> bool: ...
    def done(self) -> bool: ...
    def result(self) -> _T: ...
    def exception(self) -> None: ...

def timeout(delay: float | None) -> Timeout:
    """asyncio.timeout(delay), native: async with timeout(delay) raises TimeoutError when the block
    takes longer than that, in seconds; None for never.
    """
def timeout_at(when: float | None) -> Timeout:
    """asyncio.timeout_at(when), native: likewise, with a deadline in seconds of the loop's time."""
def expire_timeout(timeout: Timeout) -> None:
    """Called by a timer."""
def learn_asyncio(
    events: ModuleType,
    tasks: ModuleType,
    timeouts: ModuleType,
    exceptions: ModuleType,
    attach: Callable[[asyncio.AbstractEventLoop], LoopTimers],
) -> None:
    """These are asyncio's modules. attach(loop): the LoopTimers of a loop that is none of ours."""
