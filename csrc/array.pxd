from libc.stdint cimport uint32_t

from timer cimport th_timer

cdef extern from "array.h" nogil:
    const size_t TH_CELL_SIZE
    ctypedef struct th_array:
        char* base
        size_t bytes
        uint32_t n
        uint32_t batch
        bint each
        size_t armed
        size_t top
        bint held
        int left_holding
        void* object
    ctypedef struct th_arrays:
        th_array** items
        size_t len
        th_array* retired
    th_timer* th_cell(const th_array* a, size_t i)
    uint32_t th_cell_index(const th_array* a, const th_timer* t)
    bint th_owns_cell(const th_array* a, const th_timer* t)
    th_array* th_array_new(uint32_t n)
    void th_array_free(th_array* a)
    th_array* th_owner(const th_arrays* all, const th_timer* t)
    bint th_enlist_array(th_arrays* all, th_array* a)
    void th_delist_array(th_arrays* all, th_array* a)
    void th_retire_array(th_arrays* all, th_array* a)
    void th_free_retired(th_arrays* all)
    size_t th_array_bytes(const th_arrays* all)
