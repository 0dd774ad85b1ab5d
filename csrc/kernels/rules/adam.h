/* Adam, AMSGrad and NAdam, for one element i. A template: see sgd.h. */

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
