"""timeout(), timeout_at() and sleep() of timerheap.asyncio: as asyncio's own, which most tests here try as well."""

import asyncio
import collections.abc
import contextlib
import contextvars
import gc
import inspect
import sys
import time
import warnings
import weakref

import pytest
from helpers import FAR, FREE_THREADED, PATIENCE, run_threads

import timerheap.asyncio as native

try:
    import uvloop
except ImportError:
    uvloop = None

LOOPS = {"stock": asyncio.SelectorEventLoop, "EventLoop": native.EventLoop}
if uvloop is not None:
    LOOPS |= {"uvloop": uvloop.Loop, "over uvloop": native.loop_class(uvloop.Loop)}

SHORT = 0.01
"""A delay, in seconds, that a test waits for."""

TICK = 0.01
"""What uvloop, which counts in milliseconds, may be early, in seconds, and how old its time may be."""


@pytest.fixture(params=LOOPS)
def make_loop(request):
    return LOOPS[request.param]


@pytest.fixture(params=[asyncio, native], ids=["asyncio", "native"])
def how(request):
    """What has timeout, timeout_at and sleep."""
    return request.param


@pytest.fixture
def run(make_loop):
    """Run a coroutine on a loop of each class; the loop is closed afterwards."""
    with asyncio.Runner(loop_factory=make_loop) as runner:
        yield lambda main: runner.run(asyncio.wait_for(main, PATIENCE))


def loop_time():
    return asyncio.get_running_loop().time()


def timers():
    """Those of the running loop; those of a foreign one are there once something was armed."""
    found = asyncio.get_running_loop()._native_timers
    found.check()
    return found


# ---- timeout --------------------------------------------------------------------------------------------------------


def test_a_timeout_cancels_the_block_and_raises_timeouterror(run, how):
    async def main():
        began = time.monotonic()
        with pytest.raises(TimeoutError) as caught:
            async with how.timeout(SHORT) as timeout:
                await asyncio.sleep(FAR)
        assert how is asyncio or time.monotonic() - began >= SHORT
        assert timeout.expired()
        assert repr(timeout) == "<Timeout [expired]>"
        assert type(caught.value.__cause__) is asyncio.CancelledError
        assert caught.value.__context__ is caught.value.__cause__
        assert asyncio.current_task().cancelling() == 0

    run(main())


def test_a_block_that_ends_in_time_leaves_nothing_armed(run):
    async def main():
        async with native.timeout(FAR) as timeout:
            assert len(timers()) >= 1
            armed = len(timers())
        assert len(timers()) == armed - 1
        assert not timeout.expired()
        assert repr(timeout) == "<Timeout [finished]>"

    run(main())


def test_the_states_of_a_timeout_are_told(run, how):
    async def main():
        timeout = how.timeout_at(None)
        assert (timeout.when(), timeout.expired(), repr(timeout)) == (None, False, "<Timeout [created]>")
        async with timeout as entered:
            assert entered is timeout
            assert repr(timeout) == "<Timeout [active] when=None>"
            timeout.reschedule(loop_time() + FAR)
            assert repr(timeout) == f"<Timeout [active] when={round(timeout.when(), 3)}>"
        at = loop_time() + FAR
        timeout = how.timeout_at(at)
        assert timeout.when() is at
        async with how.timeout_at(7) as timeout, how.timeout(None):
            assert repr(timeout.when()) == "7"
            with pytest.raises(asyncio.CancelledError):
                await asyncio.sleep(FAR)
            assert repr(timeout) == "<Timeout [expiring]>"
            assert timeout.expired()

    run(main())


def test_when_is_the_delay_from_now(run, how):
    async def main():
        for delay in (5, 5.0, True, FAR):
            before = loop_time() - TICK
            timeout = how.timeout(delay)
            assert type(timeout.when()) is float
            assert before + delay <= timeout.when() <= time.monotonic() + delay
        assert how.timeout(None).when() is None

    run(main())


@pytest.mark.parametrize("late", [0, -1, -FAR])
def test_a_deadline_that_has_passed_cancels_at_the_first_wait(run, how, late):
    async def main():
        for timeout in (how.timeout(late), how.timeout_at(loop_time() + late)):
            with pytest.raises(TimeoutError):
                async with timeout:
                    await asyncio.sleep(0)
        async with how.timeout(late):
            pass                                # nothing was waited for
        await asyncio.sleep(0)

    run(main())


def test_reschedule_moves_the_deadline(run, how):
    async def main():
        async with how.timeout(SHORT) as timeout:
            timeout.reschedule(loop_time() + FAR)
            await asyncio.sleep(3 * SHORT)
            timeout.reschedule(None)
            assert timeout.when() is None
            await asyncio.sleep(0)
        with pytest.raises(TimeoutError):  # noqa: PT012
            async with how.timeout(None) as timeout:
                timeout.reschedule(loop_time() + SHORT)
                await asyncio.sleep(FAR)
        with pytest.raises(TimeoutError):  # noqa: PT012
            async with how.timeout(FAR) as timeout:
                timeout.reschedule(loop_time())
                await asyncio.sleep(0)

    run(main())


def test_misuse_is_told_as_asyncio_tells_it(run, how):
    async def main():
        timeout = how.timeout(FAR)
        with pytest.raises(RuntimeError, match=r"^Timeout has not been entered$"):
            timeout.reschedule(1)
        with pytest.raises(AssertionError):
            await timeout.__aexit__(None, None, None)
        async with timeout:
            with pytest.raises(RuntimeError, match=r"^Timeout has already been entered$"):
                await timeout.__aenter__()
        with pytest.raises(RuntimeError, match=r"^Cannot change state of finished Timeout$"):
            timeout.reschedule(None)
        with pytest.raises(RuntimeError, match=r"^Timeout has already been entered$"):
            async with timeout:
                pass
        with pytest.raises(TypeError, match=r"can't be used in 'await' expression|can't be awaited"):
            await how.timeout(1)
        with pytest.raises(TypeError):
            how.timeout("soon")
        with pytest.raises(TypeError):
            async with how.timeout_at("soon"):
                pass

    run(main())


def test_a_timeout_needs_a_running_loop_and_a_task(make_loop, how):
    with pytest.raises(RuntimeError, match="no running event loop"):
        how.timeout(1)
    how.timeout_at(1)
    loop = make_loop()
    told = []

    def outside():
        try:
            how.timeout_at(None).__aenter__().__await__().send(None)
        except RuntimeError as exc:
            told.append(str(exc))
        loop.stop()

    if how is native:                           # which has tried when the call returns

        def outside():
            with pytest.raises(RuntimeError) as caught:
                how.timeout_at(None).__aenter__()
            told.append(str(caught.value))
            loop.stop()

    loop.call_soon(outside)
    loop.run_forever()
    loop.close()
    assert told == ["Timeout should be used inside a task"]


def test_a_cancellation_from_outside_goes_through(run, how):
    async def body(entered):
        async with how.timeout(FAR):
            entered.set()
            await asyncio.sleep(FAR)

    async def main():
        entered = asyncio.Event()
        task = asyncio.create_task(body(entered))
        await entered.wait()
        task.cancel("why")
        with pytest.raises(asyncio.CancelledError, match="why"):
            await task
        assert task.cancelled()

    run(main())


def test_a_cancellation_beside_the_timeout_wins(run, how):
    async def body():
        async with how.timeout_at(loop_time() - 1):
            asyncio.current_task().cancel()
            await asyncio.sleep(FAR)

    async def main():
        task = asyncio.create_task(body())
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelling() == 1

    run(main())


@pytest.mark.parametrize("inner_first", [True, False])
def test_nested_timeouts_each_take_their_own(run, how, inner_first):
    delays = (FAR, SHORT) if inner_first else (SHORT, FAR)

    async def main():
        with pytest.raises(TimeoutError):  # noqa: PT012
            async with how.timeout(delays[0]) as outer:
                try:
                    async with how.timeout(delays[1]) as inner:
                        await asyncio.sleep(FAR)
                finally:
                    assert inner.expired() is inner_first
                    assert outer.expired() is not inner_first
        assert asyncio.current_task().cancelling() == 0

    run(main())


def test_both_of_two_that_expire_together_are_taken_back(run, how):
    async def main():
        at = loop_time() - 1
        with pytest.raises(TimeoutError):  # noqa: PT012
            async with how.timeout_at(at) as outer:
                with pytest.raises(asyncio.CancelledError):
                    async with how.timeout_at(at) as inner:
                        await asyncio.sleep(FAR)
                raise asyncio.CancelledError
        assert inner.expired()
        assert outer.expired()
        assert asyncio.current_task().cancelling() == 0

    run(main())


def test_a_timeout_within_a_cancelled_task_counts_from_there(run, how):
    """The request to cancel that was there before it stays, and is none of its own."""

    async def body():
        try:
            await asyncio.sleep(FAR)
        except asyncio.CancelledError:
            assert asyncio.current_task().cancelling() == 1
            with pytest.raises(TimeoutError):
                async with how.timeout(SHORT):
                    await asyncio.sleep(FAR)
            assert asyncio.current_task().cancelling() == 1
            raise

    async def main():
        task = asyncio.create_task(body())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())


def causes(exc):
    """What an exception is, and its causes and contexts."""
    return None if exc is None else (type(exc), repr(exc), causes(exc.__cause__), causes(exc.__context__))


class Cancelled(asyncio.CancelledError):
    pass


async def raise_after_cancellation(what):
    try:
        await asyncio.sleep(FAR)
    except asyncio.CancelledError as exc:
        if what is None:
            raise
        raise what from (exc if isinstance(what, LookupError) else None)


@pytest.mark.parametrize(
    "make",
    [
        lambda: None,
        lambda: ValueError("x"),
        lambda: LookupError("x"),
        lambda: Cancelled("x"),
        lambda: ExceptionGroup("g", [ValueError("y")]),
    ],
)
def test_what_a_block_raises_has_the_causes_that_this_python_gives_it(run, make):
    async def main():
        found = []
        for how in (asyncio, native):
            try:
                async with how.timeout(SHORT):
                    await raise_after_cancellation(make())
            except BaseException as exc:
                found.append(causes(exc))
        assert found[0] == found[1]
        assert len(found) == 2

    run(main())


def test_a_task_group_within_a_timeout(run):
    async def fail():
        try:
            await asyncio.sleep(FAR)
        finally:
            raise ValueError

    async def main():
        found = []
        for how in (asyncio, native):
            try:
                async with how.timeout(SHORT), asyncio.TaskGroup() as group:
                    group.create_task(fail())
            except BaseException as exc:
                found.append((causes(exc), [causes(one) for one in getattr(exc, "exceptions", [])]))
        assert found[0] == found[1]
        assert len(found) == 2

    run(main())


def test_a_timeout_is_what_isinstance_knows_it_for(run):
    async def main():
        assert isinstance(native.timeout(1), asyncio.Timeout)
        with pytest.raises(TypeError):
            type(native.timeout(1))()

    run(main())


def test_a_timeout_on_an_exit_stack(run, how):
    async def main():
        with pytest.raises(TimeoutError):  # noqa: PT012
            async with contextlib.AsyncExitStack() as stack:
                await stack.enter_async_context(how.timeout(SHORT))
                await asyncio.sleep(FAR)

    run(main())


def test_a_timeout_made_on_another_loop_belongs_to_the_one_it_is_entered_on(how):
    make = native.EventLoop
    with asyncio.Runner(loop_factory=make) as first, asyncio.Runner(loop_factory=make) as second:

        async def begin():
            return how.timeout(SHORT)

        async def enter(timeout):
            with pytest.raises(TimeoutError):
                async with timeout:
                    await asyncio.sleep(FAR)
            return len(first.get_loop()._native_timers)

        assert second.run(enter(first.run(begin()))) == 0


# ---- sleep ----------------------------------------------------------------------------------------------------------


def test_sleep_waits_and_has_its_result(run, how):
    async def main():
        for result in (None, 7, (1, 2), ValueError("x"), StopIteration(3)):
            began = time.monotonic()
            assert await how.sleep(SHORT, result) is result
            assert how is asyncio or time.monotonic() - began >= SHORT
            assert await how.sleep(0, result=result) is result
        assert await how.sleep(delay=-1) is None

    run(main())


@pytest.mark.parametrize("delay", [0, -1, 0.0, -FAR])
def test_sleep_of_nothing_gives_the_others_one_turn(run, how, delay):
    seen = []

    async def other():
        for _ in range(3):
            seen.append("other")
            await asyncio.sleep(0)

    async def main():
        task = asyncio.create_task(other())
        for _ in range(3):
            seen.append("this")
            await how.sleep(delay)
        await task

    run(main())
    assert seen == ["this", "other"] * 3


def test_many_sleep_and_wake_in_the_order_of_their_deadlines(run):
    seen = []

    async def one(at):
        await native.sleep(max(at - time.monotonic(), 1e-9))
        assert time.monotonic() >= at
        seen.append(at)

    async def main():
        begin = time.monotonic() + 5 * SHORT
        await asyncio.gather(*(one(begin + i % 7 * SHORT) for i in range(100)))
        assert len(timers()) <= 1                   # wait_for's, on a loop of ours
        assert timers().stats()["fired"] >= 100

    run(main())
    assert seen == sorted(seen)


def test_misuse_of_sleep(run, how):
    async def main():
        with pytest.raises(TypeError):
            await how.sleep("long")
        with pytest.raises(TypeError):
            await how.sleep(None)
        with pytest.raises(TypeError):
            how.sleep()

    run(main())


def test_sleep_refuses_nan():
    with pytest.raises(ValueError, match=r"^Invalid delay: NaN \(not a number\)$"):
        native.sleep(float("nan"))


def test_a_sleep_can_be_run_and_made_a_task(make_loop):
    assert asyncio.iscoroutine(native.sleep(1))
    assert isinstance(native.sleep(1), collections.abc.Coroutine)
    assert inspect.isawaitable(native.sleep(1))
    assert not asyncio.isfuture(native.sleep(1))

    async def main():
        task = asyncio.create_task(native.sleep(SHORT, 1))
        assert "coro=<sleep()>" in repr(task)
        assert await task == 1
        assert await asyncio.gather(native.sleep(SHORT, 2), native.sleep(0, 3)) == [2, 3]
        assert await asyncio.wait_for(native.sleep(SHORT, 4), PATIENCE) == 4
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(native.sleep(FAR), SHORT)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(native.sleep(SHORT, 5))
        assert task.result() == 5
        assert await asyncio.shield(native.sleep(SHORT, 6)) == 6

    with asyncio.Runner(loop_factory=make_loop) as runner:
        assert runner.run(native.sleep(SHORT, 7)) == 7
        runner.run(main())


def test_a_sleep_counts_from_its_await(run, how):
    async def main():
        sleep = how.sleep(4 * SHORT)
        await asyncio.sleep(4 * SHORT)
        began = time.monotonic()
        await sleep
        assert time.monotonic() - began >= 4 * SHORT - TICK

    run(main())


def test_a_cancelled_sleep_disarms_its_timer(run, how):
    async def main():
        for delay in (FAR, float("inf")):
            task = asyncio.create_task(how.sleep(delay))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            before = len(timers()) if how is native else 0
            assert task.cancel("why")
            assert how is asyncio or len(timers()) == before - 1
            with pytest.raises(asyncio.CancelledError, match=r"^why$"):
                await task

    run(main())


def test_a_task_may_go_on_after_the_cancellation_of_its_sleep(run, how):
    async def stubborn():
        for _ in range(3):
            try:
                await how.sleep(FAR)
            except asyncio.CancelledError:
                asyncio.current_task().uncancel()
        return await how.sleep(SHORT, "end")

    async def main():
        task = asyncio.create_task(stubborn())
        for _ in range(3):
            await asyncio.sleep(SHORT)
            task.cancel()
        assert await task == "end"

    run(main())


def test_a_task_cancelled_before_its_first_step_does_not_sleep(run, how):
    async def main():
        task = asyncio.create_task(how.sleep(FAR))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        async def cancels_itself():
            asyncio.current_task().cancel()
            await how.sleep(FAR)

        with pytest.raises(asyncio.CancelledError):
            await asyncio.create_task(cancels_itself())

    run(main())


def test_a_sleep_that_is_awaited_twice_says_so(run):
    async def waits(sleep):
        await sleep

    async def main():
        sleep = native.sleep(SHORT)
        await sleep
        with pytest.raises(RuntimeError, match=r"^cannot reuse already awaited sleep\(\)$"):
            await sleep
        with pytest.raises(RuntimeError, match=r"^cannot reuse already awaited sleep\(\)$"):
            sleep.throw(ValueError)
        sleep = native.sleep(FAR)
        first = asyncio.create_task(waits(sleep))
        await asyncio.sleep(0)
        for wait in (waits(sleep), sleep):
            with pytest.raises(RuntimeError, match=r"^sleep\(\) is being awaited already$"):
                await asyncio.create_task(wait) if asyncio.iscoroutine(wait) and wait is not sleep else await wait
        with pytest.raises(RuntimeError, match=r"^sleep\(\) is being awaited already$"):
            sleep.add_done_callback(print)
        assert not first.done()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first

    run(main())


def test_a_sleep_that_is_awaited_on_two_loops_says_so(make_loop):
    async def begin():
        sleep = native.sleep(FAR)
        task = asyncio.create_task(sleep)
        await asyncio.sleep(0)
        return sleep, task

    async def end(sleep):
        with pytest.raises(RuntimeError, match="is being awaited already"):
            await sleep

    with asyncio.Runner(loop_factory=make_loop) as first, asyncio.Runner(loop_factory=make_loop) as second:
        sleep, _task = first.run(begin())
        second.run(end(sleep))


def test_a_sleep_wakes_its_task_in_the_context_of_that(run, how):
    variable = contextvars.ContextVar("variable", default=None)

    async def one(value):
        variable.set(value)
        await how.sleep(SHORT)
        assert variable.get() == value

    async def main():
        await asyncio.gather(*(one(value) for value in range(3)))
        assert variable.get() is None

    run(main())


def test_a_sleep_obeys_the_protocol_of_futures(run):
    called = []

    async def main():
        loop = asyncio.get_running_loop()
        variable = contextvars.ContextVar("variable")
        context = contextvars.copy_context()
        context.run(variable.set, "here")
        sleep = native.sleep(SHORT, "end")
        assert sleep._asyncio_future_blocking is None
        assert next(sleep.__await__()) is sleep
        assert sleep._asyncio_future_blocking is True
        assert asyncio.isfuture(sleep)
        assert sleep.get_loop() is loop
        with pytest.raises(asyncio.InvalidStateError):
            sleep.result()
        with pytest.raises(asyncio.InvalidStateError):
            sleep.exception()
        with pytest.raises(TypeError, match="context"):
            sleep.add_done_callback(print, context=1)
        assert not sleep.cancel()                   # nobody waits
        end = loop.create_future()
        sleep.add_done_callback(lambda it: (called.append((it, variable.get())), end.set_result(None)), context=context)
        assert not sleep.done()
        await end
        assert called == [(sleep, "here")]
        assert sleep.done()
        assert not sleep.cancelled()
        assert not sleep.cancel()
        assert sleep.result() == "end"
        assert sleep.exception() is None
        with pytest.raises(StopIteration) as caught:
            sleep.send(None)
        assert caught.value.value == "end"
        assert sleep.done()

    run(main())


def test_a_cancelled_sleep_obeys_the_protocol_of_futures(run):
    async def main():
        sleep = native.sleep(FAR)
        sleep.send(None)
        end = asyncio.get_running_loop().create_future()
        sleep.add_done_callback(end.set_result)
        assert sleep.cancel("why")
        assert not sleep.cancel()
        assert sleep.cancelled()
        assert sleep.done()
        assert not end.done()                       # soon
        assert await end is sleep
        for ask in (sleep.result, sleep.exception, lambda: sleep.send(None)):
            with pytest.raises(asyncio.CancelledError, match=r"^why$"):
                ask()

    run(main())


def test_a_sleep_obeys_the_protocol_of_coroutines(run):
    async def main():
        with pytest.raises(TypeError, match="just-started"):
            native.sleep(1).send(1)
        sleep = native.sleep(FAR)
        error = ValueError("x")
        with pytest.raises(ValueError) as caught:
            sleep.throw(error)
        assert caught.value is error
        for arguments in ((ValueError,), (ValueError, "x"), (ValueError, error), (error, None, None)):
            sleep = native.sleep(FAR)
            sleep.send(None)
            sleep.add_done_callback(print)
            armed = len(timers())
            with pytest.raises(ValueError):
                sleep.throw(*arguments)
            assert len(timers()) == armed - 1
        sleep = native.sleep(FAR)
        sleep.send(None)
        sleep.add_done_callback(print)
        armed = len(timers())
        sleep.close()
        sleep.close()
        assert len(timers()) == armed - 1
        with pytest.raises(RuntimeError, match="cannot reuse"):
            sleep.send(None)
        with pytest.raises(TypeError):
            type(sleep)()

    run(main())


def test_a_coroutine_that_is_closed_disarms_its_sleep(run):
    async def one():
        await native.sleep(FAR)

    async def main():
        coroutine = one()
        sleep = coroutine.send(None)
        sleep.add_done_callback(print)
        armed = len(timers())
        coroutine.close()
        assert len(timers()) == armed - 1

    run(main())


def test_what_was_never_awaited_is_not_complained_about():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        native.sleep(1)
        gc.collect()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="tasks that begin at once came with 3.12")
def test_an_eager_task_sleeps(run, how):
    async def main():
        loop = asyncio.get_running_loop()
        async with how.timeout(FAR):
            assert await asyncio.Task(how.sleep(SHORT, 1), loop=loop, eager_start=True) == 1

    run(main())


def test_the_task_in_python_sleeps_and_times_out(make_loop, how, monkeypatch):
    if sys.version_info >= (3, 12):
        for name in ("current_task", "_enter_task", "_leave_task", "_register_task", "_unregister_task"):
            monkeypatch.setattr(asyncio.tasks, name, getattr(asyncio.tasks, f"_py_{name.lstrip('_')}"))
    if sys.version_info >= (3, 12) and hasattr(asyncio.tasks, "_py_swap_current_task"):
        monkeypatch.setattr(asyncio.tasks, "_swap_current_task", asyncio.tasks._py_swap_current_task)

    async def main():
        assert await how.sleep(SHORT, 1) == 1
        with pytest.raises(TimeoutError):
            async with how.timeout(SHORT):
                await how.sleep(FAR)
        return 2

    loop = make_loop()
    task = asyncio.tasks._PyTask(main(), loop=loop)
    task.add_done_callback(lambda task: loop.stop())
    loop.run_forever()
    assert task.result() == 2
    loop.close()


# ---- the loop's timers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("make", [native.EventLoop, native.loop_class(asyncio.SelectorEventLoop)],
                         ids=["EventLoop", "planned"])
def test_a_block_left_in_the_batch_of_its_deadline_does_not_expire(make, debug):
    async def main():
        told = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: told.append(context))
        async with native.timeout(0.002) as timeout:
            loop.call_soon(time.sleep, 0.01)
            await native.sleep(0.001)
        await asyncio.sleep(0.005)
        assert not timeout.expired()
        assert told == []

    with asyncio.Runner(loop_factory=make, debug=debug) as runner:
        runner.run(main())


def test_a_foreign_loop_keeps_its_timers_and_is_freed_with_them():
    class Loop(asyncio.SelectorEventLoop):
        pass

    async def one():
        async with native.timeout(FAR):
            await native.sleep(FAR)

    loop = Loop()
    call_at = loop.call_at
    task = loop.create_task(one())
    loop.run_until_complete(asyncio.sleep(0))
    assert loop.call_at == call_at
    kept = loop._native_timers
    assert len(kept) == 2
    loop.run_until_complete(asyncio.sleep(SHORT))
    assert loop._native_timers is kept
    gone = weakref.ref(loop)
    alive = weakref.ref(kept)
    task._log_destroy_pending = False
    loop.close()
    del loop, kept, task, call_at
    gc.collect()
    assert gone() is None
    assert alive() is None


def test_a_loop_that_takes_no_attributes_has_its_timers_kept_until_it_is_closed():
    class Bare:
        """A loop with nothing of its own."""

        __slots__ = ("loop",)

        def __init__(self, loop):
            self.loop = loop

        def time(self):
            return self.loop.time()

        def call_later(self, *args):
            return self.loop.call_later(*args)

        def __getattr__(self, name):
            return getattr(self.loop, name)

    async def waits():
        return await native.sleep(SHORT, 1)

    for _ in range(2):
        bare = Bare(asyncio.SelectorEventLoop())
        bare.call_soon(asyncio.events._set_running_loop, bare)      # as it would do itself
        task = asyncio.Task(waits(), loop=bare)
        task.add_done_callback(lambda _, bare=bare: bare.stop())
        bare.run_forever()
        assert task.result() == 1
        bare.close()
    assert [timers.owner for timers in native._kept] == [bare]


def test_loops_in_turn_have_each_its_own_timers(make_loop):
    """Each is freed before the next is made, which may have its address."""
    for _ in range(20):
        with asyncio.Runner(loop_factory=make_loop) as runner:
            runner.run(native.sleep(1e-6))
            with pytest.raises(TimeoutError):
                runner.run(expire(native.timeout))


async def expire(timeout):
    async with timeout(1e-6):
        await native.sleep(FAR)


def test_loops_in_threads_have_each_its_own_timers(make_loop):
    async def main():
        for turn in range(50):
            async with native.timeout(FAR):
                assert await native.sleep(1e-4, turn) == turn
        return len(timers())

    def run_one(index):
        with asyncio.Runner(loop_factory=make_loop) as runner:
            return runner.run(main())

    assert run_threads(4, run_one) == [0] * 4


def test_a_dropped_task_with_a_pending_timeout_is_freed_with_its_loop(make_loop):
    class Sentinel:
        pass

    async def one(sentinel):
        async with native.timeout(FAR):
            await native.sleep(FAR, sentinel)

    def populate():
        loop = make_loop()
        sentinel = Sentinel()
        for _ in range(10):
            loop.create_task(one(sentinel))._log_destroy_pending = False
        loop.run_until_complete(asyncio.sleep(SHORT))
        gc.collect()
        loop.close()
        return weakref.ref(sentinel)

    gone = populate()
    gc.collect()
    assert gone() is None


def test_a_stopped_clock_shows_a_deadline_that_passed_before_the_block():
    class Manual(native.EventLoop):
        now = 1000.0

        def time(self):
            return self.now

    with asyncio.Runner(loop_factory=Manual) as runner:

        async def main(how):
            loop = asyncio.get_running_loop()
            timeout = how.timeout(5)
            loop.now += 6
            with pytest.raises(TimeoutError):
                async with timeout:
                    await asyncio.sleep(0)

        for how in (asyncio, native):
            runner.run(main(how))


def test_waits_under_an_eager_collector(make_loop, eager_collector):
    async def one():
        async with native.timeout(FAR):
            await native.sleep(1e-5)
        with contextlib.suppress(TimeoutError):
            async with native.timeout(1e-5):
                await native.sleep(FAR)

    async def main():
        await asyncio.gather(*(one() for _ in range(20)))
        assert len(timers()) == 0

    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(main())


@pytest.mark.skipif(FREE_THREADED, reason="references of several threads are not counted exactly")
def test_waits_leave_no_references_behind(make_loop):
    async def one():
        async with native.timeout(FAR):
            await native.sleep(0, marker)
        for _ in range(3):
            with contextlib.suppress(TimeoutError):
                async with native.timeout(-1):
                    await native.sleep(FAR, marker)
        assert await native.sleep(1e-6, marker) is marker
        task = asyncio.create_task(native.sleep(FAR, marker))
        await native.sleep(0)
        task.cancel(marker)
        with contextlib.suppress(asyncio.CancelledError):
            await task

    marker = object()
    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(one())
        gc.collect()
        before = sys.getrefcount(marker)
        for _ in range(10):
            runner.run(one())
        gc.collect()
        assert sys.getrefcount(marker) == before


def test_after_an_interrupt_the_other_sleeps_end(make_loop):
    """On a foreign loop too, which does not tell when it runs again."""
    loop = make_loop()

    async def nap():
        await native.sleep(SHORT)

    async def interrupt():
        await native.sleep(SHORT)
        raise KeyboardInterrupt

    tasks = [loop.create_task(coroutine) for coroutine in (nap(), interrupt(), nap())]
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()
    for task in (tasks[0], tasks[2]):
        loop.run_until_complete(asyncio.wait_for(task, PATIENCE))
    assert isinstance(tasks[1].exception(), KeyboardInterrupt)
    loop.close()
