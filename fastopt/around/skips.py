"""Steps that were skipped because a gradient was not finite: what it was, and when so many in a row are too many."""

from __future__ import annotations

from typing import Any

from fastopt.base.arguments import whole
from fastopt.base.nonfinite import NonFiniteError, first_nonfinite
from fastopt.engine.engine import Engine, Report


class SkippedReport(Report):
    """The report of a skipped step. `nonfinite` says what was not finite: which tensor, and where in it."""

    nonfinite: str

    def __repr__(self) -> str:
        return repr(Report(*self))


class SkippingEngine(Engine):
    """An engine that says what it skips, and gives up after `max_skips` in a row.

    nonfinite : what was not finite in the step that is being skipped, for its report; None between steps.
    skipping_since : how many steps had been applied and how many skipped when the last row of skips began.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.nonfinite: str | None = None
        self.skipping_since = 0, 0

    @property
    def skipped_in_a_row(self) -> int:
        """How many were skipped since the last that was applied."""
        t, skipped = self.skipping_since
        return self.skipped - skipped if t == self.t else 0

    def refuse(self) -> None:
        if self.options["on_nonfinite"] != "skip":
            super().refuse()
        found, row, most = first_nonfinite(self.plan, self.loss), self.skipped_in_a_row, self.options["max_skips"]
        if most is not None and row >= most:
            raise NonFiniteError(f"{found}; {too_many(row)}")
        # The core counts it after this; should a signal come between, the same is written once more.
        self.skipping_since = self.t, self.skipped - row
        self.nonfinite = found


def too_many(row: int) -> str:
    steps = "step before it was" if row == 1 else f"{row} steps before it were"
    return f"the {steps} skipped for the like, as many in a row as max_skips allows"


def told(engine: SkippingEngine, report: Report) -> Report:
    """The report of a step with what was not finite in it."""
    nonfinite, engine.nonfinite = engine.nonfinite, None
    if report.applied or nonfinite is None:
        return report
    skipped = SkippedReport(*report)
    skipped.nonfinite = nonfinite
    return skipped


def count_or_none(name: str, value: Any) -> int | None:
    return None if value is None else whole(name, value)
