"""Feeds damaged and hostile files to opt.load:

    python -m tools.fuzz_checkpoint [--inputs N] [--seed S]       mutations of good files; 100,000 by default
    python -m tools.fuzz_checkpoint --guided [--inputs N]         guided by coverage, where atheris is installed

Half of the mutations are of bytes; the others are of the header, the description and the arrays, with all checksums
put right again, so that what lies behind these is reached. An input that loads, or is refused with words not seen
before, is mutated further. Each input must be refused with a ValueError and change nothing, or load as another reader
(tests/saving/checkpoints.py) reads it, with every checksum right. No load may take more memory than in proportion to
its file.
The guided run begins with what a short mutating one found.
Exits with an error, and the input in a file, at the first that does otherwise. From the root of the project.
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import re
import resource
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np

from tests.saving.checkpoints import Parts, digest
from tools import fuzz_seeds

VALUES = json.loads(
    """[null, true, false, 0, 1, -1, 2147483648, 9007199254740992, 9223372036854775808, 1000000000000000000000000000000,
    0.0, -0.0, 0.5, 1.0, 1e308, 5e-324, 1e400, "", "W", "schedule", "raise", "skip", "F32", "F64", "BF16", "inf",
    "$tuple", "$array", "\\ud800", "\\u0000", [], {}, [0], [3, 2], [1099511627776, 1099511627776],
    [9223372036854775808, 0],
    [0, 1099511627776], {"$tuple": []}, {"$tuple": [0.5, 0.5]}, {"$float": "nan"}, {"$float": "inf"}, {"$$": 1},
    {"$x": 1}, {"W": {}}, {"$array": {"dtype": "F64", "shape": [2, 3], "blake2b": ""}}]"""
)
VALUES += [10**400, [0] * 600, {str(i): 0 for i in range(300)}]
MOST_VALUES = 200
"""In place of the million of fastopt.checkpoint, which no input of this size can exceed."""
MEMORY = 2**21, 200
"""Bytes that a load may take: so many, for lists nested as deep as Python's stack goes while atheris watches each
frame, and so many for each of the file's."""
ADDRESSES = 2**30
"""Bytes that the whole run may take, so that what allocates past Python is seen too."""
NUMBERS = [0, 1, 7, 8, 255, 2**16, 2**31 - 1, 2**32, 2**62, 2**63, 2**64 - 1]


class Target:
    """Loads inputs, the first byte of which chooses the optimizer, and checks what comes of it."""

    def __init__(self, folder: str) -> None:
        from fastopt.saving import file as checkpoint

        checkpoint.MOST_VALUES = MOST_VALUES
        self.path = Path(folder) / "input.safetensors"
        self.most_memory = 0.0
        self.optimizers = fuzz_seeds.optimizers()
        self.seeds = []
        for i, opt in enumerate(self.optimizers):
            opt.save(self.path)
            self.seeds.append(bytes([i]) + self.path.read_bytes())
        # No file brings back the user's own, nor two objects that are one.
        self.callables = [
            [{name: x for name, x in group.items() if callable(x) or isinstance(x, tuple)} for group in opt.groups]
            for opt in self.optimizers
        ]
        self.good = [contents(opt) for opt in self.optimizers]
        tracemalloc.start()

    def attempt(self, data: bytes) -> str:
        """What became of the input: "loaded", or the words of its refusal without the values in them."""
        which = data[0] % len(self.optimizers) if data else 0
        opt, good, file = self.optimizers[which], self.good[which], data[1:]
        self.path.write_bytes(file)
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        try:
            opt.load(self.path)
        except ValueError as error:
            self.check_memory(before, len(file))
            if contents(opt) != good:
                raise AssertionError("it was refused, and something has changed") from error
            words = (
                str(error)
                .partition("was not loaded: ")[2]
                .removeprefix("this state does not fit; nothing was changed:")
            )
            return re.sub(r"'[^']*'|\d+|\s+", " ", words)[:60]
        self.check_memory(before, len(file))
        loaded = opt.state_dict()
        parts = Parts(file)
        if len(nodes(parts.description)) > MOST_VALUES + 100 * len(opt.names):
            raise AssertionError("it has more values than it may, and was loaded")
        expected = plain(parts)
        if not same(expected, loaded):
            raise AssertionError(f"the file holds {expected}, and what was loaded is {loaded}")
        for group, callables in zip(opt.groups, self.callables[which], strict=True):
            group.update(callables)
        self.path.write_bytes(self.seeds[which][1:])
        opt.load(self.path)
        if contents(opt) != good:
            raise AssertionError("the good file does not undo it")
        return "loaded"

    def check_memory(self, before: int, size: int) -> None:
        _, peak = tracemalloc.get_traced_memory()
        constant, factor = MEMORY
        self.most_memory = max(self.most_memory, (peak - before) / (constant + factor * size))
        if self.most_memory > 1:
            raise AssertionError(f"loading took {peak - before} bytes, and the file has {size}")


def contents(opt: Any) -> tuple[Any, ...]:
    """All that loading can change, to compare."""
    # Here, for atheris is to see fastopt before anything imports it.
    from tests.lockstep import plateaus, snapshot

    values = repr(([group._values for group in opt.groups], opt._engine.options, opt.on_nonfinite, opt.maximize))
    return values, opt._engine.skipped, [plateau.state_dict() for plateau in plateaus(opt)], snapshot(opt)


def plain(parts: Parts) -> Any:
    """The state in a file, by another reader than fastopt's, which looks at all checksums too."""
    types = {"F32": np.float32, "F64": np.float64}
    if parts.metadata["blake2b"] != digest(parts.metadata["fastopt"].encode()):
        raise AssertionError("it was loaded with another description than was signed")

    def decoded(x: Any, pointer: str) -> Any:
        if isinstance(x, list):
            return [decoded(item, f"{pointer}/{i}") for i, item in enumerate(x)]
        if not isinstance(x, dict):
            return x
        if "$tuple" in x:
            return tuple(decoded(x["$tuple"], pointer))
        if "$float" in x:
            return float(x["$float"])
        if "$array" in x:
            entry = parts.header[pointer]
            described = {"dtype": entry["dtype"], "shape": entry["shape"], "blake2b": digest(parts.array(pointer))}
            if x["$array"] != described:
                raise AssertionError(f"{pointer} was loaded, described as {x['$array']}: it is {described}")
            return np.frombuffer(parts.array(pointer), types[entry["dtype"]]).reshape(entry["shape"])
        names = {key: key.removeprefix("$") for key in x}
        return {name: decoded(x[key], f"{pointer}/{name}") for key, name in names.items()}

    return decoded(parts.description["state"], "")


def same(a: Any, b: Any, key: str = "") -> bool:
    """Equal to the bit; the order of names and 1 for 1.0 are no difference."""
    if isinstance(b, np.ndarray):
        return (a.shape, a.dtype, a.tobytes()) == (b.shape, b.dtype, b.tobytes())
    if isinstance(b, dict) and b.keys() == {"name", "arguments"}:
        if a == "schedule":
            return True  # a callable of the user's own: the optimizer's stays
        # Of a schedule, a file may leave out arguments that have a default, and say a number for a constant.
        a = a if isinstance(a, dict) else {"name": "constant", "arguments": {"v": a}}
        given = a["arguments"].items()
        return a["name"] == b["name"] and all(
            x is None if key not in b["arguments"] else same(x, b["arguments"][key]) for key, x in given
        )
    if isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key], key) for key in b)
    if key == "names":
        return set(a) == set(b)
    if isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if key == "weight" and a == b == 0:
        return True  # nothing is accumulated: -0.0 is no difference
    a = float(a) if isinstance(b, float) and type(a) is int else a
    return (a == b and str(a)[:1] == str(b)[:1]) or (a != a and b != b)


# Mutations


def mutated(data: bytes, draw: random.Random) -> bytes:
    """A changed file, half of the time with its checksums put right."""
    if draw.random() < 0.5:
        try:
            parts = Parts(data[1:])
            for _ in range(draw.choice([1, 1, 1, 2, 5])):
                draw.choice([change_value, change_value, change_header, change_body, change_names])(parts, draw)
            return data[:1] + parts.join()
        except (ValueError, LookupError, TypeError, ArithmeticError, AttributeError, RecursionError):
            pass
    return data[:1] + change_bytes(data[1:], draw)


def nodes(x: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) under x."""
    pairs = list(x.items()) if isinstance(x, dict) else list(enumerate(x)) if isinstance(x, list) else []
    found = [(x, key) for key, _ in pairs]
    for _, item in pairs:
        found += nodes(item)
    return found


def change(x: Any, draw: random.Random) -> None:
    places = nodes(x)
    container, key = draw.choice(places)
    kind = draw.randrange(6)
    if kind == 0:
        del container[key]
    elif kind == 1:
        container[key] = draw.choice([{"$tuple": [container[key]]}, [container[key]], {"W": container[key]}])
    elif kind == 2:
        other, there = draw.choice(places)
        container[key] = json.loads(json.dumps(other[there]))
    elif kind == 3 and type(container[key]) in (int, float):
        container[key] = draw.choice([container[key] + 1, -container[key], container[key] * 0.5, draw.random()])
    else:
        container[key] = json.loads(json.dumps(draw.choice(VALUES)))


def change_value(parts: Parts, draw: random.Random) -> None:
    change(parts.description, draw)


def change_header(parts: Parts, draw: random.Random) -> None:
    if draw.random() < 0.2:
        parts.metadata[draw.choice(["fastopt", "blake2b", "format"])] = "1"
        return
    change(parts.header, draw)


def change_body(parts: Parts, draw: random.Random) -> None:
    parts.body = change_bytes(parts.body, draw)


def change_names(parts: Parts, draw: random.Random) -> None:
    containers = [container for container, _ in nodes(parts.description) if isinstance(container, dict)]
    container = draw.choice(containers)
    name = draw.choice(["", "W", "$W", "$$", "$array", "a/b", "~", "\ud800", "t", "x" * 1000])
    container[name] = container.pop(draw.choice(list(container)))


def change_bytes(data: bytes, draw: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(draw.choice([1, 1, 1, 2, 8])):
        at, kind = draw.randrange(len(changed) + 1), draw.randrange(6)
        if kind == 0 and changed:
            changed[at % len(changed)] ^= 1 << draw.randrange(8)
        elif kind == 1:
            del changed[at:]
        elif kind == 2:
            del changed[at : at + draw.randrange(1, 20)]
        elif kind == 3:
            changed[at:at] = draw.choice([b"[" * 2000, b"{", b"}", b'"', b"\0", b" ", b'"t":1,', draw.randbytes(8)])
        elif kind == 4:
            changed[:8] = draw.choice(NUMBERS).to_bytes(8, "little")
        else:
            there = draw.randrange(len(changed) + 1)
            changed[at : at + 16] = changed[there : there + 16]
    return bytes(changed)


def fuzz(inputs: int, seed: int, target: Target) -> tuple[collections.Counter[str], list[bytes]]:
    """What became of them, by words, and those worth going on from."""
    draw = random.Random(seed)
    pool, counts = [*target.seeds, *fuzz_seeds.files(target.seeds)], collections.Counter()
    for data in pool:
        counts[target.attempt(data)] += 1
    for _ in range(inputs):
        data = mutated(pool[draw.randrange(len(pool))], draw)
        try:
            outcome = target.attempt(data)
        except BaseException:
            Path("checkpoint-that-failed.bin").write_bytes(data)
            raise
        if (outcome not in counts or outcome == "loaded") and len(data) < 20_000:
            pool.append(data)
            if len(pool) > 500:
                del pool[draw.randrange(len(target.seeds), len(pool))]
        counts[outcome] += 1
    return counts, pool


def guided(inputs: int, seed: int, target: Target, folder: str) -> None:
    """With libFuzzer, which sees what Python code each input reaches."""
    import atheris

    corpus = Path(folder) / "corpus"
    corpus.mkdir()
    for i, data in enumerate(fuzz(5000, seed, target)[1]):
        (corpus / str(i)).write_bytes(data)

    def attempt(data: bytes) -> None:
        try:
            target.attempt(data)
        except BaseException:
            Path("checkpoint-that-failed.bin").write_bytes(data)
            raise

    def mutate(data: bytes, longest: int, seed: int) -> bytes:
        draw = random.Random(seed)
        changed = mutated(data, draw) if data and draw.random() < 0.7 else atheris.Mutate(data, len(data) + 64)
        return changed[:longest]

    arguments = [
        sys.argv[0],
        f"-runs={inputs}",
        f"-seed={seed % 2**32}",
        "-max_len=20000",
        "-rss_limit_mb=4096",
        str(corpus),
    ]
    atheris.Setup(arguments, attempt, custom_mutator=mutate)
    atheris.Fuzz()


def instrument() -> None:
    """Has atheris see the code that loads, before anything imports it."""
    import atheris

    modules = ("checkpoint", "state", "persistence", "accumulation", "schedules")
    with atheris.instrument_imports(include=[f"fastopt.{name}" for name in modules]):
        import fastopt.saving.file
        import fastopt.schedules  # noqa: F401


def limit_memory() -> None:
    """Beyond what is mapped now: Python gets a MemoryError, others end the process."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + ADDRESSES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=time.time_ns())
    parser.add_argument("--guided", action="store_true")
    options = parser.parse_args()
    shared = "/dev/shm" if Path("/dev/shm").is_dir() else None
    if options.guided:
        instrument()
    with tempfile.TemporaryDirectory(dir=shared) as folder:
        target = Target(folder)
        if sys.platform == "linux":
            limit_memory()
        if options.guided:
            guided(options.inputs, options.seed, target, folder)
        else:
            counts, _ = fuzz(options.inputs, options.seed, target)
            for outcome, n in counts.most_common(20):
                print(f"{n:9}  {outcome}")
            print(f"and {len(counts) - 20} more ways to be refused")
            print(f"{options.inputs} inputs with seed {options.seed}: none crashed, none loaded wrongly")
            print(f"the most memory was {target.most_memory:.0%} of what is allowed")
