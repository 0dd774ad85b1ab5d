"""Options of optimizers: what each may be, its default, where it is kept, and how a schedule becomes a number.

A class lists its options as descriptors (``eps = Hyperparameter(at_least_0, 1e-8)``): one is at once the attribute
``opt.eps``, the keyword of the constructor with its default, the name accepted in groups, the domain that every value
is checked against, and the entry in what is saved and shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from fastopt.base.arguments import Check, number, shown, within

Kind = TypeVar("Kind")
REQUIRED: Any = type("_Required", (), {"__repr__": lambda self: "REQUIRED"})()
"""In place of a default: there is none."""


class Option:
    """What all descriptors are. `per_group` says that groups may differ in it, `fixed` that it never changes."""

    per_group = False
    fixed = False

    def __init__(self, default: Any = REQUIRED) -> None:
        self.default = default

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def admit(self, value: Any, name: str = "") -> Any:
        """The value as it is kept; raises TypeError or ValueError with its name, or the one that it was passed by."""
        raise NotImplementedError


class Hyperparameter(Option):
    """A number, or a schedule of it. `pair` means two (betas), `optional` that None is allowed."""

    def __init__(
        self,
        check: Check,
        default: Any = REQUIRED,
        *,
        pair: bool = False,
        optional: bool = False,
        per_group: bool = True,
    ) -> None:
        super().__init__(default)
        self.check = check
        self.pair = pair
        self.optional = optional
        self.per_group = per_group

    def admit(self, value: Any, name: str = "") -> Any:
        """The value as it is kept: floats for numbers, callables as they are."""
        name = name or self.name
        if value is None and self.optional:
            return None
        if not self.pair:
            return self._admit_one(name, value)
        # An array without dimensions has the method, and refuses.
        if isinstance(value, str) or not isinstance(value, Iterable) or getattr(value, "ndim", 1) == 0:
            raise TypeError(f"{name} is {shown(value)}: expected a pair, like (0.9, 0.999)")
        members = tuple(value)
        if len(members) != 2:
            raise ValueError(f"{name} has {len(members)} values: expected a pair, like (0.9, 0.999)")
        return tuple(self._admit_one(f"{name}[{i}]", x) for i, x in enumerate(members))

    def _admit_one(self, name: str, value: Any) -> Any:
        if callable(value):
            return value
        x = number(name, value, "a number, or a schedule (a callable of opt.t)")
        self.check(name, x)
        return x

    def at(self, t: int, value: Any) -> Any:
        """The number, or pair of numbers, at step t."""
        if self.pair:
            return self._at_one("[0]", t, value[0]), self._at_one("[1]", t, value[1])
        return self._at_one("", t, value)

    def _at_one(self, member: str, t: int, value: Any) -> Any:
        return self.given(t, value(t), member) if callable(value) else value

    def given(self, t: int, x: Any, member: str = "") -> float:
        """What a schedule has given at step t, checked."""
        name = f"{self.name}{member} (its schedule at t={t})"
        return within(name, x, self.check)

    def __get__(self, opt: Any, owner: type) -> Any:
        return self if opt is None else opt._engine.value(self)

    def __set__(self, opt: Any, value: Any) -> None:
        if isinstance(value, tuple) and (not self.pair or any(isinstance(x, tuple) for x in value)):
            raise TypeError(
                f"{self.name} is {shown(value)}, a tuple: one value sets all groups; for one each, "
                f'for group, x in zip(opt.groups, values): group["{self.name}"] = x'
            )
        opt._engine.set_everywhere(self, self.admit(value))


class Choice(Option):
    """An option that is no number: `admit` takes its name and the value. Kept for each group with `per_group`."""

    def __init__(self, admit: Callable[[str, Any], Any], default: Any = REQUIRED, *, per_group: bool = False) -> None:
        super().__init__(default)
        self._admit = admit
        self.per_group = per_group

    def admit(self, value: Any, name: str = "") -> Any:
        return self._admit(name or self.name, value)

    def at(self, t: int, value: Any) -> Any:
        return value

    def __get__(self, opt: Any, owner: type) -> Any:
        return self if opt is None else opt._engine.value(self)

    def __set__(self, opt: Any, value: Any) -> None:
        opt._engine.set_everywhere(self, self.admit(value))


class Fixed(Option):
    """An option that is fixed at construction: readable as an attribute, part of the saved state. One without `admit`
    is no keyword: it follows from others."""

    fixed = True

    def __init__(self, admit: Callable[[str, Any], Any] | None = None, default: Any = REQUIRED) -> None:
        super().__init__(default)
        self._admit = admit

    @property
    def derived(self) -> bool:
        return self._admit is None

    def admit(self, value: Any, name: str = "") -> Any:
        assert self._admit is not None
        return self._admit(name or self.name, value)

    def __get__(self, opt: Any, owner: type) -> Any:
        return self if opt is None else opt._engine.fixed[self.name]

    def __set__(self, opt: Any, value: Any) -> None:
        raise AttributeError(f"{self.name} is fixed when the optimizer is made: make a new one")


class OtherName:
    """Another name of an option, as a keyword, an attribute and in groups; with a default of its own for the class."""

    def __init__(self, of: str, default: Any = REQUIRED) -> None:
        self.of = of
        self.default = default

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, opt: Any, owner: type) -> Any:
        return self if opt is None else getattr(opt, self.of)

    def __set__(self, opt: Any, value: Any) -> None:
        option = type(opt).options()[self.of]
        opt._engine.set_everywhere(option, option.admit(value, self.name))


class Own(Hyperparameter):
    """A hyperparameter of something that is no optimizer and keeps it itself."""

    def __get__(self, obj: Any, owner: type) -> Any:
        return self if obj is None else vars(obj)[self.name]

    def __set__(self, obj: Any, value: Any) -> None:
        vars(obj)[self.name] = self.admit(value)


def declared(cls: type, kind: type[Kind]) -> dict[str, Kind]:
    """The descriptors of a kind in a class: of its bases first, each in the order of the last class that has it."""
    found: dict[str, Kind] = {}
    for base in reversed(cls.__mro__):
        for name, x in vars(base).items():
            if isinstance(x, kind):
                found.pop(name, None)
                found[name] = x
    return found


def show(value: Any) -> str:
    if isinstance(value, tuple):
        return "(" + ", ".join(show(x) for x in value) + ")"
    if callable(value):
        return getattr(value, "__name__", None) or repr(value)
    return f"{value:g}" if isinstance(value, float) else repr(value)
