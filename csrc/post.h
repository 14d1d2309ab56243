/* A worker's post: what a heap and its native thread know of each other, and how that thread begins and ends. The
 * standby of a heap with patience has one as well, core.spare, which may become core.post: see "Hand-over" in
 * worker.pxi.
 *
 * The thread is had from the C library by way of CPython's PyThread_start_new_thread, and by no name that a program may
 * replace (threading.Thread, _thread.start_new_thread, current_thread: gevent, eventlet, tracers and mocks do).
 * Starting runs no Python, so nothing can come between, and nothing that it takes from the starter is handed on by
 * accident.
 *
 * The post is written down in core.post, under M, before the thread is asked for, and taken back when there is none.
 * The thread leaves it under M as well, in the same hold in which it finds that it has to go: from then on the next
 * arming starts another. A thread that ends in any other way (pthread_exit in foreign code) leaves by th_post_end,
 * which the C library calls for every thread that ends: core.running is never merely believed.
 *
 * Who may look at a th_post: its thread, the Worker object that stands for it in threading.enumerate(), and whoever
 * waits for its end; holders counts them. The core is its thread's to touch until it has left; when the TimerHeap went
 * first (core.detached), the last to leave frees the core. A worker that has lost its post to the standby has no core
 * any more; what it does with the heap until its callback has returned, it does by the TimerHeap that it holds.
 *
 * What a thread hands to those that it starts. A parked worker takes no signals: one that the program has blocked
 * everywhere and awaits with sigwait must not end up here. On Linux it sleeps with a timer slack of 1 ns, not 50 us.
 * Both would be inherited by the processes and threads that callbacks start. So the worker changes clothes: callbacks
 * run with the signal mask of the thread that started the heap's first worker, whoever starts it again later (after a
 * fork, with signals blocked around it), and with the slack that the thread was born with. Signals that a thread sends
 * to itself by a fault are never blocked: faulthandler has to see them.
 */
#ifndef TIMERHEAP_POST_H
#define TIMERHEAP_POST_H

#include "core.h"
#include "platform.h"
#include "word.h"

typedef struct th_post {
    atomic_int holders;
    uint32_t news;          /* a word: 1 once the thread is nearly gone, and 2 for each close() that a callback is in */
    atomic_ulong tid;       /* the system's id of the thread; 0 until it has begun */
    th_core *core;          /* NULL once the post has been left, or lost; the thread's to write, the standby's and
                               fork's */
    void *heap;             /* PyObject *, the TimerHeap, borrowed: there while something is armed, see "Life" in
                               worker.pxi, or fired */
    uint32_t turn;          /* core.generation when the thread got the run that it fires; guard M */
    int standby;            /* the thread begins as one */
    th_core *lost;          /* it is among the losers of that, and this is the next of them; guard M, and fork's */
    struct th_post *next;
    void *thread;           /* PyObject *, owned by the thread: the Worker that stands for it */
    atomic_int disappeared; /* the thread has taken its Worker out of the list of threads */
    atomic_ulong ident;     /* of the thread, as CPython counts */
    sigset_t callback_mask; /* see core.callback_mask */
    unsigned long slack;    /* ns, of callbacks */
    int forked;             /* the thread has forked, in a callback or a finalizer: this is the child, and it the main
                               thread */
    void *state;            /* PyThreadState *, of CPython 3.11: made by the starter */
    int parked;             /* dressed for parking: signals blocked, slack 1 ns */
} th_post;

static pthread_key_t th_post_key;
static atomic_int th_stranded; /* timers may be armed that have no worker: none was to be had, or it has died */
TH_THREAD th_post *th_my_post; /* of a worker, in its thread */

/* Held once. NULL: no memory. */
static inline th_post *th_post_new(th_core *c)
{
    th_post *post = calloc(1, sizeof(th_post));
    if (post == NULL)
        return NULL;
    post->holders = 1;
    post->core = c;
    return post;
}

static inline void th_post_hold(th_post *post)
{
    atomic_fetch_add(&post->holders, 1);
}

static inline void th_post_drop(th_post *post)
{
    if (post != NULL && atomic_fetch_sub(&post->holders, 1) == 1)
        free(post);
}

/* The posts of a heap's worker, of its standby and of the losers: how many, and as many as there is room for, held for
 * the caller. */
static inline size_t th_posts_of(th_core *c, th_post **posts, size_t room)
{
    size_t n = 0;
    th_lock(c);
    th_post *const heads[] = {c->post, c->spare, c->losers};
    for (size_t i = 0; i < sizeof(heads) / sizeof(heads[0]); i++)
        for (th_post *post = heads[i]; post != NULL; post = post->next)
            if (n++ < room)
                th_post_hold(posts[n - 1] = post);
    th_unlock(c);
    return n;
}

static inline int th_post_ended(th_post *post)
{
    return (int)(th_word(&post->news) & 1);
}

static inline unsigned long th_post_tid(th_post *post)
{
    return atomic_load(&post->tid);
}

static inline unsigned long th_post_ident(th_post *post)
{
    return atomic_load(&post->ident);
}

static inline void th_post_disappear(th_post *post)
{
    atomic_store(&post->disappeared, 1);
}

static inline int th_post_disappeared(th_post *post)
{
    return atomic_load(&post->disappeared);
}

static inline int th_post_mine(const th_post *post)
{
    return post != NULL && post == th_my_post;
}

static inline void th_post_note_closing(th_post *post, int by)
{
    __atomic_fetch_add(&post->news, 2 * (uint32_t)by, __ATOMIC_RELEASE);
    th_wake_word(&post->news);
}

/* Wait for the end of the thread until the absolute deadline, a signal, or for no reason; with closing also until a
 * callback is in a close(): who waits there, maybe for the caller, is not waited for. True: there is nothing to wait
 * for. What is waited by is the very word that was looked at, so nothing that comes in between is missed. */
static inline int th_post_await(th_post *post, int closing, int64_t deadline)
{
    uint32_t seen = th_word(&post->news);
    if (seen & 1 || (closing && seen))
        return 1;
    th_await_word(&post->news, seen, deadline);
    return 0;
}

/* Wait until the system has done with a thread that was seen to have ended at that time, a second at most: CPython
 * counts the system's threads to warn of a fork beside them. */
static inline void th_post_await_system(th_post *post, int64_t seen)
{
    unsigned long tid = th_post_tid(post);
    if (tid)
        th_await_gone(tid, seen);
}

/* ---- the life of the thread ---- */

/* Every signal but those that a fault of the thread itself raises. */
static inline void th_other_signals(sigset_t *set)
{
    static const int own[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS};
    sigfillset(set);
    for (size_t i = 0; i < sizeof(own) / sizeof(own[0]); i++)
        sigdelset(set, own[i]);
}

/* Start the thread by start(run, post): it is born dressed for parking. False: there is none. Nothing runs in this
 * thread between the two changes of its mask but the C library. */
static inline int th_post_start(th_post *post, unsigned long (*start)(void (*)(void *), void *), void (*run)(void *))
{
    th_core *c = post->core;
    sigset_t others, mine;
    th_other_signals(&others);
    pthread_sigmask(SIG_BLOCK, &others, &mine);
    if (!c->mask_known) {
        c->callback_mask = mine;
        c->mask_known = 1;
    }
    post->callback_mask = c->callback_mask;
    post->parked = 1;
    unsigned long ident = start(run, post);
    pthread_sigmask(SIG_SETMASK, &mine, NULL);
    if (ident == (unsigned long)-1)
        return 0;
    atomic_store(&post->ident, ident);
    return 1;
}

/* In the new thread, first of all: its number as CPython counts, and as the system does. */
static inline void th_post_begin(th_post *post, unsigned long ident, unsigned long tid)
{
    int was;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &was); /* it would end in its wait, holding M */
    atomic_store(&post->ident, ident);
    post->slack = th_slack();
    th_precise_sleeps();
    th_my_post = post;
    pthread_setspecific(th_post_key, post);
    atomic_store(&post->tid, tid);
}

static inline void th_post_to_park(th_post *post)
{
    if (!post->parked) {
        sigset_t others;
        th_other_signals(&others);
        pthread_sigmask(SIG_BLOCK, &others, NULL);
        th_precise_sleeps();
        post->parked = 1;
    }
}

static inline void th_post_to_call(th_post *post)
{
    if (post->parked) {
        th_set_slack(post->slack);
        pthread_sigmask(SIG_SETMASK, &post->callback_mask, NULL);
        post->parked = 0;
    }
}

/* The thread leaves its post; caller holds M. True: the core is the thread's to free, once M is. Else it is not the
 * thread's to touch any more. */
static inline int th_post_leave(th_post *post)
{
    th_core *c = post->core;
    th_assert_held(c);
    post->core = NULL;
    if (c->spare == post)
        c->spare = NULL;
    else if (c->post == post) {
        c->post = NULL;
        c->running = c->ready = 0;
        c->firing = 0;
        c->parked = 0;
    } else
        return 0;
    return c->detached && c->post == NULL && c->spare == NULL;
}

/* The standby gets the post, and the run with it; caller holds M, and the GIL where there is one. */
static inline void th_post_take(th_post *post)
{
    th_core *c = post->core;
    th_post *loser = c->post;
    th_assert_held(c);
    loser->next = c->losers;
    __atomic_store_n(&loser->lost, c, __ATOMIC_RELEASE); /* before, for th_post_end */
    __atomic_store_n(&loser->core, NULL, __ATOMIC_RELEASE);
    c->losers = loser;
    c->post = post;
    c->spare = NULL;
    __atomic_store_n(&c->generation, c->generation + 1, __ATOMIC_RELAXED);
    c->handovers++;
    post->turn = c->generation;
}

/* A loser is not in a callback any more; caller holds M. */
static inline void th_post_return(th_post *post)
{
    th_core *c = post->lost;
    th_post **at = &c->losers;
    th_assert_held(c);
    while (*at != post)
        at = &(*at)->next;
    *at = post->next;
    post->next = NULL;
    post->lost = NULL;
}

/* Whoever waits for the thread need not any more. */
static inline void th_post_over(th_post *post)
{
    __atomic_fetch_or(&post->news, 1, __ATOMIC_RELEASE);
    th_wake_word(&post->news);
    th_post_drop(post);
}

/* The C library calls this at the end of the thread, whatever has ended it. One that was in a callback may lose its
 * post at this moment. */
static void th_post_end(void *value)
{
    th_post *post = value;
    th_core *c = __atomic_load_n(&post->core, __ATOMIC_ACQUIRE);
    if (c == NULL)
        c = __atomic_load_n(&post->lost, __ATOMIC_ACQUIRE);
    if (c != NULL) {
        int last = 0;
        th_lock(c);
        if (post->lost != NULL)
            th_post_return(post);
        else {
            last = th_post_leave(post);
            if (!last)
                atomic_store(&th_stranded, 1);
        }
        th_unlock(c);
        if (last)
            th_core_free(c);
    }
    th_post_over(post);
}

/* In the child of a fork: the thread of a post is not there, or is the one that forked, and no worker any more. */
static inline void th_post_void(th_post *post)
{
    if (post == NULL)
        return;
    post->core = post->lost = NULL;
    if (post != th_my_post)
        post->news |= 1;
}

/* There, for each heap. */
static inline void th_post_after_fork(th_core *c)
{
    th_post_void(c->post);
    th_post_void(c->spare);
    for (th_post *post = c->losers; post != NULL; post = post->next)
        th_post_void(post);
    c->post = c->spare = c->losers = NULL;
    c->mask_known = 0;
}

/* Once a process. 0, or an error number. */
static inline int th_watch_threads(void)
{
    return pthread_key_create(&th_post_key, th_post_end);
}

#endif
