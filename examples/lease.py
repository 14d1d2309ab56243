"""A lease that is renewed in time, and given up in time when it cannot be.

A holder has to stop before the lessor gives the lease to another. So its own deadline counts from the moment at which
the request was sent, which is before the lessor can have granted it, and the clocks need not agree. An answer that
comes after the deadline revives nothing: that is what postpone() is for.
"""

import logging
import sys
import time
from collections.abc import Callable

from timerheap import AfterFunc, TimerHeap, every, sleep


class Lease:
    """Asks `renew` three times in each `ttl`. Once there has been no True for that long, or at a False, `lost` is
    called, once. The lease has just been granted, by a request sent at `sent`."""

    def __init__(
        self,
        ttl: float,
        renew: Callable[[], bool],
        lost: Callable[[], object],
        *,
        sent: float,
        clock: Callable[[], float] = time.monotonic,
        heap: TimerHeap | None = None,
    ) -> None:
        self._ttl = ttl
        self._ask = renew
        self._clock = clock
        self._lost = lost
        self._deadline = AfterFunc(sent + ttl - clock(), self._end, heap=heap)
        self._beat = every(ttl / 3, self._renew, heap=heap)

    @property
    def held(self) -> bool:
        return self._deadline.active

    def release(self) -> bool:
        """True if it was held: lost() will not be called."""
        self._beat.stop()
        return self._deadline.stop()

    def _renew(self) -> None:
        sent = self._clock()
        try:
            granted = self._ask()
        except OSError:
            return  # the next beat tries again, while the lease runs on
        if granted:
            self._deadline.postpone(sent + self._ttl - self._clock())
        elif self.release():
            self._lost()

    def _end(self) -> None:
        self._beat.stop()
        self._lost()


def main(ttl: float = 0.9) -> None:
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(relativeCreated)d ms: %(message)s")
    down = False

    def grant() -> bool:
        if down:
            raise ConnectionError
        logging.info("renewed")
        lessor.reset(ttl)
        return True

    # A request that blocks must not delay the deadline: with patience it keeps no other callback from its turn.
    with TimerHeap("leases", patience=0.01) as heap:
        sent = time.monotonic()
        lessor = AfterFunc(ttl, logging.info, "the lessor may give it to another", heap=heap)
        lease = Lease(ttl, grant, lambda: logging.info("lost"), sent=sent, heap=heap)
        sleep(1.1 * ttl)
        down = True
        logging.info("the network is down")
        while lease.held or lessor.active:
            sleep(ttl / 10)


if __name__ == "__main__":
    main()
