"""The written forms of single values."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbctl.config import values


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("250ms", 0.25), ("9ms", 0.009), ("30s", 30.0), ("5m", 300.0), ("1.5h", 5400.0), ("7d", 604800.0)],
)
def test_a_duration_is_seconds(text: str, seconds: float) -> None:
    assert values.parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "s", "30", "30 s", "-1s", "1e3s", "30S", "1w", "٣s", "9" * 99 + "s", "5/s"]
)
def test_other_text_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match=r"such as 30s"):
        values.parse_duration(text)


def test_a_duration_ends_at_ten_years() -> None:
    with pytest.raises(ValueError, match="ten years"):
        values.parse_duration("3651d")


@given(st.floats(min_value=1e-3, max_value=values.DURATION_MAX))
def test_a_duration_survives_writing_and_reading(seconds: float) -> None:
    text = values.format_duration(seconds)
    if len(text) <= 30:
        assert values.parse_duration(text) == seconds


@given(st.integers(1, 10**9), st.sampled_from(["ms", "s", "m", "h", "d"]))
def test_a_written_duration_survives_reading_and_writing(count: int, unit: str) -> None:
    try:
        seconds = values.parse_duration(f"{count}{unit}")
    except ValueError:
        return
    assert values.parse_duration(values.format_duration(seconds)) == seconds


@pytest.mark.parametrize(
    ("text", "rate"), [("50/s", 50.0), ("5/m", 5 / 60), ("100/h", 100 / 3600), ("0.5/s", 0.5)]
)
def test_a_rate_is_per_second(text: str, rate: float) -> None:
    assert values.parse_rate(text) == pytest.approx(rate, rel=1e-15)
    assert values.format_rate(values.parse_rate(text)) in (text, "30/m")


@pytest.mark.parametrize("text", ["", "50", "/s", "50s", "50/d", "50 / s", "-1/s", "0/s", "2000000000/s"])
def test_other_text_is_no_rate(text: str) -> None:
    with pytest.raises(ValueError, match=r"rate|per second"):
        values.parse_rate(text)


@given(st.integers(1, 10**6), st.sampled_from(["s", "m", "h"]))
def test_a_rate_survives_writing_and_reading(count: int, unit: str) -> None:
    rate = values.parse_rate(f"{count}/{unit}")
    assert values.parse_rate(values.format_rate(rate)) == rate


@given(st.decimals(min_value=0, max_value=100, places=3))
def test_a_share_survives_writing_and_reading(percent: object) -> None:
    share = values.parse_share(f"{percent}%")
    assert values.parse_share(values.format_share(share)) == share


@pytest.mark.parametrize("text", ["", "50", "101%", "-1%", "50s", "%"])
def test_other_text_is_no_share(text: str) -> None:
    with pytest.raises(ValueError, match="%"):
        values.parse_share(text)


@given(st.integers(1, 2**160 - 1), st.integers(0, 8), st.booleans(), st.booleans(), st.booleans())
def test_a_serial_is_one_number_however_it_is_written(
    serial: int, zeros: int, prefix: bool, colons: bool, upper: bool
) -> None:
    text = values.format_serial(serial) if colons else "0" * zeros + f"{serial:x}"
    text = text.upper() if upper else text.lower()
    assert values.parse_serial(("0x" if prefix else "") + text) == serial


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "hexadecimal"),
        ("0x", "hexadecimal"),
        (":", "hexadecimal"),
        ("4G", "hexadecimal"),
        ("-4F", "hexadecimal"),
        ("4F 3A", "hexadecimal"),
        ("４F", "hexadecimal"),
        ("1_0", "hexadecimal"),
        ("00:00", "greater than zero"),
        ("01" + "00" * 20, "20 octets"),
    ],
)
def test_other_text_is_no_serial(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        values.parse_serial(text)


PARSERS = (
    values.parse_duration,
    values.parse_rate,
    values.parse_share,
    values.parse_serial,
    values.parse_address,
)


@given(st.text(max_size=50), st.sampled_from(PARSERS))
def test_any_text_is_a_value_or_a_message_of_one_line(text: str, parse: Callable[[str], object]) -> None:
    try:
        message = f"ok {parse(text)}"
    except ValueError as error:
        message = str(error)
    assert message
    assert message.isprintable()


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("127.0.0.1:80", "127.0.0.1:80"),
        ("[::]:443", "[::]:443"),
        ("[0:0::1]:080", "[::1]:80"),
        ("0.0.0.0:0", "0.0.0.0:0"),
    ],
)
def test_an_address_has_one_spelling(text: str, canonical: str) -> None:
    assert values.parse_address(text) == canonical


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("10.0.0.2", "expected HOST:PORT"),
        ("::1", r"expected HOST:PORT such as \[::1\]:443"),
        ("::1:443", r"expected HOST:PORT"),
        (":443", "expected HOST:PORT"),
        ("10.0.0.2:", "expected HOST:PORT; '' is not a port"),
        ("10.0.0.2:65536", "'65536' is not a port"),
        ("10.0.0.2:http", "'http' is not a port"),
        (
            "db.internal:5432",
            r"'db.internal' is not an IP address; an upstream with a name is written as dns: NAME",
        ),
        ("[10.0.0.1]:80", "square brackets"),
        ("[fe80::1%eth0]:80", "zone"),
        ("unix:/run/db.sock", "expected HOST:PORT; clients do not arrive on a unix socket"),
        ("010.0.0.1:80", "not an IP address"),
    ],
)
def test_a_bad_address_says_how_to_mend_it(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        values.parse_address(text)


def test_text_in_a_message_is_short_and_harmless() -> None:
    assert values.shorten("a\x1b[31m\n") == "a\\x1b[31m\\n"
    assert len(values.shorten("x" * 1000)) == 60
