"""Life in company: under pytest-xdist, in subinterpreters, in threads that outlast the main one."""

import importlib.util
import sys

import pytest
from helpers import run_ok, run_python


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


@pytest.mark.skipif(sys.version_info < (3, 12), reason="before 3.12 the interpreter cannot tell")
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
    assert "interpreter" in out


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


def test_a_first_timer_after_the_end_of_the_main_thread():
    """From 3.12 on no thread starts any more: the timer is armed, never fires, and nobody hears of it."""
    run_ok("""
        import threading
        from timerheap import AfterFunc

        def late():
            threading.main_thread().join()
            AfterFunc(0.01, int)
            AfterFunc(3600, int).stop()

        threading.Thread(target=late).start()
    """)
