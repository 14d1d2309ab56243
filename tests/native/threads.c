/* The core under threads, for DRD, memcheck and ThreadSanitizer, which see every access that Python would hide.
 *
 *     threads [--operations N] [--callers N] [--seed S]
 *
 * A worker that runs native_next_run and launches as on an interpreter without a GIL, each launch under the mutex;
 * callers that arm, stop, reset and drop handles of their own and stop and reset ones that all share, and cells of a
 * TimerArray likewise, beside arrays of their own that come and go; and a thread that makes the worker leave and come
 * back, as a fork does. A standby watches the worker, and gets to see it held up; it never takes over. The books are
 * kept under the same mutex as the change they record, so they are exact:
 *
 *     launched        only what is armed by the books (so never after a true stop, never twice), never early
 *     at the end      all that is due has been launched, nobody was forgotten asleep; arms == fires + cancels
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "native.h"

#define SHARED 16
#define CELLS 48
#define PIECE 12
#define OWN 64
#define FAR (INT64_C(36000) * TH_NS_PER_S)
#define PATIENCE (60 * TH_NS_PER_S)

/* What the books say of a timer; guard M. The record's args points here; an array's object to those of its cells, which
 * have no handle. */
typedef struct {
    th_timer *handle; /* NULL once dropped: then the worker frees the account with the record */
    int64_t when;
    int live;
} account;

static th_core core;
static account shared[SHARED], cells[CELLS];
static th_array *array;
static size_t arms, fires, cancels, far; /* far: live and due beyond the horizon; guard M */
static int64_t horizon;
static size_t operations = 20000, callers = 3;
static uint64_t seed = 1;
static atomic_int finished;
static atomic_int alarms; /* times that the standby would have taken over */
static pthread_t watching;

static void broken(const char *what)
{
    fprintf(stderr, "threads: %s: %zu arms, %zu fires, %zu cancels, %zu live\n", what, arms, fires, cancels, core.live);
    abort();
}

static uint64_t draw(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    return *state ^= *state << 17;
}

static void enter(account *a, int64_t when)
{
    arms++;
    a->live = 1;
    a->when = when;
    far += when >= horizon;
}

static void leave(account *a)
{
    a->live = 0;
    far -= a->when >= horizon;
}

static account *new_account(void)
{
    account *a = calloc(1, sizeof *a);
    a->handle = calloc(1, sizeof *a->handle);
    a->handle->func = a->handle->args = a;
    return a;
}

static void arm(account *a, int64_t when)
{
    int wake = 0;
    th_lock(&core);
    if (!native_arm(&core, a->handle, when, &wake))
        broken("not armed");
    enter(a, when);
    th_unlock(&core);
    if (wake)
        th_signal(&core);
}

static void reset(account *a, int64_t when)
{
    int wake = 0;
    th_lock(&core);
    if (!native_reset(&core, a->handle, when, &wake))
        broken("not reset");
    if (a->live) {
        cancels++;
        leave(a);
    }
    enter(a, when);
    th_unlock(&core);
    if (wake)
        th_signal(&core);
}

static void stop(account *a)
{
    th_lock(&core);
    if (native_stop(&core, a->handle) != a->live)
        broken("stop contradicts the books");
    if (a->live) {
        cancels++;
        leave(a);
    }
    th_unlock(&core);
}

static void drop(account *a)
{
    th_timer *orphan, *handle = a->handle;
    th_lock(&core);
    int free_it = native_let_go(&core, handle, &orphan);
    a->handle = NULL;
    th_unlock(&core);
    if (free_it) {
        free(handle);
        if (orphan == NULL)
            free(a);
    }
}

static th_array *new_array(account *books)
{
    th_array *a = th_array_new(CELLS);
    th_lock(&core);
    if (a == NULL || !th_enlist_array(&core.arrays, a))
        broken("no array");
    a->object = books;
    th_unlock(&core);
    return a;
}

/* NULL for a cell of an array that is gone. */
static account *account_of(const th_timer *t)
{
    if (!(t->flags & TH_CELL))
        return t->args;
    th_array *a = th_owner(&core.arrays, t);
    return a ? (account *)a->object + th_cell_index(a, t) : NULL;
}

/* Any slots, duplicates among them. */
static void arm_cells(th_array *a, int64_t when, uint64_t *state)
{
    uint32_t slots[PIECE];
    uint8_t were[PIECE];
    size_t count;
    int wake = 0;
    for (size_t i = 0; i < PIECE; i++)
        slots[i] = draw(state) % CELLS;
    th_lock(&core);
    if (!native_arm_cells(&core, a, slots, PIECE, NULL, when, 1, were, &count, &wake))
        broken("cells not armed");
    for (size_t i = 0; i < PIECE; i++) {
        account *books = (account *)a->object + slots[i];
        if (were[i] != books->live)
            broken("a reset of cells contradicts the books");
        if (books->live) {
            cancels++;
            leave(books);
        }
        enter(books, when);
    }
    th_unlock(&core);
    if (wake)
        th_signal(&core);
}

static void stop_cells(th_array *a, uint32_t first, size_t n)
{
    uint32_t slots[CELLS];
    uint8_t were[CELLS];
    for (size_t i = 0; i < n; i++)
        slots[i] = (uint32_t)(first + i) % CELLS;
    th_lock(&core);
    native_stop_cells(&core, a, slots, n, were);
    for (size_t i = 0; i < n; i++) {
        account *books = (account *)a->object + slots[i];
        if (were[i] != books->live)
            broken("a stop of cells contradicts the books");
        if (books->live) {
            cancels++;
            leave(books);
        }
    }
    th_unlock(&core);
}

static void end_array(th_array *a)
{
    th_lock(&core);
    int free_it = native_end_array(&core, a);
    th_unlock(&core);
    if (free_it)
        th_array_free(a);
}

static int64_t soon(uint64_t *state)
{
    static const int64_t spans[] = {1, 20000, 300000, 3000000, FAR};
    int64_t span = spans[draw(state) % 5];
    return th_deadline(th_monotonic(), span == FAR ? FAR : (int64_t)(draw(state) % (uint64_t)span));
}

static void *caller(void *number)
{
    account *own[OWN] = {0}, books[CELLS] = {0};
    uint64_t state = seed * UINT64_C(0x9e3779b97f4a7c15) + (uint64_t)(uintptr_t)number + 1;
    for (size_t i = 0; i < operations; i++) {
        account **slot = &own[draw(&state) % OWN];
        account *a = &shared[draw(&state) % SHARED];
        if (*slot == NULL)
            arm(*slot = new_account(), soon(&state));
        switch (draw(&state) % 11) {
        case 0:
            stop(*slot);
            break;
        case 1:
        case 2:
            reset(*slot, soon(&state));
            break;
        case 3:
            drop(*slot);
            *slot = NULL;
            break;
        case 4:
            stop(a);
            break;
        case 5:
            reset(a, soon(&state));
            break;
        case 6:
            if (i % 64 == 0) /* let the worker park */
                usleep(200);
            break;
        case 7:
            arm_cells(array, soon(&state), &state);
            break;
        case 8:
            stop_cells(array, draw(&state) % CELLS, PIECE);
            break;
        case 9:
            if (i % 8 == 0) {
                th_array *short_lived = new_array(books);
                arm_cells(short_lived, soon(&state), &state);
                sched_yield();
                stop_cells(short_lived, 0, CELLS);
                end_array(short_lived);
            }
            break;
        default:
            break;
        }
    }
    for (size_t i = 0; i < OWN; i++)
        if (own[i])
            drop(own[i]);
    return NULL;
}

static void launch(void)
{
    int fired, freed;
    th_lock(&core);
    th_timer *t = core.run[core.run_head].timer;
    account *a = account_of(t);
    if (t->flags & TH_CELL) {
        freed = 0;
        native_launch_cell(&core, !core.closed, &fired);
    } else {
        native_launch(&core, !core.closed, &fired, &freed);
    }
    if (fired) {
        if (!a->live || a->when > th_monotonic())
            broken(a->live ? "early" : "launched after its stop");
        leave(a);
        if (core.closed)
            cancels++;
        else
            fires++;
    }
    if (freed) {
        if (t->flags & TH_ORPHAN)
            native_free_slot(&core, t);
        else
            free(t);
    }
    th_unlock(&core);
    if (freed)
        free(a);
}

static void set_firing(int firing)
{
    th_lock(&core);
    core.firing = firing;
    int asleep = core.asleep;
    th_unlock(&core);
    if (firing && asleep)
        th_rouse(&core);
}

static void *worker(void *post)
{
    for (size_t runs = 0; native_next_run(post); runs++) {
        set_firing(1);
        while (core.run_head < core.run_len)
            launch();
        if (runs % 64 == 0) /* held up */
            usleep(4000);
        set_firing(0);
        native_empty_run(&core);
    }
    th_post_drop(post);
    return NULL;
}

static void *standby(void *post)
{
    native_progress seen = {0};
    while (native_stand_by(post, &seen)) {
        atomic_fetch_add(&alarms, 1);
        usleep(100);
    }
    th_post_drop(post);
    return NULL;
}

static void start(pthread_t *thread)
{
    th_post *post = th_post_new(&core), *spare = th_post_new(&core);
    if (post == NULL || spare == NULL)
        broken("no memory");
    th_lock(&core);
    core.post = post;
    core.spare = spare;
    core.running = 1;
    th_unlock(&core);
    if (pthread_create(thread, NULL, worker, post) || pthread_create(&watching, NULL, standby, spare))
        broken("no worker");
}

/* Waits until worker and standby have left. Caller holds M and has set the flag that sends it away; gives M back. */
static void dismiss(pthread_t thread)
{
    th_unlock(&core);
    th_signal_all(&core);
    pthread_join(thread, NULL);
    pthread_join(watching, NULL);
}

/* before_fork and resume_workers, again and again. */
static void *forker(void *thread)
{
    while (!atomic_load(&finished)) {
        th_lock(&core);
        core.pausing = 1;
        dismiss(*(pthread_t *)thread);
        th_lock(&core);
        core.pausing = 0;
        th_unlock(&core);
        start(thread);
        usleep(2000);
    }
    return NULL;
}

static void close_core(pthread_t thread)
{
    th_timer *t;
    th_lock(&core);
    core.closed = 1;
    dismiss(thread);
    th_lock(&core);
    while ((t = native_cancel_last(&core))) {
        account *a = account_of(t);
        leave(a);
        cancels++;
        if (a->handle || t->flags & TH_CELL)
            continue;
        if (t->flags & TH_ORPHAN)
            native_free_slot(&core, t);
        else
            free(t);
        free(a);
    }
    for (size_t i = 0; i < SHARED; i++) {
        th_timer *orphan;
        if (!native_let_go(&core, shared[i].handle, &orphan))
            broken("a handle outlives its heap");
        free(shared[i].handle);
    }
    th_unlock(&core);
    end_array(array);
    if (core.live || core.len || core.orphans.used || core.arrays.len || core.arrays.retired || arms != fires + cancels
        || core.seq != arms || core.fired != fires || core.cancelled != cancels)
        broken("the ledger is off");
    th_core_unmap(&core);
    th_destroy_locks(&core);
}

int main(int argc, char **argv)
{
    for (int i = 1; i + 1 < argc; i += 2) {
        size_t value = strtoull(argv[i + 1], NULL, 10);
        if (!strcmp(argv[i], "--operations"))
            operations = value;
        else if (!strcmp(argv[i], "--callers"))
            callers = value < 64 ? value : 64;
        else if (!strcmp(argv[i], "--seed"))
            seed = value;
        else {
            fprintf(stderr, "threads: what is %s?\n", argv[i]);
            return 2;
        }
    }
    pthread_t work, fork, call[64];
    horizon = th_monotonic() + FAR / 2;
    th_init_locks(&core);
    th_lock(&core);
    if (!native_init(&core))
        broken("no memory");
    core.patience = TH_NS_PER_S / 1000;
    th_unlock(&core);
    for (size_t i = 0; i < SHARED; i++) {
        shared[i].handle = calloc(1, sizeof(th_timer));
        shared[i].handle->func = shared[i].handle->args = &shared[i];
    }
    array = new_array(cells);
    start(&work);
    pthread_create(&fork, NULL, forker, &work);
    for (size_t i = 0; i < callers; i++)
        pthread_create(&call[i], NULL, caller, (void *)i);
    for (size_t i = 0; i < callers; i++)
        pthread_join(call[i], NULL);
    atomic_store(&finished, 1);
    pthread_join(fork, NULL);
    int64_t until = th_monotonic() + PATIENCE;
    for (int pending = 1; pending; usleep(1000)) {
        th_lock(&core);
        pending = core.live != far;
        th_unlock(&core);
        if (pending && th_monotonic() > until)
            broken("timers lost");
    }
    close_core(work);
    if (atomic_load(&alarms) == 0)
        broken("the standby has slept on beside a worker that was held up");
    printf("%zu operations of %zu callers: %zu arms = %zu fires + %zu cancels, %llu wake-ups, %d alarms, 0 lost, "
           "0 early\n", operations * callers, callers, arms, fires, cancels, (unsigned long long)core.wakeups,
           atomic_load(&alarms));
    return 0;
}
