"""The extension module; everything else is in pyproject.toml.

FASTOPT_WERROR=1 turns on the warnings that CI builds with and makes each an error. FASTOPT_SANITIZE=thread, address,
undefined or address,undefined builds with these sanitizers, FASTOPT_NO_THREADS=1 without threads, as for a system that
has no pthreads.
"""

import os
import sys
from pathlib import Path

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup

# Equal bits on every machine rest on these: no contraction of a*b+c, no assumption about NaN, infinity
# or the order of operations. Without errno and traps, sqrt and selects vectorise; values stay the same.
EXACT = ["-std=c11", "-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden"]
WARNINGS = ["-Wall", "-Wextra", "-Wdouble-promotion", "-Werror"]
SANITIZERS = ("thread", "address", "undefined")
SANITIZE = ["-g", "-O1", "-fno-omit-frame-pointer", "-fno-sanitize-recover=all"]

if sys.platform == "win32":
    raise SystemExit(
        "fastopt does not build on Windows yet: its kernels need gcc's or clang's function targets and C11. "
        "It runs under WSL."
    )

flags = EXACT + (WARNINGS if os.environ.get("FASTOPT_WERROR") == "1" else [])
sanitizer = os.environ.get("FASTOPT_SANITIZE")
if sanitizer and not {*sanitizer.split(",")} <= {*SANITIZERS}:
    raise SystemExit(f"FASTOPT_SANITIZE is {sanitizer!r}: expected one of {', '.join(SANITIZERS)}")
sanitize = [*SANITIZE, f"-fsanitize={sanitizer}"] if sanitizer else []
core = Extension(
    "fastopt.core._core",
    sources=["fastopt/core/_core.pyx", *sorted(str(path) for path in Path("csrc").rglob("*.c"))],
    include_dirs=["csrc", numpy.get_include()],
    depends=[
        *sorted(str(path) for path in Path("fastopt/core").glob("*.px[di]")),
        *sorted(str(path) for path in Path("csrc").rglob("*.h")),
    ],
    define_macros=[
        ("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION"),
        ("FO_FLAGS", '"' + " ".join(EXACT) + '"'),
        *([("FO_NO_THREADS", "1")] if os.environ.get("FASTOPT_NO_THREADS") == "1" else []),
    ],
    extra_compile_args=[*flags, *sanitize, "-pthread"],
    extra_link_args=[*sanitize, "-pthread"],
)
setup(ext_modules=cythonize([core]))
