/* The heap against an array that is searched from end to end: a string of bytes is a history of calls.
 *
 * Each input is decoded into operations (see run_operation). Every operation is done twice: by the heap, through
 * seam.pyx, and by the model, one `item` a timer, which knows the state, deadline and number of the current arming and
 * whether a run entry points at the record. After every operation verify() asks check_heap and then compares all that
 * the model knows with the record, the keys and the counters. At the end the heap is closed, and then
 *
 *     arms == fires + cancels,  no slot, no key and no run entry is left,  every byte mapped was unmapped.
 *
 * What the model demands of the operations themselves:
 *
 *   arm, reset     refused only when the system refused memory or the limit on the keys is reached, and then nothing
 *                  has changed; never refused otherwise
 *   collect        only what is due moves to the run, each timer once; all that is due moves, unless an allocation
 *                  failed, a due timer still has an entry, or callers interfered; before parking the root is true
 *   sort, launch   by (when, seq); a stopped timer's entry is void; nothing is launched twice
 *   periodic       a launch arms it for the first point of its grid after now, the points between are dropped; while
 *                  its last call has not returned it is not called; the heap holds its handle while it is armed
 *   postpone       as reset for what is ARMED or DUE, nothing at all otherwise
 *   park           as long as nobody has signalled, nothing is armed for earlier than wake_at
 *   cells          a piece as one after another, duplicates too; refused only when a key for each is too many or the
 *                  system refused memory; the array counts what is armed, and is held just while something is
 *   end            no key points at an array that goes; its block stays as long as an entry of the run does, or
 *                  somebody reads keys, and goes with the run
 *
 * TimerArrays come and go beside the handles; their cells are items as timers are. Where collect, and the end of an
 * array, let go of the mutex (native_unlock) the input may slip in operations of others. mmap and mremap fail
 * when the input says so; their pages are as large as it says (tests/pages), and all sizes are to be whole pages.
 * Handles are malloc'ed one by one: a sanitizer sees every access after their death.
 *
 * Deadlines are not negative: no clock of the library is.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "native.h"

/* valgrind 3.19 takes what mremap adds under MREMAP_FIXED for inaccessible. It is accessible, and nothing is in it. */
#if __has_include(<valgrind/memcheck.h>)
#include <valgrind/memcheck.h>
#define mark_fresh(base, size) (void)VALGRIND_MAKE_MEM_UNDEFINED(base, size)
#else
#define mark_fresh(base, size) (void)(base)
#endif

#undef mmap
#undef munmap
#undef mremap
#undef madvise
#undef pthread_mutex_unlock

#include "../pages/paging.h"

#ifdef NATIVE_NARROW
#define ITEMS 2048
#define BULK 1
#define OPERATIONS 400 /* of one input: what a long one adds is time */
#define ARMED_AT_ONCE 1
#else
#define ITEMS 400000
#define BULK 512
#define OPERATIONS 60
#define ARMED_AT_ONCE 400
#endif

typedef struct {
    th_timer *record; /* NULL: a free item */
    th_timer *handle; /* NULL once the user has dropped it */
    int state;
    int entry; /* a run entry points at the record */
    int64_t when;
    uint64_t seq;
    th_periodic periodic; /* of a periodic timer, whose args point right behind it */
} item;

typedef struct block {
    th_array *a; /* NULL: gone, and its memory is kept for the run's sake */
    char *base;
    size_t n;
    item *cells;
    int ending;
    struct block *next; /* among those that are kept */
} block;

static item items[ITEMS];
static block blocks[6]; /* more than an empty list of them has room for */
static block *kept;
static size_t top;  /* items ever used by this input */
static size_t hole; /* no free item below */

static th_core *core;
static int64_t now;
static uint64_t arms, fires, cancels, dropped, peak;
static size_t live;     /* ARMED or DUE */
static size_t absorbed; /* entries of the run that the model knows of */
static int signalled;
static int64_t launched_when;
static uint64_t launched_seq;

static const uint8_t *input, *input_end;
static size_t operations;
static size_t mapped;
static unsigned fail_after; /* the how-manieth map call from now fails; FAIL_ALL: each one */
static size_t failed;
static unsigned open_to; /* kinds of operations that may slip in, 0: none */
static unsigned doable;  /* kinds of operations that may be done at all: inside of collect callers' alone */
static size_t interfered;

size_t native_keys_max = UINT32_MAX;
size_t native_page;
native_totals totals;

#define FAIL_ALL 255

const char *native_subject = "input";

static void diverged(int line, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fprintf(stderr, "%s: fuzz.c:%d, operation %zu: ", native_subject, line, operations);
    vfprintf(stderr, format, args);
    fprintf(stderr, "\n");
    va_end(args);
    abort();
}

#define SIZE(array) (sizeof(array) / sizeof *(array))

#define DEMAND(condition, ...)                     \
    do {                                           \
        if (!(condition))                          \
            diverged(__LINE__, #condition ": " __VA_ARGS__); \
    } while (0)

/* ---- the system, as far as the heap can see ---------------------------------------------------------------------- */

static int refuses(void)
{
    if (fail_after == 0 || (fail_after != FAIL_ALL && --fail_after > 0))
        return 0;
    failed++;
    totals.failures++;
    errno = ENOMEM;
    return 1;
}

static void demand_pages(void *base, size_t size)
{
    DEMAND(size && size % native_page == 0 && !paging_off(native_page, base), "%zu bytes at %p", size, base);
}

void *native_mmap(void *addr, size_t size, int prot, int flags, int fd, off_t offset)
{
    if (refuses())
        return MAP_FAILED;
    demand_pages(NULL, size);
    void *base = paging_mmap(native_page, addr, size, prot, flags, fd, offset);
    if (base != MAP_FAILED)
        mapped += size;
    return base;
}

void *native_mremap(void *old, size_t old_size, size_t size, int flags)
{
    if (refuses())
        return MAP_FAILED;
    demand_pages(old, old_size);
    demand_pages(NULL, size);
    void *base = paging_mremap(native_page, old, old_size, size, flags, NULL);
    if (base != MAP_FAILED)
        mapped -= old_size - size;
    if (base != MAP_FAILED && size > old_size)
        mark_fresh((char *)base + old_size, size - old_size);
    return base;
}

int native_munmap(void *base, size_t size)
{
    demand_pages(base, size);
    mapped -= size;
    return paging_munmap(native_page, base, size);
}

int native_madvise(void *base, size_t size, int advice)
{
    demand_pages(base, size);
    return refuses() ? -1 : paging_madvise(native_page, base, size, advice);
}

static void slip_in(void);

int native_unlock(pthread_mutex_t *mutex)
{
    int result = pthread_mutex_unlock(mutex);
    if (open_to)
        slip_in();
    return result;
}

/* ---- the input --------------------------------------------------------------------------------------------------- */

static unsigned take(void)
{
    return input < input_end ? *input++ : 0;
}

static int64_t take_wide(void)
{
    int64_t digit = take();
    return digit << take() % 56;
}

static int64_t take_when(void)
{
    unsigned code = take(), more = code >> 3;
    switch (code & 7) {
    case 0:
        return now;
    case 1:
    case 2:
        return th_deadline(now, more);
    case 3:
        return th_deadline(now, (int64_t)take() << 4 | more);
    case 4: /* a coarse grid: ties */
        return th_deadline(now & ~INT64_C(63), 64 * (1 + (more & 3)));
    case 5: /* far and wide: every digit of the radix sort */
        return th_deadline(now, (int64_t)(take() & 127) << (2 * more > 56 ? 56 : 2 * more));
    case 6:
        return more & 1 ? TH_NEVER - 1 : TH_NEVER;
    default: /* a caller that read the clock before others did */
        return now > more ? now - more : 0;
    }
}

static item *cell_of(const block *b, const th_timer *record)
{
    size_t offset = (size_t)((const char *)record - b->base);
    return b->base && offset < b->n * TH_CELL_SIZE ? &b->cells[offset / TH_CELL_SIZE] : NULL;
}

static item *item_of(const th_timer *record)
{
    item *m = NULL;
    for (size_t i = 0; i < SIZE(blocks) && m == NULL; i++)
        if ((m = cell_of(&blocks[i], record)))
            DEMAND(th_owner(&core->arrays, record) == blocks[i].a, "a cell of another array");
    for (block *b = kept; b && m == NULL; b = b->next)
        if ((m = cell_of(b, record)))
            DEMAND(th_owner(&core->arrays, record) == NULL, "a cell of an array that is gone");
    DEMAND(!(record->flags & TH_CELL) == !m, "a cell is taken for a timer");
    if (m == NULL) {
        size_t id = (size_t)record->func - 1;
        DEMAND(id < top, "a record that belongs to no timer");
        m = &items[id];
    }
    DEMAND(m->record == record, "another record");
    return m;
}

/* Timers, free ones among them, then the cells; NULL behind the last. */
static item *nth(size_t i)
{
    if (i < top)
        return &items[i];
    i -= top;
    for (size_t k = 0; k < SIZE(blocks); i -= blocks[k++].n)
        if (i < blocks[k].n)
            return &blocks[k].cells[i];
    for (block *b = kept; b; i -= b->n, b = b->next)
        if (i < b->n)
            return &b->cells[i];
    return NULL;
}

/* A timer with a handle, or NULL. */
static item *choose(void)
{
    size_t start = take();
    start |= (size_t)take() << 8;
    for (size_t i = 0; i < top; i++) {
        item *m = &items[(start + i) % top];
        if (m->handle)
            return m;
    }
    return NULL;
}

/* ---- after every operation --------------------------------------------------------------------------------------- */

/* What the array knows of its cells, and what callers see of them. */
static void verify_block(const block *b)
{
    uint32_t slots[TH_PIECE];
    uint8_t active[TH_PIECE];
    int64_t whens[TH_PIECE];
    size_t armed = 0, above = 0;
    for (size_t i = 0; i < b->n; i++) {
        armed += b->cells[i].state != TH_IDLE;
        if (b->cells[i].record->flags || b->cells[i].record->seq)
            above = i + 1;
    }
    DEMAND(b->a->armed == armed && !b->a->held == !armed, "%zu cells armed, not %zu", b->a->armed, armed);
    DEMAND(b->a->top >= above && b->a->top <= b->n, "top %zu, not %zu", b->a->top, above);
    for (size_t at = 0, n; at < b->n; at += n) {
        n = b->n - at < TH_PIECE ? b->n - at : TH_PIECE;
        for (size_t i = 0; i < n; i++)
            slots[i] = (uint32_t)(at + i);
        native_look_at_cells(core, b->a, slots, n, active, whens);
        for (size_t i = 0; i < n; i++) {
            const item *m = &b->cells[at + i];
            DEMAND(active[i] == (m->state != TH_IDLE && !core->closed), "slot %zu is active: %d", at + i, active[i]);
            DEMAND(!active[i] || whens[i] == m->when, "slot %zu: another deadline", at + i);
        }
    }
}

static void verify(void)
{
    size_t armed = 0, due = 0, entries = 0, orphans = 0, index = 0, gone = 0;
    int64_t left = 0, right = 0;
    const char *fault = native_check(core, &index, &left, &right);
    DEMAND(fault == NULL, "%s at index %zu: %lld and %lld", fault, index, (long long)left, (long long)right);
    for (size_t i = 0; i < SIZE(blocks); i++)
        if (blocks[i].a)
            verify_block(&blocks[i]);
    for (th_array *a = core->arrays.retired; a; a = a->next)
        gone++;
    for (block *b = kept; b; b = b->next)
        gone--;
    DEMAND(gone == 0, "%zu arrays retired too many", gone);
    item *m;
    for (size_t i = 0; (m = nth(i)); i++) {
        if (m->record == NULL)
            continue;
        DEMAND(m->record->state == m->state, "timer %zu: state %u, not %d", i, m->record->state, m->state);
        DEMAND(!(m->record->flags & TH_PINNED) == !m->entry, "timer %zu: pinned %d", i, !m->entry);
        DEMAND(i >= top || m->handle || m->entry || m->state != TH_IDLE, "timer %zu should be gone", i);
        armed += m->state == TH_ARMED;
        due += m->state == TH_DUE;
        entries += m->entry != 0;
        orphans += (m->record->flags & TH_ORPHAN) != 0;
        if (m->state == TH_IDLE)
            continue;
        DEMAND(m->record->when == m->when && m->record->seq == m->seq, "timer %zu: another arming", i);
        if (m->state == TH_ARMED) {
            DEMAND(m->record->pos < core->len && core->keys[m->record->pos].timer == m->record, "timer %zu: no key", i);
            DEMAND(core->wake_at == INT64_MIN || signalled || m->when >= core->wake_at, "timer %zu: wake-up lost", i);
        }
    }
    DEMAND(armed == core->len - (core->stops - core->buried), "%zu armed, %zu keys", armed, core->len);
    DEMAND(entries == absorbed - core->run_head, "%zu entries, not %zu", core->run_len - core->run_head, entries);
    DEMAND(armed + due == live && live == core->live, "%zu live, not %zu", core->live, live);
    DEMAND(orphans == core->orphans.used, "%zu slots in use, not %zu", core->orphans.used, orphans);
    DEMAND(core->seq == arms && core->fired == fires && core->cancelled == cancels, "miscounted");
    DEMAND(arms == fires + cancels + live, "the ledger is off");
    DEMAND(core->dropped == dropped, "%llu calls dropped", (unsigned long long)core->dropped);
    DEMAND(core->peak == peak, "peak %zu, not %llu", core->peak, (unsigned long long)peak);
    DEMAND(core->len <= native_keys_max && core->len <= core->cap, "%zu keys", core->len);
    DEMAND(core->key_peak >= core->len, "%zu keys resident, not %zu", core->key_peak, core->len);
    DEMAND(native_resident(core) <= mapped, "more resident than mapped");
}

/* ---- operations, done by the heap and by the model --------------------------------------------------------------- */

static void note_arming(item *m, int64_t when)
{
    m->state = TH_ARMED;
    m->when = when;
    m->seq = ++arms;
    totals.arms++;
}

static void note_live(int by)
{
    live += (size_t)by;
    if (live > peak)
        peak = live;
}

static void note_wake(int wake)
{
    if (wake) {
        DEMAND(core->parked && !signalled, "a signal to nobody");
        signalled = 1;
    }
}

static void expect_refusal(int armed, size_t len, size_t failed_before)
{
    int full = len >= native_keys_max;
    DEMAND(armed || full || failed > failed_before, "refused with room for more: %zu keys", len);
    DEMAND(!armed || !full, "more keys than the limit");
    totals.refusals += !armed;
}

/* periodic: its period is made of the deadline, and now and then longer than the clock. */
static void arm_new(int64_t when, int periodic)
{
    size_t before = failed, len = core->len;
    int wake = 0;
    while (hole < ITEMS && items[hole].record)
        hole++;
    if (hole == ITEMS)
        return;
    item *m = &items[hole];
    if (hole >= top)
        top = hole + 1;
    m->handle = m->record = calloc(1, sizeof(th_timer));
    m->record->func = m->record->args = (void *)(hole + 1);
    if (periodic) {
        m->periodic = (th_periodic){.period = when % 61 ? 1 + when % 61 * (when & 15) : TH_NEVER - when % 2};
        m->record->args = &m->periodic + 1;
        m->record->flags = TH_ARGS_BLOCK | TH_PERIODIC;
    }
    m->state = TH_IDLE;
    m->entry = 0;
    int armed = native_arm(core, m->record, when, &wake);
    expect_refusal(armed, len, before);
    note_wake(wake);
    if (!armed) {
        free(m->handle);
        m->handle = m->record = NULL;
        return;
    }
    note_arming(m, when);
    note_live(1);
}

static void note_cancel(item *m)
{
    m->state = TH_IDLE;
    cancels++;
    live--;
}

static void stop(item *m)
{
    int was_live = m->state != TH_IDLE;
    DEMAND(native_stop(core, m->record) == was_live, "stop of a timer in state %d", m->state);
    if (was_live)
        note_cancel(m);
}

/* As many slices as it takes. A walk through all keys finds every dead one, so that is not many. */
static void sweep_all(void)
{
    size_t slices = 2 * core->len + 2;
    while (4 * (core->stops - core->buried) > core->len) {
        DEMAND(slices-- > 0, "%zu dead of %zu keys are not swept", core->stops - core->buried, core->len);
        native_sweep(core);
    }
}

static void reset(item *m, int64_t when)
{
    size_t before = failed, len = core->len;
    int wake = 0, was = m->state, keyed = m->record->flags & TH_KEYED, armed;
    int periodic = m->record->flags & TH_PERIODIC, pending = was != TH_IDLE;
    int64_t period = 1 + (when & 255);
    if (operations & 1 && !pending) {
        armed = periodic ? native_periodic(core, m->record, when, period, 0, &wake)
                         : native_postpone(core, m->record, when, &wake);
        DEMAND(!armed && !wake, "postpone has revived a timer");
        if (BULK == 1)
            verify();
    }
    if (periodic)
        armed = native_periodic(core, m->record, when, period, !(operations & 1 && pending), &wake);
    else if (operations & 1 && pending)
        armed = native_postpone(core, m->record, when, &wake);
    else
        armed = native_reset(core, m->record, when, &wake);
    DEMAND(!periodic || !armed || m->periodic.period == period, "another period");
    if (periodic)
        m->periodic.running = 0; /* a call that has taken its time returns */
    DEMAND(keyed || was != TH_ARMED, "an armed timer without a key");
    if (keyed)
        DEMAND(armed, "a reset that needs no memory was refused");
    else
        expect_refusal(armed, len, before);
    note_wake(wake);
    if (armed) {
        cancels += was != TH_IDLE;
        note_arming(m, when);
        note_live(was == TH_IDLE);
    }
}

/* Overwritten first: a build without a sanitizer diverges when the heap still looks at it. */
static void free_handle(th_timer *t)
{
    memset(t, 0xdd, sizeof *t);
    free(t);
}

static void forget(item *m)
{
    m->record = NULL;
    m->handle = NULL;
    if ((size_t)(m - items) < hole)
        hole = (size_t)(m - items);
}

/* The death of the handle: the record is freed, moves to a slot, or stays in the handle's memory as a carcass. */
static void drop(item *m)
{
    th_timer *orphan = NULL;
    int armed = m->state == TH_ARMED, entry = m->entry, idle = m->state == TH_IDLE;
    size_t before = failed;
    if (m->record->flags & TH_PERIODIC && !idle)
        return;
    if (native_let_go(core, m->record, &orphan)) {
        DEMAND((idle || armed) && !entry, "memory freed that the run points at");
        DEMAND(armed == (orphan != NULL), "an orphan without need");
        free_handle(m->handle);
        m->handle = NULL;
        if (orphan)
            m->record = orphan;
        else
            forget(m);
    } else {
        DEMAND(!idle || entry, "a carcass without need");
        DEMAND(!armed || entry || failed > before, "a carcass for want of memory that was there");
        m->handle = NULL;
    }
}

/* What collect has moved to the run since the model last looked. */
static void absorb(void)
{
    for (; absorbed < core->run_len; absorbed++) {
        th_key *e = &core->run[absorbed];
        item *m = item_of(e->timer);
        DEMAND(m->state == TH_ARMED && !m->entry, "collected in state %d, entry %d", m->state, m->entry);
        DEMAND(m->when <= now && m->when != TH_NEVER, "collected %lld early", (long long)(m->when - now));
        DEMAND(e->when == m->when, "an entry for another arming");
        m->state = TH_DUE;
        m->entry = 1;
    }
}

static int is_due(const item *m)
{
    return m->record && m->state == TH_ARMED && m->when <= now && m->when != TH_NEVER;
}

/* The run from its head on: the entries of the model, each once, in order. By deadline also those that a stop has made
 * void; what number their timers' arming had is gone when these are armed anew. */
static void verify_run(void)
{
    size_t entries = 0;
    uint64_t seq = 0;
    item *m;
    for (size_t i = 0; (m = nth(i)); i++)
        entries += m->record && m->entry;
    DEMAND(entries == core->run_len - core->run_head, "%zu entries", core->run_len - core->run_head);
    for (size_t i = core->run_head; i < core->run_len; i++) {
        th_key *e = &core->run[i];
        m = item_of(e->timer);
        DEMAND(m->entry, "an entry that was launched already");
        if (i > core->run_head)
            DEMAND(e[-1].when <= e->when, "entry %zu out of order", i);
        if (i > core->run_head && e[-1].when != e->when)
            seq = 0;
        if (m->state == TH_DUE) {
            DEMAND(seq < m->seq, "entry %zu out of order among equals", i);
            seq = m->seq;
        }
    }
}

enum { ARM, ARM_PERIODIC, STOP, RESET, DROP, ARM_MANY, STOP_MANY, RESET_MANY, DROP_MANY, FAIL, ARRAY, ARM_CELLS,
       STOP_CELLS, READ, CALLS, /* callers' */
       COLLECT = CALLS, LAUNCH, LAUNCH_ALL, STEP, LEAP, SWEEP, KINDS };

/* One turn of next_run's loop. */
static void collect(int slips)
{
    size_t before = failed, pinned = 0, left = 0;
    unsigned callers = slips ? CALLS : 0;
    item *m;
    for (size_t i = 0; (m = nth(i)); i++)
        pinned += is_due(m) && m->entry;
    core->wake_at = INT64_MIN;
    core->parked = signalled = 0;
    interfered = 0;
    th_lock(core);
    open_to = callers;
    native_collect(core, now);
    open_to = 0;
    th_unlock(core);
    absorb();
    verify();
    for (size_t i = 0; (m = nth(i)); i++)
        left += is_due(m);
    if (failed == before && !interfered) {
        DEMAND(left == pinned, "%zu due timers left behind, of which %zu have an entry", left, pinned);
        DEMAND(left == 0 || core->run_len > core->run_head, "nothing to run, %zu due", left);
    }
    if (core->run_len) {
        th_lock(core);
        open_to = callers;
        native_sort(core);
        open_to = 0;
        th_unlock(core);
        verify();
        verify_run();
        launched_when = INT64_MIN;
        return;
    }
    if (core->len && failed == before && !interfered) {
        DEMAND(core->keys[0].timer->state == TH_ARMED, "parked for a dead key");
        DEMAND(core->keys[0].when == core->keys[0].timer->when, "parked for a stale key");
        DEMAND(core->keys[0].when > now || core->keys[0].when == TH_NEVER, "parked with a timer due");
    }
    core->wake_at = core->len ? core->keys[0].when : TH_NEVER;
    core->parked = 1;
}

/* What no entry points at any more, and nobody reads. */
static void forget_kept(void)
{
    while (kept && core->readers == 0) {
        block *b = kept;
        kept = b->next;
        for (size_t i = 0; i < b->n; i++)
            DEMAND(!b->cells[i].entry, "slot %zu of an array that is gone has an entry", i);
        free(b->cells);
        free(b);
    }
}

static void end_run(void)
{
    if (core->run_head == core->run_len) {
        native_empty_run(core);
        absorbed = 0;
        forget_kept();
    }
}

/* A pending() of another thread, where there is no GIL: it begins, or it ends. */
static void read_keys(void)
{
    core->readers = !core->readers;
    if (core->readers == 0 && core->run_len == 0) {
        th_free_retired(&core->arrays);
        forget_kept();
    }
}

/* False: there was no memory for the key of a periodic timer, and nothing has changed. */
static int launch_periodic(item *m)
{
    size_t before = failed, len = core->len;
    int skips = m->periodic.running != 0;
    uint64_t number = 0;
    __int128 missed = ((__int128)now - m->when) / m->periodic.period;
    __int128 next = m->when + (missed + 1) * m->periodic.period;
    if (!native_go_on(core, now, &number)) {
        expect_refusal(0, len, before);
        return 0;
    }
    DEMAND(number == (skips ? 0 : m->seq), "number %llu", (unsigned long long)number);
    dropped += (uint64_t)missed + (uint64_t)skips;
    m->entry = 0;
    m->state = TH_ARMED;
    m->when = next < TH_NEVER ? (int64_t)next : TH_NEVER;
    if (!skips) {
        DEMAND(m->periodic.running == number, "no call under way");
        if (m->seq % 4)
            m->periodic.running = 0; /* the others return at the next reset */
        fires++;
        totals.fires++;
        note_arming(m, m->when);
    }
    return 1;
}

/* False: there was no entry, or no memory to be done with it. */
static int launch(void)
{
    int fired = 0, freed = 0;
    if (core->run_head == core->run_len)
        return 0;
    th_key e = core->run[core->run_head];
    item *m = item_of(e.timer);
    int cell = e.timer->flags & TH_CELL;
    DEMAND(m->entry, "launched twice");
    DEMAND(launched_when <= e.when, "launched out of order");
    if (launched_when < e.when)
        launched_seq = 0;
    launched_when = e.when;
    if (e.timer->flags & TH_PERIODIC && (core->closed || m->state != TH_DUE)) {
        uint64_t number = 0;
        DEMAND(native_go_on(core, now, &number) && number == UINT64_MAX, "a void entry goes on");
    } else if (e.timer->flags & TH_PERIODIC) {
        DEMAND(launched_seq < m->seq, "launched out of order among equals");
        uint64_t seq = m->seq;
        if (!launch_periodic(m))
            return 0;
        launched_seq = seq;
        end_run();
        return 1;
    }
    th_timer *t = e.timer;
    if (cell) {
        th_array *a = th_owner(&core->arrays, t);
        DEMAND(native_launch_cell(core, !core->closed, &fired) == (fired ? a : NULL), "launched for another array");
    } else {
        t = native_launch(core, !core->closed, &fired, &freed);
    }
    DEMAND(t == m->record && fired == (m->state == TH_DUE), "launched in state %d: %d", m->state, fired);
    m->entry = 0;
    if (fired) {
        DEMAND(e.when == m->when && m->when <= now, "launched for another arming");
        DEMAND(launched_seq < m->seq, "launched out of order among equals");
        launched_seq = m->seq;
        m->state = TH_IDLE;
        live--;
        fires += !core->closed;
        cancels += core->closed != 0;
        totals.fires += !core->closed;
    }
    DEMAND(freed == (!cell && m->handle == NULL && m->state == TH_IDLE), "freed %d in state %d", freed, m->state);
    if (freed) {
        if (t->flags & TH_ORPHAN)
            native_free_slot(core, t);
        else
            free_handle(t);
        forget(m);
    }
    end_run();
    return 1;
}

/* ---- cells, done likewise ---------------------------------------------------------------------------------------- */

/* n may be 0. The first two are large. */
static void new_block(block *b)
{
    size_t before = failed, n = (size_t)(take() & (b < blocks + 2 ? 255 : 31)) * ARMED_AT_ONCE;
    th_array *a = th_array_new((uint32_t)n);
    if (a == NULL) {
        DEMAND(failed > before, "no memory for an array");
        return;
    }
    DEMAND(th_enlist_array(&core->arrays, a), "no memory for one array more");
    *b = (block){.a = a, .base = a->base, .n = n, .cells = calloc(n + 1, sizeof(item))};
    for (size_t i = 0; i < n; i++)
        b->cells[i].record = th_cell(a, i);
}

/* The piece's slots: first, first + stride, and so on, round the array. */
static size_t make_piece(const block *b, size_t first, size_t stride, size_t left, uint32_t *slots)
{
    size_t n = left < TH_PIECE ? left : TH_PIECE;
    for (size_t i = 0; i < n; i++)
        slots[i] = (uint32_t)((first + i * stride) % b->n);
    return n;
}

static void note_cell(item *m, int64_t when)
{
    int was = m->state != TH_IDLE;
    cancels += was;
    note_arming(m, when);
    note_live(!was);
}

/* False: refused, and nothing has changed. */
static int arm_piece(block *b, const uint32_t *slots, size_t n, const int64_t *whens, int64_t when, int revive)
{
    uint8_t out[TH_PIECE];
    size_t before = failed, len = core->len, were = 0, pending = 0;
    int wake = 0;
    int armed = native_arm_cells(core, b->a, slots, n, whens, when, revive, out, &were, &wake);
    DEMAND(armed || len + n > native_keys_max || failed > before, "%zu cells refused beside %zu keys", n, len);
    DEMAND(!armed || len + n <= native_keys_max, "more keys than the limit");
    totals.refusals += !armed;
    note_wake(wake);
    for (size_t i = 0; i < n && armed; i++) {
        item *m = &b->cells[slots[i]];
        int was = m->state != TH_IDLE;
        DEMAND(out[i] == was, "slot %u of the piece was %d", slots[i], out[i]);
        pending += (size_t)was;
        if (was || revive)
            note_cell(m, whens ? whens[i] : when);
    }
    DEMAND(were == pending, "%zu of the piece were pending, not %zu", were, pending);
    return armed;
}

static void arm_one(block *b, uint32_t slot, int64_t when, int revive)
{
    item *m = &b->cells[slot];
    size_t before = failed, len = core->len;
    int wake = 0, was = 0, pending = m->state != TH_IDLE, keyed = m->record->flags & TH_KEYED;
    int armed = native_arm_cell(core, b->a, slot, when, revive, &was, &wake);
    DEMAND(was == pending, "slot %u was %d", slot, was);
    note_wake(wake);
    if (!pending && !revive) {
        DEMAND(armed && !wake, "a postpone of what is not pending was refused");
        return;
    }
    if (keyed)
        DEMAND(armed, "a reset that needs no memory was refused");
    else
        expect_refusal(armed, len, before);
    if (armed)
        note_cell(m, when);
}

static void stop_piece(block *b, const uint32_t *slots, size_t n)
{
    uint8_t out[TH_PIECE];
    size_t stopped = native_stop_cells(core, b->a, slots, n, out), pending = 0;
    for (size_t i = 0; i < n; i++) {
        item *m = &b->cells[slots[i]];
        DEMAND(out[i] == (m->state != TH_IDLE), "stop of slot %u in state %d", slots[i], m->state);
        pending += out[i];
        if (out[i])
            note_cancel(m);
    }
    DEMAND(stopped == pending, "%zu of the piece stopped, not %zu", stopped, pending);
}

static void stop_one(block *b, uint32_t slot)
{
    item *m = &b->cells[slot];
    DEMAND(native_stop_cell(core, b->a, slot) == (m->state != TH_IDLE), "stop of slot %u in state %d", slot, m->state);
    if (m->state != TH_IDLE)
        note_cancel(m);
}

/* Of an array of which nothing is armed: its object dies. */
static void end_block(block *b)
{
    th_array *a = b->a;
    size_t before, bytes = a->bytes;
    b->ending = 1;
    th_lock(core);
    open_to = core->closed ? 0 : doable;
    int free_it = native_end_array(core, a);
    open_to = 0;
    th_unlock(core);
    DEMAND(free_it == (core->run_len == 0 && core->readers == 0), "the block of an array that is gone: %d", free_it);
    for (size_t i = 0; i < core->len; i++)
        DEMAND(!th_owns_cell(a, core->keys[i].timer), "a key of an array that is gone");
    for (size_t i = 0; i < core->rising; i++)
        DEMAND(!th_owns_cell(a, core->risers[i]), "a riser of an array that is gone");
    if (free_it) {
        before = mapped;
        th_array_free(a);
        DEMAND(mapped == before - bytes, "%zu bytes of an array", before - mapped);
        free(b->cells);
    } else {
        block *gone = malloc(sizeof *gone);
        *gone = *b;
        gone->a = NULL;
        gone->next = kept;
        kept = gone;
    }
    *b = (block){0};
}

/* ---- the decoder ------------------------------------------------------------------------------------------------- */

/* Deadlines from base on, step apart, in an order that is neither rising nor falling. */
static int64_t nth_when(int64_t base, size_t i, unsigned step)
{
    return th_deadline(base, (int64_t)(i * 7919 % 1021) * (step & 15) + (int64_t)(step & 15 ? step >> 4 : 0));
}

/* An array comes or goes. */
static void run_array(void)
{
    block *b = &blocks[take() % SIZE(blocks)];
    uint32_t slots[TH_PIECE];
    if (b->ending)
        return;
    if (b->a == NULL) {
        new_block(b);
        return;
    }
    for (size_t at = 0, n; at < b->n; at += n) {
        n = make_piece(b, at, 1, b->n - at, slots);
        stop_piece(b, slots, n);
    }
    end_block(b);
}

/* Which array; reset or postpone; one slot or several. */
static void run_cells(unsigned kind)
{
    unsigned code = take();
    block *b = &blocks[code % SIZE(blocks)];
    int revive = (code / SIZE(blocks) & 3) != 0, single = (code / SIZE(blocks) & 12) == 4;
    if (b->ending)
        return;
    if (b->a == NULL)
        new_block(b);
    if (b->a == NULL || b->n == 0)
        return;
    uint32_t slots[TH_PIECE];
    int64_t whens[TH_PIECE];
    size_t first = take(), count = single ? 1 : 1 + (size_t)take() * ARMED_AT_ONCE;
    size_t stride = single ? 0 : take();
    int64_t base = kind == ARM_CELLS ? take_when() : 0;
    unsigned step = kind == ARM_CELLS && !single ? take() : 0;
    first *= ARMED_AT_ONCE;
    if (single && kind == ARM_CELLS)
        arm_one(b, (uint32_t)(first % b->n), base, revive);
    else if (single)
        stop_one(b, (uint32_t)(first % b->n));
    else
        for (size_t at = 0, n; at < count; at += n) {
            n = make_piece(b, first + at * stride, stride, count - at, slots);
            for (size_t i = 0; i < n; i++)
                whens[i] = nth_when(base, at + i, step);
            if (kind == STOP_CELLS)
                stop_piece(b, slots, n);
            else if (!arm_piece(b, slots, n, step & 15 ? whens : NULL, base, revive))
                return;
        }
}

static void run_many(unsigned kind)
{
    size_t count = (size_t)take() * BULK, stride = kind == ARM_MANY ? 1 : 1 + (take() & 7);
    int64_t base = kind == ARM_MANY || kind == RESET_MANY ? take_when() : 0;
    unsigned step = base ? take() : 0;
    for (size_t i = 0, at = 0; i < count && (kind == ARM_MANY || at < top); i++, at += stride) {
        item *m = &items[at];
        if (kind == ARM_MANY)
            arm_new(nth_when(base, i, step), 0);
        else if (m->handle == NULL)
            continue;
        else if (kind == STOP_MANY)
            stop(m);
        else if (kind == RESET_MANY)
            reset(m, nth_when(base, i, step));
        else
            drop(m);
    }
}

static void run_operation(unsigned kind)
{
    item *m;
    operations++;
    totals.operations++;
    switch (kind) {
    case ARM:
    case ARM_PERIODIC:
        arm_new(take_when(), kind == ARM_PERIODIC);
        break;
    case STOP:
        if ((m = choose()))
            stop(m);
        break;
    case RESET:
        if ((m = choose()))
            reset(m, take_when());
        break;
    case DROP:
        if ((m = choose()))
            drop(m);
        break;
    case ARM_MANY:
    case STOP_MANY:
    case RESET_MANY:
    case DROP_MANY:
        run_many(kind);
        break;
    case FAIL:
        fail_after = take();
        break;
    case ARRAY:
        run_array();
        break;
    case ARM_CELLS:
    case STOP_CELLS:
        run_cells(kind);
        break;
    case READ:
        read_keys();
        break;
    case COLLECT:
        collect((take() & 3) == 1);
        break;
    case LAUNCH:
        for (unsigned count = 1 + (take() & 7); count > 0; count--)
            launch();
        break;
    case LAUNCH_ALL:
        while (launch())
            ;
        break;
    case STEP:
        now = th_deadline(now, take());
        break;
    case LEAP:
        now = th_deadline(now, take_wide());
        break;
    default:
        sweep_all();
    }
    verify();
}

/* Others get in between two slices: the input says how many, and what they do. */
static void slip_in(void)
{
    unsigned kinds = open_to, outside = doable;
    open_to = 0;
    doable = kinds;
    totals.yields++;
    absorb();
    verify();
    for (unsigned calls = take() & 3; calls > 0 && input < input_end; calls--) {
        interfered++;
        run_operation(take() % kinds);
    }
    open_to = kinds;
    doable = outside;
}

static void close_heap(void)
{
    th_timer refused = {0};
    th_timer *t;
    int wake = 0;
    core->closed = 1;
    DEMAND(!native_arm(core, &refused, now, &wake) && !wake && refused.state == TH_IDLE, "a closed heap arms");
    while ((t = native_cancel_last(core))) {
        item *m = item_of(t);
        DEMAND(m->state == TH_ARMED, "closing cancels a timer in state %d", m->state);
        note_cancel(m);
        if (m->handle || m->entry || t->flags & TH_CELL)
            continue;
        if (t->flags & TH_ORPHAN)
            native_free_slot(core, t);
        else
            free_handle(t);
        forget(m);
    }
    verify();
    for (size_t i = 0; i < SIZE(blocks); i++)
        if (blocks[i].a && operations & 1 && blocks[i].a->armed == 0)
            end_block(&blocks[i]);
    while (launch())
        ;
    for (size_t i = 0; i < top; i++)
        if (items[i].handle)
            drop(&items[i]);
    if (core->readers)
        read_keys();
    for (size_t i = 0; i < SIZE(blocks); i++)
        if (blocks[i].a)
            end_block(&blocks[i]);
    verify();
    DEMAND(core->arrays.len == 0 && core->arrays.retired == NULL && kept == NULL, "an array outlives its heap");
    for (size_t i = 0; i < top; i++)
        DEMAND(items[i].record == NULL, "timer %zu outlives its heap", i);
    DEMAND(live == 0 && core->len == 0 && core->orphans.used == 0 && arms == fires + cancels, "the ledger is off");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const size_t limits[] = {UINT32_MAX, 200, 253, 700, 1000};
    static const int scales[] = {0, 2, 4};
    th_core heap = {0};
    core = &heap;
    input = data;
    input_end = data + size;
    top = hole = operations = absorbed = live = 0;
    arms = fires = cancels = dropped = peak = 0;
    fail_after = open_to = 0;
    doable = KINDS;
    signalled = 0;
    launched_when = INT64_MIN;
    th_init_locks(core);
    native_page = (size_t)sysconf(_SC_PAGESIZE) << scales[take() % SIZE(scales)];
#ifdef NATIVE_NARROW
    native_keys_max = limits[take() % SIZE(limits)];
#else
    native_keys_max = limits[0];
    take();
#endif
    now = take_wide();
    DEMAND(native_init(core), "no memory for an empty heap");
    while (input < input_end && operations < OPERATIONS)
        run_operation(take() % KINDS);
    fail_after = 0;
    close_heap();
    th_core_unmap(core);
    th_destroy_locks(core);
    DEMAND(mapped == 0, "%zu bytes left mapped", mapped);
    totals.inputs++;
    return 0;
}
