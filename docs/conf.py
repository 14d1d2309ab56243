"""The documentation: `make docs` builds it into build/docs/html."""

import ast
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path, PurePosixPath
from posixpath import normpath

import timerheap

project = "timerheap"
author = "timerheap contributors"
version = release = timerheap.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
nitpicky = True
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = "timerheap"
html_static_path = ["_static"]
html_css_files = ["page.css"]
html_copy_source = False
html_show_copyright = False
html_theme_options = {
    "source_repository": "https://github.com/timerheap/timerheap",
    "source_branch": "main",
    "source_directory": "docs/",
}

# Types are in the stubs, for editors; a signature on a page is to be read.
autodoc_typehints = "none"
autodoc_member_order = "bysource"

ROOT = Path(__file__).parent.parent
SOURCE = "https://github.com/timerheap/timerheap/blob/main/"
# Pages that are made of a file elsewhere, where its links lead to on this site.
PAGES = {
    "README.md": "index.md",
    "perf/results/README.md": "performance.md",
    "tests/README.md": "reliability.md",
    "CHANGELOG.md": "changelog.md",
    "examples/README.md": "examples.md",
}
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
PAGES |= {f"examples/{file.name}": f"#example-{file.stem}" for file in EXAMPLES}


def whole_file(path: PurePosixPath) -> str:
    """A file of Markdown without its title; links and pictures lead from docs/."""

    def moved(link: re.Match[str]) -> str:
        target = normpath(path.parent / link[2])
        if link[1]:
            return f"!{link[1]}(../{target})"
        return f"({PAGES.get(target, SOURCE + target)})"

    title, _, text = (ROOT / path).read_text().partition("\n")
    assert title.startswith("# "), path
    return re.sub(r"(?:!(\[[^\]]*\]))?\((?!https?:|#)([\w./-]+\.(?:md|svg|py))\)", moved, text)


def examples() -> str:
    """Each program under its name: the docstring as text, and the rest."""
    sections = []
    for file in EXAMPLES:
        source = file.read_text()
        first = ast.parse(source).body[0]
        text = as_rest(inspect.cleandoc(ast.literal_eval(first.value)))
        lines = f":language: python\n:lines: {first.end_lineno + 2}-"
        sections.append(
            f"(example-{file.stem})=\n## {file.name}\n\n```{{eval-rst}}\n{text}\n```\n\n"
            f"```{{literalinclude}} ../examples/{file.name}\n{lines}\n```\n"
        )
    return "\n".join(sections)


def usage() -> str:
    """What --help says of each command."""
    plain = {**os.environ, "COLUMNS": "80", "NO_COLOR": "1"}
    texts = []
    for command in ([], ["threads"], ["asyncio"], ["info"]):
        line = [sys.executable, "-m", "timerheap", *command, "--help"]
        done = subprocess.run(line, capture_output=True, text=True, check=True, env=plain)
        texts.append(f"```text\n{done.stdout}```\n")
    return "\n".join(texts)


def taken_in(match: re.Match[str]) -> str:
    if match[1] == "python -m timerheap":
        return usage()
    return examples() if match[1] == "examples/*.py" else whole_file(PurePosixPath(match[1]))


def take_in(app: object, docname: str, source: list[str]) -> None:
    """A line `<!-- SOMETHING -->` alone stands for that: a file of Markdown, the examples, the command's help."""
    source[0] = re.sub(r"^<!-- (.+) -->$", taken_in, source[0], flags=re.MULTILINE)


def as_rest(text: str) -> str:
    """Plain text as reStructuredText: what would be taken for markup is shown as it stands, `code` as code."""
    return "\n".join(
        line if line.startswith((">>>", "...")) else re.sub(r"`([^`]+)`|([*|\\]|_\b)", quoted, line)
        for line in text.split("\n")
    )


def quoted(match: re.Match[str]) -> str:
    return f"``{match[1]}``" if match[1] else f"\\{match[2]}"


def as_text(app: object, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    lines[:] = as_rest("\n".join(lines)).split("\n")


def setup(app) -> None:
    app.connect("source-read", take_in)
    app.connect("autodoc-process-docstring", as_text)
