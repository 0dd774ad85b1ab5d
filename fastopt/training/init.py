"""Initial weights whose variance keeps the scale of activations, or of gradients, through the layers.

The fans of a weight are how many inputs one output sums over (fan_in) and how many outputs one input reaches (fan_out).
`layout` says which axes they are:

    "in_out"   (in, out), kernels of convolutions (height, width, in, out): x @ W, and Keras and JAX. The default.
    "out_in"   (out, in), kernels (out, in, height, width): x @ W.T, and PyTorch.

Either way a kernel's height and width multiply both fans. Biases start at zero: np.zeros(n, np.float32).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastopt.base.arguments import one_of, positive, shown, whole
from fastopt.base.rng import generator
from fastopt.base.tree import Array


def he_normal(
    shape: Sequence[int],
    rng: np.random.Generator | int,
    *,
    fan: str = "fan_in",
    gain: float = math.sqrt(2),
    layout: str = "in_out",
    dtype: Any = np.float32,
) -> Array:
    """Normal numbers of mean 0 and variance gain**2/fan: 2/fan for ReLU (PyTorch: kaiming_normal_).

    shape : of the weight, two axes or more.
    rng : a NumPy generator, or a seed: the same seed gives the same numbers, so give layers a generator.
    fan : "fan_in" keeps the variance of activations level through depth, "fan_out" that of gradients.
    gain : sqrt(2) for ReLU; sqrt(2/(1 + a**2)) for leaky ReLU of slope a; 1 for linear layers.
    layout : "in_out" or "out_in", see :mod:`fastopt.init`.
    dtype : float32 or float64.

    Raises TypeError or ValueError naming the argument. Source: He et al. (2015).
    """
    return _normal(shape, rng, positive("gain", gain) / math.sqrt(_he(shape, fan, layout)), dtype)


def he_uniform(
    shape: Sequence[int],
    rng: np.random.Generator | int,
    *,
    fan: str = "fan_in",
    gain: float = math.sqrt(2),
    layout: str = "in_out",
    dtype: Any = np.float32,
) -> Array:
    """Uniform numbers in [-b, b] with b = gain * sqrt(3/fan), so of variance gain**2/fan (PyTorch: kaiming_uniform_).

    The arguments are those of `he_normal`. Source: He et al. (2015).
    """
    return _uniform(shape, rng, positive("gain", gain) * math.sqrt(3 / _he(shape, fan, layout)), dtype)


def xavier_normal(
    shape: Sequence[int],
    rng: np.random.Generator | int,
    *,
    gain: float = 1.0,
    layout: str = "in_out",
    dtype: Any = np.float32,
) -> Array:
    """Normal numbers of mean 0 and variance gain**2 * 2/(fan_in + fan_out) (PyTorch: xavier_normal_; Keras: Glorot).

    gain : 1 for linear layers and sigmoid, 5/3 for tanh in PyTorch's table.
    The other arguments are those of `he_normal`. Source: Glorot and Bengio (2010).
    """
    return _normal(shape, rng, positive("gain", gain) * math.sqrt(2 / sum(_fans(shape, layout))), dtype)


def xavier_uniform(
    shape: Sequence[int],
    rng: np.random.Generator | int,
    *,
    gain: float = 1.0,
    layout: str = "in_out",
    dtype: Any = np.float32,
) -> Array:
    """Uniform numbers in [-b, b] with b = gain * sqrt(6/(fan_in + fan_out)), so of xavier_normal's variance.

    The arguments are those of `xavier_normal`. Source: Glorot and Bengio (2010).
    """
    return _uniform(shape, rng, positive("gain", gain) * math.sqrt(6 / sum(_fans(shape, layout))), dtype)


def _axes(shape: Sequence[int]) -> tuple[int, ...]:
    if not isinstance(shape, (tuple, list)):
        raise TypeError(f"shape is {shown(shape)}: expected the sizes of two axes or more, like (in, out)")
    sizes = tuple(whole(f"shape[{i}]", size) for i, size in enumerate(shape))
    if len(sizes) < 2:
        raise ValueError(f"shape is {sizes}: fans need two axes or more (a bias starts at zero: np.zeros)")
    return sizes


def _fans(shape: Sequence[int], layout: str) -> tuple[int, int]:
    sizes = _axes(shape)
    one_of("layout", layout, ("in_out", "out_in"))
    if layout == "in_out":
        *kernel, ins, outs = sizes
    else:
        outs, ins, *kernel = sizes
    return ins * math.prod(kernel), outs * math.prod(kernel)


def _he(shape: Sequence[int], fan: str, layout: str) -> int:
    fan_in, fan_out = _fans(shape, layout)
    return fan_in if one_of("fan", fan, ("fan_in", "fan_out")) == "fan_in" else fan_out


def _dtype(dtype: Any) -> Any:
    try:
        found = None if dtype is None else np.dtype(dtype)
    except (TypeError, ValueError):
        found = None
    if found not in (np.float32, np.float64):
        raise TypeError(f"dtype is {shown(dtype)}: expected np.float32 or np.float64")
    return found


def _normal(shape: Sequence[int], rng: np.random.Generator | int, std: float, dtype: Any) -> Array:
    weights: Array = generator(rng).standard_normal(_axes(shape), dtype=_dtype(dtype))
    weights *= std
    return weights


def _uniform(shape: Sequence[int], rng: np.random.Generator | int, bound: float, dtype: Any) -> Array:
    weights: Array = generator(rng).random(_axes(shape), dtype=_dtype(dtype))
    weights *= 2 * bound
    weights -= bound
    return weights
