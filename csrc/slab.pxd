cdef extern from "slab.h" nogil:
    ctypedef struct th_slab:
        size_t used
    void* th_slab_alloc(th_slab* slab, size_t size)
    void th_slab_free(th_slab* slab, void* slot, size_t size)
    size_t th_slab_bytes(const th_slab* slab, size_t size)
