/* The twin: what platform.h promises, in the terms of POSIX. Included by it alone. */
#ifndef TIMERHEAP_PLATFORM_POSIX_H
#define TIMERHEAP_PLATFORM_POSIX_H

#define TH_EPOLL 0 /* selectors wait by Python's own */

struct epoll_event {
    uint32_t events;
    struct {
        int fd;
    } data;
};

enum { EPOLLIN = 1, EPOLLOUT = 4 };

static inline int th_epoll_wait(int fd, struct epoll_event *events, int most, int64_t ns)
{
    (void)fd, (void)events, (void)most, (void)ns;
    errno = ENOSYS;
    return -1;
}

/* No signal ends a wait for a word. */
#define TH_SIGNALS_EVERY (TH_NS_PER_S / 20)

#define TH_MAP_LAZY 0

/* Who waits for a word. Lives in that thread's call. */
typedef struct th_sleeper {
    struct th_sleeper **link, *next; /* in the list of its spot; link is what points here. Guard P */
    const uint32_t *word;
    pthread_cond_t cond;
} th_sleeper;

typedef struct th_spot {
    pthread_mutex_t mutex; /* P */
    th_sleeper *first;     /* guard P */
} __attribute__((aligned(64))) th_spot;

#define TH_SPOTS 64
static th_spot th_spots[TH_SPOTS] = {[0 ... TH_SPOTS - 1] = {.mutex = PTHREAD_MUTEX_INITIALIZER}};

static inline th_spot *th_spot_of(const uint32_t *word)
{
    return &th_spots[(uint64_t)(uintptr_t)word * UINT64_C(0x9E3779B97F4A7C15) >> 58];
}

_Static_assert(TH_SPOTS == 1 << (64 - 58), "six bits choose a spot");

/* Returns 0. That it may return for no reason spares a sleeper the note that it was woken. */
static inline int th_await_word(const uint32_t *word, uint32_t value, int64_t deadline)
{
    th_spot *spot = th_spot_of(word);
    th_sleeper me = {.word = word};
    int was;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &was); /* it would end in its wait, on the list and holding P */
    th_init_cond(&me.cond);
    pthread_mutex_lock(&spot->mutex);
    if (__atomic_load_n(word, __ATOMIC_ACQUIRE) == value) {
        me.link = &spot->first;
        me.next = spot->first;
        if (me.next != NULL)
            me.next->link = &me.next;
        spot->first = &me;
        th_wait_cond(&me.cond, &spot->mutex, deadline);
        *me.link = me.next;
        if (me.next != NULL)
            me.next->link = me.link;
    }
    pthread_mutex_unlock(&spot->mutex);
    pthread_cond_destroy(&me.cond);
    pthread_setcancelstate(was, &was);
    return 0;
}

static inline void th_wake_sleepers(const uint32_t *word, int32_t most)
{
    th_spot *spot = th_spot_of(word);
    (void)most; /* the others look, and wait again */
    pthread_mutex_lock(&spot->mutex);
    for (th_sleeper *s = spot->first; s != NULL; s = s->next)
        if (s->word == word)
            pthread_cond_signal(&s->cond); /* under P: its condition variable ends with the sleeper's call */
    pthread_mutex_unlock(&spot->mutex);
}

/* Returns EINTR after a signal, else 0. */
static inline int th_sleep_until(int64_t deadline)
{
    int64_t left;
    while ((left = th_remaining(deadline)) > 0) {
        struct timespec ts = th_timespec(left);
        if (nanosleep(&ts, NULL) == -1 && errno == EINTR)
            return EINTR;
    }
    return 0;
}

static inline unsigned long th_slack(void) { return 0; }

static inline void th_set_slack(unsigned long ns) { (void)ns; }

/* A mapping of old bytes gets another size, and another address, which is returned; MAP_FAILED leaves it as it was.
 * Both sizes are whole pages, and not 0. */
static inline void *th_move_pages(void *base, size_t old, size_t size)
{
    if (size <= old) {
        if (size < old)
            munmap((char *)base + size, old - size);
        return base;
    }
    void *moved = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (moved != MAP_FAILED) {
        memcpy(moved, base, old);
        munmap(base, old);
    }
    return moved;
}

/* 0 when the system does not take them. Else what was in them is lost, and they cost nothing until they are touched;
 * on macOS, nothing once the system wants them. */
static inline int th_drop_pages(void *base, size_t size)
{
#ifdef __APPLE__
    return madvise(base, size, MADV_FREE) == 0;
#else
    return madvise(base, size, MADV_DONTNEED) == 0;
#endif
}

static inline int th_wipe_on_fork(void *base, size_t size)
{
    (void)base;
    (void)size;
    return 0;
}

static inline void th_huge_pages(void *base, size_t size)
{
    (void)base;
    (void)size;
}

static inline void th_populate(void *base, size_t size)
{
    (void)base;
    (void)size;
}

/* POSIX does not tell of a thread that nobody joins. One that was seen to have left its post has little more to do. */
static inline void th_await_gone(unsigned long id, int64_t seen)
{
    (void)id;
    th_sleep_until(seen + 5 * TH_NS_PER_S / 1000);
}

static inline void th_platform_after_fork(void)
{
    for (size_t i = 0; i < TH_SPOTS; i++) {
        pthread_mutex_init(&th_spots[i].mutex, NULL);
        th_spots[i].first = NULL;
    }
}

#endif
