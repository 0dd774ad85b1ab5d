"""``backend="numpy"``: the twin of csrc/step.c, running fastopt.reference through the same door.

It shares the optimizer classes, the checks and the programs with the compiled backend, so a test that
compares the two compares kernels and their order, and nothing else.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastopt import _core, reference


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

    def report(self, cls: Any, applied: bool, t: int) -> Any:
        return cls(applied, self._norm, t)

    @property
    def norm(self) -> float | None:
        return self._norm

    def run(self) -> bool:
        self._norm: float | None = None
        with _core.subnormals(self.flush), np.errstate(all="ignore"):
            orders: list[Any] = ["C" if p.flags.c_contiguous else "F" for p in self.params]
            grads = [None if g is None else g.ravel(order) for g, order in zip(self.grads, orders, strict=True)]
            scale = self._sign
            if self._measure:
                self._norm, finite = reference.norm(g for g in grads if g is not None)
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
