/* Time: int64 nanoseconds on the clock of time.monotonic(), and arithmetic that saturates. No clock is read here: that
 * is th_monotonic of platform.h.
 *
 * A deadline is a point on that clock. TH_NEVER is the point that is never reached: sums that overflow end there, and
 * nothing at TH_NEVER is ever due.
 *
 * Outside, time is a double of seconds. What is shown is the double nearest to the nanoseconds.
 */
#ifndef TIMERHEAP_CLOCK_H
#define TIMERHEAP_CLOCK_H

#include <stdint.h>
#include <string.h>

#include "compiler.h"
#include "platform.h"

/* now + delay; a delay of zero or less is due at once, what overflows is never due. */
static inline int64_t th_deadline(int64_t now, int64_t delay)
{
    int64_t when;
    if (delay <= 0)
        return now;
    return th_add_overflow(now, delay, &when) ? TH_NEVER : when;
}

/* The first point of the grid when + k * period, k >= 1, that lies after now (when <= now). */
static inline int64_t th_next_tick(int64_t when, int64_t period, int64_t now)
{
    int64_t late, step, next;
    if (th_sub_overflow(now, when, &late)
        || th_mul_overflow(late / period + 1, period, &step)
        || th_add_overflow(when, step, &next))
        return TH_NEVER;
    return next;
}

/* How many points of the grid after when have passed at now. */
static inline uint64_t th_missed_ticks(int64_t when, int64_t period, int64_t now)
{
    return ((uint64_t)now - (uint64_t)when) / (uint64_t)period;
}

/* As time.monotonic() converts its reading, so that comparing the two is comparing nanoseconds. */
static inline double th_to_seconds(int64_t when)
{
    return (double)when / 1e9;
}

/* v * 1e9, of which product is the double, rounded up exactly: not the rounded product, which may lie below it. */
static inline int64_t th_round_up(double v, double product)
{
    double high, error, excess;
    uint64_t bits;
    int64_t ns = (int64_t)product, more;
    if (product != (double)ns)
        return ns + (product > 0); /* the product's error is less than its distance to a whole number */
    memcpy(&bits, &v, sizeof(bits));
    bits &= ~UINT64_C(0x7ffffff);
    memcpy(&high, &bits, sizeof(high));
    excess = (v - high) * 1e9; /* halves of 26 and 27 bits times a number of 21: exact, as is all that follows */
    error = high * 1e9 - product + excess;
    more = (int64_t)error;
    return ns + more + (error > (double)more);
}

/* The next double after a whole and positive one, whole as well. */
static inline int64_t th_from_double_above(double whole)
{
    uint64_t bits;
    memcpy(&bits, &whole, sizeof(bits));
    bits++;
    memcpy(&whole, &bits, sizeof(bits));
    return whole < 9223372036854775808.0 ? (int64_t)whole : TH_NEVER;
}

/* Seconds, not NaN, to nanoseconds. The double nearest to a whole number of nanoseconds is that number: it is what
 * somebody means who writes .067. All else is rounded up, also from 2^53 nanoseconds on, where several of them have one
 * double. So a clock that began at zero shows at least v when they have passed. What has no place in an int64
 * saturates. */
static inline int64_t th_from_seconds(double v)
{
    const double whole = 9007199254740992.0, half = whole / 2, end = 9223372036854775808.0;
    double product = v * 1e9, distance;
    int64_t ns, up;
    if (product < whole && product > -whole) {
        if (product < half && product > -half)
            ns = (int64_t)(product + (product < 0 ? -0.5 : 0.5));
        else
            ns = (int64_t)product;
        /* Nearest can only be what is within two units in the last place: the division is dear. */
        distance = product - (double)ns;
        if (distance * distance <= product * product * 0x1p-102 && th_to_seconds(ns) == v)
            return ns;
        up = th_round_up(v, product);
        /* A large product is itself rounded, to halves: the nearest may have been the other neighbour. */
        if ((product > half / 2 || product < -half / 2) && th_to_seconds(up - 1) == v)
            return up - 1;
        return up;
    }
    if (product >= end)
        return TH_NEVER;
    if (product <= -end)
        return INT64_MIN;
    ns = th_round_up(v, product);
    if (v > 0 && th_to_seconds(ns) < v) /* what is shown is rounded to the double below: the one above it, then */
        ns = th_from_double_above((double)ns);
    return ns;
}

/* The last point from when on that is shown as seconds at most; when if there is none. */
static inline int64_t th_last_shown(int64_t when, double seconds)
{
    int64_t step = 1;
    while (when < TH_NEVER - step && th_to_seconds(when + step) <= seconds) {
        when += step;
        step *= 2;
    }
    while (step /= 2)
        if (when < TH_NEVER - step && th_to_seconds(when + step) <= seconds)
            when += step;
    return when;
}

#endif
