/* The cells of TimerArrays: many timers without an object each.
 *
 * A cell is the record of one slot: the first 24 bytes of a th_timer, which is all that keys, states and the run look
 * at. So the heap, which knows records by their address, takes cells for timers. What a timer has behind that, function
 * and arguments, an array has once. Whoever goes there, or to a handle, or takes a whole record, asks for TH_CELL first:
 * it is set from the cell's first arming on. A cell that is all zero is idle, and so is a block fresh from the system.
 *
 * Whose a cell is, core.arrays tells: all arrays of the heap by the address of their blocks.
 *
 * States of a cell are those of timer.h, and change under M alone, and the GIL where there is one. Bulk calls do as well:
 * they give both up between two pieces.
 *
 * The end. Keys of an array that goes are left to the tomb, as a handle's are. Entries of a run that point at its cells
 * are void then, but they are there: so as long as a run is under way, or somebody reads a copy of the keys, the block
 * stays, retired.
 *
 * Fork. A child finds zeros in the block, by MADV_WIPEONFORK where the system has it, which spares the fork the block's
 * page tables as well; else th_void_arrays maps fresh memory over it.
 */
#ifndef TIMERHEAP_ARRAY_H
#define TIMERHEAP_ARRAY_H

#include <stdlib.h>
#include <string.h>

#include "pages.h"
#include "platform.h"
#include "timer.h"
#include "tuning.h"

#define TH_CELL_SIZE ((size_t)24)

_Static_assert(offsetof(th_timer, func) == TH_CELL_SIZE, "a cell is a timer's record but for what it calls");

typedef struct th_array {
    char *base;            /* the block; set once, as are the fields up to wiped */
    size_t bytes;          /* of it */
    uint32_t n;            /* cells */
    uint32_t batch;        /* slots for one call, at most */
    int each;              /* a call for each slot */
    int wiped;             /* a fork's child gets zeros by itself */
    size_t armed;          /* cells ARMED or DUE; guard M, and the GIL where there is one, as all below */
    size_t top;            /* cells below have been armed: what is resident */
    int held;              /* the heap owns a reference to the object: just while something is armed */
    int left_holding;      /* after forks: such references of the parent's */
    void *object;          /* PyObject *, the TimerArray */
    struct th_array *next; /* among the retired */
} th_array;

static inline th_timer *th_cell(const th_array *a, size_t i)
{
    return (th_timer *)(a->base + TH_CELL_SIZE * i);
}

static inline uint32_t th_cell_index(const th_array *a, const th_timer *t)
{
    return (uint32_t)((size_t)((const char *)t - a->base) / TH_CELL_SIZE);
}

static inline int th_owns_cell(const th_array *a, const th_timer *t)
{
    return (size_t)((const char *)t - a->base) < a->bytes;
}

static inline void th_array_free(th_array *a)
{
    if (a != NULL)
        th_unmap(a->base, a->bytes);
    free(a);
}

/* All idle. NULL where there is no memory. Room for a whole th_timer behind the last cell: no load reaches beyond. */
static inline th_array *th_array_new(uint32_t n)
{
    th_array *a = calloc(1, sizeof(th_array));
    if (a == NULL)
        return NULL;
    size_t bytes = th_whole_pages(TH_CELL_SIZE * n + sizeof(th_timer));
    int huge = bytes >= TH_HUGE_FROM;
    a->base = th_map_aligned(bytes, huge ? TH_HUGE : th_page);
    if (a->base == NULL) {
        free(a);
        return NULL;
    }
    if (huge)
        th_huge_pages(a->base, bytes & ~(TH_HUGE - 1)); /* the rest, less than one of them, would be rounded up */
    a->bytes = bytes;
    a->n = n;
    a->wiped = th_wipe_on_fork(a->base, bytes);
    return a;
}

/* The arrays of one heap. Guard: its M, and the GIL where there is one; one of the two is enough to read. */
typedef struct th_arrays {
    th_array **items; /* by the address of their blocks */
    size_t len, cap;
    th_array *retired; /* gone, but for entries of the run that may point at their cells */
} th_arrays;

/* The place among them of the first one behind that address. */
static inline size_t th_array_place(const th_arrays *all, const char *address)
{
    size_t low = 0, high = all->len;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (all->items[middle]->base > address)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

/* Whose the cell is; NULL for one of a retired array, and for what is no cell. */
static inline th_array *th_owner(const th_arrays *all, const th_timer *t)
{
    size_t place = th_array_place(all, (const char *)t);
    th_array *a = place ? all->items[place - 1] : NULL;
    return a != NULL && th_owns_cell(a, t) ? a : NULL;
}

/* 0: there is no memory. */
static inline int th_enlist_array(th_arrays *all, th_array *a)
{
    size_t place = th_array_place(all, a->base);
    if (all->len == all->cap) {
        size_t cap = all->cap ? 2 * all->cap : 4;
        th_array **grown = realloc(all->items, cap * sizeof(*grown));
        if (grown == NULL)
            return 0;
        all->items = grown;
        all->cap = cap;
    }
    memmove(all->items + place + 1, all->items + place, (all->len - place) * sizeof(*all->items));
    all->items[place] = a;
    all->len++;
    return 1;
}

static inline void th_delist_array(th_arrays *all, th_array *a)
{
    size_t place = th_array_place(all, a->base);
    memmove(all->items + place - 1, all->items + place, (all->len - place) * sizeof(*all->items));
    all->len--;
}

/* Of one that is delisted, and that something may still point at. */
static inline void th_retire_array(th_arrays *all, th_array *a)
{
    a->next = all->retired;
    all->retired = a;
}

/* When nothing does any more. */
static inline void th_free_retired(th_arrays *all)
{
    while (all->retired != NULL) {
        th_array *a = all->retired;
        all->retired = a->next;
        th_array_free(a);
    }
}

/* The end of them, when no array is left. */
static inline void th_arrays_end(th_arrays *all)
{
    th_free_retired(all);
    free(all->items);
}

/* Resident bytes of all blocks, as far as they have been armed. */
static inline size_t th_array_bytes(const th_arrays *all)
{
    size_t bytes = 0;
    for (size_t i = 0; i < all->len; i++)
        bytes += th_whole_pages(TH_CELL_SIZE * all->items[i]->top);
    return bytes;
}

/* In the child of a fork: what the parent had armed is idle. */
static inline void th_void_arrays(th_arrays *all)
{
    for (size_t i = 0; i < all->len; i++) {
        th_array *a = all->items[i];
        if (!a->wiped)
            th_zero_pages(a->base, a->bytes);
        a->armed = a->top = 0;
        a->left_holding += a->held;
        a->held = 0;
    }
}

#endif
