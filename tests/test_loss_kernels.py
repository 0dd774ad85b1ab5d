"""The losses' kernels: their twins' bits on every instruction set, the errors of exp, log1p and log, and the door."""

from __future__ import annotations

import hashlib
import inspect
import itertools
import re
import shutil
import subprocess
from typing import Any

import numpy as np
import pytest
from scipy.special import expit, log_softmax, softmax

from fastopt import _core, reference_losses
from fastopt.selftest import same_bits
from tests.cases import DTYPES

SPECIAL = (
    0.0, -0.0, 1e-40, -1e-40, 1e-310, -1e-310, 1e30, -1e30, 17.0, -17.0, 87.3, -87.3, -87.34, -87.5, -88.5, 104.0,
    -104.0, 708.0, -708.39, -708.4, -745.2, 3e38, -3e38, np.inf, -np.inf, np.nan,
)  # fmt: skip

every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)
every_flush = pytest.mark.parametrize("flush", [True, False], ids=["flush", "keep"])
kernels = pytest.mark.parametrize("name", ["softmax_cross_entropy", "sigmoid_cross_entropy", "squared_error"])


def logits(rng: np.random.Generator, shape: Any, dtype: Any, special: float) -> Any:
    """Of sizes from 0.01 to 100, a share of them replaced by special ones."""
    x = rng.standard_normal(shape) * 10 ** rng.uniform(-2, 2, (*shape[:-1], 1))
    chosen = rng.random(shape) < special
    x[chosen] = rng.choice(SPECIAL, int(chosen.sum()))
    with np.errstate(over="ignore"):
        return x.astype(dtype)


def hard_and_soft(rng: np.random.Generator, shape: Any, dtype: Any) -> Any:
    """Targets in [0, 1]; most are 0 or 1, some are subnormal."""
    z = rng.choice([0.0, 1.0, 1e-40, 1e-310, 0.5], shape, p=[0.4, 0.3, 0.02, 0.02, 0.26])
    return np.where(z == 0.5, rng.random(shape), z).astype(dtype)


def arguments(rng: np.random.Generator, name: str, rows: int, columns: int, dtype: Any, special: float) -> Any:
    """Every way of calling a kernel: its read arguments, None for each array that it is to write."""
    x = logits(rng, (rows, columns), dtype, special)
    z = hard_and_soft(rng, x.shape, dtype)
    if name == "squared_error":
        return [(x, z, 0.3, None), (x, logits(rng, x.shape, dtype, special), 1.0, None)]
    if name == "sigmoid_cross_entropy":
        return [(x, z, 0.3, None, None)]
    classes, weights = rng.integers(0, columns, rows), rng.random(rows)
    with np.errstate(all="ignore"):
        targets = [(classes, None), (None, z), (None, softmax(np.nan_to_num(x), axis=1).astype(dtype))]
    return [(x, c, p, w, None, None) for (c, p), w in itertools.product(targets, (None, weights))]


def called(module: Any, name: str, given: Any, gradient: bool, **more: Any) -> list[Any]:
    """What a kernel writes and returns."""
    x = given[0]
    g = np.full_like(x, 7)
    losses = np.full(x.shape if name == "sigmoid_cross_entropy" else x.shape[:1], 7.0)
    written = (g if gradient else None,) + (() if name == "squared_error" else (losses,))
    with np.errstate(all="ignore"):
        result = getattr(module, name)(*given[: -len(written)], *written, **more)
    return [g, losses, np.array(0.0 if result is None else result)]


def assert_twins(name: str, given: Any, flush: bool, gradient: bool = True) -> None:
    ours = called(_core, name, given, gradient, flush=flush)
    with _core.subnormals(flush):
        theirs = called(reference_losses, name, given, gradient)
    for a, b in zip(ours, theirs, strict=True):
        assert same_bits(a, b)


@kernels
@every_dtype
@every_flush
def test_every_length(name: str, dtype: Any, flush: bool, isa: str) -> None:
    rng = np.random.default_rng(1)
    for columns in (*range(1, 71), 127, 1000, 1024, 2075):
        for k, given in enumerate(arguments(rng, name, 1 + columns % 3, columns, dtype, 0)):
            assert_twins(name, given, flush, gradient=(k + columns) % 5 != 0)


@kernels
@every_dtype
@every_flush
@pytest.mark.parametrize("special", [0.02, 0.5, 1.0])
def test_special_values(name: str, dtype: Any, flush: bool, special: float, isa: str) -> None:
    """Infinities, NaN, subnormals and the ends of exp's range, in rows that have few or many of them."""
    rng = np.random.default_rng(2)
    for rows, columns in [(40, 1), (40, 2), (17, 10), (16, 16), (3, 67), (1, 300)]:
        for given in arguments(rng, name, rows, columns, dtype, special):
            assert_twins(name, given, flush)


@kernels
@every_dtype
def test_no_rows_and_no_elements(name: str, dtype: Any, isa: str) -> None:
    for given in arguments(np.random.default_rng(3), name, 0, 10, dtype, 0):
        assert_twins(name, given, True)


@every_dtype
def test_a_row_does_not_depend_on_its_place(dtype: Any, isa: str) -> None:
    rng = np.random.default_rng(4)
    x, classes = logits(rng, (37, 21), dtype, 0), rng.integers(0, 21, 37)
    g, losses, _ = called(_core, "softmax_cross_entropy", (x, classes, None, None, None, None), True)
    for i in range(37):
        alone = (x[i : i + 1], classes[i : i + 1], None, None, None, None)
        row, loss, _ = called(_core, "softmax_cross_entropy", alone, True)
        assert same_bits(row[0], g[i])
        assert loss[0] == losses[i]


def digest(module: Any) -> str:
    rng, found = np.random.default_rng(5), hashlib.sha256()
    for name in ("softmax_cross_entropy", "sigmoid_cross_entropy", "squared_error"):
        for dtype in DTYPES:
            for columns in (1, 10, 100, 1100):
                for given in arguments(rng, name, 19, columns, dtype, 0):
                    for a in called(module, name, given, True):
                        found.update(a.tobytes())
    return found.hexdigest()


@pytest.fixture(scope="module")
def reference_digest() -> str:
    with _core.subnormals(True):
        return digest(reference_losses)


def test_one_digest_for_the_twin_and_every_isa(reference_digest: str, isa: str) -> None:
    assert digest(_core) == reference_digest


@kernels
def test_signatures_are_the_twins(name: str) -> None:
    ours = list(inspect.signature(getattr(_core, name)).parameters)
    assert ours == [*inspect.signature(getattr(reference_losses, name)).parameters, "flush"]
    assert name in reference_losses.__all__


def worst_ulp(function: Any, exact: Any, x: Any, wide: Any) -> float:
    value = exact(x.astype(wide))
    unit = np.spacing(np.abs(value).astype(x.dtype)).astype(wide)
    return float(np.max(np.abs(function(x).astype(wide) - value) / unit))


def samples(rng: np.random.Generator, low: float, high: float, dtype: Any, n: int = 400_000) -> Any:
    """Half uniform, half with uniform exponents."""
    magnitudes = np.exp2(rng.uniform(np.log2(low), np.log2(high), n))
    return np.concatenate([rng.uniform(low, high, n), np.minimum(magnitudes, high)]).astype(dtype)


@every_dtype
def test_errors_are_below_2_ulp(dtype: Any) -> None:
    """tools/ulp.py measures them over all of float32, and more of float64."""
    if dtype is np.float64 and np.finfo(np.longdouble).nmant < 60:
        pytest.skip("long double is no wider than double here")
    rng, wide = np.random.default_rng(6), np.float64 if dtype is np.float32 else np.longdouble
    lowest, highest = {np.float32: (87.336, 88.0), np.float64: (708.396, 709.0)}[dtype]
    exp = reference_losses.exp
    assert worst_ulp(exp, np.exp, -samples(rng, 1e-17, lowest, dtype), wide) < 1
    assert worst_ulp(exp, np.exp, samples(rng, 1e-17, highest, dtype), wide) < 1
    assert worst_ulp(reference_losses.log1p, np.log1p, samples(rng, 1e-30, 1.0, dtype), wide) < 1.5
    if dtype is np.float64:
        assert worst_ulp(reference_losses.log, np.log, samples(rng, 1.0, 2.0, dtype), wide) < 1.5
        assert worst_ulp(reference_losses.log, np.log, samples(rng, 1e-300, 1e300, dtype), wide) < 1.5


@every_dtype
@every_flush
def test_limits(dtype: Any, flush: bool) -> None:
    tiny = np.finfo(dtype).tiny
    lowest = np.array(np.log(np.longdouble(tiny)), dtype)
    around = np.nextafter(lowest, dtype(0))
    x = np.array([-np.inf, np.finfo(dtype).min, -1e4, 2 * lowest, np.nan, 0.0, -0.0, around], dtype)
    with _core.subnormals(flush), np.errstate(all="ignore"):
        e = reference_losses.exp(x)
        assert np.isnan(reference_losses.log1p(x[4:5]))
        assert np.isnan(reference_losses.log(np.array([np.nan])))
        assert reference_losses.log(np.array([1.0])).tobytes() == bytes(8)
    assert e[:4].tobytes() == np.zeros(4, dtype).tobytes()
    assert np.isnan(e[4])
    assert e[5:7].tolist() == [1, 1]
    assert tiny <= e[7] < tiny * 1.001
    # Nothing between 0 and the smallest normal number, whatever the mode.
    with _core.subnormals(False):
        e = reference_losses.exp(np.linspace(1.02 * lowest, 0.98 * lowest, 10_001).astype(dtype))
    assert np.all((e == 0) | (e >= tiny))
    assert np.all(np.diff(e) >= 0)


@every_dtype
@pytest.mark.parametrize("columns", [1, 2, 10, 1000])
def test_softmax_against_scipy(dtype: Any, columns: int) -> None:
    rng = np.random.default_rng(7)
    x, classes, weights = logits(rng, (50, columns), dtype, 0), rng.integers(0, columns, 50), rng.random(50)
    p = rng.random(x.shape)
    p = (p / p.sum(axis=1, keepdims=True)).astype(dtype)
    wide = x.astype(np.float64)
    eps = float(np.finfo(dtype).eps)
    for c, q, target in [(classes, None, np.eye(columns)[classes]), (None, p, p.astype(np.float64))]:
        g, losses, _ = called(_core, "softmax_cross_entropy", (x, c, q, weights, None, None), True)
        # The shifted logit is rounded once, to the relative precision of exp's exponent.
        reach = 4 + np.abs(wide).max(axis=1, keepdims=True)
        assert np.all(np.abs(g - weights[:, None] * (softmax(wide, axis=1) - target)) <= 4 * eps * reach)
        expected = -(target * log_softmax(wide, axis=1)).sum(axis=1)
        assert np.all(np.abs(losses - expected) <= 4 * eps * (reach[:, 0] + expected))


@every_dtype
def test_sigmoid_against_scipy(dtype: Any) -> None:
    rng = np.random.default_rng(8)
    x, z = logits(rng, (20, 101), dtype, 0), hard_and_soft(rng, (20, 101), dtype)
    g, losses, _ = called(_core, "sigmoid_cross_entropy", (x, z, 2.0, None, None), True)
    wide, target, eps = x.astype(np.float64), z.astype(np.float64), float(np.finfo(dtype).eps)
    assert np.all(np.abs(g - 2 * (expit(wide) - target)) <= 6 * eps)
    expected = np.logaddexp(0, wide) * (1 - target) + np.logaddexp(0, -wide) * target
    assert losses == pytest.approx(expected, rel=6 * eps, abs=1e-37)


@every_dtype
def test_squared_error_is_exact_where_numbers_are_small(dtype: Any) -> None:
    rng = np.random.default_rng(9)
    p, t = (rng.integers(-99, 99, 5000).astype(dtype) for _ in range(2))
    g = np.empty_like(p)
    assert _core.squared_error(p, t, 0.5, g) == float(np.sum((p - t).astype(np.int64) ** 2))
    assert np.array_equal(g, (p - t) / 2)


@every_dtype
def test_sure_predictions_keep_their_small_gradients(dtype: Any) -> None:
    """1 - p would be 0 long before the gradient is."""
    x, losses = np.array([[0.0, -30.0, -31.0]], dtype), np.empty(1)
    g = np.empty_like(x)
    _core.softmax_cross_entropy(x, np.array([0]), None, None, g, losses)
    small = np.exp(-30.0) + np.exp(-31.0)
    assert g[0] == pytest.approx([-small, np.exp(-30.0), np.exp(-31.0)], rel=2e-3 if dtype is np.float64 else 1e-2)
    assert losses[0] == pytest.approx(small, rel=2e-3)
    x, z = np.array([30.0, -30.0], dtype), np.array([1.0, 0.0], dtype)
    g, losses = np.empty_like(x), np.empty(2)
    _core.sigmoid_cross_entropy(x, z, 1.0, g, losses)
    assert g == pytest.approx([-np.exp(-30.0), np.exp(-30.0)], rel=1e-5)
    assert losses == pytest.approx([np.exp(-30.0)] * 2, rel=1e-5)


@every_dtype
def test_infinite_logits(dtype: Any) -> None:
    """-infinity masks a class; a certain and wrong prediction costs infinity; +infinity in a row has no softmax."""
    x = np.array([[0, -np.inf, 0], [0, -np.inf, 0], [np.inf, 0, 0], [-np.inf] * 3], dtype)
    g, losses = np.empty_like(x), np.empty(4)
    _core.softmax_cross_entropy(x, np.array([0, 1, 0, 0]), None, None, g, losses)
    assert g[0].tolist() == [-0.5, 0, 0.5]
    assert losses[0] == pytest.approx(np.log(2), rel=1e-15)
    assert losses[1] == np.inf
    assert np.isnan(losses[2:]).all()
    _core.softmax_cross_entropy(x[:2], None, np.array([[0.5, 0, 0.5], [0.5, 0.5, 0]], dtype), None, g[:2], losses[:2])
    assert losses[:2].tolist() == [pytest.approx(np.log(2), rel=1e-15), np.inf]
    x, z = np.array([np.inf, np.inf, -np.inf, -np.inf], dtype), np.array([1, 0, 0, 1], dtype)
    g, losses = np.empty_like(x), np.empty(4)
    _core.sigmoid_cross_entropy(x, z, 1.0, g, losses)
    assert losses.tolist() == [0, np.inf, 0, np.inf]
    assert g.tolist() == [0, 1, 0, -1]


def test_the_control_word_comes_back_and_nothing_else_is_written() -> None:
    rng = np.random.default_rng(10)
    for flush in (True, False):
        with _core.subnormals(not flush):
            before = _core.control_word()
            memory, doubles = np.full(3 * 33 + 32, 7, np.float32), np.full(3 + 32, 7.0)
            x, classes = logits(rng, (3, 33), np.float32, 0), np.array([0, 32, 31])
            kept = x.tobytes() + classes.tobytes()
            _core.softmax_cross_entropy(x, classes, None, None, memory[16:-16].reshape(3, 33), doubles[16:-16], flush)
            assert _core.control_word() == before
    assert x.tobytes() + classes.tobytes() == kept
    for a in (memory, doubles):
        assert np.all(a[:16] == 7)
        assert np.all(a[-16:] == 7)


X, C, G, L = np.ones((4, 3), np.float32), np.array([0, 1, 2, 0]), np.empty((4, 3), np.float32), np.empty(4)
READ_ONLY = G.copy()
READ_ONLY.flags.writeable = False
BAD_SOFTMAX: list[tuple[dict[str, Any], Any, str]] = [
    ({"logits": [[1.0]]}, TypeError, "logits is a list"),
    ({"logits": X.astype(np.float16)}, TypeError, "float16"),
    ({"logits": X[0]}, ValueError, r"logits have shape \(3,\)"),
    ({"logits": X[:, :0]}, ValueError, "at least one column"),
    ({"logits": np.ones((3, 4), np.float32).T}, ValueError, "logits is not C-contiguous"),
    ({"logits": np.ones((4, 6), np.float32)[:, ::2]}, ValueError, "logits is not C-contiguous"),
    ({"classes": None}, ValueError, "either classes or probabilities"),
    ({"probabilities": X + 1}, ValueError, "either classes or probabilities"),
    ({"classes": [0, 1, 2, 0]}, TypeError, "classes is a list.*int64"),
    ({"classes": C.astype(np.int32)}, TypeError, "classes has dtype int32"),
    ({"classes": C.astype(">i8")}, TypeError, "classes has dtype >i8"),
    ({"classes": C[:3]}, ValueError, r"classes has shape \(3,\): expected \(4,\)"),
    ({"classes": np.array([0, 1, 3, 0])}, ValueError, r"classes\[2\] is 3: expected 0 to 2"),
    ({"classes": np.array([0, -1, 0, 0])}, ValueError, r"classes\[1\] is -1"),
    ({"classes": None, "probabilities": X.astype(float)}, TypeError, "probabilities has dtype float64"),
    ({"classes": None, "probabilities": X[:3]}, ValueError, "probabilities has shape"),
    ({"weights": np.ones(4, np.float32)}, TypeError, "weights has dtype float32: expected float64"),
    ({"weights": np.ones(3)}, ValueError, "weights has shape"),
    ({"gradient": np.empty((4, 3))}, TypeError, "gradient has dtype float64"),
    ({"gradient": np.empty((3, 4), np.float32)}, ValueError, "gradient has shape"),
    ({"gradient": READ_ONLY}, ValueError, "gradient is read-only"),
    ({"gradient": X}, ValueError, "gradient and logits overlap"),
    ({"losses": None}, TypeError, "losses is a NoneType"),
    ({"losses": np.empty(4, np.float32)}, TypeError, "losses has dtype float32"),
    ({"losses": np.empty(5)}, ValueError, "losses has shape"),
    ({"losses": C.view(np.float64)}, ValueError, "losses and classes overlap"),
    ({"losses": L, "weights": L}, ValueError, "losses and weights overlap"),
]


@pytest.mark.parametrize(("change", "error", "words"), BAD_SOFTMAX, ids=lambda x: x if isinstance(x, str) else "")
def test_bad_softmax_arguments_write_nothing(change: dict[str, Any], error: Any, words: str) -> None:
    G[...], L[...] = 7, 7
    good = {"logits": X, "classes": C, "probabilities": None, "weights": None, "gradient": G, "losses": L}
    with pytest.raises(error, match=words):
        _core.softmax_cross_entropy(**{**good, **change})
    assert np.all(G == 7)
    assert np.all(L == 7)
    _core.softmax_cross_entropy(**good)


class Lying(np.ndarray[Any, Any]):
    """A subclass may say of itself what it likes."""

    shape, size, dtype = (property(lambda _, x=x: x) for x in ((1000, 3), 3000, np.dtype(np.int64)))  # type: ignore


def test_a_subclass_that_lies_of_its_shape_and_type() -> None:
    x, rows, losses = np.ones((4, 3)).view(Lying), np.zeros(1000, np.int64), np.empty(1000)
    with pytest.raises(ValueError, match=r"classes has shape \(1000,\): expected \(4,\)"):
        _core.softmax_cross_entropy(x, rows, None, None, None, losses)
    with pytest.raises(TypeError, match="classes has dtype"):
        _core.softmax_cross_entropy(np.ones((4, 3)), np.ones(4, np.int8).view(Lying), None, None, None, np.empty(4))
    with pytest.raises(ValueError, match=r"targets has shape"):
        _core.sigmoid_cross_entropy(x, np.ones((1000, 3)), 1.0, None, np.ones((1000, 3)))
    assert _core.squared_error(np.ones(5000).view(Lying), np.zeros(5000), 1.0, None) == 5000


def test_bad_elementwise_arguments() -> None:
    x, g, losses = np.ones(4), np.empty(4), np.empty(4)
    for given, error, words in [
        ((x, x[:3], 1.0, g, losses), ValueError, "targets has shape"),
        ((x, x.astype(np.float32), 1.0, g, losses), TypeError, "targets has dtype float32"),
        ((x, x.copy(), 1.0, x, losses), ValueError, "gradient and logits overlap"),
        ((x, x.copy(), 1.0, g, g), ValueError, "gradient and losses overlap"),
        ((x, x.copy(), 1.0, g, np.empty(3)), ValueError, "losses has shape"),
        ((np.ones(8)[::2], x, 1.0, g, losses), ValueError, "logits is not C-contiguous"),
        ((x, x.copy(), "1", g, losses), TypeError, "number|float"),
    ]:
        with pytest.raises(error, match=words):
            _core.sigmoid_cross_entropy(*given)
    for given, error, words in [
        ((x, x[:3], 1.0, g), ValueError, "target has shape"),
        ((x, [1.0] * 4, 1.0, g), TypeError, "target is a list"),
        ((x, g, 1.0, g), ValueError, "gradient and target overlap"),
    ]:
        with pytest.raises(error, match=words):
            _core.squared_error(*given)


@pytest.mark.parametrize("isa", ["avx2", "avx512"])
@pytest.mark.parametrize("real", ["f32", "f64"])
def test_the_loops_are_vectors(isa: str, real: str) -> None:
    """Of whole registers, with no multiplication of single numbers."""
    if isa not in _core.isas():
        pytest.skip(f"this CPU or build has no {isa}")
    if shutil.which("objdump") is None:
        pytest.skip("objdump (binutils) is not installed")
    for part in ("larger", "add_exp", "add_cost"):
        symbol = f"fo_{part}_{real}_{isa}"
        command = ["objdump", "-d", "--no-show-raw-insn", f"--disassemble={symbol}", _core.__file__]
        code = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        if symbol not in code:
            pytest.skip("the build is stripped")
        register = "zmm" if isa == "avx512" else "ymm"
        arithmetic = "max" if part == "larger" else "mul"
        assert re.search(rf"v{arithmetic}p[sd] .*%{register}", code), symbol
        assert not re.search(r"\bv?(mul|max)s[sd]\b", code), symbol


@kernels
@every_dtype
@pytest.mark.skipif(not _core.threads_available(), reason="this build has no threads")
def test_one_digest_on_any_number_of_threads(name: str, dtype: Any) -> None:
    rng = np.random.default_rng(8)
    x, z = rng.standard_normal((2222, 67)).astype(dtype), rng.random((2222, 67)).astype(dtype)
    classes = rng.integers(0, 67, 2222)
    before, found = _core.default_threads(), []
    try:
        for threads in (1, 2, 3, 7):
            _core.set_default_threads(threads)
            g, more, losses, rows = np.zeros_like(x), np.zeros_like(x), np.zeros(x.shape), np.zeros((2, 2222))
            total = 0.0
            if name == "softmax_cross_entropy":
                _core.softmax_cross_entropy(x, classes, None, np.full(2222, 0.5), g, rows[0])
                _core.softmax_cross_entropy(x, None, z, None, more, rows[1])
            elif name == "sigmoid_cross_entropy":
                _core.sigmoid_cross_entropy(x, z, 0.5, g, losses)
            else:
                total = _core.squared_error(x, z, 0.5, g)
            found.append((g.tobytes(), more.tobytes(), losses.tobytes(), rows.tobytes(), total))
    finally:
        _core.set_default_threads(before)
    assert all(one == found[0] for one in found)
    assert _core.threads_started() >= 6
