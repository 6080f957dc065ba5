"""One function per parser: it may refuse its input in the documented way, and nothing else.

A target raises only for what is a bug: another exception, an answer that breaks a promise.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from lbcore import PeerCertificate
from lbctl.config import ConfigInvalid, Problem, dump, read_bytes, render
from lbctl.config.values import format_serial, parse_serial
from lbctl.logs import certificate as logged
from lbctl.logs import lines

_NOWHERE = Path("/nonexistent")
_ENVIRON = {"PORT": "8443", "NAME": "web"}


def configuration(data: bytes) -> None:
    """Either every problem has a place and one line of text, or what was understood can be written down and
    means the same."""
    problems: Sequence[Problem] = ()
    try:
        loaded = read_bytes(data, "lb.yaml", _NOWHERE, _ENVIRON)
    except ConfigInvalid as error:
        problems = error.problems
    else:
        again = read_bytes(dump(loaded).encode(), "dumped.yaml", Path("/elsewhere"), _ENVIRON)
        assert again.config == loaded.config
        return
    assert problems
    assert all(problem.message.isprintable() for problem in problems), problems
    render(problems).encode()


def serial(data: bytes) -> None:
    """Either no serial, or one that is written back in a form that means the same."""
    try:
        text = data.decode()
        number = parse_serial(text)
    except ValueError:
        return
    assert 0 < number < 2**160
    assert parse_serial(format_serial(number)) == number
    assert int("".join(filter(str.isalnum, text)).lower().removeprefix("0x"), 16) == number


def certificate(data: bytes) -> None:
    """Whatever a certificate says about itself: text or ValueError, and one harmless line in a log."""
    peer = PeerCertificate(data, 1)
    for name in ("subject", "issuer", "common_name", "alternative_names", "not_before", "not_after"):
        said = ""
        try:
            getattr(peer, name)
        except ValueError as error:
            said = str(error)
        assert not said or said.startswith(name), said
    fields = dict(logged.names(data))
    for line in (lines.json_format("node")("conn.deny", 0.0, fields), lines.pretty("other", 0.0, fields)):
        assert line.isprintable(), line
    json.loads(lines.json_format("node")("conn.deny", 0.0, fields))


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target for target in (configuration, serial, certificate)
}
