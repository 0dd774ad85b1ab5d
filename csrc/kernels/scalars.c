/* What happens between the walks of a rule: functions of a few doubles, by the names of registry.h, each with its twin in
 * fastopt/reference/scalars.py. Only + - * / sqrt and comparisons. What is not finite takes the neutral value that the
 * function states, because moments are written by then and a step is not refused any more. */
#include <math.h>
#include <stddef.h>

#include "fastopt.h"

/* Multiplied by a 1 that the compiler does not know, so that a subnormal is flushed before a selection would pass it on. */
static const volatile double one = 1;
#define IN_UNPACK(x) const double x = one * *in++;
#define OUT_DECLARE(x) double x##_ = 0;
#define OUT_PACK(x) *out++ = x##_;
#define NOTHING(x)
#define SCALAR(name, ...) \
    static void run_##name(const double *in, double *out) \
    { \
        FO_##name(IN_UNPACK, NOTHING) \
        FO_##name(NOTHING, OUT_DECLARE) \
        __VA_ARGS__ \
        FO_##name(NOTHING, OUT_PACK) \
    }

static double smaller(double a, double b) { return b < a ? b : a; }
static double larger(double a, double b) { return b > a ? b : a; }

/* LAMB's lr |p| / |u|; the ratio is 1 where either norm is 0 or not finite. */
SCALAR(trust, {
    const double p = smaller(sqrt(pp), largest);
    const double u = sqrt(uu);
    const double found = p / (u + eps_norm);
    const int usable = p > 0 && u > 0 && isfinite(found);
    step_ = lr * (usable ? smaller(larger(found, low), high) : 1.0);
})

/* Adafactor's rate, relative to RMS(p) where `relative` is 1, and less where RMS(u) is above `clipping` (0: do not look);
 * where that is not finite, as if it were below. */
SCALAR(adafactor_step, {
    const double rms_p = sqrt(pp / elements);
    const double rms_u = sqrt(uu / elements);
    const double size = relative != 0 ? (isfinite(rms_p) ? larger(eps2, rms_p) : eps2) : 1.0;
    const double excess = clipping > 0 && isfinite(rms_u) ? larger(1.0, rms_u / clipping) : 1.0;
    step_ = size * rate / excess;
})

/* Prodigy's numbers from d as it is; rate is lr times the bias correction. */
SCALAR(prodigy_begin, {
    dlr_ = d * rate;
    gain1_ = d * (1 - beta1);
    gain2_ = d * d * (1 - beta2);
    gain3_ = d / d0 * (safeguard != 0 ? d : dlr_);
})

/* Prodigy's estimate of d, as prodigyopt (`by_max` 1) or as optax (0); d stays where the estimate is not finite, and where
 * no gradient has been other than 0 the step is taken back. */
SCALAR(prodigy_estimate, {
    const double sum = beta3 * num + d / d0 * dlr * dot;
    const double d_hat = d_coef * sum / den;
    const int usable = den > 0 && isfinite(d_hat);
    const double start = by_max != 0 && d == d0 ? larger(d, d_hat) : d;
    const double most = larger(d_max, d_hat);
    const double next = by_max != 0 ? smaller(most, start * growth) : larger(d, d_hat);
    go_ = den > 0;
    num_ = den > 0 && isfinite(sum) ? sum : num;
    d_max_ = usable ? most : d_max;
    d_ = usable ? next : d;
    step_ = dlr;
    shrink_ = decay * dlr;
    eps_d_ = d_ * eps;
})

/* Polyak's step, as optax: 0 where |scaling g|^2 + eps is not above the precision of double, and where anything is not
 * finite. */
SCALAR(polyak, {
    const double size = scaling * scaling * gg + eps;
    const double gap = positive != 0 ? larger(loss - f_min, 0.0) : loss - f_min;
    const double found = smaller(gap / size, largest);
    step_ = size > 0x1p-52 && isfinite(size) && isfinite(found) ? scaling * found : 0.0;
})

#define COUNT(x) +1
#define NAME(x) #x,
#define INFO(name_) \
    [fo_scalar_##name_] = { \
        .name = #name_, .ins = 0 FO_##name_(COUNT, NOTHING), .outs = 0 FO_##name_(NOTHING, COUNT), \
        .in = {FO_##name_(NAME, NOTHING)}, .out = {FO_##name_(NOTHING, NAME)}, .run = run_##name_},
const fo_scalar_info fo_scalars[FO_SCALAR_COUNT] = {FO_SCALARS(INFO)};

#define FITS(name_) \
    _Static_assert((0 FO_##name_(COUNT, NOTHING)) <= FO_MAX_COEFS, "raise FO_MAX_COEFS"); \
    _Static_assert((0 FO_##name_(NOTHING, COUNT)) <= FO_MAX_OUTS, "raise FO_MAX_OUTS");
FO_SCALARS(FITS)
