from cpython.object cimport PyObject, PyTypeObject
from libc.stdint cimport int64_t

from core cimport th_core
from timer cimport th_timer

cdef extern from "loop.h" nogil:
    ctypedef struct th_names:
        pass
    ctypedef struct th_loop:
        th_core core
        th_names names
        PyObject** dicts
        size_t hidden
        int running
        int debug
        int planning
    ctypedef struct th_loop_handle:
        PyObject* timers
        th_timer t
        PyObject* context
        PyObject* notes
        PyObject* weak
    const Py_ssize_t TH_LOOP_HANDLE_SIZE
    th_loop_handle* th_handle_of_loop(th_timer* t)
    int64_t th_key_of_double(double when)
    double th_double_of_key(int64_t key)

cdef extern from "loop.h":
    bint th_names_may_differ(const th_names* names, PyObject** dicts)
    void th_watch_names(th_names* names, PyObject** dicts)
    void th_forget_names(th_names* names)
    int th_loop_depth
    PyObject* th_loop_later
    object th_new_loop_handle(PyTypeObject* type)
    void th_del_loop_handle(PyObject* o)
