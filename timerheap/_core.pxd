# What all parts of the core share: the declarations of its headers, and the fields of its objects.

cimport cython

from array cimport *
from channel cimport *
from clock cimport *
from compiler cimport *
from core cimport *
from fork cimport *
from gil cimport *
from interpreter cimport *
from loop cimport *
from pages cimport *
from platform cimport *
from post cimport *
from slab cimport *
from timer cimport *
from tuning cimport *
from word cimport *


cdef class TimerHeap:
    cdef th_core* core
    cdef readonly str name
    cdef object executor
    cdef object hook          # its on_error
    cdef object reference     # a weak one to this heap, in all_heaps
    cdef set jobs             # what the executor has, see jobs.pxi
    cdef object leaving       # of a driven heap: what a callback has raised that leaves the turn; of its thread
    cdef object __weakref__


cdef class ManualHeap(TimerHeap):
    cdef bint moves           # its auto: whoever drives it and would wait moves the clock
    cdef th_chan** roster     # its channels, see manual_clock.pxi; this and the next two: guard its critical section
    cdef size_t room          # places of the roster, a power of two, or none yet
    cdef size_t enrolled      # so many are taken


@cython.final
cdef class LoopHeap(TimerHeap):
    cdef object loop          # a weak reference to the event loop
    cdef object handle        # of the turn that the loop has planned, or None; the loop's thread's, as is the next
    cdef int64_t handle_at    # when that comes
    cdef set waiters          # weak references to what coroutines of the loop wait with in the lines of channels


@cython.final
cdef class Timer:
    cdef readonly TimerHeap heap
    cdef th_timer t


@cython.final
cdef class TimerArray:
    cdef readonly TimerHeap heap
    cdef th_array* array
    cdef object function
    cdef object __weakref__


@cython.final
@cython.no_gc
cdef class Channel:
    # No collector: a channel refers to its heap alone, and a million of them should cost a collection nothing.
    cdef TimerHeap heap
    cdef th_chan ch


@cython.final
@cython.no_gc
cdef class Ticker:
    cdef Channel channel


cdef class LoopTimers:
    cdef th_loop* loop
    cdef readonly object owner      # the event loop
    cdef readonly bint closed
    cdef public bint announced      # the loop's selector has told it that something is due
    cdef bint native_clock          # its time() is asyncio's own
    cdef unsigned int version  # of its type, when that was looked at
    cdef dict attributes            # the loop's
    cdef dict time_module, base_module
    cdef object time, monotonic
    cdef int set_names(self, dict attributes, dict time_module, dict base_module) except -1
    cdef object snapshot            # of the context in which something was armed last, or None
    cdef object __weakref__


@cython.final
cdef class LoopHandle:
    cdef LoopTimers timers
    cdef th_timer t
    cdef PyObject* context
    cdef PyObject* notes
    cdef object __weakref__
