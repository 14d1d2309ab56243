"""make bench-compare BASE=<git revision>: two revisions of timerheap, built and measured in turn.

    python perf/compare.py BASE [--rounds 3] [--size 1000000] [--operation arm_stop reset stop fire]

Each revision is built into an environment of its own under build/perf; the checkout's bench_timers.py measures both.
Prints pyperf's table: base, checkout, and by how much they differ.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
BUILD = ROOT / "build" / "perf"


def environment(source, name):
    """An environment with timerheap built from source; its interpreter."""
    python = BUILD / name / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", "--clear", BUILD / name], check=True)
    subprocess.run([python, "-m", "pip", "--quiet", "install", source, "pyperf"], check=True)
    return python


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, nargs="+", default=[1000, 1_000_000])
    parser.add_argument("--operation", nargs="+", default=["arm", "arm_stop", "reset", "stop", "fire"])
    args = parser.parse_args()
    source = BUILD / "base-source"
    shutil.rmtree(source, ignore_errors=True)
    source.mkdir(parents=True)
    archive = subprocess.run(["git", "-C", ROOT, "archive", args.base], check=True, capture_output=True).stdout
    subprocess.run(["tar", "-x", "-C", source], input=archive, check=True)
    pythons = {"base": environment(source, "base"), "checkout": environment(ROOT, "checkout")}
    results = {name: BUILD / f"{name}.json" for name in pythons}
    for path in results.values():
        path.unlink(missing_ok=True)
    for _ in range(args.rounds):
        for name, python in pythons.items():
            command = [
                python,
                HERE / "bench_timers.py",
                "--quiet",
                "--processes",
                "1",
                "--append",
                results[name],
                "--subject",
                "timerheap",
            ]
            command += ["--size", *map(str, args.size), "--operation", *args.operation]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    compare = [pythons["checkout"], "-m", "pyperf", "compare_to", "--table", results["base"], results["checkout"]]
    raise SystemExit(subprocess.run(compare).returncode)


if __name__ == "__main__":
    main()
