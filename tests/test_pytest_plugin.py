"""The fixture manual_heap, in runs of pytest of their own."""

import os
import subprocess
import sys
import textwrap
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from helpers import PATIENCE

ROOT = Path(__file__).parent.parent
PLUGIN = "_timerheap_pytest"


def installed():
    return any(found.value == PLUGIN for found in entry_points(group="pytest11"))


@pytest.fixture
def run(tmp_path):
    """Run pytest on a module of that text; its exit code, and what it printed."""

    def run(text, *options):
        (tmp_path / "test_it.py").write_text(textwrap.dedent(text))
        named = [] if installed() else ["-p", PLUGIN]  # as in a checkout that was built in place
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *named, *options, "test_it.py"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE,
            env={key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")},
        )
        return done.returncode, done.stdout + done.stderr

    return run


def test_the_plugin_is_an_entry_point():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["entry-points"]["pytest11"] == {"timerheap": PLUGIN}
    assert PLUGIN in project["tool"]["setuptools"]["py-modules"]


def test_the_fixture_is_the_default_heap_during_the_test(run):
    code, output = run("""
        from timerheap import AfterFunc, default_heap
        from timerheap.testing import ManualHeap

        kept = []

        def test_an_hour(manual_heap):
            assert type(manual_heap) is ManualHeap
            assert default_heap() is manual_heap
            kept.append(manual_heap)
            fired = []
            AfterFunc(3600, fired.append, 1)
            manual_heap.advance(3600)
            assert fired == [1]

        def test_after_it():
            assert kept[0].closed
            assert default_heap() is not kept[0]
    """)
    assert "2 passed" in output
    assert code == 0


def test_what_is_left_armed_is_an_error(run):
    code, output = run("""
        from timerheap import AfterFunc

        def test_it(manual_heap):
            AfterFunc(3600, print, "forgotten")
    """)
    assert "1 passed, 1 error" in output
    assert "timers are left armed on the heap 'manual' at 0.0, 1 in all" in output
    assert code == 1


def test_what_a_failed_test_leaves_is_none_as_well(run):
    code, output = run("""
        from timerheap import AfterFunc

        def test_it(manual_heap):
            AfterFunc(3600, print, "not forgotten")
            assert manual_heap.time() == 1

        def test_that_is_over(manual_heap):
            AfterFunc(3600, print)
            manual_heap.close()
    """)
    assert "1 failed, 1 passed" in output
    assert "left armed" not in output
    assert code == 1


def test_timerheap_is_not_imported_unless_the_fixture_is_asked_for(run):
    code, output = run("""
        import sys

        def test_it(request):
            assert request.config.pluginmanager.has_plugin("_timerheap_pytest") or any(
                getattr(plugin, "__name__", "") == "_timerheap_pytest"
                for plugin in request.config.pluginmanager.get_plugins()
            )
            assert not [name for name in sys.modules if name.partition(".")[0] == "timerheap"]
    """)
    assert "1 passed" in output
    assert code == 0


def test_the_fixture_has_a_line_in_the_list_of_fixtures(run):
    _, output = run("def test_it():\n    pass\n", "--fixtures")
    assert "manual_heap" in output
    assert "is the default heap during the test" in output
