"""A name server for tests: UDP and TCP on one port of loopback, with scripted records and bad manners."""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

#: Makes the bytes of the answer to a query; None: no answer. The second argument: it came by TCP.
Answer = Callable[[dns.message.Message, bool], bytes | None]

UDP_MAX = 512  # bytes of an answer without EDNS (RFC 1035, 4.2.1)
CHAIN_MAX = 8
TYPES = ("A", "AAAA", "SRV", "CNAME")


def failing(query: dns.message.Message, tcp: bool) -> bytes:
    """SERVFAIL."""
    return _empty(query, dns.rcode.SERVFAIL)


def unknown(query: dns.message.Message, tcp: bool) -> bytes:
    """NXDOMAIN."""
    return _empty(query, dns.rcode.NXDOMAIN)


def empty(query: dns.message.Message, tcp: bool) -> bytes:
    """The name is there and has no such record."""
    return _empty(query, dns.rcode.NOERROR)


def silent(query: dns.message.Message, tcp: bool) -> None:
    """Nothing at all."""


def garbage(query: dns.message.Message, tcp: bool) -> bytes:
    """The right id, and then no DNS."""
    return struct.pack("!H", query.id) + b"\xff" * 40


def another(query: dns.message.Message, tcp: bool) -> bytes:
    """A good answer to another question."""
    return _empty(dns.message.make_query("another.question", "A", id=query.id), dns.rcode.NOERROR)


def truncated_for_ever(query: dns.message.Message, tcp: bool) -> bytes:
    """Says that it does not fit, by TCP too."""
    response = dns.message.make_response(query)
    response.flags |= dns.flags.TC
    return response.to_wire()


class DnsServer:
    """Answers from its records, or as told. NXDOMAIN for what nobody told it.

    Attributes:
        port: of 127.0.0.1, the same for UDP and TCP.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._records: dict[tuple[str, str], dns.rrset.RRset] = {}
        self._answers: dict[tuple[str, str], Answer] = {}
        self._asked: Counter[tuple[str, str, bool]] = Counter()
        self._udp, self._listening = _both()
        self.port = int(self._udp.getsockname()[1])
        self._selector = selectors.DefaultSelector()
        self._clients: dict[socket.socket, bytes] = {}
        self._end, self._ended = socket.socketpair()
        for readable in (self._udp, self._listening, self._ended):
            readable.setblocking(False)
            self._selector.register(readable, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="dns server", daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        """As `nameservers` has it."""
        return f"127.0.0.1:{self.port}"

    # ---- the script

    def put(self, name: str, kind: str, *values: str, ttl: int = 300) -> None:
        """Records of a name and type, instead of whatever was there; none: the name stays without them."""
        key = _key(name, kind)
        records = dns.rrset.from_text_list(key[0], ttl, "IN", kind, values) if values else None
        with self._lock:
            self._answers.pop(key, None)
            if records is None:
                self._records.pop(key, None)
                self._answers[key] = empty
            else:
                self._records[key] = records

    def behave(self, name: str, answer: Answer | None, *kinds: str) -> None:
        """Has a name answered in its own way; None: from the records again. All types when none is named."""
        with self._lock:
            for kind in kinds or TYPES:
                self._answers.pop(_key(name, kind), None)
                if answer is not None:
                    self._answers[_key(name, kind)] = answer

    def asked(self, name: str, *kinds: str, tcp: bool | None = None) -> int:
        """How many questions came, of all types when none is named."""
        with self._lock:
            return sum(
                count
                for (text, kind, by_tcp), count in self._asked.items()
                if text == _key(name, "")[0] and (not kinds or kind in kinds) and tcp in (None, by_tcp)
            )

    # ---- the server

    def close(self) -> None:
        """Ends it."""
        self._end.send(b".")
        self._thread.join()
        for sock in (self._udp, self._listening, self._end, self._ended, *self._clients):
            sock.close()
        self._selector.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._ended:
                    return
                with contextlib.suppress(OSError):  # whoever asked did not wait
                    self._serve(key.fileobj)

    def _serve(self, readable: Any) -> None:
        if readable is self._udp:
            wire, sender = self._udp.recvfrom(65535)
            answer = self._answer(wire, False)
            if answer is not None:
                self._udp.sendto(answer, sender)
        elif readable is self._listening:
            client, _ = self._listening.accept()
            client.settimeout(5)
            self._clients[client] = b""
            self._selector.register(client, selectors.EVENT_READ)
        else:
            self._read(readable)

    def _read(self, client: socket.socket) -> None:
        """A message by TCP has its length before it (RFC 1035, 4.2.2)."""
        try:
            received = client.recv(65535)
        except OSError:
            received = b""
        if not received:
            self._selector.unregister(client)
            del self._clients[client]
            client.close()
            return
        pending = self._clients[client] + received
        while len(pending) >= 2 and len(pending) >= 2 + int.from_bytes(pending[:2], "big"):
            length = int.from_bytes(pending[:2], "big")
            answer = self._answer(pending[2 : 2 + length], True)
            pending = pending[2 + length :]
            if answer is not None:
                client.sendall(len(answer).to_bytes(2, "big") + answer)
        self._clients[client] = pending

    def _answer(self, wire: bytes, tcp: bool) -> bytes | None:
        query = dns.message.from_wire(wire)
        question = query.question[0]
        key = _key(question.name.to_text(), dns.rdatatype.to_text(question.rdtype))
        with self._lock:
            self._asked[(*key, tcp)] += 1
            told = self._answers.get(key)
        return told(query, tcp) if told is not None else self.from_records(query, tcp)

    def from_records(self, query: dns.message.Message, tcp: bool) -> bytes:
        """The answer of a server with good manners."""
        response = dns.message.make_response(query)
        response.flags |= dns.flags.RA
        with self._lock:
            exists = self._follow(response)
        if not exists:
            response.set_rcode(dns.rcode.NXDOMAIN)
        whole = response.to_wire(max_size=65535)
        return whole if tcp or len(whole) <= UDP_MAX else truncated_for_ever(query, tcp)

    def _follow(self, response: dns.message.Message) -> bool:
        """Adds the records, and aliases on the way. False: there is no such name at the end of it."""
        question = response.question[0]
        name = question.name.to_text()
        for _ in range(CHAIN_MAX):
            found = self._records.get(_key(name, dns.rdatatype.to_text(question.rdtype)))
            if found is not None:
                response.answer.append(found)
                return True
            alias = self._records.get(_key(name, "CNAME"))
            if alias is None:
                return any(_key(name, kind) in self._records for kind in TYPES)
            response.answer.append(alias)
            name = alias[0].target.to_text()
        return True


def _key(name: str, kind: str) -> tuple[str, str]:
    return name.lower().rstrip(".") + ".", kind


def _empty(query: dns.message.Message, rcode: dns.rcode.Rcode) -> bytes:
    response = dns.message.make_response(query)
    response.set_rcode(rcode)
    return response.to_wire()


def _both() -> tuple[socket.socket, socket.socket]:
    """A UDP and a listening TCP socket with the same port."""
    for _ in range(100):
        listening = socket.create_server(("127.0.0.1", 0))
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            udp.bind(listening.getsockname())
        except OSError:
            udp.close()
            listening.close()
        else:
            return udp, listening
    raise OSError("no port is free for both UDP and TCP")
