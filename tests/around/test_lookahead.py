"""Lookahead: what a step does with it, in which order, and how it goes on after anything."""

from __future__ import annotations

import copy
import itertools
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastopt
from fastopt import schedules
from fastopt.base.tree import Array
from tests.cases import DTYPES, halving, ordinary
from tests.lockstep import assert_same_bits, loss_of, same_report

CLASSES = [getattr(fastopt, name) for name in fastopt.optimizers.__all__]
backends = pytest.mark.parametrize("backend", ["c", "numpy"])


def gradients(count: int, *shapes: Any, dtype: Any = np.float64) -> list[list[Array]]:
    rng = np.random.default_rng(3)
    return [[ordinary(rng, shape, dtype) for shape in shapes] for _ in range(count)]


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize(("k", "alpha"), [(1, 0.5), (3, 0.25), (5, 1.0)])
@backends
def test_it_is_the_rule_with_a_step_back(cls: Any, k: int, alpha: float, backend: str) -> None:
    """By another optimizer of the same rule, whose parameters are moved by hand after every k-th step."""
    rng = np.random.default_rng(0)
    start = [rng.standard_normal((4, 3)), rng.standard_normal(70)]
    p, q = [a.copy() for a in start], [a.copy() for a in start]
    opt, by_hand = cls(p, backend=backend, lr=0.5), cls(q, backend=backend, lr=0.5)
    lookahead = fastopt.Lookahead(opt, k, alpha)
    slow = [a.copy() for a in start]
    for t, g in enumerate(gradients(11, (4, 3), 70), 1):
        opt.step(g, **loss_of(opt))
        by_hand.step(g, **loss_of(by_hand))
        if t % k == 0:
            for a, s in zip(q, slow, strict=True):
                s += alpha * (a - s)
                a[...] = s
        for i in range(2):
            np.testing.assert_array_equal(p[i], q[i])
            np.testing.assert_array_equal(lookahead.slow[i], slow[i])
    assert opt.t == 11


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)
def test_gradient_descent_in_closed_form(dtype: Any) -> None:
    """Of the parabola a p^2/2, one cycle multiplies p by 1 - alpha + alpha (1 - lr a)^k."""
    a, p = np.array([1.0, 0.3, -0.1], dtype), np.array([1.0, -2.0, 3.0], dtype)
    opt = fastopt.SGD(p, 0.5)
    lookahead = fastopt.Lookahead(opt, k=4, alpha=0.3)
    for cycle in range(1, 6):
        for _ in range(4):
            opt.step(a * p)
        exact = np.array([1, -2, 3]) * (0.7 + 0.3 * (1 - 0.5 * a.astype(float)) ** 4) ** cycle
        np.testing.assert_allclose(p, exact, rtol=20 * np.finfo(dtype).eps)
        np.testing.assert_array_equal(lookahead.slow, p)


@backends
def test_the_order_within_a_step(backend: str) -> None:
    """Rule, prox, bounds, back, bounds, average: the slow point follows what is within the bounds."""
    p = np.array([0.5])
    opt = fastopt.SGD(p, 1.0, maximize=True, clip_norm=3.0, prox_l1=0.25, bounds=(0, 1), average=0.5, backend=backend)
    lookahead = fastopt.Lookahead(opt, k=2, alpha=0.5)
    opt.step(np.array([9.0]))
    assert (p, lookahead.slow, opt.averages) == (1, 0.5, 0.75)
    opt.step(np.array([0.0]))  # 1 - 0.25, and half the way back to 0.5
    assert (p, lookahead.slow, opt.averages) == (0.625, 0.625, 0.6875)
    opt.step(np.array([9.0]))
    opt.step(np.array([9.0]))
    assert (p, lookahead.slow) == (0.8125, 0.8125)


def test_a_slow_point_stays_within_bounds() -> None:
    rng = np.random.default_rng(5)
    p = rng.uniform(-1, 1, 500).astype(np.float32)
    opt = fastopt.Adam(p, lr=3.0, bounds=(-1, 1))
    lookahead = fastopt.Lookahead(opt, k=2, alpha=0.7)
    for g in gradients(20, 500, dtype=np.float32):
        opt.step(g[0])
        assert np.abs(p).max() <= 1
        assert np.abs(lookahead.slow).max() <= 1 + 2e-7


@backends
def test_a_tensor_counts_its_own_steps(backend: str) -> None:
    """Steps without a gradient, and steps that were skipped, do not count."""
    p, q = np.zeros(2), np.zeros(2)
    opt = fastopt.SGD([p, q], 1.0, on_nonfinite="skip", backend=backend)
    lookahead = fastopt.Lookahead(opt, k=2)
    one, bad = -np.ones(2), np.full(2, np.nan)
    seen = []
    for g in ([one, one], [None, one], [one, None], [bad, one], [one, one], [None, None], [one, one]):
        opt.step(g)
        seen.append((p[0], q[0]))
    assert seen == [(1, 1)] * 4 + [(2, 2)] * 3
    assert [opt.state[name]["t"] for name in "01"] == [4, 4]
    assert (lookahead.slow[0][0], lookahead.slow[1][0]) == (2, 2)


def test_groups_of_several_rules_frozen_ones_and_ones_that_come_later() -> None:
    rng = np.random.default_rng(7)
    start = [ordinary(rng, shape, np.float32) for shape in ((5, 4), 30, 3, 20)]

    def made(backend: str) -> fastopt.Optimizer:
        p = [a.copy() for a in start]
        groups = [{"params": p[0], "rule": "adafactor", "bounds": (None, 2)}, {"params": p[1], "rule": "prodigy"},
                  {"params": p[2], "frozen": True}]  # fmt: skip
        np.clip(p[0], None, 2, out=p[0])
        opt = fastopt.Lion(groups, average=0.5, clip_norm=1.0, backend=backend)
        fastopt.Lookahead(opt, k=3, alpha=0.4)
        return opt

    both = [made(backend) for backend in ("c", "numpy")]
    for t in range(9):
        if t == 4:
            for opt in both:
                opt.add_group({"params": start[3].copy(), "rule": "lamb"})
        g = [ordinary(rng, a.shape, np.float32) for a in start[: len(both[0].groups)]]
        reports = [opt.step(g) for opt in both]
        assert same_report(*reports)
        assert_same_bits(*both)
    late = both[0].state["3"]
    assert late["t"] == 5
    assert not np.array_equal(late["slow"], start[3])
    assert not np.array_equal(late["slow"], both[0].groups[3]["params"])
    assert [*both[0].state] == ["0", "1", "3"]


def test_it_starts_where_the_parameters_are() -> None:
    p = np.zeros(3)
    opt = fastopt.Adam(p, lr=1.0)
    for _ in range(3):
        opt.step(np.ones(3))
    before, state = p.copy(), copy.deepcopy(dict(opt.state["0"]))
    lookahead = fastopt.Lookahead(opt, k=2)
    np.testing.assert_array_equal(lookahead.slow, before)
    for name in ("m", "v"):
        np.testing.assert_array_equal(opt.state["0"][name], state[name])
    assert opt.t == opt.state["0"]["t"] == 3
    opt.step(np.ones(3))  # Its fourth, a multiple of 2.
    np.testing.assert_array_equal(p, lookahead.slow)
    assert (p < before).all()
    assert (p > before - 0.75).all()


@pytest.mark.parametrize("at", range(7))
@pytest.mark.parametrize("how", ["state_dict", "file", "pickle", "deepcopy"])
def test_a_run_goes_on_from_every_step_of_a_cycle(at: int, how: str, tmp_path: Path) -> None:
    g = gradients(9, 40, (3, 2))

    def made(params: list[Array], k: int = 3, alpha: float = 0.4) -> fastopt.Optimizer:
        opt = fastopt.AdamW(params, lr=schedules.cosine(0.3, 9), average=0.9, clip_norm=1.0)
        fastopt.Lookahead(opt, k, alpha)
        return opt

    whole = made([np.ones(40), np.ones((3, 2))])
    opt = made([np.ones(40), np.ones((3, 2))])
    for t in range(9):
        if t == at:
            params = [p.copy() for p in opt.groups[0]["params"]]
            if how == "state_dict":
                state, opt = opt.state_dict(), made(params, 7, 0.9)
                opt.load_state_dict(state)
            elif how == "file":
                opt.save(tmp_path / "state")
                opt = made(params, 7, 0.9)
                opt.load(tmp_path / "state")
            else:
                opt = copy.deepcopy(opt) if how == "deepcopy" else pickle.loads(pickle.dumps(opt))
        masked = [g[t][0], None if t == 2 else g[t][1]]
        whole.step(masked)
        opt.step(masked)
        assert_same_bits(whole, opt)
    assert repr(opt) == repr(whole)


def test_a_state_with_lookahead_goes_with_lookahead() -> None:
    def made(on: bool) -> fastopt.Optimizer:
        opt = fastopt.SGD(np.zeros(2), 0.1)
        if on:
            fastopt.Lookahead(opt, 3, 0.25)
        return opt

    opt = made(False)
    with pytest.raises(ValueError, match=r"call fastopt.Lookahead\(opt, k=3, alpha=0.25\) before it is loaded"):
        opt.load_state_dict(made(True).state_dict())
    with pytest.raises(ValueError, match="of an optimizer without Lookahead"):
        made(True).load_state_dict(opt.state_dict())
    for wrong, words in [
        ({"k": 0, "alpha": 0.5}, "k of lookahead is 0"),
        ({"k": 2, "alpha": 1.5}, "alpha of lookahead is 1.5"),
        ({"k": 2.0, "alpha": 0.5}, "k of lookahead is 2.0"),
        ({"k": 2}, "expected a dict with k and alpha"),
        ({"k": 2, "alpha": "x"}, "alpha of lookahead is 'x'"),
    ]:
        there = made(True)
        with pytest.raises(ValueError, match=words):
            there.load_state_dict({**there.state_dict(), "lookahead": wrong})
        assert there._engine.lookahead == (3, 0.25)


def test_a_second_one_is_refused() -> None:
    opt = fastopt.SGD(np.zeros(2), 0.1)
    first = fastopt.Lookahead(opt)
    with pytest.raises(ValueError, match=r"has a Lookahead already \(k=5, alpha=0.5\): an optimizer takes one"):
        fastopt.Lookahead(opt, k=2)
    assert (first.k, first.alpha) == (5, 0.5)
    assert opt.state["0"].keys() == {"t", "slow"}


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((5,), TypeError, "opt is 5: expected an optimizer"),
        ((None, 0), ValueError, "k is 0: expected a whole number, 1 or larger"),
        ((None, 2.5), TypeError, "k is 2.5"),
        ((None, True), TypeError, "k is True"),
        ((None, 5, 0), ValueError, r"alpha is 0.0: expected a number in \(0, 1\]"),
        ((None, 5, 1.5), ValueError, "alpha is 1.5"),
        ((None, 5, np.nan), ValueError, "alpha is nan"),
        ((None, 5, halving), TypeError, "alpha is <function"),
    ],
)
def test_bad_arguments(arguments: Any, error: type[Exception], words: str) -> None:
    opt = fastopt.SGD(np.zeros(2), 0.1)
    with pytest.raises(error, match=words):
        fastopt.Lookahead(*[opt if x is None else x for x in arguments])
    assert opt._engine.lookahead is None
    assert opt.step(np.ones(2)).applied


def test_it_is_not_switched_on_amid_other_things() -> None:
    opt = fastopt.SGD(np.zeros(2), 0.1, momentum=0.9, average=0.5)
    with opt.averaged(), pytest.raises(RuntimeError, match="the averages are in the parameters"):
        fastopt.Lookahead(opt)
    opt.accumulate(np.ones(2))
    with pytest.raises(RuntimeError, match="micro-batches are accumulated and not applied"):
        fastopt.Lookahead(opt)
    opt.step()
    fastopt.Lookahead(opt)
    assert opt.t == 1


def test_what_goes_around_an_optimizer_goes_on() -> None:
    """Accumulation, Nesterov's point, SAM, averages and scaled losses, in both backends."""
    made = []
    for backend in ("c", "numpy"):
        p = np.ones(40)
        opt = fastopt.SGD(p, 0.1, momentum=0.9, average=0.5, backend=backend)
        opt.accumulate(np.ones(40))
        opt.step()
        sam, ema = fastopt.SAM(opt, rho=0.1), fastopt.EMA(p, 0.5)
        with opt.nesterov_point():
            pass
        sam.step(lambda p=p: p.copy())
        ema.update()
        fastopt.Lookahead(opt, k=2)
        for g in gradients(5, 40):
            opt.accumulate(g[0])
            opt.accumulate(-0.5 * g[0])
            opt.step(grad_scale=2.0)
            with opt.nesterov_point():
                there = p.copy()
            sam.step(lambda p=p: 0.5 * p)
            opt.step(there)
            ema.update()
        made.append(opt)
        assert opt.t == 2 + 15
        with opt.averaged(), pytest.raises(RuntimeError):
            opt.step(there)
    assert_same_bits(*made)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("cls", [fastopt.AdamW, fastopt.LAMB, fastopt.Prodigy])
def test_many_threads_and_memory_asked_for_ahead_change_no_bit(cls: Any, threads: int) -> None:
    from fastopt.core import _core

    found = []
    try:
        for ahead in (0, 1):
            _core.prefetch(ahead)
            for n in (1, threads):
                rng = np.random.default_rng(1)
                params = [ordinary(rng, shape, np.float32) for shape in ((90, 71), 4000, 3)]
                opt = cls(params, threads=n)
                fastopt.Lookahead(opt, 2, 0.3)
                opt._engine.plan.split(1, 1024)
                for g in gradients(5, (90, 71), 4000, 3, dtype=np.float32):
                    opt.step(g)
                found.append(opt)
    finally:
        _core.prefetch(-1)
    for a, b in itertools.pairwise(found):
        assert_same_bits(a, b)


def test_its_memory_is_no_traffic_of_most_steps() -> None:
    opt = fastopt.Adam([np.zeros(10), np.zeros(3)])
    before = opt.bytes_per_step
    fastopt.Lookahead(opt)
    assert opt.bytes_per_step == before


def test_copies_and_what_it_shows() -> None:
    opt = fastopt.SGD({"a": np.zeros(2), "b": [np.ones(3)]}, 0.5)
    lookahead = fastopt.Lookahead(opt, k=2, alpha=0.25)
    opt.step({"a": np.ones(2), "b": [None]})
    assert lookahead.slow["b"][0].tolist() == [1, 1, 1]
    other = copy.deepcopy(lookahead)
    other.opt.step({"a": np.ones(2), "b": [None]})
    assert (other.k, other.alpha, other.slow["a"][0], lookahead.slow["a"][0]) == (2, 0.25, -0.25, 0)
    assert repr(lookahead).startswith("Lookahead(k=2, alpha=0.25) around SGD")
    assert "  Lookahead: k=2, alpha=0.25\n" in repr(opt)
    with pytest.raises(AttributeError):
        lookahead.k = 3
    whole = [{"params": np.zeros(1)}, {"params": np.zeros(1), "frozen": True}]
    assert fastopt.Lookahead(fastopt.SGD(whole, 0.1)).slow[1] is None
