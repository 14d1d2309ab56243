"""A timer is on time beside threads that compute: the worker asks them for the GIL."""

import threading
import time

import pytest
from helpers import PATIENCE, run_ok

from timerheap import AfterFunc, TimerHeap

SWITCH = 4.0  # seconds that a thread which computes keeps the GIL in these tests, if it is not asked for it
ON_TIME = SWITCH / 2


@pytest.mark.parametrize("who", ["main", "other"])
@pytest.mark.parametrize("count", [1, 20])
def test_a_timer_is_not_late_by_a_switch_interval(who, count):
    """Neither the first, which starts the worker, nor those after it, all due within a switch interval. In one of three
    processes: where the system is slow to wake the worker, who gave the GIL up for it may have it again before."""
    code = f"""
        import sys, threading, time
        from timerheap import AfterFunc

        def fire(due):
            late.append(time.monotonic() - due)
            if len(late) < {count}:
                arm()

        def arm():
            AfterFunc(0.01, fire, time.monotonic() + 0.01)

        def compute():
            while len(late) < {count}:
                pass

        late = []
        sys.setswitchinterval({SWITCH})
        arm()
        if {who!r} == "main":
            compute()
        else:
            thread = threading.Thread(target=compute)
            thread.start()
            thread.join()
        print(min(late), max(late))
    """
    for _ in range(3):
        least, most = map(float, run_ok(code).split())
        assert least >= 0
        if most < ON_TIME:
            break
    assert most < ON_TIME


def test_what_asking_goes_by_is_looked_at_first():
    """Told of another switch interval than there is, nobody asks: a timer fires all the same, after that interval."""
    out = run_ok(f"""
        import sys, time
        said = sys.getswitchinterval
        sys.getswitchinterval = lambda: 2 * said()
        from timerheap import AfterFunc, _core
        sys.getswitchinterval = said
        late = []
        due = time.monotonic() + 0.01
        AfterFunc(0.01, lambda: late.append(time.monotonic() - due))
        while not late and time.monotonic() < due + {PATIENCE}:
            pass
        print(_core.ASKS_FOR_GIL, *late)
    """)
    asks, late = out.split()
    assert asks == "False"
    assert float(late) >= 0


BUSY = """
    def again(heap):
        AfterFunc(0.0003, again, heap, heap=heap)

    def compute(until):
        while time.monotonic() < until:
            pass

    heaps = [TimerHeap(f"heap {n}") for n in range(3)]
    for heap in heaps:
        again(heap)
"""


@pytest.mark.parametrize("ending", ["return", "sys.exit", "daemon", "handlers"])
def test_a_program_ends_while_the_gil_is_asked_for(ending):
    """Who has asked always comes for the GIL, or whoever gives it up waits for ever: here the main thread, when it
    sleeps in an exit handler and in the finalizer of what goes last."""
    for turn in range(10):
        run_ok(f"""
            import atexit, builtins, sys, threading, time
            atexit.register(time.sleep, 0.002)      # called after timerheap's own
            from timerheap import AfterFunc, TimerHeap

            class Last:
                def __del__(self, sleep=time.sleep):
                    sleep(0.002)

            {BUSY.replace(chr(10), chr(10) + " " * 8)}
            builtins.last = Last()
            if {ending!r} == "daemon":
                threading.Thread(target=compute, args=(time.monotonic() + 100,), daemon=True).start()
            if {ending!r} == "handlers":
                threading.Thread(target=compute, args=(time.monotonic() + 0.02,)).start()
                atexit.register(compute, time.monotonic() + 0.02)
            compute(time.monotonic() + 0.01 + {turn} * 0.0007)
            if {ending!r} == "sys.exit":
                sys.exit(0)
        """)


def test_a_fork_while_the_gil_is_asked_for():
    """The child has the request, and nobody in it who follows it up."""
    run_ok(f"""
        import os, threading, time, warnings
        from timerheap import AfterFunc, TimerHeap
        warnings.simplefilter("ignore", DeprecationWarning)     # of a fork beside threads
        {BUSY.replace(chr(10), chr(10) + " " * 4)}
        going = True

        def other():
            while going:
                compute(time.monotonic() + 0.001)

        thread = threading.Thread(target=other)
        thread.start()
        for _ in range(20):
            compute(time.monotonic() + 0.003)
            child = os.fork()
            if child == 0:
                time.sleep(0)
                fired = threading.Event()
                AfterFunc(0.002, fired.set, heap=heaps[0])
                compute(time.monotonic() + 0.004)
                time.sleep(0)
                os._exit(0 if fired.wait({PATIENCE}) else 1)
            assert os.waitpid(child, 0)[1] == 0
        going = False
        thread.join()
    """)


def test_a_worker_with_more_to_do_than_it_can_lets_others_have_the_gil():
    """Forty naps take a second. A worker that gives the GIL up only to take it again makes a minute of them."""

    def call():
        for _ in range(10_000):
            pass
        if not over.is_set():
            AfterFunc(0, call, heap=heap)

    over = threading.Event()
    with TimerHeap() as heap:
        AfterFunc(0, call, heap=heap)
        start = time.monotonic()
        for _ in range(40):
            time.sleep(0.005)
            assert time.monotonic() < start + PATIENCE
        over.set()
