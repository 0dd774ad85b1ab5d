/* What kernels.c gives to step.c, vectors.c and losses.c: the functions of the instruction set in use, by type. */
#ifndef FASTOPT_KERNELS_H
#define FASTOPT_KERNELS_H

#include "fastopt.h"

typedef void fo_kernel(ptrdiff_t n, void *const *buf, const double *coef);
/* A plain rule whose gradient is first multiplied by scale, and its parameter by keep: of 1 the same bits. */
typedef void fo_fused(ptrdiff_t n, void *const *buf, const double *coef, double scale, double keep);
typedef double fo_reduction(ptrdiff_t n, const void *in, double unit);

typedef struct {
    fo_kernel *kernel[FO_KERNEL_COUNT];
    fo_kernel *ahead[FO_KERNEL_COUNT]; /* for buffers that come from memory; not of plain rules, which have their own: */
    fo_fused *fused[FO_KERNEL_COUNT], *fused_ahead[FO_KERNEL_COUNT];
    fo_reduction *reduce[FO_REDUCTION_COUNT], *sum_squares_ahead;
    double (*sum[FO_SUM_COUNT])(ptrdiff_t n, const void *const *in);
    void (*add_squares)(ptrdiff_t n, double *sums, const void *in);
    void (*adafactor_factors)(ptrdiff_t rows, ptrdiff_t columns, const double *row_sums, const double *column_sums,
                              void *r, void *c, void *a, const double *coef);
    void (*widen)(ptrdiff_t n, double *out, const void *in);
    void (*fill)(ptrdiff_t n, void *out, const void *value);
    void (*gather)(ptrdiff_t n, void *out, const char *row, ptrdiff_t stride, double factor);
    void (*scatter)(ptrdiff_t n, const void *in, char *row, ptrdiff_t stride);
    double (*dot)(ptrdiff_t n, const void *a, const void *b);
    void (*axpby)(ptrdiff_t n, void *y, double a, const void *x, double b); /* y = a y + b x */
    int (*softmax_cross_entropy)(ptrdiff_t rows, ptrdiff_t n, const void *logits, const int64_t *classes,
                                 const void *probabilities, const double *weights, void *gradient, double *losses);
    void (*sigmoid_cross_entropy)(ptrdiff_t n, const void *logits, const void *targets, double scale, void *gradient,
                                  double *losses);
    void (*squared_error)(ptrdiff_t n, const void *prediction, const void *target, double scale, void *gradient,
                          double *parts);
} fo_functions;

const fo_functions *fo_functions_for(int dtype);

static inline ptrdiff_t fo_item_size(int dtype) { return dtype == FO_F32 ? 4 : 8; }

#endif
