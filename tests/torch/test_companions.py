"""Clipping, averages and SAM for tensors: beside PyTorch's, and to the bit beside fastopt's for arrays."""

from __future__ import annotations

import contextlib
import copy
import math
import pickle
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import fastopt  # noqa: E402
import fastopt.torch as ft  # noqa: E402

SHAPES = [(64, 4), (64,), (3, 5, 7), (), (0, 3), (1,)]


def parameters(dtype: Any = None, scale: float = 1.0) -> list[Any]:
    made = torch.Generator().manual_seed(0)
    params = [torch.nn.Parameter(torch.randn(shape, generator=made, dtype=dtype)) for shape in SHAPES]
    for p in params:
        p.grad = torch.randn(p.shape, generator=made, dtype=dtype) * scale
    return params


def awkward() -> list[Any]:
    """Permuted parameters, gradients with gaps, and one without."""
    made = torch.Generator().manual_seed(1)
    params = [
        torch.nn.Parameter(torch.randn(2, 3, 4, 5, generator=made).to(memory_format=torch.channels_last)),
        torch.nn.Parameter(torch.randn(6, 4, generator=made).t()),
        torch.nn.Parameter(torch.randn(8, generator=made)[::2]),
        torch.nn.Parameter(torch.randn(3, generator=made)),
    ]
    params[0].grad = torch.randn(2, 3, 4, 5, generator=made)
    params[1].grad = torch.randn(4, 12, generator=made)[:, ::2]
    params[2].grad = torch.randn(4, generator=made)
    return params


# Clipping


@pytest.mark.parametrize("norm_type", [1.0, 2, math.inf, "inf"])
@pytest.mark.parametrize("max_norm", [0.5, 0.0, 1e6, math.inf])
@pytest.mark.parametrize("make", [parameters, awkward, lambda: parameters(torch.float64)])
def test_clipping_is_pytorchs(make: Any, max_norm: float, norm_type: Any) -> None:
    ours, theirs = make(), make()
    if float(norm_type) == math.inf:  # PyTorch has no such norm of an empty tensor, here it is 0.
        ours, theirs = ([p for p in params if p.numel()] for params in (ours, theirs))
    norm = ft.clip_grad_norm_(ours, max_norm, norm_type)
    expected = torch.nn.utils.clip_grad_norm_(theirs, max_norm, norm_type)
    assert norm.dtype == expected.dtype
    assert norm.shape == ()
    torch.testing.assert_close(norm, expected)
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p.grad, q.grad)


def test_clipping_of_tensors_has_the_bits_of_that_of_arrays() -> None:
    params = parameters()
    arrays = [p.grad.numpy().copy() for p in params]
    norm = fastopt.global_norm(arrays)
    assert ft.global_norm(params).item() == np.float32(norm)
    # PyTorch divides by norm + 1e-6: in exact proportion, this clips arrays as much.
    ft.clip_grad_norm_(params, 0.5)
    fastopt.core._core.rewrite(arrays, 0.5, norm + 1e-6, math.inf, flush=False)
    for p, a in zip(params, arrays, strict=True):
        assert p.grad.numpy().tobytes() == a.tobytes()


def test_what_is_small_enough_is_not_written() -> None:
    params = parameters(scale=1e-3)
    before = [(p.grad.clone(), p.grad._version) for p in params]
    ft.clip_grad_norm_(params, 10.0)
    ft.global_norm(params)
    for p, (g, version) in zip(params, before, strict=True):
        assert torch.equal(p.grad, g)
        assert p.grad._version == version


def test_clipped_gradients_count_as_written() -> None:
    p = torch.nn.Parameter(torch.ones(3))
    p.grad = torch.ones(3)
    before = p.grad._version
    ft.clip_grad_norm_(p, 0.5)
    assert p.grad._version == before + 1


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_norms_that_are_not_finite(bad: float) -> None:
    ours, theirs = parameters(), parameters()
    ours[0].grad[3, 1] = theirs[0].grad[3, 1] = bad
    before = [p.grad.clone() for p in ours]
    with pytest.raises(RuntimeError, match="norm of the gradients is"):
        ft.clip_grad_norm_(ours, 1.0, error_if_nonfinite=True)
    for p, g in zip(ours, before, strict=True):
        torch.testing.assert_close(p.grad, g, equal_nan=True, rtol=0, atol=0)
    torch.testing.assert_close(
        ft.clip_grad_norm_(ours, 1.0), torch.nn.utils.clip_grad_norm_(theirs, 1.0), equal_nan=True
    )
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p.grad, q.grad, equal_nan=True)


def test_nothing_to_clip() -> None:
    p = torch.nn.Parameter(torch.ones(3))
    assert ft.clip_grad_norm_([], 1.0) == 0
    assert ft.clip_grad_norm_(p, 1.0) == 0
    assert ft.clip_grad_norm_((q for q in [p]), 1.0) == 0


def test_gradients_read_with_the_other_sign() -> None:
    z = torch.randn(2, 8, dtype=torch.complex64).conj()
    p = torch.nn.Parameter(torch.ones(2, 8))
    p.grad = z.imag
    assert p.grad.is_neg()
    expected = p.grad / (p.grad.norm() + 1e-6)
    ft.clip_grad_norm_(p, 1.0)
    torch.testing.assert_close(p.grad.resolve_neg(), expected.resolve_neg())


@pytest.mark.parametrize(
    ("g", "error", "words"),
    [
        (torch.ones(3, dtype=torch.bfloat16), TypeError, "bfloat16"),
        (torch.ones(3).to_sparse(), TypeError, "sparse"),
        (torch.ones(3, dtype=torch.complex64), TypeError, "complex64"),
        (torch.ones(1).expand(3), ValueError, "expanded"),
    ],
)
def test_gradients_that_are_refused(g: Any, error: type[Exception], words: str) -> None:
    first, p = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(3, dtype=g.dtype))
    first.grad, p.grad = torch.ones(3), g
    with pytest.raises(error, match=words):
        ft.clip_grad_norm_([first, p], 0.1)
    assert torch.equal(first.grad, torch.ones(3))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"max_norm": -1.0}, "max_norm is -1.0"),
        ({"max_norm": math.nan}, "max_norm"),
        ({"max_norm": "x"}, "max_norm"),
        ({"max_norm": 1.0, "norm_type": 3}, "norm_type is 3"),
        ({"max_norm": 1.0, "error_if_nonfinite": "yes"}, "error_if_nonfinite"),
        ({"max_norm": 1.0, "parameters": 3}, "parameters is 3"),
        ({"max_norm": 1.0, "parameters": [3]}, "parameters has something"),
    ],
)
def test_arguments_of_clipping_that_are_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        ft.clip_grad_norm_(**{"parameters": parameters(), **arguments})


# Averages


def walk(model: Any, seed: int) -> None:
    made = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p += torch.randn(p.shape, generator=made)


def network() -> Any:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 2))


def test_averages_are_those_of_averaged_model() -> None:
    model = network()
    theirs = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9))
    ema = ft.EMA(model, 0.9)
    for i in range(5):
        model(torch.randn(6, 4))
        walk(model, i)
        ema.update()
        theirs.update_parameters(model)
    for name, p in theirs.module.named_parameters():
        torch.testing.assert_close(ema.averages[name], p.detach(), rtol=1e-6, atol=1e-6)
    x = torch.randn(6, 4)
    kept = {name: t.clone() for name, t in model.state_dict().items()}
    walk(model, 9)
    model(x)
    with ema.averaged():
        torch.testing.assert_close(model.eval()(x), theirs.eval()(x), rtol=1e-5, atol=1e-6)
        for name, b in theirs.module.named_buffers():
            assert torch.equal(model.get_buffer(name), b), name
    assert not torch.equal(model[0].weight, kept["0.weight"])


@pytest.mark.parametrize("options", [{}, {"debias": True}, {"warmup": True}, {"start": 2}])
@pytest.mark.parametrize("threads", [1, 2])
def test_averages_have_the_bits_of_those_of_arrays(options: dict[str, Any], threads: int) -> None:
    tensors = parameters()
    arrays = [p.detach().numpy() for p in tensors]
    ema, of_arrays = ft.EMA(tensors, 0.9, threads=threads, **options), fastopt.EMA(arrays, 0.9, False, **options)
    for i in range(6):
        walk(torch.nn.ParameterList(tensors), i)
        ema.update()
        of_arrays.update()
    for a, b in zip(ema.averages.values(), of_arrays.averages, strict=True):
        assert a.numpy().tobytes() == b.tobytes()


def test_averages_of_awkward_parameters() -> None:
    params = awkward()
    ema, expected = ft.EMA(params, 0.5), [p.detach().clone() for p in params]
    ema.update()
    for i in range(3):
        walk(torch.nn.ParameterList(params), i)
        if i == 1:  # It lies in memory in another way now.
            params[0].data = params[0].data.contiguous()
        ema.update()
        expected = [0.5 * a + 0.5 * p.detach() for a, p in zip(expected, params, strict=True)]
    for a, b in zip(ema.averages.values(), expected, strict=True):
        torch.testing.assert_close(a, b)
    params[3].data = params[3].data.bfloat16()
    with pytest.raises(TypeError, match="parameter '3' is bfloat16"):
        ema.update()


def test_averages_and_clipping_in_inference_mode() -> None:
    params = parameters()
    with torch.inference_mode():
        ema = ft.EMA(params, 0.5)
        ema.update()
        ema.update()
        p = torch.ones(3)
        p.grad = torch.ones(3)
        assert ft.clip_grad_norm_([p], 0.5) > 1
        assert p.grad[0] < 0.3


def test_parameters_come_back_from_averages() -> None:
    model = network()
    ema, opt = ft.EMA(model.named_parameters(), 0.9), ft.SGD(model.parameters(), lr=0.1)
    stock = torch.optim.SGD(model.parameters(), lr=0.1)
    ema.update()
    walk(model, 1)
    kept = [p.detach().clone() for p in model.parameters()]
    with contextlib.suppress(KeyError), ema.averaged():
        assert torch.equal(model[0].weight, ema.averages["0.weight"])
        for refused in (opt.step, stock.step, ema.update, ft.EMA(model).update, lambda: ema.averaged().__enter__()):
            with pytest.raises(RuntimeError, match="averages are in the parameters"):
                refused()
        ft.SGD([torch.nn.Parameter(torch.ones(2))], lr=0.1).step()
        raise KeyError
    for p, before in zip(model.parameters(), kept, strict=True):
        assert torch.equal(p, before)
    ema.update()
    opt.step()
    stock.step()


def test_averages_are_saved_and_loaded() -> None:
    model = network()
    ema = ft.EMA(model, 0.9)
    for i in range(3):
        ema.update()
        walk(model, i)
    saved = pickle.loads(pickle.dumps(ema.state_dict()))
    other = ft.EMA(model, 0.9)
    other.load_state_dict(saved)
    for one in (ema, other, copy.deepcopy(ema)):
        one.update()
    assert other.count == ema.count == 4
    for name, a in ema.averages.items():
        assert torch.equal(a, other.averages[name])
    for spoiled in (
        {},
        {**saved, "count": -1},
        {**saved, "averages": {}},
        {**saved, "averages": {**saved["averages"], "0.weight": torch.ones(2)}},
        {**saved, "buffers": {}},
    ):
        with pytest.raises(ValueError, match=r"expected|is not"):
            other.load_state_dict(spoiled)
    assert other.count == 4


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ([], "no parameters"),
        (3, "params is 3"),
        (torch.ones(3), "params"),
        ([3], "parameter '0' is 3"),
        ([torch.ones(3, dtype=torch.bfloat16)], "bfloat16"),
        ([("a", torch.ones(3)), ("a", torch.ones(3))], "two parameters are called 'a'"),
        ([torch.ones(1).expand(3)], "expanded"),
    ],
)
def test_parameters_that_are_not_averaged(params: Any, words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        ft.EMA(params)


# SAM


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("norm", [2, math.inf, 1])
@pytest.mark.parametrize("scale", [1.0, 1e-32])
@pytest.mark.parametrize("maximize", [False, True])
def test_sam_has_the_bits_of_that_of_arrays(norm: float, adaptive: bool, scale: float, maximize: bool) -> None:
    tensors = parameters(scale=scale)
    arrays = [p.detach().numpy().copy() for p in tensors]
    sam = ft.SAM(ft.SGD(tensors, lr=0.1, maximize=maximize), 0.5, norm, adaptive)
    of_arrays = fastopt.SAM(fastopt.SGD(arrays, lr=0.1, maximize=maximize, flush_subnormals=False), 0.5, norm, adaptive)
    for _ in range(3):
        grads = [p.grad.numpy().copy() for p in tensors]
        sam.first_step()
        of_arrays.first_step(grads)
        for p, a in zip(tensors, arrays, strict=True):
            assert p.detach().numpy().tobytes() == a.tobytes()
            p.grad = p.detach() * scale
        sam.second_step()
        of_arrays.second_step([p.grad.numpy() for p in tensors])
        for p, a in zip(tensors, arrays, strict=True):
            assert p.detach().numpy().tobytes() == a.tobytes()


def valley(p: Any) -> Any:
    p.grad = None
    loss = ((1 + 20 * torch.exp(-p[0])) * p[1] ** 2 / 2).sum()
    loss.backward()
    return loss


def test_sam_steps_with_a_closure() -> None:
    p = torch.nn.Parameter(torch.tensor([0.0, 0.8]))
    sam = ft.SAM(ft.SGD([p], lr=0.02), rho=0.3)
    first = valley(p)
    assert sam.step(lambda: valley(p)) == first
    for _ in range(2000):
        sam.step(lambda: valley(p))
    assert 1 + 20 * math.exp(-p[0].item()) < 2


def test_sam_gives_back_what_it_moved() -> None:
    params = awkward()
    kept = [p.detach().clone() for p in params]
    opt = ft.Adam(params)
    sam = ft.SAM(opt, rho=0.5)
    with pytest.raises(RuntimeError, match="second_step without a first"):
        sam.second_step()
    sam.first_step()
    assert not torch.equal(params[0], kept[0])
    assert not torch.equal(params[2], kept[2])
    assert torch.equal(params[3], kept[3])
    for refused in (opt.step, sam.first_step, torch.optim.SGD(params).step, ft.EMA(params).update):
        with pytest.raises(RuntimeError, match="perturbed point"):
            refused()
    with pytest.raises(RuntimeError, match="copied or pickled"):
        copy.deepcopy(sam)
    sam.restore()
    for p, before in zip(params, kept, strict=True):
        assert torch.equal(p, before)
    calls = iter([lambda: None, lambda: 1 / 0])
    with pytest.raises(ZeroDivisionError):
        sam.step(lambda: next(calls)())
    for p, before in zip(params, kept, strict=True):
        assert torch.equal(p, before)
    opt.step()


def test_sam_and_gradients_that_are_not_finite() -> None:
    p = torch.nn.Parameter(torch.ones(3))

    def closure() -> None:
        p.grad = torch.tensor([1.0, math.nan, 1.0])

    skipping = ft.SAM(ft.SGD([p], lr=0.1, on_nonfinite="skip"))
    skipping.step(closure)
    assert skipping.opt.skipped == 1
    with pytest.raises(fastopt.NonFiniteError, match="parameter 0 of group 0"):
        ft.SAM(ft.SGD([p], lr=0.1)).step(closure)
    assert torch.equal(p, torch.ones(3))


def test_sam_refuses_products_that_overflow() -> None:
    p = torch.nn.Parameter(torch.full((3,), 1e38))
    p.grad = torch.full((3,), 1e38)
    with pytest.raises(ValueError, match="norm of parameters times gradients is inf"):
        ft.SAM(ft.SGD([p], lr=0.1), adaptive=True).first_step()
    assert torch.equal(p, torch.full((3,), 1e38))


def test_sam_arguments_that_are_refused() -> None:
    opt = ft.SGD([torch.nn.Parameter(torch.ones(3))], lr=0.1)
    for arguments, words in (
        ((3,), "opt is 3"),
        ((opt, -1.0), "rho is -1.0"),
        ((opt, 0.1, 3), "norm is 3"),
        ((opt, 0.1, 2, 1), "adaptive is 1"),
    ):
        with pytest.raises((TypeError, ValueError), match=words):
            ft.SAM(*arguments)
    with pytest.raises(TypeError, match="closure is None"):
        ft.SAM(opt).step(None)
    half = torch.nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
    half.grad = torch.ones(3, dtype=torch.bfloat16)
    with pytest.raises(TypeError, match="bfloat16"):
        ft.SAM(torch.optim.SGD([half])).first_step()
