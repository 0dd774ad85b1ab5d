"""The stages around a rule: which are on, and their numbers, from those of a group; the registry has their order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from fastopt.engine.bounds import box

Stage: TypeAlias = Callable[[Any], dict[str, float] | None]


def clamp(h: Any) -> dict[str, float] | None:
    return None if h.clip_value is None else {"one": 1.0, "bound": h.clip_value}


def l1(h: Any) -> dict[str, float] | None:
    return {"one": 1.0, "l1": h.l1} if h.l1 else None


def l2(h: Any) -> dict[str, float] | None:
    return {"l2": h.l2} if h.l2 else None


def decay(h: Any) -> dict[str, float] | None:
    decay = h.decoupled_decay
    if not decay:
        return None
    keep = 1 - (h.lr * decay if h.decay_by_lr else decay)
    if keep < 0:
        raise ValueError(
            f"decoupled_decay (weight_decay)={decay!r} with lr={h.lr!r} would take more than the whole parameter in a "
            f"step (it keeps {keep!r} of it): use a smaller one"
        )
    return {"keep": keep}


def prox_l1(h: Any) -> dict[str, float] | None:
    return {"one": 1.0, "threshold": h.lr * h.prox_l1} if h.prox_l1 else None


def lookahead(h: Any) -> dict[str, float] | None:
    """Off, until the core says that it is a cohort's turn."""
    return None if h.lookahead is None else {"turn": 0.0, "alpha": h.lookahead[1]}


def bounds(h: Any) -> dict[str, float] | None:
    if h.bounds is None:
        return None
    (low, high), (low_single, high_single) = (box(h.bounds, dtype, h.flush_subnormals) for dtype in (float, "f"))
    return {"one": 1.0, "low": low, "high": high, "low_single": low_single, "high_single": high_single}


def average(h: Any) -> dict[str, float] | None:
    return None if h.average is None else {"decay": h.average, "gain": 1 - h.average}


STAGES: dict[str, Stage] = {
    "clamp": clamp,
    "l1": l1,
    "l2": l2,
    "decay": decay,
    "prox_l1": prox_l1,
    "lookahead": lookahead,
    "bounds": bounds,
    "average": average,
}
