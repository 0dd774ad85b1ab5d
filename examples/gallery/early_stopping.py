"""Early stopping: the validation loss of a network turns up while it learns wrong labels by heart."""

from __future__ import annotations

from pathlib import Path

import common
import numpy as np

import fastopt


def main(small: bool, out: Path) -> dict[str, float]:
    examples, epochs, patience, noise = 2000 if small else 4000, 40 if small else 80, 10, 0.4
    x, classes, x_rest, classes_rest = common.mnist1d(examples, 2000, seed=0)
    rng = np.random.default_rng(0)
    labels = common.with_label_noise(classes, noise, rng)
    x_valid, x_test = x_rest[:1000], x_rest[1000:]
    y_valid, y_test = common.with_label_noise(classes_rest[:1000], noise, rng), classes_rest[1000:]

    params = common.network(rng, (x.shape[1], 200, 200, 10))
    stopped = [{name: a.copy() for name, a in layer.items()} for layer in params]
    stopping = fastopt.EarlyStopping(patience, restore_best=True, params=stopped)
    opt = fastopt.Adam(params, lr=1e-3)
    train, valid, stopped_at = [], [], None
    for epoch in range(epochs):
        for batch in fastopt.batches(examples, 100, rng):
            opt.step(common.classify(params, x[batch][None], labels[None, batch])[1])
        train.append(common.classify(params, x[None], labels)[0])
        valid.append(common.classify(params, x_valid[None], y_valid)[0])
        if stopped_at is None:
            # Training goes on to show what stopping avoids, so a copy is what the rule watches and restores.
            for layer, copy in zip(params, stopped, strict=True):
                for name, a in layer.items():
                    copy[name][...] = a
            if stopping.update(valid[-1]):
                stopped_at = epoch
    losses = [common.classify(p, x_test[None], y_test)[0] for p in (stopped, params)]
    errors = [float(common.error_rate(p, x_test[None], y_test)[0]) for p in (stopped, params)]

    figure, (ax,) = common.panels(
        1, f"Early stopping: {examples} examples of MNIST-1D, {noise:.0%} of the labels wrong"
    )
    figure.set_size_inches(7.5, 4.6)
    ax.plot(1 + np.arange(epochs), valid, color=common.ORANGE, lw=2, label="validation loss")
    ax.plot(1 + np.arange(epochs), train, color=common.BLUE, lw=2, label="training loss")
    ax.axvline(
        1 + stopping.best_step,
        color=common.GREEN,
        ls="--",
        label=f"restored: test loss {losses[0]:.2f}, error {errors[0]:.0%}",
    )
    ax.axvline(1 + stopped_at, color=common.BLACK, ls=":", label=f"stopped, {patience} epochs without a better one")
    ax.plot([], [], " ", label=f"at the end: test loss {losses[1]:.2f}, error {errors[1]:.0%}")
    ax.set(xlabel="epoch", ylabel="cross-entropy (nats)", ylim=(0, 5))
    ax.legend(loc="center right")
    common.save(figure, out, "early_stopping")
    return {
        "epoch of the lowest validation loss": 1 + stopping.best_step,
        "epoch of the stop": 1 + stopped_at,
        "lowest validation loss": min(valid),
        "last validation loss": valid[-1],
        "training loss then": train[stopping.best_step],
        "last training loss": train[-1],
        "test loss restored": losses[0],
        "test loss at the end": losses[1],
        "test error restored": errors[0],
        "test error at the end": errors[1],
    }
