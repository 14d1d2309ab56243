/* What the core takes of CPython's insides: the one file to look through when a new version of CPython comes.
 *
 * Each place is compiled for the versions that have it, or looked at before it is relied on, with another way to go
 * where it is not as expected. tests/test_interpreter.py asks the interpreter that runs it for each of them. In
 * brackets are the versions in whose source a place was read; a star: it was tried there only.
 *
 * In C, below:
 *
 *   th_new_timer      the collector's header is two words before the object, zero while it is not tracked [3.11 -
 *                     3.15]. th_examine_header looks; where it is another one, CPython gives the memory of handles.
 *   th_new_state      _PyThreadState_Prealloc and _PyThreadState_SetCurrent, and what threading does between them [3.11].
 *                     Compiled for 3.11 alone.
 *   th_run_worker     the state that a thread makes first is the one that PyGILState_Ensure finds [3.11* - 3.15*];
 *                     else foreign code in a callback would make a second one.
 *   th_take_exception PyErr_Fetch and its kin [3.11]. Compiled for 3.11 alone.
 *   th_interpreter_id Cython's module code asks PyInterpreterState_GetID before all else [Cython 3.1 - 3.3]; else a
 *                     subinterpreter would get the module.
 *   gil.c             the GIL, its holder, and where it is asked to drop it [3.11*, 3.12, 3.13*, 3.14, 3.15*].
 *                     th_examine_gil looks; else nobody asks, and a timer beside a thread that computes is late by a
 *                     switch interval.
 *   th_change_...     slots of types that are ready may be changed before their first use: tp_vectorcall, tp_new,
 *                     tp_init, tp_iter, tp_iternext, tp_alloc, tp_mro, and ml_meth of a module's function [3.11 - 3.13,
 *                     3.14*, 3.15*]; else wrong calls get CPython's messages.
 *   th_stop_with      a StopIteration has its value in PyStopIterationObject, and tp_alloc leaves the rest as it is to
 *                     begin with [3.11 - 3.13, 3.14*]. What awaits a tp_iternext takes the value from there.
 *   th_is_current     a thread's state has its current context, and a context its variables right behind ctx_prev, in a
 *                     mapping that never changes and that its copies have as well [3.11, 3.12*, 3.13, 3.14*, 3.15*].
 *                     th_examine_contexts looks; else each handle of an event loop has a copy of its own.
 *
 * In timerheap/core:
 *
 *   handles.pxi       put_aside: an object whose tp_dealloc CPython puts off has the count 0 [3.14*, 3.15*]; else its
 *                     timer would bring it back to life.
 *   misnomers.pxi     a type's tp_mro may name a class that is none of its bases [3.11 - 3.13, 3.14*, 3.15*]; else
 *                     wrong names get CPython's messages.
 *   thread.pxi        threading._active is the dict of the threads that are listed [3.11 - 3.15]; else workers are
 *                     not.
 *   thread.pxi        class Worker has what Thread's methods read: _initialized, _daemonic, _started, _name, _ident;
 *                     and after a fork threading calls _reset_internal_locks and _stop [3.11, 3.12] or _after_fork
 *                     [3.13 - 3.15]; else a Worker is an odd Thread, and the worker works.
 *   thread.pxi        threading.Timer's base is Thread [3.11 - 3.15]; else no import where a program has replaced
 *                     Thread.
 *   process.pxi       threading._SHUTTING_DOWN and concurrent.futures.thread._threads_queues [3.11 - 3.15]; else an
 *                     error is reported at the end of a program that nobody has made.
 *   fork.pxi          pending calls run after os.fork() has counted the threads [3.11 - 3.13, 3.14*, 3.15*]; else
 *                     CPython warns of a fork beside threads.
 *   jobs.pxi          asyncio's futures have _asyncio_future_blocking [3.11 - 3.15]; else they are asked for their
 *                     end in a thread that is not their loop's.
 */
#ifndef TIMERHEAP_INTERPRETER_H
#define TIMERHEAP_INTERPRETER_H

#include <Python.h>

#include <string.h>

#include "core.h"
#include "gil.h"
#include "post.h"
#include "slab.h"
#include "timer.h"

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

#define th_has_float(o) (Py_TYPE(o)->tp_as_number != NULL && Py_TYPE(o)->tp_as_number->nb_float != NULL)
#define th_has_length(o) ((Py_TYPE(o)->tp_as_sequence != NULL && Py_TYPE(o)->tp_as_sequence->sq_length != NULL) \
    || (Py_TYPE(o)->tp_as_mapping != NULL && Py_TYPE(o)->tp_as_mapping->mp_length != NULL))
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
#define th_set_alloc(type, alloc) ((type)->tp_alloc = (alloc))
#define th_set_iter(type, iter) ((type)->tp_iter = (iter))
#define th_set_next(type, next) ((type)->tp_iternext = (next))

#define th_forbid_new(type) ((type)->tp_new = NULL, (type)->tp_vectorcall = NULL)

/* A number that changes with the type of o, and with what is set in its class or in a base; 0 when it has none now.
 * Assigned by looking something up. */
static inline unsigned int th_type_version(PyObject *o)
{
    return Py_TYPE(o)->tp_version_tag;
}

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

/* ---- the worker's thread state ---- */

static void (*th_timerproc)(th_post *); /* timerproc of worker.pxi, with the GIL */

#ifdef PY_HAVE_THREAD_NATIVE_ID
#define th_native_id() PyThread_get_thread_native_id()
#else
#define th_native_id() PyThread_get_thread_ident()
#endif

/* The thread state of a worker: th_prepare_state with the GIL, before its thread is asked for, and th_discard_state if
 * there is none; th_new_state in that thread, which does not hold the GIL. In 3.11 the starter makes it, as threading
 * does. To make one takes the lock of all states, which 3.11 does not make anew in the child of a fork until it has
 * taken it: a thread that made its own would hang the child if the fork came just then. */
#if PY_VERSION_HEX < 0x030C0000
PyAPI_FUNC(void) _PyThreadState_SetCurrent(PyThreadState *);

static int th_prepare_state(th_post *post)
{
    post->state = _PyThreadState_Prealloc(PyInterpreterState_Main());
    return post->state != NULL;
}

static void th_discard_state(th_post *post)
{
    PyThreadState_Clear(post->state);
    PyThreadState_Delete(post->state);
}

static PyThreadState *th_new_state(th_post *post)
{
    PyThreadState *state = post->state;
    state->thread_id = PyThread_get_thread_ident();
    state->native_thread_id = th_native_id();
    _PyThreadState_SetCurrent(state);
    return state;
}
#else
static int th_prepare_state(th_post *post) { return post != NULL; }

static void th_discard_state(th_post *post) { (void)post; }

static PyThreadState *th_new_state(th_post *post) /* NULL where there is no memory */
{
    (void)post;
    return PyThreadState_New(PyInterpreterState_Main());
}
#endif

/* The thread of a worker. Its state is not made by PyGILState_Ensure, which ends the process for want of memory. */
static void th_run_worker(void *arg)
{
    th_post *post = arg;
    PyThreadState *state;
    th_post_begin(post, PyThread_get_thread_ident(), th_native_id());
    while ((state = th_new_state(post)) == NULL)
        th_nap();
    th_ask_for_gil();
    PyEval_AcquireThread(state);
    th_timerproc(post);
    if (post->forked) { /* CPython 3.11 needs one thread state to make others */
        PyEval_ReleaseThread(state);
        return;
    }
    PyThreadState_Clear(state);
    PyThreadState_DeleteCurrent();
}

/* ---- results of callbacks ---- */

/* Whether an object may be a coroutine or a generator: cheap, for most results of callbacks are not. */
static inline int th_may_suspend(PyObject *o)
{
    PyTypeObject *t = Py_TYPE(o);
    return t->tp_iternext != NULL || (t->tp_as_async != NULL
            && (t->tp_as_async->am_await != NULL || t->tp_as_async->am_anext != NULL));
}

/* For a tp_iternext that returns NULL then: it is over, with that value. In 3.11 it is set as it stands, and no object
 * is made, unless a tuple would be taken for StopIteration's arguments, or an exception for StopIteration itself. Later
 * one is made in any case: by its fields, for a call takes three times as long. */
static inline void th_stop_with(PyObject *value)
{
    PyTypeObject *type = (PyTypeObject *)PyExc_StopIteration;
    PyStopIterationObject *stop;
    if (value == Py_None)
        return;
#if PY_VERSION_HEX < 0x030C0000
    if (!PyTuple_Check(value) && !PyExceptionInstance_Check(value)) {
        PyErr_SetObject(PyExc_StopIteration, value);
        return;
    }
#endif
    stop = (PyStopIterationObject *)type->tp_alloc(type, 0);
    if (stop == NULL)
        return;
    stop->args = PyTuple_New(0);
    stop->value = Py_NewRef(value);
#if PY_VERSION_HEX < 0x030C0000
    PyErr_SetObject(PyExc_StopIteration, (PyObject *)stop);
    Py_DECREF(stop);
#else
    PyErr_SetRaisedException((PyObject *)stop);
#endif
}

/* ---- contexts ---- */

#if TH_FREE_THREADED
#define th_shares_contexts 0 /* what another thread's context has could go while it is looked at */
#define th_context_vars(context) ((PyObject *)(context))
#define th_is_current(context) 0
#define th_copy_context(context) PyContext_Copy(context)
#define th_examine_contexts(bytes) ((void)(bytes))
#else
static int th_shares_contexts; /* contexts are as they are taken for here */

typedef struct th_context { /* of CPython's struct _pycontextobject */
    PyObject_HEAD
    PyObject *prev;
    PyObject *vars;
    PyObject *weak;
    int entered;
} th_context;

static inline PyObject *th_context_vars(PyObject *context) { return ((th_context *)context)->vars; }

/* Whether the current context has the variables of this one, with their values: the mapping is the same. */
static inline int th_is_current(PyObject *context)
{
    PyObject *current = PyThreadState_Get()->context;
    return current != NULL && th_context_vars(current) == th_context_vars(context);
}

/* Not of one that the collector has cleared, which may be met by what is finalized then. */
static inline PyObject *th_copy_context(PyObject *context)
{
    if (th_context_vars(context) != NULL)
        return PyContext_Copy(context);
    PyErr_SetString(PyExc_RuntimeError, "the context is gone");
    return NULL;
}

/* What the collector is shown of a context. */
typedef struct th_shown {
    PyObject *sought;
    int found;
} th_shown;

static int th_visit_shown(PyObject *o, void *arg)
{
    th_shown *shown = arg;
    shown->found |= o == shown->sought;
    return 0;
}

/* Whether a context has its variables where they are taken for: the collector is shown what is there, and it is one of
 * the mappings that never change. */
static int th_has_vars(PyObject *context)
{
    th_shown shown = {th_context_vars(context), 0};
    Py_TYPE(context)->tp_traverse(context, th_visit_shown, &shown);
    return shown.found && strcmp(Py_TYPE(shown.sought)->tp_name, "hamt") == 0;
}

/* Whether a copy of the current context, which is this one, has its variables until one of them is set. */
static int th_copies_share(PyObject *context, PyObject *var)
{
    PyObject *copy = PyContext_CopyCurrent(), *token = NULL, *again = NULL;
    int good = copy != NULL && PyThreadState_Get()->context == context && th_has_vars(context) && th_is_current(copy);
    if (good)
        token = PyContextVar_Set(var, Py_None);
    if (token != NULL)
        again = PyContext_Copy(context);
    good = again != NULL && th_has_vars(context) && !th_is_current(copy) && th_is_current(again)
        && PyObject_Size(copy) == 0 && PyObject_Size(again) == 1;
    Py_XDECREF(again);
    Py_XDECREF(token);
    Py_XDECREF(copy);
    return good;
}

/* bytes: the size of a context, as Python tells it, with the collector's header. */
static void th_examine_contexts(Py_ssize_t bytes)
{
    PyObject *context = PyContext_New();
    PyObject *var = PyContextVar_New("timerheap", NULL);
    if (context != NULL && var != NULL && bytes == TH_COLLECTOR_BYTES + (Py_ssize_t)sizeof(th_context)
            && PyContext_Enter(context) == 0) {
        th_shares_contexts = th_copies_share(context, var);
        PyContext_Exit(context);
    }
    Py_XDECREF(var);
    Py_XDECREF(context);
    PyErr_Clear();
}
#endif

/* ---- the memory of handles ---- */

TH_THREAD int th_depth;       /* releases of handles nested in this thread */
TH_THREAD PyObject *th_later; /* handles put off because of that, linked through t.when */

/* The memory of handles, collector header included. malloc's own page is small and the collector's
 * allocator counts: handles have a slab instead, which leaves the collector's layout as it expects it, the two
 * links right before the object. A handle is not counted towards the next collection; a cycle through one has
 * another container in it, which is. That layout is looked at once (th_examine_header), and where it is another one
 * CPython gives the memory. So it does without a GIL, where the collector finds its objects by their memory, and
 * for AddressSanitizer, which knows the memory of malloc. */
#define TH_TIMER_SIZE (sizeof(PyObject) + sizeof(void *) + sizeof(th_timer)) /* object, heap, record */
#define TH_LOOP_HANDLE_SIZE (TH_TIMER_SIZE + 3 * sizeof(void *)) /* and context, notes, weak references */

#if TH_FREE_THREADED || TH_ADDRESS_SANITIZER
#define th_new_object(slab, type, size) ((PyObject *)PyObject_GC_New(PyObject, type))
#define th_del_object(slab, o, size) PyObject_GC_Del(o)
#define th_examine_header(type, bytes) ((void)(bytes))
#else
static th_slab th_handles;      /* of Timers; guard: the GIL */
static th_slab th_loop_handles; /* of event loops' handles; guard: the GIL */
static int th_foreign;          /* the collector's header is not as it is made here */

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

/* An object of the type, of so many bytes: not tracked, and nothing set behind its header. */
static inline PyObject *th_new_object(th_slab *slab, PyTypeObject *type, size_t size)
{
    if (th_foreign)
        return (PyObject *)PyObject_GC_New(PyObject, type);
    uint64_t *slot = th_slab_alloc(slab, TH_COLLECTOR_BYTES + size);
    if (slot == NULL)
        return PyErr_NoMemory();
    slot[0] = slot[1] = 0; /* not tracked */
    return PyObject_Init((PyObject *)(slot + 2), type);
}

static inline void th_del_object(th_slab *slab, PyObject *o, size_t size)
{
    if (th_foreign)
        PyObject_GC_Del(o);
    else
        th_slab_free(slab, (char *)o - TH_COLLECTOR_BYTES, TH_COLLECTOR_BYTES + size);
}
#endif

#define th_new_timer(type) th_new_object(&th_handles, type, TH_TIMER_SIZE)
#define th_del_timer(o) th_del_object(&th_handles, o, TH_TIMER_SIZE)
#define th_new_loop_handle(type) th_new_object(&th_loop_handles, type, TH_LOOP_HANDLE_SIZE)
#define th_del_loop_handle(o) th_del_object(&th_loop_handles, o, TH_LOOP_HANDLE_SIZE)

/* tp_alloc: cleared, and not tracked either. */
static PyObject *th_alloc_timer(PyTypeObject *type, Py_ssize_t items)
{
    PyObject *o = th_new_timer(type);
    (void)items;
    if (o != NULL)
        memset(o + 1, 0, TH_TIMER_SIZE - sizeof(PyObject));
    return o;
}

#endif
