/* Whether threads pay, as the steps on the pool tell by themselves, because it depends on what else runs on this machine. */
#ifndef FASTOPT_TRIAL_H
#define FASTOPT_TRIAL_H

#include "fastopt.h"

/* Seconds of a clock that only goes forward. */
double trial_now(void);

/* Whether the next step goes alone. */
int trial_alone(fo_trial *trial);

/* Notes the seconds that a step on the pool took, and those that the caller would have needed alone, by its own pieces. */
void trial_note(fo_trial *trial, double took, double alone);

#endif
