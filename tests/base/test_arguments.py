"""Junk for every argument of every public function: TypeError or ValueError, by name, with nothing written."""

from __future__ import annotations

import copy
import os
import pickle
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastopt
from fastopt.core import machine as runtime
from tests.hostile.junk import NOTHING_TAKES, functions, junk, spoiled
from tests.hostile.public import (
    CLASSES,
    FUNCTIONS,
    METHODS,
    NO_ROW,
    USES,
    arguments_of,
    everything,
    public,
    says,
)
from tests.lockstep import loss_of, snapshot

# What an error calls a tree, where it does not say the argument's name.
TREES = {
    "params": "parameter|parameters",
    "grads": "gradient|gradients",
    "arrays": "array|arrays|parameter",
    "saved": "state|'s'|'y'",
    "grad": "gradient|gradients",
    "closure": "gradient|gradients",
    "group": "parameter|parameters",
    **dict.fromkeys(("weight", "sample_weight", "mask", "ignore_index"), "weights"),
    "weight_decay": "decoupled_decay",
    "path": "was not loaded|is not a regular file",
}
ARGUMENTS = [(name, argument) for name in [*FUNCTIONS, *METHODS] for argument in arguments_of(name)]


def refuses_well(act: Callable[[], Any], name: str, tree: Any = None) -> bool:
    """Either it takes the junk, or it says which argument is wrong, or which entry of one that usually is a dict."""
    try:
        refusal = refused(act)
    except OSError:
        if name != "path":
            raise
        return True
    words = [name, *TREES.get(name, name).split("|"), *(tree if isinstance(tree, dict) else ())]
    assert not refusal or says(refusal, "|".join(map(re.escape, words))), f"{name} is not named in: {refusal}"
    return refusal != ""


def refused(act: Callable[[], Any], *more: type[Exception]) -> str:
    """What the error says; an empty string where there is none."""
    try:
        act()
    except (TypeError, ValueError, *more) as error:
        return str(error)
    return ""


def arrays_in(tree: Any) -> Iterator[np.ndarray[Any, Any]]:
    """The arrays of numbers in lists, tuples and dicts, but for trees that contain themselves."""
    if isinstance(tree, np.ndarray) and tree.dtype.kind in "fiu":
        yield tree
    elif isinstance(tree, (list, tuple, dict)) and not any(item is tree for item in tree):
        for item in tree.values() if isinstance(tree, dict) else tree:
            yield from arrays_in(item)


def bytes_of(owner: Any) -> bytes:
    """All that an object is; of a SAM, which is not pickled between its two steps, the parameters."""
    if isinstance(owner, fastopt.SAM):
        return b"".join(p.tobytes() for p in owner.opt._engine.plan.params)
    return pickle.dumps(owner)


def leads_out(path: Any) -> bool:
    """Whether a path would leave the folder of the test."""
    return isinstance(path, (str, bytes)) and (os.path.isabs(path) or ".." in str(path))


@pytest.fixture(autouse=True)
def _threads_as_before(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(sys.modules["fastopt.app.selftest"], "LENGTHS", (1,))
    n, why = fastopt.info().threads, runtime._threads_why
    yield
    runtime._use_threads(n, why)


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_everything_public_has_a_row_or_a_reason() -> None:
    rows = {name.split(" ")[0] for name in [*FUNCTIONS, *METHODS]}
    assert set(everything()) == rows | NO_ROW.keys()


def usual(function: str) -> dict[str, Any]:
    return (METHODS.get(function) or FUNCTIONS[function])()


def trees_of(function: str) -> list[str]:
    """The arguments that usually are lists or dicts, which one entry may spoil."""
    return [name for name, value in usual(function).items() if isinstance(value, (dict, list)) and value]


def try_value(function: str, argument: str, value: Any) -> None:
    target = public(function)
    if argument == "path" and function.endswith("load"):
        target.__self__.save("saved")
    owner, valid = getattr(target, "__self__", None), usual(function)
    given = {**valid, argument: value}
    arrays = list(arrays_in(list(given.values())))
    before = [a.tobytes() for a in arrays], bytes_of(owner)
    result: list[Any] = []
    if refuses_well(lambda: result.append(target(**given)), argument, valid.get(argument)):
        assert ([a.tobytes() for a in arrays], bytes_of(owner)) == before
    elif use := USES.get(function.split(" ")[0]):
        refuses_well(lambda: use(result[0]), argument)


@pytest.mark.parametrize("function", [*FUNCTIONS, *METHODS])
@given(value=junk | functions)
def test_every_argument(function: str, value: Any) -> None:
    """Each gets a copy, because what is consumed or written by one is something else to the next."""
    for argument in arguments_of(function):
        if argument != "path" or not leads_out(value):
            try_value(function, argument, copy.deepcopy(value))


@pytest.mark.parametrize(
    ("function", "argument"), [(name, tree) for name in [*FUNCTIONS, *METHODS] for tree in trees_of(name)]
)
@given(data=st.data())
def test_a_tree_with_a_wrong_entry(function: str, argument: str, data: st.DataObject) -> None:
    try_value(function, argument, data.draw(spoiled(usual(function)[argument])))


@pytest.mark.parametrize(("function", "argument"), ARGUMENTS)
def test_what_nothing_takes(function: str, argument: str) -> None:
    for value in NOTHING_TAKES:
        given = {**usual(function), argument: value}
        assert refuses_well(lambda: public(function)(**given), argument), value  # noqa: B023


@pytest.mark.parametrize("cls", CLASSES)
@given(value=junk, keys=st.sampled_from(["grads", "grads of one", "saved", "group", "keyword"]))
def test_an_argument_of_a_method(cls: Any, value: Any, keys: str) -> None:
    opt = cls({"a": np.ones(3), "b": np.ones(2)}, lr=0.1)
    loss = loss_of(opt)
    opt.step({"a": np.ones(3), "b": np.ones(2)}, **loss)
    before, shown = snapshot(opt), repr(opt)
    acts: dict[str, tuple[str, Callable[[], Any]]] = {
        "grads": ("grads", lambda: opt.step(value, **loss)),
        "grads of one": ("grads", lambda: opt.step({"a": np.ones(3), "b": value}, **loss)),
        "saved": ("saved", lambda: opt.load_state_dict(value)),
        "group": ("group", lambda: opt.add_group(value)),
        "keyword": ("nonsense", lambda: cls([np.ones(3)], lr=0.1, nonsense=value)),
    }
    name, act = acts[keys]
    try:
        refuses_well(act, name)
    finally:
        changed = (snapshot(opt), repr(opt)) != (before, shown)
    assert not changed or (keys == "grads of one" and (value is None or isinstance(value, np.ndarray)))


@given(data=st.data(), value=junk)
def test_an_entry_of_a_state_dict(data: Any, value: Any) -> None:
    opt = fastopt.NAdam({"a": np.ones(3), "b": np.ones(2)}, momentum_decay=0.1, average=0.5, lr=lambda t: 0.1)
    grads = {"a": np.ones(3), "b": np.ones(2)}
    opt.step(grads)
    saved: Any = opt.state_dict()
    opt.step(grads)
    before, shown = snapshot(opt), repr(opt)
    at, key = saved, data.draw(st.sampled_from(sorted(saved)))
    while isinstance(at[key], (dict, list)) and at[key] and data.draw(st.booleans()):
        at = at[key]
        key = data.draw(st.sampled_from(sorted(at) if isinstance(at, dict) else list(range(len(at)))))
    at[key] = value
    try:
        opt.load_state_dict(saved)
    except ValueError:
        assert (snapshot(opt), repr(opt)) == (before, shown)
    else:
        refuses_well(lambda: opt.step(grads), "schedule")


@pytest.mark.parametrize("cls", CLASSES)
@given(value=junk, data=st.data())
def test_an_attribute_and_an_entry_of_a_group(cls: Any, value: Any, data: Any) -> None:
    opt = cls([{"params": np.ones(3)}, {"params": np.ones(2)}], lr=0.1)
    names = [*opt.groups[0], *opt._engine.options, "on_nonfinite", "maximize", "threads"]
    name = data.draw(st.sampled_from(names))
    before, shown = snapshot(opt), repr(opt)
    acts = [lambda: opt.groups[1].__setitem__(name, value)]
    if name != "params":
        acts.append(lambda: setattr(opt, name, value))
    for act in acts:
        shown = repr(opt)
        if refusal := refused(act, AttributeError):
            assert name in refusal
            assert repr(opt) == shown
        assert snapshot(opt) == before


@pytest.mark.parametrize("value", [[0.5] * 100_000, [10**5000], "x" * 10_000])
def test_a_long_value_is_not_shown(value: Any) -> None:
    acts: list[Callable[[], Any]] = [
        lambda: fastopt.SGD([np.ones(1)], lr=value),
        lambda: fastopt.batches(value, 1, 0),
        lambda: fastopt.SGD([np.ones(1)], lr=0.1, maximize=value),
        lambda: fastopt.SGD([np.ones(1)], lr=0.1, backend=value),
        lambda: fastopt.gradcheck(value, None, np.ones(1)),
    ]
    for act in acts:
        assert re.match(rf"^\w+ is a {type(value).__name__}\b.{{,150}}$", refused(act))
