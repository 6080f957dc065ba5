"""idle_clients.py PORT COUNT CA CERT KEY: opens TLS connections, says ``ready``, holds them until its
input ends."""

import socket
import ssl
import sys


def main() -> None:
    port, count, ca, cert, key = sys.argv[1:]
    context = ssl.create_default_context(cafile=ca)
    context.load_cert_chain(cert, key)
    held = [
        context.wrap_socket(socket.create_connection(("127.0.0.1", int(port))), server_hostname="localhost")
        for _ in range(int(count))
    ]
    print("ready", flush=True)
    sys.stdin.read()
    for sock in held:
        sock.close()


main()
