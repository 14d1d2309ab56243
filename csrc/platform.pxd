from libc.stdint cimport int64_t

cdef extern from "platform.h" nogil:
    const bint PORTABLE_BUILD "TH_PORTABLE"
    const int64_t SIGNALS_EVERY "TH_SIGNALS_EVERY"
