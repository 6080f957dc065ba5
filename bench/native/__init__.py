"""The loops of the load, of the upstreams and of the floor: Cython that runs without the interpreter.

They are compiled on first import, against the lbcore that is imported, in place or installed, and kept in
build/bench/ by content; a second import compiles nothing.

    histogram    latencies in a fixed number of buckets
    wire         one connection: a socket, with TLS over it or without; how it opens and ends
    load         many connections in one epoll set: what they ask, what must be answered, when they do it
    upstream     the servers: echo, sink, source
    floor        a proxy with nothing but the system calls
"""

from importlib.util import find_spec
from pathlib import Path

from kit.building import ROOT, compiled_together

if find_spec("lbcore") is None:
    raise ImportError("no lbcore: pip install '.[bench]', or build in place and set PYTHONPATH=src")

_HERE = Path(__file__).parent
_folder = compiled_together(
    {f"{__name__}.{source.stem}": source for source in sorted(_HERE.glob("*.pyx"))},
    ROOT / "build" / "bench",
    contracts=sorted(_HERE.glob("*.pxd")),
)
__path__.append(str(_folder / "bench" / "native"))
