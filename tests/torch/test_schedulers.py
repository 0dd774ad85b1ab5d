"""PyTorch's schedulers and averages of weights over the optimizers here, as over its own."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from tests.torch.common import DROP_INS, OWN, bits, ft, torch
from tests.torch.test_cases import close, params_of
from tests.torch.test_contract import made, pair, same, step

sched = torch.optim.lr_scheduler


def chained(opt: Any) -> Any:
    return sched.ChainedScheduler([sched.ExponentialLR(opt, 0.9), sched.ConstantLR(opt, 0.5, 3)])


def in_sequence(opt: Any) -> Any:
    return sched.SequentialLR(opt, [sched.ConstantLR(opt, 0.1, 2), sched.StepLR(opt, 2, 0.5)], milestones=[2])


def one_cycle(opt: Any) -> Any:
    cycled = "momentum" in opt.defaults or "betas" in opt.defaults
    return sched.OneCycleLR(opt, max_lr=0.2, total_steps=12, cycle_momentum=cycled)


def cyclic(opt: Any) -> Any:
    cycled = "momentum" in opt.defaults or "betas" in opt.defaults
    return sched.CyclicLR(opt, base_lr=0.01, max_lr=0.2, step_size_up=3, cycle_momentum=cycled)


SCHEDULERS: dict[str, Callable[[Any], Any]] = {
    "LambdaLR": lambda o: sched.LambdaLR(o, lambda t: 0.9**t),
    "MultiplicativeLR": lambda o: sched.MultiplicativeLR(o, lambda t: 0.95),
    "StepLR": lambda o: sched.StepLR(o, 3, 0.5),
    "MultiStepLR": lambda o: sched.MultiStepLR(o, [2, 5], 0.5),
    "ConstantLR": lambda o: sched.ConstantLR(o, 0.5, 4),
    "LinearLR": lambda o: sched.LinearLR(o, 0.3, 1.0, 5),
    "ExponentialLR": lambda o: sched.ExponentialLR(o, 0.8),
    "PolynomialLR": lambda o: sched.PolynomialLR(o, 8, 2.0),
    "CosineAnnealingLR": lambda o: sched.CosineAnnealingLR(o, 5, 0.01),
    "CosineAnnealingWarmRestarts": lambda o: sched.CosineAnnealingWarmRestarts(o, 3),
    "ReduceLROnPlateau": lambda o: sched.ReduceLROnPlateau(o, patience=1, factor=0.5),
    "ChainedScheduler": chained,
    "SequentialLR": in_sequence,
    "OneCycleLR": one_cycle,
    "CyclicLR": cyclic,
    "SWALR": lambda o: torch.optim.swa_utils.SWALR(o, swa_lr=0.01, anneal_epochs=4),
}
NO_SCHEDULERS = {"LRScheduler", "Optimizer"}


def test_every_scheduler_of_pytorch_is_here() -> None:
    there = {
        name
        for name, x in vars(sched).items()
        if isinstance(x, type) and issubclass(x, sched.LRScheduler) and not name.startswith("_")
    }
    assert there - NO_SCHEDULERS <= set(SCHEDULERS)


def options(name: str) -> dict[str, Any]:
    return {"momentum": 0.9} if name in ("SGD", "RMSprop") else {}


def advance(scheduler: Any, t: int) -> None:
    if isinstance(scheduler, sched.ReduceLROnPlateau):
        scheduler.step(1.0 + t % 3)
    else:
        scheduler.step()


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("name", DROP_INS)
def test_the_path_under_a_scheduler(name: str, scheduler: str) -> None:
    opts = pair(name, (3, 4), (5,), **options(name))
    for opt in opts:
        opt.add_param_group({"params": [torch.nn.Parameter(torch.ones(2))], "lr": 0.03})
    schedulers = [SCHEDULERS[scheduler](opt) for opt in opts]
    lrs = []
    for t in range(10):
        for opt, s in zip(opts, schedulers, strict=True):
            step(opt, t)
            advance(s, t)
        lrs.append(tuple(group["lr"] for group in opts[0].param_groups))
        assert [g["lr"] for g in opts[0].param_groups] == [g["lr"] for g in opts[1].param_groups]
        for p, q in zip(*map(params_of, opts), strict=True):
            close(p.detach(), q.detach(), f"after step {t}")
    same(opts)
    assert len(set(lrs)) > 1
    assert schedulers[0].state_dict().keys() == schedulers[1].state_dict().keys()


@pytest.mark.parametrize("scheduler", ["OneCycleLR", "CyclicLR"])
@pytest.mark.parametrize("name", ["SGD", "AdamW", "NAdam"])
def test_momentum_that_is_cycled_reaches_the_step(name: str, scheduler: str) -> None:
    opt = made(getattr(ft, name), **options(name))
    cycle = SCHEDULERS[scheduler](opt)
    key = "momentum" if "momentum" in opt.defaults else "betas"
    seen = []
    for t in range(6):
        step(opt, t)
        cycle.step()
        seen.append(opt.param_groups[0][key])
    assert len(set(seen)) > 3
    fixed = made(getattr(ft, name), **options(name))
    for t in range(6):
        step(fixed, t)
    assert [bits(p) for p in params_of(opt)] != [bits(p) for p in params_of(fixed)]


@pytest.mark.parametrize("scheduler", ["StepLR", "OneCycleLR", "ReduceLROnPlateau", "LinearLR"])
def test_a_tensor_lr_that_a_scheduler_writes(scheduler: str) -> None:
    opts = pair("AdamW")
    for opt in opts:
        opt.param_groups[0]["lr"] = torch.tensor(0.1)
    schedulers = [SCHEDULERS[scheduler](opt) for opt in opts]
    for t in range(8):
        for opt, s in zip(opts, schedulers, strict=True):
            step(opt, t)
            advance(s, t)
        same(opts)


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_own_rules_follow_a_scheduler_as_lrs_set_by_hand(name: str, scheduler: str) -> None:
    opt, twin = made(getattr(ft, name)), made(getattr(ft, name))
    s = SCHEDULERS[scheduler](opt)
    for t in range(6):
        for group, other in zip(twin.param_groups, opt.param_groups, strict=True):
            group.update({key: x for key, x in other.items() if key in ("lr", "betas")})
        step(opt, t)
        step(twin, t)
        advance(s, t)
    assert [bits(p) for p in params_of(opt)] == [bits(p) for p in params_of(twin)]


def test_a_scheduler_resumed_with_its_optimizer() -> None:
    whole, first, second = (made(ft.AdamW) for _ in range(3))
    ws, fs = one_cycle(whole), one_cycle(first)
    for t in range(8):
        step(whole, t)
        ws.step()
    for t in range(4):
        step(first, t)
        fs.step()
    saved = copy.deepcopy((first.state_dict(), fs.state_dict(), [p.detach() for p in params_of(first)]))
    ss = one_cycle(second)
    second.load_state_dict(saved[0])
    ss.load_state_dict(saved[1])
    with torch.no_grad():
        for p, x in zip(params_of(second), saved[2], strict=True):
            p.copy_(x)
    for t in range(4, 8):
        step(second, t)
        ss.step()
    assert [bits(p) for p in params_of(second)] == [bits(p) for p in params_of(whole)]


def test_the_order_of_steps_is_watched_as_in_pytorch() -> None:
    opt = made(ft.AdamW)
    s = sched.StepLR(opt, 3)
    with pytest.warns(UserWarning, match="lr_scheduler.step"):
        s.step()
    opt = made(ft.AdamW)
    s = sched.StepLR(opt, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        step(opt, 0)
        s.step()


def test_schedulers_leave_no_cycle_of_references() -> None:
    import gc
    import weakref

    opt = made(ft.AdamW)
    step(opt, 0)
    found = weakref.ref(opt)
    gc.collect()
    gc.disable()
    try:
        del opt
        assert found() is None
    finally:
        gc.enable()


# Averages of weights


def trained(module: Any, kind: str) -> list[Any]:
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(4, 6, bias=False), torch.nn.BatchNorm1d(6), torch.nn.Tanh(), torch.nn.Linear(6, 1)
    )
    opt = module.AdamW(model.parameters(), lr=0.05)
    swa = torch.optim.swa_utils
    average = {
        "swa": lambda: swa.AveragedModel(model),
        "ema": lambda: swa.AveragedModel(model, multi_avg_fn=swa.get_ema_multi_avg_fn(0.9)),
        "buffers": lambda: swa.AveragedModel(model, avg_fn=swa.get_ema_avg_fn(0.9), use_buffers=True),
    }[kind]()
    scheduler = swa.SWALR(opt, swa_lr=0.01)
    x, y = torch.randn(16, 4), torch.randn(16, 1)
    for t in range(6):
        opt.zero_grad()
        (model(x) - y).square().mean().backward()
        opt.step()
        if t > 1:
            average.update_parameters(model)
            scheduler.step()
    swa.update_bn([x], average)
    return [*average.state_dict().values(), *model.state_dict().values()]


@pytest.mark.parametrize("kind", ["swa", "ema", "buffers"])
def test_averaged_models(kind: str) -> None:
    ours, stock = trained(ft, kind), trained(torch.optim, kind)
    for k, (a, b) in enumerate(zip(ours, stock, strict=True)):
        # The model's own roundings are carried through its gradients.
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5, msg=lambda text, k=k: f"{k}: {text}")
