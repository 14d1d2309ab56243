"""Fork: the parent's timers go on, the child starts with none."""

import threading

import pytest
from helpers import FORKED, FREE_THREADED, SANITIZER, asks_proc, run_ok, run_python

CHILD = """
    import os, sys, time, threading
    from timerheap import AfterFunc, Ticker, Timer, TimerHeap, after, default_heap
"""


def run_fork(code, *args, **options):
    """Run code in a process of its own, warnings as errors; it must end well and say nothing."""
    done = run_python(FORKED + CHILD + code, *args, **options)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_child_starts_with_none_armed():
    run_fork("""
    fired = []
    timers = [AfterFunc(0.2, fired.append, n) for n in range(1000)]
    dropped = [AfterFunc(0.2, fired.append, n) and None for n in range(1000)]
    channel, ticker = Timer(0.1), Ticker(0.1)

    def child():
        assert len(default_heap()) == 0
        default_heap().check()
        assert not any(timer.active or timer.stop() for timer in timers)
        assert not channel.active and channel.stop() is False
        time.sleep(0.4)
        assert fired == [] and channel.c.poll() is None and ticker.c.poll() is None

    assert forked(child) == 0
    while len(fired) < 2000:
        time.sleep(0.01)
    assert channel.c.poll() is not None
    """)


def test_the_child_arms_its_own():
    run_fork("""
    old = AfterFunc(3600, print)

    def child():
        done = threading.Event()
        AfterFunc(0.01, done.set)
        assert done.wait(10)
        again = threading.Event()
        handle = AfterFunc(3600, again.set)
        handle.reset(0.01)
        assert again.wait(10)
        assert old.reset(3600) is False and old.stop() is True
        assert after(0.01).recv(10)

    assert forked(child) == 0
    assert old.stop() is True
    """)


def test_the_parent_goes_on():
    run_fork("""
    done = threading.Event()
    AfterFunc(0.3, done.set)
    assert forked(lambda: None) == 0
    assert done.wait(10)
    """)


def test_a_fork_beside_the_worker_alone_warns_of_nothing():
    run_fork("""
    import warnings
    warnings.simplefilter("error")
    done = threading.Event()
    AfterFunc(0.2, done.set)
    for _ in range(20):
        assert forked(lambda: None) == 0
    assert done.wait(10)
    """)


def test_a_fork_waits_for_a_callback_that_is_about_to_end():
    """Which has told the program that it may fork. Not for one that takes long: of that newer Pythons warn."""
    run_fork("""
    import time, warnings

    def fork_in(delay):
        begun = threading.Event()
        end = time.monotonic() + delay
        AfterFunc(0, lambda: (begun.set(), time.sleep(delay)) and None)
        assert begun.wait(10)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            assert forked(lambda: None) == 0
        time.sleep(max(0, end - time.monotonic()))
        return len(told)

    assert sum(fork_in(0.002) for _ in range(20)) < 10
    assert fork_in(2) == (sys.version_info >= (3, 12))
    """)


def test_fork_inside_a_callback():
    """There are two threads then, the main one and the worker, of which newer Pythons warn with reason."""
    run_fork("""
    import warnings
    warnings.simplefilter("ignore", DeprecationWarning)
    status = []
    done = threading.Event()

    def callback():
        def child():
            inner = threading.Event()
            AfterFunc(0.01, inner.set)
            assert inner.wait(10)
        status.append(forked(child))

    AfterFunc(0, callback)
    AfterFunc(0.01, done.set)
    assert done.wait(20) and status == [0]
    """)


def test_a_callback_that_forked_and_returns_is_no_worker_in_the_child():
    """The child's first timer starts a worker there, and the thread that forked must not go on beside it."""
    run_fork("""
    import warnings
    warnings.simplefilter("ignore", DeprecationWarning)
    status, threads = [], set()
    done = threading.Event()

    def step(left):
        threads.add(threading.get_native_id())
        if left == 0:
            os._exit(0 if len(threads) == 1 and forker not in threads else 3)
        AfterFunc(0.001, step, left - 1)

    def callback():
        global forker
        pid = os.fork()
        if pid == 0:
            forker = threading.get_native_id()
            AfterFunc(0.05, step, 100)
            return
        status.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        done.set()

    AfterFunc(0, callback)
    assert done.wait(20) and status == [0]
    """)


@pytest.mark.timeout(3600)
def test_forks_under_load(pytestconfig):
    forks = 15 if pytestconfig.getoption("life_repeat") == 1 else 500
    run_fork(f"""
    import warnings
    warnings.simplefilter("ignore", DeprecationWarning)
    stop = threading.Event()

    def churn():
        while not stop.is_set():
            AfterFunc(0.001, int)
            AfterFunc(3600, int).stop()
            after(0).recv()

    threads = [threading.Thread(target=churn) for _ in range(3)]
    for thread in threads:
        thread.start()

    def child():
        assert len(default_heap()) == 0
        done = threading.Event()
        AfterFunc(0, done.set)
        assert done.wait(10)

    statuses = [forked(child) for _ in range({forks})]
    stop.set()
    for thread in threads:
        thread.join()
    assert statuses == [0] * {forks}
    while len(default_heap()):
        time.sleep(0.01)
    default_heap().check()
    """, timeout=60 + 3 * forks)


def test_a_server_that_forks_its_workers():
    """As gunicorn --preload does: the application is imported, timers and all, then workers are forked, replaced when
    they die, and ended by SIGTERM, upon which each leaves the way a program does."""
    run_fork("""
    import signal, warnings
    warnings.simplefilter("ignore", DeprecationWarning)
    beats = []
    ticker = Ticker(0.01)

    def beat():
        beats.append(1)
        AfterFunc(0.01, beat)

    beat()

    def serve(number, ready):
        signal.signal(signal.SIGTERM, lambda *args: sys.exit(7))
        assert ticker.c.poll() is None
        beats.clear()
        beat()
        with Ticker(0.005) as mine:
            for at in mine:
                if len(beats) > 3:
                    os.write(ready, b"x")
                    if number == 0:
                        os._exit(9)
                    Timer(3600).c.recv()

    def spawn(number):
        receive, ready = os.pipe()
        pid = os.fork()
        if pid == 0:
            serve(number, ready)
        assert os.read(receive, 1) == b"x"
        return pid

    workers = [spawn(number) for number in range(4)]
    pid, status = os.waitpid(workers[0], 0)
    assert os.waitstatus_to_exitcode(status) == 9
    workers[0] = spawn(4)
    for pid in workers:
        os.kill(pid, signal.SIGTERM)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    count = len(beats)
    while len(beats) < count + 3:
        time.sleep(0.01)
    assert ticker.c.recv(10)
    default_heap().check()
    """)


@pytest.mark.parametrize("count", [0, 2], ids=["alone", "with other threads"])
def test_hooks_of_others_may_use_timers_around_a_fork(count):
    """Those registered before the import run between this package's own hooks and the fork, in parent and child."""
    done = run_python(f"""
        import os, threading, time, warnings
        warnings.simplefilter("ignore", DeprecationWarning)

        class Hook:
            beat = None

            def __call__(self):
                if self.beat is not None:
                    self.beat.stop()
                    time.sleep(0.005)       # the other threads have their turn
                    self.beat.reset(3600)
                    AfterFunc(3600, int)
                    AfterFunc(3600, int).stop()

        hook = Hook()
        os.register_at_fork(before=hook, after_in_parent=hook, after_in_child=hook)
        from timerheap import AfterFunc, default_heap, after

        stop = threading.Event()

        def churn():
            while not stop.is_set():
                AfterFunc(3600, int).stop()
                after(0).recv()

        threads = [threading.Thread(target=churn) for _ in range({count})]
        for thread in threads:
            thread.start()
        hook.beat = AfterFunc(3600, int)
        for _ in range(10):
            pid = os.fork()
            if pid == 0:
                assert len(default_heap()) == 2 and hook.beat.active    # the child's own: its hook armed them
                fired = threading.Event()
                AfterFunc(0, fired.set)
                assert fired.wait(10)
                default_heap().check()
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
        stop.set()
        for thread in threads:
            thread.join()
        assert len(default_heap()) == 21
        default_heap().check()
        fired = threading.Event()
        AfterFunc(0, fired.set)
        assert fired.wait(10)
    """)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_the_parent_had_armed_is_not_let_go_in_the_child():
    """The fork happens inside a run. Neither that nor what is armed comes to life or to an end in the child."""
    run_fork("""
    import warnings
    warnings.simplefilter("ignore", DeprecationWarning)
    heap = TimerHeap()
    fired, status = [], []
    held, gate, done = threading.Event(), threading.Event(), threading.Event()

    class Callback:
        def __call__(self):
            fired.append(1)
        def __del__(self):
            AfterFunc(0, int, heap=heap)
            time.sleep(0.001)

    def child():
        time.sleep(0.1)
        assert fired == []
        heap.check()
        own = threading.Event()
        AfterFunc(0, own.set, heap=heap)
        assert own.wait(10)

    AfterFunc(0, lambda: held.set() or gate.wait(10), heap=heap)
    assert held.wait(10)
    AfterFunc(0, lambda: status.append(forked(child)), heap=heap)
    for _ in range(50):
        AfterFunc(0, Callback(), heap=heap)
        AfterFunc(3600, Callback(), heap=heap)
    AfterFunc(0, done.set, heap=heap)
    gate.set()
    assert done.wait(20) and status == [0]
    """)


def test_a_subclass_that_never_calls_init_is_known_to_a_fork():
    run_fork("""
    class Heap(TimerHeap):
        def __init__(self):
            pass

    heap = Heap()
    timer = AfterFunc(3600, int, heap=heap)

    def child():
        assert not timer.active and len(heap) == 0
        done = threading.Event()
        AfterFunc(0, done.set, heap=heap)
        assert done.wait(10)

    assert forked(child) == 0
    assert timer.stop()
    """)


def test_a_manual_heap_can_be_advanced_in_the_child_of_a_fork_during_an_advance():
    run_fork("""
    import warnings
    from timerheap.testing import ManualHeap
    warnings.simplefilter("ignore", DeprecationWarning)
    heap = ManualHeap()
    inside, leave = threading.Event(), threading.Event()
    AfterFunc(1, inside.set, heap=heap)
    AfterFunc(1, leave.wait, 20, heap=heap)
    other = threading.Thread(target=heap.advance, args=(1,))
    other.start()
    assert inside.wait(10)

    def child():
        fired = []
        AfterFunc(1, fired.append, 1, heap=heap)
        heap.advance(1)
        assert fired == [1]

    assert forked(child) == 0
    leave.set()
    other.join()
    """)


def expire():
    """Runs in a worker process: arms a timer and waits for it."""
    from timerheap import AfterFunc

    done = threading.Event()
    AfterFunc(0.01, done.set)
    return done.wait(10)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(method):
    done = run_python(f"""
        import sys, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        import multiprocessing
        sys.path.insert(0, {str(__file__).rsplit("/", 1)[0]!r})
        from test_fork import expire
        if __name__ == "__main__":
            expire()
            with multiprocessing.get_context("{method}").Pool(2) as pool:
                assert all(pool.apply(expire) for _ in range(10))
    """)
    assert done.returncode == 0, done.stderr


def test_a_signal_handler_that_raises_during_a_fork_stalls_nobody():
    """Ctrl-C just then, say: at-fork handlers swallow what it raises, and the workers come back all the same."""
    run_fork("""
    import signal, warnings
    warnings.simplefilter("ignore", DeprecationWarning)
    sys.unraisablehook = lambda seen: None

    class Interrupt(Exception):
        pass

    def handler(*args):
        raise Interrupt

    heaps = [TimerHeap("one"), TimerHeap("other")]
    for number in range(60):
        runs = []
        for heap in heaps:
            AfterFunc(0.02, runs.append, 1, heap=heap)
        try:
            signal.signal(signal.SIGALRM, handler)
            signal.setitimer(signal.ITIMER_REAL, 1e-4 * (1 + number % 20))
            pid = os.fork()
            if pid == 0:
                os._exit(0)
            time.sleep(0.01)
        except Interrupt:
            pass
        finally:
            signal.signal(signal.SIGALRM, signal.SIG_IGN)
        deadline = time.monotonic() + 20
        while len(runs) < 2:
            assert time.monotonic() < deadline, number
            time.sleep(0.001)
    """)


PRIVATE = """
    def private():
        '''Bytes of memory that this process does not share any more.'''
        with open("/proc/self/smaps_rollup") as file:
            return sum(int(line.split()[1]) for line in file if line.startswith("Private_Dirty")) * 1024
"""


@asks_proc
@pytest.mark.skipif(bool(SANITIZER), reason="the runtime touches memory of its own")
def test_a_child_touches_none_of_its_parents_timers():
    """Whatever is armed, held or dropped, stopped, due, on one heap or on many."""
    run_fork(PRIVATE + """
    import gc, warnings
    warnings.simplefilter("ignore", DeprecationWarning)
    heaps = [TimerHeap() for _ in range(100)]
    held = [AfterFunc(3600 + n, int, heap=heap) for heap in heaps[:10] for n in range(20_000)]
    for heap in heaps:
        for n in range(2_000):
            AfterFunc(3600 - n, int, n, heap=heap)
    for timer in held[::3]:
        timer.stop()
    for timer in held[1::3]:
        timer.reset(1800)
    gc.collect()
    gc.freeze()

    def child():
        assert private() < 8 * 2**20, private() // 1024
        assert not any(len(heap) for heap in heaps)
        for timer in held[:3]:
            assert not timer.active and timer.when is None and timer.stop() is False
            fired = threading.Event()
            AfterFunc(0, fired.set, heap=timer.reset(3600) or heaps[0])
            assert fired.wait(10) and timer.active and timer.stop() and not timer.stop()
        assert private() < 12 * 2**20, private() // 1024

    assert forked(child) == 0
    assert sum(map(len, heaps)) == 200_000 + 200_000 - 66_667
    """)


def test_inherited_handles_of_every_kind_can_be_used_and_dropped_in_the_child():
    """Armed, stopped with and without a key left behind, moved to earlier and later, due, fired; every way on."""
    run_fork("""
    import gc, warnings
    warnings.simplefilter("ignore", DeprecationWarning)
    heap = TimerHeap()
    fired = []

    def make(n):
        timer = AfterFunc(3600 + n, fired.append, n, heap=heap)
        if n % 7 == 1:
            timer.stop()
        elif n % 7 == 2:
            timer.reset(7200)
        elif n % 7 == 3:
            timer.reset(1800)
        elif n % 7 == 4:
            timer.reset(1800)
            timer.stop()
        elif n % 7 == 5:
            timer.reset(0)
        return timer

    def child():
        fired.clear()                   # what was due had fired in the parent, if its worker was quick
        for n, timer in enumerate(timers):
            assert not timer.active and timer.when is None and "inactive" in repr(timer)
            if n % 5 == 1:
                assert timer.stop() is False
            elif n % 5 == 2:
                assert timer.reset(3600) is False and timer.active
            elif n % 5 == 3:
                assert timer.reset(0) is False
            elif n % 5 == 4:
                timers[n] = None
        heap.check()
        gc.collect()
        expected = [n for n in range(len(timers)) if n % 5 == 3]
        deadline = time.monotonic() + 20
        while sorted(fired) != expected:
            assert time.monotonic() < deadline, (sorted(fired)[:9], expected[:9])
            time.sleep(0.001)
        assert len(heap) == sum(n % 5 == 2 for n in range(len(timers)))
        armed = len(heap)
        assert sum(timer.stop() for timer in timers if timer is not None) == armed
        timers.clear()
        gc.collect()
        heap.check()
        assert len(heap) == 0
        # and a child of this child
        timer = AfterFunc(3600, int, heap=heap)
        assert forked(lambda: timer.stop() and os._exit(9)) == 0
        assert timer.stop()

    timers = [make(n) for n in range(1400)]
    assert forked(child) == 0
    fired.clear()

    # The same out of a callback, with others of the run still due.
    def fork_here():
        status.append(forked(child))

    status, gate, held, done = [], threading.Event(), threading.Event(), threading.Event()
    AfterFunc(0, lambda: held.set() or gate.wait(10), heap=heap)
    assert held.wait(10)
    AfterFunc(0, fork_here, heap=heap)
    timers = [make(n) for n in range(1400)]
    AfterFunc(0, done.set, heap=heap)
    gate.set()
    assert done.wait(60) and status == [0], status
    """, timeout=120)


def test_an_inherited_callback_is_kept_or_goes_with_its_handle():
    """No finalizer runs in the child but by what the child itself lets go of."""
    run_fork("""
    import gc
    gone = []

    class Callback:
        def __init__(self, name):
            self.name = name
        def __call__(self):
            pass
        def __del__(self):
            gone.append(self.name)

    heap = TimerHeap()
    held = AfterFunc(3600, Callback("held"), heap=heap)
    stopped = AfterFunc(3600, Callback("stopped"), heap=heap)
    stopped.stop()
    AfterFunc(3600, Callback("dropped"), heap=heap)

    def child():
        global held, stopped, heap
        gc.collect()
        assert gone == []
        held.stop()
        del held, stopped
        gc.collect()
        assert sorted(gone) == ["held", "stopped"], gone
        heap.close()
        del heap
        gc.collect()
        assert len(gone) == 2

    assert forked(child) == 0
    heap.close()
    assert gone == ["dropped"]
    del held, stopped
    """)


@pytest.mark.skipif(FREE_THREADED, reason="there what is armed keeps its handle, and that its heap")
def test_a_heap_that_its_parent_only_held_by_what_was_armed_ends_in_the_child():
    run_fork("""
    import gc, weakref
    heap = TimerHeap("last wish")
    reference = weakref.ref(heap)
    fired = threading.Event()
    AfterFunc(0.3, fired.set, heap=heap)
    del heap

    def child():
        gc.collect()
        assert reference() is None

    assert forked(child) == 0
    assert reference() is not None
    assert fired.wait(10)
    """)


@pytest.mark.parametrize("kind", ["TimerHeap", "ManualHeap"])
def test_a_child_gives_up_what_its_parents_heap_held_and_no_more(kind):
    """A heap holds itself while a worker has something to fire. Also where the child forks before its hook has run."""
    run_ok(f"""
        import os, sys
        hook = []
        os.register_at_fork(after_in_child=lambda: hook and hook.pop()())   # runs before that of the import below
        from timerheap import AfterFunc, TimerHeap
        from timerheap.testing import ManualHeap

        heap = {kind}()
        free = sys.getrefcount(heap)
        timer = AfterFunc(3600, int, heap=heap)
        free += 1                           # the handle's

        def check():
            assert sys.getrefcount(heap) == free, (sys.getrefcount(heap), free)

        def fork_and_check():
            pid = os.fork()
            if pid == 0:
                check()
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0

        def first():
            timer.reset(1800)
            fork_and_check()

        for hook[:] in [], [first]:
            pid = os.fork()
            if pid == 0:
                if len(heap) == 0:
                    check()
                heap.check()
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
    """, "-W", "ignore::DeprecationWarning")


def test_an_executors_jobs_are_the_parents():
    run_fork("""
    import warnings
    from concurrent.futures import ThreadPoolExecutor
    warnings.simplefilter("ignore", DeprecationWarning)
    inside, leave, calls = threading.Event(), threading.Event(), []
    with ThreadPoolExecutor(1) as pool:
        heap = TimerHeap(executor=pool)
        AfterFunc(0, lambda: inside.set() or leave.wait(20), heap=heap)
        for n in range(10):
            AfterFunc(0, calls.append, n, heap=heap)
        assert inside.wait(10)
        while heap.stats()["fired"] < 11:
            time.sleep(0.001)

        def child():
            heap.close()                # waits for nothing that is not there

        assert forked(child) == 0
        leave.set()
        deadline = time.monotonic() + 20
        while len(calls) < 10:
            assert time.monotonic() < deadline
            time.sleep(0.001)
    heap.close()
    """)


def test_many_heaps_beside_the_main_thread_alone_warn_of_nothing():
    run_fork("""
    import warnings
    warnings.simplefilter("error")
    heaps = [TimerHeap(f"heap {n}") for n in range(50)]
    done = [threading.Event() for _ in heaps]
    for heap, event in zip(heaps, done):
        AfterFunc(0.3, event.set, heap=heap)
    idle = TimerHeap("idle")
    AfterFunc(3600, int, heap=idle).stop()
    for _ in range(3):
        assert forked(lambda: None) == 0
    assert all(event.wait(20) for event in done)
    """)


INHERITED = """
    import itertools
    from timerheap import select
    from timerheap.testing import ManualHeap

    def refused(receive, *args, **options):
        '''Whether a receive says that its timer was armed before the fork.'''
        try:
            receive(*args, **options)
        except RuntimeError as exc:
            return "before the fork" in str(exc) and "reset()" in str(exc)
        return False
"""


def test_receiving_what_was_armed_before_the_fork_is_an_error_in_the_child():
    """Armed, and expired and not received; with and without a timeout; alone, and among channels that are ready."""
    run_fork(INHERITED + """
    far, expired, ticker, inf = Timer(3600), Timer(0), Ticker(0.001), Timer(float("inf"))
    stopped, received = Timer(3600), Timer(0)
    stopped.stop(), received.c.recv()

    def child():
        for timer in far, expired, inf:
            assert not timer.active and timer.c.poll() is None and timer.when is None
            for patience in None, 0, 0.01, 3600:
                assert refused(timer.c.recv, patience)
                assert refused(select, timer.c, timeout=patience)
        assert refused(ticker.c.recv) and refused(next, ticker) and refused(list, ticker)
        own = after(0)
        assert refused(select, own, far.c) and refused(select, far.c, own)
        assert refused(select, *[after(0) for _ in range(1000)], ticker.c, timeout=0)
        assert own.poll() is not None
        # What was idle at the fork is idle, no more.
        for timer in stopped, received:
            try:
                timer.c.recv(0.01)
            except TimeoutError:
                continue
            raise AssertionError

    assert forked(child) == 0
    assert far.active and expired.c.recv() and ticker.c.recv()
    """)


def test_a_reset_in_the_child_makes_an_inherited_channel_its_own():
    run_fork(INHERITED + """
    timer, ticker = Timer(0), Ticker(3600)

    def child():
        assert timer.reset(0.01) is False
        assert timer.c.recv() and not timer.active
        ticker.reset(0.001)
        assert len(list(itertools.islice(ticker, 3))) == 3
        ticker.stop()
        assert list(ticker) == []
        stats = default_heap().stats()
        assert stats["arms"] == stats["received"] + stats["cancelled"] and len(default_heap()) == 0

    assert forked(child) == 0
    """)


def test_what_is_stopped_in_the_child_is_as_any_stopped_channel():
    run_fork(INHERITED + """
    timer, ticker = Timer(3600), Ticker(3600)

    def child():
        assert timer.stop() is False
        ticker.stop()
        assert list(ticker) == []
        try:
            timer.c.recv(0.01)
        except TimeoutError:
            timer.reset(0)
        assert timer.c.recv(10)

    assert forked(child) == 0
    """)


def test_the_child_of_a_child_inherits_from_both():
    run_fork(INHERITED + """
    timer = Timer(3600)

    def child():
        mine = Timer(3600)
        renewed = Timer(0)
        def grandchild():
            assert refused(timer.c.recv) and refused(mine.c.recv) and refused(renewed.c.recv)
            assert mine.reset(0) is False and mine.c.recv()
        assert refused(timer.c.recv)
        assert forked(grandchild) == 0
        assert renewed.c.recv() and mine.active

    assert forked(child) == 0
    """)


def test_inherited_channels_in_the_child_of_a_callback():
    run_fork(INHERITED + """
    import warnings
    warnings.simplefilter("ignore", DeprecationWarning)
    timer, ticker, status, done = Timer(3600), Ticker(3600), [], threading.Event()

    def child():
        assert refused(timer.c.recv) and refused(next, ticker)
        timer.reset(0)
        assert timer.c.recv(10)

    def callback():
        status.append(forked(child))
        done.set()

    AfterFunc(0, callback)
    assert done.wait(20) and status == [0]
    """)


def test_a_heap_that_is_closed_says_so_in_the_child_too():
    run_fork(INHERITED + """
    before, open_ = TimerHeap("before"), TimerHeap("open")
    timers = [Timer(3600, heap=heap) for heap in (before, open_)]
    ticker = Ticker(3600, heap=open_)
    before.close()

    def closed(receive, *args):
        try:
            receive(*args)
        except RuntimeError as exc:
            return "closed" in str(exc)

    def child():
        assert closed(timers[0].c.recv) and refused(timers[1].c.recv)
        open_.close()
        assert closed(timers[1].c.recv) and closed(select, timers[1].c) and list(ticker) == []

    assert forked(child) == 0
    """)


def test_a_receive_whose_signal_handler_forks_ends_in_the_child():
    run_fork(INHERITED + """
    import signal
    timer, children = Timer(3600), []

    def handler(*args):
        pid = os.fork()
        if pid:
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
            timer.reset(0)
        else:
            children.append(1)

    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    if refused(timer.c.recv):
        os._exit(3 if children else 4)
    """)


def test_lines_of_receivers_that_are_not_in_the_child_are_void_there():
    """Selects over many channels in other threads, blocked or about to: the child receives from the same channels."""
    run_fork(INHERITED + """
    import warnings
    warnings.simplefilter("ignore", DeprecationWarning)
    heap, manual = TimerHeap("shared"), ManualHeap()
    timers = [Timer(3600, heap=heap) for _ in range(3000)] + [Timer(3600, heap=manual) for _ in range(10)]
    channels = [timer.c for timer in timers]
    stop = threading.Event()

    def selects():
        while not stop.is_set():
            try:
                select(*channels, timeout=0.003)
            except TimeoutError:
                pass

    def child():
        assert refused(timers[0].c.recv)
        for timer in timers:
            timer.reset(0)
        received = [select(*channels)[0] for _ in range(300)]
        received += [channel for channel in channels if channel.poll() is not None]
        assert len(received) == len(channels) and set(received) == set(channels)
        timers[7].reset(3600)
        receiver = threading.Thread(target=timers[7].c.recv)
        receiver.start()
        time.sleep(0.01)
        timers[7].reset(0)
        receiver.join(20)
        assert not receiver.is_alive()
        manual.advance(1)
        heap.close()

    threads = [threading.Thread(target=selects) for _ in range(3)]
    threads += [threading.Thread(target=timers[n].c.recv) for n in (5, 7, 2000)]
    for thread in threads:
        thread.start()
    statuses = [forked(child) for _ in range(15)]
    stop.set()
    for thread in threads[:3]:
        thread.join()
    for number in 5, 7, 2000:
        timers[number].reset(0)
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert statuses == [0] * 15
    """)


def test_a_thread_that_threading_does_not_know_may_fork():
    """Nothing else runs beside the worker then, which leaves for the fork and comes back (from Python 3.12 on)."""
    run_fork("""
    import _thread, warnings
    warnings.simplefilter("ignore", DeprecationWarning)
    fired, statuses = threading.Event(), []
    AfterFunc(0.3, fired.set)

    def child():
        fired = threading.Event()
        AfterFunc(0, fired.set)
        assert fired.wait(20)

    _thread.start_new_thread(lambda: statuses.append(forked(child)), ())
    while not statuses:
        time.sleep(0.01)
    assert statuses == [0] and fired.wait(20)
    """)


def test_a_fork_waits_for_the_worker_to_sort():
    """Beside another thread the worker stays for the fork. It may be sorting a herd then, without the lock."""
    run_fork("""
    import random, warnings
    warnings.simplefilter("ignore", DeprecationWarning)
    heap, leave, rng = TimerHeap("herd"), threading.Event(), random.Random(1)
    other = threading.Thread(target=leave.wait)
    other.start()

    def child():
        heap.check()
        assert len(heap) == 0

    gate = threading.Event()
    AfterFunc(0, gate.wait, 60, heap=heap)
    herd = [AfterFunc(0.001 * rng.random(), int, heap=heap) for _ in range(100_000)]
    gate.set()
    while heap.stats()["fired"] < 1 + len(herd):
        assert forked(child) == 0
    leave.set()
    other.join()
    """)


def test_the_child_has_no_periodic_timers_and_may_reset_its_own():
    run_fork("""
    from timerheap import every
    calls = []
    timer = every(0.01, calls.append, 1)
    counted = sys.getrefcount(timer)
    while len(calls) < 3:
        time.sleep(0.001)

    def child():
        seen = len(calls)
        assert not timer.active and timer.when is None and timer.period == 0.01
        assert timer.postpone(1) is False and timer.stop() is False
        assert len(default_heap()) == 0
        time.sleep(0.1)
        assert len(calls) == seen
        assert sys.getrefcount(timer) == counted - 1
        assert timer.reset(0.02) is False and timer.period == 0.02 and timer.active
        while len(calls) < seen + 3:
            time.sleep(0.001)
        assert timer.stop() is True
        default_heap().check()

    assert forked(child) == 0
    seen = len(calls)
    while len(calls) < seen + 3:
        time.sleep(0.001)
    assert timer.stop() is True
    """)


def test_a_periodic_call_may_fork():
    run_fork("""
    import warnings
    from timerheap import every
    warnings.simplefilter("ignore", DeprecationWarning)     # this process has two threads, and may fork
    status, calls = [], []

    def child():
        assert not timer.active and timer.stop() is False
        assert timer.reset(0.01) is False
        default_heap().check()

    def call():
        calls.append(1)
        if len(calls) == 1:
            status.append(forked(child))

    timer = every(0.01, call)
    while len(calls) < 3:
        time.sleep(0.01)
    assert status == [0] and timer.stop() is True
    """)


def test_a_periodic_call_that_the_parent_has_begun_keeps_the_child_from_nothing():
    run_fork("""
    from timerheap import every
    jobs = []

    class Keeps:
        def submit(self, job):
            jobs.append(job)

    heap = TimerHeap(executor=Keeps())
    timer = every(0.005, print, heap=heap)
    while heap.stats()["dropped"] < 3:
        time.sleep(0.001)

    def child():
        assert len(jobs) == 1
        timer.reset(0.005)
        while len(jobs) < 2:
            time.sleep(0.001)
        dropped = heap.stats()["dropped"]
        while heap.stats()["dropped"] < dropped + 3:
            time.sleep(0.001)
        assert len(jobs) == 2

    assert forked(child) == 0
    timer.stop()
    """)
