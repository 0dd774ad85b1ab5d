"""Processes that train together, over gloo: each runs a function of this package's tests, and what it gives comes back."""

from __future__ import annotations

import os
import pickle
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def together(ranks: int, folder: Path, function: Callable[..., Any], *args: Any) -> list[Any]:
    """function(rank, ranks, *args) in as many processes; what each returned, by rank."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(_run, (ranks, port, str(folder), function, args), ranks, join=True)
    return [pickle.loads((folder / f"rank{rank}").read_bytes()) for rank in range(ranks)]


def _run(rank: int, ranks: int, port: int, folder: str, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=ranks)
    try:
        made = function(rank, ranks, *args)
        Path(folder, f"rank{rank}").write_bytes(pickle.dumps(made))
    finally:
        dist.destroy_process_group()
