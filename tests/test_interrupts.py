"""Ctrl-C at any moment: a step is applied whole, counts and all, or not at all, and the optimizer goes on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

import fastopt
from fastopt import _core
from tests.cases import CASES, Case
from tests.lockstep import snapshot

SOURCE = str(Path(fastopt.__file__).parent)


class Interrupt:
    """Raises KeyboardInterrupt before the k-th bytecode inside fastopt: at every place, and more, where Python handles
    a signal."""

    def __init__(self, k: int) -> None:
        self.left = k

    def __enter__(self) -> Interrupt:
        sys.settrace(self._trace)
        return self

    def __exit__(self, *error: object) -> None:
        sys.settrace(None)

    def _trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        frame.f_trace_opcodes = True
        if event == "opcode" and frame.f_code.co_filename.startswith(SOURCE):
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt
        return self._trace


def everything(opt: fastopt.Optimizer) -> tuple[tuple[str, bytes], ...]:
    return tuple(sorted(snapshot(opt).items()))


WORTH_IT = [case for case in CASES if case.id in ("sgd", "nadam-schedule", "everything", "clip-norm")]


@pytest.mark.parametrize("case", WORTH_IT, ids=lambda case: case.id)
@pytest.mark.parametrize("missing", [False, True])
def test_an_interrupt_before_any_bytecode_leaves_a_whole_step(case: Case, missing: bool) -> None:
    g = {"a": np.full(5, 0.5), "b": np.full((2, 3), -0.25)}

    def two_steps() -> fastopt.Optimizer:
        opt = case.make({"a": np.ones(5), "b": np.ones((2, 3))})
        opt.step(g)
        opt.step({**g, "b": None})
        return opt

    last = {**g, "a": None} if missing else g
    whole = two_steps()
    before = everything(whole)
    whole.step(last)
    after = everything(whole)
    whole.step(g)
    further = {after: everything(whole)}
    whole = two_steps()
    whole.step(g)
    further[before] = everything(whole)
    seen = set()
    for k in range(100_000):
        opt = two_steps()
        try:
            with Interrupt(k):
                opt.step(last)
        except KeyboardInterrupt:
            found = everything(opt)
            assert found in further, f"interrupted before bytecode {k}, the step is in part"
            opt.step(g)
            assert everything(opt) == further[found], f"interrupted before bytecode {k}, the next step is another"
            seen.add(found)
        else:
            break
    assert seen == {before, after}


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
