"""state_dict and load_state_dict: what is saved continues to the bit, and what does not fit changes nothing."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import fastopt
from tests.cases import CASES, Case, ordinary
from tests.lockstep import assert_same_bits, copies, snapshot


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
        opt.step(g)
    saved = pickle.loads(pickle.dumps(opt.state_dict()))
    restored = case.make(copies(opt._plan.template), backend=backend)
    restored.load_state_dict(saved)
    assert_same_bits(opt, restored)
    for _ in range(3):
        g = gradients(rng, dtype)
        assert opt.step(g) == restored.step(g)
    assert_same_bits(opt, restored)


def test_a_state_dict_is_a_snapshot() -> None:
    opt = fastopt.Adam([np.ones(3)], average=0.9)
    opt.step([np.ones(3)])
    saved = opt.state_dict()
    before = pickle.dumps(saved)
    opt.step([np.ones(3)])
    opt.lr = 0.5
    assert pickle.dumps(saved) == before


def test_numbers_come_back_as_saved_and_schedules_stay() -> None:
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
    "a broken count": (edit("state/W/t", 1.5), "'t' of 'W' is 1.5"),
    "a missing parameter": (edit("state/W", ...), "missing: \\['W'\\]"),
    "an extra parameter": (edit("state/x", {}), "not known here: \\['x'\\]"),
    "a missing buffer": (edit("state/W/m", ...), "missing: \\['m'\\]"),
    "an extra buffer": (edit("state/W/z", 1), "not known here: \\['z'\\]"),
    "another shape": (edit("state/W/m", np.ones((2, 2))), r"'m' of 'W' is float64 \(2, 2\)"),
    "another dtype": (edit("state/W/m", np.ones(3, np.float32)), "'m' of 'W' is float32"),
    "no array": (edit("state/W/m", [1.0, 1.0, 1.0]), "'m' of 'W' is"),
    "no averages": (edit("averages", {}), "averages of parameters missing"),
    "another average": (edit("averages/W", np.ones(4)), r"the average of 'W' is float64 \(4,\)"),
    "a missing hyperparameter": (edit("groups/0/lr", ...), "missing: \\['lr'\\]"),
    "a value outside its domain": (edit("groups/0/lr", -1.0), "lr is -1.0"),
    "a schedule that is not here": (edit("groups/0/lr", "schedule"), "lr followed a schedule"),
    "other groups": (edit("groups", []), "it has 0 groups"),
    "other names": (edit("groups/0/names", ("V", "b")), "other parameters"),
    "a bad option": (edit("options/clip_norm", 0.0), "clip_norm is 0.0"),
    "options that exclude each other": (edit("options/clip_value", 1.0), "clip"),
    "a bad policy": (edit("options/on_nonfinite", "explode"), "on_nonfinite is 'explode'"),
    "a bad switch": (edit("options/maximize", 2), "maximize is 2"),
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
