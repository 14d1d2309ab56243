"""The docstrings of the native module, in its stub as well: there an editor looks for what it shows of a name.

    make docstrings     writes them into timerheap/_core.pyi, by this script

The module has them from the .pxi files, which are the only place to edit them; test_package.py says when the two
differ. A special method has none here: what its class's says, or Python's own, is all there is to it.
"""

import ast
import inspect
from pathlib import Path

from timerheap import _core

STUB = Path(__file__).parent.parent / "timerheap" / "_core.pyi"


def documented(stub):
    """The text of a stub, with the docstrings of the module in place of any that it has."""
    lines = stub.splitlines()
    for first, last, text in reversed(list(replacements(ast.parse(stub).body, lines, vars(_core)))):
        lines[first:last] = text
    return "\n".join(lines) + "\n"


def replacements(nodes, lines, things):
    """(first line, the line after the last, what shall stand there), in the order of the lines, which count from 0."""
    seen = set()
    for node in nodes:
        if isinstance(node, ast.ClassDef) and node.name in things:
            has_doc = ast.get_docstring(node) is not None
            rest = node.body[has_doc:]
            only = not rest or is_ellipsis(rest[0])
            body = node.body[-1 if only else 0]
            last = body.end_lineno if only or has_doc else node.lineno
            thing = things[node.name]
            yield node.lineno - 1, last, definition(lines[node.lineno - 1], node.col_offset, thing.__doc__, only)
            if not only:
                yield from replacements(rest, lines, vars(thing))
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            # Of several under one name, overloads or a property's functions, the first.
            doc = None if node.name in seen or node.name.startswith("__") else things[node.name].__doc__
            seen.add(node.name)
            end = header_end(node)
            yield end, node.end_lineno, definition(lines[end], node.col_offset, doc, True)


def is_ellipsis(node):
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and node.value.value is ...


def header_end(node):
    """The last line of a function's header, which its body begins on, or below."""
    body = node.body[0]
    return body.lineno - 1 if is_ellipsis(body) else body.lineno - 2


def definition(header, indent, doc, only):
    """The last line of a header, and what follows: the docstring, or the three dots where there is nothing else."""
    header = header.removesuffix(" ...")
    if not doc:
        return [header + " ..." if only else header]
    first, *more = inspect.cleandoc(doc).strip().splitlines()
    margin = " " * (indent + 4)
    opening = margin + ('r"""' if "\\" in doc else '"""') + first
    if not more:
        return [header, opening + '"""']
    return [header, opening, *((margin + line).rstrip() for line in more), margin + '"""']


if __name__ == "__main__":
    STUB.write_text(documented(STUB.read_text()))
