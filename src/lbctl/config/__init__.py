"""Reading, checking and writing the configuration of `lbctl`.

    path = find_config(None, os.environ)
    loaded = read(path)                 # raises ConfigMissing, ConfigInvalid
    loaded.config.apps["web"].listen
    check_files(loaded)                 # certificates and keys
    print(dump(loaded))

Functions keep no state and may be called from any thread.
"""

from lbctl.config.dump import dump
from lbctl.config.files import check_files
from lbctl.config.load import Loaded, build, load, read, read_bytes
from lbctl.config.model import Config
from lbctl.config.named import NamedCertificate, named_certificates
from lbctl.config.problem import Problem, render
from lbctl.config.schema import schema
from lbctl.config.search import find_config
from lbctl.errors import ConfigError, ConfigInvalid, ConfigMissing

__all__ = [
    "Config",
    "ConfigError",
    "ConfigInvalid",
    "ConfigMissing",
    "Loaded",
    "NamedCertificate",
    "Problem",
    "build",
    "check_files",
    "dump",
    "find_config",
    "load",
    "named_certificates",
    "read",
    "read_bytes",
    "render",
    "schema",
]
