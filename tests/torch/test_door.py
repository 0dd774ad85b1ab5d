"""How tensors are looked at: by DLPack's table or, without it, by what NumPy shares with them; memory that moves or
goes away in use; and nothing that is held too long."""

from __future__ import annotations

import gc
import importlib
import resource
import subprocess
import sys
import tracemalloc
from typing import Any

import numpy as np
import pytest

from fastopt.core import _core
from tests.torch.common import DROP_INS, LAYOUTS, OWN, bits, ft, parameter, torch
from tests.torch.test_cases import CASES, params_of, started, walk
from tests.torch.test_contract import GRADIENTS, STRANGE, give, gradient, made, refused, step

binding = importlib.import_module("fastopt.torch.binding")
door = importlib.import_module("fastopt.torch.door")

WITHOUT = _core.Source(door.TYPES, binding.to_array, table=False)


def by_numpy(opt: Any) -> Any:
    opt._engine.source = WITHOUT
    opt._engine.plan = None
    return opt


def test_this_pytorch_has_the_table() -> None:
    assert hasattr(torch.Tensor, "__dlpack_c_exchange_api__") == binding.SOURCE.by_table
    assert not WITHOUT.by_table


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("name", "kwargs"), CASES[::3])
def test_without_the_table_the_bits_are_the_same(name: str, kwargs: dict[str, Any], layout: str) -> None:
    opts = [started(getattr(ft, name), kwargs, torch.float32, layout) for _ in range(2)]
    by_numpy(opts[1])
    walk(opts, range(5), layout)
    assert [bits(p) for p in params_of(opts[0])] == [bits(p) for p in params_of(opts[1])]
    for p, q in zip(*map(params_of, opts), strict=True):
        assert {k: bits(x) for k, x in opts[0].state[p].items()} == {k: bits(x) for k, x in opts[1].state[q].items()}


@pytest.mark.parametrize("kind", GRADIENTS)
def test_without_the_table_gradients_of_any_strides(kind: str) -> None:
    for shape in [(), (1,), (3, 4), (0,)]:
        params = [parameter(gradient(shape)) for _ in range(2)]
        opts = [ft.AdamW([params[0]], lr=0.1), by_numpy(ft.AdamW([params[1]], lr=0.1))]
        for opt, p in zip(opts, params, strict=True):
            for t in range(3):
                p.grad = GRADIENTS[kind](gradient(shape, t))
                opt.step()
        assert bits(params[0]) == bits(params[1])


def test_without_the_table_the_same_is_refused() -> None:
    for before in (0, 2):
        for error in (TypeError, ValueError):
            opt = by_numpy(made(ft.AdamW, (5,), (5,)))
            for t in range(before):
                step(opt, t)
            give(opt, before)
            first, second = params_of(opt)
            second.grad = torch._efficientzerotensor((5,)) if error is TypeError else first.detach()
            refused(opt, error, "the gradient of parameter 1 of group 0")
    for make_parameter in STRANGE:
        opt = by_numpy(ft.AdamW([make_parameter()]))
        params_of(opt)[0].grad = torch.ones_like(params_of(opt)[0])
        with pytest.raises(TypeError, match="parameter 0 of group 0 is "):
            opt.step()
    base = torch.ones(200)
    opt = by_numpy(ft.AdamW([torch.nn.Parameter(x) for x in (base[0::2], base[1:101:2], base[51:151:2])]))
    give(opt, 0)
    refused(opt, ValueError, "parameter 1 of group 0 and parameter 2 of group 0 share memory")


def test_a_pytorch_that_has_no_table() -> None:
    """In a process of its own, where the attribute is taken away before fastopt.torch is imported."""
    code = """
import torch
if hasattr(torch.Tensor, "__dlpack_c_exchange_api__"):
    del torch.Tensor.__dlpack_c_exchange_api__
assert not hasattr(torch.Tensor, "__dlpack_c_exchange_api__")
import fastopt.torch as ft
from fastopt.torch import binding
assert not binding.SOURCE.by_table
p = torch.nn.Parameter(torch.ones(3))
p.grad = torch.ones(3)
ft.SGD([p], lr=0.5).step()
print(p.tolist())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stdout == "[0.5, 0.5, 0.5]\n", done.stderr


def test_a_table_of_another_major_version_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    import ctypes

    class Table(ctypes.Structure):
        _fields_ = [("major", ctypes.c_uint32), ("minor", ctypes.c_uint32), ("rest", ctypes.c_void_p * 6)]

    table = Table(major=2)
    new = ctypes.pythonapi.PyCapsule_New
    new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    name = ctypes.c_char_p(b"dlpack_exchange_api")

    class Later:
        __dlpack_c_exchange_api__ = new(ctypes.addressof(table), name, None)

    assert not _core.Source((Later,), binding.to_array).by_table
    table.major = 1
    assert not _core.Source((Later,), binding.to_array).by_table

    class Nothing:
        pass

    assert not _core.Source((Nothing,), binding.to_array).by_table


# Memory that moves


def moves(opt: Any) -> dict[str, Any]:
    p = params_of(opt)[0]
    of_p = opt.state[p]

    def storage_gone(tensor: Any) -> Any:
        return lambda: tensor.untyped_storage().resize_(0)

    def set_smaller(tensor: Any) -> Any:
        def do() -> None:
            with torch.no_grad():
                tensor.set_(torch.ones(2))

        return do

    def set_same_place(tensor: Any) -> Any:
        def do() -> None:
            with torch.no_grad():
                tensor.set_(tensor.untyped_storage(), tensor.storage_offset(), (2, 64), (64, 1))

        return do

    def replaced(key: str, value: Any) -> Any:
        return lambda: of_p.__setitem__(key, value)

    return {
        "parameter's storage gone": storage_gone(p),
        "gradient's storage gone": storage_gone(p.grad),
        "parameter set smaller": set_smaller(p),
        "parameter smaller in place": set_same_place(p),
        "state set smaller": set_smaller(of_p["exp_avg"]),
        "state smaller in place": set_same_place(of_p["exp_avg"]),
        "state replaced by a smaller one": replaced("exp_avg_sq", torch.zeros(2)),
        "state replaced by an expanded one": replaced("exp_avg_sq", torch.zeros(1).expand(2)),
        "state replaced by a sparse one": replaced("exp_avg", torch.zeros(64, 64).to_sparse()),
        "state replaced by None in every place": lambda: of_p.clear(),
        "state resized": lambda: of_p["exp_avg"].resize_(3),
        "step of two elements": replaced("step", torch.ones(2)),
        "step gone": replaced("step", None),
        "step of another storage": lambda: of_p["step"].set_(torch.tensor(5.0)),
        "gradient of another shape in place": lambda: p.grad.set_(torch.ones(2)),
    }


def _begun() -> Any:
    opt = made(ft.AdamW, (64, 64), (5,))
    step(opt, 0)
    return opt


# PyTorch lets nobody resize memory that NumPy has seen.
MOVES = [(name, source) for name in moves(_begun()) for source in ("table", "numpy")]
MOVES.remove(("parameter's storage gone", "numpy"))
BOUND_ANEW = {"state replaced by None in every place", "step gone", "step of another storage"}


@pytest.mark.parametrize(("name", "source"), MOVES)
def test_memory_that_goes_away_is_refused_or_bound_anew(name: str, source: str) -> None:
    opt = _begun()
    if source == "numpy":
        by_numpy(opt)
    step(opt, 1)
    give(opt, 2)
    other = params_of(opt)[1]
    moves(opt)[name]()
    before = bits(other)
    if name in BOUND_ANEW:
        opt.step()
        assert bits(other) != before
        assert bool(torch.isfinite(params_of(opt)[0]).all())
    else:
        with pytest.raises((ValueError, TypeError), match="parameter 0 of group 0"):
            opt.step()
        assert bits(other) == before


def test_old_memory_is_not_written_after_a_move() -> None:
    opt = made(ft.AdamW, (1000,))
    step(opt, 0)
    p = params_of(opt)[0]
    old = p.data
    old_state = opt.state[p]["exp_avg"].data
    p.data = p.data.clone()
    opt.state[p]["exp_avg"].data = old_state.clone()
    before = bits(old), bits(old_state)
    step(opt, 1)
    assert (bits(old), bits(old_state)) == before


# Nothing is held


def held() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.mark.parametrize("name", ["SGD", "AdamW", "NAdam", "Adafactor", "Prodigy", "ASGD"])
def test_ten_thousand_steps_hold_nothing(name: str) -> None:
    opt = made(getattr(ft, name), (6, 5), (7,), clip_norm=1.0)
    give(opt, 0)
    first, second = params_of(opt)
    strided = torch.ones(6, 10)[:, ::2]

    def steps(n: int) -> None:
        for t in range(n):
            if t % 50 == 0:
                opt.param_groups[0]["lr"] = 0.1 / (1 + t)
                first.grad = strided
            opt.step()

    steps(200)
    objects = [first, second, first.grad, second.grad, *(x for s in opt.state.values() for x in s.values())]
    counts = [sys.getrefcount(x) for x in objects]
    gc.collect()
    tracemalloc.start()
    before, resident = tracemalloc.get_traced_memory()[0], held()
    steps(10_000 if name == "AdamW" else 2_000)
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert counts == [sys.getrefcount(x) for x in objects]
    assert grown < 20_000
    assert held() - resident < 20_000


def test_binding_anew_a_thousand_times_holds_nothing() -> None:
    opt = made(ft.Adafactor, (6, 5), (7,))
    step(opt, 0)

    def rebind(n: int) -> None:
        for _ in range(n):
            for p in params_of(opt):
                p.data = p.data.clone()
            opt.step()

    rebind(50)
    resident = held()
    rebind(1000)
    assert held() - resident < 20_000


@pytest.mark.parametrize("name", DROP_INS + OWN)
def test_an_optimizer_goes_with_its_last_name(name: str) -> None:
    import weakref

    opt = made(getattr(ft, name), average=0.9)
    step(opt, 0)
    step(opt, 1)
    watched = [weakref.ref(x) for x in (opt, *params_of(opt))]
    gc.collect()
    gc.disable()
    try:
        del opt
        assert [x() for x in watched] == [None] * len(watched)
    finally:
        gc.enable()


def test_steps_that_are_refused_hold_nothing() -> None:
    opt = made(ft.AdamW, (5,), on_nonfinite="raise")
    p = params_of(opt)[0]
    for bad in (p.detach(), torch.full((5,), float("nan"))):
        p.grad = bad
        for _ in range(3):
            with pytest.raises(ValueError, match="the gradient of parameter 0"):
                opt.step()
        p.grad = None
        assert sys.getrefcount(bad) == 3


def test_numpy_s_view_of_what_numpy_cannot_have() -> None:
    for tensor in (
        torch.ones(3, dtype=torch.bfloat16),
        torch.ones(3, device="meta"),
        torch.ones(3).to_sparse(),
        torch._efficientzerotensor((3,)),
    ):
        assert binding.to_array(tensor).shape == (3,)
        assert not WITHOUT.usable(tensor)
        assert not binding.SOURCE.usable(tensor)
    negated = torch.ones(3, dtype=torch.complex64).mul(1j).conj().imag
    assert np.array_equal(binding.to_array(negated), np.ones(3))
    assert WITHOUT.usable(negated)
