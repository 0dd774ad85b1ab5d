/* Programs of several passes: walks that leave sums, and the scalar functions between them. Apart from walk.c because a
 * plain rule is one walk without sums, and pays for none of this. */
#ifndef FASTOPT_PASSES_H
#define FASTOPT_PASSES_H

#include "run/factor.h"

/* One tensor's elements from begin, a chunk boundary, to end, through one walk of its program; of a factored walk, the
 * bands of rows that begin there. */
void passes_walk(const fo_plan *plan, ptrdiff_t t, int pass, factor scale, ptrdiff_t begin, ptrdiff_t end);

/* What follows a pass, on one thread: its sums become registers, or its scalar function runs. For one tensor ... */
void passes_finish_tensor(const fo_plan *plan, ptrdiff_t t, int pass);

/* ... and for the rules, whose registers are of all their tensors; `phase` counts the passes of the
 * longest program. */
void passes_finish_rules(const fo_plan *plan, int phases, int phase);

/* The pass of a program in a phase, negative before its first. */
int passes_in(const fo_program *program, int phases, int phase);

#endif
