"""True Nesterov: where the look-ahead point is, that nothing remains of it, and what is refused there."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastopt
from tests.cases import CASES, DTYPES, halving, ordinary, sprinkled
from tests.lockstep import assert_same_bits, copies, snapshot

FORMS = ["accumulate", "velocity", "ema"]
every_form = pytest.mark.parametrize("form", FORMS)
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)
LENGTHS = [0, 1, 17, 1041]


def bits(params: Any) -> list[bytes]:
    return [p.tobytes() for p in params]


@every_form
@every_dtype
@pytest.mark.parametrize("backend", ["c", "numpy"])
def test_the_point_is_that_of_the_formula(form: str, dtype: Any, backend: str) -> None:
    """With the lr and the momentum of the coming step, which differ between groups and steps."""

    def wavering(t: int) -> float:
        return 0.9 - 0.1 * (t % 3)

    rng = np.random.default_rng(0)
    params = [[ordinary(rng, n, dtype) for n in LENGTHS], [np.asfortranarray(ordinary(rng, (5, 7), dtype))]]
    groups = [{"params": params[0]}, {"params": params[1], "lr": 0.3, "momentum": wavering}]
    opt = fastopt.SGD(groups, lr=halving, momentum=0.8, momentum_form=form, backend=backend, l2=0.1)
    for t in range(5):
        expected = []
        for group, arrays in zip(opt.groups, params, strict=True):
            lr, mu = (group[key](t) if callable(group[key]) else group[key] for key in ("lr", "momentum"))
            c = dtype((1.0 if form == "velocity" else lr) * mu)
            expected += [p - c * opt.state[name]["b"] for name, p in zip(group.names, arrays, strict=True)]
        with opt.nesterov_point():
            assert bits([*params[0], *params[1]]) == bits(expected)
            g = [[ordinary(rng, p.shape, dtype) for p in arrays] for arrays in params]
        assert bits([*params[0], *params[1]])[1:] != bits(expected)[1:] or t == 0
        opt.step(g)


def rosenbrock_like(p: Any) -> Any:
    """The gradient of a smooth function that is neither quadratic nor separable."""
    x = p["x"]
    return {"x": x**3 - np.roll(x, 1) + 0.3 * np.cos(np.roll(x, -1))}


@every_form
@given(
    seed=st.integers(0, 2**32 - 1), mu=st.floats(0.01, 0.99), lr=st.floats(1e-3, 0.2), maximize=st.booleans(),
    n=st.integers(1, 40),
)  # fmt: skip
@settings(max_examples=25, deadline=None, derandomize=True)
def test_look_ahead_points_are_the_iterates_of_the_reformulation(
    form: str, seed: int, mu: float, lr: float, maximize: bool, n: int
) -> None:
    start = np.random.default_rng(seed).uniform(-1, 1, n)
    true, reformulated = {"x": start.copy()}, {"x": start.copy()}
    sign = -1.0 if maximize else 1.0
    ahead = fastopt.SGD(true, lr=lr, momentum=mu, momentum_form=form, maximize=maximize)
    same_lr = lr * (1 - mu) if form == "ema" else lr
    plain = fastopt.SGD(reformulated, lr=same_lr, momentum=mu, nesterov=True, maximize=maximize)
    for _ in range(12):
        with ahead.nesterov_point():
            np.testing.assert_allclose(true["x"], reformulated["x"], rtol=1e-11, atol=1e-11)
            g = {"x": sign * rosenbrock_like(true)["x"]}
        ahead.step(g)
        plain.step({"x": sign * rosenbrock_like(reformulated)["x"]})


@every_form
def test_look_ahead_points_are_the_iterates_of_torch(form: str) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed: nothing to compare with")
    start = np.random.default_rng(3).uniform(-1, 1, 30)
    params = {"x": start.copy()}
    ours = fastopt.SGD(params, lr=0.05, momentum=0.9, momentum_form=form)
    theirs = torch.tensor(start.copy(), requires_grad=True)
    opt = torch.optim.SGD([theirs], lr=0.05 * (0.1 if form == "ema" else 1), momentum=0.9, nesterov=True)
    for _ in range(30):
        with ours.nesterov_point():
            np.testing.assert_allclose(params["x"], theirs.detach().numpy(), rtol=1e-12, atol=1e-12)
            g = rosenbrock_like(params)
        ours.step(g)
        theirs.grad = torch.tensor(rosenbrock_like({"x": theirs.detach().numpy()})["x"])
        opt.step()


@every_form
@every_dtype
def test_parameters_come_back_bit_for_bit(form: str, dtype: Any) -> None:
    rng = np.random.default_rng(1)
    kinds = ("nan", "infinities", "zeros", "subnormals", "huge", "tiny")
    params = [sprinkled(rng, n, dtype, *kinds) for n in LENGTHS]
    opt = fastopt.SGD(params, lr=0.1, momentum=0.9, momentum_form=form)
    opt.step([sprinkled(rng, n, dtype, *kinds) for n in LENGTHS])
    for p in params:
        p[...] = sprinkled(rng, p.shape, dtype, *kinds)
    before = snapshot(opt)
    with opt.nesterov_point():
        assert bits(params) != [before[name] for name in opt.names]
    assert snapshot(opt) == before
    with pytest.raises(KeyboardInterrupt), opt.nesterov_point():
        raise KeyboardInterrupt
    assert snapshot(opt) == before
    opt.step([np.zeros(n, dtype) for n in LENGTHS])


def test_what_is_refused_inside_changes_nothing() -> None:
    params = {"W": np.ones(3)}
    opt = fastopt.SGD(params, lr=0.1, momentum=0.9, average=0.5)
    saved = opt.state_dict()
    opt.step({"W": np.ones(3)})
    before = snapshot(opt)
    with opt.nesterov_point():
        inside = snapshot(opt)
        for call in (
            lambda: opt.step({"W": np.ones(3)}),
            lambda: opt.nesterov_point().__enter__(),
            lambda: opt.averaged().__enter__(),
            lambda: opt.add_group({"params": np.ones(2)}),
            lambda: opt.load_state_dict(saved),
            lambda: fastopt.SAM(opt).first_step({"W": np.ones(3)}),
        ):
            with pytest.raises(RuntimeError, match="at the look-ahead point until"):
                call()
        assert snapshot(opt) == inside
        assert opt.state_dict()["t"] == 1
    assert snapshot(opt) == before
    opt.add_group({"params": [np.ones(2)]})
    with opt.nesterov_point():
        opt.accumulate([{"W": np.ones(3)}, [np.ones(2)]])
    assert opt.step().applied


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_other_rules_raise(case: Any) -> None:
    opt = case.make([np.ones(3)])
    if opt.rule == "momentum":
        with opt.nesterov_point():
            pass
    else:
        with pytest.raises(TypeError, match="nesterov=False" if opt.rule == "nesterov" else "for SGD with momentum"):
            opt.nesterov_point()


def test_a_schedule_out_of_its_domain_leaves_everything() -> None:
    params = [np.ones(3)]
    opt = fastopt.SGD(params, lr=lambda t: 0.1 if t == 0 else -1.0, momentum=0.9)
    opt.step([np.ones(3)])
    before = snapshot(opt)
    with pytest.raises(ValueError, match=r"lr \(its schedule at t=1\) is -1"), opt.nesterov_point():
        raise AssertionError("the block is not entered")
    assert snapshot(opt) == before
    opt.lr = 0.1
    with opt.nesterov_point():
        pass
    assert opt.step([np.ones(3)]).applied


def test_no_bit_depends_on_backend_or_threads() -> None:
    rng = np.random.default_rng(2)
    start = [ordinary(rng, n, np.float32) for n in (3, 200_000)]
    ours, theirs = copies(start), copies(start)
    a = fastopt.SGD(ours, lr=halving, momentum=0.9, momentum_form="ema", threads=2)
    b = fastopt.SGD(theirs, lr=halving, momentum=0.9, momentum_form="ema", backend="numpy")
    for _ in range(4):
        with a.nesterov_point(), b.nesterov_point():
            assert bits(ours) == bits(theirs)
            g = [np.float32(0.1) * p for p in ours]
        a.step(g)
        b.step(g)
    assert_same_bits(a, b)


def test_a_step_of_another_thread_is_refused_meanwhile() -> None:
    opt = fastopt.SGD([np.ones(3)], lr=0.1, momentum=0.9)
    raised: list[Exception] = []

    def attempt() -> None:
        try:
            opt.step([np.ones(3)])
        except RuntimeError as error:
            raised.append(error)

    with opt.nesterov_point():
        thread = threading.Thread(target=attempt)
        thread.start()
        thread.join()
    assert len(raised) == 1


def test_blocks_allocate_their_copies_once() -> None:
    opt = fastopt.SGD([np.ones(1000)], lr=0.1, momentum=0.9)
    with opt.nesterov_point():
        pass
    first = opt._engine.point
    with opt.nesterov_point():
        pass
    assert opt._engine.point is first


@pytest.mark.parametrize("kind", ["nesterov_point", "averaged", "swapped"])
def test_a_block_is_entered_again_and_not_inside_itself(kind: str) -> None:
    p = np.ones(3)
    opt = fastopt.SGD([p], lr=0.1, momentum=0.5, average=0.9)
    opt.step([np.ones(3)])
    ema = fastopt.EMA([p], 0.5)
    block = {"nesterov_point": opt.nesterov_point, "averaged": opt.averaged, "swapped": ema.swapped}[kind]()
    before = p.copy()
    for _ in range(2):
        with block:
            displaced = p.copy()
            with pytest.raises(RuntimeError), block:
                pass
            np.testing.assert_array_equal(p, displaced)
        np.testing.assert_array_equal(p, before)
    with pytest.raises(KeyError), block:
        raise KeyError
    opt.step([np.ones(3)])


def test_no_optimizer_of_these_parameters_steps_inside() -> None:
    params = {"W": np.ones(4), "b": np.ones(2)}
    opt = fastopt.SGD(params, lr=0.1, momentum=0.9)
    other = fastopt.Adam(params["W"])
    with opt.nesterov_point(), pytest.raises(RuntimeError, match="look-ahead point"):
        other.step(np.ones(4))
    assert other.step(np.ones(4)).applied
