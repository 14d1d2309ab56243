/* A word that threads wait for: a 32-bit futex, private to the process. */
#ifndef TIMERHEAP_WORD_H
#define TIMERHEAP_WORD_H

#include <errno.h>
#include <linux/futex.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "clock.h"

static inline uint32_t th_word(const uint32_t *word)
{
    return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

/* Let everybody who waits look again. */
static inline void th_wake_word(uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
}

static inline void th_set_word(uint32_t *word, uint32_t value)
{
    __atomic_store_n(word, value, __ATOMIC_RELEASE);
    th_wake_word(word);
}

/* from -> to, in one step. False: it was not from. */
static inline int th_move(uint32_t *word, uint32_t from, uint32_t to)
{
    return __atomic_compare_exchange_n(word, &from, to, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}

/* Sleep while the word has this value, until the absolute deadline, a signal, or for no reason. Returns EINTR after a
 * signal, else 0. */
static inline int th_await_word(uint32_t *word, uint32_t value, int64_t deadline)
{
    struct timespec ts = th_timespec(deadline);
    long r = syscall(SYS_futex, word, FUTEX_WAIT_BITSET_PRIVATE, value, deadline == TH_NEVER ? NULL : &ts, NULL,
                     FUTEX_BITSET_MATCH_ANY);
    return r == -1 && errno == EINTR ? EINTR : 0;
}

#endif
