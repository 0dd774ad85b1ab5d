"""A multilayer perceptron in NumPy: the network, its gradients and its mini-batches."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np

from fastopt.base.tree import Array

Params: TypeAlias = dict[str, dict[str, Array]]
"""Layer -> "W" and "b" -> array. Gradients look the same."""


def initialise(rng: np.random.Generator, sizes: tuple[int, ...], dtype: Any) -> Params:
    """The layers of an MLP by name, each {"W": inputs x outputs, "b": outputs}.

    He initialisation: the variance 2/inputs keeps the scale of the signal from one ReLU layer to the next.
    """
    return {
        f"layer{i}": {
            "W": (rng.standard_normal((inputs, outputs)) * np.sqrt(2 / inputs)).astype(dtype),
            "b": np.zeros(outputs, dtype),
        }
        for i, (inputs, outputs) in enumerate(itertools.pairwise(sizes), 1)
    }


def activations(params: Params, x: Array) -> list[Array]:
    """The input of every layer, and last the scores of the classes."""
    *hidden, output = params.values()
    values = [x]
    for layer in hidden:
        values.append(np.maximum(values[-1] @ layer["W"] + layer["b"], 0))
    return [*values, values[-1] @ output["W"] + output["b"]]


def log_softmax(scores: Array) -> Array:
    """log(exp(scores) / sum(exp(scores))) of each row; with the largest score at 0 no exp overflows."""
    shifted = scores - scores.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def loss_and_gradients(params: Params, x: Array, y: Array) -> tuple[float, Params]:
    """The mean cross-entropy of the classes y given the images x, and its gradients, nested like params."""
    *inputs, scores = activations(params, x)
    log_p, rows = log_softmax(scores), np.arange(len(y))
    loss = -float(log_p[rows, y].mean())

    slope = np.exp(log_p)  # d loss / d scores is (p - onehot(y)) / n
    slope[rows, y] -= 1
    slope /= len(y)
    names, grads = list(params), {}
    for i in reversed(range(len(names))):
        grads[names[i]] = {"W": inputs[i].T @ slope, "b": slope.sum(axis=0)}
        if i > 0:
            slope = slope @ params[names[i]]["W"].T * (inputs[i] > 0)
    return loss, grads


def batches(rng: np.random.Generator, n: int, size: int) -> Iterator[Array]:
    """One epoch: every index below n once, in a fresh order, `size` at a time (the last batch may be smaller)."""
    order = rng.permutation(n)
    for start in range(0, n, size):
        yield order[start : start + size]
