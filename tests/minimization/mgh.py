"""The test problems of Moré, Garbow & Hillstrom, "Testing Unconstrained Optimization Software", ACM Transactions on
Mathematical Software 7 (1981), with the starting points and minima published there.

The loss is the sum of squares of m residuals of n variables. A problem gives the residuals and their Jacobian (m, n);
names, numbering and symbols are the paper's, but that indices begin at 0. Not in the paper is the second minimum of 26,
well known since: from the paper's start, methods that do not leap come to it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

Array = Any
Residuals = Callable[[Array], tuple[Array, Array]]


class Problem(NamedTuple):
    """minima are the published values, first of the minimum, then of others that descents come to."""

    number: int
    name: str
    x0: Array
    residuals: Residuals
    minima: tuple[float, ...]

    @property
    def id(self) -> str:
        return f"{self.number}-{self.name.replace(' ', '_')}-{len(self.x0)}"

    def fun_and_grad(self, x: Array) -> tuple[float, Array]:
        r, J = self.residuals(x)
        return float(r @ r), 2 * (J.T @ r)


def problem(number: int, name: str, x0: Any, residuals: Residuals, *minima: float) -> Problem:
    return Problem(number, name, np.array(x0, float), residuals, minima)


def matrix(*columns: Any) -> Array:
    return np.stack(np.broadcast_arrays(*columns), axis=1).astype(float)


def thousandths(numbers: str) -> Array:
    return np.array(numbers.split(), float) / 1000


def rosenbrock(x: Array) -> tuple[Array, Array]:
    """1, and 21 for more variables, taken in pairs."""
    a, b = x[0::2], x[1::2]
    r, J = np.empty(x.size), np.zeros((x.size, x.size))
    odd, even = np.arange(0, x.size, 2), np.arange(1, x.size, 2)
    r[odd], r[even] = 10 * (b - a**2), 1 - a
    J[odd, odd], J[odd, even], J[even, odd] = -20 * a, 10, -1
    return r, J


def freudenstein_roth(x: Array) -> tuple[Array, Array]:
    a, b = x
    r = np.array([-13 + a + ((5 - b) * b - 2) * b, -29 + a + ((b + 1) * b - 14) * b])
    return r, np.array([[1, 10 * b - 3 * b**2 - 2], [1, 3 * b**2 + 2 * b - 14]])


def powell_badly_scaled(x: Array) -> tuple[Array, Array]:
    a, b = x
    r = np.array([1e4 * a * b - 1, np.exp(-a) + np.exp(-b) - 1.0001])
    return r, np.array([[1e4 * b, 1e4 * a], [-np.exp(-a), -np.exp(-b)]])


def brown_badly_scaled(x: Array) -> tuple[Array, Array]:
    a, b = x
    return np.array([a - 1e6, b - 2e-6, a * b - 2]), np.array([[1, 0], [0, 1], [b, a]])


def beale(x: Array) -> tuple[Array, Array]:
    a, b = x
    i = np.arange(1, 4)
    return np.array([1.5, 2.25, 2.625]) - a * (1 - b**i), matrix(b**i - 1, a * i * b ** (i - 1))


def jennrich_sampson(x: Array) -> tuple[Array, Array]:
    i = np.arange(1, 11)
    ea, eb = np.exp(i * x[0]), np.exp(i * x[1])
    return 2 + 2 * i - (ea + eb), matrix(-i * ea, -i * eb)


def helical_valley(x: Array) -> tuple[Array, Array]:
    a, b, c = x
    theta = math.atan(b / a) / (2 * math.pi) + (0.5 if a < 0 else 0) if a else 0.25 * np.sign(b)
    square = a * a + b * b
    root, turn = math.sqrt(square), 100 / (2 * math.pi * square)
    r = np.array([10 * (c - 10 * theta), 10 * (root - 1), c])
    return r, np.array([[turn * b, -turn * a, 10], [10 * a / root, 10 * b / root, 0], [0, 0, 1]])


BARD_Y = np.array([0.14, 0.18, 0.22, 0.25, 0.29, 0.32, 0.35, 0.39, 0.37, 0.58, 0.73, 0.96, 1.34, 2.10, 4.39])


def bard(x: Array) -> tuple[Array, Array]:
    u = np.arange(1, 16)
    v, w = 16 - u, np.minimum(u, 16 - u)
    below = v * x[1] + w * x[2]
    return BARD_Y - (x[0] + u / below), matrix(-1, u * v / below**2, u * w / below**2)


GAUSSIAN_Y = np.array([9, 44, 175, 540, 1295, 2420, 3521, 3989, 3521, 2420, 1295, 540, 175, 44, 9]) * 1e-4


def gaussian(x: Array) -> tuple[Array, Array]:
    away = (8 - np.arange(1, 16)) / 2 - x[2]
    e = np.exp(-x[1] * away**2 / 2)
    return x[0] * e - GAUSSIAN_Y, matrix(e, -x[0] * e * away**2 / 2, x[0] * e * x[1] * away)


MEYER_Y = np.array(
    [34780, 28610, 23650, 19630, 16370, 13720, 11540, 9744, 8261, 7030, 6005, 5147, 4427, 3820, 3307, 2872]
)


def meyer(x: Array) -> tuple[Array, Array]:
    t = 45 + 5 * np.arange(1, 17)
    e = np.exp(x[1] / (t + x[2]))
    return x[0] * e - MEYER_Y, matrix(e, x[0] * e / (t + x[2]), -x[0] * e * x[1] / (t + x[2]) ** 2)


def gulf(x: Array) -> tuple[Array, Array]:
    """With m = 99; the formula as later corrected (y - x2, not y m i x2)."""
    t = np.arange(1, 100) / 100
    away = 25 + (-50 * np.log(t)) ** (2 / 3) - x[1]
    power = np.abs(away) ** x[2]
    e = np.exp(-power / x[0])
    slope = e * x[2] * power / (x[0] * away)
    return e - t, matrix(e * power / x[0] ** 2, slope, -e * power * np.log(np.abs(away)) / x[0])


def box_3d(x: Array) -> tuple[Array, Array]:
    t = np.arange(1, 11) / 10
    ea, eb, known = np.exp(-t * x[0]), np.exp(-t * x[1]), np.exp(-t) - np.exp(-10 * t)
    return ea - eb - x[2] * known, matrix(-t * ea, t * eb, -known)


def powell_singular(x: Array) -> tuple[Array, Array]:
    """13, and 22 for more variables, taken in fours."""
    r, J = np.empty(x.size), np.zeros((x.size, x.size))
    for k in range(0, x.size, 4):
        a, b, c, d = x[k : k + 4]
        r[k : k + 4] = a + 10 * b, math.sqrt(5) * (c - d), (b - 2 * c) ** 2, math.sqrt(10) * (a - d) ** 2
        J[k, k : k + 2] = 1, 10
        J[k + 1, k + 2 : k + 4] = math.sqrt(5), -math.sqrt(5)
        J[k + 2, k + 1 : k + 3] = 2 * (b - 2 * c), -4 * (b - 2 * c)
        J[k + 3, [k, k + 3]] = 2 * math.sqrt(10) * (a - d), -2 * math.sqrt(10) * (a - d)
    return r, J


def wood(x: Array) -> tuple[Array, Array]:
    a, b, c, d = x
    p, q, s = math.sqrt(90), math.sqrt(10), 1 / math.sqrt(10)
    r = np.array([10 * (b - a * a), 1 - a, p * (d - c * c), 1 - c, q * (b + d - 2), s * (b - d)])
    rows = [[-20 * a, 10, 0, 0], [-1, 0, 0, 0], [0, 0, -2 * p * c, p], [0, 0, -1, 0], [0, q, 0, q], [0, s, 0, -s]]
    return r, np.array(rows)


KOWALIK_Y = np.array([0.1957, 0.1947, 0.1735, 0.1600, 0.0844, 0.0627, 0.0456, 0.0342, 0.0323, 0.0235, 0.0246])
KOWALIK_U = np.array([4, 2, 1, 0.5, 0.25, 0.1670, 0.1250, 0.1000, 0.0833, 0.0714, 0.0625])


def kowalik_osborne(x: Array) -> tuple[Array, Array]:
    u = KOWALIK_U
    above, below = u * (u + x[1]), u * (u + x[2]) + x[3]
    return KOWALIK_Y - x[0] * above / below, matrix(
        -above / below, -x[0] * u / below, x[0] * above * u / below**2, x[0] * above / below**2
    )


def brown_dennis(x: Array) -> tuple[Array, Array]:
    t = np.arange(1, 21) / 5
    p, q = x[0] + t * x[1] - np.exp(t), x[2] + x[3] * np.sin(t) - np.cos(t)
    return p**2 + q**2, matrix(2 * p, 2 * p * t, 2 * q, 2 * q * np.sin(t))


OSBORNE_1_Y = thousandths(
    "844 908 932 936 925 908 881 850 818 784 751 718 685 658 628 603 580 558 538 522 506 490 478 467 457 448 438 "
    "431 424 420 414 411 406"
)


def osborne_1(x: Array) -> tuple[Array, Array]:
    t = 10 * np.arange(33)
    ea, eb = np.exp(-t * x[3]), np.exp(-t * x[4])
    r = OSBORNE_1_Y - (x[0] + x[1] * ea + x[2] * eb)
    return r, matrix(-1, -ea, -eb, x[1] * t * ea, x[2] * t * eb)


def biggs_exp6(x: Array) -> tuple[Array, Array]:
    t = np.arange(1, 14) / 10
    y = np.exp(-t) - 5 * np.exp(-10 * t) + 3 * np.exp(-4 * t)
    ea, eb, ec = np.exp(-t * x[0]), np.exp(-t * x[1]), np.exp(-t * x[4])
    r = x[2] * ea - x[3] * eb + x[5] * ec - y
    return r, matrix(-t * x[2] * ea, t * x[3] * eb, ea, -eb, -t * x[5] * ec, ec)


OSBORNE_2_Y = thousandths(
    "1366 1191 1112 1013 991 885 831 847 786 725 746 679 608 655 616 606 602 626 651 724 649 649 694 644 624 661 "
    "612 558 533 495 500 423 395 375 372 391 396 405 428 429 523 562 607 653 672 708 633 668 645 632 591 559 597 "
    "625 739 710 729 720 636 581 428 292 162 98 54"
)


def osborne_2(x: Array) -> tuple[Array, Array]:
    t = np.arange(65) / 10
    e = [np.exp(-t * x[4])] + [np.exp(-((t - x[8 + k]) ** 2) * x[5 + k]) for k in range(3)]
    heights = [-e[0], *(-e[k] for k in (1, 2, 3))]
    rates = [t * x[0] * e[0], *(x[1 + k] * e[1 + k] * (t - x[8 + k]) ** 2 for k in range(3))]
    centres = [-2 * x[1 + k] * x[5 + k] * e[1 + k] * (t - x[8 + k]) for k in range(3)]
    return OSBORNE_2_Y - sum(x[k] * e[k] for k in range(4)), matrix(*heights, *rates, *centres)


def watson(x: Array) -> tuple[Array, Array]:
    j = np.arange(x.size)
    t = np.arange(1, 30)[:, None] / 29
    derivative = np.where(j > 0, j * t ** np.maximum(j - 1, 0), 0.0)
    total = t**j @ x
    r = np.concatenate([derivative @ x - total**2 - 1, [x[0], x[1] - x[0] ** 2 - 1]])
    last = np.zeros((2, x.size))
    last[0, 0], last[1, :2] = 1, (-2 * x[0], 1)
    return r, np.concatenate([derivative - 2 * total[:, None] * t**j, last])


def penalty_1(x: Array) -> tuple[Array, Array]:
    small = math.sqrt(1e-5)
    r = np.append(small * (x - 1), x @ x - 0.25)
    return r, np.concatenate([small * np.eye(x.size), 2 * x[None]])


def penalty_2(x: Array) -> tuple[Array, Array]:
    n, small = x.size, math.sqrt(1e-5)
    i = np.arange(2, n + 1)
    e = np.exp(x / 10)
    weights = n - np.arange(n)
    r = np.concatenate(
        [
            [x[0] - 0.2],
            small * (e[1:] + e[:-1] - (np.exp(i / 10) + np.exp((i - 1) / 10))),
            small * (e[1:] - np.exp(-0.1)),
            [weights @ x**2 - 1],
        ]
    )
    J = np.zeros((2 * n, n))
    rows = np.arange(1, n)
    J[0, 0] = 1
    J[rows, rows], J[rows, rows - 1] = small * e[1:] / 10, small * e[:-1] / 10
    J[n - 1 + rows, rows] = small * e[1:] / 10
    J[2 * n - 1] = 2 * weights * x
    return r, J


def variably_dimensioned(x: Array) -> tuple[Array, Array]:
    j = np.arange(1, x.size + 1)
    s = j @ (x - 1)
    return np.concatenate([x - 1, [s, s * s]]), np.concatenate([np.eye(x.size), j[None], 2 * s * j[None]])


def trigonometric(x: Array) -> tuple[Array, Array]:
    n = x.size
    i = np.arange(1, n + 1)
    r = n - np.cos(x).sum() + i * (1 - np.cos(x)) - np.sin(x)
    return r, np.sin(x) + np.diag(i * np.sin(x) - np.cos(x))


def brown_almost_linear(x: Array) -> tuple[Array, Array]:
    n = x.size
    J = np.ones((n, n)) + np.eye(n)
    J[-1] = [np.prod(np.delete(x, j)) for j in range(n)]
    return np.append(x[:-1] + x.sum() - (n + 1), np.prod(x) - 1), J


def discrete_boundary_value(x: Array) -> tuple[Array, Array]:
    n = x.size
    h = 1 / (n + 1)
    t = h * np.arange(1, n + 1)
    around = np.concatenate([[0], x, [0]])
    r = 2 * x - around[:-2] - around[2:] + h * h * (x + t + 1) ** 3 / 2
    J = np.diag(2 + 1.5 * h * h * (x + t + 1) ** 2) - np.eye(n, k=1) - np.eye(n, k=-1)
    return r, J


def discrete_integral_equation(x: Array) -> tuple[Array, Array]:
    n = x.size
    h = 1 / (n + 1)
    t = h * np.arange(1, n + 1)
    kernel = np.where(t <= t[:, None], (1 - t[:, None]) * t, t[:, None] * (1 - t)) * h / 2
    return x + kernel @ (x + t + 1) ** 3, np.eye(n) + kernel * 3 * (x + t + 1) ** 2


def broyden_tridiagonal(x: Array) -> tuple[Array, Array]:
    n = x.size
    around = np.concatenate([[0], x, [0]])
    J = np.diag(3 - 4 * x) - np.eye(n, k=-1) - 2 * np.eye(n, k=1)
    return (3 - 2 * x) * x - around[:-2] - 2 * around[2:] + 1, J


def broyden_banded(x: Array) -> tuple[Array, Array]:
    n = x.size
    near = np.tri(n, k=1) - np.tri(n, k=-6) - np.eye(n)
    return x * (2 + 5 * x**2) + 1 - near @ (x * (1 + x)), np.diag(2 + 15 * x**2) - near * (1 + 2 * x)


def linear_full_rank(m: int) -> Residuals:
    def residuals(x: Array) -> tuple[Array, Array]:
        J = np.eye(m, x.size) - 2 / m
        return J @ x - 1, J

    return residuals


def linear_rank_1(m: int, zero_ends: bool = False) -> Residuals:
    """33, and with zero columns and rows 34."""

    def residuals(x: Array) -> tuple[Array, Array]:
        n = x.size
        i, j = np.arange(1, m + 1), np.arange(1, n + 1)
        if zero_ends:
            i = np.where(np.arange(m) % (m - 1) == 0, 0, i - 1)
            j = np.where(np.arange(n) % (n - 1) == 0, 0, j)
        return i * (j @ x) - 1, np.outer(i, j).astype(float)

    return residuals


def chebyquad(x: Array) -> tuple[Array, Array]:
    """Means over x of the shifted Chebyshev polynomials, less their integrals."""
    n = x.size
    y = 2 * x - 1
    T, dT = [np.ones(n), y], [np.zeros(n), np.full(n, 2.0)]
    for _ in range(n - 1):
        T.append(2 * y * T[-1] - T[-2])
        dT.append(4 * T[-2] + 2 * y * dT[-1] - dT[-2])
    i = np.arange(1, n + 1)
    integrals = np.where(i % 2 == 0, -1 / np.where(i % 2 == 0, i**2 - 1, 1), 0)
    return np.mean(T[1:], axis=1) - integrals, np.array(dT[1:]) / n


def thirds(n: int) -> Array:
    """The start of the two discrete equations: t (t - 1)."""
    t = np.arange(1, n + 1) / (n + 1)
    return t * (t - 1)


PROBLEMS = [
    problem(1, "Rosenbrock", [-1.2, 1], rosenbrock, 0),
    problem(2, "Freudenstein and Roth", [0.5, -2], freudenstein_roth, 0, 48.9842),
    problem(3, "Powell badly scaled", [0, 1], powell_badly_scaled, 0),
    problem(4, "Brown badly scaled", [1, 1], brown_badly_scaled, 0),
    problem(5, "Beale", [1, 1], beale, 0),
    problem(6, "Jennrich and Sampson", [0.3, 0.4], jennrich_sampson, 124.362),
    problem(7, "helical valley", [-1, 0, 0], helical_valley, 0),
    problem(8, "Bard", [1, 1, 1], bard, 8.21487e-3, 17.4286),
    problem(9, "Gaussian", [0.4, 1, 0], gaussian, 1.12793e-8),
    problem(10, "Meyer", [0.02, 4000, 250], meyer, 87.9458),
    problem(11, "Gulf", [5, 2.5, 0.15], gulf, 0),
    problem(12, "Box three-dimensional", [0, 10, 20], box_3d, 0),
    problem(13, "Powell singular", [3, -1, 0, 1], powell_singular, 0),
    problem(14, "Wood", [-3, -1, -3, -1], wood, 0),
    problem(15, "Kowalik and Osborne", [0.25, 0.39, 0.415, 0.39], kowalik_osborne, 3.07505e-4, 1.02734e-3),
    problem(16, "Brown and Dennis", [25, 5, -5, -1], brown_dennis, 85822.2),
    problem(17, "Osborne 1", [0.5, 1.5, -1, 0.01, 0.02], osborne_1, 5.46489e-5),
    problem(18, "Biggs EXP6", [1, 2, 1, 1, 1, 1], biggs_exp6, 0, 5.65565e-3),
    problem(19, "Osborne 2", [1.3, 0.65, 0.65, 0.7, 0.6, 3, 5, 7, 2, 4.5, 5.5], osborne_2, 4.01377e-2),
    problem(20, "Watson", np.zeros(6), watson, 2.28767e-3),
    problem(20, "Watson", np.zeros(9), watson, 1.39976e-6),
    problem(20, "Watson", np.zeros(12), watson, 4.72238e-10),
    problem(21, "extended Rosenbrock", [-1.2, 1] * 50, rosenbrock, 0),
    problem(22, "extended Powell singular", [3, -1, 0, 1] * 25, powell_singular, 0),
    problem(23, "penalty I", np.arange(1, 5), penalty_1, 2.24997e-5),
    problem(23, "penalty I", np.arange(1, 11), penalty_1, 7.08765e-5),
    problem(24, "penalty II", np.full(4, 0.5), penalty_2, 9.37629e-6),
    problem(24, "penalty II", np.full(10, 0.5), penalty_2, 2.93660e-4),
    problem(25, "variably dimensioned", 1 - np.arange(1, 11) / 10, variably_dimensioned, 0),
    problem(26, "trigonometric", np.full(10, 0.1), trigonometric, 0, 2.79506e-5),
    problem(27, "Brown almost-linear", np.full(10, 0.5), brown_almost_linear, 0, 1),
    problem(28, "discrete boundary value", thirds(10), discrete_boundary_value, 0),
    problem(29, "discrete integral equation", thirds(10), discrete_integral_equation, 0),
    problem(30, "Broyden tridiagonal", -np.ones(10), broyden_tridiagonal, 0),
    problem(31, "Broyden banded", -np.ones(10), broyden_banded, 0),
    problem(32, "linear, full rank", np.ones(10), linear_full_rank(20), 10),
    problem(33, "linear, rank 1", np.ones(10), linear_rank_1(20), 20 * 19 / (2 * 41)),
    problem(34, "linear, rank 1, zeros", np.ones(10), linear_rank_1(20, True), (20**2 + 3 * 20 - 6) / (2 * 37)),
    problem(35, "Chebyquad", np.arange(1, 8) / 8, chebyquad, 0),
    problem(35, "Chebyquad", np.arange(1, 9) / 9, chebyquad, 3.51687e-3),
    problem(35, "Chebyquad", np.arange(1, 10) / 10, chebyquad, 0),
    problem(35, "Chebyquad", np.arange(1, 11) / 11, chebyquad, 6.50395e-3),
]
