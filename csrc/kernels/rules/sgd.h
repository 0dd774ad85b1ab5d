/* Gradient descent and its momenta, for one element i: as every rule, written once here and once in NumPy.
 *
 * A template: instantiate.h defines `real` (float or double), KERNEL and EACH, and includes this file
 * once per type and instruction set. KERNEL(name) opens a function whose parameters are the buffers
 * and coefficients that registry.h lists under that name. Only + - * / sqrt, comparison and selection
 * are used: these round alike everywhere. The brackets are those of fastopt/reference/sgd.py, and matter. */

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
