/* Clipping of gradients on their own, in place. */
#include <math.h>

#include "kernels/kernels.h"
#include "run/fpu.h"
#include "run/views.h"

void fo_rewrite(const fo_view *views, ptrdiff_t count, double max_norm, double norm, double bound, int flush)
{
    _Alignas(64) char scratch[FO_CHUNK * sizeof(double)];
    void *const buf[] = {scratch};
    const double coef[] = {1, bound};
    const factor by = max_norm < norm ? factor_between(max_norm, norm) : (factor){1, 1};
    const uint64_t control = fpu_begin(flush);
    for (ptrdiff_t t = 0; t < count; t++) {
        const fo_view *view = &views[t];
        const fo_functions *f = fo_functions_for(view->dtype);
        for (ptrdiff_t start = 0; start < view->size; start += FO_CHUNK) {
            const ptrdiff_t left = view->size - start, n = left < FO_CHUNK ? left : FO_CHUNK;
            view_load(f, view, start, n, factor_for(by, view->dtype), 0, scratch);
            if (isfinite(bound))
                f->kernel[fo_k_clamp](n, buf, coef);
            view_store(f, view, start, n, scratch);
        }
    }
    fpu_end(control);
}
