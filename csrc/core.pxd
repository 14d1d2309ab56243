from libc.stdint cimport int64_t, uint32_t, uint64_t

from array cimport th_arrays
from slab cimport th_slab
from timer cimport th_key, th_timer

cdef extern from "core.h" nogil:
    const size_t TH_KEY_PAD
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
        th_arrays arrays
        th_key* run
        size_t run_len
        size_t run_cap
        size_t run_head
        uint64_t runs
        size_t run_peak
        uint64_t seq
        uint64_t inherited
        uint64_t dropped
        uint64_t fired
        uint64_t cancelled
        size_t live
        size_t peak
        uint64_t rekeyed
        uint64_t wakeups
        uint64_t batches
        uint64_t longest
        int64_t late_max
        size_t errors
        size_t handles
        size_t channels
        uint64_t chan_arms
        uint64_t received
        uint64_t chan_cancelled
        uint64_t ticks
        uint64_t chan_dropped
        size_t chan_live
        size_t tickers
        uint32_t epoch
        int closed
        int exiting
        int running
        int ready
        void* post          # th_post*, see post.pxd, and so is spare
        void* spare
        int asleep
        void* losers
        uint64_t handovers
        int detached
        int pausing
        int parked
        int firing
        int readers
        void* kept
        int sorting
        int left_holding
        uint32_t generation
        int64_t patience
        int64_t tolerance
        int driven
        int manual
        uint64_t driver
        uint64_t advancer
        int closing
        void* ring          # th_group*, see channel.pxd
        uint64_t turns
    uint64_t th_thread()
    int64_t th_now(th_core* c)
    int64_t th_due(th_core* c)
    void th_note_late(th_core* c, int64_t when)
    void th_set_due(th_core* c, int64_t due)
    void th_set_manual(th_core* c, int64_t now)
    void th_limit_due(th_core* c, int64_t when)
    void th_assert_held(th_core* c)
    void th_lock(th_core* c)
    void th_unlock(th_core* c)
    void th_lock_alone(th_core* c)
    void th_unlock_alone(th_core* c)
    void th_give_way(th_core* c)
    bint th_worker_waits(th_core* c)
    void th_yield_lock(th_core* c)
    void th_init_locks(th_core* c)
    void th_destroy_locks(th_core* c)
    void th_core_unmap(th_core* c)
    void th_core_free(th_core* c)
    void th_park(th_core* c, int64_t wake_at)
    void th_signal(th_core* c)
    void th_stand_by(th_core* c, int64_t until)
    void th_rouse(th_core* c)
    void th_signal_all(th_core* c)
    size_t th_next_entry(th_core* c)
    size_t th_run_head(const th_core* c)
    uint32_t th_generation(const th_core* c)
    void th_nap()
    void th_count(size_t* counter, int by)
    size_t th_counted(const size_t* counter)
