"""The optimizers that the demo trains with, a row of its table each."""

from __future__ import annotations

from typing import Any, NamedTuple

import fastopt
from fastopt.app.demo.network import Params


class Row(NamedTuple):
    """An optimizer of the demo: its name in the table, its class, its keywords, the panel of the picture, and in how
    many epochs at most it is compared with NumPy, which takes a hundred times as long where there are sums to take."""

    name: str
    optimizer: type[fastopt.Optimizer]
    kwargs: dict[str, Any]
    family: str
    compared: int = 1_000_000

    def make(self, params: Params, **more: Any) -> fastopt.Optimizer:
        return self.optimizer(params, **{**self.kwargs, **more})


FEW = 2
MOMENTUM = {"lr": 0.02, "momentum": 0.9}
DECAYING = {"lr": 1e-3, "weight_decay": 0.1}
DESCENT, ADAGRAD, RMSPROP = "Gradient descent", "Adagrad, Adadelta, Adafactor, ASGD", "RMSprop and Rprop"
ADAM, DECAY, OTHERS = "Adam", "AdamW and LAMB", "Lion, Prodigy, PolyakSGD, RAdam, Adamax"

ROWS = {
    row.name.lower().replace(" ", "-"): row
    for row in [
        Row("SGD", fastopt.SGD, {"lr": 0.1}, DESCENT),
        Row("SGD momentum", fastopt.SGD, MOMENTUM, DESCENT),
        Row("SGD Nesterov", fastopt.SGD, {**MOMENTUM, "nesterov": True}, DESCENT),
        Row("SGD velocity", fastopt.SGD, {**MOMENTUM, "momentum_form": "velocity"}, DESCENT),
        Row("SGD ema", fastopt.SGD, {**MOMENTUM, "lr": 0.1, "momentum_form": "ema"}, DESCENT),
        Row("Adagrad", fastopt.Adagrad, {"lr": 0.01}, ADAGRAD),
        Row("Adadelta", fastopt.Adadelta, {}, ADAGRAD),
        Row("Adafactor", fastopt.Adafactor, {"lr": 0.01}, ADAGRAD, FEW),
        Row("ASGD", fastopt.ASGD, {"lr": 0.1}, ADAGRAD),
        Row("RMSprop", fastopt.RMSprop, {"lr": 3e-4}, RMSPROP),
        Row("RMSprop momentum", fastopt.RMSprop, {"lr": 5e-5, "momentum": 0.9}, RMSPROP),
        Row("RMSprop centered", fastopt.RMSprop, {"lr": 3e-4, "centered": True}, RMSPROP),
        Row("Rprop", fastopt.Rprop, {"lr": 1e-4}, RMSPROP),
        Row("Adam", fastopt.Adam, {"lr": 1e-3}, ADAM),
        Row("Adam eps-hat", fastopt.Adam, {"lr": 1e-3, "eps_hat": True}, ADAM),
        Row("AMSGrad", fastopt.Adam, {"lr": 1e-3, "amsgrad": True}, ADAM),
        Row("NAdam", fastopt.NAdam, {"lr": 1e-3}, ADAM),
        Row("NAdam schedule", fastopt.NAdam, {"lr": 1e-3, "momentum_decay": 0.004}, ADAM),
        Row("AdamW", fastopt.AdamW, DECAYING, DECAY),
        Row("AdamW averaged", fastopt.AdamW, {**DECAYING, "average": 0.99}, DECAY),
        Row("LAMB", fastopt.LAMB, {"lr": 2e-3, "weight_decay": 0.01}, DECAY, FEW),
        Row("Lion", fastopt.Lion, {"lr": 1e-4, "weight_decay": 0.1}, OTHERS),
        Row("Prodigy", fastopt.Prodigy, {}, OTHERS, FEW),
        Row("PolyakSGD", fastopt.PolyakSGD, {}, OTHERS, FEW),
        Row("RAdam", fastopt.RAdam, {"lr": 1e-3}, OTHERS),
        Row("Adamax", fastopt.Adamax, {"lr": 2e-3}, OTHERS),
    ]
}
