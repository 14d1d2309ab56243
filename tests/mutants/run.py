"""Seeded bugs: is there a test that fails for each?

mutants.toml names deliberate faults, each a passage of the source and what stands there instead. For each of them
this script

  1. copies the checkout, makes the one replacement and builds the extension in the copy, as a release is built;
  2. runs the tests that the table names, up to the first failure; if they all pass, the whole suite;
  3. says which test failed, or that the fault survives: then the suite has a hole.

A crash counts as caught by the test that was running, and so does a hang. The unchanged source goes first and has to
pass every test named by a chosen mutant, or nothing would be known.

A fault is caught by what a test asserts. The release build has no check() around each mutation of a heap, as a debug
build has; a test that calls heap.check() calls it in every build.

Exit status: 0 all caught, 1 one survives or the unchanged source fails, 2 the table does not fit the source.
"""

import argparse
import concurrent.futures
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TABLE = HERE / "mutants.toml"

# A release's flags, see setup.py.
FLAGS = ["-std=gnu11", "-fvisibility=hidden", "-O3", "-DNDEBUG", "-w"]
PARTS = ["-Icsrc", "-Itimerheap/core"]
SOURCES = ["_core.c", "timerheap/core/gil.c"]

LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv", "build", "dist", "wheelhouse",
    "*.egg-info", "*.so", "__pycache__", ".hypothesis", ".*_cache",
)  # fmt: skip

VERDICT = re.compile(r"^(?:FAILED|ERROR) (tests/.+?)(?: - (.*))?$", re.MULTILINE)
STARTED = re.compile(r"^(tests/\S+?::.+?) *(?:(?:PASSED|FAILED|ERROR|SKIPPED|XFAIL)\b.*)?$", re.MULTILINE)

interrupted = threading.Event()


@dataclass(frozen=True)
class Mutant:
    """One fault: in `file` the passage `old`, which must stand there exactly once, gives way to `new`."""

    name: str
    file: str
    breaks: str
    tests: tuple
    old: str
    new: str


@dataclass
class Result:
    name: str
    file: str
    breaks: str
    caught: bool
    by: str = ""  # the test that failed
    how: str = ""  # its message, or how the process ended
    named: bool = True  # whether the table names that test: else it took the whole suite
    seconds: float = 0.0  # from the start of the tests to the failure


class TableError(Exception):
    """The table does not fit the source."""


class BuildError(Exception):
    """A copy does not build: that shows nothing about the tests."""


# ---- the table ------------------------------------------------------------------------------------------------------


def load():
    with TABLE.open("rb") as file:
        entries = tomllib.load(file)["mutant"]
    mutants = [Mutant(**entry | {"tests": tuple(entry["tests"])}) for entry in entries]
    faults = [fault for mutant in mutants for fault in misfits(mutant)]
    names = [mutant.name for mutant in mutants]
    faults += [f"{name}: this name stands twice" for name in sorted(set(names)) if names.count(name) > 1]
    if faults:
        raise TableError("\n".join(faults))
    return mutants


def misfits(mutant):
    """What keeps a mutant from being applied to the source as it is, in words."""
    try:
        count = (ROOT / mutant.file).read_text().count(mutant.old)
    except FileNotFoundError:
        yield f"{mutant.name}: there is no {mutant.file} any more"
        return
    if count != 1:
        first = next(line.strip() for line in mutant.old.splitlines() if line.strip())
        yield (
            f"{mutant.name}: its passage stands {count} times in {mutant.file}, not once: the source has changed, "
            f"and {TABLE.relative_to(ROOT)} has to follow. The passage begins: {first}"
        )
    if mutant.old == mutant.new:
        yield f"{mutant.name}: it changes nothing"
    for test in mutant.tests:
        path, _, function = test.partition("::")
        if not (ROOT / path).exists():
            yield f"{mutant.name}: there is no {path}"
        elif function and function.split("::")[-1].partition("[")[0] not in (ROOT / path).read_text():
            yield f"{mutant.name}: {path} has no {function}"


def choose(mutants, options):
    if options.only:
        unknown = set(options.only) - {mutant.name for mutant in mutants}
        if unknown:
            raise TableError(f"no mutant is named {', '.join(sorted(unknown))}; --list shows all")
        return [mutant for mutant in mutants if mutant.name in options.only]
    count = len(mutants)
    return [mutants[(options.first + step) % count] for step in range(0, count, options.every)]


# ---- building -------------------------------------------------------------------------------------------------------


def copy_of_the_checkout(tree):
    shutil.copytree(ROOT, tree, ignore=LEFT_OUT, symlinks=True)


def apply(mutant, tree):
    path = tree / mutant.file
    path.write_text(path.read_text().replace(mutant.old, mutant.new))


def build(tree):
    """Build the extension into the copy's own package directory."""
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    target = f"timerheap/_core{sysconfig.get_config_var('EXT_SUFFIX')}"
    include = f"-I{sysconfig.get_path('include')}"
    for command in (
        [sys.executable, "-m", "cython", "-3", *PARTS, "-o", "_core.c", "timerheap/_core.pyx"],
        [*compiler, *FLAGS, "-shared", "-fPIC", include, *PARTS, *SOURCES, "-o", target, "-lpthread"],
    ):
        done = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise BuildError(f"{shlex.join(command)}\n{done.stdout}{done.stderr}")


# ---- running the tests ----------------------------------------------------------------------------------------------


def environment(tree):
    """The copy comes before the timerheap that is installed, in the tests' own processes too."""
    return os.environ | {"PYTHONPATH": str(tree), "PYTHONSAFEPATH": "1", "COLUMNS": "200"}


def prove_the_copy_is_used(tree):
    """Else every mutant would pass."""
    code = "import timerheap._core; print(timerheap._core.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(tree), cwd="/", capture_output=True, text=True, check=False
    )
    if not done.stdout.startswith(str(tree)):
        raise BuildError(f"the tests would not see the copy {tree}: {done.stdout}{done.stderr}")


def end(process):
    """Kill a test run with all that its tests have started, in whichever session."""
    try:
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        family = []
    for member in family:
        try:
            member.kill()
        except psutil.NoSuchProcess:
            pass
    process.wait()


def pytest(tree, tests, patience, *, first_only=True):
    """Run tests in the copy: (test, how) of the first failure, or None when all pass.

    A test gets `patience` seconds from pytest-timeout. One that holds the GIL for ever cannot be ended from within:
    when there is no news for longer than that, the run is killed.
    """
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", f"--timeout={patience}", *tests]
    if first_only:
        command.append("-x")
    out, err = tree / "out.log", tree / "err.log"
    hangs = False
    with out.open("w") as stdout, err.open("w") as stderr:
        process = subprocess.Popen(
            command, cwd=tree, env=environment(tree), stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr,
            start_new_session=True,
        )  # fmt: skip
        silent, size = 0.0, 0
        try:
            while process.poll() is None and not hangs:
                if interrupted.wait(0.1):
                    raise KeyboardInterrupt
                # Counted in steps, not by the clock: a machine that was suspended is no hang.
                silent, size = (silent + 0.1, size) if out.stat().st_size == size else (0.0, out.stat().st_size)
                hangs = silent > patience + 15
        finally:
            end(process)
    said = out.read_text(errors="replace")
    if process.returncode == 0 and not hangs:
        return None
    verdict = VERDICT.search(said)
    if verdict:
        return verdict[1], verdict[2] or "failed"
    last = STARTED.findall(said)
    where = last[-1] if last else "the import"
    if hangs:
        return where, "hang"
    if process.returncode < 0:
        return where, f"crash, {signal.Signals(-process.returncode).name}"
    return where, (said + err.read_text(errors="replace")).strip()[-300:]


def try_mutant(mutant, patience):
    result = Result(mutant.name, mutant.file, mutant.breaks, caught=False)
    with tempfile.TemporaryDirectory(prefix="timerheap-mutant-") as scratch:
        tree = Path(scratch) / "tree"
        copy_of_the_checkout(tree)
        apply(mutant, tree)
        build(tree)
        start = time.monotonic()
        failure = pytest(tree, mutant.tests, patience)
        if failure is None:
            result.named = False
            failure = pytest(tree, ["tests"], patience)
        result.seconds = round(time.monotonic() - start, 1)
    if failure is not None:
        result.caught = True
        result.by, result.how = failure
    return result


def try_baseline(mutants, patience):
    """The first failure of the unchanged source in the tests that the mutants name, or None."""
    tests = {test for mutant in mutants for test in mutant.tests}
    # What is part of a file that is run anyway is not run twice.
    tests = sorted(test for test in tests if "::" not in test or test.partition("::")[0] not in tests)
    with tempfile.TemporaryDirectory(prefix="timerheap-mutant-") as scratch:
        tree = Path(scratch) / "tree"
        copy_of_the_checkout(tree)
        build(tree)
        prove_the_copy_is_used(tree)
        return pytest(tree, tests, patience, first_only=False)


# ---- the report -----------------------------------------------------------------------------------------------------


def outcome(result):
    if not result.caught:
        return "SURVIVES"
    return f"caught by {result.by} in {result.seconds:.0f} s{'' if result.named else ', by the whole suite'}"


def table(results):
    """A Markdown table, which is what README.md shows."""
    yield "| mutant | file | what is broken | caught by | s |"
    yield "| --- | --- | --- | --- | --- |"
    for result in results:
        by = f"`{result.by.removeprefix('tests/')}`" if result.caught else "SURVIVES"
        if result.how.startswith(("hang", "crash")):
            by += f" ({result.how})"
        file = result.file.removeprefix("timerheap/")
        yield f"| {result.name} | {file} | {result.breaks} | {by} | {result.seconds:.1f} |"


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="mutants at a time (1)")
    parser.add_argument("--every", type=int, default=1, metavar="K", help="each K-th mutant only (1: all)")
    parser.add_argument("--first", type=int, default=0, metavar="I", help="beginning with the I-th, modulo their count")
    parser.add_argument("--only", action="append", metavar="NAME", help="this mutant; may be given again")
    parser.add_argument("--patience", type=int, default=60, metavar="S", help="seconds a test may take (60)")
    parser.add_argument("--list", action="store_true", help="name the mutants, run nothing")
    parser.add_argument("--json", action="store_true", help="the report as JSON on stdout; progress goes to stderr")
    options = parser.parse_args()
    for name in ("jobs", "every", "patience"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} must be positive")
    return options


def run(mutants, options):
    """Baseline, then the mutants, telling of each as it is done: (the baseline's failure, results in the table's
    order)."""
    progress = sys.stderr if options.json else sys.stdout
    failure = try_baseline(mutants, options.patience)
    if failure is not None:
        print(f"the unchanged source fails {failure[0]}: {failure[1]}", file=progress, flush=True)
        return failure, []
    print(f"unchanged source: clean; {len(mutants)} mutants", file=progress, flush=True)
    results = {}
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        try:
            jobs = [pool.submit(try_mutant, mutant, options.patience) for mutant in mutants]
            for job in concurrent.futures.as_completed(jobs):
                result = job.result()
                results[result.name] = result
                detail = f"    {result.how}" if result.caught else f"    {result.breaks}"
                print(f"{result.name}: {outcome(result)}\n{detail}", file=progress, flush=True)
        except BaseException:
            interrupted.set()
            pool.shutdown(cancel_futures=True)
            raise
    return None, [results[mutant.name] for mutant in mutants]


def main():
    # A shell starts its background jobs with SIGINT ignored; and what ends this script has to end the tests as well.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    options = arguments()
    try:
        mutants = load()
        chosen = choose(mutants, options)
        if options.list:
            for mutant in chosen:
                print(f"{mutant.name:34} {mutant.file:24} {mutant.breaks}")
            return 0
        start = time.monotonic()
        failure, results = run(chosen, options)
    except TableError as exc:
        print(exc, file=sys.stderr)
        return 2
    except BuildError as exc:
        print(f"a copy does not build\n{exc}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    survivors = [result for result in results if not result.caught]
    if options.json:
        report = {
            "python": sys.version.split()[0],
            "date": time.strftime("%Y-%m-%d", time.gmtime()),
            "baseline_failure": None if failure is None else list(failure),
            "mutants": [asdict(result) for result in results],
        }
        print(json.dumps(report, indent=1))
    elif failure is None:
        print("", *table(results), "", sep="\n")
        print(f"Python {sys.version.split()[0]}, {time.strftime('%F', time.gmtime())}, "
              f"{time.monotonic() - start:.0f} s")  # fmt: skip
        for result in survivors:
            print(f"{result.name} survives: {result.breaks}")
        print(f"{len(results) - len(survivors)} of {len(results)} caught; 1 baseline clean")
    return 1 if survivors or failure is not None else 0


if __name__ == "__main__":
    sys.exit(main())
