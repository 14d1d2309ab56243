"""The tests of asyncio and of uvloop over timerheap's loops, against the same tests over the loops as they are.

    python tests/asyncio_suite/run.py [--share] [--suite asyncio|uvloop] [MODULE...]

Each module of tests runs in a process of its own, twice: over the stock classes and with timerheap's in their place
(worker.py). The outcome of each test is compared by its id. There is no difference but what expected.toml names, and
what it names has to occur. A test that differs is run alone, over both, and counts unless they agree twice of three
times; a test that hangs or ends its process is named, and the module goes on without it.

asyncio: the interpreter's own test.test_asyncio, EventLoop in the place of asyncio.SelectorEventLoop and of what
new_event_loop() makes, loop_class(base) in that of the base classes which tests build on, TestLoop's among them.
uvloop: the tests of uvloop's sdist, loop_class(uvloop.Loop) in the place of uvloop.Loop, and the above for asyncio.
"""

import argparse
import collections
import concurrent.futures
import contextlib
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import platform
import signal
import subprocess
import sys
import tarfile
import time
import tomllib
import typing

HERE = pathlib.Path(__file__).resolve().parent
BUILD = HERE.parents[1] / "build" / "asyncio_suite"
VERSION = ".".join(platform.python_version_tuple()[:2])

# The modules in which timers matter most: .ci/run runs these.
SHARE = {
    "asyncio": ("test_base_events", "test_events", "test_locks", "test_queues", "test_runners", "test_taskgroups",
                "test_tasks", "test_timeouts", "test_waitfor"),
    "uvloop": ("test_base",),
}
# What concerns uvloop's source, and not a loop.
LEFT_OUT = ("test_sourcecode",)
ROUNDS = 3
MANY = 30  # differences are not by chance
PROCESS = "its process"  # what ended or hung where no test ran



class Outcome(typing.NamedTuple):
    name: str
    why: str = ""


ABSENT = Outcome("absent")
NOT_RUN = Outcome("not run")


class Suite:
    """The tests of one origin: the modules, and where they are found."""

    def __init__(self, name):
        self.name = name
        if name == "asyncio":
            found = importlib.util.find_spec("test.test_asyncio") if importlib.util.find_spec("test") else None
            if found is None:
                raise SystemExit(f"the test package of {sys.executable} is not there "
                                 "(Debian: libpython3.x-testsuite; pyenv and .ci/python-sid have it)")
            self.package, self.root = "test.test_asyncio", None
            directory = pathlib.Path(found.submodule_search_locations[0])
        else:
            self.package, self.root = "tests", uvloop_sources()
            directory = self.root / "tests"
        self.modules = [path.stem for path in sorted(directory.glob("test_*.py")) if path.stem not in LEFT_OUT]


def uvloop_sources():
    """The directory tests/ of the sdist of the uvloop that is installed: the wheel has none."""
    version = importlib.metadata.version("uvloop")
    root = BUILD / f"uvloop-{version}"
    if not (root / "tests").is_dir():
        subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
                        "--no-binary", "uvloop", "--dest", str(BUILD), f"uvloop=={version}"],
                       check=True)
        with tarfile.open(BUILD / f"uvloop-{version}.tar.gz") as archive:
            archive.extractall(BUILD, [member for member in archive.getmembers()
                                       if member.name.startswith(f"uvloop-{version}/tests/")], filter="data")
    return root


class Runs:
    """Runs modules in processes of their own, and keeps what each left in its directory."""

    def __init__(self, suite, patience, limit):
        self.suite = suite
        self.patience = patience
        self.limit = limit
        self.directory = BUILD / f"{suite.name}-{platform.python_version()}{sys.abiflags}"
        self.directory.mkdir(parents=True, exist_ok=True)
        self.loops = collections.Counter()
        self.strangers = []

    def process(self, loops, module, name, plan):
        """One process; its events, its log, and how it ended."""
        stem = self.directory / f"{name}.{loops}"
        results, log, planned = (stem.with_suffix(f"{stem.suffix}.{kind}") for kind in ("results", "log", "plan"))
        results.write_text("")
        command = [sys.executable, HERE / "worker.py", loops, self.suite.name, f"{self.suite.package}.{module}",
                   results, "--patience", str(self.patience)]
        if plan is not None:
            planned.write_text(json.dumps(plan))
            command += ["--plan", planned]
        environment = dict(os.environ)
        if self.suite.root is not None:
            environment["PYTHONPATH"] = str(self.suite.root)
        with open(log, "wb") as output, subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, cwd=self.directory,
                env=environment, start_new_session=True) as process:
            try:
                ended = f"ended with {process.wait(self.limit)}"
            except subprocess.TimeoutExpired:
                ended = f"did not end in {self.limit:g} s"
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # with whatever it has left behind
        events = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
        return events, log.read_text(encoding="utf-8", errors="replace"), ended

    def module(self, loops, module, plan=None, name=None):
        """{id: Outcome} of a module's tests over these loops, of the planned ones only if any are."""
        outcomes = {}
        while True:
            events, log, ended = self.process(loops, module, name or module, plan)
            listed, running, done = [], None, False
            for event in events:
                if "plan" in event:
                    listed = event["plan"]
                elif "start" in event:
                    running = event["start"]
                elif "end" in event:
                    outcomes[event["end"]] = Outcome(event["outcome"], event["why"])
                    running = None
                else:
                    done = True
                    self.loops[loops, "ours"] += event["ours"]
                    self.loops[loops, "others"] += event["others"]
                    if loops == "timerheap" and event["others"]:
                        self.strangers.append(f"{event['others']} in {module}")
            if done and ended == "ended with 0":
                return outcomes
            hung = "Timeout (" in log or ended.startswith("did not")
            outcomes[running or f"{module}: {PROCESS}"] = Outcome(
                "hang" if hung else "crash", "\n".join([ended, *log.splitlines()[-12:]]))
            plan = [test for test in listed if test not in outcomes]
            if not running or not plan:
                outcomes.update(dict.fromkeys(plan, NOT_RUN))
                return outcomes

    def alone(self, module, test):
        """The outcomes of one test by itself over either loop, until they agree or differ most of the times.

        What is not a test, but a fixture or the process, takes the whole module.
        """
        plan = [test] if test.startswith(self.suite.package) and " " not in test else None
        agreed, rounds = 0, []
        for _ in range(ROUNDS):
            rounds.append([self.module(loops, module, plan, f"{module}.alone").get(test, ABSENT)
                           for loops in ("stock", "timerheap")])
            agreed += rounds[-1][0].name == rounds[-1][1].name
            if max(agreed, len(rounds) - agreed) > ROUNDS // 2:
                break
        last = next(both for both in reversed(rounds)
                    if (both[0].name == both[1].name) == (agreed > ROUNDS // 2))
        return last, " ".join(f"{stock.name}/{ours.name}" for stock, ours in rounds)


def expectations(suite):
    """{id: what expected.toml says} for this suite and this interpreter."""
    with open(HERE / "expected.toml", "rb") as file:
        rows = tomllib.load(file).get("difference", [])
    return {row["test"]: row for row in rows if row["suite"] == suite and VERSION in row.get("pythons", [VERSION])}


def indented(text):
    return "".join(f"      | {line}\n" for line in text.splitlines())


def compare(suite, modules, jobs, patience, limit):
    """Runs these modules of a suite, prints what there is to say, and returns how many things are wrong."""
    runs = Runs(suite, patience, limit)
    wrong, flaky, tally = 0, [], collections.Counter()
    expected = {test: row for test, row in expectations(suite.name).items() if test.split(".")[-3] in modules}
    start = time.monotonic()

    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        pending = [(module, [pool.submit(runs.module, loops, module) for loops in ("stock", "timerheap")])
                   for module in modules]
        found = []
        for module, both in pending:
            stock, ours = (future.result() for future in both)
            counts = collections.Counter(outcome.name for outcome in ours.values())
            print(f"  {module:28}", ", ".join(f"{count} {name}" for name, count in sorted(counts.items())), flush=True)
            process = f"{module}: {PROCESS}"
            if process in stock and (len(stock) == 1 or NOT_RUN in stock.values()):
                wrong += 1
                print(f"  WRONG: the tests of {module} were not run\n{indented(stock[process].why)}", end="")
            for test in sorted(stock.keys() | ours.keys()):
                one, other = stock.get(test, ABSENT), ours.get(test, ABSENT)
                tally["tests"] += 1
                if "_FailedTest" in test:
                    wrong += 1
                    print(f"  WRONG: {test} cannot be imported\n{indented(one.why)}", end="")
                elif one.name != other.name:
                    found.append((module, test, one, other))
                elif one.name not in ("ok", "skip", "expected failure"):
                    tally["wrong in both"] += 1
                    print(f"    over both: {test}: {one.name}")

    many = len(found) > MANY
    for module, test, one, other in found:
        history = f"{one.name}/{other.name}"
        row = expected.get(test)
        if row and (row["stock"], row["timerheap"]) == (one.name, other.name):
            print(f"  as expected: {test}: {one.name}, over timerheap {other.name}: {row['why']}")
            del expected[test]
            tally["expected"] += 1
            continue
        repeated = "not repeated, for there are many"
        if not many:
            (one, other), repeated = runs.alone(module, test)
        if one.name == other.name:
            flaky.append(f"{test}: {history}, then {repeated}")
            continue
        wrong += 1
        print(f"  DIFFERS: {test}: {one.name}, over timerheap {other.name} ({history}, then {repeated})")
        if wrong <= MANY:
            print(indented((other if other.why and other.name != "ok" else one).why), end="")
    for test in expected:
        wrong += 1
        print(f"  EXPECTED, and did not occur: {test}")
    for line in flaky:
        print(f"  flaky: {line}")
    if not runs.loops["timerheap", "ours"]:
        wrong += 1
        print("  WRONG: not one loop of timerheap's was made")
    for module in runs.strangers:
        wrong += 1
        print(f"  WRONG: loops that are not of timerheap's, in its run: {module}")
    print(f"{suite.name}, CPython {platform.python_version()}{sys.abiflags}: {tally['tests']} tests in {len(modules)}"
          f" modules, {wrong} wrong, {tally['expected']} expected differences, {len(flaky)} flaky,"
          f" {tally['wrong in both']} that fail over both; {runs.loops['timerheap', 'ours']} loops of timerheap's,"
          f" {time.monotonic() - start:.0f} s")
    return wrong


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="test_timeouts, say; else all of them")
    parser.add_argument("--suite", choices=("asyncio", "uvloop"), action="append")
    parser.add_argument("--share", action="store_true", help="the modules in which timers matter most")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--patience", type=float, default=60, help="seconds for a test")
    parser.add_argument("--limit", type=float, default=900, help="seconds for a module")
    arguments = parser.parse_args()

    wrong = 0
    for name in arguments.suite or ("asyncio", "uvloop"):
        suite = Suite(name)
        chosen = arguments.modules or (SHARE[name] if arguments.share else suite.modules)
        if arguments.modules and len(arguments.suite or ()) == 1 and (unknown := set(chosen) - set(suite.modules)):
            parser.error(f"no such modules: {' '.join(sorted(unknown))}")
        if modules := [module for module in suite.modules if module in chosen]:
            wrong += compare(suite, modules, arguments.jobs, arguments.patience, arguments.limit)
    sys.exit(wrong != 0)


if __name__ == "__main__":
    main()
