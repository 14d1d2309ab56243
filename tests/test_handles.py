"""Handles and heaps as objects: what they refuse, how they show themselves."""

import copy
import pickle
import sys
import types

import pytest
from helpers import FAR, run_ok

from timerheap import AfterFunc, Channel, Ticker, Timer, TimerHeap, default_heap

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


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_repr_names_the_public_type(manual, make):
    assert repr(make(manual)).startswith("<timerheap.")


def test_repr_tells_armed_from_inactive(manual):
    timer = AfterFunc(2, print, heap=manual)
    assert "due at 2.0" in repr(timer)
    timer.stop()
    assert "inactive" in repr(timer)


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


def test_a_heap_is_true_even_when_empty(manual):
    assert len(manual) == 0
    assert bool(manual) is True


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
        failure = interpreters.run_string(interpreters.create(), {IMPORT_REFUSED!r})
        assert failure is None, failure
    """)
