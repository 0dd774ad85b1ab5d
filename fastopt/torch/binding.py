"""The engine of a torch optimizer: binds the tensors of its groups and state to a plan of the core, with their numbers.

A plan looks at every tensor again at each step, and takes the step alone while all are as they were bound. Where one is
not, or groups, gradients or counts have come apart, all is bound anew: only here is state made and anything said.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from fastopt.base.arguments import number
from fastopt.base.nonfinite import NonFiniteError
from fastopt.core import _core
from fastopt.engine.numbers import Numbers
from fastopt.engine.program import LIKE_P, Form, Slot, compiled
from fastopt.engine.rule import Rule
from fastopt.engine.stages import STAGES
from fastopt.torch import door, parts, state
from fastopt.torch.translation import Translation, plain, translated

OTHERWISE, REFUSED, TAKEN_BACK, APPLIED = range(4)
UNCHANGED = "the step was not applied, nothing has changed"
INSIDE = "this optimizer is inside a step already: do one thing at a time"


def to_array(tensor: torch.Tensor) -> Any:
    """What NumPy shares with it; of what NumPy has no type for, an array of the same extents."""
    tensor = tensor.detach()
    if tensor.layout != torch.strided or tensor.dtype not in state.NUMPY or tensor.device.type != "cpu":
        return np.broadcast_to(np.int8(0), tensor.shape)
    if tensor.numel() and not tensor.data_ptr():
        return np.broadcast_to(np.int8(0), tensor.shape)
    if tensor.is_neg():
        # Its memory as it is, without the sign.
        bare = torch.empty(0, dtype=tensor.dtype)
        tensor = bare.set_(tensor.untyped_storage(), tensor.storage_offset(), tensor.shape, tensor.stride())
    return tensor.numpy()


SOURCE = _core.Source(door.TYPES, to_array)


def _increment(tensors: list[torch.Tensor]) -> None:
    for tensor in tensors:
        torch.autograd.graph.increment_version(tensor)


def _incrementer() -> Callable[[list[torch.Tensor]], None]:
    """What marks tensors as written, so that backward through an old graph is refused."""
    try:
        torch._C._increment_version([])
    except (AttributeError, TypeError, RuntimeError):  # Before 2.5 it takes one tensor.
        return _increment
    found: Callable[[list[torch.Tensor]], None] = torch._C._increment_version
    return found


INCREMENT = _incrementer()


def marked(tensors: Sequence[torch.Tensor]) -> None:
    """Marks tensors as written in place."""
    try:
        INCREMENT(list(tensors))
    except RuntimeError:
        # Some of inference mode, which count nothing; that others count twice is no harm.
        INCREMENT([t for t in tensors if not t.is_inference()])


class Bound(NamedTuple):
    """A parameter as the plan takes it: see _core.TensorPlan."""

    p: torch.Tensor
    home: torch.Tensor
    group: int
    state: dict[str, Any] | None = None
    kept: tuple[tuple[str, torch.Tensor], ...] = ()
    slots: tuple[torch.Tensor, ...] = ()
    average: torch.Tensor | None = None
    steps: torch.Tensor | None = None
    numbers: tuple[torch.Tensor, ...] = ()
    lines: tuple[int, int] | None = None
    versioned: bool = True
    still: bool = False
    """Its gradient counts as None, as its group takes no part."""


class Whole(NamedTuple):
    """The options of the whole optimizer, which no group has."""

    clip_norm: float | None = None
    clip_value: float | None = None
    on_nonfinite: str | None = None
    average: float | None = None
    flush_subnormals: bool = False
    threads: int | None = None
    fallback: str | None = None


class Delegated(Exception):
    """Some parameters are for PyTorch to step, or have parts in other processes."""


class Engine:
    """What steps a torch optimizer. `applied`, `skipped` count steps, `grad_norm` is of the last, where measured."""

    def __init__(self, translation: Translation, whole: Whole, source: Any = SOURCE) -> None:
        self.translation, self.rule, self.whole, self.source = translation, translation.rule, whole, source
        self._excludes = self.rule.moving.__func__ is not Rule.moving.__func__  # type: ignore[attr-defined]
        self._is_plain = self.rule.form.__func__ is Rule.form.__func__  # type: ignore[attr-defined]
        self.plan: Any = None
        self.applied = self.skipped = 0
        self.loss = 0.0
        self.grad_norm: float | None = None
        self._lock = threading.Lock()
        self._why = INSIDE
        self._before: list[tuple[Any, dict[str, Any] | None]] = []

    @contextlib.contextmanager
    def held(self, why: str) -> Iterator[None]:
        """Whoever wants a step meanwhile gets a RuntimeError that says why."""
        self._claim()
        self._why = why
        try:
            yield
        finally:
            self._why = INSIDE
            self._lock.release()

    def change(self, whole: Whole) -> None:
        """Takes other options, and binds anew at the next step."""
        with self.held(INSIDE):
            self.whole, self.plan = whole, None

    def _claim(self) -> None:
        if not self._lock.acquire(blocking=False):
            raise RuntimeError(self._why)

    def step(self, groups: list[dict[str, Any]], states: dict[Any, Any], unscale: float, loss: Any = None) -> bool:
        """A step with the gradients that the parameters have, times unscale; returns whether it was applied.
        `loss` is for rules that need it."""
        if self.rule.needs_loss and not self._takes(loss):
            return False
        self._claim()
        try:
            self._groups = groups
            outcome = OTHERWISE if self.plan is None else self.plan.attempt(self, groups, states, unscale)
            if outcome == OTHERWISE:
                self._bind(groups, states)
                outcome = self.plan.attempt(self, groups, states, unscale)
            applied = self._told(outcome, groups)
            if self._before:
                self._settle(states, outcome)
            return applied
        except BaseException:
            self._settle(states, OTHERWISE)
            self.plan = None
            raise
        finally:
            self._lock.release()

    def _settle(self, states: dict[Any, Any], outcome: int) -> None:
        """Keeps the state that was made for a step, or, where this was refused, has it as it was: a momentum begins
        where there is no buffer, and with a step that was refused it has not begun."""
        before, self._before = self._before, []
        if outcome in (TAKEN_BACK, APPLIED) or not before:
            return
        self.plan = None
        for p, of_p in before:
            if of_p is None:
                states.pop(p, None)
            else:
                states[p].clear()
                states[p].update(of_p)

    def _takes(self, loss: Any) -> bool:
        """Whether the step can go on with this loss."""
        name = self.rule.__name__
        if loss is None:
            raise TypeError(f"{name} needs the loss: pass step(closure) one that returns it, or step(loss=loss)")
        self.loss = number("loss", plain(loss), "a number")
        if math.isfinite(self.loss):
            return True
        if self.whole.on_nonfinite != "skip":
            raise NonFiniteError(f"the loss is {self.loss!r}, and {name} takes its step from it")
        self.skipped += 1
        return False

    def _told(self, outcome: int, groups: list[dict[str, Any]]) -> bool:
        if outcome == OTHERWISE:
            raise RuntimeError("parameters, gradients or state have changed during the step: change them between steps")
        self.grad_norm = self.plan.norm
        if outcome == REFUSED:
            if self.whole.on_nonfinite != "skip":
                raise NonFiniteError(self._first_nonfinite(groups))
            self.skipped += 1
        elif outcome == APPLIED:
            self.applied += 1
            if self._beginning:
                self.plan = None
            if self.translation.shared:
                self._share(groups)
        return outcome == APPLIED

    def _first_nonfinite(self, groups: list[dict[str, Any]]) -> str:
        for name, item in zip(door.names(groups), self.plan.items, strict=True):
            g = item.p.grad
            if g is not None and not bool(torch.isfinite(g).all()):
                index = tuple((~torch.isfinite(g)).nonzero()[0].tolist())
                where = f" at index {index}" if index else ""
                return f"the gradient of {name} is {g[index].item()}{where}: {UNCHANGED}"
        return f"the norm of the gradients overflows float64: {UNCHANGED}"

    # What the plan asks for

    def plain(self, g: torch.Tensor) -> torch.Tensor:
        """A gradient that memory shows as it is: itself, or a copy of one that is read with the other sign or lies
        across the places of elements."""
        if state.is_plain(g):
            return g
        return g.resolve_neg() if g.is_neg() else g.clone()

    def advance(self, cohort: Any, t: int) -> Numbers:
        cohort.advanced = self.rule.advance(cohort.h, cohort.scalars, t)
        return Numbers(vars(cohort.h), cohort.advanced)

    def refresh(self, k: int, group: dict[str, Any]) -> bool:
        """New numbers of a group into the programs; False where it takes other programs."""
        h = self._numbers(group)
        if self._choices(h, group) != self._chosen[k]:
            return False
        if self._excludes and self._moving([self._numbers(each) for each in self._groups]) != self._moved:
            return False
        stages = _stages(h)
        numbers = self.rule.coefficients(h)
        for program, cohort in enumerate(self.plan.cohorts):
            if cohort.group != k:
                continue
            if not self._is_plain and self._form(h, self.plan.items[cohort.members[0]].home) != cohort.form:
                return False
            vars(cohort.h).update(vars(h))
            for name, values in stages.items():
                self.plan.set_numbers(program, values, name)
            self.plan.set_numbers(program, numbers)
        self.plan.remember_group(k, group)
        return True

    def refuse_alias(self, i: int, g: torch.Tensor) -> None:
        door.refuse_alias(self.source, self._names[i], g, self._written(self.plan.items))

    def _written(self, items: list[Bound]) -> list[tuple[str, torch.Tensor]]:
        found = []
        for name, item in zip(self._names, items, strict=True):
            found.append((name, item.p))
            found += [(f"the state of {name}", t) for t in item.slots]
            if item.average is not None:
                found.append((f"the average of {name}", item.average))
        return found

    # Binding

    def _numbers(self, group: Mapping[str, Any]) -> Numbers:
        for option in ("capturable", "differentiable"):
            if group.get(option):
                raise ValueError(f"{option}=True: the steps of fastopt are outside of graphs; use torch.optim for it")
        whole = {"clip_value": self.whole.clip_value, "average": self.whole.average}
        return Numbers(translated(self.translation, group, whole))

    def _moving(self, numbers: list[Numbers]) -> set[int]:
        """The groups that take part in a step; raises where they exclude each other."""
        return set(self.rule.moving(dict(enumerate(numbers))))

    def _choices(self, h: Any, group: Mapping[str, Any]) -> tuple[Any, ...]:
        """What decides over programs, apart from the numbers in them."""
        kernel = self.rule.kernel(h) if self._is_plain else None
        return kernel, tuple(_stages(h)), h.maximize, [group.get(name) for name in self.translation.shared]

    def _form(self, h: Any, home: torch.Tensor) -> Form:
        return self.rule.form(h, np.empty(tuple(home.shape), state.NUMPY[home.dtype]))

    def form_of(self, group: Mapping[str, Any], tensor: torch.Tensor) -> Form:
        """How a tensor of this group would be stepped."""
        return self._form(self._numbers(group), tensor)

    def _bind(self, groups: list[dict[str, Any]], states: dict[Any, Any]) -> None:
        numbers = [self._numbers(group) for group in groups]
        self._moved = self._moving(numbers)
        names = door.names(groups)
        params = [(k, p) for k, group in enumerate(groups) for p in group["params"]]
        if parts.any_in(groups) or any(door.delegated(p, self.whole.fallback) for _, p in params):
            raise Delegated
        door.refuse([p for _, p in params], names)
        homes: list[torch.Tensor] = []
        forms: list[Form] = []
        for k, p in params:
            forms.append(self._form(numbers[k], p))
            homes.append(state.home(p, by_rows=any(slot.extent != LIKE_P for slot in forms[-1].slots)))
        ready = [p.grad is not None for _, p in params]
        every = zip(params, homes, forms, names, ready, strict=True)
        new = [(p, home, form, numbers[k], name) for (k, p), home, form, name, now in every if now]
        first = self._complete(new, states)
        items = [
            self._item(k, p, home, form, states) if now else Bound(p, home, k)
            for (k, p), home, form, now in zip(params, homes, forms, ready, strict=True)
        ]
        self._names = names
        door.refuse_overlaps(self.source, self._written(items))
        self.plan = _core.TensorPlan(self.source, items, groups, states, self.whole.flush_subnormals, INCREMENT)
        self._chosen = [self._choices(h, group) for h, group in zip(numbers, groups, strict=True)]
        self._compile(groups, numbers, forms, first)

    def _complete(self, new: list[tuple[Any, ...]], states: dict[Any, Any]) -> set[int]:
        """Makes what state is missing, and lays out anew what does not lie as its parameter; returns the ids of those
        parameters whose buffers are new."""
        keys = self.translation.keys
        self._before = [(p, dict(states[p]) if p in states else None) for p, _, form, *_ in new if self._keeps(form)]
        lacking = []
        for p, home, form, h, name in new:
            of_p = states[p] if self._keeps(form) else {}
            if self.translation.counted:
                of_p["step"] = state.counted(of_p.get("step"), name)
            for scalar, x in self.rule.initial_scalars(h).items():
                if not isinstance(of_p.get(scalar), torch.Tensor):
                    of_p[scalar] = state.scalar(x)
            lacking += [
                (k, keys.get(slot.name, slot.name), slot, p, home, of_p, name)
                for k, slot in enumerate(form.slots)
                if slot.saved
            ]
            if self.whole.average is not None:
                lacking.append((len(form.slots), "average", Slot("average", start="p"), p, home, of_p, name))
        lacking = [x for x in lacking if not state.stands(x[5].get(x[1]), x[2], x[4], f"{x[1]} of {x[6]}")]
        # Buffer by buffer, as hardware foresees memory that goes on from one tensor to the next.
        memory = state.room([x[4] for x in lacking if x[2].extent == LIKE_P], 1)
        made = {}
        for _, key, slot, p, home, _, _ in sorted(lacking, key=lambda x: x[0]):
            made[id(p), key] = state.started(slot, home, memory)
        fresh = set()
        for _, key, _, p, _, of_p, _ in lacking:
            found = of_p.get(key)
            if found is None:
                # An average may begin when the rule has long done so.
                if key != "average":
                    fresh.add(id(p))
            else:
                made[id(p), key].copy_(found)
            of_p[key] = made[id(p), key]
        return fresh

    def _keeps(self, form: Form) -> bool:
        return self.translation.counted or bool(form.slots) or self.whole.average is not None

    def _item(self, k: int, p: Any, home: Any, form: Form, states: dict[Any, Any]) -> Bound:
        of_p = states[p] if self._keeps(form) else {}
        keys = [self.translation.keys.get(slot.name, slot.name) for slot in form.slots]
        slots = tuple(
            of_p[key] if slot.saved else torch.zeros(state.elements(slot, home), dtype=home.dtype)
            for key, slot in zip(keys, form.slots, strict=True)
        )
        kept = {key: of_p[key] for key, slot in zip(keys, form.slots, strict=True) if slot.saved}
        count = of_p["step"] if self.translation.counted else None
        if count is not None:
            kept["step"] = count
        numbers = tuple(of_p[key] for key in self.translation.scalars)
        kept.update(zip(self.translation.scalars, numbers, strict=True))
        average = of_p["average"] if self.whole.average is not None else None
        if average is not None:
            kept["average"] = average
        by_rows = any(slot.extent != LIKE_P for slot in form.slots)
        lines = (home.shape[-2], home.shape[-1]) if by_rows else None
        versioned, still = not p.is_inference(), k not in self._moved
        return Bound(
            p, home, k, of_p, tuple(kept.items()), slots, average, count, numbers, lines, versioned, still
        )  # fmt: skip

    def _compile(self, groups: list[dict[str, Any]], numbers: list[Any], forms: list[Form], first: set[int]) -> None:
        """Programs: one for the tensors of a group that have one form, one count and the same scalars."""
        plan = self.plan
        cohorts: list[Any] = []
        fresh: list[bool] = []
        changing = None if self.rule.coefficients_at is Rule.coefficients_at else self.rule.coefficients_at
        found: dict[Any, int] = {}
        for i, (item, form) in enumerate(zip(plan.items, forms, strict=True)):
            if item.state is None:
                continue
            scalars = [x.item() for x in item.numbers]
            new = item.steps is None and id(item.p) in first
            key = (item.group, form, None if item.steps is None else item.steps.item(), *scalars, new)
            if key not in found:
                found[key] = len(cohorts)
                pairs = dict(zip(self.translation.scalars, scalars, strict=True))
                cohort = _core.Cohort(item.group, form, [], 0, pairs)
                cohort.h = Numbers(vars(numbers[item.group]))
                cohort.changing = changing
                cohort.needs_loss = self.rule.needs_loss
                cohorts.append(cohort)
                fresh.append(new or item.steps is not None)
            cohorts[found[key]].members.append(i)
            plan.assign(i, found[key])
        firsts = [plan.items[c.members[0]].steps is None or not plan.items[c.members[0]].steps.item() for c in cohorts]
        self._beginning = any(first and c.form.begins for first, c in zip(firsts, cohorts, strict=True))
        programs = [
            compiled(c.form, 0, c.group, _stages(c.h), self.rule.coefficients(c.h), first=first)
            for c, first in zip(cohorts, firsts, strict=True)
        ]
        plan.set_programs(programs, [self._registers(groups, forms)], [-1.0 if h.maximize else 1.0 for h in numbers])
        plan.set_cohorts(cohorts, fresh)
        whole = self.whole
        measure = whole.clip_norm is not None or whole.on_nonfinite is not None
        plan.configure(math.inf if whole.clip_norm is None else whole.clip_norm, measure, whole.threads or 0)

    # Numbers of all tensors, which every group shows

    def _registers(self, groups: list[dict[str, Any]], forms: list[Form]) -> list[float]:
        form = forms[0] if forms else None
        if form is None or not form.all:
            return []
        return [groups[0].get(name, start) for name, start in form.all] + [0.0] * len(form.among)

    def _share(self, groups: list[dict[str, Any]]) -> None:
        values = dict(zip(self.translation.shared, self.plan.registers(0, len(self.translation.shared)), strict=True))
        for k, group in enumerate(groups):
            group.update(values)
            self.plan.remember_group(k, group)
            self._chosen[k] = self._choices(self._numbers(group), group)


def _stages(h: Any) -> dict[str, dict[str, float]]:
    """The stages that are on, with their numbers."""
    found = {name: stage(h) for name, stage in STAGES.items()}
    return {name: numbers for name, numbers in found.items() if numbers is not None}
