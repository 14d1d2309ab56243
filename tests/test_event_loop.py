"""timerheap.asyncio's event loops: call_later and call_at, their handles, and who else has to do with them.

Most tests run on the stock loop as well, which has to pass them too: a program must not see the difference.
"""

import asyncio
import contextvars
import gc
import random
import selectors
import socket
import sys
import threading
import time
import types
import weakref
from unittest import mock

import pytest
from helpers import FAR, FREE_THREADED, PATIENCE, run_ok

import timerheap.asyncio
from timerheap.asyncio import EventLoop, loop_class

try:
    import uvloop
except ImportError:
    uvloop = None

STOCK = asyncio.SelectorEventLoop
NATIVE = {
    "EventLoop": EventLoop,
    "any selector": lambda: EventLoop(selectors.SelectSelector()),
    "planned": loop_class(STOCK),
}
if uvloop is not None:
    NATIVE["over uvloop"] = loop_class(uvloop.Loop)
LOOPS = {"stock": STOCK, **NATIVE}

every_loop = pytest.mark.parametrize("make", LOOPS.values(), ids=LOOPS)
native_loops = pytest.mark.parametrize("make", NATIVE.values(), ids=NATIVE)


def run(make, main, **options):
    with asyncio.Runner(loop_factory=make, **options) as runner:
        return runner.run(main)


@pytest.fixture
def loop(make):
    loop = make()
    yield loop
    if make is not STOCK and not loop.is_closed():
        loop._native_timers.check()
    loop.close()


def turn(loop, seconds=0.0):
    """Let it run for so long, and have called what is due."""
    loop.run_until_complete(asyncio.sleep(seconds))


# ---- calling --------------------------------------------------------------------------------------------------------


@every_loop
def test_calls_come_by_deadline_and_never_early(make):
    async def main():
        loop = asyncio.get_running_loop()
        called = []
        start = time.monotonic()
        delays = [random.Random(1).uniform(0, 0.1) for _ in range(200)]
        for delay in delays:
            loop.call_later(delay, lambda d=delay: called.append((d, time.monotonic() - start)))
        await asyncio.sleep(0.3)
        assert [delay for delay, _ in called] == sorted(delays)
        return called

    called = run(make, main())
    if make is not STOCK:
        assert all(at >= delay for delay, at in called)


@native_loops
def test_equal_deadlines_come_in_the_order_of_arming(make, loop):
    called = []
    when = loop.time() + 0.01
    for n in range(1000):
        loop.call_at(when, called.append, n)
    turn(loop, 0.05)
    assert called == list(range(1000))


@every_loop
def test_arguments_and_context(make, loop):
    var = contextvars.ContextVar("var", default="none")
    seen = []

    def callback(*args):
        seen.append((args, var.get()))
        var.set("changed")

    mine = contextvars.Context()
    mine.run(var.set, "mine")
    var.set("outer")
    loop.call_later(0, callback)
    loop.call_later(0.001, callback, 1)
    loop.call_later(0.002, callback, 1, 2, 3)
    loop.call_at(loop.time() + 0.003, callback, 4, context=mine)
    loop.call_later(delay=0.004, callback=callback, context=None)
    var.set("later")
    turn(loop, 0.02)
    assert seen == [((), "outer"), ((1,), "outer"), ((1, 2, 3), "outer"), ((4,), "mine"), ((), "outer")]
    assert mine[var] == "changed"
    assert var.get() == "later"


@every_loop
def test_cancelled_calls_do_not_come(make, loop):
    called = []
    handles = [loop.call_later(n % 7 * 0.002, called.append, n) for n in range(300)]
    for handle in handles[::3]:
        handle.cancel()
        handle.cancel()
    turn(loop, 0.05)
    assert sorted(called) == [n for n in range(300) if n % 3]
    assert [handle.cancelled() for handle in handles] == [n % 3 == 0 for n in range(300)]


@every_loop
def test_what_is_armed_after_all_was_cancelled_is_called(make, loop):
    """By a loop that had planned for something, and planned anew for nothing."""
    called = []
    for _ in range(3):
        far, near = loop.call_later(10, print), loop.call_later(5, print)
        far.cancel()
        near.cancel()
        turn(loop)
        loop.call_later(0.001, called.append, 1)
        turn(loop, 0.02)
    assert called == [1, 1, 1]


@every_loop
def test_a_call_of_the_same_batch_may_be_cancelled(make, loop):
    called = []
    when = loop.time() + 0.005
    handles = []

    def first():
        called.append("first")
        handles[1].cancel()

    handles += [loop.call_at(when, first), loop.call_at(when + 1e-6, called.append, "second")]
    loop.call_at(when + 2e-6, called.append, "third")
    turn(loop, 0.03)
    assert called == ["first", "third"]


@every_loop
def test_a_handle_may_cancel_itself_while_it_is_called(make, loop):
    handles, seen = [], []

    def callback(*args):
        handles[0].cancel()
        gc.collect()
        seen.append(args)

    handles.append(loop.call_later(0, callback, [1], [2], [3]))
    turn(loop, 0.01)
    assert seen == [([1], [2], [3])]
    assert handles[0].cancelled()
    assert handles[0]._callback is None
    assert handles[0]._args is None


@every_loop
def test_dropped_handles_are_called(make, loop):
    called = []
    for n in range(100):
        loop.call_later(0.001, called.append, n)
    gc.collect()
    turn(loop, 0.02)
    assert sorted(called) == list(range(100))


@native_loops
def test_a_chain_of_zero_delays_lets_files_in(make):
    async def main():
        loop = asyncio.get_running_loop()
        left, right = socket.socketpair()
        left.setblocking(False)
        steps, got = [0], loop.create_future()

        def step():
            steps[0] += 1
            if not got.done():
                loop.call_later(0, step)

        loop.add_reader(left, lambda: (loop.remove_reader(left), got.set_result(left.recv(10))))
        step()
        loop.call_later(0.001, right.send, b"here")
        assert await asyncio.wait_for(got, 30) == b"here"
        left.close()
        right.close()
        return steps[0]

    assert run(make, main()) > 1


@every_loop
def test_the_loop_sleeps_until_something_is_due(make):
    """Neither a cancelled timer nor a long one has it turn round."""

    async def main():
        loop = asyncio.get_running_loop()
        for _ in range(50):
            loop.call_later(0.01, print).cancel()
        far = loop.call_later(3600, print)
        before = time.process_time()
        await asyncio.sleep(0.5)
        far.cancel()
        return time.process_time() - before

    assert run(make, main()) < 0.25


@every_loop
def test_calls_come_after_all_others_were_cancelled(make, loop):
    late, early = loop.call_later(60, print), loop.call_later(30, print)
    late.cancel()
    early.cancel()
    turn(loop)
    watch = threading.Timer(10, loop.call_soon_threadsafe, [loop.stop])
    watch.start()
    came = []
    loop.call_later(0.01, came.append, 1)
    loop.call_later(0.02, loop.stop)
    loop.run_forever()
    watch.cancel()
    watch.join()
    assert came == [1]


@every_loop
@pytest.mark.parametrize("delay", [float("inf"), 1e300, 1e9])
def test_far_deadlines(make, loop, delay):
    if make is STOCK and delay != 1e9:
        pytest.skip("the stock loop cannot wait for that")
    if "uvloop" in repr(make) and delay != 1e9:
        pytest.skip("nor can uvloop")
    handle = loop.call_later(delay, print)
    turn(loop, 0.005)
    assert handle.when() >= loop.time() + 1e8
    handle.cancel()


@every_loop
def test_a_million_iterations_are_not_needed_for_a_short_wait(make, loop):
    """What is early by a rounding is waited for, not spun for."""
    turns = [0]

    async def main():
        for _ in range(20):
            before = loop.time()
            await asyncio.sleep(0.0037)
            turns[0] += loop.time() - before > 0

    loop.run_until_complete(main())
    assert turns[0] == 20


# ---- handles --------------------------------------------------------------------------------------------------------


@every_loop
def test_a_handle_is_a_timer_handle(make, loop):
    when = loop.time() + 3600
    args = ([], {})
    handle = loop.call_at(when, print, *args)
    assert isinstance(handle, asyncio.TimerHandle)
    assert isinstance(handle, asyncio.Handle)
    assert handle.when() == handle._when == when
    assert handle._callback is print
    assert handle._args == args
    assert handle._args[0] is args[0]
    assert isinstance(handle._context, contextvars.Context)
    assert handle._loop is loop
    assert handle._scheduled
    assert not handle._cancelled
    assert not handle.cancelled()
    assert handle._source_traceback is None
    assert handle._repr is None
    assert repr(handle).startswith("<TimerHandle when=")
    assert "print" in repr(handle)
    assert weakref.ref(handle)() is handle
    handle.cancel()
    assert handle._cancelled
    assert handle._callback is None
    assert handle._args is None
    assert handle.when() == when
    assert "cancelled" in repr(handle)


@every_loop
def test_handles_compare_as_timer_handles(make, loop):
    now = loop.time()
    early, late = loop.call_at(now + 10, print), loop.call_at(now + 20, print)
    same = loop.call_at(now + 10, print)
    foreign = asyncio.TimerHandle(now + 15, print, (), loop)
    assert early < late
    assert late > early
    assert early <= late
    assert late >= early
    assert early <= same
    assert early >= same
    assert early == same
    assert early != late
    assert hash(early) == hash(same) == hash(now + 10)
    assert early < foreign < late
    assert foreign > early
    assert early != 1
    assert (early == 1) is False
    with pytest.raises(TypeError):
        bool(early < 1)
    same.cancel()
    assert early != same
    for handle in (early, late):
        handle.cancel()


@native_loops
def test_a_handle_is_small_and_cannot_be_made_or_copied(make, loop):
    handle = loop.call_later(3600, print)
    assert sys.getsizeof(handle) <= 104 or FREE_THREADED
    with pytest.raises(TypeError):
        type(handle)()
    with pytest.raises(TypeError, match="cannot copy or pickle"):
        handle.__reduce__()
    handle.cancel()


@every_loop
def test_a_handle_can_be_run(make, loop):
    called = []
    handle = loop.call_later(3600, called.append, 1)
    handle._run()
    assert called == [1]
    handle.cancel()


@every_loop
@pytest.mark.parametrize("by", ["cancel", "close"])
def test_a_cancelled_handle_that_is_run_calls_nothing(make, loop, by):
    called = []
    loop.set_exception_handler(lambda *_: None)     # asyncio's own has it that None was to be called
    handle = loop.call_later(1000, called.append, 1)
    handle.cancel()
    if by == "close":
        loop.close()
    handle._run()
    assert called == []
    assert handle.cancelled()


@every_loop
def test_fired_handles_keep_what_they_called(make, loop):
    called = []
    handle = loop.call_later(0, called.append, 1)
    turn(loop, 0.01)
    assert not handle.cancelled()
    assert not handle._scheduled
    assert handle._args == (1,)
    handle.cancel()
    assert handle.cancelled()
    assert handle._args is None


def test_a_chain_of_handles_is_released_without_recursion():
    loop = EventLoop()
    handle = None
    for _ in range(100_000):
        handle = loop.call_later(3600, print, handle)
    loop.close()
    del handle
    gc.collect()


# ---- contexts -------------------------------------------------------------------------------------------------------

# Handles that are armed in one context share a snapshot of it, and a program must not see that.

var = contextvars.ContextVar("var", default="none")


def contexts():
    """How many the collector sees."""
    gc.collect()
    return sum(type(thing) is contextvars.Context for thing in gc.get_objects())


def in_context(call, value="set"):
    """Call it in a context of its own, in which var has that value."""
    context = contextvars.copy_context()
    context.run(var.set, value)
    return context.run(call)


@every_loop
def test_what_a_callback_sets_no_other_sees(make, loop):
    seen = []

    def callback(n):
        seen.append(var.get())
        if n % 3:
            var.set(n)

    handles = in_context(lambda: [loop.call_later(0.0001 * n, callback, n) for n in range(100)])
    turn(loop, 0.05)
    assert seen == ["set"] * 100
    assert [handle._context[var] for handle in handles] == [n if n % 3 else "set" for n in range(100)]
    assert var.get() == "none"


@every_loop
@pytest.mark.parametrize("value", ["new", "set"])
def test_a_token_belongs_to_the_context_of_its_call(make, loop, value):
    tokens, seen = [], []

    def callback():
        tokens.append(var.set(value))

    def reset():
        with pytest.raises(ValueError, match="different Context"):
            var.reset(tokens[0])
        seen.append(var.get())

    first, *_ = in_context(lambda: [loop.call_later(0, callback), loop.call_later(0.001, reset),
                                    loop.call_later(0.002, reset)])
    turn(loop, 0.02)
    assert seen == ["set", "set"]
    assert first._context[var] == value
    first._context.run(var.reset, tokens[0])
    assert first._context[var] == "set"


@every_loop
def test_the_context_of_a_handle_is_its_own(make, loop):
    seen = []
    first, second, third = in_context(
        lambda: [loop.call_later(0.001 * n, lambda: seen.append(var.get())) for n in range(3)])
    context = second._context
    assert context is second._context
    assert context is not first._context
    assert context[var] == third._context[var] == "set"
    context.run(var.set, "changed")
    turn(loop, 0.02)
    assert seen == ["set", "changed", "set"]
    assert second._context is context
    for handle in (first, third):
        handle._context.run(var.set, "late")
        handle._run()
    assert seen[3:] == ["late", "late"]


class Reader:
    """A cycle; its finalizer reads the contexts of the handles in the list."""

    def __init__(self, handles, seen):
        self._me = self
        self._handles = handles
        self._seen = seen

    def __del__(self):
        self._seen += [handle._context for handle in self._handles]


def collect_at_once():
    """From the next object on for which the collector has to be asked."""
    gc.set_threshold(1, 1, 1)
    gc.enable()


def collect_no_more(threshold):
    gc.disable()
    gc.set_threshold(*threshold)


@every_loop
@pytest.mark.parametrize("when", ["read", "called"])
def test_a_finalizer_may_read_a_context_that_is_being_copied(loop, when):
    # Where memory for a context makes the collector run, as up to CPython 3.11.
    threshold = gc.get_threshold()
    kept, seen, calls, read = [], [], [], []
    due = loop.time() + 0.01

    def keep_contexts():
        kept.extend(contextvars.copy_context() for _ in range(600))  # CPython has none at hand after that

    def begin():
        kept.append(var.set("begin"))  # nor is this one's copy to be had
        keep_contexts()
        if when == "called":
            Reader(handles[:1], seen)
            collect_at_once()

    def callback(n):
        collect_no_more(threshold)
        calls.append((n, var.get()))

    try:
        gc.collect()
        gc.disable()
        _, *handles = in_context(lambda: [loop.call_at(due, begin),
                                          *(loop.call_at(due, callback, n) for n in range(8))])
        keep_contexts()
        if when == "read":
            for handle in handles:
                Reader([handle], seen)
                collect_at_once()
                read.append(handle._context)
                collect_no_more(threshold)
        turn(loop, 0.05)
    finally:
        collect_no_more(threshold)
        gc.enable()
    gc.collect()
    assert sorted(calls) == [(n, "set") for n in range(8)]
    assert all(handle._context is context for handle, context in zip(handles, read, strict=when == "read"))
    assert all(handle._context[var] == "set" for handle in handles)
    assert {id(context) for context in seen} <= {id(handle._context) for handle in handles}


@every_loop
def test_the_context_of_a_handle_is_the_one_it_is_called_in(make, loop):
    seen = []

    def callback():
        seen.append(handle._context)
        var.set("changed")
        seen.append(handle._context[var])
        with pytest.raises(RuntimeError, match="already entered"):
            handle._context.run(print)

    handle = loop.call_later(0, callback)
    after = loop.call_later(0.001, lambda: seen.append(var.get()))
    turn(loop, 0.02)
    assert seen == [handle._context, "changed", "none"]
    assert seen[0] is handle._context
    assert after._context is not seen[0]


@every_loop
def test_calls_within_calls_have_contexts_of_their_own(make, loop):
    seen, calls = [], []
    loop.set_exception_handler(lambda *_: None)

    def inner(value):
        seen.append(var.get())
        var.set(value)

    def outer():
        calls.append(1)
        var.set("outer")
        for handle in inners:
            handle._run()
            seen.append(var.get())
        handle, = itself
        handle._run()  # its context is entered already

    def prepare():
        inners.extend(loop.call_later(3600, inner, n) for n in range(3))
        itself.append(loop.call_later(0, outer))
        loop.call_later(0.001, inner, 3)

    inners, itself = [], []
    in_context(prepare)
    turn(loop, 0.02)
    assert seen == ["set", "outer"] * 3 + ["set"]
    assert calls == [1]
    assert [handle._context[var] for handle in inners] == [0, 1, 2]
    for handle in inners:
        handle.cancel()


@pytest.mark.parametrize("make", [STOCK, EventLoop, loop_class(STOCK)], ids=["stock", "EventLoop", "planned"])
def test_an_exception_handler_is_called_in_the_context_of_the_call_from_3_12_on(make, loop):
    def callback():
        var.set("changed")
        raise ZeroDivisionError

    seen = []
    loop.set_exception_handler(lambda *_: seen.append(var.get()))
    handle = loop.call_later(0, callback)
    turn(loop, 0.01)
    assert seen == ["changed" if sys.version_info >= (3, 12) else "none"]
    if sys.version_info >= (3, 12):
        assert handle.get_context() is handle._context


@every_loop
def test_what_is_made_in_a_call_goes_on_in_its_own_context(make, loop):
    async def task():
        seen.append(var.get())
        await asyncio.sleep(0.001)
        seen.append(var.get())

    def generate():
        while True:
            yield var.get()

    def first():
        var.set("first")
        tasks.append(loop.create_task(task()))
        things.append(generate())
        assert next(things[0]) == "first"

    def second():
        seen.append(var.get())
        seen.append(next(things[0]))
        var.set("second")

    tasks, things, seen = [], [], []
    loop.call_later(0, first)
    loop.call_later(0, second)
    turn(loop, 0.02)
    assert sorted(seen) == ["first", "first", "none", "none"]


@every_loop
def test_each_arming_has_the_context_of_its_moment(make, loop):
    async def main():
        async def other():
            var.set("other")
            for n in range(20):
                loop.call_later(0.001, lambda n=n: seen.append((n, var.get())))
                await asyncio.sleep(0)

        seen = []
        task = asyncio.create_task(other())
        for n in range(20):
            token = var.set(n // 2)
            loop.call_later(0.001, lambda n=n: seen.append((20 + n, var.get())))
            if n % 4 == 3:
                var.reset(token)
            await asyncio.sleep(0)
        await task
        await asyncio.sleep(0.02)
        assert sorted(seen) == [(n, "other") for n in range(20)] + [(20 + n, n // 2) for n in range(20)]

    loop.run_until_complete(main())


@every_loop
def test_a_sleep_that_is_called_off_wakes_its_task_in_its_context(make, loop):
    async def task(value):
        var.set(value)
        try:
            await timerheap.asyncio.sleep(3600)
        finally:
            seen.append(var.get())

    async def main():
        tasks = [asyncio.create_task(task(n)) for n in range(3)]
        await asyncio.sleep(0.001)
        for waiting in tasks:
            waiting.cancel()
        await asyncio.wait(tasks)

    seen = []
    loop.run_until_complete(main())
    assert seen == [0, 1, 2]


@every_loop
@pytest.mark.parametrize("by", ["cancel", "fire", "read", "run"])
def test_what_a_context_held_goes_with_its_handles(make, loop, by):
    def arm():
        return [loop.call_later(0 if by == "fire" else 3600, int) for _ in range(3)]

    async def main():
        thing = Thing()
        gone = weakref.ref(thing)
        handles = in_context(arm, thing)
        del thing
        assert gone() is not None
        if by == "read":
            assert all(type(handle._context[var]) is Thing for handle in handles)
        elif by == "run":
            for handle in handles:
                handle._run()
        for handle in handles:
            if by != "fire":
                handle.cancel()
        await asyncio.sleep(0.005)
        assert gone() is not None
        del handle
        handles.clear()
        await asyncio.sleep(0.001)
        return gone

    gc.disable()
    try:
        gone = loop.run_until_complete(main())
        assert gone() is None
    finally:
        gc.enable()


def test_a_loop_that_does_not_run_keeps_no_context():
    loop = EventLoop()
    gone = weakref.ref(in_context(lambda: loop.call_later(3600, int).cancel() or var.get(), Thing()))
    assert gone() is None
    loop.close()


@every_loop
def test_no_context_is_left_behind(make, loop):
    def callback(n):
        if n % 2:
            var.set(n)

    def work():
        for n in range(200):
            handles = in_context(lambda n=n: [loop.call_later(0.00001 * n, callback, n) for _ in range(5)], n)
            handles[0].cancel()
            handles[1]._run()
            assert handles[2]._context is not None
        handles.clear()
        turn(loop, 0.02)

    work()
    before = contexts()
    for _ in range(3):
        work()
    assert contexts() <= before + 2


def loop_goes_with(make, fill):
    """What fill has armed on a loop, and gives a weak reference to, goes when the loop is dropped, and not before."""
    loop = make()
    gone = fill(loop)
    gc.collect()
    assert gone() is not None
    del loop
    for _ in range(3):
        gc.collect()
    assert gone() is None


# uvloop keeps a loop as long as it has something planned.
@pytest.mark.parametrize("make", [EventLoop, loop_class(STOCK)], ids=["EventLoop", "planned"])
@pytest.mark.parametrize("ran", [False, True])
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_a_dropped_loop_goes_with_a_context_that_holds_it(make, ran):
    def fill(loop):
        thing = Thing()
        thing.loop = loop

        async def main():
            arm()

        def arm():
            var.set(thing)
            for n in range(100_000):
                handle = loop.call_later(3600, int)
                if n % 1000 == 0:
                    kept.append((handle, handle._context))
            thing.handles = kept

        kept = []
        if ran:
            loop.run_until_complete(main())
        else:
            contextvars.copy_context().run(arm)
        return weakref.ref(thing)

    loop_goes_with(make, fill)


@every_loop
def test_a_handle_may_be_run_by_two_threads_at_once(make, loop):
    """What is called is there until the last of them is done."""
    class Anywhere:
        def run(self, func, *args):
            return func(*args)

    def callback(thing, go_on):
        begun.release()
        assert go_on.wait(PATIENCE)
        names.append(thing.name)

    thing, begun, names = Thing(), threading.Semaphore(0), []
    thing.name = "thing"
    gone, go_on = weakref.ref(thing), threading.Event()
    handle = loop.call_later(3600, callback, thing, go_on, context=Anywhere())
    threads = [threading.Thread(target=handle._run) for _ in range(2)]
    for thread in threads:
        thread.start()
        assert begun.acquire(timeout=PATIENCE)
    del thing
    handle.cancel()
    go_on.set()
    for thread in threads:
        thread.join()
    assert names == ["thing", "thing"]
    del thread, threads
    gc.collect()
    assert gone() is None


@native_loops
def test_a_handle_is_looked_at_while_another_thread_cancels_it(make, loop):
    def look():
        while not done.is_set():
            for handle in handles:
                if handle._callback is not None and handle._args is not None:
                    repr(handle)
                handle._run()

    done, handles, called = threading.Event(), [], []
    thread = threading.Thread(target=look)
    thread.start()
    for _ in range(300):
        handles[:] = [loop.call_later(3600, called.extend, (Thing(),)) for _ in range(10)]
        for handle in handles:
            handle.cancel()
    done.set()
    thread.join()
    assert not any(handle._callback for handle in handles)


# ---- errors ---------------------------------------------------------------------------------------------------------


@every_loop
@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (lambda loop: loop.call_later(None, print), TypeError),
        (lambda loop: loop.call_at(None, print), TypeError),
        (lambda loop: loop.call_later("1", print), TypeError),
        (lambda loop: loop.call_later(1), TypeError),
        (lambda loop: loop.call_later(), TypeError),
        (lambda loop: loop.call_later(1, print, wrong=2), TypeError),
    ],
)
def test_wrong_calls(make, loop, call, kind):
    with pytest.raises(kind):
        call(loop)


@every_loop
def test_any_context_is_taken_and_asked_to_run_the_call(make, loop):
    class Own:
        def run(self, func, *args):
            return func("own", *args)

    class Bad:
        def run(self, func, *args):
            if func is not tell:  # which asyncio runs in it as well, from 3.12 on
                raise ZeroDivisionError
            func(*args)

    def tell(_, context):
        told.append((type(context["exception"]), context["handle"]))

    called, told = [], []
    loop.set_exception_handler(tell)
    handles = [loop.call_later(0.001 * n, lambda *args: called.append(args), *range(n), context=context)
               for n, context in enumerate((1, Own(), Own(), Own(), Bad()))]
    turn(loop, 0.03)
    assert called == [("own", 0), ("own", 0, 1), ("own", 0, 1, 2)]
    assert told == [(AttributeError, handles[0]), (ZeroDivisionError, handles[4])]
    assert handles[0]._context == 1


@every_loop
def test_a_closed_loop_arms_nothing(make):
    loop = make()
    kept = loop.call_later(3600, print)
    loop.close()
    loop.close()
    for arm in (loop.call_later, loop.call_at):
        with pytest.raises(RuntimeError, match="closed"):
            arm(1, print)
    assert kept.when() > 0
    kept.cancel()


@every_loop
def test_what_a_callback_raises_goes_to_the_exception_handler(make, loop):
    reports, called = [], []
    loop.set_exception_handler(lambda _, context: reports.append(context))
    when = loop.time() + 0.002

    def fail(n):
        raise ValueError(n)

    for n in range(3):
        loop.call_at(when + n * 1e-6, fail, n)
        loop.call_at(when + n * 1e-6 + 5e-7, called.append, n)
    turn(loop, 0.02)
    assert called == [0, 1, 2]
    assert [report["exception"].args for report in reports] == [(0,), (1,), (2,)]
    for report in reports:
        assert "fail" in report["message"]
        assert isinstance(report["handle"], asyncio.TimerHandle)


@native_loops
@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("by_handler", [False, True])
def test_an_interrupt_leaves_and_the_rest_comes_the_next_time(make, loop, kind, by_handler):
    called = []
    when = loop.time() + 0.002

    def interrupt(*_):
        called.append("interrupt")
        raise kind

    def fail():
        raise ValueError

    loop.set_exception_handler(interrupt)
    for n in range(5):
        loop.call_at(when, called.append, n)
        if n == 2:
            loop.call_at(when, fail if by_handler else interrupt)
    with pytest.raises(kind):
        turn(loop, 0.02)
    assert called == [0, 1, 2, "interrupt"]
    turn(loop, 0.3)
    assert called == [0, 1, 2, "interrupt", 3, 4]


@every_loop
def test_stop_finishes_the_batch(make, loop):
    called = []
    when = loop.time() + 0.002
    loop.call_at(when, called.append, 1)
    loop.call_at(when, loop.stop)
    loop.call_at(when, called.append, 2)
    loop.run_forever()
    assert sorted(called) == [1, 2]


# ---- debug mode -----------------------------------------------------------------------------------------------------


@every_loop
def test_debug_mode_tells_where_a_handle_was_made(make, loop):
    loop.set_debug(True)
    handle = loop.call_later(3600, print)
    assert handle._source_traceback[-1].name == "test_debug_mode_tells_where_a_handle_was_made"
    assert "created at" in repr(handle)
    handle.cancel()
    assert "cancelled" in repr(handle)


@pytest.mark.parametrize("make", [STOCK, *list(NATIVE.values())[:3]], ids=["stock", *list(NATIVE)[:3]])
def test_debug_mode_checks_callbacks_and_threads(make, loop):
    async def coroutine():
        pass

    loop.set_debug(True)
    with pytest.raises(TypeError, match="coroutines cannot be used with call_at"):
        loop.call_later(1, coroutine)
    with pytest.raises(TypeError, match="a callable object was expected by call_at"):
        loop.call_at(1, "no")
    errors = []

    def elsewhere():
        try:
            loop.call_later(1, print)
        except RuntimeError as error:
            errors.append(error)

    async def main():
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()

    loop.run_until_complete(main())
    assert len(errors) == 1
    assert "Non-thread-safe operation" in str(errors[0])


@every_loop
def test_debug_mode_names_slow_callbacks(make, loop, caplog):
    def slow_one():
        time.sleep(0.05)

    loop.set_debug(True)
    loop.slow_callback_duration = 0.04
    loop.call_later(0.001, slow_one)
    loop.call_later(0.001, lambda: None)
    turn(loop, 0.02)
    told = [record.getMessage() for record in caplog.records]
    assert len([text for text in told if "slow_one" in text and "Executing" in text]) == 1


@every_loop
@pytest.mark.parametrize("when", ["before", "by a callback"])
def test_debug_mode_may_find_everything_slow(make, loop, when):
    def watch():
        loop.set_debug(True)
        loop.slow_callback_duration = 0.0
        time.sleep(0.01)

    called = []
    if when == "before":
        watch()
    loop.call_later(0, watch)
    loop.call_later(0, called.append, 1)
    loop.call_soon(loop.set_debug, True)
    turn(loop, 0.02)
    assert called == [1]


@pytest.mark.parametrize("refused", ["call_at", "call_soon"])
def test_an_arming_that_cannot_be_planned_for_is_undone(refused):
    """And keeps nobody else from being planned for."""

    class Refusing(STOCK):
        refuses = None

        def call_at(self, *args, **named):
            if self.refuses == "call_at":
                raise MemoryError
            return super().call_at(*args, **named)

        def call_soon(self, *args, **named):
            if self.refuses == "call_soon":
                raise MemoryError
            return super().call_soon(*args, **named)

    loop = loop_class(Refusing)()
    called = []
    if refused == "call_soon":
        loop.call_later(60, called.append, 0)
    loop.refuses = refused
    with pytest.raises(MemoryError):
        loop.call_later(0.001, called.append, 1)
    loop.refuses = None
    loop.call_later(0.002, called.append, 2)
    turn(loop, 0.02)
    assert called == [2]
    loop.close()


# ---- programs that look closely -------------------------------------------------------------------------------------


@pytest.mark.parametrize("base", [EventLoop, loop_class(STOCK)], ids=["EventLoop", "planned"])
def test_overridden_methods_are_called(base):
    calls = []

    class Mine(base):
        def call_at(self, when, callback, *args, context=None):
            calls.append(callback)
            return super().call_at(when, callback, *args, context=context)

    async def main():
        loop = asyncio.get_running_loop()
        fired = []
        loop.call_later(0.001, fired.append, 1)
        await asyncio.sleep(0.01)
        assert fired == [1]
        assert fired.append in calls

    run(Mine, main())


@pytest.mark.parametrize("make", [STOCK, EventLoop, loop_class(STOCK)], ids=["stock", "EventLoop", "planned"])
@pytest.mark.parametrize("autospec", [True, False])
@pytest.mark.parametrize("name", ["call_at", "call_later"])
def test_what_replaces_a_method_in_the_class_is_called(make, name, autospec):
    kind = types.new_class("Mine", (make,))
    loop = kind()
    loop.call_later(FAR, print)
    for _ in range(2):
        with mock.patch.object(kind, name, autospec=autospec) as replaced:
            given = (loop, FAR, print, 1) if autospec else (FAR, print, 1)
            assert getattr(loop, name)(FAR, print, 1) is replaced.return_value
            replaced.assert_called_once_with(*given)
        handle = getattr(loop, name)(FAR, print)
        assert isinstance(handle, asyncio.TimerHandle)
    loop.close()


@pytest.mark.parametrize("make", [STOCK, EventLoop, loop_class(STOCK)], ids=["stock", "EventLoop", "planned"])
@pytest.mark.parametrize(
    "way", ["subclass", "instance", "instance later", "class", "asyncio's class", "mock", "time", "time before"]
)
def test_another_clock_is_honoured(make, way, monkeypatch):
    clock = [1000.0]
    fake = lambda *_: clock[0]  # noqa: E731
    kind = types.new_class("Mine", (make,))
    if way == "subclass":
        kind.time = fake
    elif way == "time before":
        monkeypatch.setattr(time, "monotonic", fake)
    loop = kind()
    if way == "instance":
        loop.time = fake
    elif way == "instance later":
        loop.call_later(1e6, print)
        loop.time = fake
    elif way == "class":
        loop.call_later(1e6, print)
        monkeypatch.setattr(kind, "time", fake)
    elif way == "asyncio's class":
        loop.call_later(1e6, print)
        monkeypatch.setattr(asyncio.BaseEventLoop, "time", fake)
    elif way == "mock":
        clock[0] = time.monotonic()  # as the real one says at first
        monkeypatch.setattr(kind, "time", mock.Mock(side_effect=fake))
        loop.call_later(1e6, print)
        clock[0] = 1000.0
    elif way == "time":
        monkeypatch.setattr(time, "monotonic", fake)
    called = []
    handle = loop.call_later(50, called.append, 1)
    assert handle.when() == 1050
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert called == []
    clock[0] = 1051
    while not called:
        loop.call_soon(loop.stop)
        loop.run_forever()
    assert called == [1]
    loop.close()


@native_loops
def test_another_clock_is_honoured_however_often_it_comes_and_goes(make):
    class Mine(make if isinstance(make, type) else EventLoop):
        pass

    loop = Mine()
    for n in range(300):  # until the interpreter has a quicker way to set an attribute
        loop.time = lambda n=n: 1000.0 + n
        assert loop.call_later(50, print).when() == 1050 + n
        loop.other = n
        assert loop.call_later(50, print).when() == 1050 + n
        if n % 2:
            del loop.time
        else:
            del loop.__dict__["time"]
        assert loop.call_later(1e6, print).when() >= time.monotonic() + 1e6 - PATIENCE
    loop.close()


@every_loop
def test_negative_and_strange_deadlines(make, loop):
    called = []
    for when in (-1e300, -5.0, -0.0, 0.0, 5e-324, -5e-324, True):
        loop.call_at(when, called.append, when)
    turn(loop, 0.01)
    assert len(called) == 7
    if make is not STOCK:
        assert called[0] == -1e300
        assert called[1] == -5.0


def test_the_selector_is_a_selector():
    loop = EventLoop()
    if sys.platform == "linux" and not timerheap._core.PORTABLE:
        assert isinstance(loop._selector, selectors.EpollSelector)
    left, right = socket.socketpair()
    key = loop._selector.register(left, selectors.EVENT_READ, "data")
    assert loop._selector.get_key(left) == key
    assert loop._selector.select(0) == []
    right.send(b"x")
    assert loop._selector.select(5) == [(key, selectors.EVENT_READ)]
    changed = loop._selector.modify(left, selectors.EVENT_READ | selectors.EVENT_WRITE, "more")
    assert loop._selector.select(0) == [(changed, selectors.EVENT_READ | selectors.EVENT_WRITE)]
    loop._selector.unregister(left)
    assert loop._selector.select(0) == []
    left.close()
    right.close()
    loop.close()


@pytest.mark.parametrize("make", [STOCK, EventLoop], ids=["stock", "EventLoop"])
def test_a_closed_selector_waits_for_nothing(make):
    """The number of its file may be another's by now."""
    loop = make()
    selector = loop._selector
    loop.close()
    with pytest.raises(ValueError, match="closed"):
        selector.select(0)


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("make", [STOCK, EventLoop], ids=["stock", "EventLoop"])
def test_timers_fire_though_nobody_hears_of_files(make, loop, debug):
    """Tests of programs put something else in the place of _process_events."""
    loop.set_debug(debug)
    loop._process_events = lambda events: None
    called = []
    for _ in range(3):
        loop.call_later(0.001, called.append, 1)
        turn(loop, 0.01)
    assert called == [1, 1, 1]


@every_loop
def test_debug_mode_calls_no_cancelled_handle(make, loop):
    loop.set_debug(True)
    called, handles = [], []
    when = loop.time() + 0.002
    loop.call_at(when, lambda: [handle.cancel() for handle in handles])
    handles += [loop.call_at(when + 1e-6 * n, called.append, n) for n in range(1, 5)]
    turn(loop, 0.02)
    assert called == []


def test_many_files_at_once():
    """More than one wait brings."""
    pairs = [socket.socketpair() for _ in range(300)]
    got = []

    async def main():
        loop = asyncio.get_running_loop()
        for left, right in pairs:
            loop.add_reader(left, lambda left=left: (loop.remove_reader(left), got.append(left.recv(1))))
            right.send(b"x")
        while len(got) < 300:
            await asyncio.sleep(0.001)

    run(EventLoop, main())
    for left, right in pairs:
        left.close()
        right.close()


@every_loop
def test_debug_mode_tells_where_a_failed_callback_was_armed(make, loop):
    reports = []
    loop.set_debug(True)
    loop.set_exception_handler(lambda _, report: reports.append(report))
    loop.call_later(0.001, lambda: 1 / 0)
    turn(loop, 0.02)
    (report,) = reports
    assert report["source_traceback"][-1].name == "test_debug_mode_tells_where_a_failed_callback_was_armed"


@pytest.mark.parametrize("wrong", [None, int, "uvloop", EventLoop])
def test_loop_class_wants_a_class_of_loops(wrong):
    if wrong is EventLoop:
        assert issubclass(loop_class(wrong), EventLoop)
        return
    with pytest.raises(TypeError, match="must be a class of event loops"):
        loop_class(wrong)


def test_run_and_new_event_loop():
    async def main():
        return type(asyncio.get_running_loop()), asyncio.get_running_loop().get_debug()

    assert timerheap.asyncio.run(main()) == (EventLoop, False)
    assert timerheap.asyncio.run(main(), debug=True) == (EventLoop, True)
    loop = timerheap.asyncio.new_event_loop()
    assert type(loop) is EventLoop
    loop.close()


def test_importing_timerheap_does_not_import_asyncio():
    run_ok("import sys, timerheap; assert 'asyncio' not in sys.modules; import timerheap.asyncio")


# ---- memory ---------------------------------------------------------------------------------------------------------


class Thing:
    pass


@native_loops
def test_a_closed_loop_goes_at_once(make):
    gc.collect()
    gc.disable()
    try:
        loop = make()
        gone = weakref.ref(loop)
        thing = Thing()
        dropped = weakref.ref(thing)
        loop.call_later(3600, print, thing)
        loop.run_until_complete(asyncio.sleep(0.001))
        loop.close()
        del thing
        assert dropped() is None
        del loop
        assert gone() is None
    finally:
        gc.enable()


# uvloop keeps a loop as long as it has something planned, its own timers too.
@pytest.mark.parametrize("make", [EventLoop, loop_class(STOCK)], ids=["EventLoop", "planned"])
@pytest.mark.parametrize("ran", [False, True])
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_a_dropped_loop_goes_with_what_is_armed(make, ran):
    def fill(loop):
        thing = Thing()
        thing.loop = loop

        def arm():
            for n in range(100):
                thing.handle = loop.call_later(3600, print, thing, n)
            loop.stop()

        if ran:
            loop.call_soon(arm)
            loop.run_forever()
        else:
            arm()
        return weakref.ref(thing)

    loop_goes_with(make, fill)


@pytest.mark.skipif(FREE_THREADED, reason="without a GIL everything is tracked")
def test_the_collector_does_not_see_what_is_armed_while_the_loop_runs():
    loop = EventLoop()

    async def main():
        before = contexts()
        held = [loop.call_later(3600, print, n) for n in range(1000)]
        assert not any(gc.is_tracked(handle) for handle in held)
        assert contexts() <= before + 1
        assert loop._native_timers.stats()["hidden"] == 1000
        gc.collect()
        for handle in held[:500]:
            handle.cancel()
        assert all(gc.is_tracked(handle) for handle in held[:500])
        assert loop._native_timers.stats()["hidden"] == 500
        return held

    held = loop.run_until_complete(main())
    assert all(gc.is_tracked(handle) for handle in held)
    assert loop._native_timers.stats()["hidden"] == 0
    loop._native_timers.check()
    loop.close()


@native_loops
def test_cancelled_timers_are_gone(make, loop):
    async def main():
        thing = Thing()
        gone = weakref.ref(thing)
        handle = loop.call_later(3600, print, thing)
        del thing
        handle.cancel()
        assert gone() is None
        for _ in range(20_000):
            loop.call_later(3600, print).cancel()
        assert loop._native_timers.stats()["armed"] <= 1
        assert loop._native_timers.nbytes < 100_000

    loop.run_until_complete(main())


@native_loops
@pytest.mark.parametrize("seed", range(5))
def test_the_ledger(make, seed, loop):
    """Random arming and cancelling, from outside, from callbacks, in batches: each call comes once or was cancelled."""
    rng = random.Random(seed)
    called, cancelled, handles = {}, set(), {}
    numbers = iter(range(10**9))

    def arm():
        n = next(numbers)
        delay = rng.choice([0, 0, rng.random() * 0.02, 0.01, -1, 3600])
        handle = loop.call_later(delay, call, n, *range(rng.randrange(4)))
        handles[n] = (handle, delay)

    def cancel():
        n = rng.choice(list(handles))
        handle, _delay = handles.pop(n)
        if n not in called:
            cancelled.add(n)
        handle.cancel()

    def call(n, *rest):
        assert n not in called
        assert n not in cancelled
        called[n] = rest
        for _ in range(rng.randrange(3)):
            if len(called) < 1500:
                arm()
            if handles and rng.random() < 0.4:
                cancel()

    for _ in range(300):
        arm()
        if rng.random() < 0.3:
            cancel()
    turn(loop, 0.02)
    for _ in range(500):
        arm()
        if rng.random() < 0.5:
            cancel()
        if rng.random() < 0.05:
            turn(loop, 0)
            loop._native_timers.check()

    def waiting():
        return [n for n, (_, delay) in handles.items() if delay != 3600 and n not in called]

    deadline = time.monotonic() + PATIENCE
    while waiting() and time.monotonic() < deadline:
        turn(loop, 0.02)
    armed = next(numbers)
    stats = loop._native_timers.stats()
    left = [n for n, (_, delay) in handles.items() if delay == 3600]
    assert armed == len(called) + len(cancelled) + len(left)
    assert stats["arms"] == stats["fired"] + stats["cancelled"] + stats["armed"]
    assert stats["armed"] >= len(left)
