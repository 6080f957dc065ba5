"""Random connections against a model: what each end must have received, and how its stream must have ended.

Every connection follows a plan for both of its ends: what they send in which pieces and pauses, and whether
they end cleanly, vanish or abort. Many run at once. A failure names the seed and the plan:

    LBCORE_MODEL_SEED=17 LBCORE_MODEL_CONNECTIONS=200 pytest tests/scenarios/test_model.py
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import ssl
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal

import pytest
from kit.clients import TlsClient, client_context, plain
from kit.fixtures import MakeBalancer
from kit.pki import Pki
from kit.sockets import End, read_exactly, read_to_end, reset
from kit.upstreams import Session, Upstream
from kit.waiting import wait_until

SEEDS = [int(os.environ["LBCORE_MODEL_SEED"])] if "LBCORE_MODEL_SEED" in os.environ else [1, 2, 3]
CONNECTIONS = int(os.environ.get("LBCORE_MODEL_CONNECTIONS", "80"))
AT_ONCE = 8
NUMBER = 8  # bytes that say which plan a connection follows
PAYLOAD_MAX = 200_000  # both ends may send all of it before they read
SIZES = [0, 1, 100, 16_383, 16_384, 16_385, 65_536, PAYLOAD_MAX]
GONE = (ConnectionResetError, BrokenPipeError, ssl.SSLEOFError)

Ending = Literal["clean", "vanish", "reset"]


@dataclass(frozen=True)
class Side:
    """What one end does.

    Attributes:
        size: bytes it sends.
        pieces: how they are cut: (bytes, seconds to wait before).
        ending: how it ends afterwards.
        reads_first: how much it wants to have read before it ends.
    """

    size: int
    pieces: tuple[tuple[int, float], ...]
    ending: Ending
    reads_first: int = 0


@dataclass(frozen=True)
class Plan:
    number: int
    client: Side
    upstream: Side


@dataclass
class Seen:
    """What one end received, and how it ended for it."""

    data: bytes = b""
    end: End | None = None

    def __str__(self) -> str:
        return f"{len(self.data)} bytes and {self.end}"


@dataclass
class Outcomes:
    """What the upstreams saw, by plan's number."""

    seen: dict[int, Seen] = field(default_factory=dict)
    done: list[int] = field(default_factory=list)  # also of those that never said who they are


def payload(number: int, side: str, size: int) -> bytes:
    return random.Random(f"{number} {side}").randbytes(size)


def a_side(chance: random.Random, endings: list[Ending], other: int = 0) -> Side:
    size = chance.choice([*SIZES, chance.randrange(PAYLOAD_MAX)])
    cuts = sorted(chance.randrange(size + 1) for _ in range(chance.randrange(5)))
    lengths = [end - start for start, end in zip([0, *cuts], [*cuts, size], strict=True)]
    pieces = tuple((length, chance.choice([0, 0, 0.001, 0.03])) for length in lengths)
    ending = chance.choice(endings)
    # A polite end comes before anything was read or after all of it: OpenSSL's clients do not take data that
    # they had in hand when they said close_notify.
    partly = [] if ending == "clean" else [chance.randrange(other + 1)]
    return Side(size, pieces, ending, chance.choice([0, 0, other, *partly]))


def plans(seed: int, count: int, *, tls: bool) -> list[Plan]:
    chance = random.Random(seed)
    clients: list[Ending] = ["clean", "clean", "reset", "vanish"] if tls else ["clean", "clean", "reset"]
    made = []
    for number in range(count):
        upstream = a_side(chance, ["clean", "clean", "clean", "reset"])
        made.append(Plan(seed << 20 | number, a_side(chance, clients, upstream.size), upstream))
    return made


def parts(data: bytes, side: Side) -> Iterator[bytes]:
    """What is sent, when it is time."""
    at = 0
    for length, pause in side.pieces:
        time.sleep(pause)  # part of the plan, not a wait for something
        yield data[at : at + length]
        at += length


# ---- the two ends --------------------------------------------------------------------------------


def follow_upstream(session: Session, plan: Plan) -> Seen:
    side, aborted = plan.upstream, False
    try:
        for part in parts(payload(plan.number, "upstream", side.size), side):
            session.sock.sendall(part)
        if side.ending == "reset":
            reset(session.sock)
            return Seen()
        session.sock.shutdown(socket.SHUT_WR)
    except (*GONE, OSError):  # ENOTCONN: it was reset before our end
        aborted = True
    session.collect()  # what had arrived before an abort can still be read
    return Seen(bytes(session.received), End.RESET if aborted else session.ended)


def follow_plain(port: int, plan: Plan) -> Seen:
    side, data = plan.client, bytearray()
    with plain(port) as sock:
        try:
            sock.sendall(plan.number.to_bytes(NUMBER, "big"))
            for part in parts(payload(plan.number, "client", side.size), side):
                sock.sendall(part)
            while len(data) < side.reads_first and (part := sock.recv(1 << 16)):
                data += part
            if side.ending == "reset":
                reset(sock)
                return Seen(bytes(data))
            sock.shutdown(socket.SHUT_WR)
        except (*GONE, OSError):
            with contextlib.suppress(OSError):
                data += read_to_end(sock)[0]
            return Seen(bytes(data), End.RESET)
        rest, end = read_to_end(sock)
        return Seen(bytes(data) + rest, end)


def follow_tls(client: TlsClient, plan: Plan) -> Seen:
    side, data = plan.client, bytearray()
    with client:
        try:
            client.handshake()
            client.send(plan.number.to_bytes(NUMBER, "big"))
            for part in parts(payload(plan.number, "client", side.size), side):
                client.send(part)
            while len(data) < side.reads_first:
                part_or_end = client.receive_some(1 << 16)
                if isinstance(part_or_end, End):
                    return Seen(bytes(data), part_or_end)
                data += part_or_end
            if side.ending == "reset":
                client.reset()
                return Seen(bytes(data))
            if side.ending == "clean":
                client.send_close_notify()
            client.send_fin()
        except (*GONE, OSError):
            return Seen(bytes(data), End.RESET)
        rest, end = client.receive_to_end()
        return Seen(bytes(data) + rest, end)


# ---- the model -----------------------------------------------------------------------------------


def check(plan: Plan, client: Seen, upstream: Seen | None, clean: End) -> None:
    """Whether both ends saw what the plan makes them see; `clean` is a clean end for the client."""
    sent_up = payload(plan.number, "client", plan.client.size)
    sent_down = payload(plan.number, "upstream", plan.upstream.size)
    assert sent_down.startswith(client.data), "the client got other bytes than were sent"
    if upstream is None:
        assert plan.client.ending != "clean", "it never came to the upstream"
        assert client.data == b"", "an answer of nobody"
        return  # it had gone before anybody was dialled
    assert sent_up.startswith(upstream.data), "the upstream got other bytes than were sent"
    if plan.upstream.ending == "reset":
        if plan.client.ending == "clean":
            assert client.end not in (None, clean), "an abort of the upstream looked clean"
        return
    match plan.client.ending:
        case "clean":
            assert (client.data, client.end) == (sent_down, clean), "the client missed something"
            assert (upstream.data, upstream.end) == (sent_up, End.FIN), "the upstream missed something"
        case "vanish":
            assert upstream.data == sent_up, "all that came before the truncation is delivered"
            assert upstream.end is End.RESET or client.data == sent_down, "a truncation looked clean"
        case "reset":
            assert upstream.end is End.RESET, "an abort of the client looked clean"


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("tls", [True, False], ids=["tls", "plaintext"])
def test_connections_do_what_the_model_says(balance: MakeBalancer, pki: Pki, seed: int, tls: bool) -> None:
    todo = plans(seed, CONNECTIONS, tls=tls)
    by_number = {plan.number: plan for plan in todo}
    outcomes = Outcomes()

    def script(session: Session) -> None:
        number = 0
        with contextlib.suppress(AssertionError, *GONE):  # aborted before it had said who it is
            number = int.from_bytes(read_exactly(session.sock, NUMBER), "big")
            outcomes.seen[number] = follow_upstream(session, by_number[number])
        outcomes.done.append(number)

    context = client_context(pki, pki.alice)
    with Upstream(script) as upstream:
        lb = balance(upstream, plaintext=not tls)

        def follow(plan: Plan) -> Seen:
            if tls:
                return follow_tls(TlsClient(lb.port, context), plan)
            return follow_plain(lb.port, plan)

        with ThreadPoolExecutor(AT_ONCE) as pool:
            clients = list(pool.map(follow, todo))
        assert len(lb.records.wait(CONNECTIONS)) == CONNECTIONS
        lb.wait_quiet()
        wait_until(lambda: upstream.accepted == len(outcomes.done), "the upstreams have seen all ends")
        for plan, client in zip(todo, clients, strict=True):
            there = outcomes.seen.get(plan.number)
            try:
                check(plan, client, there, End.CLOSE_NOTIFY if tls else End.FIN)
            except AssertionError as error:
                why = str(error).partition("\n")[0]
                raise AssertionError(f"seed {seed}: {why}; {client}, {there}; {plan}") from None
