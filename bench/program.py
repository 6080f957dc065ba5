"""What the bench's programs have in common at the command line: values, and how failures are told."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from .load import LoadFailed
from .proxies import ProxyFailed

FAILURES = (ProxyFailed, LoadFailed, OSError)


def positive(text: str) -> int:
    """For argparse: a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError("a whole number of at least 1")
    return int(text)


def words(failure: BaseException) -> str:
    """What is told of it: itself, and what was noted on its way."""
    return "\n".join([str(failure), *getattr(failure, "__notes__", [])])


def tell(program: str, work: Callable[[], None]) -> int:
    """Does it. 0: it was done; 1: it failed, and stderr says why."""
    try:
        work()
    except FAILURES as failure:
        print(f"{program}: {words(failure)}", file=sys.stderr)
        return 1
    return 0
