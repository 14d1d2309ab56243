/* Asking for the GIL: see gil.c. */
#ifndef TIMERHEAP_GIL_H
#define TIMERHEAP_GIL_H

int th_examine_gil(double interval);
void th_ask_for_gil(void);
void th_ask_no_more(void);

#endif
