"""A file that is replaced whole or not at all: permissions, links, failures, and a crash at every call."""

from __future__ import annotations

import os
import resource
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastopt
from fastopt.base import atomic
from fastopt.base.atomic import replacing

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


def put(path: Any, data: bytes = b"new") -> None:
    with replacing(path) as file:
        file.write(data)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_permissions_are_those_that_other_files_get(tmp_path: Path) -> None:
    path, plain = tmp_path / "a", tmp_path / "b"
    put(path)
    plain.touch()
    assert mode(path) == mode(plain) == 0o640
    path.chmod(0o604)
    put(path, b"newer")
    assert mode(path) == 0o604
    assert path.read_bytes() == b"newer"
    assert sorted(tmp_path.iterdir()) == [path, plain]


def test_a_link_goes_on_pointing(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    real, link, dangling = tmp_path / "there" / "real", tmp_path / "link", tmp_path / "dangling"
    real.write_bytes(b"old")
    link.symlink_to(real)
    dangling.symlink_to(tmp_path / "there" / "made")
    put(link)
    put(dangling)
    assert link.is_symlink()
    assert dangling.is_symlink()
    assert real.read_bytes() == (tmp_path / "there" / "made").read_bytes() == b"new"


def test_names_of_any_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = ["plain", "x" * 255, os.fsdecode(b"\xff.safetensors"), "a b\n"]
    for name in names:
        put(name)
        assert Path(name).read_bytes() == b"new"
    assert sorted(os.listdir()) == sorted(names)


def test_what_cannot_be_replaced_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, loop = tmp_path / "pipe", tmp_path / "loop"
    os.mkfifo(pipe)
    loop.symlink_to(loop)
    for path in (pipe, tmp_path, Path("/dev/null")):
        with pytest.raises(ValueError, match="not a regular file"):
            put(path)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        put(tmp_path / "missing" / "a")
    with pytest.raises(OSError, match="symbolic links"):
        put(loop)
    frozen = tmp_path / "frozen"
    frozen.write_bytes(b"old")
    monkeypatch.setattr(os, "access", lambda path, how: False)
    with pytest.raises(PermissionError, match="read-only"):
        put(frozen)
    assert sorted(tmp_path.iterdir()) == [frozen, loop, pipe]


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    """A limit on the size of files stands for the end of the disk."""
    opt, path = fastopt.Adam(np.ones(100_000)), tmp_path / "run"
    opt.save(path)
    old = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            opt.save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [*tmp_path.iterdir()] == [path]
    assert path.read_bytes() == old


CALLS = ["open", "fchmod", "fsync", "replace", "open", "fsync"]


def test_the_order_of_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The data reach the disk before the name does, and the name before the caller goes on."""
    put(tmp_path / "a")
    seen: list[str] = []
    for name in set(CALLS):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *args, name=name, real=real: [seen.append(name), real(*args)][1])
    put(tmp_path / "a")
    assert seen == CALLS


@pytest.mark.parametrize("error", [OSError("no"), KeyboardInterrupt()])
@pytest.mark.parametrize("at", range(4))
def test_a_failure_leaves_the_old_file_and_no_other(
    at: int, error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    put(path, b"old")
    fail_at(at, lambda: (_ for _ in ()).throw(error), monkeypatch)
    with pytest.raises(type(error)):
        put(path)
    assert [*tmp_path.iterdir()] == [path]
    assert path.read_bytes() == b"old"


def fail_at(at: int, fail: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The at-th of the calls to the system fails instead."""
    count = iter(range(len(CALLS)))
    for name in set(CALLS):
        real = getattr(os, name)

        def call(*args: Any, real: Any = real) -> Any:
            if next(count) == at:
                fail()
            return real(*args)

        monkeypatch.setattr(atomic.os, name, call)


CRASH = """
import os, signal, sys, pytest
from tests.base.test_atomic import fail_at, put
fail_at(int(sys.argv[1]), lambda: os.kill(os.getpid(), signal.SIGKILL), pytest.MonkeyPatch())
put(sys.argv[2])
"""


@pytest.mark.parametrize("at", range(len(CALLS)))
def test_a_crash_at_every_call(at: int, tmp_path: Path) -> None:
    path = tmp_path / "a"
    put(path, b"old")
    crashed = subprocess.run([sys.executable, "-c", CRASH, str(at), str(path)], cwd=ROOT, timeout=60)
    assert crashed.returncode == -signal.SIGKILL
    assert path.read_bytes() == (b"old" if at <= CALLS.index("replace") else b"new")


def test_crashes_at_random() -> None:
    command = [sys.executable, "-m", "tools.crash_save", "25", "0"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert "no generation that had been saved was lost" in done.stdout, done.stderr
