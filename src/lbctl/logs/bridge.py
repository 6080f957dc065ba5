"""The standard library's log messages as events, so that they take the same way out."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from lbctl.logs.journal import Journal

_LOGGERS = ("lbcore", "lbctl", "py.warnings")


class _Handler(logging.Handler):
    def __init__(self, journal: Journal) -> None:
        super().__init__()
        self._journal = journal

    def emit(self, record: logging.LogRecord) -> None:
        try:
            level = record.levelname.lower()
            self._journal.event("log", level=level, logger=record.name, message=self.format(record))
        except Exception:
            self.handleError(record)


@contextlib.contextmanager
def bridged(journal: Journal) -> Iterator[None]:
    """While inside, messages of the data plane and Python's warnings go to the journal alone."""
    handler = _Handler(journal)
    found = [logging.getLogger(name) for name in _LOGGERS]
    propagate = [logger.propagate for logger in found]
    logging.captureWarnings(True)
    for logger in found:
        logger.addHandler(handler)
        logger.propagate = False
    try:
        yield
    finally:
        logging.captureWarnings(False)
        for logger, before in zip(found, propagate, strict=True):
            logger.removeHandler(handler)
            logger.propagate = before
