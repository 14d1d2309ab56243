/* The functions of seam.pyx, for C. */
#ifndef NATIVE_NATIVE_H
#define NATIVE_NATIVE_H

#include "core.h"
#include "post.h"

int native_init(th_core *c);
const char *native_check(th_core *c, size_t *index, int64_t *left, int64_t *right);
size_t native_resident(th_core *c);
int native_arm(th_core *c, th_timer *t, int64_t when, int *wake);
int native_reset(th_core *c, th_timer *t, int64_t when, int *wake);
int native_postpone(th_core *c, th_timer *t, int64_t when, int *wake);
int native_periodic(th_core *c, th_timer *t, int64_t when, int64_t period, int revive, int *wake);
int native_stop(th_core *c, th_timer *t);
int native_let_go(th_core *c, th_timer *t, th_timer **orphan);
th_timer *native_launch(th_core *c, int fire, int *fired, int *freed);
int native_go_on(th_core *c, int64_t now, uint64_t *number);
void native_free_slot(th_core *c, th_timer *t);
void native_empty_run(th_core *c);
void native_collect(th_core *c, int64_t now);
void native_sort(th_core *c);
void native_sweep(th_core *c);
th_timer *native_cancel_last(th_core *c);
int native_arm_cells(th_core *c, th_array *a, const uint32_t *slots, size_t n, const int64_t *whens, int64_t when,
                     int revive, uint8_t *out, size_t *were, int *wake);
int native_arm_cell(th_core *c, th_array *a, uint32_t slot, int64_t when, int revive, int *was, int *wake);
size_t native_stop_cells(th_core *c, th_array *a, const uint32_t *slots, size_t n, uint8_t *out);
int native_stop_cell(th_core *c, th_array *a, uint32_t slot);
void native_look_at_cells(th_core *c, th_array *a, const uint32_t *slots, size_t n, uint8_t *active, int64_t *whens);
th_array *native_launch_cell(th_core *c, int fire, int *fired);
int native_end_array(th_core *c, th_array *a);
int native_next_run(th_post *post);

typedef struct { /* progress, of park.pxi */
    uint32_t generation;
    uint64_t batches;
    size_t head;
    int64_t since;
} native_progress;

int native_stand_by(th_post *post, native_progress *seen);

/* One input of the fuzzer, from the first byte to the closed heap; aborts at the first divergence. */
typedef struct {
    size_t inputs, operations, arms, fires, refusals, failures, yields;
} native_totals;

extern native_totals totals;
extern const char *native_subject; /* what a divergence is reported for */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
