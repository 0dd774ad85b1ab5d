"""Processes that train together, over gloo: each does the same jobs in their order, and what they give comes back."""

from __future__ import annotations

import os
import pickle
import socket
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

Job = tuple[Callable[..., Any], tuple[Any, ...]]


class Failed(str):
    """What went wrong in a job."""


def together(ranks: int, folder: Path, jobs: dict[str, Job]) -> dict[str, list[Any]]:
    """function(rank, *args) of every job in as many processes; by job, what each process returned. A process takes
    seconds to begin: so these do all jobs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(_run, (ranks, port, str(folder), jobs), ranks, join=True)
    made = [pickle.loads((folder / f"rank{rank}").read_bytes()) for rank in range(ranks)]
    return {name: [of_rank[name] for of_rank in made] for name in jobs}


def _run(rank: int, ranks: int, port: int, folder: str, jobs: dict[str, Job]) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=ranks, timeout=timedelta(minutes=2))
    made: dict[str, Any] = {}
    for name, (function, args) in jobs.items():
        try:
            made[name] = function(rank, *args)
        except Exception:
            made[name] = Failed(traceback.format_exc())
        dist.barrier()
    Path(folder, f"rank{rank}").write_bytes(pickle.dumps(made))
    dist.destroy_process_group()
