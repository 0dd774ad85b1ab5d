"""What fastopt found and chose on this machine: instruction set, threads; and how to choose otherwise."""

from __future__ import annotations

import numbers
import os
from typing import Any, NamedTuple

from fastopt import _core

_requested_threads: int | None = None


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
    from fastopt import __version__

    build = _core.build()
    forced = os.environ.get("FASTOPT_ISA")
    asked = "" if _requested_threads is None else f"; set_num_threads({_requested_threads}) is noted for then"
    return Info(
        version=__version__,
        compiler=build["compiler"],
        flags=build["flags"],
        isa=_core.active_isa(),
        isa_available=_core.isas(),
        isa_why=f"FASTOPT_ISA={forced}" if forced else "the widest",
        threads=1,
        threads_why="this version has no thread pool yet" + asked,
    )


def set_num_threads(n: int) -> None:
    """At most n threads for every optimizer that was not given `threads=`.

    Accepted and checked now; this version runs every step on the calling thread.
    """
    global _requested_threads
    _requested_threads = thread_count("n", n)


def thread_count(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} is {value!r}: expected a whole number of threads")
    if value < 1:
        raise ValueError(f"{name} is {value!r}: expected 1 or more threads")
    return int(value)


def choose_isa() -> None:
    """The widest instruction set that this CPU has, or the one in FASTOPT_ISA."""
    _core.use_isa(os.environ.get("FASTOPT_ISA") or _core.isas()[-1])
