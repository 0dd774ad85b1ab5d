"""opt.save and opt.load: what comes back, what is refused, and what a stranger's file can do (nothing)."""

from __future__ import annotations

import copy
import json
import math
import random
import re
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import fastopt
from fastopt import schedules
from fastopt.saving import file as checkpoint
from tests.cases import CASES, Case, ordinary
from tests.lockstep import assert_same_bits, loss_of, snapshot
from tests.saving.checkpoints import Parts, digest


def parameters(dtype: Any = np.float64) -> Any:
    rng = np.random.default_rng(0)
    return {
        "W": np.asfortranarray(ordinary(rng, (2, 3), dtype)),
        "$a/b~": [ordinary(rng, (), dtype)],
        "none": np.ones((0, 2), dtype),
    }


def make(**more: Any) -> fastopt.Optimizer:
    return fastopt.NAdam(parameters(), momentum_decay=0.004, average=0.9, **more)


def stepped(opt: fastopt.Optimizer, steps: int = 2) -> fastopt.Optimizer:
    for _ in range(steps):
        opt.step({"W": np.ones((2, 3)), "$a/b~": [np.array(2.0)], "none": np.ones((0, 2))})
    return opt


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.safetensors"


@pytest.fixture
def parts(path: Path) -> Parts:
    stepped(make()).save(path)
    return Parts(path.read_bytes())


def refuses(opt: fastopt.Optimizer, path: Path, data: bytes) -> str:
    """The error of loading these bytes, after which nothing has changed."""
    path.write_bytes(data)
    before, shown = snapshot(opt), repr(opt)
    with pytest.raises(ValueError, match="was not loaded: ") as error:
        opt.load(path)
    assert (snapshot(opt), repr(opt)) == (before, shown)
    return str(error.value)


# What comes back


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_everything_comes_back(case: Case, dtype: Any, path: Path) -> None:
    rng = np.random.default_rng(1)
    opt = case.make([ordinary(rng, 5, dtype), ordinary(rng, (2, 3), dtype)])
    opt.step([ordinary(rng, 5, dtype), None], **loss_of(opt))
    opt.step([ordinary(rng, 5, dtype), ordinary(rng, (2, 3), dtype)], **loss_of(opt))
    opt.save(path)
    restored = case.make([p.copy() for p in opt._engine.plan.params])
    restored.load(path)
    assert_same_bits(opt, restored)
    assert repr(opt) == repr(restored)
    assert restored.state_dict().keys() == opt.state_dict().keys()


def test_numbers_changed_by_hand_come_back_and_schedules_stay(path: Path) -> None:
    opt = make(lr=lambda t: 0.5, clip_norm=3.0)
    opt.maximize, opt.on_nonfinite, opt.l2 = True, "skip", 0.1 + 0.2
    opt.save(path)

    def lr(t: int) -> float:
        return 0.25

    other = make(lr=lr)
    other.load(path)
    assert (other.lr, other.l2, other.clip_norm) == (lr, 0.1 + 0.2, 3.0)
    assert (other.maximize, other.on_nonfinite) == (True, "skip")


def test_built_in_schedules_come_back_by_name_and_arguments(path: Path) -> None:
    lr = schedules.warmup(5, schedules.cosine(0.1 + 0.2, 20, eta_min=1e-3))
    opt = make(lr=lr, l2=schedules.ReduceOnPlateau(0.5, patience=1), betas=(0.5, schedules.one_cycle(0.7, 30).momentum))
    for metric in (1.0, 2.0, 2.0, 2.0):
        opt.l2.update(metric)
        stepped(opt, 1)
    opt.save(path)
    other = make(l2=schedules.ReduceOnPlateau(9.0))
    own = other.l2
    other.load(path)
    assert other.l2 is own
    assert_same_nest(other.state_dict(), opt.state_dict())
    assert [other.lr(t) for t in range(30)] == [lr(t) for t in range(30)]
    assert [stepped(opt, 1), stepped(other, 1)][0].t == 5
    for each in (opt, other):
        each.l2.update(2.0)
    assert other.l2(5) == opt.l2(5) < 0.5


def test_the_public_package_reads_the_file(path: Path) -> None:
    opt = stepped(make())
    opt.save(path)
    arrays = safetensors.numpy.load_file(path)
    expected = {f"/averages/{name}": a for name, a in zip(opt.names, opt._engine.plan.averages, strict=True)}
    for name, entry in opt.state.items():
        expected |= {f"/state/{name}/{key}": x for key, x in entry.items() if isinstance(x, np.ndarray)}
    escaped = {name.replace("$a/b~", "$a~1b~0"): a for name, a in expected.items()}
    assert arrays.keys() == escaped.keys()
    for name, a in arrays.items():
        assert a.shape == escaped[name].shape
        assert a.dtype == escaped[name].dtype
        assert a.tobytes() == escaped[name].tobytes()
    assert not any(np.shares_memory(a, b) for a in arrays.values() for b in opt._engine.plan.params)


def test_every_array_is_aligned_in_the_file(path: Path) -> None:
    sizes = [("a", np.float32, 3), ("b", np.float64, 1), ("c", np.int8, 5), ("d", np.float64, 2), ("e", np.uint16, 1)]
    checkpoint.write(path, {name: np.ones(n, dtype) for name, dtype, n in sizes})
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    for name, dtype, _ in sizes:
        assert (start + Parts(data).header[f"/{name}"]["data_offsets"][0]) % np.dtype(dtype).itemsize == 0


def nests(leaves: Any) -> Any:
    names = st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(
        ["$array", "$tuple", "$", "$$", "a/b", "~1", "__metadata__", "state", ""]
    )
    return st.recursive(
        leaves,
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.lists(inner, max_size=3).map(tuple)
            | st.dictionaries(names, inner, max_size=3)
        ),
        max_leaves=12,
    )


arrays = hnp.arrays(
    st.sampled_from([np.dtype(name) for name in checkpoint.DTYPES] + [np.dtype(">f4"), np.dtype(">i8")]),
    hnp.array_shapes(min_dims=0, min_side=0, max_side=3),
)
plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | arrays | arrays.map(np.asfortranarray)


@given(nest=nests(plain))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_any_nest_comes_back(nest: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "nest"
    checkpoint.write(path, nest)
    assert_same_nest(nest, checkpoint.read(path, lambda outline: assert_same_nest(nest, outline, outline=True)))


def assert_same_nest(a: Any, b: Any, outline: bool = False) -> None:
    assert type(a) is type(b)
    if isinstance(a, np.ndarray):
        assert a.shape == b.shape
        assert a.dtype.newbyteorder("=") == b.dtype
        assert outline or np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
        assert outline or a.dtype.byteorder == ">" or a.tobytes() == b.tobytes()
    elif isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            assert_same_nest(a[key], b[key], outline)
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same_nest(x, y, outline)
    else:
        assert repr(a) == repr(b)


@pytest.mark.parametrize("nest", [{"a": object()}, {1: 2}, {"a": 1j}, {"a": np.ones(1, complex)}, {"a": {1, 2}}])
def test_what_a_checkpoint_cannot_hold_is_refused_before_anything_is_written(nest: Any, path: Path) -> None:
    path.write_text("as it was")
    with pytest.raises(TypeError):
        checkpoint.write(path, nest)
    assert [*path.parent.iterdir()] == [path]
    assert path.read_text() == "as it was"


def test_half_a_character_in_a_name(path: Path) -> None:
    """JSON can hold it, and the safetensors package cannot read it: only where it would name an array."""
    fastopt.SGD({"\ud800": np.ones(1)}, lr=0.1).save(path)
    fastopt.SGD({"\ud800": np.ones(1)}, lr=0.2).load(path)
    with pytest.raises(ValueError, match="half a character"):
        fastopt.Adam({"\ud800": np.ones(1)}).save(path)


@pytest.mark.parametrize(
    ("limit", "words"), [("LARGEST_HEADER", "join small parameters"), ("MOST_VALUES", "no checkpoint holds so many")]
)
def test_what_could_not_be_loaded_is_not_written(
    limit: str, words: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, limit, -300)
    with pytest.raises(ValueError, match=words):
        make().save(path)
    assert not path.exists()


def test_lbfgs_goes_on_to_the_bit(path: Path) -> None:
    def run(opt: Any, x: Any, steps: int) -> Any:
        for _ in range(steps):
            opt.step(lambda: (float(((x["x"] ** 2 - 1) ** 2).sum()), {"x": 4 * x["x"] * (x["x"] ** 2 - 1)}))
        return opt

    x = {"x": np.linspace(0.2, 3.0, 12).reshape(3, 4)}
    opt = run(fastopt.LBFGS(x, history=4, max_iterations=1), x, 5)
    opt.save(path)
    copied_x, copied = copy.deepcopy((x, opt))
    y = {"x": x["x"].copy()}
    other = fastopt.LBFGS(y, history=4, max_iterations=1)
    other.load(path)
    for each, own in ((opt, x), (other, y), (copied, copied_x)):
        run(each, own, 4)
    assert x["x"].tobytes() == y["x"].tobytes() == copied_x["x"].tobytes()
    assert repr(opt) == repr(other) == repr(copied)
    with pytest.raises(ValueError, match="not a state dict"):
        make().load(path)
    for nest in ({"optimizer": "LBFGS", "t": 1, "state": 5}, {"optimizer": "LBFGS", "t": 1, "state": {"x": 5}}, 5):
        checkpoint.write(path, nest)
        with pytest.raises(ValueError, match="was not loaded"):
            other.load(path)


# What is refused


def test_no_byte_can_change(path: Path, parts: Parts) -> None:
    """Every byte of a file in turn with one of its bits flipped, and every length that is too short."""
    whole = path.read_bytes()
    opt, draw = make(), random.Random(0)
    for at in range(len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << draw.randrange(8)
        refuses(opt, path, bytes(damaged))
    for length in range(len(whole)):
        refuses(opt, path, whole[:length])
    refuses(opt, path, whole + b"\0")


def described(change: Callable[[Any], object]) -> Callable[[Parts], bytes]:
    """A file with another description, rightly signed."""

    def tamper(parts: Parts) -> bytes:
        change(parts.description)
        return parts.join()

    return tamper


def headed(change: Callable[[Any], object]) -> Callable[[Parts], bytes]:
    def tamper(parts: Parts) -> bytes:
        change(parts.header)
        return parts.join()

    return tamper


def described_as(text: str) -> Callable[[Parts], bytes]:
    return lambda parts: parts.join(text)


def framed(header: bytes, body: bytes = b"") -> Callable[[Parts], bytes]:
    return lambda parts: len(header).to_bytes(8, "little") + header + body


def without_metadata(parts: Parts) -> bytes:
    return safetensors.numpy.save({"/state/W/m": np.ones((2, 3))})


def with_more_metadata(parts: Parts) -> bytes:
    parts.metadata["format"] = "pt"
    return parts.join()


def damaged_array(parts: Parts) -> bytes:
    whole = bytearray(parts.join())
    whole[-8] ^= 1
    return bytes(whole)


def entry(d: Any, pointer: str = "W/m") -> Any:
    name, key = pointer.split("/")
    return d["state"]["state"][name][key]["$array"]


HOSTILE: dict[str, tuple[Callable[[Parts], bytes], str]] = {
    "an empty file": (lambda parts: b"", "it is empty"),
    "a header longer than the file": (lambda parts: b"\xff" * 7 + b"\x00", "no safetensors file"),
    "a header of 2^63 bytes": (lambda parts: b"\xff" * 8 + b"{}", "no safetensors file"),
    "a bomb of brackets as header": (framed(b"[" * 100_000), "no safetensors file"),
    "nested metadata": (framed(b'{"__metadata__":' + b'{"a":' * 1000), "no safetensors file"),
    "a pickle": (lambda parts: b"\x80\x04\x95\x00\x00\x00\x00\x00cos\nsystem\n(S'true'\ntR.", "no safetensors file"),
    "weights of a model": (without_metadata, "no checkpoint of fastopt"),
    "more metadata": (with_more_metadata, "no checkpoint of fastopt"),
    "a damaged array": (damaged_array, r"the array '/averages/\$a~1b~0.0' is damaged"),
    "a bomb of brackets as description": (described_as("[" * 100_000), "nested too deeply"),
    "a bomb of objects": (described_as('{"a":' * 100_000), "nested too deeply"),
    "a deep state": (
        described_as('{"format":1,"fastopt":"","state":' + '{"a":' * 900 + "1" + "}" * 901),
        "nested too deeply|does not list",
    ),
    "millions of values": (described_as("[" + "{}," * 1_000_000 + "0]"), "a much larger optimizer"),
    "no JSON": (described_as("{"), "Expecting"),
    "a name twice": (described_as('{"format":1,"format":1,"fastopt":"","state":{}}'), "a name twice"),
    "no number": (described_as('{"format":1,"fastopt":"","state":{"t":NaN}}'), "not finite"),
    "too large a number": (described_as('{"format":1,"fastopt":"","state":{"t":1e999}}'), "not finite"),
    "an integer of 5000 digits": (described_as('{"format":1,"fastopt":"","state":' + "9" * 5000 + "}"), "digits"),
    "a list": (described_as("[]"), "not that of a checkpoint"),
    "no state": (described(lambda d: d.pop("state")), "not that of a checkpoint"),
    "a newer format": (described(lambda d: d.update(format=3, fastopt="9.0")), r"(?s)fastopt 9\.0.*upgrade"),
    "a newer format of another outline": (described_as('{"format":4,"new":1}'), "upgrade"),
    "an older format": (described(lambda d: d.update(format=0)), "not that of a checkpoint"),
    "a format that is true": (described(lambda d: d.update(format=True)), "not that of a checkpoint"),
    "no optimizer's state": (described(lambda d: d.update(state=[1, 2])), "does not list"),
    "an unknown tag": (described(lambda d: d["state"].update({"$call": "os.system"})), r"unknown '\$call'"),
    "a broken tuple": (described(lambda d: d["state"].update(t={"$tuple": 3})), r"unknown '\$tuple'"),
    "a broken float": (described(lambda d: d["state"].update(t={"$float": "1e5"})), r"unknown '\$float'"),
    "an array that is not there": (
        described(lambda d: d["state"].update(t={"$array": {"dtype": "F64", "shape": [], "blake2b": ""}})),
        "lists '/t', which it does not hold",
    ),
    "an array without description": (
        described(lambda d: d["state"]["averages"].pop("W")),
        "does not list: 1, as '/averages/W'",
    ),
    "another shape than described": (described(lambda d: entry(d).update(shape=[3, 2])), "does not agree"),
    "another type than described": (described(lambda d: entry(d).update(dtype="F32")), "does not agree"),
    "an array's entry with more": (described(lambda d: entry(d).update(more=1)), "does not agree"),
    "an array without checksum": (described(lambda d: entry(d).update(x=entry(d).pop("blake2b"))), "does not agree"),
    "no array's entry": (described(lambda d: d["state"]["state"]["W"].update(m={"$array": 5})), "does not agree"),
    "an array cast": (
        lambda parts: (
            parts.header["/state/W/m"].update(dtype="I64"),
            entry(parts.description).update(dtype="I64"),
            parts.join(),
        )[2],
        r"'m' of 'W' is int64 \(2, 3\): expected float64 \(2, 3\)",
    ),
    "a type unknown to NumPy": (
        lambda parts: (
            parts.header["/state/W/m"].update(dtype="BF16", shape=[24]),
            entry(parts.description).update(dtype="BF16", shape=[24]),
            parts.join(),
        )[2],
        "unknown type BF16",
    ),
    "an unknown type": (headed(lambda h: h["/state/W/m"].update(dtype="O8")), "no safetensors file"),
    "a negative shape": (headed(lambda h: h["/state/W/m"].update(shape=[-2, -3])), "no safetensors file"),
    "more elements than 2^64": (headed(lambda h: h["/state/W/m"].update(shape=[2**40, 2**40])), "no safetensors file"),
    "offsets past the end": (headed(lambda h: h["/averages/W"].update(data_offsets=[0, 2**40])), "no safetensors file"),
    "offsets turned round": (headed(lambda h: h["/averages/W"].update(data_offsets=[48, 0])), "no safetensors file"),
    "overlapping arrays": (
        headed(lambda h: h["/averages/W"].update(data_offsets=h["/state/W/m"]["data_offsets"])),
        "no safetensors file",
    ),
    "a gap": (lambda parts: (setattr(parts, "body", parts.body + b"\0" * 8), parts.join())[1], "no safetensors file"),
    "a shape that no array has": (
        lambda parts: (
            parts.header["/state/none/m"].update(shape=[2**63, 0]),
            entry(parts.description, "none/m").update(shape=[2**63, 0]),
            parts.join(),
        )[2],
        "a shape that no array can have",
    ),
    "100 dimensions": (
        lambda parts: (
            parts.header["/state/none/m"].update(shape=[0] * 100),
            entry(parts.description, "none/m").update(shape=[0] * 100),
            parts.join(),
        )[2],
        "a shape that no array can have",
    ),
    "a count past 2^53": (described(lambda d: d["state"].update(t=2**60)), "t is 1152921504606846976"),
    "more steps of a tensor than steps": (described(lambda d: d["state"]["state"]["W"].update(t=3)), "more than the 2"),
    "a hyperparameter past floats": (described(lambda d: d["state"]["groups"][0].update(lr=10**400)), "too large"),
    "a schedule that is not here": (
        described(lambda d: d["state"]["groups"][0].update(lr="schedule")),
        "lr followed a schedule",
    ),
    "betas that are a list": (described(lambda d: d["state"]["groups"][0].update(betas=[0.5, 0.5])), "betas is"),
    "betas of three": (
        described(lambda d: d["state"]["groups"][0].update(betas={"$tuple": [0.5, 0.5, 0.5]})),
        "expected 2 values",
    ),
    "names that are no names": (described(lambda d: d["state"]["groups"][0].update(names=[[1]])), "other parameters"),
    "groups that are no groups": (described(lambda d: d["state"].update(groups=[5])), "no dict, but 5"),
    "an option that is true, as a number": (
        described(lambda d: d["state"]["fixed"].update(decay_by_lr=1)),
        "decay_by_lr=1",
    ),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_is_wrong_is_refused(what: str, path: Path, parts: Parts) -> None:
    tamper, words = HOSTILE[what]
    error = refuses(make(), path, tamper(parts))
    assert re.search(words, error), error


def test_the_untouched_parts_join_to_a_file_that_loads(path: Path, parts: Parts) -> None:
    """So each of the above is refused for what was done to it."""
    opt = make()
    path.write_bytes(parts.join())
    opt.load(path)
    assert_same_state(opt, stepped(make()))


def assert_same_state(a: fastopt.Optimizer, b: fastopt.Optimizer) -> None:
    assert_same_nest(a.state_dict(), b.state_dict())


def test_everything_that_does_not_fit_is_listed_at_once(path: Path) -> None:
    stepped(make()).save(path)
    other = fastopt.NAdam({"W": np.ones((3, 2)), "$a/b~": [np.ones((), np.float32)], "new": np.ones(1)}, clip_norm=1.0)
    error = refuses(other, path, path.read_bytes())
    for words in (
        "made with momentum_decay=0.004",
        "state of parameters missing: ['new']",
        "state of parameters not known here: ['none']",
        "averages of parameters not known here: ['W', '$a/b~.0', 'none']",
        "'m' of 'W' is float64 (2, 3): expected float64 (3, 2)",
        "'v' of '$a/b~.0' is float64 (): expected float32 ()",
    ):
        assert words in error


def test_a_nest_that_is_no_state(path: Path) -> None:
    for nest in ([1, 2], None, {}, {"t": 1}, "state"):
        checkpoint.write(path, nest)
        assert "not a state dict" in refuses(make(), path, path.read_bytes())


def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        make().load(tmp_path / "missing")
    with pytest.raises(ValueError, match="not a regular file"):
        make().load(tmp_path)


# What it costs


def test_saving_copies_nothing_and_loading_takes_the_file_once(path: Path) -> None:
    opt = fastopt.Adam(np.ones(1_000_000))
    opt.save(path)
    size = path.stat().st_size
    for action, limit in ((opt.save, 0.1), (opt.load, 1.1), (opt.load_state_dict, 0.1)):
        argument: Any = opt.state_dict() if action == opt.load_state_dict else path
        tracemalloc.start()
        action(argument)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < limit * size, action


def test_a_terabyte_that_does_not_fit_costs_nothing(path: Path, parts: Parts) -> None:
    """A sparse file, rightly described, of which the array would be 2^40 bytes."""
    end = len(parts.body)
    parts.header["/state/W/huge"] = {"dtype": "F64", "shape": [2**37], "data_offsets": [end, end + 2**40]}
    parts.description["state"]["state"]["W"]["huge"] = {
        "$array": {"dtype": "F64", "shape": [2**37], "blake2b": digest(b"")}
    }
    data = parts.join()
    with path.open("wb") as file:
        file.write(data)
        file.truncate(len(data) + 2**40)
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"not known here: \['huge'\]"):
        make().load(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


def test_a_length_that_is_a_lie_costs_nothing(path: Path) -> None:
    path.write_bytes((90_000_000).to_bytes(8, "little") + b"{}")
    tracemalloc.start()
    with pytest.raises(ValueError, match="damaged"):
        make().load(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


def with_header(header: str) -> bytes:
    return len(header).to_bytes(8, "little") + header.encode()


@pytest.mark.parametrize(
    "header",
    [
        '{"__metadata__":{' + ",".join(f'"{i}":""' for i in range(600_000)) + "}}",
        '{"__metadata__":{' + ",".join(rf'"{i}\\":"\\"' for i in range(600_000)) + "}}",
        '{"a":{"dtype":"U8","shape":[' + "0," * 4_000_000 + '0],"data_offsets":[0,0]}}',
    ],
    ids=["metadata", "metadata that end in backslashes", "a shape"],
)
def test_a_header_of_too_many_entries_is_not_parsed(header: str, path: Path) -> None:
    """The safetensors package would take three hundred bytes for an entry of ten."""
    assert "its header has more entries" in refuses(make(), path, with_header(header))


def test_names_of_quotes_and_backslashes_count_as_one(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "MOST_VALUES", 0)
    params = {f'{i}"\\' * 99: np.ones((1,) * 20) for i in range(9)}
    fastopt.Adam(params).save(path)
    fastopt.Adam(params).load(path)


def test_import_stays_light() -> None:
    code = "import sys, fastopt; assert not [m for m in sys.modules if m.startswith('safetensors')]"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_no_state_is_read_or_written_amid_a_step(path: Path) -> None:
    tried: list[str] = []

    def lr(t: int) -> float:
        for action in (lambda: opt.save(path), lambda: opt.load(path), opt.state_dict):
            with pytest.raises(RuntimeError, match="inside a step"):
                action()
            tried.append("refused")
        return 0.1

    opt = fastopt.SGD(np.ones(3), lr=lr)
    assert opt.step(np.ones(3)).applied
    assert len(tried) == 3
    opt.save(path)


def test_another_thread_reads_no_state_while_this_one_holds_the_optimizer(path: Path) -> None:
    """It would go on reading when this one lets go and steps."""
    opt = fastopt.SGD(np.ones(3), lr=0.1, average=0.5)
    with ThreadPoolExecutor(1) as other:
        with opt.averaged():
            for action in (opt.state_dict, lambda: opt.save(path)):
                with pytest.raises(RuntimeError, match="the averages are in the parameters"):
                    other.submit(action).result(timeout=60)
                opt.save(path)
            with pytest.raises(RuntimeError, match="the averages are in the parameters"):
                opt.step(np.ones(3))
        assert other.submit(opt.step, np.ones(3)).result(timeout=60).applied


def test_the_description_is_json_with_exact_numbers(parts: Parts) -> None:
    saved = stepped(make()).state_dict()
    assert parts.description["format"] == 2
    assert parts.description["fastopt"] == fastopt.__version__
    assert parts.description["state"]["state"]["W"]["mu_product"] == saved["state"]["W"]["mu_product"]
    assert parts.description["state"]["groups"][0]["betas"] == {"$tuple": [0.9, 0.999]}
    assert json.loads(parts.metadata["fastopt"]) == parts.description
    assert not math.isnan(parts.description["state"]["groups"][0]["lr"])


@pytest.mark.parametrize(
    "path", ["", "new/", "a\0b", "\ud800", b"new/", 3, None, Path("x").open], ids=lambda path: ascii(path)[:20]
)
@pytest.mark.parametrize("method", ["save", "load"])
def test_a_path_that_names_no_file(method: str, path: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for opt in (fastopt.SGD([np.ones(2)], lr=0.1), fastopt.LBFGS([np.ones(2)])):
        with pytest.raises(TypeError if path in (3, None) or callable(path) else ValueError, match=r"^path is "):
            getattr(opt, method)(path)
    assert list(tmp_path.iterdir()) == []
