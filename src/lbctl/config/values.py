"""The written forms of single values: durations, rates, shares, serials, addresses.

Every `parse_*` raises ValueError with a text that says how to mend the value; every `format_*`
writes what its `parse_*` reads back as the same value. No state: safe from any thread.
"""

from __future__ import annotations

import ipaddress
import re
from decimal import Decimal
from fractions import Fraction
from typing import TypeGuard

DURATION_PATTERN = r"^[0-9]+(\.[0-9]+)?(ms|s|m|h|d)$"
RATE_PATTERN = r"^[0-9]+(\.[0-9]+)?/(s|m|h)$"
SHARE_PATTERN = r"^[0-9]+(\.[0-9]+)?%$"
SERIAL_PATTERN = r"^(0[xX])?[0-9A-Fa-f:]+$"
ADDRESS_PATTERN = r"^([0-9.]+|\[[0-9A-Fa-f:.]+\]):[0-9]+$"

DURATION_MIN = 0.001  # seconds; timers are coarser than that
DURATION_MAX = 10 * 365 * 86400.0  # seconds; longer is a typing error, and a timer could overflow
RATE_MIN = 1e-6  # per second: one in eleven days
RATE_MAX = 1e6  # per second; the limiter counts in nanoseconds
SERIAL_BITS = 160  # 20 octets
UNIX = "unix:"  # before the path of a socket
UNIX_PATH_MAX = 107  # bytes, unix(7)

_SECONDS = {
    "ms": Decimal("0.001"),
    "s": Decimal(1),
    "m": Decimal(60),
    "h": Decimal(3600),
    "d": Decimal(86400),
}
_PER_SECOND = {"s": 1, "m": 60, "h": 3600}
_DIGITS_MAX = 30  # enough for any value that passes, and Decimal stays cheap
_AMOUNT = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d|%|/s|/m|/h)")


def is_number(value: object) -> TypeGuard[float]:
    """True and False are none, though Python takes them for integers."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _amount(text: str, what: str, example: str) -> tuple[str, str]:
    """Split "30s" into "30" and "s"."""
    match = _AMOUNT.fullmatch(text) if len(text) <= _DIGITS_MAX else None
    if match is None:
        raise ValueError(f"expected {what} such as {example}")
    return match[1], match[2]


def parse_duration(text: str) -> float:
    """Seconds of "250ms", "30s", "5m", "1.5h", "7d"."""
    number, unit = _amount(text, "a duration with a unit (ms, s, m, h, d)", "30s")
    if unit not in _SECONDS:
        raise ValueError("expected a duration with a unit (ms, s, m, h, d) such as 30s")
    seconds = float(Decimal(number) * _SECONDS[unit])
    if seconds > DURATION_MAX:
        raise ValueError("longer than ten years")
    return seconds


def format_duration(seconds: float) -> str:
    """The shortest spelling that `parse_duration` reads back exactly."""
    exact = Decimal(repr(seconds))
    for unit in ("d", "h", "m", "s", "ms"):
        count = exact / _SECONDS[unit]
        if seconds and count == count.to_integral_value() and count * _SECONDS[unit] == exact:
            return f"{count:f}".partition(".")[0] + unit
    return f"{exact:f}s" if seconds else "0s"


def parse_rate(text: str) -> float:
    """Per second, of "50/s", "5/m", "100/h"."""
    number, unit = _amount(text, "a rate with a unit (/s, /m, /h)", "50/s")
    if not unit.startswith("/"):
        raise ValueError("expected a rate with a unit (/s, /m, /h) such as 50/s")
    return check_rate(float(Fraction(number) / _PER_SECOND[unit[1:]]))


def check_rate(per_second: float) -> float:
    """The rate itself when a limiter can hold it."""
    if not per_second > 0:
        raise ValueError("a rate must be above 0; to refuse a client, leave the app out of its 'apps'")
    if not RATE_MIN <= per_second <= RATE_MAX:
        raise ValueError("a rate must be from 0.000001/s to 1000000/s")
    return per_second


def format_rate(per_second: float) -> str:
    """A spelling that `parse_rate` reads back exactly, whole numbers first."""
    for unit, seconds in _PER_SECOND.items():
        count = round(per_second * seconds)
        if count and float(Fraction(count, seconds)) == per_second:
            return f"{count}/{unit}"
    return f"{Decimal(repr(per_second)):f}/s"


def parse_share(text: str) -> float:
    """A fraction from 0 to 1, of "50%"."""
    number, unit = _amount(text, "a percentage", "50%")
    if unit != "%":
        raise ValueError("expected a percentage such as 50%")
    return check_share(float(Fraction(number) / 100))


def check_share(fraction: float) -> float:
    """The fraction itself when it is one."""
    if not 0 <= fraction <= 1:
        raise ValueError("expected 0% to 100%")
    return fraction


def format_share(fraction: float) -> str:
    """A spelling that `parse_share` reads back exactly."""
    exact = Decimal(repr(fraction)) * 100
    return f"{exact.normalize():f}%"


def parse_serial(text: str) -> int:
    """The positive integer of a certificate serial in hexadecimal.

    Case, colons, leading zeros and a leading "0x" do not matter: "4F:3A:91" and "0x004f3a91" are equal.
    """
    digits = text[2:] if text[:2] in ("0x", "0X") else text
    digits = digits.replace(":", "")
    if not digits or not set(digits) <= set("0123456789abcdefABCDEF"):
        raise ValueError('expected a certificate serial in hexadecimal such as "4F:3A:91:0C"')
    return check_serial(int(digits, 16))


def check_serial(serial: int) -> int:
    """The serial itself when a certificate can carry it (RFC 5280, 4.1.2.2)."""
    if serial <= 0:
        raise ValueError("a certificate serial is greater than zero")
    if serial.bit_length() > SERIAL_BITS:
        raise ValueError("a certificate serial has at most 20 octets")
    return serial


def format_serial(serial: int) -> str:
    """Upper-case pairs with colons, as `openssl x509 -text` shows them: "4F:3A:91:0C"."""
    digits = f"{serial:X}"
    digits = digits.zfill(len(digits) + len(digits) % 2)
    return ":".join(digits[i : i + 2] for i in range(0, len(digits), 2))


def split_address(text: str) -> tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]:
    """Host and port of "10.0.0.1:5432" or "[::1]:5432"."""
    if text.startswith(UNIX):
        raise ValueError("expected HOST:PORT; clients do not arrive on a unix socket")
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not host or (":" in host and not bracketed):
        raise ValueError(_not_host_port(text))
    if re.fullmatch(r"[0-9]{1,5}", port) is None or int(port) > 65535:
        raise ValueError(f"expected HOST:PORT; '{shorten(port)}' is not a port number")
    return _ip_literal(host[1:-1] if bracketed else host, bracketed), int(port)


def _not_host_port(text: str) -> str:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return "expected HOST:PORT"
    return f"expected HOST:PORT such as [{address}]:443" if address.version == 6 else "expected HOST:PORT"


def _ip_literal(host: str, bracketed: bool) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise ValueError(
            f"'{shorten(host)}' is not an IP address; "
            "an upstream with a name is written as dns: NAME with port: N"
        ) from None
    if bracketed != (address.version == 6):
        raise ValueError("square brackets belong around IPv6 addresses only")
    if isinstance(address, ipaddress.IPv6Address) and address.scope_id is not None:
        raise ValueError("IPv6 addresses with a zone (%) are not supported in this version")
    return address


def parse_address(text: str) -> str:
    """An address in its one canonical spelling; port 0 lets the kernel choose."""
    host, port = split_address(text)
    return f"[{host}]:{port}" if host.version == 6 else f"{host}:{port}"


def check_unix_path(path: str) -> str:
    """An absolute path that a unix socket can have.

    Raises:
        ValueError: it cannot.
    """
    if "\0" in path or not 1 < len(path.encode()) <= UNIX_PATH_MAX:
        raise ValueError(f"the path of a unix socket has 1 to {UNIX_PATH_MAX} bytes, directories included")
    return path


def parse_bytes(text: str) -> bytes:
    """The bytes that text stands for: each character one of them, as "\\xff" in double quotes.

    Raises:
        ValueError: a character is no byte.
    """
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        raise ValueError('each character is one byte; write others as bytes, such as "\\xc3\\xa9"') from None


def check_name(name: str) -> str:
    """A name of a client, an app or a class of limits.

    Raises:
        ValueError: it cannot be one.
    """
    if not 1 <= len(name) <= 128 or not name.isprintable() or re.search(r"[\s/]", name):
        raise ValueError("a name has 1 to 128 printable characters, no spaces and no '/'")
    return name


def shorten(text: str, width: int = 60) -> str:
    """Text from a file, made fit for one line of a message."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[: width + 1])
    return shown if len(shown) <= width else shown[: width - 1] + "…"
