"""The engine of an optimizer: its groups and their rules, the plan of its parameters, and how a step gets its numbers.

The core's half of it (core/engine.pxi) takes the steps. Programs are compiled where it changes which stages are
on; between, a schedule's numbers go straight into their places. `Optimizer` owns one and shows it; accumulation,
points, averages and saving are given one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from weakref import ref

from fastopt.base import tree
from fastopt.base.arguments import boolean, number, shown
from fastopt.base.memory import copies_of, doubles_of, memory_for, zeros
from fastopt.base.nonfinite import NonFiniteError, first_nonfinite
from fastopt.base.tree import Array, Tree
from fastopt.core import _core
from fastopt.engine.bounds import outside
from fastopt.engine.foreign_names import unknown_keyword
from fastopt.engine.groups import GROUP_NAMES, Group
from fastopt.engine.hyperparameters import Option
from fastopt.engine.numbers import Noted, Numbers
from fastopt.engine.numpy_plan import ReferencePlan
from fastopt.engine.passes import STEPPED
from fastopt.engine.program import LIKE_P, ROWS, SLOW, Form, compiled
from fastopt.engine.rule import Rule, class_named
from fastopt.engine.stages import STAGES

CLIPS = ("clip_norm", "group_clip_norm", "clip_value")


class Report(NamedTuple):
    """What a step did: whether it was applied, the 2-norm of all gradients (None where neither clipping nor
    `on_nonfinite` nor a rule with sums over all tensors asked for it), and how many steps were applied and how many
    skipped so far. True where it was applied."""

    applied: bool
    grad_norm: float | None
    step: int
    skipped: int

    def __bool__(self) -> bool:
        return self.applied


class Engine(_core.Engine):
    """What steps: see above.

    cls : the class of the optimizer, whose rule groups follow that name no other.
    options : the hyperparameters and choices of the whole; `fixed` what never changes; `common` what groups have that
        say nothing else.
    """

    groups: tuple[Group, ...]

    def __init__(
        self,
        owner: Any,
        cls: type[Rule],
        options: dict[str, Any],
        fixed: dict[str, Any],
        common: dict[str, Any],
        grouped: bool,
    ) -> None:
        self._owner = ref(owner)
        self.cls, self.options, self.fixed, self.common, self.grouped = cls, options, fixed, common, grouped
        self.groups = ()
        self.cohorts = []
        self.rules: list[type[Rule]] = []
        self.stale = True
        self.registers: dict[str, dict[str, float]] = {}
        self._live: _core.Plan | None = None
        self.followed, self.affected, self.together = [], [], []
        self.loss = None

    def owner(self) -> Any:
        return self._owner()

    # Parameters

    def add(self, additions: list[dict[str, Any]], anywhere: bool = False) -> None:
        """Checks new groups against all that is there, then takes them in; with `anywhere` also parameters that are
        outside their bounds, as those of a copy may be."""
        old = self.plan if self.groups else None
        if old:
            old.confirm()
        names = list(old.names) if old else []
        params = list(old.params) if old else []
        unnamed = sum(_unnamed(group["params"]) for group in self.groups)
        groups: list[Group] = []
        members: list[range] = []
        for addition in additions:
            arrays = addition.pop("params")
            own = tree.owned(arrays)
            leaves = tree.flatten(own, first=unnamed)
            unnamed += _unnamed(arrays)
            members.append(range(len(names), len(names) + len(leaves)))
            names += [name for name, _ in leaves]
            params += [leaf for _, leaf in leaves]
            rule, fixed, values = self._settings(addition)
            groups.append(Group(self, rule, fixed, own, tuple(name for name, _ in leaves), values))
        if not params or not all(members):
            raise ValueError("no parameters: pass at least one array" + (" in each group" if groups[1:] else ""))
        tree.check_leaves(list(zip(names, params, strict=True)))
        _core.check_parameters(names, params)
        every = [*self.groups, *groups]
        self._check(every)
        if not anywhere:
            for group, indices in zip(groups, members, strict=True):
                self._refuse_outside(group, group._values["bounds"], [params[i] for i in indices])
        branches = [group["params"] for group in every]
        grouped = self.grouped or len(branches) > 1
        forms = self._forms(groups, members, params)
        plan = self._make_plan(every, branches if grouped else branches[0], names, params, forms)
        cohorts = self.cohorts + self._first_cohorts(groups, members, forms)
        takes_loss = any(group._rule.needs_loss for group in every if not group._frozen)
        published: _core.Values = [(self, "groups", tuple(every)), (self, "grouped", grouped)]
        self._replace(plan, cohorts, [*published, (self, "takes_loss", takes_loss)])

    def _settings(self, given: dict[str, Any]) -> tuple[type[Rule], dict[str, Any], dict[str, Any]]:
        """The class of a group's rule, its fixed options, and its values, those not given being the common ones; a
        group that names another rule has that rule's own defaults."""
        rule, fixed, values = self.cls, self.fixed, dict(self.common)
        if "rule" in given:
            named = class_named(given.pop("rule"))
            if named is not self.cls:
                rule = named
                values, fixed = rule.defaults(given)  # type: ignore[attr-defined]
                # Its own, and what all classes have: an option of this class may have the name of another there.
                shared = rule.options().keys() - rule.own_options().keys()  # type: ignore[attr-defined]
                fixed = {**{own: x for own, x in self.fixed.items() if own in shared}, **fixed}
        frozen = boolean("frozen", given.pop("frozen", False))
        options = rule.options()
        given = {GROUP_NAMES.get(name, name): value for name, value in given.items()}
        for own, (name, value) in rule.by_own_names(given).items():
            if own not in values:
                if rule is not self.cls and own in options and options[own].fixed:
                    continue
                raise unknown_keyword(rule, name, values)
            values[own] = options[own].admit(value, name)
        return rule, fixed, {**values, "frozen": frozen}

    def _check(self, groups: list[Group]) -> None:
        """Refuses values that the construction rules out, alone or together."""
        own = [group for group in groups if group._rule is self.cls]
        if own:
            self.cls.settle([group._values for group in own], self.fixed)
        for group in groups:
            if group._rule is not self.cls:
                group._rule.settle([group._values], group._fixed)
            self.refuse_two_clips({**self.options, **group._values})
            for name, value in group._values.items():
                group._rule.check_value(name, value, group._fixed)
            group._rule.check(Numbers(group._values, group._fixed))
        self._check_together(groups)

    def _check_together(self, groups: Sequence[Group]) -> None:
        """Refuses values that groups of one rule may not have side by side; schedules are met at the step."""
        numbers = [Numbers(group._values, group._fixed) for group in groups]
        for rule, members in _by_rule(groups).items():
            fixed = [i for i in members if not any(map(_scheduled, groups[i]._values.values()))]
            rule.moving({i: numbers[i] for i in fixed})

    def _forms(self, groups: list[Group], members: list[range], params: list[Array]) -> dict[int, Form]:
        """How each new parameter is treated; frozen ones have no form."""
        found: dict[int, Form] = {}
        for group, indices in zip(groups, members, strict=True):
            if not group._frozen:
                h = Numbers(group._values, group._fixed)
                made: dict[Any, Form] = {}
                for i in indices:
                    form = self._with_slow(group._rule.form(h, params[i]))
                    found[i] = made.setdefault(form, form)
        return found

    def _make_plan(
        self, groups: list[Group], template: Tree, names: list[str], params: list[Array], forms: dict[int, Form]
    ) -> _core.Plan:
        """The plan for these parameters; those that had state keep it."""
        old = self.plan if self.groups else None
        states = list(old.states) if old else []
        averages = list(old.averages) if old else []
        extents = list(old.extents) if old else []
        frozen = [group._frozen for group in groups for _ in group._names]
        first, averaging = len(states), self.options["average"] is not None
        made = _state([forms.get(i) for i in range(first, len(params))], params[first:])
        extents += [
            tuple(slot.extent for slot in form.slots) if form else ()
            for form in map(forms.get, range(first, len(params)))
        ]
        kept = [p for p, still in zip(params[first:], frozen[first:], strict=True) if not still]
        copied = doubles_of if self.fixed["average_dtype"] == "float64" else copies_of
        copies = iter(copied(kept) if averaging else [])
        states += made
        averages += [next(copies) if averaging and not still else None for still in frozen[first:]]
        return self._plan_of(template, names, params, states, averages, extents, frozen)

    def _plan_of(self, template: Tree, *parts: Sequence[Any]) -> _core.Plan:
        """A plan of parts as a plan takes them, which every optimizer of its parameters knows of."""
        names, params, states, averages, extents, frozen = map(tuple, parts)
        backend = _core.Plan if self.fixed["backend"] == "c" else ReferencePlan
        plan = backend(template, names, params, states, averages, self.fixed["flush_subnormals"], extents, frozen)
        STEPPED.add(plan)
        return plan

    def _first_cohorts(self, groups: list[Group], members: list[range], forms: dict[int, Form]) -> list[_core.Cohort]:
        found = []
        for at, (group, indices) in enumerate(zip(groups, members, strict=True), len(self.groups)):
            scalars = dict(group._rule.initial_scalars(Numbers(group._values, group._fixed)))
            parts: dict[Form, list[int]] = {}
            for i in indices:
                if i in forms:
                    parts.setdefault(forms[i], []).append(i)
            found += [_core.Cohort(at, form, part, self.t, scalars) for form, part in parts.items()]
        return found

    def begin_lookahead(self, how: tuple[int, float]) -> None:
        """Gives every parameter a slot for Lookahead's slow point, a copy of it at first."""
        old = self.plan
        old.confirm()
        cohorts = [
            _core.Cohort(each.group, _followed_by_slow(each.form), list(each.members), each.skipped, each.scalars)
            for each in self.cohorts
        ]
        moving = [i for i, still in enumerate(old.frozen) if not still]
        copies = dict(zip(moving, copies_of([old.params[i] for i in moving]), strict=True))
        states = [(*state, copies[i]) if i in copies else state for i, state in enumerate(old.states)]
        extents = [(*extent, LIKE_P) if i in copies else extent for i, extent in enumerate(old.extents)]
        plan = self._plan_of(old.template, old.names, old.params, states, old.averages, extents, old.frozen)
        self._replace(plan, cohorts, [(self, "lookahead", how)])

    def _with_slow(self, form: Form) -> Form:
        return form if self.lookahead is None else _followed_by_slow(form)

    def _replace(self, plan: _core.Plan, cohorts: list[_core.Cohort], more: _core.Values) -> None:
        """Puts another plan and its cohorts in the place of those that there are, all at once."""
        published: _core.Values = [
            *more,
            *((self, name, None) for name in ("accumulation", "point")),
            (self, "cohorts", cohorts),
            (self, "registers", self.of_all()),
            (self, "_live", None),
            (self, "stale", True),
            (self, "plan", plan),
        ]
        if self.groups:
            published.append((self.plan, "retired", True))
        _core.publish([], published)

    # Values

    def value(self, option: Option) -> Any:
        """What was set: of all groups that have it, a tuple where they differ."""
        if not option.per_group:
            return self.options[option.name]
        values = [group._values[option.name] for group in self.groups if option.name in group._values]
        if not values:
            raise AttributeError(f"no group has {option.name}: each follows another rule than {self.cls.__name__}'s")
        return values[0] if all(value == values[0] for value in values) else tuple(values)

    def set_everywhere(self, option: Option, admitted: Any) -> None:
        name = option.name
        if not option.per_group:
            self._check_option(name, admitted)
            self.options[name] = admitted
            self.stale = True
            return
        having = [group for group in self.groups if name in group._values]
        for group in having:
            self._check_group_value(group, name, admitted)
        for group in having:
            self.set_in_group(group, name, admitted)

    def set_in_group(self, group: Group, name: str, value: Any, called: str = "") -> None:
        admitted = group._rule.options()[name].admit(value, called)
        self._check_group_value(group, name, admitted)
        group._values[name] = admitted
        self.stale = True

    def _check_group_value(self, group: Group, name: str, admitted: Any) -> None:
        group._rule.check_value(name, admitted, group._fixed)
        if name in CLIPS:
            self.refuse_two_clips({**self.options, **group._values, name: admitted})
        if name == "bounds" and admitted is not None:
            # Not where they hold other values for a while, nor amid a step.
            _core.undisturbed([self.plan], lambda: self._refuse_outside(group, admitted, self.params_of(group)))

    def _refuse_outside(self, group: Group, bounds: Any, params: list[Array]) -> None:
        wrong = None if group._frozen else outside(bounds, group._names, params, self.fixed["flush_subnormals"])
        if wrong is not None:
            raise ValueError(wrong)

    def params_of(self, group: Group) -> list[Array]:
        """The arrays of a group, in the order of its names."""
        places = dict(zip(self.plan.names, self.plan.params, strict=True))
        return [places[name] for name in group._names]

    def _check_option(self, name: str, value: Any) -> None:
        if name == "average" and (value is None) != (self.options["average"] is None):
            raise ValueError("whether averages are kept is fixed when the optimizer is made: pass average= there")
        if name in CLIPS:
            for group in self.groups:
                self.refuse_two_clips({**self.options, **group._values, name: value})

    @staticmethod
    def refuse_two_clips(values: Mapping[str, Any]) -> None:
        given = [name for name in CLIPS if values.get(name) is not None]
        if given[1:]:
            raise ValueError(f"{' and '.join(given)} together: clip by one of them (set the other to None first)")

    # The step

    def match(self, grads: Tree) -> list[Any]:
        """The leaves of gradients that are not built of the same lists and dicts as the parameters."""
        template = self.plan.template
        if not self.grouped:
            return tree.match(template, grads)
        if not isinstance(grads, (list, tuple)) or len(grads) != len(template):
            raise TypeError(f"the parameters are in {len(template)} groups: pass a list with one gradient tree each")
        pairs = enumerate(zip(template, grads, strict=True))
        return [leaf for i, (group, branch) in pairs for leaf in tree.match(group, branch, f"gradient (group {i})")]

    def refuse(self) -> None:
        """What happens when the plan has refused a step."""
        if self.options["on_nonfinite"] != "skip":
            raise NonFiniteError(first_nonfinite(self.plan, self.loss))

    def admit_loss(self, loss: Any) -> float:
        """The loss that was passed beside gradients; raises TypeError where no rule takes one, or one is missing."""
        if not self.takes_loss:
            names = " and ".join(dict.fromkeys(group._rule.__name__ for group in self.groups))
            raise TypeError(f"loss is {shown(loss)}, but {names} takes none: pass the gradients alone")
        if loss is None:
            names = " and ".join(dict.fromkeys(group._rule.__name__ for group in self.groups if group._rule.needs_loss))
            raise TypeError(
                f"{names} needs the loss beside its gradients, as in step(grads, loss=0.5): pass that of the whole "
                "batch, not scaled, a number"
            )
        return number("loss", loss, "a number, the unscaled loss of the whole batch")

    def advance(self, cohort: _core.Cohort, t: int) -> Numbers:
        """The numbers of a cohort at its t-th step, with its rule's scalars, which count once the step is applied."""
        rule = self.groups[cohort.group].rule
        cohort.advanced = rule.advance(cohort.h, cohort.scalars, t)
        return Numbers(vars(cohort.h), cohort.advanced)

    def prepare(self) -> None:
        """Turns hyperparameters into numbers, and these into programs, one for each cohort: when they have changed."""
        # What a schedule or another thread changes meanwhile is for the next step.
        self.stale = preparing = object()
        options, plan = dict(self.options), self.plan
        whole = {**options, "lookahead": self.lookahead}
        self.current = [Numbers(whole, group._values, group._fixed) for group in self.groups]
        self.followed = self._following(self.current, self.cls, options)
        for numbers, group in zip(self.current, self.groups, strict=True):
            self.followed += self._following([numbers], group.rule, group._values)
        self.evaluate()
        # By the rules as they were numbered so far.
        self.registers, self._live = self.of_all(), None
        self.rules = list(dict.fromkeys(group._rule for group in self.groups))
        for index, cohort in enumerate(self.cohorts):
            rule = self.groups[cohort.group]._rule
            cohort.index, cohort.rule_index = index, self.rules.index(rule)
            cohort.h = self.current[cohort.group]
            cohort.needs_loss = rule.needs_loss
            cohort.changing = None if rule.coefficients_at is Rule.coefficients_at else rule.coefficients_at
            for i in cohort.members:
                plan.assign(i, index)
        self.together = [
            (rule, {i: self.current[i] for i in members})
            for rule, members in _by_rule(self.groups).items()
            if members[1:] and rule.moving.__func__ is not Rule.moving.__func__  # type: ignore[attr-defined]
        ]
        self.carrying = any(cohort.scalars for cohort in self.cohorts)
        self.compile()
        if self.stale is preparing:
            self.stale = False

    def moving(self, cohorts: list[_core.Cohort]) -> list[_core.Cohort]:
        """Those of these cohorts whose groups take part in the step, by the numbers in force."""
        still = set()
        for rule, numbers in self.together:
            still |= numbers.keys() - set(rule.moving(numbers))
        if not still:
            return cohorts
        grads = list(self.plan.grads)
        self.plan.exchange(grads)  # They are checked all the same.
        for cohort in cohorts:
            if cohort.group in still:
                for i in cohort.members:
                    grads[i] = None
        self.plan.exchange(grads)
        return [cohort for cohort in cohorts if cohort.group not in still]

    @staticmethod
    def _following(targets: list[Numbers], rule: type[Rule], values: Mapping[str, Any]) -> list[Any]:
        """What of these values follows a schedule, as the core takes it."""
        found: list[Any] = []
        for name, x in values.items():
            if _scheduled(x):
                option: Any = rule.options()[name]
                found.append((targets, name, option, x, option.check if callable(x) else None))
        return found

    def compile(self) -> None:
        """Programs, with the stages that are on, and what of their numbers follows schedules."""
        scheduled = {name for _, name, *_ in self.followed}
        wide = self.options["average"] is not None and self.fixed["average_dtype"] == "float64"
        self.beginning = False
        programs, self.affected, self.clipping = [], [], bool(scheduled & {"clip_norm", "group_clip_norm"})
        for cohort in self.cohorts:
            group, h = self.groups[cohort.group], cohort.h
            stages: dict[str, dict[str, float]] = {}
            for name, stage in STAGES.items():
                noted = Noted(h)
                numbers = stage(noted)
                if numbers is not None:
                    stages[name] = numbers
                if noted.read & scheduled:
                    self.affected.append((cohort, stage, numbers is not None, name))
            noted = Noted(h)
            numbers = group._rule.coefficients(noted)
            if noted.read & scheduled:
                self.affected.append((cohort, group._rule.coefficients, True, ""))
            first = cohort.skipped == self.t
            self.beginning = self.beginning or (first and bool(cohort.form.begins))
            programs.append(compiled(cohort.form, cohort.rule_index, cohort.group, stages, numbers, wide, first))
        signs = [-1.0 if h.maximize else 1.0 for h in self.current]
        self.plan.set_programs(programs, self._first_registers(), signs)
        self._live = self.plan
        self.configure()

    def of_all(self) -> dict[str, dict[str, float]]:
        """What each rule keeps in registers of all tensors, by the name of its class: live once it has stepped."""
        found = {}
        for rule, form in self._sharing().items():
            if not form.all:
                continue
            kept = dict(form.all) | self.registers.get(rule.__name__, {})
            if self._live is self.plan:
                kept = dict(zip(kept, self.plan.registers(self.rules.index(rule), len(kept)), strict=True))
            found[rule.__name__] = kept
        return found

    def _sharing(self) -> dict[type[Rule], Form]:
        """The rules that have registers of all tensors, with a form that names them."""
        forms = ((self.groups[cohort.group].rule, cohort.form) for cohort in self.cohorts)
        return {rule: form for rule, form in forms if form.all or form.among}

    def _first_registers(self) -> list[list[float]]:
        values, sharing = self.of_all(), self._sharing()
        empty: list[float] = []
        return [
            [*values.get(rule.__name__, {}).values(), *[0.0] * len(sharing[rule].among)] if rule in sharing else empty
            for rule in self.rules
        ]

    @property
    def measures(self) -> bool:
        """Whether a step looks at all gradients first, as where one that is not finite would go to other tensors."""
        asked = self.options["clip_norm"] is not None or self.options["on_nonfinite"] is not None
        by_group = any(group._values["group_clip_norm"] is not None for group in self.groups)
        return asked or by_group or bool(self._sharing())

    def configure(self) -> None:
        clip = self.current[0].clip_norm
        of_groups = [h.group_clip_norm for h in self.current]
        by_group = any(x is not None for x in of_groups)
        self.plan.configure(_limit(clip), self.measures, self.options["threads"] or 0)
        if by_group:
            self.plan.clip_groups(list(map(_limit, of_groups)))

    def part(self) -> list[_core.Cohort]:
        """The cohorts that have gradients, after parting those of which only some tensors have one."""
        grads = self.plan.grads
        parts: dict[Any, _core.Cohort] = {}
        for cohort in self.cohorts:
            for i in cohort.members:
                key = (cohort.group, cohort.form, cohort.skipped, tuple(cohort.scalars.items()), grads[i] is None)
                if key not in parts:
                    parts[key] = _core.Cohort(cohort.group, cohort.form, [], cohort.skipped, cohort.scalars)
                parts[key].members.append(i)
        # First: an interrupt may come between these two.
        self.stale = True
        self.cohorts = list(parts.values())
        return [cohort for cohort in self.cohorts if grads[cohort.members[0]] is not None]

    def restored_cohorts(self, t: int, counts: list[tuple[int, dict[str, float]] | None]) -> list[_core.Cohort]:
        """The cohorts at t, from each tensor's own count and scalars."""
        parts: dict[Any, _core.Cohort] = {}
        for cohort in self.cohorts:
            for i in cohort.members:
                own, scalars = counts[i]  # type: ignore[misc]
                key = (cohort.group, cohort.form, own, tuple(scalars.items()))
                parts.setdefault(key, _core.Cohort(cohort.group, cohort.form, [], t - own, scalars)).members.append(i)
        return list(parts.values())

    # What can be read

    def numbers(self) -> tuple[dict[str, Any], ...]:
        """The numbers of each group at the coming step."""
        found = []
        for group in self.groups:
            known = group._rule.options()
            values = {**self.options, **group._values}
            found.append({name: known[name].at(self.t, x) for name, x in values.items()})
        return tuple(found)

    def state(self) -> dict[str, dict[str, Any]]:
        """name -> "t", the rule's buffers (live arrays) and scalars, of every parameter that is not frozen."""
        names, states = self.plan.names, self.plan.states
        found: dict[int, dict[str, Any]] = {}
        for cohort in self.cohorts:
            for i in cohort.members:
                pairs = zip(cohort.form.slots, states[i], strict=True)
                arrays = {slot.name: a for slot, a in pairs if slot.saved}
                found[i] = {"t": self.t - cohort.skipped, **arrays, **cohort.scalars}
        return {names[i]: found[i] for i in sorted(found)}


def _state(forms: list[Form | None], params: list[Array]) -> list[tuple[Array, ...]]:
    """The buffers of new parameters, buffer by buffer, as hardware foresees memory that goes on from one tensor to the
    next."""
    likes = [
        (k, i) for i, form in enumerate(forms) if form for k, slot in enumerate(form.slots) if slot.extent == LIKE_P
    ]
    memory = memory_for([params[i] for _, i in likes], 1)
    made: dict[tuple[int, int], Array] = {}
    for k, i in sorted(likes):
        form, p = forms[i], params[i]
        assert form is not None
        start = form.slots[k].start
        a = memory.copy(p) if start == "p" else memory.zeros_like(p)
        if start not in ("p", "g", 0.0):
            a.fill(start)
        made[k, i] = a
    found = []
    for i, (form, p) in enumerate(zip(forms, params, strict=True)):
        slots = form.slots if form else ()
        found.append(
            tuple(made[k, i] if slot.extent == LIKE_P else _vector(p, slot.extent) for k, slot in enumerate(slots))
        )
    return found


def _followed_by_slow(form: Form) -> Form:
    return form._replace(slots=(*form.slots, SLOW))


def _vector(p: Array, extent: int) -> Array:
    """Zeros for each row, or each column, of the matrices of p as they lie in memory."""
    shape = p.shape if p.flags.c_contiguous else p.shape[::-1]
    return zeros(shape[:-1] if extent == ROWS else shape[:-2] + shape[-1:], p.dtype)


def _by_rule(groups: Sequence[Group]) -> dict[type[Rule], list[int]]:
    """The places of the groups of each rule that are not frozen."""
    found: dict[type[Rule], list[int]] = {}
    for i, group in enumerate(groups):
        if not group._frozen:
            found.setdefault(group._rule, []).append(i)
    return found


def _limit(clip: float | None) -> float:
    return math.inf if clip is None else clip


def _scheduled(value: Any) -> bool:
    return callable(value) or (isinstance(value, tuple) and any(map(callable, value)))


def _unnamed(params: Tree) -> int:
    """How many of the numbers that name unnamed arrays these parameters use up."""
    if isinstance(params, (list, tuple)):
        return len(params)
    return 0 if isinstance(params, Mapping) else 1
