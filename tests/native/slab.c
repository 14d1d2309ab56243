/* The slab alone, against a list of its slots: random histories of taking and giving back, in pages of several sizes.
 *
 *     slab [--runs N] [--operations N] [--seed S]
 *
 * Each slot is filled with its own pattern, which has to be there when it is given back. Every so often, and at the
 * end, verify() walks the lists of spans and the chunks. What is demanded:
 *
 *   memory     no slot lies in another, or in a chunk's head; each is where its alignment wants it
 *   lists      the slab's counts are those of its spans and chunks, and each span is in the one list it belongs to
 *   resident   th_slab_bytes() is what the system says of these pages, unless it refused to take some back
 *   kept       no more idle spans and empty chunks than the head of slab.h says
 *   refusals   of mmap and madvise change nothing but where memory comes from
 *
 * What comes in is drawn so that the number of slots in use swings between none and all, and that they leave in any
 * order, in order of address, or but for a few survivors.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../pages/paging.h"

static size_t page;
static unsigned refusing; /* one in so many calls of the system is refused; 0: none */
static size_t mapped;

static uint64_t draw(void)
{
    static uint64_t state;
    extern uint64_t seed;
    uint64_t z = state += UINT64_C(0x9e3779b97f4a7c15) + seed * 2;
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static int refused(void)
{
    return refusing && draw() % refusing == 0;
}

#define DEMAND(condition)                                                              \
    do {                                                                               \
        if (!(condition)) {                                                            \
            fprintf(stderr, "slab.c:%d, %zu-byte pages: %s\n", __LINE__, page, #condition); \
            abort();                                                                   \
        }                                                                              \
    } while (0)

static void *test_mmap(void *at, size_t size, int prot, int flags, int fd, off_t offset)
{
    DEMAND(size % page == 0);
    void *base = refused() ? paging_refuse(ENOMEM) : paging_mmap(page, at, size, prot, flags, fd, offset);
    mapped += base == MAP_FAILED ? 0 : size;
    return base;
}

static int test_munmap(void *base, size_t size)
{
    DEMAND(size && size % page == 0 && !paging_off(page, base));
    mapped -= size;
    return paging_munmap(page, base, size);
}

static int test_madvise(void *base, size_t size, int advice)
{
    DEMAND(size && size % page == 0 && !paging_off(page, base) && advice == MADV_DONTNEED);
    return refused() ? -1 : paging_madvise(page, base, size, advice);
}

#define th_page page
#define mmap test_mmap
#define munmap test_munmap
#define madvise test_madvise
#include "slab.h"
#undef mmap
#undef munmap
#undef madvise

#define SLOTS 120000

uint64_t seed = 1;
static th_slab slab;
static size_t size; /* of a slot */
static void *slots[SLOTS];
static size_t count, most;
static size_t operations, handed_back, refusals;

static uint64_t pattern(const void *slot, size_t word)
{
    return (uint64_t)(uintptr_t)slot * UINT64_C(0x9e3779b97f4a7c15) + word;
}

static void take(void)
{
    uint64_t *slot = th_slab_alloc(&slab, size);
    operations++;
    if (slot == NULL) {
        DEMAND(refusing);
        refusals++;
        return;
    }
    DEMAND((uintptr_t)slot % (size % 16 ? 8 : 16) == 0);
    for (size_t i = 0; i < size / 8; i++)
        slot[i] = pattern(slot, i);
    slots[count++] = slot;
}

static void give(size_t i)
{
    uint64_t *slot = slots[i];
    size_t before = slab.touched;
    operations++;
    for (size_t k = 0; k < size / 8; k++)
        DEMAND(slot[k] == pattern(slot, k));
    slots[i] = slots[--count];
    th_slab_free(&slab, slot, size);
    handed_back += before - slab.touched;
}

/* Bytes of a chunk's pages that are there; of a page larger than the system's, any part. */
static size_t resident(char *chunk)
{
    size_t real = (size_t)sysconf(_SC_PAGESIZE), bytes = 0;
    static unsigned char there[TH_CHUNK / 4096];
    DEMAND(mincore(chunk, TH_CHUNK, there) == 0);
    for (size_t at = 0; at < TH_CHUNK; at += page)
        for (size_t i = 0; i < page / real; i++)
            if (there[at / real + i] & 1) {
                bytes += page;
                break;
            }
    return bytes;
}

static int in_list(const th_span *span, th_span **head)
{
    for (th_span *s = *head; s != NULL; s = s->next)
        if (s == span)
            return 1;
    return 0;
}

static int by_address(const void *a, const void *b)
{
    uintptr_t first = *(const uintptr_t *)a, second = *(const uintptr_t *)b;
    return (first > second) - (first < second);
}

static void verify(void)
{
    static void *sorted[SLOTS];
    th_chunk *chunks[SLOTS / 1000 + 64];
    size_t step = slab.chunks ? th_span_step(&slab) : 1;
    size_t last = 0, found = 0, used = 0, busy = 0, idle = 0, empties = 0, there = 0, keep;
    DEMAND(slab.used == count && slab.chunks * TH_CHUNK == mapped);
    memcpy(sorted, slots, count * sizeof *slots);
    qsort(sorted, count, sizeof *sorted, by_address);
    for (size_t i = 1; i < count; i++)
        DEMAND((char *)sorted[i] - (char *)sorted[i - 1] >= (ptrdiff_t)size);
    for (size_t i = 0; i < count; i++)
        if (found == 0 || chunks[found - 1] != th_chunk_of(sorted[i]))
            chunks[found++] = th_chunk_of(sorted[i]);
    for (th_span *span = slab.partial; span != NULL; span = span->next)
        if (th_chunk_of(span)->busy == 1 && span->used == 0) /* no slot led there */
            chunks[found++] = th_chunk_of(span);
    for (th_chunk *chunk = slab.empty; chunk != NULL; chunk = chunk->next, empties++)
        chunks[found++] = chunk;
    DEMAND(found == slab.chunks && empties == slab.empties);
    for (size_t i = 0; i < found; i++) {
        th_chunk *chunk = chunks[i];
        uint32_t chunk_busy = 0, chunk_idle = 0;
        for (size_t k = 0; k < TH_SPANS; k += step) {
            th_span *span = &chunk->spans[k];
            char *end = (char *)chunk + (k + step) * TH_SPAN;
            used += span->used;
            int unused = span->used == 0 && !span->idle && in_list(span, &slab.partial);
            last += (size_t)unused;
            chunk_busy += span->used > 0 || unused;
            chunk_idle += span->idle;
            DEMAND(span->used <= span->slots && span->fresh <= end && span->top <= end);
            DEMAND(span->fresh <= span->top || span->top == th_span_pages(span));
            if (found > 8 && k % 64) /* the lists are long */
                continue;
            DEMAND(in_list(span, &slab.partial) == ((span->used > 0 && span->used < span->slots) || unused));
            DEMAND(in_list(span, &slab.idle) == span->idle && !(span->idle && span->used));
            DEMAND(in_list(span, &slab.bare) == (span->used == 0 && !span->idle && !unused));
        }
        DEMAND(chunk->busy == chunk_busy && chunk->idle == chunk_idle);
        busy += chunk_busy;
        idle += chunk_idle;
        there += resident((char *)chunk);
    }
    DEMAND(last <= 1 && used == count && busy == slab.busy && idle == slab.idles);
    DEMAND(there <= th_slab_bytes(&slab, size));
    DEMAND(refusing || there == th_slab_bytes(&slab, size));
    keep = TH_SPANS / step + busy / 8;
    DEMAND(slab.empties * (TH_SPANS / step) <= keep && idle <= keep + (empties ? TH_SPANS / step : keep / 8));
}

/* Down to a number of slots, one of four ways: at random, oldest first, by address, or all but every so-manieth. */
static void shrink(size_t to)
{
    unsigned way = draw() % 4;
    if (way == 2)
        qsort(slots, count, sizeof *slots, by_address);
    size_t stride = 2 + draw() % 5000;
    for (size_t i = 0; count > to;) {
        if (way == 0)
            give(draw() % count);
        else if (way == 1)
            give(count - 1);
        else if (way == 2)
            give(count - 1 - (draw() % 8 == 0 ? draw() % (count < 40 ? count : 40) : 0));
        else if (i >= count)
            break;
        else if (i % stride && i % (stride + 1))
            give(i++);
        else
            i++;
    }
}

static void run(size_t wanted)
{
    static const size_t scales[] = {0, 2, 4};
    size_t until = operations + wanted;
    page = (size_t)sysconf(_SC_PAGESIZE) << scales[draw() % 3];
    size = draw() % 2 ? 40 : 80;
    refusing = draw() % 4 ? 0 : 3;
    memset(&slab, 0, sizeof slab);
    while (operations < until) {
        size_t level = draw() % 3 ? draw() % 3000 : draw() % SLOTS;
        for (size_t tries = 0; count < level && tries < 2 * SLOTS; tries++)
            take();
        if (count > most)
            most = count;
        verify();
        for (size_t i = draw() % 2000; i > 0; i--) { /* churn */
            if (count && draw() % 2)
                give(draw() % count);
            else if (count < SLOTS)
                take();
        }
        verify();
        shrink(draw() % 4 ? draw() % (count + 1) : 0);
        verify();
    }
    shrink(0);
    while (count)
        give(count - 1);
    verify();
    th_slab_end(&slab);
    DEMAND(slab.chunks == 0 && slab.touched == 0 && mapped == 0 && slab.idle == NULL && slab.bare == NULL);
}

int main(int argc, char **argv)
{
    size_t runs = 20, wanted = 500000;
    for (int i = 1; i + 1 < argc; i += 2) {
        size_t value = strtoull(argv[i + 1], NULL, 10);
        if (!strcmp(argv[i], "--runs"))
            runs = value;
        else if (!strcmp(argv[i], "--operations"))
            wanted = value;
        else if (!strcmp(argv[i], "--seed"))
            seed = value;
        else {
            fprintf(stderr, "slab: what is %s?\n", argv[i]);
            return 2;
        }
    }
    for (size_t i = 0; i < runs; i++)
        run(wanted);
    printf("%zu runs of seed %llu: %zu operations, up to %zu slots, %zu MiB handed back, %zu refusals, 0 divergences\n",
           runs, (unsigned long long)seed, operations, most, handed_back >> 20, refusals);
    return 0;
}
