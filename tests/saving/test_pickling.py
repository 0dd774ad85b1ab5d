"""Optimizers pickle, copy, and go through multiprocessing, with their parameters, and go on to the bit."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastopt
from tests.cases import CASES, Case, halving, ordinary
from tests.hostile.companions import RUNS
from tests.lockstep import assert_same_bits, loss_of, snapshot
from tests.saving.resume import digest


def through_pickle(x: Any) -> Any:
    return pickle.loads(pickle.dumps(x))


COPIES: dict[str, Callable[[Any], Any]] = {"pickle": through_pickle, "deepcopy": copy.deepcopy}
every_way = pytest.mark.parametrize("way", COPIES.values(), ids=COPIES)


def gradients(rng: np.random.Generator, dtype: Any) -> Any:
    return {"W": ordinary(rng, (5, 7), dtype).T, "b": [ordinary(rng, 3, dtype), ordinary(rng, (), dtype)]}


@every_way
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
@pytest.mark.parametrize("backend", ["c", "numpy"])
def test_a_copy_goes_on_to_the_bit(case: Case, way: Any, backend: str) -> None:
    rng = np.random.default_rng(0)
    opt = case.make(gradients(rng, np.float32), backend=backend, threads=1)
    for k in range(3):
        g = gradients(rng, np.float32)
        if k == 1:
            g["b"][0] = None
        opt.step(g, **loss_of(opt))
    copied = way(opt)
    before = snapshot(opt)
    assert repr(copied) == repr(opt)
    assert type(copied._engine.plan) is type(opt._engine.plan)
    assert not any(
        np.shares_memory(a, b) for a, b in zip(opt._engine.plan.params, copied._engine.plan.params, strict=True)
    )
    ahead = gradients(rng, np.float32)
    report = copied.step(ahead, **loss_of(copied))
    assert snapshot(opt) == before
    assert opt.step(ahead, **loss_of(opt)) == report
    assert_same_bits(opt, copied)


@every_way
def test_a_model_and_its_optimizer_stay_tied(way: Any) -> None:
    model = {"W": np.ones((2, 3)), "b": np.zeros(3, np.float32)}
    opt = fastopt.Adam(model, average=0.5)
    copied, other = way((model, opt))
    other.step({"W": np.ones((2, 3)), "b": np.ones(3, np.float32)})
    assert other._engine.plan.params[0] is copied["W"]
    assert other.groups[0]["params"]["b"] is copied["b"]
    assert copied["W"][0, 0] < 1
    assert np.array_equal(model["W"], np.ones((2, 3)))


@every_way
def test_groups_names_and_changes_by_hand(way: Any) -> None:
    opt = fastopt.AdamW([{"params": [np.ones(2)]}, {"params": [np.ones(3)], "lr": halving}], weight_decay=0.5)
    opt.step([[np.ones(2)], [np.ones(3)]])
    opt.add_group({"params": np.ones(4), "eps": 0.25})
    opt.groups[0]["l2"], opt.clip_norm, opt.threads = 0.125, 7.0, 1
    opt.on_nonfinite, opt.maximize = "skip", True
    copied = way(opt)
    assert repr(copied) == repr(opt)
    assert copied.names == opt.names == ("0", "1", "2")
    assert copied.groups[1]["lr"] is halving
    for each in (opt, copied):
        each.step([[np.ones(2)], [np.ones(3)], np.ones(4)])
        each.add_group({"params": {"late": np.ones(2)}})
    assert_same_bits(opt, copied)
    copied.groups[0]["lr"] = 0.5
    copied.clip_norm = 1.0
    assert (opt.groups[0]["lr"], opt.clip_norm) == (0.001, 7.0)


@every_way
def test_groups_are_those_of_the_optimizer_that_is_copied_with_them(way: Any) -> None:
    opt = fastopt.SGD([{"params": np.ones(2)}, {"params": np.ones(3)}], lr=0.5)
    copied, groups = way((opt, [*opt.groups]))
    assert all(group is own for group, own in zip(groups, copied.groups, strict=True))
    groups[1]["lr"] = 0.25
    assert (copied.groups[1]["lr"], opt.groups[1]["lr"]) == (0.25, 0.5)
    noted = Noted(np.ones(2), lr=0.5)
    noted.extra = noted.groups[0]
    with pytest.raises(TypeError, match="hold its index"):
        way(noted)


def test_a_shallow_copy_shares_the_parameters_only() -> None:
    p = np.ones(3)
    opt = fastopt.Adam(p)
    opt.step(np.ones(3))
    other = copy.copy(opt)
    assert other._engine.plan.params[0] is p
    assert not np.shares_memory(other.state["0"]["m"], opt.state["0"]["m"])
    other.clip_norm, other.lr = 1.0, 0.5
    assert (opt.clip_norm, opt.lr) == (None, 0.001)


class Noted(fastopt.SGD):
    """A user's class with attributes of its own."""

    __slots__ = ("extra",)


class Annotated(Noted):
    pass


@every_way
@pytest.mark.parametrize("cls", [Noted, Annotated])
def test_what_a_subclass_adds_is_copied(cls: Any, way: Any) -> None:
    opt = cls(np.ones(3), lr=0.1, momentum=0.9)
    opt.extra = {"note": [1, 2]}
    if cls is Annotated:
        opt.more = opt
    opt.step(np.ones(3))
    copied = way(opt)
    assert type(copied) is cls
    assert copied.extra == {"note": [1, 2]}
    assert copied.extra is not opt.extra
    if cls is Annotated:
        assert copied.more is copied
    assert_same_bits(opt, copied)


@pytest.mark.parametrize("way", [*COPIES.values(), copy.copy], ids=[*COPIES, "copy"])
def test_no_copy_while_the_parameters_hold_other_values(way: Any) -> None:
    opt = fastopt.SGD(np.ones(3), lr=0.1, momentum=0.9, average=0.5)
    opt.step(np.ones(3))
    ema, sam = fastopt.EMA(opt.groups[0]["params"], 0.9), fastopt.SAM(opt)
    ema.update()
    for block in (opt.averaged, opt.nesterov_point, ema.swapped):
        with block(), pytest.raises(RuntimeError, match="do this after"):
            way(opt)
    ema.swap()
    with pytest.raises(RuntimeError, match="swap"):
        way(ema)
    ema.swap()
    sam.first_step(np.ones(3))
    with pytest.raises(RuntimeError, match="perturbed point"):
        way(opt)
    sam.restore()
    assert_same_bits(way(opt), opt)


@every_way
def test_what_goes_with_an_optimizer_is_copied(way: Any) -> None:
    params = {"W": np.ones((2, 3)), "b": np.asfortranarray(np.ones((3, 2), np.float32))}
    g = {"W": np.full((2, 3), 0.5), "b": np.full((3, 2), 2, np.float32)}
    opt = fastopt.SGD(params, lr=0.1, momentum=0.9)
    every = (params, fastopt.SAM(opt, adaptive=True), fastopt.EMA(params, halving, False), fastopt.RunningMean(params))

    def go_on(params: Any, sam: Any, ema: Any, mean: Any) -> list[bytes]:
        sam.step(lambda: g)
        ema.update()
        mean.update()
        return [a.tobytes() for tree in (params, ema.averages, mean.averages) for a in tree.values()]

    for _ in range(2):
        go_on(*every)
    before = copy.deepcopy(params)
    copied = way(every)
    ahead = go_on(*copied)
    assert before["W"].tobytes() == params["W"].tobytes()
    assert go_on(*every) == ahead
    assert repr(copied[1:]) == repr(every[1:])


@every_way
@pytest.mark.parametrize("kind", ["EMA", "RunningMean"])
def test_an_average_goes_on_with_the_parameters_of_the_copy(kind: str, way: Any) -> None:
    params = {"W": np.asfortranarray(np.ones((2, 3), np.float32)), "b": np.ones(3)}
    average = fastopt.EMA(params, halving, flush_subnormals=False) if kind == "EMA" else fastopt.RunningMean(params)
    average.update()
    params["W"] *= 3
    average.update()
    copied, other = way((params, average))
    assert repr(other) == repr(average)
    for p, a in ((params, average), (copied, other)):
        p["b"] *= 5
        a.update()
        with a.swapped():
            assert np.array_equal(p["b"], a.averages["b"])
    assert np.array_equal(other.averages["W"], average.averages["W"])
    assert np.array_equal(other.averages["b"], average.averages["b"])
    assert params["b"].tolist() == copied["b"].tolist() == [5.0] * 3
    average.swap()
    with pytest.raises(RuntimeError, match=r"swap.. them back first"):
        way(average)


@every_way
def test_a_sam_goes_on_to_the_bit(way: Any) -> None:
    p = np.array([1.0, 2.0])
    sam = fastopt.SAM(fastopt.SGD(p, lr=0.1, momentum=0.9), rho=0.5, adaptive=True)
    sam.step(lambda: 2 * p)
    q, other = way((p, sam))
    assert repr(other) == repr(sam)
    sam.step(lambda: 2 * p)
    other.step(lambda: 2 * q)
    assert p.tolist() == q.tolist()
    sam.first_step(2 * p)
    with pytest.raises(RuntimeError, match=r"SAM's perturbed point.*copied or pickled after it"):
        way(sam)
    assert sam.second_step(2 * p).applied


def test_a_schedule_that_does_not_pickle_says_so() -> None:
    opt = fastopt.SGD(np.ones(3), lr=lambda t: 0.1)
    with pytest.raises((AttributeError, pickle.PicklingError), match="lambda"):
        pickle.dumps(opt)
    assert copy.deepcopy(opt).lr is opt.lr


def test_parameters_that_came_back_read_only_are_refused() -> None:
    """Out-of-band pickles can hand out arrays over memory that is not to be written."""
    buffers: list[Any] = []
    data = pickle.dumps(fastopt.SGD(np.ones(3), lr=0.1), protocol=5, buffer_callback=buffers.append)
    with pytest.raises(ValueError, match="parameter '0' is read-only"):
        pickle.loads(data, buffers=[bytes(buffer) for buffer in buffers])


def step_each(things: dict[str, Any], g: Any) -> dict[str, Any]:
    for k in range(4, 7):
        RUNS["averages"].step(things, g, k)
        RUNS["accumulation"].step({"opt": things["accumulating"]}, g, k)
        RUNS["sam"].step(things["sharp"], g, k)
        RUNS["lbfgs"].step(things["newton"], g, k)
        RUNS["scaler"].step(things["scaled"], {**g, "many": g["many"].copy()}, k)
    return things


def test_through_spawned_processes() -> None:
    """Optimizers and what goes with them as arguments and results, with micro-batches pending."""
    g = {"W": np.full((2, 3), 0.5), "many": np.linspace(-1, 1, 9)}

    def make(name: str) -> dict[str, Any]:
        return RUNS[name].make({"W": np.ones((2, 3)), "many": np.ones(9)}, "c", False)

    things = {**make("averages"), "accumulating": make("accumulation")["opt"], "sharp": make("sam")}
    things |= {"newton": make("lbfgs"), "scaled": make("scaler")}
    step_each(things, g)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        back = pool.apply(step_each, (things, g))
    assert things["opt"].t == 3
    step_each(things, g)
    for ours, theirs in ((things, back), *((things[name], back[name]) for name in ("sharp", "newton", "scaled"))):
        assert digest(ours) == digest(theirs)
    assert_same_bits(things["accumulating"], back["accumulating"])
