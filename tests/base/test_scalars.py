"""A number may come in a NumPy, jax or torch array without dimensions, everywhere."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastopt
from fastopt import losses, schedules
from fastopt.base import arguments
from fastopt.schedules.plateau import ReduceOnPlateau

X, LOGITS = np.array([[0.5, 2.0], [1.0, -1.0]]), np.array([[1.0, -2.0], [0.5, 0.25]])


def in_numpy(x: Any) -> Any:
    return np.array(x)


def in_jax(x: Any) -> Any:
    jnp = pytest.importorskip("jax.numpy", reason="jax is not installed: no arrays of its own")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return jnp.array(x)


def in_torch(x: Any) -> Any:
    torch = pytest.importorskip("torch", reason="torch is not installed: no tensors")
    return torch.tensor(x)


def in_torch_with_gradient(x: Any) -> Any:
    """Such is the loss that a closure has."""
    tensor = in_torch(x)
    return tensor.requires_grad_() * 1 if tensor.is_floating_point() else tensor


LIBRARIES = [in_numpy, in_jax, in_torch, in_torch_with_gradient]
every_library = pytest.mark.parametrize("array", LIBRARIES, ids=lambda library: library.__name__)


def sgd(**options: Any) -> Any:
    return fastopt.SGD([np.ones(2)], **{"lr": 0.25, **options})


def stepped(opt: Any) -> Any:
    opt.step([np.ones(2)])
    return opt._engine.plan.params[0].tolist()


def with_loss(x: Any) -> Any:
    p = np.ones(2)
    fastopt.PolyakSGD(p).step(np.ones(2), loss=x)
    return p.tolist()


def assigned(x: Any) -> Any:
    opt = sgd()
    opt.lr = x
    return stepped(opt)


def lbfgs(x: Any) -> Any:
    p = np.full(1, 2.0)
    return fastopt.LBFGS([p]).step(lambda: (x, [np.zeros(1)])).loss


def stopping(x: Any) -> Any:
    return fastopt.EarlyStopping(2, min_delta=x).update(x)


def plateau(x: Any) -> Any:
    made = ReduceOnPlateau(x, patience=1)
    made.update(x)
    return made.best, made(0)


# Each takes 0.5, and gives something to compare.
TAKES: dict[str, Callable[[Any], Any]] = {
    "lr": lambda x: stepped(sgd(lr=x)),
    "lr, assigned": assigned,
    "a schedule's value": lambda x: stepped(sgd(lr=lambda t: x)),
    "betas": lambda x: stepped(fastopt.Adam([np.ones(2)], lr=0.1, betas=(x, x))),
    "clip_norm": lambda x: stepped(sgd(clip_norm=x)),
    "a schedule": lambda x: schedules.exponential(x, gamma=x)(3),
    "max_norm": lambda x: fastopt.clip_grad_norm_([np.ones(2)], x),
    "the loss of a step": with_loss,
    "rho": lambda x: fastopt.SAM(sgd(), rho=x).rho,
    "decay": lambda x: fastopt.EMA([np.ones(2)], decay=x).decay,
    "EarlyStopping": stopping,
    "ReduceOnPlateau": plateau,
    "the loss of LBFGS": lbfgs,
    "the loss of minimize": lambda x: fastopt.minimize(lambda p: (x, np.zeros(1)), [2.0]).fun,
    "gradcheck": lambda x: bool(fastopt.gradcheck(lambda p: (x, np.zeros(2)), None, np.ones(2))),
    "gamma": lambda x: losses.focal(LOGITS, [0, 1], x)[0],
    "alpha": lambda x: losses.focal(LOGITS, [[0, 1], [1, 1]], alpha=x)[0],
    "label_smoothing": lambda x: losses.sparse_cross_entropy(LOGITS, [0, 1], label_smoothing=x)[0],
    "delta": lambda x: losses.huber(X, X * 0, x)[0],
    "smooth": lambda x: losses.dice(X * X / 4, X > 0, x)[0],
}


@every_library
@pytest.mark.parametrize("name", TAKES)
def test_a_number_in_an_array(name: str, array: Callable[[Any], Any]) -> None:
    assert TAKES[name](array(0.5)) == TAKES[name](0.5)


@every_library
@pytest.mark.parametrize("name", TAKES)
def test_a_vector_of_one_number_is_none(name: str, array: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError, match=r"expected .*; of an array of one element it is array\.item\(\)$"):
        TAKES[name](array([0.5]))


@every_library
def test_whole_numbers_and_switches(array: Callable[[Any], Any]) -> None:
    assert arguments.whole("n", array(3)) == 3
    assert arguments.boolean("b", array(True)) is True
    assert arguments.norm_order("norm", array(2)) == 2
    for wrong in (array([3]), array(True), array(3.0)):
        with pytest.raises(TypeError, match=r"^n is .*: expected a whole number"):
            arguments.whole("n", wrong)
    for wrong in (array(True), array([True]), array([1.0, 2.0]), array(1j)):
        with pytest.raises(TypeError, match=r"^x is .*: expected a number"):
            arguments.number("x", wrong)


def test_numbers_of_narrow_types() -> None:
    jnp = pytest.importorskip("jax.numpy", reason="jax is not installed: no bfloat16")
    for x in (jnp.array(1.5, jnp.bfloat16), np.float16(1.5), np.array(1.5, np.longdouble), in_torch(1.5).bfloat16()):
        assert arguments.number("x", x) == 1.5


def test_what_only_looks_like_a_number() -> None:
    jax = pytest.importorskip("jax", reason="jax is not installed: nothing to trace")
    for wrong in (np.array(np.timedelta64(1, "ns")), np.timedelta64(1, "ns"), np.datetime64(1, "ns"), np.array("1")):
        with pytest.raises(TypeError, match="expected a number"):
            arguments.number("x", wrong)
    with pytest.raises(TypeError, match=r"^lr is .*expected a number"):
        jax.jit(lambda x: arguments.number("lr", x))(1.0)
