"""Arrays of other libraries are told the way in: stand-ins for libraries that need not be there."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import fastopt
from fastopt.base.foreign import way_in


def of(module: str, name: str = "Array", bases: tuple[type, ...] = (), **more: Any) -> Any:
    """An object whose type says that it is of this module."""
    return type(name, bases, {"__module__": module, "__iter__": lambda self: iter(()), **more})()


class Model:
    def parameters(self) -> Any:
        yield of("torch", "Tensor")


def generator_of_parameters() -> Any:
    found = Model().parameters()
    found.__qualname__ = "Module.parameters"
    return found


GPU, CPU = SimpleNamespace(type="cuda"), SimpleNamespace(type="cpu")
Module = type("Module", (), {"__module__": "torch.nn.modules.module", "named_parameters": None})
Tracer = type("Tracer", (), {"__module__": "jax._src.core"})

FOREIGN = {
    "torch": (of("torch", "Tensor", device=CPU), r"torch\.Tensor.*pass x\.detach\(\)\.numpy\(\), which shares"),
    "torch on a GPU": (of("torch", "Tensor", device=GPU), r"cuda.*on the CPU: pass x\.detach\(\)\.cpu\(\)\.numpy\(\)"),
    "torch bfloat16": (of("torch", "Tensor", device=CPU, dtype="torch.bfloat16"), r"\.float\(\)\.numpy\(\)"),
    "a torch model": (of("__main__", "Net", (Module,)), r"p\.detach\(\)\.numpy\(\) for p in model\.parameters\(\)"),
    "jax": (of("jaxlib._jax", "ArrayImpl"), r"jaxlib.*pass np\.asarray\(x\), or np\.array\(x\)"),
    "a jax tracer": (of("jax._src.interpreters.ad", "JVPTracer", (Tracer,)), r"outside of jax\.jit and jax\.grad"),
    "cupy": (of("cupy", "ndarray"), r"cupy\.ndarray.*GPU.*cupy\.asnumpy\(x\)"),
    "numba": (of("numba.cuda", "DeviceNDArray", __cuda_array_interface__={}), r"on a GPU.*in the CPU's memory"),
    "tensorflow": (of("tensorflow.python.framework.ops", "EagerTensor"), r"pass x\.numpy\(\)"),
    "keras": (of("keras.src.backend.common.variables", "Variable"), r"pass np\.array\(x\)"),
    "pandas": (of("pandas", "DataFrame"), r"pass x\.to_numpy\(\)"),
    "scipy": (of("scipy.sparse._csr", "csr_array"), r"pass x\.toarray\(\)"),
    "another with __array__": (of("other", __array__=None), r"pass np\.array\(x\)"),
}


def made(p: Any) -> Any:
    return fastopt.SGD([p], lr=0.1)


PLACES: dict[str, Callable[[Any], Any]] = {
    "a parameter": made,
    "a parameter alone": lambda x: fastopt.SGD(x, lr=0.1),
    "a parameter in a group": lambda x: fastopt.SGD([{"params": x}], lr=0.1),
    "a gradient": lambda x: made(np.ones(2)).step([x]),
    "a gradient alone": lambda x: fastopt.SGD(np.ones(2), lr=0.1).step(x),
    "a gradient by structure": lambda x: made(np.ones(2)).step((x,)),
    "a gradient on the reference": lambda x: fastopt.SGD([np.ones(2)], lr=0.1, backend="numpy").step([x]),
    "accumulated": lambda x: made(np.ones(2)).accumulate([x]),
    "averaged": lambda x: fastopt.EMA([x], 0.9),
    "clipped": lambda x: fastopt.clip_grad_norm_([x], 1.0),
    "measured": lambda x: fastopt.global_norm([x]),
    "in an arena": lambda x: fastopt.arena([x]),
    "checked": lambda x: fastopt.gradcheck(lambda x: 0.0, lambda x: x, [x]),
    "by L-BFGS": lambda x: fastopt.LBFGS([x]),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("library", FOREIGN)
def test_the_way_in_is_told(library: str, place: str) -> None:
    x, words = FOREIGN[library]
    with pytest.raises(TypeError, match=words) as refused:
        PLACES[place](x)
    assert "list()" not in str(refused.value)


def test_parameters_of_a_model() -> None:
    with pytest.raises(TypeError, match=r"\[p\.detach\(\)\.numpy\(\) for p in model\.parameters\(\)\]"):
        fastopt.Adam(generator_of_parameters())


@pytest.mark.parametrize(
    ("x", "words"),
    [
        ((x for x in [1]), "with list()"),
        (np.float32(1), "np.array(x)"),
        (0.5, "np.array([...])"),
        ("weights", "pass numpy arrays"),
    ],
)
def test_what_is_of_no_library(x: Any, words: str) -> None:
    assert words in way_in(x)


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
@pytest.mark.parametrize("place", ["a parameter", "a gradient", "a gradient on the reference", "clipped", "checked"])
def test_complex_numbers_keep_their_imaginary_part(place: str, dtype: str) -> None:
    x = np.array([1 + 2j, 3 - 1j], dtype)
    with pytest.raises(TypeError, match=rf"{dtype}.*not supported.*real and imaginary parts") as refused:
        PLACES[place](x)
    assert "astype" not in str(refused.value)
    real = "float32" if dtype == "complex64" else "float64"
    assert f"x.view(np.{real})" in str(refused.value)
    view = x.view(real)
    fastopt.SGD(view, lr=1.0).step(np.ones_like(view))
    assert x.tolist() == [1j, 2 - 2j]
