"""Names, groups, hyperparameters, schedules, None gradients, counts, averages, reports, repr."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import fastopt
from tests.cases import CASES, WITH_SUMS_OF_ALL, Case, ordinary
from tests.lockstep import assert_same_bits, copies, loss_of, snapshot

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)


def ones(*shape: int) -> Any:
    return np.ones(shape)


@pytest.mark.parametrize(
    ("params", "names"),
    [
        (ones(2), ("0",)),
        ([ones(2), ones(3)], ("0", "1")),
        ((ones(2), ones(3)), ("0", "1")),
        ({"W": ones(2), "b": ones(1)}, ("W", "b")),
        ({"l1": {"W": ones(2), "b": ones(1)}, "l2": [ones(1), {"x": ones(1)}]}, ("l1.W", "l1.b", "l2.0", "l2.1.x")),
        ([[ones(1), ones(1)], {"W": ones(1)}], ("0.0", "0.1", "1.W")),
        ([{"params": ones(1)}, {"params": [ones(1), ones(1)]}, {"params": ones(1)}], ("0", "1", "2", "3")),
        ([{"params": {"W": ones(1)}}, {"params": [ones(1)]}, {"params": {"b": ones(1)}}], ("W", "0", "b")),
    ],
)
def test_names(params: Any, names: tuple[str, ...]) -> None:
    opt = fastopt.SGD(params, lr=0.1)
    assert opt.names == names
    assert tuple(opt.state) == names


def test_gradients_follow_the_structure_not_the_order() -> None:
    params = {"a": ones(2), "b": {"c": ones(3), "d": [ones(1), ones(1)]}}
    fastopt.SGD(params, lr=1.0).step({"b": {"d": (4 * ones(1), None), "c": 3 * ones(3)}, "a": 2 * ones(2)})
    assert params["a"].tolist() == [-1, -1]
    assert params["b"]["c"].tolist() == [-2, -2, -2]
    assert [x.tolist() for x in params["b"]["d"]] == [[-3], [1]]


def test_updates_are_in_place_and_through_views() -> None:
    memory = np.zeros(10)
    opt = fastopt.SGD([memory[2:5]], lr=1.0)
    opt.step([ones(3)])
    assert memory.tolist() == [0, 0, -1, -1, -1, 0, 0, 0, 0, 0]


def test_groups_have_their_own_hyperparameters() -> None:
    a, b, c = ones(1), ones(1), ones(1)
    opt = fastopt.SGD([{"params": [a]}, {"params": b, "lr": 0.25}, {"params": {"c": c}, "lr": lambda t: t}], lr=0.5)
    opt.step([[ones(1)], ones(1), {"c": ones(1)}])
    assert (a[0], b[0], c[0]) == (0.5, 0.75, 1.0)
    opt.step([[ones(1)], None, {"c": ones(1)}])
    assert (a[0], b[0], c[0]) == (0.0, 0.75, 0.0)
    opt.groups[1]["lr"] = 0.5
    opt.step([None, ones(1), None])
    assert (a[0], b[0], c[0]) == (0.0, 0.25, 0.0)
    assert opt.lr[:2] == (0.5, 0.5)
    assert callable(opt.lr[2])
    with pytest.raises(TypeError, match=r"for group, x in zip\(opt.groups, values\)"):
        opt.lr = opt.lr
    opt.lr = 0.125
    assert opt.lr == 0.125
    assert [group["lr"] for group in opt.groups] == [0.125] * 3
    assert dict(opt.groups[1])["lr"] == 0.125
    assert opt.groups[2].names == ("c",)
    assert opt.groups[0]["params"][0] is a
    with pytest.raises(TypeError, match="in 3 groups"):
        opt.step([ones(1), ones(1)])
    with pytest.raises(KeyError):
        opt.groups[0]["nonsense"]


def test_a_group_is_a_mapping_of_fixed_keys() -> None:
    opt = fastopt.SGD(ones(1), lr=0.5)
    group = opt.groups[0]
    assert len(group) == len([*group]) == len(dict(group))
    assert [*group][:2] == ["params", "lr"]
    for key in ("lr", "params"):
        with pytest.raises(TypeError, match=f"'{key}' cannot be removed"):
            del group[key]
    with pytest.raises(TypeError, match="no 'nonsense'"):
        group["nonsense"] = 1


def test_a_pair_of_each_group_is_not_one_value_for_all() -> None:
    opt = fastopt.Adam([{"params": ones(1)}, {"params": ones(2), "betas": (0.8, 0.9)}])
    assert opt.betas == ((0.9, 0.999), (0.8, 0.9))
    with pytest.raises(TypeError, match="one value sets all groups"):
        opt.betas = opt.betas
    opt.betas = (0.7, 0.9)
    assert [group["betas"] for group in opt.groups] == [(0.7, 0.9)] * 2
    assert "betas=(0.7, 0.9)" in repr(opt.groups[0])


def test_options_that_are_no_numbers_are_set_for_the_next_step() -> None:
    p = ones(1)
    opt = fastopt.SGD(p, lr=0.5, on_nonfinite="skip")
    opt.maximize = True
    opt.step(ones(1))
    assert (p[0], opt.maximize, opt.groups[0]["maximize"]) == (1.5, True, True)
    opt.on_nonfinite = "raise"
    with pytest.raises(ValueError, match="nan"):
        opt.step(np.array([math.nan]))


def test_what_is_done_to_the_containers_of_a_group_changes_no_optimizer() -> None:
    a, b = ones(1), {"x": ones(1), "y": ones(1)}
    opt = fastopt.SGD([{"params": [a]}, {"params": b}], lr=0.5)
    opt.groups[0]["params"].append(ones(1))
    opt.groups[1]["params"].pop("x")
    for wrong in ([[ones(1), ones(1)], b], [[ones(1)], {"y": ones(1)}]):
        with pytest.raises(ValueError, match="the parameters"):
            opt.step(wrong)
    assert not hasattr(opt.groups, "append")
    opt.step([[ones(1)], {"x": ones(1), "y": ones(1)}])
    assert (a[0], b["x"][0], b["y"][0]) == (0.5, 0.5, 0.5)


def test_a_group_that_outlives_its_optimizer_can_be_read() -> None:
    group = fastopt.SGD(ones(1), lr=0.5).groups[0]
    assert group["lr"] == 0.5
    assert "betas" not in group
    with pytest.raises(ReferenceError, match="keep the optimizer"):
        group["lr"] = 0.25


def test_what_a_schedule_sets_is_used_from_the_next_step_on() -> None:
    def schedule(t: int) -> float:
        opt.lr = 0.5**t
        return 0.0

    p = np.zeros(1)
    opt = fastopt.SGD(p, lr=8.0, l2=schedule)
    for expected in (-8, -9, -9.5, -9.75):
        opt.step(ones(1))
        assert p[0] == expected


def test_one_group_with_momentum_is_enough_for_a_buffer() -> None:
    a, b = ones(1), ones(1)
    opt = fastopt.SGD([{"params": [a], "momentum": 0.5}, {"params": [b]}], lr=1.0)
    for _ in range(2):
        opt.step([[ones(1)], [ones(1)]])
    assert (a[0], b[0]) == (-1.5, -1.0)


@every_case
@pytest.mark.parametrize("backend", ["c", "numpy"])
def test_adding_a_group_is_making_it_with_one_from_then_on(case: Case, backend: str) -> None:
    rng = np.random.default_rng(0)
    a, b = ordinary(rng, 70, np.float64), ordinary(rng, 40, np.float64)
    g = [(ordinary(rng, 70, np.float64), ordinary(rng, 40, np.float64)) for _ in range(4)]
    late = case.make([a.copy()], backend=backend)
    both = case.make([{"params": [a.copy()]}, {"params": [b.copy()], "l2": 0.5}], backend=backend)
    for x, _ in g[:2]:
        late.step([x], **loss_of(late))
        both.step([[x], [None]], **loss_of(both))
    late.add_group({"params": case.inside([b.copy()]), "l2": 0.5})
    assert late.names == ("0", "1")
    for x, y in g[2:]:
        late.step([[x], [y]], **loss_of(late))
        both.step([[x], [y]], **loss_of(both))
    assert_same_bits(late, both)


def test_adding_a_bad_group_changes_nothing() -> None:
    params = {"W": ones(3)}
    opt = fastopt.Adam(params, lr=0.1)
    opt.step({"W": ones(3)})
    before, shown = snapshot(opt), repr(opt)
    for group, error in [
        ({"params": params["W"]}, ValueError),
        ({"params": {"W": ones(3)}}, ValueError),
        ({"params": {"x": ones(3)}, "lr": -1}, ValueError),
        ({"params": {"x": ones(3)}, "rho": 0.9}, TypeError),
        ({"params": {"x": np.ones(3, int)}}, TypeError),
        ({"params": {}}, ValueError),
        ({"lr": 0.1}, TypeError),
        (ones(3), TypeError),
    ]:
        with pytest.raises(error):
            opt.add_group(group)
        assert snapshot(opt) == before
        assert repr(opt) == shown
    assert opt.step({"W": ones(3)}).applied


SCHEDULED = [
    (fastopt.SGD, {"lr": 0.1, "momentum": 0.9}, ["lr", "momentum", "dampening"]),
    (fastopt.Adagrad, {"lr": 0.1}, ["lr", "eps", "l1", "l2", "decoupled_decay", "prox_l1"]),
    (fastopt.RMSprop, {"lr": 0.1, "momentum": 0.5}, ["lr", "rho", "eps", "momentum"]),
    (fastopt.AdamW, {"lr": 0.1}, ["lr", "eps", "weight_decay", "l1"]),
    (fastopt.NAdam, {"lr": 0.1, "clip_norm": 1.0}, ["lr", "eps", "clip_norm", "l2"]),
    (fastopt.Adam, {"clip_value": 1.0, "average": 0.5}, ["clip_value", "average"]),
]


@pytest.mark.parametrize(("cls", "kwargs", "names"), SCHEDULED, ids=lambda x: getattr(x, "__name__", None))
def test_a_schedule_equals_setting_the_number_by_hand(cls: Any, kwargs: dict[str, Any], names: list[str]) -> None:
    rng = np.random.default_rng(1)
    for name in names:

        def schedule(t: int) -> float:
            return 0.5 / (1 + t)

        p = [ordinary(rng, 30, np.float32)]
        scheduled = cls(copies(p), **{**kwargs, name: schedule})
        by_hand = cls(copies(p), **{**kwargs, name: schedule(0)})
        for t in range(5):
            g = [ordinary(rng, 30, np.float32)]
            setattr(by_hand, name, schedule(t))
            assert scheduled.step(g) == by_hand.step(g)
        assert_same_bits(scheduled, by_hand)
        assert getattr(scheduled, name) is schedule


def test_betas_can_be_schedules_one_by_one() -> None:
    p = [ones(3)]
    scheduled = fastopt.Adam(copies(p), betas=(lambda t: 0.9 - 0.1 * t, 0.99))
    by_hand = fastopt.Adam(copies(p))
    for t in range(3):
        by_hand.betas = (0.9 - 0.1 * t, 0.99)
        scheduled.step([ones(3) * (t + 1)])
        by_hand.step([ones(3) * (t + 1)])
    assert_same_bits(scheduled, by_hand)


def test_schedules_see_applied_steps_only() -> None:
    seen: list[int] = []

    def lr(t: int) -> float:
        seen.append(t)
        return 0.1

    opt = fastopt.SGD([ones(2)], lr=lr, on_nonfinite="skip")
    for g in ([ones(2)], [None], [ones(2) * np.nan], [ones(2)]):
        opt.step(g)
    assert [t for i, t in enumerate(seen) if t not in seen[:i]] == [0, 1]
    assert opt.t == 2


@pytest.mark.parametrize("case", [c for c in CASES if c.optimizer not in WITH_SUMS_OF_ALL], ids=lambda c: c.id)
def test_none_leaves_parameter_state_and_count_alone(case: Case) -> None:
    """Tensors with some gradients missing move as they would alone, with the gradients that they had."""
    rng = np.random.default_rng(2)
    if "clip_norm" in case.kwargs or callable(case.kwargs.get("lr")):
        case = case._replace(kwargs={**case.kwargs, "lr": 0.1, "clip_norm": None})
    start = [ordinary(rng, 50, np.float64) for _ in range(4)]
    together = case.make(copies(start))
    alone = [case.make([p.copy()]) for p in start]
    for step in range(8):
        g: list[Any] = [ordinary(rng, 50, np.float64) for _ in start]
        for k in range(4):
            if (step >> k) % 2 and k > 0:
                g[k] = None
        before = snapshot(together)
        report = together.step(g)
        after = snapshot(together)
        assert report == (True, report.grad_norm, step + 1, 0)
        for k, x in enumerate(g):
            if x is None:
                assert after[str(k)] == before[str(k)]
            else:
                alone[k].step([x])
    for k, opt in enumerate(alone):
        ours, theirs = together.state[str(k)], opt.state["0"]
        assert ours["t"] == theirs["t"] == opt.t
        assert all(np.array_equal(ours[key], theirs[key]) for key in ours)
        assert np.array_equal(together._engine.plan.params[k], opt._engine.plan.params[0])
    assert len(together._engine.cohorts) <= 4


def test_all_none_is_not_a_step() -> None:
    opt = fastopt.Adam({"a": ones(2), "b": {"c": ones(2)}}, clip_norm=1.0)
    before = snapshot(opt)
    for g in ({"a": None, "b": {"c": None}}, {"a": None, "b": None}, None):
        assert opt.step(g) == (False, None, 0, 0)
    assert snapshot(opt) == before


def test_zero_gradient_is_not_none() -> None:
    opt = fastopt.SGD([ones(2)], lr=0.1, l2=1.0)
    opt.step([np.zeros(2)])
    assert opt.state["0"]["t"] == 1
    assert opt._engine.plan.params[0].tolist() == [0.9, 0.9]


def test_report() -> None:
    opt = fastopt.SGD([np.zeros(2)], lr=1.0, clip_norm=5.0)
    report = opt.step([np.array([6.0, 8.0])])
    assert (report.applied, report.grad_norm, report.step) == (True, 10.0, 1)
    assert opt._engine.plan.params[0].tolist() == [-3.0, -4.0]
    assert fastopt.SGD([np.zeros(2)], lr=1.0).step([ones(2)]).grad_norm is None
    assert fastopt.SGD([np.zeros(2)], lr=1.0, on_nonfinite="raise").step([np.array([3.0, 4.0])]).grad_norm == 5.0


def test_state_is_live_to_read_and_closed_to_replace() -> None:
    opt = fastopt.Adam({"W": ones(2)})
    m = opt.state["W"]["m"]
    opt.step({"W": ones(2)})
    assert m is opt.state["W"]["m"]
    assert m == pytest.approx([0.1, 0.1])
    assert opt.state["W"]["t"] == 1
    with pytest.raises(TypeError):
        opt.state["W"]["t"] = 5  # type: ignore[index]


@pytest.mark.parametrize("order", ["C", "F"])
def test_state_is_aligned_and_laid_out_as_the_parameter(order: Any) -> None:
    p = np.asarray(np.ones((3, 5), np.float32), order=order)
    opt = fastopt.Adam([p], average=0.9)
    for a in (opt.state["0"]["m"], opt.state["0"]["v"], opt.averages[0]):
        assert a.ctypes.data % 64 == p.ctypes.data % 64
        assert a.strides == p.strides
        assert a.dtype == p.dtype


def test_averages() -> None:
    params = {"a": np.zeros(2), "b": [np.zeros(1)]}
    opt = fastopt.SGD(params, lr=1.0, average=0.75)
    opt.step({"a": -ones(2), "b": [None]})
    assert opt.averages["a"].tolist() == [0.25, 0.25]
    assert opt.averages["b"][0].tolist() == [0.0]
    opt.step({"a": -ones(2), "b": [-ones(1)]})
    assert opt.averages["a"].tolist() == [0.6875, 0.6875]
    grouped = fastopt.SGD([{"params": np.zeros(1)}, {"params": [np.ones(1)]}], lr=1.0, average=0.5)
    assert grouped.averages == [np.zeros(1), [np.ones(1)]]
    with pytest.raises(ValueError, match="average="):
        _ = fastopt.SGD([ones(1)], lr=1.0).averages


def test_averages_start_at_the_weights() -> None:
    opt = fastopt.SGD([np.full(3, 7.0)], lr=0.0, average=0.9)
    for _ in range(5):
        opt.step([ones(3)])
    assert opt.averages[0] == pytest.approx([7.0] * 3)


@every_case
def test_repr_shows_formula_and_every_hyperparameter(case: Case) -> None:
    opt = case.make({"W": ones(2, 3), "b": ones(3)})
    shown = repr(opt)
    assert shown.startswith(case.optimizer.__name__ + ": " + opt.formula)
    assert "2 tensors, 9 elements" in shown
    named = {"decoupled_decay": "weight_decay"} if hasattr(opt, "weight_decay") else {}
    for name in (*case.kwargs, *opt.groups[0]):
        assert name == "params" or f"{named.get(name, name)}=" in shown or f"{name}=" in shown
    for name, value in case.kwargs.items():
        if isinstance(value, float | str):
            assert f"{name}={value!r}" in shown or f"{name}={value:g}" in shown


def test_unused_threads_are_checked_and_kept() -> None:
    opt = fastopt.Adam([ones(2)], threads=3)
    assert opt.threads == 3
    assert fastopt.Adam([ones(2)], backend="numpy", threads=2).step([ones(2)]).applied
    opt.threads = None
    for bad in (0, -1, 1.5, True, "2"):
        with pytest.raises((TypeError, ValueError)):
            fastopt.set_num_threads(bad)  # type: ignore[arg-type]


def test_positional_arguments_are_those_of_pytorch() -> None:
    assert fastopt.SGD([ones(1)], 0.5, 0.9).momentum == 0.9
    assert fastopt.Adam([ones(1)], 0.5, (0.5, 0.6), 1e-3).eps == 1e-3
    assert fastopt.AdamW([ones(1)], 0.5, (0.5, 0.6), 1e-3, 0.3).weight_decay == 0.3
    assert fastopt.RMSprop([ones(1)], 0.5).lr == 0.5
    assert math.isclose(fastopt.NAdam([ones(1)]).lr, 2e-3)


def test_the_base_class_names_no_rule() -> None:
    with pytest.raises((NotImplementedError, TypeError)):
        fastopt.Optimizer([ones(1)], {"lr": 0.1}, {}, {})


def test_what_the_caller_does_to_its_containers_later_changes_nothing() -> None:
    params = {"a": {"W": ones(2)}, "b": [ones(1)]}
    opt = fastopt.SGD(params, lr=1.0)
    grads = {"a": {"W": ones(2)}, "b": [ones(1)]}
    w, b = params["a"]["W"], params["b"][0]
    params["a"]["bias"] = ones(2)
    params["b"] += [ones(1) for _ in range(1000)]
    opt.step(grads)
    assert (w.tolist(), b.tolist()) == ([0, 0], [0])
    with pytest.raises(ValueError, match=r"a\.bias"):
        opt.step({"a": {"W": ones(2), "bias": ones(2)}, "b": [ones(1)]})


def test_a_group_without_momentum_is_not_damped() -> None:
    a, b = ones(1), ones(1)
    opt = fastopt.SGD([{"params": a, "momentum": 0.9}, {"params": b}], lr=1.0, dampening=0.5)
    for _ in range(3):
        opt.step([ones(1), ones(1)])
    assert b[0] == -2.0


def test_add_group_takes_what_was_given_at_construction() -> None:
    opt = fastopt.Adam(ones(1), lr=0.5)
    opt.lr = 0.25
    opt.add_group({"params": {"b": ones(1)}})
    assert [group["lr"] for group in opt.groups] == [0.25, 0.5]


def test_weight_decay_of_adamw_is_another_name_of_its_decoupled_decay() -> None:
    opt = fastopt.AdamW(ones(1))
    assert opt.weight_decay == opt.decoupled_decay == opt.groups[0]["decoupled_decay"] == 1e-2
    opt.weight_decay = 0.1
    assert opt.decoupled_decay == opt.groups[0]["weight_decay"] == 0.1
    opt.groups[0]["weight_decay"] = 0.2
    assert opt.weight_decay == 0.2
    assert opt.state_dict()["groups"][0]["decoupled_decay"] == 0.2
    assert fastopt.AdamW(ones(1), decoupled_decay=0.3).weight_decay == 0.3
    for both in ({"weight_decay": 0.1, "decoupled_decay": 0.1}, {"decoupled_decay": 0.1, "weight_decay": 0.1}):
        with pytest.raises(TypeError, match="weight_decay and decoupled_decay are one option of AdamW"):
            fastopt.AdamW(ones(1), **both)
        with pytest.raises(TypeError, match="one option of AdamW"):
            fastopt.AdamW([{"params": ones(1), **both}])


def test_current_gives_the_numbers_in_force() -> None:
    opt = fastopt.AdamW(
        [{"params": ones(1)}, {"params": ones(1), "lr": 0.5}], lr=lambda t: 1.0 / (1 + t), clip_norm=2.0
    )
    first, second = opt.current()
    assert (first["lr"], second["lr"], first["clip_norm"]) == (1.0, 0.5, 2.0)
    opt.step([ones(1), ones(1)])
    assert opt.current()[0]["lr"] == 0.5
    assert callable(opt.lr[0])


def test_a_report_is_true_where_the_step_was_applied() -> None:
    opt = fastopt.SGD([ones(1)], lr=1.0, on_nonfinite="skip")
    assert opt.step([ones(1)])
    assert not opt.step([np.full(1, np.nan)])
    assert not opt.step([None])


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_negative_variance_counts_as_0(momentum: float) -> None:
    p = np.array([1.0])
    opt = fastopt.RMSprop([p], lr=0.1, eps=0.5, centered=True, momentum=momentum)
    opt.state["0"]["m"][...] = 10
    opt.step([np.array([2.0])])
    assert p == pytest.approx([1 - 0.1 * 2 / 0.5])


def test_the_largest_v_so_far_of_amsgrad_keeps_nan_and_flushes_subnormals() -> None:
    opt = fastopt.Adam([np.ones(2, np.float32)], amsgrad=True)
    opt.state["0"]["v_max"][...] = 1e-40
    opt.step([np.array([0, np.nan], np.float32)])
    assert opt.state["0"]["v_max"].tobytes()[:4] == bytes(4)
    opt.step([np.ones(2, np.float32)])
    assert np.isnan(opt.state["0"]["v_max"]).tolist() == [False, True]
