"""What a class says of a step, apart from any optimizer, because groups of one optimizer may follow several rules."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from typing import Any, ClassVar

from fastopt.base.arguments import shown
from fastopt.base.tree import Array
from fastopt.engine.hyperparameters import Option, OtherName, declared
from fastopt.engine.program import Form, plain

CLASSES: dict[str, type[Rule]] = {}
"""The classes of optimizers by name in lower case, as groups may name them."""


class Rule:
    """The update rule of a class, in functions of h: the numbers of a group and the options fixed at construction, as
    attributes."""

    __slots__ = ()

    _options: ClassVar[Mapping[str, Option]]
    _other_names: ClassVar[Mapping[str, OtherName]]

    needs_loss: ClassVar[bool] = False
    """Whether a step depends on the loss: its passes have it as the number `loss`."""

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        cls._options, cls._other_names = declared(cls, Option), declared(cls, OtherName)
        if cls.names_a_rule():
            CLASSES[cls.__name__.lower()] = cls

    @classmethod
    def names_a_rule(cls) -> bool:
        """Whether it is no base class."""
        return cls.kernel is not Rule.kernel or cls.form.__func__ is not Rule.form.__func__  # type: ignore[attr-defined]

    @classmethod
    def options(cls) -> Mapping[str, Option]:
        """Everything that may be passed or set, by the name that it is kept under."""
        return cls._options

    @classmethod
    def own_name(cls, name: str) -> str:
        """The name that an option is kept under."""
        other = cls._other_names.get(name)
        return other.of if other else name

    @classmethod
    def by_own_names(cls, given: Mapping[str, Any]) -> dict[str, tuple[str, Any]]:
        """What is given, by the names that it is kept under: (the name it was given by, value)."""
        found: dict[str, tuple[str, Any]] = {}
        for name, value in given.items():
            own = cls.own_name(name)
            if own != name and own in given:
                raise TypeError(f"{name} and {own} are one option of {cls.__name__}: pass one of them")
            found[own] = name, value
        return found

    @staticmethod
    def kernel(h: Any) -> str:
        """The kernel of a rule of one walk, in csrc/kernels/rules and fastopt/reference."""
        raise NotImplementedError("this class names no rule: use a subclass, such as fastopt.AdamW")

    @classmethod
    def form(cls, h: Any, p: Array) -> Form:
        """The passes and the state for this parameter."""
        return plain(cls.kernel(h), **cls.starts(h))

    @staticmethod
    def starts(h: Any) -> Mapping[str, float | str]:
        """What state slots start at that do not start at 0: a number, "p" or "g", as `Slot` has it."""
        return {}

    @staticmethod
    def described(h: Any) -> str:
        """The name of the formula as configured, for people."""
        raise NotImplementedError

    @staticmethod
    def coefficients(h: Any) -> dict[str, float]:
        """Numbers of the passes, by name, as far as they do not change with the count of steps."""
        raise NotImplementedError

    @staticmethod
    def coefficients_at(h: Any, t: int) -> dict[str, float]:
        """The other numbers at a tensor's t-th step, 1 at the first; h has the rule's scalars after `advance` too."""
        return {}

    @staticmethod
    def advance(h: Any, scalars: dict[str, float], t: int) -> dict[str, float]:
        """The rule's scalars at the t-th step of a tensor, from those of the step before."""
        return scalars

    @staticmethod
    def initial_scalars(h: Any) -> Mapping[str, float]:
        """What the rule's scalars, one of each for a tensor, start at."""
        return {}

    @classmethod
    def check(cls, h: Any) -> None:
        """Refuses numbers and options that do not go together; called before any state is made."""

    @classmethod
    def check_value(cls, name: str, value: Any, fixed: Mapping[str, Any]) -> None:
        """Refuses a value that the options fixed at construction rule out."""

    @classmethod
    def moving(cls, groups: Mapping[int, Any]) -> Collection[int]:
        """Which of its groups, by their places, take part in a step with these numbers: the gradients of others count
        as None. Raises ValueError where groups exclude each other."""
        return groups.keys()

    @classmethod
    def settle(cls, values: list[Mapping[str, Any]], fixed: dict[str, Any]) -> None:
        """Adds to the fixed options those that follow from the first values."""


def class_named(name: Any) -> type[Rule]:
    """The class that a group's "rule" is, or names."""
    if inspect.isclass(name) and issubclass(name, Rule) and name.names_a_rule():
        return name
    if not isinstance(name, str) or name.lower() not in CLASSES:
        known = ", ".join(map(repr, CLASSES))
        raise ValueError(f"a group's rule is {shown(name)}: expected an optimizer class or one of {known}")
    return CLASSES[name.lower()]
