"""The losses' kernels beside NumPy as a careful user would write it: in place, with np.exp, one scratch array.

    python -m pytest bench/test_loss_kernels.py --benchmark-enable --benchmark-quiet

As bench/test_rules.py, which see for the columns: "c" is the kernel, "tuned" the NumPy here, whose results are compared
with the kernel's before they are timed. GB/s counts prediction, target and gradient once each. No time is asserted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bench import ROWS
from fastopt.base.tree import Array
from fastopt.core import _core
from tests.cases import DTYPES

SHAPES = {
    "softmax": [(64, 10), (256, 10), (4096, 1000)],
    "sigmoid": [(1000,), (1_000_000,)],
    "squared": [(1000,), (1_000_000,)],
}
SMALL = 5000
Run = Callable[[], tuple[Array, Any]]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Large arrays only where something is timed. The two sides of a comparison run one after the other."""
    options = metafunc.config.option
    enabled = options.benchmark_enable or not options.benchmark_disable
    rows = [
        pytest.param(loss, dtype, shape, name, id=f"{loss}/{np.dtype(dtype)}/{'x'.join(map(str, shape))}/{name}")
        for loss, shapes in SHAPES.items()
        for dtype in DTYPES
        for shape in shapes
        if enabled or np.prod(shape) < SMALL
        for name in ("c", "tuned")
    ]
    metafunc.parametrize("loss, dtype, shape, implementation", rows)


def softmax_kernel(x: Array, classes: Array) -> Run:
    g, losses = np.empty_like(x), np.empty(len(x))

    def run() -> tuple[Array, Any]:
        _core.softmax_cross_entropy(x, classes, None, None, g, losses)
        return g, losses

    return run


def softmax_tuned(x: Array, classes: Array) -> Run:
    g, losses, rows = np.empty_like(x), np.empty(len(x)), np.arange(len(x))

    def run() -> tuple[Array, Any]:
        np.subtract(x, x.max(axis=1, keepdims=True), out=g)
        at_class = g[rows, classes]
        np.exp(g, out=g)
        total = g.sum(axis=1, keepdims=True)
        np.divide(g, total, out=g)
        g[rows, classes] -= 1
        np.subtract(np.log(total[:, 0]), at_class, out=losses)
        return g, losses

    return run


def sigmoid_kernel(x: Array, targets: Array) -> Run:
    g, losses = np.empty_like(x), np.empty(x.shape)

    def run() -> tuple[Array, Any]:
        _core.sigmoid_cross_entropy(x, targets, 1.0, g, losses)
        return g, losses

    return run


def sigmoid_tuned(x: Array, targets: Array) -> Run:
    """log(1 + exp(-|x|)) + max(x, 0) - x z, and the sigmoid by tanh, which needs no case for the sign."""
    g, losses, scratch = np.empty_like(x), np.empty(x.shape), np.empty_like(x)

    def run() -> tuple[Array, Any]:
        np.abs(x, out=g)
        np.negative(g, out=g)
        np.exp(g, out=g)
        np.log1p(g, out=g)
        np.maximum(x, 0, out=scratch)
        np.add(g, scratch, out=g)
        np.multiply(x, targets, out=scratch)
        np.subtract(g, scratch, out=losses)
        np.multiply(x, 0.5, out=g)
        np.tanh(g, out=g)
        np.multiply(g, 0.5, out=g)
        np.add(g, 0.5, out=g)
        np.subtract(g, targets, out=g)
        return g, losses

    return run


def squared_kernel(p: Array, t: Array) -> Run:
    g = np.empty_like(p)
    return lambda: (g, _core.squared_error(p, t, 2 / p.size, g))


def squared_tuned(p: Array, t: Array) -> Run:
    g = np.empty_like(p)

    def run() -> tuple[Array, Any]:
        np.subtract(p, t, out=g)
        total = np.dot(g, g)
        np.multiply(g, 2 / p.size, out=g)
        return g, total

    return run


RUNS: dict[str, dict[str, Callable[[Array, Array], Run]]] = {
    "softmax": {"c": softmax_kernel, "tuned": softmax_tuned},
    "sigmoid": {"c": sigmoid_kernel, "tuned": sigmoid_tuned},
    "squared": {"c": squared_kernel, "tuned": squared_tuned},
}


def inputs(loss: str, dtype: Any, shape: tuple[int, ...]) -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    x = (3 * rng.standard_normal(shape)).astype(dtype)
    return x, rng.integers(0, shape[-1], shape[0]) if loss == "softmax" else (rng.random(shape) < 0.5).astype(dtype)


@pytest.mark.benchmark(min_time=1e-4, max_time=0.3, min_rounds=15)
def test_loss(benchmark: Any, loss: str, dtype: Any, shape: tuple[int, ...], implementation: str) -> None:
    x, target = inputs(loss, dtype, shape)
    run = RUNS[loss][implementation](x, target)
    tolerance = 1e3 * float(np.finfo(dtype).eps)
    for found, expected in zip(run(), RUNS[loss]["c"](x, target)(), strict=True):
        assert np.allclose(found, expected, rtol=tolerance, atol=tolerance)
    benchmark.group = f"{loss}/{np.dtype(dtype)}/{'x'.join(map(str, shape))}"
    benchmark(run)
    if benchmark.disabled:
        return
    ns = benchmark.stats.stats.median * 1e9 / x.size
    speed = (2 * x.nbytes + target.nbytes) / x.size / ns
    benchmark.extra_info |= {"elements": x.size, "ns/element": ns, "GB/s": speed, "isa": _core.active_isa()}
    ROWS.setdefault(benchmark.group, {})[implementation] = (ns, speed)
