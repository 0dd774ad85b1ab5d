"""Every loss once more with mpmath, by its definition in so many digits that nothing cancels, and how far off
fastopt.losses is, in units of the last place. Shared by the tests and tools/ulp_losses.py.

Inputs are sure and right, sure and wrong, undecided, and extreme, with weights from 1e-6 to 1e6.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import mpmath
import numpy as np
from mpmath import mpf

from fastopt import losses
from fastopt.base.tree import Array

K = 5
KINDS = "sure", "wrong", "undecided", "shifted", "extreme"
mpmath.mp.prec = 1200
"""Bits: exp(-745) beside 1, with 53 and more to spare."""


class Exact(NamedTuple):
    """The losses, and by the loss's sum the gradient; `size` is what an error of the gradient, or of a loss, is small
    beside, where that is not itself."""

    losses: list[Any]
    gradient: list[Any]
    gradient_size: list[Any] | None = None
    size: list[Any] | None = None


class Sample(NamedTuple):
    prediction: Array
    args: tuple[Any, ...]
    options: dict[str, Any]


class Case(NamedTuple):
    id: str
    loss: Callable[..., Any]
    sample: Callable[[np.random.Generator, str, int, Any], Sample]
    exact: Callable[..., Exact]


class Errors(NamedTuple):
    value: float
    gradient: float


def exactly(x: Any) -> Any:
    """Numbers as mpmath has them, in lists of lists."""
    a = np.asarray(x)
    return mpf(a.item()) if a.ndim == 0 else [exactly(row) for row in a]


# Losses of rows of logits.


def softmax(x: Sequence[Any]) -> list[Any]:
    largest = max(x)
    e = [mpmath.exp(v - largest) for v in x]
    total = mpmath.fsum(e)
    return [v / total for v in e]


def against(x: Any, targets: Any) -> Exact:
    """-sum_c t_c log q_c with targets of any sum."""
    values, gradient, size = [], [], []
    for row, t in zip(exactly(x), targets, strict=True):
        q, total, largest = softmax(row), mpmath.fsum(t), max(row)
        log_sum = mpmath.log(mpmath.fsum(mpmath.exp(v - largest) for v in row))
        values.append(mpmath.fsum(c * (log_sum - (v - largest)) for c, v in zip(t, row, strict=True) if c))
        hard = sum(c != 0 for c in t) == 1
        for a, c in zip(q, t, strict=True):
            gradient.append(total * a - c)
            size.append(abs(total * a - c) if hard else max(total * a, c))
    return Exact(values, gradient, size)


def mixed(p: Any, weight: Any = None, label_smoothing: float = 0.0) -> list[list[Any]]:
    """The targets that class weights and smoothing make of probabilities."""
    by_class, e = exactly(np.ones(K) if weight is None else weight), mpf(label_smoothing)
    return [[w * ((1 - e) * c + e / K) for w, c in zip(by_class, row, strict=True)] for row in exactly(p)]


def cross_entropy(x: Array, p: Any, **options: Any) -> Exact:
    return against(x, mixed(p, **options))


def sparse_cross_entropy(x: Array, y: Array, **options: Any) -> Exact:
    return cross_entropy(x, np.eye(K)[y], **options)


def kl_divergence(x: Array, p: Any) -> Exact:
    found = against(x, exactly(p))
    negative = [mpmath.fsum(c * mpmath.log(c) for c in row if c) for row in exactly(p)]
    sizes = [max(a, -b) for a, b in zip(found.losses, negative, strict=True)]
    return found._replace(losses=[a + b for a, b in zip(found.losses, negative, strict=True)], size=sizes)


def focal_of(q: Any, others: Any, gamma: Any, alpha: Any) -> tuple[Any, Any]:
    """The loss of the true class's probability, and its derivative by log q. `others` is 1 - q."""
    l = -mpmath.log1p(-others) if others < 0.5 else -mpmath.log(q)
    factor = alpha * others**gamma
    slope = factor + (alpha * gamma * others ** (gamma - 1) * q * l if gamma else 0)
    return factor * l, -slope


def focal(x: Array, y: Array, gamma: float, alpha: Any) -> Exact:
    values, gradient = [], []
    for row, true in zip(exactly(x), y, strict=True):
        q = softmax(row)
        others = mpmath.fsum(v for c, v in enumerate(q) if c != true)
        value, slope = focal_of(q[true], others, mpf(gamma), exactly(alpha)[true])
        values.append(value)
        gradient += [slope * (others if c == true else -v) for c, v in enumerate(q)]
    return Exact(values, gradient)


# Losses of elements.


def sigmoid(x: Any) -> tuple[Any, Any]:
    """The probabilities of yes and no."""
    return 1 / (1 + mpmath.exp(-x)), 1 / (1 + mpmath.exp(x))


def focal_yes_no(x: Array, y: Array, gamma: float, alpha: float) -> Exact:
    values, gradient = [], []
    for v, true in zip(exactly(x), y, strict=True):
        yes, no = sigmoid(v)
        share = mpf(alpha) if true else 1 - mpf(alpha)
        value, slope = focal_of(*((yes, no) if true else (no, yes)), mpf(gamma), share)
        values.append(value)
        gradient.append(slope * (no if true else -yes))
    return Exact(values, gradient)


def with_logits(x: Array, t: Any, pos_weight: Any = None, weight: Any = None) -> Exact:
    one = np.ones(len(x))
    values, gradient, sizes = [], [], []
    weights = (exactly(one if w is None else np.broadcast_to(w, x.shape)) for w in (pos_weight, weight))
    for v, z, positive, w in zip(exactly(x), exactly(t), *weights, strict=True):
        yes, no = sigmoid(v)
        a, b = w * positive * z, w * (1 - z)
        values.append(-(a * mpmath.log(yes) if a else 0) - (b * mpmath.log(no) if b else 0))
        gradient.append(b * yes - a * no)
        sizes.append(max(b * yes, a * no))
    return Exact(values, gradient, sizes)


def binary_cross_entropy(p: Array, t: Any) -> Exact:
    values, gradient = [], []
    for q, z in zip(exactly(p), exactly(t), strict=True):
        values.append(-(z * mpmath.log(q) if z else 0) - ((1 - z) * mpmath.log(1 - q) if z != 1 else 0))
        gradient.append((q - z) / (q * (1 - q)))
    return Exact(values, gradient)


def of_difference(formula: Callable[..., tuple[Any, Any]]) -> Callable[..., Exact]:
    def exact(x: Array, t: Any, *args: Any) -> Exact:
        found = [formula(v - z, *map(mpf, args)) for v, z in zip(exactly(x), exactly(t), strict=True)]
        return Exact([value for value, _ in found], [slope for _, slope in found])

    return exact


def power(d: Any, p: Any) -> tuple[Any, Any]:
    return abs(d) ** p, p * abs(d) ** (p - 1) * mpmath.sign(d)


def huber(d: Any, delta: Any) -> tuple[Any, Any]:
    if abs(d) <= delta:
        return d * d / 2, d
    return delta * (abs(d) - delta / 2), delta * mpmath.sign(d)


def gaussian_nll(x: Array, t: Any, var: Any) -> Exact:
    values, gradient, sizes = [], [], []
    for m, z, v in zip(exactly(x), exactly(t), exactly(var), strict=True):
        terms = mpmath.log(v) / 2, mpmath.log(2 * mpmath.pi) / 2, (m - z) ** 2 / (2 * v)
        values.append(mpmath.fsum(terms))
        gradient.append((m - z) / v)
        sizes.append(max(map(abs, terms)))
    return Exact(values, gradient, None, sizes)


# Losses of overlaps, along the second axis.


def overlap(both: Any, false_positive: Any, false_negative: Any) -> Callable[..., Exact]:
    """1 - (c I + smooth) / (c I + fp FP + fn FN + smooth), with I = sum p m, FP = sum p (1 - m), FN = sum (1 - p) m."""

    c, fp, fn = map(mpf, (both, false_positive, false_negative))

    def exact(p: Array, mask: Any, smooth: float = 1.0, axis: Any = None) -> Exact:
        values, gradient, sizes = [], [], []
        for q, m in zip(exactly(p), exactly(mask), strict=True):
            pairs = list(zip(q, m, strict=True))
            above = c * mpmath.fsum(a * b for a, b in pairs) + mpf(smooth)
            below = above + mpmath.fsum(fp * a * (1 - b) + fn * (1 - a) * b for a, b in pairs)
            values.append(1 - above / below)
            for _, b in pairs:
                by_above, by_below = c * b, c * b + fp * (1 - b) - fn * b
                gradient.append((above / below * by_below - by_above) / below)
                sizes.append(max(above / below * abs(by_below), by_above) / below)
        return Exact(values, gradient, sizes)

    return exact


# Inputs.


def logits(rng: np.random.Generator, kind: str, n: int, dtype: Any, columns: int = K) -> tuple[Array, Array]:
    """Rows of logits and the numbers of their true classes."""
    y = rng.integers(columns, size=n)
    x = rng.normal(size=(n, columns))
    # As far as exp goes in this type.
    reach = 85 if dtype == np.float32 else 700
    if kind in ("sure", "wrong"):
        chosen = y if kind == "sure" else (y + 1) % columns
        x[np.arange(n), chosen] += rng.uniform(0, reach, n)
    if kind == "shifted":
        x += np.exp(rng.uniform(0, 10, (n, 1))) * rng.choice([-1, 1], (n, 1))
    if kind == "extreme":
        x *= 10.0 ** rng.uniform(-30, 30, (n, columns))
    return x.astype(dtype), y


def elements(rng: np.random.Generator, kind: str, n: int, dtype: Any) -> tuple[Array, Array]:
    """Logits and whether each is true."""
    x, y = logits(rng, kind, n, dtype, 2)
    return (x[:, 1].astype(np.float64) - x[:, 0]).astype(dtype), y


def weights(rng: np.random.Generator, shape: Any) -> Array:
    return np.asarray(10 ** rng.uniform(-6, 6, shape))


def soft(rng: np.random.Generator, y: Array, columns: int = K) -> Array:
    """Distributions: one-hot, near it, and any."""
    p = rng.dirichlet(np.ones(columns), len(y))
    p[::3] = 1e-9 * p[::3] + (1 - 1e-9) * np.eye(columns)[y[::3]]
    p[1::3] = np.eye(columns)[y[1::3]]
    return p


def dense_sample(**make: Any) -> Any:
    def sample(rng: np.random.Generator, kind: str, n: int, dtype: Any) -> Sample:
        x, y = logits(rng, kind, n, dtype)
        p = soft(rng, y).astype(dtype)
        return Sample(x, (p,), {name: value(rng) if callable(value) else value for name, value in make.items()})

    return sample


def sparse_sample(*args: Any, **make: Any) -> Any:
    def sample(rng: np.random.Generator, kind: str, n: int, dtype: Any) -> Sample:
        x, y = logits(rng, kind, n, dtype)
        options = {name: value(rng) if callable(value) else value for name, value in make.items()}
        return Sample(x, (y, *(value(rng) if callable(value) else value for value in args)), options)

    return sample


def yes_no_sample(*args: Any) -> Any:
    return lambda rng, kind, n, dtype: Sample((made := elements(rng, kind, n, dtype))[0], (made[1], *args), {})


def unit_sample(hard: bool, wide: bool = False, positive: bool = False, weighted: bool = False) -> Any:
    def sample(rng: np.random.Generator, kind: str, n: int, dtype: Any) -> Sample:
        x, y = elements(rng, kind, n, dtype)
        t = y.astype(np.float64) if hard else np.abs(y - 10 ** rng.uniform(-9, 0, n))
        names = [name for name, on in (("pos_weight", positive), ("weight", weighted)) if on]
        return Sample(x, (t if wide else t.astype(dtype),), {name: weights(rng, n) for name in names})

    return sample


def probability_sample(rng: np.random.Generator, kind: str, n: int, dtype: Any) -> Sample:
    t = rng.integers(2, size=n) if kind in ("sure", "wrong") else rng.uniform(size=n)
    near = 10 ** rng.uniform(-6, 0, n)
    p = {"sure": np.abs(t - near), "wrong": np.abs(1 - t - near)}.get(kind, rng.uniform(size=n))
    return Sample(np.clip(p, 1e-7, 1 - 1e-7).astype(dtype), (t.astype(dtype),), {})


def regression_sample(*args: Any, var: bool = False) -> Any:
    def sample(rng: np.random.Generator, kind: str, n: int, dtype: Any) -> Sample:
        x = rng.normal(size=n).astype(dtype)
        apart = 10 ** rng.uniform(-9 if kind == "sure" else -1, 9 if kind == "extreme" else 1, n)
        more = (10 ** rng.uniform(-3, 3, n),) if var else ()
        # In double, whatever the prediction is.
        return Sample(x, (x + apart, *more, *args), {})

    return sample


def masks_sample(*args: Any) -> Any:
    def sample(rng: np.random.Generator, kind: str, n: int, dtype: Any) -> Sample:
        mask = rng.uniform(size=(n, 30)) < rng.uniform(size=(n, 1))
        near = 10 ** rng.uniform(-9, -1, mask.shape)
        p = {"sure": np.abs(mask - near), "wrong": np.abs(~mask - near)}.get(kind, rng.uniform(size=mask.shape))
        return Sample(p.astype(dtype), (mask, *args), {"axis": 1})

    return sample


by_class = {"weight": lambda rng: weights(rng, K)}
smooth = {"label_smoothing": 0.1}
BCE, WITH = losses.binary_cross_entropy_with_logits, "binary_cross_entropy_with_logits"

CASES = [
    Case("mse", losses.mse, regression_sample(), of_difference(lambda d: (d * d, 2 * d))),
    Case("mae", losses.mae, regression_sample(), of_difference(lambda d: (abs(d), mpmath.sign(d)))),
    Case("lp", losses.lp, regression_sample(1.5), of_difference(power)),
    Case("huber", losses.huber, regression_sample(0.7), of_difference(huber)),
    Case("gaussian_nll", losses.gaussian_nll, regression_sample(var=True), gaussian_nll),
    Case("binary_cross_entropy", losses.binary_cross_entropy, probability_sample, binary_cross_entropy),
    Case(WITH, BCE, unit_sample(True), with_logits),
    Case(f"{WITH}, soft targets", BCE, unit_sample(False), with_logits),
    Case(f"{WITH}, targets in double", BCE, unit_sample(False, True), with_logits),
    Case(f"{WITH}, weight", BCE, unit_sample(False, weighted=True), with_logits),
    Case(f"{WITH}, pos_weight", BCE, unit_sample(False, positive=True), with_logits),
    Case(f"{WITH}, both weights", BCE, unit_sample(True, positive=True, weighted=True),
         with_logits),
    Case("cross_entropy", losses.cross_entropy, dense_sample(), cross_entropy),
    Case("cross_entropy, weight", losses.cross_entropy, dense_sample(**by_class), cross_entropy),
    Case("cross_entropy, smoothing", losses.cross_entropy, dense_sample(**smooth), cross_entropy),
    Case("cross_entropy, both", losses.cross_entropy, dense_sample(**by_class, **smooth), cross_entropy),
    Case("sparse_cross_entropy", losses.sparse_cross_entropy, sparse_sample(), sparse_cross_entropy),
    Case("sparse_cross_entropy, weight", losses.sparse_cross_entropy, sparse_sample(**by_class), sparse_cross_entropy),
    Case("sparse_cross_entropy, smoothing", losses.sparse_cross_entropy, sparse_sample(**smooth), sparse_cross_entropy),
    Case("sparse_cross_entropy, both", losses.sparse_cross_entropy, sparse_sample(**by_class, **smooth),
         sparse_cross_entropy),
    Case("kl_divergence", losses.kl_divergence, dense_sample(), kl_divergence),
    Case("focal", losses.focal, sparse_sample(2.0, lambda rng: weights(rng, K)), focal),
    Case("focal, gamma 0.5", losses.focal, sparse_sample(0.5, np.ones(K)), focal),
    Case("focal, yes and no", losses.focal, yes_no_sample(2.0, 0.25), focal_yes_no),
    Case("dice", losses.dice, masks_sample(1.0), overlap(2, 1, 1)),
    Case("iou", losses.iou, masks_sample(1.0), overlap(1, 1, 1)),
    Case("tversky", losses.tversky, masks_sample(0.3, 0.7, 1.0), lambda p, m, a, b, *more, **options: overlap(1, a, b)(
        p, m, *more, **options)),
]  # fmt: skip


def units(exact: Any, size: Any, dtype: Any) -> Any:
    """What one unit in the last place is, of the larger of two; of the smallest normal number below it."""
    info = np.finfo(dtype)
    largest = max(abs(exact), abs(size), mpf(float(info.tiny)))
    return mpf(2) ** (mpmath.frexp(largest)[1] - 1 - info.nmant)


def worst(found: Any, exact: Sequence[Any], sizes: Sequence[Any] | None, dtype: Any, flushed: Any) -> float:
    """The largest error; `flushed` of each is 0 by rule: probabilities below the smallest normal number are."""
    errors = []
    for i, (a, b) in enumerate(zip(np.ravel(found).tolist(), exact, strict=True)):
        off = max(abs(mpf(a) - b) - flushed, mpf(0))
        errors.append(float(off / units(b, b if sizes is None else sizes[i], dtype)))
    return max(errors)


def measure(case: Case, kind: str, n: int, dtype: Any, seed: int) -> Errors:
    """The worst errors of values and gradients over n samples of a kind, with both reductions."""
    x, args, options = case.sample(np.random.default_rng(seed), kind, n, dtype)
    exact = case.exact(x, *args, **options)
    largest = max([1.0, *(float(np.max(a)) for a in options.values() if isinstance(a, np.ndarray))])
    flushed = mpf(float(np.finfo(dtype).tiny)) * largest * K
    value, gradient = case.loss(x, *args, reduction="none", **options)
    total, of_total = case.loss(x, *args, reduction="sum", **options)
    sums = mpmath.fsum(exact.losses)
    sizes = exact.gradient_size
    return Errors(
        max(
            worst(value, exact.losses, exact.size, dtype, flushed),
            worst(total, [sums], [mpmath.fsum(exact.size or [sums])], dtype, flushed * n),
        ),
        max(worst(g, exact.gradient, sizes, dtype, flushed) for g in (gradient, of_total)),
    )
