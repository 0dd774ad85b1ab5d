"""The optimizers, a module per family. To read in order: sgd, adagrad, rmsprop, adam, nadam."""

from fastopt.optimizers.adagrad import Adagrad
from fastopt.optimizers.adam import Adam, AdamW
from fastopt.optimizers.nadam import NAdam
from fastopt.optimizers.rmsprop import RMSprop
from fastopt.optimizers.sgd import SGD

__all__ = ["SGD", "Adagrad", "Adam", "AdamW", "NAdam", "RMSprop"]
