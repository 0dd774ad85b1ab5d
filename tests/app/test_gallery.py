"""The gallery, small: it draws every figure, and each shows what the gallery page says of it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

matplotlib_image = pytest.importorskip("matplotlib.image")
pytest.importorskip("rich")
pytest.importorskip("scipy")
threadpoolctl = pytest.importorskip("threadpoolctl")

ROOT = Path(__file__).parent.parent.parent
SCRIPTS = ROOT / "examples" / "gallery"
FIGURES = [path.stem for path in sorted(SCRIPTS.glob("*.py")) if path.stem not in ("run", "common")]


@pytest.fixture(scope="module")
def scripts() -> Iterator[None]:
    """The folder of the scripts on the path, as when one of them is run."""
    before = set(sys.modules)
    sys.path.insert(0, str(SCRIPTS))
    with threadpoolctl.threadpool_limits(1, "blas"):  # as run.py does: the matrices are small
        yield
    sys.path.remove(str(SCRIPTS))
    for name in {*FIGURES, "run", "common"} - before:
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gallery")


def drawn(name: str, scripts: None, pictures: Path) -> Any:
    """The numbers of a figure, whose picture shows something."""
    facts = importlib.import_module("run").draw([name], True, pictures)[name]
    pixels = matplotlib_image.imread(pictures / f"{name}.png")[..., :3]
    assert min(pixels.shape[:2]) >= 400
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20
    assert 0.02 < np.mean(pixels < 0.95) < 0.9
    assert all(np.isfinite(value) for value in facts.values())
    return facts


def test_every_figure_is_drawn_by_run_and_shown(scripts: None) -> None:
    assert sorted(importlib.import_module("run").FIGURES) == FIGURES
    page = (ROOT / "docs" / "gallery.md").read_text()
    for name in FIGURES:
        picture = ROOT / "docs" / "gallery" / f"{name}.png"
        assert f"(gallery/{name}.png)" in page
        assert 5_000 < picture.stat().st_size < 100_000, name


def test_small_batches_are_there_sooner_and_full_batches_nearer(scripts: None, pictures: Path) -> None:
    facts = drawn("batch_size", scripts, pictures)
    seen = [facts[f"examples seen until 0.1 above the lowest loss, {name}"] for name in BATCHES]
    excess = [facts[f"mean excess of the last quarter, {name}"] for name in BATCHES]
    assert seen == sorted(seen)
    assert excess == sorted(excess, reverse=True)
    assert excess[-1] < excess[1] / 2
    assert abs(facts["least squares a"] - 3) < 0.2
    assert abs(facts["least squares b"] - 2) < 0.2


BATCHES = ["one example", "mini-batches of 16", "full batch of 256"]


def test_trajectories_go_down_and_only_the_normalised_gradient_does_not_arrive(scripts: None, pictures: Path) -> None:
    facts = drawn("trajectories", scripts, pictures)
    ends = {name.removeprefix("loss at the end, "): loss for name, loss in facts.items()}
    for name in ("SGD", "momentum 0.8", "Nesterov 0.8", "Adam"):
        assert ends[name] < 0.1, name
    assert ends["Nesterov 0.8"] < ends["momentum 0.8"]
    assert 0.05 < ends["normalised gradient"] < 2


def test_some_starts_of_the_gabor_model_end_in_the_wrong_place(scripts: None, pictures: Path) -> None:
    facts = drawn("gabor", scripts, pictures)
    assert 2 <= facts["starts that reach the best minimum"] <= facts["starts"] - 2
    assert facts["best loss"] < 0.015
    assert facts["next best loss"] > 5 * facts["best loss"]
    assert abs(facts["p0"]) < 0.3
    assert abs(facts["p1"] - 16.6) < 3


def test_the_variance_of_he_is_the_one_that_stays_level(scripts: None, pictures: Path) -> None:
    """A layer multiplies the mean square by c/2: (c/2)^49 over 50 layers, to a factor of 30."""
    facts = drawn("initialisation", scripts, pictures)
    for c in (0.5, 1, 2, 4, 8):
        for ratio in (f"activations, last / first layer, c = {c:g}", f"gradients, first / last layer, c = {c:g}"):
            assert abs(np.log(facts[ratio]) - 49 * np.log(c / 2)) < np.log(30), ratio


def test_bias_falls_and_variance_rises_with_the_degree(scripts: None, pictures: Path) -> None:
    facts = drawn("bias_variance", scripts, pictures)
    assert facts["degree with the lowest error"] in (3, 4, 5)
    assert facts["bias² at degree 1"] > 10 * facts["bias² at the best"]
    assert facts["variance at degree 1"] < facts["variance at the best"] < facts["variance at degree 12"] / 5
    assert facts["variance at degree 1"] == pytest.approx(2 / 16 * 0.09, rel=0.3)  # of a line: noise * 2 / n
    assert facts["noise"] < facts["lowest error"] < 1.5 * facts["noise"]


def test_wide_networks_generalise_better_than_those_that_just_fit(scripts: None, pictures: Path) -> None:
    pytest.importorskip("mnist1d")
    facts = drawn("double_descent", scripts, pictures)
    assert facts["training error, width 2"] > 0.5
    assert facts["training error, width 16"] < 0.1
    assert facts["training error, width 96"] < 0.01
    assert facts["test error, width 96"] < facts["test error, width 16"]


def test_early_stopping_restores_the_lower_loss(scripts: None, pictures: Path) -> None:
    pytest.importorskip("mnist1d")
    facts = drawn("early_stopping", scripts, pictures)
    assert facts["epoch of the stop"] == facts["epoch of the lowest validation loss"] + 10
    assert facts["last validation loss"] > facts["lowest validation loss"] + 0.2
    assert facts["last training loss"] < facts["training loss then"]
    assert facts["test loss restored"] < facts["test loss at the end"] - 0.2


def test_the_error_that_dominates(scripts: None, pictures: Path) -> None:
    facts = drawn("which_error", scripts, pictures)
    noise = facts["noise"]
    assert facts["training error at the end, degree 1"] > 2 * noise
    assert facts["validation error at the end, degree 1"] < 1.1 * facts["training error at the end, degree 1"]
    assert facts["validation error at the start, degree 11"] > 10 * noise
    assert facts["validation error at the end, degree 11"] > 1.2 * facts["training error at the end, degree 11"]
    for kind in ("training", "validation"):
        assert facts[f"{kind} error at the end, degree 5"] == pytest.approx(noise, rel=0.15)


def test_the_floor_of_the_scaling_law_is_near_the_noise(scripts: None, pictures: Path) -> None:
    facts = drawn("scaling_law", scripts, pictures)
    assert facts["L_inf"] < facts["lowest loss measured"]
    assert facts["L_inf"] == pytest.approx(facts["noise"], rel=0.5)
    assert facts["alpha"] > 0.2
