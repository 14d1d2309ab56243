/* Linux: what platform.h promises, by the kernel's own calls. Included by it alone. */
#ifndef TIMERHEAP_PLATFORM_LINUX_H
#define TIMERHEAP_PLATFORM_LINUX_H

#include <linux/futex.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

/* A signal ends a wait. Only one that arrives between the last look for signals and the system call does not. */
#define TH_SIGNALS_EVERY TH_NS_PER_S

#define TH_MAP_LAZY MAP_NORESERVE /* of a mapping that will not all be touched */

/* Returns EINTR after a signal, else 0. The word is private to the process. */
static inline int th_await_word(const uint32_t *word, uint32_t value, int64_t deadline)
{
    struct timespec ts = th_timespec(deadline);
    long r = syscall(SYS_futex, word, FUTEX_WAIT_BITSET_PRIVATE, value, deadline == TH_NEVER ? NULL : &ts, NULL,
                     FUTEX_BITSET_MATCH_ANY);
    return r == -1 && errno == EINTR ? EINTR : 0;
}

static inline void th_wake_sleepers(const uint32_t *word, int32_t most)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, most, NULL, NULL, 0);
}

/* Returns EINTR after a signal, else 0. */
static inline int th_sleep_until(int64_t deadline)
{
    struct timespec ts = th_timespec(deadline);
    return clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL) == EINTR ? EINTR : 0;
}

#define TH_EPOLL 1

#ifndef SYS_epoll_pwait2
#define SYS_epoll_pwait2 441 /* Linux 5.11; the same on all architectures */
#endif

/* epoll_wait for ns, or for ever where that is negative; to the millisecond, rounded up, where the kernel is older. */
static inline int th_epoll_wait(int fd, struct epoll_event *events, int most, int64_t ns)
{
    static int too_old;
    int64_t ms = ns < 0 ? -1 : ns / 1000000 + (ns % 1000000 != 0);
    if (!too_old) {
        struct timespec ts = {.tv_sec = ns / TH_NS_PER_S, .tv_nsec = ns % TH_NS_PER_S};
        long n = syscall(SYS_epoll_pwait2, fd, events, most, ns < 0 ? NULL : &ts, NULL, 0);
        if (n >= 0 || (errno != ENOSYS && errno != EPERM))
            return (int)n;
        too_old = 1;
    }
    return epoll_wait(fd, events, most, ms > INT32_MAX ? INT32_MAX : (int)ms);
}

/* Of the calling thread, ns; 0 where the kernel does not tell. It is 50 us unless told otherwise. */
static inline unsigned long th_slack(void)
{
    long slack = prctl(PR_GET_TIMERSLACK, 0UL, 0UL, 0UL, 0UL);
    return slack > 0 ? (unsigned long)slack : 0;
}

/* 0: the default. */
static inline void th_set_slack(unsigned long ns)
{
    prctl(PR_SET_TIMERSLACK, ns, 0UL, 0UL, 0UL);
}

/* A mapping of old bytes gets another size, and another address, which is returned; MAP_FAILED leaves it as it was.
 * Both sizes are whole pages, and not 0. */
static inline void *th_move_pages(void *base, size_t old, size_t size)
{
    return mremap(base, old, size, MREMAP_MAYMOVE);
}

/* 0 when the system does not take them. Else what was in them is lost, and they cost nothing until they are touched. */
static inline int th_drop_pages(void *base, size_t size)
{
    return madvise(base, size, MADV_DONTNEED) == 0;
}

/* True: the child of a fork finds zeros in these pages, which are private and of no file. */
static inline int th_wipe_on_fork(void *base, size_t size)
{
    return madvise(base, size, 18 /* MADV_WIPEONFORK, Linux 4.14 */) == 0;
}

/* Where random access is what they are for. Only asked for: a kernel without them, or told otherwise, goes on. */
static inline void th_huge_pages(void *base, size_t size)
{
    madvise(base, size, 14 /* MADV_HUGEPAGE */);
}

/* Touch them all: in one system call, where each page alone would be a fault. Only asked for. */
static inline void th_populate(void *base, size_t size)
{
    madvise(base, size, 23 /* MADV_POPULATE_WRITE, Linux 5.14 */);
}

/* id: of a thread of this process, as the system counts. */
static inline void th_await_gone(unsigned long id, int64_t seen)
{
    (void)seen;
    for (int i = 0; i < 10000 && syscall(SYS_tgkill, getpid(), (pid_t)id, 0) == 0; i++)
        th_pause(20000);
}

static inline void th_platform_after_fork(void) {}

#endif
