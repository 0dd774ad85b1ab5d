"""Hyperparameters: what each may be, where it is kept, and how a schedule becomes a number.

An optimizer class lists its hyperparameters as descriptors (``eps = Hyperparameter(at_least_0)``): the
descriptor is at once the attribute ``opt.eps``, the name accepted in groups, and the domain that every
value, fixed or scheduled, is checked against.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, MutableMapping
from typing import TYPE_CHECKING, Any, TypeAlias
from weakref import ref

from fastopt.base.arguments import Check, number, shown
from fastopt.base.tree import owned

if TYPE_CHECKING:
    from typing_extensions import TypedDict

    from fastopt.optimizers.base import Optimizer

Schedule: TypeAlias = Callable[[int], float]
"""A callable of `opt.t`, the number of steps applied so far: 0 at the first."""
Scalar: TypeAlias = float | Schedule
Betas: TypeAlias = tuple[Scalar, Scalar]


class Hyperparameter:
    """One hyperparameter of a class. `pair` means two values (betas), `optional` that None is allowed."""

    def __init__(self, check: Check, *, pair: bool = False, optional: bool = False, per_group: bool = True) -> None:
        self.check = check
        self.pair = pair
        self.optional = optional
        self.per_group = per_group

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def admit(self, value: Any) -> Any:
        """The value as it is kept: floats for numbers, callables as they are."""
        if value is None and self.optional:
            return None
        if not self.pair:
            return self._admit_one(self.name, value)
        # An array without dimensions has the method, and refuses.
        if isinstance(value, str) or not isinstance(value, Iterable) or getattr(value, "ndim", 1) == 0:
            raise TypeError(f"{self.name} is {shown(value)}: expected a pair, like (0.9, 0.999)")
        members = tuple(value)
        if len(members) != 2:
            raise ValueError(f"{self.name} has {len(members)} values: expected a pair, like (0.9, 0.999)")
        return tuple(self._admit_one(f"{self.name}[{i}]", x) for i, x in enumerate(members))

    def _admit_one(self, name: str, value: Any) -> Any:
        if callable(value):
            return value
        x = number(name, value, "a number, or a schedule (a callable of opt.t)")
        self.check(name, x)
        return x

    def at(self, t: int, value: Any) -> Any:
        """The number, or pair of numbers, at step t."""
        if self.pair:
            return self._at_one(f"{self.name}[0]", t, value[0]), self._at_one(f"{self.name}[1]", t, value[1])
        return self._at_one(self.name, t, value)

    def _at_one(self, name: str, t: int, value: Any) -> Any:
        if not callable(value):
            return value
        name = f"{name} (its schedule at t={t})"
        x = number(name, value(t))
        self.check(name, x)
        return x

    def __get__(self, opt: Optimizer | None, owner: type) -> Any:
        if opt is None:
            return self
        if not self.per_group:
            return opt._options[self.name]
        values = [group[self.name] for group in opt.groups]
        if any(value != values[0] for value in values):
            raise ValueError(f"{self.name} differs between groups ({values}): read opt.groups[i][{self.name!r}]")
        return values[0]

    def __set__(self, opt: Optimizer, value: Any) -> None:
        admitted = self.admit(value)
        if not self.per_group:
            opt._set_option(self.name, admitted)
            return
        opt._check_value(self.name, admitted)
        for group in opt.groups:
            group[self.name] = admitted


class Own(Hyperparameter):
    """A hyperparameter of something that is no optimizer and keeps it itself."""

    def __get__(self, obj: Any, owner: type) -> Any:
        return self if obj is None else vars(obj)[self.name]

    def __set__(self, obj: Any, value: Any) -> None:
        vars(obj)[self.name] = self.admit(value)


def hyperparameters(cls: type) -> dict[str, Hyperparameter]:
    """Those of a class and its bases, the class's own first."""
    found: dict[str, Hyperparameter | Removed] = {}
    for base in cls.__mro__:
        for name, value in vars(base).items():
            if isinstance(value, Hyperparameter | Removed):
                found.setdefault(name, value)
    return {name: value for name, value in found.items() if isinstance(value, Hyperparameter)}


FOREIGN_NAMES = {
    "learning_rate": "called lr here",
    "eta": "called lr here",
    "alpha": "called rho here (in RMSprop, the decay of the squared gradient)",
    "decay": "the decay of the squared gradient is called rho here; decay of the weights is l2= or decoupled_decay=",
    "beta1": "betas=(beta1, beta2) here",
    "beta2": "betas=(beta1, beta2) here",
    "beta_1": "betas=(beta1, beta2) here",
    "beta_2": "betas=(beta1, beta2) here",
    "b1": "betas=(beta1, beta2) here",
    "b2": "betas=(beta1, beta2) here",
    "epsilon": "called eps here",
    "eps_root": "called eps_inside_sqrt=True with eps here",
    "initial_accumulator_value": "called initial_accumulator here",
    "clipnorm": "clip_norm here is over all parameters together; for each alone: clip_grad_norm_(..., per_tensor=True)",
    "global_clipnorm": "called clip_norm here",
    "max_grad_norm": "called clip_norm here",
    "max_norm": "called clip_norm here",
    "clipvalue": "called clip_value here",
    "use_ema": "called average here: average=0.99",
    "ema_momentum": "called average here",
    "foreach": "there is one implementation here, always fused",
    "fused": "there is one implementation here, always fused",
    "capturable": "there is one implementation here, for the CPU",
    "differentiable": "an update is not differentiable here",
    "l1_penalty": "called l1 here",
    "l2_penalty": "called l2 here",
    "decoupled_weight_decay": "use AdamW, or decoupled_decay= on any other class",
    "num_threads": "called threads here",
    "n_jobs": "called threads here",
    "nesterovs_momentum": "called nesterov here, with momentum=",
}

TWO_DECAYS = (
    "weight_decay means two things in the field: use l2= (added to the gradient, as PyTorch's weight_decay does in "
    "SGD, Adagrad, RMSprop, Adam, NAdam) or decoupled_decay= (taken from the parameter itself, as in AdamW and Keras)"
)


def unknown_keyword(cls: type, name: str, accepted: Iterable[str]) -> TypeError:
    hint = FOREIGN_NAMES.get(name)
    if name == "weight_decay":
        hint = TWO_DECAYS
    elif name == "decoupled_decay":
        hint = "AdamW's decoupled decay is called weight_decay"
    elif hint is None:
        hint = "it takes " + ", ".join(accepted)
    return TypeError(f"{cls.__name__} has no {name!r}: {hint}")


class Removed:
    """Takes a hyperparameter of a base class away, and says what to use."""

    def __init__(self, instead: str) -> None:
        self.instead = instead

    def __get__(self, opt: Optimizer | None, owner: type) -> Any:
        if opt is None:
            return self
        raise AttributeError(self.instead)

    def __set__(self, opt: Optimizer, value: Any) -> None:
        raise AttributeError(self.instead)


class Fixed:
    """An option that is fixed at construction: readable as an attribute, part of the saved state."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, opt: Optimizer | None, owner: type) -> Any:
        return self if opt is None else opt._fixed[self.name]

    def __set__(self, opt: Optimizer, value: Any) -> None:
        raise AttributeError(f"{self.name} is fixed when the optimizer is made: make a new one")


class Group(MutableMapping[str, Any]):
    """The hyperparameters of one group of parameters: ``opt.groups[1]["lr"] = 1e-4``.

    A mapping with fixed keys: "params" (the arrays as they were passed, read-only here), then the
    hyperparameters. Every value is checked as it is set.
    """

    __slots__ = ("_cls", "_names", "_opt", "_params", "_values")

    def __init__(self, opt: Optimizer, params: Any, names: tuple[str, ...], values: dict[str, Any]) -> None:
        # Weak: a dropped optimizer is gone at once, with the memory of its state.
        self._opt = ref(opt)
        self._cls = type(opt)
        self._params = params
        self._names = names
        self._values = values

    @property
    def names(self) -> tuple[str, ...]:
        """The names of this group's parameters."""
        return self._names

    def __getitem__(self, key: str) -> Any:
        if key == "params":
            # In containers of their own: the plan collects gradients by these.
            return owned(self._params)
        if key not in self._values:
            raise KeyError(str(self._unknown(key)))
        return self._values[key]

    def __setitem__(self, key: str, value: Any) -> None:
        if key == "params":
            raise TypeError("a group's params are fixed: use opt.add_group({'params': ...}) for more")
        opt = self._optimizer()
        if key not in self._values:
            raise self._unknown(key)
        admitted = opt._hyperparameters[key].admit(value)
        opt._check_value(key, admitted)
        self._values[key] = admitted
        opt._stale = True

    def _optimizer(self) -> Optimizer:
        opt = self._opt()
        if opt is None:
            raise ReferenceError("the optimizer of this group is no more: keep the optimizer, and use opt.groups")
        return opt

    def _unknown(self, key: str) -> TypeError:
        return unknown_keyword(self._cls, key, self._values)

    def __reduce__(self) -> tuple[Any, ...]:
        opt = self._optimizer()
        return member, (opt, next(i for i, group in enumerate(opt.groups) if group is self))

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


def member(opt: Optimizer, index: int) -> Group:
    """A group, copied or unpickled: that of the optimizer's own copy."""
    if not hasattr(opt, "_groups"):
        raise TypeError("an optimizer whose attributes hold a group of its own is not copied: hold its index instead")
    return opt.groups[index]


def show(value: Any) -> str:
    if isinstance(value, tuple):
        return "(" + ", ".join(show(x) for x in value) + ")"
    if callable(value):
        return getattr(value, "__name__", None) or repr(value)
    return f"{value:g}" if isinstance(value, float) else repr(value)


if TYPE_CHECKING:

    class Options(TypedDict, total=False):
        """The keywords that every optimizer takes; see :class:`fastopt.Optimizer`."""

        l1: Scalar
        l2: Scalar
        decoupled_decay: Scalar
        decay_by_lr: bool
        prox_l1: Scalar
        clip_norm: Scalar | None
        clip_value: Scalar | None
        on_nonfinite: str | None
        maximize: bool
        average: Scalar | None
        flush_subnormals: bool
        threads: int | None
        backend: str
