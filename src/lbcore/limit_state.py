"""What a limiter remembers, as bytes that survive the process.

How much time has passed since they were written is never overestimated: after a clock that went back it is
none, and within one boot of the machine it is told by a clock that nobody sets (CLOCK_BOOTTIME, which also
counts while the machine sleeps), so a step of the wall clock forgives nothing.
"""

from __future__ import annotations

import json
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FORMAT = "lbcore-limits-1"
BYTES_MAX = 4 * 1024 * 1024


@dataclass(frozen=True)
class LimitState:
    """Attributes:
    tokens: opens owed to the token bucket.
    ages: nanoseconds since each open that the strict window still counts, the oldest first.
    bandwidth: nanoseconds until each direction's account is even, in and out.
    """

    tokens: float
    ages: tuple[int, ...]
    bandwidth: tuple[int, int]


def pack(state: LimitState) -> bytes:
    """JSON text with a checksum."""
    content = {
        "format": FORMAT,
        "wall_ns": time.time_ns(),
        "boot": _BOOT_ID,
        "boot_ns": time.clock_gettime_ns(time.CLOCK_BOOTTIME),
        "tokens": state.tokens,
        "ages_ns": list(state.ages),
        "bandwidth_ns": list(state.bandwidth),
    }
    text = json.dumps(content, separators=(",", ":"), sort_keys=True)
    return json.dumps([zlib.crc32(text.encode()), content], separators=(",", ":"), sort_keys=True).encode()


def unpack(data: bytes) -> tuple[LimitState, int]:
    """The state as it was, and the nanoseconds since.

    Raises:
        TypeError: not bytes.
        ValueError: not what `pack` wrote.
    """
    if not isinstance(data, (bytes, bytearray)):
        raise TypeError(f"data: bytes of a snapshot, not {type(data).__name__}")
    if len(data) > BYTES_MAX:
        raise ValueError("data: too long for a snapshot")
    try:
        checksum, content = json.loads(data)
        text = json.dumps(content, separators=(",", ":"), sort_keys=True)
        if zlib.crc32(text.encode()) != checksum or content["format"] != FORMAT:
            raise ValueError("the checksum or the format is wrong")
        state = LimitState(
            _number(content["tokens"]),
            tuple(int(_number(age)) for age in content["ages_ns"]),
            (int(_number(content["bandwidth_ns"][0])), int(_number(content["bandwidth_ns"][1]))),
        )
        if content["boot"] == _BOOT_ID:
            elapsed = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - int(_number(content["boot_ns"]))
        else:
            elapsed = time.time_ns() - int(_number(content["wall_ns"]))
    except (ValueError, TypeError, KeyError, IndexError, RecursionError, OverflowError) as error:
        raise ValueError(f"data: not a snapshot, or a damaged one ({error})") from None
    return state, max(0, elapsed)


def _number(value: Any) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value <= 2**63:
        raise ValueError("a number is out of range")
    return value


def _read_boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


_BOOT_ID = _read_boot_id()  # proc(5): another one after each boot
