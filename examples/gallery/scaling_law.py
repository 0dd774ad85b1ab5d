"""A scaling law: the test loss of networks trained on more and more examples, and the fit that finds its floor."""

from __future__ import annotations

from pathlib import Path

import common
import numpy as np

import fastopt

NOISE = 0.3


def target(x):
    return np.sin(2 * x[..., 0]) * np.cos(x[..., 1]) + 0.5 * np.sin(2 * x[..., 2] + x[..., 3])


def sample(rng, copies, n):
    x = rng.uniform(-2, 2, (copies, n, 4))
    y = target(x) + NOISE * rng.standard_normal((copies, n))
    return x.astype("f"), y[..., None].astype("f")


def squares(params, x, y):
    """The mean squared error of every copy."""
    return np.mean((common.forward(params, x)[-1] - y) ** 2, axis=(1, 2), dtype=float)


def trained(n, copies, steps, rng):
    """The test loss of each copy, from the step at which its validation loss was lowest."""
    x, y = sample(rng, copies, n)
    held_out, test = sample(rng, 1, 4000), sample(rng, 1, 10000)
    params = common.network(rng, (4, 64, 64, 1), copies)
    opt = fastopt.Adam(params, lr=lambda t: 3e-3 * (1 - t / steps))
    lowest, found, size = np.full(copies, np.inf), np.empty(copies), min(64, n)
    while opt.t < steps:
        for batch in fastopt.batches(n, size, rng):
            if opt.t == steps or len(batch) < size:
                break
            values = common.forward(params, x[:, batch])
            slope = fastopt.losses.mse(values[-1], y[:, batch])[1] * np.float32(copies)  # of each copy's own mean
            opt.step(common.backward(params, values, slope))
            if opt.t % 100 == 0:
                valid = squares(params, *held_out)
                better = valid < lowest
                lowest[better], found[better] = valid[better], squares(params, *test)[better]
    return found


def main(small: bool, out: Path) -> dict[str, float]:
    rng = np.random.default_rng(0)
    sizes = 2 ** np.arange(7, 14 if small else 15)
    losses = np.array([trained(int(n), 4, 800 if small else 4000, rng).mean() for n in sizes])
    fit = fastopt.scaling.fit_power_law(sizes, losses)

    figure, (ax,) = common.panels(1, "A scaling law measured: its floor is near the noise of the data")
    figure.set_size_inches(7.5, 4.6)
    fit.plot(ax)
    ax.axhline(NOISE**2, color=common.BLACK, ls=":", label=f"the noise of the data, {NOISE**2:.2g}")
    ax.set(xlabel="training examples n", ylabel="test loss (mean squared error)")
    ax.legend()
    common.save(figure, out, "scaling_law")
    return {
        "noise": NOISE**2,
        "L_inf": fit.L_inf,
        "L_inf, standard error": fit.L_inf_stderr,
        "K": fit.K,
        "K, standard error": fit.K_stderr,
        "alpha": fit.alpha,
        "alpha, standard error": fit.alpha_stderr,
        "share of the gap left by 10 times the examples": fit.gap_ratio(10),
        "lowest loss measured": float(losses.min()),
    }
