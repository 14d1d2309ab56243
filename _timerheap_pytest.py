"""The plugin for pytest: the fixture manual_heap. A module of its own, for pytest imports its plugins in every run, and
timerheap is only imported by who asks for the fixture."""

import pytest


@pytest.fixture
def manual_heap(request):
    """A timerheap.testing.ManualHeap that is the default heap during the test. It is closed at the end; an error if the
    test has passed by then and left timers armed: see timerheap.testing.use.
    """
    from timerheap.testing import refuse_armed, use

    failed = request.session.testsfailed
    with use(strict=False) as heap:
        yield heap
        if request.session.testsfailed == failed:
            refuse_armed(heap)
