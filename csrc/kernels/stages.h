/* What happens around a rule, on a chunk that is in the cache: before it the gradient is loaded,
 * scaled, clamped and penalised and the parameter decays; after it come the proximal step,
 * Lookahead, the bounds and the running average. The last four are passes of their own. A template like rules.h. */

/* The first operation on every loaded gradient: clipping by norm and the sign of `maximize`. */
KERNEL(scale)
{
    EACH(i) {
        out[i] = scale * g[i];
    }
}

/* NaN stays NaN: it is neither below -bound nor above bound. */
KERNEL(clamp)
{
    EACH(i) {
        const real x = one * g[i];
        const real lower = x < -bound ? -bound : x;
        g[i] = lower > bound ? bound : lower;
    }
}

/* The subgradient of l1 * sum|p|, which is 0 at 0. */
KERNEL(l1)
{
    EACH(i) {
        const real x = one * p[i];
        g[i] = g[i] + (x > 0 ? l1 : x < 0 ? -l1 : 0);
    }
}

/* The gradient of l2/2 * sum p^2. */
KERNEL(l2)
{
    EACH(i) {
        g[i] = g[i] + l2 * p[i];
    }
}

KERNEL(decay)
{
    EACH(i) {
        p[i] = keep * p[i];
    }
}

/* The soft threshold, written so that exact zeros are +0 and NaN stays NaN. */
KERNEL(prox_l1)
{
    EACH(i) {
        const real x = one * p[i];
        const real lower = x < -threshold ? -threshold : x;
        p[i] = x - (lower > threshold ? threshold : lower);
    }
}

/* Back part of the way to the slow point, which follows; `turn` is 0 at the steps in between. */
KERNEL(lookahead)
{
    if (turn == 0)
        return;
    EACH(i) {
        const real x = slow[i] + alpha * (p[i] - slow[i]);
        slow[i] = x;
        p[i] = x;
    }
}

/* Into the box, whose sides are rounded for each type. NaN stays NaN: it is on neither side. */
KERNEL(bounds)
{
    const real least = REAL_BITS == 32 ? low_single : low;
    const real most = REAL_BITS == 32 ? high_single : high;
    EACH(i) {
        const real x = one * p[i];
        const real higher = x < least ? least : x;
        p[i] = higher > most ? most : higher;
    }
}

KERNEL(average)
{
    EACH(i) {
        average[i] = decay * average[i] + gain * p[i];
    }
}

/* NaN stays NaN, and a zero stays zero. */
KERNEL(sign)
{
    EACH(i) {
        const real x = one * g[i];
        g[i] = x > 0 ? 1 : x < 0 ? -1 : x;
    }
}

KERNEL(perturb)
{
    EACH(i) {
        p[i] = p[i] + scale * g[i];
    }
}

KERNEL(perturb_adaptive)
{
    EACH(i) {
        p[i] = p[i] + scale * (p[i] * g[i]);
    }
}

/* Written so that the mean of equal numbers is that number. */
KERNEL(mean)
{
    EACH(i) {
        average[i] = average[i] + gain * (g[i] - average[i]);
    }
}

/* A row of a strided array, `stride` bytes apart and aligned to nothing, scaled as `scale` does. */
static TARGET void FN(gather)(ptrdiff_t n, void *out, const char *row, ptrdiff_t stride, double factor)
{
    real *restrict g = out;
    const real scale = (real)factor;
    for (ptrdiff_t i = 0; i < n; i++) {
        real x;
        memcpy(&x, row + i * stride, sizeof x);
        g[i] = scale * x;
    }
}

/* In double, for an average that is kept so. */
static TARGET void FN(widen)(ptrdiff_t n, double *out, const void *in)
{
    double *restrict y = out;
    const real *restrict x = in;
    for (ptrdiff_t i = 0; i < n; i++)
        y[i] = (double)x[i];
}

/* One value n times. */
static TARGET void FN(fill)(ptrdiff_t n, void *out, const void *value)
{
    real *restrict x = out;
    const real one_value = *(const real *)value;
    for (ptrdiff_t i = 0; i < n; i++)
        x[i] = one_value;
}

static TARGET void FN(scatter)(ptrdiff_t n, const void *in, char *row, ptrdiff_t stride)
{
    const real *restrict g = in;
    for (ptrdiff_t i = 0; i < n; i++)
        memcpy(row + i * stride, &g[i], sizeof g[i]);
}

/* Of vectors that are no parameters: see vectors.c. */
static TARGET void FN(axpby)(ptrdiff_t n, void *out, double scale, const void *in, double factor)
{
    real *restrict y = out;
    const real *restrict x = in;
    const real a = (real)scale, b = (real)factor;
    for (ptrdiff_t i = 0; i < n; i++)
        y[i] = a * y[i] + b * x[i];
}
