"""cos and powers of schedules: beside exact values, and the same on every machine because libm has no part in them."""

from __future__ import annotations

import ast
import math
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from fastopt import schedules
from fastopt.schedules import elementary

ROOT = Path(__file__).parent.parent.parent
# To 60 places.
PI = Fraction(3141592653589793238462643383279502884197169399375105820974944, 10**60)


def exact_cosine(x: Fraction) -> Fraction:
    """cos(pi*x) to 40 places."""
    y = x * PI
    found = term = Fraction(1)
    for k in range(1, 30):
        term = -term * y * y / (2 * k * (2 * k - 1))
        term = Fraction(round(term * 10**50), 10**50)
        found += term
    return Fraction(round(found * 10**45), 10**45)


def test_cosine_beside_the_exact_one() -> None:
    rng = np.random.default_rng(0)
    points = [*rng.random(2000), *(k / 64 for k in range(65)), *(0.25 + k * 2.0**-54 for k in range(-3, 4))]
    points += [1e-9, 5e-324]
    points += [math.nextafter(x, side) for x in (0.25, 0.5, 0.75, 1.0) for side in (0, 1)]
    for x in points:
        exact = exact_cosine(Fraction(float(x)))
        assert abs(Fraction(elementary.cos_pi(float(x))) - exact) <= 2 * Fraction(math.ulp(float(exact)))
    assert [elementary.cos_pi(x) for x in (0.0, 0.5, 1.0)] == [1, 0, -1]


@pytest.mark.parametrize("exponent", [1.0, 2.0, 3.0, 0.5, 1.5, 2.5, 0.1, 0.999, 7.25, 1e-300])
def test_powers_beside_exact_ones(exponent: float) -> None:
    rng = np.random.default_rng(1)
    for base in (*rng.random(300), 1.0, 2.0**-53, 1 - 2.0**-53, 0.25):
        found = elementary.power(float(base), exponent)
        assert found == pytest.approx(float(base) ** exponent, rel=4e-15)
    assert elementary.power(1.0, exponent) == 1


def test_powers_at_the_edges() -> None:
    assert elementary.power(0.5, 1e308) == 0
    assert elementary.power(1.0, 1e308) == 1
    assert elementary.power(1 - 2.0**-53, 2.0**53) == pytest.approx(math.exp(-1), rel=1e-8)
    assert [elementary.decaying(x) for x in (0.0, 745.0, 800.0, 1e300, math.inf)] == [1, 0, 0, 0, 0]
    assert schedules.exponential(1, rate=1e300)(10**15) == 0


# The bits of these values, on every machine.
RECORDED = {
    "cosine": (schedules.cosine(0.3, 50, 0.01), {7: "0x1.251197aede787p-2", 31: "0x1.a03e53c420453p-4"}),
    "cosine_restarts": (schedules.cosine_restarts(0.3, 7, 2), {5: "0x1.cea7de049c53dp-5", 17: "0x1.cea7de049c53dp-5"}),
    "exponential": (schedules.exponential(0.3, rate=0.01), {1: "0x1.3024afe4d5e32p-2", 333: "0x1.5fdc4c5a6a0cfp-7"}),
    "polynomial": (schedules.polynomial(0.3, 0.01, 50, 0.9), {1: "0x1.2dd96e068140fp-2", 33: "0x1.ead4fe78bd299p-4"}),
    "one_cycle": (schedules.one_cycle(0.3, 50).lr, {7: "0x1.3f7ced916872bp-3", 31: "0x1.40fbd075082ffp-3"}),
    "warmup_stable_decay": (
        schedules.warmup_stable_decay(0.3, 50, 5, 30, decay_shape="cos"),
        {27: "0x1.0bbf3e5a91fa0p-2", 44: "0x1.d55c1e1f369a0p-6"},
    ),
}


@pytest.mark.parametrize("name", RECORDED)
def test_the_bits_are_those_of_every_machine(name: str) -> None:
    schedule, values = RECORDED[name]
    assert {t: schedule(t).hex() for t in values} == values


ROUNDED_AS_LIBM_LIKES = {
    *("exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "pow", "power", "float_power", "cbrt", "hypot"),
    *("sin", "cos", "tan", "asin", "acos", "atan", "atan2", "sinh", "cosh", "tanh", "gamma", "lgamma", "erf", "erfc"),
}


def of_libm(source: str) -> Iterator[str]:
    """What of a source is other bits on another machine: libm's functions, from math or NumPy, and powers."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module in ("math", "cmath", "numpy"):
            yield from (alias.name for alias in node.names if alias.name in ROUNDED_AS_LIBM_LIKES)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id in ("math", "cmath", "np", "numpy") and node.attr in ROUNDED_AS_LIBM_LIKES:
                yield f"{node.value.id}.{node.attr}"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "pow":
            yield "pow()"
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow) and not whole(node.right):
            yield f"** {ast.unparse(node.right)}"


def whole(exponent: ast.expr) -> bool:
    """Whether it is a number without a fraction: such powers of two are exact."""
    if isinstance(exponent, ast.UnaryOp) and isinstance(exponent.op, ast.USub):
        exponent = exponent.operand
    return isinstance(exponent, ast.Constant) and type(exponent.value) is int


@pytest.mark.parametrize("folder", ["optimizers", "schedules"])
def test_no_number_of_a_step_comes_from_libm(folder: str) -> None:
    paths = sorted((ROOT / "fastopt" / folder).rglob("*.py"))
    assert paths
    assert {path.name: found for path in paths if (found := list(of_libm(path.read_text())))} == {}


def test_what_is_libms_is_seen() -> None:
    source = "from math import exp, sqrt\nfrom numpy import cos\nmath.log(2) + np.power(2, 3) + math.sqrt(2)\n"
    source += "x ** 0.5\nx ** y\n2.0 ** -126\nx ** 2\npow(x, 2)\ndict(**x)\n"
    assert sorted(of_libm(source)) == sorted(["exp", "cos", "math.log", "np.power", "** 0.5", "** y", "pow()"])
