"""The command line: the demo on few epochs, its refusals in one line, info, selftest, and the example."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastopt
from fastopt.app.cli import main
from fastopt.app.demo.network import batches, initialise, loss_and_gradients
from fastopt.app.demo.rows import ROWS
from fastopt.app.demo.training import load, train

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
