"""The pictures of docs/sam.md and docs/averaging-and-stopping.md: python tools/pictures.py docs"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

import fastopt

matplotlib.use("Agg")
from matplotlib import pyplot as plt


def valley(rho: float, steps: int = 2000) -> Any:
    """The path of SAM on k(x) y^2 / 2 with k = 1 + 20 exp(-x), whose minima are y = 0, flatter to the right."""
    params = {"x": np.array([0.0]), "y": np.array([0.8])}

    def closure() -> Any:
        x, y = params["x"], params["y"]
        return {"x": -10 * np.exp(-x) * y**2, "y": (1 + 20 * np.exp(-x)) * y}

    sam = fastopt.SAM(fastopt.SGD(params, lr=0.02), rho=rho)
    path = [(0.0, 0.8)]
    for _ in range(steps):
        sam.step(closure)
        path.append((params["x"][0], params["y"][0]))
    return np.array(path)


def draw_sam(path: Path) -> None:
    figure, axes = plt.subplots(figsize=(7, 3.4), layout="constrained")
    x, y = np.meshgrid(np.linspace(-0.3, 4.2, 200), np.linspace(-1, 1, 200))
    loss = (1 + 20 * np.exp(-x)) * y**2 / 2
    shown = axes.contourf(x, y, loss, levels=[0, 0.02, 0.1, 0.3, 0.7, 1.5, 3, 6, 14], cmap="Greys", alpha=0.8)
    figure.colorbar(shown, label="loss")
    axes.axhline(0, color="black", linewidth=0.6, linestyle=":")
    for rho, colour, name in ((0.3, "tab:blue", "SAM, rho = 0.3"), (0.0, "tab:red", "gradient descent")):
        points = valley(rho)
        axes.plot(*points.T, color=colour, linewidth=1.4, label=name)
        axes.plot(*points[-1], "o", color=colour)
    axes.set(xlabel="x: the valley is flatter to the right", ylabel="y", title="Every point with y = 0 is a minimum")
    axes.legend(loc="upper right")
    figure.savefig(path, dpi=100)
    plt.close(figure)


def noisy_quadratic(steps: int = 2000, n: int = 50) -> dict[str, list[float]]:
    """How far SGD at a constant lr and its averages are from the optimum, with noise in every gradient."""
    rng = np.random.default_rng(0)
    curvature, p = np.linspace(0.2, 1, n), np.full(n, 3.0)
    opt = fastopt.SGD(p, lr=0.3)
    ema, mean = fastopt.EMA(p, 0.98), fastopt.RunningMean(p)
    found: dict[str, list[float]] = {"SGD": [], "EMA, decay 0.98": [], "running mean from step 100": []}
    for t in range(steps):
        opt.step(curvature * p + rng.standard_normal(n))
        ema.update()
        if t >= 100:
            mean.update()
        for values, point in zip(found.values(), (p, ema.averages, mean.averages), strict=True):
            values.append(float(np.linalg.norm(point)))
    return found


def draw_averaging(path: Path) -> None:
    figure, axes = plt.subplots(figsize=(7, 3.4), layout="constrained")
    for (name, values), colour in zip(noisy_quadratic().items(), ("0.7", "tab:orange", "tab:blue"), strict=True):
        start = 100 if name.startswith("running") else 0
        axes.semilogy(range(start, len(values)), values[start:], label=name, color=colour, linewidth=1.2)
    axes.set(xlabel="step", ylabel="distance to the optimum", title="Noisy gradients at a constant learning rate")
    axes.legend()
    figure.savefig(path, dpi=100)
    plt.close(figure)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    draw_sam(folder / "sam.png")
    draw_averaging(folder / "averaging.png")
