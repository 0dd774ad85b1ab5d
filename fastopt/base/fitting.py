"""What of a saved state does not fit what is here, in words, because every part of a checkpoint is refused in the same
ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastopt.base.arguments import LARGEST, shown
from fastopt.base.memory import apart
from fastopt.base.tree import Array


def is_count(x: Any) -> bool:
    return isinstance(x, int) and not isinstance(x, bool) and 0 <= x <= LARGEST


def wrong_keys(what: str, mine: Mapping[str, Any], saved: Any) -> list[str]:
    if not isinstance(saved, Mapping):
        return [f"{what}: no dict, but {shown(saved)}"]
    missing, extra = [k for k in mine if k not in saved], [k for k in saved if not isinstance(k, str) or k not in mine]
    return [f"{what} missing: {missing}"] * bool(missing) + [f"{what} not known here: {extra}"] * bool(extra)


def wrong_entry(what: str, mine: Any, saved: Any) -> str:
    if isinstance(mine, np.ndarray):
        plain = isinstance(saved, np.ndarray) and not isinstance(saved, np.ma.MaskedArray)
        if not plain or saved.shape != mine.shape or saved.dtype != mine.dtype:
            found = f"{saved.dtype} {saved.shape}" if plain else shown(saved)
            return f"{what} is {found}: expected {mine.dtype} {mine.shape}"
        return ""
    valid = is_count(saved) if isinstance(mine, int) else isinstance(saved, float)
    return "" if valid else f"{what} is {shown(saved)}: expected a {'count' if isinstance(mine, int) else 'float'}"


def copies_fitting(what: str, names: Sequence[str], targets: Sequence[Array], saved: Any) -> list[tuple[Array, Array]]:
    """Saved arrays with the targets of the same names; raises ValueError with all that do not fit."""
    mine = dict(zip(names, targets, strict=True))
    if not isinstance(saved, Mapping):
        raise ValueError(f"{what}s are {shown(saved)}: expected a dict of name -> array")
    problems = wrong_keys(f"{what}s of parameters", mine, saved)
    for name, target in mine.items() if not problems else ():
        problems += [problem for problem in [wrong_entry(f"{what} of {name!r}", target, saved[name])] if problem]
    if problems:
        raise ValueError("this state does not fit; nothing was changed:\n  " + "\n  ".join(problems))
    return apart([(saved[name], target) for name, target in mine.items()])
