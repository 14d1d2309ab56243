"""Callbacks run in an empty context, or in the one they were given."""

import contextvars

import pytest
from helpers import wait_until

from timerheap import AfterFunc

variable = contextvars.ContextVar("variable", default="unset")


def test_a_callback_sees_an_empty_context(manual):
    variable.set("caller's")
    seen = []
    AfterFunc(0, lambda: seen.append((variable.get(), len(contextvars.copy_context()))), heap=manual)
    manual.advance(0)
    assert seen == [("unset", 0)]


def test_a_callback_on_the_worker_sees_an_empty_context(heap):
    variable.set("caller's")
    seen = []
    AfterFunc(0, lambda: seen.append((variable.get(), len(contextvars.copy_context()))), heap=heap)
    wait_until(lambda: seen)
    assert seen == [("unset", 0)]


def test_what_a_callback_sets_is_not_seen_by_the_next(manual):
    seen = []
    AfterFunc(0, variable.set, "first", heap=manual)
    AfterFunc(0, lambda: seen.append(variable.get()), heap=manual)
    manual.advance(0)
    assert seen == ["unset"]


def test_what_a_callback_sets_is_not_seen_by_its_next_run(manual):
    seen = []

    def callback():
        seen.append(variable.get())
        variable.set("set")

    timer = AfterFunc(0, callback, heap=manual)
    manual.advance(0)
    timer.reset(0)
    manual.advance(0)
    assert seen == ["unset", "unset"]


def test_advance_leaves_the_callers_context_alone(manual):
    variable.set("caller's")
    AfterFunc(0, variable.set, "callback's", heap=manual)
    manual.advance(0)
    assert variable.get() == "caller's"


def test_a_callback_runs_in_the_context_it_is_given(manual):
    context = contextvars.copy_context()
    context.run(variable.set, "given")
    seen = []
    AfterFunc(0, lambda: seen.append(variable.get()), context=context, heap=manual)
    manual.advance(0)
    assert seen == ["given"]


def test_what_a_callback_sets_stays_in_the_context_it_is_given(manual):
    context = contextvars.Context()
    timer = AfterFunc(0, variable.set, "set", context=context, heap=manual)
    manual.advance(0)
    assert context[variable] == "set"
    context.run(variable.set, "other")
    timer.reset(0)
    manual.advance(0)
    assert context[variable] == "set"


def test_timers_share_a_context_they_are_given(manual):
    context = contextvars.Context()
    seen = []
    AfterFunc(0, variable.set, "first", context=context, heap=manual)
    AfterFunc(0, lambda: seen.append(variable.get()), context=context, heap=manual)
    manual.advance(0)
    assert seen == ["first"]


@pytest.mark.parametrize("bad", [1, {}, "context", object()])
def test_refuses_what_is_no_context(manual, bad):
    with pytest.raises(TypeError):
        AfterFunc(0, print, context=bad, heap=manual)
    assert len(manual) == 0


def test_none_means_an_empty_context(manual):
    variable.set("caller's")
    seen = []
    AfterFunc(0, lambda: seen.append(variable.get()), context=None, heap=manual)
    manual.advance(0)
    assert seen == ["unset"]


def test_a_context_in_use_is_an_error_of_that_callback_only(manual):
    """A context can be entered once at a time: here the driver is inside it."""
    context = contextvars.Context()
    calls, errors = [], []
    manual.on_error = lambda exc, timer: errors.append(type(exc))
    AfterFunc(0, calls.append, 1, context=context, heap=manual)
    AfterFunc(0, calls.append, 2, heap=manual)
    context.run(manual.advance, 0)
    assert calls == [2]
    assert errors == [RuntimeError]


def test_on_error_sees_an_exception_raised_in_a_given_context(manual):
    context, errors = contextvars.Context(), []
    manual.on_error = lambda exc, timer: errors.append(type(exc))
    AfterFunc(0, lambda: 1 / 0, context=context, heap=manual)
    manual.advance(0)
    assert errors == [ZeroDivisionError]
    context.run(int)  # it was left
