"""Nothing is kept: references, objects and memory are flat over thousands of constructions, steps and failures."""

from __future__ import annotations

import contextlib
import copy
import gc
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any
from weakref import ref

import numpy as np
import pytest

import fastopt

ROUNDS = 10_000
P, G = np.ones(8), np.ones(8)
FROZEN = np.ones(8)
FROZEN.flags.writeable = False


def kept() -> fastopt.Optimizer:
    return fastopt.NAdam({"p": P.copy(), "q": np.ones(3)}, momentum_decay=0.1, average=0.5, on_nonfinite="raise")


OPT = kept()
GOOD = {"p": G, "q": np.ones(3)}
NAN = {"p": G, "q": np.full(3, np.nan)}
SAVED = OPT.state_dict()
WRONG = {**SAVED, "t": -1}


def raising(t: int) -> float:
    raise KeyError(t)


SCHEDULED = fastopt.SGD([P.copy()], lr=raising)

ACTS: dict[str, Callable[[], Any]] = {
    "construct": lambda: fastopt.AdamW([P], average=0.5, clip_norm=1.0),
    "construct and step": lambda: fastopt.Adam([P.copy()], lr=0.0).step([G]),
    "construct with the reference": lambda: fastopt.Adam([P], backend="numpy").step([G]),
    "add a group": lambda: fastopt.SGD([P], lr=0.1).add_group({"params": {"x": G}}),
    "fail to construct: the value": lambda: fastopt.Adam([P], betas=(1, 2)),
    "fail to construct: the keyword": lambda: fastopt.Adam([P], nonsense=1),  # type: ignore[call-arg]
    "fail to construct: read-only": lambda: fastopt.Adam([P, FROZEN]),
    "fail to construct: overlapping": lambda: fastopt.Adam([P, P[1:]]),
    "fail to construct: names": lambda: fastopt.Adam({"a.b": P, "a": {"b": G}}),
    "step": lambda: OPT.step(GOOD),
    "step without a gradient": lambda: OPT.step({"p": None, "q": None}),
    "fail to step: the tree": lambda: OPT.step([G]),
    "fail to step: the shape": lambda: OPT.step({"p": G, "q": G}),
    "fail to step: the dtype": lambda: OPT.step({"p": G, "q": np.ones(3, np.float32)}),
    "fail to step: shared memory": lambda: OPT.step({"p": OPT._engine.plan.params[0], "q": np.ones(3)}),
    "fail to step: NaN": lambda: OPT.step(NAN),
    "fail to step: the schedule": lambda: SCHEDULED.step([G]),
    "save": lambda: OPT.state_dict(),
    "load": lambda: OPT.load_state_dict(SAVED),
    "fail to load": lambda: OPT.load_state_dict(WRONG),
    "set": lambda: setattr(OPT, "lr", 0.5),
    "fail to set": lambda: setattr(OPT, "lr", -1),
    "look": lambda: (repr(OPT), dict(OPT.state), OPT.averages, OPT.groups[0]["lr"], OPT.bytes_per_step),
    "clip": lambda: (fastopt.clip_grad_norm_([G.copy()], 0.5), fastopt.clip_grad_value_(G.copy(), 0.5)),
    "fail to clip": lambda: fastopt.clip_grad_norm_([FROZEN], 0.5),
    "arena": lambda: fastopt.arena({"a": P, "b": [G]}),
}


def settle(act: Callable[[], Any]) -> None:
    with contextlib.suppress(TypeError, ValueError, KeyError, IndexError):
        act()


@pytest.mark.parametrize("what", ACTS)
def test_references_and_objects_are_flat(what: str) -> None:
    held = [
        P,
        G,
        FROZEN,
        OPT,
        SCHEDULED,
        OPT._engine.plan,
        GOOD,
        SAVED,
        *GOOD.values(),
        *NAN.values(),
        *OPT._engine.plan.params,
    ]

    def census() -> tuple[list[int], int]:
        gc.collect()
        return [sys.getrefcount(x) for x in held], len(gc.get_objects())

    with fastopt.subnormals(False):
        for _ in range(50):
            settle(ACTS[what])
        references, objects = census()
        for _ in range(200):
            settle(ACTS[what])
        after, objects_after = census()
    assert after == references
    assert objects_after - objects < 50


def used() -> fastopt.Optimizer:
    opt = fastopt.SGD([P.copy()], lr=0.1, momentum=0.9, average=0.5)
    opt.accumulate([G])
    opt.step()
    with opt.nesterov_point(), contextlib.suppress(RuntimeError):
        opt.step([G])
    with opt.averaged():
        pass
    opt.groups[0]["lr"] = 0.2
    return copy.deepcopy(opt)


def descended() -> fastopt.LBFGS:
    opt = fastopt.LBFGS([P.copy()])
    opt.step(lambda: (1.0, [G]))
    return opt


@pytest.mark.parametrize(
    "make",
    [
        kept,
        used,
        descended,
        lambda: fastopt.SAM(used()),
        lambda: fastopt.EMA([P], 0.9),
        lambda: fastopt.RunningMean([P]),
        lambda: fastopt.EarlyStopping(patience=1, params=[P], restore_best=True),
    ],
)
def test_what_is_dropped_is_freed_at_once(make: Callable[[], Any]) -> None:
    """Not when the garbage collector comes by: the state of a large model is gigabytes."""
    gc.disable()
    try:
        gone = ref(make())
        assert gone() is None
    finally:
        gc.enable()


def test_a_group_of_an_optimizer_that_is_gone() -> None:
    group = kept().groups[0]
    assert group["lr"] == 2e-3
    assert group.get("learning_rate") is None
    with pytest.raises(ReferenceError, match="the optimizer of this group is no more"):
        group["lr"] = 0.1


def test_traced_memory_is_flat() -> None:
    for _ in range(3):
        for act in ACTS.values():
            settle(act)
    gc.collect()
    tracemalloc.start()
    try:
        before = 0
        for round in range(20):
            for act in ACTS.values():
                settle(act)
            gc.collect()
            if round == 9:
                before = tracemalloc.get_traced_memory()[0]
        assert tracemalloc.get_traced_memory()[0] - before < 4096
    finally:
        tracemalloc.stop()


def test_resident_memory_is_flat_over_ten_thousand_rounds() -> None:
    """What neither Python nor NumPy counts: the core's own allocations. Each construction has state of 98 kB, so that
    one kept in a hundred shows."""
    if not Path("/proc/self/statm").exists():
        pytest.skip("resident memory is read from /proc")
    code = f"""
import contextlib, gc, resource
from pathlib import Path
import numpy as np
import fastopt
from tests.core.test_leaks import ACTS, settle
def resident():
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
p, g = np.ones(4096), np.ones(4096)
def many():
    with contextlib.suppress(ValueError):
        fastopt.Adam([p, p[:0], g, p[5:]])
    return fastopt.Adam([*np.ones((8, 512))], average=0.5)
for k in range({ROUNDS}):
    if k == {ROUNDS} // 5:
        before = resident()
    many()
    if k % 50 == 0:
        for act in ACTS.values():
            settle(act)
print(resident() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 4 << 20, f"{int(done.stdout):,} bytes more"
