"""ManualHeap(auto=True): who waits moves the clock; and the consumers that a test waits for."""

import asyncio
import itertools
import math
import os
import signal
import threading

import pytest
from helpers import Background

from timerheap import AfterFunc, Ticker, Timer, TimerArray, after, every, select, sleep, tick
from timerheap.testing import ManualHeap, use


@pytest.fixture
def auto():
    """A heap whose clock moves on when this thread waits for it; checked when the test is over."""
    heap = ManualHeap(auto=True)
    yield heap
    heap.check()
    heap.close()
    heap.check()
    assert len(heap) == 0


def fail(error):
    raise error


# ---- waiting moves the clock ----------------------------------------------------------------------------------------


def test_auto_is_off_unless_asked_for(manual, auto):
    assert (manual.auto, auto.auto) == (False, True)


@pytest.mark.parametrize(
    ("wait", "at"),
    [
        (lambda heap: Timer(5, heap=heap).c.recv(), 5.0),
        (lambda heap: Timer(5, heap=heap).c.recv(timeout=7), 5.0),
        (lambda heap: after(5, heap=heap).recv(), 5.0),
        (lambda heap: next(Ticker(5, heap=heap)), 5.0),
        (lambda heap: select(Timer(5, heap=heap).c, Timer(2, heap=heap).c)[1], 2.0),
        (lambda heap: select(*(after(delay, heap=heap) for delay in range(500, 2, -1)))[1], 3.0),
    ],
    ids=["recv", "recv with a timeout", "after", "iteration", "select", "select over many"],
)
def test_a_wait_in_the_driving_thread_moves_the_clock_to_its_end(auto, wait, at):
    assert wait(auto) == at
    assert auto.time() == at


def test_a_sleep_takes_no_time(auto):
    with use(auto):
        sleep(3600)
        assert auto.time() == 3600.0
        sleep(0)
        sleep(-1)
        assert auto.time() == 3600.0


def test_what_falls_due_meanwhile_runs_at_its_deadline_and_in_order(auto):
    seen = []
    beat = every(2, lambda: seen.append(("beat", auto.time())), heap=auto)
    AfterFunc(3, lambda: seen.append(("once", auto.time())), heap=auto)
    array = TimerArray(8, lambda slot: seen.append((slot, auto.time())), each=True, heap=auto)
    array.reset(7, 2.5)
    assert Timer(5, heap=auto).c.recv() == 5.0
    assert seen == [("beat", 2.0), (7, 2.5), ("once", 3.0), ("beat", 4.0)]
    assert beat.stop()


def test_the_end_of_a_timeout_is_virtual(auto):
    channel = Timer(10, heap=auto).c
    with pytest.raises(TimeoutError):
        channel.recv(timeout=4)
    assert auto.time() == 4.0
    with pytest.raises(TimeoutError):
        select(channel, Timer(math.inf, heap=auto).c, timeout=4)
    assert auto.time() == 8.0
    assert channel.recv(timeout=4) == 10.0


def test_a_timeout_ends_a_wait_for_what_is_not_armed(auto):
    timer = Timer(1, heap=auto)
    timer.stop()
    with pytest.raises(TimeoutError):
        timer.c.recv(timeout=1e6)
    assert auto.time() == 1e6


def test_a_callback_may_arm_what_is_waited_for(auto):
    timer = Timer(1, heap=auto)
    timer.stop()
    AfterFunc(3, timer.reset, 4, heap=auto)
    assert timer.c.recv() == 7.0


def test_an_iteration_ends_when_a_callback_stops_its_ticker(auto):
    ticker = Ticker(1, heap=auto)
    AfterFunc(3.5, ticker.stop, heap=auto)
    assert list(ticker) == [1.0, 2.0, 3.0]
    assert auto.time() == 3.5


def test_a_wait_raises_what_a_callback_raised(auto):
    timer = Timer(2, heap=auto)
    error = KeyboardInterrupt("mine")
    AfterFunc(1, fail, error, heap=auto)
    with pytest.raises(KeyboardInterrupt) as raised:
        timer.c.recv()
    assert raised.value is error
    assert auto.time() == 1.0
    assert timer.c.recv() == 2.0


@pytest.mark.parametrize("what", ["nothing", "never", "unread"])
def test_a_wait_that_nothing_could_end_raises_with_auto_too(auto, what):
    timer = Timer(math.inf if what == "never" else 1, heap=auto)
    if what != "never":
        timer.stop()
    unread = Ticker(1, heap=auto)
    auto.advance(1)
    if what != "unread":
        unread.stop()
    with pytest.raises(RuntimeError, match=r"Channel.recv\(\) would never end: nothing is armed on the manual heap"):
        timer.c.recv()
    assert auto.time() == 1.0


def test_a_closed_heap_ends_the_wait(auto):
    timer = Timer(2, heap=auto)
    AfterFunc(1, auto.close, heap=auto)
    with pytest.raises(RuntimeError, match="closed"):
        timer.c.recv()


def test_in_a_callback_the_clock_moves_and_the_neighbours_come_late(auto):
    """As on a heap whose worker is blocked by a callback."""
    seen = []

    def blocks():
        seen.append(("received", Timer(5, heap=auto).c.recv(), auto.time()))

    AfterFunc(1, blocks, heap=auto)
    AfterFunc(1, lambda: seen.append(("neighbour", auto.time())), heap=auto)
    AfterFunc(3, lambda: seen.append(("later", auto.time())), heap=auto)
    auto.advance(2)
    assert seen == [("received", 6.0, 6.0), ("neighbour", 6.0), ("later", 6.0)]
    assert auto.time() == 6.0


def test_in_a_callback_of_a_wait_as_well(auto):
    seen = []
    with use(auto):
        AfterFunc(1, sleep, 5)
        AfterFunc(2, lambda: seen.append(auto.time()))
        sleep(3)
    assert seen == [6.0]
    assert auto.time() == 6.0


def test_in_a_callback_a_wait_for_another_callback_raises(auto):
    timer = Timer(1, heap=auto)
    timer.stop()
    AfterFunc(1, timer.c.recv, heap=auto)
    AfterFunc(2, timer.reset, 1, heap=auto)
    with pytest.raises(RuntimeError, match="none of its callbacks runs before this one has returned"):
        auto.advance(5)


def test_a_timeout_within_a_callback_is_virtual(auto):
    def blocks():
        with pytest.raises(TimeoutError):
            Timer(math.inf, heap=auto).c.recv(timeout=2)

    AfterFunc(1, blocks, heap=auto)
    auto.advance(1)
    assert auto.time() == 3.0


def test_other_threads_wait_and_are_woken_by_what_moves_the_clock(auto):
    timer = Timer(5, heap=auto)
    other = Background(timer.c.recv)
    auto.block_until(1)
    assert Timer(10, heap=auto).c.recv() == 10.0
    assert other.result() == 5.0


def test_the_clock_stops_where_the_timeout_of_another_thread_ends(auto):
    other = Background(Timer(math.inf, heap=auto).c.recv, 5)
    auto.block_until(1)
    assert auto.advance_to_next() == 5.0
    with pytest.raises(TimeoutError):
        other.result()


def test_a_select_that_real_time_can_end_waits_for_it(auto):
    soon = Timer(0.01)
    assert select(Timer(1, heap=auto).c, soon.c)[0] is soon.c
    assert auto.time() == 0.0


def test_a_wait_beside_an_advance_of_another_thread_comes_after_it(auto):
    """The clock is one thread's at a time."""
    began, go = threading.Event(), threading.Event()
    AfterFunc(1, lambda: began.set() or go.wait(30), heap=auto)
    timer = Timer(3, heap=auto)
    other = Background(auto.advance, 2)
    assert began.wait(30)
    later = threading.Timer(0.05, go.set)
    later.start()
    assert timer.c.recv() == 3.0
    assert go.is_set()
    other.result()
    later.join()


# ---- the error without auto -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wait", "call", "awaited"),
    [
        (lambda: Timer(5).c.recv(), "Channel.recv()", "9.0"),
        (lambda: Timer(5).c.recv(3), "Channel.recv()", "7.0"),
        (lambda: Timer(math.inf).c.recv(), "Channel.recv()", "what is not armed"),
        (lambda: next(Ticker(2)), "iteration over a Ticker", "6.0"),
        (lambda: select(after(7), after(5), timeout=6), "select()", "9.0"),
        (lambda: sleep(5), "sleep(5)", "9.0"),
    ],
)
def test_the_error_names_the_call_the_deadline_the_time_and_both_remedies(wait, call, awaited):
    with use(ManualHeap(4, name="mine")):
        with pytest.raises(RuntimeError) as raised:
            wait()
    text = str(raised.value)
    assert text.startswith(f"{call} would never end: it waits for {awaited} on the manual heap 'mine', ")
    assert "stands at 4.0" in text
    assert "advance()" in text
    assert "ManualHeap(auto=True)" in text


# ---- the roster of channels -----------------------------------------------------------------------------------------


def test_channels_come_and_go_in_any_order(auto):
    """Whatever is left of many is found, and nothing else: not even another heap's in the memory of what went."""
    channels = {delay: after(delay, heap=auto) for delay in range(1, 2001)}
    for delay in range(1, 2001):
        if delay % 7 and delay % 11:
            del channels[delay]
    others = [after(delay, heap=ManualHeap()) for delay in range(10_001, 12_001)]
    times = []
    while (at := auto.advance_to_next()) is not None:
        times.append(at)
    assert times == sorted(channels)
    assert [channels[at].poll() for at in times] == times
    assert len(others) == 2000


# ---- from deadline to deadline --------------------------------------------------------------------------------------


def test_advance_to_next_goes_to_the_next_deadline_of_whatever_is_armed(manual):
    seen = []
    AfterFunc(2, lambda: seen.append(manual.time()), heap=manual)
    array = TimerArray(3, lambda slot: seen.append((slot, manual.time())), each=True, heap=manual)
    array.reset(1, 4)
    timer = Timer(3, heap=manual)
    channel, grid = after(5, heap=manual), Ticker(6, heap=manual)
    assert [manual.advance_to_next() for _ in range(5)] == [2.0, 3.0, 4.0, 5.0, 6.0]
    assert seen == [2.0, (1, 4.0)]
    assert (timer.c.poll(), channel.poll(), grid.c.poll()) == (3.0, 5.0, 6.0)
    assert manual.advance_to_next() == 12.0
    grid.stop()
    assert manual.advance_to_next() is None
    assert manual.time() == 12.0


def test_advance_to_next_passes_what_never_comes_and_what_is_ready(manual):
    never, ready, unread = Timer(math.inf, heap=manual), Timer(1, heap=manual), tick(1, heap=manual)
    AfterFunc(math.inf, print, heap=manual)
    assert manual.advance_to_next() == 1.0
    assert manual.advance_to_next() is None
    assert unread.poll() == 1.0
    assert manual.advance_to_next() == 2.0
    assert (never.active, ready.active) == (True, True)


def test_advance_to_next_runs_what_is_due_at_once(manual):
    seen = []
    with use(manual):
        AfterFunc(0, AfterFunc, 0, seen.append, 1)
        assert manual.advance_to_next() == 0.0
    assert seen == [1]


def test_advance_to_next_sees_a_stopped_a_reset_and_a_dropped_channel(manual):
    timers = [Timer(delay, heap=manual) for delay in (1, 2, 3, 4)]
    timers[0].stop()
    timers[1].reset(10)
    del timers[2]
    assert manual.advance_to_next() == 4.0
    assert manual.advance_to_next() == 10.0


def test_advance_to_next_raises_what_a_callback_raised_and_goes_on(manual):
    seen = []
    AfterFunc(1, fail, ValueError, heap=manual)
    AfterFunc(1, seen.append, 1, heap=manual)
    AfterFunc(2, seen.append, 2, heap=manual)
    with pytest.raises(ValueError):
        manual.advance_to_next()
    assert manual.advance_to_next() == 1.0
    assert seen == [1]
    assert manual.advance_to_next() == 2.0
    assert seen == [1, 2]


def test_advance_to_next_refuses_to_nest(manual):
    AfterFunc(1, manual.advance_to_next, heap=manual)
    with pytest.raises(RuntimeError, match="under way"):
        manual.advance(1)


def test_nothing_comes_next_on_a_closed_heap(manual):
    channel = after(1, heap=manual)
    AfterFunc(1, print, heap=manual)
    manual.close()
    assert manual.advance_to_next() is None
    assert channel is not None


# ---- consumers ------------------------------------------------------------------------------------------------------


def consume(ticker, seen):
    for at in ticker:
        seen.append(at)


def test_a_consumer_gets_every_tick():
    """Each time, of fifty."""
    for _ in range(50):
        heap, seen = ManualHeap(), []
        ticker = Ticker(1, heap=heap)
        consumer = Background(consume, ticker, seen)
        for at in range(1, 11):
            heap.block_until(1)
            heap.advance(1)
            heap.block_until(1)
            assert seen == list(range(1, at + 1))
        ticker.stop()
        consumer.result()


def test_block_until_counts_every_kind_of_wait():
    with use(ManualHeap()) as heap:
        never = Timer(math.inf)
        waits = [
            (never.c.recv,),
            (never.c.recv, 5),  # in line behind the first
            (select, Timer(math.inf).c, Timer(9).c),
            (sleep, 5),
            (list, Ticker(7)),
        ]
        threads = []
        for number, wait in enumerate(waits):
            heap.block_until(number)
            with pytest.raises(TimeoutError, match=f"^{number} wait on the manual heap 'manual', and not {number + 1}"):
                heap.block_until(number + 1, timeout=0)
            threads.append(Background(*wait))
        heap.block_until(len(waits))
        heap.close()
        for thread in threads[:4]:
            with pytest.raises(RuntimeError):
                thread.result()
        assert threads[4].result() == []


def test_a_thread_that_waits_on_many_heaps_counts_once_on_each():
    heaps = [Background(ManualHeap).result() for _ in range(6)]
    channels = [after(5, heap=heap) for heap in heaps]
    selector = Background(select, *channels, *reversed(channels), *channels)
    for heap in heaps:
        heap.block_until(1)
        with pytest.raises(TimeoutError):
            heap.block_until(2, timeout=0.01)
    heaps[3].advance(5)
    assert selector.result() == (channels[3], 5.0)


def test_a_thread_that_comes_back_to_a_heap_counts_once():
    """Of heaps that share a slot, by which a select finds them again, as of seventeen some two do."""
    heaps = [Background(ManualHeap).result() for _ in range(17)]
    for pair in itertools.combinations(heaps, 2):
        channels = [after(1, heap=heap) for heap in (*pair, *pair)]
        selector = Background(select, *channels)
        for heap in pair:
            heap.block_until(1)
            with pytest.raises(TimeoutError, match=r"^1 wait"):
                heap.block_until(2, timeout=0)
        pair[0].advance(1)
        assert selector.result()[0] in channels


def test_who_has_been_woken_and_is_busy_does_not_count(manual):
    busy, done = threading.Event(), threading.Event()
    timer = Timer(1, heap=manual)

    def consume():
        timer.c.recv()
        busy.set()
        done.wait(30)
        timer.reset(5)
        return timer.c.recv()

    consumer = Background(consume)
    manual.block_until(1)
    manual.advance(1)
    assert busy.wait(30)
    with pytest.raises(TimeoutError, match=r"^0 wait"):
        manual.block_until(1, timeout=0.02)
    done.set()
    manual.block_until(1)
    manual.advance(5)
    assert consumer.result() == 6.0


def test_block_until_ends_when_the_heap_is_closed(manual):
    waiter = Background(manual.block_until, 1)
    manual.close()
    with pytest.raises(RuntimeError, match="closed"):
        waiter.result()


def test_block_until_counts_coroutines():
    heap = Background(ManualHeap).result()

    async def wait(delay):
        return await after(delay, heap=heap)

    async def main():
        return await asyncio.gather(wait(1), wait(2), wait(3))

    loop = Background(asyncio.run, main())
    heap.block_until(3)
    heap.advance(1)
    with pytest.raises(TimeoutError):
        heap.block_until(3, timeout=0.01)
    heap.block_until(2)
    heap.advance(2)
    assert loop.result() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(("n", "error"), [("1", TypeError), (1.0, TypeError), (None, TypeError), (-1, ValueError)])
def test_block_until_takes_a_count(manual, n, error):
    with pytest.raises(error, match=r"ManualHeap.block_until\(\) n must"):
        manual.block_until(n)
    manual.block_until(0, timeout=0)


def test_block_until_runs_signal_handlers(manual):
    def stop(signum, frame):
        raise KeyError("handled")

    before = signal.signal(signal.SIGUSR1, stop)
    try:
        timer = threading.Timer(0.05, os.kill, [os.getpid(), signal.SIGUSR1])
        timer.start()
        with pytest.raises(KeyError, match="handled"):
            manual.block_until(1)
        timer.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
