"""nginx and HAProxy as upstreams: TLS with our certificate, and what the PROXY header tells them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from kit.balancer import Balancer
from kit.clients import Finished, connect, curl
from kit.fixtures import Keep, MakeBalancer
from kit.pki import Identity, Pki
from kit.servers import Server, free_port, require_server
from kit.sockets import End
from kit.waiting import wait_until

from lbcore import UpstreamServer, UpstreamTLS


@pytest.fixture(scope="module")
def ours(pki: Pki) -> Identity:
    """What the balancer shows to upstreams."""
    return pki.ca.issue("the-balancer")


def server(address: str, pki: Pki, ours: Identity | None = None, name: str | None = None) -> UpstreamServer:
    """An upstream with TLS, that is shown a certificate or none."""
    cert, key = (ours.cert, ours.key) if ours is not None else (None, None)
    return UpstreamServer(address, tls=UpstreamTLS(ca=pki.ca.cert, cert=cert, key=key, verify_name=name))


def fetch(lb: Balancer, path: str = "/hello") -> Finished:
    return curl(require_server("curl"), lb.pki, f"https://localhost:{lb.port}{path}", lb.pki.alice)


# ---- nginx ---------------------------------------------------------------------------------------

NGINX = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log info;
{modules}
events {{ worker_connections 256; }}
http {{
    log_format told '$proxy_protocol_addr:$proxy_protocol_port '
                    '$ssl_client_verify $ssl_client_s_dn $ssl_protocol';
    access_log {folder}/access.log told;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port} ssl proxy_protocol;
        ssl_protocols TLSv1.3;
        ssl_certificate {pki.server.cert}; ssl_certificate_key {pki.server.key};
        ssl_verify_client on; ssl_client_certificate {pki.ca.cert};
        location = /hello {{ return 200 "hello\\n"; }}
    }}
    server {{
        listen 127.0.0.1:{plain} proxy_protocol;
        location = /hello {{ return 200 "hello $proxy_protocol_addr:$proxy_protocol_port\\n"; }}
    }}
}}
{stream}
"""
STREAM = """
stream {{
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_protocols TLSv1.3;
        ssl_certificate {pki.server.cert}; ssl_certificate_key {pki.server.key};
        ssl_verify_client on; ssl_client_certificate {pki.ca.cert};
        return "hello $ssl_client_s_dn";
    }}
}}
"""


class Nginx(Server):
    """One that wants our certificate and a PROXY header.

    Attributes:
        plain: the address of its other port, without TLS.
        access: its log.
    """

    def __init__(self, pki: Pki, folder: Path, modules: str = "", stream: str = "") -> None:
        port, plain = free_port(), free_port()
        self.plain = f"127.0.0.1:{plain}"
        self.access, self._errors = folder / "access.log", folder / "error.log"
        values = {"folder": folder, "port": port, "plain": plain, "pki": pki}
        config = folder / "nginx.conf"
        config.write_text(NGINX.format(modules=modules, stream=stream, **values))
        program = require_server("nginx")
        super().__init__([program, "-c", str(config), "-e", str(self._errors)], port, folder / "output")

    def errors(self) -> str:
        """What it complains of; strangers' bytes are in there."""
        return self._errors.read_text(errors="replace")


@pytest.fixture
def nginx(pki: Pki, tmp_path: Path, keep: Keep) -> Nginx:
    return keep(Nginx(pki, tmp_path))


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_nginx_knows_us_and_our_client(
    balance: MakeBalancer, nginx: Nginx, pki: Pki, ours: Identity, version: str
) -> None:
    """The header comes in front of the handshake."""
    lb = balance(server(nginx.address, pki, ours), app={"proxy_protocol": version})
    for _ in range(3):
        answer = fetch(lb)
        assert (answer.status, answer.output) == (0, "hello\n")
    sources = [record.source for record in lb.records.wait(3)]
    wait_until(lambda: nginx.access.read_text().count("\n") == 3, "nginx has logged them")
    told = nginx.access.read_text().splitlines()
    assert sorted(told) == sorted(f"{source} SUCCESS CN=the-balancer TLSv1.3" for source in sources)


def test_nginx_passes_over_what_it_does_not_know(balance: MakeBalancer, nginx: Nginx) -> None:
    """A whole certificate in the header, on a port without TLS."""
    lb = balance(nginx.plain, app={"proxy_protocol": "v2+tls"})
    answer = fetch(lb)
    assert (answer.status, answer.output) == (0, f"hello {lb.record().source}\n")


def test_nginx_takes_no_large_header_in_front_of_tls(
    balance: MakeBalancer, nginx: Nginx, pki: Pki, ours: Identity
) -> None:
    """107 bytes before nginx 1.23.2, 4096 since (NGX_PROXY_PROTOCOL_MAX_HEADER). It hangs up, and our record
    says where."""
    app = {"proxy_protocol": "v2+tls", "passive_failures": 0}
    lb = balance(server(nginx.address, pki, ours), app=app)
    large = pki.ca.issue("large", organizations=["x" * 1000] * 5)
    lb.policy.allow(large, "web")
    with connect(pki, lb.port, large) as client:
        assert client.receive_to_end() == (b"", End.CLOSE_NOTIFY)
    record = lb.record()
    assert (record.event, record.stage, record.reason) == ("conn.deny", "dial", "upstream_tls")
    assert "header is too large" in nginx.errors()


def test_nginx_refuses_us_without_a_certificate(balance: MakeBalancer, nginx: Nginx, pki: Pki) -> None:
    """In its own words, which are HTTP: for us that is a connection like any other."""
    lb = balance(server(nginx.address, pki), app={"proxy_protocol": "v1"})
    answer = fetch(lb)
    assert "400 No required SSL certificate was sent" in answer
    assert "hello" not in answer
    record = lb.record()
    # Both hang up then, and curl does not wait to read that we do.
    assert record.reason in ("client_closed", "upstream_closed", "client_reset")
    assert (record.event, lb.app.upstreams[0].errors) == ("conn.close", 0)


def test_nginx_turns_away_who_brings_no_header(
    balance: MakeBalancer, nginx: Nginx, pki: Pki, ours: Identity
) -> None:
    """It takes our hello for a broken header and hangs up."""
    lb = balance(server(nginx.address, pki, ours), app={"passive_failures": 0})
    with connect(pki, lb.port) as client:
        assert client.receive_to_end() == (b"", End.CLOSE_NOTIFY)
    record = lb.record()
    assert (record.event, record.stage, record.reason) == ("conn.deny", "dial", "upstream_tls")
    assert "broken header" in nginx.errors()


def test_nginx_speaks_tls_to_us_and_hangs_up_on_strangers(
    balance: MakeBalancer, pki: Pki, ours: Identity, tmp_path: Path, keep: Keep
) -> None:
    """Its stream module looks at the certificate only after the handshake, and ends the stream."""
    module = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
    if not module.exists():
        pytest.skip("needs nginx's stream module: apt-get install libnginx-mod-stream")
    port = free_port()
    keep(Nginx(pki, tmp_path, f"load_module {module};", STREAM.format(port=port, pki=pki)))
    lb = balance(server(f"127.0.0.1:{port}", pki, ours))
    lb.policy.allow(pki.alice, "web", "stranger")
    stranger = lb.add("stranger", server(f"127.0.0.1:{port}", pki))
    with connect(pki, lb.port) as client:
        assert client.receive_to_end() == (b"hello CN=the-balancer", End.CLOSE_NOTIFY)
    with connect(pki, stranger.port) as client:
        data, end = client.receive_to_end()
    assert (data, end) == (b"", End.CLOSE_NOTIFY)
    record = lb.record(app="stranger")
    assert (record.stage, record.reason, record.bytes_out) == ("forward", "upstream_closed", 0)


# ---- HAProxy -------------------------------------------------------------------------------------

HAPROXY = """
global
    maxconn 200
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
frontend told
    bind 127.0.0.1:{port} accept-proxy {tls}
    http-request return status 200 content-type text/plain lf-string "{answer}"
"""
#: What it knows of a connection: whose it is, ours and the client's.
PLAIN = "%[src]:%[src_port] %[dst]:%[dst_port] %[fc_pp_unique_id]"
SECURE = PLAIN + " %[ssl_c_s_dn(cn)] %[ssl_fc_protocol]"

MakeHaproxy = Callable[[bool], Server]


@pytest.fixture
def haproxy(pki: Pki, tmp_path: Path, keep: Keep) -> MakeHaproxy:
    """Makes one that answers with what it was told, plain or with TLS for who has a certificate."""

    def make(secure: bool) -> Server:
        pem = tmp_path / "server.pem"
        pem.write_bytes(pki.server.cert.read_bytes() + pki.server.key.read_bytes())
        port = free_port()
        tls = f"ssl crt {pem} ca-file {pki.ca.cert} verify required ssl-min-ver TLSv1.3" if secure else ""
        config = tmp_path / "haproxy.cfg"
        answer = SECURE if secure else PLAIN
        config.write_text(HAPROXY.format(port=port, tls=tls, answer=answer))
        command = [require_server("haproxy"), "-db", "-f", str(config)]
        return keep(Server(command, port, tmp_path / "haproxy.log"))

    return make


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("version", ["v1", "v2", "v2+tls"])
def test_haproxy_knows_our_client(
    balance: MakeBalancer, haproxy: MakeHaproxy, pki: Pki, ours: Identity, version: str, secure: bool
) -> None:
    """Its address; from version 2 on the connection's id, by which our record is found, and so who it is."""
    upstream = haproxy(secure)
    target = server(upstream.address, pki, ours) if secure else UpstreamServer(upstream.address)
    lb = balance(target, app={"proxy_protocol": version})
    answer = fetch(lb)
    assert answer.status == 0, answer.output
    record = lb.record()
    words = [record.source, f"127.0.0.1:{lb.port}"]
    if version != "v1":
        words.append(record.id)
    if secure:
        words += ["the-balancer", "TLSv1.3"]
    assert answer.output.split() == words
    assert record.client == "alice"


def test_haproxy_refuses_us_without_a_certificate(
    balance: MakeBalancer, haproxy: MakeHaproxy, pki: Pki
) -> None:
    """In TLS 1.3 its alert comes when the handshake is over for us: an aborted stream, not a clean end."""
    lb = balance(server(haproxy(True).address, pki), app={"proxy_protocol": "v2", "passive_failures": 0})
    with connect(pki, lb.port) as client:
        assert client.receive_to_end() == (b"", End.RESET)
    record = lb.record()
    assert (record.stage, record.reason, record.bytes_out) == ("forward", "upstream_reset", 0)
    assert record.tls_error is not None
    assert lb.app.upstreams[0].errors == 1
