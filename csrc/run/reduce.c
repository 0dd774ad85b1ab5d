/* Sums over many blocks, and norms: see reduce.h. */
#include "run/reduce.h"

#include <math.h>
#include <string.h>

#include "run/fpu.h"
#include "run/views.h"

/* One block's part of a reduction. */
double reduce_block(const fo_view *view, ptrdiff_t start, int kind, double unit, int ahead, char *scratch)
{
    const fo_functions *f = fo_functions_for(view->dtype);
    const ptrdiff_t left = view->size - start, n = left < FO_CHUNK ? left : FO_CHUNK;
    fo_reduction *const reduction = ahead && kind == fo_r_sum_squares ? f->sum_squares_ahead : f->reduce[kind];
    if (view->dense)
        return reduction(n, view->data + start * fo_item_size(view->dtype), unit);
    view_load(f, view, start, n, (factor){1, 1}, 0, scratch);
    return f->reduce[kind](n, scratch, unit);
}

/* The reduction `kind` over all elements, blocks combined in index order. */
static double reduce(const fo_view *views, ptrdiff_t count, int group, int kind, double unit, int ahead)
{
    _Alignas(64) char scratch[FO_CHUNK * sizeof(double)];
    block_sum sum = {0};
    double largest = 0;
    for (ptrdiff_t t = 0; t < count; t++) {
        if (group != EVERY_GROUP && views[t].group != group)
            continue;
        for (ptrdiff_t start = 0; views[t].data && start < views[t].size; start += FO_CHUNK) {
            const double part = reduce_block(&views[t], start, kind, unit, ahead, scratch);
            if (kind != fo_r_max_abs)
                block_sum_add(&sum, part);
            else if (part > largest || part != part)
                largest = part;
        }
    }
    return kind == fo_r_max_abs ? largest : block_sum_total(&sum);
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
double reduce_norm(const fo_view *views, ptrdiff_t count, int group, int kind, const double *first, int ahead,
                   int *finite)
{
    const double smallest_safe = 0x1p-900;
    double total = first ? *first : reduce(views, count, group, kind, 1.0, ahead), unit = 1.0;
    *finite = 1;
    if (!isfinite(total) || (kind == fo_r_sum_squares && total < smallest_safe)) {
        const double largest = reduce(views, count, group, fo_r_max_abs, 1.0, ahead);
        *finite = isfinite(largest);
        if (!*finite || largest == 0)
            return largest;
        unit = unit_for(largest);
        total = reduce(views, count, group, kind, unit, ahead);
    }
    return (kind == fo_r_sum_squares ? sqrt(total) : total) / unit;
}

double fo_norm(const fo_view *views, ptrdiff_t count, int kind, int flush, int *finite)
{
    ptrdiff_t bytes = 0;
    for (ptrdiff_t t = 0; t < count; t++)
        bytes += views[t].data ? views[t].size * fo_item_size(views[t].dtype) : 0;
    const uint64_t control = fpu_begin(flush);
    const double norm = reduce_norm(views, count, EVERY_GROUP, kind, NULL, fo_asks_ahead(bytes), finite);
    fpu_end(control);
    return norm;
}
