"""anyio's own tests, from its sdist: on each loop they must come out as on the loop that it takes the place of.

Compared are outcomes, test by test, with a control in the same run: what this machine or this interpreter makes of a
test (there may be no IPv6, and no name service) it makes of it on both. A test that differs is tried again, on both,
with no other test than those that differ; what differs then as well is a failure, and what does not is said.

The script is also the pytest plugin that puts the loop in the place of asyncio's in each run.
"""

import argparse
import asyncio
import collections
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import uvloop
from loops import LOOPS, armed

CONTROLS = {"timerheap": "stock", "timerheap-uvloop": "uvloop"}

ALL = LOOPS | {"uvloop": uvloop.Loop}

# ---- the plugin


def pytest_addoption(parser):
    parser.addoption("--loop", choices=ALL)
    parser.addoption("--outcomes", type=Path)


def counted(base):
    """A subclass that adds up, in its `arms`, what the loops have armed natively by the time that they are closed."""

    class Loop(base):
        arms = 0

        def close(self):
            if not self.is_closed():
                Loop.arms += armed(self) or 0
            super().close()

    return Loop


def pytest_configure(config):
    """Whoever asks asyncio for a loop gets this one: asyncio.Runner, anyio's backend and its pytest plugin."""
    loop = counted(ALL[config.getoption("loop")])
    asyncio.new_event_loop = asyncio.events.new_event_loop = loop
    if hasattr(asyncio, "EventLoop"):
        asyncio.EventLoop = loop
    if hasattr(config, "workerinput"):
        config.pluginmanager.register(Worker(loop))
    else:
        config.pluginmanager.register(Outcomes(config.getoption("outcomes")))


class Worker:
    """In a process of pytest-xdist: tells the first one what was armed."""

    def __init__(self, loop):
        self._loop = loop

    def pytest_sessionfinish(self, session):
        session.config.workeroutput["arms"] = self._loop.arms


class Outcomes:
    """Writes what became of each test, and how many timers were armed natively."""

    def __init__(self, path):
        self._path = path
        self._outcomes = {}
        self._arms = 0

    def pytest_runtest_logreport(self, report):
        if report.when == "call" or report.outcome != "passed":
            self._outcomes[report.nodeid] = report.outcome

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node, error):
        self._arms += node.workeroutput["arms"]

    def pytest_sessionfinish(self, session):
        self._path.write_text(json.dumps([self._outcomes, self._arms]))


# ---- the script


def run(directory, loop, arguments):
    """The tests on one loop: {test: outcome}, how many timers were armed natively, and what pytest said."""
    with tempfile.TemporaryDirectory() as scratch:
        outcomes = Path(scratch, "outcomes")
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "2", "-p", "anyio_suite",
             "--loop", loop, "--outcomes", outcomes, *arguments],
            cwd=directory, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parent)},
        )
        if done.returncode not in (0, 1):
            sys.exit(done.stdout)
        return *json.loads(outcomes.read_text()), done.stdout


def differing(outcomes, expected):
    """{test: (its outcome on the control, on the loop)} of the tests where the two are not the same."""
    pairs = {test: (expected.get(test), outcomes.get(test)) for test in outcomes | expected}
    return {test: pair for test, pair in pairs.items() if pair[0] != pair[1]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, help="the unpacked sdist")
    directory = parser.parse_args().directory
    seen = {}
    for loop in ALL:
        # The loop stands in asyncio's place; the other variants are anyio's own choices of a loop or a task factory.
        seen[loop], arms, output = run(directory, loop, ["-k", "asyncio and not uvloop and not eager"])
        counts = collections.Counter(seen[loop].values())
        outcomes = ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items()))
        print(f"{loop}: {outcomes}; {arms} timers armed natively", flush=True)
        if counts["passed"] < 500 or (arms > 0) != (loop in CONTROLS):
            sys.exit(output)
    failed = False
    for loop, control in CONTROLS.items():
        first = differing(seen[loop], seen[control])
        if not first:
            continue
        outcomes, _, output = run(directory, loop, first)
        again = differing(outcomes, run(directory, control, first)[0])
        for test, pair in sorted(first.items()):
            print(f"  {test}: {pair[0]} on {control}, {pair[1]} on {loop}", "" if test in again else "(once only)")
        if again:
            failed = True
            print(output)
    sys.exit(failed)


if __name__ == "__main__":
    main()
