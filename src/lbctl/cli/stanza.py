"""Pieces of configuration to paste, as text."""

from __future__ import annotations

import json
import re
from pathlib import Path

from lbctl.config.values import format_serial

_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_.@-]*")
_PLAIN_PATH = re.compile(r"[A-Za-z0-9_./][A-Za-z0-9_./@+-]*")
_WORDS = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})  # to some YAML reader


#: What lets in whoever has a certificate that says so.
CLAIMS_STANZA = "certificate_claims: true   # lets in whom certificates of this CA name as clients\n"


def yaml_key(name: str) -> str:
    """A key; quoted when some reader could take it for anything but text."""
    plain = _PLAIN_KEY.fullmatch(name) and name.casefold() not in _WORDS
    return name if plain else json.dumps(name)


def yaml_path(path: Path | str) -> str:
    """A path as a value, `$` doubled as the configuration wants it."""
    text = str(path)
    return text if _PLAIN_PATH.fullmatch(text) else json.dumps(text.replace("$", "$$"))


def serials(*numbers: int) -> str:
    """The list of a client's serials: quoted pairs of digits."""
    return "[" + ", ".join(f'"{format_serial(number)}"' for number in numbers) + "]"


def client_stanza(name: str, serial: int) -> str:
    """What lets a new client in, once its apps are named."""
    return (
        "clients:\n"
        f"  {yaml_key(name)}:\n"
        f"    serials: {serials(serial)}\n"
        "    apps: []   # the apps it may use\n"
    )


def server_stanza(cert: Path, key: Path, client_ca: Path) -> str:
    """What the balancer presents, and whom it believes."""
    return (
        "tls:\n"
        f"  cert: {yaml_path(cert)}\n"
        f"  key: {yaml_path(key)}\n"
        f"  client_ca: {yaml_path(client_ca)}\n"
    )
