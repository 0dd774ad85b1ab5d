"""A parameter of more than 2**31 elements, in a mapped file: each is stepped once, and counted in the norm.

    python tools/huge.py [FOLDER]

Needs 9 GB of disk in FOLDER (by default the one for temporary files) and as much memory; says so and exits with 2 where
there is less.
"""

from __future__ import annotations

import os
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import fastopt

N = 2**31 + 4099
NEEDED = 10 << 30
# Around every power of two that an index could wrap at.
MARKED = [0, 1, 2**29, 2**30 - 1, 2**30, 2**31 - 1, 2**31, 2**31 + 1, N - 17, N - 1]


def main(folder: str) -> int:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    disk = shutil.disk_usage(folder).free
    if min(memory, disk) < NEEDED:
        print(
            f"not run: {memory >> 30} GB of memory and {disk >> 30} GB of disk are free, {NEEDED >> 30} of both needed"
        )
        return 2
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        file.truncate(4 * N)
        p = np.memmap(file.name, np.float32, "r+", shape=(N,))
        # Zeros that nobody has written take no memory.
        g = np.zeros(N, np.float32)
        g[MARKED] = 1
        opt = fastopt.SGD({"p": p}, lr=0.5, clip_norm=1e9, threads=2)
        started = time.perf_counter()
        report = opt.step({"p": g})
        print(f"{N:,} elements, a dense gradient: {report}, {time.perf_counter() - started:.1f} s")
        assert report.grad_norm == np.sqrt(len(MARKED))
        assert np.flatnonzero(p).tolist() == MARKED
        assert set(p[MARKED].tolist()) == {-0.5}
        started = time.perf_counter()
        report = opt.step({"p": np.broadcast_to(np.float32(1), N)})
        print(f"{N:,} elements, one element broadcast: {report}, {time.perf_counter() - started:.1f} s")
        assert report.grad_norm == np.sqrt(N)
        assert set(p[MARKED].tolist()) == {-1.0}
        p[MARKED] = -0.5
        assert p.min() == p.max() == -0.5
        bad = np.zeros(N, np.float32)
        bad[-1] = np.nan
        opt.on_nonfinite = "skip"
        assert not opt.step({"p": bad}).applied
        assert p[-1] == -0.5
    print(f"passed; {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 20} GB resident at most")
    return 0


if __name__ == "__main__":
    if not Path("/proc").exists():
        sys.exit("tools/huge.py asks Linux how much memory is free")
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else tempfile.gettempdir()))
