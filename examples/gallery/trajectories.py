"""Paths of SGD, momentum, Nesterov, normalised gradient and Adam over one contour, and the loss along them."""

from __future__ import annotations

from pathlib import Path

import common
import numpy as np

import fastopt

TURN = np.deg2rad(30)
AXES = np.array([[np.cos(TURN), -np.sin(TURN)], [np.sin(TURN), np.cos(TURN)]])
HESSIAN = AXES @ np.diag([1.0, 20.0]) @ AXES.T


def main(small: bool, out: Path) -> dict[str, float]:
    steps = 60
    figure, (left, right) = common.panels(
        2, "Five ways down a narrow valley (curvatures 1 and 20, turned by 30°), 60 steps"
    )
    facts = {}
    for name, color, marker, make in [
        ("SGD", common.BLACK, "o", lambda p: fastopt.SGD(p, lr=0.09)),
        ("momentum 0.8", common.ORANGE, "s", lambda p: fastopt.SGD(p, lr=0.02, momentum=0.8)),
        ("Nesterov 0.8", common.BLUE, "^", lambda p: fastopt.SGD(p, lr=0.02, momentum=0.8, nesterov=True)),
        ("normalised gradient", common.PINK, "v", lambda p: fastopt.Adam(p, lr=0.1, betas=(0, 0))),
        ("Adam", common.GREEN, "D", lambda p: fastopt.Adam(p, lr=0.5, betas=(0.9, 0.99))),
    ]:
        p = np.array([-6.0, 1.5])
        opt = make(p)
        path = [p.copy()]
        for _ in range(steps):
            opt.step(HESSIAN @ p)
            path.append(p.copy())
        path = np.array(path)
        loss = 0.5 * np.einsum("ti,ij,tj->t", path, HESSIAN, path)
        left.plot(*path.T, color=color, marker=marker, ms=3, lw=1.2, label=name)
        right.plot(loss, color=color, lw=1.8, label=name)
        facts[f"loss at the end, {name}"] = float(loss[-1])
    x, y = np.meshgrid(np.linspace(-7.5, 3.5, 120), np.linspace(-6, 3.5, 120))
    value = 0.5 * (HESSIAN[0, 0] * x**2 + 2 * HESSIAN[0, 1] * x * y + HESSIAN[1, 1] * y**2)
    left.contour(x, y, value, levels=np.geomspace(0.3, 300, 12), colors="0.8", linewidths=0.8, zorder=0)
    left.plot(0, 0, "*", color=common.AMBER, mec="black", ms=14, zorder=3)
    left.set(xlabel="first parameter", ylabel="second parameter", aspect="equal")
    right.set(yscale="log", ylim=(1e-5, 1e3), xlabel="step", ylabel="loss")
    figure.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False)
    common.save(figure, out, "trajectories")
    return facts
