"""Double descent on MNIST-1D with label noise: test error against the width of a network with two hidden layers."""

from __future__ import annotations

from pathlib import Path

import common
import numpy as np

import fastopt


def main(small: bool, out: Path) -> dict[str, float]:
    examples, noise, seeds = 400 if small else 2000, 0.2, 2 if small else 3
    widths = [2, 4, 16, 128] if small else [2, 4, 6, 8, 12, 16, 20, 24, 28, 32, 40, 48, 64, 96, 160]
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

    title = f"Double descent: {examples} examples of MNIST-1D, {noise:.0%} of the labels wrong, {seeds} seeds"
    figure, (ax,) = common.panels(1, title)
    figure.set_size_inches(7.5, 4.6)
    for values, color, marker, name in [
        (test, common.ORANGE, "o", "test error (right labels)"),
        (train, common.BLUE, "s", "training error (noisy labels)"),
    ]:
        ax.plot(widths, 100 * values.mean(axis=1), color=color, marker=marker, lw=2, label=name)
        ax.fill_between(widths, 100 * values.min(axis=1), 100 * values.max(axis=1), color=color, alpha=0.2, lw=0)
    ax.axvline(widths[fits], color="0.5", ls=":", label="training error below 1%")
    ax.set(xscale="log", ylim=(0, 110), xlabel="width of both hidden layers", ylabel="error (%)")
    ax.set_xticks(widths, [str(width) for width in widths], fontsize=8)
    ax.minorticks_off()
    ax.legend(loc="upper right")
    common.save(figure, out, "double_descent")
    return {
        **{f"test error, width {width}": float(error) for width, error in zip(widths, middle, strict=True)},
        **{
            f"train error, width {width}": float(error) for width, error in zip(widths, train.mean(axis=1), strict=True)
        },
        "first width with a training error below 1%": widths[fits],
    }
