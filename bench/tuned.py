"""What a careful NumPy user would write: every kernel as in-place ufuncs, without a temporary array.

The functions have the names, buffers and coefficients of fastopt/reference/, and its order of operations,
so that their bits are the kernels' own (other orders save at most one pass of thirteen in Adam, within noise).
`a` and `b` are scratch of the buffers' length. Coefficients are 0-d arrays: ufuncs take them twice as fast
as Python floats, which matters below some thousands of elements.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy import add, divide, maximum, minimum, multiply, negative, sign, sqrt, subtract

from fastopt.base.tree import Array
from fastopt.core import _core

Kernel: TypeAlias = Callable[..., None]

BLOCK = 1 << 16
"""Elements that pass through a whole program at a time. Found by trial: smaller blocks pay more for calls
than they gain from a nearer cache, larger ones leave the cache."""


# Stages


def scale(out: Array, g: Array, scale: Array, a: Array, b: Array) -> None:
    multiply(g, scale, out=out)


def clamp(g: Array, one: Array, bound: Array, a: Array, b: Array) -> None:
    maximum(g, negative(bound), out=g)
    minimum(g, bound, out=g)


def l1(g: Array, p: Array, one: Array, l1: Array, a: Array, b: Array) -> None:
    sign(p, out=a)
    multiply(a, l1, out=a)
    add(g, a, out=g)


def l2(g: Array, p: Array, l2: Array, a: Array, b: Array) -> None:
    multiply(p, l2, out=a)
    add(g, a, out=g)


def decay(p: Array, keep: Array, a: Array, b: Array) -> None:
    multiply(p, keep, out=p)


def prox_l1(p: Array, one: Array, threshold: Array, a: Array, b: Array) -> None:
    maximum(p, negative(threshold), out=a)
    minimum(a, threshold, out=a)
    subtract(p, a, out=p)


def bounds(
    p: Array, one: Array, low: Array, high: Array, low_single: Array, high_single: Array, a: Array, b: Array
) -> None:  # fmt: skip
    maximum(p, low if p.itemsize == 8 else low_single, out=p)
    minimum(p, high if p.itemsize == 8 else high_single, out=p)


def average(average: Array, p: Array, decay: Array, gain: Array, a: Array, b: Array) -> None:
    _blend(average, decay, p, gain, a)


# Update rules


def sgd(p: Array, g: Array, step: Array, a: Array, b: Array) -> None:
    _descend(p, g, step, a)


def momentum(
    p: Array, g: Array, velocity: Array, mu: Array, gain: Array, step: Array, a: Array, b: Array
) -> None:  # fmt: skip
    _accumulate(velocity, mu, g, gain, a)
    _descend(p, velocity, step, a)


def nesterov(
    p: Array, g: Array, velocity: Array, mu: Array, gain: Array, step: Array, a: Array, b: Array
) -> None:  # fmt: skip
    _accumulate(velocity, mu, g, gain, a)
    multiply(velocity, mu, out=a)
    add(g, a, out=a)
    _descend(p, a, step, a)


def adagrad(
    p: Array, g: Array, s: Array, eps_in: Array, eps_out: Array, step: Array, a: Array, b: Array
) -> None:  # fmt: skip
    multiply(g, g, out=a)
    add(s, a, out=s)
    _divide_by_root(g, s, eps_in, eps_out, a)
    _descend(p, a, step, a)


def rmsprop(
    p: Array, g: Array, v: Array,
    rho: Array, gain: Array, eps_in: Array, eps_out: Array, step: Array, a: Array, b: Array,
) -> None:  # fmt: skip
    _blend_square(v, rho, g, gain, a)
    _divide_by_root(g, v, eps_in, eps_out, a)
    _descend(p, a, step, a)


def rmsprop_momentum(
    p: Array, g: Array, v: Array, velocity: Array,
    rho: Array, gain: Array, eps_in: Array, eps_out: Array, mu: Array, step: Array, a: Array, b: Array,
) -> None:  # fmt: skip
    _blend_square(v, rho, g, gain, a)
    _divide_by_root(g, v, eps_in, eps_out, a)
    multiply(velocity, mu, out=velocity)
    add(velocity, a, out=velocity)
    _descend(p, velocity, step, a)


def rmsprop_centered(
    p: Array, g: Array, v: Array, m: Array,
    rho: Array, gain: Array, eps_in: Array, eps_out: Array, step: Array, a: Array, b: Array,
) -> None:  # fmt: skip
    _variance(v, m, rho, g, gain, a)
    _divide_by_root(g, a, eps_in, eps_out, a)
    _descend(p, a, step, a)


def rmsprop_centered_momentum(
    p: Array, g: Array, v: Array, m: Array, velocity: Array,
    rho: Array, gain: Array, eps_in: Array, eps_out: Array, mu: Array, step: Array, a: Array, b: Array,
) -> None:  # fmt: skip
    _variance(v, m, rho, g, gain, a)
    _divide_by_root(g, a, eps_in, eps_out, a)
    multiply(velocity, mu, out=velocity)
    add(velocity, a, out=velocity)
    _descend(p, velocity, step, a)


def adam(
    p: Array, g: Array, m: Array, v: Array,
    beta1: Array, gain1: Array, beta2: Array, gain2: Array, unbias: Array, eps: Array, step: Array, a: Array, b: Array,
) -> None:  # fmt: skip
    _blend(m, beta1, g, gain1, a)
    _blend_square(v, beta2, g, gain2, a)
    _unbiased_root(v, unbias, eps, a)
    divide(m, a, out=a)
    _descend(p, a, step, a)


def amsgrad(
    p: Array, g: Array, m: Array, v: Array, v_max: Array,
    beta1: Array, gain1: Array, beta2: Array, gain2: Array, one: Array, unbias: Array, eps: Array, step: Array,
    a: Array, b: Array,
) -> None:  # fmt: skip
    _blend(m, beta1, g, gain1, a)
    _blend_square(v, beta2, g, gain2, a)
    maximum(v_max, v, out=v_max)
    _unbiased_root(v_max, unbias, eps, a)
    divide(m, a, out=a)
    _descend(p, a, step, a)


def nadam(
    p: Array, g: Array, m: Array, v: Array,
    beta1: Array, gain1: Array, beta2: Array, gain2: Array, unbias: Array, eps: Array, step_m: Array, step_g: Array,
    a: Array, b: Array,
) -> None:  # fmt: skip
    _blend(m, beta1, g, gain1, a)
    _blend_square(v, beta2, g, gain2, a)
    multiply(m, step_m, out=b)
    multiply(g, step_g, out=a)
    add(b, a, out=b)
    _unbiased_root(v, unbias, eps, a)
    divide(b, a, out=a)
    subtract(p, a, out=p)


# What they share


def _blend(x: Array, keep: Array, y: Array, gain: Array, a: Array) -> None:
    """x = keep * x + gain * y"""
    multiply(x, keep, out=x)
    multiply(y, gain, out=a)
    add(x, a, out=x)


def _accumulate(x: Array, keep: Array, y: Array, gain: Array, a: Array) -> None:
    """x = keep * x + gain * y, where gain is mostly 1 and costs no pass"""
    multiply(x, keep, out=x)
    if gain.item() != 1:
        y = multiply(y, gain, out=a)
    add(x, y, out=x)


def _blend_square(x: Array, keep: Array, y: Array, gain: Array, a: Array) -> None:
    """x = keep * x + gain * (y * y)"""
    multiply(x, keep, out=x)
    multiply(y, y, out=a)
    multiply(a, gain, out=a)
    add(x, a, out=x)


def _variance(v: Array, m: Array, rho: Array, g: Array, gain: Array, a: Array) -> None:
    """Moves v and m; a = max(0, v - m * m)"""
    _blend_square(v, rho, g, gain, a)
    _blend(m, rho, g, gain, a)
    multiply(m, m, out=a)
    subtract(v, a, out=a)
    maximum(a, 0.0, out=a)


def _divide_by_root(g: Array, v: Array, eps_in: Array, eps_out: Array, a: Array) -> None:
    """a = g / (sqrt(v + eps_in) + eps_out), one of which is 0 and costs no pass"""
    if eps_in:
        add(v, eps_in, out=a)
        sqrt(a, out=a)
    else:
        sqrt(v, out=a)
        add(a, eps_out, out=a)
    divide(g, a, out=a)


def _unbiased_root(v: Array, unbias: Array, eps: Array, a: Array) -> None:
    """a = sqrt(v) * unbias + eps"""
    sqrt(v, out=a)
    multiply(a, unbias, out=a)
    add(a, eps, out=a)


def _descend(p: Array, x: Array, step: Array, a: Array) -> None:
    """p = p - step * x"""
    multiply(x, step, out=a)
    subtract(p, a, out=p)


class Tuned:
    """A step over one tensor, everything about it prepared: blocks are sliced and coefficients cast once.

    A user's own loop would also compute the coefficients of each step; here they stay those of `program`,
    the (name, coefficients) pairs of one step, which favours NumPy. `buffers` are the state and the average.
    """

    def __init__(
        self,
        program: list[tuple[str, dict[str, float]]],
        p: Array,
        g: Array,
        buffers: dict[str, Array],
        sign: float = 1.0,
        max_norm: float | None = None,
        measure: bool = False,
    ) -> None:
        self.g, self.sign, self.max_norm, self.measure = g, sign, max_norm, measure
        self.factor = np.ones((), p.dtype)
        edits = any(_core.KERNELS[name][0] == "before" and _core.KERNELS[name][1][0] == "g" for name, _ in program)
        copies = edits or sign != 1 or max_norm is not None
        scratch = [np.empty(min(BLOCK, p.size), p.dtype) for _ in range(3)]
        self.calls: list[tuple[Kernel, list[Array]]] = []
        for start in range(0, p.size, BLOCK):
            block = slice(start, start + BLOCK)
            a, b, copy = (x[: p[block].size] for x in scratch)
            here = {"p": p[block], "g": copy if copies else g[block]}
            here.update({name: x[block] for name, x in buffers.items()})
            if copies:
                self.calls.append((scale, [copy, g[block], self.factor, a, b]))
            for name, values in program:
                _, names, coefs = _core.KERNELS[name]
                cast = [np.array(values[coef], p.dtype) for coef in coefs]
                self.calls.append((globals()[name], [*(here[buffer] for buffer in names), *cast, a, b]))

    def step(self) -> None:
        factor = self.sign
        if self.measure:
            norm = math.sqrt(np.dot(self.g, self.g))
            if not math.isfinite(norm):
                return
            if self.max_norm is not None and norm > self.max_norm:
                factor *= self.max_norm / norm
        self.factor[...] = factor
        for kernel, arguments in self.calls:
            kernel(*arguments)
