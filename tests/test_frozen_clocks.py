"""freezegun and time-machine put other clocks in the place of Python's: timerheap's are not theirs to stop."""

import asyncio
import datetime
import time

import pytest
from helpers import Background

from timerheap import AfterFunc, Ticker, Timer, sleep
from timerheap.testing import ManualHeap, run, use

THEN = datetime.datetime(2020, 2, 2, 20, 20, tzinfo=datetime.UTC)


def by_freezegun():
    freezegun = pytest.importorskip("freezegun", reason="pip install 'timerheap[test]'")
    return freezegun.freeze_time(THEN)


def by_time_machine():
    time_machine = pytest.importorskip("time_machine", reason="pip install 'timerheap[test]'")
    return time_machine.travel(THEN, tick=False)


@pytest.fixture(params=[by_freezegun, by_time_machine], ids=["freezegun", "time-machine"])
def frozen(request):
    """Within the test the time of day stands still."""
    with request.param():
        assert time.time() == time.time() == THEN.timestamp()
        yield


def test_real_timers_go_on(frozen):
    assert Timer(0.01).c.recv(timeout=30)
    with pytest.raises(TimeoutError):
        Timer(3600).c.recv(timeout=0.01)
    sleep(0.01)


def test_a_manual_clock_moves(frozen):
    with use() as heap:
        seen = []
        AfterFunc(3600, lambda: seen.append((heap.time(), time.time())))
        heap.advance(3600)
        assert seen == [(3600.0, THEN.timestamp())]
    with use(ManualHeap(auto=True)) as heap:
        sleep(60)
        assert heap.time() == 60.0


def test_consumers_are_waited_for(frozen):
    heap = ManualHeap()
    ticker, seen = Ticker(1, heap=heap), []
    consumer = Background(lambda: [seen.append(at) for at in ticker])
    heap.block_until(1)
    heap.advance(1)
    heap.block_until(1)
    assert seen == [1.0]
    with pytest.raises(TimeoutError):
        heap.block_until(2, timeout=0.01)
    ticker.stop()
    consumer.result()


def test_asyncio_goes_on_under_virtual_time(frozen):
    async def main():
        await asyncio.sleep(3600)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await Timer(60).c
        return asyncio.get_running_loop().time(), time.time()

    assert run(main()) == (3605.0, THEN.timestamp())
