"""The optimizers, a module per family. To read in order: sgd, adagrad, rmsprop, adam, nadam, lion, lamb, adafactor,
prodigy."""

from fastopt.optimizers.adafactor import Adafactor
from fastopt.optimizers.adagrad import Adagrad
from fastopt.optimizers.adam import Adam, AdamW
from fastopt.optimizers.lamb import LAMB
from fastopt.optimizers.lion import Lion
from fastopt.optimizers.nadam import NAdam
from fastopt.optimizers.prodigy import Prodigy
from fastopt.optimizers.rmsprop import RMSprop
from fastopt.optimizers.sgd import SGD

__all__ = ["LAMB", "SGD", "Adafactor", "Adagrad", "Adam", "AdamW", "Lion", "NAdam", "Prodigy", "RMSprop"]
