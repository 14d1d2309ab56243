"""What a callback raises is reported, whatever it is, and the worker lives on."""

import functools
import gc
import logging
import sys
import threading
import types
import weakref
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from helpers import PATIENCE, run_python, run_threads, wait_until

from timerheap import AfterFunc, TimerHeap
from timerheap.testing import ManualHeap

RAISED = [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit, MemoryError, StopIteration]


def fail(error):
    raise error


def test_on_error_gets_the_exception_and_the_timer():
    seen = []
    heap = ManualHeap(on_error=lambda exc, timer: seen.append((exc, timer)))
    error = ValueError("mine")
    timer = AfterFunc(1, fail, error, heap=heap)
    heap.advance(1)
    assert seen == [(error, timer)]


def test_on_error_gets_a_timer_whose_handle_was_dropped():
    seen = []
    heap = ManualHeap(on_error=lambda exc, timer: seen.append((exc, timer)))
    error = ValueError("mine")
    AfterFunc(1, fail, error, heap=heap)
    heap.advance(1)
    [(exc, _)] = seen
    assert exc is error


def test_on_error_can_be_set_and_taken_away(manual):
    first, second = [], []
    assert manual.on_error is None
    for seen in (first, second):
        manual.on_error = hook = lambda exc, timer, seen=seen: seen.append(exc)
        assert manual.on_error is hook
        AfterFunc(0, fail, KeyError(1), heap=manual)
        manual.advance(0)
    manual.on_error = None
    assert manual.on_error is None
    AfterFunc(0, fail, ValueError, heap=manual)
    with pytest.raises(ValueError):
        manual.advance(0)
    assert (len(first), len(second)) == (1, 1)
    manual.on_error = print
    del manual.on_error
    assert manual.on_error is None


def test_the_hook_in_force_when_an_error_is_reported_gets_it(heap):
    """It is set while the callback runs, by that itself or by another thread."""
    before, seen = [], []
    heap.on_error = lambda exc, timer: before.append(exc)
    inside, go_on = threading.Event(), threading.Event()

    def late():
        inside.set()
        go_on.wait(PATIENCE)
        raise LookupError

    AfterFunc(0, late, heap=heap)
    assert inside.wait(PATIENCE)
    heap.on_error = lambda exc, timer: seen.append(type(exc))
    go_on.set()
    wait_until(lambda: seen)

    def mine():
        heap.on_error = lambda exc, timer: seen.append(exc)
        raise error

    error = OSError("mine")
    AfterFunc(0, mine, heap=heap)
    wait_until(lambda: len(seen) == 2)
    assert (before, seen) == ([], [LookupError, error])


def test_a_closed_heap_takes_no_other_hook_and_has_let_go_of_its_own(heap):
    class Hook:
        def __call__(self, exc, timer):
            pass

    heap.on_error = hook = Hook()
    gone = weakref.ref(hook)
    del hook
    assert heap.on_error is gone()
    heap.close()
    gc.collect()
    assert heap.on_error is None
    assert gone() is None
    with pytest.raises(RuntimeError, match="closed"):
        heap.on_error = print
    heap.on_error = None
    assert heap.on_error is None


def test_a_hook_that_is_replaced_may_set_another_when_it_goes(manual):
    class Hook:
        def __call__(self, exc, timer):
            pass

        def __del__(self):
            found.append(manual.on_error)
            manual.on_error = int

    found = []
    manual.on_error = Hook()
    manual.on_error = print
    gc.collect()
    assert (found, manual.on_error) == ([print], int)


def test_each_error_reaches_one_of_the_hooks_that_threads_set_meanwhile(heap):
    seen = []
    heap.on_error = lambda exc, timer: seen.append(exc)
    errors = [ValueError(number) for number in range(2000)]
    for number, error in enumerate(errors):
        AfterFunc(number * 1e-5, fail, error, heap=heap)

    def work(index):
        while len(seen) < len(errors):
            heap.on_error = lambda exc, timer: seen.append(exc)
            assert callable(heap.on_error)

    run_threads(3, work)
    assert sorted(map(id, seen)) == sorted(map(id, errors))


@pytest.mark.parametrize("kind", RAISED)
def test_on_error_gets_whatever_is_raised(kind):
    seen, calls = [], []
    with TimerHeap("errors", on_error=lambda exc, timer: seen.append(type(exc))) as heap:
        AfterFunc(0, fail, kind, heap=heap)
        AfterFunc(0, calls.append, 1, heap=heap)
        wait_until(lambda: calls)
    assert seen == [kind]


@pytest.mark.parametrize("kind", RAISED)
def test_without_on_error_the_excepthook_of_threading_gets_it(heap, thread_errors, kind):
    calls = []
    AfterFunc(0, fail, kind, heap=heap)
    AfterFunc(0, calls.append, 1, heap=heap)
    wait_until(lambda: calls)
    [seen] = thread_errors
    assert seen.exc_type is kind
    assert isinstance(seen.exc_value, kind)
    assert seen.exc_traceback is not None
    assert seen.thread is not None
    assert seen.thread.name == "test"


@pytest.mark.parametrize("raised", [False, True])
def test_the_traceback_leads_to_the_callback(manual, raised):
    errors = []
    if not raised:
        manual.on_error = lambda exc, timer: errors.append(exc)
    AfterFunc(0, fail, ValueError, heap=manual)
    try:
        manual.advance(0)
    except ValueError as exc:
        errors.append(exc)
    names = []
    traceback = errors[0].__traceback__
    while traceback is not None:
        names.append(traceback.tb_frame.f_code.co_name)
        traceback = traceback.tb_next
    assert names[-1] == "fail"


def test_an_on_error_that_raises_goes_to_the_unraisable_hook(unraisable):
    error = LookupError("from the hook")
    heap = ManualHeap(on_error=lambda exc, timer: fail(error))
    calls = []
    AfterFunc(1, fail, ValueError, heap=heap)
    AfterFunc(1, calls.append, 1, heap=heap)
    heap.advance(1)
    assert calls == [1]
    assert [seen.exc_value for seen in unraisable] == [error]


def test_an_excepthook_that_raises_goes_to_the_unraisable_hook(heap, monkeypatch, unraisable):
    error = LookupError("from the hook")
    monkeypatch.setattr(threading, "excepthook", lambda args: fail(error))
    calls = []
    AfterFunc(0, fail, ValueError, heap=heap)
    AfterFunc(0, calls.append, 1, heap=heap)
    wait_until(lambda: calls)
    assert [seen.exc_value for seen in unraisable] == [error]


def test_an_unraisable_hook_that_raises_stops_nobody(heap, monkeypatch, capfd):
    monkeypatch.setattr(threading, "excepthook", lambda args: fail(LookupError))
    monkeypatch.setattr(sys, "unraisablehook", lambda args: fail(SystemExit))
    calls = []
    AfterFunc(0, fail, ValueError, heap=heap)
    AfterFunc(0, calls.append, 1, heap=heap)
    wait_until(lambda: calls)
    capfd.readouterr()  # the interpreter's own complaint about its hook


HOOKS = ["on_error", "threading.excepthook"]


def fired_into(hook, func, monkeypatch):
    """Let func's error come to the hook, by either way to it."""
    if hook == "on_error":
        with TimerHeap("hooked", on_error=lambda exc, timer: func[1](exc)) as heap:
            AfterFunc(0, func[0], heap=heap)
            wait_until(lambda: heap.stats()["errors"] and not heap.stats()["armed"])
            done = threading.Event()
            AfterFunc(0, done.set, heap=heap)
            assert done.wait(30)
    else:
        monkeypatch.setattr(threading, "excepthook", lambda args: func[1](args.exc_value))
        with TimerHeap("hooked") as heap:
            AfterFunc(0, func[0], heap=heap)
            done = threading.Event()
            AfterFunc(0, done.set, heap=heap)
            assert done.wait(30)


@pytest.mark.parametrize("hook", HOOKS)
def test_the_error_is_the_current_exception_of_its_hook(hook, monkeypatch, caplog):
    seen = []

    def note(exc):
        seen.append((exc, *sys.exc_info()))
        logging.getLogger("hooked").exception("it failed")

    fired_into(hook, (lambda: fail(ValueError("mine")), note), monkeypatch)
    [(exc, kind, value, traceback)] = seen
    assert (kind, value, traceback) == (ValueError, exc, exc.__traceback__)
    assert "ValueError: mine" in caplog.text
    assert "in fail" in caplog.text


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_that_raises_anew_raises_the_error(hook, monkeypatch, unraisable):
    def reraise(exc):
        raise

    error = ValueError("mine")
    fired_into(hook, (lambda: fail(error), reraise), monkeypatch)
    assert [seen.exc_value for seen in unraisable] == [error]


@pytest.mark.parametrize("hook", HOOKS)
def test_what_a_hook_raises_itself_has_the_error_as_its_context(hook, monkeypatch, unraisable):
    error = ValueError("mine")
    fired_into(hook, (lambda: fail(error), lambda exc: fail(LookupError)), monkeypatch)
    [seen] = unraisable
    assert isinstance(seen.exc_value, LookupError)
    assert seen.exc_value.__context__ is error


def test_no_exception_is_current_once_the_hook_is_done():
    seen = []
    heap = ManualHeap(on_error=lambda exc, timer: seen.append(sys.exc_info()[1]))
    AfterFunc(1, fail, ValueError, heap=heap)
    AfterFunc(2, lambda: seen.append(sys.exc_info()[1]), heap=heap)
    outer = LookupError()
    try:
        fail(outer)
    except LookupError:
        heap.advance(2)
        seen.append(sys.exc_info()[1])
    first, *others = seen
    assert isinstance(first, ValueError)
    assert others == [outer, outer]     # a callback of a manual heap runs where the clock is turned


async def fetch(*args):
    raise AssertionError("nobody runs this")


def generate(*args):
    yield AssertionError("nobody runs this")


async def generate_later(*args):
    yield AssertionError("nobody runs this")


@types.coroutine
def old_coroutine(*args):
    yield AssertionError("nobody runs this")


class Calls:
    async def __call__(self, *args):
        raise AssertionError("nobody runs this")


SUSPENDED = {
    "coroutine": fetch,
    "generator": generate,
    "asynchronous generator": generate_later,
    "decorated": old_coroutine,
    "partial": functools.partial(fetch, 1),
    "object": Calls(),
    "lambda": lambda *args: fetch(),
}


@pytest.mark.parametrize("where", ["worker", "manual", "executor"])
@pytest.mark.parametrize("kind", SUSPENDED)
@pytest.mark.parametrize("args", [(), (1,), (1, 2)])
def test_a_callback_that_returns_what_nobody_runs_is_a_type_error(where, kind, args, recwarn):
    errors, func = [], SUSPENDED[kind]
    options = {"on_error": lambda exc, timer: errors.append(exc)}
    if where == "manual":
        heap = ManualHeap(**options)
        AfterFunc(1, func, *args, heap=heap)
        heap.advance(1)
    else:
        with ThreadPoolExecutor(1) as pool:
            heap = TimerHeap("suspended", executor=pool if where == "executor" else None, **options)
            AfterFunc(0, func, *args, heap=heap)
            wait_until(lambda: errors)
            heap.close()
    [error] = errors
    assert isinstance(error, TypeError)
    assert getattr(func, "__qualname__", repr(func)) in str(error)
    assert "nobody would run" in str(error)
    gc.collect()
    assert not recwarn.list             # "never awaited", say


def test_what_else_a_callback_returns_is_no_error(manual):
    for value in (0, "text", [1], {}, iter([1]), map(int, "12"), object(), open, type, Future(), range(3)):
        AfterFunc(1, lambda value=value: value, heap=manual)
    manual.advance(1)
    assert manual.stats()["errors"] == 0


def test_a_thousand_raising_callbacks_disturb_no_neighbour(heap, thread_errors):
    calls = []
    for number in range(1000):
        AfterFunc(0, fail, RAISED[number % len(RAISED)], heap=heap)
        AfterFunc(0, calls.append, number, heap=heap)
    wait_until(lambda: len(calls) == 1000)
    assert calls == list(range(1000))
    assert len(thread_errors) == 1000
    assert heap.stats()["errors"] == 1000


def test_a_raising_callback_counts_as_fired(manual):
    AfterFunc(0, fail, ValueError, heap=manual)
    with pytest.raises(ValueError):
        manual.advance(0)
    stats = manual.stats()
    assert (stats["fired"], stats["errors"]) == (1, 1)


def test_on_error_may_reset_the_timer():
    heap = ManualHeap(on_error=lambda exc, timer: timer.reset(1))
    timer = AfterFunc(1, fail, ValueError, heap=heap)
    for _ in range(3):
        heap.advance(1)
    assert heap.stats()["errors"] == 3
    assert timer.stop()


def test_on_error_may_close_its_heap():
    closed = []

    def on_error(exc, timer):
        heap.close()
        closed.append(heap.closed)

    heap = TimerHeap("closing", on_error=on_error)
    AfterFunc(0, fail, ValueError, heap=heap)
    wait_until(lambda: closed)
    assert closed == [True]


def test_what_was_raised_is_not_kept():
    class Error(Exception):
        pass

    heap = ManualHeap(on_error=lambda exc, timer: None)

    def callback():
        error = Error()
        kept.append(weakref.ref(error))
        raise error

    kept = []
    AfterFunc(0, callback, heap=heap)
    heap.advance(0)
    gc.collect()
    assert kept[0]() is None


def test_on_error_must_be_callable():
    with pytest.raises(TypeError):
        TimerHeap(on_error=1)


def test_an_error_without_hooks_is_printed_like_that_of_a_thread():
    done = run_python("""
        import threading
        from timerheap import AfterFunc, TimerHeap
        with TimerHeap("printer") as heap:
            over = threading.Event()
            AfterFunc(0, lambda: 1 / 0, heap=heap)
            AfterFunc(0.01, lambda: print("lives on") or over.set(), heap=heap)
            over.wait(30)       # printing the first traceback of a process takes CPython 3.14 some time
    """)
    assert done.returncode == 0
    assert done.stdout == "lives on\n"
    assert done.stderr.startswith("Exception in thread printer")
    assert done.stderr.endswith("ZeroDivisionError: division by zero\n")


def test_system_exit_in_a_callback_does_not_end_the_process():
    done = run_python("""
        import sys
        from timerheap import AfterFunc, sleep
        AfterFunc(0, sys.exit, 3)
        sleep(0.2)
        print("still here")
    """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "still here\n", "")


def test_a_generator_that_refuses_to_be_closed_is_told_of_as_well(manual, unraisable):
    def stubborn():
        while True:
            try:
                yield
            except GeneratorExit:
                pass

    generator = stubborn()
    next(generator)
    seen = []
    heap = ManualHeap(on_error=lambda exc, timer: seen.append(exc))
    AfterFunc(1, lambda: generator, heap=heap)
    heap.advance(1)
    [error] = seen
    assert isinstance(error, TypeError)
    assert [type(told.exc_value) for told in unraisable] == [RuntimeError]
    unraisable.clear()
