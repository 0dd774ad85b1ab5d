"""What the built-in schedules share: names and arguments that can be saved, and what each argument may be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import partial
from typing import Any, ClassVar, TypeAlias

from fastopt.base.arguments import (
    LARGEST,
    at_least_0,
    boolean,
    finite,
    from_0_below_1,
    from_0_to_1,
    one_of,
    positive,
    whole,
    within,
)

Schedule: TypeAlias = Callable[[int], float]
"""A callable of `opt.t`, the number of steps applied so far: 0 at the first."""
Scalar: TypeAlias = float | Schedule


class Named:
    """An object with a name and arguments, each within its domain, that make it again."""

    _domains: ClassVar[dict[str, Any]] = {}
    """Those of the class that are others than in DOMAINS."""

    def __post_init__(self) -> None:
        for name, value in self._arguments().items():
            check = self._domains.get(name) or DOMAINS.get(name)
            if check:
                object.__setattr__(self, name, check(f"{name} of {type(self).__name__}", value))

    def _arguments(self) -> dict[str, Any]:
        """By name; those that may be None and are, are not among them."""
        known = {field.name: field.default for field in fields(self) if field.init}  # type: ignore[arg-type]
        values = {name: getattr(self, name) for name in known}
        return {name: x for name, x in values.items() if x is not None or known[name] is not None}

    def __repr__(self) -> str:
        defaults = {field.name: field.default for field in fields(self)}  # type: ignore[arg-type]
        given = [f"{name}={x!r}" for name, x in self._arguments().items() if x != defaults[name]]
        return f"{type(self).__name__}({', '.join(given)})"


class NamedSchedule(Named):
    """A schedule that fastopt knows by name, so that it can be shown, compared and saved with its arguments.

    Calling it with t, the number of steps applied so far (0 at the first), gives the value for the next step.
    Raises TypeError or ValueError for a t that is no whole number or is negative. Immutable, but for ReduceOnPlateau.
    """

    def __call__(self, t: int) -> float:
        if type(t) is not int or not 0 <= t <= LARGEST:
            t = whole("t", t, 0)
        return self._value(t)

    def _value(self, t: int) -> float:
        raise NotImplementedError

    def _repr_html_(self) -> str:
        """As a notebook shows it: with a small curve."""
        from fastopt.schedules.inline import shown

        return shown(self)


# An argument means the same in every schedule that has it, but for what a class says in _domains.
DOMAINS: dict[str, Callable[[str, Any], Any]] = {
    **dict.fromkeys(("v", "start", "peak", "end", "eta_min", "v_max", "min_value"), finite),
    **dict.fromkeys(("steps", "steps_up", "steps_down", "every", "t_mult"), whole),
    **dict.fromkeys(("gamma", "scale", "power", "div_factor", "final_div_factor"), positive),
    **dict.fromkeys(("rate", "threshold", "eps"), partial(within, check=at_least_0)),
    **dict.fromkeys(("base_momentum", "max_momentum", "factor"), partial(within, check=from_0_below_1)),
    **dict.fromkeys(("patience", "cooldown", "warmup_steps", "decay_steps"), partial(whole, least=0)),
    "pct_start": partial(within, check=from_0_to_1),
    "three_phase": boolean,
    "anneal_strategy": partial(one_of, choices=("cos", "linear")),
    "decay_shape": partial(one_of, choices=("linear", "cos", "sqrt")),
    "mode": partial(one_of, choices=("min", "max")),
    "threshold_mode": partial(one_of, choices=("rel", "abs", "rel_torch")),
}
