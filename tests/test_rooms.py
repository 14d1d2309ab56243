"""The order of the source: each part of the core uses only what stands above it."""

import re
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "timerheap"
PARTS = re.findall(r'^include "(.+)"$', (SOURCE / "_core.pyx").read_text(), re.MULTILINE)

DEFINITION = re.compile(r"^(?:cdef|def) (?!class|struct|enum)[^=(]*?(\w+)\(", re.MULTILINE)
CALL = re.compile(r"(?<![.\w])(\w+)\(")


def code_of(part):
    """Without docstrings, comments and what stands in quotes."""
    text = (SOURCE / part).read_text()
    return re.sub(r'"""(?:.|\n)*?"""|"[^"\n]*"|#.*', "", text)


def calls_downwards(sources):
    """(part, function, part) for each call of a function that a later part defines."""
    home = {}
    for number, text in enumerate(sources):
        for name in DEFINITION.findall(text):
            home.setdefault(name, number)
    return [
        (number, name, home[name])
        for number, text in enumerate(sources)
        for name in sorted(set(CALL.findall(text)))
        if home.get(name, number) > number
    ]


def test_every_part_is_included_once():
    assert sorted(PARTS) == sorted(f"core/{path.name}" for path in (SOURCE / "core").glob("*.pxi"))


def test_a_part_calls_only_what_stands_above_it():
    found = calls_downwards([code_of(part) for part in PARTS])
    assert [(PARTS[user], name, PARTS[owner]) for user, name, owner in found] == []


def test_the_index_names_the_parts_in_their_order():
    index = (SOURCE / "_core.pyx").read_text().split('"""')[1]
    assert re.findall(r"^ +(\w+\.pxi) ", index, re.MULTILINE) == [Path(part).name for part in PARTS]


@pytest.mark.parametrize(
    ("above", "below", "found"),
    [
        ("cdef int one() noexcept:\n    return 1\n", "cdef int two():\n    return one()\n", []),
        ("cdef int one() noexcept:\n    return two()\n", "cdef inline int two():\n    return 2\n", [(0, "two", 1)]),
    ],
)
def test_a_call_downwards_is_found(above, below, found):
    assert calls_downwards([above, below]) == found
