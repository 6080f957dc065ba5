"""One question to DNS (RFC 1035): put to the name servers in turn, by TCP when the answer is long."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from lbctl.logs.printable import printable
from lbctl.names.values import IPAddress, LookupFailed, Reply, Service

if TYPE_CHECKING:
    import dns.asyncresolver

Family = Literal["A", "AAAA"]
T = TypeVar("T")

QUESTIONS_AT_ONCE = 8  # of one look-up; each has a socket
NO_ANSWER = "no answer in time"
_SENSELESS = "an answer that makes no sense"


class Questions:
    """The questions of one look-up.

    Args:
        resolver: of dnspython.

    Thread-safety: none; used within one event loop.
    """

    def __init__(self, resolver: dns.asyncresolver.Resolver) -> None:
        self._resolver = resolver
        self._turns = asyncio.Semaphore(QUESTIONS_AT_ONCE)

    async def addresses(self, name: str, family: Family, deadline: float) -> Reply[IPAddress]:
        """The addresses of a host.

        Args:
            name: absolute when it ends in a dot.
            family: A or AAAA.
            deadline: on the clock of the event loop, in seconds.

        Raises:
            LookupFailed: DNS does not say, or not in time.
        """
        return await self._ask(name, family, deadline, lambda record: ipaddress.ip_address(record.address))

    async def services(self, name: str, deadline: float) -> Reply[Service]:
        """The SRV records of a service, as `addresses`."""
        return await self._ask(name, "SRV", deadline, _service)

    async def _ask(self, name: str, kind: str, deadline: float, understand: Callable[[Any], T]) -> Reply[T]:
        import dns.exception
        import dns.flags
        import dns.resolver

        try:
            # dnspython measures on the wall clock, which may jump; the loop's clock is monotonic.
            async with asyncio.timeout_at(deadline), self._turns:
                answer = await self._resolver.resolve(
                    name,
                    kind,
                    raise_on_no_answer=False,
                    lifetime=deadline - asyncio.get_running_loop().time(),
                    search=True,
                )
            if answer.response.flags & dns.flags.TC:  # by TCP: what is missing will not come
                raise LookupFailed(_SENSELESS)
            records = tuple(understand(record) for record in answer.rrset or ())
            return Reply(records, answer.chaining_result.minimum_ttl)
        except (TimeoutError, dns.resolver.LifetimeTimeout):
            raise LookupFailed(f"{NO_ANSWER} from {self._everybody()}") from None
        except dns.resolver.NXDOMAIN:
            return Reply((), 0, exists=False)
        except dns.resolver.NoNameservers as error:
            raise LookupFailed(_who_did_what(error.kwargs["errors"])) from None
        except (dns.exception.DNSException, OSError, ValueError) as error:
            raise LookupFailed(printable(str(error) or type(error).__name__)) from None

    def _everybody(self) -> str:
        """Who may have been asked."""
        return ", ".join(_address(str(server)) for server in self._resolver.nameservers)


def _service(record: Any) -> Service:
    return Service(record.priority, record.weight, record.port, record.target.to_text())


def _who_did_what(errors: list[Any]) -> str:
    """Each server once with its last failure, in one order: the same words for the same cause."""
    last = {_address(server): _failure(error) for server, _, _, error, _ in errors}
    return ", ".join(f"{server}: {failure}" for server, failure in sorted(last.items()))


def _address(server: str) -> str:
    """Of "Do53:10.0.0.2@53", as dnspython writes a server; a port of its own stays."""
    return server.removeprefix("Do53:").removesuffix("@53")


def _failure(error: object) -> str:
    import dns.exception

    match error:
        case str():
            return error  # the name of a response code
        case dns.exception.Timeout():
            return NO_ANSWER
        case EOFError():
            return "the connection was closed"
        case OSError():
            return error.strerror or "the network failed"
    return _SENSELESS
