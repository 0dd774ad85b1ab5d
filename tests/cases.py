"""One registry of optimizers x hyperparameters, and of awkward arrays: every test and benchmark loops over it.

A new rule gets a row here; the tests on bits, properties and states and the benchmarks then cover it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

import fastopt
from fastopt.base import tree
from fastopt.base.tree import Array
from fastopt.core import _core


class Case(NamedTuple):
    """An optimizer with its keywords, and those of a Lookahead around it; `plain` marks the one row per rule that
    benchmarks time."""

    id: str
    optimizer: type[fastopt.Optimizer]
    kwargs: dict[str, Any]
    plain: bool = False
    lookahead: dict[str, Any] | None = None

    def make(self, params: Any, **more: Any) -> fastopt.Optimizer:
        opt = self.optimizer(self.inside(params), **{**self.kwargs, **more})
        if self.lookahead:
            fastopt.Lookahead(opt, **self.lookahead)
        return opt

    def inside(self, params: Any) -> Any:
        """The same arrays, moved within the bounds: those that start outside are refused."""
        if self.kwargs.get("bounds"):
            for _, p in tree.flatten(params):
                if isinstance(p, np.ndarray) and p.flags.writeable:
                    np.clip(p, *self.kwargs["bounds"], out=p)
        return params


def halving(t: int) -> float:
    """A learning rate that changes at every step: forms of momentum differ only then."""
    return 0.1 / (1 + t)


SGD, Adagrad, RMSprop = fastopt.SGD, fastopt.Adagrad, fastopt.RMSprop
Adam, AdamW, NAdam = fastopt.Adam, fastopt.AdamW, fastopt.NAdam
Lion, LAMB, Adafactor, Prodigy = fastopt.Lion, fastopt.LAMB, fastopt.Adafactor, fastopt.Prodigy
PolyakSGD = fastopt.PolyakSGD

Adadelta, Adamax, RAdam, Rprop, ASGD = fastopt.Adadelta, fastopt.Adamax, fastopt.RAdam, fastopt.Rprop, fastopt.ASGD

RULES = [
    Case("sgd", SGD, {"lr": 0.1}, plain=True),
    Case("momentum", SGD, {"lr": 0.1, "momentum": 0.9}, plain=True),
    Case("momentum-dampening", SGD, {"lr": halving, "momentum": 0.9, "dampening": 0.3}),
    Case("momentum-velocity", SGD, {"lr": halving, "momentum": 0.9, "momentum_form": "velocity"}),
    Case("momentum-ema", SGD, {"lr": halving, "momentum": 0.9, "momentum_form": "ema"}),
    Case("nesterov", SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}, plain=True),
    Case("adagrad", Adagrad, {}, plain=True),
    Case("adagrad-options", Adagrad, {"lr": halving, "lr_decay": 0.1, "initial_accumulator": 0.1}),
    Case("adagrad-eps-inside", Adagrad, {"eps": 1e-3, "eps_inside_sqrt": True}),
    Case("rmsprop", RMSprop, {}, plain=True),
    Case("rmsprop-eps-inside", RMSprop, {"lr": halving, "eps": 1e-3, "eps_inside_sqrt": True}),
    Case("rmsprop-momentum", RMSprop, {"momentum": 0.9}, plain=True),
    Case("rmsprop-centered", RMSprop, {"centered": True}, plain=True),
    Case("rmsprop-centered-eps-inside", RMSprop, {"centered": True, "eps": 1e-3, "eps_inside_sqrt": True}),
    Case("rmsprop-centered-momentum", RMSprop, {"centered": True, "momentum": 0.9}, plain=True),
    Case("adam", Adam, {}, plain=True),
    Case("adam-zero-betas", Adam, {"betas": (0, 0)}),
    Case("adam-eps-hat", Adam, {"lr": halving, "eps_hat": True, "eps": 1e-3}),
    Case("amsgrad", Adam, {"amsgrad": True}, plain=True),
    Case("amsgrad-eps-hat", Adam, {"lr": halving, "amsgrad": True, "eps_hat": True}),
    Case("adamw", AdamW, {}, plain=True),
    Case("adamw-amsgrad", AdamW, {"lr": halving, "weight_decay": 0.3, "amsgrad": True}),
    Case("adamw-free-decay", AdamW, {"weight_decay": 0.1, "decay_by_lr": False}),
    Case("nadam", NAdam, {}, plain=True),
    Case("nadam-schedule", NAdam, {"lr": halving, "momentum_decay": 0.004}),
    Case("nadam-schedule-0", NAdam, {"momentum_decay": 0}),
    Case("adadelta", Adadelta, {}, plain=True),
    Case("adamax", Adamax, {}, plain=True),
    Case("adamax-eps-outside", Adamax, {"lr": halving, "eps_outside": True, "eps": 1e-3}),
    Case("radam", RAdam, {}, plain=True),
    Case("radam-optax", RAdam, {"lr": halving, "betas": (0.9, 0.9), "eps_hat": False, "nesterov": True}),
    Case("rprop", Rprop, {}, plain=True),
    Case("asgd", ASGD, {"lr": halving, "lambd": 0.1, "t0": 1.0}, plain=True),
    Case("lion", Lion, {}, plain=True),
    Case("lion-decay", Lion, {"lr": halving, "betas": (0.9, 0.9), "weight_decay": 0.1}),
    Case("lamb", LAMB, {}, plain=True),
    Case("lamb-decay", LAMB, {"lr": halving, "weight_decay": 0.1, "ratio_limits": (0.01, 2.0)}),
    Case("lamb-outside", LAMB, {"decoupled_decay": 0.1, "correct_v": False, "largest_norm": 10.0, "norm_eps": 1e-6}),
    Case("adafactor", Adafactor, {}, plain=True),
    Case("adafactor-keras", Adafactor, {"add_eps": True, "eps": (0.1, 1e-3), "weight_decay": 0.1, "decay_first": True}),
    Case("adafactor-momentum", Adafactor, {"lr": halving, "relative_step": False, "momentum": 0.9, "d": None}),
    Case("adafactor-unfactored", Adafactor, {"factored": False, "scale_parameter": False, "momentum": 0.5}),
    Case("prodigy", Prodigy, {}, plain=True),
    Case("prodigy-optax", Prodigy, {"update": "optax", "bias_correction": True, "weight_decay": 0.1, "lr": halving}),
    Case("prodigy-safeguard", Prodigy, {"safeguard_warmup": True, "growth_rate": 1.1, "d_coef": 2.0, "beta3": 0.9}),
    Case("polyak-sgd", PolyakSGD, {}, plain=True),
    Case("polyak-sgd-options", PolyakSGD, {"scaling": halving, "f_min": 0.3, "eps": 0.1, "variant": "sps+"}),
]

STAGES = [
    Case("clip-norm", AdamW, {"clip_norm": 0.5}),
    Case("clip-norm-unreached", SGD, {"lr": 0.1, "clip_norm": 1e30}),
    Case("clip-value", SGD, {"lr": 0.1, "momentum": 0.9, "clip_value": 0.25}),
    Case("maximize", Adam, {"maximize": True}),
    Case("maximize-clip-norm", SGD, {"lr": 0.1, "maximize": True, "clip_norm": 0.5}),
    Case("l1", SGD, {"lr": 0.1, "l1": 0.1}),
    Case("l2", Adam, {"l2": 0.1}),
    Case("elastic-net-clip-value-maximize", NAdam, {"l1": 0.1, "l2": 0.2, "clip_value": 0.5, "maximize": True}),
    Case("decoupled-decay", RMSprop, {"decoupled_decay": 0.5}),
    Case("decoupled-decay-free", SGD, {"lr": halving, "decoupled_decay": 0.1, "decay_by_lr": False}),
    Case("prox-l1", SGD, {"lr": 0.1, "prox_l1": 2.0}),
    Case("bounds", SGD, {"lr": 0.1, "bounds": (-0.5, 0.75)}),
    Case("bounds-one-side", AdamW, {"lr": halving, "bounds": (0, None), "prox_l1": 0.1, "average": 0.9}),
    Case("lamb-bounds", LAMB, {"bounds": (-0.5, 0.75), "decoupled_decay": 0.1}),
    Case("adafactor-bounds", Adafactor, {"bounds": (None, 0.75), "clip_norm": 0.5}),
    Case("prodigy-bounds", Prodigy, {"bounds": (-0.5, 0.75), "d0": 0.1}),
    Case("lookahead", SGD, {"lr": 0.1, "momentum": 0.9}, lookahead={"k": 2}),
    Case("lookahead-bounds", NAdam, {"bounds": (-0.5, 0.75), "average": 0.9}, lookahead={"k": 1, "alpha": 0.8}),
    Case("lamb-lookahead", LAMB, {"bounds": (-0.5, 0.75), "clip_norm": 0.5}, lookahead={"k": 2, "alpha": 0.3}),
    Case("adafactor-lookahead", Adafactor, {"momentum": 0.5, "average": 0.9}, lookahead={"k": 2, "alpha": 0.3}),
    Case("prodigy-lookahead", Prodigy, {"l2": 0.1, "maximize": True}, lookahead={"k": 3, "alpha": 1.0}),
    Case("average", Adagrad, {"average": 0.9}),
    Case("average-float64", AdamW, {"lr": halving, "average": 0.99, "average_dtype": "float64"}),
    Case("lamb-average-float64", LAMB, {"average": 0.9, "average_dtype": "float64", "bounds": (-1, 1)}),
    Case("lamb-stages", LAMB, {"l2": 0.1, "clip_norm": 0.5, "average": 0.9, "decoupled_decay": 0.1, "prox_l1": 0.1}),
    Case("adafactor-stages", Adafactor, {"l1": 0.1, "clip_value": 0.5, "maximize": True, "average": 0.9}),
    Case("prodigy-stages", Prodigy, {"l2": 0.1, "clip_norm": 0.5, "decoupled_decay": 0.1, "average": 0.9}),
    Case("polyak-sgd-stages", PolyakSGD, {"l2": 0.1, "clip_norm": 0.5, "decoupled_decay": 0.1, "average": 0.9}),
    Case("finite-check", Adam, {"on_nonfinite": "skip"}),
    Case(
        "everything",
        AdamW,
        {"lr": halving, "clip_norm": 0.5, "maximize": True, "l1": 0.1, "l2": 0.2, "prox_l1": 0.1, "average": 0.9},
    ),
]

CASES = RULES + STAGES


WITH_SUMS_OF_ALL = Prodigy, PolyakSGD
WITH_SUMS = LAMB, Adafactor, *WITH_SUMS_OF_ALL


def elementwise(case: Case) -> bool:
    """Whether what becomes of an element depends on that element alone."""
    return case.optimizer not in WITH_SUMS


DTYPES = [np.float32, np.float64]

# Around every tail of a vector, and around the chunk.
CHUNK = _core.CHUNK
LENGTHS = [*range(131), *(k * CHUNK + d for k in (1, 2, 3) for d in (-17, -1, 0, 1, 16))]

SPECIAL = {
    "nan": [np.nan],
    "infinities": [np.inf, -np.inf],
    "zeros": [0.0, -0.0],
    "subnormals": [1e-40, -1e-44, 5e-324, -1e-310],
    "huge": [3e38, -3e38, 1e300],
    "tiny": [1.2e-38, -2e-38, 2.3e-308],
}


def ordinary(rng: np.random.Generator, shape: Any, dtype: Any) -> Array:
    return rng.standard_normal(shape).astype(dtype)


def sprinkled(rng: np.random.Generator, shape: Any, dtype: Any, *kinds: str) -> Array:
    """Ordinary numbers, a fifth of them replaced by special ones of these kinds."""
    a = rng.standard_normal(shape)
    values = [x for kind in kinds for x in SPECIAL[kind]]
    chosen = rng.random(shape) < 0.2
    with np.errstate(all="ignore"):
        a[chosen] = rng.choice(values, int(chosen.sum()))
        return a.astype(dtype)


def misaligned(a: Array, offset: int) -> Array:
    """A copy that starts `offset` elements past a 64-byte boundary."""
    memory = np.empty(a.nbytes + 64 + offset * a.itemsize, np.uint8)
    start = -memory.ctypes.data % 64 + offset * a.itemsize
    b = memory[start : start + a.nbytes].view(a.dtype).reshape(a.shape)
    b[...] = a
    return b


def awkward_gradients(g: Array) -> dict[str, Array]:
    """The same 2-d gradient in every layout that a step takes."""
    rows, columns = g.shape
    wide = np.zeros((rows, 2 * columns), g.dtype)
    wide[:, ::2] = g
    tall = np.zeros((3 * rows, columns), g.dtype)
    tall[::3] = g
    bytes_off = np.zeros(g.nbytes + 1, np.uint8)[1:].view(g.dtype).reshape(g.shape)
    bytes_off[...] = g
    frozen = g.copy()
    frozen.flags.writeable = False
    return {
        "C": g.copy(),
        "Fortran": np.asfortranarray(g),
        "every second column": wide[:, ::2],
        "every third row": tall[::3],
        "reversed": g[::-1, ::-1].copy()[::-1, ::-1],
        "off by a byte": bytes_off,
        "read-only": frozen,
        "one element broadcast": np.broadcast_to(g[:1, :1], g.shape),
    }
