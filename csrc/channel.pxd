from libc.stdint cimport int64_t, uint32_t, uint64_t

from core cimport th_core

cdef extern from "channel.h" nogil:
    ctypedef struct th_waiter
    ctypedef struct th_chan:
        th_core* core
        int64_t when
        int64_t period
        uint32_t epoch
        uint32_t live
    ctypedef struct th_node:
        th_node* prev
        th_node* next
        th_chan* chan
        th_waiter* waiter
        size_t place
    ctypedef struct th_watch:
        int64_t when
        th_node* node
    ctypedef struct th_group:
        th_group* next
        th_core* core
        th_waiter* waiter
        uint64_t mark
    ctypedef struct th_bell:
        th_bell* next
        void* object
    ctypedef struct th_waiter:
        th_node* nodes
        size_t count
        th_group* groups
        size_t heaps
        th_watch* watches
        size_t watched
        th_node* changed
        bint again
        th_core* clock
        int64_t until
        th_bell* bell
    uint32_t th_forks
    size_t th_longest_slice()
    void th_assert_chan_held()
    void th_chan_lock()
    void th_chan_unlock()
    void th_chan_offer()
    size_t th_random_below(size_t n)
    void th_arrive(th_waiter* w)
    size_t th_join_line(th_node* node)
    bint th_leave_line(th_node* node)
    void th_join_ring(th_group* g)
    void th_leave_ring(th_group* g)
    bint th_bells()
    th_bell* th_take_bells()
    bint th_wake(th_waiter* w)
    bint th_note(th_node* node)
    bint th_note_head(th_chan* ch)
    th_node* th_next_changed(th_waiter* w)
    void th_rearm_wait(th_waiter* w)
    bint th_asleep(const th_waiter* w)
    void th_stay_awake(th_waiter* w)
    th_bell* th_take_bell(th_waiter* w)
    int th_wait(th_waiter* w, int64_t deadline)
    unsigned long th_slack_fine()
    void th_slack_restore(unsigned long slack)
    bint th_chan_live(const th_chan* ch)
