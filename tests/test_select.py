"""select: waits for the first of several channels, and chooses at random among the ready."""

import random
import threading
import time
from collections import Counter

import pytest
from helpers import FAR, PATIENCE, Background, balance, run_threads, wait_until

from timerheap import AfterFunc, Ticker, Timer, TimerHeap, select
from timerheap._core import DEBUG, longest_slice
from timerheap.testing import ManualHeap

MANY = 1000
"""Channels of a select that looks at them in several slices."""


def test_gives_the_channel_and_its_value(manual):
    timer = Timer(1, heap=manual)
    manual.advance(2)
    assert select(timer.c) == (timer.c, 1.0)


def test_gives_the_channel_that_is_ready():
    never, soon = Timer(FAR), Timer(0.01)
    channel, at = select(never.c, soon.c)
    assert channel is soon.c
    assert time.monotonic() >= at
    assert never.active
    assert not soon.active


def test_a_ready_channel_is_found_without_waiting():
    for _ in range(200):
        never, now = Timer(FAR), Timer(0)
        assert select(never.c, now.c, timeout=0)[0] is now.c


def test_leaves_the_values_of_the_others(manual):
    timers = [Timer(1, heap=manual) for _ in range(5)]
    manual.advance(1)
    chosen, _ = select(*(timer.c for timer in timers))
    for timer in timers:
        assert (timer.c.poll() is None) == (timer.c is chosen)


def test_chooses_at_random_among_the_ready(manual):
    timers = [Timer(0, heap=manual) for _ in range(3)]
    counts = Counter()
    for _ in range(600):
        channel, _ = select(*(timer.c for timer in timers))
        index = [timer.c for timer in timers].index(channel)
        counts[index] += 1
        timers[index].reset(0)
    # Each is expected 200 times; below 100 is eleven standard deviations away.
    assert min(counts[index] for index in range(3)) > 100


def test_times_out():
    timers = [Timer(FAR) for _ in range(3)]
    start = time.monotonic()
    with pytest.raises(TimeoutError):
        select(*(timer.c for timer in timers), timeout=0.05)
    assert time.monotonic() - start >= 0.05
    assert all(timer.active for timer in timers)


@pytest.mark.parametrize("timeout", [0, -1, 0.0])
def test_without_patience_it_only_looks(manual, timeout):
    timer = Timer(1, heap=manual)
    with pytest.raises(TimeoutError):
        select(timer.c, timeout=timeout)
    manual.advance(1)
    assert select(timer.c, timeout=timeout) == (timer.c, 1.0)


def test_refuses_an_empty_list():
    with pytest.raises(ValueError):
        select()
    with pytest.raises(ValueError):
        select(timeout=1)


@pytest.mark.parametrize("bad", [None, 1, "channel", [], object()])
def test_refuses_what_is_no_channel(bad):
    timer = Timer(0)
    with pytest.raises(TypeError):
        select(bad)
    with pytest.raises(TypeError):
        select(timer.c, bad)
    assert timer.c.poll() is not None


def test_refuses_a_timer_in_place_of_its_channel():
    with pytest.raises(TypeError):
        select(Timer(0))


@pytest.mark.parametrize(("timeout", "error"), [(float("nan"), ValueError), ("1", TypeError)])
def test_refuses_a_bad_timeout_and_takes_no_value(timeout, error):
    timer = Timer(0)
    with pytest.raises(error):
        select(timer.c, timeout=timeout)
    assert timer.c.poll() is not None


def test_takes_one_channel_twice(manual):
    timer = Timer(1, heap=manual)
    manual.advance(1)
    assert select(timer.c, timer.c) == (timer.c, 1.0)
    with pytest.raises(TimeoutError):
        select(timer.c, timer.c, timeout=0)


def test_takes_tickers_and_timers_together():
    timer = Timer(0.1)
    seen = Counter()
    with Ticker(0.01) as ticker:
        while timer.active:
            channel, _ = select(ticker.c, timer.c)
            seen["tick" if channel is ticker.c else "timer"] += 1
    assert seen["timer"] == 1
    assert seen["tick"] >= 1


def test_takes_channels_of_several_heaps():
    with TimerHeap("one") as one, TimerHeap("other") as other:
        never, soon = Timer(FAR, heap=one), Timer(0.02, heap=other)
        assert select(never.c, soon.c)[0] is soon.c
        assert select(never.c, Timer(0.02, heap=one).c)[0] is not never.c


def test_takes_many_channels(manual):
    timers = [Timer(1 + n, heap=manual) for n in range(1000)]
    manual.advance(1)
    assert select(*(timer.c for timer in timers)) == (timers[0].c, 1.0)


def test_a_blocked_select_follows_a_reset_of_any_of_its_channels():
    timers = [Timer(FAR) for _ in range(5)]
    for index in (0, 4, 2):
        selecting = Background(select, *(timer.c for timer in timers))
        time.sleep(0.02)
        timers[index].reset(0)
        assert selecting.result()[0] is timers[index].c


def test_a_blocked_select_is_woken_by_a_callback():
    timer = Timer(FAR)
    AfterFunc(0.05, timer.reset, 0)
    assert select(timer.c, timeout=20)[0] is timer.c


def test_of_several_selects_on_one_channel_one_gets_the_value():
    timer, stopper = Timer(FAR), Timer(FAR)
    selecting = [Background(select, timer.c, stopper.c) for _ in range(4)]
    time.sleep(0.05)
    for left in (3, 2, 1, 0):
        timer.reset(0)
        deadline = time.monotonic() + 20
        while sum(s.running for s in selecting) > left:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        time.sleep(0.01)
        assert sum(s.running for s in selecting) == left
    assert all(s.result()[0] is timer.c for s in selecting)


def test_a_select_on_a_closed_heap_raises():
    heap = TimerHeap("closing")
    timer = Timer(FAR, heap=heap)
    selecting = Background(select, timer.c)
    time.sleep(0.05)
    heap.close()
    with pytest.raises(RuntimeError):
        selecting.result()


def test_channels_of_a_manual_and_of_a_real_heap_can_be_asked_together():
    manual = ManualHeap()
    timer = Timer(1, heap=manual)
    manual.advance(1)
    assert select(timer.c, Timer(FAR).c, timeout=0)[0] is timer.c


# ---- many channels: looked at in slices, and after that only where something changed ---------------------------------


@pytest.fixture
def many(heap):
    return [Timer(FAR, heap=heap) for _ in range(MANY)]


def channels(timers):
    return [timer.c for timer in timers]


def thirds(timers, chosen):
    """How often channels of the first, the second and the last third were chosen."""
    place = {timer.c: 3 * index // len(timers) for index, timer in enumerate(timers)}
    counts = Counter(place[channel] for channel in chosen)
    return [counts[third] for third in range(3)]


def test_chooses_at_random_among_more_ready_channels_than_a_slice_has(manual):
    timers = [Timer(0, heap=manual) for _ in range(MANY)]
    places = {timer.c: timer for timer in timers}
    chosen = []
    for _ in range(600):
        channel, _ = select(*places)
        places[channel].reset(0)
        chosen.append(channel)
    # Each third is expected 200 times; below 100 is eleven standard deviations away.
    assert min(thirds(timers, chosen)) > 100


@pytest.mark.parametrize("count", [30, 300])
def test_chooses_at_random_among_those_that_become_ready_while_it_sleeps(heap, count):
    timers = [Timer(FAR, heap=heap) for _ in range(count)]
    chosen = []
    for _ in range(60):
        due = time.monotonic() + 0.01
        for timer in timers:
            timer.reset(due - time.monotonic())
        chosen.append(select(*channels(timers))[0])
    # Each third is expected 20 times, with a standard deviation of 3.7.
    assert min(thirds(timers, chosen)) > 2


def test_chooses_at_random_among_those_that_a_manual_clock_makes_ready(manual):
    timers = [Timer(FAR, heap=manual) for _ in range(MANY)]
    chosen = []
    for _ in range(60):
        for timer in timers:
            timer.reset(1)
        selecting = Background(select, *channels(timers))
        time.sleep(0.002)
        manual.advance(1)
        chosen.append(selecting.result()[0])
    assert min(thirds(timers, chosen)) > 2


def test_a_blocked_select_over_many_follows_whatever_is_reset(many):
    """To later and to earlier, in any order: it ends by the one that is due, and not before."""
    chance = random.Random(1)
    for _ in range(30):
        selecting = Background(select, *channels(many))
        for _ in range(chance.randrange(300)):
            chance.choice(many).reset(FAR * chance.choice([0.5, 1, 2]))
            chance.choice(many).stop()
        assert selecting.running
        wanted = chance.choice(many)
        wanted.reset(0)
        assert selecting.result()[0] is wanted.c


def test_a_blocked_select_over_many_finds_each_deadline_after_resets_to_later(many):
    """The deadlines it saw first are all stale when they come."""
    for timer in many:
        timer.reset(1)
    selecting = Background(select, *channels(many))
    for timer in many:
        timer.reset(1.3 if timer is many[700] else FAR)
    channel, at = selecting.result()
    assert channel is many[700].c
    assert time.monotonic() >= at


def test_selects_over_the_same_channels_take_over_from_one_another(many):
    selecting = [Background(select, *channels(many)) for _ in range(4)]
    time.sleep(0.1)
    for left in (3, 2, 1, 0):
        random.choice(many).reset(0)
        wait_until(lambda left=left: sum(s.running for s in selecting) <= left)
        time.sleep(0.01)
        assert sum(s.running for s in selecting) == left
    assert len({s.result()[1] for s in selecting}) == 4


def test_a_receiver_behind_a_select_over_many_gets_its_turn(many):
    """First in line at every channel, the select takes one and leaves the others to those behind it."""
    selecting = Background(select, *channels(many))
    time.sleep(0.05)
    receivers = {number: Background(many[number].c.recv) for number in (3, 500, 999)}
    time.sleep(0.05)
    many[700].reset(0)
    assert selecting.result()[0] is many[700].c
    for number, receiver in receivers.items():
        assert receiver.running
        many[number].reset(0)
        receiver.result()


def test_a_select_over_many_heaps_is_told_of_each(manual):
    heaps = [TimerHeap(f"heap {number}") for number in range(40)]
    timers = [Timer(FAR, heap=heap) for _ in range(5) for heap in [*heaps, manual]]
    selecting = Background(select, *channels(timers))
    time.sleep(0.02)
    manual.advance(FAR)
    assert selecting.result()[0] in channels(timers[40::41])
    timers[40].stop()
    for timer in timers[40::41]:
        timer.reset(FAR)
    timers[12].reset(0)
    assert select(*channels(timers))[0] is timers[12].c
    selecting = Background(select, *channels(timers))
    time.sleep(0.02)
    assert selecting.running
    heaps[23].close()
    with pytest.raises(RuntimeError, match="closed"):
        selecting.result()
    for heap in heaps:
        heap.close()


def test_closing_a_heap_ends_every_select_on_it_and_no_other(many):
    with TimerHeap("other") as other:
        doomed = Timer(FAR, heap=other)
        apart = [Background(select, *channels(many)) for _ in range(3)]
        ending = [Background(select, *channels(many), doomed.c) for _ in range(3)]
        ending += [Background(doomed.c.recv) for _ in range(30)]
        time.sleep(0.1)
    for wait in ending:
        with pytest.raises(RuntimeError, match="closed"):
            wait.result()
    assert all(wait.running for wait in apart)
    for _ in apart:
        many[0].reset(0)
        wait_until(lambda: not many[0].active)


def test_who_finds_that_another_was_quicker_looks_for_more_before_it_times_out(many):
    """As many selects as are ready when their time is up, over so many channels that they see the same ones ready."""
    manual = Background(ManualHeap).result()            # another thread's: here it may be waited for
    timers = [Timer(FAR, heap=manual) for _ in range(3 * MANY)]
    for _ in range(5):
        for timer in timers[:8]:
            timer.reset(1)
        selecting = [Background(lambda: select(*channels(timers), timeout=1)) for _ in range(8)]
        time.sleep(0.1)
        manual.advance(1)
        assert len({each.result()[0] for each in selecting}) == 8


def test_a_select_that_times_out_leaves_every_line(many):
    with pytest.raises(TimeoutError):
        select(*channels(many), timeout=0.01)
    receiver = Background(many[-1].c.recv)
    time.sleep(0.02)
    many[-1].reset(0)
    receiver.result()


def test_others_go_on_while_a_select_looks_at_very_many(fast_switching):
    """The mutex is handed over between two slices, and the GIL is given up: else nobody could do anything meanwhile,
    but for the few resets that go between two switches of the GIL, before and after."""
    with TimerHeap("crowd") as crowd, TimerHeap("apart") as apart:
        never = channels([Timer(FAR, heap=crowd) for _ in range(200_000)])
        ends, bystander, resets = threading.Event(), Timer(FAR, heap=apart), [0]

        def churn():
            while not ends.is_set():
                bystander.reset(FAR)
                resets[0] += 1

        def meanwhile():
            before = resets[0]
            try:
                select(*never, timeout=0)
            except TimeoutError:
                return resets[0] - before

        churning = Background(churn)
        deadline = time.monotonic() + PATIENCE
        while meanwhile() < 2000:
            assert time.monotonic() < deadline
        ends.set()
        churning.result()


@pytest.mark.skipif(not DEBUG, reason="only a debug build counts")
def test_no_step_of_a_select_holds_the_mutex_for_longer_than_a_slice(heap):
    timers = [Timer(FAR, heap=heap) for _ in range(20_000)]
    every = channels(timers)
    longest_slice()
    selecting = [Background(select, *every) for _ in range(3)]
    waiting = [Background(Timer(FAR, heap=heap).c.recv) for _ in range(100)]
    time.sleep(0.2)
    for timer in timers:
        timer.reset(FAR / 2)
    timers[5].reset(0)
    wait_until(lambda: sum(s.running for s in selecting) == 2)
    due = time.monotonic() + 0.2
    for timer in timers:
        timer.reset(due - time.monotonic())
    wait_until(lambda: not any(s.running for s in selecting))
    selecting += [Background(select, *every) for _ in range(3)]
    TimerHeap("unrelated").close()
    heap.close()
    for wait in selecting[3:] + waiting:
        try:
            wait.result()
        except RuntimeError:
            pass
    assert 0 < longest_slice() < 1000


def test_selects_resets_and_closes_of_many_threads_lose_and_double_nothing(fast_switching):
    """Selects over thousands of channels, while others reset, stop and receive the same and close heaps beside them."""
    heap = TimerHeap("stress")
    timers = [Timer(FAR, heap=heap) for _ in range(3000)]
    every = channels(timers)
    until = time.monotonic() + 3
    values, cancels = [[] for _ in range(8)], [0] * 8

    def selects(index):
        mine = random.Random(index).sample(every, 2500)
        while time.monotonic() < until:
            try:
                values[index].append(select(*mine, timeout=random.choice([0, 0.001, 0.05])))
            except TimeoutError:
                pass

    def churns(index):
        chance = random.Random(index)
        while time.monotonic() < until:
            timer, kind = chance.choice(timers), chance.random()
            if kind < 0.2:
                cancels[index] += timer.reset(0)
            elif kind < 0.4:
                cancels[index] += timer.reset(0.01 * chance.random())
            elif kind < 0.6:
                cancels[index] += timer.reset(FAR)
            elif kind < 0.8:
                cancels[index] += timer.stop()
            elif kind < 0.9:
                value = timer.c.poll()
                if value is not None:
                    values[index].append((timer.c, value))
            else:
                try:
                    values[index].append((timer.c, timer.c.recv(1e-4)))
                except TimeoutError:
                    pass

    def closes(index):
        while time.monotonic() < until:
            with TimerHeap("passing") as passing:
                extra = [Timer(FAR, heap=passing) for _ in range(200)]
                waits = [Background(select, *channels(extra), *every[:300]) for _ in range(2)]
            for wait in waits:
                try:
                    values[index].append(wait.result())
                except RuntimeError:
                    pass

    run_threads(8, lambda index: (selects if index < 4 else churns if index < 7 else closes)(index))
    received = [pair for pairs in values for pair in pairs]
    stats = heap.stats()
    assert len(set(received)) == len(received) == stats["received"]
    assert stats["cancelled"] == sum(cancels)
    assert balance(heap) == 0
    # Every line is empty again: whatever is due now is found.
    for timer in timers:
        timer.reset(0)
    left = {select(*every)[0] for _ in timers}
    assert len(left) == len(timers)
    heap.check()
    heap.close()
