"""LBFGS on parameters in place: kernel and reference to the last bit, torch, resuming, and closures that fail."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import fastopt
from fastopt.app.selftest import same_bits
from tests.lockstep import copies

SEARCHES = ["strong_wolfe", "backtracking", "bracketing"]


class Network:
    """A small network with tanh on fixed data, in one type: loss and gradients by hand."""

    def __init__(self, dtype: Any = np.float64, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.X = rng.standard_normal((40, 5)).astype(dtype)
        self.Y = np.sin(self.X[:, :2] @ np.array([[1, 0.5], [-0.3, 1]])).astype(dtype)
        W = np.asfortranarray(0.4 * rng.standard_normal((5, 8)).astype(dtype))
        self.params = {
            "in": {"W": W, "b": np.zeros(8, dtype)},
            "out": [0.4 * rng.standard_normal((8, 2)).astype(dtype)],
        }
        self.calls = 0

    def __call__(self) -> tuple[float, Any]:
        self.calls += 1
        W, b, V = self.params["in"]["W"], self.params["in"]["b"], self.params["out"][0]
        hidden = np.tanh(self.X @ W + b)
        error = hidden @ V - self.Y
        back = (error @ V.T) * (1 - hidden**2)
        decay = W.dtype.type(0.1)
        loss = (float((error.astype(float) ** 2).sum()) + 0.1 * float((W**2).sum() + (V**2).sum())) / 2
        return loss, {"in": {"W": self.X.T @ back + decay * W, "b": back.sum(0)}, "out": [hidden.T @ error + decay * V]}

    def snapshot(self) -> Any:
        return [self.params["in"]["W"].tobytes(), self.params["in"]["b"].tobytes(), self.params["out"][0].tobytes()]


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_kernel_and_reference_have_the_same_bits(dtype: Any, search: str, isa: str) -> None:
    ours, theirs = Network(dtype), Network(dtype)
    a = fastopt.LBFGS(ours.params, history=3, line_search=search, max_iterations=4)
    b = fastopt.LBFGS(theirs.params, history=3, line_search=search, max_iterations=4, backend="numpy")
    for _ in range(4):
        assert a.step(ours) == b.step(theirs)
        assert ours.snapshot() == theirs.snapshot()
    p, q = a.state_dict()["state"], b.state_dict()["state"]
    assert p["in.W"]["s"].shape == (3, 5, 8)
    assert all(same_bits(p[name][key], q[name][key]) for name in p for key in "sy")


@pytest.mark.parametrize("search", SEARCHES)
def test_it_goes_down_to_a_minimum(search: str) -> None:
    net = Network()
    arrays = net.params["in"]["W"], net.params["out"][0]
    opt = fastopt.LBFGS(net.params, line_search=search, gtol=1e-3)
    reports = [opt.step(net) for _ in range(60)]
    losses = [report.loss for report in reports]
    assert sorted(losses, reverse=True) == losses
    assert reports[-1].converged
    assert reports[-1].max_grad <= 1e-3
    assert net.params["in"]["W"] is arrays[0]
    assert net.params["out"][0] is arrays[1]
    assert net.calls == sum(report.evaluations for report in reports)
    assert opt.t == sum(report.iterations for report in reports)
    loss, grads = net()
    assert loss == reports[-1].loss
    assert max(float(np.abs(g).max()) for g in (*grads["in"].values(), *grads["out"])) == reports[-1].max_grad


def least_squares(dtype: Any) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(3)
    A, b = rng.standard_normal((60, 12)), rng.standard_normal(60)
    w = np.zeros(12, dtype)

    def closure() -> tuple[float, Any]:
        r = A @ w.astype(float) - b
        return float(r @ r) / 2, (A.T @ r).astype(dtype)

    return w, closure, np.linalg.lstsq(A, b, rcond=None)[0]


@pytest.mark.parametrize(("dtype", "gtol", "atol"), [(np.float32, 1e-3, 1e-4), (np.float64, 1e-9, 1e-9)])
def test_least_squares(dtype: Any, gtol: float, atol: float) -> None:
    w, closure, solution = least_squares(dtype)
    opt = fastopt.LBFGS(w, gtol=gtol, max_iterations=100)
    report = opt.step(closure)
    assert report.converged, report
    np.testing.assert_allclose(w, solution, atol=atol)
    assert opt.step(closure)[2:5] == (True, 0, 1)


def test_types_may_be_mixed() -> None:
    """float32 and float64 side by side: the loss is that of the rounded parameters."""
    a, b = np.full(3, 5, np.float32), np.full(2, 5.0)

    def closure() -> tuple[float, Any]:
        assert (a.dtype, b.dtype) == (np.float32, np.float64)
        return float(((a - 1) ** 2).sum() + 3 * ((b - 2) ** 2).sum()), [2 * (a - 1), 6 * (b - 2)]

    report = fastopt.LBFGS([a, b], gtol=1e-5, max_iterations=50).step(closure)
    assert report.converged
    assert report.loss == closure()[0]
    np.testing.assert_allclose(np.concatenate([a, b]), [1, 1, 1, 2, 2], atol=1e-5)


def test_as_torch() -> None:
    torch = pytest.importorskip("torch")
    w, closure, solution = least_squares(np.float64)
    fastopt.LBFGS(w, history=10, max_iterations=20).step(closure)
    p = torch.zeros(12, dtype=torch.float64, requires_grad=True)
    rng = np.random.default_rng(3)
    A, b = torch.from_numpy(rng.standard_normal((60, 12))), torch.from_numpy(rng.standard_normal(60))
    opt = torch.optim.LBFGS([p], history_size=10, max_iter=20, line_search_fn="strong_wolfe")

    def torch_closure() -> Any:
        opt.zero_grad()
        loss = ((A @ p - b) ** 2).sum() / 2
        loss.backward()
        return loss

    opt.step(torch_closure)
    np.testing.assert_allclose(w, p.detach().numpy(), atol=1e-5)
    assert np.abs(w - solution).max() <= max(1e-6, np.abs(p.detach().numpy() - solution).max())


def test_a_resumed_run_is_the_same_run() -> None:
    net = Network(np.float32)
    opt = fastopt.LBFGS(net.params, max_iterations=4)
    for _ in range(3):
        opt.step(net)
    saved, resumed = opt.state_dict(), Network(np.float32)
    resumed.params = copies(net.params)
    again = fastopt.LBFGS(resumed.params, max_iterations=4)
    again.load_state_dict(saved)
    assert again.t == opt.t
    for _ in range(3):
        assert opt.step(net) == again.step(resumed)
        assert net.snapshot() == resumed.snapshot()


def test_loading_matches_by_name_and_keeps_the_newest_pairs() -> None:
    net = Network()
    opt = fastopt.LBFGS(net.params, max_iterations=6)
    opt.step(net)
    saved = opt.state_dict()
    count = len(saved["state"]["in.b"]["s"])
    turned = {"out": net.params["out"], "in": {"b": net.params["in"]["b"], "W": net.params["in"]["W"]}}
    other = fastopt.LBFGS(turned, history=2)
    other.load_state_dict(saved)
    kept = other.state_dict()["state"]
    assert count > 2
    assert all(same_bits(kept[name][key], saved["state"][name][key][-2:]) for name in kept for key in "sy")


@pytest.mark.parametrize("backend", ["c", "numpy"])
def test_loading_replaces_the_pairs_that_there_were(backend: str) -> None:
    net = Network()
    opt = fastopt.LBFGS(net.params, max_iterations=2, backend=backend)
    opt.step(net)
    saved = opt.state_dict()
    opt.step(net)
    opt.load_state_dict(saved)
    kept = opt.state_dict()["state"]
    assert all(same_bits(kept[name][key], saved["state"][name][key]) for name in kept for key in "sy")


def broken(change: Any) -> Any:
    net = Network()
    opt = fastopt.LBFGS(net.params)
    opt.step(net)
    saved = opt.state_dict()
    change(saved)
    return saved


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("t"), "no state dict of LBFGS"),
        (lambda s: s.update(optimizer="Adam"), "state of Adam"),
        (lambda s: s.update(t=-1), "t is -1"),
        (lambda s: s.update(t=2**53 + 1), "t is 9007199254740993"),
        (lambda s: s["state"].pop("in.b"), r"the state is of \['in.W', 'out.0'\]"),
        (lambda s: s["state"]["in.b"].pop("y"), "'y' of 'in.b' is None"),
        (
            lambda s: s["state"]["in.b"].update(s=np.ones((3, 9))),
            r"'s' of 'in.b' is float64 \(3, 9\): expected float64",
        ),
        (lambda s: s["state"]["in.b"].update(s=np.ones((3, 8), np.float32)), "float32"),
        (lambda s: s["state"]["in.b"].update(s=np.ones((99, 8)), y=np.ones((99, 8))), "different numbers of pairs"),
    ],
)
def test_states_that_do_not_fit(change: Any, words: str) -> None:
    net = Network()
    opt = fastopt.LBFGS(net.params)
    opt.step(net)
    before = opt.state_dict()
    with pytest.raises(ValueError, match=words):
        opt.load_state_dict(broken(change))
    after = opt.state_dict()
    assert after["t"] == before["t"]
    assert all(same_bits(after["state"][n][k], before["state"][n][k]) for n in before["state"] for k in "sy")


BAD_CLOSURES = {
    "nothing": (lambda net: None, TypeError, r"the closure returned None: expected \(loss, gradient"),
    "a loss alone": (lambda net: net()[0], TypeError, "the closure returned a float"),
    "gradients alone": (lambda net: net()[1], TypeError, "the closure returned a dict"),
    "a loss of an array": (lambda net: (np.ones(2), net()[1]), TypeError, "the loss that the closure returned"),
    "a missing gradient": (lambda net: (1.0, {"in": net()[1]["in"]}), ValueError, "no gradient for 'out'"),
    "another shape": (
        lambda net: (1.0, {**net()[1], "out": [np.ones((2, 8))]}),
        ValueError,
        r"gradient of 'out.0' is float64 of shape \(2, 8\) and its parameter float64 of shape \(8, 2\)",
    ),
    "another type": (
        lambda net: (1.0, {**net()[1], "out": [np.ones((8, 2), np.float32)]}),
        TypeError,
        "'out.0' is float32",
    ),
    "no array": (lambda net: (1.0, {**net()[1], "out": [3.0]}), TypeError, "'out.0'.*a float"),
    "a NaN loss": (lambda net: (math.nan, net()[1]), fastopt.NonFiniteError, "the loss is nan"),
    "an infinite loss": (lambda net: (-math.inf, net()[1]), fastopt.NonFiniteError, "the loss is -inf"),
    "a NaN gradient": (
        lambda net: (1.0, {**net()[1], "out": [np.where(np.arange(16).reshape(8, 2) == 5, np.nan, 1.0)]}),
        fastopt.NonFiniteError,
        r"the gradient of 'out.0' is nan at index \(2, 1\)",
    ),
}


@pytest.mark.parametrize("what", BAD_CLOSURES)
@pytest.mark.parametrize("good_calls", [0, 7])
def test_bad_closures_change_nothing(what: str, good_calls: int) -> None:
    """Also when they turn bad in the middle of a step; but there NaN is only a step too far."""
    closure, error, words = BAD_CLOSURES[what]
    net = Network()
    opt = fastopt.LBFGS(net.params)
    opt.step(net)
    before, t = net.snapshot(), opt.t
    if error is fastopt.NonFiniteError and good_calls:
        words = "NaN or infinite at every step tried"
    net.calls = 0
    with pytest.raises(error, match=words):
        opt.step(lambda: net() if net.calls < good_calls else closure(net))
    assert (net.snapshot(), opt.t) == (before, t)
    assert opt.step(net).iterations > 0


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_an_exception_in_the_closure_restores_the_parameters(error: Any) -> None:
    net = Network(np.float32)
    opt = fastopt.LBFGS(net.params)
    before = net.snapshot()

    def closure() -> Any:
        if net.calls == 9:
            raise error("of mine")
        return net()

    with pytest.raises(error, match="of mine"):
        opt.step(closure)
    assert net.snapshot() == before
    assert opt.t == 0


def test_one_step_at_a_time() -> None:
    net = Network()
    opt = fastopt.LBFGS(net.params)
    before = net.snapshot()
    with pytest.raises(RuntimeError, match="inside a step already"):
        opt.step(lambda: opt.step(net))
    assert net.snapshot() == before
    with pytest.raises(TypeError, match="closure is a dict: expected a function"):
        opt.step(net()[1])


def test_none_stands_for_zeros() -> None:
    nets = Network(), Network()
    for zeros, net in zip((None, np.zeros(8)), nets, strict=True):
        opt = fastopt.LBFGS(net.params, max_iterations=3)
        opt.step(net)

        def closure(net: Any = net, zeros: Any = zeros) -> tuple[float, Any]:
            loss, grads = net()
            return loss, {**grads, "in": {**grads["in"], "b": zeros}}

        assert opt.step(closure).iterations > 0
    assert nets[0].snapshot() == nets[1].snapshot()


def test_pairs_that_lead_uphill_are_not_remembered() -> None:
    """Where the loss is concave, backtracking goes down but learns no curvature."""
    w = np.array([0.5])
    opt = fastopt.LBFGS(w, line_search="backtracking", max_iterations=1)
    report = opt.step(lambda: (-float(w[0] ** 2), -2 * w))
    assert report.iterations == 1
    assert "0 of 10 pairs" in repr(opt)
    assert opt.state_dict()["state"]["0"]["s"].shape == (0, 1)


def test_limits_of_a_step() -> None:
    net = Network()
    assert fastopt.LBFGS(net.params, max_iterations=3).step(net)[3] == 3
    for search in SEARCHES:
        for most in range(1, 21):
            opt = fastopt.LBFGS(net.params, max_iterations=100, max_evaluations=most, gtol=0, line_search=search)
            for _ in range(3):
                net.calls = 0
                report = opt.step(net)
                assert net.calls == report.evaluations <= most
                assert report.loss == net()[0]
                assert "max_evaluations" in report.message
    assert "ftol is 0.5" in fastopt.LBFGS(net.params, ftol=0.5).step(net).message


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"history": 0}, ValueError, "history is 0"),
        ({"history": 2.5}, TypeError, "history is 2.5"),
        ({"line_search": None}, ValueError, "line_search is None"),
        ({"max_iterations": True}, TypeError, "max_iterations is True"),
        ({"gtol": math.nan}, ValueError, "gtol is nan"),
        ({"backend": "torch"}, ValueError, "backend is 'torch'"),
        ({"lr": 1.0}, TypeError, "LBFGS .*has no 'lr': the line search finds the step"),
        ({"history_size": 5}, TypeError, "called history here"),
        ({"c2": 1.5}, ValueError, "c2 is 1.5"),
        ({"line_search": "bracketing", "tolerance": 0}, ValueError, "tolerance is 0"),
    ],
)
def test_bad_options(options: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        fastopt.LBFGS(np.ones(2), **options)


@pytest.mark.parametrize(
    ("params", "error", "words"),
    [
        ([], ValueError, "no parameters"),
        ([{"params": np.ones(2)}], TypeError, "takes no groups"),
        ({"W": np.ones(2, int)}, TypeError, "'W' has dtype int64"),
        ({"W": np.ones((4, 4))[:, ::2]}, ValueError, "'W' is not contiguous"),
        ({"a": {"b": np.ones(1)}, "a.b": np.ones(1)}, ValueError, "named 'a.b'"),
    ],
)
def test_bad_parameters(params: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        fastopt.LBFGS(params)


def test_a_loss_without_a_lower_bound_is_told() -> None:
    p = np.zeros(2)
    report = fastopt.LBFGS([p]).step(lambda: (-float(p.sum()), [-np.ones(2)]))
    assert not report.converged
    assert report.iterations == 3
    assert "no lower bound" in report.message
