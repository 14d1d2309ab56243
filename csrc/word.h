/* A word that threads wait for, 32 bits, private to the process. To wait is th_await_word of platform.h. */
#ifndef TIMERHEAP_WORD_H
#define TIMERHEAP_WORD_H

#include <stdint.h>

#include "platform.h"

static inline uint32_t th_word(const uint32_t *word)
{
    return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

/* Let everybody who waits look again. */
static inline void th_wake_word(uint32_t *word)
{
    th_wake_sleepers(word, INT32_MAX);
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

#endif
