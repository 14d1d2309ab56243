# One channel: its states, and every change of them. The model of all channels is in csrc/channel.h.
#
# Lock. C is held, unless a function says otherwise.

cdef enum:
    SLICE = 64            # steps between two offers of C: about 5 us when none of the channels is in the cache
    STEPS_A_WAKE = 16     # what a system call counts for


cdef th_core nowhere        # the closed heap of a Channel that no timer made
nowhere.closed = True


cdef inline void chan_retire(th_chan* ch) noexcept nogil:
    """live -> idle, for a one-shot counted as a cancel."""
    th_assert_chan_held()
    ch.live = False
    if ch.period:
        ch.core.tickers -= 1
    else:
        ch.core.chan_live -= 1
        ch.core.chan_cancelled += 1


cdef inline bint chan_take(th_chan* ch, int64_t now, int64_t* when) noexcept nogil:
    """Receive: True and the deadline if ch has expired at now. A Ticker goes on to its next tick
    after now."""
    th_assert_chan_held()
    if not th_chan_live(ch) or ch.when > now or ch.when == TH_NEVER:
        return False
    when[0] = ch.when
    if ch.period:
        ch.core.chan_dropped += th_missed_ticks(ch.when, ch.period, now)
        ch.when = th_next_tick(ch.when, ch.period, now)
        ch.core.ticks += 1
    else:
        ch.live = False
        ch.core.chan_live -= 1
        ch.core.received += 1
    return True


cdef int chan_refuse() except -1:
    """Why an arming did not happen; C is free again."""
    raise RuntimeError(CLOSED_HEAP)


cdef inline object chan_arm(th_chan* ch, int64_t ns, int64_t period, bint revive):
    """Takes C. Arm or re-arm, ns from now. True if an earlier arming was live, or expired and not
    received; without revive nothing is done where none was."""
    cdef bint was, closed, rings = False
    cdef int64_t when = th_deadline(th_now(ch.core), ns)
    th_chan_lock()
    closed = ch.core.closed
    was = th_chan_live(ch)
    if not closed and (was or revive):
        if was:
            chan_retire(ch)
        if not was or when < ch.when:
            th_note_head(ch)        # whose key would be too late
            rings = th_bells()
        th_limit_due(ch.core, when)
        ch.when = when
        ch.period = period
        ch.epoch = ch.core.epoch
        ch.live = True
        if period:
            ch.core.tickers += 1
        else:
            ch.core.chan_live += 1
            ch.core.chan_arms += 1
    th_chan_unlock()
    if rings:
        ring_bells()
    if closed and revive:
        chan_refuse()
    return was and not closed


cdef inline object chan_stop(th_chan* ch):
    """Takes C.  True if there was something to cancel. What was armed before a fork is as any stopped channel then."""
    cdef bint was, rings = False
    th_chan_lock()
    was = th_chan_live(ch)
    if was:
        chan_retire(ch)
        th_note_head(ch)            # an iteration ends when its Ticker is stopped
        rings = th_bells()
    ch.live = False
    th_chan_unlock()
    if rings:
        ring_bells()
    return was


cdef object chan_active(th_chan* ch):
    """Takes C."""
    th_chan_lock()
    cdef bint live = th_chan_live(ch)
    th_chan_unlock()
    return live


cdef object chan_when(th_chan* ch):
    """Takes C."""
    th_chan_lock()
    cdef bint live = th_chan_live(ch)
    cdef int64_t when = ch.when
    th_chan_unlock()
    return deadline_or_inf(when) if live else None


# ---- all channels of a heap -----------------------------------------------------------------------------------------

cdef inline bint offer(size_t* work) noexcept nogil:
    """Let others have C if a slice is over. True if so: C may have been free meanwhile."""
    th_assert_chan_held()
    if work[0] < SLICE:
        return False
    work[0] = 0
    th_chan_offer()
    return True


cdef void wake_waiters(th_core* core) noexcept:
    """Takes C.  Everyone who waits on a channel of this heap looks again.

    The ring turns past those who have been told. Who joins later, or is told by another thread meanwhile, has a mark
    that says so.
    """
    cdef uint64_t turn
    cdef th_group* group
    cdef size_t work = 0
    th_chan_lock()
    core.turns += 1
    turn = core.turns
    while core.ring != NULL and (<th_group*>core.ring).mark < turn:
        group = <th_group*>core.ring
        group.mark = core.turns
        core.ring = group.next
        group.waiter.again = True
        work += STEPS_A_WAKE if th_wake(group.waiter) else 1
        offer(&work)
    th_chan_unlock()
    ring_bells()


cdef void close_channels(th_core* core) noexcept:
    """Takes C.  Void every arming of this heap's channels and wake who waits for them."""
    th_chan_lock()
    core.epoch += 1
    core.chan_cancelled += core.chan_live
    core.chan_live = core.tickers = 0
    th_chan_unlock()
    wake_waiters(core)
