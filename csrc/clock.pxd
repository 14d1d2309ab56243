from libc.stdint cimport int64_t, uint64_t

cdef extern from "clock.h" nogil:
    int64_t th_deadline(int64_t now, int64_t delay)
    int64_t th_next_tick(int64_t when, int64_t period, int64_t now)
    uint64_t th_missed_ticks(int64_t when, int64_t period, int64_t now)
    double th_to_seconds(int64_t when)
    int64_t th_from_seconds(double v)
    int64_t th_last_shown(int64_t when, double seconds)
