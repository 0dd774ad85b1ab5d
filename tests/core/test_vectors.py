"""The vectors of a descent: dot products, directions and pairs have the bits of their NumPy twins on every
instruction set, and the direction is that of the inverse Hessian which BFGS builds as a matrix."""

from __future__ import annotations

import itertools
import math
import sys
from typing import Any

import numpy as np
import pytest

from fastopt import reference
from fastopt.app.selftest import same_bits
from fastopt.base import memory
from fastopt.core import _core
from fastopt.engine.numpy_plan import ReferenceVectors
from tests.cases import DTYPES, SPECIAL, ordinary, sprinkled

LENGTHS = [0, 1, 15, 16, 17, 100, 1023, 1024, 1025, 3100]
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)


@every_dtype
@pytest.mark.parametrize("n", LENGTHS)
def test_dot(n: int, dtype: Any, isa: str) -> None:
    rng = np.random.default_rng(n)
    a, b = ordinary(rng, n, dtype), ordinary(rng, n, dtype)
    found = _core.dot(a, b)
    products = a.astype(float) * b.astype(float)
    assert found == reference.dot(a, b)
    assert found == pytest.approx(math.fsum(products), abs=1e-14 * float(np.abs(products).sum()))
    assert _core.dot(a, a) == reference.dot(a, a)


@every_dtype
def test_dot_of_special_values(dtype: Any, isa: str) -> None:
    rng = np.random.default_rng(0)
    with np.errstate(all="ignore"):
        for kinds in itertools.combinations(SPECIAL, 2):
            a, b = sprinkled(rng, 1100, dtype, *kinds), sprinkled(rng, 1100, dtype, *kinds)
            assert same_bits(np.array(_core.dot(a, b)), np.array(reference.dot(a, b)))


def descents(n: int, dtype: Any, history: int) -> list[Any]:
    return [vectors(n, dtype, history, memory.zeros) for vectors in (_core.Vectors, ReferenceVectors)]


@every_dtype
@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("history", [0, 1, 4])
def test_a_descent_has_the_bits_of_its_twin(n: int, dtype: Any, history: int, isa: str) -> None:
    rng = np.random.default_rng(n)
    curvature = (0.1 + rng.random(n)).astype(dtype)
    ours, theirs = both = descents(n, dtype, history)
    start = ordinary(rng, n, dtype)
    for v in both:
        v.x[...] = start
        v.g[...] = curvature * start
    for step in range(7):
        assert ours.direct() == theirs.direct()
        assert same_bits(ours.d, theirs.d)
        for v in both:
            v.move(0.3)
            # A pair that leads uphill, and must not be kept, every third time.
            v.trial_g[...] = (-1 if step % 3 == 2 else 1) * curvature * v.trial_x
        assert same_bits(ours.trial_x, theirs.trial_x)
        assert (ours.slope(), ours.trial_slope(), ours.steepness()) == (
            theirs.slope(),
            theirs.trial_slope(),
            theirs.steepness(),
        )
        for v in both:
            v.accept()
        assert ours.count == theirs.count <= history
        flat = [[a for pair in v.pairs() for a in pair] for v in both]
        assert all(same_bits(a, b) for a, b in zip(*flat, strict=True))
    assert n < 15 or history == 0 or ours.count > 0


@every_dtype
def test_steepness_sees_what_is_not_finite(dtype: Any, isa: str) -> None:
    for v in descents(1030, dtype, 0):
        v.g[1] = -3
        assert v.steepness() == (3, 3)
        for bad in (math.inf, -math.inf):
            v.g[1027] = bad
            assert v.steepness()[0] == math.inf
        v.g[3] = math.nan
        assert math.isnan(v.steepness()[0])


@every_dtype
@pytest.mark.parametrize("flush", [True, False], ids=["flush", "keep"])
def test_subnormals_count_in_any_mode_of_the_caller_s_which_comes_back(dtype: Any, flush: bool, isa: str) -> None:
    tiny = dtype(2.0 ** (-140 if dtype is np.float32 else -1040))
    x, g = np.array([[5, 1], [2, 4]], dtype) * tiny
    trial_g = np.full(2, -(2.0**40), dtype)
    for v in descents(2, dtype, 1):
        with _core.subnormals(flush):
            before = _core.control_word()
            v.x[...], v.g[...], v.trial_g[...] = x, g, trial_g
            slope = v.direct()
            v.move(1.0)
            steep = v.trial_slope()
            v.accept()
            after = _core.control_word()
        assert after == before
        assert same_bits(v.d, -g)
        assert slope == -20 * float(tiny) ** 2
        assert same_bits(v.x, x - g)
        assert steep == 6 * float(tiny) * 2.0**40
        assert same_bits(v.pairs()[0][0], -g)


def test_the_direction_is_that_of_the_bfgs_matrix() -> None:
    """Nocedal & Wright, 6.17, from gamma I on, over the pairs kept."""
    n, history = 6, 3
    rng = np.random.default_rng(1)
    A = rng.standard_normal((n, n))
    A = A @ A.T + np.eye(n)
    v = _core.Vectors(n, np.float64, history, memory.zeros)
    v.x[...] = rng.standard_normal(n)
    v.g[...] = A @ v.x
    for _ in range(5):
        v.direct()
        v.move(0.1)
        v.trial_g[...] = A @ v.trial_x
        v.accept()
    pairs = v.pairs()
    assert len(pairs) == history
    s, y = pairs[-1]
    H = np.eye(n) * (s @ y) / (y @ y)
    for s, y in pairs:
        V = np.eye(n) - np.outer(y, s) / (s @ y)
        H = V.T @ H @ V + np.outer(s, s) / (s @ y)
    slope = v.direct()
    np.testing.assert_allclose(v.d, -H @ v.g, rtol=1e-11)
    assert slope < 0
    assert (slope, v.slope()) == pytest.approx((v.g @ v.d, v.g @ v.d))
    assert v.trial_slope() == pytest.approx(v.trial_g @ v.d)
    assert v.steepness() == pytest.approx((max(abs(v.g)), np.linalg.norm(v.g)))


@pytest.mark.parametrize(
    ("s", "y", "kept"),
    [
        ([1.0, 0.0], [1.0, 5.0], True),
        ([1.0, 0.0], [0.0, 1.0], False),
        ([1.0, 0.0], [-1.0, 0.0], False),
        ([1.0, 1.0], [1.0, -1.0 + 1e-12], True),
        ([1.0, 1.0], [1.0, -1.0 + 2e-16], False),
        ([0.0, 0.0], [0.0, 0.0], False),
        ([1e-200, 0.0], [1e-200, 0.0], False),
        ([1.0, 0.0], [math.nan, 0.0], False),
        ([1.0, 0.0], [1e200, 0.0], False),
        ([1e-150, 0.0], [1e-150, 0.0], True),
        ([1.0, 0.0], [2.0**-52, 1.0], False),
        ([1.0, 0.0], [math.sqrt(sys.float_info.max), float.fromhex("0x1.6a09e667f3bcdp+485")], True),
        ([2.0**-512, 0.0], [2.0**-512, 0.0], False),
        ([2.0**-511, 0.0], [2.0**-512, 0.0], True),
        ([1e12, 0.0], [1.0, 1e5], True),
        ([1.0, 1e5], [1e12, 0.0], True),
    ],
)
def test_a_pair_is_kept_where_its_curvature_is_safely_positive(s: Any, y: Any, kept: bool) -> None:
    """At the borders s.y is epsilon |s||y|, y.y the largest number, and 1 / s.y the first that overflows."""
    for v in descents(2, np.float64, 1):
        for _ in range(2):
            v.replace([(np.array(s), np.array(y))], [])
            assert v.count == kept
        v.forget()
        assert v.count == 0
        assert v.pairs() == []


def test_the_length_of_a_pair_is_that_of_all_blocks() -> None:
    """s.y is 1, and lost in the rounding of a step of 1e17 that shows in the last block alone."""
    for v in descents(2 * _core.CHUNK + 1, np.float64, 1):
        s, y = np.zeros((2, 2 * _core.CHUNK + 1))
        s[0] = y[0] = 1
        s[-1] = 1e17
        v.replace([(s, y)], [])
        assert v.count == 0


def test_dot_takes_vectors_that_match() -> None:
    for a, b, error in [
        (np.ones(3), np.ones(4), ValueError),
        (np.ones(3), np.ones(3, np.float32), ValueError),
        (np.ones((2, 2)), np.ones((2, 2)), ValueError),
        (np.ones(3, int), np.ones(3, int), TypeError),
        (np.ones(6)[::2], np.ones(3), ValueError),
    ]:
        with pytest.raises(error):
            _core.dot(a, b)
