"""Bounds of an optimizer: where parameters are after a step, and which are refused before."""

from __future__ import annotations

import copy
import math
import pickle
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastopt
from fastopt.base.tree import Array
from tests.cases import DTYPES, ordinary
from tests.lockstep import assert_same_bits, loss_of

CLASSES = [getattr(fastopt, name) for name in fastopt.optimizers.__all__]
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)


@pytest.mark.parametrize("backend", ["c", "numpy"])
def test_projected_gradient_descent(backend: str) -> None:
    """p = clip(soft(p - lr g)), and the average is of that."""
    rng = np.random.default_rng(0)
    p0, gs = rng.uniform(-0.5, 0.75, 40), rng.standard_normal((6, 40))
    p, q, averaged = p0.copy(), p0, p0
    opt = fastopt.SGD(p, 0.5, prox_l1=0.1, bounds=(-0.5, 0.75), average=0.9, backend=backend)
    for g in gs:
        opt.step(g)
        q = q - 0.5 * g
        q = np.clip(np.sign(q) * np.maximum(np.abs(q) - 0.05, 0), -0.5, 0.75)
        averaged = 0.9 * averaged + 0.1 * q
        np.testing.assert_allclose(p, q, rtol=0, atol=1e-15)
        np.testing.assert_allclose(opt.averages, averaged, rtol=0, atol=1e-15)
    assert np.isin([-0.5, 0.75], p).all()


def test_the_step_follows_what_the_bounds_have_left() -> None:
    """The penalty before the rule is of the p that the step before has put inside."""
    p = np.array([0.5])
    opt = fastopt.SGD(p, 1.0, l2=0.25, bounds=(None, 0.5))
    opt.step(np.array([-8.0]))
    opt.step(np.array([0.0]))
    assert p == 0.5 - 0.25 * 0.5


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize(("backend", "threads"), [("c", 1), ("c", 3), ("numpy", 1)])
@every_dtype
def test_every_rule_stays_inside(cls: Any, backend: str, threads: int, dtype: Any) -> None:
    rng = np.random.default_rng(1)
    params = [rng.uniform(-0.01, 0.02, shape).astype(dtype) for shape in ((70, 41), 2500, 3, ())]
    more = {"d0": 0.1} if cls is fastopt.Prodigy else {}
    opt = cls(params, lr=1.0, bounds=(-0.01, 0.02), backend=backend, threads=threads, **more)
    if backend == "c":
        opt._engine.plan.split(1, 1024)
    for k in range(6):
        opt.step(
            [None if i == k else np.asarray(100 * ordinary(rng, p.shape, dtype)) for i, p in enumerate(params)],
            # Far from the least: Polyak's step is the loss over the squared gradient.
            **{name: 1e8 * x for name, x in loss_of(opt).items()},
        )
        for p in params:
            assert p.min() >= dtype(-0.01)
            assert Fraction(float(p.max())) <= Fraction(0.02)
    held = np.concatenate([p.ravel() for p in params])
    assert np.count_nonzero((held == held.min()) | (held == held.max())) > 3


@every_dtype
@pytest.mark.parametrize("flush", [True, False])
def test_bounds_are_rounded_inwards(dtype: Any, flush: bool) -> None:
    """low <= p <= high as rational numbers, and there is no number of the type between p and its bound."""
    smallest = float(np.finfo(dtype).smallest_normal)
    sides = [s * x for s in (1, -1) for x in (0.0, 5e-324, 1e-40, 3e-39, 1e-3, 0.1, 1 / 3, 0.5, 3.4028235e38, 1e300)]
    rng = np.random.default_rng(2)
    sides += [float(x) for x in rng.standard_normal(40) * 10.0 ** rng.integers(-50, 30, 40)]
    tried = 0
    for low in sides:
        for bounds, push in (((low, None), -1.0), ((None, low), 1.0)):
            start = dtype(np.clip(3 * low if low * push < 0 else 0.0, -1e38, 1e38))
            p = np.full(3, start, dtype)
            if -push * low > float(np.finfo(dtype).max):
                with pytest.raises(ValueError, match="there is no float32 within bounds"):
                    fastopt.SGD(p, 1.0, bounds=bounds, flush_subnormals=flush)
                continue
            opt = fastopt.SGD(p, 1.0, flush_subnormals=flush)
            p[...] = -push * np.finfo(dtype).max
            opt.bounds = bounds
            opt.step(np.full(3, -push * np.inf, dtype))
            found = Fraction(float(p[0]))
            assert found >= Fraction(low) if push < 0 else found <= Fraction(low)
            with np.errstate(all="ignore"):
                beyond = float(np.nextafter(p[0], dtype(push * np.inf)))
            if flush and abs(beyond) < smallest:
                beyond = 0.0 if p[0] else push * smallest
            if math.isfinite(beyond):
                assert Fraction(beyond) < Fraction(low) if push < 0 else Fraction(beyond) > Fraction(low)
            tried += 1
    assert tried > 100


def test_nan_stays_and_infinity_goes_to_its_side() -> None:
    p = np.zeros(4)
    opt = fastopt.SGD(p, 1.0, bounds=(-1, 2))
    opt.step(np.array([np.nan, np.inf, -np.inf, 0.5]))
    np.testing.assert_array_equal(p, [np.nan, -1, 2, -0.5])
    opt.step(np.zeros(4))
    np.testing.assert_array_equal(p, [np.nan, -1, 2, -0.5])
    fastopt.SGD(p, 1.0, bounds=(-1, 2))


def test_groups_have_bounds_of_their_own() -> None:
    a, b, still = np.zeros(2), np.zeros(2), np.full(2, 9.0)
    groups = [{"params": a, "bounds": (0, 1)}, {"params": b, "rule": "sgd", "lr": 1.0, "bounds": [None, 0.5]},
              {"params": still, "bounds": (0, 1), "frozen": True}]  # fmt: skip
    opt = fastopt.AdamW(groups, lr=0.75)
    for _ in range(3):
        opt.step([-np.ones(2), -np.ones(2), None])
    assert (a.tolist(), b.tolist(), still.tolist()) == ([1, 1], [0.5, 0.5], [9, 9])
    assert opt.bounds == ((0.0, 1.0), (None, 0.5), (0.0, 1.0))
    opt.groups[0]["bounds"] = None
    opt.step([-np.ones(2), None, None])
    assert a[0] > 1
    assert opt.groups[0]["bounds"] is None
    assert fastopt.SGD(a, 0.1, bounds=(-np.inf, np.inf)).bounds is None


def test_types_of_one_group_are_rounded_each_for_itself() -> None:
    params = [np.zeros(2, np.float32), np.zeros(2)]
    opt = fastopt.SGD(params, 1.0, bounds=(None, 0.1))
    opt.step([-np.ones(2, np.float32), -np.ones(2)])
    assert params[0][0] == np.nextafter(np.float32(0.1), np.float32(0))
    assert params[1][0] == 0.1


def test_what_has_no_gradient_is_left_alone() -> None:
    params = [np.zeros(2), np.zeros(2)]
    opt = fastopt.SGD(params, 1.0, bounds=(0, 1), on_nonfinite="skip")
    params[0][...] = params[1][...] = -1
    opt.step([None, np.zeros(2)])
    assert [p[0] for p in params] == [-1, 0]
    assert not opt.step([np.full(2, np.nan), np.zeros(2)])
    assert params[0][0] == -1


def set_of_group(opt: fastopt.Optimizer) -> None:
    opt.groups[0]["bounds"] = (-0.1, 0.1)


OUTSIDE = {
    "construction": lambda p: fastopt.SGD({"W": p}, 0.1, bounds=(-0.1, 0.1)),
    "a new group": lambda p: fastopt.SGD(np.zeros(1), 0.1).add_group({"params": {"W": p}, "bounds": (-0.1, 0.1)}),
    "set later": lambda p: setattr(fastopt.SGD({"W": p}, 0.1), "bounds", (-0.1, 0.1)),
    "set later of a group": lambda p: set_of_group(fastopt.SGD({"W": p}, 0.1)),
    "loading": lambda p: fastopt.SGD({"W": p}, 0.1).load_state_dict(
        fastopt.SGD({"W": np.zeros_like(p)}, 0.1, bounds=(-0.1, 0.1)).state_dict()
    ),
}


@pytest.mark.parametrize("when", OUTSIDE)
@every_dtype
def test_a_start_outside_is_refused_with_the_line_that_moves_it(when: str, dtype: Any) -> None:
    p = np.array([[0.0, -0.05, np.nan], [0.1000001, 0.0, -7.0]], dtype)
    before = p.copy()
    words = r"'W' is 0.100000\d* at index \(1, 0\), outside bounds=\(-0.1, 0.1\)"
    with pytest.raises(ValueError, match=words) as error:
        OUTSIDE[when](p)
    np.testing.assert_array_equal(p, before)
    line = str(error.value).partition("move it inside first, ")[2].partition(" with p")[0]
    exec(line, {"np": np, "p": p})
    assert Fraction(float(p[1, 0])) <= Fraction(0.1)
    OUTSIDE[when](p)


def test_bounds_of_all_groups_are_set_or_of_none() -> None:
    params = [np.zeros(2), np.full(2, 3.0), np.asarray(5.0)]
    opt = fastopt.SGD([{"params": p} for p in params], 0.1)
    with pytest.raises(ValueError, match=r"'1' is 3.0 at index \(0,\)"):
        opt.bounds = (0, 1)
    assert opt.bounds is None
    opt.bounds = (0, 5)
    with pytest.raises(ValueError, match=r"'2' is 5.0, outside bounds=\(None, 1.0\)"):
        opt.groups[2]["bounds"] = (None, 1)


def test_bounds_are_not_set_while_other_values_are_in_the_parameters() -> None:
    p = np.ones(2)
    opt = fastopt.SGD(p, 0.5, average=0.5)
    opt.step(np.ones(2))
    with opt.averaged(), pytest.raises(RuntimeError, match="the averages are in the parameters"):
        opt.bounds = (0, 0.5)
    assert opt.bounds is None
    opt.bounds = (0, 0.5)
    with opt.averaged():
        assert p[0] == 0.75


def test_points_outside_a_step_are_not_bounded() -> None:
    p = np.ones(2)
    opt = fastopt.SGD(p, 1.0, momentum=0.5, bounds=(0, 1))
    opt.step(-np.ones(2))
    with opt.nesterov_point():
        assert p[0] == 1.5
    assert p[0] == 1
    seen = []
    fastopt.SAM(opt, rho=1.0).step(lambda: (seen.append(p[0]), -np.ones(2))[1])
    assert seen[1] == pytest.approx(1 - math.sqrt(0.5))
    assert p[0] == 1


@pytest.mark.parametrize(
    ("bounds", "error", "words"),
    [
        (0.5, TypeError, "bounds is 0.5: expected a pair"),
        ("ab", TypeError, "bounds is 'ab': expected a pair"),
        (np.array([0.0, 1.0]), TypeError, r"bounds is array\(\[0., 1.\]\): expected a pair"),
        ((0,), ValueError, "bounds has 1 values: expected a pair"),
        ((0, 1, 2), ValueError, "bounds has 3 values"),
        ((0, "1"), TypeError, r"bounds\[1\] is '1', a str: expected a number or None"),
        ((True, None), TypeError, r"bounds\[0\] is True"),
        ((np.zeros(2), 1), TypeError, r"bounds\[0\] is array"),
        ((lambda t: 0.0, 1), TypeError, r"bounds\[0\] is <function"),
        ((math.nan, 1), ValueError, r"bounds\[0\] is nan"),
        ((0, math.nan), ValueError, r"bounds\[1\] is nan"),
        ((math.inf, None), ValueError, r"bounds\[0\] is inf: expected a finite number"),
        ((None, -math.inf), ValueError, r"bounds\[1\] is -inf"),
        ((1, 0), ValueError, r"bounds is \(1, 0\): the low one must not be above the high one"),
        (((0, 1), (0, 2)), TypeError, "for group, pair in zip"),
        ((0.1, math.nextafter(0.1, 1)), ValueError, "there is no float32 within bounds"),
    ],
)
def test_bad_bounds(bounds: Any, error: type[Exception], words: str) -> None:
    p = np.zeros(3, np.float32)
    with pytest.raises(error, match=words):
        fastopt.SGD(p, 0.1, bounds=bounds)
    opt = fastopt.SGD(p, 0.1)
    for change in (lambda: setattr(opt, "bounds", bounds), lambda: opt.groups[0].update(bounds=bounds)):
        with pytest.raises(error, match=words):
            change()
    assert opt.bounds is None


def test_a_checkpoint_holds_the_bounds(tmp_path: Path) -> None:
    def made(**more: Any) -> tuple[Array, fastopt.Optimizer]:
        p = np.zeros(3)
        return p, fastopt.Adam({"W": p}, lr=1.0, **more)

    p, opt = made(bounds=(None, 0.5))
    opt.step({"W": -np.ones(3)})
    opt.save(tmp_path / "state")
    for more in ({}, {"bounds": (-1, 1)}, {"bounds": (None, 0.5)}):
        q, other = made(**more)
        q[...] = p
        other.load(tmp_path / "state")
        assert other.bounds == (None, 0.5)
        other.step({"W": -np.ones(3)})
        assert q[0] == 0.5
    free_p, free = made()
    free_p[...] = 9
    _, bounded = made(bounds=(0, 1))
    bounded.load_state_dict(free.state_dict())
    assert bounded.bounds is None
    with pytest.raises(ValueError, match="or put the parameters of the saved run there"):
        free.load(tmp_path / "state")
    assert free.bounds is None
    broken = opt.state_dict()
    broken["groups"][0]["bounds"] = (1.0, 0.0)
    with pytest.raises(ValueError, match=r"bounds is \(1.0, 0.0\)"):
        other.load_state_dict(broken)


def test_a_copy_takes_parameters_as_they_are() -> None:
    p = np.zeros(3)
    opt = fastopt.SGD(p, 1.0, momentum=0.5, bounds=(0, 1))
    p[...] = -5
    for made in (copy.deepcopy(opt), pickle.loads(pickle.dumps(opt))):
        assert made.groups[0]["params"][0] == -5
        made.step(np.zeros(3))
        assert made.groups[0]["params"][0] == 0


def test_bounds_that_come_and_go_are_a_stage_that_comes_and_goes() -> None:
    made = [fastopt.Adam(np.zeros(5), lr=1.0, backend=backend) for backend in ("c", "numpy")]
    for bounds in (None, (-1, 2), None, (None, 9), (0, 0.5)):
        for opt in made:
            np.clip(opt.groups[0]["params"], *bounds or (None, None), out=opt.groups[0]["params"]) if bounds else None
            opt.bounds = bounds
            opt.step(-np.ones(5))
        assert_same_bits(*made)
