"""What tensors share in a step: a cohort their coefficients, and numbers by name those of a group."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Cohort:
    """Tensors of one group that have had the same steps, all of the optimizer's but `skipped`, and so share their
    coefficients."""

    __slots__ = ("advanced", "group", "h", "index", "members", "scalars", "skipped")

    def __init__(self, group: int, members: list[int], skipped: int, scalars: dict[str, float]) -> None:
        self.group = group
        self.members = members
        self.skipped = skipped
        self.scalars = self.advanced = scalars
        self.h: Any = None
        self.index = 0


class Numbers:
    """Numbers as attributes. Set one by one: CPython reads them faster than those of a SimpleNamespace."""

    def __init__(self, *parts: Mapping[str, Any]) -> None:
        for part in parts:
            for name, x in part.items():
                setattr(self, name, x)
