"""k + n steps are k steps, a checkpoint, another process, and n steps: to the bit, whatever machine goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fastopt.core import _core
from tests.saving.resume import uninterrupted

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def expected() -> dict[str, str]:
    return uninterrupted()


def resume(isa: str, threads: int, *arguments: str) -> str:
    environment = {**os.environ, "FASTOPT_ISA": isa, "FASTOPT_NUM_THREADS": str(threads)}
    command = [sys.executable, "-m", "tests.saving.resume", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


NARROW, WIDE = (_core.isas()[0], 1), (_core.isas()[-1], 3)


@pytest.mark.parametrize(
    ("before", "after"),
    [((NARROW, "c"), (WIDE, "c")), ((WIDE, "c"), (NARROW, "numpy")), ((WIDE, "numpy"), (NARROW, "c"))],
    ids=["to a wider CPU", "to the reference", "from the reference to a narrower CPU"],
)
def test_a_resumed_run_is_the_same_run(before: Any, after: Any, expected: dict[str, str], tmp_path: Path) -> None:
    """Every case of the registry and what goes with an optimizer, in both types, loaded and unpickled, with another
    instruction set, number of threads and backend."""
    resume(*before[0], str(tmp_path), before[1])
    found = json.loads(resume(*after[0], str(tmp_path), after[1], "end"))
    assert {name: found[name] for name in expected if found[name] != expected[name]} == {}
