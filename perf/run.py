"""make bench: every subject on everything, and a page about it.

    python perf/run.py [--quick | --renew | --only asyncio | --only arrays] [--output DIR] [--rounds N]

Subjects take turns, a process each, round after round, so that what the machine does meanwhile falls on all of them
alike. The directory gets timers.json.gz (pyperf's), lateness.json, footprint.json, arrays.json, asyncio.json,
rest.json, and what report.py makes of them: README.md and SVG plots. A run takes about an hour, --quick under ten
minutes. --renew measures how late timers are and what a tolerance costs, alone, in some five minutes, into the
directory of an earlier run: the page says what is of which. --only asyncio measures asyncio's timers on several event
loops, in ten rounds and twenty minutes, and prints their tables; the page of an earlier run in the directory gets them
too. --only arrays does so with TimerArray, in five rounds and about ten minutes.
"""

import argparse
import datetime
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import arrays
import event_loops
import footprint
import lateness
import pyperf
import report
from bench_timers import EXTRAS, FIRES
from peers import SUBJECTS, present

HERE = Path(__file__).parent
CORE = ("arm", "arm_stop", "reset", "stop")
NATIVE = ("timerheap", "Go")
TOLERANT = "fire_spread_tolerant"


def plan(subjects, quick):
    """(subject, size, operations) of one round, in order."""
    sizes = [1000, 1_000_000] if quick else [1000, 32_768, 1_000_000, 10_000_000]
    for size in sizes:
        for name in subjects:
            peer = SUBJECTS[name]
            if size > peer.most or (quick and size > 1000 and name not in (*NATIVE, "asyncio", "uvloop")):
                continue
            fires = FIRES if size == 1_000_000 and not quick else ("fire",)
            fires = [operation for operation in fires if operation in peer.operations]
            walk = ["walk", "walk_reset"] if name == "timerheap" else []
            yield name, size, [*CORE, *walk, *fires]
            if name in NATIVE and size == 1_000_000 and not quick:
                yield name, size, [*EXTRAS, *(["select_64"] if name == "timerheap" else [])]


def bench(work, rounds, quick, path):
    """Measure the work of plan() in turns; what the file has already stays."""
    for turn in range(rounds):
        for name, size, operations in work:
            print(f"round {turn + 1} of {rounds}: {name}, {size:,} pending", file=sys.stderr)
            values = 2 if size > 1_000_000 or quick else 3
            command = [sys.executable, HERE / "bench_timers.py", "--quiet", "--processes", "1", "--values", str(values)]
            command += ["--append", path, "--subject", name, "--size", str(size), "--operation", *operations]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(f"{name}: {done.stderr}")


def import_time(runs=15):
    """Milliseconds that importing timerheap takes more than importing threading: medians of alternating processes."""
    taken = {"threading": [], "timerheap": []}
    for _ in range(runs):
        for name, times in taken.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, "-P", "-c", f"import threading, {name}"], check=True)
            times.append(time.perf_counter() - start)
    return 1e3 * (statistics.median(taken["timerheap"]) - statistics.median(taken["threading"]))


def zipped(directory):
    """Kilobytes of the installed package in a zip archive, which is what a wheel is."""
    import timerheap

    archive = Path(directory) / "package.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in Path(timerheap.__file__).parent.iterdir():
            if path.is_file():
                packed.write(path, path.name)
    size = archive.stat().st_size / 1000
    archive.unlink()
    return size


def machine():
    with open("/proc/cpuinfo") as info:
        model = next(
            (line.split(":")[1].strip() for line in info if line.startswith("model name")), platform.processor()
        )
    commit = subprocess.run(
        ["git", "-C", HERE, "describe", "--always", "--dirty"], capture_output=True, text=True
    ).stdout.strip()
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "commit": commit or "not a git checkout",
        "python": f"{platform.python_implementation()} {platform.python_version()}, {platform.python_compiler()}",
        "system": f"Linux {platform.release()} {platform.machine()}, {model}, {os.cpu_count()} processors",
    }


def forget(path, operation):
    """Take the benchmarks of an operation out of a file of pyperf's."""
    suite = pyperf.BenchmarkSuite.load(str(path))
    kept = [benchmark for benchmark in suite if benchmark.get_name().split("/")[1] != operation]
    pyperf.BenchmarkSuite(kept).dump(str(path), replace=True)


def measure_lateness(versions, quick):
    subjects = [name for name in lateness.DEFAULT if name in versions]
    return lateness.collect(subjects, ("idle",) if quick else lateness.SCENARIOS, 2.0 if quick else 3.0)


def measure_asyncio(rounds, quick=False):
    """The part that has an interpreter, rounds and subjects of its own."""
    loops = event_loops.present()
    operations = event_loops.QUICK if quick else event_loops.OPERATIONS
    return {
        "machine": machine(),
        "versions": loops,
        "figures": event_loops.collect(loops, operations, rounds),
    }


def measure_arrays(rounds, quick=False):
    """TimerArray beside AfterFunc and Go, on a million."""
    operations = arrays.QUICK if quick else arrays.OPERATIONS["TimerArray"]
    return {
        "machine": machine(),
        "count": arrays.MILLION,
        "figures": arrays.collect(arrays.present(), operations, arrays.MILLION, rounds),
    }


PARTS = {
    "asyncio": (measure_asyncio, 10, report.asyncio_section),
    "arrays": (measure_arrays, 5, report.arrays_section),
}
"""What can be measured by itself: how, in how many rounds, and its part of the page."""


def renew(output, versions, rounds, save):
    rest = json.loads((output / "rest.json").read_text())
    rest["renewed"] = machine()
    save("lateness.json", measure_lateness(versions, False))
    forget(output / "timers.json.gz", TOLERANT)
    work = [(name, 1_000_000, [TOLERANT]) for name in NATIVE if name in versions]
    bench(work, rounds, False, output / "timers.json.gz")
    save("rest.json", rest)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--quick", action="store_true")
    length.add_argument("--renew", action="store_true")
    length.add_argument("--only", choices=PARTS)
    parser.add_argument("--output", type=Path, default=HERE.parent / "build" / "perf" / "report")
    parser.add_argument("--rounds", type=int)
    args = parser.parse_args()

    def save(name, found):
        (args.output / name).write_text(json.dumps(found, indent=1) + "\n")

    if args.only:
        args.output.mkdir(parents=True, exist_ok=True)
        measure, usual, section = PARTS[args.only]
        save(f"{args.only}.json", measure(args.rounds or usual))
        print(*section(args.output), sep="\n")
        if (args.output / "rest.json").exists():
            print(report.write(args.output))
        return
    versions = present()
    rounds = args.rounds or (1 if args.quick else 3)
    if args.renew:
        renew(args.output, versions, rounds, save)
        print(report.write(args.output))
        return
    rest = {"machine": machine()}  # first: the output may be files of the checkout
    shutil.rmtree(args.output, ignore_errors=True)
    args.output.mkdir(parents=True)
    start = time.monotonic()
    stalls = subprocess.run([sys.executable, HERE / "stalls.py", "--json"], check=True, capture_output=True)
    rest |= {"stalls": json.loads(stalls.stdout), "import_ms": import_time(), "zipped_kb": zipped(args.output)}
    bench([*plan(versions, args.quick)], rounds, args.quick, args.output / "timers.json.gz")
    save("lateness.json", measure_lateness(versions, args.quick))
    counts = [1000, 1_000_000] if args.quick else [1000, 32_768, 1_000_000, 10_000_000]
    save("footprint.json", footprint.collect([name for name in versions if not args.quick or name in NATIVE], counts))
    for name, (measure, usual, _) in PARTS.items():
        save(f"{name}.json", measure(1 if args.quick else usual, args.quick))
    rest |= {"versions": versions, "rounds": rounds, "minutes": (time.monotonic() - start) / 60}
    save("rest.json", rest)
    print(report.write(args.output))


if __name__ == "__main__":
    main()
