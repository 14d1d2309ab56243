from libc.stdint cimport int64_t

cdef extern from "compiler.h" nogil:
    bint mul_overflow "th_mul_overflow"(int64_t a, int64_t b, int64_t* product)
    bint add_overflow "th_add_overflow"(int64_t a, int64_t b, int64_t* sum)
    void prefetch "th_prefetch"(const void* p)
