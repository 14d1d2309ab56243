from libc.stdint cimport int64_t

cdef extern from "gil.h":
    bint th_examine_gil(double interval)
    int64_t th_switch_interval() noexcept nogil
    void th_ask_for_gil() noexcept nogil
    void th_ask_no_more() noexcept nogil
