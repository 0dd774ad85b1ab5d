"""Averages of parameters, kept outside the optimizer, and their way into the parameters and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from fastopt.base import tree
from fastopt.base.arguments import boolean, from_0_below_1, shown, whole
from fastopt.base.fitting import copies_fitting, is_count
from fastopt.base.memory import copies_of, doubles_of
from fastopt.base.tree import Array, Tree
from fastopt.core import _core
from fastopt.engine.hyperparameters import Hyperparameter, Own, show
from fastopt.engine.passes import Plans, named, stepping
from fastopt.engine.program import passed
from fastopt.schedules.averaging import ema_decay
from fastopt.schedules.base import Scalar

if TYPE_CHECKING:
    from fastopt.engine.engine import Engine

WHY = "the averages are in the parameters: do this after they are swapped back"
LOADING = "averages are being loaded: do this after it"
AVERAGING = Plans()
"""The plans of all averages: none is updated while others are in the parameters."""


class Average:
    """What EMA and RunningMean share."""

    _wide: _core.Plan | None
    """Of averages in another dtype than the parameters, which it has copies of; None where both have one."""

    def __init__(self, params: Tree, flush_subnormals: bool, dtype: Any = None) -> None:
        template = tree.owned(params)
        names, arrays = named(template)
        flush, none = boolean("flush_subnormals", flush_subnormals), ((),) * len(names)
        self.dtype = _dtype("dtype", dtype)
        if self.dtype is None or all(p.dtype == np.float64 for p in arrays):
            averages: tuple[Array | None, ...] = tuple(copies_of(arrays))
            self._wide = None
        else:
            averages = (None,) * len(names)
            made = iter(doubles_of([p for p in arrays if p.dtype != np.float64]))
            copies = tuple(p if p.dtype == np.float64 else next(made) for p in arrays)
            self._wide = _core.Plan(template, names, copies, none, tuple(doubles_of(arrays)), flush)
        self._plan = _core.Plan(template, names, arrays, none, averages, flush)
        AVERAGING.add(self._plan)
        self._displacement = _core.Displacement(arrays, lasting=False)
        self.count = 0

    @property
    def _kernel(self) -> str:
        raise NotImplementedError

    def _coefficients(self) -> dict[str, float]:
        """Of the kernel, at the coming update."""
        raise NotImplementedError

    @property
    def averages(self) -> Tree:
        """The averages in the structure of the parameters: live arrays, and copies of the parameters at first."""
        return tree.rebuild(self._plan.template, self._arrays())

    def update(self) -> None:
        """Takes the parameters as they are into the averages; the first time, they are copied.

        Raises RuntimeError where they are not those of a whole step: while an optimizer of them is inside a step, in a
        look-ahead block, at SAM's perturbed point, or while averages are in them.
        """
        self._refuse_swapped()
        plan = self._plan
        _core.undisturbed(stepping(plan), plan.with_parameters, self._update)

    def _update(self) -> None:
        plan = self._plan
        counted: _core.Values = [(self, "count", self.count + 1)]
        if not self.count:
            plan.confirm()
            _core.publish(list(zip(plan.params, self._arrays(), strict=True)), counted)
        elif self._wide is None:
            self._run(plan, counted)
        else:
            plan.confirm()
            _core.publish([(p, a) for p, a in zip(plan.params, self._wide.params, strict=True) if p is not a], [])
            self._wide.with_parameters(self._run, self._wide, counted)

    def _run(self, plan: _core.Plan, counted: _core.Values) -> None:
        plan.set_programs([passed([(self._kernel, self._coefficients())])], [[]], [1.0])
        plan.run_and_publish(counted)

    def swap(self) -> None:
        """Puts the averages into the parameters; the next call puts back, bit for bit, what was there.

        In between, optimizers of these parameters raise RuntimeError when they are to step, and so does `update`, of
        other averages of them too. What is written to the parameters meanwhile is lost; the averages stay as they are.
        """
        if self._displacement.begun:
            self._displacement.end()
        else:
            self._displacement.begin(*self._in())

    def swapped(self) -> AbstractContextManager[None]:
        """Has the averages in the parameters inside a with block: `swap` before and after, also after an exception."""
        self._refuse_swapped()
        return _core.Displaced(self._displacement, *self._in())

    def state_dict(self) -> dict[str, Any]:
        """A copy of the averages by name and of the count, for `load_state_dict`."""
        return self._plan.read(self._state_dict)

    def _state_dict(self) -> dict[str, Any]:
        pairs = zip(self._plan.names, self._arrays(), strict=True)
        return {"count": self.count, "averages": {name: np.copy(a, order="K") for name, a in pairs}}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Takes over what `state_dict` gave; raises ValueError for what does not fit, before anything is changed."""
        self._refuse_swapped()
        if not isinstance(saved, Mapping) or saved.keys() != {"count", "averages"}:
            raise ValueError("this is not the state of an average: expected a dict with count and averages")
        if not is_count(saved["count"]):
            raise ValueError(f"count is {shown(saved['count'])}: expected how many updates there were")
        copies = copies_fitting("the average", self._plan.names, self._arrays(), saved["averages"])
        self._plan.during(LOADING, _core.publish, copies, [(self, "count", saved["count"])])

    def __getstate__(self) -> Any:
        self._refuse_swapped()
        own = {name: x for name, x in vars(self).items() if name not in ("_plan", "_wide", "_displacement")}
        return self._plan.template, self._plan.flush, own, self.state_dict()

    def __setstate__(self, saved: tuple[Tree, bool, dict[str, Any], dict[str, Any]]) -> None:
        params, flush, own, averages = saved
        Average.__init__(self, params, flush, own["dtype"])
        vars(self).update(own)
        self.load_state_dict(averages)

    def _arrays(self) -> list[Array]:
        plan = self._plan if self._wide is None else self._wide
        return [a for a in plan.averages if a is not None]

    def _in(self) -> tuple[Any, ...]:
        return _averages_in(self._plan, self._arrays())

    def _refuse_swapped(self) -> None:
        if self._displacement.begun:
            raise RuntimeError("the averages are in the parameters: swap() them back first")


class EMA(Average):
    """The exponential moving average of parameters: a = decay a + (1 - decay) p at every `update()`.

    params : an array, or nested lists and dicts of arrays, as an optimizer takes them.
    decay : in [0, 1): a number, or a schedule, a callable of how many updates have averaged so far.
    flush_subnormals : as for an optimizer. Default True.
    debias : weigh the updates as if there had been nothing before the first one, which otherwise has the weight of all
        before it: with weights (1 - decay) decay^k, divided by their sum. It needs a decay that is a number.
    warmup : the smaller of decay and (1 + n)/(10 + n), n of how many updates have averaged so far.
    start : updates in which the average only follows the parameters, and that do not count as averaging. 0 or larger.
    dtype : "float64" keeps averages of float32 parameters in float64, where they go on moving at a decay close to 1; it
        takes 16 bytes an element, instead of 4. Default None: that of each parameter.

    The first update copies the parameters, as that of PyTorch's AveragedModel: call it before the first step to begin
    at the initial weights, as `average=` of an optimizer does, whose bits it then has. With debias leave that out.

        ema = fastopt.EMA(params, 0.999)
        for ...:
            opt.step(grads)
            ema.update()
        with ema.swapped():
            evaluate(params)
    """

    decay = Own(from_0_below_1)

    def __init__(
        self,
        params: Tree,
        decay: Scalar,
        flush_subnormals: bool = True,
        *,
        debias: bool = False,
        warmup: bool = False,
        start: int = 0,
        dtype: Any = None,
    ) -> None:
        self.decay = decay
        self.debias, self.warmup = boolean("debias", debias), boolean("warmup", warmup)
        self.start = whole("start", start, 0)
        self._decay()
        super().__init__(params, flush_subnormals, dtype)

    @property
    def _kernel(self) -> str:
        return "average"

    def _decay(self) -> Scalar:
        if self.debias or self.warmup or self.start:
            return ema_decay(self.decay, debias=self.debias, warmup=self.warmup, start=self.start)
        decay: Scalar = self.decay
        return decay

    def _coefficients(self) -> dict[str, float]:
        # Without debias the first update has not averaged, but put there what others are averaged with.
        decay = EMA.decay.at(self.count if self.debias else self.count - 1, self._decay())
        return {"decay": decay, "gain": 1 - decay}

    def __repr__(self) -> str:
        options = {"debias": self.debias, "warmup": self.warmup, "start": self.start, "dtype": self.dtype}
        shown = "".join(f", {name}={x!r}" for name, x in options.items() if x)
        return f"EMA(decay={show(self.decay)}{shown}): {len(self._plan.names)} tensors, {self.count} updates"


class RunningMean(Average):
    """The mean of the parameters at every `update()`, as for stochastic weight averaging: a += (p - a) / n at the n-th.

    params : an array, or nested lists and dicts of arrays, as an optimizer takes them.
    flush_subnormals : as for an optimizer. Default True.
    dtype : "float64" keeps means of float32 parameters in float64. Default None: that of each parameter.

    Call `update()` once an epoch or so, at a learning rate that stays large. Source: Izmailov et al. (2018).
    """

    def __init__(self, params: Tree, flush_subnormals: bool = True, *, dtype: Any = None) -> None:
        super().__init__(params, flush_subnormals, dtype)

    @property
    def _kernel(self) -> str:
        return "mean"

    def _coefficients(self) -> dict[str, float]:
        return {"gain": 1 / (self.count + 1)}

    def __repr__(self) -> str:
        return f"RunningMean: {len(self._plan.names)} tensors, {self.count} updates"


def refuse_none(engine: Engine) -> None:
    if engine.options["average"] is None:
        raise ValueError("no averages are kept: make the optimizer with average=, for example average=0.999")


def average_dtype(name: str, value: Any) -> str | None:
    """What an optimizer keeps its averages in: "float64", or None for the type of each parameter."""
    return _dtype(name, value)


BEGINNINGS = {"debias": False, "warmup": False, "start": 0}


def folded(given: Mapping[str, Any], average: Hyperparameter) -> dict[str, Any]:
    """An optimizer's keywords with average_debias, average_warmup and average_start in the schedule that they make of
    `average`, this option."""
    kept = dict(given)
    named = {name: kept.pop(f"average_{name}") for name in BEGINNINGS if f"average_{name}" in kept}
    for name in named:
        called = f"average_{name}"
        named[name] = whole(called, named[name], 0) if name == "start" else boolean(called, named[name])
    named = {name: x for name, x in named.items() if x}
    if not named:
        return kept
    if kept.get("average") is None:
        which = " and ".join(f"average_{name}" for name in named)
        raise ValueError(f"{which} without average=: there is no average to begin so")
    decay = average.admit(kept["average"])
    if callable(decay) and "debias" in named:
        raise TypeError(f"average is {shown(decay)}: with average_debias=True expected a number")
    return {**kept, "average": ema_decay(decay, **named)}


def averaged(engine: Engine) -> AbstractContextManager[None]:
    refuse_none(engine)
    plan = engine.plan
    params = tuple(p for p, a in zip(plan.params, plan.averages, strict=True) if a is not None)
    return _core.Displaced(_core.Displacement(params, lasting=False), *_averages_in(plan, plan.averages))


def _averages_in(plan: _core.Plan, averages: Sequence[Array | None]) -> tuple[Any, ...]:
    """What a displacement begins with that puts averages into a plan's parameters."""
    pairs = [(a, p) for a, p in zip(averages, plan.params, strict=True) if a is not None]
    return partial(_touching, plan), WHY, _core.publish, pairs, []


def _dtype(name: str, value: Any) -> str | None:
    if value is None or value is np.float64 or (isinstance(value, (str, np.dtype)) and value == "float64"):
        return None if value is None else "float64"
    raise ValueError(f"{name} is {shown(value)}: expected None, for that of the parameters, or 'float64'")


def _touching(plan: _core.Plan) -> list[_core.Plan]:
    """The plans of all optimizers and averages of its parameters."""
    return stepping(plan) + AVERAGING.touching(plan)
