#define _POSIX_C_SOURCE 200809L

#include "pool.h"

#if defined(_WIN32) || defined(FO_NO_THREADS)

int pool_claim(int threads) { (void)threads; return 1; }
void pool_run(int workers, pool_job *job, void *context) { (void)workers; job(context, 0); }
void pool_yield(void) {}
int pool_size(void) { return 0; }
int pool_available(void) { return 0; }

#else

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__x86_64__)
#include <immintrin.h>
#define PAUSE() _mm_pause()
#elif defined(__aarch64__)
#define PAUSE() __asm__ __volatile__("yield")
#else
#define PAUSE() ((void)0)
#endif

/* Long enough to bridge two phases of a step and steps back to back, too short to be seen as load. */
enum { SPINS = 4000, MAX_WORKERS = 255 };

static struct {
    pthread_mutex_t mutex;
    pthread_cond_t wake, done;
    atomic_int claimed;
    /* The number of the job in the high bits and its workers in the low 8, so that a thread reads both at once. */
    atomic_uint_fast64_t ticket;
    atomic_int pending;   /* workers that have not finished the job */
    atomic_int sleeping;  /* workers in wake, or about to be */
    atomic_int waiting;   /* the caller is in done, or about to be */
    atomic_int started;
    int refused;          /* the system refused a thread: do not ask again */
    pool_job *job;
    void *context;
} pool = {.mutex = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER, .done = PTHREAD_COND_INITIALIZER};

static void *work(void *argument)
{
    const int worker = (int)(intptr_t)argument;
    uint_fast64_t seen = 0, ticket;
    for (;;) {
        for (int i = 0; (ticket = atomic_load(&pool.ticket)) == seen && i < SPINS; i++)
            PAUSE();
        if (ticket == seen) {
            pthread_mutex_lock(&pool.mutex);
            atomic_fetch_add(&pool.sleeping, 1);
            while ((ticket = atomic_load(&pool.ticket)) == seen)
                pthread_cond_wait(&pool.wake, &pool.mutex);
            atomic_fetch_sub(&pool.sleeping, 1);
            pthread_mutex_unlock(&pool.mutex);
        }
        seen = ticket;
        if (worker >= (int)(ticket & MAX_WORKERS))
            continue;
        pool.job(pool.context, worker);
        if (atomic_fetch_sub(&pool.pending, 1) == 1 && atomic_load(&pool.waiting)) {
            pthread_mutex_lock(&pool.mutex);
            pthread_cond_signal(&pool.done);
            pthread_mutex_unlock(&pool.mutex);
        }
    }
    return NULL;
}

/* In a forked child the threads are gone, whatever they held. */
static void forget(void)
{
    pthread_mutex_init(&pool.mutex, NULL);
    pthread_cond_init(&pool.wake, NULL);
    pthread_cond_init(&pool.done, NULL);
    atomic_store(&pool.claimed, 0);
    atomic_store(&pool.ticket, 0);
    atomic_store(&pool.pending, 0);
    atomic_store(&pool.sleeping, 0);
    atomic_store(&pool.waiting, 0);
    atomic_store(&pool.started, 0);
    pool.refused = 0;
}

/* A worker takes no signal: they are for the threads of the program. */
static int start_worker(int worker)
{
    pthread_t thread;
    pthread_attr_t attributes;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, 1 << 20);
    const int error = pthread_create(&thread, &attributes, work, (void *)(intptr_t)worker);
    pthread_attr_destroy(&attributes);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return !error;
}

static void register_fork(void) { pthread_atfork(NULL, NULL, forget); }

int pool_claim(int threads)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    if (threads <= 1 || atomic_exchange(&pool.claimed, 1))
        return 1;
    pthread_once(&once, register_fork);
    if (threads > MAX_WORKERS)
        threads = MAX_WORKERS;
    while (atomic_load(&pool.started) < threads - 1 && !pool.refused) {
        if (start_worker(atomic_load(&pool.started) + 1))
            atomic_fetch_add(&pool.started, 1);
        else
            pool.refused = 1;
    }
    const int there = atomic_load(&pool.started) + 1;
    if (there == 1)
        pool_yield();
    return there < threads ? there : threads;
}

void pool_yield(void) { atomic_store(&pool.claimed, 0); }

void pool_run(int workers, pool_job *job, void *context)
{
    pool.job = job;
    pool.context = context;
    atomic_store(&pool.pending, workers - 1);
    const uint_fast64_t ticket = atomic_load(&pool.ticket);
    atomic_store(&pool.ticket, (((ticket >> 8) + 1) << 8) | (uint_fast64_t)workers);
    if (atomic_load(&pool.sleeping)) {
        pthread_mutex_lock(&pool.mutex);
        pthread_cond_broadcast(&pool.wake);
        pthread_mutex_unlock(&pool.mutex);
    }
    job(context, 0);
    for (int i = 0; atomic_load(&pool.pending) && i < SPINS; i++)
        PAUSE();
    if (!atomic_load(&pool.pending))
        return;
    pthread_mutex_lock(&pool.mutex);
    atomic_store(&pool.waiting, 1);
    while (atomic_load(&pool.pending))
        pthread_cond_wait(&pool.done, &pool.mutex);
    atomic_store(&pool.waiting, 0);
    pthread_mutex_unlock(&pool.mutex);
}

int pool_size(void) { return atomic_load(&pool.started); }
int pool_available(void) { return 1; }

#endif
