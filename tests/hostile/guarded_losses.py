"""The losses and the vectors of L-BFGS between pages that may not be touched, and losses under attack by a thread.

`python -m tests.hostile.guarded_losses kernels`, or threads, losses, vectors or classes, runs one and prints how many
buffers lay there.
"""

from __future__ import annotations

import functools
import itertools
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fastopt import losses
from fastopt.app.selftest import same_bits
from fastopt.base.tree import Array
from fastopt.core import _core
from fastopt.engine.numpy_plan import ReferenceVectors
from tests.cases import CHUNK, DTYPES
from tests.hostile import guarded as pages
from tests.hostile.guarded import LENGTHS, NOTHING, PAGE, READ, READ_WRITE, Place, guarded
from tests.losses.loss_cases import CASES

NAMES = ("softmax_cross_entropy", "sigmoid_cross_entropy", "squared_error")
# Every length of a row with few rows, every number of rows of a few lengths.
SHAPES = [(1 + n % 3, n) for n in LENGTHS if n] + [(n, k) for k in (1, 16, 19) for n in range(131)]
FOR_THREADS = [(9001, 11), (1003, 131), (101, 1003)]


def arguments(rng: np.random.Generator, name: str, shape: tuple[int, int], dtype: Any) -> Iterator[tuple[Any, ...]]:
    """Every way to call a kernel, by which arrays there are; numbers are arguments that are no arrays."""
    rows, columns = shape
    x, z = rng.standard_normal(shape).astype(dtype), rng.random(shape).astype(dtype)
    flat, classes, weights = x.reshape(-1), rng.integers(0, columns, rows), rng.random(rows)
    gradients = (np.empty_like(x), None)
    if name == "softmax_cross_entropy":
        for (c, p), w, g in itertools.product(((classes, None), (None, z)), (weights, None), gradients):
            yield x, c, p, w, g, np.empty(rows)
    for g in gradients if name == "sigmoid_cross_entropy" else ():
        yield x, z, 0.5, g, np.empty(shape)
    for g in gradients if name == "squared_error" else ():
        yield flat, z.reshape(-1), 0.5, None if g is None else g.reshape(-1)


@functools.cache
def room(role: int) -> Place:
    return Place(max(rows * columns for rows, columns in SHAPES + FOR_THREADS) * 8 + PAGE, end=False)


def check(name: str, given: tuple[Any, ...], end: bool, shift: int = 0) -> None:
    """A kernel's bits on arrays against a guard, those that it only reads on pages that may only be read."""
    here = list(given)
    for role, a in enumerate(given):
        if isinstance(a, np.ndarray):
            room(role).allow(READ_WRITE)
            here[role] = room(role).array(a, end, shift * a.itemsize)
            if role < len(given) - (1 if name == "squared_error" else 2):
                room(role).allow(READ)
    values = [getattr(_core, name)(*arrays) for arrays in (here, given)]
    assert values[0] == values[1], name
    for a, b in zip(here, given, strict=True):
        assert not isinstance(a, np.ndarray) or same_bits(a, b), (name, a.shape)


def kernels() -> None:
    """Each loss kernel in every length, every array on its own; then misaligned by elements."""
    rng = np.random.default_rng(0)
    for dtype, end, name in itertools.product(DTYPES, (False, True), NAMES):
        for shift, shapes in [(0, SHAPES), *((k, [(3, 7), (2, 67), (1, CHUNK + 1)]) for k in range(1, 16))]:
            for i, shape in enumerate(shapes):
                ways = list(arguments(rng, name, shape, dtype))
                for given in ways if shift or i % 16 == 0 else ways[i % len(ways) :: 4]:
                    check(name, given, end, shift)


def threads() -> None:
    """Rows and blocks on four threads, the last of them against the guard."""
    rng = np.random.default_rng(1)
    _core.set_default_threads(4)
    for dtype, end, name in itertools.product(DTYPES, (False, True), NAMES):
        for shape in FOR_THREADS:
            for given in arguments(rng, name, shape, dtype):
                check(name, given, end)
    assert _core.threads_started() == 3 * _core.threads_available()


def read(a: Any, end: bool, shift: int) -> Any:
    return guarded(a, end, shift, READ) if isinstance(a, np.ndarray) else a


def losses_() -> None:
    """Each public loss and option, every argument against a guard, misaligned by elements and, but `out`, by bytes."""
    for dtype, end, case in itertools.product(DTYPES, (False, True), CASES):
        x, args, options = case.inputs(dtype)
        size = np.dtype(dtype).itemsize
        for reduction in ("mean", "none"):
            value, gradient = case.loss(x, *args, reduction=reduction, **options)
            for shift in (0, 1, size - 1, size, 5 * size, 15 * size):
                here, more = [read(a, end, shift) for a in args], {k: read(a, end, shift) for k, a in options.items()}
                for itself in (False, True):
                    out = guarded(x, end, shift // size * size)
                    found = case.loss(
                        out if itself else read(x, end, shift), *here, reduction=reduction, out=out, **more
                    )
                    assert same_bits(np.asarray(found[0]), np.asarray(value)), case.id
                    assert found[1] is out
                    assert same_bits(out, gradient), case.id


def apart(n: int, end: bool, shape: tuple[int, int], dtype: Any) -> Array:
    """Rows whose first n elements lie between guards of their own."""
    size = np.dtype(dtype).itemsize
    step = (-(-n * size // PAGE) + 1) * PAGE
    place = Place(shape[0] * step, end=False)
    for row in range(1, shape[0] + 1):
        pages.protect(place.address + row * step - PAGE, PAGE, NOTHING)
    pages.placed += shape[0]
    start = step - PAGE - n * size if end else 0
    memory = np.lib.stride_tricks.as_strided(place.bytes[start:].view(dtype), shape, (step, size))
    memory[:, :n] = 0
    return memory


def vectors() -> None:
    """A descent of L-BFGS at each length, every vector between guards of its own; dot products too."""
    rng = np.random.default_rng(2)
    for dtype, end, n in itertools.product(DTYPES, (False, True), LENGTHS):
        history = n % 3
        both: list[Any] = [
            _core.Vectors(n, dtype, history, functools.partial(apart, n, end)),
            ReferenceVectors(n, dtype, history, np.zeros),
        ]
        for _ in range(4 if n < 131 else 2):
            g, trial_g = rng.standard_normal((2, n)).astype(dtype)
            seen = []
            for v in both:
                v.g[...], v.trial_g[...] = g, trial_g
                slope = v.direct()
                v.move(0.5)
                seen.append((slope, v.slope(), v.trial_slope(), v.steepness(), v.count))
                v.accept()
            assert seen[0] == seen[1], n
            assert same_bits(both[0].x, both[1].x), n
        a, b = (guarded(a, end, what=READ) for a in rng.standard_normal((2, n)).astype(dtype))
        assert _core.dot(a, b) == _core.dot(a.copy(), b.copy())


def classes() -> None:
    """A thread writes classes that there are not while losses are computed: they may raise, and touch nothing else."""
    rng = np.random.default_rng(3)
    n, k = 20_000, 5
    x = guarded(rng.standard_normal((n, k)), end=True, what=READ)
    out, y = guarded(np.empty((n, k)), end=True), rng.integers(0, k, n)
    good, by_class, by_row, mask = y.copy(), rng.random(k), rng.random(n), np.ones((8, n // 8))
    ways: list[Callable[[], Any]] = [
        lambda: _core.softmax_cross_entropy(x, y, None, None, out, np.empty(n)),
        lambda: losses.sparse_cross_entropy(x, y, out=out),
        lambda: losses.sparse_cross_entropy(x, y, out=out, weight=by_class),
        lambda: losses.sparse_cross_entropy(x, y, out=out, weight=by_class, label_smoothing=0.1),
        lambda: losses.sparse_cross_entropy(x, y, out=out, sample_weight=by_row, ignore_index=1),
        lambda: losses.sequence_cross_entropy(x.reshape(8, -1, k), y.reshape(8, -1), mask, out=out.reshape(8, -1, k)),
        lambda: losses.focal(x, y, alpha=by_class, out=out),
    ]
    stop, caught, done, tried = threading.Event(), 0, 0, itertools.cycle(ways)

    def attack() -> None:
        for bad in itertools.cycle([k, -1, 2**40, -(2**40), 2**63 - 1, -(2**63)]):
            if stop.is_set():
                return
            for now in (bad, good):
                y[:] = now
                time.sleep(1e-5)

    attacker = threading.Thread(target=attack)
    attacker.start()
    try:
        while caught < 100 or done < 100:
            try:
                next(tried)()
                done += 1
            except RuntimeError as error:
                if "classes were changed" not in str(error):
                    raise
                caught += 1
            except (ValueError, IndexError):
                pass
    finally:
        stop.set()
        attacker.join()
    y[:] = good
    for way in ways:
        way()
    print(done, "losses computed,", caught, "refused by the kernel")


if __name__ == "__main__":
    {f.__name__.rstrip("_"): f for f in (kernels, threads, losses_, vectors, classes)}[sys.argv[1]]()
    print(pages.placed, "buffers between guards, on", _core.active_isa())
