"""The optimizers of torch.optim with fastopt's step, and fastopt's own rules as optimizers of PyTorch, a class each:
made from the table of translations and from the rules, so that a new one is here at once."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import torch

from fastopt import optimizers
from fastopt.engine.hyperparameters import REQUIRED, Fixed
from fastopt.engine.numbers import Numbers
from fastopt.optimizers.base import Optimizer
from fastopt.torch.optimizer import DEFAULTS, Fast
from fastopt.torch.translation import TORCH, Translation, own, translated


def _drop_in(name: str, translation: Translation) -> type[Fast]:
    base = getattr(torch.optim, name)
    text = f"""torch.optim.{name}, stepped by fastopt.

    Arguments, groups and state are those of torch.optim.{name}, and each state_dict loads in the other. Beside them it
    takes what every class here does: see :class:`fastopt.torch.Fast`. `foreach` and `fused` change nothing.
    """
    made = type(name, (Fast, base), {"__doc__": text, "__module__": "fastopt.torch", "_translation": translation})
    made.__signature__ = _signature(list(inspect.signature(base).parameters.values()))  # type: ignore[attr-defined]
    return made


def _signature(own: list[inspect.Parameter]) -> inspect.Signature:
    """These, and what every class takes."""
    return inspect.Signature(
        own + [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=x) for name, x in DEFAULTS.items()]
    )


def _keywords(rule: type[Optimizer]) -> dict[str, Any]:
    """What a rule of fastopt's takes here, with defaults: lr, its own options, weight_decay and maximize."""
    found = {"lr": rule.options()["lr"].default}
    for name, option in rule.own_options().items():
        if not (isinstance(option, Fixed) and option.derived):
            found[name] = option.default
    for name, other in rule._other_names.items():
        found[name] = rule.options()[other.of].default if other.default is REQUIRED else other.default
    return {**found, "maximize": False}


def _own(rule: Any) -> type[Fast]:
    keywords, name = _keywords(rule), rule.__name__
    translation = own(rule)
    numbers = Numbers(translated(translation, {k: 0.1 if x is REQUIRED else x for k, x in keywords.items()}, {}))
    shared = tuple(register for register, _ in rule.form(numbers, np.empty((2, 2), np.float32)).all)
    params = inspect.Parameter("params", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    signature = _signature([params, *(inspect.Parameter(k, params.kind, default=x) for k, x in keywords.items())])

    def __init__(self: Any, *args: Any, **given: Any) -> None:
        bound = signature.bind(*args, **given)
        bound.apply_defaults()
        values = bound.arguments
        group = {k: values[k] for k in keywords}
        if group["lr"] is REQUIRED:
            raise TypeError(f"{name} needs lr: for example {name}(params, lr=0.1)")
        rule.check(Numbers(translated(translation, group, {})))
        Fast.__init__(self, values["params"], group, **{k: values[k] for k in DEFAULTS})

    body = {
        "__doc__": _text(rule),
        "__module__": "fastopt.torch",
        "__init__": __init__,
        "__signature__": signature,
        "_translation": translation._replace(shared=shared),
    }
    return type(name, (Fast,), body)


def _text(rule: type) -> str:
    head, _, rest = (rule.__doc__ or "").partition("\n\n")
    here = f"As fastopt.{rule.__name__}, for tensors; what else it takes: :class:`fastopt.torch.Fast`."
    return f"{head}\n\n    {here}\n\n{rest}"


CLASSES: dict[str, type[Fast]] = {
    **{name: _drop_in(name, translation) for name, translation in TORCH.items() if hasattr(torch.optim, name)},
    **{name: _own(getattr(optimizers, name)) for name in optimizers.__all__ if name not in TORCH},
}
"""Every class by its name."""
