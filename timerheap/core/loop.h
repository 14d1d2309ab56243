/* An event loop's timers, native: the heap, and the handles that call_later and call_at return. See loop_handles.pxi. */
#ifndef TIMERHEAP_LOOP_H
#define TIMERHEAP_LOOP_H

#include <Python.h>

#include <string.h>

#include "core.h"
#include "interpreter.h"

/* What a LoopTimers has. */
typedef struct th_loop {
    th_core core;
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
    PyObject *notes;   /* owned; in debug mode [where it was made, how it looked when it was cancelled], else NULL */
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
