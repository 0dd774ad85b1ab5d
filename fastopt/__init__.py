"""Exact, fused optimizer kernels for NumPy arrays.

    opt = fastopt.AdamW(params, lr=3e-4, weight_decay=0.1, clip_norm=1.0)
    report = opt.step(grads)

updates `params` (arrays, or nested lists and dicts of them) in place.
"""

import sys as _sys

from fastopt import losses, schedules
from fastopt import reference as reference
from fastopt.app.selftest import selftest
from fastopt.around.averaging import EMA, RunningMean
from fastopt.around.lookahead import Lookahead
from fastopt.around.loss_scaler import LossScaler
from fastopt.around.sam import SAM
from fastopt.around.stopping import EarlyStopping
from fastopt.base.nonfinite import NonFiniteError
from fastopt.base.version import __version__ as __version__
from fastopt.core._core import subnormals
from fastopt.core.machine import Info, choose, info, set_num_threads
from fastopt.engine.engine import Report
from fastopt.minimization import LBFGS, LBFGSReport, Minimum, line_search, minimize
from fastopt.optimizers import (
    ASGD,
    LAMB,
    SGD,
    Adadelta,
    Adafactor,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    Lion,
    NAdam,
    PolyakSGD,
    Prodigy,
    RAdam,
    RMSprop,
    Rprop,
)
from fastopt.optimizers.base import Optimizer
from fastopt.training import init
from fastopt.training import scaling_laws as scaling
from fastopt.training.arena import arena
from fastopt.training.batches import batches
from fastopt.training.clipping import clip_grad_adaptive_, clip_grad_norm_, clip_grad_value_, global_norm
from fastopt.training.gradcheck import GradcheckReport, gradcheck

for _name, _module in (
    ("batches", "training.batches"),
    ("gradcheck", "training.gradcheck"),
    ("init", "training.init"),
    ("line_search", "minimization.line_search"),
    ("scaling", "training.scaling_laws"),
):
    _sys.modules[f"{__name__}.{_name}"] = _sys.modules[f"{__name__}.{_module}"]

__all__ = [
    "ASGD",
    "EMA",
    "LAMB",
    "LBFGS",
    "SAM",
    "SGD",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "EarlyStopping",
    "GradcheckReport",
    "Info",
    "LBFGSReport",
    "Lion",
    "Lookahead",
    "LossScaler",
    "Minimum",
    "NAdam",
    "NonFiniteError",
    "Optimizer",
    "PolyakSGD",
    "Prodigy",
    "RAdam",
    "RMSprop",
    "Report",
    "Rprop",
    "RunningMean",
    "arena",
    "batches",
    "clip_grad_adaptive_",
    "clip_grad_norm_",
    "clip_grad_value_",
    "global_norm",
    "gradcheck",
    "info",
    "init",
    "line_search",
    "losses",
    "minimize",
    "scaling",
    "schedules",
    "selftest",
    "set_num_threads",
    "subnormals",
]

choose()
del choose, _sys, _name, _module
