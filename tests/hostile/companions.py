"""Runs of an optimizer with all that goes with one, for tests/saving/resume.py: in them is whatever can be saved."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import fastopt
from fastopt import schedules
from tests.cases import halving

Things = dict[str, Any]


class Run(NamedTuple):
    """`make(params, backend, resumed)` gives what goes on together by name, the optimizer as "opt"; `step` takes the
    k-th step with these gradients."""

    make: Callable[[Any, str, bool], Things]
    step: Callable[[Things, Any, int], Any]


def accumulating(params: Any, backend: str, resumed: bool) -> Things:
    return {"opt": fastopt.AdamW(params, lr=halving, clip_norm=0.5, average=0.9, backend=backend)}


def accumulate(things: Things, g: Any, k: int) -> None:
    """Every third completes a step: a run that is saved after four has one pending."""
    things["opt"].accumulate(g, weight=k + 1.0)
    if k % 3 == 2:
        things["opt"].step()


def averaging(params: Any, backend: str, resumed: bool) -> Things:
    return {
        "opt": fastopt.AdamW(params, lr=0.1, average=0.9, backend=backend),
        "ema": fastopt.EMA(params, halving),
        "mean": fastopt.RunningMean(params),
        "stopping": fastopt.EarlyStopping(2, restore_best=True, params=params),
    }


def average(things: Things, g: Any, k: int) -> None:
    things["opt"].step(g)
    things["ema"].update()
    things["mean"].update()
    with things["mean"].swapped(), np.errstate(all="ignore"):
        metric = float(sum(p.sum(dtype=np.float64) for p in things["opt"].groups[0]["params"].values()))
    things["stopping"].update(metric)


def losing(params: Any, backend: str, resumed: bool) -> Things:
    return {"opt": fastopt.PolyakSGD(params, eps=0.5, average=0.9, backend=backend)}


def accumulate_losses(things: Things, g: Any, k: int) -> None:
    things["opt"].accumulate(g, weight=k + 1.0, loss=3.0 / (1 + k))
    if k % 3 == 2:
        things["opt"].step()


def scaling(params: Any, backend: str, resumed: bool) -> Things:
    return {
        "opt": fastopt.NAdam(params, on_nonfinite="skip", backend=backend),
        "scaler": fastopt.LossScaler(2.0**10, growth_interval=2),
    }


def scaled(things: Things, g: Any, k: int) -> None:
    """Skips a step before it is saved, and one after."""
    scale = things["scaler"].scale
    g = {name: None if a is None else a * a.dtype.type(scale) for name, a in g.items()}
    if k in (2, 5):
        g["many"][7] = np.nan
    things["scaler"].update(things["opt"].step(g, grad_scale=scale))


def sharp(params: Any, backend: str, resumed: bool) -> Things:
    return {
        "opt": fastopt.SGD(params, lr=0.1, momentum=0.9, backend=backend),
        "rho": schedules.ReduceOnPlateau(0.5, patience=0),
    }


def sharpen(things: Things, g: Any, k: int) -> None:
    opt, rho = things["opt"], things["rho"]
    params = opt.groups[0]["params"]

    def closure() -> Any:
        return {name: None if a is None else a * params[name] for name, a in g.items()}

    if "sam" not in things:
        things["sam"] = fastopt.SAM(opt, rho=rho, adaptive=True)
    things["sam"].step(closure)
    rho.update(float(k))


def nesterov(params: Any, backend: str, resumed: bool) -> Things:
    return {"opt": fastopt.SGD(params, lr=halving, momentum=schedules.linear(0.5, 0.9, 7), backend=backend)}


def ahead(things: Things, g: Any, k: int) -> None:
    opt = things["opt"]
    with opt.nesterov_point():
        g = {
            name: None if a is None else a + p for (name, a), p in zip(g.items(), opt._engine.plan.params, strict=True)
        }
    opt.step(g)


def slowly(params: Any, backend: str, resumed: bool) -> Things:
    """A group is added along the way, and is there when the run is resumed."""
    groups = [{"params": {name: params[name]}} for name in ("W", "few", "many")]
    opt = fastopt.NAdam(groups if resumed else groups[:2], lr=halving, bounds=(-5, 5), backend=backend)
    fastopt.Lookahead(opt, k=3, alpha=0.4)
    return {"opt": opt, "later": groups[2:]}


def step_slowly(things: Things, g: Any, k: int) -> None:
    opt = things["opt"]
    if k == 2:
        opt.add_group(things["later"][0])
    opt.step([{name: g[name]} for name in ("W", "few", "many")][: len(opt.groups)])


def newton(params: Any, backend: str, resumed: bool) -> Things:
    return {"opt": fastopt.LBFGS(params, history=3, max_iterations=2, gtol=0.0, backend=backend), "params": params}


def descend(things: Things, g: Any, k: int) -> None:
    """Of a convex function that has no gradient for `few`."""
    params = things["params"]

    def closure() -> tuple[float, Any]:
        loss, grads = 0.0, {}
        for i, (name, p) in enumerate(params.items()):
            slope = p * (p * p + i)
            loss += float((0.25 * p**4 + 0.5 * i * p * p).sum(dtype=np.float64))
            grads[name] = slope.astype(p.dtype)
        return loss, grads

    things["opt"].step(closure)


ONE_CYCLE = schedules.one_cycle(0.1, 9)
SCHEDULES = [
    {"lr": schedules.constant(0.1)},
    {"lr": schedules.step_decay(0.1, 0.5, 2)},
    {"lr": schedules.exponential(0.1, rate=0.3)},
    {"lr": schedules.cosine(0.1, 6)},
    {"lr": schedules.cosine_restarts(0.1, 2, t_mult=2)},
    {"lr": ONE_CYCLE.lr, "momentum": ONE_CYCLE.momentum},
    {"lr": schedules.linear(0.1, 0.01, 6)},
    {"lr": schedules.inverse_sqrt(0.1, 2.0)},
    {"lr": schedules.polynomial(0.1, 0.01, 6, power=2)},
    {"lr": schedules.piecewise([2, 5], [0.1, 0.05, 0.02])},
    {"lr": halving},
]


def scheduled(params: Any, backend: str, resumed: bool) -> Things:
    """A group for every schedule. The last is added along the way, and is there when the run is resumed."""
    lr = schedules.ReduceOnPlateau(0.1, patience=0)
    cut = np.array_split(params["many"], len(SCHEDULES) + 1)
    every = [*SCHEDULES, {"lr": schedules.warmup(3, lr)}]
    groups = [{"params": {f"p{i}": p}, **own} for i, (p, own) in enumerate(zip(cut, every, strict=True))]
    opt = fastopt.SGD([*groups, {"params": params["W"]}][: 99 if resumed else -2], lr=lr, momentum=0.9, backend=backend)
    # Of the ReduceOnPlateau, only what the optimizer saves.
    return {"opt": opt, "plateau": [lr], "later": [groups[-1], {"params": params["W"]}]}


def follow(things: Things, g: Any, k: int) -> None:
    opt = things["opt"]
    if k == 2:
        for group in things["later"]:
            opt.add_group(group)
    cut = np.array_split(g["many"], len(SCHEDULES) + 1)
    grads = [{f"p{i}": a} for i, a in enumerate(cut)] + [g["W"]]
    opt.step(grads[: len(opt.groups)])
    things["plateau"][0].update(float(k))


def random(params: Any, backend: str, resumed: bool) -> Things:
    rng = np.random.default_rng(5)
    if not resumed:
        params["W"][...] = fastopt.init.he_normal(params["W"].shape, rng=rng, dtype=params["W"].dtype)
    return {"opt": fastopt.Adam(params, backend=backend), "rng": rng}


def draw(things: Things, g: Any, k: int) -> None:
    for i in fastopt.batches(g["many"].size, 1000, things["rng"]):
        g["many"][...] = np.take(g["many"], np.resize(i, g["many"].size))
        things["opt"].step(g)


def ruled(params: Any, backend: str, resumed: bool) -> Things:
    """Groups with rules of their own, and a frozen one. The last is added along the way."""
    cut = np.array_split(params["many"], 5)
    own: list[Any] = [{}, {"rule": "prodigy", "d0": 1e-3}, {"rule": "lion", "lr": halving}, {"rule": "adagrad"}]
    groups = [{"params": {f"p{i}": p}, **more} for i, (p, more) in enumerate(zip(cut, own, strict=False))]
    groups += [
        {"params": {"W": params["W"]}, "rule": "adafactor", "momentum": 0.5},
        {"params": {"few": params["few"]}, "frozen": True},
        {"params": {"late": cut[4]}, "rule": "lamb", "weight_decay": 0.1},
    ]
    opt = fastopt.AdamW(groups[: 99 if resumed else -1], average=0.9, clip_norm=1.0, backend=backend)
    return {"opt": opt, "later": [groups[-1]]}


def step_ruled(things: Things, g: Any, k: int) -> None:
    opt = things["opt"]
    if k == 2:
        opt.add_group(things["later"][0])
    cut = np.array_split(g["many"], 5)
    grads = [*({f"p{i}": a} for i, a in enumerate(cut[:4])), {"W": g["W"]}, {"few": g["few"]}, {"late": cut[4]}]
    opt.accumulate(grads[: len(opt.groups)])
    # The fourth step, after which a run is saved, leaves a micro-batch pending.
    if k != 3:
        opt.step()


RUNS = {
    "accumulation": Run(accumulating, accumulate),
    "loss": Run(losing, accumulate_losses),
    "averages": Run(averaging, average),
    "scaler": Run(scaling, scaled),
    "sam": Run(sharp, sharpen),
    "nesterov point": Run(nesterov, ahead),
    "lookahead": Run(slowly, step_slowly),
    "lbfgs": Run(newton, descend),
    "schedules": Run(scheduled, follow),
    "rng": Run(random, draw),
    "rules": Run(ruled, step_ruled),
}
