"""The TLS engines of this build. Each engine's module adds itself when it is imported; one that was not
compiled, because its headers were missing, is simply not there.
"""

import importlib

cdef const tls_engine_t *tables[4]
cdef list names = []
cdef dict versions = {}

KNOWN = ("s2n", "openssl")       # in the order of preference


cdef void engines_add(tls_engine_t *engine, str version):
    name = engine.name.decode()
    if name not in versions:
        tables[len(names)] = engine
        names.append(name)
    versions[name] = version


cdef const tls_engine_t *engines_find(str name) except NULL:
    load()
    if name == "auto":
        name = names[0]
    if name not in versions:
        missing = " (not compiled: OpenSSL's headers were missing)" if name in KNOWN else ""
        raise ValueError(f"tls_engine: 'auto' or one of {', '.join(names)}, not {name!r}{missing}")
    return tables[names.index(name)]


def load():
    """Imports the modules of all engines that were compiled."""
    for name in KNOWN:
        try:
            importlib.import_module(f"lbcore.tls.{name}")
        except ModuleNotFoundError:
            continue


def tls_engines():
    """TLS engines of this build: name -> library and version."""
    load()
    return dict(versions)
