"""Application and UpstreamServer: what connections are balanced over."""

import asyncio
import contextlib

from libc.stdint cimport uint32_t

from lbcore.addresses import socket_address, split_address
from lbcore.codes import REASONS

from lbcore.limits cimport RateLimitManager
from lbcore.parts.balance cimport balance_is_ejected
from lbcore.parts.cells cimport (
    app_new,
    app_unref,
    limiter_ref,
    name_new,
    upstream_new,
    upstream_ref,
    upstream_unref,
)
from lbcore.structs cimport DIAL_ATTEMPTS_MAX
from lbcore.sys.atomics cimport counter_next, counter_read, counter_t, gauge_read
from lbcore.sys.linux cimport memcpy, monotonic_ns

cdef counter_t next_id           # of applications and upstreams, never reused
WEIGHT_MAX = 65535
UPSTREAMS_MAX = 65535


def check_seconds(name, value, least=0.001, most=10.0 * 365 * 86400):
    """Seconds as nanoseconds. Raises TypeError or ValueError naming the argument."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"{name}: seconds, not {value!r}")
    if not least <= value <= most:
        raise ValueError(f"{name}: {least:g} to {most:g} seconds, not {value!r}")
    return round(value * 1e9)


def check_count(name, value, least, most):
    """A whole number in range. Raises TypeError or ValueError naming the argument."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name}: a whole number, not {value!r}")
    if not least <= value <= most:
        raise ValueError(f"{name}: {least} to {most}, not {value}")
    return value


cdef class UpstreamServer:
    """One server that connections are forwarded to. Belongs to one Application.

    Args:
        address: ``"10.0.0.1:80"`` or ``"[2001:db8::1]:80"``.
        weight: its share of the open connections, relative to the others.
        max_connections: never more than this many at once, or None.

    Raises:
        TypeError, ValueError: naming the argument.
    """

    def __cinit__(self, *args, **kwargs):
        self.cell = upstream_new()
        if self.cell == NULL:
            raise MemoryError

    def __init__(self, str address not None, weight=1, *, max_connections=None):
        cdef bytes packed = socket_address(address)
        if self.cell.id != 0:
            raise RuntimeError("UpstreamServer: already made")
        if split_address(address)[1] == 0:
            raise ValueError("address: the port is 0")
        self.address = address
        self.weight = check_count("weight", weight, 1, WEIGHT_MAX)
        self.max_connections = max_connections
        if max_connections is not None:
            self.cell.in_flight_max = check_count("max_connections", max_connections, 1, 2**31 - 1)
        self.cell.id = counter_next(&next_id) + 1
        self.cell.weight = weight
        self.cell.address_length = <uint32_t>len(packed)
        memcpy(&self.cell.address, <const char *>packed, len(packed))

    def __dealloc__(self):
        upstream_unref(self.cell)

    @property
    def id(self):
        """A number no other upstream of this process has or had."""
        return self.cell.id

    @property
    def in_flight(self):
        """Connections picked for it and not ended: dialling and open ones."""
        return gauge_read(&self.cell.in_flight)

    @property
    def picked(self):
        """Times it was picked so far."""
        return counter_read(&self.cell.picked)

    @property
    def errors(self):
        """Failed dials so far."""
        return counter_read(&self.cell.errors)

    @property
    def ejected(self):
        """Whether failed dials keep it out of the pool at the moment."""
        return balance_is_ejected(self.cell, monotonic_ns())

    def __repr__(self):
        return f"<UpstreamServer {self.address} weight={self.weight} in_flight={self.in_flight}>"


cdef class Application:
    """A named group of upstream servers, balanced by least connections.

    Immutable once made; safe to use from any thread.

    Args:
        name: for logs, limits and permissions.
        upstreams: at least one UpstreamServer, each in one application only.
        max_connections: connections open at once in the whole application, or None.
        limits: what all its connections together are held to, with all scopes around it; or None. A client's
            own limits (``Verdict.limits``, ``submit_connection``) count before these.
        engine: that serves submitted connections; None: the one that is running then.
        connect_timeout: seconds one dial may take.
        connect_attempts: upstreams one connection may try, 1 to 8.
        idle_timeout: seconds without a byte in either direction.
        half_close_timeout: the same once one side has ended.
        tcp_keepalive: seconds of silence before the kernel probes a peer.
        on_truncated: ``"reset"`` or ``"eof"``: what the upstream sees when a TLS client vanishes
            without close_notify.
        passive_failures: failed dials in a row that take an upstream out of the pool; 0: never.
        passive_eject: seconds it stays out.
        max_ejected: the share of the upstreams that may be out at once, 0 to 1.

    Raises:
        TypeError, ValueError: naming the argument.
    """

    def __cinit__(self, *args, **kwargs):
        self.cell = NULL

    def __init__(
        self,
        str name not None,
        upstreams,
        *,
        max_connections=None,
        limits=None,
        engine=None,
        connect_timeout=1.0,
        connect_attempts=3,
        idle_timeout=1800.0,
        half_close_timeout=60.0,
        tcp_keepalive=60.0,
        on_truncated="reset",
        passive_failures=5,
        passive_eject=10.0,
        max_ejected=0.5,
    ):
        cdef UpstreamServer server
        cdef RateLimitManager scope
        cdef bytes encoded = name.encode()
        cdef tuple servers = tuple(upstreams)
        if self.cell != NULL:
            raise RuntimeError("Application: already made")
        if not name or len(encoded) > 255:
            raise ValueError("name: 1 to 255 bytes")
        if not servers:
            raise ValueError("upstreams: needs at least one upstream")
        if len(servers) > UPSTREAMS_MAX:
            raise ValueError(f"upstreams: at most {UPSTREAMS_MAX}")
        for item in servers:
            if not isinstance(item, UpstreamServer):
                raise TypeError(f"upstreams: UpstreamServer objects, not {item!r}")
            if (<UpstreamServer>item).address is None:
                raise ValueError("upstreams: an UpstreamServer whose __init__ was not called")
        if len({server.address for server in servers}) != len(servers):
            raise ValueError("upstreams: the same address is there twice; use weight instead")
        if any((<UpstreamServer>server).taken for server in servers):
            raise ValueError("upstreams: an UpstreamServer belongs to one Application")
        if on_truncated not in ("reset", "eof"):
            raise ValueError(f"on_truncated: 'reset' or 'eof', not {on_truncated!r}")
        if limits is not None and not isinstance(limits, RateLimitManager):
            raise TypeError(f"limits: a RateLimitManager or None, not {limits!r}")
        if limits is not None and (<RateLimitManager>limits).name is None:
            raise ValueError("limits: a RateLimitManager whose __init__ was not called")
        if engine is not None and not hasattr(engine, "_submit"):
            raise TypeError(f"engine: an Engine or None, not {engine!r}")
        if max_connections is not None:
            check_count("max_connections", max_connections, 1, 2**31 - 1)
        if not isinstance(max_ejected, (int, float)) or not 0 <= max_ejected <= 1:
            raise ValueError(f"max_ejected: 0 to 1, not {max_ejected!r}")
        self.cell = app_new(<uint32_t>len(servers))
        if self.cell == NULL:
            raise MemoryError
        self.name = name
        self.upstreams = servers
        self.max_connections = max_connections
        self.cell.id = counter_next(&next_id) + 1
        self.cell.name = name_new(encoded, <uint32_t>len(encoded))
        if self.cell.name == NULL:
            raise MemoryError
        self.cell.connect_timeout_ns = check_seconds("connect_timeout", connect_timeout)
        self.cell.connect_attempts = check_count(
            "connect_attempts", connect_attempts, 1, DIAL_ATTEMPTS_MAX)
        self.cell.idle_timeout_ns = check_seconds("idle_timeout", idle_timeout)
        self.cell.half_close_timeout_ns = check_seconds("half_close_timeout", half_close_timeout)
        self.cell.keepalive_s = max(1, check_seconds("tcp_keepalive", tcp_keepalive, most=32767) // 10**9)
        self.cell.truncated_is_eof = on_truncated == "eof"
        self.cell.failures_max = check_count("passive_failures", passive_failures, 0, 2**31 - 1)
        self.cell.eject_ns = check_seconds("passive_eject", passive_eject)
        self.cell.ejected_max = <uint32_t>(len(servers) * max_ejected)
        self.limits = limits
        self.engine = engine
        scope = limits
        if max_connections is not None:
            scope = RateLimitManager(
                name, max_open=max_connections, scope="application", parent=limits,
                clock=limits.clock if limits is not None else None)
        if scope is not None:
            self.cell.limiter = limiter_ref(scope.cell)
        for server in servers:
            self.cell.upstreams[self.cell.upstream_count] = upstream_ref(server.cell)
            self.cell.upstream_count += 1
            server.taken = True

    def __dealloc__(self):
        app_unref(self.cell)

    @property
    def id(self):
        """A number no other application of this process has or had."""
        return self.made().id

    cdef check_usable(self):
        """Raises ValueError when no engine can serve it."""
        if self.cell == NULL:
            raise ValueError("application: its __init__ was not called")
        if self.simulated or (self.limits is not None and self.limits.clock is not None):
            raise ValueError("application: made for a simulation")

    cdef app_t *made(self) except NULL:
        """The cell, once `__init__` has run."""
        if self.cell == NULL:
            raise RuntimeError("Application: its __init__ was not called")
        return self.cell

    def submit_connection(
        self, sock, limits=None, *, tls=None, authorize=None, client=None, on_done=None
    ):
        """Hands an accepted TCP socket over to the engine, which forwards it to an upstream. From here on no
        Python thread and no Python object is busy with it, unless `on_done` is given.

        A connection that is refused or fails is no exception: the socket is closed and the record says why.

        Args:
            sock: a connected ``socket.socket``, blocking or not, or the number of its descriptor. Handed
                over, the object is detached and the number closed: soon it names another file, so forget it.
                When this raises, it is the caller's as before.
            limits: the RateLimitManager it counts in, with all scopes around that; or None.
            tls: a ServerTLS: the client must then prove who it is, as at a listener. Use the same object
                again: each one is loaded once and kept.
            authorize: with ``tls``: who is let in, as in ``Engine.listen``.
            client: a name for the record; with ``tls`` the authorizer's answer replaces it.
            on_done: called with the Record when the connection has ended, on a thread of the engine; it
                should be quick, others wait behind it.

        Returns:
            str: the connection's id, the same as in its record.

        Raises:
            TypeError, ValueError: naming the argument.
            OSError: ``sock`` is not a connected socket, or out of memory or descriptors.
            RuntimeError: no engine runs, or several do and the application does not say which.

        Thread-safety: any thread. May wait some milliseconds when thousands are submitted at once.
        """
        self.made()
        engine = self.engine
        if engine is None:
            from lbcore.engine import running_engine  # it is built on this module

            engine = running_engine()
        return engine._submit(self, sock, limits, tls, authorize, client, on_done)

    async def serve_connection(self, sock, limits=None, *, tls=None, authorize=None, client=None):
        """``submit_connection`` for asyncio: comes back when the connection has ended. Cancelling it leaves
        the connection alone.

        Returns:
            Record: how it ended.

        Raises:
            As ``submit_connection``.
        """
        loop = asyncio.get_running_loop()
        done = loop.create_future()

        def settle(record):
            if not done.done():                          # nobody waits any more
                done.set_result(record)

        def tell(record):
            with contextlib.suppress(RuntimeError):      # the loop has been closed meanwhile
                loop.call_soon_threadsafe(settle, record)

        self.submit_connection(sock, limits, tls=tls, authorize=authorize, client=client, on_done=tell)
        return await done

    @property
    def open_connections(self):
        """Connections past accept and not ended."""
        return gauge_read(&self.made().open)

    def stats(self):
        """Counters as plain dicts: totals, ends by reason, upstreams. Any thread; numbers that belong
        together may differ by what happened while they were read."""
        cdef int reason
        self.made()
        ended = {}
        for reason in range(1, len(REASONS)):
            count = counter_read(&self.cell.ended[reason])
            if count:
                ended[REASONS[reason]] = count
        return {
            "open": self.open_connections,
            "accepted": counter_read(&self.cell.accepted),
            "forwarded": counter_read(&self.cell.forwarded),
            "bytes_in": counter_read(&self.cell.bytes_in),
            "bytes_out": counter_read(&self.cell.bytes_out),
            "ended": ended,
            "upstreams": [
                {
                    "address": server.address,
                    "weight": server.weight,
                    "in_flight": server.in_flight,
                    "picked": server.picked,
                    "errors": server.errors,
                    "ejected": server.ejected,
                }
                for server in self.upstreams
            ],
        }

    def __repr__(self):
        if self.cell == NULL:
            return "<Application, not made>"
        return f"<Application {self.name!r} upstreams={len(self.upstreams)} open={self.open_connections}>"
