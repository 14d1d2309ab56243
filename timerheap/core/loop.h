/* An event loop's timers, native: the heap, and the handles that call_later and call_at return. See loop_handles.pxi. */
#ifndef TIMERHEAP_LOOP_H
#define TIMERHEAP_LOOP_H

#include <Python.h>

#include <string.h>

#include "core.h"
#include "interpreter.h"

/* The names that asyncio's clock goes by are in these dicts: the globals of two modules, and the loop's attributes.
 * Whether they may have changed is asked with each arming, so not by looking them up, where CPython tells of changes: by
 * a watcher, from 3.12 on, before that by versions. */
enum { TH_NAMED = 3 };

#if PY_VERSION_HEX >= 0x030C0000
typedef struct th_names {
    uint64_t version; /* th_names_version when they were looked up; 0: they are to be */
} th_names;

static uint64_t th_names_version = 1; /* grows with each change of a dict that is watched */

static int th_note_change(PyDict_WatchEvent event, PyObject *dict, PyObject *key, PyObject *value)
{
    (void)event, (void)dict, (void)key, (void)value;
    __atomic_add_fetch(&th_names_version, 1, __ATOMIC_RELAXED);
    return 0;
}

static inline int th_names_may_differ(const th_names *names, PyObject *const dicts[TH_NAMED])
{
    (void)dicts;
    return names->version != __atomic_load_n(&th_names_version, __ATOMIC_RELAXED);
}

static inline void th_forget_names(th_names *names) { names->version = 0; }

/* They are as they are looked up from now on. Called before they are. */
static inline void th_watch_names(th_names *names, PyObject *const dicts[TH_NAMED])
{
    static int watcher = -2; /* -1: there is none left */
    int i, good;
    if (watcher == -2)
        watcher = PyDict_AddWatcher(th_note_change);
    good = watcher >= 0;
    for (i = 0; good && i < TH_NAMED; i++)
        good = PyDict_Watch(watcher, dicts[i]) == 0;
    if (!good)
        PyErr_Clear();
    names->version = good ? __atomic_load_n(&th_names_version, __ATOMIC_RELAXED) : 0;
}
#else
typedef struct th_names {
    uint64_t version[TH_NAMED];
} th_names;

static inline void th_forget_names(th_names *names) { names->version[0] = 0; /* which none has */ }

static inline void th_watch_names(th_names *names, PyObject *const dicts[TH_NAMED])
{
    int i;
    for (i = 0; i < TH_NAMED; i++)
        names->version[i] = ((PyDictObject *)dicts[i])->ma_version_tag;
}

static inline int th_names_may_differ(const th_names *names, PyObject *const dicts[TH_NAMED])
{
    int i, differ = 0;
    for (i = 0; i < TH_NAMED; i++)
        differ |= names->version[i] != ((PyDictObject *)dicts[i])->ma_version_tag;
    return differ;
}
#endif

/* What a LoopTimers has. */
typedef struct th_loop {
    th_core core;
    th_names names;
    PyObject *dicts[TH_NAMED]; /* borrowed, of names */
    size_t hidden; /* handles that the collector is not shown */
    int running;   /* how often run_forever is under way: not twice, but programs try */
    int debug;     /* the loop's debug mode */
    int planning;  /* the loop's own call_later is being asked: what it arms is its own */
} th_loop;

/* A LoopHandle, as Cython lays it out; so no reference to it is taken by accident where it has none. */
typedef struct th_loop_handle {
    PyObject_HEAD
    PyObject *timers;  /* LoopTimers, owned */
    th_timer t;
    PyObject *context; /* owned; NULL: called in none of its own */
    PyObject *notes;   /* owned; in debug mode a list, see LoopHandle._notes, else NULL */
    PyObject *weak;
} th_loop_handle;

_Static_assert(sizeof(th_loop_handle) == TH_LOOP_HANDLE_SIZE, "as the slab's slots");

static inline th_loop_handle *th_handle_of_loop(th_timer *t)
{
    return (th_loop_handle *)((char *)t - offsetof(th_loop_handle, t));
}

TH_THREAD int th_loop_depth;       /* releases of such handles nested in this thread */
TH_THREAD PyObject *th_loop_later; /* those put off because of that, linked through t.when */

/* Deadlines of a loop are doubles, on any clock. Their order is that of these integers: the bits of a double that is
 * not negative grow with it; those of a negative one, a sign and a magnitude, are turned over. */
static inline int64_t th_key_of_double(double when)
{
    int64_t bits;
    memcpy(&bits, &when, sizeof(bits));
    return bits < 0 ? bits ^ INT64_MAX : bits;
}

static inline double th_double_of_key(int64_t key)
{
    double when;
    key = key < 0 ? key ^ INT64_MAX : key;
    memcpy(&when, &key, sizeof(when));
    return when;
}

#endif
