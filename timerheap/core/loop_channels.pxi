# Channels in coroutines: await channel, async for, and select of timerheap.asyncio.
#
# A coroutine that waits stands in the lines of its channels as a blocked thread does (receive.pxi), between threads and
# in the order of arrival; only its sleep is another one:
#
#   - It sleeps on a future of its loop. A bell, see bells.pxi, is what wakes it, and an alarm: a timer on a heap of
#     the loop's own, at the earliest deadline that it watches. So no thread is needed, and no timer where another is
#     first in line.
#   - What wakes it takes nothing from the channel. The coroutine, once its loop runs it again, looks for itself under
#     C, and takes in the same hold. So an await that is cancelled, at whatever moment, leaves the value where it is,
#     and whoever is next in line is told.
#   - A bell is one sleep's: made before C is taken, with the future.
#
# The alarm holds the future, and by it the task, as the loop's own timers do. A bell does not: a task that waits for
# what is not armed, or in line behind others, has to be held by somebody, as asyncio wants it of all tasks.
#
# A loop that is closed wakes nobody any more: its coroutines leave their lines (LoopEnd; where it has no __dict__, as
# soon as they are told of something). Those of a loop that has merely stopped stand on until it runs again, is closed
# or is dropped, and whoever is behind them waits for that.
#
# In the child of a fork the lines of the parent's are void. A coroutine that is woken there joins anew.

@cython.final
@cython.no_gc_clear     # the channels must stay as long as their lines have nodes of this: until it is deallocated
cdef class Reception:
    """One receive of a coroutine: awaited once at a time."""

    cdef th_waiter w
    cdef th_node[NODES_ON_STACK] nodes
    cdef th_watch[NODES_ON_STACK] watches
    cdef th_group[NODES_ON_STACK] groups
    cdef glance g
    cdef tuple channels
    cdef bint paired            # the result is (channel, value)
    cdef bint awaited           # somebody does
    cdef bint joined            # it stands in its lines, of this generation; guard C, and so are the next two
    cdef uint32_t forks
    cdef int64_t ns             # timeout
    cdef int64_t until
    cdef LoopHeap home          # for alarms; where it has waited once, it is among the waiters of this
    cdef object itself          # a weak reference
    cdef Timer alarm
    cdef object loop
    cdef object future          # of the sleep; the loop's thread
    cdef object __weakref__

    def __dealloc__(self):
        stand_down(self)
        if self.w.nodes != self.nodes:
            free(self.w.nodes)
        if self.w.watches != self.watches:
            free(self.w.watches)
        if self.w.groups != self.groups:
            free(self.w.groups)

    def __await__(self):
        return receive_in_turn(self)

    def rouse(self):
        """In the thread of the loop: look again."""
        if self.future is not None:
            wake_future(self.future)

    def leave(self):
        """The lines, if it stands in them. The alarm is called off."""
        stand_down(self)
        drop_alarm(self)
        if self.home is not None and self.home.waiters is not None:     # the collector may have been there
            self.home.waiters.discard(self.itself)


def wake_future(future):
    """For an alarm."""
    if not future.done():
        future.set_result(None)


cdef object ALARM = wake_future


cdef int drop_alarm(Reception self) except -1:
    with cython.critical_section(self):     # of a closed loop a thread may do this that rings, see bells.pxi
        alarm = self.alarm
        self.alarm = None
    if alarm is not None:
        alarm.stop()
    return 0


cdef Timer set_alarm(TimerHeap home, object future, int64_t ns):
    """A timer that wakes the future, ns from now."""
    cdef Timer timer = new_timer(home)
    incref(<PyObject*>future)
    timer.t.args = <PyObject*>future
    timer.t.flags = TH_ARGS_ONE
    incref(<PyObject*>ALARM)
    timer.t.func = <PyObject*>ALARM
    gc_track(<PyObject*>timer)              # the home is a loop's: always_tracked
    arm(home, <PyObject*>timer, &timer.t, ns)
    return timer


cdef Reception new_reception(tuple channels, object timeout, bint once, bint paired, const char* what):
    """channels are all Channels."""
    cdef Reception self = Reception.__new__(Reception)
    cdef size_t count = len(channels)
    cdef bint roomy
    self.w.nodes = self.nodes
    self.w.watches = self.watches
    self.w.groups = self.groups
    self.ns = TH_NEVER
    if timeout is not None:
        to_ns(timeout, &self.ns, what)
    self.channels = channels
    self.g.once = once
    self.paired = paired
    roomy = prepare(&self.w, tuple_items(<PyObject*>channels), count)
    if not roomy:
        raise MemoryError()
    return self


# ---- the lines ------------------------------------------------------------------------------------------------------

cdef void stand_down(Reception self) noexcept:
    """Takes C. From any thread."""
    cdef th_bell* bell
    th_chan_lock()
    if self.joined and self.forks == th_forks:
        self.g.work = 0
        leave_lines(&self.w, &self.g)
    self.joined = False
    bell = th_take_bell(&self.w)
    th_chan_unlock()
    if bell != NULL:
        decref(bell.object)
    ring_bells()


cdef outcome look_or_stand(Reception self, Bell bell, int64_t* when, int64_t* wake_at):
    """Takes C. Look, in line. NOT_READY: there is nothing, and the bell will be rung once there is something to look
    at; by itself it has to look at wake_at. Whatever else it is: it still stands in its lines."""
    cdef th_waiter* w = &self.w
    cdef th_bell* before
    cdef outcome result = NOT_READY
    incref(<PyObject*>bell)                 # the waiter's, and by it the ringer's
    th_chan_lock()
    before = th_take_bell(w)
    self.g.work = 0
    if not self.joined or self.forks != th_forks:
        w.changed = NULL
        join_lines(w, &self.g, self.until)
        self.joined = True
        self.forks = th_forks
    while result == NOT_READY:
        result = look_in_line(w, &self.g, self.until, when)
        if result == NOT_READY and not has_unseen(w, &self.g):
            break
    if result == NOT_READY:
        wake_at[0] = when_to_wake(w, &self.g, self.until)
        w.bell = &bell.bell
        th_rearm_wait(w)
    th_chan_unlock()
    if before != NULL:
        decref(before.object)
    if result != NOT_READY:
        decref(<PyObject*>bell)
    ring_bells()
    return result


cdef outcome sleep_unless_ready(Reception self, int64_t* when) except *:
    """Look; NOT_READY, and the future is there to be awaited."""
    cdef outcome result
    cdef int64_t wake_at = TH_NEVER
    cdef Bell bell = Bell.__new__(Bell)
    bell.bell.object = <void*>bell
    bell.loop = self.home.loop
    bell.waiter = self.itself
    self.future = self.loop.create_future()
    result = look_or_stand(self, bell, when, &wake_at)
    drop_alarm(self)
    if result == NOT_READY and wake_at != TH_NEVER:
        self.alarm = set_alarm(self.home, self.future, max(wake_at - self.g.now, 0))
    return result


# ---- receiving ------------------------------------------------------------------------------------------------------

cdef outcome look_first(Reception self, int64_t* when) except *:
    """Without standing in any line."""
    cdef outcome result
    self.loop = running_loop()
    result = look_once(tuple_items(<PyObject*>self.channels), self.w.count, &self.g, when)
    if result == TIMED_OUT and self.ns > 0:
        self.home = heap_of(self.loop, WAITS_OF_LOOP)
        self.itself = weakref.ref(self)
        self.home.waiters.add(self.itself)
        self.until = end_of_wait(self.g.clock, self.ns)
        return NOT_READY
    return result


cdef object result_of(Reception self, outcome result, int64_t when):
    """What the await comes to."""
    if result == RECEIVED:
        value = to_seconds(when)
        return (self.channels[self.g.pick], value) if self.paired else value
    if result == STOPPED or (self.g.once and result == HEAP_CLOSED):
        raise StopAsyncIteration
    refuse_to_receive(result)


def receive_in_turn(Reception self):
    """The generator that is awaited."""
    cdef int64_t when = 0
    cdef outcome result
    if self.channels is None:
        raise TypeError("Reception() is not to be called: await a channel")
    if self.awaited:
        raise RuntimeError("this receive is being awaited already")
    self.awaited = True
    try:
        result = look_first(self, &when)
        while result == NOT_READY:
            result = sleep_unless_ready(self, &when)
            if result == NOT_READY:
                yield from self.future
        return result_of(self, result, when)
    finally:
        self.awaited = False
        self.future = None
        self.leave()


cdef object receive_by_await(tuple channels):
    return receive_in_turn(new_reception(channels, None, False, False, NULL))


cdef object receive_next(Channel channel):
    return new_reception((channel,), None, True, False, NULL)


await_channels = receive_by_await
await_next = receive_next


def loop_select(channels, timeout):
    """What timerheap.asyncio.select awaits."""
    if len(channels) == 0:
        raise ValueError("select() needs at least one channel")
    for channel in channels:
        if not isinstance(channel, Channel):
            refuse_to_select(channel)
    return new_reception(channels, timeout, False, True, b"select() timeout")
