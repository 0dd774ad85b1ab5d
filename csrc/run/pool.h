/* The threads: a small pool that sleeps when idle, starts at the first step that is large enough, and is made
 * anew in a forked child. One caller uses it at a time; another that finds it taken works alone. */
#ifndef FASTOPT_POOL_H
#define FASTOPT_POOL_H

typedef void pool_job(void *context, int worker);

/* Takes the pool for up to `threads` threads, the caller's included, and returns how many there are: fewer
 * where threads could not be created, 1 where the pool is taken or this build has none. */
int pool_claim(int threads);

/* Runs job(context, 0) on the calling thread and job(context, w), w < workers, on those workers who come before it
 * returns; then waits for those who came. A job therefore returns only when no work is left to begin: on a busy
 * machine, nobody waits for a thread that has not been given a core. */
void pool_run(int workers, pool_job *job, void *context);

/* Gives the pool back, after a pool_claim that returned more than 1. */
void pool_yield(void);

/* Worker threads that exist now, and whether this build can have any. */
int pool_size(void);
int pool_available(void);

#endif
