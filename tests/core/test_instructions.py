"""The cost of a small step, in instructions: the same number at every run, where a time would not be."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fastopt.core import _core

# Instructions of one AdamW step over one array of 1000 float32 on AVX2, by version of CPython, measured with
# `python -m pytest -s tests/core/test_instructions.py` and gcc 12. An interpreter built with optimizations needs fewer.
MEASURED = {(3, 11): 11_067}
HEADROOM = 1.15

STEPS = 1000
CODE = """
import sys
import numpy as np, fastopt
from fastopt.core import _core
p, g = np.ones(1000, np.float32), [np.full(1000, 0.5, np.float32)]
opt = fastopt.AdamW([p])
def steps(n):
    for _ in range(n):
        opt.step(g)
steps(1000)
_core.threads_started()
steps(int(sys.argv[1]))
_core.threads_started()
"""


def instructions(steps: int, folder: Path) -> int:
    """Between two calls of a function that nothing else calls, before which Valgrind dumps its counts."""
    options = [f"--callgrind-out-file={folder / 'counts'}", "--dump-before=fo_threads_started"]
    command = ["valgrind", "--tool=callgrind", *options, sys.executable, "-c", CODE, str(steps)]
    # Valgrind knows no AVX-512.
    fixed = {"FASTOPT_ISA": "avx2", "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, env={**os.environ, **fixed}, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    found = re.search(r"^(?:totals|summary): (\d+)", (folder / "counts.2").read_text(), re.M)
    assert found, sorted(folder.iterdir())
    return int(found[1])


def test_a_small_step_takes_few_instructions(tmp_path: Path) -> None:
    if shutil.which("valgrind") is None:
        pytest.skip("valgrind is not installed")
    if "avx2" not in _core.isas():
        pytest.skip("measured on AVX2, which this CPU has not")
    version = sys.version_info[:2]
    if version not in MEASURED:
        pytest.skip(f"not measured with CPython {version[0]}.{version[1]}")
    per_step = instructions(STEPS, tmp_path) / STEPS
    print(f"\n{per_step:.0f} instructions per step")
    assert per_step < HEADROOM * MEASURED[version], f"{per_step:.0f} instructions per step, were {MEASURED[version]}"
