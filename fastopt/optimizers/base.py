"""The base of every optimizer: parameters by name, groups, hyperparameters, state, and the step."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import Any, NamedTuple

from fastopt.around import accumulation, averaging
from fastopt.around import nesterov as lookahead
from fastopt.around.accumulation import ACCUMULATED
from fastopt.base import tree
from fastopt.base.arguments import above_0, at_least_0, boolean, from_0_below_1, one_of, scale_in_range
from fastopt.base.memory import memory_for
from fastopt.base.nonfinite import POLICIES, NonFiniteError, first_nonfinite
from fastopt.base.tree import Array, Tree
from fastopt.core import _core
from fastopt.core import machine as runtime
from fastopt.engine.cohorts import Cohort, Numbers
from fastopt.engine.hyperparameters import Fixed, Group, Hyperparameter, Removed, hyperparameters, show, unknown_keyword
from fastopt.engine.numpy_plan import ReferencePlan
from fastopt.engine.passes import STEPPED
from fastopt.saving.persistent import Persistent

ADDING = "a group is being added: do this after it"


class Report(NamedTuple):
    """What a step did: whether it was applied, the 2-norm of all gradients (None where neither clipping
    nor `on_nonfinite` asked for it), and how many steps were applied and how many skipped so far."""

    applied: bool
    grad_norm: float | None
    step: int
    skipped: int


class Optimizer(Persistent):
    """What all optimizers share. Use a subclass: SGD, Adagrad, RMSprop, Adam, AdamW, NAdam.

    params : an array, a list, a dict of name -> array, nests of these, or a list of group dicts, each with
        "params" and hyperparameters of its own. float32 or float64, contiguous, writable; updated in place.

    Every optimizer takes these keywords; those marked * can differ between groups, and those whose value is
    a number can be a schedule instead, a callable of the number of steps applied so far.

    lr * : learning rate, >= 0.
    l1, l2 * : penalties l1*sum|p| and l2/2*sum p^2, added to the gradient as l1*sign(p) and l2*p. Default 0.
    decoupled_decay * : p *= 1 - lr*decoupled_decay before the rule (AdamW calls it weight_decay). Default 0.
    decay_by_lr : False takes p *= 1 - decoupled_decay instead. Default True.
    prox_l1 * : soft threshold of p by lr*prox_l1 after the rule, reaching exact zeros. Default 0.
    clip_norm : scale all gradients by clip_norm/norm where the 2-norm of all together is larger; > 0.
    clip_value : clamp every gradient to [-clip_value, clip_value]; > 0. Not with clip_norm.
    on_nonfinite : "raise" or "skip" the whole step when a gradient is not finite; None does not look, but with
        clip_norm a norm that is not finite raises.
    maximize : ascend instead of descend (the penalties still pull to zero). Default False.
    average : decay of a running average of the parameters, kept in `averages`, in [0, 1). Default None.
    flush_subnormals : compute with subnormals flushed to zero, inside the step only. Default True.
    threads : at most this many threads, for steps that are large enough; None for `fastopt.info().threads`.
    backend : "c", or "numpy" for the reference through the same class.

    Within a step the order is: finite check, clipping, maximize, penalties, decay, rule, prox, average.
    Raises TypeError or ValueError, naming the parameter and the fix, before anything is written.
    """

    __slots__ = (
        "__weakref__",
        "_accumulated",
        "_accumulation",
        "_carrying",
        "_changing",
        "_cohorts",
        "_common",
        "_current",
        "_current_options",
        "_fixed",
        "_grouped",
        "_groups",
        "_hyperparameters",
        "_lookahead",
        "_maximize",
        "_on_nonfinite",
        "_options",
        "_plan",
        "_schedules",
        "_skipped",
        "_stale",
        "_t",
        "_threads",
    )

    lr = Hyperparameter(at_least_0)
    l1 = Hyperparameter(at_least_0)
    l2 = Hyperparameter(at_least_0)
    decoupled_decay: Hyperparameter | Removed = Hyperparameter(at_least_0)
    prox_l1 = Hyperparameter(at_least_0)
    clip_norm = Hyperparameter(above_0, optional=True, per_group=False)
    clip_value = Hyperparameter(above_0, optional=True, per_group=False)
    average = Hyperparameter(from_0_below_1, optional=True, per_group=False)
    decay_by_lr = Fixed()
    flush_subnormals = Fixed()
    backend = Fixed()

    decay_name = "decoupled_decay"
    _plan: _core.Plan
    _defaults: Mapping[str, Any] = MappingProxyType(
        {
            "l1": 0.0,
            "l2": 0.0,
            "decoupled_decay": 0.0,
            "decay_by_lr": True,
            "prox_l1": 0.0,
            "clip_norm": None,
            "clip_value": None,
            "on_nonfinite": None,
            "maximize": False,
            "average": None,
            "flush_subnormals": True,
            "threads": None,
            "backend": "c",
        }
    )

    # What a subclass says

    @property
    def rule(self) -> str:
        """The name of the kernel, in csrc/rules.h and fastopt/reference.py."""
        raise NotImplementedError(f"{type(self).__name__} names no rule: use a subclass, such as fastopt.AdamW")

    @property
    def formula(self) -> str:
        """The name of the formula as configured, for people."""
        raise NotImplementedError

    def coefficients(self, h: Any) -> dict[str, float]:
        """The rule's coefficients by name, as far as they do not change with the count of steps. h has the numbers
        of a group and the options fixed at construction as attributes."""
        raise NotImplementedError

    def coefficients_at(self, h: Any, t: int) -> dict[str, float]:
        """The rule's other coefficients by name, at a tensor's t-th step (1 at the first). h has, beside the
        above, the rule's scalar state after `advance`."""
        return {}

    def advance(self, h: Any, scalars: dict[str, float], t: int) -> dict[str, float]:
        """The rule's scalar state at the t-th step of a tensor, from that of the step before."""
        return scalars

    @property
    def initial_scalars(self) -> Mapping[str, float]:
        """What the rule's scalar state, one of each for a tensor, starts at."""
        return {}

    def initial_state(self, buffer: str) -> float:
        return 0.0

    def _check_value(self, name: str, value: Any) -> None:
        """Refuses a change of hyperparameters that the construction rules out."""
        if name == "average" and (value is None) != (self._options["average"] is None):
            raise ValueError("whether averages are kept is fixed when the optimizer is made: pass average= there")
        if name in ("clip_norm", "clip_value") and value is not None:
            other = "clip_value" if name == "clip_norm" else "clip_norm"
            if self._options.get(other) is not None:
                raise ValueError(f"{name} and {other} together: clip by one of them (set the other to None first)")

    # Construction

    def __init__(self, params: Tree, values: dict[str, Any], fixed: dict[str, Any], options: Mapping[str, Any]) -> None:
        cls = type(self)
        self._hyperparameters = hyperparameters(cls)
        defaults = {name: value for name, value in self._defaults.items() if self._accepts(name)}
        for name in options:
            if name not in defaults or name in values or name in fixed:
                raise unknown_keyword(cls, name, [*values, *fixed, *defaults])
        given = {**defaults, **values, **options}
        self._fixed = {**fixed}
        for name in ("decay_by_lr", "flush_subnormals"):
            self._fixed[name] = boolean(name, given[name])
        self._fixed["backend"] = one_of("backend", given["backend"], ("c", "numpy"))
        self._options = {"average": None}
        self._options = {name: h.admit(given[name]) for name, h in self._hyperparameters.items() if not h.per_group}
        for name in ("clip_norm", "clip_value"):
            self._check_value(name, self._options[name])
        self.on_nonfinite = given["on_nonfinite"]
        self.maximize = given["maximize"]
        self.threads = given["threads"]
        self._common = {
            name: self._hyperparameters[name].admit(given[name])
            for name in (*values, *defaults)
            if name in self._hyperparameters and self._hyperparameters[name].per_group
        }
        self._grouped = tree.is_groups(params)
        self._begin([dict(group) for group in params] if self._grouped else [{"params": params}])

    def _begin(self, groups: list[dict[str, Any]]) -> None:
        """Takes the first groups in, before any step."""
        self._t = 0
        self._skipped = 0
        self._groups: tuple[Group, ...] = ()
        self._cohorts: list[Cohort] = []
        self._stale: object = True
        self._accumulated: accumulation.Gathered | None = None
        self._accumulation: accumulation.Accumulation | None = None
        self._lookahead: lookahead.LookAhead | None = None
        self._schedules: list[tuple[Any, str, Any]] = []
        self._add(groups)

    @classmethod
    def _accepts(cls, name: str) -> bool:
        return not isinstance(inspect.getattr_static(cls, name, None), Removed)

    def add_group(self, group: Mapping[str, Any]) -> None:
        """Adds a dict with "params" and, optionally, hyperparameters; the others are those given at construction.

        From then on gradients are a list with one tree per group.
        """
        if not isinstance(group, Mapping) or "params" not in group:
            raise TypeError("a group is a dict with 'params': add_group({'params': arrays, 'lr': 1e-4})")
        self._plan.during(ADDING, accumulation.held, self, ADDING, self._add, [dict(group)])

    def _add(self, additions: list[dict[str, Any]]) -> None:
        """Checks new groups against all that is there, then takes them in."""
        accumulation.refuse_pending(self)
        old = self._plan if self._groups else None
        if old:
            old.confirm()
        names = list(old.names) if old else []
        params = list(old.params) if old else []
        unnamed = sum(_unnamed(group["params"]) for group in self._groups)
        groups, members = [], []
        for addition in additions:
            arrays = addition.pop("params")
            own = tree.owned(arrays)
            leaves = tree.flatten(own, first=unnamed)
            unnamed += _unnamed(arrays)
            values = dict(self._common)
            for name, value in addition.items():
                if name not in values:
                    raise unknown_keyword(type(self), name, values)
                values[name] = self._hyperparameters[name].admit(value)
            members.append(list(range(len(names), len(names) + len(leaves))))
            names += [name for name, _ in leaves]
            params += [leaf for _, leaf in leaves]
            groups.append(Group(self, own, tuple(name for name, _ in leaves), values))
        if not params or not all(members):
            raise ValueError("no parameters: pass at least one array" + (" in each group" if groups[1:] else ""))
        tree.check_leaves(list(zip(names, params, strict=True)))
        _core.check_parameters(names, params)
        self._check_groups([*self._groups, *groups])
        branches = [group["params"] for group in (*self._groups, *groups)]
        grouped = self._grouped or len(branches) > 1
        plan = self._make_plan(branches if grouped else branches[0], names, params)
        cohorts = [
            Cohort(i, indices, self._t, dict(self.initial_scalars))
            for i, indices in enumerate(members, len(self._groups))
        ]
        published: _core.Values = [
            (self, "_groups", (*self._groups, *groups)),
            *((self, name, None) for name in ("_accumulation", "_lookahead")),
            (self, "_cohorts", self._cohorts + cohorts),
            (self, "_grouped", grouped),
            (self, "_stale", True),
            (self, "_plan", plan),
        ]
        if old:
            published.append((old, "retired", True))
        _core.publish([], published)

    def _check_groups(self, groups: list[Group]) -> None:
        """Refuses values that the optimizer's construction rules out, alone or together."""
        for group in groups:
            for name, value in group._values.items():
                self._check_value(name, value)

    def _make_plan(self, template: Tree, names: list[str], params: list[Array]) -> _core.Plan:
        """The plan for these parameters; those that had state keep it."""
        old = self._plan if self._groups else None
        states = list(old.states) if old else []
        averages = list(old.averages) if old else []
        buffers = _core.KERNELS[self.rule][1][2:]
        new, averaging = params[len(states) :], self._options["average"] is not None
        memory = memory_for(new, len(buffers) + averaging)
        # Buffer by buffer, as hardware foresees memory that goes on from one tensor to the next.
        parts = [[memory.zeros_like(p) for p in new] for _ in buffers]
        for buffer, part in zip(buffers, parts, strict=True):
            if start := self.initial_state(buffer):
                for a in part:
                    a.fill(start)
        states += zip(*parts, strict=True) if parts else [() for _ in new]
        averages += [memory.copy(p) if averaging else None for p in new]
        backend = _core.Plan if self.backend == "c" else ReferencePlan
        plan = backend(
            self.rule, template, tuple(names), tuple(params), tuple(states), tuple(averages), self.flush_subnormals
        )
        STEPPED.add(plan)
        return plan

    # The step

    def step(self, grads: Tree = ACCUMULATED, *, grad_scale: float | None = None) -> Report:
        """Updates the parameters in place with gradients shaped like them, or with what `accumulate` has gathered.

        grads : the structure of params (for groups: a list with one tree per group). Each array has its
            parameter's shape and dtype, and any strides; it is never written. None leaves that parameter,
            its state and its step count alone.
        grad_scale : what the loss was multiplied by, from 2**-126 to 2**126. The gradients are first multiplied by
            1/grad_scale, exactly for powers of two, so that clipping and `grad_norm` see the true ones; the check for
            NaN and infinity sees them as they come. See :class:`fastopt.LossScaler`.

        Raises TypeError or ValueError for gradients that do not fit and NonFiniteError as `on_nonfinite`
        says; parameters, state and counts are then as they were. A signal, such as a KeyboardInterrupt, comes before
        or after a whole step.
        """
        unscale = 1.0 if grad_scale is None else 1 / scale_in_range(grad_scale)
        if self._accumulated is not None or grads is ACCUMULATED:
            return accumulation.step(self, grads, Report, unscale)
        report: Report = self._plan.step(self, grads, Report, unscale)
        return report

    def _ready(self, missing: int) -> list[Cohort]:
        """The cohorts that the admitted gradients step, once their coefficients are in the plan."""
        cohorts = self._part() if missing else self._cohorts
        if not cohorts:
            return cohorts
        if self._stale:
            self._prepare()
        elif self._schedules:
            self._follow()
        t = self._t + 1
        for cohort in cohorts if self._changing else ():
            h, own = cohort.h, t - cohort.skipped
            if cohort.scalars:
                cohort.advanced = self.advance(h, cohort.scalars, own)
                h = Numbers(vars(h), cohort.advanced)
            if changing := self.coefficients_at(h, own):
                self._plan.set_coefficients(cohort.index, changing)
        return cohorts

    def _refuse(self) -> None:
        """What happens when the plan has refused a step."""
        if self._on_nonfinite != "skip":
            raise NonFiniteError(first_nonfinite(self._plan))

    def accumulate(self, grads: Tree, weight: float = 1.0) -> int:
        """Gathers the mean gradient of micro-batches for `step()`; returns how many there are now.

        grads : as `step` takes them. None counts as 0, and stays None where every micro-batch has None.
        weight : of this micro-batch in the mean, such as its number of examples; > 0.
        """
        return accumulation.accumulate(self, grads, weight)

    def discard_accumulated(self) -> None:
        """Forgets what `accumulate` has gathered."""
        accumulation.discard(self)

    def lookahead(self) -> AbstractContextManager[None]:
        """Has the parameters at Nesterov's look-ahead point inside a with block; of SGD with momentum only.

        The gradients for the coming step are computed there. The block leaves the parameters bit for bit as they
        were, also after an exception; inside it steps, groups, loading and another such block raise RuntimeError.
        """
        return lookahead.lookahead(self)

    def averaged(self) -> AbstractContextManager[None]:
        """Has the averages that `average=` keeps in the parameters inside a with block, to evaluate or save them.

        As with `lookahead`, what the parameters were comes back bit for bit, and steps inside raise RuntimeError.
        """
        return averaging.averaged(self)

    def _prepare(self) -> None:
        """Turns hyperparameters into numbers, and these into programs, one for each cohort: when they have changed."""
        # What a schedule or another thread changes meanwhile is for the next step.
        self._stale = preparing = object()
        self._current_options = dict(self._options)
        self._current = [Numbers(group._values, self._fixed) for group in self._groups]
        self._schedules = [(None, name, x) for name, x in self._options.items() if _scheduled(x)]
        for numbers, group in zip(self._current, self._groups, strict=True):
            self._schedules += [(numbers, name, x) for name, x in group._values.items() if _scheduled(x)]
        for index, cohort in enumerate(self._cohorts):
            cohort.index = index
            cohort.h = self._current[cohort.group]
            for i in cohort.members:
                self._plan.assign(i, index)
        self._changing = type(self).coefficients_at is not Optimizer.coefficients_at
        self._carrying = any(cohort.scalars for cohort in self._cohorts)
        self._follow()
        if self._stale is preparing:
            self._stale = False

    def _follow(self) -> None:
        """Takes the schedules' numbers at this step, and makes the programs: with schedules at every step."""
        for numbers, name, schedule in self._schedules:
            x = self._hyperparameters[name].at(self._t, schedule)
            if numbers is None:
                self._current_options[name] = x
            else:
                setattr(numbers, name, x)
        options, rule = self._current_options, self.rule
        programs: list[_core.Program] = []
        for cohort in self._cohorts:
            calls = self._stages(cohort.h, options)
            calls[rule] = self.coefficients(cohort.h)
            programs.append([(name, calls[name]) for name in _core.KERNELS if name in calls])
        clip = options["clip_norm"]
        self._plan.configure(
            math.inf if clip is None else clip,
            -1.0 if self._maximize else 1.0,
            clip is not None or self._on_nonfinite is not None,
            self._threads or 0,
        )
        self._plan.set_programs(programs)

    def _match(self, grads: Tree) -> list[Any]:
        template = self._plan.template
        if not self._grouped:
            return tree.match(template, grads)
        if not isinstance(grads, (list, tuple)) or len(grads) != len(template):
            raise TypeError(f"the parameters are in {len(template)} groups: pass a list with one gradient tree each")
        pairs = enumerate(zip(template, grads, strict=True))
        return [leaf for i, (group, branch) in pairs for leaf in tree.match(group, branch, f"gradient (group {i})")]

    def _part(self) -> list[Cohort]:
        """The cohorts that have gradients, after parting those of which only some tensors have one."""
        grads = self._plan.grads
        parts: dict[Any, Cohort] = {}
        for cohort in self._cohorts:
            for i in cohort.members:
                key = (cohort.group, cohort.skipped, tuple(cohort.scalars.items()), grads[i] is None)
                if key not in parts:
                    parts[key] = Cohort(cohort.group, [], cohort.skipped, cohort.scalars)
                parts[key].members.append(i)
        # First: an interrupt may come between these two.
        self._stale = True
        self._cohorts = list(parts.values())
        return [cohort for cohort in self._cohorts if grads[cohort.members[0]] is not None]

    def _restored_cohorts(self, t: int, counts: list[tuple[int, dict[str, float]]]) -> list[Cohort]:
        """The cohorts at opt.t = t, from each tensor's own count and scalars."""
        parts: dict[Any, Cohort] = {}
        for cohort in self._cohorts:
            for i in cohort.members:
                own, scalars = counts[i]
                key = (cohort.group, own, tuple(scalars.items()))
                parts.setdefault(key, Cohort(cohort.group, [], t - own, scalars)).members.append(i)
        return list(parts.values())

    def _stages(self, h: Any, options: dict[str, Any]) -> dict[str, dict[str, float]]:
        """The stages around the rule that are on, with their coefficients; the registry has their order."""
        calls: dict[str, dict[str, float]] = {}
        if options["clip_value"] is not None:
            calls["clamp"] = {"one": 1.0, "bound": options["clip_value"]}
        if h.l1:
            calls["l1"] = {"one": 1.0, "l1": h.l1}
        if h.l2:
            calls["l2"] = {"l2": h.l2}
        decay = getattr(h, self.decay_name)
        if decay:
            keep = 1 - (h.lr * decay if self.decay_by_lr else decay)
            if keep < 0:
                raise ValueError(
                    f"{self.decay_name}={decay!r} with lr={h.lr!r} would take more than the whole parameter in a step "
                    f"(it keeps {keep!r} of it): use a smaller one"
                )
            calls["decay"] = {"keep": keep}
        if h.prox_l1:
            calls["prox_l1"] = {"one": 1.0, "threshold": h.lr * h.prox_l1}
        if options["average"] is not None:
            calls["average"] = {"decay": options["average"], "gain": 1 - options["average"]}
        return calls

    # What can be read and changed between steps

    @property
    def t(self) -> int:
        """The number of steps applied so far."""
        return self._t

    @property
    def groups(self) -> tuple[Group, ...]:
        """The groups of parameters, each a mapping of hyperparameters: ``opt.groups[1]["lr"] = 1e-4``."""
        return self._groups

    @property
    def names(self) -> tuple[str, ...]:
        """The name of every parameter, in order."""
        return self._plan.names

    @property
    def state(self) -> Mapping[str, Mapping[str, Any]]:
        """name -> "t" (steps applied to that parameter), the rule's buffers (live arrays) and scalars."""
        buffers = _core.KERNELS[self.rule][1][2:]
        found: dict[str, Mapping[str, Any]] = {}
        for cohort in self._cohorts:
            for i in cohort.members:
                arrays = dict(zip(buffers, self._plan.states[i], strict=True))
                found[self.names[i]] = MappingProxyType({"t": self._t - cohort.skipped, **arrays, **cohort.scalars})
        return MappingProxyType({name: found[name] for name in self.names})

    @property
    def averages(self) -> Tree:
        """The running averages of the parameters (live arrays), in the structure that gradients have."""
        averaging.refuse_none(self)
        return tree.rebuild(self._plan.template, list(self._plan.averages))

    @property
    def bytes_per_step(self) -> int:
        """The memory traffic of a step in which every parameter has a gradient: each array is read, and all but the
        gradients written, once; the gradients are read once more where their norm is measured."""
        plan = self._plan
        measured = self._options["clip_norm"] is not None or self._on_nonfinite is not None
        total = 0
        for p, states, average in zip(plan.params, plan.states, plan.averages, strict=True):
            written = 1 + len(states) + (average is not None)
            total += p.nbytes * (2 * written + 1 + measured)
        return total

    @property
    def on_nonfinite(self) -> str | None:
        return self._on_nonfinite

    @on_nonfinite.setter
    def on_nonfinite(self, value: str | None) -> None:
        self._on_nonfinite: str | None = one_of("on_nonfinite", value, POLICIES)
        self._stale = True

    @property
    def maximize(self) -> bool:
        return self._maximize

    @maximize.setter
    def maximize(self, value: bool) -> None:
        self._maximize = boolean("maximize", value)
        self._stale = True

    @property
    def threads(self) -> int | None:
        return self._threads

    @threads.setter
    def threads(self, value: int | None) -> None:
        self._threads = None if value is None else runtime.thread_count("threads", value)
        self._stale = True

    def _set_option(self, name: str, value: Any) -> None:
        self._check_value(name, value)
        self._options[name] = value
        self._stale = True

    def __repr__(self) -> str:
        elements = sum(p.size for p in self._plan.params)
        lines = [f"{type(self).__name__}: {self.formula}"]
        lines.append(f"  {len(self.names)} tensors, {elements:,} elements, {self._t} steps applied")
        for i, group in enumerate(self._groups):
            values = ", ".join(f"{name}={show(group._values[name])}" for name in group._values)
            lines.append(f"  group {i}: {values}")
        whole: dict[str, Any] = {**self._options, "on_nonfinite": self._on_nonfinite, "maximize": self._maximize}
        whole.update({"threads": self._threads, **self._fixed})
        lines.append("  " + ", ".join(f"{name}={show(value)}" for name, value in whole.items()))
        return "\n".join(lines)


def _scheduled(value: Any) -> bool:
    return callable(value) or (isinstance(value, tuple) and any(map(callable, value)))


def _unnamed(params: Tree) -> int:
    """How many of the numbers that name unnamed arrays these parameters use up."""
    if isinstance(params, (list, tuple)):
        return len(params)
    return 0 if isinstance(params, Mapping) else 1
