"""Builds the one extension module; everything else about the project is in pyproject.toml.

Environment:

TIMERHEAP_DEBUG=1        assertions, and check() around each mutation of a heap; warnings are errors
TIMERHEAP_SANITIZE=name  address, undefined or thread: instrumented by that sanitizer
TIMERHEAP_PORTABLE=1     by POSIX alone, as on any system but Linux: see csrc/platform.h
TIMERHEAP_COVERAGE=1     instrumented to count which lines run: see tests/coverage/report.py
CFLAGS, LDFLAGS          come last and so win; with a -g among the CFLAGS the symbols are kept
"""

import os
import shlex
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build import build
from setuptools.command.build_ext import build_ext

DEBUG = os.environ.get("TIMERHEAP_DEBUG", "0") not in ("", "0")
SANITIZER = os.environ.get("TIMERHEAP_SANITIZE", "")
PORTABLE = os.environ.get("TIMERHEAP_PORTABLE", "0") not in ("", "0")
COVERAGE = os.environ.get("TIMERHEAP_COVERAGE", "0") not in ("", "0")
USER_CFLAGS = shlex.split(os.environ.get("CFLAGS", ""))
USER_LDFLAGS = shlex.split(os.environ.get("LDFLAGS", ""))

WARNINGS = [
    "-Wall",
    "-Wextra",
    # Cython's own code, not ours, is what these three speak about.
    "-Wno-unused-parameter",
    "-Wno-missing-field-initializers",
    "-Wno-cast-function-type",
]


def compile_flags():
    flags = ["-std=gnu11", "-fvisibility=hidden", *WARNINGS]
    if DEBUG:
        flags += ["-O1", "-g", "-UNDEBUG", "-DTIMERHEAP_DEBUG=1", "-Werror"]
    else:
        flags += ["-O3", "-DNDEBUG"]
    if PORTABLE:
        flags.append("-DTH_PORTABLE=1")
    if SANITIZER:
        flags += [f"-fsanitize={SANITIZER}", "-fno-omit-frame-pointer", "-g"]
    if COVERAGE:
        flags += ["--coverage", "-fprofile-update=atomic", "-include", "tests/coverage/hook.h"]
    return flags + USER_CFLAGS


def link_flags():
    flags = []
    if SANITIZER:
        flags += [f"-fsanitize={SANITIZER}"]
    if COVERAGE:
        flags.append("--coverage")
    if not (DEBUG or SANITIZER or any(flag.startswith("-g") for flag in USER_CFLAGS)):
        # A linker that is not known here may not know how to strip either.
        flags += {"linux": ["-Wl,-s"], "darwin": ["-Wl,-x"]}.get(sys.platform, [])
    return flags + USER_LDFLAGS


def refuse_other_platforms():
    if sys.platform == "win32":
        raise SystemExit("timerheap does not run on Windows: it needs a POSIX system, such as Linux or macOS")
    if sys.maxsize < 2**32:
        raise SystemExit("timerheap needs a 64-bit Python: a timer's record holds two pointers in 40 bytes")


class FlavouredBuild(build):
    """Keeps each flavour's objects apart: switching flavours must never reuse the other's."""

    def initialize_options(self):
        super().initialize_options()
        flavour = ["debug" if DEBUG else "release", "portable" * PORTABLE, "coverage" * COVERAGE, SANITIZER]
        self.build_base = os.path.join("build", "-".join(filter(None, flavour)))


class CythonBuildExt(build_ext):
    """Translates to C under build/, so that the source tree stays as it was checked out."""

    def run(self):
        refuse_other_platforms()
        if SANITIZER not in ("", "address", "undefined", "thread"):
            raise SystemExit(
                f"TIMERHEAP_SANITIZE must be address, undefined or thread, not {SANITIZER!r}"
            )
        super().run()

    def build_extension(self, ext):
        # Imported here: metadata and the sdist are made without Cython.
        from Cython.Build import cythonize

        [translated] = cythonize(
            [ext], build_dir=self.build_temp, language_level=3, include_path=["csrc", "timerheap/core"]
        )
        ext.sources = translated.sources
        super().build_extension(ext)


setup(
    ext_modules=[
        Extension(
            "timerheap._core",
            sources=["timerheap/_core.pyx", "timerheap/core/gil.c"],
            depends=sorted(
                str(file)
                for root in ("timerheap", "csrc")
                for file in Path(root).rglob("*")
                if file.suffix in {".c", ".pxi", ".pxd", ".h"}
            ),
            include_dirs=["csrc", "timerheap/core"],
            extra_compile_args=compile_flags(),
            extra_link_args=link_flags(),
        )
    ],
    cmdclass={"build": FlavouredBuild, "build_ext": CythonBuildExt},
)
