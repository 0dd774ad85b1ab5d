"""What a machine does around the step of two optimizers: micro-batches, scaled losses, clipping by hand, other values
in the parameters for a while, averages outside."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

import fastopt
from fastopt import reference
from fastopt.app.selftest import same_bits
from fastopt.base import tree
from fastopt.core import _core
from tests.cases import SPECIAL
from tests.hostile.machine import Pair, in_numpy, own, rates, scales, seeds, wavering
from tests.lockstep import assert_same_bits, loss_of, told

kinds = st.lists(st.sampled_from(sorted(SPECIAL)), max_size=2)


@contextmanager
def perturbed(sam: fastopt.SAM, grads: Any) -> Iterator[None]:
    sam.first_step(grads)
    try:
        yield
    finally:
        sam.restore()


AWAY: dict[str, Callable[..., Any]] = {
    "nesterov": lambda opt, sam, average, grads: opt.nesterov_point(),
    "averaged": lambda opt, sam, average, grads: opt.averaged(),
    "swapped": lambda opt, sam, average, grads: average.swapped(),
    "perturbed": lambda opt, sam, average, grads: perturbed(sam, grads),
}
REFUSED_AWAY: dict[str, Callable[..., Any]] = {
    "step": lambda opt, grads: opt.step(grads, **loss_of(opt)),
    "step with what is accumulated": lambda opt, grads: opt.step(),
    "load_state_dict": lambda opt, grads: opt.load_state_dict(opt.state_dict()),
    "add_group": lambda opt, grads: opt.add_group({"params": {"new": np.ones(3)}}),
    "deepcopy": lambda opt, grads: copy.deepcopy(opt),
    "Lookahead": lambda opt, grads: fastopt.Lookahead(opt),
    "bounds": lambda opt, grads: setattr(opt, "bounds", (None, 9)),
}
ALLOWED_AWAY: dict[str, Callable[..., Any]] = {
    "accumulate": lambda opt, grads: opt.accumulate(grads, **loss_of(opt)),
    "discard": lambda opt, grads: opt.discard_accumulated(),
    "lr": lambda opt, grads: setattr(opt, "lr", 0.05),
    "state_dict": lambda opt, grads: opt.state_dict() and None,
}
acts = st.lists(st.sampled_from([*REFUSED_AWAY, *ALLOWED_AWAY, *AWAY]), max_size=3)
NORMS = {1: reference.sum_abs, 2: reference.sum_squares, math.inf: reference.max_abs}


def entered(block: Any) -> Any:
    block.__enter__()
    return block


def in_order(a: Any) -> Any:
    """The elements as reductions take them."""
    return a.ravel("F" if a.flags.f_contiguous and not a.flags.c_contiguous else "C")


def clipped(grads: list[Any], limit: float, norm_type: float, per_tensor: bool) -> list[Any]:
    """What the reference makes of gradients that clip_grad_norm_ clips, or clip_grad_value_ where norm_type is 0."""
    with _core.subnormals(), np.errstate(all="ignore"):
        found = [np.empty(g.shape, g.dtype) for g in grads]
        parts = [[i] for i in range(len(grads))] if per_tensor else [list(range(len(grads)))]
        norms = (
            [reference.norm([in_order(grads[i]) for i in part], NORMS[norm_type])[0] for part in parts]
            if norm_type
            else []
        )
        if not all(map(math.isfinite, norms)):
            return grads
        for part, norm in zip(parts, norms, strict=True):
            for i in part:
                if norm > limit:
                    reference.load(found[i], grads[i], reference.factor_between(limit, norm))
                else:
                    found[i][...] = grads[i]
    return found


class Around(Pair):
    def __init__(self) -> None:
        super().__init__()
        self.scalers = fastopt.LossScaler(2.0**10, growth_interval=2), fastopt.LossScaler(2.0**10, growth_interval=2)

    @rule(seed=seeds, kinds=kinds, weight=st.sampled_from([1.0, 0.5, 3, 1e-30]))
    def accumulate(self, seed: int, kinds: list[str], weight: float) -> None:
        g = self.gradients(seed, kinds)
        ours, theirs = self.both(lambda opt: opt.accumulate(g, weight, **loss_of(opt)))
        assert type(ours) is int
        assert ours == theirs

    @rule(grad_scale=scales)
    def step_with_what_is_accumulated(self, grad_scale: float | None) -> None:
        self.stepped(lambda opt: opt.step(grad_scale=grad_scale))

    @precondition(lambda self: self.ours._engine.accumulated)
    @rule()
    def discard(self) -> None:
        self.both(lambda opt: opt.discard_accumulated())

    @rule(k=st.integers(1, 4), alpha=st.sampled_from([0.3, 0.5, 1.0]))
    def look_ahead(self, k: int, alpha: float) -> None:
        self.both(lambda opt: fastopt.Lookahead(opt, k, alpha) and None)

    @rule(seed=seeds, kinds=kinds)
    def step_of_a_scaled_loss(self, seed: int, kinds: list[str]) -> None:
        scale = self.scalers[0].scale
        with np.errstate(all="ignore"):
            g = tree.transform(
                self.gradients(seed, kinds),
                lambda g: None if g is None else np.multiply(g, g.dtype.type(scale), out=np.empty_like(g)),
            )
        reports = self.stepped(lambda opt, scaler: opt.step(g, grad_scale=scaler.scale, **loss_of(opt)), self.scalers)
        if not isinstance(reports[0], Exception):
            updated, _ = self.both(lambda opt, scaler, report: scaler.update(report), self.scalers, reports)
            assert updated is None or "does not check" in str(updated)
        assert self.scalers[0].state_dict() == self.scalers[1].state_dict()

    @rule(
        seed=seeds,
        kinds=kinds,
        norm_type=st.sampled_from([1, 2, math.inf]),
        limit=st.sampled_from([0.1, 5.0]),
        per_tensor=st.booleans(),
    )
    def step_with_clipped_gradients(
        self, seed: int, kinds: list[str], norm_type: float, limit: float, per_tensor: bool
    ) -> None:
        g = self.gradients(seed, kinds)
        leaves = [x for x in self.ours._engine.match(g) if x is not None]
        expected = clipped([x.copy(order="K") for x in leaves], limit, norm_type, per_tensor)
        if all(x.flags.writeable for x in leaves):
            fastopt.clip_grad_norm_(g, limit, norm_type, per_tensor=per_tensor)
            assert all(same_bits(x.copy(), y) for x, y in zip(leaves, expected, strict=True))
        self.stepped(lambda opt: opt.step(g, **loss_of(opt)))

    @rule(
        kind=st.sampled_from(["EMA", "RunningMean"]), decay=st.sampled_from([0.9, 0.0, wavering]), flush=st.booleans()
    )
    def average(self, kind: str, decay: Any, flush: bool) -> None:
        def make(opt: fastopt.Optimizer) -> Any:
            params = [group["params"] for group in opt.groups]
            return fastopt.EMA(params, decay, flush) if kind == "EMA" else fastopt.RunningMean(params, flush)

        self.averages = make(self.ours), in_numpy(make(self.theirs))

    @precondition(lambda self: self.averages)
    @rule()
    def update_averages(self) -> None:
        self.both(lambda opt, average: average.update(), self.averages)

    @precondition(lambda self: self.averages)
    @rule()
    def update_and_reload_averages(self) -> None:
        """Each gets back what the other was."""
        states = [average.state_dict() for average in self.averages[::-1]]
        self.both(lambda opt, average: average.update(), self.averages)
        self.both(lambda opt, average, state: average.load_state_dict(state), self.averages, states)
        for average, state in zip(self.averages, states, strict=True):
            assert average.count == state["count"]
            assert all(same_bits(x, y) for x, y in zip(average._arrays(), state["averages"].values(), strict=True))

    @rule(how=st.sampled_from(sorted(AWAY)), acts=acts, seed=seeds, rho=rates)
    def elsewhere(self, how: str, acts: list[str], seed: int, rho: Any) -> None:
        """Other values are in the parameters for a while."""
        sams = fastopt.SAM(self.ours, own(rho)), fastopt.SAM(self.theirs, own(rho))
        g, home = self.gradients(seed, []), self.parameters()
        averages = self.averages or (None, None)
        if how == "swapped" and not self.averages:
            return
        enter = AWAY[how]
        blocks = self.both(lambda opt, sam, average: entered(enter(opt, sam, average, g)), sams, averages)
        if isinstance(blocks[0], Exception):
            return
        self.do_there(acts, g)
        self.attempt(lambda opt, block: block.__exit__(None, None, None), blocks)
        assert self.parameters() == home

    @rule(
        seed=seeds,
        kinds=kinds,
        acts=acts,
        rho=rates,
        norm=st.sampled_from([1, 2, math.inf]),
        adaptive=st.booleans(),
        halves=st.booleans(),
    )
    def sharpness_aware_step(
        self, seed: int, kinds: list[str], acts: list[str], rho: Any, norm: float, adaptive: bool, halves: bool
    ) -> None:
        sams = [fastopt.SAM(opt, own(rho), norm, adaptive) for opt in (self.ours, self.theirs)]
        first, second = self.gradients(seed, kinds), self.gradients(seed ^ 1, kinds)
        if not halves:
            gradients = [iter([first, second]) for _ in sams]
            self.stepped(lambda opt, sam, grads: sam.step(lambda: told(opt, next(grads))), sams, gradients)
            return
        home = self.parameters()
        ours, _ = self.both(lambda opt, sam: sam.first_step(first), sams)
        if isinstance(ours, Exception):
            return
        assert not self.ours._engine.accumulated
        self.do_there(acts, second)
        ours, _ = self.stepped(lambda opt, sam: sam.second_step(second, **loss_of(opt)), sams, unchanged=False)
        assert self.parameters() == home or ours.applied

    def do_there(self, acts: list[str], g: Any) -> None:
        assert_same_bits(self.ours, self.theirs)
        sams = fastopt.SAM(self.ours), fastopt.SAM(self.theirs)
        for name in acts:
            if name == "swapped" and not self.averages:
                continue
            if name in AWAY:
                again = AWAY[name]
                outcome, _ = self.both(
                    lambda opt, sam, average, again=again: entered(again(opt, sam, average, g)),
                    sams,
                    self.averages or (None, None),
                )
                assert isinstance(outcome, Exception)
            else:
                act = REFUSED_AWAY.get(name) or ALLOWED_AWAY[name]
                outcome, _ = self.both(lambda opt, act=act: act(opt, g))
                assert isinstance(outcome, RuntimeError) == (name in REFUSED_AWAY)
            assert_same_bits(self.ours, self.theirs)

    def parameters(self) -> list[bytes]:
        return [p.tobytes() for opt in (self.ours, self.theirs) for p in opt._engine.plan.params]

    @invariant()
    def the_averages_are_equal(self) -> None:
        if self.averages:
            pairs = zip(*(average._arrays() for average in self.averages), strict=True)
            assert all(same_bits(x, y) for x, y in pairs)
            assert self.averages[0].count == self.averages[1].count
