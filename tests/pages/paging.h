/* Memory in larger pages than the system's, out of the system's own: what mmap, munmap, mremap and madvise do on a
 * machine whose pages have page bytes (a power of two, not less than the real one).
 *
 * A mapping begins on such a page and reaches to the end of one, whatever size was asked for; addresses that lie
 * within one are EINVAL; sizes are rounded up. Nothing here is the C library's: its calls may be intercepted by whoever
 * asks.
 */
#ifndef PAGING_H
#define PAGING_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static inline size_t paging_up(size_t page, size_t size)
{
    return (size + page - 1) & ~(page - 1);
}

static inline int paging_off(size_t page, const void *at)
{
    return ((uintptr_t)at & (page - 1)) != 0;
}

static inline void *paging_refuse(int error)
{
    errno = error;
    return MAP_FAILED;
}

/* Addresses that nobody uses, size bytes of them, from a page on. */
static inline char *paging_reserve(size_t page, size_t size)
{
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    char *base = (char *)syscall(SYS_mmap, NULL, size + page, PROT_NONE, flags, -1, 0);
    if (base == MAP_FAILED)
        return base;
    size_t head = (size_t)(-(uintptr_t)base & (page - 1));
    if (head)
        syscall(SYS_munmap, base, head);
    syscall(SYS_munmap, base + head + size, page - head);
    return base + head;
}

static inline void *paging_mmap(size_t page, void *at, size_t size, int prot, int flags, int fd, off_t offset)
{
    size_t whole = paging_up(page, size);
    if (size == 0 || whole < size)
        return paging_refuse(size == 0 ? EINVAL : ENOMEM);
    if (flags & (MAP_FIXED | MAP_FIXED_NOREPLACE)) {
        if (paging_off(page, at))
            return paging_refuse(EINVAL);
    } else {
        at = paging_reserve(page, whole);
        if (at == MAP_FAILED)
            return at;
        flags |= MAP_FIXED;
    }
    void *base = (void *)syscall(SYS_mmap, at, flags & MAP_ANONYMOUS ? whole : size, prot, flags, fd, offset);
    if (base == MAP_FAILED) {
        int error = errno;
        syscall(SYS_munmap, at, whole);
        errno = error;
    }
    return base;
}

static inline int paging_munmap(size_t page, void *base, size_t size)
{
    if (paging_off(page, base) || size == 0) {
        errno = EINVAL;
        return -1;
    }
    return (int)syscall(SYS_munmap, base, paging_up(page, size));
}

static inline void *paging_mremap(size_t page, void *old, size_t old_size, size_t size, int flags, void *target)
{
    if (paging_off(page, old) || size == 0 || (flags & MREMAP_FIXED && paging_off(page, target)))
        return paging_refuse(EINVAL);
    old_size = paging_up(page, old_size);
    size = paging_up(page, size);
    void *base = (void *)syscall(SYS_mremap, old, old_size, size, flags & ~MREMAP_MAYMOVE, target);
    if (base != MAP_FAILED || !(flags & MREMAP_MAYMOVE) || flags & MREMAP_FIXED || errno != ENOMEM)
        return base;
    target = paging_reserve(page, size);
    if (target == MAP_FAILED)
        return target;
    base = (void *)syscall(SYS_mremap, old, old_size, size, flags | MREMAP_FIXED, target);
    if (base == MAP_FAILED) {
        int error = errno;
        syscall(SYS_munmap, target, size);
        errno = error;
    }
    return base;
}

static inline int paging_madvise(size_t page, void *base, size_t size, int advice)
{
    if (paging_off(page, base)) {
        errno = EINVAL;
        return -1;
    }
    return (int)syscall(SYS_madvise, base, paging_up(page, size), advice);
}

#endif
