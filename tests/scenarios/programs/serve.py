"""A program with an engine in it: serve.py HOW UPSTREAM_PORT [DRAIN SECONDS].

Prints its port. HOW: ``term`` drains on SIGTERM, ``exit`` leaves without stopping the engine when its
input ends, ``raise`` fails then, ``leave`` drains on a daemon thread after
a line of input, and leaves when its input ends.
"""

import signal
import sys
import threading

import lbcore


def main() -> None:
    how, upstream = sys.argv[1:3]
    engine = lbcore.Engine(workers=2)
    engine.start()
    application = lbcore.Application("raw", [lbcore.UpstreamServer(f"127.0.0.1:{upstream}")])
    listener = engine.listen(application, "127.0.0.1:0", plaintext=True)
    told = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: told.set())
    print(listener.port, flush=True)
    if how == "term":
        while not told.wait(0.05):
            pass
        print(engine.stop(drain=float(sys.argv[3])), flush=True)
    elif how == "raise":
        sys.stdin.read()
        raise SystemExit("something else failed")
    elif how == "leave":
        sys.stdin.readline()
        threading.Thread(target=engine.stop, args=(30.0,), daemon=True).start()
        sys.stdin.read()
    else:
        sys.stdin.read()


main()
