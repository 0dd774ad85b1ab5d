/* Whether threads pay, found by timing both ways, because it depends on what else runs on this machine. */
#ifndef FASTOPT_TRIAL_H
#define FASTOPT_TRIAL_H

#include "fastopt.h"

/* Seconds of a clock that only goes forward. */
double trial_now(void);

/* Notes the seconds per element of a step that went the way `trial->alone` says, and which way the next goes. */
void trial_note(fo_trial *trial, double cost);

#endif
