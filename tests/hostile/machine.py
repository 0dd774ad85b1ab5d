"""Two optimizers to which a machine does the same, one compiled and one of the reference, and what it gives them."""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant

import fastopt
from fastopt import schedules
from fastopt.around.averaging import AVERAGING
from fastopt.core import _core
from fastopt.engine.numpy_plan import ReferencePlan
from tests.cases import CASES, ordinary, sprinkled
from tests.lockstep import assert_same_bits, copies, plateaus, same_report, snapshot

seeds = st.integers(0, 2**32 - 1)
shapes = st.lists(
    st.sampled_from([(), (0,), (1,), (7,), (16,), (3, 5), (2, 3, 4), (33,), (1025,)]), min_size=1, max_size=3
)
dtypes = st.sampled_from([np.float32, np.float64])
scales = st.sampled_from([None, None, 1.0, 2.0**-20, 2.0**30, 3.0])


def falling(t: int) -> float:
    return 0.1 / (1 + t)


def wavering(t: int) -> float:
    return 0.01 * (1 + t % 3)


BUILT_IN = [
    schedules.warmup(3, schedules.cosine(0.1, 10)),
    schedules.one_cycle(0.1, 8).lr,
    schedules.piecewise([2, 5], [0.1, 0.01, 0.001]),
    schedules.ReduceOnPlateau(0.1, patience=0),
    schedules.warmup(2, schedules.ReduceOnPlateau(0.2, patience=1)),
    schedules.joined([0.1, schedules.warmup(2, schedules.ReduceOnPlateau(0.2, patience=1), start=0.3)], [4]),
]
rates = st.sampled_from([0.0, 0.1, 1e-3, falling, wavering, *BUILT_IN])
penalties = st.sampled_from([0.0, 0.01, 0.3, falling, schedules.exponential(0.1, gamma=0.5)])
limits = st.sampled_from([None, 0.1, 5.0, falling, schedules.linear(1.0, 0.1, 5)])
momenta = st.sampled_from([0.0, 0.5, 0.9, wavering, schedules.one_cycle(0.1, 8).momentum])
VALUES = {
    "lr": rates,
    "l1": penalties,
    "l2": penalties,
    "prox_l1": penalties,
    "clip_norm": limits,
    "clip_value": limits,
    "eps": st.sampled_from([1e-30, 1e-8, 0.1]),
    "betas": st.tuples(momenta, st.sampled_from([0.0, 0.9, 0.999])),
    "rho": st.sampled_from([0.0, 0.5, 0.99]),
    "momentum": momenta,
    "weight_decay": penalties,
    "decoupled_decay": penalties,
    "average": st.sampled_from([0.0, 0.5, 0.99, wavering]),
    "bounds": st.sampled_from([None, (-0.1, 0.1), (-2, None), (None, 5)]),
}
settable = st.sampled_from(sorted(VALUES)).flatmap(lambda name: st.tuples(st.just(name), VALUES[name]))


def laid_out(g: Any, layout: int) -> Any:
    """The same gradient as some program may have it, or None."""
    if layout == 1:
        return None
    if layout == 2:
        off_by_a_byte = np.empty(g.nbytes + 1, np.uint8)[1:].view(g.dtype).reshape(g.shape)
        off_by_a_byte[...] = g
        return off_by_a_byte
    if layout == 3:
        g.flags.writeable = False
    if layout == 4 and g.size:
        return np.broadcast_to(g.flat[0], g.shape)
    if g.ndim:
        if layout == 5:
            return np.asfortranarray(g)
        if layout == 6:
            return np.repeat(g, 2, axis=0)[::2]
        if layout == 7:
            return np.repeat(g, 2, axis=-1)[..., ::-2]
    return g


def inside(opt: fastopt.Optimizer, params: dict[str, Any]) -> dict[str, Any]:
    """The same arrays, moved within the bounds that a new group has."""
    low, high = opt._engine.common["bounds"] or (None, None)
    for p in params.values():
        np.clip(p, -math.inf if low is None else low, math.inf if high is None else high, out=p)
    return params


def in_numpy(average: Any) -> Any:
    """An EMA or RunningMean that computes as the reference does."""
    old = average._plan
    average._plan = ReferencePlan(old.template, old.names, old.params, ((),) * len(old.names), old.averages, old.flush)
    average._plan.configure(math.inf, False, 0)
    for i in range(len(old.names)):
        average._plan.assign(i, 0)
    AVERAGING.add(average._plan)
    return average


def like(opt: fastopt.Optimizer, change: Callable[[Any], Any] = lambda g: g) -> Any:
    """Gradients of 1 in the right structure, each made wrong by `change`."""
    groups = [{name: change(np.ones_like(p)) for name, p in group["params"].items()} for group in opt.groups]
    return groups if len(groups) > 1 else groups[0]


class Pair(RuleBasedStateMachine):
    """`ours` is compiled and `theirs` the reference: the same in all that makes a difference."""

    averages: tuple[Any, Any] | None = None
    """An EMA or RunningMean of the parameters of each."""

    @initialize(
        case=st.sampled_from(CASES),
        lr=st.none() | rates,
        shapes=shapes,
        dtype=dtypes,
        seed=seeds,
        flush=st.booleans(),
        block=st.booleans(),
    )
    def make(self, case: Any, lr: Any, shapes: Any, dtype: Any, seed: int, flush: bool, block: bool) -> None:
        rng = np.random.default_rng(seed)
        params = {f"p{i}": ordinary(rng, shape, dtype) for i, shape in enumerate(shapes)}
        # Rprop refuses a schedule where its sizes start.
        lr = None if callable(lr) and case.optimizer is fastopt.Rprop else lr
        given = {"flush_subnormals": flush} if lr is None else {"flush_subnormals": flush, "lr": lr}
        self.build: Callable[..., Any] = lambda params, **more: case.make(params, **own(given), **more)
        self.ours = self.build(fastopt.arena(params)[1] if block else params)
        self.theirs = self.build(copies(params), backend="numpy")
        self.rules_of_groups: list[dict[str, Any]] = [{}]
        self.files = tempfile.TemporaryDirectory()
        self.folder = Path(self.files.name)

    def attempt(self, act: Callable[..., Any], *pairs: tuple[Any, Any]) -> tuple[Any, Any]:
        """The same of both, with what belongs to each: results, or the same error."""
        outcomes: list[Any] = []
        for own in zip((self.ours, self.theirs), *pairs, strict=True):
            try:
                outcomes.append(act(*own))
            except (TypeError, ValueError, AttributeError, RuntimeError) as error:
                outcomes.append(error)
        ours, theirs = outcomes
        if isinstance(ours, Exception) or isinstance(theirs, Exception):
            assert (type(ours), str(ours)) == (type(theirs), str(theirs))
        return ours, theirs

    def both(self, act: Callable[..., Any], *pairs: tuple[Any, Any]) -> tuple[Any, Any]:
        """As `attempt`; an error has changed nothing."""
        before = self.contents()
        outcome = self.attempt(act, *pairs)
        if isinstance(outcome[0], Exception):
            assert self.contents() == before
        return outcome

    def contents(self) -> Any:
        averages = [[a.tobytes() for a in average._arrays()] for average in self.averages or ()]
        return [(snapshot(opt), opt._engine.skipped, repr(opt)) for opt in (self.ours, self.theirs)], averages

    def stepped(self, act: Callable[..., Any], *pairs: tuple[Any, Any], unchanged: bool = True) -> tuple[Any, Any]:
        """A step of both in some way."""
        t, pending = self.ours.t, self.ours._engine.accumulated
        ours, theirs = (self.both if unchanged else self.attempt)(act, *pairs)
        if isinstance(ours, Exception):
            refused = (
                "whole parameter",
                " of P",
                "-norm of ",
                "accumulated" if pending else "nothing is accumulated",
            )
            assert isinstance(ours, fastopt.NonFiniteError) or any(words in str(ours) for words in refused), ours
            assert self.ours._engine.accumulated == pending
        else:
            assert same_report(ours, theirs)
            assert self.ours.t == t + ours.applied
            assert not self.ours._engine.accumulated
        return ours, theirs

    def gradients(self, seed: int, kinds: list[str]) -> Any:
        rng = np.random.default_rng(seed)

        def one(p: Any) -> Any:
            g = sprinkled(rng, p.shape, p.dtype, *kinds) if kinds else ordinary(rng, p.shape, p.dtype)
            return laid_out(g, int(rng.integers(12)))

        groups = [{name: one(p) for name, p in group["params"].items()} for group in self.ours.groups]
        if len(groups) == 1:
            return groups[0]
        return [None if rng.integers(8) == 0 else group for group in groups]

    @invariant()
    def the_bits_are_equal(self) -> None:
        if hasattr(self, "ours"):
            assert_same_bits(self.ours, self.theirs)
            assert self.ours._engine.skipped == self.theirs._engine.skipped
            assert [p.state_dict() for p in plateaus(self.ours)] == [p.state_dict() for p in plateaus(self.theirs)]

    def teardown(self) -> None:
        _core.use_isa(_core.isas()[-1])
        if hasattr(self, "files"):
            self.files.cleanup()


def own(value: Any) -> Any:
    """A value for one optimizer alone: a ReduceOnPlateau has a memory."""
    return copy.deepcopy(value)
