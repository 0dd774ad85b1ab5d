#define _POSIX_C_SOURCE 200809L

/* Walks a plan: the norm over all gradients, then every tensor, chunk by chunk, through its program. */
#include <math.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

#include "run/fpu.h"
#include "kernels/kernels.h"
#include "run/pool.h"

enum { CACHE_LINE = 64 };

uint64_t fo_flush(int on) { return fpu_begin(on); }
void fo_restore(uint64_t control) { fpu_end(control); }
uint64_t fo_control(void) { return fpu_get() & ~FO_STICKY_BITS; }

void fo_run(int id, int dtype, ptrdiff_t n, void *const *buf, const double *coef, int flush)
{
    const uint64_t control = fpu_begin(flush);
    fo_functions_for(dtype)->kernel[id](n, buf, coef);
    fpu_end(control);
}

/* Does ROW for the pieces of one stride that make up the elements [start, start + n) of a view in its walking
 * order; in it `row` is where a piece begins, `stride` its step in bytes, `count` its elements, `done` those before. */
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
    const ptrdiff_t size = fo_item_size(view->dtype);
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
    const ptrdiff_t size = fo_item_size(view->dtype);
    if (view->dense) {
        f->scatter(n, in, view->data + start * size, size);
        return;
    }
    FOR_EACH_ROW(view, start, n, f->scatter(count, in + done * size, row, stride));
}

/* One block's part of a reduction. */
static double reduce_block(const fo_view *view, ptrdiff_t start, int kind, double unit, char *scratch)
{
    const fo_functions *f = fo_functions_for(view->dtype);
    const ptrdiff_t left = view->size - start, n = left < FO_CHUNK ? left : FO_CHUNK;
    if (view->dense)
        return f->reduce[kind](n, view->data + start * fo_item_size(view->dtype), unit);
    load(f, view, start, n, 1, scratch);
    return f->reduce[kind](n, scratch, unit);
}

static double combine(double total, double part, int kind)
{
    if (kind != fo_r_max_abs)
        return total + part;
    return part > total || part != part ? part : total;
}

/* The reduction `kind` over all elements, blocks combined in index order. */
static double reduce(const fo_view *views, ptrdiff_t count, int kind, double unit)
{
    _Alignas(64) char scratch[FO_CHUNK * sizeof(double)];
    double total = 0;
    for (ptrdiff_t t = 0; t < count; t++)
        if (views[t].data)
            for (ptrdiff_t start = 0; start < views[t].size; start += FO_CHUNK)
                total = combine(total, reduce_block(&views[t], start, kind, unit, scratch), kind);
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
 * more in units of max|g|. `first` is the plain sum, where there is one already, or NULL. */
static double norm_of(const fo_view *views, ptrdiff_t count, int kind, const double *first, int *finite)
{
    const double smallest_safe = 0x1p-900;
    double total = first ? *first : reduce(views, count, kind, 1.0), unit = 1.0;
    *finite = 1;
    if (!isfinite(total) || (kind == fo_r_sum_squares && total < smallest_safe)) {
        const double largest = reduce(views, count, fo_r_max_abs, 1.0);
        *finite = isfinite(largest);
        if (!*finite || largest == 0)
            return largest;
        unit = unit_for(largest);
        total = reduce(views, count, kind, unit);
    }
    return (kind == fo_r_sum_squares ? sqrt(total) : total) / unit;
}

double fo_norm(const fo_view *views, ptrdiff_t count, int kind, int flush, int *finite)
{
    const uint64_t control = fpu_begin(flush);
    const double norm = norm_of(views, count, kind, NULL, finite);
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

/* One tensor's elements from begin, a chunk boundary, to end. A gradient that no stage changes is read where it
 * lies: the rule's own first operation on it is arithmetic, so it has the bits of 1 * g. */
static void walk(const fo_program *program, const fo_tensor *tensor, const fo_view *grad, double scale,
                 ptrdiff_t begin, ptrdiff_t end, ptrdiff_t chunk)
{
    _Alignas(64) char scratch[FO_CHUNK * sizeof(double)];
    const fo_functions *f = fo_functions_for(grad->dtype);
    const ptrdiff_t size = fo_item_size(grad->dtype);
    const int direct = grad->dense && scale == 1.0 && !program->edits;
    chunk = chunk < FO_WALK / size ? chunk : FO_WALK / size;
    /* A first chunk that ends at a cache line of the parameter, where that pays: the state lies as it does. */
    const ptrdiff_t past = (ptrdiff_t)((uintptr_t)(tensor->slot[FO_SLOT_P] + begin * size) % CACHE_LINE) / size;
    ptrdiff_t n = end - begin > 2 * chunk && chunk > past ? chunk - past : chunk;
    for (ptrdiff_t start = begin; start < end; start += n, n = chunk) {
        n = end - start < n ? end - start : n;
        if (!direct)
            load(f, grad, start, n, scale, scratch);
        for (int c = 0; c < program->calls; c++) {
            const fo_call *call = &program->call[c];
            void *buf[FO_MAX_BUFFERS];
            for (int b = 0; b < call->buffers; b++) {
                const int slot = call->slot[b];
                buf[b] = slot != FO_SLOT_G ? tensor->slot[slot] + start * size
                       : direct ? grad->data + start * size : scratch;
            }
            f->kernel[call->kernel](n, buf, call->coef);
        }
    }
}

/* A step on several threads. All tensors lie end to end, each as long as its elements and some more for the
 * cost of beginning it, cut into pieces at chunk boundaries. A worker owns a run of pieces, the same at every
 * step, so that memory stays with the core that touched it first; when its own are done it takes others'. */
enum { PIECES = 8, TENSOR_COST = 256, MAX_WORKERS = 256 };

typedef struct {
    fo_plan *plan;
    int workers, measuring;
    uint64_t control;   /* the caller's, flush mode and rounding, for every worker */
    double scale;
    ptrdiff_t length;   /* of all tensors end to end, where they are worth threads */
    atomic_int next[MAX_WORKERS];
} work;

/* Whether threads help depends on what else runs on this machine, a BLAS that spins for one. So each plan times its
 * steps, and goes the way that it favours, with the pool or alone; between runs of that, ever longer while nothing
 * changes, it tries the other way. A run's cost is the least of its last steps: the first wakes threads, and at the
 * very first touches new memory. The bits are the same. */
enum { TRIED = 4, COUNTED = 3, SOONEST = 8, LATEST = 256 };

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void note_cost(fo_trial *trial, double cost)
{
    const int trying = trial->alone != trial->favours_alone;
    const int length = trying || !trial->run ? TRIED : trial->run;
    const int counted = ++trial->done - (length - COUNTED);
    double *least = &trial->least[trial->alone];
    if (counted == 1 || (counted > 1 && cost < *least))
        *least = cost;
    if (trial->done < length)
        return;
    trial->done = 0;
    if (!trying) {
        trial->run = trial->run ? trial->run : SOONEST;
        trial->alone = !trial->alone;
    } else if (*least < trial->least[trial->favours_alone]) {
        trial->run = SOONEST;
        trial->favours_alone = trial->alone;
    } else {
        trial->run = 2 * trial->run < LATEST ? 2 * trial->run : LATEST;
        trial->alone = trial->favours_alone;
    }
}

static ptrdiff_t span_of(const fo_view *grad) { return grad->data ? grad->size + TENSOR_COST : 0; }

/* Asks for the first line of all memory of a tensor while the one before it is computed: hardware does not guess it. */
static void foresee(const fo_plan *plan, ptrdiff_t t)
{
    if (t == plan->count || !plan->grads[t].data)
        return;
    __builtin_prefetch(plan->grads[t].data);
    for (int slot = 0; slot < FO_SLOT_STATE + FO_MAX_BUFFERS; slot++)
        if (plan->tensors[t].slot[slot])
            __builtin_prefetch(plan->tensors[t].slot[slot]);
}

static void run_range(const fo_plan *plan, ptrdiff_t t, ptrdiff_t begin, ptrdiff_t end, const work *w)
{
    _Alignas(64) char scratch[FO_CHUNK * sizeof(double)];
    const fo_tensor *tensor = &plan->tensors[t];
    const fo_view *grad = &plan->grads[t];
    if (!w->measuring) {
        foresee(plan, t + 1);
        walk(&plan->programs[tensor->program], tensor, grad, w->scale, begin, end, plan->chunk);
        return;
    }
    for (ptrdiff_t start = begin; start < end; start += FO_CHUNK)
        plan->parts[tensor->first_block + start / FO_CHUNK] =
            reduce_block(grad, start, fo_r_sum_squares, 1.0, scratch);
}

/* Where a position in the row of tensors falls within one: at its end, or at a chunk boundary before. */
static ptrdiff_t offset_in(const fo_view *grad, ptrdiff_t position)
{
    if (position <= 0)
        return 0;
    return position >= grad->size ? grad->size : position - position % FO_CHUNK;
}

static void run_piece(const work *w, int piece)
{
    const fo_plan *plan = w->plan;
    const int pieces = w->workers * PIECES;
    const ptrdiff_t begin = (ptrdiff_t)((double)w->length / pieces * piece);
    const ptrdiff_t end = piece + 1 == pieces ? w->length : (ptrdiff_t)((double)w->length / pieces * (piece + 1));
    ptrdiff_t low = 0, high = plan->count - 1;
    while (low < high) {
        const ptrdiff_t middle = (low + high + 1) / 2;
        if (plan->tensors[middle].position <= begin)
            low = middle;
        else
            high = middle - 1;
    }
    for (ptrdiff_t t = low; t < plan->count && plan->tensors[t].position < end; t++) {
        const fo_view *grad = &plan->grads[t];
        if (grad->data)
            run_range(plan, t, offset_in(grad, begin - plan->tensors[t].position),
                      offset_in(grad, end - plan->tensors[t].position), w);
    }
}

static void job(void *context, int worker)
{
    work *w = context;
    const uint64_t control = fpu_get();
    fpu_set(w->control);
    for (int k = 0; k < w->workers; k++) {
        const int owner = (worker + k) % w->workers;
        for (int i; (i = atomic_fetch_add(&w->next[owner], 1)) < PIECES;)
            run_piece(w, owner * PIECES + i);
    }
    fpu_set(control);
}

static void run_all(work *w)
{
    for (int k = 0; k < w->workers; k++)
        atomic_store(&w->next[k], 0);
    pool_run(w->workers, job, w);
}

/* Takes as many threads as the elements are worth: below per_thread each, waking one costs more than it saves. */
static int take_threads(fo_plan *plan, work *w)
{
    if (plan->threads <= 1 || plan->elements < 2 * plan->per_thread)
        return 1;
    w->length = 0;
    for (ptrdiff_t t = 0; t < plan->count; t++) {
        plan->tensors[t].position = w->length;
        w->length += span_of(&plan->grads[t]);
    }
    const ptrdiff_t worth = w->length / plan->per_thread;
    if (worth < 2)
        w->length = 0;
    if (worth < 2 || (plan->trial.alone && !plan->always_pool))
        return 1;
    return pool_claim(worth < plan->threads ? (int)worth : plan->threads);
}

static double sum_of_parts(const fo_plan *plan)
{
    double total = 0;
    for (ptrdiff_t t = 0; t < plan->count; t++)
        if (plan->grads[t].data)
            for (ptrdiff_t k = 0; k * FO_CHUNK < plan->grads[t].size; k++)
                total += plan->parts[plan->tensors[t].first_block + k];
    return total;
}

/* Measures the norm and sets the factor that clips it; 0 where the step is to be refused. */
static int measure(fo_plan *plan, work *w)
{
    int finite;
    double total;
    w->measuring = 1;
    if (w->workers > 1) {
        run_all(w);
        total = sum_of_parts(plan);
    }
    plan->norm = norm_of(plan->grads, plan->count, fo_r_sum_squares, w->workers > 1 ? &total : NULL, &finite)
        * plan->unscale;
    const int clipping = isfinite(plan->max_norm);
    if (!finite || (clipping && !isfinite(plan->norm)))
        return 0;
    if (clipping && plan->norm > plan->max_norm)
        w->scale *= plan->max_norm / plan->norm;
    return 1;
}

static int step(fo_plan *plan, work *w)
{
    w->scale = plan->sign * plan->unscale;
    if (plan->measure && !measure(plan, w))
        return 0;
    w->measuring = 0;
    if (w->workers > 1)
        run_all(w);
    else
        for (ptrdiff_t t = 0; t < plan->count; t++)
            if (plan->grads[t].data)
                run_range(plan, t, 0, plan->grads[t].size, w);
    return 1;
}

int fo_claim(fo_plan *plan) { return !__atomic_exchange_n(&plan->claimed, 1, __ATOMIC_ACQUIRE); }
void fo_yield(fo_plan *plan) { __atomic_store_n(&plan->claimed, 0, __ATOMIC_RELEASE); }

int fo_step(fo_plan *plan)
{
    work w;
    w.plan = plan;
    w.length = 0;
    w.workers = take_threads(plan, &w);
    const double begun = w.length ? now() : 0;
    const uint64_t control = fpu_begin(plan->flush);
    w.control = fpu_get();
    const int applied = step(plan, &w);
    fpu_end(control);
    if (w.workers > 1)
        pool_yield();
    if (w.length && applied)
        note_cost(&plan->trial, (now() - begun) / (double)w.length);
    return applied;
}

typedef struct {
    uint64_t *words;
    int workers;
    atomic_int noted;
} controls;

/* Returns only when every worker has come. */
static void note_control(void *context, int worker)
{
    controls *c = context;
    c->words[worker] = fo_control();
    atomic_fetch_add(&c->noted, 1);
    while (atomic_load(&c->noted) < c->workers)
        ;
}

int fo_controls(uint64_t *words, int threads)
{
    controls c = {.words = words, .workers = pool_claim(threads)};
    if (c.workers == 1) {
        note_control(&c, 0);
        return 1;
    }
    pool_run(c.workers, note_control, &c);
    pool_yield();
    return c.workers;
}

int fo_threads_started(void) { return pool_size(); }
int fo_threads_available(void) { return pool_available(); }
