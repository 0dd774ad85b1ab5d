"""A machine that does to an optimizer, in any order, all that a program may, and to its NumPy reference the same: after
everything the bits are equal, and what was refused has changed nothing."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import fastopt
from fastopt import _core
from tests.cases import CASES, SPECIAL, ordinary, sprinkled
from tests.lockstep import assert_same_bits, copies, same_report, snapshot

seeds = st.integers(0, 2**32 - 1)
shapes = st.lists(
    st.sampled_from([(), (0,), (1,), (7,), (16,), (3, 5), (2, 3, 4), (33,), (1025,)]), min_size=1, max_size=3
)
dtypes = st.sampled_from([np.float32, np.float64])


def falling(t: int) -> float:
    return 0.1 / (1 + t)


def wavering(t: int) -> float:
    return 0.01 * (1 + t % 3)


rates = st.sampled_from([0.0, 0.1, 1e-3, falling, wavering])
penalties = st.sampled_from([0.0, 0.01, 0.3, falling])
VALUES = {
    "lr": rates,
    "l1": penalties,
    "l2": penalties,
    "prox_l1": penalties,
    "clip_norm": st.sampled_from([None, 0.1, 5.0, falling]),
    "clip_value": st.sampled_from([None, 0.1, 5.0, falling]),
    "eps": st.sampled_from([0.0, 1e-8, 0.1]),
    "betas": st.tuples(st.sampled_from([0.0, 0.5, 0.9, wavering]), st.sampled_from([0.0, 0.9, 0.999])),
    "rho": st.sampled_from([0.0, 0.5, 0.99]),
    "momentum": st.sampled_from([0.0, 0.5, 0.9, wavering]),
    "weight_decay": penalties,
    "decoupled_decay": penalties,
    "average": st.sampled_from([0.0, 0.5, 0.99, wavering]),
}
settable = st.sampled_from(sorted(VALUES)).flatmap(lambda name: st.tuples(st.just(name), VALUES[name]))
policies = st.sampled_from([None, "raise", "skip"])


class Machine(RuleBasedStateMachine):
    """`ours` is compiled and `theirs` the reference: the same in all that makes a difference."""

    @initialize(case=st.sampled_from(CASES), shapes=shapes, dtype=dtypes, seed=seeds, flush=st.booleans())
    def make(self, case: Any, shapes: Any, dtype: Any, seed: int, flush: bool) -> None:
        rng = np.random.default_rng(seed)
        params = {f"p{i}": ordinary(rng, shape, dtype) for i, shape in enumerate(shapes)}
        self.build: Callable[..., Any] = lambda params, **more: case.make(params, flush_subnormals=flush, **more)
        self.added: list[Any] = []
        self.ours = self.build(params)
        self.theirs = self.build(copies(params), backend="numpy")
        self.saved: list[bytes] = []

    def both(self, act: Callable[[fastopt.Optimizer], Any]) -> tuple[Any, Any]:
        """The same of both: results, or the same error and nothing changed."""
        before = snapshot(self.ours), snapshot(self.theirs), repr(self.ours)
        outcomes: list[Any] = []
        for opt in (self.ours, self.theirs):
            try:
                outcomes.append(act(opt))
            except (TypeError, ValueError, AttributeError) as error:
                outcomes.append(error)
        ours, theirs = outcomes
        if isinstance(ours, Exception):
            assert (type(ours), str(ours)) == (type(theirs), str(theirs))
            assert (snapshot(self.ours), snapshot(self.theirs), repr(self.ours)) == before
        else:
            assert not isinstance(theirs, Exception), theirs
        return ours, theirs

    def gradients(self, seed: int, kinds: list[str]) -> Any:
        rng = np.random.default_rng(seed)

        def one(p: Any) -> Any:
            g = sprinkled(rng, p.shape, p.dtype, *kinds) if kinds else ordinary(rng, p.shape, p.dtype)
            layout = rng.integers(8)
            if layout == 0:
                return None
            if layout == 1 and p.ndim:
                return np.asfortranarray(g)
            if layout == 2 and p.ndim:
                return np.repeat(g, 2, axis=0)[::2]
            return g

        groups = [{name: one(p) for name, p in group["params"].items()} for group in self.ours.groups]
        return groups if len(groups) > 1 else groups[0]

    @rule(seed=seeds, kinds=st.lists(st.sampled_from(sorted(SPECIAL)), max_size=2))
    def step(self, seed: int, kinds: list[str]) -> None:
        g = self.gradients(seed, kinds)
        t = self.ours.t
        ours, theirs = self.both(lambda opt: opt.step(g))
        if isinstance(ours, Exception):
            assert isinstance(ours, fastopt.NonFiniteError) or "whole parameter" in str(ours)
        else:
            assert same_report(ours, theirs)
            assert self.ours.t == t + ours.applied

    @rule(value=settable)
    def set_everywhere(self, value: tuple[str, Any]) -> None:
        self.both(lambda opt: setattr(opt, *value))

    @rule(value=settable, which=st.integers(0, 2))
    def set_in_a_group(self, value: tuple[str, Any], which: int) -> None:
        self.both(lambda opt: opt.groups[which % len(opt.groups)].__setitem__(*value))

    @rule(policy=policies, maximize=st.booleans())
    def set_policy(self, policy: str | None, maximize: bool) -> None:
        for opt in (self.ours, self.theirs):
            opt.on_nonfinite, opt.maximize = policy, maximize

    @rule(threads=st.sampled_from([None, 1, 3]), per_thread=st.sampled_from([1, 64, 2**40]), chunk=st.integers(1, 1024))
    def cut_the_work_otherwise(self, threads: int | None, per_thread: int, chunk: int) -> None:
        self.ours.threads = threads
        self.ours._plan.split(per_thread, chunk)

    @rule(name=st.sampled_from(_core.isas()))
    def use_another_instruction_set(self, name: str) -> None:
        _core.use_isa(name)

    @precondition(lambda self: len(self.ours.groups) < 3)
    @rule(shapes=shapes, dtype=dtypes, seed=seeds, lr=rates)
    def add_a_group(self, shapes: Any, dtype: Any, seed: int, lr: Any) -> None:
        rng = np.random.default_rng(seed)
        count = len(self.ours.names)
        params = {f"p{count + i}": ordinary(rng, shape, dtype) for i, shape in enumerate(shapes)}
        outcome, _ = self.both(lambda opt: opt.add_group({"params": copies(params), "lr": lr}))
        assert outcome is None
        self.added.append(lr)

    @rule()
    def save(self) -> None:
        self.saved += [pickle.dumps(opt.state_dict()) for opt in (self.ours, self.theirs)]

    @precondition(lambda self: self.saved)
    @rule(which=st.integers(0, 10))
    def load(self, which: int) -> None:
        """Into both, what either saved: it may need schedules that are no more there."""
        saved = self.saved[which % len(self.saved)]
        self.both(lambda opt: opt.load_state_dict(pickle.loads(saved)))

    @rule()
    def resume(self) -> None:
        """Everything made anew from copies: the backends change places."""
        groups = [copies(group["params"]) for group in self.ours.groups]
        states = [opt.state_dict() for opt in (self.theirs, self.ours)]
        made = []
        for backend, state in zip(("c", "numpy"), states, strict=True):
            opt = self.build(copies(groups[0]), backend=backend)
            for params, lr in zip(groups[1:], self.added, strict=True):
                opt.add_group({"params": copies(params), "lr": lr})
            for old, new in zip(self.ours.groups, opt.groups, strict=True):
                new._values.update(old._values)
            opt._options.update(self.ours._options)
            opt._stale = True
            opt.load_state_dict(state)
            made.append(opt)
        assert snapshot(made[0]).keys() == snapshot(self.ours).keys()
        self.ours, self.theirs = made

    @rule(how=st.sampled_from([copy.deepcopy, lambda opt: pickle.loads(pickle.dumps(opt))]))
    def go_on_with_copies(self, how: Callable[[fastopt.Optimizer], fastopt.Optimizer]) -> None:
        self.ours, self.theirs = how(self.ours), how(self.theirs)

    @rule(
        wrong=st.sampled_from(
            [
                lambda opt: opt.step(5),
                lambda opt: opt.step([np.ones(3)] * 17),
                lambda opt: opt.step(opt._plan.template),
                lambda opt: opt.load_state_dict({"t": 1}),
                lambda opt: setattr(opt, "lr", -1),
                lambda opt: setattr(opt, "lr", math.nan),
                lambda opt: setattr(opt, "on_nonfinite", "explode"),
                lambda opt: setattr(opt, "maximize", 1),
                lambda opt: setattr(opt, "backend", "c"),
                lambda opt: opt.groups[0].__setitem__("lr", "fast"),
                lambda opt: opt.groups[0].__setitem__("params", []),
                lambda opt: opt.add_group({"params": opt.groups[0]["params"]}),
                lambda opt: opt.add_group({"params": {"new": np.ones(3, int)}}),
                lambda opt: opt.add_group({"params": {"new": np.ones(3)}, "lr": -1.0}),
                lambda opt: opt.add_group({"params": {}}),
            ]
        )
    )
    def do_wrong(self, wrong: Any) -> None:
        ours, _ = self.both(wrong)
        # Arrays without elements share no memory.
        assert isinstance(ours, (TypeError, ValueError, AttributeError)) or not any(
            p.size for p in self.ours._plan.params
        )

    @invariant()
    def the_bits_are_equal(self) -> None:
        if hasattr(self, "ours"):
            assert_same_bits(self.ours, self.theirs)
            assert self.ours.t == self.theirs.t

    def teardown(self) -> None:
        _core.use_isa(_core.isas()[-1])


TestMachine = pytest.mark.filterwarnings("ignore::RuntimeWarning")(Machine.TestCase)
TestMachine.settings = settings(stateful_step_count=25)
