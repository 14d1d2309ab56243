/* Memory straight from the kernel, for arrays that grow and shrink by megabytes.
 *
 * A mapping costs nothing until it is touched and goes back to the system when it is cut, which
 * malloc promises of neither. Huge pages were tried and measured: no faster at a million timers,
 * and clearing two megabytes at the first touch makes one caller in 26,000 wait for milliseconds.
 */
#ifndef TIMERHEAP_PAGES_H
#define TIMERHEAP_PAGES_H

#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#include "platform.h"

/* Bytes of a page: 4,096, and on some machines 16 or 64 times 1,024, always a power of two. Addresses and sizes given
 * to the functions below are multiples of it: the system rounds some up and refuses others. */
#ifndef th_page /* chosen by tests/native */
static size_t th_page;

/* When the module is loaded: no heap is there before. */
__attribute__((constructor)) static void th_ask_page(void) { th_page = (size_t)sysconf(_SC_PAGESIZE); }
#endif

/* size, rounded up to whole pages. */
static inline size_t th_whole_pages(size_t size)
{
    return (size + th_page - 1) & ~(th_page - 1);
}

/* A private mapping of size bytes whose address is a multiple of align (a power of two, a page at least), or NULL. */
static inline void *th_map_aligned(size_t size, size_t align)
{
    char *base = mmap(NULL, size + align, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | TH_MAP_LAZY, -1, 0);
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

/* Hand back what is in size bytes of a mapping, which stays; what is read there is unspecified from then on. 0 when the
 * system does not take it. */
static inline int th_unback(void *base, size_t size)
{
    return size == 0 || th_drop_pages(base, size);
}

/* Zeros in size bytes of a mapping, whole pages, as if it were new: by fresh memory, which costs nothing until it is
 * touched, and by writing them where there is none. */
static inline void th_zero_pages(void *base, size_t size)
{
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | TH_MAP_LAZY;
    if (mmap(base, size, PROT_READ | PROT_WRITE, flags, -1, 0) == MAP_FAILED)
        memset(base, 0, size);
}

/* Resize the mapping base (NULL when old is 0) from old to size bytes, keeping its contents; both whole pages,
 * size > 0. Returns the new address, or NULL with the old mapping intact. */
static inline void *th_remap(void *base, size_t old, size_t size)
{
    void *moved;
    if (old == 0)
        moved = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    else
        moved = th_move_pages(base, old, size);
    return moved == MAP_FAILED ? NULL : moved;
}

#endif
