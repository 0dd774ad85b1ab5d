"""The losses' kernels: their twins' bits on every instruction set, and the door."""

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
from scipy.special import softmax

from fastopt.app.selftest import same_bits
from fastopt.core import _core
from fastopt.reference import losses as reference_losses
from tests.cases import DTYPES
from tests.losses.loss_inputs import called, every_dtype, every_flush, hard_and_soft, logits

kernels = pytest.mark.parametrize("name", ["softmax_cross_entropy", "sigmoid_cross_entropy", "squared_error"])


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
    ({"losses": None}, TypeError, "losses is None, not a numpy array"),
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
    classes, weights = rng.integers(0, 67, 2222), rng.random(2222)
    before, found = _core.default_threads(), []
    try:
        for threads in (1, 2, 3, 7):
            _core.set_default_threads(threads)
            g, more, losses, rows = np.zeros_like(x), np.zeros_like(x), np.zeros(x.shape), np.zeros((2, 2222))
            total = 0.0
            if name == "softmax_cross_entropy":
                _core.softmax_cross_entropy(x, classes, None, weights, g, rows[0])
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
