"""fastopt.losses against gradcheck, closed forms and loops; layouts, `out` and the extremes."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastopt
from fastopt import losses
from fastopt.app.selftest import same_bits
from fastopt.base.tree import Array
from fastopt.losses import rows
from fastopt.losses.reduction import BLOCK
from tests.cases import DTYPES
from tests.losses.loss_cases import BY_CLASS, CASES, Case, K, N

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
every_reduction = pytest.mark.parametrize("reduction", ["mean", "sum", "none"])


def test_every_loss_has_a_case() -> None:
    assert {case.loss.__name__ for case in CASES} == set(losses.__all__)


@every_case
@every_reduction
def test_gradient_is_that_of_the_value(case: Case, reduction: str) -> None:
    x, args, options = case.inputs()

    def total(x: Array) -> tuple[float, Array]:
        value, gradient = case.loss(x, *args, reduction=reduction, **options)
        return float(np.sum(value)), gradient

    value, gradient = case.loss(x, *args, reduction=reduction, **options)
    assert gradient.dtype == x.dtype
    assert gradient.shape == x.shape
    report = fastopt.gradcheck(total, None, x)
    assert report, report
    assert (value.dtype == np.float64) if reduction == "none" else (type(value) is float)


@every_case
def test_reductions_agree(case: Case) -> None:
    x, args, options = case.inputs()
    separate, slopes = case.loss(x, *args, reduction="none", **options)
    total, of_total = case.loss(x, *args, reduction="sum", **options)
    mean, of_mean = case.loss(x, *args, **options)
    assert total == pytest.approx(separate.sum(), rel=1e-14)
    np.testing.assert_allclose(of_total, slopes, rtol=1e-14, atol=1e-300)
    np.testing.assert_allclose(of_mean, of_total * (mean / total), rtol=1e-12, atol=1e-300)


@every_case
def test_float32_is_double_rounded(case: Case) -> None:
    x, args, options = case.inputs(np.float32)
    value, gradient = case.loss(x, *args, **options)
    wide = [a.astype(np.float64) if getattr(a, "dtype", None) == np.float32 else a for a in args]
    exact, exact_gradient = case.loss(x.astype(np.float64), *wide, **options)
    assert gradient.dtype == np.float32
    assert value == pytest.approx(exact, rel=1e-6)
    np.testing.assert_allclose(gradient, exact_gradient, rtol=1e-5, atol=1e-7 * np.abs(exact_gradient).max())


def test_var_gradient() -> None:
    rng = np.random.default_rng(1)
    mean, target, var = rng.normal(size=6), rng.normal(size=6), rng.uniform(0.5, 2, 6)
    for options in ({}, {"weight": np.arange(6.0)}, {"reduction": "sum"}):
        value, by_mean, _ = losses.gaussian_nll(mean, target, var, var_gradient=True, **options)
        assert (value, by_mean.tolist()) == (lambda v, g: (v, g.tolist()))(
            *losses.gaussian_nll(mean, target, var, **options)
        )

        def of_var(var: Array, options: Any = options) -> tuple[float, Array]:
            value, _, by_var = losses.gaussian_nll(mean, target, var, var_gradient=True, **options)
            return value, by_var

        report = fastopt.gradcheck(of_var, None, var)
        assert report, report


def test_closed_forms() -> None:
    x, t = np.array([1.0, -3.0]), np.array([0.5, 1.0])
    assert losses.mse(x, t)[0] == (0.25 + 16) / 2
    assert losses.mae(x, t)[0] == 4.5 / 2
    assert losses.lp(x, t, 3)[0] == (0.125 + 64) / 2
    assert losses.huber(x, t, 2.0)[0] == (0.125 + 2 * (4 - 1)) / 2
    assert losses.gaussian_nll(np.zeros(1), [0], [1])[0] == pytest.approx(0.5 * np.log(2 * np.pi), rel=1e-15)
    p, m = np.array([[0.5, 1.0, 0.0, 0.25]]), [[1, 1, 0, 0]]
    assert losses.dice(p, m)[0] == 0.75 / (1.75 + 2 + 1)
    assert losses.iou(p, m)[0] == 0.75 / (1.75 + 2 - 1.5 + 1)
    assert losses.dice(np.array([1.0, 0.0]), [1, 0], smooth=0)[0] == 0
    assert losses.kl_divergence(np.log([[0.2, 0.3, 0.5]]), [[0.2, 0.3, 0.5]])[0] == pytest.approx(0, abs=1e-15)
    assert losses.kl_divergence(np.zeros((1, 4)), [[0.5, 0.5, 0, 0]])[0] == pytest.approx(np.log(2), rel=1e-15)
    assert losses.focal(np.zeros((1, 2)), [0])[0] == pytest.approx(np.log(2) / 4, rel=1e-15)


def weight_of(case: Case) -> tuple[str, Any]:
    options = case.inputs().options
    return next((name, options[name]) for name in ("sample_weight", "weight", "pos_weight") if name in options)


WEIGHTED = [case for case in CASES if case.id.endswith(("weight", "-rows")) and np.shape(weight_of(case)[1]) != (K,)]


@pytest.mark.parametrize("case", WEIGHTED, ids=lambda case: case.id)
def test_a_weight_multiplies_each_loss(case: Case) -> None:
    x, args, options = case.inputs()
    name, weight = weight_of(case)
    plain = {key: option for key, option in options.items() if key != name}
    value, gradient = case.loss(x, *args, reduction="none", **options)
    other, other_gradient = case.loss(x, *args, reduction="none", **plain)
    np.testing.assert_allclose(value, other * weight, rtol=1e-13)
    by_row = weight.reshape(weight.shape + (1,) * (x.ndim - weight.ndim))
    np.testing.assert_allclose(gradient, other_gradient * by_row, rtol=1e-13)


def test_label_smoothing_mixes_in_all_classes() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(N, K)), rng.integers(K, size=N)
    value, gradient = losses.sparse_cross_entropy(x, y, label_smoothing=0.1)
    other, other_gradient = losses.cross_entropy(x, 0.9 * np.eye(K)[y] + 0.1 / K)
    assert value == pytest.approx(other, rel=1e-14)
    np.testing.assert_allclose(gradient, other_gradient, rtol=1e-13)


def test_one_hot_rows_are_classes() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(N, K)), rng.integers(K, size=N)
    for options in ({}, {"weight": BY_CLASS}, {"sample_weight": np.arange(N)}, {"label_smoothing": 0.1}):
        value, gradient = losses.sparse_cross_entropy(x, y, **options)
        other, other_gradient = losses.cross_entropy(x, np.eye(K)[y], **options)
        assert value == pytest.approx(other, rel=1e-14)
        np.testing.assert_allclose(gradient, other_gradient, rtol=1e-13, atol=1e-17)


def test_focal_of_yes_and_no_is_that_of_two_classes() -> None:
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=N) * 3, rng.integers(2, size=N)
    value, gradient = losses.focal(x, y, 1.5, 0.25)
    pairs = np.stack([np.zeros(N), x], axis=1)
    other, other_gradient = losses.focal(pairs, y, 1.5, [0.75, 0.25])
    assert value == pytest.approx(other, rel=1e-14)
    np.testing.assert_allclose(gradient, other_gradient[:, 1], rtol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
def test_sequences_against_a_loop(dtype: Any) -> None:
    rng = np.random.default_rng(6)
    lengths = [5, 2, 0, 3]
    x = rng.normal(size=(4, 5, K)).astype(dtype)
    classes = rng.integers(K, size=(4, 5))
    mask = np.arange(5) < np.array(lengths)[:, None]
    classes[~mask] = 99
    value, gradient = losses.sequence_cross_entropy(x, classes, mask)
    total, slopes = 0.0, np.zeros_like(x)
    for i, length in enumerate(lengths):
        for t in range(length):
            row = x[i, t].astype(np.float64)
            softmax = np.exp(row) / np.exp(row).sum()
            total -= np.log(softmax[classes[i, t]])
            slopes[i, t] = (softmax - np.eye(K)[classes[i, t]]) / sum(lengths)
    assert value == pytest.approx(total / sum(lengths), rel=1e-6 if dtype == np.float32 else 1e-14)
    np.testing.assert_allclose(gradient, slopes, atol=1e-7 if dtype == np.float32 else 1e-15)
    assert not gradient[~mask].any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_many_blocks_are_one(dtype: Any) -> None:
    """Sizes around the block: sums and gradients do not depend on where blocks end."""
    rng = np.random.default_rng(7)
    for n in (BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 3):
        x, t = rng.normal(size=(2, n)).astype(dtype)
        for loss in (losses.mse, losses.huber, losses.binary_cross_entropy_with_logits):
            target = np.abs(t) / 9 if loss is losses.binary_cross_entropy_with_logits else t
            value, gradient = loss(x, target, reduction="sum")
            parts = [loss(x[i::2], target[i::2], reduction="sum") for i in (0, 1)]
            assert value == pytest.approx(sum(part[0] for part in parts), rel=1e-12)
            assert all(same_bits(gradient[i::2], parts[i][1]) for i in (0, 1))
    for k in (3, 1000, BLOCK + 5):
        x = rng.normal(size=(2 * BLOCK // k + 3, k)).astype(dtype)
        y = rng.integers(k, size=len(x))
        for options in ({}, {"weight": rng.uniform(size=k)}):
            value, gradient = losses.sparse_cross_entropy(x, y, reduction="none", **options)
            for row in (0, len(x) // 2, len(x) - 1):
                only = slice(row, row + 1)
                part, slopes = losses.sparse_cross_entropy(x[only], y[only], reduction="none", **options)
                assert same_bits(value[only], part)
                assert same_bits(gradient[only], slopes)


def layouts(x: Array) -> dict[str, Array]:
    wide = np.zeros((*x.shape, 3), x.dtype)
    wide[..., 1] = x
    bytes_off = np.zeros(x.nbytes + 1, np.uint8)[1:].view(x.dtype).reshape(x.shape)
    bytes_off[...] = x
    turned = tuple(slice(None, None, -1) for _ in x.shape)
    return {
        "Fortran": np.asfortranarray(x),
        "one of three": wide[..., 1],
        "reversed": x[turned].copy()[turned],
        "off by a byte": bytes_off,
    }


@every_case
def test_every_layout_gives_the_same_bits(case: Case) -> None:
    x, args, options = case.inputs()
    value, gradient = case.loss(x, *args, **options)
    for layout, a in layouts(x).items():
        before = a.copy()
        found, slopes = case.loss(a, *args, **options)
        assert (found, same_bits(slopes, gradient)) == (value, True), layout
        assert same_bits(a, before), layout
    for layout, a in layouts(args[0]).items():
        assert case.loss(x, a, *args[1:], **options)[0] == value, layout


@every_case
def test_rows_get_what_they_ask_for(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """What rows.py may rely on: kernels check nothing."""

    def checked(name: str) -> Callable[..., Any]:
        function = getattr(rows, name)

        def call(*given: Any) -> Any:
            arguments = inspect.signature(function).bind(*given).arguments
            for key, a in arguments.items():
                if isinstance(a, np.ndarray):
                    double = key in ("weights", "losses")
                    assert a.dtype == (np.int64 if key == "classes" else np.float64 if double else given[0].dtype), key
                    assert all((a.flags.c_contiguous, a.flags.aligned, a.dtype.isnative)), key
                    assert a.shape == given[0].shape[: a.ndim], key
            return function(*given)

        return call

    for dtype in DTYPES:
        x, args, options = case.inputs(dtype)
        for name in ("softmax_cross_entropy", "sigmoid_cross_entropy", "squared_error"):
            monkeypatch.setattr(rows, name, checked(name))
        target = args[0].astype(np.int32) if args[0].dtype == np.int64 else args[0]
        for a, b in zip(layouts(x).values(), layouts(target).values(), strict=True):
            case.loss(a, b, *args[1:], **options)
        monkeypatch.undo()


@every_case
def test_nothing_given_is_written(case: Case) -> None:
    x, args, options = case.inputs()
    given = [a for a in (x, *args, *options.values()) if isinstance(a, np.ndarray)]
    before = [a.copy() for a in given]
    for a in given:
        a.flags.writeable = False
    case.loss(x, *args, **options)
    case.loss(x, *args, out=np.empty_like(x), **options)
    assert all(np.array_equal(a, b) for a, b in zip(given, before, strict=True))
    for a in given:
        a.flags.writeable = True


@every_case
def test_out(case: Case) -> None:
    for dtype in DTYPES:
        x, args, options = case.inputs(dtype)
        value, gradient = case.loss(x, *args, **options)
        out = np.full_like(x, np.nan)
        found, returned = case.loss(x, *args, out=out, **options)
        assert returned is out
        assert (found, same_bits(out, gradient)) == (value, True)
        found, returned = case.loss(x, *args, out=x, **options)
        assert returned is x
        assert (found, same_bits(x, gradient)) == (value, True)


@every_case
def test_out_is_checked_before_it_is_written(case: Case) -> None:
    x, args, options = case.inputs()
    memory = np.concatenate([x.ravel(), x.ravel()])
    shifted = memory[: x.size].reshape(x.shape)
    read_only = x.copy()
    read_only.flags.writeable = False
    refused = {
        "shape": np.empty(x.shape[::-1]),
        "dtype": np.empty(x.shape, np.float32),
        "C-contiguous": np.empty((*x.shape, 2))[..., 0],
        "read-only": read_only,
        "overlaps": memory[1 : x.size + 1].reshape(x.shape),
        "numpy array": [0.0],
    }
    for message, out in refused.items():
        before = np.array(out)
        with pytest.raises((TypeError, ValueError), match=rf"^out .*{message}"):
            case.loss(shifted, *args, out=out, **options)
        assert same_bits(np.array(out), before)


def test_out_may_overlap_no_other_input() -> None:
    x, t = np.ones((2, 3, 3)) / 3
    for call in (
        lambda: losses.mse(x, t, out=t),
        lambda: losses.mae(x, t, weight=t, out=t),
        lambda: losses.cross_entropy(x, t, out=t),
        lambda: losses.cross_entropy(x, x.copy(), weight=t[0], out=t),
        lambda: losses.sequence_cross_entropy(x[None], [[0, 1, 2]], t[:1], out=t[None]),
        lambda: losses.gaussian_nll(x, x.copy(), t, out=t),
        lambda: losses.dice(x, t, out=t),
        lambda: losses.huber(x, memoryview(t), out=t),
    ):
        with pytest.raises(ValueError, match=r"out overlaps .*, which no loss writes"):
            call()
    assert (t == 1 / 3).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_extreme_logits(dtype: Any) -> None:
    biggest = float(np.finfo(dtype).max)
    for size in (1e4, 1e30, biggest):
        x = np.array([[size, -size, 0.0], [-size, -size, -size], [size, size, -size]], dtype)
        value, gradient = losses.sparse_cross_entropy(x, [0, 1, 1], reduction="none")
        np.testing.assert_allclose(value, [0, np.log(3), np.log(2)], atol=1e-7)
        np.testing.assert_allclose(gradient, [[0, 0, 0], [1 / 3, -2 / 3, 1 / 3], [0.5, -0.5, 0]], atol=1e-7)
        value, gradient = losses.cross_entropy(x, [[1, 0, 0], [0, 1, 0], [0.5, 0.5, 0]], reduction="none")
        np.testing.assert_allclose(value, [0, np.log(3), np.log(2)], atol=1e-7)
        x = np.array([size, -size, size, -size], dtype)
        value, gradient = losses.binary_cross_entropy_with_logits(x, [1, 0, 0, 1], reduction="none")
        np.testing.assert_allclose(value, [0, 0, x[0], x[0]], rtol=1e-7)
        assert gradient.tolist() == [0, 0, 1, -1]
        value, gradient = losses.focal(x, [1, 0, 0, 1], reduction="none")
        np.testing.assert_allclose(value, [0, 0, x[0], x[0]], rtol=1e-7)
        assert gradient.tolist() == [0, 0, 1, -1]
    x = np.array([[1e4, -1e4, 0.0]], dtype)
    assert losses.sparse_cross_entropy(x, [1])[0] == 2e4
    assert losses.focal(x, [1])[0] == 2e4
    gradient = losses.focal(np.array([[-biggest, biggest]], dtype), [0], 0.5, reduction="sum")[1]
    assert gradient.tolist() == [[-1, 1]]
    # A loss far below the rounding of 1 keeps its digits.
    x = np.array([40.0], dtype)
    assert losses.binary_cross_entropy_with_logits(x, [1])[0] == pytest.approx(np.exp(-40.0), rel=1e-6, abs=0)


def test_probabilities_of_0_and_1_are_as_in_torch() -> None:
    value, gradient = losses.binary_cross_entropy(np.array([0.0, 1.0, 0.0, 1.0]), [0, 1, 1, 0], reduction="none")
    assert value.tolist() == [0, 0, 100, 100]
    assert gradient.tolist() == [0, 0, -1e12, 1e12]


def test_what_overflows_is_infinite() -> None:
    x = np.array([1e200, 1.0])
    assert losses.mse(x, [0, 0])[0] == np.inf
    assert losses.mse(x, [0, 0])[1].tolist() == [1e200, 1]
    assert losses.lp(x, [0, 0], 4)[1].tolist() == [np.inf, 2]


def test_targets_are_anything_that_converts() -> None:
    x = np.array([0.25, 0.5], np.float32)
    for t in ([0, 1], (0.0, 1.0), np.array([0, 1], np.uint8), np.array([False, True]), np.array([0, 1], ">f8")):
        value, gradient = losses.mse(x, t)
        assert value == (0.0625 + 0.25) / 2
        assert gradient.dtype == np.float32
    for y in ([1], np.array([1], np.uint8), np.array([1], ">i2")):
        assert losses.sparse_cross_entropy(np.zeros((1, 2)), y)[0] == np.log(2)


def test_0_d() -> None:
    value, gradient = losses.mse(np.array(3.0), 1.0)
    assert (value, gradient.shape, float(gradient)) == (4.0, (), 4.0)
    assert losses.huber(np.array(3.0), 1.0, reduction="none")[0].shape == ()


def test_a_mask_is_a_weight() -> None:
    x, t = np.random.default_rng(8).normal(size=(2, 20))
    keep = t > 0
    for loss, by in itertools.product((losses.mse, losses.mae, losses.huber), (keep, keep.astype(int))):
        value, gradient = loss(x, t, weight=by)
        other, slopes = loss(x[keep], t[keep])
        assert value == pytest.approx(other, rel=1e-14)
        np.testing.assert_allclose(gradient[keep], slopes, rtol=1e-14)
        assert not gradient[~keep].any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_without_gradient_or_weights(dtype: Any) -> None:
    rng = np.random.default_rng(9)
    n, k = 20, BLOCK // 12
    x, y = rng.normal(size=(n, k)).astype(dtype), rng.integers(k, size=n)
    found, alone, gradient = np.empty(n), np.empty(n), np.empty_like(x)
    for classes, probabilities in ((y, None), (None, rng.dirichlet(np.ones(k), n).astype(dtype))):
        rows.softmax_cross_entropy(x, classes, probabilities, None, gradient, found)
        rows.softmax_cross_entropy(x, classes, probabilities, None, None, alone)
        assert same_bits(alone, found)
        weighted = np.empty_like(x)
        rows.softmax_cross_entropy(x, classes, probabilities, np.ones(n), weighted, found)
        assert same_bits(weighted, gradient)
        assert same_bits(alone, found)
