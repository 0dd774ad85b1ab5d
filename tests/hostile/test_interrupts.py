"""Ctrl-C at any moment: a step is applied whole, counts and all, or not at all, and the optimizer goes on."""

from __future__ import annotations

import gc
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

import fastopt
from fastopt.core import _core
from tests.cases import CASES
from tests.hostile.interrupted import ACTS, World
from tests.lockstep import loss_of, snapshot

SOURCE = str(Path(fastopt.__file__).parent)


class Interrupt:
    """Raises KeyboardInterrupt before the k-th bytecode inside fastopt: at every place, and more, where Python handles
    a signal."""

    def __init__(self, k: float) -> None:
        self.left = k
        self.met: list[tuple[Any, int]] = []

    def __enter__(self) -> Interrupt:
        sys.settrace(self._trace)
        return self

    def __exit__(self, *error: object) -> None:
        sys.settrace(None)

    def _trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        frame.f_trace_opcodes = True
        if event == "opcode" and frame.f_code.co_filename.startswith(SOURCE):
            if len(self.met) >= self.left:
                raise KeyboardInterrupt
            self.met.append((frame.f_code, frame.f_lasti))
        return self._trace


def everything(opt: fastopt.Optimizer) -> tuple[tuple[str, bytes], ...]:
    return tuple(sorted(snapshot(opt).items()))


def distinct(met: list[Any]) -> list[int]:
    """The first and the last time that each bytecode was met."""
    first = {place: k for k, place in reversed([*enumerate(met)])}
    last = {place: k for k, place in enumerate(met)}
    return sorted({*first.values(), *last.values()})


BY_ID = {case.id: case for case in CASES}
OF_ONE_WALK = "sgd", "clip-norm", "nadam-schedule", "everything", "lion-decay"
OF_SEVERAL = (
    "lamb-stages",
    "adafactor-momentum",
    "adafactor-stages",
    "prodigy-optax",
    "prodigy-stages",
    "polyak-sgd-stages",
)
# A gradient that is missing for the first time makes the optimizer compile its programs anew: thousands of bytecodes.
COMPILE_MOST = "everything", "prodigy-stages"


@pytest.mark.parametrize(
    ("name", "missing"),
    [*((name, False) for name in (*OF_ONE_WALK, *OF_SEVERAL)), *((name, True) for name in COMPILE_MOST)],
)
def test_an_interrupt_before_any_bytecode_leaves_a_whole_step(name: str, missing: bool) -> None:
    case = BY_ID[name]
    g = {"a": np.full(5, 0.5), "b": np.full((2, 3), -0.25)}

    def two_steps() -> fastopt.Optimizer:
        opt = case.make({"a": np.ones(5), "b": np.ones((2, 3))})
        opt.step(g, **loss_of(opt))
        opt.step({**g, "b": None}, **loss_of(opt))
        return opt

    last = {**g, "a": None} if missing else g
    whole = two_steps()
    before = everything(whole)
    whole.step(last, **loss_of(whole))
    after = everything(whole)
    whole.step(g, **loss_of(whole))
    further = {after: everything(whole)}
    whole = two_steps()
    whole.step(g, **loss_of(whole))
    further[before] = everything(whole)
    opt = two_steps()
    with Interrupt(math.inf) as counted:
        opt.step(last, **loss_of(opt))
    seen = set()
    for k in distinct(counted.met):
        opt = two_steps()
        with pytest.raises(KeyboardInterrupt), Interrupt(k):
            opt.step(last, **loss_of(opt))
        found = everything(opt)
        assert found in further, f"interrupted before bytecode {k}, the step is in part"
        opt.step(g, **loss_of(opt))
        assert everything(opt) == further[found], f"interrupted before bytecode {k}, the next step is another"
        seen.add(found)
    assert seen == {before, after}


def places(met: list[Any]) -> list[int]:
    """Of `distinct` the first, the last and some between, unless FASTOPT_EXAMPLES asks for more."""
    every = distinct(met)
    some = int(os.environ.get("FASTOPT_EXAMPLES", "20"))
    return sorted({*every[:some], *every[some : -2 * some : max(1, len(every) // some)], *every[-2 * some :]})


@pytest.fixture
def frozen() -> Iterator[None]:
    """What there is already is left out of the collections of garbage, which are fast then."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


# A file that is interrupted between its opening and its `with` is closed by the garbage collector.
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.usefixtures("frozen")
@pytest.mark.parametrize("name", ACTS)
def test_an_interrupt_before_any_bytecode_leaves_what_was_or_what_is_to_be(name: str) -> None:
    make, act, go_on, otherwise, look = ACTS[name]
    whole: dict[str, str] = {}

    def anew() -> World:
        # Averages look at every optimizer there is: always the same ones.
        gc.collect()
        return make()

    for happens in (lambda world: None, act, otherwise):
        world = anew()
        happens(world)
        found = look(world)
        go_on(world)
        whole[found] = look(world)
    world = anew()
    with Interrupt(math.inf) as counted:
        act(world)
    for k in places(counted.met):
        world = anew()
        with pytest.raises(KeyboardInterrupt), Interrupt(k):
            act(world)
        found = look(world)
        assert found in whole, f"interrupted before bytecode {k}, it is done in part"
        go_on(world)
        assert look(world) == whole[found], f"interrupted before bytecode {k}, it goes on otherwise"


@pytest.mark.skipif(not _core.threads_available(), reason="this build has no threads")
@pytest.mark.parametrize("threads", [1, 3])
def test_ctrl_c_during_long_steps(threads: int) -> None:
    code = """
import random, signal, sys
import numpy as np, fastopt
signal.signal(signal.SIGALRM, signal.default_int_handler)
n, threads = 3_000_000, int(sys.argv[1])
p, g = np.zeros(n, np.float32), [np.ones(n, np.float32)]
opt = fastopt.SGD([p], lr=1.0, momentum=0.5, threads=threads)
interrupts, steps, b = 0, 0, 0.0
expected = np.float32(0)
random.seed(threads)
while interrupts < 100:
    try:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-4, 6e-3))
        while True:
            opt.step(g)
    except KeyboardInterrupt:
        interrupts += 1
    while steps < opt.t:
        b = 0.5 * b + 1
        expected -= np.float32(b)
        steps += 1
    assert p.min() == p.max() == expected, (opt.t, p.min(), p.max(), expected)
    assert opt.state["0"]["t"] == steps and float(opt.state["0"]["b"].min()) == np.float32(b)
print(interrupts)
"""
    done = subprocess.run([sys.executable, "-c", code, str(threads)], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "100", (done.returncode, done.stderr[-2000:])
