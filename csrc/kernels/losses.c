/* The losses' kernels, each a call with its own mode for subnormals, on several threads where the elements are worth
 * it. Rows and blocks do not know of each other, so the bits are the same for any number. */
#include <stdatomic.h>

#include "run/fpu.h"
#include "kernels/kernels.h"
#include "run/pool.h"

enum { PIECES = 8 };

typedef struct work {
    int (*part)(const struct work *, ptrdiff_t begin, ptrdiff_t end); /* returns whether every class is one */
    const fo_functions *functions;
    const fo_loss *loss;
    ptrdiff_t count, piece;   /* of rows, or of blocks of FO_CHUNK elements */
    uint64_t control;         /* the caller's, flush mode and rounding, for every worker */
    atomic_ptrdiff_t next;
    atomic_int stray;
} work;

static void job(void *context, int worker)
{
    work *w = context;
    const uint64_t control = fpu_get();
    (void)worker;
    fpu_set(w->control);
    for (ptrdiff_t begin; (begin = atomic_fetch_add(&w->next, w->piece)) < w->count;)
        if (!w->part(w, begin, begin + w->piece < w->count ? begin + w->piece : w->count))
            atomic_store(&w->stray, 1);
    fpu_set(control);
}

static int share(work *w, ptrdiff_t elements, ptrdiff_t unit)
{
    const fo_loss *loss = w->loss;
    const uint64_t control = fpu_begin(loss->flush);
    const ptrdiff_t worth = elements / FO_PER_THREAD;
    const int wanted = worth < loss->threads ? (int)worth : loss->threads;
    const int workers = wanted > 1 ? pool_claim(wanted) : 1;
    w->functions = fo_functions_for(loss->dtype);
    w->control = fpu_get();
    w->piece = w->count / (workers * PIECES) / unit * unit + unit;
    if (workers > 1) {
        pool_run(workers, job, w);
        pool_yield();
    } else {
        atomic_store(&w->stray, !w->part(w, 0, w->count));
    }
    fpu_end(control);
    return !atomic_load(&w->stray);
}

static const void *at(const void *array, ptrdiff_t element, int dtype)
{
    return array ? (const char *)array + element * fo_item_size(dtype) : NULL;
}

static int softmax_part(const work *w, ptrdiff_t begin, ptrdiff_t end)
{
    const fo_loss *l = w->loss;
    const ptrdiff_t start = begin * l->columns;
    return w->functions->softmax_cross_entropy(
        end - begin, l->columns, at(l->prediction, start, l->dtype), l->classes ? l->classes + begin : NULL,
        at(l->target, start, l->dtype), l->weights ? l->weights + begin : NULL,
        (void *)at(l->gradient, start, l->dtype), l->losses + begin);
}

static int sigmoid_part(const work *w, ptrdiff_t begin, ptrdiff_t end)
{
    const fo_loss *l = w->loss;
    const ptrdiff_t start = begin * FO_CHUNK, stop = end * FO_CHUNK < l->rows ? end * FO_CHUNK : l->rows;
    w->functions->sigmoid_cross_entropy(
        stop - start, at(l->prediction, start, l->dtype), at(l->target, start, l->dtype), l->scale,
        (void *)at(l->gradient, start, l->dtype), l->losses + start);
    return 1;
}

static int squares_part(const work *w, ptrdiff_t begin, ptrdiff_t end)
{
    const fo_loss *l = w->loss;
    const ptrdiff_t start = begin * FO_CHUNK, stop = end * FO_CHUNK < l->rows ? end * FO_CHUNK : l->rows;
    w->functions->squared_error(stop - start, at(l->prediction, start, l->dtype), at(l->target, start, l->dtype),
                                l->scale, (void *)at(l->gradient, start, l->dtype), l->losses + begin);
    return 1;
}

static ptrdiff_t blocks_of(ptrdiff_t n) { return (n + FO_CHUNK - 1) / FO_CHUNK; }

int fo_softmax_cross_entropy(const fo_loss *loss)
{
    work w = {.part = softmax_part, .loss = loss, .count = loss->rows};
    return share(&w, loss->rows * loss->columns, FO_LANES);
}

void fo_sigmoid_cross_entropy(const fo_loss *loss)
{
    work w = {.part = sigmoid_part, .loss = loss, .count = blocks_of(loss->rows)};
    share(&w, loss->rows, 1);
}

double fo_squared_error(const fo_loss *loss)
{
    work w = {.part = squares_part, .loss = loss, .count = blocks_of(loss->rows)};
    share(&w, loss->rows, 1);
    double total = 0;
    for (ptrdiff_t k = 0; k < w.count; k++)
        total += loss->losses[k];
    return total;
}
