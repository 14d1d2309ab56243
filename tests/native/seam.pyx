# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The heap as C functions: _heap.pxi as the library includes it, and what little stands around it.

The declarations are those of _core.pyx as far as _heap.pxi needs them; the constants come from there through hooks.h.
The native_ functions are what the harnesses call: either one function of _heap.pxi, or the locked section of one of
the library's, which is named there. Nothing here runs Python; the module that Cython wraps around it is never imported.
"""

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from libc.stdio cimport fprintf, stderr
from libc.stdlib cimport abort, qsort
from libc.string cimport memcpy, memset

cdef extern from *:
    """
    #include "hooks.h"
    #define th_prefetch(p) __builtin_prefetch((p), 1)
    """
    void prefetch "th_prefetch"(const void* p) noexcept nogil
    const size_t INSERTION_MAX
    const size_t PREFETCH
    const size_t POP_SLICE
    const size_t SCAN_SLICE
    const size_t RUN_KEPT
    const size_t JUST_ARMED
    const size_t STOPS_A_SLICE
    const size_t SWEEP_SLICE

cdef extern from "timer.h" nogil:
    enum:
        TH_IDLE
        TH_ARMED
        TH_DUE
        TH_ORPHAN
        TH_CARCASS
        TH_PINNED
        TH_KEYED
        TH_RISING
    ctypedef struct th_timer:
        uint32_t pos
        uint16_t state
        uint16_t flags
        int64_t when
        uint64_t seq
        void* func
        void* args
    void th_unkeyed(th_timer* t)
    void th_risen(th_timer* t)
    void th_mark(th_timer* t, uint16_t flag)
    void th_unmark(th_timer* t, uint16_t flag)
    uint16_t th_state(const th_timer* t)
    uint64_t th_seq(const th_timer* t)
    void th_set_seq(th_timer* t, uint64_t seq)
    bint th_leave_armed(th_timer* t, uint16_t to)
    ctypedef struct th_key:
        int64_t when
        th_timer* timer

cdef extern from "clock.h" nogil:
    const int64_t TH_NEVER
    int64_t INT64_MIN

cdef extern from "pages.h" nogil:
    const size_t th_page
    size_t th_whole_pages(size_t size)
    void th_unmap(void* base, size_t size)
    void* th_remap(void* base, size_t old, size_t size)

cdef extern from "slab.h" nogil:
    ctypedef struct th_slab:
        size_t used
    void* th_slab_alloc(th_slab* slab, size_t size)
    void th_slab_free(th_slab* slab, void* slot, size_t size)
    void th_slab_end(th_slab* slab)
    size_t th_slab_bytes(const th_slab* slab, size_t size)

cdef extern from "core.h" nogil:
    const size_t TH_KEY_PAD
    const size_t TH_RISERS
    const size_t KEYS_MAX "TH_KEYS_MAX"
    ctypedef struct th_core:
        int64_t wake_at
        th_key* keys
        size_t len
        size_t cap
        size_t key_bytes
        size_t key_peak
        size_t stops
        size_t buried
        size_t sweep_at
        th_timer tomb
        th_timer** risers
        size_t rising
        th_slab orphans
        th_key* run
        size_t run_len
        size_t run_cap
        size_t run_head
        size_t run_peak
        uint64_t seq
        uint64_t fired
        uint64_t cancelled
        size_t live
        size_t peak
        uint64_t rekeyed
        uint64_t batches
        uint64_t longest
        int closed
        int running
        int pausing
        int sorting
    int64_t th_now(th_core* c)
    void th_lock(th_core* c)
    void th_unlock(th_core* c)
    void th_yield_lock(th_core* c)
    void th_park(th_core* c, int64_t wake_at)

cdef enum:
    DEBUG_BUILD = 1

include "../../timerheap/_heap.pxi"


# ---- the harness's handle on it -------------------------------------------------------------------------------------

cdef public bint native_init(th_core* c) noexcept nogil:
    """TimerHeap.__cinit__, after the locks."""
    return resize_keys(c, th_page) and reserve_run(c, 1)


cdef public void native_free(th_core* c) noexcept nogil:
    """TimerHeap.__dealloc__, when no timer is left."""
    th_unmap(c.keys - TH_KEY_PAD if c.keys != NULL else NULL, c.key_bytes)
    th_unmap(c.run, run_bytes(c))
    th_slab_end(&c.orphans)


cdef public const char* native_check(th_core* c, size_t* index, int64_t* left, int64_t* right) noexcept nogil:
    """TimerHeap.check: what is wrong, or NULL."""
    cdef fault f
    debug_check(c)
    if check_heap(c, &f):
        return NULL
    index[0] = f.index
    left[0] = f.left
    right[0] = f.right
    return f.what


cdef public size_t native_resident(th_core* c) noexcept nogil:
    return native_bytes(c)


cdef public bint native_arm(th_core* c, th_timer* t, int64_t when, bint* wake) noexcept nogil:
    """The locked section of arm."""
    cdef bint armed = not c.closed and push(c, t, when)
    wake[0] = armed and precedes_wake(c, when)
    return armed


cdef public bint native_reset(th_core* c, th_timer* t, int64_t when, bint* wake) noexcept nogil:
    """The locked section of rearm."""
    cdef bint armed = True
    if c.closed:
        armed = False
    elif t.flags & TH_KEYED:
        postpone(c, t, when)
    else:
        armed = grow_keys(c)
        if armed:
            cancel(c, t)
            push(c, t, when)
    wake[0] = armed and precedes_wake(c, when)
    return armed


cdef public bint native_stop(th_core* c, th_timer* t) noexcept nogil:
    """Timer.stop, which takes the mutex only for what clear_away may do, where there is a GIL."""
    if not cancel(c, t):
        return False
    clear_away(c, t)
    return True


cdef public bint native_let_go(th_core* c, th_timer* t, th_timer** orphan) noexcept nogil:
    """timer_let_go: True if the handle's memory may be freed; orphan gets the slot that the record moved to, or
    NULL."""
    orphan[0] = NULL
    entomb(c, t)
    if t.state == TH_IDLE and not t.flags & TH_PINNED:
        return True
    if t.state == TH_ARMED and not t.flags & TH_PINNED:
        orphan[0] = <th_timer*>th_slab_alloc(&c.orphans, sizeof(th_timer))
        if orphan[0] != NULL:
            orphan[0][0] = t[0]
            orphan[0].flags |= TH_ORPHAN
            c.keys[t.pos].timer = orphan[0]
            th_unkeyed(t)
            t.state = TH_IDLE
            return True
    th_mark(t, TH_CARCASS)
    return False


cdef public th_timer* native_launch(th_core* c, bint fire, bint* fired, bint* freed) noexcept nogil:
    """launch, the changes of state: settles the next run entry. freed: the record was an orphan or a carcass, and its
    memory is to be freed (native_free_slot, for an orphan)."""
    cdef th_timer* t = c.run[c.run_head].timer
    cdef uint16_t state = t.state
    c.run_head += 1
    th_unmark(t, TH_PINNED)
    fired[0] = state == TH_DUE
    if fired[0]:
        t.state = TH_IDLE
        c.live -= 1
        if fire:
            c.fired += 1
        else:
            c.cancelled += 1
    freed[0] = t.flags & (TH_ORPHAN | TH_CARCASS) != 0 and state != TH_ARMED
    return t


cdef public void native_free_slot(th_core* c, th_timer* t) noexcept nogil:
    """free_record, of an orphan."""
    th_slab_free(&c.orphans, t, sizeof(th_timer))


cdef public void native_empty_run(th_core* c) noexcept nogil:
    """empty_run."""
    c.run_head = c.run_len = 0
    trim_run(c)


cdef public void native_collect(th_core* c, int64_t now) noexcept nogil:
    collect(c, now)


cdef public void native_sort(th_core* c) noexcept nogil:
    sort_run(c)


cdef public void native_sweep(th_core* c) noexcept nogil:
    sweep(c)


cdef public th_timer* native_cancel_last(th_core* c) noexcept nogil:
    """let_all_go: the timer of the last key, cancelled, or NULL."""
    return cancel_last(c)


cdef public bint native_next_run(th_core* c) noexcept nogil:
    """next_run, but for the signal mask: park until something is due and make it the run."""
    th_lock(c)
    while not (c.closed or c.pausing):
        collect(c, th_now(c))
        if c.run_len:
            sort_run(c)
            c.batches += 1
            if c.run_len > c.longest:
                c.longest = c.run_len
            th_unlock(c)
            return True
        if c.closed or c.pausing:
            break
        th_park(c, c.keys[0].when if c.len else TH_NEVER)
    c.running = False
    th_unlock(c)
    return False
