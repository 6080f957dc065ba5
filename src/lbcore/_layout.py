"""Refuses compiled modules that were built from different contracts.

Cython compares the signatures of functions that one module takes from another, not the structs behind
them: two modules built from different versions of structs.pxd would load and misread memory.
"""

import ctypes
import sys


def layout_of(path: str) -> str:
    """The hash of the contracts (.pxd and .h files) that a compiled module was built from."""
    symbol = (ctypes.c_char * 17).in_dll(ctypes.CDLL(path), "lbcore_layout")
    return symbol.value.decode()


def check_layouts() -> None:
    """Compares all compiled modules of this package that are loaded.

    Raises:
        ImportError: two of them disagree; the package must be built again.
    """
    found: dict[str, str] = {}
    for name, module in list(sys.modules.items()):
        path = getattr(module, "__file__", None) or ""
        if name.startswith("lbcore.") and path.endswith(".so"):
            found.setdefault(layout_of(path), name)
    if len(found) > 1:
        names = " and ".join(found.values())
        raise ImportError(f"lbcore: {names} were built from different contracts; run pip install . again")
