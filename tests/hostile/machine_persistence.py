"""What a machine does to the state of two optimizers: save, load, copy, make anew, in memory and through files."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

import fastopt
from tests.cases import CASES
from tests.hostile.machine import Pair, in_numpy, inside, like, own, seeds
from tests.lockstep import copies, loss_of, plateaus, snapshot


class Saved(NamedTuple):
    """A state as pickled bytes or as a file, and what was in it."""

    source: bytes | Path
    state: Any

    def load(self, opt: fastopt.Optimizer) -> None:
        if isinstance(self.source, Path):
            opt.load(self.source)
        else:
            opt.load_state_dict(pickle.loads(self.source))


def state_of(opt: fastopt.Optimizer) -> Any:
    """All that is to come back with a state."""
    arrays = {name: x for name, x in snapshot(opt).items() if name not in opt.names}
    saved = opt.state_dict()
    return arrays, opt._engine.skipped, saved["groups"], saved["options"]


def go_on(opt: fastopt.Optimizer, grads: Any, metric: float) -> None:
    """Changes an optimizer in all that a state has."""
    for plateau in plateaus(opt):
        plateau.update(metric)
    opt.discard_accumulated()
    with suppress(ValueError):
        opt.step(grads, **loss_of(opt))
    opt.accumulate(grads, **loss_of(opt))


class SavedAndLoaded(Pair):
    def __init__(self) -> None:
        super().__init__()
        self.saved: list[Saved] = []

    @rule(to_file=st.booleans())
    def save(self, to_file: bool) -> None:
        for opt in (self.ours, self.theirs):
            source: bytes | Path
            if to_file:
                source = self.folder / f"{len(self.saved)}.safetensors"
                opt.save(source)
            else:
                source = pickle.dumps(opt.state_dict())
            self.saved.append(Saved(source, state_of(opt)))

    @precondition(lambda self: self.saved)
    @rule(which=st.integers(0, 10))
    def load(self, which: int) -> None:
        """Into both, what either saved: it may need schedules that are no more there."""
        saved = self.saved[which % len(self.saved)]
        ours, _ = self.both(saved.load)
        if isinstance(ours, Exception):
            assert isinstance(ours, ValueError)
        else:
            assert state_of(self.ours) == state_of(self.theirs) == saved.state

    @rule(at=st.integers(0, 2**32), flip=st.integers(1, 255), cut=st.booleans())
    def load_a_damaged_file(self, at: int, flip: int, cut: bool) -> None:
        path = self.folder / "damaged"
        self.ours.save(path)
        data = bytearray(path.read_bytes())
        # The header is padded with spaces, and JSON knows other blanks.
        places = [i for i, byte in enumerate(data) if byte != ord(" ")]
        place = places[at % len(places)]
        if cut:
            del data[place:]
        else:
            data[place] ^= flip
        path.write_bytes(data)
        ours, _ = self.both(lambda opt: opt.load(path))
        assert isinstance(ours, ValueError)

    @rule(seed=seeds, metric=st.sampled_from([1.0, math.nan]), to_file=st.booleans())
    def go_back(self, seed: int, metric: float, to_file: bool) -> None:
        """A state is saved, a step taken, and the state loaded."""
        self.save(to_file)
        g = self.gradients(seed, [])
        for opt in (self.ours, self.theirs):
            go_on(opt, g, metric)
        self.load(-2)

    @rule(which=st.integers(0, len(CASES)), same_class=st.booleans(), rename=st.booleans())
    def load_the_file_of_another_optimizer(self, which: int, same_class: bool, rename: bool) -> None:
        cases = [case for case in CASES if case.optimizer is type(self.ours) or not same_class]
        case = cases[which % len(cases)]
        groups = [copies(group["params"]) for group in self.ours.groups]
        if rename:
            groups[0]["renamed"] = groups[0].pop("p0")
        other = case.make(groups[0], flush_subnormals=self.ours.flush_subnormals)
        for group in groups[1:]:
            other.add_group({"params": inside(other, group)})
        path = self.folder / "another"
        other.save(path)
        ours, _ = self.both(lambda opt: opt.load(path))
        if not isinstance(ours, Exception):
            fixed = {**other._engine.fixed, "backend": "c"}
            assert (type(other), fixed, other.names) == (type(self.ours), self.ours._engine.fixed, self.ours.names)
            assert state_of(self.ours) == state_of(other)

    @rule(through_files=st.booleans())
    def resume(self, through_files: bool) -> None:
        """Everything made anew from copies: the backends change places."""
        made: list[Any] = []
        for backend, old in (("c", self.theirs), ("numpy", self.ours)):
            groups = [copies(group["params"]) for group in old.groups]
            opt = self.build(groups[0], backend=backend)
            for params, given in zip(groups[1:], self.rules_of_groups[1:], strict=True):
                opt.add_group({"params": inside(opt, params), **given})
            for p, q in zip(opt._engine.plan.params, old._engine.plan.params, strict=True):
                p[...] = q
            if old._engine.lookahead and not opt._engine.lookahead:
                fastopt.Lookahead(opt)
            values = own([*(group._values for group in old.groups), old._engine.options])
            for target, mine in zip(
                [*(group._values for group in opt.groups), opt._engine.options], values, strict=True
            ):
                target.update(mine)
            opt._engine.stale = True
            if through_files:
                path = self.folder / "resumed"
                old.save(path)
                opt.load(path)
            else:
                opt.load_state_dict(old.state_dict())
            assert (state_of(opt), snapshot(opt)) == (state_of(old), snapshot(old))
            made.append(opt)
        self.ours, self.theirs = made
        self.averages = None

    @rule(how=st.sampled_from([copy.deepcopy, lambda both: pickle.loads(pickle.dumps(both))]))
    def go_on_with_copies(self, how: Callable[[Any], Any]) -> None:
        before, averages, old = self.contents(), self.averages or (None, None), (self.ours, self.theirs)
        (self.ours, ours), (self.theirs, theirs) = how((self.ours, averages[0])), how((self.theirs, averages[1]))
        if self.averages:
            assert ours._plan.params[0] is self.ours._engine.plan.params[0]
            self.averages = ours, in_numpy(theirs)
        assert self.contents() == before
        for opt in old:
            go_on(opt, like(opt), 1.0)
        assert self.contents() == before
