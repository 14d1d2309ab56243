/* What csrc/platform.h promises, in either of its forms, with nothing of timerheap on top.
 *
 *     platform [--rounds N] [--forks N]
 *
 *     words      pairs of threads that hand words on to each other, and a herd that waits for one: nobody is left
 *                asleep. There are so many words that some share a spot of the twin's table
 *     deadlines  a sleep ends no earlier than its deadline; waits for words and condition variables come back by
 *                themselves, and not over and over before it is time
 *     signals    a sleep ends by one
 *     cancelled  a thread that is cancelled in its wait ends once it is woken, and nobody stumbles over it
 *     pages      what is moved keeps its bytes; what was dropped can be written to
 *     forks      a child of a process whose threads sleep and wake has words that work
 *
 * Whoever is left asleep is found by an alarm.
 */
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>

#include "pages.h"
#include "word.h"

#define PAIRS 24
#define HERD 12
#define PATIENCE 300 /* s */

#define DEMAND(condition)                                                       \
    do {                                                                        \
        if (!(condition)) {                                                     \
            fprintf(stderr, "platform.c:%d: %s\n", __LINE__, #condition);       \
            abort();                                                            \
        }                                                                       \
    } while (0)

static long rounds = 2000, forks = 20;
static uint32_t balls[2 * PAIRS]; /* each one a word of its own */
static uint32_t herd, arrived;
static atomic_int stopping, slept, signalled;

static void asleep(int signal)
{
    static const char told[] = "platform: somebody is asleep for ever\n";
    (void)signal;
    if (write(2, told, sizeof(told) - 1) < 0)
        _exit(3);
    _exit(1);
}

static void await_while(uint32_t *word, uint32_t value)
{
    while (th_word(word) == value)
        th_await_word(word, value, TH_NEVER);
}

/* ---- words ---- */

static void *serve(void *number)
{
    uint32_t *ball = &balls[2 * (uintptr_t)number];
    for (long i = 1; i <= rounds; i++) {
        th_set_word(&ball[0], (uint32_t)i);
        await_while(&ball[1], (uint32_t)i - 1);
    }
    return NULL;
}

static void *volley(void *number)
{
    uint32_t *ball = &balls[2 * (uintptr_t)number];
    for (long i = 1; i <= rounds; i++) {
        await_while(&ball[0], (uint32_t)i - 1);
        th_set_word(&ball[1], (uint32_t)i);
    }
    return NULL;
}

static void play(void)
{
    pthread_t threads[2 * PAIRS];
    memset(balls, 0, sizeof(balls));
    for (uintptr_t i = 0; i < PAIRS; i++) {
        DEMAND(pthread_create(&threads[2 * i], NULL, serve, (void *)i) == 0);
        DEMAND(pthread_create(&threads[2 * i + 1], NULL, volley, (void *)i) == 0);
    }
    for (size_t i = 0; i < 2 * PAIRS; i++)
        pthread_join(threads[i], NULL);
    for (size_t i = 0; i < 2 * PAIRS; i++)
        DEMAND(balls[i] == (uint32_t)rounds);
}

static void *follow(void *unused)
{
    (void)unused;
    for (long i = 1; i <= rounds; i++) {
        await_while(&herd, (uint32_t)i - 1);
        if (__atomic_add_fetch(&arrived, 1, __ATOMIC_ACQ_REL) % HERD == 0)
            th_wake_word(&arrived);
    }
    return NULL;
}

static void lead(void)
{
    pthread_t threads[HERD];
    for (size_t i = 0; i < HERD; i++)
        DEMAND(pthread_create(&threads[i], NULL, follow, NULL) == 0);
    for (long i = 1; i <= rounds; i++) {
        th_set_word(&herd, (uint32_t)i);
        for (uint32_t n; (n = th_word(&arrived)) != (uint32_t)i * HERD;)
            th_await_word(&arrived, n, TH_NEVER);
    }
    for (size_t i = 0; i < HERD; i++)
        pthread_join(threads[i], NULL);
}

/* ---- deadlines ---- */

static void keep_time(void)
{
    const long waits = 100;
    pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    pthread_cond_t cond;
    uint32_t word = 0;
    long returns = 0;
    th_init_cond(&cond);
    for (int64_t i = 0; i < waits; i++) {
        int64_t deadline = th_monotonic() + i * 20000;
        DEMAND(th_sleep_until(deadline) == 0);
        DEMAND(th_monotonic() >= deadline);
        for (deadline = th_monotonic() + i * 20000; th_monotonic() < deadline; returns++)
            th_await_word(&word, 0, deadline);
        pthread_mutex_lock(&mutex);
        for (deadline = th_monotonic() + i * 20000; th_monotonic() < deadline; returns++)
            th_wait_cond(&cond, &mutex, deadline);
        pthread_mutex_unlock(&mutex);
    }
    DEMAND(returns < 16 * waits);
    DEMAND(th_sleep_until(INT64_MIN) == 0);
    th_await_word(&word, 0, INT64_MIN);
    th_await_word(&word, 1, TH_NEVER);
    pthread_cond_destroy(&cond);
}

/* ---- signals ---- */

static void note(int signal)
{
    (void)signal;
    atomic_store(&signalled, 1);
}

static void *sleep_for_ever(void *unused)
{
    (void)unused;
    while (th_sleep_until(TH_NEVER) != EINTR)
        ;
    atomic_store(&slept, 1);
    return NULL;
}

static void interrupt(void)
{
    pthread_t thread;
    struct sigaction action = {.sa_handler = note};
    sigaction(SIGUSR1, &action, NULL);
    DEMAND(pthread_create(&thread, NULL, sleep_for_ever, NULL) == 0);
    while (!atomic_load(&slept)) {
        pthread_kill(thread, SIGUSR1);
        th_pause(TH_NS_PER_S / 1000);
    }
    pthread_join(thread, NULL);
    DEMAND(atomic_load(&signalled));
}

/* ---- cancelled ---- */

static void *wait_for_ball(void *ball)
{
    for (;;) {
        atomic_store(&slept, 1);
        th_await_word(ball, 0, TH_NEVER);
        pthread_testcancel();
    }
    return NULL;
}

static void cancel(void)
{
    pthread_t thread;
    void *result;
    balls[0] = 0;
    atomic_store(&slept, 0);
    DEMAND(pthread_create(&thread, NULL, wait_for_ball, &balls[0]) == 0);
    while (!atomic_load(&slept))
        th_pause(TH_NS_PER_S / 1000);
    th_pause(TH_NS_PER_S / 20);
    pthread_cancel(thread);
    th_set_word(&balls[0], 1);
    pthread_join(thread, &result);
    DEMAND(result == PTHREAD_CANCELED);
    th_wake_word(&balls[0]);
    th_await_word(&balls[0], 0, TH_NEVER);
}

/* ---- pages ---- */

static void move(void)
{
    size_t sizes[] = {1, 4, 2, 64, 63, 1, 16}, old = 0;
    unsigned char *base = NULL;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        size_t size = sizes[i] * th_page, kept = old < size ? old : size;
        base = th_remap(base, old, size);
        DEMAND(base != NULL);
        for (size_t at = 0; at < kept; at += 512)
            DEMAND(base[at] == (unsigned char)(at / 512 * 7 + 1));
        for (size_t at = 0; at < size; at += 512)
            base[at] = (unsigned char)(at / 512 * 7 + 1);
        old = size;
    }
    DEMAND(th_unback(base + th_page, 4 * th_page));
    for (size_t at = 0; at < old; at += 512) {
        DEMAND(at / th_page - 1 < 4 || base[at] == (unsigned char)(at / 512 * 7 + 1));
        base[at] = 5;
    }
    th_unmap(base, old);
}

/* ---- forks ---- */

static void *idle(void *number)
{
    uint32_t *ball = &balls[(uintptr_t)number];
    while (!atomic_load(&stopping)) {
        th_await_word(ball, 0, th_monotonic() + TH_NS_PER_S / 1000);
        th_wake_word(&balls[((uintptr_t)number + 1) % (2 * PAIRS)]);
    }
    return NULL;
}

static void breed(void)
{
    pthread_t threads[2 * PAIRS];
    memset(balls, 0, sizeof(balls));
    for (uintptr_t i = 0; i < 2 * PAIRS; i++)
        DEMAND(pthread_create(&threads[i], NULL, idle, (void *)i) == 0);
    for (long i = 0; i < forks; i++) {
        pid_t child = fork();
        DEMAND(child >= 0);
        if (child == 0) {
            alarm(PATIENCE);
            th_platform_after_fork();
            rounds = 20;
            play();
            _exit(0);
        }
        int status;
        DEMAND(waitpid(child, &status, 0) == child && status == 0);
    }
    atomic_store(&stopping, 1);
    for (size_t i = 0; i < 2 * PAIRS; i++)
        pthread_join(threads[i], NULL);
}

int main(int argc, char **argv)
{
    for (int i = 1; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "--rounds"))
            rounds = atol(argv[i + 1]);
        else if (!strcmp(argv[i], "--forks"))
            forks = atol(argv[i + 1]);
        else {
            fprintf(stderr, "platform: what is %s?\n", argv[i]);
            return 2;
        }
    }
    signal(SIGALRM, asleep);
    alarm(PATIENCE);
    int64_t start = th_monotonic();
    play();
    lead();
    keep_time();
    interrupt();
    cancel();
    move();
    breed();
    DEMAND(th_monotonic() > start);
    printf("%s: %ld words handed on, %ld herds of %d, %ld forks: nobody asleep, nothing early\n",
           TH_PORTABLE ? "platform_posix.h" : "platform_linux.h", 2 * PAIRS * rounds, rounds, HERD, forks);
    return 0;
}
