"""Schedules as plain data, by name and arguments, so that a checkpoint can hold them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fastopt.base.arguments import shown
from fastopt.schedules import formulas
from fastopt.schedules.averaging import ema_decay
from fastopt.schedules.base import NamedSchedule, Schedule
from fastopt.schedules.composed import joined, warmup
from fastopt.schedules.cycle import CyclePart, one_cycle
from fastopt.schedules.cyclic import cyclic
from fastopt.schedules.plateau import ReduceOnPlateau

_MAKERS: dict[str, Callable[..., NamedSchedule]] = {
    **{
        cls.__name__: cls
        for cls in (
            formulas.constant,
            formulas.step_decay,
            formulas.exponential,
            formulas.cosine,
            formulas.cosine_restarts,
            formulas.linear,
            formulas.inverse_sqrt,
            formulas.polynomial,
            formulas.piecewise,
            formulas.warmup_stable_decay,
            warmup,
            joined,
            cyclic,
            ema_decay,
        )
    },
    "one_cycle.lr": lambda **arguments: one_cycle(**arguments).lr,
    "one_cycle.momentum": lambda **arguments: one_cycle(**arguments).momentum,
}


def to_config(schedule: Schedule) -> dict[str, Any]:
    """A built-in schedule as {"name": ..., "arguments": {...}} of numbers, strings and lists, which JSON can hold.

    Of a ReduceOnPlateau the arguments include what its updates so far have led to. A warmup and a joined hold
    the configs of the schedules that they are made of.

    Raises TypeError for a callable of your own, also one inside of these: fastopt cannot make it again.
    """
    if isinstance(schedule, ReduceOnPlateau):
        return {"name": "ReduceOnPlateau", "arguments": schedule.state_dict()}
    name = f"one_cycle.{schedule.part}" if isinstance(schedule, CyclePart) else type(schedule).__name__
    if not isinstance(schedule, NamedSchedule) or name not in _MAKERS:
        raise TypeError(
            f"schedule is {shown(schedule)}, not one of fastopt.schedules: it cannot be saved by name and arguments"
        )
    return {"name": name, "arguments": {key: _plain(value) for key, value in schedule._arguments().items()}}


def from_config(config: Mapping[str, Any]) -> NamedSchedule:
    """The schedule that `to_config` described: a new object.

    Raises ValueError for anything else. Names are looked up among the built-in schedules and nothing is executed, so
    the config may come from a stranger.
    """
    try:
        return _made(config)
    except (TypeError, ValueError, ArithmeticError, RecursionError) as error:
        raise ValueError(f"config is not that of a schedule: {error}") from error


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(x) for x in value]
    return to_config(value) if callable(value) else value


def _made(config: Any) -> NamedSchedule:
    if not isinstance(config, Mapping) or config.keys() != {"name", "arguments"}:
        raise ValueError(f"{shown(config)}: expected a dict with the keys name and arguments")
    name, arguments = config["name"], config["arguments"]
    if not isinstance(arguments, Mapping):
        raise ValueError(f"the arguments of {shown(name)} are {shown(arguments)}: expected a dict")
    if any(callable(x) for value in arguments.values() for x in (value if isinstance(value, list) else [value])):
        raise ValueError(f"an argument of {shown(name)} is a callable: expected plain data")
    if name == "ReduceOnPlateau":
        plateau = ReduceOnPlateau(0.0)
        plateau.load_state_dict(arguments)
        return plateau
    if not isinstance(name, str) or name not in _MAKERS:
        raise ValueError(f"there is no schedule {shown(name)}: fastopt knows {', '.join(_MAKERS)} and ReduceOnPlateau")
    return _MAKERS[name](**{key: _argument(value) for key, value in arguments.items()})


def _argument(value: Any) -> Any:
    if isinstance(value, list):
        return [_argument(x) for x in value]
    return _made(value) if isinstance(value, Mapping) else value
