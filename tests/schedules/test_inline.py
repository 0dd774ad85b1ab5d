"""What a notebook shows of a schedule."""

from __future__ import annotations

import math
import re
from typing import Any
from xml.etree import ElementTree

import pytest

from fastopt import schedules as s
from fastopt.schedules import inline
from tests.schedules.test_schedules import ALL


def html(schedule: Any) -> Any:
    return ElementTree.fromstring(schedule._repr_html_().replace("<br>", "<br/>"))


def points(schedule: Any) -> list[tuple[float, float]]:
    line = html(schedule).find(".//polyline")
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in line.get("points").split())]


@pytest.mark.parametrize("name", ALL)
def test_every_schedule_shows_itself(name: str) -> None:
    schedule = ALL[name]
    assert html(schedule).find("code").text == repr(schedule)
    if name == "ReduceOnPlateau":
        assert html(schedule).find("code").tail == " now 0.1"
        return
    curve = points(schedule)
    assert curve[0][0] == 0
    assert curve[-1][0] == inline.WIDTH
    assert all(0 <= y <= inline.HEIGHT for _, y in curve)
    assert name == "constant" or (min(y for _, y in curve), max(y for _, y in curve)) == (0, inline.HEIGHT)


def test_the_curve_is_that_of_the_values() -> None:
    assert points(s.linear(2, 0, 10)) == [
        (pytest.approx(t * 30, abs=0.05), pytest.approx(min(t * 8, 80), abs=0.05)) for t in range(11)
    ]
    assert html(s.linear(2, 0, 10)).find("small").text == "t = 0 to 10, values 0 to 2"
    assert len(points(s.cosine(1, 10**9))) == inline.POINTS + 1


@pytest.mark.parametrize(
    ("schedule", "steps"),
    [
        (s.constant(1), 110),
        (s.cosine(1, 1000), 1100),
        (s.warmup(50, s.cosine(1, 1000)), 1150),
        (s.warmup(50, s.joined([1, s.linear(1, 0, 100)], [200])), 360),
        (s.joined([s.cosine(1, 10)], []), 11),
        (s.piecewise([40, 80], [3, 2, 1]), 100),
        (s.piecewise([], [3]), 100),
        (s.exponential(1, rate=0.01), 400),
        (s.exponential(1, rate=0), 100),
        (s.exponential(1, gamma=1), 100),
        (s.exponential(1, gamma=5e-324), 2),
        (s.exponential(1, gamma=math.exp(-0.04)), 100),
        (s.one_cycle(1, 100).lr, 110),
        (s.cosine_restarts(1, 10, 2), 70),
        (s.cyclic(0, 1, 5), 30),
        (s.cyclic(0, 1, 5, 15), 60),
        (s.inverse_sqrt(1, 1e300), inline.MOST),
        (s.ema_decay(0.99, start=100), 500),
        (s.ema_decay(s.linear(0, 0.5, 100), start=100), 210),
    ],
    ids=repr,
)
def test_it_is_long_enough_to_see_what_comes(schedule: Any, steps: int) -> None:
    assert inline.length(schedule) == pytest.approx(steps, abs=1)


def test_what_has_no_curve_is_text() -> None:
    def fails(t: int) -> float:
        raise OSError("not now")

    for schedule in (s.warmup(5, fails), s.exponential(1e300, gamma=1e300), s.warmup(2, lambda t: math.nan)):
        assert html(schedule).find(".//polyline") is None
    assert re.search("then=&lt;function", s.warmup(5, fails)._repr_html_())
