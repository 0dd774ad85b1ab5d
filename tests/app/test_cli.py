"""The command line: the demo on few epochs, its refusals in one line, info, selftest, and the example."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.text import Text

import fastopt
from fastopt.app.cli import main
from fastopt.app.demo import in_torch
from fastopt.app.demo.network import batches, initialise, loss_and_gradients
from fastopt.app.demo.picture import LINE, apart, draw
from fastopt.app.demo.rows import ROWS
from fastopt.app.demo.training import Result, load, train

for name in ("sklearn", "matplotlib", "rich"):
    pytest.importorskip(name)

ROOT = Path(__file__).parent.parent.parent


def exit_code(*arguments: str) -> Any:
    try:
        return main(arguments)
    except SystemExit as ended:
        return ended.code


def test_the_demo_trains_every_optimizer_to_the_same_bits(tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "curves.png"
    assert main(["demo", "--epochs", "2", "--out", str(out)]) == 0
    printed = capsys.readouterr()
    rows = [line for line in printed.out.splitlines() if "%" in line]
    assert len(rows) >= 14
    assert all("same bits" in row for row in rows)
    shown = " ".join(row.lower() for row in rows)
    for name in ("sgd", "nesterov", "adagrad", "rmsprop", "adam", "amsgrad", "adamw", "nadam"):
        assert name in shown
    for name in ("lion", "lamb", "adafactor", "prodigy"):
        assert name in shown
    assert {row.optimizer.__name__ for row in ROWS.values()} == set(fastopt.optimizers.__all__)
    assert out.read_bytes().startswith(b"\x89PNG")
    assert "\r" not in printed.out + printed.err
    assert printed.err == ""


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_adamw_learns_the_digits(dtype: str, tmp_path: Path, capsys: Any) -> None:
    arguments = ["demo", "--optimizer", "adamw", "--dtype", dtype, "--out", str(tmp_path / "x.svg")]
    assert main(arguments) == 0
    first = capsys.readouterr().out
    accuracy = float(re.search(r"([\d.]+)%", first).group(1))  # type: ignore[union-attr]
    assert accuracy >= 97
    main([*arguments, "--epochs", "1", "--seed", "5", "--lr", "0.003", "--batch-size", "64"])
    again = capsys.readouterr().out
    assert float(re.search(r"([\d.]+)%", again).group(1)) < accuracy  # type: ignore[union-attr]


def curves(**lasts: float) -> list[Result]:
    """Losses from 2 to what is given, straight on a logarithmic axis, for rows of the demo."""
    return [
        Result(ROWS[key.replace("_", "-")], 0.9, [2 * (last / 2) ** (t / 4) for t in range(5)], 1e-6, 1e-6, True)
        for key, last in lasts.items()
    ]


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is drawn, instead of being written."""
    found: list[Any] = []

    def keep(figure: Any, *_: Any, **__: Any) -> None:
        figure.draw_without_rendering()
        found.append(figure)

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", keep)
    return found


def boxes(texts: list[Any]) -> list[Any]:
    """Of the letters alone, without the lines that lead to them."""
    return [Text.get_window_extent(text) for text in texts]


def test_every_line_of_the_picture_is_named_where_it_can_be_read(figures: list[Any]) -> None:
    draw(curves(**{key.replace("-", "_"): 1e-3 for key in ROWS}), Path("unused.png"), "about")
    (figure,) = figures
    named = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert sorted(named) == sorted(row.name for row in ROWS.values())
    for axes in figure.axes:
        assert len({text.get_color() for text in axes.texts}) == len(axes.texts) > 1
        family = axes.get_title(loc="left")
        everything = axes.findobj(Text)
        (title,) = [x for x in everything if x.get_text() == family and x not in axes.texts]
        found = boxes([*axes.texts, title])
        assert not any(a.overlaps(b) for a, b in itertools.combinations(found, 2))
        for box in found:
            assert 0 <= box.x0 < box.x1 <= figure.bbox.x1
            assert 0 <= box.y0 < box.y1 <= figure.bbox.y1
            assert not any(box.overlaps(other.bbox) for other in figure.axes if other is not axes)


def test_a_name_stands_where_its_line_ends(figures: list[Any]) -> None:
    low, high = results = curves(sgd=1e-4, sgd_momentum=1e-1)
    draw(results, Path("unused.png"), "about")
    (axes,) = figures[0].axes
    assert [(text.get_text(), text.xy) for text in axes.texts] == [
        ("SGD", (4, low.losses[-1])),
        ("SGD momentum", (4, high.losses[-1])),
    ]
    # Few lines have room: each name is at the height of its end.
    for text, r in zip(axes.texts, results, strict=True):
        height = axes.transData.transform((4, r.losses[-1]))[1]
        (box,) = boxes([text])
        assert box.y0 < height < box.y1


def test_a_line_that_ends_early_says_how(figures: list[Any]) -> None:
    (r,) = curves(adam=0.1)
    draw([r._replace(losses=[2.0, 1.0, np.inf, np.nan])], Path("unused.png"), "about")
    draw([r._replace(losses=[np.nan] * 3)], Path("unused.png"), "about")
    texts = [figure.axes[0].texts[0] for figure in figures]
    assert [text.get_text() for text in texts] == ["Adam (then nan)"] * 2
    assert texts[0].xy == (1, 1.0)


def test_names_are_moved_apart_and_no_further() -> None:
    assert apart([0.1, 0.5], LINE) == [0.1, 0.5]
    assert apart([0.3, 0.3], 0.1) == pytest.approx([0.25, 0.35])
    assert apart([0.0, 0.5, 0.5, 0.52, 1.0], 0.1) == pytest.approx([0.0, 0.4067, 0.5067, 0.6067, 1.0], abs=1e-4)


def test_a_kernel_that_differs_from_its_twin_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def wrong(p: Any, g: Any, step: float) -> None:
        p[...] = p - step * g * (1 + 1e-6)

    monkeypatch.setattr(fastopt.reference, "sgd", wrong)
    assert main(["demo", "--optimizer", "sgd", "--epochs", "1", "--out", str(tmp_path / "x.png")]) == 1
    assert "DIFFERENT" in capsys.readouterr().out


def test_a_learning_rate_that_diverges_is_nan_in_the_table_and_no_warning(tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "x.png"
    assert main(["demo", "--optimizer", "sgd", "--epochs", "1", "--lr", "1e30", "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert re.search(r"SGD .* nan .* same bits", printed.out)
    assert printed.err == ""
    assert out.read_bytes().startswith(b"\x89PNG")


def test_the_same_seed_gives_the_same_numbers() -> None:
    data = load("float32")
    row = ROWS["adamw-averaged"]
    first, again, other = (train(row, data, epochs=1, batch_size=32, seed=seed) for seed in (3, 3, 4))
    assert (first.losses, first.accuracy) == (again.losses, again.accuracy)
    assert first.losses != other.losses


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--epochs", "0"], "epochs"),
        (["--epochs", "many"], "epochs"),
        (["--batch-size", "0"], "batch-size"),
        (["--batch-size", "100000"], "100000"),
        (["--lr", "-1"], "lr"),
        (["--lr", "nan"], "lr"),
        (["--lr", "100", "--optimizer", "adamw"], "weight_decay"),
        (["--optimizer", "adma"], "adamw"),
        (["--dtype", "float16"], "float16"),
        (["--out", "missing/folder/x.png"], "folder"),
        (["--out", "."], "."),
        (["--out", "x.txt"], "png"),
        (["--out", "x" * 300 + ".png"], "long"),
        (["--nonsense"], "nonsense"),
    ],
)
def test_what_the_demo_refuses(
    arguments: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    code = exit_code("demo", *arguments)
    printed = capsys.readouterr()
    assert code == 2
    assert len(printed.err.strip().splitlines()) == 1
    assert words in printed.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("missing", ["rich", "matplotlib", "sklearn"])
def test_a_missing_extra_is_one_line(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, missing, None)
    assert exit_code("demo", "--epochs", "1") == 2
    printed = capsys.readouterr().err.strip().splitlines()
    assert len(printed) == 1
    assert "pip install" in printed[0]
    assert "[demo]" in printed[0]
    assert list(tmp_path.iterdir()) == []


def test_info_selftest_and_version(capsys: Any) -> None:
    assert main(["info"]) == 0
    assert capsys.readouterr().out.strip() == str(fastopt.info())
    assert main(["selftest"]) == 0
    assert "passed" in capsys.readouterr().out
    assert main([]) == 2
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert fastopt.__version__ in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "unbuffered"),
    [("info", ""), ("info", "1"), ("selftest", ""), ("--help", ""), ("demo --help", ""), ("--version", "")],
)
def test_a_reader_that_has_enough_is_no_error(arguments: str, unbuffered: str) -> None:
    command = [sys.executable, "-m", "fastopt", *arguments.split()]
    here = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": unbuffered}
    with subprocess.Popen(command, env=here, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141


def test_the_usage_names_what_is_missing(capsys: Any) -> None:
    assert main([]) == 2
    said = capsys.readouterr().err
    assert said.startswith("usage: fastopt [-h] [--version] COMMAND ...")
    assert [line for line in said.splitlines() if line and not line.strip()] == []


def test_importing_fastopt_imports_nothing_heavy() -> None:
    heavy = "rich", "matplotlib", "sklearn"
    code = f"import sys, fastopt, fastopt.app.cli; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_the_gradients_of_the_network() -> None:
    rng = np.random.default_rng(0)
    params = initialise(rng, (5, 7, 6, 3), np.float64)
    x, y = rng.standard_normal((11, 5)), rng.integers(0, 3, 11)
    _, grads = loss_and_gradients(params, x, y)
    for layer, arrays in params.items():
        for name, a in arrays.items():
            for index in list(np.ndindex(a.shape))[::3]:
                kept, h = a[index], 1e-6
                a[index] = kept + h
                above = loss_and_gradients(params, x, y)[0]
                a[index] = kept - h
                below = loss_and_gradients(params, x, y)[0]
                a[index] = kept
                assert grads[layer][name][index] == pytest.approx((above - below) / (2 * h), abs=1e-8)


def test_batches_take_every_index_once() -> None:
    taken = list(batches(np.random.default_rng(0), 100, 32))
    assert [len(batch) for batch in taken] == [32, 32, 32, 4]
    assert sorted(np.concatenate(taken).tolist()) == list(range(100))


def test_he_initialisation_keeps_the_scale() -> None:
    params = initialise(np.random.default_rng(0), (1000, 500), np.float64)
    assert params["layer1"]["W"].std() == pytest.approx(np.sqrt(2 / 1000), rel=0.01)


def test_the_example_runs() -> None:
    # On shared cores the idle threads of BLAS, which spin, take most of the time of so small a network.
    here = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, ROOT / "examples/digits.py"], env=here, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    accuracy = float(re.search(r"([\d.]+)%", done.stdout).group(1))  # type: ignore[union-attr]
    assert accuracy >= 97


def test_the_demo_in_torch(tmp_path: Path, capsys: Any) -> None:
    pytest.importorskip("torch")
    out = tmp_path / "torch.png"
    assert main(["demo", "--torch", "--epochs", "2", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    rows = [line for line in printed.splitlines() if "%" in line]
    assert [name in row for name, row in zip(("torch.optim", "fused=True", "fastopt.torch"), rows, strict=True)] == [
        True
    ] * 3
    assert "the losses are the same to" in printed
    assert out.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--optimizer", "lion"], "AdamW only"),
        (["--lr", "-1"], "--lr -1.0"),
        (["--batch-size", "9999"], "--batch-size 9999"),
    ],
)
def test_the_demo_in_torch_refuses(arguments: list[str], words: str, tmp_path: Path, capsys: Any) -> None:
    pytest.importorskip("torch")
    with pytest.raises(SystemExit):
        main(["demo", "--torch", *arguments, "--out", str(tmp_path / "a.png")])
    assert words in capsys.readouterr().err


def test_losses_that_part_are_told() -> None:
    curves = [in_torch.Curve(name, losses, 1.0, (1.0, 1.0)) for name, losses in (("a", [1.0, 0.5]), ("b", [1.0, 0.6]))]
    assert in_torch.furthest(curves) == pytest.approx(0.2)
