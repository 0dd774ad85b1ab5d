"""EMA and the running mean: the bits of the stage in the step, PyTorch's averages, and the exact way in and out."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import fastopt
from fastopt.app.selftest import same_bits
from tests.cases import DTYPES, ordinary, sprinkled
from tests.hostile.interrupted import plain
from tests.lockstep import copies, snapshot

every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)
LENGTHS = [0, 1, 17, 1041, 40_000]


def wavering(t: int) -> float:
    return 0.9 - 0.2 * (t % 3)


def bits(arrays: Any) -> list[bytes]:
    return [a.tobytes() for a in arrays]


@every_dtype
@pytest.mark.parametrize("decay", [0.9, 0.0, wavering], ids=["0.9", "0", "schedule"])
@pytest.mark.parametrize("flush", [True, False])
def test_an_ema_has_the_bits_of_the_average_in_the_step(dtype: Any, decay: Any, flush: bool, isa: str) -> None:
    rng = np.random.default_rng(0)
    params = [sprinkled(rng, n, dtype, "nan", "infinities", "zeros", "subnormals") for n in LENGTHS]
    params.append(np.asfortranarray(ordinary(rng, (30, 40), dtype)))
    opt = fastopt.SGD(params, lr=0.1, average=decay, flush_subnormals=flush)
    ema = fastopt.EMA(params, decay, flush_subnormals=flush)
    ema.update()
    for _ in range(4):
        opt.step([ordinary(rng, p.shape, dtype) for p in params])
        ema.update()
        for a, b in zip(ema.averages, opt.averages, strict=True):
            assert same_bits(a, b)
    assert ema.count == 5


@every_dtype
def test_a_running_mean_is_the_mean(dtype: Any) -> None:
    rng = np.random.default_rng(1)
    params = {"W": ordinary(rng, (5, 7), dtype), "b": [ordinary(rng, 1041, dtype)]}
    mean = fastopt.RunningMean(params)
    seen = []
    for _ in range(20):
        params["W"][...] = ordinary(rng, (5, 7), dtype)
        params["b"][0][...] = ordinary(rng, 1041, dtype)
        seen.append(copies(params))
        mean.update()
        expected = np.mean([x["W"].astype(np.float64) for x in seen], axis=0)
        np.testing.assert_allclose(mean.averages["W"], expected, rtol=0, atol=4 * float(np.finfo(dtype).eps))
    expected = np.mean([x["b"][0].astype(np.float64) for x in seen], axis=0)
    np.testing.assert_allclose(mean.averages["b"][0], expected, rtol=0, atol=4 * float(np.finfo(dtype).eps))


@given(p=hnp.arrays(np.float32, 20, elements=st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False)))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_the_mean_of_equal_parameters_is_exactly_these(p: Any) -> None:
    mean = fastopt.RunningMean([p])
    for _ in range(7):
        mean.update()
    assert np.array_equal(mean.averages[0], p)


@pytest.mark.parametrize("kind", ["ema", "mean"])
@every_dtype
def test_averages_are_those_of_torch(kind: str, dtype: Any) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed: nothing to compare with")
    utils = torch.optim.swa_utils
    rng = np.random.default_rng(2)
    params = [ordinary(rng, 50, dtype), ordinary(rng, (3, 4), dtype)]
    model = torch.nn.ParameterList([torch.nn.Parameter(torch.tensor(p)) for p in params])
    if kind == "ema":
        ours: Any = fastopt.EMA(params, 0.8)
        theirs = utils.AveragedModel(model, multi_avg_fn=utils.get_ema_multi_avg_fn(0.8))
    else:
        ours, theirs = fastopt.RunningMean(params), utils.AveragedModel(model)
    for _ in range(15):
        ours.update()
        theirs.update_parameters(model)
        assert ours.count == int(theirs.n_averaged)
        for a, b in zip(ours.averages, theirs.module, strict=True):
            tolerance = 1e-14 if dtype == np.float64 else 1e-6
            np.testing.assert_allclose(a, b.detach().numpy(), rtol=tolerance, atol=tolerance)
        for p, q in zip(params, model, strict=True):
            p += ordinary(rng, p.shape, dtype)
            q.data = torch.tensor(p)


def make(kind: str, params: Any) -> Any:
    return fastopt.EMA(params, 0.9) if kind == "EMA" else fastopt.RunningMean(params)


@pytest.mark.parametrize("kind", ["EMA", "RunningMean"])
@every_dtype
def test_swapping_there_and_back_is_exact(kind: str, dtype: Any) -> None:
    rng = np.random.default_rng(3)
    kinds = ("nan", "infinities", "zeros", "subnormals", "huge")
    params = [sprinkled(rng, n, dtype, *kinds) for n in LENGTHS]
    average = make(kind, params)
    average.update()
    for p in params:
        p[...] = sprinkled(rng, p.shape, dtype, *kinds)
    average.update()
    before, averages = bits(params), bits(average.averages)
    with average.swapped():
        assert bits(params) == averages
        with pytest.raises(RuntimeError, match="swap"):
            average.update()
        with pytest.raises(RuntimeError, match="swap"), average.swapped():
            pass
        params[2][...] = 7
    assert (bits(params), bits(average.averages)) == (before, averages)
    with pytest.raises(KeyboardInterrupt), average.swapped():
        raise KeyboardInterrupt
    assert (bits(params), bits(average.averages)) == (before, averages)
    average.swap()
    assert bits(params) == averages
    average.swap()
    assert (bits(params), bits(average.averages)) == (before, averages)
    with average.swapped():
        average.swap()
        assert bits(params) == before
    assert bits(params) == before


@pytest.mark.parametrize("part", [False, True], ids=["all parameters", "a view of one block"])
@pytest.mark.parametrize("kind", ["EMA", "RunningMean"])
def test_a_point_that_is_not_that_of_a_step_is_not_averaged(kind: str, part: bool) -> None:
    block, views = fastopt.arena({"W": np.ones(3), "b": np.full(2, 2.0)})
    opt = fastopt.SGD(block, lr=0.1, momentum=0.9, average=0.5)
    opt.step(np.ones(5))
    params = views["b"] if part else views
    average = fastopt.EMA(params, 0.5) if kind == "EMA" else fastopt.RunningMean(params)
    average.update()
    opt.step(np.ones(5))
    before = average.state_dict(), snapshot(opt)
    sam = fastopt.SAM(opt)
    with opt.nesterov_point(), pytest.raises(RuntimeError, match="at the look-ahead point until"):
        average.update()
    with opt.averaged(), pytest.raises(RuntimeError, match="averages are in the parameters"):
        average.update()
    sam.first_step(np.ones(5))
    with pytest.raises(RuntimeError, match="at SAM's perturbed point: go on with second_step"):
        average.update()
    sam.restore()
    second_order = fastopt.LBFGS(block)
    with pytest.raises(RuntimeError, match="inside a step already"):
        second_order.step(lambda: (average.update(), block))  # type: ignore[return-value]
    assert plain([average.state_dict(), snapshot(opt)]) == plain(before)
    average.update()
    assert average.count == 2


def test_every_optimizer_of_the_parameters_waits_until_they_are_swapped_back() -> None:
    params = {"W": np.ones(3), "b": np.ones(2)}
    whole, part = fastopt.Adam(params, average=0.5), fastopt.SGD([params["b"]], lr=0.1)
    other = fastopt.SGD([np.ones(3)], lr=0.1)
    ema = fastopt.EMA(params, 0.9)
    before = snapshot(whole)
    for swapped in (ema.swapped, whole.averaged):
        with swapped():
            for step in (lambda: whole.step({"W": np.ones(3), "b": np.ones(2)}), lambda: part.step([np.ones(2)])):
                with pytest.raises(RuntimeError, match="averages are in the parameters"):
                    step()
            other.step([np.ones(3)])
    assert snapshot(whole) == before
    with whole.averaged(), pytest.raises(RuntimeError, match="averages are in the parameters"):
        ema.swap()
    mean = fastopt.RunningMean(params["W"])
    with ema.swapped():
        for call in (mean.swap, mean.update):
            with pytest.raises(RuntimeError, match="averages are in the parameters"):
                call()
    mean.update()
    assert mean.count == 1
    second_order = fastopt.LBFGS(params)
    with ema.swapped(), pytest.raises(RuntimeError, match="averages are in the parameters"):
        second_order.step(lambda: (0.0, params))
    with pytest.raises(RuntimeError, match="inside a step already"):
        second_order.step(lambda: (ema.swap(), params))  # type: ignore[return-value]
    assert snapshot(whole) == before
    assert part.step([np.ones(2)]).applied
    assert whole.step({"W": np.ones(3), "b": np.ones(2)}).applied


@pytest.mark.parametrize("backend", ["c", "numpy"])
def test_the_averages_of_an_optimizer_go_in_and_out(backend: str) -> None:
    params = {"W": np.ones(3), "b": [np.ones(2, np.float32)]}
    opt = fastopt.Adam(params, lr=0.1, average=0.9, backend=backend)
    for _ in range(3):
        opt.step({"W": np.ones(3), "b": [np.ones(2, np.float32)]})
    before, saved = snapshot(opt), pickle.dumps(opt.state_dict())
    with opt.averaged():
        assert params["W"].tobytes() == opt.averages["W"].tobytes()
        assert params["b"][0].tobytes() == opt.averages["b"][0].tobytes()
        assert pickle.dumps(opt.state_dict()) == saved
    assert snapshot(opt) == before
    with pytest.raises(KeyboardInterrupt), opt.averaged():
        raise KeyboardInterrupt
    assert snapshot(opt) == before
    with pytest.raises(ValueError, match="average="):
        fastopt.Adam(params).averaged()


@pytest.mark.parametrize("kind", ["EMA", "RunningMean"])
def test_a_restored_average_is_the_same_average(kind: str) -> None:
    rng = np.random.default_rng(4)
    params = {"W": np.asfortranarray(ordinary(rng, (5, 7), np.float32)), "b": ordinary(rng, 3, np.float64)}
    average = make(kind, params)
    for _ in range(3):
        average.update()
        params["W"] += 1
    saved = pickle.loads(pickle.dumps(average.state_dict()))
    again = make(kind, params)
    again.load_state_dict(saved)
    average.update()
    again.update()
    assert bits(again.averages.values()) == bits(average.averages.values())
    assert again.count == average.count == 4
    assert saved["count"] == 3


BAD_STATES = {
    "no dict": (lambda saved: None, "not the state of an average"),
    "other keys": (lambda saved: {"count": 1}, "not the state of an average"),
    "a broken count": (lambda saved: {**saved, "count": -1}, "count is -1"),
    "no averages": (lambda saved: {**saved, "averages": []}, r"averages are \[\]"),
    "other names": (lambda saved: {**saved, "averages": {"V": np.ones(3)}}, "missing: .*'W'.*not known here: .*'V'"),
    "another shape": (lambda saved: {**saved, "averages": {"W": np.ones(4), "b": np.ones(2)}}, "average of 'W' is"),
    "another dtype": (lambda saved: {**saved, "averages": {"W": np.ones(3), "b": np.ones(2, "f4")}}, "average of 'b'"),
}


@pytest.mark.parametrize("what", BAD_STATES)
def test_a_state_that_does_not_fit_changes_nothing(what: str) -> None:
    change, words = BAD_STATES[what]
    mean = fastopt.RunningMean({"W": np.ones(3), "b": np.ones(2)})
    mean.update()
    before = pickle.dumps(mean.state_dict())
    with pytest.raises(ValueError, match=f"(?s){words}"):
        mean.load_state_dict(change(mean.state_dict()))
    assert pickle.dumps(mean.state_dict()) == before


# How an average begins, and what it is kept in


BEGINNINGS: list[dict[str, Any]] = [
    {"warmup": True},
    {"start": 3},
    {"warmup": True, "start": 2},
    {"debias": True},
    {"debias": True, "warmup": True},
    {"debias": True, "warmup": True, "start": 2},
]
every_beginning = pytest.mark.parametrize("beginning", BEGINNINGS, ids=lambda beginning: " ".join(beginning))


@every_dtype
@every_beginning
@pytest.mark.parametrize("backend", ["c", "numpy"])
def test_an_ema_begins_as_the_average_in_the_step(dtype: Any, beginning: dict[str, Any], backend: str) -> None:
    """To the bit, with an update before the first step but where that is not to count."""
    rng = np.random.default_rng(5)
    params = [ordinary(rng, n, dtype) for n in LENGTHS[:4]]
    named = {f"average_{name}": x for name, x in beginning.items()}
    opt = fastopt.SGD(params, lr=0.1, average=0.6, backend=backend, **named)
    ema = fastopt.EMA(params, 0.6, **beginning)
    if "debias" not in beginning:
        ema.update()
    for t in range(12):
        opt.step([ordinary(rng, p.shape, dtype) for p in params])
        ema.update()
        assert bits(ema.averages) == bits(opt.averages)
        if t < beginning.get("start", 0):
            assert all(np.array_equal(a, p) for a, p in zip(opt.averages, params, strict=True))
    assert not any(np.array_equal(a, p) for a, p in zip(opt.averages[1:], params[1:], strict=True))


@every_dtype
def test_a_debiased_average_weighs_updates_alone(dtype: Any) -> None:
    rng = np.random.default_rng(6)
    p = ordinary(rng, 50, dtype)
    ema, seen = fastopt.EMA(p, 0.9, debias=True), []
    for k in range(1, 15):
        p[:] = ordinary(rng, 50, dtype)
        seen.append(p.astype(np.float64))
        ema.update()
        weights = 0.9 ** np.arange(k)[::-1]
        expected = weights @ np.array(seen) / weights.sum()
        np.testing.assert_allclose(ema.averages, expected, rtol=0, atol=8 * float(np.finfo(dtype).eps))


def test_a_debiased_average_is_that_of_optax() -> None:
    jax = pytest.importorskip("jax", reason="jax is not installed: nothing to compare with")
    optax = pytest.importorskip("optax", reason="optax is not installed: nothing to compare with")
    rng = np.random.default_rng(7)
    p = ordinary(rng, 50, np.float32)
    ema, theirs = fastopt.EMA(p, 0.8, debias=True), optax.ema(0.8, debias=True)
    state = theirs.init(jax.numpy.zeros(50, "float32"))
    for _ in range(10):
        p += ordinary(rng, 50, np.float32)
        ema.update()
        expected, state = theirs.update(jax.numpy.array(p), state)
        np.testing.assert_allclose(ema.averages, expected, rtol=1e-5, atol=1e-6)


def test_a_warm_average_forgets_where_it_began() -> None:
    p = np.array([100.0])
    plain, warm = fastopt.EMA(p, 0.999), fastopt.EMA(p, 0.999, warmup=True)
    for _ in range(50):
        plain.update()
        warm.update()
        p[:] = 0
    assert plain.averages[0] > 90
    assert warm.averages[0] < 1e-6


@pytest.mark.parametrize("kind", ["EMA", "RunningMean"])
def test_averages_in_float64_have_the_bits_of_float64(kind: str, isa: str) -> None:
    rng = np.random.default_rng(8)
    params = [sprinkled(rng, n, np.float32, "nan", "infinities", "zeros", "subnormals") for n in LENGTHS]
    params.append(np.asfortranarray(ordinary(rng, (30, 40), np.float32)))
    params.append(ordinary(rng, 20, np.float64))
    wide = [np.array(p, np.float64, order="K") for p in params]
    if kind == "EMA":
        ours: Any = fastopt.EMA(params, wavering, dtype="float64")
        theirs: Any = fastopt.EMA(wide, wavering)
    else:
        ours, theirs = fastopt.RunningMean(params, dtype=np.float64), fastopt.RunningMean(wide)
    for _ in range(4):
        ours.update()
        theirs.update()
        assert all(a.dtype == np.float64 for a in ours.averages)
        assert all(same_bits(a, b) for a, b in zip(ours.averages, theirs.averages, strict=True))
        for p, q in zip(params, wide, strict=True):
            p += ordinary(rng, p.shape, p.dtype)
            q[...] = p
    before, averages = bits(params), bits(ours.averages)
    with ours.swapped():
        assert all(np.array_equal(p, a.astype(p.dtype), True) for p, a in zip(params, ours.averages, strict=True))
    assert (bits(params), bits(ours.averages)) == (before, averages)
    assert ours.averages[5].flags.f_contiguous


def test_an_average_in_float64_goes_on_moving() -> None:
    p = np.ones(3, np.float32)
    narrow, wide = fastopt.EMA(p, 1 - 1e-5), fastopt.EMA(p, 1 - 1e-5, dtype="float64")
    for _ in range(1000):
        narrow.update()
        wide.update()
        p[:] = 1.001
    assert np.array_equal(narrow.averages, np.ones(3))
    assert wide.averages == pytest.approx(1 + 0.001 * (1 - (1 - 1e-5) ** 999), rel=1e-9)


RULES = [fastopt.SGD, fastopt.LAMB, fastopt.Adafactor, fastopt.Prodigy]


@pytest.mark.parametrize("cls", RULES)
@pytest.mark.parametrize("flush", [True, False])
@pytest.mark.parametrize(("backend", "threads"), [("c", 1), ("c", 3), ("numpy", 1)])
def test_an_optimizer_s_averages_in_float64_are_those_of_an_ema(
    cls: Any, flush: bool, backend: str, threads: int
) -> None:
    rng = np.random.default_rng(8)
    kinds = ("nan", "zeros", "subnormals") if cls is fastopt.SGD else ("zeros",)
    shapes = [(31, 40), 3000, 3, ()]
    params = {str(i): np.asarray(sprinkled(rng, shape, np.float32, *kinds)) for i, shape in enumerate(shapes)}
    params |= {"F": np.asfortranarray(ordinary(rng, (30, 40), np.float32)), "d": ordinary(rng, 50, np.float64)}
    still = np.ones(2, np.float32)
    groups = [{"params": params}, {"params": {"still": still}, "frozen": True}]
    opt = cls(groups, lr=0.1, average=wavering, average_dtype=np.float64, flush_subnormals=flush, backend=backend,
              threads=threads)  # fmt: skip
    if backend == "c":
        opt._engine.plan.split(1, 1024)
    with fastopt.subnormals(flush):
        ema = fastopt.EMA(params, wavering, flush, dtype="float64")
        ema.update()
    for t in range(4):
        opt.step([{name: np.asarray(ordinary(rng, p.shape, p.dtype)) for name, p in params.items()}, None])
        ema.update()
        assert {name: a.dtype for name, a in opt.averages[0].items()} == dict.fromkeys(params, np.dtype(float))
        for name in params:
            assert same_bits(opt.averages[0][name], ema.averages[name]), (name, t)
    assert opt.averages[1] == {"still": None}


def test_an_optimizer_s_average_in_float64_goes_on_moving() -> None:
    p, q = np.ones(3, np.float32), np.ones(3, np.float32)
    wide, narrow = (fastopt.SGD(x, 0.0, average=0.99999999, average_dtype=to) for x, to in ((p, "float64"), (q, None)))
    p[...] = q[...] = 2
    for _ in range(100):
        wide.step(np.zeros(3, np.float32))
        narrow.step(np.zeros(3, np.float32))
    assert narrow.averages.tolist() == [1.0] * 3
    np.testing.assert_allclose(wide.averages, 2 - 0.99999999**100, rtol=1e-13)
    assert wide.bytes_per_step - narrow.bytes_per_step == 2 * 4 * 3
    with wide.averaged():
        np.testing.assert_array_equal(p, wide.averages.astype(np.float32))
    assert p.tolist() == [2.0] * 3


def test_an_optimizer_s_averages_in_float64_are_saved(tmp_path: Path) -> None:
    def made(to: Any, start: float = 1.0) -> tuple[Any, Any]:
        p = {"W": np.full((4, 3), start, np.float32), "d": np.full(2, start)}
        return p, fastopt.Adam(p, lr=0.1, average=0.999, average_dtype=to)

    g = {"W": np.full((4, 3), 0.25, np.float32), "d": np.ones(2)}
    p, opt = made("float64")
    for _ in range(3):
        opt.step(g)
    opt.save(tmp_path / "saved")
    resumed, other = made("float64", 5.0)
    for name, x in p.items():
        resumed[name][...] = x
    other.load(tmp_path / "saved")
    through = [other, pickle.loads(pickle.dumps(opt)), copy.deepcopy(opt)]
    for each in (opt, *through):
        each.add_group({"params": np.ones(2, np.float32)})
        each.step([g, np.ones(2, np.float32)])
    for each in through:
        assert snapshot(each) == snapshot(opt)
        assert each.averages[1].dtype == np.float64
    _, narrow = made(None)
    with pytest.raises(ValueError, match="it was made with average_dtype='float64', and this optimizer"):
        narrow.load(tmp_path / "saved")
    with pytest.raises(AttributeError, match="average_dtype is fixed"):
        opt.average_dtype = None


def test_a_gradient_in_the_memory_of_an_average_in_float64_is_refused() -> None:
    p = np.ones(4, np.float32)
    opt = fastopt.SGD(p, 0.1, average=0.5, average_dtype="float64")
    with pytest.raises(ValueError, match="shares memory with the average of '0'"):
        opt.step(opt.averages.view(np.float32)[4:])


def test_parameters_of_an_average_in_float64_are_watched() -> None:
    block, views = fastopt.arena({"W": np.ones(3, np.float32), "b": np.ones(2, np.float32)})
    opt = fastopt.SGD(block, lr=0.1, momentum=0.9)
    opt.step(np.ones(5, np.float32))
    ema = fastopt.EMA(views, 0.5, dtype="float64")
    ema.update()
    before = pickle.dumps(ema.state_dict())
    with opt.nesterov_point(), pytest.raises(RuntimeError, match="at the look-ahead point until"):
        ema.update()
    with ema.swapped(), pytest.raises(RuntimeError, match="averages are in the parameters"):
        opt.step(np.ones(5, np.float32))
    views["b"].flags.writeable = False
    with pytest.raises(ValueError, match="'b' has become read-only"):
        ema.update()
    assert pickle.dumps(ema.state_dict()) == before


OPTIONS: dict[str, Any] = {"debias": True, "warmup": True, "start": 2, "dtype": "float64"}


@pytest.mark.parametrize(
    "through",
    [
        lambda ema, params: (restored(fastopt.EMA(params, 0.9, **OPTIONS), ema), params),
        lambda ema, params: pickle.loads(pickle.dumps((ema, params))),
        lambda ema, params: copy.deepcopy((ema, params)),
    ],
    ids=["state", "pickle", "copy"],
)
@pytest.mark.parametrize("updates", [0, 1, 2, 3, 5])
def test_a_restored_beginning_goes_on(through: Any, updates: int) -> None:
    rng = np.random.default_rng(9)
    params = {"W": np.asfortranarray(ordinary(rng, (5, 7), np.float32)), "b": ordinary(rng, 3, np.float64)}
    ema = fastopt.EMA(params, 0.9, **OPTIONS)
    for _ in range(updates):
        ema.update()
        params["W"] += 1
    again, other = through(ema, params)
    assert repr(again) == repr(ema)
    for _ in range(4):
        ema.update()
        again.update()
        for p in {id(p): p for p in (params["W"], other["W"])}.values():
            p *= np.float32(1.5)
        assert bits(again.averages.values()) == bits(ema.averages.values())
    with pytest.raises(ValueError, match=r"average of 'W' is float64 .*: expected float32"):
        fastopt.EMA(params, 0.9).load_state_dict(ema.state_dict())


def restored(fresh: Any, old: Any) -> Any:
    fresh.load_state_dict(pickle.loads(pickle.dumps(old.state_dict())))
    return fresh


@every_beginning
def test_how_an_average_began_is_saved_with_the_optimizer(beginning: dict[str, Any], tmp_path: Path) -> None:
    rng = np.random.default_rng(10)
    p = ordinary(rng, 5, np.float32)
    grads = [ordinary(rng, 5, np.float32) for _ in range(8)]
    opt = fastopt.Adam(p, average=0.9, **{f"average_{name}": x for name, x in beginning.items()})
    for g in grads[:3]:
        opt.step(g)
    opt.save(tmp_path / "saved")
    q = p.copy()
    other = fastopt.Adam(q, average=0.5)
    other.load(tmp_path / "saved")
    assert repr(other.average) == repr(opt.average)
    for g in grads[3:]:
        opt.step(g)
        other.step(g)
    assert bits([other.averages, q]) == bits([opt.averages, p])


def test_bad_beginnings() -> None:
    p = np.ones(3)
    for options, words in [
        ({"debias": 1}, "debias is 1: expected True or False"),
        ({"warmup": 10}, "warmup is 10: expected True or False"),
        ({"start": -1}, "start is -1: expected a whole number, 0 or larger"),
        ({"dtype": "float32"}, "dtype is 'float32': expected None, .* or 'float64'"),
        ({"dtype": np.float32}, "dtype is .*float32.*: expected None"),
        ({"decay": wavering, "debias": True}, "decay .*: with debias=True expected a number"),
    ]:
        with pytest.raises((TypeError, ValueError), match=words):
            fastopt.EMA(**{"params": p, "decay": 0.9, **options})  # type: ignore[arg-type]
    for options, words in [
        ({"average_debias": 1}, "average_debias is 1: expected True or False"),
        ({"average_start": 1.5}, r"average_start is 1\.5: expected a whole number"),
        ({"average_warmup": True, "average": None}, "average_warmup without average="),
        ({"average_start": 5, "average": 1.0}, r"average is 1\.0: expected a number in \[0, 1\)"),
        ({"average_debias": True, "average": wavering}, "average is .*: with average_debias=True expected a number"),
        ({"average_dtype": "float32"}, "average_dtype is 'float32': expected None, .* or 'float64'"),
        ({"average_dtype": "float64", "average": None}, "average_dtype without average="),
    ]:
        with pytest.raises((TypeError, ValueError), match=words):
            fastopt.SGD(p, **{"lr": 0.1, "average": 0.9, **options})
    assert fastopt.SGD(p, lr=0.1, average=0.9, average_debias=False, average_start=0).average == 0.9
    assert fastopt.SGD(p, lr=0.1, average_start=0).average is None
    ema = fastopt.EMA(p, 0.9, debias=True, dtype="float64")
    assert repr(ema) == "EMA(decay=0.9, debias=True, dtype='float64'): 1 tensors, 0 updates"
    ema.update()
    ema.decay = wavering
    with pytest.raises(TypeError, match="with debias=True expected a number"):
        ema.update()
    assert ema.count == 1


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="no parameters"):
        fastopt.EMA([], 0.9)
    with pytest.raises(TypeError, match="int64"):
        fastopt.RunningMean([np.ones(3, int)])
    with pytest.raises(ValueError, match="decay is 1"):
        fastopt.EMA([np.ones(3)], 1.0)
    with pytest.raises(TypeError, match="flush_subnormals"):
        fastopt.EMA([np.ones(3)], 0.9, 1)  # type: ignore[arg-type]
    ema = fastopt.EMA(np.ones(3), lambda t: 2.0)
    ema.update()
    with pytest.raises(ValueError, match=r"decay \(its schedule at t=0\) is 2"):
        ema.update()
    assert ema.count == 1
    ema.decay = 0.5
    ema.update()
    assert repr(ema) == "EMA(decay=0.5): 1 tensors, 2 updates"
    assert repr(fastopt.RunningMean(np.ones(3))) == "RunningMean: 1 tensors, 0 updates"
