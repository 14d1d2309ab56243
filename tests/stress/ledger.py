"""Many threads, timers of all kinds, and then the accounts: every arming fired, was received or was cancelled, once.

    python tests/stress/ledger.py --seconds 20 --threads 8 --seed 1
    python tests/stress/ledger.py --operations 100000000
    python tests/stress/ledger.py --seeds 100 --operations 100000 --round 0.1

Runs in rounds, each with a heap and a seed of its own (seed, seed + 1, ...; the first is printed, so that a failure
can be replayed with --seed). In a round every thread arms, resets, stops, receives, selects and drops at random
while check() walks the heap's invariants beside them, finalizers, weak reference callbacks and the collector's hooks
re-enter, and threads are switched every microsecond. In every third round the collector runs at nearly every
allocation.

What is demanded, by kind:

  private function timer   One thread owns it, so its armings have an order. Each leaves a stamp, its earliest lawful
                           moment; a stop or reset that says True takes the stamp of the arming it cancelled back. At
                           quiescence the n-th run belongs to the n-th stamp: as many of one as of the other (none
                           lost, none twice) and no run before its stamp (none early). After a stop that said True
                           with all earlier runs accounted for, the timer is sealed: a run then is reported at once.
  shared function timer    Any thread resets and stops it: arms = runs + True answers, and by any moment no more
                           runs than armings that could be due by then.
  private channel timer    Its owner knows the answer of every call: what stop and reset return, which value a
                           receive gives, and that a receive gives one when the deadline has passed.
  shared channel timer     arms = receives + True answers, no value from the future.
  Ticker                   Values lie on its grid, rise, and go to one receiver each.
  finalizers               Arm and stop within whatever they interrupt; their arms = runs + True answers.

Finally the heap's own counters must be equal to the ledger's, and closing must cancel exactly what was dropped with a
far deadline. Exits with 1 and says what and in which round, if anything is off; a round that hangs dumps all stacks.

With --seeds, all of that so many times, each with a seed of its own in a process of its own, and the count of those
that hung: in a round, or on the way out, where nothing but the process's end shows it.
"""

import argparse
import collections
import faulthandler
import gc
import random
import re
import signal
import subprocess
import sys
import sysconfig
import threading
import time
import weakref

from timerheap import AfterFunc, Ticker, Timer, TimerHeap, select

NEAR = (0.0, 1e-6, 1e-5, 1e-4, 1e-3, 5e-3)
"""Upper bounds of random delays, in seconds, that a round waits for."""

EAGER = (1, 0) if sysconfig.get_config_var("Py_GIL_DISABLED") else (1,)
"""The 0 keeps a collector without a GIL from waiting until a quarter more has been made than there is."""

FAR = 3600.0
SHARED_DELAY = 2e-4
PATIENCE = 60.0
"""Seconds for what is due to have run: a busy machine, and still the end of a timer that is lost."""

STRIDE = 1000
"""From one seed of --seeds to the next: more than a process has rounds, so that no two share one."""

nanoseconds = time.monotonic_ns


class Faults:
    """What went wrong. Appending is atomic; the count goes on, the text ends at a few."""

    def __init__(self):
        self.seen = collections.deque(maxlen=20)
        self.counts = collections.Counter()

    def __call__(self, kind, detail=""):
        self.counts[kind] += 1
        self.seen.append(f"{kind}: {detail}")


class Private:
    """A function timer with one owner, and its armings."""

    __slots__ = ("far", "faults", "runs", "sealed", "stamps", "timer")

    def __init__(self, heap, delay, faults):
        self.faults = faults
        self.sealed = False
        self.far = delay >= FAR
        self.runs = []
        self.stamps = [nanoseconds() + int(delay * 1e9)]
        self.timer = AfterFunc(delay, self.run, heap=heap)

    def run(self):
        if self.sealed:
            self.faults("after stop", "a run after stop() was True")
        self.runs.append(nanoseconds())

    def stop(self):
        if not self.timer.stop():
            return 0
        self.stamps.pop()
        self.far = False
        self.sealed = len(self.runs) == len(self.stamps)
        return 1

    def reset(self, delay):
        self.sealed = False
        self.far = delay >= FAR
        self.stamps.append(nanoseconds() + int(delay * 1e9))
        if not self.timer.reset(delay):
            return 0
        del self.stamps[-2]
        return 1

    def drop(self):
        """Let go of the handle. 1 if that leaves a timer behind that never runs."""
        self.timer = None
        if not self.far:
            return 0
        self.stamps.pop()
        return 1

    def audit(self):
        missing = len(self.stamps) - len(self.runs)
        if missing:
            self.faults("lost" if missing > 0 else "double", f"{len(self.stamps)} armings, {len(self.runs)} runs")
        for stamp, ran in zip(self.stamps, self.runs, strict=False):
            if ran < stamp:
                self.faults("early", f"by {stamp - ran} ns")


class PrivateChannel:
    """A channel timer with one owner, who knows what every call has to answer."""

    __slots__ = ("faults", "live", "timer", "when")

    def __init__(self, heap, delay, faults):
        self.faults = faults
        floor = nanoseconds() + int(delay * 1e9)
        self.timer = Timer(delay, heap=heap)
        self.armed(floor)

    def armed(self, floor):
        self.live = True
        self.when = self.timer.when
        if self.when is None or round(self.when * 1e9) < floor:
            self.faults("early", f"a deadline of {self.when}, not before {floor} ns")

    def stop(self):
        was, self.live = self.live, False
        if self.timer.stop() is not was:
            self.faults("wrong answer", f"stop of a channel timer was not {was}")
        return was

    def reset(self, delay):
        floor, was = nanoseconds() + int(delay * 1e9), self.live
        if self.timer.reset(delay) is not was:
            self.faults("wrong answer", f"reset of a channel timer was not {was}")
        self.armed(floor)
        return was

    def due(self):
        return self.live and self.when <= time.monotonic()

    def got(self, value):
        """Account for a value received."""
        if not self.live or value != self.when:
            self.faults("stale value", f"{value}, the deadline is {self.when}, live: {self.live}")
        if value > time.monotonic():
            self.faults("early", f"a value of {value}")
        self.live = False
        return 1

    def receive(self, timeout):
        """recv with a timeout, or poll with none: the values received."""
        due = self.due()
        try:
            value = self.timer.c.poll() if timeout is None else self.timer.c.recv(timeout)
        except TimeoutError:
            value = None
        if value is not None:
            return self.got(value)
        if due:
            self.faults("lost", "a receive without a value after the deadline")
        return 0


class Grid:
    """Checks a Ticker's values: on the grid, and rising for each receiver."""

    def __init__(self, heap, period, faults):
        self.period = int(period * 1e9)
        self.faults = faults
        self.first = nanoseconds()
        self.ticker = Ticker(period, heap=heap)
        self.last_start = nanoseconds()
        self.phase = None

    def see(self, values, value):
        tick = round(value * 1e9)
        if tick > nanoseconds():
            self.faults("early", f"a tick at {tick}")
        if values and tick <= values[-1]:
            self.faults("double", f"a tick at {tick} after {values[-1]}")
        values.append(tick)

    def audit(self, lists):
        ticks = sorted(tick for values in lists for tick in values)
        if len(set(ticks)) != len(ticks):
            self.faults("double", "two receivers of one tick")
        if not ticks:
            return
        start = ticks[0] % self.period
        if any(tick % self.period != start for tick in ticks):
            self.faults("off the grid", f"period {self.period} ns")
        # The grid begins when the Ticker was made, which lies between two readings of the clock.
        if (start - self.first) % self.period > self.last_start - self.first:
            self.faults("off the grid", "the grid does not begin at the start")


class Shared:
    """What all threads of a round share."""

    def __init__(self, heap, seed, faults):
        self.heap, self.seed, self.faults = heap, seed, faults
        self.runs = [[] for _ in range(12)]
        self.begun = nanoseconds()
        self.timers = [AfterFunc(SHARED_DELAY, self.run, k, heap=heap) for k in range(len(self.runs))]
        self.channels = [Timer(SHARED_DELAY, heap=heap) for _ in range(4)]
        self.grid = Grid(heap, 3e-5, faults)
        self.arms, self.fires, self.cancels = (collections.deque() for _ in range(3))  # of finalizers

    def run(self, k):
        self.runs[k].append(nanoseconds())

    def meddle(self, *_):
        """Runs inside finalizers, weak reference callbacks and the collector's hooks, in any thread."""
        timer = AfterFunc(1e-5, self.fires.append, 1, heap=self.heap)
        self.arms.append(1)
        if len(self.arms) % 2:
            self.cancels.append(timer.stop())
        Timer(FAR, heap=self.heap)


class Meddler:
    def __init__(self, shared):
        self.shared = shared
        self.cycle = self

    def __call__(self):
        pass

    def __del__(self):
        self.shared.meddle()


class Hand:
    """One thread's work and its page of the ledger."""

    def __init__(self, shared, index, most, quota):
        self.shared, self.most, self.quota = shared, most, quota
        self.chance = random.Random(shared.seed * 1000 + index)
        self.operations = self.arms = self.cancels = self.received = self.left = 0
        self.owners = 0  # timers whose callback is a Meddler
        self.chan_arms = self.chan_cancels = 0
        self.shared_arms = [[] for _ in shared.timers]
        self.shared_cancels = [0] * len(shared.timers)
        self.shared_chan = [0, 0, 0]  # arms, cancels, receives
        self.ticks, self.own_ticks = [], []
        self.all, self.held, self.channels = [], [], []
        self.grid = None

    def delay(self):
        chance = self.chance
        return FAR if chance.random() < 0.3 else chance.choice(NEAR) * chance.random()

    def work(self, until):
        try:
            heap = self.shared.heap
            self.grid = Grid(heap, 5e-5, self.shared.faults)
            self.channels = [PrivateChannel(heap, self.delay(), self.shared.faults) for _ in range(6)]
            self.chan_arms += 6
            while self.operations < self.quota and time.monotonic() < until:
                for _ in range(100):
                    self.step(self.chance.random())
                self.operations += 100
        except BaseException as exc:
            self.shared.faults("exception", repr(exc))
            raise

    def step(self, kind):
        chance, held = self.chance, self.held
        if kind < 0.26 or not held:
            if len(self.all) >= self.most:
                kind = 0.3
            else:
                private = Private(self.shared.heap, self.delay(), self.shared.faults)
                self.arms += 1
                self.all.append(private)
                if kind < 0.06:
                    self.left += private.drop()
                else:
                    held.append(private)
                return
        if kind < 0.46:
            self.cancels += chance.choice(held).stop()
        elif kind < 0.66:
            self.arms += 1
            self.cancels += chance.choice(held).reset(self.delay())
        elif kind < 0.69:
            if len(held) > 1:
                self.left += held.pop(chance.randrange(len(held))).drop()
        elif kind < 0.80:
            self.step_shared(chance.randrange(len(self.shared.timers)), kind < 0.76)
        elif kind < 0.93:
            self.step_channel(chance.choice(self.channels), kind)
        elif kind < 0.97:
            self.step_shared_channel(chance.choice(self.shared.channels), kind)
        elif kind < 0.99:
            self.tick()
        else:
            self.finalize()

    def step_shared(self, k, reset):
        if reset:
            self.shared_arms[k].append(nanoseconds())
            self.shared_cancels[k] += self.shared.timers[k].reset(SHARED_DELAY)
        else:
            self.shared_cancels[k] += self.shared.timers[k].stop()

    def step_channel(self, channel, kind):
        if kind < 0.84:
            self.chan_arms += 1
            self.chan_cancels += channel.reset(self.delay())
        elif kind < 0.86:
            self.chan_cancels += channel.stop()
        elif kind < 0.91:
            self.received += channel.receive(None)
        elif kind < 0.92:
            self.received += channel.receive(1e-5)
        else:
            self.select()

    def select(self):
        by_channel = {channel.timer.c: channel for channel in self.channels}
        due = any(channel.due() for channel in self.channels)
        try:
            ready, value = select(*by_channel, self.grid.ticker.c, timeout=0 if self.chance.random() < 0.7 else 2e-5)
        except TimeoutError:
            if due:
                self.shared.faults("lost", "a select without a value after a deadline")
        else:
            if ready is self.grid.ticker.c:
                self.grid.see(self.own_ticks, value)
            else:
                self.received += by_channel[ready].got(value)

    def step_shared_channel(self, timer, kind):
        if kind < 0.945:
            self.shared_chan[0] += 1
            self.shared_chan[1] += timer.reset(self.chance.random() * SHARED_DELAY)
        elif kind < 0.95:
            self.shared_chan[1] += timer.stop()
        else:
            try:
                value = timer.c.poll() if kind < 0.965 else timer.c.recv(2e-5)
            except TimeoutError:
                value = None
            if value is not None:
                self.shared_chan[2] += 1
                if value > time.monotonic():
                    self.shared.faults("early", f"a value of {value}")

    def tick(self):
        if self.chance.random() < 0.3:
            self.grid.see(self.own_ticks, self.grid.ticker.c.recv())
        else:
            value = self.shared.grid.ticker.c.poll()
            if value is not None:
                self.shared.grid.see(self.ticks, value)

    def finalize(self):
        """Leave something behind whose end re-enters: in a cycle, as an armed callback, with a weak reference."""
        meddler = Meddler(self.shared)
        if self.chance.random() < 0.5:
            meddler.timer = AfterFunc(1e-4, meddler, heap=self.shared.heap)
            self.owners += 1
        else:
            meddler.watch = weakref.ref(meddler, self.shared.meddle)


def audit(shared, hands):
    """The accounts of a round; faults are noted in shared.faults."""
    heap, faults = shared.heap, shared.faults
    for hand in hands:
        for private in hand.all:
            if private.timer is not None and private.far:
                hand.cancels += private.stop()
        for channel in hand.channels:
            hand.chan_cancels += channel.stop()
        hand.grid.ticker.stop()
    shared_cancels = sum(timer.stop() for timer in shared.channels)
    shared.grid.ticker.stop()
    left = sum(hand.left for hand in hands)
    # A collection arms timers (Meddler), whose callbacks leave more to collect: until nothing new comes. That the last
    # callback has returned, not only been launched, is what one after it shows.
    deadline = time.monotonic() + PATIENCE
    last_ones = 0
    while True:
        before = heap.stats()["arms"]
        gc.collect()
        while len(heap) > left and time.monotonic() < deadline:
            time.sleep(0.001)
        ended = threading.Event()
        AfterFunc(0, ended.set, heap=heap)
        last_ones += 1
        if not ended.wait(PATIENCE):
            faults("lost", "the last callback")
        gc.collect()
        if heap.stats()["arms"] == before + 1 or time.monotonic() >= deadline:
            break
    if len(heap) != left:
        faults("lost", f"{len(heap)} timers armed, expected {left}")
    heap.check()

    runs = last_ones
    for hand in hands:
        runs += hand.owners
        hand.grid.audit([hand.own_ticks])
        for private in hand.all:
            private.audit()
            runs += len(private.runs)
    shared.grid.audit([hand.ticks for hand in hands])
    arms, cancels = last_ones + len(shared.arms), sum(shared.cancels)
    if len(shared.arms) != len(shared.fires) + cancels:
        faults("finalizers", f"{len(shared.arms)} armings, {len(shared.fires)} runs, {cancels} cancels")
    runs += len(shared.fires)
    for k, timer_runs in enumerate(shared.runs):
        armings = sorted([shared.begun, *(stamp for hand in hands for stamp in hand.shared_arms[k])])
        cancelled = sum(hand.shared_cancels[k] for hand in hands)
        if len(armings) != len(timer_runs) + cancelled:
            kind = "lost" if len(armings) > len(timer_runs) + cancelled else "double"
            faults(kind, f"shared: {len(armings)} armings, {len(timer_runs)} runs, {cancelled} cancels")
        for begun, ran in zip(armings, timer_runs, strict=False):
            if ran < begun + SHARED_DELAY * 1e9 - 1:
                faults("early", f"shared: by {begun + SHARED_DELAY * 1e9 - ran} ns")
        arms += len(armings)
        cancels += cancelled
        runs += len(timer_runs)
    for hand in hands:
        arms += hand.arms + hand.owners
        cancels += hand.cancels

    chan = [len(shared.channels), shared_cancels, 0]
    for hand in hands:
        for k in range(3):
            chan[k] += hand.shared_chan[k]
    if chan[0] != chan[1] + chan[2]:
        faults("channels", f"shared: {chan[0]} armings, {chan[1]} cancels, {chan[2]} receives")
    chan_arms = chan[0] + sum(hand.chan_arms for hand in hands)
    received = chan[2] + sum(hand.received for hand in hands)
    stats = heap.stats()
    # What meddle() arms and drops at once is cancelled at once.
    dropped = len(shared.arms)
    expected = {"arms": arms + chan_arms + dropped, "fired": runs, "received": received}
    expected["cancelled"] = cancels + chan[1] + sum(hand.chan_cancels for hand in hands) + dropped
    for name, value in expected.items():
        if stats[name] != value:
            faults("accounts", f"{name}: the heap says {stats[name]}, the ledger {value}")
    heap.close()
    if heap.stats()["cancelled"] - stats["cancelled"] != left:
        faults("accounts", f"closing cancelled {heap.stats()['cancelled'] - stats['cancelled']}, expected {left}")
    heap.check()
    return expected


def run_round(seed, seconds, threads, eager, faults, quota):
    heap = TimerHeap("stress")
    shared = Shared(heap, seed, faults)
    hands = [Hand(shared, index, 150 if eager else 4000, quota) for index in range(threads)]
    until = time.monotonic() + seconds
    workers = [threading.Thread(target=hand.work, args=(until,), daemon=True) for hand in hands]
    before = gc.get_threshold()
    if eager:
        gc.set_threshold(*EAGER)
        gc.callbacks.append(shared.meddle)
    for worker in workers:
        worker.start()
    while any(worker.is_alive() for worker in workers):
        heap.check()
        time.sleep(0.02)
    if eager:
        gc.callbacks.remove(shared.meddle)
        gc.set_threshold(*before)
    accounts = audit(shared, hands)
    return sum(hand.operations for hand in hands), accounts


def run_seed(seed, args):
    """One ledger in a process of its own: its output, and "ok", "failed" or "hung"."""
    command = [sys.executable, "-X", "faulthandler", __file__, "--seed", str(seed)]
    for name in ("seconds", "operations", "threads", "round"):
        command += [f"--{name}", str(getattr(args, name))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as child:
        try:
            output, _ = child.communicate(timeout=args.limit)
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGABRT)  # faulthandler prints every thread's stack
            try:
                output, _ = child.communicate(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                child.kill()
                output, _ = child.communicate()
            return output, "hung"
    if child.returncode == 0:
        return output, "ok"
    # The first line of what dump_traceback_later says.
    return output, "hung" if re.search(r"^Timeout \(", output, re.MULTILINE) else "failed"


def run_seeds(first, args):
    counts, operations, started = collections.Counter(), 0, time.monotonic()
    print(f"seeds {first} and every {STRIDE} on, {args.threads} threads, Python {sys.version.split()[0]}", flush=True)
    for seed in range(first, first + STRIDE * args.seeds, STRIDE):
        output, verdict = run_seed(seed, args)
        counts[verdict] += 1
        if verdict == "ok":
            operations += int(re.search(r"^(\d+) operations", output, re.MULTILINE)[1])
        else:
            print(f"seed {seed} {verdict}:", output, sep="\n", flush=True)
    print(
        f"{args.seeds} seeds, {operations} operations, {time.monotonic() - started:.0f} s: "
        f"{counts['hung']} hung, {counts['failed']} failed"
    )
    return int(counts["ok"] != args.seeds)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20, help="in all, about (default 20)")
    parser.add_argument("--operations", type=float, default=0, help="go on until so many are done, whatever the time")
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--seed", type=int, default=None, help="of the first round (default: a fresh one)")
    parser.add_argument("--round", type=float, default=1.0, metavar="SECONDS", help="length of a round (default 1)")
    parser.add_argument("--seeds", type=int, default=0, metavar="N", help="N seeds, each in a process of its own")
    parser.add_argument("--limit", type=float, default=300, help="seconds after which one of them hangs (default 300)")
    args = parser.parse_args()
    seed = random.SystemRandom().randrange(1 << 32) if args.seed is None else args.seed
    if args.seeds:
        return run_seeds(seed, args)
    print(f"seed {seed}, {args.threads} threads, Python {sys.version.split()[0]}", flush=True)
    sys.setswitchinterval(1e-6)
    faults = Faults()
    sys.unraisablehook = lambda seen: faults("unraisable", repr(seen.exc_value))
    threading.excepthook = lambda seen: faults("exception", repr(seen.exc_value))
    totals = collections.Counter()
    started, rounds = time.monotonic(), 0
    while not faults.counts:
        left = started + args.seconds - time.monotonic()
        if args.operations:
            left = (args.operations > totals["operations"]) * args.round
        if left <= 0 and rounds:
            break
        faulthandler.dump_traceback_later(2 * PATIENCE + args.round, exit=True)
        quota = (args.operations - totals["operations"]) / args.threads if args.operations else float("inf")
        seconds = max(min(args.round, left), 0.05)
        operations, accounts = run_round(seed + rounds, seconds, args.threads, rounds % 3 == 2, faults, quota)
        totals.update(accounts, operations=operations)
        rounds += 1
    faulthandler.cancel_dump_traceback_later()
    count = faults.counts
    print(
        f"{totals['operations']} operations, {rounds} rounds, {args.threads} threads, "
        f"{time.monotonic() - started:.0f} s: {totals['arms']} arms, {totals['fired']} fires, "
        f"{totals['received']} receives, {totals['cancelled']} cancels\n"
        f"lost {count['lost']}, after stop {count['after stop']}, double {count['double']}, early {count['early']}, "
        f"other {sum(count.values()) - sum(count[k] for k in ('lost', 'after stop', 'double', 'early'))}"
    )
    if count:
        print(f"round with seed {seed + rounds - 1}:", *faults.seen, sep="\n  ")
    return int(bool(count))


if __name__ == "__main__":
    sys.exit(main())
