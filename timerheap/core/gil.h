/* Asking for the GIL: see gil.c. */
#ifndef TIMERHEAP_GIL_H
#define TIMERHEAP_GIL_H

#include <stdint.h>

#define TH_SWITCH_INTERVAL INT64_C(5000000) /* CPython's own, where nobody knows of another */

int th_examine_gil(double interval);
int64_t th_switch_interval(void);
void th_ask_for_gil(void);
void th_ask_no_more(void);

#endif
