"""Two optimizers stepped side by side and compared to the last bit: parameters, state, averages, reports."""

from __future__ import annotations

from typing import Any

import numpy as np

import fastopt
from fastopt import tree
from fastopt.selftest import same_bits
from fastopt.tree import Array


def copies(params: Any) -> Any:
    """The same tree of arrays, in the same memory order."""
    return tree.transform(params, lambda a: a if a is None else np.copy(a, order="K"))


def written(opt: fastopt.Optimizer) -> dict[str, Array]:
    """Every array that a step of this optimizer writes, by name."""
    found = dict(zip(opt.names, opt._plan.params, strict=True))
    for name, entry in opt.state.items():
        found |= {f"{name}:{key}": x for key, x in entry.items() if isinstance(x, np.ndarray)}
    if opt.average is not None:
        found |= {f"{name}:average": a for name, a in zip(opt.names, opt._plan.averages, strict=True)}
    return found


def snapshot(opt: fastopt.Optimizer) -> dict[str, bytes]:
    """Every byte that a step could change, and every count."""
    found = {name: a.tobytes() for name, a in written(opt).items()}
    found["counts"] = repr(
        (opt.t, [{k: x for k, x in e.items() if not isinstance(x, np.ndarray)} for e in opt.state.values()])
    ).encode()
    return found


def assert_same_bits(a: fastopt.Optimizer, b: fastopt.Optimizer) -> None:
    ours, theirs = written(a), written(b)
    assert ours.keys() == theirs.keys()
    differing = [name for name in ours if not same_bits(ours[name], theirs[name])]
    for name in differing[:1]:
        x, y = ours[name].ravel("K"), theirs[name].ravel("K")
        at = next(i for i in range(x.size) if not same_bits(x[i : i + 1], y[i : i + 1]))
        raise AssertionError(f"{len(differing)} arrays differ, first {name!r} at {at}: {x[at]!r} and {y[at]!r}")
    assert {k: {"t": e["t"]} for k, e in a.state.items()} == {k: {"t": e["t"]} for k, e in b.state.items()}


def same_report(a: fastopt.Report, b: fastopt.Report) -> bool:
    norms = a.grad_norm == b.grad_norm or (a.grad_norm != a.grad_norm and b.grad_norm != b.grad_norm)
    return norms and (a.applied, a.step) == (b.applied, b.step)
