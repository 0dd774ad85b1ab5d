/* The losses' kernels, each a call with its own mode for subnormals. */
#include "fpu.h"
#include "kernels.h"

void fo_softmax_cross_entropy(int dtype, const fo_softmax *s, int flush)
{
    const uint64_t control = fpu_begin(flush);
    fo_functions_for(dtype)->softmax_cross_entropy(s);
    fpu_end(control);
}

void fo_sigmoid_cross_entropy(int dtype, ptrdiff_t n, const void *logits, const void *targets, double scale,
                              void *gradient, double *losses, int flush)
{
    const uint64_t control = fpu_begin(flush);
    fo_functions_for(dtype)->sigmoid_cross_entropy(n, logits, targets, scale, gradient, losses);
    fpu_end(control);
}

double fo_squared_error(int dtype, ptrdiff_t n, const void *prediction, const void *target, double scale,
                        void *gradient, int flush)
{
    const uint64_t control = fpu_begin(flush);
    const double sum = fo_functions_for(dtype)->squared_error(n, prediction, target, scale, gradient);
    fpu_end(control);
    return sum;
}
