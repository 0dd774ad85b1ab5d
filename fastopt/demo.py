"""``fastopt demo``: a small network learns handwritten digits with every optimizer of the library.

Each optimizer trains once, with the kernels. A copy of the parameters is updated in lock-step by the same class
with ``backend="numpy"``, from the very same gradient arrays: the two must end with the same bits.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

import fastopt
from fastopt import tree
from fastopt.selftest import same_bits
from fastopt.tree import Array

if TYPE_CHECKING:
    from rich.console import Console

Params: TypeAlias = dict[str, dict[str, Array]]

HIDDEN = (256, 128)
PICTURES = (".png", ".pdf", ".svg", ".jpg")


class DemoError(Exception):
    """The demo cannot run as asked; one line says why."""


class Row(NamedTuple):
    """An optimizer of the demo: its name in the table, its class and its keywords."""

    name: str
    optimizer: type[fastopt.Optimizer]
    kwargs: dict[str, Any]

    def make(self, params: Params, **more: Any) -> fastopt.Optimizer:
        return self.optimizer(params, **{**self.kwargs, **more})


MOMENTUM = {"lr": 0.05, "momentum": 0.9}

ROWS = {
    row.name.lower().replace(" ", "-"): row
    for row in [
        Row("SGD", fastopt.SGD, {"lr": 0.2}),
        Row("SGD momentum", fastopt.SGD, MOMENTUM),
        Row("SGD Nesterov", fastopt.SGD, {**MOMENTUM, "nesterov": True}),
        Row("SGD velocity", fastopt.SGD, {**MOMENTUM, "momentum_form": "velocity"}),
        Row("SGD ema", fastopt.SGD, {"lr": 0.2, "momentum": 0.9, "momentum_form": "ema"}),
        Row("Adagrad", fastopt.Adagrad, {"lr": 0.01}),
        Row("RMSprop", fastopt.RMSprop, {"lr": 1e-3}),
        Row("RMSprop momentum", fastopt.RMSprop, {"lr": 1e-4, "momentum": 0.9}),
        Row("RMSprop centered", fastopt.RMSprop, {"lr": 5e-4, "centered": True}),
        Row("Adam", fastopt.Adam, {"lr": 1e-3}),
        Row("Adam eps-hat", fastopt.Adam, {"lr": 1e-3, "eps_hat": True}),
        Row("AMSGrad", fastopt.Adam, {"lr": 1e-3, "amsgrad": True}),
        Row("AdamW", fastopt.AdamW, {"lr": 1e-3, "weight_decay": 0.1}),
        Row("AdamW averaged", fastopt.AdamW, {"lr": 1e-3, "weight_decay": 0.1, "average": 0.99}),
        Row("NAdam", fastopt.NAdam, {"lr": 1e-3}),
        Row("NAdam schedule", fastopt.NAdam, {"lr": 1e-3, "momentum_decay": 0.004}),
    ]
}


# The network


def initialise(rng: np.random.Generator, sizes: tuple[int, ...], dtype: Any) -> Params:
    """The layers of an MLP by name, each {"W": inputs x outputs, "b": outputs}.

    He initialisation: the variance 2/inputs keeps the scale of the signal from one ReLU layer to the next.
    """
    return {
        f"layer{i}": {
            "W": (rng.standard_normal((inputs, outputs)) * np.sqrt(2 / inputs)).astype(dtype),
            "b": np.zeros(outputs, dtype),
        }
        for i, (inputs, outputs) in enumerate(zip(sizes, sizes[1:], strict=False), 1)
    }


def activations(params: Params, x: Array) -> list[Array]:
    """The input of every layer, and last the scores of the classes."""
    *hidden, output = params.values()
    values = [x]
    for layer in hidden:
        values.append(np.maximum(values[-1] @ layer["W"] + layer["b"], 0))
    return [*values, values[-1] @ output["W"] + output["b"]]


def log_softmax(scores: Array) -> Array:
    """log(exp(scores) / sum(exp(scores))) of each row; with the largest score at 0 no exp overflows."""
    shifted = scores - scores.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def loss_and_gradients(params: Params, x: Array, y: Array) -> tuple[float, Params]:
    """The mean cross-entropy of the classes y given the images x, and its gradients, nested like params."""
    *inputs, scores = activations(params, x)
    log_p, rows = log_softmax(scores), np.arange(len(y))
    loss = -float(log_p[rows, y].mean())

    slope = np.exp(log_p)  # d loss / d scores is (p - onehot(y)) / n
    slope[rows, y] -= 1
    slope /= len(y)
    names, grads = list(params), {}
    for i in reversed(range(len(names))):
        grads[names[i]] = {"W": inputs[i].T @ slope, "b": slope.sum(axis=0)}
        if i > 0:
            slope = slope @ params[names[i]]["W"].T * (inputs[i] > 0)
    return loss, grads


def batches(rng: np.random.Generator, n: int, size: int) -> Iterator[Array]:
    """One epoch: every index below n once, in a fresh order, `size` at a time (the last batch may be smaller)."""
    order = rng.permutation(n)
    for start in range(0, n, size):
        yield order[start : start + size]


# Training


class Data(NamedTuple):
    x_train: Array
    y_train: Array
    x_test: Array
    y_test: Array


class Result(NamedTuple):
    """What became of one optimizer: losses before training and after each epoch, medians of a step in seconds."""

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
    params = initialise(rng, (x.shape[1], *HIDDEN, int(y.max()) + 1), x.dtype)
    shadow = tree.transform(params, np.copy)
    ours, theirs = row.make(params), row.make(shadow, backend="numpy")
    times: dict[fastopt.Optimizer, list[float]] = {ours: [], theirs: []}
    turn = [ours, theirs]
    # A learning rate that is too large shows as a loss of nan in the table: no warnings besides.
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        losses = [loss_and_gradients(params, x, y)[0]]
        for _ in range(epochs):
            for chosen in batches(rng, len(y), batch_size):
                _, grads = loss_and_gradients(params, x[chosen], y[chosen])
                for opt in turn:
                    started = time.perf_counter()
                    opt.step(grads)
                    times[opt].append(time.perf_counter() - started)
                turn.reverse()  # whoever is second finds the gradients in the cache
            losses.append(loss_and_gradients(params, x, y)[0])
            progress()
        final = params if ours.average is None else ours.averages
        accuracy = float(np.mean(activations(final, data.x_test)[-1].argmax(axis=1) == data.y_test))
    same = all(same_bits(a, b) for a, b in zip(memory(ours, params), memory(theirs, shadow), strict=True))
    kernels, reference = (float(np.median(times[opt])) for opt in (ours, theirs))
    return Result(row, accuracy, losses, kernels, reference, same)


def memory(opt: fastopt.Optimizer, params: Params) -> list[Array]:
    """All that an optimizer writes: parameters, state buffers, step counts and averages."""
    averages = [] if opt.average is None else [opt.averages]
    return [np.asarray(leaf) for _, leaf in tree.flatten([params, opt.state, *averages])]


# The report


def run(rows: list[Row], *, epochs: int, batch_size: int, lr: float | None, seed: int, dtype: str, out: Path) -> bool:
    """The whole demo: true when every optimizer ended with the same bits as its reference.

    Raises DemoError, before any training, for what does not fit.
    """
    check_extras()
    check_out(out)
    if lr is not None:
        rows = [row._replace(kwargs={**row.kwargs, "lr": lr}) for row in rows]
    for row in rows:
        check_step(row, dtype)
    data = load(dtype)
    if batch_size > len(data.y_train):
        raise DemoError(f"--batch-size {batch_size} is more than the {len(data.y_train)} images to train on")

    results = train_all(rows, data, epochs, batch_size, seed)
    print_report(results, data, f"{epochs} epochs of mini-batches of {batch_size}")
    try:
        draw(results, out)
    except OSError as e:
        raise DemoError(f"cannot write --out {str(out)!r}: {e.strerror or e}") from None
    print(f"loss curves: {out}")
    return all(result.same for result in results)


def check_extras() -> None:
    for module in ("matplotlib", "rich", "sklearn", "threadpoolctl"):
        try:
            importlib.import_module(module)
        except ImportError as e:
            raise DemoError(f"the demo needs more packages: pip install 'fastopt[demo]' ({e})") from None


def check_out(out: Path) -> None:
    if out.suffix.lower() not in PICTURES:
        raise DemoError(f"--out {str(out)!r} is not a picture: end it in {', '.join(PICTURES)}")
    if not out.parent.is_dir():
        raise DemoError(f"--out {str(out)!r}: the folder {str(out.parent)!r} does not exist")
    try:
        existed = os.path.lexists(out)
        out.open("ab").close()  # the one check that knows of permissions, read-only disks and names too long
        if not existed:
            out.unlink()
    except OSError as e:
        raise DemoError(f"cannot write --out {str(out)!r}: {e.strerror}") from None


def check_step(row: Row, dtype: str) -> None:
    """Refuses what the optimizer would refuse, some of it only at a step."""
    params, grads = ({"layer": {"W": np.zeros(1, dtype)}} for _ in range(2))
    try:
        row.make(params).step(grads)
    except ValueError as e:
        raise DemoError(f"{row.name}: {e}") from None


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


def print_report(results: list[Result], data: Data, training: str) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 100, highlight=False)
    unit = "us" if console.options.ascii_only else "µs"
    sizes = (data.x_train.shape[1], *HIDDEN, int(data.y_train.max()) + 1)
    parameters = sum((inputs + 1) * outputs for inputs, outputs in zip(sizes, sizes[1:], strict=False))
    console.print(
        f"{len(data.y_train):,} handwritten digits to learn from, {len(data.y_test)} to test on; {training}\n"
        f"network {'-'.join(map(str, sizes))}: {parameters:,} parameters, {data.x_train.dtype}; "
        f"kernels for {fastopt.info().isa}"
    )
    table = Table("optimizer")
    for title in (
        "test accuracy",
        "final loss",
        f"step, kernels\n({unit})",
        f"step, NumPy\n({unit})",
        "NumPy /\nkernels",
    ):
        table.add_column(title, justify="right")
    table.add_column("parameters\nand state")
    for r in results:
        table.add_row(
            r.row.name,
            f"{r.accuracy:.2%}",
            f"{r.losses[-1]:.5f}" if r.losses[-1] < 1000 else f"{r.losses[-1]:.3g}",
            f"{r.kernels * 1e6:.1f}",
            f"{r.reference * 1e6:.1f}",
            f"{r.reference / r.kernels:.1f}x",
            "[green]same bits[/]" if r.same else "[bold red]DIFFERENT[/]",
        )
    console.print(table)


COLORS = {
    fastopt.SGD: "tab:blue",
    fastopt.Adagrad: "black",
    fastopt.RMSprop: "tab:green",
    fastopt.Adam: "tab:red",
    fastopt.AdamW: "tab:purple",
    fastopt.NAdam: "tab:orange",
}
DASHES: list[Any] = ["-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)), (0, (3, 1, 1, 1, 1, 1))]


def draw(results: list[Result], out: Path) -> None:
    """The loss of every optimizer over the epochs: a color for each class, a line style for each of its variants."""
    from matplotlib.figure import Figure  # no pyplot: no window, and no state to leave behind

    figure = Figure(figsize=(10, 6), layout="constrained")
    axes = figure.add_subplot()
    seen = Counter()
    handles = []
    for r in results:
        color = COLORS[r.row.optimizer]
        style = DASHES[seen[color]]
        seen[color] += 1
        handles += axes.semilogy(r.losses, color=color, ls=style, lw=1.8, label=f"{r.row.name}  {r.losses[-1]:.5f}")
    axes.set(xlabel="epoch", ylabel="training loss (cross-entropy, log scale)")
    axes.set_title("Training loss of one network with every optimizer of fastopt")
    axes.grid(alpha=0.3)
    axes.margins(x=0)
    axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.01, 1), handlelength=3.5, frameon=False)
    figure.savefig(out, dpi=150)
