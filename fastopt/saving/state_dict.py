"""The state of an optimizer: its buffers in memory, and state_dict and load_state_dict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastopt.base.arguments import shown
from fastopt.base.fitting import is_count, wrong_entry, wrong_keys
from fastopt.base.memory import apart
from fastopt.core import _core
from fastopt.engine.bounds import outside
from fastopt.engine.engine import CLIPS
from fastopt.engine.groups import Group
from fastopt.engine.numbers import Numbers
from fastopt.schedules.config import to_config
from fastopt.schedules.restore import Restored

SCHEDULE = "schedule"
"""What a state dict holds in place of a callable of the user's own. Of a built-in schedule it holds the config."""


FORMAT_1 = {"optimizer", "fixed", "t", "skipped", "groups", "options", "state", "averages", "accumulation"}


def save(opt: Any, live: bool = False) -> dict[str, Any]:
    """What `state_dict` gives; `live` with the optimizer's own arrays instead of copies."""
    engine = opt._engine

    def kept(x: Any) -> Any:
        return np.copy(x, order="K") if isinstance(x, np.ndarray) and not live else x

    names, plan = engine.plan.names, engine.plan
    state = {name: {key: kept(x) for key, x in entry.items()} for name, entry in engine.state().items()}
    averages = {name: kept(a) for name, a in zip(names, plan.averages, strict=True) if a is not None}
    return {
        "optimizer": type(opt).__name__,
        "fixed": _saved_fixed(engine.fixed),
        "t": engine.t,
        "skipped": engine.skipped,
        "skipped_in_a_row": engine.skipped_in_a_row,
        "groups": [_saved_group(group, engine.fixed) for group in engine.groups],
        "options": _without_callables({name: x for name, x in engine.options.items() if name != "threads"}),
        "state": state,
        "averages": averages,
        "global": engine.of_all(),
        **{name: part.save(engine) for name, part in opt._parts.items()},
    }


def _saved_fixed(fixed: Mapping[str, Any]) -> dict[str, Any]:
    return {name: x for name, x in fixed.items() if name != "backend"}


def _saved_group(group: Group, fixed: Mapping[str, Any]) -> dict[str, Any]:
    own = {name: x for name, x in _saved_fixed(group._fixed).items() if name not in fixed}
    outline = {"names": group.names, "rule": group.rule.__name__, "frozen": group.frozen, "fixed": own}
    return {**outline, **_without_callables(group._values)}


def upgraded(saved: Any) -> Any:
    """A state of 0.1.0 as one of today: maximize and clip_value were of the whole, AdamW's decay had another name, and
    nobody counted the skips in a row."""
    if not isinstance(saved, Mapping) or saved.keys() != FORMAT_1 or not isinstance(saved["options"], Mapping):
        return saved
    options, groups = dict(saved["options"]), saved["groups"]
    moved = {name: options.pop(name) for name in ("clip_value", "maximize") if name in options}
    if isinstance(groups, list) and all(isinstance(group, Mapping) for group in groups):
        groups = [_upgraded_group(group, moved, saved["optimizer"]) for group in groups]
    options = {"max_skips": None, **options}
    return {**saved, "options": options, "groups": groups, "global": {}, "skipped_in_a_row": 0, "lookahead": {}}


def _upgraded_group(group: Mapping[str, Any], moved: Mapping[str, Any], rule: Any) -> dict[str, Any]:
    renamed = {"decoupled_decay" if name == "weight_decay" else name: x for name, x in group.items()}
    return {"rule": rule, "frozen": False, "fixed": {}, "group_clip_norm": None, "bounds": None, **renamed, **moved}


def check(opt: Any, saved: Any) -> tuple[list[dict[str, Any]], Restored]:
    """The hyperparameters of each group, then the options, as loading `saved` would leave them; and its schedules.

    Raises ValueError with everything that does not fit. Of the arrays, only shape and dtype are looked at.
    """
    engine, mine, saved = opt._engine, save(opt, live=True), upgraded(saved)
    values: list[dict[str, Any]] = []
    schedules = Restored()
    problems = _kind(mine, saved)
    if not problems:
        problems = _structure(mine, saved) + _contents(mine, saved)
        if len(saved["groups"]) == len(engine.groups):
            for group, theirs in zip(engine.groups, saved["groups"], strict=True):
                values.append(_restored(group.rule, group._fixed, group._values, theirs, schedules, problems))
                problems += _outside(engine, group, values[-1].get("bounds"))
        here = {name: x for name, x in engine.options.items() if name != "threads"}
        values.append(_restored(type(opt), engine.fixed, here, saved["options"], schedules, problems))
        if (values[-1].get("average") is None) != (engine.options["average"] is None):
            problems.append("whether averages are kept is fixed when the optimizer is made: pass average= there")
        problems += _two_clips(values) + schedules.problems()
        for name, part in opt._parts.items():
            problems += part.check(engine, saved[name])
    if problems:
        raise ValueError("this state does not fit; nothing was changed:\n  " + "\n  ".join(problems))
    return values, schedules


def load(opt: Any, saved: Any) -> None:
    values, schedules = check(opt, saved)
    *groups, options = values
    engine = opt._engine
    own: _core.Values = [
        *((group, "_values", restored) for group, restored in zip(engine.groups, groups, strict=True)),
        (engine, "options", {**engine.options, **options}),
        *schedules.values(),
    ]
    write(opt, upgraded(saved), own)


def write(opt: Any, saved: Mapping[str, Any], more: Sequence[Any] = ()) -> None:
    """Takes over the arrays and the counts of `saved`, which must fit, and other attributes: all at once."""
    engine = opt._engine
    plan = engine.plan
    counts: list[Any] = [None] * len(plan.names)
    copies = []
    for cohort in engine.cohorts:
        scalars = engine.groups[cohort.group].rule.initial_scalars(_numbers(engine.groups[cohort.group]))
        for i in cohort.members:
            entry = saved["state"][plan.names[i]]
            pairs = zip(cohort.form.slots, plan.states[i], strict=True)
            copies += [(entry[slot.name], array) for slot, array in pairs if slot.saved]
            counts[i] = (entry["t"], {scalar: entry[scalar] for scalar in scalars})
    for name, average in zip(plan.names, plan.averages, strict=True):
        if average is not None:
            copies.append((saved["averages"][name], average))
    t = saved["t"]
    own = {
        "t": t,
        "skipped": saved["skipped"],
        "skipping_since": (t, saved["skipped"] - saved["skipped_in_a_row"]),
        "cohorts": engine.restored_cohorts(t, counts),
        "registers": saved["global"],
        "_live": None,
        "stale": True,
    }
    values = [*more, *((engine, name, x) for name, x in own.items())]
    for name, part in opt._parts.items():
        values += part.loaded(engine, saved[name])
    _core.publish(apart(copies), values)


def _numbers(group: Group) -> Numbers:
    return Numbers(group._values, group._fixed)


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
    counts = {key: saved[key] for key in ("t", "skipped", "skipped_in_a_row")}
    problems += [f"{key} is {shown(x)}: expected a count of steps" for key, x in counts.items() if not is_count(x)]
    if all(map(is_count, counts.values())) and counts["skipped_in_a_row"] > counts["skipped"]:
        problems.append(f"skipped_in_a_row is {counts['skipped_in_a_row']}, more than the {counts['skipped']} in all")
    if len(saved["groups"]) != len(mine["groups"]):
        problems.append(f"it has {len(saved['groups'])} groups, and this optimizer {len(mine['groups'])}")
    for i, (ours, theirs) in enumerate(zip(mine["groups"], saved["groups"], strict=False)):
        problems += wrong_keys(f"group {i} has hyperparameters", ours, theirs)
        for key in ("rule", "frozen", "fixed"):
            if key in _mapping(theirs) and (type(theirs[key]) is not type(ours[key]) or theirs[key] != ours[key]):
                problems.append(f"group {i} has {key} {shown(theirs[key])}, and here {ours[key]!r}")
        if "names" in _mapping(theirs) and not _same_names(ours["names"], theirs["names"]):
            found = theirs["names"]
            problems.append(
                f"group {i} has other parameters: {list(found) if isinstance(found, tuple) else shown(found)}"
            )
    problems += wrong_keys("options", mine["options"], saved["options"])
    problems += _wrong_global(mine["global"], saved["global"])
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


def _wrong_global(mine: Mapping[str, Any], saved: Mapping[str, Any]) -> list[str]:
    """What is wrong with the numbers that rules keep for all of their parameters; none where none has stepped yet."""
    problems = []
    for rule, numbers in saved.items():
        ours = mine.get(rule)
        if ours is not None:
            problems += wrong_keys(f"numbers of {rule}", ours, numbers)
        if not isinstance(numbers, Mapping) or not all(isinstance(x, float) for x in numbers.values()):
            problems.append(f"numbers of {rule} are {shown(numbers)}: expected a dict of floats")
    return problems


def _restored(
    rule: Any,
    fixed: Mapping[str, Any],
    mine: Mapping[str, Any],
    saved: Mapping[str, Any],
    made: Restored,
    problems: list[str],
) -> dict[str, Any]:
    """The values of `saved`, with the callables of `mine` where one of the user's own was saved."""
    values = {}
    for name, here in mine.items():
        if name not in _mapping(saved):
            continue
        theirs = saved[name]
        try:
            if isinstance(here, tuple) and theirs is not None and not isinstance(theirs, Mapping):
                if not isinstance(theirs, tuple) or len(theirs) != len(here):
                    raise ValueError(f"{name} is {shown(theirs)}: expected {len(here)} values")
                value: Any = tuple(_kept(name, x, y, made) for x, y in zip(here, theirs, strict=True))
            else:
                value = _kept(name, here, theirs, made)
            values[name] = rule.options()[name].admit(value)
            rule.check_value(name, values[name], fixed)
        except (TypeError, ValueError, OverflowError) as error:
            problems.append(str(error))
    return values


def _outside(engine: Any, group: Group, bounds: Any) -> list[str]:
    """Why parameters, which no state holds, do not go with its bounds."""
    wrong = outside(bounds, group.names, engine.params_of(group), engine.fixed["flush_subnormals"])
    return [] if group.frozen or wrong is None else [f"{wrong}, or put the parameters of the saved run there"]


def _two_clips(values: Sequence[Mapping[str, Any]]) -> list[str]:
    *groups, options = values
    found = []
    for group in groups:
        given = [name for name in CLIPS if {**options, **group}.get(name) is not None]
        if given[1:]:
            found.append(f"it clips by {' and by '.join(given)}")
    return found[:1]


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
