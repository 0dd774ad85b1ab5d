"""The same step in other libraries. Nothing here is imported before it is used.

All start from equal parameters and gradients, in memory from NumPy, so that pages and alignment are alike.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from fastopt.app.benchmark.timing import Contender, feeder, nothing
from fastopt.app.benchmark.work import RULES, Work
from fastopt.base.tree import Array


class Absent(Exception):
    """A contender is not to be had here; the message says why."""


def restorer(grads: list[Array]) -> Any:
    """A function that undoes whatever a library does to its gradients."""
    return functools.partial(feeder(grads), [g.copy() for g in grads])


def load_torch(threads: int) -> Any:
    """torch on so many threads. Its large tensors come in huge pages, as NumPy's arrays do: it gains from that."""
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    module = importlib.import_module("torch")
    if module.get_num_threads() != threads:
        module.set_num_threads(threads)
    return module


def torch_parameters(t: Any, work: Work) -> tuple[list[Any], list[Array], list[Array]]:
    """Parameters with their gradients, and the NumPy arrays that share the memory of each."""
    arrays, grads = work.parameters(), work.gradients()
    params = [t.nn.Parameter(t.from_numpy(a)) for a in arrays]
    for p, g in zip(params, grads, strict=True):
        p.grad = t.from_numpy(g)
    return params, arrays, grads


def around(t: Any, work: Work, params: list[Any], opt: Any) -> Any:
    """The optimizer's step with what the work puts around it, as torch's users chain it."""
    if work.clip_norm is None and not work.l2 and work.average is None:
        return opt.step
    clip = t.nn.utils.clip_grad_norm_
    grads = [p.grad for p in params]
    averages = [p.detach().clone() for p in params]

    def step() -> None:
        if work.clip_norm is not None:
            clip(params, work.clip_norm)
        with t.no_grad():
            if work.l2:
                t._foreach_add_(grads, params, alpha=work.l2)
            opt.step()
            if work.average is not None:
                t._foreach_lerp_(averages, params, 1 - work.average)

    return step


def fastopt_torch(work: Work) -> Contender:
    """fastopt.torch on tensors, clipping within the step."""
    t = load_torch(work.threads)
    params, arrays, grads = torch_parameters(t, work)
    rule = RULES[work.rule]
    optimizers: Any = importlib.import_module("fastopt.torch")
    opt = getattr(optimizers, rule.torch)(params, **rule.torch_kwargs, clip_norm=work.clip_norm, threads=work.threads)
    return Contender(opt.step, lambda: arrays, feeder(grads))


def torch(work: Work, variant: dict[str, bool]) -> Contender:
    t = load_torch(work.threads)
    params, arrays, grads = torch_parameters(t, work)
    rule = RULES[work.rule]
    opt = getattr(t.optim, rule.torch)(params, **rule.torch_kwargs, **variant)
    step = around(t, work, params, opt)
    if work.fill is None:
        # torch's clipping writes the gradients, and so does its foreach form of Nesterov's momentum.
        changes = work.clip_norm is not None or work.l2 or (work.rule == "nesterov" and "foreach" in variant)
        return Contender(step, lambda: arrays, feeder(grads), restorer(grads) if changes else nothing)

    def fill() -> None:
        for g in grads:
            g.fill(work.fill)
        for state in opt.state.values():
            for value in state.values():
                if value.numel() > 1:
                    value.fill_(work.fill)

    return Contender(step, lambda: arrays, feeder(grads), fill)


def deepspeed(work: Work) -> Contender:
    """Its CPUAdam, which its first import compiles (with ninja): that takes a minute."""
    t = load_torch(work.threads)
    folders = os.environ.get("PATH", "").split(os.pathsep)
    if (own := str(Path(sys.executable).parent)) not in folders:
        os.environ["PATH"] = os.pathsep.join([own, *folders])
    module = importlib.import_module("deepspeed.ops.adam")
    cpuinfo: Any = importlib.import_module("cpuinfo")
    cpuinfo.get_cpu_info = functools.cache(cpuinfo.get_cpu_info)  # each optimizer asks for it, for a second
    params, arrays, grads = torch_parameters(t, work)
    kwargs = {"lr": 1e-3, "weight_decay": 1e-2 if work.rule == "adamw" else 0.0}
    opt = module.DeepSpeedCPUAdam(params, adamw_mode=True, **kwargs)
    step = around(t, work, params, opt)
    return Contender(step, lambda: arrays, feeder(grads), nothing if work.clip_norm is None else restorer(grads))


def optax(work: Work) -> Contender:
    """One compiled function that takes over the memory of the parameters and the state it is given. jax chooses its
    threads itself."""
    jax, module = importlib.import_module("jax"), importlib.import_module("optax")
    named = RULES[work.rule]
    rule = getattr(module, named.optax)(**named.optax_kwargs)
    if work.clip_norm is not None:
        rule = module.chain(module.clip_by_global_norm(work.clip_norm), rule)

    def arrays(given: list[Array]) -> list[Any]:
        return [jax.device_put(a, jax.devices("cpu")[0], may_alias=False) for a in given]

    params, grads = arrays(work.parameters()), arrays(work.gradients())
    state = rule.init(params)

    def update(params: Any, state: Any, grads: Any) -> Any:
        updates, state = rule.update(grads, state, params)
        return module.apply_updates(params, updates), state

    update = jax.jit(update, donate_argnums=(0, 1))

    def step() -> None:
        nonlocal params, state
        params, state = update(params, state, grads)
        jax.block_until_ready((params, state))

    def feed(new: list[Array]) -> None:
        nonlocal grads
        grads = arrays(new)

    return Contender(step, lambda: [np.asarray(p) for p in params], feed)


def sklearn(work: Work) -> Contender:
    """The optimizer inside its MLPClassifier, after the decay of AdamW, which it does not have."""
    module = importlib.import_module("sklearn.neural_network._stochastic_optimizers")
    params, grads = work.parameters(), work.gradients()
    opt = module.AdamOptimizer(params)
    keep = 1 - 1e-3 * 1e-2

    def step() -> None:
        if work.rule == "adamw":
            for p in params:
                p *= keep
        opt.update_params(params, grads)

    return Contender(step, lambda: params, feeder(grads))


def thinc(work: Work) -> Contender:
    """Its Adam, which overwrites the gradients: they are back before each batch of steps."""
    module = importlib.import_module("thinc.optimizers")
    params, grads = work.parameters(), work.gradients()
    opt = module.Adam(1e-3, L2=1e-2 if work.rule == "adamw" else 0.0, grad_clip=0.0, use_averages=False)
    triples = [((i, "p"), p, g) for i, (p, g) in enumerate(zip(params, grads, strict=True))]

    def step() -> None:
        for key, p, g in triples:
            opt(key, p, g)

    return Contender(step, lambda: params, feeder(grads), restorer(grads))
