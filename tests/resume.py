"""Runs every case of the registry from one process to the next, for tests/test_resume.py:

python -m tests.resume FOLDER        the first steps, then all is saved to the folder
python -m tests.resume FOLDER end    loads it, takes the other steps, prints a digest of each case as JSON
"""

from __future__ import annotations

import hashlib
import json
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import fastopt
from tests.cases import CASES, DTYPES, Case, ordinary
from tests.lockstep import written

FIRST, THEN = 4, 3
SIZES = {"W": (40, 31), "few": 3, "many": 3000}


def runs() -> Iterator[tuple[str, Case, Any]]:
    for case in CASES:
        for dtype in DTYPES:
            yield f"{case.id}-{np.dtype(dtype).name}", case, dtype


def parameters(name: str, dtype: Any) -> dict[str, Any]:
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return {key: np.require(ordinary(rng, size, dtype), requirements="F") for key, size in SIZES.items()}


def take_steps(opt: fastopt.Optimizer, name: str, dtype: Any, steps: range) -> None:
    for k in steps:
        rng = np.random.default_rng([zlib.crc32(name.encode()), k])
        grads: dict[str, Any] = {key: ordinary(rng, size, dtype) for key, size in SIZES.items()}
        if k % 3 == 1:
            grads["few"] = None
        opt.step(grads)


def digest(opt: fastopt.Optimizer) -> str:
    total = hashlib.sha256(repr((opt.t, [(entry["t"]) for entry in opt.state.values()])).encode())
    for name, a in written(opt).items():
        total.update(name.encode() + a.tobytes())
    return total.hexdigest()


def uninterrupted() -> dict[str, str]:
    digests = {}
    for name, case, dtype in runs():
        opt = case.make(parameters(name, dtype))
        take_steps(opt, name, dtype, range(FIRST + THEN))
        digests[name] = digest(opt)
    return digests


def begin(folder: Path) -> None:
    for name, case, dtype in runs():
        params = parameters(name, dtype)
        opt = case.make(params)
        opt._plan.split(1, 1000)
        take_steps(opt, name, dtype, range(FIRST))
        opt.save(folder / f"{name}.safetensors")
        np.savez(folder / f"{name}.npz", **params)


def end(folder: Path) -> dict[str, str]:
    digests = {}
    for name, case, dtype in runs():
        with np.load(folder / f"{name}.npz") as saved:
            params = dict(saved)
        opt = case.make(params)
        opt._plan.split(1, 300)
        opt.load(folder / f"{name}.safetensors")
        take_steps(opt, name, dtype, range(FIRST, FIRST + THEN))
        digests[name] = digest(opt)
    return digests


if __name__ == "__main__":
    if sys.argv[2:] == ["end"]:
        print(json.dumps(end(Path(sys.argv[1]))))
    else:
        begin(Path(sys.argv[1]))
