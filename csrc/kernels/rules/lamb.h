/* LAMB: what Adam would do, as long as the parameter. A template: see sgd.h. */

KERNEL(lamb_moments)
{
    EACH(i) {
        m[i] = beta1 * m[i] + gain1 * g[i];
        v[i] = beta2 * v[i] + gain2 * (g[i] * g[i]);
        u[i] = correct * (m[i] / (sqrt(v[i]) * unbias + eps)) + decay * p[i];
    }
}

/* u once more, from what the first walk has written: the same bits, and nothing is stored. */
KERNEL(lamb)
{
    EACH(i) {
        const real u = correct * (m[i] / (sqrt(v[i]) * unbias + eps)) + decay * p[i];
        p[i] = p[i] - step * u;
    }
}
