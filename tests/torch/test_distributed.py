"""Steps in processes that train together: the bits of one process that is given the gradients that they reduced."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
    pytest.skip("this PyTorch has no gloo", allow_module_level=True)

import torch.distributed.checkpoint as dcp  # noqa: E402
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict  # noqa: E402
from torch.nn.parallel import DistributedDataParallel  # noqa: E402

import fastopt.torch as ft  # noqa: E402
from tests.torch.ranks import Failed, Job, together  # noqa: E402

with warnings.catch_warnings():
    # Of torch.jit, which PyTorch's own module uses.
    warnings.simplefilter("ignore")
    from torch.distributed.optim import ZeroRedundancyOptimizer

tensor = pytest.importorskip("torch.distributed.tensor")
fsdp = pytest.importorskip("torch.distributed.fsdp")
if not hasattr(fsdp, "fully_shard"):
    pytest.skip("this PyTorch has no fully_shard", allow_module_level=True)

STEPS = 4
OPTIONS: dict[str, dict[str, Any]] = {
    "AdamW": {"lr": 0.1, "amsgrad": True},
    "SGD": {"lr": 0.1, "momentum": 0.9},
    "NAdam": {"lr": 0.1},
    "ASGD": {"lr": 0.1},
    "Lion": {"lr": 0.1},
}


def network() -> Any:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Tanh(), torch.nn.Linear(7, 3), torch.nn.Linear(3, 1))


def batch(rank: int, step: int) -> Any:
    made = torch.Generator().manual_seed(100 * step + rank)
    return torch.randn(4, 5, generator=made)


def whole(t: Any) -> Any:
    """All of it, as an array of this process's own."""
    t = t.detach()
    return (t.full_tensor() if isinstance(t, tensor.DTensor) else t).clone().numpy()


def train(rank: int, model: Any, opt: Any, params: Any = None, steps: Any = range(STEPS)) -> list[list[Any]]:
    """The gradients of every step, as they were reduced."""
    seen = []
    for step in steps:
        opt.zero_grad()
        model(batch(rank, step)).pow(2).sum().backward()
        seen.append([whole(p.grad) for p in (params or model).parameters()])
        opt.step()
    return seen


def replay(opt: Any, params: list[Any], grads: list[list[Any]]) -> list[bytes]:
    """What one process makes of them."""
    for given in grads:
        for p, g in zip(params, given, strict=True):
            p.grad = torch.from_numpy(g.copy())
        opt.step()
    return [p.detach().numpy().tobytes() for p in params]


def bits(params: Any) -> list[bytes]:
    return [whole(p).tobytes() for p in params]


class Ranks:
    """What processes came to, of all jobs for as many of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._done: dict[int, dict[str, list[Any]]] = {}

    def __call__(self, ranks: int, job: str) -> list[Any]:
        if ranks not in self._done:
            folder = self.folder / str(ranks)
            folder.mkdir()
            self._done[ranks] = together(ranks, folder, jobs(ranks, folder))
        found = self._done[ranks][job]
        for made in found:
            assert not isinstance(made, Failed), made
        return found


@pytest.fixture(scope="module")
def came_to(tmp_path_factory: pytest.TempPathFactory) -> Ranks:
    return Ranks(tmp_path_factory.mktemp("ranks"))


def jobs(ranks: int, folder: Path) -> dict[str, Job]:
    found: dict[str, Job] = {"ddp": (of_ddp, ()), "zero": (of_zero, (False,)), "zero bucket": (of_zero, (True,))}
    if ranks == 2:
        found.update({name: (of_fsdp, (name, {**options, "average": 0.9})) for name, options in OPTIONS.items()})
        found.update({f"clipping {x}": (of_clipping, (x,)) for x in (None, "torch")})
        found["refusals"] = (of_refusals, ())
        found["checkpoints"] = (of_checkpoints, (str(folder / "checkpoint"),))
        found["averages"] = (of_averages, ())
    return found


# Every process has all of every parameter


def of_ddp(rank: int) -> Any:
    inner = network()
    model = DistributedDataParallel(inner)
    opt = ft.AdamW(model.parameters(), lr=0.1, clip_norm=0.5)
    grads = train(rank, model, opt, inner)
    return grads, bits(inner.parameters())


@pytest.mark.parametrize("ranks", [2, 3])
def test_ddp(ranks: int, came_to: Ranks) -> None:
    found = came_to(ranks, "ddp")
    params = list(network().parameters())
    expected = replay(ft.AdamW(params, lr=0.1, clip_norm=0.5), params, found[0][0])
    for _, after in found:
        assert after == expected


def of_zero(rank: int, overlap: bool) -> Any:
    inner = network()
    model = DistributedDataParallel(inner)
    opt = ZeroRedundancyOptimizer(
        inner.parameters(), optimizer_class=ft.AdamW, parameters_as_bucket_view=overlap, lr=0.1, weight_decay=0.3
    )
    grads = train(rank, model, opt, inner)
    opt.consolidate_state_dict(to=0)
    saved = opt.state_dict() if rank == 0 else None
    return grads, bits(inner.parameters()), saved


@pytest.mark.parametrize("ranks", [2, 3])
@pytest.mark.parametrize("bucket", [False, True])
def test_zero_redundancy_optimizer(ranks: int, bucket: bool, came_to: Ranks) -> None:
    found = came_to(ranks, "zero bucket" if bucket else "zero")
    params = list(network().parameters())
    opt = ft.AdamW(params, lr=0.1, weight_decay=0.3)
    expected = replay(opt, params, found[0][0])
    for _, after, _ in found:
        assert after == expected
    fresh = ft.AdamW(params, lr=0.1, weight_decay=0.3)
    fresh.load_state_dict(found[0][2])
    for p in params:
        assert torch.equal(fresh.state[p]["exp_avg"], opt.state[p]["exp_avg"])


# Every process has a part of every parameter


def sharded() -> Any:
    model = network()
    for layer in (model[0], model[2]):
        fsdp.fully_shard(layer)
    fsdp.fully_shard(model)
    return model


def of_fsdp(rank: int, name: str, options: dict[str, Any]) -> Any:
    model = sharded()
    opt = getattr(ft, name)(model.parameters(), **options)
    grads = train(rank, model, opt)
    state = {}
    for i, p in enumerate(model.parameters()):
        state[i] = {key: (isinstance(x, tensor.DTensor), whole(x)) for key, x in opt.state[p].items()}
    before = opt._engine.plan
    train(rank, model, opt, steps=range(STEPS, STEPS + 2))
    return grads, state, opt._engine.plan is not before


@pytest.mark.parametrize("name", OPTIONS)
def test_fsdp(name: str, came_to: Ranks) -> None:
    options = {**OPTIONS[name], "average": 0.9}
    found = came_to(2, name)
    params = list(network().parameters())
    opt = getattr(ft, name)(params, **options)
    replay(opt, params, found[0][0])
    for _, state, rebound in found:
        assert not rebound
        for i, p in enumerate(params):
            assert state[i].keys() == opt.state[p].keys()
            for key, x in opt.state[p].items():
                parted, after = state[i][key]
                assert parted == (key not in ("step", "mu_product", "eta", "mu"))
                assert after.tobytes() == x.numpy().tobytes(), (name, i, key)


def of_clipping(rank: int, fallback: str | None) -> Any:
    model = sharded()
    opt = ft.AdamW(model.parameters(), lr=0.1, fallback=fallback)
    grads = []
    versions = []
    for step in range(STEPS):
        opt.zero_grad()
        model(batch(rank, step)).pow(2).sum().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        grads.append([whole(p.grad) for p in model.parameters()])
        before = [p._version for p in model.parameters()]
        opt.step()
        versions += [p._version - v for p, v in zip(model.parameters(), before, strict=True)]
    return grads, bits(model.parameters()), versions


@pytest.mark.parametrize("fallback", [None, "torch"])
def test_fsdp_with_clipping_before_the_step(fallback: str | None, came_to: Ranks) -> None:
    found = came_to(2, f"clipping {fallback}")
    params = list(network().parameters())
    expected = replay(ft.AdamW(params, lr=0.1), params, found[0][0])
    for _, after, versions in found:
        assert after == expected
        assert set(versions) == {1}


def of_refusals(rank: int) -> Any:
    model = sharded()
    model(batch(rank, 0)).pow(2).sum().backward()
    before, said = bits(model.parameters()), []
    for name, options in [
        ("LAMB", {}),
        ("Adafactor", {}),
        ("Prodigy", {}),
        ("AdamW", {"clip_norm": 1.0}),
        ("AdamW", {"on_nonfinite": "skip"}),
    ]:
        try:
            getattr(ft, name)(model.parameters(), **options).step()
        except (TypeError, ValueError) as error:
            said.append(str(error))
    sam = ft.SAM(ft.AdamW(model.parameters()))
    for function in (lambda: ft.clip_grad_norm_(model.parameters(), 1.0), sam.first_step):
        try:
            function()
        except TypeError as error:
            said.append(str(error))
    return said, before == bits(model.parameters())


def test_what_needs_more_than_a_part_is_refused(came_to: Ranks) -> None:
    for said, untouched in came_to(2, "refusals"):
        assert untouched
        assert len(said) == 7
        for message in said[:3]:
            assert "needs norms or sums over all of a tensor" in message
        assert "clip_grad_norm_(model.parameters(), max_norm)" in said[3]
        assert "on_nonfinite" in said[4]
        assert "torch.nn.utils.clip_grad_norm_" in said[5]
        assert "DTensor" in said[6]


def of_checkpoints(rank: int, folder: str) -> Any:
    model = sharded()
    opt = ft.AdamW(model.parameters(), lr=0.1)
    train(rank, model, opt, steps=range(2))
    of_model, of_opt = get_state_dict(model, opt)
    dcp.save({"model": of_model, "opt": of_opt}, checkpoint_id=folder)
    train(rank, model, opt, steps=range(2, 5))
    expected = bits(model.parameters())
    resumed = []
    for make in (ft.AdamW, torch.optim.AdamW):
        again = sharded()
        with torch.no_grad():
            for p in again.parameters():
                p.zero_()
        other = make(again.parameters(), lr=0.1)
        of_model, of_opt = get_state_dict(again, other)
        saved = {"model": of_model, "opt": of_opt}
        dcp.load(saved, checkpoint_id=folder)
        set_state_dict(again, other, model_state_dict=saved["model"], optim_state_dict=saved["opt"])
        train(rank, again, other, steps=range(2, 5))
        resumed.append([whole(p) for p in again.parameters()])
    return expected, resumed


def test_distributed_checkpoints(came_to: Ranks) -> None:
    for expected, (ours, theirs) in came_to(2, "checkpoints"):
        assert [p.tobytes() for p in ours] == expected
        for p, q in zip(ours, theirs, strict=True):
            torch.testing.assert_close(torch.from_numpy(p), torch.from_numpy(q), rtol=1e-5, atol=1e-6)


def of_averages(rank: int) -> Any:
    model = sharded()
    opt, ema = ft.AdamW(model.parameters(), lr=0.1), ft.EMA(model, 0.5)
    values = []
    for step in range(3):
        train(rank, model, opt, steps=[step])
        ema.update()
        values.append([whole(p) for p in model.parameters()])
    averages = [whole(a) for a in ema.averages.values()]
    with ema.averaged():
        inside = bits(model.parameters())
    return values, averages, inside, bits(model.parameters())


def test_averages_of_parts(came_to: Ranks) -> None:
    for values, averages, inside, after in came_to(2, "averages"):
        tensors = [torch.nn.Parameter(torch.from_numpy(p.copy())) for p in values[0]]
        ema = ft.EMA(tensors, 0.5)
        for given in values:
            for p, x in zip(tensors, given, strict=True):
                p.data.copy_(torch.from_numpy(x))
            ema.update()
        assert [a.tobytes() for a in averages] == [a.numpy().tobytes() for a in ema.averages.values()] == inside
        assert after == [p.tobytes() for p in values[-1]]
