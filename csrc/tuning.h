/* Where one way of working gives way to another, and how long a step may take: numbers that measurement chose, for the
 * native parts. tests/native makes them small, to be reached. Those of the parts with Python stand where they are used.
 */
#ifndef TIMERHEAP_TUNING_H
#define TIMERHEAP_TUNING_H

#ifndef TH_INSERTION_MAX
#define TH_INSERTION_MAX 48 /* entries; up to here insertion beats the histogram of a radix pass */
#endif

#ifndef TH_PREFETCH
#define TH_PREFETCH 12 /* records fetched ahead in a walk over many */
#endif

#ifndef TH_TAKE_SLICE
#define TH_TAKE_SLICE 1024 /* keys taken out between two offers of the mutex: 0.3 to 0.5 ms at ten million */
#endif

#ifndef TH_SCAN_SLICE
#define TH_SCAN_SLICE 8192 /* keys looked at likewise */
#endif

#ifndef TH_WALK_ROOM
#define TH_WALK_ROOM 1024 /* keys; a walk to more makes room for all there are */
#endif

#ifndef TH_FEW
#define TH_FEW 4 /* pops before the walk to all that is due: it takes 20 ns more to begin, and mostly one timer is due */
#endif

#ifndef TH_CACHED_KEYS
#define TH_CACHED_KEYS 8192 /* of a heap that is in the cache: four times as many pops */
#endif

#ifndef TH_LANES
#define TH_LANES 16 /* keys that sink side by side, so that their misses overlap */
#endif

#ifndef TH_RUN_KEPT
#define TH_RUN_KEPT (1 << 16) /* bytes of the run kept between runs */
#endif

#ifndef TH_JUST_ARMED
#define TH_JUST_ARMED 4 /* armings back: such a timer's key is still in the cache, and stop takes it out at once */
#endif

#ifndef TH_STOPS_A_SLICE
#define TH_STOPS_A_SLICE 8 /* stops that leave a key behind, between two slices of the sweep */
#endif

#ifndef TH_SWEEP_SLICE
#define TH_SWEEP_SLICE 64 /* keys looked at in one of them */
#endif

#ifndef TH_RISERS
#define TH_RISERS 32 /* their misses overlap; more would leave the first-level cache before they are needed again */
#endif

#ifndef TH_PIECE
#define TH_PIECE 512 /* cells of an array changed under one hold of M, 10 to 40 us, and items of a column on the stack */
#endif

#ifndef TH_CELLS_AHEAD
#define TH_CELLS_AHEAD 16 /* cells fetched ahead */
#endif

#ifndef TH_SIFTED_SINGLY
#define TH_SIFTED_SINGLY 24 /* up to so many new keys siftup is less than Floyd's way, which goes up to the root */
#endif

#ifndef TH_HUGE_FROM
#define TH_HUGE_FROM ((size_t)8 << 20) /* bytes from which a block of cells asks for huge pages: where random access
                                           misses the TLB */
#endif

#ifndef TH_HUGE
#define TH_HUGE ((size_t)2 << 20) /* bytes of such a page */
#endif

#ifndef TH_WATCH
#define TH_WATCH INT64_C(2000000) /* ns between two looks of the standby, while callbacks go on to return */
#endif

#ifndef TH_ASK_EVERY
#define TH_ASK_EVERY INT64_C(2000000) /* ns a request for the GIL, on the average: see timerheap/core/gil.c */
#endif

#ifndef TH_ASK_BURST
#define TH_ASK_BURST 4 /* requests at a time */
#endif

#ifndef TH_KEYS_MAX
#define TH_KEYS_MAX ((size_t)UINT32_MAX) /* th_timer.pos has 32 bits */
#endif

#endif
