"""What the authorizer is asked about, and what it answers.

Pure Python, immutable, no I/O: safe to share between threads.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from datetime import datetime

    from cryptography import x509

    from lbcore.limits import RateLimitManager

T = TypeVar("T")

SERIALS_END = 2**160  # RFC 5280, 4.1.2.2: at most 20 octets


@dataclass(frozen=True)
class PeerCertificate:
    """The client certificate of one connection, after proof of possession.

    The chain was verified: ``serial`` was issued directly by the one configured CA and the client
    holds the private key. The names inside are still text chosen by whoever asked for the
    certificate: escape them wherever they are shown.

    Attributes:
        der: the leaf certificate, DER (RFC 5280).
        serial: the serial number, a positive integer of at most 20 octets.
        source: the client's address as ``"host:port"``.
    """

    der: bytes = field(repr=False)
    serial: int
    source: str = ""

    @property
    def serial_hex(self) -> str:
        """The serial as upper-case hexadecimal with an even number of digits."""
        digits = f"{self.serial:X}"
        return digits if len(digits) % 2 == 0 else "0" + digits

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the DER, lower-case hexadecimal."""
        return hashlib.sha256(self.der).hexdigest()

    @cached_property
    def certificate(self) -> x509.Certificate:
        """The parsed certificate.

        Raises:
            ValueError: naming the attribute, the certificate cannot be parsed; so do all the properties
                below.
            ImportError: the package ``cryptography`` is not installed; ditto.
        """
        return self._read("certificate", self._parse)

    def _parse(self) -> x509.Certificate:
        from cryptography import x509  # only callers who look inside pay for the import

        return x509.load_der_x509_certificate(self.der)

    @cached_property
    def subject(self) -> str:
        """The subject as RFC 4514 text."""
        return self._read("subject", lambda: self.certificate.subject.rfc4514_string())

    @cached_property
    def issuer(self) -> str:
        """The issuer as RFC 4514 text."""
        return self._read("issuer", lambda: self.certificate.issuer.rfc4514_string())

    @cached_property
    def common_name(self) -> str | None:
        """The last common name of the subject, the most specific one; None without one."""
        from cryptography.x509.oid import NameOID

        names = self._read(
            "common_name", lambda: self.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        )
        return str(names[-1].value) if names else None

    @cached_property
    def alternative_names(self) -> tuple[tuple[str, str], ...]:
        """The subject alternative names as (kind, value): kinds are ``dns``, ``uri``, ``ip`` and
        ``email``; others are left out. Empty without the extension."""
        from cryptography import x509

        def read() -> tuple[tuple[str, str], ...]:
            try:
                extension = self.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
            except x509.ExtensionNotFound:
                return ()
            kinds: tuple[tuple[type[x509.GeneralName], str], ...] = (
                (x509.DNSName, "dns"),
                (x509.UniformResourceIdentifier, "uri"),
                (x509.IPAddress, "ip"),
                (x509.RFC822Name, "email"),
            )
            ranges = (ipaddress.IPv4Network, ipaddress.IPv6Network)  # for CAs, and none of anybody's names
            return tuple(
                (kind, str(name.value))
                for name in extension.value
                for of, kind in kinds
                if isinstance(name, of) and not isinstance(name.value, ranges)
            )

        return self._read("alternative_names", read)

    @cached_property
    def not_before(self) -> datetime:
        """When it becomes valid; aware, UTC."""
        return self._read("not_before", lambda: self.certificate.not_valid_before_utc)

    @cached_property
    def not_after(self) -> datetime:
        """When it ends; aware, UTC."""
        return self._read("not_after", lambda: self.certificate.not_valid_after_utc)

    def _read(self, name: str, read: Callable[[], T]) -> T:
        """Parsers raise what they like for what a stranger wrote."""
        try:
            return read()
        except ImportError:
            raise
        except Exception as error:
            raise ValueError(f"{name}: the certificate cannot be parsed ({error})") from None


@dataclass(frozen=True)
class Verdict:
    """An authorizer's answer.

    Attributes:
        allow: whether the connection goes on.
        client: the name of the client record, for logs and limits; required when ``allow``.
        reason: why not: one of the ``authorize`` reason codes (``unknown_serial``,
            ``client_disabled``, ``client_blocked``, ``app_not_allowed``); required when refused.
        limits: the limiter this connection counts in, or None.
        ttl: seconds the answer may be reused for the same certificate and application;
            None until the policy changes, 0 never.

    Raises:
        TypeError, ValueError: naming the attribute.
    """

    allow: bool
    client: str | None = None
    reason: str | None = None
    limits: RateLimitManager | None = None
    ttl: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.allow, bool):  # 'no' would be true
            raise TypeError(f"allow: True or False, not {type(self.allow).__name__}")
        for name in ("client", "reason"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise TypeError(f"{name}: text or None, not {type(value).__name__}")
        if self.allow and not self.client:
            raise ValueError("client: an allowing Verdict needs the client's name")
        if not self.allow and not self.reason:
            raise ValueError("reason: a refusing Verdict needs a reason code")
        if self.ttl is not None and not self.ttl >= 0:
            raise ValueError("ttl: seconds, 0 or more, or None")


class Undecided(Exception):
    """Raised by an authorizer that cannot decide now, such as when what it asks is down.

    The connections that wait are refused with ``authz_error``, the next one asks again, and nothing is
    logged: unlike any other exception it is no fault of the authorizer, which has said itself what is
    the matter, once and not for each connection.
    """


@dataclass(frozen=True)
class PolicyClient:
    """One client of the native table: refuses strangers without asking Python.

    Attributes:
        name: the client record's name.
        serials: the serial numbers of its certificates (several during rotation).
        apps: names of the applications it may use.
        disabled: known, but refused.

    Raises:
        TypeError, ValueError: naming the attribute.
    """

    name: str
    serials: Sequence[int]
    apps: Collection[str]
    disabled: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise TypeError(f"name: text, not {self.name!r}")
        if isinstance(self.apps, str) or not all(isinstance(app, str) for app in self.apps):
            raise TypeError(f"apps: a collection of names, not {self.apps!r}")
        for serial in self.serials:
            if not isinstance(serial, int) or isinstance(serial, bool):
                raise TypeError(f"serials: integers, not {serial!r}")
            if not 0 < serial < SERIALS_END:
                raise ValueError(f"serials: positive integers of at most 20 octets, not {serial!r}")
        if not isinstance(self.disabled, bool):
            raise TypeError(f"disabled: True or False, not {self.disabled!r}")
