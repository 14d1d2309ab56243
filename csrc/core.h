/* The native state of one TimerHeap: its mutex, its keys, its slab, its run, its counters.
 *
 * Lock order. M (th_core.mutex, one a heap), C (th_channels, one a process, see channel.h) and L
 * (th_list, one a process, see fork.h) are never held together, except around fork, where L comes
 * first, then C, and the Ms follow in the order of creation. Nobody waits for the GIL, calls Python or
 * touches a reference count while holding any: so a thread that holds the GIL may take them, and they
 * are free before the worker asks for the GIL. P, of platform.h, is below them all.
 */
#ifndef TIMERHEAP_CORE_H
#define TIMERHEAP_CORE_H

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "array.h"
#include "clock.h"
#include "pages.h"
#include "platform.h"
#include "slab.h"
#include "timer.h"
#include "tuning.h"

/* Keys are stored from the fourth 16-byte place of the mapping on: the children of i, 4i + 1 to 4i + 4, then
 * share one 64-byte cache line, and a siftdown touches one line a level. */
#define TH_KEY_PAD 3

/* A field that is also read without its guard: with the GIL, if there is one, which a thread that ends does not have when
 * it leaves its post (th_post_end). */
typedef atomic_int th_flag;

#ifdef TIMERHEAP_DEBUG
typedef _Atomic uintptr_t th_holder; /* pthread_self() of who holds a mutex, 0: nobody; guard: that mutex, to write */
#endif

typedef struct th_core {
    struct th_core *prev, *next; /* in the list of all heaps; guard L */
    pthread_mutex_t mutex;
    pthread_cond_t cond;     /* only the worker waits here */
    pthread_cond_t watch;    /* only the standby does */
    atomic_int contended;    /* callers blocked on the mutex: the worker lets them in between two slices */
    int64_t wake_at;         /* when the parked worker means to wake; INT64_MIN while it is awake; guard M */

    th_key *keys;            /* the heap, keys[0] the earliest; guard M */
    size_t len, cap;
    size_t key_bytes;        /* size of the mapping below keys */
    size_t key_peak;         /* keys ever in use since the mapping was last cut: what is resident */

    size_t stops;            /* keys left behind by stop so far; guard GIL, without one M */
    size_t buried;           /* of those, taken out or in use again; guard M */
    size_t sweep_at;         /* keys[0 .. sweep_at) are still to be swept in this round; guard M */
    th_timer tomb;           /* what a dead key points at whose timer's memory is gone */

    th_timer *risers[TH_RISERS]; /* timers reset to an earlier deadline, whose keys have yet to rise; guard M */
    size_t rising;           /* so many of them */

    th_slab orphans;         /* records whose handle is gone; guard M */

    th_arrays arrays;        /* its TimerArrays; guard M */

    th_key *run;             /* due timers in firing order; the worker's own, but see TH_PINNED */
    size_t run_len, run_cap;
    size_t run_head;         /* next entry to launch; written by th_next_entry, for the standby reads it at any time */
    uint64_t runs;           /* that are over; guard M */
    size_t run_peak;         /* entries ever in use since the mapping was last cut: what is resident */

    uint64_t seq;            /* arms so far; guard M */
    uint64_t inherited;      /* armings up to this number were the parent's, before a fork; written by fork alone */
    uint64_t dropped;        /* calls of periodic timers that were missed or skipped; guard M */
    uint64_t fired, cancelled; /* guards as for the changes of state they count, see timer.h */
    size_t live;             /* timers ARMED or DUE; guards likewise */
    size_t peak;             /* most of them at once */
    uint64_t rekeyed;        /* stale keys brought up to date; guard M */
    uint64_t wakeups;        /* returns from the condition variable; guard M */
    uint64_t batches, longest; /* runs, and the entries of the longest; the worker's own */
    _Atomic int64_t late_max; /* ns that a callback was seen to be late at most; who fires writes */
    size_t errors;           /* callbacks that raised; th_count */
    size_t handles, channels; /* Timer and Channel objects of this heap in memory; th_count */

    uint64_t chan_arms, received, chan_cancelled, ticks, chan_dropped; /* guard C */
    size_t chan_live;        /* channel timers live or unread; guard C */
    size_t tickers;          /* running Tickers, which count in no other place; guard C */
    uint32_t epoch;          /* channel armings of an earlier epoch are void (close, fork); guard C */
    struct th_group *ring;   /* those who wait on its channels, a ring, see channel.h; guard C */
    uint64_t turns;          /* times that all of them were told to look again; guard C */

    atomic_int closed;       /* guard M to write; set once. A waiting receiver reads it with C alone, and no GIL */
    th_flag exiting;         /* the interpreter is on its way out: arming works, nothing fires; set once */
    th_flag running;         /* a worker exists or is being started; guard M to write */
    th_flag ready;           /* running, and the heap known to fork and exit: arming asks no more; guard M to write */
    struct th_post *post;    /* that worker's, see post.h; guard M */
    struct th_post *spare;   /* the standby's, see "Hand-over" in worker.pxi; guard M */
    int asleep;              /* the standby waits for the next run to be fired; guard M */
    struct th_post *losers;  /* of workers that have lost theirs and are still in a callback; guard M */
    uint64_t handovers;      /* times that the post was lost so; guard M */
    int detached;            /* the TimerHeap is gone: the last to leave frees this; guard M */
    th_flag pausing;         /* the worker shall leave, to come back after a fork; guard M to write */
    int parked;              /* the worker is in its wait; guard M */
    th_flag firing;          /* the worker is in fire_run; guard M to write */
    int readers;             /* without a GIL: pending() calls with copied keys and no references yet; guard M */
    void *kept;              /* PyObject *, handles that have died meanwhile, linked through t.when; guard M */
    int sorting;             /* the worker permutes the run without M: check() must wait; guard M to write */
    int left_holding;        /* after forks: how often a parent's heap held itself, see "Life" in worker.pxi */
    uint32_t generation;     /* counts forks and hand-overs: whoever finds it changed has lost the run, and the post;
                                written by fork, and by take_over under M and the GIL, if there is one */

    int64_t patience;        /* ns that a callback may hold the post for; 0: for ever. This and the next are set once */
    int64_t tolerance;       /* ns by which a wake-up may be put off */

    th_flag driven;          /* no worker: who turns the clock fires, or an event loop; this and the next are set once,
                                when other threads may find the heap among all */
    th_flag manual;          /* virtual time; driven as well */
    _Atomic int64_t manual_now;
    uint64_t driver;         /* manual heaps: th_thread() of the thread that made it */
    _Atomic uint64_t advancer; /* driven heaps: th_thread() of the thread in advance(), or in a loop's turn, else 0 */
    th_flag closing;         /* heaps of loops: the advancer waits in a close() itself, so often; guard M */
    _Atomic int64_t manual_due; /* up to here channel timers are ready: manual_now, and what nobody can tell from it */

    sigset_t callback_mask;  /* signals blocked in callbacks: as in the thread that started the first worker. This and
                                the next are his who has set running, until the thread is there */
    int mask_known;
#ifdef TIMERHEAP_DEBUG
    th_holder holder;        /* of M */
#endif
} th_core;

static _Atomic uint64_t th_threads; /* threads that have a number */
TH_THREAD uint64_t th_number;

/* The number of the calling thread, from 1. Unlike its ident it never becomes another thread's; it survives a fork. */
static inline uint64_t th_thread(void)
{
    if (th_number == 0)
        th_number = atomic_fetch_add(&th_threads, 1) + 1;
    return th_number;
}

static inline int64_t th_now(th_core *c)
{
    if (c->manual)
        return atomic_load_explicit(&c->manual_now, memory_order_relaxed);
    return th_monotonic();
}

/* The last deadline that counts as reached. On a manual clock that is whatever is shown as the time that is shown: at
 * 1.7e9 seconds a double stands for 238 nanoseconds. */
static inline int64_t th_due(th_core *c)
{
    if (c->manual)
        return atomic_load_explicit(&c->manual_due, memory_order_relaxed);
    return th_monotonic();
}

/* A callback with this deadline is about to be launched, by whoever fires. */
static inline void th_note_late(th_core *c, int64_t when)
{
    int64_t late = th_now(c) - when;
    if (late > atomic_load_explicit(&c->late_max, memory_order_relaxed))
        atomic_store_explicit(&c->late_max, late, memory_order_relaxed);
}

static inline void th_set_due(th_core *c, int64_t due)
{
    atomic_store_explicit(&c->manual_due, due, memory_order_relaxed);
}

static inline void th_set_manual(th_core *c, int64_t now)
{
    int64_t due = th_last_shown(now, th_to_seconds(now));
    atomic_store_explicit(&c->manual_now, now, memory_order_relaxed);
    if (due > th_due(c)) /* what is ready stays so */
        th_set_due(c, due);
}

/* A channel timer is armed. An advance may have made due more than the clock shows, see ManualHeap.advance; that was
 * for timers before it, and ends where this one would be taken for one of them. */
static inline void th_limit_due(th_core *c, int64_t when)
{
    int64_t due, now;
    if (!c->manual)
        return;
    due = th_due(c);
    now = th_now(c);
    if (when <= due && th_to_seconds(when) > th_to_seconds(now))
        atomic_compare_exchange_strong(&c->manual_due, &due, th_last_shown(now, th_to_seconds(now)));
}

/* Who holds a mutex, in a debug build: what needs M or C asserts that the calling thread holds it. Not by th_thread(),
 * which each translation unit of tests/native would count for itself. */
#ifdef TIMERHEAP_DEBUG
#define th_note_held(holder) atomic_store((holder), (uintptr_t)pthread_self())
#define th_note_free(holder) atomic_store((holder), 0)
#define th_assert_holder(holder) th_assert_mine((holder), __func__)

static inline void th_assert_mine(th_holder *holder, const char *where)
{
    if (atomic_load(holder) != (uintptr_t)pthread_self()) {
        fprintf(stderr, "timerheap: %s without its mutex\n", where);
        abort();
    }
}
#else
#define th_note_held(holder) ((void)0)
#define th_note_free(holder) ((void)0)
#define th_assert_holder(holder) ((void)0)
#endif

#define th_assert_held(c) th_assert_holder(&(c)->holder)

static inline void th_lock(th_core *c)
{
    if (pthread_mutex_trylock(&c->mutex) != 0) {
        atomic_fetch_add(&c->contended, 1);
        pthread_mutex_lock(&c->mutex);
        atomic_fetch_sub(&c->contended, 1);
    }
    th_note_held(&c->holder);
}

static inline void th_unlock(th_core *c)
{
    th_assert_held(c);
    th_note_free(&c->holder);
    pthread_mutex_unlock(&c->mutex);
}

/* In M's place, where the GIL alone guards a heap. */
static inline void th_lock_alone(th_core *c)
{
    (void)c;
    th_note_held(&c->holder);
}

static inline void th_unlock_alone(th_core *c)
{
    th_assert_held(c);
    th_note_free(&c->holder);
}

/* Without M, between two slices of long work: a mutex is not fair, so step back until those who wait have been in.
 * Bounded: a caller that was preempted must not stop the worker for longer than it takes to give it the processor. */
static inline void th_give_way(th_core *c)
{
    for (int i = 0; i < 64 && atomic_load(&c->contended) > 0; i++)
        sched_yield();
}

/* The same, with M held. */
static inline void th_yield_lock(th_core *c)
{
    th_unlock(c);
    th_give_way(c);
    th_lock(c);
}

/* (Re)make mutex and condition variable: at birth, and in the child of a fork, where they are overwritten and not
 * destroyed (destroying a condition variable waits for its sleepers, and the child has none). */
static inline void th_init_locks(th_core *c)
{
    pthread_mutex_init(&c->mutex, NULL);
    th_init_cond(&c->cond);
    th_init_cond(&c->watch);
    atomic_store(&c->contended, 0);
    c->wake_at = INT64_MIN;
    c->parked = c->asleep = 0;
    th_note_free(&c->holder);
}

static inline void th_destroy_locks(th_core *c)
{
    pthread_cond_destroy(&c->watch);
    pthread_cond_destroy(&c->cond);
    pthread_mutex_destroy(&c->mutex);
}

/* What a core has mapped goes back. */
static inline void th_core_unmap(th_core *c)
{
    th_unmap(c->keys ? c->keys - TH_KEY_PAD : NULL, c->key_bytes);
    th_unmap(c->run, c->run_cap * sizeof(th_key));
    th_slab_end(&c->orphans);
    th_arrays_end(&c->arrays);
}

/* The end of a core that nobody needs any more. */
static inline void th_core_free(th_core *c)
{
    th_core_unmap(c);
    th_destroy_locks(c);
    free(c);
}

/* A counter that every thread moves: the GIL makes a plain addition exact, without one it has to be atomic. */
static inline void th_count(size_t *counter, int by)
{
#ifdef Py_GIL_DISABLED
    __atomic_fetch_add(counter, (size_t)(ptrdiff_t)by, __ATOMIC_RELAXED);
#else
    *counter += (size_t)(ptrdiff_t)by;
#endif
}

static inline size_t th_counted(const size_t *counter)
{
#ifdef Py_GIL_DISABLED
    return __atomic_load_n(counter, __ATOMIC_RELAXED);
#else
    return *counter;
#endif
}

/* Park the worker for wake_at: until that and tolerance, a signal of the condition variable, or for no reason at all.
 * Callers signal for what is earlier than wake_at. M is held on entry and on return. Returns with wake_at at INT64_MIN:
 * an awake worker looks at the root by itself. */
static inline void th_park(th_core *c, int64_t wake_at)
{
    th_assert_held(c);
    c->wake_at = wake_at;
    c->parked = 1;
    th_note_free(&c->holder);
    th_wait_cond(&c->cond, &c->mutex, th_deadline(wake_at, c->tolerance));
    th_note_held(&c->holder);
    c->parked = 0;
    c->wake_at = INT64_MIN;
    c->wakeups++;
}

/* Whether the worker has been signalled, or its deadline has come, and it has yet to get M: of that contended tells
 * nothing, for it is in its wait. M is held. */
static inline int th_worker_waits(th_core *c)
{
    th_assert_held(c);
    return c->parked && th_deadline(c->wake_at, c->tolerance) <= th_now(c);
}

static inline void th_signal(th_core *c)
{
    pthread_cond_signal(&c->cond);
}

/* Let the standby wait until then, TH_NEVER for the next run to be fired, a signal, or for no reason at all. M is held
 * on entry and on return. */
static inline void th_stand_by(th_core *c, int64_t until)
{
    th_assert_held(c);
    c->asleep = until == TH_NEVER;
    th_note_free(&c->holder);
    th_wait_cond(&c->watch, &c->mutex, until);
    th_note_held(&c->holder);
    c->asleep = 0;
}

static inline void th_rouse(th_core *c)
{
    pthread_cond_signal(&c->watch);
}

/* Worker and standby have been told to leave. */
static inline void th_signal_all(th_core *c)
{
    th_signal(c);
    th_rouse(c);
}

/* The number of the next run entry, which is being launched. A plain addition but for who reads beside it. */
static inline size_t th_next_entry(th_core *c)
{
    size_t head = c->run_head;
    __atomic_store_n(&c->run_head, head + 1, __ATOMIC_RELAXED);
    return head;
}

static inline size_t th_run_head(const th_core *c)
{
    return __atomic_load_n(&c->run_head, __ATOMIC_RELAXED);
}

/* For who reads beside a hand-over, and looks again under M before relying on it. */
static inline uint32_t th_generation(const th_core *c)
{
    return __atomic_load_n(&c->generation, __ATOMIC_RELAXED);
}

/* A millisecond, for whoever has nothing to go on with. */
static inline void th_nap(void)
{
    th_pause(TH_NS_PER_S / 1000);
}

/* The system rounds a thread's sleeps up by its slack, where there is such a thing. */
static inline void th_precise_sleeps(void)
{
    th_set_slack(1);
}

#endif
