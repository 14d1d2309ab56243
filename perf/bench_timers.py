"""Time per operation with many timers pending: a pyperf script.

    python perf/bench_timers.py --subject timerheap Go --size 1000000 -o out.json

A benchmark is named subject/operation/size. So many timers are pending, handles held, before the clock starts and stay
pending; what is timed is a batch of operations on top of them, in a plain loop of the subject's own language:

arm           one-shot timers with random deadlines, handles kept
arm_stop      a timer armed and stopped at once: the timeout that never fires
reset, stop   part of the population, in an order shuffled beforehand; reset to a random deadline
walk          timerheap: a method that does nothing but look at its object, on the same kind of walk: the floor of the
              two
fire          so many timers due at one instant; from that instant until the last of their callbacks, which count, has
              run; by the timer. fire_args with two arguments for each; fire_dropped without keeping the handles;
              fire_spread over two seconds, processor time; fire_spread_tolerant on a heap with half a millisecond of
              tolerance, which Go does not have: for it, fire_spread

The rest is for timerheap and Go alone. "first" and "earlier" move before all that are pending, "last" and "later"
behind them; front, middle and back are parts of the population by deadline. arm_channel makes channel timers,
arm_threads arms from two threads. round_trip, after_recv, ticker, select_2 and select_64 receive a value that is due;
sleep_1us sleeps. The last are Go's own benchmarks: chain (of zero-delay callbacks), simultaneous, start_stop, adjust,
ticker_reset, ticker_reset_naive."""

import random
import threading
from typing import ClassVar

import pyperf
from peers import SUBJECTS, Go, Timerheap, clock, with_arguments, with_tolerance

BATCH = 100_000
"""Operations timed in one go, at most."""
FIRES = ("fire", "fire_args", "fire_dropped", "fire_spread", "fire_spread_tolerant")
ROUNDS = {"chain": 1000, "simultaneous": 1000, "start_stop": 1000, "adjust": 10_000}
"""Go's benchmarks that take so many timers a round."""
EXTRAS = tuple(name for name in Go.operations if name not in Timerheap.operations)
OPERATIONS = (*Timerheap.operations, *EXTRAS, "select_64")


class NothingReset(Timerheap):
    """The loop of reset around a call that does nothing."""

    reset = Timerheap.stop


class Population:
    """A Python subject with size pending timers, and the walks through them."""

    built: ClassVar = {}

    def __init__(self, name, size):
        self.peer = SUBJECTS[name]()
        loops = self.peer.loops()
        self.arm, self.arm_stop, self.reset, self.stop = loops.arm, loops.arm_stop, loops.reset, loops.stop
        self.fire, self.sweep = loops.fire, loops.sweep
        self.random = random.Random(1)
        self.deadlines = self.delays(size)
        self.handles = [None] * size
        self.arm(self.deadlines, self.handles)
        self.order = list(range(size))
        self.random.shuffle(self.order)
        self.parts = None

    @classmethod
    def of(cls, name, size):
        if (name, size) not in cls.built:
            cls.built[name, size] = cls(name, size)
        return cls.built[name, size]

    def delays(self, count, after=3600.0):
        return [after + 1000 * self.random.random() for _ in range(count)]

    def in_order(self, place):
        """From now on walk through the population by deadline, from the given place on."""
        by_deadline = sorted(self.order, key=self.deadlines.__getitem__)
        start = int(place * len(by_deadline))
        self.order = by_deadline[start:] + by_deadline[:start]

    def cut(self, count):
        """Cut the population into parts of count handles at most. All at once and beforehand: making the list of a part
        touches the handles, and the walk shall find them as cold as the size makes them."""
        if self.parts is None:
            cuts = [self.order[at : at + count] for at in range(0, len(self.order), count)]
            self.parts = [(numbers, [self.handles[i] for i in numbers]) for numbers in cuts]
            self.handles = None
            self.turn = 0

    def walk(self, loop, loops, undo=None):
        """Seconds of loop(handles, count) on the next parts, loops handles in all. undo, untimed, makes a part as it
        was."""
        spent = done = 0
        self.cut(min(loops, BATCH))
        while done < loops:
            numbers, part = self.parts[self.turn % len(self.parts)]
            self.turn += 1
            spent += loop(part, len(part))
            if undo is not None:
                undo([self.deadlines[i] for i in numbers], part)
            self.sweep()
            done += len(part)
        return spent * loops / done

    def restore(self, delays, part):
        """Arm what is stopped or reset: the same timers where the library lets one, else new ones."""
        if self.peer.revives:
            self.reset(part, delays)
        else:
            self.arm(delays, part)

    def restore_and_stop(self, delays, part):
        """Between two walks that do nothing: what comes between two walks that do something has to leave the caches in
        the same state."""
        self.restore(delays, part)
        self.stop(part)

    def measure(self, operation, loops):
        if operation.startswith("arm") and operation not in ("arm_stop", "arm_threads"):
            return self.measure_arm(loops, {"arm_first": 1800.0, "arm_last": 5400.0}.get(operation, 3600.0))
        if operation == "arm_stop":
            spent = self.arm_stop(self.delays(loops))
            self.sweep()
            return spent
        if operation in ("walk", "walk_reset"):
            self.cut(min(loops, BATCH))
            if self.turn == 0:  # stop of what is not armed touches its object and nothing else
                for _, part in self.parts:
                    self.stop(part)
            if operation == "walk":
                return self.walk(lambda part, _: self.stop(part), loops, self.restore_and_stop)
            beside_delays = NothingReset().loops().reset
            return self.walk(lambda part, count: beside_delays(part, self.delays(count)), loops, self.restore_and_stop)
        if operation.startswith("stop"):
            if self.parts is None and operation != "stop":
                self.in_order({"stop_front": 0, "stop_middle": 0.45, "stop_back": 0.9}[operation])
            return self.walk(lambda part, _: self.stop(part), loops, self.restore)
        if operation == "reset":
            return self.walk(lambda part, count: self.reset(part, self.delays(count)), loops)
        after = 1800.0 if operation == "reset_earlier" else 5400.0
        return self.walk(lambda part, count: self.reset(part, self.delays(count, after)), loops, self.restore)

    def measure_arm(self, loops, after):
        spent = done = 0
        while done < loops:
            count = min(loops - done, BATCH)
            handles = [None] * count
            spent += self.arm(self.delays(count, after), handles)
            self.stop(handles)
            self.sweep()
            done += count
        return spent


class Extras:
    """timerheap's side of what only it and Go are measured with. Each method: seconds for so many operations."""

    def __init__(self):
        import timerheap

        self.api = timerheap

    def arm_channel(self, loops):
        timer, handles = self.api.Timer, [None] * loops
        start = clock()
        for i in range(loops):
            handles[i] = timer(3600.0)
        return clock() - start

    def arm_threads(self, loops):
        population = Population("timerheap", 0)
        barrier = threading.Barrier(3)

        def side():
            delays, handles = population.delays(loops // 2), [None] * (loops // 2)
            barrier.wait()
            population.arm(delays, handles)
            barrier.wait()

        for _ in range(2):
            threading.Thread(target=side).start()
        barrier.wait()
        start = clock()
        barrier.wait()
        return clock() - start

    def round_trip(self, loops):
        timer = self.api.Timer(3600)
        reset, receive = timer.reset, timer.c.recv
        start = clock()
        for _ in range(loops):
            reset(0)
            receive()
        return clock() - start

    def after_recv(self, loops):
        after = self.api.after
        start = clock()
        for _ in range(loops):
            after(0).recv()
        return clock() - start

    def ticker(self, loops):
        receive = self.api.tick(1e-9).recv
        start = clock()
        for _ in range(loops):
            receive()
        return clock() - start

    def ticker_reset(self, loops):
        reset = self.api.Ticker(1e-9).reset
        start = clock()
        for _ in range(loops):
            reset(2e-9)
        return clock() - start

    def ticker_reset_naive(self, loops):
        make = self.api.Ticker
        ticker = make(1e-9)
        start = clock()
        for _ in range(loops):
            ticker.stop()
            ticker = make(2e-9)
        return clock() - start

    def select_2(self, loops, idle=1):
        select, after = self.api.select, self.api.after
        others = [after(3600) for _ in range(idle)]
        start = clock()
        for _ in range(loops):
            select(after(0), *others)
        return clock() - start

    def select_64(self, loops):
        return self.select_2(loops, 63)

    def sleep_1us(self, loops):
        sleep = self.api.sleep
        start = clock()
        for _ in range(loops):
            sleep(1e-6)
        return clock() - start

    def chain(self, loops):
        after_func, finished = self.api.AfterFunc, threading.Event()
        left = loops

        def link():
            nonlocal left
            left -= 1
            if left:
                after_func(0, link)
            else:
                finished.set()

        start = clock()
        after_func(0, link)
        finished.wait()
        return clock() - start

    def simultaneous(self, loops):
        after_func, finished = self.api.AfterFunc, threading.Event()
        left = loops

        def one():
            nonlocal left
            left -= 1
            if not left:
                finished.set()

        start = clock()
        for _ in range(loops):
            after_func(0, one)
        finished.wait()
        return clock() - start

    def start_stop(self, loops):
        after_func = self.api.AfterFunc
        start = clock()
        handles = [after_func(3600, print) for _ in range(loops)]
        for handle in handles:
            handle.stop()
        return clock() - start

    def adjust(self, loops):
        after_func, sleep = self.api.AfterFunc, self.api.sleep
        start = clock()
        handles = [after_func(3600, int) for _ in range(loops)]
        handles[-1].reset(1e-9)
        sleep(1e-6)
        for handle in handles:
            handle.stop()
        return clock() - start


def fire(name, operation, size):
    """Seconds until size timers have fired, every one by itself due together or spread."""
    spread = operation.startswith("fire_spread")
    variant = {"fire_args": with_arguments, "fire_spread_tolerant": with_tolerance}.get(operation)
    chance = random.Random(1)
    delays = [2 * chance.random() if spread else 0.0 for _ in range(size)]
    lead = 0.2 + size * 2e-6
    while True:
        population = Population.of(name, 0)
        run = variant(population.peer).loops().fire if variant else population.fire
        spent = run(delays, lead, spread, operation != "fire_dropped")
        if spent is not None:
            return spent
        lead *= 2  # arming took longer than the lead
        Population.built.clear()


go = None


def measure_go(operation, size, loops):
    global go
    if go is None:
        go = Go()
        if operation not in FIRES:
            go.ask("populate", size)
    return go.ask(operation.removesuffix("_tolerant"), loops)


def measure(loops, name, operation, size):
    """Seconds for loops operations of a subject."""
    if operation in FIRES:
        # One instant with all of them: so pyperf's loops are scaled, not repeated.
        spent = measure_go(operation, 0, size) if name == "Go" else fire(name, operation, size)
        return spent * loops / size
    if operation in ROUNDS:
        rounds = max(1, loops // ROUNDS[operation])
        one = (lambda count: measure_go(operation, size, count)) if name == "Go" else getattr(extras(size), operation)
        return sum(one(ROUNDS[operation]) for _ in range(rounds)) * loops / (rounds * ROUNDS[operation])
    if name == "Go":
        return measure_go(operation, size, loops)
    population = Population.of(name, size)
    if hasattr(Extras, operation):
        return getattr(extras(size), operation)(loops)
    few = population.peer.few
    if few:
        count = few if size > 10_000 else 10 * few
        return population.measure(operation, count) * loops / count
    return population.measure(operation, loops)


def extras(size):
    Population.of("timerheap", size)
    return Extras()


def pass_on(command, args):
    command += ["--subject", *args.subject, "--size", *map(str, args.size), "--operation", *args.operation]


def main():
    # A million timers take a while to arm in each process: few processes, and batches of a fixed size.
    runner = pyperf.Runner(processes=3, values=3, warmups=1, loops=BATCH, add_cmdline_args=pass_on)
    parser = runner.argparser
    parser.add_argument("--subject", nargs="+", choices=SUBJECTS, default=["timerheap", "asyncio"], metavar="NAME")
    parser.add_argument("--size", nargs="+", type=int, default=[1000, 32_768, 1_000_000], metavar="N")
    parser.add_argument(
        "--operation", nargs="+", choices=OPERATIONS, default=list(Timerheap.operations), metavar="NAME"
    )
    args = runner.parse_args()
    for size in args.size:
        for operation in args.operation:
            for name in args.subject:
                peer = SUBJECTS[name]
                supported = peer.operations if name != "timerheap" else OPERATIONS
                if operation in supported and size <= peer.most:
                    runner.bench_time_func(f"{name}/{operation}/{size}", measure, name, operation, size)


if __name__ == "__main__":
    main()
