/* Asking for the GIL: who needs it at once gets it from a thread that computes, and waits for no switch interval.
 *
 * A thread that computes holds the GIL until somebody asks for it. CPython's take_gil() waits for the switch interval,
 * 5 ms, then sets the holder's request to drop the GIL, and waits on. The holder looks between bytecodes: within
 * microseconds it drops the GIL. th_ask_for_gil sets the same request at once, waits where take_gil() waits, on
 * gil->cond, and returns when the GIL is free: then its caller takes it.
 *
 * The request is set under gil->mutex, and only while the GIL is locked.
 *
 *   3.11, 3.12    interp->ceval.gil_drop_request and .eval_breaker, of the whole interpreter, by relaxed stores, as
 *                 CPython sets them. A holder that works out its eval_breaker at the same moment may miss it: so it is
 *                 made again.
 *   3.13 on       a bit in the eval_breaker of the holder's thread state. The holder has to take gil->mutex to drop the
 *                 GIL, which it does before its thread state is freed. CPython itself reaches the holder so from a
 *                 thread that has no GIL (signal_active_thread).
 *
 * Several threads may wait, and what the holder drops goes to the one that has waited for longest: a second thread that
 * computes would have it, for a switch interval. So all who wait are woken with the request. They find the GIL locked
 * and wait anew, behind who has asked. None of them is left waiting by that: each switch lets the first of them in.
 *
 * A thread that drops the GIL with a request set, for whatever reason, then waits until another has taken it, and for
 * ever if nobody comes (FORCE_SWITCHING). Three rules follow.
 *
 *   1. Who has asked takes the GIL, with nothing in between. It cannot end on the way: workers cannot be cancelled.
 *   2. When CPython finalizes, take_gil() ends or parks every thread but the main one, and a request of theirs would
 *      stay. So nobody asks once the exit handler has begun: it gives up the GIL, calls th_ask_no_more, which takes G,
 *      and takes the GIL again. Requests are made under G, so each comes before that. It is cleared by the thread that
 *      drops the GIL for it, or by take_gil() of the next to have the GIL, and that the main thread calls here before
 *      it goes on to finalize. For a program that has thrown its exit handlers away (atexit._clear), nobody asks once
 *      Python is seen to finalize; who has asked a moment before that may leave it hanging.
 *   3. In the child of a fork the request is cleared by take_gil(), which CPython calls there before any Python runs,
 *      on a GIL that it makes anew. G is made anew here.
 *
 * What it costs the others. Each request is a switch of threads and back. So there are as many as a budget allows, of
 * the whole process: one each TH_ASK_EVERY on the average, TH_ASK_BURST at a time. Who has none left waits on gil->cond
 * all the same, until somebody drops the GIL or there may be one. Where the GIL is free nobody asks, and nothing of
 * this is done but to look.
 *
 * Beside a C function that computes and holds the GIL nothing helps: no bytecode, no look.
 *
 * What of this is CPython's inside is looked at before it is relied on, by th_examine_gil, at import; where anything is
 * not as expected, or the headers are not there, nobody asks. This is a translation unit of its own because the
 * headers of the inside are not to be mixed with others.
 *
 * Lock order. G is taken without the GIL; under it comes gil->mutex alone, which nobody holds for long.
 */
#if defined(__has_include)
#if __has_include("internal/pycore_interp.h")
#define Py_BUILD_CORE_MODULE 1
#endif
#endif

#include <Python.h>

#include "gil.h"

/* Up to the last version that was looked at; with gil->cond on the clock that th_wait_cond waits by. */
#if defined(Py_BUILD_CORE_MODULE) && !defined(Py_GIL_DISABLED) && PY_VERSION_HEX < 0x03100000 \
    && (defined(HAVE_PTHREAD_CONDATTR_SETCLOCK) || defined(__APPLE__))

#if PY_VERSION_HEX < 0x030D0000
#include "internal/pycore_runtime.h"
#else
#include "internal/pycore_ceval.h"
#endif
#include "internal/pycore_gil.h"
#include "internal/pycore_interp.h"

#include <pthread.h>

#include "platform.h"
#include "tuning.h"

static struct _gil_runtime_state *th_gil; /* NULL: nobody asks; set once, by th_examine_gil */

static pthread_mutex_t th_asking = PTHREAD_MUTEX_INITIALIZER; /* G */
static int th_asked_last;      /* the program ends; guard G */
static int64_t th_asked_until; /* up to here requests have used the time that is theirs; guard G */

#if PY_VERSION_HEX < 0x030D0000

#define th_is_finalizing() _Py_IsFinalizing()
#define th_locked(gil) _Py_atomic_load_relaxed(&(gil)->locked)
#define th_last_holder(gil) ((PyThreadState *)_Py_atomic_load_relaxed(&(gil)->last_holder))

static void th_set_request(void)
{
    struct _ceval_state *ceval = &PyInterpreterState_Main()->ceval;
    _Py_atomic_store_relaxed(&ceval->gil_drop_request, 1);
    _Py_atomic_store_relaxed(&ceval->eval_breaker, 1);
}

/* Whether the places of the request hold what they can hold. */
static int th_examine_request(PyThreadState *holder)
{
    struct _ceval_state *ceval = &holder->interp->ceval;
    return (_Py_atomic_load_relaxed(&ceval->gil_drop_request) | 1) == 1
        && (_Py_atomic_load_relaxed(&ceval->eval_breaker) | 1) == 1;
}

#else

#define th_is_finalizing() Py_IsFinalizing()
#define th_locked(gil) _Py_atomic_load_int_relaxed(&(gil)->locked)
#define th_last_holder(gil) ((PyThreadState *)_Py_atomic_load_ptr_relaxed(&(gil)->last_holder))

static void th_set_request(void)
{
    _Py_set_eval_breaker_bit(th_last_holder(th_gil), _PY_GIL_DROP_REQUEST_BIT);
}

/* Above the bits of requests an eval_breaker has the version of the instrumentation, the same in all threads. */
static int th_examine_request(PyThreadState *holder)
{
    uintptr_t bits = _PY_EVAL_EVENTS_MASK;
    uintptr_t breaker = _Py_atomic_load_uintptr_relaxed(&holder->eval_breaker);
    return (breaker & ~bits) == holder->interp->ceval.instrumentation_version;
}

#endif

/* The GIL, if it is where it is expected: a pointer is followed only within the memory that it points from. */
static struct _gil_runtime_state *th_find_gil(PyInterpreterState *interp)
{
#if PY_VERSION_HEX < 0x030C0000
    uintptr_t runtime = (uintptr_t)interp->runtime, inside = (uintptr_t)interp;
    if (inside < runtime || inside - runtime >= sizeof(_PyRuntimeState) || interp->runtime->interpreters.main != interp)
        return NULL;
    return &interp->runtime->ceval.gil;
#else
    uintptr_t gil = (uintptr_t)interp->ceval.gil, first = (uintptr_t)interp;
    if (gil < first || gil - first > sizeof(*interp) - sizeof(*interp->ceval.gil))
        return NULL;
    return interp->ceval.gil;
#endif
}

static void th_renew_asking(void) { pthread_mutex_init(&th_asking, NULL); }

/* With the GIL, in the main interpreter, once a process: whether this will ask. interval: what sys.getswitchinterval()
 * says. */
int th_examine_gil(double interval)
{
    PyThreadState *holder = PyThreadState_Get();
    struct _gil_runtime_state *gil;
    if (holder->interp != PyInterpreterState_Main() || holder->interp->ceval.recursion_limit != Py_GetRecursionLimit())
        return 0;
    gil = th_find_gil(holder->interp);
    if (gil == NULL || th_locked(gil) != 1 || th_last_holder(gil) != holder || 1e-6 * (double)gil->interval != interval
        || !th_examine_request(holder) || pthread_atfork(NULL, NULL, th_renew_asking) != 0)
        return 0;
    th_gil = gil;
    return 1;
}

/* Caller holds G and gil->mutex, and the GIL is locked: make a request, or leave it until there may be one. Returns
 * when to try again. */
static int64_t th_request(int64_t now)
{
    int64_t ahead = th_asked_until - now;
    if (ahead > (TH_ASK_BURST - 1) * TH_ASK_EVERY)
        return now + ahead - (TH_ASK_BURST - 1) * TH_ASK_EVERY;
    th_asked_until = now + (ahead > 0 ? ahead : 0) + TH_ASK_EVERY;
    th_set_request();
    pthread_cond_broadcast(&th_gil->cond);
    return now + TH_ASK_EVERY;
}

/* Without the GIL, by a thread that takes it right afterwards. */
void th_ask_for_gil(void)
{
    int busy = th_gil != NULL && th_locked(th_gil);
    int64_t until = 0;
    while (busy) {
        pthread_mutex_lock(&th_asking);
        pthread_mutex_lock(&th_gil->mutex);
        busy = th_locked(th_gil) && !th_asked_last && !th_is_finalizing();
        if (busy)
            until = th_request(th_monotonic());
        pthread_mutex_unlock(&th_asking);
        if (busy) {
            th_wait_cond(&th_gil->cond, &th_gil->mutex, until);
            busy = th_locked(th_gil);
        }
        pthread_mutex_unlock(&th_gil->mutex);
    }
}

/* Without the GIL, which the caller, the exit handler, has given up and takes again. */
void th_ask_no_more(void)
{
    pthread_mutex_lock(&th_asking);
    th_asked_last = 1;
    pthread_mutex_unlock(&th_asking);
}

/* ns after which a thread that waits for the GIL asks for it. */
int64_t th_switch_interval(void)
{
    return th_gil == NULL ? TH_SWITCH_INTERVAL : (int64_t)th_gil->interval * 1000;
}

#else

int64_t th_switch_interval(void) { return TH_SWITCH_INTERVAL; }
int th_examine_gil(double interval) { return interval < 0; }
void th_ask_for_gil(void) {}
void th_ask_no_more(void) {}

#endif
