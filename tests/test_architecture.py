"""The rules of ARCHITECTURE.md that a reader should not have to trust: who may import whom, what runs
without the interpreter's lock, and what the words and structs of the core are.

Everything is read from the sources, so it holds for files that do not exist yet.
"""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from kit.building import ROOT, SOURCES, compiled, generated_c, read_setup

import lbcore

PROBES = Path(__file__).parent / "core" / "_probes.pyx"
CONTROL = ROOT / "src" / "lbctl"

STAGES = (
    "accept",
    "handshake",
    "authenticate",
    "authorize",
    "limit",
    "pick",
    "dial",
    "forward",
    "close",
)
# Parts of a stage with a file of their own -> the stage.
INSIDE = {"header": "handshake", "move": "forward"}
# The operator's contract, typed out: these words are in logs, metrics and other people's alerts.
REASONS_BY_STAGE = {
    "accept": "node_full unauthenticated_full",
    "handshake": "bad_proxy_header not_tls handshake_too_big tls_version handshake_failed handshake_timeout",
    "any before forward": "client_gone",
    "authenticate": "no_certificate unknown_ca bad_certificate weak_key bad_serial wrong_issuer expired"
    " not_yet_valid revoked crl_expired wrong_purpose",
    "authorize": "unknown_serial client_disabled client_blocked app_not_allowed authz_timeout authz_error",
    "limit": "rate window concurrent app_full limit_wait",
    "pick, dial": "no_upstream connect_failed upstream_tls",
    "forward": "client_closed upstream_closed client_reset upstream_reset upstream_truncated"
    " client_truncated idle half_close_timeout max_lifetime drained upstream_down kicked replaced"
    " revoked_while_open error",
}
REASONS = [reason for reasons in REASONS_BY_STAGE.values() for reason in reasons.split()]

# The core from the bottom up. A module knows what stands before it and nothing else.
BOTTOM = [
    "lbcore.sys.atomics", "lbcore.sys.linux", "lbcore.codes", "lbcore.tls.engine",
    "lbcore.structs", "lbcore.parts.hexadecimal", "lbcore.parts.mapped", "lbcore.parts.mixing",
]  # fmt: skip
# What the workers run: nothing in it may touch a Python object,
HOT = ("lbcore.sys.", "lbcore.codes", "lbcore.parts.", "lbcore.tls.", "lbcore.path.", "lbcore.worker")
# but for what is called once, when the module is imported, by a Python thread.
COLD = {"lbcore.tls.s2n": {"load"}, "lbcore.tls.openssl": {"set_up"}}


# ---- the control plane and the core --------------------------------------------------------------


def python_imports(path: Path) -> Iterator[str]:
    """Dotted names of everything a Python file imports, at whatever depth; names from a package too."""
    package = ".".join(path.relative_to(ROOT / "src").parts[:-1])
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.rsplit(".", node.level - 1)[0] + "." if node.level else ""
            yield from (f"{base}{node.module or ''}.{alias.name}" for alias in node.names)


def python_files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def offenders(folder: Path, forbidden: str, *allowed: str) -> list[str]:
    """Imports of `forbidden` in a folder (or a file), but for those within `allowed`."""
    files = python_files(folder) if folder.is_dir() else [folder]
    return [
        f"{name_of(path)} imports {name}"
        for path in files
        for name in python_imports(path)
        if within(name, forbidden) and not any(within(name, other) for other in allowed)
    ]


def test_the_core_knows_nothing_of_the_control_plane() -> None:
    assert offenders(SOURCES, "lbctl") == []
    for path in [*SOURCES.rglob("*.p[yx][xd]"), *SOURCES.rglob("*.pyi")]:
        assert "lbctl" not in path.read_text(), f"{name_of(path)} names lbctl"


def test_the_core_needs_nothing_but_the_standard_library() -> None:
    """cryptography is imported for whoever looks inside a certificate, and only then."""
    lazy = {"cryptography": {"peer.py", "revocation.py"}}
    for path in python_files(SOURCES):
        for name in python_imports(path):
            top = name.split(".")[0]
            if top not in sys.stdlib_module_names and top != "lbcore":
                assert path.name in lazy.get(top, ()), f"{name_of(path)} imports {name}"


def test_the_configuration_stands_alone() -> None:
    assert offenders(CONTROL / "config", "lbctl", "lbctl.config", "lbctl.errors") == []
    assert offenders(CONTROL / "config", "lbcore") == []


def test_health_checks_stand_alone() -> None:
    """They can be had without a configuration and without an engine, and decide without a socket."""
    health = CONTROL / "health"
    assert offenders(health, "lbctl", "lbctl.health") == []
    assert offenders(health, "lbcore", "lbcore.addresses", "lbcore.settings") == []
    for name in ("state.py", "schedule.py"):
        for module in ("socket", "ssl", "asyncio", "time", "random"):
            assert offenders(health / name, module) == []


def test_exit_codes_need_nothing_but_what_a_problem_is() -> None:
    assert offenders(CONTROL / "errors.py", "lbctl", "lbctl.config.problem") == []


def test_only_the_command_line_imports_the_command_line() -> None:
    found = [
        offence
        for offence in offenders(CONTROL, "lbctl.cli")
        if not offence.startswith(("src/lbctl/cli/", "src/lbctl/__main__.py"))
    ]
    assert found == []


def test_one_module_drives_the_engine() -> None:
    """Values of the core (Verdict, Record, ...) may be used anywhere; what holds sockets and threads is
    reached through one module, and the servers of an app through another, so there is one place to read."""
    of_servers = {"Application", "UpstreamServer"}
    driving = {"Engine", "Listener", "engine", "application", "worker", *of_servers}
    for path in python_files(CONTROL):
        if path == CONTROL / "engine_port.py":
            continue
        words = driving - of_servers if path.parent == CONTROL / "upstreams" else driving
        for name in python_imports(path):
            assert not any(within(name, f"lbcore.{word}") for word in words), (
                f"{name_of(path)} imports {name}: use lbctl.engine_port"
            )
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                named = f"{node.value.id}.{node.attr}"
                assert named not in {f"lbcore.{word}" for word in words}, f"{name_of(path)} uses {named}"


# ---- the order inside the core -------------------------------------------------------------------


def core_order() -> list[str]:
    order = list(BOTTOM)
    for module in read_setup().MODULES:
        if module in ("lbcore.tls.s2n", "lbcore.tls.openssl"):
            order.append(f"{module}_api")
        if module not in order:
            order.append(module)
    return order


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT / "src").with_suffix("").parts)


def core_files(*patterns: str) -> list[Path]:
    return sorted(path for pattern in patterns for path in SOURCES.rglob(pattern))


def cimports(path: Path) -> Iterator[str]:
    for line in path.read_text().splitlines():
        found = re.match(r"(?:from\s+(lbcore\S*)\s+c?import\b|c?import\s+(lbcore\S*))", line)
        if found:
            yield found[1] or found[2]


def test_every_module_of_the_core_has_its_place() -> None:
    """A new file must be put somewhere in the order, or nothing below would look at it."""
    order = core_order()
    assert [module_of(path) for path in core_files("*.pyx", "*.pxd") if module_of(path) not in order] == []
    assert len(set(order)) == len(order)


@pytest.mark.parametrize("path", core_files("*.pyx", "*.pxd"), ids=module_of)
def test_a_module_knows_only_what_stands_below_it(path: Path) -> None:
    order = core_order()
    mine = module_of(path)
    place = order.index(mine)
    for name in cimports(path):
        if name in order and name != mine:
            assert order.index(name) < place, f"{name_of(path)} uses {name}, which stands above it"


def test_no_stage_knows_another_one() -> None:
    """The order of the stages is in worker.pyx and nowhere else. move.pyx is the inside of forward,
    header.pyx the beginning of handshake."""
    for path in core_files("path/*.pyx", "path/*.pxd"):
        others = {name for name in cimports(path) if within(name, "lbcore.path")} - {module_of(path)}
        allowed = {"lbcore.path." + inside for inside, stage in INSIDE.items() if stage == path.stem}
        assert others <= allowed, f"{name_of(path)} uses {others - allowed}"


def test_the_worker_calls_every_stage() -> None:
    used = set(cimports(SOURCES / "worker.pyx"))
    assert {f"lbcore.path.{stage}" for stage in STAGES} <= used


def test_one_module_names_the_tls_library() -> None:
    """Everything else sees tls/engine.pxd; the engine only chooses."""
    for path in core_files("*.pyx", "*.pxd"):
        used = {name for name in cimports(path) if within(name, "lbcore.tls")} - {"lbcore.tls.engine"}
        mine = module_of(path)
        if not within(mine, "lbcore.tls") and mine != "lbcore.engine":
            assert used == set(), f"{name_of(path)} uses {used}"
    for path in core_files("path/*.p*", "parts/*.p*", "worker.p*"):
        assert not re.search(r"\bs2n_\w+\s*\(", path.read_text()), f"{name_of(path)} calls s2n"


# ---- without the interpreter's lock --------------------------------------------------------------


def code_of(path: Path) -> str:
    """A Cython file without comments and docstrings."""
    text = re.sub(r'"""[\s\S]*?"""', "", path.read_text())
    return re.sub(r"#.*", "", text)


def test_nobody_takes_the_lock() -> None:
    """Workers have no Python thread state. `with gil` would need one, so no file has it."""
    assert [name_of(path) for path in core_files("*.pyx", "*.pxd") if "with gil" in code_of(path)] == []


def declarations(path: Path) -> Iterator[tuple[str, str]]:
    """(declaration, comment above it) of each function in a .pxd; a comment speaks for the block of
    declarations under it."""
    comment: list[str] = []
    lines = iter(path.read_text().splitlines())
    previous = ""
    for line in lines:
        if line.startswith("#"):
            comment = [*comment, line] if previous.startswith("#") else [line]
        elif not line.strip():
            comment = []
        elif re.match(r"cdef (?!enum|struct|union|class|extern|packed)[^=]*\(", line):
            while line.count("(") > line.count(")"):
                line += " " + next(lines).strip()
            yield line, " ".join(comment)
        previous = line


@pytest.mark.parametrize("path", core_files("*.pxd"), ids=module_of)
def test_functions_shared_between_modules_say_noexcept_nogil(path: Path) -> None:
    """Without `noexcept` each call ends with a look at the interpreter's error state, which needs the
    lock. What only Python threads call says so, for the file or in the comment above it."""
    found = re.match(r'"""(.*?)"""', path.read_text(), re.S)
    about = found[1] if found else ""
    for declaration, comment in declarations(path):
        if re.search(r"\bnoexcept nogil:?$", declaration):
            continue
        assert not module_of(path).startswith(HOT), f"{name_of(path)}: {declaration}"
        assert "GIL" in about + comment, f"{name_of(path)}: say why it is not nogil: {declaration}"


def test_cython_has_no_performance_hints() -> None:
    _, said = generated_c()
    assert [line for line in said.splitlines() if re.search(r"performance hint|warning:", line)] == []


def functions_of(c_text: str) -> Iterator[tuple[str, str]]:
    """(name, body) of each C function that came from a cdef function."""
    plain = re.sub(r"^#line.*\n", "", c_text, flags=re.M)
    for found in re.finditer(r"^[a-z][^\n;={}]*\b(__pyx_f_\w+)\([^;{}]*\) \{\n(.*?)^\}", plain, re.M | re.S):
        yield found[1], found[2]


@pytest.mark.parametrize("module", [name for name in read_setup().MODULES if name.startswith(HOT)])
def test_what_the_workers_run_never_calls_the_interpreter(module: str) -> None:
    """Read in the C that Cython made: no GIL, no reference counts, no errors, no tracebacks."""
    text = generated_c()[0][module]
    functions = dict(functions_of(text))
    declared = re.findall(r"^cdef [^\n=]*?(\w+)\(", code_of(SOURCES.parent / pyx_of(module)), re.M)
    prefix = "__pyx_f_" + "_".join(f"{len(word)}{word}" for word in module.split(".")) + "_"
    for name in declared:
        assert prefix + name in functions, f"{module}.{name} is not in the C, so nothing was read"
    for name in COLD.get(module, ()):
        del functions[prefix + name]
    for name, body in functions.items():
        calls = set(re.findall(r"\b(_?Py[A-Z]\w*|__Pyx_\w+)", body)) - {"Py_ssize_t"}
        assert calls == set(), f"{module}: {name} uses {sorted(calls)}"


def pyx_of(module: str) -> Path:
    return Path(*module.split(".")).with_suffix(".pyx")


# ---- words ---------------------------------------------------------------------------------------


def enum_words(name: str) -> list[str]:
    """The members of an enum in codes.pxd, in order, without their common first word."""
    text = (SOURCES / "codes.pxd").read_text()
    body = re.search(rf"cdef enum {name}:\n((?:    .*\n|\n)+)", text)
    assert body is not None
    words = re.findall(r"^    ([A-Z_]+)", body[1], re.M)
    return [word.split("_", 1)[1].lower() for word in words if not word.endswith("S_END")]


def test_the_stages_are_the_nine_everywhere() -> None:
    assert tuple(enum_words("stage_t")) == STAGES
    assert ("", *STAGES) == lbcore.STAGES


def test_each_stage_has_its_file_in_the_order_of_the_journey() -> None:
    compiled_stages = [
        name.rpartition(".")[2] for name in read_setup().MODULES if within(name, "lbcore.path")
    ]
    assert [name for name in compiled_stages if name not in INSIDE] == list(STAGES)
    assert {path.stem for path in core_files("path/*.pyx")} == {*STAGES, *INSIDE}
    for place, stage in enumerate(STAGES, 1):
        assert re.search(rf"^{place}\. {stage}\b", (SOURCES / "path" / "__init__.py").read_text(), re.M)
        assert f"Stage {place}" in (SOURCES / "path" / f"{stage}.pxd").read_text().splitlines()[0]


def test_the_reasons_are_the_documented_ones() -> None:
    assert enum_words("reason_t") == ["none", *REASONS]
    assert ("", *REASONS) == lbcore.REASONS


def test_counters_by_reason_have_room_for_all() -> None:
    room = re.search(r"counter_t ended\[(\d+)\]", (SOURCES / "structs.pxd").read_text())
    assert room is not None
    assert len(lbcore.REASONS) <= int(room[1])


def test_an_authorizer_may_refuse_with_its_own_stages_reasons() -> None:
    from lbcore.codes import AUTHORIZE_REASONS

    decided_by_us = {"authz_timeout", "authz_error"}
    assert set(REASONS_BY_STAGE["authorize"].split()) - decided_by_us == AUTHORIZE_REASONS


# ---- structs -------------------------------------------------------------------------------------


def test_structs_stay_small() -> None:
    """An idle connection's memory is TLS state and this. Growing is a decision, not an accident."""
    sizes = compiled(PROBES).sizes()
    assert sizes["conn_t"] <= 640
    assert sizes["leg_t"] <= 80
    assert sizes["message_t"] <= 48
    assert sizes["record_t"] <= 256
    assert sizes["ask_t"] <= 128


def test_a_gauge_has_a_cache_line_to_itself() -> None:
    """Each is written by every worker; two on a line would slow each other down."""
    probes = compiled(PROBES)
    assert probes.sizes()["gauge_t"] == 64
    places = probes.gauge_places()
    assert [name for name, at in places.items() if at % 64] == []
    assert len(set(places.values())) == len(places)


def test_modules_of_different_builds_are_refused(tmp_path: Path) -> None:
    """C would let them misread each other's structs in silence."""
    package = tmp_path / "lbcore"
    shutil.copytree(Path(lbcore.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    assert import_from(tmp_path).returncode == 0
    library = next((package / "parts").glob("limiter*.so"))
    mine = read_setup().layout_hash(package).encode()
    content = library.read_bytes()
    assert content.count(mine) == 1
    library.write_bytes(content.replace(mine, mine[::-1]))
    refused = import_from(tmp_path)
    assert refused.returncode == 1
    assert "ImportError: lbcore: " in refused.stderr
    assert "were built from different contracts" in refused.stderr
    assert "lbcore.parts.limiter" in refused.stderr


def import_from(folder: Path) -> subprocess.CompletedProcess[str]:
    code = f"import sys; sys.path.insert(0, {str(folder)!r}); import lbcore; print(lbcore.__file__)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode or done.stdout.startswith(str(folder))
    return done
