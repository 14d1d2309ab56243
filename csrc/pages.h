/* Memory straight from the kernel, for arrays that grow and shrink by megabytes.
 *
 * A mapping costs nothing until it is touched and goes back to the system when it is cut, which
 * malloc promises of neither. From TH_HUGE on a mapping starts on a huge-page boundary and asks for
 * huge pages: a random access to a 16 MB heap then misses the cache only, not the TLB as well.
 */
#ifndef TIMERHEAP_PAGES_H
#define TIMERHEAP_PAGES_H

#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>

#define TH_PAGE ((size_t)4096)
#define TH_HUGE ((size_t)2 << 20)

/* A private mapping of size bytes whose address is a multiple of align (a power of two), or NULL. */
static inline void *th_map_aligned(size_t size, size_t align, int prot)
{
    char *base = mmap(NULL, size + align, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED)
        return NULL;
    size_t head = (size_t)(-(uintptr_t)base & (align - 1));
    if (head)
        munmap(base, head);
    if (align - head)
        munmap(base + head + size, align - head);
    return base + head;
}

static inline void th_unmap(void *base, size_t size)
{
    if (size)
        munmap(base, size);
}

/* Resize the mapping base (NULL when old is 0) from old to size bytes, keeping its contents; both multiples of
 * TH_PAGE, size > 0. Returns the new address, or NULL with the old mapping intact. Page tables move, bytes do not. */
static inline void *th_remap(void *base, size_t old, size_t size)
{
    void *moved;
    if (size < TH_HUGE) {
        if (old == 0)
            moved = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        else
            moved = mremap(base, old, size, MREMAP_MAYMOVE);
        return moved == MAP_FAILED ? NULL : moved;
    }
    if (size < old) /* cut in place */
        moved = mremap(base, old, size, 0);
    else {
        void *target = th_map_aligned(size, TH_HUGE, old ? PROT_NONE : PROT_READ | PROT_WRITE);
        if (target == NULL)
            return NULL;
        moved = target;
        if (old) {
            moved = mremap(base, old, size, MREMAP_MAYMOVE | MREMAP_FIXED, target);
            if (moved == MAP_FAILED)
                munmap(target, size);
        }
        if (moved != MAP_FAILED)
            madvise(moved, size, MADV_HUGEPAGE); /* advice: a kernel without huge pages may refuse it */
    }
    return moved == MAP_FAILED ? NULL : moved;
}

#endif
