"""timerheap.testing: virtual time."""

import threading

import pytest
from helpers import Background, wait_until

from timerheap import AfterFunc, Ticker, Timer, after, default_heap, select, sleep, tick
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
    errors = []

    def nested():
        try:
            manual.advance(1)
        except RuntimeError as exc:
            errors.append(exc)

    AfterFunc(1, nested, heap=manual)
    manual.advance(1)
    assert len(errors) == 1


def test_an_endless_advance_leaves_what_never_fires(manual):
    seen = []
    never = AfterFunc(float("inf"), seen.append, "never", heap=manual)
    AfterFunc(1e6, seen.append, "late", heap=manual)
    manual.advance(float("inf"))
    assert seen == ["late"]
    assert never.stop() is True


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
    with use(ManualHeap()) as heap:
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


def test_the_clock_starts_where_told():
    heap = ManualHeap(1000.5)
    assert heap.time() == 1000.5
    assert Timer(1, heap=heap).when == 1001.5


def test_a_refused_second_init_leaves_the_clock_alone(manual):
    manual.advance(5)
    with pytest.raises(RuntimeError):
        manual.__init__(1)
    assert manual.time() == 5
