"""Schedules: values at both ends, bad arguments, configs, and as hyperparameters of optimizers."""

from __future__ import annotations

import copy
import json
import math
import pickle
import sys
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import fastopt
from fastopt import schedules as s
from tests.lockstep import assert_same_bits, copies, snapshot

ALL: dict[str, Any] = {
    "constant": s.constant(0.1),
    "step_decay": s.step_decay(0.1, 0.5, 10),
    "exponential rate": s.exponential(0.1, rate=0.05),
    "exponential gamma": s.exponential(0.1, gamma=0.95),
    "cosine": s.cosine(0.1, 50, eta_min=0.01),
    "cosine_restarts": s.cosine_restarts(0.1, 10, t_mult=2, eta_min=0.01),
    "linear": s.linear(0.1, 0.02, 50),
    "inverse_sqrt": s.inverse_sqrt(0.1, 10),
    "polynomial": s.polynomial(0.1, 0.01, 50, power=2),
    "piecewise": s.piecewise([10, 30], [0.1, 0.05, 0.01]),
    "warmup": s.warmup(5, s.cosine(0.1, 50)),
    "warmup of a number": s.warmup(5, 0.1),
    "warmup from a value": s.warmup(5, s.cosine(0.1, 50), start=0.01),
    "warmup of 0 steps": s.warmup(0, s.cosine(0.1, 51)),
    "warmup_stable_decay": s.warmup_stable_decay(0.1, 50, 5, 20, 0.01, start=0.02, decay_shape="cos"),
    "joined": s.joined([s.linear(0.01, 0.1, 5), 0.1, s.warmup(3, s.cosine(0.05, 20))], [5, 20]),
    "cyclic": s.cyclic(0.01, 0.1, 4, 6, mode="triangular2"),
    "cyclic exp_range": s.cyclic(0.1, 0.01, 5, mode="exp_range", gamma=0.99),
    "ema_decay": s.ema_decay(0.8, warmup=True),
    "ema_decay of a schedule": s.ema_decay(s.linear(0.3, 0.9, 20), warmup=True),
    "one_cycle lr": s.one_cycle(0.1, 50).lr,
    "one_cycle momentum": s.one_cycle(0.1, 50, anneal_strategy="linear", three_phase=True).momentum,
    "ReduceOnPlateau": s.ReduceOnPlateau(0.1, patience=2),
}
STATELESS = [name for name in ALL if name != "ReduceOnPlateau"]

# t -> value, from the formulas by hand.
VALUES: dict[str, tuple[Any, dict[int, float]]] = {
    "constant": (s.constant(0.5), {0: 0.5, 10**6: 0.5}),
    "step_decay": (s.step_decay(8, 0.5, 10), {0: 8, 9: 8, 10: 4, 19: 4, 20: 2, 100: 8 / 1024}),
    "exponential rate": (s.exponential(2, rate=math.log(2)), {0: 2, 1: 1, 9: 2 / 512, 10: 2 / 1024}),
    "exponential gamma": (s.exponential(2, gamma=0.5), {0: 2, 1: 1, 9: 2 / 512, 10: 2 / 1024}),
    "exponential growth": (s.exponential(1, gamma=2), {0: 1, 10: 1024}),
    "cosine": (
        s.cosine(3, 12, eta_min=1),
        {0: 3, 4: 2.5, 6: 2, 8: 1.5, 11: 2 - math.cos(math.pi / 12), 12: 1, 13: 1, 24: 1, 10**9: 1},
    ),
    "cosine_restarts": (
        s.cosine_restarts(3, 6, eta_min=1),
        {0: 3, 2: 2.5, 3: 2, 5: 2 - math.cos(math.pi / 6), 6: 3, 8: 2.5, 6 * 10**9: 3},
    ),
    "cosine_restarts, longer": (
        s.cosine_restarts(2, 2, t_mult=2),
        {0: 2, 1: 1, 2: 2, 3: 1 + math.sqrt(0.5), 4: 1, 6: 2, 10: 1, 14: 2, 2 * (2**40 - 1): 2, 2 * (2**40 - 1) - 1: 0},
    ),
    "linear": (s.linear(1, 3, 4), {0: 1, 1: 1.5, 3: 2.5, 4: 3, 5: 3, 10**9: 3}),
    "inverse_sqrt": (s.inverse_sqrt(6, 10), {0: 6, 30: 3, 80: 2, 350: 1}),
    "polynomial": (s.polynomial(5, 1, 4, power=2), {0: 5, 1: 3.25, 2: 2, 3: 1.25, 4: 1, 5: 1, 10**9: 1}),
    "polynomial, power 1": (s.polynomial(1, 3, 4), {0: 1, 1: 1.5, 3: 2.5, 4: 3}),
    "piecewise": (s.piecewise([2, 5], [3, 2, 1]), {0: 3, 1: 3, 2: 2, 4: 2, 5: 1, 10**9: 1}),
    "piecewise of one": (s.piecewise([], [3]), {0: 3, 9: 3}),
    "warmup": (s.warmup(4, s.linear(8, 0, 8)), {0: 2, 1: 4, 2: 6, 3: 8, 4: 8, 5: 7, 11: 1, 12: 0, 99: 0}),
    "warmup of a number": (s.warmup(4, 8), {0: 2, 3: 8, 4: 8, 99: 8}),
    "warmup from a value": (s.warmup(4, s.linear(8, 0, 8), start=4), {0: 4, 1: 5, 3: 7, 4: 8, 5: 7, 12: 0, 99: 0}),
    "warmup from 0": (s.warmup(4, 8, start=0), {0: 0, 1: 2, 3: 6, 4: 8, 99: 8}),
    "warmup from above": (s.warmup(4, 1, start=3), {0: 3, 2: 2, 3: 1.5, 4: 1}),
    "warmup of a step": (s.warmup(1, s.linear(8, 0, 8)), {0: 8, 1: 8, 2: 7}),
    "warmup of a step from a value": (s.warmup(1, s.linear(8, 0, 8), start=3), {0: 3, 1: 8, 2: 7}),
    "warmup of 0 steps": (s.warmup(0, s.linear(8, 0, 8)), {0: 8, 1: 7, 8: 0, 9: 0}),
    "warmup of 0 steps from a value": (s.warmup(0, 8, start=3), {0: 8, 9: 8}),
    "warmup_stable_decay": (
        s.warmup_stable_decay(8, 20, 4, 8),
        {0: 2, 1: 4, 3: 8, 4: 8, 11: 8, 12: 8, 13: 7, 19: 1, 20: 0, 21: 0, 10**9: 0},
    ),
    "warmup_stable_decay from a value": (
        s.warmup_stable_decay(8, 20, 4, 8, 4, start=4),
        {0: 4, 1: 5, 3: 7, 4: 8, 12: 8, 14: 7, 19: 4.5, 20: 4},
    ),
    "warmup_stable_decay, cos": (
        s.warmup_stable_decay(3, 20, 0, 12, 1, decay_shape="cos"),
        {0: 3, 8: 3, 12: 2.5, 14: 2, 16: 1.5, 19: 2 - math.cos(math.pi / 12), 20: 1},
    ),
    "warmup_stable_decay, sqrt": (
        s.warmup_stable_decay(4, 20, 4, 16, decay_shape="sqrt"),
        {3: 4, 4: 4, 5: 3, 8: 2, 13: 1, 20: 0},
    ),
    "warmup_stable_decay, nothing stable": (s.warmup_stable_decay(4, 6, 2, 4), {0: 2, 1: 4, 2: 4, 3: 3, 5: 1, 6: 0}),
    "warmup_stable_decay, no decay": (s.warmup_stable_decay(4, 6, 2, 0), {1: 4, 2: 4, 5: 4, 6: 0}),
    "warmup_stable_decay, all warm-up": (s.warmup_stable_decay(4, 4, 4, 0, 1), {0: 1, 3: 4, 4: 1}),
    "warmup_stable_decay, all decay": (s.warmup_stable_decay(4, 4, 0, 4), {0: 4, 1: 3, 3: 1, 4: 0}),
    "joined": (
        s.joined([s.linear(0, 8, 4), 5, s.exponential(2, gamma=0.5)], [4, 6]),
        {0: 0, 3: 6, 4: 5, 5: 5, 6: 2, 7: 1, 16: 2 / 1024},
    ),
    "joined, cut short": (s.joined([s.linear(0, 8, 4), s.linear(1, 0, 2)], [1]), {0: 0, 1: 1, 2: 0.5, 3: 0}),
    "joined, of one": (s.joined([s.linear(0, 8, 4)], []), {0: 0, 1: 2, 9: 8}),
    "joined, within": (
        s.joined([1, s.joined([s.linear(2, 4, 2), s.warmup(2, 9, start=7)], [2])], [3]),
        {2: 1, 3: 2, 4: 3, 5: 7, 6: 8, 7: 9},
    ),
    "cyclic": (s.cyclic(1, 5, 4), {0: 1, 1: 2, 3: 4, 4: 5, 5: 4, 7: 2, 8: 1, 9: 2, 12: 5, 8 * 10**9 + 4: 5}),
    "cyclic, slowly down": (s.cyclic(1, 3, 1, 4), {0: 1, 1: 3, 2: 2.5, 3: 2, 4: 1.5, 5: 1, 6: 3}),
    "cyclic, down first": (s.cyclic(0.95, 0.85, 2), {0: 0.95, 1: 0.9, 2: 0.85, 3: 0.9, 4: 0.95}),
    "cyclic, triangular2": (s.cyclic(1, 5, 2, mode="triangular2"), {2: 5, 4: 1, 6: 3, 8: 1, 10: 2, 4 * 10**6 + 2: 1}),
    "cyclic, exp_range": (
        s.cyclic(0, 4, 2, mode="exp_range", gamma=0.5),
        {0: 0, 1: 1, 2: 1, 3: 0.25, 4: 0, 6: 0.0625, 10**9 + 2: 0},
    ),
    "cyclic, that grows beyond all": (s.cyclic(1, 5, 2, mode="exp_range", gamma=2), {0: 1, 2: 17, 4 * 10**6: 1}),
    "ema_decay": (s.ema_decay(0.9), {0: 0.9, 10**9: 0.9}),
    "ema_decay, warmup": (s.ema_decay(0.5, warmup=True), {0: 0.1, 1: 2 / 11, 7: 8 / 17, 8: 0.5, 9: 0.5, 10**9: 0.5}),
    "ema_decay, start": (s.ema_decay(0.5, start=3), {0: 0, 2: 0, 3: 0.5, 4: 0.5}),
    "ema_decay, debias": (s.ema_decay(0.5, debias=True), {0: 0, 1: 1 / 3, 2: 3 / 7, 3: 7 / 15, 100: 0.5}),
    "ema_decay of 0, debias": (s.ema_decay(0, debias=True), {0: 0, 1: 0, 9: 0}),
    "ema_decay, both": (
        s.ema_decay(0.9, debias=True, warmup=True),
        {0: 0, 1: 2 / 11 * 0.9 / (1 - 0.1 * 2 / 11), 2: 0.25 * (1 - 0.2 / 11) / (1 - 0.05 / 11), 10**9: 0.9},
    ),
    "ema_decay, all": (
        s.ema_decay(0.5, debias=True, warmup=True, start=2),
        {0: 0, 1: 0, 2: 0, 3: 2 / 11 * 0.9 / (1 - 0.1 * 2 / 11), 10**9: 0.5},
    ),
    "ema_decay of a schedule": (s.ema_decay(s.linear(0, 0.8, 8), start=3), {0: 0, 3: 0, 5: 0.2, 11: 0.8, 99: 0.8}),
    "one_cycle lr": (
        s.one_cycle(0.5, 20).lr,
        {0: 0.02, 5: 0.5, 12: (0.5 + 0.02e-4) / 2, 19: 0.02e-4, 20: 0.02e-4, 10**9: 0.02e-4},
    ),
    "one_cycle momentum": (s.one_cycle(0.5, 20).momentum, {0: 0.95, 5: 0.85, 12: 0.9, 19: 0.95, 20: 0.95, 10**9: 0.95}),
    "one_cycle, three phases": (
        s.one_cycle(0.5, 40, 0.25, "linear", three_phase=True).lr,
        {0: 0.02, 9: 0.5, 18: 0.02, 39: 0.02e-4, 40: 0.02e-4},
    ),
    "one_cycle of one step": (s.one_cycle(0.5, 1).lr, {0: 0.02e-4, 1: 0.02e-4}),
    "one_cycle without a rise": (s.one_cycle(0.5, 10, 0.1).lr, {0: 0.5, 9: 0.02e-4}),
    "one_cycle of a rise": (s.one_cycle(0.5, 10, 1.0).lr, {0: 0.02, 9: 0.5, 10: 0.5}),
    "ReduceOnPlateau": (s.ReduceOnPlateau(0.5), {0: 0.5, 10**9: 0.5}),
}


@pytest.mark.parametrize("name", VALUES)
def test_first_last_and_past_the_end(name: str) -> None:
    schedule, expected = VALUES[name]
    for t, value in expected.items():
        assert schedule(t) == pytest.approx(value, rel=1e-14, abs=1e-15), t
        assert type(schedule(t)) is float


@pytest.mark.parametrize("name", ["cosine", "linear", "polynomial", "one_cycle lr", "warmup_stable_decay"])
def test_the_end_is_reached_to_the_bit(name: str) -> None:
    schedule, expected = VALUES[name]
    assert schedule(10**9) == schedule(10**6) == list(expected.values())[-1]


@pytest.mark.parametrize("name", ALL)
def test_t_is_a_whole_number_from_0(name: str) -> None:
    schedule = ALL[name]
    assert schedule(np.int64(3)) == schedule(3)
    with pytest.raises(ValueError, match="t is -1: expected a whole number, 0 or larger"):
        schedule(-1)
    for bad in (1.0, "1", None, True, np.float64(1), [1]):
        with pytest.raises(TypeError, match=r"t is .*: expected a whole number"):
            schedule(bad)


BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "v": (lambda: s.constant(math.nan), "v of constant is nan: expected a finite number"),
    "v text": (lambda: s.cosine("0.1", 10), "v of cosine is '0.1', a str"),
    "v None": (lambda: s.constant(None), "v of constant is None"),
    "steps None": (lambda: s.cosine(1, None), "steps of cosine is None"),
    "v True": (lambda: s.cosine(True, 10), "v of cosine is True"),
    "v vector": (lambda: s.linear(np.ones(1), 0, 10), "v of linear is"),
    "end": (lambda: s.linear(1, math.inf, 10), "end of linear is inf"),
    "eta_min": (lambda: s.cosine(1, 10, math.nan), "eta_min of cosine is nan"),
    "steps 0": (lambda: s.cosine(1, 0), "steps of cosine is 0: expected a whole number, 1 or larger"),
    "steps 1.5": (lambda: s.linear(1, 0, 1.5), "steps of linear is 1.5: expected a whole number"),
    "steps True": (lambda: s.polynomial(1, 0, True), "steps of polynomial is True"),
    "every": (lambda: s.step_decay(1, 0.5, 0), "every of step_decay is 0"),
    "gamma": (lambda: s.step_decay(1, 0, 5), "gamma of step_decay is 0.0: expected a number larger than 0"),
    "rate": (lambda: s.exponential(1, rate=-1), "rate of exponential is -1.0: expected a finite number, 0 or larger"),
    "neither": (lambda: s.exponential(1), "exponential got neither of rate= and gamma="),
    "both": (lambda: s.exponential(1, rate=1, gamma=1), "exponential got both of rate= and gamma="),
    "t_mult": (lambda: s.cosine_restarts(1, 10, 1.5), "t_mult of cosine_restarts is 1.5"),
    "scale": (lambda: s.inverse_sqrt(1, 0), "scale of inverse_sqrt is 0.0"),
    "power": (lambda: s.polynomial(1, 0, 10, -2), "power of polynomial is -2.0"),
    "boundaries": (lambda: s.piecewise([5, 5], [1, 2, 3]), r"boundaries of piecewise is \[5, 5\]: each must be larger"),
    "a boundary": (lambda: s.piecewise([0], [1, 2]), r"boundaries\[0\] of piecewise is 0"),
    "no boundaries": (lambda: s.piecewise(5, [1, 2]), "boundaries of piecewise is 5: expected a list"),
    "values": (lambda: s.piecewise([5], [1]), "values of piecewise has 1 items for 1 boundaries: expected one more"),
    "a value": (lambda: s.piecewise([5], [1, math.nan]), r"values\[1\] of piecewise is nan"),
    "warmup steps": (lambda: s.warmup(-1, 1), "steps of warmup is -1: expected a whole number, 0 or larger"),
    "start": (lambda: s.warmup(5, 1, start=math.nan), "start of warmup is nan: expected a finite number"),
    "warmup_steps": (lambda: s.warmup_stable_decay(1, 10, -1, 5), "warmup_steps of warmup_stable_decay is -1"),
    "decay_steps": (lambda: s.warmup_stable_decay(1, 10, 5, 0.5), "decay_steps of warmup_stable_decay is 0.5"),
    "decay_shape": (lambda: s.warmup_stable_decay(1, 10, 5, 5, decay_shape="log"), "decay_shape .* 'log': .* 'sqrt'"),
    "phases": (
        lambda: s.warmup_stable_decay(1, 10, 5, 6),
        "warmup_steps=5 and decay_steps=6 of warmup_stable_decay are more than steps=10",
    ),
    "pieces": (lambda: s.joined([1, 2], [3, 5]), "schedules of joined has 2 items for 2 boundaries: expected one more"),
    "no pieces": (lambda: s.joined([], []), "schedules of joined has 0 items for 0 boundaries"),
    "a piece": (lambda: s.joined([1, "cosine"], [3]), r"schedules\[1\] of joined is 'cosine'"),
    "a piece one_cycle": (lambda: s.joined([s.one_cycle(1, 5), 1], [5]), r"schedules\[0\] of joined is one_cycle"),
    "a piece gives None": (lambda: s.joined([1, lambda t: None], [3])(7), r"schedules\[1\]\(4\) of joined is None"),
    "schedules": (lambda: s.joined(s.constant(1), []), "schedules of joined is constant.*: expected a list of sched"),
    "joins": (lambda: s.joined([1, 2, 3], [5, 5]), r"boundaries of joined is \[5, 5\]: each must be larger"),
    "a join": (lambda: s.joined([1, 2], [0]), r"boundaries\[0\] of joined is 0"),
    "peak": (lambda: s.cyclic(0, math.inf, 5), "peak of cyclic is inf"),
    "steps_up": (lambda: s.cyclic(0, 1, 0), "steps_up of cyclic is 0"),
    "steps_down": (lambda: s.cyclic(0, 1, 5, 0), "steps_down of cyclic is 0"),
    "cyclic mode": (lambda: s.cyclic(0, 1, 5, mode="min"), "mode of cyclic is 'min'.* 'exp_range'"),
    "gamma for nothing": (lambda: s.cyclic(0, 1, 5, gamma=0.9), "cyclic with mode='triangular' takes no gamma="),
    "no gamma": (lambda: s.cyclic(0, 1, 5, mode="exp_range"), "cyclic with mode='exp_range' needs gamma="),
    "then": (lambda: s.warmup(5, "cosine"), "then of warmup is 'cosine'"),
    "then None": (lambda: s.warmup(5, None), "then of warmup is None"),
    "then one_cycle": (lambda: s.warmup(5, s.one_cycle(1, 5)), r"then of warmup is one_cycle\(v_max=1.0, steps=5\)"),
    "then gives None": (lambda: s.warmup(5, lambda t: None)(0), r"then\(0\) of warmup is None"),
    "pct_start": (lambda: s.one_cycle(1, 10, 1.5), "pct_start of one_cycle is 1.5"),
    "pct_start, three": (lambda: s.one_cycle(1, 10, 0.6, three_phase=True), "pct_start of one_cycle is 0.6: .* 0.5"),
    "anneal": (lambda: s.one_cycle(1, 10, anneal_strategy="exp"), "anneal_strategy of one_cycle is 'exp'.* 'linear'"),
    "base_momentum": (lambda: s.one_cycle(1, 10, base_momentum=1), "base_momentum of one_cycle is 1.0"),
    "div_factor": (lambda: s.one_cycle(1, 10, div_factor=0), "div_factor of one_cycle is 0.0"),
    "three_phase": (lambda: s.one_cycle(1, 10, three_phase=1), "three_phase of one_cycle is 1: expected True or False"),
    "decay": (lambda: s.ema_decay(1.0), r"decay of ema_decay is 1.0: expected a number in \[0, 1\)"),
    "decay text": (lambda: s.ema_decay("0.9"), "decay of ema_decay is '0.9'"),
    "decay gives None": (lambda: s.ema_decay(lambda t: None)(2), r"decay\(2\) of ema_decay is None"),
    "debias": (lambda: s.ema_decay(0.9, debias=1), "debias of ema_decay is 1: expected True or False"),
    "ema warmup": (lambda: s.ema_decay(0.9, warmup=10), "warmup of ema_decay is 10: expected True or False"),
    "ema start": (lambda: s.ema_decay(0.9, start=-1), "start of ema_decay is -1: expected a whole number, 0 or larger"),
    "debias of what": (
        lambda: s.ema_decay(s.constant(0.9), debias=True),
        r"decay of ema_decay is constant\(v=0.9\): with debias=True expected a number",
    ),
    "factor": (lambda: s.ReduceOnPlateau(1, factor=1), "factor of ReduceOnPlateau is 1.0"),
    "patience": (lambda: s.ReduceOnPlateau(1, patience=-1), "patience of ReduceOnPlateau is -1: .* 0 or larger"),
    "cooldown": (lambda: s.ReduceOnPlateau(1, cooldown=0.5), "cooldown of ReduceOnPlateau is 0.5"),
    "mode": (lambda: s.ReduceOnPlateau(1, mode="lower"), "mode of ReduceOnPlateau is 'lower'"),
    "threshold": (lambda: s.ReduceOnPlateau(1, threshold=-1), "threshold of ReduceOnPlateau is -1.0"),
    "threshold_mode": (lambda: s.ReduceOnPlateau(1, threshold_mode="relative"), "threshold_mode .* 'rel_torch'"),
    "metric": (lambda: s.ReduceOnPlateau(1).update("0.1"), "metric is '0.1'"),
    "scale_lr": (lambda: s.scale_lr(0, 64, 32), "lr is 0.0"),
    "batch_size": (lambda: s.scale_lr(0.1, 0, 32), "batch_size is 0"),
    "base_batch_size": (lambda: s.scale_lr(0.1, 64, 1.5), "base_batch_size is 1.5"),
    "plot": (lambda: s.plot({"a": s.one_cycle(1, 5)}, 5), r"schedules\['a'\] is one_cycle.*: expected a callable"),
    "plot nothing": (lambda: s.plot({}, 5), "schedules is empty"),
    "plot steps": (lambda: s.plot(s.constant(1), 0), "steps is 0"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_arguments_are_named(what: str) -> None:
    call, words = BAD[what]
    with pytest.raises((TypeError, ValueError), match=words):
        call()


def test_scale_lr() -> None:
    assert s.scale_lr(0.1, 256, 32) == 0.8
    assert s.scale_lr(0.1, 32, 256) == 0.0125


@pytest.mark.parametrize("name", ALL)
def test_schedules_are_values(name: str) -> None:
    schedule = ALL[name]
    for twin in (pickle.loads(pickle.dumps(schedule)), copy.deepcopy(schedule), eval(repr(schedule), vars(s))):
        assert [twin(t) for t in range(80)] == [schedule(t) for t in range(80)]
        assert repr(twin) == repr(schedule)
        if name in STATELESS:
            assert twin == schedule
            assert hash(twin) == hash(schedule)
    assert all(schedule != other for key, other in ALL.items() if key != name)
    if name in STATELESS:
        with pytest.raises(AttributeError):
            schedule.steps = 5


def test_repr_shows_what_was_given() -> None:
    assert repr(s.cosine(0.1, 50)) == "cosine(v=0.1, steps=50)"
    assert repr(s.warmup(5, s.exponential(1, gamma=0.5))) == "warmup(steps=5, then=exponential(v=1.0, gamma=0.5))"
    assert repr(s.joined([0.1, s.constant(2)], [3])) == (
        "joined(schedules=(constant(v=0.1), constant(v=2.0)), boundaries=(3,))"
    )
    assert repr(s.one_cycle(0.1, 50, 0.5).lr) == "one_cycle(v_max=0.1, steps=50, pct_start=0.5).lr"
    assert "lr=cosine(v=0.1, steps=50)" in repr(fastopt.SGD([np.ones(1)], lr=s.cosine(0.1, 50)))


@pytest.mark.parametrize("name", ALL)
def test_configs_go_through_json(name: str) -> None:
    schedule = ALL[name]
    config = s.to_config(schedule)
    assert config.keys() == {"name", "arguments"}
    again = s.from_config(json.loads(json.dumps(config, allow_nan=False)))
    assert type(again) is type(schedule)
    assert again == schedule or name not in STATELESS
    assert s.to_config(again) == config
    assert [again(t) for t in range(80)] == [schedule(t) for t in range(80)]


def test_a_config_says_everything() -> None:
    assert s.to_config(s.warmup(5, s.cosine(0.1, 50))) == {
        "name": "warmup",
        "arguments": {
            "steps": 5,
            "then": {"name": "cosine", "arguments": {"v": 0.1, "steps": 50, "eta_min": 0.0}},
        },
    }


class Own(s.cosine):
    """A user's own schedule, made from a built-in."""


@pytest.mark.parametrize(
    "own",
    [
        lambda t: 0.1,
        s.warmup(5, lambda t: 0.1),
        s.joined([1, lambda t: 0.1], [5]),
        Own(1, 5),
        math.sqrt,
        0.1,
        s.one_cycle(1, 5),
    ],
)
def test_own_callables_have_no_config(own: Any) -> None:
    with pytest.raises(TypeError, match=r"not one of fastopt\.schedules"):
        s.to_config(own)


def deep(levels: int) -> Any:
    config = s.to_config(s.constant(1))
    for _ in range(levels):
        config = {"name": "warmup", "arguments": {"steps": 1, "then": config}}
    return config


PLATEAU = s.to_config(s.ReduceOnPlateau(0.1))["arguments"]
BAD_CONFIGS = [
    None,
    "cosine",
    {},
    {"name": "cosine"},
    {"name": "cosine", "arguments": None},
    {"name": "cosine", "arguments": [0.1, 50]},
    {"name": "cosine", "arguments": {"v": 0.1}},
    {"name": "cosine", "arguments": {"v": 0.1, "steps": 50, "lr": 1}},
    {"name": "cosine", "arguments": {"v": 0.1, "steps": 0}},
    {"name": "cosine", "arguments": {"v": 10**400, "steps": 5}},
    {"name": "cosine", "arguments": {1: 0.1, "steps": 5}},
    {"name": "cosine", "arguments": {"v": 0.1, "steps": 50}, "extra": 1},
    {"name": "os.system", "arguments": {"command": "true"}},
    {"name": "NamedSchedule", "arguments": {}},
    {"name": "one_cycle", "arguments": {"v_max": 1, "steps": 5}},
    {"name": ["cosine"], "arguments": {}},
    {"name": None, "arguments": {}},
    {"name": "warmup", "arguments": {"steps": 5, "then": {"name": "unknown", "arguments": {}}}},
    {"name": "warmup", "arguments": {"steps": 5, "then": math.sqrt}},
    {"name": "joined", "arguments": {"schedules": [0.1, math.sqrt], "boundaries": [5]}},
    {"name": "joined", "arguments": {"schedules": [0.1, {"name": "unknown", "arguments": {}}], "boundaries": [5]}},
    {"name": "joined", "arguments": {"schedules": [0.1, [math.sqrt]], "boundaries": [5]}},
    {"name": "joined", "arguments": {"schedules": [0.1, 0.2], "boundaries": [5, 6]}},
    {"name": "piecewise", "arguments": {"values": [0.1, {}], "boundaries": [5]}},
    {"name": "warmup_stable_decay", "arguments": {"v": 0.1, "steps": 5, "warmup_steps": 3, "decay_steps": 3}},
    {"name": "ReduceOnPlateau", "arguments": {"v": 0.1}},
    {"name": "ReduceOnPlateau", "arguments": {**PLATEAU, "best": math.nan}},
    {"name": "ReduceOnPlateau", "arguments": {**PLATEAU, "cooldown_left": -1}},
    {"name": "ReduceOnPlateau", "arguments": {**PLATEAU, "mode": "up"}},
    deep(10**5),
]


@pytest.mark.parametrize("config", BAD_CONFIGS, ids=range(len(BAD_CONFIGS)))
def test_bad_configs_are_refused(config: Any) -> None:
    with pytest.raises(ValueError, match="config is not that of a schedule"):
        s.from_config(config)


def test_nested_warmups() -> None:
    assert s.to_config(s.from_config(deep(20))) == deep(20)


def test_a_joined_config_holds_those_of_its_pieces() -> None:
    assert s.to_config(s.joined([s.warmup(5, 0.1, start=0), 0.01], [50])) == {
        "name": "joined",
        "arguments": {
            "schedules": [
                {
                    "name": "warmup",
                    "arguments": {"steps": 5, "then": {"name": "constant", "arguments": {"v": 0.1}}, "start": 0.0},
                },
                {"name": "constant", "arguments": {"v": 0.01}},
            ],
            "boundaries": [50],
        },
    }


def test_a_plateau_inside_a_joined_stays_the_users_own() -> None:
    rng = np.random.default_rng(0)
    grads = [[rng.standard_normal(3)] for _ in range(9)]

    def run(first: Any, second: Any) -> fastopt.SGD:
        return fastopt.SGD([np.ones(3)], lr=s.joined([first, s.warmup(2, second)], [3]))

    plateaus = [s.ReduceOnPlateau(v, 0.5, patience=0) for v in (0.5, 0.25)]
    straight = run(*plateaus)
    for g in grads[:5]:
        straight.step(g)
        plateaus[0].update(1.0)
    assert plateaus[0].value < plateaus[1].value
    mine = [s.ReduceOnPlateau(9.0), s.ReduceOnPlateau(8.0)]
    resumed = run(*mine)
    resumed.load_state_dict(straight.state_dict())
    resumed._engine.plan.params[0][:] = straight._engine.plan.params[0]
    assert [plateau.state_dict() for plateau in mine] == [plateau.state_dict() for plateau in plateaus]
    assert resumed.lr.schedules[0] is mine[0]  # type: ignore[union-attr]
    for g in grads[5:]:
        for plateau in (plateaus[1], mine[1]):
            plateau.update(1.0)
        straight.step(g)
        resumed.step(g)
    assert_same_bits(straight, resumed)
    with pytest.raises(ValueError, match="lr, lr followed a ReduceOnPlateau"):
        fastopt.SGD([np.ones(3)], lr=0.1).load_state_dict(straight.state_dict())


# ReduceOnPlateau, beside what PyTorch's is compared with


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_metric_that_is_not_finite_is_no_improvement(mode: str, bad: float) -> None:
    plateau = s.ReduceOnPlateau(1, 0.5, 1, mode=mode)
    assert [plateau.update(x) for x in (bad, bad, 3.0, bad, bad)] == [1, 0.5, 0.5, 0.5, 0.25]
    assert plateau.best == 3.0


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("level", [1.0, -1.0, 0.0, -0.0, 1e300, -1e300, 5e-324, -5e-324])
def test_a_flat_metric_is_a_plateau_whatever_its_sign(mode: str, level: float) -> None:
    plateau = s.ReduceOnPlateau(1.0, 0.5, patience=2, mode=mode)
    assert [plateau.update(level) for _ in range(8)] == [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25]
    assert plateau.best == level


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("threshold", [0.0, 1e-4, 0.25, 0.5, 1.0, 3.0])
def test_the_relative_margin_is_of_the_size_of_the_best(mode: str, threshold: float) -> None:
    sign = 1 if mode == "max" else -1
    for best in (-8.0, -0.5, 0.0, 0.5, 8.0):
        just = best + sign * threshold * abs(best)
        for x, improves in [
            (math.nextafter(just, -sign * math.inf), False),
            (just, False),
            (just + sign * 2e-15 * (1 + threshold) * (abs(best) or 1), True),
        ]:
            plateau = s.ReduceOnPlateau(1.0, mode=mode, threshold=threshold)
            plateau.update(best)
            plateau.update(x)
            assert plateau.best == (x if improves else best)


def test_torchs_relative_margin_moves_the_best_of_negative_metrics_the_wrong_way() -> None:
    plateau = s.ReduceOnPlateau(1.0, 0.5, patience=2, threshold_mode="rel_torch")
    assert [plateau.update(-1 + 1e-5 * i) for i in range(8)] == [1.0] * 8
    assert plateau.best is not None
    assert plateau.best > -1


def test_plateau_state() -> None:
    plateau = s.ReduceOnPlateau(0.1, 0.5, 2, mode="max", cooldown=1)
    for metric in (1, 0, 0, 0, 0, 2):
        plateau.update(metric)
    saved = plateau.state_dict()
    assert (saved["value"], saved["best"]) == (0.05, 2)
    other = s.ReduceOnPlateau(3)
    other.load_state_dict(json.loads(json.dumps(saved, allow_nan=False)))
    assert other.state_dict() == saved
    for metric in np.random.default_rng(0).standard_normal(30):
        assert other.update(metric) == plateau.update(metric)
    assert plateau.value < 0.05


@pytest.mark.parametrize(
    "change", [{"best": "1"}, {"value": math.nan}, {"without_improvement": -1}, {"factor": 1}, {"x": 0}]
)
def test_a_bad_plateau_state_changes_nothing(change: dict[str, Any]) -> None:
    plateau = s.ReduceOnPlateau(0.1, patience=0)
    plateau.update(1)
    plateau.update(2)
    before = plateau.state_dict()
    for bad in ({**before, **change}, {}, None, 5):
        with pytest.raises((TypeError, ValueError)):
            plateau.load_state_dict(bad)  # type: ignore[arg-type]
    assert plateau.state_dict() == before


# As hyperparameters


HYPERPARAMETERS = {
    "lr": (fastopt.SGD, {"lr": 0.1, "momentum": 0.9}),
    "momentum": (fastopt.SGD, {"lr": 0.1, "momentum": 0.9}),
    "l2": (fastopt.Adam, {"l2": 0.1}),
    "eps": (fastopt.Adam, {"eps": 0.1}),
    "clip_norm": (fastopt.Adam, {"clip_norm": 0.5}),
    "average": (fastopt.SGD, {"lr": 0.1, "average": 0.9}),
    "betas": (fastopt.Adam, {"betas": (0.9, 0.99)}),
}


@pytest.mark.parametrize("schedule", ALL)
@pytest.mark.parametrize("name", HYPERPARAMETERS)
def test_any_schedule_drives_any_hyperparameter(name: str, schedule: str) -> None:
    cls, kwargs = HYPERPARAMETERS[name]
    follow = copy.deepcopy(ALL[schedule])

    def value(x: Any) -> Any:
        return (x, 0.99) if name == "betas" else x

    rng = np.random.default_rng(0)
    p = [rng.standard_normal(40)]
    scheduled = cls(copies(p), **{**kwargs, name: value(follow)})
    by_hand = cls(copies(p), **{**kwargs, name: value(follow(0))})
    for t in range(14):
        setattr(by_hand, name, value(follow(t)))
        g = [rng.standard_normal(40)]
        assert scheduled.step(g) == by_hand.step(g)
        if t % 3 == 0 and schedule == "ReduceOnPlateau":
            follow.update(1.0)
    assert_same_bits(scheduled, by_hand)
    assert schedule != "ReduceOnPlateau" or follow(0) < 0.1


@pytest.mark.parametrize("name", STATELESS)
def test_a_step_that_is_not_applied_advances_nothing(name: str) -> None:
    rng = np.random.default_rng(1)
    p = [rng.standard_normal(5)]
    steps = [[rng.standard_normal(5)] for _ in range(25)]
    straight = fastopt.SGD(copies(p), lr=ALL[name], on_nonfinite="skip")
    halting = fastopt.SGD(copies(p), lr=ALL[name], on_nonfinite="skip")
    for i, g in enumerate(steps):
        straight.step(g)
        if i % 2:
            assert not halting.step([np.full(5, np.nan)]).applied
        if i % 3 == 0:
            assert not halting.step([None]).applied
        assert halting.step(g).applied
    assert snapshot(straight) == snapshot(halting)
    assert straight.t == halting.t == len(steps)


def test_one_cycle_itself_is_no_schedule() -> None:
    with pytest.raises(TypeError, match=r"lr is one_cycle\(v_max=0.1, steps=5\)"):
        fastopt.SGD([np.ones(1)], lr=s.one_cycle(0.1, 5))  # type: ignore[arg-type]


# The picture


def test_plot() -> None:
    figure = pytest.importorskip("matplotlib.figure")
    ax = figure.Figure().subplots()
    named = {"cosine": ALL["cosine"], "own": lambda t: t / 100}
    assert s.plot(named, 60, ax=ax) is ax
    for line, schedule in zip(ax.lines, named.values(), strict=True):
        assert line.get_xdata().tolist() == list(range(60))
        assert list(line.get_ydata()) == [schedule(t) for t in range(60)]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["cosine", "own"]
    assert ax.get_xlabel()
    assert ax.get_ylabel()


def test_plot_makes_axes_of_its_own() -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot")
    ax = s.plot(ALL["cosine"], 60)
    assert len(ax.lines) == 1
    assert ax.get_legend() is None
    pyplot.close(ax.figure)


def test_plot_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        s.plot(s.constant(1), 5)


@pytest.mark.parametrize("start", [None, 0.0, 0.3])
@pytest.mark.parametrize(("steps", "warm", "decay"), [(30, 5, 10), (30, 0, 30), (30, 30, 0), (30, 1, 1), (1, 0, 1)])
def test_warmup_stable_decay_is_its_pieces_joined(start: Any, steps: int, warm: int, decay: int) -> None:
    """To the bit, at every step, beyond the end too."""
    whole = s.warmup_stable_decay(0.1, steps, warm, decay, 0.01, start=start)
    tail = s.linear(0.1, 0.01, decay or 1)
    parts = [(warm, s.warmup(warm, 0.1, start=start)), (steps - warm - decay, 0.1), (decay, tail)]
    parts = [(length, part) for length, part in parts if length]
    ends = np.cumsum([length for length, _ in parts])
    pieces = s.joined([*(part for _, part in parts), 0.01], ends)
    assert [whole(t) for t in range(2 * steps)] == [pieces(t) for t in range(2 * steps)]


@pytest.mark.parametrize("warmup", [False, True])
@pytest.mark.parametrize("decay", [0.0, 0.05, 0.1, 0.5, 10 / 19, 0.9, 0.999])
def test_a_debiased_decay_takes_nothing_from_before(decay: float, warmup: bool) -> None:
    """The same weights as of an average that begins at 0, divided by their sum: over exact fractions."""
    debiased = s.ema_decay(decay, debias=True, warmup=warmup)
    plain = s.ema_decay(decay, warmup=warmup)
    weights: list[Fraction] = []
    product = Fraction(1)
    for t in range(40):
        d = Fraction(plain(t))
        weights = [*(d * w for w in weights), 1 - d]
        product *= d
        assert sum(weights) == 1 - product
        # The newest weighs 1 minus the decay.
        assert debiased(t) == pytest.approx(float(1 - weights[-1] / sum(weights)), rel=1e-11, abs=1e-12)


def test_a_warmup_checks_what_follows_it() -> None:
    schedule = s.warmup(2, lambda t: 0.1 if t == 0 else "fast")  # type: ignore[arg-type, return-value]
    assert schedule(2) == 0.1
    with pytest.raises(TypeError, match=r"then\(1\) of warmup is 'fast'"):
        schedule(3)
