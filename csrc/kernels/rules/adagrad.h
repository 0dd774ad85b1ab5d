/* AdaGrad, for one element i. A template: see sgd.h. */

KERNEL(adagrad)
{
    EACH(i) {
        s[i] = s[i] + g[i] * g[i];
        p[i] = p[i] - step * (g[i] / (sqrt(s[i] + eps_in) + eps_out));
    }
}
