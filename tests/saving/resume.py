"""Runs every case of the registry, and what goes with an optimizer, from one process to the next, for
tests/saving/test_resume.py:

python -m tests.saving.resume FOLDER BACKEND        the first steps, then all is saved to the folder
python -m tests.saving.resume FOLDER BACKEND end  loads it, takes the other steps, prints a digest of each run as JSON
"""

from __future__ import annotations

import hashlib
import json
import pickle
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fastopt import LBFGS
from tests.cases import CASES, DTYPES, Case, ordinary
from tests.hostile.companions import RUNS, Run, Things
from tests.lockstep import loss_of, plain

FIRST, THEN = 4, 3
SIZES = {"W": (40, 31), "few": 3, "many": 3000}


def runs() -> Iterator[tuple[str, Run, Any]]:
    for dtype in DTYPES:
        for case in CASES:
            yield f"{case.id}-{np.dtype(dtype).name}", alone(case), dtype
        for name, run in RUNS.items():
            yield f"with {name}-{np.dtype(dtype).name}", run, dtype


def alone(case: Case) -> Run:
    return Run(
        lambda params, backend, resumed: {"opt": case.make(params, backend=backend)},
        lambda things, g, k: things["opt"].step(g, **loss_of(things["opt"])),
    )


def parameters(name: str, dtype: Any) -> dict[str, Any]:
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return {key: np.require(ordinary(rng, size, dtype), requirements="F") for key, size in SIZES.items()}


def take_steps(run: Run, things: Things, name: str, dtype: Any, steps: range) -> None:
    for k in steps:
        rng = np.random.default_rng([zlib.crc32(name.encode()), k])
        grads: dict[str, Any] = {key: ordinary(rng, size, dtype) for key, size in SIZES.items()}
        if k % 3 == 1:
            grads["few"] = None
        run.step(things, grads, k)


def digest(things: Things) -> str:
    states = {key: state_of(thing) for key, thing in things.items() if has_state(thing)}
    return hashlib.sha256(plain([plan_of(things["opt"]).params, states]).encode()).hexdigest()


def plan_of(opt: Any) -> Any:
    return opt._plan if isinstance(opt, LBFGS) else opt._engine.plan


def has_state(thing: Any) -> bool:
    return isinstance(thing, np.random.Generator) or hasattr(thing, "state_dict")


def state_of(thing: Any) -> Any:
    return thing.bit_generator.state if isinstance(thing, np.random.Generator) else thing.state_dict()


def save(thing: Any, path: Path) -> None:
    """To a file of its own where it can, else as JSON, and where there are arrays as a pickle."""
    if hasattr(thing, "save"):
        thing.save(path)
        return
    try:
        path.write_text(json.dumps(state_of(thing)))
    except TypeError:
        path.write_bytes(pickle.dumps(thing.state_dict()))


def load(thing: Any, path: Path) -> None:
    if hasattr(thing, "load"):
        thing.load(path)
        return
    data = path.read_bytes()
    state = json.loads(data) if data.startswith(b"{") else pickle.loads(data)
    if isinstance(thing, np.random.Generator):
        thing.bit_generator.state = state
    else:
        thing.load_state_dict(state)


def uninterrupted() -> dict[str, str]:
    digests = {}
    for name, run, dtype in runs():
        params = parameters(name, dtype)
        things = run.make(params, "c", False)
        take_steps(run, things, name, dtype, range(FIRST + THEN))
        digests[name] = digest(things)
    return digests


def begin(folder: Path, backend: str) -> None:
    for name, run, dtype in runs():
        params = parameters(name, dtype)
        things = run.make(params, backend, False)
        plan_of(things["opt"]).split(1, 1000)
        take_steps(run, things, name, dtype, range(FIRST))
        for key, thing in things.items():
            if has_state(thing):
                save(thing, folder / f"{name}.{key}")
        np.savez(folder / f"{name}.npz", **params)
        (folder / f"{name}.pickle").write_bytes(pickle.dumps(things))


def end(folder: Path, backend: str) -> dict[str, str]:
    digests = {}
    for name, run, dtype in runs():
        with np.load(folder / f"{name}.npz") as saved:
            params = dict(saved)
        things = run.make(params, backend, True)
        plan_of(things["opt"]).split(1, 300)
        for key, thing in things.items():
            if has_state(thing):
                load(thing, folder / f"{name}.{key}")
        found = set()
        for every in (things, pickle.loads((folder / f"{name}.pickle").read_bytes())):
            take_steps(run, every, name, dtype, range(FIRST, FIRST + THEN))
            found.add(digest(every))
        digests[name] = " and ".join(found)
    return digests


if __name__ == "__main__":
    if sys.argv[3:] == ["end"]:
        print(json.dumps(end(Path(sys.argv[1]), sys.argv[2])))
    else:
        begin(Path(sys.argv[1]), sys.argv[2])
