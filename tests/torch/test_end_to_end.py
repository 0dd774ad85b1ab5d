"""Whole small trainings in one process: losses beside those of the stock optimizer, with and without clipping."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.torch.common import ft, torch

TEXT = "the optimizer that a model is trained with is a part of the model, and the model a part of what it says. " * 8


def digits(seed: int) -> tuple[Any, Iterator[Any]]:
    """A network of two hidden layers on scikit-learn's digits, mini-batches of 32."""
    datasets = pytest.importorskip("sklearn.datasets")
    x, y = datasets.load_digits(return_X_y=True)
    images, classes = torch.tensor(x / 16, dtype=torch.float32), torch.tensor(y)
    torch.manual_seed(seed)
    nn = torch.nn
    model = nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 48), nn.ReLU(), nn.Linear(48, 10))
    rng = np.random.default_rng(seed)

    def batches() -> Iterator[Any]:
        for _ in range(120):
            chosen = rng.integers(0, len(y), 32)
            yield lambda a=images[chosen], b=classes[chosen]: nn.functional.cross_entropy(model(a), b)

    return model, batches()


class Characters(torch.nn.Module):  # type: ignore[misc]
    """A GRU that foretells the next character."""

    def __init__(self, kinds: int) -> None:
        super().__init__()
        self.embed, self.gru = torch.nn.Embedding(kinds, 16), torch.nn.GRU(16, 32, batch_first=True)
        self.head = torch.nn.Linear(32, kinds)

    def forward(self, x: Any) -> Any:
        return self.head(self.gru(self.embed(x))[0])


def characters(seed: int) -> tuple[Any, Iterator[Any]]:
    kinds = sorted(set(TEXT))
    text = torch.tensor([kinds.index(c) for c in TEXT])
    torch.manual_seed(seed)
    model, rng = Characters(len(kinds)), np.random.default_rng(seed)

    def batches() -> Iterator[Any]:
        for _ in range(80):
            rows = torch.stack([text[k : k + 33] for k in rng.integers(0, len(text) - 33, 8)])
            given, next_ones = rows[:, :-1], rows[:, 1:].flatten()
            yield lambda a=given, b=next_ones: torch.nn.functional.cross_entropy(model(a).flatten(0, 1), b)

    return model, batches()


def policy(seed: int) -> tuple[Any, Iterator[Any]]:
    """PPO's clipped objective on 20 recorded batches: a policy net 4-64-64-2 with a value beside it."""
    torch.manual_seed(seed)
    nn = torch.nn
    body = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh())
    model = nn.ModuleDict({"body": body, "actor": nn.Linear(64, 2), "critic": nn.Linear(64, 1)})
    rng = np.random.default_rng(seed)

    def batches() -> Iterator[Any]:
        for _ in range(20):
            states = torch.tensor(rng.standard_normal((64, 4)), dtype=torch.float32)
            actions, returns = torch.tensor(rng.integers(0, 2, 64)), torch.tensor(rng.standard_normal(64)).float()
            old = torch.full((64,), float(np.log(0.5)))

            def loss(states: Any = states, actions: Any = actions, returns: Any = returns, old: Any = old) -> Any:
                hidden = model["body"](states)
                chosen = torch.distributions.Categorical(logits=model["actor"](hidden))
                ratio = (chosen.log_prob(actions) - old).exp()
                advantages = returns - returns.mean()
                gain = torch.minimum(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages).mean()
                value = (model["critic"](hidden).squeeze(1) - returns).pow(2).mean()
                return -gain + 0.5 * value - 0.01 * chosen.entropy().mean()

            yield loss

    return model, batches()


RATES = {"AdamW": 3e-3, "SGD": 0.1}


def run(task: Any, name: str, ours: bool, clip: float | None) -> list[float]:
    model, batches = task(3)
    params = list(model.parameters())
    if ours:
        opt = getattr(ft, name)(params, lr=RATES[name], clip_norm=clip)
    else:
        opt = getattr(torch.optim, name)(params, lr=RATES[name], foreach=False)
    losses = []
    for loss_of in batches:
        opt.zero_grad()
        loss = loss_of()
        loss.backward()
        if clip is not None and not ours:
            torch.nn.utils.clip_grad_norm_(params, clip)
        opt.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize("name", ["AdamW", "SGD"])
@pytest.mark.parametrize("task", [digits, characters, policy])
def test_losses_are_those_of_the_stock_optimizer(task: Any, name: str, clip: float | None) -> None:
    stock, own = (np.array(run(task, name, ours, clip)) for ours in (False, True))
    assert stock[-10:].mean() < stock[:10].mean()
    np.testing.assert_allclose(own, stock, rtol=0, atol=1e-6 * max(1.0, np.abs(stock).max()))
