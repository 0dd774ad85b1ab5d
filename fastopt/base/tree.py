"""Nested parameters: a name for every array, and gradients matched to them by structure.

A tree is an array, a list or tuple of trees, or a dict of name -> tree. The name of an array is the
path to it: "layer1.W", "0". Groups are a list of dicts that each hold a tree under "params"; unnamed
arrays are counted on from one group to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastopt.base.foreign import way_in

Array: TypeAlias = NDArray[Any]
Tree: TypeAlias = Any
"""An array, or lists, tuples and dicts of trees. Recursive types are beyond what callers can annotate."""


def is_groups(params: object) -> bool:
    """PyTorch-style groups: a list in which every item is a dict with "params"."""
    return (
        isinstance(params, (list, tuple))
        and len(params) > 0
        and all(isinstance(item, Mapping) and "params" in item for item in params)
    )


def flatten(tree: Tree, prefix: str = "", first: int = 0, what: str = "parameter") -> list[tuple[str, Any]]:
    """(name, leaf) of every leaf, in order; items of a top-level list are numbered from `first`."""
    try:
        return _leaves(tree, what, prefix, first)
    except RecursionError:
        raise _too_deep(what) from None


def _leaves(tree: Tree, what: str, prefix: str, first: int = 0) -> list[tuple[str, Any]]:
    if isinstance(tree, Mapping):
        for key in tree:
            if not isinstance(key, str):
                raise TypeError(
                    f"{_where(prefix, what)} has the key {key!r}: the keys of a dict of arrays are names (str)"
                )
        return [leaf for key, item in tree.items() for leaf in _leaves(item, what, _join(prefix, key))]
    if isinstance(tree, (list, tuple)):
        return [leaf for i, item in enumerate(tree, first) for leaf in _leaves(item, what, _join(prefix, str(i)))]
    return [(prefix or str(first), tree)]


def match(template: Tree, tree: Tree, what: str = "gradient", path: str = "", first: int = 0) -> list[Any]:
    """The leaves of `tree` in the order of `template`; None stands for a leaf or for a whole branch of them."""
    if isinstance(template, Mapping):
        if tree is None:
            return [leaf for item in template.values() for leaf in match(item, None)]
        if not isinstance(tree, Mapping):
            keys = ", ".join(map(repr, template))
            raise TypeError(f"{_where(path, what)} is {kind(tree)}: expected a dict with the parameters' keys, {keys}")
        if tree.keys() != template.keys():
            raise ValueError(_differing_names(template, tree, what, path))
        leaves = []
        for key, item in template.items():
            leaves += match(item, tree[key], what, _join(path, key))
        return leaves
    if isinstance(template, (list, tuple)):
        if tree is None:
            return [leaf for item in template for leaf in match(item, None)]
        if not isinstance(tree, (list, tuple)):
            raise TypeError(
                f"{_where(path, what)} is {kind(tree)}: expected a list of {len(template)}, as the parameters are"
            )
        if len(tree) != len(template):
            raise ValueError(
                f"{_where(path, what)} has {len(tree)} items and the parameters {len(template)}: "
                "give one for each, None where there is none"
            )
        leaves = []
        for i, (item, branch) in enumerate(zip(template, tree, strict=True), first):
            leaves += match(item, branch, what, _join(path, str(i)))
        return leaves
    if tree is not None and not isinstance(tree, np.ndarray):
        raise TypeError(
            f"{what} of {path or str(first)!r} is {kind(tree)}: expected a numpy array like its parameter, or None"
            + ("" if isinstance(tree, (Mapping, list, tuple)) else f"; {way_in(tree)}")
        )
    return [tree]


def rebuild(template: Tree, leaves: list[Any]) -> Tree:
    """A tree like `template` with these leaves in its order."""
    remaining = iter(leaves)
    return transform(template, lambda _: next(remaining))


def owned(tree: Tree, what: str = "parameter") -> Tree:
    """The same leaves in containers of our own: the caller may change theirs."""
    try:
        return transform(tree, lambda leaf: leaf)
    except RecursionError:
        raise _too_deep(what) from None


def transform(tree: Tree, f: Callable[[Any], Any]) -> Tree:
    if isinstance(tree, Mapping):
        return {key: transform(item, f) for key, item in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [transform(item, f) for item in tree]
    return f(tree)


def check_leaves(leaves: Sequence[tuple[str, Any]], what: str = "parameter") -> None:
    """Refuses names that collide and leaves that are no arrays of numbers in a container."""
    seen: set[str] = set()
    for name, leaf in leaves:
        if name in seen:
            raise ValueError(f"two {what}s are named {name!r}: rename one (a dict of name -> array gives names)")
        seen.add(name)
        if leaf is None:
            raise TypeError(f"{what} {name!r} is None: leave it out")
        if isinstance(leaf, Iterable) and not isinstance(leaf, (np.ndarray, str)):
            raise TypeError(f"{what} {name!r} is {kind(leaf)}: {way_in(leaf)}")


def _too_deep(what: str) -> ValueError:
    return ValueError(f"the {what} tree is nested too deeply: does a list or dict contain itself?")


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def kind(x: object) -> str:
    """What something is, for errors."""
    if isinstance(x, np.ndarray):
        return f"an array of {x.dtype}"
    return "None" if x is None else "a " + f"{type(x).__module__}.{type(x).__qualname__}".removeprefix("builtins.")


def _where(path: str, what: str = "parameter") -> str:
    return f"the {what} tree under {path!r}" if path else f"the {what} tree"


def _differing_names(template: Mapping[str, Any], tree: Mapping[str, Any], what: str, path: str) -> str:
    missing = [repr(_join(path, key)) for key in template if key not in tree]
    extra = [repr(_join(path, str(key))) for key in tree if key not in template]
    found = []
    if missing:
        found.append(f"no {what} for {', '.join(missing)} (pass None to leave a parameter alone)")
    if extra:
        found.append(f"a {what} for {', '.join(extra)}, which is no parameter")
    return f"{_where(path, what)} does not match the parameters: " + "; ".join(found)
