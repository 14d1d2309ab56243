"""timerheap.testing: virtual time."""

import contextlib
import datetime
import gc
import math
import threading
import weakref

import pytest
from helpers import Background, wait_until
from hypothesis import given
from hypothesis import strategies as st

from timerheap import AfterFunc, Ticker, Timer, TimerArray, TimerHeap, after, default_heap, every, select, sleep, tick
from timerheap.testing import ManualHeap, use


def test_each_callback_runs_at_exactly_its_deadline(manual):
    seen = []
    for delay in (3, 1, 2):
        AfterFunc(delay, lambda: seen.append(manual.time()), heap=manual)
    manual.advance(2.5)
    assert seen == [1.0, 2.0]
    assert manual.time() == 2.5
    manual.advance(0.5)
    assert seen == [1.0, 2.0, 3.0]


def test_callbacks_run_in_the_thread_that_advances(manual):
    seen = []
    AfterFunc(1, lambda: seen.append(threading.current_thread()), heap=manual)
    Background(manual.advance, 1).result()
    assert seen[0] not in (threading.main_thread(), None)


def test_what_a_callback_arms_for_the_span_runs_too(manual):
    seen = []

    def again():
        seen.append(manual.time())
        AfterFunc(1, again, heap=manual)

    AfterFunc(1, again, heap=manual)
    manual.advance(4.5)
    assert seen == [1.0, 2.0, 3.0, 4.0]


def test_a_manual_heap_has_no_worker(manual):
    before = threading.active_count()
    AfterFunc(0, print, heap=manual)
    channel = Timer(0, heap=manual).c
    assert threading.active_count() == before
    assert len(manual) == 2
    assert channel.poll() == 0.0


def test_advance_refuses_to_go_back_and_to_nest(manual):
    with pytest.raises(ValueError, match="backwards"):
        manual.advance(-1)
    AfterFunc(1, manual.advance, 1, heap=manual)
    with pytest.raises(RuntimeError, match="under way"):
        manual.advance(1)


@pytest.mark.parametrize("span", [math.inf, 1e300, 10**400, 9.3e9, datetime.timedelta.max, 2**63 / 1e9])
def test_an_advance_beyond_the_end_of_the_clock_is_refused(manual, span):
    seen = []
    AfterFunc(math.inf, seen.append, "never", heap=manual)
    AfterFunc(1, seen.append, "later", heap=manual)
    manual.advance(0.5)
    with pytest.raises(ValueError, match="end of the clock"):
        manual.advance(span)
    assert manual.time() == 0.5
    manual.advance(0.5)
    assert seen == ["later"]


@pytest.mark.parametrize("start", [math.inf, -math.inf, 1e300, -(10**400)])
def test_a_start_beyond_the_end_of_the_clock_is_refused(start):
    with pytest.raises(ValueError, match="start"):
        ManualHeap(start)


@pytest.mark.parametrize("span", [-1, -1e-10, -math.inf, -5e-324, datetime.timedelta(-1)])
def test_no_advance_goes_back_however_little(manual, span):
    with pytest.raises(ValueError, match="backwards"):
        manual.advance(span)


def test_decimals_add_up():
    heap, seen = ManualHeap(), []
    AfterFunc(0.134, seen.append, 1, heap=heap)
    heap.advance(0.1)
    assert seen == []
    heap.advance(0.034)
    assert seen == [1]
    assert heap.time() == 0.134


MICROSECONDS = st.integers(0, 86_400_000_000)


@given(st.lists(MICROSECONDS, min_size=1, max_size=10), st.sampled_from([0, 1, 86_400, 1_700_000_000]))
def test_sums_of_microseconds_are_exact(parts, start):
    """However often the clock is advanced, a timer with the sum for a delay fires at the last advance, not before."""
    heap, seen = ManualHeap(start), []
    parts[-1] += 1
    AfterFunc(datetime.timedelta(microseconds=sum(parts)), seen.append, 1, heap=heap)
    channel = Timer(datetime.timedelta(microseconds=sum(parts)), heap=heap).c
    for part in parts[:-1]:
        heap.advance(part / 1e6)
    assert seen == []
    assert channel.poll() is None
    heap.advance(parts[-1] / 1e6)
    assert seen == [1]
    assert channel.poll() == heap.time() == (start * 10**9 + sum(parts) * 1000) / 1e9


@given(MICROSECONDS, MICROSECONDS)
def test_differences_of_microseconds_are_exact(first, second):
    """What is left until a deadline, as floats subtract, leads there and not a nanosecond further."""
    heap, seen = ManualHeap(), []
    timer = AfterFunc((first + second) / 1e6, seen.append, 1, heap=heap)
    channel = Timer((first + second) / 1e6, heap=heap).c
    when = timer.when
    heap.advance(first / 1e6)
    heap.advance(when - heap.time())
    assert seen == [1]
    assert channel.poll() == when == heap.time() == (first + second) / 1e6


STARTS = st.one_of(st.floats(0, 9e9), st.floats(1.6e9, 1.8e9), st.floats(4e6, 2e7), st.floats(-1e9, 0))
TINY = st.integers(0, 1000).map(lambda ns: ns / 1e9)
SPANS = st.one_of(st.floats(0, 1e6), TINY, MICROSECONDS.map(lambda us: us / 1e6))


@given(STARTS, SPANS, st.lists(SPANS, max_size=3))
def test_what_is_left_as_a_user_sees_it_makes_a_timer_due(start, delay, before):
    heap, seen = ManualHeap(start), []
    for span in before:
        heap.advance(span)
    timer = AfterFunc(delay, lambda: seen.append(heap.time()), heap=heap)
    channel = Timer(delay, heap=heap).c
    when = timer.when
    shown = heap.time()
    heap.advance(when - shown)
    if shown + (when - shown) >= when:  # not where the very difference is rounded
        assert seen == [when]
        assert heap.time() >= when
        assert channel.poll() == when


@given(STARTS, SPANS, SPANS, SPANS)
def test_a_timer_is_due_by_the_nanosecond_or_by_what_is_shown(start, first, delay, span):
    heap, seen = ManualHeap(start), []
    heap.advance(first)
    timer = AfterFunc(delay, seen.append, 1, heap=heap)
    channel = Timer(delay, heap=heap).c
    exact = AfterFunc(delay, int, heap=ManualHeap()).when <= AfterFunc(span, int, heap=ManualHeap()).when
    when, shown = timer.when, heap.time() + span
    heap.advance(span)
    due = exact or when <= shown or when <= heap.time()
    assert bool(seen) is due
    heap.advance(0)  # what is ready stays so
    assert (channel.poll() is not None) is due


@given(STARTS, SPANS, st.integers(1, 1000))
def test_a_channel_timer_is_ready_when_the_clock_shows_its_deadline_and_not_before(start, span, nanoseconds):
    """Also right after an advance that made due what was armed before and lay a little beyond."""
    heap = ManualHeap(start)
    heap.advance(span)
    timer = Timer(nanoseconds / 1e9, heap=heap)
    assert (timer.c.poll() is not None) is (timer.when is None or timer.when <= heap.time())


def test_what_an_advance_has_made_ready_stays_ready():
    """Also where it lies beyond the clock, by less than a float shows."""
    beyond = 0
    for step in range(1000):
        heap = ManualHeap(1_700_000_000)
        heap.advance(step * 0.00137)
        shown = heap.time() + 0.1
        timers = [Timer(0.1 + nanoseconds / 1e9, heap=heap) for nanoseconds in range(0, 400, 20)]
        due = [timer.when for timer in timers if timer.when <= shown]
        heap.advance(0.1)
        beyond += any(when > heap.time() for when in due)
        heap.advance(0)
        assert [timer.c.poll() for timer in timers[: len(due)]] == due
    assert beyond


def test_before_zero_nothing_is_ready_too_soon():
    heap = ManualHeap(-5)
    timer = Timer(1, heap=heap)
    assert timer.c.poll() is None
    heap.advance(1)
    assert timer.c.poll() == -4.0


@given(st.integers(1, 1000), st.integers(2, 50))
def test_advances_do_not_creep(milliseconds, count):
    heap = ManualHeap(1_700_000_000)
    for _ in range(count):
        heap.advance(milliseconds / 1e3)
    assert heap.time() == (1_700_000_000_000 + milliseconds * count) * 10**6 / 1e9


@pytest.mark.parametrize(
    "block",
    [
        lambda heap: Timer(1, heap=heap).c.recv(),
        lambda heap: Timer(1, heap=heap).c.recv(timeout=5),
        lambda heap: next(Ticker(1, heap=heap)),
        lambda heap: select(Timer(1, heap=heap).c, Timer(2, heap=heap).c),
    ],
    ids=["recv", "recv with a timeout", "iteration", "select"],
)
def test_a_receive_that_could_never_end_raises(manual, block):
    with pytest.raises(RuntimeError, match="manual heap"):
        block(manual)


@pytest.mark.parametrize("mine_first", [True, False])
def test_a_receive_that_real_time_can_end_waits(manual, mine_first):
    """Whatever comes first among the channels of a select, and whoever turns the clocks of the others."""
    mine, soon = Timer(1, heap=manual).c, Timer(0.05)
    both = (mine, soon.c) if mine_first else (soon.c, mine)
    assert select(*both)[0] is soon.c
    with pytest.raises(TimeoutError):
        select(*both, timeout=0.01)
    soon.reset(3600)
    with pytest.raises(TimeoutError):
        select(*both, timeout=0.01)


@pytest.mark.parametrize("idle", ["stopped", "received", "endless"])
@pytest.mark.parametrize("mine_first", [True, False])
def test_a_receive_from_real_time_that_delivers_nothing_and_this_threads_own_clock_raises(manual, mine_first, idle):
    real = Timer({"stopped": 3600, "received": 0, "endless": float("inf")}[idle])
    if idle == "stopped":
        real.stop()
    elif idle == "received":
        real.c.recv()
    mine = Timer(1, heap=manual).c
    both = (mine, real.c) if mine_first else (real.c, mine)
    with pytest.raises(RuntimeError, match="manual heap"):
        select(*both)
    with pytest.raises(TimeoutError):
        select(*both, timeout=0.01)


@pytest.mark.parametrize("mine_first", [True, False])
def test_a_receive_that_another_threads_clock_can_end_waits(manual, mine_first):
    theirs = Background(ManualHeap).result()
    mine, their = Timer(1, heap=manual), Timer(1, heap=theirs)
    both = (mine.c, their.c) if mine_first else (their.c, mine.c)
    driver = threading.Timer(0.05, theirs.advance, [1])
    driver.start()
    assert select(*both)[0] is their.c
    driver.join()


def test_a_receive_from_two_clocks_of_this_thread_raises(manual):
    with pytest.raises(RuntimeError, match="manual heap"):
        select(Timer(1, heap=manual).c, Timer(1, heap=ManualHeap()).c, timeout=5)


def test_a_receive_in_a_callback_of_an_advance_raises_whoever_made_the_heap(manual):
    errors = []

    def callback():
        try:
            Timer(1, heap=manual).c.recv()
        except RuntimeError as exc:
            errors.append(exc)

    AfterFunc(1, callback, heap=manual)
    Background(manual.advance, 1).result()
    assert len(errors) == 1


def test_a_thread_is_not_taken_for_the_maker_whose_ident_it_has():
    made = []

    def make():
        made.append((ManualHeap(), threading.get_ident()))

    def receive():
        heap, ident = made[-1]
        return threading.get_ident() == ident, Timer(1, heap=heap).c.recv()

    for _ in range(100):
        Background(make).result()
        receiver = Background(receive)
        heap = made[-1][0]
        wait_until(lambda heap=heap, receiver=receiver: len(heap) == 1 or not receiver.running)
        while receiver.running:
            heap.advance(1)
        same, _ = receiver.result()
        if same:
            return
    pytest.skip("no thread got the ident of one that had ended")


def test_a_receiver_in_another_thread_is_driven(manual):
    timer = Timer(10, heap=manual)
    receiver = Background(timer.c.recv)
    manual.advance(9)
    assert receiver.running
    manual.advance(1)
    assert receiver.result() == 10.0


def test_a_timeout_in_another_thread_is_virtual(manual):
    """However late the receiver gets to wait: five more seconds of virtual time end it, and no real ones."""
    timer = Timer(float("inf"), heap=manual)
    receiver = Background(timer.c.recv, 5)

    def moved_on():
        manual.advance(5)
        return not receiver.running

    wait_until(moved_on)
    with pytest.raises(TimeoutError):
        receiver.result()


def test_use_drives_code_that_never_heard_of_it():
    real = default_heap()
    seen = []
    with use(ManualHeap(), strict=False) as heap:
        assert default_heap() is heap
        AfterFunc(60, seen.append, "fired")
        channel, grid = after(60), tick(25)
        sleeper = Background(sleep, 60)
        wait_until(lambda: len(heap) == 4)
        heap.advance(60)
        assert seen == ["fired"]
        assert channel.poll() == 60.0
        assert grid.poll() == 25.0
        sleeper.result()
    assert default_heap() is real


def test_use_restores_the_default_after_an_error():
    real = default_heap()
    with pytest.raises(KeyError), use(ManualHeap()):
        raise KeyError
    assert default_heap() is real


@pytest.mark.parametrize("heap", [3, "heap", ManualHeap], ids=repr)
def test_use_takes_a_heap_only(heap):
    real = default_heap()
    with pytest.raises(TypeError, match=r"use\(\) heap must be a TimerHeap"), use(heap):
        pass
    assert default_heap() is real


def test_use_without_a_heap_makes_one_and_closes_it():
    real = default_heap()
    with use() as heap:
        assert type(heap) is ManualHeap
        assert default_heap() is heap
        AfterFunc(1, int)
        heap.advance(1)
    assert heap.closed
    assert default_heap() is real


def test_use_leaves_a_given_heap_open():
    heap = ManualHeap()
    with use(heap, strict=False):
        timer = AfterFunc(1, int)
    assert not heap.closed
    assert timer.active


def leave_function():
    return AfterFunc(5, int)


def leave_dropped():
    AfterFunc(5, int)


def leave_array():
    array = TimerArray(9, print)
    array.reset([1, 2, 3], 5)
    return array


LEFT = {
    "function": (leave_function, 1, "due in 4.000000 s"),
    "dropped": (leave_dropped, 1, "due in 4.000000 s"),
    "never": (lambda: AfterFunc(math.inf, int), 1, "never due"),
    "periodic": (lambda: every(5, int), 1, "every 5.0 s"),
    "many": (lambda: [AfterFunc(5, int) for _ in range(25)], 25, "15 more"),
    "array": (leave_array, 3, "TimerArray"),
    "channel": (lambda: after(5), 1, "1 with a channel"),
    "channel that never is ready": (lambda: Timer(math.inf), 1, "1 with a channel"),
    "ticker": (lambda: Ticker(5), 1, "1 with a channel"),
    "ticker with an unread tick": (lambda: Ticker(0.5), 1, "1 with a channel"),
}


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("kind", LEFT)
def test_use_raises_when_timers_are_left_armed(kind, given):
    real = default_heap()
    leave, number, listed = LEFT[kind]
    block = use(*[ManualHeap()] * given)
    heap = block.__enter__()
    kept = leave()
    heap.advance(1)
    with pytest.raises(AssertionError) as raised:
        block.__exit__(None, None, None)
    assert str(raised.value).startswith(f"timers are left armed on the heap 'manual' at 1.0, {number} in all: ")
    assert listed in str(raised.value)
    assert "strict=False" in str(raised.value)
    assert heap.closed is not given
    assert default_heap() is real
    del kept


def test_slots_of_an_array_are_not_said_to_have_a_channel(heap):
    with pytest.raises(AssertionError, match="3 in all: 3 with a channel or of an array"), use(heap, strict=True):
        array = leave_array()
    assert array.stop() == 3


@pytest.mark.parametrize("kind", LEFT)
def test_use_does_not_raise_when_not_strict_or_closed_or_left_by_an_exception(kind):
    leave, _, _ = LEFT[kind]
    with use(strict=False) as heap:
        leave()
    assert heap.closed
    with use() as heap:
        leave()
        heap.close()
    with contextlib.suppress(KeyError), use() as heap:
        leave()
        fail(KeyError)
    assert heap.closed


def test_what_is_over_is_not_left_armed():
    with use() as heap:
        fired, stopped, ready, dropped = AfterFunc(1, int), AfterFunc(2, int), Timer(1), Timer(5)
        ticker = Ticker(1)
        array = TimerArray(4, print)
        array.reset(2, 5)
        heap.advance(1)
        stopped.stop()
        ticker.stop()
        array.stop()
        del dropped
        assert (fired.active, ready.active) == (False, True)


def test_use_can_look_at_a_heap_on_real_time():
    with TimerHeap() as heap:
        block = use(heap)
        block.__enter__()
        AfterFunc(3600, int)
        channel = after(3600)
        with pytest.raises(AssertionError, match="timers are left armed on the heap 'timerheap', 2 in all: "):
            block.__exit__(None, None, None)
        assert channel.poll() is None


def fail(error):
    raise error


@pytest.mark.parametrize("error", [ValueError, AssertionError, KeyboardInterrupt, SystemExit, StopIteration])
def test_advance_raises_what_a_callback_raised(manual, error):
    seen, mine = [], error("mine")
    AfterFunc(1, seen.append, "before", heap=manual)
    AfterFunc(2, fail, mine, heap=manual)
    AfterFunc(2, seen.append, "at the same time", heap=manual)
    AfterFunc(3, seen.append, "after", heap=manual)
    with pytest.raises(error) as raised:
        manual.advance(10)
    assert raised.value is mine
    assert (seen, manual.time(), len(manual)) == (["before"], 2.0, 2)
    manual.check()
    manual.advance(0)  # what was left, before time goes on
    assert seen == ["before", "at the same time"]
    manual.advance(8)
    assert (seen, manual.time()) == (["before", "at the same time", "after"], 10.0)
    assert manual.stats()["errors"] == 1


def test_what_is_left_can_be_stopped_and_put_off(manual):
    seen = []
    AfterFunc(1, fail, ValueError, heap=manual)
    stopped, put_off, _kept = (AfterFunc(1, seen.append, number, heap=manual) for number in range(3))
    with pytest.raises(ValueError):
        manual.advance(1)
    assert [timer for _, timer in manual.pending()][:2] == [stopped, put_off]
    assert stopped.stop()
    assert put_off.reset(5)
    manual.advance(0)
    assert seen == [2]
    manual.advance(5)
    assert seen == [2, 1]


def test_each_error_leaves_an_advance_of_its_own(manual):
    for number in range(3):
        AfterFunc(1, fail, KeyError(number), heap=manual)
    numbers = []
    for span in (5, 0, 0):
        with pytest.raises(KeyError) as raised:
            manual.advance(span)
        numbers.append(raised.value.args[0])
    manual.advance(4)
    assert (numbers, manual.time(), len(manual)) == ([0, 1, 2], 5.0, 0)


def test_a_callback_that_is_periodic_is_armed_for_the_next_time_when_it_fails(manual):
    beat = every(1, fail, ValueError, heap=manual)
    for at in (1.0, 2.0):
        with pytest.raises(ValueError):
            manual.advance(1)
        assert manual.time() == at
    assert beat.when == 3.0
    assert beat.stop()


def test_the_function_of_an_array_that_fails_leaves_advance_as_well(manual):
    seen = []
    array = TimerArray(4, lambda slot: fail(ValueError) if slot == 1 else seen.append(slot), each=True, heap=manual)
    array.reset(slice(None), 1)
    with pytest.raises(ValueError):
        manual.advance(1)
    assert (seen, array.armed) == ([0], 2)
    manual.advance(0)
    assert seen == [0, 2, 3]


def test_a_heap_with_an_on_error_of_its_own_goes_on():
    errors, seen = [], []
    heap = ManualHeap(on_error=lambda exc, timer: errors.append(exc))
    error = ValueError("mine")
    AfterFunc(1, fail, error, heap=heap)
    AfterFunc(1, seen.append, 1, heap=heap)
    heap.advance(2)
    assert (errors, seen, heap.time()) == ([error], [1], 2.0)


@pytest.mark.parametrize("kept", [False, True])
def test_what_is_left_goes_with_the_heap_or_its_close(kept):
    """Handles that were dropped, whose records are the heap's, too."""

    class Thing:
        def call(self):
            pass

    for close in (True, False):
        heap, thing = ManualHeap(), Thing()
        gone = weakref.ref(thing)
        AfterFunc(1, fail, ValueError, heap=heap)
        timer = AfterFunc(1, thing.call, heap=heap)
        if not kept:
            del timer
        with pytest.raises(ValueError):
            heap.advance(1)
        timer = None
        del thing
        if close:
            heap.close()
            assert (len(heap), heap.pending()) == (0, [])
            heap.check()
        else:
            del heap
        gc.collect()
        assert gone() is None


def test_a_heap_that_a_failing_callback_closes_is_closed(manual):
    seen = []
    AfterFunc(1, lambda: manual.close() or fail(ValueError), heap=manual)
    AfterFunc(1, seen.append, 1, heap=manual)
    with pytest.raises(ValueError):
        manual.advance(1)
    assert (seen, manual.closed, len(manual)) == ([], True, 0)
    manual.check()


def test_an_error_in_another_threads_advance_is_raised_there(manual):
    AfterFunc(1, fail, ValueError("mine"), heap=manual)
    with pytest.raises(ValueError, match="mine"):
        Background(manual.advance, 1).result()


def test_the_clock_starts_where_told():
    heap = ManualHeap(1000.5)
    assert heap.time() == 1000.5
    assert Timer(1, heap=heap).when == 1001.5


def test_a_refused_second_init_leaves_the_clock_alone(manual):
    manual.advance(5)
    with pytest.raises(RuntimeError):
        manual.__init__(1)
    assert manual.time() == 5
