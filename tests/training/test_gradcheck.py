"""gradcheck: right gradients pass, every kind of wrong one fails and the element is named."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import special
from scipy.optimize import rosen, rosen_der

import fastopt
from fastopt.training.gradcheck import EPS
from tests.lockstep import copies

METHODS = ["central", "forward"]


def point(seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {"layer": {"W": rng.standard_normal((4, 3)), "b": rng.standard_normal(3)}, "out": [rng.standard_normal(3)]}


INPUTS = np.random.default_rng(1).standard_normal((20, 4))
TARGETS = np.random.default_rng(2).integers(0, 2, 20)


def loss_and_gradient(x: Any) -> tuple[Any, Any]:
    """A network with a hidden layer and a logistic loss."""
    hidden = np.tanh(INPUTS @ x["layer"]["W"] + x["layer"]["b"])
    logits = hidden @ x["out"][0]
    value = np.mean(np.logaddexp(0, logits) - TARGETS * logits)
    by_logits = (special.expit(logits) - TARGETS) / len(TARGETS)
    by_hidden = np.outer(by_logits, x["out"][0]) * (1 - hidden**2)
    gradient = {"layer": {"W": INPUTS.T @ by_hidden, "b": by_hidden.sum(axis=0)}, "out": [hidden.T @ by_logits]}
    return value, gradient


def loss(x: Any) -> Any:
    return loss_and_gradient(x)[0]


def gradient(x: Any) -> Any:
    return loss_and_gradient(x)[1]


@pytest.mark.parametrize("method", METHODS)
def test_a_right_gradient_passes(method: str) -> None:
    x = point()
    for report in (
        fastopt.gradcheck(loss, gradient, x, method=method),
        fastopt.gradcheck(loss_and_gradient, None, x, method=method),
    ):
        assert report, report
        assert report.wrong == []
        assert report.worst.excess < 0.1
        assert "passed: 18 elements" in str(report)
        assert repr(report.worst.name) in str(report)


FUNCTIONS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any], Any]] = {
    "Rosenbrock": (rosen, rosen_der, np.array([-1.2, 1.0, 3.0, 0.1])),
    "Rosenbrock at its minimum": (rosen, rosen_der, np.ones(5)),
    "square, whose gradient is x itself": (lambda x: x @ x / 2, lambda x: x, np.array([1.0, -2.0, 0.0])),
    "constant": (lambda x: 7.0, np.zeros_like, np.ones((2, 3))),
    "large and small elements": (lambda x: np.sum(x**2), lambda x: 2 * x, np.array([1e9, 1e-9, 1.0])),
    "large values": (lambda x: 1e12 * np.sum(np.sin(x)), lambda x: 1e12 * np.cos(x), np.linspace(-3, 3, 9)),
    "small values": (lambda x: 1e-12 * np.sum(np.sin(x)), lambda x: 1e-12 * np.cos(x), np.linspace(-3, 3, 9)),
    "a scalar": (lambda x: np.exp(x), lambda x: np.exp(x), np.array(0.5)),
    "logarithm of the sum of exponentials": (special.logsumexp, special.softmax, np.array([700.0, -700.0, 699.0])),
    "log gamma": (lambda x: special.gammaln(x).sum(), special.digamma, np.array([0.5, 1.0, 30.0])),
    "a trace": (lambda x: np.trace(x @ x), lambda x: 2 * x.T, np.arange(9.0).reshape(3, 3)),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_with_known_gradients(name: str, method: str) -> None:
    f, grad, x = FUNCTIONS[name]
    if "minimum" in name and method == "forward":
        x = x + 0.1  # At the minimum itself forward differences are nothing but their error.
    report = fastopt.gradcheck(f, grad, x, method=method)
    assert report, report
    if name != "constant" and "minimum" not in name:
        doubled = fastopt.gradcheck(f, lambda x: 2 * grad(x), x, method=method)
        assert not doubled, doubled
        slightly = fastopt.gradcheck(f, lambda x: 1.01 * grad(x), x, method=method)
        assert not slightly, slightly


def changed(change: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def wrong(x: Any) -> Any:
        g = gradient(x)
        change(g)
        return g

    return wrong


def add(name: str, index: Any, amount: float) -> Callable[[Any], None]:
    def change(g: Any) -> None:
        target = g["out"][0] if name == "out.0" else g["layer"][name[-1]]
        target[index] += amount * max(1e-2, abs(target[index]))

    return change


WRONG = {
    "a little": (add("layer.W", (2, 1), 1e-3), "layer.W", (2, 1)),
    "the sign": (add("layer.b", 2, -2.0), "layer.b", (2,)),
    "a lot": (add("out.0", 0, 1e6), "out.0", (0,)),
    "nan": (add("layer.W", (3, 0), math.nan), "layer.W", (3, 0)),
    "infinity": (add("layer.b", 1, math.inf), "layer.b", (1,)),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_element_is_named(kind: str, method: str) -> None:
    change, name, index = WRONG[kind]
    report = fastopt.gradcheck(loss, changed(change), point(), method=method)
    assert not report
    (element,) = report.wrong
    assert (element.name, element.index) == (name, index)
    assert (report.worst.name, report.worst.index) == (name, index)
    assert "failed: 1 of 18 elements are wrong" in str(report)
    assert f"worst: {name!r} at index {index}" in str(report)
    assert [n for n, excess in report.excess.items() if (excess > 1).any()] == [name]


def test_the_worst_of_many_is_first() -> None:
    def change(g: Any) -> None:
        g["layer"]["W"] *= 1.01
        g["out"][0][1] *= 5

    report = fastopt.gradcheck(loss, changed(change), point())
    assert len(report.wrong) == 13
    assert (report.worst.name, report.worst.index) == ("out.0", (1,))
    assert report.worst.relative_error == pytest.approx(0.8)
    text = str(report)
    assert text.index("'out.0' at index (1,)") < text.index("'layer.W'")
    assert text.endswith("... 3 more: 12 of 12 in 'layer.W', 0 of 3 in 'layer.b', 1 of 3 in 'out.0'")


@pytest.mark.parametrize("wrong", [lambda g: g.T.copy().reshape(g.shape), lambda g: np.zeros_like(g), lambda g: -g])
def test_usual_mistakes(wrong: Callable[[Any], Any]) -> None:
    x = np.random.default_rng(3).standard_normal((5, 4))
    assert fastopt.gradcheck(lambda x: np.sum(np.sin(x)), np.cos, x)
    assert not fastopt.gradcheck(lambda x: np.sum(np.sin(x)), lambda x: wrong(np.cos(x)), x)


def test_differences_are_those_of_the_formula() -> None:
    x = np.array([3.0, -0.25])
    steps: list[Any] = []

    def f(x: Any) -> Any:
        steps.append(x - [3.0, -0.25])
        return np.exp(x).sum()

    central = fastopt.gradcheck(f, np.exp, x)
    h = EPS ** (1 / 3)
    np.testing.assert_allclose(steps, np.array([[0, 0], [3 * h, 0], [-3 * h, 0], [0, h], [0, -h]]), rtol=1e-9)
    assert central.differences["x"] == pytest.approx(np.exp(x), rel=1e-9)
    steps.clear()
    forward = fastopt.gradcheck(f, np.exp, x, method="forward")
    h = EPS**0.5
    np.testing.assert_allclose(steps, np.array([[0, 0], [3 * h, 0], [0, h]]), rtol=1e-7)
    # h/2 of the second derivative is left out.
    np.testing.assert_allclose(forward.differences["x"], np.exp(x), rtol=1e-6)
    steps.clear()
    fastopt.gradcheck(f, np.exp, x, step=0.5)
    np.testing.assert_allclose(steps, [[0, 0], [1.5, 0], [-1.5, 0], [0, 0.5], [0, -0.5]])


def test_tolerances() -> None:
    x = np.array([1.0, 2.0])

    def off(x: Any) -> Any:
        return np.cos(x) * (1 + 1e-3)

    def f(x: Any) -> Any:
        return np.sin(x).sum()

    assert not fastopt.gradcheck(f, off, x)
    assert fastopt.gradcheck(f, off, x, rtol=2e-3)
    assert fastopt.gradcheck(f, off, x, atol=1e-3)
    assert not fastopt.gradcheck(f, off, x, rtol=0.9e-3, atol=0)
    report = fastopt.gradcheck(f, off, x, rtol=0, atol=0.5)
    np.testing.assert_allclose(report.excess["x"], np.abs(off(x) - np.cos(x)) / 0.5, rtol=1e-6)
    assert (report.rtol, report.atol) == (0, 0.5)


def test_rounding_of_large_values_is_allowed_for() -> None:
    x = np.linspace(-1, 1, 9)

    def f(x: Any) -> Any:
        return 1e6 + np.sin(x).sum()

    report = fastopt.gradcheck(f, np.cos, x)
    assert report, report
    assert 1e-3 < report.atol < 1e-2
    assert not fastopt.gradcheck(f, np.cos, x, atol=0)
    assert not fastopt.gradcheck(f, lambda x: 1.01 * np.cos(x), x)


def test_a_gradient_in_a_buffer_that_f_uses_again() -> None:
    x = np.array([1.0, 2.0, 3.0])
    buffer = np.empty(3)

    def f(x: Any) -> Any:
        return np.exp(x).sum(), np.exp(x, out=buffer)

    report = fastopt.gradcheck(f, None, x)
    assert report, report
    assert np.array_equal(report.gradients["x"], np.exp(x))


def test_x_is_never_changed_and_may_be_anything_an_optimizer_takes() -> None:
    x = point()
    x["layer"]["W"] = np.asfortranarray(x["layer"]["W"].astype(np.float32))
    x["layer"]["b"] = x["layer"]["b"][::-1]
    x["out"][0].flags.writeable = False
    before = copies(x)
    seen: list[Any] = []

    def f(y: Any) -> Any:
        seen.append((y["layer"]["W"].dtype, y["layer"]["W"] is x["layer"]["W"]))
        return loss(y)

    report = fastopt.gradcheck(f, gradient, x)
    assert report, report
    assert set(seen) == {(np.dtype(np.float64), False)}
    assert str(before) == str(x)
    assert x["layer"]["W"].dtype == np.float32
    assert not fastopt.gradcheck(loss, changed(add("layer.W", (2, 1), 1e-3)), x)


def test_a_function_that_rounds_to_float32_does_not_pass() -> None:
    x = np.linspace(0.5, 1, 5)
    assert not fastopt.gradcheck(lambda x: np.sum(np.sin(x.astype(np.float32))), np.cos, x)


def test_values_that_are_not_finite() -> None:
    x = np.array([[0.0, 1.0], [2.0, 3.0]])
    with np.errstate(all="ignore"):
        report = fastopt.gradcheck(lambda x: np.sum(np.sqrt(x)), lambda x: np.where(x > 0, 0.5 / np.sqrt(x), 7.0), x)
    (element,) = report.wrong
    assert element.index == (0, 0)
    assert "'x' at index (0, 0): gradient 7, difference nan, for f is not finite beside x there" in str(report)
    with np.errstate(all="ignore"), pytest.raises(ValueError, match=r"f\(x\) is -inf: there is nothing to compare"):
        fastopt.gradcheck(lambda x: np.log(x).sum(), lambda x: 1 / x, x)
    with pytest.raises(ValueError, match=r"'b' of x is not finite at index \(1,\)"):
        fastopt.gradcheck(loss, gradient, {"a": np.ones(2), "b": np.array([1.0, np.inf])})


def test_a_kink_is_seen() -> None:
    report = fastopt.gradcheck(lambda x: np.abs(x).sum(), np.sign, np.array([1.0, 0.0, -1.0]), method="forward")
    assert [element.index for element in report.wrong] == [(1,)]


def square(x: Any) -> Any:
    return np.sum(x["W"] ** 2) + np.sum(x["b"] ** 2)


XS = {"W": np.ones((2, 3)), "b": np.ones(3), "empty": np.zeros((0, 2))}


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        ({**XS, "W": np.ones((3, 2))}, r"gradient of 'W' has shape \(3, 2\) and the tensor \(2, 3\)"),
        ({**XS, "b": np.ones((3, 1))}, r"gradient of 'b' has shape \(3, 1\)"),
        ({**XS, "b": np.float64(1)}, r"gradient of 'b' has shape \(\)"),
        ({**XS, "b": None}, "gradient of 'b' is None: expected an array, of zeros"),
        ({**XS, "b": np.ones(3, int)}, "gradient of 'b' is an array of int64: expected floating-point"),
        ({**XS, "b": np.ones(3, complex)}, "gradient of 'b' is an array of complex128"),
        ({**XS, "b": [1.0, 1.0, 1.0]}, "gradient of 'b' is a list"),
        ({"W": XS["W"], "b": XS["b"]}, "no gradient for 'empty'"),
        (XS["W"], "gradient tree is an array of float64: expected a dict"),
        (None, "gradient of 'W' is None"),
    ],
)
def test_gradients_that_do_not_fit_raise(returned: Any, words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        fastopt.gradcheck(square, lambda x: returned, XS)
    with pytest.raises((TypeError, ValueError), match=words):
        fastopt.gradcheck(lambda x: (square(x), returned), None, XS)


def in_place(x: Any) -> Any:
    x -= x.max()
    return np.exp(x).sum()


ONES = np.ones(3)
BAD_CALLS: dict[str, tuple[Callable[[], Any], str]] = {
    "method": (lambda: fastopt.gradcheck(np.sum, np.ones_like, ONES, method="backward"), "method is 'backward'"),
    "step": (lambda: fastopt.gradcheck(np.sum, np.ones_like, ONES, step=0), "step is 0.0: expected a number larger"),
    "tiny step": (lambda: fastopt.gradcheck(np.sum, np.ones_like, ONES, step=1e-17), "step is 1e-17"),
    "rtol": (lambda: fastopt.gradcheck(np.sum, np.ones_like, ONES, rtol=-1), "rtol is -1.0"),
    "atol": (lambda: fastopt.gradcheck(np.sum, np.ones_like, ONES, atol=math.nan), "atol is nan"),
    "integers": (lambda: fastopt.gradcheck(np.sum, np.ones_like, np.ones(3, int)), "x is an array of int64"),
    "half precision": (lambda: fastopt.gradcheck(np.sum, np.ones_like, np.ones(3, "f2")), "x is an array of float16"),
    "a float": (lambda: fastopt.gradcheck(np.sum, np.ones_like, 1.0), "x is a float: expected an array"),
    "a float in a dict": (lambda: fastopt.gradcheck(np.sum, np.ones_like, {"W": 1.0}), "'W' of x is a float"),
    "nothing": (lambda: fastopt.gradcheck(np.sum, np.ones_like, np.ones(0)), "x has no elements"),
    "no function": (lambda: fastopt.gradcheck(3.0, np.ones_like, ONES), "f is 3.0: expected a function of x"),
    "no gradient": (lambda: fastopt.gradcheck(np.sum, ONES, ONES), "grad is array.*: expected a function of x"),
    "no tree": (lambda: fastopt.gradcheck(np.sum, np.ones_like, []), "x has no elements"),
    "a vector": (lambda: fastopt.gradcheck(np.sin, np.cos, ONES), r"f\(x\) is array"),
    "complex": (lambda: fastopt.gradcheck(lambda x: 1j, np.ones_like, ONES), r"f\(x\) is 1j"),
    "a pair": (lambda: fastopt.gradcheck(lambda x: (1.0, x), np.ones_like, ONES), r"f\(x\) is a tuple.*grad=None"),
    "no pair": (lambda: fastopt.gradcheck(np.sum, None, ONES), r"f\(x\) is .*float64: without grad, expected a pair"),
    "a pair of text": (lambda: fastopt.gradcheck(lambda x: ("1", x), None, ONES), "the value of f is '1'"),
    "f in place": (lambda: fastopt.gradcheck(in_place, np.exp, np.array([1.0, 2.0])), "f or grad changes .*'x'"),
    "grad in place": (
        lambda: fastopt.gradcheck(lambda x: x @ x, lambda x: x.__imul__(2), ONES),
        "changes its argument",
    ),
}


@pytest.mark.parametrize("what", BAD_CALLS)
def test_bad_calls(what: str) -> None:
    call, words = BAD_CALLS[what]
    with pytest.raises((TypeError, ValueError), match=words):
        call()
    assert ONES.tolist() == [1.0] * 3
