cdef extern from "gil.h":
    bint th_examine_gil(double interval)
    void th_ask_for_gil() noexcept nogil
    void th_ask_no_more() noexcept nogil
