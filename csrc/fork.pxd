from core cimport th_core

cdef extern from "fork.h" nogil:
    void th_enlist(th_core* c)
    void th_delist(th_core* c)
    void th_settle_child(bint ending)
    int th_watch_forks()
