"""`lbctl probe`."""

from __future__ import annotations

import ssl
from pathlib import Path

import click

from lbctl import certificates
from lbctl.cli.output import json_option, write_json
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

_ALERTS = {
    "certificate required": "it wants a client certificate; give --cert and --key",
    "unknown ca": "it does not trust the CA that issued this certificate",
    "bad certificate": "it does not know this certificate, or the client is disabled",
    "unsupported certificate": "this certificate is not meant for clients",
    "certificate expired": "this certificate has expired, or is not valid yet",
    "certificate revoked": "this certificate was revoked",
    "certificate unknown": "it does not accept this certificate",
    "handshake failure": "this certificate may not use this app",
    "access denied": "this certificate may not use this app",
}


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
    help="How long a refusal may take after the handshake.",
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
    text = _words(probed, host, port, has_cert=cert is not None, ca=ca, wait=wait, timeout=timeout)
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
        raise LbctlError(f"cannot use {files}: {_why(error, 'not a certificate and its key in PEM')}") from None
    return context


def _no_password() -> str:
    raise LbctlError("the private key is encrypted, and nothing here asks for passwords; decrypt it first")


def _why(error: OSError, otherwise: str) -> str:
    if not isinstance(error, ssl.SSLError):
        return error.strerror or str(error)
    if error.reason == "KEY_VALUES_MISMATCH":
        return "the key is not that of the certificate"
    return otherwise


def _words(
    probed: Probed, host: str, port: int, *, has_cert: bool, ca: Path | None, wait: float, timeout: float
) -> str:
    where = f"{shorten(host)}:{port}" if ":" not in host else f"[{shorten(host)}]:{port}"
    session = f"{probed.tls}, {probed.cipher}"
    match probed.outcome:
        case Outcome.ADMITTED if probed.received:
            return f"admitted: {session}; the server spoke first ({probed.received} bytes)"
        case Outcome.ADMITTED:
            return f"admitted: {session}; the server kept the connection for {wait:g} s"
        case Outcome.NOT_ASKED:
            return (
                f"connected ({session}), but the server asked for no client certificate: "
                "this is not mutual TLS, and it says nothing about this client"
            )
        case Outcome.REFUSED:
            return _refused(probed, has_cert)
        case Outcome.TURNED_AWAY:
            return (
                "turned away for now: the server ended the connection cleanly right after the handshake; "
                "a limit is reached, or no upstream is up (or the service has nothing to say); try again later"
            )
        case Outcome.CUT:
            return "cut off after the handshake, without a TLS end: by the server, or by something in between"
        case Outcome.CLOSED_EARLY:
            return (
                f"{where} closed the connection before the handshake was over: "
                "it is full, or this is no TLS server"
            )
        case Outcome.UNTRUSTED:
            by = f"by {_show(ca)}" if ca is not None else "by this system's CAs (name another with --ca)"
            return f"the server is not to be trusted {by}: {shorten(probed.detail, 200)}"
        case Outcome.NO_TLS13:
            return f"{where} does not speak TLS 1.3"
        case Outcome.NOT_TLS:
            return f"{where} answers, but not with TLS"
        case Outcome.HANDSHAKE_FAILED:
            return f"the handshake with {where} failed: {shorten(probed.detail, 200)}"
        case Outcome.CONNECTION_REFUSED:
            return f"cannot reach {where}: connection refused; nothing listens there"
        case Outcome.UNREACHABLE:
            return f"cannot reach {where}: {shorten(probed.detail, 200)}"
        case Outcome.TIMEOUT if probed.peer is None:
            return f"cannot reach {where}: no answer within {timeout:g} s"
        case Outcome.TIMEOUT:
            return f"{where} took the connection, but the handshake was not over within {timeout:g} s"


def _refused(probed: Probed, has_cert: bool) -> str:
    after = "after the handshake" if probed.tls is not None else "during the handshake"
    if probed.certificate_asked and not has_cert:
        why = _ALERTS["certificate required"]
    elif probed.detail == "reset":
        why = "this certificate may not use this app now (ask the operator for the log line)"
    else:
        why = f"{_ALERTS.get(probed.detail, 'it does not say why')} (alert: {shorten(probed.detail)})"
    return f"refused by the server {after}: {why}"


def _hint(cert: Path) -> str | None:
    """What is wrong with our own certificate, for everybody to see."""
    description = certificates.describe(cert)
    if description.state != "valid":
        return f"note: {_show(cert)} is {description.state} (until {description.not_after:%Y-%m-%d %H:%M} UTC)"
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
