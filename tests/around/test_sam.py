"""SAM: the perturbation against float64 and against PyTorch's autograd, its exact way back, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import fastopt
from tests.cases import CASES, DTYPES, SPECIAL, Case, ordinary
from tests.lockstep import assert_same_bits, copies, loss_of, snapshot, told

every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)
every_norm = pytest.mark.parametrize("norm", [2, 1, np.inf])
every_kind = pytest.mark.parametrize("adaptive", [False, True], ids=["plain", "adaptive"])


def perturbation(params: Any, grads: Any, rho: float, norm: float, adaptive: bool) -> Any:
    """The formulas over all elements at once, in float64."""
    p = np.concatenate([np.ravel(x).astype(np.float64) for x in params])
    g = np.concatenate([np.zeros(x.size) if y is None else np.ravel(y) for x, y in zip(params, grads, strict=True)])
    w = p * g if adaptive else g
    if norm == 2:
        e = rho * w / np.linalg.norm(w) if w.any() else 0 * w
    elif norm == np.inf:
        e = rho * np.sign(w)
    else:
        e = np.zeros_like(w)
        largest = np.argmax(np.abs(w))
        e[largest] = rho * np.sign(w[largest])
    e = p * e if adaptive else e
    return np.split(e, np.cumsum([x.size for x in params])[:-1])


@every_norm
@every_kind
@every_dtype
@pytest.mark.parametrize("backend", ["c", "numpy"])
@pytest.mark.parametrize("maximize", [False, True])
def test_the_perturbation_is_that_of_the_formula(
    norm: float, adaptive: bool, dtype: Any, backend: str, maximize: bool
) -> None:
    """Up the loss, and where it is maximized down."""
    rng = np.random.default_rng(0)
    shapes: list[Any] = [(), (0,), (3, 5), (1041,), (7, 4), (6,)]
    params = [np.array(ordinary(rng, shape, dtype)) for shape in shapes]
    params[4] = np.asfortranarray(params[4])
    grads: list[Any] = [np.array(ordinary(rng, shape, dtype)) for shape in shapes]
    grads[2], grads[5] = np.asfortranarray(grads[2]), None
    before = copies(params)
    opt = fastopt.SGD(params, lr=0.1, backend=backend, maximize=maximize)
    sam = fastopt.SAM(opt, rho=0.7, norm=norm, adaptive=adaptive)
    sam.first_step(grads)
    e = perturbation(before, grads, -0.7 if maximize else 0.7, norm, adaptive)
    assert any(x.any() for x in e)
    for p, start, x in zip(params, before, e, strict=True):
        expected = start + x.reshape(start.shape)
        np.testing.assert_allclose(p, expected, rtol=0, atol=4 * float(np.finfo(dtype).eps))
    with pytest.raises(RuntimeError, match=r"second_step\(grads\)"):
        opt.step(grads)
    sam.restore()
    assert [p.tobytes() for p in params] == [p.tobytes() for p in before]


def loss_gradient(params: Any) -> Any:
    """Of a small network's squared error, by hand: tanh(x W + b) v against a target."""
    x, y = np.linspace(-2, 2, 24).reshape(8, 3), np.linspace(-1, 1, 8)
    hidden = np.tanh(x @ params["W"] + params["b"])
    error = hidden @ params["v"] - y
    back = np.outer(2 * error / len(y), params["v"]) * (1 - hidden**2)
    return {"W": x.T @ back, "b": back.sum(axis=0), "v": hidden.T @ (2 * error / len(y))}


def network() -> dict[str, Any]:
    rng = np.random.default_rng(1)
    return {"W": rng.standard_normal((3, 5)), "b": rng.standard_normal(5), "v": rng.standard_normal(5)}


@pytest.mark.parametrize("base", ["momentum", "adamw"])
@every_kind
def test_the_path_is_that_of_the_usual_pytorch_sam(base: str, adaptive: bool) -> None:
    """The class of the widely used implementation for PyTorch: its perturbation, then its base optimizer."""
    torch = pytest.importorskip("torch", reason="torch is not installed: nothing to compare with")
    params = network()
    tensors = {name: torch.tensor(p.copy(), requires_grad=True) for name, p in params.items()}
    if base == "momentum":
        opt: fastopt.Optimizer = fastopt.SGD(params, lr=0.1, momentum=0.9, l2=0.01)
        theirs = torch.optim.SGD(list(tensors.values()), lr=0.1, momentum=0.9, weight_decay=0.01)
    else:
        opt = fastopt.AdamW(params, lr=0.01, weight_decay=0.1)
        theirs = torch.optim.AdamW(list(tensors.values()), lr=0.01, weight_decay=0.1)
    sam, rho = fastopt.SAM(opt, rho=0.3, adaptive=adaptive), 0.3

    def backward() -> None:
        x, y = torch.tensor(np.linspace(-2, 2, 24).reshape(8, 3)), torch.tensor(np.linspace(-1, 1, 8))
        theirs.zero_grad()
        prediction = torch.tanh(x @ tensors["W"] + tensors["b"]) @ tensors["v"]
        ((prediction - y) ** 2).mean().backward()

    for _ in range(20):
        sam.step(lambda: loss_gradient(params))
        backward()
        with torch.no_grad():
            norms = [((torch.abs(p) if adaptive else 1.0) * p.grad).norm(p=2) for p in tensors.values()]
            scale = rho / torch.norm(torch.stack(norms), p=2)
            old = {name: p.clone() for name, p in tensors.items()}
            for p in tensors.values():
                p.add_((torch.pow(p, 2) if adaptive else 1.0) * p.grad * scale)
        backward()
        with torch.no_grad():
            for name, p in tensors.items():
                p.copy_(old[name])
        theirs.step()
        for name, p in params.items():
            np.testing.assert_allclose(p, tensors[name].detach().numpy(), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_the_second_half_is_the_step_of_the_optimizer(case: Case) -> None:
    """Clipping, penalties, decay, prox and average see the second gradient and the parameters before."""
    rng = np.random.default_rng(2)
    params = [ordinary(rng, n, np.float32) for n in (3, 1041)]
    plain = case.make(copies(params))
    opt = case.make(params)
    sam = fastopt.SAM(opt, rho=0.1)
    for _ in range(3):
        first, second = ([ordinary(rng, p.size, np.float32) for p in params] for _ in range(2))
        given = iter([first, second])
        closure = lambda given=given: told(opt, next(given))  # noqa: E731
        assert sam.step(closure) == plain.step(second, **loss_of(plain))
        assert_same_bits(opt, plain)


@every_norm
@every_kind
@every_dtype
def test_backends_agree_bit_for_bit(norm: float, adaptive: bool, dtype: Any, isa: str) -> None:
    rng = np.random.default_rng(3)
    kinds = [x for kind in ("zeros", "subnormals", "tiny") for x in SPECIAL[kind]]
    params = [ordinary(rng, n, dtype) for n in (1, 17, 3000)]
    params[1][:3] = [0.0, -0.0, 1e-38]
    grads = [ordinary(rng, p.size, dtype) for p in params]
    grads[2][:: 7] = rng.choice(kinds, grads[2][:: 7].size).astype(dtype)  # fmt: skip
    after = []
    for backend in ("c", "numpy"):
        moved = copies(params)
        sam = fastopt.SAM(fastopt.SGD(moved, lr=0.1, backend=backend), rho=0.2, norm=norm, adaptive=adaptive)
        sam.first_step(grads)
        after.append([p.tobytes() for p in moved])
    assert after[0] == after[1]


@given(
    values=st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=30),
    exponent=st.integers(-37, 37), dtype=st.sampled_from(DTYPES), flush=st.booleans(),
)  # fmt: skip
@example(values=[1.0, -0.5], exponent=37, dtype=np.float32, flush=False)
@example(values=[1.0, -0.5], exponent=-37, dtype=np.float32, flush=True)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_the_size_is_rho_for_gradients_of_any_size(values: Any, exponent: int, dtype: Any, flush: bool) -> None:
    g = (np.array(values) * 10.0**exponent).astype(dtype)
    params = [np.zeros(g.size, dtype)]
    sam = fastopt.SAM(fastopt.SGD(params, lr=0.1, flush_subnormals=flush), rho=0.5)
    sam.first_step([g])
    wide = g.astype(np.longdouble)
    if flush:
        wide = np.where(np.abs(wide) < np.finfo(dtype).tiny, 0, wide)
    size = np.sqrt(np.sum(wide * wide))
    if size == 0:
        assert not params[0].any()
    else:
        expected = (0.5 * wide / size).astype(np.float64)
        np.testing.assert_allclose(params[0], expected, rtol=1e-6 if dtype == np.float32 else 1e-14, atol=1e-37)


@every_norm
@every_kind
def test_a_zero_gradient_moves_nothing(norm: float, adaptive: bool) -> None:
    params = {"W": np.array([1.0, -2.0]), "b": np.ones(1)}
    sam = fastopt.SAM(fastopt.SGD(params, lr=0.1), norm=norm, adaptive=adaptive)
    before = snapshot(sam.opt)
    sam.first_step({"W": np.zeros(2), "b": None})
    assert snapshot(sam.opt) == before
    report = sam.second_step({"W": np.zeros(2), "b": None})
    assert report.applied
    sam.first_step({"W": None, "b": None})
    assert not sam.second_step({"W": None, "b": None}).applied


def test_ties_of_the_norm_1_go_to_the_first_index() -> None:
    """In the order of the indices, also where memory has another."""
    params = [np.zeros((2, 3), order="F"), np.zeros(2)]
    sam = fastopt.SAM(fastopt.SGD(params, lr=0.1), rho=1.0, norm=1)
    sam.first_step([np.array([[1.0, 1.0, -3.0], [3.0, 1.0, 3.0]], order="F"), np.array([3.0, 3.0])])
    assert params[0].tolist() == [[0, 0, -1], [0, 0, 0]]
    assert not params[1].any()


@every_norm
@every_kind
@every_dtype
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nonfinite_gradients_change_nothing(norm: float, adaptive: bool, dtype: Any, bad: float) -> None:
    params = {"W": np.ones((2, 2), dtype), "b": np.zeros(3, dtype)}
    opt = fastopt.Adam(params)
    sam = fastopt.SAM(opt, norm=norm, adaptive=adaptive)
    grads = {"W": np.ones((2, 2), dtype), "b": np.array([1, bad, 1], dtype)}
    before = snapshot(opt)
    with pytest.raises(fastopt.NonFiniteError, match=r"gradient of 'b' is -?(nan|inf) at index \(1,\)"):
        sam.first_step(grads)
    with pytest.raises(fastopt.NonFiniteError, match="gradient of 'b'"):
        sam.step(lambda: grads)
    assert snapshot(opt) == before
    opt.on_nonfinite = "skip"
    assert not sam.step(lambda: grads).applied
    assert snapshot(opt) == before
    grads["b"] = np.ones(3, dtype)
    assert sam.step(lambda: grads).applied


def test_norms_that_overflow_change_nothing() -> None:
    params = [np.full(4, 1e30, np.float32)]
    opt = fastopt.SGD(params, lr=0.1, on_nonfinite="skip")
    with pytest.raises(ValueError, match="2-norm of parameters times gradients is inf"):
        fastopt.SAM(opt, adaptive=True).step(lambda: [np.full(4, 1e30, np.float32)])
    wide = fastopt.SGD([np.ones(4)], lr=0.1, on_nonfinite="skip")
    with pytest.raises(ValueError, match="2-norm of the gradients is inf"):
        fastopt.SAM(wide).step(lambda: [np.full(4, 1.7e308)])
    assert params[0].tolist() == [np.float32(1e30)] * 4
    assert wide.groups[0]["params"][0].tolist() == [1.0] * 4


def test_maximizing_goes_the_other_way() -> None:
    g = [np.array([3.0, -4.0])]
    for norm in (1, 2, np.inf):
        up, down = [np.ones(2)], [np.ones(2)]
        fastopt.SAM(fastopt.SGD(up, lr=0.1, maximize=True), norm=norm).first_step(g)
        fastopt.SAM(fastopt.SGD(down, lr=0.1), norm=norm).first_step(g)
        np.testing.assert_allclose(up[0] - 1, 1 - down[0], rtol=1e-12)


def test_an_exception_in_the_closure_leaves_everything() -> None:
    params = {"W": np.array([1.0, -0.0, 1e-310, np.pi])}
    opt = fastopt.Adam(params)
    sam = fastopt.SAM(opt)
    for fails_at in (1, 2):
        calls: list[int] = []

        def closure(calls: Any = calls, fails_at: int = fails_at) -> Any:
            calls.append(1)
            if len(calls) == fails_at:
                raise KeyboardInterrupt
            return {"W": np.ones(4)}

        before = snapshot(opt)
        with pytest.raises(KeyboardInterrupt):
            sam.step(closure)
        assert snapshot(opt) == before
        assert len(calls) == fails_at
    assert sam.step(lambda: {"W": np.ones(4)}).step == 1


def test_bad_gradients_leave_the_parameters_where_they_were() -> None:
    params = {"W": np.ones(4)}
    opt = fastopt.Adam(params)
    sam = fastopt.SAM(opt)
    before = snapshot(opt)
    with pytest.raises(ValueError, match="shape"):
        sam.first_step({"W": np.ones(3)})
    with pytest.raises(ValueError, match="shares memory with parameter 'W'"):
        sam.first_step({"W": params["W"]})
    with pytest.raises(TypeError, match=r"closure\(\) returned None"):
        sam.step(lambda: None)
    sam.first_step({"W": np.ones(4)})
    with pytest.raises(RuntimeError, match="perturbed"):
        sam.first_step({"W": np.ones(4)})
    with pytest.raises(TypeError, match="float32"):
        sam.second_step({"W": np.ones(4, np.float32)})
    assert snapshot(opt) == before
    with pytest.raises(RuntimeError, match="without a first"):
        sam.second_step({"W": np.ones(4)})
    assert snapshot(opt) == before
    opt.accumulate({"W": np.ones(4)})
    before = snapshot(opt)
    with pytest.raises(RuntimeError, match="accumulated and not applied"):
        sam.step(lambda: {"W": np.ones(4)})
    assert snapshot(opt) == before


def test_bad_arguments() -> None:
    opt = fastopt.SGD([np.ones(2)], lr=0.1)
    with pytest.raises(TypeError, match="opt is"):
        fastopt.SAM([np.ones(2)])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="norm is 3"):
        fastopt.SAM(opt, norm=3)
    for norm in (True, "inf", np.array([1, 2])):
        with pytest.raises(TypeError, match=r"norm is .*: expected 1, 2 or infinity"):
            fastopt.SAM(opt, norm=norm)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="rho is -1"):
        fastopt.SAM(opt, rho=-1)
    with pytest.raises(TypeError, match="adaptive is 1"):
        fastopt.SAM(opt, adaptive=1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="closure is"):
        fastopt.SAM(opt).step([np.ones(2)])  # type: ignore[arg-type]
    sam = fastopt.SAM(opt)
    with pytest.raises(ValueError, match="rho is nan"):
        sam.rho = math.nan
    assert sam.rho == 0.05
    assert "norm=2" in repr(sam)


def test_rho_follows_a_schedule_and_groups_may_be_added() -> None:
    params = [np.zeros(2)]
    opt = fastopt.SGD(params, lr=0.0)
    sam = fastopt.SAM(opt, rho=lambda t: float(t))
    seen = []

    def closure() -> Any:
        seen.append(float(params[0][0]))
        g = np.array([1.0, 0.0])
        return [g] if len(opt.groups) == 1 else [[g], [None]]

    for _ in range(3):
        sam.step(closure)
    opt.add_group({"params": [np.ones(3)]})
    sam.step(closure)
    assert seen == [0, 0, 0, 1, 0, 2, 0, 3]


def test_no_optimizer_of_these_parameters_steps_at_the_perturbed_point() -> None:
    params = {"W": np.ones(4), "b": np.ones(2)}
    g = {"W": np.ones(4), "b": np.ones(2)}
    sam = fastopt.SAM(fastopt.SGD(params, lr=0.1))
    other = fastopt.Adam(params["W"])
    sam.first_step(g)
    with pytest.raises(RuntimeError, match="perturbed point"):
        other.step(g["W"])
    sam.second_step(g)
    assert other.step(g["W"]).applied


def test_parameters_without_elements_are_at_the_perturbed_point_too() -> None:
    opt = fastopt.SGD([np.ones(0)], lr=0.1)
    sam = fastopt.SAM(opt)
    sam.first_step([np.ones(0)])
    with pytest.raises(RuntimeError, match="perturbed point"):
        opt.step([np.ones(0)])
