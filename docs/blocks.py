"""Runs the code on pages of Markdown: python docs/blocks.py [PAGE...], all pages of the documentation by default.

Each page is a process of its own, and one namespace: a block of `python` is executed, a block of `pycon` is a doctest.
"""

import doctest
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
FENCE = re.compile(r"^(`{3,}|:{3,})(.*)\n((?:.*\n)*?)\1$", re.MULTILINE)
# What else a block may be: no code, or what Sphinx does. Any other word is an error, so that nothing goes untried.
OTHER = {"", "console", "text", "toml"}


def pages() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(text: str) -> list[tuple[int, str, str]]:
    """(line, language, code) of each block of Python."""
    found = []
    for fence in FENCE.finditer(text):
        language = fence[2].strip()
        if language in {"python", "pycon"}:
            found.append((text.count("\n", 0, fence.start(3)), language, fence[3]))
        elif language not in OTHER and not language.startswith("{"):
            raise ValueError(f"a block of {language!r}")
    return found


def run_page(page: Path) -> None:
    """Run its blocks here; SystemExit for what does not come out as the page says."""
    namespace: dict[str, object] = {"__name__": "__main__"}
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for line, language, code in blocks(page.read_text()):
        if language == "python":
            exec(compile("\n" * line + code, page, "exec"), namespace)
            continue
        test = doctest.DocTestParser().get_doctest(code, {}, page.name, str(page), line)
        test.globs = namespace
        if not test.examples:
            raise SystemExit(f"{page}:{line}: a block of pycon without a prompt")
        runner.run(test, clear_globs=False)
    if runner.failures:
        raise SystemExit(1)


def check(page: Path) -> subprocess.CompletedProcess[str]:
    """Run its blocks in a process of its own."""
    command = [sys.executable, __file__, "--here", page]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


def main() -> None:
    if sys.argv[1:2] == ["--here"]:
        run_page(Path(sys.argv[2]))
        return
    failed = 0
    for page in [Path(name) for name in sys.argv[1:]] or pages():
        done = check(page)
        if done.returncode:
            failed += 1
            print(f"{page}\n{done.stdout}{done.stderr}", file=sys.stderr)
    if failed:
        raise SystemExit(f"pages whose code fails: {failed}")


if __name__ == "__main__":
    main()
