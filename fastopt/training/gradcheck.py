"""Whether a gradient is right: every element of it beside a difference of the function's own values."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastopt.base import tree
from fastopt.base.arguments import at_least_0, function, number, one_of, positive, within
from fastopt.base.foreign import no_complex
from fastopt.base.tree import Array, Tree

EPS = sys.float_info.epsilon

# Where rounding, which is eps |f|/h, and what the difference leaves out of Taylor's series, h^2 or h, are alike.
STEPS = {"central": EPS ** (1 / 3), "forward": EPS ** (1 / 2)}
RTOLS = {"central": 1e-5, "forward": 1e-4}

SHOWN = 10


@dataclass(frozen=True)
class Element:
    """One element of a gradient: its tensor and index, the value given and that of the difference, and how far they
    are apart in units of what is allowed: at most 1 where it passes, infinite where one of them is not finite."""

    name: str
    index: tuple[int, ...]
    gradient: float
    difference: float
    excess: float

    @property
    def relative_error(self) -> float:
        """Over the larger of the two, in magnitude; 0 where both are 0."""
        larger = max(abs(self.gradient), abs(self.difference))
        return abs(self.gradient - self.difference) / larger if larger else 0.0

    def __str__(self) -> str:
        where = f"{self.name!r} at index {self.index}" if self.index else repr(self.name)
        found = f"{where}: gradient {self.gradient:.7g}, difference {self.difference:.7g}, "
        if math.isfinite(self.gradient) and not math.isfinite(self.difference):
            return found + "for f is not finite beside x there"
        return found + f"relative error {self.relative_error:.2g}"


@dataclass(frozen=True, repr=False)
class GradcheckReport:
    """What `gradcheck` found. True when every element passes; its text says how many do not, and names the worst.

    method, rtol, atol : as used; atol is the largest over all elements.
    gradients, differences, excess : name -> array with the shape of that tensor, see :class:`Element`.
    """

    method: str
    rtol: float
    atol: float
    gradients: dict[str, Array]
    differences: dict[str, Array]
    excess: dict[str, Array]

    def __bool__(self) -> bool:
        return all(bool((excess <= 1).all()) for excess in self.excess.values())

    @property
    def worst(self) -> Element:
        """The element that is furthest from passing, or passes with the least to spare."""
        name = max(self.excess, key=lambda name: self.excess[name].max(initial=-1))
        excess = self.excess[name]
        return self._element(name, np.unravel_index(excess.argmax(), excess.shape))

    @property
    def wrong(self) -> list[Element]:
        """The elements that do not pass, the worst first."""
        found = [self._element(name, i) for name, excess in self.excess.items() for i in np.argwhere(excess > 1)]
        return sorted(found, key=lambda element: -element.excess)

    def _element(self, name: str, index: Any) -> Element:
        at = tuple(int(i) for i in index)
        return Element(name, at, *(float(a[name][at]) for a in (self.gradients, self.differences, self.excess)))

    def __repr__(self) -> str:
        size = sum(excess.size for excess in self.excess.values())
        how = f"{self.method} differences, rtol={self.rtol:.2g}, atol={self.atol:.2g}"
        if self:
            return f"gradcheck passed: {size} elements, {how}\n  nearest to failing: {self.worst}"
        wrong = self.wrong
        lines = [f"gradcheck failed: {len(wrong)} of {size} elements are wrong, {how}", f"  worst: {wrong[0]}"]
        lines += [f"  {element}" for element in wrong[1:SHOWN]]
        if len(wrong) > SHOWN:
            counts = ", ".join(f"{(x > 1).sum()} of {x.size} in {name!r}" for name, x in self.excess.items())
            lines.append(f"  ... {len(wrong) - SHOWN} more: {counts}")
        return "\n".join(lines)


def gradcheck(
    f: Callable[[Any], Any],
    grad: Callable[[Any], Tree] | None,
    x: Tree,
    *,
    method: str = "central",
    step: float | None = None,
    rtol: float | None = None,
    atol: float | None = None,
) -> GradcheckReport:
    """Compares a gradient with differences of the function, element by element.

        report = fastopt.gradcheck(loss, gradients, params)
        assert report, report

    f : f(x) is a number. With grad=None it is a pair (value, gradient), as the losses give it.
    grad : grad(x) is the gradient, in the structure and the shapes of x.
    x : an array or nested lists and dicts of arrays, float64 or float32. It is never changed: f and grad are called
        with copies, in float64 whatever x is, for in float32 a difference has hardly a digit left. So f must not
        round to float32 inside.
    method : "central", (f(x + h) - f(x - h)) / 2h, two calls an element; or "forward", (f(x + h) - f(x)) / h, one.
    step : h is step * max(1, |element|). Default eps**(1/3), 6.1e-6, for central and eps**(1/2), 1.5e-8, for forward.
    rtol, atol : an element passes where |gradient - difference| <= rtol * max(|gradient|, |difference|) + atol.
        Default of rtol 1e-5 for central and 1e-4 for forward. Default of atol what the difference itself cannot tell:
        100 eps |f| / h for rounding, rtol/1000 of the largest difference in the same tensor, and for central ten
        times step * h * |second difference|, which is what remains where the gradient is 0 at a minimum.

    An element passes only if both values are finite. Where f has a kink nearer than h, as |x| at 0, the two
    legitimately differ; and forward differences do at a minimum, by h/2 times the second derivative.

    Raises TypeError or ValueError, naming the tensor, for a gradient of another structure or shape, for x without
    elements or not finite, for f(x) that is no finite number, and for f and grad that change their argument.
    """
    one_of("method", method, tuple(STEPS))
    function("f", f, "a function of x")
    if grad is not None:
        function("grad", grad, "a function of x")
    step = STEPS[method] if step is None else positive("step", step)
    if step < 4 * EPS:
        raise ValueError(f"step is {step!r}: x + h would be x (expected {4 * EPS:.2g} or larger)")
    rtol = RTOLS[method] if rtol is None else within("rtol", rtol, at_least_0)
    atol = None if atol is None else within("atol", atol, at_least_0)
    names, originals = _leaves(x)
    point = tree.rebuild(x, [a.copy() for a in originals])
    arrays = [a for _, a in tree.flatten(point)]
    returned = f(point)
    here = _value(returned, grad)
    gradient = returned[1] if grad is None else grad(point)
    gradients = _gradients(names, originals, x, gradient)
    for name, a, b in zip(names, arrays, originals, strict=True):
        if not np.array_equal(a, b):
            raise ValueError(f"f or grad changes its argument {name!r}: give it a copy to work on")
    if not math.isfinite(here):
        raise ValueError(f"f(x) is {here}: there is nothing to compare a gradient with")

    differences, allowed = {}, {}
    for name, a in zip(names, arrays, strict=True):
        differences[name], doubt = _differences(lambda: _value(f(point), grad), a, step, method, here)
        if atol is None:
            slopes = np.abs(differences[name])
            allowed[name] = doubt + rtol / 1000 * slopes.max(initial=0, where=np.isfinite(slopes))
        else:
            allowed[name] = np.full(a.shape, atol)
    excess = {name: _excess(gradients[name], differences[name], rtol, allowed[name]) for name in names}
    largest = max(float(a.max(initial=0, where=np.isfinite(a))) for a in allowed.values())
    return GradcheckReport(method, rtol, largest, gradients, differences, excess)


def _prefix(x: Tree) -> str:
    return "x" if isinstance(x, np.ndarray) else ""


def _leaves(x: Tree) -> tuple[list[str], list[Array]]:
    """The names of the arrays, and copies of them in float64."""
    leaves = tree.flatten(x, _prefix(x), what="x")
    tree.check_leaves(leaves, "x")
    for name, a in leaves:
        what = "x" if a is x else f"{name!r} of x"
        if not isinstance(a, np.ndarray) or a.dtype.newbyteorder("=") not in (np.float32, np.float64):
            how = f"; {no_complex(a.dtype)}" if isinstance(a, np.ndarray) and a.dtype.kind == "c" else ""
            raise TypeError(f"{what} is {tree.kind(a)}: expected an array of float64 or float32{how}")
        if not np.isfinite(a).all():
            raise ValueError(f"{what} is not finite at index {tuple(int(i) for i in np.argwhere(~np.isfinite(a))[0])}")
    if not any(a.size for _, a in leaves):
        raise ValueError("x has no elements")
    return [name for name, _ in leaves], [np.array(a, np.float64, order="C") for _, a in leaves]


def _value(returned: Any, grad: Any) -> float:
    if grad is None:
        if not isinstance(returned, tuple) or len(returned) != 2:
            raise TypeError(f"f(x) is {tree.kind(returned)}: without grad, expected a pair (value, gradient)")
        return number("the value of f", returned[0])
    if isinstance(returned, tuple):
        raise TypeError("f(x) is a tuple: expected a number (where it is (value, gradient), pass grad=None)")
    return number("f(x)", returned)


def _gradients(names: list[str], arrays: list[Array], x: Tree, gradient: Tree) -> dict[str, Array]:
    tree.flatten(gradient, what="gradient")  # Refuses one that contains itself.
    # NumPy gives the gradient of a 0-d array as a scalar.
    gradient = tree.transform(gradient, lambda g: np.asarray(g) if isinstance(g, (np.floating, float)) else g)
    found = {}
    for name, a, g in zip(names, arrays, tree.match(x, gradient, path=_prefix(x)), strict=True):
        if g is None:
            raise TypeError(f"gradient of {name!r} is None: expected an array, of zeros where f does not depend on it")
        if not np.issubdtype(g.dtype, np.floating):
            raise TypeError(f"gradient of {name!r} is {tree.kind(g)}: expected floating-point numbers")
        if g.shape != a.shape:
            raise ValueError(f"gradient of {name!r} has shape {g.shape} and the tensor {a.shape}: they must be equal")
        found[name] = np.array(g, np.float64)
    return found


def _differences(value: Callable[[], float], a: Array, step: float, method: str, here: float) -> tuple[Array, Array]:
    """The derivative of value() by each element of a, and how wrong rounding and curvature make it. a is as before."""
    flat, slopes, doubt = a.reshape(-1), np.empty(a.size), np.empty(a.size)
    for i in range(a.size):
        middle = flat.item(i)
        h = step * max(1.0, abs(middle))
        above, below, f_below, curvature = middle + h, middle, here, 0.0
        flat[i] = above
        f_above = value()
        if method == "central":
            below = middle - h
            flat[i] = below
            f_below = value()
            curvature = abs(f_above - 2 * here + f_below)
        flat[i] = middle
        # Not 2h: what has been added and taken away is rounded too.
        slopes[i] = (f_above - f_below) / (above - below)
        doubt[i] = (100 * EPS * max(abs(f_above), abs(f_below)) + 10 * step * curvature) / h
    return slopes.reshape(a.shape), doubt.reshape(a.shape)


def _excess(gradient: Array, difference: Array, rtol: float, allowed: Array) -> Array:
    """|gradient - difference| in units of what is allowed."""
    finite = np.isfinite(gradient) & np.isfinite(difference)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        error = np.abs(gradient - difference)
        ratio = error / (rtol * np.maximum(np.abs(gradient), np.abs(difference)) + allowed)
    return np.where(finite, np.where(error == 0, 0.0, ratio), math.inf)
