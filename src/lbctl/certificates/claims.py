"""What a certificate may say of its client itself, as URIs among its subject alternative names.

    urn:lbctl:client:NAME            who it is, exactly one
    urn:lbctl:app:APP                an app it may use, any number
    urn:lbctl:app:APP:CLASS          the same, under a class of limits

NAME, APP and CLASS are UTF-8. Letters, digits and ``- . _ ~ ! $ & ' ( ) * + , ; = @`` stand for themselves;
each byte of anything else, a colon and a percent sign included, is ``%`` and two hexadecimal digits. Names
are compared after that is undone, and must be names as the configuration allows them. ``urn:lbctl:`` is read
in upper case too (RFC 8141), what follows is not.

Saying the same twice is allowed. Two clients, one app with two classes (or with a class and without one), an
app without a client, or anything else behind ``urn:lbctl:``: then no claim of the certificate counts. Other
alternative names are ignored.

No state: safe from any thread.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import quote, unquote_to_bytes

from lbctl.config.values import check_name, shorten

PREFIX = "urn:lbctl:"
_SEGMENT = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=@-]|%[0-9A-Fa-f]{2})+")


@dataclass(frozen=True)
class Claims:
    """What one certificate claims.

    Attributes:
        client: the client's name.
        apps: what it may use, each with its class of limits or None.
    """

    client: str
    apps: Mapping[str, str | None]


def client_claim(name: str) -> str:
    """The URI that says who the client is."""
    return f"{PREFIX}client:{quote(name, safe='')}"


def app_claim(app: str, limits: str | None = None) -> str:
    """The URI that says what it may use, and under which class of limits."""
    uri = f"{PREFIX}app:{quote(app, safe='')}"
    return uri if limits is None else f"{uri}:{quote(limits, safe='')}"


def read_claims(uris: Iterable[str]) -> Claims | None:
    """The claims among the URIs of a certificate; None when there are none.

    Raises:
        ValueError: they are wrong or contradict each other, so none of them counts.
    """
    clients: set[str] = set()
    apps: dict[str, str | None] = {}
    ours = [uri for uri in uris if uri[: len(PREFIX)].lower() == PREFIX]
    for uri in ours:
        kind, *names = uri[len(PREFIX) :].split(":")
        words = [_decode(name, uri) for name in names]
        if kind == "client" and len(words) == 1:
            clients.add(words[0])
        elif kind == "app" and len(words) in (1, 2):
            limits = words[1] if len(words) == 2 else None
            if apps.setdefault(words[0], limits) != limits:
                raise ValueError(f"two different claims to the app '{shorten(words[0])}'")
        else:
            raise ValueError(f"'{shorten(uri)}' is no claim")
    if not ours:
        return None
    if len(clients) != 1:
        raise ValueError("two different clients" if clients else "apps, but no client")
    return Claims(clients.pop(), apps)


def _decode(segment: str, uri: str) -> str:
    if _SEGMENT.fullmatch(segment) is None:
        raise ValueError(f"'{shorten(uri)}' has an empty name, or a character that is not allowed there")
    try:
        name = unquote_to_bytes(segment).decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"'{shorten(uri)}' is not UTF-8") from None
    try:
        return check_name(name)
    except ValueError as error:
        raise ValueError(f"'{shorten(uri)}': {error}") from None
