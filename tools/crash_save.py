"""Kills processes while they save a checkpoint, and looks at what is left:

    python -m tools.crash_save [KILLS] [SEED]       2000 times by default, a different seed each time

A child saves one generation after another to the same file and reports each that `save` has returned from; it is
killed with SIGKILL at a random moment. Then the file must load, all of one generation, the last that was reported or
the one after it. Exits with an error at the first that does not. From the root of the project.
"""

from __future__ import annotations

import collections
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import fastopt


def crash(folder: Path, kills: int, seed: int) -> collections.Counter[str]:
    """What the kills hit, by kind."""
    draw = random.Random(seed)
    path = folder / "run.safetensors"
    counts: collections.Counter[str] = collections.Counter()
    for _ in range(kills):
        opt = fastopt.Adam(np.zeros(draw.choice([1, 1000, 30_000, 300_000])))
        mark(opt, 0)
        opt.save(path)
        reported = killed_child(opt, path, draw)
        mark(opt, -1)
        opt.load(path)
        if opt.lr not in (reported, reported + 1):
            raise AssertionError(f"generation {reported} was saved, and the file holds {opt.lr}")
        for name in ("m", "v"):
            if not np.all(opt.state["0"][name] == opt.lr):
                raise AssertionError(f"{name!r} is not that of generation {opt.lr}")
        left = list(folder.glob(".fastopt-*.tmp"))
        for file in left:
            file.unlink()
        if len(left) > 1 or os.listdir(folder) != [path.name]:
            raise AssertionError(f"more than one temporary file was left: {os.listdir(folder)}")
        counts["while writing" if left else "between saves" if opt.lr == reported else "after the rename"] += 1
    return counts


def mark(opt: fastopt.Optimizer, k: int) -> None:
    """Makes the whole state say k."""
    opt.lr = abs(k)
    for name in ("m", "v"):
        opt.state["0"][name].fill(k)


def killed_child(opt: fastopt.Optimizer, path: Path, draw: random.Random) -> int:
    """The last generation that a child reported as saved before it was killed."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        for k in range(1, 1_000_000):
            mark(opt, k)
            opt.save(path)
            os.write(writer, b".")
        os._exit(1)
    os.close(writer)
    reported = 0
    if draw.random() < 0.8:
        # From the end of a save, so that the kill finds the next one at any point of it.
        reported = len(os.read(reader, 1))
    time.sleep(draw.random() * (0.003 + opt.bytes_per_step * 1e-9))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while data := os.read(reader, 1 << 16):
        reported += len(data)
    os.close(reader)
    return reported


if __name__ == "__main__":
    kills, seed = [int(x) for x in (sys.argv[1:] + ["2000", str(time.time_ns())][len(sys.argv) - 1 :])]
    with tempfile.TemporaryDirectory(dir=".") as folder:
        counts = crash(Path(folder), kills, seed)
    print(f"{kills} kills with seed {seed}: " + ", ".join(f"{n} {kind}" for kind, n in counts.items()))
    print("every file was whole, and no generation that had been saved was lost")
