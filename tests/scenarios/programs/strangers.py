"""strangers.py HOW PORT COUNT CA CERT KEY: opens connections that do not finish their handshake, says
``ready``, holds them until its input ends.

HOW: ``silent``, ``hello`` (after the first flight), ``certificate`` (all of the second one but its end).
"""

import socket
import ssl
import sys

KEPT_BACK = 400  # bytes: more than the messages behind the certificate


def stranger(how: str, port: int, context: ssl.SSLContext) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    if how == "silent":
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
