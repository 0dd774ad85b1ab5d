"""A scaled loss: divided out exactly inside the step, and the scale found as torch.amp finds it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import fastopt
from tests.cases import CASES, DTYPES, Case, ordinary
from tests.lockstep import assert_same_bits, copies, loss_of, same_report, snapshot

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)


@every_case
@every_dtype
@pytest.mark.parametrize("scale", [2.0**16, 2.0**-20, 1])
def test_a_power_of_two_changes_no_bit(case: Case, dtype: Any, scale: float) -> None:
    rng = np.random.default_rng(0)
    params = [ordinary(rng, n, dtype) for n in (1, 50, 1100)]
    plain, scaled = case.make(copies(params)), case.make(copies(params))
    twin = case.make(copies(params), backend="numpy")
    for _ in range(3):
        g = [ordinary(rng, p.shape, dtype) for p in params]
        large = [x * dtype(scale) for x in g]
        report = plain.step(g, **loss_of(plain))
        assert scaled.step(large, grad_scale=scale, **loss_of(scaled)) == report
        assert twin.step(large, grad_scale=scale, **loss_of(twin)) == report
    assert_same_bits(plain, scaled)
    assert_same_bits(plain, twin)


@every_case
@every_dtype
def test_any_scale_gives_the_bits_of_the_reference(case: Case, dtype: Any) -> None:
    rng = np.random.default_rng(1)
    params = [ordinary(rng, n, dtype) for n in (1, 50, 1100)]
    ours, theirs = case.make(params, threads=3), case.make(copies(params), backend="numpy")
    ours._engine.plan.split(1, 100)
    for scale in (1000.0, 1 / 3, 2.0**126, 2.0**-126):
        g = [ordinary(rng, p.shape, dtype) * dtype(min(scale, 1e30)) for p in params]
        assert same_report(
            ours.step(g, grad_scale=scale, **loss_of(ours)), theirs.step(g, grad_scale=scale, **loss_of(theirs))
        )
    assert ours.step(g, **loss_of(ours)).step == theirs.step(g, **loss_of(theirs)).step == 5
    assert_same_bits(ours, theirs)


def test_the_true_gradient_is_measured_and_clipped() -> None:
    p = np.zeros(2)
    report = fastopt.SGD([p], lr=1.0, clip_norm=1.0).step([np.array([3.0, -4.0]) * 1024], grad_scale=1024)
    assert report.grad_norm == 5.0
    assert p == pytest.approx([-0.6, 0.8], rel=1e-15)
    p = np.zeros(2)
    fastopt.SGD([p], lr=1.0, clip_value=3.5).step([np.array([3.0, -4.0]) * 10], grad_scale=10)
    assert p == pytest.approx([-3.0, 3.5], rel=1e-15)


@pytest.mark.parametrize("scale", [0, -1.0, math.inf, math.nan, 2.0**127, 2.0**-127, "2", True, np.ones(2), 10**400])
def test_a_scale_out_of_range_changes_nothing(scale: Any) -> None:
    opt = fastopt.Adam([np.ones(3)])
    before = snapshot(opt)
    with pytest.raises((TypeError, ValueError), match="grad_scale"):
        opt.step([np.ones(3)], grad_scale=scale)
    assert snapshot(opt) == before
    assert opt.step([np.ones(3)]).applied


@pytest.mark.parametrize("backend", ["c", "numpy"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_overflow_is_seen_before_the_scale_is_divided_out(backend: str, bad: float) -> None:
    opt = fastopt.Adam([np.ones(3, np.float32)], on_nonfinite="skip", average=0.5, backend=backend)
    before = snapshot(opt)
    report = opt.step([np.array([1, bad, 1], np.float32)], grad_scale=2.0**16)
    assert (report.applied, report.step, report.skipped) == (False, 0, 1)
    assert snapshot(opt) == before
    opt.on_nonfinite = "raise"
    with pytest.raises(fastopt.NonFiniteError, match=r"'0' is (nan|inf) at index \(1,\)"):
        opt.step([np.array([1, bad, 1], np.float32)], grad_scale=2.0**16)
    assert snapshot(opt) == before


def test_half_precision_trains_only_with_a_scale() -> None:
    """A gradient of 1e-9 vanishes in float16, whose least number is 6e-8; scaled it does not, and too large a scale
    overflows and is lowered."""

    def gradient(p: Any, scale: float) -> Any:
        with np.errstate(over="ignore"):
            return (np.float16(1e-4) * (p.astype(np.float16) * np.float16(scale) * np.float16(1e-5))).astype(np.float32)

    def train(scaler: Any) -> float:
        p = np.ones(4, np.float32)
        opt = fastopt.SGD([p], lr=1e8, on_nonfinite="skip")
        for _ in range(40):
            report = opt.step([gradient(p, scaler.scale)], grad_scale=scaler.scale)
            scaler.update(report)
        return float(p[0])

    assert train(fastopt.LossScaler(1.0)) == 1.0
    scaler = fastopt.LossScaler(2.0**20)
    assert train(scaler) < 0.1
    assert 2.0**9 < scaler.scale < 2.0**20


def reports(overflows: list[bool]) -> list[fastopt.Report]:
    opt = fastopt.SGD([np.ones(1)], lr=0.0, on_nonfinite="skip")
    return [opt.step([np.array([np.inf if overflow else 1.0])]) for overflow in overflows]


def test_the_scale_is_that_of_torch() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    rng = np.random.default_rng(2)
    for growth, backoff, interval in [(2.0, 0.5, 3), (4.0, 0.25, 1), (1.5, 0.9, 2)]:
        theirs = torch.amp.GradScaler("cpu", 2.0**16, growth, backoff, interval)
        ours = fastopt.LossScaler(2.0**16, growth, backoff, interval)
        w = torch.ones(1, requires_grad=True)
        optimizer = torch.optim.SGD([w], lr=0.0)
        overflows = [bool(x) for x in rng.random(60) < 0.25]
        for overflow, report in zip(overflows, reports(overflows), strict=True):
            theirs.scale(w.sum() * 0)
            w.grad = torch.full((1,), math.inf if overflow else 1.0)
            theirs.step(optimizer)
            theirs.update()
            ours.update(report)
            assert ours.scale == pytest.approx(theirs.get_scale(), rel=1e-6)


def test_the_scale_stays_in_range() -> None:
    scaler = fastopt.LossScaler(growth_interval=1)
    fine, overflow = reports([False, True])
    for _ in range(300):
        scaler.update(fine)
    assert scaler.scale == 2.0**126
    for _ in range(600):
        scaler.update(overflow)
    assert scaler.scale == 2.0**-126


def test_a_saved_scaler_goes_on() -> None:
    scaler = fastopt.LossScaler(1024.0, growth_interval=4)
    sequence = reports([False, False, True, False, False, False])
    for report in sequence:
        scaler.update(report)
    other = fastopt.LossScaler()
    other.load_state_dict(scaler.state_dict())
    assert repr(other) == repr(scaler) == "LossScaler(scale=512, 3 steps applied since it changed)"
    scaler.update(sequence[0])
    other.update(sequence[0])
    assert other.scale == scaler.scale == 1024.0
    assert other.state_dict() == scaler.state_dict()


def test_what_does_not_fit_is_refused() -> None:
    for kwargs, words in [
        ({"init_scale": 0}, "init_scale is 0.0"),
        ({"growth_factor": 1}, "growth_factor is 1.0"),
        ({"backoff_factor": 1}, "backoff_factor is 1.0"),
        ({"growth_interval": 0}, "growth_interval is 0"),
        ({"growth_interval": 1.5}, "growth_interval is 1.5"),
        ({"max_skips": 0}, "max_skips is 0"),
        ({"max_skips": True}, "max_skips is True"),
    ]:
        with pytest.raises((TypeError, ValueError), match=words):
            fastopt.LossScaler(**kwargs)  # type: ignore[arg-type]
    scaler = fastopt.LossScaler()
    before = scaler.state_dict()
    changes = {"applied": -1}, {"scale": "x"}, {"backoff_factor": 2.0}, {"skipped": 0.5}, {"max_skips": 0}
    for saved in (None, {}, *({**before, **change} for change in changes)):
        with pytest.raises(ValueError, match=r"saved|applied|backoff_factor|skipped|max_skips"):
            scaler.load_state_dict(saved)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"what opt\.step returned"):
        scaler.update(True)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="on_nonfinite='skip'"):
        scaler.update(fastopt.SGD([np.ones(1)], lr=0.1).step([np.ones(1)]))
    assert scaler.state_dict() == before
    opt = fastopt.SGD([np.ones(1)], lr=0.1, on_nonfinite="skip")
    scaler.update(opt.step([None]))
    assert scaler.state_dict() == before


def test_it_gives_up_after_so_many_overflows_in_a_row_and_says_what_overflowed() -> None:
    p = {"W": np.ones((2, 2), np.float32), "b": np.ones(2, np.float32)}
    opt = fastopt.SGD(p, lr=0.0, on_nonfinite="skip")
    fine = {name: np.ones_like(x) for name, x in p.items()}
    bad = {"W": np.array([[1, 1], [np.inf, 1]], np.float32), "b": fine["b"]}
    scaler = fastopt.LossScaler(2.0**10, max_skips=2)
    for overflows in (2, 1, 2):
        for _ in range(overflows):
            scaler.update(opt.step(bad, grad_scale=scaler.scale))
        scaler.update(opt.step({"W": None, "b": None}))
        before = scaler.state_dict()
        if overflows == 2:
            words = (
                r"the gradient of 'W' is inf at index \(1, 0\): .*; the 2 steps before it were skipped for the like, "
                r"as many in a row as max_skips allows; the scale of the loss was"
            )
            for _ in range(2):
                with pytest.raises(fastopt.NonFiniteError, match=words):
                    scaler.update(opt.step(bad))
        assert scaler.state_dict() == before
        scaler.update(opt.step(fine))
    assert scaler.scale == 2.0**5


def test_a_report_that_does_not_say_what_overflowed_is_counted_too() -> None:
    scaler = fastopt.LossScaler(max_skips=1)
    scaler.update(fastopt.Report(False, math.inf, 0, 1))
    with pytest.raises(fastopt.NonFiniteError, match=r"the norm of the gradients is inf: .* the step before it was"):
        scaler.update(fastopt.Report(False, math.inf, 0, 2))


def test_a_saved_scaler_goes_on_counting_overflows() -> None:
    overflow = fastopt.Report(False, math.nan, 0, 1)
    scaler, other = fastopt.LossScaler(max_skips=2), fastopt.LossScaler()
    scaler.update(overflow)
    other.load_state_dict(scaler.state_dict())
    other.update(overflow)
    with pytest.raises(fastopt.NonFiniteError):
        other.update(overflow)
    old = {name: x for name, x in scaler.state_dict().items() if name not in ("skipped", "max_skips")}
    other.load_state_dict(old)
    assert (other.max_skips, other.state_dict()["skipped"]) == (None, 0)
