/* Elements of an array of any strides, in the order that memory or its owner has them, to and from a chunk. */
#ifndef FASTOPT_VIEWS_H
#define FASTOPT_VIEWS_H

#include "kernels/kernels.h"

/* out = factor * view[start : start + n] */
void view_load(const fo_functions *f, const fo_view *view, ptrdiff_t start, ptrdiff_t n, double factor, char *out);

/* view[start : start + n] = in */
void view_store(const fo_functions *f, const fo_view *view, ptrdiff_t start, ptrdiff_t n, const char *in);

#endif
