/* exp, log1p and log for the losses, of the arguments that losses have: range reduction, a polynomial, an exact power
 * of two, and no call. Errors are below 2 ulp, coefficients from tools/minimax.py: see docs/decisions/exponential.md.
 * A template like rules.h; `word` is the unsigned integer of real's size. */

#if REAL_BITS == 32
#define MANTISSA_BITS 23
#define INVERSE_LOG2 0x1.715476p+0f
#define LOG2_HIGH 0x1.62e4p-1f /* ends in so many zeros that its product with any exponent is exact */
#define LOG2_LOW 0x1.7f7d1cp-20f
#define ROUNDER (0x1.8p23f + 127)
#define EXP_LOWEST -0x1.5d589ep+6f
#define EXP_POLYNOMIAL(r) \
    ((((0x1.6a244cp-10f * r + 0x1.1239d4p-7f) * r + 0x1.5558f2p-5f) * r + 0x1.555492p-3f) * r + 0x1.fffffcp-2f)
#define LOG_POLYNOMIAL(z) \
    (((0x1.1ed7aep-2f * z + 0x1.1ebd12p-2f) * z + 0x1.99d208p-2f) * z + 0x1.555502p-1f)
#else
#define MANTISSA_BITS 52
#define INVERSE_LOG2 0x1.71547652b82fep+0
#define LOG2_HIGH 0x1.62e42feep-1
#define LOG2_LOW 0x1.a39ef35793c76p-33
#define ROUNDER (0x1.8p52 + 1023)
#define EXP_LOWEST -0x1.6232bdd7abcd2p+9
#define EXP_POLYNOMIAL(r) \
    (((((((((0x1.ad7f79fe78987p-26 * r + 0x1.28ad68aae6334p-22) * r + 0x1.71df253af112dp-19) * r \
    + 0x1.a0199a16d81fcp-16) * r + 0x1.a01a012a6940dp-13) * r + 0x1.6c16c1842670fp-10) * r \
    + 0x1.1111111127b9dp-7) * r + 0x1.555555555088cp-5) * r + 0x1.55555555554fap-3) * r + 0x1.000000000000ap-1)
#define LOG_POLYNOMIAL(z) \
    (((((((((0x1.5c5c1ab375b69p-3 * z + 0x1.55cf5fd70fa55p-4) * z + 0x1.efd18bf1f6e9bp-4) * z \
    + 0x1.10682ee648bf3p-3) * z + 0x1.3b1dd3ac67ce3p-3) * z + 0x1.745cb459ad0a6p-3) * z + 0x1.c71c741a06fc8p-3) * z \
    + 0x1.249249209110dp-2) * z + 0x1.99999999a06c1p-2) * z + 0x1.5555555555535p-1)
#endif

/* exp(x + low) for x <= 88 (709 in double), or NaN, and a low that is the rounding error of x. What is less than the
 * smallest normal number is 0, whatever low.
 *
 * ROUNDER pushes the fraction of x / log 2 out of the mantissa, whose last bits are then the exponent k of the result,
 * with its bias: the shift makes them 2^k. */
INLINE real FN(exp_sum)(real x, real low)
{
    const real shifted = x * INVERSE_LOG2 + ROUNDER;
    const real k = shifted - ROUNDER;
    const real r = (x - k * LOG2_HIGH) - (k * LOG2_LOW - low);
    const real y = 1 + (r + (r * r) * EXP_POLYNOMIAL(r));
    word bits;
    real power;
    memcpy(&bits, &shifted, sizeof bits);
    bits <<= MANTISSA_BITS;
    memcpy(&power, &bits, sizeof power);
    return x < EXP_LOWEST ? 0 : y * power;
}

INLINE real FN(exp)(real x) { return FN(exp_sum)(x, 0); }

/* exp(x - max). A rounded difference of 40 would be off by 2^-19 in float, and so would its exponential: the
 * rounding error is found (Knuth's two-sum) and taken along. */
INLINE real FN(exp_difference)(real x, real max)
{
    const real difference = x - max;
    const real back = difference - x;
    const real low = (x - (difference - back)) - (max + back);
    return FN(exp_sum)(difference, low);
}

/* f - log(1 + f) for f in [0, 1] or [sqrt(1/2) - 1, sqrt(2) - 1], or NaN; from atanh(s), s = f / (2 + f). */
INLINE real FN(log_correction)(real f)
{
    const real s = f / (2 + f);
    const real z = s * s;
    const real half = (real)0.5 * (f * f);
    return half - s * (half + z * LOG_POLYNOMIAL(z));
}

/* log(1 + f) for f in [0, 1], or NaN. */
INLINE real FN(log1p)(real f) { return f - FN(log_correction)(f); }

#if REAL_BITS == 64
/* log(x) for positive normal x, or NaN: x = 2^k (1 + f). MAGIC makes a double of the biased k. */
#define SQRT_HALF UINT64_C(0x3fe6a09e667f3bcd)
#define BIAS (UINT64_C(1023) << 52)
#define FRACTION ((UINT64_C(1) << 52) - 1)
#define MAGIC UINT64_C(0x4330000000000000)
INLINE double FN(log)(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    const uint64_t offset = bits - SQRT_HALF + BIAS;
    const uint64_t exponent = offset >> 52 | MAGIC, fraction = (offset & FRACTION) + SQRT_HALF;
    double k, m;
    memcpy(&k, &exponent, sizeof k);
    memcpy(&m, &fraction, sizeof m);
    k = k - (0x1p52 + 1023);
    const double f = m - 1;
    const double y = k * LOG2_HIGH - ((FN(log_correction)(f) - k * LOG2_LOW) - f);
    return x == x ? y : x;
}

/* log(1 + f) for any f >= 0, or NaN. Above 1 it is the log of the rounded sum, and what the rounding took. */
INLINE double FN(log1p_any)(double f)
{
    const double sum = 1 + f;
    const double lost = 1 - (sum - f);
    const double large = FN(log)(sum) + lost / sum;
    return f > 1 ? large : FN(log1p)(f);
}
#undef SQRT_HALF
#undef BIAS
#undef FRACTION
#undef MAGIC
#endif

#undef MANTISSA_BITS
#undef INVERSE_LOG2
#undef LOG2_HIGH
#undef LOG2_LOW
#undef ROUNDER
#undef EXP_LOWEST
#undef EXP_POLYNOMIAL
#undef LOG_POLYNOMIAL
