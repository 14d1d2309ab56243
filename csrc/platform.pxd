from libc.stdint cimport int64_t, uint32_t

cdef extern from "platform.h" nogil:
    const bint PORTABLE_BUILD "TH_PORTABLE"
    const int64_t SIGNALS_EVERY "TH_SIGNALS_EVERY"
    int th_await_word(const uint32_t* word, uint32_t value, int64_t deadline)
