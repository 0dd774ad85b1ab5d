"""Training with the kernels, with the NumPy reference in lock-step."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import fastopt
from fastopt.app.demo.network import Params, activations, batches, initialise, loss_and_gradients
from fastopt.app.demo.rows import Row
from fastopt.app.selftest import same_bits
from fastopt.base import tree
from fastopt.base.tree import Array

HIDDEN = (256, 128)


class Data(NamedTuple):
    x_train: Array
    y_train: Array
    x_test: Array
    y_test: Array

    @property
    def sizes(self) -> tuple[int, ...]:
        """Of the layers of the network, from pixels to classes."""
        return (self.x_train.shape[1], *HIDDEN, int(self.y_train.max()) + 1)


class Result(NamedTuple):
    """What became of one optimizer: the losses before training and after each epoch (of the averaged parameters,
    where they are averaged, as is the accuracy), and the median time of a step in seconds."""

    row: Row
    accuracy: float
    losses: list[float]
    kernels: float
    reference: float
    same: bool


def load(dtype: Any) -> Data:
    """The 1,797 digits of scikit-learn, pixels from 0 to 1, every fifth of each class kept for testing."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    x, y = load_digits(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(
        (x / 16).astype(dtype), y, test_size=0.2, stratify=y, random_state=0
    )
    return Data(x_train, y_train, x_test, y_test)


def train(
    row: Row, data: Data, epochs: int, batch_size: int, seed: int, progress: Callable[[], None] = lambda: None
) -> Result:
    """Trains with the kernels, and a shadow of the parameters with the NumPy reference. Calls progress every epoch."""
    x, y = data.x_train, data.y_train
    rng = np.random.default_rng(seed)
    params = initialise(rng, data.sizes, x.dtype)
    shadow = tree.transform(params, np.copy)
    ours, theirs = row.make(params), row.make(shadow, backend="numpy")
    learned = params if ours.average is None else ours.averages
    times: dict[fastopt.Optimizer, list[float]] = {ours: [], theirs: []}
    turn = [ours, theirs]

    def agree() -> bool:
        return all(same_bits(a, b) for a, b in zip(memory(ours, params), memory(theirs, shadow), strict=True))

    # A learning rate that is too large shows as a loss of nan in the table: no warnings besides.
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        losses = [loss_and_gradients(learned, x, y)[0]]
        for epoch in range(epochs):
            if epoch == row.compared:
                turn.remove(theirs)
                same = agree()
            for chosen in batches(rng, len(y), batch_size):
                loss, grads = loss_and_gradients(params, x[chosen], y[chosen])
                more = {"loss": loss} if ours.takes_loss else {}
                for opt in turn:
                    started = time.perf_counter()
                    opt.step(grads, **more)
                    times[opt].append(time.perf_counter() - started)
                turn.reverse()  # whoever is second finds the gradients in the cache
            losses.append(loss_and_gradients(learned, x, y)[0])
            progress()
        accuracy = float(np.mean(activations(learned, data.x_test)[-1].argmax(axis=1) == data.y_test))
    if theirs in turn:
        same = agree()
    kernels, reference = (float(np.median(times[opt])) for opt in (ours, theirs))
    return Result(row, accuracy, losses, kernels, reference, same)


def memory(opt: fastopt.Optimizer, params: Params) -> list[Array]:
    """All that an optimizer writes: parameters, state buffers, step counts, its own numbers, and averages."""
    averages = [] if opt.average is None else [opt.averages]
    return [np.asarray(leaf) for _, leaf in tree.flatten([params, opt.state, opt.scalars, *averages])]


def train_all(rows: list[Row], data: Data, epochs: int, batch_size: int, seed: int) -> list[Result]:
    """Every row's result, behind a progress bar where someone watches."""
    from rich.console import Console
    from rich.progress import Progress

    quiet = not (sys.stdout.isatty() and sys.stderr.isatty())
    # While a step is timed nothing else should run: the bar has no thread of its own, and BLAS, whose idle
    # threads spin, only one (scikit-learn brings threadpoolctl).
    one_thread = importlib.import_module("threadpoolctl").threadpool_limits(1)
    with one_thread, Progress(console=Console(stderr=True), disable=quiet, auto_refresh=False, transient=True) as bar:
        task = bar.add_task("", total=len(rows) * epochs)
        results = []
        for row in rows:
            bar.update(task, description=f"{row.name:16}", refresh=True)
            results.append(
                train(row, data, epochs, batch_size, seed, lambda: bar.update(task, advance=1, refresh=True))
            )
    return results
