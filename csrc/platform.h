/* The system: what of it differs from one to another. No other file here knows Linux, macOS or a C library.
 *
 * Two axes. The clock, and a condition variable that waits by it, are POSIX's or Apple's: both are here. All the rest
 * is Linux's own (platform_linux.h), or told in the terms of POSIX and of mmap for memory of no file (platform_posix.h,
 * the twin). The twin is what every other system gets, and Linux too where TH_PORTABLE is 1, so that it is tested where
 * the rest is.
 *
 *   promise                                             Linux                        twin
 *
 *   th_monotonic      ns on the clock of                clock_gettime(CLOCK_MONOTONIC); on macOS mach_absolute_time by
 *                     time.monotonic(), to the ns       its time base, rounded down as CPython rounds it
 *   th_init_cond      a condition variable for          pthread_condattr_setclock(CLOCK_MONOTONIC); none on macOS
 *                     th_wait_cond
 *   th_wait_cond      until signalled, the absolute     pthread_cond_timedwait; on macOS, a day at most,
 *                     deadline, or for no reason        pthread_cond_timedwait_relative_np
 *   th_await_word     while a word has a value, until   FUTEX_WAIT_BITSET            a mutex, a list of sleepers,
 *                     woken, the absolute deadline,                                  a condition variable of each
 *                     a signal, or for no reason
 *   th_wake_sleepers  so many who wait for the word     FUTEX_WAKE                   all of them
 *   th_sleep_until    until the deadline has come,      clock_nanosleep, absolute    nanosleep, and a look at
 *                     or a signal                                                    the clock
 *   TH_SIGNALS_EVERY  how long a wait may go by itself  1 s                          50 ms
 *                     until signals are looked for
 *   th_epoll_wait     epoll_wait, to the nanosecond     epoll_pwait2, else           none: TH_EPOLL is 0
 *                                                       epoll_wait, rounded up
 *   th_slack          ns by which the system may be     prctl(PR_..._TIMERSLACK)     0, and nothing
 *   th_set_slack      late to wake this thread
 *   th_move_pages     a mapping resized, bytes kept     mremap: page tables move     cut in place, or copied
 *   th_drop_pages     what is in pages may go           madvise(MADV_DONTNEED)       the same; MADV_FREE on macOS
 *   th_wipe_on_fork   a fork's child finds zeros        madvise(MADV_WIPEONFORK)     false: it does not
 *   th_huge_pages     pages of 2 MiB, if there are      madvise(MADV_HUGEPAGE)       nothing
 *   th_populate       pages are touched at once         MADV_POPULATE_WRITE          nothing
 *   th_await_gone     the system has forgotten a        tgkill until there is none,  5 ms after it was
 *                     thread that is ending             a second at most             seen to end
 *
 * What the twin has less of:
 *
 *   - Precision. There is no slack to be set: what the system adds to a wait, callbacks and receivers are late by.
 *     Early they are not: whoever has waited by th_wait_cond or th_await_word looks at th_monotonic again before it
 *     takes a deadline for reached, and th_sleep_until does so itself.
 *   - Signals. A condition variable waits on through them. So a thread that runs their handlers wakes twenty times a
 *     second, and a handler may come that much later.
 *   - Time under M: keys that grow are copied.
 *   - A fork beside workers that have left for it: the system may count one as a thread still, and CPython warn.
 *
 * Words. th_await_word sleeps only if the word has the value at a moment from which on th_wake_sleepers finds the
 * sleeper: who changes a word first and wakes then leaves nobody asleep on the old value. Linux has both under a lock
 * of the kernel's. The twin has P, the mutex of a spot of its table, chosen by the address: who waits looks at the
 * word and joins the list under one hold of P; who wakes takes P after the change. Either P comes to the waker after
 * the sleeper, and the sleeper is on the list; or before, and then the change happened before the look, which sees it.
 * A wake-up without a change concerns those who sleep by then, here as there. The word is read with acquire; what is
 * written before a change that releases is seen by who has seen the change. Neither call reads or writes the word
 * otherwise, and the memory need not be there any more when it is woken: its address is all that is used. A thread that
 * foreign code cancels sleeps on, and ends after it.
 *
 * Lock order: P is the last. It is taken with C or M held, or with nothing, and under it nothing is taken, called or
 * allocated; sleepers hold nothing else.
 *
 * Fork. The child calls th_platform_after_fork before anything else of this: P of each spot may have been held in the
 * parent by a thread that the child has not, and the sleepers are other threads. Both are made anew, not destroyed.
 */
#ifndef TIMERHEAP_PLATFORM_H
#define TIMERHEAP_PLATFORM_H

#include <errno.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#ifdef __APPLE__
#include <mach/mach_time.h>
#endif

#ifndef TH_PORTABLE
#ifdef __linux__
#define TH_PORTABLE 0
#else
#define TH_PORTABLE 1
#endif
#endif

/* gcc says it by a macro, clang by a feature. */
#ifdef __SANITIZE_ADDRESS__
#define TH_ADDRESS_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define TH_ADDRESS_SANITIZER 1
#endif
#endif
#ifndef TH_ADDRESS_SANITIZER
#define TH_ADDRESS_SANITIZER 0
#endif

/* A variable of each thread, in the thread's static block: elsewhere glibc would allocate it when a thread first comes
 * here, and abort the process where it cannot. musl gives room to each thread that there is before a load is over, and
 * refuses to load what asks for the static block. macOS has none: there a thread's first touch needs memory. */
#ifdef __GLIBC__
#define TH_THREAD static __thread __attribute__((tls_model("initial-exec")))
#else
#define TH_THREAD static __thread
#endif

#define TH_NEVER INT64_MAX
#define TH_NS_PER_S INT64_C(1000000000)

/* As the system wants a time. Negative ones are as good as 0. */
static inline struct timespec th_timespec(int64_t when)
{
    struct timespec ts = {0, 0};
    if (when > 0) {
        ts.tv_sec = (time_t)(when / TH_NS_PER_S);
        ts.tv_nsec = (long)(when % TH_NS_PER_S);
    }
    return ts;
}

static inline int64_t th_monotonic(void);

/* From now to an absolute deadline, a day at most; 0 when it has come. For calls that want a time relative to now. */
static inline int64_t th_remaining(int64_t deadline)
{
    const int64_t day = 86400 * TH_NS_PER_S;
    int64_t now = th_monotonic();
    if (deadline <= now)
        return 0;
    return deadline - now < day ? deadline - now : day;
}

/* Sleep for so many nanoseconds, or until a signal. */
static inline void th_pause(int64_t ns)
{
    struct timespec ts = th_timespec(ns);
    nanosleep(&ts, NULL);
}

/* ---- the clock, and a condition variable that waits by it ---- */

#ifdef __APPLE__

static mach_timebase_info_data_t th_timebase; /* ns a tick, a fraction: 125/3 or 1/1 */

/* When the module is loaded: nobody asks for the time before. */
__attribute__((constructor)) static void th_ask_timebase(void) { mach_timebase_info(&th_timebase); }

static inline int64_t th_monotonic(void)
{
    uint64_t ticks = mach_absolute_time(), denom = th_timebase.denom;
    return (int64_t)(ticks / denom * th_timebase.numer + ticks % denom * th_timebase.numer / denom);
}

static inline void th_init_cond(pthread_cond_t *cond)
{
    pthread_cond_init(cond, NULL);
}

static inline void th_wait_cond(pthread_cond_t *cond, pthread_mutex_t *mutex, int64_t deadline)
{
    if (deadline == TH_NEVER)
        pthread_cond_wait(cond, mutex);
    else {
        struct timespec ts = th_timespec(th_remaining(deadline));
        pthread_cond_timedwait_relative_np(cond, mutex, &ts);
    }
}

#else

static inline int64_t th_monotonic(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * TH_NS_PER_S + ts.tv_nsec;
}

static inline void th_init_cond(pthread_cond_t *cond)
{
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(cond, &attr);
    pthread_condattr_destroy(&attr);
}

static inline void th_wait_cond(pthread_cond_t *cond, pthread_mutex_t *mutex, int64_t deadline)
{
    if (deadline == TH_NEVER)
        pthread_cond_wait(cond, mutex);
    else {
        struct timespec ts = th_timespec(deadline);
        pthread_cond_timedwait(cond, mutex, &ts);
    }
}

#endif

#if TH_PORTABLE
#include "platform_posix.h"
#else
#include "platform_linux.h"
#endif

#endif
