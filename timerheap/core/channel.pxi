# Channel: the receiving end of a channel timer.

cdef object (*await_channels)(tuple channels)       # for coroutines; loop_channels.pxi has both
cdef object (*await_next)(Channel channel)


@cython.final
@cython.no_gc
cdef class Channel:
    """The receiving end of a channel timer.  Made by timers only.

    Holding the channel keeps its timer working; dropping it with the timer's handle cancels the
    timer.
    """

    def __cinit__(self):
        self.ch.core = &nowhere     # until new_channel names the heap; Channel.__new__ alone gets this far

    def __init__(self, *args, **keywords):
        raise TypeError("Channel() is not to be called: channels are made by timers, Timer(delay).c or after(delay)")

    def __dealloc__(self):
        th_chan_lock()
        if th_chan_live(&self.ch):
            chan_retire(&self.ch)
        th_chan_unlock()
        if self.ch.core.manual:
            strike_off(<ManualHeap>self.heap, &self.ch)
        th_count(&self.ch.core.channels, -1)

    def recv(self, timeout=None):
        """Wait for the timer and return its deadline, in seconds on time.monotonic(); for a Ticker,
        that of the oldest tick not received.

        TimeoutError when timeout seconds (as a delay is given) have passed first; RuntimeError when
        the heap is closed, and in the child of a fork when the timer was armed before it: there
        reset() arms it anew. On a stopped timer it waits for a reset. The GIL is released, signal
        handlers run, and an exception in one ends the wait.
        """
        cdef PyObject* channel = <PyObject*>self
        cdef double value = 0
        receive(&channel, 1, timeout, False, &value, b"Channel.recv() timeout", "Channel.recv()")
        return value

    def poll(self):
        """The deadline in seconds if the timer has expired and was not received, else None. Never
        waits.
        """
        cdef int64_t when = 0, now
        cdef bint taken
        now = th_due(self.ch.core)
        th_chan_lock()
        taken = chan_take(&self.ch, now, &when)
        th_chan_unlock()
        return to_seconds(when) if taken else None

    def __await__(self):
        """recv() in a coroutine of asyncio's: no thread waits. When it is cancelled, the value stays.
        """
        return await_channels((self,))

    def __repr__(self):
        return f"<timerheap.Channel {'live' if chan_active(&self.ch) else 'idle'}>"

    def __reduce__(self):
        raise TypeError("cannot copy or pickle 'Channel' objects")


cdef Channel new_channel(TimerHeap heap):
    cdef Channel channel = Channel.__new__(Channel)
    channel.heap = heap
    channel.ch.core = heap.core
    th_count(&heap.core.channels, 1)
    if heap.core.manual:
        enrol(<ManualHeap>heap, &channel.ch)
    return channel
