"""Steps that are skipped: what a report says of them, and the error after too many in a row."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastopt
from tests.lockstep import copies, snapshot

FINE = {"W": np.ones((2, 2)), "b": np.ones(2)}
BAD = {"W": np.array([[1, 1], [np.nan, 1]]), "b": np.ones(2)}
WORDS = r"the gradient of 'W' is nan at index \(1, 0\)"


def make(**options: Any) -> fastopt.Adam:
    return fastopt.Adam(copies(FINE), **{"on_nonfinite": "skip", "max_skips": 2, **options})


every_backend = pytest.mark.parametrize("backend", ["c", "numpy"])


@every_backend
def test_so_many_in_a_row_are_skipped_and_the_next_raises(backend: str) -> None:
    opt = make(backend=backend)
    for row in (2, 1, 2):
        for k in range(row):
            report = opt.step(BAD)
            assert not report.applied
            assert report.skipped == opt._engine.skipped
            assert opt._engine.skipped_in_a_row == k + 1
        # No gradient is no step, and ends no row.
        assert opt.step({"W": None, "b": None}).grad_norm is None
        before, skipped = snapshot(opt), opt._engine.skipped
        if row == 2:
            for _ in range(2):
                with pytest.raises(fastopt.NonFiniteError, match=f"{WORDS}: .*; the 2 steps before it were skipped"):
                    opt.step(BAD)
        assert (snapshot(opt), opt._engine.skipped) == (before, skipped)
        assert opt.step(FINE).applied
        assert opt._engine.skipped_in_a_row == 0
    assert opt.t == 3
    assert opt._engine.skipped == 5


@every_backend
def test_a_report_says_what_was_not_finite(backend: str) -> None:
    opt = make(max_skips=None, backend=backend)
    for _ in range(20):
        report = opt.step(BAD)
    assert isinstance(report, fastopt.Report)
    assert report == fastopt.Report(False, report.grad_norm, 0, 20)
    assert repr(report) == "Report(applied=False, grad_norm=nan, step=0, skipped=20)"
    assert report.nonfinite.startswith("the gradient of 'W' is nan at index (1, 0)")  # type: ignore[attr-defined]
    again = pickle.loads(pickle.dumps(report))
    assert again.nonfinite == report.nonfinite  # type: ignore[attr-defined]
    assert type(opt.step(FINE)) is fastopt.Report
    assert type(opt.step({"W": None, "b": None})) is fastopt.Report


def test_what_was_accumulated_raises_too_and_stays() -> None:
    opt = make(max_skips=1)
    for _ in range(2):
        opt.accumulate(FINE)
        opt.accumulate(BAD)
        if opt._engine.skipped:
            with pytest.raises(fastopt.NonFiniteError, match=WORDS):
                opt.step()
        else:
            assert WORDS.split(" at")[0] in opt.step().nonfinite  # type: ignore[attr-defined]
    assert opt._engine.accumulated.batches == 2
    opt.discard_accumulated()
    assert opt.step(FINE).applied


def test_sam_gives_up_as_its_optimizer_does() -> None:
    sam = fastopt.SAM(make(), rho=0.1)
    assert [sam.step(lambda: BAD).skipped for _ in range(2)] == [1, 2]
    with pytest.raises(fastopt.NonFiniteError, match=f"{WORDS}: .*; the 2 steps"):
        sam.step(lambda: BAD)


def by_dict(opt: Any, other: Any, path: Path) -> Any:
    other.load_state_dict(opt.state_dict())
    return other


def by_file(opt: Any, other: Any, path: Path) -> Any:
    opt.save(path)
    other.load(path)
    return other


@pytest.mark.parametrize(
    "through",
    [
        by_dict,
        by_file,
        lambda opt, other, path: pickle.loads(pickle.dumps(opt)),
        lambda opt, other, path: copy.deepcopy(opt),
    ],
    ids=["dict", "file", "pickle", "copy"],
)
@pytest.mark.parametrize("row", [0, 1, 2])
def test_a_saved_run_goes_on_counting(through: Any, row: int, tmp_path: Path) -> None:
    opt, other = make(), make(max_skips=9)
    opt.step(BAD)
    opt.step(FINE)
    other.step(FINE)
    other.step(BAD)
    for _ in range(row):
        opt.step(BAD)
    other = through(opt, other, tmp_path / "saved")
    assert (other.max_skips, other._engine.skipped_in_a_row, other._engine.skipped) == (2, row, row + 1)
    for _ in range(2 - row):
        other.step(BAD)
    with pytest.raises(fastopt.NonFiniteError, match=WORDS):
        other.step(BAD)
    assert other.step(FINE).applied


def test_the_limit_can_be_changed() -> None:
    opt = make(max_skips=None)
    for _ in range(5):
        opt.step(BAD)
    opt.max_skips = 5
    with pytest.raises(fastopt.NonFiniteError, match="the 5 steps before it"):
        opt.step(BAD)
    opt.max_skips = 6
    assert opt.step(BAD).skipped == 6
    with pytest.raises(ValueError, match="max_skips is 0: expected a whole number, 1 or larger"):
        opt.max_skips = 0
    with pytest.raises(TypeError, match=r"max_skips is 1\.5"):
        opt.max_skips = 1.5  # type: ignore[assignment]


@pytest.mark.parametrize("policy", [None, "raise"])
def test_a_limit_of_skips_needs_skips(policy: Any) -> None:
    with pytest.raises(ValueError, match=f"max_skips=3 with on_nonfinite={policy!r}, which skips no step"):
        fastopt.SGD([np.ones(1)], lr=0.1, max_skips=3, on_nonfinite=policy)


def test_a_row_longer_than_all_skips_is_refused() -> None:
    opt = make()
    saved = opt.state_dict()
    with pytest.raises(ValueError, match="skipped_in_a_row is 1, more than the 0 in all"):
        opt.load_state_dict({**saved, "skipped_in_a_row": 1})
    with pytest.raises(ValueError, match="skipped_in_a_row is True: expected a count"):
        opt.load_state_dict({**saved, "skipped_in_a_row": True})
