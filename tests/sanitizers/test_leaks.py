"""Which leaks count: those of lbcore and of the TLS libraries, not the interpreter's and other people's."""

from __future__ import annotations

from pathlib import Path

import pytest

from sanitizers.leaks import leaks_in

ROOT = Path("/srv/lbcore/build/asan")
MALLOC = "    #0 __interceptor_malloc asan_malloc_linux.cpp:69 (/lib/libasan.so.8+0xb89cf)\n"
OURS = f"    #1 __pyx_f_name_new lbcore/parts/cells.pyx:25 ({ROOT}/src/lbcore/parts/cells.so+0x10)\n"
PROBES = f"    #1 __pyx_f_lose _probes.pyx:8 ({ROOT}/build/tests/_probes-0123/_probes.so+0x11)\n"
OPENSSL = "    #1 CRYPTO_zalloc <null> (/lib/x86_64-linux-gnu/libcrypto.so.3+0x2333e8)\n"
S2N = "    #1 <null> <null> (/srv/lbcore/.venv/lib/site-packages/_awscrt.abi3.so+0x20597e)\n"
PYTHON = "    #1 PyObject_GetAttr <null> (/usr/bin/python3.11+0x157cf)\n"
RUST = "    #1 finish_grow <null> (/srv/lbcore/.venv/lib/cryptography/_rust.abi3.so+0x5fa24e)\n"


def report(*leaks: str) -> str:
    """As LeakSanitizer writes it."""
    lines = "\n".join(leaks)
    return f"\n====\n==17==ERROR: LeakSanitizer: detected memory leaks\n\n{lines}\nSUMMARY: 1 leaked.\n"


def leak(stack: str, objects: int = 1, kind: str = "Direct") -> str:
    return f"{kind} leak of {8 * objects} byte(s) in {objects} object(s) allocated from:\n{stack}"


@pytest.mark.parametrize("taker", [OURS, PROBES, OPENSSL, S2N])
@pytest.mark.parametrize("caller", ["", PYTHON.replace("#1", "#2")])
def test_what_we_or_a_tls_library_took_counts(taker: str, caller: str) -> None:
    stack = MALLOC + taker + caller
    assert leaks_in(report(leak(stack)), ROOT) == {stack: 1}


@pytest.mark.parametrize("taker", [PYTHON, RUST])
def test_what_others_took_does_not(taker: str) -> None:
    assert leaks_in(report(leak(MALLOC + taker)), ROOT) == {}


def test_one_by_others_hides_none_of_ours() -> None:
    lost = report(leak(MALLOC + RUST), leak(MALLOC + OURS), leak(MALLOC + PYTHON, kind="Indirect"))
    assert leaks_in(lost, ROOT) == {MALLOC + OURS: 1}


def test_what_was_taken_in_one_place_is_counted_together() -> None:
    lost = report(leak(MALLOC + OURS, 3), leak(MALLOC + S2N), leak(MALLOC + OURS, 2, "Indirect"))
    assert leaks_in(lost, ROOT) == {MALLOC + OURS: 5, MALLOC + S2N: 1}


def test_no_leak_is_no_leak() -> None:
    assert leaks_in("", ROOT) == {}
