"""Cython for the tests and the bench: compiles their own modules against the lbcore that is imported, and
lbcore's sources to C for whoever wants to read what came out.

Flags, directives and the hash of the contracts come from setup.py, so such a module is built the way lbcore
is. Results are kept under build/tests/ and build/bench/, by content: a second run compiles nothing. The
compiling is done by this file in a process of its own, where neither the test run's warnings nor a
sanitizer that the test run was started under gets in its way.
"""

import contextlib
import fcntl
import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "src" / "lbcore"
KEPT = ROOT / "build" / "tests"


def module_from(name: str, path: Path) -> ModuleType:
    """The module in a file, Python or compiled, wherever it lies."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read_setup() -> ModuleType:
    """setup.py as a module; importing it builds nothing."""
    return module_from("lbcore_setup", ROOT / "setup.py")


def compiled(source: Path, kept: Path = KEPT) -> ModuleType:
    """A test's Cython module, or the bench's, compiled against the imported lbcore and loaded.

    Raises:
        RuntimeError: lbcore's compiled modules are older than its contracts, or the compiler fails.
    """
    folder = compiled_together({source.stem: source}, kept)
    return module_from(source.stem, folder / f"{source.stem}{sysconfig.get_config_var('EXT_SUFFIX')}")


def compiled_together(modules: dict[str, Path], kept: Path, contracts: Sequence[Path] = ()) -> Path:
    """The folder below `kept` where modules (name -> source) are, compiled against the imported lbcore.

    Args:
        contracts: the .pxd files that the modules share.

    Raises:
        RuntimeError: as `compiled`.
    """
    import lbcore
    from lbcore._layout import layout_of

    package = Path(lbcore.__file__).parent
    layout = read_setup().layout_hash(package)
    if layout_of(str(module_path("lbcore.codes"))) != layout:
        raise RuntimeError(f"{package}: the .pxd and .h files changed since it was built; build it again")
    digest = digest_of([*modules.values(), *contracts], layout, os.environ.get("LBCORE_BUILD", "release"))
    target = kept / f"{'-'.join(source.stem for source in modules.values())}-{digest}"
    with made_once(target) as fresh:
        if fresh is not None:
            named = [f"{name}={source}" for name, source in modules.items()]
            compile_apart("extensions", package, fresh, *named)
    return target


def generated_c() -> tuple[dict[str, str], str]:
    """What Cython makes of lbcore's sources: module name -> C text, and everything Cython said."""
    sources = sorted(path for pattern in ("*.pyx", "*.pxd") for path in SOURCES.rglob(pattern))
    target = KEPT / f"c-{digest_of([*sources, ROOT / 'setup.py'])}"
    with made_once(target) as fresh:
        if fresh is not None:
            said = compile_apart("c", fresh)
            (fresh / "said.txt").write_text(said)
    texts = {
        name: Path(target, "src", *name.split(".")).with_suffix(".c").read_text()
        for name in read_setup().MODULES
    }
    return texts, (target / "said.txt").read_text()


def module_path(name: str) -> Path:
    """The file a module was loaded from."""
    path = importlib.import_module(name).__file__
    assert path is not None
    return Path(path)


def digest_of(files: list[Path], *words: str) -> str:
    """A short hash of contents, words and the tools that would compile them."""
    digest = hashlib.sha256()
    for word in (sys.version, importlib.metadata.version("cython"), Path(__file__).read_text(), *words):
        digest.update(word.encode() + b"\0")
    for path in files:
        digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


@contextlib.contextmanager
def made_once(target: Path) -> Iterator[Path | None]:
    """A new directory to fill, which then becomes `target`; None when it is there. One process at a time."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.exists():
            yield None
            return
        fresh = target.with_suffix(".new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir()
        yield fresh
        fresh.rename(target)


def compile_apart(*arguments: str | Path) -> str:
    """Runs this file as a program; what it printed."""
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    done = subprocess.run(
        [sys.executable, "-P", __file__, *map(str, arguments)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"cannot compile {' '.join(map(str, arguments))}:\n{done.stdout[-4000:]}")
    return done.stdout


def build_extensions(package: Path, target: Path, named: Sequence[str]) -> None:
    """Each of `named` is NAME=SOURCE."""
    from setuptools import Distribution

    setup = read_setup()
    pairs = [one.split("=", 1) for one in named]
    modules = setup.cythonized(
        [setup.extension(name, Path(source), package) for name, source in pairs],
        build_dir=str(target / "c"),
        include_path=str(package.parent),
    )
    command = Distribution({"name": "tests", "ext_modules": modules}).get_command_obj("build_ext")
    command.build_lib = str(target)
    command.build_temp = str(target / "o")
    command.parallel = len(os.sched_getaffinity(0))
    command.ensure_finalized()
    command.run()


def build_c(target: Path) -> None:
    setup = read_setup()
    setup.cythonized(setup.extensions(), build_dir=str(target))


if __name__ == "__main__":
    if sys.argv[1] == "extensions":
        build_extensions(Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:])
    else:
        build_c(Path(sys.argv[2]))
