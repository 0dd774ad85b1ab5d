"""The Gabor model from several starts: two parameters, and a loss with valleys that lead to the wrong place."""

from __future__ import annotations

from pathlib import Path

import common
import numpy as np

import fastopt

TRUE = np.array([0.0, 16.6])


def model(p, x):
    """sin(z) exp(-z^2 / 8) and its slope by z, z = p0 + 0.06 p1 x; p is (..., 2)."""
    z = p[..., :1] + 0.06 * p[..., 1:] * x
    bell = np.exp(-(z**2) / 8)
    return np.sin(z) * bell, (np.cos(z) - z / 4 * np.sin(z)) * bell


def main(small: bool, out: Path) -> dict[str, float]:
    rng = np.random.default_rng(1)
    x = rng.uniform(-15, 15, 28)
    y = model(TRUE, x)[0] + 0.1 * rng.standard_normal(28)

    def loss(p):
        return np.mean((model(p, x)[0] - y) ** 2, axis=-1)

    starts = np.array([[p0, p1] for p0 in (-6.0, -2.0, 2.0, 6.0) for p1 in (5.0, 12.0, 20.0)])
    p = starts.copy()
    opt = fastopt.SGD(p, lr=0.3, momentum=0.9)
    path = [p.copy()]
    for _ in range(3000):
        value, slope = model(p, x)
        error = 2 * (value - y) * slope / len(x)
        opt.step(np.stack([error.sum(axis=1), (error * 0.06 * x).sum(axis=1)], axis=1))
        path.append(p.copy())
    path = np.array(path)
    ends = loss(p)
    found = ends < 1.05 * ends.min()
    figure, (left, right) = common.panels(2, "The Gabor model: where descent ends depends on where it starts")
    grid = np.stack(np.meshgrid(np.linspace(-10, 10, 160), np.linspace(0, 40, 160)), axis=-1)
    left.contourf(grid[..., 0], grid[..., 1], loss(grid), levels=10, cmap="Greys", alpha=0.5)
    for i, good in enumerate(found):
        color = common.BLUE if good else common.ORANGE
        left.plot(*path[:, i].T, color=color, lw=1.5)
        left.plot(*starts[i], "o", color=color, mfc="white", ms=6)
        left.plot(*p[i], "*" if good else "X", color=color, ms=14 if good else 9, mec="white", mew=0.7, zorder=3)
    left.set(
        xlabel="$p_0$",
        ylabel="$p_1$",
        xlim=(-10, 10),
        ylim=(0, 40),
    )
    left.set_title("○ start, ★ best minimum, ✖ another end; dark: high loss", fontsize=10)
    line = np.linspace(-15, 15, 300)
    right.plot(x, y, "o", color="0.5", label="data")
    right.plot(line, model(p[ends.argmin()], line)[0], color=common.BLUE, lw=2, label=f"best, loss {ends.min():.3f}")
    stuck = np.flatnonzero(~found)[ends[~found].argmin()]
    right.plot(
        line, model(p[stuck], line)[0], "--", color=common.ORANGE, lw=2, label=f"next best, loss {ends[stuck]:.3f}"
    )
    right.set(xlabel="x", ylabel="y", ylim=(-1.2, 1.6))
    right.legend(loc="upper left")
    common.save(figure, out, "gabor")
    return {
        "starts": len(starts),
        "starts that reach the best minimum": int(found.sum()),
        "best loss": float(ends.min()),
        "next best loss": float(ends[stuck]),
        "worst loss": float(ends.max()),
        "p0": float(p[ends.argmin(), 0]),
        "p1": float(p[ends.argmin(), 1]),
    }
