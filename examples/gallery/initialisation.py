"""Activations and gradients through a deep ReLU network against the variance of its weights: He's keeps both level."""

from __future__ import annotations

from pathlib import Path

import common
import numpy as np


def main(small: bool, out: Path) -> dict[str, float]:
    depth, width, examples = 50, 128, 128 if small else 1024
    title = f"Signals through {depth} ReLU layers of {width}, weights of variance c / {width}: level at c = 2, He's"
    figure, (left, right) = common.panels(2, title)
    facts = {}
    for c, color in [(0.5, common.SKY), (1, common.BLUE), (2, common.BLACK), (4, common.ORANGE), (8, common.PINK)]:
        rng = np.random.default_rng(0)
        x = rng.standard_normal((1, examples, width))
        params = common.network(rng, (width,) * (depth + 1), dtype=np.float64)
        for layer in params:
            layer["W"] *= np.sqrt(c / 2)
        values = [x]
        for layer in params:
            values.append(np.maximum(values[-1] @ layer["W"], 0))
        slopes = [rng.standard_normal(x.shape) * (values[-1] > 0)]
        for layer, inputs in zip(reversed(params[1:]), reversed(values[1:-1]), strict=True):
            slopes.insert(0, slopes[0] @ np.swapaxes(layer["W"], -1, -2) * (inputs > 0))
        forwards = np.array([np.mean(value**2) for value in values[1:]])
        backwards = np.array([np.mean(slope**2) for slope in slopes])
        layers = np.arange(1, depth + 1)
        name = f"c = {c:g}" + " (He)" * (c == 2)
        left.plot(layers, forwards, color=color, lw=2.5 if c == 2 else 1.5, label=name)
        right.plot(layers, backwards, color=color, lw=2.5 if c == 2 else 1.5, label=name)
        facts[f"activations, last / first layer, c = {c:g}"] = float(forwards[-1] / forwards[0])
        facts[f"gradients, first / last layer, c = {c:g}"] = float(backwards[0] / backwards[-1])
    left.set(yscale="log", xlabel="layer, from the input", ylabel="mean square of the activations")
    right.set(yscale="log", xlabel="layer, from the input", ylabel="mean square of the gradients")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False)
    common.save(figure, out, "initialisation")
    return facts
