"""Saving in one thread while another works: what is saved is a whole state of before or after, or a RuntimeError."""

from __future__ import annotations

import copy
import os
import pickle
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastopt

N = 20_000
ROUNDS = int(os.environ.get("FASTOPT_EXAMPLES", "60"))


@pytest.fixture(autouse=True)
def restless() -> Iterator[None]:
    """Threads take turns after every few bytecodes."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def params() -> dict[str, Any]:
    return {"a": np.zeros(N), "b": np.zeros(3), "c": np.zeros(N)}


def gradients(x: float = 1.0) -> dict[str, Any]:
    return {name: np.full_like(p, x) for name, p in params().items()}


def together(work: Callable[[int], Any], read: Callable[[], Any]) -> list[Any]:
    """What `read` gives while another thread works. Either may be refused, and tries again."""
    found: list[Any] = []
    failed: list[BaseException] = []
    done = threading.Event()

    def working() -> None:
        k = 0
        try:
            while not done.is_set():
                insist(work, k)
                k += 1
                # At times long enough for the other to get its turn.
                time.sleep(k % 3 * 2e-5)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=working)
    thread.start()
    try:
        while len(found) < ROUNDS and not failed:
            found.append(insist(read))
    finally:
        done.set()
        thread.join()
    assert not failed
    return found


def insist(act: Callable[..., Any], *args: Any) -> Any:
    """Does it until it is not refused."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            return act(*args)
        except RuntimeError as error:
            refusal = str(error)
        assert any(advice in refusal for advice in ("do this", "do one thing", "accumulate")), refusal
        time.sleep(2e-5)
    raise TimeoutError


def one(a: Any) -> float:
    """The value that an array is full of."""
    assert a.min() == a.max(), f"torn: from {a.min()} to {a.max()}"
    return float(a.flat[0])


def common(arrays: dict[str, Any]) -> float:
    values = {one(a) for a in arrays.values()}
    assert len(values) == 1, f"torn: {values}"
    return values.pop()


READS: dict[str, Callable[[Any, Path], Any]] = {
    "state_dict": lambda opt, path: opt.state_dict(),
    "save": lambda opt, path: saved(opt, path),
    "pickle": lambda opt, path: pickle.loads(pickle.dumps(opt)),
    "deepcopy": lambda opt, path: copy.deepcopy(opt),
    "copy": lambda opt, path: copy.copy(opt).state_dict(),
}
every_read = pytest.mark.parametrize("how", READS)


def saved(opt: fastopt.Optimizer, path: Path) -> dict[str, Any]:
    from fastopt.saving import file as checkpoint

    opt.save(path / "x")
    state: dict[str, Any] = checkpoint.read(path / "x", lambda _: None)
    return state


def whole(found: Any) -> dict[str, Any]:
    """The state that was read; of a copy with parameters these must belong to it."""
    if isinstance(found, dict):
        return found
    state: dict[str, Any] = found.state_dict()
    assert common(found.groups[0]["params"]) == -sum(2.0 - 0.5**k for k in range(state["t"])), "torn: parameters"
    return state


def in_another_thread(act: Callable[[], Any]) -> BaseException | None:
    """What it raised there."""
    raised: list[BaseException] = []

    def acting() -> None:
        try:
            act()
        except RuntimeError as error:
            raised.append(error)

    thread = threading.Thread(target=acting)
    thread.start()
    thread.join()
    return raised[0] if raised else None


@pytest.mark.parametrize("what", ["the optimizer", "what it has accumulated", "averages"])
def test_what_a_thread_holds_is_refused_to_others(what: str, tmp_path: Path) -> None:
    p, g = params(), gradients()
    opt, fresh, average = fastopt.SGD(p, lr=0.0), fastopt.SGD(params(), lr=0.0), fastopt.EMA(p, 0.5)
    state, averages = opt.state_dict(), average.state_dict()
    opt.save(tmp_path / "x")
    opt.accumulate(g)
    opt.step()
    every: list[Callable[[], Any]] = [
        opt.state_dict,
        lambda: opt.load_state_dict(state),
        lambda: opt.load(tmp_path / "x"),
        lambda: opt.add_group({"params": {"late": np.ones(3)}}),
    ]
    plan: Any = opt._engine.plan
    if what == "the optimizer":
        every += [lambda: opt.save(tmp_path / "y"), lambda: pickle.dumps(opt), lambda: copy.deepcopy(opt)]
        every += [lambda: copy.copy(opt), lambda: opt.step(g), average.update, average.swap]
    elif what == "averages":
        plan, every = average._plan, [average.state_dict, average.update, average.swap, lambda: pickle.dumps(average)]
        every.append(lambda: average.load_state_dict(averages))
    else:
        plan = opt._engine.accumulation
        plan, every = plan.plan, [*every, lambda: opt.accumulate(g), opt.discard_accumulated]
    for act in every:
        assert "held here" in str(plan.during("held here", in_another_thread, act))
    assert "held here" in str(fresh._engine.plan.during("held here", in_another_thread, lambda: fresh.accumulate(g)))
    for act in (lambda: opt.accumulate(g), opt.step, opt.state_dict, average.update, lambda: fresh.accumulate(g)):
        act()


@every_read
def test_amid_steps(how: str, tmp_path: Path) -> None:
    opt = fastopt.SGD(params(), lr=1.0, momentum=0.5, threads=1)
    g = gradients()
    for found in together(lambda k: opt.step(g), lambda: READS[how](opt, tmp_path)):
        state = whole(found)
        buffers = {name: entry["b"] for name, entry in state["state"].items()}
        assert common(buffers) == (2.0 - 0.5 ** (state["t"] - 1) if state["t"] else 0.0)
        assert {entry["t"] for entry in state["state"].values()} == {state["t"]}


@every_read
def test_amid_steps_of_a_rule_with_numbers_of_all(how: str, tmp_path: Path) -> None:
    """Prodigy's d goes with the moments of the same step."""
    opt, alone = (fastopt.Prodigy(params(), threads=1) for _ in range(2))
    g = gradients()
    states = [
        found if isinstance(found, dict) else found.state_dict()
        for found in together(lambda k: opt.step(g), lambda: READS[how](opt, tmp_path))
    ]
    for state in sorted(states, key=lambda state: state["t"]):
        while alone.t < state["t"]:
            alone.step(g)
        expected = alone.state_dict()
        assert state["global"] == expected["global"]
        for key in "mvs":
            moments = {name: entry[key] for name, entry in state["state"].items()}
            assert common(moments) == one(expected["state"]["a"][key])
        assert {entry["t"] for entry in state["state"].values()} == {state["t"]}


@every_read
def test_amid_accumulation(how: str, tmp_path: Path) -> None:
    opt = fastopt.SGD(params(), lr=0.0)

    def work(k: int) -> None:
        opt.accumulate(gradients(k % 4))
        if k % 4 == 3:
            insist(opt.step)

    for found in together(work, lambda: READS[how](opt, tmp_path)):
        state = found if isinstance(found, dict) else found.state_dict()
        gathered = state["accumulation"]
        if gathered["count"]:
            assert gathered["weight"] == gathered["count"]
            assert common(gathered["gradients"]) == (gathered["count"] - 1) / 2


@every_read
def test_amid_loading(how: str, tmp_path: Path) -> None:
    states = []
    for k in range(2):
        opt = fastopt.SGD(params(), lr=0.0, momentum=0.5, maximize=bool(k))
        for _ in range(3 - k):
            opt.step(gradients(k + 1))
        opt.accumulate(gradients(k + 1))
        states.append(opt.state_dict())
    expected = {common({n: e["b"] for n, e in s["state"].items()}): s["t"] for s in states}
    for found in together(lambda k: opt.load_state_dict(states[k % 2]), lambda: READS[how](opt, tmp_path)):
        state = found if isinstance(found, dict) else found.state_dict()
        assert state["t"] == expected[common({name: entry["b"] for name, entry in state["state"].items()})]
        assert state["groups"][0]["maximize"] == (state["t"] == 2)
        assert common(state["accumulation"]["gradients"]) == 1 + (state["t"] == 2)


@every_read
def test_amid_new_groups(how: str, tmp_path: Path) -> None:
    opt = fastopt.SGD({"first": np.zeros(N)}, lr=0.0, momentum=0.5, average=0.5)
    for found in together(
        lambda k: opt.add_group({"params": {f"p{k}": np.zeros(3)}}) if k < 20 else None,
        lambda: READS[how](opt, tmp_path),
    ):
        state = found if isinstance(found, dict) else found.state_dict()
        names = [name for group in state["groups"] for name in group["names"]]
        assert names == list(state["state"]) == list(state["averages"])


def test_a_step_amid_new_groups_is_of_all_or_none() -> None:
    """A thread may have looked at the optimizer just before a group is added."""
    opt = fastopt.SGD([{"params": {"first": np.zeros(3)}}], lr=1.0)

    def step() -> int:
        opt.step([{name: np.ones(3) for name in group.names} for group in list(opt.groups)])
        return opt.t

    def work(k: int) -> None:
        if k < 20:
            opt.add_group({"params": {f"p{k}": np.zeros(3)}})

    def tried() -> int:
        try:
            return step()
        except TypeError:
            # One more group than there were gradients for.
            return opt.t

    together(work, tried)
    counts = {name: entry["t"] for name, entry in opt.state.items()}
    for group in opt.groups:
        for name, p in group["params"].items():
            assert one(p) == -counts[name]


def test_who_looked_at_the_optimizer_before_a_group_was_added_steps_nothing() -> None:
    opt = fastopt.SGD([{"params": {"first": np.zeros(3)}}], lr=1.0)
    seen, g = opt._engine.plan, [{"first": np.ones(3)}]
    opt.add_group({"params": {"second": np.zeros(3)}})
    with pytest.raises(RuntimeError, match="a group is being added"):
        seen.admit(g, opt._engine.match)
    assert opt.t == 0
    assert opt.step([*g, {"second": np.ones(3)}]).applied


def test_who_looked_at_what_is_accumulated_before_it_was_loaded_adds_nothing() -> None:
    opt, g = fastopt.SGD(params(), lr=0.0), gradients()
    opt.accumulate(g)
    seen, saved = opt._engine.accumulation, opt.state_dict()
    assert seen is not None
    opt.load_state_dict(saved)
    with pytest.raises(RuntimeError, match="accumulate again"):
        seen.plan.admitted(g, opt._engine.match, seen.add, opt._engine, 1.0, None)
    with pytest.raises(RuntimeError, match="accumulate again"):
        seen.step(opt._engine, fastopt.Report, 1.0, None)
    assert opt.t == 0
    assert opt.accumulate(g) == 2


def test_averages_are_updated_while_optimizers_are_made() -> None:
    ema = fastopt.EMA(np.zeros(3), 0.5)
    kept: deque[fastopt.SGD] = deque(maxlen=200)
    together(lambda _: kept.append(fastopt.SGD(np.zeros(3), lr=0.1)), ema.update)
    assert ema.count == ROUNDS


def test_loading_amid_accumulation() -> None:
    opt = fastopt.SGD(params(), lr=0.0)
    opt.accumulate(gradients(10.0))
    pending = opt.state_dict()

    def read() -> dict[str, Any]:
        opt.accumulate(gradients())
        state: dict[str, Any] = insist(opt.state_dict)
        return state

    def work(k: int) -> None:
        opt.load_state_dict(pending)
        time.sleep(k % 5 * 1e-4)

    for state in together(work, read):
        count = state["accumulation"]["count"]
        assert abs(common(state["accumulation"]["gradients"]) - (9 + count) / count) < 1e-12


AVERAGES: dict[str, Any] = {
    "EMA": lambda p: fastopt.EMA(p, 0.5),
    "EMA in float64": lambda p: fastopt.EMA(p, 0.5, dtype="float64"),
    "RunningMean": fastopt.RunningMean,
}


@pytest.mark.parametrize("backend", ["c", "numpy"])
@pytest.mark.parametrize("kind", AVERAGES)
def test_averages_are_of_whole_steps(kind: str, backend: str) -> None:
    dtype = np.float32 if "float64" in kind else np.float64
    p = {name: a.astype(dtype) for name, a in params().items()}
    opt = fastopt.SGD(p, lr=1.0, threads=1, backend=backend)
    average = AVERAGES[kind](p)
    g = {name: a.astype(dtype) for name, a in gradients(-1.0).items()}

    def read() -> float:
        average.update()
        return common(average.averages)

    found = together(lambda k: opt.step(g), read)
    assert sorted(found) == found


@pytest.mark.parametrize("kind", ["EMA", "RunningMean"])
def test_averages_are_saved_whole(kind: str) -> None:
    p = params()
    average = fastopt.EMA(p, 0.5) if kind == "EMA" else fastopt.RunningMean(p)

    def work(k: int) -> None:
        for a in p.values():
            a.fill(k)
        average.update()

    for state in together(work, average.state_dict):
        x = common(state["averages"])
        assert kind == "EMA" or x == max(0, state["count"] - 1) / 2


def test_two_threads_accumulate_each_micro_batch_or_raise() -> None:
    opt = fastopt.SGD(params(), lr=0.0)
    g, counts = gradients(), [0, 0]

    def gather(thread: int) -> None:
        opt.accumulate(g)
        counts[thread] += 1

    together(lambda k: gather(0), lambda: gather(1))
    assert opt.state_dict()["accumulation"]["count"] == sum(counts)
    assert common(opt.state_dict()["accumulation"]["gradients"]) == 1.0
