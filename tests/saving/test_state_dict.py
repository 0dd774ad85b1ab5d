"""state_dict and load_state_dict: what is saved continues to the bit, and what does not fit changes nothing."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import fastopt
from fastopt import schedules
from tests.cases import CASES, Case, ordinary
from tests.lockstep import assert_same_bits, copies, loss_of, snapshot


def gradients(rng: np.random.Generator, dtype: Any) -> Any:
    return {"W": ordinary(rng, (5, 7), dtype), "b": [ordinary(rng, 3, dtype), ordinary(rng, 1100, dtype)]}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("backend", ["c", "numpy"])
def test_a_restored_run_is_the_same_run(case: Case, dtype: Any, backend: str) -> None:
    rng = np.random.default_rng(0)
    opt = case.make(gradients(rng, dtype))
    for k in range(4):
        g = gradients(rng, dtype)
        if k == 2:
            g["b"][0] = None
        opt.step(g, **loss_of(opt))
    saved = pickle.loads(pickle.dumps(opt.state_dict()))
    restored = case.make(copies(opt._engine.plan.template), backend=backend)
    restored.load_state_dict(saved)
    assert_same_bits(opt, restored)
    for _ in range(3):
        g = gradients(rng, dtype)
        assert opt.step(g, **loss_of(opt)) == restored.step(g, **loss_of(restored))
    assert_same_bits(opt, restored)


def test_a_state_dict_is_a_snapshot() -> None:
    opt = fastopt.Adam([np.ones(3)], average=0.9)
    opt.step([np.ones(3)])
    saved = opt.state_dict()
    before = pickle.dumps(saved)
    opt.step([np.ones(3)])
    opt.lr = 0.5
    assert pickle.dumps(saved) == before


def test_numbers_come_back_as_saved_and_own_schedules_stay() -> None:
    opt = fastopt.AdamW([np.ones(3)], lr=lambda t: 0.5, betas=(0.8, lambda t: 0.9), clip_norm=1.0, maximize=True)
    opt.groups[0]["weight_decay"] = 0.25
    saved = opt.state_dict()

    def lr(t: int) -> float:
        return 0.25

    other = fastopt.AdamW([np.ones(3)], lr=lr, betas=(0.1, lambda t: 0.2))
    other.load_state_dict(saved)
    assert other.lr is lr
    assert other.betas[0] == 0.8
    assert other.weight_decay == 0.25
    assert other.clip_norm == 1.0
    assert other.maximize is True


def test_built_in_schedules_come_back_as_saved() -> None:
    cosine, cycle = schedules.cosine(0.5, 10, eta_min=0.1), schedules.one_cycle(0.1, 10)
    lr = schedules.warmup(3, cosine)
    p = np.ones(3)
    opt = fastopt.AdamW([p], lr=lr, betas=(cycle.momentum, 0.9), clip_norm=cosine)
    opt.step([np.ones(3)])
    saved = opt.state_dict()
    assert saved["groups"][0]["lr"] == schedules.to_config(lr)
    other = fastopt.AdamW([p.copy()], lr=lambda t: 0.25, weight_decay=cosine, clip_norm=1.0)
    other.load_state_dict(pickle.loads(pickle.dumps(saved)))
    assert (other.lr, other.betas, other.clip_norm, other.weight_decay) == (lr, opt.betas, cosine, 0.01)
    for _ in range(14):
        opt.step([np.ones(3)])
        other.step([np.ones(3)])
    assert_same_bits(opt, other)


def plateau(**changes: Any) -> schedules.ReduceOnPlateau:
    return schedules.ReduceOnPlateau(**{"v": 0.5, "factor": 0.5, "patience": 1, **changes})


def test_a_plateau_comes_back_in_the_object_that_the_user_holds() -> None:
    lr, p = plateau(), np.ones(3)
    opt = fastopt.SGD([p], lr=lr)
    for metric in (1, 1, 1, 2):
        opt.step([np.ones(3)])
        lr.update(metric)
    assert lr.value == 0.25
    saved = pickle.loads(pickle.dumps(opt.state_dict()))
    mine = plateau(v=0.1, patience=7)
    other = fastopt.SGD([p.copy()], lr=mine)
    other.load_state_dict(saved)
    assert other.lr is mine
    assert mine.state_dict() == lr.state_dict()
    for metric in (2, 0.5, 1, 1, 1, 1):
        assert lr.update(metric) == mine.update(metric)
        opt.step([np.ones(3)])
        other.step([np.ones(3)])
    assert lr.value == 0.03125
    assert_same_bits(opt, other)


def test_a_plateau_comes_back_inside_a_warmup_and_of_other_hyperparameters() -> None:
    lr, l2, beta = plateau(), plateau(), plateau()
    for metric in (1, 1, 1):
        lr.update(metric)
    beta.update(3)
    saved = fastopt.Adam([np.ones(3)], lr=schedules.warmup(5, lr), l2=l2, betas=(beta, 0.9)).state_dict()
    mine = plateau(), plateau(), plateau()
    other = fastopt.Adam([np.ones(3)], lr=mine[0], l2=schedules.warmup(9, mine[1]), betas=(mine[2], 0.1))
    other.load_state_dict(saved)
    assert [x.state_dict() for x in mine] == [x.state_dict() for x in (lr, l2, beta)]
    assert repr(other.lr) == repr(schedules.warmup(5, lr))
    assert other.lr.then is mine[0]  # type: ignore[union-attr]
    assert other.l2 is mine[1]
    assert other.betas == (mine[2], 0.9)


def test_a_plateau_comes_back_as_a_new_one_where_there_was_none() -> None:
    lr = plateau()
    lr.update(1)
    saved = fastopt.Adam([np.ones(3)], lr=lr).state_dict()
    other = fastopt.Adam([np.ones(3)])
    other.load_state_dict(saved)
    assert other.lr is not lr
    assert other.lr.state_dict() == lr.state_dict()  # type: ignore[union-attr]


def two_groups(*lrs: Any) -> fastopt.Adam:
    return fastopt.Adam([{"params": [np.ones(3)], "lr": lr} for lr in lrs])


def test_groups_share_a_plateau_after_loading_as_before() -> None:
    lr, mine = plateau(), plateau()
    lr.update(1)
    other = two_groups(mine, mine)
    other.load_state_dict(two_groups(lr, lr).state_dict())
    assert other.lr is mine
    assert mine.best == 1


def test_zeros_of_two_signs_are_two_states_of_a_plateau() -> None:
    signed = [fastopt.schedules.ReduceOnPlateau(0.1, min_value=zero) for zero in (0.0, -0.0)]
    mine = plateau()
    with pytest.raises(ValueError, match="two different states"):
        two_groups(mine, mine).load_state_dict(two_groups(*signed).state_dict())


def test_plateaus_that_cannot_be_told_apart_change_nothing() -> None:
    first, second, mine = plateau(), plateau(), plateau()
    second.update(1)
    mine.update(2)
    before = mine.state_dict()
    saved = two_groups(first, second).state_dict()
    opt = two_groups(mine, mine)
    with pytest.raises(ValueError, match="lr follows a ReduceOnPlateau here for which two different states were saved"):
        opt.load_state_dict(saved)
    with pytest.raises(ValueError, match="lr, lr followed a ReduceOnPlateau: make this optimizer with one or several"):
        two_groups(0.1, 0.1).load_state_dict(saved)
    saved["groups"][1]["lr"] = saved["groups"][0]["lr"]
    saved["options"]["clip_norm"] = -1.0
    with pytest.raises(ValueError, match="clip_norm"):
        opt.load_state_dict(saved)
    assert mine.state_dict() == before
    assert opt.lr is mine


def test_a_warmup_of_an_own_schedule_stays() -> None:
    def own(t: int) -> float:
        return 0.1

    saved = fastopt.Adam([np.ones(3)], lr=schedules.warmup(5, own)).state_dict()
    assert saved["groups"][0]["lr"] == "schedule"
    mine = schedules.warmup(7, own)
    other = fastopt.Adam([np.ones(3)], lr=mine)
    other.load_state_dict(saved)
    assert other.lr is mine


@pytest.mark.parametrize("mine", [schedules.cosine(0.1, 10), schedules.warmup(3, plateau())], ids=repr)
def test_a_built_in_schedule_does_not_stand_in_for_an_own_one(mine: Any) -> None:
    saved = fastopt.Adam([np.ones(3)], lr=lambda t: 0.1).state_dict()
    other = fastopt.Adam([np.ones(3)], lr=mine)
    before = snapshot(other)
    with pytest.raises(ValueError, match="lr followed a schedule of your own"):
        other.load_state_dict(saved)
    assert other.lr is mine
    assert snapshot(other) == before


def edit(path: str, value: Any) -> Any:
    """A change of one entry of a state dict; a value of Ellipsis removes it."""

    def apply(saved: Any) -> None:
        *parents, last = path.split("/")
        for key in parents:
            saved = saved[int(key) if isinstance(saved, list) else key]
        if value is ...:
            del saved[last]
        else:
            saved[last] = value

    return apply


MISFITS = {
    "another optimizer": (edit("optimizer", "SGD"), "it is the state of SGD"),
    "another convention": (edit("fixed/amsgrad", True), "amsgrad=True"),
    "a missing convention": (edit("fixed/eps_hat", ...), "eps_hat=None"),
    "no count": (edit("t", -1), "t is -1"),
    "no count of skipped steps": (edit("skipped", True), "skipped is True"),
    "a broken count": (edit("state/W/t", 1.5), "'t' of 'W' is 1.5"),
    "a missing parameter": (edit("state/W", ...), "missing: \\['W'\\]"),
    "an extra parameter": (edit("state/x", {}), "not known here: \\['x'\\]"),
    "a missing buffer": (edit("state/W/m", ...), "missing: \\['m'\\]"),
    "an extra buffer": (edit("state/W/z", 1), "not known here: \\['z'\\]"),
    "another shape": (edit("state/W/m", np.ones((2, 2))), r"'m' of 'W' is float64 \(2, 2\)"),
    "another dtype": (edit("state/W/m", np.ones(3, np.float32)), "'m' of 'W' is float32"),
    "no array": (edit("state/W/m", [1.0, 1.0, 1.0]), "'m' of 'W' is"),
    "a masked array": (edit("state/W/m", np.ma.masked_array(np.ones(3), [True, False, True])), "'m' of 'W' is masked"),
    "no averages": (edit("averages", {}), "averages of parameters missing"),
    "another average": (edit("averages/W", np.ones(4)), r"the average of 'W' is float64 \(4,\)"),
    "a missing hyperparameter": (edit("groups/0/lr", ...), "missing: \\['lr'\\]"),
    "a value outside its domain": (edit("groups/0/lr", -1.0), "lr is -1.0"),
    "a schedule that is not here": (edit("groups/0/lr", "schedule"), "lr followed a schedule"),
    "an unknown schedule": (
        edit("groups/0/lr", {"name": "x", "arguments": {}}),
        "lr: config is not that of a schedule: .*'x'",
    ),
    "a schedule for a pair": (
        edit("groups/0/betas", schedules.to_config(schedules.constant(0.5))),
        "betas is constant",
    ),
    "other groups": (edit("groups", []), "it has 0 groups"),
    "other names": (edit("groups/0/names", ("V", "b")), "other parameters"),
    "a bad option": (edit("options/clip_norm", 0.0), "clip_norm is 0.0"),
    "options that exclude each other": (edit("groups/0/clip_value", 1.0), "clip"),
    "a bad policy": (edit("options/on_nonfinite", "explode"), "on_nonfinite is 'explode'"),
    "a bad switch": (edit("groups/0/maximize", 2), "maximize is 2"),
    "no average": (edit("options/average", None), "average"),
}


@pytest.mark.parametrize("what", MISFITS)
def test_what_does_not_fit_changes_nothing(what: str) -> None:
    change, words = MISFITS[what]
    opt = fastopt.Adam({"W": np.ones(3), "b": np.ones(2)}, clip_norm=1.0, average=0.5)
    opt.step({"W": np.ones(3), "b": np.ones(2)})
    saved = copy.deepcopy(opt.state_dict())
    opt.step({"W": np.ones(3), "b": np.ones(2)})
    opt.lr = 0.25
    change(saved)
    before, shown = snapshot(opt), repr(opt)
    with pytest.raises(ValueError, match=words):
        opt.load_state_dict(saved)
    assert snapshot(opt) == before
    assert repr(opt) == shown


@pytest.mark.parametrize("junk", [None, 5, [], {}, {"t": 1}, "state"])
def test_junk_is_refused(junk: Any) -> None:
    opt = fastopt.Adam([np.ones(3)])
    with pytest.raises(ValueError, match="not a state dict"):
        opt.load_state_dict(junk)


def test_everything_that_does_not_fit_is_listed_at_once() -> None:
    saved = fastopt.Adam({"W": np.ones(3), "b": np.ones(2)}).state_dict()
    saved["state"]["W"]["m"] = np.ones(4)
    saved["state"]["b"]["v"] = np.ones(4, np.float32)
    with pytest.raises(ValueError, match=r"(?s)'m' of 'W'.*'v' of 'b'"):
        fastopt.Adam({"W": np.ones(3), "b": np.ones(2)}).load_state_dict(saved)


def test_live_arrays_that_change_places_are_loaded_as_they_were() -> None:
    opt = fastopt.Adam([np.zeros(2), np.zeros(2)], average=0.5)
    opt.step([np.ones(2), np.full(2, 2.0)])
    before, own = opt.state_dict(), opt.state
    opt.load_state_dict({**before, "state": {"0": own["1"], "1": {**own["0"], "m": own["0"]["m"][:]}}})
    for name, other in ("0", "1"), ("1", "0"):
        for buffer in "m", "v":
            assert np.array_equal(opt.state[name][buffer], before["state"][other][buffer])
    mean = fastopt.RunningMean({"a": np.zeros(2), "b": np.ones(2)})
    mean.load_state_dict({"count": 1, "averages": {"a": mean.averages["b"], "b": mean.averages["a"]}})
    assert (mean.averages["a"][0], mean.averages["b"][0]) == (1, 0)
