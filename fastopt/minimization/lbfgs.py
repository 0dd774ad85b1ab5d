"""L-BFGS on parameters in place, with a closure for the loss and its gradients."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from weakref import WeakMethod

import numpy as np

from fastopt.base import tree
from fastopt.base.arguments import at_least_0, function, one_of, shown, whole, within
from fastopt.base.fitting import is_count
from fastopt.base.nonfinite import NonFiniteError
from fastopt.base.tree import Array, Tree
from fastopt.core import _core
from fastopt.engine.passes import STEPPED, named
from fastopt.minimization.descent import Descent, search_options
from fastopt.minimization.line_search import pair
from fastopt.minimization.progress import Progress
from fastopt.saving import file as checkpoint
from fastopt.saving import pickling as copying
from fastopt.saving.persistent import LOADING

INSIDE = "this optimizer is inside a step already: take one step at a time"
OWN = ("history", "line_search", "max_iterations", "max_evaluations", "gtol", "ftol", "backend")


class LBFGSReport(NamedTuple):
    """What a step did: the loss and max|gradient| where the parameters now are, whether a tolerance was met there,
    the iterations and evaluations of this step, why it ended, and whether it was the last: `done` where it converged or
    where another step with the same closure would come no further."""

    loss: float
    max_grad: float
    converged: bool
    iterations: int
    evaluations: int
    message: str
    done: bool


class LBFGS:
    """Limited-memory BFGS (Liu & Nocedal, 1989; two-loop recursion of Nocedal & Wright, 2006, algorithm 7.4).

        opt = fastopt.LBFGS(params)
        while not opt.step(closure).done: ...

    params : an array, a list, a dict of name -> array, or nests of these; float32 or float64, contiguous, writable;
        updated in place. No groups.
    history : pairs of steps and gradient changes remembered, each of the size of the parameters twice. Default 10.
    line_search : "strong_wolfe" (options c1=1e-4, c2=0.9), "backtracking" (c1=1e-4, shrink=0.5) or "bracketing"
        (tolerance=0.1); see fastopt.line_search.
    max_iterations : iterations of one `step`, each a direction and a line search. Default 20.
    max_evaluations : calls of the closure in one `step`, at most; None: no limit.
    gtol : a step ends, converged, where max|gradient| <= gtol. Default 1e-6.
    ftol : ... or where an iteration lowers the loss by no more than ftol * max(|before|, |after|, 1); 0: never.
        Default 0.
    backend : "c", or "numpy" for the reference through the same class.

    The loss must be the same function at every call within a step: all data, or one batch. A pair is remembered only
    where s.y is safely positive, so that directions lead downhill. Vectors are in the parameters' common dtype, the
    dot products of them in double. Raises TypeError or ValueError, naming the parameter or the option.
    """

    def __init__(
        self,
        params: Tree,
        history: int = 10,
        line_search: str = "strong_wolfe",
        *,
        max_iterations: int = 20,
        max_evaluations: int | None = None,
        gtol: float = 1e-6,
        ftol: float = 0.0,
        backend: str = "c",
        **options: Any,
    ) -> None:
        self._options = options
        options = search_options("LBFGS", OWN, line_search, options)
        self.history = whole("history", history)
        self.line_search = line_search
        self.max_iterations = whole("max_iterations", max_iterations)
        self.max_evaluations = None if max_evaluations is None else whole("max_evaluations", max_evaluations)
        self.gtol, self.ftol = within("gtol", gtol, at_least_0), within("ftol", ftol, at_least_0)
        self.t = 0
        if tree.is_groups(params):
            raise TypeError("LBFGS takes no groups, as there is one step for all: pass the arrays without 'params'")
        self._template = tree.owned(params)
        self.names, self._params = named(self._template)
        dtype = np.result_type(*self._params)
        self._rounds = [p for p in self._params if p.dtype != dtype] != []
        size = sum(p.size for p in self._params)
        self.backend = one_of("backend", backend, ("c", "numpy"))
        # Weak: a dropped optimizer is gone at once, with its memory.
        evaluate = WeakMethod(self._evaluate)
        self._descent = Descent(
            size,
            dtype,
            lambda x, g: evaluate()(x, g),  # type: ignore[misc]
            line_search,
            options,
            history=self.history,
            backend=backend,
        )
        v = self._descent.vectors
        self._cuts = {id(a): self._cut(a) for a in (v.x, v.g, v.trial_x, v.trial_g)}
        self._displacement = _core.Displacement(self._params, lasting=True)
        self._closure: Callable[[], Any] | None = None
        # It never runs: who puts other values into the parameters for a while holds it.
        none = (None,) * len(self.names)
        self._plan = _core.Plan(self._template, self.names, self._params, ((),) * len(none), none, True)
        STEPPED.add(self._plan)

    def step(self, closure: Callable[[], tuple[float, Tree]]) -> LBFGSReport:
        """Lowers the loss by up to `max_iterations` iterations.

        closure : returns (loss, gradients) at the present parameters, the gradients in the structure of params; None
            stands for zeros. They are copied, so the same arrays may be filled every time.

        Raises TypeError or ValueError for a closure that returns something else, NonFiniteError where loss or gradient
        is not finite at the start or at every step tried; these, and whatever the closure raises, leave the parameters
        as they were before the step. Pairs found in it are kept.
        """
        function("closure", closure, "a function that returns (loss, gradients)")
        try:
            begin = (lambda: [self._plan], INSIDE, setattr, self, "_closure", closure)
            return self._displacement.attempt(self._run, *begin)
        finally:
            self._closure = None

    def _run(self) -> tuple[LBFGSReport, _core.Values]:
        """The report of a step, and what it counts."""
        descent = self._descent
        for view, p in zip(self._cuts[id(descent.vectors.x)], self._params, strict=True):
            view[...] = p
        descent.evaluations = iterations = 0
        if not descent.start():
            raise NonFiniteError(self._nonfinite())
        before, pairs = math.inf, descent.vectors.count
        most = math.inf if self.max_evaluations is None else self.max_evaluations
        while True:
            message = self._end(before, iterations)
            if message is None:
                before = descent.value
                if descent.iterate(most - descent.evaluations):
                    iterations += 1
                    continue
                if descent.cut:
                    message = f"no lower loss was found in {descent.evaluations} evaluations, max_evaluations"
                elif descent.all_nonfinite:
                    raise NonFiniteError(
                        "loss or gradient is NaN or infinite at every step tried along the direction, however short: "
                        "the parameters are as they were before the step"
                    )
                else:
                    message = descent.why_not_lower()
            converged = message.startswith("converged")
            # A step that neither moved nor dropped pairs would be the same again.
            same = not iterations and descent.vectors.count == pairs
            done = converged or descent.over or same
            self._place(descent.vectors.x)
            report = LBFGSReport(
                descent.value, descent.steepest, converged, iterations, descent.evaluations, message, done
            )
            return report, [(self, "t", self.t + iterations)]

    def _end(self, before: float, iterations: int) -> str | None:
        value, steepest = self._descent.value, self._descent.steepest
        if steepest <= self.gtol:
            return f"converged: max|gradient| is {steepest:.3g}, gtol {self.gtol:g}"
        change = abs(before - value)
        if iterations and self.ftol > 0 and change <= self.ftol * max(abs(before), abs(value), 1.0):
            return f"converged: the loss changed by {change:.3g}, ftol is {self.ftol:g}"
        if iterations == self.max_iterations:
            return f"after {iterations} iterations, max_iterations"
        if self.max_evaluations is not None and self._descent.evaluations >= self.max_evaluations:
            return f"after {self._descent.evaluations} evaluations, max_evaluations"
        return None

    def _evaluate(self, x: Array, g: Array) -> float:
        self._place(x)
        assert self._closure is not None
        loss, grads = pair("the closure", self._closure())
        found = tree.match(self._template, grads)
        present = [(name, a) for name, a in zip(self.names, found, strict=True) if a is not None]
        _core.check_gradients([name for name, _ in present], [a for _, a in present], False)
        for name, p, a, view in zip(self.names, self._params, found, self._cuts[id(g)], strict=True):
            if a is None:
                view[...] = 0
                continue
            if a.dtype != p.dtype or a.shape != p.shape:
                raise (TypeError if a.dtype != p.dtype else ValueError)(
                    f"gradient of {name!r} is {a.dtype} of shape {a.shape} and its parameter {p.dtype} of shape "
                    f"{p.shape}: they must be equal"
                )
            view[...] = a
        return loss

    def _place(self, x: Array) -> None:
        """Puts x into the parameters, and back into x what their types make of it."""
        for view, p in zip(self._cuts[id(x)], self._params, strict=True):
            p[...] = view
            if self._rounds:
                view[...] = p

    def _cut(self, flat: Array) -> list[Array]:
        """Views of a flat vector in the shapes and memory orders of the parameters."""
        views, start = [], 0
        for p in self._params:
            order: Any = "C" if p.flags.c_contiguous else "F"
            views.append(flat[start : start + p.size].reshape(p.shape, order=order))
            start += p.size
        return views

    def _nonfinite(self) -> str:
        descent = self._descent
        if not math.isfinite(descent.value):
            return f"the loss is {descent.value}: the step was not taken, nothing has changed"
        grads = zip(self.names, self._cuts[id(descent.vectors.g)], strict=True)
        name, g = next((name, g) for name, g in grads if not np.isfinite(g).all())
        index = tuple(int(i) for i in np.argwhere(~np.isfinite(g))[0])
        where = f" at index {index}" if index else ""
        return f"the gradient of {name!r} is {g[index]}{where}: the step was not taken, nothing has changed"

    def __repr__(self) -> str:
        elements = sum(p.size for p in self._params)
        return (
            f"LBFGS: {len(self.names)} tensors, {elements:,} elements, {self.t} iterations, "
            f"{self._descent.vectors.count} of {self.history} pairs remembered, line_search={self.line_search!r}"
        )

    def state_dict(self) -> dict[str, Any]:
        """A copy of what the next step depends on but the parameters and the options: the iterations so far, and of
        every parameter the pairs, oldest first, as "s" and "y" of shape (pairs, *shape); and eight numbers, "progress",
        that say when a descent is `done`."""
        return self._plan.read(self._state_dict)

    def _state_dict(self) -> dict[str, Any]:
        if self._displacement.begun:
            raise RuntimeError(INSIDE)
        pairs = [(self._cut(s), self._cut(y)) for s, y in self._descent.vectors.pairs()]
        state = {}
        for i, (name, p) in enumerate(zip(self.names, self._params, strict=True)):
            s, y = np.empty((2, len(pairs), *p.shape), self._descent.vectors.x.dtype)
            for k, (steps, changes) in enumerate(pairs):
                s[k], y[k] = steps[i], changes[i]
            state[name] = {"s": s, "y": y}
        return {"optimizer": "LBFGS", "t": self.t, "progress": self._descent.progress.numbers, "state": state}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Takes over what `state_dict` gave, matched by name; of more pairs than `history`, the newest.

        Raises ValueError for a state that does not fit, before anything is changed.
        """
        count = self._refuse(saved)
        v = self._descent.vectors
        pairs = [(np.empty_like(v.x), np.empty_like(v.x)) for _ in range(count)]
        for k, flats in enumerate(pairs):
            for flat, key in zip(flats, ("s", "y"), strict=True):
                for name, view in zip(self.names, self._cut(flat), strict=True):
                    view[...] = saved["state"][name][key][k]
        progress = Progress()
        if "progress" in saved:
            progress.numbers = saved["progress"]
        self._plan.during(LOADING, v.replace, pairs, [(self, "t", saved["t"]), (self._descent, "progress", progress)])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes `state_dict()` to one file in the safetensors format, as other optimizers do."""
        checkpoint.save(path, self.state_dict(), self.names)

    def load(self, path: str | os.PathLike[str]) -> None:
        """Takes over what `save` wrote. Raises ValueError for a file that is damaged, newer or does not fit, before
        anything is changed."""
        checkpoint.load(path, self.names, self._refuse, self.load_state_dict)

    def __reduce_ex__(self, protocol: Any) -> Any:
        own = {name: getattr(self, name) for name in OWN}
        state = _core.undisturbed([self._plan], self._state_dict)
        unchanged = copying.Unchanged(self._plan)
        return copying.blank, (type(self),), (self._template, own, self._options, state, unchanged)

    def __setstate__(self, saved: tuple[Tree, dict[str, Any], dict[str, Any], dict[str, Any], Any]) -> None:
        params, own, options, state, unchanged = saved
        LBFGS.__init__(self, params, **own, **options)
        self.load_state_dict(state)
        copying.check(unchanged)

    def _refuse(self, saved: Any) -> int:
        """Raises for a state that does not fit; returns how many pairs it has."""
        if not isinstance(saved, Mapping) or saved.keys() - {"progress"} != {"optimizer", "t", "state"}:
            raise ValueError(
                "this is no state dict of LBFGS: expected a dict with the keys optimizer, t, progress, state"
            )
        kind = saved["optimizer"]
        if not isinstance(kind, str) or kind != "LBFGS":
            raise ValueError(
                f"this is the state of {kind if isinstance(kind, str) else shown(kind)}, and this optimizer is LBFGS"
            )
        if not is_count(saved["t"]):
            raise ValueError(f"t is {shown(saved['t'])}: expected a count of iterations")
        # 0.1.0 saved none.
        progress = saved.get("progress", self._descent.progress.numbers)
        if not isinstance(progress, np.ndarray) or (progress.dtype, progress.shape) != (np.float64, (8,)):
            raise ValueError(f"progress is {shown(progress)}: expected an array of 8 numbers in float64")
        found = list(saved["state"]) if isinstance(saved["state"], Mapping) else saved["state"]
        named = isinstance(found, list) and all(isinstance(name, str) for name in found)
        if not named or set(found) != set(self.names):
            raise ValueError(f"the state is of {shown(found)}, and the parameters are {list(self.names)}")
        counts, dtype = set(), self._descent.vectors.x.dtype
        for name, p in zip(self.names, self._params, strict=True):
            for key in ("s", "y"):
                entry = saved["state"][name]
                a = entry.get(key) if isinstance(entry, Mapping) else None
                if not isinstance(a, np.ndarray) or a.dtype != dtype or a.shape[1:] != p.shape or not a.ndim:
                    what = f"{a.dtype} {a.shape}" if isinstance(a, np.ndarray) else shown(a)
                    raise ValueError(f"{key!r} of {name!r} is {what}: expected {dtype} of shape (pairs, *{p.shape})")
                counts.add(a.shape[0])
        if len(counts) != 1:
            raise ValueError(f"the parameters have different numbers of pairs: {sorted(counts)}")
        return int(counts.pop())
