"""Instruction sets, the environment, subnormals, and what a step leaves behind in the process."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import subprocess
import sys
import threading
import tracemalloc
from typing import Any

import numpy as np
import pytest

import fastopt
from fastopt.core import _core
from fastopt.core import machine as runtime
from tests.cases import CASES
from tests.lockstep import loss_of


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, timeout=60
    )


def test_info_names_everything() -> None:
    info = fastopt.info()
    assert info.version == fastopt.__version__
    assert info.isa in info.isa_available
    assert info.compiler.startswith(("gcc", "clang"))
    for word in (info.version, info.compiler, "-ffp-contract=off", info.isa, "threads"):
        assert word in str(info)


def test_a_build_without_threads_has_one_whatever_is_asked_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    before = _core.default_threads(), runtime._threads_why
    monkeypatch.setattr(_core, "threads_available", lambda: False)
    try:
        fastopt.set_num_threads(5)
        assert fastopt.info()[-2:] == (1, "this build has no threads")
    finally:
        monkeypatch.undo()
        runtime._use_threads(*before)


@pytest.mark.parametrize("isa", _core.isas())
def test_an_instruction_set_can_be_forced(isa: str) -> None:
    done = python("import fastopt; i = fastopt.info(); print(i.isa, i.isa_why)", FASTOPT_ISA=isa)
    assert done.stdout.strip() == f"{isa} FASTOPT_ISA={isa}", done.stderr


def test_an_empty_variable_forces_nothing() -> None:
    assert python("import fastopt; print(fastopt.info().isa)", FASTOPT_ISA="").stdout.strip() == _core.isas()[-1]


@pytest.mark.parametrize("name", ["avx9000", "AVX2", "sse"])
def test_a_forced_instruction_set_that_is_not_there_is_an_error(name: str) -> None:
    done = python("import fastopt", FASTOPT_ISA=name)
    assert done.returncode == 1
    assert f"ValueError: instruction set '{name}' is not to be had" in done.stderr
    assert "baseline" in done.stderr


def test_an_instruction_set_that_the_cpu_lacks_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    everything = {"baseline", "avx2", "avx512"}
    for missing in everything - set(_core.isas()):
        with pytest.raises(ValueError, match="not to be had"):
            _core.use_isa(missing)
    with pytest.raises(ValueError, match="not to be had"):
        _core.use_isa("nonsense")


def test_selftest_passes() -> None:
    report = fastopt.selftest()
    assert report, str(report)
    assert report.isas == _core.isas()
    assert "passed" in str(report)


def slightly(function: Any) -> Any:
    """The same, but for the last bits of what it returns or writes."""

    @functools.wraps(function)
    def wrong(*given: Any) -> Any:
        found = function(*given)
        for a in given:
            if isinstance(a, np.ndarray):
                a *= a.dtype.type(1 + 1e-6)
        return tuple(x * (1 + 1e-15) for x in found) if isinstance(found, tuple) else found and found * (1 + 1e-15)

    return wrong


@pytest.mark.parametrize("name", ["sgd", *_core.SUMS, *_core.SCALARS, "adafactor_factors", "line_sums"])
def test_selftest_can_fail(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["fastopt.app.selftest"], "LENGTHS", (17,))
    monkeypatch.setattr(fastopt.reference, name, slightly(getattr(fastopt.reference, name)))
    report = fastopt.selftest()
    assert not report
    assert any(failure.startswith("Adafactor" if name == "line_sums" else f"{name}:") for failure in report.failures)
    assert "FAILED" in str(report)


def test_import_leaves_the_control_word_alone() -> None:
    code = """
import ctypes, sys
import numpy as np
before = np.float32(1e-40) * np.float32(1)
import fastopt
from fastopt.core import _core
word = _core.control_word()
fastopt.Adam([np.ones(5)]).step([np.ones(5)])
assert _core.control_word() & 0x8040 == 0 and word & 0x8040 == 0 or sys.platform == "darwin"
assert np.float32(1e-40) * np.float32(1) == before != 0
print("ok")
"""
    assert python(code).stdout.strip() == "ok"


@pytest.mark.parametrize("flush", [True, False])
@pytest.mark.parametrize("backend", ["c", "numpy"])
@pytest.mark.parametrize("outside", [True, False])
def test_a_step_restores_the_control_word(flush: bool, backend: str, outside: bool) -> None:
    opt = fastopt.Adam([np.ones(5)], flush_subnormals=flush, backend=backend, on_nonfinite="raise")
    with fastopt.subnormals(outside):
        before = _core.control_word()
        opt.step([np.ones(5)])
        assert _core.control_word() == before
        with pytest.raises(ValueError, match="nan"):
            opt.step([np.full(5, np.nan)])
        with pytest.raises(ValueError, match="shape"):
            opt.step([np.ones(4)])
        fastopt.clip_grad_norm_(np.ones(5), 0.1)
        assert _core.control_word() == before


def test_flushing_is_inside_the_step_only() -> None:
    tiny = np.float32(1e-40)
    for backend in ("c", "numpy"):
        kept, flushed = np.full(40, tiny), np.full(40, tiny)
        zero = np.zeros(40, np.float32)
        fastopt.SGD([kept], lr=1.0, flush_subnormals=False, backend=backend).step([zero])
        fastopt.SGD([flushed], lr=1.0, backend=backend).step([zero])
        assert kept.tolist() == [float(tiny)] * 40
        assert flushed.tolist() == [0.0] * 40
        assert tiny * np.float32(1) == tiny


def test_subnormals_nests_and_survives_exceptions() -> None:
    x = np.float32(1e-40)
    one = np.float32(1)
    with fastopt.subnormals():
        with contextlib.suppress(KeyError), fastopt.subnormals(False):
            kept = x * one
            raise KeyError
        assert kept == x
        assert x * one == 0
    mode = fastopt.subnormals()
    with mode:
        assert x * one == 0
        with mode:
            assert x * one == 0
        assert x * one == 0
    assert x * one == x


@pytest.mark.parametrize(
    "inside", ["np.finfo(np.float32), np.finfo(np.float64)", "fastopt.selftest()", "np.isclose(1.0, 1.0), np.testing"]
)
def test_numpy_knows_its_limits_before_subnormals_are_flushed(inside: str) -> None:
    code = f"""
import numpy as np, fastopt
with fastopt.subnormals():
    {inside}
print(np.finfo(np.float32).smallest_subnormal, np.finfo(np.float64).smallest_subnormal)
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout.split() == ["1e-45", "5e-324"]


def test_the_mode_is_per_thread() -> None:
    x = np.float32(1e-40)
    seen: list[Any] = []
    with fastopt.subnormals():
        fresh = threading.Thread(target=lambda: seen.append(_core.control_word()))
        fresh.start()
        fresh.join()
        assert x * np.float32(1) == 0
    assert len(seen) == 1


def test_a_step_keeps_no_memory() -> None:
    """What Python keeps for the next dict, 3.10 most of all, grows once; what a step keeps, in every round."""
    params = [np.ones(1000, np.float32) for _ in range(20)]
    grads = [np.ones(1000, np.float32) for _ in range(20)]
    for case in CASES:
        opt = case.make(params)
        tracemalloc.start()
        held = []
        for _ in range(4):
            for _ in range(300):
                opt.step(grads, **loss_of(opt))
            held.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
        assert min(b - a for a, b in itertools.pairwise(held)) < 300, (case.id, held)


def test_gradients_are_let_go_after_a_step() -> None:
    opt = fastopt.Adam([np.ones(5)])
    g = np.ones(5)
    before = sys.getrefcount(g)
    opt.step([g])
    assert sys.getrefcount(g) == before
    with pytest.raises(ValueError, match="shape"):
        opt.step([np.ones(4)])
    assert opt._engine.plan.grads == [None]


def test_the_gil_is_released_during_a_long_step() -> None:
    n = 3_000_000
    opt, g = fastopt.Adam([np.ones(n, np.float32)], clip_norm=1.0), [np.ones(n, np.float32)]
    opt.step(g)
    ticks, stop = [0], threading.Event()

    def tick() -> None:
        while not stop.is_set():
            ticks[0] += 1

    ticker = threading.Thread(target=tick, daemon=True)
    ticker.start()
    try:
        opt._engine.plan.admit(g, list)
        before = ticks[0]
        for _ in range(30):
            opt._engine.plan.run()
        assert ticks[0] > before
    finally:
        stop.set()
        opt._engine.plan.release()
        ticker.join()


def test_one_optimizer_in_two_threads_at_once_is_refused() -> None:
    n = 2_000_000
    p, g = np.ones(n, np.float32), [np.ones(n, np.float32)]
    opt = fastopt.Adam([p])
    outcomes: list[Any] = []

    def steps() -> None:
        for _ in range(20):
            try:
                outcomes.append(opt.step(g).applied)
            except RuntimeError as error:
                outcomes.append(str(error))

    threads = [threading.Thread(target=steps) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    applied = outcomes.count(True)
    assert opt.t == applied == opt.state["0"]["t"]
    assert {x for x in outcomes if x is not True} <= {
        "this optimizer is inside a step already, or is being read: do one thing at a time"
    }
    assert len({*p.tolist()}) == 1
    assert opt.step(g).applied


def test_a_step_inside_a_schedule_is_refused() -> None:
    def schedule(t: int) -> float:
        opt.step([np.ones(2)])
        return 0.1

    opt = fastopt.SGD([np.ones(2)], lr=schedule)
    with pytest.raises(RuntimeError, match="inside a step already"):
        opt.step([np.ones(2)])
    opt.lr = 0.5
    assert opt.step([np.ones(2)]).applied
