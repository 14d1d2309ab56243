"""Fixtures shared by the suite."""

import gc
import signal
import sys
import threading

import pytest
from helpers import EAGER

from timerheap import TimerHeap
from timerheap.testing import ManualHeap

# A script's background jobs are started with SIGINT ignored, and would hand that on to the processes of these tests.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Programs that the suite does without: make test-integration names that directory itself.
collect_ignore = ["integration"]


def pytest_addoption(parser):
    parser.addoption(
        "--life-repeat", type=int, default=1, help="times each end of a process is tried; more than 1: also 500 forks"
    )
    parser.addoption(
        "--exit-limit", type=float, default=20, help="seconds a process may take to end (a busy machine needs many)"
    )


@pytest.fixture
def heap():
    """A heap on real time; checked, then closed, when the test is over."""
    heap = TimerHeap("test")
    yield heap
    heap.check()
    heap.close()
    heap.check()
    assert len(heap) == 0


@pytest.fixture
def manual():
    """A heap whose clock starts at 0 and moves when told; checked when the test is over."""
    heap = ManualHeap()
    yield heap
    heap.check()
    heap.close()
    heap.check()
    assert len(heap) == 0


@pytest.fixture
def thread_errors(monkeypatch):
    """What reaches `threading.excepthook` during the test."""
    seen = []
    monkeypatch.setattr(threading, "excepthook", seen.append)
    return seen


@pytest.fixture
def unraisable(monkeypatch):
    """What reaches `sys.unraisablehook` during the test."""
    seen = []
    monkeypatch.setattr(sys, "unraisablehook", seen.append)
    return seen


@pytest.fixture
def eager_collector():
    """The cyclic collector runs at (nearly) every allocation of a container."""
    gc.collect()  # the count begins at 0: without a GIL it is below, by as much as was freed since the last collection
    before = gc.get_threshold()
    gc.set_threshold(*EAGER)
    yield
    gc.set_threshold(*before)


@pytest.fixture
def fast_switching():
    """Threads are switched as often as the interpreter can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)
