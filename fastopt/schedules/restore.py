"""Schedules that come back with an optimizer's state, while the user's ReduceOnPlateau objects stay live."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from fastopt.schedules.base import NamedSchedule
from fastopt.schedules.composed import joined, warmup
from fastopt.schedules.config import from_config
from fastopt.schedules.plateau import ReduceOnPlateau

if TYPE_CHECKING:
    from fastopt.core import _core


class Restored:
    """The schedules of one saved state, made again. Nothing that was there before changes: that is for `values`."""

    def __init__(self) -> None:
        self._plateaus: list[tuple[str, ReduceOnPlateau | None, ReduceOnPlateau]] = []

    def schedule(self, name: str, mine: Any, config: Mapping[str, Any]) -> NamedSchedule:
        """What `config` describes, for the hyperparameter of this name, whose value is now `mine`. The first
        ReduceOnPlateau in it is `mine`'s own first object, and so on, where there is one. Raises ValueError, naming
        the hyperparameter."""
        try:
            made = from_config(config)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        saved = list(plateaus_in(made))
        pairs = list(zip_longest(list(plateaus_in(mine))[: len(saved)], saved))
        self._plateaus += [(name, own, theirs) for own, theirs in pairs]
        return _with_plateaus(made, iter([own or theirs for own, theirs in pairs]))

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


def plateaus_in(schedule: Any) -> Iterator[ReduceOnPlateau]:
    """The ReduceOnPlateau that this is, or those that it is made of, in order."""
    if isinstance(schedule, ReduceOnPlateau):
        yield schedule
    elif isinstance(schedule, warmup):
        yield from plateaus_in(schedule.then)
    elif isinstance(schedule, joined):
        for piece in schedule.schedules:
            yield from plateaus_in(piece)


def _with_plateaus(schedule: Any, plateaus: Iterator[ReduceOnPlateau]) -> NamedSchedule:
    """The same schedule with these for its own, in order."""
    if isinstance(schedule, ReduceOnPlateau):
        return next(plateaus)
    if isinstance(schedule, warmup):
        return replace(schedule, then=_with_plateaus(schedule.then, plateaus))
    if isinstance(schedule, joined):
        return replace(schedule, schedules=[_with_plateaus(piece, plateaus) for piece in schedule.schedules])
    made: NamedSchedule = schedule
    return made
