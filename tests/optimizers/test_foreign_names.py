"""What is called otherwise elsewhere is told its name here, and only a name that the class has."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import fastopt
from fastopt.engine.foreign_names import FOREIGN_ATTRIBUTES, FOREIGN_NAMES

P = np.ones(2)

KEYWORDS: list[tuple[Any, str, str]] = [
    *((fastopt.Adam, name, "called lr here") for name in ("learning_rate", "learn_rate", "learning_rate_init")),
    *((fastopt.SGD, name, "called lr here") for name in ("step_size", "eta", "alpha", "LearningRate")),
    (fastopt.RMSprop, "alpha", "decay of the squared gradient is called rho here"),
    (
        fastopt.RMSprop,
        "decay",
        "squared gradient is called rho here; a decay of the weights is l2=",
    ),
    (fastopt.SGD, "decay", ": a decay of the weights is l2= or decoupled_decay=, one of lr a schedule"),
    (fastopt.Adagrad, "decay", ": that of lr is called lr_decay here"),
    (fastopt.SGD, "beta", "called momentum here"),
    (fastopt.SGD, "beta1", "called momentum here"),
    (fastopt.Adam, "beta1", r"betas=\(beta1, beta2\) here"),
    (fastopt.Adam, "momentum", r"it is betas\[0\] here"),
    (fastopt.Adam, "rho", r"it is betas\[1\] here"),
    (fastopt.Lion, "epsilon", "it takes lr, betas, weight_decay"),
    (fastopt.Adam, "eps_root", "it takes lr, betas"),
    (fastopt.Adam, "ema", "called average here, average=0.99"),
    (fastopt.Adam, "param_groups", "opt.groups here; to a constructor they are passed first"),
    (fastopt.Adam, "zero_grad", "nothing to zero"),
    (fastopt.Adam, "parameters", "the parameters come first"),
    (fastopt.Adam, "clip_nrom", r"did you mean clip_norm\?"),
    (fastopt.Adam, "LR", r"did you mean lr\?"),
]


@pytest.mark.parametrize(("cls", "name", "words"), KEYWORDS, ids=lambda x: str(getattr(x, "__name__", x))[:40])
def test_keywords(cls: Any, name: str, words: str) -> None:
    with pytest.raises(TypeError, match=f"{cls.__name__} has no '{name}'.*{words}"):
        cls([P], **{name: 0.1})
    with pytest.raises(TypeError, match=words):
        cls(**{name: 0.1})


@pytest.mark.parametrize("name", fastopt.optimizers.__all__)
def test_no_class_is_told_an_option_that_it_has_not(name: str) -> None:
    cls = getattr(fastopt, name)
    options = list(cls.__signature__.parameters)
    for word in FOREIGN_NAMES.keys() - options:
        with pytest.raises(TypeError) as refused:
            cls([P], **{word: 0.1})
        named = re.findall(r"called (\w+) here|it is (\w+)\[|(\w+)=", str(refused.value))
        for option in {part for parts in named for part in parts if part}:
            assert option in [*options, "per_tensor"], (word, str(refused.value))


@pytest.mark.parametrize("first", [1e-3, np.float32(0.5), 1])
def test_a_learning_rate_in_the_place_of_the_parameters(first: Any) -> None:
    for cls in (fastopt.Adam, fastopt.SGD):
        with pytest.raises(TypeError, match=rf"{cls.__name__} takes params first, not .*{cls.__name__}\(params, lr="):
            cls(first)
    with pytest.raises(TypeError, match=r"Adam needs params: .*Adam\(params, lr="):
        fastopt.Adam(lr=first)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        *FOREIGN_ATTRIBUTES.items(),
        ("learning_rate", "called lr here"),
        ("nonsense", "'Adam' object has no attribute 'nonsense'"),
    ],
)
def test_attributes(name: str, words: str) -> None:
    opt: Any = fastopt.Adam([P.copy()])
    with pytest.raises(AttributeError, match=re.escape(words)) as refused:
        getattr(opt, name)
    assert refused.value.name == name
    assert not hasattr(opt, name)


def test_groups_have_hints_for_what_groups_have() -> None:
    with pytest.raises(TypeError, match="called lr here"):
        fastopt.Adam([{"params": P, "learning_rate": 0.1}])
    with pytest.raises(TypeError, match="Adam has no 'max_norm': it takes lr, "):
        fastopt.Adam([{"params": P, "max_norm": 0.1}])
