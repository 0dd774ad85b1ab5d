/* Whether threads pay, as steps tell: what the plan does after good and bad ones. */
#define _POSIX_C_SOURCE 200809L
#include "check.h"

#include <time.h>

#include "run/trial.h"

static void check_clock(void)
{
    const struct timespec nap = {.tv_nsec = 20000000};
    for (int k = 0; k < 3; k++) {
        const double begun = trial_now();
        nanosleep(&nap, NULL);
        const double took = trial_now() - begun;
        expect(took > 0.019 && took < 60, "20 ms of sleep are %g s of the clock", took);
    }
}

/* The steps of `count` that go alone, where one on the pool takes `took` and one alone would take 1. */
static int alone_among(fo_trial *trial, int count, double took)
{
    int alone = 0;
    for (int k = 0; k < count; k++)
        if (trial_alone(trial))
            alone++;
        else
            trial_note(trial, took, 1);
    return alone;
}

void check_trial(void)
{
    check_clock();
    fo_trial trial = {0};
    expect(alone_among(&trial, 1000, 0.6) == 0, "where threads pay, a step goes alone");
    expect(alone_among(&trial, 1000, 1.05) == 0, "where threads make no difference, a step goes alone");
    for (int k = 0; k < 100; k++)
        expect(alone_among(&trial, 3, 9) + alone_among(&trial, 1, 0.6) == 0, "three slow steps in a row send a plan alone");
    const double slow[] = {1.2, 2, 50};
    for (int k = 0; k < 3; k++) {
        fo_trial busy = {0};
        alone_among(&busy, 4, slow[k]);
        const int steps = 20000, alone = alone_among(&busy, steps, slow[k]);
        const double wasted = (steps - alone) * (slow[k] - 1);
        expect(wasted <= 0.02 * steps, "where a step on the pool takes %g, trying it cost %g of %d", slow[k], wasted, steps);
        expect(alone_among(&busy, 5000, 0.6) < 4200, "a plan does not come back when threads pay again");
        expect(alone_among(&busy, 1000, 0.6) == 0, "a plan that came back goes alone");
    }
}
