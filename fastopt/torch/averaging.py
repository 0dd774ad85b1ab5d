"""Averages of a model's parameters, kept outside the optimizer, and their way into the model and back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch

from fastopt.base.arguments import boolean, from_0_below_1, shown, whole
from fastopt.base.fitting import is_count
from fastopt.engine.hyperparameters import Own, show
from fastopt.schedules.averaging import ema_decay
from fastopt.schedules.base import Scalar
from fastopt.torch import displaced, door, parts, state, walks

WHY = "the averages are in the parameters: step after the with block of averaged()"


class EMA:
    """The exponential moving average of a model's parameters: a = decay a + (1 - decay) p at every `update()`.

    params : a torch.nn.Module, or an iterable of tensors or of (name, tensor). Of a module the parameters of now are
        averaged, and its buffers are copied at every update, not averaged, as PyTorch's AveragedModel does.
    decay : in [0, 1): a number, or a schedule, a callable of how many updates have averaged so far. Default 0.999.
    debias, warmup, start : as of fastopt.EMA.
    threads : at most this many; None for `fastopt.info().threads`.

    The first update copies the parameters, as that of AveragedModel. `averages` are then live tensors by name, with the
    bits of fastopt.EMA that keeps subnormals. Raises TypeError for parameters that are not dense float32 or float64 on
    the CPU; of a DTensor its part in this process is averaged, into a DTensor.

        ema = fastopt.torch.EMA(model, 0.999)
        for ...:
            opt.step()
            ema.update()
        with ema.averaged():
            evaluate(model)
    """

    decay = Own(from_0_below_1)

    def __init__(
        self,
        params: torch.nn.Module | Iterable[Any],
        decay: Scalar = 0.999,
        *,
        debias: bool = False,
        warmup: bool = False,
        start: int = 0,
        threads: int | None = None,
    ) -> None:
        self.decay = decay
        self.debias, self.warmup = boolean("debias", debias), boolean("warmup", warmup)
        self.start = whole("start", start, 0)
        self.threads = None if threads is None else whole("threads", threads)
        self._schedule()
        self._module = params if isinstance(params, torch.nn.Module) else None
        self._params = _named(params)
        self.count = 0
        self._averages = {name: _copy(p) for name, p in self._params.items()}
        self._buffers = {name: b.detach().clone() for name, b in self._now()}

    def _now(self) -> list[tuple[str, torch.Tensor]]:
        """The module's buffers, which it may have replaced."""
        return [] if self._module is None else list(self._module.named_buffers())

    @property
    def averages(self) -> dict[str, torch.Tensor]:
        """The averages by name, live: copies of the parameters at first."""
        return dict(self._averages)

    def update(self) -> None:
        """Takes the parameters as they are into the averages, and copies the module's buffers; the first time,
        parameters are copied too.

        Raises RuntimeError at SAM's perturbed point, and while averages are in the parameters.
        """
        params = list(self._params.values())
        displaced.refuse(params)
        if self.count:
            decay = EMA.decay.at(self.count if self.debias else self.count - 1, self._schedule())
            self._average(parts.locals_of(params), float(decay))
        else:
            for p, a in zip(params, self._averages.values(), strict=True):
                a.copy_(p.detach())
        self._buffers = {name: _into(self._buffers.get(name), b) for name, b in self._now()}
        self.count += 1

    def _average(self, params: list[torch.Tensor], decay: float) -> None:
        averages = parts.locals_of(self._averages.values())
        try:
            made = walks.average(params, averages, decay, self.threads)
        except TypeError:
            for name, p in zip(self._params, params, strict=True):
                door.refuse_parameter(f"parameter {name!r}", p)
            raise
        if made is not averages:
            self._averages = {name: parts.like(a, p) for (name, p), a in zip(self._params.items(), made, strict=True)}

    def _schedule(self) -> Scalar:
        if self.debias or self.warmup or self.start:
            return ema_decay(self.decay, debias=self.debias, warmup=self.warmup, start=self.start)
        decay: Scalar = self.decay
        return decay

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Has the averages, and the buffers of the last update, in the parameters and buffers inside a with block;
        what was there comes back, bit for bit.

        In between no optimizer steps these parameters, and no average of them is updated: that raises RuntimeError.
        """
        params = list(self._params.values())
        buffers = [(b, self._buffers[name]) for name, b in self._now() if name in self._buffers]
        kept = [(t, t.detach().clone(memory_format=torch.preserve_format)) for t in [*params, *(b for b, _ in buffers)]]
        displaced.send_away(params, WHY)
        try:
            _write([*zip(params, self._averages.values(), strict=True), *buffers])
            yield
        finally:
            _write(kept)
            displaced.bring_back(params)

    def state_dict(self) -> dict[str, Any]:
        """A copy of the averages and buffers by name, and of the count, for `load_state_dict`."""
        averages = {name: a.clone() for name, a in self._averages.items()}
        return {
            "count": self.count,
            "averages": averages,
            "buffers": {name: b.clone() for name, b in self._buffers.items()},
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Takes over what `state_dict` gave; raises ValueError for what does not fit, before anything is changed."""
        if not isinstance(saved, Mapping) or saved.keys() != {"count", "averages", "buffers"}:
            raise ValueError("this is not the state of an average: expected a dict with count, averages and buffers")
        if not is_count(saved["count"]):
            raise ValueError(f"count is {shown(saved['count'])}: expected how many updates there were")
        _check("the average", saved["averages"], self._averages)
        _check("the buffer", saved["buffers"], self._buffers)
        _write([(a, saved["averages"][name]) for name, a in self._averages.items()])
        _write([(b, saved["buffers"][name]) for name, b in self._buffers.items()])
        self.count = int(saved["count"])

    def __repr__(self) -> str:
        options = {"debias": self.debias, "warmup": self.warmup, "start": self.start}
        shown = "".join(f", {name}={x!r}" for name, x in options.items() if x)
        return f"EMA(decay={show(self.decay)}{shown}): {len(self._params)} tensors, {self.count} updates"


def _named(params: Any) -> dict[str, torch.Tensor]:
    if isinstance(params, torch.nn.Module):
        found = dict(params.named_parameters())
    elif isinstance(params, torch.Tensor) or not isinstance(params, Iterable):
        raise TypeError(f"params is {shown(params)}: expected a module, or an iterable of tensors or of (name, tensor)")
    else:
        found = {}
        for i, item in enumerate(params):
            name, p = item if isinstance(item, tuple) and len(item) == 2 else (str(i), item)
            if name in found:
                raise ValueError(f"two parameters are called {name!r}")
            found[name] = p
    if not found:
        raise ValueError("no parameters: pass a module that has some, or tensors")
    seen: dict[int, str] = {}
    for name, p in found.items():
        if not isinstance(p, torch.Tensor):
            raise TypeError(f"parameter {name!r} is {shown(p)}: expected a tensor")
        if id(p) in seen:
            raise ValueError(f"parameters {seen[id(p)]!r} and {name!r} are the same tensor: pass it once")
        seen[id(p)] = name
        door.refuse_parameter(f"parameter {name!r}", parts.local(p))
    return found


def _copy(p: torch.Tensor) -> torch.Tensor:
    """A copy that lies in memory as the parameter does, or as it would without gaps."""
    local = parts.local(p).detach()
    return parts.like(walks.laid_out(local, state.home(local, by_rows=False)), p)


def _into(copy: torch.Tensor | None, b: torch.Tensor) -> torch.Tensor:
    b = b.detach()
    if copy is None or copy.shape != b.shape or copy.dtype != b.dtype or copy.device != b.device:
        return b.clone()
    return copy.copy_(b)


def _write(pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    with torch.no_grad():
        for tensor, values in pairs:
            tensor.copy_(values)


def _check(what: str, saved: Any, own: Mapping[str, torch.Tensor]) -> None:
    if not isinstance(saved, Mapping) or saved.keys() != own.keys():
        raise ValueError(f"{what}s saved are not those of this model: expected {', '.join(own) or 'none'}")
    for name, tensor in own.items():
        found = saved[name]
        if not isinstance(found, torch.Tensor) or found.shape != tensor.shape or found.dtype != tensor.dtype:
            raise ValueError(f"{what} of {name!r} is not a tensor of shape {tuple(tensor.shape)} and {tensor.dtype}")
