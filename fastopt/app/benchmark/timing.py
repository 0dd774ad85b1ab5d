"""Steps of several contenders in turns, so that whatever else the machine does hits all alike."""

from __future__ import annotations

import gc
import itertools
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fastopt.base.tree import Array


def nothing(*_: Any) -> None:
    pass


def feeder(grads: list[Array]) -> Callable[[list[Array]], None]:
    """What writes other numbers into these gradients."""

    def feed(new: list[Array]) -> None:
        for g, numbers in zip(grads, new, strict=True):
            np.copyto(g, numbers)

    return feed


@dataclass
class Contender:
    """A step to time.

    params : the parameters as they are now, to be compared.
    feed : takes other gradients for the next step.
    restore : puts back what steps change and should not; not timed.
    """

    step: Callable[[], Any]
    params: Callable[[], list[Array]] = list
    feed: Callable[[list[Array]], Any] = nothing
    restore: Callable[[], Any] = nothing


class Settings(NamedTuple):
    """How long to look: rounds of batches that last at least `batch` seconds each, about `seconds` in all."""

    rounds: int = 15
    most_rounds: int = 41
    batch: float = 3e-4
    seconds: float = 4.0


QUICK = Settings(rounds=5, most_rounds=9, batch=1e-4, seconds=0.2)

LONG = 0.05
"""Seconds of a step that finds caches and threads as it leaves them, whatever ran before."""

SETTLE = 0.012
"""Seconds for the threads of other libraries to fall asleep: OpenMP's spin for some 8 ms after their own steps."""


class Turns(NamedTuple):
    """Of each contender, the seconds of a step in every round, and how many steps a round timed."""

    seconds: dict[str, list[float]]
    batch: dict[str, int]


def take_turns(
    contenders: Mapping[str, Contender], settings: Settings, one_at_a_time: bool = False, settle: bool = False
) -> Turns:
    """Times all of them, round by round in changing order, the garbage collector off.

    one_at_a_time : a batch is one step, whatever it lasts.
    settle : pause before each batch, for threads to fall asleep.
    """
    estimates = {}
    for name, c in contenders.items():
        if settle:
            time.sleep(SETTLE)
        estimates[name] = _estimate(c, settings.batch, one_at_a_time)
    batch = {
        name: 1 if one_at_a_time else max(1, math.ceil(settings.batch / seconds)) for name, seconds in estimates.items()
    }
    one_round = sum((batch[name] + (estimates[name] < LONG)) * estimates[name] + settle * SETTLE for name in contenders)
    rounds = min(max(settings.rounds, int(settings.seconds / one_round)), settings.most_rounds)
    found: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    enabled = gc.isenabled()
    gc.disable()
    try:
        for i in range(rounds):
            for name in _order(names, i):
                c = contenders[name]
                if settle:
                    time.sleep(SETTLE)
                if estimates[name] < LONG:
                    c.step()
                c.restore()
                found[name].append(_time(c.step, batch[name]))
    finally:
        if enabled:
            gc.enable()
    return Turns(found, batch)


def _order(names: list[str], i: int) -> list[str]:
    """A B C, then C B A, then B C A, A C B, ...: everyone is first at times, and behind each neighbour."""
    k = i // 2 % len(names)
    turned = names[k:] + names[:k]
    return turned[::-1] if i % 2 else turned


def _time(step: Callable[[], Any], n: int) -> float:
    """Seconds of a step, over n of them."""
    started = time.perf_counter_ns()
    for _ in itertools.repeat(None, n):
        step()
    return (time.perf_counter_ns() - started) / n / 1e9


def _estimate(c: Contender, batch: float, one_at_a_time: bool) -> float:
    """About the seconds of a step; the first ones, which compile and allocate, do not count."""
    c.restore()
    c.step()
    n = 1
    while True:
        c.restore()
        seconds = _time(c.step, n)
        if n * seconds >= batch or one_at_a_time:
            return max(seconds, 1e-9)
        n *= 4


def spread(values: list[float]) -> dict[str, float]:
    """Median and quartiles."""
    q1, median, q3 = np.percentile(values, [25, 50, 75])
    return {"median": float(median), "q1": float(q1), "q3": float(q3)}


def ratios(turns: Turns, of: str) -> dict[str, dict[str, float]]:
    """How many times as long as `of` each contender takes, from the ratio of each round; and the ratio of their means,
    in which a few slow rounds count."""
    ours = turns.seconds[of]
    return {
        name: {
            **spread([b / a for a, b in zip(ours, own, strict=True)]),
            "of_means": float(np.mean(own) / np.mean(ours)),
        }
        for name, own in turns.seconds.items()
    }
