"""The extension module; everything else is in pyproject.toml.

FASTOPT_WERROR=1 turns on the warnings that CI builds with and makes each an error.
"""

import os
import sys

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup

# Equal bits on every machine rest on these: no contraction of a*b+c, no assumption about NaN, infinity
# or the order of operations. Without errno and traps, sqrt and selects vectorise; values stay the same.
EXACT = ["-std=c11", "-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden"]
WARNINGS = ["-Wall", "-Wextra", "-Wdouble-promotion", "-Werror"]

if sys.platform == "win32":
    raise SystemExit(
        "fastopt does not build on Windows yet: its kernels need gcc's or clang's function targets and C11. "
        "It runs under WSL."
    )

flags = EXACT + (WARNINGS if os.environ.get("FASTOPT_WERROR") == "1" else [])
core = Extension(
    "fastopt._core",
    sources=["fastopt/_core.pyx", "csrc/kernels.c", "csrc/step.c", "csrc/pool.c"],
    include_dirs=["csrc", numpy.get_include()],
    depends=["fastopt/csrc.pxd", "fastopt/door.pxi", *(f"csrc/{x}" for x in os.listdir("csrc") if x.endswith(".h"))],
    define_macros=[
        ("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION"),
        ("FO_FLAGS", '"' + " ".join(EXACT) + '"'),
    ],
    extra_compile_args=[*flags, "-pthread"],
    extra_link_args=["-pthread"],
)
setup(ext_modules=cythonize([core]))
