"""Bias and variance against polynomial degree: many data sets from one curve, a polynomial trained on each."""

from __future__ import annotations

from pathlib import Path

import common
import numpy as np

import fastopt

NOISE = 0.3


def curve(x):
    return np.sin(2 * np.pi * x)


def trained(basis, y):
    """Coefficients for every data set (a column of y) at once, by full-batch descent with Nesterov momentum."""
    p = np.zeros((basis.shape[1], y.shape[1]))
    opt = fastopt.SGD(p, lr=0.4, momentum=0.3, nesterov=True)
    for _ in range(100):
        opt.step(basis.T @ (basis @ p - y))
    return p


def main(small: bool, out: Path) -> dict[str, float]:
    n, sets, degrees = 16, 200 if small else 2000, np.arange(0, 13)
    x, fine = (np.arange(n) + 0.5) / n, np.linspace(0.03, 0.97, 200)
    y = curve(x)[:, None] + NOISE * np.random.default_rng(0).standard_normal((n, sets))
    bias, variance, fits = [], [], {}
    for degree in degrees:
        powers = np.polynomial.legendre.legvander(2 * x - 1, degree)
        # In a basis orthonormal on the examples all curvatures are 1, and descent ends where least squares does.
        basis, triangle = np.linalg.qr(powers)
        on_fine = np.linalg.solve(triangle.T, np.polynomial.legendre.legvander(2 * fine - 1, degree).T).T
        predicted = on_fine @ trained(basis, y)
        bias.append(np.mean((predicted.mean(axis=1) - curve(fine)) ** 2))
        variance.append(np.mean(predicted.var(axis=1)))
        fits[degree] = predicted
    bias, variance = np.array(bias), np.array(variance)
    total = bias + variance + NOISE**2

    figure = common.Figure(figsize=(11.5, 4.2), layout="constrained")
    figure.suptitle(
        f"Polynomials through {n} noisy points: bias falls with the degree, variance rises, {sets:,} data sets"
    )
    grid = figure.add_gridspec(3, 5)
    for row, degree in enumerate((1, 3, 11)):
        ax = figure.add_subplot(grid[row, :2])
        ax.plot(fine, fits[degree][:, :25], color=common.SKY, lw=0.5)
        ax.plot(fine, fits[degree].mean(axis=1), color=common.BLUE, lw=2, label="mean")
        ax.plot(fine, curve(fine), "--", color=common.BLACK, lw=1.5, label="truth")
        ax.set(ylim=(-2.2, 2.2), ylabel=f"degree {degree}\ny", xlabel="x" if row == 2 else None)
        ax.tick_params(labelbottom=row == 2)
        if row == 0:
            ax.legend(loc="upper right", ncols=2, fontsize=8, frameon=False)
    ax = figure.add_subplot(grid[:, 2:])
    ax.plot(degrees, bias, "o-", color=common.BLUE, label="bias²")
    ax.plot(degrees, variance, "s-", color=common.ORANGE, label="variance")
    ax.plot(degrees, total, "^-", color=common.BLACK, label="error on new data: bias² + variance + noise")
    ax.axhline(NOISE**2, ls=":", color="0.4", label="noise")
    ax.set(yscale="log", ylim=(1e-3, 10), xlabel="degree of the polynomial", ylabel="mean squared error (units of y²)")
    ax.legend(loc="upper center", ncols=2)
    ax.set_xticks(degrees)
    common.save(figure, out, "bias_variance")
    best = int(total.argmin())
    return {
        "degree with the lowest error": best,
        "bias² at degree 1": float(bias[1]),
        "variance at degree 1": float(variance[1]),
        "bias² at the best": float(bias[best]),
        "variance at the best": float(variance[best]),
        "bias² at degree 12": float(bias[-1]),
        "variance at degree 12": float(variance[-1]),
        "lowest error": float(total[best]),
        "noise": NOISE**2,
    }
