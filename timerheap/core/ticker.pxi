# Ticker: a channel that delivers again and again; tick.

@cython.final
@cython.no_gc
cdef class Ticker:
    """Delivers a value on its channel, c, every period seconds, first after one period. The values
    are deadlines, exactly on the grid start + k * period.

    A slow receiver finds one tick, the oldest it has not received; those after it up to now are
    dropped. period is a positive duration, else ValueError. Iterating receives ticks until the
    Ticker is stopped, and raises as Channel.recv does in the child of a fork; as a context manager
    it is stopped at the end of the block.
    """

    def __cinit__(self, period, *, heap=None):
        cdef int64_t ns = positive_period(period, b"Ticker() period")
        cdef TimerHeap home = heap_or_default(heap, "Ticker()")
        self.channel = new_channel(home)
        chan_arm(&self.channel.ch, ns, ns, True)

    @property
    def c(self):
        """The Channel, the same across resets."""
        return self.channel

    @property
    def period(self):
        """Seconds between ticks."""
        cdef int64_t ns
        th_chan_lock()
        ns = self.channel.ch.period
        th_chan_unlock()
        return deadline_or_inf(ns)

    def stop(self):
        """No more ticks; one that was not received is gone. May be called again, and undone by
        reset.
        """
        chan_stop(&self.channel.ch)

    @cython.embedsignature(False)
    def reset(self, period=MISSING):
        """reset($self, period)\n--\n
        Begin anew with another period: the next tick comes one period from now. Raises as the
        constructor does, and leaves the Ticker as it was then.
        """
        cdef int64_t ns = positive_period(period, b"Ticker.reset() period")
        chan_arm(&self.channel.ch, ns, ns, True)

    def __iter__(self):
        return self

    def __next__(self):
        cdef PyObject* channel = <PyObject*>self.channel
        cdef double value = 0
        if receive(&channel, 1, None, True, &value, NULL, "iteration over a Ticker") == <size_t>-1:
            raise StopIteration
        return value

    def __aiter__(self):
        return self

    def __anext__(self):
        return await_next(self.channel)

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        chan_stop(&self.channel.ch)

    def __repr__(self):
        return f"<timerheap.Ticker every {self.period} s, {'running' if chan_active(&self.channel.ch) else 'stopped'}>"

    def __reduce__(self):
        raise TypeError("cannot copy or pickle 'Ticker' objects")


def tick(period, *, heap=None):
    """Ticker(period, heap=heap).c: a channel that delivers a value every period seconds until it is dropped.
    """
    cdef int64_t ns = positive_period(period, b"tick() period")
    cdef Channel channel = new_channel(heap_or_default(heap, "tick()"))
    chan_arm(&channel.ch, ns, ns, True)
    return channel
