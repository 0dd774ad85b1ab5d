"""Memory: nothing is touched outside the buffers, however they lie, and what became of them is noticed."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import weakref
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import fastopt
from fastopt.app.selftest import same_bits
from fastopt.around.accumulation import Accumulation
from fastopt.core import _core
from tests.cases import CASES, DTYPES, ordinary
from tests.lockstep import snapshot

every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)


ATTACKS = "kernels", "factors", "steps", "matrices", "groups", "layouts", "refusals"


def attack(module: str, name: str, isa: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module, name],
        env={**os.environ, "FASTOPT_ISA": isa},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize("isa", _core.isas())
@pytest.mark.parametrize(
    ("module", "name"),
    [
        *(("tests.hostile.guarded", name) for name in ATTACKS),
        *(("tests.hostile.guarded_losses", name) for name in ("kernels", "threads", "losses", "vectors", "classes")),
    ],
)
def test_between_guard_pages(module: str, name: str, isa: str) -> None:
    done = attack(module, name, isa)
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
    assert done.stdout.strip().endswith(f"between guards, on {isa}")


def test_the_guards_guard() -> None:
    assert attack("tests.hostile.guarded", "beyond", "baseline").returncode == -signal.SIGSEGV


@every_dtype
def test_an_overlap_of_one_element_anywhere_is_refused(dtype: Any) -> None:
    memory = np.ones(64, dtype)
    for n, m in [(1, 1), (7, 20), (20, 7), (30, 30)]:
        first = memory[:n]
        for start in (0, n - 1):
            with pytest.raises(ValueError, match="'0' and '1' overlap"):
                fastopt.Adam([first, memory[start : start + m]])
        assert fastopt.Adam([first, memory[n : n + m]]).names == ("0", "1")


@every_dtype
def test_a_gradient_of_one_written_element_is_refused(dtype: Any) -> None:
    """It shares its first or its last element with a parameter, a state buffer or an average, in any layout."""
    memory = np.ones(300, dtype)
    opt = fastopt.NAdam({"p": memory[100:200], "q": np.ones(4, dtype)}, average=0.5)
    good = np.ones(100, dtype)
    for written in (memory[100:200], *opt._engine.plan.states[0], opt._engine.plan.averages[0]):
        around = np.lib.stride_tricks.as_strided(written[:1], (1,))
        for q in (
            np.broadcast_to(around, 4),
            np.broadcast_to(written[-1:], 4),
            np.lib.stride_tricks.as_strided(written[-1:], (4,), (-written.itemsize,)),
            np.lib.stride_tricks.as_strided(written[96:], (4,), (written.itemsize,)),
        ):
            before = snapshot(opt)
            with pytest.raises(ValueError, match=r"'q' shares memory with .*'p'"):
                opt.step({"p": good, "q": q})
            assert snapshot(opt) == before
    assert opt.step({"p": good, "q": memory[96:100]}).applied
    assert opt.step({"p": good, "q": memory[200:204]}).applied


def test_parameters_gradients_and_state_outlive_their_names() -> None:
    params = [np.ones(50_000) for _ in range(3)]
    alive = [weakref.ref(p) for p in params]
    opt = fastopt.Adam(params, average=0.9)
    views = [opt.state["0"]["m"], opt.averages[1]]
    del params
    gc.collect()
    for _ in range(3):
        assert opt.step([np.ones(50_000) for _ in range(3)]).applied
    assert all(ref() is not None for ref in alive)
    del opt
    gc.collect()
    assert all(ref() is None for ref in alive)
    assert [float(view.sum()) for view in views] == pytest.approx([50_000 * (1 - 0.9**3), 50_000], rel=1e-2)


def resized(p: Any) -> None:
    p.resize(100_000, refcheck=False)


def shrunk(p: Any) -> None:
    p.resize(10, refcheck=False)


def reinterpreted(p: Any) -> None:
    # The setter has a successor in a later NumPy than the oldest that fastopt takes.
    type(p).dtype.__set__(p, np.dtype(f"i{p.itemsize}"))


def frozen(p: Any) -> None:
    p.flags.writeable = False


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("change", [resized, shrunk, reinterpreted, frozen])
@pytest.mark.parametrize("backend", ["c", "numpy"])
@every_dtype
def test_a_parameter_that_is_changed_behind_the_optimizer_is_noticed(change: Any, backend: str, dtype: Any) -> None:
    params = {"p": np.ones(30, dtype), "q": np.ones(1000, dtype)}
    opt = fastopt.Adam(params, backend=backend)
    opt.step({name: np.ones_like(p) for name, p in params.items()})
    change(params["q"])
    before = snapshot(opt)
    grads = {name: np.ones_like(p) for name, p in params.items()}
    with pytest.raises(ValueError, match=r"'q' has (another size, dtype or place|become read-only)"):
        opt.step(grads)
    with pytest.raises(ValueError, match=r"'q' has (another size, dtype or place|become read-only)"):
        opt.add_group({"params": {"r": np.ones(3, dtype)}})
    assert snapshot(opt) == before
    grads["q"] = None
    assert opt.step(grads).applied


@pytest.mark.parametrize("change", [resized, shrunk, frozen])
def test_averages_notice_it_too(change: Any) -> None:
    params = {"p": np.ones(30), "q": np.ones(1000)}
    for average in (fastopt.EMA(params, 0.5), fastopt.RunningMean(params)):
        average.update()
        average.update()
    change(params["q"])
    before = average.averages["q"].tobytes()
    with pytest.raises(ValueError, match=r"'q' has (another size, dtype or place|become read-only)"):
        average.update()
    assert average.averages["q"].tobytes() == before


@pytest.mark.parametrize("change", [resized, shrunk, frozen])
def test_what_displaces_parameters_notices_it_too(change: Any) -> None:
    params = {"p": np.ones(30), "q": np.ones(1000)}
    opt, ema = fastopt.SGD(params, lr=0.1, momentum=0.9, average=0.5), fastopt.EMA(params, 0.5)
    sam = fastopt.SAM(opt)
    grads = {name: np.ones_like(p) for name, p in params.items()}
    change(params["q"])
    before = params["p"].tobytes()
    for begin in (opt.nesterov_point().__enter__, opt.averaged().__enter__, ema.swap, lambda: sam.first_step(grads)):
        for _ in range(2):
            with pytest.raises(ValueError, match=r"'q' has (another size, dtype or place|become read-only)"):
                begin()
    assert params["p"].tobytes() == before


@pytest.mark.parametrize("change", [resized, shrunk])
@pytest.mark.parametrize("which", ["parameter", "gradient"])
def test_what_a_schedule_resizes_is_noticed(change: Any, which: str) -> None:
    """A schedule is a program's own code, which runs inside the step, before anything is written."""
    p, g = np.ones(1000), np.ones(1000)

    def schedule(t: int) -> float:
        if t == 1:
            change(p if which == "parameter" else g)
        return 0.5

    makers: list[Any] = [
        lambda: fastopt.SGD([p], lr=schedule).step,
        lambda: fastopt.SAM(fastopt.SGD([p], lr=0.1), rho=schedule).first_step,
    ]
    for make in makers:
        p, g = np.ones(1000), np.ones(1000)
        step = make()
        step([g])
        if make is makers[1]:
            step.__self__.second_step([g])
        with pytest.raises(ValueError, match=r"has another size|has shape|could not broadcast"):
            step([g])
    ema = fastopt.EMA(p := np.ones(1000), schedule)
    ema.update()
    ema.update()
    if which == "parameter":
        with pytest.raises(ValueError, match="has another size"):
            ema.update()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_shape_of_a_gradient_may_be_set_while_it_is_read() -> None:
    """Its shape and strides are then freed, and are soon those of another array."""
    n = 200_000
    g, p, expected, stop = np.arange(3.0 * n)[::3], np.zeros(n), np.zeros(n), threading.Event()

    def attack() -> None:
        while not stop.is_set():
            type(g).shape.__set__(g, (n,))
            assert len([np.empty(5) for _ in range(20)]) == 20

    opt, other = fastopt.SGD([p], lr=0.1), fastopt.SGD([expected], lr=0.1)
    attacker = threading.Thread(target=attack)
    attacker.start()
    try:
        for _ in range(50):
            opt.step([g])
            assert fastopt.clip_grad_norm_(g, 1e30) > 0
    finally:
        stop.set()
        attacker.join()
    for _ in range(50):
        other.step([g])
    assert same_bits(p, expected)


def test_a_plan_takes_only_buffers_of_its_parameters_sizes() -> None:
    """Another thread may have resized a parameter since its state was made."""
    p, none = np.ones(5), ((),)
    for wrong in (np.ones(4), np.ones(6), np.ones(5, np.float32)):
        with pytest.raises(ValueError, match="'w' was given another size or dtype"):
            _core.Plan(p, ("w",), (p,), none, (wrong,), True)
        with pytest.raises(ValueError, match="'w' was given another size or dtype"):
            _core.Plan(p, ("w",), (p,), ((wrong,),), (None,), True)
    with pytest.raises(TypeError, match="int64"):
        _core.norm([np.ones(5, np.int64)], "sum_abs")


def test_an_accumulation_is_one_thread_s_throughout(monkeypatch: pytest.MonkeyPatch) -> None:
    opt = fastopt.SGD([np.ones(3), np.ones(2)], lr=0.1)
    opt.accumulate([np.ones(3), np.ones(2)])
    filled, refused = Accumulation._filled, []

    def meanwhile(self: Accumulation, given: Any) -> Any:
        with pytest.raises(RuntimeError, match="inside a step already") as error:
            self.plan.admit([np.ones(3), np.ones(2)], list)
        refused.append(error)
        return filled(self, given)

    monkeypatch.setattr(Accumulation, "_filled", meanwhile)
    assert opt.accumulate([None, np.ones(2)]) == 2
    assert len(refused) == 1
    opt.step()
    assert opt._engine.plan.params[0].tolist() == pytest.approx([0.95] * 3)


def test_resize_is_refused_of_what_the_optimizer_holds() -> None:
    p, g = np.ones(10), np.ones(10)
    seen: list[str] = []

    def schedule(t: int) -> float:
        for a in (g, p, opt.state["0"]["m"], opt.averages[0]):
            try:
                a.resize(100_000)
            except ValueError as error:
                seen.append(str(error))
        return 0.1

    opt = fastopt.Adam([p], lr=schedule, average=0.5)
    assert opt.step([g]).applied
    assert len(seen) == 4
    for a in (opt.state["0"]["m"], opt.averages[0]):
        with pytest.raises(ValueError, match="cannot resize this array"):
            a.resize(100_000, refcheck=False)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
@every_dtype
def test_no_state_lies_over_anything_else(case: Any, dtype: Any) -> None:
    rng = np.random.default_rng(0)
    shapes = [(), (0,), (1,), (3, 5), (17,), (2, 3, 4), (1025,)]
    opt = case.make([ordinary(rng, shape, dtype) for shape in shapes])
    plan = opt._engine.plan
    arrays = [*plan.params, *(a for buffers in plan.states for a in buffers)]
    arrays += [a for a in plan.averages if a is not None]
    spans = sorted((a.ctypes.data, a.ctypes.data + a.nbytes) for a in arrays if a.size)
    assert all(low >= high for (_, high), (low, _) in pairwise(spans))
