"""The base of every optimizer: the face of an engine, with the options that all have."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from contextlib import AbstractContextManager
from numbers import Real
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from fastopt.around import accumulation, averaging, lookahead, nesterov
from fastopt.around.accumulation import ACCUMULATED
from fastopt.around.skips import SkippingEngine, count_or_none, told
from fastopt.base import tree
from fastopt.base.arguments import above_0, at_least_0, boolean, from_0_below_1, one_of, scale_in_range, shown
from fastopt.base.nonfinite import POLICIES
from fastopt.base.tree import Tree
from fastopt.core import machine
from fastopt.engine.bounds import bounds_or_none
from fastopt.engine.engine import Report
from fastopt.engine.foreign_names import unknown_attribute, unknown_keyword
from fastopt.engine.groups import Group
from fastopt.engine.hyperparameters import REQUIRED, Choice, Fixed, Hyperparameter, OtherName, show
from fastopt.engine.numbers import Numbers
from fastopt.engine.rule import Rule
from fastopt.saving.persistent import Persistent

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform
else:

    def dataclass_transform(**_: Any) -> Any:
        return lambda cls: cls


BEGINNINGS = {f"average_{name}": default for name, default in averaging.BEGINNINGS.items()}
ADDING = "a group is being added: do this after it"


def _threads(name: str, value: Any) -> int | None:
    return None if value is None else machine.thread_count(name, value)


@dataclass_transform(kw_only_default=False, field_specifiers=(Hyperparameter, Choice, Fixed, OtherName))
class Optimizer(Persistent, Rule):
    """What all optimizers share. Use a subclass: SGD, Adagrad, RMSprop, Adam, AdamW, NAdam.

    params : an array, a list, a dict of name -> array, nests of these, or a list of group dicts, each with
        "params" and hyperparameters of its own. float32 or float64, contiguous, writable; updated in place.
        A group may name another rule, {"params": ..., "rule": "sgd"} (or a class), whose own defaults it has then, or
        be frozen, {"params": ..., "frozen": True}: its gradients are not looked at, and it has no state.

    Every optimizer takes these keywords; those marked * can differ between groups, and those whose value is
    a number can be a schedule instead, a callable of the number of steps applied so far.

    lr * : learning rate, >= 0.
    l1, l2 * : penalties l1*sum|p| and l2/2*sum p^2, added to the gradient as l1*sign(p) and l2*p. Default 0.
    decoupled_decay * : p *= 1 - lr*decoupled_decay before the rule (AdamW calls it weight_decay too). Default 0.
    decay_by_lr : False takes p *= 1 - decoupled_decay instead. Default True.
    prox_l1 * : soft threshold of p by lr*prox_l1 after the rule, reaching exact zeros. Default 0.
    bounds * : (low, high), a number or None for each, within which every element is after the step; NaN stays. None for
        none. Parameters that start outside are refused. Rounded inwards to the type of a parameter, so that low <= p <=
        high is exact; averages, and points outside a step, may be outside. Default None.
    clip_norm : scale all gradients by clip_norm/norm where the 2-norm of all together is larger; > 0.
    group_clip_norm * : the same for the gradients of each group alone, by their own norm; a group calls it "clip_norm".
    clip_value * : clamp every gradient to [-clip_value, clip_value]; > 0. Only one of these three.
    on_nonfinite : "raise" or "skip" the whole step when a gradient is not finite; None does not look, but with
        clip_norm a norm that is not finite raises, and a gradient where a rule adds up over all tensors (Prodigy,
        PolyakSGD), so that it would go from one to all.
    max_skips : with on_nonfinite="skip", steps in a row that may be skipped: the next raises NonFiniteError, which says
        what was not finite. >= 1. Default None, no end.
    maximize * : ascend instead of descend (the penalties still pull to zero). Default False.
    average : decay of a running average of the parameters, kept in `averages`, in [0, 1). Default None.
    average_debias, average_warmup, average_start : how it begins: without the parameters at construction, with a
        smaller decay at first, and only after so many steps. `average` is then the schedule `schedules.ema_decay` of
        these, and saved as such. Defaults False, False, 0.
    average_dtype : "float64" keeps averages of float32 parameters in float64, where they go on moving at a decay close
        to 1. Default None: that of each parameter.
    flush_subnormals : compute with subnormals flushed to zero, inside the step only. Default True.
    threads : at most this many threads, for steps that are large enough; None for `fastopt.info().threads`.
    backend : "c", or "numpy" for the reference through the same class.

    Within a step the order is: finite check, clipping, maximize, penalties, decay, rule, prox, Lookahead, bounds,
    average.
    Raises TypeError or ValueError, naming the parameter and the fix, before anything is written.
    """

    __slots__ = ("__weakref__", "_engine")

    lr = Hyperparameter(at_least_0)
    l1 = Hyperparameter(at_least_0, 0.0)
    l2 = Hyperparameter(at_least_0, 0.0)
    decoupled_decay = Hyperparameter(at_least_0, 0.0)
    decay_by_lr = Fixed(boolean, True)
    prox_l1 = Hyperparameter(at_least_0, 0.0)
    bounds = Choice(bounds_or_none, None, per_group=True)
    clip_norm = Hyperparameter(above_0, None, optional=True, per_group=False)
    group_clip_norm = Hyperparameter(above_0, None, optional=True)
    clip_value = Hyperparameter(above_0, None, optional=True)
    on_nonfinite = Choice(lambda name, value: one_of(name, value, POLICIES), None)
    max_skips = Choice(count_or_none, None)
    maximize = Choice(boolean, False, per_group=True)
    average = Hyperparameter(from_0_below_1, None, optional=True, per_group=False)
    average_dtype = Fixed(averaging.average_dtype, None)
    flush_subnormals = Fixed(boolean, True)
    threads = Choice(_threads, None)
    backend = Fixed(lambda name, value: one_of(name, value, ("c", "numpy")), "c")

    divides_by_root_of_squares: ClassVar[bool] = False
    """Whether eps is all that is left where the squares of gradients have become 0."""

    _engine: SkippingEngine
    _engine_class = SkippingEngine
    _parts = {"accumulation": accumulation, "lookahead": lookahead}  # noqa: RUF012

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        cls.__signature__ = _signature(cls)  # type: ignore[attr-defined]

    def __init__(self, params: Tree = REQUIRED, *positional: Any, **given: Any) -> None:
        cls = type(self)
        if cls is Optimizer:
            raise NotImplementedError("Optimizer names no rule: use a subclass, such as fastopt.AdamW")
        signature: inspect.Signature = cls.__signature__  # type: ignore[attr-defined]
        names = [name for name, x in signature.parameters.items() if x.kind is x.POSITIONAL_OR_KEYWORD][1:]
        if len(positional) > len(names):
            raise TypeError(
                f"{cls.__name__} takes params and at most {len(names)} more by position, not {len(positional)}"
            )
        for name, value in zip(names, positional, strict=False):
            if name in given:
                raise TypeError(f"{cls.__name__} got {name} twice, by position and by keyword")
            given[name] = value
        given = averaging.folded(given, cls.average)
        for name in given:
            if name not in signature.parameters:
                raise unknown_keyword(cls, name, [*signature.parameters][1:])
        if params is REQUIRED or isinstance(params, Real):
            found = "needs params" if params is REQUIRED else f"takes params first, not {shown(params)}"
            raise TypeError(f"{cls.__name__} {found}: the arrays to update, as in {cls.__name__}(params, lr=0.1)")
        values, fixed, whole = cls._take(given)
        grouped = tree.is_groups(params)
        if whole["max_skips"] is not None and whole["on_nonfinite"] != "skip":
            raise ValueError(
                f"max_skips={whole['max_skips']} with on_nonfinite={whole['on_nonfinite']!r}, which skips no step: "
                "pass on_nonfinite='skip' too"
            )
        if fixed["average_dtype"] is not None and whole["average"] is None:
            raise ValueError("average_dtype without average=: there is no average to keep so")
        engine = self._engine_class(self, cls, whole, fixed, values, grouped)
        self._engine = engine
        engine.add([dict(group) for group in params] if grouped else [{"params": params}])

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if hasattr(type(self), name):
                return object.__getattribute__(self, name)  # Raises again what a descriptor has said.
            raise unknown_attribute(self, name, type(self).__signature__.parameters)

    @classmethod
    def _take(cls, given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """Of keywords, the values that groups have, the fixed options and those of the whole optimizer, checked."""
        options = cls.options()
        keywords = [name for name in cls.__signature__.parameters if name != "params"]  # type: ignore[attr-defined]
        taken = cls.by_own_names(given)
        for other in cls._other_names.values():
            if other.default is not REQUIRED:
                taken.setdefault(other.of, ("", other.default))
        values: dict[str, Any] = {}
        fixed: dict[str, Any] = {}
        whole: dict[str, Any] = {}
        for name in dict.fromkeys(map(cls.own_name, keywords)):
            if name in BEGINNINGS:
                continue
            option = options[name]
            called, value = taken.get(name, ("", option.default))
            if value is REQUIRED:
                raise TypeError(f"{cls.__name__} needs {name}: for example {cls.__name__}(params, {name}=0.1)")
            kept = fixed if option.fixed else values if option.per_group else whole
            kept[name] = option.admit(value, called)
        return values, fixed, whole

    @classmethod
    def defaults(cls, given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The values and the class's own fixed options of a group that names this rule, with those it gives."""
        own = cls.own_options()
        passed = cls.by_own_names(given)
        picked = {name: x for name, (_, x) in passed.items() if name in own or name == "lr"}
        values, fixed, _ = cls._take(picked)
        return values, {name: x for name, x in fixed.items() if name in own}

    @classmethod
    def own_options(cls) -> dict[str, Any]:
        """Those that not every class has."""
        return {name: option for name, option in cls.options().items() if name not in Optimizer.options()}

    @classmethod
    def check_value(cls, name: str, value: Any, fixed: Mapping[str, Any]) -> None:
        if name == "maximize" and value and cls.needs_loss:
            raise ValueError(
                f"{cls.__name__} with maximize=True: its step goes down by how far the loss is above its least; "
                "negate the loss and its gradients instead"
            )
        if name == "eps" and value == 0 and cls.divides_by_root_of_squares and fixed["flush_subnormals"]:
            raise ValueError(
                f"{cls.__name__} with eps=0 and flush_subnormals=True: the square of a gradient below 1e-19 (float32, "
                "or 1e-154 in float64) is flushed to 0, and dividing by its root gives infinity: pass a small eps, "
                "such as 1e-12, or flush_subnormals=False"
            )

    @property
    def rule(self) -> str:
        """The kernel that writes the parameters, in csrc/kernels/rules and fastopt/reference, of the first group."""
        h = self._numbers()
        kernel: str = self._engine.groups[0].rule.form(h, self._engine.plan.params[0]).kernel
        return kernel

    @property
    def formula(self) -> str:
        """The name of the formula as configured, for people."""
        described: str = self._engine.groups[0].rule.described(self._numbers())
        return described

    def _numbers(self) -> Any:
        group = self._engine.groups[0]
        return Numbers(group._values, group._fixed)

    # Groups

    def add_group(self, group: Mapping[str, Any]) -> None:
        """Adds a dict with "params" and, optionally, hyperparameters; the others are those given at construction.

        From then on gradients are a list with one tree per group.
        """
        if not isinstance(group, Mapping) or "params" not in group:
            raise TypeError("a group is a dict with 'params': add_group({'params': arrays, 'lr': 1e-4})")
        engine = self._engine
        engine.plan.during(ADDING, accumulation.held, engine, ADDING, self._add, dict(group))

    def _add(self, group: dict[str, Any]) -> None:
        accumulation.refuse_pending(self._engine)
        self._engine.add([group])

    # The step

    def step(self, grads: Tree = ACCUMULATED, *, loss: float | None = None, grad_scale: float | None = None) -> Report:
        """Updates the parameters in place with gradients shaped like them, or with what `accumulate` has gathered.

        grads : the structure of params (for groups: a list with one tree per group). Each array has its
            parameter's shape and dtype, and any strides; it is never written. None leaves that parameter,
            its state and its step count alone.
        loss : of the whole batch, not scaled, for rules whose step depends on it, such as PolyakSGD's: these need it,
            and no other takes it. One that is not finite counts as a gradient that is not.
        grad_scale : what the loss was multiplied by, from 2**-126 to 2**126. The gradients are first multiplied by
            1/grad_scale, exactly for powers of two, so that clipping and `grad_norm` see the true ones; the check for
            NaN and infinity sees them as they come. See :class:`fastopt.LossScaler`.

        Raises TypeError or ValueError for gradients or a loss that do not fit and NonFiniteError as `on_nonfinite`
        and `max_skips` say; parameters, state and counts are then as they were. A signal, such as a
        KeyboardInterrupt, comes before or after a whole step.
        """
        unscale = 1.0 if grad_scale is None else 1 / scale_in_range(grad_scale)
        engine = self._engine
        if grads is ACCUMULATED or engine.accumulated is not None:
            report = accumulation.step(engine, grads, Report, unscale, loss)
        else:
            report = engine.step(grads, Report, unscale, False, loss)
        return report if engine.nonfinite is None else told(engine, report)

    def accumulate(self, grads: Tree, weight: float = 1.0, *, loss: float | None = None) -> int:
        """Gathers the mean gradient of micro-batches for `step()`; returns how many there are now.

        grads : as `step` takes them. None counts as 0, and stays None where every micro-batch has None.
        weight : of this micro-batch in the mean, such as its number of examples; > 0.
        loss : of this micro-batch, where `step` needs one: the step takes the mean of these.
        """
        return accumulation.accumulate(self._engine, grads, weight, loss)

    def discard_accumulated(self) -> None:
        """Forgets what `accumulate` has gathered."""
        accumulation.discard(self._engine)

    def nesterov_point(self) -> AbstractContextManager[None]:
        """Has the parameters at Nesterov's look-ahead point inside a with block; of SGD with momentum only.

        The gradients for the coming step are computed there. The block leaves the parameters bit for bit as they
        were, also after an exception; inside it steps, groups, loading and another such block raise RuntimeError.
        """
        return nesterov.nesterov_point(self)

    def averaged(self) -> AbstractContextManager[None]:
        """Has the averages that `average=` keeps in the parameters inside a with block, to evaluate or save them.

        As with `nesterov_point`, what the parameters were comes back bit for bit, and steps inside raise RuntimeError.
        """
        return averaging.averaged(self._engine)

    # What can be read between steps

    @property
    def t(self) -> int:
        """The number of steps applied so far."""
        return self._engine.t

    @property
    def groups(self) -> tuple[Group, ...]:
        """The groups of parameters, each a mapping of hyperparameters: ``opt.groups[1]["lr"] = 1e-4``."""
        return self._engine.groups

    @property
    def takes_loss(self) -> bool:
        """Whether the rule of a group needs the loss: `step` and `accumulate` then need `loss=`, and else refuse it."""
        return self._engine.takes_loss

    @property
    def names(self) -> tuple[str, ...]:
        """The name of every parameter, in order."""
        return self._engine.plan.names

    def current(self) -> tuple[dict[str, Any], ...]:
        """The numbers that the coming step would use, a dict for each group: schedules as of `opt.t`, and the options
        of the whole optimizer. `opt.lr` and `opt.groups` give what was set."""
        return self._engine.numbers()

    @property
    def state(self) -> Mapping[str, Mapping[str, Any]]:
        """name -> "t" (steps applied to that parameter), the rule's buffers (live arrays) and scalars."""
        return MappingProxyType({name: MappingProxyType(entry) for name, entry in self._engine.state().items()})

    @property
    def scalars(self) -> Mapping[str, float]:
        """The numbers that a rule keeps for all of its parameters together, by name, such as Prodigy's d."""
        found: dict[str, float] = {}
        for own in self._engine.of_all().values():
            found.update(own)
        return MappingProxyType(found)

    @property
    def averages(self) -> Tree:
        """The running averages of the parameters (live arrays), in the structure that gradients have."""
        averaging.refuse_none(self._engine)
        return tree.rebuild(self._engine.plan.template, list(self._engine.plan.averages))

    @property
    def bytes_per_step(self) -> int:
        """The memory traffic of a step in which every parameter has a gradient: each array is read, and all but the
        gradients written, once; the gradients are read once more where their norm is measured. Lookahead's slow point,
        which most steps leave alone, does not count."""
        plan, measured = self._engine.plan, self._engine.measures
        total = 0
        for p, states, average in zip(plan.params, plan.states, plan.averages, strict=True):
            moved = states if self._engine.lookahead is None else states[:-1]
            written = p.nbytes + sum(a.nbytes for a in moved) + (0 if average is None else average.nbytes)
            total += 2 * written + p.nbytes * (1 + measured)
        return total

    def __repr__(self) -> str:
        engine = self._engine
        elements = sum(p.size for p in engine.plan.params)
        lines = [f"{type(self).__name__}: {self.formula}"]
        lines.append(f"  {len(self.names)} tensors, {elements:,} elements, {engine.t} steps applied")
        for i, group in enumerate(engine.groups):
            own = "" if group._rule is type(self) else f"{group._rule.__name__}, "
            own += "frozen, " if group._frozen else ""
            named = {other.of: name for name, other in group._rule._other_names.items()}
            values = ", ".join(f"{named.get(name, name)}={show(value)}" for name, value in group._values.items())
            lines.append(f"  group {i}: {own}{values}")
        if engine.lookahead is not None:
            lines.append("  Lookahead: k={}, alpha={:g}".format(*engine.lookahead))
        whole = {**engine.options, **engine.fixed}
        lines.append("  " + ", ".join(f"{name}={show(value)}" for name, value in whole.items()))
        return "\n".join(lines)


def _signature(cls: type[Optimizer]) -> inspect.Signature:
    """What the constructor takes: params, the class's numbers, its fixed options, then by keyword what all take."""
    options, others, common = cls.options(), cls._other_names, Optimizer.options()
    own = ["lr", *(name for name in (*options, *others) if name not in common)]
    named: dict[str, Any] = {**options, **others}
    numbers = [name for name in own if not getattr(named[name], "fixed", False)]
    switches = [
        name for name in own if getattr(named[name], "fixed", False) and not getattr(named[name], "derived", False)
    ]
    shadowed = {other.of for other in others.values()}
    rest = [name for name in common if name not in own and name not in shadowed]
    rest += [name for name in common if name in shadowed]
    make, empty = inspect.Parameter, inspect.Parameter.empty

    def parameter(name: str, kind: Any) -> inspect.Parameter:
        default = named[name].default
        return make(name, kind, default=empty if default is REQUIRED else default)

    parameters = [make("params", make.POSITIONAL_OR_KEYWORD)]
    parameters += [parameter(name, make.POSITIONAL_OR_KEYWORD) for name in (*numbers, *switches)]
    for name in dict.fromkeys(rest):
        parameters.append(parameter(name, make.KEYWORD_ONLY))
        if name == "average":
            parameters += [make(begin, make.KEYWORD_ONLY, default=x) for begin, x in BEGINNINGS.items()]
    return inspect.Signature(parameters)
