"""A scale for losses whose gradients are computed in half precision."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from fastopt.around.skips import SkippedReport, count_or_none, too_many
from fastopt.base.arguments import SCALES, inside_0_1, number, scale_in_range, shown, whole, within
from fastopt.base.nonfinite import NonFiniteError
from fastopt.core import _core
from fastopt.engine.engine import Report

CONSTANTS = "growth_factor", "backoff_factor", "growth_interval", "max_skips"
LATER = {"skipped": 0, "max_skips": None}
"""What a state of 0.1.0 has not."""


class LossScaler:
    """The factor that a loss is multiplied by, so that gradients of half precision do not vanish: as large as it can be
    without overflow, found as in torch.amp.GradScaler (Micikevicius et al., 2018).

    It is halved by every step that overflowed, and doubled after so many steps in a row that did not.

    init_scale : from 2**-126 to 2**126, the range that it stays in. Default 2**16.
    growth_factor, backoff_factor : > 1, and in (0, 1). Defaults 2 and 0.5: powers of two lose no bit of the gradients.
    growth_interval : steps applied in a row before it grows, >= 1. Default 2000.
    max_skips : steps in a row that may have overflowed: `update` raises NonFiniteError at the next, and says what was
        not finite. >= 1. Default None, no end.

        scaler = fastopt.LossScaler()
        opt = fastopt.AdamW(params, on_nonfinite="skip")
        grads = gradients_of(scaler.scale * loss)       # cast to float32
        scaler.update(opt.step(grads, grad_scale=scaler.scale))
    """

    __slots__ = ("_now", "backoff_factor", "growth_factor", "growth_interval", "max_skips")

    def __init__(
        self,
        init_scale: float = 2.0**16,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        max_skips: int | None = None,
    ) -> None:
        # The scale, and the steps in a row that were applied and that were skipped: one object, so that an interrupt
        # cannot come between them.
        self._now = scale_in_range(init_scale, "init_scale"), 0, 0
        self.growth_factor = number("growth_factor", growth_factor)
        if not 1 < self.growth_factor < math.inf:
            raise ValueError(f"growth_factor is {self.growth_factor!r}: expected a finite number larger than 1")
        self.backoff_factor = within("backoff_factor", backoff_factor, inside_0_1)
        self.growth_interval = whole("growth_interval", growth_interval, 1)
        self.max_skips = count_or_none("max_skips", max_skips)

    @property
    def scale(self) -> float:
        """What to multiply the next loss by, and to give to the step as `grad_scale`."""
        return self._now[0]

    def update(self, report: Report) -> None:
        """Takes note of a step's report: call it after every step, whose optimizer has on_nonfinite="skip".

        A step without any gradient changes nothing. Raises NonFiniteError as `max_skips` says; the scale is then as it
        was.
        """
        if not isinstance(report, Report):
            raise TypeError(f"report is {shown(report)}: expected what opt.step returned")
        if report.grad_norm is None:
            if report.applied:
                raise ValueError(
                    "report is of an optimizer that does not check its gradients: give it on_nonfinite='skip'"
                )
            return
        scale, applied, skipped = self._now
        if not report.applied:
            if self.max_skips is not None and skipped >= self.max_skips:
                found = f"the norm of the gradients is {report.grad_norm}: the step was not applied"
                found = report.nonfinite if isinstance(report, SkippedReport) else found
                raise NonFiniteError(f"{found}; {too_many(skipped)}; the scale of the loss was {scale:g}")
            self._now = max(scale * self.backoff_factor, SCALES[0]), 0, skipped + 1
        elif applied + 1 < self.growth_interval:
            self._now = scale, applied + 1, 0
        else:
            self._now = min(scale * self.growth_factor, SCALES[1]), 0, 0

    def state_dict(self) -> dict[str, Any]:
        """A dict of plain numbers: the scale, the steps in a row that were applied and skipped, and the constants."""
        scale, applied, skipped = self._now
        return {
            "scale": scale,
            "applied": applied,
            "skipped": skipped,
            "growth_factor": self.growth_factor,
            "backoff_factor": self.backoff_factor,
            "growth_interval": self.growth_interval,
            "max_skips": self.max_skips,
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Takes over what `state_dict` gave, the constants too; raises ValueError before anything is changed."""
        if isinstance(saved, Mapping) and saved.keys() == self.state_dict().keys() - LATER.keys():
            saved = {**saved, **LATER}
        if not isinstance(saved, Mapping) or saved.keys() != self.state_dict().keys():
            raise ValueError(f"saved is no state of a LossScaler: expected a dict with {', '.join(self.state_dict())}")
        try:
            constants = {name: saved[name] for name in CONSTANTS}
            other = LossScaler(saved["scale"], **constants)
            now = other.scale, *(whole(name, saved[name], 0) for name in ("applied", "skipped"))
        except (TypeError, ValueError) as error:
            raise ValueError(f"saved does not fit: {error}") from None
        own = {name: getattr(other, name) for name in constants}
        _core.publish([], [(self, name, x) for name, x in {**own, "_now": now}.items()])

    def __repr__(self) -> str:
        scale, applied, _ = self._now
        return f"LossScaler(scale={scale:g}, {applied} steps applied since it changed)"
