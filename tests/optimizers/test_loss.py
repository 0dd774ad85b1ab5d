"""The loss as an argument of a step: who takes it, what it does, and what becomes of one that is not finite."""

from __future__ import annotations

import math
import pickle
from typing import Any

import numpy as np
import pytest

import fastopt
from tests.lockstep import assert_same_bits, copies, snapshot

START = {"W": np.linspace(-1, 2, 12).reshape(3, 4), "b": np.linspace(1, 3, 5)}
every_backend = pytest.mark.parametrize("backend", ["c", "numpy"])


def polyak(**options: Any) -> tuple[dict[str, Any], fastopt.PolyakSGD]:
    params = copies(START)
    return params, fastopt.PolyakSGD(params, **options)


def valley(params: dict[str, Any]) -> tuple[float, dict[str, Any]]:
    """A sum of squares, each with a weight of its own."""
    weights = {name: 0.5 + np.arange(p.size).reshape(p.shape) / p.size for name, p in params.items()}
    loss = sum(float(np.sum(weights[name] * p**2)) / 2 for name, p in params.items())
    return loss, {name: weights[name] * p for name, p in params.items()}


POLYAKS: dict[str, dict[str, Any]] = {
    "plain": {},
    "least": {"f_min": 25.0},
    "least, and never up": {"f_min": 25.0, "variant": "sps+"},
    "scaling": {"scaling": lambda t: 1 / (1 + t / 3), "eps": 0.25, "lr": 2.0},
    "largest": {"lr": 0.01},
}


@every_backend
@pytest.mark.parametrize("name", POLYAKS)
def test_polyak_s_step(name: str, backend: str) -> None:
    options = {"lr": 1.0, "scaling": 1.0, "f_min": 0.0, "eps": 0.0, "variant": "sps", **POLYAKS[name]}
    mine, opt = polyak(**POLYAKS[name], backend=backend)
    p = copies(START)
    steps = []
    for t in range(25):
        loss, g = valley(p)
        scaling = options["scaling"](t) if callable(options["scaling"]) else options["scaling"]
        u = {key: scaling * x for key, x in g.items()}
        squares = sum(float(np.sum(x * x)) for x in u.values())
        gap = loss - options["f_min"]
        gap = max(gap, 0.0) if options["variant"] == "sps+" else gap
        steps.append(min(gap / (squares + options["eps"]), options["lr"]))
        assert opt.step(valley(mine)[1], loss=valley(mine)[0])
        for key in p:
            p[key] = p[key] - steps[-1] * u[key]
            np.testing.assert_allclose(mine[key], p[key], rtol=1e-9, atol=1e-9, err_msg=f"{key} after step {t + 1}")
    assert (min(steps) < 0) == (name == "least")
    assert len(set(steps)) > 1 or name in ("largest", "least, and never up")


@every_backend
def test_a_gradient_too_small_to_divide_by_moves_nothing(backend: str) -> None:
    for g, moves in ((0.0, False), (1e-9, False), (1e-7, True), (1e200, False)):
        p = np.ones(1)
        assert fastopt.PolyakSGD(p, backend=backend).step(np.full(1, g), loss=1e-9)
        assert (p[0] != 1) == moves, g


@every_backend
def test_groups_share_the_norm_and_not_their_largest_step(backend: str) -> None:
    a, b, c = np.ones(2), np.ones(1), np.ones(3)
    groups = [{"params": a}, {"params": b, "lr": 0.01}, {"params": c, "lr": 0}]
    opt = fastopt.PolyakSGD(groups, backend=backend)
    opt.step([np.full(2, 1.0), np.full(1, 1.0), None], loss=0.6)
    assert a == pytest.approx(np.full(2, 1 - 0.2))
    assert b == pytest.approx([1 - 0.01])
    opt.step([None, np.full(1, 2.0), np.full(3, 2.0)], loss=0.016)
    assert b == pytest.approx([1 - 0.01 - 2 * 0.001])
    assert (c == 1).all()
    for name in ("scaling", "f_min", "eps"):
        with pytest.raises(ValueError, match=rf"groups 0 and 1 of PolyakSGD have {name} .* and 0\.5"):
            fastopt.PolyakSGD([{"params": np.ones(2)}, {"params": np.ones(2), name: 0.5}])


@every_backend
def test_a_rule_that_needs_the_loss_refuses_none_and_no_other_takes_it(backend: str) -> None:
    params, opt = polyak(backend=backend)
    assert opt.takes_loss
    before = snapshot(opt)
    loss, g = valley(params)
    for act in (opt.step, opt.accumulate):
        with pytest.raises(TypeError, match=r"^PolyakSGD needs the loss beside its gradients"):
            act(g)
        for wrong in ("0.5", True, 1j, np.ones(1), g):
            with pytest.raises(TypeError, match=r"^loss is .*: expected a number, the unscaled loss"):
                act(g, loss=wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="has shape"):
        opt.step({**g, "b": np.ones(4)}, loss=loss)
    assert snapshot(opt) == before
    assert opt.step(g, loss=loss)
    for other in (fastopt.Prodigy(copies(START), backend=backend), fastopt.SGD(copies(START), 0.1, backend=backend)):
        assert not other.takes_loss
        before = snapshot(other)
        for act in (other.step, other.accumulate):
            with pytest.raises(TypeError, match=rf"^loss is 0.5, but {type(other).__name__} takes none"):
                act(g, loss=0.5)
        assert snapshot(other) == before


@every_backend
def test_in_groups_of_other_rules_it_goes_to_those_that_need_it(backend: str) -> None:
    mine, alone = copies(START), copies(START)
    opt = fastopt.AdamW([{"params": {"W": mine["W"]}}], lr=0.1, backend=backend)
    with pytest.raises(TypeError, match=r"loss is 0\.5, but AdamW takes none"):
        opt.step([{"W": np.ones((3, 4))}], loss=0.5)
    frozen = {"params": {"still": np.ones(2)}, "rule": "polyaksgd", "frozen": True}
    opt.add_group(frozen)
    assert not opt.takes_loss
    opt.add_group({"params": {"b": mine["b"]}, "rule": "polyaksgd", "f_min": -1.0})
    first = fastopt.AdamW({"W": alone["W"]}, lr=0.1)
    second = fastopt.PolyakSGD({"b": alone["b"]}, f_min=-1.0)
    for k in range(3):
        _, g = valley(mine)
        loss = 1.0 / (1 + k)
        with pytest.raises(TypeError, match="PolyakSGD needs the loss"):
            opt.step([{"W": g["W"]}, None, {"b": g["b"]}])
        assert opt.step([{"W": g["W"]}, None, {"b": g["b"]}], loss=loss)
        first.step({"W": g["W"]})
        second.step({"b": g["b"]}, loss=loss)
    assert all(mine[name].tobytes() == alone[name].tobytes() for name in mine)


@every_backend
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_one_that_is_not_finite_is_as_a_gradient_that_is_not(bad: float, backend: str) -> None:
    for policy in (None, "raise", "skip"):
        for more in ({}, {"clip_norm": 1.0}):
            params, opt = polyak(on_nonfinite=policy, backend=backend, average=0.5, **more)
            loss, g = valley(params)
            opt.step(g, loss=loss)
            before = snapshot(opt)
            words = f"the loss is {bad}: the step was not applied"
            if policy == "skip":
                report = opt.step(g, loss=bad, grad_scale=2.0)
                assert report == (False, pytest.approx(fastopt.global_norm(g) / 2, rel=1e-14), 1, 1)
                assert report.nonfinite.startswith(words)  # type: ignore[attr-defined]
                assert opt.step({**g, "b": None}, loss=bad).skipped == 2
            else:
                with pytest.raises(fastopt.NonFiniteError, match=words):
                    opt.step(g, loss=bad)
            with pytest.raises(ValueError, match="has shape"):
                opt.step({**g, "b": np.ones(4)}, loss=bad)
            # No gradient is no step, whatever the loss is.
            assert opt.step(None, loss=bad) == (False, None, 1, opt._engine.skipped)
            assert snapshot(opt) == before
            assert opt.step(g, loss=loss).step == 2


def test_so_many_in_a_row_may_be_skipped_for_it_and_a_loss_scaler_backs_off() -> None:
    params, opt = polyak(on_nonfinite="skip", max_skips=2)
    loss, g = valley(params)
    scaler = fastopt.LossScaler(4.0)
    for _ in range(2):
        scaled = {name: scaler.scale * x for name, x in g.items()}
        scaler.update(opt.step(scaled, loss=math.nan, grad_scale=scaler.scale))
    assert scaler.scale == 1.0
    with pytest.raises(fastopt.NonFiniteError, match=r"the loss is nan: .*; the 2 steps before it were skipped"):
        opt.step(g, loss=math.nan)
    assert opt.step(g, loss=loss)


def test_it_is_the_unscaled_one() -> None:
    (p, ours), (q, theirs) = polyak(), polyak()
    for _ in range(3):
        loss, g = valley(p)
        ours.step(g, loss=loss)
        theirs.step({name: 1024 * x for name, x in g.items()}, loss=loss, grad_scale=1024)
    assert all(p[name].tobytes() == q[name].tobytes() for name in p)


@every_backend
def test_maximize_is_refused(backend: str) -> None:
    words = "PolyakSGD with maximize=True"
    with pytest.raises(ValueError, match=words):
        polyak(maximize=True)
    _, opt = polyak(backend=backend)
    for change in (lambda: setattr(opt, "maximize", True), lambda: opt.groups[0].update(maximize=True)):
        with pytest.raises(ValueError, match=words):
            change()
    with pytest.raises(ValueError, match=words):
        opt.add_group({"params": np.ones(2), "maximize": True})
    opt.maximize = False


# Beside a step


@every_backend
def test_accumulate_takes_the_mean_by_weight(backend: str) -> None:
    (p, ours), (_, theirs) = polyak(backend=backend), polyak()
    _, g = valley(p)
    for loss, weight in ((1.0, 1.0), (3.0, 3.0), (2.0, 4.0)):
        ours.accumulate(g, weight, loss=loss)
    with pytest.raises(TypeError, match=r"^loss is 2.0, with what was accumulated: pass it to accumulate"):
        ours.step(loss=2.0)
    assert ours.step()
    theirs.step(g, loss=2.25)
    assert_same_bits(ours, theirs)


@every_backend
def test_what_is_pending_is_saved_with_its_loss(backend: str) -> None:
    params, opt = polyak(backend=backend)
    _, g = valley(params)
    opt.accumulate(g, loss=3.0)
    opt.accumulate(g, loss=1.0)
    saved = pickle.loads(pickle.dumps(opt.state_dict()))
    assert saved["accumulation"]["loss"] == 2.0
    _, other = polyak(backend=backend)
    for wrong in ({}, {"loss": None}, {"loss": "2"}, {"loss": 2}):
        kept = {key: x for key, x in saved["accumulation"].items() if key != "loss"}
        with pytest.raises(ValueError, match=r"accumulation has the loss .*: expected a number"):
            other.load_state_dict({**saved, "accumulation": {**kept, **wrong}})
    other.load_state_dict(saved)
    for each in (opt, other):
        each.accumulate(g, loss=4.0)
        each.step()
    assert_same_bits(opt, other)
    sgd = fastopt.SGD(copies(START), 0.1)
    sgd.accumulate(g)
    saved = sgd.state_dict()
    assert saved["accumulation"].keys() == {"count", "weight", "gradients"}
    with pytest.raises(ValueError, match=r"accumulation has the loss 0.5: expected none"):
        sgd.load_state_dict({**saved, "accumulation": {**saved["accumulation"], "loss": 0.5}})


def test_a_pending_loss_that_is_not_finite_is_met_at_the_step() -> None:
    params, opt = polyak(on_nonfinite="skip")
    loss, g = valley(params)
    opt.accumulate(g, loss=math.nan)
    opt.accumulate(g, loss=loss)
    assert opt.step().skipped == 1
    opt.on_nonfinite = "raise"
    opt.accumulate(g, loss=math.inf)
    with pytest.raises(fastopt.NonFiniteError, match="the loss is inf"):
        opt.step()
    opt.discard_accumulated()
    assert opt.step(g, loss=loss)


def test_sam_steps_with_the_loss_where_its_gradient_is_from() -> None:
    (p, opt), (q, plain) = polyak(), polyak()
    sam = fastopt.SAM(opt, rho=0.1)
    seen = []

    def closure() -> Any:
        seen.append(valley(p))
        return seen[-1]

    for _ in range(3):
        assert sam.step(closure)
        loss, g = seen[-1]
        plain.step(g, loss=loss)
        sam.first_step(valley(p)[1])
        loss, g = valley(p)
        sam.second_step(g, loss=loss)
        plain.step(g, loss=loss)
    assert all(p[name].tobytes() == q[name].tobytes() for name in p)
    for wrong in (lambda: valley(p)[1], lambda: (1.0, None), lambda: (1.0,), lambda: None):
        before = snapshot(opt)
        with pytest.raises(TypeError, match=r"closure\(\) returned .*: return"):
            sam.step(wrong)
        assert snapshot(opt) == before
    sam.first_step(valley(p)[1])
    with pytest.raises(TypeError, match="needs the loss"):
        sam.second_step(valley(p)[1])
    sgd = fastopt.SAM(fastopt.SGD(copies(START), 0.1))
    sgd.first_step(START)
    with pytest.raises(TypeError, match="SGD takes none"):
        sgd.second_step(START, loss=1.0)


def test_sam_skips_first_gradients_that_are_not_finite() -> None:
    params, opt = polyak(on_nonfinite="skip")
    sam = fastopt.SAM(opt)
    loss, g = valley(params)
    assert sam.step(lambda: (loss, {**g, "b": np.full(5, np.nan)})).skipped == 1


def test_minimize_passes_it_on() -> None:
    def fun(x: Any) -> tuple[float, Any]:
        loss, g = valley({"x": x})
        return loss, g["x"]

    found = fastopt.minimize(fun, np.linspace(1, 3, 5), method="polyaksgd", max_iterations=200)
    assert found.success
    assert found.fun < 1e-8
