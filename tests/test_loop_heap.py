"""timerheap.asyncio.heap: a TimerHeap whose callbacks an event loop runs."""

import asyncio
import contextvars
import gc
import threading
import time
import weakref

import pytest
from helpers import FAR, FREE_THREADED, PATIENCE, Background, balance, loop_classes, run_ok, run_threads

from timerheap import AfterFunc, Ticker, Timer, TimerHeap, after, every
from timerheap.asyncio import heap as heap_of
from timerheap.testing import use

LOOPS = loop_classes()


@pytest.fixture(params=LOOPS)
def loop(request):
    """An event loop, not running; closed when the test is over."""
    loop = request.param()
    yield loop
    loop.close()


@pytest.fixture
def heap(loop):
    """The loop's heap; checked, then closed, when the test is over."""
    heap = heap_of(loop)
    yield heap
    heap.check()
    assert heap.closed or balance(heap) == 0
    heap.close()
    heap.check()
    assert len(heap) == 0


def run_until(loop, condition, timeout=PATIENCE):
    """Run the loop until `condition` holds; fail after `timeout` seconds."""

    async def look():
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, "what was waited for did not happen"
            await asyncio.sleep(0.001)

    loop.run_until_complete(look())


# ---- one for each loop ----------------------------------------------------------------------------------------------


def test_each_loop_has_one_heap(loop):
    async def here():
        return heap_of(), heap_of(asyncio.get_running_loop())

    first, second = loop.run_until_complete(here())
    assert first is second is heap_of(loop)
    assert isinstance(first, TimerHeap)
    other = asyncio.SelectorEventLoop()
    assert heap_of(other) is not first
    other.close()


def test_without_a_running_loop_there_is_none():
    with pytest.raises(RuntimeError, match="no running event loop"):
        heap_of()


@pytest.mark.parametrize("thing", [1, "loop", asyncio.SelectorEventLoop, asyncio])
def test_what_is_no_loop_is_refused(thing):
    with pytest.raises(TypeError, match=r"heap\(\) loop must be an event loop"):
        heap_of(thing)


def test_a_closed_heap_is_replaced(loop, heap):
    heap.close()
    another = heap_of(loop)
    assert another is not heap
    assert not another.closed
    with pytest.raises(RuntimeError, match="closed"):
        AfterFunc(FAR, print, heap=heap)


class Bare:
    """A loop without a __dict__, whose methods are another's."""

    __slots__ = ("__weakref__", "loop")

    def __init__(self, loop):
        self.loop = loop

    def __getattr__(self, name):
        if name == "__dict__":
            raise AttributeError(name)
        return getattr(self.loop, name)


def test_a_loop_without_attributes_of_its_own_has_one_as_well(loop):
    bare = Bare(loop)
    heap = heap_of(bare)
    assert heap_of(bare) is heap
    seen = []
    AfterFunc(0, seen.append, 1, heap=heap)
    run_until(loop, lambda: seen)
    heap, gone = None, weakref.ref(heap)
    del bare
    gc.collect()
    assert gone() is None


# ---- the end of the loop --------------------------------------------------------------------------------------------


def test_the_heap_is_closed_with_its_loop(loop):
    heap, witness = heap_of(loop), threading.Event()
    timer = AfterFunc(FAR, witness.set, heap=heap)
    gone = weakref.ref(witness)
    loop.close()
    assert heap.closed
    assert not timer.active
    del witness, timer
    gc.collect()
    assert gone() is None
    loop.close()  # may be called again
    with pytest.raises(RuntimeError, match="closed"):
        AfterFunc(FAR, print, heap=heap)
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        heap_of(loop)


def test_a_loop_that_refuses_to_close_keeps_its_heap(loop, heap):
    async def close():
        with pytest.raises(RuntimeError):
            loop.close()

    loop.run_until_complete(close())
    assert not heap.closed
    assert heap_of(loop) is heap


def test_a_close_that_a_program_has_put_on_the_loop_is_called():
    loop, calls = asyncio.SelectorEventLoop(), []

    def close():
        calls.append(loop.is_closed())
        type(loop).close(loop)

    loop.close = close
    heap = heap_of(loop)
    loop.close()
    assert heap.closed
    assert calls == [False]
    assert loop.close is close


def test_an_end_of_the_loop_that_nobody_saw_is_found_by_arming():
    loop = asyncio.SelectorEventLoop()
    heap = heap_of(loop)
    type(loop).close(loop)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="heap is closed"):
            AfterFunc(0, print, heap=heap)
    assert heap.closed
    assert len(heap) == 0


@pytest.mark.filterwarnings("ignore:unclosed event loop:ResourceWarning")
@pytest.mark.parametrize("ran", [False, True])
def test_a_loop_that_is_dropped_takes_its_heap_along(ran):
    """One of asyncio's own: uvloop's, once it has run and is not closed, is for ever."""

    class Owner:
        def __init__(self):
            self.loop = asyncio.SelectorEventLoop()
            self.heap = heap_of(self.loop)
            self.timer = AfterFunc(FAR, self.print, heap=self.heap)
            every(FAR, self.print, heap=self.heap)
            AfterFunc(FAR, self.print, self, heap=self.heap)

        def print(self, *args):
            pass

    owner = Owner()
    if ran:
        owner.loop.run_until_complete(asyncio.sleep(0.01))
    gone = weakref.ref(owner.heap)
    owner = weakref.ref(owner)
    assert owner() is not None
    gc.collect()
    assert (owner(), gone()) == (None, None)


# ---- callbacks ------------------------------------------------------------------------------------------------------


def test_callbacks_run_in_the_thread_of_the_loop_and_start_none(loop, heap):
    before, seen = threading.active_count(), []
    for delay in (0.02, 0, 0.01):
        AfterFunc(delay, lambda: seen.append((threading.get_ident(), asyncio.get_running_loop())), heap=heap)
    assert seen == []
    run_until(loop, lambda: len(seen) == 3)
    assert set(seen) == {(threading.get_ident(), loop)}
    assert threading.active_count() == before
    assert heap.stats()["threads"] == 0


def test_nothing_is_early_and_all_of_it_in_order(loop, heap):
    seen, due = [], []
    delays = [(index * 7919 % 97) / 1000 for index in range(200)]

    def fire(index):
        seen.append((due[index], time.monotonic()))

    async def arm():
        timers = [AfterFunc(delay, fire, index, heap=heap) for index, delay in enumerate(delays)]
        due.extend(timer.when for timer in timers)

    loop.run_until_complete(arm())
    run_until(loop, lambda: len(seen) == len(delays))
    assert all(when <= at for when, at in seen)
    assert [when for when, _ in seen] == sorted(due)


def test_equal_deadlines_fire_in_arming_order(loop, heap):
    seen = []
    with use(heap, strict=False):
        ticks = [every(0.01, seen.append, index, heap=heap) for index in range(3)]
    run_until(loop, lambda: len(seen) >= 3)
    for tick in ticks:
        tick.stop()
    assert seen[:3] == [0, 1, 2]


def test_an_earlier_timer_is_not_late_by_a_later_one(loop, heap):
    seen = []

    async def arm():
        AfterFunc(FAR, seen.append, "far", heap=heap)
        await asyncio.sleep(0.01)
        AfterFunc(0.01, seen.append, "near", heap=heap)

    loop.run_until_complete(arm())
    run_until(loop, lambda: seen)
    assert seen == ["near"]


def test_a_timer_that_is_reset_to_earlier_is_on_time(loop, heap):
    seen = []
    timers = [AfterFunc(FAR, seen.append, index, heap=heap) for index in range(3)]
    loop.run_until_complete(asyncio.sleep(0.01))
    assert timers[1].reset(0.01)
    assert timers[2].postpone(0.01)
    run_until(loop, lambda: len(seen) == 2)
    assert sorted(seen) == [1, 2]


def test_a_stopped_and_a_postponed_timer_do_not_fire_when_their_time_had_come(loop, heap):
    seen = []
    stopped = AfterFunc(0.5, seen.append, "stopped", heap=heap)
    put_off = AfterFunc(0.5, seen.append, "put off", heap=heap)
    last = AfterFunc(0.6, seen.append, "last", heap=heap)
    loop.run_until_complete(asyncio.sleep(0))
    assert stopped.stop()
    assert put_off.postpone(FAR)
    run_until(loop, lambda: not last.active)
    assert seen == ["last"]


def test_what_is_stopped_within_a_run_does_not_fire(loop, heap):
    seen = []
    AfterFunc(0, lambda: seen.append(second.stop()), heap=heap)
    second = AfterFunc(0, seen.append, "second", heap=heap)
    third = AfterFunc(0, seen.append, "third", heap=heap)
    run_until(loop, lambda: not third.active)
    assert seen == [True, "third"]


def test_a_chain_of_zero_delays_lets_the_loop_go_on(loop, heap):
    count, done = 0, False

    def again():
        nonlocal count
        count += 1
        if not done:
            AfterFunc(0, again, heap=heap)

    async def others():
        nonlocal done
        again()
        here, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, *server.sockets[0].getsockname())
        here.close()
        done = True

    server = loop.run_until_complete(loop.create_server(asyncio.Protocol, "127.0.0.1", 0))
    loop.run_until_complete(asyncio.wait_for(others(), PATIENCE))
    assert count > 1
    server.close()
    loop.run_until_complete(server.wait_closed())


def test_every_keeps_to_its_grid(loop, heap):
    seen = []
    timer = every(0.01, lambda: seen.append(timer.when), heap=heap)
    first = timer.when
    run_until(loop, lambda: len(seen) >= 5)
    assert timer.stop()
    for when in seen:
        steps = (when - first) / 0.01
        assert abs(steps - round(steps)) < 1e-3


def test_arming_from_other_threads_wakes_the_loop(loop, heap):
    seen = []

    def arm():
        time.sleep(0.02)  # the loop is asleep by then
        AfterFunc(0, seen.append, threading.get_ident(), heap=heap)

    async def wait():
        thread = Background(arm)
        while not seen:
            await asyncio.sleep(0.5 if thread.running else 0.001)

    AfterFunc(FAR, print, heap=heap)
    start = time.monotonic()
    loop.run_until_complete(asyncio.wait_for(wait(), PATIENCE))
    assert time.monotonic() - start < PATIENCE
    assert seen[0] != threading.get_ident()


def test_many_threads_and_the_loop_lose_nothing(loop, heap):
    """Each arming is fired or stopped, once."""
    fired = []

    def work(index):
        stopped = 0
        for turn in range(300):
            timer = AfterFunc((index * 31 + turn * 17) % 20 / 1000, fired.append, (index, turn), heap=heap)
            if turn % 3 == 0:
                stopped += timer.stop()
            elif turn % 3 == 1:
                timer.postpone(turn % 5 / 1000)
        return stopped

    threads = Background(run_threads, 3, work)
    run_until(loop, lambda: not threads.running)
    stopped = sum(threads.result())
    run_until(loop, lambda: len(heap) == 0)
    assert len(fired) == len(set(fired)) == 900 - stopped
    assert balance(heap) == 0


def test_a_thousand_armings_ask_the_loop_once(loop, heap):
    calls = []
    call_soon, call_later = loop.call_soon, loop.call_later
    try:
        loop.call_soon = lambda *args, **kwargs: calls.append(args[0]) or call_soon(*args, **kwargs)
        loop.call_later = lambda *args, **kwargs: calls.append(args[1]) or call_later(*args, **kwargs)
    except AttributeError:
        pytest.skip("this loop's methods cannot be replaced")

    async def arm():
        calls.clear()
        for index in range(1000, 0, -1):
            AfterFunc(index, print, heap=heap)
        asked = [call for call in calls if getattr(call, "__self__", None) is heap]
        await asyncio.sleep(0.01)
        planned = [call for call in calls if getattr(call, "__self__", None) is heap]
        return len(asked), len(planned)

    assert loop.run_until_complete(arm()) == (1, 2)


def test_with_far_timers_only_the_loop_sleeps(loop, heap):
    for _ in range(100):
        AfterFunc(FAR, print, heap=heap)
    loop.run_until_complete(asyncio.sleep(0.1))
    assert heap.stats()["wakeups"] <= 2


def test_it_can_be_the_default_heap(loop, heap):
    seen = []
    with use(heap, strict=False):
        AfterFunc(0.001, seen.append, 1)
        run_until(loop, lambda: seen)
    assert heap.stats()["fired"] == 1


def test_its_channels_and_tickers_are_as_any(loop, heap):
    assert Timer(0, heap=heap).c.poll() is not None
    channel = after(0.01, heap=heap)
    assert channel.recv(PATIENCE) <= time.monotonic()  # no loop runs
    with Ticker(0.01, heap=heap) as ticker:
        assert ticker.c.recv(PATIENCE) < ticker.c.recv(PATIENCE)


def test_pending_shows_what_the_loop_is_going_to_call(loop, heap):
    timers = [AfterFunc(delay, print, heap=heap) for delay in (3, 1, 2)]
    AfterFunc(4, print, "dropped", heap=heap)
    pending = heap.pending()
    assert [timer for _, timer in pending[:3]] == [timers[1], timers[2], timers[0]]
    assert pending[3][1].args == ("dropped",)
    assert len(heap) == 4


def test_a_callback_sees_an_empty_context_or_its_own(loop, heap):
    variable = contextvars.ContextVar("variable", default="none")
    seen = []

    async def arm():
        variable.set("of the task")
        AfterFunc(0, lambda: seen.append(variable.get()), heap=heap)
        AfterFunc(0, lambda: seen.append(variable.get()), context=contextvars.copy_context(), heap=heap)

    loop.run_until_complete(arm())
    run_until(loop, lambda: len(seen) == 2)
    assert seen == ["none", "of the task"]


def test_a_callback_may_start_tasks(loop, heap):
    seen = []

    async def job():
        await asyncio.sleep(0.001)
        seen.append("done")

    tasks = []
    AfterFunc(0, lambda: tasks.append(asyncio.get_running_loop().create_task(job())), heap=heap)
    run_until(loop, lambda: seen)
    assert tasks[0].done()


def test_stop_of_the_loop_finishes_the_run(loop, heap):
    seen = []
    for index in range(3):
        AfterFunc(0, seen.append, index, heap=heap)
    AfterFunc(0, loop.stop, heap=heap)
    AfterFunc(0, seen.append, "after it", heap=heap)
    loop.run_forever()
    assert seen == [0, 1, 2, "after it"]


# ---- errors ---------------------------------------------------------------------------------------------------------


def test_errors_go_to_the_handler_of_the_loop(loop, heap):
    seen, ran = [], []
    loop.set_exception_handler(lambda loop, context: seen.append((loop, context)))
    error = ValueError("mine")

    def fail():
        raise error

    timer = AfterFunc(0, fail, heap=heap)
    AfterFunc(0, ran.append, 1, heap=heap)
    run_until(loop, lambda: ran)
    ((where, context),) = seen
    assert where is loop
    assert context["exception"] is error
    assert context["timer"] is timer
    assert repr(timer) in context["message"]
    assert heap.stats()["errors"] == 1


def test_errors_go_to_on_error_if_there_is_one(loop, heap):
    seen, ran = [], []
    loop.set_exception_handler(lambda loop, context: seen.append(context))
    heap.on_error = lambda exc, timer: seen.append((exc.args, timer.args))
    AfterFunc(0, int, "no number", heap=heap)
    AfterFunc(0, ran.append, 1, heap=heap)
    run_until(loop, lambda: ran)
    assert len(seen) == 1
    assert seen[0][1] == ("no number",)


def test_a_hook_that_fails_is_told_and_the_loop_goes_on(loop, heap, unraisable):
    ran = []

    def fail(exc, timer):
        raise ValueError("the hook")

    heap.on_error = fail
    AfterFunc(0, int, "no number", heap=heap)
    AfterFunc(0, ran.append, 1, heap=heap)
    run_until(loop, lambda: ran)
    assert [str(told.exc_value) for told in unraisable] == ["the hook"]


def test_a_coroutine_function_is_an_error(loop, heap):
    seen = []
    loop.set_exception_handler(lambda loop, context: seen.append(context["exception"]))

    async def nobody_runs_it():
        pass

    AfterFunc(0, nobody_runs_it, heap=heap)
    run_until(loop, lambda: seen)
    assert isinstance(seen[0], TypeError)


def interrupt(kind):
    raise kind


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("place", ["first", "last", "periodic"])
def test_what_ends_a_program_leaves_the_loop_and_the_rest_runs_next_time(loop, heap, kind, place):
    """Each exactly once."""
    seen = []
    if place == "first":
        AfterFunc(0, interrupt, kind, heap=heap)
    beat = every(1e-9, interrupt, kind, heap=heap) if place == "periodic" else None
    for index in range(3):
        AfterFunc(0, seen.append, index, heap=heap)
    if place == "last":
        AfterFunc(0, interrupt, kind, heap=heap)
    with pytest.raises(kind):
        loop.run_until_complete(asyncio.sleep(FAR))
    assert seen == ([0, 1, 2] if place == "last" else [])
    if beat is not None:
        beat.stop()
    heap.check()
    loop.set_exception_handler(lambda loop, context: None)  # of the task that has been left behind
    for task in asyncio.all_tasks(loop):
        task.cancel()
    run_until(loop, lambda: len(seen) == 3)
    assert seen == [0, 1, 2]
    heap.check()
    assert len(heap) == 0
    assert balance(heap) == 0


def test_it_leaves_the_loop_out_of_a_hook_as_well(loop, heap):
    heap.on_error = lambda exc, timer: interrupt(SystemExit)
    seen = []
    AfterFunc(0, int, "no number", heap=heap)
    AfterFunc(0, seen.append, 1, heap=heap)
    with pytest.raises(SystemExit):
        loop.run_forever()
    assert seen == []
    run_until(loop, lambda: seen)


def test_a_heap_that_is_closed_after_that_lets_the_rest_go(loop, heap):
    AfterFunc(0, interrupt, KeyboardInterrupt, heap=heap)
    rest = [AfterFunc(0, print, heap=heap) for _ in range(3)]
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()
    assert all(timer.active for timer in rest)
    heap.close()
    assert not any(timer.active for timer in rest)
    stats = heap.stats()
    assert stats["arms"] == stats["fired"] + stats["cancelled"] == 4


def test_a_loop_that_cannot_be_asked_leaves_nothing_armed(loop, heap, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("no")

    timer = AfterFunc(FAR, print, heap=heap)
    timer.stop()
    loop.run_until_complete(asyncio.sleep(0))
    try:
        monkeypatch.setattr(loop, "call_soon_threadsafe", fail)
    except AttributeError:
        pytest.skip("this loop's methods cannot be replaced")
    for arm in (lambda: AfterFunc(0, print, heap=heap), lambda: every(1, print, heap=heap), lambda: timer.reset(1)):
        with pytest.raises(OSError, match="no"):
            arm()
        assert len(heap) == 0
        heap.check()
    monkeypatch.undo()
    seen = []
    AfterFunc(0, seen.append, 1, heap=heap)
    run_until(loop, lambda: seen)


# ---- close ----------------------------------------------------------------------------------------------------------


def test_close_from_a_callback_cancels_the_rest(loop, heap):
    seen = []
    AfterFunc(0, heap.close, heap=heap)
    AfterFunc(0, seen.append, 1, heap=heap)
    AfterFunc(FAR, seen.append, 2, heap=heap)
    run_until(loop, lambda: heap.closed)
    loop.run_until_complete(asyncio.sleep(0.01))
    assert seen == []
    assert len(heap) == 0


def test_close_from_another_thread_waits_for_the_callback(loop, heap):
    begun, end, order = threading.Event(), threading.Event(), []

    def callback():
        begun.set()
        assert end.wait(PATIENCE)
        order.append("callback")

    def close():
        assert begun.wait(PATIENCE)
        with pytest.raises(TimeoutError):
            heap.close(0.01)
        end.set()
        heap.close()
        order.append("close")

    AfterFunc(0, callback, heap=heap)
    closer = Background(close)
    run_until(loop, lambda: not closer.running)
    closer.result()
    assert order == ["callback", "close"]


def test_two_loops_that_close_each_others_heaps_both_end():
    heaps, meet, done = {}, threading.Barrier(2), []

    def run(index):
        loop = asyncio.SelectorEventLoop()
        heaps[index] = heap_of(loop)

        def close_other():
            meet.wait(PATIENCE)
            heaps[1 - index].close()
            done.append(index)
            loop.call_soon(loop.stop)

        meet.wait(PATIENCE)
        AfterFunc(0, close_other, heap=heaps[index])
        loop.run_forever()
        loop.close()

    run_threads(2, run)
    assert sorted(done) == [0, 1]


# ---- the process ----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(FREE_THREADED, reason="without a GIL a fork beside threads of the test is not what is asked here")
def test_in_the_child_of_a_fork_nothing_of_the_parents_fires():
    run_ok(
        """
        import asyncio, os
        from timerheap import AfterFunc
        from timerheap.asyncio import heap

        async def main(seen, expected):
            AfterFunc(0.01, seen.append, "late", heap=heap())
            while "late" not in seen:
                await asyncio.sleep(0.001)
            assert seen == expected, seen

        loop = asyncio.new_event_loop()
        seen = []
        AfterFunc(0.001, seen.append, "parent", heap=heap(loop))
        pid = os.fork()
        if pid == 0:
            assert len(heap(loop)) == 0
            heap(loop).check()
            loop.run_until_complete(main(seen, ["late"]))
            heap(loop).check()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        loop.run_until_complete(main(seen, ["parent", "late"]))
        loop.close()
        """
    )


def test_a_callback_may_fork():
    run_ok(
        """
        import asyncio, os
        from timerheap import AfterFunc
        from timerheap.asyncio import heap

        def fork():
            pid = os.fork()
            if pid == 0:
                heap(loop).check()
                assert len(heap(loop)) == 0
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
            seen.append("forked")

        seen = []
        loop = asyncio.new_event_loop()
        AfterFunc(0, fork, heap=heap(loop))
        AfterFunc(0, seen.append, "next", heap=heap(loop))
        AfterFunc(0.01, loop.stop, heap=heap(loop))
        loop.run_forever()
        assert seen == ["forked", "next"], seen
        loop.close()
        """
    )


def test_a_program_ends_with_timers_armed_on_a_loop():
    out = run_ok(
        """
        import asyncio, atexit
        from timerheap import AfterFunc
        from timerheap.asyncio import heap

        async def main():
            AfterFunc(3600, print, "never", heap=heap())
            AfterFunc(0, print, "once", heap=heap())
            await asyncio.sleep(0.01)

        asyncio.run(main())
        loop = asyncio.new_event_loop()
        AfterFunc(0, print, "at exit", heap=heap(loop))
        atexit.register(lambda: loop.run_until_complete(asyncio.sleep(0.01)))
        left = asyncio.new_event_loop()
        AfterFunc(0, print, "never", heap=heap(left))
        """,
        "-W",
        "ignore::ResourceWarning",
    )
    assert out == "once\nat exit\n"


def test_timerheap_alone_imports_no_asyncio():
    run_ok("import timerheap, sys; assert 'asyncio' not in sys.modules")


@pytest.mark.parametrize("debug", [False, True])
def test_asyncio_debug_mode_has_nothing_to_say(loop, heap, debug, caplog):
    loop.set_debug(debug)
    loop.slow_callback_duration = PATIENCE  # of a busy machine it may speak, and name what was slow
    seen = []

    async def arm():
        AfterFunc(0.001, seen.append, 1, heap=heap)

    loop.run_until_complete(arm())
    run_until(loop, lambda: seen)
    assert [record for record in caplog.records if "timerheap" in record.getMessage()] == []
