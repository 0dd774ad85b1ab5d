"""Numbers by name, those of a group, as attributes: because formulas read better so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any


class Numbers:
    """Numbers as attributes. Set one by one: CPython reads them faster than those of a SimpleNamespace."""

    def __init__(self, *parts: Mapping[str, Any]) -> None:
        for part in parts:
            for name, x in part.items():
                setattr(self, name, x)

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...


class Noted:
    """Numbers that note which of them are read."""

    def __init__(self, numbers: Numbers) -> None:
        self._numbers, self.read = numbers, set[str]()

    def __getattr__(self, name: str) -> Any:
        self.read.add(name)
        return getattr(self._numbers, name)
