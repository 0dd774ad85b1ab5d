"""Names that other libraries have for what is called otherwise here, because their users try these first."""

from __future__ import annotations

from collections.abc import Iterable

FOREIGN_NAMES = {
    "learning_rate": "called lr here",
    "eta": "called lr here",
    "alpha": "called rho here (in RMSprop, the decay of the squared gradient)",
    "decay": "the decay of the squared gradient is called rho here; decay of the weights is l2= or decoupled_decay=",
    "beta1": "betas=(beta1, beta2) here",
    "beta2": "betas=(beta1, beta2) here",
    "beta_1": "betas=(beta1, beta2) here",
    "beta_2": "betas=(beta1, beta2) here",
    "b1": "betas=(beta1, beta2) here",
    "b2": "betas=(beta1, beta2) here",
    "epsilon": "called eps here",
    "eps_root": "called eps_inside_sqrt=True with eps here",
    "initial_accumulator_value": "called initial_accumulator here",
    "clipnorm": "clip_norm here is over all parameters together; for each alone: clip_grad_norm_(..., per_tensor=True)",
    "global_clipnorm": "called clip_norm here",
    "max_grad_norm": "called clip_norm here",
    "max_norm": "called clip_norm here",
    "clipvalue": "called clip_value here",
    "use_ema": "called average here: average=0.99",
    "ema_momentum": "called average here",
    "foreach": "there is one implementation here, always fused",
    "fused": "there is one implementation here, always fused",
    "capturable": "there is one implementation here, for the CPU",
    "differentiable": "an update is not differentiable here",
    "l1_penalty": "called l1 here",
    "l2_penalty": "called l2 here",
    "decoupled_weight_decay": "use AdamW, or decoupled_decay= on any other class",
    "num_threads": "called threads here",
    "n_jobs": "called threads here",
    "nesterovs_momentum": "called nesterov here, with momentum=",
}

TWO_DECAYS = (
    "weight_decay means two things in the field: use l2= (added to the gradient, as PyTorch's weight_decay does in "
    "SGD, Adagrad, RMSprop, Adam, NAdam) or decoupled_decay= (taken from the parameter itself, as in AdamW and Keras)"
)


def unknown_keyword(cls: type, name: str, accepted: Iterable[str]) -> TypeError:
    hint = FOREIGN_NAMES.get(name)
    if name == "weight_decay":
        hint = TWO_DECAYS
    elif hint is None:
        hint = "it takes " + ", ".join(accepted)
    return TypeError(f"{cls.__name__} has no {name!r}: {hint}")
