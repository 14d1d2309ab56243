"""TimerArray: what its methods answer, and what fires when. How it fires is in test_array_firing.py, how it lives and
goes in test_array_life.py, what it takes and refuses in test_array_arguments.py."""

import array
import itertools
import math
import random
import threading

import pytest
from helpers import FAR, Background, balance, run_threads, wait_until
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from test_heap_model import DELAYS, NEVER, clock_after, deadline, seconds

from timerheap import AfterFunc, Timer, TimerArray, TimerHeap
from timerheap.testing import ManualHeap, use

ALL = slice(None)


def logging_array(manual, n, log, **options):
    """An array whose every slot is noted with the time of its deadline."""
    return TimerArray(n, lambda slot: log.append((slot, manual.time())), each=True, heap=manual, **options)


def fired(manual, n, act):
    """What a fresh array of n slots has fired once act(array) is done and ten seconds have gone by."""
    log = []
    timers = logging_array(manual, n, log)
    act(timers)
    manual.check()
    manual.advance(10)
    return log


# ---- one slot -------------------------------------------------------------------------------------------------------


def test_a_slot_fires_once_at_its_deadline(manual):
    log = []
    timers = logging_array(manual, 3, log)
    assert timers.reset(1, 2) is False
    manual.advance(1.999)
    assert log == []
    manual.advance(0.001)
    manual.advance(10)
    assert log == [(1, 2.0)]


def test_a_fresh_array_is_idle(manual):
    timers = TimerArray(4, print, heap=manual)
    assert len(timers) == 4
    assert timers.armed == len(manual) == 0
    assert timers.active() == bytes(4)
    assert all(math.isnan(when) for when in timers.when())
    assert timers.stop() == 0
    assert timers.stop(2) is False
    assert timers.when(2) is None


def test_reset_of_a_slot_says_whether_it_cancelled_a_run(manual):
    timers = TimerArray(4, print, heap=manual)
    assert timers.reset(2, FAR) is False
    assert timers.reset(2, 1) is True
    assert timers.stop(2) is True
    assert timers.stop(2) is False
    assert timers.reset(2, FAR) is False


def test_a_slot_that_has_fired_is_idle(manual):
    timers = TimerArray(4, int_of_chunk, heap=manual)
    timers.reset(2, 1)
    manual.advance(1)
    assert timers.active(2) is False
    assert timers.when(2) is None
    assert timers.stop(2) is False
    assert timers.postpone(2, 1) is False
    assert timers.reset(2, 1) is False
    assert timers.armed == 1


def int_of_chunk(slots):
    assert len(slots) == 1


def test_postpone_revives_nothing(manual):
    log = []
    timers = logging_array(manual, 4, log)
    assert timers.postpone(0, 1) is False
    timers.reset(1, 1)
    assert timers.postpone(1, 3) is True
    timers.reset(2, 5)
    assert timers.postpone(2, 2) is True
    timers.reset(3, 1)
    timers.stop(3)
    assert timers.postpone(3, 1) is False
    assert timers.armed == 2
    manual.advance(10)
    assert log == [(2, 2.0), (1, 3.0)]


@pytest.mark.parametrize("method", ["reset", "postpone"])
def test_out_is_written_for_one_slot_too(manual, method):
    timers = TimerArray(4, print, heap=manual)
    timers.reset(0, FAR)
    change, out = getattr(timers, method), bytearray(b"\7")
    assert change(0, FAR, out=out) is True
    assert out == b"\1"
    assert change(1, FAR, out=out) is False
    assert out == b"\0"
    assert timers.stop(0, out=out) is True
    assert out == b"\1"
    assert timers.stop(0, out=out) is False
    assert out == b"\0"


def test_active_and_when_of_one_slot(manual):
    timers = TimerArray(4, print, heap=manual)
    timers.reset(1, 2.5)
    timers.reset(2, math.inf)
    assert timers.active(1) is True
    assert timers.active(0) is False
    assert (timers.when(0), timers.when(1), timers.when(2)) == (None, 2.5, math.inf)
    out, times = bytearray(1), array.array("d", [0])
    assert timers.active(1, out=out) is out
    assert timers.when(1, out=times) is times
    assert (out[0], times[0]) == (1, 2.5)
    assert math.isnan(timers.when(0, out=times)[0])


# ---- several --------------------------------------------------------------------------------------------------------


def test_several_are_counted_and_out_tells_them_apart(manual):
    timers = TimerArray(10, print, heap=manual)
    assert timers.reset([1, 3, 5], FAR) == 0
    out = bytearray(b"\7" * 4)
    assert timers.reset([0, 1, 2, 3], FAR, out=out) == 2
    assert out == b"\0\1\0\1"
    assert timers.armed == 5
    out = bytearray(b"\7" * 10)
    assert timers.active(out=out) is out
    assert out == timers.active() == b"\1\1\1\1\0\1\0\0\0\0"
    assert timers.postpone(ALL, 1, out=out) == 5
    assert out == b"\1\1\1\1\0\1\0\0\0\0"
    assert timers.stop(slice(0, 4, 2), out=memoryview(out)[:2]) == 2
    assert timers.stop(out=out) == 3
    assert out == b"\0\1\0\1\0\1\0\0\0\0"
    assert timers.stop() == timers.armed == 0


def test_each_slot_may_have_a_delay_of_its_own(manual):
    assert fired(manual, 4, lambda timers: timers.reset([3, 0, 2], [1, 3, 2])) == [(3, 1.0), (2, 2.0), (0, 3.0)]


def test_a_single_slot_in_a_list_is_counted(manual):
    """An int has a bool for its answer, what is several a count."""
    timers = TimerArray(4, print, heap=manual)
    assert timers.reset([2], FAR) == 0
    answer = timers.reset([2], FAR)
    assert type(answer) is int
    assert answer == 1
    assert timers.active([2]) == b"\1"
    assert list(timers.when([2])) == [FAR]


def test_the_last_of_several_deadlines_of_a_slot_wins(manual):
    def act(timers):
        out = bytearray(4)
        assert timers.reset([1, 1, 2, 1], [5, 1, 2, 3], out=out) == 2
        assert out == b"\0\1\0\1"
        assert timers.armed == 2

    assert fired(manual, 4, act) == [(2, 2.0), (1, 3.0)]


def test_a_slot_that_is_named_twice_is_stopped_once(manual):
    timers = TimerArray(4, print, heap=manual)
    timers.reset(1, FAR)
    out = bytearray(3)
    assert timers.stop([1, 1, 0], out=out) == 1
    assert out == b"\1\0\0"


def test_many_duplicates_leave_one_key(manual):
    def act(timers):
        assert timers.reset([1] * 5000, [n % 7 + 1 for n in range(4999)] + [9]) == 4999
        assert timers.armed == len(manual) == 1

    assert fired(manual, 3, act) == [(1, 9.0)]


def test_duplicates_whose_deadlines_fall_rise_past_keys_without_a_place(manual):
    """A second arming in the same piece sifts through keys that are yet to find theirs."""
    slots = [n % 300 for n in range(600)]
    delays = [10.0] * 300 + [9 - n / 50 for n in range(300)]

    def act(timers):
        timers.reset(range(300, 400), 9.5)
        timers.reset(slots, delays)

    log = fired(manual, 400, act)
    assert [slot for slot, _ in log[:300]] == list(range(299, -1, -1))
    assert [slot for slot, _ in log[300:]] == list(range(300, 400))


def test_when_of_several_is_an_array_of_doubles_and_nan_where_idle(manual):
    timers = TimerArray(4, print, heap=manual)
    timers.reset([0, 3], [1.5, math.inf])
    whens = timers.when()
    assert isinstance(whens, array.array)
    assert whens.typecode == "d"
    assert (whens[0], whens[3]) == (1.5, math.inf)
    assert math.isnan(whens[1])
    assert math.isnan(whens[2])
    out = array.array("d", [7, 7])
    assert timers.when(slice(2), out=out) is out
    assert out[0] == 1.5
    assert math.isnan(out[1])


def test_an_empty_call_and_an_empty_array_do_nothing(manual):
    timers = TimerArray(4, print, heap=manual)
    assert timers.reset([], FAR) == timers.postpone([], []) == timers.stop([]) == 0
    assert timers.active([]) == b""
    assert list(timers.when([])) == []
    none = TimerArray(0, print, heap=manual)
    assert len(none) == 0
    assert none.stop() == none.reset(ALL, FAR) == none.armed == 0
    assert none.active() == b""
    assert len(manual) == 0
    assert manual.stats()["arms"] == 0


@pytest.mark.parametrize("count", [1, 23, 24, 25, 26, 511, 512, 513, 4095, 4096, 4097, 20_000])
@pytest.mark.parametrize("fill", [0, 3, 1000])
@pytest.mark.parametrize("order", ["rising", "falling", "shuffled", "equal"])
def test_bulk_calls_of_every_size_leave_a_heap(manual, count, fill, order):
    """Around the sizes at which the way of working changes: pieces, turns, single sifts."""
    log = []
    delays = {
        "rising": lambda: list(range(1, count + 1)),
        "falling": lambda: list(range(count, 0, -1)),
        "shuffled": lambda: random.Random(count).sample(range(1, count + 1), count),
        "equal": lambda: [5] * count,
    }[order]()
    others = [AfterFunc(count // 2 + n % 7, int, heap=manual) for n in range(fill)]
    timers = TimerArray(count, lambda slots: log.extend(slots), heap=manual)
    assert timers.reset(ALL, [float(delay) for delay in delays]) == 0
    manual.check()
    assert len(manual) == count + fill
    assert timers.reset(range(0, count, 3), [float(delay) for delay in delays[::3]]) == len(range(0, count, 3))
    manual.check()
    stopped = set(range(1, count, 5))
    assert timers.stop(sorted(stopped)) == len(stopped)
    manual.check()
    manual.advance(count + 10)
    # Those armed last come last among equals.
    order_of = {slot: (slot % 3 == 0, slot) for slot in range(count)}
    expected = sorted(set(range(count)) - stopped, key=lambda slot: (delays[slot], order_of[slot]))
    assert log == expected
    assert not any(other.active for other in others)


# ---- order ----------------------------------------------------------------------------------------------------------


def test_slots_fire_by_deadline_and_ties_by_arming_and_position(manual):
    log = []
    one, other = (logging_array(manual, 9, log) for _ in range(2))
    one.reset([5, 1, 3], [1, 2, 1])
    other.reset([0, 7], 1)
    AfterFunc(1, lambda: log.append("timer"), heap=manual)
    one.reset([8, 0], 1)
    manual.advance(3)
    assert [entry if entry == "timer" else entry[0] for entry in log] == [5, 3, 0, 7, "timer", 8, 0, 1]


def test_a_reset_to_the_same_deadline_goes_to_the_end_of_its_ties(manual):
    log = fired(manual, 3, lambda timers: (timers.reset(ALL, 1), timers.reset(1, 1)))
    assert [slot for slot, _ in log] == [0, 2, 1]


@pytest.mark.parametrize("seed", range(3))
def test_what_is_reset_earlier_later_and_stopped_in_bulk_fires_in_order(manual, seed):
    chance = random.Random(seed)
    count, log = 5000, []
    timers = logging_array(manual, count, log)
    order, armed = itertools.count(), {}
    for _ in range(12):
        slots = [chance.randrange(count) for _ in range(chance.choice([1, 20, 30, 600, 3000]))]
        kind = chance.random()
        if kind < 0.3:
            assert timers.stop(slots) == sum(armed.pop(slot, None) is not None for slot in slots)
        else:
            delays = [chance.randrange(1, 200) / 8 for _ in slots]
            was = 0
            for slot, delay in zip(slots, delays, strict=True):
                was += slot in armed
                if slot in armed or kind < 0.8:
                    armed[slot] = (delay, next(order), slot)
            assert (timers.reset if kind < 0.8 else timers.postpone)(slots, delays) == was
        manual.check()
        assert timers.armed == len(armed) == len(manual)
    manual.advance(100)
    assert log == [(slot, when) for when, _, slot in sorted(armed.values())]


# ---- durations ------------------------------------------------------------------------------------------------------


def test_infinity_is_pending_and_never_fires(manual):
    log = []
    timers = logging_array(manual, 4, log)
    timers.reset([0, 1, 2], [math.inf, 1e300, 10**400])
    timers.reset(3, ns=2**63 - 1)
    assert list(timers.when()) == [math.inf] * 4
    manual.advance(10**9)
    assert log == []
    assert timers.armed == 4
    assert timers.postpone(0, 1) is True
    manual.advance(1)
    assert log == [(0, 1e9 + 1)]


def test_nanoseconds_saturate_at_both_ends(manual):
    log = []
    manual.advance(5)
    timers = logging_array(manual, 6, log)
    ns = array.array("q", [2**63 - 1, -(2**63), 0, 1, 2**63 - 5_000_000_000, -1])
    timers.reset(ALL, ns=ns)
    assert list(timers.when()) == [math.inf, 5.0, 5.0, 5.000000001, math.inf, 5.0]
    manual.advance(0)
    assert [slot for slot, _ in log] == [1, 2, 5]
    timers.reset([1, 2], ns=[10**30, -(10**30)])
    assert list(timers.when([1, 2])) == [math.inf, 5.0]
    timers.stop()


def test_one_reading_of_the_clock_serves_a_call(heap):
    timers = TimerArray(5000, print, heap=heap)
    timers.reset(ALL, FAR)
    assert len(set(timers.when())) == 1


# ---- the heap -------------------------------------------------------------------------------------------------------


def test_slots_count_among_the_timers_of_the_heap_and_are_no_handles(manual):
    timers = TimerArray(100, print, heap=manual)
    timers.reset(ALL, FAR)
    handle = AfterFunc(1, print, heap=manual)
    channel = Timer(1, heap=manual)
    assert len(manual) == manual.stats()["armed"] == 102
    assert manual.pending() == [(1.0, handle)]
    timers.stop(range(50))
    assert len(manual) == 52
    assert manual.pending() == [(1.0, handle)]
    channel.stop()


def test_pending_leaves_slots_out_in_the_middle_of_a_run(manual):
    seen = []
    timers = TimerArray(10, lambda slots: seen.append(manual.pending()), batch=4, heap=manual)
    timers.reset(ALL, 1)
    handle = AfterFunc(1, lambda: seen.append(manual.pending()), heap=manual)
    timers.stop(3)
    manual.advance(1)
    assert seen == [[(1.0, handle)]] * 3 + [[]]


def test_the_accounts_of_the_heap_balance(manual):
    timers = TimerArray(100, lambda slots: None, heap=manual)
    timers.reset(range(60), 1)  # 60 armings
    timers.reset(range(30), 2)  # 30 more, 30 cancels
    timers.postpone(range(50, 70), 3)  # 10 of each
    timers.stop(range(10))  # 10 cancels
    manual.advance(1)  # fires 30 .. 49
    stats = manual.stats()
    assert (stats["arms"], stats["fired"], stats["cancelled"], stats["armed"]) == (100, 20, 50, 30)
    assert balance(manual) == 0
    assert stats["peak"] == 60
    assert timers.armed == 30


def test_nbytes_counts_what_has_been_armed(manual):
    before = manual.nbytes
    timers = TimerArray(100_000, print, heap=manual)
    assert manual.nbytes == before
    timers.reset(ALL, FAR)
    assert 40 <= (manual.nbytes - before) / 100_000 <= 41 + 2**16 / 100_000
    timers.stop()
    del timers
    assert manual.nbytes < before + 100_000


def test_a_closed_heap_cancels_all_and_arms_no_more():
    heap = ManualHeap()
    timers = TimerArray(10, print, heap=heap)
    timers.reset(range(6), [1, 2, 3, math.inf, 1, 1])
    timers.stop(5)
    heap.close()
    heap.check()
    assert heap.stats()["cancelled"] == 6
    assert timers.armed == 0
    assert timers.active() == bytes(10)
    assert timers.when(0) is None
    assert timers.stop() == 0
    assert timers.postpone(range(10), 1) == 0
    assert timers.postpone(1, 1) is False
    for slots in (1, [1, 2]):
        with pytest.raises(RuntimeError, match="closed"):
            timers.reset(slots, 1)
    assert balance(heap) == 0


def test_an_array_may_be_made_on_a_closed_heap():
    heap = TimerHeap()
    heap.close()
    timers = TimerArray(3, print, heap=heap)
    assert timers.stop() == 0
    with pytest.raises(RuntimeError, match="closed"):
        timers.reset(0, 1)


def test_a_with_statement_ends_in_a_stop(manual):
    timers = TimerArray(10, print, heap=manual)
    with timers as entered:
        assert entered is timers
        timers.reset(ALL, FAR)
        assert timers.armed == 10
    assert timers.armed == len(manual) == 0
    timers.reset(3, FAR)
    with pytest.raises(KeyError), timers:
        raise KeyError
    assert timers.armed == 0


def test_use_makes_a_manual_heap_the_default_of_arrays():
    log = []
    with use(ManualHeap()) as heap:
        timers = TimerArray(3, log.extend)
        assert timers.heap is heap
        timers.reset([2, 0], [1, 2])
        heap.advance(2)
    assert log == [2, 0]


def test_a_repr_tells_how_many_are_armed(manual):
    timers = TimerArray(10, print, heap=manual)
    timers.reset([1, 2], FAR)
    assert repr(timers) == "<timerheap.TimerArray of 10 slots, 2 armed>"


# ---- several at once ------------------------------------------------------------------------------------------------


def test_a_snapshot_sees_each_slot_as_it_is_at_some_moment(heap):
    """Beside a thread that resets forth and back: one of the two deadlines, and active."""
    timers = TimerArray(3000, print, heap=heap)
    timers.reset(ALL, FAR)
    first = set(timers.when())
    stop = threading.Event()

    def write():
        while not stop.is_set():
            timers.reset(ALL, 2 * FAR)
            timers.postpone(ALL, FAR)

    writer = Background(write)
    try:
        for _ in range(30):
            assert timers.active() == b"\1" * 3000
            whens = timers.when()
            assert not any(math.isnan(when) for when in whens)
            assert min(whens) >= min(first)
            heap.check()
    finally:
        stop.set()
        writer.result()
    assert timers.stop() == 3000


def test_many_threads_on_one_array_keep_its_accounts(heap):
    """Each arming fires or is cancelled once, whoever does it."""
    count, fired = 600, []
    timers = TimerArray(count, lambda slots: fired.extend(slots), batch=50, heap=heap)

    def work(index):
        chance = random.Random(index)
        arms = cancels = 0
        for _ in range(300):
            slots = [chance.randrange(count) for _ in range(chance.choice([1, 5, 40, 700]))]
            kind = chance.random()
            if kind < 0.4:
                cancels += timers.reset(slots, chance.choice([0, 1e-4, 1e-3, FAR]))
                arms += len(slots)
            elif kind < 0.5:
                cancels += timers.reset(slots[0], chance.choice([0, 1e-4, FAR]))
                arms += 1
            elif kind < 0.7:
                cancels += timers.stop(slots)
            elif kind < 0.75:
                cancels += timers.stop(slots[0])
            elif kind < 0.85:
                postponed = timers.postpone(slots, chance.choice([1e-4, 1e-3, FAR]))
                cancels += postponed
                arms += postponed
            elif kind < 0.95:
                active = timers.active(slots)
                assert set(active) <= {0, 1}
                assert len(timers.when(slots)) == len(slots)
            else:
                heap.check()
                assert 0 <= timers.armed <= count
        return arms, cancels

    arms, cancels = (sum(column) for column in zip(*run_threads(6, work), strict=True))
    cancels += timers.stop()
    wait_until(lambda: len(fired) == arms - cancels)
    heap.check()
    stats = heap.stats()
    assert (stats["arms"], stats["fired"], stats["cancelled"], stats["armed"]) == (arms, arms - cancels, cancels, 0)


def test_threads_that_own_their_slots_know_every_answer(heap):
    """Slots of one array, of which each thread has every fourth."""
    timers = TimerArray(2000, print, heap=heap)

    def work(index):
        mine = range(index, 2000, 4)
        for turn in range(100):
            assert timers.reset(mine, FAR + turn) == 0
            assert timers.active(mine) == b"\1" * 500
            assert timers.postpone(mine, 2 * FAR) == 500
            assert timers.stop(mine[::2]) == 250
            assert timers.stop(mine) == 250
            assert timers.postpone(mine, FAR) == 0

    run_threads(4, work)
    assert timers.armed == len(heap) == 0
    heap.check()


def test_a_buffer_that_changes_meanwhile_leads_to_no_slot_beyond_the_array(heap):
    """IndexError, or it is done: what lies beyond is never written."""
    timers = TimerArray(1000, print, heap=heap)
    slots = array.array("i", [n % 1000 for n in range(200_000)])
    stop, refused = threading.Event(), []

    def spoil():
        while not stop.is_set():
            for at in range(0, len(slots), 4001):
                slots[at] = 2**31 - 1
            for at in range(0, len(slots), 4001):
                slots[at] = 0

    spoiler = Background(spoil)
    try:
        for _ in range(30):
            for call in (lambda: timers.reset(slots, FAR), lambda: timers.stop(slots), lambda: timers.when(slots)):
                try:
                    call()
                except IndexError as exc:
                    refused.append(str(exc))
            heap.check()
    finally:
        stop.set()
        spoiler.result()
    timers.stop()
    assert all("2147483647" in text for text in refused)


def test_out_may_be_the_very_memory_of_the_slots(manual):
    """What is written there is read as slots again: in range, or IndexError."""
    timers = TimerArray(300, print, heap=manual)
    memory = bytearray(4 * 2000)
    slots = memoryview(memory).cast("i")
    for at in range(2000):
        slots[at] = at % 300
    timers.reset(ALL, FAR)
    try:
        timers.reset(slots, FAR, out=memoryview(memory)[4000:6000])
    except IndexError:
        pass
    manual.check()
    assert timers.armed == 300


# ---- a model --------------------------------------------------------------------------------------------------------

SIZES = (7, 40, 1500)
"""Of the arrays of a model: few slots, a chunk or two, and more than a piece."""

SLOTS = st.one_of(
    st.lists(st.integers(0, 2000), max_size=12),
    st.builds(range, st.integers(0, 60), st.integers(0, 2000), st.integers(1, 7)),
    st.none(),
)


class Rows:
    """An array and what the oracle knows of it."""

    def __init__(self, model, index):
        self.index = index
        self.armed = {}  # slot -> (deadline, arming order)
        self.plans = []  # what the next callbacks do, the array's copy
        self.planned = []  # the oracle's
        self.batch = (1, 3, 4096)[index]
        self.timers = TimerArray(
            SIZES[index], lambda slots: model.callback(self, slots), batch=self.batch, heap=model.heap
        )

    def taken(self, slots):
        """What a rule means by these: slots of this array."""
        if slots is None:
            return list(range(SIZES[self.index]))
        return [slot % SIZES[self.index] for slot in slots]


class ArrayModel(RuleBasedStateMachine):
    """Three arrays and timers between them against a dict; the oracle cuts the batches itself."""

    @initialize()
    def begin(self):
        self.heap = ManualHeap()
        self.now = 0
        self.order = itertools.count()
        self.rows = [Rows(self, index) for index in range(3)]
        self.single = {}  # AfterFuncs: key -> (deadline, order)
        self.handles = {}
        self.log, self.expected = [], []
        self.arms = self.fired = self.cancelled = 0

    # What a change does to the oracle, and its answers.

    def armed(self, row, slots, delays, revive):
        out = []
        for slot, delay in zip(slots, delays, strict=True):
            was = slot in row.armed
            out.append(was)
            if was or revive:
                row.armed[slot] = (deadline(self.now, delay), next(self.order))
                self.arms += 1
            self.cancelled += was
        return out

    def stopped(self, row, slots):
        out = [row.armed.pop(slot, None) is not None for slot in slots]
        self.cancelled += sum(out)
        return out

    def apply(self, row, action, timers=None):
        """An action of a callback, to the array, or in the oracle (timers None): what it answers."""
        kind, slots, delay = action
        slots = row.taken(slots)
        if timers is not None:
            return timers.stop(slots) if kind == "stop" else getattr(timers, kind)(slots, delay)
        if kind == "stop":
            return sum(self.stopped(row, slots))
        return sum(self.armed(row, slots, [delay] * len(slots), kind == "reset"))

    def callback(self, row, slots):
        self.log.append((row.index, list(slots), self.heap.time()))
        if row.plans:
            other, action = row.plans.pop(0)
            self.log.append(self.apply(other, action, other.timers))

    # Rules.

    @rule(index=st.integers(0, 2), slots=SLOTS, delay=DELAYS, revive=st.booleans())
    def change_all_alike(self, index, slots, delay, revive):
        row = self.rows[index]
        taken = row.taken(slots)
        expected = self.armed(row, taken, [delay] * len(taken), revive)
        out = bytearray(len(taken))
        method = row.timers.reset if revive else row.timers.postpone
        assert method(ALL if slots is None else taken, delay, out=out) == sum(expected)
        assert list(out) == expected

    @rule(index=st.integers(0, 2), slots=SLOTS, seed=st.integers(0, 1000), revive=st.booleans())
    def change_each(self, index, slots, seed, revive):
        row, chance = self.rows[index], random.Random(seed)
        taken = row.taken(slots)
        delays = [chance.choice([0, 1, 2, 5, chance.random() * 12]) for _ in taken]
        expected = self.armed(row, taken, delays, revive)
        method = row.timers.reset if revive else row.timers.postpone
        assert method(array.array("I", taken), array.array("d", delays)) == sum(expected)

    @rule(index=st.integers(0, 2), slot=st.integers(0, 2000), delay=DELAYS, revive=st.booleans())
    def change_one(self, index, slot, delay, revive):
        row = self.rows[index]
        [slot] = row.taken([slot])
        [expected] = self.armed(row, [slot], [delay], revive)
        method = row.timers.reset if revive else row.timers.postpone
        assert method(slot, delay) is expected

    @rule(index=st.integers(0, 2), slots=SLOTS)
    def stop_several(self, index, slots):
        row = self.rows[index]
        taken = row.taken(slots)
        expected, out = self.stopped(row, taken), bytearray(len(taken))
        assert row.timers.stop(None if slots is None else taken, out=out) == sum(expected)
        assert list(out) == expected

    @rule(index=st.integers(0, 2), slot=st.integers(0, 2000))
    def stop_one(self, index, slot):
        row = self.rows[index]
        [slot] = row.taken([slot])
        [expected] = self.stopped(row, [slot])
        assert row.timers.stop(slot) is expected

    @rule(
        index=st.integers(0, 2),
        other=st.integers(0, 2),
        kind=st.sampled_from(["stop", "reset", "postpone"]),
        slots=SLOTS,
        delay=DELAYS,
    )
    def plan(self, index, other, kind, slots, delay):
        """One of the next callbacks of an array changes another array, or its own. Not to a moment that has come: the
        calls that follow would be at it for ever."""
        delay = delay if delay > 0 else 1
        for plans in (self.rows[index].plans, self.rows[index].planned):
            plans.append((self.rows[other], (kind, slots, delay)))

    @rule(delay=DELAYS)
    def arm_a_timer_between(self, delay):
        key = self.arms
        self.handles[key] = AfterFunc(delay, self.log.append, key, heap=self.heap)
        self.single[key] = (deadline(self.now, delay), next(self.order))
        self.arms += 1

    @rule(index=st.integers(0, 2))
    def drop_an_array_and_make_another(self, index):
        """What it has armed fires all the same; here nothing is, for the oracle has no row for it any more."""
        row = self.rows[index]
        row.timers.stop()
        self.cancelled += len(row.armed)
        for each in self.rows:
            each.plans = [plan for plan in each.plans if plan[0] is not row]
            each.planned = [plan for plan in each.planned if plan[0] is not row]
        self.rows[index] = Rows(self, index)

    @rule(delta=st.one_of(st.integers(0, 6), st.floats(0, 6), st.just(1e-9)))
    def advance(self, delta):
        began, end = self.now, deadline(self.now, delta)
        while True:
            run = sorted(
                [(*entry, row, slot) for row in self.rows for slot, entry in row.armed.items()]
                + [(*entry, None, key) for key, entry in self.single.items()],
                key=lambda entry: entry[:2],
            )
            if not run or run[0][0] > end:
                break
            self.now = max(self.now, run[0][0])
            self.run([entry for entry in run if entry[0] <= self.now])
        self.now = max(self.now, clock_after(began, delta))
        self.heap.advance(delta)
        assert self.log == self.expected

    def run(self, due):
        """What is due at one moment, in order. An entry whose timer has been stopped or armed anew is void."""
        while due:
            when, order, row, slot = due.pop(0)
            if row is None:
                if self.single.get(slot) == (when, order):
                    del self.single[slot]
                    self.fired += 1
                    self.expected.append(slot)
                continue
            if row.armed.get(slot) != (when, order):
                continue
            chunk = [slot]
            while due and len(chunk) < row.batch:
                when, order, other, slot = due[0]
                valid = (other.armed if other is not None else self.single).get(slot) == (when, order)
                if valid and other is not row:
                    break
                due.pop(0)
                if valid:
                    chunk.append(slot)
            for slot in chunk:
                del row.armed[slot]
            self.fired += len(chunk)
            self.expected.append((row.index, chunk, seconds(self.now)))
            if row.planned:
                other, action = row.planned.pop(0)
                self.expected.append(self.apply(other, action))

    @rule(index=st.integers(0, 2), slots=SLOTS)
    def look(self, index, slots):
        row = self.rows[index]
        taken = row.taken(slots)
        assert list(row.timers.active(taken)) == [slot in row.armed for slot in taken]
        for slot, when in zip(taken, row.timers.when(taken), strict=True):
            assert math.isnan(when) if slot not in row.armed else when == seconds(row.armed[slot][0])
        for slot in taken[:3]:
            assert row.timers.active(slot) is (slot in row.armed)
            assert row.timers.when(slot) == (seconds(row.armed[slot][0]) if slot in row.armed else None)

    @invariant()
    def agree(self):
        if not hasattr(self, "heap"):
            return
        self.heap.check()
        assert self.heap.time() == seconds(self.now)
        live = len(self.single)
        for row in self.rows:
            assert row.timers.armed == len(row.armed)
            live += len(row.armed)
        assert len(self.heap) == live
        stats = self.heap.stats()
        assert (stats["arms"], stats["fired"], stats["cancelled"]) == (self.arms, self.fired, self.cancelled)
        assert self.arms == self.fired + self.cancelled + live

    def teardown(self):
        if hasattr(self, "heap"):
            assert all(
                when != NEVER or row.timers.when(slot) == math.inf
                for row in self.rows
                for slot, (when, _) in row.armed.items()
            )
            self.heap.close()
            self.heap.check()
            assert all(row.timers.armed == 0 for row in self.rows)
            assert balance(self.heap) == 0


ArrayModel.TestCase.settings = settings(
    max_examples=80, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestArraysAgreeWithADict = ArrayModel.TestCase
