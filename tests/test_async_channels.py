"""Channels in coroutines: await channel, async for, timerheap.asyncio.select."""

import asyncio
import gc
import inspect
import math
import random
import threading
import time
import weakref
from collections import Counter

import pytest
from helpers import FAR, PATIENCE, Background, balance, loop_classes, run_ok, wait_until

from timerheap import AfterFunc, Ticker, Timer, TimerHeap, after, tick
from timerheap.asyncio import heap as heap_of
from timerheap.asyncio import select
from timerheap.testing import ManualHeap


@pytest.fixture(params=loop_classes())
def run(request):
    """Runs a coroutine on an event loop of its own, with an end; the loop has to be clean afterwards."""
    loop = request.param()
    told = []
    loop.set_exception_handler(lambda loop, context: told.append(context))

    def run(main):
        return loop.run_until_complete(asyncio.wait_for(main, PATIENCE))

    yield run
    assert told == []
    assert len(heap_of(loop)) == 0
    loop.close()


async def soon(condition):
    """Until it holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "what was waited for did not happen"
        await asyncio.sleep(0.001)


async def asleep(*tasks):
    """Until each task has come to its await."""
    for _ in range(5):
        await asyncio.sleep(0)
    assert not any(task.done() for task in tasks)


def start(awaitable):
    async def receive():
        return await awaitable

    return asyncio.get_running_loop().create_task(receive())


# ---- one channel ----------------------------------------------------------------------------------------------------


def test_await_gives_the_deadline_and_not_before_it(run, heap):
    async def main():
        timer = Timer(0.02, heap=heap)
        when = timer.when
        assert await timer.c == when
        assert time.monotonic() >= when
        assert not timer.active

    run(main())
    assert heap.stats()["received"] == 1


def test_what_is_ready_is_received_at_once(run, heap):
    async def main():
        calls = []
        asyncio.get_running_loop().call_soon(calls.append, 1)
        assert await Timer(0, heap=heap).c <= time.monotonic()
        assert calls == []

    run(main())


def test_no_thread_is_needed(run, heap):
    async def main():
        before = threading.active_count()
        await asyncio.gather(*(after(0.01, heap=heap) for _ in range(100)))
        assert threading.active_count() == before

    run(main())
    assert balance(heap) == 0


def test_a_channel_is_awaitable_wherever_asyncio_takes_one(run, heap):
    async def main():
        assert inspect.isawaitable(Timer(0, heap=heap).c)
        await asyncio.wait_for(after(0.001, heap=heap), PATIENCE)
        await asyncio.ensure_future(after(0.001, heap=heap))
        done, _ = await asyncio.wait([asyncio.ensure_future(after(0.001, heap=heap))])
        assert len(done) == 1

    run(main())


def test_without_a_loop_await_is_refused(heap):
    async def main():
        await after(FAR, heap=heap)

    with pytest.raises(RuntimeError, match="no running event loop"):
        main().send(None)


def test_the_wait_is_not_on_the_users_heap(run, heap):
    async def main():
        task = start(after(FAR, heap=heap))
        await asleep(task)
        assert len(heap_of()) == 0
        heap_of().close()
        await asleep(task)
        task.cancel()

    run(main())


def test_a_reset_to_earlier_and_to_later_is_seen(run, heap):
    async def main():
        timer = Timer(FAR, heap=heap)
        task = start(timer.c)
        await asleep(task)
        timer.reset(0.01)
        assert await task <= time.monotonic()
        timer.reset(0.01)
        task = start(timer.c)
        await asleep(task)
        timer.reset(0.05)
        when = timer.when
        assert await task == when
        assert time.monotonic() >= when

    run(main())


def test_on_a_stopped_timer_it_waits_for_a_reset(run, heap):
    async def main():
        timer = Timer(0.5, heap=heap)
        task = start(timer.c)
        await asleep(task)
        assert timer.stop()
        await asyncio.sleep(0.6)
        assert not task.done()
        timer.reset(0)
        await task

    run(main())


def test_what_never_fires_is_waited_for(run, heap):
    async def main():
        timer = Timer(math.inf, heap=heap)
        task = start(timer.c)
        await asleep(task)
        timer.reset(0.001)
        await task

    run(main())


def test_close_of_the_heap_ends_the_wait(run):
    async def main():
        heap = TimerHeap()
        tasks = [start(after(delay, heap=heap)) for delay in (FAR, math.inf)]
        await asleep(*tasks)
        heap.close()
        for task in tasks:
            with pytest.raises(RuntimeError, match="closed"):
                await task
        with pytest.raises(RuntimeError, match="closed"):
            await after(0, heap=heap)

    run(main())


def test_other_threads_wake_a_coroutine(run, heap):
    async def main():
        timer = Timer(FAR, heap=heap)
        task = start(timer.c)
        await asleep(task)
        Background(timer.reset, 0).result()
        await task
        task = start(timer.c)
        await asleep(task)
        closer = Background(heap.close)
        with pytest.raises(RuntimeError, match="closed"):
            await task
        closer.result()

    run(main())


# ---- cancelling -----------------------------------------------------------------------------------------------------


def test_a_cancelled_await_leaves_the_value(run, heap):
    async def main():
        timer = Timer(0.5, heap=heap)
        task = start(timer.c)
        await asleep(task)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0.6)
        assert timer.c.poll() is not None

    run(main())


def test_a_cancel_that_comes_with_the_value_leaves_it_as_well(run, heap):
    """The coroutine has been woken, and is cancelled before it runs."""

    async def main():
        timer = Timer(FAR, heap=heap)
        task = start(timer.c)
        await asleep(task)
        timer.reset(0)  # wakes it
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert timer.active
        assert timer.c.poll() is not None

    run(main())


def test_the_next_in_line_gets_what_a_cancelled_one_was_woken_for(run, heap):
    async def main():
        timer = Timer(FAR, heap=heap)
        first, second = start(timer.c), start(timer.c)
        await asleep(first, second)
        timer.reset(0)
        first.cancel()
        await second
        assert first.cancelled()

    run(main())


def test_timeouts_end_the_wait(run, heap):
    async def main():
        timer = Timer(FAR, heap=heap)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await timer.c
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(timer.c, 0.01)
        assert timer.active

    run(main())


def test_a_coroutine_that_is_dropped_leaves_its_line(run, heap):
    async def main():
        timer = Timer(FAR, heap=heap)

        async def receive():
            await timer.c

        dropped = receive()
        dropped.send(None)  # in line, with a future that nobody awaits
        task = start(timer.c)
        await asleep(task)
        dropped.close()
        timer.reset(0.001)
        await task

    run(main())


def test_a_task_in_a_cycle_is_collected(run, heap):
    async def main():
        class Owner:
            pass

        owner = Owner()
        owner.timer = Timer(math.inf, heap=heap)

        async def receive(owner):
            await owner.timer.c

        owner.task = asyncio.get_running_loop().create_task(receive(owner))
        await asleep(owner.task)
        owner.task._log_destroy_pending = False
        gone = weakref.ref(owner)
        del owner
        gc.collect()
        assert gone() is None

    run(main())


# ---- lines ----------------------------------------------------------------------------------------------------------


def test_one_firing_wakes_one_in_the_order_of_arrival(run, heap):
    async def main():
        timer = Timer(FAR, heap=heap)
        order = []

        async def receive(index):
            await timer.c
            order.append(index)

        tasks = [asyncio.get_running_loop().create_task(receive(index)) for index in range(4)]
        await asleep(*tasks)
        for count in range(1, 5):
            timer.reset(0.001)
            await soon(lambda count=count: len(order) == count)
        assert order == [0, 1, 2, 3]

    run(main())


@pytest.mark.parametrize("first", ["thread", "coroutine"])
def test_threads_and_coroutines_stand_in_one_line(run, heap, first):
    async def main():
        timer, order = Timer(FAR, heap=heap), []

        def in_thread():
            timer.c.recv(PATIENCE)
            order.append("thread")

        async def in_loop():
            await timer.c
            order.append("coroutine")

        async def join(kind):
            if kind == "coroutine":
                task = asyncio.get_running_loop().create_task(in_loop())
                await asleep(task)
                return task
            thread = Background(in_thread)
            await asyncio.sleep(0.3)
            return thread

        second = "coroutine" if first == "thread" else "thread"
        waits = [await join(first), await join(second)]
        timer.reset(0.001)
        await soon(lambda: len(order) == 1)
        timer.reset(0.001)
        await soon(lambda: len(order) == 2)
        assert order == [first, second]
        del waits

    run(main())


def test_a_thread_that_leaves_hands_the_line_to_a_coroutine(run, heap):
    async def main():
        timer = Timer(1, heap=heap)

        def give_up():
            with pytest.raises(TimeoutError):
                timer.c.recv(0.1)

        thread = Background(give_up)
        await asyncio.sleep(0.05)
        await timer.c
        thread.result()

    run(main())


def test_a_cancelled_coroutine_hands_the_line_to_a_thread(run, heap):
    async def main():
        timer = Timer(1, heap=heap)
        task = start(timer.c)
        await asleep(task)
        thread = Background(timer.c.recv, PATIENCE)
        await asyncio.sleep(0.1)
        assert task.cancel()
        await soon(lambda: not thread.running)
        thread.result()

    run(main())


def test_a_cancelled_receive_that_is_kept_stands_in_no_line(run, heap):
    async def main():
        ticker = Ticker(0.2, heap=heap)
        kept = ticker.__anext__()
        first = start(kept)
        await asleep(first)
        second = start(ticker.c)
        await asleep(second)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert await asyncio.wait_for(second, PATIENCE) > 0
        ticker.stop()
        del kept

    run(main())


def test_a_loop_that_is_closed_hands_its_lines_on():
    """Told by a thread, when the coroutine can no longer be run."""
    heap = TimerHeap()
    timer = Timer(FAR, heap=heap)
    loop = asyncio.SelectorEventLoop()

    async def main():
        task = start(timer.c)
        await asleep(task)
        return task

    task = loop.run_until_complete(main())
    loop.close()
    thread = Background(timer.c.recv, PATIENCE)
    time.sleep(0.05)
    timer.reset(0)
    thread.result()
    task._log_destroy_pending = False
    heap.close()


@pytest.mark.parametrize("told", [False, True], ids=["first in line", "told"])
@pytest.mark.parametrize("make", loop_classes())
def test_the_end_of_a_loop_takes_its_coroutines_out_of_their_lines(make, told, heap):
    """Nobody tells the first in line that a deadline has come, and what a loop is told last it need not do any more."""
    timer = Timer(0.3, heap=heap)
    loop = make()

    async def main():
        if told:
            timer.stop()
        task = start(timer.c)
        await asleep(task)
        return task

    task = loop.run_until_complete(main())
    if told:
        timer.reset(0.3)
    loop.close()
    Background(timer.c.recv, PATIENCE / 2).result()  # the main thread would look now and then by itself
    task._log_destroy_pending = False


def test_several_loops_share_a_channel(heap):
    timer, got = Timer(FAR, heap=heap), []

    def in_loop(index):
        async def main():
            await timer.c
            got.append(index)

        asyncio.run(main())

    threads = [Background(in_loop, index) for index in range(3)]
    time.sleep(0.2)
    for count in range(1, 4):
        timer.reset(0.001)
        wait_until(lambda count=count: len(got) == count)
    for thread in threads:
        thread.result()
    assert sorted(got) == [0, 1, 2]


def test_random_waits_cancels_and_resets_lose_no_value(run, heap):
    """Every arming is received once, by a task or by the end, or was cancelled."""

    async def main():
        chance = random.Random(7)
        timers = [Timer(FAR, heap=heap) for _ in range(4)]
        got = Counter()

        async def receive():
            some = chance.sample(timers, chance.randrange(1, 4))
            channel, _ = await select(*(timer.c for timer in some))
            got[next(index for index, timer in enumerate(timers) if timer.c is channel)] += 1

        stop = threading.Event()

        def meddle():
            mine = random.Random(8)
            while not stop.is_set():
                mine.choice(timers).reset(mine.choice((0, 0.0005, 0.002)))
                if mine.random() < 0.1:
                    mine.choice(timers).stop()
                time.sleep(0.0005)

        thread = Background(meddle)
        tasks = []
        for _ in range(300):
            tasks.append(asyncio.get_running_loop().create_task(receive()))
            if chance.random() < 0.5:
                chance.choice(tasks).cancel()
            await asyncio.sleep(chance.choice((0, 0.001)))
        stop.set()
        await soon(lambda: not thread.running)
        thread.result()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert sum(got.values()) == sum(not task.cancelled() for task in tasks) == heap.stats()["received"]

    run(main())
    assert balance(heap) == 0


# ---- async for ------------------------------------------------------------------------------------------------------


def test_a_ticker_is_iterated_on_its_grid(run, heap):
    async def main():
        got = []
        with Ticker(0.01, heap=heap) as ticker:
            async for at in ticker:
                assert time.monotonic() >= at
                got.append(at)
                if len(got) == 5:
                    break
        for at in got:
            steps = (at - got[0]) / 0.01
            assert abs(steps - round(steps)) < 1e-3
        assert got == sorted(set(got))

    run(main())


def test_its_stop_ends_every_iteration(run, heap):
    async def main():
        ticker = Ticker(FAR, heap=heap)

        async def iterate():
            return [at async for at in ticker]

        tasks = [asyncio.get_running_loop().create_task(iterate()) for _ in range(3)]
        await asleep(*tasks)
        ticker.stop()
        assert await asyncio.gather(*tasks) == [[], [], []]
        assert [at async for at in ticker] == []

    run(main())


def test_the_stop_of_a_ticker_passes_a_thread_in_line(run, heap):
    """The thread, which waits for a reset, tells the coroutine behind it before it sleeps again."""

    async def main():
        ticker = Ticker(FAR, heap=heap)
        thread = Background(ticker.c.recv, PATIENCE)
        await asyncio.sleep(0.1)

        async def iterate():
            return [at async for at in ticker]

        task = asyncio.get_running_loop().create_task(iterate())
        await asleep(task)
        ticker.stop()
        assert await task == []
        assert thread.running
        ticker.reset(0.001)
        await soon(lambda: not thread.running)
        thread.result()
        ticker.stop()

    run(main())


def test_the_channel_of_a_ticker_is_awaited_like_any(run, heap):
    async def main():
        channel = tick(0.01, heap=heap)
        first = await channel
        assert await channel > first

    run(main())


def test_close_ends_an_iteration(run):
    async def main():
        heap = TimerHeap()
        ticker = Ticker(FAR, heap=heap)
        asyncio.get_running_loop().call_later(0.01, heap.close)
        assert [at async for at in ticker] == []

    run(main())


# ---- select ---------------------------------------------------------------------------------------------------------


def test_select_gives_the_first_channel_and_its_value(run, heap):
    async def main():
        late, early = Timer(FAR, heap=heap), Timer(0.01, heap=heap)
        when = early.when
        assert await select(late.c, early.c) == (early.c, when)
        assert late.active

    run(main())


def test_of_several_ready_ones_each_has_a_chance(run, heap):
    async def main():
        timers = [Timer(FAR, heap=heap) for _ in range(3)]
        got = Counter()
        for _ in range(200):
            for timer in timers:
                timer.reset(0)
            channel, _ = await select(*(timer.c for timer in timers))
            got[channel] += 1
        assert len(got) == 3

    run(main())


def test_select_spans_heaps_and_many_channels(run, heap):
    async def main():
        with TimerHeap() as other, ManualHeap() as manual:
            many = [after(FAR, heap=(heap, other, manual)[index % 3]) for index in range(200)]
            last = after(0.02, heap=other)
            assert (await select(*many, last))[0] is last
            task = start(select(*many))
            await asleep(task)
            manual.advance(FAR)
            assert (await task)[0] in many[2::3]

    run(main())


def test_select_times_out(run, heap):
    async def main():
        channel = after(FAR, heap=heap)
        with pytest.raises(TimeoutError):
            await select(channel, timeout=0)
        begin = time.monotonic()
        with pytest.raises(TimeoutError):
            await select(channel, timeout=0.02)
        assert time.monotonic() - begin >= 0.02
        assert (await select(after(0.001, heap=heap), timeout=PATIENCE))[1] <= time.monotonic()

    run(main())


def test_wrong_calls_of_select_are_refused(run, heap):
    async def main():
        with pytest.raises(ValueError, match="at least one"):
            await select()
        with pytest.raises(TypeError, match="takes channels"):
            await select(Timer(FAR, heap=heap))
        with pytest.raises(ValueError, match="NaN"):
            await select(after(FAR, heap=heap), timeout=math.nan)

    run(main())


def test_a_channel_may_be_there_twice(run, heap):
    async def main():
        channel = after(0.01, heap=heap)
        assert (await select(channel, channel))[0] is channel

    run(main())


# ---- manual heaps ---------------------------------------------------------------------------------------------------


def test_advance_wakes_a_coroutine(run, manual):
    async def main():
        task = start(after(10, heap=manual))
        await asleep(task)
        manual.advance(9)
        await asleep(task)
        manual.advance(1)
        assert await task == 10

    run(main())


def test_a_timeout_on_a_manual_heap_is_manual(run, manual):
    async def main():
        task = start(select(after(10, heap=manual), timeout=5))
        await asleep(task)
        manual.advance(5)
        with pytest.raises(TimeoutError):
            await task

    run(main())


# ---- the process ----------------------------------------------------------------------------------------------------


def test_in_the_child_of_a_fork_a_coroutine_in_line_does_no_harm():
    run_ok(
        """
        import asyncio, os, warnings
        from timerheap import Timer, after

        async def main():
            timer = Timer(3600)

            async def receive():
                return await timer.c

            task = asyncio.get_running_loop().create_task(receive())
            await asyncio.sleep(0.01)
            pid = os.fork()
            if pid == 0:
                asyncio._set_running_loop(None)

                async def child():
                    try:
                        await timer.c
                    except RuntimeError as exc:
                        assert "before the fork" in str(exc)
                    timer.reset(3600)
                    waiting = asyncio.get_running_loop().create_task(receive())
                    await asyncio.sleep(0.01)
                    task.get_coro().close()     # leaves a line that is void, and not the one that is in its place
                    timer.reset(0.001)          # so who stands in that is told
                    await asyncio.wait_for(waiting, 20)

                new = asyncio.new_event_loop()
                new.run_until_complete(child())
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
            timer.reset(0.001)
            await task

        asyncio.run(main())
        """,
        timeout=PATIENCE,
    )


def test_a_program_may_end_in_the_middle_of_it():
    run_ok(
        """
        import asyncio, sys
        from timerheap import Timer, Ticker
        from timerheap.asyncio import select

        timer, ticker = Timer(3600), Ticker(0.001)

        async def main():
            async def iterate():
                async for _ in ticker:
                    pass

            tasks = [asyncio.ensure_future(timer.c), asyncio.ensure_future(iterate()),
                     asyncio.ensure_future(select(timer.c, timeout=3600))]
            await asyncio.sleep(0.01)

        asyncio.run(main())
        """
    )


def test_a_callback_of_the_loops_heap_may_wake_a_coroutine(run):
    async def main():
        timer = Timer(FAR)
        task = start(timer.c)
        await asleep(task)
        AfterFunc(0.001, timer.reset, 0, heap=heap_of())
        await task

    run(main())
