/* Lion, Signum and Tiger: one kernel with other numbers. A template: see sgd.h. */

/* The sign of 0 is 0, and NaN stays NaN. */
KERNEL(sign_momentum)
{
    EACH(i) {
        const real x = mix_m * m[i] + mix_g * g[i];
        const real sign = x > 0 ? 1 : x < 0 ? -1 : x;
        p[i] = p[i] - step * sign;
        m[i] = beta * m[i] + gain * g[i];
    }
}
