cdef extern from "pages.h" nogil:
    const size_t th_page
    size_t th_whole_pages(size_t size)
    void th_unmap(void* base, size_t size)
    void* th_remap(void* base, size_t old, size_t size)
