/* Mach's clock and Apple's relative wait, made up of glibc's: so that what platform.h has for macOS runs here, on a
 * clock of 24 MHz, whose ticks are no whole number of nanoseconds. What macOS itself does, it does not tell. */
#ifndef NATIVE_MACH_TIME_H
#define NATIVE_MACH_TIME_H

#include <pthread.h>
#include <stdint.h>
#include <time.h>

typedef struct {
    uint32_t numer, denom;
} mach_timebase_info_data_t;

static inline int mach_timebase_info(mach_timebase_info_data_t *base)
{
    *base = (mach_timebase_info_data_t){125, 3};
    return 0;
}

static inline uint64_t mach_absolute_time(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ((uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec) * 3 / 125;
}

static inline int pthread_cond_timedwait_relative_np(pthread_cond_t *cond, pthread_mutex_t *mutex,
                                                     const struct timespec *time)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += time->tv_sec + (until.tv_nsec + time->tv_nsec) / 1000000000;
    until.tv_nsec = (until.tv_nsec + time->tv_nsec) % 1000000000;
    return pthread_cond_clockwait(cond, mutex, CLOCK_MONOTONIC, &until);
}

#endif
