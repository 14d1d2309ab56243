/* Channel timers: no heap entry and no worker, only a deadline that every receiver compares with the clock.
 *
 * A channel timer that nobody waits on costs nothing while it runs; whoever polls it finds it ready
 * as soon as its deadline has passed. Whoever blocks on it sleeps until that deadline on a word of
 * its own:
 *
 *   - Blocked receivers stand in line at each channel they wait on (a th_node a channel), in the order in which they
 *     began to. The first in line watches the channel, the others wait for their turn: one firing wakes one receiver.
 *   - Who leaves the head of a line hands the watch to the next. Whoever has left for the handlers of signals comes
 *     back to its place: the main thread looks for signals now and then, and would never be the first in a long line.
 *   - Who changes a channel so that its watcher has to look (an earlier deadline, a new arming, a stop, a handing over)
 *     puts the head's node on the list of changed nodes of its waiter, and wakes that. The waiter then looks at
 *     those nodes only. The stop of a Ticker, which ends iterations, goes down the line from one to the next.
 *   - A waiter keeps the deadlines it watches in a heap of its own, by the deadline it saw last: the root says how
 *     long to sleep, and what has become due. A reset to later tells nobody; the key is early then, and is put right
 *     when it surfaces.
 *   - close() and a turn of a manual clock concern every channel of one heap. So each heap has a ring of those who
 *     wait on any of its channels (a th_group a heap and waiter), and they look at all of theirs again.
 *
 * So for each of its nodes that is the first in line, a waiter that sleeps has seen that there is nothing to receive,
 * and has a key no later than the deadline, if there is one and it is not on a manual clock.
 *
 * One mutex, C, guards all of it, for all heaps: a select spans channels of any heap. No hold of it grows with the
 * channels of a select, the waiters of a heap or anything else, but where the waiters of a manual heap are counted.
 * Joining the lines, leaving them and looking at
 * many go in slices, between which C is handed to whoever waits for it. So a select over more than one slice sees its
 * channels one after another, not all at one moment: what it has seen ready it takes only if it is so still, and
 * what changes behind its back is noted. Never held together with a heap's M; no Python under it (see core.h).
 *
 * A waiter need not be a thread: a coroutine stands in line by a th_waiter as well. What it has instead of a word to
 * sleep on is a bell, core/bells.pxi: whoever wakes it puts the bell among th_told, and rings it, which takes Python,
 * as soon as C is free.
 *
 * A fork copies lines whose waiters are not in the child: lines of an earlier generation are void there. An arming of
 * an earlier epoch is void as well (close() and fork begin a new one); what is live but of an earlier epoch, in a heap
 * that is open, was armed before a fork, and to wait for it is an error.
 */
#ifndef TIMERHEAP_CHANNEL_H
#define TIMERHEAP_CHANNEL_H

#include "core.h"
#include "platform.h"

typedef struct th_chan {
    th_core *core;               /* its heap's; the Channel holds the heap */
    int64_t when;                /* deadline, ns: of the oldest undelivered tick for a Ticker; guard C */
    int64_t period;              /* ns between ticks, 0 for a Timer; guard C */
    struct th_node *head, *tail; /* the line of blocked receivers; guard C. Read with th_line() */
    uint32_t epoch;              /* core->epoch at the arming; guard C */
    uint32_t live : 1;           /* armed, or expired and not received; guard C. Read with th_chan_live() */
    uint32_t forks : 31;         /* the generation of the line: void unless it is th_forks; guard C */
} th_chan;

/* A place in the line of one channel. The waiter's: written by others where it says so. */
typedef struct th_node {
    struct th_node *prev, *next; /* neighbours in the channel's line; guard C */
    struct th_node *changed;     /* the next of the waiter's changed nodes, itself for the last, NULL for none of them;
                                    guard C */
    th_chan *chan;
    struct th_waiter *waiter;
    size_t place;                /* of its key in the waiter's heap, from 1; 0: it has none. The waiter's own */
} th_node;

/* A key of a waiter's heap. */
typedef struct th_watch {
    int64_t when; /* no later than the channel's deadline */
    th_node *node;
} th_watch;

/* A waiter in the ring of a heap on whose channels it waits. There may be two of one waiter. */
typedef struct th_group {
    struct th_group *prev, *next; /* guard C */
    th_core *core;
    struct th_waiter *waiter;
    uint64_t mark; /* core->turns when it joined or was told to look again; guard C */
} th_group;

/* What wakes a waiter that is no thread. */
typedef struct th_bell {
    struct th_bell *next; /* among th_told; guard C */
    void *object;         /* PyObject *, the Bell that this is in */
} th_bell;

/* A blocked thread, and lives in that thread's call; or a coroutine, see core/loop_channels.pxi. */
typedef struct th_waiter {
    th_node *nodes; /* one for each channel, in the order of the arguments */
    size_t count;
    th_group *groups;
    size_t heaps;           /* so many groups */
    th_watch *watches;      /* a binary heap by when, with room for every node; the waiter's own */
    size_t watched;         /* keys in it */
    th_node *changed;       /* nodes to look at; guard C */
    int again;              /* all of them are; guard C */
    uint64_t arrival;       /* its number among all waiters, 0 before it first joined a line; guard C */
    th_core *clock;         /* what its timeout counts by; guard C, and so is the next */
    int64_t until;          /* when that ends, TH_NEVER without one */
    _Atomic uint32_t woken; /* its word: 0 while it sleeps, or is about to, and there is nothing to look at */
    th_bell *bell;          /* a coroutine's while woken is 0, with a reference to its object; else NULL; guard C */
} th_waiter;

static pthread_mutex_t th_channels = PTHREAD_MUTEX_INITIALIZER;  /* C */
static atomic_int th_channels_contended;                         /* threads blocked on it */
static uint32_t th_forks;                                        /* between the first process and this; guard C */
static uint64_t th_random_state = UINT64_C(0x9E3779B97F4A7C15);  /* guard C */
static uint64_t th_arrivals;                                     /* waiters so far; guard C */
static _Atomic(th_bell *) th_told;                               /* bells to ring; guard C to write */
static th_bell *th_told_last;                                    /* guard C */

/* Debug builds count the steps between two offers of C, for a test of what a slice may be: channels looked at, nodes
 * put into lines, waiters woken, and so on. */
#ifdef TIMERHEAP_DEBUG
static th_holder th_chan_holder;       /* of C */
static size_t th_steps, th_most_steps; /* since the last offer; the most there were. Guard C */

static inline void th_step(void) { th_steps++; }

static inline void th_end_slice(void)
{
    if (th_steps > th_most_steps)
        th_most_steps = th_steps;
    th_steps = 0;
}
#else
static inline void th_step(void) {}
static inline void th_end_slice(void) {}
#endif

#define th_assert_chan_held() th_assert_holder(&th_chan_holder)

static inline void th_chan_lock(void)
{
    if (pthread_mutex_trylock(&th_channels) != 0) {
        atomic_fetch_add(&th_channels_contended, 1);
        pthread_mutex_lock(&th_channels);
        atomic_fetch_sub(&th_channels_contended, 1);
    }
    th_note_held(&th_chan_holder);
}

static inline void th_chan_unlock(void)
{
    th_assert_chan_held();
    th_end_slice();
    th_note_free(&th_chan_holder);
    pthread_mutex_unlock(&th_channels);
}

/* Between two slices: as th_yield_lock, and nothing at all while nobody waits. */
static inline void th_chan_offer(void)
{
    th_assert_chan_held();
    th_end_slice();
    if (atomic_load(&th_channels_contended) == 0)
        return;
    th_chan_unlock();
    for (int i = 0; i < 64 && atomic_load(&th_channels_contended) > 0; i++)
        sched_yield();
    th_chan_lock();
}

/* The most steps there were since the last call; 0 in a release build. */
static inline size_t th_longest_slice(void)
{
    size_t most = 0;
#ifdef TIMERHEAP_DEBUG
    th_chan_lock();
    most = th_most_steps;
    th_most_steps = th_steps = 0;
    th_chan_unlock();
#endif
    return most;
}

/* xorshift64 (Marsaglia 2003): fair enough to pick among ready channels. Caller holds C. */
static inline size_t th_random_below(size_t n)
{
    th_assert_chan_held();
    uint64_t x = th_random_state;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    th_random_state = x;
    return (size_t)(x % n);
}

/* The head of the channel's line, or NULL. Caller holds C, as for all that follows up to th_wait. */
static inline th_node *th_line(const th_chan *ch)
{
    th_assert_chan_held();
    return ch->forks == th_forks ? ch->head : NULL;
}

/* Whether it is armed, or expired and not received, in this epoch of its heap. */
static inline int th_chan_live(const th_chan *ch)
{
    th_assert_chan_held();
    th_step();
    return ch->live && ch->epoch == ch->core->epoch;
}

static inline void th_arrive(th_waiter *w)
{
    th_assert_chan_held();
    if (w->arrival == 0)
        w->arrival = ++th_arrivals;
}

/* Before those who arrived later: one step for each of them. */
static inline size_t th_join_line(th_node *node)
{
    th_assert_chan_held();
    th_chan *ch = node->chan;
    th_node *prev;
    size_t steps = 1;
    th_step();
    if (ch->forks != th_forks) {
        ch->head = ch->tail = NULL;
        ch->forks = th_forks;
    }
    for (prev = ch->tail; prev != NULL && prev->waiter->arrival > node->waiter->arrival; prev = prev->prev) {
        th_step();
        steps++;
    }
    node->changed = NULL;
    node->prev = prev;
    node->next = prev ? prev->next : ch->head;
    *(prev ? &prev->next : &ch->head) = node;
    *(node->next ? &node->next->prev : &ch->tail) = node;
    return steps;
}

/* True if the next one has to look: after the first, or after one who has been told of something and goes before having
 * looked. */
static inline int th_leave_line(th_node *node)
{
    th_assert_chan_held();
    th_chan *ch = node->chan;
    th_step();
    *(node->prev ? &node->prev->next : &ch->head) = node->next;
    *(node->next ? &node->next->prev : &ch->tail) = node->prev;
    return node->prev == NULL || node->changed != NULL;
}

/* At the end of the ring: marks rise from core->ring on. */
static inline void th_join_ring(th_group *g)
{
    th_assert_chan_held();
    th_core *c = g->core;
    th_step();
    g->mark = c->turns;
    g->prev = c->ring ? c->ring->prev : g;
    g->next = c->ring ? c->ring : g;
    g->prev->next = g->next->prev = g;
    if (c->ring == NULL)
        c->ring = g;
}

static inline void th_leave_ring(th_group *g)
{
    th_assert_chan_held();
    th_core *c = g->core;
    th_step();
    if (c->ring == g)
        c->ring = g->next == g ? NULL : g->next;
    g->prev->next = g->next;
    g->next->prev = g->prev;
}

/* Without C: whether there are bells to ring. Whoever has put one there finds it, unless it is being rung. */
static inline int th_bells(void)
{
    return atomic_load_explicit(&th_told, memory_order_relaxed) != NULL;
}

/* All of them, in the order in which they were told, with a reference to the object of each. */
static inline th_bell *th_take_bells(void)
{
    th_assert_chan_held();
    th_bell *first = atomic_load_explicit(&th_told, memory_order_relaxed);
    atomic_store_explicit(&th_told, NULL, memory_order_relaxed);
    return first;
}

static inline void th_tell(th_bell *bell)
{
    th_assert_chan_held();
    bell->next = NULL;
    if (th_bells())
        th_told_last->next = bell;
    else
        atomic_store_explicit(&th_told, bell, memory_order_relaxed);
    th_told_last = bell;
}

/* True if that took a call that wakes threads. */
static inline int th_wake(th_waiter *w)
{
    th_assert_chan_held();
    th_step();
    if (atomic_exchange(&w->woken, 1))
        return 0;
    if (w->bell != NULL) {
        th_tell(w->bell);
        w->bell = NULL;
        return 0;
    }
    th_wake_sleepers((uint32_t *)&w->woken, 1);
    return 1;
}

/* The waiter of node, if there is one, has to look. Returns as th_wake. */
static inline int th_note(th_node *node)
{
    th_assert_chan_held();
    if (node == NULL)
        return 0;
    if (node->changed == NULL) {
        node->changed = node->waiter->changed ? node->waiter->changed : node;
        node->waiter->changed = node;
    }
    return th_wake(node->waiter);
}

/* Whoever is first in line has to look: at a new deadline, at having become the first, or at a stop. */
static inline int th_note_head(th_chan *ch)
{
    th_assert_chan_held();
    return th_note(th_line(ch));
}

/* Take one of the changed nodes, of which there are some, off the list. */
static inline th_node *th_next_changed(th_waiter *w)
{
    th_assert_chan_held();
    th_node *node = w->changed;
    th_step();
    w->changed = node->changed == node ? NULL : node->changed;
    node->changed = NULL;
    return node;
}

/* Before a sleep, once all has been looked at, in the same hold. */
static inline void th_rearm_wait(th_waiter *w)
{
    th_assert_chan_held();
    atomic_store(&w->woken, 0);
}

/* Whether it has seen all there is to see, and sleeps or is about to. */
static inline int th_asleep(const th_waiter *w)
{
    th_assert_chan_held();
    return atomic_load(&w->woken) == 0;
}

/* After it, or when it never comes to one: nobody need wake this waiter. */
static inline void th_stay_awake(th_waiter *w)
{
    th_assert_chan_held();
    atomic_store(&w->woken, 1);
}

/* Likewise for a coroutine. Its bell, with a reference, if it has not been told; else NULL. */
static inline th_bell *th_take_bell(th_waiter *w)
{
    th_bell *bell = w->bell;
    th_stay_awake(w);
    w->bell = NULL;
    return bell;
}

/* Sleep until woken, the absolute deadline, a signal, or for no reason. Returns EINTR after a signal, else 0. */
static inline int th_wait(th_waiter *w, int64_t deadline)
{
    return th_await_word((uint32_t *)&w->woken, 0, deadline);
}

/* Run by a blocking call around its sleeps: Linux's default slack would add 50 us to each. */
static inline unsigned long th_slack_fine(void)
{
    unsigned long slack = th_slack();
    th_precise_sleeps();
    return slack ? slack : 1;
}

static inline void th_slack_restore(unsigned long slack)
{
    th_set_slack(slack);
}

/* In the child of a fork: the threads that waited are gone, and so is whoever stood before C. */
static inline void th_channels_after_fork(void)
{
    pthread_mutex_init(&th_channels, NULL);
    atomic_store(&th_channels_contended, 0);
    th_forks = (th_forks + 1) & 0x7fffffff;
}

#endif
