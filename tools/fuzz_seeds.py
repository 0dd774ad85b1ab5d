"""What fuzz_checkpoint.py begins with: optimizers, and such changes to their files as chance makes too seldom."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.saving.checkpoints import Parts


def own(t: int) -> float:
    return 0.1 / (1 + t)


def optimizers() -> list[Any]:
    """What the files are loaded into: one with groups, scalar state, averages, options, skipped steps and accumulated
    gradients; one with schedules alone; one with callables of its own and nothing accumulated."""
    import fastopt
    from fastopt import schedules

    params = [{"params": {"W": np.ones((2, 3)), "none": np.ones((0, 2), np.float32)}}, {"params": [np.array(1.0)]}]
    rich = fastopt.NAdam(params, momentum_decay=0.004, average=0.9, clip_norm=1.0, on_nonfinite="skip")
    grads = [{"W": np.ones((2, 3)), "none": None}, [np.array(2.0)]]
    rich.step(grads)
    rich.step([{"W": np.full((2, 3), np.nan), "none": None}, [None]])
    rich.accumulate(grads, weight=3)
    lr = schedules.warmup(3, schedules.piecewise([10, 20], [0.5, 0.25, 0.125]))
    plateau = schedules.ReduceOnPlateau(0.5)
    plateau.update(1.5)
    scheduled = fastopt.SGD(
        np.ones(3), lr=lr, l2=plateau, prox_l1=schedules.warmup(2, plateau), l1=schedules.one_cycle(0.5, 100).lr
    )
    half = fastopt.Adam([np.ones(2, np.float32)], lr=own, betas=(own, 0.9), clip_value=1.0, maximize=True, amsgrad=True)
    return [rich, scheduled, half]


def edits() -> list[tuple[int, dict[str, Any]]]:
    """The optimizer that each is of, and what to put where in its description."""
    from fastopt import schedules

    known: list[Any] = [
        schedules.constant(0.5),
        schedules.step_decay(0.5, 0.1, 3),
        schedules.exponential(0.5, rate=0.1),
        schedules.exponential(0.5, gamma=0.9),
        schedules.cosine(0.5, 10),
        schedules.cosine_restarts(0.5, 10, 2),
        schedules.linear(0.5, 0.1, 10),
        schedules.inverse_sqrt(0.5, 10),
        schedules.polynomial(0.5, 0.1, 10, 2),
        schedules.one_cycle(0.5, 10, three_phase=True).momentum,
        schedules.ReduceOnPlateau(0.5, mode="max", threshold_mode="abs"),
        schedules.warmup(2, schedules.ReduceOnPlateau(0.5)),
        schedules.ema_decay(0.5, debias=True, warmup=True, start=3),
        schedules.warmup_stable_decay(0.5, 20, 5, 10, start=0.1, decay_shape="sqrt"),
        schedules.joined([0.5, schedules.warmup(0, schedules.cyclic(0.1, 0.5, 4, mode="triangular2"))], [10]),
    ]
    plateau, other = (schedules.to_config(schedules.ReduceOnPlateau(v)) for v in (0.5, 0.25))
    return [
        *((which, {"groups/0/lr": schedules.to_config(x)}) for which in (0, 2) for x in known),
        *((1, {"groups/0/l2": schedules.to_config(x)}) for x in known),
        (0, {"groups/0/lr": plateau, "groups/1/lr": plateau}),
        (0, {"groups/0/betas": {"$tuple": [0.5, 0.5, 0.5]}}),
        (0, {"groups/0/betas": "schedule"}),
        (0, {"options/clip_value": 1.0}),
        (0, {"optimizer": "Adam"}),
        (0, {"state/W/t": 7}),
        (0, {"skipped": 2**53}),
        (0, {"accumulation/weight": {"$float": "inf"}}),
        (0, {"accumulation/count": 0}),
        (1, {"groups/0/l2": plateau, "groups/0/prox_l1": other}),
        (1, {"groups/0/lr": "schedule"}),
        (
            1,
            {
                "groups/0/lr": {
                    "name": "one_cycle.lr",
                    "arguments": {"v_max": 1.0, "steps": 1, "pct_start": 0.9, "three_phase": True},
                }
            },
        ),
        (1, {"groups/0/lr": {"name": "exponential", "arguments": {"v": 1.0, "rate": 0.1, "gamma": 0.5}}}),
        (1, {"groups/0/lr": {"name": "piecewise", "arguments": {"boundaries": [5, 2], "values": [1.0, 0.5, 0.1]}}}),
        (2, {"groups/0/lr": 0.5}),
        (2, {"groups/0/betas": {"$tuple": [0.5, 0.5]}}),
        (2, {"accumulation/count": 2, "accumulation/weight": 1.5}),
    ]


ARRAYS = ["/state/W/m", "/averages/W", "/accumulation/gradients/W"]
LIES: list[tuple[str, list[int]]] = [
    ("BF16", [2, 12]),
    ("F32", [2, 6]),
    ("F64", [3, 2]),
    ("F64", [6]),
    ("I64", [2, 3]),
    ("F64", [3, 2, 1]),
    ("F64", [3, 2] + [1] * 63),
]
TEXTS = [
    '{"format":1,"format":1,"fastopt":"0","state":{}}',
    '{"format":2,"fastopt":"9","state":{}}',
    '{"format":1,"fastopt":"0","state":' + "[" * 480 + "]" * 480 + "}",
    '{"format":1,"fastopt":"0","state":1e400}',
    "[" * 1000,
]


def files(good: list[bytes]) -> list[bytes]:
    """Good files, each after the number of its optimizer, with one thing changed and all checksums right."""
    found = []
    for which, changes in edits():
        parts = Parts(good[which][1:])
        for path, value in changes.items():
            *above, last = path.split("/")
            container: Any = parts.description["state"]
            for key in above:
                container = container[int(key) if isinstance(container, list) else key]
            container[last] = value
        found.append(good[which][:1] + parts.join())
    for pointer in ARRAYS:
        for dtype, shape in LIES:
            parts = Parts(good[0][1:])
            redescribe(parts, pointer, dtype, shape)
            found.append(good[0][:1] + parts.join())
    parts = Parts(good[0][1:])
    redescribe(parts, "/state/none/m", "F32", [2**40, 2**40, 0])
    found.append(good[0][:1] + parts.join())
    return found + [good[0][:1] + Parts(good[0][1:]).join(text) for text in TEXTS]


def redescribe(parts: Parts, pointer: str, dtype: str, shape: list[int]) -> None:
    """Another type and shape for the same bytes, in the header and in the description alike."""
    parts.header[pointer].update(dtype=dtype, shape=shape)
    entry: Any = parts.description["state"]
    for key in pointer.split("/")[1:]:
        entry = entry[key]
    entry["$array"].update(dtype=dtype, shape=shape)
