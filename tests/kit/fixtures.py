"""Types of what the fixtures in conftest.py give."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from kit.balancer import Balancer

T = TypeVar("T")

#: Upstreams, then options of Balancer.
MakeBalancer = Callable[..., Balancer]


class Keep(Protocol):
    """Takes a thing that has ``close()``, and gives it back."""

    def __call__(self, thing: T, /) -> T: ...


#: Values of a parametrized test that are options of something else.
Options = dict[str, Any]
