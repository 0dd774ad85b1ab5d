"""What is fastopt's own: every class against fastopt over NumPy arrays, from the same numbers to the same bits."""

from __future__ import annotations

import copy
import io
from typing import Any

import numpy as np
import pytest

import fastopt
from fastopt.base.nonfinite import NonFiniteError
from tests.torch.common import DROP_INS, OWN, bits, ft, torch
from tests.torch.test_cases import params_of

SHAPES: list[tuple[int, ...]] = [(9, 7), (7,), (), (1031,), (2, 3, 4)]
STEPS = 20

# Keywords of the class of PyTorch's name, and what fastopt calls them.
TRANSLATED: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("SGD", {"lr": 0.1, "weight_decay": 0.1}, {"lr": 0.1, "l2": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.3}, {"lr": 0.1, "momentum": 0.9, "dampening": 0.3}),
    (
        "SGD",
        {"lr": 0.1, "momentum": 0.9, "nesterov": True, "maximize": True},
        {"lr": 0.1, "momentum": 0.9, "nesterov": True, "maximize": True},
    ),
    ("Adam", {"weight_decay": 0.1}, {"l2": 0.1}),
    ("Adam", {"amsgrad": True, "maximize": True, "lr": 0.1}, {"amsgrad": True, "maximize": True, "lr": 0.1}),
    ("Adam", {"weight_decay": 0.1, "decoupled_weight_decay": True}, {"decoupled_decay": 0.1}),
    ("AdamW", {"lr": 0.1}, {"lr": 0.1}),
    ("AdamW", {"amsgrad": True, "weight_decay": 0.3, "eps": 1e-3}, {"amsgrad": True, "weight_decay": 0.3, "eps": 1e-3}),
    ("Adagrad", {"lr": 0.1, "lr_decay": 0.1}, {"lr": 0.1, "lr_decay": 0.1}),
    (
        "Adagrad",
        {"initial_accumulator_value": 0.5, "weight_decay": 0.1},
        {"initial_accumulator": 0.5, "l2": 0.1, "lr": 0.01},
    ),
    ("RMSprop", {"alpha": 0.9, "weight_decay": 0.1}, {"rho": 0.9, "l2": 0.1}),
    ("RMSprop", {"alpha": 0.99, "momentum": 0.9, "centered": True}, {"rho": 0.99, "momentum": 0.9, "centered": True}),
    ("NAdam", {"lr": 0.1, "momentum_decay": 0.004}, {"lr": 0.1, "momentum_decay": 0.004}),
    (
        "NAdam",
        {"weight_decay": 0.1, "decoupled_weight_decay": True},
        {"momentum_decay": 0.004, "decoupled_decay": 0.1, "lr": 0.002},
    ),
    ("RAdam", {"lr": 0.1, "weight_decay": 0.1}, {"lr": 0.1, "l2": 0.1}),
    ("Adamax", {"lr": 0.1, "weight_decay": 0.1}, {"lr": 0.1, "l2": 0.1}),
    ("Adadelta", {"lr": 0.5, "weight_decay": 0.1}, {"lr": 0.5, "l2": 0.1}),
    ("Rprop", {"lr": 0.01, "maximize": True}, {"lr": 0.01, "maximize": True}),
    ("ASGD", {"lr": 0.1, "lambd": 0.1, "t0": 3.0}, {"lr": 0.1, "lambd": 0.1, "t0": 3.0}),
    ("Adafactor", {"lr": 0.1, "weight_decay": 0.1}, {"lr": 0.1, "weight_decay": 0.1}),
    (
        "Adafactor",
        {"beta2_decay": -0.5, "eps": (1e-8, 1e-2), "d": 1.5},
        {"beta2_decay": -0.5, "eps": (1e-8, 1e-2), "d": 1.5},
    ),
]
SAME: list[tuple[str, dict[str, Any]]] = [
    ("Lion", {"lr": 0.01}),
    ("Lion", {"betas": (0.8, 0.9), "weight_decay": 0.1, "maximize": True}),
    ("LAMB", {"lr": 0.1}),
    ("LAMB", {"weight_decay": 0.1, "ratio_limits": (0.01, 2.0), "correct_v": False, "norm_eps": 1e-6}),
    ("Prodigy", {}),
    ("Prodigy", {"weight_decay": 0.1, "safeguard_warmup": True, "growth_rate": 1.1, "d_coef": 2.0, "beta3": 0.9}),
    ("Prodigy", {"update": "optax", "bias_correction": True}),
]
RULES = [pytest.param(name, a, b, id=f"{name}-{i}") for i, (name, a, b) in enumerate(TRANSLATED)] + [
    pytest.param(name, a, a, id=f"{name}-{i}") for i, (name, a) in enumerate(SAME)
]

STAGES: list[dict[str, Any]] = [
    {},
    {"clip_norm": 3.0},
    {"clip_value": 0.25},
    {"on_nonfinite": "skip"},
    {"average": 0.9},
    {"threads": 2},
    {"flush_subnormals": True},
    {"clip_norm": 3.0, "on_nonfinite": "raise", "average": 0.5, "threads": 1},
]
# With float64 none and all at once.
STAGED = [
    pytest.param(stages, dtype, id=f"{'+'.join(stages) or 'plain'}-{str(dtype)[-2:]}")
    for dtype in (torch.float32, torch.float64)
    for stages in (STAGES if dtype is torch.float32 else STAGES[:: len(STAGES) - 1])
]


# The scalars of NAdam and ASGD are kept in the default dtype, fastopt's in float64.
pytestmark = pytest.mark.usefixtures("double_by_default")


def values(t: int, dtype: Any) -> list[Any]:
    rng = np.random.default_rng(t)
    return [np.array(rng.standard_normal(shape), str(dtype).removeprefix("torch.")) for shape in SHAPES]


def tensors(arrays: list[Any]) -> list[Any]:
    return [torch.nn.Parameter(torch.from_numpy(a.copy())) for a in arrays]


def both(name: str, kwargs: dict[str, Any], own: dict[str, Any], dtype: Any, stages: dict[str, Any]) -> Any:
    arrays = values(0, dtype)
    opt = getattr(ft, name)(tensors(arrays), **kwargs, **stages)
    twin = getattr(fastopt, name)(arrays, **own, **{"flush_subnormals": False, **stages})
    return opt, twin, arrays


def give(opt: Any, grads: list[Any]) -> None:
    for p, g in zip(params_of(opt), grads, strict=True):
        p.grad = None if g is None else torch.from_numpy(g).to(p.dtype)


def assert_bits(opt: Any, arrays: list[Any], when: str = "") -> None:
    for k, (p, a) in enumerate(zip(params_of(opt), arrays, strict=True)):
        assert bits(p) == a.tobytes(), f"parameter {k} {when}"


@pytest.mark.parametrize(("name", "kwargs", "own"), RULES)
@pytest.mark.parametrize(("stages", "dtype"), STAGED)
def test_the_bits_are_those_over_arrays(
    name: str, kwargs: dict[str, Any], own: dict[str, Any], stages: dict[str, Any], dtype: Any
) -> None:
    opt, twin, arrays = both(name, kwargs, own, dtype, stages)
    for t in range(1, STEPS + 1):
        grads: list[Any] = [np.asarray(g / (1 + t % 5), g.dtype) for g in values(t, dtype)]
        if t % 4 == 2:
            grads[t % len(SHAPES)] = None
        if t in (1, 9) and stages == {"on_nonfinite": "skip"}:
            grads[0][0, 0] = np.inf
        if stages.get("flush_subnormals") and grads[3] is not None:
            grads[3] *= np.asarray(1e-37, grads[3].dtype)
        give(opt, grads)
        opt.step()
        report = twin.step(grads)
        assert_bits(opt, arrays, f"after step {t}")
        if "clip_norm" in stages:
            assert opt.grad_norm == report.grad_norm
    if "average" in stages:
        assert [bits(x) for x in opt.averages()] == [a.tobytes() for a in twin.averages]
    if stages == {"on_nonfinite": "skip"}:
        assert opt.skipped == 2
    for of_p, (key, of_twin) in zip((opt.state[p] for p in params_of(opt)), twin.state.items(), strict=True):
        keys = opt._translation.keys
        for slot, a in of_twin.items():
            if isinstance(a, np.ndarray):
                assert bits(of_p[keys.get(slot, slot)]) == np.ascontiguousarray(a).tobytes(), (key, slot)
        if opt._translation.counted:
            assert of_p["step"].item() == of_twin["t"]


# Prodigy's share d: the next test is of them.
@pytest.mark.parametrize(("name", "kwargs", "own"), [rule for rule in RULES if "Prodigy" not in rule.values[0]])
def test_groups(name: str, kwargs: dict[str, Any], own: dict[str, Any]) -> None:
    arrays = values(0, torch.float32)
    params = tensors(arrays)
    lr = own.get("lr", 0.01)
    opt = getattr(ft, name)(
        [{"params": params[:2], "lr": lr}, {"params": params[2:], "lr": lr / 4, "maximize": True}], **kwargs
    )
    twin = getattr(fastopt, name)(
        [{"params": arrays[:2], "lr": lr}, {"params": arrays[2:], "lr": lr / 4, "maximize": True}],
        **own,
        flush_subnormals=False,
    )
    for t in range(1, 8):
        grads = values(t, torch.float32)
        give(opt, grads)
        opt.step()
        twin.step([grads[:2], grads[2:]])
        if t == 4:
            opt.param_groups[0]["lr"] = lr / 2
            twin.groups[0]["lr"] = lr / 2
        assert_bits(opt, arrays, f"after step {t}")


def test_prodigy_shares_d_among_groups_and_shows_it_in_each() -> None:
    arrays = values(0, torch.float32)
    params = tensors(arrays)
    opt = ft.Prodigy([{"params": params[:2]}, {"params": params[2:], "weight_decay": 0.1}])
    twin = fastopt.Prodigy(
        [{"params": arrays[:2]}, {"params": arrays[2:], "weight_decay": 0.1}], flush_subnormals=False
    )
    for t in range(1, 12):
        grads = [np.array(a) for a in arrays]
        give(opt, grads)
        opt.step()
        twin.step([grads[:2], grads[2:]])
        assert_bits(opt, arrays, f"after step {t}")
        for group in opt.param_groups:
            assert group["d"] == twin.scalars["d"]
    assert opt.param_groups[0]["d"] > 1e-6


def make(name: str, dtype: Any = torch.float32, **more: Any) -> Any:
    arrays = values(0, dtype)
    kwargs = {"SGD": {"lr": 0.1, "momentum": 0.9, "dampening": 0.3}, "ASGD": {"lr": 0.1, "t0": 2.0}}.get(name, {})
    return getattr(ft, name)(tensors(arrays), **kwargs, average=0.9, **more)


def run(opt: Any, steps: range) -> None:
    for t in steps:
        grads = values(t, torch.float32)
        if t % 3 == 1:
            grads[1] = None
        give(opt, grads)
        opt.step()


@pytest.mark.parametrize("name", DROP_INS + OWN)
@pytest.mark.parametrize("single", [False, True], ids=["f64", "f32"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32-parameters", "f64-parameters"])
def test_a_run_that_is_resumed_is_the_one_that_goes_on(name: str, single: bool, dtype: Any) -> None:
    if single:
        torch.set_default_dtype(torch.float32)
    whole, first, second = (make(name, dtype) for _ in range(3))
    run(whole, range(1, 10))
    run(first, range(1, 6))
    file = io.BytesIO()
    torch.save([first.state_dict(), [p.detach() for p in params_of(first)]], file)
    file.seek(0)
    saved, at = torch.load(file, weights_only=True)
    with torch.no_grad():
        for p, x in zip(params_of(second), at, strict=True):
            p.copy_(x)
    second.load_state_dict(saved)
    run(second, range(6, 10))
    assert [bits(p) for p in params_of(second)] == [bits(p) for p in params_of(whole)]
    assert [bits(x) for x in second.averages()] == [bits(x) for x in whole.averages()]
    for p, q in zip(params_of(second), params_of(whole), strict=True):
        assert {k: bits(x) for k, x in second.state[p].items()} == {k: bits(x) for k, x in whole.state[q].items()}
    assert second.state_dict()["param_groups"] == whole.state_dict()["param_groups"]


def test_prodigy_s_d_comes_back_with_load_state_dict() -> None:
    first, second = make("Prodigy"), make("Prodigy")
    for opt, steps in ((first, 9), (second, 2)):
        for _ in range(steps):
            give(opt, [p.detach().numpy().copy() for p in params_of(opt)])
            opt.step()
    saved = copy.deepcopy(first.state_dict())
    second.load_state_dict(saved)
    assert second.param_groups[0]["d"] == first.param_groups[0]["d"] != 1e-6


def test_averages_and_what_is_put_back() -> None:
    opt = make("AdamW")
    before = [bits(p) for p in params_of(opt)]
    assert [bits(x) for x in opt.averages()] == before
    run(opt, range(1, 5))
    at, averages = [bits(p) for p in params_of(opt)], [bits(x) for x in opt.averages()]
    assert at != averages
    with opt.averaged():
        assert [bits(p) for p in params_of(opt)] == averages
        with pytest.raises(RuntimeError, match=r"inside averaged\(\)"):
            opt.step()
        with pytest.raises(RuntimeError, match=r"inside averaged\(\)"):
            opt.load_state_dict(opt.state_dict())
        with pytest.raises(RuntimeError, match=r"inside averaged\(\)"), opt.averaged():
            pass
    assert [bits(p) for p in params_of(opt)] == at
    with pytest.raises(KeyError), opt.averaged():
        raise KeyError
    assert [bits(p) for p in params_of(opt)] == at
    run(opt, range(5, 6))
    opt.average = None
    with pytest.raises(ValueError, match="keeps no averages: pass average="):
        opt.averages()
    with pytest.raises(ValueError, match="keeps no averages"), opt.averaged():
        pass


@pytest.mark.parametrize("name", ["SGD", "AdamW"])
def test_an_average_that_begins_in_mid_run_changes_no_step(name: str) -> None:
    kwargs = {"lr": 0.1, "momentum": 0.9, "dampening": 0.3} if name == "SGD" else {"lr": 0.1}
    opt, twin = (getattr(ft, name)(tensors(values(0, torch.float32)), **kwargs) for _ in range(2))
    for t in range(1, 6):
        if t == 3:
            opt.average = 0.5
        run(opt, range(t, t + 1))
        run(twin, range(t, t + 1))
    assert [bits(p) for p in params_of(opt)] == [bits(p) for p in params_of(twin)]
    assert [bits(x) for x in opt.averages()] != [bits(p) for p in params_of(opt)]


def test_steps_that_are_skipped() -> None:
    opt = ft.SGD(tensors(values(0, torch.float32)), lr=0.1, momentum=0.9, dampening=0.3, on_nonfinite="skip")
    twin = torch.optim.SGD(tensors(values(0, torch.float32)), lr=0.1, momentum=0.9, dampening=0.3, foreach=False)
    grads = values(1, torch.float32)
    grads[3][17] = np.nan
    before = [bits(p) for p in params_of(opt)]
    give(opt, grads)
    opt.step()
    assert [bits(p) for p in params_of(opt)] == before
    assert [p._version for p in params_of(opt)] == [0] * len(before)
    assert opt.skipped == 1
    assert not opt.state
    # A momentum begins with the first step that is taken, whatever happens before it.
    opt.threads = 1
    assert opt.skipped == 1
    for t in (2, 3):
        for one in (opt, twin):
            give(one, values(t, torch.float32))
            one.step()
    for p, q in zip(params_of(opt), params_of(twin), strict=True):
        torch.testing.assert_close(p, q)
    assert opt.skipped == 1


@pytest.mark.parametrize("option", [{"on_nonfinite": "raise"}, {"clip_norm": 1.0}])
@pytest.mark.parametrize("begun", [False, True])
def test_gradients_that_are_not_finite(option: dict[str, Any], begun: bool) -> None:
    params = tensors(values(0, torch.float32))
    opt = ft.AdamW([(f"layer.{k}", p) for k, p in enumerate(params)], **option)
    if begun:
        run(opt, range(1, 3))
    grads = values(1, torch.float32)
    grads[0][2, 3] = np.nan
    grads[3][:2] = np.inf
    before = [bits(p) for p in params], {id(p): {k: bits(x) for k, x in s.items()} for p, s in opt.state.items()}
    give(opt, grads)
    with pytest.raises(NonFiniteError, match=r"gradient of parameter 'layer.0' is nan at index \(2, 3\)"):
        opt.step()
    after = [bits(p) for p in params], {id(p): {k: bits(x) for k, x in s.items()} for p, s in opt.state.items()}
    assert before == after
    give(opt, values(2, torch.float32))
    opt.step()
    give(opt, [np.full(shape, 3e38, np.float32) for shape in SHAPES])
    opt.step()
    assert opt.grad_norm > 1e39


def test_options_that_change_in_mid_run() -> None:
    opt = make("AdamW")
    twin = fastopt.AdamW(values(0, torch.float32), average=0.9, flush_subnormals=False)
    arrays = values(0, torch.float32)
    twin = fastopt.AdamW(arrays, average=0.9, flush_subnormals=False)
    for t, clip in enumerate([None, 1.0, 0.1, None], 1):
        opt.clip_norm = twin.clip_norm = clip
        assert opt.clip_norm == clip
        grads = values(t, torch.float32)
        give(opt, grads)
        opt.step()
        twin.step(grads)
        assert_bits(opt, arrays, f"with clip_norm={clip}")
    with pytest.raises(ValueError, match="together"):
        opt.clip_value, opt.clip_norm = 1.0, 1.0
    assert (opt.clip_value, opt.clip_norm) == (1.0, None)


def test_threads_change_no_bit() -> None:
    found = []
    for threads in (1, 2, 4):
        params = [torch.nn.Parameter(torch.from_numpy(np.random.default_rng(0).standard_normal(300_000)))]
        opt = ft.LAMB(params, threads=threads, clip_norm=1.0)
        for t in range(3):
            params[0].grad = torch.from_numpy(np.random.default_rng(t).standard_normal(300_000))
            opt.step()
        found.append((bits(params[0]), opt.grad_norm))
    assert found[0] == found[1] == found[2]


def test_every_class_says_what_it_takes() -> None:
    import inspect

    for name in DROP_INS + OWN:
        cls = getattr(ft, name)
        names = [*inspect.signature(cls).parameters]
        assert {"params", "lr", "maximize", "clip_norm", "average", "fallback"} <= set(names)
        assert cls.__module__ == "fastopt.torch"
        assert cls.__doc__


def test_polyak_takes_the_loss_from_the_closure_or_beside_it() -> None:
    start = np.array([3.0, -4.0])
    q = start.copy()
    twin = fastopt.PolyakSGD([q], flush_subnormals=False)
    p = torch.nn.Parameter(torch.from_numpy(start.copy()))
    opt = ft.PolyakSGD([p])

    def closure() -> Any:
        opt.zero_grad()
        loss = (p @ p) / 2
        loss.backward()
        return loss

    for beside in (False, True, False):
        if beside:
            opt.step(loss=closure().item())
        else:
            opt.step(closure)
        twin.step([q.copy()], loss=float(q @ q / 2))
        assert bits(p) == q.tobytes()
    with pytest.raises(TypeError, match="PolyakSGD needs the loss"):
        opt.step()
    with pytest.raises(fastopt.NonFiniteError, match="the loss is nan"):
        opt.step(loss=float("nan"))
    with pytest.raises(TypeError, match="Adam does not take the loss"):
        ft.Adam([p]).step(loss=1.0)
    assert bits(p) == q.tobytes()
    opt.on_nonfinite = "skip"
    opt.step(loss=float("inf"))
    assert (opt.skipped, bits(p)) == (1, q.tobytes())
