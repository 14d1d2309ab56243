/* The wake protocol of one TimerHeap, for Spin. README.md says how to run it, run.py with which parameters.
 *
 * What is modelled, and where it stands in the code
 *
 *   here              there
 *   Rearm             ready, lock_to_arm, arm, rearm                     _timers.pxi
 *   Postpone, Push    postpone, push                                     _heap.pxi
 *   Stop, Cancel      Timer.stop; cancel                                 _timers.pxi, _heap.pxi
 *   Close             TimerHeap.close, let_all_go, cancel_last,          _timers.pxi, _worker.pxi, _heap.pxi
 *                     join_worker
 *   Bury, ClearAway   bury, clear_away, sweep                            _heap.pxi
 *   Thread            timerproc, arrive, next_run, collect, enter_run,   _worker.pxi, _heap.pxi, core.h
 *                     th_park, fire_run, launch
 *   Signal            th_signal: pthread_cond_signal                     core.h
 *   StartWorker       start_worker, try_start, start_thread, set_worker  _worker.pxi
 *   Forker            before_fork, th_before_fork, resume_workers        _worker.pxi, fork.h
 *   Clock             CLOCK_MONOTONIC goes on; the kernel wakes a thread for no reason
 *
 * Time is 1 to CMAX. AWAKE stands for INT64_MIN and NEVER for TH_NEVER. A deadline after CMAX is CMAX, so when the
 * clock has arrived there every finite deadline has, and each execution ends with nothing left to wait for.
 *
 * M. A caller's locked section is one atomic step that needs M free. It may be, because whatever it touches is guarded
 * by M; the exceptions are read without M, one variable at a time, in steps of their own: running in ready, the clock
 * before M is taken. The signal comes after the unlock, in a step of its own, and
 * pending counts those on their way. The worker's hold of M is one step as well where it is one hold, and ends
 * wherever the code lets M go: in pause_slice, around the sort, in the wait.
 *
 * The condition variable is one variable, since only the worker waits: NOBODY, WAITING, or WOKEN and on its way to M.
 * A signal for nobody is lost. A wait ends by a signal, by the clock, or for no reason, the latter SPURIOUS times at
 * most: a wake-up without reason must not be what saves the day.
 *
 * The GIL. Without -DGIL this is the free-threaded build: nothing but M orders anything, and a launch takes M. With it
 * callers hold the GIL from the beginning of a call to its end, except while they start or join a thread; a launch and
 * the compare-and-swap of a stop hold the GIL and not M; the worker gives the GIL up between two callbacks. A stop may
 * come between any two steps of collect, of which one matters: between the look at the state and enter_run's swap.
 *
 * What is left out, and why that loses nothing here
 *
 *   the order of the heap   The root is a key with the least deadline; tests/native and test_heap_model.py are about
 *                           how it gets there. Which of the run's entries is launched next is any.
 *   the scan of collect     It moves due timers as popping does, and only when some have been popped: then the worker
 *                           does not park. For the same reason pause_slice may happen after every single step.
 *   when dead keys leave    Those of stopped timers that are not at the root: any stop may bury its own, all, or none.
 *   memory                  Handles, orphans and carcasses change who owns a record, never its state or its key. What
 *                           is refused for want of memory is not modelled.
 *   channel timers          They have no key.
 *   exiting                 It makes the worker leave as pausing does, for good.
 *   the child of a fork     It begins with no worker, all locks free, no timers: the initial state.
 *   _started                Thread.start waits for the new thread to run. Here the starter may go on before it does.
 *   many threads            A start waits while as many are there as the model has: the worker, one that is leaving,
 *                           and one for each start that may fail.
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
 *                   close would cancel what has been forgotten. The exception: a timer armed while another caller's
 *                   starts of the thread were failing, every one of its TRIES, waits for the next arming, which starts
 *                   one (-DNO_EXCUSE).
 *   one worker      arrive: at most one thread past it.
 *   the ledger      live is the number of ARMED and DUE timers; arms == fired + cancelled after close. The model
 *                   carries the difference, ledger, to have fewer states.
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
#define FAILS 0         /* failing starts of a thread */
#endif
#ifndef TRIES
#define TRIES 2         /* of a start, for the timers of others */
#endif
#ifndef YIELDS
#define YIELDS 0        /* times that collect lets M go halfway */
#endif
#define THREADS (2 + FAILS)

#define AWAKE 0
#define NEVER 15

#define IDLE 0
#define ARMED 1
#define DUE 2

#define NOBODY 0
#define WAITING 1
#define WOKEN 2

/* th_core */
bit M;
byte cond;
byte wake_at = AWAKE;
bit closed, running, arrived, pausing, firing, sorting;
byte live;

/* th_timer and its key */
byte state[NT], deadline[NT], key[NT];
bit keyed[NT], pinned[NT];

/* threads: not yet started ones have neither bit; worker_thread is heap.thread, 0 is None */
bit started[THREADS], alive[THREADS];
byte worker_thread;

/* the world */
byte clock = 1;
byte until;             /* what the worker's wait was given */
byte spurious = SPURIOUS;
byte fails = FAILS;
byte rearms = REARMS;
byte yields = YIELDS;

/* what the properties need */
short ledger;           /* arms - fired - cancelled */
byte pending;           /* signals between the unlock and the call */
byte workers;
byte done;              /* callers, forker and closer that have ended */
bit said[NT];           /* stop said True and nothing armed the timer since */
bit gave_up;            /* every try to start the worker has failed, and timers are left behind */
bit lost_wake_up, late_key;

#ifdef GIL
bit gil;

#define TAKE_GIL atomic { !gil -> gil = 1 };
#define GIVE_GIL gil = 0;
#define LAUNCH_LOCK true
#define STOP_LOCK true
#define DESERTED false
#else
#define TAKE_GIL
#define GIVE_GIL
#define LAUNCH_LOCK !M
#define STOP_LOCK !M
#ifdef M_DESERTION_UNSEEN
#define DESERTED false
#else
#define DESERTED (!running && !pausing)
#endif
#endif

#define later(a, d) (d == NEVER -> NEVER : (a + d > CMAX -> CMAX : a + d))
#define overdue(t) (state[t] != IDLE && deadline[t] <= clock)
#if FAILS == 2
#define a_thread_left (!alive[0] || !alive[1] || !alive[2] || !alive[3])
#elif FAILS == 1
#define a_thread_left (!alive[0] || !alive[1] || !alive[2])
#else
#define a_thread_left (!alive[0] || !alive[1])
#endif
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
    if
    :: cond == WAITING -> cond = WOKEN
    :: else
    fi
}

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

inline Push(t, when)
{
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
    :: state[t] == IDLE -> state[t] = ARMED; live++; ledger++
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

/* ---- calls: with the GIL ---------------------------------------------------------------------------------------- */

inline NewThread()
{
    atomic {
        i = 0;
        do
        :: i < THREADS && alive[i] -> i++
        :: else -> break
        od;
        assert(i < THREADS);
        started[i] = 1;
        alive[i] = 1
    }
}

inline StartWorker(ok)
{
    tries = TRIES;
    do
    :: atomic {
            !M;
            if
            :: closed -> ok = 0; break
            :: !closed && (running || pausing) -> break
            :: !closed && !running && !pausing -> running = 1
            fi
        }
        GIVE_GIL
        if
        :: atomic { a_thread_left -> NewThread() };
            TAKE_GIL
            atomic {
                if
                :: !arrived -> worker_thread = i + 1
                :: else
                fi;
                i = 0;
                break
            }
        :: fails > 0 ->
            atomic {
                fails--;
                tries--;
                if
                :: true
                :: NewThread(); i = 0           /* it is there all the same */
                fi
            }
            TAKE_GIL
            atomic {
                !M;
                if
                :: !arrived -> running = 0; ok = 0;
                    if
#ifdef M_NO_RETRY
                    :: true -> break
#else
                    :: live == 0 -> break
                    :: live > 0 && tries == 0 -> gave_up = 1; break
                    :: live > 0 && tries > 0
#endif
                    fi
                :: arrived -> ok = 0; break
                :: arrived -> break             /* MemoryError */
                fi
            }
        fi
    od;
    tries = 0
}

inline Rearm(t, delay)
{
    ok = 1;
    do
    :: if
        :: running
        :: !running -> StartWorker(ok)
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
            !M;
            if
            :: closed -> when = 0; break
            :: !closed && DESERTED -> when = 0
            :: !closed && !DESERTED ->
                if
                :: keyed[t] -> Postpone(t, when, wake)
                :: else -> Cancel(t, wake); Push(t, when); wake = 1
                fi;
                said[t] = 0;
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
    fi
}

inline Stop(t)
{
    atomic {
        STOP_LOCK;
        Cancel(t, wake);
        said[t] = said[t] || wake;
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
    :: wake -> atomic { !M; ClearAway(t); wake = 0 }    /* sweep */
    :: true -> wake = 0
    fi
#endif
}

inline Join()           /* for ever, and not in a callback */
{
#ifndef M_JOIN_QUIET
    Signal();
#endif
    mate = worker_thread;
    GIVE_GIL
    if
    :: mate == 0
    :: mate > 0 -> !alive[mate - 1]
    fi;
    TAKE_GIL
    mate = 0
}

inline Close()
{
    atomic { !M -> closed = 1 }
    do
    :: atomic {
        !M;
        BuryAll();
        FindRoot();
        if
        :: root == NT -> root = 0; break
        :: else -> Cancel(root, wake); Bury(root); root = 0; wake = 0
        fi
       }
    od;
    Join()
}

proctype Caller(byte me)
{
    byte n = OPS, t, d, i, when, root, seen, mate, tries;
    bit ok, wake;
    do
    :: n > 0 ->
        atomic {
            n--;
#if NT == 4
            if :: t = 2 * me :: t = 2 * me + 1 fi;
#else
            if :: t = 0 :: t = 1 fi;
#endif
            if :: d = 0 :: d = 1 :: d = 2 :: d = NEVER fi
        }
        TAKE_GIL
        if
        :: Rearm(t, d)
        :: d == 0 -> Stop(t)
        fi;
        GIVE_GIL
        atomic { t = 0; d = 0; ok = 0 }
    :: else -> break
    od;
    done++
}

proctype Forker()
{
    byte i, mate, tries;
    bit ok, leaves;
    TAKE_GIL
    atomic {
        !M;
        leaves = running && !firing;
        if
        :: leaves -> pausing = 1
        :: else
        fi
    }
    if
    :: leaves ->
        Signal();
        mate = worker_thread;
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
        TAKE_GIL
        atomic { !M && !sorting };      /* fork itself */
        atomic { !M -> pausing = 0 };
        if
        :: closed
        :: !closed -> StartWorker(ok)
        fi
    :: else
    fi;
    GIVE_GIL
    atomic { leaves = 0; done++ }
}

proctype Closer()
{
    byte i, root, mate;
    bit wake;
    TAKE_GIL
    Close();
    GIVE_GIL
    done++
}

/* ---- the worker ------------------------------------------------------------------------------------------------- */

proctype Thread(byte me)
{
    byte now, i, root, t, d, when, seen, mate, last, tries;
    bit ok, wake, mine, fire, looked;
end_free:
    do
    :: atomic { started[me] -> started[me] = 0 };
        TAKE_GIL
        atomic {                                        /* arrive */
            !M;
#ifdef M_ARRIVED_UNCHECKED
            mine = running;
#else
            mine = running && !arrived;
#endif
            if
            :: mine -> arrived = 1; workers++; assert(workers == 1)
            :: else
            fi
        }
        if
        :: !mine -> GIVE_GIL goto gone
        :: mine -> mine = 0
        fi;
        worker_thread = me + 1;
        GIVE_GIL

next_run:
        atomic {
            !M -> M = 1;
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
        atomic {
            cond == WOKEN || (cond == WAITING && clock >= until);
            cond = NOBODY;
            until = 0
        }
        atomic {
            !M -> M = 1;
#if !defined(M_WAKE_AT_STALE) && !defined(M_NO_RESET)
            wake_at = AWAKE;
#endif
            goto look
        }

slice:                                                  /* between the two halves of pause_slice */
        atomic { !M -> M = 1; goto collect }

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
        atomic { !M -> sorting = 0 };
#ifdef M_GIL_UNDER_M
        atomic { !M -> M = 1 };
        TAKE_GIL
        M = 0;
        GIVE_GIL
#endif
        TAKE_GIL
        firing = 1;
        do
        :: any(in_run) ->
            atomic {                                    /* launch */
                LAUNCH_LOCK;
                if
                :: pinned[0] -> t = 0
                :: pinned[1] -> t = 1
#if NT == 4
                :: pinned[2] -> t = 2
                :: pinned[3] -> t = 3
#endif
                fi;
                pinned[t] = 0;
#ifdef M_LAUNCH_BLIND
                if
                :: state[t] == IDLE -> state[t] = DUE; live++; ledger++
                :: else
                fi;
#endif
                fire = state[t] == DUE && !closed;
                assert(!fire || !said[t]);
                assert(!fire || deadline[t] <= clock);
                if
                :: state[t] == DUE -> state[t] = IDLE; deadline[t] = 0; live--; ledger--
                :: else
                fi;
                if
                :: fire && rearms > 0 -> rearms--; fire = 0; if :: d = 0 :: d = 1 :: d = 2 fi; goto callback
                :: fire = 0; t = 0
                fi
            }
launched:
            GIVE_GIL
            TAKE_GIL
            skip
        :: else -> break
        od;
        firing = 0;
        GIVE_GIL
        goto next_run;

callback:
        Rearm(t, d);
        atomic { d = 0; t = 0; ok = 0; goto launched }

leave:
#ifdef M_LEAVES_IN_TWO_HOLDS
        M = 0;
        atomic { !M -> M = 1 }
#endif
        atomic { workers--; root = 0; now = 0; running = 0; arrived = 0; M = 0 }
gone:
        atomic { looked = 0; last = 0; mine = 0; alive[me] = 0 }
    od
}

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
    byte i, root, mate, count;
    bit wake;
    timeout;
    atomic {
        assert(done == CALLERS + FORKS + CLOSES);
        assert(clock == CMAX && !M && pending == 0);
#ifdef NO_EXCUSE
        assert(!any(overdue));
#else
        assert(!any(overdue) || (gave_up && !running));
#endif
        i = 0;
        do
        :: i < NT -> count = count + (state[i] != IDLE); i++
        :: else -> break
        od;
        i = 0;
        assert(ledger == live && live == count);
        count = 0
    }
    TAKE_GIL
    Close();
    GIVE_GIL
    assert(live == 0 && ledger == 0 && !running && !arrived && workers == 0)
}

init
{
    atomic {
        run Thread(0);
        run Thread(1);
#if FAILS
        run Thread(2);
#endif
#if FAILS == 2
        run Thread(3);
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
#ifndef LIVENESS
        run End()
#endif
    }
}

#ifdef LIVENESS
ltl fires { [] (overdue(0) -> <> !overdue(0)) }
#endif
