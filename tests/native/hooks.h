/* What the native core sees of the system when it is built for these tests: the compiler is told to
 * read this before anything else.
 *
 *   NATIVE_NARROW   limits so small that a short input crosses them: a chunk of four pages, slices of
 *                   a few keys, and a limit on the keys that each input chooses
 *   NATIVE_PLAIN    nothing intercepted: for the threaded driver
 *
 * Unless it is plain, each input chooses how large a page is.
 *
 * Otherwise the numbers are the library's own, of csrc/tuning.h.
 */
#ifndef NATIVE_HOOKS_H
#define NATIVE_HOOKS_H

#ifndef __APPLE__ /* made up here, and not what the interpreter was configured for */
#include <pyconfig.h> /* says which POSIX it wants, before any header of the system does */
#endif

#include <pthread.h>
#include <stddef.h>
#include <sys/mman.h>

#ifdef NATIVE_NARROW
#define TH_CHUNK (4 * native_page)
#define TH_SPAN native_page
#define TH_INSERTION_MAX 12
#define TH_PREFETCH 3
#define TH_RISERS 3
#define TH_TAKE_SLICE 5
#define TH_SCAN_SLICE 32
#define TH_FEW 2
#define TH_CACHED_KEYS 50
#define TH_WALK_ROOM 6
#define TH_LANES 3
#define TH_RUN_KEPT (1 << 13)
#define TH_JUST_ARMED 2
#define TH_STOPS_A_SLICE 2
#define TH_SWEEP_SLICE 7
#define TH_PIECE 24
#define TH_CELLS_AHEAD 3
#define TH_SIFTED_SINGLY 6
#define TH_HUGE (2 * native_page)
#define TH_HUGE_FROM (2 * native_page)
#endif

#ifndef NATIVE_PLAIN
extern size_t native_keys_max, native_page;
#define TH_KEYS_MAX native_keys_max
#define th_page native_page

void *native_mmap(void *addr, size_t size, int prot, int flags, int fd, off_t offset);
void *native_mremap(void *old, size_t old_size, size_t size, int flags);
int native_munmap(void *base, size_t size);
int native_madvise(void *base, size_t size, int advice);
int native_unlock(pthread_mutex_t *mutex);

#define mmap native_mmap
#define mremap native_mremap
#define munmap native_munmap
#define madvise native_madvise
#define pthread_mutex_unlock native_unlock
#endif

#endif
