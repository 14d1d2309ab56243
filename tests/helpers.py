"""What several modules need: bounded waits, threads that report, and processes that are watched.

Nothing here can hang: every wait has an end, and a process that outlives its own is made to
dump the stacks of all its threads before it dies.
"""

import asyncio
import os
import signal
import subprocess
import sys
import sysconfig
import textwrap
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))

SANITIZER = os.environ.get("TIMERHEAP_SANITIZED", "")
"""asan, ubsan or tsan under `make` of that name, which loads its runtime into every process."""

EAGER = (1, 0) if FREE_THREADED else (1,)
"""For gc.set_threshold: a collection at (nearly) every allocation of a container; without a GIL at every 512th of a
thread, and the 0 keeps it from waiting for a quarter more of what is there."""

PATIENCE = 30.0
"""Seconds after which something that must happen is taken not to: generous, for a busy machine."""

PRELOADS = sys.platform == "linux"
"""Whether a library of the test's own can stand before the C library by LD_PRELOAD."""

asks_proc = pytest.mark.skipif(
    not os.path.isdir("/proc/self/task"), reason="what is asked here, this system does not tell in /proc"
)
"""For a test that needs to know of its process what only Linux tells."""

FAR = 3600.0
"""A delay, in seconds, that no test lives to see the end of."""


def loop_classes():
    """The event loops that tests of timerheap.asyncio run on, for parametrize: asyncio's own, ours, and uvloop's."""
    from timerheap.asyncio import EventLoop

    loops = [pytest.param(asyncio.SelectorEventLoop, id="stock"), pytest.param(EventLoop, id="EventLoop")]
    try:
        from uvloop import Loop
    except ImportError:
        missing = pytest.mark.skip(reason="uvloop is not installed: pip install 'timerheap[green]'")
        return [*loops, pytest.param(None, id="uvloop", marks=missing)]
    return [*loops, pytest.param(Loop, id="uvloop")]


def wait_until(condition, timeout=PATIENCE):
    """Poll `condition` until it holds; fail after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "what was waited for did not happen"
        time.sleep(0.001)


def turns(count, seconds=10.0):
    """range(count), cut short after so many seconds: on a busy machine, under a sanitizer, a hand-over between threads
    takes a tenth of one."""
    end = time.monotonic() + seconds
    for turn in range(count):
        yield turn
        if time.monotonic() > end:
            break


def run_threads(count, target):
    """Run `target(index)` in `count` threads released together; their results, in index order.

    An exception in any of them is raised here.
    """
    barrier = threading.Barrier(count)
    results = [None] * count
    errors = []

    def run(index):
        try:
            barrier.wait(PATIENCE)
            results[index] = target(index)
        except BaseException as exc:
            errors.append(exc)

    threads = [threading.Thread(target=run, args=(index,), daemon=True) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * PATIENCE)
        assert not thread.is_alive(), "a thread hangs"
    if errors:
        raise errors[0]
    return results


@contextmanager
def no_threads():
    """The system refuses every new thread within the block: it has no room for stacks so large."""
    before = threading.stack_size(1 << 47)
    try:
        yield
    finally:
        threading.stack_size(before)


class Background:
    """A thread running `func(*args)`; `.result()` joins it and returns or raises what it did."""

    def __init__(self, func, *args):
        self._func = func
        self._args = args
        self._value = None
        self._error = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        try:
            self._value = self._func(*self._args)
        except BaseException as exc:
            self._error = exc

    @property
    def running(self):
        return self._thread.is_alive()

    def result(self, timeout=PATIENCE):
        self._thread.join(timeout)
        assert not self._thread.is_alive(), "the thread hangs"
        if self._error is not None:
            raise self._error
        return self._value


@dataclass
class Finished:
    """How a process ended. `seconds` runs from its line "ready" (or its start) to its end."""

    returncode: int
    stdout: str
    stderr: str
    seconds: float


def run_python(code, *flags, send=None, cwd=None, env=None, timeout=2 * PATIENCE):
    """Run `code` in an interpreter of its own, with `flags` and what `env` adds to the environment; `Finished` when
    it has ended.

    With `send`, a signal, the code must print a line "ready" (flushed), upon which it gets it.
    A process that takes longer than `timeout` seconds is aborted, and the stacks it dumps are
    the failure's message.
    """
    process = subprocess.Popen(
        [sys.executable, "-X", "faulthandler", *flags, "-c", textwrap.dedent(code)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env=None if env is None else os.environ | env,
        start_new_session=True,
    )
    start = time.monotonic()
    try:
        ready = ""
        if send is not None:
            ready = process.stdout.readline()
            assert ready == "ready\n", ready + process.stderr.read()
            start = time.monotonic()
            process.send_signal(send)
        stdout, stderr = process.communicate(timeout=timeout)
        return Finished(process.returncode, ready + stdout, stderr, time.monotonic() - start)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)  # faulthandler prints every thread's stack
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            pass
        _kill_group(process)
        raise AssertionError(
            f"the process hangs\n{process.stdout.read()}\n{process.stderr.read()}"
        ) from None
    finally:
        _kill_group(process)
        process.wait()
        process.stdout.close()
        process.stderr.close()


def _kill_group(process):
    """End the process and whatever it forked (they share its session)."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def run_ok(code, *flags, **options):
    """`run_python`, which must exit with 0 and print nothing to stderr; its stdout."""
    done = run_python(code, *flags, **options)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


# Before code for run_python, which imports os.
FORKED = """
    def forked(child):
        '''Run child() in a forked process; its exit status.'''
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                child()
                code = 0
            finally:
                os._exit(code)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""


def balance(heap):
    """The ledger of a heap without tickers: what was armed, less what became of it. Must be 0."""
    stats = heap.stats()
    return stats["arms"] - stats["fired"] - stats["received"] - stats["cancelled"] - len(heap)
