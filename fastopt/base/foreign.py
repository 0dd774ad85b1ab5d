"""The way in for arrays of other libraries and for what holds them, told in errors; none of them is imported."""

from __future__ import annotations

import numbers
from collections.abc import Iterable
from types import GeneratorType
from typing import Any

import numpy as np

WAYS = {
    "torch": "pass x.detach().numpy(), which shares the tensor's memory",
    "jax": "pass np.asarray(x), or np.array(x), a copy, where it is to be written",
    "jaxlib": "pass np.asarray(x), or np.array(x), a copy, where it is to be written",
    "cupy": "it is on a GPU and fastopt computes on the CPU: pass cupy.asnumpy(x), a copy",
    "tensorflow": "pass x.numpy(), a copy",
    "keras": "pass np.array(x), a copy",
    "pandas": "pass x.to_numpy(), or x.to_numpy(copy=True) where it is to be written",
    "scipy": "pass x.toarray(): fastopt takes dense arrays only",
}
"""By the package that defines the type or one that it inherits from."""

NO_COMPLEX = (
    "complex parameters are not supported; optimise real and imaginary parts as two arrays, x.real.copy() and "
    "x.imag.copy(), or as one real view, x.view(np.{real})"
)


def way_in(x: object) -> str:
    """What to pass instead of this."""
    packages = [f"{base.__module__}".partition(".")[0] for base in type(x).__mro__]
    package = next((name for name in packages if name in WAYS), "")
    if package == "torch":
        return _from_torch(x)
    if package == "jax" and "Tracer" in [base.__name__ for base in type(x).__mro__]:
        return "it has no numbers while jax traces: call fastopt outside of jax.jit and jax.grad, with what they return"
    if package:
        return WAYS[package]
    if isinstance(x, GeneratorType) and x.__qualname__ in ("Module.parameters", "Module.named_parameters"):
        return (
            "pass [p.detach().numpy() for p in model.parameters()], which share the tensors' memory, "
            "and gradients as [p.grad.numpy() for p in model.parameters()]"
        )
    if hasattr(type(x), "__cuda_array_interface__"):
        return "it is on a GPU and fastopt computes on the CPU: pass a copy in the CPU's memory as a numpy array"
    if isinstance(x, np.generic) or hasattr(type(x), "__array__"):
        return "pass np.array(x)"
    if isinstance(x, numbers.Number):
        return "make one array of the numbers, np.array([...])"
    if isinstance(x, Iterable) and not isinstance(x, (str, bytes)):
        return "of other iterables make a list with list()"
    return "pass numpy arrays"


def _from_torch(x: Any) -> str:
    if hasattr(type(x), "named_parameters"):
        return "pass [p.detach().numpy() for p in model.parameters()], which share the tensors' memory"
    device = getattr(getattr(x, "device", None), "type", "cpu")
    if device != "cpu":
        return f"it is on a device, {device}, and fastopt computes on the CPU: pass x.detach().cpu().numpy(), a copy"
    if str(getattr(x, "dtype", "")) == "torch.bfloat16":
        return "pass x.detach().float().numpy(), a copy: NumPy has no bfloat16"
    return WAYS["torch"]


def no_complex(dtype: Any) -> str:
    """What to do about complex numbers."""
    return NO_COMPLEX.format(real=np.dtype(f"f{dtype.itemsize // 2}").name)
