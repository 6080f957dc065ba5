"""The words of alerts. Programs read them: they never change."""

from __future__ import annotations

from typing import Literal, NamedTuple

Kind = Literal[
    "upstream_down",
    "upstream_quarantined",
    "upstream_recovered",
    "app_down",
    "app_recovered",
    "certificate_expiry",
]

#: Whom or what an alert is about, among those of its kind.
Subject = tuple[object, ...]


class Nature(NamedTuple):
    """What a kind is.

    Attributes:
        about: alerts about the same thing and subject repeat or contradict each other.
        good: it says that trouble is over.
    """

    about: str
    good: bool = False


KINDS: dict[Kind, Nature] = {
    "upstream_down": Nature("upstream"),
    "upstream_quarantined": Nature("upstream"),
    "upstream_recovered": Nature("upstream", good=True),
    "app_down": Nature("app"),  # all of its upstreams
    "app_recovered": Nature("app", good=True),
    "certificate_expiry": Nature("certificate"),
}
