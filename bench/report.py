"""Pages and pictures of what bench/peers.py measured: python -m bench.report FILE.json

Writes docs/performance.md, docs/performance-size.png and docs/performance-tensors.png, the block between
<!-- performance --> and <!-- /performance --> in README.md, and that between such marks in docs/torch.md.
Prose is in the templates below, numbers are in the file.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from bench.pictures import draw_sizes, draw_tensors, on
from fastopt.app.benchmark.contenders import MAKERS
from fastopt.app.benchmark.rows import verdict

Row = dict[str, Any]

PAGE = """\
# Performance

Measured on {date}{quick}: {cpu}, {cpus} CPUs, caches {caches}, {memory} GiB, {system}, huge pages "{huge_pages}".
fastopt {fastopt} (kernels for {isa}), built by {compiler} with `{flags}`;
Python {python}, NumPy {numpy}; {peers}.{missing}

`python -m bench.peers --out FILE.json && python -m bench.report FILE.json` makes this page anew, on any machine.
Times are medians of a step, ratios medians of the ratios within a round with their quartiles,
and beside them the ratio of the means over all rounds: [how](#how-it-is-measured).

## What is promised

{kept} of {promised} rows reach their target, {goals} of them the goal. The ratio is the other's time over fastopt's,
but in the row of subnormals. Rows that miss stay here.

{promises}

## On PyTorch's tensors

[fastopt.torch](torch.md) beside torch.optim, on as many threads: how many times as long the other takes. torch clips
with `clip_grad_norm_` before its step.

{in_torch}

## The first hundred steps

AdamW on one tensor, an optimizer made anew, each step timed by itself: the first touches new memory and is apart; of
the others the mean over the median, which is above 1 where some of them are slow. Target 1.10, goal 1.03.

{steady}

## Beside everyone

How many times as long as fastopt the others take; below 1 they are faster. torch has three forms: its default, a loop
over tensors; `foreach`; and `fused`, a kernel in C++. What does not offer a row's computation has no number in it. An
arena (`fastopt.arena`) makes one tensor of many, and has it begin at a cache line, which NumPy's arrays do not.

{everyone}

## From small to large

![Nanoseconds per element against the number of elements](performance-size.png)

AdamW on one float32 tensor, ns per element. *Bytes only* is a loop in C that reads and writes as many bytes as the step
and computes next to nothing: what memory, or the cache that the arrays fit in, allows.

{sizes}

## Many tensors

![Nanoseconds per tensor against the number of tensors](performance-tensors.png)

AdamW on tensors of 100 float32 elements, ns per tensor. In an arena all of them are one tensor to the step.

{tensors}

## Every optimizer

ns per element of fastopt, and how many times as long the fastest of torch's forms takes (d: default, e: foreach,
f: fused, which RMSprop and NAdam do not have).

{optimizers}

## What a step costs

    seconds = fixed + tensors * per_tensor + elements * max(arithmetic, bytes_per_element / bandwidth)

| | AdamW on one thread of this machine | read off |
|---|---|---|
| fixed | {fixed:.2f} µs | a step on one tensor of 100 |
| per_tensor | {per_tensor:.0f} ns | 1 against {many:,} tensors of 100 |
| arithmetic | {arithmetic:.3f} ns per element | {small:,} against {cached:,} elements, which a cache holds |
| bandwidth | {bandwidth} | the bytes-only loop on the largest arrays |

Bytes per element, float32: every array that a step writes counts 8, the gradient 4, and 4 more where its norm is
measured; `opt.bytes_per_step` says it of a whole model. All that surrounds the rule happens in the same pass, so
of the options only an average (8) and a norm (4) add traffic. Predicted from the bandwidth alone:

{rules}

AdamW on one tensor and one thread, with the bandwidth of the bytes-only loop at each size:

{predictions}

More tensors than the caches hold the headers of cost more than predicted, each of them: {far}.

### A model that is not here

7 billion float32 parameters under AdamW are 28 * 7e9 bytes, 196 GB of traffic for a step. On 64 cores memory is the
limit by far (the arithmetic takes {arithmetic64:.2f} s, were each of them like the one above), so

    seconds = 196 / bandwidth + tensors * per_tensor

with the GB/s that all cores reach together. `python -m bench.peers --rows limit-adamw` finds them there: 0.84 over the
seconds of *bytes only*. At 100 GB/s a step takes 1.96 s, at 200 GB/s 0.98 s, at 400 GB/s 0.49 s, and 300 tensors
add {tensors300:.2f} ms. Clipping by norm makes it 224 GB, and an average of the weights 56 GB more. Nothing of this
was measured on such a machine. Where memory belongs to sockets, a page belongs to the one whose thread touched it
first, and a thread has the same part of the arrays at every step.

## How it is measured

- All contenders of a row share a process and take turns, in an order that changes from round to round, so that a busy
  moment of the machine meets all alike. A turn is a step untimed, then a batch of at least 0.3 ms timed (one step
  where that is longer), with the garbage collector off; {rounds} rounds or more. On several threads a pause of 12 ms
  comes before each turn: the OpenMP threads of others spin some 8 ms after their work.
- Parameters start equal. Gradients are made beforehand and stay the same; what clipping or a library does to them is
  undone between batches. Before it is timed, each contender takes three steps on small tensors, and must
  arrive where fastopt does but for rounding.
- torch has as many threads as fastopt (`torch.set_num_threads`), and its arrays are in huge pages as NumPy's are
  (`THP_MEM_ALLOC_ENABLE=1`), which makes it faster. optax is one jitted function, to which parameters and state are
  donated; jax chooses its threads itself, in all rows. scikit-learn's optimizer, which has no weight decay, gets a line
  of NumPy for it. scikit-learn, thinc and NumPy are on one thread.
- The bytes-only loop is compiled here and for this CPU (`-O3 -march=native`). As the step does, it takes the arrays in
  chunks, shares them out among threads, and finds them at the same places against cache lines.
- *Separate passes* are fastopt's own kernels one after another: norm, clip, L2, AdamW, average.
- In the row of subnormals, gradients and state are filled before every step: with 1e-40, and for comparison with 0.5.
  Inside a step fastopt flushes subnormals, unless told otherwise.
"""

README = """\
A step of AdamW in float32 beside torch {torch}, its fused form, on an {cpu}:

{table}

[More rows, sizes and libraries](docs/performance.md), those where fastopt is slower among them."""

README_ROWS = ("1k/1", "policy/1", "policy-clip/1", "100x100/1", "mlp/{n}", "1m/{n}", "20m/{n}", "20m-clip/{n}")

FORMS = {"torch": "d", "torch foreach": "e", "torch fused": "f"}


# Numbers as text


def time(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= 0.9995 * size:
            return f"{significant(seconds / size)} {unit}"
    return f"{significant(seconds * 1e9)} ns"


def significant(x: float) -> str:
    """Three digits, and all of those before the point."""
    return f"{x:.2f}" if x < 9.995 else f"{x:.1f}" if x < 99.95 else f"{x:,.0f}"


def times(spread: dict[str, float]) -> str:
    return f"{significant(spread['median'])} ({significant(spread['q1'])} to {significant(spread['q3'])})"


def table(head: Iterable[str], lines: Iterable[Iterable[str]], left: int = 1) -> str:
    """Markdown: the first columns to the left, the others to the right."""
    head = list(head)
    marks = ["---"] * left + ["--:"] * (len(head) - left)
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, marks, *lines))


# Rows


class Data(NamedTuple):
    """A file of bench/peers.py: rows by name, those that were measured."""

    whole: dict[str, Any]
    rows: dict[str, Row]

    @property
    def threads(self) -> list[int]:
        return sorted({row["threads"] for row in self.rows.values()})

    def group(self, *groups: str, threads: int | None = None) -> list[Row]:
        return [
            row
            for row in self.rows.values()
            if row["group"] in groups and (threads is None or row["threads"] == threads)
        ]


def load(path: Path) -> Data:
    whole = json.loads(path.read_text())
    return Data(whole, {row["name"]: row for row in whole["rows"] if "error" not in row})


def seconds(row: Row | None, label: str) -> float | None:
    """The median of a contender, where there is one."""
    return row["seconds"][label]["median"] if row and label in row["seconds"] else None


def per(row: Row | None, label: str, things: str) -> str:
    found = seconds(row, label)
    return "" if row is None or found is None else significant(found / row[things] * 1e9)


# Tables


def promised(data: Data) -> list[Row]:
    return [row for row in data.group("small", "large", "limits", "torch") if row["target"] is not None]


def promises(data: Data, in_torch: bool) -> str:
    lines = []
    for row in promised(data):
        if (row["group"] == "torch") != in_torch:
            continue
        found = row["ratios"].get(row["against"])
        word = verdict(row) or row["absent"].get(row["against"], "not measured")
        theirs = seconds(row, row["against"])
        lines.append(
            [
                row["title"],
                row["against"],
                str(row["threads"]),
                time(row["seconds"][row["of"]]["median"]),
                "" if theirs is None else time(theirs),
                "" if found is None else times(found),
                "" if found is None else significant(found["of_means"]),
                ("at most " if row["at_most"] else "") + f"{row['target']:g}",
                "" if row["goal"] is None else f"{row['goal']:g}",
                f"**{word}**" if word == "missed" else word,
            ]
        )
    head = ("step", "against", "threads", "fastopt", "the other", "ratio", "of means", "target", "goal", "verdict")
    lines += [
        [row["title"], "", row["name"].partition("/")[2], "", "", "", "", "", "", f"failed: {row['error']}"]
        for row in data.whole["rows"]
        if "error" in row and (row["group"] == "torch") == in_torch
    ]
    return table(head, lines, left=2)


def steady(data: Data) -> str:
    head = ("elements", "threads", "first step", "median", "mean", "mean over median", "verdict")
    lines = []
    for row in data.group("steady"):
        times = [time(row[x]) for x in ("first", "median", "mean")]
        word = f"**{row['verdict']}**" if row["verdict"] == "missed" else row["verdict"]
        lines.append([row["title"], str(row["threads"]), *times, f"{row['ratio']:.3f}", word])
    return table(head, lines)


def everyone(data: Data) -> str:
    rows = data.group("small", "large")
    labels = [
        label
        for label in dict.fromkeys(label for row in rows for label in row["seconds"])
        if label in MAKERS and label != "fastopt"
    ]
    lines = []
    for row in rows:
        if "subnormal" in row["name"] or not set(labels) & set(row["seconds"]):
            continue
        cells = [significant(row["ratios"][label]["median"]) if label in row["ratios"] else "" for label in labels]
        lines.append([row["title"], str(row["threads"]), time(row["seconds"]["fastopt"]["median"]), *cells])
    return table(["step", "threads", "fastopt", *labels], lines)


def sweep(data: Data, group: str, things: str, labels: tuple[str, ...]) -> str:
    """A line for each size, with the columns of every number of threads."""
    sizes = sorted({row[things] for row in data.group(group)})
    columns = [(label, n) for n in data.threads for label in labels]
    found = {(row[things], row["threads"]): row for row in data.group(group)}
    head = [things, *(f"{label}, {on(n)}" for label, n in columns)]
    return table(
        head,
        ([f"{size:,}", *(per(found.get((size, n)), label, things) for label, n in columns)] for size in sizes),
        left=0,
    )


def optimizers(data: Data) -> str:
    rows = data.group("optimizers")
    if not rows:
        return "Not measured."
    sizes = sorted({row["elements"] for row in rows})
    found = {(row["rule"], row["elements"], row["threads"]): row for row in rows}
    columns = [(size, n) for n in data.threads for size in sizes]
    lines = []
    for rule in dict.fromkeys(row["rule"] for row in rows):
        line = [rule]
        for size, n in columns:
            row = found.get((rule, size, n))
            here = [label for label in FORMS if row and label in row["ratios"]]
            if row is None:
                line.append("")
            elif not here:
                line.append(per(row, "fastopt", "elements"))
            else:
                best = min(here, key=lambda label: row["ratios"][label]["median"])
                ratio = significant(row["ratios"][best]["median"])
                line.append(f"{per(row, 'fastopt', 'elements')}, {ratio} {FORMS[best]}")
        lines.append(line)
    return table(["rule", *(f"{size:,}, {on(n)}" for size, n in columns)], lines)


# The model


class Model(NamedTuple):
    """What the sweeps say of AdamW on one thread, in seconds; bandwidth in bytes a second."""

    fixed: float
    per_tensor: float
    arithmetic: float
    many: int
    small: int
    cached: int
    bandwidth: dict[int, float]

    def predict(self, row: Row) -> float:
        """With the bandwidth of the loop at that size, where it was measured."""
        loop = seconds(row, "bytes only") or 0.0
        return self.fixed + row["tensors"] * self.per_tensor + max(row["elements"] * self.arithmetic, loop)


FITS = 30_000
"""Elements of AdamW that a second-level cache holds: 840 kB."""


def fit(data: Data) -> Model:
    """From the rows with the fewest surprises: small arrays that the cache holds, and the largest loop."""
    size = {row["elements"]: row["seconds"]["fastopt"]["median"] for row in data.group("sizes", threads=1)}
    count = {row["tensors"]: row["seconds"]["fastopt"]["median"] for row in data.group("tensors", threads=1)}
    small, cached = min(size), max(n for n in size if n <= FITS)
    arithmetic = (size[cached] - size[small]) / (cached - small)
    many = max(n for n in count if n <= 100)
    per_tensor = (count[many] - count[1]) / (many - 1) - 100 * arithmetic
    fixed = count[1] - per_tensor - 100 * arithmetic
    bandwidth = {}
    for n in data.threads:
        loops = [row for row in data.group("sizes", "limits", threads=n) if "bytes only" in row["seconds"]]
        loops = [row for row in loops if row["rule"] == "adamw"]
        if loops:
            largest = max(loops, key=lambda row: row["elements"])
            moved = largest["elements"] * largest["bytes_per_element"]
            bandwidth[n] = moved / largest["seconds"]["bytes only"]["median"]
    return Model(fixed, per_tensor, arithmetic, many, small, cached, bandwidth)


def rules(data: Data, model: Model) -> str:
    """What one bandwidth, that of AdamW's loop, says of every rule on large arrays."""
    found: dict[str, dict[int, Row]] = {}
    for row in data.group("limits"):
        found.setdefault(row["rule"], {})[row["threads"]] = row
    lines = []
    for rule, by_threads in found.items():
        any_row = next(iter(by_threads.values()))
        line = [rule, str(any_row["bytes_per_element"])]
        for n in data.threads:
            row = by_threads.get(n)
            if row is None or n not in model.bandwidth:
                line += [""] * 2
                continue
            predicted = row["elements"] * row["bytes_per_element"] / model.bandwidth[n]
            line += [time(predicted), time(row["seconds"]["fastopt"]["median"])]
        lines.append(line)
    head = ["rule, 30,000,000", "bytes per element"]
    head += [f"{what}, {on(n)}" for n in data.threads for what in ("predicted", "measured")]
    return table(head, lines)


def predictions(data: Data, model: Model) -> str:
    lines = []
    for row in data.group("sizes", threads=1):
        predicted, measured = model.predict(row), row["seconds"]["fastopt"]["median"]
        lines.append([f"{row['elements']:,}", time(predicted), time(measured), f"{measured / predicted:.2f}"])
    return table(["elements", "predicted", "measured", "measured over predicted"], lines, left=0)


def far(data: Data, model: Model) -> str:
    rows = [row for row in data.group("tensors", threads=1) if row["tensors"] >= 1000]
    return (
        "; ".join(f"{per(row, 'fastopt', 'tensors')} ns each for {row['tensors']:,}" for row in rows) or "not measured"
    )


# Pages


def page(data: Data) -> str:
    whole, machine, model = data.whole, data.whole["machine"], fit(data)
    peers = ", ".join(f"{name} {version}" for name, version in machine["peers"].items())
    words = [verdict(row) for row in promised(data)]
    return PAGE.format(
        **{name: machine[name] for name in ("system", "huge_pages", "fastopt", "isa", "compiler", "flags")},
        **{name: machine[name] for name in ("cpu", "cpus", "python", "numpy")},
        date=whole["date"],
        quick=", with few rounds (`--quick`)" * whole["quick"],
        caches=", ".join(f"{name} {size}" for name, size in machine["caches"].items()) or "unknown",
        memory=machine["memory_gib"],
        peers=peers or "no other library",
        missing=f" Not installed, and so not here: {', '.join(whole['missing'])}." * bool(whole["missing"]),
        kept=len([word for word in words if word in ("target", "goal")]),
        promised=len(words),
        goals=words.count("goal"),
        promises=promises(data, in_torch=False),
        in_torch=promises(data, in_torch=True),
        steady=steady(data),
        everyone=everyone(data),
        sizes=sweep(data, "sizes", "elements", ("fastopt", "torch fused", "bytes only")),
        tensors=sweep(data, "tensors", "tensors", ("fastopt", "fastopt, arena", "torch fused")),
        optimizers=optimizers(data),
        fixed=model.fixed * 1e6,
        per_tensor=model.per_tensor * 1e9,
        arithmetic=model.arithmetic * 1e9,
        many=model.many,
        small=model.small,
        cached=model.cached,
        bandwidth=", ".join(f"{b / 1e9:.1f} GB/s on {on(n)}" for n, b in model.bandwidth.items()) or "not measured",
        rules=rules(data, model),
        predictions=predictions(data, model),
        far=far(data, model),
        arithmetic64=model.arithmetic * 7e9 / 64,
        tensors300=model.per_tensor * 300 * 1e3,
        rounds=min(row["rounds"] for row in data.rows.values() if "rounds" in row),
    )


def readme_block(data: Data) -> str:
    """The short table, between its markers."""
    machine, n = data.whole["machine"], max(data.threads)
    lines = []
    for name in README_ROWS:
        row = data.rows.get(name.format(n=n))
        if row and "torch fused" in row["ratios"]:
            ours, theirs = (time(row["seconds"][label]["median"]) for label in ("fastopt", "torch fused"))
            ratio = significant(row["ratios"]["torch fused"]["median"])
            lines.append([row["title"].removeprefix("AdamW, "), str(row["threads"]), ours, theirs, ratio])
    text = README.format(
        cpu=machine["cpu"],
        torch=machine["peers"].get("torch", "(missing)"),
        table=table(["parameters", "threads", "fastopt", "torch", "ratio"], lines),
    )
    return f"<!-- performance -->\n{text}\n<!-- /performance -->"


def torch_block(data: Data) -> str:
    """fastopt.torch beside each form of PyTorch's, a line for each work."""
    rows: dict[tuple[str, int], dict[str, Row]] = {}
    for row in data.group("torch"):
        rows.setdefault((row["title"], row["threads"]), {})[row["against"]] = row
    forms = ("torch", "torch fused", "torch foreach")
    lines = []
    for (title, threads), by in rows.items():
        ours = next(iter(by.values()))["seconds"].get("fastopt.torch")
        found = (by[form]["ratios"].get(form) if form in by else None for form in forms)
        cells = ["" if x is None else significant(x["median"]) for x in found]
        lines.append([title, str(threads), "" if ours is None else time(ours["median"]), *cells])
    text = table(("step", "threads", "fastopt.torch", "default", "fused", "foreach"), lines)
    machine = data.whole["machine"]
    head = (
        f"How many times as long the forms of PyTorch {machine['peers'].get('torch', '')} take, on an {machine['cpu']}:"
    )
    return f"<!-- torch-speed -->\n{head}\n\n{text}\n<!-- /torch-speed -->"


def insert(text: str, block: str, marker: str = "performance", name: str = "README.md") -> str:
    """The text with the block in place of what is between the markers."""
    pattern = re.compile(rf"<!-- {marker} -->.*?<!-- /{marker} -->", re.S)
    if len(pattern.findall(text)) != 1:
        raise SystemExit(f"{name} needs <!-- {marker} --> and, behind it, <!-- /{marker} -->, once")
    return pattern.sub(lambda _: block, text)


def main() -> None:
    root = Path(__file__).parent.parent
    parser = argparse.ArgumentParser(prog="python -m bench.report", description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--docs", type=Path, default=root / "docs")
    parser.add_argument("--readme", type=Path, default=root / "README.md")
    args = parser.parse_args()
    data = load(args.file)
    if not (data.group("sizes", threads=1) and data.group("tensors", threads=1)):
        parser.error(
            "the report needs the groups sizes and tensors on one thread: measure without --rows and --threads"
        )
    (args.docs / "performance.md").write_text(page(data))
    draw_sizes(data.group("sizes"), data.whole["machine"]["caches"], args.docs / "performance-size.png")
    draw_tensors(data.group("tensors", threads=min(data.threads)), args.docs / "performance-tensors.png")
    args.readme.write_text(insert(args.readme.read_text(), readme_block(data)))
    in_torch = args.docs / "torch.md"
    in_torch.write_text(insert(in_torch.read_text(), torch_block(data), "torch-speed", in_torch.name))


if __name__ == "__main__":
    main()
