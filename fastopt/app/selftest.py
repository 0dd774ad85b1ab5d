"""``fastopt.selftest()``: the core against its twins, on the user's own CPU."""

from __future__ import annotations

import itertools
import math
import struct
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fastopt import optimizers, reference
from fastopt.base import memory
from fastopt.base.arguments import whole
from fastopt.base.rng import MOST
from fastopt.base.tree import Array
from fastopt.core import _core
from fastopt.engine.numpy_plan import ReferenceVectors
from fastopt.reference import losses as reference_losses

LENGTHS = (0, 1, 7, 15, 16, 17, 63, 100, 1000, _core.CHUNK)
SPECIAL = (0.0, -0.0, 1e-40, -1e-310, 1e30, -1e30, np.inf, -np.inf, np.nan)


class SelfTest(NamedTuple):
    """The report: true when it passes; printing it says what was compared and what differs."""

    checks: int
    failures: tuple[str, ...]
    isas: tuple[str, ...]
    seconds: float

    def __bool__(self) -> bool:
        return not self.failures

    def __str__(self) -> str:
        verdict = "FAILED" if self.failures else "passed"
        lines = [
            f"self-test {verdict}: {self.checks - len(self.failures)} of {self.checks} comparisons equal bit for bit",
            f"{len(_core.KERNELS)} kernels and steps with each of {len(optimizers.__all__)} rules, norms and sums, "
            f"{len(_core.SCALARS)} functions between walks, Adafactor's factors, 3 losses and the vectors of L-BFGS, "
            f"float32 and float64, on {', '.join(self.isas)}; {self.seconds:.1f} s",
        ]
        return "\n".join([*lines, *self.failures[:20]])


def selftest(seed: int = 0) -> SelfTest:
    """Runs all that steps are made of, and steps, on every instruction set that this CPU has against their NumPy twins.

    seed : of the numbers to compare on, 0 or larger.

    Takes a few seconds and touches nothing outside itself. Returns a report that is true when all bits are equal.
    """
    seed = whole("seed", seed, 0, MOST)
    rng = np.random.default_rng(seed)
    started, before = time.perf_counter(), _core.active_isa()
    checks, failures = 0, []
    try:
        for isa in _core.isas():
            _core.use_isa(isa)
            for dtype in (np.float32, np.float64):
                for flush in (True, False):
                    for length in LENGTHS:
                        for name in (*_core.KERNELS, *COMPARE):
                            checks += 1
                            if not COMPARE.get(name, _compare_kernel)(name, rng, dtype, length, flush):
                                failures.append(f"{name}: {isa}, {np.dtype(dtype)}, n={length}, flush={flush}")
                    for name in optimizers.__all__:
                        checks += 1
                        if not _compare_steps(name, rng, dtype, flush):
                            failures.append(f"{name}: {isa}, {np.dtype(dtype)}, flush={flush}")
        # They are the same code on every instruction set.
        for name in _core.SCALARS:
            for flush in (True, False):
                checks += 1
                if not _compare_scalar(name, rng, flush):
                    failures.append(f"{name}: flush={flush}")
    finally:
        _core.use_isa(before)
    return SelfTest(checks, tuple(failures), _core.isas(), time.perf_counter() - started)


def same_bits(a: Array, b: Array) -> bool:
    """Equal bit for bit, where any NaN equals any NaN."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    bits = np.dtype(f"u{a.itemsize}")
    equal = np.ascontiguousarray(a).view(bits) == np.ascontiguousarray(b).view(bits)
    return bool(np.all(equal | ((a != a) & (b != b))))


def same_number(a: float, b: float) -> bool:
    return struct.pack("=d", a) == struct.pack("=d", b) or (a != a and b != b)


def random_array(rng: np.random.Generator, dtype: Any, length: int) -> Array:
    """Ordinary numbers with every tenth replaced by a special one."""
    a = rng.standard_normal(length)
    chosen = rng.random(length) < 0.1
    a[chosen] = rng.choice(SPECIAL, int(chosen.sum()))
    return a.astype(dtype)


def _compare_kernel(name: str, rng: np.random.Generator, dtype: Any, length: int, flush: bool) -> bool:
    _, buffer_names, coef_names = _core.KERNELS[name]
    ours = [random_array(rng, dtype, length) for _ in buffer_names]
    theirs = [a.copy() for a in ours]
    coefs = [1.0 if coef == "one" else float(rng.random()) for coef in coef_names]
    _core.run_kernel(name, ours, coefs, flush)
    with _core.subnormals(flush), np.errstate(all="ignore"):
        getattr(reference, name)(*theirs, *coefs)
    return all(same_bits(a, b) for a, b in zip(ours, theirs, strict=True))


def _compare_norm(name: Any, rng: np.random.Generator, dtype: Any, length: int, flush: bool) -> bool:
    g = rng.standard_normal(length).astype(dtype) * dtype(10) ** int(rng.integers(-30, 30))
    ours = _core.norm([g], name, flush)
    with _core.subnormals(flush), np.errstate(all="ignore"):
        theirs = reference.norm([g], getattr(reference, name))
    return ours == theirs


def _compare_sum(name: str, rng: np.random.Generator, dtype: Any, length: int, flush: bool) -> bool:
    buffers = [random_array(rng, dtype, length) for _ in _core.SUMS[name]]
    with _core.subnormals(flush), np.errstate(all="ignore"):
        return same_number(_core.run_sum(name, buffers), getattr(reference, name)(*buffers))


def _compare_factors(name: str, rng: np.random.Generator, dtype: Any, length: int, flush: bool) -> bool:
    rows, columns = max(length, 1), 1 + length // 7
    row_sums, column_sums = (random_array(rng, np.float64, n) ** 2 for n in (rows, columns))
    ours = [random_array(rng, dtype, n) for n in (rows, columns, rows)]
    theirs = [a.copy() for a in ours]
    keep = float(rng.random())
    coefs = keep, 1 - keep, float(rng.choice([0.0, 1e-30])), float(rng.choice([0.0, 1e-38, 1.0]))
    with _core.subnormals(flush), np.errstate(all="ignore"):
        for run, (r, c, a) in ((_core.run_factors, ours), (reference.adafactor_factors, theirs)):
            run(row_sums, column_sums, r, c, a, *coefs)
    return all(same_bits(a, b) for a, b in zip(ours, theirs, strict=True))


def _compare_scalar(name: str, rng: np.random.Generator, flush: bool) -> bool:
    """Of numbers that are now and then special, or equal to each other, or a switch that is on or off."""
    shape = 1000, len(_core.SCALARS[name][0])
    drawn = np.where(rng.random(shape) < 0.5, 0.5, 2 * rng.random(shape))
    special = rng.choice([0.0, 1.0, 1e-320, 1e-200, 1e200, math.inf, math.nan], shape)
    often = np.linspace(0.02, 0.3, 1000)[:, None]
    for given in np.where(rng.random(shape) < often, special, drawn).tolist():
        with _core.subnormals(flush):
            ours, theirs = _core.run_scalar(name, given), getattr(reference, name)(*given)
        if not all(map(same_number, ours, theirs)):
            return False
    return True


def _compare_steps(name: str, rng: np.random.Generator, dtype: Any, flush: bool) -> bool:
    """Two steps of each backend with a rule, scaled and with decay, in the loop that does both. Of ordinary numbers
    in a matrix, where one NaN would spread to all, and of special ones too in a vector; gradients are finite where a
    rule refuses others."""

    def drawn() -> list[Array]:
        return [rng.standard_normal((5, 7)).astype(dtype), random_array(rng, dtype, _core.CHUNK + 67)]

    params = drawn()
    both = [[p.copy() for p in params] for _ in range(2)]
    more: dict[str, Any] = {"lr": 0.01, "decoupled_decay": 0.1, "flush_subnormals": flush}
    kinds = zip(both, ("c", "numpy"), strict=True)
    opts = [getattr(optimizers, name)(own, backend=backend, **more) for own, backend in kinds]
    for _ in range(2):
        gradients = drawn()
        if opts[0]._engine.measures:
            gradients = [np.where(np.isfinite(g), g, dtype(1)) for g in gradients]
        for opt in opts:
            opt.step(gradients, loss=0.5 if opt.takes_loss else None, grad_scale=0.75)
    return all(same_bits(a, b) for a, b in zip(*both, strict=True))


def _compare_vectors(name: str, rng: np.random.Generator, dtype: Any, length: int, flush: bool) -> bool:
    """A few rounds of a descent: `flush` is what the caller's mode is meanwhile, which must not matter."""
    both: list[Any] = [vectors(length, dtype, 2, memory.zeros) for vectors in (_core.Vectors, ReferenceVectors)]
    gradients = rng.standard_normal((5, length)).astype(dtype)
    seen: list[Any] = [[], []]
    with _core.subnormals(flush):
        for g, trial_g in itertools.pairwise(gradients):
            for v, found in zip(both, seen, strict=True):
                v.g[...] = g
                found.append(v.direct())
                v.move(0.5)
                v.trial_g[...] = trial_g
                found.append((v.slope(), v.trial_slope(), v.steepness()))
                v.accept()
                found.append(v.count)
    return bool(seen[0] == seen[1]) and all(same_bits(getattr(both[0], a), getattr(both[1], a)) for a in "xgd")


def _compare_loss(name: str, rng: np.random.Generator, dtype: Any, length: int, flush: bool) -> bool:
    softmax, squares = name == "softmax_cross_entropy", name == "squared_error"
    shape = (3, max(length, 1)) if softmax else (length,)
    x = random_array(rng, dtype, math.prod(shape)).reshape(shape)
    target = rng.integers(0, x.shape[-1], 3) if softmax else rng.random(length).astype(dtype)
    more = (None, rng.random(3)) if softmax else (0.5,)
    seen: list[list[Any]] = []
    for module in (_core, reference_losses):
        g, losses, how = np.zeros_like(x), np.zeros(shape[0]), {"flush": flush} if module is _core else {}
        with _core.subnormals(flush), np.errstate(all="ignore"):
            value = getattr(module, name)(x, target, *more, g, *() if squares else (losses,), **how)
        seen.append([g, losses, np.array(value if squares else 0.0)])
    return all(same_bits(a, b) for a, b in zip(*seen, strict=True))


COMPARE: dict[str, Callable[[str, np.random.Generator, Any, int, bool], bool]] = {
    "sum_squares": _compare_norm,
    "sum_abs": _compare_norm,
    "max_abs": _compare_norm,
    **dict.fromkeys(_core.SUMS, _compare_sum),
    "adafactor_factors": _compare_factors,
    "vectors": _compare_vectors,
    "softmax_cross_entropy": _compare_loss,
    "sigmoid_cross_entropy": _compare_loss,
    "squared_error": _compare_loss,
}
