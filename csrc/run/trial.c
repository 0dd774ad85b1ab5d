#define _POSIX_C_SOURCE 200809L

/* Whether threads pay: see trial.h. */
#include "run/trial.h"

#include <time.h>

/* Whether threads help depends on what else runs on this machine, a BLAS that spins for one. So each plan times its
 * steps, and goes the way that it favours, with the pool or alone; between runs of that, ever longer while nothing
 * changes, it tries the other way. A run's cost is the least of its last steps: the first wakes threads, and at the
 * very first touches new memory. The bits are the same. */
enum { TRIED = 4, COUNTED = 3, SOONEST = 8, LATEST = 256 };

double trial_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void trial_note(fo_trial *trial, double cost)
{
    const int trying = trial->alone != trial->favours_alone;
    const int length = trying || !trial->run ? TRIED : trial->run;
    const int counted = ++trial->done - (length - COUNTED);
    double *least = &trial->least[trial->alone];
    if (counted == 1 || (counted > 1 && cost < *least))
        *least = cost;
    if (trial->done < length)
        return;
    trial->done = 0;
    if (!trying) {
        trial->run = trial->run ? trial->run : SOONEST;
        trial->alone = !trial->alone;
    } else if (*least < trial->least[trial->favours_alone]) {
        trial->run = SOONEST;
        trial->favours_alone = trial->alone;
    } else {
        trial->run = 2 * trial->run < LATEST ? 2 * trial->run : LATEST;
        trial->alone = trial->favours_alone;
    }
}
