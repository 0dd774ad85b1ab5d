"""``fastopt demo --torch``: one network learns the digits in PyTorch with its AdamW, with its fused AdamW, and with
fastopt.torch's, on the same mini-batches in turn: the curves are the same, the times are not."""

from __future__ import annotations

import importlib
import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastopt.app.demo.network import batches
from fastopt.app.demo.training import Data

CLIP = 1.0
PARTS = "forward and backward", "clipping and step"
COLORS = "#bbbbbb", "#0072B2"
LINES: list[tuple[str, Any, float]] = [("#D55E00", "-", 5.0), ("#009E73", (0, (4, 2)), 3.0), ("#000000", "-", 1.0)]


class Learner(NamedTuple):
    """A network with its optimizer; `step` clips too."""

    name: str
    network: Any
    step: Callable[[], Any]
    zero: Callable[[], Any]


class Curve(NamedTuple):
    """Losses before training and after each epoch, the accuracy on the test images, and of each iteration the median
    seconds of its parts."""

    name: str
    losses: list[float]
    accuracy: float
    seconds: tuple[float, float]

    @property
    def share(self) -> float:
        """Of clipping and stepping in the loop."""
        return self.seconds[1] / sum(self.seconds)


def learners(torch: Any, sizes: tuple[int, ...], lr: float, seed: int, dtype: Any) -> list[Learner]:
    """Three copies of one network: stock, stock fused, and fastopt's."""
    own: Any = importlib.import_module("fastopt.torch")
    made: dict[str, Callable[[Any], Any]] = {
        "torch.optim.AdamW": lambda params: torch.optim.AdamW(params, lr=lr),
        "the same, fused=True": lambda params: torch.optim.AdamW(params, lr=lr, fused=True),
        "fastopt.torch.AdamW": lambda params: own.AdamW(params, lr=lr, clip_norm=CLIP, threads=1),
    }
    found = []
    for name, make in made.items():
        torch.manual_seed(seed)
        layers: list[Any] = []
        for inputs, outputs in itertools.pairwise(sizes):
            layers += [torch.nn.Linear(inputs, outputs, dtype=dtype), torch.nn.ReLU()]
        network = torch.nn.Sequential(*layers[:-1])
        params = list(network.parameters())
        opt = make(params)
        step = opt.step if name.startswith("fastopt") else _clipped(torch, params, opt)
        found.append(Learner(name, network, step, opt.zero_grad))
    return found


def _clipped(torch: Any, params: list[Any], opt: Any) -> Callable[[], Any]:
    def step() -> None:
        torch.nn.utils.clip_grad_norm_(params, CLIP)
        opt.step()

    return step


def train(torch: Any, data: Data, epochs: int, batch_size: int, lr: float, seed: int) -> list[Curve]:
    """All three in turn, mini-batch by mini-batch, on one thread."""
    x, y, x_test, y_test = map(torch.from_numpy, data)
    three = learners(torch, data.sizes, lr, seed, x.dtype)
    criterion = torch.nn.CrossEntropyLoss()
    seconds: dict[str, list[tuple[float, float]]] = {one.name: [] for one in three}
    losses: dict[str, list[float]] = {one.name: [] for one in three}
    rng, turn = np.random.default_rng(seed), list(three)

    def note() -> None:
        with torch.no_grad():
            for one in three:
                losses[one.name].append(criterion(one.network(x), y).item())

    note()
    for _ in range(epochs):
        for chosen in batches(rng, len(y), batch_size):
            images, classes = x[chosen], y[chosen]
            for one in turn:
                started = time.perf_counter()
                one.zero()
                criterion(one.network(images), classes).backward()
                between = time.perf_counter()
                one.step()
                seconds[one.name].append((between - started, time.perf_counter() - between))
            turn.append(turn.pop(0))
        note()
    found = []
    for one in three:
        with torch.no_grad():
            accuracy = (one.network(x_test).argmax(1) == y_test).double().mean().item()
        first, second = (float(np.median(column)) for column in zip(*seconds[one.name], strict=True))
        found.append(Curve(one.name, losses[one.name], accuracy, (first, second)))
    return found


def furthest(curves: list[Curve]) -> float:
    """The largest difference of a loss from the first curve's, of the loss."""
    first = np.array(curves[0].losses)
    return max(float(np.max(np.abs(np.array(c.losses) - first) / first)) for c in curves)


def run(data: Data, *, epochs: int, batch_size: int, lr: float | None, seed: int, out: Path) -> bool:
    """The whole of it: true when the three curves are one to 1e-3 of the loss, as rounding in another order makes
    them part slowly."""
    torch: Any = importlib.import_module("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        curves = train(torch, data, epochs, batch_size, 1e-3 if lr is None else lr, seed)
    finally:
        torch.set_num_threads(before)
    about = (
        f"digits, network {'-'.join(map(str, data.sizes))} in PyTorch {torch.__version__}, {epochs} epochs, "
        f"mini-batches of {batch_size}, clip_norm {CLIP:g}, one thread"
    )
    print(about, flush=True)
    _print(curves)
    draw(curves, out, about)
    off = furthest(curves)
    print(f"the losses are the same to {off:.1e} of the loss; picture: {out}")
    return off < 1e-3


def _print(curves: list[Curve]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(width=max(88, Console().width))
    unit = "us" if console.options.ascii_only else "µs"
    table = Table()
    table.add_column("optimizer", no_wrap=True)
    step, loop = f"clipping,\nstep, {unit}", f"loop,\n{unit}"
    for title in ("test\naccuracy", "final\nloss", step, "share of\nthe loop", loop):
        table.add_column(title, justify="right", no_wrap=True)
    for c in curves:
        times = f"{c.seconds[1] * 1e6:.1f}", f"{c.share:.0%}", f"{sum(c.seconds) * 1e6:.0f}"
        table.add_row(c.name, f"{c.accuracy:.2%}", f"{c.losses[-1]:.6f}", *times)
    console.print(table)


def draw(curves: list[Curve], out: Path, subtitle: str) -> None:
    """Left the losses, which coincide; right where the time of an iteration goes."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(11, 4), layout="constrained")
    figure.suptitle(f"The same curve in less time\n{subtitle}", x=0.01, ha="left", fontsize="medium")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.25))
    for c, (color, style, width) in zip(curves, LINES, strict=True):
        left.plot(c.losses, color=color, linestyle=style, linewidth=width, label=c.name)
    left.set_yscale("log")
    left.set_xlabel("epoch")
    left.set_ylabel("training loss, log scale")
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    left.legend(frameon=False, fontsize="small")
    names, start = [c.name for c in curves], np.zeros(len(curves))
    for part, (label, color) in enumerate(zip(PARTS, COLORS, strict=True)):
        widths = np.array([c.seconds[part] * 1e6 for c in curves])
        bars = right.barh(names, widths, left=start, color=color, label=label)
        right.bar_label(bars, [f"{w:.0f}" for w in widths], label_type="edge" if part else "center", padding=4 * part)
        start = start + widths
    right.invert_yaxis()
    right.set_xlabel("µs of a mini-batch")
    right.margins(x=0.12)
    right.legend(frameon=False, fontsize="small", loc="upper center", bbox_to_anchor=(0.5, 1.12), ncols=2)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(out, dpi=150)
