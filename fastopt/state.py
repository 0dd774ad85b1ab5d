"""The state of an optimizer: its buffers in memory, and state_dict and load_state_dict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from fastopt import _core, accumulation, schedules
from fastopt.hyperparameters import boolean, one_of
from fastopt.parameters import held
from fastopt.schedules.restore import Restored
from fastopt.tree import Array

if TYPE_CHECKING:
    from fastopt.optimizer import Optimizer

SCHEDULE = "schedule"
"""What a state dict holds in place of a callable of the user's own. Of a built-in schedule it holds the config."""


def save(opt: Optimizer) -> dict[str, Any]:
    state = {
        name: {key: _copy(x) if isinstance(x, np.ndarray) else x for key, x in entry.items()}
        for name, entry in opt.state.items()
    }
    averages = {name: _copy(a) for name, a in zip(opt.names, opt._plan.averages, strict=True) if a is not None}
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


def load(opt: Optimizer, saved: Mapping[str, Any]) -> None:
    mine = save(opt)
    problems = _structure(mine, saved) or _contents(mine, saved)
    values: list[dict[str, Any]] = []
    restored_schedules = Restored()
    if not problems:
        for here, theirs in zip([group._values for group in opt.groups], saved["groups"], strict=True):
            values.append(_restored(opt, here, theirs, restored_schedules, problems))
        values.append(_restored(opt, opt._options, saved["options"], restored_schedules, problems))
        problems += _policy(saved["options"], values[-1]) + restored_schedules.problems()
        problems += accumulation.check(opt, saved["accumulation"])
    if problems:
        raise ValueError("this state does not fit; nothing was changed:\n  " + "\n  ".join(problems))
    with held(opt, "a state is being loaded"):
        opt.on_nonfinite = saved["options"]["on_nonfinite"]
        opt.maximize = saved["options"]["maximize"]
        for target, restored in zip([*(group._values for group in opt.groups), opt._options], values, strict=True):
            target.update(restored)
        restored_schedules.commit()
        _write(opt, saved)


def _write(opt: Optimizer, saved: Mapping[str, Any]) -> None:
    buffers = _core.KERNELS[opt.rule][1][2:]
    counts = []
    for i, name in enumerate(opt.names):
        entry = saved["state"][name]
        for buffer, array in zip(buffers, opt._plan.states[i], strict=True):
            array[...] = entry[buffer]
        average = opt._plan.averages[i]
        if average is not None:
            average[...] = saved["averages"][name]
        counts.append((entry["t"], {scalar: entry[scalar] for scalar in opt.initial_scalars}))
    opt._restore_counts(saved["t"], counts)
    accumulation.load(opt, saved["accumulation"])
    opt._skipped = saved["skipped"]


def _copy(a: Array) -> Array:
    return np.copy(a, order="K")


def _without_callables(values: Mapping[str, Any]) -> dict[str, Any]:
    def plain(x: Any) -> Any:
        if isinstance(x, tuple):
            return tuple(plain(member) for member in x)
        if not callable(x):
            return x
        try:
            return schedules.to_config(x)
        except TypeError:
            return SCHEDULE

    return {name: plain(x) for name, x in values.items()}


def _structure(mine: Mapping[str, Any], saved: Any) -> list[str]:
    """What is wrong with the outline: another optimizer, other conventions, other groups."""
    if not isinstance(saved, Mapping) or saved.keys() != mine.keys():
        return [f"it is not a state dict of fastopt: expected a dict with the keys {', '.join(mine)}"]
    problems = []
    if saved["optimizer"] != mine["optimizer"]:
        return [f"it is the state of {saved['optimizer']}, and this optimizer is {mine['optimizer']}"]
    for key, ours in mine.items():
        if not isinstance(saved[key], type(ours)):
            problems.append(f"{key} is {saved[key]!r}: expected a {type(ours).__name__}")
    if problems:
        return problems
    for name in {**mine["fixed"], **saved["fixed"]}:
        ours, theirs = mine["fixed"].get(name), saved["fixed"].get(name)
        if ours != theirs:
            problems.append(f"it was made with {name}={theirs!r}, and this optimizer with {name}={ours!r}")
    for key in ("t", "skipped"):
        if not _is_count(saved[key]):
            problems.append(f"{key} is {saved[key]!r}: expected a count of steps")
    if len(saved["groups"]) != len(mine["groups"]):
        problems.append(f"it has {len(saved['groups'])} groups, and this optimizer {len(mine['groups'])}")
        return problems
    for i, (ours, theirs) in enumerate(zip(mine["groups"], saved["groups"], strict=True)):
        problems += _keys(f"group {i} has hyperparameters", ours, theirs)
        if set(ours["names"]) != set(theirs.get("names", ())):
            problems.append(f"group {i} has other parameters: {list(theirs.get('names', ()))}")
    problems += _keys("options", mine["options"], saved["options"])
    problems += _keys("state of parameters", mine["state"], saved["state"])
    problems += _keys("averages of parameters", mine["averages"], saved["averages"])
    return problems


def _contents(mine: Mapping[str, Any], saved: Mapping[str, Any]) -> list[str]:
    """What is wrong with single entries: missing buffers, other shapes and types."""
    problems = []
    for name, ours in mine["state"].items():
        theirs = saved["state"][name]
        differing = _keys(f"state of {name!r} has", ours, theirs)
        problems += differing
        if not differing:
            problems += [p for key, x in ours.items() if (p := _entry(f"{key!r} of {name!r}", x, theirs[key]))]
    for name, ours in mine["averages"].items():
        problems += [p for p in [_entry(f"the average of {name!r}", ours, saved["averages"][name])] if p]
    return problems


def _entry(what: str, mine: Any, saved: Any) -> str | None:
    if isinstance(mine, np.ndarray):
        if not isinstance(saved, np.ndarray) or saved.shape != mine.shape or saved.dtype != mine.dtype:
            found = f"{saved.dtype} {saved.shape}" if isinstance(saved, np.ndarray) else repr(saved)
            return f"{what} is {found}: expected {mine.dtype} {mine.shape}"
        return None
    valid = _is_count(saved) if isinstance(mine, int) else isinstance(saved, float)
    return None if valid else f"{what} is {saved!r}"


def _restored(
    opt: Optimizer, mine: Mapping[str, Any], saved: Mapping[str, Any], made: Restored, problems: list[str]
) -> dict[str, Any]:
    """The values of `saved`, with the callables of `mine` where one of the user's own was saved."""
    values = {}
    for name, here in mine.items():
        theirs = saved[name]
        try:
            if isinstance(here, tuple) and isinstance(theirs, tuple):
                value: Any = tuple(_kept(name, x, y, made) for x, y in zip(here, theirs, strict=True))
            else:
                value = _kept(name, here, theirs, made)
            values[name] = opt._hyperparameters[name].admit(value)
            if name not in ("clip_norm", "clip_value"):
                opt._check_value(name, values[name])
        except (TypeError, ValueError) as error:
            problems.append(str(error))
    return values


def _policy(saved: Mapping[str, Any], options: Mapping[str, Any]) -> list[str]:
    """What is wrong with the options of the whole optimizer that are no hyperparameters, or exclude each other."""
    problems = []
    if options.get("clip_norm") is not None and options.get("clip_value") is not None:
        problems.append("it clips by clip_norm and by clip_value")
    try:
        one_of("on_nonfinite", saved["on_nonfinite"], (None, "raise", "skip"))
        boolean("maximize", saved["maximize"])
    except (TypeError, ValueError) as error:
        problems.append(str(error))
    return problems


def _kept(name: str, mine: Any, saved: Any, made: Restored) -> Any:
    if isinstance(saved, str) and saved == SCHEDULE:
        if not callable(mine):
            raise ValueError(f"{name} followed a schedule: make this optimizer with that schedule, then load")
        return mine
    return made.schedule(name, mine, saved) if isinstance(saved, Mapping) else saved


def _keys(what: str, mine: Mapping[str, Any], saved: Mapping[str, Any]) -> list[str]:
    missing, extra = [k for k in mine if k not in saved], [k for k in saved if k not in mine]
    return [f"{what} missing: {missing}"] * bool(missing) + [f"{what} not known here: {extra}"] * bool(extra)


def _is_count(x: Any) -> bool:
    return isinstance(x, int) and not isinstance(x, bool) and x >= 0
