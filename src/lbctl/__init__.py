"""The control plane: it decides everything and moves nothing."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("lbcore")
except PackageNotFoundError:  # a source tree on PYTHONPATH, never installed
    __version__ = "0+unknown"
