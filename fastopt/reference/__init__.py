"""Every kernel of csrc/kernels/ once more, in NumPy: same names, same order, same brackets.

Each function updates its arrays in place and equals the compiled kernel bit for bit (any NaN equals
any NaN) when both run under the same flush mode, see :func:`fastopt.subnormals`. Buffers come first,
coefficients after them, in the order of csrc/kernels/registry.h; coefficients are Python floats, which NumPy
casts once to the arrays' type. These functions are for reading and for comparing; they check nothing.
"""

from fastopt.reference.adagrad import adagrad
from fastopt.reference.adam import adam, amsgrad, nadam
from fastopt.reference.reductions import CHUNK, LANES, Array, max_abs, norm, sum_abs, sum_squares
from fastopt.reference.rmsprop import rmsprop, rmsprop_centered, rmsprop_centered_momentum, rmsprop_momentum
from fastopt.reference.sgd import momentum, nesterov, sgd
from fastopt.reference.stages import (
    average,
    clamp,
    decay,
    l1,
    l2,
    mean,
    perturb,
    perturb_adaptive,
    prox_l1,
    scale,
    sign,
)
from fastopt.reference.vectors import axpby, dot

__all__ = [
    "CHUNK", "LANES", "Array",
    "adagrad", "adam", "amsgrad", "average", "axpby", "clamp", "decay", "dot", "l1", "l2", "max_abs", "mean",
    "momentum", "nadam", "nesterov", "norm", "perturb", "perturb_adaptive", "prox_l1", "rmsprop",
    "rmsprop_centered", "rmsprop_centered_momentum", "rmsprop_momentum", "scale", "sgd", "sign", "sum_abs",
    "sum_squares",
]  # fmt: skip
