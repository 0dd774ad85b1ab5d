"""The problems with bounds alone of Hock & Schittkowski, "Test Examples for Nonlinear Programming Codes", Lecture Notes
in Economics and Mathematical Systems 187 (1981), with the starts and solutions published there, numbered as there.

Gradients are by hand; starts may be outside the bounds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

Array = Any


class Bounded(NamedTuple):
    """`minima` are the published value, and that of another local minimum where there is one."""

    number: int
    fun_and_grad: Callable[[Array], tuple[float, Array]]
    bounds: tuple[tuple[float | None, float | None], ...]
    x0: Array
    solution: Array
    minima: tuple[float, ...]


def banana(x: Array) -> tuple[float, Array]:
    a, b = x[1] - x[0] ** 2, 1 - x[0]
    return float(100 * a**2 + b**2), np.array([-400 * x[0] * a - 2 * b, 200 * a])


def third(x: Array) -> tuple[float, Array]:
    a = x[1] - x[0]
    return float(x[1] + 1e-5 * a**2), np.array([-2e-5 * a, 1 + 2e-5 * a])


def fourth(x: Array) -> tuple[float, Array]:
    return float((x[0] + 1) ** 3 / 3 + x[1]), np.array([(x[0] + 1) ** 2, 1.0])


def fifth(x: Array) -> tuple[float, Array]:
    a, c = x[0] - x[1], np.cos(x[0] + x[1])
    value = np.sin(x[0] + x[1]) + a**2 - 1.5 * x[0] + 2.5 * x[1] + 1
    return float(value), np.array([c + 2 * a - 1.5, c - 2 * a + 2.5])


def exponentials(x: Array) -> tuple[float, Array]:
    i = 0.01 * np.arange(1, 100)
    u = 25 + (-50 * np.log(i)) ** (2 / 3)
    with np.errstate(all="ignore"):
        base = u - x[1]
        power = base ** x[2]
        e = np.exp(-power / x[0])
        f = e - i
        J = np.stack([e * power / x[0] ** 2, e * x[2] * power / base / x[0], -e * power * np.log(base) / x[0]])
        return float(f @ f), 2 * J @ f


def wood(x: Array) -> tuple[float, Array]:
    a, b, c, d = x[1] - x[0] ** 2, 1 - x[0], x[3] - x[2] ** 2, 1 - x[2]
    p, q = x[1] - 1, x[3] - 1
    value = 100 * a**2 + b**2 + 90 * c**2 + d**2 + 10.1 * (p**2 + q**2) + 19.8 * p * q
    g = [
        -400 * x[0] * a - 2 * b,
        200 * a + 20.2 * p + 19.8 * q,
        -360 * x[2] * c - 2 * d,
        180 * c + 20.2 * q + 19.8 * p,
    ]
    return float(value), np.array(g)


def product(x: Array) -> tuple[float, Array]:
    g = np.array([-np.prod(np.delete(x, i)) / 120 for i in range(5)])
    return float(2 - np.prod(x) / 120), g


def logarithms(x: Array) -> tuple[float, Array]:
    a, b = np.log(x - 2), np.log(10 - x)
    root = np.prod(x) ** 0.2
    return float(a @ a + b @ b - root), 2 * a / (x - 2) - 2 * b / (10 - x) - 0.2 * root / x


def second() -> Array:
    a = math.sqrt(598 / 1200)
    return np.array([2 * a * math.cos(math.acos(1 / (400 * a**3)) / 3), 1.5])


PROBLEMS = (
    Bounded(1, banana, ((None, None), (-1.5, None)), [-2, 1], [1, 1], (0.0,)),
    Bounded(2, banana, ((None, None), (1.5, None)), [-2, 1], second(), (0.0504261879, 4.94122932)),
    Bounded(3, third, ((None, None), (0, None)), [10, 1], [0, 0], (0.0,)),
    Bounded(4, fourth, ((1, None), (0, None)), [1.125, 0.125], [1, 0], (8 / 3,)),
    Bounded(
        5,
        fifth,
        ((-1.5, 4), (-3, 3)),
        [0, 0],
        [0.5 - math.pi / 3, -0.5 - math.pi / 3],
        (-math.sqrt(3) / 2 - math.pi / 3,),
    ),
    Bounded(25, exponentials, ((0.1, 100), (0, 25.6), (0, 5)), [100, 12.5, 3], [50, 25, 1.5], (0.0,)),
    Bounded(38, wood, ((-10, 10),) * 4, [-3, -1, -3, -1], [1, 1, 1, 1], (0.0,)),
    Bounded(45, product, tuple((0, i) for i in range(1, 6)), [2, 2, 2, 2, 2], [1, 2, 3, 4, 5], (1.0,)),
    Bounded(110, logarithms, ((2.001, 9.999),) * 10, [9] * 10, [9.35025655] * 10, (-45.77846971,)),
)
PROBLEMS = tuple(p._replace(x0=np.array(p.x0, float), solution=np.array(p.solution, float)) for p in PROBLEMS)
