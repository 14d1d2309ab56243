"""The programs of examples/: each as a user runs it, and its parts under virtual time, where every moment is exact.

gevent_hub.py is tried in test_patched.py, with the library that it needs.
"""

import asyncio
import importlib.util
import random
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from helpers import PATIENCE, SANITIZER, run_ok, wait_until

from timerheap import AfterFunc
from timerheap.testing import ManualHeap, run, use

EXAMPLES = Path(__file__).parent.parent / "examples"

needs_numpy = pytest.mark.skipif(
    bool(SANITIZER) or importlib.util.find_spec("numpy") is None, reason="numpy is not here, or not what is looked at"
)


def load(name):
    """The module of an example."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_example(name, *args):
    """The lines that it prints, as a program."""
    path = str(EXAMPLES / f"{name}.py")
    code = f"import runpy, sys; sys.argv[:] = {[path, *args]!r}; runpy.run_path({path!r}, run_name='__main__')"
    return run_ok(code).splitlines()


def test_index_names_every_example():
    index = re.findall(r"^\| \[(\w+\.py)\]\((\w+\.py)\) \|", (EXAMPLES / "README.md").read_text(), re.MULTILINE)
    assert sorted(index) == sorted((path.name, path.name) for path in EXAMPLES.glob("*.py"))


# ---- servers --------------------------------------------------------------------------------------------------------


def test_tcp_server_hangs_up_on_the_idle():
    tcp_idle = load("tcp_idle")
    with use() as heap, tcp_idle.IdleServer(("127.0.0.1", 0), 60.0) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        with socket.create_connection(server.server_address, PATIENCE) as peer, peer.makefile("rb") as answers:
            for _ in range(3):
                peer.sendall(b"here\n")
                assert answers.readline() == b"here\n"  # the timer has been put off
                heap.advance(59)
                assert len(heap) == 1
            heap.advance(1)
            assert answers.readline() == b""
        server.shutdown()
        thread.join(PATIENCE)


def test_tcp_server_drops_the_timer_of_who_leaves():
    tcp_idle = load("tcp_idle")
    with use() as heap, tcp_idle.IdleServer(("127.0.0.1", 0), 60.0) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        with socket.create_connection(server.server_address, PATIENCE) as peer, peer.makefile("rb") as answers:
            peer.sendall(b"bye\n")
            assert answers.readline() == b"bye\n"
            peer.shutdown(socket.SHUT_WR)
            assert answers.readline() == b""  # closed from there, after handle()
            assert len(heap) == 0
        server.shutdown()
        thread.join(PATIENCE)


@pytest.mark.parametrize("name", ["tcp_idle", "asyncio_idle"])
def test_idle_server_runs(name):
    *answers, end = run_example(name)
    assert answers == ["answer: still here"] * 3
    assert re.fullmatch(r"hung up after \d+\.\d s more of silence", end)


class Written:
    """What asyncio.StreamWriter is to the handler."""

    def __init__(self):
        self.lines = []
        self.closed_at = None

    def write(self, line):
        self.lines.append(line)

    async def drain(self):
        pass

    def close(self):
        self.closed_at = asyncio.get_running_loop().time()

    async def wait_closed(self):
        pass


def test_asyncio_server_hangs_up_on_the_idle():
    echo = load("asyncio_idle").echo

    async def talk():
        reader, writer = asyncio.StreamReader(), Written()
        handler = asyncio.ensure_future(echo(60, reader, writer))
        for _ in range(3):
            reader.feed_data(b"here\n")
            await asyncio.sleep(59)
        await handler
        assert writer.lines == [b"here\n"] * 3
        assert writer.closed_at == 2 * 59 + 60

    run(talk())


def test_asyncio_server_is_done_with_who_leaves():
    echo = load("asyncio_idle").echo

    async def talk():
        reader, writer = asyncio.StreamReader(), Written()
        handler = asyncio.ensure_future(echo(60, reader, writer))
        await asyncio.sleep(10)
        reader.feed_eof()
        await handler
        assert writer.closed_at == 10

    run(talk())


# ---- cache ----------------------------------------------------------------------------------------------------------


def test_cache_forgets_in_time():
    with use() as heap:
        cache = load("ttl_cache").TTLCache(100_000, 60.0)
        cache.update({key: -key for key in range(100_000)})
        heap.advance(30)
        assert cache.touch(17)
        cache.update({18: "new"})
        assert cache.pop(19) == -19
        assert len(cache) == 99_999
        heap.advance(29.999)
        assert len(cache) == 99_999
        heap.advance(0.001)
        assert len(cache) == 2
        assert [cache.get(key) for key in (16, 17, 18, 19)] == [None, -17, "new", None]
        heap.advance(30)
        assert len(cache) == 0
        assert not cache.touch(17)
        assert cache.pop(17) is None
        cache.update({key: key for key in range(100_000)})  # every slot has come back
        with pytest.raises(IndexError):
            cache.update({"one more": 1})
        heap.advance(60)


def test_cache_keeps_what_comes_anew_while_its_end_is_reported():
    """The report of an expiry waits for the lock, and finds the key there again."""
    cache = load("ttl_cache").TTLCache(4, 60.0, heap=ManualHeap())
    cache.update({"old": 1, "lasting": 2})
    cache._timers.stop([cache._slots["old"]])  # as after its deadline: armed no more, and to be reported
    due = [cache._slots["old"], cache._slots["lasting"]]
    cache.update({"lasting": 3})
    cache._expire(due)
    assert (cache.get("old"), cache.get("lasting"), len(cache)) == (None, 3, 1)
    cache._timers.heap.close()


def test_cache_runs():
    filled, gone = run_example("ttl_cache", "1000", "1")
    assert filled.startswith("1,000 entries put in ")
    assert filled.endswith("user:17 is 17")
    assert gone.endswith("user:17 is None")


# ---- retries --------------------------------------------------------------------------------------------------------


def no_jitter(shortest, longest):
    return longest


def test_retries_wait_longer_each_time():
    retry = load("retry").retry
    with use() as heap:
        tries = []

        def fail():
            tries.append(heap.time())
            raise ConnectionError(len(tries))

        future = retry(fail, attempts=6, base=1, cap=5, jitter=no_jitter)
        heap.advance(100)
        assert tries == [0, 1, 3, 7, 12, 17]
        with pytest.raises(ConnectionError, match="6"):
            future.result(timeout=0)


def test_retries_end_with_success():
    retry = load("retry").retry
    with use() as heap:
        answers = [ValueError(), "done"]

        def ask():
            answer = answers.pop(0)
            if answer == "done":
                return answer
            raise answer

        future = retry(ask, base=8, jitter=random.Random(1).uniform)
        heap.advance(8)
        assert future.result(timeout=0) == "done"


def test_retries_are_called_off_by_cancel():
    retry = load("retry").retry
    with use() as heap:  # which would complain of what is left armed
        future = retry(lambda: 1 / 0, base=1, jitter=no_jitter)
        heap.advance(0.5)
        assert len(heap) == 1
        assert future.cancel()
        assert len(heap) == 0


def test_retries_end_if_cancelled_within_an_attempt():
    retry = load("retry").retry
    with use() as heap:
        tries = []

        def ask():
            tries.append(future.cancel())
            raise OSError

        future = retry(ask, base=1, jitter=no_jitter)
        heap.advance(10)
        assert tries == [True]


def test_retry_runs():
    assert run_example("retry") == ["failed: refused", "failed: no answer", "answer: 42"]


# ---- metrics --------------------------------------------------------------------------------------------------------


def test_metrics_report_the_rest_on_ctrl_c():
    process = subprocess.Popen(
        [sys.executable, EXAMPLES / "metrics.py", "0.1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        try:
            first = [process.stdout.readline() for _ in range(2)]
            process.send_signal(signal.SIGINT)  # conftest.py sees to it that it is not ignored
            out, err = process.stdout.read(), process.stderr.read()
            process.wait(PATIENCE)
        finally:
            process.kill()
    assert err == ""
    assert process.returncode == 130
    *recent, total = [*first, *out.splitlines()]
    assert all(line.startswith("recent:") for line in recent)
    for name in ("requests", "bytes"):
        counts = [sum(map(int, re.findall(rf"{name}=(\d+)", line))) for line in recent]
        assert total.startswith("total: ")
        assert f"{name}={sum(counts)}" in total.split()
        assert sum(counts) > 0


# ---- debounce, throttle ---------------------------------------------------------------------------------------------


def test_debounce_calls_once_at_rest():
    with use() as heap:
        calls = []
        debounced = load("debounce").Debounce(1, lambda what: calls.append((heap.time(), what)))
        for letter in "abc":
            debounced(letter)
            heap.advance(0.9)
        assert calls == []
        heap.advance(10)
        assert calls == [(2 * 0.9 + 1, "c")]
        debounced("d")
        debounced.flush()
        debounced.flush()
        assert calls[1:] == [(heap.time(), "d")]
        debounced("e")
        assert debounced.cancel()
        assert not debounced.cancel()
        heap.advance(10)
        assert len(calls) == 2


def test_debounce_runs_not_for_a_timer_that_another_call_has_put_off():
    calls = []
    heap = ManualHeap()
    debounced = load("debounce").Debounce(1, calls.append, heap=heap)
    debounced("a")
    debounced._rested()  # as of a timer that has fired just before that call
    assert calls == []
    heap.advance(1)
    assert calls == ["a"]
    heap.close()


def test_throttle_calls_once_a_period():
    with use() as heap:
        calls = []
        throttled = load("debounce").Throttle(1, lambda what: calls.append((heap.time(), what)))
        throttled("a")
        for letter in "bcd":
            heap.advance(0.25)
            throttled(letter)
        heap.advance(10)
        throttled("e")
        assert calls == [(0, "a"), (1, "d"), (10.75, "e")]
        heap.advance(1)
        assert len(heap) == 0


def test_debounce_runs():
    lines = run_example("debounce")
    assert lines[0] == "drawn: a"
    assert [line for line in lines if line.startswith("saved: ")][-1] == "saved: a letter of thanks"
    assert [line for line in lines if line.startswith("drawn: ")][-1] == "drawn: a letter of thanks"


# ---- watchdog, lease ------------------------------------------------------------------------------------------------


def test_watchdog_bites_when_it_is_not_fed():
    with use() as heap:
        bites = []
        watchdog = load("watchdog").Watchdog(5, lambda: bites.append(heap.time()))
        for _ in range(3):
            heap.advance(4)
            assert watchdog.feed()
        heap.advance(100)
        assert bites == [12 + 5]
        assert not watchdog.feed()
        assert len(heap) == 0


def test_watchdog_that_is_stopped_bites_not():
    with use() as heap:
        watchdog = load("watchdog").Watchdog(5, pytest.fail)
        watchdog.stop()
        heap.advance(10)


def test_watchdog_interrupts_a_main_thread_that_computes():
    found, _, end = "\n".join(run_example("watchdog")).partition("\ninterrupted")
    assert re.match(r"the main thread hangs: File .*watchdog\.py\", line \d+, in hang\n", found)
    assert end == ""


class Lessor:
    """Grants a lease of ten seconds for as long as it can be reached; an answer takes `slow` seconds."""

    def __init__(self, module, heap, ttl=10):
        self.heap = heap
        self.reachable = True
        self.granted = True
        self.asked, self.lost_at = [], []
        self.free = AfterFunc(ttl, lambda: None)
        self.lease = module.Lease(
            ttl, self.renew, lambda: self.lost_at.append(heap.time()), sent=heap.time(), clock=heap.time
        )

    def renew(self):
        self.asked.append(self.heap.time())
        if not self.reachable:
            raise ConnectionError
        if self.granted:
            self.free.reset(10)
        return self.granted


def test_lease_is_renewed_three_times_as_often_as_it_ends():
    with use() as heap:
        lessor = Lessor(load("lease"), heap, ttl=9)
        heap.advance(30)
        assert lessor.asked == [3, 6, 9, 12, 15, 18, 21, 24, 27, 30]
        assert lessor.lost_at == []
        assert lessor.lease.held
        assert lessor.lease.release()
        assert not lessor.lease.held
        lessor.free.stop()


def test_lease_is_given_up_before_another_can_have_it():
    with use() as heap:
        lessor = Lessor(load("lease"), heap, ttl=9)
        heap.advance(6)
        lessor.reachable = False
        heap.advance(8)
        assert lessor.lease.held
        heap.advance(1)
        assert lessor.lost_at == [6 + 9]
        assert lessor.free.active
        assert not lessor.lease.held
        assert not lessor.lease.release()
        heap.advance(20)
        assert lessor.lost_at == [15]
        assert lessor.asked == [3, 6, 9, 12]


def test_lease_that_is_refused_is_lost_at_once():
    with use() as heap:
        lessor = Lessor(load("lease"), heap, ttl=9)
        lessor.granted = False
        heap.advance(9)
        assert lessor.asked == lessor.lost_at == [3]


def test_lease_counts_from_the_request():
    """An answer that took long leaves so much less; one that comes after the deadline revives nothing."""
    with use() as heap:
        clock = heap.time
        delay = [0.0]

        def renew():
            delay[0] += 2  # by the holder's clock, while this call goes on
            return True

        lost = []
        lease = load("lease").Lease(9, renew, lambda: lost.append(heap.time()), sent=-1,
                                    clock=lambda: clock() + delay[0])
        heap.advance(3)
        assert lease._deadline.when == 3 + 9 - 2
        lease._deadline.stop()
        lease._renew()
        assert not lease.held
        lease.release()


def test_lease_runs():
    lines = [line.split(" ms: ")[1] for line in run_example("lease")]
    assert lines[0] == "renewed"
    assert set(lines) == {"renewed", "the network is down", "lost", "the lessor may give it to another"}
    assert lines.count("lost") == 1


# ---- rate limiter ---------------------------------------------------------------------------------------------------


def test_rate_limiter_lets_a_burst_through_then_one_a_period():
    with use(ManualHeap(auto=True)) as heap:
        limiter = load("rate_limiter").RateLimiter(4, burst=3, clock=heap.time)
        times = []
        for _ in range(6):
            limiter.acquire()
            times.append(heap.time())
        assert times == [0, 0, 0, 0.25, 0.5, 0.75]
        heap.advance(100)  # what was not used in that time is one burst
        assert [limiter.try_acquire() for _ in range(4)] == [True, True, True, False]
        assert limiter.acquire() == 0.25
        heap.close()


def test_rate_limiter_is_shared_by_threads():
    with use() as heap:
        limiter = load("rate_limiter").RateLimiter(1, clock=heap.time)
        times = []

        def work():
            limiter.acquire()
            times.append(heap.time())

        threads = [threading.Thread(target=work, daemon=True) for _ in range(4)]
        for thread in threads:
            thread.start()
        for done in (1, 2, 3):
            heap.block_until(4 - done)
            wait_until(lambda done=done: len(times) == done)
            heap.advance(1)
        for thread in threads:
            thread.join(PATIENCE)
        assert times == [0, 1, 2, 3]


def test_rate_limiter_runs():
    lines = run_example("rate_limiter")
    moments = [float(re.fullmatch(r"call \d+ at (\d+\.\d{3}) s", line)[1]) for line in lines]
    assert len(moments) == 15
    assert all(moment >= (call - 4) / 20 - 0.001 for call, moment in enumerate(moments))


# ---- numpy, Dask ----------------------------------------------------------------------------------------------------


@needs_numpy
def test_simulation_finds_what_theory_says(capsys):
    share = load("simulation").main(machines=1000, days=30, mtbf=500.0, mttr=100.0)
    assert abs(share - 500 / 600) < 0.005
    assert capsys.readouterr().out.startswith("1,000 machines, 30 days: ")


@needs_numpy
def test_simulation_is_the_same_each_time():
    plants = [load("simulation").Plant(100, 50.0, 10.0, seed=7) for _ in range(2)]
    assert plants[0].run(2e5) == plants[1].run(2e5)
    assert plants[0].changes == plants[1].changes > 0
    for plant in plants:
        plant.heap.check()
        plant.heap.close()


@needs_numpy
def test_simulation_runs():
    counted, share = run_example("simulation", "1000", "3")
    assert counted.startswith("1,000 machines, 3 days: ")
    assert share.startswith("a machine ran 9")


@pytest.mark.skipif(
    bool(SANITIZER) or importlib.util.find_spec("distributed") is None,
    reason="Dask is not here: make test-examples has it, as has pip install 'timerheap[examples]'",
)
@pytest.mark.parametrize("kill", [False, True], ids=["all live", "a worker is killed"])
def test_no_session_is_lost(kill):
    opened, ended, _ = run_example("sharded_sessions", "--sessions", "2000", "--seconds", "2", *["--kill"] * kill)
    assert opened.startswith("2,000 sessions opened")
    once, others, moved = map(int, re.fullmatch(
        r"([\d,]+) ended once, (\d+) did not; ([\d,]+) were moved", ended.replace(",0", "0")
    ).groups())
    assert (once, others) == (2000, 0)
    assert (moved > 0) == kill
