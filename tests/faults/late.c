/* Stands before the C library: a thread that is about to wait for a word is kept from it until the word has another
 * value or somebody says so. Of both builds: Linux's waits by a system call, the portable one, which does not let its
 * word be seen, makes a condition variable first. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

int late_on, late_arrived, late_released; /* the program's to look at, and to write but for the second */

static int holds(void)
{
    return __atomic_load_n(&late_on, __ATOMIC_ACQUIRE) && !__atomic_load_n(&late_released, __ATOMIC_ACQUIRE);
}

static void arrive(void)
{
    __atomic_add_fetch(&late_arrived, 1, __ATOMIC_RELEASE);
}

long syscall(long number, ...)
{
    static long (*next)(long, ...);
    long a[6];
    va_list rest;
    va_start(rest, number);
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(rest, long);
    va_end(rest);
    if (next == NULL)
        next = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    if (number == SYS_futex && (a[1] & FUTEX_CMD_MASK) == FUTEX_WAIT_BITSET && holds()) {
        arrive();
        while (holds() && __atomic_load_n((uint32_t *)a[0], __ATOMIC_ACQUIRE) == (uint32_t)a[2])
            usleep(1000);
    }
    return next(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

int pthread_cond_init(pthread_cond_t *cond, const pthread_condattr_t *attr)
{
    static int (*next)(pthread_cond_t *, const pthread_condattr_t *);
    if (next == NULL)
        next = (int (*)(pthread_cond_t *, const pthread_condattr_t *))dlsym(RTLD_NEXT, "pthread_cond_init");
    if (holds()) {
        arrive();
        while (holds())
            usleep(1000);
    }
    return next(cond, attr);
}
