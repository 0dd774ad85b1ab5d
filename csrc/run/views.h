/* Elements of an array of any strides, in the order that memory or its owner has them, to and from a chunk. */
#ifndef FASTOPT_VIEWS_H
#define FASTOPT_VIEWS_H

#include "kernels/kernels.h"
#include "run/factor.h"

/* out = by * view[start : start + n], by as factor_for gives it for the view's type; with `ahead` the memory that
 * comes after is asked for. */
void view_load(const fo_functions *f, const fo_view *view, ptrdiff_t start, ptrdiff_t n, factor by, int ahead, char *out);

/* view[start : start + n] = in */
void view_store(const fo_functions *f, const fo_view *view, ptrdiff_t start, ptrdiff_t n, const char *in);

#endif
