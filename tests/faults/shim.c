/* Preloaded into a Python process: makes its allocations and thread starts fail on demand, and moves its wall clock.
 *
 *   fault_set(what, whose, n)  the n-th call from now on (0 is the next) of a kind in what fails, in the calling thread
 *                              (whose 0) or in any other (1); with LASTING all after it as well
 *   fault_end()                nothing fails any more; 1 if something did, 0 if fewer than n + 1 calls came
 *   fault_wall(seconds)        what CLOCK_REALTIME is off by, for this process
 *
 * Run Python with PYTHONMALLOC=malloc, so that each of its allocations comes by here. glibc's own calls of mmap do not.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>

enum { HEAP = 1, PAGES = 2, THREAD = 4, LASTING = 8 };

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);

static atomic_int what;
static atomic_long left;
static atomic_int others;
static _Thread_local int chosen; /* this thread called fault_set */
static atomic_long wall;

static int fails(int kind)
{
    if (!(atomic_load(&what) & kind) || chosen == atomic_load(&others))
        return 0;
    long before = atomic_fetch_sub(&left, 1);
    return before == 0 || (before < 0 && atomic_load(&what) & LASTING);
}

void fault_set(int kinds, int whose, long n)
{
    chosen = 1;
    atomic_store(&others, whose);
    atomic_store(&left, n);
    atomic_store(&what, kinds);
}

int fault_end(void)
{
    atomic_store(&what, 0);
    return atomic_load(&left) < 0;
}

void fault_wall(long seconds) { atomic_store(&wall, seconds); }

static void *no_memory(void)
{
    errno = ENOMEM;
    return NULL;
}

void *malloc(size_t size) { return fails(HEAP) ? no_memory() : __libc_malloc(size); }

void *calloc(size_t n, size_t size) { return fails(HEAP) ? no_memory() : __libc_calloc(n, size); }

void *realloc(void *old, size_t size) { return fails(HEAP) ? no_memory() : __libc_realloc(old, size); }

void *mmap(void *at, size_t size, int prot, int flags, int fd, off_t offset)
{
    if (fails(PAGES)) {
        errno = ENOMEM;
        return MAP_FAILED;
    }
    void *(*real)(void *, size_t, int, int, int, off_t) = dlsym(RTLD_NEXT, "mmap");
    return real(at, size, prot, flags, fd, offset);
}

/* What mmap is called where off_t was asked to have 64 bits, as Python's headers do. */
void *mmap64(void *, size_t, int, int, int, off_t) __attribute__((alias("mmap")));

void *mremap(void *old, size_t old_size, size_t size, int flags, ...)
{
    va_list rest;
    void *target = NULL;
    if (flags & MREMAP_FIXED) {
        va_start(rest, flags);
        target = va_arg(rest, void *);
        va_end(rest);
    }
    if (fails(PAGES)) {
        errno = ENOMEM;
        return MAP_FAILED;
    }
    void *(*real)(void *, size_t, size_t, int, ...) = dlsym(RTLD_NEXT, "mremap");
    return real(old, old_size, size, flags, target);
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*start)(void *), void *arg)
{
    int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *) = dlsym(RTLD_NEXT, "pthread_create");
    return fails(THREAD) ? EAGAIN : real(thread, attr, start, arg);
}

int clock_gettime(clockid_t clock, struct timespec *ts)
{
    int (*real)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, ts);
    if (clock == CLOCK_REALTIME)
        ts->tv_sec += atomic_load(&wall);
    return result;
}

int gettimeofday(struct timeval *restrict tv, void *restrict zone)
{
    struct timespec ts;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &ts);
    tv->tv_sec = ts.tv_sec;
    tv->tv_usec = ts.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    if (out)
        *out = ts.tv_sec;
    return ts.tv_sec;
}
