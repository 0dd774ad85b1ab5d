"""Who can be timed: fastopt, what a user of NumPy would write, the bytes-only loop, and other libraries."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

import fastopt
from fastopt.app.benchmark import libraries, memory
from fastopt.app.benchmark.libraries import Absent
from fastopt.app.benchmark.timing import Contender, feeder
from fastopt.app.benchmark.work import RULES, Work
from fastopt.base.tree import Array
from fastopt.core import _core


class Maker(NamedTuple):
    """How a contender is made. `package` is what has to be installed, `takes` says whether it can do a work, and
    `steps` how many of its steps `check` compares with fastopt's."""

    make: Callable[[Work], Contender]
    package: str = ""
    takes: Callable[[Work], bool] = lambda work: True
    steps: int = 3


def ours(work: Work) -> Contender:
    params, grads = work.parameters(), work.gradients()
    opt = work.make(params)
    restored = []
    if work.fill is not None:
        buffers = _core.KERNELS[opt.rule][1][2:]
        restored = [*grads, *(opt.state[name][buffer] for name in opt.names for buffer in buffers)]
    return Contender(
        lambda: opt.step(grads), lambda: params, feeder(grads), functools.partial(_fill, restored, work.fill)
    )


def _fill(arrays: Iterable[Array], value: float | None) -> None:
    for a in arrays:
        a.fill(value)


def in_an_arena(work: Work) -> Contender:
    """The same on one block of memory for all tensors."""
    block, params = fastopt.arena(work.parameters())
    flat, grads = fastopt.arena(work.gradients())
    opt = work.make([block])
    return Contender(lambda: opt.step([flat]), lambda: list(params), feeder(list(grads)))


NUMPY_BLOCK = 1 << 16
"""Elements that pass through all lines of a step at a time: they stay in the cache."""


def in_place(work: Work) -> Contender:
    """Adam as a careful user of NumPy writes it: in place, in blocks, without a temporary array."""
    params, grads = work.parameters(), work.gradients()
    h = work.make([np.zeros(1, np.float32)]).groups[0]
    (beta1, beta2), decay = h["betas"], h.get("weight_decay", 0.0)
    a, b = (np.empty(NUMPY_BLOCK, np.float32) for _ in range(2))
    blocks = []
    for p, g in zip(params, grads, strict=True):
        arrays = [p.reshape(-1), g.reshape(-1), np.zeros(p.size, np.float32), np.zeros(p.size, np.float32)]
        for start in range(0, p.size, NUMPY_BLOCK):
            block = [x[start : start + NUMPY_BLOCK] for x in arrays]
            blocks.append((*block, a[: block[0].size], b[: block[0].size]))
    t = 0

    def step() -> None:
        nonlocal t
        t += 1
        factor = 1.0
        if work.clip_norm is not None:
            norm = math.sqrt(sum(np.vdot(g, g) for g in grads))
            factor = min(1.0, work.clip_norm / norm)
        size, unbias = h["lr"] / (1 - beta1**t), 1 / math.sqrt(1 - beta2**t)
        for p, g, m, v, a, b in blocks:
            if factor != 1:
                g = np.multiply(g, factor, out=b)
            if decay:
                np.multiply(p, 1 - h["lr"] * decay, out=p)
            np.multiply(m, beta1, out=m)
            np.multiply(g, 1 - beta1, out=a)
            np.add(m, a, out=m)
            np.multiply(v, beta2, out=v)
            np.multiply(g, g, out=a)
            np.multiply(a, 1 - beta2, out=a)
            np.add(v, a, out=v)
            np.sqrt(v, out=a)
            np.multiply(a, unbias, out=a)
            np.add(a, h["eps"], out=a)
            np.divide(m, a, out=a)
            np.multiply(a, size, out=a)
            np.subtract(p, a, out=p)

    return Contender(step, lambda: params, feeder(grads))


def _in_one(work: Work) -> bool:
    """Whether the rule moves elements alone, so that one long tensor is stepped as many are."""
    return work.fill is None and RULES[work.rule].passes == 1


def _adam(work: Work) -> bool:
    return work.rule in ("adam", "adamw") and not work.l2 and work.average is None and work.fill is None


def _adam_unclipped(work: Work) -> bool:
    return _adam(work) and work.clip_norm is None


def _optax(work: Work) -> bool:
    """What it has, and what compiles quickly."""
    around = work.l2 or work.average is not None or work.fill is not None
    return RULES[work.rule].optax != "" and not around and len(work.shapes) <= 100


def _torch(work: Work) -> bool:
    return RULES[work.rule].torch != ""


def _fastopt_torch(work: Work) -> bool:
    return _torch(work) and not work.l2 and work.average is None and work.fill is None


def _torch_fused(work: Work) -> bool:
    return RULES[work.rule].torch in ("SGD", "Adagrad", "Adam", "AdamW")


MAKERS = {
    "fastopt": Maker(ours),
    "fastopt, arena": Maker(in_an_arena, takes=_in_one),
    "NumPy": Maker(in_place, takes=_adam),
    "bytes only": Maker(memory.bytes_only, steps=0),
    "torch": Maker(functools.partial(libraries.torch, variant={}), "torch", _torch),
    "torch foreach": Maker(functools.partial(libraries.torch, variant={"foreach": True}), "torch", _torch),
    "torch fused": Maker(functools.partial(libraries.torch, variant={"fused": True}), "torch", _torch_fused),
    "fastopt.torch": Maker(libraries.fastopt_torch, "torch", _fastopt_torch),
    "DeepSpeed": Maker(libraries.deepspeed, "deepspeed", _adam),
    "optax": Maker(libraries.optax, "optax", _optax),
    "scikit-learn": Maker(libraries.sklearn, "scikit-learn", _adam_unclipped),
    "thinc": Maker(libraries.thinc, "thinc", _adam_unclipped),
}

PACKAGES = ("torch", "deepspeed", "optax", "jax", "scikit-learn", "thinc")
"""What is asked for, by its name on the package index."""


def installed() -> dict[str, str]:
    """package -> version, of PACKAGES that are here; nothing is imported."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def make(name: str, work: Work, makers: dict[str, Maker] = MAKERS) -> Contender:
    """Raises Absent, with the reason, where this contender cannot be had."""
    maker = makers[name]
    if maker.package and maker.package not in installed():
        raise Absent(f"{maker.package} is not installed")
    try:
        return maker.make(work)
    except memory.NoCompiler as e:
        raise Absent(str(e)) from None


TOLERANCE = 3e-6
TINY = ((7,), (3, 5), (1,))


_checked: set[tuple[str, Work]] = set()


def check(name: str, work: Work, makers: dict[str, Maker] = MAKERS) -> None:
    """Raises Absent where a contender's parameters are not fastopt's, but for rounding, after a few steps of
    this work on tiny tensors, each with other gradients: nothing is timed that computes something else."""
    tiny = work._replace(shapes=TINY[:1] if len(work.shapes) == 1 else TINY, fill=None)
    if (name, tiny) in _checked:
        return
    if makers[name].steps == 0:
        return
    own, other = ours(tiny), make(name, tiny, makers)
    rng = np.random.default_rng(0)
    for _ in range(makers[name].steps):
        grads = [rng.standard_normal(shape, np.float32) for shape in tiny.shapes]
        for c in (own, other):
            c.restore()
            c.feed(grads)
            c.step()
    for a, b in zip(own.params(), other.params(), strict=True):
        off = float(np.max(np.abs(a - b)))
        if not off <= TOLERANCE * max(1.0, float(np.max(np.abs(a)))):
            raise Absent(
                f"{name} computes something else than {work.rule}: {off:.1g} off after {makers[name].steps} steps"
            )
    _checked.add((name, tiny))
