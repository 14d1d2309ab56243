"""The heap against a sorted list that is slow and cannot be wrong: same answers, same order.

The oracle knows deadlines as integer nanoseconds and arming order as a counter. Whatever the heap
is asked, the oracle is asked too, and `heap.check()` walks the invariants after each step.
"""

import bisect
import itertools
import math
import random
from fractions import Fraction

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from timerheap import AfterFunc, Ticker, Timer, every
from timerheap.testing import ManualHeap

NEVER = 2**63 - 1
"""The deadline, in nanoseconds, of what never fires."""


def deadline(now, delay):
    """The deadline, in nanoseconds, of something armed at `now` with `delay` seconds."""
    if delay == math.inf:
        return NEVER
    if delay == -math.inf:
        return now
    exact = Fraction(delay) * 10**9
    nanoseconds = round(exact) if round(exact) / 1e9 == delay else math.ceil(exact)
    return min(now + max(nanoseconds, 0), NEVER)


def clock_after(now, delta):
    """Where a manual clock ends, in nanoseconds: at the deadline of something armed at `now`, but for the nanosecond of
    rounding up where the seconds, added or subtracted as floats, lead to a whole one."""
    end = deadline(now, delta)

    def is_sum(after):
        return now / 1e9 + delta == after / 1e9 or after / 1e9 - now / 1e9 == delta

    rounded = end - now > 1 and (end - now) / 1e9 > delta
    return end - (rounded and not is_sum(end) and is_sum(end - 1))


def seconds(nanoseconds):
    return math.inf if nanoseconds == NEVER else nanoseconds / 1e9


DELAYS = st.one_of(
    st.integers(-2, 12),
    st.sampled_from([0, 1, 1, 2, 0.5, 1e-9, 1.5e-9, math.inf, 10**12, -math.inf]),
    st.floats(0, 12),
)
PERIODS = st.one_of(
    st.integers(1, 5), st.sampled_from([0.5, 0.25, 10**12, math.inf]), st.floats(0.01, 5)
)


class Item:
    """A timer of any kind and the reference the test holds to it: None once that is dropped.

    `action` is what a function timer's callback does, once, besides logging; `planned` is the
    oracle's copy, which runs first. `period`, in nanoseconds, is a periodic timer's.
    """

    def __init__(self, handle=None, key=None, action=None, period=None):
        self.period = period
        self.handle = handle
        self.key = key
        self.action = self.planned = action


class HeapModel(RuleBasedStateMachine):
    functions = Bundle("functions")
    periodics = Bundle("periodics")
    channels = Bundle("channels")
    tickers = Bundle("tickers")

    def __init__(self):
        super().__init__()
        self.heap = ManualHeap()
        self.now = 0
        self.order = itertools.count()
        self.pending = {}  # function timer -> (deadline, arming order)
        self.named = set()  # function timers that another's action stops or resets
        self.live = {}  # channel timer -> deadline, while armed or expired and unread
        self.grids = {}  # running ticker -> [next tick, period]
        self.log = []  # what the callbacks did
        self.expected = []  # what they must have done
        self.arms = self.fired = self.received = self.cancelled = self.dropped = 0

    # Function timers.

    def arm(self, item, delay):
        self.pending[item] = (deadline(self.now, delay), next(self.order))
        self.arms += 1
        if item.period is not None:
            item.period = deadline(0, delay)

    def cancel(self, armed):
        self.cancelled += armed
        return armed

    def callback(self, item):
        """Runs on the heap: logs, and does to the heap what `simulate` does to the oracle."""
        self.log.append((item.key, self.heap.time()))
        action, item.action = item.action, None
        match action:
            case ("reset", delay):
                self.log.append(item.handle.reset(delay))
            case ("stop", other):
                self.log.append(other.handle.stop())
            case ("reset other", other, delay):
                self.log.append(other.handle.reset(delay))
            case ("arm", delay):
                AfterFunc(delay, self.callback, Item(key=("child", item.key)), heap=self.heap)

    def simulate(self, item):
        """What `callback` will do, in the oracle."""
        self.expected.append((item.key, seconds(self.now)))
        action, item.planned = item.planned, None
        match action:
            case ("reset", delay):
                self.expected.append(False)
                self.arm(item, delay)
            case ("stop", other):
                self.expected.append(self.cancel(self.pending.pop(other, None) is not None))
            case ("reset other", other, delay):
                self.expected.append(self.cancel(other in self.pending))
                self.arm(other, delay)
            case ("arm", delay):
                self.arm(Item(key=("child", item.key)), delay)

    def new_function(self, delay, action=None):
        item = Item(key=self.arms, action=action)
        if action is not None:
            self.named.update(other for other in action if isinstance(other, Item))
        item.handle = AfterFunc(delay, self.callback, item, heap=self.heap)
        self.arm(item, delay)
        return item

    @rule(target=functions, delay=DELAYS)
    def arm_function(self, delay):
        return self.new_function(delay)

    @rule(target=functions, delay=DELAYS, later=DELAYS)
    def arm_function_that_resets_itself(self, delay, later):
        return self.new_function(delay, ("reset", later))

    @rule(target=functions, delay=DELAYS, other=st.one_of(functions, periodics))
    def arm_function_that_stops_another(self, delay, other):
        return self.new_function(delay, ("stop", other))

    @rule(target=functions, delay=DELAYS, other=functions, later=DELAYS)
    def arm_function_that_resets_another(self, delay, other, later):
        return self.new_function(delay, ("reset other", other, later))

    @rule(target=functions, delay=DELAYS, other=periodics, period=PERIODS)
    def arm_function_that_resets_a_periodic_one(self, delay, other, period):
        return self.new_function(delay, ("reset other", other, period))

    @rule(delay=DELAYS, later=DELAYS)
    def arm_and_drop_function_that_arms(self, delay, later):
        self.new_function(delay, ("arm", later)).handle = None

    @rule(count=st.integers(2, 40), delay=DELAYS)
    def arm_and_drop_many_at_one_deadline(self, count, delay):
        for _ in range(count):
            self.new_function(delay).handle = None

    @rule(item=consumes(functions))
    def drop_function(self, item):
        # Not what an action names: its function may be stopped now, and armed again later.
        if item not in self.named and not (item.action and item.action[0] == "reset"):
            item.handle = None

    @rule(item=functions)
    def stop_function(self, item):
        expected = self.cancel(self.pending.pop(item, None) is not None)
        assert item.handle.stop() is expected

    @rule(item=functions, delay=DELAYS)
    def reset_function(self, item, delay):
        expected = self.cancel(item in self.pending)
        assert item.handle.reset(delay) is expected
        self.arm(item, delay)

    @rule(item=st.one_of(functions, periodics), delay=PERIODS)
    def postpone_function(self, item, delay):
        expected = self.cancel(item in self.pending)
        assert item.handle.postpone(delay) is expected
        if expected:
            self.arm(item, delay)

    @rule(item=functions)
    def look_at_function(self, item):
        armed = self.pending.get(item)
        assert item.handle.active is (armed is not None)
        assert item.handle.when == (None if armed is None else seconds(armed[0]))

    # Periodic timers.

    def new_periodic(self, period, action=None):
        item = Item(key=self.arms, action=action, period=deadline(0, period))
        if action is not None:
            self.named.update(other for other in action if isinstance(other, Item))
        item.handle = every(period, self.callback, item, heap=self.heap)
        self.arm(item, period)
        return item

    @rule(target=periodics, period=PERIODS)
    def arm_periodic(self, period):
        return self.new_periodic(period)

    @rule(target=periodics, period=PERIODS, later=PERIODS)
    def arm_periodic_that_resets_itself(self, period, later):
        item = self.new_periodic(period)
        item.action = item.planned = ("reset other", item, later)
        self.named.add(item)
        return item

    @rule(target=periodics, period=PERIODS)
    def arm_periodic_that_stops_itself(self, period):
        item = self.new_periodic(period)
        item.action = item.planned = ("stop", item)
        self.named.add(item)
        return item

    @rule(target=periodics, period=PERIODS, other=st.one_of(functions, periodics))
    def arm_periodic_that_stops_another(self, period, other):
        return self.new_periodic(period, ("stop", other))

    @rule(item=consumes(periodics))
    def drop_periodic(self, item):
        if item not in self.named:
            item.handle = None

    @rule(item=periodics)
    def stop_periodic(self, item):
        expected = self.cancel(self.pending.pop(item, None) is not None)
        assert item.handle.stop() is expected

    @rule(item=periodics, period=PERIODS)
    def reset_periodic(self, item, period):
        expected = self.cancel(item in self.pending)
        assert item.handle.reset(period) is expected
        self.arm(item, period)

    @rule(item=periodics)
    def look_at_periodic(self, item):
        armed = self.pending.get(item)
        assert item.handle.active is (armed is not None)
        assert item.handle.when == (None if armed is None else seconds(armed[0]))
        assert item.handle.period == seconds(item.period)

    # Channel timers.

    @rule(target=channels, delay=DELAYS)
    def arm_channel(self, delay):
        item = Item(Timer(delay, heap=self.heap))
        self.live[item] = deadline(self.now, delay)
        self.arms += 1
        return item

    @rule(item=channels)
    def poll_channel(self, item):
        when = self.live.get(item, NEVER)
        if when <= self.now:
            assert item.handle.c.poll() == seconds(when)
            del self.live[item]
            self.received += 1
        else:
            assert item.handle.c.poll() is None

    @rule(item=channels)
    def receive_from_channel(self, item):
        when = self.live.get(item, NEVER)
        if when <= self.now:
            assert item.handle.c.recv() == seconds(when)
            del self.live[item]
            self.received += 1
        else:
            with pytest.raises(RuntimeError):
                item.handle.c.recv()

    @rule(item=channels)
    def stop_channel(self, item):
        expected = self.cancel(self.live.pop(item, None) is not None)
        assert item.handle.stop() is expected

    @rule(item=channels, delay=DELAYS)
    def reset_channel(self, item, delay):
        expected = self.cancel(item in self.live)
        assert item.handle.reset(delay) is expected
        self.live[item] = deadline(self.now, delay)
        self.arms += 1

    @rule(item=channels, delay=DELAYS)
    def postpone_channel(self, item, delay):
        expected = self.cancel(item in self.live)
        assert item.handle.postpone(delay) is expected
        if expected:
            self.live[item] = deadline(self.now, delay)
            self.arms += 1

    @rule(item=channels)
    def look_at_channel(self, item):
        when = self.live.get(item)
        assert item.handle.active is (when is not None)
        assert item.handle.when == (None if when is None else seconds(when))

    # Tickers.

    @rule(target=tickers, period=PERIODS)
    def start_ticker(self, period):
        item = Item(Ticker(period, heap=self.heap))
        self.grids[item] = [deadline(self.now, period), deadline(0, period)]
        return item

    @rule(item=tickers)
    def poll_ticker(self, item):
        when, period = self.grids.get(item, (NEVER, NEVER))
        if when <= self.now:
            assert item.handle.c.poll() == seconds(when)
            missed = (self.now - when) // period
            following = when + period * (1 + missed)
            self.dropped += missed
            self.grids[item][0] = min(following, NEVER)
        else:
            assert item.handle.c.poll() is None

    @rule(item=tickers)
    def stop_ticker(self, item):
        assert item.handle.stop() is None
        self.grids.pop(item, None)

    @rule(item=tickers, period=PERIODS)
    def reset_ticker(self, item, period):
        assert item.handle.reset(period) is None
        self.grids[item] = [deadline(self.now, period), deadline(0, period)]

    @rule(item=consumes(tickers))
    def drop_ticker(self, item):
        item.handle = None
        self.grids.pop(item, None)

    # The clock.

    @rule(delta=st.one_of(st.integers(0, 6), st.floats(0, 6), st.just(1e-9)))
    def advance(self, delta):
        began, end = self.now, deadline(self.now, delta)
        while self.pending:
            item, (when, _) = min(self.pending.items(), key=lambda entry: entry[1])
            if when > end:
                break
            del self.pending[item]
            self.now = when
            self.fired += 1
            if item.period is not None:
                self.pending[item] = (min(when + item.period, NEVER), next(self.order))
                self.arms += 1
            self.simulate(item)
        self.now = max(self.now, clock_after(began, delta))
        self.heap.advance(delta)
        assert self.log == self.expected

    @invariant()
    def agree(self):
        self.heap.check()
        assert self.heap.time() == seconds(self.now)
        one_shots = len(self.pending) + len(self.live)
        assert len(self.heap) == one_shots + len(self.grids)
        stats = self.heap.stats()
        assert stats["arms"] == self.arms
        assert stats["fired"] == self.fired
        assert stats["received"] == self.received
        assert stats["cancelled"] == self.cancelled
        assert stats["dropped"] == self.dropped
        assert self.arms == self.fired + self.received + self.cancelled + one_shots

    def teardown(self):
        armed = [item.handle for item in (*self.pending, *self.live) if item.handle is not None]
        self.heap.close()
        self.heap.check()
        assert len(self.heap) == 0
        assert not any(handle.active or handle.stop() for handle in armed)


HeapModel.TestCase.settings = settings(
    max_examples=120,
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestHeapAgreesWithSortedList = HeapModel.TestCase


class Rival:
    """A heap of handles beside the sorted list of what is armed on it; callbacks only log."""

    def __init__(self):
        self.heap = ManualHeap()
        self.now = 0
        self.order = itertools.count()
        self.sorted = []  # (deadline, arming order, key), always in order
        self.entries = {}  # key -> its entry in the list
        self.handles = {}
        self.log = []
        self.expected = []

    def arm(self, key, delay):
        self.handles[key] = AfterFunc(delay, self.log.append, key, heap=self.heap)
        self.insert(key, delay)

    def insert(self, key, delay):
        self.entries[key] = (deadline(self.now, delay), next(self.order), key)
        bisect.insort(self.sorted, self.entries[key])

    def remove(self, key):
        entry = self.entries.pop(key, None)
        if entry is not None:
            del self.sorted[bisect.bisect_left(self.sorted, entry)]
        return entry is not None

    def stop(self, key):
        assert self.handles[key].stop() is self.remove(key)

    def reset(self, key, delay):
        assert self.handles[key].reset(delay) is self.remove(key)
        self.insert(key, delay)

    def drop(self, key):
        del self.handles[key]

    def advance(self, delta):
        self.now = deadline(self.now, delta)
        end = bisect.bisect_right(self.sorted, (self.now, math.inf))
        for _, _, key in self.sorted[:end]:
            del self.entries[key]
            self.expected.append(key)
        del self.sorted[:end]
        self.heap.advance(delta)
        assert self.log == self.expected
        assert len(self.heap) == len(self.sorted)
        self.log.clear()
        self.expected.clear()


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("spread", [4, 1000], ids=["many ties", "few ties"])
def test_a_hundred_thousand_random_operations_agree_with_a_sorted_list(seed, spread):
    chance = random.Random(seed)
    rival = Rival()
    held = []  # keys whose handle is held

    def any_delay():
        return chance.randrange(spread) * 0.25 if chance.random() < 0.99 else math.inf

    for step in range(100_000):
        choice = chance.random()
        if choice < 0.45 or not held:
            rival.arm(step, any_delay())
            held.append(step)
        elif choice < 0.999:
            index = chance.randrange(len(held))
            if choice < 0.60:
                rival.stop(held[index])
            elif choice < 0.85:
                rival.reset(held[index], any_delay())
            else:
                rival.drop(held[index])
                held[index] = held[-1]
                held.pop()
        else:
            rival.advance(chance.randrange(spread) * 0.125)
        if step < 1000 or step % 500 == 0:
            rival.heap.check()
    rival.advance(2 * spread)
    rival.heap.check()
    assert all(when == NEVER for when, _, _ in rival.sorted)


BURST = 200_000

ARRANGEMENTS = {
    "equal": lambda: [1] * BURST,
    "rising": lambda: range(BURST),
    "falling": lambda: range(BURST, 0, -1),
    "random": lambda: random.Random(3).choices(range(BURST), k=BURST),
    "few distinct": lambda: random.Random(4).choices(range(7), k=BURST),
    "organ pipe": lambda: [min(i, BURST - i) for i in range(BURST)],
    "one late among equals": lambda: [1] * (BURST // 2) + [0] + [1] * (BURST // 2),
}


@pytest.fixture(params=ARRANGEMENTS)
def delays(request):
    return list(ARRANGEMENTS[request.param]())


def in_order(delays):
    """Indices by deadline, equal deadlines in arming order (`sorted` is stable)."""
    return sorted(range(len(delays)), key=delays.__getitem__)


def test_two_hundred_thousand_due_together_run_in_order(manual, delays):
    log = []
    for index, delay in enumerate(delays):
        AfterFunc(delay, log.append, index, heap=manual)
    manual.check()
    manual.advance(max(delays))
    assert log == in_order(delays)
    assert len(manual) == 0


def test_the_rest_of_a_burst_stays_armed_and_in_order(manual, delays):
    log = []
    for index, delay in enumerate(delays):
        AfterFunc(delay, log.append, index, heap=manual)
    middle = sorted(delays)[len(delays) // 2]
    manual.advance(middle)
    manual.check()
    expected = in_order(delays)
    now = sum(delay <= middle for delay in delays)
    assert log == expected[:now]
    assert len(manual) == len(delays) - now
    manual.advance(max(delays) - middle)
    assert log == expected


def test_a_burst_rearmed_backwards_runs_in_its_new_order(manual, delays):
    log = []
    handles = [AfterFunc(d, log.append, index, heap=manual) for index, d in enumerate(delays)]
    latest = max(delays)
    mirrored = [latest - delay for delay in delays]
    for handle, delay in zip(handles, mirrored, strict=True):
        assert handle.reset(delay)
    manual.check()
    manual.advance(latest)
    assert log == in_order(mirrored)


def test_stopped_members_of_a_burst_do_not_run(manual, delays):
    log = []
    handles = [AfterFunc(d, log.append, index, heap=manual) for index, d in enumerate(delays)]
    stopped = set(random.Random(5).sample(range(len(delays)), len(delays) // 3))
    assert all(handles[index].stop() for index in stopped)
    manual.check()
    manual.advance(max(delays))
    assert log == [index for index in in_order(delays) if index not in stopped]
