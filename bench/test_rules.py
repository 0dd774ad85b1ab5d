"""Every optimizer and stage in tests/cases.py: the kernel, a tuned NumPy version and the reference.

Disabled, as in CI, each takes a step on small arrays and its bits are compared. Enabled, a step is timed:

    ns/element   median time of a step over the number of elements
    GB/s         bytes that a single pass has to move, over the median time: the parameter, each state buffer
                 and the average read and written, the gradient read, twice where its norm is measured. A
                 version of many passes moves more than it is credited with.

"c" is the kernel on the calling thread, "threads" on as many as fastopt.info() says, "tuned" bench/tuned.py and
"numpy" the reference behind backend="numpy". Machines are noisy: compare numbers of one run only, as ratios.
No time is asserted.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import pytest

import fastopt
from bench import ROWS, tuned
from bench.tuned import Tuned
from fastopt import reference
from fastopt.app.selftest import same_bits
from fastopt.base.tree import Array
from fastopt.core import _core
from tests.cases import DTYPES, RULES, STAGES, Case, ordinary
from tests.lockstep import loss_of

SMALL = ["1e3", "1e4"]
LARGE = ["1e5", "1e6", "1e7"]

# Of a form only its coefficients differ from its rule's plain row: it needs no NumPy of its own.
CASES = {
    "test_plain": [case for case in RULES if case.plain],
    "test_form": [case for case in RULES if not case.plain],
    "test_stage": STAGES,
}
IMPLEMENTATIONS = {
    "test_plain": ["c", "threads", "tuned", "numpy"],
    "test_form": ["c", "numpy"],
    "test_stage": ["c", "tuned", "numpy"],
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Large arrays and threads only where something is timed. Sizes are outermost: one set of inputs is kept."""
    options, kind = metafunc.config.option, metafunc.function.__name__
    enabled = options.benchmark_enable or not options.benchmark_disable
    rows = [
        pytest.param(case, dtype, size, name, id=f"{case.id}/{np.dtype(dtype)}/{size}/{name}")
        for size in SMALL + LARGE * enabled
        for dtype in DTYPES
        for case in CASES[kind]
        for name in IMPLEMENTATIONS[kind]
        if name != "threads" or (size in LARGE and fastopt.info().threads > 1)
        if name != "tuned" or is_tuned(case)
    ]
    metafunc.parametrize("case, dtype, size, implementation", rows)


def is_tuned(case: Case) -> bool:
    """A new rule is timed against its reference before anybody tunes its NumPy."""
    opt = case.make([np.zeros(1)])
    (cohort,) = opt._engine.cohorts
    in_its_type = case.kwargs.get("average_dtype") is None
    return not case.lookahead and in_its_type and len(cohort.form.passes) == 1 and hasattr(tuned, opt.rule)


class Run(NamedTuple):
    """A step to time, the arrays that it writes, and what a single pass moves."""

    step: Callable[[], Any]
    written: list[Array]
    bytes_per_step: int


def run_optimizer(case: Case, params: Array, g: Array, backend: str = "c", threads: int | None = 1) -> Run:
    p = params.copy()
    opt = case.make([p], backend=backend, threads=threads)
    return Run(functools.partial(opt.step, [g], **loss_of(opt)), written(opt, p), opt.bytes_per_step)


def run_tuned(case: Case, params: Array, g: Array) -> Run:
    p = params.copy()
    opt = case.make([p])
    arrays = written(opt, p)
    buffers = dict(zip([*state_buffers(opt), "average"], arrays[1:], strict=False))
    sign, measure = -1.0 if opt.maximize else 1.0, opt.clip_norm is not None or opt.on_nonfinite is not None
    by_hand = Tuned(program_of(case, p.dtype), p, g, buffers, sign, opt.clip_norm, measure)
    return Run(by_hand.step, arrays, opt.bytes_per_step)


RUNS: dict[str, Callable[[Case, Array, Array], Run]] = {
    "c": run_optimizer,
    "threads": functools.partial(run_optimizer, threads=None),
    "tuned": run_tuned,
    "numpy": functools.partial(run_optimizer, backend="numpy"),
}


def written(opt: fastopt.Optimizer, p: Array) -> list[Array]:
    """All that a step writes: the parameter, its state, its average."""
    averages = [] if opt.average is None else opt.averages
    return [p, *(opt.state["0"][name] for name in state_buffers(opt)), *averages]


def state_buffers(opt: fastopt.Optimizer) -> tuple[str, ...]:
    """A rule lists p, g and then its state."""
    return _core.KERNELS[opt.rule][1][2:]


def program_of(case: Case, dtype: Any) -> list[tuple[str, dict[str, float]]]:
    """The kernels of a first step with their coefficients, as backend="numpy" calls them, without the loading."""
    program: list[tuple[str, dict[str, float]]] = []

    def record(name: str) -> Callable[..., None]:
        _, buffers, coefs = _core.KERNELS[name]
        return lambda *arguments: program.append((name, dict(zip(coefs, arguments[len(buffers) :], strict=True))))

    opt = case.make([np.zeros(1, dtype)], backend="numpy")
    with mock.patch.multiple(reference, **{name: record(name) for name in _core.KERNELS}):
        opt.step([np.ones(1, dtype)], **loss_of(opt))
    return [call for call in program if call[0] != "scale"]


@functools.lru_cache(maxsize=1)
def inputs(dtype: Any, size: str) -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    n = int(float(size))
    return ordinary(rng, n, dtype), ordinary(rng, n, dtype)


def check_first_step(run: Run, case: Case, size: str, implementation: str, params: Array, g: Array) -> None:
    """Nothing is timed that computes something else. At large sizes the reference vouches for itself."""
    run.step()
    if implementation == "numpy" or (implementation == "c" and size in LARGE):
        return
    other = run_optimizer(case, params, g, backend="numpy" if implementation == "c" else "c")
    other.step()
    for a, b in zip(run.written, other.written, strict=True):
        if implementation == "tuned" and case.kwargs.get("clip_norm"):
            # BLAS adds up the norm in another order.
            assert np.abs(a - b).max() <= {4: 1e-4, 8: 1e-12}[a.itemsize] * np.abs(b).max()
        else:
            assert same_bits(a, b)


def check_and_time(benchmark: Any, case: Case, dtype: Any, size: str, implementation: str) -> None:
    params, g = inputs(np.dtype(dtype), size)
    run = RUNS[implementation](case, params, g)
    check_first_step(run, case, size, implementation, params, g)
    benchmark.group = f"{case.id}/{np.dtype(dtype)}/{size}"
    benchmark(run.step)
    assert all(np.isfinite(a).all() for a in run.written)
    if benchmark.disabled:
        return
    ns = benchmark.stats.stats.median * 1e9 / params.size
    weight = run.bytes_per_step // params.size
    speed = weight / ns
    benchmark.extra_info |= {
        "elements": params.size, "bytes/element": weight, "ns/element": ns, "GB/s": speed,
        "isa": _core.active_isa(), "threads": fastopt.info().threads if implementation == "threads" else 1,
    }  # fmt: skip
    ROWS.setdefault(benchmark.group, {})[implementation] = (ns, speed)


# A round lasts at least 0.1 ms, so that the clock does not count; slow steps get five rounds.
timed = pytest.mark.benchmark(min_time=1e-4, max_time=0.1, min_rounds=5)


@timed
def test_plain(benchmark: Any, case: Case, dtype: Any, size: str, implementation: str) -> None:
    check_and_time(benchmark, case, dtype, size, implementation)


@timed
def test_form(benchmark: Any, case: Case, dtype: Any, size: str, implementation: str) -> None:
    check_and_time(benchmark, case, dtype, size, implementation)


@timed
def test_stage(benchmark: Any, case: Case, dtype: Any, size: str, implementation: str) -> None:
    check_and_time(benchmark, case, dtype, size, implementation)
