"""What errors advise for arrays of torch and jax does what they say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastopt


def advised(x: Any) -> str:
    with pytest.raises(TypeError) as refused:
        fastopt.SGD([x], lr=0.1)
    return str(refused.value)


def test_torch() -> None:
    torch = pytest.importorskip("torch")
    model = torch.nn.Linear(3, 2)
    for given in (model, model.parameters()):
        with pytest.raises(TypeError, match=r"p\.detach\(\)\.numpy\(\) for p in model\.parameters\(\)"):
            fastopt.SGD(given, lr=0.1)
    with pytest.raises(TypeError, match=r"'0' is a torch\.nn\.parameter\.Parameter.*x\.detach\(\)\.numpy\(\)"):
        fastopt.SGD(list(model.parameters()), lr=0.1)
    opt = fastopt.SGD([p.detach().numpy() for p in model.parameters()], lr=0.5)
    before = [p.detach().clone() for p in model.parameters()]
    model(torch.ones(4, 3)).sum().backward()
    opt.step([p.grad.numpy() for p in model.parameters()])
    for p, old in zip(model.parameters(), before, strict=True):
        assert torch.equal(p, old - 0.5 * p.grad)
    with pytest.raises(TypeError, match=r"gradient of '0' is a torch\.Tensor.*x\.detach\(\)\.numpy\(\)"):
        opt.step([p.grad for p in model.parameters()])
    half = torch.ones(3, dtype=torch.bfloat16, requires_grad=True)
    assert "x.detach().float().numpy()" in advised(half)
    assert half.detach().float().numpy().dtype == np.float32
    assert "on a device, meta," in advised(torch.ones(3, device="meta"))


def test_jax() -> None:
    jax = pytest.importorskip("jax")
    x = jax.numpy.ones(3)
    assert "np.asarray(x), or np.array(x)" in advised(x)
    p = np.array(x)
    opt = fastopt.SGD([p], lr=0.5)
    opt.step([np.asarray(jax.grad(lambda x: (x**2).sum())(x))])
    assert p.tolist() == [0, 0, 0]
    with pytest.raises(TypeError, match=r"gradient of '0' is a jaxlib\..*np\.asarray\(x\)"):
        opt.step([x])

    def stepping(x: Any) -> Any:
        opt.step([x])
        return x.sum()

    for transform in (jax.jit, jax.grad):
        with pytest.raises(TypeError, match=r"outside of jax\.jit and jax\.grad"):
            transform(stepping)(x)
