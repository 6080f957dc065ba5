"""Servers and clients that people use."""

from __future__ import annotations

import hashlib
import random
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from kit.clients import Finished, connect, curl
from kit.fixtures import Keep, MakeBalancer
from kit.pki import Pki
from kit.servers import Server, free_port, require_server
from kit.upstreams import Refuser

if TYPE_CHECKING:
    from kit.balancer import Balancer


# ---- nginx, curl ---------------------------------------------------------------------------------

NGINX = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    server {{ listen 127.0.0.1:{port}; root {folder}/www; location = /hello {{ return 200 "hello\\n"; }} }}
}}
"""
PAGE = random.Random(7).randbytes(20 << 20)


@pytest.fixture
def nginx(tmp_path: Path, keep: Keep) -> Server:
    program = require_server("nginx")
    port = free_port()
    (tmp_path / "www").mkdir()
    (tmp_path / "www" / "page").write_bytes(PAGE)
    config = tmp_path / "nginx.conf"
    config.write_text(NGINX.format(folder=tmp_path, port=port))
    tmp_path.chmod(0o755)
    return keep(
        Server([program, "-c", str(config), "-e", str(tmp_path / "error.log")], port, tmp_path / "output")
    )


def fetch(lb: Balancer, path: str, *arguments: str) -> Finished:
    return curl(
        require_server("curl"), lb.pki, f"https://localhost:{lb.port}{path}", lb.pki.alice, *arguments
    )


def test_curl_through_to_nginx(balance: MakeBalancer, nginx: Server) -> None:
    lb = balance(nginx)
    answer = fetch(lb, "/hello")
    assert (answer.status, answer.output) == (0, "hello\n")
    record = lb.record()
    assert (record.client, record.tls) == ("alice", "TLSv1.3")


def test_a_large_page_is_whole(balance: MakeBalancer, nginx: Server, tmp_path: Path) -> None:
    lb = balance(nginx)
    target = tmp_path / "fetched"
    assert fetch(lb, "/page", "-o", str(target)).status == 0
    assert hashlib.sha256(target.read_bytes()).digest() == hashlib.sha256(PAGE).digest()


def test_many_curls_at_once(balance: MakeBalancer, nginx: Server) -> None:
    lb = balance(nginx)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: fetch(lb, "/hello", "--http1.1"), range(40)))
    assert {(answer.status, answer.output) for answer in answers} == {(0, "hello\n")}


def test_keep_alive_is_one_connection(balance: MakeBalancer, nginx: Server) -> None:
    lb = balance(nginx)
    url = f"https://localhost:{lb.port}/hello"
    assert fetch(lb, "/hello", url, url).output == "hello\n" * 3
    assert lb.record().attempts == 1


@pytest.mark.parametrize(
    ("who", "reason"), [("nobody", "no_certificate"), ("stranger", "unknown_serial"), ("rogue", "unknown_ca")]
)
def test_curl_is_refused(balance: MakeBalancer, nginx: Server, pki: Pki, who: str, reason: str) -> None:
    identity = {"nobody": None, "stranger": pki.client(), "rogue": pki.rogue.issue("rogue-curl")}[who]
    lb = balance(nginx)
    answer = curl(require_server("curl"), pki, f"https://localhost:{lb.port}/hello", identity)
    assert answer.status in (35, 55, 56)
    assert "hello" not in answer.output
    record = lb.record()
    assert (record.event, record.reason, record.upstream) == ("conn.deny", reason, None)


def test_curl_sees_an_empty_answer_when_no_upstream_is_there(
    balance: MakeBalancer, keep: Keep, pki: Pki
) -> None:
    lb = balance(keep(Refuser()))
    assert fetch(lb, "/").status == 52


# ---- MariaDB: the server speaks first ------------------------------------------------------------


@pytest.fixture
def mariadb(tmp_path: Path, keep: Keep) -> Server:
    program, install = require_server("mariadbd"), require_server("mariadb-install-db")
    data = tmp_path / "data"
    common = ["--no-defaults", f"--datadir={data}"]
    subprocess.run(
        [install, *common, "--auth-root-authentication-method=normal", "--skip-test-db", "--user=root"],
        check=True, capture_output=True, timeout=50,
    )  # fmt: skip
    port = free_port()
    options = [
        "--user=root", "--bind-address=127.0.0.1", f"--port={port}", f"--socket={tmp_path}/unused.sock",
        f"--pid-file={tmp_path}/pid", "--skip-grant-tables", "--skip-networking=0",
        "--innodb-buffer-pool-size=16M",
    ]  # fmt: skip
    return keep(Server([program, *common, *options], port, tmp_path / "output"))


@pytest.mark.slow
def test_mariadb_greets_through_tls(balance: MakeBalancer, mariadb: Server, pki: Pki, keep: Keep) -> None:
    """Not one byte of the client is needed for the greeting to come."""
    lb = balance(mariadb)
    with connect(pki, lb.port) as client:
        header = client.receive(4)
        greeting = client.receive(int.from_bytes(header[:3], "little"))
        assert greeting[0] == 10, "the protocol's version"
        assert b"MariaDB" in greeting
        [row] = lb.engine.connections()
        assert (row["stage"], row["bytes_in"]) == ("forward", 0)
    raw = lb.add("raw", mariadb, plaintext=True)
    program = require_server("mariadb")
    answer = subprocess.run(
        [program, "--no-defaults", "--protocol=tcp", "-h127.0.0.1", f"-P{raw.port}", "-uroot", "-Ne",
         "select 6 * 7"], capture_output=True, timeout=20, check=False,
    )  # fmt: skip
    assert (answer.returncode, answer.stdout) == (0, b"42\n"), answer.stderr
    assert lb.records.wait(1, app="raw")
