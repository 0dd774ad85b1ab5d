"""The limit that memory sets: a loop in C that touches the bytes of a step and computes next to nothing."""

from __future__ import annotations

import ctypes
import functools
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fastopt.app.benchmark.timing import Contender
from fastopt.app.benchmark.work import Work
from fastopt.base.memory import Memory
from fastopt.base.tree import Array

# A line of every array in turn, each asked for ahead, as the kernels do it: chunk by chunk or without asking, this
# would be slower than they are, and no limit. Each thread has a range of its own, and takes pieces of the others' when
# it is through.
SOURCE = """
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>

enum { LINE = 16, AHEAD = 512, PIECES = 8, MAX_THREADS = 256 };

typedef struct {
    float *const *written;
    const float *gradient;
    size_t n;
    int arrays, threads;
    float keep, gain;
    atomic_int next[MAX_THREADS];
} work;

typedef struct { work *w; int self; } worker;

static void touch(const work *w, size_t start, size_t n)
{
    const float keep = w->keep, gain = w->gain;
    const float *restrict g = w->gradient + start;
    float *restrict p = w->written[0] + start;
    __builtin_prefetch(p + AHEAD);
    __builtin_prefetch(g + AHEAD);
    for (size_t i = 0; i < n; i++)
        p[i] = p[i] * keep + g[i] * gain;
    for (int a = 1; a < w->arrays; a++) {
        float *restrict s = w->written[a] + start;
        __builtin_prefetch(s + AHEAD);
        for (size_t i = 0; i < n; i++)
            s[i] *= keep;
    }
}

static void piece(const work *w, int k)
{
    const size_t lines = w->n / LINE, pieces = (size_t)w->threads * PIECES;
    const size_t end = lines * (k + 1) / pieces;
    for (size_t line = lines * k / pieces; line < end; line++)
        touch(w, line * LINE, LINE);
    if ((size_t)k + 1 == pieces)
        touch(w, lines * LINE, w->n % LINE);
}

static void *run(void *argument)
{
    worker *self = argument;
    work *w = self->w;
    for (int k = 0; k < w->threads; k++) {
        const int owner = (self->self + k) % w->threads;
        for (int i; (i = atomic_fetch_add(&w->next[owner], 1)) < PIECES;)
            piece(w, owner * PIECES + i);
    }
    return NULL;
}

void touch_all(float *const *written, int arrays, const float *gradient, size_t n, int threads, float keep, float gain)
{
    work w = {.written = written, .gradient = gradient, .n = n, .arrays = arrays, .threads = threads,
              .keep = keep, .gain = gain};
    worker workers[MAX_THREADS];
    pthread_t started[MAX_THREADS];
    int live[MAX_THREADS] = {0};
    for (int k = 0; k < threads; k++) {
        atomic_init(&w.next[k], 0);
        workers[k] = (worker){&w, k};
    }
    for (int k = 1; k < threads; k++)
        live[k] = !pthread_create(&started[k], NULL, run, &workers[k]);
    run(&workers[0]);
    for (int k = 1; k < threads; k++)
        if (live[k])
            pthread_join(started[k], NULL);
}
"""

FLAGS = ["-O3", "-march=native", "-shared", "-fPIC", "-pthread"]


class NoCompiler(Exception):
    """There is no C compiler here, or it does not take the source; the message says which."""


@functools.cache
def library() -> ctypes.CDLL:
    """The loop, compiled for this CPU."""
    command = shlex.split(os.environ.get("CC", "")) or ["cc"]
    if shutil.which(command[0]) is None:
        raise NoCompiler(f"no C compiler ({command[0]})")
    with tempfile.TemporaryDirectory() as folder:
        source, built = Path(folder, "touch.c"), Path(folder, "touch.so")
        source.write_text(SOURCE)
        done = subprocess.run([*command, *FLAGS, "-o", built, source], capture_output=True, text=True)
        if done.returncode:
            raise NoCompiler(f"{command[0]} fails: {done.stderr.strip()[-200:]}")
        return ctypes.CDLL(str(built))


def loop(
    written: list[Array], gradient: Array, threads: int, keep: float = 1.0, gain: float = 0.0
) -> Callable[[], None]:
    """What multiplies the arrays by `keep`, and adds `gain` times the gradient to the first of them."""
    touch = library().touch_all
    touch.argtypes = [
        ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_float, ctypes.c_float,
    ]  # fmt: skip
    pointers = (ctypes.c_void_p * len(written))(*(a.ctypes.data for a in written))
    address = gradient.ctypes.data

    def step() -> None:
        touch(pointers, len(written), address, gradient.size, threads, keep, gain)

    return step


def bytes_only(work: Work) -> Contender:
    """Reads and writes as many arrays as a step does, and reads the gradients; the numbers stay what they are.

    Every array starts at a cache line, where such a loop is fastest.
    """
    memory = Memory(work.written + 1, 4 * work.elements * (work.written + 1))
    written = [memory.zeros((work.elements,), np.float32) for _ in range(work.written)]
    gradient = memory.zeros((work.elements,), np.float32)
    for a in (*written, gradient):
        a.fill(1)
    return Contender(loop(written, gradient, work.threads), lambda: [*written, gradient])
