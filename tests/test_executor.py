"""With an executor callbacks run there, and a slow one delays no neighbour."""

import contextvars
import threading
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from helpers import PATIENCE, wait_until

from timerheap import AfterFunc, Ticker, Timer, TimerHeap

variable = contextvars.ContextVar("variable", default="unset")


@pytest.fixture
def pool():
    with ThreadPoolExecutor(4, thread_name_prefix="pool") as pool:
        yield pool


@pytest.fixture
def errors():
    return []


@pytest.fixture
def pooled(pool, errors):
    """A heap whose callbacks run in the pool."""
    with TimerHeap("pooled", executor=pool, on_error=lambda *args: errors.append(args)) as heap:
        yield heap
        heap.check()


def fail(error):
    raise error


def test_callbacks_run_in_the_executor(pooled):
    names = []
    AfterFunc(0, lambda: names.append(threading.current_thread().name), heap=pooled)
    wait_until(lambda: names)
    assert names[0].startswith("pool")


def test_arguments_arrive(pooled):
    calls = []
    AfterFunc(0, lambda *args: calls.append(args), 1, 2, 3, heap=pooled)
    AfterFunc(0, lambda *args: calls.append(args), heap=pooled)
    wait_until(lambda: len(calls) == 2)
    assert sorted(calls) == [(), (1, 2, 3)]


def test_a_slow_callback_delays_no_neighbour(pooled):
    release = threading.Event()
    AfterFunc(0, release.wait, 30, heap=pooled)
    calls = []
    for number in range(20):
        AfterFunc(0, calls.append, number, heap=pooled)
    wait_until(lambda: len(calls) == 20)
    assert not release.is_set()
    release.set()


def test_a_raising_callback_reaches_on_error(pooled, errors):
    error = ValueError("mine")
    timer = AfterFunc(0, fail, error, heap=pooled)
    wait_until(lambda: errors)
    assert errors == [(error, timer)]
    assert pooled.stats()["errors"] == 1


def test_a_callback_that_raises_after_its_heap_was_closed_reaches_on_error(pooled, errors):
    inside, closed = threading.Event(), threading.Event()
    error = ValueError("mine")

    def late():
        inside.set()
        closed.wait(PATIENCE)
        raise error

    timer = AfterFunc(0, late, heap=pooled)
    assert inside.wait(PATIENCE)
    pooled.close()
    closed.set()
    wait_until(lambda: errors)
    assert errors == [(error, timer)]


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_a_callback_that_wants_to_exit_does_not_end_the_pool(pooled, errors, kind):
    for _ in range(10):
        AfterFunc(0, fail, kind, heap=pooled)
    wait_until(lambda: len(errors) == 10)
    calls = []
    AfterFunc(0, calls.append, 1, heap=pooled)
    wait_until(lambda: calls)


def test_without_on_error_the_excepthook_of_threading_gets_it(pool, thread_errors):
    with TimerHeap("pooled", executor=pool) as heap:
        AfterFunc(0, fail, ValueError, heap=heap)
        wait_until(lambda: thread_errors)
    assert thread_errors[0].exc_type is ValueError


def test_a_callback_sees_an_empty_context(pooled):
    variable.set("caller's")
    seen = []
    AfterFunc(0, lambda: seen.append((variable.get(), len(contextvars.copy_context()))), heap=pooled)
    wait_until(lambda: seen)
    assert seen == [("unset", 0)]


def test_what_a_callback_sets_is_not_left_in_the_pools_thread():
    with ThreadPoolExecutor(1) as pool, TimerHeap("pooled", executor=pool) as heap:
        seen = []
        AfterFunc(0, variable.set, "leaked", heap=heap)
        AfterFunc(0, lambda: seen.append(variable.get()), heap=heap)
        wait_until(lambda: seen)
        assert seen == ["unset"]
        assert pool.submit(variable.get).result() == "unset"


def test_a_callback_runs_in_the_context_it_is_given(pooled):
    context = contextvars.Context()
    context.run(variable.set, "given")
    seen = []
    AfterFunc(0, lambda: seen.append(variable.get()), context=context, heap=pooled)
    wait_until(lambda: seen)
    assert seen == ["given"]


def test_a_shut_down_executor_is_an_error_of_the_callback(errors):
    pool = ThreadPoolExecutor(1)
    pool.shutdown()
    heap = TimerHeap("shut", executor=pool, on_error=lambda *args: errors.append(args))
    timer = AfterFunc(0, print, "never", heap=heap)
    wait_until(lambda: errors)
    [(exc, failed)] = errors
    assert isinstance(exc, RuntimeError)
    assert failed is timer
    heap.close()


def test_channels_do_not_need_the_executor(pooled):
    assert Timer(0.01, heap=pooled).c.recv()
    with Ticker(0.01, heap=pooled) as ticker:
        assert next(ticker)


def test_any_executor_with_a_submit_will_do():
    submitted = []

    class Inline:
        def submit(self, func, /, *args, **kwargs):
            submitted.append(func)
            future = Future()
            future.set_result(func(*args, **kwargs))
            return future

    calls = []
    with TimerHeap("inline", executor=Inline()) as heap:
        AfterFunc(0, calls.append, 1, heap=heap)
        wait_until(lambda: calls)
    assert len(submitted) == 1


def test_what_has_no_submit_is_refused():
    with pytest.raises(TypeError):
        TimerHeap(executor=1)


def test_a_reset_timer_runs_in_the_executor_again(pooled):
    calls = []
    timer = AfterFunc(0, calls.append, 1, heap=pooled)
    for expected in range(1, 20):
        wait_until(lambda expected=expected: len(calls) == expected)
        assert timer.reset(0) is False
    wait_until(lambda: len(calls) == 20)
