"""``fastopt demo``: a small network learns handwritten digits with every optimizer of the library.

Each optimizer trains once, with the kernels. A copy of the parameters is updated in lock-step by the same class
with ``backend="numpy"``, from the very same gradient arrays: the two must end with the same bits,
or be equal after the first epochs where NumPy is a hundred times slower.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path

import numpy as np

from fastopt.app.demo import in_torch
from fastopt.app.demo.picture import draw
from fastopt.app.demo.report import describe, print_table
from fastopt.app.demo.rows import ROWS, Row
from fastopt.app.demo.training import Data, load, train_all

__all__ = ["PICTURES", "ROWS", "DemoError", "run", "run_in_torch"]

PICTURES = (".png", ".pdf", ".svg", ".jpg")


class DemoError(Exception):
    """The demo cannot run as asked; one line says why."""


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
    data = loaded(dtype, batch_size)
    about = describe(data, epochs, batch_size)
    print(about, flush=True)
    results = train_all(rows, data, epochs, batch_size, seed)
    print_table(results)
    try:
        draw(results, out, about)
    except OSError as e:
        raise DemoError(f"cannot write --out {str(out)!r}: {e.strerror or e}") from None
    print(f"loss curves: {out}")
    return all(result.same for result in results)


def run_in_torch(*, epochs: int, batch_size: int, lr: float | None, seed: int, dtype: str, out: Path) -> bool:
    """``--torch``: true when PyTorch's curves and fastopt's are the same. Raises DemoError for what does not fit."""
    check_extras("torch")
    check_out(out)
    if lr is not None and not lr >= 0:
        raise DemoError(f"--lr {lr!r}: expected a number, 0 or larger")
    data = loaded(dtype, batch_size)
    return in_torch.run(data, epochs=epochs, batch_size=batch_size, lr=lr, seed=seed, out=out)


def loaded(dtype: str, batch_size: int) -> Data:
    data = load(dtype)
    if batch_size > len(data.y_train):
        raise DemoError(f"--batch-size {batch_size} is more than the {len(data.y_train)} images to train on")
    return data


def check_extras(*more: str) -> None:
    for module in ("matplotlib", "rich", "sklearn", "threadpoolctl", *more):
        try:
            importlib.import_module(module)
        except ImportError as e:
            extras = ",".join(("demo", *more))
            raise DemoError(f"the demo needs more packages: pip install 'fastopt[{extras}]' ({e})") from None


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
        opt = row.make(params)
        opt.step(grads, loss=1.0 if opt.takes_loss else None)
    except ValueError as e:
        raise DemoError(f"{row.name}: {e}") from None
