# cython: language_level=3, binding=False, embedsignature=True, embedsignature.format=clinic
# cython: boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
# cython: freethreading_compatible=True
"""The native core of timerheap, one extension module in parts.

Reading order; what a part uses stands above it, but for the few functions by which one calls into the next:

    csrc/clock.h      the clock and saturating arithmetic
    csrc/timer.h      the 40-byte timer record, its states and who guards them
    csrc/pages.h      memory from the kernel
    csrc/slab.h       slots of one size in it
    csrc/core.h       one heap's native state, its mutex, how the worker parks
    csrc/word.h       words to wait for
    csrc/post.h       the worker's thread, from its start to its end
    csrc/channel.h    channel timers and their blocked receivers
    csrc/fork.h       the locks around a fork
    _heap.pxi         the 4-ary heap: siftup, siftdown, collect, sort, check    <- deadlines are compared
    _durations.pxi    seconds to nanoseconds
    _worker.pxi       timerproc: park, collect, fire                            <- sleeps, takes the GIL
    _jobs.pxi         callbacks, here or in an executor; where their errors go
    _thread.pxi       the worker's thread: start, end, exit
    _fork.pxi         what a fork takes of Python
    _arguments.pxi    what wrong calls and wrong names are told
    _timers.pxi       TimerHeap, Timer, AfterFunc
    _channels.pxi     Channel, Ticker, select, sleep
"""

from cpython.object cimport Py_GT, PyObject, PyTypeObject, destructor, inquiry, traverseproc, visitproc
from libc.math cimport INFINITY
from libc.stdint cimport INT64_MIN, int64_t, uint16_t, uint32_t, uint64_t
from libc.stdio cimport fprintf, stderr
from libc.stdlib cimport abort, calloc, free, malloc, qsort
from libc.string cimport memcpy, memset

import atexit
import os
import sys
import threading
import weakref
from _collections_abc import AsyncGenerator, Coroutine, Generator

cimport cython

ctypedef PyObject* (*vectorcallfunc)(PyObject* type, PyObject* const* args, size_t nargs, PyObject* names) except NULL
ctypedef PyObject* (*fastcallfunc)(PyObject* self, PyObject* const* args, Py_ssize_t nargs, PyObject* names) except NULL
ctypedef PyObject* (*newfunc)(PyTypeObject* type, PyObject* args, PyObject* keywords) except NULL
ctypedef int (*initproc)(PyObject* self, PyObject* args, PyObject* keywords) except -1
ctypedef PyObject* (*getiterfunc)(PyObject* self) except NULL

cdef extern from *:
    """
    #ifdef Py_GIL_DISABLED
    #define TH_FREE_THREADED 1
    #define TH_COLLECTOR_BYTES 0
    #else
    #define TH_FREE_THREADED 0
    #define TH_COLLECTOR_BYTES 16 /* the collector's list links, before the object */
    #endif
    #ifdef TIMERHEAP_DEBUG
    #define TH_DEBUG_BUILD 1
    #else
    #define TH_DEBUG_BUILD 0
    #endif
    #define th_mul_overflow __builtin_mul_overflow
    #define th_add_overflow __builtin_add_overflow
    #define th_has_float(o) (Py_TYPE(o)->tp_as_number != NULL && Py_TYPE(o)->tp_as_number->nb_float != NULL)
    #define th_raise_pending() (PyErr_Occurred() ? -1 : 0)

    /* The exception that is set, which is cleared; a new reference. Not by try and except: where there is no memory
     * for a traceback, Cython's handler releases the NULL it has in its place. */
    static inline PyObject *th_take_exception(void)
    {
    #if PY_VERSION_HEX >= 0x030C0000
        return PyErr_GetRaisedException();
    #else
        PyObject *type, *value, *traceback;
        PyErr_Fetch(&type, &value, &traceback);
        PyErr_NormalizeException(&type, &value, &traceback);
        if (traceback != NULL)
            PyException_SetTraceback(value, traceback);
        Py_XDECREF(type);
        Py_XDECREF(traceback);
        return value;
    #endif
    }
    /* One interpreter a process, the main one, and that once. Cython's module code has a guard of its own, which takes
     * the first interpreter that comes for the right one and the second life of the main one for its first; so the
     * question by which it tells interpreters apart is answered here. */
    static int th_finalized;

    static void th_note_finalized(void) { th_finalized = 1; }

    static int64_t th_interpreter_id(PyInterpreterState *interpreter)
    {
        if (interpreter != PyInterpreterState_Main())
            PyErr_SetString(PyExc_ImportError,
                            "timerheap works in the main interpreter only, and this is a subinterpreter");
        else if (th_finalized)
            PyErr_SetString(PyExc_ImportError,
                            "timerheap cannot be imported in an interpreter that was finalized and initialized anew");
        else
            return (PyInterpreterState_GetID)(interpreter);
        return -1;
    }
    #define PyInterpreterState_GetID(interpreter) th_interpreter_id(interpreter)

    #define th_tuple_items(t) (&PyTuple_GET_ITEM(t, 0))
    #define th_prefetch(p) __builtin_prefetch((p), 1)
    #define th_set_alloc(type, alloc) ((type)->tp_alloc = (alloc))
    #define th_set_iter(type, iter) ((type)->tp_iter = (iter))

    static inline vectorcallfunc th_change_vectorcall(PyTypeObject *type, vectorcallfunc to)
    {
        vectorcallfunc was = type->tp_vectorcall;
        type->tp_vectorcall = was == NULL ? NULL : to;
        return was;
    }

    typedef PyObject *(*th_fastcall)(PyObject *, PyObject *const *, Py_ssize_t, PyObject *);

    static inline th_fastcall th_change_function(PyObject *function, th_fastcall to)
    {
        PyMethodDef *method = ((PyCFunctionObject *)function)->m_ml;
        th_fastcall was = (th_fastcall)(void *)method->ml_meth;
        method->ml_meth = (PyCFunction)(void *)to;
        return was;
    }

    static inline newfunc th_change_new(PyTypeObject *type, newfunc to)
    {
        newfunc was = type->tp_new;
        type->tp_new = to;
        return was;
    }

    static inline initproc th_change_init(PyTypeObject *type, initproc to)
    {
        initproc was = type->tp_init;
        type->tp_init = to;
        return was;
    }

    static inline PyObject *th_change_mro(PyTypeObject *type, PyObject *to)
    {
        PyObject *was = type->tp_mro;
        type->tp_mro = to;
        PyType_Modified(type);
        return was;
    }
    """
    const bint FREE_THREADED "TH_FREE_THREADED"
    const size_t COLLECTOR_BYTES "TH_COLLECTOR_BYTES"
    const bint DEBUG_BUILD "TH_DEBUG_BUILD"
    void th_note_finalized() noexcept
    bint mul_overflow "th_mul_overflow"(int64_t a, int64_t b, int64_t* product) noexcept nogil
    bint add_overflow "th_add_overflow"(int64_t a, int64_t b, int64_t* sum) noexcept nogil
    void prefetch "th_prefetch"(const void* p) noexcept nogil
    void set_iter "th_set_iter"(PyTypeObject* type, getiterfunc iter)
    vectorcallfunc change_vectorcall "th_change_vectorcall"(PyTypeObject* type, vectorcallfunc to)
    fastcallfunc change_function "th_change_function"(PyObject* function, fastcallfunc to)
    newfunc change_new "th_change_new"(PyTypeObject* type, newfunc to)
    initproc change_init "th_change_init"(PyTypeObject* type, initproc to)
    PyObject* change_mro "th_change_mro"(PyTypeObject* type, PyObject* to)

cdef extern from "timer.h" nogil:
    enum:
        TH_IDLE
        TH_ARMED
        TH_DUE
        TH_ARGS_ONE
        TH_ARGS_BLOCK
        TH_CHANNEL
        TH_ORPHAN
        TH_CARCASS
        TH_PINNED
        TH_KEYED
        TH_RISING
    ctypedef struct th_timer:
        uint32_t pos
        uint16_t state
        uint16_t flags
        int64_t when
        uint64_t seq
        void* func
        void* args
    void th_unkeyed(th_timer* t)
    void th_risen(th_timer* t)
    uint16_t th_flags(const th_timer* t)
    uint16_t th_fixed_flags(const th_timer* t)
    uint16_t th_state(const th_timer* t)
    void th_mark(th_timer* t, uint16_t flag)
    void th_unmark(th_timer* t, uint16_t flag)
    uint64_t th_seq(const th_timer* t)
    void th_set_seq(th_timer* t, uint64_t seq)
    bint th_leave_armed(th_timer* t, uint16_t to)
    ctypedef struct th_key:
        int64_t when
        th_timer* timer
    ctypedef struct th_block:
        void* context
        size_t nargs
        void** items

cdef extern from "clock.h" nogil:
    const int64_t TH_NEVER
    const int64_t NS_PER_S "TH_NS_PER_S"
    int64_t th_monotonic()
    int64_t th_deadline(int64_t now, int64_t delay)
    int64_t th_next_tick(int64_t when, int64_t period, int64_t now)
    double th_to_seconds(int64_t when)
    int64_t th_from_seconds(double v)
    int64_t th_last_shown(int64_t when, double seconds)

cdef extern from "pages.h" nogil:
    const size_t th_page
    size_t th_whole_pages(size_t size)
    void th_unmap(void* base, size_t size)
    void* th_remap(void* base, size_t old, size_t size)

cdef extern from "slab.h" nogil:
    ctypedef struct th_slab:
        size_t used
    void* th_slab_alloc(th_slab* slab, size_t size)
    void th_slab_free(th_slab* slab, void* slot, size_t size)
    size_t th_slab_bytes(const th_slab* slab, size_t size)

cdef extern from "core.h" nogil:
    ctypedef struct th_group
    const size_t TH_KEY_PAD
    const size_t TH_RISERS
    const size_t KEYS_MAX "TH_KEYS_MAX"
    ctypedef struct th_post
    ctypedef struct th_core:
        int64_t wake_at
        th_key* keys
        size_t len
        size_t cap
        size_t key_bytes
        size_t key_peak
        size_t stops
        size_t buried
        size_t sweep_at
        th_timer tomb
        th_timer** risers
        size_t rising
        th_slab orphans
        th_key* run
        size_t run_len
        size_t run_cap
        size_t run_head
        size_t run_peak
        uint64_t seq
        uint64_t inherited
        uint64_t fired
        uint64_t cancelled
        size_t live
        size_t peak
        uint64_t rekeyed
        uint64_t wakeups
        uint64_t batches
        uint64_t longest
        size_t errors
        size_t handles
        size_t channels
        uint64_t chan_arms
        uint64_t received
        uint64_t chan_cancelled
        uint64_t ticks
        size_t chan_live
        size_t tickers
        uint32_t epoch
        int closed
        int exiting
        int running
        int ready
        th_post* post
        int detached
        int pausing
        int parked
        int firing
        int sorting
        int left_holding
        uint32_t generation
        int manual
        uint64_t driver
        uint64_t advancer
        th_group* ring
        uint64_t turns
    uint64_t th_thread()
    int64_t th_now(th_core* c)
    int64_t th_due(th_core* c)
    void th_set_due(th_core* c, int64_t due)
    void th_set_manual(th_core* c, int64_t now)
    void th_limit_due(th_core* c, int64_t when)
    void th_lock(th_core* c)
    void th_unlock(th_core* c)
    void th_yield_lock(th_core* c)
    void th_init_locks(th_core* c)
    void th_park(th_core* c, int64_t wake_at)
    void th_signal(th_core* c)
    void th_nap()
    void th_count(size_t* counter, int by)
    size_t th_counted(const size_t* counter)

cdef extern from "word.h" nogil:
    uint32_t th_word(const uint32_t* word)
    void th_wake_word(uint32_t* word)
    void th_set_word(uint32_t* word, uint32_t value)
    bint th_move(uint32_t* word, uint32_t start, uint32_t to)
    int th_await_word(uint32_t* word, uint32_t value, int64_t deadline)

cdef extern from "post.h" nogil:
    ctypedef struct th_post:
        th_core* core
        void* heap
        void* thread
    ctypedef unsigned long (*th_starter)(void (*)(void*) noexcept nogil, void*) noexcept nogil
    th_post* th_my_post
    int th_stranded
    th_post* th_post_new(th_core* c)
    void th_post_hold(th_post* post)
    void th_post_drop(th_post* post)
    th_post* th_post_of(th_core* c)
    bint th_post_ended(th_post* post)
    int th_post_tid(th_post* post)
    unsigned long th_post_ident(th_post* post)
    void th_post_disappear(th_post* post)
    bint th_post_disappeared(th_post* post)
    bint th_post_mine(const th_post* post)
    bint th_post_closing(th_post* post)
    void th_post_note_closing(th_post* post, int by)
    void th_post_await(th_post* post, int64_t deadline)
    void th_post_await_system(th_post* post)
    bint th_post_start(th_post* post, th_starter start, void (*run)(void*))
    void th_post_to_park(th_post* post)
    void th_post_to_call(th_post* post)
    bint th_post_leave(th_post* post)
    void th_post_over(th_post* post)
    void th_core_free(th_core* c)
    int th_watch_threads()

cdef extern from *:
    """
    static void (*th_timerproc)(th_post *); /* timerproc of _worker.pxi, with the GIL */

    /* A thread state for the calling thread, which does not hold the GIL, or NULL where there is no memory. */
    #if PY_VERSION_HEX < 0x030C0000
    PyAPI_FUNC(void) _PyThreadState_SetCurrent(PyThreadState *);

    static PyThreadState *th_new_state(void) /* PyThreadState_New of 3.11 would crash for want of memory */
    {
        PyThreadState *state = _PyThreadState_Prealloc(PyInterpreterState_Main());
        if (state != NULL)
            _PyThreadState_SetCurrent(state);
        return state;
    }
    #else
    static PyThreadState *th_new_state(void) { return PyThreadState_New(PyInterpreterState_Main()); }
    #endif

    /* The thread of a worker. Its state is not made by PyGILState_Ensure, which ends the process for want of memory. */
    static void th_run_worker(void *arg)
    {
        th_post *post = arg;
        PyThreadState *state;
        th_post_begin(post, PyThread_get_thread_ident());
        while ((state = th_new_state()) == NULL)
            th_nap();
        PyEval_AcquireThread(state);
        th_timerproc(post);
        if (post->forked) { /* CPython 3.11 needs one thread state to make others */
            PyEval_ReleaseThread(state);
            return;
        }
        PyThreadState_Clear(state);
        PyThreadState_DeleteCurrent();
    }
    """
    void (*th_timerproc)(th_post* post) noexcept
    void run_worker "th_run_worker"(void* post) noexcept nogil

cdef extern from *:
    """
    /* The memory of Timer handles, collector header included. malloc's own page is small and the collector's
     * allocator counts: handles have a slab instead, which leaves the collector's layout as it expects it, the two
     * links right before the object. A handle is not counted towards the next collection; a cycle through one has
     * another container in it, which is. That layout is looked at once (th_examine_header), and where it is another one
     * CPython gives the memory. So it does without a GIL, where the collector finds its objects by their memory, and
     * for AddressSanitizer, which knows the memory of malloc. */
    #define TH_TIMER_SIZE (sizeof(PyObject) + sizeof(void *) + sizeof(th_timer)) /* object, heap, record */

    #if TH_FREE_THREADED || defined(__SANITIZE_ADDRESS__)
    #define th_new_timer(type) ((PyObject *)PyObject_GC_New(PyObject, type))
    #define th_del_timer(o) PyObject_GC_Del(o)
    #define th_examine_header(type, bytes) ((void)(bytes))
    #else
    static th_slab th_handles; /* guard: the GIL */
    static int th_foreign;     /* the collector's header is not as it is made here */

    /* bytes: the size of the header, as Python tells it. Followed through the life of one object of the type, which is
     * laid out as it shall be. */
    static void th_examine_header(PyTypeObject *type, Py_ssize_t bytes)
    {
        PyObject *o = (PyObject *)PyObject_GC_New(PyObject, type);
        if (o == NULL) {
            PyErr_Clear();
            th_foreign = 1;
            return;
        }
        memset(o + 1, 0, TH_TIMER_SIZE - sizeof(PyObject));
        *(PyObject **)(o + 1) = Py_None; /* its heap: the collector looks */
        uint64_t *links = (uint64_t *)o - 2;
        int good = bytes == TH_COLLECTOR_BYTES && links[0] == 0 && links[1] == 0 && !PyObject_GC_IsTracked(o);
        PyObject_GC_Track(o);
        good = good && links[0] != 0 && links[1] != 0 && PyObject_GC_IsTracked(o);
        PyObject_GC_UnTrack(o);
        good = good && links[0] == 0 && !PyObject_GC_IsTracked(o);
        PyObject_GC_Del(o);
        th_foreign = !good;
    }

    static inline PyObject *th_new_timer(PyTypeObject *type)
    {
        if (th_foreign)
            return (PyObject *)PyObject_GC_New(PyObject, type);
        uint64_t *slot = th_slab_alloc(&th_handles, TH_COLLECTOR_BYTES + TH_TIMER_SIZE);
        if (slot == NULL)
            return PyErr_NoMemory();
        slot[0] = slot[1] = 0; /* not tracked */
        return PyObject_Init((PyObject *)(slot + 2), type);
    }

    static inline void th_del_timer(PyObject *o)
    {
        if (th_foreign)
            PyObject_GC_Del(o);
        else
            th_slab_free(&th_handles, (char *)o - TH_COLLECTOR_BYTES, TH_COLLECTOR_BYTES + TH_TIMER_SIZE);
    }
    #endif

    /* tp_alloc: cleared, and not tracked either. */
    static PyObject *th_alloc_timer(PyTypeObject *type, Py_ssize_t items)
    {
        PyObject *o = th_new_timer(type);
        (void)items;
        if (o != NULL)
            memset(o + 1, 0, TH_TIMER_SIZE - sizeof(PyObject));
        return o;
    }
    """
    const Py_ssize_t TH_TIMER_SIZE
    void th_examine_header(PyTypeObject* type, Py_ssize_t size)
    PyObject* th_new_timer(PyTypeObject* type)
    void th_del_timer(PyObject* o)
    PyObject* th_alloc_timer(PyTypeObject* type, Py_ssize_t items)
    void set_alloc "th_set_alloc"(PyTypeObject* type, void* alloc)

cdef extern from "channel.h" nogil:
    int EINTR
    ctypedef struct th_waiter
    ctypedef struct th_chan:
        th_core* core
        int64_t when
        int64_t period
        uint32_t epoch
        uint32_t live
    ctypedef struct th_node:
        th_node* prev
        th_node* next
        th_chan* chan
        th_waiter* waiter
        size_t place
    ctypedef struct th_watch:
        int64_t when
        th_node* node
    ctypedef struct th_group:
        th_group* next
        th_core* core
        th_waiter* waiter
        uint64_t mark
    ctypedef struct th_waiter:
        th_node* nodes
        size_t count
        th_group* groups
        size_t heaps
        th_watch* watches
        size_t watched
        th_node* changed
        bint again
    size_t th_longest_slice()
    void th_chan_lock()
    void th_chan_unlock()
    void th_chan_offer()
    size_t th_random_below(size_t n)
    void th_arrive(th_waiter* w)
    size_t th_join_line(th_node* node)
    bint th_leave_line(th_node* node)
    void th_join_ring(th_group* g)
    void th_leave_ring(th_group* g)
    bint th_wake(th_waiter* w)
    bint th_note(th_node* node)
    bint th_note_head(th_chan* ch)
    th_node* th_next_changed(th_waiter* w)
    void th_rearm_wait(th_waiter* w)
    void th_stay_awake(th_waiter* w)
    int th_wait(th_waiter* w, int64_t deadline)
    int th_sleep_until(int64_t deadline)
    unsigned long th_slack_fine()
    void th_slack_restore(unsigned long slack)
    bint th_chan_live(const th_chan* ch)

cdef extern from "fork.h" nogil:
    void th_enlist(th_core* c)
    void th_delist(th_core* c)
    void th_settle_child(bint ending)
    int th_watch_forks()

cdef extern from "Python.h":
    # Raw pointers where an object argument would have Cython count references that are not ours to
    # count.
    void incref "Py_INCREF"(void* o)
    void decref "Py_DECREF"(void* o)
    unsigned long start_thread "PyThread_start_new_thread"(void (*)(void*) noexcept nogil, void*) noexcept nogil
    PyObject* get_handled "PyErr_GetHandledException"()
    void set_handled "PyErr_SetHandledException"(PyObject* exception)
    void xdecref "Py_XDECREF"(void* o)
    PyObject* call_none "PyObject_CallNoArgs"(PyObject* func)
    PyObject* call_one "PyObject_CallOneArg"(PyObject* func, PyObject* arg)
    PyObject* call_many "PyObject_Vectorcall"(PyObject* func, PyObject** args, size_t n, PyObject* kwnames)
    PyObject* PyContext_New()
    int PyContext_Enter(PyObject* context)
    int PyContext_Exit(PyObject* context)
    bint PyContext_CheckExact(PyObject* o)
    Py_ssize_t PyObject_Size(PyObject* o)
    bint PyCallable_Check(PyObject* o)
    void gc_track "PyObject_GC_Track"(PyObject* o)
    void gc_untrack "PyObject_GC_UnTrack"(PyObject* o)
    bint gc_tracked "PyObject_GC_IsTracked"(PyObject* o)
    bint PyFloat_CheckExact(object o)
    double PyFloat_AS_DOUBLE(object o)
    double float_as_double "PyFloat_AsDouble"(object o) noexcept    # its error is left set
    bint error_matches "PyErr_ExceptionMatches"(object kind)
    void PyErr_Clear()
    bint PyLong_Check(object o)
    bint has_float "th_has_float"(object o)
    bint has_index "PyIndex_Check"(object o)
    object PyNumber_Index(object o)
    int compare_or_error "PyObject_RichCompareBool"(object a, object b, int op) noexcept    # its error is left set
    long long PyLong_AsLongLongAndOverflow(object o, int* overflow) except? -1
    int PyErr_CheckSignals() except -1
    void PyErr_NoMemory() except *
    int PyUnicode_Compare "PyUnicode_CompareWithASCIIString"(PyObject* s, const char* t)
    void* PyMem_Malloc(size_t n)
    void PyMem_Free(void* p)
    Py_ssize_t PyTuple_GET_SIZE(PyObject* t)
    Py_ssize_t PyVectorcall_NARGS(size_t nargsf)
    PyObject* PyTuple_GET_ITEM(PyObject* t, Py_ssize_t i)
    PyObject** tuple_items "th_tuple_items"(PyObject* t)
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
    int raise_pending "th_raise_pending"() except -1
    object take_exception "th_take_exception"()

cdef enum:
    INSERTION_MAX = 48    # entries; up to here insertion beats the histogram of a radix pass
    PREFETCH = 12         # records fetched ahead in a walk over many
    POP_SLICE = 1024      # pops between two offers of the mutex: about 0.3 ms at a million
    SCAN_SLICE = 8192     # keys scanned likewise
    NESTING = 40          # handles released within one another before the rest waits
    JUST_ARMED = 4        # armings back: such a timer's key is still in the cache, and stop takes it out at once
    STOPS_A_SLICE = 8     # stops that leave a key behind, between two slices of the sweep
    SWEEP_SLICE = 64      # keys looked at in one of them
    RUN_KEPT = 1 << 16    # bytes of the run kept between runs
    GIL_SLICE = 128       # callbacks between two offers of the GIL
    START_TRIES = 3       # of a worker for timers that others have armed

DEBUG = bool(DEBUG_BUILD)

include "_heap.pxi"
include "_durations.pxi"
include "_worker.pxi"
include "_jobs.pxi"
include "_thread.pxi"
include "_fork.pxi"
include "_arguments.pxi"
include "_timers.pxi"
include "_channels.pxi"
