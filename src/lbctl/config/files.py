"""The certificates and keys a configuration names: present, private, matching, in date."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from lbctl.config.faults import Fault
from lbctl.config.faults import Path as KeyPath
from lbctl.config.load import Loaded
from lbctl.config.model import Alerts, ClientStore, Config, UpstreamTls
from lbctl.config.named import PEM_MAX, remaining
from lbctl.config.places import Places
from lbctl.config.problem import Problem
from lbctl.config.values import shorten

T = TypeVar("T")
_OTHERS = stat.S_IRGRP | stat.S_IWGRP | stat.S_IROTH | stat.S_IWOTH


class Oddity(Fault):
    """Allowed, worth a warning."""


def check_files(config: Config | Loaded, *, now: datetime | None = None) -> list[Problem]:
    """Look at every certificate and key the configuration names.

    Args:
        config: with a `Loaded`, problems carry the place in the file.
        now: the time to check dates against, with a zone; the present by default.

    Returns:
        Errors and warnings (`Problem.severity`); empty when all is well. Reads files, changes nothing.
    """
    loaded = config if isinstance(config, Loaded) else None
    model = config.config if isinstance(config, Loaded) else config
    places = loaded.places if loaded is not None else Places()
    moment = now or datetime.now(UTC)
    return [_problem(places, fault) for fault in _faults(model, moment)]


def _problem(places: Places, fault: Fault) -> Problem:
    problem = places.problem(fault)
    return replace(problem, severity="warning") if isinstance(fault, Oddity) else problem


def _faults(config: Config, now: datetime) -> Iterator[Fault]:
    warn = config.tls.expiry_warning if config.tls is not None else ()
    if config.client_store is not None:
        yield from _server(config.client_store, ("client_store",), warn, now)
    for name, app in config.apps.items():
        if app.upstream_tls is not None:
            yield from _server(app.upstream_tls, ("apps", name, "upstream_tls"), warn, now)
    if config.alerts is not None:
        yield from _alerts(config.alerts, warn, now)
    if config.tls is None:
        return
    if any(app.tls is None and not app.plaintext for app in config.apps.values()):
        yield from _pair(config.tls.cert, config.tls.key, ("tls",), warn, now)
    yield from _client_ca(config.tls.client_ca, ("tls", "client_ca"), warn, now)
    for name, app in config.apps.items():
        if app.tls is not None:
            yield from _pair(app.tls.cert, app.tls.key, ("apps", name, "tls"), warn, now)


def _pair(
    cert: Path,
    private: Path,
    at: KeyPath,
    warn: tuple[float, ...],
    now: datetime,
    *,
    shown_to: Literal["clients", "servers"] = "clients",
) -> Iterator[Fault]:
    """A certificate and its key."""
    cert_at, key_at = (*at, "cert"), (*at, "key")
    chain = yield from _read(cert_at, cert, x509.load_pem_x509_certificates, "certificate")
    if chain:
        yield from _dates(chain[0], cert_at, cert, warn, now)
        yield from _purpose(chain[0], cert_at, cert, shown_to)
    yield from _privacy(key_at, private)
    key = yield from _read(key_at, private, lambda pem: load_pem_private_key(pem, None), "private key")
    if key is None:
        return
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        yield Fault(key_at, f"{_show(private)}: expected an ECDSA or RSA key")
    elif chain and _public_bytes(chain[0].public_key()) != _public_bytes(key.public_key()):
        yield Fault(key_at, f"{_show(private)} is not the key of the certificate {_show(cert)}")


def _server(
    server: ClientStore | UpstreamTls, at: KeyPath, warn: tuple[float, ...], now: datetime
) -> Iterator[Fault]:
    """What a server that we are the client of is trusted by, and what we show it."""
    if server.ca is not None:
        yield from _trusted(server.ca, (*at, "ca"), warn, now)
    if server.cert is not None and server.key is not None:
        yield from _pair(server.cert, server.key, at, warn, now, shown_to="servers")


def _alerts(alerts: Alerts, warn: tuple[float, ...], now: datetime) -> Iterator[Fault]:
    """The program that is run, and what the webhook is trusted by."""
    if alerts.command is not None:
        yield from _program(Path(alerts.command[0]), ("alerts", "command", 0))
    if alerts.ca is not None:
        yield from _trusted(alerts.ca, ("alerts", "ca"), warn, now)


def _program(path: Path, at: KeyPath) -> Iterator[Fault]:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        yield Fault(at, f"cannot run {_show(path)}: {error.strerror}")
        return
    if not stat.S_ISREG(mode):
        yield Fault(at, f"cannot run {_show(path)}: not a regular file")
    elif not os.access(path, os.X_OK, effective_ids=True):
        yield Fault(at, f"cannot run {_show(path)}: not executable for us; run: chmod +x {_show(path)}")


def _trusted(path: Path, at: KeyPath, warn: tuple[float, ...], now: datetime) -> Iterator[Fault]:
    """The CA certificates somebody else's must come from."""
    found = yield from _read(at, path, x509.load_pem_x509_certificates, "certificate")
    if found and len(found) == 1:  # in a bundle some may well have ended
        yield from _dates(found[0], at, path, warn, now)


def _client_ca(path: Path, at: KeyPath, warn: tuple[float, ...], now: datetime) -> Iterator[Fault]:
    found = yield from _read(at, path, x509.load_pem_x509_certificates, "certificate")
    if not found:
        return
    if len(found) != 1:
        yield Fault(at, f"{_show(path)} holds {len(found)} certificates; there is exactly one client CA")
        return
    if not _is_ca(found[0]):
        yield Fault(at, f"{_show(path)} is not a CA certificate (basicConstraints CA:TRUE, keyCertSign)")
    yield from _dates(found[0], at, path, warn, now)


def _read(
    at: KeyPath, path: Path, parse: Callable[[bytes], T], what: str
) -> Generator[Fault, None, T | None]:
    """What the file holds, or None after saying why not."""
    try:
        with path.open("rb") as file:
            pem = file.read(PEM_MAX + 1)
        if len(pem) > PEM_MAX:
            raise ValueError("larger than 1 MiB")
        return parse(pem)
    except OSError as error:
        yield Fault(at, f"cannot read {_show(path)}: {error.strerror}")
    except TypeError:  # how the library says that a key wants a password
        yield Fault(at, f"{_show(path)}: an encrypted {what}; write it without a password, mode 0600")
    except (ValueError, UnsupportedAlgorithm):
        yield Fault(at, f"{_show(path)}: no usable {what} in PEM")
    return None


def _privacy(at: KeyPath, path: Path) -> Iterator[Fault]:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return  # reading it says so
    if mode & _OTHERS:
        yield Fault(
            at, f"{_show(path)} is open to other users (mode {mode:04o}); run: chmod 600 {_show(path)}"
        )


def _dates(
    certificate: x509.Certificate, at: KeyPath, path: Path, warn: tuple[float, ...], now: datetime
) -> Iterator[Fault]:
    starts, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now < starts:
        yield Fault(at, f"{_show(path)} is not valid before {starts:%Y-%m-%d %H:%M} UTC")
    elif now > ends:
        yield Fault(at, f"{_show(path)} {remaining(ends, now)}")
    elif warn and ends - now < timedelta(seconds=max(warn)):
        yield Oddity(at, f"{_show(path)} {remaining(ends, now)}")


def _purpose(
    certificate: x509.Certificate, at: KeyPath, path: Path, shown_to: Literal["clients", "servers"]
) -> Iterator[Fault]:
    """A certificate with purposes must name ours, or whoever we show it to turns away."""
    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (x509.ExtensionNotFound, ValueError):
        return
    ours = {
        "clients": ("servers", "serverAuth", ExtendedKeyUsageOID.SERVER_AUTH),
        "servers": ("clients", "clientAuth", ExtendedKeyUsageOID.CLIENT_AUTH),
    }
    who, purpose, oid = ours[shown_to]
    if oid not in usage:
        yield Oddity(at, f"{_show(path)} is not meant for {who} (extendedKeyUsage without {purpose})")


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        extensions = certificate.extensions
        if not extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            return False
        return extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    except x509.ExtensionNotFound as missing:
        return missing.oid == ExtensionOID.KEY_USAGE  # basicConstraints is a must, keyUsage is not
    except ValueError:
        return False


def _public_bytes(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _show(path: Path) -> str:
    return shorten(str(path), 200)
