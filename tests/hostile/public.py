"""Everything public that takes arguments, with some that it takes; and what of it no user calls."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from operator import attrgetter
from types import ModuleType
from typing import Any

import numpy as np

import fastopt
from fastopt import schedules
from fastopt.training import scaling_laws as scaling
from tests.lockstep import loss_of

CLASSES = [getattr(fastopt, name) for name in fastopt.optimizers.__all__]


def ones() -> Any:
    return [np.ones(3)]


def square(x: Any) -> Any:
    with np.errstate(all="ignore"):
        return float(np.sum(x * x)), 2 * x


def parabola(alpha: float) -> tuple[float, float]:
    return (alpha - 1) * (alpha - 1), 2 * (alpha - 1)


def axes() -> Any:
    from matplotlib.figure import Figure

    return Figure().add_subplot()


def stepped(cls: Any = fastopt.NAdam) -> Any:
    """An optimizer with state, averages and an accumulated gradient."""
    opt = cls({"a": np.ones(3), "b": np.ones(2)}, lr=0.1, average=0.5, on_nonfinite="raise")
    opt.step({"a": np.ones(3), "b": np.ones(2)})
    return opt


def losing() -> Any:
    """An optimizer that takes the loss beside gradients."""
    opt = fastopt.PolyakSGD({"a": np.ones(3), "b": np.ones(2)}, lr=0.1)
    opt.accumulate({"a": np.ones(3), "b": None}, loss=0.5)
    opt.step()
    return opt


def gathered() -> Any:
    opt = stepped()
    opt.accumulate({"a": np.ones(3), "b": None})
    return opt


def lbfgs() -> Any:
    opt = fastopt.LBFGS(ones(), max_iterations=2)
    opt.step(lambda: (1.0, ones()))
    return opt


def perturbed() -> Any:
    """Between its two steps, at a point that a restored one is at, too."""
    sam = fastopt.SAM(fastopt.SGD(ones(), lr=0.1), rho=0)
    sam.first_step(ones())
    return sam


def updated(average: Any) -> Any:
    average.update()
    return average


def early() -> Any:
    stopping = fastopt.EarlyStopping(2, restore_best=True, params=ones())
    stopping.update(1.0)
    return stopping


SIZES = np.array([1e3, 2e3, 4e3, 8e3, 16e3, 32e3])
LOSSES = 1.0 + 50 * SIZES**-0.5
LOGITS, CLASSES_OF_ROWS, ROWS = np.eye(2), np.array([0, 1]), np.full((2, 2), 0.5)
COMMON = {"weight": None, "reduction": "mean", "out": None}

FUNCTIONS: dict[str, Callable[[], dict[str, Any]]] = {
    "EMA": lambda: {"params": ones(), "decay": 0.9},
    "EMA (debias)": lambda: {"params": ones(), "decay": 0.9, "debias": True, "dtype": "float64"},
    "EarlyStopping": lambda: {"patience": 2, "restore_best": True, "params": ones()},
    "LBFGS": lambda: {"params": ones(), "c1": 1e-4, "c2": 0.9},
    "LBFGS (backtracking)": lambda: {"params": ones(), "line_search": "backtracking", "shrink": 0.5},
    "LBFGS (bracketing)": lambda: {"params": ones(), "line_search": "bracketing", "tolerance": 0.1},
    "Lookahead": lambda: {"opt": fastopt.SGD(np.ones(3), lr=0.1), "k": 2, "alpha": 0.5},
    "LossScaler": lambda: {"max_skips": 2},
    "RunningMean": lambda: {"params": ones()},
    "SAM": lambda: {"opt": fastopt.SGD(np.ones(3), lr=0.1)},
    "arena": lambda: {"arrays": ones()},
    "batches": lambda: {"n": 10, "size": 3, "rng": 0},
    "clip_grad_adaptive_": lambda: {"grads": ones(), "params": ones()},
    "clip_grad_norm_": lambda: {"grads": ones(), "max_norm": 1.0},
    "clip_grad_value_": lambda: {"grads": ones(), "clip_value": 0.5},
    "global_norm": lambda: {"grads": ones()},
    "gradcheck": lambda: {"f": lambda x: 0.0, "grad": lambda x: x, "x": [np.zeros(3), np.zeros(())]},
    "info": dict,
    "init.he_normal": lambda: {"shape": (2, 3), "rng": 0},
    "init.he_uniform": lambda: {"shape": (2, 3), "rng": 0},
    "init.xavier_normal": lambda: {"shape": (2, 3), "rng": 0},
    "init.xavier_uniform": lambda: {"shape": (2, 3), "rng": 0},
    "line_search.along": lambda: {"fun_and_grad": square, "x": np.ones(2), "d": -np.ones(2)},
    "line_search.backtracking": lambda: {"phi": lambda alpha: parabola(alpha)[0], "slope": -2.0},
    "line_search.bracketing": lambda: {"phi": lambda alpha: parabola(alpha)[0]},
    "line_search.strong_wolfe": lambda: {"phi": parabola},
    "losses.binary_cross_entropy": lambda: {"probabilities": np.full(3, 0.5), "target": np.zeros(3)},
    "losses.binary_cross_entropy_with_logits": lambda: {"logits": np.ones(2), "target": np.zeros(2)},
    "losses.cross_entropy": lambda: {"logits": LOGITS.copy(), "probabilities": ROWS.copy()},
    "losses.dice": lambda: {"probabilities": ROWS.copy(), "mask": np.eye(2)},
    "losses.focal": lambda: {"logits": LOGITS.copy(), "classes": CLASSES_OF_ROWS.copy()},
    "losses.focal (binary)": lambda: {"logits": np.ones(2), "classes": np.array([0, 1])},
    "losses.gaussian_nll": lambda: {"mean": np.ones(2), "target": np.zeros(2), "var": np.ones(2)},
    "losses.generalized_dice": lambda: {"probabilities": ROWS.copy(), "mask": np.eye(2)},
    "losses.huber": lambda: {"prediction": np.ones(3), "target": np.zeros(3)},
    "losses.iou": lambda: {"probabilities": ROWS.copy(), "mask": np.eye(2)},
    "losses.kl_divergence": lambda: {"logits": LOGITS.copy(), "probabilities": ROWS.copy()},
    "losses.lp": lambda: {"prediction": np.ones(3), "target": np.zeros(3), "p": 3.0},
    "losses.mae": lambda: {"prediction": np.ones(3), "target": np.zeros(3)},
    "losses.mse": lambda: {"prediction": np.ones(3), "target": np.zeros(3)},
    "losses.sequence_cross_entropy": lambda: {
        "logits": np.ones((1, 2, 2)),
        "classes": np.array([[0, 1]]),
        "mask": np.ones((1, 2)),
    },
    "losses.sparse_cross_entropy": lambda: {"logits": LOGITS.copy(), "classes": CLASSES_OF_ROWS.copy()},
    "losses.tversky": lambda: {"probabilities": ROWS.copy(), "mask": np.eye(2)},
    "minimize": lambda: {"fun_and_grad": square, "x0": [1.0, 2.0], "max_iterations": 3, "history": 2, "c1": 1e-4},
    "minimize (newton)": lambda: {
        "fun_and_grad": square,
        "x0": [1.0, 2.0],
        "method": "newton",
        "hess": lambda x: 2 * np.eye(x.size),
        "line_search": "backtracking",
        "shrink": 0.5,
    },
    "minimize (adam)": lambda: {
        "fun_and_grad": square,
        "x0": [1.0, 2.0],
        "method": "adam",
        "max_iterations": 3,
        "lr": 0.1,
        "betas": (0.9, 0.999),
    },
    "scaling.fit_joint_power_law": lambda: {
        "n": np.tile([1e3, 1e4, 1e5, 1e6], 4),
        "p": np.repeat([1e3, 1e4, 1e5, 1e6], 4),
        "loss": np.arange(1.0, 17.0),
    },
    "scaling.fit_power_law": lambda: {"n": SIZES.copy(), "loss": LOSSES.copy()},
    "scaling.least_squares_line": lambda: {"x": SIZES.copy(), "y": LOSSES.copy()},
    "schedules.ReduceOnPlateau": lambda: {"v": 0.1},
    "schedules.constant": lambda: {"v": 0.1},
    "schedules.cosine": lambda: {"v": 0.1, "steps": 10},
    "schedules.cosine_restarts": lambda: {"v": 0.1, "steps": 10, "t_mult": 2},
    "schedules.cyclic": lambda: {"v": 0.1, "peak": 0.5, "steps_up": 3},
    "schedules.cyclic (exp_range)": lambda: {"v": 0.1, "peak": 0.5, "steps_up": 3, "mode": "exp_range", "gamma": 0.9},
    "schedules.ema_decay": lambda: {"decay": 0.9, "debias": True},
    "schedules.exponential": lambda: {"v": 0.1, "rate": 0.1},
    "schedules.exponential (gamma)": lambda: {"v": 0.1, "gamma": 0.9},
    "schedules.from_config": lambda: {"config": {"name": "constant", "arguments": {"v": 0.1}}},
    "schedules.inverse_sqrt": lambda: {"v": 0.1, "scale": 10},
    "schedules.joined": lambda: {"schedules": [0.1, schedules.constant(0.2)], "boundaries": [2]},
    "schedules.linear": lambda: {"v": 0.1, "end": 0.0, "steps": 10},
    "schedules.one_cycle": lambda: {"v_max": 0.1, "steps": 10},
    "schedules.piecewise": lambda: {"boundaries": [2], "values": [0.1, 0.01]},
    "schedules.plot": lambda: {"schedules": schedules.constant(0.1), "steps": 5, "ax": axes()},
    "schedules.polynomial": lambda: {"v": 0.1, "end": 0.0, "steps": 10},
    "schedules.scale_lr": lambda: {"lr": 0.1, "batch_size": 64, "base_batch_size": 32},
    "schedules.step_decay": lambda: {"v": 0.1, "gamma": 0.5, "every": 10},
    "schedules.to_config": lambda: {"schedule": schedules.constant(0.1)},
    "schedules.warmup": lambda: {"steps": 10, "then": 0.1},
    "schedules.warmup_stable_decay": lambda: {"v": 0.1, "steps": 9, "warmup_steps": 3, "decay_steps": 3},
    "selftest": dict,
    "set_num_threads": lambda: {"n": 2},
    "subnormals": lambda: {"flush": True},
    **{cls.__name__: lambda: {"params": [np.ones(3), np.ones(2)], "lr": 0.1} for cls in CLASSES},
}

OBJECTS: dict[str, Callable[[], Any]] = {
    "EMA": lambda: updated(fastopt.EMA(ones(), 0.9)),
    "EarlyStopping": early,
    "LBFGS": lbfgs,
    "LossScaler": fastopt.LossScaler,
    "Optimizer": stepped,
    "RunningMean": lambda: updated(fastopt.RunningMean(ones())),
    "SAM": lambda: fastopt.SAM(fastopt.SGD(ones(), lr=0.1)),
    "scaling.JointPowerLaw": lambda: scaling.JointPowerLaw(
        1.0, 2.0, 0.5, 3.0, 0.4, *[0.1] * 6, n=SIZES, p=SIZES, loss=LOSSES
    ),
    "scaling.PowerLaw": lambda: scaling.PowerLaw(1.0, 50.0, 0.5, *[0.1] * 4, n=SIZES, loss=LOSSES),
}
SCHEDULES = [name for name in FUNCTIONS if isinstance(getattr(schedules, name.split(".")[-1], None), type)]

METHODS: dict[str, Callable[[], dict[str, Any]]] = {
    "EMA.load_state_dict": lambda: {"saved": updated(fastopt.EMA(ones(), 0.9)).state_dict()},
    "EarlyStopping.load_state_dict": lambda: {"saved": early().state_dict()},
    "EarlyStopping.update": lambda: {"metric": 0.5},
    "LBFGS.load": lambda: {"path": "saved"},
    "LBFGS.load_state_dict": lambda: {"saved": lbfgs().state_dict()},
    "LBFGS.save": lambda: {"path": "new"},
    "LBFGS.step": lambda: {"closure": lambda: (1.0, ones())},
    "LossScaler.load_state_dict": lambda: {"saved": fastopt.LossScaler().state_dict()},
    "LossScaler.update": lambda: {"report": fastopt.Report(True, 1.0, 1, 0)},
    "Optimizer.accumulate": lambda: {"grads": {"a": np.ones(3), "b": np.ones(2)}},
    "Optimizer.accumulate (loss)": lambda: {"grads": {"a": np.ones(3), "b": np.ones(2)}, "loss": 0.5},
    "Optimizer.add_group": lambda: {"group": {"params": np.ones(4), "rule": "sgd", "lr": 0.1, "frozen": False}},
    "Optimizer.load": lambda: {"path": "saved"},
    "Optimizer.load_state_dict": lambda: {"saved": stepped().state_dict()},
    "Optimizer.save": lambda: {"path": "new"},
    "Optimizer.step": lambda: {"grads": {"a": np.ones(3), "b": np.ones(2)}},
    "Optimizer.step (loss)": lambda: {"grads": {"a": np.ones(3), "b": np.ones(2)}, "loss": 0.5},
    "RunningMean.load_state_dict": lambda: {"saved": updated(fastopt.RunningMean(ones())).state_dict()},
    "SAM.first_step": lambda: {"grads": ones()},
    "SAM.second_step": lambda: {"grads": ones()},
    "SAM.step": lambda: {"closure": ones},
    "scaling.JointPowerLaw.predict": lambda: {"n": 1e5, "p": 1e6},
    "scaling.PowerLaw.gap_ratio": lambda: {"c": 10},
    "scaling.PowerLaw.plot": lambda: {"ax": axes()},
    "scaling.PowerLaw.predict": lambda: {"n": 1e5},
    "schedules.ReduceOnPlateau.load_state_dict": lambda: {"saved": schedules.ReduceOnPlateau(0.1).state_dict()},
    "schedules.ReduceOnPlateau.update": lambda: {"metric": 0.5},
    **{f"{name}.__call__": lambda: {"t": 3} for name in SCHEDULES if name != "schedules.one_cycle"},
}
AT_HAND: dict[str, Callable[[], Any]] = {
    "Optimizer.accumulate": gathered,
    "Optimizer.accumulate (loss)": losing,
    "Optimizer.step (loss)": losing,
    "SAM.second_step": perturbed,
}
"""Where a method needs its object in a certain state."""

# What is done with what a function gives: the rest of an argument's errors come then.
USES: dict[str, Callable[[Any], Any]] = {
    **{cls.__name__: lambda opt: opt.step([np.ones(3), np.ones(2)], **loss_of(opt)) for cls in CLASSES},
    **{name: lambda schedule: [schedule(t) for t in (0, 1, 100)] for name in SCHEDULES},
    "schedules.one_cycle": lambda cycle: [(cycle.lr(t), cycle.momentum(t)) for t in (0, 1, 100)],
    "schedules.from_config": lambda schedule: schedule(1),
    "EMA": lambda ema: [ema.update() for _ in range(3)],
    "Lookahead": lambda lookahead: lookahead.opt.step(np.ones(3)),
    "RunningMean": lambda mean: mean.update(),
    "SAM": lambda sam: sam.step(lambda: np.ones(3)),
    "line_search.along": lambda phi: phi(0.5),
    "batches": list,
}

NO_ROW = {
    **dict.fromkeys(
        [
            "GradcheckReport",
            "Info",
            "LBFGSReport",
            "Minimum",
            "Report",
            "line_search.Found",
            "scaling.JointPowerLaw",
            "scaling.Line",
            "scaling.PowerLaw",
        ],
        "a result, which functions give and nobody makes",
    ),
    "NonFiniteError": "an error",
    **dict.fromkeys(["Optimizer", "schedules.NamedSchedule", "schedules.NamedSchedule.__call__"], "a base class"),
}


def everything() -> Iterator[str]:
    """The names of all public functions, classes and methods that take arguments."""
    found = {name: getattr(fastopt, name) for name in fastopt.__all__}
    modules = {"": fastopt, **{name: x for name, x in found.items() if isinstance(x, ModuleType)}}
    for prefix, module in modules.items():
        own = [name for name, x in vars(module).items() if getattr(x, "__module__", "") == module.__name__]
        for name in getattr(module, "__all__", [name for name in own if not name.startswith("_")]):
            x = getattr(module, name)
            if callable(x):
                path = f"{prefix}.{name}" if prefix else name
                yield path
                yield from methods(path, x) if isinstance(x, type) else ()


def methods(path: str, cls: type) -> Iterator[str]:
    owner = "Optimizer" if issubclass(cls, fastopt.Optimizer) else path
    for name in dir(cls):
        method = inspect.getattr_static(cls, name)
        if not inspect.isfunction(method) or (name.startswith("_") and name != "__call__"):
            continue
        if len(inspect.signature(method).parameters) > 1:
            yield f"{owner}.{name}"


def public(name: str) -> Any:
    """The function, or the method of an object made for it."""
    make = AT_HAND.get(name)
    name = name.split(" ")[0]
    if name not in METHODS:
        return attrgetter(name)(fastopt)
    owner, method = name.rsplit(".", 1)
    make = make or OBJECTS.get(owner)
    return getattr(make() if make else public(owner)(**FUNCTIONS[owner]()), method)


def arguments_of(name: str) -> list[str]:
    function = public(name)
    given = list((METHODS.get(name) or FUNCTIONS[name])())
    if function is fastopt.subnormals:
        return given
    return list(dict.fromkeys([*inspect.signature(function).parameters, *given]))


def says(message: str, words: str) -> bool:
    """Whether a message has one of these words, as a word of its own."""
    return re.search(rf"(?<![A-Za-z0-9_])({words})(?![A-Za-z0-9_])", message) is not None
