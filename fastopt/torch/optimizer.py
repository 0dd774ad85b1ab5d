"""What makes an optimizer of torch.optim fastopt's: its step. Arguments, groups, state and saving stay PyTorch's."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch.optim import optimizer as stock

from fastopt.optimizers.base import Optimizer
from fastopt.torch import door, parts
from fastopt.torch.binding import INSIDE, Delegated, Engine, Whole
from fastopt.torch.shards import Shards
from fastopt.torch.translation import Translation

DEFAULTS = Whole()._asdict()


def admitted(name: str, value: Any) -> Any:
    """One of the keywords that fastopt adds, checked."""
    if name == "fallback":
        if value not in (None, "torch"):
            raise ValueError(f"fallback is {value!r}: expected None or 'torch'")
        return value
    option = Optimizer.options()[name]
    if callable(value):
        raise TypeError(f"{name} is a schedule: set it between steps instead")
    return option.admit(value)


class Added:
    """One of those keywords, as an attribute."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, opt: Any, owner: type) -> Any:
        return self if opt is None else opt._added[self.name]

    def __set__(self, opt: Any, value: Any) -> None:
        opt._take({**opt._added, self.name: admitted(self.name, value)})


class Fast(torch.optim.Optimizer):
    """A torch.optim.Optimizer that is stepped by fastopt, in one call for all of its parameters.

    Beside the arguments of its torch.optim class, all with PyTorch's names, meanings and defaults, each takes:

    clip_norm : scale all gradients by clip_norm/norm where the 2-norm of all together is larger, within the step; > 0.
    clip_value : clamp every gradient to [-clip_value, clip_value]; > 0. Only one of these two.
    on_nonfinite : "raise" or "skip" the whole step when a gradient is not finite; None does not look, but with
        clip_norm a norm that is not finite raises.
    average : decay of a running average of the parameters, in [0, 1), kept in the state and read by `averages()`.
    threads : at most this many, for steps that are large enough; None for `fastopt.info().threads`.
    flush_subnormals : compute with subnormals flushed to zero. Default False, as PyTorch.
    fallback : "torch" lets PyTorch step what fastopt has no step for (bfloat16, complex, another device); None
        raises.

    Gradients are never written. `grad_norm` is the 2-norm of the last step's gradients where it was measured, `skipped`
    how many steps were. Raises TypeError or ValueError for tensors that cannot be stepped and NonFiniteError as
    `on_nonfinite` says, naming the parameter, before anything is written.
    """

    _translation: ClassVar[Translation]
    param_groups: list[dict[str, Any]]
    _step_supports_amp_scaling = True

    clip_norm = Added()
    clip_value = Added()
    on_nonfinite = Added()
    average = Added()
    flush_subnormals = Added()
    threads = Added()
    fallback = Added()

    def __init__(self, *args: Any, **given: Any) -> None:
        added = {name: admitted(name, given.pop(name)) if name in given else x for name, x in DEFAULTS.items()}
        self._take(added)
        super().__init__(*args, **given)

    def _take(self, added: dict[str, Any]) -> None:
        if added["clip_norm"] is not None and added["clip_value"] is not None:
            raise ValueError("clip_norm and clip_value together: clip by one of them (set the other to None first)")
        engine = self.__dict__.get("_engine")
        if engine is None:
            self._engine = Engine(self._translation, Whole(**added))
        else:
            engine.change(Whole(**added))
        self._added = added
        self._shards = Shards()
        self._divided = False

    # The step

    def step(self, closure: Callable[[], Any] | None = None, *, loss: Any = None) -> Any:
        """Updates the parameters that have gradients; returns what closure() gives, which is called first.

        loss : of the whole batch, for rules that need it (PolyakSGD), where no closure returns it.
        """
        if (
            self._optimizer_step_pre_hooks
            or self._optimizer_step_post_hooks
            or stock._global_optimizer_pre_hooks
            or stock._global_optimizer_post_hooks
            or torch.autograd._profiler_enabled()
        ):
            return _watched(self, closure, loss=loss)
        return self._step(closure, loss)

    # PyTorch's own wrapper costs as much as a small step; what it does is done above, where somebody asked for it.
    step.hooked = True  # type: ignore[attr-defined]

    def _step(self, closure: Callable[[], Any] | None = None, given: Any = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if given is not None and not self._translation.rule.needs_loss:
            raise TypeError(f"{type(self).__name__} does not take the loss: leave out loss=")
        value = loss if given is None else given
        mine = self.__dict__
        unscale = 1.0
        if "found_inf" in mine or "grad_scale" in mine:
            found, scale = mine.get("found_inf"), mine.get("grad_scale")
            if found is not None and float(found):
                return loss
            if scale is not None:
                unscale = 1 / float(scale)
        if not self._divided:
            try:
                self._engine.step(self.param_groups, self.state, unscale, value)
                return loss
            except Delegated:
                self._divided = True
        self._divided_step(unscale, value)
        return loss

    def _divided_step(self, unscale: float, loss: Any) -> None:
        """PyTorch's step for what is delegated to it, then fastopt's for the rest, of DTensors over their parts."""
        pairs = [door.halves(group, self.fallback) for group in self.param_groups]
        theirs, ours = [group for group, _ in pairs], [group for _, group in pairs]
        if any(group["params"] for group in theirs):
            self._refuse_divided(theirs, unscale)
            self._divided = True
            with self._engine.held(INSIDE):
                self._torch_step(theirs)
        else:
            ours, self._divided = self.param_groups, False
        if parts.any_in(ours):
            self._divided = True
            self._shards.step(self._engine, ours, self.state, unscale, loss)
        else:
            self._engine.step(ours, self.state, unscale, loss)

    def _refuse_divided(self, theirs: list[dict[str, Any]], unscale: float) -> None:
        if unscale != 1 or self.clip_norm is not None or self.clip_value is not None or self.on_nonfinite is not None:
            raise ValueError(
                f"{door.names(theirs)[0]} is stepped by PyTorch, which neither clips nor looks at gradients: clip with "
                "torch.nn.utils.clip_grad_norm_, and unscale, before the step"
            )

    def _torch_step(self, groups: list[dict[str, Any]]) -> None:
        step: Any = _stock(type(self)).step
        if step is torch.optim.Optimizer.step:
            raise TypeError(f"{type(self).__name__} is no optimizer of PyTorch: it has no step for such parameters")
        step = getattr(step, "__wrapped__", step) if getattr(step, "hooked", False) else step
        mine, self.param_groups = self.param_groups, groups
        try:
            step(self)
        finally:
            self.param_groups = mine

    # What can be read

    @property
    def grad_norm(self) -> float | None:
        """The 2-norm of all gradients of the last step, where clip_norm or on_nonfinite had it measured."""
        return self._engine.grad_norm

    @property
    def skipped(self) -> int:
        """How many steps `on_nonfinite="skip"` has skipped."""
        return self._engine.skipped

    def averages(self) -> list[torch.Tensor]:
        """The running averages of all parameters, in the order of `param_groups`, live; those that have had no gradient
        yet stand for themselves."""
        if self.average is None:
            raise ValueError("this optimizer keeps no averages: pass average=, for example 0.999")
        params = [p for group in self.param_groups for p in group["params"]]
        return [self.state[p]["average"] if "average" in self.state.get(p, {}) else p.detach() for p in params]

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Has the averages in the parameters inside a with block; what they were comes back. A step inside it raises
        RuntimeError."""
        params = [p for group in self.param_groups for p in group["params"]]
        averages = self.averages()
        with self._engine.held("inside averaged() the parameters are their averages: step after the with block"):
            kept = [p.detach().clone() for p in params]
            try:
                for p, a in zip(params, averages, strict=True):
                    p.detach().copy_(a)
                yield
            finally:
                for p, a in zip(params, kept, strict=True):
                    p.detach().copy_(a)

    # Saving

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes the groups and the state of a state_dict, of this class here or in torch.optim."""
        super().load_state_dict(state_dict)
        # PyTorch casts all but "step" to the parameter's dtype: with these scalars a run would go on otherwise.
        saved = [i for group in state_dict["param_groups"] for i in group["params"]]
        params = [p for group in self.param_groups for p in group["params"]]
        for i, p in zip(saved, params, strict=True) if self._translation.scalars else ():
            for key in self._translation.scalars:
                given, cast = (of_p.get(key) for of_p in (state_dict["state"].get(i, {}), self.state.get(p, {})))
                if isinstance(given, torch.Tensor) and torch.equal(given.to(cast), cast):
                    self.state[p][key] = given

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_added": self._added}

    def __setstate__(self, state: dict[str, Any]) -> None:
        added = state.pop("_added", None) or self.__dict__.get("_added", DEFAULTS)
        super().__setstate__(state)
        self._take(added)

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...


def _raw(self: Fast, closure: Callable[[], Any] | None = None, *, loss: Any = None) -> Any:
    return self._step(closure, loss)


def _stock(cls: type) -> Any:
    """The class of PyTorch that an optimizer is."""
    return next(base for base in cls.__mro__ if base.__module__.startswith("torch.optim"))


_watched = torch.optim.Optimizer.profile_hook_step(_raw)
