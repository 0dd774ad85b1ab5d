/* A step: the norm, then every tensor through its program, alone or on the pool. */
#include <math.h>
#include <stdatomic.h>

#include "kernels/kernels.h"
#include "run/fpu.h"
#include "run/passes.h"
#include "run/pool.h"
#include "run/reduce.h"
#include "run/trial.h"
#include "run/walk.h"

uint64_t fo_flush(int on) { return fpu_begin(on); }
void fo_restore(uint64_t control) { fpu_end(control); }
uint64_t fo_control(void) { return fpu_get() & ~FO_STICKY_BITS; }

void fo_run(int id, int dtype, ptrdiff_t n, void *const *buf, const double *coef, int flush)
{
    const uint64_t control = fpu_begin(flush);
    fo_functions_for(dtype)->kernel[id](n, buf, coef);
    fpu_end(control);
}

/* A step on several threads. All tensors lie end to end, each as long as its elements and some more for the
 * cost of beginning it, cut into pieces at chunk boundaries. A worker owns a run of pieces, the same at every
 * step, so that memory stays with the core that touched it first; when its own are done it takes others'. */
enum { PIECES = 8, TENSOR_COST = 256, MAX_WORKERS = 256 };

enum { MEASURE = -1 };
typedef struct {
    fo_plan *plan;
    int workers, phase;  /* counted from the first pass of the longest program, or MEASURE */
    uint64_t control;    /* the caller's, flush mode and rounding, for every worker */
    factor scale;
    ptrdiff_t length;    /* of all tensors end to end */
    double busy;         /* seconds of the caller in its own pieces, and how many of the step's those were */
    int own, pieces;
    atomic_int next[MAX_WORKERS];
} work;

static ptrdiff_t span_of(const fo_view *grad) { return grad->data ? grad->size + TENSOR_COST : 0; }

static factor scale_of(const work *w, const fo_program *program, int dtype)
{
    const fo_group *group = &w->plan->groups[program->group];
    const factor by = w->plan->by_group ? (factor){group->first, group->second} : w->scale;
    return factor_for((factor){by.first * group->sign, by.second}, dtype);
}

/* A range of one tensor in this phase. */
static void run_range(const fo_plan *plan, ptrdiff_t t, ptrdiff_t begin, ptrdiff_t end, const work *w)
{
    _Alignas(64) char scratch[FO_CHUNK * sizeof(double)];
    const fo_tensor *tensor = &plan->tensors[t];
    const fo_view *grad = &plan->grads[t];
    if (w->phase == MEASURE) {
        for (ptrdiff_t start = begin; start < end; start += FO_CHUNK)
            plan->parts[tensor->first_block + start / FO_CHUNK] =
                reduce_block(grad, start, fo_r_sum_squares, 1.0, plan->ahead, scratch);
        return;
    }
    const fo_program *program = &plan->programs[tensor->program];
    const int pass = passes_in(program, plan->phases, w->phase);
    if (program->passes == 1 && pass == 0) {
        walk_foresee(plan, t + 1);
        walk(&program->pass[0], tensor, grad, scale_of(w, program, grad->dtype), begin, end, plan->chunk, plan->ahead);
    } else if (pass >= 0 && program->pass[pass].kind != FO_SCALAR_PASS && plan->rules[program->rule].go) {
        passes_walk(plan, t, pass, scale_of(w, program, grad->dtype), begin, end);
    }
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
    const double begun = worker ? 0 : trial_now();
    const uint64_t control = fpu_get();
    int done = 0;
    fpu_set(w->control);
    for (int k = 0; k < w->workers; k++) {
        const int owner = (worker + k) % w->workers;
        for (int i; (i = atomic_fetch_add(&w->next[owner], 1)) < PIECES; done++)
            run_piece(w, owner * PIECES + i);
    }
    fpu_set(control);
    if (worker)
        return;
    w->busy += trial_now() - begun;
    w->own += done;
    w->pieces += w->workers * PIECES;
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
    if (worth < 2 || (!plan->always_pool && trial_alone(&plan->trial)))
        return 1;
    return pool_claim(worth < plan->threads ? (int)worth : plan->threads);
}

static void run_everything(fo_plan *plan, work *w)
{
    if (w->workers > 1) {
        run_all(w);
        return;
    }
    for (ptrdiff_t t = 0; t < plan->count; t++)
        if (plan->grads[t].data)
            run_range(plan, t, 0, plan->grads[t].size, w);
}

static double sum_of_parts(const fo_plan *plan, int group)
{
    block_sum sum = {0};
    for (ptrdiff_t t = 0; t < plan->count; t++)
        if (plan->grads[t].data && (group == EVERY_GROUP || plan->grads[t].group == group))
            for (ptrdiff_t k = 0; k * FO_CHUNK < plan->grads[t].size; k++)
                block_sum_add(&sum, plan->parts[plan->tensors[t].first_block + k]);
    return block_sum_total(&sum);
}

/* The norm of all gradients or of a group's, by the parts of their blocks where they are there, and the factor that clips it
 * to max_norm; 0 where the step is to be refused. */
static int clip(const fo_plan *plan, int group, int parts, double max_norm, double *norm, factor *by)
{
    int finite;
    const double total = parts ? sum_of_parts(plan, group) : 0;
    *norm = reduce_norm(plan->grads, plan->count, group, fo_r_sum_squares, parts ? &total : NULL, plan->ahead, &finite)
        * plan->unscale;
    *by = (factor){plan->unscale, 1};
    const int clipping = isfinite(max_norm);
    if (!finite || (clipping && !isfinite(*norm)))
        return 0;
    if (clipping && *norm > max_norm) {
        *by = factor_between(max_norm, *norm);
        by->first *= plan->unscale;
    }
    return 1;
}

static int measure(fo_plan *plan, work *w)
{
    const int parts = w->workers > 1 || plan->by_group;
    w->phase = MEASURE;
    if (parts)
        run_everything(plan, w);
    if (!clip(plan, EVERY_GROUP, parts, plan->max_norm, &plan->norm, &w->scale))
        return 0;
    for (int k = 0; plan->by_group && k < plan->group_count; k++) {
        fo_group *group = &plan->groups[k];
        double norm;
        factor by;
        if (!clip(plan, k, parts, group->max_norm, &norm, &by))
            return 0;
        group->first = by.first;
        group->second = by.second;
    }
    return 1;
}

static void finish_tensors(const fo_plan *plan, int phase)
{
    for (ptrdiff_t t = 0; t < plan->count; t++) {
        const int pass = passes_in(&plan->programs[plan->tensors[t].program], plan->phases, phase);
        if (plan->grads[t].data && pass >= 0)
            passes_finish_tensor(plan, t, pass);
    }
}

/* Where no rule has registers of all tensors and there is one thread, a tensor goes through all of its passes while it is
 * in the cache. */
static void run_tensor_by_tensor(fo_plan *plan, work *w)
{
    for (ptrdiff_t t = 0; t < plan->count; t++)
        for (w->phase = 0; plan->grads[t].data && w->phase < plan->phases; w->phase++) {
            const int pass = passes_in(&plan->programs[plan->tensors[t].program], plan->phases, w->phase);
            run_range(plan, t, 0, plan->grads[t].size, w);
            if (pass >= 0)
                passes_finish_tensor(plan, t, pass);
        }
}

static int step(fo_plan *plan, work *w)
{
    w->scale = (factor){plan->unscale, 1};
    if (plan->measure && !measure(plan, w))
        return 0;
    w->phase = 0;
    if (plan->phases == 1) {
        run_everything(plan, w);
        return 1;
    }
    for (int k = 0; k < plan->rule_count; k++)
        plan->rules[k].go = 1;
    if (w->workers == 1 && !plan->all) {
        run_tensor_by_tensor(plan, w);
        return 1;
    }
    for (; w->phase < plan->phases; w->phase++) {
        run_everything(plan, w);
        finish_tensors(plan, w->phase);
        passes_finish_rules(plan, plan->phases, w->phase);
    }
    return 1;
}

int fo_claim(fo_plan *plan) { return !__atomic_exchange_n(&plan->claimed, 1, __ATOMIC_ACQUIRE); }
void fo_yield(fo_plan *plan) { __atomic_store_n(&plan->claimed, 0, __ATOMIC_RELEASE); }

int fo_step(fo_plan *plan)
{
    work w;
    w.plan = plan;
    plan->ahead = fo_asks_ahead(plan->bytes);
    w.length = 0;
    w.busy = w.own = w.pieces = 0;
    w.workers = take_threads(plan, &w);
    const double begun = w.workers > 1 ? trial_now() : 0;
    const uint64_t control = fpu_begin(plan->flush);
    w.control = fpu_get();
    const int applied = step(plan, &w);
    fpu_end(control);
    if (w.workers > 1)
        pool_yield();
    if (w.own && applied)
        trial_note(&plan->trial, trial_now() - begun, w.busy * w.pieces / w.own);
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
