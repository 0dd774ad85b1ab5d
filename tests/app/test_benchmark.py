"""The machinery of `fastopt bench` and bench/peers.py, on tiny arrays: who computes what, and what becomes of it.

No time is asserted. DeepSpeed is not tried here, for its extension takes minutes to build: like everyone it is
checked before it is timed.
"""

from __future__ import annotations

import gc
import importlib
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastopt
from bench import peers, steady
from fastopt.app.benchmark import command, contenders, memory, rows
from fastopt.app.benchmark.contenders import MAKERS, Maker, check, make
from fastopt.app.benchmark.libraries import Absent
from fastopt.app.benchmark.rows import measure, row, verdict
from fastopt.app.benchmark.table import aligned, microseconds
from fastopt.app.benchmark.timing import Contender, Settings, Turns, ratios, take_turns
from fastopt.app.benchmark.work import RULES, Work, flat, network
from fastopt.app.cli import main
from tests.cases import RULES as CASES

FEW = Settings(rounds=3, most_rounds=3, batch=1e-6, seconds=0.0)
AROUND: list[dict[str, Any]] = [{}, {"clip_norm": 0.5}, {"clip_norm": 0.5, "l2": 0.1, "average": 0.9}]
KNOWN = peers.OWN


@pytest.fixture(autouse=True)
def nothing_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contenders, "_checked", set())


@pytest.fixture
def torch() -> Iterator[Any]:
    module = pytest.importorskip("torch")
    threads = module.get_num_threads()
    yield module
    module.set_num_threads(threads)


def here(name: str, request: pytest.FixtureRequest) -> None:
    package = KNOWN[name].package
    if package == "torch":
        request.getfixturevalue("torch")
    elif package:
        pytest.importorskip({"scikit-learn": "sklearn"}.get(package, package))


# Everyone computes the same


ADAM = [network(3, 2), network(3, 2, rule="adam"), network(3, 2, clip_norm=0.5)]
WALKS = [network(3, 2, rule=rule) for rule in ("lion", "lamb", "adafactor-optax")]
ALL = [network(3, 2, rule=rule) for rule in RULES] + [network(3, 2, **around) for around in AROUND[1:]]


@pytest.mark.parametrize(
    ("name", "work"),
    [
        pytest.param(name, work, id=f"{name}-{work.rule}-{'clipped' * (work.clip_norm is not None)}")
        for name in MAKERS
        for work in (ADAM + WALKS if name == "optax" else ALL)
        if MAKERS[name].steps and MAKERS[name].takes(work) and name not in ("fastopt", "DeepSpeed")
    ],
)
def test_every_contender_arrives_where_fastopt_does(name: str, work: Work, request: pytest.FixtureRequest) -> None:
    here(name, request)
    check(name, work)


@pytest.mark.parametrize("threads", [1, 2])
def test_separate_passes_are_the_step(threads: int) -> None:
    check("fastopt, separate passes", flat(7, threads=threads, **AROUND[-1]), KNOWN)


@pytest.mark.parametrize("rule", [rule for rule in RULES if peers.by_hand(flat(1, rule=rule))])
def test_tuned_numpy_is_the_step(rule: str) -> None:
    check("NumPy tuned", flat(7, rule=rule), KNOWN)


def test_whoever_computes_something_else_is_not_timed() -> None:
    def wrong(work: Work) -> Contender:
        c = contenders.ours(work)
        return Contender(lambda: None, c.params)

    with pytest.raises(Absent, match="wrong computes something else than adamw"):
        check("wrong", flat(5), {"wrong": Maker(wrong)})


def test_steps_in_any_number_leave_ordinary_numbers(torch: Any) -> None:
    """No contender drifts to zeros, subnormals or NaN, whose steps may cost something else."""
    for name in ("fastopt", "NumPy", "torch foreach", "torch fused"):
        c = make(name, flat(50, clip_norm=0.5))
        for _ in range(300):
            c.step()
        assert all(np.isfinite(p).all() and (np.abs(p) > 1e-30).all() for p in c.params())


def test_a_work_can_fill_gradients_and_state_before_every_step(torch: Any) -> None:
    for name in ("fastopt", "torch fused"):
        moved = []
        for fill in (1e-40, 0.5):
            c = make(name, flat(5, rule="adam", fill=fill))
            c.step()
            before = c.params()[0].copy()
            c.restore()
            c.step()
            moved.append(float(np.abs(c.params()[0] - before).max()))
        assert moved[0] == 0 < moved[1]


def test_the_rules_are_those_of_the_cases() -> None:
    plain = {case.id: case for case in CASES if case.plain}
    assert RULES.keys() - plain.keys() == {"adafactor-optax"}
    for name in RULES.keys() & plain.keys():
        p = [np.zeros(1, np.float32)]
        assert flat(1, rule=name).make(p).rule == plain[name].make(p).rule


def test_bytes_of_a_work() -> None:
    found = {rule: flat(9, rule=rule).bytes_per_element for rule in ("sgd", "momentum", "adamw", "amsgrad")}
    assert found == {"sgd": 12, "momentum": 20, "adamw": 28, "amsgrad": 36}
    chain = flat(9, **AROUND[-1])
    assert (chain.bytes_per_element, chain.written) == (40, 4)


# The loop that only touches the bytes


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("n", [1, 1024, 12_345])
def test_the_loop_touches_every_element_once(n: int, threads: int) -> None:
    written, gradient = [np.full(n, k + 3, np.float32) for k in range(4)], np.arange(n, dtype=np.float32)
    try:
        memory.loop(written, gradient, threads, keep=2.0, gain=1.0)()
    except memory.NoCompiler as e:
        pytest.skip(str(e))
    assert np.array_equal(written[0], 6 + gradient)
    assert [(a == 2 * (k + 3)).all() for k, a in enumerate(written)][1:] == [True] * 3


def test_a_loop_is_as_long_as_the_step_and_changes_nothing() -> None:
    work = flat(5, rule="amsgrad")
    try:
        c = memory.bytes_only(work)
    except memory.NoCompiler as e:
        pytest.skip(str(e))
    c.step()
    assert sum(2 * a.nbytes for a in c.params()) - c.params()[-1].nbytes == work.bytes_per_element * 5
    assert all((a == 1).all() for a in c.params())


@pytest.mark.parametrize(("compiler", "message"), [("no-such-compiler", "no C compiler"), ("false", "false fails")])
def test_without_a_compiler_the_loop_is_missing(compiler: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", compiler)
    monkeypatch.setattr(memory, "library", memory.library.__wrapped__)
    with pytest.raises(Absent, match=message):
        make("bytes only", flat(10))


# Turns


def test_turns_are_fair() -> None:
    log: list[str] = []
    names = ["a", "b", "c"]
    found = take_turns(
        {name: Contender(lambda name=name: log.append(name), restore=lambda: log.append("|")) for name in names},
        Settings(rounds=12, most_rounds=12, batch=0.0, seconds=0.0),
    )
    assert gc.isenabled()
    assert {len(seconds) for seconds in found.seconds.values()} == {12}
    rounds = "".join(log).split("|")[-36:]
    assert all(turn.startswith(name) for turn, name in zip(rounds[:3], names, strict=True))
    first = [rounds[i][0] for i in range(0, 36, 3)]
    assert sorted(first) == sorted(names * 4)


def test_what_must_be_restored_is_restored_before_every_timed_step() -> None:
    log: list[str] = []
    c = Contender(lambda: log.append("s"), restore=lambda: log.append("r"))
    found = take_turns({"a": c}, FEW, one_at_a_time=True)
    assert found.batch == {"a": 1}
    assert "".join(log).endswith("srssrssrs")


def test_ratios_are_of_each_round() -> None:
    turns = Turns({"ours": [1.0, 2.0, 4.0], "theirs": [3.0, 4.0, 16.0]}, {})
    assert ratios(turns, "ours")["theirs"] == {"median": 3.0, "q1": 2.5, "q3": 3.5, "of_means": 23 / 7}


# Rows


def test_a_row_is_json_and_names_who_is_absent() -> None:
    def broken(work: Work) -> Contender:
        raise ImportError("nothing here is as it was")

    makers = {**MAKERS, "nobody": Maker(broken, "no-such-package"), "broken": Maker(broken, "numpy")}
    one = row("x", "title", flat(100), ["fastopt", "NumPy", "nobody", "broken"], against="NumPy", target=0.0)
    told: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contenders, "PACKAGES", ("numpy",))
        found = measure(one, FEW, makers, told.append)
    assert json.loads(json.dumps(found)) == found
    assert told == ["fastopt", "NumPy", "nobody", "broken"]
    assert found["absent"]["nobody"] == "no-such-package is not installed"
    assert found["absent"]["broken"] == "numpy fails: ImportError: nothing here is as it was"
    assert list(found["seconds"]) == ["fastopt", "NumPy"]
    assert found["ratios"]["fastopt"]["median"] == 1
    assert (found["rounds"], found["elements"], found["bytes_per_element"]) == (3, 100, 28)
    assert verdict(found) == "target"


@pytest.mark.parametrize(
    ("ratio", "at_most", "word"),
    [
        (1.0, False, "missed"),
        (2.0, False, "target"),
        (3.0, False, "goal"),
        (2.0, True, "target"),
        (2.1, True, "missed"),
    ],
)
def test_verdicts(ratio: float, at_most: bool, word: str) -> None:
    goal = None if at_most else 3.0
    result = {"against": "x", "target": 2.0, "goal": goal, "at_most": at_most, "ratios": {"x": {"median": ratio}}}
    assert verdict(result) == word
    assert verdict({**result, "ratios": {}}) == ""


def test_the_promises_are_complete() -> None:
    every = [one for n in (1, 2) for one in peers.rows(n)]
    assert len({one.name for one in every}) == len(every)
    found = [one for one in every if one.group != "steady"]
    names = [one.name for one in found]
    for one in found:
        labels = [entry.label for entry in one.entries]
        assert len(set(labels)) == len(labels)
        assert one.of in labels
        assert (one.target is not None) == (one.group in peers.PROMISES)
        if one.target is not None:
            assert one.against in labels
        assert {entry.work.threads for entry in one.entries} == {int(one.name.rpartition("/")[2])}
    targets = {one.name.partition("/")[0]: (one.target, one.goal) for one in found if one.target}
    assert targets["1k"] == (14, 20)
    assert {targets[f"limit-{rule}"] for rule, its in RULES.items() if its.passes == 1} == {(0.95, 0.98)}
    assert {one.name for one in peers.chosen(["tensors", "20m/1"], [1, 2], False)} == {
        "20m/1",
        *(name for name in names if name.startswith("tensors-")),
    }
    with pytest.raises(SystemExit, match="no row is called nonsense"):
        peers.chosen(["nonsense", "20m"], [1], False)


def test_the_first_steps_are_timed_one_by_one() -> None:
    found = steady.measure(steady.Steady(1000, 1))
    assert found["name"] == "steady-1000/1"
    assert min(found["first"], found["median"], found["mean"]) > 0
    assert found["ratio"] > 0
    assert found["verdict"] in ("goal", "target", "missed")


def test_a_row_in_a_process_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(Path(__file__).parent.parent.parent)
    out = tmp_path / "found.json"
    peers.run(peers.chosen(["size-1000"], [1], True), True, out)
    found = json.loads(out.read_text())
    (one,) = found["rows"]
    assert one["name"] == "size-1000/1"
    assert one["seconds"]["fastopt"]["median"] > 0
    assert ("torch" in found["missing"]) == ("torch fused" in one["absent"]) == ("torch" not in contenders.installed())
    assert found["machine"]["fastopt"] == fastopt.__version__
    assert "[1/1, " in capsys.readouterr().err


def test_a_process_that_fails_is_a_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "false")
    found = list(peers.run_apart(peers.chosen(["20m", "1m"], [1], True), True))
    assert [(one["name"], one["error"]) for one in found] == [("1m/1", "exit code 1"), ("20m/1", "exit code 1")]
    assert peers.told(found[0]) == "1m/1: exit code 1"


# The report

MODEL = {"fixed": 1e-6, "per_tensor": 50e-9, "arithmetic": 0.3e-9, "bytes": 1 / 40e9}


def invented(one: Any) -> dict[str, Any]:
    """A result in which fastopt follows a model of costs, and others are slower."""
    if one.group == "steady":
        numbers = {"first": 2e-3, "median": 1e-3, "mean": 1.05e-3, "ratio": 1.05, "verdict": "target"}
        return {"name": one.name, "title": one.title, "group": "steady", "threads": one.threads, **numbers}
    work = one.work
    moved = work.elements * work.bytes_per_element * MODEL["bytes"]
    ours = MODEL["fixed"] + len(work.shapes) * MODEL["per_tensor"] + max(work.elements * MODEL["arithmetic"], moved)
    factors = {"bytes only": moved / ours, "fastopt": 1.0, "fastopt, subnormal": 1.1, "fastopt, arena": 0.5}
    factors["fastopt.torch"] = 1.0
    labels = [entry.label for entry in one.entries]
    medians = {label: ours * factors.get(label, 16.0) for label in labels if label != "thinc"}

    def around(x: float) -> dict[str, float]:
        return {"median": x, "q1": 0.9 * x, "q3": 1.2 * x}

    asked = one._asdict()
    del asked["entries"]
    return {
        **asked,
        "rule": work.rule, "threads": work.threads, "tensors": len(work.shapes), "elements": work.elements,
        "bytes_per_element": work.bytes_per_element, "rounds": 15, "batch": dict.fromkeys(labels, 1),
        "seconds": {label: around(x) for label, x in medians.items()},
        "ratios": {label: {**around(x / ours), "of_means": x / ours} for label, x in medians.items()},
        "absent": {"thinc": "thinc is not installed"} if "thinc" in labels else {},
    }  # fmt: skip


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = [invented(one) for n in (1, 2) for one in peers.rows(n)]
    last = found[-1]
    found[-1] = {"name": last["name"], "title": last["title"], "group": last["group"], "error": "killed"}
    machine = {**rows.machine(), "peers": {"torch": "9.9"}, "caches": {"L1d": "32K", "L2": "1M"}}
    path = tmp_path_factory.mktemp("report") / "found.json"
    whole = {
        "date": "2000-01-01",
        "quick": False,
        "minutes": 1,
        "machine": machine,
        "missing": ["thinc"],
        "rows": found,
    }
    path.write_text(json.dumps(whole))
    return path


@pytest.fixture
def report() -> Any:
    pytest.importorskip("matplotlib")
    return importlib.import_module("bench.report")


def test_the_model_is_read_off_the_sweeps(file: Path, report: Any) -> None:
    model = report.fit(report.load(file))
    assert model.fixed == pytest.approx(MODEL["fixed"], rel=1e-6)
    assert model.per_tensor == pytest.approx(MODEL["per_tensor"], rel=1e-6)
    assert 1 / model.bandwidth[1] == pytest.approx(MODEL["bytes"], rel=1e-6)


def test_the_report(file: Path, report: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- performance -->\nold \\1 text\n<!-- /performance -->\nafter\n")
    in_torch = tmp_path / "torch.md"
    in_torch.write_text("before\n<!-- torch-speed -->\n<!-- /torch-speed -->\nafter\n")
    monkeypatch.setattr(sys, "argv", ["report", str(file), "--docs", str(tmp_path), "--readme", str(readme)])
    report.main()
    page, once = (tmp_path / "performance.md").read_text(), readme.read_text()
    report.main()
    assert readme.read_text() == once
    assert once.startswith("before\n<!-- performance -->\n")
    assert once.endswith("<!-- /performance -->\nafter\n")
    assert "old" not in once
    assert "| AdamW, 150 tensors of 8 | 1 |" in in_torch.read_text()
    assert "torch 9.9" in once
    assert "{" not in page + once
    for word in ("2000-01-01", "torch 9.9", "Not installed, and so not here: thinc.", "failed: killed", "| target |"):
        assert word in page, word
    assert "**missed**" in page
    assert "| goal |" in page
    titles = {one.title for one in peers.rows(1) if one.target is not None}
    assert all(f"| {title} |" in page for title in titles)
    for name in ("performance-size.png", "performance-tensors.png"):
        assert f"({name})" in page
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("text", ["nothing", "<!-- performance --><!-- /performance -->" * 2])
def test_a_readme_without_the_markers_is_refused(text: str, report: Any) -> None:
    with pytest.raises(SystemExit, match="needs <!-- performance -->"):
        report.insert(text, "block")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(2.5, "2.50 s"), (0.0123, "12.3 ms"), (9.996e-6, "10.0 µs"), (999.6e-9, "1.00 µs"), (45e-9, "45.0 ns")],
)
def test_times_have_three_digits(seconds: float, text: str, report: Any) -> None:
    assert report.time(seconds) == text


# fastopt bench


@pytest.fixture
def tiny_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        command,
        "rows",
        lambda threads: [row("tiny", "tiny", flat(100), ["fastopt", "NumPy"]), row("2", "2", flat(9), ["fastopt"])],
    )


def test_the_command(tiny_rows: None, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "found.json"
    command.run(out, FEW)
    said = capsys.readouterr()
    assert said.err == ""
    for word in ("AdamW, float32", "tiny", "fastopt", "NumPy", "found: NumPy", str(out)):
        assert word in said.out.replace("\n", "") or word in said.out, word
    assert set(contenders.PACKAGES) - set(contenders.installed()) <= {
        word.strip(", ") for word in said.out.partition("not installed:")[2].split()
    }
    found = json.loads(out.read_text())
    assert [one["title"] for one in found["rows"]] == ["tiny", "2"]


def test_its_rows_have_numpy_and_all_that_is_installed() -> None:
    for one in command.rows(2):
        labels = [entry.label for entry in one.entries]
        assert labels[:2] == ["fastopt", "NumPy"]
        assert ("torch fused" in labels) == ("torch" in contenders.installed())
        assert one.work.threads == 2


def test_it_needs_nothing_else(tiny_rows: None, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    for package in ("rich", "matplotlib", "sklearn"):
        monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(contenders, "installed", dict)
    assert main(["bench"]) == 0
    assert "bytes only" not in capsys.readouterr().out


class Watched(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_who_watches_sees_where_it_is(tiny_rows: None, monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = Watched(), Watched()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    command.run(settings=FEW)
    assert err.getvalue() == "".join(
        f"\r\033[K{line}" for line in ("1/3 tiny: fastopt", "2/3 tiny: NumPy", "3/3 2: fastopt", "")
    )
    assert "\033" not in out.getvalue()


def test_columns_are_aligned() -> None:
    assert aligned([["step", "a", "long"], [], ["of ten", "1.0 us", ""]]) == (
        "step         a  long\n--------------------\nof ten  1.0 us"
    )


def test_a_wrong_argument_is_one_line(tiny_rows: None, tmp_path: Path, capsys: Any) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["bench", "--out", str(tmp_path / "no" / "folder.json")])
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("fastopt bench: cannot write --out")


def test_it_refuses_a_file_that_it_cannot_write(tiny_rows: None, tmp_path: Path) -> None:
    with pytest.raises(command.BenchError, match="cannot write --out"):
        command.run(tmp_path / "no" / "such" / "folder.json", FEW)


def test_microseconds() -> None:
    assert [microseconds(x) for x in (1.66e-6, 99.96e-6, 0.0123)] == ["1.7", "100.0", "12,300"]
