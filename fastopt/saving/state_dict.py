"""The state of an optimizer: its buffers in memory, and state_dict and load_state_dict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastopt.around import accumulation
from fastopt.base.arguments import boolean, one_of, shown
from fastopt.base.fitting import is_count, wrong_entry, wrong_keys
from fastopt.base.memory import apart
from fastopt.base.nonfinite import POLICIES
from fastopt.core import _core
from fastopt.schedules.config import to_config
from fastopt.schedules.restore import Restored

if TYPE_CHECKING:
    from fastopt.optimizers.base import Optimizer

SCHEDULE = "schedule"
"""What a state dict holds in place of a callable of the user's own. Of a built-in schedule it holds the config."""


def save(opt: Optimizer, live: bool = False) -> dict[str, Any]:
    """What `state_dict` gives; `live` with the optimizer's own arrays instead of copies."""

    def kept(x: Any) -> Any:
        return np.copy(x, order="K") if isinstance(x, np.ndarray) and not live else x

    state = {name: {key: kept(x) for key, x in entry.items()} for name, entry in opt.state.items()}
    averages = {name: kept(a) for name, a in zip(opt.names, opt._plan.averages, strict=True) if a is not None}
    return {
        "optimizer": type(opt).__name__,
        "fixed": {name: x for name, x in opt._fixed.items() if name != "backend"},
        "t": opt.t,
        "skipped": opt._skipped,
        "groups": [{"names": group.names, **_without_callables(group._values)} for group in opt.groups],
        "options": {
            **_without_callables(opt._options),
            "on_nonfinite": opt.on_nonfinite,
            "maximize": opt.maximize,
        },
        "state": state,
        "averages": averages,
        "accumulation": accumulation.save(opt),
    }


def check(opt: Optimizer, saved: Mapping[str, Any]) -> tuple[list[dict[str, Any]], Restored]:
    """The hyperparameters of each group, then the options, as loading `saved` would leave them; and its schedules.

    Raises ValueError with everything that does not fit. Of the arrays, only shape and dtype are looked at.
    """
    mine = save(opt, live=True)
    values: list[dict[str, Any]] = []
    schedules = Restored()
    problems = _kind(mine, saved)
    if not problems:
        problems = _structure(mine, saved) + _contents(mine, saved)
        if len(saved["groups"]) == len(opt.groups):
            for here, theirs in zip([group._values for group in opt.groups], saved["groups"], strict=True):
                values.append(_restored(opt, here, theirs, schedules, problems))
        values.append(_restored(opt, opt._options, saved["options"], schedules, problems))
        problems += _policy(saved["options"], values[-1]) + schedules.problems()
        problems += accumulation.check(opt, saved["accumulation"])
    if problems:
        raise ValueError("this state does not fit; nothing was changed:\n  " + "\n  ".join(problems))
    return values, schedules


def load(opt: Optimizer, saved: Mapping[str, Any]) -> None:
    values, schedules = check(opt, saved)
    *groups, options = values
    own: _core.Values = [
        *((group, "_values", restored) for group, restored in zip(opt.groups, groups, strict=True)),
        (opt, "_options", options),
        (opt, "_on_nonfinite", saved["options"]["on_nonfinite"]),
        (opt, "_maximize", saved["options"]["maximize"]),
        *schedules.values(),
    ]
    write(opt, saved, own)


def write(opt: Optimizer, saved: Mapping[str, Any], more: Sequence[Any] = ()) -> None:
    """Takes over the arrays and the counts of `saved`, which must fit, and other attributes: all at once."""
    buffers = _core.KERNELS[opt.rule][1][2:]
    counts, copies = [], []
    for i, name in enumerate(opt.names):
        entry = saved["state"][name]
        copies += [(entry[buffer], array) for buffer, array in zip(buffers, opt._plan.states[i], strict=True)]
        average = opt._plan.averages[i]
        if average is not None:
            copies.append((saved["averages"][name], average))
        counts.append((entry["t"], {scalar: entry[scalar] for scalar in opt.initial_scalars}))
    t = saved["t"]
    own = {"_t": t, "_skipped": saved["skipped"], "_cohorts": opt._restored_cohorts(t, counts), "_stale": True}
    values = [*more, *((opt, name, x) for name, x in own.items()), *accumulation.loaded(opt, saved["accumulation"])]
    _core.publish(apart(copies), values)


def _without_callables(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(map(_plain, x)) if isinstance(x, tuple) else _plain(x) for name, x in values.items()}


def _plain(x: Any) -> Any:
    if not callable(x):
        return x
    try:
        return to_config(x)
    except TypeError:
        return SCHEDULE


def _kind(mine: Mapping[str, Any], saved: Any) -> list[str]:
    """What is so wrong that there is nothing to compare: no state, or another optimizer's."""
    if not isinstance(saved, Mapping) or saved.keys() != mine.keys():
        return [f"it is not a state dict of fastopt: expected a dict with the keys {', '.join(mine)}"]
    problems = [
        f"{key} is {shown(saved[key])}: expected {type(ours).__name__}"
        for key, ours in mine.items()
        if not isinstance(saved[key], type(ours))
    ]
    if not problems and saved["optimizer"] != mine["optimizer"]:
        problems.append(f"it is the state of {saved['optimizer']}, and this optimizer is {mine['optimizer']}")
    return problems


def _structure(mine: Mapping[str, Any], saved: Mapping[str, Any]) -> list[str]:
    """What is wrong with the outline: other conventions, other groups, other names."""
    problems = []
    for name in {**mine["fixed"], **saved["fixed"]}:
        ours, theirs = mine["fixed"].get(name), saved["fixed"].get(name)
        if type(ours) is not type(theirs) or ours != theirs:
            problems.append(f"it was made with {name}={shown(theirs)}, and this optimizer with {name}={ours!r}")
    for key in ("t", "skipped"):
        if not is_count(saved[key]):
            problems.append(f"{key} is {shown(saved[key])}: expected a count of steps")
    if len(saved["groups"]) != len(mine["groups"]):
        problems.append(f"it has {len(saved['groups'])} groups, and this optimizer {len(mine['groups'])}")
    for i, (ours, theirs) in enumerate(zip(mine["groups"], saved["groups"], strict=False)):
        problems += wrong_keys(f"group {i} has hyperparameters", ours, theirs)
        if "names" in _mapping(theirs) and not _same_names(ours["names"], theirs["names"]):
            found = theirs["names"]
            problems.append(
                f"group {i} has other parameters: {list(found) if isinstance(found, tuple) else shown(found)}"
            )
    problems += wrong_keys("options", mine["options"], saved["options"])
    problems += wrong_keys("state of parameters", mine["state"], saved["state"])
    problems += wrong_keys("averages of parameters", mine["averages"], saved["averages"])
    return problems


def _contents(mine: Mapping[str, Any], saved: Mapping[str, Any]) -> list[str]:
    """What is wrong with single entries: missing buffers, other shapes and types, counts that cannot be."""
    problems = []
    for name, ours in mine["state"].items():
        if name in saved["state"]:
            theirs = saved["state"][name]
            problems += wrong_keys(f"state of {name!r} has", ours, theirs)
            theirs = _mapping(theirs)
            problems += [
                wrong_entry(f"{key!r} of {name!r}", x, theirs[key]) for key, x in ours.items() if key in theirs
            ]
            t = theirs.get("t")
            if is_count(t) and is_count(saved["t"]) and t > saved["t"]:
                problems.append(f"'t' of {name!r} is {t}, more than the {saved['t']} steps of the optimizer")
    for name, average in mine["averages"].items():
        if name in saved["averages"]:
            problems.append(wrong_entry(f"the average of {name!r}", average, saved["averages"][name]))
    return [problem for problem in problems if problem]


def _mapping(saved: Any) -> Mapping[str, Any]:
    return saved if isinstance(saved, Mapping) else {}


def _restored(
    opt: Optimizer, mine: Mapping[str, Any], saved: Mapping[str, Any], made: Restored, problems: list[str]
) -> dict[str, Any]:
    """The values of `saved`, with the callables of `mine` where one of the user's own was saved."""
    values = {}
    for name, here in mine.items():
        if name not in _mapping(saved):
            continue
        theirs = saved[name]
        try:
            if isinstance(here, tuple) and not isinstance(theirs, Mapping):
                if not isinstance(theirs, tuple) or len(theirs) != len(here):
                    raise ValueError(f"{name} is {shown(theirs)}: expected {len(here)} values")
                value: Any = tuple(_kept(name, x, y, made) for x, y in zip(here, theirs, strict=True))
            else:
                value = _kept(name, here, theirs, made)
            values[name] = opt._hyperparameters[name].admit(value)
            if name not in ("clip_norm", "clip_value"):
                opt._check_value(name, values[name])
        except (TypeError, ValueError, OverflowError) as error:
            problems.append(str(error))
    return values


def _policy(saved: Mapping[str, Any], options: Mapping[str, Any]) -> list[str]:
    """What is wrong with the options of the whole optimizer that are no hyperparameters, or exclude each other."""
    problems = []
    if options.get("clip_norm") is not None and options.get("clip_value") is not None:
        problems.append("it clips by clip_norm and by clip_value")
    try:
        one_of("on_nonfinite", saved.get("on_nonfinite"), POLICIES)
        boolean("maximize", saved.get("maximize", False))
    except (TypeError, ValueError) as error:
        problems.append(str(error))
    return problems


def _kept(name: str, mine: Any, saved: Any, made: Restored) -> Any:
    if isinstance(saved, str) and saved == SCHEDULE:
        if _plain(mine) != SCHEDULE:
            raise ValueError(
                f"{name} followed a schedule of your own: make this optimizer with that schedule, then load"
            )
        return mine
    return made.schedule(name, mine, saved) if isinstance(saved, Mapping) else saved


def _same_names(mine: tuple[str, ...], saved: Any) -> bool:
    return isinstance(saved, (list, tuple)) and all(isinstance(name, str) for name in saved) and set(saved) == set(mine)
