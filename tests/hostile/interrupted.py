"""What Ctrl-C may fall into, for test_interrupts.py: each act with what it acts on, made anew every time."""

from __future__ import annotations

import copy
import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import fastopt
from fastopt.base.tree import Array
from fastopt.core import _core
from fastopt.schedules import ReduceOnPlateau
from tests.cases import halving
from tests.lockstep import plain

G = {"a": np.full(5, 0.5), "b": np.full((2, 3), -0.25)}
BAD = {**G, "b": np.full((2, 3), np.nan)}


def params() -> dict[str, Array]:
    return {"a": np.ones(5), "b": np.full((2, 3), 2.0)}


class World:
    """Parameters, an optimizer, and one other thing that goes with them."""

    def __init__(self, opt: Any = None, also: Any = None) -> None:
        self.params = opt.groups[0]["params"] if isinstance(opt, fastopt.Optimizer) else params()
        self.opt, self.also = opt, also

    def look(self) -> str:
        """Every byte of everything, as text."""
        things = [thing for thing in (self.opt, self.also) if hasattr(thing, "state_dict")]
        shown = [repr(thing) for thing in things if isinstance(thing, fastopt.Optimizer)]
        return plain([self.params, [thing.state_dict() for thing in things], shown, _core.control_word()])


class Act(NamedTuple):
    make: Callable[[], World]
    act: Callable[[World], Any]
    go_on: Callable[[World], Any] = lambda world: world.opt.step(G)
    otherwise: Callable[[World], Any] = lambda world: None
    """What else may come of it, as a second half that is given up."""
    look: Callable[[World], str] = World.look


def sgd(**more: Any) -> World:
    world = World(fastopt.SGD(params(), lr=halving, momentum=0.9, average=0.5, **more))
    world.opt.step(G)
    return world


def adamw() -> World:
    """With something of all that a state holds."""
    lr = ReduceOnPlateau(0.25, patience=0)
    world = World(fastopt.AdamW(params(), lr=lr, average=0.5, clip_norm=1.0), lr)
    world.opt.step(G)
    world.opt.step({**G, "b": None})
    world.opt.accumulate({**G, "a": None})
    return world


def ruled() -> World:
    """Groups whose rules keep numbers of all their tensors, and vectors of rows and columns; one more micro-batch."""
    own = params()
    groups = [
        {"params": {"a": own["a"]}, "rule": "prodigy", "d0": 0.1},
        {"params": {"b": own["b"]}, "rule": "adafactor", "momentum": 0.5},
        {"params": {"c": np.ones(3)}, "rule": "lamb"},
        {"params": {"still": np.ones(2)}, "frozen": True},
    ]
    world = World(fastopt.Lion(groups, average=0.5))
    world.params = [group["params"] for group in world.opt.groups]
    world.opt.step(RULED_G)
    world.opt.step([None, *RULED_G[1:]])
    world.opt.accumulate(RULED_G)
    return world


RULED_G = [{"a": G["a"]}, {"b": G["b"]}, {"c": np.full(3, 2.0)}, None]


def then_step_ruled(world: World) -> None:
    world.opt.accumulate(RULED_G)
    world.opt.step()


def another_state_of_rules() -> dict[str, Any]:
    world = ruled()
    for _ in range(3):
        then_step_ruled(world)
    return world.opt.state_dict()


RULED = another_state_of_rules()


def ruled_and_applied() -> World:
    world = ruled()
    world.opt.step()
    return world


def slowly(steps: int = 3, **how: Any) -> World:
    """Before the end of a cycle of Lookahead."""
    world = sgd(bounds=(-9, 9))
    fastopt.Lookahead(world.opt, **{"k": 2, "alpha": 0.5, **how})
    for _ in range(steps - 1):
        world.opt.step(G)
    return world


SLOW = slowly(6, k=3, alpha=0.25).opt.state_dict()


def other_state() -> dict[str, Any]:
    world = adamw()
    world.opt.accumulate(G)
    world.opt.step()
    world.opt.clip_norm, world.opt.maximize = 2.0, True
    world.also.update(1.0)
    world.also.update(2.0)
    world.opt.accumulate(G, weight=3.0)
    return world.opt.state_dict()


STATE = other_state()


def then_step(world: World) -> None:
    world.opt.accumulate(G)
    world.opt.step()


@functools.cache
def saved() -> tuple[Path, Any]:
    """A file with that state, and what deletes it at the end."""
    folder = tempfile.TemporaryDirectory()
    path = Path(folder.name) / "state.safetensors"
    opt = adamw().opt
    opt.load_state_dict(STATE)
    opt.save(path)
    return path, folder


def with_average(kind: str, updates: int) -> Callable[[], World]:
    def make() -> World:
        world = sgd()
        world.also = fastopt.EMA(world.params, 0.5) if kind == "EMA" else fastopt.RunningMean(world.params)
        world.opt.step(G)
        for _ in range(updates):
            world.also.update()
            world.opt.step(G)
        return world

    return make


AVERAGED = with_average("EMA", 1)().also.state_dict()


G32 = {name: g.astype(np.float32) for name, g in G.items()}


def in_float64() -> World:
    """Float32 parameters, whose averages are computed from copies."""
    world = World(fastopt.SGD({name: p.astype(np.float32) for name, p in params().items()}, lr=0.1))
    world.also = fastopt.EMA(world.params, 0.5, warmup=True, dtype="float64")
    for _ in range(2):
        world.also.update()
        world.opt.step(G32)
    return world


def then_average_in_float64(world: World) -> None:
    world.opt.step(G32)
    world.also.update()


def then_average(world: World) -> None:
    if world.also._displacement.begun:
        world.also.swap()
    world.opt.step(G)
    world.also.update()


def swapped_in() -> World:
    world = with_average("EMA", 2)()
    world.also.swap()
    return world


def inside(block: Callable[[World], Any]) -> Callable[[World], None]:
    def act(world: World) -> None:
        with block(world):
            pass

    return act


def with_sam(first: bool = False) -> Callable[[], World]:
    def make() -> World:
        world = sgd()
        world.also = fastopt.SAM(world.opt, adaptive=True)
        world.also.step(lambda: G)
        if first:
            world.also.first_step(G)
        return world

    return make


def then_restored(world: World) -> None:
    world.also.restore()
    world.opt.step(G)


def scaled() -> World:
    world = World(fastopt.SGD(params(), lr=0.1, on_nonfinite="skip"), fastopt.LossScaler(growth_interval=2))
    world.also.update(world.opt.step(G))
    return world


def update(applied: bool) -> Callable[[World], None]:
    report = fastopt.SGD(params(), lr=0.1, on_nonfinite="skip").step(G if applied else BAD)
    return lambda world: world.also.update(report)


def plateau() -> World:
    world = World(None, ReduceOnPlateau(0.1, patience=0, cooldown=1))
    world.also.update(1.0)
    return world


def stopping(*metrics: float) -> Callable[[], World]:
    def make() -> World:
        world = World()
        world.also = fastopt.EarlyStopping(2, restore_best=True, params=world.params)
        for metric in metrics:
            world.also.update(metric)
            world.params["a"] += metric
            world.params["b"] -= metric
        return world

    return make


def lbfgs() -> World:
    world = World()
    world.opt = fastopt.LBFGS(world.params, max_iterations=2, gtol=0.0)
    world.opt.step(lambda: valley(world.params))
    return world


def valley(p: dict[str, Array]) -> tuple[float, dict[str, Array]]:
    a, b = p["a"], p["b"]
    return float((a * a).sum() + 2 * (b * b).sum() + a[0] * b[0, 0]), {
        "a": 2 * a + b[0, 0] * np.eye(5)[0],
        "b": 4 * b + a[0] * np.eye(2, 3)[:1] * np.array([[1.0], [0.0]]),
    }


def pairs() -> dict[str, Any]:
    world = lbfgs()
    world.opt.step(lambda: valley(world.params))
    return world.opt.state_dict()


PAIRS = pairs()

ACTS = {
    "load_state_dict": Act(adamw, lambda world: world.opt.load_state_dict(STATE), then_step),
    "load": Act(adamw, lambda world: world.opt.load(saved()[0]), then_step),
    "add_group": Act(
        sgd,
        lambda world: world.opt.add_group({"params": {"late": np.ones(2)}, "lr": 0.5}),
        lambda world: world.opt.step([G, {"late": np.ones(2)}] if len(world.opt.groups) > 1 else G),
    ),
    "add_group, of another rule": Act(
        sgd,
        lambda world: world.opt.add_group({"params": {"late": np.full((2, 3), 0.5)}, "rule": "adafactor"}),
        lambda world: world.opt.step([G, {"late": np.ones((2, 3))}] if len(world.opt.groups) > 1 else G),
    ),
    "add_group, frozen": Act(
        sgd,
        lambda world: world.opt.add_group({"params": {"late": np.ones(2)}, "frozen": True}),
        lambda world: world.opt.step([G, None] if len(world.opt.groups) > 1 else G),
    ),
    "load_state_dict, of rules": Act(ruled, lambda world: world.opt.load_state_dict(RULED), then_step_ruled),
    "step with what was accumulated, by rules": Act(ruled, lambda world: world.opt.step(), then_step_ruled),
    "accumulate, first": Act(sgd, lambda world: world.opt.accumulate({**G, "a": None}), then_step),
    "accumulate, second": Act(adamw, lambda world: world.opt.accumulate({**G, "b": None}, weight=2.0), then_step),
    "step with what was accumulated": Act(adamw, lambda world: world.opt.step(), then_step),
    "discard_accumulated": Act(adamw, lambda world: world.opt.discard_accumulated(), then_step),
    "EMA.update, first": Act(with_average("EMA", 0), lambda world: world.also.update(), then_average),
    "EMA.update": Act(with_average("EMA", 2), lambda world: world.also.update(), then_average),
    "EMA.update, in float64": Act(in_float64, lambda world: world.also.update(), then_average_in_float64),
    "RunningMean.update": Act(with_average("RunningMean", 2), lambda world: world.also.update(), then_average),
    "EMA.load_state_dict": Act(
        with_average("EMA", 3), lambda world: world.also.load_state_dict(AVERAGED), then_average
    ),
    "EMA.swap, in": Act(with_average("EMA", 2), lambda world: world.also.swap(), then_average),
    "EMA.swap, out": Act(swapped_in, lambda world: world.also.swap(), then_average),
    "EMA.swapped": Act(with_average("EMA", 2), inside(lambda world: world.also.swapped()), then_average),
    "averaged": Act(sgd, inside(lambda world: world.opt.averaged())),
    "nesterov_point": Act(sgd, inside(lambda world: world.opt.nesterov_point())),
    "Lookahead": Act(sgd, lambda world: fastopt.Lookahead(world.opt, k=2)),
    "Lookahead, of rules": Act(ruled_and_applied, lambda world: fastopt.Lookahead(world.opt, k=2), then_step_ruled),
    "step, back": Act(slowly, lambda world: world.opt.step(G)),
    "load_state_dict, of Lookahead": Act(slowly, lambda world: world.opt.load_state_dict(SLOW)),
    "add_group, with Lookahead": Act(
        slowly,
        lambda world: world.opt.add_group({"params": {"late": np.ones(2)}, "lr": 0.5}),
        lambda world: world.opt.step([G, {"late": np.ones(2)}] if len(world.opt.groups) > 1 else G),
    ),
    "SAM.step": Act(with_sam(), lambda world: world.also.step(lambda: G)),
    "SAM.first_step": Act(with_sam(), lambda world: world.also.first_step(G), then_restored),
    "SAM.second_step": Act(
        with_sam(first=True), lambda world: world.also.second_step(G), then_restored, lambda world: world.also.restore()
    ),
    "SAM.restore": Act(with_sam(first=True), lambda world: world.also.restore(), then_restored),
    "LossScaler.update, applied": Act(scaled, update(True), update(False)),
    "LossScaler.update, skipped": Act(scaled, update(False), update(True)),
    "LossScaler.load_state_dict": Act(
        scaled,
        lambda world: world.also.load_state_dict({**fastopt.LossScaler(2.0, 4.0, 0.25, 9).state_dict(), "applied": 5}),
        update(True),
    ),
    "ReduceOnPlateau.update": Act(plateau, lambda world: world.also.update(2.0), lambda world: world.also.update(3.0)),
    "EarlyStopping.update, better": Act(
        stopping(2.0), lambda world: world.also.update(1.0), lambda world: world.also.update(3.0)
    ),
    "EarlyStopping.load_state_dict": Act(
        stopping(2.0),
        lambda world: world.also.load_state_dict(stopping(3.0, 1.0)().also.state_dict()),
        lambda world: world.also.restore(),
    ),
    "LBFGS.step": Act(
        lbfgs,
        lambda world: world.opt.step(lambda: valley(world.params)),
        lambda world: None,
        look=lambda world: plain([world.params, world.opt.t]),
    ),
    "LBFGS.load_state_dict": Act(
        lbfgs,
        lambda world: world.opt.load_state_dict(copy.copy(PAIRS)),
        lambda world: world.opt.step(lambda: valley(world.params)),
    ),
}
