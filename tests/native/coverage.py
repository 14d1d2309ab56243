"""Prints the branches of the heap that a run took, from `llvm-cov export` of the seam's build.

    llvm-cov export PROGRAM -instr-profile=DATA SOURCE | python coverage.py

A branch has two sides. What Cython makes of an assignment or a call has none. Functions of the checker are left out:
their faults are what must never be seen.
"""

import json
import re
import sys

OURS = re.compile(r"(?:seam\.c:)?(?:__pyx_f_4seam_(\w+)|(th_map_aligned|th_remap|th_unmap))")
CHECKER = {"fails", "check_key", "check_array", "check_heap", "debug_check"}


def main():
    functions = json.load(sys.stdin)["data"][0]["functions"]
    taken_all = sides_all = seen = 0
    for function in sorted(functions, key=lambda function: function["regions"][0][0]):
        match = OURS.fullmatch(function["name"])
        if not match or match[1] in CHECKER:
            continue
        name = match[1] or match[2]
        # Of a branch: line, column, line, column, times true, times false, ...
        sides = [count for branch in function["branches"] for count in branch[4:6]]
        taken = sum(count > 0 for count in sides)
        taken_all, sides_all, seen = taken_all + taken, sides_all + len(sides), seen + 1
        missed = [f"{b[0]}:{'true' if b[4] == 0 else 'false'}" for b in function["branches"] if 0 in b[4:6]]
        print(f"  {name:20} {function['count']:>12,} calls {taken:4} of {len(sides):3} sides  {' '.join(missed)}")
    print(f"branches: {taken_all} of {sides_all} sides taken in {seen} functions, {100 * taken_all / sides_all:.1f} %")


main()
