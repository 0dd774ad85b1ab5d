"""What the demo prints: what it does, and a table."""

from __future__ import annotations

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
    epochs = len(results[0].losses) - 1
    few = [r.row for r in results if r.row.compared < epochs]
    if few:
        names = ", ".join(row.name for row in few)
        console.print(f"{names}: the first {few[0].compared} epochs with NumPy too, which takes long", highlight=False)
