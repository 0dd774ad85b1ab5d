"""What a user of torch.optim may do to an optimizer between two steps, and what is refused, with nothing written."""

from __future__ import annotations

import copy
import io
import multiprocessing
import pickle
import threading
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest

import fastopt
from tests.torch.common import DROP_INS, LAYOUTS, OWN, bits, ft, parameter, torch
from tests.torch.test_cases import DB, close, params_of, same_state

ALL = DROP_INS + OWN
Pair = tuple[Any, Any]


def gradient(shape: Any, t: int = 0, dtype: Any = None) -> Any:
    return torch.randn(shape, generator=torch.Generator().manual_seed(t), dtype=dtype or torch.float32)


def made(cls: Any, *shapes: tuple[int, ...], **kwargs: Any) -> Any:
    """An optimizer of parameters of these shapes, equal whenever it is called."""
    params = [torch.nn.Parameter(gradient(shape, 1000 + k)) for k, shape in enumerate(shapes or [(3, 4), (5,)])]
    return cls(params, **{"lr": 0.1, **kwargs})


def give(opt: Any, t: int) -> None:
    for k, p in enumerate(params_of(opt)):
        p.grad = gradient(p.shape, 7 * t + k, p.dtype)


def step(opt: Any, t: int) -> Any:
    give(opt, t)
    return opt.step()


def pair(name: str, *shapes: tuple[int, ...], **kwargs: Any) -> Pair:
    return made(getattr(ft, name), *shapes, **kwargs), made(
        getattr(torch.optim, name), *shapes, foreach=False, **kwargs
    )


def same(opts: Pair) -> None:
    ours, stock = opts
    for k, (p, q) in enumerate(zip(params_of(ours), params_of(stock), strict=True)):
        close(p.detach(), q.detach(), f"parameter {k}")
    same_state(ours.state_dict(), stock.state_dict())


def contents(opt: Any) -> Any:
    """All that a step may write, as bytes."""
    of_state = {
        id(p): {key: bits(x) if isinstance(x, torch.Tensor) else x for key, x in of_p.items()}
        for p, of_p in opt.state.items()
    }
    return [bits(p) for p in params_of(opt)], of_state, [p._version for p in params_of(opt)]


def refused(opt: Any, error: type[Exception], *words: str) -> None:
    """A step raises this, with these words, and writes nothing."""
    before = contents(opt)
    with pytest.raises(error) as raised:
        opt.step()
    assert type(raised.value) is error
    for word in words:
        assert word in str(raised.value)
    assert contents(opt) == before
    assert str(raised.value) == str(raised.value).strip()


# Groups and their numbers


@pytest.mark.parametrize("name", DROP_INS)
def test_numbers_of_groups_are_read_at_every_step(name: str) -> None:
    # PyTorch's RMSprop makes a buffer for its momentum at the first step only.
    opts = pair(name, **({"momentum": 0.5} if name == "RMSprop" else {}))
    edits: list[tuple[str, Any]] = [
        ("lr", 0.03),
        ("lr", torch.tensor(0.2)),
        ("weight_decay", 0.1),
        ("maximize", True),
        ("betas", (0.5, 0.9)),
        ("eps", 1e-3 if name != "Adafactor" else (1e-3, 1e-2)),
        ("momentum", 0.9),
        ("momentum", 0.7),
        ("nesterov", True),
        ("momentum", 0.5),
        ("dampening", 0.0),
        ("foreach", True),
        ("fused", True),
        ("foreach", None),
        ("fused", None),
        ("alpha", 0.9),
        ("rho", 0.8),
        ("lambd", 0.2),
        ("etas", (0.4, 1.3)),
        ("step_sizes", (1e-4, 1.0)),
        ("d", 1.2),
        ("decoupled_weight_decay", True),
        ("lr", 0),
        ("lr", 0.1),
    ]
    for t, (key, value) in enumerate(edits):
        for opt in opts:
            for group in opt.param_groups:
                if key in group and (opt is opts[0] or key not in ("foreach", "fused")):
                    group[key] = copy.deepcopy(value)
            step(opt, t)
        same(opts)


def test_a_momentum_that_is_turned_off_and_on_goes_on_from_its_buffer() -> None:
    opts = pair("SGD", momentum=0.9, dampening=0.5)
    for t, momentum in enumerate([0.9, 0.9, 0.0, 0.0, 0.9, 0.5, 0.0, 0.9]):
        for opt in opts:
            opt.param_groups[0]["momentum"] = momentum
            step(opt, t)
        same(opts)


def test_a_momentum_begins_at_each_parameter_s_own_first_step() -> None:
    opts = pair("SGD", momentum=0.9, dampening=0.5)
    for t in range(5):
        for opt in opts:
            give(opt, t)
            if t < 2:
                params_of(opt)[1].grad = None
            opt.step()
        same(opts)


def test_a_tensor_lr_and_tensor_betas_may_be_written_in_place() -> None:
    opts = pair("Adam", lr=torch.tensor(0.1), betas=(torch.tensor(0.5), torch.tensor(0.6)))
    # Each has tensors of its own.
    for opt in opts:
        opt.param_groups[0].update(lr=torch.tensor(0.1), betas=(torch.tensor(0.5), torch.tensor(0.6)))
    for t in range(6):
        for opt in opts:
            group = opt.param_groups[0]
            group["lr"].mul_(0.9)
            group["betas"][t % 2].add_(0.05)
            step(opt, t)
        same(opts)


def test_tensor_betas_beside_a_plain_lr_may_be_written_in_place() -> None:
    opts = pair("Adam")
    for opt in opts:
        opt.param_groups[0]["betas"] = (torch.tensor(0.5), torch.tensor(0.6))
    for t in range(6):
        for opt in opts:
            opt.param_groups[0]["betas"][t % 2].add_(0.05)
            step(opt, t)
        same(opts)


def test_one_tensor_lr_for_several_groups() -> None:
    for t, cls in enumerate((ft.AdamW, ft.SGD)):
        lr = torch.tensor(0.1)
        params = [torch.nn.Parameter(torch.ones(2)) for _ in range(2)]
        opt = cls([{"params": [params[0]]}, {"params": [params[1]]}], lr=lr)
        step(opt, t)
        lr.zero_()
        before = [bits(p) for p in params]
        step(opt, t)
        assert [bits(p) for p in params] == before


def test_parameters_come_and_go() -> None:
    opts = pair("AdamW", (3,), (4,), (2,), weight_decay=0.1)
    more = [[torch.nn.Parameter(torch.ones(3)) for _ in range(4)] for _ in opts]

    def append(opt: Any, mine: list[Any]) -> None:
        opt.param_groups[0]["params"].append(mine[0])

    def replace(opt: Any, mine: list[Any]) -> None:
        opt.param_groups[0]["params"][1] = mine[1]

    def add_group(opt: Any, mine: list[Any]) -> None:
        opt.add_param_group({"params": [mine[2]], "lr": 0.5, "maximize": True})

    def turn_round(opt: Any, mine: list[Any]) -> None:
        opt.param_groups[0]["params"].reverse()

    def remove(opt: Any, mine: list[Any]) -> None:
        del opt.param_groups[0]["params"][0]

    def exchange(opt: Any, mine: list[Any]) -> None:
        opt.param_groups.reverse()

    def move(opt: Any, mine: list[Any]) -> None:
        opt.param_groups[1]["params"].append(opt.param_groups[0]["params"].pop())

    def a_tuple(opt: Any, mine: list[Any]) -> None:
        opt.param_groups[0]["params"] = tuple(opt.param_groups[0]["params"])

    def empty(opt: Any, mine: list[Any]) -> None:
        opt.param_groups[0]["params"] = []

    def new_list(opt: Any, mine: list[Any]) -> None:
        opt.param_groups = [dict(group) for group in opt.param_groups]

    edits = [append, replace, add_group, turn_round, remove, exchange, move, a_tuple, new_list, empty]
    for t, edit in enumerate(edits):
        for opt, mine in zip(opts, more, strict=True):
            edit(opt, mine)
            step(opt, 2 * t)
            step(opt, 2 * t + 1)
        for p, q in zip(*map(params_of, opts), strict=True):
            close(p.detach(), q.detach(), edit.__name__)
            of_p, of_q = opts[0].state[p], opts[1].state[q]
            assert of_p.keys() == of_q.keys()
            for key, x in of_q.items():
                close(of_p[key], x, f"{edit.__name__}: {key}")


def test_groups_swapped_around_each_step() -> None:
    """As DeepSpeed's ZeRO does: each step is of other groups, the state of all stays."""
    opts = pair("AdamW", (3,), (4,), (5,))
    for t in range(6):
        for opt in opts:
            give(opt, t)
            kept = opt.param_groups
            for p in params_of(opt):
                opt.param_groups = [{**kept[0], "params": [p]}]
                opt.step()
            opt.param_groups = kept
        same(opts)


def test_no_gradients_at_all_and_no_parameters_at_all() -> None:
    for name in ALL:
        opt = made(getattr(ft, name))
        before = [bits(p) for p in params_of(opt)]
        opt.step()
        assert [bits(p) for p in params_of(opt)] == before
        assert all(of_p.get("step", torch.tensor(0.0)).item() == 0 for of_p in opt.state.values())
        opt.param_groups[0]["params"].clear()
        opt.step()


@pytest.mark.parametrize("name", ALL)
def test_a_step_with_zeros_and_lr_0_creates_state(name: str) -> None:
    """torch.distributed.checkpoint has state made by such a step, to load into it."""
    opt = made(getattr(ft, name), lr=0.0 if name != "Rprop" else 0.1)
    before = [bits(p) for p in params_of(opt)]
    for p in params_of(opt):
        p.grad = torch.zeros_like(p)
    opt.step()
    assert [bits(p) for p in params_of(opt)] == before
    whole = made(getattr(ft, name), average=0.9)
    step(whole, 0)
    step(whole, 1)
    keys = [set(of_p) - {"average"} for of_p in whole.state.values()]
    assert [set(of_p) for of_p in opt.state.values()] == [k for k in keys if k]


# State


@pytest.mark.parametrize("name", DROP_INS)
def test_state_may_be_edited(name: str) -> None:
    opts = pair(name, *([(3, 4), (5,)]), **({"momentum": 0.9} if name == "SGD" else {}))

    def cleared(opt: Any) -> None:
        opt.state.clear()

    def one_deleted(opt: Any) -> None:
        del opt.state[params_of(opt)[0]]

    def copied(opt: Any) -> None:
        for p in list(opt.state):
            opt.state[p] = {key: x.clone() for key, x in opt.state[p].items()}

    def laid_otherwise(opt: Any) -> None:
        of_p = opt.state[params_of(opt)[0]]
        for key, x in of_p.items():
            if x.shape == (3, 4):
                of_p[key] = x.t().contiguous().t()

    def written(opt: Any) -> None:
        for of_p in opt.state.values():
            for key, x in of_p.items():
                if key != "step" and x.dim():
                    x.mul_(0.5)

    def steps_set(opt: Any) -> None:
        for of_p in opt.state.values():
            if "step" in of_p:
                of_p["step"].fill_(41)

    def one_step_set(opt: Any) -> None:
        for of_p in list(opt.state.values())[:1]:
            if "step" in of_p:
                of_p["step"] = torch.tensor(7.0)

    def data_replaced(opt: Any) -> None:
        for of_p in opt.state.values():
            for x in of_p.values():
                x.data = x.data.clone()

    # PyTorch's Adagrad and Adafactor do not begin anew.
    edits = [copied, laid_otherwise, written, steps_set, one_step_set, data_replaced]
    if name not in ("Adagrad",):
        edits += [cleared, one_deleted]
    for t, edit in enumerate(edits):
        for opt in opts:
            step(opt, 3 * t)
            edit(opt)
            step(opt, 3 * t + 1)
            step(opt, 3 * t + 2)
        same(opts)


def test_state_may_be_transposed_in_place() -> None:
    opts = pair("AdamW", (4, 4))
    for t in range(3):
        for opt in opts:
            step(opt, 2 * t)
            opt.state[params_of(opt)[0]]["exp_avg"].t_()
            step(opt, 2 * t + 1)
        same(opts)


def test_state_of_a_momentum_that_pytorch_once_saved_as_none() -> None:
    opts = pair("SGD", momentum=0.9, dampening=0.5)
    for opt in opts:
        for p in params_of(opt):
            opt.state[p]["momentum_buffer"] = None
        step(opt, 0)
        step(opt, 1)
    same(opts)


@pytest.mark.parametrize(
    ("bad", "error"), [(-5.0, ValueError), (float("nan"), ValueError), (float("inf"), ValueError), (2.5, ValueError)]
)
def test_a_step_that_counts_nothing_is_refused(bad: float, error: type[Exception]) -> None:
    opt = made(ft.AdamW)
    step(opt, 0)
    give(opt, 1)
    opt.state[params_of(opt)[1]]["step"].fill_(bad)
    refused(opt, error, "the step of parameter 1 of group 0", f"{bad:g}")


def test_a_step_that_is_a_number_goes_on_as_a_tensor() -> None:
    opt, twin = made(ft.AdamW), made(ft.AdamW)
    for t in range(2):
        step(opt, t)
        step(twin, t)
    for p in params_of(opt):
        opt.state[p]["step"] = 2
    step(opt, 2)
    step(twin, 2)
    assert [bits(p) for p in params_of(opt)] == [bits(p) for p in params_of(twin)]
    assert all(isinstance(of_p["step"], torch.Tensor) for of_p in opt.state.values())
    opt.state[params_of(opt)[0]]["step"] = "two"
    give(opt, 3)
    with pytest.raises(TypeError, match="the step of parameter 0 of group 0 is 'two'"):
        opt.step()


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        (lambda: torch.zeros(2), ValueError, "has shape (2,) and its parameter (5,)"),
        (lambda: torch.zeros(5, 1), ValueError, "has shape (5, 1)"),
        (lambda: torch.zeros(5, dtype=torch.float64), TypeError, "is torch.float64 on cpu"),
        (lambda: torch.zeros(5, device="meta"), TypeError, "is torch.float32 on meta"),
        (lambda: [0.0] * 5, TypeError, "is a list"),
    ],
)
def test_state_that_is_not_the_parameter_s_is_refused(wrong: Any, error: type[Exception], words: str) -> None:
    opt = made(ft.AdamW)
    step(opt, 0)
    give(opt, 1)
    p = params_of(opt)[1]
    right = opt.state[p]["exp_avg"]
    opt.state[p]["exp_avg"] = wrong()
    before = bits(p), bits(opt.state[p]["exp_avg_sq"]), opt.state[p]["step"].item()
    with pytest.raises(error) as raised:
        opt.step()
    assert "the state exp_avg of parameter 1 of group 0" in str(raised.value)
    assert words in str(raised.value)
    assert before == (bits(p), bits(opt.state[p]["exp_avg_sq"]), opt.state[p]["step"].item())
    opt.state[p]["exp_avg"] = right
    opt.step()


def test_a_model_cast_to_another_dtype() -> None:
    model = torch.nn.Linear(3, 2)
    opt = ft.AdamW(model.named_parameters())
    model(torch.ones(1, 3)).sum().backward()
    opt.step()
    model.double()
    opt.zero_grad()
    model(torch.ones(1, 3).double()).sum().backward()
    refused(opt, TypeError, "the state exp_avg of parameter 'weight' is torch.float32", "load_state_dict")
    opt.load_state_dict(opt.state_dict())
    opt.step()
    model.half()
    opt.zero_grad()
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    refused(opt, TypeError, "parameter 'weight' is float16", "fallback='torch'")


# Parameters


@pytest.mark.parametrize("name", ["AdamW", "SGD", "Adafactor"])
def test_data_of_parameters_may_be_replaced(name: str) -> None:
    opts = pair(name, (3, 4), (5,), weight_decay=0.1)

    def cloned(p: Any) -> None:
        p.data = p.data.clone()

    def transposed(p: Any) -> None:
        p.data = p.data.mT.contiguous().mT if p.dim() > 1 else p.data.clone()

    def with_gaps(p: Any) -> None:
        p.data = torch.stack([p.data, p.data], -1)[..., 0]

    def shared(p: Any) -> None:
        p.share_memory_()

    def set_in_place(p: Any) -> None:
        with torch.no_grad():
            p.set_(p.detach().clone())

    for t, change in enumerate([cloned, transposed, with_gaps, shared, set_in_place, cloned]):
        for opt in opts:
            step(opt, 2 * t)
            for p in params_of(opt):
                change(p)
            step(opt, 2 * t + 1)
        for p, q in zip(params_of(opts[0]), params_of(opts[1]), strict=True):
            close(p.detach(), q.detach(), change.__name__)


def test_a_parameter_that_changes_its_shape_is_refused_for_its_state() -> None:
    opt = made(ft.AdamW)
    step(opt, 0)
    p = params_of(opt)[1]
    p.data = torch.ones(3)
    p.grad = None
    p.grad = torch.ones(3)
    refused(opt, ValueError, "parameter 1 of group 0 has shape (5,) and its parameter (3,)")


def test_version_counters_rise_so_that_a_stale_graph_is_noticed() -> None:
    for name in ALL:
        p = torch.nn.Parameter(torch.ones(3))
        opt = getattr(ft, name)([p], lr=0.1)
        loss = (p * p * p).sum()
        loss.backward(retain_graph=True)
        version = p._version
        opt.step()
        assert p._version > version
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


def test_parameters_without_a_gradient_keep_their_version() -> None:
    opt = made(ft.AdamW)
    give(opt, 0)
    params_of(opt)[1].grad = None
    opt.step()
    assert [p._version for p in params_of(opt)] == [1, 0]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_memory_around_a_parameter_stays(layout: str) -> None:
    base = torch.full((4, 6), 7.0)
    view = {"contiguous": base[1:3], "permuted": base.t()[2:4], "gaps": base[:, ::2]}[layout]
    p = torch.nn.Parameter(view)
    outside = torch.ones_like(base, dtype=torch.bool)
    {"contiguous": outside[1:3], "permuted": outside.t()[2:4], "gaps": outside[:, ::2]}[layout].fill_(False)
    opt = ft.AdamW([p], lr=0.1)
    step(opt, 0)
    assert bool((base[outside] == 7).all())
    assert bool((base[~outside] != 7).all())


def test_parameters_that_lie_between_each_other() -> None:
    base = torch.ones(12)
    opt = ft.SGD([torch.nn.Parameter(base[k::3]) for k in range(3)], lr=1.0)
    for k, p in enumerate(params_of(opt)):
        p.grad = torch.full_like(p, float(k))
    opt.step()
    assert base.tolist() == [1.0, 0.0, -1.0] * 4


# Gradients

GRADIENTS: dict[str, Callable[[Any], Any]] = {
    "transposed": lambda g: g.mT.contiguous().mT if g.dim() > 1 else g,
    "every second": lambda g: torch.stack([g, g], -1)[..., 0],
    "expanded": lambda g: g.flatten()[:1].reshape([1] * g.dim()).expand(g.shape) if g.numel() else g,
    "negated view": lambda g: torch.complex(torch.zeros_like(g), -g).conj().imag,
    "offset": lambda g: torch.cat([g.new_zeros(1), g.flatten()])[1:].reshape(g.shape),
    "leaf with requires_grad": lambda g: g.clone().requires_grad_(),
    "unaligned": lambda g: unaligned(g),
}


def unaligned(values: Any) -> Any:
    if values.numel() == 0:
        return values
    buffer = bytearray(b"\0" + values.contiguous().numpy().tobytes())
    return torch.frombuffer(buffer, dtype=values.dtype, offset=1, count=values.numel()).reshape(values.shape)


@pytest.mark.parametrize("kind", GRADIENTS)
@pytest.mark.parametrize("shape", [(), (1,), (1, 1), (2,), (3, 4), (2, 3, 4), (0,)])
def test_gradients_of_any_strides(kind: str, shape: tuple[int, ...]) -> None:
    for layout in LAYOUTS:
        for p, g in [(parameter(gradient(shape), layout), GRADIENTS[kind](gradient(shape, 1)))]:
            twin, dense = torch.nn.Parameter(p.detach().clone()), g.detach().resolve_neg().clone()
            for q, of_q in ((p, g), (twin, dense)):
                opt = ft.AdamW([q], lr=0.1)
                q.grad = of_q
                opt.step()
                opt.step()
            assert bits(p) == bits(twin)


def test_a_gradient_may_change_its_layout_from_step_to_step() -> None:
    opt, twin = made(ft.AdamW, (3, 4)), made(ft.AdamW, (3, 4))
    for t, kind in enumerate([*GRADIENTS, *reversed(GRADIENTS)]):
        g = GRADIENTS[kind](gradient((3, 4), t))
        params_of(opt)[0].grad, params_of(twin)[0].grad = g, g.detach().resolve_neg().clone()
        opt.step()
        twin.step()
        assert bits(params_of(opt)[0]) == bits(params_of(twin)[0]), kind


@pytest.mark.parametrize("shape", [(1,), (3,), (2, 2)])
def test_parameters_that_are_read_with_the_other_sign_or_lie_unaligned(shape: tuple[int, ...]) -> None:
    values = gradient(shape, 5)
    for p in (
        torch.nn.Parameter(torch.complex(values, -values).conj().imag),
        torch.nn.Parameter(torch._neg_view(-values)),
        torch.nn.Parameter(unaligned(values)),
    ):
        twin = torch.nn.Parameter(values.clone())
        for q in (p, twin):
            opt = ft.SGD([q], lr=0.1, momentum=0.9)
            step(opt, 0)
            step(opt, 1)
        assert bits(p) == bits(twin)


# Sparse gradients: PyTorch's own steps, and its own errors


def sparse(p: Any, t: int) -> Any:
    rows = torch.tensor([[t % p.shape[0], 0]])
    with torch.sparse.check_sparse_tensor_invariants():
        return torch.sparse_coo_tensor(rows, gradient((2, *p.shape[1:]), t), p.shape)


@pytest.mark.parametrize(("name", "kwargs"), [("SGD", {}), ("SGD", {"maximize": True}), ("Adagrad", {})])
def test_sparse_gradients_are_stepped_by_pytorch(name: str, kwargs: dict[str, Any]) -> None:
    opts = pair(name, (4, 3), (5,), (4,), **kwargs)
    for t in range(6):
        for opt in opts:
            give(opt, t)
            if t != 3:
                params_of(opt)[1].grad = sparse(params_of(opt)[1], t)
            opt.step()
        same(opts)


@pytest.mark.parametrize("name", sorted(set(ALL) - {"SGD", "Adagrad"}))
@pytest.mark.parametrize("before", [0, 2])
def test_sparse_gradients_that_a_rule_has_no_step_for(name: str, before: int) -> None:
    opt = made(getattr(ft, name))
    for t in range(before):
        step(opt, t)
    give(opt, before)
    params_of(opt)[0].grad = sparse(params_of(opt)[0], 0)
    at = [bits(p) for p in params_of(opt)]
    if name in OWN:
        with pytest.raises(TypeError, match=f"{name} is no optimizer of PyTorch"):
            opt.step()
    else:
        stock = made(getattr(torch.optim, name), foreach=False)
        give(stock, 0)
        params_of(stock)[0].grad = sparse(params_of(stock)[0], 0)
        with pytest.raises(Exception) as theirs:  # noqa: PT011
            stock.step()
        with pytest.raises(type(theirs.value)) as ours:
            opt.step()
        assert str(ours.value) == str(theirs.value)
    assert [bits(p) for p in params_of(opt)] == at
    give(opt, before)
    opt.step()


def test_sparse_gradients_beside_what_pytorch_does_not_do() -> None:
    opt = made(ft.SGD, clip_norm=1.0)
    give(opt, 0)
    params_of(opt)[0].grad = sparse(params_of(opt)[0], 0)
    refused(opt, ValueError, "parameter 0 of group 0", "clip_grad_norm_", "unscale")


# What is refused


def _bfloat16() -> Any:
    return torch.nn.Parameter(torch.ones(3, dtype=torch.bfloat16))


def _float16() -> Any:
    return torch.nn.Parameter(torch.ones(3, dtype=torch.float16))


def _complex64() -> Any:
    return torch.nn.Parameter(torch.ones(3, dtype=torch.complex64))


class Tagged(torch.Tensor):
    """A subclass, as DTensor is one."""


class TaggedParameter(torch.nn.Parameter):
    """A subclass of Parameter."""


def _tagged() -> Any:
    return torch.ones(3).as_subclass(Tagged).requires_grad_()


def _tagged_parameter() -> Any:
    return TaggedParameter(torch.ones(3))


def _meta() -> Any:
    return torch.nn.Parameter(torch.ones(3, device="meta"))


STRANGE = [_bfloat16, _float16, _complex64, _tagged, _tagged_parameter, _meta]


@pytest.mark.parametrize("make", STRANGE, ids=lambda f: f.__name__[1:])
def test_parameters_that_fastopt_has_no_step_for(make: Callable[[], Any]) -> None:
    plain, strange = torch.nn.Parameter(torch.ones(2)), make()
    opt = ft.AdamW([("first.weight", plain), ("second.bias", strange)])
    plain.grad, strange.grad = torch.ones(2), torch.ones_like(strange)
    before = bits(plain)
    with pytest.raises(TypeError) as raised:
        opt.step()
    assert "parameter 'second.bias' is " in str(raised.value)
    assert make.__name__[1:].split("_")[0].lower() in str(raised.value).lower()
    assert "fallback='torch'" in str(raised.value) or "use torch.optim there" in str(raised.value)
    assert bits(plain) == before
    assert not opt.state


@pytest.mark.parametrize("name", ["SGD", "AdamW", "RMSprop", "NAdam"])
@pytest.mark.parametrize("make", STRANGE[:-1], ids=lambda f: f.__name__[1:])
def test_with_the_fallback_pytorch_steps_them(name: str, make: Callable[[], Any]) -> None:
    opts = []
    for cls, more in ((getattr(ft, name), {"fallback": "torch"}), (getattr(torch.optim, name), {"foreach": False})):
        named = [("a", make()), ("b", torch.nn.Parameter(torch.ones(2))), ("c", make())]
        opts.append(cls(named, lr=0.01, weight_decay=0.1, **more))
    for t in range(4):
        for opt in opts:
            for k, p in enumerate(params_of(opt)):
                p.grad = None if (t, k) == (1, 2) else gradient(p.shape, 3 * t + k).to(p.dtype)
            opt.step()
        for k, (p, q) in enumerate(zip(params_of(opts[0]), params_of(opts[1]), strict=True)):
            if k == 1:
                close(p.detach(), q.detach(), "the one that fastopt steps")
            else:
                assert torch.equal(p.detach(), q.detach())
    saved = [opt.state_dict() for opt in opts]
    assert saved[0]["state"].keys() == saved[1]["state"].keys()
    assert all(saved[0]["state"][k].keys() == of_p.keys() for k, of_p in saved[1]["state"].items())


@pytest.mark.parametrize("named", [True, False])
def test_messages_beside_the_fallback_name_the_right_parameter(named: bool) -> None:
    params = [("a", _bfloat16()), ("b", torch.nn.Parameter(torch.ones(2)))]
    opt = ft.AdamW(params if named else [p for _, p in params], fallback="torch")
    for _, p in params:
        p.grad = torch.ones_like(p)
    opt.state[params[1][1]]["exp_avg"] = torch.zeros(3)
    with pytest.raises(ValueError, match="parameter 'b'" if named else "parameter 1 of group 0"):
        opt.step()


def test_gradients_that_fastopt_has_no_step_for() -> None:
    for before in (0, 2):
        for make in (lambda: torch._efficientzerotensor((5,)), lambda: torch.ones(5).as_subclass(Tagged)):
            opt = made(ft.AdamW)
            for t in range(before):
                step(opt, t)
            give(opt, before)
            params_of(opt)[1].grad = make()
            refused(opt, TypeError, "the gradient of parameter 1 of group 0", "fallback='torch'")
            give(opt, before)
            opt.step()


def test_duplicates() -> None:
    p = torch.nn.Parameter(torch.ones(2))
    opt = ft.AdamW([p])
    opt.param_groups[0]["params"].append(p)
    p.grad = torch.ones(2)
    refused(opt, ValueError, "parameter 1 of group 0 is parameter 0 of group 0 again", "pass it once")


@pytest.mark.parametrize("later", [False, True])
def test_parameters_that_overlap(later: bool) -> None:
    base = torch.ones(200)
    # The last two meet between the elements of the first, which reaches beyond both.
    views = [base[0::2], base[1:101:2], base[51:151:2]]
    params = [torch.nn.Parameter(x) for x in views]
    opt = ft.AdamW(params)
    if later:
        params[2].data = torch.ones(50)
        give(opt, 0)
        opt.step()
        params[2].data = views[2]
    give(opt, 1)
    refused(opt, ValueError, "parameter 1 of group 0 and parameter 2 of group 0 share memory")


def test_expanded_parameters() -> None:
    p = torch.nn.Parameter(torch.ones(1).expand(3))
    opt = ft.AdamW([p])
    p.grad = torch.ones(3)
    refused(opt, ValueError, "parameter 0 of group 0 is expanded", "clone()")


def test_gradients_that_alias_what_a_step_writes() -> None:
    opt = made(ft.AdamW, (5,), (5,), average=0.9)
    step(opt, 0)
    first, second = params_of(opt)
    other = torch.nn.Parameter(torch.ones(5))
    cases = [
        (first.detach(), "shares memory with parameter 0 of group 0"),
        (second.detach(), "shares memory with parameter 1 of group 0"),
        (opt.state[first]["exp_avg"], "shares memory with the state of parameter 0 of group 0"),
        (opt.state[second]["exp_avg_sq"], "shares memory with the state of parameter 1 of group 0"),
        (opt.averages()[1], "shares memory with the average of parameter 1 of group 0"),
        (torch._neg_view(second.detach()), "shares memory with parameter 1 of group 0"),
        (second.detach().flip(0), None),
        (other.detach(), None),
    ]
    for g, words in cases:
        give(opt, 1)
        first.grad = g
        if words is None:
            opt.step()
        else:
            refused(opt, ValueError, f"the gradient of parameter 0 of group 0 {words}", "pass a copy")


def test_state_that_two_parameters_share_is_refused() -> None:
    opt = made(ft.AdamW, (5,), (5,))
    step(opt, 0)
    first, second = params_of(opt)
    opt.state[second]["exp_avg"] = opt.state[first]["exp_avg"]
    give(opt, 1)
    refused(
        opt, ValueError, "the state of parameter 0 of group 0", "the state of parameter 1 of group 0", "share memory"
    )


@pytest.mark.parametrize("name", ALL)
def test_a_refused_first_step_leaves_no_state(name: str) -> None:
    opt = made(getattr(ft, name), (3,), (3,))
    state = copy.deepcopy(opt.state_dict())
    give(opt, 0)
    params_of(opt)[0].grad = params_of(opt)[1].detach()
    before = contents(opt)
    with pytest.raises(ValueError, match="shares memory"):
        opt.step()
    assert contents(opt) == before
    assert opt.state_dict()["state"].keys() == state["state"].keys()


# Closures, hooks, the profiler, graphs


def test_a_closure_is_called_once_with_gradients_on_and_its_loss_returned() -> None:
    opt = made(ft.AdamW)
    calls = []

    def closure() -> Any:
        calls.append(torch.is_grad_enabled())
        give(opt, 0)
        return torch.tensor(3.0)

    with torch.no_grad():
        assert opt.step(closure).item() == 3.0
        assert opt.step(closure=closure).item() == 3.0
    assert calls == [True, True]
    assert opt.step() is None


def test_a_closure_that_raises_leaves_everything() -> None:
    opt = made(ft.AdamW)
    step(opt, 0)
    give(opt, 1)
    before = contents(opt)

    def closure() -> Any:
        raise KeyError("no data")

    with pytest.raises(KeyError, match="no data"):
        opt.step(closure)
    assert contents(opt) == before
    opt.step()
    assert contents(opt) != before


@pytest.mark.parametrize("name", ["AdamW", "SGD", "Lion"])
def test_hooks_of_one_optimizer_and_of_all(name: str) -> None:
    from torch.optim import optimizer as module

    opt, seen = made(getattr(ft, name)), []
    step(opt, 0)
    handles = [
        opt.register_step_pre_hook(lambda o, a, k: seen.append(("pre", o is opt))),
        opt.register_step_post_hook(lambda o, a, k: seen.append(("post", o is opt))),
        module.register_optimizer_step_pre_hook(lambda o, a, k: seen.append(("all pre", o is opt))),
        module.register_optimizer_step_post_hook(lambda o, a, k: seen.append(("all post", o is opt))),
    ]
    try:
        step(opt, 1)
        assert seen == [("all pre", True), ("pre", True), ("post", True), ("all post", True)]
    finally:
        for handle in handles:
            handle.remove()
    step(opt, 2)
    assert len(seen) == 4


def test_a_hook_may_change_the_arguments_and_the_gradients() -> None:
    opt, calls = made(ft.SGD), []
    opt.register_step_pre_hook(lambda o, args, kwargs: ((args[0], lambda: calls.append(1) or 5.0), {}))
    assert opt.step() == 5.0
    assert calls == [1]


def test_hooks_of_saving_and_loading() -> None:
    opt, seen = made(ft.AdamW), []
    opt.register_state_dict_pre_hook(lambda o: seen.append("save"))
    opt.register_state_dict_post_hook(lambda o, d: seen.append("saved"))
    opt.register_load_state_dict_pre_hook(lambda o, d: seen.append("load"))
    opt.register_load_state_dict_post_hook(lambda o: seen.append("loaded"))
    opt.load_state_dict(opt.state_dict())
    assert seen == ["save", "saved", "load", "loaded"]


def test_zero_grad() -> None:
    opt = made(ft.AdamW)
    step(opt, 0)
    opt.zero_grad(set_to_none=False)
    assert all(bool((p.grad == 0).all()) for p in params_of(opt))
    opt.zero_grad()
    assert all(p.grad is None for p in params_of(opt))


@pytest.mark.parametrize("name", ["AdamW", "SGD", "Lion"])
def test_the_profiler_has_records_of_steps(name: str) -> None:
    opt = made(getattr(ft, name))
    with torch.autograd.profiler.profile() as profile:
        step(opt, 0)
        opt.zero_grad()
    names = {event.name for event in profile.function_events}
    assert f"Optimizer.step#{name}.step" in names
    assert f"Optimizer.zero_grad#{name}.zero_grad" in names


def test_a_step_in_modes_of_autograd() -> None:
    twin = made(ft.AdamW)
    for t in range(4):
        step(twin, t)
    opt = made(ft.AdamW)
    for t, mode in enumerate([nullcontext, torch.no_grad, torch.enable_grad, torch.inference_mode]):
        give(opt, t)
        with mode():
            opt.step()
    assert [bits(p) for p in params_of(opt)] == [bits(p) for p in params_of(twin)]
    assert all(not x.requires_grad for of_p in opt.state.values() for x in of_p.values())


def test_state_and_parameters_of_inference_mode() -> None:
    with torch.inference_mode():
        opt, twin = made(ft.AdamW, average=0.9), made(torch.optim.AdamW)
        for t in range(3):
            step(opt, t)
            step(twin, t)
    for p, q in zip(params_of(opt), params_of(twin), strict=True):
        with torch.inference_mode():
            close(p.detach(), q.detach(), "a parameter of inference mode")
    state = made(ft.AdamW)
    give(state, 0)
    with torch.inference_mode():
        state.step()
    step(state, 1)


def test_a_compiled_function_that_steps() -> None:
    torch._dynamo.reset()
    opt, twin = made(ft.AdamW), made(ft.AdamW)

    def train() -> None:
        opt.step()

    compiled = torch.compile(train, backend="eager")
    for t in range(4):
        give(opt, t)
        compiled()
        step(twin, t)
    assert [bits(p) for p in params_of(opt)] == [bits(p) for p in params_of(twin)]
    torch._dynamo.reset()


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_a_model_that_is_trained_and_compiled() -> None:
    torch._dynamo.reset()
    losses = []
    for backend in (None, "eager"):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1))
        opt = ft.AdamW(model.parameters(), lr=0.1)
        x, y = gradient((8, 4)), gradient((8, 1), 1)

        def train(model: Any = model, opt: Any = opt, x: Any = x, y: Any = y) -> Any:
            opt.zero_grad()
            loss = (model(x) - y).square().mean()
            loss.backward()
            opt.step()
            return loss.detach()

        run = train if backend is None else torch.compile(train, backend=backend)
        losses.append([run().item() for _ in range(5)])
    torch._dynamo.reset()
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)
    assert losses[0][-1] < losses[0][0]


# GradScaler


@pytest.mark.parametrize("unscaled", [False, True])
@pytest.mark.parametrize("name", ["SGD", "AdamW", "Adafactor"])
def test_grad_scaler(name: str, unscaled: bool) -> None:
    opts = pair(name)
    scalers = [torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=2) for _ in opts]
    for t in range(8):
        for opt, scaler in zip(opts, scalers, strict=True):
            opt.zero_grad()
            give(opt, t)
            factor = float(scaler.get_scale()) if t else 1024.0
            if t == 0:
                scaler.scale(torch.ones(1))
            for p in params_of(opt):
                p.grad.mul_(factor)
            if t in (2, 5):
                params_of(opt)[1].grad[0] = float("inf") if t == 2 else float("nan")
            if unscaled:
                scaler.unscale_(opt)
                torch.nn.utils.clip_grad_norm_(params_of(opt), 10.0)
            scaler.step(opt)
            scaler.update()
        same(opts)
    assert scalers[0].state_dict() == scalers[1].state_dict()
    assert not hasattr(opts[0], "found_inf")


def test_grad_scaler_with_the_norm_clipped_within_the_step() -> None:
    opt, twin = made(ft.AdamW, clip_norm=0.5), made(ft.AdamW, clip_norm=0.5)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale(torch.ones(1))
    for t in range(4):
        give(opt, t)
        for p in params_of(opt):
            p.grad.mul_(1024.0)
        scaler.step(opt)
        scaler.update()
        step(twin, t)
        assert opt.grad_norm == twin.grad_norm
    assert [bits(p) for p in params_of(opt)] == [bits(p) for p in params_of(twin)]


# Copies


@pytest.mark.parametrize("name", ALL)
def test_deepcopy_and_pickle_go_on_bit_for_bit(name: str) -> None:
    opt = made(getattr(ft, name), clip_value=0.7, average=0.5, threads=1)
    for t in range(3):
        step(opt, t)
    others = [copy.deepcopy(opt), pickle.loads(pickle.dumps(opt))]
    for other in others:
        assert type(other) is type(opt)
        assert (other.clip_value, other.average, other.threads) == (0.7, 0.5, 1)
        # PyTorch adds what later versions have.
        assert {key: other.defaults[key] for key in opt.defaults} == opt.defaults
    for one in (opt, *others):
        for t in range(3, 6):
            step(one, t)
    for other in others:
        assert [bits(p) for p in params_of(other)] == [bits(p) for p in params_of(opt)]
        assert [bits(x) for x in other.averages()] == [bits(x) for x in opt.averages()]
    assert not {id(p) for p in params_of(opt)} & {id(p) for other in others for p in params_of(other)}


def test_a_deepcopy_has_all_public_attributes() -> None:
    for name in ALL:
        opt = made(getattr(ft, name))
        public = {key for key in vars(opt) if not key.startswith("_")}
        assert {key for key in vars(copy.deepcopy(opt)) if not key.startswith("_")} == public


def test_a_whole_optimizer_through_torch_save() -> None:
    opt = made(ft.AdamW)
    step(opt, 0)
    file = io.BytesIO()
    torch.save(opt, file)
    file.seek(0)
    other = torch.load(file, weights_only=False)
    step(opt, 1)
    step(other, 1)
    assert [bits(p) for p in params_of(other)] == [bits(p) for p in params_of(opt)]


def _in_another_process(queue: Any, data: bytes) -> None:
    opt = pickle.loads(data)
    step(opt, 2)
    queue.put([bits(p) for p in params_of(opt)])


def test_a_copy_in_another_process() -> None:
    opt = made(ft.Adafactor)
    for t in range(2):
        step(opt, t)
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_in_another_process, args=(queue, pickle.dumps(opt)))
    process.start()
    found = queue.get(timeout=120)
    process.join()
    step(opt, 2)
    assert found == [bits(p) for p in params_of(opt)]


def test_a_subclass_and_its_own_step() -> None:
    class Counting(ft.AdamW):  # type: ignore[misc, name-defined]
        """A user's."""

        calls = 0

        def step(self, closure: Any = None) -> Any:
            self.calls += 1
            return super().step(closure)

    opt, twin = made(Counting), made(ft.AdamW)
    for t in range(3):
        step(opt, t)
        step(twin, t)
    assert opt.calls == 3
    assert [bits(p) for p in params_of(opt)] == [bits(p) for p in params_of(twin)]
    assert isinstance(opt, torch.optim.AdamW)
    assert isinstance(opt, torch.optim.Optimizer)


def test_an_optimizer_prints_as_pytorch_s() -> None:
    for name in DROP_INS:
        ours, stock = (made(getattr(module, name)) for module in (ft, torch.optim))
        assert repr(ours) == repr(stock)


# Threads


def test_the_same_optimizer_in_two_threads() -> None:
    opt = made(ft.AdamW, (1,))
    step(opt, 0)
    inside, go_on, errors = threading.Event(), threading.Event(), []
    engine = opt._engine

    def wait(g: Any) -> Any:
        inside.set()
        assert go_on.wait(60)
        return g

    engine.plain = wait
    give(opt, 1)
    thread = threading.Thread(target=opt.step)
    thread.start()
    assert inside.wait(60)
    for attempt in (opt.step, lambda: setattr(opt, "threads", 1), lambda: opt.load_state_dict(opt.state_dict())):
        with pytest.raises(RuntimeError, match="inside a step already") as raised:
            attempt()
        errors.append(raised)
    go_on.set()
    thread.join()
    del engine.plain
    assert opt.state[params_of(opt)[0]]["step"].item() == 2
    step(opt, 2)
    assert opt.state[params_of(opt)[0]]["step"].item() == 3


def test_two_optimizers_in_two_threads() -> None:
    opts, twins = ([made(ft.AdamW, (300, 300)) for _ in range(2)] for _ in range(2))

    def run(opt: Any) -> None:
        for t in range(20):
            step(opt, t)

    threads = [threading.Thread(target=run, args=(opt,)) for opt in opts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for opt, twin in zip(opts, twins, strict=True):
        run(twin)
        assert bits(params_of(opt)[0]) == bits(params_of(twin)[0])


# Loading


def test_load_state_dict_of_something_else() -> None:
    opt = made(ft.AdamW)
    step(opt, 0)
    before = contents(opt)
    with pytest.raises(ValueError, match="different number of parameter groups"):
        opt.load_state_dict({"state": {}, "param_groups": []})
    with pytest.raises(ValueError, match="doesn't match the size"):
        opt.load_state_dict(made(ft.AdamW, (2,)).state_dict())
    assert contents(opt) == before


@pytest.mark.parametrize("name", DROP_INS)
def test_state_dicts_of_older_versions(name: str) -> None:
    """Without the keys that came later, and with steps that are numbers."""
    opts = pair(name)
    for opt in opts:
        step(opt, 0)
        saved = copy.deepcopy(opt.state_dict())
        for group in saved["param_groups"]:
            for key in (*DB[name].not_og_supported_flags, "decoupled_weight_decay"):
                group.pop(key, None)
        for of_p in saved["state"].values():
            if "step" in of_p:
                of_p["step"] = of_p["step"].item()
        opt.load_state_dict(saved)
        if "decoupled_weight_decay" in opt.defaults:
            opt.param_groups[0].setdefault("decoupled_weight_decay", opt.defaults["decoupled_weight_decay"])
        step(opt, 1)
    same(opts)


def test_errors_of_own_rules_come_at_construction() -> None:
    p = [torch.nn.Parameter(torch.ones(2))]
    with pytest.raises(ValueError, match="lr"):
        ft.Lion(p, lr=-1.0)
    with pytest.raises(TypeError, match="unexpected keyword"):
        ft.Lion(p, learning_rate=1.0)
    with pytest.raises(TypeError, match="iterable"):
        ft.Lion(3, lr=0.1)
    for name in ALL:
        with pytest.raises(ValueError, match="clip_norm and clip_value together"):
            made(getattr(ft, name), clip_norm=1.0, clip_value=1.0)
        with pytest.raises(ValueError, match="fallback is 'numpy'"):
            made(getattr(ft, name), fallback="numpy")
        with pytest.raises(ValueError, match="clip_norm"):
            made(getattr(ft, name), clip_norm=0.0)
        with pytest.raises(TypeError, match="clip_norm is a schedule"):
            made(getattr(ft, name), clip_norm=lambda t: 1.0)
        with pytest.raises(ValueError, match="on_nonfinite"):
            made(getattr(ft, name), on_nonfinite="ignore")
        with pytest.raises((TypeError, ValueError), match="threads"):
            made(getattr(ft, name), threads=-1)


def test_names_that_pytorch_has_and_fastopt_has_not() -> None:
    with pytest.raises(AttributeError, match=r"use torch\.optim\.SparseAdam"):
        ft.SparseAdam  # noqa: B018
    with pytest.raises(AttributeError, match=r"use torch\.optim\.lr_scheduler"):
        ft.lr_scheduler  # noqa: B018
    with pytest.raises(AttributeError, match="no attribute 'Adamz'"):
        ft.Adamz  # noqa: B018
    assert issubclass(fastopt.base.nonfinite.NonFiniteError, ValueError)
