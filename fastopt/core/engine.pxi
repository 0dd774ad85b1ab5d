# What steps, included by _core.pyx because the door reads its fields at every step: fastopt/engine/engine.py is the rest of
# it, and says what the fields hold.

cdef class Engine:
    """A plan, the cohorts of its tensors, and the counts of steps."""
    cdef public Plan plan
    cdef public list cohorts
    cdef public int64_t t, skipped
    cdef public bint carrying
    cdef public object accumulated, accumulation, point
    cdef object __weakref__

    def step(self, object tree, type report, double unscale, bint accumulated=False):
        """A step with these gradients times unscale, what was accumulated or not: a report(applied, norm, steps, skipped).

        No bytecode, and so no handler of a signal, runs between the writing of parameters and the counts.
        """
        cdef Plan plan = self.plan
        cdef bint applied = False, compiled = type(plan) is Plan
        cdef object norm = None, stepped
        cdef Py_ssize_t missing = plan._take(tree, self, None)
        plan.plan.unscale = unscale
        try:
            stepped = self.ready(missing)
            if stepped:
                plan._place()
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
                    if missing or self.carrying:
                        self._count(<list>stepped)
            if accumulated:
                self.accumulated = None
        finally:
            plan._release()
        return _made(report, applied, norm, self.t, self.skipped)

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
