"""Full-batch against mini-batch descent: a line through points, with the same learning rate."""

from __future__ import annotations

from pathlib import Path

import common
import numpy as np

import fastopt


def main(small: bool, out: Path) -> dict[str, float]:
    rng = np.random.default_rng(0)
    n, epochs = 256, 40
    x = rng.uniform(-2, 2, n)
    y = 3 * x + 2 + rng.standard_normal(n)
    best = fastopt.scaling.least_squares_line(x, y)

    def loss(a, b):
        return np.mean((np.multiply.outer(a, x) + np.asarray(b)[..., None] - y) ** 2, axis=-1)

    figure, (left, right) = common.panels(
        2, "Fitting y = 3x + 2 + noise: small batches are there sooner, and do not come to rest"
    )
    facts = {"least squares a": best.a, "least squares b": best.b, "lowest loss": float(loss(best.a, best.b))}
    for size, color, marker, name in [
        (n, common.BLUE, "o", "full batch of 256"),
        (16, common.ORANGE, "s", "mini-batches of 16"),
        (1, common.BLACK, "^", "one example"),
    ]:
        p = np.zeros(2)
        opt = fastopt.SGD(p, lr=0.05)
        path = [p.copy()]
        for _ in range(epochs):
            for batch in fastopt.batches(n, size, rng):
                error = p[0] * x[batch] + p[1] - y[batch]
                opt.step(2 * np.array([(error * x[batch]).mean(), error.mean()]))
                path.append(p.copy())
        a, b = np.array(path).T
        excess = loss(a, b) - loss(best.a, best.b)
        seen = size * np.arange(len(a))
        drawn = np.unique(np.geomspace(1, len(a) - 1, 120).astype(int))
        left.plot(seen[drawn], excess[drawn], color=color, marker=marker, ms=3, lw=1.2, label=name)
        right.plot(a[:41], b[:41], color=color, marker=marker, ms=3, lw=1.2)
        facts[f"examples seen until 0.1 above the lowest loss, {name}"] = int(seen[np.argmax(excess < 0.1)])
        facts[f"mean excess of the last quarter, {name}"] = float(excess[-len(excess) // 4 :].mean())
    left.set(
        xscale="log",
        yscale="log",
        ylim=(1e-5, 30),
        xlabel="examples seen",
        ylabel="training loss above its minimum (units of y²)",
    )
    left.legend(loc="lower left")
    grid = np.meshgrid(np.linspace(-0.5, 4.5, 60), np.linspace(-0.5, 3.5, 60))
    right.contour(*grid, loss(*grid), levels=12, colors="0.8", linewidths=0.8, zorder=0)
    right.plot(best.a, best.b, "*", color=common.AMBER, mec="black", ms=14, zorder=3, label="least squares")
    right.set(xlabel="slope a", ylabel="intercept b", title="the first 40 steps, from (0, 0)")
    right.legend(loc="lower right")
    common.save(figure, out, "batch_size")
    return facts
