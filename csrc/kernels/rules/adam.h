/* Adam, AMSGrad, NAdam and Adamax, for one element i. A template: see sgd.h. */

KERNEL(adam)
{
    EACH(i) {
        m[i] = beta1 * m[i] + gain1 * g[i];
        v[i] = beta2 * v[i] + gain2 * (g[i] * g[i]);
        p[i] = p[i] - step * (m[i] / (sqrt(v[i]) * unbias + eps));
    }
}

KERNEL(amsgrad)
{
    EACH(i) {
        m[i] = beta1 * m[i] + gain1 * g[i];
        v[i] = beta2 * v[i] + gain2 * (g[i] * g[i]);
        const real before = one * v_max[i];
        const real larger = v[i] > before ? v[i] : before;
        v_max[i] = v[i] != v[i] ? v[i] : larger;
        p[i] = p[i] - step * (m[i] / (sqrt(v_max[i]) * unbias + eps));
    }
}

KERNEL(nadam)
{
    EACH(i) {
        m[i] = beta1 * m[i] + gain1 * g[i];
        v[i] = beta2 * v[i] + gain2 * (g[i] * g[i]);
        p[i] = p[i] - (step_m * m[i] + step_g * g[i]) / (sqrt(v[i]) * unbias + eps);
    }
}

/* NaN of either stays NaN. */
KERNEL(adamax)
{
    EACH(i) {
        m[i] = beta1 * m[i] + gain1 * g[i];
        const real size = (g[i] < 0 ? -g[i] : g[i]) + eps_in;
        const real before = beta2 * u[i];
        u[i] = size != size ? size : size > before ? size : before;
        p[i] = p[i] - step * (m[i] / (u[i] + eps_out));
    }
}
