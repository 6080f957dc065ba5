"""The written forms of windows and bandwidths."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbctl.config import limit_values as values
from lbctl.config.values import DURATION_MAX

UNITS = ["B/s", "kB/s", "MB/s", "GB/s", "KiB/s", "MiB/s", "GiB/s", "kbit/s", "Mbit/s", "Gbit/s"]


@pytest.mark.parametrize(
    ("text", "opens", "period"),
    [("20/10s", 20, 10.0), ("5/250ms", 5, 0.25), ("1/1.5h", 1, 5400.0), ("65536/1d", 65536, 86400.0)],
)
def test_a_window_is_opens_and_seconds(text: str, opens: int, period: float) -> None:
    assert values.parse_window(text) == (opens, period)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "such as 20/10s"),
        ("20", "such as 20/10s"),
        ("/10s", "such as 20/10s"),
        ("-1/10s", "such as 20/10s"),
        ("1.5/10s", "such as 20/10s"),
        ("20 / 10s", "such as 20/10s"),
        ("٣/10s", "such as 20/10s"),
        ("9" * 99 + "/1s", "such as 20/10s"),
        ("20/10", "a duration with a unit"),
        ("20/s", "write 20/1s"),
        ("20/0s", "at least 1ms"),
        ("0/10s", "1 to 65536"),
        ("65537/10s", "1 to 65536"),
    ],
)
def test_other_text_is_no_window(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        values.parse_window(text)


@given(st.integers(1, values.WINDOW_MAX), st.integers(1, int(DURATION_MAX * 1000)))
def test_a_window_survives_writing_and_reading(opens: int, milliseconds: int) -> None:
    window = values.Window(opens, milliseconds / 1000)
    assert values.parse_window(values.format_window(window)) == window


@pytest.mark.parametrize(
    ("text", "bytes_per_second"),
    [
        ("1B/s", 1.0),
        ("500kB/s", 500e3),
        ("0.5MB/s", 500e3),
        ("10GB/s", 1e10),
        ("1KiB/s", 1024.0),
        ("1MiB/s", 2.0**20),
        ("1.5GiB/s", 1.5 * 2**30),
        ("8kbit/s", 1e3),
        ("10Mbit/s", 1.25e6),
        ("1Gbit/s", 1.25e8),
    ],
)
def test_a_bandwidth_is_bytes_per_second(text: str, bytes_per_second: float) -> None:
    assert values.parse_bandwidth(text) == bytes_per_second


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "such as 1MiB/s"),
        ("5", "such as 1MiB/s"),
        ("5 MB/s", "such as 1MiB/s"),
        ("-5MB/s", "such as 1MiB/s"),
        ("5TB/s", "such as 1MiB/s"),
        ("5/s", "such as 1MiB/s"),
        ("9" * 99 + "B/s", "such as 1MiB/s"),
        ("5MB", "did you mean 5MB/s?"),
        ("5KB/s", "did you mean 5kB/s?"),
        ("5mb/s", "write 5MB/s for bytes or 5Mbit/s for bits"),
        ("5Mb/s", "write 5MB/s for bytes or 5Mbit/s for bits"),
        ("0B/s", "must be above 0"),
        ("0.5B/s", "from 1B/s to 10GB/s"),
        ("11GB/s", "from 1B/s to 10GB/s"),
    ],
)
def test_other_text_is_no_bandwidth(text: str, message: str) -> None:
    with pytest.raises(ValueError, match="bandwidth") as caught:
        values.parse_bandwidth(text)
    assert message in str(caught.value)


@given(st.integers(8, 10**9), st.sampled_from(UNITS))
def test_a_bandwidth_survives_reading_and_writing(count: int, unit: str) -> None:
    try:
        found = values.parse_bandwidth(f"{count}{unit}")
    except ValueError:
        return
    assert values.parse_bandwidth(values.format_bandwidth(found)) == found


@given(st.floats(values.BANDWIDTH_MIN, values.BANDWIDTH_MAX))
def test_any_bandwidth_survives_writing_and_reading(bytes_per_second: float) -> None:
    assert values.parse_bandwidth(values.format_bandwidth(bytes_per_second)) == bytes_per_second


@pytest.mark.parametrize(
    ("bytes_per_second", "text"),
    [(2.0**20, "1MiB/s"), (5e5, "500kB/s"), (1e10, "10GB/s"), (1e6, "1MB/s"), (1.5, "1.5B/s")],
)
def test_a_bandwidth_is_written_with_the_smallest_whole_number(bytes_per_second: float, text: str) -> None:
    assert values.format_bandwidth(bytes_per_second) == text


@given(st.text(max_size=50), st.sampled_from((values.parse_window, values.parse_bandwidth)))
def test_any_text_is_a_value_or_a_message_of_one_line(text: str, parse: Callable[[str], object]) -> None:
    try:
        message = f"ok {parse(text)}"
    except ValueError as error:
        message = str(error)
    assert message
    assert message.isprintable()
