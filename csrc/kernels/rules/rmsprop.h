/* RMSprop in its four forms, for one element i. A template: see sgd.h. */

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
