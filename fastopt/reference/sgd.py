"""Twins of csrc/kernels/rules/sgd.h: gradient descent and its momenta."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]


def sgd(p: Array, g: Array, step: float) -> None:
    p[...] = p - step * g


def momentum(p: Array, g: Array, b: Array, mu: float, gain: float, step: float) -> None:
    b[...] = mu * b + gain * g
    p[...] = p - step * b


def nesterov(p: Array, g: Array, b: Array, mu: float, gain: float, step: float) -> None:
    b[...] = mu * b + gain * g
    p[...] = p - step * (g + mu * b)
