"""The nonlinear regressions of NIST's Statistical Reference Datasets (www.itl.nist.gov/div898/strd), with their two
starts and certified parameters. The files are NIST's own, in bench/nist: work of the US government, in the public
domain.

The loss is the residual sum of squares. Jacobians are exact to rounding: the imaginary parts of steps of 1e-150 i.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Array = Any
Model = Callable[[Array, Array], Array]
DATA = Path(__file__).parents[2] / "bench" / "nist"
STEP = 1e-150


class Regression(NamedTuple):
    """One of the data sets: `starts` are two; `certified` and `sum_of_squares` are right to 11 digits."""

    name: str
    model: Model
    x: Array
    y: Array
    starts: tuple[Array, Array]
    certified: Array
    sum_of_squares: float

    def residuals(self, b: Array) -> tuple[Array, Array]:
        """With their Jacobian, (observations, parameters)."""
        with np.errstate(all="ignore"):
            r = self.model(np.asarray(b, float), self.x) - self.y
            J = [self.model(b + 1j * STEP * e, self.x).imag / STEP for e in np.eye(len(b))]
        return r, np.stack(J, axis=1)

    def fun_and_grad(self, b: Array) -> tuple[float, Array]:
        r, J = self.residuals(b)
        with np.errstate(all="ignore"):
            return float(r @ r), 2 * (J.T @ r)

    def gauss_newton(self, b: Array) -> Array:
        """2 J'J: the Hessian but for the second derivatives of the residuals."""
        J = self.residuals(b)[1]
        with np.errstate(all="ignore"):
            return 2 * J.T @ J

    def hess(self, b: Array) -> Array:
        """By central differences of the gradient."""
        steps = np.diag(1e-5 * np.maximum(np.abs(b), 1e-12))
        rows = [(self.fun_and_grad(b + e)[1] - self.fun_and_grad(b - e)[1]) / (2 * e.max()) for e in steps]
        return (np.array(rows) + np.array(rows).T) / 2

    def is_solved(self, b: Array) -> bool:
        """To six digits in every parameter."""
        return bool(np.all(np.abs(b - self.certified) <= 5e-7 * np.abs(self.certified)))


def exponentials(b: Array, x: Array) -> Array:
    return b[0] * np.exp(-b[1] * x) + b[2] * np.exp(-b[3] * x) + b[4] * np.exp(-b[5] * x)


def gaussians(b: Array, x: Array) -> Array:
    peaks = b[2] * np.exp(-((x - b[3]) ** 2) / b[4] ** 2) + b[5] * np.exp(-((x - b[6]) ** 2) / b[7] ** 2)
    return b[0] * np.exp(-b[1] * x) + peaks


def cubics(b: Array, x: Array) -> Array:
    return (b[0] + b[1] * x + b[2] * x**2 + b[3] * x**3) / (1 + b[4] * x + b[5] * x**2 + b[6] * x**3)


def saturation(b: Array, x: Array) -> Array:
    return b[0] * (1 - np.exp(-b[1] * x))


def chwirut(b: Array, x: Array) -> Array:
    return np.exp(-b[0] * x) / (b[1] + b[2] * x)


def enso(b: Array, x: Array) -> Array:
    def wave(p: Any, cosine: Any, sine: Any) -> Array:
        return cosine * np.cos(2 * np.pi * x / p) + sine * np.sin(2 * np.pi * x / p)

    return b[0] + wave(12, b[1], b[2]) + wave(b[3], b[4], b[5]) + wave(b[6], b[7], b[8])


MODELS: dict[str, Model] = {
    "Misra1a": saturation,
    "Chwirut2": chwirut,
    "Chwirut1": chwirut,
    "Lanczos3": exponentials,
    "Gauss1": gaussians,
    "Gauss2": gaussians,
    "DanWood": lambda b, x: b[0] * x ** b[1],
    "Misra1b": lambda b, x: b[0] * (1 - (1 + b[1] * x / 2) ** -2),
    "Kirby2": lambda b, x: (b[0] + b[1] * x + b[2] * x**2) / (1 + b[3] * x + b[4] * x**2),
    "Hahn1": cubics,
    "Nelson": lambda b, x: b[0] - b[1] * x[0] * np.exp(-b[2] * x[1]),
    "MGH17": lambda b, x: b[0] + b[1] * np.exp(-x * b[3]) + b[2] * np.exp(-x * b[4]),
    "Lanczos1": exponentials,
    "Lanczos2": exponentials,
    "Gauss3": gaussians,
    "Misra1c": lambda b, x: b[0] * (1 - (1 + 2 * b[1] * x) ** -0.5),
    "Misra1d": lambda b, x: b[0] * b[1] * x / (1 + b[1] * x),
    "Roszman1": lambda b, x: b[0] - b[1] * x - np.arctan(b[2] / (x - b[3])) / np.pi,
    "ENSO": enso,
    "MGH09": lambda b, x: b[0] * (x**2 + x * b[1]) / (x**2 + x * b[2] + b[3]),
    "Thurber": cubics,
    "BoxBOD": saturation,
    "Rat42": lambda b, x: b[0] / (1 + np.exp(b[1] - b[2] * x)),
    "MGH10": lambda b, x: b[0] * np.exp(b[1] / (x + b[2])),
    "Eckerle4": lambda b, x: b[0] / b[1] * np.exp(-0.5 * ((x - b[2]) / b[1]) ** 2),
    "Rat43": lambda b, x: b[0] / (1 + np.exp(b[1] - b[2] * x)) ** (1 / b[3]),
    "Bennett5": lambda b, x: b[0] * (b[1] + x) ** (-1 / b[2]),
}
"""In NIST's order: the easy ones first, the hard last. Symbols are theirs."""


def regressions() -> Iterator[Regression]:
    for name, model in MODELS.items():
        text = (DATA / f"{name}.dat").read_text()
        rows = np.array(re.findall(r"^ *b\d+ = +(\S+) +(\S+) +(\S+) +\S+", text, re.M), float)
        squares = re.search(r"Residual Sum of Squares: +(\S+)", text)
        assert squares is not None
        numbers = text[text.rindex("Data:") :].splitlines()[1:]
        y, *x = np.array([line.split() for line in numbers if line.strip()], float).T
        if name == "Nelson":
            y = np.log(y)
        start, other, certified = rows.T
        predictors = np.array(x) if len(x) > 1 else x[0]
        yield Regression(name, model, predictors, y, (start, other), certified, float(squares[1]))


REGRESSIONS = tuple(regressions())
