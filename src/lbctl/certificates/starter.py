"""The certificates a first configuration names: what is in the folder already, and what is missing made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lbctl.certificates import demo, files, folder, names, pem
from lbctl.certificates.authority import Purpose
from lbctl.certificates.folder import Listed
from lbctl.errors import LbctlError

FIRST_CLIENT = "alice"


@dataclass(frozen=True)
class StarterClient:
    """A client to name in the configuration.

    Attributes:
        name: of the client and its files.
        serial: of its certificate.
        admitted: whether it should get in.
    """

    name: str
    serial: int
    admitted: bool = True


@dataclass(frozen=True)
class Starter:
    """A folder that is ready to serve.

    Attributes:
        directory: the folder.
        server: the stem of the server's pair of files.
        clients: who holds a certificate of this CA.
        is_demo: the CA is a demo's, so everything lasts a week.
        made: the stems of what is new.
    """

    directory: Path
    server: str
    clients: tuple[StarterClient, ...]
    is_demo: bool
    made: tuple[str, ...]


def starter(directory: Path) -> Starter:
    """Look at a folder of certificates and make what is missing.

    A demo's set is kept, and made whole. Without any CA there will be one, with a server and one client.
    With another CA a server certificate is issued if there is none, and no client.

    Raises:
        LbctlError: a file is no use or cannot be made. Nothing was overwritten.
    """
    if not folder.has_ca(directory):
        folder.create_ca(directory)
        server = _server(directory)
        client = folder.issue(directory, FIRST_CLIENT, Purpose.CLIENT)
        clients = (StarterClient(client.name, client.description.serial),)
        made = ("ca", *server.made, client.name)
        return Starter(directory, server.stem, clients, is_demo=False, made=made)
    if demo.is_demo_ca(pem.read_certificate(directory / "ca.pem")):
        demo.demo_certificates(directory)
        return Starter(directory, "server", _clients(directory, refused=("mallory",)), is_demo=True, made=())
    server = _server(directory)
    return Starter(directory, server.stem, _clients(directory), is_demo=False, made=server.made)


@dataclass(frozen=True)
class _Server:
    stem: str
    made: tuple[str, ...]


def _server(directory: Path) -> _Server:
    """The server certificate to present; one called "server" is preferred, whoever issued it."""
    usable = [one for one in folder.list_certificates(directory) if _usable(one, "server") and one.has_key]
    stems = sorted((one.name for one in usable), key=lambda stem: (stem != "server", stem))
    if stems:
        return _Server(stems[0], ())
    if files.exists(directory / "server.pem"):
        raise LbctlError(
            f"{files.show(directory / 'server.pem')} cannot serve; see why with: lbctl cert list, "
            "then move it away, or issue another: lbctl cert issue NAME --server"
        )
    folder.issue(directory, "server", Purpose.SERVER)
    return _Server("server", ("server",))


def _clients(directory: Path, refused: tuple[str, ...] = ()) -> tuple[StarterClient, ...]:
    by_serial: dict[int, StarterClient] = {}
    for one in folder.list_certificates(directory):
        if one.issued_here and _usable(one, "client") and _nameable(one.name):
            serial = one.description.serial
            by_serial.setdefault(serial, StarterClient(one.name, serial, one.name not in refused))
    return tuple(by_serial.values())


def _usable(one: Listed, purpose: str) -> bool:
    return one.description.state == "valid" and purpose in one.description.purposes


def _nameable(stem: str) -> bool:
    try:
        names.check_stem(stem)
    except LbctlError:
        return False
    return True
