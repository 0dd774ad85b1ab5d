/* The pool of threads: see pool.h. */
#define _GNU_SOURCE /* for the affinity of threads */

#include "run/pool.h"

#if defined(_WIN32) || defined(FO_NO_THREADS)

int pool_claim(int threads) { (void)threads; return 1; }
void pool_run(int workers, pool_job *job, void *context) { (void)workers; job(context, 0); }
void pool_yield(void) {}
int pool_size(void) { return 0; }
int pool_available(void) { return 0; }

#else

#include <pthread.h>
#include <sched.h>
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

/* The gate of a job: its number, whether it is closed to those who come late, and how many are inside. */
#define GATE(job) ((uint_fast64_t)(job) << 16)
#define JOB_OF(gate) ((gate) >> 16)
#define CLOSED (UINT64_C(1) << 15)
#define INSIDE (CLOSED - 1)

static struct {
    pthread_mutex_t mutex;
    pthread_cond_t done, wake[MAX_WORKERS + 1];
    atomic_int sleeping[MAX_WORKERS + 1];   /* in wake[i], or about to be */
    atomic_int waiting;                     /* the caller is in done, or about to be */
    atomic_int claimed, started;
    /* The number of the job in the high bits and its workers in the low 8, so that a thread reads both at once. */
    atomic_uint_fast64_t ticket, gate;
    int refused;                            /* the system refused a thread: do not ask again */
    int avoided;                            /* the processor that workers keep off, the last caller's */
    pthread_t thread[MAX_WORKERS + 1];
    pool_job *job;
    void *context;
} pool = {.mutex = PTHREAD_MUTEX_INITIALIZER, .done = PTHREAD_COND_INITIALIZER, .avoided = -1};

/* Enters the job of this ticket unless its caller has closed it, having found no work left. */
static int enter(uint_fast64_t ticket)
{
    uint_fast64_t gate = atomic_load(&pool.gate);
    while (JOB_OF(gate) == ticket >> 8 && !(gate & CLOSED))
        if (atomic_compare_exchange_weak(&pool.gate, &gate, gate + 1))
            return 1;
    return 0;
}

static void leave(void)
{
    if ((atomic_fetch_sub(&pool.gate, 1) & INSIDE) == 1 && atomic_load(&pool.waiting)) {
        pthread_mutex_lock(&pool.mutex);
        pthread_cond_signal(&pool.done);
        pthread_mutex_unlock(&pool.mutex);
    }
}

static void *work(void *argument)
{
    const int worker = (int)(intptr_t)argument;
    uint_fast64_t seen = 0, ticket;
    for (;;) {
        for (int i = 0; (ticket = atomic_load(&pool.ticket)) == seen && i < SPINS; i++)
            PAUSE();
        if (ticket == seen) {
            pthread_mutex_lock(&pool.mutex);
            atomic_store(&pool.sleeping[worker], 1);
            while ((ticket = atomic_load(&pool.ticket)) == seen)
                pthread_cond_wait(&pool.wake[worker], &pool.mutex);
            atomic_store(&pool.sleeping[worker], 0);
            pthread_mutex_unlock(&pool.mutex);
        }
        seen = ticket;
        if (worker < (int)(ticket & MAX_WORKERS) && enter(ticket)) {
            pool.job(pool.context, worker);
            leave();
        }
    }
    return NULL;
}

/* In a forked child the threads are gone, whatever they held. */
static void forget(void)
{
    pthread_mutex_init(&pool.mutex, NULL);
    pthread_cond_init(&pool.done, NULL);
    for (int i = 0; i <= MAX_WORKERS; i++) {
        pthread_cond_init(&pool.wake[i], NULL);
        atomic_store(&pool.sleeping[i], 0);
    }
    atomic_store(&pool.ticket, 0);
    atomic_store(&pool.gate, 0);
    atomic_store(&pool.waiting, 0);
    atomic_store(&pool.started, 0);
    atomic_store(&pool.claimed, 0);
    pool.refused = 0;
    pool.avoided = -1;
}

static void prepare(void)
{
    for (int i = 0; i <= MAX_WORKERS; i++)
        pthread_cond_init(&pool.wake[i], NULL);
    pthread_atfork(NULL, NULL, forget);
}

/* A worker takes no signal: they are for the threads of the program. */
static int start_worker(int worker)
{
    pthread_attr_t attributes;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, 1 << 20);
    const int error = pthread_create(&pool.thread[worker], &attributes, work, (void *)(intptr_t)worker);
    pthread_attr_destroy(&attributes);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return !error;
}

int pool_claim(int threads)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    if (threads <= 1 || atomic_exchange(&pool.claimed, 1))
        return 1;
    pthread_once(&once, prepare);
    if (threads > MAX_WORKERS)
        threads = MAX_WORKERS;
    while (atomic_load(&pool.started) < threads - 1 && !pool.refused) {
        if (start_worker(atomic_load(&pool.started) + 1))
            atomic_fetch_add(&pool.started, 1), pool.avoided = -1;
        else
            pool.refused = 1;
    }
    const int there = atomic_load(&pool.started) + 1;
    if (there == 1)
        pool_yield();
    return there < threads ? there : threads;
}

void pool_yield(void) { atomic_store(&pool.claimed, 0); }

/* A thread that sleeps is often woken on the processor of its waker, idle others or not (on virtual machines, whose
 * idle processors look taken), and helps nobody there until the system moves it, milliseconds later. So those who sleep
 * may use all that the caller may but the caller's own. */
static void keep_off(void)
{
#ifdef __linux__
    const int cpu = sched_getcpu();
    cpu_set_t allowed;
    if (cpu < 0 || cpu == pool.avoided || sched_getaffinity(0, sizeof allowed, &allowed))
        return;
    CPU_CLR(cpu, &allowed);
    pool.avoided = cpu;
    if (CPU_COUNT(&allowed))
        for (int i = 1; i <= atomic_load(&pool.started); i++)
            pthread_setaffinity_np(pool.thread[i], sizeof allowed, &allowed);
#endif
}

/* Wakes those of the workers who sleep; one that is about to will see the new ticket before it does. */
static void wake(int workers)
{
    int locked = 0;
    for (int i = 1; i < workers; i++)
        if (atomic_load(&pool.sleeping[i])) {
            if (!locked) {
                keep_off();
                pthread_mutex_lock(&pool.mutex);
            }
            locked = 1;
            pthread_cond_signal(&pool.wake[i]);
        }
    if (locked)
        pthread_mutex_unlock(&pool.mutex);
}

void pool_run(int workers, pool_job *job, void *context)
{
    const uint_fast64_t number = (atomic_load(&pool.ticket) >> 8) + 1;
    pool.job = job;
    pool.context = context;
    atomic_store(&pool.gate, GATE(number));
    atomic_store(&pool.ticket, number << 8 | (uint_fast64_t)workers);
    wake(workers);
    job(context, 0);
    atomic_fetch_or(&pool.gate, CLOSED);
    for (int i = 0; atomic_load(&pool.gate) & INSIDE && i < SPINS; i++)
        PAUSE();
    if (!(atomic_load(&pool.gate) & INSIDE))
        return;
    pthread_mutex_lock(&pool.mutex);
    atomic_store(&pool.waiting, 1);
    while (atomic_load(&pool.gate) & INSIDE)
        pthread_cond_wait(&pool.done, &pool.mutex);
    atomic_store(&pool.waiting, 0);
    pthread_mutex_unlock(&pool.mutex);
}

int pool_size(void) { return atomic_load(&pool.started); }
int pool_available(void) { return 1; }

#endif
