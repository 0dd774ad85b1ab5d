"""Early stopping: when it stops, and that the best parameters come back bit for bit."""

from __future__ import annotations

import math
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastopt


def stops_at(metrics: Any, **options: Any) -> int | None:
    stopping = fastopt.EarlyStopping(**options)
    for step, x in enumerate(metrics):
        if stopping.update(x):
            return step
    return None


def test_it_stops_after_as_many_updates_without_improvement_as_the_patience() -> None:
    losses = [3.0, 2.0, 2.0, 2.5, 1.9, 2.0, 2.0, 2.0, 0.0]
    assert stops_at(losses, patience=1) == 2
    assert stops_at(losses, patience=2) == 3
    assert stops_at(losses, patience=3) == 7
    assert stops_at(losses, patience=4) is None
    assert stops_at([-x for x in losses], patience=2, mode="max") == 3
    assert stops_at(losses, patience=2, min_delta=0.5) == 3
    assert stops_at([1.0, 0.5, 0.25], patience=1, min_delta=0.5) == 1


@pytest.mark.parametrize("level", [1.0, -1.0, 0.0])
@pytest.mark.parametrize("mode", ["min", "max"])
def test_the_margin_does_not_depend_on_the_sign_of_the_metric(level: float, mode: str) -> None:
    better = -1 if mode == "min" else 1
    flat = [level] * 5
    assert stops_at(flat, patience=3, min_delta=0.25, mode=mode) == 3
    assert stops_at([level + 0.25 * better * (i > 0) for i in range(5)], patience=3, min_delta=0.25, mode=mode) == 3
    assert stops_at([level + 0.5 * better * i for i in range(5)], patience=1, min_delta=0.25, mode=mode) is None


@given(
    metrics=st.lists(st.floats(width=16) | st.integers(-3, 3), max_size=30),
    patience=st.integers(1, 4), min_delta=st.sampled_from([0.0, 0.5, 1.0]), mode=st.sampled_from(["min", "max"]),
)  # fmt: skip
@settings(max_examples=200, deadline=None, derandomize=True)
def test_it_agrees_with_the_definition(metrics: Any, patience: int, min_delta: float, mode: str) -> None:
    """The best at any time is the last improvement, found anew from all metrics so far."""
    params = np.zeros(3)
    options: Any = {"patience": patience, "min_delta": min_delta, "mode": mode}
    stopping = fastopt.EarlyStopping(**options, restore_best=True, params=params)
    sign = 1 if mode == "min" else -1
    best, best_step = math.nan, -1
    for step, x in enumerate(metrics):
        if x == x and (best_step < 0 or sign * x < sign * best - min_delta):
            best, best_step = float(x), step
        params[...] = step
        stop = stopping.update(x)
        assert stop == (step - best_step >= patience)
        assert (stopping.best, stopping.best_step) == ((None, None) if best_step < 0 else (best, best_step))
        if stop:
            assert params.tolist() == [step if best_step < 0 else best_step] * 3
            break


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_best_parameters_come_back_bit_for_bit(dtype: Any) -> None:
    params = {"W": np.array([[np.nan, -0.0], [1e-40, np.inf]], dtype, order="F"), "b": np.array(np.pi, dtype)}
    best = {name: p.tobytes() for name, p in params.items()}
    opt = fastopt.SGD(params, lr=0.1)
    stopping = fastopt.EarlyStopping(patience=2, restore_best=True, params=params)
    for metric in (1.0, math.nan, 2.0):
        stop = stopping.update(metric)
        if not stop:
            opt.step({"W": np.ones((2, 2), dtype), "b": np.array(1, dtype)})
            assert params["b"].tobytes() != best["b"]
    assert stop
    assert {name: p.tobytes() for name, p in params.items()} == best
    params["b"][...] = 0
    stopping.restore()
    assert {name: p.tobytes() for name, p in params.items()} == best


def test_a_metric_that_is_never_a_number_stops_and_restores_nothing() -> None:
    p = np.ones(2)
    stopping = fastopt.EarlyStopping(patience=2, restore_best=True, params=p)
    p[...] = 2
    assert [stopping.update(math.nan) for _ in range(2)] == [False, True]
    assert p.tolist() == [2, 2]
    assert (stopping.best, stopping.best_step, stopping.waited) == (None, None, 2)


def test_metrics_of_any_kind_of_number() -> None:
    stopping = fastopt.EarlyStopping(patience=2)
    for x in (np.float32(3), np.array(2.0), 1, np.int64(0)):
        assert stopping.update(x) is False  # type: ignore[arg-type]
    assert stopping.best == 0.0
    with pytest.raises(TypeError, match="metric is '1'"):
        stopping.update("1")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="metric"):
        stopping.update(None)  # type: ignore[arg-type]
    assert stopping.steps == 4


def test_a_restored_run_is_the_same_run() -> None:
    p = np.ones(2)
    stopping = fastopt.EarlyStopping(patience=2, restore_best=True, params={"W": p})
    stopping.update(1.0)
    p[...] = 2
    stopping.update(2.0)
    saved = pickle.loads(pickle.dumps(stopping.state_dict()))
    q = np.full(2, 3.0)
    again = fastopt.EarlyStopping(patience=2, restore_best=True, params={"W": q})
    again.load_state_dict(saved)
    assert repr(again) == repr(stopping) == "EarlyStopping: best 1.0 at update 0, 1 of 2 waited"
    assert again.update(1.0)
    assert q.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda saved: None, "not the state"),
        (lambda saved: {"best": 1.0}, "not the state"),
        (lambda saved: {**saved, "best": "low"}, "best='low'"),
        (lambda saved: {**saved, "best": None}, "best=None"),
        (lambda saved: {**saved, "best_step": None}, "best_step=None"),
        (lambda saved: {**saved, "waited": -1}, "waited=-1"),
        (lambda saved: {**saved, "parameters": {}}, "missing"),
        (lambda saved: {**saved, "parameters": {"0": np.ones(3)}}, "best value of '0'"),
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(change: Any, words: str) -> None:
    stopping = fastopt.EarlyStopping(patience=2, restore_best=True, params=np.ones(2))
    stopping.update(1.0)
    before = pickle.dumps(stopping.state_dict())
    with pytest.raises(ValueError, match=words):
        stopping.load_state_dict(change(stopping.state_dict()))
    assert pickle.dumps(stopping.state_dict()) == before


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"patience": 0}, ValueError, "patience is 0"),
        ({"patience": 1.5}, TypeError, "patience is 1.5"),
        ({"patience": True}, TypeError, "patience is True"),
        ({"patience": 1, "min_delta": -1}, ValueError, "min_delta is -1"),
        ({"patience": 1, "min_delta": math.inf}, ValueError, "min_delta is inf"),
        ({"patience": 1, "mode": "less"}, ValueError, "mode is 'less'"),
        ({"patience": 1, "restore_best": True}, ValueError, "pass params="),
        ({"patience": 1, "params": np.ones(2)}, ValueError, "not used"),
        ({"patience": 1, "restore_best": True, "params": [1.0]}, TypeError, "'0' is a float"),
    ],
)
def test_bad_arguments(options: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        fastopt.EarlyStopping(**options)
    with pytest.raises(RuntimeError, match="restore_best=True"):
        fastopt.EarlyStopping(patience=1).restore()


def test_the_best_averages_are_kept_and_restored() -> None:
    p = np.zeros(2)
    ema = fastopt.EMA(p, 0.5)
    ema.update()
    stopping = fastopt.EarlyStopping(patience=1, restore_best=True, params=ema.averages)
    assert not stopping.update(1.0)
    p[:] = 8
    ema.update()
    assert np.array_equal(ema.averages, [4, 4])
    assert stopping.update(2.0)
    assert np.array_equal(ema.averages, [0, 0])
    assert np.array_equal(p, [8, 8])
