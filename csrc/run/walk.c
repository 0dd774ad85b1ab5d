/* The walk of plain rules: see walk.h. */
#include "run/walk.h"

#include "kernels/kernels.h"
#include "run/views.h"

enum { CACHE_LINE = 64 };

/* One tensor's elements from begin, a chunk boundary, to end. A gradient that no stage changes is read where it
 * lies: the rule's own first operation on it is arithmetic, so it has the bits of 1 * g. */
void walk(const fo_pass *pass, const fo_tensor *tensor, const fo_view *grad, double scale, ptrdiff_t begin, ptrdiff_t end,
          ptrdiff_t chunk, int ahead)
{
    _Alignas(64) char scratch[FO_CHUNK * sizeof(double)];
    const fo_functions *f = fo_functions_for(grad->dtype);
    fo_kernel *const *kernels = ahead ? f->ahead : f->kernel;
    const ptrdiff_t size = fo_item_size(grad->dtype);
    const int direct = grad->dense && scale == 1.0 && !pass->edits;
    chunk = chunk < FO_WALK / size ? chunk : FO_WALK / size;
    /* A first chunk that ends at a cache line of the parameter, where that pays: the state lies as it does. */
    const ptrdiff_t past = (ptrdiff_t)((uintptr_t)(tensor->slot[FO_SLOT_P] + begin * size) % CACHE_LINE) / size;
    ptrdiff_t n = end - begin > 2 * chunk && chunk > past ? chunk - past : chunk;
    for (ptrdiff_t start = begin; start < end; start += n, n = chunk) {
        n = end - start < n ? end - start : n;
        if (!direct)
            view_load(f, grad, start, n, scale, scratch);
        for (int c = 0; c < pass->calls; c++) {
            const fo_call *call = &pass->call[c];
            void *buf[FO_MAX_BUFFERS];
            for (int b = 0; b < call->buffers; b++) {
                const int slot = call->slot[b];
                buf[b] = slot != FO_SLOT_G ? tensor->slot[slot] + start * size
                       : direct ? grad->data + start * size : scratch;
            }
            kernels[call->kernel](n, buf, call->coef);
        }
    }
}

void walk_foresee(const fo_plan *plan, ptrdiff_t t)
{
    if (t == plan->count || !plan->grads[t].data)
        return;
    __builtin_prefetch(plan->grads[t].data);
    for (int slot = 0; slot < FO_SLOT_SCRATCH; slot++)
        if (plan->tensors[t].slot[slot])
            __builtin_prefetch(plan->tensors[t].slot[slot]);
}
