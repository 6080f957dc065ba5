"""strangers.py HOW PORT COUNT CA CERT KEY: opens connections that do not finish their handshake, says
``ready``, holds them until its input ends.

HOW: ``silent``, ``hello`` (after the first flight), ``certificate`` (all of the second one but its end),
``retry`` (large hellos by hand: asked for another key share, it sends all of the second one but its end).
"""

import secrets
import socket
import ssl
import struct
import sys

KEPT_BACK = 400  # bytes: more than the messages behind the certificate


PADDING = 7000  # bytes of a hello that say nothing (RFC 7685)


def extension(number: int, body: bytes) -> bytes:
    return struct.pack(">HH", number, len(body)) + body


def hello() -> bytes:
    """A ClientHello without a key share (RFC 8446, 4.1.2)."""
    extensions = (
        extension(43, b"\x02\x03\x04")  # TLS 1.3
        + extension(10, b"\0\x04\0\x1d\0\x17")  # X25519, P-256
        + extension(13, b"\0\x02\x04\x03")  # ECDSA with P-256
        + extension(51, b"\0\0")
        + extension(21, bytes(PADDING))
    )
    body = b"\x03\x03" + secrets.token_bytes(32) + b"\x20" + secrets.token_bytes(32)
    body += b"\0\x02\x13\x01" + b"\x01\0" + struct.pack(">H", len(extensions)) + extensions
    message = b"\x01" + len(body).to_bytes(3, "big") + body
    return b"\x16\x03\x01" + struct.pack(">H", len(message)) + message


def asked_again(sock: socket.socket) -> None:
    sock.sendall(hello())
    assert sock.recv(65536)[5] == 2, "a ServerHello, that of HelloRetryRequest"
    sock.sendall(b"\x14\x03\x03\0\x01\x01" + hello()[:-KEPT_BACK])


def stranger(how: str, port: int, context: ssl.SSLContext) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    if how == "retry":
        asked_again(sock)
    if how in ("silent", "retry"):
        return sock
    while True:
        try:
            tls.do_handshake()
            sock.sendall(outgoing.read()[:-KEPT_BACK])
            return sock
        except ssl.SSLWantReadError:
            sock.sendall(outgoing.read())
        if how == "hello":
            return sock
        incoming.write(sock.recv(65536))


def main() -> None:
    how, port, count, ca, cert, key = sys.argv[1:]
    context = ssl.create_default_context(cafile=ca)
    context.load_cert_chain(cert, key)
    held = [stranger(how, int(port), context) for _ in range(int(count))]
    print("ready", flush=True)
    sys.stdin.read()
    for sock in held:
        sock.close()


main()
