"""The kernels of csrc/kernels/losses.h and exponential.h once more, in NumPy: same names, same order, same brackets.

As in :mod:`fastopt.reference`, each function equals the compiled kernel bit for bit (any NaN equals any NaN) under the
same flush mode, and checks nothing. The functions with a compiled counterpart take its arguments: see
:func:`fastopt._core.softmax_cross_entropy` and its siblings.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastopt.reference.reductions import CHUNK, LANES, sum_squares
from fastopt.reference.stages import scale as scale_kernel

__all__ = ["exp", "log", "log1p", "sigmoid_cross_entropy", "softmax_cross_entropy", "squared_error"]

Array = NDArray[Any]


class Constants(NamedTuple):
    """csrc/kernels/exponential.h's, of one type; the polynomials from their highest power down."""

    word: Any
    mantissa_bits: int
    inverse_log2: Any
    log2_high: Any
    log2_low: Any
    rounder: Any
    exp_lowest: Any
    exp_polynomial: tuple[Any, ...]
    log_polynomial: tuple[Any, ...]


def _constants(
    real: Any, word: Any, mantissa_bits: int, scalars: list[str], exp_polynomial: list[str], log_polynomial: list[str]
) -> Constants:
    inverse, high, low, rounder, lowest = (real(float.fromhex(x)) for x in scalars)
    polynomials = [tuple(real(float.fromhex(x)) for x in p) for p in (exp_polynomial, log_polynomial)]
    return Constants(word, mantissa_bits, inverse, high, low, rounder, lowest, polynomials[0], polynomials[1])


_F32 = _constants(
    np.float32, np.uint32, 23,
    ["0x1.715476p+0", "0x1.62e4p-1", "0x1.7f7d1cp-20", "0x1.8000fep+23", "-0x1.5d589ep+6"],
    ["0x1.6a244cp-10", "0x1.1239d4p-7", "0x1.5558f2p-5", "0x1.555492p-3", "0x1.fffffcp-2"],
    ["0x1.1ed7aep-2", "0x1.1ebd12p-2", "0x1.99d208p-2", "0x1.555502p-1"],
)  # fmt: skip
_F64 = _constants(
    np.float64, np.uint64, 52,
    [
        "0x1.71547652b82fep+0", "0x1.62e42feep-1", "0x1.a39ef35793c76p-33", "0x1.80000000003ffp+52",
        "-0x1.6232bdd7abcd2p+9",
    ],
    [
        "0x1.ad7f79fe78987p-26", "0x1.28ad68aae6334p-22", "0x1.71df253af112dp-19", "0x1.a0199a16d81fcp-16",
        "0x1.a01a012a6940dp-13", "0x1.6c16c1842670fp-10", "0x1.1111111127b9dp-7", "0x1.555555555088cp-5",
        "0x1.55555555554fap-3", "0x1.000000000000ap-1",
    ],
    [
        "0x1.5c5c1ab375b69p-3", "0x1.55cf5fd70fa55p-4", "0x1.efd18bf1f6e9bp-4", "0x1.10682ee648bf3p-3",
        "0x1.3b1dd3ac67ce3p-3", "0x1.745cb459ad0a6p-3", "0x1.c71c741a06fc8p-3", "0x1.249249209110dp-2",
        "0x1.99999999a06c1p-2", "0x1.5555555555535p-1",
    ],
)  # fmt: skip
_SQRT_HALF, _BIAS = np.uint64(0x3FE6A09E667F3BCD), np.uint64(1023 << 52)
_FRACTION, _MAGIC, _52 = np.uint64((1 << 52) - 1), np.uint64(0x4330000000000000), np.uint64(52)


def _of(x: Array) -> Constants:
    return _F32 if x.dtype == np.float32 else _F64


def _polynomial(coefficients: tuple[Any, ...], x: Array) -> Array:
    total: Array = coefficients[0] * x + coefficients[1]
    for c in coefficients[2:]:
        total = total * x + c
    return total


def exp_sum(x: Array, low: Any) -> Array:
    """exp(x + low) for x <= 88 (709 in float64), or NaN, and a low that is the rounding error of x; 0 where it is less
    than the smallest normal number."""
    c = _of(x)
    shifted = x * c.inverse_log2 + c.rounder
    k = shifted - c.rounder
    r = (x - k * c.log2_high) - (k * c.log2_low - low)
    y: Array = 1 + (r + (r * r) * _polynomial(c.exp_polynomial, r))
    power: Array = (shifted.view(c.word) << c.word(c.mantissa_bits)).view(x.dtype)
    return np.where(x < c.exp_lowest, x.dtype.type(0), y * power)


def exp(x: Array) -> Array:
    return exp_sum(x, x.dtype.type(0))


def _exp_difference(x: Array, largest: Array) -> Array:
    """exp(x - largest), with the rounding error of the difference."""
    difference = x - largest
    back = difference - x
    low = (x - (difference - back)) - (largest + back)
    return exp_sum(difference, low)


def _log_correction(f: Array) -> Array:
    s = f / (2 + f)
    z = s * s
    half: Array = f.dtype.type(0.5) * (f * f)
    correction: Array = half - s * (half + z * _polynomial(_of(f).log_polynomial, z))
    return correction


def log1p(f: Array) -> Array:
    """log(1 + f) for f in [0, 1], or NaN."""
    return f - _log_correction(f)


def log(x: Array) -> Array:
    """For x of float64, positive and normal, or NaN."""
    offset = x.view(np.uint64) - _SQRT_HALF + _BIAS
    k = (offset >> _52 | _MAGIC).view(np.float64) - (2.0**52 + 1023)
    f = ((offset & _FRACTION) + _SQRT_HALF).view(np.float64) - 1
    y = k * _F64.log2_high - ((_log_correction(f) - k * _F64.log2_low) - f)
    return np.where(x == x, y, x)


def log1p_any(f: Array) -> Array:
    """log(1 + f) for any f >= 0 of float64, or NaN."""
    total = 1 + f
    lost = 1 - (total - f)
    large = log(total) + lost / total
    return np.where(f > 1, large, log1p(f))


def _row_sums(terms: Array) -> Array:
    """Of each row, in double: element i in lane i % 16, the lanes folded in halves."""
    rows, columns = terms.shape
    blocks = -(-columns // LANES)
    padded = np.zeros((rows, blocks * LANES))
    padded[:, :columns] = terms
    lane = np.zeros((rows, LANES))
    for block in range(blocks):
        lane = lane + padded[:, block * LANES : (block + 1) * LANES]
    while lane.shape[1] > 1:
        half = lane.shape[1] // 2
        lane = lane[:, :half] + lane[:, half:]
    return lane[:, 0]


def softmax_cross_entropy(
    logits: Array, classes: Array | None, probabilities: Array | None, weights: Array | None,
    gradient: Array | None, losses: Array,
) -> None:  # fmt: skip
    rows = np.arange(len(logits))
    weight = np.ones(len(logits)) if weights is None else weights
    real = logits.dtype.type
    largest = np.max(logits, axis=1, keepdims=True)
    e = _exp_difference(logits, largest)
    below_1 = e < 1
    rest = _row_sums(np.where(below_1, e, real(0))) + (_row_sums(np.where(below_1, real(0), e)) - 1)
    if probabilities is None:
        dot = logits[rows, classes].astype(np.float64) - largest[:, 0].astype(np.float64)
        total = np.ones(len(logits))
    else:
        shifted, p = logits - largest, probabilities.astype(np.float64)
        dot = _row_sums(np.where(probabilities != 0, p * shifted.astype(np.float64), 0.0))
        total, below = _row_sums(p), _row_sums(np.where(shifted < 0, p, 0.0))
    losses[...] = total * log1p_any(rest) - dot
    if gradient is None:
        return
    ratio = weight * total / (1 + rest)
    scale, times = (a.astype(real)[:, None] for a in (ratio, weight))
    if probabilities is not None:
        others = scale * e - times * probabilities
        own = times * below.astype(real)[:, None] - scale * rest.astype(real)[:, None]
        gradient[...] = np.where((rest < 1)[:, None] & (e >= 1), own, others)
        return
    at_class = e[rows, classes].astype(np.float64)
    others = np.where(at_class < 1, 1 + (rest - at_class), rest)
    gradient[...] = scale * e
    gradient[rows, classes] = 0 - scale[:, 0] * others.astype(real)


def sigmoid_cross_entropy(logits: Array, targets: Array, scale: float, gradient: Array | None, losses: Array) -> None:
    real = logits.dtype.type
    size = np.abs(logits)
    e = exp(-size)
    opposite = 1 - targets
    wrong = np.where(logits >= 0, opposite, targets)
    above = np.where(logits >= 0, real(1), e)
    below = np.where(logits >= 0, e, real(1))
    cost = size * wrong
    if gradient is not None:
        gradient[...] = scale * ((above * opposite - below * targets) / (1 + e))
    losses[...] = np.where(wrong != 0, cost, real(0)) + log1p(e)


def squared_error(prediction: Array, target: Array, scale: float, gradient: Array | None) -> float:
    difference = (prediction - target).reshape(-1)
    if gradient is not None:
        scale_kernel(gradient.reshape(-1), difference, scale)
    total = 0.0
    for start in range(0, difference.size, CHUNK):
        total += sum_squares(difference[start : start + CHUNK], 1.0)
    return total
