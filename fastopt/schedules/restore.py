"""Schedules that come back with an optimizer's state, while the user's ReduceOnPlateau objects stay live."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fastopt.schedules.base import NamedSchedule
from fastopt.schedules.config import from_config
from fastopt.schedules.formulas import warmup
from fastopt.schedules.plateau import ReduceOnPlateau

if TYPE_CHECKING:
    from fastopt.core import _core


class Restored:
    """The schedules of one saved state, made again. Nothing that was there before changes: that is for `values`."""

    def __init__(self) -> None:
        self._plateaus: list[tuple[str, ReduceOnPlateau | None, ReduceOnPlateau]] = []

    def schedule(self, name: str, mine: Any, config: Mapping[str, Any]) -> NamedSchedule:
        """What `config` describes, for the hyperparameter of this name, whose value is now `mine`. A ReduceOnPlateau in
        it is `mine`'s own object where there is one. Raises ValueError, naming the hyperparameter."""
        try:
            made = from_config(config)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        saved, own = _plateau_in(made), _plateau_in(mine)
        if saved is not None:
            self._plateaus.append((name, own, saved))
            if own is not None:
                return _with_plateau(made, own)
        return made

    def problems(self) -> list[str]:
        """Where it is not clear which object a saved ReduceOnPlateau belongs to."""
        found = []
        new = [name for name, own, _ in self._plateaus if own is None]
        if len(new) > 1:
            found.append(
                f"{', '.join(new)} followed a ReduceOnPlateau: make this optimizer with one or several, then load"
            )
        states: dict[int, str] = {}
        for name, own, saved in self._plateaus:
            # As text: 0.0 and -0.0 are equal and not the same.
            state = repr(saved.state_dict())
            if own is not None and states.setdefault(id(own), state) != state:
                found.append(f"{name} follows a ReduceOnPlateau here for which two different states were saved")
        return found

    def values(self) -> _core.Values:
        """The attributes to be published."""
        return [(own, "__dict__", {**vars(saved)}) for _, own, saved in self._plateaus if own is not None]


def _plateau_in(schedule: Any) -> ReduceOnPlateau | None:
    """The ReduceOnPlateau that this is, or that a warm-up leads to."""
    while isinstance(schedule, warmup):
        schedule = schedule.then
    return schedule if isinstance(schedule, ReduceOnPlateau) else None


def _with_plateau(schedule: Any, plateau: ReduceOnPlateau) -> NamedSchedule:
    if isinstance(schedule, warmup):
        return replace(schedule, then=_with_plateau(schedule.then, plateau))
    return plateau
