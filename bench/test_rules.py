"""Every optimizer and stage in tests/cases.py: the kernel, a tuned NumPy version and the reference.

Disabled, as in CI, each runs a step on small arrays and its bits are compared. Enabled, a step is timed:

    ns/element   median time of a step over the number of elements
    GB/s         bytes that a step in a single pass has to move, over the median time: the parameter and each
                 state buffer read and written, the gradient read (twice where its norm is measured), the
                 average read and written. A version of many passes moves more than it is credited with.

Machines are noisy: compare numbers of one run only, as ratios. No time is asserted.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

import fastopt
from bench import ROWS
from bench.tuned import Tuned
from fastopt import _core
from fastopt.selftest import same_bits
from fastopt.tree import Array
from tests.cases import DTYPES, RULES, STAGES, Case, ordinary

PLAIN = [case for case in RULES if case.plain]
FORMS = [case for case in RULES if not case.plain]

SMALL = ["1e3", "1e4"]
LARGE = ["1e5", "1e6", "1e7"]

# Of a form only its coefficients differ from its rule's plain row.
IMPLEMENTATIONS = {
    "test_plain": ["c", "tuned", "numpy"],
    "test_stage": ["c", "tuned", "numpy"],
    "test_form": ["c", "numpy"],
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The large arrays only where something is timed. Sizes are outermost: one set of inputs is kept."""
    options = metafunc.config.option
    timed = options.benchmark_enable or not options.benchmark_disable
    cases = {"test_plain": PLAIN, "test_form": FORMS, "test_stage": STAGES}[metafunc.function.__name__]
    rows = [
        pytest.param(case, dtype, size, name, id=f"{case.id}/{np.dtype(dtype)}/{size}/{name}")
        for size in SMALL + LARGE * timed
        for dtype in DTYPES
        for case in cases
        for name in IMPLEMENTATIONS[metafunc.function.__name__]
    ]
    metafunc.parametrize("case, dtype, size, implementation", rows)


class Run(NamedTuple):
    """A step to time, and the arrays that it writes: the parameter, its state, its average."""

    step: Callable[[], Any]
    written: list[Array]
    bytes_per_element: int


def run_optimizer(case: Case, params: Array, g: Array, backend: str) -> Run:
    opt = case.make([params.copy()], backend=backend)
    return Run(functools.partial(opt.step, [g]), written(opt), bytes_per_element(opt))


def run_tuned(case: Case, params: Array, g: Array) -> Run:
    opt = case.make([params.copy()])
    state = {name: opt.state["0"][name] for name in state_buffers(opt)}
    average = None if opt.average is None else opt.averages[0]
    sign, measure = -1.0 if opt.maximize else 1.0, measures(opt)
    tuned = Tuned(program_of(case, params.dtype), opt._plan.params[0], g, state, average, sign, opt.clip_norm, measure)
    return Run(tuned.step, written(opt), bytes_per_element(opt))


def program_of(case: Case, dtype: Any) -> Any:
    """The kernels of the first step and their coefficients, which no size changes."""
    opt = case.make([np.zeros(1, dtype)], backend="numpy")
    opt.step([np.ones(1, dtype)])
    return opt._plan.programs[0]


def state_buffers(opt: fastopt.Optimizer) -> tuple[str, ...]:
    """A rule lists p, g and then its state."""
    return _core.KERNELS[opt.rule][1][2:]


def measures(opt: fastopt.Optimizer) -> bool:
    return opt.clip_norm is not None or opt.on_nonfinite is not None


def written(opt: fastopt.Optimizer) -> list[Array]:
    averages = [] if opt.average is None else opt.averages
    return [opt._plan.params[0], *(opt.state["0"][name] for name in state_buffers(opt)), *averages]


def bytes_per_element(opt: fastopt.Optimizer) -> int:
    """What one pass has to move: all that is written is also read, and the gradient read."""
    arrays = written(opt)
    return arrays[0].itemsize * (2 * len(arrays) + 1 + measures(opt))


RUNS = {
    "c": functools.partial(run_optimizer, backend="c"),
    "tuned": run_tuned,
    "numpy": functools.partial(run_optimizer, backend="numpy"),
}


@functools.lru_cache(maxsize=1)
def inputs(dtype: Any, size: str) -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    n = int(float(size))
    return ordinary(rng, n, dtype), ordinary(rng, n, dtype)


def check_first_step(run: Run, case: Case, size: str, implementation: str, params: Array, g: Array) -> None:
    """Nothing is timed that computes something else."""
    run.step()
    assert all(np.isfinite(a).all() for a in run.written)
    if implementation == "tuned":
        kernel = run_optimizer(case, params, g, "c")
    elif implementation == "c" and size in SMALL:
        kernel = run_optimizer(case, params, g, "numpy")
    else:
        return
    kernel.step()
    for a, b in zip(run.written, kernel.written, strict=True):
        if implementation == "tuned" and case.kwargs.get("clip_norm"):
            # BLAS adds up the norm in another order.
            assert np.abs(a - b).max() <= {4: 1e-4, 8: 1e-12}[a.itemsize] * np.abs(b).max()
        else:
            assert same_bits(a, b)


def check_and_time(
    benchmark: Any, config: pytest.Config, case: Case, dtype: Any, size: str, implementation: str
) -> None:
    params, g = inputs(np.dtype(dtype), size)
    run = RUNS[implementation](case, params, g)
    check_first_step(run, case, size, implementation, params, g)
    benchmark.group = f"{case.id}/{np.dtype(dtype)}/{size}"
    benchmark(run.step)
    assert all(np.isfinite(a).all() for a in run.written)
    if benchmark.disabled:
        return
    ns = benchmark.stats.stats.median * 1e9 / params.size
    benchmark.extra_info.update(
        {
            "elements": params.size,
            "bytes/element": run.bytes_per_element,
            "ns/element": ns,
            "GB/s": run.bytes_per_element / ns,
            "isa": _core.active_isa(),
        }
    )
    rows = config.stash.setdefault(ROWS, {})
    rows.setdefault(benchmark.group, {})[implementation] = (ns, run.bytes_per_element / ns)


# A round lasts at least 0.1 ms, so that the clock does not count; the largest sizes get the fewest rounds.
timed = pytest.mark.benchmark(min_time=1e-4, max_time=0.1, min_rounds=5)


@timed
def test_plain(benchmark: Any, pytestconfig: Any, case: Case, dtype: Any, size: str, implementation: str) -> None:
    check_and_time(benchmark, pytestconfig, case, dtype, size, implementation)


@timed
def test_form(benchmark: Any, pytestconfig: Any, case: Case, dtype: Any, size: str, implementation: str) -> None:
    check_and_time(benchmark, pytestconfig, case, dtype, size, implementation)


@timed
def test_stage(benchmark: Any, pytestconfig: Any, case: Case, dtype: Any, size: str, implementation: str) -> None:
    check_and_time(benchmark, pytestconfig, case, dtype, size, implementation)
