"""A piece of work to time: a rule, arrays, and what surrounds the rule."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

import numpy as np

import fastopt
from fastopt.base.tree import Array

BLOCK = 1 << 20
"""Large arrays repeat as many random numbers: drawing 3e8 would take longer than all the steps."""


Keywords: TypeAlias = Mapping[str, Any]
NONE: Keywords = MappingProxyType({})


class Rule(NamedTuple):
    """An optimizer with its keywords, and those of torch and optax that compute the same, "" where there is none."""

    optimizer: type[fastopt.Optimizer]
    kwargs: Keywords
    torch: str = ""
    torch_kwargs: Keywords = NONE
    optax: str = ""
    optax_kwargs: Keywords = NONE
    passes: int = 1
    """Walks over the tensors; a loop that touches every byte once is the limit of one."""


_SGD: Keywords = {"lr": 0.1}
_RMSPROP: Keywords = {"lr": 1e-2, "eps": 1e-8}
_MOMENTUM: Keywords = {"momentum": 0.9}
_NESTEROV: Keywords = {**_MOMENTUM, "nesterov": True}
_CENTERED: Keywords = {"centered": True}


def _rmsprop_like(**kwargs: Any) -> Rule:
    return Rule(fastopt.RMSprop, {"rho": 0.9, **_RMSPROP, **kwargs}, "RMSprop", {"alpha": 0.9, **_RMSPROP, **kwargs})


RULES = {
    "sgd": Rule(fastopt.SGD, _SGD, "SGD", _SGD),
    "momentum": Rule(fastopt.SGD, {**_SGD, **_MOMENTUM}, "SGD", {**_SGD, **_MOMENTUM}),
    "nesterov": Rule(fastopt.SGD, {**_SGD, **_NESTEROV}, "SGD", {**_SGD, **_NESTEROV}),
    "adagrad": Rule(fastopt.Adagrad, {}, "Adagrad", {}),
    "rmsprop": _rmsprop_like(),
    "rmsprop-momentum": _rmsprop_like(**_MOMENTUM),
    "rmsprop-centered": _rmsprop_like(**_CENTERED),
    "rmsprop-centered-momentum": _rmsprop_like(**_CENTERED, **_MOMENTUM),
    "adam": Rule(fastopt.Adam, {}, "Adam", {}, "adam", {"learning_rate": 1e-3}),
    "amsgrad": Rule(fastopt.Adam, {"amsgrad": True}, "Adam", {"amsgrad": True}),
    "adamw": Rule(fastopt.AdamW, {}, "AdamW", {}, "adamw", {"learning_rate": 1e-3, "weight_decay": 1e-2}),
    "nadam": Rule(fastopt.NAdam, {"momentum_decay": 4e-3}, "NAdam", {"momentum_decay": 4e-3}),
    "adadelta": Rule(fastopt.Adadelta, {}, "Adadelta"),
    "adamax": Rule(fastopt.Adamax, {}, "Adamax"),
    "radam": Rule(fastopt.RAdam, {}, "RAdam"),
    "rprop": Rule(fastopt.Rprop, {}, "Rprop"),
    "asgd": Rule(fastopt.ASGD, {}, "ASGD"),
    "lion": Rule(fastopt.Lion, {}, optax="lion", optax_kwargs={"learning_rate": 1e-4, "weight_decay": 0.0}),
    "lamb": Rule(fastopt.LAMB, {}, optax="lamb", optax_kwargs={"learning_rate": 1e-3}, passes=2),
    "adafactor": Rule(fastopt.Adafactor, {}, "Adafactor", passes=3),
    "adafactor-optax": Rule(
        fastopt.Adafactor,
        {"lr": 1e-2, "add_eps": True, "eps": (1e-30, 1e-3), "relative_step": False},
        optax="adafactor",
        optax_kwargs={"learning_rate": 1e-2, "min_dim_size_to_factor": 1, "multiply_by_parameter_scale": True},
        passes=3,
    ),
}


class Work(NamedTuple):
    """Steps of one rule over float32 tensors.

    fill : before every step, gradients and state are filled with this number. It is how subnormals, which a
        step may flush, are there again at the next.
    """

    shapes: tuple[tuple[int, ...], ...]
    rule: str = "adamw"
    threads: int = 1
    clip_norm: float | None = None
    l2: float = 0.0
    average: float | None = None
    fill: float | None = None

    @property
    def elements(self) -> int:
        return sum(map(math.prod, self.shapes))

    @property
    def one_at_a_time(self) -> bool:
        """Whether a step would find something else than the first did, unless what it read is restored."""
        return self.fill is not None or self.l2 != 0

    @property
    def options(self) -> dict[str, Any]:
        """The keywords around the rule, for an optimizer of fastopt's."""
        return {"clip_norm": self.clip_norm, "l2": self.l2, "average": self.average}

    @property
    def bytes_per_element(self) -> int:
        """What a step in one pass has to move."""
        return self.make([np.zeros(1, np.float32)]).bytes_per_step

    @property
    def written(self) -> int:
        """How many arrays as long as the parameters a step reads and writes: they, their state, their average."""
        return (self._replace(clip_norm=None).bytes_per_element // 4 - 1) // 2

    def make(self, params: list[Array], **more: Any) -> fastopt.Optimizer:
        rule = RULES[self.rule]
        return rule.optimizer(params, **{**rule.kwargs, **self.options, "threads": self.threads, **more})

    def parameters(self) -> list[Array]:
        return self._arrays(0)

    def gradients(self) -> list[Array]:
        arrays = self._arrays(1)
        if self.fill is not None:
            for a in arrays:
                a.fill(self.fill)
        return arrays

    def _arrays(self, seed: int) -> list[Array]:
        numbers = np.random.default_rng(seed).standard_normal(min(BLOCK, self.elements), np.float32)
        arrays, start = [], 0
        for shape in self.shapes:
            n = math.prod(shape)
            a = np.resize(numbers, n) if n >= BLOCK else np.take(numbers, range(start, start + n), mode="wrap")
            arrays.append(a.reshape(shape))
            start += n
        return arrays


def flat(n: int, tensors: int = 1, **more: Any) -> Work:
    """So many tensors of n elements."""
    return Work(((n,),) * tensors, **more)


def network(*sizes: int, **more: Any) -> Work:
    """The weights and biases of a network of dense layers."""
    shapes: list[tuple[int, ...]] = []
    for inputs, outputs in pairwise(sizes):
        shapes += [(inputs, outputs), (outputs,)]
    return Work(tuple(shapes), **more)
