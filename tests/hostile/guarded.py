"""Arrays between pages that may not be touched: a byte too far, read or written, ends the process.

`python -m tests.hostile.guarded kernels`, or factors, steps, matrices, groups, layouts, refusals or beyond, runs one
attack and prints how many buffers it put there.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastopt
from fastopt.app.selftest import same_bits
from fastopt.base.tree import Array
from fastopt.core import _core
from tests.cases import CASES, CHUNK, DTYPES, WITH_SUMS, Case, ordinary
from tests.lockstep import loss_of, written

LENGTHS = [*range(131), 1007, CHUNK - 1, CHUNK, CHUNK + 1, 4 * CHUNK - 1, 4 * CHUNK, 4 * CHUNK + 1, 10_007]
PAGE = mmap.PAGESIZE
NOTHING, READ, READ_WRITE = 0, mmap.PROT_READ, mmap.PROT_READ | mmap.PROT_WRITE

placed = 0
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


class Place:
    """Room for `size` bytes that begins `shift` bytes after a page that may not be touched or, with `end`, ends that
    far before one."""

    def __init__(self, size: int, end: bool, shift: int = 0) -> None:
        self.pages = -(-(size + shift) // PAGE)
        memory = np.frombuffer(mmap.mmap(-1, (self.pages + 2) * PAGE), np.uint8)
        self.address = memory.ctypes.data + PAGE
        self.bytes = memory[PAGE:-PAGE]
        self.end, self.shift = end, shift
        for guard in (memory.ctypes.data, self.address + self.pages * PAGE):
            protect(guard, PAGE, NOTHING)

    def allow(self, what: int) -> None:
        protect(self.address, self.pages * PAGE, what)

    def array(self, like: Array, end: bool | None = None, shift: int | None = None) -> Array:
        """A copy in place; at another end, or shifted otherwise, where that is given."""
        global placed
        placed += 1
        end, shift = self.end if end is None else end, self.shift if shift is None else shift
        start = self.bytes.size - like.nbytes - shift if end else shift
        room = self.bytes[start : start + like.nbytes]
        a = room.view(like.dtype).reshape(like.shape, order="C" if like.flags.c_contiguous else "F")
        a[...] = like
        return a


def protect(address: int, size: int, what: int) -> None:
    if size and _libc.mprotect(address, size, what):
        raise OSError(ctypes.get_errno(), "mprotect")


def guarded(a: Array, end: bool, shift: int = 0, what: int = READ_WRITE) -> Array:
    place = Place(a.nbytes, end, shift)
    copy = place.array(a)
    place.allow(what)
    return copy


class Memory:
    """Places that are used again: one for each array of an optimizer over `lengths`."""

    def __init__(self, dtype: Any, end: bool, lengths: list[int]) -> None:
        self.dtype, self.end, self.lengths = dtype, end, lengths
        self._places: dict[tuple[str, int], Place] = {}

    def place(self, role: str, i: int, dtype: Any = None) -> Place:
        if (role, i) not in self._places:
            self._places[role, i] = Place(self.lengths[i] * np.dtype(dtype or self.dtype).itemsize, self.end)
        return self._places[role, i]

    def arrays(self, role: str, contents: list[Array]) -> list[Array]:
        return [self.place(role, i).array(a) for i, a in enumerate(contents)]

    def allow(self, what: int, but: str = "") -> None:
        for (role, _), place in self._places.items():
            if role != but:
                place.allow(what)

    def optimizer(self, case: Case, params: list[Array], **more: Any) -> fastopt.Optimizer:
        """One whose parameters, state and averages all lie here."""
        self.allow(READ_WRITE)
        return self.moved_here(case.make(self.arrays("p", params), **more))

    def moved_here(self, opt: fastopt.Optimizer) -> fastopt.Optimizer:
        """With its state and averages here, as its parameters are."""
        plan = opt._engine.plan
        states = [
            tuple(self.place(f"state {k}", i).array(a) for k, a in enumerate(buffers))
            for i, buffers in enumerate(plan.states)
        ]
        averages = [
            None if a is None else self.place(f"average in {a.dtype}", i, a.dtype).array(a)
            for i, a in enumerate(plan.averages)
        ]
        opt._engine.plan = type(plan)(
            plan.template,
            plan.names,
            plan.params,
            tuple(states),
            tuple(averages),
            plan.flush,
            plan.extents,
            plan.frozen,
        )
        opt._engine.stale = True
        return opt

    def gradients(self, contents: list[Array]) -> list[Array]:
        """On pages that may only be read."""
        for i in range(len(contents)):
            self.place("g", i).allow(READ_WRITE)
        arrays = self.arrays("g", contents)
        for i in range(len(contents)):
            self.place("g", i).allow(READ)
        return arrays


def memories(lengths: list[int]) -> list[Memory]:
    return [Memory(dtype, end, lengths) for dtype in DTYPES for end in (False, True)]


def kernels() -> None:
    """Each kernel and norm alone, each buffer on its own."""
    rng = np.random.default_rng(0)
    for memory in memories(LENGTHS):
        for name, (_, buffers, coefs) in _core.KERNELS.items():
            values = [1.0 if coef == "one" else 0.5 for coef in coefs]
            for i, n in enumerate(LENGTHS):
                contents = [ordinary(rng, n, memory.dtype) for _ in buffers]
                here = [memory.place(role, i).array(a) for role, a in zip(buffers, contents, strict=True)]
                _core.run_kernel(name, here, values)
                _core.run_kernel(name, contents, values)
                assert all(map(same_bits, here, contents)), (name, n)
        for name, buffers in _core.SUMS.items():
            for i, n in enumerate(n for n in LENGTHS if n <= CHUNK):
                contents = [ordinary(rng, n, memory.dtype) for _ in buffers]
                here = [memory.place(role, i).array(a) for role, a in zip(buffers, contents, strict=True)]
                assert _core.run_sum(name, here) == _core.run_sum(name, contents), (name, n)
        for g in memory.gradients([ordinary(rng, n, memory.dtype) for n in LENGTHS]):
            for kind in (1, 2, math.inf):
                assert fastopt.global_norm(g, kind) == fastopt.global_norm(g.copy(), kind)


def steps() -> None:
    """Each rule and stage at each length, alone and on three threads, gradients read-only by the page."""
    rng = np.random.default_rng(1)
    for memory in memories(LENGTHS):
        for case in CASES:
            params = [ordinary(rng, n, memory.dtype) for n in LENGTHS]
            expected = case.make([p.copy() for p in params])
            opt = memory.optimizer(case, params, threads=3)
            step_together(rng, memory, opt, expected, lambda g: g)
            assert_same(opt, expected, case.id)


# Alone and on threads, in chunks of any length, with memory asked for ahead and without.
HOW = [(2**40, CHUNK, 0), (2**40, CHUNK, 1), (1, CHUNK, 1), (1, 100, 0)]


def step_together(
    rng: np.random.Generator,
    memory: Memory,
    opt: fastopt.Optimizer,
    expected: fastopt.Optimizer,
    tree: Callable[[list[Array]], Any],
) -> None:
    for per_thread, chunk, ahead in HOW:
        opt._engine.plan.split(per_thread, chunk)
        g = [ordinary(rng, p.shape, memory.dtype) for p in opt._engine.plan.params]
        here = memory.gradients(g)
        _core.prefetch(ahead)
        try:
            opt.step(tree(here), **loss_of(opt))
        finally:
            _core.prefetch(-1)
        expected.step(tree(g), **loss_of(expected))


def assert_same(opt: fastopt.Optimizer, expected: fastopt.Optimizer, what: str) -> None:
    for (name, a), b in zip(written(opt).items(), written(expected).values(), strict=True):
        assert same_bits(a, b), (what, name)


# Around the bands of a factored walk, its blocks and the tails of its columns.
MATRICES = [
    *((rows, columns) for rows in (1, 2, 17, 63, 64, 65, 129) for columns in (1, 3, 16, 33)),
    (1100, 3),
    (2, 3, 5),
    (3, 1, 17),
    *((rows, CHUNK + more) for rows in (1, 3) for more in (-1, 0, 1, 5)),
]


def matrices() -> None:
    """Rules that know rows and columns, or sums over tensors, on matrices in both orders: what they keep for each row
    and each column is between guards too."""
    rng = np.random.default_rng(4)
    cases = [case for case in CASES if case.optimizer in WITH_SUMS]
    for memory in memories([math.prod(shape) for shape in MATRICES]):
        for case in cases:
            params = [
                np.asarray(ordinary(rng, shape, memory.dtype), order="F" if i % 2 and len(shape) == 2 else "C")
                for i, shape in enumerate(MATRICES)
            ]
            expected = case.make([p.copy(order="K") for p in params])
            opt = memory.optimizer(case, params, threads=3)
            step_together(rng, memory, opt, expected, lambda g: g)
            assert_same(opt, expected, case.id)


OWN_RULES: list[dict[str, Any]] = [
    {},
    {"rule": "sgd", "lr": 0.1, "momentum": 0.9},
    {"frozen": True},
    {"rule": "lion", "clip_value": 0.5},
    {"rule": "lamb", "weight_decay": 0.1},
    {"rule": "adafactor", "l2": 0.1},
    {"rule": "adafactor", "factored": False, "momentum": 0.5},
    {"rule": "prodigy"},
    {"rule": "polyaksgd"},
]


def groups() -> None:
    """Groups with rules of their own; what is frozen is on pages that nobody may touch."""
    rng = np.random.default_rng(5)
    shapes: list[tuple[int, ...]] = [(7,), (17, 33), (CHUNK + 1,), (65, 5)]
    every = [shape for _ in OWN_RULES for shape in shapes]

    def tree(arrays: list[Array]) -> list[list[Array]]:
        n = len(shapes)
        return [arrays[k * n : (k + 1) * n] for k in range(len(OWN_RULES))]

    def make(params: list[Array], **more: Any) -> fastopt.Optimizer:
        own = [{"params": part, **given} for part, given in zip(tree(params), OWN_RULES, strict=True)]
        return fastopt.AdamW(own, average=0.9, on_nonfinite="raise", **more)

    for memory in memories([math.prod(shape) for shape in every]):
        params = [ordinary(rng, shape, memory.dtype) for shape in every]
        still = range(2 * len(shapes), 3 * len(shapes))
        expected = make([p.copy() for p in params])
        opt = memory.moved_here(make(memory.arrays("p", params), threads=3))
        frozen = [memory.place("p", i) for i in still]
        for place in frozen:
            place.allow(NOTHING)
        step_together(rng, memory, opt, expected, lambda g: tree(g))
        for place in frozen:
            place.allow(READ)
        assert_same(opt, expected, "groups")
        assert all(same_bits(opt._engine.plan.params[i], params[i]) for i in still)


def factors() -> None:
    """Adafactor's vectors and the sums that they are made of, each on its own."""
    rng = np.random.default_rng(6)
    for dtype in DTYPES:
        for end in (False, True):
            for rows, columns in [(1, 1), (1, 17), (17, 1), (64, 33), (130, 1000)]:
                types = (np.float64, np.float64, dtype, dtype, dtype)
                lengths = (rows, columns, rows, columns, rows)
                contents = [ordinary(rng, n, t) for n, t in zip(lengths, types, strict=True)]
                here = [guarded(a, end) for a in contents]
                for arrays in (here, contents):
                    row_sums, column_sums, r, c, a = arrays
                    _core.run_factors(row_sums, column_sums, r, c, a, 0.5, 0.5, 0.0, 0.0)
                assert all(map(same_bits, here, contents)), (rows, columns)


def layouts() -> None:
    """Gradients of every stride, misaligned by elements and by bytes, up against the guard; clipped in place too."""
    rng = np.random.default_rng(2)
    cuts: dict[str, Callable[[Array], Array]] = {
        "all": lambda a: a,
        "every second column": lambda a: a[:, ::2],
        "the last of every third": lambda a: a[:, 2::3],
        "every third row, reversed": lambda a: a[::-3],
        "reversed": lambda a: a[::-1, ::-1],
        "transposed": lambda a: a.T,
        "one element broadcast": lambda a: np.broadcast_to(a[-1:, -1:], a.shape),
    }
    clipped = Case("", fastopt.AdamW, {"clip_norm": 0.5, "l2": 0.1, "average": 0.9})
    for dtype in DTYPES:
        size = np.dtype(dtype).itemsize
        for end in (False, True):
            for shift in [*range(size), *range(size, 16 * size, size)]:
                for shape in [(1, 3), (7, 9), (3, 1021)]:
                    whole = guarded(ordinary(rng, shape, dtype), end, shift)
                    for what, cut in cuts.items():
                        g = cut(whole)
                        for order in ("C", "F"):
                            p = np.asarray(ordinary(rng, g.shape, dtype), order=order)  # type: ignore[call-overload]
                            q = guarded(p, end, shift - shift % size)
                            clipped.make([p]).step([g.copy()])
                            clipped.make([q]).step([g])
                            assert same_bits(p, q), (what, shape, shift)
                        if g.flags.writeable:
                            norm = fastopt.global_norm(g)
                            assert fastopt.clip_grad_norm_(g, norm / 2) == norm
                            fastopt.clip_grad_value_(g, float(np.abs(g).max()) / 2)


def refusals() -> None:
    """A refused step writes nothing, not even what was there: everything is on pages that may only be read."""
    rng = np.random.default_rng(3)
    lengths = [0, 1, 17, 130, CHUNK + 1, 5000]
    for memory in memories(lengths):
        for case in CASES:
            clipping = {"clip_norm": 1.0} if "clip_value" not in case.kwargs else {}
            for how in ({"on_nonfinite": "raise"}, {"on_nonfinite": "skip"}, clipping):
                opt = memory.optimizer(case, [ordinary(rng, n, memory.dtype) for n in lengths], threads=3, **how)
                if not how:
                    continue
                for bad in (np.nan, np.inf, -np.inf):
                    i = int(rng.integers(1, len(lengths)))
                    at = int(rng.integers(lengths[i]))
                    g = [ordinary(rng, n, memory.dtype) for n in lengths]
                    g[i][at] = bad
                    opt._engine.plan.split(*((1, 100) if rng.integers(2) else (2**40, CHUNK)))
                    memory.allow(READ, but="g")
                    _refuse(opt, memory.gradients(g), f"{str(i)!r} is {bad} at index ({at},)")
                memory.allow(READ_WRITE, but="g")
                assert opt.step([ordinary(rng, n, memory.dtype) for n in lengths], **loss_of(opt)).step == 1


def _refuse(opt: fastopt.Optimizer, g: list[Array], where: str) -> None:
    if opt.on_nonfinite == "skip":
        assert not opt.step(g, **loss_of(opt)).applied
        return
    with pytest.raises(fastopt.NonFiniteError) as refused:
        opt.step(g, **loss_of(opt))
    assert where in str(refused.value)


def beyond() -> None:
    """What the guards are for: this must end the process."""
    a = guarded(np.ones(3), end=True)
    _core.norm([np.lib.stride_tricks.as_strided(a, (4,))], "sum_abs")


if __name__ == "__main__":
    {f.__name__: f for f in (kernels, factors, steps, matrices, groups, layouts, refusals, beyond)}[sys.argv[1]]()
    print(placed, "buffers between guards, on", _core.active_isa())
