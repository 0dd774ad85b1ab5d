"""The pool: the same bits for any number of threads, and a guest that forks, idles, fails and shares well."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastopt
from fastopt.app.selftest import same_bits
from fastopt.core import _core
from fastopt.core import machine as runtime
from fastopt.engine.engine import Engine
from tests.cases import CASES, ordinary
from tests.core.test_bits import digest
from tests.lockstep import assert_same_bits, copies, loss_of, written

pytestmark = pytest.mark.skipif(not _core.threads_available(), reason="this build has no threads")


def big(n: int = 300_000, dtype: Any = np.float32) -> Any:
    rng = np.random.default_rng(0)
    return ordinary(rng, n, dtype), [ordinary(rng, n, dtype)]


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, timeout=120
    )


@pytest.fixture(scope="module")
def reference_digest() -> str:
    return digest(backend="numpy")


def split_everywhere(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    """Makes every step of every optimizer use its threads and this chunk, however small it is."""
    make = Engine._make_plan

    def splitting(self: Any, *args: Any) -> Any:
        plan = make(self, *args)
        plan.split(1, chunk)
        return plan

    monkeypatch.setattr(Engine, "_make_plan", splitting)


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
@pytest.mark.parametrize("chunk", [1, 100, 1024])
def test_one_digest_for_threads_and_chunks(
    threads: int, chunk: int, reference_digest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    split_everywhere(monkeypatch, chunk)
    assert digest(threads=threads) == reference_digest


def test_one_digest_for_threads_on_every_isa(isa: str, reference_digest: str, monkeypatch: pytest.MonkeyPatch) -> None:
    split_everywhere(monkeypatch, 100)
    assert digest(threads=3) == reference_digest


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_one_large_and_many_small_tensors_on_any_number_of_threads(case: Any, dtype: Any) -> None:
    rng = np.random.default_rng(1)
    lengths = [1, 60_000, *[100] * 200, 0, 33_333, 5]
    shapes = [(n,) for n in lengths] + [(70, 300)]
    params = [ordinary(rng, shape, dtype) for shape in shapes]
    params[-1] = np.asfortranarray(params[-1])
    gradients = [[ordinary(rng, shape, dtype) for shape in shapes] for _ in range(3)]
    gradients[1][1] = None
    gradients[2] = [None] * 100 + gradients[2][100:]
    opts = [case.make(copies(params), threads=threads) for threads in (1, 2, 3, 7)]
    for opt in opts:
        opt._engine.plan.split(1 if opt.threads == 7 else _core.CHUNK, _core.CHUNK)
    for g in gradients:
        reports = [opt.step(g, **loss_of(opt)) for opt in opts]
        assert reports == reports[:1] * 4
    for opt in opts[1:]:
        assert_same_bits(opts[0], opt)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nonfinite_gradients_are_seen_by_every_worker(bad: float) -> None:
    p, (g,) = big()
    opt = fastopt.Adam([p], threads=3, on_nonfinite="skip")
    before = p.copy()
    for at in (0, 123_456, 299_999):
        broken = g.copy()
        broken[at] = bad
        assert not opt.step([broken]).applied
        assert np.array_equal(p, before)


def test_small_steps_wake_nobody() -> None:
    code = """
import numpy as np, fastopt
from fastopt.core import _core
opt = fastopt.Adam([np.ones(20_000)], threads=4)
opt.step([np.ones(20_000)])
small = _core.threads_started()
fastopt.Adam([np.ones(500_000)], threads=4).step([np.ones(500_000)])
print(small, _core.threads_started())
"""
    assert python(code).stdout.split() == ["0", "3"]


def test_passes_outside_the_step_keep_to_an_optimizer_s_threads() -> None:
    code = """
import numpy as np, fastopt
from fastopt.core import _core
fastopt.set_num_threads(4)
for threads in (1, 3):
    opt = fastopt.SGD([np.ones(500_000)], lr=0.1, threads=threads)
    for _ in range(2):
        opt.accumulate([np.ones(500_000)])
    print(_core.threads_started())
"""
    assert python(code).stdout.split() == ["0", "2"]


def test_idle_workers_use_no_cpu() -> None:
    p, g = big(2_000_000)
    opt = fastopt.Adam([p], threads=4)
    for _ in range(10):
        opt.step(g)
    assert _core.threads_started() >= 3
    time.sleep(0.2)
    before = time.process_time()
    time.sleep(1.0)
    assert time.process_time() - before < 0.05


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one processor")
def test_workers_that_slept_keep_off_the_caller_s_processor_and_its_affinity_stays() -> None:
    code = """
import os, time
import numpy as np, fastopt
allowed = os.sched_getaffinity(0)
opt = fastopt.Adam([np.ones(500_000)], threads=3)
opt._engine.plan.split(1, 1024)
before = set(os.listdir("/proc/self/task"))
opt.step([np.ones(500_000)])
workers = [int(task) for task in set(os.listdir("/proc/self/task")) - before]
for _ in range(3):
    time.sleep(0.05)
    opt.step([np.ones(500_000)])
assert os.sched_getaffinity(0) == allowed
masks = [os.sched_getaffinity(worker) for worker in workers]
assert len(masks) == 2 and all(mask < allowed and len(mask) == len(allowed) - 1 for mask in masks), masks
"""
    done = python(code)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the constant is that of x86")
def test_workers_round_as_the_caller_does() -> None:
    libm = ctypes.CDLL("libm.so.6")
    upward = 0x800
    found = []
    for threads, mode in ((1, 0), (1, upward), (4, upward)):
        p, g = big()
        opt = fastopt.Adam([p], threads=threads)
        opt._engine.plan.split(1, 1024)
        libm.fesetround(mode)
        try:
            opt.step(g)
        finally:
            libm.fesetround(0)
        found.append(p)
    assert same_bits(found[1], found[2])
    assert not same_bits(found[0], found[1])


def test_the_control_word_is_restored_on_every_worker() -> None:
    before = _core.control_words(4)
    assert len(before) == 4
    for flush in (True, False):
        p, g = big()
        fastopt.Adam([p], threads=4, flush_subnormals=flush, clip_norm=1.0).step(g)
        assert _core.control_words(4) == before
    with fastopt.subnormals():
        words = _core.control_words(4)
        assert words[0] != before[0] or words[0] == _core.control_word()
        assert words[1:] == before[1:]


def test_subnormals_are_flushed_on_every_worker() -> None:
    n = 400_000
    for flush, expected in ((True, 0.0), (False, float(np.float32(1e-40)))):
        p = np.full(n, 1e-40, np.float32)
        fastopt.SGD([p], lr=1.0, threads=4, flush_subnormals=flush).step([np.zeros(n, np.float32)])
        assert set(p.tolist()) == {expected}


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_fork_after_a_threaded_step(threads: int) -> None:
    code = f"""
import os, sys, hashlib
import numpy as np, fastopt
from fastopt.core import _core
n = 300_000
p, g = np.ones(n, np.float32), [np.linspace(-1, 1, n, dtype=np.float32)]
opt = fastopt.Adam([p], threads={threads}, clip_norm=1.0)
for _ in range(3):
    opt.step(g)
def rest():
    for _ in range(3):
        opt.step(g)
    return hashlib.sha256(p.tobytes()).hexdigest().encode()
read, write = os.pipe()
pid = os.fork()
if pid == 0:
    assert _core.threads_started() == 0
    os.write(write, rest())
    os._exit(0)
mine = rest()
assert os.waitpid(pid, 0)[1] == 0
assert os.read(read, 100) == mine
print("same")
"""
    done = python(code)
    assert done.stdout.strip() == "same", done.stderr


def test_fork_from_multiprocessing_while_another_thread_steps() -> None:
    code = """
import multiprocessing, threading, warnings
import numpy as np, fastopt
warnings.simplefilter("ignore")
n = 300_000
def work(k):
    p = np.ones(n, np.float32)
    fastopt.Adam([p], threads=3).step([np.full(n, k, np.float32)])
    return float(p[-1])
stop = threading.Event()
def stepping():
    opt = fastopt.Adam([np.ones(n, np.float32)], threads=3)
    g = [np.ones(n, np.float32)]
    while not stop.is_set():
        opt.step(g)
thread = threading.Thread(target=stepping)
thread.start()
with multiprocessing.get_context("fork").Pool(3) as pool:
    results = pool.map(work, [1.0, 2.0, 3.0, -1.0] * 3)
stop.set()
thread.join()
print(len(results), sorted({round(x, 4) for x in results}))
"""
    done = python(code)
    assert done.stdout.strip() == "12 [0.999, 1.001]", done.stderr


def test_four_python_threads_step_four_optimizers_at_once() -> None:
    def run(threads: int | None, out: dict[int, Any], k: int) -> None:
        rng = np.random.default_rng(k)
        p = ordinary(rng, 200_000, np.float32)
        opt = CASES[k].make([p], threads=threads)
        for _ in range(20):
            opt.step([ordinary(rng, 200_000, np.float32)])
        out[k] = written(opt)

    expected: dict[int, Any] = {}
    found: dict[int, Any] = {}
    for k in range(4):
        run(1, expected, k)
    workers = [threading.Thread(target=run, args=(3, found, k)) for k in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert found.keys() == expected.keys()
    for k in range(4):
        assert all(same_bits(found[k][name], expected[k][name]) for name in expected[k])


def test_no_thread_to_be_had(tmp_path: Path) -> None:
    """Threads that cannot be created mean fewer threads, never a failure."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or sys.platform != "linux":
        pytest.skip("needs a C compiler and LD_PRELOAD")
    source, library = tmp_path / "refuse.c", tmp_path / "refuse.so"
    source.write_text(
        "#include <errno.h>\n#include <dlfcn.h>\n#include <stdlib.h>\n#include <pthread.h>\n"
        "static int made;\n"
        "int pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*f)(void *), void *x) {\n"
        "    int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *) ="
        ' dlsym(RTLD_NEXT, "pthread_create");\n'
        '    return made++ < atoi(getenv("ALLOWED")) ? real(t, a, f, x) : EAGAIN;\n}\n'
    )
    subprocess.run([compiler, "-D_GNU_SOURCE", "-shared", "-fPIC", str(source), "-o", str(library)], check=True)
    code = """
import hashlib
import numpy as np, fastopt
from fastopt.core import _core
n = 300_000
p = np.ones(n, np.float32)
opt = fastopt.Adam([p], threads=4, clip_norm=1.0)
for k in range(3):
    opt.step([np.linspace(-1, 1, n, dtype=np.float32)])
print(_core.threads_started(), hashlib.sha256(p.tobytes()).hexdigest())
"""
    for allowed in (0, 1):
        done = python(code, LD_PRELOAD=str(library), ALLOWED=str(allowed), OPENBLAS_NUM_THREADS="1")
        assert done.returncode == 0, done.stderr
        started, bits = done.stdout.split()
        assert int(started) == allowed
        assert bits == python(code).stdout.split()[1]


def test_signals_go_to_the_program_not_to_the_workers() -> None:
    code = """
import signal, threading, os
import numpy as np, fastopt
fastopt.Adam([np.ones(500_000)], threads=4).step([np.ones(500_000)])
seen = []
signal.signal(signal.SIGUSR1, lambda *_: seen.append(threading.current_thread() is threading.main_thread()))
for _ in range(20):
    os.kill(os.getpid(), signal.SIGUSR1)
print(all(seen), len(seen) > 0)
"""
    assert python(code).stdout.split() == ["True", "True"]


def write(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "250000 100000\n"}, 2.5),
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/b/cpu.max": "400000 100000\n",
                "sys/fs/cgroup/a/cpu.max": "150000 100000\n",
            },
            1.5,
        ),
        ({"proc/self/cgroup": "0::/not/here\n", "sys/fs/cgroup/cpu.max": "50000 100000\n"}, 0.5),
        (
            {
                "proc/self/cgroup": "5:memory:/x\n4:cpu,cpuacct:/docker/1\n0::/\n",
                "sys/fs/cgroup/cpu,cpuacct/docker/1/cpu.cfs_quota_us": "300000\n",
                "sys/fs/cgroup/cpu,cpuacct/docker/1/cpu.cfs_period_us": "100000\n",
            },
            3.0,
        ),
        (
            {
                "proc/self/cgroup": "4:cpu:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            None,
        ),
        ({"proc/self/cgroup": "nonsense", "sys/fs/cgroup/cpu.max": "a b"}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "100000 0\n"}, None),
    ],
)
def test_cgroup_limits(files: dict[str, str], quota: float | None, tmp_path: Path) -> None:
    for name, text in files.items():
        write(tmp_path, name, text)
    assert runtime.cgroup_quota(tmp_path) == quota


def test_the_default_is_the_smaller_of_affinity_and_quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    assert runtime.default_threads(tmp_path) == (6, "the CPUs of this process's affinity")
    write(tmp_path, "proc/self/cgroup", "0::/\n")
    for line, expected in [("350000 100000", 3), ("20000 100000", 1), ("900000 100000", 6), ("max 100000", 6)]:
        write(tmp_path, "sys/fs/cgroup/cpu.max", line)
        count, why = runtime.default_threads(tmp_path)
        assert count == expected
        assert ("cgroup" in why) == (expected < 6)


def test_the_environment_and_set_num_threads_decide() -> None:
    show = "import fastopt; i = fastopt.info(); print(i.threads, i.threads_why)"
    assert python(show, FASTOPT_NUM_THREADS="3").stdout.strip() == "3 FASTOPT_NUM_THREADS=3"
    assert "affinity" in python(show, FASTOPT_NUM_THREADS="").stdout or "cgroup" in python(show).stdout
    for bad in ("0", "-1", "two", "1.5", "256"):
        done = python("import fastopt", FASTOPT_NUM_THREADS=bad)
        assert done.returncode == 1
        assert f"FASTOPT_NUM_THREADS is '{bad}': expected 1 to 255" in done.stderr
    code = f"import fastopt; fastopt.set_num_threads(5); {show}"
    assert python(code, FASTOPT_NUM_THREADS="3").stdout.strip() == "5 set_num_threads(5)"
    count = """
import numpy as np, fastopt
from fastopt.core import _core
fastopt.set_num_threads(3)
opt = fastopt.Adam([np.ones(500_000)]{})
opt.step([np.ones(500_000)])
print(_core.threads_started())
"""
    assert python(count.format("")).stdout.strip() == "2"
    assert python(count.format(", threads=2")).stdout.strip() == "1"
    assert python(count.format(", threads=1")).stdout.strip() == "0"
