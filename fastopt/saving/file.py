"""A checkpoint: the state of an optimizer in one safetensors file. docs/checkpoints.md describes it.

The file is written here, byte by byte, and not by the safetensors package: from the optimizer's own arrays without a
copy, with the permissions that other files get. It is read by the package, which maps and checks it.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from typing import Any, BinaryIO, TypeAlias

import numpy as np

from fastopt.base.arguments import shown
from fastopt.base.atomic import replacing
from fastopt.base.tree import Array
from fastopt.base.version import __version__

FORMAT = 2
"""What is written. Format 1, of fastopt 0.1.0, differs in what a state holds, and is read: state_dict.upgraded."""
READ = 1, 2
LARGEST_HEADER = 100_000_000
"""In bytes; the safetensors package reads none that is larger."""
MOST_VALUES = 1_000_000
"""In a description: Python's objects for a value can take a hundred bytes, its text two."""
DTYPES = {
    "bool": "BOOL",
    **{f"{kind}{bits}": f"{kind[0].upper()}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)},
    **{f"float{bits}": f"F{bits}" for bits in (16, 32, 64)},
}

Path: TypeAlias = str | os.PathLike[str]
FindArray: TypeAlias = Callable[[str, Any], Array]
"""The array at a pointer, given its entry in the description."""


def save(path: Path, state: Any, names: Sequence[str]) -> None:
    """Writes the state of an optimizer of parameters with these names."""
    write(_file(path), state, _most_values(names))


def load(path: Path, names: Sequence[str], check: Callable[[Any], object], take: Callable[[Any], object]) -> None:
    """`take` gets the state in a file, unless `check` refuses it, which sees it first as `read` says."""
    path = _file(path)
    try:
        take(read(path, check, _most_values(names)))
    except ValueError as error:
        raise ValueError(f"{path!r} was not loaded: {error}") from error


def _file(path: Path) -> str:
    """The path as text, if it can be that of a file."""
    try:
        text = os.fsdecode(path)
        os.fsencode(text)
    except TypeError:
        raise TypeError(f"path is {shown(path)}: expected the name of a file, a str or os.PathLike") from None
    except UnicodeError as error:
        raise ValueError(f"path is {shown(path)}, which is no name of a file: {error}") from None
    if not text or "\0" in text or text.endswith(os.sep):
        raise ValueError(f"path is {shown(path)}: expected the name of a file")
    return text


def _most_values(names: Sequence[str]) -> int:
    """More than the description of such an optimizer has: some twenty for a parameter, and tables in schedules."""
    return MOST_VALUES + 100 * len(names)


def write(path: str, nest: Any, most: int = MOST_VALUES) -> None:
    """Writes a nest of dicts with names as keys, lists, tuples, numbers, strings, None and arrays to a file.

    Raises ValueError, before anything is written, for what `read` would refuse: a description of more than `most`
    values, or too long a header.
    """
    tensors: dict[str, Array] = {}
    encoded = _encode(nest, "", tensors)
    description = json.dumps({"format": FORMAT, "fastopt": __version__, "state": encoded}, separators=(",", ":"))
    if _values(description) > most:
        raise ValueError(f"more than {most} values are to be saved beside the arrays: no checkpoint holds so many")
    header = _header(description, tensors)
    if len(header) > LARGEST_HEADER:
        raise ValueError(
            f"{len(tensors)} arrays need a header of {len(header)} bytes, and a safetensors file has at most "
            f"{LARGEST_HEADER}: join small parameters into blocks with fastopt.arena"
        )
    with replacing(path) as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for pointer in _order(tensors):
            file.write(_bytes(tensors[pointer]))


def read(path: str, check: Callable[[Any], object], most: int = MOST_VALUES) -> Any:
    """The nest in a file that `write` wrote.

    `check` sees it first with zeros in place of the arrays, of their shapes and dtypes but without their memory: what
    it refuses has cost none. A description of more than `most` values is refused unseen.
    """
    from safetensors import SafetensorError, safe_open

    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        raise ValueError("it is not a regular file")
    if not found.st_size:
        raise ValueError("it is empty")
    # A file that may not be read raises here: of any that it cannot open, the package says that it is not there.
    with open(path, "rb") as opened:
        _refuse_excess(opened, found.st_size, most)
    try:
        with safe_open(path, framework="numpy") as file:
            encoded = _description(file.metadata(), most)
            check(_outline(file, encoded))
            return _decode(encoded, "", lambda pointer, entry: _array(file, pointer, entry))
    except SafetensorError as error:
        raise ValueError(f"it is damaged, or no safetensors file: {error}") from error
    except RecursionError as error:
        raise ValueError("its description is nested too deeply") from error


# A nest as JSON: what JSON has not is an object with one key that begins with "$"; a "$" at the beginning of any other
# key is doubled. An array is a tensor of the file, named by its JSON pointer (RFC 6901), as "/state/W/m".


def _encode(x: Any, pointer: str, tensors: dict[str, Array]) -> Any:
    """x as JSON has it; its arrays go to `tensors`."""
    if isinstance(x, np.ndarray):
        if x.dtype.name not in DTYPES:
            raise TypeError(f"the array at {pointer!r} has dtype {x.dtype}, which a checkpoint cannot hold")
        try:
            pointer.encode()
        except UnicodeEncodeError:
            raise ValueError(f"the name {pointer!r} has half a character (a lone surrogate): rename it") from None
        tensors[pointer] = _as_stored(x)
        return {
            "$array": {
                "dtype": DTYPES[x.dtype.name],
                "shape": list(x.shape),
                "blake2b": _digest(_bytes(tensors[pointer])),
            }
        }
    if isinstance(x, Mapping):
        found = {}
        for key, item in x.items():
            if not isinstance(key, str):
                raise TypeError(f"{pointer!r} has the key {key!r}: a checkpoint holds names (str) only")
            found["$" + key if key.startswith("$") else key] = _encode(item, _under(pointer, key), tensors)
        return found
    if isinstance(x, (list, tuple)):
        items = [_encode(item, _under(pointer, str(i)), tensors) for i, item in enumerate(x)]
        return items if isinstance(x, list) else {"$tuple": items}
    if isinstance(x, float) and not math.isfinite(x):
        return {"$float": repr(float(x))}
    if x is None or isinstance(x, (bool, int, float, str)):
        return x
    raise TypeError(f"{pointer!r} is {x!r}, a {type(x).__name__}, which a checkpoint cannot hold")


def _decode(x: Any, pointer: str, array: FindArray) -> Any:
    if isinstance(x, list):
        return [_decode(item, _under(pointer, str(i)), array) for i, item in enumerate(x)]
    if isinstance(x, float) and not math.isfinite(x):
        raise ValueError(f"its description has a number that is not finite at {pointer!r}")
    if not isinstance(x, dict):
        return x
    if len(x) == 1:
        (tag, item), *_ = x.items()
        if tag == "$array":
            return array(pointer, item)
        if tag == "$tuple" and isinstance(item, list):
            return tuple(_decode(item, pointer, array))
        if tag == "$float" and isinstance(item, str) and item in ("inf", "-inf", "nan"):
            return float(item)
    found = {}
    for key, item in x.items():
        if key.startswith("$") and not key.startswith("$$"):
            raise ValueError(f"its description has an unknown {key!r} at {pointer!r}")
        name = key.removeprefix("$")
        found[name] = _decode(item, _under(pointer, name), array)
    return found


def _under(pointer: str, key: str) -> str:
    return f"{pointer}/{key.replace('~', '~0').replace('/', '~1')}"


def _as_stored(a: Array) -> Array:
    """In C order and little-endian: itself, where it is so already."""
    return np.asarray(a, a.dtype.newbyteorder("<"), order="C")


def _bytes(a: Array) -> memoryview:
    return a.reshape(-1).view(np.uint8).data


def _digest(data: bytes | memoryview) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


# The file: the length of the header (8 bytes, little-endian), the header (JSON, padded with spaces), the arrays.


def _header(description: str, tensors: Mapping[str, Array]) -> bytes:
    metadata = {"fastopt": description, "blake2b": _digest(description.encode())}
    entries: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for pointer in _order(tensors):
        a = tensors[pointer]
        begin, end = end, end + a.nbytes
        entries[pointer] = {"dtype": DTYPES[a.dtype.name], "shape": a.shape, "data_offsets": [begin, end]}
    header = json.dumps(entries, separators=(",", ":")).encode()
    return header + b" " * (-len(header) % 8)


def _order(tensors: Mapping[str, Array]) -> list[str]:
    """Wide elements first, so that each is aligned in a file that is mapped."""
    return sorted(tensors, key=lambda pointer: -tensors[pointer].itemsize)


def _description(metadata: Mapping[str, str] | None, most: int) -> Any:
    """The state in a file's header, still encoded."""
    if metadata is None or metadata.keys() != {"fastopt", "blake2b"}:
        raise ValueError("it is no checkpoint of fastopt")
    text = metadata["fastopt"]
    if _digest(text.encode()) != metadata["blake2b"]:
        raise ValueError("its description is damaged (the checksum differs)")
    if _values(text) > most:
        raise ValueError(f"its description has more than {most} values: it is that of a much larger optimizer")
    document = json.loads(text, object_pairs_hook=_unique)
    written = document.get("format") if isinstance(document, dict) else None
    if type(written) is int and written > FORMAT:
        raise ValueError(
            f"it has format {written}, written by fastopt {document.get('fastopt')}, "
            f"and this version reads formats up to {FORMAT}: upgrade fastopt"
        )
    if type(written) is not int or written not in READ or document.keys() != {"format", "fastopt", "state"}:
        raise ValueError("its description is not that of a checkpoint of fastopt")
    return document["state"]


def _refuse_excess(file: BinaryIO, held: int, most: int) -> None:
    """Refuses a header that would cost the safetensors package much more memory than its size: one with more strings,
    the description's own aside, or values than are possible beside a description of `most` values."""
    size = int.from_bytes(file.read(8), "little")
    # No more than there is: memory is taken before anything is read.
    header = file.read(min(size, held)).replace(b"\\\\", b"") if size <= LARGEST_HEADER else b""
    strings = (header.count(b'"') - header.count(b'\\"')) // 2
    if strings > most or sum(map(header.count, (b"[", b"{", b","))) > 3 * most:
        raise ValueError("its header has more entries than that of any checkpoint of this optimizer")


def _values(text: str) -> int:
    """How many values there are in JSON, or more: each follows one of these."""
    return sum(map(text.count, "[{,"))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("its description has a name twice")
    return found


def _outline(file: Any, saved: Any) -> Any:
    """The state in a file with arrays of zeros, each in the memory of one element, for those of the file."""
    unlisted = set(file.keys())

    def zeros(pointer: str, entry: Any) -> Array:
        if pointer not in unlisted:
            raise ValueError(f"its description lists {pointer!r}, which it does not hold (or lists it twice)")
        unlisted.remove(pointer)
        held = file.get_slice(pointer)
        dtype, shape = held.get_dtype(), held.get_shape()
        agrees = isinstance(entry, dict) and entry.keys() == {"dtype", "shape", "blake2b"}
        if not agrees or (entry["dtype"], entry["shape"]) != (dtype, shape):
            raise ValueError(f"its description does not agree with the array {pointer!r}, which is {dtype} {shape}")
        if dtype not in DTYPES.values():
            raise ValueError(f"the array {pointer!r} is of the unknown type {dtype}")
        name = next(name for name, code in DTYPES.items() if code == dtype)
        try:
            return np.broadcast_to(np.zeros((), name), shape)
        except (ValueError, OverflowError):
            raise ValueError(f"the array {pointer!r} has a shape that no array can have: {shape}") from None

    outline = _decode(saved, "", zeros)
    if unlisted:
        raise ValueError(f"it holds arrays that its description does not list: {len(unlisted)}, as {min(unlisted)!r}")
    return outline


def _array(file: Any, pointer: str, entry: Any) -> Array:
    a: Array = file.get_tensor(pointer)
    if _digest(_bytes(_as_stored(a))) != entry["blake2b"]:
        raise ValueError(f"the array {pointer!r} is damaged (the checksum differs)")
    return a
