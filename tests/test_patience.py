"""A heap with patience: what blocks costs a thread, not its neighbours.

Most tests need no clock: a callback that can only return once its neighbour has run ends because the post has been
handed over, or not at all.
"""

import contextvars
import gc
import threading
import weakref

import pytest
from helpers import FAR, FREE_THREADED, PATIENCE, Background, balance, run_ok, wait_until

from timerheap import AfterFunc, TimerHeap, sleep

SHORT = 0.005


@pytest.fixture
def heap():
    with TimerHeap("patient", patience=SHORT) as heap:
        yield heap
        heap.check()
        assert balance(heap) == 0


class Blocker:
    """Callbacks that wait until they are let go."""

    def __init__(self):
        self._go = threading.Event()
        self._lock = threading.Lock()
        self.begun, self.ended, self.threads = [], [], []

    def __call__(self, what=None):
        with self._lock:
            self.begun.append(what)
            self.threads.append(threading.current_thread())
        assert self._go.wait(PATIENCE), "nobody has let it go"
        with self._lock:
            self.ended.append(what)

    def let_go(self):
        self._go.set()


@pytest.fixture
def blocker():
    blocker = Blocker()
    yield blocker
    blocker.let_go()


def workers(name="patient"):
    return [thread for thread in threading.enumerate() if thread.name == name]


def settled(heap, threads):
    """That it has come down, or up, to so many."""
    wait_until(lambda: heap.stats()["threads"] == threads)


def test_what_blocks_does_not_hold_up_its_neighbour(heap, blocker):
    ran = threading.Event()
    AfterFunc(0, blocker, heap=heap)
    AfterFunc(0, ran.set, heap=heap)
    assert ran.wait(PATIENCE)
    assert blocker.begun == [None]
    assert blocker.ended == []
    assert heap.stats()["handovers"] == 1


def test_what_is_armed_later_runs_as_well(heap, blocker):
    AfterFunc(0, blocker, heap=heap)
    wait_until(lambda: heap.stats()["handovers"] == 1)
    for _ in range(3):
        ran = threading.Event()
        AfterFunc(0.001, ran.set, heap=heap)
        assert ran.wait(PATIENCE)
    assert blocker.ended == []


def test_a_standby_that_sleeps_is_roused(heap, blocker):
    AfterFunc(0, int, heap=heap)
    settled(heap, 2)
    sleep(0.1)  # it looks once or twice more, and then for ever
    ran = threading.Event()
    AfterFunc(0, blocker, heap=heap)
    AfterFunc(0, ran.set, heap=heap)
    assert ran.wait(PATIENCE)
    assert blocker.ended == []


def test_who_has_lost_the_run_launches_no_more():
    """What takes less than the heap's patience never overlaps."""
    blocker = Blocker()
    running, overlapping = [], []

    def nap(what):
        running.append(what)
        if len(running) > 1:
            overlapping.append(tuple(running))
        if what == 20:
            blocker.let_go()
        sleep(0.002)
        running.remove(what)

    with TimerHeap(patience=0.3) as heap:
        AfterFunc(0.01, blocker, heap=heap)
        for what in range(200):
            AfterFunc(0.01, nap, what, heap=heap)
        wait_until(lambda: len(heap) == 0 and not running)
        assert heap.stats()["handovers"] > 0
        assert overlapping == [] or heap.stats()["handovers"] > 1


def test_each_that_blocks_costs_a_thread_while_it_does(heap, blocker):
    for what in range(5):
        AfterFunc(0, blocker, what, heap=heap)
    wait_until(lambda: len(blocker.begun) == 5)
    settled(heap, 7)  # with the one that has the post, and the standby
    assert len(set(blocker.threads)) == 5
    assert len(workers()) == 6
    blocker.let_go()
    settled(heap, 2)
    wait_until(lambda: len(workers()) == 1)
    assert sorted(blocker.ended) == [0, 1, 2, 3, 4]


def test_launches_stay_in_order_and_each_is_one(heap, blocker):
    begun = []

    def call(what):
        begun.append(what)
        if what % 10 == 0:
            blocker(what)

    for what in range(60):
        AfterFunc(0.02, call, what, heap=heap)
    wait_until(lambda: len(begun) == 60)
    assert begun == list(range(60))
    blocker.let_go()
    settled(heap, 2)
    assert heap.stats()["fired"] == 60
    assert begun == list(range(60))


def test_what_returns_in_time_loses_nothing():
    with TimerHeap(patience=PATIENCE) as heap:
        for _ in range(5):
            done = threading.Event()
            AfterFunc(0, sleep, 0.01, heap=heap)
            AfterFunc(0, done.set, heap=heap)
            assert done.wait(PATIENCE)
        assert heap.stats()["handovers"] == 0
        settled(heap, 2)


def test_patience_begins_anew_with_each_callback():
    """Together they take longer."""
    done = threading.Event()
    with TimerHeap(patience=1.0) as heap:
        for _ in range(30):
            AfterFunc(0.01, sleep, 0.05, heap=heap)
        AfterFunc(0.02, done.set, heap=heap)
        assert done.wait(PATIENCE)
        assert heap.stats()["handovers"] == 0


@pytest.mark.parametrize("patience", [None, float("inf")])
def test_without_patience_there_is_one_thread_and_neighbours_wait(blocker, patience):
    with TimerHeap("one", patience=patience) as heap:
        ran = threading.Event()
        AfterFunc(0, blocker, heap=heap)
        AfterFunc(0, ran.set, heap=heap)
        assert not ran.wait(0.3)
        assert heap.stats()["threads"] == 1
        assert len(workers("one")) == 1
        blocker.let_go()
        assert ran.wait(PATIENCE)
        assert heap.stats()["handovers"] == 0


def test_a_heap_with_patience_has_one_thread_until_it_fires(heap):
    AfterFunc(FAR, int, heap=heap)
    assert heap.stats()["threads"] == 1


def test_what_is_still_due_can_be_stopped_while_another_blocks():
    blocker = Blocker()
    with TimerHeap(patience=1.0) as heap:
        AfterFunc(0.01, blocker, heap=heap)
        never = AfterFunc(0.01, pytest.fail, heap=heap)
        ran = threading.Event()
        AfterFunc(0.01, ran.set, heap=heap)
        wait_until(lambda: blocker.begun)
        assert never.stop()
        assert ran.wait(PATIENCE)
        blocker.let_go()


def test_a_callback_that_computes_is_handed_over_too(heap):
    ran = threading.Event()

    def compute():
        while not ran.is_set():
            sum(range(100))

    AfterFunc(0, compute, heap=heap)
    AfterFunc(0, ran.set, heap=heap)
    assert ran.wait(PATIENCE)


@pytest.mark.skipif(FREE_THREADED, reason="the thread that made an object finalizes it there, not the worker")
def test_a_finalizer_that_blocks_is_handed_over_too(heap, blocker):
    class Dies:
        def __call__(self):
            pass

        def __del__(self):
            blocker()

    ran = threading.Event()
    AfterFunc(0.3, Dies(), heap=heap)  # not before the call has returned: the last reference is to be the worker's
    AfterFunc(0.3, ran.set, heap=heap)
    assert ran.wait(PATIENCE)
    assert blocker.begun == [None]
    assert blocker.ended == []


def test_close_waits_for_all_that_run(heap, blocker):
    for what in range(3):
        AfterFunc(0, blocker, what, heap=heap)
    wait_until(lambda: heap.stats()["handovers"] == 3)
    closing = Background(heap.close)
    wait_until(lambda: heap.closed)
    sleep(0.05)
    assert closing.running
    blocker.let_go()
    closing.result()
    assert len(blocker.ended) == 3
    assert heap.stats()["threads"] == 0
    assert not workers()


def test_nothing_begins_after_close(heap, blocker):
    fired = []
    AfterFunc(0, blocker, heap=heap)
    wait_until(lambda: heap.stats()["handovers"] == 1)
    timers = [AfterFunc(0.01, fired.append, i, heap=heap) for i in range(1000)]
    closing = Background(heap.close)
    wait_until(lambda: heap.closed)
    wait_until(lambda: heap.stats()["threads"] <= 1)  # the one in the callback
    after = len(fired)
    blocker.let_go()
    closing.result()
    assert len(fired) == after
    assert not any(timer.active for timer in timers)


def test_a_callback_that_has_lost_the_post_may_close_the_heap(heap):
    closed = threading.Event()
    going = threading.Event()

    def close():
        going.wait(PATIENCE)
        heap.close()
        closed.set()

    AfterFunc(0, close, heap=heap)
    wait_until(lambda: heap.stats()["handovers"] == 1)
    going.set()
    assert closed.wait(PATIENCE)
    settled(heap, 0)


def test_two_callbacks_may_close_their_heap_at_once(heap):
    both = threading.Barrier(2)
    closed = []

    def close():
        both.wait(PATIENCE)
        heap.close()
        closed.append(True)

    AfterFunc(0, close, heap=heap)
    AfterFunc(0, close, heap=heap)
    wait_until(lambda: len(closed) == 2)
    settled(heap, 0)


def test_an_error_after_the_loss_is_reported_also_when_the_heap_is_closed_meanwhile():
    errors = []
    going = threading.Event()

    def fail():
        going.wait(PATIENCE)
        raise LookupError("late")

    heap = TimerHeap(patience=SHORT, on_error=lambda exc, timer: errors.append((exc, timer)))
    timer = AfterFunc(0, fail, heap=heap)
    wait_until(lambda: heap.stats()["handovers"] == 1)
    closing = Background(heap.close)
    wait_until(lambda: heap.closed and heap.stats()["threads"] == 1)
    assert errors == []
    going.set()
    closing.result()
    [(exc, whose)] = errors
    assert isinstance(exc, LookupError)
    assert whose is timer


def test_a_closed_heap_lets_go_of_its_hook_after_the_last_callback(blocker):
    class Hook:
        def __call__(self, exc, timer):
            pass

    hook = Hook()
    reference = weakref.ref(hook)
    heap = TimerHeap(patience=SHORT, on_error=hook)
    del hook
    AfterFunc(0, blocker, heap=heap)
    wait_until(lambda: heap.stats()["handovers"] == 1)
    closing = Background(heap.close)
    wait_until(lambda: heap.closed and heap.stats()["threads"] == 1)
    gc.collect()
    assert reference() is not None
    blocker.let_go()
    closing.result()
    wait_until(lambda: gc.collect() is not None and reference() is None)


def test_each_callback_has_its_own_context(heap, blocker):
    variable = contextvars.ContextVar("variable", default="fresh")
    found = []

    def block():
        variable.set("left behind")
        blocker()
        found.append(variable.get())

    AfterFunc(0, block, heap=heap)
    AfterFunc(0, lambda: found.append(variable.get()), heap=heap)
    wait_until(lambda: found == ["fresh"])
    blocker.let_go()
    wait_until(lambda: found == ["fresh", "left behind"])


def test_a_heap_that_nobody_holds_fires_behind_what_blocks_and_goes(blocker):
    heap = TimerHeap("patient", patience=SHORT)
    reference = weakref.ref(heap)
    ran = threading.Event()
    AfterFunc(0, blocker, heap=heap)
    AfterFunc(0.05, ran.set, heap=heap)
    del heap
    assert ran.wait(PATIENCE)
    assert reference() is not None
    blocker.let_go()
    wait_until(lambda: reference() is None and not workers())


def test_what_a_callback_holds_goes_when_it_returns(heap, blocker):
    class Held:
        pass

    held = Held()
    reference = weakref.ref(held)
    AfterFunc(0, lambda held: blocker(), held, heap=heap)
    del held
    wait_until(lambda: heap.stats()["handovers"] == 1)
    assert reference() is not None
    blocker.let_go()
    settled(heap, 2)
    wait_until(lambda: reference() is None)


def test_handles_work_for_who_has_lost_the_post(heap, blocker):
    results = []

    def block():
        blocker()
        results.append(timer.reset(FAR))
        results.append(timer.stop())

    armed = threading.Event()
    timer = AfterFunc(0, lambda: armed.wait(PATIENCE) and block(), heap=heap)
    armed.set()
    wait_until(lambda: heap.stats()["handovers"] == 1)
    blocker.let_go()
    wait_until(lambda: results == [False, True])


def test_a_thousand_that_block_for_a_moment_are_all_launched_once(heap):
    ended = []

    def nap(what):
        sleep(0.0003 * (what % 40))
        ended.append(what)

    for what in range(300):
        AfterFunc(0.0001 * what, nap, what, heap=heap)
    wait_until(lambda: len(ended) == 300)
    assert sorted(ended) == list(range(300))
    assert heap.stats()["handovers"] > 0


def test_exit_leaves_behind_what_blocks():
    out = run_ok(
        """
        import threading, time
        from timerheap import AfterFunc, TimerHeap

        heap = TimerHeap(patience=0.002)
        begun = threading.Semaphore(0)

        def block():
            begun.release()
            time.sleep(3600)

        for _ in range(4):
            AfterFunc(0, block, heap=heap)
        for _ in range(4):
            begun.acquire()
        AfterFunc(3600, print, heap=heap)
        print("end")
        """
    )
    assert out == "end\n"


def test_exit_waits_no_longer_for_what_blocks_because_a_worker_is_parked():
    """For a parked worker, which leaves at once, it would wait a second. The first handler runs last."""
    out = run_ok(
        """
        import atexit, threading, time

        times = []
        atexit.register(lambda: print(len(times) == 1 and time.monotonic() - times[0] < 0.6))
        from timerheap import AfterFunc, TimerHeap

        atexit.register(lambda: times.append(time.monotonic()))
        heap = TimerHeap(patience=0.002)
        AfterFunc(0, time.sleep, 3600, heap=heap)
        while heap.stats()["handovers"] == 0:
            time.sleep(0.01)
        time.sleep(0.1)
        """
    )
    assert out == "True\n"


def test_a_fork_beside_a_parked_standby_warns_of_nothing():
    out = run_ok(
        """
        import os, threading, time
        from timerheap import AfterFunc, TimerHeap

        heap = TimerHeap(patience=0.002)

        def fire():
            done = threading.Event()
            AfterFunc(0, done.set, heap=heap)
            assert done.wait(30)

        for _ in range(20):
            fire()
            while heap.stats()["threads"] != 2:
                time.sleep(0.001)
            time.sleep(0.05)            # the worker is in no callback any more
            pid = os.fork()
            if pid == 0:
                assert heap.stats()["threads"] == 0
                fire()
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
        print("end")
        """,
        "-Werror",
    )
    assert out == "end\n"


@pytest.mark.parametrize("lost", [False, True])
def test_a_fork_in_a_callback(lost):
    out = run_ok(
        f"""
        import os, threading, time
        from timerheap import AfterFunc, TimerHeap

        heap = TimerHeap(patience=0.002 if {lost} else 3600)
        done = threading.Event()
        more = []

        def fork():
            while {lost} and heap.stats()["handovers"] == 0:
                time.sleep(0.001)
            pid = os.fork()
            if pid == 0:
                def end():
                    more.append(heap.stats()["threads"])
                    os._exit(0)
                AfterFunc(0.01, end, heap=heap)
                time.sleep(0.05)
                return                      # and is no worker any more
            assert os.waitpid(pid, 0)[1] == 0
            done.set()

        AfterFunc(0, fork, heap=heap)
        AfterFunc(0, more.append, 1, heap=heap)
        assert done.wait(30)
        while more != [1]:
            time.sleep(0.001)
        print("end", heap.stats()["handovers"] > 0)
        """,
        "-Wignore",
    )
    assert out == f"end {lost}\n"


@pytest.mark.parametrize("patience", [None, 0.002])
def test_a_fork_at_the_end_of_a_worker(patience):
    """By a finalizer of what a callback has left in a local of the thread, which CPython runs last of all."""
    out = run_ok(
        f"""
        import os, threading, time
        from timerheap import AfterFunc, TimerHeap

        ends = []

        class Forks:
            def __del__(self):
                pid = os.fork()
                if pid == 0:
                    done = threading.Event()
                    AfterFunc(0, done.set, heap=TimerHeap(patience={patience}))
                    os._exit(not done.wait(30))
                ends.append(os.waitpid(pid, 0)[1])

        def leave():
            local.forks = Forks()
            time.sleep(0.05)

        local = threading.local()
        heap = TimerHeap(patience={patience})
        AfterFunc(0, leave, heap=heap)
        while heap.stats()["fired"] == 0:
            time.sleep(0.001)
        heap.close()
        print(ends, [thread.name for thread in threading.enumerate()])
        """,
        "-Wignore",
    )
    assert out == "[0] ['MainThread']\n"


def test_a_fork_before_a_worker_fires():
    """By what threading shows it by, after it has taken the post: the child has nothing to fire, and gets no standby.
    The thread that forked ends there, and with it the child."""
    out = run_ok(
        """
        import os, threading
        from timerheap import AfterFunc, TimerHeap

        heap = TimerHeap(patience=0.002)
        going, done, forks = threading.Event(), threading.Event(), []
        gettrace = threading.gettrace

        def fork():
            if heap.stats()["handovers"] == 1 and not forks:
                pid = os.fork()
                if pid != 0:
                    forks.append(os.waitpid(pid, 0)[1])
            return gettrace()

        threading.gettrace = fork
        AfterFunc(0, going.wait, heap=heap)
        AfterFunc(0, done.set, heap=heap)
        assert done.wait(30)
        going.set()
        heap.close()
        print(forks)
        """,
        "-Wignore",
    )
    assert out == "[0]\n"


def test_a_fork_beside_what_blocks():
    out = run_ok(
        """
        import os, threading, time
        from timerheap import AfterFunc, TimerHeap

        heap = TimerHeap(patience=0.002)
        going = threading.Event()
        AfterFunc(0, going.wait, heap=heap)
        while heap.stats()["handovers"] == 0:
            time.sleep(0.001)
        blocked = [thread for thread in threading.enumerate() if thread.name == "timerheap"]
        pid = os.fork()
        if pid == 0:
            assert heap.stats()["threads"] == 0
            done = threading.Event()
            AfterFunc(0, done.set, heap=heap)
            assert done.wait(30)
            for thread in blocked:
                thread.join(30)
                assert not thread.is_alive()
            heap.close()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        going.set()
        heap.close()
        print("end", heap.stats()["threads"])
        """,
        "-Wignore",
    )
    assert out == "end 0\n"


def test_a_callback_whose_thread_is_ended_after_the_loss_is_waited_for_no_more():
    """By foreign code, as in test_threads."""
    out = run_ok(
        """
        import ctypes, threading, time
        from timerheap import AfterFunc, TimerHeap

        heap = TimerHeap(patience=0.005)
        leave = ctypes.CDLL(None).pthread_exit
        going = threading.Event()

        def settled(threads):
            deadline = time.monotonic() + 30
            while heap.stats()["threads"] != threads:
                assert time.monotonic() < deadline
                time.sleep(0.001)

        AfterFunc(0, lambda: going.wait(30) and leave(None), heap=heap)
        settled(3)
        going.set()
        settled(2)
        heap.close()
        print("end", heap.stats()["threads"])
        """
    )
    assert out == "end 0\n"


@pytest.mark.parametrize(
    ("patience", "error"), [(0, ValueError), (-1, ValueError), (float("nan"), ValueError), ("1", TypeError)]
)
def test_patience_is_a_positive_duration(patience, error):
    with pytest.raises(error, match="patience"):
        TimerHeap(patience=patience)
