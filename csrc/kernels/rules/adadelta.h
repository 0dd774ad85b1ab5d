/* Adadelta, for one element i. A template: see sgd.h. */

/* u is of the steps before this one. */
KERNEL(adadelta)
{
    EACH(i) {
        v[i] = rho * v[i] + gain * (g[i] * g[i]);
        const real d = sqrt(u[i] + eps) / sqrt(v[i] + eps) * g[i];
        u[i] = rho * u[i] + gain * (d * d);
        p[i] = p[i] - step * d;
    }
}
