"""Averages of parameters, kept outside the optimizer, and their way into the parameters and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from fastopt import _core, state, tree
from fastopt.hyperparameters import Own, Scalar, boolean, from_0_below_1, show, shown
from fastopt.memory import copies_of
from fastopt.parameters import STEPPED, Block, Displacement, copy_all, named, take_named
from fastopt.tree import Array, Tree

if TYPE_CHECKING:
    from fastopt.optimizer import Optimizer

WHY = "the averages are in the parameters: do this after they are swapped back"


class Average:
    """What EMA and RunningMean share."""

    def __init__(self, params: Tree, flush_subnormals: bool) -> None:
        names, arrays = named(params)
        averages = tuple(copies_of(arrays))
        template = tree.transform(params, lambda p: p)
        flush, none = boolean("flush_subnormals", flush_subnormals), ((),) * len(names)
        self._plan = _core.Plan(self._kernel, template, names, arrays, none, averages, flush)
        STEPPED.add(self._plan)
        self._displacement: Displacement | None = None
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
        return tree.rebuild(self._plan.template, list(self._plan.averages))

    def update(self) -> None:
        """Takes the parameters as they are into the averages; the first time, they are copied."""
        self._refuse_swapped()
        plan = self._plan
        plan.admit_parameters()
        try:
            if self.count:
                plan.set_programs([[(self._kernel, self._coefficients())]])
                plan.run()
            else:
                copy_all(plan.params, self._arrays())
        finally:
            plan.release()
        self.count += 1

    def swap(self) -> None:
        """Puts the averages into the parameters; the next call puts back, bit for bit, what was there.

        In between, optimizers of these parameters raise RuntimeError when they are to step, and so does `update`, of
        other averages of them too. What is written to the parameters meanwhile is lost; the averages stay as they are.
        """
        if self._displacement is not None:
            self._displacement.end()
            self._displacement = None
        else:
            self._displacement = _displaced(self._plan)

    def swapped(self) -> AbstractContextManager[None]:
        """Has the averages in the parameters inside a with block: `swap` before and after, also after an exception."""
        return Block(self._swapped)

    @contextmanager
    def _swapped(self) -> Iterator[None]:
        self._refuse_swapped()
        self.swap()
        try:
            yield
        finally:
            if self._displacement is not None:
                self.swap()

    def state_dict(self) -> dict[str, Any]:
        """A copy of the averages by name and of the count, for `load_state_dict`."""
        pairs = zip(self._plan.names, self._arrays(), strict=True)
        return {"count": self.count, "averages": {name: np.copy(a, order="K") for name, a in pairs}}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Takes over what `state_dict` gave; raises ValueError for what does not fit, before anything is changed."""
        self._refuse_swapped()
        if not isinstance(saved, Mapping) or saved.keys() != {"count", "averages"}:
            raise ValueError("this is not the state of an average: expected a dict with count and averages")
        if not state._is_count(saved["count"]):
            raise ValueError(f"count is {shown(saved['count'])}: expected how many updates there were")
        take_named("the average", self._plan.names, self._arrays(), saved["averages"])
        self.count = saved["count"]

    def __getstate__(self) -> Any:
        self._refuse_swapped()
        own = {name: x for name, x in vars(self).items() if name not in ("_plan", "_displacement")}
        return self._plan.template, self._plan.flush, own, self.state_dict()

    def __setstate__(self, saved: tuple[Tree, bool, dict[str, Any], dict[str, Any]]) -> None:
        params, flush, own, averages = saved
        Average.__init__(self, params, flush)
        vars(self).update(own)
        self.load_state_dict(averages)

    def _arrays(self) -> list[Array]:
        return _averages_of(self._plan)

    def _refuse_swapped(self) -> None:
        if self._displacement is not None:
            raise RuntimeError("the averages are in the parameters: swap() them back first")


class EMA(Average):
    """The exponential moving average of parameters: a = decay a + (1 - decay) p at every `update()`.

    params : an array, or nested lists and dicts of arrays, as an optimizer takes them.
    decay : in [0, 1): a number, or a schedule, a callable of how many updates have averaged so far.
    flush_subnormals : as for an optimizer. Default True.

    The first update copies the parameters, as that of PyTorch's AveragedModel: call it before the first step to begin
    at the initial weights, as `average=` of an optimizer does, whose bits it then has.

        ema = fastopt.EMA(params, 0.999)
        for ...:
            opt.step(grads)
            ema.update()
        with ema.swapped():
            evaluate(params)
    """

    decay = Own(from_0_below_1)

    def __init__(self, params: Tree, decay: Scalar, flush_subnormals: bool = True) -> None:
        self.decay = decay
        super().__init__(params, flush_subnormals)

    @property
    def _kernel(self) -> str:
        return "average"

    def _coefficients(self) -> dict[str, float]:
        decay = EMA.decay.at(self.count - 1, self.decay)
        return {"decay": decay, "gain": 1 - decay}

    def __repr__(self) -> str:
        return f"EMA(decay={show(self.decay)}): {len(self._plan.names)} tensors, {self.count} updates"


class RunningMean(Average):
    """The mean of the parameters at every `update()`, as for stochastic weight averaging: a += (p - a) / n at the n-th.

    params : an array, or nested lists and dicts of arrays, as an optimizer takes them.
    flush_subnormals : as for an optimizer. Default True.

    Call `update()` once an epoch or so, at a learning rate that stays large. Source: Izmailov et al. (2018).
    """

    def __init__(self, params: Tree, flush_subnormals: bool = True) -> None:
        super().__init__(params, flush_subnormals)

    @property
    def _kernel(self) -> str:
        return "mean"

    def _coefficients(self) -> dict[str, float]:
        return {"gain": 1 / (self.count + 1)}

    def __repr__(self) -> str:
        return f"RunningMean: {len(self._plan.names)} tensors, {self.count} updates"


def averaged(opt: Optimizer) -> AbstractContextManager[None]:
    if opt.average is None:
        raise ValueError("no averages are kept: make the optimizer with average=, for example average=0.999")
    return Block(lambda: _averaged(opt))


@contextmanager
def _averaged(opt: Optimizer) -> Iterator[None]:
    displacement = _displaced(opt._plan)
    try:
        yield
    finally:
        displacement.end()


def _averages_of(plan: _core.Plan) -> list[Array]:
    return [a for a in plan.averages if a is not None]


def _displaced(plan: _core.Plan) -> Displacement:
    """The parameters of a plan with its averages in them, every optimizer and average of them held."""
    places = {_place(p) for p in plan.params}
    stepping = [other for other in list(STEPPED) if any(_place(p) in places for p in other.params)]
    displacement = Displacement(plan.params)
    displacement.begin(stepping, WHY)
    try:
        copy_all(_averages_of(plan), plan.params)
    except BaseException:
        displacement.end()
        raise
    return displacement


def _place(p: Array) -> int:
    place: int = p.__array_interface__["data"][0]
    return place
