"""What fastopt found and chose on this machine: instruction set, threads; and how to choose otherwise."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from fastopt.base.arguments import whole
from fastopt.base.version import __version__
from fastopt.core import _core

_threads_why = ""


class Info(NamedTuple):
    """What runs here. `print(fastopt.info())` shows it, a line each."""

    version: str
    compiler: str
    flags: str
    isa: str
    isa_available: tuple[str, ...]
    isa_why: str
    threads: int
    threads_why: str

    def __str__(self) -> str:
        return "\n".join(
            [
                f"fastopt {self.version}",
                f"compiler   {self.compiler}",
                f"flags      {self.flags}",
                f"isa        {self.isa} ({self.isa_why}; this CPU has {', '.join(self.isa_available)})",
                f"threads    {self.threads} ({self.threads_why})",
            ]
        )


def info() -> Info:
    """Version, compiler and flags; the instruction set and the number of threads in use, and why."""

    build = _core.build()
    forced = os.environ.get("FASTOPT_ISA")
    return Info(
        version=__version__,
        compiler=build["compiler"],
        flags=build["flags"],
        isa=_core.active_isa(),
        isa_available=_core.isas(),
        isa_why=f"FASTOPT_ISA={forced}" if forced else "the widest",
        threads=_core.default_threads(),
        threads_why=_threads_why,
    )


def set_num_threads(n: int) -> None:
    """At most n threads, the calling one included, for every optimizer that was not given `threads=`.

    More than there are CPUs are honoured, and help nobody. Small steps run on the calling thread whatever n is, and
    so do all in a build without threads: `info()` says so.
    """
    _use_threads(thread_count("n", n), f"set_num_threads({n})")


def thread_count(name: str, value: Any) -> int:
    return whole(name, value, 1, 255)


def choose() -> None:
    """The instruction set and the number of threads, by the environment or by what is here."""
    _core.use_isa(os.environ.get("FASTOPT_ISA") or _core.isas()[-1])
    asked = os.environ.get("FASTOPT_NUM_THREADS")
    if not asked:
        _use_threads(*default_threads())
        return
    try:
        n = thread_count("FASTOPT_NUM_THREADS", int(asked))
    except ValueError:
        raise ValueError(f"FASTOPT_NUM_THREADS is {asked!r}: expected 1 to 255 threads") from None
    _use_threads(n, f"FASTOPT_NUM_THREADS={asked}")


def _use_threads(n: int, why: str) -> None:
    global _threads_why
    if not _core.threads_available():
        n, why = 1, "this build has no threads"
    _core.set_default_threads(n)
    _threads_why = why


def default_threads(root: Path = Path("/")) -> tuple[int, str]:
    """The number of CPUs that this process may use: those of its affinity, or fewer where a cgroup limits it."""
    if hasattr(os, "sched_getaffinity"):
        cpus, why = len(os.sched_getaffinity(0)), "the CPUs of this process's affinity"
    else:
        cpus, why = os.cpu_count() or 1, "the CPUs of this machine"
    quota = cgroup_quota(root)
    if quota is not None and quota < cpus:
        cpus, why = max(1, int(quota)), f"a cgroup limits this process to {quota:g} CPUs"
    return min(cpus, 255), why


def cgroup_quota(root: Path = Path("/")) -> float | None:
    """The tightest CPU limit of this process's cgroup and those around it, in CPUs; versions 1 and 2."""
    limits = [limit for folder in _cgroup_folders(root) if (limit := _limit(folder)) is not None]
    return min(limits, default=None)


def _cgroup_folders(root: Path) -> Iterator[Path]:
    """Where limits may stand: the process's own cgroup, those above it, and what a container sees as its root."""
    mount = root / "sys/fs/cgroup"
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            base = mount
        elif "cpu" in controllers.split(","):
            base = mount / controllers if (mount / controllers).is_dir() else mount / "cpu"
        else:
            continue
        own = base / path.lstrip("/")
        yield from (folder for folder in (own, *own.parents) if folder == base or base in folder.parents)
    yield from (mount, mount / "cpu", mount / "cpu,cpuacct")


def _limit(folder: Path) -> float | None:
    try:
        quota, period = (folder / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (folder / "cpu.cfs_quota_us").read_text()
            period = (folder / "cpu.cfs_period_us").read_text()
        except OSError:
            return None
    try:
        cpus = float(quota) / float(period)
    except (ValueError, ZeroDivisionError):
        return None
    return cpus if cpus > 0 else None
