/* What gcc and clang have beyond C, under names for the parts in Cython. */
#ifndef TIMERHEAP_COMPILER_H
#define TIMERHEAP_COMPILER_H

#define th_mul_overflow __builtin_mul_overflow
#define th_add_overflow __builtin_add_overflow
#define th_sub_overflow __builtin_sub_overflow
#define th_prefetch(p) __builtin_prefetch((p), 1) /* to be written */

#endif
