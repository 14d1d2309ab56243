# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The heap without Python: the very files of it that the library includes, and a handle on them for C.

The native_ functions are what the harnesses call. Each is one function of timerheap/core, under the name that it has
there. Nothing here runs Python; the module that Cython wraps around it is never imported.

What is free-threaded in the library is the same here: states change under the mutex alone.
"""

from libc.stdint cimport INT64_MIN, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdio cimport fprintf, stderr
from libc.stdlib cimport abort, qsort
from libc.string cimport memcpy, memmove, memset

from array cimport *
from clock cimport *
from compiler cimport *
from core cimport *
from pages cimport *
from platform cimport *
from post cimport *
from slab cimport *
from timer cimport *
from tuning cimport *

cdef enum:
    DEBUG_BUILD = 1
    FREE_THREADED = 1

include "../../timerheap/core/heap.pxi"
include "../../timerheap/core/check.pxi"
include "../../timerheap/core/states.pxi"
include "../../timerheap/core/run.pxi"
include "../../timerheap/core/cells.pxi"
include "../../timerheap/core/park.pxi"


cdef public bint native_init(th_core* c) noexcept nogil:
    """TimerHeap.__cinit__, after the locks."""
    return resize_keys(c, th_page) and reserve_run(c, 1)


cdef public const char* native_check(th_core* c, size_t* index, int64_t* left, int64_t* right) noexcept nogil:
    """check_heap: what is wrong, or NULL."""
    cdef fault f
    if check_heap(c, &f):
        return NULL
    index[0] = f.index
    left[0] = f.left
    right[0] = f.right
    return f.what


cdef public size_t native_resident(th_core* c) noexcept nogil:
    return native_bytes(c)


cdef public bint native_arm(th_core* c, th_timer* t, int64_t when, bint* wake) noexcept nogil:
    cdef arming a
    cdef bint armed = arm_record(c, t, when, &a)
    wake[0] = a.wake
    return armed


cdef public bint native_reset(th_core* c, th_timer* t, int64_t when, bint* wake) noexcept nogil:
    cdef arming a
    cdef bint armed = rearm_record(c, t, when, &a)
    wake[0] = a.wake
    return armed


cdef public bint native_postpone(th_core* c, th_timer* t, int64_t when, bint* wake) noexcept nogil:
    cdef arming a
    cdef bint armed = postpone_record(c, t, when, &a)
    wake[0] = a.wake
    return armed


cdef public bint native_periodic(th_core* c, th_timer* t, int64_t when, int64_t period, bint revive,
                                 bint* wake) noexcept nogil:
    """rearm_periodic."""
    cdef arming a
    cdef bint armed = rearm_periodic(c, t, when, period, revive, &a)
    wake[0] = a.wake
    return armed


cdef public bint native_stop(th_core* c, th_timer* t) noexcept nogil:
    cdef bint idle
    return stop_record(c, t, &idle)


cdef public bint native_let_go(th_core* c, th_timer* t, th_timer** orphan) noexcept nogil:
    """let_go: True if the handle's memory may be freed; orphan is the slot that the record has moved to, or NULL."""
    cdef bint armed = t.state == TH_ARMED
    cdef bint free = let_go(c, t)
    orphan[0] = c.keys[t.pos].timer if armed and free else NULL
    return free


cdef public th_timer* native_launch(th_core* c, bint fire, bint* fired, bint* freed) noexcept nogil:
    """settle. freed: the record was an orphan or a carcass, and its memory is to be freed (native_free_slot, for an
    orphan)."""
    cdef uint16_t was
    cdef bint idle
    cdef th_timer* t = settle(c, fire, &was, &idle)
    fired[0] = was == TH_DUE
    freed[0] = t.flags & (TH_ORPHAN | TH_CARCASS) != 0 and was != TH_ARMED
    return t


cdef public bint native_go_on(th_core* c, int64_t now, uint64_t* number) noexcept nogil:
    """go_on. False when there is no memory. number: 0 when the call is skipped, UINT64_MAX when the entry is void."""
    cdef int goes
    number[0] = 0
    goes = go_on(c, now, number)
    if goes == GOES_VOID:
        number[0] = <uint64_t>-1
    return goes != GOES_NOWHERE


cdef public void native_free_slot(th_core* c, th_timer* t) noexcept nogil:
    """free_record, of an orphan."""
    th_slab_free(&c.orphans, t, sizeof(th_timer))


cdef public void native_empty_run(th_core* c) noexcept nogil:
    empty_run(c)


cdef public void native_collect(th_core* c, int64_t now) noexcept nogil:
    collect(c, now)


cdef public void native_sort(th_core* c) noexcept nogil:
    sort_run(c)


cdef public void native_sweep(th_core* c) noexcept nogil:
    sweep(c)


cdef public th_timer* native_cancel_last(th_core* c) noexcept nogil:
    """A turn of let_all_go, but for what it frees."""
    cdef th_timer* t = cancel_last(c)
    cdef th_array* a
    if t != NULL and t.flags & TH_CELL:
        a = th_owner(&c.arrays, t)
        a.armed -= 1
        release_if_idle(a)
    return t


cdef public bint native_arm_cells(th_core* c, th_array* a, const uint32_t* slots, size_t n, const int64_t* whens,
                                  int64_t when, bint revive, uint8_t* out, size_t* were, bint* wake) noexcept nogil:
    """A piece of change_column, in array.pxi, under its hold of M."""
    cdef piece p
    cdef bint armed
    p.were = 0
    p.earliest = TH_NEVER
    armed = arm_cells(c, a, slots, n, whens, when, revive, out, &p)
    were[0] = p.were
    hold_array(a)
    wake[0] = c.live > 0 and precedes_wake(c, p.earliest)
    return armed


cdef public bint native_arm_cell(th_core* c, th_array* a, uint32_t slot, int64_t when, bint revive, bint* was,
                                 bint* wake) noexcept nogil:
    """change_one, likewise."""
    cdef bint armed = arm_cell(c, a, slot, when, revive, was)
    hold_array(a)
    wake[0] = c.live > 0 and precedes_wake(c, when if armed and (was[0] or revive) else TH_NEVER)
    return armed


cdef public size_t native_stop_cells(th_core* c, th_array* a, const uint32_t* slots, size_t n,
                                     uint8_t* out) noexcept nogil:
    cdef size_t stopped = stop_cells(c, a, slots, n, out)
    release_if_idle(a)
    return stopped


cdef public bint native_stop_cell(th_core* c, th_array* a, uint32_t slot) noexcept nogil:
    cdef bint stopped = stop_cell(c, a, slot)
    release_if_idle(a)
    return stopped


cdef public void native_look_at_cells(th_core* c, th_array* a, const uint32_t* slots, size_t n, uint8_t* active,
                                      int64_t* whens) noexcept nogil:
    look_at_cells(c, a, slots, n, active, whens)


cdef public th_array* native_launch_cell(th_core* c, bint fire, bint* fired) noexcept nogil:
    """settle_cell, of a run entry that is a cell's: the array, or NULL if the entry is void."""
    cdef uint16_t was
    cdef bint idle
    cdef th_array* a = settle_cell(c, fire, &was, &idle)
    fired[0] = was == TH_DUE
    if a != NULL:
        release_if_idle(a)
    return a


cdef public bint native_end_array(th_core* c, th_array* a) noexcept nogil:
    """TimerArray.__dealloc__: True if the memory may be freed."""
    cdef size_t at = a.top
    while not entomb_cells(c, a, &at):
        th_yield_lock(c)
    return end_array(c, a)


cdef public bint native_next_run(th_post* post) noexcept nogil:
    return next_run(post)


cdef public bint native_stand_by(th_post* post, void* seen) noexcept nogil:
    return stand_by(post, <progress*>seen)
