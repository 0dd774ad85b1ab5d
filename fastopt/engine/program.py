"""What a step does with the tensors of one cohort, by name: passes, apart from the numbers in them, because these
change at every step, and a program only where other stages are on."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from fastopt.core import _core

LIKE_P, ROWS, COLUMNS = range(3)
"""Extents of state: an element for each of p, or one for each row or column of its last two axes."""


class Slot(NamedTuple):
    """A buffer of a rule's state. `start` is what it starts at: a number, "p" for a copy of the parameter, or "g" for
    the gradient of the tensor's own first step, as the stages leave it; until then it is 0."""

    name: str
    extent: int = LIKE_P
    start: float | str = 0.0
    saved: bool = True


class Sum(NamedTuple):
    """A sum over buffers of a walk, as its kernel leaves them, into a register."""

    reduction: str
    buffers: tuple[str, ...]
    register: str


class Walk(NamedTuple):
    """One walk over all tensors: every chunk through the stages and a kernel, then sums. With `factors` it goes by
    rows, and the sums of squares of the gradient's rows and columns become the slots r, c and a."""

    kernel: str | None
    sums: tuple[Sum, ...] = ()
    factors: bool = False


class Scalar(NamedTuple):
    """A function of registers and numbers, of each tensor or with `all` of a rule: see csrc/kernels/scalars.c."""

    function: str
    all: bool = False


class Form(NamedTuple):
    """How a rule treats some of its tensors. The last pass is a walk, the only one whose kernel writes p; `tensor` and
    `all` name registers, the latter with what they start at, which are kept where the rule's state is."""

    passes: tuple[Walk | Scalar, ...]
    slots: tuple[Slot, ...]
    scratch: tuple[str, ...] = ()
    tensor: tuple[str, ...] = ()
    all: tuple[tuple[str, float], ...] = ()
    among: tuple[str, ...] = ()
    """More registers of all tensors, which nobody needs after a step."""
    numbers: tuple[tuple[str, float], ...] = ()
    """Numbers that follow from the tensor, such as its type's epsilon."""
    decays_first: bool = True
    """Whether walks before the last see p after its decay."""

    @property
    def begins(self) -> tuple[str, ...]:
        """The slots that start as the first gradient."""
        return tuple(slot.name for slot in self.slots if slot.start == "g")

    @property
    def kernel(self) -> str:
        """The one that writes p."""
        kernel = self.passes[-1].kernel  # type: ignore[union-attr]
        assert kernel is not None
        return kernel


SLOW = Slot("slow", start="p")
"""Lookahead's point, the last slot of every form while it is on."""


def plain(kernel: str, **starts: float | str) -> Form:
    """A rule of one kernel, whose state slots are the buffers after p and g."""
    buffers = _core.KERNELS[kernel][1][2:]
    return Form((Walk(kernel),), tuple(Slot(name, start=starts.get(name, 0.0)) for name in buffers))


# The same as the core takes it: with stages, and numbers to begin with.

Call: TypeAlias = tuple[str, str, dict[str, float]]
"""The name of a stage or "" for the rule's own, its kernel, numbers by name."""


class CompiledWalk(NamedTuple):
    calls: list[Call]
    sums: tuple[Sum, ...] = ()
    copies: bool = False
    factored: bool = False
    wide: bool = False
    """Whether the average, which comes last, is in float64 whatever p is."""
    begins: tuple[str, ...] = ()
    """Slots that become the gradient before the rule's kernel."""


class CompiledScalar(NamedTuple):
    function: str
    all: bool
    values: dict[str, float]


class Program(NamedTuple):
    rule: int
    group: int
    slots: tuple[str, ...]
    extents: tuple[int, ...]
    scratch: tuple[str, ...]
    tensor: tuple[str, ...]
    all: tuple[str, ...]
    passes: list[CompiledWalk | CompiledScalar]


def compiled(
    form: Form,
    rule: int,
    group: int,
    stages: dict[str, dict[str, float]],
    numbers: dict[str, float],
    wide: bool = False,
    first: bool = False,
) -> Program:
    """A form with the stages that are on, for the first step of its tensors or those after it; `wide` says that
    averages are in float64."""
    numbers = {**numbers, **dict(form.numbers)}
    begins = form.begins if first else ()
    passes: list[CompiledWalk | CompiledScalar] = []
    for i, step in enumerate(form.passes):
        if isinstance(step, Scalar):
            passes.append(CompiledScalar(step.function, step.all, numbers))
        else:
            last = i == len(form.passes) - 1
            before = stages if last or form.decays_first else {k: x for k, x in stages.items() if k != "decay"}
            walk = _walk(step, before, numbers, last)
            now = tuple(name for name in begins if step.kernel and name in _core.KERNELS[step.kernel][1])
            begins = tuple(name for name in begins if name not in now)
            passes.append(walk._replace(wide=wide and last, begins=now))
    names = tuple(slot.name for slot in form.slots)
    extents = tuple(slot.extent for slot in form.slots)
    of_all = (*(name for name, _ in form.all), *form.among)
    return Program(rule, group, names, extents, form.scratch, form.tensor, of_all, passes)


def _walk(walk: Walk, stages: dict[str, dict[str, float]], numbers: dict[str, float], last: bool) -> CompiledWalk:
    read = {name for total in walk.sums for name in total.buffers}
    read |= set(_core.KERNELS[walk.kernel][1]) if walk.kernel else set()
    if walk.factors:
        read.add("g")
    calls: list[Call] = []
    copies = False
    for name, (kind, buffers, _) in _core.KERNELS.items():
        if name == walk.kernel:
            calls.append(("", name, numbers))
        elif name not in stages or (kind == "after" and not last):
            continue
        elif buffers[0] == "g":
            calls += [(name, name, stages[name])] * ("g" in read)
        elif last:
            if name == "lookahead" and "bounds" in stages:
                # The slow point follows one that is within them.
                calls.append(("bounds", "bounds", stages["bounds"]))
            calls.append((name, name, stages[name]))
        elif "p" in read:
            calls.append((name, name, stages[name]))
            copies = True
    if walk.factors:
        calls.append(("", "factors", numbers))
    return CompiledWalk(calls, walk.sums, copies, walk.factors)


def passed(calls: list[tuple[str, dict[str, float]]]) -> Program:
    """One walk outside a step: these kernels with their numbers."""
    return Program(0, 0, (), (), (), (), (), [CompiledWalk([(name, name, x) for name, x in calls])])
