"""The picture of the demo: the losses over the epochs, a panel for each family, every line named at its end."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from fastopt.app.demo.training import Result

# Okabe and Ito's colors, which the color-blind tell apart too. Of lines that coincide, widths and dashes show all.
COLORS = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000"
STYLES: list[Any] = ["-", (0, (4, 2)), (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5)), "-"]
WIDTHS = 3.0, 2.4, 2.4, 1.8, 1.0
COLUMNS = 3
LINE = 0.08
"""The height of a line of text, in panels."""


def draw(results: list[Result], out: Path, subtitle: str) -> None:
    from matplotlib.figure import Figure  # without pyplot: no window, and no state left behind

    families = list(dict.fromkeys(r.row.family for r in results))
    columns = min(COLUMNS, len(families))
    rows = -(-len(families) // columns)
    figure = Figure(figsize=(max(4.2 * columns, 7), 3 * rows + 1), layout="constrained")
    title = "Learning handwritten digits: the same network with each optimizer of fastopt"
    figure.suptitle(f"{title}\n{subtitle}", x=0.01, ha="left", fontsize="medium")
    figure.supxlabel("epoch", fontsize="medium")
    figure.supylabel("training loss, log scale", fontsize="medium")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    limits = limits_of(results)
    for family, axes in zip(families, panels, strict=False):
        axes.set_title(family, loc="left", fontsize="medium", fontweight="bold")
        axes.set_yscale("log")
        axes.set_ylim(limits)
        draw_panel(axes, [r for r in results if r.row.family == family], results)
    for axes in panels[len(families) :]:
        axes.remove()
    figure.savefig(out, dpi=150)


def drawn(losses: list[float]) -> list[float]:
    """What a logarithmic axis can show of them, NaN for the rest."""
    return [loss if 0 < loss < math.inf else math.nan for loss in losses]


def limits_of(results: list[Result]) -> tuple[float, float]:
    found = [loss for r in results for loss in drawn(r.losses) if loss == loss] or [1.0]
    return min(found) / 2, max(found) * 2


def draw_panel(axes: Any, own: list[Result], everyone: list[Result]) -> None:
    """A family in color, before everyone in grey."""
    from matplotlib.ticker import MaxNLocator

    for r in everyone:
        axes.plot(drawn(r.losses), color="#dddddd", linewidth=0.8)
    for r, color, style, width in zip(own, COLORS, STYLES, WIDTHS, strict=False):
        axes.plot(drawn(r.losses), color=color, linestyle=style, linewidth=width)
    axes.set_xlim(0, len(own[0].losses) - 1)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=4))
    axes.grid(which="major", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    name_ends(axes, own)


def name_ends(axes: Any, own: list[Result]) -> None:
    """The name of each line beside its last point, moved so far that it can be read."""
    bottom, top = map(math.log, axes.get_ylim())
    ends = []
    for r, color in zip(own, COLORS, strict=False):
        points = [(loss, epoch) for epoch, loss in enumerate(drawn(r.losses)) if loss == loss]
        loss, epoch = points[-1] if points else (math.exp(top), 0)
        name = r.row.name if epoch == len(r.losses) - 1 else f"{r.row.name} (then {r.losses[-1]:g})"
        ends.append(((math.log(loss) - bottom) / (top - bottom), (epoch, loss), name, color))
    ends.sort()
    for height, (_, point, name, color) in zip(apart([end[0] for end in ends], LINE), ends, strict=True):
        axes.annotate(
            name, point, (1.06, height), textcoords="axes fraction", color=color, fontsize="small", va="center",
            arrowprops={
                "arrowstyle": "-", "color": color, "linewidth": 0.7, "shrinkA": 1, "shrinkB": 0, "relpos": (0, 0.5),
            },
        )  # fmt: skip


def apart(heights: list[float], gap: float) -> list[float]:
    """Ascending heights moved by as little as possible, in the sum of squares, to be `gap` apart."""
    groups: list[list[float]] = []
    for i, height in enumerate(heights):
        groups.append([height - i * gap])
        while len(groups) > 1 and _mean(groups[-2]) > _mean(groups[-1]):
            last = groups.pop()
            groups[-1] += last
    flat = [_mean(group) for group in groups for _ in group]
    return [height + i * gap for i, height in enumerate(flat)]


def _mean(group: list[float]) -> float:
    return sum(group) / len(group)
