"""Timers in a gevent program, with callbacks as greenlets of the hub.

timerheap's worker is a thread of the system, also where gevent.monkey has patched the threading module: a callback runs
there, beside all greenlets, and must not touch what belongs to the hub. An executor takes it into the hub.
"""

from gevent import monkey

monkey.patch_all()

from collections.abc import Callable  # noqa: E402

import gevent.event  # noqa: E402

from timerheap import AfterFunc, TimerHeap  # noqa: E402


class HubExecutor:
    """Runs what it is given in greenlets of the hub of the thread that makes it. Any thread may call `submit`."""

    def __init__(self) -> None:
        self._loop = gevent.get_hub().loop

    def submit(self, func: Callable[..., object], /, *args: object) -> None:
        self._loop.run_callback_threadsafe(gevent.spawn, func, *args)


def main() -> None:
    done = gevent.event.Event()
    log: list[str] = []

    def expire(name: str) -> None:
        log.append(f"{name} begins")
        gevent.sleep(0.05)  # other greenlets run meanwhile
        log.append(f"{name} ends")
        if len(log) == 4:
            done.set()

    with TimerHeap("sessions", executor=HubExecutor()) as heap:
        AfterFunc(0.01, expire, "first", heap=heap)
        AfterFunc(0.02, expire, "second", heap=heap)
        AfterFunc(0.03, expire, "third", heap=heap).stop()
        done.wait(10)
    print(*log, sep="\n")


if __name__ == "__main__":
    main()
