"""The polynomials of csrc/kernels/exponential.h: minimax in relative error by the Remez exchange, in 60 decimal digits.

    python tools/minimax.py

exp(r) = 1 + r + r^2 P(r), |r| <= log(2)/2; with s = f/(2 + f), z = s^2: log(1 + f) = f - (f^2/2 - s (f^2/2 + z Q(z))),
for f in [0, 1], where z <= 1/9: log's f are nearer to 0. Prints the coefficients, lowest power first,
rounded to the type, and the worst relative error that the rounded polynomial makes in the function.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from decimal import Decimal, getcontext

getcontext().prec = 60
Function = Callable[[Decimal], Decimal]
HALF_LOG2 = Decimal(2).ln() / 2
GRID = 2000


def value(coefficients: list[Decimal], x: Decimal) -> Decimal:
    total = Decimal(0)
    for c in reversed(coefficients):
        total = total * x + c
    return total


EXP_SERIES = [1 / Decimal(math.factorial(k + 2)) for k in range(40)]
ATANH_SERIES = [Decimal(2) / (2 * k + 3) for k in range(80)]


def exp_term(r: Decimal) -> Decimal:
    """P(r), by its series: the definition would cancel."""
    return value(EXP_SERIES, r)


def log_term(z: Decimal) -> Decimal:
    """Q(z) = 2 (atanh(s) - s) / s^3."""
    return value(ATANH_SERIES, z)


def exp_weight(r: Decimal) -> Decimal:
    """What an error of P makes in exp, relative to it."""
    return r**2 / r.exp()


def log_weight(z: Decimal) -> Decimal:
    """What an error of Q makes in log(1 + f) = 2 atanh(s), relative to it: s z / 2 atanh(s)."""
    return z / (2 + z * log_term(z))


def solve(rows: list[list[Decimal]]) -> list[Decimal]:
    """The solution of a linear system given as rows of its augmented matrix."""
    n = len(rows)
    for k in range(n):
        pivot = max(range(k, n), key=lambda i: abs(rows[i][k]))
        rows[k], rows[pivot] = rows[pivot], rows[k]
        for i in range(n):
            if i != k:
                factor = rows[i][k] / rows[k][k]
                rows[i] = [a - factor * b for a, b in zip(rows[i], rows[k], strict=True)]
    return [rows[k][n] / rows[k][k] for k in range(n)]


def remez(f: Function, weight: Function, low: Decimal, high: Decimal, degree: int) -> list[Decimal]:
    """The polynomial whose weighted error has degree + 2 equal extremes of alternating sign."""
    count = degree + 2
    grid = [low + (high - low) * k / GRID for k in range(GRID + 1)]
    table = [(x, f(x), weight(x)) for x in grid]
    # The weight is 0 at 0, where no extreme can be.
    table = [row for row in table if row[2] != 0]
    points = [table[round(k * (len(table) - 1) / (count - 1))] for k in range(count)]
    for _ in range(30):
        rows = [[x**j for j in range(degree + 1)] + [(-1) ** k / w, y] for k, (x, y, w) in enumerate(points)]
        *coefficients, level = solve(rows)
        errors = [w * (y - value(coefficients, x)) for x, y, w in table]
        runs: list[int] = []
        for k, e in enumerate(errors):
            if runs and (errors[runs[-1]] > 0) == (e > 0):
                if abs(e) > abs(errors[runs[-1]]):
                    runs[-1] = k
            else:
                runs.append(k)
        while len(runs) > count:
            runs.pop(0 if abs(errors[runs[0]]) < abs(errors[runs[-1]]) else -1)
        points = [table[k] for k in runs]
        if max(map(abs, errors)) < abs(level) * Decimal("1.001"):
            return coefficients
    raise ArithmeticError("the exchange does not settle")


def rounded(c: Decimal, single: bool) -> float:
    return float(struct.unpack("f", struct.pack("f", c))[0]) if single else float(c)


def show(name: str, f: Function, weight: Function, low: Decimal, high: Decimal, degree: int, single: bool) -> None:
    coefficients = [rounded(c, single) for c in remez(f, weight, low, high, degree)]
    exact = [Decimal(c) for c in coefficients]
    grid = [low + (high - low) * k / GRID for k in range(GRID + 1)]
    worst = max(abs(weight(x) * (f(x) - value(exact, x))) for x in grid)
    print(f"{name}, {'float32' if single else 'float64'}: worst relative error 2^{worst.ln() / Decimal(2).ln():.1f}")
    for c in coefficients:
        print(f"    {c.hex()}  {c:.17g}")


def main() -> None:
    show("exp", exp_term, exp_weight, -HALF_LOG2, HALF_LOG2, 4, True)
    show("exp", exp_term, exp_weight, -HALF_LOG2, HALF_LOG2, 9, False)
    show("log1p", log_term, log_weight, Decimal(0), Decimal(1) / 9, 3, True)
    show("log1p", log_term, log_weight, Decimal(0), Decimal(1) / 9, 9, False)


if __name__ == "__main__":
    main()
