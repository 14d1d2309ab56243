"""Exit: it waits for no timer, never hangs, never crashes, prints nothing."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest
from helpers import run_ok

LOADS = {
    "100k pending": "keep = [AfterFunc(3600 + n, int) for n in range(100_000)]",
    "a callback asleep": "AfterFunc(0, time.sleep, 30); time.sleep(0.05)",
    "a busy callback chain": "def chain(): AfterFunc(0, chain)\nchain()",
    "a fast ticker": "ticker = Ticker(1e-6); ticker.c.recv()",
    "arming from __del__": (
        "class Late:\n    def __del__(self): AfterFunc(0, int); AfterFunc(3600, int).stop()\n"
        "late = Late(); late.cycle = late; held = Late()"
    ),
    "arming from atexit": "atexit.register(AfterFunc, 0, int); atexit.register(AfterFunc, 3600, int)",
    "first use in atexit": "atexit.register(lambda: TimerHeap('late') and AfterFunc(0, int, heap=TimerHeap('later')))",
}

ENDS = {
    "return": ("pass", 0),
    "sys.exit": ("sys.exit(3)", 3),
    "exception": ("raise KeyError('the end')", 1),
    "SIGTERM": ("os.kill(os.getpid(), signal.SIGTERM); time.sleep(30)", -signal.SIGTERM),
    "Ctrl-C": ("os.kill(os.getpid(), signal.SIGINT); time.sleep(30)", -signal.SIGINT),
}


@pytest.fixture(scope="session")
def worst():
    """The longest that any process took to end; shown at the end with -s."""
    seconds = {"": 0.0}
    yield seconds
    print(f"\nworst exit: {max(seconds.values()):.2f} s, {max(seconds, key=seconds.get)}")


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("load", LOADS)
def test_exit_is_quick_clean_and_silent(load, end, worst, pytestconfig):
    code, status = ENDS[end]
    program = "\n".join((
        "import atexit, os, signal, sys, time",
        "from timerheap import AfterFunc, Ticker, TimerHeap",
        LOADS[load],
        "print('armed', flush=True)",
        code,
    ))
    command = [sys.executable, "-X", "faulthandler", "-c", program]
    expected = {"exception": "KeyError: 'the end'", "Ctrl-C": "KeyboardInterrupt"}.get(end, "")
    for _ in range(pytestconfig.getoption("life_repeat")):
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
            assert child.stdout.readline() == "armed\n"
            started = time.monotonic()
            rest, errors = child.communicate(timeout=25)
        seconds = time.monotonic() - started
        worst[f"{load}, {end}"] = max(seconds, worst.get(f"{load}, {end}", 0.0))
        assert (child.returncode, rest) == (status, "")
        # A callback asleep for 30 s would show here, a slow machine would not.
        assert seconds < pytestconfig.getoption("exit_limit")
        lines = errors.strip().splitlines()
        assert (lines[-1] if lines else "") == expected
        assert errors.count("Traceback") == (1 if expected else 0)


def test_hundreds_of_workers_inside_callbacks_are_left_behind_together():
    """Exit gives each a moment, and all of them the same one: in turn they would outlast this test."""
    run_ok("""
        import threading, time
        from timerheap import AfterFunc, TimerHeap
        inside = threading.Semaphore(0)
        heaps = [TimerHeap(str(n)) for n in range(800)]
        for heap in heaps:
            AfterFunc(0, lambda: inside.release() or time.sleep(100), heap=heap)
        for heap in heaps:
            inside.acquire()
    """, timeout=30)


def test_a_timer_that_finds_its_pool_shut_down_at_exit_is_silent():
    """The pools are shut down before exit handlers run, and wait for their jobs then."""
    run_ok("""
        import threading, time
        from concurrent.futures import ThreadPoolExecutor
        from timerheap import AfterFunc, TimerHeap
        pool = ThreadPoolExecutor(1)
        heap = TimerHeap(executor=pool)
        inside = threading.Event()
        pool.submit(lambda: inside.set() or time.sleep(1))
        inside.wait(30)
        for n in range(100):
            AfterFunc(n * 0.01, int, heap=heap)
    """)


def test_closing_a_heap_at_exit_waits_for_no_callback():
    """Handlers registered before the import run after the worker has been left behind inside its callback."""
    run_ok("""
        import atexit, threading
        atexit.register(lambda: heap.close())
        from timerheap import AfterFunc, TimerHeap
        heap = TimerHeap()
        inside = threading.Event()
        AfterFunc(0, lambda: inside.set() or threading.Event().wait(), heap=heap)
        inside.wait(30)
    """)


def test_virtual_time_can_be_advanced_at_exit():
    out = run_ok("""
        import atexit

        @atexit.register
        def late():
            heap.advance(1)
            other = ManualHeap()
            AfterFunc(1, print, "made at exit", heap=other)
            other.advance(1)

        from timerheap import AfterFunc
        from timerheap.testing import ManualHeap
        heap = ManualHeap()
        timer = AfterFunc(1, print, "fired", heap=heap)
    """)
    assert out == "fired\nmade at exit\n"


def test_ctrl_c_ends_a_blocked_receive():
    program = textwrap.dedent("""
        from timerheap import Timer
        print("waiting", flush=True)
        Timer(3600).c.recv()
    """)
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "waiting\n"
        time.sleep(0.2)
        os.kill(child.pid, signal.SIGINT)
        _, err = child.communicate(timeout=25)
    assert child.returncode == -signal.SIGINT
    assert err.rstrip().endswith("KeyboardInterrupt")


def test_who_has_lost_the_post_is_left_behind_like_a_worker():
    """A parked worker gets a second to leave, a callback that has outrun the patience the moment that all others get.
    The quickest of three programs, for one may find the machine busy."""
    seconds = [float(run_ok("""
        import threading, time
        from timerheap import AfterFunc, TimerHeap, _core
        heap = TimerHeap(patience=0.001)
        AfterFunc(0, threading.Event().wait, heap=heap)
        while heap.stats()["handovers"] == 0:
            time.sleep(0.001)
        time.sleep(0.1)     # until who has taken over is parked
        began = time.monotonic()
        _core.stop_at_exit()
        print(time.monotonic() - began)
    """)) for _ in range(3)]  # fmt: skip
    assert min(seconds) < 0.9
