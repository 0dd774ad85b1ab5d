/* The walk of plain rules: see walk.h. */
#include "run/walk.h"

#include "kernels/kernels.h"
#include "run/views.h"

enum { CACHE_LINE = 64 };

/* One tensor's elements from begin, a chunk boundary, to end. The loop of the rule itself multiplies a gradient that no
 * other stage changes by the scale, and lets the parameter decay, which always comes right before it. */
void walk(const fo_pass *pass, const fo_tensor *tensor, const fo_view *grad, factor scale, ptrdiff_t begin, ptrdiff_t end,
          ptrdiff_t chunk, int ahead)
{
    _Alignas(64) char scratch[FO_CHUNK * sizeof(double)];
    const fo_functions *f = fo_functions_for(grad->dtype);
    const ptrdiff_t size = fo_item_size(grad->dtype);
    fo_kernel *const *kernels = ahead ? f->ahead : f->kernel;
    fo_fused *const *fused = ahead ? f->fused_ahead : f->fused;
    const int direct = grad->dense && !pass->edits && scale.second == 1 && (pass->fuses || scale.first == 1);
    chunk = chunk < FO_WALK / size ? chunk : FO_WALK / size;
    /* A first chunk that ends at a cache line of the parameter, where that pays: the state lies as it does. */
    const ptrdiff_t past = (ptrdiff_t)((uintptr_t)(tensor->slot[FO_SLOT_P] + begin * size) % CACHE_LINE) / size;
    ptrdiff_t n = end - begin > 2 * chunk && chunk > past ? chunk - past : chunk;
    for (ptrdiff_t start = begin; start < end; start += n, n = chunk) {
        n = end - start < n ? end - start : n;
        if (!direct)
            view_load(f, grad, start, n, scale, ahead, scratch);
        double keep = 1;
        for (int c = 0; c < pass->calls; c++) {
            const fo_call *call = &pass->call[c];
            if (pass->fuses && call->kernel == fo_k_decay) {
                keep = call->coef[0];
                continue;
            }
            void *buf[FO_MAX_BUFFERS];
            for (int b = 0; b < call->buffers; b++) {
                const int slot = call->slot[b];
                buf[b] = slot != FO_SLOT_G ? tensor->slot[slot] + start * size
                       : direct ? grad->data + start * size : scratch;
            }
            if (fused[call->kernel])
                fused[call->kernel](n, buf, call->coef, direct ? scale.first : 1, keep);
            else
                kernels[call->kernel](n, buf, call->coef);
        }
        if (pass->wide)
            walk_average(pass, tensor, grad->dtype, start, n, ahead);
    }
}

/* Apart, so that the walk above has no room for it on its stack. */
__attribute__((noinline)) void walk_average(const fo_pass *pass, const fo_tensor *tensor, int dtype, ptrdiff_t start,
                                            ptrdiff_t n, int ahead)
{
    _Alignas(64) double wide[FO_CHUNK];
    char *p = tensor->slot[FO_SLOT_P] + start * fo_item_size(dtype);
    void *const buf[] = {tensor->slot[FO_SLOT_AVERAGE] + start * fo_item_size(FO_F64), dtype == FO_F64 ? p : (char *)wide};
    const fo_functions *f = fo_functions_for(FO_F64);
    if (dtype != FO_F64)
        fo_functions_for(dtype)->widen(n, wide, p);
    (ahead ? f->ahead : f->kernel)[fo_k_average](n, buf, pass->call[pass->calls].coef);
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
