/* The wake protocol of one TimerHeap, for Spin. README.md says how to run it, run.py with which parameters.
 *
 * What is modelled, and where it stands in the code
 *
 *   here              there
 *   Rearm             ready, lock_to_arm, arm, rearm; hold               thread.pxi, timer.pxi, worker.pxi
 *   Postpone, Push    postpone, push                                     states.pxi
 *   Stop, Cancel      Timer.stop; cancel                                 timer.pxi, states.pxi
 *   Close             TimerHeap.close, join_workers                      timerheap.pxi, thread.pxi
 *   CancelAll         let_all_go, cancel_last                            worker.pxi, states.pxi
 *   LetRunGo          let_run_go, of a worker that has died              worker.pxi
 *   NextEntry, Settle settle                                             states.pxi
 *   Bury, ClearAway   bury, clear_away, sweep                            heap.pxi, states.pxi
 *   Thread            timerproc, next_run, collect, enter_run,           worker.pxi, park.pxi, run.pxi, states.pxi,
 *                     th_park, fire_run, let_run_go, launch, drop_hooks  core.h
 *   HoldToFire        hold_to_fire                                       worker.pxi
 *   Leave             th_post_leave; die: th_post_end                    post.h
 *   Signal            th_signal: pthread_cond_signal                     core.h
 *   StartWorker       start_worker                                       thread.pxi
 *   TryStart          try_start, th_post_start                           thread.pxi, post.h
 *   Rescue, Rescuer   rescue, after a start; by that of another heap     thread.pxi
 *   Forker            before_fork, th_before_fork, resume_workers        fork.pxi, fork.h
 *   Referent, Forget  live_heaps, forget; remember is in StartWorker     process.pxi, thread.pxi
 *   Ref, Unref        the heap's count of references, __dealloc__        timerheap.pxi
 *   HoldNoMore        hold_no_more                                       worker.pxi
 *   StartSpare        start_standby, start_post                          thread.pxi
 *   stand, watching   stand_by, take_over, th_post_take                  park.pxi, worker.pxi, post.h
 *   run_over          fire_run, at its end                               worker.pxi
 *   back_late         come_back, th_post_return                          worker.pxi, post.h
 *   Choose, Join      th_posts_of, join_workers                          post.h, thread.pxi
 *   NextPeriod        launch_periodic, go_on                             worker.pxi, states.pxi
 *   Pool              an executor, and the jobs of such a timer          jobs.pxi
 *   Clock             CLOCK_MONOTONIC goes on; the kernel wakes a thread for no reason
 *
 * Time is 1 to CMAX. AWAKE stands for INT64_MIN and NEVER for TH_NEVER. A deadline after CMAX is CMAX, so when the
 * clock has arrived there every finite deadline has, and each execution ends with nothing left to wait for.
 *
 * M. A caller's locked section is one atomic step that needs M free. It may be, because whatever it touches is guarded
 * by M; the exceptions are read without M, one variable at a time, in steps of their own: ready, the clock before M is
 * taken; closed before a start; live in resume_workers and after a refused start; live and running in rescue; running
 * after close() has waited; closed behind a run. The signal comes after the unlock, in a step of its own, and pending
 * counts those on their way; the heap's hold of itself comes after that. The worker's hold of M is one step as well
 * where it is one hold, and ends wherever the code lets M go: in pause_slice, around the sort, in the wait.
 *
 * The condition variable is one variable, since only the worker waits: NOBODY, WAITING, or WOKEN and on its way to M.
 * A signal for nobody is lost. A wait ends by a signal, by the clock, or for no reason, the latter SPURIOUS times at
 * most: a wake-up without reason must not be what saves the day.
 *
 * The GIL. Without -DGIL this is the free-threaded build: nothing but M orders anything, and a launch takes M. With it
 * callers hold the GIL from the beginning of a call to its end, except while they join a thread and when Python may
 * run: after a thread was started (list_worker) and when the heap's weak reference goes (forget). The worker takes its
 * heap, hold_to_fire, with the GIL and under M. A launch and the compare-and-swap of a stop hold the GIL and not M; the
 * worker gives the GIL up between two callbacks, and has it when it appears and disappears. A stop may come between any
 * two steps of collect, of which one matters: between the look at the state and enter_run's swap.
 *
 * Life, with -DLIFE. refs counts references to the TimerHeap: one of each caller's handle, dropped after its last call;
 * one of a caller that is arming, one of the worker while it fires, those of Closer, Forker and of a rescue; and that
 * of the heap to itself while something is armed. The worker's pointer to the heap is borrowed, and good for a
 * reference only while live > 0. Whoever drops the last runs __dealloc__. freed says that the core is. known says that
 * the weak reference, by which fork, exit and rescue find the heap, is whole: the collector clears it when nothing but
 * a cycle reaches the heap, and then a finalizer may arm. That is what ready is besides running: cleared by forget.
 *
 * Hand-over, with -DPATIENCE. The standby may take over at any moment at which the worker fires, TAKES times: how it
 * measures that a callback takes long, and whether it errs, is nothing that may matter. BLOCKS callbacks do not return
 * until nothing else can move; from a worker that is in one of these the standby takes over sooner or later. So End
 * looks twice: while they block, at whether anything that is due waits behind them, and once they have returned. The
 * standby sleeps on a condition variable of its own (watch), without reasonless wake-ups. generation counts the
 * hand-overs alone. A worker looks at it where it could have lost the run: after whatever may give up the GIL, or
 * without one in the hold of M in which it launches or ends the run (OWNER_LOCK).
 *
 * Periodic, with -DPERIODIC. Timer 0 is: its period is the delay it was last armed with. Its launch leaves it ARMED for
 * the next point of the grid, NEVER if that lies after CMAX. handle counts the references to its handle: the heap has
 * one while it is ARMED or DUE. NOMEM times there is no room for its key. With -DEXECUTOR a call is a job.
 *
 * What is left out, and why that loses nothing here
 *
 *   the order of the heap   The root is a key with the least deadline; tests/native and test_heap_model.py are about
 *                           how it gets there. Which of the run's entries is launched next is any.
 *   the walks of collect    They move due timers as popping does, and only when some have been popped, or are pinned:
 *                           then the worker does not park. For the same reason pause_slice may happen after every step.
 *   when dead keys leave    Those of stopped timers that are not at the root: any stop may bury its own, all, or none.
 *   memory                  Handles, orphans and carcasses change who owns a record, never its state or its key. What
 *                           is refused for want of memory is not modelled. The posts' own count of holders neither.
 *   channel timers          They have no key.
 *   a dead worker's heap    Its thread's reference is never given back, and the heap stays: no DEATHS with -DLIFE.
 *   manual heaps            They have no worker and no hold of themselves.
 *   exiting                 It makes the worker leave as pausing does, for good.
 *   the child of a fork     It begins with no worker, all locks free, no timers: the initial state.
 *   L                       A heap that goes leaves the list before its core does: fork meets no freed one.
 *   signal masks, slack     What a thread hands on has nothing to do with when it comes and goes.
 *   the limits of join      The fork waits for a worker that is parked however long it takes, and may run out of
 *                           patience with one that is not. close has unlimited patience.
 *
 * What is demanded
 *
 *   lost wake-up    Never is the worker in its wait, unsignalled and with no signal on its way, until later than the
 *                   earliest deadline of an armed timer: Watch.  No matter where the clock stands.
 *   deadlock        Every execution ends with callers done and threads gone: Spin's invalid end states.
 *   firing          Not early, not after stop said True (counted from its hold of M), not after close: launch. When
 *                   nothing can move any more (Spin's timeout) no timer is due: End. Since executions are finite,
 *                   which the configuration "loops" shows, that is "each due timer fires or is cancelled". The
 *                   configuration "liveness" shows it anew as an LTL formula under weak fairness, without End, whose
 *                   close would cancel what has been forgotten. Two exceptions, both stranded: a timer
 *                   armed while another caller's starts of the thread were refused, every one of its TRIES, and what a
 *                   worker leaves behind that ends inside a callback. They wait for the next worker that any heap
 *                   gets, and the rescue that End makes has them fire (-DNO_EXCUSE: nothing is stranded).
 *   one worker      At most one thread is at work, and the post is its own.
 *   hooks           The worker or close() drops executor and on_error of a closed heap, after its last callback; with
 *                   hand-over whoever comes back last.
 *   hand-over       One thread owns the run: no other launches. Nothing that is due waits behind a callback that never
 *                   returns, but where a standby was refused. close() returns when no callback runs, but for those
 *                   that have been in a close() themselves, and nothing is launched after it.
 *   every           Never two calls of a periodic timer at once, a skipped one only beside one that runs; none after a
 *                   stop that has returned True; the next deadline is always later than now, and the timer goes on
 *                   until it is stopped. A launch counts as one arming and one firing, and live stays. The handle is
 *                   there as long as it is armed or called, and not longer.
 *   life            No step touches the core once it is freed, and it is not freed twice; a heap does not go while
 *                   something is armed, and gives up the last reference to itself nowhere but in Unref. The worker
 *                   takes no reference to a heap that has none. Fork and exit know each heap that is armed. In the
 *                   end it is gone, its core freed and its thread ended, unless something is armed that is never due.
 *   the ledger      live is the number of ARMED and DUE timers; arms == fired + cancelled after close, which leaves
 *                   no run behind. The model carries the difference, ledger, to have fewer states.
 *   invariant 3     No key is later than its timer.
 *
 * Mutations, -DM_...: the protocol with one step wrong, see run.py. Spin must object to each.
 */

#ifndef NT
#define NT 2            /* timers */
#endif
#ifndef CALLERS
#define CALLERS 2
#endif
#ifndef OPS
#define OPS 2           /* calls of each caller */
#endif
#ifndef CMAX
#define CMAX 4
#endif
#ifndef SPURIOUS
#define SPURIOUS 1
#endif
#ifndef FORKS
#define FORKS 0
#endif
#ifndef CLOSES
#define CLOSES 0        /* 1: close() at any time; 0: at the very end only */
#endif
#ifndef REARMS
#define REARMS 0        /* resets by callbacks */
#endif
#ifndef FAILS
#define FAILS 0         /* threads that are refused */
#endif
#ifndef TRIES
#define TRIES 2         /* of a start, for the timers of others */
#endif
#ifndef COLLECTS
#define COLLECTS 0      /* times that the collector finds the heap unreachable, and a finalizer arms on it */
#endif
#ifndef DEATHS
#define DEATHS 0        /* threads that end inside a callback */
#endif
#ifndef YIELDS
#define YIELDS 0        /* times that collect lets M go halfway */
#endif
#ifndef BLOCKS
#define BLOCKS 0        /* with PATIENCE: callbacks that do not return until nothing else can move */
#endif
#ifndef TAKES
#define TAKES 0         /* with PATIENCE: hand-overs by a callback that was merely slow */
#endif
#ifndef NOMEM
#define NOMEM 0         /* with PERIODIC: times that there is no room for the key of the next period */
#endif
/* INSIDE: the number of callbacks that close the heap, if there are any. */

/* Posts in use at a time: the worker's, and one for each worker that has left and not ended; with patience that of the
 * standby, and of each worker that has lost its own. */
#ifdef PATIENCE
#define MORE_THREADS (1 + BLOCKS + TAKES)
#else
#define MORE_THREADS 0
#endif
#if defined(M_START_BLIND) || defined(M_REFUSAL_UNTOLD)
#define THREADS (2 + FORKS + DEATHS + MORE_THREADS)
#else
#define THREADS (1 + FORKS + DEATHS + MORE_THREADS)
#endif

#define AWAKE 0
#define NEVER 15

#define IDLE 0
#define ARMED 1
#define DUE 2

#define NONE 0
#define WAITS 1
#define RUNS 2

#define NOBODY 0
#define WAITING 1
#define WOKEN 2

/* th_core */
bit M;
byte cond;
byte wake_at = AWAKE;
bit closed, running, ready, pausing, firing, sorting, detached;
byte post;              /* 0, or the number of a thread + 1 */
byte live;

/* th_timer and its key */
byte state[NT], deadline[NT], key[NT];
bit keyed[NT], pinned[NT];

/* posts, and the thread of each: started and not yet running; not ended */
bit started[THREADS], alive[THREADS];

bit stranded;           /* that of post.h */

#ifdef PATIENCE
byte spare;             /* the standby's post, as post */
byte watch;             /* the condition variable that the standby sleeps on, as cond */
byte generation;        /* hand-overs */
byte lost;              /* workers that have lost their post and are yet to come back from their callback */
bit taken[THREADS];     /* those: post.core is NULL, and the thread is to be waited for */
#endif

#ifdef PERIODIC
byte period;            /* of timer 0, whose deadlines after CMAX are NEVER */
bit calling;            /* its `running`: a call of it has been launched, and has not returned */
byte handle = CALLERS;  /* references to its handle: one of each caller, one while it is ARMED or DUE, one of a call */
#endif
#ifdef EXECUTOR
byte job;               /* of timer 0: NONE, WAITS, RUNS */
#endif

/* the world */
byte clock = 1;
byte until;             /* what the worker's wait was given */
byte spurious = SPURIOUS;
byte fails = FAILS;
byte rearms = REARMS;
byte yields = YIELDS;
byte deaths = DEATHS;
#ifdef LIFE
byte refs = CALLERS + CLOSES;   /* references to the TimerHeap */
bit known = 1;          /* to fork, exit and rescue: the weak reference is whole */
bit freed;              /* the core */
#endif
bit hooks = 1;          /* executor and on_error are there */
#ifdef INSIDE
byte insides = INSIDE;
bit in_close[THREADS];  /* the thread's callback is */
#endif
#ifdef PATIENCE
byte blocks = BLOCKS;
byte takes = TAKES;
bit released;           /* callbacks that block return */
bit spare_refused;      /* the last standby that was asked for */
#endif
#ifdef PERIODIC
byte nomem = NOMEM;
#endif

/* what the properties need */
short ledger;           /* arms - fired - cancelled */
byte pending;           /* signals between the unlock and the call */
byte workers;
byte done;              /* callers, forker and closer that have ended */
bit said[NT];           /* stop said True and nothing armed the timer since */
bit lost_wake_up, late_key;
#ifdef PATIENCE
bit busy[THREADS];      /* the thread is in a callback */
bit stuck[THREADS];     /* and that blocks */
bit excused[THREADS];   /* or has been in a close(): no other waits for it */
#endif
#if defined(PATIENCE) || defined(PERIODIC)
bit shut;               /* a close() has returned: nothing is called any more */
#endif
#ifdef PERIODIC
byte calls;             /* of timer 0 at the moment */
bit called_off;         /* stop of timer 0 has returned True and nothing armed it since */
#endif

#ifdef GIL
bit gil;

#define TAKE_GIL atomic { !gil -> gil = 1 };
#define GIVE_GIL gil = 0;
#ifdef PERIODIC
#define LAUNCH_LOCK !M  /* the key of the next period goes into the heap */
#else
#define LAUNCH_LOCK true
#endif
#define STOP_LOCK true
#define OWNER_LOCK true
#else
#define TAKE_GIL
#define GIVE_GIL
#define LAUNCH_LOCK !M
#define STOP_LOCK !M
#define OWNER_LOCK !M
#endif

#ifdef M_DESERTION_UNSEEN
#define DESERTED false
#else
#define DESERTED (!running && !pausing)
#endif

#ifdef LIFE
#define USE assert(!freed)
#define LOCK !M; USE
#else
#define USE true
#define LOCK !M
#endif

#ifdef INSIDE
#define gone(i) (!alive[i] || in_close[i])
#else
#define gone(i) (!alive[i])
#endif

#ifdef PATIENCE
#define lost_run (generation != gen)
#define waited_for(i) (busy[i] && !excused[i])
#if THREADS == 3
#define some(p) (p(0) || p(1) || p(2))
#elif THREADS == 4
#define some(p) (p(0) || p(1) || p(2) || p(3))
#elif THREADS == 5
#define some(p) (p(0) || p(1) || p(2) || p(3) || p(4))
#endif
/* Whether the standby may take over: after patience, or needlessly; the first always comes true in the end. */
#define impatient (firing && (takes > 0 || stuck[post - 1]))
#else
#define lost_run false
#endif

#ifdef PERIODIC
#define on_grid(a, now) (a + period * (1 + (now - a) / period))
#ifdef EXECUTOR
#define pooled (job != NONE)
#else
#define pooled false
#endif
#define next_tick(a, now) (on_grid(a, now) > CMAX -> NEVER : on_grid(a, now))
#endif

#define later(a, d) (d == NEVER -> NEVER : (a + d > CMAX -> CMAX : a + d))
#define overdue(t) (state[t] != IDLE && deadline[t] <= clock)
#define in_run(t) pinned[t]
#define dead(t) (keyed[t] && state[t] != ARMED)
#define unseen(t) (state[t] == ARMED && deadline[t] < until)
#define out_of_sight(t) (keyed[t] && deadline[t] < key[t])
#if NT == 2
#define any(p) (p(0) || p(1))
#elif NT == 4
#define any(p) (p(0) || p(1) || p(2) || p(3))
#endif

inline Signal()
{
    USE;
    if
    :: cond == WAITING -> cond = WOKEN
    :: else
    fi
}

#ifdef PATIENCE
inline SignalWatch()
{
    USE;
    if
    :: watch == WAITING -> watch = WOKEN
    :: else
    fi
}
#endif

/* ---- the heap; caller holds M ----------------------------------------------------------------------------------- */

inline FindRoot()       /* root = NT when there is no key */
{
    d_step {
        root = NT;
        i = 0;
        do
        :: i < NT ->
            if
            :: keyed[i] && (root == NT || key[i] < key[root]) -> root = i
            :: else
            fi;
            i++
        :: else -> break
        od;
        i = 0
    }
}

inline Bury(t)         /* the deadline of a stopped timer matters as long as it has a key */
{
    d_step {
        keyed[t] = 0;
        key[t] = 0;
        deadline[t] = 0
    }
}

inline BuryAll()
{
    d_step {
        i = 0;
        do
        :: i < NT ->
            if
            :: dead(i) -> keyed[i] = 0; key[i] = 0; deadline[i] = 0
            :: else
            fi;
            i++
        :: else -> break
        od;
        i = 0
    }
}

#ifdef PERIODIC
inline Own(t)           /* the heap takes a reference to the handle of an armed periodic timer */
{
    if
    :: t == 0 -> handle++
    :: else
    fi
}

inline Disown(t)
{
    if
    :: t == 0 -> assert(handle > 0); handle--
    :: else
    fi
}
#else
#define Own(t) skip
#define Disown(t) skip
#endif

inline Push(t, when)
{
    Own(t);
    ledger++;
    live++;
    state[t] = ARMED;
    deadline[t] = when;
    key[t] = when;
    keyed[t] = 1
}

inline Postpone(t, when, sooner)        /* of an ARMED timer: one arming more, one cancelled, the ledger stays */
{
    sooner = when < deadline[t] && when < key[t];
    deadline[t] = when;
    if
    :: state[t] == IDLE -> Own(t); state[t] = ARMED; live++; ledger++
    :: else
    fi;
    if
    :: sooner -> key[t] = when
    :: else
    fi;
#ifdef M_RESET_QUIET
    sooner = 0
#endif
}

inline Cancel(t, cancelled)
{
    cancelled = state[t] == ARMED || (state[t] == DUE && !closed);
    if
    :: cancelled ->
        state[t] = IDLE;
        Disown(t);
        live--;
        ledger--;
        if
        :: !keyed[t] -> deadline[t] = 0
        :: else
        fi
    :: else
    fi
}

inline ClearAway(t)     /* what leaves is dead, and how much of that is any */
{
    if
    :: true
    :: dead(t) -> Bury(t)
    :: any(dead) -> BuryAll()
    fi
}

/* ---- references to the heap: with the GIL, without one atomic --------------------------------------------------- */

#ifdef LIFE
inline Ref()
{
    atomic { assert(refs > 0); refs++ }
}

inline Referent(got)    /* live_heaps: of the weak reference */
{
    atomic {
        got = refs > 0 && known;
        refs = refs + got
    }
}

inline Forget()         /* the weak reference tells of its end */
{
#ifdef M_FORGET_KEEPS_READY
    known = 0
#else
    known = 0;
    GIVE_GIL
    TAKE_GIL
    atomic { LOCK; ready = 0 }
#endif
}

inline Unref()          /* the last one: __dealloc__ */
{
    if
    :: atomic { refs > 1 -> refs-- }
    :: atomic { refs < 2 -> assert(refs == 1); refs = 0 };
        if
        :: known -> Forget()
        :: !known
        fi;
#ifdef M_DETACH_OUTSIDE_M
        if
        :: atomic { post == 0 -> assert(!freed); freed = 1 }
        :: post != 0 ->
            atomic { closed = 1; detached = 1 };
            Signal()
        fi
#else
        atomic {
            LOCK;
            assert(live == 0);
            if
#ifdef M_FREED_AT_ONCE
            :: true -> freed = 1
#elif defined(PATIENCE) && !defined(M_SPARE_UNSEEN)
            :: post == 0 && spare == 0 -> freed = 1
            :: post != 0 || spare != 0 ->
                closed = 1;
                detached = 1;
                Signal();
#ifndef M_SPARE_DETACH_QUIET
                SignalWatch()
#endif
#else
            :: post == 0 -> freed = 1
            :: post != 0 ->
                closed = 1;
                detached = 1;
#ifndef M_DETACH_QUIET
                Signal()
#endif
#endif
            fi
        }
#endif
    fi
}

inline HoldNoMore()
{
#ifdef M_NO_HOLD
    skip
#else
    atomic { assert(refs > 1); refs-- }
#endif
}
#endif

/* ---- calls: with the GIL ---------------------------------------------------------------------------------------- */

inline Leave()          /* th_post_leave; caller holds M */
{
    USE;
#ifndef M_POST_KEPT
    post = 0;
#endif
    running = 0;
#ifndef M_READY_KEPT
    ready = 0;
#endif
    firing = 0
}

inline TryStart(ok)     /* ok: there is a worker, or none is wanted */
{
    ok = 1;
#ifdef M_START_BLIND
    if
    :: running || pausing || closed
    :: !running && !pausing && !closed ->
        atomic {
            LOCK;
#else
    atomic {
        LOCK;
        if
        :: running || pausing || closed -> ready = running
        :: else ->
#endif
            running = 1;
            ready = 1;
            do
            :: i < THREADS && alive[i] -> i++
            :: else -> break
            od;
            assert(i < THREADS);
            alive[i] = 1;
            post = i + 1;
            i = 0;
            ok = 0;
            new = post
#ifdef M_START_BLIND
        }
    fi;
#else
        fi
    }
#endif
    if
    :: ok
    :: !ok ->                                           /* the system is asked, with the GIL */
        if
        :: atomic { true -> started[new - 1] = 1; ok = 1 };
            GIVE_GIL                                    /* list_worker */
            TAKE_GIL
            skip
        :: atomic { fails > 0 -> fails-- };
            atomic {
                LOCK;
                Leave();
#ifndef M_REFUSAL_UNTOLD
                alive[new - 1] = 0                      /* for those who await its end */
#endif
            }
        fi
    fi;
    new = 0
}

#ifdef PATIENCE
inline StartSpare()     /* by the worker, before it launches anything, or after a fork; with the GIL */
{
    atomic {
        LOCK;
        if
        :: running && spare == 0 && !closed && !pausing ->
            do
            :: i < THREADS && alive[i] -> i++
            :: else -> break
            od;
            assert(i < THREADS);
            alive[i] = 1;
            spare = i + 1;
            new = spare;
            i = 0
        :: else
        fi
    }
    if
    :: new == 0
    :: new > 0 ->
        if
        :: atomic { true -> started[new - 1] = 1; spare_refused = 0 };
            GIVE_GIL
            TAKE_GIL
            skip
        :: atomic { fails > 0 -> fails-- };
            atomic {
                LOCK;
                spare = 0;
                spare_refused = 1;
#ifndef M_SPARE_REFUSAL_UNTOLD
                alive[new - 1] = 0
#endif
            }
        fi
    fi;
    new = 0
}
#endif

inline Rescue()         /* somebody has got a worker */
{
    if
    :: atomic { stranded -> stranded = 0 };
#ifdef LIFE
        Referent(found);
        if
        :: found && live > 0 ->
#else
        if
        :: live > 0 ->
#endif
            if
            :: !running ->
                if
                :: !pausing && !closed ->
                    TryStart(ok);
                    if
                    :: ok
#ifdef M_RESCUE_FORGETS
                    :: !ok
#else
                    :: !ok -> stranded = 1
#endif
                    fi
                :: else
                fi
            :: running
            fi
        :: else
        fi;
#ifdef LIFE
        if
        :: found -> found = 0; Unref()
        :: !found
        fi
#endif
    :: !stranded
    fi
}

inline StartWorker(ok)  /* not ok: closed, or an error */
{
    if
    :: closed -> ok = 0
    :: !closed ->
#if defined(LIFE) && !defined(M_UNKNOWN)
        known = 1;                                      /* remember */
#endif
        tries = TRIES;
        do
        :: TryStart(ok);
            if
            :: ok -> break
            :: !ok ->
                atomic {
                    USE;
#ifdef M_NO_RETRY
                    tries = 0
#else
                    tries = (live > 0 -> tries - 1 : 0)
#endif
                }
                if
                :: tries == 0 -> atomic { USE; stranded = stranded || live > 0; break }
                :: tries > 0
                fi
            fi
        od;
        tries = 0;
        if
        :: ok -> Rescue(); ok = 1
        :: !ok
        fi
    fi
}

inline Rearm(t, delay)
{
#if defined(LIFE) && !defined(M_HOLD_LATE)
    Ref();                                              /* its own, beside that of the handle */
#endif
    ok = 1;
    do
    :: if
        :: atomic { ready -> USE }
        :: !ready -> StartWorker(ok)
        fi;
        if
        :: !ok -> break
        :: ok
        fi;
#ifdef M_STALE_ROOT
        FindRoot();
        seen = (root == NT -> NEVER : key[root]);
        root = 0;
#endif
#ifdef M_SIGNAL_FIRST
        Signal();
#endif
        when = later(clock, delay);
        atomic {
            LOCK;
            if
            :: closed -> when = 0; break
            :: !closed && DESERTED -> when = 0
            :: !closed && !DESERTED ->
#ifdef LIFE
#ifdef M_HELD_TWICE
                first = 1;
#else
                first = state[t] == IDLE;
#endif
#endif
                if
                :: keyed[t] -> Postpone(t, when, wake)
                :: else -> Cancel(t, wake); Push(t, when); wake = 1
                fi;
#ifdef LIFE
                first = first && live == 1;
                assert(known);
#endif
                said[t] = 0;
#ifdef PERIODIC
                if
                :: t == 0 -> period = d; called_off = 0
                :: else
                fi;
#endif
#ifdef M_STALE_ROOT
                wake = wake && when < seen;
                seen = 0;
#else
                wake = wake && when < wake_at;
#endif
#ifdef M_SIGNAL_SKIPPED
                wake = 0;
#endif
                if
                :: wake -> wake_at = AWAKE; pending++
                :: else
                fi;
                when = 0;
                break
            fi
        }
    od;
    if
    :: wake ->
        atomic {
#ifndef M_SIGNAL_FIRST
            Signal();
#endif
            pending--;
            wake = 0
        }
    :: else
    fi;
#ifdef LIFE
    if
#ifndef M_NO_HOLD
    :: atomic { first -> first = 0; assert(refs > 0); refs++ }
    :: !first
#else
    :: first = 0
#endif
    fi;
#ifndef M_HOLD_LATE
    Unref()
#endif
#endif
}

inline Stop(t)
{
    atomic {
        STOP_LOCK;
        USE;
        Cancel(t, wake);
        said[t] = said[t] || wake;
#ifdef LIFE
#ifdef M_GIVEN_UP_TWICE
        first = live == 0;
#else
        first = wake && live == 0;                      /* idle */
#endif
#endif
#ifdef PERIODIC
        ok = wake && t == 0;
#endif
#ifndef GIL
        if
        :: wake -> ClearAway(t)
        :: else
        fi;
        wake = 0
#endif
    }
#ifdef GIL
    if
    :: wake -> atomic { LOCK; ClearAway(t); wake = 0 }  /* sweep */
    :: true -> wake = 0
    fi
#endif
#ifdef LIFE
    if
    :: first -> first = 0; HoldNoMore()
    :: !first
    fi;
#endif
#ifdef PERIODIC
    if
    :: ok -> atomic {
        ok = 0;
#if defined(EXECUTOR) && !defined(M_JOB_KEPT)
        if
        :: job == WAITS -> job = NONE; calling = 0
        :: else
        fi;
#endif
        called_off = called_off || state[0] == IDLE
       }
    :: !ok
    fi
#endif
}

#ifdef PATIENCE
inline Choose(worker, standby, others, but)
{
    atomic {
        LOCK;
        i = 0;
        do
        :: i < THREADS ->
            if
            :: i + 1 != but && ((worker && post == i + 1) || (standby && spare == i + 1) || (others && taken[i])) ->
                mates = mates | (1 << i)
            :: else
            fi;
            i++
        :: else -> break
        od;
        i = 0
    }
}

inline Join(but)        /* for worker, standby and lost workers, but for the calling thread and those in a close() */
{
#if defined(M_LOST_UNAWAITED)
    Choose(true, true, false, but);
#elif defined(M_SPARE_UNAWAITED)
    Choose(true, false, true, but);
#elif defined(JOIN_APART)
    Choose(false, true, true, but);
    Choose(true, false, false, but);
#else
    Choose(true, true, true, but);
#endif
    Signal();
#ifndef M_WATCH_QUIET
    SignalWatch();
#endif
    GIVE_GIL
    do
    :: atomic { mates & 1 && gone(0) -> mates = mates & 254 }
    :: atomic { (mates & 3) == 2 && gone(1) -> mates = mates & 253 }
    :: atomic { (mates & 7) == 4 && gone(2) -> mates = mates & 251 }
#if THREADS > 3
    :: atomic { (mates & 15) == 8 && gone(3) -> mates = mates & 247 }
#endif
#if THREADS > 4
    :: atomic { (mates & 31) == 16 && gone(4) -> mates = mates & 239 }
#endif
    :: mates == 0 -> break
    od;
    TAKE_GIL
    skip
}
#else
inline Join(but)           /* for ever, and not in a callback */
{
    atomic { LOCK; mate = post };
    if
    :: mate == 0
    :: mate > 0 ->
#ifndef M_JOIN_QUIET
        Signal();
#endif
        GIVE_GIL
        gone(mate - 1);
        TAKE_GIL
        mate = 0
    fi
}
#endif

inline NextEntry(t)     /* settle, but for the timer's state */
{
    if
    :: pinned[0] -> t = 0
    :: pinned[1] -> t = 1
#if NT == 4
    :: pinned[2] -> t = 2
    :: pinned[3] -> t = 3
#endif
    fi;
    pinned[t] = 0
}

inline Settle(t)        /* a DUE timer; whoever does has a reference to the heap */
{
    state[t] = IDLE;
    Disown(t);
    deadline[t] = 0;
    live--;
    ledger--;
#ifdef LIFE
    idle = live == 0
#endif
}

#ifdef PERIODIC
inline NextPeriod()     /* launch of timer 0, DUE: ARMED for its next period, and called unless a call of it runs */
{
#ifdef M_PERIOD_SETTLED
    Settle(t);
    Own(t);
    live++;
    ledger++;
#endif
#ifdef M_GRID_LATE
    deadline[t] = deadline[t] + period;
#else
    deadline[t] = next_tick(deadline[t], clock);
#endif
    assert(deadline[t] > clock);
    key[t] = deadline[t];
    keyed[t] = 1;
    state[t] = ARMED;
#ifndef M_CALLED_TWICE
    if
    :: calling ->
        assert(calls > 0 || pooled);                    /* else it would never be called again */
        fire = 0;
#ifdef M_SKIPPED_FORGOTTEN
        state[t] = IDLE; keyed[t] = 0; key[t] = 0; deadline[t] = 0; live--; ledger--; Disown(t)
#endif
    :: else
    fi;
#endif
    if
    :: fire ->
        calling = 1;
        assert(calls == 0);
#ifdef EXECUTOR
        job = WAITS;
        fire = 0
#else
        calls++;
#ifndef M_CALL_UNHELD
        handle++;
#endif
        mine = 1
#endif
    :: else
    fi
}
#endif

inline LetRunGo()       /* of a worker that has died */
{
    assert(workers == 0);
    do
    :: any(in_run) ->
        atomic {
            LAUNCH_LOCK;
            USE;
            NextEntry(t);
            if
            :: state[t] == DUE -> Settle(t)
            :: else
            fi;
            t = 0
        }
#ifdef LIFE
        if
        :: idle -> idle = 0; HoldNoMore()
        :: !idle
        fi
#endif
    :: else -> break
    od
}

inline CancelAll()      /* closed, and let_all_go; opened: closed by this call */
{
    atomic { LOCK; opened = !closed; closed = 1 }
    do
    :: atomic {
        LOCK;
        BuryAll();
        FindRoot();
        if
        :: root == NT -> root = 0; break
        :: else -> Cancel(root, wake); Bury(root); root = 0; wake = 0
        fi;
#ifdef LIFE
        first = live == 0
#endif
       }
#ifdef LIFE
        if
        :: first -> first = 0; HoldNoMore()
        :: !first
        fi
#endif
    od
}

inline DropHooks()      /* drop_hooks, by close() */
{
    if
#ifdef PATIENCE
    :: atomic { LOCK; opened = !running && lost == 0; hooks = hooks && !opened; opened = 0 }
#else
    :: atomic { !running -> hooks = 0 }
    :: running
#endif
    fi
}

inline Close()
{
    CancelAll();
    Join(0);
#ifdef EXECUTOR
    if
    :: atomic { job == WAITS -> job = NONE; calling = 0 }       /* end_jobs */
    :: job == NONE
    fi;
#endif
#ifdef PATIENCE
    assert(!some(waited_for));
#endif
#if defined(PATIENCE) || defined(PERIODIC)
    shut = 1;
#endif
#ifndef M_RUN_LEFT
    if
    :: opened && !running -> LetRunGo()
    :: else
    fi;
#endif
    opened = 0;
    DropHooks()
}

proctype Caller(byte me)
{
    byte n = OPS, t, d, i, when, root, seen, tries, new;
    bit ok, wake, first;
#ifdef LIFE
    bit found;
#endif
    do
    :: n > 0 ->
        atomic {
            n--;
#if NT == 4
            if :: t = 2 * me :: t = 2 * me + 1 fi;
#else
            if :: t = 0 :: t = 1 fi;
#endif
#ifdef PERIODIC
            if :: d = 0 :: d = 1 :: d = 2 :: t > 0 -> d = NEVER fi
#else
            if :: d = 0 :: d = 1 :: d = 2 :: d = NEVER fi
#endif
        }
        TAKE_GIL
#if COLLECTS
        if
        :: true
        :: known && live == 0 && refs == 1 -> Forget()
        fi;
#endif
        if
#ifdef PERIODIC
        :: t > 0 || d > 0 -> Rearm(t, d)
#else
        :: Rearm(t, d)
#endif
        :: d == 0 -> Stop(t)
        fi;
        GIVE_GIL
        atomic { t = 0; d = 0; ok = 0 }
    :: else -> break
    od;
#ifdef LIFE
    TAKE_GIL
    Unref();
    GIVE_GIL
#endif
#ifdef PERIODIC
    atomic { assert(handle > 0); handle-- }
#endif
    done++
}

proctype Forker()
{
    byte i, mate, spare_mate, tries, new;
    bit ok, leaves, held;
#ifdef LIFE
    bit found;
#endif
    TAKE_GIL
#ifdef LIFE
    Referent(held);                                     /* live_heaps */
    if
    :: !held -> goto forked
    :: held
    fi;
#endif
    atomic {
        LOCK;
        leaves = running && !firing;
        if
#ifdef PATIENCE
        :: leaves -> pausing = 1; mate = post; spare_mate = spare
#else
        :: leaves -> pausing = 1
#endif
        :: else
        fi
    }
    if
    :: leaves ->
#ifdef PATIENCE
        Signal();
        SignalWatch();
#else
        atomic { LOCK; mate = post };
        Signal();
#endif
        GIVE_GIL
        if
        :: mate == 0
        :: mate > 0 ->
            if
            :: !alive[mate - 1]
            :: cond == NOBODY           /* busy for more than a second */
            fi
        fi;
        mate = 0;
#ifdef PATIENCE
        if
        :: spare_mate == 0
        :: spare_mate > 0 -> !alive[spare_mate - 1]
        fi;
        spare_mate = 0;
#endif
        TAKE_GIL
        atomic { !M && !sorting };      /* fork itself */
        GIVE_GIL                        /* resume_workers is a pending call */
        TAKE_GIL
#ifdef M_RESUME_LOOKS_FIRST
        mate = live;
#endif
        atomic { LOCK; pausing = 0 };
        if
#if defined(M_RESUME_FORGETS)
        :: true
#elif defined(M_RESUME_LOOKS_FIRST)
        :: mate == 0
        :: mate > 0 -> mate = 0; StartWorker(ok)
#else
        :: live == 0
        :: live > 0 -> StartWorker(ok)                  /* which looks at closed */
#endif
        fi;
#if defined(PATIENCE) && !defined(M_RESUME_NO_SPARE)
        if
        :: firing -> StartSpare()                       /* the worker did not leave, its standby did */
        :: !firing
        fi
#endif
    :: else
    fi;
#ifdef LIFE
    Unref();
forked:
#endif
    GIVE_GIL
    atomic { leaves = 0; held = 0; ok = 0; mate = 0; done++ }
}

proctype Closer()
{
    byte i, root, mate, mates, t;
    bit wake, first, idle, opened;
    TAKE_GIL
    Close();
#ifdef LIFE
    Unref();
#endif
    GIVE_GIL
    done++
}

#ifdef RESCUES
proctype Rescuer()
{
    byte i, new;
    bit ok;
#ifdef LIFE
    bit found;
#endif
    TAKE_GIL
    Rescue();
    GIVE_GIL
    ok = 0
}
#endif

inline HoldToFire()     /* with the GIL, under M */
{
#ifdef PATIENCE
    atomic {
        LOCK;
        held = live > 0;
#ifdef LIFE
        assert(refs > 0 || !held);
        refs = refs + held;
#endif
        firing = held;
#ifndef M_GENERATION_LATE
        gen = generation;
#endif
#ifndef M_STANDBY_UNWOKEN
        if
        :: held -> SignalWatch()
        :: else
        fi
#endif
    }
#ifdef M_GENERATION_LATE
    gen = generation;
#endif
#elif defined(LIFE) && defined(M_HOLD_BLIND)
    atomic { LOCK; assert(refs > 0); refs++; held = 1 }
#elif defined(LIFE) && defined(M_HELD_AFTER_M)
    atomic { LOCK; held = live > 0 };
    atomic { assert(refs > 0 || !held); refs = refs + held }
#elif defined(LIFE)
    atomic { LOCK; held = live > 0; assert(refs > 0 || !held); refs = refs + held }
#else
    atomic { LOCK; held = live > 0 }
#endif
}

/* ---- the worker ------------------------------------------------------------------------------------------------- */

proctype Thread(byte me)
{
    byte now, i, root, t, d, when, seen, last, tries, new;
    bit ok, wake, fire, looked, first, idle, held;
#ifdef LIFE
    bit found;
#endif
#ifdef INSIDE
    bit opened;
#endif
#ifdef PATIENCE
    byte gen, mates;
#endif
#ifdef PERIODIC
    bit mine;                                           /* the call is one of timer 0 */
#endif
end_free:
    do
    :: atomic {
        started[me] -> started[me] = 0;
#ifdef PATIENCE
        if
        :: spare == me + 1 -> goto stand
        :: else
        fi;
#endif
        workers++;
        assert(workers == 1);
        assert(post == me + 1)
       };
#ifdef M_HEAP_KEPT
        atomic { refs++; held = 1 };
#endif
        TAKE_GIL                                        /* appear */
        GIVE_GIL

next_run:
        atomic {
            LOCK;
            M = 1;
look:
            if
            :: closed || pausing -> goto leave
            :: else
            fi;
#ifdef M_NO_SECOND_LOOK
            if
            :: looked -> looked = 0; goto park
            :: else
            fi;
#endif
            now = clock;
collect:
            FindRoot();
            if
            :: root < NT && !closed && dead(root) -> Bury(root)
            :: root == NT || closed -> goto collected
#ifdef M_DUE_BY_KEY
            :: root < NT && !closed && state[root] == ARMED && key[root] <= now ->
#else
            :: root < NT && !closed && state[root] == ARMED && deadline[root] <= now ->
#endif
                if
                :: pinned[root] -> goto collected
                :: else -> goto enter_run
                fi
#if !defined(M_STALE_PARK) && !defined(M_NO_REKEY)
            :: root < NT && !closed && state[root] == ARMED && deadline[root] > now && deadline[root] > key[root] ->
                key[root] = deadline[root]
#endif
            :: else -> goto collected
            fi;
next_key:
            if
            :: goto collect
            :: yields > 0 -> yields--; M = 0; goto slice
            fi;
collected:
            now = 0;
            if
            :: any(in_run) ->
#ifdef M_NO_SECOND_LOOK
                last = (root == NT -> NEVER : key[root]);
                looked = 1;
#endif
                root = 0;
                sorting = 1;
                M = 0
            :: else ->
                if
#ifdef M_PAUSING_UNCHECKED
                :: closed -> goto leave
#else
                :: closed || pausing -> goto leave
#endif
                :: else -> goto park
                fi
            fi;
            goto sort;
park:
#ifdef M_STALE_PARK
            until = (root == NT -> NEVER : deadline[root]);
#else
            until = (root == NT -> NEVER : key[root]);
#endif
#ifdef M_NO_SECOND_LOOK
            if
            :: last -> until = last; last = 0
            :: else
            fi;
#endif
            root = 0;
#ifdef M_WAKE_AT_LATE
            cond = WAITING;
            M = 0
#elif defined(M_WAKE_AT_STALE)
            if
            :: wake_at == AWAKE -> wake_at = until
            :: else
            fi;
            cond = WAITING;
            M = 0
#else
            wake_at = until;
            cond = WAITING;
            M = 0
#endif
        }
#ifdef M_WAKE_AT_LATE
        wake_at = until;
#endif
#ifdef LIFE
end_parked:                                             /* for ever, with what is never due */
#endif
        atomic {
            cond == WOKEN || (cond == WAITING && clock >= until);
            cond = NOBODY;
            until = 0
        }
        atomic {
            LOCK;
            M = 1;
#if !defined(M_WAKE_AT_STALE) && !defined(M_NO_RESET)
            wake_at = AWAKE;
#endif
            goto look
        }

slice:                                                  /* between the two halves of pause_slice */
        atomic { LOCK; M = 1; goto collect }

enter_run:
#ifdef GIL
        skip;                                           /* a stop may come first, without M */
#endif
        atomic {
            if
#ifdef M_NO_SWAP
            :: true ->
                if
                :: state[root] == IDLE -> live++; ledger++
                :: else
                fi;
#else
            :: state[root] == ARMED ->
#endif
                state[root] = DUE;
                pinned[root] = 1;
                keyed[root] = 0;
                key[root] = 0
            :: else
            fi;
            goto next_key
        }

sort:
        atomic { LOCK; sorting = 0 };
#ifdef M_GIL_UNDER_M
        atomic { !M -> M = 1 };
        TAKE_GIL
        M = 0;
        GIVE_GIL
#endif
        TAKE_GIL
#ifndef M_HEAP_KEPT
        HoldToFire();
#endif
#ifdef PATIENCE
        if
        :: held && spare == 0 -> StartSpare()
        :: else
        fi;
#else
        firing = held;
#endif
fire_run:
        do
        :: any(in_run) && !lost_run ->
#ifdef PATIENCE
            GIVE_GIL                                    /* enter_fresh_context: finalizers */
            TAKE_GIL
#if defined(GIL) && !defined(M_LAUNCH_UNCHECKED)
            if
            :: lost_run -> goto run_over
            :: !lost_run
            fi;
#endif
#endif
            atomic {                                    /* launch */
                LAUNCH_LOCK;
                USE;
#ifdef PATIENCE
#if !defined(GIL) && !defined(M_LAUNCH_UNCHECKED)
                if
                :: lost_run -> goto run_over
                :: else
                fi;
#endif
                assert(post == me + 1);                 /* one owner */
#endif
#if NOMEM && !defined(M_HEAD_FIRST)
                if
                :: nomem > 0 && pinned[0] && state[0] == DUE && !closed -> nomem--; goto nap
                :: true
                fi;
#endif
                NextEntry(t);
#ifdef M_HEAD_FIRST
                if
                :: nomem > 0 && t == 0 && state[0] == DUE && !closed -> nomem--; goto nap
                :: true
                fi;
#endif
#ifdef M_LAUNCH_BLIND
                if
                :: state[t] == IDLE -> state[t] = DUE; live++; ledger++
                :: else
                fi;
#endif
                fire = state[t] == DUE && !closed;
                assert(!fire || !said[t]);
                assert(!fire || deadline[t] <= clock);
                assert(!fire || hooks);
#if defined(PATIENCE) || defined(PERIODIC)
                assert(!fire || !shut);
#endif
#ifdef PERIODIC
                if
                :: state[t] == DUE && fire && t == 0 -> NextPeriod()
                :: state[t] == DUE && !(fire && t == 0) -> assert(held); Settle(t)
                :: else
                fi;
#else
                if
                :: state[t] == DUE -> assert(held); Settle(t)
                :: else
                fi;
#endif
#ifdef PATIENCE
                busy[me] = fire;
#endif
                if
                :: fire && deaths > 0 -> deaths--; fire = 0; t = 0; goto die
                :: fire && rearms > 0 -> rearms--; fire = 0; if :: d = 0 :: d = 1 :: d = 2 fi; goto callback
#ifdef INSIDE
                :: fire && insides > 0 -> insides--; fire = 0; t = 0; goto closing
#endif
#ifdef PATIENCE
                :: fire && blocks > 0 -> blocks--; fire = 0; t = 0; stuck[me] = 1; goto blocked
#endif
                :: fire = 0; t = 0
                fi
            }
launched:
#ifdef PERIODIC
            if
            :: atomic { mine ->
                mine = 0;
#ifndef M_CALLING_KEPT
                calling = 0;
#endif
                calls--;
                assert(handle > 0);
#ifndef M_CALL_UNHELD
                handle--
#endif
               }
            :: !mine
            fi;
#endif
#ifdef PATIENCE
            atomic { busy[me] = 0; excused[me] = 0 };
#endif
#ifdef LIFE
            if
            :: idle -> idle = 0; HoldNoMore()
            :: !idle
            fi;
#endif
            GIVE_GIL
            TAKE_GIL
            skip
        :: else -> break
        od;
run_over:
        if
        :: held ->
#ifdef PATIENCE
#if defined(M_RUN_EMPTIED_LATE) || defined(M_FIRING_LATE)
            atomic {
                OWNER_LOCK;
                if
                :: lost_run -> goto back_late
                :: else
                fi
            }
#endif
#ifdef M_RUN_EMPTIED_LATE
            atomic { OWNER_LOCK; pinned[0] = 0; pinned[1] = 0 };
#endif
            atomic {                                    /* one hold: whose it is, the run, the hooks */
                OWNER_LOCK;
                USE;
#ifndef M_FIRING_LATE
                if
                :: lost_run -> goto back_late
                :: else
                fi;
                assert(post == me + 1 && !any(in_run));
#endif
                firing = 0;
#ifdef M_HOOKS_UNCOUNTED
                last = closed
#else
                last = closed && lost == 0
#endif
            }
            if
            :: atomic { last -> last = 0; hooks = 0 }   /* drop_hooks */
            :: !last
            fi;
#else
            firing = 0;
#ifndef M_HOOKS_KEPT
            if
            :: atomic { closed -> hooks = 0 }           /* drop_hooks */
            :: !closed
            fi;
#endif
#endif
#ifndef M_HEAP_KEPT
            held = 0;
#ifdef LIFE
            Unref()
#endif
#endif
        :: !held
        fi;
        GIVE_GIL
        goto next_run;

callback:
#ifdef PERIODIC
        if
        :: t > 0 || d > 0 -> Rearm(t, d)
        :: Stop(t)
        fi;
#else
        Rearm(t, d);
#endif
        atomic { d = 0; t = 0; ok = 0; goto launched }

#ifdef INSIDE
closing:
        CancelAll();
#ifdef PATIENCE
        atomic { in_close[me] = 1; excused[me] = 1 };   /* enter_close */
        Join(me + 1);
        in_close[me] = 0;
        opened = 0;
        DropHooks();
        atomic { assert(hooks); goto launched }
#else
        in_close[me] = 1;
        atomic { LOCK; assert(post == me + 1) };        /* join_workers: it is its own */
        Signal();
        GIVE_GIL                                        /* end_jobs */
        TAKE_GIL
        in_close[me] = 0;
        atomic { assert(running && hooks); opened = 0; goto launched }
#endif
#endif

#if NOMEM
nap:
        GIVE_GIL
        TAKE_GIL
#ifdef M_HEAD_FIRST
        atomic {
            LOCK;
            fire = !closed;
            assert(!said[0]);
            NextPeriod();
            fire = 0;
            t = 0;
            goto launched
        }
#else
        goto fire_run;
#endif
#endif

#ifdef PATIENCE
blocked:
        GIVE_GIL
        atomic { released -> stuck[me] = 0 };
        TAKE_GIL
        atomic { assert(hooks); goto launched }         /* on_error */

back_late:                                              /* the post is lost, and the run, and all but the heap */
        atomic {
            LOCK;
            USE;
            assert(taken[me] && post != me + 1);
            taken[me] = 0;
            lost--;
#ifdef M_LOST_LEAVES
            last = detached;
            Leave();
            workers--
#elif defined(M_LOST_HOOKS_KEPT)
            last = 0
#elif defined(M_LOST_HOOKS_RUNNING)
            last = closed && lost == 0 && !running
#else
            last = closed && lost == 0 && !firing
#endif
        }
        if
        :: atomic { last -> last = 0; hooks = 0 }
        :: !last
        fi;
        held = 0;
#ifdef LIFE
        Unref();
#endif
        GIVE_GIL
        goto ended;

stand:                                                  /* the standby */
        atomic {
            LOCK;
            if
            :: closed || pausing ->
                spare = 0;
#ifdef M_SPARE_FREES_NOT
                last = 0;
#else
                last = detached && post == 0;
#endif
                goto left
#ifndef M_SLEEPS_BLIND
            :: !closed && !pausing && firing -> goto watching
#endif
            :: else -> watch = WAITING
            fi
        }
#ifdef LIFE
end_asleep:
#endif
        atomic { watch == WOKEN -> watch = NOBODY; goto stand };

watching:
        if
        :: atomic { !firing || closed || pausing -> goto stand }
        :: impatient
        fi;
#ifndef M_TAKEN_WITHOUT_GIL
        TAKE_GIL
#endif
        atomic {
            LOCK;
            USE;
            if
#ifdef M_TAKEN_CLOSED
            :: !pausing && impatient ->
#elif defined(M_TAKEN_IDLE)
            :: !closed && !pausing && post != 0 && takes > 0 ->
#else
            :: !closed && !pausing && impatient ->
#endif
                takes = takes - !stuck[post - 1];
                taken[post - 1] = 1;
                lost++;
#ifndef M_GENERATION_KEPT
                generation++;
#endif
                gen = generation;
                post = me + 1;
                spare = 0;
                held = 1
#if defined(LIFE) && !defined(M_TAKER_UNHELD)
                ;
                assert(refs > 0);
                refs++
#endif
            :: else -> goto unneeded
            fi
        }
#ifdef M_TAKEN_WITHOUT_GIL
        TAKE_GIL
#endif
#ifndef M_TAKER_ALONE
        StartSpare();
#endif
        goto fire_run;

unneeded:
#ifndef M_TAKEN_WITHOUT_GIL
        GIVE_GIL
#endif
        goto stand;
#endif

die:                                                    /* it does not have the GIL then */
        GIVE_GIL
#ifdef M_DEATH_UNSEEN
        workers--;
#else
#ifdef PATIENCE
        stuck[me] = 0;
#ifdef M_END_BLIND
        last = taken[me];
#endif
        atomic {
            LOCK;
            busy[me] = 0;
            if
#ifdef M_END_BLIND
            :: last == 0 -> last = 0; Leave(); workers--
            :: else -> last = 0; lost--; taken[me] = 0
#else
            :: post == me + 1 -> Leave(); workers--
            :: else ->
                taken[me] = 0;
#ifndef M_LOST_DIES_UNCOUNTED
                lost--
#endif
#endif
            fi
        };
#else
        atomic { LOCK; Leave(); workers-- };
#endif
#endif
#ifndef M_DEATH_UNTOLD
        stranded = 1;
#endif
        held = 0;
        goto ended;

leave:
#ifdef M_LEAVES_IN_TWO_HOLDS
        M = 0;
        atomic { !M -> M = 1 }
#endif
#if defined(PATIENCE) && !defined(M_LEAVES_SPARE)
        atomic { workers--; root = 0; now = 0; last = detached && spare == 0; Leave(); M = 0 }
left:
#else
        atomic { workers--; root = 0; now = 0; last = detached; Leave(); M = 0 }
left:
#endif
#ifdef LIFE
        if
#ifdef M_NEVER_FREED
        :: true
#else
        :: last -> assert(!freed); freed = 1
        :: !last
#endif
        fi;
#endif
        TAKE_GIL                                        /* disappear */
#ifdef M_HEAP_KEPT
        held = 0;
        Unref();
#endif
        GIVE_GIL
ended:
        atomic { looked = 0; last = 0; alive[me] = 0 }
    od
}

#ifdef EXECUTOR
proctype Pool()
{
end_idle:
    do
    :: atomic { job == WAITS -> job = RUNS; assert(calls == 0 && !called_off && !shut); calls = 1 };
        atomic { calls = 0; calling = 0; job = NONE }
    od
}
#endif

/* ---- the world -------------------------------------------------------------------------------------------------- */

proctype Clock()
{
end_clock:
    do
    :: clock < CMAX -> clock++
    :: atomic { cond == WAITING && spurious > 0 -> spurious--; cond = WOKEN }
    od
}

proctype Watch()
{
end_watch:
    if
    :: atomic { cond == WAITING && pending == 0 && any(unseen) -> lost_wake_up = 1; assert(!lost_wake_up) }
    :: atomic { any(out_of_sight) -> late_key = 1; assert(!late_key) }
    fi
}

proctype End()
{
    byte i, root, mate, mates, count, new, t;
    bit wake, first, ok, idle, opened;
#ifdef LIFE
    bit found;
#endif
    timeout;
#ifdef PATIENCE
    atomic {                                            /* behind a callback that blocks nobody waits for ever */
        assert(!any(overdue) || closed || (stranded && !running) || (spare_refused && spare == 0));
        released = 1
    }
    timeout;
#endif
#ifdef PERIODIC
    assert(period == 0 || state[0] != IDLE || called_off || closed);    /* it goes on until it is stopped */
#endif
    atomic {
        assert(done == CALLERS + FORKS + CLOSES);
        assert(clock == CMAX && !M && pending == 0);
#ifdef NO_EXCUSE
        assert(!any(overdue));
#else
        assert(!any(overdue) || (stranded && !running));
#endif
        i = 0;
        do
        :: i < NT -> count = count + (state[i] != IDLE); i++
        :: else -> break
        od;
        i = 0;
        assert(ledger == live && live == count);
        count = 0;
#ifndef LIFE
        assert(!closed || !hooks)
#endif
    }
#if FAILS || DEATHS
    if
    :: any(overdue) ->
        fails = 0;
        TAKE_GIL
        Rescue();
        GIVE_GIL
        timeout;
        assert(!any(overdue))
    :: else
    fi;
#endif
#ifdef LIFE
    /* What is never due holds its heap for ever. */
    assert(refs == (live > 0) && freed == (live == 0) && running == workers);
#if !FAILS
    assert(running == (live > 0));
#endif
#if CLOSES
    assert(!hooks)
#endif
#else
    TAKE_GIL
    Close();
    GIVE_GIL
    assert(ledger == live && !running && !ready && !post && workers == 0);
    assert(live == 0 && !any(in_run));
    assert(!hooks);
#ifdef PATIENCE
    assert(!spare && !lost);
#endif
#endif
#ifdef PERIODIC
    assert(calls == 0 && handle == (state[0] != IDLE));
#endif
}

init
{
    atomic {
        run Thread(0);
#if THREADS > 1
        run Thread(1);
#endif
#if THREADS > 2
        run Thread(2);
#endif
#if THREADS > 3
        run Thread(3);
#endif
#if THREADS > 4
        run Thread(4);
#endif
#ifdef EXECUTOR
        run Pool();
#endif
        run Clock();
        run Watch();
        run Caller(0);
#if CALLERS > 1
        run Caller(1);
#endif
#if FORKS
        run Forker();
#endif
#if CLOSES
        run Closer();
#endif
#ifdef RESCUES
        run Rescuer();
#endif
#ifndef LIVENESS
        run End()
#endif
    }
}

#ifdef LIVENESS
ltl fires { [] (overdue(0) -> <> !overdue(0)) }
#endif
