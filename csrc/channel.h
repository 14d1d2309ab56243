/* Channel timers: no heap entry and no worker, only a deadline that every receiver compares with the clock.
 *
 * A channel timer that nobody waits on costs nothing while it runs; whoever polls it finds it ready
 * as soon as its deadline has passed. Whoever blocks on it sleeps until that deadline on a futex of
 * its own:
 *
 *   - Blocked receivers stand in line at each channel they wait on (a th_node a channel). The first in line sleeps
 *     until the channel's deadline, the others until something changes: one firing wakes one receiver.
 *   - Who leaves the head of a line wakes the next, who then takes over the watch.
 *   - Who changes a deadline (reset, stop, close, a turn of a manual clock) wakes the head of the line.
 *
 * One mutex, C, guards all of it, for all heaps: a select spans channels of any heap, and a
 * critical section is a few comparisons. Never held together with a heap's M; no Python under it
 * (see core.h).
 */
#ifndef TIMERHEAP_CHANNEL_H
#define TIMERHEAP_CHANNEL_H

#include <errno.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core.h"

typedef struct th_chan {
    th_core *core;              /* its heap's; the Channel holds the heap */
    int64_t when;               /* deadline, ns: of the oldest undelivered tick for a Ticker; guard C */
    int64_t period;             /* ns between ticks, 0 for a Timer; guard C */
    struct th_node *head, *tail; /* the line of blocked receivers; guard C */
    uint32_t epoch;             /* core->epoch at the arming; guard C */
    uint32_t live;              /* armed, or expired and not received; guard C. Read with th_chan_live() */
} th_chan;

typedef struct th_node {
    struct th_node *prev, *next; /* neighbours in the channel's line; guard C */
    th_chan *chan;
    struct th_waiter *waiter;
} th_node;

/* A blocked thread. Lives in that thread's call; linked into th_waiters while it waits. */
typedef struct th_waiter {
    struct th_waiter *prev, *next;
    th_node *nodes;
    size_t count;
    _Atomic uint32_t woken; /* the futex: 1 once there is something to look at */
} th_waiter;

static pthread_mutex_t th_channels = PTHREAD_MUTEX_INITIALIZER; /* C */
static th_waiter *th_waiters;                                   /* all blocked threads; guard C */
static uint64_t th_random_state = UINT64_C(0x9E3779B97F4A7C15);  /* guard C */

static inline void th_chan_lock(void) { pthread_mutex_lock(&th_channels); }
static inline void th_chan_unlock(void) { pthread_mutex_unlock(&th_channels); }

/* xorshift64 (Marsaglia 2003): fair enough to pick among ready channels. Caller holds C. */
static inline size_t th_random_below(size_t n)
{
    uint64_t x = th_random_state;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    th_random_state = x;
    return (size_t)(x % n);
}

static inline void th_wake(th_waiter *w)
{
    atomic_store(&w->woken, 1);
    syscall(SYS_futex, &w->woken, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

/* Before another sleep; caller holds C, so that no wake is overwritten. */
static inline void th_rearm_wait(th_waiter *w)
{
    atomic_store(&w->woken, 0);
}

/* Sleep until woken, the absolute deadline, a signal, or for no reason. Returns EINTR after a signal, else 0. */
static inline int th_wait(th_waiter *w, int64_t deadline)
{
    struct timespec ts = th_timespec(deadline);
    long r = syscall(SYS_futex, &w->woken, FUTEX_WAIT_BITSET_PRIVATE, 0, deadline == TH_NEVER ? NULL : &ts, NULL,
                     FUTEX_BITSET_MATCH_ANY);
    return r == -1 && errno == EINTR ? EINTR : 0;
}

/* Sleep until the absolute deadline. Returns EINTR after a signal, else 0. */
static inline int th_sleep_until(int64_t deadline)
{
    struct timespec ts = th_timespec(deadline);
    return clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL) == EINTR ? EINTR : 0;
}

/* Run by a blocking call around its sleeps: the default slack would add 50 us to each. */
static inline unsigned long th_slack_fine(void)
{
    long slack = prctl(PR_GET_TIMERSLACK, 0UL, 0UL, 0UL, 0UL);
    th_precise_sleeps();
    return slack > 0 ? (unsigned long)slack : 1UL;
}

static inline void th_slack_restore(unsigned long slack)
{
    prctl(PR_SET_TIMERSLACK, slack, 0UL, 0UL, 0UL);
}

static inline int th_chan_live(const th_chan *ch)
{
    return ch->live && ch->epoch == ch->core->epoch;
}

/* In the child of a fork: the threads that waited are gone, and so is whoever held C. */
static inline void th_channels_after_fork(void)
{
    pthread_mutex_init(&th_channels, NULL);
    for (th_waiter *w = th_waiters; w; w = w->next)
        for (size_t i = 0; i < w->count; i++)
            w->nodes[i].chan->head = w->nodes[i].chan->tail = NULL;
    th_waiters = NULL;
}

#endif
