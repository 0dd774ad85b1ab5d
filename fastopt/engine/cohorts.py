"""What tensors share in a step: a cohort its program, and numbers by name those of a group."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Cohort:
    """Tensors of one group and form that have had the same steps, all of the optimizer's but `skipped`, and so share
    their numbers."""

    __slots__ = ("advanced", "changing", "form", "group", "h", "index", "members", "rule_index", "scalars", "skipped")

    def __init__(self, group: int, form: Any, members: list[int], skipped: int, scalars: dict[str, float]) -> None:
        self.group = group
        self.form = form
        self.members = members
        self.skipped = skipped
        self.scalars = self.advanced = scalars
        self.h: Any = None
        self.index = self.rule_index = 0
        self.changing: Any = None


class Numbers:
    """Numbers as attributes. Set one by one: CPython reads them faster than those of a SimpleNamespace."""

    def __init__(self, *parts: Mapping[str, Any]) -> None:
        for part in parts:
            for name, x in part.items():
                setattr(self, name, x)


class Noted:
    """Numbers that note which of them are read."""

    def __init__(self, numbers: Numbers) -> None:
        self._numbers, self.read = numbers, set[str]()

    def __getattr__(self, name: str) -> Any:
        self.read.add(name)
        return getattr(self._numbers, name)
