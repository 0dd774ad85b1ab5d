"""What a loss refuses: one error that names it, and `out` untouched."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fastopt import losses
from tests.losses.loss_cases import CASES, Case

X = np.zeros((2, 3))
P = np.full((2, 3), 0.5)
ROWS = np.full((2, 3), 1 / 3)
Y = [0, 1]
STEPS = np.zeros((2, 4, 3))
MASK = np.ones((2, 4))


def edited(a: Any, index: Any, value: Any) -> Any:
    b = np.array(a)
    b[index] = value
    return b


REFUSED: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any], str]] = [
    (losses.mse, (X, X[0]), {}, r"target has shape \(3,\): expected \(2, 3\), to go with prediction"),
    (losses.mse, (X, 0.0), {}, r"target has shape \(\): expected \(2, 3\)"),
    (losses.mse, (X, X * 1j), {}, "target is an array of complex128: expected real numbers"),
    (losses.mse, (X, None), {}, "target is None that holds object"),
    (losses.mse, (X, [[1], [1, 2]]), {}, "target is no array: .*inhomogeneous"),
    (losses.mse, (X, edited(X, (1, 0), np.nan)), {}, r"target\[1, 0\] is nan: expected a finite number"),
    (losses.mse, (np.zeros(2, np.float32), [0, 1e300]), {}, r"target\[1\] is inf: expected a finite number"),
    (losses.mse, (X, np.ma.masked_equal(X, 0)), {}, "target is a masked array"),
    (losses.mse, (X, X), {"weight": [1, 1]}, r"weight has shape \(2,\): expected \(2, 3\)"),
    (losses.mse, (X, X), {"weight": edited(P, (0, 2), -1)}, r"weight\[0, 2\] is -1.0: expected a weight, 0 or larger"),
    (losses.mse, (X, X), {"weight": edited(P, (0, 2), np.inf)}, r"weight\[0, 2\] is inf: expected a finite number"),
    (losses.mse, (X, X), {"weight": X}, "all weights are 0"),
    (losses.mse, (X, X), {"weight": P * 1e308}, "the weights add up to infinity: divide them by a constant"),
    (losses.lp, (X, X, 0.5), {}, "p is 0.5: expected a finite number, 1 or larger"),
    (losses.lp, (X, X, "2"), {}, "p is '2', a str"),
    (losses.huber, (X, X, 0), {}, "delta is 0.0: expected a number larger than 0"),
    (losses.gaussian_nll, (X, X, X), {}, r"var\[0, 0\] is 0.0: expected a number larger than 0"),
    (losses.gaussian_nll, (X, X, P), {"var_gradient": 1}, "var_gradient is 1: expected True or False"),
    (losses.binary_cross_entropy, (edited(P, (1, 1), 1.5), P), {}, r"probabilities\[1, 1\] is 1.5: .* in \[0, 1\]"),
    (losses.binary_cross_entropy, (P, edited(P, (1, 1), -0.1)), {}, r"target\[1, 1\] is -0.1: .* in \[0, 1\]"),
    (losses.binary_cross_entropy_with_logits, (X, edited(P, 0, np.nan)), {}, r"target\[0, 0\] is nan: .* in \[0, 1\]"),
    (losses.binary_cross_entropy_with_logits, (X, P), {"pos_weight": [1, 2]}, r"pos_weight has shape \(2,\): it"),
    (losses.binary_cross_entropy_with_logits, (X, P), {"pos_weight": [1, -2, 0]}, r"pos_weight\[1\] is -2.0"),
    (losses.cross_entropy, (X[0], ROWS[0]), {}, r"logits has shape \(3,\): expected 2 dimensions \(rows, classes\)"),
    (losses.cross_entropy, (X, P), {}, r"row 0 of probabilities sums to 1.5: expected 1 \(within 1e-05\)"),
    (losses.cross_entropy, (X, [[0, 1, 0], [1.5, -0.5, 0]]), {}, r"probabilities\[1, 1\] is -0.5: expected a probab"),
    (losses.cross_entropy, (X, edited(ROWS, (1, 2), np.nan)), {}, r"probabilities\[1, 2\] is nan"),
    (losses.cross_entropy, (X, ROWS), {"weight": [1, 1]}, r"weight has shape \(2,\): expected \(3,\)"),
    (losses.cross_entropy, (X, ROWS), {"sample_weight": [1]}, r"sample_weight has shape \(1,\): expected \(2,\)"),
    (losses.cross_entropy, (X, ROWS), {"label_smoothing": 1.1}, r"label_smoothing is 1.1: .* in \[0, 1\]"),
    (losses.sparse_cross_entropy, (X, [0, 3]), {}, r"classes\[1\] is 3: expected a class, 0 to 2"),
    (losses.sparse_cross_entropy, (X, [-100, 0]), {}, r"classes\[0\] is -100: expected a class, 0 to 2"),
    (losses.sparse_cross_entropy, (X, [0.0, 1.0]), {}, "classes holds float64: expected integers"),
    (losses.sparse_cross_entropy, (X, [True, False]), {}, "classes holds bool: expected integers"),
    (losses.sparse_cross_entropy, (X, [0, 1, 2]), {}, r"classes has shape \(3,\): expected \(2,\), to go with logits"),
    (losses.sparse_cross_entropy, (X, []), {}, r"classes has shape \(0,\): expected \(2,\)"),
    (losses.sparse_cross_entropy, (X, [7, 7]), {"ignore_index": 7}, "all weights are 0"),
    (losses.sparse_cross_entropy, (X, Y), {"ignore_index": 1.0}, "ignore_index is 1.0: expected a whole number"),
    (losses.sequence_cross_entropy, (X, Y, Y), {}, r"logits has shape \(2, 3\): .* \(sequences, steps, classes\)"),
    (losses.sequence_cross_entropy, (STEPS, MASK.astype(int) * 3, MASK), {}, r"classes\[0, 0\] is 3"),
    (losses.sequence_cross_entropy, (STEPS, MASK.astype(int), MASK[0]), {}, r"mask has shape \(4,\): .* \(2, 4\)"),
    (losses.sequence_cross_entropy, (STEPS, MASK.astype(int), None), {}, "mask is None"),
    (losses.kl_divergence, (X, P), {}, "row 0 of probabilities sums to 1.5"),
    (losses.focal, (X, Y, -1), {}, "gamma is -1.0: expected a finite number, 0 or larger"),
    (losses.focal, (X, Y, 2, 0.25), {}, r"alpha has shape \(\): expected \(3,\), to go with the number of classes"),
    (losses.focal, (X, [[0, 1, 2]] * 2), {}, r"classes\[0, 2\] is 2: expected a class, 0 to 1"),
    (losses.focal, (X, [[0, 1, 1]] * 2, 2, 1.5), {}, r"alpha is 1.5: expected a number in \[0, 1\]"),
    (losses.focal, (STEPS, Y), {}, r"classes has shape \(2,\) and logits \(2, 4, 3\)"),
    (losses.dice, (P, edited(P, (0, 1), 2)), {}, r"mask\[0, 1\] is 2.0: expected a number in \[0, 1\]"),
    (losses.dice, (X, X), {"smooth": 0}, "probabilities and mask are all 0 where smooth is 0"),
    (losses.iou, (P, P), {"smooth": -1}, "smooth is -1.0: expected a finite number, 0 or larger"),
    (losses.iou, (P, P), {"axis": 2}, "axis is 2: expected an axis of 2 dimensions"),
    (losses.dice, (P, P), {"class_weight": [1, 1, 1]}, r"class_weight is given and axis is None of shape \(2, 3\)"),
    (losses.dice, (P, P), {"axis": 0, "class_weight": [1, 1]}, r"class_weight has shape \(2,\): expected \(3,\)"),
    (losses.dice, (P, P), {"axis": 0, "class_weight": [1, -1, 1]}, r"class_weight\[1\] is -1.0: expected a weight"),
    (losses.dice, (P, P), {"axis": 0, "class_weight": [0, 0, 0]}, "all weights are 0"),
    (losses.tversky, (P, P, -1), {}, "alpha is -1.0: expected a finite number, 0 or larger"),
    (losses.tversky, (P, P, 1, np.inf), {}, "beta is inf: expected a finite number, 0 or larger"),
    (losses.tversky, (X, X, 1, 1, 0), {}, "probabilities and mask are all 0 where smooth is 0"),
    (losses.generalized_dice, (P, P), {"axis": 1}, r"axis is 1 of shape \(2, 3\): expected axes besides the last"),
    (losses.generalized_dice, (P, P), {"class_weight": [1, 1]}, r"class_weight has shape \(2,\): expected \(3,\)"),
    (losses.mse, (X, X), {"empty": None}, "empty is None: expected one of 'error', 'zero'"),
]  # fmt: skip


@pytest.mark.parametrize(("loss", "args", "options", "message"), REFUSED)
def test_refused(loss: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any], message: str) -> None:
    out = np.full_like(args[0], 7)
    with pytest.raises((TypeError, ValueError), match=message):
        loss(*args, out=out, **options)
    assert (out == 7).all()


every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)


@every_case
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_prediction_that_is_not_finite(case: Case, bad: float) -> None:
    x, args, options = case.inputs()
    index = (1,) * x.ndim
    x[index] = bad
    out = np.zeros_like(x)
    with pytest.raises(ValueError, match=rf"^\w+\[{', '.join('1' * x.ndim)}\] is {bad}: expected a finite number"):
        case.loss(x, *args, out=out, **options)
    assert not out.any()


@every_case
def test_predictions_are_arrays_of_floats(case: Case) -> None:
    x, args, options = case.inputs()
    for wrong, message in (
        (x.tolist(), "is a list: expected a numpy array of float32 or float64"),
        (x.astype(int), "has dtype <i8: expected float32 or float64"),
        (x.astype(np.float16), "has dtype <f2"),
        (x.astype(">f8"), "has dtype >f8"),
        (np.ma.masked_less(x, 0), "is a masked array"),
    ):
        with pytest.raises(TypeError, match=rf"^\w+ {message}"):
            case.loss(wrong, *args, **options)
    with pytest.raises(ValueError, match=r"there is nothing in it to take a loss of"):
        case.loss(x[:0], *args, **options)


@every_case
def test_unknown_reductions_and_keywords(case: Case) -> None:
    x, args, options = case.inputs()
    with pytest.raises(ValueError, match="reduction is 'batchmean': expected one of 'mean', 'sum', 'none'"):
        case.loss(x, *args, reduction="batchmean", **options)
    with pytest.raises(TypeError, match="size_average"):
        case.loss(x, *args, size_average=True, **options)


@every_case
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_overflows_gives_no_warning(case: Case, dtype: Any) -> None:
    """Warnings are errors in these tests."""
    x, args, options = case.inputs(dtype)
    for factor in (1, float(np.finfo(dtype).max) / 1e3):
        for name in ("", *(name for name in options if "weight" in name or name == "alpha")):
            more = {**options, name: np.multiply(options[name], 1e307)} if name else options
            for reduction in ("sum", "none"):
                with contextlib.suppress(ValueError):
                    case.loss((x * factor).astype(dtype), *args, reduction=reduction, **more)


def test_an_overflow_is_in_the_value() -> None:
    far = np.full(2, np.finfo(float).max)
    assert losses.mse(far, -far)[0] == losses.mse(far, -far, weight=[1, 1])[0] == np.inf
