"""Initial weights: the variances of the formulas, the fans of both layouts, and PyTorch's."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

import fastopt
from fastopt.training import init

FUNCTIONS = [init.he_normal, init.he_uniform, init.xavier_normal, init.xavier_uniform]
HE = FUNCTIONS[:2]


def is_normal(function: Any) -> bool:
    return function in (init.he_normal, init.xavier_normal)


def assert_drawn_from(weights: Any, function: Any, variance: float) -> None:
    """Of mean 0, this variance and the right shape of distribution; the seeds are fixed, so it cannot be bad luck."""
    std = math.sqrt(variance)
    assert weights.mean() == pytest.approx(0, abs=5 * std / math.sqrt(weights.size))
    assert weights.var() == pytest.approx(variance, rel=0.02)
    if is_normal(function):
        shape = stats.norm(scale=std)
    else:
        bound = math.sqrt(3) * std
        assert np.abs(weights).max() == pytest.approx(bound, rel=1e-3)
        assert np.abs(weights).max() <= bound * (1 + 1e-6)
        shape = stats.uniform(-bound, 2 * bound)
    assert stats.kstest(weights.ravel(), shape.cdf).pvalue > 1e-3


# shape, layout -> fan_in, fan_out
FANS = {
    ((300, 100), "in_out"): (300, 100),
    ((300, 100), "out_in"): (100, 300),
    ((3, 5, 40, 60), "in_out"): (600, 900),
    ((60, 40, 3, 5), "out_in"): (600, 900),
    ((7, 50, 70), "in_out"): (350, 490),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("shape", "layout"), FANS)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_variance(function: Any, shape: tuple[int, ...], layout: str, dtype: Any) -> None:
    fan_in, fan_out = FANS[shape, layout]
    rng = np.random.default_rng(3)
    weights = function(shape, rng, layout=layout, dtype=dtype)
    assert weights.shape == shape
    assert weights.dtype == dtype
    assert weights.flags.c_contiguous
    assert weights.flags.writeable
    if function not in HE:
        assert_drawn_from(weights, function, 2 / (fan_in + fan_out))
        assert_drawn_from(function(shape, rng, layout=layout, gain=5 / 3), function, 25 / 9 * 2 / (fan_in + fan_out))
        return
    assert_drawn_from(weights, function, 2 / fan_in)
    assert_drawn_from(function(shape, rng, layout=layout, fan="fan_out"), function, 2 / fan_out)
    assert_drawn_from(function(shape, rng, layout=layout, gain=1), function, 1 / fan_in)


@pytest.mark.parametrize("shape", [(300, 100), (60, 40, 3, 5)])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_torch(function: Any, shape: tuple[int, ...]) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: nothing to compare with")
    theirs = {
        init.he_normal: lambda w, fan: torch.nn.init.kaiming_normal_(w, mode=fan, nonlinearity="relu"),
        init.he_uniform: lambda w, fan: torch.nn.init.kaiming_uniform_(w, mode=fan, nonlinearity="relu"),
        init.xavier_normal: lambda w, fan: torch.nn.init.xavier_normal_(w),
        init.xavier_uniform: lambda w, fan: torch.nn.init.xavier_uniform_(w),
    }[function]
    torch.manual_seed(0)
    for fan in ("fan_in", "fan_out"):
        w = theirs(torch.empty(shape, dtype=torch.float64), fan).numpy()
        ours = function(shape, 0, layout="out_in", dtype=np.float64, **({"fan": fan} if function in HE else {}))
        assert ours.std() == pytest.approx(w.std(), rel=0.02)
        if not is_normal(function):
            assert np.abs(ours).max() == pytest.approx(np.abs(w).max(), rel=1e-3)


def test_he_keeps_the_variance_of_activations_through_depth() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 256)).astype(np.float32)
    level = np.square(x).mean()
    for _ in range(30):
        x = np.maximum(x @ init.he_normal((256, 256), rng), 0)
    assert 0.3 < np.square(x).mean() / level < 3


def test_a_seed_gives_the_same_numbers_and_a_generator_goes_on() -> None:
    rng = np.random.default_rng(5)
    first, second = init.he_normal((4, 3), rng), init.he_normal((4, 3), rng)
    assert np.array_equal(first, init.he_normal([4, 3], 5))
    assert not np.array_equal(first, second)
    fastopt.Adam({"W": first}).step({"W": second})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"shape": 5}, "shape is 5: expected the sizes of two axes or more"),
        ({"shape": (5,)}, r"shape is \(5,\): fans need two axes or more"),
        ({"shape": (5, 0)}, r"shape\[1\] is 0: expected a whole number, 1 or larger"),
        ({"shape": (5, 2.0)}, r"shape\[1\] is 2.0"),
        ({"rng": None}, "rng is None: expected a generator"),
        ({"gain": 0}, "gain is 0.0: expected a number larger than 0"),
        ({"gain": "relu"}, "gain is 'relu'"),
        ({"layout": "io"}, "layout is 'io': expected one of 'in_out', 'out_in'"),
        ({"dtype": np.float16}, "dtype is .*float16.*: expected np.float32 or np.float64"),
        ({"dtype": None}, "dtype is None"),
        ({"dtype": "single precision"}, "dtype is 'single precision'"),
        ({"dtype": ">f8"}, "dtype is '>f8'"),
    ],
)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_bad_arguments_are_named(function: Any, arguments: dict[str, Any], words: str) -> None:
    rng = np.random.default_rng(0)
    before = rng.bit_generator.state
    with pytest.raises((TypeError, ValueError), match=words):
        function(**{"shape": (5, 3), "rng": rng, **arguments})
    assert rng.bit_generator.state == before


@pytest.mark.parametrize("function", HE)
def test_the_fan_is_one_of_two(function: Any) -> None:
    with pytest.raises(ValueError, match="fan is 'fan_avg': expected one of 'fan_in', 'fan_out'"):
        function((5, 3), 0, fan="fan_avg")
