"""every: a function each period, on an exact grid, until it is stopped."""

import contextvars
import gc
import itertools
import math
import pickle
import random
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
from helpers import FAR, FREE_THREADED, PATIENCE, Background, balance, run_ok, run_threads, wait_until
from hypothesis import given
from hypothesis import strategies as st

from timerheap import AfterFunc, Ticker, Timer, TimerHeap, default_heap, every
from timerheap.testing import ManualHeap, use

variable = contextvars.ContextVar("variable", default="unset")


def index_of(timer, start, period):
    """Which point of its grid, in whole nanoseconds, the timer is armed for."""
    points, rest = divmod(round((timer.when - start) * 1e9), round(period * 1e9))
    assert abs(rest) < 1000  # what a float of a monotonic clock leaves of a nanosecond
    return points


# ---- the grid -------------------------------------------------------------------------------------------------------


def test_it_is_called_each_period_first_after_one_exactly_then(manual):
    calls = []
    every(1.5, lambda: calls.append(manual.time()), heap=manual)
    manual.advance(1.5 - 1e-9)
    assert calls == []
    manual.advance(10)
    assert calls == [1.5, 3.0, 4.5, 6.0, 7.5, 9.0, 10.5]


@pytest.mark.parametrize("args", [(), (1,), (1, "two", None)])
def test_arguments_arrive_each_time(manual, args):
    calls = []
    every(1, lambda *args: calls.append(args), *args, heap=manual)
    manual.advance(3)
    assert calls == [args] * 3


@given(
    periods=st.lists(st.integers(1, 50), min_size=1, max_size=5),
    pauses=st.lists(st.integers(0, 100), min_size=1, max_size=10),
)
def test_however_the_clock_is_turned_all_calls_come_in_order_of_their_deadlines(periods, pauses):
    heap = ManualHeap()
    calls = []
    for number, period in enumerate(periods):
        every(period, lambda number=number: calls.append((heap.time(), number)), heap=heap)
    for pause in pauses:
        heap.advance(pause)
    heap.check()
    end = sum(pauses)
    due = sorted((at, number) for number, period in enumerate(periods) for at in range(period, end + 1, period))
    assert sorted(calls) == due
    assert [at for at, _ in calls] == [at for at, _ in due]
    assert heap.stats()["fired"] == len(due)
    assert heap.stats()["dropped"] == 0
    assert balance(heap) == 0


def test_among_equal_deadlines_a_call_was_armed_by_the_one_before(manual):
    calls = []
    every(1, calls.append, "every", heap=manual)
    AfterFunc(1, calls.append, "first", heap=manual)
    AfterFunc(2, calls.append, "before", heap=manual)
    manual.advance(1)
    AfterFunc(1, calls.append, "after", heap=manual)
    manual.advance(1)
    assert calls == ["every", "first", "before", "every", "after"]


def test_real_calls_are_on_the_worker_on_the_grid_and_never_early(heap):
    calls = []
    begun, done = threading.Event(), threading.Event()
    start = time.monotonic()

    def call():
        assert begun.wait(PATIENCE)
        calls.append((time.monotonic(), threading.current_thread().name, timer.when))
        if len(calls) == 20:
            timer.stop()
            done.set()

    timer = every(0.005, call, heap=heap)
    begun.set()
    assert done.wait(PATIENCE)
    assert {name for _, name, _ in calls} == {"test"}
    assert start + 0.005 <= calls[0][0]
    deadlines = [when for _, _, when in calls]
    for (at, _, _), deadline in zip(calls[1:], deadlines, strict=False):
        assert at >= deadline
    for before, after in itertools.pairwise(deadlines):
        points = (after - before) / 0.005
        assert round(points) >= 1
        assert abs(points - round(points)) < 1e-3


def test_missed_calls_are_dropped_and_counted_not_made_up(heap):
    """Whatever the machine does: the points of the grid so far are the calls and what was dropped."""
    calls = []
    done = threading.Event()

    def call():
        time.sleep(0.025)
        stats = heap.stats()
        calls.append((index_of(timer, start, 0.01), stats["fired"] + stats["dropped"]))
        if len(calls) == 5:
            assert stats["dropped"] >= 4  # each call took two periods more than one
            timer.stop()
            done.set()

    timer = every(0.01, call, heap=heap)
    start = timer.when
    assert done.wait(PATIENCE)
    assert [points for points, _ in calls] == [counted for _, counted in calls]


def test_a_call_that_takes_longer_than_its_period_starves_nobody(heap):
    timer = every(1e-9, time.sleep, 0.001, heap=heap)
    done = threading.Event()
    AfterFunc(0.01, done.set, heap=heap)
    assert done.wait(PATIENCE)
    assert timer.stop() is True


def test_a_tickers_dropped_ticks_count_too(manual):
    ticker = Ticker(1, heap=manual)
    manual.advance(5.5)
    assert ticker.c.poll() == 1.0
    assert manual.stats()["dropped"] == 4
    manual.advance(1)
    assert ticker.c.poll() == 6.0
    assert manual.stats()["dropped"] == 4


@pytest.mark.parametrize("period", [math.inf, 10**12])
def test_a_period_that_is_never_over(manual, period):
    timer = every(period, print, heap=manual)
    assert timer.active
    manual.advance(FAR)
    assert (timer.when, timer.period) == (period, period) if period == math.inf else timer.period == math.inf
    assert timer.stop() is True


def test_a_grid_ends_with_the_clock(manual):
    """The last deadline before the end of an int64: there is none after it."""
    calls = []
    timer = every(9e9, calls.append, 1, heap=manual)
    manual.advance(9e9)
    assert calls == [1]
    assert timer.when == math.inf
    assert timer.active


# ---- stop, reset ----------------------------------------------------------------------------------------------------


def test_stop_ends_it_and_is_true_once(manual):
    calls = []
    timer = every(1, calls.append, 1, heap=manual)
    manual.advance(2)
    assert timer.active
    assert timer.when == 3.0
    assert timer.stop() is True
    assert timer.stop() is False
    assert not timer.active
    assert timer.when is None
    manual.advance(5)
    assert len(calls) == 2
    assert timer.period == 1.0


def test_stop_from_inside_is_true_and_the_last_call(manual):
    results = []
    timer = every(1, lambda: results.append((timer.active, timer.when, timer.stop(), timer.active)), heap=manual)
    manual.advance(5)
    assert results == [(True, 2.0, True, False)]
    assert len(manual) == 0


def test_reset_begins_a_new_grid_with_that_period(manual):
    calls = []
    timer = every(1, lambda: calls.append(manual.time()), heap=manual)
    manual.advance(1.5)
    assert timer.reset(2) is True
    assert (timer.period, timer.when) == (2.0, 3.5)
    manual.advance(4)
    assert calls == [1.0, 3.5, 5.5]


def test_reset_from_inside(manual):
    calls = []

    def call():
        calls.append(manual.time())
        assert timer.reset(timer.period * 2) is True

    timer = every(1, call, heap=manual)
    manual.advance(20)
    assert calls == [1.0, 3.0, 7.0, 15.0]


def test_reset_after_stop_goes_on(manual):
    calls = []
    timer = every(1, calls.append, 1, heap=manual)
    timer.stop()
    assert timer.reset(0.5) is False
    manual.advance(2)
    assert len(calls) == 4


def test_postpone_is_reset_of_what_goes_on(manual):
    timer = every(1, print, heap=manual)
    assert timer.postpone(3) is True
    assert (timer.period, timer.when) == (3.0, 3.0)
    timer.stop()
    assert timer.postpone(5) is False
    assert (timer.period, timer.when) == (3.0, None)


@pytest.mark.parametrize("period", [0, -1, -math.inf, math.nan])
def test_a_period_that_is_not_positive_leaves_it_as_it_was(manual, period):
    timer = every(2, print, heap=manual)
    with pytest.raises(ValueError, match=r"every\(\) period must"):
        every(period, print, heap=manual)
    with pytest.raises(ValueError, match=r"Timer\.reset\(\)"):
        timer.reset(period)
    with pytest.raises(ValueError, match=r"Timer\.postpone\(\)"):
        timer.postpone(period)
    assert (timer.period, timer.when, len(manual)) == (2.0, 2.0, 1)


def test_period_is_none_for_what_happens_once(manual):
    assert Timer(1, heap=manual).period is None
    assert AfterFunc(1, print, heap=manual).period is None
    with pytest.raises(AttributeError):
        every(1, print, heap=manual).period = 3


def test_what_is_due_and_not_launched_may_be_stopped_and_reset(manual):
    calls = []
    results = []

    def first():
        if manual.time() == 1.0:
            results.extend((stopped.stop(), moved.reset(2), put_off.postpone(5)))

    AfterFunc(1, first, heap=manual)
    stopped = every(1, calls.append, "stopped", heap=manual)
    moved = every(1, lambda: calls.append(manual.time()), heap=manual)
    put_off = every(1, calls.append, "put off", heap=manual)
    manual.advance(3)
    assert results == [True, True, True]
    assert calls == [3.0]
    assert (moved.when, put_off.when, put_off.period) == (5.0, 6.0, 5.0)
    assert balance(manual) == 0


def test_its_repr_names_the_function_and_the_period(manual):
    timer = every(0.5, print, heap=manual)
    assert repr(timer).startswith(f"<timerheap.every 0.5 s {print!r} ")
    timer.stop()
    assert repr(timer) == f"<timerheap.every 0.5 s {print!r} inactive>"


def test_the_default_heap_is_the_default():
    calls = []
    with use(ManualHeap(), strict=False) as heap:
        every(1, calls.append, 1)
        heap.advance(2)
    assert len(calls) == 2
    timer = every(FAR, print)
    assert len(default_heap()) >= 1
    timer.stop()


def test_a_closed_heap_refuses():
    heap = TimerHeap()
    timer = every(FAR, print, heap=heap)
    heap.close()
    assert not timer.active
    assert timer.stop() is False
    assert timer.postpone(1) is False
    with pytest.raises(RuntimeError, match="closed"):
        timer.reset(1)
    argument = Argument()
    gone = weakref.ref(argument)
    with pytest.raises(RuntimeError, match="closed"):
        every(1, print, argument, heap=heap)
    del argument
    gc.collect()
    assert gone() is None


# ---- accounting, errors, contexts -----------------------------------------------------------------------------------


def test_each_call_counts_as_fired(manual):
    calls = []
    timer = every(1, calls.append, 1, heap=manual)
    manual.advance(7)
    stats = manual.stats()
    assert (stats["fired"], stats["arms"], stats["cancelled"], stats["armed"], stats["peak"]) == (7, 8, 0, 1, 1)
    assert balance(manual) == 0
    timer.reset(1)
    timer.stop()
    assert manual.stats()["cancelled"] == 2
    assert balance(manual) == 0


def test_an_exception_is_reported_and_the_next_call_comes():
    seen = []
    heap = ManualHeap(on_error=lambda exc, timer: seen.append((exc, timer)))
    timer = every(1, [].pop, heap=heap)
    heap.advance(3)
    assert [type(exc) for exc, _ in seen] == [IndexError] * 3
    assert all(where is timer for _, where in seen)
    assert heap.stats()["errors"] == 3
    assert timer.active


def test_on_error_may_stop_it():
    heap = ManualHeap(on_error=lambda exc, timer: seen.append(timer.stop()))
    seen = []
    every(1, [].pop, heap=heap)
    heap.advance(3)
    assert seen == [True]
    assert len(heap) == 0


def test_a_coroutine_function_is_an_error_each_time():
    async def call():
        pass

    seen = []
    heap = ManualHeap(on_error=lambda exc, timer: seen.append(exc))
    every(1, call, heap=heap)
    heap.advance(2)
    assert [type(exc) for exc in seen] == [TypeError] * 2


def test_calls_see_an_empty_context_each(manual):
    seen = []

    def call():
        seen.append(variable.get())
        variable.set("left behind")

    variable.set("the caller's")
    every(1, call, heap=manual)
    manual.advance(3)
    assert seen == ["unset"] * 3


def test_calls_are_made_in_the_context_that_is_given(manual):
    seen = []

    def call():
        seen.append(variable.get())
        variable.set(variable.get() + "+")

    context = contextvars.Context()
    context.run(variable.set, "given")
    every(1, call, context=context, heap=manual)
    manual.advance(3)
    assert seen == ["given", "given+", "given++"]


# ---- life -----------------------------------------------------------------------------------------------------------


class Argument:
    """Something that a weak reference can tell the end of."""

    def __call__(self, *args):
        pass


def test_it_goes_on_without_its_handle(heap):
    calls = []
    every(0.002, calls.append, 1, heap=heap)
    gc.collect()
    wait_until(lambda: len(calls) >= 5)
    heap.check()


def test_a_dropped_heap_goes_on_with_it_until_it_is_closed():
    calls = []
    heap = TimerHeap()
    every(0.002, calls.append, 1, heap=heap)
    reference = weakref.ref(heap)
    del heap
    gc.collect()
    seen = len(calls)
    wait_until(lambda: len(calls) > seen + 2)
    reference().close()
    seen = len(calls)
    wait_until(lambda: reference() is None)
    assert len(calls) == seen


def test_a_dropped_heap_goes_once_it_is_stopped():
    stop = threading.Event()
    heap = TimerHeap()

    def call(holder):
        if stop.is_set():
            holder[0].stop()

    holder = []
    holder.append(every(0.002, call, holder, heap=heap))
    reference = weakref.ref(heap)
    del heap, holder
    gc.collect()
    assert reference() is not None
    stop.set()
    wait_until(lambda: gc.collect() is not None and reference() is None)


@pytest.mark.parametrize("make", [ManualHeap, TimerHeap])
def test_references_balance(make):
    func, argument = Argument(), Argument()
    with make() as heap:
        before = sys.getrefcount(func), sys.getrefcount(argument), sys.getrefcount(heap)
        timer = every(FAR, func, argument, heap=heap)
        armed = sys.getrefcount(timer)
        for _ in range(3):
            timer.reset(FAR)
            timer.postpone(FAR)
        assert sys.getrefcount(timer) == armed
        for _ in range(3):
            timer.stop()
            timer.stop()
            assert sys.getrefcount(timer) == armed - 1
            timer.reset(FAR)
            assert sys.getrefcount(timer) == armed
        if make is ManualHeap:
            heap.advance(5 * FAR)
            assert sys.getrefcount(timer) == armed
        timer.stop()
        del timer
        assert (sys.getrefcount(func), sys.getrefcount(argument), sys.getrefcount(heap)) == before


@pytest.mark.parametrize("way", ["stop", "close"])
def test_nothing_pins_the_callback_once_it_has_ended(way):
    heap = TimerHeap()
    func = Argument()
    gone = weakref.ref(func)
    timer = every(FAR, func, func, context=contextvars.Context(), heap=heap)
    dropped = every(FAR, func, heap=heap)
    del func
    timer.stop()
    if way == "stop":
        dropped.stop()
    del timer, dropped
    if way == "close":
        assert gone() is not None
        heap.close()
    gc.collect()
    assert gone() is None
    heap.close()


@pytest.mark.skipif(FREE_THREADED, reason="without a GIL handles are tracked always")
def test_the_collector_does_not_see_what_is_armed(heap):
    timer = every(FAR, print, heap=heap)
    assert not gc.is_tracked(timer)
    timer.stop()
    assert gc.is_tracked(timer)
    timer.reset(FAR)
    assert not gc.is_tracked(timer)


@pytest.mark.parametrize("make", [ManualHeap, TimerHeap])
def test_a_cycle_through_its_handle_lives_while_it_is_armed_and_goes_when_it_is_stopped(make):
    heap = make()
    func = Argument()
    func.timer = every(FAR, func, func, heap=heap)
    gone = weakref.ref(func)
    del func
    gc.collect()
    assert gone() is not None
    gone().timer.stop()
    gc.collect()
    assert gone() is None
    heap.close()


def test_an_abandoned_manual_heap_goes_with_it():
    heap = ManualHeap()
    func = Argument()
    func.heap = heap
    func.timer = every(1, func, func, heap=heap)
    every(1, func, context=contextvars.Context(), heap=heap)
    heap.advance(3)
    gone = weakref.ref(heap), weakref.ref(func)
    del heap, func
    gc.collect()
    assert [reference() for reference in gone] == [None, None]


def test_collections_during_the_calls_harm_nobody(eager_collector):
    heap = ManualHeap()
    calls = []

    def call():
        calls.append([[]])
        timer.reset(1)

    timer = every(1, call, heap=heap)
    for _ in range(50):
        heap.advance(1)
        timer.stop()
        timer.reset(1)
    assert len(calls) == 50
    heap.check()


def test_close_waits_for_the_call_and_ends_it():
    heap = TimerHeap()
    entered, leave = threading.Event(), threading.Event()
    calls = []

    def call():
        calls.append(1)
        entered.set()
        leave.wait(PATIENCE)

    timer = every(0.001, call, heap=heap)
    assert entered.wait(PATIENCE)
    closing = Background(heap.close)
    wait_until(lambda: not timer.active)
    assert closing.running
    leave.set()
    closing.result()
    assert calls == [1]
    assert timer.stop() is False
    assert balance(heap) == 0
    heap.check()


def test_a_call_may_close_its_heap():
    heap = TimerHeap()
    done = threading.Event()

    def call():
        heap.close()
        done.set()

    timer = every(0.001, call, heap=heap)
    assert done.wait(PATIENCE)
    heap.close()
    assert not timer.active
    assert (heap.stats()["fired"], heap.stats()["cancelled"], len(heap)) == (1, 1, 0)


def test_what_others_do_while_it_is_called(heap):
    """stop is True and does not wait; reset and postpone move the next call."""
    entered, leave = threading.Event(), threading.Event()

    def call():
        entered.set()
        leave.wait(PATIENCE)

    timer = every(0.001, call, heap=heap)
    assert entered.wait(PATIENCE)
    assert timer.postpone(FAR) is True
    assert timer.reset(2 * FAR) is True
    assert timer.period == 2 * FAR
    assert timer.stop() is True
    assert timer.postpone(FAR) is False
    assert not timer.active
    leave.set()
    heap.close()
    assert heap.stats()["fired"] == 1


def test_threads_that_stop_reset_and_postpone_lose_nothing(fast_switching):
    calls = []
    with TimerHeap() as heap:
        timers = [every(0.0005, calls.append, number, heap=heap) for number in range(20)]
        cancels = [0] * 4

        def play(index):
            chance = random.Random(index)
            for _ in range(3000):
                timer = chance.choice(timers)
                kind = chance.randrange(4)
                if kind == 0:
                    cancels[index] += timer.stop()
                elif kind == 1:
                    cancels[index] += timer.reset(chance.choice([1e-5, 0.001, FAR]))
                elif kind == 2:
                    cancels[index] += timer.postpone(chance.choice([1e-5, 0.001, FAR]))
                else:
                    assert timer.period > 0
                    when = timer.when  # once: another thread may stop it
                    assert when is None or when > 0

        run_threads(4, play)
        heap.check()
        ended = sum(timer.stop() for timer in timers)
        wait_until(lambda: heap.stats()["fired"] == len(calls))
        stats = heap.stats()
        assert stats["cancelled"] == sum(cancels) + ended
        assert balance(heap) == 0
    timers.append(AfterFunc(FAR, int))
    timers[-1].stop()
    assert len({sys.getrefcount(timer) for timer in timers}) == 1


def test_exit_waits_for_none():
    assert run_ok("""
        import time
        from timerheap import TimerHeap, every
        every(0.001, int)
        every(1e-9, time.sleep, 0.001, heap=TimerHeap())
        time.sleep(0.05)
        print("end")
    """) == "end\n"  # fmt: skip


# ---- executors ------------------------------------------------------------------------------------------------------


def test_the_next_call_is_skipped_while_an_executor_runs_one():
    entered, leave = threading.Event(), threading.Event()
    calls = []

    def call():
        calls.append(heap.stats()["dropped"])
        entered.set()
        leave.wait(PATIENCE)

    with ThreadPoolExecutor(4) as pool, TimerHeap(executor=pool) as heap:
        timer = every(0.002, call, heap=heap)
        assert entered.wait(PATIENCE)
        wait_until(lambda: heap.stats()["dropped"] >= calls[0] + 5)
        assert len(calls) == 1
        assert timer.active
        leave.set()
        wait_until(lambda: len(calls) >= 3)
        assert timer.stop() is True
        heap.check()
        assert balance(heap) == 0


def test_the_next_call_is_skipped_while_one_blocks_a_heap_with_patience():
    entered, leave = threading.Event(), threading.Event()
    calls, inside = [], [0, 0]

    def call():
        inside[0] += 1
        inside[1] = max(inside)
        calls.append(1)
        entered.set()
        leave.wait(PATIENCE)
        inside[0] -= 1

    with TimerHeap(patience=0.01) as heap:
        timer = every(0.005, call, heap=heap)
        assert entered.wait(PATIENCE)
        wait_until(lambda: heap.stats()["dropped"] >= 3)  # by another worker, or nobody would count
        assert heap.stats()["handovers"] >= 1
        assert (len(calls), timer.active) == (1, True)
        heap.check()
        leave.set()
        wait_until(lambda: len(calls) >= 3)
        assert timer.stop() is True
    assert inside == [0, 1]
    assert balance(heap) == 0


def test_a_stop_and_a_reset_do_not_make_two_calls_at_once():
    inside = [0, 0]

    def call():
        inside[0] += 1
        inside[1] = max(inside)
        time.sleep(0.003)
        inside[0] -= 1

    with ThreadPoolExecutor(4) as pool, TimerHeap(executor=pool) as heap:
        timer = every(0.001, call, heap=heap)
        for _ in range(20):
            time.sleep(0.002)
            timer.stop()
            timer.reset(0.001)
        wait_until(lambda: heap.stats()["fired"] >= 10)
        timer.stop()
    assert inside == [0, 1]


def test_a_call_that_close_calls_off_is_over():
    jobs = []

    class Keeps:
        def submit(self, job):
            jobs.append(job)

    heap = TimerHeap(executor=Keeps())
    timer = every(0.001, print, heap=heap)
    wait_until(lambda: jobs and heap.stats()["dropped"] >= 2)
    assert len(jobs) == 1
    heap.close()
    jobs[0]()
    assert timer.stop() is False
    assert balance(heap) == 0


def test_an_executor_that_fails_is_reported_and_asked_again():
    class Fails:
        def submit(self, job):
            raise OSError("no room")

    seen = []
    with TimerHeap(executor=Fails(), on_error=lambda exc, timer: seen.append((exc, timer))) as heap:
        timer = every(0.001, print, heap=heap)
        wait_until(lambda: len(seen) >= 3)
        timer.stop()
        assert {type(exc) for exc, _ in seen} == {OSError}
        assert {where for _, where in seen} == {timer}


def test_a_call_that_is_away_and_whose_end_nobody_tells_is_not_waited_for():
    jobs = []

    class SendsAway:
        def submit(self, job):
            jobs.append(pickle.dumps(job))

    with TimerHeap(executor=SendsAway()) as heap:
        every(0.001, int, 3, 10, heap=heap)
        wait_until(lambda: len(jobs) >= 3)


def test_a_late_end_does_not_end_the_call_after_it():
    """A job that is away for good is struck off each time it leaves."""
    jobs = []

    class Keeps:
        def submit(self, job):
            jobs.append(job)

    with TimerHeap(executor=Keeps()) as heap:
        every(0.001, int, heap=heap)
        wait_until(lambda: jobs)
        first = jobs[0]
        pickle.dumps(first)
        wait_until(lambda: len(jobs) == 2)  # the second waits here
        pickle.dumps(first)
        dropped = heap.stats()["dropped"]
        wait_until(lambda: heap.stats()["dropped"] >= dropped + 5)
        assert len(jobs) == 2
