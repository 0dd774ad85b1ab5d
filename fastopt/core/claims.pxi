# Whose turn it is, included by _core.pyx. Handlers of signals, as that of Ctrl-C, run between bytecodes. There are none
# here: so a claim always ends, and what is published is so all at once.

def publish(list copies, list values):
    """Copies arrays, (source, target) of one shape and type, then sets attributes, (object, name, value); with no
    bytecode in between."""
    cdef list before = []
    for source, target in copies:
        cnp.PyArray_CopyInto(target, source)
    for where, name, value in values:
        # What is freed may run Python: not amid these.
        before.append(getattr(where, name, None))
        setattr(where, name, value)


def undisturbed(list plans, function, *args):
    """function(*args) while nobody has any of these plans; raises RuntimeError where somebody does."""
    cdef Claimed plan
    cdef list claimed = []
    try:
        for plan in plans:
            plan._claim()
            claimed.append(plan)
        return function(*args)
    finally:
        for plan in claimed:
            fo_yield(&plan.plan)


cdef class Claimed:
    """A plan, as far as it belongs to one thread at a time."""
    cdef fo_plan plan
    cdef str holder
    cdef unsigned long holding_thread
    cdef readonly Py_ssize_t changes
    cdef public bint retired

    cdef _claim(self):
        if not fo_claim(&self.plan):
            raise RuntimeError(
                self.holder or "this optimizer is inside a step already, or is being read: do one thing at a time"
            )

    cdef _hold(self, str why):
        """Claims the plan until `_let_go`: whoever wants it meanwhile gets a RuntimeError that says why."""
        self._claim()
        self.changes += 1
        self.holding_thread = PyThread_get_thread_ident()
        self.holder = why

    cdef _let_go(self):
        # Another plan is in the place of one that is retired: nobody is to have it again.
        if not self.retired:
            self.holder = None
            fo_yield(&self.plan)

    def during(self, str why, function, *args):
        """function(*args) while the plan is held."""
        self._hold(why)
        try:
            return function(*args)
        finally:
            self._let_go()

    def read(self, function, *args):
        """function(*args) while steps are kept away, as they are where this thread holds the plan."""
        if self.holder is not None and self.holding_thread == PyThread_get_thread_ident():
            return function(*args)
        return undisturbed([self], function, *args)


cdef class Displacement:
    """Parameters that hold other values for a while, and get their own back from copies, bit for bit.

    `lasting` keeps the memory of the copies from one time to the next.
    """
    cdef readonly tuple params
    cdef bint lasting
    cdef list kept, held

    def __init__(self, tuple params, bint lasting):
        self.params, self.lasting = params, lasting

    @property
    def begun(self):
        return self.held is not None

    def begin(self, plans, str why, move, *args):
        """Holds plans(), those that step the parameters, until `end`, and calls move(*args), which puts other values
        into them. Raises RuntimeError where a plan is held or inside a step already."""
        cdef Claimed plan
        cdef list held = []
        try:
            for plan in plans():
                plan._hold(why)
                held.append(plan)
                (<object>plan).confirm()
            if self.kept is None:
                self.kept = copies_of(self.params)
            else:
                publish(list(zip(self.params, self.kept)), [])
            self.held = held
            move(*args)
        except BaseException:
            if self.held is held:
                self.end()
            else:
                for plan in held:
                    plan._let_go()
            raise

    def end(self):
        """Does nothing where it has not begun."""
        cdef Claimed plan
        cdef list held = self.held
        if held is None:
            return
        self.held = None
        try:
            publish(list(zip(self.kept, self.params)), [])
        except BaseException:
            self.held = held
            raise
        if not self.lasting:
            self.kept = None
        for plan in held:
            plan._let_go()

    def around(self, function, *begin):
        """function() between begin(*begin) and `end`."""
        self.begin(*begin)
        try:
            return function()
        finally:
            self.end()

    def attempt(self, function, *begin):
        """Between begin(*begin) and `end`, unless function() returns: then the parameters stay as it leaves them.

        It returns (a result, values), and these are then for `publish`.
        """
        cdef Claimed plan
        cdef list held
        self.begin(*begin)
        try:
            result, values = function()
            publish([], values)
        except BaseException:
            self.end()
            raise
        held, self.held = self.held, None
        for plan in held:
            plan._let_go()
        return result


cdef class Displaced:
    """A with block that a displacement lasts for."""
    cdef Displacement displacement
    cdef tuple begin

    def __init__(self, Displacement displacement, *begin):
        self.displacement, self.begin = displacement, begin

    def __enter__(self):
        self.displacement.begin(*self.begin)

    def __exit__(self, *error):
        self.displacement.end()
