"""What a worker hands to the threads and processes that its callbacks start: what it has itself been given, and nothing
that it has put on for its own sleep."""

import sys

import pytest
from helpers import SANITIZER, asks_proc, run_ok

from timerheap._core import PORTABLE

BLOCKED = """if True:
    import os, signal, subprocess, sys, threading, time
    from timerheap import AfterFunc, TimerHeap, default_heap

    def in_callback(func, *args, heap=None):
        got, done = [], threading.Event()
        AfterFunc(0, lambda: (got.append(func(*args)), done.set()), heap=heap)
        assert done.wait(30)
        return got[0]

    def blocked():
        '''The signals that the calling thread blocks, as the system tells it.'''
        return set(signal.pthread_sigmask(signal.SIG_BLOCK, ()))

    def child_blocks():
        code = "import signal; print(*map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ())))"
        return set(map(int, subprocess.check_output([sys.executable, "-S", "-c", code]).split()))

    def slack():
        import ctypes
        return ctypes.CDLL(None).prctl(30, 0, 0, 0, 0)      # PR_GET_TIMERSLACK
"""

FAULTS = "{signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP, signal.SIGABRT}"


def run(code, *args):
    return run_ok(BLOCKED + code, *args)


@pytest.mark.parametrize("restarted", [False, True], ids=["first worker", "after a fork"])
def test_signals_blocked_around_a_fork_are_not_blocked_in_callbacks(restarted):
    run(f"""
    import warnings
    warnings.simplefilter("ignore", DeprecationWarning)
    if {restarted}:
        timer = AfterFunc(3600, int)
        assert in_callback(blocked) == set()
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGINT])
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    time.sleep(0.01)                    # a pending call brings the worker back with the signals still blocked
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    assert in_callback(blocked) == set()
    assert in_callback(child_blocks) == set()
    """)


def test_a_program_that_blocks_a_signal_everywhere_has_it_blocked_in_callbacks_too():
    run("""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    assert in_callback(blocked) == {signal.SIGTERM}
    assert in_callback(child_blocks) == {signal.SIGTERM}
    """)


def test_a_worker_that_replaces_another_has_its_mask():
    """C code in a callback has ended the thread of the first one; who arms next has other signals blocked."""
    run("""
    import ctypes
    heap = TimerHeap("replaced")
    assert in_callback(blocked, heap=heap) == set()
    AfterFunc(0, ctypes.CDLL(None).pthread_exit, None, heap=heap)
    deadline = time.monotonic() + 30
    while "replaced" not in [t.name for t in threading.enumerate() if not t.is_alive()]:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGINT])
    assert in_callback(blocked, heap=heap) == set()
    assert blocked() == {signal.SIGTERM, signal.SIGINT}
    """)


def test_the_caller_blocks_nothing_while_python_code_can_run():
    """A collection in the middle of the start of a worker may run finalizers, and they may start processes."""
    run("""
    import gc
    seen = []

    class Cycle:
        def __init__(self):
            self.me = self
        def __del__(self):
            seen.append(blocked())

    for _ in range(50):
        heap = TimerHeap()
        cycles = [Cycle() for _ in range(20)]
        gc.set_threshold(1)
        del cycles
        AfterFunc(3600, int, heap=heap)
        gc.set_threshold(700, 10, 10)
        heap.close()
    gc.collect()
    assert len(seen) == 1000 and all(mask == set() for mask in seen)
    """)


@asks_proc
def test_a_parked_worker_blocks_all_signals_but_those_of_its_own_faults():
    run(f"""
    AfterFunc(3600, int)
    [worker] = [thread for thread in threading.enumerate() if thread is not threading.main_thread()]

    def parked():
        with open(f"/proc/self/task/{{worker.native_id}}/status") as status:
            [line] = [line for line in status if line.startswith("SigBlk")]
        bits = int(line.split()[1], 16)
        return {{number for number in range(1, 65) if bits >> (number - 1) & 1}}

    deadline = time.monotonic() + 30
    while signal.SIGTERM not in parked():
        assert time.monotonic() < deadline
        time.sleep(0.001)
    assert not parked() & {FAULTS}
    assert {{signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGALRM}} <= parked()
    """)


@pytest.mark.skipif(
    SANITIZER in ("asan", "tsan"), reason="after faulthandler its runtime ends the process, not the signal"
)
def test_faulthandler_reports_a_crash_of_the_worker():
    from helpers import run_python

    done = run_python("""
        import faulthandler, time
        from timerheap import AfterFunc
        faulthandler.enable()
        AfterFunc(0, faulthandler._sigsegv)
        time.sleep(20)
    """)
    assert done.returncode < 0
    assert "Segmentation fault" in done.stderr


linux_slack = pytest.mark.skipif(sys.platform != "linux", reason="timer slack is Linux's")


@linux_slack
def test_what_callbacks_start_has_the_timer_slack_of_the_program():
    run("""
    from concurrent.futures import ThreadPoolExecutor
    ours = slack()
    assert ours > 1

    def of_a_thread():
        got = []
        thread = threading.Thread(target=lambda: got.append(slack()))
        thread.start()
        thread.join()
        return got[0]

    def of_a_process():
        code = "import ctypes; print(ctypes.CDLL(None).prctl(30, 0, 0, 0, 0))"
        return int(subprocess.check_output([sys.executable, "-S", "-c", code]))

    for _ in range(3):
        assert in_callback(slack) == ours
        assert in_callback(of_a_thread) == ours
        assert in_callback(of_a_process) == ours
        time.sleep(0.02)                # it parks in between
    with ThreadPoolExecutor(1) as pool, TimerHeap(executor=pool) as heap:
        assert in_callback(slack, heap=heap) == ours
    """, "-W", "ignore::ResourceWarning")


@linux_slack
@pytest.mark.skipif(PORTABLE, reason="POSIX alone has no slack to set: the worker sleeps with that of the program")
def test_a_parked_worker_has_no_timer_slack():
    run("""
    AfterFunc(3600, int)
    [worker] = [thread for thread in threading.enumerate() if thread is not threading.main_thread()]
    deadline = time.monotonic() + 30
    while int(open(f"/proc/{worker.native_id}/timerslack_ns").read()) != 1:
        assert time.monotonic() < deadline
    """)
