"""Whether dnspython is there. It comes with an extra, because most configurations name no upstream."""

from __future__ import annotations

import importlib.util


def missing() -> str | None:
    """How to mend that dnspython is not installed; None when it is. Safe from any thread."""
    if importlib.util.find_spec("dns") is None or importlib.util.find_spec("dns.asyncresolver") is None:
        return "upstreams by name need dnspython: pip install 'lbcore[dns]'"
    return None
