from libc.stdint cimport uint32_t

cdef extern from "word.h" nogil:
    uint32_t th_word(const uint32_t* word)
    void th_wake_word(uint32_t* word)
    void th_set_word(uint32_t* word, uint32_t value)
    bint th_move(uint32_t* word, uint32_t start, uint32_t to)
