"""Every kernel of csrc/kernels/ once more, in NumPy: same names, same order, same brackets.

Each function updates its arrays in place and equals the compiled kernel bit for bit (any NaN equals
any NaN) when both run under the same flush mode, see :func:`fastopt.subnormals`. Buffers come first,
coefficients after them, in the order of csrc/kernels/registry.h; coefficients are Python floats, which NumPy
casts once to the arrays' type. These functions are for reading and for comparing; they check nothing.
"""

from fastopt.reference.adadelta import adadelta
from fastopt.reference.adafactor import (
    adafactor,
    adafactor_factors,
    adafactor_momentum,
    adafactor_scaled,
    adafactor_unfactored,
    adafactor_unfactored_moment,
    adafactor_unfactored_momentum,
)
from fastopt.reference.adagrad import adagrad
from fastopt.reference.adam import adam, adamax, amsgrad, nadam
from fastopt.reference.asgd import asgd
from fastopt.reference.factor import Factor, factor_between, load
from fastopt.reference.lamb import lamb, lamb_moments
from fastopt.reference.lion import sign_momentum
from fastopt.reference.prodigy import prodigy, prodigy_moments
from fastopt.reference.reductions import (
    CHUNK,
    LANES,
    Array,
    add_blocks,
    blocks,
    dot_difference,
    line_sums,
    max_abs,
    norm,
    sum_abs,
    sum_squares,
)
from fastopt.reference.rmsprop import rmsprop, rmsprop_centered, rmsprop_centered_momentum, rmsprop_momentum
from fastopt.reference.rprop import rprop
from fastopt.reference.scalars import adafactor_step, polyak, prodigy_begin, prodigy_estimate, trust
from fastopt.reference.sgd import momentum, nesterov, sgd
from fastopt.reference.stages import (
    average,
    bounds,
    clamp,
    decay,
    l1,
    l2,
    lookahead,
    mean,
    perturb,
    perturb_adaptive,
    prox_l1,
    scale,
    sign,
)
from fastopt.reference.vectors import axpby, dot

__all__ = [
    "CHUNK", "LANES", "Array", "Factor",
    "adadelta", "adafactor", "adafactor_factors", "adafactor_momentum", "adafactor_scaled", "adafactor_step",
    "adafactor_unfactored", "adafactor_unfactored_moment", "adafactor_unfactored_momentum", "adagrad", "adam",
    "adamax", "add_blocks", "amsgrad", "asgd", "average", "axpby", "blocks", "bounds", "clamp", "decay", "dot",
    "dot_difference", "factor_between", "l1", "l2", "lamb", "lamb_moments", "line_sums", "load", "lookahead",
    "max_abs", "mean", "momentum", "nadam", "nesterov", "norm", "perturb", "perturb_adaptive", "polyak", "prodigy",
    "prodigy_begin", "prodigy_estimate", "prodigy_moments", "prox_l1", "rmsprop", "rmsprop_centered",
    "rmsprop_centered_momentum", "rmsprop_momentum", "rprop", "scale", "sgd", "sign", "sign_momentum", "sum_abs",
    "sum_squares", "trust",
]  # fmt: skip
