/* fork() copies the memory but only one thread: what is half done under a mutex stays half done in the child.
 *
 * So L, C and every M are taken around the fork itself, by the C library's own hooks. Those run inside
 * fork(), with no Python between them. Python's hooks (os.register_at_fork) would be too early and too
 * late: other hooks run before and after, which may arm and stop timers, and may give up the GIL to a
 * thread that does. Either would wait for an M for ever.
 *
 * The child has none of its parent's timers, and pays for none. A record is void there by the number of its arming:
 * what was armed up to core.inherited, the parent had armed. Keys and run begin anew in the memory that they have, and
 * nothing is walked. What a void record holds goes with its handle, should that be dropped; records without one stay as
 * they are, callbacks and all, until the child ends: no finalizer of theirs runs there, and no page of theirs is made
 * private.
 *
 * Until the hook in fork.pxi has run, the heaps are pausing: what is armed starts no worker.
 */
#ifndef TIMERHEAP_FORK_H
#define TIMERHEAP_FORK_H

#include "channel.h"
#include "post.h"

static pthread_mutex_t th_list = PTHREAD_MUTEX_INITIALIZER; /* L */
static th_core *th_first, *th_last;                         /* all heaps in the order of creation; guard L */

static inline void th_enlist(th_core *c)
{
    pthread_mutex_lock(&th_list);
    c->prev = th_last;
    *(th_last ? &th_last->next : &th_first) = c;
    th_last = c;
    pthread_mutex_unlock(&th_list);
}

static inline void th_delist(th_core *c)
{
    pthread_mutex_lock(&th_list);
    *(c->prev ? &c->prev->next : &th_first) = c->next;
    *(c->next ? &c->next->prev : &th_last) = c->prev;
    pthread_mutex_unlock(&th_list);
}

static void th_before_fork(void)
{
    pthread_mutex_lock(&th_list);
    th_chan_lock();
    for (th_core *c = th_first; c; c = c->next) {
        th_lock(c);
        while (c->sorting)
            th_yield_lock(c);
    }
}

static void th_after_fork_in_parent(void)
{
    for (th_core *c = th_first; c; c = c->next)
        th_unlock(c);
    th_chan_unlock();
    pthread_mutex_unlock(&th_list);
}

/* What th_before_fork has found consistent, and nobody else can see yet. */
static void th_disown(th_core *c)
{
    c->left_holding += c->live > 0 && !c->driven; /* a child may fork before its hook has run */
    c->inherited = c->seq;
    c->cancelled += c->live;
    c->live = c->len = c->rising = 0;
    c->stops = c->buried = c->sweep_at = 0;
    c->run_head = c->run_len = 0;
    c->readers = 0; /* threads that are not in the child */
    c->kept = NULL;
    memset(&c->orphans, 0, sizeof(c->orphans));
    th_void_arrays(&c->arrays);
}

/* The thread that forked is the one that took the mutexes, and gives them back; they are then made anew for the sake
 * of those who stood before them. */
static void th_after_fork_in_child(void)
{
    th_platform_after_fork();
    th_after_fork_in_parent();
    pthread_mutex_init(&th_list, NULL);
    th_channels_after_fork();
    if (th_my_post != NULL)
        th_my_post->forked = 1;
    for (th_core *c = th_first; c; c = c->next) {
        th_init_locks(c);
        th_disown(c);
        th_post_after_fork(c);
        c->generation++;
        c->epoch++;
        c->chan_cancelled += c->chan_live;
        c->chan_live = c->tickers = 0;
        c->ring = NULL;
        if (c->advancer != th_thread())
            c->advancer = 0; /* that thread is not in the child */
        if (c->driven && !c->manual)
            c->wake_at = TH_NEVER; /* a loop that has not been asked for anything */
        c->closing = 0;
        c->exiting = c->firing = 0;
        c->running = c->ready = c->driven;
        c->pausing = 1;
    }
}

/* In the child, once Python is in order there: workers may start. Or the program is ending, and there will be none. */
static inline void th_settle_child(int ending)
{
    pthread_mutex_lock(&th_list);
    for (th_core *c = th_first; c; c = c->next) {
        th_lock(c);
        c->exiting = ending && !c->driven;
        c->pausing = 0;
        th_unlock(c);
    }
    pthread_mutex_unlock(&th_list);
}

/* Once a process. 0, or an error number. */
static inline int th_watch_forks(void)
{
    return pthread_atfork(th_before_fork, th_after_fork_in_parent, th_after_fork_in_child);
}

#endif
