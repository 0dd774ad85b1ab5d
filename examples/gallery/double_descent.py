"""Double descent on MNIST-1D with label noise: test error against the width of a network with two hidden layers."""

from __future__ import annotations

from pathlib import Path

import common
import numpy as np

import fastopt


def main(small: bool, out: Path) -> dict[str, float]:
    examples, noise, seeds = 400 if small else 2000, 0.2, 2 if small else 5
    widths = [2, 16, 96] if small else [2, 4, 6, 8, 12, 16, 20, 24, 28, 32, 40, 48, 64, 96, 160]
    epochs = 500
    x, classes, x_test, classes_test = common.mnist1d(examples, 500 if small else 2000, seed=0)
    rng = np.random.default_rng(0)
    labels = common.with_label_noise(np.tile(classes, (seeds, 1)), noise, rng)
    train, test = np.zeros((2, len(widths), seeds))
    for i, width in enumerate(widths):
        params = common.network(rng, (x.shape[1], width, width, 10), seeds)
        steps = epochs * examples // 100
        opt = fastopt.Adam(params, lr=lambda t, steps=steps: 5e-3 * (1 - t / steps))
        for _ in range(epochs):
            for batch in fastopt.batches(examples, 100, rng):
                opt.step(common.classify(params, x[batch][None], labels[:, batch])[1])
        train[i] = common.error_rate(params, x[None], labels)
        test[i] = common.error_rate(params, x_test[None], classes_test)
    middle = test.mean(axis=1)
    fits = int(np.argmax(train.mean(axis=1) < 0.01))

    title = f"Double descent: {examples:,} examples of MNIST-1D, {noise:.0%} of the labels wrong, {seeds} seeds"
    figure, (left, right) = common.panels(2, title)
    for ax, errors, color, name in [
        (left, test, common.ORANGE, "test error, right labels (%)"),
        (right, train, common.BLUE, "training error, noisy labels (%)"),
    ]:
        ax.plot(widths, 100 * errors.mean(axis=1), "o-", color=color, lw=2)
        ax.fill_between(widths, 100 * errors.min(axis=1), 100 * errors.max(axis=1), color=color, alpha=0.2, lw=0)
        ax.axvline(widths[fits], color=common.BLACK, ls=":", label=f"training error below 1% from width {widths[fits]}")
        ax.set(xscale="log", xlabel="width of both hidden layers", ylabel=name)
        ax.set_xticks(widths, ["" if width in (20, 28, 40) else str(width) for width in widths], fontsize=8)
        ax.minorticks_off()
    right.legend(loc="upper right")
    common.save(figure, out, "double_descent")
    return {
        **{f"test error, width {width}": float(error) for width, error in zip(widths, middle, strict=True)},
        **{
            f"training error, width {width}": float(error)
            for width, error in zip(widths, train.mean(axis=1), strict=True)
        },
        "first width with a training error below 1%": widths[fits],
    }
