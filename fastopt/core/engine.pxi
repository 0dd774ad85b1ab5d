# What steps, included by _core.pyx because the door reads its fields at every step: fastopt/engine/engine.py is the rest of
# it, and says what the fields hold.

cdef class Cohort:
    """Tensors of one group and form that have had the same steps, all of the optimizer's but `skipped`, and so share their
    numbers: those of h, and with `changing` those of their own count. `scalars` are the rule's, one of each for all."""
    cdef public int group, index, rule_index
    cdef public bint needs_loss
    cdef public int64_t skipped
    cdef public object form, h, changing
    cdef public list members
    cdef public dict scalars, advanced

    def __init__(self, int group, object form, list members, int64_t skipped, dict scalars):
        self.group, self.form, self.members, self.skipped = group, form, members, skipped
        self.scalars = self.advanced = scalars


cdef bint _passes(check, x):
    try:
        check("", x)
    except ValueError:
        return False
    return True


cdef class Engine:
    """A plan, the cohorts of its tensors, and the counts of steps.

    `stale` says that programs are to be made anew, `followed` is what follows a schedule, (numbers of groups, name,
    option, schedule, check or None for a pair), and `affected` what depends on that, (cohort, function of h, whether it gave numbers, stage).
    `lookahead` is after how many steps of a tensor it goes back, and how much of the way is kept; or None.
    `beginning` says that programs hold only for the first step of some tensors.
    `together` are rules with several groups that may exclude each other or stand still, (rule, numbers of its groups).
    `takes_loss` says that a group's rule needs the loss of the step, and `loss` is that of the last, None where none does.
    """
    cdef public Plan plan
    cdef public list cohorts, followed, affected, together
    cdef public object stale
    cdef public bint clipping, takes_loss, beginning
    cdef public object loss
    cdef public int64_t t, skipped
    cdef public bint carrying
    cdef public object accumulated, accumulation, point, lookahead
    cdef object __weakref__

    def step(self, object tree, type report, double unscale, bint accumulated=False, object loss=None):
        """A step with these gradients times unscale, what was accumulated or not, of this loss or None: a report(applied,
        norm, steps, skipped).

        No bytecode, and so no handler of a signal, runs between the writing of parameters and the counts.
        """
        cdef Plan plan = self.plan
        cdef bint applied = False, compiled = type(plan) is Plan
        cdef object norm = None, stepped
        cdef Py_ssize_t missing = plan._take(tree, self, None)
        plan.plan.unscale = unscale
        try:
            if loss is not None or self.takes_loss:
                self.loss = self.admit_loss(loss)
            stepped = self._ready(missing)
            if stepped:
                plan._place()
                if self.takes_loss and not isfinite(<double>self.loss):
                    norm = plan.measure("sum_squares")[0] * unscale
                else:
                    applied = plan._go() if compiled else plan.run()
                    if not compiled or plan.plan.measure:
                        norm = plan.norm
                if not applied:
                    self.refuse()
                    self.skipped += 1
                elif plan.plan.all and plan.taken_back():
                    applied = self._count_taken_back(<list>stepped)
                else:
                    self.t += 1
                    if missing or self.carrying or len(<list>stepped) < len(self.cohorts):
                        self._count(<list>stepped)
            if accumulated:
                self.accumulated = None
        finally:
            plan._release()
        return _made(report, applied, norm, self.t, self.skipped)

    cdef list _ready(self, Py_ssize_t missing):
        """The cohorts that the admitted gradients step, once their numbers are in the plan."""
        cdef list cohorts = self.part() if missing else self.cohorts
        cdef Plan plan = self.plan
        cdef Cohort cohort
        cdef int64_t t
        if not cohorts:
            return cohorts
        if self.stale or self.beginning:
            self.prepare()
            plan = self.plan
        elif self.followed:
            self._follow()
        if self.together:
            cohorts = self.moving(cohorts)
        t = self.t + 1
        for cohort in cohorts:
            if cohort.changing is not None:
                h = self.advance(cohort, t - cohort.skipped) if cohort.scalars else cohort.h
                numbers = cohort.changing(h, t - cohort.skipped)
                if numbers:
                    plan.set_numbers(cohort.index, numbers)
            if cohort.needs_loss:
                plan.set_numbers(cohort.index, {"loss": self.loss})
        if self.lookahead is not None:
            self._take_turns(cohorts, t)
        return cohorts

    cdef _take_turns(self, list cohorts, int64_t t):
        """Has Lookahead go back in those cohorts for which this step ends a cycle."""
        cdef Cohort cohort
        cdef int64_t k = self.lookahead[0]
        for cohort in cohorts:
            self.plan.set_numbers(cohort.index, {"turn": (t - cohort.skipped) % k == 0}, "lookahead")

    cpdef evaluate(self):
        """The numbers of schedules at this step: each is called once, whoever shares it in the whole optimizer."""
        t = self.t
        for targets, name, option, schedule, check in self.followed:
            if check is None:
                x = option.at(t, schedule)
            else:
                x = schedule(t)
                if type(x) is not float or not _passes(check, x):
                    x = option.given(t, x)
            for numbers in <list>targets:
                setattr(numbers, name, x)

    cdef _follow(self):
        """Takes the schedules' numbers at this step, into the places of the programs."""
        cdef Cohort cohort
        self.evaluate()
        for cohort, function, on, stage in self.affected:
            found = function(cohort.h)
            if (found is not None) != on:
                self.compile()
                return
            if found is not None:
                self.plan.set_numbers(cohort.index, found, stage)
        if self.clipping:
            self.configure()

    cdef _count(self, list stepped):
        """Counts a step that was applied to these cohorts and no others."""
        for cohort in self.cohorts:
            if cohort in stepped:
                cohort.scalars = cohort.advanced
            else:
                cohort.skipped += 1

    cdef bint _count_taken_back(self, list stepped):
        """Counts a step that some rules took back: whether any did not."""
        cdef list others = [cohort for cohort in stepped if self.plan.went(cohort.rule_index)]
        if others:
            self.t += 1
            self._count(others)
        return bool(others)
