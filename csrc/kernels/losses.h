/* Losses with their gradients, by rows or by elements. A template like rules.h, on exponential.h.
 *
 * A row of logits is taken in vectors of 16; its last n % 16 elements are copied into one of their own, filled up with
 * -infinity, which adds nothing. Sums over a row are in double, of element i in lane i % 16, lanes folded in halves.
 * What runs over vectors is not inlined, and its inner loop kept: compilers would unroll it before they vectorise. */

#if defined(__clang__)
#define KEEP_LOOP
#else
#define KEEP_LOOP _Pragma("GCC unroll 1")
#endif
#define VECTORS(result) static __attribute__((noinline)) TARGET result
#define EACH_LANE(i, j) \
    for (ptrdiff_t i = 0; i < n; i += FO_LANES) \
        KEEP_LOOP for (int j = 0; j < FO_LANES; j++)
#define EACH_FOLD(j) \
    for (int half = FO_LANES / 2; half > 0; half /= 2) \
        for (int j = 0; j < half; j++)

INLINE double FN(fold)(double *lane)
{
    EACH_FOLD(j) {
        lane[j] = lane[j] + lane[j + half];
    }
    return lane[0];
}

/* NaN is passed over: the subtraction of the maximum finds it again. */
VECTORS(void) FN(larger)(ptrdiff_t n, const real *restrict x, real *restrict max)
{
    EACH_LANE(i, j) {
        max[j] = x[i + j] > max[j] ? x[i + j] : max[j];
    }
}

/* e = exp(x - max). Elements below 1 are added to `rest`, the others, which are the maximum, to `tops`: a sum over all
 * would round away what a sure row leaves for the other classes. */
VECTORS(void) FN(add_exp)(ptrdiff_t n, const real *restrict x, real max, real *restrict e, double *restrict rest,
                          real *restrict tops)
{
    EACH_LANE(i, j) {
        e[i + j] = FN(exp_difference)(x[i + j], max);
    }
    EACH_LANE(i, j) {
        rest[j] = rest[j] + (double)(e[i + j] < 1 ? e[i + j] : 0);
    }
    EACH_LANE(i, j) {
        tops[j] = tops[j] + (e[i + j] < 1 ? 0 : e[i + j]);
    }
}

/* What has no probability costs nothing, though its logit be -infinity. */
VECTORS(void) FN(add_cost)(ptrdiff_t n, const real *restrict x, real max, const real *restrict p, double *restrict dot,
                           double *restrict total, double *restrict below)
{
    EACH_LANE(i, j) {
        const double product = (double)p[i + j] * (double)(x[i + j] - max);
        dot[j] = dot[j] + (p[i + j] != 0 ? product : 0);
    }
    EACH_LANE(i, j) {
        total[j] = total[j] + (double)p[i + j];
    }
    EACH_LANE(i, j) {
        const double p_below = (double)p[i + j];
        below[j] = below[j] + (x[i + j] - max < 0 ? p_below : 0);
    }
}

/* One row: its gradient, and rest, total and dot, of which the loss is total log(1 + rest) - dot. */
INLINE void FN(softmax_row)(ptrdiff_t n, const real *restrict x, ptrdiff_t class, const real *restrict p,
                            double weight, real *restrict g, double *rest, double *total, double *dot)
{
    const ptrdiff_t whole = n - n % FO_LANES, end = n > whole ? FO_LANES : 0;
    const size_t tail = (size_t)(n - whole) * sizeof(real);
    real x_end[FO_LANES], p_end[FO_LANES] = {0}, g_end[FO_LANES], lane[FO_LANES], scratch[FO_CHUNK];
    double rests[FO_LANES] = {0}, tops[FO_LANES] = {0}, dots[FO_LANES] = {0}, totals[FO_LANES] = {0};
    double belows[FO_LANES] = {0}, below = 0;
    for (int j = 0; j < FO_LANES; j++)
        lane[j] = x_end[j] = -(real)INFINITY;
    memcpy(x_end, x + whole, tail);
    FN(larger)(whole, x, lane);
    FN(larger)(end, x_end, lane);
    EACH_FOLD(j) {
        lane[j] = lane[j + half] > lane[j] ? lane[j + half] : lane[j];
    }
    const real max = lane[0];
    for (ptrdiff_t i = 0; i < n; i += FO_CHUNK) {
        real counts[FO_LANES] = {0}; /* exact, of a chunk */
        const ptrdiff_t count = whole - i < FO_CHUNK ? whole - i : FO_CHUNK;
        FN(add_exp)(count, x + i, max, g ? g + i : scratch, rests, counts);
        if (count < FO_CHUNK)
            FN(add_exp)(end, x_end, max, g_end, rests, counts);
        for (int j = 0; j < FO_LANES; j++)
            tops[j] = tops[j] + (double)counts[j];
    }
    *rest = FN(fold)(rests) + (FN(fold)(tops) - 1);
    if (p) {
        memcpy(p_end, p + whole, tail);
        FN(add_cost)(whole, x, max, p, dots, totals, belows);
        FN(add_cost)(end, x_end, max, p_end, dots, totals, belows);
        *dot = FN(fold)(dots);
        *total = FN(fold)(totals);
        below = FN(fold)(belows);
    } else {
        *dot = (double)x[class] - (double)max;
        *total = 1;
    }
    if (!g)
        return;
    memcpy(g + whole, g_end, tail);
    const double sum = 1 + *rest;
    const double ratio = weight * *total / sum;
    const real scale = (real)ratio, times = (real)weight;
    if (p) {
        /* The gradient of a class above one half is that of the others, with the sign turned: small beside its
         * probability where that is sure, and not rounded away. */
        const real own = times * (real)below - scale * (real)*rest;
        if (*rest < 1) {
            EACH(i) {
                const real other = scale * g[i] - times * p[i];
                g[i] = g[i] < 1 ? other : own;
            }
        } else {
            EACH(i) {
                g[i] = scale * g[i] - times * p[i];
            }
        }
        return;
    }
    const double at_class = (double)g[class];
    const double others = at_class < 1 ? 1 + (*rest - at_class) : *rest;
    EACH(i) {
        g[i] = scale * g[i];
    }
    g[class] = 0 - scale * (real)others;
}

/* A class is read once and compared again: since the door looked, another thread may have written it. Returns 0, and
 * leaves the rows that follow, where one is out of range. */
static TARGET int FN(softmax_cross_entropy)(ptrdiff_t rows, ptrdiff_t n, const void *logits, const int64_t *classes,
                                            const void *probabilities, const double *weights, void *gradient,
                                            double *losses)
{
    const real *x = logits, *p = probabilities;
    real *g = gradient;
    for (ptrdiff_t row = 0; row < rows; row += FO_LANES) {
        const int count = rows - row < FO_LANES ? (int)(rows - row) : FO_LANES;
        double rest[FO_LANES] = {0}, total[FO_LANES] = {0}, dot[FO_LANES] = {0}, loss[FO_LANES];
        for (int r = 0; r < count; r++) {
            const ptrdiff_t i = row + r;
            const int64_t class = p ? 0 : *(const volatile int64_t *)(classes + i);
            if (class < 0 || class >= n)
                return 0;
            FN(softmax_row)(n, x + i * n, (ptrdiff_t)class, p ? p + i * n : NULL,
                            weights ? weights[i] : 1.0, g ? g + i * n : NULL, &rest[r], &total[r], &dot[r]);
        }
        for (int r = 0; r < FO_LANES; r++)
            loss[r] = total[r] * JOIN(log1p_any, f64, ISA)(rest[r]) - dot[r];
        memcpy(losses + row, loss, (size_t)count * sizeof(double));
    }
    return 1;
}

/* The loss is what |x| adds on the wrong side, and log(1 + exp(-|x|)); neither it nor the gradient cancels at
 * targets 0 and 1. */
INLINE void FN(sigmoid_part)(ptrdiff_t n, const real *restrict x, const real *restrict z, real scale, real *restrict g,
                             double *restrict losses)
{
    real loss[FO_CHUNK];
    EACH(i) {
        const real size = fabs(x[i]);
        const real e = FN(exp)(-size);
        const real opposite = 1 - z[i];
        const real wrong = x[i] >= 0 ? opposite : z[i];
        const real above = x[i] >= 0 ? 1 : e, below = x[i] >= 0 ? e : 1;
        const real cost = size * wrong;
        g[i] = scale * ((above * opposite - below * z[i]) / (1 + e));
        loss[i] = (wrong != 0 ? cost : 0) + FN(log1p)(e);
    }
    EACH(i) {
        losses[i] = (double)loss[i];
    }
}

static TARGET void FN(sigmoid_cross_entropy)(ptrdiff_t n, const void *logits, const void *targets, double scale,
                                             void *gradient, double *losses)
{
    const real *x = logits, *z = targets;
    real *g = gradient, scratch[FO_CHUNK];
    for (ptrdiff_t start = 0; start < n; start += FO_CHUNK)
        FN(sigmoid_part)(n - start < FO_CHUNK ? n - start : FO_CHUNK, x + start, z + start, (real)scale,
                         g ? g + start : scratch, losses + start);
}

/* gradient = scale (prediction - target), and the sum of squares of the differences in the blocks of a norm. */
static TARGET void FN(squared_error)(ptrdiff_t n, const void *prediction, const void *target, double scale,
                                     void *gradient, double *parts)
{
    const real *p = prediction, *t = target;
    real *g = gradient, difference[FO_CHUNK];
    for (ptrdiff_t start = 0; start < n; start += FO_CHUNK) {
        const ptrdiff_t count = n - start < FO_CHUNK ? n - start : FO_CHUNK;
        for (ptrdiff_t i = 0; i < count; i++)
            difference[i] = p[start + i] - t[start + i];
        if (g)
            FN(scale)(count, g + start, difference, (real)scale);
        *parts++ = FN(sum_squares)(count, difference, 1.0);
    }
}

#undef EACH_FOLD
#undef EACH_LANE
#undef VECTORS
#undef KEEP_LOOP
