"""fastopt beside other libraries, all of it: python -m bench.peers --out FILE.json

Rows are measured one after another, those with a promise in processes of their own. Within a row all contenders take
turns, in an order that changes from round to round; a number is the median over the rounds, a ratio the median of the
ratios of each round. `--quick` takes a minute or so instead of a quarter of an hour, and shows less.
`python -m bench.report FILE.json` makes pages and pictures of it.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

import bench.tuned
import fastopt
from bench.steady import Steady
from bench.steady import measure as steady_measure
from bench.test_rules import run_tuned
from fastopt.app.benchmark.contenders import MAKERS, PACKAGES, Maker, installed
from fastopt.app.benchmark.libraries import restorer
from fastopt.app.benchmark.rows import Entry, Row, machine, measure, memory_bytes, row, verdict
from fastopt.app.benchmark.timing import QUICK, Contender, Settings, feeder
from fastopt.app.benchmark.work import RULES, Work, flat, network
from fastopt.core import _core
from tests.cases import Case

FULL = Settings()
SWEEP = Settings(seconds=1.5)
"""For rows without a promise."""

EVERYONE = (
    "fastopt", "torch", "torch foreach", "torch fused", "DeepSpeed", "optax", "scikit-learn", "thinc", "NumPy",
)  # fmt: skip
ARENA = ("fastopt, arena", *EVERYONE)
TORCH = ("fastopt", "torch", "torch foreach", "torch fused")
FUSED = ("fastopt", "torch fused")
OF_WALKS: dict[str, float] = {"target": 1.7, "goal": 2.2}


# Contenders of this file


def tuned(work: Work) -> Contender:
    """bench/tuned.py: in place, in blocks, the coefficients of one step for all of them."""
    (p,), (g,) = work.parameters(), work.gradients()
    rule = RULES[work.rule]
    run = run_tuned(Case(work.rule, rule.optimizer, rule.kwargs), p, g)
    return Contender(run.step, lambda: run.written[:1], feeder([g]))


def by_hand(work: Work) -> bool:
    """Whether bench/tuned.py has its rule."""
    return hasattr(bench.tuned, work.make([np.zeros(1, np.float32)]).rule)


def separate(work: Work) -> Contender:
    """The same step as passes over memory, one for each thing that is done: norm, clip, L2, the rule, average.

    The kernels are fastopt's, each pass in as many slices as there are threads.
    """
    (p,), (g,) = work.parameters(), work.gradients()
    average = p.copy()
    assert work.clip_norm is not None
    assert work.average is not None
    limit, decay, n = work.clip_norm, work.average, work.threads
    opt = work.make([p], clip_norm=None, l2=0.0, average=None)
    slices = [slice(p.size * k // n, p.size * (k + 1) // n) for k in range(n)]
    pool = ThreadPoolExecutor(n) if n > 1 else None

    def everywhere(function: Any) -> list[Any]:
        return list(pool.map(function, slices)) if pool else [function(piece) for piece in slices]

    def step() -> None:
        parts = everywhere(lambda piece: _core.norm([g[piece]], "sum_squares")[0])
        norm = math.hypot(*parts)
        if norm > limit:
            everywhere(lambda piece: _core.rewrite([g[piece]], limit, norm, math.inf))
        everywhere(lambda piece: _core.run_kernel("l2", [g[piece], p[piece]], [work.l2]))
        opt.step([g])
        everywhere(lambda piece: _core.run_kernel("average", [average[piece], p[piece]], [decay, 1 - decay]))

    return Contender(step, lambda: [p], feeder([g]), restorer([g]))


def norm(work: Work) -> Contender:
    (g,) = work.gradients()
    return Contender(lambda: fastopt.global_norm([g]))


def sdot(work: Work) -> Contender:
    """OpenBLAS's dot product of a vector with itself: each element read once, as by a norm."""
    (g,) = work.gradients()
    return Contender(lambda: g.dot(g))


OWN = {
    **MAKERS,
    "NumPy tuned": Maker(tuned, takes=by_hand, steps=1),
    "fastopt, separate passes": Maker(separate),
    "fastopt, norm": Maker(norm, steps=0),
    "sdot": Maker(sdot, steps=0),
}


# Rows


def small(threads: int) -> Iterator[Row]:
    """Where the cost of a call counts."""

    def versus(name: str, title: str, work: Work, names: Any, target: float, goal: float | None) -> Row:
        return row(name, title, work, names, against="torch fused", target=target, goal=goal)

    t = {"threads": threads}
    if threads == 1:
        yield versus("1k", "AdamW, 1 tensor of 1,000", flat(1_000, **t), EVERYONE, 14, 20)
    policy = network(4, 64, 64, 2, **t)
    title = "policy net 4-64-64-2"
    yield versus("policy", f"AdamW, {title}", policy, ARENA, 10, 15)
    clipped = policy._replace(clip_norm=0.5)
    yield versus("policy-clip", f"AdamW with clip_norm, {title}", clipped, ARENA, 16, 25)
    yield versus("100x100", "AdamW, 100 tensors of 100", flat(100, 100, **t), ARENA, 30, 45)
    torch = ("fastopt, arena", *TORCH)
    yield versus("1000x1000", "AdamW, 1000 tensors of 1,000", flat(1_000, 1_000, **t), torch, 5, None)
    yield versus("mlp", "AdamW, network 784-512-128-10", network(784, 512, 128, 10, **t), ARENA, 1.5, None)


def large(threads: int) -> Iterator[Row]:
    """Where arithmetic and memory count."""
    t = {"threads": threads}
    n, m = 1_000_000, 20_000_000
    fused: Any = {"against": "torch fused"}
    names = ("fastopt, arena", *FUSED, "DeepSpeed", "optax")
    yield row("100k", "AdamW, 100,000", flat(100_000, **t), ARENA, **fused, target=1.8)
    yield row("1m", "AdamW, 1,000,000", flat(n, **t), ARENA, **fused, target=1.2)
    one = threads == 1
    whole = {"target": 1.2, "goal": 1.35} if one else {"target": 1.1, "goal": 1.2}
    clipped = {"target": 1.35, "goal": 1.6} if one else {"target": 1.3, "goal": 1.5}
    yield row("20m", "AdamW, 20,000,000", flat(m, **t), names, **fused, **whole)
    yield row("20m-clip", "AdamW with clip_norm, 20,000,000", flat(m, clip_norm=0.5, **t), FUSED, **fused, **clipped)
    if one:
        yield norms(flat(m, **t))
        # jax chooses its threads itself.
        for rule in ("lion", "lamb", "adafactor-optax"):
            work = matrix(rule=rule, **t)
            yield row(f"20m-{rule}", f"{rule}, 20,000,000", work, ("fastopt", "optax"), against="optax", **OF_WALKS)
    work = matrix(rule="adafactor", **t)
    of_torch: Any = {"against": "torch foreach", "target": 3, "goal": 4}
    yield row("20m-adafactor", "Adafactor, 20,000,000", work, ("fastopt", "torch", "torch foreach"), **of_torch)
    for rule in ("rmsprop", "nadam"):
        title = f"{RULES[rule].torch}, 1,000,000"
        yield row(f"1m-{rule}", title, flat(n, rule=rule, **t), TORCH, against="torch foreach", target=3)
    passes = "fastopt, separate passes"
    everything = flat(m, clip_norm=0.5, l2=1e-2, average=0.999, **t)
    title = "clip + L2 + AdamW + average, 20,000,000"
    yield row("20m-chain", title, everything, (*FUSED, passes), against=passes, target=1.35)
    yield subnormals(threads)
    yield row("1m-numpy", "AdamW, 1,000,000", flat(n, **t), ("fastopt", "NumPy tuned"), against="NumPy tuned", target=4)


def norms(work: Work) -> Row:
    entries = Entry("fastopt", "fastopt, norm", work), Entry("sdot", "sdot", work)
    return Row("20m-norm", f"2-norm, {work.elements:,}", entries, against="sdot", target=0.7, goal=0.85)


def matrix(**more: Any) -> Work:
    """20 million elements in rows and columns."""
    return Work(((4000, 5000),), **more)


def subnormals(threads: int) -> Row:
    normal, tiny = (flat(1_000_000, threads=threads, fill=fill) for fill in (0.5, 1e-40))
    entries = [Entry(name + more, name, work) for name in FUSED for more, work in (("", normal), (", subnormal", tiny))]
    title = "AdamW, 1,000,000, state and gradients subnormal over normal"
    return Row("subnormal", title, tuple(entries), against="fastopt, subnormal", target=1.2, at_most=True)


def limits(threads: int) -> Iterator[Row]:
    """Every rule against a loop that only touches the bytes it touches."""
    for rule, its in RULES.items():
        if its.passes == 1:
            work = flat(30_000_000, rule=rule, threads=threads)
            names, against = ("fastopt", "bytes only"), "bytes only"
            yield row(f"limit-{rule}", f"{rule}, 30,000,000", work, names, against=against, target=0.95, goal=0.98)


def sizes(threads: int) -> Iterator[Row]:
    """AdamW on one tensor, from small to all that fits: fastopt, torch and the loop hold 12 arrays."""
    for exponent in range(3, 9):
        for n in (10**exponent, 3 * 10**exponent):
            if n * 4 * 12 < 0.65 * memory_bytes():
                # Below, starting threads for the loop would be most of its time.
                loop = ("bytes only",) if n >= (100_000 if threads == 1 else 3_000_000) else ()
                yield row(f"size-{n}", f"{n:,}", flat(n, threads=threads), (*FUSED, *loop))


def tensors(threads: int) -> Iterator[Row]:
    """AdamW on more and more tensors of 100."""
    for exponent in range(6):
        for n in (10**exponent, 3 * 10**exponent):
            if n <= 100_000:
                yield row(f"tensors-{n}", f"{n:,}", flat(100, n, threads=threads), (*FUSED, "fastopt, arena"))


def optimizers(threads: int) -> Iterator[Row]:
    """Every rule at some sizes, beside all forms that torch has of it."""
    for rule in RULES:
        for exponent in (3, 5, 6, 7):
            work = flat(10**exponent, rule=rule, threads=threads)
            yield row(f"{rule}-1e{exponent}", f"{rule}, 1e{exponent}", work, TORCH)


RESNET18 = (
    (64, 3, 7, 7), *[(64, 64, 3, 3)] * 4, (128, 64, 3, 3), (128, 64, 1, 1), *[(128, 128, 3, 3)] * 3,
    (256, 128, 3, 3), (256, 128, 1, 1), *[(256, 256, 3, 3)] * 3, (512, 256, 3, 3), (512, 256, 1, 1),
    *[(512, 512, 3, 3)] * 3, (1000, 512), (1000,),
    *[(64,)] * 10, *[(128,)] * 10, *[(256,)] * 10, *[(512,)] * 10,
)  # fmt: skip
"""Shapes of its parameters: 11.7 million elements."""


def in_torch(threads: int) -> Iterator[Row]:
    """fastopt.torch beside torch.optim, on tensors."""
    t = {"threads": threads}
    policy = network(4, 64, 64, 2, **t)
    many = flat(133_333, 150, clip_norm=0.5, **t)
    promised: list[tuple[str, str, Work, float, float]] = [
        ("policy", "AdamW, policy net 4-64-64-2", policy, 15, 5),
        ("policy-clip", "the same with clipping", policy._replace(clip_norm=0.5), 20, 10),
        ("150x8", "AdamW, 150 tensors of 8", flat(8, 150, **t), 45, 7),
        ("mlp", "AdamW, network 784-512-128-10", network(784, 512, 128, 10, **t), 3.5, 1.3),
        ("resnet18", "AdamW, ResNet18's parameters", Work(RESNET18, **t), 3.3, 1.1),
        ("20m-clip", "AdamW with clipping, 20M in 150 tensors", many, 3, 1.3),
    ]
    for name, title, work, default, fused in promised:
        for against, target in (("torch", default), ("torch fused", fused)):
            names = ("fastopt.torch", against)
            label = f"torch-{name}-{against.rpartition(' ')[2]}"
            yield row(label, title, work, names, of="fastopt.torch", against=against, target=target)
    for rule in ("rmsprop", "nadam", "adamax", "adadelta", "radam"):
        work, names = flat(1_000_000, rule=rule, **t), ("fastopt.torch", "torch foreach")
        title = f"{RULES[rule].torch}, 1,000,000"
        yield row(f"torch-{rule}", title, work, names, of="fastopt.torch", against="torch foreach", target=3)


def steady(threads: int) -> Iterator[Any]:
    """The first hundred steps one by one."""
    for elements in (100_000, 1_000_000, 5_000_000, 20_000_000):
        yield Steady(elements, threads)


PROMISES = ("small", "large", "limits", "torch")
ALONE = ("small", "large", "torch")
"""Groups whose rows have a process each."""

GROUPS = {
    "small": small,
    "large": large,
    "limits": limits,
    "torch": in_torch,
    "steady": steady,
    "sizes": sizes,
    "tensors": tensors,
    "optimizers": optimizers,
}


def rows(threads: int, quick: bool = False) -> Iterator[Row]:
    """All rows on so many threads. Quick ones are the promises, and sweeps in steps of ten to a million elements."""
    for group, found in GROUPS.items():
        for one in found(threads):
            if isinstance(one, Steady):
                yield one
                continue
            sweep = group in ("sizes", "tensors")
            if not quick or group in PROMISES or (sweep and one.work.elements <= 1e6 and "3" not in one.title):
                yield one._replace(name=f"{one.name}/{threads}", group=group)


def chosen(names: list[str], threads: list[int], quick: bool) -> list[Row]:
    """Rows by name, with or without the number of threads behind the slash, or by group; without names all."""
    everything = [one for n in threads for one in rows(n, quick)]
    if not names:
        return everything
    found = [one for one in everything if {one.name, one.name.partition("/")[0], one.group} & set(names)]
    known = {key for one in everything for key in (one.name, one.name.partition("/")[0], one.group)}
    if unknown := [name for name in names if name not in known]:
        raise SystemExit(f"no row is called {', '.join(unknown)}: see --list")
    return found


# Processes


def batches(rows: list[Row], quick: bool) -> list[list[Row]]:
    """Rows that share a process: they want the same threads, and each promise has one of its own."""
    found: dict[Any, list[Row]] = {}
    for one in rows:
        alone = one.group in ALONE and not quick
        found.setdefault((one.work.threads, one.name if alone else quick or one.group), []).append(one)
    return list(found.values())


def run_apart(rows: list[Row], quick: bool) -> Iterator[dict[str, Any]]:
    """Results of a process that measures these rows, as they come; a failure is a result too."""
    threads = str(rows[0].work.threads)
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
    command = [sys.executable, "-m", "bench.peers", "--child", "--rows", *(one.name for one in rows)]
    with subprocess.Popen(
        [*command, *["--quick"] * quick, "--threads", threads],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as child:  # fmt: skip
        assert child.stdout is not None
        assert child.stderr is not None
        left = {one.name: one for one in rows}
        for line in child.stdout:
            result = json.loads(line)
            del left[result["name"]]
            yield result
        said = child.stderr.read().strip().splitlines() or [f"exit code {child.wait()}"]
    for one in left.values():
        yield {"name": one.name, "title": one.title, "group": one.group, "error": said[-1]}


def be_the_child(rows: list[Row], quick: bool) -> None:
    """A line of JSON for each row; whatever libraries print goes to stderr."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for one in rows:
        settings = QUICK if quick else FULL if one.group in PROMISES else SWEEP
        found = steady_measure(one) if isinstance(one, Steady) else measure(one, settings, OWN)
        print(json.dumps(found), file=out, flush=True)


def told(result: dict[str, Any]) -> str:
    """A result in a line."""
    if "error" in result:
        return f"{result['name']}: {result['error']}"
    if result["group"] == "steady":
        return f"{result['name']}: first {result['first'] * 1e6:,.1f} us, mean/median {result['ratio']:.3f}"
    parts = [
        f"{label} {spread['median'] * 1e6:,.1f} us ({result['ratios'][label]['median']:.3g}x)"
        for label, spread in result["seconds"].items()
    ]
    promise = ""
    if result["target"] is not None:
        promise = f" | {result['against']}: {'at most' if result['at_most'] else 'target'} {result['target']:g}"
        promise += f", {verdict(result) or 'not measured'}"
    return f"{result['name']}: {', '.join(parts)}{promise}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="where the result goes (default: stdout)")
    parser.add_argument("--quick", action="store_true", help="about a minute")
    parser.add_argument("--rows", nargs="+", default=[], metavar="NAME", help="only these, or these groups")
    parser.add_argument("--threads", nargs="+", type=int, default=sorted({1, fastopt.info().threads}), metavar="N")
    parser.add_argument("--list", action="store_true", help="name the rows and stop")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    rows = chosen(args.rows, args.threads, args.quick)
    if args.list:
        print("\n".join(f"{one.group:10} {one.name:24} {one.title}" for one in rows))
    elif args.child:
        be_the_child(rows, args.quick)
    else:
        run(rows, args.quick, args.out)


def run(rows: list[Row], quick: bool, out: Path | None) -> None:
    started = time.monotonic()
    missing = [package for package in PACKAGES if package not in installed()]
    if missing:
        print(f"not installed: {', '.join(missing)}", file=sys.stderr)
    results: list[dict[str, Any]] = []
    found = {"date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(), "quick": quick, "minutes": 0.0}
    found |= {"machine": machine(), "missing": missing, "rows": results}
    for batch in batches(rows, quick):
        for result in run_apart(batch, quick):
            results.append(result)
            seconds = time.monotonic() - started
            print(f"[{len(results)}/{len(rows)}, {seconds:.0f} s] {told(result)}", file=sys.stderr, flush=True)
            found["minutes"] = round(seconds / 60, 1)
            if out is not None:  # a run that is cut off keeps its rows
                out.write_text(json.dumps(found, indent=1) + "\n")
    if out is None:
        print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
