"""timerheap.threading: threading.Timer's behaviour without its threads.

What both classes promise is asked of both, by the fixture `timer_class`; a script of random calls has to come to the
same on either.
"""

import contextvars
import copy
import decimal
import fractions
import gc
import importlib.util
import inspect
import pickle
import random
import signal
import sys
import threading
import time
import weakref
from datetime import timedelta

import pytest
from helpers import FAR, FREE_THREADED, PATIENCE, SANITIZER, asks_proc, run_ok, run_python, run_threads, wait_until

import timerheap.threading
from timerheap.threading import Timer

STANDARD = threading.Timer


@pytest.fixture(params=[STANDARD, Timer], ids=["standard", "timerheap"])
def timer_class(request):
    return request.param


def run_to_end(timer):
    timer.start()
    timer.join(PATIENCE)
    assert not timer.is_alive()


# ---- as a thread -----------------------------------------------------------------------------------------------------


def test_it_is_a_thread_and_a_timer(timer_class):
    timer = timer_class(FAR, print)
    assert isinstance(timer, threading.Thread)
    assert isinstance(timer, STANDARD)
    assert list(inspect.signature(timer_class).parameters) == ["interval", "function", "args", "kwargs"]


def test_it_calls_with_args_and_keywords_once(timer_class):
    got = []
    start = time.monotonic()
    run_to_end(timer_class(0.02, lambda *args, **kwargs: got.append((args, kwargs)), (1, 2), {"key": 3}))
    assert time.monotonic() - start >= 0.02
    assert got == [((1, 2), {"key": 3})]


def test_defaults_are_of_the_timers_own(timer_class):
    one, other = timer_class(FAR, print), timer_class(FAR, print)
    assert (one.args, one.kwargs) == ([], {})
    one.args.append(1)
    one.kwargs["key"] = 1
    assert one.args == [1]
    assert (other.args, other.kwargs) == ([], {})


def test_its_states(timer_class):
    timer = timer_class(FAR, print)
    kind = type(timer).__name__
    assert repr(timer) == f"<{kind}({timer.name}, initial)>"
    assert not timer.is_alive()
    assert timer.ident is None
    timer.daemon = True
    timer.start()
    assert timer.is_alive()
    assert repr(timer).startswith(f"<{kind}({timer.name}, started daemon")
    timer.cancel()
    timer.join(PATIENCE)
    assert not timer.is_alive()
    assert repr(timer).startswith(f"<{kind}({timer.name}, stopped daemon")


def test_it_starts_once(timer_class):
    timer = timer_class(0, lambda: None)
    run_to_end(timer)
    with pytest.raises(RuntimeError, match="threads can only be started once"):
        timer.start()
    pending = timer_class(FAR, print)
    pending.start()
    with pytest.raises(RuntimeError, match="threads can only be started once"):
        pending.start()
    pending.cancel()
    pending.join(PATIENCE)


def test_of_racing_starts_one_goes_through():
    for _ in range(50):
        timer = Timer(FAR, print)

        def start(index, timer=timer):
            try:
                timer.start()
            except RuntimeError:
                return 0
            return 1

        assert sum(run_threads(4, start)) == 1
        timer.cancel()


def test_join_before_the_start_and_of_itself_is_an_error(timer_class):
    errors = []

    def join_itself():
        try:
            timer.join()
        except RuntimeError as exc:
            errors.append(str(exc))

    timer = timer_class(0, join_itself)
    with pytest.raises(RuntimeError, match="cannot join thread before it is started"):
        timer.join()
    run_to_end(timer)
    timer.join()
    assert errors == ["cannot join current thread"]


def test_join_gives_up_in_time(timer_class):
    timer = timer_class(FAR, print)
    timer.start()
    start = time.monotonic()
    timer.join(0.05)
    assert time.monotonic() - start >= 0.04
    assert timer.is_alive()
    timer.join(-1)
    with pytest.raises(TypeError):
        timer.join("1")
    timer.cancel()
    timer.join(PATIENCE)
    assert not timer.is_alive()


def test_any_number_may_join(timer_class):
    timers = [timer_class(0.3, lambda: None) for _ in range(5)]
    for timer in timers:
        timer.start()

    def join_all(index):
        for timer in timers[index:] + timers[:index]:
            timer.join(PATIENCE)
        return any(timer.is_alive() for timer in timers)

    assert run_threads(6, join_all) == [False] * 6


def test_names(timer_class):
    one, other = timer_class(FAR, print), timer_class(FAR, print)
    assert one.name != other.name
    assert one.name.startswith("Thread-")
    one.name = 7
    assert one.name == "7"
    with pytest.warns(DeprecationWarning, match="getName"):
        assert other.getName() == other.name
    with pytest.warns(DeprecationWarning, match="setName"):
        other.setName("other")
    assert other.name == "other"


def test_daemon_is_inherited_and_fixed_by_the_start(timer_class):
    def by(daemon):
        got = []
        thread = threading.Thread(target=lambda: got.append(timer_class(FAR, print).daemon), daemon=daemon)
        thread.start()
        thread.join()
        return got[0]

    assert by(True) is True
    assert by(False) is False
    timer = timer_class(FAR, print)
    assert timer.daemon is False
    with pytest.warns(DeprecationWarning, match="setDaemon"):
        timer.setDaemon(True)
    with pytest.warns(DeprecationWarning, match="isDaemon"):
        assert timer.isDaemon() is True
    timer.start()
    with pytest.raises(RuntimeError, match="cannot set daemon status of active thread"):
        timer.daemon = False
    timer.cancel()
    timer.join(PATIENCE)
    with pytest.raises(RuntimeError, match="cannot set daemon status of active thread"):
        timer.daemon = False


def test_a_timer_that_a_timer_makes_inherits_from_it(timer_class):
    got = []
    for daemon in (True, False):
        timer = timer_class(0, lambda: got.append(timer_class(FAR, print).daemon))
        timer.daemon = daemon
        run_to_end(timer)
    assert got == [True, False]


def test_the_function_runs_as_its_timer(timer_class):
    got = []

    def look():
        me = threading.current_thread()
        got.append((me is timer, me.name, me.ident == threading.get_ident(), me.native_id == threading.get_native_id(),
                    me.is_alive(), me in threading.enumerate(), threading.get_ident()))  # fmt: skip

    timer = timer_class(0, look)
    timer.name = "mine"
    run_to_end(timer)
    assert got[0][:-1] == (True, "mine", True, True, True, True)
    assert timer.ident == got[0][-1]
    assert timer not in threading.enumerate()


def test_the_worker_is_itself_again_after_a_function():
    run_to_end(Timer(0, lambda: None))
    assert [thread.name for thread in threading.enumerate()].count("threading.Timer") == 1


def test_without_init_it_says_so(timer_class):
    class Forgetful(timer_class):
        def __init__(self):
            pass

    timer = Forgetful()
    with pytest.raises(RuntimeError, match=r"thread\.__init__\(\) not called"):
        timer.start()
    with pytest.raises(RuntimeError, match=r"Thread\.__init__\(\) not called"):
        timer.join()
    with pytest.raises(RuntimeError, match=r"Thread\.__init__\(\) not called"):
        timer.daemon = True
    for ask in (lambda: timer.daemon, timer.is_alive, lambda: repr(timer), lambda: timer.name):
        with pytest.raises(AssertionError):
            ask()


# ---- cancel and finished ---------------------------------------------------------------------------------------------


def test_finished_is_set_by_the_run_and_by_cancel(timer_class):
    timer = timer_class(0, lambda: None)
    finished = timer.finished
    assert isinstance(finished, threading.Event)
    assert not finished.is_set()
    run_to_end(timer)
    assert finished.is_set()
    assert timer.finished is finished
    cancelled = timer_class(FAR, print)
    cancelled.start()
    cancelled.cancel()
    assert cancelled.finished.is_set()
    cancelled.join(PATIENCE)
    unseen = timer_class(0, lambda: None)
    run_to_end(unseen)
    assert unseen.finished.is_set()


def test_finished_is_not_set_by_a_function_that_raises(timer_class, thread_errors):
    timer = timer_class(0, lambda: 1 / 0)
    run_to_end(timer)
    assert not timer.finished.is_set()
    assert len(thread_errors) == 1


@pytest.mark.parametrize("how", ["cancel", "finished"])
def test_a_timer_that_is_cancelled_before_its_start_never_runs(timer_class, how):
    got = []
    timer = timer_class(0, got.append, [1])
    timer.cancel() if how == "cancel" else timer.finished.set()
    run_to_end(timer)
    assert got == []
    assert timer.finished.is_set()


@pytest.mark.parametrize("looked", [False, True], ids=["", "finished is known"])
def test_to_set_finished_is_to_cancel(timer_class, looked):
    timer = timer_class(FAR, print)
    if looked:
        assert not timer.finished.is_set()
    timer.start()
    assert timer.is_alive()
    timer.finished.set()
    timer.join(PATIENCE)
    assert not timer.is_alive()


def test_who_waits_on_finished_hears_of_both_ends(timer_class):
    timer = timer_class(0.05, lambda: None)
    waiter = threading.Thread(target=timer.finished.wait, daemon=True)
    waiter.start()
    timer.start()
    waiter.join(PATIENCE)
    assert not waiter.is_alive()


def test_cancel_during_the_run_changes_nothing_but_finished(timer_class):
    begun, go, got = threading.Event(), threading.Event(), []

    def function():
        begun.set()
        go.wait(PATIENCE)
        got.append(timer.finished.is_set())

    timer = timer_class(0, function)
    timer.start()
    assert begun.wait(PATIENCE)
    timer.cancel()
    assert timer.is_alive()
    assert timer.finished.is_set()
    go.set()
    timer.join(PATIENCE)
    assert not timer.is_alive()
    assert got == [True]


def test_cancel_after_the_run_changes_nothing(timer_class):
    got = []
    timer = timer_class(0, got.append, [1])
    run_to_end(timer)
    timer.cancel()
    timer.finished.clear()
    timer.cancel()
    assert got == [1]
    assert not timer.is_alive()


@pytest.mark.parametrize("how", ["before the start", "while it waits"])
def test_finished_may_be_another_event(timer_class, how):
    got = []
    event = threading.Event()
    timer = timer_class(1.0, got.append, [1])
    if how == "before the start":
        timer.finished = event
        timer.start()
        event.set()
    else:
        timer.start()
        timer.finished = event
        event.set()  # its wait goes on, but there is nothing to be done at the end of it
    timer.join(PATIENCE)
    assert got == []
    assert not timer.is_alive()


def test_the_event_that_was_finished_still_ends_the_wait(timer_class):
    got = []
    timer = timer_class(FAR, got.append, [1])
    timer.start()
    before, timer.finished = timer.finished, threading.Event()
    before.set()
    timer.join(PATIENCE)
    assert not timer.is_alive()
    assert got == [1]  # for what is finished now is not set


def test_of_cancels_that_race_with_the_run_each_leaves_it_ended():
    ran = []
    timers = [Timer(0.05, ran.append, [number]) for number in range(300)]
    for timer in timers:
        timer.start()

    def cancel_all(index):
        time.sleep(0.045)
        for timer in timers:
            timer.cancel()

    run_threads(3, cancel_all)
    for timer in timers:
        timer.join(PATIENCE)
        assert not timer.is_alive()
        assert timer.finished.is_set()
    assert len(ran) == len(set(ran))
    timerheap.threading._heap.check()


# ---- what is read when -----------------------------------------------------------------------------------------------


def test_what_is_to_be_called_is_read_at_the_end_of_the_wait(timer_class):
    got = []
    timer = timer_class(1.0, got.append, ["before"])
    timer.start()
    timer.function = lambda *args, **kwargs: got.append((args, kwargs))
    timer.args = [1]
    timer.kwargs = {"key": 2}
    timer.args.append(3)
    timer.interval = FAR
    timer.join(PATIENCE)
    assert got == [((1, 3), {"key": 2})]


def test_interval_is_read_by_the_start(timer_class):
    got = []
    timer = timer_class(FAR, got.append, [1])
    timer.interval = 0
    run_to_end(timer)
    assert got == [1]


@pytest.mark.parametrize("interval", [0, -1, -0.5, True, 0.01, -FAR])
def test_intervals(timer_class, interval):
    got = []
    run_to_end(timer_class(interval, got.append, [1]))
    assert got == [1]


@pytest.mark.parametrize("interval", [None, 1e6, threading.TIMEOUT_MAX])
def test_long_intervals(timer_class, interval):
    timer = timer_class(interval, print)
    timer.start()
    timer.join(0.05)
    assert timer.is_alive()
    timer.cancel()
    timer.join(PATIENCE)
    assert not timer.is_alive()


@pytest.mark.parametrize("interval", [
    decimal.Decimal("0.01"), fractions.Fraction(1, 100), timedelta(milliseconds=10),
])  # fmt: skip
def test_intervals_that_only_a_heap_takes(interval):
    got = []
    run_to_end(Timer(interval, got.append, [1]))
    assert got == [1]


@pytest.mark.parametrize("interval", [float("inf"), 1e300])
def test_a_heap_waits_for_ever(interval):
    timer = Timer(interval, print)
    timer.start()
    timer.join(0.05)
    assert timer.is_alive()
    timer.cancel()
    assert not timer.is_alive()


@pytest.mark.parametrize("interval", ["1", b"1", 1j, []])
def test_what_is_no_interval_is_an_error_of_the_thread(timer_class, interval, thread_errors):
    got = []
    timer = timer_class(interval, got.append, [1])
    run_to_end(timer)
    assert got == []
    (error,) = thread_errors
    assert error.exc_type is TypeError
    assert error.thread is timer
    assert not timer.finished.is_set()


def test_nan_is_an_error_of_the_thread(thread_errors):
    timer = Timer(float("nan"), print)
    run_to_end(timer)
    assert [(error.exc_type, error.thread) for error in thread_errors] == [(ValueError, timer)]
    assert repr(timer.name) not in str(thread_errors[0].exc_value)
    assert timer.name in thread_errors[0].exc_value.__notes__[0]


@pytest.mark.parametrize(("name", "value"), [("args", None), ("args", 5), ("kwargs", [1]), ("function", None)])
def test_what_cannot_be_called_is_an_error_of_the_thread(timer_class, name, value, thread_errors):
    timer = timer_class(0, lambda *args: None)
    setattr(timer, name, value)
    run_to_end(timer)
    assert [(error.exc_type, error.thread) for error in thread_errors] == [(TypeError, timer)]


# ---- errors ----------------------------------------------------------------------------------------------------------


def test_what_the_function_raises_goes_to_the_excepthook(timer_class, thread_errors):
    error = KeyError("mine")

    def fail():
        raise error

    timer = timer_class(0, fail)
    run_to_end(timer)
    (args,) = thread_errors
    assert (args.exc_type, args.exc_value, args.thread) == (KeyError, error, timer)
    assert args.exc_traceback.tb_next.tb_frame.f_code.co_name in ("fail", "run", "_bootstrap_inner")


def test_the_hook_runs_as_the_timer_with_the_exception_as_the_current_one(timer_class, monkeypatch):
    got = []
    monkeypatch.setattr(
        threading,
        "excepthook",
        lambda args: got.append((threading.current_thread(), sys.exc_info()[1], args.exc_value)),
    )
    timer = timer_class(0, lambda: 1 / 0)
    run_to_end(timer)
    ((thread, current, given),) = got
    assert thread is timer
    assert current is given


def test_what_is_printed_of_an_error(timer_class, capsys, monkeypatch):
    monkeypatch.setattr(threading, "excepthook", threading.__excepthook__)
    timer = timer_class(0, lambda: 1 / 0)
    timer.name = "mine"
    run_to_end(timer)
    printed = capsys.readouterr().err
    assert printed.startswith("Exception in thread mine:\nTraceback")
    assert "ZeroDivisionError" in printed


def test_system_exit_is_silent(timer_class, capsys, monkeypatch):
    monkeypatch.setattr(threading, "excepthook", threading.__excepthook__)
    run_to_end(timer_class(0, sys.exit))
    assert capsys.readouterr().err == ""


def test_a_hook_that_raises_is_told_of(timer_class, monkeypatch, capsys):
    def hook(args):
        raise LookupError("of the hook")

    monkeypatch.setattr(threading, "excepthook", hook)
    got = []
    monkeypatch.setattr(sys, "excepthook", lambda kind, exc, tb: got.append((kind, exc.__suppress_context__)))
    run_to_end(timer_class(0, lambda: 1 / 0))
    assert got == [(LookupError, True)]
    assert "Exception in threading.excepthook:" in capsys.readouterr().err


def test_the_next_function_runs_after_one_that_raised(thread_errors):
    got = []
    timers = [Timer(0.01, lambda: 1 / 0), Timer(0.02, got.append, [1])]
    for timer in timers:
        timer.start()
    for timer in timers:
        timer.join(PATIENCE)
    assert got == [1]
    assert len(thread_errors) == 1


def test_a_thread_that_is_refused_leaves_the_timer_unstarted():
    run_ok("""if True:
        import threading
        from timerheap.threading import Timer
        got = []
        timer = Timer(0, got.append, [1])
        before = threading.stack_size(1 << 47)
        try:
            timer.start()
        except RuntimeError as exc:
            assert "can't start new thread" in str(exc), exc
        else:
            raise AssertionError("started")
        threading.stack_size(before)
        assert not timer.is_alive() and repr(timer).endswith("initial)>"), timer
        timer.start()
        timer.join()
        assert got == [1]
    """)


# ---- functions that block --------------------------------------------------------------------------------------------


def test_functions_that_wait_for_each_other_all_run(timer_class):
    together = threading.Barrier(8)
    got = []

    def function():
        together.wait(PATIENCE)
        me = threading.current_thread()
        got.append((me, me in threading.enumerate(), me.ident == threading.get_ident()))
        together.wait(PATIENCE)

    timers = [timer_class(0.01, function) for _ in range(together.parties)]
    for timer in timers:
        timer.start()
    for timer in timers:
        timer.join(PATIENCE)
        assert not timer.is_alive()
    assert {timer for timer, *_ in got} == set(timers)
    assert all(listed and same for _, listed, same in got)
    assert len({timer.ident for timer in timers}) == len(timers)
    wait_until(lambda: not set(timers) & set(threading.enumerate()))


def test_a_function_that_blocks_is_not_waited_for_by_its_neighbours(timer_class):
    go, got = threading.Event(), []
    blocked = timer_class(0.01, go.wait, [PATIENCE])
    neighbours = [timer_class(0.02, got.append, [number]) for number in range(20)]
    for timer in (blocked, *neighbours):
        timer.start()
    for timer in neighbours:
        timer.join(PATIENCE)
    assert sorted(got) == list(range(20))
    assert blocked.is_alive()
    assert not blocked.finished.is_set()
    go.set()
    blocked.join(PATIENCE)
    assert not blocked.is_alive()
    assert blocked.finished.is_set()


def test_a_function_may_join_another_timer(timer_class):
    got = []
    later = timer_class(0.2, got.append, ["later"])

    def function():
        later.join(PATIENCE)
        got.append("joined")

    first = timer_class(0.01, function)
    later.start()
    first.start()
    first.join(PATIENCE)
    assert got == ["later", "joined"]


def test_the_threads_of_functions_that_have_blocked_go():
    go = threading.Event()
    before = set(threading.enumerate())
    timers = [Timer(0, go.wait, [PATIENCE]) for _ in range(5)]
    for timer in timers:
        timer.start()
    wait_until(lambda: set(timers) <= set(threading.enumerate()))
    go.set()
    for timer in timers:
        timer.join(PATIENCE)
    # What stays is the worker, which may be another than before.
    wait_until(lambda: len(set(threading.enumerate()) - before) <= 1)
    run_to_end(Timer(0, lambda: None))
    timerheap.threading._heap.check()


# ---- what surrounds a function ---------------------------------------------------------------------------------------


def test_a_context_variable_is_as_in_a_thread(timer_class):
    variable = contextvars.ContextVar("variable", default="unset")
    variable.set("set")
    got = []
    inherits = getattr(sys.flags, "thread_inherit_context", False)
    for _ in range(2):
        run_to_end(timer_class(0, lambda: (got.append(variable.get()), variable.set("left"))))
    assert got == ["set" if inherits else "unset"] * 2


@pytest.mark.skipif(sys.version_info < (3, 14), reason="threads inherit contexts from Python 3.14 on")
@pytest.mark.parametrize("inherits", [0, 1])
def test_contexts_are_inherited_where_threads_inherit_them(inherits):
    out = run_ok("""if True:
        import contextvars, threading, timerheap.threading
        variable = contextvars.ContextVar("variable", default="unset")
        variable.set("set")
        for kind in (threading.Timer, timerheap.threading.Timer):
            timer = kind(0.2, lambda: print(variable.get()))
            timer.start()
            variable.set("set later")
            timer.join()
            variable.set("set")
    """, "-X", f"thread_inherit_context={inherits}")  # fmt: skip
    assert out.split() == ["set" if inherits else "unset"] * 2


@pytest.mark.parametrize("what", ["trace", "profile"])
def test_functions_are_watched_as_threads_are(timer_class, what):
    seen = []

    def watch(frame, event, arg):
        if frame.f_code.co_name == "watched_function":
            seen.append(threading.current_thread())

    def watched_function():
        pass

    set_for_all, get = getattr(threading, f"set{what}"), getattr(threading, f"get{what}")
    before = get()
    run_to_end(timer_class(0, watched_function))
    assert seen == []
    set_for_all(watch)
    try:
        timer = timer_class(0, watched_function)
        run_to_end(timer)
    finally:
        set_for_all(before)
    assert timer in seen
    seen.clear()
    run_to_end(timer_class(0, watched_function))
    assert seen == []


def test_a_trace_function_of_one_function_is_not_the_next_ones(timer_class):
    got = []
    run_to_end(timer_class(0, lambda: sys.settrace(lambda *args: None)))
    run_to_end(timer_class(0, lambda: got.append(sys.gettrace())))
    assert got == [threading.gettrace()]


# ---- subclasses ------------------------------------------------------------------------------------------------------


def repeating(timer_class):
    class RepeatTimer(timer_class):
        def run(self):
            while not self.finished.wait(self.interval):
                self.function(*self.args, **self.kwargs)

    return RepeatTimer


def test_the_recipe_that_repeats_has_a_thread(timer_class):
    got = []
    timer = repeating(timer_class)(0.01, lambda *args, **kwargs: got.append((args, kwargs)), [1], {"key": 2})
    timer.start()
    assert timer.ident is not None
    assert timer in threading.enumerate()
    wait_until(lambda: len(got) >= 3)
    with pytest.raises(RuntimeError):
        timer.start()
    timer.cancel()
    timer.join(PATIENCE)
    assert not timer.is_alive()
    count = len(got)
    assert got == [((1,), {"key": 2})] * count
    time.sleep(0.05)
    assert len(got) == count
    assert "stopped" in repr(timer)


def test_a_run_that_calls_its_parents(timer_class):
    got = []

    class Wrapped(timer_class):
        def run(self):
            got.append("before")
            super().run()
            got.append("after")

    run_to_end(Wrapped(0.01, got.append, ["run"]))
    assert got == ["before", "run", "after"]
    timer = Wrapped(FAR, got.append, ["never"])
    timer.daemon = True
    timer.name = "wrapped"
    timer.start()
    timer.cancel()
    timer.join(PATIENCE)
    assert got[3:] == ["before", "after"]
    assert (timer.daemon, timer.name) == (True, "wrapped")


def test_run_may_be_an_attribute(timer_class):
    got = []
    timer = timer_class(FAR, print)
    timer.run = lambda: got.append(threading.current_thread())
    run_to_end(timer)
    assert got == [timer]


def test_run_can_be_called_as_any_method(timer_class):
    got = []
    timer = timer_class(0.01, got.append, [1])
    timer.run()
    assert got == [1]
    assert timer.finished.is_set()


def test_methods_that_call_their_parents(timer_class):
    calls = []

    class Logged(timer_class):
        def __init__(self, interval):
            super().__init__(interval, self.work)
            self.daemon = True

        def start(self):
            calls.append("start")
            super().start()

        def cancel(self):
            calls.append("cancel")
            super().cancel()

        def join(self, timeout=None):
            calls.append("join")
            super().join(timeout)

        def work(self):
            calls.append("work")

    run_to_end(Logged(0.01))
    assert sorted(calls) == ["join", "start", "work"]
    timer = Logged(FAR)
    timer.start()
    timer.cancel()
    timer.join(PATIENCE)
    assert calls[3:] == ["start", "cancel", "join"]
    assert not timer.is_alive()


def test_a_subclass_may_have_a_finished_of_its_own(timer_class):
    class Own(timer_class):
        finished = threading.Event()

        def __init__(self, interval, function):
            super().__init__(interval, function)
            self.__dict__["finished"] = threading.Event()

    got = []
    timer = Own(FAR, lambda: got.append(1))
    timer.start()
    assert timer.is_alive()
    timer.cancel()
    timer.join(PATIENCE)
    assert not timer.is_alive()
    assert timer.finished.is_set()
    run_to_end(Own(0.01, lambda: got.append(2)))
    assert got == [2]


def test_a_subclass_that_makes_a_thread_of_itself(timer_class):
    class Bare(timer_class):
        def __init__(self, function):
            threading.Thread.__init__(self, name="bare", daemon=True)
            self.interval, self.function, self.args, self.kwargs = 0.01, function, [], {}
            self.finished = threading.Event()

    got = []
    timer = Bare(lambda: got.append(threading.current_thread().name))
    run_to_end(timer)
    assert got == ["bare"]


def test_init_makes_it_startable_again(timer_class):
    got = []
    timer = timer_class(0.01, got.append, [1])
    run_to_end(timer)
    timer.__init__(0.01, got.append, [2])
    assert not timer.finished.is_set()
    run_to_end(timer)
    assert got == [1, 2]


def test_init_calls_off_what_is_pending():
    got = []
    timer = Timer(1.0, got.append, [1])
    timer.daemon = False
    keeping = timerheap.threading._home.keeping
    timer.start()
    timer.__init__(1.0, got.append, [2])
    assert timerheap.threading._home.keeping == keeping
    run_to_end(timer)
    assert got == [2]


def test_a_timer_may_be_joined_by_what_interrupts_a_start():
    """A finalizer or a signal handler mostly; here it is the interval, which is read there as well."""
    go, order = threading.Event(), []

    class Interval:
        def __float__(self):
            go.set()
            blocked.join(PATIENCE)
            order.append(blocked.is_alive())
            return 0.0

    blocked = Timer(0, go.wait)
    blocked.start()
    wait_until(lambda: blocked.ident is not None)
    run_to_end(Timer(Interval(), order.append, ["ran"]))
    assert order == [False, "ran"]


def test_it_can_be_inherited_from_beside_others(timer_class):
    class Base:
        __slots__ = ("one", "other")

    class Both(timer_class, Base):
        pass

    got = []
    timer = Both(0, got.append, [1])
    timer.one = 1
    run_to_end(timer)
    assert got == [1]


# ---- memory ----------------------------------------------------------------------------------------------------------


def test_it_refuses_pickle_and_copy(timer_class):
    with pytest.raises(TypeError, match="cannot pickle"):
        pickle.dumps(timer_class(FAR, print))
    with pytest.raises(TypeError, match="cannot pickle"):
        copy.deepcopy(timer_class(FAR, print))
    with pytest.raises(TypeError, match="neither copied nor pickled"):
        copy.copy(Timer(FAR, print))


def test_a_subclass_may_say_how_it_is_pickled(timer_class):
    class Copied(timer_class):
        def __reduce__(self):
            return Copied, (self.interval, self.function)

    copied = copy.copy(Copied(FAR, print))
    assert (type(copied), copied.interval, copied.function) == (Copied, FAR, print)


def test_what_is_not_started_is_freed_at_once():
    timer = Timer(FAR, print)
    finished = timer.finished
    reference = weakref.ref(timer)
    del timer
    assert reference() is None
    finished.set()


def test_what_is_started_lives_until_it_has_run(timer_class):
    go = threading.Event()

    class Thing:
        def method(self):
            go.wait(PATIENCE)

    timer = timer_class(0.02, Thing().method)
    reference = weakref.ref(timer)
    timer.start()
    del timer
    gc.collect()
    assert reference() is not None
    go.set()
    wait_until(lambda: gc.collect() is None or reference() is None)


@pytest.mark.parametrize("end", ["run", "cancel"])
def test_what_is_over_pins_nothing(end):
    class Thing:
        def method(self):
            pass

    thing = Thing()
    timer = thing.timer = Timer(0 if end == "run" else FAR, thing.method)
    timer.start()
    if end == "cancel":
        timer.cancel()
    timer.join(PATIENCE)
    reference = weakref.ref(thing)
    del thing, timer
    wait_until(lambda: gc.collect() is None or reference() is None)


@asks_proc
@pytest.mark.skipif(bool(SANITIZER), reason="its runtime takes memory and threads of its own")
def test_many_pending_take_one_thread_and_little_memory():
    run_ok("""if True:
        import os, threading
        from timerheap.threading import Timer

        def resident():
            with open("/proc/self/statm") as file:
                return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

        count, function = 100_000, lambda: None
        timers = [Timer(3600, function)]
        before, threads = resident(), len(os.listdir("/proc/self/task"))
        timers[0].start()
        for _ in range(count):
            timer = Timer(3600, function)
            timer.start()
            timers.append(timer)
        each = (resident() - before) / count
        assert each < 700, each             # a threading.Timer has as much in its first Event
        more = len(os.listdir("/proc/self/task")) - threads
        assert 1 <= more <= 2, more         # the worker, and who stands by for it
        for timer in timers:
            timer.cancel()
        assert not any(timer.is_alive() for timer in timers)
    """)


# ---- the end of the program ------------------------------------------------------------------------------------------

KINDS = ["threading", "timerheap.threading"]


def outcomes(code, *flags, kinds=KINDS):
    """How a program ends with either class: (returncode, stdout, whether something stands in stderr)."""
    ends = []
    for module in kinds:
        done = run_python(
            f"import threading, time, sys, os\nfrom {module} import Timer\n" + inspect.cleandoc(code), *flags
        )
        ends.append((done.returncode, done.stdout, bool(done.stderr)))
        assert "Fatal" not in done.stderr, done.stderr
    return ends


AT_EXIT = {
    "non-daemon": ("Timer(0.3, print, ['ran']).start()", "ran\n"),
    "daemon": ("timer = Timer(3600, print, ['ran']); timer.daemon = True; timer.start(); print('end')", "end\n"),
    "cancelled": ("timer = Timer(3600, print, ['ran']); timer.start(); timer.cancel()", ""),
    "cancelled later": (
        """
        timer = Timer(3600, print, ['ran'])
        timer.start()
        Timer(0.3, timer.cancel).start()
        """, ""),
    "blocks": ("Timer(0.1, lambda: (time.sleep(0.4), print('ran'))).start()", "ran\n"),
    "raises": ("threading.excepthook = lambda args: print(args.exc_type.__name__)\nTimer(0.2, lambda: 1 / 0).start()",
               "ZeroDivisionError\n"),
    "a chain": (
        """
        def chain(left):
            print(left)
            if left:
                Timer(0.1, chain, [left - 1]).start()
        Timer(0.1, chain, [3]).start()
        """, "3\n2\n1\n0\n"),
    "of a thread that goes on": (
        """
        def later():
            time.sleep(0.3)
            Timer(0.3, print, ['ran']).start()
        threading.Thread(target=later).start()
        """, "ran\n"),
    "of a thread of a timer": (
        """
        def later():
            time.sleep(0.2)
            Timer(0.2, print, ['ran']).start()
        Timer(0.2, lambda: threading.Thread(target=later).start()).start()
        """, "ran\n"),
    "beside an executor": (
        """
        from concurrent.futures import ThreadPoolExecutor
        pool = ThreadPoolExecutor(1)
        pool.submit(print, 'submitted')
        Timer(0.3, print, ['ran']).start()
        """, "submitted\nran\n"),
    "an error in the main thread": ("Timer(0.3, print, ['ran']).start()\nraise KeyError('of main')", "ran\n"),
    "sys.exit": ("Timer(0.3, print, ['ran']).start()\nsys.exit(3)", "ran\n"),
    "the repeating recipe": (
        """
        class Repeat(Timer):
            def run(self):
                while not self.finished.wait(self.interval):
                    self.function()
        repeat = Repeat(0.05, lambda: None)
        repeat.start()
        Timer(0.3, lambda: (print('ran'), repeat.cancel())).start()
        """, "ran\n"),
}  # fmt: skip


BEGIN_THREADS_AT_THE_END = {"a chain", "of a thread that goes on", "of a thread of a timer"}


@pytest.mark.parametrize("case", AT_EXIT)
def test_the_program_waits_for_what_is_no_daemon(case):
    code, printed = AT_EXIT[case]
    standard, own = outcomes(code)
    if (3, 12, 0) <= sys.version_info < (3, 12, 3) and case in BEGIN_THREADS_AT_THE_END:
        # These begin no thread at the end of a program. A timer that asks for none may go on.
        assert own == standard or own[1:] == (printed, False)
    else:
        assert own == standard
        assert own[1] == printed


@pytest.mark.parametrize("module", KINDS)
def test_ctrl_c_breaks_out_of_the_wait_at_the_end(module):
    done = run_python(f"""if True:
        import threading, time
        from {module} import Timer
        def tell():
            while not threading._SHUTTING_DOWN:
                time.sleep(0.01)
            time.sleep(0.2)
            print("ready", flush=True)
        threading.Thread(target=tell, daemon=True).start()
        Timer(3600, print, ["never"]).start()
    """, send=signal.SIGINT)  # fmt: skip
    assert "KeyboardInterrupt" in done.stderr
    assert done.stdout == "ready\n"


def test_a_start_that_fails_at_the_end_keeps_no_program():
    out = run_ok("""if True:
        import threading, time
        from timerheap.threading import Timer

        class Interval:
            def __float__(self):
                raise LookupError

        def late():
            while not threading._SHUTTING_DOWN:
                time.sleep(0.01)
            time.sleep(0.2)
            timer = Timer(Interval(), print)
            try:
                timer.start()
            except (LookupError, RuntimeError):
                print(timer.is_alive())

        threading.Thread(target=late).start()
    """)
    assert out == "False\n"


def test_a_program_that_only_imports_ends_beside_what_others_wait_for():
    out = run_ok("""if True:
        import threading, timerheap.threading
        def last():
            threading.main_thread().join()
            print([thread.name for thread in threading.enumerate() if thread is not threading.current_thread()])
        threading.Thread(target=last).start()
    """)
    assert out in ("['MainThread']\n", "[]\n")


# ---- fork ------------------------------------------------------------------------------------------------------------

FORKS = {
    "pending": ("""
        timer = Timer(2.0, lambda: os.write(1, b'ran\\n'))
        timer.start()
        pid = os.fork()
        if pid == 0:
            os.write(1, repr((timer.is_alive(), timer.join(), timer.cancel())).encode() + b'\\n')
            try:
                timer.start()
            except RuntimeError as exc:
                os.write(1, str(exc).encode() + b'\\n')
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        timer.join()
        """, "(False, None, None)\nthreads can only be started once\nran\n"),
    "not started": ("""
        timer = Timer(0.05, lambda: os.write(1, b'ran\\n'))
        Timer(0.1, lambda: None).start()
        pid = os.fork()
        if pid == 0:
            timer.start()
            timer.join()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        os.write(1, repr(timer.is_alive()).encode())
        timer.start()
        timer.join()
        """, "ran\nFalseran\n"),
    "the child waits for its own": ("""
        Timer(0.2, lambda: None).start()
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            Timer(0.2, lambda: print('child')).start()
            sys.exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        """, "child\n"),
    "in a function": ("""
        def function():
            pid = os.fork()
            if pid == 0:
                os.write(1, repr((timer.is_alive(), other.is_alive(), timer.finished.is_set())).encode() + b'\\n')
                again = Timer(0.05, lambda: os.write(1, b'child\\n'))
                again.start()
                again.join()
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
            os.write(1, repr(threading.current_thread() is timer).encode() + b'\\n')
        other = Timer(3600, print)
        timer = Timer(0.05, function)
        other.start()
        timer.start()
        timer.join()
        other.cancel()
        other.join()
        """, "(True, False, False)\nchild\nTrue\n"),
    "while functions block": ("""
        go = threading.Event()
        blocked = [Timer(0.01, go.wait) for _ in range(3)]
        for timer in blocked:
            timer.start()
        while not set(blocked) <= set(threading.enumerate()) or not all(timer.ident for timer in blocked):
            time.sleep(0.01)
        pid = os.fork()
        if pid == 0:
            again = Timer(0.01, lambda: os.write(1, repr([timer.is_alive() for timer in blocked]).encode() + b'\\n'))
            again.start()
            again.join()
            for timer in blocked:
                timer.join()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        go.set()
        for timer in blocked:
            timer.join()
        os.write(1, b'joined\\n')
        """, "[False, False, False]\njoined\n"),
    "in a function that has blocked": ("""
        def function():
            time.sleep(0.3)
            pid = os.fork()
            if pid == 0:
                os.write(1, repr((timer.is_alive(), timer.finished.is_set())).encode() + b'\\n')
                again = Timer(0.05, lambda: os.write(1, b'child\\n'))
                again.start()
                again.join()
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
            os.write(1, repr(threading.current_thread() is timer).encode() + b'\\n')
        timer = Timer(0.01, function)
        timer.start()
        timer.join()
        """, "(True, False)\nchild\nTrue\n"),
    "in a function that returns": ("""
        def function():
            global pid
            pid = os.fork()
            os.write(1, b'child\\n' if pid == 0 else b'')
        timer = Timer(0.05, function)
        timer.start()
        timer.join()
        assert os.waitpid(pid, 0)[1] == 0
        os.write(1, b'parent\\n')
        """, "child\nparent\n"),
    "and made anew": ("""
        timer = Timer(3600, print)
        timer.start()
        pid = os.fork()
        if pid == 0:
            timer.__init__(0.2, lambda: print('child'))
            timer.start()
            sys.exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        timer.cancel()
        """, "child\n"),
    "by multiprocessing": ("""
        import multiprocessing
        def child():
            Timer(0.1, lambda: os.write(1, b'child\\n')).start()
        Timer(0.1, lambda: None).start()
        process = multiprocessing.get_context('fork').Process(target=child)
        process.start()
        process.join()
        assert process.exitcode == 0, process.exitcode
        """, "child\n"),
}  # fmt: skip


@pytest.mark.parametrize("case", FORKS)
def test_a_fork(case):
    code, printed = FORKS[case]
    [own] = outcomes(code, "-W", "ignore", kinds=KINDS[1:])
    assert own == (0, printed, False)
    if FREE_THREADED:
        return  # there a child of the standard one may wait for ever for a thread that was starting
    [standard] = outcomes(code, "-W", "ignore", kinds=KINDS[:1])
    if case == "not started" and sys.version_info[:2] == (3, 13):
        # There a fork may leave a thread behind that cannot be started.
        assert standard in (own, (1, "", True))
    else:
        assert standard == own


def test_a_function_that_forked_cannot_join_itself_in_the_child():
    out = run_ok("""if True:
        import os
        from timerheap.threading import Timer
        def function():
            pid = os.fork()
            if pid == 0:
                try:
                    timer.join()
                except RuntimeError as exc:
                    os.write(1, str(exc).encode())
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
        timer = Timer(0, function)
        timer.start()
        timer.join()
    """, "-W", "ignore")  # fmt: skip
    assert out == "cannot join current thread"


# ---- under threading's name ------------------------------------------------------------------------------------------


@pytest.fixture
def installed():
    timerheap.threading.install()
    yield
    timerheap.threading.uninstall()
    assert threading.Timer is STANDARD


def test_install_and_uninstall(installed):
    before = STANDARD(FAR, print)
    assert threading.Timer is Timer
    timerheap.threading.install()
    assert type(threading.Timer(FAR, print)) is Timer
    assert type(before) is STANDARD
    assert isinstance(threading.Timer(FAR, print), STANDARD)
    timerheap.threading.uninstall()
    assert threading.Timer is STANDARD
    timerheap.threading.uninstall()
    assert threading.Timer is STANDARD


def test_many_may_install_at_a_time(installed):
    for _ in range(50):
        run_threads(4, lambda index: timerheap.threading.install())
        assert threading.Timer is Timer
        run_threads(4, lambda index: timerheap.threading.uninstall())
        assert threading.Timer is STANDARD


def test_uninstall_gives_back_what_was_there_and_leaves_alone_what_came_later(monkeypatch):
    class Other(STANDARD):
        pass

    monkeypatch.setattr(threading, "Timer", Other)
    timerheap.threading.install()
    assert threading.Timer is Timer
    timerheap.threading.uninstall()
    assert threading.Timer is Other
    timerheap.threading.install()
    threading.Timer = STANDARD
    timerheap.threading.uninstall()
    assert threading.Timer is STANDARD


@pytest.mark.skipif(
    importlib.util.find_spec("test") is None or importlib.util.find_spec("test.test_threading") is None,
    reason="this Python comes without its test package",
)
def test_the_tests_of_cpython_pass_with_the_name_swapped():
    done = run_python("""if True:
        import unittest
        import timerheap.threading
        timerheap.threading.install()
        from test import test_threading
        assert test_threading.threading.Timer is timerheap.threading.Timer
        tests = unittest.defaultTestLoader.loadTestsFromTestCase(test_threading.TimerTests)
        assert tests.countTestCases() > 0
        result = unittest.TextTestRunner().run(tests)
        assert result.testsRun > 0 and result.wasSuccessful()
    """, "-W", "ignore")  # fmt: skip
    assert done.returncode == 0, done


# ---- the same script on both -----------------------------------------------------------------------------------------


class Script:
    """Random calls on one timer, in three acts: before its start, while it waits, and after. What each comes to is
    written down, and has to be the same for either class.

    A timer whose wait is FAR has no third act of its own accord: it is cancelled at the end of the second.
    """

    def __init__(self, timer_class, seed):
        self.choose = random.Random(seed)
        self.log = []
        self.far = self.choose.random() < 0.5
        self.timer_class = timer_class

    def function(self, *args, **kwargs):
        self.log.append(("called", args, tuple(kwargs.items()), threading.current_thread() is self.timer))
        if args and args[0] == "raise":
            raise LookupError

    def other_function(self, *args, **kwargs):
        self.log.append(("the other called", args, tuple(kwargs.items())))

    def call(self, name, func, *args):
        try:
            result = func(*args)
        except Exception as exc:
            result = type(exc), str(exc)
        self.log.append((name, result))

    def settle(self):
        """After a cancel: a thread takes a moment to notice."""
        if self.timer.is_alive() and self.timer.finished.is_set():
            self.timer.join(PATIENCE)

    def act(self, steps):
        timer = self.timer
        for _ in range(self.choose.randrange(steps)):
            what = self.choose.choice(
                ["cancel", "finished", "set", "alive", "function", "args", "kwargs", "append", "daemon", "name", "join"]
            )
            if what in ("cancel", "set"):
                if self.choose.random() < 0.3:
                    self.call(what, timer.cancel if what == "cancel" else timer.finished.set)
                    if timer.is_alive():
                        self.settle()
            elif what == "finished":
                self.call(what, timer.finished.is_set)
            elif what == "alive":
                self.call(what, timer.is_alive)
            elif what == "function":
                timer.function = self.choose.choice([self.function, self.other_function])
            elif what == "args":
                timer.args = self.choose.choice([(), [1], ("raise",), None])
            elif what == "kwargs":
                timer.kwargs = self.choose.choice([{}, {"key": 1}, None])
            elif what == "append":
                self.call(what, lambda: timer.args.append(2))
            elif what == "daemon":
                self.call(what, setattr, timer, "daemon", self.choose.choice([False, True]))
            elif what == "name":
                timer.name = self.choose.choice(["one", "other"])
            elif what == "join":
                self.call(what, timer.join, 0)

    def first(self, window):
        args = self.choose.choice([None, [], [1], ("raise",)])
        kwargs = self.choose.choice([None, {}, {"key": 1}])
        self.timer = self.timer_class(FAR if self.far else window, self.function, args, kwargs)
        self.timer.name = "script"
        self.act(6)
        self.call("start", self.timer.start)
        if self.timer.finished.is_set():
            self.settle()

    def second(self):
        self.act(6)
        if self.choose.random() < 0.2:
            self.call("start again", self.timer.start)
        if self.far:
            self.call("cancel", self.timer.cancel)

    def third(self):
        self.call("join", self.timer.join, PATIENCE)
        self.act(6)
        self.call("start again", self.timer.start)
        status = repr(self.timer).split()
        self.log += [
            self.timer.is_alive(),
            self.timer.finished.is_set(),
            self.timer.daemon,
            status[0],
            status[1].rstrip(")>"),
        ]


def play(timer_class, seeds, window):
    """The scripts' logs; None where the machine was so busy that a wait may have ended before the second act had."""
    scripts = [Script(timer_class, seed) for seed in seeds]
    start = time.monotonic()
    for script in scripts:
        script.first(window)
    for script in scripts:
        script.second()
    in_time = time.monotonic() - start < 0.8 * window
    for script in scripts:
        script.third()
    return [script.log for script in scripts] if in_time else None


def test_random_scripts_come_to_the_same_on_both(thread_errors):
    base = random.randrange(2**32)
    for group in range(3):
        seeds = range(base + 60 * group, base + 60 * (group + 1))
        logs = []
        for timer_class in (STANDARD, Timer):
            window, log = 0.5, None
            while log is None:
                window *= 2
                assert window < PATIENCE
                thread_errors.clear()
                log = play(timer_class, seeds, window)
            logs.append(log)
            logs.append(sorted((error.exc_type.__name__, str(error.exc_value)) for error in thread_errors))
        standard, standard_errors, own, own_errors = logs
        for seed, expected, got in zip(seeds, standard, own, strict=True):
            assert got == expected, f"seed {seed}"
        assert own_errors == standard_errors
    assert timerheap.threading._home.keeping == 0
    timerheap.threading._heap.check()
