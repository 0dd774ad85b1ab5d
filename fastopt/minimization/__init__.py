"""Minimization of one function: `minimize` for a function of an array, `LBFGS` for parameters in place."""

from fastopt.minimization.lbfgs import LBFGS, LBFGSReport
from fastopt.minimization.minimize import minimize
from fastopt.minimization.result import Minimum

__all__ = ["LBFGS", "LBFGSReport", "Minimum", "minimize"]
