from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from fastopt.core import _core

# The suite tries the same few examples each time; FASTOPT_EXAMPLES=20000 that many, others each time.
settings.register_profile("suite", max_examples=30, derandomize=True, deadline=None)
settings.register_profile(
    "long",
    max_examples=int(os.environ.get("FASTOPT_EXAMPLES") or 1),
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("long" if os.environ.get("FASTOPT_EXAMPLES") else "suite")


@pytest.fixture(params=_core.isas())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every instruction set that this CPU has, in turn."""
    before = _core.active_isa()
    _core.use_isa(request.param)
    yield request.param
    _core.use_isa(before)


@pytest.fixture
def double_by_default() -> Iterator[None]:
    """PyTorch makes tensors of float64, numbers of its optimizers' state among them."""
    torch = pytest.importorskip("torch")
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)
