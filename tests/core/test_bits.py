"""Promise 1: kernel and NumPy reference agree bit for bit, for every case, type and instruction set."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

import fastopt
from fastopt import reference
from fastopt.core import _core
from fastopt.reference import losses as reference_losses
from tests.cases import (
    CASES,
    DTYPES,
    LENGTHS,
    SPECIAL,
    WITH_SUMS_OF_ALL,
    Case,
    awkward_gradients,
    misaligned,
    ordinary,
    sprinkled,
)
from tests.lockstep import assert_same_bits, copies, loss_of, same_report, written

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)
every_flush = pytest.mark.parametrize("flush", [True, False], ids=["flush", "keep"])


ISAS = _core.isas()


@contextmanager
def on(isa: str) -> Iterator[None]:
    before = _core.active_isa()
    _core.use_isa(isa)
    try:
        yield
    finally:
        _core.use_isa(before)


class Everywhere:
    """A kernel's optimizer on each instruction set that this CPU has, and one reference for all of them."""

    def __init__(self, case: Case, params: Callable[[], Any], **more: Any) -> None:
        self.ours = {isa: case.make(params(), **more) for isa in ISAS}
        self.theirs = case.make(params(), backend="numpy", **more)

    def step(self, g: Any) -> None:
        """One step of all: the same report or the same refusal, and the same bits."""
        loss = loss_of(self.theirs)
        try:
            expected = self.theirs.step(g, **loss)
        except fastopt.NonFiniteError:
            expected = None
        for isa, opt in self.ours.items():
            with on(isa):
                if expected is None:
                    with pytest.raises(fastopt.NonFiniteError):
                        opt.step(g, **loss)
                else:
                    assert same_report(opt.step(g, **loss), expected), isa
            assert_same_bits(opt, self.theirs, isa)

    def scatter(self, make: Callable[[Any], Any]) -> None:
        """Puts what `make` gives of an array in place of all that a step writes, the same everywhere."""
        for name, a in written(self.theirs).items():
            a[...] = make(a)
            for opt in self.ours.values():
                written(opt)[name][...] = a


def run_everywhere(case: Case, params: Any, gradients: list[Any], **more: Any) -> Everywhere:
    """Steps kernels and reference over the same gradients, comparing after each step."""
    found = Everywhere(case, lambda: copies(params), **more)
    for g in gradients:
        found.step(g)
    return found


@every_case
@every_dtype
def test_every_length(case: Case, dtype: Any) -> None:
    rng = np.random.default_rng(1)
    params = [ordinary(rng, n, dtype) for n in LENGTHS]
    gradients = [[ordinary(rng, n, dtype) for n in LENGTHS] for _ in range(3)]
    assert run_everywhere(case, params, gradients).theirs.t == 3


@every_case
@every_dtype
@every_flush
@pytest.mark.parametrize("kinds", [*SPECIAL, "all"])
def test_special_values_in_every_input(case: Case, dtype: Any, flush: bool, kinds: str) -> None:
    """NaN, infinities, signed zeros, subnormals and extremes in parameters, gradients and state."""
    rng = np.random.default_rng(2)
    chosen = tuple(SPECIAL) if kinds == "all" else (kinds,)
    lengths = [1, 16, 67, 131, _core.CHUNK + 17, (6, 11)]

    def arrays() -> list[Any]:
        return [sprinkled(rng, n, dtype, *chosen) for n in lengths]

    def gradients() -> list[Any]:
        if case.optimizer not in WITH_SUMS_OF_ALL:
            return arrays()
        # Others are refused.
        return [np.where(np.isfinite(g), g, dtype(1)) for g in arrays()]

    params = arrays()
    everywhere = Everywhere(case, lambda: copies(params), flush_subnormals=flush)
    for step in range(4):
        if step % 2:
            # Two steps from a state that no sequence of steps would reach: every buffer gets special values.
            everywhere.scatter(lambda a: sprinkled(rng, a.shape, dtype, *chosen))
        everywhere.step(gradients())


@every_case
@every_dtype
def test_every_alignment(case: Case, dtype: Any) -> None:
    rng = np.random.default_rng(3)
    params = [ordinary(rng, 67, dtype) for _ in range(16)]
    everywhere = Everywhere(case, lambda: [misaligned(p, k) for k, p in enumerate(params)])
    for _ in range(2):
        everywhere.step([misaligned(ordinary(rng, 67, dtype), (5 * k) % 16) for k in range(16)])


@every_case
@every_dtype
@pytest.mark.parametrize("order", ["C", "F"])
def test_every_layout_of_the_gradient(case: Case, dtype: Any, order: Any) -> None:
    rng = np.random.default_rng(4)
    shapes = [(5, 7), (40, 70), (1, 1030), (1030, 1)]
    gradients = {
        f"{layout} of {shape}": g
        for shape in shapes
        for layout, g in awkward_gradients(ordinary(rng, shape, dtype)).items()
    }
    params = {name: np.asarray(ordinary(rng, g.shape, dtype), order=order) for name, g in gradients.items()}
    before = {name: g.copy() for name, g in gradients.items()}
    everywhere = run_everywhere(case, params, [gradients, gradients])
    same = case.make(copies(params))
    for _ in range(2):
        same.step({name: np.array(g, order=order) for name, g in gradients.items()}, **loss_of(same))
    assert_same_bits(same, everywhere.theirs)
    assert [name for name, g in gradients.items() if not np.array_equal(g, before[name])] == [], (
        "gradients were written"
    )


@every_dtype
def test_many_dimensions(dtype: Any) -> None:
    rng = np.random.default_rng(5)
    case = next(case for case in CASES if case.id == "everything")
    for shape in [(), (1,), (0,), (3, 0, 2), (2, 3, 4), (3, 1, 2, 5), (7, 5, 3, 2, 11)]:
        for order in ("C", "F"):
            p = np.asarray(ordinary(rng, shape, dtype), order=order)
            g = ordinary(rng, shape[::-1], dtype).T
            h = np.moveaxis(ordinary(rng, (*shape[1:], *shape[:1]), dtype), -1, 0) if shape else g
            run_everywhere(case, [p], [[g], [h]])


def test_mixed_dtypes_and_orders_in_one_optimizer() -> None:
    rng = np.random.default_rng(6)
    for case in CASES:
        params = {
            "single": ordinary(rng, 100, np.float32),
            "double": ordinary(rng, 100, np.float64),
            "fortran": np.asfortranarray(ordinary(rng, (30, 40), np.float32)),
        }
        g = [{k: ordinary(rng, p.shape, p.dtype) for k, p in params.items()} for _ in range(3)]
        g[1]["double"] = None
        run_everywhere(case, params, g)


def digest(**more: Any) -> str:
    """One digest of everything that a run over all cases, types and stages leaves behind."""
    rng = np.random.default_rng(7)
    found = hashlib.sha256()
    for case in CASES:
        for dtype in DTYPES:
            # Matrices of several bands of rows, of rows longer than a block, and several of them.
            shapes = [1, 17, 130, 3 * _core.CHUNK + 5, (200, 30), (3, _core.CHUNK + 7), (2, 65, 4)]
            opt = case.make([ordinary(rng, shape, dtype) for shape in shapes], **more)
            for _ in range(5):
                opt.step([ordinary(rng, shape, dtype) * dtype(1e-3) for shape in shapes], **loss_of(opt))
            for name, a in written(opt).items():
                found.update(name.encode() + a.tobytes())
    return found.hexdigest()


@pytest.fixture(scope="module")
def reference_digest() -> str:
    return digest(backend="numpy")


def test_one_digest_for_every_backend_and_isa(reference_digest: str, isa: str) -> None:
    assert digest() == reference_digest


def test_one_digest_with_memory_asked_for_ahead(reference_digest: str, isa: str) -> None:
    _core.prefetch(1)
    try:
        assert digest() == reference_digest
    finally:
        _core.prefetch(-1)


@pytest.mark.parametrize("kind", ["sum_squares", "sum_abs", "max_abs"])
def test_norms_with_memory_asked_for_ahead(kind: Any, isa: str) -> None:
    rng = np.random.default_rng(8)
    _core.prefetch(1)
    try:
        for scale in (1.0, 1e200):
            x = ordinary(rng, 2 * _core.CHUNK + 17, np.float64) * scale
            with np.errstate(over="ignore"):
                assert _core.norm([x], kind) == reference.norm([x], getattr(reference, kind))
    finally:
        _core.prefetch(-1)


@pytest.mark.parametrize("threads", [1, 2])
def test_norms_of_more_than_a_superblock(threads: int) -> None:
    """The second level of their sums, alone and by threads."""
    rng = np.random.default_rng(9)
    p, g = np.zeros(1030 * _core.CHUNK + 5, np.float32), ordinary(rng, 1030 * _core.CHUNK + 5, np.float32)
    expected = reference.norm([g[:5000], g[5000:]])
    assert _core.norm([g[:5000], g[5000:]], "sum_squares") == expected
    opt = fastopt.SGD([p[:5000], p[5000:]], lr=0.1, clip_norm=1e30, threads=threads)
    assert opt.step([g[:5000], g[5000:]]).grad_norm == expected[0]


def test_exp_and_log_of_coefficients_are_those_of_the_losses() -> None:
    for x in (-700.0, -1.5, -1e-9, 0.0, 1e-9, 0.04, 3.0, 700.0):
        assert _core.exp(x) == reference_losses.exp(np.array([x]))[0]
    for x in (1e-300, 0.96, 1.0, 1.5, 2.0, 1e6, 1e300):
        assert _core.log(x) == reference_losses.log(np.array([x]))[0]


@every_dtype
@pytest.mark.parametrize("kind", ["sum_squares", "sum_abs", "max_abs"])
def test_norms(dtype: Any, kind: Any, isa: str) -> None:
    rng = np.random.default_rng(8)
    arrays = [ordinary(rng, n, dtype) for n in LENGTHS]
    twin = getattr(reference, kind)
    for flush in (True, False):
        with _core.subnormals(flush):
            assert _core.norm(arrays, kind, flush) == reference.norm(arrays, twin)
            for a in arrays:
                assert _core.norm([a], kind, flush) == reference.norm([a], twin)


@pytest.mark.parametrize("scale", [1e-320, 1e-300, 1e-200, 1e-155, 1e155, 1e200, 1e300])
@pytest.mark.parametrize("kind", ["sum_squares", "sum_abs", "max_abs"])
def test_norms_beyond_the_range_of_squares(scale: float, kind: Any, isa: str) -> None:
    """Finite float64 elements whose squares overflow or vanish have the right norm, and count as finite."""
    x = np.array([3.0, 4.0, -12.0]) * scale
    value, finite = _core.norm([x], kind, False)
    assert finite
    with np.errstate(all="ignore"):
        assert (value, finite) == reference.norm([x], getattr(reference, kind))
    expected = {"sum_squares": 13.0, "sum_abs": 19.0, "max_abs": 12.0}[kind] * scale
    assert value == pytest.approx(expected, rel=1e-14 if scale > 1e-300 else 1e-2, abs=0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@every_dtype
def test_norms_see_every_nonfinite_element(bad: float, dtype: Any, isa: str) -> None:
    for n in (1, 15, 16, 17, 40, 1030):
        for i in range(0, n, 7):
            x = np.ones(n, dtype)
            x[i] = bad
            for kind in ("sum_squares", "sum_abs", "max_abs"):
                value, finite = _core.norm([x], kind)
                assert not finite
                assert not np.isfinite(value)


def test_powers_are_exact_where_they_can_be() -> None:
    assert [_core.power(2.0, n) for n in (0, 1, 2, 10, 1000)] == [1.0, 2.0, 4.0, 1024.0, 2.0**1000]
    assert _core.power(0.0, 0) == 1.0
    assert _core.power(0.0, 5) == 0.0
    for beta in (0.9, 0.99, 0.999):
        for n in (1, 2, 3, 7, 100, 12345):
            assert _core.power(beta, n) == pytest.approx(beta**n, rel=1e-12)
