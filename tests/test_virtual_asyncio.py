"""asyncio under virtual time: timerheap.testing.run, and EventLoop(heap=ManualHeap(auto=True))."""

import asyncio
import math
import selectors
import socket
import threading
import time

import pytest
from helpers import Background

import timerheap.asyncio
from timerheap import AfterFunc, Ticker, Timer, TimerHeap, after, default_heap, every
from timerheap import sleep as block
from timerheap.asyncio import EventLoop
from timerheap.testing import ManualHeap, run


def now():
    return asyncio.get_running_loop().time()


def fail(error):
    raise error


SLEEPS = pytest.mark.parametrize("sleep", [asyncio.sleep, timerheap.asyncio.sleep], ids=["asyncio", "native"])
TIMEOUTS = pytest.mark.parametrize("timeout", [asyncio.timeout, timerheap.asyncio.timeout], ids=["asyncio", "native"])


@SLEEPS
@pytest.mark.parametrize("debug", [False, True])
def test_a_sleep_takes_no_time(sleep, debug):
    async def main():
        assert now() == 0.0
        assert await sleep(3600, "slept") == "slept"
        await sleep(0)
        assert now() == 3600.0
        return "done"

    assert run(main(), debug=debug) == "done"


@SLEEPS
def test_tasks_go_on_by_deadline_and_equal_ones_in_the_order_of_arming(sleep):
    """In every run the same."""

    async def main():
        seen = []

        async def work(number):
            for _ in range(3):
                await sleep(number % 4 + 1)
                seen.append((now(), number))

        await asyncio.gather(*(work(number) for number in range(40)))
        return seen

    first = run(main())
    assert first == sorted(first, key=lambda entry: entry[0])
    assert [number for at, number in first if at == 1.0] == list(range(0, 40, 4))
    assert run(main()) == first


@TIMEOUTS
def test_timeouts_are_virtual(timeout):
    async def main():
        with pytest.raises(TimeoutError):
            async with timeout(5):
                await asyncio.sleep(10)
        assert now() == 5.0
        async with timeout(5):
            await asyncio.sleep(4)
        assert now() == 9.0
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.get_running_loop().create_future(), 1)
        done, pending = await asyncio.wait([asyncio.ensure_future(asyncio.sleep(delay)) for delay in (1, 9)], timeout=5)
        assert (now(), len(done), len(pending)) == (15.0, 1, 1)

    run(main())


def test_a_task_group_is_cancelled_at_its_virtual_time():
    async def main():
        seen = []

        async def work(delay):
            try:
                await asyncio.sleep(delay)
            except asyncio.CancelledError:
                seen.append((delay, now()))
                raise

        async def break_off():
            await asyncio.sleep(2)
            raise KeyError

        async def work_in_a_group():
            async with asyncio.TaskGroup() as group:
                for delay in (1, 3, 4):
                    group.create_task(work(delay))
                group.create_task(break_off())

        with pytest.raises(ExceptionGroup):
            await work_in_a_group()
        return seen

    assert sorted(run(main())) == [(3, 2.0), (4, 2.0)]


def test_call_later_and_call_at_keep_their_deadlines():
    async def main():
        loop, seen = asyncio.get_running_loop(), []
        loop.call_later(2.5, lambda: seen.append(now()))
        loop.call_at(1.25, lambda: seen.append(now()))
        cancelled = loop.call_later(1, seen.append, "cancelled")
        cancelled.cancel()
        await asyncio.sleep(3)
        assert seen == [1.25, 2.5]

    run(main())


def test_decimals_come_when_they_are_due():
    """Whatever a double makes of a sum: nothing is early, and nothing is asked for twice."""

    async def main():
        for step in range(1000):
            before, delay = now(), (step % 97 + 1) * 0.00137
            await asyncio.sleep(delay)
            assert before + delay <= now() < before + delay + 1e-6

    run(main())


def test_channels_are_awaited_on_the_same_clock():
    async def main():
        assert await Timer(3).c == 3.0
        assert await timerheap.asyncio.select(after(5), after(2), timeout=60) != (None, None)
        assert now() == 5.0
        ticks = []
        async for at in Ticker(10):
            ticks.append(at)
            if len(ticks) == 3:
                break
        assert ticks == [15.0, 25.0, 35.0]
        with pytest.raises(TimeoutError):
            await timerheap.asyncio.select(Timer(math.inf).c, timeout=5)
        assert now() == 40.0

    run(main())


def test_the_heap_is_that_of_the_loop_and_the_default_one():
    async def main():
        heap, seen = timerheap.asyncio.heap(), []
        assert type(heap) is ManualHeap
        assert default_heap() is heap
        assert timerheap.asyncio.heap(asyncio.get_running_loop()) is heap

        def note():
            seen.append((now(), heap.time(), threading.current_thread() is thread))

        thread = threading.current_thread()
        AfterFunc(2, note)
        beat = every(3, note, heap=heap)
        await asyncio.sleep(7)
        assert beat.stop()
        assert seen == [(2.0, 2.0, True), (3.0, 3.0, True), (6.0, 6.0, True)]

    run(main())


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_what_a_callback_on_the_heap_raises_leaves_the_loop(error):
    cancelled = []

    async def main():
        AfterFunc(1, fail, error("mine"))
        try:
            await asyncio.sleep(5)
        except asyncio.CancelledError:
            cancelled.append(now())
            raise

    with pytest.raises(error, match="mine"):
        run(main())
    assert cancelled == [1.0]


def test_a_coroutine_may_turn_the_clock_itself():
    async def main():
        seen = []
        task = asyncio.ensure_future(asyncio.sleep(5))
        AfterFunc(2, seen.append, "called")
        await asyncio.sleep(0)
        timerheap.asyncio.heap().advance(5)
        assert seen == ["called"]
        await task
        block(1)  # this thread's, and so the loop's
        assert now() == 6.0

    run(main())


# ---- what comes from outside ----------------------------------------------------------------------------------------


def test_a_job_of_an_executor_is_waited_for_while_the_clock_stands_still():
    async def main():
        go = threading.Event()
        timer = threading.Timer(0.2, go.set)
        timer.start()
        assert await asyncio.wait_for(asyncio.to_thread(go.wait, 30), 5)
        assert now() == 0.0
        await asyncio.sleep(10)  # and goes on after it
        assert now() == 10.0
        timer.join()

    run(main())


def test_a_job_that_waits_on_the_heap_moves_the_clock():
    async def main():
        await asyncio.wait_for(asyncio.to_thread(block, 3), 5)
        assert now() == 3.0
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.to_thread(block, 10), 5)
        assert now() == 8.0

    run(main())


def test_a_coroutine_that_waits_on_the_heap_is_no_job():
    async def main():
        heap = timerheap.asyncio.heap()

        def work():
            time.sleep(0.05)
            return heap.time()

        waiting = asyncio.ensure_future(timerheap.asyncio.select(Timer(1).c))
        assert await asyncio.to_thread(work) == 0.0
        await waiting
        assert now() == 1.0

    run(main())


def test_the_end_of_the_executor_takes_no_virtual_time(recwarn):
    heap = ManualHeap(auto=True)
    with asyncio.Runner(loop_factory=lambda: EventLoop(heap=heap)) as runner:
        runner.run(asyncio.to_thread(int))
        runner.get_loop().run_in_executor(None, time.sleep, 0.1)
    assert heap.time() == 0.0
    assert not recwarn.list


def test_files_take_their_time_where_no_timer_is_pending():
    async def main():
        ours, theirs = socket.socketpair()
        with ours, theirs:
            reader, writer = await asyncio.open_connection(sock=ours)
            later = threading.Timer(0.05, theirs.send, [b"real"])
            later.start()
            assert await reader.read(4) == b"real"
            assert now() == 0.0
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.read(4), 60)
            assert now() == 60.0
            theirs.send(b"soon")
            assert await asyncio.wait_for(reader.read(4), 60) == b"soon"  # what is there comes first
            assert now() == 60.0
            writer.close()
            later.join()

    run(main())


def test_another_thread_may_call_into_a_loop_that_has_nothing_to_do():
    async def main():
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        later = threading.Timer(0.05, loop.call_soon_threadsafe, [future.set_result, "called"])
        later.start()
        assert await future == "called"
        later.join()

    run(main())


# ---- the loop -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("selector", [None, selectors.SelectSelector])
def test_a_loop_of_ones_own_starts_where_the_heap_does_and_leaves_it_open(selector):
    heap = ManualHeap(1000.5, auto=True)
    loop = EventLoop(selector and selector(), heap=heap)
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        assert runner.get_loop().time() == 1000.5
        runner.run(asyncio.sleep(9.5))
        AfterFunc(5, int, heap=heap)
        runner.run(asyncio.sleep(0))
    assert loop.is_closed()
    assert (heap.closed, heap.time(), len(heap)) == (False, 1010.0, 1)
    with pytest.raises(RuntimeError, match="closed"):
        timerheap.asyncio.heap(loop)


def test_a_loop_of_another_thread():
    async def main():
        await asyncio.sleep(5)
        return await Timer(2).c

    assert Background(run, main()).result() == 7.0


@pytest.mark.parametrize("heap", [ManualHeap(), TimerHeap("real"), 3, ManualHeap], ids=repr)
def test_only_a_manual_heap_with_auto_will_do(heap):
    with pytest.raises(TypeError, match=r"EventLoop\(\) heap must be a ManualHeap\(auto=True\)"):
        EventLoop(heap=heap)


def test_a_loop_within_a_callback_of_its_heap_is_refused():
    heap = ManualHeap(auto=True)
    loop = EventLoop(heap=heap)
    AfterFunc(1, lambda: loop.run_until_complete(asyncio.sleep(1)), heap=heap)
    with pytest.raises(RuntimeError, match="under way"):
        heap.advance(1)
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


def test_the_default_heap_is_itself_again_after_run():
    before = default_heap()
    run(asyncio.sleep(1))
    assert default_heap() is before
    with pytest.raises(KeyError):
        run(asyncio.wait_for(raise_key_error(), 1))
    assert default_heap() is before


async def raise_key_error():
    raise KeyError
