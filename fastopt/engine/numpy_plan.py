"""``backend="numpy"``: the twins of csrc/run/ and of csrc/kernels/vectors.c, through the same door.

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
from fastopt.engine.program import COLUMNS, ROWS, CompiledScalar


class ReferencePlan(_core.Plan):
    """A :class:`_core.Plan` whose steps are NumPy."""

    def configure(self, max_norm: float, measure: bool, threads: int) -> None:
        self._max_norm, self._measure = max_norm, measure
        self._max_norms: list[float] = []

    def clip_groups(self, max_norms: list[float]) -> None:
        self._max_norms = max_norms

    def set_programs(self, programs: list[Any], rules: list[list[float]], signs: list[float]) -> None:
        super().set_programs(programs, rules, signs)
        self._programs = programs
        self._numbers: list[dict[str, float]] = []
        for program in programs:
            own: dict[str, float] = {}
            for step in program.passes:
                if isinstance(step, CompiledScalar):
                    own.update(step.values)
                else:
                    for prefix, _, values in step.calls:
                        own.update({f"{prefix}.{name}" if prefix else name: x for name, x in values.items()})
            self._numbers.append(own)
        self._of_all = [[*values] for values in rules]
        self._signs = signs

    def set_numbers(self, program: int, values: dict[str, float], stage: str = "") -> None:
        self._numbers[program].update({f"{stage}.{name}" if stage else name: x for name, x in values.items()})

    def registers(self, rule: int, count: int) -> list[float]:
        return self._of_all[rule][:count]

    def taken_back(self) -> bool:
        return not all(self._went)

    def went(self, rule: int) -> bool:
        return self._went[rule]

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
        self._went = [True] * len(self._of_all)
        with _core.subnormals(self.flush), np.errstate(all="ignore"):
            grads = self._flat()
            present = [i for i, g in enumerate(grads) if g is not None]
            factors = self._clipped(grads, present)
            if factors is None:
                return False
            used = {self._assigned[i] for i in present}
            phases = max((len(self._programs[k].passes) for k in used), default=0)
            walkers = {i: self._walker(i, grads[i], factors[self._group_of(i)]) for i in present}
            for phase in range(phases):
                self._run_phase(walkers, phase - phases)
        return True

    def _group_of(self, i: int) -> int:
        group: int = self._programs[self._assigned[i]].group
        return group

    def _clipped(self, grads: list[Any], present: list[int]) -> list[reference.Factor] | None:
        """What each group's gradients are multiplied by; None where the step is to be refused."""
        groups = range(len(self._signs))
        if not self._measure:
            return [(self.unscale, 1.0) for _ in groups]
        self._norm, of_all = self._clip([grads[i] for i in present], self._max_norm)
        if of_all is None or not self._max_norms:
            return None if of_all is None else [of_all for _ in groups]
        found = []
        for k in groups:
            _, by = self._clip([grads[i] for i in present if self._group_of(i) == k], self._max_norms[k])
            if by is None:
                return None
            found.append(by)
        return found

    def _clip(self, grads: list[Any], max_norm: float) -> tuple[float, reference.Factor | None]:
        """A norm, and the factor that clips it."""
        norm, finite = reference.norm(grads)
        norm *= self.unscale
        clipping = math.isfinite(max_norm)
        if not finite or (clipping and not math.isfinite(norm)):
            return norm, None
        if not clipping or norm <= max_norm:
            return norm, (self.unscale, 1.0)
        first, second = reference.factor_between(max_norm, norm)
        return norm, (first * self.unscale, second)

    def _walker(self, i: int, grad: Any, scale: tuple[float, float]) -> Walker:
        program = self._assigned[i]
        first, second = scale
        by = first * self._signs[self._programs[program].group], second
        order = self._orders()[i]
        return Walker(self, i, self._programs[program], self._numbers[program], grad, by, order)

    def _run_phase(self, walkers: dict[int, Walker], k: int) -> None:
        """The passes that are the k-th from the end of their programs."""
        now = [w for w in walkers.values() if len(w.program.passes) >= -k and self._went[w.program.rule]]
        for w in now:
            w.run(w.program.passes[k])
        for rule in range(len(self._of_all)):
            own = [w for w in now if w.program.rule == rule]
            if own:
                self._finish_rule(rule, own, own[0].program.passes[k])

    def _finish_rule(self, rule: int, walkers: list[Walker], step: Any) -> None:
        names = walkers[0].program.all
        if isinstance(step, CompiledScalar):
            if step.all:
                self._of_all[rule] = walkers[0].scalar(step, self._of_all[rule], names)
                if "go" in _core.SCALARS[step.function][1]:
                    self._went[rule] = self._of_all[rule][names.index("go")] != 0
            return
        for total in step.sums:
            if total.register in names:
                parts = [part for w in walkers for part in w.parts[total.register]]
                self._of_all[rule][names.index(total.register)] = reference.add_blocks(parts)


class Walker:
    """One tensor on its way through a program."""

    def __init__(self, plan: ReferencePlan, i: int, program: Any, numbers: dict[str, float], grad: Any,
                 scale: tuple[float, float], order: Any) -> None:  # fmt: skip
        self.plan, self.program, self.numbers, self.scale = plan, program, numbers, scale
        self.grad, self.order = grad, order
        self.p = plan.params[i]
        self.buffers = {"p": self.p.reshape(-1, order=order)}
        self.vectors: dict[str, Any] = {}
        average = plan.averages[i]
        if average is not None:
            self.buffers["average"] = average.reshape(-1, order=order)
        for name, extent, a in zip(program.slots, program.extents, plan.states[i], strict=True):
            if extent:
                self.vectors[name] = a.reshape(-1, order=order)
            else:
                self.buffers[name] = a.reshape(-1, order=order)
        self.registers: dict[str, float] = dict.fromkeys(program.tensor, 0.0)
        if "elements" in self.registers:
            self.registers["elements"] = float(self.p.size)
        self.parts: dict[str, list[float]] = {}

    def number(self, name: str) -> float:
        if name in self.registers:
            return self.registers[name]
        if name in self.program.all:
            found: float = self.plan._of_all[self.program.rule][self.program.all.index(name)]
            return found
        return self.numbers[name]

    def run(self, step: Any) -> None:
        if isinstance(step, CompiledScalar):
            if not step.all:
                outs = _core.SCALARS[step.function][1]
                found = self._call_scalar(step)
                self.registers.update(zip(outs, found, strict=True))
            return
        at = {**self.buffers, "g": np.empty_like(self.grad), **self._spread()}
        at.update({name: np.zeros_like(self.buffers["p"]) for name in self.program.scratch})
        if step.copies:
            at["p"] = at["p"].copy()
        reference.load(at["g"], self.grad, self.scale)
        for prefix, name, _ in step.calls:
            if name == "factors":
                self._factor(at["g"])
                continue
            for slot in () if prefix else step.begins:
                reference.scale(at[slot], at["g"], 1.0)
            _, buffers, coefs = _core.KERNELS[name]
            values = [self.numbers[f"{prefix}.{c}"] if prefix else self.number(c) for c in coefs]
            given = [at[b] for b in buffers]
            if step.wide and name == "average":
                given[1] = given[1].astype(np.float64)
            getattr(reference, name)(*given, *values)
        for total in step.sums:
            parts = reference.blocks(total.reduction, [at[b] for b in total.buffers])
            self.parts[total.register] = parts
            if total.register in self.registers:
                self.registers[total.register] = reference.add_blocks(parts)

    def _shape(self) -> tuple[int, int, int]:
        """Matrices, rows and columns as they lie in memory."""
        rows, columns = self.p.shape[-2:] if self.order == "C" else self.p.shape[::-1]
        return self.p.size // max(1, rows * columns), rows, columns

    def _spread(self) -> dict[str, Any]:
        if not self.vectors or not self.p.size:
            return dict(self.vectors)
        matrices, rows, columns = self._shape()
        found = {}
        for name, extent in zip(self.program.slots, self.program.extents, strict=True):
            if extent == ROWS:
                found[name] = np.repeat(self.vectors[name], columns)
            elif extent == COLUMNS:
                found[name] = np.tile(self.vectors[name].reshape(matrices, 1, columns), (1, rows, 1)).reshape(-1)
        return found

    def _factor(self, g: Any) -> None:
        if not g.size:
            return
        matrices, rows, columns = self._shape()
        coefs = [self.number(name) for name in ("keep", "gain", "eps_add", "floor_r")]
        for m, matrix in enumerate(g.reshape(matrices, rows, columns)):
            row_sums, column_sums = reference.line_sums(matrix)
            r, c, a = (self.vectors[x] for x in ("r", "c", "a"))
            of_rows, of_columns = slice(m * rows, (m + 1) * rows), slice(m * columns, (m + 1) * columns)
            reference.adafactor_factors(row_sums, column_sums, r[of_rows], c[of_columns], a[of_rows], *coefs)

    def _call_scalar(self, step: Any) -> tuple[float, ...]:
        found: tuple[float, ...] = getattr(reference, step.function)(
            *[self.number(name) for name in _core.SCALARS[step.function][0]]
        )
        return found

    def scalar(self, step: Any, registers: list[float], names: tuple[str, ...]) -> list[float]:
        """The registers of all after a scalar function of them."""
        values = dict(zip(names, registers, strict=True))
        values.update(zip(_core.SCALARS[step.function][1], self._call_scalar(step), strict=True))
        return [values[name] for name in names]


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
