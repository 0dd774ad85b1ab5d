"""Every case that PyTorch tests an optimizer of its own with, stepped side by side with it."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest

from tests.torch.common import DROP_INS, LAYOUTS, bits, database, ft, parameter, torch

DB = database()
CASES = [
    pytest.param(name, case.kwargs, id=f"{name}-{i}-{case.desc}")
    for name in DROP_INS
    for i, case in enumerate(DB[name].optim_inputs_func("cpu"))
]
MORE = [
    pytest.param("SGD", {"lr": 0.01, "momentum": 0.9, "nesterov": True, "maximize": True}, id="SGD-nesterov-maximize"),
    pytest.param("Adam", {"amsgrad": True, "maximize": True}, id="Adam-amsgrad-maximize"),
    pytest.param("Adam", {"lr": torch.tensor(0.01)}, id="Adam-tensor-lr"),
    pytest.param("Adam", {"betas": (torch.tensor(0.8), torch.tensor(0.9))}, id="Adam-tensor-betas"),
    pytest.param("Adam", {"decoupled_weight_decay": True, "weight_decay": 0.1}, id="Adam-decoupled"),
    pytest.param("Adam", {"betas": (0.0, 0.0)}, id="Adam-zero-betas"),
    pytest.param("RMSprop", {"momentum": 0.9, "maximize": True}, id="RMSprop-momentum"),
    pytest.param("Adafactor", {"lr": torch.tensor(0.01), "eps": (1e-8, 1e-2)}, id="Adafactor-tensor-lr"),
    pytest.param("NAdam", {"decoupled_weight_decay": True, "weight_decay": 0.1, "maximize": True}, id="NAdam-all"),
    pytest.param("ASGD", {"t0": 2, "lambd": 0.1, "alpha": 0.5, "lr": 0.1}, id="ASGD-averaging"),
    pytest.param("Rprop", {"lr": 0.01, "step_sizes": (0.005, 0.02)}, id="Rprop-clamped"),
]

SHAPES = [(6, 5), (7,), (), (1,), (4, 3, 3, 2), (0,), (1, 9)]
STEPS = 7

# PyTorch's kernels multiply and add in one rounding or in two, in an order of their own; both begin from the same
# numbers and take a few roundings a step, so that after STEPS of them a tensor differs by a few dozen roundings of its
# largest element. Anything wrong, as eps in another place or one step's wrong lr, is thousands of times larger.
ROUNDINGS = 48


@pytest.fixture(params=[torch.float32, torch.float64], ids=["f32", "f64"])
def dtype(request: pytest.FixtureRequest) -> Iterator[Any]:
    """That of the parameters, and the default: NAdam keeps its product of mu in this, which limits the comparison."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(request.param)
    yield request.param
    torch.set_default_dtype(before)


def close(found: Any, expected: Any, what: str) -> None:
    if found.numel() == 0:
        return
    eps = torch.finfo(expected.dtype).eps
    scale = max(float(expected.abs().max()), torch.finfo(expected.dtype).tiny / eps)
    assert bool(torch.isfinite(found).all()), what
    difference = float((found - expected).abs().max()) / (eps * scale)
    assert difference <= ROUNDINGS, f"{what}: {difference:.1f} roundings of its largest element"


def same_params(ours: Any, stock: Any, what: str) -> None:
    for k, (p, q) in enumerate(zip(params_of(ours), params_of(stock), strict=True)):
        close(p.detach(), q.detach(), f"{what}: parameter {k}")


def same_state(ours: dict[str, Any], stock: dict[str, Any]) -> None:
    assert ours["state"].keys() == stock["state"].keys()
    for i, of_stock in stock["state"].items():
        of_ours = ours["state"][i]
        assert of_ours.keys() == of_stock.keys()
        for key, x in of_stock.items():
            y = of_ours[key]
            assert (y.shape, y.dtype, y.device) == (x.shape, x.dtype, x.device), (i, key)
            if key == "step":
                assert float(y) == float(x), (i, key)
            else:
                close(y, x, f"state {key} of {i}")
    for mine, its in zip(ours["param_groups"], stock["param_groups"], strict=True):
        assert mine.keys() == its.keys()
        for key, x in its.items():
            # These say how PyTorch goes about it.
            if key not in ("foreach", "fused"):
                assert mine[key] == x, key


def params_of(opt: Any) -> list[Any]:
    return [p for group in opt.param_groups for p in group["params"]]


def started(cls: Any, kwargs: dict[str, Any], dtype: Any, layout: str, **more: Any) -> Any:
    """An optimizer with two groups of parameters, equal whenever it is called."""
    rng = torch.Generator().manual_seed(0)
    # PyTorch's Adafactor divides by the number of elements.
    shapes = [shape for shape in SHAPES if 0 not in shape or cls.__name__ != "Adafactor"]
    params = [parameter(torch.randn(shape, dtype=dtype, generator=rng), layout) for shape in shapes]
    own = {name: of_dtype(x, dtype) for name, x in kwargs.items()}
    return cls([{"params": params[:3]}, {"params": params[3:], "lr": 0.02}], **own, **more)


def of_dtype(x: Any, dtype: Any) -> Any:
    """Options that are tensors, as new ones of the parameters' dtype: PyTorch computes with them in their own."""
    if isinstance(x, tuple):
        return tuple(of_dtype(y, dtype) for y in x)
    return x.to(dtype, copy=True) if isinstance(x, torch.Tensor) else x


def give(opt: Any, t: int, layout: str) -> None:
    """The gradients of step t: none for some parameters, laid out otherwise than these in every second step."""
    rng = torch.Generator().manual_seed(100 + t)
    for k, p in enumerate(params_of(opt)):
        size = 10.0 ** (torch.rand(p.shape, dtype=p.dtype, generator=rng) * 3 - 2.5)
        g = size * torch.randn(p.shape, dtype=p.dtype, generator=rng)
        if (t + k) % 4 == 3 or (k == 1 and t == 0):
            p.grad = None
        elif t % 2:
            p.grad = parameter(g, LAYOUTS[(LAYOUTS.index(layout) + t) % 3]).detach()
        else:
            p.grad = g


def halve(opt: Any) -> None:
    for group in opt.param_groups:
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].mul_(0.5)
        else:
            group["lr"] *= 0.5


def walk(opts: list[Any], steps: range, layout: str) -> None:
    for t in steps:
        for opt in opts:
            give(opt, t, layout)
            if t == 3:
                halve(opt)
            opt.step()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("name", "kwargs"), CASES + MORE)
def test_the_path_is_pytorch_s(name: str, kwargs: dict[str, Any], layout: str, dtype: Any) -> None:
    ours = started(getattr(ft, name), kwargs, dtype, layout)
    stock = started(getattr(torch.optim, name), kwargs, dtype, layout, foreach=False)
    strides = [p.stride() for p in params_of(ours)]
    for t in range(STEPS):
        walk([ours, stock], range(t, t + 1), layout)
        same_params(ours, stock, f"after step {t}")
    same_state(ours.state_dict(), stock.state_dict())
    assert [p.stride() for p in params_of(ours)] == strides
    for p in params_of(ours):
        if layout == "gaps" and p.dim():
            assert bool((p.detach().as_strided(p.shape, p.stride(), 1) == 7).all()), "written between the elements"


def by_hand(state: Any) -> Any:
    return deepcopy(state)


def through_a_file(state: Any) -> Any:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("passed", [by_hand, through_a_file])
@pytest.mark.parametrize(("name", "kwargs"), CASES + MORE)
def test_a_run_goes_on_in_the_other_library(name: str, kwargs: dict[str, Any], passed: Any, dtype: Any) -> None:
    layout = LAYOUTS[len(repr(kwargs)) % 3]
    classes = [getattr(ft, name), getattr(torch.optim, name)]
    whole = started(classes[1], kwargs, dtype, layout)
    walk([whole], range(STEPS), layout)
    for first, second in (classes, classes[::-1]):
        begun, other = (started(cls, kwargs, dtype, layout) for cls in (first, second))
        walk([begun], range(4), layout)
        with torch.no_grad():
            for p, q in zip(params_of(begun), params_of(other), strict=True):
                q.copy_(p)
        saved = begun.state_dict()
        other.load_state_dict(passed(saved))
        walk([other], range(4, STEPS), layout)
        same_params(other, whole, f"{first.__module__} to {second.__module__}")
        same_state(other.state_dict(), whole.state_dict())


def outcome(cls: Any, wrong: Any, on_step: bool) -> tuple[Any, str]:
    """What is raised."""
    case = deepcopy(wrong)
    params = [torch.nn.Parameter(torch.ones(1))] if case.params is None else case.params
    if on_step:
        opt = cls(params, **case.kwargs)
        for p in params:
            p.grad = torch.ones_like(p)
        with pytest.raises(Exception) as raised:  # noqa: PT011
            opt.step()
    else:
        with pytest.raises(Exception) as raised:  # noqa: PT011
            cls(params, **case.kwargs)
    return raised.type, str(raised.value)


ERRORS = [
    pytest.param(name, error, id=f"{name}-{error.optimizer_error_input.desc}")
    for name in DROP_INS
    for error in DB[name].optim_error_inputs_func("cpu", torch.float32)
]


@pytest.mark.parametrize(("name", "error"), ERRORS)
def test_what_pytorch_refuses_is_refused_in_its_words(name: str, error: Any) -> None:
    on_step = error.error_on.name == "STEP_ERROR"
    wrong = error.optimizer_error_input
    with warnings.catch_warnings():
        # Duplicates are a warning: an error here, and in both.
        warnings.simplefilter("error")
        found = outcome(getattr(ft, name), wrong, on_step)
        stock = outcome(getattr(torch.optim, name), wrong, on_step)
    if on_step:
        # Complex parameters, of which fastopt says that it steps none: with the fallback PyTorch speaks.
        assert (found[0], "complex64" in found[1]) == (TypeError, True)
        with_fallback = outcome(lambda p, **k: getattr(ft, name)(p, **k, fallback="torch"), wrong, True)
        assert with_fallback == stock
    else:
        assert found == stock


@pytest.mark.parametrize("name", DROP_INS)
def test_differentiable_and_capturable_are_refused(name: str) -> None:
    p = torch.nn.Parameter(torch.ones(2))
    for option in ("differentiable", "capturable"):
        group = {"params": [p]}
        opt = getattr(ft, name)([group])
        if option not in opt.param_groups[0]:
            continue
        opt.param_groups[0][option] = True
        p.grad = torch.ones(2)
        before, state = bits(p), {key: bits(x) for key, x in opt.state[p].items()}
        with pytest.raises(ValueError, match=f"{option}=True"):
            opt.step()
        assert bits(p) == before
        assert state == {key: bits(x) for key, x in opt.state[p].items()}
