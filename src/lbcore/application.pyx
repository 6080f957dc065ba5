"""Application and UpstreamServer: what connections are balanced over."""

import asyncio
import contextlib
import ipaddress
import os
import threading

from libc.stdint cimport uint16_t, uint32_t, uint64_t

from lbcore.addresses import UNIX, socket_address, split_address
from lbcore.codes import REASONS
from lbcore.settings import UpstreamTLS, is_ip_address

from lbcore.codes cimport REASON_DRAINED, REASON_NONE, REASON_UPSTREAM_DOWN
from lbcore.limits cimport RateLimitManager
from lbcore.parts.balance cimport balance_hash
from lbcore.parts.cells cimport (
    app_new,
    app_ref,
    app_unref,
    limiter_ref,
    name_new,
    pool_free,
    pool_new,
    pool_replace,
    tls_ref,
    upstream_new,
    upstream_ref,
    upstream_unref,
)
from lbcore.parts.health cimport (
    UPSTREAM_DOWN,
    UPSTREAM_DRAINING,
    health_joined,
    health_passed,
    health_pool_changed,
    health_set,
)
from lbcore.structs cimport (
    DIAL_ATTEMPTS_MAX,
    PROXY_NONE,
    PROXY_V1,
    PROXY_V2,
    PROXY_V2_TLS,
    pool_t,
)
from lbcore.sys.atomics cimport counter_next, counter_read, counter_t, gauge_read, word_read, word_write
from lbcore.sys.linux cimport memcpy, monotonic_ns
from lbcore.tls.engine cimport tls_engine_t
from lbcore.to_core cimport make_client_tls

cdef counter_t next_id           # of applications and upstreams, never reused
WEIGHT_MAX = 65535
UPSTREAMS_MAX = 65535
PROXY_PROTOCOLS = {"v1": PROXY_V1, "v2": PROXY_V2, "v2+tls": PROXY_V2_TLS}


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
    """One server that connections are forwarded to. Belongs to one Application at a time.

    Args:
        address: ``"10.0.0.1:80"``, ``"[2001:db8::1]:80"`` or ``"unix:/run/app.sock"``.
        weight: its share of the open connections, relative to the others.
        max_connections: never more than this many at once, or None.
        tls: an UpstreamTLS: connections to it are encrypted, and it has to prove who it is; None: plain TCP.

    Thread-safety: every method may be called from any thread.

    Raises:
        TypeError, ValueError: naming the argument.
    """

    def __cinit__(self, *args, **kwargs):
        self.cell = upstream_new()
        if self.cell == NULL:
            raise MemoryError

    def __init__(self, str address not None, weight=1, *, max_connections=None, tls=None):
        cdef bytes packed = socket_address(address)
        cdef bytes name = address.encode("utf-8", "surrogateescape")
        cdef bytes tls_name
        if self.cell.id != 0:
            raise RuntimeError("UpstreamServer: already made")
        if not address.startswith(UNIX) and split_address(address)[1] == 0:
            raise ValueError("address: the port is 0")
        check_count("weight", weight, 1, WEIGHT_MAX)
        self.max_connections = max_connections
        if max_connections is not None:
            self.cell.in_flight_max = check_count("max_connections", max_connections, 1, 2**31 - 1)
        if tls is not None:
            if not isinstance(tls, UpstreamTLS):
                raise TypeError(f"tls: an UpstreamTLS or None, not {tls!r}")
            tls_name = name_to_verify(address, tls).encode()
            self.cell.tls_name = name_new(tls_name, <uint32_t>len(tls_name))
            if self.cell.tls_name == NULL:
                raise MemoryError
            self.cell.tls_name_is_address = is_ip_address(tls_name.decode())
        self.cell.name = name_new(name, <uint32_t>len(name))
        if self.cell.name == NULL:
            raise MemoryError
        self.tls = tls
        self.leaving = threading.Lock()
        self.told = 0, <int>REASON_NONE
        self.address = address
        self.cell.id = counter_next(&next_id) + 1
        self.cell.mark = <uint16_t>self.cell.id
        self.cell.hash = balance_hash(<const char *>name, len(name))
        self.cell.address_length = <uint32_t>len(packed)
        memcpy(self.cell.address, <const char *>packed, len(packed))
        word_write(&self.cell.weight, weight)

    def __dealloc__(self):
        app_unref(self.app)
        upstream_unref(self.cell)

    cdef load_tls(self, const tls_engine_t *engine, dict loaded):
        """Once, before it is in a pool at work. What is loaded takes 20 KiB with OpenSSL, 3 KiB with s2n: too
        much for each of many upstreams that have it in common."""
        cdef UpstreamServer alike
        if self.tls is None:
            return
        if self.cell.tls == NULL:
            alike = loaded.setdefault(tls_files(self.tls), self)
            self.cell.tls = make_client_tls(engine, self.tls) if alike is self else tls_ref(alike.cell.tls)
        elif self.cell.tls.engine is not engine:
            raise ValueError("upstreams: their TLS is of another engine's library already")

    cdef app_t *owner(self) except NULL:
        if self.app == NULL:
            raise RuntimeError("UpstreamServer: it belongs to no Application")
        return self.app

    # ---- what it is doing

    @property
    def id(self):
        """A number no other upstream of this process has or had."""
        return self.cell.id

    @property
    def weight(self):
        """Its share of the open connections, relative to the others. Set it while connections run: new
        ones go by it.

        Raises:
            TypeError, ValueError: not a whole number from 1 to 65535.
        """
        return word_read(&self.cell.weight)

    @weight.setter
    def weight(self, weight):
        word_write(&self.cell.weight, check_count("weight", weight, 1, WEIGHT_MAX))

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
        """Failed dials, and connections it reset before they had a byte, so far."""
        return counter_read(&self.cell.errors)

    @property
    def quarantines(self):
        """Times failures took it out of the pool so far."""
        return counter_read(&self.cell.quarantines)

    @property
    def ejected(self):
        """Whether failures keep it out of the pool at the moment; not while one connection may find out
        whether it is back."""
        return word_read(&self.cell.quarantined_until_ns) > monotonic_ns()

    @property
    def state(self):
        """``"up"``; ``"draining"`` and ``"down"`` as it was told; ``"quarantined"`` after failures. Only one
        that is up gets new connections, and one in quarantine a single one now and then, to find out."""
        cdef uint64_t flags = word_read(&self.cell.flags)
        if flags & UPSTREAM_DRAINING:
            return "draining"
        if flags & UPSTREAM_DOWN:
            return "down"
        return "quarantined" if word_read(&self.cell.quarantined_until_ns) else "up"

    # ---- what it is told

    def drain(self, end_after=None):
        """No new connections from now on.

        Args:
            end_after: seconds the open ones may go on (reason ``drained``); None: for as long as they like.

        Raises:
            TypeError, ValueError: ``end_after`` is not a number of seconds.
            RuntimeError: a worker does not answer.
        """
        deadline_ns = deadline_after(end_after)
        with self.leaving:
            health_set(self.cell, UPSTREAM_DRAINING, True)
            self.drained_by_ns = deadline_ns
            self._leave()

    def resume(self):
        """Takes ``drain`` back: new connections again, and those that were to end may stay.

        Raises:
            RuntimeError: a worker does not answer.
        """
        with self.leaving:
            health_set(self.cell, UPSTREAM_DRAINING, False)
            self.drained_by_ns = 0
            self._leave()

    def mark_down(self, end_after=None):
        """A check has failed: no new connections until ``mark_up``.

        Args:
            end_after: seconds the open ones may go on (reason ``upstream_down``); None: for as long as they
                like.

        Raises:
            TypeError, ValueError: ``end_after`` is not a number of seconds.
            RuntimeError: a worker does not answer.
        """
        deadline_ns = deadline_after(end_after)
        with self.leaving:
            health_set(self.cell, UPSTREAM_DOWN, True)
            self.down_by_ns = deadline_ns
            self._leave()

    def mark_up(self):
        """A check has passed: ends ``mark_down``, a quarantine and its history. It belongs to an application.

        Raises:
            RuntimeError: it belongs to none, or a worker does not answer.
        """
        with self.leaving:
            health_passed(self.owner(), self.cell, monotonic_ns())
            self.down_by_ns = 0
            self._leave()

    cdef _leave(self):
        """Tells the workers when its open connections have to end, and why: the two may be told it for two
        reasons, and the earlier one counts. With `leaving` held."""
        from lbcore.engine import leave  # it is built on this module

        by_ns, reason = self.drained_by_ns, <int>REASON_DRAINED
        if by_ns == 0 or 0 < self.down_by_ns < by_ns:
            by_ns, reason = self.down_by_ns, <int>REASON_UPSTREAM_DOWN
        if by_ns == 0:
            reason = REASON_NONE
        if (by_ns, reason) != self.told:
            leave(self.cell.id, reason, by_ns)
            self.told = by_ns, reason

    def __repr__(self):
        return f"<UpstreamServer {self.address} {self.state} weight={self.weight} in_flight={self.in_flight}>"


def name_to_verify(address, tls):
    """What the certificate of a server at that address must say; addresses as inet_ntop writes them."""
    if tls.verify_name is not None:
        name = tls.verify_name
        return str(ipaddress.ip_address(name)) if is_ip_address(name) else name
    if address.startswith(UNIX):
        raise ValueError("tls: a unix socket has no name; say which with UpstreamTLS(verify_name=)")
    return str(split_address(address)[0])


def tls_files(tls):
    """What is loaded of an UpstreamTLS; the name that is verified belongs to each connection."""
    parts = (tls.ca, tls.cert, tls.key)
    return tuple(os.fspath(part) if isinstance(part, os.PathLike) else part for part in parts)


def deadline_after(end_after):
    """Monotonic nanoseconds; 0: None. Raises TypeError or ValueError."""
    if end_after is None:
        return 0
    return monotonic_ns() + check_seconds("end_after", end_after, least=0.0)


cdef class Application:
    """A named group of upstream servers, balanced by least connections.

    Its servers may change while connections run; everything else is as it was made. Safe to use from any
    thread.

    Args:
        name: for logs, limits and permissions.
        upstreams: at least one UpstreamServer, each in one application only.
        dynamic: there may be none, now and later: they come and go by ``add_upstream``, ``remove_upstream``.
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
        passive_failures: failed dials in a row, or connections in a row that are reset before they have a
            byte, that take an upstream out of the pool; 0: never.
        passive_eject: seconds it stays out the first time; up to 32 times as long when it goes on failing.
        max_ejected: the share of the upstreams that may be out at once after failures, 0 to 1.
        slow_start: seconds until an upstream that came back, or was added, has its whole weight; None: at
            once.
        proxy_protocol: what upstreams are told of the client before its first byte (the PROXY protocol):
            ``"v1"``, ``"v2"``: its address; ``"v2+tls"``: who it is as well; None: nothing.
        affinity: ``"client"``: a client comes to the same upstream again, as long as that may be picked;
            None: least connections.

    Raises:
        TypeError, ValueError: naming the argument.
    """

    def __cinit__(self, *args, **kwargs):
        self.cell = NULL

    def __init__(
        self,
        str name not None,
        upstreams=(),
        *,
        dynamic=False,
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
        slow_start=None,
        affinity=None,
        proxy_protocol=None,
    ):
        cdef RateLimitManager scope
        cdef bytes encoded = name.encode()
        cdef tuple servers = tuple(upstreams)
        if self.cell != NULL:
            raise RuntimeError("Application: already made")
        if not name or len(encoded) > 255:
            raise ValueError("name: 1 to 255 bytes")
        if not servers and not dynamic:
            raise ValueError("upstreams: needs at least one upstream")
        for item in servers:
            check_upstream("upstreams", item)
        check_upstreams(servers)
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
        if affinity is not None and affinity != "client":
            raise ValueError(f"affinity: 'client' or None, not {affinity!r}")
        if proxy_protocol is not None and proxy_protocol not in PROXY_PROTOCOLS:
            raise ValueError(
                f"proxy_protocol: one of {', '.join(PROXY_PROTOCOLS)}, or None, not {proxy_protocol!r}")
        self.cell = app_new()
        if self.cell == NULL:
            raise MemoryError
        self.name = name
        self.changing = threading.Lock()
        self.max_ejected = max_ejected
        self.dynamic = dynamic
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
        self.cell.quarantine_ns = check_seconds("passive_eject", passive_eject)
        self.cell.slow_start_ns = 0 if slow_start is None else check_seconds("slow_start", slow_start)
        self.cell.by_client = affinity is not None
        self.cell.proxy = PROXY_PROTOCOLS[proxy_protocol] if proxy_protocol is not None else PROXY_NONE
        self.limits = limits
        self.engine = engine
        scope = limits
        if max_connections is not None:
            scope = RateLimitManager(
                name, max_open=max_connections, scope="application", parent=limits,
                clock=limits.clock if limits is not None else None)
        if scope is not None:
            self.cell.limiter = limiter_ref(scope.cell)
        marks = set()
        for item in servers:
            self._claim("upstreams", item, marks)
        self._replace(servers)

    def __dealloc__(self):
        app_unref(self.cell)

    # ---- its servers

    @property
    def upstreams(self):
        """The servers it has now."""
        return self.servers

    cdef _claim(self, argument, UpstreamServer server, set marks):
        """From here on no other application can have it. Raises ValueError when one has.

        Connections remember by marks whom they have tried, so it gets one that is not in `marks` yet.
        """
        check_upstream(argument, server)
        server.app = app_ref(self.cell)
        server.drained_by_ns = 0         # of the application it was in before
        while server.cell.mark in marks:
            server.cell.mark += 1        # 65 535 + 1 is 0; there are more marks than a pool has servers
        marks.add(server.cell.mark)

    cdef _disclaim(self, UpstreamServer server):
        app_unref(server.app)
        server.app = NULL

    cdef pool_t *_replace(self, tuple servers) except? NULL:
        """Makes these its servers. Connections to others go on. The pool before, which `retire` frees."""
        cdef pool_t *before = NULL
        cdef pool_t *pool = pool_new(<uint32_t>len(servers))
        cdef uint32_t i = 0
        if pool == NULL:
            raise MemoryError
        for server in servers:
            pool.upstreams[i] = upstream_ref((<UpstreamServer>server).cell)
            i += 1
        pool.quarantined_max = <uint32_t>(len(servers) * self.max_ejected)
        before = pool_replace(self.cell, pool)
        self.servers = servers
        health_pool_changed(self.cell, monotonic_ns())
        return before

    def add_upstream(self, UpstreamServer server not None):
        """One more server, for connections from now on.

        Raises:
            ValueError: it belongs to an application already, its address is there, or its TLS cannot be used.
            OSError: a certificate file cannot be read.
            RuntimeError: a worker does not answer.
        """
        cdef pool_t *before = NULL
        self.made()
        with self.changing:
            self._claim("server", server, {(<UpstreamServer>other).cell.mark for other in self.servers})
            try:
                check_upstreams((*self.servers, server))
                if self.tls_engine != NULL:
                    server.load_tls(self.tls_engine, self._loaded())
                health_joined(self.cell, server.cell, monotonic_ns())
                before = self._replace((*self.servers, server))
            except BaseException:
                self._disclaim(server)
                raise
        retire(before)

    cdef dict _loaded(self):
        """Its servers by the TLS files they have loaded, which one more with the same files need not read."""
        return {tls_files(server.tls): server for server in self.servers if server.tls is not None}

    def remove_upstream(self, UpstreamServer server not None, end_after=None):
        """One server less: no new connections to it from now on. It may be added again, here or elsewhere,
        when it has no connections any more.

        Args:
            server: one of ``upstreams``.
            end_after: seconds its open connections may go on (reason ``drained``); None: for as long as they
                like.

        Raises:
            TypeError, ValueError: it is not one of them, or the last one of an application that is not
                ``dynamic``; ``end_after`` is not a number of seconds.
            RuntimeError: a worker does not answer.
        """
        cdef pool_t *before = NULL
        self.made()
        deadline_ns = deadline_after(end_after)
        with self.changing:
            if server not in self.servers:
                raise ValueError("server: not one of this application's")
            if len(self.servers) == 1 and not self.dynamic:
                raise ValueError("server: the last one, of an application that is not dynamic")
            before = self._replace(tuple(other for other in self.servers if other is not server))
            self._disclaim(server)
        retire(before)
        if deadline_ns != 0:
            with server.leaving:
                server.drained_by_ns = deadline_ns
                server._leave()

    @property
    def id(self):
        """A number no other application of this process has or had."""
        return self.made().id

    cdef prepare(self, const tls_engine_t *engine):
        """Before it serves: its servers learn to speak TLS, those that come later as well."""
        cdef dict loaded = {}
        with self.changing:
            for server in self.servers:
                (<UpstreamServer>server).load_tls(engine, loaded)
            self.tls_engine = engine

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

    @property
    def health_turns(self):
        """Times that an upstream went into quarantine or came back so far: who watches many applications
        need not look at each upstream while this stays the same."""
        return counter_read(&self.made().health_turns)

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
                    "state": server.state,
                }
                for server in self.servers
            ],
        }

    def __repr__(self):
        if self.cell == NULL:
            return "<Application, not made>"
        return f"<Application {self.name!r} upstreams={len(self.servers)} open={self.open_connections}>"


def check_upstream(argument, server):
    """Raises TypeError or ValueError unless it is one that an application may take."""
    if not isinstance(server, UpstreamServer):
        raise TypeError(f"{argument}: UpstreamServer objects, not {server!r}")
    if (<UpstreamServer>server).address is None:
        raise ValueError(f"{argument}: an UpstreamServer whose __init__ was not called")
    if (<UpstreamServer>server).app != NULL:
        raise ValueError(f"{argument}: an UpstreamServer belongs to one Application")


def check_upstreams(servers):
    """Raises ValueError unless an application may have these together."""
    if len(servers) > UPSTREAMS_MAX:
        raise ValueError(f"upstreams: at most {UPSTREAMS_MAX}")
    if len({server.address for server in servers}) != len(servers):
        raise ValueError("upstreams: the same address is there twice; use weight instead")


cdef retire(pool_t *pool):
    """Frees a pool that was replaced. Without `changing`: it waits for workers under the lock of their
    engine, whose own set-up waits for `changing`."""
    from lbcore.engine import settle  # it is built on this module

    if pool != NULL:
        settle()
        pool_free(pool)
