"""recv, sleep and select let others run, run signal handlers and go on; Ctrl-C ends them."""

import os
import signal
import threading
import time

import pytest
from helpers import FAR, PATIENCE, Background, run_python, wait_until

from timerheap import AfterFunc, Ticker, Timer, TimerHeap, select, sleep

BLOCKING = {
    "recv": lambda timer: timer.c.recv(PATIENCE),
    "recv without timeout": lambda timer: timer.c.recv(),
    "select": lambda timer: select(timer.c, timeout=PATIENCE),
    "select without timeout": lambda timer: select(timer.c),
}


@pytest.fixture(params=BLOCKING)
def block(request):
    return BLOCKING[request.param]


@pytest.fixture
def handled():
    """Times at which SIGUSR1 was handled, in the main thread."""
    times = []
    before = signal.signal(signal.SIGUSR1, lambda signum, frame: times.append(time.monotonic()))
    yield times
    signal.signal(signal.SIGUSR1, before)


def kick():
    os.kill(os.getpid(), signal.SIGUSR1)


def test_another_thread_can_end_the_wait(block):
    """It could not, were the GIL held meanwhile."""
    timer = Timer(FAR)
    thread = threading.Timer(0.05, timer.reset, [0])
    thread.start()
    block(timer)
    thread.join()


def test_sleep_lets_other_threads_run():
    times = []
    done = threading.Event()

    def other():
        while not done.wait(0.001):
            times.append(time.monotonic())

    thread = threading.Thread(target=other)
    thread.start()
    start = time.monotonic()
    sleep(0.7)
    end = time.monotonic()
    done.set()
    thread.join()
    assert any(start < at < end - 0.1 for at in times)


def test_sleep_is_never_early():
    for delay in (1e-9, 1e-6, 1e-4, 1e-3, 0.02):
        for _ in range(20):
            start = time.monotonic()
            assert sleep(delay) is None
            assert time.monotonic() - start >= delay


def test_a_signal_does_not_end_or_shorten_a_wait(block, handled):
    timer = Timer(1.5)
    when = timer.when
    thread = threading.Timer(0.1, kick)
    thread.start()
    block(timer)
    assert time.monotonic() >= when
    assert len(handled) == 1
    assert handled[0] < when
    thread.join()


def test_a_signal_does_not_shorten_a_sleep(handled):
    start = time.monotonic()
    thread = threading.Timer(0.1, kick)
    thread.start()
    sleep(1.5)
    assert time.monotonic() - start >= 1.5
    assert len(handled) == 1
    assert handled[0] < start + 1.5
    thread.join()


def test_a_signal_does_not_extend_a_timeout(handled):
    stop = threading.Event()

    def kicks():
        while not stop.wait(0.002):
            kick()

    thread = threading.Thread(target=kicks)
    thread.start()
    try:
        with pytest.raises(TimeoutError):
            Timer(FAR).c.recv(0.3)
        with pytest.raises(TimeoutError):
            select(Timer(FAR).c, Timer(FAR).c, timeout=0.3)
    finally:
        stop.set()
        thread.join()
    assert handled


def test_a_handler_runs_while_the_wait_goes_on(handled):
    """The signal finds the main thread blocked for good; its handler ends the wait."""
    timer = Timer(FAR)
    signal.signal(signal.SIGUSR1, lambda signum, frame: timer.reset(0))
    AfterFunc(0.05, kick)
    timer.c.recv()
    signal.signal(signal.SIGUSR1, lambda signum, frame: timer.reset(0))
    AfterFunc(0.05, kick)
    select(timer.c, Timer(FAR).c)


class Interrupted(Exception):
    pass


def interrupt(signum, frame):
    raise Interrupted


def test_a_handler_that_raises_ends_the_wait(block, handled):
    signal.signal(signal.SIGUSR1, interrupt)
    timer = Timer(FAR)
    thread = threading.Timer(0.3, kick)
    thread.start()
    with pytest.raises(Interrupted):
        block(timer)
    thread.join()
    assert timer.stop() is True


def test_a_handler_that_raises_ends_a_sleep(handled):
    signal.signal(signal.SIGUSR1, interrupt)
    thread = threading.Timer(0.3, kick)
    thread.start()
    with pytest.raises(Interrupted):
        sleep(FAR)
    thread.join()


def test_an_interrupted_wait_takes_no_value(handled):
    signal.signal(signal.SIGUSR1, interrupt)
    timer = Timer(FAR)
    thread = threading.Timer(0.3, kick)
    thread.start()
    with pytest.raises(Interrupted):
        timer.c.recv()
    thread.join()
    timer.reset(0)
    assert timer.c.poll() is not None


@pytest.mark.parametrize(
    "wait",
    [
        "Timer(3600).c.recv()",
        "Timer(3600).c.recv(3600)",
        "select(Timer(3600).c, Ticker(3600).c)",
        "sleep(3600)",
        "list(Ticker(3600))",
        "[None for at in Ticker(0.001)]",
    ],
)
def test_ctrl_c_breaks_out(wait):
    done = run_python(
        f"""
        import threading, sys
        from timerheap import Ticker, Timer, select, sleep
        # "ready" comes when the main thread is most likely blocked already.
        threading.Timer(0.2, print, ["ready"], {{"flush": True}}).start()
        try:
            {wait}
        except KeyboardInterrupt:
            sys.exit(7)
        """,
        send=signal.SIGINT,
    )
    assert (done.returncode, done.stderr) == (7, "")
    assert done.seconds < 10


@pytest.mark.parametrize("wait", ["Timer(3600).c.recv()", "sleep(3600)", "select(Timer(3600).c, Ticker(3600).c)"])
def test_a_signal_that_interrupts_nothing_is_noticed_all_the_same(wait):
    """One that comes just before the system call that blocks. As good, and certain: one that another thread takes,
    because the main thread has it blocked."""
    done = run_python(f"""
        import os, signal, threading, time
        from timerheap import Ticker, Timer, select, sleep

        def handler(*args):
            raise SystemExit(5)

        def send():
            time.sleep(0.2)
            os.kill(os.getpid(), signal.SIGUSR1)

        signal.signal(signal.SIGUSR1, handler)
        sender = threading.Thread(target=send)
        sender.start()
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
        {wait}
    """)
    assert (done.returncode, done.stderr) == (5, "")


@pytest.mark.parametrize("ran", [False, True], ids=["before its first callback", "between callbacks"])
def test_the_worker_takes_no_signal(ran):
    """A signal the main thread has blocked stays pending for it: no other thread may get it."""
    done = run_python(f"""
        import os, signal, time
        from timerheap import AfterFunc, default_heap, sleep
        signal.signal(signal.SIGUSR1, lambda *args: print("handled", flush=True))
        AfterFunc(3600, print)
        if {ran}:
            AfterFunc(0, int)
            while len(default_heap()) > 1:
                sleep(0.001)
        sleep(0.05)
        signal.pthread_sigmask(signal.SIG_BLOCK, {{signal.SIGUSR1}})
        os.kill(os.getpid(), signal.SIGUSR1)
        sleep(0.1)
        assert signal.sigtimedwait({{signal.SIGUSR1}}, 5) is not None
        print("taken")
    """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "taken\n", "")


def test_callbacks_run_with_the_signal_mask_of_who_started_the_worker():
    """The processes that a callback starts inherit it: they must not find every signal blocked."""
    done = run_python("""
        import signal, threading
        from timerheap import AfterFunc
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
        masks, done = [], threading.Event()
        def callback():
            masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, []))
            done.set()
        for _ in range(2):
            AfterFunc(0.01, callback)
            assert done.wait(30)
            done.clear()
        assert masks == [{signal.SIGUSR2}] * 2, masks
        assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == {signal.SIGUSR2}
    """)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_the_last_callback_leaves_is_let_go_with_that_mask():
    """The worker of a heap closed in a callback drops its hooks, whose finalizers may start processes as well."""
    done = run_python("""
        import signal, threading, time
        from timerheap import AfterFunc, TimerHeap
        seen, done = [], threading.Event()
        class Hook:
            def __call__(self, exc, timer):
                pass
            def __del__(self):
                seen.append((threading.current_thread().name, signal.pthread_sigmask(signal.SIG_BLOCK, [])))
        heaps = []
        # Without a GIL a finalizer runs in the thread that made the object, as long as there is that thread.
        maker = threading.Thread(target=lambda: heaps.append(TimerHeap("hooked", on_error=Hook())))
        maker.start()
        maker.join()
        [heap] = heaps
        AfterFunc(0, done.set, heap=heap)
        assert done.wait(30)
        time.sleep(0.05)                # it parks
        AfterFunc(0, heap.close, heap=heap)
        deadline = time.monotonic() + 30
        while not seen:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        assert seen == [("hooked", set())], seen
    """)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_worker_that_is_late_to_leave_for_a_fork_leaves_the_next_ones_mask_alone():
    """The fork does not wait for it: join is broken off, as by a signal handler that raises. Where there is a GIL, it
    is not given up meanwhile: so the worker has left its post and not come to its end when the next one begins."""
    done = run_python("""
        import os, signal, sys, threading, time, warnings
        from timerheap import AfterFunc
        warnings.simplefilter("ignore", DeprecationWarning)
        sys.unraisablehook = lambda seen: None
        sys.setswitchinterval(100)
        def join(thread, timeout=None):
            until = time.monotonic() + 0.05
            while time.monotonic() < until:
                pass
            raise TimeoutError
        threading.Thread.join = join
        for _ in range(10):
            masks, done = [], threading.Event()
            def callback():
                masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, []))
                done.set()
            AfterFunc(0.03, callback)
            pid = os.fork()
            if pid == 0:
                os._exit(0)
            os.waitpid(pid, 0)
            assert done.wait(30)
            assert masks == [set()], masks
        os._exit(0)                     # the exit handler would join
    """)
    assert (done.returncode, done.stderr) == (0, "")


def test_timers_fire_under_a_rain_of_signals():
    """A thousand signals a second neither lose a timer nor fire one early."""
    done = run_python("""
        import signal, time
        from timerheap import AfterFunc, TimerHeap, sleep
        signal.signal(signal.SIGALRM, lambda *args: None)
        signal.setitimer(signal.ITIMER_REAL, 1e-3, 1e-3)
        lateness = []
        with TimerHeap("rain") as heap:
            for n in range(1000):
                AfterFunc(n * 5e-4, lambda at: lateness.append(time.monotonic() - at),
                          time.monotonic() + n * 5e-4, heap=heap)
            for _ in range(50):
                start = time.monotonic()
                sleep(0.01)
                assert time.monotonic() - start >= 0.01
            while len(lateness) < 1000:
                sleep(0.01)
        signal.setitimer(signal.ITIMER_REAL, 0)
        assert min(lateness) >= 0
    """)
    assert (done.returncode, done.stderr) == (0, "")


def test_one_value_wakes_one_of_many_receivers():
    timer = Timer(FAR)
    receivers = [Background(timer.c.recv) for _ in range(8)]
    time.sleep(0.1)
    for left in range(7, -1, -1):
        timer.reset(0)
        wait_until(lambda left=left: sum(r.running for r in receivers) <= left)
        time.sleep(0.01)
        assert sum(r.running for r in receivers) == left
    values = [receiver.result() for receiver in receivers]
    assert len(set(values)) == 8


@pytest.mark.parametrize("count", [1, 1000])
def test_whoever_looks_for_signals_keeps_its_place_in_the_line(handled, count):
    """The main thread does so once a second: it would never get a value that others wait for as well."""
    channels = [Timer(FAR).c for _ in range(count - 1)]
    timer = Timer(FAR)
    others = []

    def handler(signum, frame):
        others.append(Background(timer.c.recv))
        time.sleep(0.1)
        AfterFunc(0.1, timer.reset, 0)

    signal.signal(signal.SIGUSR1, handler)
    AfterFunc(0.5, kick)
    assert select(timer.c, *channels, timeout=5)[0] is timer.c
    assert others[0].running
    timer.reset(0)
    others[0].result()


def test_receivers_of_one_channel_time_out_apart():
    timer = Timer(FAR)
    patient = Background(timer.c.recv)
    with pytest.raises(TimeoutError):
        timer.c.recv(0.05)
    assert patient.running
    timer.reset(0)
    patient.result()


def test_a_receiver_that_gives_up_does_not_swallow_the_value_of_another():
    """Receivers whose patience ends just when the value comes: one of them, or poll, has it."""
    for _ in range(200):
        timer = Timer(FAR)
        receivers = [Background(patiently, timer, 0.003) for _ in range(2)]
        time.sleep(0.002)
        timer.reset(0.001)
        got = sum(receiver.result() for receiver in receivers)
        left = timer.c.recv(PATIENCE) if timer.active else None
        assert got + (left is not None) == 1


def patiently(timer, patience):
    try:
        timer.c.recv(patience)
    except TimeoutError:
        return 0
    return 1


def test_close_ends_every_wait():
    heap = TimerHeap("closing")
    timer, ticker = Timer(FAR, heap=heap), Ticker(FAR, heap=heap)
    waits = [
        Background(timer.c.recv),
        Background(timer.c.recv, FAR),
        Background(ticker.c.recv),
        Background(select, timer.c, ticker.c),
    ]
    time.sleep(0.1)
    heap.close()
    for wait in waits:
        with pytest.raises(RuntimeError):
            wait.result()
