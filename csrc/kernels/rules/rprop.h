/* Rprop, for one element i. A template: see sgd.h. */

/* After a change of sign the element rests, and `prev` is 0, so that the next step neither grows nor shrinks. NaN stays. */
KERNEL(rprop)
{
    EACH(i) {
        const real x = one * g[i];
        const real change = x * prev[i];
        const real wanted = size[i] * (change > 0 ? plus : change < 0 ? minus : one);
        const real least = wanted < low ? low : wanted;
        const real next = least > high ? high : least;
        const real h = change < 0 ? 0 : x;
        const real sign = h > 0 ? 1 : h < 0 ? -1 : h;
        size[i] = next;
        prev[i] = h;
        p[i] = p[i] - next * sign;
    }
}
