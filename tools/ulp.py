"""The worst errors of exp, log1p and log of fastopt.reference.losses, in units of the last place of the exact value.

    python tools/ulp.py [MILLIONS]

float32: every number of the domain, against double. float64: so many million random ones (10 where not said), dense in
exponents and near 0, against long double; only where that is wider than double, as on x86.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fastopt.reference import losses as twin

BLOCK = 1 << 16


def floats(low: float, high: float) -> Iterator[Any]:
    """All of float32 from low to high, of one sign, in blocks; low has the smaller magnitude."""
    first, last = (int(np.float32(x).view(np.uint32)) for x in (low, high))
    for start in range(first, last + 1, BLOCK):
        yield np.arange(start, min(start + BLOCK, last + 1), dtype=np.uint32).view(np.float32)


def doubles(rng: np.random.Generator, low: float, high: float, blocks: int) -> Iterator[Any]:
    """Random ones from low to high, of one sign: half uniform, half uniform in the exponent."""
    a, b = np.log2(np.abs([low, high]))
    for _ in range(blocks):
        uniform = rng.uniform(min(low, high), max(low, high), BLOCK // 2)
        yield np.concatenate([uniform, np.copysign(np.exp2(rng.uniform(a, b, BLOCK // 2)), low)])


def errors(function: Callable[[Any], Any], exact: Callable[[Any], Any], x: Any) -> Any:
    """In ulp of x's type at the exact value, which `exact` gives in the wider type."""
    wide = np.float64 if x.dtype == np.float32 else np.longdouble
    value = exact(x.astype(wide))
    spacing = np.spacing(np.abs(value).astype(x.dtype)).astype(wide)
    return np.abs(function(x).astype(wide) - value) / spacing


def report(name: str, function: Callable[[Any], Any], exact: Callable[[Any], Any], blocks: Iterator[Any]) -> None:
    worst, where, count = 0.0, 0.0, 0
    for x in blocks:
        found = errors(function, exact, x)
        k = int(np.argmax(found))
        count += x.size
        if not found[k] <= worst:
            worst, where = float(found[k]), float(x[k])
    print(f"{name:<40} {worst:.4f} ulp at {where.hex()}, of {count:,}", flush=True)


def main() -> None:
    # Nearer to 0 than `least`, exp is 1 and log1p its argument.
    least, high = 2.0**-26, 88.0
    report("exp, float32, x < 0", twin.exp, np.exp, floats(-least, float(twin._F32.exp_lowest)))
    report("exp, float32, x > 0", twin.exp, np.exp, floats(least, high))
    report("log1p, float32", twin.log1p, np.log1p, floats(2.0**-40, 1.0))
    if np.finfo(np.longdouble).nmant < 60:
        return
    rng = np.random.default_rng(0)
    blocks = int(float(sys.argv[1] if len(sys.argv) > 1 else 10) * 1e6) // BLOCK + 1
    report("exp, float64, x < 0", twin.exp, np.exp, doubles(rng, -(2.0**-56), float(twin._F64.exp_lowest), blocks))
    report("exp, float64, -1 < x < 0", twin.exp, np.exp, doubles(rng, -(2.0**-56), -1.0, blocks))
    report("exp, float64, x > 0", twin.exp, np.exp, doubles(rng, 2.0**-56, 709.0, blocks))
    report("log1p, float64", twin.log1p, np.log1p, doubles(rng, 2.0**-70, 1.0, blocks))
    report("log1p_any, float64, 1 < x < 8", twin.log1p_any, np.log1p, doubles(rng, 1.0, 8.0, blocks))
    report("log, float64, 1 <= x <= 2", twin.log, np.log, doubles(rng, 1.0, 2.0, blocks))
    report("log, float64, normal x", twin.log, np.log, doubles(rng, 2.0**-1022, 2.0**1023, blocks))


if __name__ == "__main__":
    main()
