"""Wrong calls say what was called, what is wrong with it and, where a mistake is typical, what was meant."""

import inspect
import math
import pickle
from collections.abc import Iterable
from typing import Protocol, runtime_checkable
from unittest import mock

import pytest
from helpers import run_ok

from timerheap import AfterFunc, Channel, Ticker, Timer, TimerHeap, after, default_heap, every, select, sleep, tick
from timerheap.testing import ManualHeap, use


def func(*args):
    """What a timer may call."""


async def coroutine():
    """What it may not, once called."""


@pytest.fixture
def things(manual):
    """One of each, and what the calls below need."""
    timer = Timer(5, heap=manual)
    ticker = Ticker(5, heap=manual)
    return {
        **{thing.__name__: thing for thing in (AfterFunc, Ticker, Timer, TimerHeap, ManualHeap, Channel, func)},
        **{thing.__name__: thing for thing in (after, every, tick, sleep, select, default_heap, use, coroutine)},
        "heap": manual,
        "timer": timer,
        "ticker": ticker,
        "function_timer": AfterFunc(5, func, heap=manual),
        "periodic": every(5, func, heap=manual),
        "nan": math.nan,
    }


NUMBER = "must be a number of seconds or a datetime.timedelta, not"
FORM = "AfterFunc(delay, func, *args)"
PERIODIC = "every(period, func, *args)"

WRONG_TYPES = [
    ("AfterFunc('5', func)", f"AfterFunc() delay {NUMBER} str"),
    ("AfterFunc(None, func)", f"AfterFunc() delay {NUMBER} NoneType"),
    ("every('5', func)", f"every() period {NUMBER} str"),
    ("every(5, func, heap=3)", "every() heap must be a TimerHeap, not int"),
    ("every(5, func, context=3)", "every() context must be a contextvars.Context"),
    ("every(5, 3)", "every() func must be callable, not int"),
    ("periodic.reset('5')", f"Timer.reset() delay {NUMBER} str"),
    ("Timer('5')", f"Timer() delay {NUMBER} str"),
    ("Timer(func)", f"Timer() delay {NUMBER} function"),
    ("Ticker('5')", f"Ticker() period {NUMBER} str"),
    ("after('5')", f"after() delay {NUMBER} str"),
    ("tick('5')", f"tick() period {NUMBER} str"),
    ("sleep('5')", f"sleep() delay {NUMBER} str"),
    ("timer.reset('5')", f"Timer.reset() delay {NUMBER} str"),
    ("function_timer.reset('5')", f"Timer.reset() delay {NUMBER} str"),
    ("timer.postpone('5')", f"Timer.postpone() delay {NUMBER} str"),
    ("ticker.reset('5')", f"Ticker.reset() period {NUMBER} str"),
    ("timer.c.recv('5')", f"Channel.recv() timeout {NUMBER} str"),
    ("select(timer.c, timeout='5')", f"select() timeout {NUMBER} str"),
    ("heap.advance('5')", f"ManualHeap.advance() seconds {NUMBER} str"),
    ("ManualHeap('5')", f"ManualHeap() start {NUMBER} str"),
    ("AfterFunc(5, 3)", "AfterFunc() func must be callable, not int"),
    ("AfterFunc(5, func, heap=3)", "AfterFunc() heap must be a TimerHeap, not int"),
    ("AfterFunc(5, func, heap=TimerHeap)", "AfterFunc() heap must be a TimerHeap, not the class TimerHeap itself"),
    ("AfterFunc(5, func, context=3)", "AfterFunc() context must be a contextvars.Context"),
    ("Timer(5, heap=3)", "Timer() heap must be a TimerHeap, not int"),
    ("Ticker(5, heap=3)", "Ticker() heap must be a TimerHeap, not int"),
    ("after(5, heap=3)", "after() heap must be a TimerHeap, not int"),
    ("tick(5, heap=TimerHeap)", "tick() heap must be a TimerHeap, not the class TimerHeap itself"),
    ("select(5)", "select() takes channels, not int"),
    ("TimerHeap(3)", "TimerHeap() name must be a str, not int"),
    ("TimerHeap(executor=3)", "TimerHeap() executor must be an object with a submit method, not int"),
    ("TimerHeap(on_error=3)", "TimerHeap() on_error must be callable, not int"),
    ("setattr(heap, 'on_error', 3)", "ManualHeap.on_error must be callable, not int"),
    ("heap.close('5')", f"TimerHeap.close() timeout {NUMBER} str"),
    ("ManualHeap(name=3)", "ManualHeap() name must be a str, not int"),
    ("use(3).__enter__()", "use() heap must be a TimerHeap"),
]

WRONG_NUMBERS = [
    ("AfterFunc()", f"AfterFunc() needs two arguments, a delay and a function: {FORM}"),
    ("AfterFunc(5)", f"AfterFunc() needs a function after the delay: {FORM}"),
    ("every()", f"every() needs two arguments, a period and a function: {PERIODIC}"),
    ("every(5)", f"every() needs a function after the period: {PERIODIC}; Ticker(period) has a channel instead"),
    ("Timer()", "Timer() needs an argument, delay"),
    ("Timer(5, 6)", "Timer() takes one positional argument, delay, got 2"),
    ("Timer(5, delay=6)", "Timer() got delay by position and by keyword"),
    ("Timer(5, colour=6)", "Timer() got an unexpected keyword argument 'colour'"),
    ("Timer.__new__(Timer)", "Timer() needs an argument, delay"),
    ("Timer.__new__(Timer, 5, colour=6)", "Timer() got an unexpected keyword argument 'colour'"),
    ("Ticker()", "Ticker() needs an argument, period"),
    ("Ticker(5, 6)", "Ticker() takes one positional argument, period, got 2"),
    ("Ticker(5, colour=6)", "Ticker() got an unexpected keyword argument 'colour'"),
    ("Ticker.__new__(Ticker)", "Ticker() needs an argument, period"),
    ("after()", "after() needs an argument, delay"),
    ("after(5, 6)", "after() takes one positional argument, delay, got 2: heap by keyword"),
    ("after(5, colour=6)", "after() got an unexpected keyword argument 'colour'"),
    ("tick()", "tick() needs an argument, period"),
    ("tick(5, 6)", "tick() takes one positional argument, period, got 2: heap by keyword"),
    ("sleep()", "sleep() needs an argument, delay"),
    ("sleep(1, 2)", "sleep() takes one positional argument, delay, got 2"),
    ("timer.reset()", "Timer.reset() needs an argument, delay"),
    ("timer.postpone()", "Timer.postpone() needs an argument, delay"),
    ("ticker.reset()", "Ticker.reset() needs an argument, period"),
    ("heap.advance()", "ManualHeap.advance() needs an argument, seconds"),
    ("TimerHeap('a', 'b')",
     "TimerHeap() takes one positional argument, name, got 2: executor, on_error, patience and tolerance by keyword"),
    ("TimerHeap(colour=3)", "TimerHeap() got an unexpected keyword argument 'colour'"),
    ("ManualHeap(5, 'b')",
     "ManualHeap() takes one positional argument, start, got 2: auto, name and on_error by keyword"),
    ("ManualHeap(colour=3)", "ManualHeap() got an unexpected keyword argument 'colour'"),
    ("default_heap(3)", "default_heap() takes no arguments"),
    ("timer.stop(3)", "stop()"),
    ("timer.reset(1, 2)", "reset()"),
    ("timer.postpone(1, 2)", "postpone()"),
    ("timer.c.recv(1, 2)", "recv()"),
    ("select(timer.c, colour=3)", "select()"),
]

MISTAKES = [
    ("Timer(5, func)", f"{FORM} is what calls a function"),
    ("Timer(interval=5, function=func)", f"{FORM} is what calls a function"),
    ("Timer(5, context=3)", f"{FORM} is what calls a function"),
    ("Timer(interval=5)", "the duration is called delay"),
    ("Timer(5, heap)", "heap=heap"),
    ("after(5, func)", f"{FORM} is what calls a function"),
    ("Ticker(5, func)", "every(period, func, *args) is what calls a function"),
    ("tick(5, func)", "every(period, func, *args) is what calls a function"),
    ("after(5, heap)", "heap=heap"),
    ("sleep(5, heap)", "after(delay, heap=heap).recv()"),
    ("sleep(5, heap=heap)", "after(delay, heap=heap).recv()"),
    ("AfterFunc(delay=5, func=func)", f"takes delay and func by position, {FORM}, not by keyword: delay, func"),
    ("AfterFunc(interval=5, function=func)", "not by keyword: interval, function"),
    ("AfterFunc(5, func=func)", "not by keyword: func"),
    ("AfterFunc(func)", f"needs a delay before the function: {FORM}"),
    ("AfterFunc(func, 5)", f"the delay comes first, {FORM}"),
    ("AfterFunc(5, func())", "pass the function itself, func, not what it returns, func()"),
    ("AfterFunc(5, heap)", "heap=heap"),
    ("AfterFunc(5, func, key=1)", "functools.partial(func, key=...)"),
    ("AfterFunc(5, func, args=(1,))", f"arguments for func go by position, {FORM}"),
    ("every(period=5, func=func)", f"takes period and func by position, {PERIODIC}, not by keyword: period, func"),
    ("every(func)", f"needs a period before the function: {PERIODIC}"),
    ("every(func, 5)", f"the period comes first, {PERIODIC}"),
    ("every(5, func())", "pass the function itself, func, not what it returns, func()"),
    ("every(5, func, key=1)", "functools.partial(func, key=...)"),
    ("every(5, func, args=(1,))",
     f"unexpected keyword argument 'args': period, func and arguments for func go by position, {PERIODIC}"),
    ("Channel()", "channels are made by timers"),
    ("Channel(5)", "channels are made by timers"),
    ("select(timer)", "its channel is called c"),
    ("select(ticker)", "its channel is called c"),
    ("select(function_timer.c)", "a timer of AfterFunc has no channel"),
    ("select(function_timer)", "not Timer: a timer of AfterFunc has no channel"),
    ("select([timer.c])", "select(*channels)"),
    ("select(timer.c, 5)", "timeout=5"),
    ("use(ManualHeap).__enter__()", "use(ManualHeap())"),
    ("iter(timer)", "'timerheap.Timer' object is not iterable: a Ticker is"),
    ("iter(timer.c)", "'timerheap.Channel' object is not iterable: a Ticker is"),
    ("list(function_timer)", "not iterable"),
]


@pytest.mark.parametrize(("call", "said"), WRONG_TYPES + WRONG_NUMBERS + MISTAKES)
def test_a_wrong_call_says_what_is_wrong(things, call, said):
    manual = things["heap"]
    armed, arms = len(manual), manual.stats()["arms"]
    with pytest.raises(TypeError) as caught:
        eval(call, things)
    assert said in str(caught.value)
    assert (len(manual), manual.stats()["arms"]) == (armed, arms)


def test_a_coroutine_is_not_a_function():
    made = coroutine()
    with pytest.raises(TypeError, match="pass the function itself"):
        AfterFunc(5, made)
    made.close()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("AfterFunc(nan, func)", "AfterFunc() delay must not be NaN"),
        ("timer.reset(nan)", "Timer.reset() delay must not be NaN"),
        ("select(timer.c, timeout=nan)", "select() timeout must not be NaN"),
        ("every(-5, func)", "every() period must be positive, not -5"),
        ("every(nan, func)", "every() period must not be NaN"),
        ("periodic.reset(0)", "Timer.reset() period must be positive, not 0"),
        ("timer.postpone(nan)", "Timer.postpone() delay must not be NaN"),
        ("Ticker(0)", "Ticker() period must be positive, not 0"),
        ("tick(-1)", "tick() period must be positive, not -1"),
        ("ticker.reset(0)", "Ticker.reset() period must be positive, not 0"),
        ("heap.close(nan)", "TimerHeap.close() timeout must not be NaN"),
        ("heap.advance(-1)", "ManualHeap.advance() seconds must not be negative"),
        ("select()", "select() needs at least one channel"),
    ],
)
def test_a_wrong_value_says_what_is_wrong(things, call, said):
    with pytest.raises(ValueError) as caught:
        eval(call, things)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("timer.cancel", "stop()"),
        ("timer.start", "a timer runs from its making"),
        ("timer.C", "c"),
        ("timer.recv", "timer.c.recv()"),
        ("function_timer.join", "no thread"),
        ("function_timer.cancelled", "active"),
        ("function_timer.function", "func"),
        ("function_timer.kwargs", "functools.partial"),
        ("ticker.cancel", "stop()"),
        ("ticker.start", "a Ticker runs from its making"),
        ("ticker.recv", "ticker.c.recv()"),
        ("timer.c.get", "recv()"),
    ],
)
def test_a_name_from_another_library_says_what_it_is_here(things, name, instead):
    owner, _, attribute = name.rpartition(".")
    thing = eval(owner, things)
    kind = f"timerheap.{type(thing).__name__}"
    with pytest.raises(AttributeError) as caught:
        eval(name, things)
    assert str(caught.value).startswith(f"{kind!r} object has no attribute {attribute!r}: ")
    assert instead in str(caught.value)
    with pytest.raises(AttributeError, match="has no attribute"):
        setattr(thing, attribute, 1)
    with pytest.raises(AttributeError, match="has no attribute"):
        delattr(thing, attribute)
    with pytest.raises(AttributeError, match=f"type object {kind!r} has no attribute {attribute!r}"):
        getattr(type(thing), attribute)
    for seen in (thing, type(thing)):
        assert not hasattr(seen, attribute)
        assert getattr(seen, attribute, None) is None
        assert attribute not in dir(seen)
    assert attribute not in vars(type(thing))
    assert not hasattr(mock.Mock(spec=thing), attribute)


@runtime_checkable
class Closable(Protocol):
    def close(self): ...


def test_such_a_name_makes_nobody_take_it_for_what_has_one(things):
    for thing in (things["timer"], things["ticker"], things["timer"].c):
        assert not isinstance(thing, Closable)
        assert not issubclass(type(thing), Closable)
        assert inspect.getattr_static(thing, "close", None) is None
    assert isinstance(things["heap"], Closable)


@pytest.mark.parametrize("owner", ["timer", "ticker", "timer.c"])
def test_any_other_name_is_told_as_always(things, owner):
    thing = eval(owner, things)
    with pytest.raises(AttributeError) as caught:
        thing.colour  # noqa: B018
    assert str(caught.value) == f"'timerheap.{type(thing).__name__}' object has no attribute 'colour'"


def test_what_is_not_iterable_does_not_look_so(things):
    for thing in (things["timer"], things["timer"].c):
        assert not hasattr(thing, "__iter__")
        assert not isinstance(thing, Iterable)
    assert isinstance(things["ticker"], Iterable)


@pytest.mark.parametrize(
    ("thing", "signature"),
    [
        (every, "(period, func, /, *args, context=None, heap=None)"),
        (AfterFunc, "(delay, func, /, *args, context=None, heap=None)"),
        (Timer, "(delay, *, heap=None)"),
        (Timer.stop, "(self, /)"),
        (Timer.reset, "(self, /, delay)"),
        (Timer.postpone, "(self, /, delay)"),
        (Ticker, "(period, *, heap=None)"),
        (Ticker.reset, "(self, /, period)"),
        (Channel.recv, "(self, /, timeout=None)"),
        (TimerHeap, "(name='timerheap', *, executor=None, on_error=None, patience=None, tolerance=0.0)"),
        (ManualHeap, "(start=0.0, *, auto=False, name='manual', on_error=None)"),
        (ManualHeap.advance, "(self, /, seconds)"),
        (after, "(delay, *, heap=None)"),
        (tick, "(period, *, heap=None)"),
        (sleep, "(delay)"),
        (select, "(*channels, timeout=None)"),
    ],
)
def test_signatures_are_those_of_the_documentation(thing, signature):
    assert str(inspect.signature(thing)) == signature
    assert not thing.__doc__.startswith(f"{thing.__name__}(")


def test_durations_go_by_keyword_as_well(manual):
    timer, ticker = Timer(delay=1, heap=manual), Ticker(period=2, heap=manual)
    assert (timer.when, ticker.period) == (1.0, 2.0)
    assert timer.reset(delay=3) is True
    ticker.reset(period=4)
    assert (timer.when, ticker.period) == (3.0, 4.0)
    manual.advance(seconds=3)
    assert timer.c.recv(timeout=0) == 3.0
    sleep(delay=0)


def test_a_subclass_of_a_heap_may_take_other_arguments():
    class Named(TimerHeap):
        def __init__(self, number, *, colour):
            super().__init__(f"{colour} {number}")

    with Named(3, colour="red") as heap:
        assert heap.name == "red 3"


def test_wrong_calls_leave_nothing_behind():
    """The arguments of a refused constructor are not kept."""
    run_ok("""
        import sys
        from timerheap import AfterFunc, Ticker, Timer
        def func(): pass
        before = sys.getrefcount(func)
        for _ in range(1000):
            for call in (Timer, Ticker):
                for arguments, keywords in (((5, func), {}), ((), {"function": func}), ((func,), {})):
                    try:
                        call(*arguments, **keywords)
                    except TypeError:
                        pass
            try:
                AfterFunc(func, 5)
            except TypeError:
                pass
        assert abs(sys.getrefcount(func) - before) < 10, sys.getrefcount(func) - before
    """)


def test_refusing_to_be_pickled_is_as_it_was(things):
    for name in ("timer", "ticker"):
        with pytest.raises(TypeError, match="cannot copy or pickle"):
            pickle.dumps(things[name])


def test_new_alone_makes_them_too(things):
    """As a subclass of something else's might call it, or copyreg."""
    heap = ManualHeap()
    timer, ticker = Timer.__new__(Timer, 5, heap=heap), Ticker.__new__(Ticker, period=2, heap=heap)
    heap.advance(5)
    assert (timer.c.poll(), ticker.c.poll()) == (5.0, 2.0)
