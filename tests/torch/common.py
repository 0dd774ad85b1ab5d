"""What the tests of fastopt.torch share. Whoever imports it is skipped where PyTorch is not installed."""

from __future__ import annotations

import importlib
import sys
import types
import unittest
from typing import Any

import numpy as np
import pytest

torch: Any = pytest.importorskip("torch", reason="torch is not installed: nothing for fastopt.torch to step")
ft: Any = importlib.import_module("fastopt.torch")
CLASSES: Any = importlib.import_module("fastopt.torch.classes").CLASSES
TORCH: Any = importlib.import_module("fastopt.torch.translation").TORCH

DROP_INS = sorted(set(TORCH) & set(CLASSES))  # Those that this version of PyTorch has.
# Those that need the loss have a test of their own.
OWN = sorted(name for name in set(CLASSES) - set(TORCH) if not CLASSES[name]._translation.rule.needs_loss)


def database() -> dict[str, Any]:
    """The cases that PyTorch tests its own optimizers with, by class. Their module imports expecttest for a base class
    of tests, of which none is made here."""
    if "expecttest" not in sys.modules and importlib.util.find_spec("expecttest") is None:
        stand_in: Any = types.ModuleType("expecttest")
        stand_in.TestCase = unittest.TestCase
        sys.modules["expecttest"] = stand_in
    module = importlib.import_module("torch.testing._internal.common_optimizers")
    known = {info.optim_cls.__name__: info for info in module.optim_db}
    return {name: info for name, info in known.items() if name in CLASSES}


def bits(tensor: Any) -> bytes:
    """The elements of a tensor, in order, as bytes."""
    return np.ascontiguousarray(tensor.detach().cpu().resolve_neg().numpy()).tobytes()


def parameter(values: Any, layout: str = "contiguous") -> Any:
    """A parameter of these values, laid out in one of the ways of LAYOUTS."""
    values = torch.as_tensor(values)
    if layout == "permuted":
        if values.dim() == 4:
            values = values.clone(memory_format=torch.channels_last)
        elif values.dim() > 1:
            values = values.mT.contiguous().mT
        else:
            values = values.clone()
    elif layout == "gaps":
        base = torch.full((*values.shape, 2), 7.0, dtype=values.dtype)
        base[..., 0] = values
        values = base[..., 0]
    else:
        values = values.clone()
    return torch.nn.Parameter(values)


LAYOUTS = ["contiguous", "permuted", "gaps"]
