# Names that others have for it: what somebody is told who takes a Timer, a Ticker or a Channel for another library's.
#
# __getattr__ would be the place to help, but a type with one pays at every attribute that it has: CPython's quick way
# to call a method is for types without. So the names are found, as descriptors that say what to take instead. They are
# in a class of the __mro__ that is not among the bases: dir(), completion and mock's specs do not know them. Protocols,
# which ask whether a Timer can be closed, look into each __dict__ of the __mro__: that class has none to show.

@cython.final
cdef class Misnomer:
    """An attribute that is not there, for whose name there is another."""

    cdef str name
    cdef str instead

    def __init__(self, name, instead):
        self.name = name
        self.instead = instead

    def __get__(self, instance, owner):
        if instance is None:
            raise AttributeError(f"type object 'timerheap.{owner.__name__}' has no attribute {self.name!r}")
        raise AttributeError(f"'timerheap.{owner.__name__}' object has no attribute {self.name!r}: {self.instead}")

    def __set__(self, instance, value):
        self.__get__(instance, type(instance))

    def __delete__(self, instance):
        self.__get__(instance, type(instance))


cdef int add_misnomers(type cls, dict names) except -1:
    """To a final class: a subclass could have attributes of these names."""
    fields = {name: Misnomer(name, instead) for name, instead in names.items()}
    unlisted = type("Unlisted", (type,), {"__module__": "timerheap", "__dict__": property(lambda cls: {})})
    mro = (cls, unlisted("Misnomers", (), {"__module__": "timerheap", "__slots__": (), **fields}), object)
    incref(<PyObject*>mro)
    decref(change_mro(<PyTypeObject*>cls, <PyObject*>mro))
    return 0


cdef PyObject* no_iterator(PyObject* self) except NULL:
    """tp_iter. By the slot alone: hasattr(x, "__iter__") stays False."""
    raise TypeError(f"'timerheap.{type(<object>self).__name__}' object is not iterable: a Ticker is, and a channel's "
                    "recv() waits for one value")


cdef dict TIMER_MISNOMERS = {
    "cancel": "stop() cancels a timer",
    "close": "stop() cancels a timer",
    "Stop": "it is called stop",
    "start": "a timer runs from its making, and again from reset(delay)",
    "restart": "reset(delay) arms a timer anew",
    "Reset": "it is called reset",
    "is_alive": "active tells whether it is pending",
    "cancelled": "active tells whether it is pending",
    "done": "active tells whether it is pending",
    "join": "it is no thread; timer.c.recv() waits for a channel timer",
    "daemon": "it is no thread; the one that serves all timers is a daemon",
    "deadline": "it is called when",
    "function": "it is called func",
    "callback": "it is called func",
    "kwargs": "what its function gets are args; keywords go through functools.partial",
    "C": "its channel is called c",
    "recv": "receive from its channel, timer.c.recv()",
    "poll": "receive from its channel, timer.c.poll()",
}
cdef dict TICKER_MISNOMERS = {
    "cancel": "stop() ends the ticks",
    "close": "stop() ends the ticks",
    "Stop": "it is called stop",
    "start": "a Ticker runs from its making, and again from reset(period)",
    "restart": "reset(period) begins anew",
    "Reset": "it is called reset",
    "interval": "it is called period",
    "join": "it is no thread; iterating waits for its ticks",
    "daemon": "it is no thread",
    "C": "its channel is called c",
    "recv": "receive from its channel, ticker.c.recv(), or iterate",
    "poll": "receive from its channel, ticker.c.poll()",
}
cdef dict CHANNEL_MISNOMERS = {
    "get": "recv() waits for the value",
    "receive": "it is called recv",
    "wait": "recv() waits for the value",
    "get_nowait": "poll() gives the value or None",
    "recv_nowait": "poll() gives the value or None",
    "send": "timers alone send",
    "put": "timers alone send",
    "close": "stop() of its timer ends it",
    "stop": "its timer has stop(); a channel goes when it is dropped",
}
