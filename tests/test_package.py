"""What is installed: version, typing, signatures and help of a native module."""

import ast
import importlib.metadata
import inspect
import pydoc
import subprocess
import sys
from pathlib import Path

import pytest
from docstrings import documented

import timerheap

PUBLIC = {
    "AfterFunc", "Channel", "Ticker", "Timer", "TimerArray", "TimerHeap",
    "after", "default_heap", "every", "select", "sleep", "tick",
}  # fmt: skip

SIGNATURES = {
    "Timer": "(delay, *, heap=None)",
    "Timer.stop": "(self, /)",
    "Timer.reset": "(self, /, delay)",
    "Timer.postpone": "(self, /, delay)",
    "AfterFunc": "(delay, func, /, *args, context=None, heap=None)",
    "every": "(period, func, /, *args, context=None, heap=None)",
    "Ticker": "(period, *, heap=None)",
    "Ticker.stop": "(self, /)",
    "Ticker.reset": "(self, /, period)",
    "Channel.recv": "(self, /, timeout=None)",
    "Channel.poll": "(self, /)",
    "TimerArray": "(n, func, /, *, each=False, batch=4096, heap=None)",
    "TimerArray.reset": "(self, slots, delay=None, /, *, ns=None, out=None)",
    "TimerArray.postpone": "(self, slots, delay=None, /, *, ns=None, out=None)",
    "TimerArray.stop": "(self, slots=None, /, *, out=None)",
    "TimerArray.active": "(self, slots=None, /, *, out=None)",
    "TimerArray.when": "(self, slots=None, /, *, out=None)",
    "TimerHeap": "(name='timerheap', *, executor=None, on_error=None, patience=None, tolerance=0.0)",
    "TimerHeap.stats": "(self, /)",
    "TimerHeap.check": "(self, /)",
    "TimerHeap.close": "(self, /, timeout=None)",
    "TimerHeap.pending": "(self, /)",
    "after": "(delay, *, heap=None)",
    "tick": "(period, *, heap=None)",
    "sleep": "(delay)",
    "select": "(*channels, timeout=None)",
    "default_heap": "()",
}

STUB = (Path(timerheap.__file__).parent / "_core.pyi").read_text()


def find(path):
    thing = timerheap
    for name in path.split("."):
        thing = getattr(thing, name)
    return thing


def test_version_is_stated_once():
    assert timerheap.__version__ == importlib.metadata.version("timerheap")


def test_all_is_the_public_surface():
    assert set(timerheap.__all__) == PUBLIC
    names = {}
    exec("from timerheap import *", names)
    assert names.keys() >= PUBLIC


def test_types_are_shipped():
    package = Path(timerheap.__file__).parent
    assert (package / "py.typed").exists()
    assert (package / "_core.pyi").exists()
    shipped = {file.suffix for file in importlib.metadata.files("timerheap")}
    assert not shipped & {".c", ".h", ".pyx", ".pxi"}


def test_the_types_name_each_counter():
    (stats,) = [node for node in ast.parse(STUB).body if isinstance(node, ast.ClassDef) and node.name == "_Stats"]
    assert {line.target.id for line in stats.body} == set(timerheap.TimerHeap().stats())


@pytest.mark.parametrize(("path", "signature"), SIGNATURES.items())
def test_signature_is_visible(path, signature):
    def plain(text):
        # A method may show self by position only or not: callers cannot tell.
        return text.replace("(self, /", "(self").replace(", /, delay)", ", delay)")

    assert plain(str(inspect.signature(find(path)))) == plain(signature)


@pytest.mark.parametrize(
    "path", [*SIGNATURES, "Channel", "Timer.active", "Timer.when", "Timer.c", "Timer.func", "Timer.args",
             "Timer.period", "Ticker.period", "TimerHeap.nbytes", "TimerHeap.on_error"]
)  # fmt: skip
def test_docstring_is_visible(path):
    assert inspect.getdoc(find(path))


def test_the_stub_has_the_docstrings_of_the_module():
    """An editor shows what the stub has. Where they differ, make docstrings mends it."""
    assert documented(STUB) == STUB


def test_the_stub_is_mended_wherever_it_differs():
    tree = ast.parse(STUB)
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
            none = isinstance(node, ast.FunctionDef) and len(node.name) % 2
            node.body[0].value = ast.Constant(... if none else "Something else.")
    stale = ast.unparse(tree)
    assert ast.dump(ast.parse(documented(stale))) == ast.dump(ast.parse(STUB))


def test_a_timer_takes_its_kind_in_brackets():
    """As annotations have it, which are evaluated."""
    timer: timerheap.Timer[None] = timerheap.AfterFunc(3600, print)
    timer.stop()
    assert timer.c is None
    assert repr(timerheap.Timer[timerheap.Channel]) == "timerheap.Timer[timerheap.Channel]"


def test_help_reads_as_a_page():
    page = pydoc.plain(pydoc.render_doc(timerheap))
    for name in PUBLIC:
        assert name in page


def test_import_starts_no_thread_and_loads_nothing_heavy():
    code = (
        "import sys, threading; before = set(sys.modules); import timerheap;"
        "print(threading.active_count(), *sorted(set(sys.modules) - before))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    threads, *modules = answer.stdout.split()
    assert threads == "1"
    assert not {"asyncio", "argparse", "concurrent.futures", "typing", "logging"} & set(modules)


@pytest.mark.parametrize(
    ("elsewhere", "words"),
    [("sys.maxsize = 2**31 - 1", "64-bit Python"), ("sys.platform = 'win32'", "does not run on Windows")],
    ids=["32 bits", "Windows"],
)
def test_a_build_that_cannot_be_ends_in_a_sentence(tmp_path, elsewhere, words):
    setup = Path(__file__).parent.parent / "setup.py"
    code = (
        f"import sys, runpy; import setuptools.command.build_ext; {elsewhere};"
        f"sys.argv[:] = ['setup.py', '-q', 'build_ext', '-b', {str(tmp_path)!r}];"
        "runpy.run_path('setup.py', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=setup.parent, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert words in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())
