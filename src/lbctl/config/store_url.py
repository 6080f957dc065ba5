"""The address of a client store: ``https://clients.internal/v1/serials/{serial}``.

No state: safe from any thread.
"""

from __future__ import annotations

from lbctl.config.web_url import WebUrl

PLACEHOLDER = "{serial}"
URL_PATTERN = r"^https?://[^\s{}#]+\{serial\}[^\s{}#]*$"


class StoreUrl(WebUrl):
    """A URL whose target has the placeholder."""

    def for_serial(self, digits: str) -> str:
        """The target of the request about a serial: whole octets in upper-case hexadecimal."""
        return self.target.replace(PLACEHOLDER, digits)


def parse_store_url(text: str) -> StoreUrl:
    """The parts of a URL.

    Raises:
        ValueError: it is none that a store can have; the text says how to mend it.
    """
    example = "https://clients.internal/v1/serials/{serial}"
    return StoreUrl.parse(text, example=example, placeholder=PLACEHOLDER)
