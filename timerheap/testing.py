"""Virtual time for tests: a heap whose clock moves only when told.

>>> from timerheap import AfterFunc
>>> from timerheap.testing import ManualHeap, use
>>> with use(ManualHeap()) as heap:
...     timer = AfterFunc(3600, print, "an hour later")
...     heap.advance(3600)
an hour later
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar, cast

from timerheap._core import ManualHeap, TimerHeap, swap_default_heap

_Heap = TypeVar("_Heap", bound=TimerHeap)

__all__ = ["ManualHeap", "use"]


@contextmanager
def use(heap: _Heap) -> Iterator[_Heap]:
    """Make heap the default heap for the length of a with block, so that code which names no heap
    is driven by it.

    Process-wide: other threads see it too. Timers armed before the block stay where they are. Once
    heap is closed, arming on the default heap raises RuntimeError until the block ends. TypeError
    for what is no TimerHeap.
    """
    if not isinstance(cast(object, heap), TimerHeap):
        got = "the class itself" if isinstance(heap, type) else type(heap).__name__
        raise TypeError(f"use() heap must be a TimerHeap, as in use(ManualHeap()), not {got}")
    before = swap_default_heap(heap, True)
    try:
        yield heap
    finally:
        swap_default_heap(*before)
