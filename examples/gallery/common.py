"""What the figures share: the look of them, MNIST-1D, and a multilayer perceptron in NumPy."""

from __future__ import annotations

import io
import itertools
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

import fastopt
from fastopt.base.tree import Array

# Okabe and Ito's colours, which the colour-blind can tell apart.
BLUE, ORANGE, GREEN, PINK = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
SKY, AMBER, BLACK = "#56B4E9", "#E69F00", "#000000"

Params = list[dict[str, Array]]


def panels(count: int, title: str, **kwargs: Any) -> tuple[Figure, list[Any]]:
    """A figure with `count` axes side by side."""
    figure = Figure(figsize=(4.7 * count if count > 1 else 6.4, 4.2), layout="constrained")
    axes = list(figure.subplots(1, count, squeeze=False, **kwargs)[0])
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(alpha=0.25)
    figure.suptitle(title, fontsize=12)
    return figure, axes


def save(figure: Figure, out: Path, name: str) -> None:
    """A PNG with a palette, a third of the size of one without."""
    out.mkdir(parents=True, exist_ok=True)
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=100)
    Image.open(drawn).convert("RGB").quantize(128).save(out / f"{name}.png", optimize=True)


def mnist1d(examples: int, test: int, seed: int) -> tuple[Array, Array, Array, Array]:
    """x, classes, x_test, classes_test of MNIST-1D (Greydanus, 2020): 40 inputs, 10 classes. Made, not downloaded."""
    from mnist1d.data import get_dataset_args, make_dataset

    args = get_dataset_args()
    args.num_samples, args.train_split, args.seed = examples + test, 1.0, seed
    data = make_dataset(args)
    x, classes = data["x"].astype("f"), data["y"]
    return x[:examples], classes[:examples], x[examples:], classes[examples:]


def with_label_noise(classes: Array, share: float, rng: np.random.Generator) -> Array:
    """The classes, with a share of them, chosen at random, replaced by another of the 10."""
    wrong = rng.random(classes.shape) < share
    return np.where(wrong, (classes + rng.integers(1, 10, classes.shape)) % 10, classes)


def network(rng: np.random.Generator, sizes: tuple[int, ...], copies: int = 1, dtype: Any = "f") -> Params:
    """Layers of `copies` independent networks, each W (copies, inputs, outputs) and b (copies, 1, outputs)."""
    return [
        {
            "W": np.stack([fastopt.init.he_normal(shape, rng, dtype=dtype) for _ in range(copies)]),
            "b": np.zeros((copies, 1, shape[1]), dtype),
        }
        for shape in itertools.pairwise(sizes)
    ]


def forward(params: Params, x: Array) -> list[Array]:
    """The input of every layer, and last the output; x is (copies or 1, examples, inputs). Hidden layers are ReLU."""
    values = [x]
    for layer in params[:-1]:
        values.append(np.maximum(values[-1] @ layer["W"] + layer["b"], 0))
    return [*values, values[-1] @ params[-1]["W"] + params[-1]["b"]]


def backward(params: Params, values: list[Array], slope: Array) -> Params:
    """Gradients like params, from what `forward` returned and the slope of the loss by the output."""
    grads: Params = []
    for layer, x in zip(reversed(params), reversed(values[:-1]), strict=True):
        grads.insert(0, {"W": np.swapaxes(x, -1, -2) @ slope, "b": slope.sum(axis=-2, keepdims=True)})
        if len(grads) < len(params):
            slope = slope @ np.swapaxes(layer["W"], -1, -2) * (x > 0)
    return grads


def error_rate(params: Params, x: Array, classes: Array) -> Array:
    """The share of wrong classes, of each copy."""
    return np.mean(forward(params, x)[-1].argmax(axis=-1) != classes, axis=-1)


def classify(params: Params, x: Array, classes: Array) -> tuple[float, Params]:
    """The mean cross-entropy over all copies, and for each copy the gradient of its own mean."""
    values = forward(params, x)
    logits = values[-1]
    loss, slope = fastopt.losses.sparse_cross_entropy(logits.reshape(-1, logits.shape[-1]), classes.ravel())
    return loss, backward(params, values, slope.reshape(logits.shape) * logits.dtype.type(len(logits)))
