"""asyncio's timers on several event loops: what a program that calls asyncio gains by the loop alone.

    python perf/event_loops.py [--loop asyncio timerheap ...] [--operation call_later fire ...] [--rounds 10] [--json]

Each figure comes from a fresh process; the loops take turns, round after round. Everything happens inside a running
loop, and what is timed is processor time, the Python loop around it included. The garbage collector is on.

call_later           armed with random deadlines, handles kept, nothing else pending; call_later_1m, a million pending
call_later_cancel    armed and cancelled at once
cancel_later         cancelled when 1,000 more have been armed, 100,000 pending, all later; the loop turns every 100
                     operations; cancel_among, with those that are pending as far ahead as the new ones, more or less
fire                 each of 100,000 that were armed with one delay and are all due; fire_apart, with delays of 0.5 to
                     0.6 s, in random order
timeout              `async with asyncio.timeout(60)` with 100,000 pending; the loop turns every 100 operations
timeout_native       the same with timerheap.asyncio.timeout
task                 a task that ends at once, from its creation, of 100,000: the floor of sleep
sleep                a task in asyncio.sleep, likewise, with one delay; sleep_apart, with delays of 0.1 to 1.1 s, in
                     random order
sleep_native         the same with timerheap.asyncio.sleep; sleep_apart_native
gc_held              ms that gc.collect() takes more with a million pending, handles in a list, than with floats there
gc_dropped           the same, handles not kept
dropped              a loop with a million pending, dropped without close(): ms of the gc.collect() that frees it;
                     dropped_bytes, resident bytes a timer that are left after it
bytes                resident bytes a pending timer, of a million, handle and context included
late                 us that 100 single sleeps of 1 to 10 ms end late, p50; late_early, how many end early; late_cpu,
                     processor time of one, us
echo                 us of processor time that an echo server on streams takes a request, `async with
                     asyncio.timeout(60)` around each read; 500 clients in a process of their own
echo_native          the same with timerheap.asyncio.timeout
"""

import argparse
import asyncio
import contextlib
import gc
import json
import random
import socket
import statistics
import subprocess
import sys
import time

from footprint import pause, resident
from peers import clock, installed

MILLION = 1_000_000
MANY = 100_000
TURN = 100
"""Operations between two turns of the loop: what a busy server does for one look at its sockets."""
CLIENTS = 500
REQUEST = b"x" * 64
processor = time.process_time


def over_uvloop():
    import uvloop

    from timerheap.asyncio import loop_class

    return loop_class(uvloop.Loop)


def native():
    from timerheap.asyncio import EventLoop

    return EventLoop


def uv():
    import uvloop

    return uvloop.Loop


def zuv():
    import zuvloop

    return zuvloop.EventLoop


# name: (packages, what gives its class)
LOOPS = {
    "asyncio": ((), lambda: asyncio.SelectorEventLoop),
    "timerheap": (("timerheap",), native),
    "uvloop": (("uvloop",), uv),
    "timerheap over uvloop": (("timerheap", "uvloop"), over_uvloop),
    "zuvloop": (("zuvloop",), zuv),
}
OURS = ("timerheap", "timerheap over uvloop")


def nothing():
    pass


def delays(count):
    chance = random.Random(1)
    return [3600 + 1000 * chance.random() for _ in range(count)]


def populate(count):
    """So many pending timers; their handles. The collector has been through them: its full rounds, which are a figure
    of their own, come once in a quarter of what there is, and would fall on one process and not on another."""
    call_later = asyncio.get_running_loop().call_later
    handles = [call_later(delay, nothing) for delay in delays(count)]
    gc.collect()
    return handles


async def call_later(pending=0, batches=10, batch=10_000):
    arm, held = asyncio.get_running_loop().call_later, populate(pending)
    ahead, handles = delays(batch), [None] * batch
    spent = 0.0
    for turn in range(batches + 1):
        start = processor()
        for i, delay in enumerate(ahead):
            handles[i] = arm(delay, nothing)
        spent += processor() - start if turn else 0.0  # the first warms up
        for handle in handles:
            handle.cancel()
        await asyncio.sleep(0)
    del held
    return 1e9 * spent / (batches * batch)


async def call_later_cancel(batches=100, batch=1000):
    arm, ahead = asyncio.get_running_loop().call_later, delays(batch)
    spent = 0.0
    for turn in range(batches + 1):
        start = processor()
        for delay in ahead:
            arm(delay, nothing).cancel()
        spent += processor() - start if turn else 0.0
        await asyncio.sleep(0)
    return 1e9 * spent / (batches * batch)


async def cancel_later(delay=60, count=4 * MANY, between=1000):
    arm, held = asyncio.get_running_loop().call_later, populate(MANY)
    ring = [arm(delay, nothing) for _ in range(between)]
    start = processor()
    for first in range(0, count, TURN):
        at = first % between
        for i in range(at, at + TURN):
            ring[i].cancel()
            ring[i] = arm(delay, nothing)
        await asyncio.sleep(0)
    spent = processor() - start
    del held
    return 1e9 * spent / count


async def fire(apart=0.0, count=MANY, lead=0.5):
    """The loop does not turn while this arms and waits, so nothing fires before it is timed."""
    loop = asyncio.get_running_loop()
    done, left = loop.create_future(), count
    delays = [lead + apart * i for i in range(count)]
    random.Random(1).shuffle(delays)

    def count_down():
        nonlocal left
        left -= 1
        if not left:
            done.set_result(processor())

    arm, began = loop.call_later, clock()
    handles = [arm(delay, count_down) for delay in delays]
    if clock() - began > lead:  # uvloop's timers are none where they are due when they are armed
        for handle in handles:
            handle.cancel()
        return await fire(apart, count, 2 * lead)
    time.sleep(max(delays))
    start = processor()
    spent = await done - start
    del handles
    return 1e9 * spent / count


async def timeout(enter, count=MANY):
    held = populate(MANY)
    start = processor()
    for _ in range(count // TURN):
        for _ in range(TURN):
            async with enter(60):
                pass
        await asyncio.sleep(0)
    spent = processor() - start
    del held
    return 1e9 * spent / count


async def task(count=MANY):
    """A collection first, here and in sleep: else a full one, a fifth of the figure, may come at the end or not."""

    async def end():
        pass

    gc.collect()
    start = processor()
    tasks = [asyncio.create_task(end()) for _ in range(count)]
    for each in tasks:
        await each
    return 1e9 * (processor() - start) / count


async def sleep(wait, apart=0.0, count=MANY, lead=0.1):
    """All fall asleep in one turn of the loop, which this then holds up until all are due: they wake in the next, by
    deadline. On their own they would fall due one by one, and what a turn costs would be in the figure, more often the
    faster it is."""
    delays = [lead + apart * i for i in range(count)]
    random.Random(1).shuffle(delays)
    gc.collect()
    start = processor()
    tasks = [asyncio.create_task(wait(delay)) for delay in delays]
    await asyncio.sleep(0)
    time.sleep(max(delays) + 0.005)
    for task in tasks:
        await task
    return 1e9 * (processor() - start) / count


async def collecting(held):
    keep = [float(i) for i in range(MILLION)] if held else None
    idle = pause(processor)
    arm = asyncio.get_running_loop().call_later
    for i, delay in enumerate(delays(MILLION)):
        handle = arm(delay, nothing)
        if held:
            keep[i] = handle
    spent = pause(processor)
    return 1e3 * (spent - idle)


async def occupied():
    ahead, keep = delays(MILLION), [None] * MILLION
    arm = asyncio.get_running_loop().call_later
    gc.collect()
    before = resident()
    for i, delay in enumerate(ahead):
        keep[i] = arm(delay, nothing)
    return (resident() - before) / MILLION


def dropped(make):
    async def arm():
        call_later = asyncio.get_running_loop().call_later
        for delay in ahead:
            call_later(delay, nothing)

    ahead = delays(MILLION)
    gc.collect()
    before = resident()
    loop = make()
    loop.run_until_complete(arm())
    del loop
    start = processor()
    gc.collect()
    spent = processor() - start
    return {"dropped": 1e3 * spent, "dropped_bytes": max(0, resident() - before) / MILLION}


async def late(count=100):
    found, chance = [], random.Random(1)
    used = processor()
    for _ in range(count):
        delay = 0.001 + 0.009 * chance.random()
        start = clock()
        await asyncio.sleep(delay)
        found.append(1e6 * (clock() - start - delay))
    used = processor() - used
    return {"late": statistics.median(found), "late_early": sum(us < 0 for us in found), "late_cpu": 1e6 * used / count}


async def echo(enter, rounds=60, warm_up=10):
    """The clients ask in rounds, a request each, in lockstep. Processor time is taken from a round to another."""
    requests, marks = 0, {CLIENTS * warm_up: 0.0, CLIENTS * rounds: 0.0}
    gone = asyncio.Event()

    async def serve(reader, writer):
        nonlocal requests
        while True:
            async with enter(60):
                data = await reader.read(1024)
            if not data:
                break
            writer.write(data)
            await writer.drain()
            requests += 1
            if requests in marks:
                marks[requests] = processor()
        writer.close()
        gone.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    # Not by asyncio's subprocesses, which not every loop has in full.
    with subprocess.Popen([sys.executable, __file__, "--ask", str(port), str(rounds)]) as clients:
        await gone.wait()
        await asyncio.sleep(0.1)
        server.close()
    first, last = marks.values()
    if clients.returncode or not last:
        raise RuntimeError(f"the clients ended with {clients.returncode}")
    return 1e6 * (last - first) / (CLIENTS * (rounds - warm_up))


def ask(port, rounds):
    """The clients' side of echo."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(CLIENTS)]
        for client in clients:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(rounds):
            for client in clients:
                client.sendall(REQUEST)
            for client in clients:
                left = len(REQUEST)
                while left:
                    left -= len(client.recv(left))


def by_asyncio(operation, *args):
    return lambda: operation(getattr(asyncio, operation.__name__.replace("echo", "timeout")), *args)


def by_timerheap(operation, *args):
    def run():
        from timerheap import asyncio as ours

        return operation(getattr(ours, operation.__name__.replace("echo", "timeout")), *args)

    return run


# name: what gives its coroutine
OPERATIONS = {
    "call_later": call_later,
    "call_later_1m": lambda: call_later(MILLION),
    "call_later_cancel": call_later_cancel,
    "cancel_later": cancel_later,
    "cancel_among": lambda: cancel_later(4100),
    "fire": fire,
    "fire_apart": lambda: fire(1e-6),
    "timeout": by_asyncio(timeout),
    "timeout_native": by_timerheap(timeout),
    "task": task,
    "sleep": by_asyncio(sleep),
    "sleep_native": by_timerheap(sleep),
    "sleep_apart": by_asyncio(sleep, 1e-5),
    "sleep_apart_native": by_timerheap(sleep, 1e-5),
    "gc_held": lambda: collecting(True),
    "gc_dropped": lambda: collecting(False),
    "dropped": dropped,
    "bytes": occupied,
    "late": late,
    "echo": by_asyncio(echo),
    "echo_native": by_timerheap(echo),
}
QUICK = ("call_later", "call_later_cancel", "fire", "timeout", "timeout_native", "bytes", "late", "echo")
MORE = {"dropped": ("dropped_bytes",), "late": ("late_early", "late_cpu")}
"""Figures that an operation gives beside the one of its name."""
FIGURES = [name for operation in OPERATIONS for name in (operation, *MORE.get(operation, ()))]


def present():
    """The loops that can run here, with the versions of what they are made of."""
    found = {"asyncio": f"CPython {sys.version.split()[0]}"}
    found |= {name: installed(*packages) for name, (packages, _) in LOOPS.items() if packages}
    for name, what in found.items():
        if what is None:
            print(f"perf: {name} is not installed and is left out", file=sys.stderr)
    return {name: found[name] for name in LOOPS if found[name] is not None}


def measure(name, operation):
    """{figure: value}, measured in this process."""
    make = LOOPS[name][1]()
    if operation == "dropped":
        return dropped(make)
    with asyncio.Runner(loop_factory=make) as runner:

        async def run():
            return await OPERATIONS[operation]()

        value = runner.run(run())
    return value if isinstance(value, dict) else {operation: value}


def alone(*words):
    done = subprocess.run([sys.executable, __file__, "--one", *words], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{words}: {done.stderr}")
    return json.loads(done.stdout)


def collect(loops, operations, rounds):
    """{figure: {loop: its values}}; a line a process on stderr on the way."""
    found = {}
    for turn in range(rounds):
        for operation in operations:
            for name in loops:
                if operation.endswith("_native") and name not in OURS:
                    continue
                figures = alone(name, operation)
                for figure, value in figures.items():
                    found.setdefault(figure, {}).setdefault(name, []).append(value)
                shown = ", ".join(f"{figure} {value:,.1f}" for figure, value in figures.items())
                print(f"round {turn + 1} of {rounds}: {name}: {shown}", file=sys.stderr)
    return {figure: found[figure] for figure in FIGURES if figure in found}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--loop", nargs="+", choices=LOOPS, default=list(LOOPS), metavar="NAME")
    parser.add_argument("--operation", nargs="+", choices=OPERATIONS, default=list(OPERATIONS), metavar="NAME")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--ask", nargs=2, type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.ask:
        ask(*args.ask)
    elif args.one:
        print(json.dumps(measure(*args.one)))
    else:
        found = collect([name for name in args.loop if name in present()], args.operation, args.rounds)
        if args.json:
            print(json.dumps(found, indent=1))
        else:
            from report import event_loop_tables

            print(*event_loop_tables(found), sep="\n")


if __name__ == "__main__":
    main()
