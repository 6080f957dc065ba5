"""Waiting for a condition, never for a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

#: Seconds that anything may take on a machine that is busy with something else.
PATIENCE = 10.0
_LOOK_AGAIN = 0.005


def wait_until(condition: Callable[[], T], what: str = "", *, timeout: float = PATIENCE) -> T:
    """The first truthy answer of `condition`.

    Args:
        condition: asked again and again on this thread.
        what: named when it does not come true.
        timeout: seconds on the monotonic clock.

    Raises:
        AssertionError: it did not come true in time.
    """
    deadline = time.monotonic() + timeout
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() >= deadline:
            raise AssertionError(f"not within {timeout:g} s: {what or condition}; last answer {answer!r}")
        time.sleep(_LOOK_AGAIN)
