from cpython.object cimport PyObject, PyTypeObject

from post cimport th_post

ctypedef PyObject* (*vectorcallfunc)(PyObject* type, PyObject* const* args, size_t nargs, PyObject* names) except NULL
ctypedef PyObject* (*fastcallfunc)(PyObject* self, PyObject* const* args, Py_ssize_t nargs, PyObject* names) except NULL
ctypedef PyObject* (*newfunc)(PyTypeObject* type, PyObject* args, PyObject* keywords) except NULL
ctypedef int (*initproc)(PyObject* self, PyObject* args, PyObject* keywords) except -1
ctypedef PyObject* (*getiterfunc)(PyObject* self) except NULL

cdef extern from "interpreter.h":
    const bint FREE_THREADED "TH_FREE_THREADED"
    const size_t COLLECTOR_BYTES "TH_COLLECTOR_BYTES"
    const bint DEBUG_BUILD "TH_DEBUG_BUILD"
    const Py_ssize_t TH_TIMER_SIZE
    int th_depth
    PyObject* th_later
    void (*th_timerproc)(th_post* post) noexcept
    bint th_prepare_state(th_post* post)
    void th_discard_state(th_post* post)
    void run_worker "th_run_worker"(void* post) noexcept nogil
    void th_note_finalized() noexcept
    void th_examine_header(PyTypeObject* type, Py_ssize_t size)
    PyObject* th_new_timer(PyTypeObject* type)
    void th_del_timer(PyObject* o)
    PyObject* th_alloc_timer(PyTypeObject* type, Py_ssize_t items)
    const bint th_shares_contexts
    PyObject* th_context_vars(PyObject* context)
    bint th_is_current(PyObject* context)
    PyObject* copy_context "th_copy_context"(PyObject* context)     # its error is left set
    object copy_of_context "th_copy_context"(PyObject* context)
    void th_examine_contexts(Py_ssize_t size)
    void set_alloc "th_set_alloc"(PyTypeObject* type, void* alloc)
    void set_iter "th_set_iter"(PyTypeObject* type, getiterfunc iter)
    void set_next "th_set_next"(PyTypeObject* type, PyObject* (*next)(PyObject* self) except? NULL)
    vectorcallfunc change_vectorcall "th_change_vectorcall"(PyTypeObject* type, vectorcallfunc to)
    fastcallfunc change_function "th_change_function"(PyObject* function, fastcallfunc to)
    newfunc change_new "th_change_new"(PyTypeObject* type, newfunc to)
    initproc change_init "th_change_init"(PyTypeObject* type, initproc to)
    PyObject* change_mro "th_change_mro"(PyTypeObject* type, PyObject* to)
    PyObject** tuple_items "th_tuple_items"(PyObject* t)
    void forbid_new "th_forbid_new"(PyTypeObject* type)
    unsigned int type_version "th_type_version"(PyObject* o)
    bint has_float "th_has_float"(object o)
    bint has_length "th_has_length"(object o)
    void stop_with "th_stop_with"(object value)      # its error is left set
    bint may_suspend "th_may_suspend"(PyObject* o)
    int raise_pending "th_raise_pending"() except -1
    object take_exception "th_take_exception"()

cdef extern from "Python.h":
    # Raw pointers where an object argument would have Cython count references that are not ours to count.
    void incref "Py_INCREF"(void* o)
    void decref "Py_DECREF"(void* o)
    Py_ssize_t refcount "Py_REFCNT"(void* o)
    PyObject* init_object "PyObject_Init"(PyObject* o, PyTypeObject* type)
    bint gc_is_tracked "PyObject_GC_IsTracked"(PyObject* o)
    unsigned long start_thread "PyThread_start_new_thread"(void (*)(void*) noexcept nogil, void*) noexcept nogil
    PyObject* get_handled "PyErr_GetHandledException"()
    void set_handled "PyErr_SetHandledException"(PyObject* exception)
    void xdecref "Py_XDECREF"(void* o)
    PyObject* call_none "PyObject_CallNoArgs"(PyObject* func)
    PyObject* call_one "PyObject_CallOneArg"(PyObject* func, PyObject* arg)
    PyObject* call_many "PyObject_Vectorcall"(PyObject* func, PyObject** args, size_t n, PyObject* kwnames)
    PyObject* PyContext_New()
    object new_context "PyContext_New"()
    object copy_current_context "PyContext_CopyCurrent"()
    int PyContext_Enter(PyObject* context)
    int PyContext_Exit(PyObject* context)
    bint PyContext_CheckExact(PyObject* o)
    Py_ssize_t PyObject_Size(PyObject* o)
    bint PyCallable_Check(PyObject* o)
    void clear_weak_references "PyObject_ClearWeakRefs"(PyObject* o)
    void raise_errno "PyErr_SetFromErrno"(PyObject* kind) except *
    PyObject* dict_get "PyDict_GetItemWithError"(dict d, object key) noexcept   # borrowed; keys are str: no error
    void gc_track "PyObject_GC_Track"(PyObject* o)
    void gc_untrack "PyObject_GC_UnTrack"(PyObject* o)
    bint PyFloat_CheckExact(object o)
    double PyFloat_AS_DOUBLE(object o)
    double float_as_double "PyFloat_AsDouble"(object o) noexcept    # its error is left set
    bint error_matches "PyErr_ExceptionMatches"(object kind)
    void PyErr_Clear()
    bint PyLong_Check(object o)
    bint PyLong_CheckExact(PyObject* o)
    double int_as_double "PyLong_AsDouble"(PyObject* o) noexcept    # its error is left set
    bint has_index "PyIndex_Check"(object o)
    object PyNumber_Index(object o)
    PyObject* index_or_error "PyNumber_Index"(object o) noexcept    # its error is left set
    bint PySequence_Check(object o)
    int PySlice_Unpack(object slice, Py_ssize_t* start, Py_ssize_t* stop, Py_ssize_t* step) except -1
    Py_ssize_t PySlice_AdjustIndices(Py_ssize_t length, Py_ssize_t* start, Py_ssize_t* stop, Py_ssize_t step)
    ctypedef struct buffer_view "Py_buffer":
        void* buf
        Py_ssize_t itemsize
        int ndim
        const char* format
        Py_ssize_t* shape
        Py_ssize_t* strides
    const int PyBUF_FORMAT
    const int PyBUF_STRIDES
    const int PyBUF_WRITABLE
    bint is_buffer "PyObject_CheckBuffer"(object o)
    int get_buffer "PyObject_GetBuffer"(object o, buffer_view* view, int flags) noexcept    # its error is left set
    void release_buffer "PyBuffer_Release"(buffer_view* view)
    int compare_or_error "PyObject_RichCompareBool"(object a, object b, int op) noexcept    # its error is left set
    long long PyLong_AsLongLongAndOverflow(object o, int* overflow) except? -1
    int PyErr_CheckSignals() except -1
    int PyUnicode_Compare "PyUnicode_CompareWithASCIIString"(PyObject* s, const char* t)
    void* PyMem_Malloc(size_t n)
    void PyMem_Free(void* p)
    Py_ssize_t PyTuple_GET_SIZE(PyObject* t)
    Py_ssize_t PyVectorcall_NARGS(size_t nargsf)
    PyObject* PyTuple_GET_ITEM(PyObject* t, Py_ssize_t i)
    unsigned long current_thread "PyThread_get_thread_ident"() noexcept nogil
    ctypedef PyObject* (*PyCFunction)(PyObject*, PyObject*)
    ctypedef struct PyMethodDef:
        const char* ml_name
        PyCFunction ml_meth
        int ml_flags
        const char* ml_doc
    const int METH_FASTCALL
    const int METH_KEYWORDS
    object PyCFunction_NewEx(PyMethodDef* ml, PyObject* self, object module)
    int Py_AtExit(void (*func)() noexcept)
    int Py_AddPendingCall(int (*func)(void*) except -1, void* arg)
    void write_unraisable "PyErr_WriteUnraisable"(PyObject* source)
    PyObject* call_objects "PyObject_CallFunctionObjArgs"(PyObject* func, ...)
    PyObject* call_method "PyObject_CallMethodObjArgs"(PyObject* o, PyObject* name, ...)
