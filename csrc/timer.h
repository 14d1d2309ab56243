/* The timer record: what the heap knows of one function timer, in 40 bytes.
 *
 * Glossary, for all of the project; in brackets what others call it.
 *
 *   M          the mutex of one heap, core.mutex
 *   C          the mutex of all channels of the process, see channel.h
 *   L          the mutex of the list of all heaps, see fork.h
 *   key        an entry of the heap's array: {when, timer} [node, entry]
 *   stale      a key earlier than its timer's deadline, for that was reset to later [lazy update]
 *   dead       a key that a stop left behind [tombstone, lazy deletion]
 *   tomb       the record that a dead key points at once its timer's memory is gone [sentinel]
 *   riser      a timer whose key has yet to rise, for it was reset to earlier [pending decrease-key]
 *   due        collected by the worker, and not launched yet [pending]
 *   run        the timers due at one time, sorted, in the order in which they are launched [batch, expired list]
 *   pinned     a run entry points at the record
 *   launch     the point from which a stop comes too late; the callback begins [expire, dispatch]
 *   periodic   of every(): the launch arms it anew [repeating, interval timer]
 *   orphan     an armed timer whose handle is gone: the record lives on in a slot [detached]
 *   carcass    the memory of a handle that is gone, kept because a run entry still points at it [zombie]
 *   slot       room for a record or a handle in a slab; span, chunk: what the slab hands back, and maps, at once; of
 *              a TimerArray: the number of a timer
 *   cell       the record of such a timer, see array.h; block: the memory of an array's cells; column: one argument of
 *              a call, for each of its slots
 *   park       the worker's sleep on its condition variable [block]
 *   post       what a heap and its worker's thread know of each other, see post.h
 *   patience   for how long a callback may hold up its neighbours
 *   standby    the second thread of a heap with patience, which watches the worker [monitor, sysmon]
 *   hand-over  the standby gets the worker's post, and the rest of the run, while a callback goes on [retake]
 *   loser      the worker that has lost its post so, and is still in that callback
 *   turn       the generation in which a thread got its run: in another one it has lost it; of a loop's heap, the call
 *              in which the loop fires one
 *   driven     a heap without a worker: who turns its clock fires what is due, or an event loop
 *   handle     the Python object: a Timer
 *   arming     one making or reset of a timer, numbered heap-wide by seq [generation]
 *   inherited  armed by the parent of a fork, and seen in its child, where it is void
 *   void       an arming, a run entry or a line that is still written down and counts no more
 *   generation how many forks lie between the first process and this one; of a heap: those, and its hand-overs
 *   epoch      a number of a heap's that close() and fork raise: channel armings of an earlier one are void
 *   sweep      the walk that takes dead keys out [compaction]
 *   slice      the steps of long work under one hold of a mutex, which is offered to others behind it [time slice]
 *   put aside  a handle that CPython destroys later, for want of stack, see handles.pxi [trashcan]
 *   bell       what wakes a coroutine that waits, see bells.pxi
 *   waiter     a thread blocked in a receive, or a coroutine; its watches, and the ring that it is in: see channel.h
 *   line       the waiters of one channel, in their order [wait queue]
 *
 * A record lives in one of two places and never moves while something points at it:
 *
 *   inside its Timer handle   as long as the user holds the handle, and a periodic one as long as it is ARMED or DUE:
 *                             the heap holds the handle then;
 *   in a slab slot            once the handle is gone and the timer is still armed (an "orphan").
 *
 * The cells of a TimerArray are a third kind, see array.h.
 *
 * Record states, and who may change them (M is the heap's mutex, th_core.mutex):
 *
 *   state        in the keys   in the run   stop() says   leaves by
 *   TH_IDLE      perhaps +     perhaps *    False         arm -> ARMED
 *   TH_ARMED     yes           perhaps *    True          stop -> IDLE; collected by the worker -> DUE
 *   TH_DUE       no            yes          True          stop -> IDLE; reset -> ARMED; launch -> IDLE, a periodic one
 *                                                         -> ARMED
 *
 *   * A run entry outlives the stop of its timer: the worker finds the entry void when it gets there.
 *     TH_PINNED is set exactly while a run entry points at the record, and while it is set the record's
 *     memory stays, whoever else lets go of it.
 *
 *   + A stopped timer's key stays behind, dead, until it is swept (heap.pxi, "Stopping"). TH_KEYED is set exactly
 *     while a key points at the record, and while it is set the record's memory stays: a handle that dies first leaves
 *     its key to core.tomb.
 *
 *   A reset to an earlier deadline leaves the key for later as well (heap.pxi, "Resetting"). TH_RISING is set exactly
 *   while core.risers points at the record, and while it is set the record's memory stays: a handle that dies first
 *   has the list dealt with.
 *
 * The fields that stop and reset touch come first: next to the handle's own header they mostly
 * share its cache line.
 *
 * IDLE -> ARMED happens under M. ARMED -> DUE, by the worker, happens under M and by compare-and-swap; so does ARMED ->
 * IDLE, by stop, which on an interpreter with a GIL does not take M: of the two one succeeds. DUE -> IDLE happens under
 * M; on an interpreter with a GIL it happens under the GIL alone, which every stop, reset and launch holds. DUE ->
 * ARMED happens under M, and the GIL where there is one. IDLE is
 * left and entered by threads that a free-threaded interpreter's collector stops (only ARMED -> DUE happens while it
 * works): what it takes for IDLE stays so until it is done.
 */
#ifndef TIMERHEAP_TIMER_H
#define TIMERHEAP_TIMER_H

#include <stddef.h>
#include <stdint.h>

enum { TH_IDLE = 0, TH_ARMED = 1, TH_DUE = 2 };

enum {
    TH_ARGS_ONE = 1 << 0,   /* args is the one positional argument itself */
    TH_ARGS_BLOCK = 1 << 1, /* args is a th_block; neither flag: no arguments, args is NULL */
    TH_CHANNEL = 1 << 2,    /* handle of a channel timer: func is its Channel, the record is never armed */
    TH_ORPHAN = 1 << 3,     /* the record is a slab slot */
    TH_CARCASS = 1 << 4,    /* the record is in the memory of a handle already destroyed; the worker frees it */
    TH_PINNED = 1 << 5,     /* a run entry points here */
    TH_KEYED = 1 << 6,      /* keys[pos] points here */
    TH_RISING = 1 << 7,     /* core.risers points here */
    TH_PERIODIC = 1 << 8,   /* args is a th_block with a th_periodic before it; the heap holds the handle while armed */
    /* Of the handles of event loops alone, see loop_handles.pxi: */
    TH_CANCELLED = 1 << 9,  /* cancel() was called */
    TH_SHARED = 1 << 10,    /* the context is a snapshot, which others have as well: it is called in a copy */
    TH_HIDDEN = 1 << 11,    /* untracked */
    TH_CALLING = 1 << 12,   /* its callback has begun and not returned */
    TH_CELL = 1 << 13,      /* of a TimerArray: 24 bytes, of which seq is the last; set once, at its first arming */
};

typedef struct th_timer {
    uint32_t pos;   /* index of this timer's key while TH_KEYED; guard M */
    uint16_t state; /* TH_IDLE, TH_ARMED, TH_DUE; guard M, see above */
    uint16_t flags; /* TH_ARGS_ONE ... TH_CELL; guard M after the record is made */
    int64_t when;   /* deadline of the current arming, ns on the heap's clock; guard M */
    uint64_t seq;   /* number of the current arming, heap-wide, from 1: equal deadlines go by it; guard M, see th_seq */
    void *func;     /* PyObject *, owned; what to call. Written when made and when cleared (GIL; without one: M) */
    void *args;     /* PyObject * or th_block *, owned, see TH_ARGS_*; written as func is */
} th_timer;

_Static_assert(sizeof(th_timer) == 40, "a timer record is 40 bytes");

/* The key of t is out, or (th_risen) has risen. The last access to a stopped t: whoever destroys the handle looks at
 * the flags without M, and frees the record when it finds both cleared. */
static inline void th_unkeyed(th_timer *t)
{
    __atomic_store_n(&t->flags, (uint16_t)(t->flags & ~TH_KEYED), __ATOMIC_RELEASE);
}

static inline void th_risen(th_timer *t)
{
    __atomic_store_n(&t->flags, (uint16_t)(t->flags & ~TH_RISING), __ATOMIC_RELEASE);
}

static inline uint16_t th_flags(const th_timer *t)
{
    return __atomic_load_n(&t->flags, __ATOMIC_ACQUIRE);
}

/* The state, wherever stop and the worker may be changing it. */
static inline uint16_t th_state(const th_timer *t)
{
    return __atomic_load_n(&t->state, __ATOMIC_RELAXED);
}

/* The number of the arming. The worker sorts by it without M, while somebody may arm the timer anew. */
static inline uint64_t th_seq(const th_timer *t)
{
    return __atomic_load_n(&t->seq, __ATOMIC_RELAXED);
}

static inline void th_set_seq(th_timer *t, uint64_t seq)
{
    __atomic_store_n(&t->seq, seq, __ATOMIC_RELAXED);
}

/* ARMED -> to. False: it is not ARMED, or not any more; what follows then comes after what made it so. */
static inline int th_leave_armed(th_timer *t, uint16_t to)
{
    uint16_t armed = TH_ARMED;
    return __atomic_compare_exchange_n(&t->state, &armed, to, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}

/* Without M one may read the flags that never change (TH_ARGS_ONE, TH_ARGS_BLOCK, TH_CHANNEL, TH_PERIODIC). The holder
 * of M may write another flag at that moment, the worker with no GIL: such accesses are whole, no more than that. */
static inline uint16_t th_fixed_flags(const th_timer *t) { return __atomic_load_n(&t->flags, __ATOMIC_RELAXED); }

static inline void th_mark(th_timer *t, uint16_t flag)
{
    __atomic_store_n(&t->flags, (uint16_t)(t->flags | flag), __ATOMIC_RELAXED);
}

static inline void th_unmark(th_timer *t, uint16_t flag)
{
    __atomic_store_n(&t->flags, (uint16_t)(t->flags & ~flag), __ATOMIC_RELAXED);
}

/* One entry of the heap's order. when is a lower bound of timer->when: a reset to a later deadline leaves the key
 * where it is ("stale"), and the key is brought up to date when it surfaces. Later than the truth only while the timer
 * is among core.risers, which nobody looks at the root before. The entries of the run have the same shape, and are
 * never stale. */
typedef struct th_key {
    int64_t when;
    th_timer *timer;
} th_key;

_Static_assert(sizeof(th_key) == 16, "four keys fill a cache line");

/* Two or more arguments, or a context: rare enough to live outside the record. Private to its timer. */
typedef struct th_block {
    void *context; /* PyObject *, owned; NULL: an empty context */
    size_t nargs;
    void *items[]; /* PyObject *, owned, nargs of them */
} th_block;

/* What a periodic timer has besides, right before its th_block and in one piece of memory with it. */
typedef struct th_periodic {
    int64_t period;   /* ns, positive; guard M */
    uint64_t running; /* seq of the arming whose call has begun and not returned, else 0; guard GIL, without one M */
} th_periodic;

_Static_assert(sizeof(th_periodic) % _Alignof(th_block) == 0, "a th_block follows");

/* Of a TH_PERIODIC t that has its args. */
static inline th_periodic *th_periodic_of(const th_timer *t)
{
    return (th_periodic *)t->args - 1;
}

#endif
