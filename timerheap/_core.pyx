# cython: language_level=3, binding=False, embedsignature=True, embedsignature.format=clinic
# cython: boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
# cython: freethreading_compatible=True
"""The native core of timerheap: one extension module in parts, each concept a file with its name.

Each part uses only what stands above it. Two things are declared ahead: the fields of the classes, in _core.pxd, for
the parts that work on objects stand above those that make them; and timerproc, which the thread calls by th_timerproc.

    csrc/, without Python; beside each header its declarations for Cython (.pxd)

    compiler.h        what compilers have beyond C, for Cython
    tuning.h          numbers that measurement chose
    platform.h        what differs from one system to another, with             <- the clock is read
                      platform_linux.h or platform_posix.h
    clock.h           nanoseconds: saturating arithmetic, conversion
    timer.h           the 40-byte timer record, its states and who guards them; a glossary
    pages.h           memory from the kernel
    slab.h            slots of one size in it
    array.h           the 24-byte cells of TimerArrays in it
    core.h            one heap's native state, its mutex, how the worker parks
    word.h            words to wait for
    post.h            the worker's thread, from its start to its end
    channel.h         channel timers and their blocked receivers                <- receivers are woken
    fork.h            the locks around a fork

    timerheap/core/, without Python, translated as they stand by tests/native as well

    heap.pxi          the 4-ary heap: siftup, siftdown                          <- deadlines are compared
    check.pxi         its invariants, by brute force
    states.pxi        a record's states: arm, rearm, stop, let go, settle       <- a timer's state changes
    run.pxi           what is due: collect, sort
    cells.pxi         what a TimerArray arms and stops, by the piece
    park.pxi          the worker's sleep, and the standby's                     <- the worker sleeps

    timerheap/core/, with it

    interpreter.h     what is taken of CPython's insides, and by whom
    gil.c, gil.h      asking a thread that computes for the GIL                 <- the GIL is asked for
    durations.pxi     seconds to nanoseconds
    arguments.pxi     what wrong calls are told
    columns.pxi       slots and durations by the million
    misnomers.pxi     what wrong names are told
    process.pxi       the process: its heaps, its main thread, its end
    handles.pxi       the memory of Timer objects, and what the collector is shown
    callbacks.pxi     calling back, and where errors go
    jobs.pxi          callbacks for an executor                                 <- a job is called off
    chunks.pxi        what is due of a TimerArray                               <- an array is called
    thread.pxi        the worker's thread: start, end, exit
    worker.pxi        timerproc: launch, fire, hand over                        <- callbacks run
    fork.pxi          what a fork takes of Python, csrc/fork.h having the rest  <- a fork is handled
    bells.pxi         telling coroutines                                        <- a coroutine is woken
    channel_states.pxi  a channel's states: arm, take, stop                     <- a channel timer's as well
    pending.pxi       a snapshot of what is armed
    timerheap.pxi     TimerHeap
    loop_heap.pxi     LoopHeap: the heap of an event loop                       <- a loop's callbacks run
    manual_clock.pxi  the clock of a ManualHeap, and who turns it               <- virtual time moves
    default.pxi       the default heap
    watches.pxi       the deadlines that a blocked receiver watches
    receive.pxi       looking, waiting in line, receiving                       <- receivers sleep
    channel.pxi       Channel
    timer.pxi         Timer, after
    afterfunc.pxi     AfterFunc, every
    array.pxi         TimerArray
    ticker.pxi        Ticker, tick
    select.pxi        select, sleep
    loop_channels.pxi await channel, async for                                  <- coroutines wait
    manual.pxi        ManualHeap, and what it shows the collector
    loop_handles.pxi  the handles of an event loop's timers
    loop_timers.pxi   LoopTimers, the timers of an event loop                   <- the loop calls back
    loop_waits.pxi    timeout and sleep in a task
    finish.pxi        slots, signatures, hooks
"""

from cpython.object cimport Py_GT, PyObject, PyTypeObject, destructor, inquiry, traverseproc, visitproc
from libc.errno cimport errno
from libc.math cimport INFINITY, NAN
from libc.stdint cimport INT64_MIN, int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdio cimport fprintf, snprintf, stderr
from libc.stdlib cimport abort, calloc, free, malloc, qsort
from libc.string cimport memcpy, memmove, memset, strchr

import atexit
import os
import sys
import threading
import weakref
from _collections_abc import AsyncGenerator, Coroutine, Generator, Mapping
from array import array as array_of
from types import GenericAlias

cimport cython

DEBUG = bool(DEBUG_BUILD)
PORTABLE = bool(PORTABLE_BUILD)     # by POSIX alone, see csrc/platform.h
EPOLL = bool(HAS_EPOLL)

include "core/heap.pxi"
include "core/check.pxi"
include "core/states.pxi"
include "core/run.pxi"
include "core/cells.pxi"
include "core/park.pxi"
include "core/durations.pxi"
include "core/arguments.pxi"
include "core/columns.pxi"
include "core/misnomers.pxi"
include "core/process.pxi"
include "core/handles.pxi"
include "core/callbacks.pxi"
include "core/jobs.pxi"
include "core/chunks.pxi"
include "core/thread.pxi"
include "core/worker.pxi"
include "core/fork.pxi"
include "core/bells.pxi"
include "core/channel_states.pxi"
include "core/pending.pxi"
include "core/timerheap.pxi"
include "core/loop_heap.pxi"
include "core/manual_clock.pxi"
include "core/default.pxi"
include "core/watches.pxi"
include "core/receive.pxi"
include "core/channel.pxi"
include "core/timer.pxi"
include "core/afterfunc.pxi"
include "core/array.pxi"
include "core/ticker.pxi"
include "core/select.pxi"
include "core/loop_channels.pxi"
include "core/manual.pxi"
include "core/loop_handles.pxi"
include "core/loop_timers.pxi"
include "core/loop_waits.pxi"
include "core/finish.pxi"
