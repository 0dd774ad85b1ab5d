"""Two optimizers stepped side by side and compared to the last bit: parameters, state, averages, reports."""

from __future__ import annotations

from typing import Any

import numpy as np

import fastopt
from fastopt.app.selftest import same_bits
from fastopt.base import tree
from fastopt.base.tree import Array
from fastopt.schedules import ReduceOnPlateau
from fastopt.schedules.restore import plateaus_in


def copies(params: Any) -> Any:
    """The same tree of arrays, in the same memory order."""
    return tree.transform(params, lambda a: a if a is None else np.copy(a, order="K"))


def loss_of(opt: fastopt.Optimizer) -> dict[str, float]:
    """The loss that a step is given where a rule needs one: another at every step, now and then below 0."""
    return {"loss": 2.0 / (1 + opt.t) - 0.25} if opt.takes_loss else {}


def told(opt: fastopt.Optimizer, grads: Any) -> Any:
    """What a closure gives SAM around this optimizer: gradients, with the loss where it takes one."""
    return (loss_of(opt)["loss"], grads) if opt.takes_loss else grads


def written(opt: fastopt.Optimizer) -> dict[str, Array]:
    """Every array that a step of this optimizer writes, and the gradients that are accumulated for it, by name."""
    found = dict(zip(opt.names, opt._engine.plan.params, strict=True))
    for name, entry in opt.state.items():
        found |= {f"{name}:{key}": x for key, x in entry.items() if isinstance(x, np.ndarray)}
    if opt.average is not None:
        averages = zip(opt.names, opt._engine.plan.averages, strict=True)
        found |= {f"{name}:average": a for name, a in averages if a is not None}
    if opt._engine.accumulation is not None and (gathered := opt._engine.accumulated):
        means = zip(opt.names, opt._engine.accumulation.means, gathered.present, strict=True)
        found |= {f"{name}:accumulated": mean for name, mean, there in means if there}
    return found


def plateaus(opt: fastopt.Optimizer) -> list[ReduceOnPlateau]:
    """Those that hyperparameters follow, each as often as it is followed."""
    values = [x for kept in (*(group._values for group in opt.groups), opt._engine.options) for x in kept.values()]
    members = [member for x in values for member in (x if isinstance(x, tuple) else (x,))]
    return [plateau for member in members for plateau in plateaus_in(member)]


def counts(opt: fastopt.Optimizer) -> Any:
    """Every number that an applied step could change."""
    scalars = {name: {k: x for k, x in e.items() if not isinstance(x, np.ndarray)} for name, e in opt.state.items()}
    return opt.t, scalars, opt._engine.accumulated


def snapshot(opt: fastopt.Optimizer) -> dict[str, bytes]:
    """Every byte that a step could change, and every count."""
    numbers = counts(opt), [plateau.state_dict() for plateau in plateaus(opt)]
    return {**{name: a.tobytes() for name, a in written(opt).items()}, "numbers": repr(numbers).encode()}


def plain(x: Any) -> str:
    """Every byte of arrays in lists and dicts, as text."""
    if isinstance(x, np.ndarray):
        return f"{x.dtype}{x.shape}{x.tobytes().hex()}"
    if isinstance(x, dict):
        return "{" + ", ".join(f"{key}: {plain(item)}" for key, item in x.items()) + "}"
    return "[" + ", ".join(map(plain, x)) + "]" if isinstance(x, (list, tuple)) else repr(x)


def assert_same_bits(a: fastopt.Optimizer, b: fastopt.Optimizer, where: str = "") -> None:
    ours, theirs = written(a), written(b)
    assert ours.keys() == theirs.keys()
    differing = [name for name in ours if not same_bits(ours[name], theirs[name])]
    for name in differing[:1]:
        x, y = ours[name].ravel("K"), theirs[name].ravel("K")
        at = next(i for i in range(x.size) if not same_bits(x[i : i + 1], y[i : i + 1]))
        found = f"first {name!r} at {at}: {x[at]!r} and {y[at]!r}"
        raise AssertionError(f"{len(differing)} arrays differ, {found}{where and f', on {where}'}")
    assert counts(a) == counts(b), where


def same_report(a: fastopt.Report, b: fastopt.Report) -> bool:
    norms = a.grad_norm == b.grad_norm or (a.grad_norm != a.grad_norm and b.grad_norm != b.grad_norm)
    return norms and (a.applied, a.step, a.skipped) == (b.applied, b.step, b.skipped)
