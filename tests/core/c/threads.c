/* The control word on every thread, and the pool under load: many small steps from several threads at once,
 * waking and sleeping workers, and children forked meanwhile. */
#define _POSIX_C_SOURCE 200809L

#include "check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WORKERS = 4 };

/* Without the exception flags, which x86 keeps in the same word and any arithmetic may raise. */
static uint64_t control_of(uint64_t word)
{
#if defined(__x86_64__)
    return word & ~UINT64_C(0x3f);
#else
    return word;
#endif
}

static int controls(uint64_t *words)
{
    const int found = fo_controls(words, WORKERS);
    for (int k = 0; k < found; k++)
        words[k] = control_of(words[k]);
    return found;
}

static void on_every_worker(const uint64_t *expected)
{
    uint64_t words[WORKERS] = {0};
    const int found = controls(words);
    expect(found == (fo_threads_available() ? WORKERS : 1), "%d threads have %d control words", WORKERS, found);
    for (int k = 0; k < found; k++)
        expect(words[k] == expected[k], "thread %d has another control word than before", k);
}

void check_control_word(int flushes)
{
    static const double tiny[FO_DTYPE_COUNT] = {[FO_F32] = 0x1p-140, [FO_F64] = 0x1p-1060};
    const uint64_t before = control_of(fo_control());
    uint64_t on_workers[WORKERS];
    controls(on_workers);
    for (int flush = 0; flush <= flushes; flush++) {
        const volatile double subnormal = tiny[FO_F64], one = 1;
        const uint64_t given = fo_flush(flush);
        expect(control_of(given) == before, "fo_flush gives another control word than there was");
        const int flushing = control_of(fo_control()) != before;
        const volatile double product = subnormal * one;
        fo_restore(given);
        expect(control_of(fo_control()) == before, "fo_restore does not give back the control word");
        expect(flushing == flush, "the control word changes: %d, to be flushing: %d", flushing, flush);
        expect((product == 0) == flush, "a subnormal times one is %a, to be flushed: %d", product, flush);
        on_every_worker(on_workers);
    }
    /* Steps over subnormals, every worker with its part. */
    enum { N = 64 * FO_CHUNK };
    for (int dtype = 0; dtype < FO_DTYPE_COUNT; dtype++)
        for (int flush = 0; flush <= flushes; flush++) {
            const ptrdiff_t size = item_size[dtype], n = N;
            char *p = allocate(n, dtype, 0), *g = allocate(n, dtype, 0);
            const float single = (float)tiny[FO_F32];
            const void *value = dtype == FO_F32 ? (const void *)&single : (const void *)&tiny[FO_F64];
            for (ptrdiff_t i = 0; i < n; i++)
                memcpy(p + i * size, value, (size_t)size);
            fo_pass pass = {.calls = 1, .reads = 1, .fuses = 1, .call = {{.kernel = fo_k_sgd, .buffers = 2, .coefs = 1,
                                                              .slot = {FO_SLOT_P, FO_SLOT_G}, .coef = {1}}}};
            fo_program program = {.passes = 1, .pass = &pass};
            fo_rule rule = {.go = 1};
            fo_group group = {.sign = 1, .max_norm = HUGE_VAL};
            fo_tensor tensor = {.slot = {[FO_SLOT_P] = p}};
            fo_view grad = {.data = g, .shape = &n, .strides = &size, .size = n, .ndim = 1, .dense = 1,
                            .dtype = dtype};
            double parts[N / FO_CHUNK];
            fo_plan plan = {.tensors = &tensor, .grads = &grad, .count = 1, .programs = &program, .parts = parts,
                            .program_count = 1, .rules = &rule, .rule_count = 1, .groups = &group, .group_count = 1,
                            .phases = 1, .unscale = 1,
                            .elements = n, .per_thread = 1, .chunk = FO_CHUNK, .threads = WORKERS, .always_pool = 1,
                            .max_norm = HUGE_VAL, .flush = flush};
            expect(fo_step(&plan) == 1, "a step over subnormals was refused");
            ptrdiff_t kept = 0;
            for (ptrdiff_t i = 0; i < n; i++)
                kept += memcmp(p + i * size, value, (size_t)size) == 0;
            expect(kept == (flush ? 0 : n), "%d of %d subnormals are left, to be flushed: %d", (int)kept, N, flush);
            expect(control_of(fo_control()) == before, "a step does not give back the control word");
            on_every_worker(on_workers);
            release_all();
        }
}

#if defined(_WIN32) || defined(FO_NO_THREADS)

void check_pool(int rounds, int forks)
{
    (void)rounds, (void)forks;
    expect(!fo_threads_available() && !fo_threads_started(), "a build without threads has some");
}

#else

#include <pthread.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { CALLERS = 4, CHILD_STEPS = 3, TIME_OUT = 60 };

/* A step of every caller over gradients that stay as they are; of the plan they share, one after another. */
typedef struct {
    pthread_t thread;
    example *own, *shared;
    int rounds, number;
} caller;
static atomic_int at_work;

static void rest(long nanoseconds)
{
    const struct timespec time = {0, nanoseconds};
    nanosleep(&time, NULL);
}

static void *call(void *argument)
{
    const caller *c = argument;
    for (int k = 0; k < c->rounds; k++) {
        fo_plan *plan = example_plan(c->own);
        plan->threads = 1 + (k + c->number) % 6;
        if (fo_step(plan) != 1)
            expect(0, "a step was refused");
        plan = example_plan(c->shared);
        while (!fo_claim(plan))
            rest(10000);
        plan->threads = 1 + k % 3;
        if (fo_step(plan) != 1)
            expect(0, "a step was refused");
        fo_yield(plan);
        if (k % 64 == 0)
            rest(1000000); /* long enough for the workers to fall asleep */
    }
    atomic_fetch_sub(&at_work, 1);
    return NULL;
}

/* In a child the pool begins anew; a step that waits for threads that are gone would end by the alarm. */
static int child(example *e, uint64_t expected)
{
    alarm(TIME_OUT);
    const int started = fo_threads_started();
    return started == 0 && example_run(e, CHILD_STEPS, 3, FO_CHUNK) == expected && fo_threads_started() == 2;
}

static void fork_once(example *e, uint64_t expected)
{
    fflush(stdout);
    const pid_t pid = fork();
    if (pid == 0)
        _exit(child(e, expected) ? 0 : 1);
    int status = -1;
    expect(pid > 0 && waitpid(pid, &status, 0) == pid, "cannot fork");
    expect(status == 0, "a forked child ended with status %d", status);
}

static uint64_t serial(int steps)
{
    example *e = example_make(FO_DTYPE_COUNT, 0.5, 0);
    example_gradients(e, 0, ORDINARY);
    for (int k = 0; k < steps; k++)
        fo_step(example_plan(e));
    return example_hash(e);
}

void check_pool(int rounds, int forks)
{
    const uint64_t once = serial(rounds), together = serial(CALLERS * rounds);
    example *for_child = example_make(FO_DTYPE_COUNT, 0.5, 0), *shared = example_make(FO_DTYPE_COUNT, 0.5, 0);
    const uint64_t in_child = example_run(example_make(FO_DTYPE_COUNT, 0.5, 0), CHILD_STEPS, 1, FO_CHUNK);
    caller callers[CALLERS];
    if (forks > 0)
        fork_once(for_child, in_child);
    example_gradients(shared, 0, ORDINARY);
    example_plan(shared)->always_pool = 0; /* this one times its steps and chooses */
    atomic_store(&at_work, CALLERS);
    for (int k = 0; k < CALLERS; k++) {
        callers[k] = (caller){.own = example_make(FO_DTYPE_COUNT, 0.5, 0), .shared = shared, .rounds = rounds,
                              .number = k};
        example_gradients(callers[k].own, 0, ORDINARY);
    }
    for (int k = 0; k < CALLERS; k++)
        if (pthread_create(&callers[k].thread, NULL, call, &callers[k])) {
            fprintf(stderr, "cannot start a thread\n");
            exit(2);
        }
    int forked = 0;
    for (; forked < forks && atomic_load(&at_work) == CALLERS; forked++)
        fork_once(for_child, in_child);
    for (int k = 0; k < CALLERS; k++) {
        pthread_join(callers[k].thread, NULL);
        expect(example_hash(callers[k].own) == once, "a step among others gives other bits than alone");
    }
    expect(example_hash(shared) == together, "steps of several threads on one plan give other bits than in a row");
    for (; forked < forks; forked++)
        fork_once(for_child, in_child);
}

#endif
