"""Real programs, unchanged, on the event loops of timerheap.asyncio and on the stock loop beside them.

Each test gets its loop from the fixture `run` or `loops`, and so runs once for each row of LOOPS. The stock loop is the
control: what fails there is the test's or the program's fault. On the others the program's timers must have been armed
on the native heap, which is asked when the test is over, and in every case the loop's exception handler must not have
been called.
"""

import asyncio

import pytest
import servers
from loops import LOOPS, timers_of


class Loops:
    """Makes loops of one class, and keeps what they report and their native timers."""

    def __init__(self, name):
        self._name = name
        self._reports = []
        self._timers = []

    def __call__(self):
        loop = LOOPS[self._name]()
        loop.set_exception_handler(lambda loop, context: self._reports.append(context))
        self._timers.append(timers_of(loop))
        return loop

    def check(self):
        """All these loops are closed: their ledgers are even, and nothing has been left behind."""
        assert self._timers, "the test has used no loop"
        assert not self._reports
        if self._name == "stock":
            assert set(self._timers) == {None}
            return
        for timers in self._timers:
            timers.check()
            stats = timers.stats()
            assert stats["arms"] > 0, "no timer of this program has come to the native heap"
            assert (stats["arms"], stats["armed"]) == (stats["fired"] + stats["cancelled"], 0)


@pytest.fixture(params=LOOPS)
def loops(request):
    """A loop factory; what its loops have seen is looked at when the test is over."""
    made = Loops(request.param)
    yield made
    made.check()


@pytest.fixture
def run(loops):
    """`run(main)` runs a coroutine function on one of these loops, and returns what it returns."""

    def run(main):
        with asyncio.Runner(loop_factory=loops) as runner:
            return runner.run(main())

    return run


@pytest.fixture(scope="session")
def redis_socket():
    with servers.redis() as path:
        yield path


@pytest.fixture(scope="session")
def postgres_directory():
    with servers.postgres() as directory:
        yield directory
