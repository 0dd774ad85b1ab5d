"""The optimizers, a module per family. To read in order: sgd, asgd, adagrad, adadelta, rmsprop, rprop, adam, adamax,
nadam, radam, lion, lamb, adafactor, prodigy, polyaksgd."""

from fastopt.optimizers.adadelta import Adadelta
from fastopt.optimizers.adafactor import Adafactor
from fastopt.optimizers.adagrad import Adagrad
from fastopt.optimizers.adam import Adam, AdamW
from fastopt.optimizers.adamax import Adamax
from fastopt.optimizers.asgd import ASGD
from fastopt.optimizers.lamb import LAMB
from fastopt.optimizers.lion import Lion
from fastopt.optimizers.nadam import NAdam
from fastopt.optimizers.polyaksgd import PolyakSGD
from fastopt.optimizers.prodigy import Prodigy
from fastopt.optimizers.radam import RAdam
from fastopt.optimizers.rmsprop import RMSprop
from fastopt.optimizers.rprop import Rprop
from fastopt.optimizers.sgd import SGD

__all__ = [
    "ASGD",
    "LAMB",
    "SGD",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Lion",
    "NAdam",
    "PolyakSGD",
    "Prodigy",
    "RAdam",
    "RMSprop",
    "Rprop",
]
