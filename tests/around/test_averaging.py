"""EMA and the running mean: the bits of the stage in the step, PyTorch's averages, and the exact way in and out."""

from __future__ import annotations

import pickle
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
