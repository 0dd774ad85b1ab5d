"""Frameworks that take an optimizer of PyTorch: with fastopt's in its place they come to the same losses."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import fastopt.torch as ft  # noqa: E402

# Frameworks warn of themselves and of what they import.
pytestmark = pytest.mark.filterwarnings("ignore")
CLOSE = {"rtol": 1e-6, "atol": 1e-6}


def framework(name: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name)


def network() -> Any:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(5, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))


def data(n: int = 32) -> Any:
    made = torch.Generator().manual_seed(1)
    x = torch.randn(n, 5, generator=made)
    return torch.utils.data.TensorDataset(x, x.pow(2).sum(1, keepdim=True))


def close(ours: list[float], theirs: list[float]) -> None:
    assert len(ours) == len(theirs) > 0
    torch.testing.assert_close(torch.tensor(ours), torch.tensor(theirs), **CLOSE)


# Lightning


def lightning_module(lightning: Any, make: Callable[..., Any], options: dict[str, Any], scheduled: bool) -> Any:
    class Module(lightning.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model, self.losses = network(), []

        def training_step(self, batch: Any, index: int) -> Any:
            loss = (self.model(batch[0]) - batch[1]).pow(2).mean()
            self.losses.append(loss.item())
            return loss

        def configure_optimizers(self) -> Any:
            opt = make(self.parameters(), lr=0.05, **options)
            if not scheduled:
                return opt
            return [opt], [torch.optim.lr_scheduler.StepLR(opt, 1, gamma=0.5)]

    return Module()


def lightning_losses(make: Any, folder: Path, epochs: int = 3, resume: Any = None, **choices: Any) -> list[float]:
    lightning = framework("lightning")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    module = lightning_module(lightning, make, choices.get("options", {}), choices.get("scheduled", False))
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        gradient_clip_val=choices.get("clip"),
        accumulate_grad_batches=choices.get("accumulate", 1),
        precision=choices.get("precision", "32-true"),
        default_root_dir=folder,
    )
    trainer.fit(module, torch.utils.data.DataLoader(data(), batch_size=8), ckpt_path=resume)
    trainer.save_checkpoint(folder / "last.ckpt")
    return list(module.losses)


@pytest.mark.parametrize(
    "choices",
    [
        {},
        {"clip": 0.1},
        {"scheduled": True},
        {"clip": 0.1, "scheduled": True, "accumulate": 2},
        {"precision": "bf16-mixed"},
    ],
)
def test_lightning(choices: dict[str, Any], tmp_path: Path) -> None:
    ours = lightning_losses(ft.AdamW, tmp_path, **choices)
    close(ours, lightning_losses(torch.optim.AdamW, tmp_path, **choices))


def test_lightning_clips_in_the_step(tmp_path: Path) -> None:
    ours = lightning_losses(ft.AdamW, tmp_path, options={"clip_norm": 0.1})
    close(ours, lightning_losses(torch.optim.AdamW, tmp_path, clip=0.1))


@pytest.mark.parametrize(
    ("first", "then"), [(ft.AdamW, ft.AdamW), (torch.optim.AdamW, ft.AdamW), (ft.AdamW, torch.optim.AdamW)]
)
def test_lightning_resumes(first: Any, then: Any, tmp_path: Path) -> None:
    whole = lightning_losses(torch.optim.AdamW, tmp_path, epochs=4, scheduled=True)
    begun = lightning_losses(first, tmp_path, epochs=2, scheduled=True)
    rest = lightning_losses(then, tmp_path, epochs=4, scheduled=True, resume=tmp_path / "last.ckpt")
    close(begun + rest, whole)


# Transformers


def trainer_losses(folder: Path, steps: int = 6, resume: bool = False, **choices: Any) -> list[float]:
    transformers = framework("transformers")
    framework("accelerate")
    transformers.utils.logging.set_verbosity_error()
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=17, n_positions=16, n_embd=16, n_layer=2, n_head=2, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0
    )
    model = transformers.GPT2LMHeadModel(config)
    made = torch.Generator().manual_seed(1)
    ids = torch.randint(0, 17, (48, 12), generator=made)
    examples = [{"input_ids": x, "labels": x} for x in ids]
    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        learning_rate=1e-3,
        lr_scheduler_type="linear",
        weight_decay=0.1,
        max_grad_norm=0.5,
        logging_steps=1,
        save_steps=3,
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        seed=0,
    )
    given: dict[str, Any] = {}
    if "opt" in choices:
        given["optimizers"] = (choices["opt"](model.parameters(), lr=1e-3), None)
    else:
        given["optimizer_cls_and_kwargs"] = (choices["cls"], {"lr": 1e-3})
    trainer = transformers.Trainer(model=model, args=arguments, train_dataset=examples, **given)
    trainer.train(resume_from_checkpoint=resume or None)
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize("how", ["opt", "cls"])
def test_trainer(how: str, tmp_path: Path) -> None:
    ours = trainer_losses(tmp_path / "ours", **{how: ft.AdamW})
    close(ours, trainer_losses(tmp_path / "theirs", **{how: torch.optim.AdamW}))


def test_trainer_resumes(tmp_path: Path) -> None:
    whole = trainer_losses(tmp_path / "whole", steps=6, cls=torch.optim.AdamW)
    trainer_losses(tmp_path / "parts", steps=6, cls=ft.AdamW)
    (tmp_path / "parts" / "checkpoint-6").rename(tmp_path / "done")
    close(trainer_losses(tmp_path / "parts", steps=6, resume=True, cls=ft.AdamW), whole)


# Accelerate


def accelerate_losses(make: Any, clip: Any = None) -> list[float]:
    accelerate = framework("accelerate")
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
    model = network()
    opt = make(model.parameters(), lr=0.05)
    scheduler = torch.optim.lr_scheduler.StepLR(opt, 2, gamma=0.5)
    loader = torch.utils.data.DataLoader(data(), batch_size=8)
    model, opt, loader, scheduler = accelerator.prepare(model, opt, loader, scheduler)
    losses = []
    for _ in range(3):
        for x, y in loader:
            with accelerator.accumulate(model):
                loss = (model(x) - y).pow(2).mean()
                losses.append(loss.item())
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    (clip or accelerator.clip_grad_norm_)(model.parameters(), 0.1)
                opt.step()
                scheduler.step()
                opt.zero_grad()
    return losses


def test_accelerate() -> None:
    theirs = accelerate_losses(torch.optim.AdamW)
    close(accelerate_losses(ft.AdamW), theirs)
    close(accelerate_losses(ft.AdamW, ft.clip_grad_norm_), theirs)


# Stable-Baselines3


def trained_policy(cls: Any, algorithm: str) -> list[float]:
    baselines = framework("stable_baselines3")
    framework("gymnasium")
    policy: dict[str, Any] = {"optimizer_class": cls}
    arguments: dict[str, Any] = {"seed": 0, "device": "cpu", "policy_kwargs": policy}
    if algorithm == "PPO":
        # Which it passes by itself only to torch.optim.Adam, no subclass of it.
        policy["optimizer_kwargs"] = {"eps": 1e-5}
        arguments.update(n_steps=64, batch_size=32, n_epochs=2)
        model = baselines.PPO("MlpPolicy", "CartPole-v1", **arguments)
    else:
        arguments.update(learning_starts=32, buffer_size=500, train_freq=4, batch_size=16)
        model = baselines.DQN("MlpPolicy", "CartPole-v1", **arguments)
    model.learn(192)
    assert isinstance(model.policy.optimizer, cls)
    return [x for p in model.policy.parameters() for x in p.detach().flatten().tolist()]


@pytest.mark.parametrize("algorithm", ["PPO", "DQN"])
def test_stable_baselines(algorithm: str) -> None:
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        close(trained_policy(ft.Adam, algorithm), trained_policy(torch.optim.Adam, algorithm))
    finally:
        torch.set_num_threads(threads)
