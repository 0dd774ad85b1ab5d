"""The optimizers that the demo trains with, a row of its table each."""

from __future__ import annotations

from typing import Any, NamedTuple

import fastopt
from fastopt.app.demo.network import Params


class Row(NamedTuple):
    """An optimizer of the demo: its name in the table, its class and its keywords."""

    name: str
    optimizer: type[fastopt.Optimizer]
    kwargs: dict[str, Any]

    def make(self, params: Params, **more: Any) -> fastopt.Optimizer:
        return self.optimizer(params, **{**self.kwargs, **more})


MOMENTUM = {"lr": 0.02, "momentum": 0.9}

ROWS = {
    row.name.lower().replace(" ", "-"): row
    for row in [
        Row("SGD", fastopt.SGD, {"lr": 0.1}),
        Row("SGD momentum", fastopt.SGD, MOMENTUM),
        Row("SGD Nesterov", fastopt.SGD, {**MOMENTUM, "nesterov": True}),
        Row("SGD velocity", fastopt.SGD, {**MOMENTUM, "momentum_form": "velocity"}),
        Row("SGD ema", fastopt.SGD, {**MOMENTUM, "lr": 0.1, "momentum_form": "ema"}),
        Row("Adagrad", fastopt.Adagrad, {"lr": 0.01}),
        Row("RMSprop", fastopt.RMSprop, {"lr": 3e-4}),
        Row("RMSprop momentum", fastopt.RMSprop, {"lr": 5e-5, "momentum": 0.9}),
        Row("RMSprop centered", fastopt.RMSprop, {"lr": 3e-4, "centered": True}),
        Row("Adam", fastopt.Adam, {"lr": 1e-3}),
        Row("Adam eps-hat", fastopt.Adam, {"lr": 1e-3, "eps_hat": True}),
        Row("AMSGrad", fastopt.Adam, {"lr": 1e-3, "amsgrad": True}),
        Row("AdamW", fastopt.AdamW, {"lr": 1e-3, "weight_decay": 0.1}),
        Row("AdamW averaged", fastopt.AdamW, {"lr": 1e-3, "weight_decay": 0.1, "average": 0.99}),
        Row("NAdam", fastopt.NAdam, {"lr": 1e-3}),
        Row("NAdam schedule", fastopt.NAdam, {"lr": 1e-3, "momentum_decay": 0.004}),
    ]
}
