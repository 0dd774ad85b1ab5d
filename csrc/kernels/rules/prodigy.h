/* Prodigy: Adam that estimates how far its parameters have to go. A template: see sgd.h. */

KERNEL(prodigy_moments)
{
    EACH(i) {
        m[i] = beta1 * m[i] + gain1 * g[i];
        v[i] = beta2 * v[i] + gain2 * (g[i] * g[i]);
        s[i] = beta3 * s[i] + gain3 * g[i];
    }
}

KERNEL(prodigy)
{
    EACH(i) {
        const real kept = p[i] - shrink * p[i];
        p[i] = kept - step * (m[i] / (sqrt(v[i]) + eps_d));
    }
}
