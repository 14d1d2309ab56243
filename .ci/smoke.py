"""An installed timerheap, tried in a few lines: each name, a callback, a channel, a tick."""

import importlib.metadata
import inspect
import threading
import time
from pathlib import Path

import timerheap
import timerheap.threading
from timerheap import AfterFunc, Ticker, Timer, TimerHeap, after, default_heap, select, sleep, tick

assert timerheap.__version__ == importlib.metadata.version("timerheap")
for name in timerheap.__all__:
    assert inspect.getdoc(getattr(timerheap, name)), name
assert (Path(timerheap.__file__).parent / "py.typed").exists()

done = threading.Event()
start = time.monotonic()
AfterFunc(0.01, done.set)
assert done.wait(10)
assert time.monotonic() - start >= 0.01

timer = Timer(0)
assert timer.c is not None
assert timer.c.poll() is not None
never = AfterFunc(float("inf"), print)
assert len(default_heap()) == 1
assert never.stop()

with Ticker(0.001) as ticker:
    first, second = next(iter(ticker)), next(iter(ticker))
    assert second > first
channel, at = select(after(0.01), tick(3600), timeout=10)
assert at <= time.monotonic()
sleep(0.001)

drop_in = timerheap.threading.Timer(0.01, print)
drop_in.start()
drop_in.cancel()
drop_in.join()
assert not drop_in.is_alive()

with TimerHeap(name="smoke") as heap:
    AfterFunc(3600, print, heap=heap)
    heap.check()
    assert len(heap) == 1
print(f"timerheap {timerheap.__version__} works from {Path(timerheap.__file__).parent}")
