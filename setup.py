"""Builds the extensions of lbcore; everything else is in pyproject.toml.

LBCORE_BUILD chooses the flags, never the sources: release (default), debug, asan, tsan, cover.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

# In the order a reader meets them: vocabulary, parts, TLS, the path, the threads, what Python sees.
MODULES = [
    "lbcore.codes",
    *(f"lbcore.parts.{name}" for name in (
        "opening", "cells", "rings", "slab", "timers", "poller", "chunks", "pipes", "bandwidth", "scopes",
        "limiter", "health", "balance", "der", "proxy_out", "proxy_in", "networks", "revoked", "policy",
        "verdicts", "flight", "sockets", "legs", "early", "strangers", "headroom", "parking", "waiting",
        "succession", "pacing", "submissions", "orders",
    )),
    "lbcore.tls_engines",
    "lbcore.tls.s2n",
    "lbcore.tls.openssl",
    *(f"lbcore.path.{name}" for name in (
        "accept", "header", "handshake", "authenticate", "authorize", "limit", "pick", "dial", "move",
        "forward", "close",
    )),
    "lbcore.worker",
    "lbcore.limits",
    "lbcore.to_core",
    "lbcore.application",
    "lbcore.record_lines",
    "lbcore.record_selection",
    "lbcore.from_core",
    "lbcore.policy_service",
    "lbcore.record_service",
    "lbcore.submission_service",
    "lbcore.simulation",
    "lbcore.engine",
]  # fmt: skip

# Compiled where the header is: module -> header that only a new enough version has, libraries.
OPTIONAL = {"lbcore.tls.openssl": ("openssl/core.h", ("ssl", "crypto"))}

BUILDS = {
    "release": (["-O2", "-g1"], []),
    "debug": (["-O0", "-g3", "-DLBCORE_DEBUG"], []),
    "asan": (
        ["-O1", "-g", "-DLBCORE_DEBUG", "-fno-omit-frame-pointer", "-fsanitize=address,undefined",
         "-fno-sanitize-recover=undefined"],
        ["-fsanitize=address,undefined"],
    ),
    "tsan": (["-O1", "-g", "-DLBCORE_DEBUG", "-fsanitize=thread"], ["-fsanitize=thread"]),
    "cover": (["-O0", "-g", "--coverage"], ["--coverage"]),
}  # fmt: skip

SOURCE = Path("src/lbcore")
DIRECTIVES = {
    "language_level": 3,
    "boundscheck": False,
    "wraparound": False,
    "initializedcheck": False,
    "nonecheck": True,  # an object whose __init__ was skipped raises; hot code has no objects
    "cdivision": True,
    "emit_code_comments": False,
}


def contracts(package: Path = SOURCE) -> list[str]:
    """All files that more than one module is compiled from."""
    return sorted(str(path) for pattern in ("*.pxd", "*.h") for path in package.rglob(pattern))


def layout_hash(package: Path = SOURCE) -> str:
    """Modules built from other contracts than the rest must not be loaded together."""
    digest = hashlib.sha256()
    for name in contracts(package):
        digest.update(Path(name).read_bytes())
    return digest.hexdigest()[:16]


def extension(module: str, source: Path, package: Path = SOURCE) -> Extension:
    """A module built from `source` and the contracts of an lbcore package, this one or an installed one."""
    compile_flags, link_flags = BUILDS[os.environ.get("LBCORE_BUILD", "release")]
    warnings = ["-std=gnu11", "-Wall", "-Wextra", "-Wno-unused-parameter", "-Wno-missing-field-initializers",
                "-Wno-sign-compare"]  # fmt: skip
    return Extension(
        module,
        [str(source)],
        include_dirs=[str(package), str(package / "sys"), str(package / "tls")],
        define_macros=[("_GNU_SOURCE", None), ("LBCORE_LAYOUT", f'"{layout_hash(package)}"')],
        extra_compile_args=[*warnings, "-include", "layout.h", *compile_flags],
        extra_link_args=[*link_flags, "-lpthread", "-ldl"],
        depends=contracts(package),
    )


def extensions() -> list[Extension]:
    """All of them, but for those whose library this machine has no headers of."""
    found = []
    for module in MODULES:
        header, libraries = OPTIONAL.get(module, ("stdlib.h", ()))
        if preprocesses(compiler(), header):
            made = extension(module, Path("src", *module.split(".")).with_suffix(".pyx"))
            made.libraries = list(libraries)
            found.append(made)
    return found


def compiler() -> list[str]:
    """The C compiler's command."""
    return (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()


def check_toolchain() -> None:
    """Ends the build, before anything is translated, with one sentence about what is missing."""
    if shutil.which(compiler()[0]) is None:
        sys.exit(
            f"lbcore: no C compiler ({compiler()[0]}): install build-essential (Debian), gcc (Fedora) "
            "or build-base (Alpine)"
        )
    if not preprocesses(compiler(), "stdlib.h"):
        sys.exit(
            "lbcore: the C library's headers are missing: install libc6-dev (Debian), glibc-devel (Fedora) "
            "or musl-dev (Alpine)"
        )
    if not preprocesses(compiler(), "Python.h"):
        sys.exit(
            "lbcore: the Python headers are missing: install python3-dev (Debian, Alpine) "
            "or python3-devel (Fedora)"
        )


def preprocesses(compiler: list[str], header: str) -> bool:
    """Whether a file that includes the header passes the C preprocessor."""
    command = [*compiler, f"-I{sysconfig.get_path('include')}", "-E", "-x", "c", "-"]
    source = f"#include <{header}>\n".encode()
    return subprocess.run(command, input=source, capture_output=True, check=False).returncode == 0


class Build(build_ext):
    """Uses all processors."""

    def build_extensions(self) -> None:
        self.parallel = self.parallel or len(os.sched_getaffinity(0))
        super().build_extensions()


def cythonized(
    modules: list[Extension], *, build_dir: str = "build/cython", include_path: str = "src"
) -> list[Extension]:
    from Cython.Build import cythonize

    return cythonize(
        modules,
        build_dir=build_dir,
        compiler_directives=DIRECTIVES,
        emit_linenums=True,
        nthreads=len(os.sched_getaffinity(0)),
        include_path=[include_path],
    )


# A source distribution or a metadata query needs no C.
CODE_COMMANDS = ("build", "bdist", "install", "develop", "editable")
WANTS_CODE = any(command.startswith(CODE_COMMANDS) for command in sys.argv)

if __name__ == "__main__":  # the tests import it for its flags
    if WANTS_CODE:
        check_toolchain()
    setup(ext_modules=cythonized(extensions()) if WANTS_CODE else extensions(), cmdclass={"build_ext": Build})
