"""The subjects: timerheap and everything it is measured against, on the same work.

A Python peer is some statements, put into the loops of LOOPS as timeit does it, so that nothing of this suite stands
between the timed loop and the library. To add one, subclass Peer:

    setup    once, before anything is timed: bind the names that the other statements use
    arm      h = a timer that calls `call` in `delay` seconds
    stop     cancel h
    reset    h anew, `delay` seconds from now; where a library has no reset, cancel, arm, and put the new one into
             handles[i]
    run      let timers fire, in this thread or another, until `halt` has been executed
    halt     executed by the last callback of a run
    sweep    after cancellations: whatever the library needs to get rid of what is left of them, untimed

Go is a program of its own (perf/go), driven through a pipe; it takes its times itself.
"""

import json
import os
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

clock = time.monotonic

# The timed loops. The empty callback is what armed timers would call; nothing of it is timed.
LOOPS = """
def make(clock, process_time):
    {setup}
    def nothing(*args):
        pass

    def arm(delays, handles):
        call = nothing
        start = clock()
        for i, delay in enumerate(delays):
            {arm}
            handles[i] = h
        return clock() - start

    def arm_stop(delays):
        call = nothing
        start = clock()
        for delay in delays:
            {arm}
            {stop}
        return clock() - start

    def reset(handles, delays):
        call = nothing
        start = clock()
        for i, (h, delay) in enumerate(zip(handles, delays)):
            {reset}
        return clock() - start

    def stop(handles):
        start = clock()
        for h in handles:
            {stop}
        return clock() - start

    def fire(delays, lead, spread, held):
        left = len(delays)
        first = end = 0

        def begin(*args):
            nonlocal first
            first = clock()

        def count(*args):
            nonlocal left, end
            left -= 1
            if not left:
                end = process_time() if spread else clock()
                {halt}

        handles = [None] * left if held else None
        due = clock() + lead
        call = begin
        delay = due - clock()
        {arm}
        call = count
        for i, after in enumerate(delays):
            delay = due + after - clock()
            {arm}
            if held:
                handles[i] = h
        del h
        if clock() > due:
            return None
        used = process_time()
        {run}
        return end - (used if spread else min(due, first or due))     # some fire early

    def sweep():
        {sweep}

    def late(next_due):
        # By how much timers are late of which each arms the next, for when next_due() says; None ends it.
        found = []
        due = 0

        def call(*args):
            nonlocal due
            found.append(clock() - due)
            due = next_due()
            if due is None:
                {halt}
                return
            delay = due - clock()
            {arm}

        due = next_due()
        delay = due - clock()
        {arm}
        {run}
        return found

    def late_all(dues):
        # The same for timers that are all armed beforehand.
        found = []
        left = len(dues)

        def at(due):
            def call(*args):
                nonlocal left
                found.append(clock() - due)
                left -= 1
                if not left:
                    {halt}

            return call

        handles = []
        for due in dues:
            call = at(due)
            delay = due - clock()
            {arm}
            handles.append(h)
        {run}
        return found

    return Loops(arm, arm_stop, reset, stop, fire, sweep, late, late_all)
"""


def installed(*packages):
    """Names and versions of the packages; None if one is not installed."""
    try:
        return " ".join(f"{package} {version(package)}" for package in packages)
    except PackageNotFoundError:
        return None


class Loops(NamedTuple):
    """What a peer's statements were made into; seconds, but for sweep, and for late, which gives a list of them."""

    arm: Callable
    arm_stop: Callable
    reset: Callable
    stop: Callable
    fire: Callable
    sweep: Callable
    late: Callable
    late_all: Callable


class Peer:
    name = ""
    packages: tuple[str, ...] = ()
    setup = "pass"
    arm = stop = reset = run = halt = ""
    sweep = "pass"
    most = 1_000_000
    """How many timers it is asked to hold."""
    few = 0
    """Where the usual number of operations would take too long, or too many threads: this many in one go, ten times as
    many beside few timers."""
    revives = False
    """Whether reset arms a timer that was stopped."""
    operations = ("arm", "arm_stop", "reset", "stop", "fire")

    @classmethod
    def versions(cls):
        return installed(*cls.packages)

    def loops(self):
        text = LOOPS
        for part in ("setup", "arm", "stop", "reset", "run", "halt", "sweep"):
            mark = "{" + part + "}"
            lines = []
            for line in text.split("\n"):
                indent = line[: len(line) - len(line.lstrip())]
                if "enumerate(zip(" in line and "[i]" not in self.reset:
                    line = indent + "for h, delay in zip(handles, delays):"
                elif mark in line:
                    line = textwrap.indent(textwrap.dedent(getattr(self, part)).strip(), indent)
                lines.append(line)
            text = "\n".join(lines)
        names = {"Loops": Loops}
        exec(compile(text, f"<{self.name}>", "exec"), names)
        return names["make"](clock, time.process_time)


class Timerheap(Peer):
    name = "timerheap"
    packages = ("timerheap",)
    setup = """
        from threading import Event
        from timerheap import AfterFunc
        finished = Event()
    """
    arm = "h = AfterFunc(delay, call)"
    stop = "h.stop()"
    reset = "h.reset(delay)"
    run = "finished.wait(); finished.clear()"
    halt = "finished.set()"
    most = 10_000_000
    revives = True
    operations = (*Peer.operations, "walk", "walk_reset", "fire_args", "fire_dropped", "fire_spread",
                  "fire_spread_tolerant")  # fmt: skip


def with_arguments(peer):
    """A Peer of the same kind whose callbacks get two arguments."""
    kind = type(peer)
    return type(kind.__name__, (kind,), {"arm": kind.arm.replace("call)", "call, 1, 2)")})()


def with_tolerance(peer):
    """Timerheap on a heap that may put off its wake-ups by half a millisecond."""
    setup = peer.setup + "\n        from timerheap import TimerHeap\n        heap = TimerHeap(tolerance=5e-4)\n"
    return type("Tolerant", (type(peer),), {"setup": setup, "arm": peer.arm.replace("call)", "call, heap=heap)")})()


class Asyncio(Peer):
    name = "asyncio"
    setup = """
        import asyncio
        loop = asyncio.new_event_loop()
        call_later = loop.call_later
    """
    arm = "h = call_later(delay, call)"
    stop = "h.cancel()"
    reset = "h.cancel(); h = handles[i] = call_later(delay, call)"
    run = "loop.run_forever()"
    halt = "loop.stop()"
    sweep = "loop.run_until_complete(asyncio.sleep(0))"
    operations = (*Peer.operations, "fire_args", "fire_spread")

    @classmethod
    def versions(cls):
        return f"CPython {sys.version.split()[0]}"


class Uvloop(Asyncio):
    name = "uvloop"
    packages = ("uvloop",)
    setup = """
        import asyncio
        import uvloop
        loop = uvloop.new_event_loop()
        call_later = loop.call_later
    """
    versions = Peer.__dict__["versions"]
    operations = (*Peer.operations, "fire_spread")  # with arguments it takes ten seconds to arm a million


class Gevent(Peer):
    name = "gevent"
    packages = ("gevent",)
    setup = """
        import gevent
        loop = gevent.get_hub().loop
        timer = loop.timer
    """
    arm = "h = timer(delay); h.start(call, update=True)"  # else it counts from the loop's last look at the clock
    stop = "h.stop()"
    reset = "h.stop(); h = handles[i] = timer(delay); h.start(call, update=True)"
    run = "loop.update_now(); loop.run()"
    halt = "loop.break_()"


class Twisted(Peer):
    name = "Twisted"
    most = 100_000  # a million take minutes to arm, sweep and collect garbage among
    packages = ("twisted",)
    setup = """
        from twisted.internet import reactor
        call_later = reactor.callLater
    """
    arm = "h = call_later(delay, call)"
    stop = "h.cancel()"
    reset = "h.reset(delay)"
    run = "reactor.startRunning(installSignalHandlers=False); reactor.mainLoop()"
    halt = "reactor.crash()"
    sweep = "reactor.runUntilCurrent()"


class Kombu(Peer):
    name = "kombu"
    most = 100_000  # a million take minutes to arm, sweep and collect garbage among
    packages = ("kombu",)
    setup = """
        from time import sleep
        from kombu.asynchronous.timer import Timer
        timer = Timer()
        call_after = timer.call_after
    """
    arm = "h = call_after(delay, call)"
    stop = "h.cancel()"
    reset = "h.cancel(); h = handles[i] = call_after(delay, call)"
    run = """
        for wait, entry in timer:
            if entry is not None:
                entry()
                if not left:
                    break
            elif wait:
                sleep(wait)
    """
    halt = "pass"


class Sched(Peer):
    name = "sched"
    setup = """
        from sched import scheduler
        timers = scheduler()
        enter, cancel = timers.enter, timers.cancel
    """
    arm = "h = enter(delay, 0, call)"
    stop = "cancel(h)"
    reset = "cancel(h); h = handles[i] = enter(delay, 0, call)"
    run = "timers.run()"
    halt = "for event in timers.queue: cancel(event)"
    few = 20
    versions = Asyncio.__dict__["versions"]


class Heapq(Peer):
    """The floor of pure Python: a list of [deadline, number, callback], cancelled in place, swept when it is met."""

    name = "heapq"
    setup = """
        from heapq import heappop, heappush
        from itertools import count
        from time import sleep
        timers, numbers = [], count()
    """
    arm = "h = [clock() + delay, next(numbers), call]; heappush(timers, h)"
    stop = "h[2] = None"
    reset = "h[2] = None; h = handles[i] = [clock() + delay, next(numbers), call]; heappush(timers, h)"
    run = """
        while left:
            wait = timers[0][0] - clock()
            if wait > 0:
                sleep(wait)
            callback = heappop(timers)[2]
            if callback is not None:
                callback()
    """
    halt = "pass"
    versions = Asyncio.__dict__["versions"]


class ThreadingTimer(Peer):
    name = "threading.Timer"
    setup = """
        from threading import Event, Timer
        finished = Event()
    """
    arm = "h = Timer(delay, call); h.daemon = True; h.start()"
    stop = "h.cancel()"
    reset = "h.cancel(); h = handles[i] = Timer(delay, call); h.daemon = True; h.start()"
    run = "finished.wait(); finished.clear()"
    halt = "finished.set()"
    most = 1000
    few = 20
    operations = ("arm", "arm_stop", "reset", "stop")
    versions = Asyncio.__dict__["versions"]


class Go:
    """The Go program, started once a process."""

    name = "Go"
    most = 10_000_000
    few = 0
    operations = (
        *Peer.operations, "fire_dropped", "fire_spread", "fire_spread_tolerant",
        "arm_first", "arm_last", "arm_channel", "arm_threads",
        "stop_front", "stop_middle", "stop_back", "reset_earlier", "reset_later", "round_trip", "after_recv",
        "ticker", "ticker_reset", "ticker_reset_naive", "select_2", "sleep_1us", "chain", "simultaneous",
        "start_stop", "adjust",
    )  # fmt: skip

    def __init__(self):
        self._process = subprocess.Popen([build_go()], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.communicate()

    def ask(self, *words):
        self._process.stdin.write(" ".join(map(str, words)) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    @classmethod
    def versions(cls):
        return None if build_go() is None else ask_go("version")


def ask_go(*words):
    """The answer of a Go process of its own."""
    with Go() as go:
        return go.ask(*words)


@cache
def build_go():
    """The path of the Go program, built once a version of its source; None where there is no Go."""
    go = shutil.which("go", path=os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", ""))))
    if go is None:
        return None
    source = Path(__file__).parent / "go"
    newest = max(path.stat().st_mtime_ns for path in source.iterdir())
    program = source.parents[1] / "build" / "perf" / f"go-{newest}"
    if not program.exists():
        program.parent.mkdir(parents=True, exist_ok=True)
        unfinished = program.with_suffix(f".{os.getpid()}")
        environment = {"GOCACHE": str(program.parent / "cache"), "GOFLAGS": "-buildvcs=false"}
        subprocess.run([go, "build", "-o", unfinished, "."], cwd=source, check=True, env=os.environ | environment)
        unfinished.rename(program)
    return program


SUBJECTS = {
    peer.name: peer for peer in (Timerheap, Go, Asyncio, Uvloop, Gevent, Twisted, Kombu, Sched, Heapq, ThreadingTimer)
}


def present():
    """The subjects that can run here, with their versions; says on stderr which are missing."""
    found = {name: peer.versions() for name, peer in SUBJECTS.items()}
    for name, what in found.items():
        if what is None:
            print(f"perf: {name} is not installed and is left out", file=sys.stderr)
    return {name: what for name, what in found.items() if what is not None}
