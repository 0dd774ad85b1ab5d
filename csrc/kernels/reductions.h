/* What norms and dot products are made of, over one block of at most FO_CHUNK elements: 16 lanes in double, each
 * element i in lane i % 16, the lanes folded in halves. step.c adds the blocks in index order, so the
 * bits depend on nothing but the data. A template like rules.h.
 *
 * A sum is infinite or NaN when an element is, and only float64 can make it so from finite elements:
 * step.c then asks max_abs, and sums once more with `unit` a power of two that brings max|g| near 1. */

#define IN_LANES(x, value, term, fold, AHEAD) \
    double lane[FO_LANES] = {0}; \
    ptrdiff_t i = 0; \
    for (; i + FO_LANES <= n; i += FO_LANES) { \
        AHEAD; \
        for (int j = 0; j < FO_LANES; j++) { \
            const double x = value(i + j); \
            lane[j] = fold(lane[j], term); \
        } \
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
#define LANES_AHEAD \
    for (size_t byte = 0; byte < FO_LANES * sizeof(real); byte += 64) \
        __builtin_prefetch((const char *)(g + i) + FO_SUM_AHEAD + byte)
#define REDUCTION(name, x, term, fold, AHEAD) \
    static TARGET double FN(name)(ptrdiff_t n, const void *in, double unit) \
    { \
        const real *restrict g = in; \
        IN_LANES(x, SCALED, term, fold, AHEAD) \
    }

#define SUM(a, b) ((a) + (b))

REDUCTION(sum_squares, x, x * x, SUM, (void)0)
REDUCTION(sum_squares_ahead, x, x * x, SUM, LANES_AHEAD)
REDUCTION(sum_abs, x, fabs(x), SUM, (void)0)

/* Without their signs, numbers are ordered as their bits are, NaN above infinity: so compilers use the maximum of
 * vectors. */
static TARGET double FN(max_abs)(ptrdiff_t n, const void *in, double unit)
{
    const char *g = in;
    const word magnitude = (word)-1 >> 1;
    word lane[FO_LANES] = {0}, rest[FO_LANES] = {0};
    real largest;
    const ptrdiff_t whole = n - n % FO_LANES;
    for (ptrdiff_t i = 0; i < whole; i += FO_LANES)
        for (int j = 0; j < FO_LANES; j++) {
            word x;
            memcpy(&x, g + (i + j) * (ptrdiff_t)sizeof x, sizeof x);
            x &= magnitude;
            lane[j] = x > lane[j] ? x : lane[j];
        }
    memcpy(rest, g + whole * (ptrdiff_t)sizeof(real), (size_t)(n - whole) * sizeof(real));
    for (int j = 0; j < FO_LANES; j++) {
        const word x = rest[j] & magnitude;
        lane[j] = x > lane[j] ? x : lane[j];
    }
    for (int half = FO_LANES / 2; half > 0; half /= 2)
        for (int j = 0; j < half; j++)
            lane[j] = lane[j + half] > lane[j] ? lane[j + half] : lane[j];
    memcpy(&largest, lane, sizeof largest);
    return unit * (double)largest;
}

/* Two vectors may be one. */
#define PRODUCT(k) ((double)a[k] * (double)b[k])
static TARGET double FN(dot)(ptrdiff_t n, const void *first, const void *second)
{
    const real *a = first, *b = second;
    IN_LANES(x, PRODUCT, x, SUM, (void)0)
}

/* The sum of g (a - b), the difference in double too. */
#define DIFFERENCE(k) ((double)g[k] * ((double)a[k] - (double)b[k]))
static TARGET double FN(dot_difference)(ptrdiff_t n, const void *const *in)
{
    const real *g = in[0], *a = in[1], *b = in[2];
    IN_LANES(x, DIFFERENCE, x, SUM, (void)0)
}

/* Adds the squares of a row to its columns' sums. */
static TARGET void FN(add_squares)(ptrdiff_t n, double *restrict sums, const void *in)
{
    const real *restrict g = in;
    for (ptrdiff_t i = 0; i < n; i++) {
        const double x = (double)g[i];
        sums[i] = sums[i] + x * x;
    }
}

#undef DIFFERENCE
#undef PRODUCT
#undef SUM
#undef REDUCTION
#undef LANES_AHEAD
#undef SCALED
#undef IN_LANES
