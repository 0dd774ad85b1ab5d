"""Early stopping: the end of training when a metric no longer improves, and the best parameters back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastopt.base.arguments import at_least_0, boolean, number, one_of, shown, whole, within
from fastopt.base.fitting import copies_fitting, is_count
from fastopt.base.memory import copies_of
from fastopt.base.tree import Array, Tree
from fastopt.core import _core
from fastopt.engine.passes import named


class EarlyStopping:
    """Says when a metric has not improved for some time.

    patience : stop at this many updates in a row without an improvement; a whole number, 1 or larger.
    min_delta : an improvement is better than the best by more than this; >= 0.
    mode : "min" for a loss, "max" for an accuracy.
    restore_best : when stopping, put the parameters back to what they were at the best update, bit for bit.
    params : for restore_best, the parameters, as an optimizer takes them; they are copied at every improvement.

    A NaN is no improvement, whatever came before.

        stopping = fastopt.EarlyStopping(patience=5, restore_best=True, params=params)
        for epoch in range(1000):
            train()
            if stopping.update(validation_loss()):
                break
    """

    def __init__(
        self,
        patience: int,
        min_delta: float = 0.0,
        mode: str = "min",
        restore_best: bool = False,
        params: Tree = None,
    ) -> None:
        self.patience = whole("patience", patience)
        self.min_delta = within("min_delta", min_delta, at_least_0)
        self.mode = one_of("mode", mode, ("min", "max"))
        self.restore_best = boolean("restore_best", restore_best)
        if self.restore_best != (params is not None):
            raise ValueError(
                "params without restore_best=True are not used: leave them out"
                if not self.restore_best
                else "restore_best=True needs the parameters: pass params="
            )
        self._names, self._params = named(params) if self.restore_best else ((), ())
        self._kept = copies_of(self._params)
        self.best: float | None = None
        """The best metric so far; None before there was a number."""
        self.best_step: int | None = None
        """At which update that was: 0 is the first."""
        self.steps = 0
        """How many updates there were."""
        self.waited = 0
        """How many of the last updates brought no improvement."""

    def update(self, metric: float) -> bool:
        """Takes the metric of the parameters as they are; returns whether to stop, with the best ones then restored."""
        x = number("metric", metric)
        if self._improves(x):
            self._become(list(zip(self._params, self._kept, strict=True)), x, self.steps, self.steps + 1, 0)
        else:
            self._become([], self.best, self.best_step, self.steps + 1, self.waited + 1)
        stop = self.waited >= self.patience
        if stop and self.restore_best:
            self.restore()
        return stop

    def restore(self) -> None:
        """Puts the best parameters back, for a loop that ended otherwise; without a best update they stay."""
        if not self.restore_best:
            raise RuntimeError("no parameters were kept: use restore_best=True and params=")
        if self.best is not None:
            _core.publish(list(zip(self._kept, self._params, strict=True)), [])

    def _become(
        self, copies: list[tuple[Array, Array]], best: float | None, best_step: int | None, steps: int, waited: int
    ) -> None:
        counts = {"best": best, "best_step": best_step, "steps": steps, "waited": waited}
        _core.publish(copies, [(self, name, x) for name, x in counts.items()])

    def _improves(self, x: float) -> bool:
        if self.best is None:
            return x == x
        return x < self.best - self.min_delta if self.mode == "min" else x > self.best + self.min_delta

    def state_dict(self) -> dict[str, Any]:
        """A copy of all that the next update depends on but the arguments of the constructor."""
        kept = {name: np.copy(a, order="K") for name, a in zip(self._names, self._kept, strict=True)}
        counts = {"best": self.best, "best_step": self.best_step, "steps": self.steps, "waited": self.waited}
        return {**counts, "parameters": kept}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Takes over what `state_dict` gave; raises ValueError for what does not fit, before anything is changed."""
        if not isinstance(saved, Mapping) or saved.keys() != self.state_dict().keys():
            raise ValueError(f"this is not the state of an EarlyStopping: expected {', '.join(self.state_dict())}")
        best, best_step, steps, waited = (saved[key] for key in ("best", "best_step", "steps", "waited"))
        counts = [steps, waited] if best is None else [steps, waited, best_step]
        fits = isinstance(best, float) if best is not None else best_step is None
        if not fits or not all(map(is_count, counts)):
            raise ValueError(
                f"this state has best={shown(best)}, best_step={shown(best_step)}, steps={shown(steps)} and "
                f"waited={shown(waited)}, which do not fit"
            )
        copies = copies_fitting("the best value", self._names, self._kept, saved["parameters"])
        self._become(copies, best, best_step, steps, waited)

    def __repr__(self) -> str:
        return f"EarlyStopping: best {self.best} at update {self.best_step}, {self.waited} of {self.patience} waited"
