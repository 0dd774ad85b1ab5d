"""Groups with rules of their own, frozen groups, and what of a group's options is the group's."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import fastopt
from fastopt.core import _core
from tests.cases import ordinary
from tests.lockstep import assert_same_bits, copies, loss_of, snapshot


def arrays(seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {"W": rng.standard_normal((6, 5)), "b": rng.standard_normal(7)}


RULES = ["sgd", "adagrad", "rmsprop", "adam", "nadam", "lion", "lamb", "adafactor", "prodigy"]


@pytest.mark.parametrize("backend", ["c", "numpy"])
@pytest.mark.parametrize("rule", RULES)
def test_each_group_moves_as_an_optimizer_of_its_rule_would(rule: str, backend: str) -> None:
    mine, alone = arrays(), arrays()
    options: dict[str, Any] = {"lr": 0.1} if rule == "sgd" else {}
    groups = [{"params": {"W": mine["W"]}}, {"params": {"b": mine["b"]}, "rule": rule, **options}]
    opt = fastopt.AdamW(groups, weight_decay=0.3, backend=backend)
    cls = next(cls for cls in map(fastopt.__dict__.get, fastopt.optimizers.__all__) if cls.__name__.lower() == rule)
    first, second = fastopt.AdamW({"W": alone["W"]}, weight_decay=0.3), cls({"b": alone["b"]}, **options)
    for step in range(5):
        g = arrays(step + 1)
        assert opt.step([{"W": g["W"]}, {"b": g["b"]}])
        first.step({"W": g["W"]})
        second.step({"b": g["b"]})
    assert all(mine[name].tobytes() == alone[name].tobytes() for name in mine)
    assert opt.groups[1].rule is cls
    again = fastopt.AdamW([{**group, "params": copies(group["params"])} for group in groups], weight_decay=0.3)
    again.load_state_dict(opt.state_dict())
    assert_same_bits(again, opt)


def test_a_schedule_is_called_once_a_step_whatever_it_gives() -> None:
    for give in (0.5, np.float64(0.5), 1, np.float32(0.25)):
        seen: list[int] = []

        def schedule(t: int, give: Any = give, seen: list[int] = seen) -> Any:
            seen.append(t)
            return give

        opt = fastopt.AdamW([{"params": np.ones(2)}, {"params": np.ones(2), "lr": 0.1}], clip_norm=schedule)
        for _ in range(3):
            opt.step([np.ones(2), np.ones(2)])
        assert seen == [0, 1, 2]


def test_a_name_that_no_group_has_is_none() -> None:
    opt = fastopt.AdamW([{"params": np.ones(2), "rule": "lion"}])
    with pytest.raises(AttributeError, match="no group has eps"):
        _ = opt.eps
    for base in ("optimizer", "withmomentum", fastopt.Optimizer):
        with pytest.raises(ValueError, match="expected an optimizer class or one of"):
            fastopt.AdamW([{"params": np.ones(2), "rule": base}])


def test_a_name_is_read_of_the_groups_that_have_it() -> None:
    opt = fastopt.AdamW(
        [{"params": np.ones(2)}, {"params": np.ones(2), "rule": fastopt.SGD, "lr": 0.5, "momentum": 0.9}]
    )
    assert opt.lr == (1e-3, 0.5)
    assert opt.betas == (0.9, 0.999)
    assert opt.groups[1]["momentum"] == 0.9
    assert [*opt.state["1"]] == ["t", "b"]


@pytest.mark.parametrize(
    ("group", "error", "words"),
    [
        ({"rule": "lyon"}, ValueError, "'lyon': expected an optimizer class or one of"),
        ({"rule": int}, ValueError, "int'>: expected an optimizer class"),
        ({"rule": fastopt.Optimizer}, ValueError, "Optimizer'>: expected an optimizer class"),
        ({"rule": "sgd"}, TypeError, "SGD needs lr"),
        ({"rule": "lion", "eps": 1e-8}, TypeError, "Lion has no 'eps'"),
        ({"rule": "lion", "threads": 1}, TypeError, "Lion has no 'threads'"),
        ({"frozen": 1}, TypeError, "frozen is 1: expected True or False"),
    ],
)
def test_what_a_group_cannot_be_is_refused(group: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        fastopt.AdamW([{"params": np.ones(2)}, {"params": np.ones(3), **group}])


def test_frozen_groups_cost_nothing_and_are_not_looked_at() -> None:
    still, moving = np.ones(3), np.ones(3)
    groups = [{"params": [still], "frozen": True}, {"params": [moving]}]
    opt = fastopt.AdamW(groups, clip_norm=1.0, on_nonfinite="raise", average=0.9)
    report = opt.step([[np.full(3, np.nan)], [np.full(3, 2.0)]])
    assert report.applied
    assert report.grad_norm == pytest.approx(np.sqrt(12))
    assert opt.step([["nothing at all"], [np.ones(3)]]).step == 2
    assert still.tolist() == [1.0] * 3
    assert [*opt.state] == ["1"]
    assert opt.averages[0] == [None]
    assert opt.groups[0].frozen


def test_frozen_and_rules_go_through_copies() -> None:
    import copy

    opt = fastopt.Adam(
        [{"params": np.ones(3), "frozen": True}, {"params": np.ones(3), "rule": "sgd", "lr": 0.1, "momentum": 0.9}]
    )
    opt.step([np.ones(3), np.ones(3)])
    other = copy.deepcopy(opt)
    for each in (opt, other):
        each.step([np.ones(3), np.ones(3)])
    assert_same_bits(opt, other)
    assert other.groups[0].frozen
    assert other.groups[1].rule is fastopt.SGD


def test_maximize_and_clip_value_are_a_group_s() -> None:
    up, down = np.zeros(1), np.zeros(1)
    opt = fastopt.SGD([{"params": up, "maximize": True, "clip_value": 0.5}, {"params": down}], lr=1.0)
    opt.step([np.full(1, 2.0), np.full(1, 2.0)])
    assert (up[0], down[0]) == (0.5, -2.0)
    assert opt.maximize == (True, False)
    with pytest.raises(ValueError, match="clip_norm and clip_value together"):
        opt.clip_norm = 1.0


@pytest.mark.parametrize("threads", [1, 3])
def test_a_group_clips_by_the_norm_of_its_own_gradients(threads: int, isa: str) -> None:
    rng = np.random.default_rng(3)
    shapes = [[(3000,), (5, 7)], [(40, 90)], [(2500,)]]
    start = [[ordinary(rng, shape, np.float32) for shape in group] for group in shapes]
    grads = [[ordinary(rng, shape, np.float32) for shape in group] for group in shapes]
    grads[1][0] *= np.float32(1e18)
    norms = [math.sqrt(sum(float(np.sum(np.square(g, dtype=np.float64))) for g in group)) for group in grads]

    def made(backend: str) -> fastopt.SGD:
        groups = [{"params": [p.copy() for p in group]} for group in start]
        groups[0]["clip_norm"] = lambda t: norms[0] / (2 + t)  # type: ignore[assignment]
        groups[1]["clip_norm"] = 0.25  # type: ignore[assignment]
        opt = fastopt.SGD(groups, lr=1.0, threads=threads, backend=backend)
        if backend == "c":
            opt._engine.plan.split(1, 1024)
        return opt

    ours, theirs = made("c"), made("numpy")
    for t in range(3):
        grads[0][1] = None if t == 2 else grads[0][1]
        report = ours.step(grads)
        assert report == theirs.step(grads)
        assert_same_bits(ours, theirs)
        if t == 0:
            assert report.grad_norm == pytest.approx(math.hypot(*norms), rel=1e-12)
            for group, before, g, by in zip(ours.groups, start, grads, (0.5, 0.25 / norms[1], 1), strict=True):
                for p, p0, x in zip(group["params"], before, g, strict=True):
                    np.testing.assert_allclose(p0 - p, by * x, rtol=1e-5, atol=1e-6)
    grads[0][0] = None
    assert ours.step(grads) == theirs.step(grads)
    assert_same_bits(ours, theirs)


def test_a_group_s_clip_excludes_the_others_and_is_saved_with_it() -> None:
    opt = fastopt.SGD([{"params": np.ones(3), "clip_norm": 0.5}, {"params": np.ones(2)}], lr=0.1)
    assert [group["clip_norm"] for group in opt.groups] == [0.5, None]
    assert opt.group_clip_norm == (0.5, None)
    for name, value in (("clip_norm", 1.0), ("clip_value", 1.0)):
        with pytest.raises(ValueError, match="together"):
            setattr(opt, name, value)
    with pytest.raises(ValueError, match="clip_norm and group_clip_norm together"):
        fastopt.SGD([{"params": np.ones(3), "clip_norm": 0.5}], lr=0.1, clip_norm=1.0)
    with pytest.raises(ValueError, match=r"clip_norm.* is 0"):
        opt.groups[1]["clip_norm"] = 0
    other = fastopt.SGD([{"params": np.ones(3)}, {"params": np.ones(2)}], lr=0.1)
    other.load_state_dict(opt.state_dict())
    assert other.groups[0]["clip_norm"] == 0.5


def test_a_group_of_another_rule_knows_no_option_of_the_class_by_the_same_name() -> None:
    """Adafactor's eps is fixed and a pair, Adam's is a number."""
    p, q = np.ones((2, 3)), np.ones((2, 3))
    opt = fastopt.Adafactor([{"params": np.ones(3)}, {"params": p, "rule": "adam", "lr": 0.1}], momentum=0.5)
    alone = fastopt.Adam(q, lr=0.1)
    for each, g in ((opt, [np.ones(3), np.full((2, 3), 0.5)]), (alone, np.full((2, 3), 0.5))):
        each.step(g)
    assert p.tobytes() == q.tobytes()


@pytest.mark.parametrize("backend", ["c", "numpy"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("rule", ["prodigy", "polyaksgd"])
def test_sums_over_all_tensors_see_no_gradient_that_is_not_finite(rule: str, bad: float, backend: str) -> None:
    """With on_nonfinite=None too: it would go from one tensor to all others. Rules without such sums let it be."""
    mine, good = arrays(), arrays(1)
    opt = fastopt.AdamW([{"params": {"W": mine["W"]}}, {"params": {"b": mine["b"]}, "rule": rule}], backend=backend)
    assert opt.on_nonfinite is None
    norm = fastopt.global_norm(good)
    assert opt.step([{"W": good["W"]}, {"b": good["b"]}], **loss_of(opt)).grad_norm == norm
    assert opt.bytes_per_step == sum(step * a.nbytes for step, a in ((8, mine["W"]), (SIZES[rule], mine["b"])))
    for name in mine:
        g = arrays(2)
        g[name].flat[3] = bad
        before = snapshot(opt)
        with pytest.raises(fastopt.NonFiniteError, match=f"the gradient of {name!r} is {bad}"):
            opt.step([{"W": g["W"]}, {"b": g["b"]}], **loss_of(opt))
        assert (snapshot(opt), opt._engine.skipped) == (before, 0)
        opt.accumulate([{"W": g["W"]}, {"b": g["b"]}], **loss_of(opt))
        with pytest.raises(fastopt.NonFiniteError, match=f"the gradient of {name!r} is {bad}"):
            opt.step()
        opt.discard_accumulated()
    assert opt.step([{"W": good["W"]}, {"b": good["b"]}], **loss_of(opt)).step == 2
    frozen = fastopt.SGD([{"params": mine}, {"params": np.ones(1), "rule": rule, "frozen": True}], 0.1, backend=backend)
    assert frozen.step([{**good, "b": np.full(7, bad)}, None]).grad_norm is None


SIZES = {"prodigy": 12, "polyaksgd": 4}
"""What a step moves of each parameter, in its own size: each array read and written, gradients twice."""


@pytest.mark.parametrize("backend", ["c", "numpy"])
def test_groups_of_prodigy_differ_in_lr_by_0_only(backend: str) -> None:
    ones = [np.ones(2), np.ones(3), np.ones(2)]
    params = copies(ones)
    with pytest.raises(ValueError, match=r"groups 0 and 1 of Prodigy have lr 1\.0 and 0\.5"):
        fastopt.Prodigy([{"params": ones[0]}, {"params": ones[1], "lr": 0.5}])
    fastopt.Prodigy([{"params": ones[0]}, {"params": ones[1], "lr": 0.5, "frozen": True}])
    opt = fastopt.Prodigy([{"params": p} for p in params], backend=backend)
    assert opt.step(ones)
    with pytest.raises(ValueError, match=r"groups 0 and 3 of Prodigy have lr 1\.0 and 0\.25"):
        opt.add_group({"params": np.ones(1), "lr": 0.25})
    before = snapshot(opt)
    opt.groups[1]["lr"] = 0.5
    for _ in range(2):
        with pytest.raises(ValueError, match=r"groups 0 and 1 of Prodigy have lr 1\.0 and 0\.5: they share d"):
            opt.step(ones)
    opt.groups[0]["lr"] = 0.5
    opt.groups[1]["lr"] = 0.0
    with pytest.raises(ValueError, match=r"groups 0 and 2 of Prodigy have lr 0\.5 and 1\.0"):
        opt.step(ones)
    opt.lr = 1.0
    assert snapshot(opt) == before
    assert opt.step(ones)
    # Other schedules that give the same, and then no more.
    opt.groups[1]["lr"] = lambda t: 1.0 if t < 4 else 0.5
    opt.groups[2]["lr"] = lambda t: 0.0 if t == 2 else 1.0
    assert [opt.step(ones).step for _ in range(2)] == [3, 4]
    assert [opt.state[name]["t"] for name in opt.names] == [4, 4, 3]
    before = snapshot(opt)
    with pytest.raises(ValueError, match=r"groups 0 and 1 of Prodigy have lr 1\.0 and 0\.5"):
        opt.step(ones)
    assert snapshot(opt) == before


@pytest.mark.parametrize("threads", [1, 3])
def test_a_group_of_prodigy_with_lr_0_stands_still(threads: int, isa: str) -> None:
    """As if its gradients were None: d is that of the others, and it goes on from where it stood."""
    rng = np.random.default_rng(5)
    start = [ordinary(rng, shape, np.float32) for shape in ((3000,), (40, 30), (7,))]
    given: list[Any] = [{"weight_decay": 0.1}, {"lr": lambda t: 0.0 if t in (0, 2, 3) else 1.0}, {"rule": "lion"}]
    more = {"d0": 0.01, "average": 0.9, "clip_norm": 5.0}

    def made(**more: Any) -> fastopt.Prodigy:
        groups = [{"params": p.copy(), **own} for p, own in zip(start, given, strict=True)]
        return fastopt.Prodigy(groups, **more)

    ours, theirs, missing = made(threads=threads, **more), made(backend="numpy", **more), made(**more)
    ours._engine.plan.split(1, 1024)
    missing.groups[1]["lr"] = 1.0
    for t in range(6):
        g = [ordinary(rng, p.shape, np.float32) for p in start]
        report = ours.step(g)
        assert report == theirs.step(g)
        assert report == missing.step([g[0], None if t in (0, 2, 3) else g[1], g[2]])
        assert_same_bits(ours, theirs)
        assert_same_bits(ours, missing)
        assert ours.scalars == theirs.scalars == missing.scalars
    assert [ours.state[name]["t"] for name in ours.names] == [6, 3, 6]
    ours.groups[1]["lr"] = 0.0
    with pytest.raises(ValueError, match="has shape"):
        ours.step([g[0], g[1][1:], g[2]])
    assert not ours.step([None, g[1], None])
    # All at 0, as at the end of a schedule, is a step as any.
    ours.lr = 0.0
    assert ours.step([g[0], g[1], None]).step == 7
    assert [ours.state[name]["t"] for name in ours.names] == [7, 4, 6]


def test_prodigy_takes_back_a_first_step_of_zeros() -> None:
    p = np.ones(4)
    opt = fastopt.Prodigy([p])
    assert not opt.step([np.zeros(4)])
    assert (opt.t, opt.state["0"]["t"], p.tolist()) == (0, 0, [1.0] * 4)
    assert opt.step([np.ones(4)])
    assert opt.scalars["d_max"] >= opt.scalars["d"]


@pytest.mark.parametrize("rule", ["adamw", "lamb", "adafactor"])
def test_asking_for_memory_ahead_changes_no_bit(rule: str, isa: str) -> None:
    found = []
    for ahead in (0, 1):
        _core.prefetch(ahead)
        try:
            p = np.random.default_rng(0).standard_normal((70, 131)).astype(np.float32)
            opt = {"adamw": fastopt.AdamW, "lamb": fastopt.LAMB, "adafactor": fastopt.Adafactor}[rule]([p], average=0.9)
            for k in range(3):
                opt.step([np.random.default_rng(k).standard_normal((70, 131)).astype(np.float32)])
        finally:
            _core.prefetch(-1)
        found.append(p.tobytes() + opt.averages[0].tobytes())
    assert found[0] == found[1]
