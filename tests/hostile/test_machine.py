"""A machine that does to an optimizer, in any order, all that a program may, and to its NumPy reference the same: after
everything the bits are equal, and what was refused has changed nothing."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

import fastopt
from fastopt.core import _core
from tests.cases import ordinary
from tests.hostile.machine import dtypes, inside, like, own, rates, scales, seeds, settable, shapes
from tests.hostile.machine_around import Around, kinds
from tests.hostile.machine_persistence import SavedAndLoaded
from tests.lockstep import copies, loss_of, plateaus

own_rules: Any = st.sampled_from(
    [
        *[{}] * 4,
        {"frozen": True},
        {"rule": "sgd", "lr": 0.1, "momentum": 0.5},
        {"rule": "lion"},
        {"rule": "lamb", "l2": 0.1},
        {"rule": "adafactor", "momentum": 0.5},
        {"rule": "adamw", "frozen": True},
        {"rule": "prodigy", "d0": 0.01},
        {"rule": "polyaksgd", "f_min": -1.0},
    ]
)
policies = st.sampled_from([None, "raise", "skip"])


class Machine(SavedAndLoaded, Around):
    @rule(seed=seeds, kinds=kinds, grad_scale=scales)
    def step(self, seed: int, kinds: list[str], grad_scale: float | None) -> None:
        g = self.gradients(seed, kinds)
        self.stepped(lambda opt: opt.step(g, grad_scale=grad_scale, **loss_of(opt)))

    @rule(value=settable)
    def set_everywhere(self, value: tuple[str, Any]) -> None:
        name, x = value
        self.both(lambda opt: setattr(opt, name, own(x)))

    @rule(value=settable, which=st.integers(0, 2))
    def set_in_a_group(self, value: tuple[str, Any], which: int) -> None:
        name, x = value
        self.both(lambda opt: opt.groups[which % len(opt.groups)].__setitem__(name, own(x)))

    @precondition(lambda self: plateaus(self.ours))
    @rule(metric=st.sampled_from([1.0, 0.5, math.nan]))
    def report_a_metric(self, metric: float) -> None:
        for opt in (self.ours, self.theirs):
            for plateau in {id(plateau): plateau for plateau in plateaus(opt)}.values():
                plateau.update(metric)

    @rule(policy=policies, maximize=st.booleans())
    def set_policy(self, policy: str | None, maximize: bool) -> None:
        for opt in (self.ours, self.theirs):
            opt.on_nonfinite = policy
        # PolyakSGD does not.
        self.both(lambda opt: setattr(opt, "maximize", maximize))

    @rule(threads=st.sampled_from([None, 1, 3]), per_thread=st.sampled_from([1, 64, 2**40]), chunk=st.integers(1, 1024))
    def cut_the_work_otherwise(self, threads: int | None, per_thread: int, chunk: int) -> None:
        self.ours.threads = threads
        self.ours._engine.plan.split(per_thread, chunk)

    @rule(name=st.sampled_from(_core.isas()))
    def use_another_instruction_set(self, name: str) -> None:
        _core.use_isa(name)

    @precondition(lambda self: len(self.ours.groups) < 3)
    @rule(shapes=shapes, dtype=dtypes, seed=seeds, lr=rates, own_rule=own_rules)
    def add_a_group(self, shapes: Any, dtype: Any, seed: int, lr: Any, own_rule: dict[str, Any]) -> None:
        rng = np.random.default_rng(seed)
        count = len(self.ours.names)
        params = {f"p{count + i}": ordinary(rng, shape, dtype) for i, shape in enumerate(shapes)}
        inside(self.ours, params)
        pending = self.ours._engine.accumulated
        if own_rule.get("rule") == type(self.ours).__name__.lower():
            # Its fixed options are the optimizer's.
            own_rule = {name: x for name, x in own_rule.items() if name in ("rule", "frozen")}
        # Groups of Prodigy share their lr, and those of PolyakSGD what is set later.
        prodigy = isinstance(self.ours, fastopt.Prodigy) and "rule" not in own_rule
        more = own_rule if prodigy or own_rule.get("rule") == "prodigy" else {"lr": lr, **own_rule}
        outcome, _ = self.both(lambda opt: opt.add_group({"params": copies(params), **own([more])[0]}))
        refused = outcome is not None and any(words in str(outcome) for words in (" of P", "lr of Rprop"))
        assert isinstance(outcome, RuntimeError) if pending else outcome is None or refused, outcome
        if outcome is None:
            self.rules_of_groups.append(own_rule)

    @rule(
        wrong=st.sampled_from(
            [
                lambda opt: opt.step(5, **loss_of(opt)),
                lambda opt: opt.step([np.ones(3)] * 17, **loss_of(opt)),
                lambda opt: opt.step(opt._engine.plan.template, **loss_of(opt)),
                lambda opt: opt.step(like(opt, lambda g: g.astype(np.float16)), **loss_of(opt)),
                lambda opt: opt.step(like(opt, lambda g: g.astype(g.dtype.newbyteorder())), **loss_of(opt)),
                lambda opt: opt.step(like(opt, lambda g: g[..., None]), **loss_of(opt)),
                lambda opt: opt.step(like(opt), grad_scale=0.0, **loss_of(opt)),
                lambda opt: opt.step(like(opt), grad_scale=1e300, **loss_of(opt)),
                lambda opt: opt.accumulate(like(opt, lambda g: g.astype(complex)), **loss_of(opt)),
                lambda opt: opt.accumulate(like(opt, lambda g: g.tolist()), **loss_of(opt)),
                lambda opt: opt.accumulate(like(opt), weight=0, **loss_of(opt)),
                lambda opt: opt.load_state_dict({"t": 1}),
                lambda opt: opt.load_state_dict({**opt.state_dict(), "accumulation": {"count": 1}}),
                lambda opt: opt.load_state_dict({**opt.state_dict(), "skipped": -1}),
                lambda opt: setattr(opt, "lr", -1),
                lambda opt: setattr(opt, "lr", math.nan),
                lambda opt: setattr(opt, "on_nonfinite", "explode"),
                lambda opt: setattr(opt, "maximize", 1),
                lambda opt: setattr(opt, "backend", "c"),
                lambda opt: setattr(opt, "bounds", (1, 0)),
                lambda opt: opt.load_state_dict({**opt.state_dict(), "lookahead": {"k": 2}}),
                lambda opt: fastopt.Lookahead(opt, k=0),
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
        assert isinstance(ours, (TypeError, ValueError, AttributeError, RuntimeError)) or not any(
            p.size for p in self.ours._engine.plan.params
        )


TestMachine = pytest.mark.filterwarnings("ignore::RuntimeWarning")(Machine.TestCase)
TestMachine.settings = settings(stateful_step_count=25, max_examples=max(150, settings().max_examples))
