"""`lbctl probe`."""

from __future__ import annotations

import ssl
from pathlib import Path

import click

from lbctl import certificates
from lbctl.cli.output import json_option, write_json
from lbctl.cli.probe_words import Question, in_words
from lbctl.cli.probing import Outcome, Probed
from lbctl.cli.probing import probe as run_probe
from lbctl.config.values import shorten
from lbctl.errors import ExitCode, LbctlError

_EXIT = {
    Outcome.ADMITTED: ExitCode.OK,
    Outcome.REFUSED: ExitCode.REFUSED,
    Outcome.TURNED_AWAY: ExitCode.REFUSED,
    Outcome.CUT: ExitCode.REFUSED,
    Outcome.CLOSED_EARLY: ExitCode.REFUSED,
}  # anything else: no server was reached that could have judged the client


@click.command()
@click.argument("address", metavar="HOST:PORT")
@click.option("--cert", type=click.Path(path_type=Path), help="The client's certificate, PEM.")
@click.option("--key", type=click.Path(path_type=Path), help="Its private key, PEM (by default in --cert).")
@click.option("--ca", type=click.Path(path_type=Path), help="The CA the server must have (the system's).")
@click.option("--server-name", metavar="NAME", help="The name its certificate must hold (HOST).")
@click.option(
    "--timeout",
    type=click.FloatRange(0.01, 3600),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="For connection and handshake.",
)
@click.option(
    "--wait",
    type=click.FloatRange(0, 3600),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="How long a refusal may take after the handshake; with a limit that delays, its max_wait.",
)
@json_option
@click.pass_context
def probe(
    ctx: click.Context,
    address: str,
    cert: Path | None,
    key: Path | None,
    ca: Path | None,
    server_name: str | None,
    timeout: float,
    wait: float,
    as_json: bool,
) -> None:
    """Connect as a client and say in words what happened.

    Exit code 0: admitted; 75: the other side refused; 1: no server that asks for certificates was reached.
    """
    if key is not None and cert is None:
        raise click.UsageError("--key belongs to a certificate; add --cert")
    host, port = _split(address)
    context = _context(cert, key, ca)
    probed = run_probe(host, port, context, server_name or host, timeout=timeout, wait=wait)
    exit_code = _EXIT.get(probed.outcome, ExitCode.FAILED)
    question = Question(host, port, has_cert=cert is not None, ca=ca, timeout=timeout, wait=wait)
    text = in_words(question, probed)
    hint = _hint(cert) if cert is not None and exit_code == ExitCode.REFUSED else None
    if as_json:
        write_json(_as_json(probed, address, text, hint, exit_code))
    else:
        click.echo(text)
        if hint is not None:
            click.echo(hint)
    ctx.exit(exit_code)


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        host = ""
    if not host or not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536):
        example = "localhost:8443 or [::1]:8443"
        raise click.BadParameter(
            f"'{shorten(address)}': expected HOST:PORT such as {example}", param_hint="HOST:PORT"
        )
    return host, int(port)


def _context(cert: Path | None, key: Path | None, ca: Path | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # Python 3.11.2, Debian 12's, sets it: a connection that is cut would look like one that ended cleanly.
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        if ca is not None:
            context.load_verify_locations(cafile=ca)
        else:
            context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    except (OSError, ssl.SSLError) as error:
        raise LbctlError(f"cannot use the CA {_show(ca)}: {_why(error, 'no certificate in PEM')}") from None
    if cert is None:
        return context
    try:
        context.load_cert_chain(cert, key, password=_no_password)
    except (OSError, ssl.SSLError) as error:
        files = _show(cert) if key is None else f"{_show(cert)} with the key {_show(key)}"
        why = _why(error, "not a certificate and its key in PEM")
        raise LbctlError(f"cannot use {files}: {why}") from None
    return context


def _no_password() -> str:
    raise LbctlError("the private key is encrypted, and nothing here asks for passwords; decrypt it first")


def _why(error: OSError, otherwise: str) -> str:
    if not isinstance(error, ssl.SSLError):
        return error.strerror or str(error)
    if error.reason == "KEY_VALUES_MISMATCH":
        return "the key is not that of the certificate"
    return otherwise


def _hint(cert: Path) -> str | None:
    """What is wrong with our own certificate, for everybody to see."""
    description = certificates.describe(cert)
    if description.state != "valid":
        return f"note: {_show(cert)} is {description.state} (ends {description.not_after:%Y-%m-%d %H:%M} UTC)"
    if not {"client", "any"} & set(description.purposes):
        return f"note: {_show(cert)} is not for clients (it is for: {', '.join(description.purposes)})"
    return None


def _as_json(
    probed: Probed, address: str, text: str, hint: str | None, exit_code: ExitCode
) -> dict[str, object]:
    return {
        "address": address,
        "outcome": probed.outcome.value,
        "exit_code": int(exit_code),
        "text": text,
        "hint": hint,
        "detail": probed.detail or None,
        "peer": probed.peer,
        "tls": probed.tls,
        "cipher": probed.cipher,
        "certificate_asked": probed.certificate_asked,
        "received": probed.received,
    }


def _show(path: Path | None) -> str:
    return shorten(str(path), 200) if path is not None else "of this system"
