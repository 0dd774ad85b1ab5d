/* One tensor's chunks through a program of one walk without sums, as plain rules have: the path that must cost least. */
#ifndef FASTOPT_WALK_H
#define FASTOPT_WALK_H

#include "run/factor.h"

/* The elements from begin, a chunk boundary, to end; gradients are first multiplied by scale, as factor_for gives it. `ahead` asks for
 * memory before its turn. */
void walk(const fo_pass *pass, const fo_tensor *tensor, const fo_view *grad, factor scale, ptrdiff_t begin, ptrdiff_t end,
          ptrdiff_t chunk, int ahead);

/* Asks for the first line of all memory of a tensor while the one before it is computed: hardware does not guess it. */
void walk_foresee(const fo_plan *plan, ptrdiff_t t);

/* What follows the calls of a pass that is `wide`: the average of a chunk of n elements, in double. */
void walk_average(const fo_pass *pass, const fo_tensor *tensor, int dtype, ptrdiff_t start, ptrdiff_t n, int ahead);

#endif
