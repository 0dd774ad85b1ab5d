"""What PyTorch's optimizers are called here: the rule that computes each, the options of a group in the rule's words,
and the keys of its state. A rule's own names stand in fastopt/optimizers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch

from fastopt import optimizers
from fastopt.engine.rule import Rule
from fastopt.optimizers.base import Optimizer
from fastopt.schedules.elementary import power

Numbers = dict[str, Any]

NO_STAGES: Numbers = {
    name: option.default for name, option in Optimizer.options().items() if name not in ("lr", "backend")
} | {"lookahead": None, "eps_hat": False, "eps_outside": False, "eps_inside_sqrt": False}
"""Of what stands around a rule here, PyTorch has l2 or decoupled_decay, and maximize; and eps is in its place."""


class Translation(NamedTuple):
    """rule : the class here. options(group) : its numbers, all but those that the group has by the same name and that
    stages need. keys : state of the rule -> key of PyTorch's. counted : whether steps are, in "step"; scalars : keys of
    tensors of one element."""

    rule: type[Rule]
    options: Callable[[Mapping[str, Any]], Numbers]
    keys: Mapping[str, str]
    counted: bool = True
    scalars: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()
    """Keys of groups where numbers of all tensors are kept."""


def plain(x: Any) -> Any:
    """A number in place of a tensor that holds it."""
    if isinstance(x, torch.Tensor):
        return x.item()
    return tuple(map(plain, x)) if isinstance(x, (tuple, list)) else x


def _decay(group: Mapping[str, Any]) -> Numbers:
    """weight_decay is L2, or decoupled where the group says so."""
    decoupled = group.get("decoupled_weight_decay", False)
    return {"decoupled_decay" if decoupled else "l2": group["weight_decay"]}


def _adam(group: Mapping[str, Any]) -> Numbers:
    return {**_decay(group), "amsgrad": group["amsgrad"]}


def _adamw(group: Mapping[str, Any]) -> Numbers:
    """Before PyTorch 2.7 its groups do not say that the decay is decoupled."""
    return _adam({"decoupled_weight_decay": True, **group})


def _sgd(group: Mapping[str, Any]) -> Numbers:
    return {**_decay(group), "has_momentum": group["momentum"] != 0, "momentum_form": "accumulate"}


def _adagrad(group: Mapping[str, Any]) -> Numbers:
    return {**_decay(group), "initial_accumulator": group["initial_accumulator_value"]}


def _rmsprop(group: Mapping[str, Any]) -> Numbers:
    return {**_decay(group), "rho": group["alpha"], "has_momentum": group["momentum"] > 0}


def _radam(group: Mapping[str, Any]) -> Numbers:
    return {**_decay(group), "eps_hat": True, "nesterov": False, "threshold": 5.0}


ADAFACTOR = {name: option.default for name, option in optimizers.Adafactor.own_options().items()}


def _adafactor(group: Mapping[str, Any]) -> Numbers:
    rest = {name: x for name, x in ADAFACTOR.items() if name not in group}
    return {**rest, "decoupled_decay": group["weight_decay"]}


class Averaged(optimizers.ASGD):
    """ASGD whose "eta" and "mu" are those of the coming step, as PyTorch keeps them."""

    __slots__ = ()

    @classmethod
    def names_a_rule(cls) -> bool:
        return False

    @staticmethod
    def initial_scalars(h: Any) -> Mapping[str, float]:
        return {"eta": h.lr, "mu": 1.0}

    @staticmethod
    def advance(h: Any, scalars: dict[str, float], t: int) -> dict[str, float]:
        eta = h.lr * power(1 / (1 + h.lambd * h.lr * t), h.alpha)
        return {"eta": eta, "mu": 1 / max(1.0, t - h.t0), "now_eta": scalars["eta"], "now_mu": scalars["mu"]}

    @staticmethod
    def coefficients_at(h: Any, t: int) -> dict[str, float]:
        eta, mu = h.now_eta, h.now_mu
        return {"keep": 1 - h.lambd * eta, "step": eta, "decay": 1 - mu, "gain": mu}


MOMENTS = {"m": "exp_avg", "v": "exp_avg_sq", "v_max": "max_exp_avg_sq"}

TORCH: dict[str, Translation] = {
    "SGD": Translation(optimizers.SGD, _sgd, {"b": "momentum_buffer"}, counted=False),
    "Adam": Translation(optimizers.Adam, _adam, MOMENTS),
    "AdamW": Translation(optimizers.AdamW, _adamw, MOMENTS),
    "Adagrad": Translation(optimizers.Adagrad, _adagrad, {"s": "sum"}),
    "RMSprop": Translation(optimizers.RMSprop, _rmsprop, {"v": "square_avg", "b": "momentum_buffer", "m": "grad_avg"}),
    "NAdam": Translation(optimizers.NAdam, _decay, MOMENTS, scalars=("mu_product",)),
    "RAdam": Translation(optimizers.RAdam, _radam, MOMENTS),
    "Adamax": Translation(optimizers.Adamax, _decay, {"m": "exp_avg", "u": "exp_inf"}),
    "Adadelta": Translation(optimizers.Adadelta, _decay, {"v": "square_avg", "u": "acc_delta"}),
    "Rprop": Translation(optimizers.Rprop, lambda _: {}, {"prev": "prev", "size": "step_size"}),
    "ASGD": Translation(Averaged, _decay, {"ax": "ax"}, scalars=("eta", "mu")),
    "Adafactor": Translation(optimizers.Adafactor, _adafactor, {"r": "row_var", "c": "col_var", "v": "variance"}),
}
"""PyTorch's classes by name."""


def translated(translation: Translation, group: Mapping[str, Any], whole: Mapping[str, Any]) -> Numbers:
    """All numbers of a group, in the rule's words."""
    own = {name: plain(x) for name, x in group.items() if name not in ("params", "param_names")}
    return {**NO_STAGES, **own, **{name: plain(x) for name, x in translation.options(group).items()}, **whole}


def own(cls: type[Optimizer]) -> Translation:
    """A rule that PyTorch has not: options and state under its own names."""

    def options(group: Mapping[str, Any]) -> Numbers:
        names = [name for name in group if name not in ("params", "param_names")]
        taken = cls.by_own_names({name: group[name] for name in names if cls.own_name(name) in cls.options()})
        return {name: cls.options()[name].admit(plain(x), called) for name, (called, x) in taken.items()}

    return Translation(cls, options, {})
