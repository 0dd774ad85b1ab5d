/* Averaged gradient descent, for one element i. A template: see sgd.h. */

KERNEL(asgd)
{
    EACH(i) {
        p[i] = keep * p[i] - step * g[i];
        ax[i] = decay * ax[i] + gain * p[i];
    }
}
