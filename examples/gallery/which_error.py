"""Which error dominates: training and validation error against the number of examples, for three models."""

from __future__ import annotations

from pathlib import Path

import common
import numpy as np
from bias_variance import curve

import fastopt

NOISE = 0.3


def errors(degree, n, sets, rng):
    """Mean training and validation error of polynomials trained on n examples, over data sets."""
    x = (np.arange(n) + rng.random((sets, n))) / n
    y = curve(x) + NOISE * rng.standard_normal((sets, n))
    x_valid = rng.random((sets, 100))
    y_valid = curve(x_valid) + NOISE * rng.standard_normal((sets, 100))
    basis, triangle = np.linalg.qr(np.polynomial.legendre.legvander(2 * x - 1, degree))
    p = np.zeros((sets, degree + 1, 1))
    opt = fastopt.SGD(p, lr=0.4, momentum=0.3, nesterov=True)
    for _ in range(100):
        opt.step(np.swapaxes(basis, 1, 2) @ (basis @ p - y[..., None]))
    coefficients = np.linalg.solve(triangle, p)
    predicted = np.polynomial.legendre.legvander(2 * x_valid - 1, degree) @ coefficients
    return np.mean(((basis @ p)[..., 0] - y) ** 2), np.median(np.mean((predicted[..., 0] - y_valid) ** 2, axis=1))


def main(small: bool, out: Path) -> dict[str, float]:
    rng = np.random.default_rng(0)
    sets = 100 if small else 1000
    figure, axes = common.panels(
        3, "Which error dominates? Compare both curves with the noise and with each other", sharey=True
    )
    facts = {"noise": NOISE**2}
    for ax, degree, sizes, verdict in [
        (axes[0], 1, [4, 8, 16, 32, 64, 128, 256], "bias: both end far above the noise"),
        (axes[1], 11, [14, 16, 20, 24, 32, 48, 64], "variance: a wide gap, closed by examples"),
        (axes[2], 5, [8, 16, 32, 64, 128, 256], "noise: both end at it, nothing is left to win"),
    ]:
        train, valid = np.array([errors(degree, n, sets, rng) for n in sizes]).T
        ax.plot(sizes, valid, "o-", color=common.ORANGE, lw=2, label="validation error")
        ax.plot(sizes, train, "s-", color=common.BLUE, lw=2, label="training error")
        ax.axhline(NOISE**2, color=common.BLACK, ls=":", label="noise")
        ax.set(
            xscale="log", yscale="log", ylim=(0.01, 10), xlabel="training examples", title=f"degree {degree}\n{verdict}"
        )
        ax.set_xticks(sizes, [str(n) for n in sizes], fontsize=8)
        ax.minorticks_off()
        facts[f"training error at the end, degree {degree}"] = float(train[-1])
        facts[f"validation error at the start, degree {degree}"] = float(valid[0])
        facts[f"validation error at the end, degree {degree}"] = float(valid[-1])
    axes[0].set_ylabel("mean squared error (units of y²)")
    axes[2].legend()
    common.save(figure, out, "which_error")
    return facts
