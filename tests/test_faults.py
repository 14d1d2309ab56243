"""What the system refuses or does to the process: no memory, no threads, signals, a wall clock that jumps, a stop."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import FREE_THREADED, PATIENCE, PRELOADS, SANITIZER, run_ok, run_python

FAULTS = Path(__file__).parent / "faults"

SCENARIOS = (
    "arm", "arm_with_arguments", "grow", "drop", "stop", "reset", "reset_when_due", "periodic", "launch_periodic",
    "make_array", "arm_array", "arm_slot", "reset_slots_when_due", "launch_slots", "fire_slots", "pending", "channel",
    "ticker", "wait_for_many", "make_heap", "make_manual_heap", "start", "settle_in", "fire", "stand_by", "take_over",
)  # fmt: skip


@pytest.fixture(scope="session")
def shim(tmp_path_factory):
    """The environment of a process whose allocations, threads and wall clock can be tampered with."""
    if not PRELOADS:
        pytest.skip("no shim can be loaded before the C library here")
    if FREE_THREADED:
        pytest.skip("without a GIL Python has an allocator of its own, which no shim stands before")
    if SANITIZER in ("asan", "tsan"):
        pytest.skip("malloc and clock_gettime are the sanitizer's own, where the shim would have to stand")
    library = tmp_path_factory.mktemp("faults") / "shim.so"
    subprocess.run(["cc", "-O1", "-w", "-shared", "-fPIC", FAULTS / "shim.c", "-o", library, "-ldl"], check=True)
    return {"LD_PRELOAD": f"{library} {os.environ.get('LD_PRELOAD', '')}".strip(), "PYTHONMALLOC": "malloc"}


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_allocation_may_fail(shim, name):
    """In turn: see faults/driver.py for what is demanded after each."""
    done = run_python(f"import runpy, sys; sys.argv[1:] = [{name!r}]; runpy.run_path({str(FAULTS / 'driver.py')!r}, "
                      "run_name='__main__')", env=shim, timeout=110)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{name}: ")
    print(done.stdout)


def test_a_worker_without_memory_for_a_context_waits_for_it(shim):
    """It neither spins nor forgets what is due."""
    run_ok("""
        import contextvars, ctypes, sys, threading, time
        from collections import deque
        from timerheap import AfterFunc, TimerHeap
        shim = ctypes.CDLL(None)
        shim.fault_set.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long]
        told, fired = [], deque(range(10))
        sys.unraisablehook = lambda seen: told.append(seen)
        heap, done = TimerHeap("wanting"), threading.Event()
        AfterFunc(0, done.set, heap=heap)
        assert done.wait(30)
        fired.clear()                   # there is room for what comes
        for n in range(3):
            AfterFunc(0.2, fired.append, n, heap=heap)
        kept = [contextvars.Context() for _ in range(1000)]     # so that none is at hand
        shim.fault_set(1 | 2 | 8, 1, 0)
        time.sleep(0.3)
        before = time.process_time()
        time.sleep(0.5)
        used = time.process_time() - before
        late = not fired
        shim.fault_end()
        deadline = time.monotonic() + 30
        while len(fired) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        assert late and list(fired) == [0, 1, 2]
        assert used < 0.3, used         # of half a second, were it to spin
        heap.check()
    """, env=shim)


WALL = """
    import ctypes, time
    from timerheap import AfterFunc, Ticker, Timer, select, sleep
    shim = ctypes.CDLL(None)
    shim.fault_wall.argtypes = [ctypes.c_long]
"""


@pytest.mark.parametrize("hours", [1, -1])
def test_the_wall_clock_does_not_matter(shim, hours):
    """Moved by an hour while timers wait: nothing early, nothing late by it."""
    code = f"""
    late = []
    def fire(at): late.append(time.monotonic() - at)
    for n in range(1, 6):
        AfterFunc(n * 0.1, fire, time.monotonic() + n * 0.1)
    timer, ticker = Timer(0.3), Ticker(0.05)
    wall = time.time()
    shim.fault_wall({hours} * 3600)
    assert abs(time.time() - wall - {hours} * 3600) < 60
    ticks = [next(ticker) for _ in range(3)]
    AfterFunc(0.01, fire, time.monotonic() + 0.01)
    select(timer.c, timeout=20)
    sleep(0.3)
    try:
        Timer(3600).c.recv(timeout=0.1)
    except TimeoutError:
        pass
    for _ in range(2000):
        if len(late) == 6:
            break
        time.sleep(0.01)
    assert len(late) == 6 and 0 <= min(late) and max(late) < 20, late
    """
    run_ok(WALL + code, env=shim)


def test_receives_are_exact_under_a_rain_of_signals():
    """The main thread, which runs the handlers, blocks in every way a thousand signals a second."""
    run_ok("""
        import signal, time
        from timerheap import Ticker, Timer, select
        count = 0

        def handler(*args):
            global count
            count += 1

        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 1e-3, 1e-3)
        timer, ticker, never = Timer(3600), Ticker(2e-3), Timer(float("inf"))
        last = 0.0
        for n in range(150):
            assert timer.reset(3e-3) is (n == 0)
            when = timer.when
            assert timer.c.recv() == when <= time.monotonic()
            assert timer.reset(2e-3) is False
            when = timer.when
            channel, value = select(never.c, timer.c)
            assert (channel, value) == (timer.c, when) and when <= time.monotonic()
            tick = next(ticker)
            assert last < tick <= time.monotonic()
            last = tick
            start = time.monotonic()
            try:
                never.c.recv(timeout=1e-3)
            except TimeoutError:
                assert time.monotonic() - start >= 1e-3
        signal.setitimer(signal.ITIMER_REAL, 0)
        assert count > 50, count
    """)


def test_a_process_that_was_stopped_catches_up_with_one_tick():
    """SIGSTOP, three seconds, SIGCONT: one tick for the time away, and on along the grid.

    What is demanded holds exactly and of every receive, so neither a busy machine nor another stop can break it.
    """
    code = """
        import math, sys, time
        from timerheap import AfterFunc, Ticker
        runs = []
        def again():
            runs.append(time.monotonic())
            AfterFunc(0.1, again)
        again()
        back = math.inf
        with Ticker(0.1) as ticker:
            ticks, seen = [next(ticker)], [time.monotonic()]
            print("ready", flush=True)
            while ticks[-1] < back + 1:
                ticks.append(next(ticker))
                seen.append(time.monotonic())
                if back == math.inf and seen[-1] - seen[-2] > 2:
                    back = seen[-1]
        while runs[-1] < back:
            time.sleep(0.001)
        steps = [(tick - ticks[0]) / 0.1 for tick in ticks]
        assert all(abs(step - round(step)) < 1e-6 for step in steps), steps
        assert all(tick <= at for tick, at in zip(ticks, seen)), (ticks, seen)
        # The oldest tick not yet delivered comes first; those missed after it are dropped: the next but one is ahead.
        assert all(tick <= at + 0.1 + 1e-6 for tick, at in zip(ticks[1:], seen)), (ticks, seen)
        assert all(tick > at for tick, at in zip(ticks[2:], seen)), (ticks, seen)
        assert all(later - run > 0.1 - 1e-6 for run, later in zip(runs, runs[1:])), runs
    """
    program = "\n".join(line[8:] for line in code.splitlines())
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"ready\n"
        os.kill(child.pid, signal.SIGSTOP)
        time.sleep(3)
        os.kill(child.pid, signal.SIGCONT)
        _, errors = child.communicate(timeout=PATIENCE)
    assert (child.returncode, errors) == (0, b"")


@pytest.fixture(scope="session")
def late(tmp_path_factory):
    """The environment of a process whose threads can be kept on their way into a wait, see faults/late.c."""
    if not PRELOADS:
        pytest.skip("no shim can be loaded before the C library here")
    library = tmp_path_factory.mktemp("late") / "late.so"
    subprocess.run(["cc", "-O1", "-w", "-shared", "-fPIC", FAULTS / "late.c", "-o", library, "-ldl"], check=True)
    return {"LD_PRELOAD": f"{os.environ.get('LD_PRELOAD', '')} {library}".strip()}


@pytest.mark.parametrize("executor", ["ThreadPoolExecutor(2)", "None"])
def test_a_close_hears_of_a_callback_that_goes_into_a_close_just_before_it_sleeps(late, executor):
    out = run_ok(f"""
        import ctypes, threading, time
        from concurrent.futures import ThreadPoolExecutor
        from timerheap import AfterFunc, TimerHeap
        on, arrived, released = (ctypes.c_int.in_dll(ctypes.CDLL(None), f"late_{{name}}")
                                 for name in ("on", "arrived", "released"))
        heap, other = TimerHeap(executor={executor}), TimerHeap()
        began, busy, go, done = (threading.Event() for _ in range(4))

        def callback():
            began.set()
            go.wait()
            other.close()

        AfterFunc(0, lambda: busy.set() or done.wait(), heap=other)
        AfterFunc(0, callback, heap=heap)
        busy.wait()
        began.wait()
        closing = threading.Thread(target=heap.close)
        on.value = 1
        closing.start()
        while not arrived.value:
            time.sleep(0.001)
        time.sleep(0.2)         # it is on its way into the wait for the callback
        go.set()
        time.sleep(0.2)         # which is in the other close by now, and has said so
        released.value = 1
        closing.join({PATIENCE})
        print("waits" if closing.is_alive() else "over")
        done.set()
    """, env=late)
    assert out == "over\n"
