"""Runs one module of tests, over the loop classes as they are or with timerheap's in their place; run.py starts it.

    python worker.py {stock,timerheap} {asyncio,uvloop} MODULE RESULTS [--plan FILE] [--patience SECONDS]

RESULTS gets a line of JSON for each event as it happens, so that a test which hangs or ends the process is known by
name: {"plan": [id, ...]}, {"start": id}, {"end": id, "outcome": ..., "why": last lines of a traceback}, {"done": ...}.
--plan names the tests to run, as a list in JSON. A test that takes longer than --patience ends the process, with the
stack of every thread in the log.
"""

import argparse
import faulthandler
import importlib
import json
import signal
import sys
import traceback
import unittest

# From the one that decides to the one that is overruled by each other: a test may report several (subtests, cleanups).
OUTCOMES = ("error", "fail", "unexpected success", "expected failure", "skip", "ok")

# The test modules that build on one of asyncio's base classes. In others the class stays what it is: test_tasks patches
# a method of it, and test_events asks whether a loop is an instance.
BASES = {
    "BaseEventLoop": ("test_base_events", "test_futures", "test_pep492", "test_runners"),
    "BaseSelectorEventLoop": ("test_base_events", "test_selector_events"),
    "BaseProactorEventLoop": ("test_proactor_events",),
}


class Loops:
    """Counts the loops that are made: those of a class that was put in, and the others."""

    def __init__(self):
        self.swapped = []
        self.ours = self.others = 0

    def count(self, loop):
        if isinstance(loop, tuple(self.swapped)):
            self.ours += 1
        else:
            self.others += 1

    def watch(self, base):
        """Counts each loop whose class has this one among its bases."""
        original = base.__init__

        def __init__(loop, *args, **kwargs):  # noqa: N807
            self.count(loop)
            original(loop, *args, **kwargs)

        base.__init__ = __init__


def replace(modules, old, new):
    """Puts the class new in the place of old under each name of these modules."""
    for module in modules:
        for name, value in list(vars(module).items()):
            if value is old:
                setattr(module, name, new)


def prepare(suite, swap, module):
    import asyncio
    from asyncio import base_events, proactor_events, selector_events, unix_events

    loops = Loops()
    loops.watch(base_events.BaseEventLoop)
    if swap:
        import timerheap.asyncio
        loops.swapped.append(timerheap.asyncio.EventLoop)
        modules = [found for name, found in sorted(sys.modules.items()) if name.split(".")[0] == "asyncio"]
        stock = unix_events.SelectorEventLoop
        for value in list(vars(unix_events).values()):
            if isinstance(value, type) and vars(value).get("_loop_factory") is stock:
                value._loop_factory = timerheap.asyncio.EventLoop
        replace(modules, stock, timerheap.asyncio.EventLoop)
        for base in (base_events.BaseEventLoop, selector_events.BaseSelectorEventLoop,
                     proactor_events.BaseProactorEventLoop):
            ours = timerheap.asyncio.loop_class(base)
            loops.swapped.append(ours)
            if suite == "asyncio" and base.__name__ == "BaseEventLoop":
                # TestLoop, over which the tests of transports, locks and tasks run, is made when this is imported.
                base_events.BaseEventLoop = ours
                importlib.import_module("test.test_asyncio.utils")
                base_events.BaseEventLoop = base
            if module.rpartition(".")[2] in BASES[base.__name__]:
                replace(modules, base, ours)
    if suite == "uvloop":
        import uvloop._testbase
        if swap:
            uvloop.Loop = timerheap.asyncio.loop_class(uvloop.Loop)
            loops.swapped.append(uvloop.Loop)
        # They know asyncio's loops by the name of the module of their class.
        uvloop._testbase.BaseTestCase.is_asyncio_loop = lambda test: test.implementation == "asyncio"
        original = uvloop.new_event_loop

        def new_event_loop():
            loop = original()
            loops.count(loop)
            return loop

        uvloop.new_event_loop = new_event_loop
    assert asyncio.SelectorEventLoop in loops.swapped or not swap
    return loops


class Result(unittest.TestResult):
    def __init__(self, emit, patience):
        super().__init__()
        self.emit = emit
        self.patience = patience
        self.reported = {}

    def startTest(self, test):
        super().startTest(test)
        self.reported[test.id()] = []
        self.emit(start=test.id())
        faulthandler.dump_traceback_later(self.patience, exit=True)

    def stopTest(self, test):
        faulthandler.cancel_dump_traceback_later()
        super().stopTest(test)
        reports = self.reported.pop(test.id(), None)
        if reports is None:  # CPython 3.12.1 ends tests that it skips without having begun them
            return
        outcome, why = min(reports or [("error", "reported nothing")], key=lambda report: OUTCOMES.index(report[0]))
        self.emit(end=test.id(), outcome=outcome, why=why)

    def report(self, test, outcome, why=""):
        identity = getattr(test, "test_case", test).id()
        if isinstance(why, tuple):
            why = "\n".join("".join(traceback.format_exception(*why)).splitlines()[-12:])
        if identity in self.reported:
            self.reported[identity].append((outcome, why))
        else:  # a fixture of a class or a module, which has no start
            self.emit(end=identity, outcome=outcome, why=why)

    def addSuccess(self, test):
        self.report(test, "ok")

    def addError(self, test, err):
        self.report(test, "error", err)

    def addFailure(self, test, err):
        self.report(test, "fail", err)

    def addSkip(self, test, reason):
        self.report(test, "skip", reason)

    def addExpectedFailure(self, test, err):
        self.report(test, "expected failure", err)

    def addUnexpectedSuccess(self, test):
        self.report(test, "unexpected success")

    def addSubTest(self, test, subtest, err):
        if err is not None:
            failed = issubclass(err[0], test.failureException)
            self.report(test, "fail" if failed else "error", (err[0], err[1], err[2]))


def flat(suite):
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from flat(test)
        else:
            yield test


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("loops", choices=("stock", "timerheap"))
    parser.add_argument("suite", choices=("asyncio", "uvloop"))
    parser.add_argument("module")
    parser.add_argument("results")
    parser.add_argument("--plan")
    parser.add_argument("--patience", type=float, default=60)
    arguments = parser.parse_args()

    with open(arguments.results, "w", encoding="utf-8") as results:
        def emit(**event):
            results.write(json.dumps(event) + "\n")
            results.flush()

        faulthandler.enable()
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background has it ignored
        loops = prepare(arguments.suite, arguments.loops == "timerheap", arguments.module)
        try:
            tests = list(flat(unittest.defaultTestLoader.loadTestsFromName(arguments.module)))
        except unittest.SkipTest as skip:  # a module of another system's
            tests = []
            emit(end=f"{arguments.module} as a whole", outcome="skip", why=str(skip))
        if arguments.plan:
            with open(arguments.plan, encoding="utf-8") as file:
                planned = set(json.load(file))
            tests = [test for test in tests if test.id() in planned]
        emit(plan=[test.id() for test in tests])
        unittest.TestSuite(tests).run(Result(emit, arguments.patience))
        emit(done=True, ours=loops.ours, others=loops.others)
        faulthandler.dump_traceback_later(30, exit=True)  # a thread that was left behind keeps the interpreter here


if __name__ == "__main__":
    main()
