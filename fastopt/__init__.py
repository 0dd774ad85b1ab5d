"""Exact, fused optimizer kernels for NumPy arrays.

    opt = fastopt.AdamW(params, lr=3e-4, weight_decay=0.1, clip_norm=1.0)
    report = opt.step(grads)

updates `params` (arrays, or nested lists and dicts of them) in place.
"""

from fastopt import init, line_search, losses, scaling, schedules
from fastopt._core import subnormals
from fastopt.arena import arena
from fastopt.averaging import EMA, RunningMean
from fastopt.batches import batches
from fastopt.clipping import clip_grad_adaptive_, clip_grad_norm_, clip_grad_value_, global_norm
from fastopt.gradcheck import GradcheckReport, gradcheck
from fastopt.loss_scaler import LossScaler
from fastopt.minimization import LBFGS, LBFGSReport, Minimum, minimize
from fastopt.nonfinite import NonFiniteError
from fastopt.optimizer import Optimizer, Report
from fastopt.optimizers import SGD, Adagrad, Adam, AdamW, NAdam, RMSprop
from fastopt.runtime import Info, choose, info, set_num_threads
from fastopt.sam import SAM
from fastopt.selftest import selftest
from fastopt.stopping import EarlyStopping

__version__ = "0.1.0"

__all__ = [
    "EMA",
    "LBFGS",
    "SAM",
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "EarlyStopping",
    "GradcheckReport",
    "Info",
    "LBFGSReport",
    "LossScaler",
    "Minimum",
    "NAdam",
    "NonFiniteError",
    "Optimizer",
    "RMSprop",
    "Report",
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
del choose
