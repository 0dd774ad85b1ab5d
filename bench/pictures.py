"""The two pictures of docs/performance.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

Row = dict[str, Any]

OURS, THEIRS, LIMIT = "#0b5fa5", "#c8501e", "#555555"


def on(threads: int) -> str:
    return f"{threads} thread{'s' * (threads > 1)}"


def draw_sizes(rows: list[Row], caches: dict[str, str], out: Path) -> None:
    """ns per element against size, a panel for each number of threads; a line where the arrays fill a cache."""
    sizes, threads = [row["elements"] for row in rows], sorted({row["threads"] for row in rows})
    drawn, found = panels([f"AdamW on one float32 tensor, {on(n)}" for n in threads], "elements", "ns per element")
    for n, axes in zip(threads, found, strict=True):
        here = [row for row in rows if row["threads"] == n]
        curve(axes, here, "torch fused", "elements", THEIRS, "torch fused")
        curve(axes, here, "fastopt", "elements", OURS, "fastopt")
        curve(axes, here, "bytes only", "elements", LIMIT, "the limit: only touching the same bytes", "--")
        for name, size in caches.items():
            edge = in_bytes(size) / rows[0]["bytes_per_element"]
            if min(sizes) < edge < max(sizes):
                axes.axvline(edge, color="0.8", lw=1, zorder=0)
                text = {"color": "0.5", "fontsize": 8, "rotation": 90, "va": "top", "textcoords": "offset points"}
                axes.annotate(f"fills {name[:2]}", (edge, 1), (3, -2), xycoords=("data", "axes fraction"), **text)
    save(drawn, found[0], out)


def draw_tensors(rows: list[Row], out: Path) -> None:
    """ns per tensor against how many there are."""
    title = f"AdamW on tensors of 100 float32 elements, {on(rows[0]['threads'])}"
    drawn, (axes,) = panels([title], "tensors", "ns per tensor")
    curve(axes, rows, "torch fused", "tensors", THEIRS, "torch fused")
    curve(axes, rows, "fastopt", "tensors", OURS, "fastopt")
    curve(axes, rows, "fastopt, arena", "tensors", OURS, "fastopt, all in one arena", ":")
    axes.xaxis.set_major_formatter(FuncFormatter(plain))
    save(drawn, axes, out)


def panels(titles: list[str], x: str, y: str) -> tuple[Figure, list[Any]]:
    """Log-log axes side by side, with one scale upwards."""
    drawn = Figure(figsize=(9, 5), layout="constrained")
    found = list(drawn.subplots(1, len(titles), sharey=True, squeeze=False)[0])
    for axes, title in zip(found, titles, strict=True):
        axes.set(xscale="log", yscale="log", xlabel=x)
        axes.set_title(title, loc="left", fontsize=11)
        axes.grid(alpha=0.25, which="major")
        axes.spines[["top", "right"]].set_visible(False)
        axes.yaxis.set_major_formatter(FuncFormatter(plain))
        axes.yaxis.set_minor_formatter(NullFormatter())
    found[0].set_ylabel(y)
    return drawn, found


def curve(axes: Any, rows: list[Row], label: str, things: str, color: str, name: str, style: str = "-") -> None:
    """The medians of a contender in ns per thing, and their quartiles as a band."""
    rows = sorted((row for row in rows if label in row["seconds"]), key=lambda row: row[things])
    x = [row[things] for row in rows]
    low, middle, high = (
        [row["seconds"][label][key] / row[things] * 1e9 for row in rows] for key in ("q1", "median", "q3")
    )
    axes.fill_between(x, low, high, color=color, alpha=0.15, lw=0)
    axes.plot(x, middle, style, color=color, lw=2, marker="o", ms=3.5, label=name)


def save(drawn: Figure, axes: Any, out: Path) -> None:
    """With the legend of these axes below all of them."""
    handles, labels = axes.get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    drawn.savefig(out, dpi=130)


def plain(x: float, _: int) -> str:
    return f"{x:g}" if x < 1000 else f"{x:,.0f}"


def in_bytes(size: str) -> int:
    """Of "32K" or "8M", as the system writes the sizes of caches."""
    return int(size.rstrip("KMG")) * {"K": 2**10, "M": 2**20, "G": 2**30}.get(size[-1], 1)
