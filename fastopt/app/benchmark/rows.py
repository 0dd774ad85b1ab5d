"""A row of the report: contenders with their work, timed in turns; and the machine that did it."""

from __future__ import annotations

import gc
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import fastopt
from fastopt.app.benchmark.contenders import MAKERS, Maker, check, installed, make
from fastopt.app.benchmark.libraries import Absent
from fastopt.app.benchmark.timing import Contender, Settings, ratios, spread, take_turns
from fastopt.app.benchmark.work import Work


class Entry(NamedTuple):
    """Whom a row times and with what; the label tells entries apart."""

    label: str
    maker: str
    work: Work


class Row(NamedTuple):
    """Entries to compare. Ratios say how many times as long as `of` the others take.

    target, goal : what the ratio of `against` must reach, and what it should; at most that with `at_most`.
    """

    name: str
    title: str
    entries: tuple[Entry, ...]
    group: str = ""
    against: str = ""
    of: str = "fastopt"
    target: float | None = None
    goal: float | None = None
    at_most: bool = False

    @property
    def work(self) -> Work:
        return self.entries[0].work


def row(name: str, title: str, work: Work, names: list[str] | tuple[str, ...], **more: Any) -> Row:
    """A row of these contenders, those that can do the work."""
    entries = tuple(Entry(name, name, work) for name in names if name not in MAKERS or MAKERS[name].takes(work))
    return Row(name, title, entries, **more)


Progress = Callable[[str], None]


def measure(
    row: Row, settings: Settings, makers: dict[str, Maker] = MAKERS, progress: Progress = lambda label: None
) -> dict[str, Any]:
    """What became of a row, ready for JSON: seconds of a step and ratios, each as median and quartiles."""
    work, absent = row.work, {}
    contenders: dict[str, Contender] = {}
    for label, maker, own in row.entries:
        progress(label)
        try:
            check(maker, own, makers)
            contenders[label] = make(maker, own, makers)
        except Absent as e:
            absent[label] = str(e)
        except Exception as e:  # whatever a library does that is not of the version this was written for
            if not makers[maker].package:
                raise
            absent[label] = f"{makers[maker].package} fails: {type(e).__name__}: {str(e).partition(chr(10))[0]}"
    turns = take_turns(contenders, settings, work.one_at_a_time, settle=work.threads > 1)
    contenders.clear()
    gc.collect()
    return {
        "name": row.name,
        "title": row.title,
        "group": row.group,
        "rule": work.rule,
        "threads": work.threads,
        "tensors": len(work.shapes),
        "elements": work.elements,
        "bytes_per_element": work.bytes_per_element,
        "against": row.against,
        "of": row.of,
        "target": row.target,
        "goal": row.goal,
        "at_most": row.at_most,
        "rounds": len(turns.seconds[row.of]),
        "batch": turns.batch,
        "seconds": {label: spread(seconds) for label, seconds in turns.seconds.items()},
        "ratios": ratios(turns, row.of),
        "absent": absent,
    }


def verdict(result: dict[str, Any]) -> str:
    """Whether a measured row keeps its promise: goal, target, missed, or nothing where none was made."""
    found = result.get("ratios", {}).get(result["against"])
    if result["target"] is None or found is None:
        return ""
    sign = -1 if result["at_most"] else 1
    if result["goal"] is not None and sign * found["median"] >= sign * result["goal"]:
        return "goal"
    return "target" if sign * found["median"] >= sign * result["target"] else "missed"


def machine() -> dict[str, Any]:
    """Where the numbers come from."""
    info = fastopt.info()
    return {
        "cpu": _cpu(),
        "cpus": info.threads,
        "caches": _caches(),
        "memory_gib": round(memory_bytes() / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "huge_pages": _huge_pages(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "fastopt": info.version,
        "compiler": info.compiler,
        "flags": info.flags,
        "isa": info.isa,
        "threads_why": info.threads_why,
        "peers": installed(),
    }


def memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _cpu() -> str:
    try:
        lines = [line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines()]
    except OSError:
        return platform.processor() or platform.machine()
    fields = {key.strip(): value.strip() for key, _, value in lines}
    family = ", ".join(f"{key} {fields[key]}" for key in ("cpu family", "model") if key in fields)
    return fields.get("model name", platform.machine()) + (f" ({family})" if family else "")


def _caches() -> dict[str, str]:
    """Of the first CPU: "L1d" and so on, as the system writes their sizes."""
    found = {}
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            level, kind, size = ((folder / name).read_text().strip() for name in ("level", "type", "size"))
        except OSError:
            continue
        if kind != "Instruction":
            found[f"L{level}" + "d" * (kind == "Data")] = size
    return found


def _huge_pages() -> str:
    try:
        text = Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text()
    except OSError:
        return "unknown"
    return text.partition("[")[2].partition("]")[0] or "unknown"
