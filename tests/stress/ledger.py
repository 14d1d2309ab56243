"""Many threads, timers of all kinds, and then the accounts: every arming fired, was received or was cancelled, once.

    python tests/stress/ledger.py --seconds 20 --threads 8 --seed 1
    python tests/stress/ledger.py --operations 100000000
    python tests/stress/ledger.py --operations 10000000 --patience 0.001
    python tests/stress/ledger.py --seeds 100 --operations 100000 --round 0.1

Runs in rounds, each with a heap and a seed of its own (seed, seed + 1, ...; the first is printed, so that a failure
can be replayed with --seed). In a round every thread arms, resets, postpones, stops, receives, selects and drops at
random while check() walks the heap's invariants beside them and pending() its timers, finalizers, weak reference
callbacks and the collector's hooks re-enter, and threads are switched every microsecond. In every third round the
collector runs at nearly every allocation. In every fourth, or with --patience in each, the heap has patience for a
moment only, and some hundred callbacks a second take three times as long, so that they are handed over.

What is demanded, by kind:

  private function timer   One thread owns it, so its armings have an order. Each leaves a stamp, its earliest lawful
                           moment; a stop or reset that says True takes the stamp of the arming it cancelled back. At
                           quiescence the n-th run belongs to the n-th stamp: as many of one as of the other (none
                           lost, none twice) and no run before its stamp (none early). After a stop that said True
                           with all earlier runs accounted for, the timer is sealed: a run then is reported at once.
                           postpone leaves a stamp when it says True, as reset does, and revives nothing: once it, or
                           a stop, has found the timer inactive, or made it so, it says False.
  shared function timer    Any thread resets, postpones and stops it: arms = runs + True answers, and by any moment no
                           more runs than armings that could be due by then.
  private channel timer    Its owner knows the answer of every call: what stop, reset and postpone return, which value
                           a receive gives, and that a receive gives one when the deadline has passed.
  shared channel timer     arms = receives + True answers, no value from the future.
  Ticker                   Values lie on its grid, rise, and go to one receiver each.
  private periodic timer   Its owner knows the answer of every call, for a timer of every() is active until it is
                           stopped: so arms = runs + True answers + (1 if active), where each run is an arming as
                           well. It begins its grid within the call that arms it; .when lies on the grid, never goes
                           back, and is at most one period away; .period is the one given last. Never two runs at
                           once. By any moment no more runs than points of the grids it has had. After a stop at most
                           the one run that had been launched before. While it is active it goes on running.
  finite periodic timer    Stops itself from inside, which says True: then there is no run any more. The n-th run comes
                           not before n periods. Some raise: each error is reported once, and the next run comes.
  shared periodic timer    arms = True answers when it has been stopped at last, never two runs at once, and by any
                           moment no more runs than periods since it was made.
  private array            One thread owns it and does all of the above by many slots at a time, some of them twice in
                           a call: each slot has its stamps, and what is demanded of a private function timer.
  shared array             Any thread; each slot is held to what a shared function timer is.
  dropped array            Nobody holds it, or its owner stops it first: arms = runs + True answers. Some raise: each
                           error is reported once, for the slots of one call.
  finalizers               Arm and stop within whatever they interrupt; their arms = runs + True answers.

With patience callbacks overlap, so the runs of one timer may be noted in another order than they were launched in: what
is demanded of the n-th run is demanded of the n-th to begin.

pending() must be sorted, name no timer twice, and have each that is held with a far deadline. At any moment the heap's
counters must balance: arms = fired + received + cancelled + armed - tickers. Finally they must be equal to the
ledger's, pending() must be what was dropped with a far deadline, and closing must cancel exactly that, wait for a
callback that has lost its post, and leave no thread. Exits with 1 and says what and in which round, if anything is
off; a round that hangs dumps all stacks.

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

from timerheap import AfterFunc, Ticker, Timer, TimerArray, TimerHeap, every, select

NEAR = (0.0, 1e-6, 1e-5, 1e-4, 1e-3, 5e-3)
"""Upper bounds of random delays, in seconds, that a round waits for."""

EAGER = (1, 0) if sysconfig.get_config_var("Py_GIL_DISABLED") else (1,)
"""The 0 keeps a collector without a GIL from waiting until a quarter more has been made than there is."""

PERIODS = (1e-3, 3e-3, 1e-2, 3e-2)
"""Likewise of periods."""

FAR = 3600.0
SLOTS = 400
"""Of a private array; several chunks, and pieces of a call."""

BATCH = 64
SHARED_SLOTS = 40
SHARED_DELAY = 2e-4
SHARED_PERIOD = 1_000_000
"""Nanoseconds."""

TINY = 1e-3
"""The patience of every fourth round's heap, in seconds."""

NAP, NAPS_APART = 3, 5
"""How long a callback takes now and then, and how often at most: in units of the heap's patience."""

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


class Oops(Exception):
    """What callbacks raise."""


class Private:
    """A function timer with one owner, and its armings."""

    __slots__ = ("far", "idle", "runs", "sealed", "shared", "stamps", "timer")

    def __init__(self, shared, delay):
        self.shared = shared
        self.sealed = self.idle = False
        self.far = delay >= FAR
        self.runs = []
        self.stamps = [nanoseconds() + int(delay * 1e9)]
        self.timer = AfterFunc(delay, self.run, heap=shared.heap)

    def run(self):
        begun = nanoseconds()
        if self.sealed:
            self.shared.faults("after stop", "a run after stop() was True")
        self.shared.nap(begun)
        self.runs.append(begun)

    def stop(self):
        idle, self.idle = self.idle, True
        if not self.timer.stop():
            return 0
        if idle:
            self.shared.faults("wrong answer", "stop of an inactive timer was True")
            return 1
        self.stamps.pop()
        self.far = False
        self.sealed = len(self.runs) == len(self.stamps)
        return 1

    def reset(self, delay):
        idle, self.idle = self.idle, False
        self.sealed = False
        self.far = delay >= FAR
        self.stamps.append(nanoseconds() + int(delay * 1e9))
        if not self.timer.reset(delay):
            return 0
        if idle:
            self.shared.faults("wrong answer", "reset of an inactive timer was True")
            return 1
        del self.stamps[-2]
        return 1

    def postpone(self, delay):
        stamp = nanoseconds() + int(delay * 1e9)
        if not self.timer.postpone(delay):
            if self.far:
                self.shared.faults("wrong answer", "postpone of a timer far from due was False")
            self.idle = True
            return 0
        if self.idle:
            self.shared.faults("revived", "postpone of an inactive timer was True")
            return 1
        self.far = delay >= FAR
        self.stamps[-1] = stamp
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
        faults = self.shared.faults
        if missing:
            faults("lost" if missing > 0 else "double", f"{len(self.stamps)} armings, {len(self.runs)} runs")
        stamps, runs = self.stamps, self.runs
        if self.shared.patience:
            stamps, runs = sorted(stamps), sorted(runs)
        for stamp, ran in zip(stamps, runs, strict=False):
            if ran < stamp:
                faults("early", f"by {stamp - ran} ns")


class PrivateArray:
    """A TimerArray with one owner, and the armings of each slot."""

    def __init__(self, shared, each):
        self.shared, self.each = shared, each
        self.sealed, self.far = ([False] * SLOTS for _ in range(2))
        self.runs, self.stamps = ([[] for _ in range(SLOTS)] for _ in range(2))
        self.idle = [True] * SLOTS
        self.timers = TimerArray(SLOTS, self.run, each=each, batch=BATCH, heap=shared.heap)

    def run(self, slots):
        begun = nanoseconds()
        for slot in (slots,) if self.each else slots:
            if self.sealed[slot]:
                self.shared.faults("after stop", "a run of a slot after stop() had it")
            self.runs[slot].append(begun)
        self.shared.nap(begun)

    def cancelled(self, slot, was, what):
        """A call has answered for the slot: take the stamp of what it cancelled back."""
        if was and self.idle[slot]:
            self.shared.faults("wrong answer", f"{what} of an inactive slot was True")
        elif not was and self.far[slot]:
            self.shared.faults("wrong answer", f"{what} of a slot far from due was False")
        if was:
            self.stamps[slot].pop()

    def answers(self, method, slots, *args):
        out = bytearray(len(slots))
        told = method(slots, *args, out=out)
        if told != sum(out):
            self.shared.faults("wrong answer", f"{told} of {sum(out)} slots")
        return out

    def stop(self, slots):
        out = self.answers(self.timers.stop, slots)
        for slot, was in zip(slots, out, strict=True):
            self.cancelled(slot, was, "stop")
            self.idle[slot], self.far[slot] = True, False
            if was:
                self.sealed[slot] = len(self.runs[slot]) == len(self.stamps[slot])
        return sum(out)

    def reset(self, slots, delays):
        for slot in slots:
            self.sealed[slot] = False
        start = nanoseconds()
        out = self.answers(self.timers.reset, slots, delays)
        for slot, delay, was in zip(slots, delays, out, strict=True):
            self.cancelled(slot, was, "reset")
            self.stamps[slot].append(start + int(delay * 1e9))
            self.idle[slot], self.far[slot] = False, delay >= FAR
        return sum(out)

    def postpone(self, slots, delays):
        start = nanoseconds()
        out = self.answers(self.timers.postpone, slots, delays)
        for slot, delay, was in zip(slots, delays, out, strict=True):
            self.cancelled(slot, was, "postpone")
            if was:
                self.stamps[slot].append(start + int(delay * 1e9))
            self.idle[slot], self.far[slot] = not was, was and delay >= FAR
        return sum(out)

    def look(self, slots):
        """active and when, which is not before what the owner knows."""
        active, whens = self.timers.active(slots), self.timers.when(slots)
        for slot, is_active, when in zip(slots, active, whens, strict=True):
            if (is_active or when == when) and self.idle[slot]:
                self.shared.faults("revived", "an inactive slot is active")
            if self.far[slot] and not (is_active and round(when * 1e9) >= self.stamps[slot][-1]):
                self.shared.faults("lost", f"a slot far from due: {is_active}, {when}")

    def audit(self):
        faults = self.shared.faults
        for stamps, runs in zip(self.stamps, self.runs, strict=True):
            missing = len(stamps) - len(runs)
            if missing:
                faults("lost" if missing > 0 else "double", f"{len(stamps)} armings of a slot, {len(runs)} runs")
            if self.shared.patience:
                stamps, runs = sorted(stamps), sorted(runs)
            for stamp, ran in zip(stamps, runs, strict=False):
                if ran < stamp:
                    faults("early", f"a slot by {stamp - ran} ns")


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

    def postpone(self, delay):
        floor, was = nanoseconds() + int(delay * 1e9), self.live
        if self.timer.postpone(delay) is not was:
            self.faults("wrong answer", f"postpone of a channel timer was not {was}")
        if was:
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


class Alone:
    """The runs of a periodic function: when each began, and that there are never two at once."""

    def __init__(self, shared):
        self.shared = shared
        self.runs = []
        self.inside = 0

    def run(self):
        begun = nanoseconds()
        self.inside += 1
        if self.inside != 1:
            self.shared.faults("overlap", "two runs of a periodic timer at once")
        self.check(begun)
        self.shared.nap(begun)
        self.runs.append(begun)
        self.inside -= 1

    def check(self, begun):
        pass


class Periodic(Alone):
    """A timer of every() with one owner, who knows what every call has to answer."""

    def __init__(self, shared, period):
        super().__init__(shared)
        self.grids = []  # (not before which moment one began, not after which it ended, its period)
        self.stopped_at = None  # after so many runs
        start = nanoseconds()
        self.timer = every(period / 1e9, self.run, heap=shared.heap)
        self.armed(start, nanoseconds(), period)

    def armed(self, start, end, period):
        """Since a moment between start and end it has a new grid."""
        self.live, self.start, self.period, self.last = True, start, period, 0
        self.reported = len(self.runs)
        self.phase = None
        when = self.look()
        self.phase = when % period
        if (self.phase - start) % period > end - start:
            self.shared.faults("off the grid", "a period does not begin with the call that arms")

    def over(self, end):
        if self.live:
            self.grids.append((self.start, end, self.period))

    def check(self, begun):
        if self.stopped_at is not None and len(self.runs) > self.stopped_at:
            self.shared.faults("after stop", "a second run of a periodic timer after stop() was True")

    def look(self):
        """What the timer shows of itself: its next point of the grid, or None."""
        faults, when = self.shared.faults, self.timer.when
        until = nanoseconds() + self.period
        if round(self.timer.period * 1e9) != self.period:
            faults("wrong answer", f"a period of {self.timer.period} s, not {self.period} ns")
        if not self.live:
            if when is not None:
                faults("revived", "a stopped periodic timer has a deadline")
            return None
        if when is None:
            faults("lost", "a periodic timer that nobody has stopped has no deadline")
            return until
        when = round(when * 1e9)
        if when > until or when < max(self.last, self.start + self.period):
            faults("off the grid", f"a point at {when}, after {self.last}, before {until}, from {self.start}")
        if self.phase is not None and when % self.period != self.phase:
            faults("off the grid", f"a point at {when}, period {self.period} ns, phase {self.phase} ns")
        self.last = when
        return when

    def stop(self):
        was = self.live
        if self.timer.stop() is not was:
            self.shared.faults("wrong answer", f"stop of a periodic timer was not {was}")
        self.over(nanoseconds())
        if was:
            self.stopped_at = len(self.runs)
        self.live = False
        return was

    def rearm(self, period, revive):
        """reset, or postpone without revive: whether that had to cancel something."""
        was = self.live
        if was or revive:
            self.stopped_at = None
        start = nanoseconds()
        told = (self.timer.reset if revive else self.timer.postpone)(period / 1e9)
        end = nanoseconds()
        if told is not was:
            self.shared.faults("wrong answer", f"{'reset' if revive else 'postpone'} of a periodic timer was not {was}")
        if was or revive:
            self.over(end)
            self.armed(start, end, period)
        return was

    def waiting(self):
        """Whether its next run is yet to be seen, beside one that may have been launched before it was armed."""
        return self.live and self.period < 1e9 and len(self.runs) < self.reported + 2

    def audit(self):
        """By the moment of each run, no more of them than points of all grids."""
        grids, passed = collections.deque(self.grids), 0
        for number, begun in enumerate(sorted(self.runs), 1):
            while grids and grids[0][1] <= begun:
                start, end, period = grids.popleft()
                passed += (end - start) // period
            points = passed
            for start, _, period in list(grids)[:2]:  # one ends after another has begun
                points += max(begun - start, 0) // period
            if number > points:
                self.shared.faults("early", f"run {number} of a periodic timer by point {points}")


class Finite(Alone):
    """A timer of every() that stops itself, and that nobody else holds."""

    def __init__(self, shared, period, most, raises):
        super().__init__(shared)
        self.period, self.most, self.raises = period, most, raises
        self.timer, self.stopped = None, False
        self.start = nanoseconds()
        self.timer = every(period / 1e9, self.run, heap=shared.heap)

    def run(self):
        super().run()
        # The first runs may come before the timer is known here.
        if len(self.runs) >= self.most and self.timer is not None:
            if not self.timer.stop():
                self.shared.faults("wrong answer", "stop of a periodic timer from inside was False")
            self.timer, self.stopped = None, True
        if self.raises:
            raise Oops

    def check(self, begun):
        if self.stopped:
            self.shared.faults("after stop", "a run of a periodic timer that has stopped itself")
        if begun < self.start + (len(self.runs) + 1) * self.period:
            self.shared.faults("early", f"run {len(self.runs) + 1} of a periodic timer")

    def audit(self):
        if not self.stopped:
            self.shared.faults("lost", f"{len(self.runs)} runs of a periodic timer, not {self.most}")


class Common(Alone):
    """A timer of every() that all threads stop, reset and postpone."""

    def __init__(self, shared):
        super().__init__(shared)
        self.start = nanoseconds()
        self.timer = every(SHARED_PERIOD / 1e9, self.run, heap=shared.heap)

    def audit(self):
        for number, begun in enumerate(sorted(self.runs), 1):
            if begun < self.start + number * SHARED_PERIOD:
                self.shared.faults("early", f"shared: run {number} of a periodic timer")


class Shared:
    """What all threads of a round share."""

    def __init__(self, seed, faults, patience):
        self.seed, self.faults, self.patience = seed, faults, patience
        self.heap = heap = TimerHeap("stress", patience=patience or None, on_error=self.failed)
        self.nap_at = nanoseconds() if patience else float("inf")
        self.errors = collections.deque()
        self.runs = [[] for _ in range(12 + SHARED_SLOTS)]  # of the timers, and then of the array's slots
        self.begun = nanoseconds()
        self.timers = [AfterFunc(SHARED_DELAY, self.run, k, heap=heap) for k in range(12)]
        self.array = TimerArray(SHARED_SLOTS, self.run_slots, batch=7, heap=heap)
        self.array.reset(slice(None), SHARED_DELAY)
        self.channels = [Timer(SHARED_DELAY, heap=heap) for _ in range(4)]
        self.grid = Grid(heap, 3e-5, faults)
        self.periodic = [Common(self) for _ in range(3)]
        self.arms, self.fires, self.cancels = (collections.deque() for _ in range(3))  # of finalizers

    def run(self, k):
        begun = nanoseconds()
        self.nap(begun)
        self.runs[k].append(begun)

    def run_slots(self, slots):
        begun = nanoseconds()
        for slot in slots:
            self.runs[12 + slot].append(begun)
        self.nap(begun)

    def nap(self, now):
        """Now and then a callback takes longer than the heap has patience."""
        if now >= self.nap_at:
            self.nap_at = now + NAPS_APART * self.patience * 1e9
            time.sleep(NAP * self.patience)

    def failed(self, exc, timer):
        """The heap's on_error."""
        if isinstance(exc, Oops):
            self.errors.append(timer)
        else:
            self.faults("exception", repr(exc))

    def walk(self, far=()):
        """See the heap's invariants, what is pending, where far timers must be, and its counters."""
        self.heap.check()
        self.balance()
        held = {id(private.timer): private for private in far if private.far and private.timer is not None}
        last, seen = 0.0, set()
        for when, timer in self.heap.pending():
            if when < last:
                self.faults("pending", f"{when} after {last}")
            if id(timer) in seen or timer.func is None:
                self.faults("pending", f"{timer!r} twice, or not to be called")
            last = when
            seen.add(id(timer))
            private = held.pop(id(timer), None)
            if private is not None and round(when * 1e9) < max(private.stamps, default=float("inf")):
                self.faults("pending", f"{when}, not before {private.stamps[-1:]} ns")
        if held:
            self.faults("pending", f"{len(held)} timers that are armed are not there")
        return len(seen)

    def balance(self):
        stats = self.heap.stats()
        accounted = stats["fired"] + stats["received"] + stats["cancelled"] + stats["armed"] - stats["tickers"]
        if stats["arms"] != accounted:
            self.faults("accounts", f"{stats}")
        return stats

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
        self.shared_arms = [[] for _ in shared.runs]
        self.shared_cancels = [0] * len(shared.runs)
        self.shared_chan = [0, 0, 0]  # arms, cancels, receives
        self.shared_periodic = [0, 0]  # arms, cancels
        self.ticks, self.own_ticks = [], []
        self.all, self.held, self.channels = [], [], []
        self.periodic, self.finite = [], []
        self.arrays = [PrivateArray(shared, each) for each in (False, True)]
        self.dropped = collections.deque()  # (slots of a call, whether it raises) of arrays that nobody holds
        self.grid = None

    def delay(self):
        chance = self.chance
        return FAR if chance.random() < 0.3 else chance.choice(NEAR) * chance.random()

    def period(self):
        """In nanoseconds."""
        chance = self.chance
        return int((FAR if chance.random() < 0.2 else chance.choice(PERIODS)) * (1 + chance.random()) * 5e8)

    def work(self, until):
        try:
            heap = self.shared.heap
            self.grid = Grid(heap, 5e-5, self.shared.faults)
            self.channels = [PrivateChannel(heap, self.delay(), self.shared.faults) for _ in range(6)]
            self.chan_arms += 6
            self.periodic = [Periodic(self.shared, self.period()) for _ in range(3)]
            self.arms += 3
            while self.operations < self.quota and time.monotonic() < until:
                for _ in range(100):
                    self.step(self.chance.random())
                self.operations += 100
        except BaseException as exc:
            self.shared.faults("exception", repr(exc))
            raise

    def step(self, kind):
        chance, held = self.chance, self.held
        if kind < 0.24 or not held:
            if len(self.all) >= self.most:
                kind = 0.3
            else:
                private = Private(self.shared, self.delay())
                self.arms += 1
                self.all.append(private)
                if kind < 0.06:
                    self.left += private.drop()
                else:
                    held.append(private)
                return
        if kind < 0.42:
            self.cancels += chance.choice(held).stop()
        elif kind < 0.56:
            self.arms += 1
            self.cancels += chance.choice(held).reset(self.delay())
        elif kind < 0.63:
            postponed = chance.choice(held).postpone(self.delay())
            self.arms += postponed
            self.cancels += postponed
        elif kind < 0.66:
            if len(held) > 1:
                self.left += held.pop(chance.randrange(len(held))).drop()
        elif kind < 0.75:
            self.step_shared(chance.randrange(len(self.shared.timers)), kind)
        elif kind < 0.87:
            self.step_channel(chance.choice(self.channels), kind)
        elif kind < 0.91:
            self.step_shared_channel(chance.choice(self.shared.channels), kind)
        elif kind < 0.96:
            self.step_periodic(chance.random())
        elif kind < 0.975:
            self.step_array(chance.random())
        elif kind < 0.99:
            self.tick()
        else:
            self.finalize()

    def step_shared(self, k, kind):
        timer, stamp = self.shared.timers[k], nanoseconds()
        if kind < 0.70:
            self.shared_arms[k].append(stamp)
            self.shared_cancels[k] += timer.reset(SHARED_DELAY)
        elif kind < 0.72:
            if timer.postpone(SHARED_DELAY):
                self.shared_arms[k].append(stamp)
                self.shared_cancels[k] += 1
        else:
            self.shared_cancels[k] += timer.stop()

    def step_periodic(self, kind):
        chance = self.chance
        periodic = chance.choice(self.periodic)
        if kind < 0.3:
            periodic.look()
        elif kind < 0.4:
            self.cancels += periodic.stop()
        elif kind < 0.6:
            revive = kind < 0.5
            was = periodic.rearm(self.period(), revive)
            self.arms += was or revive
            self.cancels += was
        elif kind < 0.9:
            self.step_shared_periodic(chance.choice(self.shared.periodic).timer, kind)
        elif kind < 0.99:
            period = int(chance.choice(PERIODS[:2]) * 1e9)
            self.finite.append(Finite(self.shared, period, chance.randrange(1, 5), chance.random() < 0.3))
        else:
            every(FAR, self.shared.faults, "early", "a period of an hour", heap=self.shared.heap)
            self.arms += 1
            self.left += 1

    def step_array(self, kind):
        chance = self.chance
        size = chance.choice((1, 3, 30, 30, 600))
        if kind < 0.1:
            self.drop_array(size)
        elif kind < 0.6:
            mine = chance.choice(self.arrays)
            slots = chance.choices(range(SLOTS), k=size)
            if kind < 0.2:
                self.cancels += mine.stop(slots)
            elif kind < 0.3:
                mine.look(slots)
            elif kind < 0.5:
                self.arms += size
                self.cancels += mine.reset(slots, [self.delay() for _ in slots])
            else:
                postponed = mine.postpone(slots, [self.delay() for _ in slots])
                self.arms += postponed
                self.cancels += postponed
        else:
            self.step_shared_array(chance.choices(range(SHARED_SLOTS), k=size), kind)

    def step_shared_array(self, slots, kind):
        out, stamp, timers = bytearray(len(slots)), nanoseconds(), self.shared.array
        if kind < 0.75:
            timers.reset(slots, SHARED_DELAY, out=out)
        elif kind < 0.85:
            timers.postpone(slots, SHARED_DELAY, out=out)
        else:
            timers.stop(slots, out=out)
        for slot, was in zip(slots, out, strict=True):
            self.shared_cancels[12 + slot] += was
            if kind < 0.75 or (kind < 0.85 and was):
                self.shared_arms[12 + slot].append(stamp)

    def drop_array(self, size):
        """Without a reference to it; some are stopped before, while they may be fired."""
        raises = self.chance.random() < 0.3

        def call(slots):
            self.dropped.append((len(slots), raises))
            if raises:
                raise Oops

        timers = TimerArray(size, call, batch=BATCH, heap=self.shared.heap)
        timers.reset(range(size), [self.chance.choice(NEAR) for _ in range(size)])
        self.arms += size
        if self.chance.random() < 0.3:
            self.cancels += timers.stop(range(0, size, 2))
        if self.chance.random() < 0.3:
            self.cancels += timers.stop()

    def step_shared_periodic(self, timer, kind):
        if kind < 0.65:
            self.shared_periodic[1] += timer.stop()
        elif kind < 0.75:
            self.shared_periodic[0] += 1
            self.shared_periodic[1] += timer.reset(SHARED_PERIOD / 1e9)
        elif timer.postpone(SHARED_PERIOD / 1e9):
            self.shared_periodic[0] += 1
            self.shared_periodic[1] += 1

    def step_channel(self, channel, kind):
        if kind < 0.78:
            self.chan_arms += 1
            self.chan_cancels += channel.reset(self.delay())
        elif kind < 0.80:
            self.chan_cancels += channel.stop()
        elif kind < 0.82:
            postponed = channel.postpone(self.delay())
            self.chan_arms += postponed
            self.chan_cancels += postponed
        elif kind < 0.855:
            self.received += channel.receive(None)
        elif kind < 0.86:
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
        if kind < 0.883:
            self.shared_chan[0] += 1
            self.shared_chan[1] += timer.reset(self.chance.random() * SHARED_DELAY)
        elif kind < 0.887:
            self.shared_chan[1] += timer.stop()
        elif kind < 0.891:
            if timer.postpone(self.chance.random() * SHARED_DELAY):
                self.shared_chan[0] += 1
                self.shared_chan[1] += 1
        else:
            try:
                value = timer.c.poll() if kind < 0.905 else timer.c.recv(2e-5)
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


def wait_while(condition, deadline):
    while condition() and time.monotonic() < deadline:
        time.sleep(0.001)
    return condition()


def come_to_rest(shared, hands, left):
    """Until nothing runs any more, and nothing will: how many callbacks that took."""
    heap, faults = shared.heap, shared.faults
    # A collection arms timers (Meddler), whose callbacks leave more to collect: until nothing new comes. That the last
    # callback has returned, not only been launched, is what one after it shows, and that no thread has lost its post.
    deadline = time.monotonic() + PATIENCE
    last_ones = 0
    while True:
        before = heap.stats()["arms"]
        gc.collect()
        wait_while(lambda: len(heap) > left, deadline)
        ended = threading.Event()
        AfterFunc(0, ended.set, heap=heap)
        last_ones += 1
        if not ended.wait(PATIENCE):
            faults("lost", "the last callback")
        if wait_while(lambda: heap.stats()["threads"] > 2, deadline):
            faults("lost", f"{heap.stats()['threads']} threads are left")
        gc.collect()
        if heap.stats()["arms"] == before + 1 or time.monotonic() >= deadline:
            return last_ones


def close(shared):
    """The heap; in a round with patience while a callback runs that has outrun it: it must have returned then."""
    begun, ended = threading.Event(), threading.Event()

    def last():
        begun.set()
        time.sleep(5 * NAP * shared.patience)
        ended.set()

    if shared.patience:
        AfterFunc(0, last, heap=shared.heap)
        begun.wait(PATIENCE)
        time.sleep(NAP * shared.patience)
    shared.heap.close()
    if ended.is_set() is not begun.is_set():
        shared.faults("closed too early", "a callback still ran")


def audit(shared, hands):
    """The accounts of a round; faults are noted in shared.faults."""
    heap, faults = shared.heap, shared.faults
    shared.walk([private for hand in hands for private in hand.all])
    all_periodic = [periodic for hand in hands for periodic in hand.periodic]
    if wait_while(lambda: any(periodic.waiting() for periodic in all_periodic), time.monotonic() + PATIENCE):
        faults("lost", "a periodic timer runs no more")
    for hand in hands:
        for private in hand.all:
            if private.timer is not None and private.far:
                hand.cancels += private.stop()
        for mine in hand.arrays:
            hand.cancels += mine.stop([slot for slot in range(SLOTS) if mine.far[slot]])
        for channel in hand.channels:
            hand.chan_cancels += channel.stop()
        for periodic in hand.periodic:
            periodic.look()
            hand.cancels += periodic.stop()
            periodic.look()
        hand.grid.ticker.stop()
    shared_cancels = sum(timer.stop() for timer in shared.channels)
    shared.grid.ticker.stop()
    shared_periodic = [len(shared.periodic), sum(common.timer.stop() for common in shared.periodic)]
    left = sum(hand.left for hand in hands)
    last_ones = come_to_rest(shared, hands, left)
    if len(heap) != left:
        faults("lost", f"{len(heap)} timers armed, expected {left}")
    pending = shared.walk()
    if pending != left:
        faults("pending", f"{pending} timers, expected {left}")

    runs = last_ones
    for hand in hands:
        runs += hand.owners
        hand.grid.audit([hand.own_ticks])
        for private in hand.all:
            private.audit()
            runs += len(private.runs)
        for mine in hand.arrays:
            mine.audit()
            runs += sum(map(len, mine.runs))
        runs += sum(count for count, _ in hand.dropped)
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
        for begun, ran in zip(armings, sorted(timer_runs), strict=False):
            if ran < begun + SHARED_DELAY * 1e9 - 1:
                faults("early", f"shared: by {begun + SHARED_DELAY * 1e9 - ran} ns")
        arms += len(armings)
        cancels += cancelled
        runs += len(timer_runs)
    for hand in hands:
        arms += hand.arms + hand.owners
        cancels += hand.cancels

    calls = 0
    errors = sum(raises for hand in hands for _, raises in hand.dropped)
    for periodic in (*all_periodic, *shared.periodic, *(finite for hand in hands for finite in hand.finite)):
        periodic.audit()
        calls += len(periodic.runs)
        if isinstance(periodic, Finite):
            arms += 1
            cancels += periodic.stopped
            errors += len(periodic.runs) if periodic.raises else 0
    for hand in hands:
        shared_periodic[0] += hand.shared_periodic[0]
        shared_periodic[1] += hand.shared_periodic[1]
    if shared_periodic[0] != shared_periodic[1]:
        faults("accounts", f"shared periodic timers: {shared_periodic[0]} armings, {shared_periodic[1]} cancels")
    arms += shared_periodic[0] + calls
    cancels += shared_periodic[1]
    runs += calls
    if errors != len(shared.errors):
        faults("accounts", f"{errors} callbacks have raised, {len(shared.errors)} errors were reported")

    chan = [len(shared.channels), shared_cancels, 0]
    for hand in hands:
        for k in range(3):
            chan[k] += hand.shared_chan[k]
    if chan[0] != chan[1] + chan[2]:
        faults("channels", f"shared: {chan[0]} armings, {chan[1]} cancels, {chan[2]} receives")
    chan_arms = chan[0] + sum(hand.chan_arms for hand in hands)
    received = chan[2] + sum(hand.received for hand in hands)
    stats = shared.balance()
    # What meddle() arms and drops at once is cancelled at once.
    dropped = len(shared.arms)
    expected = {"arms": arms + chan_arms + dropped, "fired": runs, "received": received, "errors": errors}
    expected["cancelled"] = cancels + chan[1] + sum(hand.chan_cancels for hand in hands) + dropped
    for name, value in expected.items():
        if stats[name] != value:
            faults("accounts", f"{name}: the heap says {stats[name]}, the ledger {value}")
    close(shared)
    if heap.stats()["cancelled"] - stats["cancelled"] != left:
        faults("accounts", f"closing cancelled {heap.stats()['cancelled'] - stats['cancelled']}, expected {left}")
    heap.check()
    if shared.balance()["threads"]:
        faults("accounts", f"{heap.stats()['threads']} threads after close()")
    return expected | {"calls": calls, "handovers": stats["handovers"]}


def run_round(seed, seconds, threads, eager, patience, faults, quota):
    shared = Shared(seed, faults, patience)
    hands = [Hand(shared, index, 150 if eager else 4000, quota) for index in range(threads)]
    until = time.monotonic() + seconds
    workers = [threading.Thread(target=hand.work, args=(until,), daemon=True) for hand in hands]
    before = gc.get_threshold()
    if eager:
        gc.set_threshold(*EAGER)
        gc.callbacks.append(shared.meddle)
    for worker in workers:
        worker.start()
    looks = 0
    while any(worker.is_alive() for worker in workers):
        looks += 1
        if looks % 5 == 0:
            shared.walk()
        else:
            shared.heap.check()
        time.sleep(0.02)
    if eager:
        gc.callbacks.remove(shared.meddle)
        gc.set_threshold(*before)
    accounts = audit(shared, hands)
    return sum(hand.operations for hand in hands), accounts


def run_seed(seed, args):
    """One ledger in a process of its own: its output, and "ok", "failed" or "hung"."""
    command = [sys.executable, "-X", "faulthandler", __file__, "--seed", str(seed)]
    for name in ("seconds", "operations", "threads", "round", "patience"):
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
    parser.add_argument(
        "--patience", type=float, default=0, metavar="SECONDS", help=f"of each heap (default {TINY}, of every fourth)"
    )
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
        patience = args.patience or TINY * (rounds % 4 == 1)
        eager = rounds % 3 == 2
        operations, accounts = run_round(seed + rounds, seconds, args.threads, eager, patience, faults, quota)
        totals.update(accounts, operations=operations)
        rounds += 1
    faulthandler.cancel_dump_traceback_later()
    count = faults.counts
    print(
        f"{totals['operations']} operations, {rounds} rounds, {args.threads} threads, "
        f"{time.monotonic() - started:.0f} s: {totals['arms']} arms, {totals['fired']} fires, "
        f"{totals['received']} receives, {totals['cancelled']} cancels, {totals['calls']} periodic calls, "
        f"{totals['handovers']} hand-overs\n"
        f"lost {count['lost']}, after stop {count['after stop']}, double {count['double']}, early {count['early']}, "
        f"other {sum(count.values()) - sum(count[k] for k in ('lost', 'after stop', 'double', 'early'))}"
    )
    if count:
        print(f"round with seed {seed + rounds - 1}:", *faults.seen, sep="\n  ")
    return int(bool(count))


if __name__ == "__main__":
    sys.exit(main())
