/* What norms and dot products are made of, over one block of at most FO_CHUNK elements: 16 lanes in double, each
 * element i in lane i % 16, the lanes folded in halves. step.c adds the blocks in index order, so the
 * bits depend on nothing but the data. A template like rules.h.
 *
 * A sum is infinite or NaN when an element is, and only float64 can make it so from finite elements:
 * step.c then asks max_abs, and sums once more with `unit` a power of two that brings max|g| near 1. */

#define IN_LANES(x, value, term, fold) \
    double lane[FO_LANES] = {0}; \
    ptrdiff_t i = 0; \
    for (; i + FO_LANES <= n; i += FO_LANES) \
        for (int j = 0; j < FO_LANES; j++) { \
            const double x = value(i + j); \
            lane[j] = fold(lane[j], term); \
        } \
    for (int j = 0; i + j < n; j++) { \
        const double x = value(i + j); \
        lane[j] = fold(lane[j], term); \
    } \
    for (int half = FO_LANES / 2; half > 0; half /= 2) \
        for (int j = 0; j < half; j++) \
            lane[j] = fold(lane[j], lane[j + half]); \
    return lane[0];

#define SCALED(k) (unit * (double)g[k])
#define REDUCTION(name, x, term, fold) \
    static TARGET double FN(name)(ptrdiff_t n, const void *in, double unit) \
    { \
        const real *restrict g = in; \
        IN_LANES(x, SCALED, term, fold) \
    }

#define SUM(a, b) ((a) + (b))
#define LARGER(a, b) ((b) != (b) ? (b) : (b) > (a) ? (b) : (a))

REDUCTION(sum_squares, x, x * x, SUM)
REDUCTION(sum_abs, x, fabs(x), SUM)
REDUCTION(max_abs, x, fabs(x), LARGER)

/* Two vectors may be one. */
#define PRODUCT(k) ((double)a[k] * (double)b[k])
static TARGET double FN(dot)(ptrdiff_t n, const void *first, const void *second)
{
    const real *a = first, *b = second;
    IN_LANES(x, PRODUCT, x, SUM)
}

#undef PRODUCT
#undef LARGER
#undef SUM
#undef REDUCTION
#undef SCALED
#undef IN_LANES
