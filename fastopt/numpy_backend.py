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

    def set_programs(self, programs: list[_core.Program]) -> None:
        self.programs = programs

    def assign(self, tensor: int, program: int) -> None:
        if not hasattr(self, "assigned"):
            self.assigned = [0] * len(self.params)
        self.assigned[tensor] = program

    def run(self, max_norm: float, sign: float, measure: bool) -> tuple[bool, float | None]:
        assert self.grads is not None
        with _core.subnormals(self.flush), np.errstate(all="ignore"):
            orders: list[Any] = ["C" if p.flags.c_contiguous else "F" for p in self.params]
            grads = [None if g is None else g.ravel(order) for g, order in zip(self.grads, orders, strict=True)]
            scale, norm = sign, None
            if measure:
                norm, finite = reference.norm(g for g in grads if g is not None)
                clipping = math.isfinite(max_norm)
                if not finite or (clipping and not math.isfinite(norm)):
                    return False, norm
                if clipping and norm > max_norm:
                    scale *= max_norm / norm
            for i, g in enumerate(grads):
                if g is not None:
                    self._walk(i, g, scale, orders[i])
        return True, norm

    def _walk(self, i: int, grad: _core.Array, scale: float, order: Any) -> None:
        flat = [a.reshape(-1, order=order) for a in (self.params[i], *self.states[i])]
        buffers = {"p": flat[0], "g": np.empty_like(grad)}
        buffers.update(zip(_core.KERNELS[self.rule][1][2:], flat[1:], strict=True))
        average = self.averages[i]
        if average is not None:
            buffers["average"] = average.reshape(-1, order=order)
        reference.scale(buffers["g"], grad, scale)
        for name, values in self.programs[self.assigned[i]]:
            _, buffer_names, coef_names = _core.KERNELS[name]
            kernel = getattr(reference, name)
            kernel(*[buffers[b] for b in buffer_names], *[values[c] for c in coef_names])
