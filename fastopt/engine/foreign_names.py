"""Names that other libraries have for what is called otherwise here, because their users try these first."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

Hint = tuple[str, str]
"""An option, and what to say where the class has it; "" stands for every class."""


def _called(*names: str) -> tuple[Hint, ...]:
    return tuple((name, f"called {name} here") for name in names)


def _always(text: str) -> tuple[Hint, ...]:
    return (("", text),)


BETAS = ("betas", "betas=(beta1, beta2) here")
DECAYS = "a decay of the weights is l2= or decoupled_decay=, one of lr a schedule, lr=fastopt.schedules..."

FOREIGN_NAMES: dict[str, tuple[Hint, ...]] = {
    **dict.fromkeys(
        ("learning_rate", "learning_rate_init", "learn_rate", "step_size", "stepsize", "eta", "eta0"), _called("lr")
    ),
    "alpha": (
        ("rho", "the decay of the squared gradient is called rho here"),
        ("lr", "the learning rate is called lr here, and a penalty l2"),
    ),
    "decay": (
        ("rho", f"the decay of the squared gradient is called rho here; {DECAYS}"),
        ("lr_decay", "that of lr is called lr_decay here; a decay of the weights is l2= or decoupled_decay="),
        ("", DECAYS),
    ),
    **dict.fromkeys(("beta1", "beta_1", "b1"), (BETAS, *_called("momentum"))),
    **dict.fromkeys(("beta2", "beta_2", "b2"), (BETAS, *_called("rho"))),
    **dict.fromkeys(("beta", "betas"), (BETAS, *_called("momentum"))),
    "momentum": (("betas", "it is betas[0] here"),),
    "rho": (("betas", "it is betas[1] here"),),
    "epsilon": _called("eps"),
    "eps_root": (("eps_inside_sqrt", "called eps_inside_sqrt=True with eps here"),),
    "initial_accumulator_value": _called("initial_accumulator"),
    "clipnorm": (
        ("clip_norm", "clip_norm here is over all parameters; for each alone: clip_grad_norm_(..., per_tensor=True)"),
    ),
    **dict.fromkeys(("global_clipnorm", "max_grad_norm", "max_norm"), _called("clip_norm")),
    "clipvalue": _called("clip_value"),
    **dict.fromkeys(
        ("ema", "use_ema", "ema_momentum", "ema_decay"), (("average", "called average here, average=0.99"),)
    ),
    **dict.fromkeys(("foreach", "fused"), _always("there is one implementation here, always fused")),
    "capturable": _always("there is one implementation here, for the CPU"),
    "differentiable": _always("an update is not differentiable here"),
    "l1_penalty": _called("l1"),
    "l2_penalty": _called("l2"),
    "decoupled_weight_decay": _called("decoupled_decay"),
    **dict.fromkeys(("num_threads", "n_jobs"), _called("threads")),
    "nesterovs_momentum": _called("nesterov"),
    "parameters": _always("the parameters come first, without a name"),
    "var_list": _always("the parameters come first, without a name"),
}

FOREIGN_ATTRIBUTES = {
    "param_groups": "they are opt.groups here; to a constructor they are passed first, without a name",
    "params": "they are opt.groups[0]['params'] here",
    **dict.fromkeys(("zero_grad", "zero_grads"), "gradients are passed to step(grads): there is nothing to zero"),
    "lookahead": "it is called nesterov_point() now: with opt.nesterov_point(): ...; Zhang's is fastopt.Lookahead(opt)",
    **dict.fromkeys(("apply_gradients", "apply", "update"), "called step here: opt.step(grads)"),
    "minimize": "a function is minimized by fastopt.minimize(fun_and_grad, x0, method)",
    "iterations": "called t here",
    **dict.fromkeys(("get_lr", "get_last_lr"), "the numbers in force are opt.current() here"),
}

TWO_DECAYS = (
    "weight_decay means two things in the field: use l2= (added to the gradient, as PyTorch's weight_decay does in "
    "SGD, Adagrad, RMSprop, Adam, NAdam) or decoupled_decay= (taken from the parameter itself, as in AdamW and Keras)"
)


def unknown_keyword(cls: type, name: str, accepted: Iterable[str]) -> TypeError:
    accepted = tuple(accepted)
    hint = TWO_DECAYS if name == "weight_decay" else _hint(name, accepted)
    if not hint and isinstance(name, str):
        near = get_close_matches(name.lower(), [*accepted, *FOREIGN_NAMES], 1, 0.8)
        hint = f"did you mean {near[0]}?" if near and near[0] in accepted else _hint(near[0], accepted) if near else ""
    return TypeError(f"{cls.__name__} has no {name!r}: {hint or 'it takes ' + ', '.join(accepted)}")


def unknown_attribute(opt: object, name: str, options: Iterable[str]) -> AttributeError:
    hint = _hint(name, tuple(options))
    said = f"{type(opt).__name__!r} object has no attribute {name!r}" + (f": {hint}" if hint else "")
    return AttributeError(said, name=name, obj=opt)


def _hint(name: str, accepted: tuple[str, ...]) -> str:
    if name in FOREIGN_ATTRIBUTES:
        return FOREIGN_ATTRIBUTES[name]
    return next((text for needed, text in FOREIGN_NAMES.get(name, ()) if needed in ("", *accepted)), "")
