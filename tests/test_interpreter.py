"""What the core takes for granted of the inside of CPython, looked at on the interpreter that runs this, and what the
package does where it is otherwise."""

import asyncio
import collections.abc
import concurrent.futures
import concurrent.futures.thread
import ctypes
import sys
import threading
import tracemalloc
import types
from _collections_abc import AsyncGenerator, Coroutine, Generator

import pytest
from helpers import FAR, FREE_THREADED, PATIENCE, SANITIZER, run_ok

from timerheap import AfterFunc, Ticker, Timer, TimerHeap, _core, after, sleep, tick
from timerheap._core import Worker
from timerheap.testing import ManualHeap

HANDLE_BYTES = 64
HOT = 2000  # calls in one place, after which an interpreter has a quicker way for them


def worker_of(heap):
    [worker] = [thread for thread in threading.enumerate() if thread.name == heap.name]
    return worker


# The collector's header, which the core makes by hand.


def test_handles_have_their_own_memory_where_the_header_is_as_expected(manual):
    count = 1000
    kept = [None] * count
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for n in range(count):
        kept[n] = AfterFunc(FAR, print, heap=manual)
    from_cpython = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    if FREE_THREADED or SANITIZER == "asan":
        assert from_cpython >= count * HANDLE_BYTES
    else:
        assert from_cpython < count * HANDLE_BYTES // 2


def test_where_the_header_is_another_one_handles_come_from_cpython():
    """Told of 8 bytes more than there are, the core leaves the memory of handles to CPython, and all goes on."""
    run_ok(f"""
        import gc, sys, threading, tracemalloc, weakref
        size = sys.getsizeof
        sys.getsizeof = lambda o: size(o) + 8
        from timerheap import AfterFunc, TimerHeap
        sys.getsizeof = size

        class Owner:
            def callback(self):
                pass

        heap, count, begun = TimerHeap(), 1000, threading.Event()
        kept = [None] * count
        AfterFunc(0, begun.set, heap=heap)
        assert begun.wait({PATIENCE})   # a thread that starts while tracemalloc stops may crash older CPythons
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        for n in range(count):
            kept[n] = AfterFunc({FAR}, print, heap=heap)
        assert tracemalloc.get_traced_memory()[0] - before >= count * {HANDLE_BYTES}
        tracemalloc.stop()
        assert all(timer.stop() for timer in kept[::2])
        kept.clear()
        gc.collect()
        heap.check()
        assert len(heap) == count // 2      # orphans

        owner, fired = Owner(), threading.Event()
        owner.timer = AfterFunc(0, owner.callback, heap=heap)
        AfterFunc(0, fired.set, heap=heap)
        assert fired.wait({PATIENCE})
        owner = weakref.ref(owner)
        gc.collect()
        assert owner() is None
        heap.close()
    """)


# The GIL, which workers ask its holder to drop.


def test_the_gil_and_its_holder_are_where_they_are_expected():
    """What is left where they are not: test_computing.py."""
    assert _core.ASKS_FOR_GIL != FREE_THREADED


# Contexts, whose variables the handles of event loops share.


def test_contexts_are_as_they_are_expected():
    assert _core.SHARES_CONTEXTS != FREE_THREADED


def test_where_contexts_are_laid_out_otherwise_each_handle_has_its_copy():
    """Told of 8 bytes more than there are, the core takes nothing for granted."""
    run_ok("""
        import asyncio, contextvars, gc, sys
        size = sys.getsizeof
        sys.getsizeof = lambda o: size(o) + 8
        import timerheap.asyncio
        sys.getsizeof = size
        assert not timerheap._core.SHARES_CONTEXTS

        var, seen = contextvars.ContextVar("var", default=0), []

        def callback():
            seen.append(var.get())
            var.set(2)

        async def main():
            var.set(1)
            handles = [asyncio.get_running_loop().call_later(0, callback) for _ in range(10)]
            contexts = [handle._context for handle in handles]
            assert len({id(context) for context in contexts}) == 10
            await asyncio.sleep(0.01)
            assert seen == [1] * 10
            assert [context[var] for context in contexts] == [2] * 10
            held = [asyncio.get_running_loop().call_later(3600, int) for _ in range(100)]
            gc.collect()
            assert all(type(handle._context) is contextvars.Context for handle in held)

        timerheap.asyncio.run(main())
        gc.collect()
    """)


# threading's list, and the Worker in it.


def test_threads_are_listed_in_a_dict_by_their_number():
    assert type(threading._active) is dict
    assert threading._active[threading.get_ident()] is threading.current_thread()


def test_where_threads_are_listed_otherwise_a_worker_is_not_listed():
    run_ok(f"""
        import collections, threading
        threading._active = collections.UserDict(threading._active)
        from timerheap import AfterFunc, TimerHeap
        with TimerHeap("unlisted") as heap:
            fired = threading.Event()
            AfterFunc(0, fired.set, heap=heap)
            assert fired.wait({PATIENCE})
            assert [thread.name for thread in threading.enumerate()] == ["MainThread"]
    """)


def functions_of(thing):
    """The functions behind an attribute of a class."""
    if isinstance(thing, property):
        return [function for function in (thing.fget, thing.fset) if function is not None]
    return [thing] if isinstance(thing, types.FunctionType) else []


def test_a_worker_has_what_thread_reads_of_it(heap):
    """Worker does without Thread.__init__ and start: so what the methods that it inherits go by has to be there."""
    AfterFunc(FAR, print, heap=heap)
    worker = worker_of(heap)
    assert vars(threading.Thread()).keys() >= {"_initialized", "_daemonic", "_started", "_name", "_ident"}
    inherited = [name for name in vars(threading.Thread) if name not in vars(Worker)]
    reached = [name for name in inherited if not name.startswith("_") and name != "run"]
    assert {"name", "ident", "daemon"} <= set(reached)
    for name in reached:  # which grows
        for function in functions_of(vars(threading.Thread)[name]):
            for used in function.__code__.co_names:
                if used.startswith("_"):
                    assert hasattr(worker, used) or hasattr(threading, used), (name, used)
                if used in inherited and used not in reached:
                    reached.append(used)


def test_what_threading_asks_of_its_threads_after_a_fork_a_worker_answers():
    asked = {name for name in threading._after_fork.__code__.co_names if hasattr(threading.Thread, name)}
    assert asked
    assert asked <= vars(Worker).keys()


def test_thread_is_the_base_of_threading_timer():
    """By which it is found where a program has replaced the name."""
    assert threading.Timer.__mro__[1] is threading.Thread


# The worker's thread state, which no code of threading's makes.


def test_a_worker_has_the_thread_state_and_the_number_that_cpython_finds(heap):
    """What comes back into Python from foreign code takes the state that the thread has."""
    find = ctypes.pythonapi.PyGILState_GetThisThreadState
    find.restype = ctypes.c_void_p
    comparison = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_int))
    seen, done = {}, threading.Event()

    def callback():
        seen["state"] = find()
        numbers = (ctypes.c_int * 5)(3, 1, 4, 1, 5)
        compare = comparison(lambda a, b: seen.setdefault("within", find()) and a[0] - b[0])
        ctypes.CDLL(None).qsort(numbers, 5, ctypes.sizeof(ctypes.c_int), compare)
        seen["sorted"] = list(numbers)
        seen["number"] = threading.get_ident()
        seen["frames"] = sys._current_frames()
        done.set()

    AfterFunc(0, callback, heap=heap)
    assert done.wait(PATIENCE)
    assert seen["state"] is not None
    assert seen["within"] == seen["state"]
    assert seen["sorted"] == [1, 1, 3, 4, 5]
    assert seen["number"] == worker_of(heap).ident
    assert seen["number"] in seen["frames"]


# The end of a program.


def test_threading_says_when_the_program_begins_to_end():
    out = run_ok("""
        import atexit, threading
        import timerheap

        def outlast():
            threading.main_thread().join()
            print(threading._SHUTTING_DOWN, flush=True)

        print(threading._SHUTTING_DOWN, flush=True)
        atexit.register(lambda: print(threading._SHUTTING_DOWN, flush=True))
        threading.Thread(target=outlast).start()
    """)
    assert out.split() == ["False", "True", "True"]


@pytest.mark.parametrize("known", [True, False])
def test_what_a_pool_refuses_at_the_end_is_an_error_only_where_the_end_is_not_known(known):
    """Where threading does not say that the program ends, on_error gets one error more; that is all."""
    out = run_ok(f"""
        import threading
        from concurrent.futures import ThreadPoolExecutor
        from timerheap import AfterFunc, TimerHeap

        def tell(exc, timer):
            print(exc, flush=True)
            told.set()

        def due():
            if not {known}:
                del threading._SHUTTING_DOWN
            AfterFunc(0, int, heap=heap)
            told.wait({0.5 if known else PATIENCE})

        told, pool = threading.Event(), ThreadPoolExecutor(1)
        pool.submit(int).result()
        heap = TimerHeap(executor=pool, on_error=tell)
        threading._threading_atexits.insert(0, due)     # the last of them: the pool has ended before
    """)
    assert ("cannot schedule" in out) == (not known), out


def test_the_threads_of_pools_are_listed():
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        thread = pool.submit(threading.current_thread).result(PATIENCE)
        assert thread in concurrent.futures.thread._threads_queues


def test_futures_of_asyncio_are_told_from_others():
    marker = "_asyncio_future_blocking"
    assert marker in asyncio.isfuture.__code__.co_names
    assert getattr(asyncio.Future, marker, None) is not None
    assert getattr(concurrent.futures.Future, marker, None) is None


def test_a_fork_beside_a_thread_is_a_warning_from_3_12_on():
    out = run_ok("""
        import os, threading, warnings
        go_on = threading.Event()
        thread = threading.Thread(target=go_on.wait)
        thread.start()
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            pid = os.fork()
            if pid == 0:
                os._exit(0)
        os.waitpid(pid, 0)
        go_on.set()
        thread.join()
        print(*[warning.category.__name__ for warning in seen])
    """)
    assert out.split() == (["DeprecationWarning"] if sys.version_info >= (3, 12) else [])


# Slots of types and functions that the core has changed after Cython made them.


CALLS = {
    "tp_vectorcall of Timer": (Timer, r"^Timer\(\) needs"),
    "tp_vectorcall of Ticker": (Ticker, r"^Ticker\(\) needs"),
    "tp_new of Timer": (lambda: Timer.__new__(Timer), r"^Timer\(\) needs"),
    "tp_new of Ticker": (lambda: Ticker.__new__(Ticker), r"^Ticker\(\) needs"),
    "tp_init of TimerHeap": (lambda: TimerHeap("one", "two"), r"^TimerHeap\(\) "),
    "tp_init of ManualHeap": (lambda: ManualHeap(0, 1), r"^ManualHeap\(\) "),
    "ml_meth of after": (after, r"^after\(\) needs"),
    "ml_meth of tick": (tick, r"^tick\(\) needs"),
    "ml_meth of sleep": (sleep, r"^sleep\(\) needs"),
}


@pytest.mark.parametrize("slot", CALLS)
def test_a_changed_slot_is_called_however_often(slot):
    call, message = CALLS[slot]
    for _ in range(HOT):
        with pytest.raises(TypeError, match=message):
            call()
    for delay in (0, 1) * 2:
        assert after(delay) is not None


def test_a_name_of_others_is_found_however_often_and_listed_nowhere(manual):
    """tp_mro has a class that is no base."""
    timer = Timer(FAR, heap=manual)
    assert Timer.__bases__ == (object,)
    assert [cls.__name__ for cls in Timer.__mro__] == ["Timer", "Misnomers", "object"]
    assert "cancel" not in dir(timer)
    for _ in range(HOT):
        assert timer.active
        with pytest.raises(AttributeError, match=r"stop\(\) cancels a timer"):
            timer.cancel()
    assert not hasattr(Timer, "cancel")


def test_what_cannot_be_iterated_says_so_and_has_no_method_for_it(manual):
    """tp_iter is set without its name."""
    timer = Timer(FAR, heap=manual)
    assert not hasattr(Timer, "__iter__")
    assert not isinstance(timer, collections.abc.Iterable)
    messages = set()
    for _ in range(HOT):
        with pytest.raises(TypeError) as raised:
            iter(timer)
        messages.add(str(raised.value))
    [message] = messages
    assert "timer.c" in message or "Ticker" in message


def test_the_kinds_of_what_can_be_suspended_are_those_of_collections_abc():
    """They are taken from where collections.abc has them, which is imported at every start."""
    assert Coroutine is collections.abc.Coroutine
    assert Generator is collections.abc.Generator
    assert AsyncGenerator is collections.abc.AsyncGenerator
