"""``backend="numpy"``: the twins of csrc/step.c and csrc/vectors.c, running fastopt.reference through the same door.

It shares the optimizer classes, the checks and the programs with the compiled backend, so a test that
compares the two compares kernels and their order, and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from fastopt import reference
from fastopt.base.tree import Array
from fastopt.core import _core


class ReferencePlan(_core.Plan):
    """A :class:`_core.Plan` whose steps are NumPy."""

    def configure(self, max_norm: float, sign: float, measure: bool, threads: int) -> None:
        self._max_norm, self._sign, self._measure = max_norm, sign, measure

    def set_programs(self, programs: list[_core.Program]) -> None:
        self._programs = [dict(program) for program in programs]

    def set_coefficients(self, program: int, values: dict[str, float]) -> None:
        coefficients = self._programs[program]
        coefficients[self.rule] = {**coefficients[self.rule], **values}

    def assign(self, tensor: int, program: int) -> None:
        if not hasattr(self, "_assigned"):
            self._assigned = [0] * len(self.params)
        self._assigned[tensor] = program

    @property
    def norm(self) -> float | None:
        return self._norm

    def measure(self, kind: _core.Reduction) -> tuple[float, bool]:
        with _core.subnormals(self.flush), np.errstate(all="ignore"):
            return reference.norm((g for g in self._flat() if g is not None), getattr(reference, kind))

    def _orders(self) -> list[Any]:
        return ["C" if p.flags.c_contiguous else "F" for p in self.params]

    def _flat(self) -> list[_core.Array | None]:
        return [None if g is None else g.ravel(order) for g, order in zip(self.grads, self._orders(), strict=True)]

    def run(self) -> bool:
        self._norm: float | None = None
        with _core.subnormals(self.flush), np.errstate(all="ignore"):
            orders, grads = self._orders(), self._flat()
            scale = self._sign * self.unscale
            if self._measure:
                norm, finite = reference.norm(g for g in grads if g is not None)
                self._norm = norm * self.unscale
                clipping = math.isfinite(self._max_norm)
                if not finite or (clipping and not math.isfinite(self._norm)):
                    return False
                if clipping and self._norm > self._max_norm:
                    scale *= self._max_norm / self._norm
            for i, g in enumerate(grads):
                if g is not None:
                    self._walk(i, g, scale, orders[i])
        return True

    def _walk(self, i: int, grad: _core.Array, scale: float, order: Any) -> None:
        flat = [a.reshape(-1, order=order) for a in (self.params[i], *self.states[i])]
        buffers = {"p": flat[0], "g": np.empty_like(grad)}
        buffers.update(zip(_core.KERNELS[self.rule][1][2:], flat[1:], strict=True))
        average = self.averages[i]
        if average is not None:
            buffers["average"] = average.reshape(-1, order=order)
        reference.scale(buffers["g"], grad, scale)
        for name, coefs in self._programs[self._assigned[i]].items():
            _, buffer_names, coef_names = _core.KERNELS[name]
            getattr(reference, name)(*[buffers[b] for b in buffer_names], *[coefs[c] for c in coef_names])


class ReferenceVectors:
    """A :class:`_core.Vectors` in NumPy."""

    def __init__(self, n: int, dtype: Any, history: int, memory: Callable[[tuple[int, ...], Any], Array]) -> None:
        self.x, self.g, self.d, self.trial_x, self.trial_g = memory((5, n), dtype)
        self._history = history
        self._pairs: list[tuple[Array, Array]] = []
        self._rho: list[float] = []
        self._gamma = 1.0

    def direct(self) -> float:
        alphas = []
        with _core.subnormals(False), np.errstate(all="ignore"):
            reference.scale(self.d, self.g, -1.0)
            for (s, y), rho in zip(self._pairs[::-1], self._rho[::-1], strict=True):
                alphas.append(rho * reference.dot(self.d, s))
                reference.axpby(self.d, 1.0, y, -alphas[-1])
            a = self._gamma
            for (s, y), rho, alpha in zip(self._pairs, self._rho, alphas[::-1], strict=True):
                beta = rho * (a * reference.dot(self.d, y))
                reference.axpby(self.d, a, s, alpha - beta)
                a = 1.0
            return reference.dot(self.d, self.g)

    def move(self, alpha: float) -> None:
        with _core.subnormals(False), np.errstate(all="ignore"):
            self._add(self.trial_x, self.x, self.d, alpha)

    def _add(self, out: Array, a: Array, b: Array, factor: float) -> None:
        reference.scale(out, a, 1.0)
        reference.axpby(out, 1.0, b, factor)

    def _dot(self, a: Array, b: Array) -> float:
        with _core.subnormals(False), np.errstate(all="ignore"):
            return reference.dot(a, b)

    def slope(self) -> float:
        return self._dot(self.g, self.d)

    def trial_slope(self) -> float:
        return self._dot(self.trial_g, self.d)

    def steepness(self) -> tuple[float, float]:
        return float(np.max(np.abs(self.g), initial=0.0)), math.sqrt(self._dot(self.g, self.g))

    def accept(self) -> None:
        if self._history:
            with _core.subnormals(False), np.errstate(all="ignore"):
                s, y = np.empty_like(self.x), np.empty_like(self.x)
                self._add(s, self.trial_x, self.x, -1.0)
                self._add(y, self.trial_g, self.g, -1.0)
            self._remember(s, y)
        self.x, self.trial_x = self.trial_x, self.x
        self.g, self.trial_g = self.trial_g, self.g

    @property
    def count(self) -> int:
        return len(self._pairs)

    def forget(self) -> None:
        self._pairs, self._rho = [], []

    def pairs(self) -> list[tuple[Array, Array]]:
        return list(self._pairs)

    def replace(self, pairs: list[tuple[Array, Array]], values: _core.Values) -> None:
        self.forget()
        for s, y in pairs:
            self._remember(s.copy(), y.copy())
        _core.publish([], values)

    def _remember(self, s: Array, y: Array) -> None:
        ss, sy, yy = self._dot(s, s), self._dot(s, y), self._dot(y, y)
        if not sy > float(np.finfo(s.dtype).eps) * (math.sqrt(ss) * math.sqrt(yy)) or math.isinf(1 / sy):
            return
        self._pairs = [*self._pairs, (s, y)][-self._history :]
        self._rho = [*self._rho, 1 / sy][-self._history :]
        self._gamma = sy / yy
