"""What outlives an optimizer: its state as a dict, in a file, pickled and copied."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar

from fastopt.saving import file as checkpoint
from fastopt.saving import pickling as copying
from fastopt.saving import state_dict as state

LOADING = "a state is being loaded: do this after it"


class Persistent:
    """The part of every optimizer that saves, loads and copies it."""

    __slots__ = ()

    _parts: ClassVar[Mapping[str, Any]] = {}
    """What else a checkpoint holds, by its name there: objects with save, check, loaded and held of an engine."""

    def _held(self: Any, why: str, function: Callable[..., None], *args: Any) -> None:
        """function(*args) while nobody changes a part."""
        for part in self._parts.values():
            function = partial(part.held, self._engine, why, function)
        function(*args)

    def state_dict(self: Any) -> dict[str, Any]:
        """A copy of everything that the next step depends on but the parameters: counts, state, averages and
        hyperparameters, built-in schedules by name and arguments. Of a callable of your own only the fact is in it: the
        optimizer that loads it brings its own."""
        found: dict[str, Any] = self._engine.plan.read(state.save, self)
        return found

    def load_state_dict(self: Any, saved: Mapping[str, Any]) -> None:
        """Takes over what `state_dict` gave, matched by name.

        Raises ValueError, with everything that does not fit in one message, before anything is changed; a signal, such
        as a KeyboardInterrupt, comes before or after all of the change.
        Numbers and built-in schedules come back as saved, into this optimizer's own ReduceOnPlateau where it has one;
        where a callable of the user's own was saved, this optimizer must have one."""
        self._engine.plan.during(LOADING, self._held, LOADING, state.load, self, saved)

    def save(self: Any, path: str | os.PathLike[str]) -> None:
        """Writes `state_dict()` to one file in the safetensors format. A crash leaves the old file or the new one.

        Raises OSError where the file cannot be written."""
        self._engine.plan.read(lambda: checkpoint.save(path, state.save(self, live=True), self.names))

    def load(self: Any, path: str | os.PathLike[str]) -> None:
        """Takes over what `save` wrote, as `load_state_dict` does. Nothing in the file is run.

        Raises ValueError for a file that is damaged, newer or does not fit, before anything is changed."""
        take = partial(self._held, LOADING, state.load, self)
        self._engine.plan.during(LOADING, checkpoint.load, path, self.names, partial(state.check, self), take)

    def __reduce_ex__(self: Any, protocol: Any) -> Any:
        return copying.reduce(self)

    def __setstate__(self: Any, saved: Any) -> None:
        copying.restore(self, saved)
