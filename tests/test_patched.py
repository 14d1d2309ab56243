"""The worker is a real thread that fires, whatever a program has put in the place of threading's names."""

import importlib.util
import sys
from pathlib import Path

import pytest
from helpers import run_ok, run_python

EXAMPLES = Path(__file__).parent.parent / "examples"

PATCH = {
    "gevent": "from gevent import monkey; monkey.patch_all()",
    "eventlet": "import eventlet; eventlet.monkey_patch()",
}

green = pytest.mark.parametrize("library", [
    pytest.param(name, marks=pytest.mark.skipif(importlib.util.find_spec(name) is None, reason=f"needs {name}"))
    for name in PATCH
])


def run_patched(code, **options):
    """As run_ok, with no warnings: eventlet says at its import that it is deprecated."""
    return run_ok("import warnings; warnings.simplefilter('ignore')\n" + code, "-W", "ignore", **options)


@green
@pytest.mark.parametrize("order", ["patched first", "imported first", "running first"])
def test_timers_fire_beside_patched_threads(library, order):
    before = {"patched first": "", "imported first": "import timerheap", "running first":
              "import timerheap; early = timerheap.AfterFunc(0.2, lambda: fired.append('early'))"}[order]
    run_patched(f"""if True:
        fired = []
        {before}
        {PATCH[library]}
        import threading, time
        from timerheap import AfterFunc, TimerHeap, default_heap
        heap = TimerHeap("own")
        kept = [AfterFunc(0.01, fired.append, n, heap=heap) for n in range(10)]
        other = AfterFunc(0.01, fired.append, "default")
        assert "own" in [thread.name for thread in threading.enumerate()]
        expected = 11 + ({order!r} == "running first")
        deadline = time.monotonic() + 20
        while len(fired) < expected:
            assert time.monotonic() < deadline, fired
            time.sleep(0.001)
        heap.close()
        default_heap().close()
        assert len(threading.enumerate()) == 1, threading.enumerate()
    """)


@green
@pytest.mark.parametrize("order", ["patched first", "imported first"])
def test_timers_by_the_name_of_threadings_fire_beside_patched_threads(library, order):
    run_patched(f"""if True:
        {"" if order == "patched first" else "import timerheap.threading"}
        {PATCH[library]}
        import threading, time
        import timerheap.threading
        fired = []
        timerheap.threading.install()
        timer = threading.Timer(0.01, fired.append, ["own"])
        timer.start()
        timerheap.threading.uninstall()
        standard = threading.Timer(0.01, fired.append, ["standard"])
        standard.start()
        deadline = time.monotonic() + 20
        while len(fired) < 2:
            assert time.monotonic() < deadline, fired
            time.sleep(0.001)
        standard.join()
        timer.cancel()
        assert sorted(fired) == ["own", "standard"]
    """)


@green
@pytest.mark.parametrize("end", ["signal", "return"])
def test_a_patched_program_ends(library, end):
    code = f"""if True:
        {PATCH[library]}
        import os, signal, time
        from timerheap import AfterFunc
        signal.signal(signal.SIGTERM, lambda *args: os._exit(0))
        AfterFunc(3600, print)
        if {end!r} == "signal":
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(20)
            os._exit(1)
    """
    run_patched(code)


@pytest.mark.skipif(importlib.util.find_spec("gevent") is None, reason="needs gevent")
def test_the_gevent_example():
    out = run_patched(f"import runpy; runpy.run_path({str(EXAMPLES / 'gevent_hub.py')!r}, run_name='__main__')")
    assert out.splitlines() == ["first begins", "second begins", "first ends", "second ends"]


REPLACED = {
    "threading.Thread": "mock.patch('threading.Thread')",
    "Thread.start": "mock.patch.object(threading.Thread, 'start')",
    "Thread.start raises": "mock.patch.object(threading.Thread, 'start', side_effect=RuntimeError)",
    "Thread.__init__ raises": "mock.patch.object(threading.Thread, '__init__', side_effect=RuntimeError)",
    "Thread.run": "mock.patch.object(threading.Thread, 'run')",
    "current_thread": "mock.patch('threading.current_thread')",
    "get_ident": "mock.patch('threading.get_ident')",
    "main_thread": "mock.patch('threading.main_thread')",
    "_active": "mock.patch('threading._active')",
    "_thread.start_new_thread": "mock.patch('_thread.start_new_thread')",
    "threading._start_new_thread": "mock.patch('threading._start_new_thread', create=True)",
    "sys.settrace": "mock.patch('sys.settrace')",
}


@pytest.mark.parametrize("imported", ["before", "within"])
@pytest.mark.parametrize("name", REPLACED)
def test_a_heap_works_while_and_after_names_are_replaced(name, imported):
    run_ok(f"""if True:
        import _thread, threading, time
        from unittest import mock
        fired = []

        def wait_for(count):
            deadline = time.monotonic() + 20
            while len(fired) < count:
                assert time.monotonic() < deadline, fired
                time.sleep(0.001)

        if {imported!r} == "before":
            import timerheap
        with {REPLACED[name]}:
            from timerheap import AfterFunc, default_heap
            AfterFunc(30, print).stop()
            AfterFunc(0, fired.append, 1)
            wait_for(1)
        AfterFunc(0, fired.append, 2)
        wait_for(2)
        default_heap().close()
        AfterFunc(0, fired.append, 3)
        wait_for(3)
    """)


@pytest.mark.parametrize("hook", ["settrace", "setprofile"])
def test_a_trace_function_that_raises_costs_no_timer(hook):
    """It raises in the callback, if anywhere; the worker itself shows it no frames."""
    run_ok(f"""if True:
        import sys, threading, time
        from timerheap import AfterFunc, TimerHeap
        fired, errors = [], []

        def hook(frame, event, arg):
            raise LookupError("from the hook")

        heap = TimerHeap("traced", on_error=lambda exc, timer: errors.append(exc))
        threading.{hook}(hook)
        AfterFunc(30, int, heap=heap).stop()
        AfterFunc(0, lambda: fired.append(1), heap=heap)
        for n in range(10):
            AfterFunc(0, fired.append, n, heap=heap)
        threading.{hook}(None)
        deadline = time.monotonic() + 20
        while len(fired) + len(errors) < 11 or heap.stats()["armed"]:
            assert time.monotonic() < deadline, (fired, errors)
            time.sleep(0.001)
        assert all(isinstance(exc, LookupError) for exc in errors)
    """)


def test_an_asynchronous_exception_costs_no_timer():
    done = run_python("""if True:
        import ctypes, threading, time
        from timerheap import AfterFunc, TimerHeap
        raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
        raise_in.argtypes = [ctypes.c_ulong, ctypes.py_object]
        for number in range(50):
            seen = []
            heap = TimerHeap("aimed at", on_error=lambda exc, timer: seen.append(exc))
            kept = AfterFunc(3600, int, heap=heap)
            [worker] = [thread for thread in threading.enumerate() if thread.name == "aimed at"]
            time.sleep(1e-5 * number)           # before it has arrived, and after
            raise_in(worker.ident, LookupError)
            for n in range(3):
                AfterFunc(0, lambda: seen.append(1), heap=heap)
            deadline = time.monotonic() + 20
            while len(seen) < 3:
                assert time.monotonic() < deadline, (number, seen)
                time.sleep(0.001)
            heap.close()
    """)
    assert done.returncode == 0, done   # where it had arrived in the worker itself, stderr tells of it


@pytest.mark.skipif(sys.version_info < (3, 12), reason="older ones have threads without a limit there")
def test_the_last_names_that_threads_go_by_are_not_needed():
    """Where _thread refuses to start one (an interpreter that is shutting down does so, on 3.12)."""
    run_ok("""if True:
        import _thread, threading
        from timerheap import AfterFunc
        def refuse(*args, **kwargs):
            raise RuntimeError("can't create new thread at interpreter shutdown")
        for name in [name for name in vars(_thread) if name.startswith("start_")]:
            setattr(_thread, name, refuse)
        for name in [name for name in vars(threading) if name.startswith("_start_")]:
            setattr(threading, name, refuse)
        fired = threading.Event()
        AfterFunc(0, fired.set)
        assert fired.wait(20)
    """)
