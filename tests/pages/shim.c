/* Preloaded into a process: the pages of its memory have as many bytes as PAGE_BYTES in the environment says, 65,536 by
 * default, and not the system's 4,096.
 *
 * So it is for whoever calls mmap, munmap, mremap, madvise, sysconf or getpagesize by name, the interpreter as well as
 * its extensions. The C library's own mappings (malloc's, thread stacks, shared libraries) stay as they are.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "paging.h"

static atomic_long refusals;

/* Calls refused for an address within a page. */
long page_refusals(void) { return atomic_load(&refusals); }

static void note(int failed)
{
    if (failed && errno == EINVAL)
        atomic_fetch_add(&refusals, 1);
}

static size_t page_bytes(void)
{
    static size_t bytes;
    if (bytes == 0) {
        const char *wanted = getenv("PAGE_BYTES");
        bytes = wanted ? strtoul(wanted, NULL, 10) : 65536;
    }
    return bytes;
}

void *mmap(void *at, size_t size, int prot, int flags, int fd, off_t offset)
{
    return paging_mmap(page_bytes(), at, size, prot, flags, fd, offset);
}

/* What mmap is called where off_t was asked to have 64 bits, as Python's headers do. */
void *mmap64(void *, size_t, int, int, int, off_t) __attribute__((alias("mmap")));

int munmap(void *base, size_t size)
{
    int result = paging_munmap(page_bytes(), base, size);
    note(result != 0);
    return result;
}

void *mremap(void *old, size_t old_size, size_t size, int flags, ...)
{
    va_list rest;
    void *target = NULL;
    if (flags & MREMAP_FIXED) {
        va_start(rest, flags);
        target = va_arg(rest, void *);
        va_end(rest);
    }
    void *base = paging_mremap(page_bytes(), old, old_size, size, flags, target);
    note(base == MAP_FAILED);
    return base;
}

int madvise(void *base, size_t size, int advice)
{
    int result = paging_madvise(page_bytes(), base, size, advice);
    note(result != 0);
    return result;
}

long sysconf(int name)
{
    long (*real)(int) = (long (*)(int))dlsym(RTLD_NEXT, "sysconf");
    return name == _SC_PAGESIZE ? (long)page_bytes() : real(name);
}

int getpagesize(void) { return (int)page_bytes(); }
