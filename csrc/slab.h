/* Slots of one size, in memory straight from the kernel: records without a handle (40 bytes, a slab a heap), and
 * handles (80 bytes, one slab for the process).
 *
 * Why not malloc: a slot costs a few instructions and no header, untouched memory is not resident, and what is not used
 * goes back to the system. A chunk is mapped at once and lies on a boundary of its own size, so that a slot finds it by
 * masking its address. It consists of spans of 16 KiB, or of a page where that is more, with slots of their own,
 * described at the chunk's head: a slot that lives pins its span and the head, not the chunk.
 *
 * A span whose last slot has come back is idle, unless there is no other with a free slot: who arms and drops by turns
 * has the same slot again, and nothing else is done. As many idle spans as a chunk has are kept for what comes next,
 * and one more for every eight in use: where timers come and go, the system would clear the same pages over and over,
 * and that is what arming costs most. When there are an eighth more than that, they go back: empty chunks whole, and of
 * others what the idle spans hold, which are bare from then on.
 *
 * AddressSanitizer knows malloc and not this: in its builds a free slot is poisoned behind the link that is kept in it,
 * so that whoever touches a record that was given back is reported.
 *
 * Guard: none here. The owner of a slab says what guards it.
 */
#ifndef TIMERHEAP_SLAB_H
#define TIMERHEAP_SLAB_H

#include <stdint.h>

#include "pages.h"
#include "platform.h"

#if TH_ADDRESS_SANITIZER
#include <sanitizer/asan_interface.h>
#define TH_POISON(start, size) __asan_poison_memory_region(start, size)
#define TH_UNPOISON(start, size) __asan_unpoison_memory_region(start, size)
#else
#define TH_POISON(start, size) ((void)0)
#define TH_UNPOISON(start, size) ((void)0)
#endif

#ifndef TH_CHUNK
#define TH_CHUNK ((size_t)1 << 20)
#define TH_SPAN ((size_t)1 << 14)
#endif
#define TH_SPANS (TH_CHUNK / TH_SPAN)

/* Not where it is called: once in hundreds of calls of the functions that are. */
#define TH_SELDOM __attribute__((noinline, unused)) static

typedef struct th_slot {
    struct th_slot *next; /* of a free slot */
} th_slot;

typedef struct th_span {
    th_slot *free;                /* slots given back */
    uint32_t used;                /* slots in use */
    uint16_t slots;               /* slots in all */
    uint16_t idle;                /* whether it is in the slab's list of idle spans */
    char *fresh;                  /* slots not used since the span was last idle start here */
    char *top;                    /* untouched pages start here: they are not resident */
    struct th_span **link, *next; /* in one of the slab's lists, unless it is full; link is what points here */
} __attribute__((aligned(64))) th_span; /* a cache line */

typedef struct th_chunk {
    struct th_chunk **link, *next; /* in the slab's list of empty chunks, likewise */
    uint32_t busy, idle;           /* spans neither idle nor bare; idle ones */
    th_span spans[];
} th_chunk;

typedef struct th_slab {
    th_span *partial;   /* spans with free slots, and used ones but for a last span */
    size_t used;        /* slots in use */
    size_t mask;        /* what an address says of its span's place in the chunk's head */
    th_span *idle;      /* spans without used slots */
    th_span *bare;      /* such whose memory the system has, or nobody has touched */
    th_chunk *empty;    /* chunks whose spans are all idle or bare */
    size_t chunks;      /* chunks mapped */
    size_t empties;     /* of those, empty */
    size_t busy, idles; /* spans neither idle nor bare; idle ones */
    size_t touched;     /* bytes resident, in whole pages */
} th_slab;

/* Lists of spans and of chunks. */
#define TH_PUT(list, item)                      \
    do {                                        \
        (item)->link = &(list);                 \
        (item)->next = (list);                  \
        if ((list) != NULL)                     \
            (list)->link = &(item)->next;       \
        (list) = (item);                        \
    } while (0)

#define TH_TAKE(item)                           \
    do {                                        \
        *(item)->link = (item)->next;           \
        if ((item)->next != NULL)               \
            (item)->next->link = (item)->link;  \
    } while (0)

static inline th_chunk *th_chunk_of(const void *memory)
{
    return (th_chunk *)((uintptr_t)memory & ~(TH_CHUNK - 1));
}

/* The span of a slot. By its size in the head, a power of two as TH_SPAN is, its number and its place are one shift. */
static inline th_span *th_span_of(const th_slab *slab, const void *memory)
{
    uintptr_t place = (uintptr_t)memory / (TH_SPAN / sizeof(th_span)) & slab->mask;
    return (th_span *)((char *)th_chunk_of(memory)->spans + place);
}

/* A span is a page, where that is more than TH_SPAN: then one in so many is used. */
static inline size_t th_span_step(const th_slab *slab)
{
    return TH_SPANS - slab->mask / sizeof(th_span);
}

/* Bytes of a chunk's description, which the first span does without. */
static inline size_t th_chunk_head(void)
{
    return sizeof(th_chunk) + TH_SPANS * sizeof(th_span);
}

/* The first slot of a span. */
static inline char *th_span_start(th_span *span)
{
    th_chunk *chunk = th_chunk_of(span);
    return (char *)chunk + (span == chunk->spans ? th_chunk_head() : (size_t)(span - chunk->spans) * TH_SPAN);
}

/* Where the pages begin that are the span's alone. */
static inline char *th_span_pages(th_span *span)
{
    return (char *)th_whole_pages((uintptr_t)th_span_start(span));
}

/* A new chunk, empty, its spans bare; 0 when there is no memory. */
TH_SELDOM int th_chunk_map(th_slab *slab, size_t size)
{
    th_chunk *chunk = th_map_aligned(TH_CHUNK, TH_CHUNK);
    if (chunk == NULL)
        return 0;
    size_t step = (th_page + TH_SPAN - 1) / TH_SPAN;
    slab->mask = (TH_SPANS - step) * sizeof(th_span);
    for (size_t i = TH_SPANS; i > 0; i -= step) {
        th_span *span = &chunk->spans[i - step];
        span->fresh = th_span_start(span);
        span->top = th_span_pages(span);
        span->slots = (uint16_t)((size_t)((char *)chunk + i * TH_SPAN - span->fresh) / size);
        TH_PUT(slab->bare, span);
    }
    slab->chunks++;
    slab->empties++;
    slab->touched += th_whole_pages(th_chunk_head());
    TH_PUT(slab->empty, chunk);
    return 1;
}

/* Back to the system with an empty chunk. The addresses may become somebody else's: nothing of them stays poisoned. */
TH_SELDOM void th_chunk_unmap(th_slab *slab, th_chunk *chunk)
{
    for (size_t i = 0; i < TH_SPANS; i += th_span_step(slab)) {
        th_span *span = &chunk->spans[i];
        TH_TAKE(span);
        slab->touched -= (size_t)(span->top - th_span_pages(span));
    }
    TH_TAKE(chunk);
    slab->idles -= chunk->idle;
    slab->empties--;
    slab->chunks--;
    slab->touched -= th_whole_pages(th_chunk_head());
    TH_UNPOISON(chunk, TH_CHUNK);
    th_unmap(chunk, TH_CHUNK);
}

/* Back to the system with what the idle spans of a chunk hold, until keep of the slab's are left. Where the system does
 * not take it (it is locked) they are bare all the same, and their pages stay counted. */
TH_SELDOM void th_chunk_bare(th_slab *slab, th_chunk *chunk, size_t keep)
{
    size_t step = th_span_step(slab), first;
    for (size_t end = TH_SPANS; end > 0 && slab->idles > keep; end = first) {
        for (first = end; first > 0 && chunk->spans[first - step].idle && slab->idles > keep; first -= step) {
            th_span *span = &chunk->spans[first - step];
            TH_TAKE(span);
            TH_PUT(slab->bare, span);
            span->idle = 0;
            chunk->idle--;
            slab->idles--;
        }
        if (first == end) {
            first -= step;
            continue;
        }
        char *pages = th_span_pages(&chunk->spans[first]);
        if (!th_unback(pages, (size_t)((char *)chunk + end * TH_SPAN - pages)))
            continue;
        for (size_t i = first; i < end; i += step) {
            th_span *span = &chunk->spans[i];
            slab->touched -= (size_t)(span->top - th_span_pages(span));
            span->top = th_span_pages(span);
        }
    }
}

/* Back to the system with idle spans, but keep of them. An empty chunk that is among those to be kept stays whole, and
 * what is more than that is less than a chunk then. */
TH_SELDOM void th_slab_trim(th_slab *slab, size_t keep)
{
    while (slab->empty != NULL && slab->idles - slab->empty->idle >= keep)
        th_chunk_unmap(slab, slab->empty);
    while (slab->empty == NULL && slab->idles > keep)
        th_chunk_bare(slab, th_chunk_of(slab->idle), keep);
}

/* A span without used slots becomes the slab's partial one; 0 when there is no memory. */
TH_SELDOM int th_slab_grow(th_slab *slab, size_t size)
{
    if (slab->idle == NULL && slab->bare == NULL && !th_chunk_map(slab, size))
        return 0;
    th_span *span = slab->idle != NULL ? slab->idle : slab->bare;
    th_chunk *chunk = th_chunk_of(span);
    if (span->idle) {
        span->idle = 0;
        chunk->idle--;
        slab->idles--;
    }
    if (chunk->busy++ == 0) {
        TH_TAKE(chunk);
        slab->empties--;
    }
    slab->busy++;
    TH_TAKE(span);
    TH_PUT(slab->partial, span);
    return 1;
}

/* The last slot of a span has come back: partial -> idle. */
TH_SELDOM void th_slab_rest(th_slab *slab, th_span *span)
{
    th_chunk *chunk = th_chunk_of(span);
    TH_TAKE(span);
    TH_PUT(slab->idle, span);
    span->free = NULL;
    span->fresh = th_span_start(span);
    span->idle = 1;
    slab->idles++;
    slab->busy--;
    chunk->idle++;
    if (--chunk->busy == 0) {
        TH_PUT(slab->empty, chunk);
        slab->empties++;
    }
    size_t spans = TH_SPANS / th_span_step(slab), keep = spans + slab->busy / 8;
    while (slab->empties * spans > keep)
        th_chunk_unmap(slab, slab->empty);
    if (slab->idles > keep + keep / 8)
        th_slab_trim(slab, keep);
}

/* A slot of size bytes, not cleared, or NULL when there is no memory. size is the same in each call for a slab, a
 * multiple of 8. */
static inline void *th_slab_alloc(th_slab *slab, size_t size)
{
    if (slab->partial == NULL && !th_slab_grow(slab, size))
        return NULL;
    th_span *span = slab->partial;
    th_slot *slot = span->free;
    if (slot != NULL)
        span->free = slot->next;
    else {
        slot = (th_slot *)span->fresh;
        span->fresh += size;
        if (span->fresh > span->top) {
            span->top += th_page;
            slab->touched += th_page;
        }
    }
    TH_UNPOISON(slot, size);
    slab->used++;
    if (++span->used == span->slots)
        TH_TAKE(span);
    return slot;
}

static inline void th_slab_free(th_slab *slab, void *memory, size_t size)
{
    (void)size; /* only a sanitizer asks */
    th_span *span = th_span_of(slab, memory);
    th_slot *slot = memory;
    slot->next = span->free;
    span->free = slot;
    TH_POISON(slot + 1, size - sizeof(th_slot));
    slab->used--;
    if (span->used-- == span->slots)
        TH_PUT(slab->partial, span);
    if (span->used == 0 && (span->next != NULL || slab->partial != span))
        th_slab_rest(slab, span);
}

/* The end of a slab without used slots: the chunks that were kept go as well. */
static inline void th_slab_end(th_slab *slab)
{
    if (slab->partial != NULL)
        th_slab_rest(slab, slab->partial);
    while (slab->empty != NULL)
        th_chunk_unmap(slab, slab->empty);
}

/* Bytes resident: pages that have been touched, chunk heads included. */
static inline size_t th_slab_bytes(const th_slab *slab, size_t size)
{
    (void)size;
    return slab->touched;
}

#endif
