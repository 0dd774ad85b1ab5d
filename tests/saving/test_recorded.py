"""What 0.1.0 computed and wrote, recorded by its own code: later versions give the same bits and read its files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastopt
from fastopt import schedules
from tests.cases import CASES, DTYPES
from tests.recorded.runs import gradients, parameters, run

FOLDER = Path(__file__).parent.parent / "recorded/0.1.0"
DIGESTS: dict[str, Any] = json.loads((FOLDER / "digests.json").read_text())
CHECKPOINTS: dict[str, Any] = json.loads((FOLDER / "checkpoints.json").read_text())
BY_ID = {case.id: case for case in CASES}
SMALL = ("b", "c", "one")


def digest(opt: fastopt.Optimizer, params: dict[str, Any]) -> str:
    found = hashlib.sha256()
    for name, p in params.items():
        found.update(name.encode() + p.tobytes())
        for key, x in opt.state[name].items():
            found.update(key.encode() + (x.tobytes() if isinstance(x, np.ndarray) else repr(x).encode()))
    if opt.average is not None:
        for a in opt.averages.values():
            found.update(a.tobytes())
    return found.hexdigest()[:32]


@pytest.mark.parametrize("key", DIGESTS["equal"])
def test_bits_are_those_of_0_1_0(key: str, isa: str) -> None:
    case, dtype, flush = key.split()
    opt, params = run(BY_ID[case], np.dtype(dtype).type, flush == "flush")
    assert digest(opt, params) == DIGESTS["equal"][key]


@pytest.mark.parametrize("key", DIGESTS["nadam within 2 ulp"])
def test_nadam_with_a_momentum_decay_is_within_2_ulp(key: str) -> None:
    """Its coefficients come from the core's own exp, and came from libm's."""
    case, dtype = key.split()
    _, params = run(BY_ID[case], np.dtype(dtype).type, True)
    for name, before in DIGESTS["nadam within 2 ulp"][key].items():
        np.testing.assert_array_max_ulp(params[name].ravel(), np.array(before, dtype), 2)


def test_every_case_of_0_1_0_is_recorded() -> None:
    recorded = {key.split()[0] for part in DIGESTS.values() for key in part}
    assert len(recorded) == 40
    assert recorded <= set(BY_ID)
    assert len(DIGESTS["equal"]) == 38 * len(DTYPES) * 2


def halving(t: int) -> float:
    return 0.1 / (1 + t)


def small(step: int) -> dict[str, Any]:
    return {name: g for name, g in gradients(step, np.float32).items() if name in SMALL}


def made(name: str, p: Any) -> fastopt.Optimizer:
    """An optimizer as the one that wrote the file of this name."""
    warm = schedules.warmup(3, schedules.cosine(0.1, 50))
    if name == "groups":
        groups = [
            {"params": {"b": p["b"]}, "lr": 1e-2},
            {"params": {"c": p["c"], "one": p["one"]}, "weight_decay": 0.3, "betas": (0.8, 0.99)},
        ]
        lr = schedules.cosine(0.1, 100)
        return fastopt.AdamW(groups, lr=lr, clip_norm=0.5, average=0.9, on_nonfinite="skip")
    makers: dict[str, Any] = {
        "sgd": lambda: fastopt.SGD(p, 0.1, clip_value=0.5),
        "momentum": lambda: fastopt.SGD(p, warm, momentum=0.9, dampening=0.3),
        "nesterov": lambda: fastopt.SGD(p, halving, momentum=0.9, nesterov=True, prox_l1=0.01),
        "adagrad": lambda: fastopt.Adagrad(p, lr_decay=0.1, initial_accumulator=0.1),
        "rmsprop": lambda: fastopt.RMSprop(p, centered=True, momentum=0.9, eps_inside_sqrt=True, decoupled_decay=0.1),
        "adam": lambda: fastopt.Adam(p, amsgrad=True, eps_hat=True, l2=0.1, l1=0.01, maximize=True),
        "adamw": lambda: fastopt.AdamW(
            p,
            lr=schedules.ReduceOnPlateau(0.1, patience=1),
            weight_decay=schedules.linear(0.1, 0.0, 10),
            decay_by_lr=False,
        ),
        "nadam": lambda: fastopt.NAdam(p, momentum_decay=0.004),
    }
    return makers[name]()


def in_groups(opt: fastopt.Optimizer, g: dict[str, Any]) -> Any:
    return [{name: g[name] for name in group.names} for group in opt.groups] if len(opt.groups) > 1 else g


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_checkpoints_of_0_1_0_load_and_go_on(name: str) -> None:
    """To the bit: of NAdam too, whose coefficients at these steps are those that libm gave."""
    p = {key: a for key, a in parameters(np.float32).items() if key in SMALL}
    for key, a in p.items():
        a[...] = np.array(CHECKPOINTS[name]["parameters"][key], np.float32).reshape(a.shape)
    opt = made(name, p)
    opt.load(FOLDER / f"{name}.safetensors")
    assert opt.t == 3
    if name in ("adam", "groups"):
        opt.accumulate(in_groups(opt, small(8)))
        opt.step()
    for step in range(3, 6):
        opt.step(in_groups(opt, small(step)))
    found = hashlib.sha256()
    for key, a in p.items():
        found.update(key.encode() + a.tobytes())
    assert found.hexdigest()[:32] == CHECKPOINTS[name]["digest after three more steps"]


def test_checkpoints_of_0_1_0_are_all_there() -> None:
    assert sorted(CHECKPOINTS) == sorted(path.stem for path in FOLDER.glob("*.safetensors"))
    assert len(CHECKPOINTS) == 9
