/* Time: int64 nanoseconds on CLOCK_MONOTONIC, and arithmetic that saturates.
 *
 * A deadline is a point on that clock. TH_NEVER is the point that is never reached: sums that
 * overflow end there, and nothing at TH_NEVER is ever due.
 */
#ifndef TIMERHEAP_CLOCK_H
#define TIMERHEAP_CLOCK_H

#include <stdint.h>
#include <time.h>

#define TH_NEVER INT64_MAX
#define TH_NS_PER_S INT64_C(1000000000)

static inline int64_t th_monotonic(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * TH_NS_PER_S + ts.tv_nsec;
}

/* An absolute deadline as the kernel wants it. Past and zero deadlines are as good as 0. */
static inline struct timespec th_timespec(int64_t when)
{
    struct timespec ts = {0, 0};
    if (when > 0) {
        ts.tv_sec = (time_t)(when / TH_NS_PER_S);
        ts.tv_nsec = (long)(when % TH_NS_PER_S);
    }
    return ts;
}

/* now + delay; a delay of zero or less is due at once, what overflows is never due. */
static inline int64_t th_deadline(int64_t now, int64_t delay)
{
    int64_t when;
    if (delay <= 0)
        return now;
    return __builtin_add_overflow(now, delay, &when) ? TH_NEVER : when;
}

/* The first point of the grid when + k * period, k >= 1, that lies after now (when <= now). */
static inline int64_t th_next_tick(int64_t when, int64_t period, int64_t now)
{
    int64_t late, step, next;
    if (__builtin_sub_overflow(now, when, &late)
        || __builtin_mul_overflow(late / period + 1, period, &step)
        || __builtin_add_overflow(when, step, &next))
        return TH_NEVER;
    return next;
}

#endif
