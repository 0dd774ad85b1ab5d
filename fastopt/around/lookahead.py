"""Lookahead: after every k steps of an optimizer, parameters go back part of the way to where they were before them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from fastopt.around import accumulation
from fastopt.base import tree
from fastopt.base.arguments import above_0_to_1, shown, whole, within
from fastopt.base.tree import Tree
from fastopt.engine.engine import Engine

if TYPE_CHECKING:
    from fastopt.core import _core

BEGINNING = "Lookahead is being switched on: do this after it"


class Lookahead:
    """Lookahead (Zhang et al., 2019) around an optimizer: k steps forward, 1 step back.

    At every k-th step, after the rule:  slow += alpha (p - slow);  p = slow

    opt : any optimizer. From now on its own step does this too, in the same pass over memory; it is used directly for
        all else. An optimizer has at most one Lookahead, for as long as it lives.
    k : after how many steps, >= 1. Default 5.
    alpha : how much of the way is kept, in (0, 1]. Default 0.5.

    `slow` starts as a copy of the parameters as they are, and is a buffer of the state, `opt.state[name]["slow"]`:
    saved, copied and pickled with the optimizer, as k and alpha are. A parameter goes back when its own number of
    steps, `opt.state[name]["t"]`, is a multiple of k: those that were skipped, or had no gradient for it, do not count.
    What the rule keeps, as momentum, goes on. With `bounds` p is within them before it goes back, and after; `average`
    is of what is left.

        opt = fastopt.AdamW(params, lr=1e-3)
        lookahead = fastopt.Lookahead(opt, k=5, alpha=0.5)
        opt.step(grads)

    Raises TypeError or ValueError for what these cannot be, RuntimeError where the optimizer is inside a step, has
    other values in its parameters, or accumulated gradients.
    """

    def __init__(self, opt: Any, k: int = 5, alpha: float = 0.5) -> None:
        engine = getattr(opt, "_engine", None)
        if not isinstance(engine, Engine):
            raise TypeError(f"opt is {shown(opt)}: expected an optimizer, for example fastopt.SGD(params, lr=0.1)")
        k, alpha = whole("k", k), within("alpha", alpha, above_0_to_1)
        self.opt = opt
        engine.plan.during(BEGINNING, accumulation.held, engine, BEGINNING, _begin, engine, (k, alpha))

    @property
    def k(self) -> int:
        """After how many steps parameters go back."""
        k: int = self.opt._engine.lookahead[0]
        return k

    @property
    def alpha(self) -> float:
        """How much of the way is kept."""
        alpha: float = self.opt._engine.lookahead[1]
        return alpha

    @property
    def slow(self) -> Tree:
        """The slow points (live arrays), in the structure that gradients have; None for frozen parameters."""
        plan, state = self.opt._engine.plan, self.opt.state
        return tree.rebuild(plan.template, [state[name]["slow"] if name in state else None for name in plan.names])

    def __repr__(self) -> str:
        return f"Lookahead(k={self.k}, alpha={self.alpha:g}) around {self.opt!r}"


def _begin(engine: Engine, how: tuple[int, float]) -> None:
    if engine.lookahead is not None:
        k, alpha = engine.lookahead
        raise ValueError(f"opt has a Lookahead already (k={k}, alpha={alpha:g}): an optimizer takes one")
    accumulation.refuse_pending(engine)
    engine.begin_lookahead(how)


# The part of a checkpoint: slow itself is in the state of each parameter.


def held(engine: Engine, why: str, function: Callable[..., None], *args: Any) -> None:
    function(*args)


def save(engine: Engine) -> dict[str, Any]:
    return {} if engine.lookahead is None else dict(zip(("k", "alpha"), engine.lookahead, strict=True))


def check(engine: Engine, saved: Mapping[str, Any]) -> list[str]:
    """What is wrong with a saved Lookahead."""
    if not saved and engine.lookahead is None:
        return []
    if not saved:
        return ["it is of an optimizer without Lookahead, and this one has one: load into an optimizer without"]
    try:
        if saved.keys() != {"k", "alpha"}:
            raise ValueError(f"lookahead is {shown(saved)}: expected a dict with k and alpha")
        whole("k of lookahead", saved["k"])
        within("alpha of lookahead", saved["alpha"], above_0_to_1)
    except (TypeError, ValueError) as error:
        return [str(error)]
    if engine.lookahead is None:
        how = f"k={saved['k']}, alpha={saved['alpha']:g}"
        return [f"it is of an optimizer with Lookahead: call fastopt.Lookahead(opt, {how}) before it is loaded"]
    return []


def loaded(engine: Engine, saved: Mapping[str, Any]) -> _core.Values:
    """What `save` gave as attributes of the optimizer."""
    return [(engine, "lookahead", (saved["k"], float(saved["alpha"])))] if saved else []
