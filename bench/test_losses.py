"""The losses on the hot path of a training loop beside good NumPy: value and gradient, `out` given.

"tuned" is what a careful user writes for one dtype, without checks: in-place ufuncs and np.exp on blocks that fit
the cache, sums in that dtype. Disabled, each runs on small arrays and the two are compared. ns/element and GB/s are as
in test_rules.py, the bytes being those of the prediction, the target and the gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bench import ROWS
from fastopt import losses
from fastopt.base.tree import Array
from tests.cases import DTYPES

BLOCK = 1 << 16

SHAPES: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "sparse_cross_entropy": ((300, 50), (4096, 1000)),
    "binary_cross_entropy_with_logits": ((1000,), (1_000_000,)),
    "mse": ((1000,), (1_000_000,)),
}
"""Small and large."""


def softmax(logits: Array, classes: Array, gradient: Array) -> float:
    n, k = logits.shape
    step, total = max(1, BLOCK // k), 0.0
    for start in range(0, n, step):
        x, e, y = (a[start : start + step] for a in (logits, gradient, classes))
        at_class = np.arange(len(y)), y
        np.subtract(x, x.max(axis=1, keepdims=True), out=e)
        total -= e[at_class].sum()
        np.exp(e, out=e)
        sums = e.sum(axis=1, keepdims=True)
        total += np.log(sums).sum()
        sums *= n
        e /= sums
        e[at_class] -= 1 / n
    return total / n


def sigmoid(logits: Array, target: Array, gradient: Array) -> float:
    n, total = logits.size, 0.0
    work, more = np.empty((2, min(n, BLOCK)), logits.dtype)
    for start in range(0, n, BLOCK):
        x, t, g = (a[start : start + BLOCK] for a in (logits, target, gradient))
        e, z = work[: x.size], more[: x.size]
        np.maximum(x, 0, out=z)
        total += z.sum() - np.dot(x, t)
        np.abs(x, out=e)
        np.negative(e, out=e)
        np.exp(e, out=e)
        np.log1p(e, out=z)
        total += z.sum()
        e += 1
        np.minimum(x, 0, out=z)
        np.exp(z, out=g)
        g /= e
        g -= t
        g /= n
    return total / n


def squares(prediction: Array, target: Array, gradient: Array) -> float:
    n, total = prediction.size, 0.0
    for start in range(0, n, BLOCK):
        p, t, g = (a[start : start + BLOCK] for a in (prediction, target, gradient))
        np.subtract(p, t, out=g)
        total += np.dot(g, g)
        g *= 2 / n
    return total / n


TUNED: dict[str, Callable[[Array, Array, Array], float]] = {
    "sparse_cross_entropy": softmax,
    "binary_cross_entropy_with_logits": sigmoid,
    "mse": squares,
}


def of_fastopt(name: str) -> Callable[[Array, Array, Array], float]:
    loss = getattr(losses, name)
    return lambda prediction, target, gradient: loss(prediction, target, out=gradient)[0]


def inputs(name: str, shape: tuple[int, ...], dtype: Any) -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    prediction = rng.normal(size=shape).astype(dtype)
    if name == "sparse_cross_entropy":
        return prediction, rng.integers(shape[1], size=shape[0])
    return prediction, rng.uniform(size=shape).astype(dtype)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    options = metafunc.config.option
    enabled = options.benchmark_enable or not options.benchmark_disable
    metafunc.parametrize(
        "name, dtype, shape, implementation",
        [
            pytest.param(name, dtype, shape, by, id=f"{name}/{np.dtype(dtype)}/{'x'.join(map(str, shape))}/{by}")
            for name, (small, large) in SHAPES.items()
            for shape in ((small, large) if enabled else (small,))
            for dtype in DTYPES
            for by in ("c", "tuned")
        ],
    )


@pytest.mark.benchmark(min_time=1e-4, max_time=0.3, min_rounds=5)
def test_loss(benchmark: Any, name: str, dtype: Any, shape: tuple[int, ...], implementation: str) -> None:
    prediction, target = inputs(name, shape, dtype)
    gradient, other = np.empty((2, *shape), dtype)
    run = of_fastopt(name) if implementation == "c" else TUNED[name]
    check = TUNED[name] if implementation == "c" else of_fastopt(name)
    rtol = 1e-5 if dtype is np.float32 else 1e-13
    assert run(prediction, target, gradient) == pytest.approx(check(prediction, target, other), rel=rtol)
    np.testing.assert_allclose(gradient, other, rtol=rtol, atol=rtol * float(np.abs(other).max()))
    benchmark.group = f"{name}/{np.dtype(dtype)}/{'x'.join(map(str, shape))}"
    benchmark(run, prediction, target, gradient)
    if benchmark.disabled:
        return
    ns = benchmark.stats.stats.median * 1e9 / prediction.size
    speed = (2 * prediction.nbytes + target.nbytes) / prediction.size / ns
    benchmark.extra_info |= {"elements": prediction.size, "ns/element": ns, "GB/s": speed}
    ROWS.setdefault(benchmark.group, {})[implementation] = (ns, speed)
