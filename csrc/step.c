/* Walks a plan: the norm over all gradients, then every tensor, chunk by chunk, through its program. */
#include <math.h>
#include <string.h>

#include "fpu.h"
#include "kernels.h"

static const ptrdiff_t item_size[FO_DTYPE_COUNT] = {[FO_F32] = 4, [FO_F64] = 8};

uint64_t fo_flush(int on) { return fpu_begin(on); }
void fo_restore(uint64_t control) { fpu_end(control); }
uint64_t fo_control(void) { return fpu_get(); }

void fo_run(int id, int dtype, ptrdiff_t n, void *const *buf, const double *coef, int flush)
{
    const uint64_t control = fpu_begin(flush);
    fo_functions_for(dtype)->kernel[id](n, buf, coef);
    fpu_end(control);
}

/* Calls `row(context, done, data, n)` for the pieces of one stride that make up the elements
 * [start, start + n) of a view in its walking order. The axes run from the slowest to the fastest. */
#define FOR_EACH_ROW(view, start, n, ROW) \
    do { \
        const fo_view *const v_ = (view); \
        const int last_ = v_->fortran ? 0 : v_->ndim - 1, inward_ = v_->fortran ? -1 : 1; \
        const ptrdiff_t length_ = v_->ndim ? v_->shape[last_] : 1; \
        const ptrdiff_t stride = v_->ndim ? v_->strides[last_] : 0; \
        for (ptrdiff_t done = 0; done < (n);) { \
            ptrdiff_t rest_ = ((start) + done) / length_; \
            const ptrdiff_t first_ = ((start) + done) % length_; \
            char *row = v_->data + first_ * stride; \
            for (int axis_ = last_ - inward_, k_ = 1; k_ < v_->ndim; k_++, axis_ -= inward_) { \
                row += rest_ % v_->shape[axis_] * v_->strides[axis_]; \
                rest_ /= v_->shape[axis_]; \
            } \
            const ptrdiff_t room_ = length_ - first_, want_ = (n) - done; \
            const ptrdiff_t count = room_ < want_ ? room_ : want_; \
            ROW; \
            done += count; \
        } \
    } while (0)

/* out = factor * view[start : start + n] */
static void load(const fo_functions *f, const fo_view *view, ptrdiff_t start, ptrdiff_t n,
                 double factor, char *out)
{
    const ptrdiff_t size = item_size[view->dtype];
    if (view->dense) {
        void *const buf[] = {out, view->data + start * size};
        f->kernel[fo_k_scale](n, buf, &factor);
        return;
    }
    FOR_EACH_ROW(view, start, n, f->gather(count, out + done * size, row, stride, factor));
}

static void store(const fo_functions *f, const fo_view *view, ptrdiff_t start, ptrdiff_t n,
                  const char *in)
{
    const ptrdiff_t size = item_size[view->dtype];
    FOR_EACH_ROW(view, start, n, f->scatter(count, in + done * size, row, stride));
}

/* The reduction `kind` over all elements, blocks combined in index order. */
static double reduce(const fo_view *views, ptrdiff_t count, int kind, double unit)
{
    _Alignas(64) char scratch[FO_CHUNK * sizeof(double)];
    double total = 0;
    for (ptrdiff_t t = 0; t < count; t++) {
        const fo_view *view = &views[t];
        if (!view->data)
            continue;
        const fo_functions *f = fo_functions_for(view->dtype);
        for (ptrdiff_t start = 0; start < view->size; start += FO_CHUNK) {
            const ptrdiff_t left = view->size - start, n = left < FO_CHUNK ? left : FO_CHUNK;
            const char *block = view->data + start * item_size[view->dtype];
            if (!view->dense) {
                load(f, view, start, n, 1, scratch);
                block = scratch;
            }
            const double part = f->reduce[kind](n, block, unit);
            if (kind != fo_r_max_abs)
                total += part;
            else if (part > total || part != part)
                total = part;
        }
    }
    return total;
}

/* The power of two that brings x > 0 near 1, kept clear of overflow. */
static double unit_for(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    int exponent = (int)(bits >> 52) - 1023;
    if (exponent < -1022)
        exponent = -1022;
    if (exponent > 1022)
        exponent = 1022;
    bits = (uint64_t)(1023 - exponent) << 52;
    double unit;
    memcpy(&unit, &bits, sizeof unit);
    return unit;
}

/* Squares of float64 can leave the range of double in both directions: then the sum is taken once
 * more in units of max|g|. */
static double norm_of(const fo_view *views, ptrdiff_t count, int kind, int *finite)
{
    const double smallest_safe = 0x1p-900;
    double total = reduce(views, count, kind, 1.0), unit = 1.0;
    *finite = 1;
    if (!isfinite(total) || (kind == fo_r_sum_squares && total < smallest_safe)) {
        const double largest = reduce(views, count, fo_r_max_abs, 1.0);
        *finite = isfinite(largest);
        if (!*finite || largest == 0)
            return kind == fo_r_max_abs || !*finite ? largest : 0;
        unit = unit_for(largest);
        total = reduce(views, count, kind, unit);
    }
    return (kind == fo_r_sum_squares ? sqrt(total) : total) / unit;
}

double fo_norm(const fo_view *views, ptrdiff_t count, int kind, int flush, int *finite)
{
    const uint64_t control = fpu_begin(flush);
    const double norm = norm_of(views, count, kind, finite);
    fpu_end(control);
    return norm;
}

void fo_rewrite(const fo_view *views, ptrdiff_t count, double factor, double bound, int flush)
{
    _Alignas(64) char scratch[FO_CHUNK * sizeof(double)];
    void *const buf[] = {scratch};
    const double coef[] = {1, bound};
    const uint64_t control = fpu_begin(flush);
    for (ptrdiff_t t = 0; t < count; t++) {
        const fo_view *view = &views[t];
        const fo_functions *f = fo_functions_for(view->dtype);
        for (ptrdiff_t start = 0; start < view->size; start += FO_CHUNK) {
            const ptrdiff_t left = view->size - start, n = left < FO_CHUNK ? left : FO_CHUNK;
            load(f, view, start, n, factor, scratch);
            if (isfinite(bound))
                f->kernel[fo_k_clamp](n, buf, coef);
            store(f, view, start, n, scratch);
        }
    }
    fpu_end(control);
}

/* A gradient that no stage changes is read where it lies: the rule's own first operation on it is
 * arithmetic, so it has the bits of 1 * g. */
static void walk(const fo_program *program, const fo_tensor *tensor, const fo_view *grad, double scale)
{
    _Alignas(64) char scratch[FO_CHUNK * sizeof(double)];
    const fo_functions *f = fo_functions_for(grad->dtype);
    const ptrdiff_t size = item_size[grad->dtype];
    const int direct = grad->dense && scale == 1.0 && !program->edits;
    for (ptrdiff_t start = 0; start < grad->size; start += FO_CHUNK) {
        const ptrdiff_t left = grad->size - start, n = left < FO_CHUNK ? left : FO_CHUNK;
        if (!direct)
            load(f, grad, start, n, scale, scratch);
        for (int c = 0; c < program->calls; c++) {
            const fo_call *call = &program->call[c];
            void *buf[FO_MAX_BUFFERS];
            for (int b = 0; b < fo_registry[call->kernel].buffers; b++) {
                const int slot = call->slot[b];
                buf[b] = slot != FO_SLOT_G ? tensor->slot[slot] + start * size
                       : direct ? grad->data + start * size : scratch;
            }
            f->kernel[call->kernel](n, buf, call->coef);
        }
    }
}

static int step(fo_plan *plan)
{
    double scale = plan->sign;
    if (plan->measure) {
        int finite;
        plan->norm = norm_of(plan->grads, plan->count, fo_r_sum_squares, &finite);
        const int clipping = isfinite(plan->max_norm);
        if (!finite || (clipping && !isfinite(plan->norm)))
            return 0;
        if (clipping && plan->norm > plan->max_norm)
            scale *= plan->max_norm / plan->norm;
    }
    for (ptrdiff_t t = 0; t < plan->count; t++)
        if (plan->grads[t].data)
            walk(&plan->programs[plan->tensors[t].program], &plan->tensors[t], &plan->grads[t], scale);
    return 1;
}

int fo_claim(fo_plan *plan) { return !__atomic_exchange_n(&plan->claimed, 1, __ATOMIC_ACQUIRE); }
void fo_yield(fo_plan *plan) { __atomic_store_n(&plan->claimed, 0, __ATOMIC_RELEASE); }

int fo_step(fo_plan *plan)
{
    const uint64_t control = fpu_begin(plan->flush);
    const int applied = step(plan);
    fpu_end(control);
    return applied;
}
