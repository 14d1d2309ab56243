/* Slots of one size, in chunks straight from the kernel: records without a handle (40 bytes, a slab a heap), and
 * handles (80 bytes, one slab for the process).
 *
 * Why not malloc: a slot costs a few instructions and no header, untouched memory is not resident, and chunks go
 * back to the system. A chunk lies on a boundary of its own size, so that a slot finds it by masking its address.
 *
 * A chunk whose last slot has come back is idle. One idle chunk is kept for every eight in use, and one more: where
 * timers come and go, the system would clear the same pages over and over, and that is what arming costs most.
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

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#define TH_POISON(start, size) __asan_poison_memory_region(start, size)
#define TH_UNPOISON(start, size) __asan_unpoison_memory_region(start, size)
#else
#define TH_POISON(start, size) ((void)0)
#define TH_UNPOISON(start, size) ((void)0)
#endif

#ifndef TH_CHUNK
#define TH_CHUNK ((size_t)1 << 20)
#endif

typedef struct th_slot {
    struct th_slot *next; /* of a free slot */
} th_slot;

typedef struct th_chunk {
    struct th_chunk *prev, *next; /* the slab's list of chunks with used and free slots; next: of idle ones */
    th_slot *free;                /* slots given back */
    uint32_t used;                /* slots in use */
    uint32_t fresh;               /* slots not used since the chunk was mapped or idle start here */
    uint32_t touched;             /* slots never used start here: untouched memory is not resident */
} __attribute__((aligned(16))) th_chunk; /* as the slots behind it shall be */

typedef struct th_slab {
    th_chunk *partial; /* chunks with used and free slots */
    th_chunk *idle;    /* chunks without used slots */
    size_t chunks;     /* chunks mapped, idle ones included */
    size_t kept;       /* idle chunks */
    size_t used;       /* slots in use */
    size_t touched;    /* slots whose memory is resident */
} th_slab;

#define TH_SLOTS(size) ((uint32_t)((TH_CHUNK - sizeof(th_chunk)) / (size)))

/* The addresses may become somebody else's: nothing of them stays poisoned. */
static inline void th_chunk_unmap(th_chunk *chunk)
{
    TH_UNPOISON(chunk, TH_CHUNK);
    th_unmap(chunk, TH_CHUNK);
}

/* A chunk without used slots becomes the slab's partial one; 0 when there is no memory. */
static inline int th_slab_grow(th_slab *slab)
{
    th_chunk *chunk = slab->idle;
    if (chunk != NULL) {
        slab->idle = chunk->next;
        slab->kept--;
        chunk->next = NULL;
    } else {
        chunk = th_map_aligned(TH_CHUNK, TH_CHUNK);
        if (chunk == NULL)
            return 0;
        slab->chunks++;
    }
    slab->partial = chunk;
    return 1;
}

/* Back to the system with idle chunks, until keep of them are left. */
static inline void th_slab_trim(th_slab *slab, size_t keep)
{
    while (slab->kept > keep) {
        th_chunk *chunk = slab->idle;
        slab->idle = chunk->next;
        slab->kept--;
        slab->chunks--;
        slab->touched -= chunk->touched;
        th_chunk_unmap(chunk);
    }
}

/* A slot of size bytes, not cleared, or NULL when there is no memory. size is the same in each call for a slab, a
 * multiple of 8. */
static inline void *th_slab_alloc(th_slab *slab, size_t size)
{
    if (slab->partial == NULL && !th_slab_grow(slab))
        return NULL;
    th_chunk *chunk = slab->partial;
    th_slot *slot = chunk->free;
    if (slot != NULL)
        chunk->free = slot->next;
    else {
        slot = (th_slot *)((char *)(chunk + 1) + size * chunk->fresh++);
        if (chunk->fresh > chunk->touched) {
            chunk->touched++;
            slab->touched++;
        }
    }
    TH_UNPOISON(slot, size);
    slab->used++;
    if (++chunk->used == TH_SLOTS(size)) {
        slab->partial = chunk->next;
        if (chunk->next != NULL)
            chunk->next->prev = NULL;
        chunk->next = NULL;
    }
    return slot;
}

static inline void th_slab_free(th_slab *slab, void *memory, size_t size)
{
    th_chunk *chunk = (th_chunk *)((uintptr_t)memory & ~(TH_CHUNK - 1));
    th_slot *slot = memory;
    slot->next = chunk->free;
    chunk->free = slot;
    TH_POISON(slot + 1, size - sizeof(th_slot));
    slab->used--;
    if (chunk->used-- == TH_SLOTS(size)) {
        chunk->prev = NULL;
        chunk->next = slab->partial;
        if (slab->partial != NULL)
            slab->partial->prev = chunk;
        slab->partial = chunk;
    }
    if (chunk->used == 0) {
        if (chunk->prev != NULL)
            chunk->prev->next = chunk->next;
        else
            slab->partial = chunk->next;
        if (chunk->next != NULL)
            chunk->next->prev = chunk->prev;
        chunk->prev = NULL;
        chunk->free = NULL;
        chunk->fresh = 0;
        chunk->next = slab->idle;
        slab->idle = chunk;
        slab->kept++;
        th_slab_trim(slab, 1 + (slab->chunks - slab->kept) / 8);
    }
}

/* The end of a slab without used slots: the chunk that was kept goes as well. */
static inline void th_slab_end(th_slab *slab)
{
    th_slab_trim(slab, 0);
}

/* Bytes resident, chunk headers included. */
static inline size_t th_slab_bytes(const th_slab *slab, size_t size)
{
    return slab->touched * size + slab->chunks * sizeof(th_chunk);
}

#endif
