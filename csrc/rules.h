/* Every update rule's formula, for one element i, once.
 *
 * A template: instantiate.h defines `real` (float or double), KERNEL and EACH, and includes this file
 * once per type and instruction set. KERNEL(name) opens a function whose parameters are the buffers
 * and coefficients that registry.h lists under that name. Only + - * / sqrt, comparison and selection
 * are used: these round alike everywhere. The brackets are those of fastopt/reference.py, and matter. */

KERNEL(sgd)
{
    EACH(i) {
        p[i] = p[i] - step * g[i];
    }
}

KERNEL(momentum)
{
    EACH(i) {
        b[i] = mu * b[i] + gain * g[i];
        p[i] = p[i] - step * b[i];
    }
}

KERNEL(nesterov)
{
    EACH(i) {
        b[i] = mu * b[i] + gain * g[i];
        p[i] = p[i] - step * (g[i] + mu * b[i]);
    }
}

KERNEL(adagrad)
{
    EACH(i) {
        s[i] = s[i] + g[i] * g[i];
        p[i] = p[i] - step * (g[i] / (sqrt(s[i] + eps_in) + eps_out));
    }
}

KERNEL(rmsprop)
{
    EACH(i) {
        v[i] = rho * v[i] + gain * (g[i] * g[i]);
        p[i] = p[i] - step * (g[i] / (sqrt(v[i] + eps_in) + eps_out));
    }
}

KERNEL(rmsprop_momentum)
{
    EACH(i) {
        v[i] = rho * v[i] + gain * (g[i] * g[i]);
        b[i] = mu * b[i] + g[i] / (sqrt(v[i] + eps_in) + eps_out);
        p[i] = p[i] - step * b[i];
    }
}

/* Rounding can carry v - m*m below zero, where the root is NaN: the variance is clamped at 0. */
KERNEL(rmsprop_centered)
{
    EACH(i) {
        v[i] = rho * v[i] + gain * (g[i] * g[i]);
        m[i] = rho * m[i] + gain * g[i];
        const real difference = v[i] - m[i] * m[i];
        const real variance = difference < 0 ? 0 : difference;
        p[i] = p[i] - step * (g[i] / (sqrt(variance + eps_in) + eps_out));
    }
}

KERNEL(rmsprop_centered_momentum)
{
    EACH(i) {
        v[i] = rho * v[i] + gain * (g[i] * g[i]);
        m[i] = rho * m[i] + gain * g[i];
        const real difference = v[i] - m[i] * m[i];
        const real variance = difference < 0 ? 0 : difference;
        b[i] = mu * b[i] + g[i] / (sqrt(variance + eps_in) + eps_out);
        p[i] = p[i] - step * b[i];
    }
}

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
