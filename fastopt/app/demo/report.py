"""What the demo shows: a table and a picture."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import fastopt
from fastopt.app.demo.training import Data, Result


def describe(data: Data, epochs: int, batch_size: int) -> str:
    return (
        f"{len(data.y_train):,} handwritten digits to learn from and {len(data.y_test)} to test on; "
        f"{epochs} epochs, mini-batches of {batch_size}\n"
        f"network {'-'.join(map(str, data.sizes))}, {data.x_train.dtype}; kernels for {fastopt.info().isa}"
    )


def print_table(results: list[Result]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(width=max(88, Console().width))  # whole, in a pipe and in a narrow window too
    unit = "us" if console.options.ascii_only else "µs"
    table = Table()
    table.add_column("optimizer", no_wrap=True)
    titles = ["test\naccuracy", "final\nloss", f"kernels\n{unit}/step", f"NumPy\n{unit}/step", "NumPy /\nkernels"]
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("kernels,\nNumPy", no_wrap=True)
    for r in results:
        table.add_row(
            r.row.name,
            f"{r.accuracy:.2%}",
            f"{r.losses[-1]:.5f}" if r.losses[-1] < 10 else f"{r.losses[-1]:.3g}",
            f"{r.kernels * 1e6:.1f}",
            f"{r.reference * 1e6:.1f}",
            f"{r.reference / r.kernels:.1f}x",
            "[green]same bits[/]" if r.same else "[bold red]DIFFERENT[/]",
        )
    console.print(table)


SHADES = {
    fastopt.SGD: "Blues",
    fastopt.Adagrad: "Greys",
    fastopt.RMSprop: "Greens",
    fastopt.Adam: "Reds",
    fastopt.AdamW: "Purples",
    fastopt.NAdam: "Oranges",
}
DASHES: list[Any] = ["-", (0, (4, 2)), (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5)), (0, (3, 1, 1, 1, 1, 1))]


def draw(results: list[Result], out: Path, subtitle: str) -> None:
    """The losses over the epochs: a color for each class, a shade and a line style for each of its variants.

    Later variants are thinner and darker, so that of two that coincide both are seen.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure  # without pyplot: no window, and no state left behind
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(10, 6.2), layout="constrained")
    axes = figure.add_subplot()
    seen: Counter[type] = Counter()
    for r in results:
        variant = seen[r.row.optimizer]
        seen[r.row.optimizer] += 1
        axes.plot(
            [loss if 0 < loss < math.inf else math.nan for loss in r.losses],
            label=r.row.name,
            color=colormaps[SHADES[r.row.optimizer]](0.5 + 0.11 * variant),
            linestyle=DASHES[variant],
            linewidth=max(3.2 - 0.6 * variant, 1.4),
        )
    axes.set_yscale("log")
    axes.set_xlim(0, len(results[0].losses) - 1)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch")
    axes.set_ylabel("training loss (log scale)")
    axes.grid(which="major", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title("Learning handwritten digits: the same network with each optimizer of fastopt", loc="left", pad=32)
    axes.text(0, 1.015, subtitle, transform=axes.transAxes, fontsize="small", color="dimgray")
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), handlelength=4, labelspacing=0.8, frameon=False)
    figure.savefig(out, dpi=150)
