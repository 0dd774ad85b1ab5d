"""The door: bad input raises, names the tensor, what was found and the fix, and leaves every byte as it was."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import fastopt
from tests.cases import CASES
from tests.lockstep import loss_of, snapshot

F32 = np.float32


def ones(*shape: int, dtype: Any = F32) -> Any:
    return np.ones(shape, dtype)


def base() -> Any:
    return np.ones(100, F32)


def overlapping() -> Any:
    b = base()
    return [b[:60], b[59:]]


def same_twice() -> Any:
    a = ones(3)
    return {"first": a, "second": a}


def read_only() -> Any:
    a = ones(3)
    a.flags.writeable = False
    return {"layer": {"W": a}}


def misaligned_bytes() -> Any:
    return {"W": np.zeros(17, np.uint8)[1:].view(F32)}


BAD_PARAMETERS = {
    "none at all": ([], ValueError, "no parameters"),
    "an empty dict": ({}, ValueError, "no parameters"),
    "an empty group": ([{"params": [np.ones(3)]}, {"params": []}], ValueError, "no parameters"),
    "a list of numbers": ([1.0, 2.0], TypeError, "'0' is a float"),
    "None": ({"W": None}, TypeError, "'W' is None"),
    "a generator": ((x for x in [1]), TypeError, "with list"),
    "a list with a generator": ([(x for x in [1])], TypeError, "with list"),
    "a string": ("weights", TypeError, "str"),
    "integers": ({"W": np.ones(3, int)}, TypeError, "'W' has dtype int64"),
    "half precision": ({"W": np.ones(3, np.float16)}, TypeError, "float16"),
    "complex": ({"W": np.ones(3, complex)}, TypeError, "complex128"),
    "objects": ({"W": np.array([1.0, None])}, TypeError, "object"),
    "booleans": ({"W": np.ones(3, bool)}, TypeError, "bool"),
    "the other byte order": ({"W": np.ones(3, ">f4")}, TypeError, "byte order"),
    "a masked array": ({"W": np.ma.masked_array(np.ones(3))}, TypeError, "masked"),
    "a scalar": ({"W": np.float32(1)}, TypeError, "numpy.float32"),
    "read-only": (read_only, ValueError, "'layer.W' is read-only"),
    "broadcast": ({"W": np.broadcast_to(np.ones(1), (3,))}, ValueError, "read-only"),
    "strided": ({"W": np.ones((4, 4))[:, ::2]}, ValueError, "'W' is not contiguous"),
    "reversed": ({"W": np.ones(4)[::-1]}, ValueError, "not contiguous"),
    "not aligned": (misaligned_bytes, ValueError, "not aligned"),
    "the same twice": (same_twice, ValueError, "'first' and 'second' are the same array"),
    "overlapping": (overlapping, ValueError, "'0' and '1' overlap"),
    "overlapping in groups": (lambda: [{"params": p} for p in overlapping()], ValueError, "'0' and '1' overlap"),
    "names that collide": ({"a": {"b": ones(2)}, "a.b": ones(2)}, ValueError, "named 'a.b'"),
    "names that collide in groups": (
        [{"params": {"W": ones(2)}}, {"params": {"W": ones(2)}}],
        ValueError,
        "named 'W'",
    ),
    "keys that are no names": ({0: ones(2)}, TypeError, "key 0"),
    "a group with an unknown key": ([{"params": ones(2), "momentun": 0.9}], TypeError, "'momentun'"),
    "a group with params missing": ([{"lr": 0.1}], TypeError, "'0.lr'"),
}


@pytest.mark.parametrize("what", BAD_PARAMETERS)
@pytest.mark.parametrize("backend", ["c", "numpy"])
def test_bad_parameters(what: str, backend: str) -> None:
    params, error, words = BAD_PARAMETERS[what]
    with pytest.raises(error, match=words):
        fastopt.AdamW(params() if callable(params) else params, backend=backend)


def test_views_that_only_touch_or_interleave_are_welcome() -> None:
    b = base()
    assert fastopt.SGD([b[:50], b[50:]], lr=0.1).step([b[:50] * 0, b[50:] * 0]).applied
    empty = np.ones((0, 3), F32)
    assert fastopt.SGD([empty, b, empty.copy()], lr=0.1).step([empty.copy(), b * 0, empty.copy()]).applied


BAD_HYPERPARAMETERS = [
    (fastopt.SGD, {}, TypeError, "lr"),
    (fastopt.SGD, {"lr": -1}, ValueError, "lr is -1.0"),
    (fastopt.SGD, {"lr": math.nan}, ValueError, "lr is nan"),
    (fastopt.SGD, {"lr": math.inf}, ValueError, "lr is inf"),
    (fastopt.SGD, {"lr": "0.1"}, TypeError, "lr is '0.1'"),
    (fastopt.SGD, {"lr": None}, TypeError, "lr is None"),
    (fastopt.SGD, {"lr": True}, TypeError, "lr is True"),
    (fastopt.SGD, {"lr": np.ones(1)}, TypeError, "lr"),
    (fastopt.SGD, {"lr": 1j}, TypeError, "lr"),
    (fastopt.SGD, {"lr": 0.1, "momentum": 1.0}, ValueError, "momentum is 1.0"),
    (fastopt.SGD, {"lr": 0.1, "momentum": -0.1}, ValueError, "momentum"),
    (fastopt.SGD, {"lr": 0.1, "nesterov": True}, ValueError, "nesterov=True without momentum"),
    (fastopt.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": 1}, TypeError, "nesterov is 1"),
    (fastopt.SGD, {"lr": 0.1, "dampening": 0.1}, ValueError, "dampening without momentum"),
    (fastopt.SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 1.1}, ValueError, "dampening is 1.1"),
    (fastopt.SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.1, "nesterov": True}, ValueError, "nesterov"),
    (fastopt.SGD, {"lr": 0.1, "momentum": 0.9, "momentum_form": "acumulate"}, ValueError, "'acumulate'.*'accumulate'"),
    (fastopt.SGD, {"lr": 0.1, "momentum_form": "ema"}, ValueError, "without momentum"),
    (fastopt.SGD, {"lr": 0.1, "momentum": 0.9, "momentum_form": "ema", "nesterov": True}, ValueError, "accumulate"),
    (fastopt.SGD, {"lr": 0.1, "momentum": 0.9, "momentum_form": "ema", "dampening": 0.1}, ValueError, "accumulate"),
    (fastopt.SGD, {"lr": 0.1, "weight_decay": 0.1}, TypeError, "l2=.*decoupled_decay="),
    (fastopt.Adagrad, {"weight_decay": 0.1}, TypeError, "l2=.*decoupled_decay="),
    (fastopt.RMSprop, {"weight_decay": 0.1}, TypeError, "l2=.*decoupled_decay="),
    (fastopt.Adam, {"weight_decay": 0.1}, TypeError, "l2=.*decoupled_decay="),
    (fastopt.NAdam, {"weight_decay": 0.1}, TypeError, "l2=.*decoupled_decay="),
    (fastopt.AdamW, {"weight_decay": -0.1}, ValueError, "weight_decay is -0.1"),
    (fastopt.Adagrad, {"lr_decay": -1}, ValueError, "lr_decay"),
    (fastopt.Adagrad, {"initial_accumulator": -1}, ValueError, "initial_accumulator"),
    (fastopt.Adagrad, {"initial_accumulator_value": 0.1}, TypeError, "initial_accumulator here"),
    (fastopt.RMSprop, {"alpha": 0.9}, TypeError, "called rho here"),
    (fastopt.RMSprop, {"rho": 1}, ValueError, "rho is 1.0"),
    (fastopt.Adam, {"betas": (1.0, 0.9)}, ValueError, r"betas\[0\] is 1.0"),
    (fastopt.Adam, {"betas": (0.9, -0.1)}, ValueError, r"betas\[1\]"),
    (fastopt.Adam, {"betas": (0.9, math.nan)}, ValueError, r"betas\[1\]"),
    (fastopt.Adam, {"betas": 0.9}, TypeError, "expected a pair"),
    (fastopt.Adam, {"betas": "ab"}, TypeError, "expected a pair"),
    (fastopt.Adam, {"betas": (0.9,)}, ValueError, "expected a pair"),
    (fastopt.Adam, {"betas": (0.9, 0.9, 0.9)}, ValueError, "expected a pair"),
    (fastopt.Adam, {"beta1": 0.9}, TypeError, "betas="),
    (fastopt.Adam, {"eps": -1e-8}, ValueError, "eps"),
    (fastopt.Adam, {"epsilon": 1e-8}, TypeError, "called eps here"),
    (fastopt.Adam, {"learning_rate": 1e-8}, TypeError, "called lr here"),
    (fastopt.Adam, {"nonsense": 1}, TypeError, "Adam has no 'nonsense': it takes lr, betas"),
    (fastopt.Adam, {"clip_norm": 0}, ValueError, "clip_norm is 0.0"),
    (fastopt.Adam, {"clip_norm": -1}, ValueError, "clip_norm"),
    (fastopt.Adam, {"clip_norm": math.inf}, ValueError, "clip_norm"),
    (fastopt.Adam, {"clip_value": 0}, ValueError, "clip_value"),
    (fastopt.Adam, {"clip_norm": 1, "clip_value": 1}, ValueError, "clip_norm and clip_value|clip_value and clip_norm"),
    (fastopt.Adam, {"on_nonfinite": "ignore"}, ValueError, "None, 'raise', 'skip'"),
    (fastopt.Adam, {"on_nonfinite": True}, ValueError, "on_nonfinite is True"),
    (fastopt.Adam, {"maximize": "yes"}, TypeError, "maximize is 'yes'"),
    (fastopt.Adam, {"average": 1.0}, ValueError, "average is 1.0"),
    (fastopt.Adam, {"average": True}, TypeError, "average is True"),
    (fastopt.Adam, {"l1": -1}, ValueError, "l1 is -1.0"),
    (fastopt.Adam, {"l2": math.nan}, ValueError, "l2 is nan"),
    (fastopt.Adam, {"prox_l1": -1}, ValueError, "prox_l1"),
    (fastopt.Adam, {"decoupled_decay": -1}, ValueError, "decoupled_decay"),
    (fastopt.Adam, {"decay_by_lr": 1}, TypeError, "decay_by_lr"),
    (fastopt.Adam, {"flush_subnormals": None}, TypeError, "flush_subnormals"),
    (fastopt.Adam, {"threads": 0}, ValueError, "threads is 0"),
    (fastopt.Adam, {"threads": 1.5}, TypeError, "threads is 1.5"),
    (fastopt.Adam, {"threads": True}, TypeError, "threads is True"),
    (fastopt.Adam, {"backend": "cuda"}, ValueError, "'c', 'numpy'"),
    (fastopt.Adam, {"backend": None}, ValueError, "backend is None"),
    (fastopt.Adam, {"amsgrad": 1}, TypeError, "amsgrad is 1"),
    (fastopt.Adam, {"momentum": 0.9}, TypeError, "Adam has no 'momentum'"),
    (fastopt.NAdam, {"momentum_decay": -1}, ValueError, "momentum_decay"),
    (fastopt.NAdam, {"amsgrad": True}, TypeError, "NAdam has no 'amsgrad'"),
]


@pytest.mark.parametrize(("cls", "kwargs", "error", "words"), BAD_HYPERPARAMETERS, ids=lambda x: str(x)[:60])
def test_bad_hyperparameters(cls: Any, kwargs: dict[str, Any], error: Any, words: str) -> None:
    p = ones(3)
    with pytest.raises(error, match=words):
        cls([p], **kwargs)
    assert p.tobytes() == ones(3).tobytes()


def test_numbers_of_every_real_kind_are_read_once_as_double() -> None:
    for lr in (np.float32(0.5), np.float64(0.5), np.array(0.5), np.int64(1) * 0.5, 0.5):
        p = ones(3)
        opt = fastopt.SGD([p], lr=lr)
        assert isinstance(opt.lr, float)
        opt.step([ones(3)])
        assert p.dtype == F32
        assert p.tolist() == [0.5] * 3
    assert fastopt.SGD([ones(1)], lr=1).lr == 1.0


def test_setting_a_bad_value_later() -> None:
    opt = fastopt.Adam([{"params": ones(3)}, {"params": ones(2), "lr": 0.5}])
    for name, value in [("lr", -1), ("betas", (0.9, 1.0)), ("eps", "x"), ("clip_norm", 0), ("l1", math.nan)]:
        with pytest.raises((ValueError, TypeError), match=name):
            setattr(opt, name, value)
    assert [group["lr"] for group in opt.groups] == [1e-3, 0.5]
    opt.clip_norm = 1.0
    with pytest.raises(ValueError, match="together"):
        opt.clip_value = 1.0
    opt.clip_norm = None
    opt.clip_value = 1.0
    for name in ("amsgrad", "eps_hat", "backend", "flush_subnormals", "decay_by_lr"):
        with pytest.raises(AttributeError, match="fixed"):
            setattr(opt, name, True)
    with pytest.raises(ValueError, match="average"):
        opt.average = 0.9
    with pytest.raises(TypeError, match="called lr here"):
        opt.groups[0]["learning_rate"] = 1.0
    with pytest.raises(ValueError, match="lr is -1"):
        opt.groups[0]["lr"] = -1
    with pytest.raises(TypeError, match="fixed"):
        opt.groups[0]["params"] = []
    with pytest.raises(AttributeError):
        opt.learning_rate = 0.1
    plain = fastopt.SGD([ones(3)], lr=0.1)
    with pytest.raises(ValueError, match="without momentum"):
        plain.momentum = 0.9
    nesterov = fastopt.SGD([ones(3)], lr=0.1, momentum=0.9, nesterov=True)
    with pytest.raises(ValueError, match="nesterov"):
        nesterov.dampening = 0.1


class Tensor:
    """Something that looks like an array and is none."""

    shape = (3,)


def shared_with_parameter(params: Any) -> Any:
    return {"W": params["W"], "b": {"c": ones(3)}}


BAD_GRADIENTS = {
    "an array for a dict": (ones(2, 3), TypeError, "expected a dict"),
    "a list for a dict": ([ones(2, 3)], TypeError, "expected a dict"),
    "a missing name": ({"W": ones(2, 3)}, ValueError, "no gradient for 'b'"),
    "an extra name": ({"W": ones(2, 3), "b": {"c": ones(3)}, "d": ones(1)}, ValueError, "'d', which is no parameter"),
    "a missing inner name": ({"W": ones(2, 3), "b": {}}, ValueError, "'b.c'"),
    "a misspelt inner name": ({"W": ones(2, 3), "b": {"x": ones(3)}}, ValueError, "'b.c'.*'b.x'"),
    "an array for an inner dict": ({"W": ones(2, 3), "b": ones(3)}, TypeError, "'b' is an array of float32"),
    "a transposed shape": ({"W": ones(3, 2), "b": {"c": ones(3)}}, ValueError, r"'W' has shape \(3, 2\).*transposed"),
    "a flat shape": ({"W": ones(6), "b": {"c": ones(3)}}, ValueError, r"'W' has shape \(6,\)"),
    "a broadcastable shape": ({"W": ones(2, 3), "b": {"c": ones(1)}}, ValueError, r"'b.c' has shape \(1,\)"),
    "one more dimension": ({"W": ones(2, 3), "b": {"c": ones(3, 1)}}, ValueError, r"'b.c' has shape \(3, 1\)"),
    "float64 for float32": ({"W": ones(2, 3, dtype=float), "b": {"c": ones(3)}}, TypeError, "'W' has dtype float64"),
    "integers": ({"W": ones(2, 3), "b": {"c": ones(3, dtype=int)}}, TypeError, "'b.c' has dtype int64"),
    "the other byte order": ({"W": ones(2, 3, dtype=">f4"), "b": {"c": ones(3)}}, TypeError, "'W'.*byte order"),
    "a list of numbers": ({"W": ones(2, 3), "b": {"c": [1.0, 1.0, 1.0]}}, TypeError, "'b.c' is a list"),
    "a number": ({"W": 0.0, "b": {"c": ones(3)}}, TypeError, "'W' is a float"),
    "a foreign tensor": ({"W": ones(2, 3), "b": {"c": Tensor()}}, TypeError, "'b.c' is a .*Tensor"),
    "a masked array": ({"W": ones(2, 3), "b": {"c": np.ma.ones(3, F32)}}, TypeError, "'b.c' is a masked"),
    "the parameter itself": (shared_with_parameter, ValueError, "'W' shares memory with parameter 'W'"),
}


@pytest.mark.parametrize("what", BAD_GRADIENTS)
@pytest.mark.parametrize("backend", ["c", "numpy"])
def test_bad_gradients_change_nothing(what: str, backend: str) -> None:
    grads, error, words = BAD_GRADIENTS[what]
    for case in CASES:
        params = {"W": ones(2, 3), "b": {"c": ones(3)}}
        opt = case.make(params, backend=backend)
        good = {"W": ones(2, 3), "b": {"c": ones(3)}}
        opt.step(good, **loss_of(opt))
        before = snapshot(opt)
        with pytest.raises(error, match=words):
            opt.step(grads(params) if callable(grads) else grads, **loss_of(opt))
        assert snapshot(opt) == before
        assert opt.step(good, **loss_of(opt)).applied


def test_gradients_in_the_memory_of_another_parameter_state_or_average() -> None:
    memory = np.ones(200, F32)
    params = {"a": memory[:100].reshape(10, 10), "b": np.ones(10, F32)}
    opt = fastopt.Adam(params, average=0.9)
    good = np.ones((10, 10), F32)
    for b, words in [
        (memory[95:105], "parameter 'a'"),
        (params["a"][:, 3], "parameter 'a'"),
        (opt.state["a"]["v"][2], "the state of 'a'"),
        (opt.averages["a"][2], "the average of 'a'"),
    ]:
        before = snapshot(opt)
        with pytest.raises(ValueError, match=f"'b' shares memory with {words}"):
            opt.step({"a": good, "b": b})
        assert snapshot(opt) == before
    assert opt.step({"a": good, "b": memory[100:110]}).applied


def test_a_gradient_on_both_sides_of_a_parameter_is_welcome() -> None:
    memory = np.ones((3, 20), F32)
    parameter, gradient = memory[1].reshape(2, 10), memory[::2, :10]
    assert fastopt.SGD([parameter], lr=0.5).step([gradient]).applied
    assert memory.tolist() == [[1.0] * 20, [0.5] * 20, [1.0] * 20]


def bad_schedule(t: int) -> float:
    return 0.1 if t < 2 else -1.0


@pytest.mark.parametrize("name", ["lr", "l1", "l2", "decoupled_decay", "prox_l1", "eps", "clip_norm"])
def test_a_schedule_that_leaves_the_domain_stops_the_step(name: str) -> None:
    opt = fastopt.Adam([ones(3)], **{name: bad_schedule})
    opt.step([ones(3)])
    opt.step([ones(3)])
    before = snapshot(opt)
    with pytest.raises(ValueError, match=rf"{name} \(its schedule at t=2\) is -1.0"):
        opt.step([ones(3)])
    assert snapshot(opt) == before


@pytest.mark.parametrize("value", [None, "0.1", math.nan, np.ones(2), 1j])
def test_a_schedule_that_returns_no_number_stops_the_step(value: Any) -> None:
    opt = fastopt.Adam([ones(3)], lr=lambda t: value)
    before = snapshot(opt)
    with pytest.raises((TypeError, ValueError), match=r"lr \(its schedule at t=0\)"):
        opt.step([ones(3)])
    assert snapshot(opt) == before


def test_a_schedule_that_raises_stops_the_step() -> None:
    opt = fastopt.Adam([ones(3)], lr=lambda t: 1 / (1 - t))
    opt.step([ones(3)])
    before = snapshot(opt)
    with pytest.raises(ZeroDivisionError):
        opt.step([ones(3)])
    assert snapshot(opt) == before


def test_decay_of_more_than_everything() -> None:
    opt = fastopt.SGD([ones(3)], lr=10, decoupled_decay=0.2)
    before = snapshot(opt)
    with pytest.raises(ValueError, match="more than the whole parameter"):
        opt.step([ones(3)])
    assert snapshot(opt) == before


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("how", [{"on_nonfinite": "raise"}, {"on_nonfinite": "skip"}, {"clip_norm": 1.0}])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("backend", ["c", "numpy"])
def test_nonfinite_gradients_change_nothing(bad: float, how: dict[str, Any], dtype: Any, backend: str) -> None:
    params = {"a": np.ones((3, 4), dtype), "b": np.ones(1030, dtype), "c": np.ones((), dtype)}
    opt = fastopt.AdamW(params, average=0.9, backend=backend, **how)
    good = {name: np.ones_like(p) for name, p in params.items()}
    opt.step(good)
    before = snapshot(opt)
    for name, index in [("a", (2, 1)), ("b", (1029,)), ("b", (0,)), ("c", ())]:
        grads = {n: g.copy() for n, g in good.items()}
        grads[name][index] = bad
        if how == {"on_nonfinite": "skip"}:
            report = opt.step(grads)
            assert (report.applied, report.step) == (False, 1)
            assert not math.isfinite(report.grad_norm)
        else:
            where = f"{name!r} is {bad}" + (f" at index {index}" if index else "")
            with pytest.raises(fastopt.NonFiniteError) as error:
                opt.step(grads)
            assert where in str(error.value)
        assert snapshot(opt) == before
    assert opt.step(good).step == 2


def test_finite_gradients_whose_squares_overflow_are_clipped() -> None:
    p = np.zeros(2)
    report = fastopt.SGD([p], lr=1.0, clip_norm=5.0).step([np.array([3e200, -4e200])])
    assert report.applied
    assert report.grad_norm == pytest.approx(5e200)
    assert p == pytest.approx([-3.0, 4.0])


def test_a_norm_beyond_float64_is_refused_when_clipping() -> None:
    g = [np.full(100, 1.7e308)]
    opt = fastopt.SGD([np.zeros(100)], lr=1.0, clip_norm=5.0)
    with pytest.raises(fastopt.NonFiniteError, match="norm of the gradients overflows"):
        opt.step(g)
    assert fastopt.SGD([np.zeros(100)], lr=1.0, on_nonfinite="raise").step(g).applied


def test_without_a_check_nan_goes_through() -> None:
    p = ones(2)
    assert fastopt.SGD([p], lr=0.1).step([np.array([np.nan, 1], F32)]) == (True, None, 1, 0)
    assert np.isnan(p[0])
    assert p[1] == F32(0.9)
