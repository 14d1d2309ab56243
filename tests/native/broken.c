/* The checker itself, for one that sees nothing would pass every other test here: a heap that is whole is broken in one
 * place at a time, and check has to name each with the index and both values. And the debug build's own checks, which
 * end the process instead of going on with such a heap, or without its mutex. */
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "native.h"

enum { TIMERS = 300, CELLS = 20 };

static th_core core;
static th_timer timers[TIMERS];
static int failures;

static void complain(const char *what, const char *said)
{
    fprintf(stderr, "broken: expected %s, check says %s\n", what ? what : "nothing", said ? said : "nothing");
    failures++;
}

static void expect(const char *what, size_t at, int64_t left, int64_t right)
{
    size_t index = 0;
    int64_t seen_left = 0, seen_right = 0;
    const char *said = native_check(&core, &index, &seen_left, &seen_right);
    if (!said || !what) {
        if (said != what)
            complain(what, said);
    } else if (strcmp(said, what) || index != at || seen_left != left || seen_right != right) {
        complain(what, said);
        fprintf(stderr, "    at %zu: %lld and %lld, not at %zu: %lld and %lld\n", index, (long long)seen_left,
                (long long)seen_right, at, (long long)left, (long long)right);
    }
}

/* BREAK, what check has to say of it, and MEND, after which it has to say nothing. */
#define TRY(breaking, what, at, left, right, mending) \
    do { \
        breaking; \
        expect(what, at, (int64_t)(left), (int64_t)(right)); \
        mending; \
        expect(NULL, 0, 0, 0); \
    } while (0)

static void break_keys(void)
{
    th_key *keys = core.keys;
    int64_t when = keys[7].when;
    th_timer *t = keys[7].timer;
    TRY(keys[7].when = 1, "a key is earlier than its parent", 7, 1, keys[1].when, keys[7].when = when);
    TRY(t->pos = 8, "a timer does not know its place", 7, 8, 7, t->pos = 7);
    TRY(t->flags &= ~TH_KEYED, "a timer in the heap does not know it", 7, 0, TH_KEYED, t->flags |= TH_KEYED);
    TRY(t->flags |= TH_PERIODIC | TH_ORPHAN, "a periodic timer has lost its handle", 7, t->flags, TH_PERIODIC,
        t->flags &= ~(TH_PERIODIC | TH_ORPHAN));
    TRY(t->when = 3, "a key is later than its timer", 7, when, 3, t->when = when);
}

static void break_books(void)
{
    size_t cap = core.cap, live = core.live;
    TRY(core.cap = TIMERS - 1, "more keys than room", 0, TIMERS, TIMERS - 1, core.cap = cap);
    TRY(core.live++, "live timers miscounted", 0, live + 1, live, core.live = live);
    TRY(core.stops++, "dead keys miscounted", 0, 1, 0, core.stops--);
    TRY(core.orphans.used++, "orphans miscounted", 0, 1, 0, core.orphans.used--);
    th_timer *t = core.keys[9].timer;
    TRY(t->flags |= TH_RISING, "risers miscounted", 0, 1, 0, t->flags &= ~TH_RISING);
    TRY(t->flags |= TH_PINNED, "pinned timers miscounted", 0, 1, 0, t->flags &= ~TH_PINNED);
    TRY((core.risers[0] = t, core.rising = 1), "a riser does not know it", 0, t->flags, TH_RISING, core.rising = 0);
}

static void break_run(void)
{
    native_collect(&core, 1010);
    native_sort(&core);
    th_timer *t = core.run[1].timer;
    TRY(t->flags &= ~TH_PINNED, "a run entry's timer is not pinned", 1, t->flags, TH_PINNED, t->flags |= TH_PINNED);
    TRY(t->flags |= TH_PERIODIC | TH_CARCASS, "a periodic timer has lost its handle", 1, t->flags, TH_PERIODIC,
        t->flags &= ~(TH_PERIODIC | TH_CARCASS));
}

/* All but the last cell are armed, behind the timers. */
static void break_array(th_array *a)
{
    th_timer *t = th_cell(a, 4), *idle = th_cell(a, CELLS);
    uint32_t pos = t->pos;
    TRY(a->armed++, "an array's armed cells miscounted", 0, CELLS + 1, CELLS, a->armed--);
    TRY(t->pos = 2, "a timer does not know its place", pos, 2, pos, t->pos = pos);
    TRY((idle->flags = TH_KEYED, idle->pos = 2), "a cell does not know its place", CELLS, 2, core.len,
        (idle->flags = 0, idle->pos = 0));
    TRY(th_delist_array(&core.arrays, a), "a cell has lost its array", TIMERS, th_cell(a, 0)->flags, TH_CELL,
        th_enlist_array(&core.arrays, a));
    for (uint32_t i = 0; i < CELLS; i++)
        native_stop_cell(&core, a, i);
    TRY(a->held = 1, "an idle array is held", 0, 1, 0, a->held = 0);
}

/* What the debug build says before it ends, when a child of this process does something. */
static void expect_end(void (*act)(size_t), size_t at, const char *line)
{
    int ends[2], status;
    char said[200] = "";
    if (pipe(ends) != 0 || fflush(NULL) != 0)
        abort();
    pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], STDERR_FILENO);
        act(at);
        _exit(0);
    }
    close(ends[1]);
    if (read(ends[0], said, sizeof said - 1) < 0)
        abort();
    close(ends[0]);
    waitpid(child, &status, 0);
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGABRT || !strstr(said, line))
        complain(line, said);
}

/* A stop of an idle timer changes nothing: all that it does is the debug build's check, of a large heap in windows. */
static void go_on_with_damage(size_t at)
{
    th_timer idle = {0};
    core.keys[at].timer->pos = (uint32_t)at + 1;
    for (int turn = 0; turn < TIMERS; turn++, core.seq++)
        native_stop(&core, &idle);
}

static void collect_without_the_mutex(size_t at)
{
    (void)at;
    th_unlock(&core);
    native_collect(&core, 0);
}

int main(void)
{
    int wake, was;
    th_array *array = th_array_new(CELLS + 1);
    th_init_locks(&core);
    th_lock(&core);
    if (!native_init(&core) || array == NULL || !th_enlist_array(&core.arrays, array))
        return 1;
    for (int i = 0; i < TIMERS; i++)
        native_arm(&core, &timers[i], 1000 + (i * 7919) % TIMERS, &wake);
    expect(NULL, 0, 0, 0);
    break_keys();
    break_books();
    for (uint32_t i = 0; i < CELLS; i++)
        native_arm_cell(&core, array, i, 5000 + i, 1, &was, &wake);
    break_array(array);
    expect_end(go_on_with_damage, 200, "a timer does not know its place at index ");
    break_run();
    expect_end(go_on_with_damage, 3, "a timer does not know its place at index ");
    expect_end(collect_without_the_mutex, 0, " without its mutex");
    printf("17 kinds of damage and 3 ends, %d of them missed\n", failures);
    return failures != 0;
}
