/* Adafactor: the second moment from its row and column means, a[i] c[i], or in full. A template: see sgd.h.
 *
 * The larger of two numbers is written so that NaN of the first stays. */

KERNEL(adafactor_scaled)
{
    EACH(i) {
        const real v = a[i] * c[i];
        u[i] = g[i] / sqrt(v < floor_v ? floor_v : v);
    }
}

KERNEL(adafactor)
{
    EACH(i) {
        const real v = a[i] * c[i];
        p[i] = p[i] - step * (g[i] / sqrt(v < floor_v ? floor_v : v));
    }
}

KERNEL(adafactor_momentum)
{
    EACH(i) {
        const real v = a[i] * c[i];
        m[i] = beta * m[i] + gain_m * (step * (g[i] / sqrt(v < floor_v ? floor_v : v)));
        p[i] = p[i] - m[i];
    }
}

KERNEL(adafactor_unfactored_moment)
{
    EACH(i) {
        v[i] = keep * v[i] + gain * (g[i] * g[i] + eps_add);
        u[i] = g[i] / sqrt(v[i] < floor_v ? floor_v : v[i]);
    }
}

KERNEL(adafactor_unfactored)
{
    EACH(i) {
        p[i] = p[i] - step * (g[i] / sqrt(v[i] < floor_v ? floor_v : v[i]));
    }
}

KERNEL(adafactor_unfactored_momentum)
{
    EACH(i) {
        m[i] = beta * m[i] + gain_m * (step * (g[i] / sqrt(v[i] < floor_v ? floor_v : v[i])));
        p[i] = p[i] - m[i];
    }
}
