"""The main job: python -m timerheap arms a million timers on one thread and judges every one."""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import json
import math
import os
import platform
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from array import array
from bisect import bisect_right
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Self

import timerheap
from timerheap import AfterFunc, TimerArray, TimerHeap, _core

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from timerheap import Timer

# The judge's clock: a name of this module, so that a test can give the judge a wrong one.
now = time.monotonic

CHUNK = 10_000  # timers between two looks at the progress bar, outside the timed stretches
INTERRUPTED = 130  # what a shell reports of a command that Ctrl-C ended
UNWRITTEN = os.EX_IOERR  # the exit status where stdout takes no report
OUT_OF_MEMORY = os.EX_OSERR  # that where the timers find no memory
TIMER_BYTES = 400  # what a timer takes at least, this module's notes on it included
HOUR = 3600.0  # a deadline that no run of this lives to see
EXPIRING = 100  # timeouts of asyncio's that do expire, beside all those that do not
CAUGHT_UP = 0.001  # seconds of lateness at which a heap that was behind is so no more
LATE_BOUNDS_US = (20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 100_000)


# What the process costs, as the kernel counts it, where it tells (/proc).


def os_threads() -> int:
    """The threads of this process, whoever started them; where the system does not tell, those that Python knows."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return threading.active_count()


def resident_bytes() -> int:
    """The resident memory of this process, in bytes; where the system does not tell, the most that it ever had."""
    try:
        with open("/proc/self/smaps_rollup") as rollup:
            for line in rollup:
                if line.startswith("Rss:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    # Close enough, where there is no better: the kernel updates this one in steps.
    try:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


# The two streams. Either may be closed (then it is None), full, or without a reader any more.


def say(text: str) -> None:
    """A line to stderr, if there is one: what is said there is worth no failure."""
    if sys.stderr is None:
        return
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        abandon(sys.stderr)


def written(*lines: str) -> bool:
    """Write to stdout. False, and a sentence on stderr, where it takes nothing."""
    reason: str | None = "standard output is closed"
    if sys.stdout is not None:
        try:
            print(*lines, sep="\n", end="\n" if lines else "", flush=True)
        except OSError as error:
            abandon(sys.stdout)
            reason = error.strerror
        else:
            return True
    say(f"timerheap: the report could not be written: {reason}")
    return False


def abandon(stream: Any) -> None:
    """Let go of what a stream has not written, or the interpreter would try again at its end, and complain."""
    with contextlib.suppress(AttributeError, OSError, ValueError):
        number = stream.fileno()
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, number)
        os.close(null)


# Progress: bars for a person, a line a phase for a log, and never on stdout.


class Progress:
    """What the phases of a run report to: one line a phase."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def phase(self, title: str, total: int) -> None:
        """Begin a phase of `total` steps."""
        say(f"{title}: {total:,} timers")

    def done(self, count: int) -> None:
        """Say that `count` steps of the phase are done by now."""


def progress() -> Progress:
    """Bars where rich is installed and somebody is looking, lines elsewhere."""
    if sys.stderr is None or not sys.stderr.isatty():
        return Progress()
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as RichProgress
    except ImportError:
        return Progress()

    class Bars(Progress):
        """Progress as bars, drawn by the calling thread: one of rich's own would be counted."""

        def __init__(self) -> None:
            self._bars = RichProgress(
                TextColumn("{task.description:<10}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                console=Console(stderr=True),
                auto_refresh=False,
            )
            self._task: Any = None

        def __enter__(self) -> Self:
            self._bars.start()
            return self

        def __exit__(self, *_: object) -> None:
            self._bars.stop()

        def phase(self, title: str, total: int) -> None:
            self._task = self._bars.add_task(title, total=total)
            self._bars.refresh()

        def done(self, count: int) -> None:
            self._bars.update(self._task, completed=count)
            self._bars.refresh()

    return Bars()


# The main job.


class Trial:
    """Arms many timers, stops and resets some, lets the rest fire, and judges each by itself."""

    array = False
    _heap: TimerHeap

    def __init__(self, options: argparse.Namespace) -> None:
        self.count: int = options.timers
        self.patience: float = options.patience
        self.spread: float = options.spread
        self._random = random.Random(options.seed)
        self._lead = 0.0
        self._shares = [self._random.random() for _ in range(self.count)]  # of the spread
        numbers = list(range(self.count))
        order = numbers[:]
        self._random.shuffle(order)
        stops, resets = round(self.count * options.stop), round(self.count * options.reset)
        self._to_stop = order[:stops]
        self._to_reset = order[stops : stops + resets]
        self.cancelled = 0
        # One entry a timer, all there before the memory is measured.
        self._numbers = numbers
        self._handles: list[Any] = [None] * (0 if self.array else self.count)
        self._owed = bytearray(b"\1") * self.count  # how often it still has to fire, all told
        self._fired = bytearray(self.count)  # how often it did
        self._fired_at = array("d", bytes(8 * self.count))
        self._deadlines = array("d", bytes(8 * self.count))
        self._set_up_end = 0.0

    def run(self) -> dict[str, Any]:
        """All of it; the verdict as plain data."""
        with TimerHeap(name="timerheap-demo") as heap, progress() as bars:
            threads, resident = os_threads(), resident_bytes()
            # The first deadline shall lie behind the set-up: what is timed there is not the firing. Twice as long as
            # a sample says, which a million of them, or another program's turn, may well take.
            self._lead = 0.2 + max(2.5e-6, 2 * set_up_pace(min(self.count, CHUNK))) * self.count
            await_gone(threads)
            arm_ns = self._arm(heap, bars)
            report: dict[str, Any] = {
                "timers": self.count,
                "array": self.array,
                "spread_s": self.spread,
                "threads": {"before": threads, "after": os_threads()},
                "bytes_per_timer": {
                    "heap": round(heap.nbytes / self.count, 1),
                    "process": round((resident_bytes() - resident) / self.count, 1),
                },
                "ns": {
                    "arm": round(arm_ns),
                    "stop": round(self._stop(bars)),
                    "reset": round(self._reset(bars)),
                },
            }
            self._wait(heap, bars)
        # The heap is closed: no callback runs any more.
        return report | self._verdict()

    def _delay(self, share: float) -> float:
        return float(self._lead + self.spread * share)

    def _fire(self, number: int) -> None:
        self._fired_at[number] = now()
        self._fired[number] += 1

    def _arm(self, heap: TimerHeap, bars: Progress) -> float:
        self._heap = heap
        bars.phase("arming", self.count)
        spent = 0
        for part in chunks(self.count):
            delays = [self._delay(share) for share in self._shares[part]]
            earliest, took = self._arm_part(part, delays)
            spent += took
            for number, delay in zip(self._numbers[part], delays, strict=True):
                self._deadlines[number] = at_least(earliest, delay)
            bars.done(part.stop)
        return spent / self.count

    def _arm_part(self, part: slice, delays: list[float]) -> tuple[float, int]:
        """When that began, and the nanoseconds that it took."""
        todo = list(zip(delays, self._numbers[part], strict=True))
        fire, heap = self._fire, self._heap
        earliest = now()
        start = time.perf_counter_ns()
        armed = [AfterFunc(delay, fire, number, heap=heap) for delay, number in todo]
        took = time.perf_counter_ns() - start
        self._handles[part] = armed
        return earliest, took

    def _stop(self, bars: Progress) -> float:
        bars.phase("stopping", len(self._to_stop))
        spent = 0
        for part in chunks(len(self._to_stop)):
            numbers = self._to_stop[part]
            answers, took = self._stop_part(numbers)
            spent += took
            for number, cancelled in zip(numbers, answers, strict=True):
                self._owed[number] -= cancelled
                self.cancelled += cancelled
            bars.done(part.stop)
        return spent / max(1, len(self._to_stop))

    def _stop_part(self, numbers: list[int]) -> tuple[Iterable[int], int]:
        """Whether each was pending, and the nanoseconds that it took."""
        timers = [self._handles[number] for number in numbers]
        start = time.perf_counter_ns()
        answers = [timer.stop() for timer in timers]
        return answers, time.perf_counter_ns() - start

    def _reset(self, bars: Progress) -> float:
        bars.phase("resetting", len(self._to_reset))
        spent = 0
        for part in chunks(len(self._to_reset)):
            numbers = self._to_reset[part]
            delays = [self._delay(self._random.random()) for _ in numbers]
            earliest, answers, took = self._reset_part(numbers, delays)
            spent += took
            for number, delay, cancelled in zip(numbers, delays, answers, strict=True):
                self._owed[number] += not cancelled
                self._deadlines[number] = at_least(earliest, delay)
            bars.done(part.stop)
        return spent / max(1, len(self._to_reset))

    def _reset_part(self, numbers: list[int], delays: list[float]) -> tuple[float, Iterable[int], int]:
        """When that began, whether each was pending, and the nanoseconds that it took."""
        todo = [(self._handles[number], delay) for number, delay in zip(numbers, delays, strict=True)]
        earliest = now()
        start = time.perf_counter_ns()
        answers = [timer.reset(delay) for timer, delay in todo]
        return earliest, answers, time.perf_counter_ns() - start

    def _whens(self) -> Iterable[float | None]:
        """The deadlines, by number; None or nan of what is not armed."""
        return (timer.when for timer in self._handles)

    def _wait(self, heap: TimerHeap, bars: Progress) -> None:
        for number, when in enumerate(self._whens()):
            if when is not None and not math.isnan(when):
                self._deadlines[number] = when
        self._set_up_end = now()
        due = len(heap)
        bars.phase("firing", due)
        end = max(self._deadlines) + self.patience
        while (left := len(heap)) and now() < end:
            bars.done(due - left)
            time.sleep(0.1)
        bars.done(due - left)

    def _verdict(self) -> dict[str, Any]:
        ledger = list(zip(self._owed, self._fired, strict=True))
        lost = sum(owed - fired for owed, fired in ledger if owed > fired)
        extra = sum(fired - owed for owed, fired in ledger if fired > owed)
        fired = [
            (deadline, at - deadline)
            for at, deadline, fired in zip(self._fired_at, self._deadlines, self._fired, strict=True)
            if fired
        ]
        early = sum(late < 0 for _, late in fired)
        # What was due during the set-up had to wait for it, and what came next queued behind that: neither says
        # anything of the heap.
        end = self._set_up_end
        overran = max((end - deadline for deadline, _ in fired), default=0.0)
        begin = caught_up(fired, end) if overran > 0 else end
        late_us = sorted(late * 1e6 for deadline, late in fired if deadline >= begin)
        return {
            "fired": sum(self._fired),
            "stopped": self.cancelled,
            "reset": len(self._to_reset),
            "lost": lost,
            "early": early,
            "extra": extra,
            "set_up": {
                "lead_s": round(self._lead, 3),
                "overran_s": round(max(0.0, overran), 3),
                "left_out": len(fired) - len(late_us),
            },
            "late_us": {
                "p50": percentile(late_us, 0.50),
                "p99": percentile(late_us, 0.99),
                "max": percentile(late_us, 1.0),
                "histogram": histogram(late_us),
            },
            "ok": not (lost or early or extra),
        }


class ArrayTrial(Trial):
    """The same with the slots of a TimerArray, a call for each part of them."""

    array = True
    _timers: TimerArray

    def _fire_chunk(self, slots: memoryview[int]) -> None:
        at = now()
        for number in slots:
            self._fired_at[number] = at
            self._fired[number] += 1

    def _arm(self, heap: TimerHeap, bars: Progress) -> float:
        self._timers = TimerArray(self.count, self._fire_chunk, heap=heap)
        return super()._arm(heap, bars)

    def _arm_part(self, part: slice, delays: list[float]) -> tuple[float, int]:
        slots, column = range(part.start, part.stop), array("d", delays)
        earliest = now()
        start = time.perf_counter_ns()
        self._timers.reset(slots, column)
        return earliest, time.perf_counter_ns() - start

    def _stop_part(self, numbers: list[int]) -> tuple[Iterable[int], int]:
        slots, answers = array("I", numbers), bytearray(len(numbers))
        start = time.perf_counter_ns()
        self._timers.stop(slots, out=answers)
        return answers, time.perf_counter_ns() - start

    def _reset_part(self, numbers: list[int], delays: list[float]) -> tuple[float, Iterable[int], int]:
        slots, column, answers = array("I", numbers), array("d", delays), bytearray(len(numbers))
        earliest = now()
        start = time.perf_counter_ns()
        self._timers.reset(slots, column, out=answers)
        return earliest, answers, time.perf_counter_ns() - start

    def _whens(self) -> Iterable[float | None]:
        return self._timers.when()


def try_timers(options: argparse.Namespace) -> dict[str, Any]:
    """The main job, its verdict."""
    return (ArrayTrial if options.array else Trial)(options).run()


def await_gone(threads: int) -> None:
    """Until there are so many threads again: joined ones leave the system's count a moment later."""
    patience = time.monotonic() + 5
    while os_threads() > threads and time.monotonic() < patience:
        time.sleep(0.001)


def set_up_pace(count: int) -> float:
    """Seconds that arming, stopping and resetting take a timer, bookkeeping included, by a sample of `count`."""
    start = time.perf_counter()
    with TimerHeap(name="timerheap-sample") as heap:
        timers = [timerheap.AfterFunc(HOUR, print, number, heap=heap) for number in range(count)]
        deadlines = [at_least(now(), HOUR) for _ in timers]
        answers = [timer.reset(HOUR) for timer in timers]
        ledger = list(zip(deadlines, answers, [timer.when for timer in timers], strict=True))
        for timer, _ in zip(timers, ledger, strict=True):
            timer.stop()
    return (time.perf_counter() - start) / count


def chunks(count: int) -> Iterator[slice]:
    """0..count in slices small enough for a progress bar, large enough to time."""
    for low in range(0, count, CHUNK):
        yield slice(low, min(low + CHUNK, count))


def at_least(earliest: float, delay: float) -> float:
    """A bound no higher than the deadline of a timer armed after `earliest`.

    It judges the timers that fire before their deadline can be asked for; the nanosecond covers
    the rounding of this very addition.
    """
    return earliest + delay - 1e-9


def caught_up(fired: Iterable[tuple[float, float]], end: float) -> float:
    """The deadline of the first timer due after `end` that fired on time, of (deadline, seconds late); inf of none."""
    return min((deadline for deadline, late in fired if deadline >= end and late < CAUGHT_UP), default=math.inf)


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """The value that `share` of the sorted values do not exceed, to a tenth; None of none."""
    return round(ordered[max(0, math.ceil(share * len(ordered)) - 1)], 1) if ordered else None


def histogram(late_us: Sequence[float]) -> list[dict[str, int | None]]:
    """How many of the sorted values lie up to each bound; the last bound is None, infinity."""
    edges = [0, *(bisect_right(late_us, bound) for bound in LATE_BOUNDS_US), len(late_us)]
    return [
        {"up_to_us": bound, "count": high - low}
        for bound, (low, high) in zip((*LATE_BOUNDS_US, None), pairwise(edges), strict=True)
    ]


def microseconds(value: float | None) -> str:
    """A time given in microseconds, in the unit a person would choose."""
    if value is None:
        return "-"
    if value < 1_000:
        return f"{value:.0f} us"
    if value < 1_000_000:
        return f"{value / 1_000:.{0 if value % 1_000 == 0 else 1}f} ms"
    return f"{value / 1_000_000:.1f} s"


def describe_trial(report: dict[str, Any]) -> Iterator[str]:
    """The report of a trial, in lines for a person."""
    threads, per_timer, ns = report["threads"], report["bytes_per_timer"], report["ns"]
    late = report["late_us"]
    yield f"timers      {report['timers']:,} armed over {report['spread_s']:g} s of deadlines"
    yield f"threads     {threads['before']} before, {threads['after']} with all of them armed"
    what, how = "handle and argument included", "the Python loop included"
    if report["array"]:
        what, how = "by number, without a handle", f"{CHUNK:,} slots a call"
    yield (
        f"memory      {per_timer['heap']:.0f} bytes a timer by the heap's own count, "
        f"{per_timer['process']:.0f} by the process's; {what}"
    )
    yield f"speed       {ns['arm']} ns an arm, {ns['stop']} ns a stop, {ns['reset']} ns a reset; {how}"
    yield (f"fired       {report['fired']:,}   stopped {report['stopped']:,}   reset {report['reset']:,}")
    yield f"lost        {report['lost']:,}   early {report['early']:,}   extra {report['extra']:,}"
    set_up = report["set_up"]
    if late["p50"] is None:
        yield "lateness    not measured: " + ("none was on time yet" if report["fired"] else "none has fired")
    else:
        yield (
            f"lateness    p50 {microseconds(late['p50'])}   p99 {microseconds(late['p99'])}   "
            f"max {microseconds(late['max'])}"
        )
    if set_up["left_out"]:
        yield (
            f"  the set-up overran its lead of {set_up['lead_s']:.1f} s by {set_up['overran_s']:.1f} s: "
            "timers were due before all were armed;"
        )
        yield f"  {set_up['left_out']:,} that waited for it, or behind those that did, are left out"
    rows = late["histogram"]
    while rows and not rows[-1]["count"]:
        rows = rows[:-1]
    for row in rows:
        bound = row["up_to_us"]
        label = "more" if bound is None else f"to {microseconds(bound)}"
        share = row["count"] / max(other["count"] for other in rows)
        yield f"  {label:>9} {bar(share):40} {row['count']:,}"
    yield "ok: nothing lost, nothing early" if report["ok"] else "FAILED: a promise was broken"


def bar(share: float) -> str:
    """A bar of up to 40 columns; something that is not nothing shows."""
    block = "\N{FULL BLOCK}" if (sys.stdout.encoding or "").lower().startswith("utf") else "#"
    return block * math.ceil(40 * share)


# The experiment of threads: what ten thousand pending timers cost, one by one and together.


def native_timers(count: int, bars: Progress) -> tuple[int, Callable[[], None]]:
    """Arm `count` AfterFuncs; how many there are, and what takes them away again."""
    heap = TimerHeap(name="timerheap-demo")
    handles: list[Timer] = []
    for number in range(count):
        handles.append(AfterFunc(HOUR, print, heap=heap))
        if number % 500 == 0:
            bars.done(number)
    return count, heap.close


def thread_timers(count: int, bars: Progress) -> tuple[int, Callable[[], None]]:
    """The same with threading.Timer: fewer than `count` where the system allows no more threads."""
    timers: list[threading.Timer] = []

    def release() -> None:
        for timer in timers:
            timer.cancel()
        for timer in timers:
            timer.join()

    for number in range(count):
        timer = threading.Timer(HOUR, print)
        timer.daemon = True
        try:
            timer.start()
        except RuntimeError:
            break
        timers.append(timer)
        if number % 500 == 0:
            bars.done(number)
    return len(timers), release


def compare_threads(options: argparse.Namespace) -> dict[str, Any]:
    """Each kind's threads, memory and time to arm, with all its timers pending."""
    report: dict[str, Any] = {"timers": options.timers}
    kinds = {"AfterFunc": native_timers, "threading.Timer": thread_timers}
    with progress() as bars:
        for kind, arm in kinds.items():
            bars.phase(kind, options.timers)
            threads, resident, start = os_threads(), resident_bytes(), time.perf_counter()
            started, release = arm(options.timers, bars)
            elapsed = time.perf_counter() - start
            report[kind] = {
                "started": started,
                "threads": os_threads() - threads,
                "bytes_per_timer": round((resident_bytes() - resident) / max(1, started), 1),
                "us_per_timer": round(elapsed * 1e6 / max(1, started), 2),
            }
            bars.done(started)
            release()
            await_gone(threads)
    report["ok"] = report["AfterFunc"]["threads"] == 1
    return report


def describe_threads(report: dict[str, Any]) -> Iterator[str]:
    """The report of the experiment, in lines for a person."""
    yield f"{'':16}{'pending':>9}{'threads':>9}{'bytes a timer':>15}{'us to arm one':>15}"
    for kind in ("AfterFunc", "threading.Timer"):
        row = report[kind]
        yield (
            f"{kind:16}{row['started']:>9,}{row['threads']:>9,}"
            f"{row['bytes_per_timer']:>15,.0f}{row['us_per_timer']:>15,.2f}"
        )
        if row["started"] < report["timers"]:
            yield f"{'':16}the system refused more threads than these"


# The experiment of asyncio: a program that knows asyncio alone, on asyncio's own loop and on timerheap's. It alone
# imports that, which takes longer than all else here.


async def expire(delay: float) -> float:
    """Seconds by which an `asyncio.timeout` that does expire is late."""
    import asyncio

    earliest = at_least(now(), delay)
    try:
        async with asyncio.timeout(delay):
            await asyncio.get_running_loop().create_future()
    except TimeoutError:
        return now() - earliest
    return math.nan  # not reached: nobody else wakes the future


async def many_timeouts(count: int, bars: Progress) -> dict[str, Any]:
    """Enter so many `asyncio.timeout`s, let a few more expire beside them, leave them; what it took. One of them that
    expired before its time would end it all: that is what they are for."""
    import asyncio

    timeouts: list[Any] = [None] * count
    gc.collect()
    resident = resident_bytes()
    entering = leaving = 0.0
    for part in chunks(count):
        start = time.perf_counter()
        for number in range(part.start, part.stop):
            timeouts[number] = timeout = asyncio.timeout(HOUR)
            await timeout.__aenter__()
        entering += time.perf_counter() - start
        bars.done(part.stop)
        await asyncio.sleep(0)  # other tasks have their turn, as in any program
    resident = resident_bytes() - resident
    start = time.perf_counter()
    gc.collect()
    collecting = time.perf_counter() - start
    late = await asyncio.gather(*(expire(0.001 * number) for number in range(1, EXPIRING + 1)))
    for part in chunks(count):
        start = time.perf_counter()
        for timeout in timeouts[part]:
            await timeout.__aexit__(None, None, None)
        leaving += time.perf_counter() - start
        await asyncio.sleep(0)
    early = sum(seconds < 0 for seconds in late)
    return {
        "us": {
            "enter": round(entering * 1e6 / count, 3),
            "leave": round(leaving * 1e6 / count, 3),
        },
        "bytes_per_timeout": round(resident / count, 1),
        "gc_ms": round(collecting * 1e3, 1),
        "late_us_p50": percentile(sorted(seconds * 1e6 for seconds in late), 0.5),
        "early": early,
        "ok": not early,
    }


def on_stock_loop(count: int, bars: Progress) -> dict[str, Any]:
    import asyncio

    return asyncio.run(many_timeouts(count, bars))


def on_own_loop(count: int, bars: Progress) -> dict[str, Any]:
    import timerheap.asyncio

    report: dict[str, Any] = timerheap.asyncio.run(many_timeouts(count, bars))
    return report


EVENT_LOOPS = {"asyncio": on_stock_loop, "timerheap": on_own_loop}


def compare_event_loops(options: argparse.Namespace) -> dict[str, Any]:
    """The program on each loop, in a process of its own: neither finds memory that the other has left."""
    report: dict[str, Any] = {"timeouts": options.timers}
    if options.loop:
        with progress() as bars:
            bars.phase(options.loop, options.timers)
            report[options.loop] = EVENT_LOOPS[options.loop](options.timers, bars)
        return report | {"ok": report[options.loop]["ok"]}
    for name in EVENT_LOOPS:
        command = [sys.executable, "-m", "timerheap", "asyncio", "--json"]
        command += ["--loop", name, "--timers", str(options.timers)]
        # In a process group of its own: Ctrl-C is for this process, which ends that one.
        done = subprocess.run(command, stdout=subprocess.PIPE, process_group=0, check=False)
        if done.returncode == -signal.SIGKILL:  # what the system does where memory ends
            raise MemoryError
        if done.returncode not in (0, 1) or not done.stdout:
            raise SystemExit(done.returncode or 1)  # it has said why
        report[name] = json.loads(done.stdout)[name]
    report["ok"] = report["timerheap"]["ok"]
    return report


def describe_event_loops(report: dict[str, Any]) -> Iterator[str]:
    """The report of the comparison, in lines for a person."""
    yield f"{report['timeouts']:,} times asyncio.timeout({HOUR:g}), pending at once, in a program of asyncio's alone"
    head = f"{'us to enter':>12}{'us to leave':>13}{'bytes each':>12}{'gc.collect()':>14}{'late, p50':>11}{'early':>7}"
    yield f"{'':12}{head}"
    for name in EVENT_LOOPS:
        if name in report:
            row = report[name]
            yield (
                f"{name:12}{row['us']['enter']:>12.2f}{row['us']['leave']:>13.2f}{row['bytes_per_timeout']:>12,.0f}"
                f"{microseconds(row['gc_ms'] * 1e3):>14}{microseconds(row['late_us_p50']):>11}{row['early']:>7}"
            )
    if not report["ok"]:
        yield "FAILED: a timeout was early"


# What is installed.


def information(_: argparse.Namespace) -> dict[str, Any]:
    """The installation and what its lateness depends on."""
    return {
        "timerheap": timerheap.__version__,
        "build": "debug" if _core.DEBUG else "release",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "extension": _core.__file__,
        "clock_resolution_ns": round(time.get_clock_info("monotonic").resolution * 1e9),
        "ok": True,
    }


def describe_information(report: dict[str, Any]) -> Iterator[str]:
    for name, value in report.items():
        if name != "ok":
            yield f"{name.replace('_', ' '):20} {value}"


# The command line.


def whole(text: str) -> int:
    """An argument that counts something: at least one."""
    value = int(text.replace(",", "").replace("_", ""))
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    most = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // TIMER_BYTES
    if value > most:
        raise argparse.ArgumentTypeError(f"must be at most {most:,} in the memory of this machine")
    return value


def seconds(text: str) -> float:
    """An argument that is a finite number of seconds."""
    value = float(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError("must be zero or a positive number of seconds")
    return value


def share(text: str) -> float:
    """An argument that is a share of the timers."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError("must be from 0 to 1")
    return value


def parser() -> argparse.ArgumentParser:
    """The command line of python -m timerheap."""
    top = argparse.ArgumentParser(
        prog="python -m timerheap",
        description="Arm many timers on one thread, stop and reset some, let the rest fire, and "
        "report what it cost and how late they were. Exits with 1 if one was lost or early.",
    )
    top.add_argument("--version", action="version", version=f"timerheap {timerheap.__version__}")
    top.add_argument("--json", action="store_true", help="the report for a program")
    top.add_argument("--timers", type=whole, metavar="N", help="how many (a million)")
    top.add_argument(
        "--spread",
        type=seconds,
        default=5.0,
        metavar="SECONDS",
        help="from the first deadline to the last (%(default)g)",
    )
    top.add_argument("--stop", type=share, default=0.25, metavar="SHARE", help="to stop (%(default)g)")
    top.add_argument("--reset", type=share, default=0.25, metavar="SHARE", help="to reset (%(default)g)")
    top.add_argument("--seed", type=int, default=1, help="of the random deadlines (%(default)d)")
    top.add_argument(
        "--patience",
        type=seconds,
        default=10.0,
        metavar="SECONDS",
        help="after the last deadline, before what has not fired counts as lost (%(default)g)",
    )
    top.add_argument("--array", action="store_true", help="on one TimerArray, by number, in place of AfterFuncs")
    top.set_defaults(job=try_timers, describe=describe_trial, many=10**6)

    commands = top.add_subparsers(metavar="command")
    threads = commands.add_parser(
        "threads",
        help="10,000 threading.Timers against 10,000 AfterFuncs: threads and memory",
    )
    threads.add_argument("--timers", type=whole, metavar="N", default=argparse.SUPPRESS, help="of each kind (10,000)")
    threads.set_defaults(job=compare_threads, describe=describe_threads, many=10_000)
    loops = commands.add_parser(
        "asyncio",
        help="a million asyncio.timeouts on asyncio's own loop and on timerheap's",
    )
    loops.add_argument("--timers", type=whole, metavar="N", default=argparse.SUPPRESS, help="of them (a million)")
    loops.add_argument("--loop", choices=EVENT_LOOPS, help="this one alone, in this process, not one after the other")
    loops.set_defaults(job=compare_event_loops, describe=describe_event_loops, many=10**6)
    info = commands.add_parser("info", help="what is installed")
    info.set_defaults(job=information, describe=describe_information)
    for command in (threads, loops, info):
        command.add_argument(
            "--json",
            action="store_true",
            default=argparse.SUPPRESS,
            help="the report for a program",
        )
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit status."""
    if sys.stdout is None:
        written()
        return UNWRITTEN
    try:
        options = parsed(arguments)
        if options is None:
            return UNWRITTEN
        report = options.job(options)
        lines = [json.dumps(report)] if options.json else options.describe(report)
        if not written(*lines):
            return UNWRITTEN
    except KeyboardInterrupt:
        say("interrupted")
        return INTERRUPTED
    except MemoryError:
        say("timerheap: there is not enough memory for so many timers")
        return OUT_OF_MEMORY
    return 0 if report["ok"] else 1


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace | None:
    """The options. SystemExit for what is a usage error or has been answered already; None where that answer could not
    be written."""
    top = parser()
    answer = io.StringIO()  # argparse takes no notice of what a stream does not take
    try:
        with contextlib.redirect_stdout(answer):
            options = top.parse_args(arguments)
    except SystemExit:
        if not written(*answer.getvalue().splitlines()):
            return None
        raise
    if options.stop + options.reset > 1:
        top.error("--stop and --reset together are more than all timers")
    if options.timers is None:
        options.timers = options.many
    return options


if __name__ == "__main__":
    sys.exit(main())
