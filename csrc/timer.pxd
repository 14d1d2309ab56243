from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t

cdef extern from "timer.h" nogil:
    enum:
        TH_IDLE
        TH_ARMED
        TH_DUE
        TH_ARGS_ONE
        TH_ARGS_BLOCK
        TH_CHANNEL
        TH_ORPHAN
        TH_CARCASS
        TH_PINNED
        TH_KEYED
        TH_RISING
        TH_PERIODIC
        TH_CANCELLED
        TH_SHARED
        TH_HIDDEN
        TH_CALLING
        TH_CELL
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
    uint16_t th_flags(const th_timer* t)
    uint16_t th_fixed_flags(const th_timer* t)
    uint16_t th_state(const th_timer* t)
    void th_mark(th_timer* t, uint16_t flag)
    void th_unmark(th_timer* t, uint16_t flag)
    uint64_t th_seq(const th_timer* t)
    void th_set_seq(th_timer* t, uint64_t seq)
    bint th_leave_armed(th_timer* t, uint16_t to)
    ctypedef struct th_key:
        int64_t when
        th_timer* timer
    ctypedef struct th_block:
        void* context
        size_t nargs
        void** items
    ctypedef struct th_periodic:
        int64_t period
        uint64_t running
    th_periodic* th_periodic_of(const th_timer* t)
