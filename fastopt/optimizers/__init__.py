"""The optimizers, a module per family, in order of growing complexity."""

from fastopt.optimizers.sgd import SGD
from fastopt.optimizers.adagrad import Adagrad  # isort: skip
from fastopt.optimizers.rmsprop import RMSprop  # isort: skip
from fastopt.optimizers.adam import Adam, AdamW  # isort: skip
from fastopt.optimizers.nadam import NAdam  # isort: skip

__all__ = ["SGD", "Adagrad", "Adam", "AdamW", "NAdam", "RMSprop"]
