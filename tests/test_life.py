"""Life in company: under pytest-xdist, in subinterpreters, in threads that outlast the main one."""

import importlib.util
import os
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from helpers import SANITIZER, run_ok, run_python


@pytest.mark.skipif(importlib.util.find_spec("xdist") is None, reason="needs pytest-xdist")
def test_timers_in_the_workers_of_xdist(tmp_path):
    (tmp_path / "test_it.py").write_text(
        "import threading\n"
        "import pytest\n"
        "from timerheap import AfterFunc, Timer, Ticker, default_heap\n"
        "@pytest.mark.parametrize('n', range(20))\n"
        "def test_it(n):\n"
        "    done = threading.Event()\n"
        "    AfterFunc(0.01, done.set)\n"
        "    AfterFunc(3600, print)\n"
        "    assert done.wait(30) and Timer(0).c.recv(30) and next(Ticker(0.001))\n"
        "    default_heap().check()\n"
    )
    done = run_python(
        "import pytest, sys; sys.exit(pytest.main(['-q', '-n', '2', '-p', 'no:cacheprovider', 'test_it.py']))",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "20 passed" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("first", ["import timerheap", "pass"], ids=["imported before", "not imported before"])
def test_subinterpreters_are_refused(first):
    out = run_ok(f"""
        import sys
        try:
            import _interpreters as interpreters
        except ImportError:
            import _xxsubinterpreters as interpreters
        {first}
        interpreter = interpreters.create()
        problem = interpreters.run_string(interpreter, '''if True:
            try:
                import timerheap
            except ImportError as exc:
                print("refused:", exc, flush=True)
            else:
                print("imported", flush=True)
        ''')
        assert problem is None, problem
        interpreters.destroy(interpreter)
        import timerheap
        assert timerheap.after(0.01).recv(30)
    """)
    assert out.startswith("refused: ")
    assert "subinterpreter" in out or "does not support loading in subinterpreters" in out


def test_threads_that_outlast_the_main_thread_go_on_with_timers():
    """The interpreter waits for them; the worker stays until they are done."""
    run_ok("""
        import threading, time
        from timerheap import AfterFunc, Timer
        AfterFunc(3600, print)

        def outlast():
            threading.main_thread().join()
            for _ in range(5):
                done = threading.Event()
                AfterFunc(0.01, done.set)
                assert done.wait(30)
                assert Timer(0.01).c.recv(30)

        threading.Thread(target=outlast).start()
    """)


def test_a_first_timer_after_the_end_of_the_main_thread_fires():
    """Though _thread starts no other by then, on 3.12."""
    out = run_ok("""
        import threading
        from timerheap import AfterFunc, TimerHeap

        def late():
            threading.main_thread().join()
            for heap in None, TimerHeap("late"):
                done = threading.Event()
                AfterFunc(0.01, done.set, heap=heap)
                print(done.wait(30), flush=True)

        threading.Thread(target=late).start()
    """)
    assert out == "True\nTrue\n"


def test_no_thread_for_a_first_timer_after_the_end_of_the_main_thread_is_an_error():
    """Threads that outlast the main one are not the end of the program."""
    out = run_ok(f"""
        import sys, threading
        sys.path.insert(0, {os.path.dirname(__file__)!r})
        from helpers import no_threads
        from timerheap import AfterFunc, default_heap

        def late():
            threading.main_thread().join()
            try:
                with no_threads():
                    AfterFunc(0.01, print, "never")
            except RuntimeError as exc:
                print(exc, len(default_heap()))
            done = threading.Event()
            AfterFunc(0.01, done.set)
            print(done.wait(30), flush=True)

        threading.Thread(target=late).start()
    """)
    assert out == "can't start new thread: the timer heap has no worker 0\nTrue\n"


def test_a_pool_that_is_shut_down_while_threads_go_on_is_an_error_of_the_callback():
    out = run_ok("""
        import threading
        from concurrent.futures import ThreadPoolExecutor
        from timerheap import AfterFunc, TimerHeap
        pool = ThreadPoolExecutor(1)
        told = threading.Event()
        heap = TimerHeap(executor=pool, on_error=lambda exc, timer: (print(type(exc).__name__), told.set()))

        def late():
            threading.main_thread().join()
            AfterFunc(0.01, int, heap=heap)
            assert told.wait(30)

        pool.submit(int).result()
        threading.Thread(target=late).start()
    """)
    assert out == "RuntimeError\n"


def test_arming_when_the_program_has_ended_is_silent():
    run_ok("""
        import atexit
        atexit.register(lambda: AfterFunc(0, print, "never"))       # runs after the exit handler of the import below
        from timerheap import AfterFunc
    """)


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="no fork is allowed there")
def test_a_fork_in_a_finalizer_at_exit_does_not_hang_the_child():
    """No thread can run Python there any more, in the child as little as in the parent: what is armed never fires."""
    done = run_python("""
        import os, sys, warnings
        warnings.simplefilter("ignore")
        from timerheap import AfterFunc, TimerHeap

        class Last:
            def __init__(self):
                self.fork, self.wait, self.leave, self.arm, self.print = os.fork, os.waitpid, os._exit, AfterFunc, print
                self.heap, self.sleep = TimerHeap(), __import__("time").sleep
                self.held = AfterFunc(3600, int)

            def __del__(self):
                pid = self.fork()
                if pid == 0:
                    self.arm(0, self.print, "never")
                    self.arm(0, self.print, "never", heap=self.heap)
                    self.sleep(0.05)
                    self.leave(7)
                self.print(self.wait(pid, 0)[1] >> 8, flush=True)

        sys.modules["keeps it to the end"] = Last()
    """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "7\n", ""), done


@pytest.mark.skipif(sys.version_info[:2] == (3, 12), reason="no fork is allowed there")
def test_a_fork_in_an_exit_handler_leaves_a_child_that_has_timers():
    out = run_ok("""
        import atexit, os, sys, threading, warnings
        warnings.simplefilter("ignore")
        from timerheap import AfterFunc

        def last():
            pid = os.fork()
            if pid == 0:
                done = threading.Event()
                AfterFunc(0, done.set)
                os._exit(0 if done.wait(10) else 1)
            print(os.waitpid(pid, 0)[1], flush=True)

        timer = AfterFunc(3600, int)
        atexit.register(last)
    """)
    assert out == "0\n"


EMBEDDED = r"""
#include <Python.h>

int main(int argc, char **argv)
{
    for (int life = 0; life < 2 && argc > 1; life++) {
        Py_Initialize();
        PyRun_SimpleString(argv[1]);
        if (Py_FinalizeEx() < 0)
            return 2;
    }
    return 0;
}
"""


def python_library():
    """The library that a program with an interpreter inside links with, or None."""
    places = ("LIBDIR", "LDLIBRARY"), ("LIBPL", "LDLIBRARY"), ("LIBPL", "LIBRARY"), ("LIBDIR", "LIBRARY")
    for directory, name in places:
        path = Path(sysconfig.get_config_var(directory) or "", sysconfig.get_config_var(name) or "?")
        if path.exists():
            return path
    return None


@pytest.mark.skipif(python_library() is None, reason="no library of this interpreter to embed")
@pytest.mark.skipif(bool(SANITIZER), reason="its runtime would have to come first in a program of our own")
def test_an_interpreter_that_is_initialized_anew_is_refused(tmp_path):
    source, program = tmp_path / "embedded.c", tmp_path / "embedded"
    source.write_text(EMBEDDED)
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    flags = shlex.split(" ".join(sysconfig.get_config_var(name) for name in ("LIBS", "SYSLIBS", "LINKFORSHARED")))
    subprocess.run(
        [*compiler, "-I", sysconfig.get_path("include"), source, python_library(), *flags, "-lm", "-ldl",
         "-lpthread", f"-Wl,-rpath,{sysconfig.get_config_var('LIBDIR')}", "-o", program],
        check=True,
    )
    code = f"""if True:
        import sys
        sys.path[:] = {sys.path!r}
        try:
            import timerheap
        except ImportError as exc:
            print("refused:", exc, flush=True)
        else:
            timerheap.AfterFunc(3600, print)
            print("imported", flush=True)
    """
    done = subprocess.run([program, code], env=os.environ | {"PYTHONHOME": sys.base_prefix}, capture_output=True,
                          text=True, timeout=60)
    assert done.returncode == 0, done
    first, second = done.stdout.splitlines()
    assert first == "imported"
    assert second.startswith("refused: ")
    assert "initialized anew" in second
