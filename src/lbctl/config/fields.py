"""The field types of the model: what a file may write, and what Python gets.

From a file (or an override) a duration is "30s"; built in Python it may also be 30.0 seconds.
The JSON Schema of each type describes the file.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import BeforeValidator, Field, PlainSerializer, ValidationInfo, WithJsonSchema
from pydantic.fields import FieldInfo

from lbctl.config import limit_values, store_url, values, web_url
from lbctl.config.host_names import parse_name
from lbctl.config.spelling import Expanded, NumberLike, Override, Reading

COUNT_MAX = 2**31 - 1
WEIGHT_MAX = 65535
PORT_MAX = 65535
CHECK_BYTES_MAX = 4096  # that a health check sends or expects
# What the core can do; a test compares them.
ATTEMPTS_MAX = 8
WORKERS_MAX = 64
KEEPALIVE = (1.0, 32767.0)  # whole seconds; tcp(7) takes no more


def _typed(info: ValidationInfo) -> bool:
    """Whether values come from Python, where numbers have a known meaning."""
    return not isinstance(info.context, Reading) or info.context.typed


def _text(value: object) -> str:
    if not isinstance(value, str):
        quotes = "; put quotes around it" if isinstance(value, int | float) else ""
        raise ValueError("expected text" + quotes)
    if not value:
        raise ValueError("expected text, not an empty string")
    return value


def _quantity(
    parse: Callable[[str], float], check: Callable[[float], float], bare: str
) -> Callable[[object, ValidationInfo], float]:
    """Validator of a number with a unit; `bare` says how to mend one without."""

    def validate(value: object, info: ValidationInfo) -> float:
        if values.is_number(value) and _typed(info):
            return check(float(value))
        if values.is_number(value) or (isinstance(value, str) and re.fullmatch(r"[0-9]+(\.[0-9]+)?", value)):
            raise ValueError(bare.format(values.shorten(str(value))))
        return check(parse(_text(value)))

    return validate


def _duration(value: float) -> float:
    if not values.DURATION_MIN <= value <= values.DURATION_MAX:
        raise ValueError("a duration must be at least 1ms and at most ten years")
    return value


def _keepalive(value: float) -> float:
    least, most = KEEPALIVE
    if not least <= value <= most:
        raise ValueError(f"the kernel takes {least:.0f}s to {most:.0f}s")
    return value


def _duration_or_zero(value: float) -> float:
    return value if value == 0 else _duration(value)


def _serial(value: object, info: ValidationInfo) -> int:
    number = values.is_number(value) or isinstance(value, NumberLike)
    if isinstance(value, int) and number and _typed(info):
        return values.check_serial(value)
    if number:
        raise ValueError('quote it: a serial is hexadecimal text such as "4F:3A:91:0C", not a number')
    return values.parse_serial(_text(value))


def _window(value: object, info: ValidationInfo) -> limit_values.Window:
    if isinstance(value, tuple | list) and _typed(info):
        opens, period = value if len(value) == 2 else (None, None)
        if type(opens) is not int or not values.is_number(period):
            raise ValueError("expected connections and seconds such as (20, 10.0)")
        return limit_values.check_window(opens, float(period))
    if values.is_number(value) or (isinstance(value, str) and re.fullmatch(r"[0-9]+", value)):
        text = values.shorten(str(value))
        raise ValueError(f"'{text}' has no period; write {text}/10s for so many in any ten seconds")
    return limit_values.parse_window(_text(value))


def _count_to(most: int) -> Callable[[object], int]:
    """Validator of a whole number from 1 to `most`."""

    def validate(value: object) -> int:
        if isinstance(value, Expanded | Override) and re.fullmatch(r"[0-9]{1,10}", value):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            quotes = ", without quotes" if isinstance(value, str) else ""
            raise ValueError("expected a whole number" + quotes)
        if not 1 <= value <= most:
            raise ValueError(f"expected a whole number from 1 to {most}")
        return value

    return validate


def _count_schema(most: int) -> WithJsonSchema:
    return WithJsonSchema({"type": "integer", "minimum": 1, "maximum": most})


def _auto_count(value: object) -> int | None:
    if value is None or value == "auto":
        return None
    try:
        return _count_to(WORKERS_MAX)(value)
    except ValueError:
        raise ValueError(f"expected auto or a whole number from 1 to {WORKERS_MAX}") from None


def _version(value: object) -> object:
    if type(value) is not int or value != 1:  # True == 1, and would pass for it
        raise ValueError("expected 1; this is the only version of the format so far")
    return value


def _flag(value: object) -> bool:
    if isinstance(value, Expanded | Override) and value in ("true", "false"):
        return value == "true"
    if not isinstance(value, bool):
        raise ValueError("expected true or false")
    return value


def _listen_address(value: object) -> str:
    return values.parse_address(_text(value))


def _upstream_address(value: object, info: ValidationInfo) -> str:
    text = _text(value)
    if text.startswith(values.UNIX):
        path = _path(text.removeprefix(values.UNIX), info)
        return values.UNIX + values.check_unix_path(str(path))
    return _place(text)


def _place(text: str) -> str:
    """Somewhere to connect to."""
    host, port = values.split_address(text)
    if port == 0:
        raise ValueError("expected HOST:PORT; port 0 is not a place to connect to")
    if host.is_unspecified or host.is_multicast:
        raise ValueError(f"{host} is not a place to connect to")
    return values.parse_address(text)


def _host_name(value: object) -> str:
    return parse_name(_text(value))


def _service_name(value: object) -> str:
    return parse_name(_text(value), "srv")


def _verify_name(value: object) -> str:
    try:
        return str(ipaddress.ip_address(_text(value)))
    except ValueError:
        return parse_name(_text(value))


def _name_server(value: object) -> str:
    text = _text(value)
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return _place(text)
    return text


def _network(value: object) -> str:
    text = _text(value)
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError("expected an IP address or a network such as 10.0.0.0/8") from None
    if network.network_address != ipaddress.ip_interface(text).ip:
        raise ValueError(f"'{values.shorten(text)}' is an address inside of a network; write {network}")
    return str(network)


def _bytes(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    found = values.parse_bytes(_text(value))
    if len(found) > CHECK_BYTES_MAX:
        raise ValueError(f"at most {CHECK_BYTES_MAX} bytes")
    return found


def _store_url(value: object) -> str:
    text = _text(value)
    store_url.parse_store_url(text)
    return str(text)


def _webhook(value: object) -> str:
    text = _text(value)
    web_url.parse_webhook(text)
    return str(text)


def _path(value: object, info: ValidationInfo) -> Path:
    if not isinstance(value, Path):
        value = _text(value)
        if "\0" in value:
            raise ValueError("a path cannot hold a NUL character")
    if isinstance(info.context, Reading) and not isinstance(value, Override):
        return info.context.base.absolute() / value
    return Path.cwd() / value


def _command(value: object, info: ValidationInfo) -> object:
    """A list whose first item is the path of a program; the others are passed as they are."""
    if isinstance(value, str):
        raise ValueError("expected a list: the program and its arguments; no shell reads it")
    if not isinstance(value, list | tuple):
        return value
    if not value or value[0] == "":
        raise ValueError("needs at least the program")
    program = value[0]
    is_path = isinstance(program, str | Path) and "\0" not in str(program)
    return [str(_path(program, info)) if is_path else program, *value[1:]]


def _argument(value: object) -> str:
    text = value if value == "" else _text(value)
    if "\0" in str(text):
        raise ValueError("an argument cannot hold a NUL character")
    return str(text)


def _name(value: object) -> str:
    return values.check_name(_text(value))


def _share_of_accesses(value: object) -> float:
    if isinstance(value, Expanded | Override) and re.fullmatch(r"[01](\.[0-9]{1,17})?", value):
        value = float(value)
    if not values.is_number(value) or not 0 <= value <= 1:
        raise ValueError("expected a number from 0 to 1")
    return float(value)


def _alpn(value: object) -> str:
    protocol = _text(value)
    if not protocol.isascii() or not protocol.isprintable() or len(protocol) > 255:
        raise ValueError("an ALPN protocol is 1 to 255 printable ASCII characters such as http/1.1")
    return protocol


def _spelled(write: Callable[[Any], str | int]) -> PlainSerializer:
    """How `model_dump(mode="json")` writes a value: as the file does."""
    return PlainSerializer(write, when_used="json")


_DURATION_HINT = "'{0}' has no unit; write {0}s for seconds (or ms, m, h, d)"
_DURATION_SCHEMA = WithJsonSchema(
    {"type": "string", "pattern": values.DURATION_PATTERN, "examples": ["250ms", "30s", "5m", "1h", "7d"]}
)

Duration = Annotated[
    float,
    BeforeValidator(_quantity(values.parse_duration, _duration, _DURATION_HINT)),
    _spelled(values.format_duration),
    _DURATION_SCHEMA,
]
DurationOrZero = Annotated[
    float,
    BeforeValidator(_quantity(values.parse_duration, _duration_or_zero, _DURATION_HINT)),
    _spelled(values.format_duration),
    _DURATION_SCHEMA,
]
Keepalive = Annotated[
    float,
    BeforeValidator(_quantity(values.parse_duration, _keepalive, _DURATION_HINT)),
    _spelled(values.format_duration),
    _DURATION_SCHEMA,
]
Rate = Annotated[
    float,
    BeforeValidator(
        _quantity(
            values.parse_rate, values.check_rate, "'{0}' has no unit; write {0}/s for per second (or /m, /h)"
        )
    ),
    _spelled(values.format_rate),
    WithJsonSchema({"type": "string", "pattern": values.RATE_PATTERN, "examples": ["50/s", "5/m", "100/h"]}),
]
Window = Annotated[
    limit_values.Window,
    BeforeValidator(_window),
    _spelled(limit_values.format_window),
    WithJsonSchema({"type": "string", "pattern": limit_values.WINDOW_PATTERN, "examples": ["20/10s"]}),
]
Bandwidth = Annotated[
    float,
    BeforeValidator(
        _quantity(
            limit_values.parse_bandwidth,
            limit_values.check_bandwidth,
            "'{0}' has no unit; write {0}B/s for bytes per second (or kB/s, MB/s, KiB/s, MiB/s, Mbit/s)",
        )
    ),
    _spelled(limit_values.format_bandwidth),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": limit_values.BANDWIDTH_PATTERN,
            "examples": ["1MiB/s", "500kB/s", "10Mbit/s"],
        }
    ),
]
Share = Annotated[
    float,
    BeforeValidator(_quantity(values.parse_share, values.check_share, "'{0}' has no unit; write {0}%")),
    _spelled(values.format_share),
    WithJsonSchema({"type": "string", "pattern": values.SHARE_PATTERN, "examples": ["50%"]}),
]
Serial = Annotated[
    int,
    BeforeValidator(_serial),
    _spelled(values.format_serial),
    WithJsonSchema({"type": "string", "pattern": values.SERIAL_PATTERN, "examples": ["4F:3A:91:0C"]}),
]
Count = Annotated[int, BeforeValidator(_count_to(COUNT_MAX)), _count_schema(COUNT_MAX)]
Weight = Annotated[int, BeforeValidator(_count_to(WEIGHT_MAX)), _count_schema(WEIGHT_MAX)]
Attempts = Annotated[int, BeforeValidator(_count_to(ATTEMPTS_MAX)), _count_schema(ATTEMPTS_MAX)]
Version = Annotated[Literal[1], BeforeValidator(_version)]
Flag = Annotated[bool, BeforeValidator(_flag)]
Sample = Annotated[
    float, BeforeValidator(_share_of_accesses), WithJsonSchema({"type": "number", "minimum": 0, "maximum": 1})
]
AutoCount = Annotated[
    int | None,
    BeforeValidator(_auto_count),
    _spelled(lambda value: "auto" if value is None else value),
    WithJsonSchema({"anyOf": [{"const": "auto"}, {"type": "integer", "minimum": 1, "maximum": WORKERS_MAX}]}),
]
_ADDRESS_SCHEMA = WithJsonSchema(
    {"type": "string", "pattern": values.ADDRESS_PATTERN, "examples": ["0.0.0.0:443", "[::]:443"]}
)
ListenAddress = Annotated[str, BeforeValidator(_listen_address), _ADDRESS_SCHEMA]
UpstreamAddress = Annotated[
    str,
    BeforeValidator(_upstream_address),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": f"{values.ADDRESS_PATTERN}|^{values.UNIX}.+$",
            "examples": ["10.0.1.11:5432", "[::1]:5432", "unix:/run/app.sock"],
        }
    ),
]
_TEXT_SCHEMA = {"type": "string", "minLength": 1}
HostName = Annotated[
    str, BeforeValidator(_host_name), WithJsonSchema(_TEXT_SCHEMA | {"examples": ["metrics.internal"]})
]
ServiceName = Annotated[
    str,
    BeforeValidator(_service_name),
    WithJsonSchema(_TEXT_SCHEMA | {"examples": ["_metrics._tcp.internal"]}),
]
NameServer = Annotated[
    str,
    BeforeValidator(_name_server),
    WithJsonSchema(_TEXT_SCHEMA | {"examples": ["10.0.0.53", "[::1]:8600"]}),
]
VerifyName = Annotated[
    str, BeforeValidator(_verify_name), WithJsonSchema(_TEXT_SCHEMA | {"examples": ["metrics.internal"]})
]
Network = Annotated[
    str, BeforeValidator(_network), WithJsonSchema(_TEXT_SCHEMA | {"examples": ["10.0.0.0/8", "::1"]})
]
Bytes = Annotated[
    bytes,
    BeforeValidator(_bytes),
    _spelled(lambda value: value.decode("latin-1") if value is not None else None),
    WithJsonSchema(_TEXT_SCHEMA | {"examples": ["PING\r\n"]}),
]
Port = Annotated[int, BeforeValidator(_count_to(PORT_MAX)), _count_schema(PORT_MAX)]
StoreUrl = Annotated[
    str,
    BeforeValidator(_store_url),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": store_url.URL_PATTERN,
            "examples": ["https://clients.internal/v1/serials/{serial}"],
        }
    ),
]
WebhookUrl = Annotated[
    str,
    BeforeValidator(_webhook),
    WithJsonSchema(
        {"type": "string", "pattern": web_url.URL_PATTERN, "examples": ["https://hooks.internal/lb"]}
    ),
]
FilePath = Annotated[Path, BeforeValidator(_path), WithJsonSchema({"type": "string", "minLength": 1})]
FilePaths = Annotated[
    tuple[FilePath, ...],
    BeforeValidator(lambda value: value if isinstance(value, list | tuple) else [value]),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "minLength": 1},
                {"type": "array", "items": {"type": "string", "minLength": 1}},
            ]
        }
    ),
]
Argument = Annotated[str, BeforeValidator(_argument), WithJsonSchema({"type": "string"})]
Command = Annotated[
    tuple[Argument, ...],
    BeforeValidator(_command),
    WithJsonSchema(
        {
            "type": "array",
            "items": {"type": "string"},
            "minItems": 1,
            "examples": [["/usr/local/bin/on-alert", "--node", "lb-1"]],
        }
    ),
]
Name = Annotated[
    str,
    BeforeValidator(_name),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": 128, "pattern": r"^[^\s/]+$"}),
]
Alpn = Annotated[
    str, BeforeValidator(_alpn), WithJsonSchema({"type": "string", "minLength": 1, "maxLength": 255})
]


def at_least_one(thing: str, keyword: str) -> tuple[BeforeValidator, FieldInfo]:
    """Metadata of a list or mapping that may not be empty.

    Not `min_length`: that would call a list empty when all its elements are wrong.
    """

    def validate(value: object) -> object:
        if isinstance(value, list | tuple | dict) and not value:
            raise ValueError(f"needs at least one {thing}")
        return value

    return BeforeValidator(validate), cast(FieldInfo, Field(json_schema_extra={keyword: 1}))
