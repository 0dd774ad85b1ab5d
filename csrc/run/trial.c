#define _POSIX_C_SOURCE 200809L

/* Whether threads pay: see trial.h. */
#include "run/trial.h"

#include <time.h>

/* Where something else has the other processors, a BLAS that spins for one, workers come late or are taken away within a
 * piece, for which the caller then waits. A step of several pieces says what the caller's own took, and so what all of
 * them would have taken it: at least, as pieces that share the memory with others take longer. After PATIENCE steps in a
 * row that took longer than that, the plan goes alone for a while, so long that one more try costs a hundredth of it, and
 * twice as long each time, up to LONGEST. Where threads pay, no step is spent on finding out. The bits are the same. */
enum { PATIENCE = 4, SHORTEST = 8, LONGEST = 4096, TRY_COSTS_AT_MOST = 100 };
static const double margin = 1.1;

double trial_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int trial_alone(fo_trial *trial)
{
    if (!trial->left)
        return 0;
    trial->left--;
    return 1;
}

void trial_note(fo_trial *trial, double took, double alone)
{
    if (took <= margin * alone) {
        trial->slow = trial->rest = 0;
        return;
    }
    if (++trial->slow < PATIENCE)
        return;
    const double worth = TRY_COSTS_AT_MOST * (took - alone) / alone;
    trial->slow = PATIENCE - 1;
    trial->rest = trial->rest ? 2 * trial->rest : SHORTEST;
    if (trial->rest < worth)
        trial->rest = worth < LONGEST ? (int)worth : LONGEST;
    if (trial->rest > LONGEST)
        trial->rest = LONGEST;
    trial->left = trial->rest;
}
