/* What gradients are multiplied by, in two factors where one would leave the range of their type and be flushed, or infinite. */
#ifndef FASTOPT_FACTOR_H
#define FASTOPT_FACTOR_H

#include "fastopt.h"

typedef struct {
    double first, second;
} factor;

/* max_norm / norm of 0 < max_norm <= norm, in units that neither factor leaves. */
static inline factor factor_between(double max_norm, double norm)
{
    const double ratio = max_norm / norm;
    return ratio >= 0x1p-1022 ? (factor){ratio, 1} : (factor){max_norm * 0x1p1020 / norm, 0x1p-1020};
}

/* For elements of a type: one factor, and a second of 1, where that has their range. */
static inline factor factor_for(factor x, int dtype)
{
    const double product = x.first * x.second, size = product < 0 ? -product : product;
    if (dtype == FO_F64)
        return size >= 0x1p-1022 && size <= 0x1p1023 ? (factor){product, 1} : x;
    if (size < 0x1p-126)
        return (factor){product * 0x1p126, 0x1p-126};
    return size > 0x1p127 ? (factor){product * 0x1p-126, 0x1p126} : (factor){product, 1};
}

#endif
