"""A group of parameters as its user sees it: a mapping of hyperparameters, because PyTorch's users set them so."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any
from weakref import ref

from fastopt.base.tree import owned
from fastopt.engine.foreign_names import unknown_keyword
from fastopt.engine.hyperparameters import show

GROUP_NAMES = {"clip_norm": "group_clip_norm"}
"""What a group calls an option that has another meaning for the whole optimizer."""


class Group(MutableMapping[str, Any]):
    """The hyperparameters of one group of parameters: ``opt.groups[1]["lr"] = 1e-4``.

    A mapping with fixed keys: "params" (the arrays as they were passed, read-only here), then the
    hyperparameters. Every value is checked as it is set.
    """

    __slots__ = ("_engine", "_fixed", "_frozen", "_names", "_params", "_rule", "_values")

    def __init__(
        self, engine: Any, rule: Any, fixed: dict[str, Any], params: Any, names: tuple[str, ...], values: dict[str, Any]
    ) -> None:
        # Weak: a dropped optimizer is gone at once, with the memory of its state.
        self._engine = ref(engine)
        self._rule = rule
        self._fixed = fixed
        self._params = params
        self._names = names
        self._frozen = values.pop("frozen", False)
        self._values = values

    @property
    def names(self) -> tuple[str, ...]:
        """The names of this group's parameters."""
        return self._names

    @property
    def rule(self) -> type[Any]:
        """The class whose rule this group follows."""
        found: type[Any] = self._rule
        return found

    @property
    def frozen(self) -> bool:
        """Whether its parameters stay as they are: their gradients are not looked at, and there is no state."""
        frozen: bool = self._frozen
        return frozen

    def __getitem__(self, key: str) -> Any:
        if key == "params":
            # In containers of their own: the plan collects gradients by these.
            return owned(self._params)
        key = self._own_name(key)
        if key not in self._values:
            raise KeyError(str(self._unknown(key)))
        return self._values[key]

    def __setitem__(self, key: str, value: Any) -> None:
        if key == "params":
            raise TypeError("a group's params are fixed: use opt.add_group({'params': ...}) for more")
        engine, name = self._owner(), self._own_name(key)
        if name not in self._values:
            raise self._unknown(key)
        engine.set_in_group(self, name, value, key)

    def _own_name(self, key: str) -> str:
        name: str = self._rule.own_name(GROUP_NAMES.get(key, key))
        return name

    def _owner(self) -> Any:
        engine = self._engine()
        if engine is None:
            raise ReferenceError("the optimizer of this group is no more: keep the optimizer, and use opt.groups")
        return engine

    def _unknown(self, key: str) -> TypeError:
        return unknown_keyword(self._rule, key, self._values)

    def __reduce__(self) -> tuple[Any, ...]:
        engine = self._owner()
        return member, (engine.owner(), next(i for i, group in enumerate(engine.groups) if group is self))

    def __delitem__(self, key: str) -> None:
        raise TypeError(f"a group's keys are fixed: {key!r} cannot be removed")

    def __iter__(self) -> Iterator[str]:
        yield "params"
        yield from self._values

    def __len__(self) -> int:
        return 1 + len(self._values)

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={show(value)}" for name, value in self._values.items())
        return f"Group({len(self._names)} tensors, {shown})"


def member(opt: Any, index: int) -> Group:
    """A group, copied or unpickled: that of the optimizer's own copy."""
    if not hasattr(opt, "_engine"):
        raise TypeError("an optimizer whose attributes hold a group of its own is not copied: hold its index instead")
    group: Group = opt.groups[index]
    return group
