"""Junk for every argument of every public function: TypeError or ValueError, by name, with nothing written."""

from __future__ import annotations

import copy
import inspect
import sys
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from operator import attrgetter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import fastopt
from fastopt import runtime
from tests.lockstep import snapshot

CLASSES = [getattr(fastopt, name) for name in fastopt.optimizers.__all__]


class Odd:
    """Equal to nothing, true of nothing, and not to be converted."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("do not compare me")

    def __bool__(self) -> bool:
        raise RuntimeError("do not ask me")

    def __repr__(self) -> str:
        return "Odd()"


def endless() -> Any:
    tree: list[Any] = [np.ones(2)]
    tree.append(tree)
    return tree


def masked() -> Any:
    return np.ma.masked_array(np.ones(3), [True, False, True])


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([10**400, -(10**400), 2**63, 0, -1, 255, 256]),
    st.floats(),
    st.complex_numbers(),
    st.text(max_size=5),
    st.binary(max_size=5),
    st.sampled_from(
        [Decimal("NaN"), Decimal(1), Fraction(1, 3), Fraction(10**400), Ellipsis, NotImplemented, range(3)]
    ),
    st.sampled_from(
        [
            np.float16(1),
            np.longdouble("1e4000"),
            np.int8(3),
            np.bool_(True),
            np.datetime64(1, "s"),
            np.timedelta64(1, "s"),
            np.str_("x"),
        ]
    ),
    st.builds(Odd),
    st.sampled_from([int, dict, len, lambda t: "fast", lambda: 1, np.ones]),
)
arrays = st.one_of(
    hnp.arrays(hnp.scalar_dtypes(), hnp.array_shapes(min_dims=0, min_side=0, max_side=3)),
    st.builds(masked),
    st.sampled_from([np.array([1, None]), np.array(0.5), np.array(None), np.zeros(3, "f4,f8"), np.float32(1)]),
)
junk = st.recursive(
    scalars | arrays | st.builds(endless),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(st.text(max_size=3) | st.integers() | st.none(), inner, max_size=3),
        st.sets(st.integers(), max_size=2),
        st.builds(iter, st.lists(inner, max_size=2)),
    ),
    max_leaves=6,
)

FUNCTIONS: dict[str, dict[str, Any]] = {
    "arena": {"arrays": [np.ones(3)]},
    "batches": {"n": 10, "size": 3, "rng": 0},
    "clip_grad_norm_": {"grads": [np.ones(3)], "max_norm": 1.0},
    "clip_grad_value_": {"grads": [np.ones(3)], "clip_value": 1.0},
    "global_norm": {"grads": [np.ones(3)]},
    "info": {},
    "EMA": {"params": [np.ones(3)], "decay": 0.9},
    "EarlyStopping": {"patience": 2},
    "LBFGS": {"params": [np.ones(3)]},
    "LossScaler": {},
    "RunningMean": {"params": [np.ones(3)]},
    "SAM": {"opt": fastopt.SGD(np.ones(3), lr=0.1)},
    "init.he_normal": {"shape": (2, 3), "rng": 0},
    "selftest": {},
    "set_num_threads": {"n": 2},
    "subnormals": {},
    "losses.mse": {"prediction": np.ones(3), "target": np.zeros(3)},
    "losses.huber": {"prediction": np.ones(3), "target": np.zeros(3)},
    "losses.binary_cross_entropy_with_logits": {"logits": np.ones(2), "target": np.zeros(2)},
    "losses.gaussian_nll": {"mean": np.ones(2), "target": np.zeros(2), "var": np.ones(2)},
    "losses.sparse_cross_entropy": {"logits": np.eye(2), "classes": np.array([0, 1])},
    "schedules.constant": {"v": 0.1},
    "schedules.cosine": {"v": 0.1, "steps": 10},
    "schedules.linear": {"v": 0.1, "end": 0.0, "steps": 10},
    "schedules.ReduceOnPlateau": {"v": 0.1},
}
# What an error calls a tree, where it does not say the argument's name.
TREES = {
    "params": "parameter",
    "grads": "gradient|clipped|norm",
    "sample_weight": "all weights are 0",
    "arrays": "array|'0'|tree|parameter",
    "saved": "state",
}


def names_of(function: Any) -> list[str]:
    if function is fastopt.subnormals:
        return ["flush"]
    names = [name for name in inspect.signature(function).parameters if name != "options"]
    return names + [name for name in fastopt.Optimizer._defaults if name not in names] if function in CLASSES else names


def refuses_well(act: Callable[[], Any], name: str) -> None:
    """Either it takes the junk, or it says which argument is wrong."""
    words = [name, *TREES.get(name, name).split("|")]
    refusal = refused(act)
    assert not refusal or any(word in refusal for word in words), f"{name} is not named in: {refusal}"


def refused(act: Callable[[], Any], *more: type[Exception]) -> str:
    """What the error says; an empty string where there is none."""
    try:
        act()
    except (TypeError, ValueError, *more) as error:
        return str(error)
    return ""


def public(name: str) -> Any:
    return attrgetter(name)(fastopt)


ARGUMENTS = [
    (name, argument) for name in [*(cls.__name__ for cls in CLASSES), *FUNCTIONS] for argument in names_of(public(name))
]


@pytest.fixture(autouse=True)
def _threads_as_before(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(sys.modules["fastopt.selftest"], "LENGTHS", (1,))
    n, why = fastopt.info().threads, runtime._threads_why
    yield
    runtime._use_threads(n, why)


@pytest.mark.parametrize(("function", "argument"), ARGUMENTS)
@given(value=junk)
def test_an_argument_of_a_function(function: str, argument: str, value: Any) -> None:
    target = public(function)
    valid = {"params": [np.ones(3), np.ones(2)]} if target in CLASSES else copy.deepcopy(FUNCTIONS[function])
    if function == "SGD":
        valid["lr"] = 0.1
    given_arrays = [a for tree in valid.values() if isinstance(tree, list) for a in tree if argument != "params"]
    before = [a.copy() for a in given_arrays]
    refuses_well(lambda: target(**{**valid, argument: value}), argument)
    if target in CLASSES:
        assert all(map(np.array_equal, given_arrays, before))


@pytest.mark.parametrize("cls", CLASSES)
@given(value=junk, keys=st.sampled_from(["grads", "grads of one", "saved", "group", "keyword"]))
def test_an_argument_of_a_method(cls: Any, value: Any, keys: str) -> None:
    opt = cls({"a": np.ones(3), "b": np.ones(2)}, lr=0.1)
    opt.step({"a": np.ones(3), "b": np.ones(2)})
    before, shown = snapshot(opt), repr(opt)
    acts: dict[str, tuple[str, Callable[[], Any]]] = {
        "grads": ("grads", lambda: opt.step(value)),
        "grads of one": ("grads", lambda: opt.step({"a": np.ones(3), "b": value})),
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
    names = [*opt.groups[0], *opt._options, "on_nonfinite", "maximize", "threads"]
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
