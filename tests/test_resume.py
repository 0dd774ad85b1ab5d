"""k + n steps are k steps, a checkpoint, another process, and n steps: to the bit, whatever machine goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fastopt import _core
from tests.resume import uninterrupted

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def expected() -> dict[str, str]:
    return uninterrupted()


def resume(isa: str, threads: int, *arguments: str) -> str:
    environment = {**os.environ, "FASTOPT_ISA": isa, "FASTOPT_NUM_THREADS": str(threads)}
    command = [sys.executable, "-m", "tests.resume", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("up", [True, False], ids=["to a wider CPU", "to a narrower CPU"])
def test_a_resumed_run_is_the_same_run(up: bool, expected: dict[str, str], tmp_path: Path) -> None:
    """Every case of the registry, in both types, with another instruction set and another number of threads."""
    machines = [(_core.isas()[0], 1), (_core.isas()[-1], 3)]
    before, after = machines if up else machines[::-1]
    resume(*before, str(tmp_path))
    assert json.loads(resume(*after, str(tmp_path), "end")) == expected
