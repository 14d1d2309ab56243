"""With an executor callbacks run there, and a slow one delays no neighbour."""

import asyncio
import contextvars
import gc
import multiprocessing
import os
import pickle
import threading
import time
import weakref
from concurrent.futures import CancelledError, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import pytest
from helpers import PATIENCE, Background, run_ok, wait_until

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


class Late:
    """A callback that waits until it may leave, and fails then."""

    def __init__(self):
        self.inside, self.leave = threading.Event(), threading.Event()
        self.error = ValueError("mine")

    def __call__(self):
        self.inside.set()
        self.leave.wait(PATIENCE)
        raise self.error


def test_close_waits_for_what_the_executor_has_begun_whose_errors_are_told(pooled, errors):
    late = Late()
    timer = AfterFunc(0, late, heap=pooled)
    assert late.inside.wait(PATIENCE)
    closing = Background(pooled.close)
    wait_until(lambda: pooled.closed)
    time.sleep(0.02)
    assert closing.running
    late.leave.set()
    closing.result()
    assert errors == [(late.error, timer)]


def test_a_close_with_a_timeout_does_not_wait_longer_for_the_executor(pooled, errors):
    """And what it did not wait for is told of all the same, by the hook that the heap had."""
    late = Late()
    timer = AfterFunc(0, late, heap=pooled)
    assert late.inside.wait(PATIENCE)
    for timeout in (0, 0.02):
        with pytest.raises(TimeoutError):
            pooled.close(timeout)
        assert pooled.closed
    closing = Background(pooled.close, PATIENCE)
    time.sleep(0.02)
    assert closing.running
    late.leave.set()
    closing.result()
    assert errors == [(late.error, timer)]


def test_an_error_goes_to_the_hook_that_the_heap_has_by_then(pooled, errors):
    late, later = Late(), []
    timer = AfterFunc(0, late, heap=pooled)
    assert late.inside.wait(PATIENCE)
    pooled.on_error = lambda *args: later.append(args)
    late.leave.set()
    wait_until(lambda: later)
    assert (errors, later) == ([], [(late.error, timer)])


def test_close_calls_off_what_the_executor_has_not_begun():
    calls, inside, leave, futures = [], threading.Event(), threading.Event(), []

    class Recording:
        def submit(self, func, /, *args):
            futures.append(pool.submit(func, *args))
            return futures[-1]

    with ThreadPoolExecutor(1) as pool:
        heap = TimerHeap("called off", executor=Recording())
        AfterFunc(0, lambda: inside.set() or leave.wait(PATIENCE), heap=heap)
        assert inside.wait(PATIENCE)
        timers = [AfterFunc(0, calls.append, number, heap=heap) for number in range(100)]
        wait_until(lambda: heap.stats()["fired"] == 101)
        assert not any(timer.stop() for timer in timers)    # handed over: too late for that
        closing = Background(heap.close)
        wait_until(lambda: all(future.cancelled() for future in futures[1:]))
        leave.set()
        closing.result()
        assert calls == []
        pool.submit(int).result()
    assert calls == []


@pytest.mark.parametrize("threads", [1, 4])
def test_no_callback_begins_once_close_has_returned(threads):
    for turn in range(50):
        closed, late, calls = [], [], []
        with ThreadPoolExecutor(threads) as pool:
            heap = TimerHeap("racing", executor=pool)

            def note(closed=closed, late=late, calls=calls):
                (late if closed else calls).append(1)

            for _ in range(50):
                AfterFunc(turn * 1e-5, note, heap=heap)
            time.sleep(turn * 2e-5)
            heap.close()
            closed.append(True)
        assert late == []
        assert heap.stats()["errors"] == 0


def test_a_callback_may_close_its_heap_in_an_executor(pooled):
    done = threading.Event()
    AfterFunc(0, lambda: pooled.close() or done.set(), heap=pooled)
    assert done.wait(PATIENCE)
    assert pooled.closed


def test_callbacks_that_close_each_others_heaps_end(pool):
    heaps = [TimerHeap("one", executor=pool), TimerHeap("other", executor=pool)]
    barrier, ended = threading.Barrier(2), []

    def close(heap):
        barrier.wait(PATIENCE)
        heap.close()
        ended.append(heap)

    for heap, other in zip(heaps, reversed(heaps), strict=True):
        AfterFunc(0, close, other, heap=heap)
    wait_until(lambda: len(ended) == 2)


def test_ctrl_c_breaks_out_of_a_close_that_waits():
    run_ok("""
        import os, signal, threading, time
        from concurrent.futures import ThreadPoolExecutor
        from timerheap import AfterFunc, TimerHeap
        inside, leave = threading.Event(), threading.Event()
        with ThreadPoolExecutor(1) as pool:
            heap = TimerHeap(executor=pool)
            AfterFunc(0, lambda: inside.set() or leave.wait(30), heap=heap)
            inside.wait(30)
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
            try:
                heap.close()
            except KeyboardInterrupt:
                leave.set()
            else:
                raise AssertionError
            heap.close()
    """)


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


def double(results, number):
    with open(results, "a") as file:
        file.write(f"{2 * number}\n")


def no_result_to_send(results):
    double(results, 1)
    return threading.Lock()


def fail_elsewhere():
    raise LookupError("elsewhere")


def test_a_process_pool_runs_callbacks_too(tmp_path, errors):
    results = tmp_path / "results"
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool, \
            TimerHeap("processes", executor=pool, on_error=lambda *args: errors.append(args)) as heap:
        for number in range(5):
            AfterFunc(0, double, results, number, heap=heap)
        AfterFunc(0, no_result_to_send, results, heap=heap)
        wait_until(lambda: results.exists() and len(results.read_text().split()) == 6)
    assert sorted(map(int, results.read_text().split())) == [0, 2, 2, 4, 6, 8]
    assert errors == []


def test_whatever_keeps_a_process_pool_from_running_a_callback_reaches_on_error(errors):
    """What cannot be pickled, and what the callback raises over there."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool, \
            TimerHeap("processes", executor=pool, on_error=lambda exc, timer: errors.append((exc, timer))) as heap:
        unpicklable = AfterFunc(0, lambda: None, heap=heap)
        argument = AfterFunc(0, double, threading.Lock(), heap=heap)
        context = AfterFunc(0, int, context=contextvars.Context(), heap=heap)
        failing = AfterFunc(0, fail_elsewhere, heap=heap)
        wait_until(lambda: len(errors) == 4)
        assert {id(timer) for _, timer in errors} == {id(timer) for timer in (unpicklable, argument, context, failing)}
        [elsewhere] = [exc for exc, timer in errors if timer is failing]
        assert isinstance(elsewhere, LookupError)
        assert heap.stats()["errors"] == 4
        assert heap.stats()["fired"] == 4


def test_a_broken_pool_reaches_on_error(errors):
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool, \
            TimerHeap("broken", executor=pool, on_error=lambda exc, timer: errors.append(type(exc))) as heap:
        AfterFunc(0, os._exit, 1, heap=heap)
        wait_until(lambda: errors)
        AfterFunc(0, int, heap=heap)
        wait_until(lambda: len(errors) == 2)
    assert errors == [BrokenProcessPool] * 2


def test_what_the_pool_cancels_reaches_on_error(errors):
    inside, leave = threading.Event(), threading.Event()
    pool = ThreadPoolExecutor(1)
    heap = TimerHeap("cancelled", executor=pool, on_error=lambda exc, timer: errors.append((type(exc), timer)))
    AfterFunc(0, lambda: inside.set() or leave.wait(PATIENCE), heap=heap)
    assert inside.wait(PATIENCE)
    timer = AfterFunc(0, print, "never", heap=heap)
    wait_until(lambda: heap.stats()["fired"] == 2)
    pool.shutdown(wait=False, cancel_futures=True)
    wait_until(lambda: errors)
    leave.set()
    assert errors == [(CancelledError, timer)]
    heap.close()


def test_on_error_may_close_the_heap_whose_job_has_never_run():
    """The job's future alone tells of the failure, in whatever thread it ends."""
    future, closed = Future(), threading.Event()
    keeper = Keeper(lambda: future)
    heap = TimerHeap(executor=keeper, on_error=lambda exc, timer: (heap.close(), closed.set()))
    AfterFunc(0, print, "never", heap=heap)
    kept_jobs(heap, keeper)
    Background(future.set_exception, OSError("broken")).result()
    assert closed.wait(PATIENCE)


def test_an_executor_may_return_anything():
    """Its own future, that of an event loop, nothing at all: then the job itself tells what it has come to."""
    calls, errors = [], []

    class Bare:
        def submit(self, func, /, *args):
            threading.Thread(target=func, args=args).start()

    class Loops(Bare):
        def submit(self, func, /, *args):
            super().submit(func, *args)
            return loop.create_future()

    loop = asyncio.new_event_loop()
    loop.set_debug(True)
    for executor in (Bare(), Loops()):
        with TimerHeap("any", executor=executor, on_error=lambda exc, timer: errors.append(type(exc))) as heap:
            AfterFunc(0, calls.append, 1, heap=heap)
            AfterFunc(0, fail, ValueError, heap=heap)
            wait_until(lambda: calls and errors)
        assert (calls, errors) == ([1], [ValueError])
        calls.clear()
        errors.clear()
    loop.close()


def test_close_does_not_wait_for_what_is_away_and_whose_end_nobody_tells(errors):
    """A queue to other processes, for one: submit returns nothing."""

    sent = []

    class Sender:
        def submit(self, job):
            sent.append(pickle.dumps(job))

    heap = TimerHeap(executor=Sender(), on_error=lambda *args: errors.append(args))
    heap_reference = weakref.ref(heap)
    AfterFunc(0, fail, OSError("there"), heap=heap)
    wait_until(lambda: sent)
    Background(heap.close).result()
    with pytest.raises(OSError, match="there"):
        pickle.loads(sent[0])()
    del heap
    gc.collect()
    wait_until(lambda: heap_reference() is None)
    assert errors == []


@pytest.mark.parametrize("cancel", [None, 5, fail])
def test_futures_that_cannot_be_cancelled_do_not_keep_close_from_the_others(errors, cancel):
    jobs = []

    class Odd:
        def add_done_callback(self, callback):
            pass

    if cancel is not None:
        Odd.cancel = cancel

    class Executor:
        def submit(self, job):
            jobs.append(job)
            return Odd()

    ran = []
    heap = TimerHeap(executor=Executor(), on_error=lambda *args: errors.append(args))
    for _ in range(3):
        AfterFunc(0, ran.append, 1, heap=heap)
    wait_until(lambda: len(jobs) == 3)
    Background(heap.close).result()
    for job in jobs:
        job()
    assert ran == []
    assert len(errors) == (3 if cancel is not None else 0)


def test_jobs_are_let_go(pooled):
    class Callback:
        def __call__(self):
            pass

    callback = Callback()
    reference = weakref.ref(callback)
    AfterFunc(0, callback, heap=pooled)
    del callback

    def freed():
        gc.collect()
        return reference() is None

    wait_until(freed)


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


class Keeper:
    """Keeps what is submitted; another process may ask for it later."""

    def __init__(self, future=None):
        self.jobs = []
        self._future = future

    def submit(self, job):
        self.jobs.append(job)
        return self._future and self._future()


def kept_jobs(heap, keeper, count=1):
    wait_until(lambda: len(keeper.jobs) == count)
    return keeper.jobs


def test_a_job_that_leaves_for_another_process_late_is_no_longer_waited_for():
    keeper, ran = Keeper(), []
    heap = TimerHeap(executor=keeper)
    AfterFunc(0, len, "four", heap=heap)
    AfterFunc(0, ran.append, 1, heap=heap)
    there, here = kept_jobs(heap, keeper, 2)
    sent = pickle.dumps(there)
    Background(heap.close).result()
    here()
    assert ran == []
    assert pickle.loads(sent)() is None


def test_a_job_that_was_called_off_does_nothing_in_another_process():
    keeper = Keeper()
    heap = TimerHeap(executor=keeper)
    AfterFunc(0, fail, OSError("there"), heap=heap)
    [job] = kept_jobs(heap, keeper)
    Background(heap.close).result()
    assert pickle.loads(pickle.dumps(job))() == 0


async def nobody_awaits():
    pass


def test_a_coroutine_function_fails_in_another_process_too():
    keeper = Keeper()
    with TimerHeap(executor=keeper) as heap:
        AfterFunc(0, nobody_awaits, heap=heap)
        [job] = kept_jobs(heap, keeper)
        sent = pickle.dumps(job)
    with pytest.raises(TypeError, match="coroutine"):
        pickle.loads(sent)()


def test_close_cancels_what_is_queued_for_another_process(errors):
    """And hears of that from a future that tells it late, when it is no error any more."""
    told = []

    class Late(Future):
        def add_done_callback(self, callback):
            told.append((callback, self))

    keeper = Keeper(Late)
    heap = TimerHeap(executor=keeper, on_error=lambda *args: errors.append(args))
    AfterFunc(0, fail, OSError("there"), heap=heap)
    [job] = kept_jobs(heap, keeper)
    wait_until(lambda: told)
    pickle.dumps(job)
    Background(heap.close).result()
    [(callback, future)] = told
    assert future.cancelled()
    callback(future)
    assert errors == []


def test_a_future_that_close_cancels_reports_no_error(errors):
    """It tells its end from within cancel()."""
    followed = threading.Event()

    class Followed(Future):
        def add_done_callback(self, callback):
            super().add_done_callback(callback)
            followed.set()

    keeper = Keeper(Followed)
    heap = TimerHeap(executor=keeper, on_error=lambda *args: errors.append(args))
    AfterFunc(0, fail, OSError("there"), heap=heap)
    [job] = kept_jobs(heap, keeper)
    assert followed.wait(PATIENCE)
    pickle.dumps(job)
    Background(heap.close).result()
    assert errors == []


def test_close_does_not_wait_for_what_leaves_while_others_are_called_off():
    """The future of one job, asked to cancel, sends all the others away."""
    keeper = Keeper()

    class Hasty(Future):
        def cancel(self):
            for job in keeper.jobs[8:]:
                pickle.dumps(job)
            return super().cancel()

    keeper._future = lambda: Hasty() if len(keeper.jobs) <= 8 else None
    heap = TimerHeap(executor=keeper)
    for _ in range(16):
        AfterFunc(0, len, "four", heap=heap)
    kept_jobs(heap, keeper, 16)
    Background(heap.close).result()
    assert len(heap) == 0


def test_a_submit_that_runs_its_job_and_fails_after_that_has_run_it(errors):
    class Inline:
        def submit(self, job):
            job()
            raise OSError("after that")

    ran = []
    with TimerHeap(executor=Inline(), on_error=lambda *args: errors.append(args)) as heap:
        AfterFunc(0, ran.append, 1, heap=heap)
        AfterFunc(0.01, ran.append, 2, heap=heap)
        wait_until(lambda: heap.stats()["fired"] == 2)
    assert (ran, errors) == ([1, 2], [])
