"""Sessions by the million on several processes or machines: sharded by key over Dask workers, and none lost with one.

Each shard is an actor on a worker, with a TimerArray of its own, and what ends there comes to the client through a
queue. The client keeps the ledger, the deadline of each session, and writes there before it tells a shard: so a session
ends when the ledger says so. A report that comes twice, or of a deadline that has been put off since, changes nothing.
When a worker dies its shards are set up on another, and armed with the time that the ledger says is left.
"""

import argparse
import logging
import os
import signal
import time
from typing import TypeAlias

import numpy as np
from dask.distributed import Client, Future, KilledWorker, LocalCluster, Queue, get_client
from numpy.typing import NDArray

from timerheap import AfterFunc, TimerArray, TimerHeap

LOST = {"error", "lost", "cancelled"}  # of an actor's future

Keys: TypeAlias = NDArray[np.int64]
Seconds: TypeAlias = NDArray[np.float64]


class Shard:
    """On a worker: the sessions whose key is `number` modulo `of`; their quotients are the slots."""

    def __init__(self, number: int, of: int, slots: int, queue: str) -> None:
        self._number, self._of = number, of
        self._reports = Queue(queue, client=get_client())
        self._heap = TimerHeap(f"shard {number}", tolerance=0.02)  # fewer reports, each of more sessions
        self._timers = TimerArray(slots, self._end, batch=65536, heap=self._heap)

    def arm(self, keys: Keys, left: Seconds) -> None:
        self._timers.reset(keys // self._of, left)

    def _end(self, slots: "memoryview[int]") -> None:
        keys = np.asarray(slots).astype(np.int64) * self._of + self._number
        self._reports.put(keys.tobytes())  # meanwhile more falls due, and is the next chunk


class Sessions:
    """The client's side, for one thread. Keys are the numbers below `size`."""

    def __init__(self, client: Client, size: int, shards: int) -> None:
        self.moved = 0
        self._client = client
        self._reports = Queue("ended sessions", client=client)
        self._deadline = np.full(size, np.nan)  # the ledger; nan: not open
        self._futures = [self._place(number, shards) for number in range(shards)]

    def open(self, keys: Keys, ttl: "Seconds | float") -> None:
        """They end in so many seconds from now, unless they are opened anew before: a sign of life."""
        self._deadline[keys] = time.monotonic() + ttl
        self._arm(keys)

    def collect(self, timeout: float) -> tuple[Keys, Seconds]:
        """What has ended, and how late that is known; nothing if no report comes in time."""
        self.mend()
        try:
            reports = [self._reports.get(timeout=timeout), *self._reports.get(batch=True)]
        except TimeoutError:
            reports = []
            self._arm(np.flatnonzero(self._deadline < time.monotonic() - 30))  # a report was lost
        keys = np.unique(np.frombuffer(b"".join(reports), dtype=np.int64))
        keys = keys[~np.isnan(self._deadline[keys])]
        late = time.monotonic() - self._deadline[keys]
        self._arm(keys[late < 0])  # opened anew since, or that worker's clock is fast
        ended = keys[late >= 0]
        self._deadline[ended] = np.nan
        return ended, late[late >= 0]

    def mend(self) -> None:
        """Set up anew, elsewhere, each shard that has died with its worker, or that nobody can reach."""
        for number, future in enumerate(self._futures):
            if future.status in LOST:
                shards = len(self._futures)
                self._futures[number] = self._place(number, shards)
                keys = number + shards * np.flatnonzero(~np.isnan(self._deadline[number::shards]))
                self.moved += len(keys)
                self._arm(keys)

    def _place(self, number: int, of: int) -> Future:
        slots = -(-len(self._deadline) // of)
        return self._client.submit(Shard, number, of, slots, self._reports.name, actor=True, pure=False)

    def _arm(self, keys: Keys) -> None:
        for number, future in enumerate(self._futures):
            own = keys[keys % len(self._futures) == number]
            if len(own) and future.status not in LOST:
                try:
                    shard = future.result(timeout=60)
                    shard.arm(own, self._deadline[own] - time.monotonic()).result(timeout=60)
                except (OSError, RuntimeError, KilledWorker):
                    future.cancel()  # mend() finds it, and arms these as well


def main(sessions: int, seconds: float, shards: int, kill: bool) -> None:
    with (
        LocalCluster(2, threads_per_worker=1, dashboard_address=":0", silence_logs=logging.CRITICAL) as cluster,
        Client(cluster) as client,
    ):
        table = Sessions(client, sessions, shards)
        keys = np.arange(sessions)
        begin = time.monotonic()
        table.open(keys, np.random.default_rng(1).uniform(seconds / 2, seconds, sessions))
        table.open(keys[::10], seconds)
        print(f"{sessions:,} sessions opened, and a tenth anew, in {time.monotonic() - begin:.2f} s")
        if kill:
            AfterFunc(seconds / 4, os.kill, next(iter(client.run(os.getpid).values())), signal.SIGKILL)

        times = np.zeros(sessions, dtype=int)
        late: list[Seconds] = []
        while times.sum() < sessions and time.monotonic() < begin + 2 * seconds + 20:
            ended, how_late = table.collect(timeout=0.2)
            times[ended] += 1
            late.append(how_late)
        p50, p99 = np.quantile(np.concatenate(late), [0.5, 0.99])
        print(f"{(times == 1).sum():,} ended once, {(times != 1).sum()} did not; {table.moved:,} were moved")
        print(f"known {p50 * 1e3:.1f} ms after the deadline, of one in a hundred {p99 * 1e3:.1f} ms or more")


if __name__ == "__main__":
    options = argparse.ArgumentParser(description="Sessions on two processes, until all have ended.")
    options.add_argument("--sessions", type=int, default=100_000)
    options.add_argument("--seconds", type=float, default=4.0, help="the longest that a session lasts")
    options.add_argument("--shards", type=int, default=4)
    options.add_argument("--kill", action="store_true", help="kill a worker at a quarter of that time")
    main(**vars(options.parse_args()))
