"""Handles and heaps as objects: what they refuse, how they show themselves."""

import contextvars
import copy
import enum
import math
import pickle
import sys
import threading
import time
import types

import pytest
from helpers import FAR, PATIENCE, balance, run_ok, wait_until

from timerheap import AfterFunc, Channel, Ticker, Timer, TimerHeap, after, default_heap, tick
from timerheap.testing import ManualHeap, use

MAKERS = {
    "Timer": lambda heap: Timer(FAR, heap=heap),
    "AfterFunc": lambda heap: AfterFunc(FAR, print, heap=heap),
    "Ticker": lambda heap: Ticker(FAR, heap=heap),
    "Channel": lambda heap: Timer(FAR, heap=heap).c,
    "TimerHeap": lambda heap: heap,
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_handles_refuse_copy_and_pickle(manual, make, duplicate):
    with pytest.raises(TypeError):
        duplicate(make(manual))


@pytest.mark.parametrize("cls", [Timer, Ticker, Channel])
def test_handle_types_are_final(cls):
    with pytest.raises(TypeError):
        types.new_class("Sub", (cls,))


def test_channels_are_made_by_timers_only():
    with pytest.raises(TypeError):
        Channel()


def test_a_channel_made_behind_the_timers_back_belongs_to_no_heap():
    """Channel.__new__ skips the refusal: what it gives is as good as closed."""
    run_ok("""
        from timerheap import Channel, select
        channel = Channel.__new__(Channel)
        assert channel.poll() is None and repr(channel) == "<timerheap.Channel idle>"
        for receive in (channel.recv, lambda: channel.recv(0), lambda: select(channel, timeout=1)):
            try:
                receive()
            except RuntimeError as exc:
                assert "closed" in str(exc)
            else:
                raise AssertionError("received")
        del channel
    """)


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_repr_names_the_public_type(manual, make):
    assert repr(make(manual)).startswith("<timerheap.")


def test_repr_shows_the_function_and_the_time_left_by_the_heaps_clock(manual):
    timer, channel_timer = AfterFunc(2, print, heap=manual), Timer(2.5, heap=manual)
    assert repr(timer) == f"<timerheap.AfterFunc {print!r} due in 2.000000 s>"
    assert repr(channel_timer) == "<timerheap.Timer due in 2.500000 s>"
    manual.advance(0.75)
    assert repr(timer) == f"<timerheap.AfterFunc {print!r} due in 1.250000 s>"
    assert repr(channel_timer) == "<timerheap.Timer due in 1.750000 s>"
    assert timer.stop()
    assert channel_timer.stop()
    assert repr(timer) == f"<timerheap.AfterFunc {print!r} inactive>"
    assert repr(channel_timer) == "<timerheap.Timer inactive>"
    timer.reset(math.inf)
    channel_timer.reset(math.inf)
    assert repr(timer) == f"<timerheap.AfterFunc {print!r} never due>"
    assert repr(channel_timer) == "<timerheap.Timer never due>"
    assert timer.reset(0)
    assert channel_timer.reset(0)
    assert repr(timer) == f"<timerheap.AfterFunc {print!r} due now>"
    assert repr(channel_timer) == "<timerheap.Timer due now>"


def test_repr_counts_down_on_real_time(heap):
    timer = AfterFunc(FAR, print, heap=heap)
    left = float(repr(timer).rpartition(" due in ")[2].removesuffix(" s>"))
    assert timer.when - time.monotonic() - 1e-6 <= left <= FAR


def call(*args):
    pass


@pytest.mark.parametrize("args", [(), (1,), ((),), (1, "two"), (None, None, None)])
@pytest.mark.parametrize("context", [None, contextvars.Context()])
def test_a_function_timer_shows_what_it_calls_and_where(manual, args, context):
    timer = AfterFunc(1, call, *args, context=context, heap=manual)
    for _ in ("armed", "stopped", "fired"):
        assert (timer.func, timer.args, timer.heap) == (call, args, manual)
        assert type(timer.args) is tuple
        timer.stop()
    timer.reset(0)
    manual.advance(0)
    assert (timer.func, timer.args, timer.heap, timer.active) == (call, args, manual, False)


def test_a_channel_timer_calls_nothing(manual):
    timer = Timer(1, heap=manual)
    assert (timer.func, timer.args, timer.heap) == (None, (), manual)
    assert Timer(1).heap is default_heap()


@pytest.mark.parametrize("name", ["heap", "func", "args"])
def test_what_a_timer_calls_and_where_is_read_only(manual, name):
    timer = AfterFunc(1, call, heap=manual)
    with pytest.raises(AttributeError):
        setattr(timer, name, None)
    with pytest.raises(AttributeError):
        delattr(timer, name)


@pytest.mark.parametrize("make", [after, tick])
def test_a_bare_channel_may_be_on_a_heap_of_ones_own(manual, make):
    channel = make(2, heap=manual)
    assert len(manual) == 1
    with use(ManualHeap()) as other:
        kept = make(2, heap=None)
        assert (len(manual), len(other)) == (1, 1)
        other.close()
    assert kept.poll() is None
    manual.advance(2)
    assert channel.poll() == 2.0
    manual.close()
    with pytest.raises(RuntimeError, match="closed"):
        make(2, heap=manual)


def test_a_closed_heap_refuses_arming_and_its_handles_are_inactive(heap):
    timer, channel_timer, ticker = (MAKERS[name](heap) for name in ("AfterFunc", "Timer", "Ticker"))
    heap.close()
    heap.close()
    assert heap.closed
    assert len(heap) == 0
    assert not timer.active
    assert not channel_timer.active
    assert timer.when is None
    assert timer.stop() is False
    assert channel_timer.stop() is False
    assert ticker.stop() is None
    for arm in (lambda: timer.reset(1), lambda: channel_timer.reset(1), lambda: ticker.reset(1),
                lambda: Timer(1, heap=heap), lambda: Ticker(1, heap=heap), lambda: AfterFunc(1, print, heap=heap)):
        with pytest.raises(RuntimeError, match="closed"):
            arm()


def test_what_is_due_when_a_callback_closes_the_heap_is_inactive(heap):
    """The rest of the run is void, though its timers have not been let go of yet."""
    seen = []
    done = threading.Event()

    def close():
        heap.close()
        seen.append((neighbour.active, neighbour.when, neighbour.stop(), len(heap)))

    hold = threading.Event()
    AfterFunc(0, hold.wait, PATIENCE, heap=heap)
    AfterFunc(0, close, heap=heap)
    neighbour = AfterFunc(0, seen.append, "fired", heap=heap)
    AfterFunc(0, done.set, heap=heap)
    hold.set()
    wait_until(lambda: seen)
    heap.close()
    assert seen == [(False, None, False, 0)]
    assert not done.is_set()
    assert balance(heap) == 0


def test_a_heap_is_true_even_when_empty(manual):
    assert len(manual) == 0
    assert bool(manual) is True


def test_a_heap_made_while_the_default_heap_is_made_stays_the_only_default():
    """A collection inside the making of the default heap may run a finalizer that needs it too."""
    run_ok("""
        import gc, threading
        from timerheap import AfterFunc, default_heap

        def meddle(phase, info):
            if phase == "start" and not seen:
                seen.append(None)
                seen.append(default_heap())

        for generation in range(200):
            seen = []
            gc.callbacks.append(meddle)
            gc.set_threshold(1)
            heap = default_heap()
            gc.set_threshold(0)
            gc.callbacks.remove(meddle)
            assert len(seen) != 2 or seen[1] is heap is default_heap()
            heap.close()
    """)


def test_a_closed_default_heap_is_replaced():
    first = default_heap()
    first.close()
    second = default_heap()
    assert second is not first
    assert not second.closed


@pytest.mark.parametrize("bad", [{"executor": 1}, {"on_error": 1}, {"name": 1}])
def test_a_heap_refuses_bad_arguments(bad):
    with pytest.raises(TypeError):
        TimerHeap(**bad)


class Name(str):
    __slots__ = ()


class Names(enum.StrEnum):
    BEATS = "beats"


@pytest.mark.parametrize("name", [Name("beats"), Names.BEATS], ids=["subclass", "enumeration"])
def test_a_name_may_be_of_a_subclass_of_str(name):
    heap = TimerHeap(name)
    assert heap.name == "beats"
    assert type(heap.name) is str


@pytest.mark.parametrize("make", [lambda heap: Timer(1, heap=heap), lambda heap: AfterFunc(1, print, heap=heap)])
def test_heap_must_be_a_heap(make):
    with pytest.raises(TypeError, match="TimerHeap"):
        make("heap")


def test_sizes_include_the_native_memory(manual):
    empty = sys.getsizeof(manual)
    timers = [AfterFunc(FAR, print, heap=manual) for _ in range(10_000)]
    assert sys.getsizeof(manual) - empty >= 10_000 * 40
    del timers


SUBINTERPRETER = "_xxsubinterpreters" if sys.version_info < (3, 13) else "_interpreters"


IMPORT_REFUSED = """
try:
    import timerheap
except ImportError as exc:
    assert "interpreter" in str(exc), exc
else:
    raise AssertionError("imported")
"""


def test_a_subinterpreter_gets_a_clear_import_error():
    run_ok(f"""
        import timerheap
        import {SUBINTERPRETER} as interpreters
        interpreter = interpreters.create()
        failure = interpreters.run_string(interpreter, {IMPORT_REFUSED!r})
        interpreters.destroy(interpreter)  # from 3.14 on an interpreter that is left behind is a warning
        assert failure is None, failure
    """)
