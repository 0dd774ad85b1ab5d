"""A piece of work to time: a rule, arrays, and what surrounds the rule."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

import fastopt
from fastopt import _core
from fastopt.tree import Array

BLOCK = 1 << 20
"""Large arrays repeat as many random numbers: drawing 3e8 would take longer than all the steps."""


class Rule(NamedTuple):
    """An optimizer with its keywords, and the one of torch that computes the same."""

    optimizer: type[fastopt.Optimizer]
    kwargs: dict[str, Any]
    torch: str
    torch_kwargs: dict[str, Any]


_sgd, _rmsprop, _momentum, _centered = {"lr": 0.1}, {"lr": 1e-2, "eps": 1e-8}, {"momentum": 0.9}, {"centered": True}

RULES: dict[str, Rule] = {
    "sgd": Rule(fastopt.SGD, _sgd, "SGD", _sgd),
    "momentum": Rule(fastopt.SGD, {**_sgd, **_momentum}, "SGD", {**_sgd, **_momentum}),
    "nesterov": Rule(
        fastopt.SGD, {**_sgd, **_momentum, "nesterov": True}, "SGD", {**_sgd, **_momentum, "nesterov": True}
    ),
    "adagrad": Rule(fastopt.Adagrad, {}, "Adagrad", {}),
    **{
        "-".join(["rmsprop", *more]): Rule(
            fastopt.RMSprop, {"rho": 0.9, **_rmsprop, **kwargs}, "RMSprop", {"alpha": 0.9, **_rmsprop, **kwargs}
        )
        for more, kwargs in {
            (): {},
            ("momentum",): _momentum,
            ("centered",): _centered,
            ("centered", "momentum"): {**_centered, **_momentum},
        }.items()
    },
    "adam": Rule(fastopt.Adam, {}, "Adam", {}),
    "amsgrad": Rule(fastopt.Adam, {"amsgrad": True}, "Adam", {"amsgrad": True}),
    "adamw": Rule(fastopt.AdamW, {}, "AdamW", {}),
    "nadam": Rule(fastopt.NAdam, {"momentum_decay": 4e-3}, "NAdam", {"momentum_decay": 4e-3}),
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
    def written(self) -> int:
        """How many arrays as long as the parameters a step reads and writes: they, their state, their average."""
        opt = self.make([np.zeros(1, np.float32)])
        return 1 + len(_core.KERNELS[opt.rule][1][2:]) + (self.average is not None)

    @property
    def bytes_per_element(self) -> int:
        """What a step in one pass has to move: all that is written is read too, and the gradient read, twice where
        its norm comes first."""
        return 4 * (2 * self.written + 1 + (self.clip_norm is not None))

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
            if n >= BLOCK:
                a = np.resize(numbers, n)
            else:
                a = np.take(numbers, np.arange(start, start + n), mode="wrap")
            arrays.append(a.reshape(shape))
            start = (start + n) % len(numbers)
        return arrays


def flat(n: int, tensors: int = 1, **more: Any) -> Work:
    """So many tensors of n elements."""
    return Work(((n,),) * tensors, **more)


def network(*sizes: int, **more: Any) -> Work:
    """The weights and biases of a network of dense layers."""
    shapes: list[tuple[int, ...]] = []
    for inputs, outputs in zip(sizes, sizes[1:], strict=False):
        shapes += [(inputs, outputs), (outputs,)]
    return Work(tuple(shapes), **more)
