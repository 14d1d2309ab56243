"""Prints, for each source file, how many of its lines ran and which did not: Python, Cython and C in one table.

    report.py PYTHON_DATA OBJECTS

Python's lines come from coverage.py (those of children too, by the patches that pyproject.toml asks for). The lines of
Cython and C come from gcov: the extension is built with --coverage (TIMERHEAP_COVERAGE=1 in setup.py), as are the
native tests, and each process adds its counts to the .gcda files under OBJECTS when it ends (shim.c says how it is made
to). Cython's own line tracing is not used: it needs the GIL and a Python frame, and most of the core has neither.

gcov speaks of the generated C. Cython writes above the code of each line a comment with that line's file and number
(Cython.Coverage reads the same), so a line of Cython has run if any of the C below its comment has. What stands outside
of these (wrappers, type slots, the module's start, and the way out of a function, which every error shares) counts for
no line. Nor does C that the optimiser drops before it is instrumented: `if FREE_THREADED:` on a build with a GIL.

What a test reaches only in a process that is killed from outside is not seen.
"""

import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import coverage

ROOT = Path(__file__).resolve().parents[2]
LANGUAGES = {"Python": {".py"}, "Cython": {".pyx", ".pxi", ".pxd"}, "C": {".c", ".h"}}
MARKER = re.compile(r' */\* "(.+)":(\d+)\n')


def cython_lines(generated):
    """For each line of C that Cython has made of a line of ours: C line -> (file, line)."""
    lines, current = {}, None
    with open(generated, encoding="utf-8") as file:
        for number, text in enumerate(file, 1):
            if match := MARKER.fullmatch(text):
                current = (match[1], int(match[2]))
            elif text.startswith("}") or "/* function exit code */" in text or "/* Python wrapper */" in text:
                current = None
            elif current is not None:
                lines[number] = current
    return lines


def gcov(objects):
    """How often each line of C ran: C file -> line -> count, over all that was built there."""
    counts = defaultdict(lambda: defaultdict(int))
    found = sorted(Path(objects).rglob("*.gcda"))
    if not found:
        sys.exit(f"nothing under {objects} has been built for coverage and run")
    for data in found:
        out = subprocess.run([os.environ.get("GCOV", "gcov"), "--json-format", "--stdout", str(data)], cwd=ROOT,
                             capture_output=True, check=True).stdout  # fmt: skip
        for file in json.loads(out)["files"]:
            for line in file["lines"]:
                counts[file["file"]][line["line_number"]] += line["count"]
    return counts


def native(objects):
    """The counts of our lines of Cython and C."""
    ours = defaultdict(lambda: defaultdict(int))
    for name, counts in gcov(objects).items():
        path = (ROOT / name).resolve()
        origin = cython_lines(path) if path.suffix == ".c" else None
        for number, count in counts.items():
            source, line = (path, number) if origin is None else origin.get(number, (None, 0))
            if source is not None:
                ours[(ROOT / source).resolve()][line] += count
    return ours


def python(data):
    """The same for Python; the installed package stands for the sources it was made of."""
    cov = coverage.Coverage(data_file=data)
    cov.combine([str(Path(data).parent)], keep=True)
    counts = {}
    for name in cov.get_data().measured_files():
        _, statements, _, missing, _ = cov.analysis2(name)
        counts[ROOT / "timerheap" / Path(name).name] = {line: int(line not in missing) for line in statements}
    return counts


def ranges(numbers):
    """[1, 2, 3, 7] -> "1-3 7"."""
    runs = []
    for number in sorted(numbers):
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return " ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def main():
    data, objects = sys.argv[1:]
    counts = {path: lines for path, lines in {**native(objects), **python(data)}.items()
              if any(path.is_relative_to(ROOT / ours) for ours in ("timerheap", "csrc"))}  # fmt: skip
    print(f"{'file':32} {'lines':>6} {'run':>6} {'%':>6}  not run")
    total = [0, 0]
    for language, suffixes in LANGUAGES.items():
        part = [0, 0]
        for path in sorted(path for path in counts if path.suffix in suffixes):
            lines = counts[path]
            missed = [line for line, count in lines.items() if count == 0]
            part[0] += len(lines)
            part[1] += len(lines) - len(missed)
            row(str(path.relative_to(ROOT)), len(lines), len(lines) - len(missed), ranges(missed))
        row(f"all of {language}", *part)
        total = [total[0] + part[0], total[1] + part[1]]
    row("total", *total)


def row(name, lines, run, missed=""):
    print(f"{name:32} {lines:6} {run:6} {100 * run / max(lines, 1):6.1f}  {missed}".rstrip())


main()
