"""Nanoseconds per operation with many timers pending: a pyperf script.

    python perf/bench_timers.py --subject timerheap asyncio --size 1000000 -o out.json

Every benchmark is named subject/operation/size. The population is pending before the clock starts and stays
pending; what is timed is a batch of operations on top of it:

arm        one-shot timers with random deadlines, handles kept
arm_stop   a timer armed and stopped at once: the timeout that never fires
reset      the handles of the batch, shuffled beforehand, each to a random deadline
stop       the same handles, stopped
walk       the same handles, a property read that touches nothing but the object: the floor of such a walk

asyncio has no reset: its peer is cancel and call_later. Its cancelled handles are swept between the batches, untimed.
"""

import asyncio
import random
import time
from typing import ClassVar

import pyperf

OPERATIONS = ("arm", "arm_stop", "reset", "stop", "walk")
BATCH = 100_000
"""Operations timed in one go, at most."""


def nothing():
    pass


class Timerheap:
    def __init__(self):
        from timerheap import AfterFunc

        self.after_func = AfterFunc

    def arm(self, delays):
        after_func, handles = self.after_func, [None] * len(delays)
        start = time.perf_counter()
        for i, delay in enumerate(delays):
            handles[i] = after_func(delay, nothing)
        return time.perf_counter() - start, handles

    def arm_stop(self, delays):
        after_func = self.after_func
        start = time.perf_counter()
        for delay in delays:
            after_func(delay, nothing).stop()
        return time.perf_counter() - start

    def reset(self, handles, delays):
        start = time.perf_counter()
        for handle, delay in zip(handles, delays, strict=True):
            handle.reset(delay)
        return time.perf_counter() - start, handles

    def stop(self, handles):
        start = time.perf_counter()
        for handle in handles:
            handle.stop()
        return time.perf_counter() - start

    def walk(self, handles):
        start = time.perf_counter()
        for handle in handles:
            handle.c  # noqa: B018
        return time.perf_counter() - start

    def sweep(self):
        pass


class Asyncio:
    def __init__(self):
        self.loop = asyncio.new_event_loop()

    def arm(self, delays):
        call_later, handles = self.loop.call_later, [None] * len(delays)
        start = time.perf_counter()
        for i, delay in enumerate(delays):
            handles[i] = call_later(delay, nothing)
        return time.perf_counter() - start, handles

    def arm_stop(self, delays):
        call_later = self.loop.call_later
        start = time.perf_counter()
        for delay in delays:
            call_later(delay, nothing).cancel()
        return time.perf_counter() - start

    def reset(self, handles, delays):
        call_later, again = self.loop.call_later, [None] * len(delays)
        start = time.perf_counter()
        for i, delay in enumerate(delays):
            handles[i].cancel()
            again[i] = call_later(delay, nothing)
        return time.perf_counter() - start, again

    def stop(self, handles):
        start = time.perf_counter()
        for handle in handles:
            handle.cancel()
        return time.perf_counter() - start

    def walk(self, handles):
        start = time.perf_counter()
        for handle in handles:
            handle.cancelled  # noqa: B018
        return time.perf_counter() - start

    def sweep(self):
        self.loop.run_until_complete(asyncio.sleep(0))


SUBJECTS = {"timerheap": Timerheap, "asyncio": Asyncio}


class Population:
    """A subject with size pending timers, built once a process."""

    built: ClassVar = {}

    def __init__(self, name, size):
        self.random = random.Random(1)
        self.subject = SUBJECTS[name]()
        _, self.pending = self.subject.arm(self.delays(size))

    @classmethod
    def of(cls, name, size):
        if (name, size) not in cls.built:
            cls.built[name, size] = cls(name, size)
        return cls.built[name, size]

    def delays(self, count):
        return [3600 + 1000 * self.random.random() for _ in range(count)]


def measure(loops, name, size, operation):
    """Seconds for loops operations: whole batches, scaled to loops."""
    population = Population.of(name, size)
    subject, total, done = population.subject, 0.0, 0
    # A batch as large as the population, up to BATCH, reaches memory as widely as the population lies in it.
    count = min(size, BATCH)
    while done < loops:
        if operation == "arm":
            spent, handles = subject.arm(population.delays(count))
            subject.stop(handles)
        elif operation == "arm_stop":
            spent = subject.arm_stop(population.delays(count))
        else:
            picked = population.random.sample(range(size), count)
            handles = [population.pending[i] for i in picked]
            if operation == "walk":
                spent = subject.walk(handles)
            elif operation == "reset":
                spent, handles = subject.reset(handles, population.delays(count))
            else:
                spent = subject.stop(handles)
                _, handles = subject.reset(handles, population.delays(count))
            for i, handle in zip(picked, handles, strict=True):
                population.pending[i] = handle
        subject.sweep()
        total += spent
        done += count
    return total * loops / done


def pass_on(command, args):
    command += ["--subject", *args.subject, "--size", *map(str, args.size), "--operation", *args.operation]


def main():
    # A million timers take a while to arm in each process: fewer processes, more values each.
    runner = pyperf.Runner(processes=4, values=3, warmups=1, loops=2 * BATCH, add_cmdline_args=pass_on)
    parser = runner.argparser
    parser.add_argument("--subject", nargs="+", choices=SUBJECTS, default=list(SUBJECTS))
    parser.add_argument("--size", nargs="+", type=int, default=[1000, 32_768, 1_000_000])
    parser.add_argument("--operation", nargs="+", choices=OPERATIONS, default=list(OPERATIONS))
    args = runner.parse_args()
    for size in args.size:
        for operation in args.operation:
            for name in args.subject:
                runner.bench_time_func(f"{name}/{operation}/{size}", measure, name, size, operation)


if __name__ == "__main__":
    main()
