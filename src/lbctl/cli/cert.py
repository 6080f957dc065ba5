"""`lbctl cert`: a small certificate authority."""

from __future__ import annotations

from pathlib import Path

import click

from lbctl import certificates
from lbctl.certificates import Description, Issued, Listed, Purpose, RevocationList, files
from lbctl.cli.output import json_option, write_json
from lbctl.cli.stanza import CLAIMS_STANZA, client_stanza, server_stanza
from lbctl.config.values import check_name, format_serial, shorten

DIRECTORY = Path("certs")
_DAYS = click.IntRange(1, 36500)


@click.group()
def cert() -> None:
    """A small certificate authority: one CA in a folder, which issues clients and servers directly.

    Keys are ECDSA P-256 and readable by their owner only. Nothing is ever overwritten but the CA's
    revocation list.
    """


@cert.command()
@click.argument("directory", metavar="[DIR]", type=click.Path(path_type=Path), default=DIRECTORY)
@click.option("--name", default=certificates.CA_NAME, show_default=True, help="The name of the CA.")
@click.option("--days", type=_DAYS, default=certificates.CA_DAYS, show_default=True, help="Its lifetime.")
@json_option
def init(directory: Path, name: str, days: int, as_json: bool) -> None:
    """Make a CA in DIR (./certs): ca.pem and ca.key."""
    description = certificates.create_ca(directory, name, days)
    if as_json:
        write_json({"cert": str(description.file), "key": str(directory / "ca.key"), **description.as_json()})
        return
    click.echo(f"{_path(description.file)}  CA certificate, {_until(description)}")
    click.echo(f"{_path(directory / 'ca.key')}  its private key (0600): whoever has it can be any client")
    click.echo(f"SHA-256 {description.fingerprint}")
    click.echo(f"next: lbctl cert issue NAME{_dir_option(directory)}")


@cert.command()
@click.argument("name")
@click.option(
    "--dir", "directory", type=click.Path(path_type=Path), default=DIRECTORY, help="The CA's folder (certs)."
)
@click.option(
    "--days", type=_DAYS, help=f"Valid for so long ({certificates.LEAF_DAYS}, but no longer than the CA)."
)
@click.option("--server", is_flag=True, help="For a server; a client without it.")
@click.option(
    "--san",
    "hosts",
    multiple=True,
    metavar="HOST",
    help="A server's host name or IP address (repeatable; localhost, 127.0.0.1, ::1).",
)
@click.option(
    "--app",
    "apps",
    multiple=True,
    metavar="APP[:CLASS]",
    help="Write into a client's certificate that it may use APP, under a class of limits (repeatable; "
    "counts where certificate_claims is true).",
)
@json_option
def issue(
    name: str,
    directory: Path,
    days: int | None,
    server: bool,
    hosts: tuple[str, ...],
    apps: tuple[str, ...],
    as_json: bool,
) -> None:
    """Make NAME.pem and NAME.key, and print what to put into the configuration."""
    if hosts and not server:
        raise click.UsageError("--san names the hosts of a server; add --server")
    if apps and server:
        raise click.UsageError("--app says what a client may use; a server's certificate claims nothing")
    purpose = Purpose.SERVER if server else Purpose.CLIENT
    claimed = _claimed(apps)
    issued = certificates.issue(directory, name, purpose, days=days, alternative_names=hosts, apps=claimed)
    if as_json:
        _write_issued_json(issued, directory, bool(apps))
        return
    description = issued.description
    click.echo(f"{_path(issued.cert)}  {purpose.name.lower()} certificate, {_until(description)}")
    click.echo(f"{_path(issued.key)}  its private key (0600)")
    click.echo(f"serial {description.serial_hex}")
    if description.names:
        click.echo(f"names  {', '.join(map(_text, description.names))}")
    click.echo("\nfor lb.yaml:\n")
    click.echo(_stanza(issued, directory, bool(apps)), nl=False)


@cert.command()
@click.argument("which", metavar="NAME|FILE|SERIAL")
@click.option(
    "--dir", "directory", type=click.Path(path_type=Path), default=DIRECTORY, help="The CA's folder (certs)."
)
@click.option(
    "--days", type=_DAYS, default=certificates.CRL_DAYS, show_default=True, help="Until the next list is due."
)
@click.option("--dry-run", is_flag=True, help="Write nothing.")
@json_option
def revoke(which: str, directory: Path, days: int, dry_run: bool, as_json: bool) -> None:
    """Put a certificate on the CA's revocation list, ca.crl.

    Balancers that name the list in tls.crl refuse the certificate after their next start. Once the list
    is out of date they refuse everybody: renew it in time with lbctl cert crl.
    """
    found = certificates.revoke(directory, which, days=days, dry_run=dry_run)
    if as_json:
        _write_crl_json(found, dry_run)
        return
    said = ("would be revoked" if dry_run else "revoked") if found.added else "was revoked before"
    click.echo(f"serial {format_serial(found.serial or 0)} {said}")
    _write_crl(found, dry_run)


@cert.command()
@click.argument("directory", metavar="[DIR]", type=click.Path(path_type=Path), default=DIRECTORY)
@click.option(
    "--days", type=_DAYS, default=certificates.CRL_DAYS, show_default=True, help="Until the next list is due."
)
@json_option
def crl(directory: Path, days: int, as_json: bool) -> None:
    """Sign the revocation list of DIR (./certs) anew, so that it lasts longer."""
    found = certificates.renew(directory, days=days)
    if as_json:
        _write_crl_json(found, False)
        return
    _write_crl(found, False)


@cert.command("list")
@click.argument("directory", metavar="[DIR]", type=click.Path(path_type=Path), default=DIRECTORY)
@json_option
def list_(directory: Path, as_json: bool) -> None:
    """List the certificates of DIR (./certs)."""
    listed = certificates.list_certificates(directory)
    revoked = certificates.revoked_serials(directory)
    if as_json:
        write_json([_listed_json(one, revoked) for one in listed])
        return
    if not listed:
        click.echo(f"no certificates in {_path(directory)}; make a CA with: lbctl cert init", err=True)
        return
    rows = [("NAME", "FOR", "SERIAL", "ENDS", "REMARKS"), *(_row(one, revoked) for one in listed)]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        click.echo("  ".join([*cells, row[4]]).rstrip())


@cert.command()
@click.argument("file", type=click.Path(path_type=Path))
@json_option
def show(file: Path, as_json: bool) -> None:
    """Say what the (first) certificate in FILE holds."""
    description = certificates.describe(file)
    if as_json:
        write_json(description.as_json())
        return
    rows = {
        "subject": _text(description.subject),
        "issuer": _text(description.issuer),
        "serial": description.serial_hex,
        "names": ", ".join(map(_text, description.names)) or "-",
        "valid": f"{description.not_before:%Y-%m-%d %H:%M} to {description.not_after:%Y-%m-%d %H:%M} UTC",
        "state": _state(description),
        "for": ", ".join(description.purposes) or "-",
        "key": description.key_type,
        "SHA-256": description.fingerprint,
    }
    for label, value in rows.items():
        click.echo(f"{label:<8} {value}")


def _write_crl(found: RevocationList, dry_run: bool) -> None:
    count = len(found.serials)
    click.echo(
        f"{_path(found.file)}  list {found.number}, {count} {'entry' if count == 1 else 'entries'}, "
        f"the next is due by {found.ends:%Y-%m-%d %H:%M} UTC{' (not written)' if dry_run else ''}"
    )
    click.echo("\nfor lb.yaml:\n")
    click.echo(f"tls:\n  crl: {found.file}")


def _write_crl_json(found: RevocationList, dry_run: bool) -> None:
    write_json(
        {
            "file": str(found.file),
            "written": not dry_run,
            "number": found.number,
            "next_update": f"{found.ends:%Y-%m-%dT%H:%M:%SZ}",
            "serials": [format_serial(serial) for serial in found.serials],
            "added": found.added,
        }
    )


def _claimed(apps: tuple[str, ...]) -> dict[str, str | None]:
    """The apps and their classes, from the command line."""
    found: dict[str, str | None] = {}
    for text in apps:
        app, colon, limits = text.partition(":")
        try:
            for word in (app, limits) if colon else (app,):
                check_name(word)
        except ValueError as error:
            raise click.UsageError(f"--app {_text(text)}: {error}") from None
        if ":" in limits:
            raise click.UsageError(f"--app {_text(text)}: names with a colon cannot be given here")
        if found.setdefault(app, limits or None) != (limits or None):
            raise click.UsageError(f"--app {_text(text)}: '{_text(app)}' has another class already")
    return found


def _write_issued_json(issued: Issued, directory: Path, claims: bool) -> None:
    write_json(
        {
            "name": issued.name,
            "cert": str(issued.cert),
            "key": str(issued.key),
            "config": _stanza(issued, directory, claims),
            **issued.description.as_json(),
        }
    )


def _stanza(issued: Issued, directory: Path, claims: bool) -> str:
    if issued.purpose is Purpose.SERVER:
        return server_stanza(issued.cert, issued.key, directory / "ca.pem")
    return CLAIMS_STANZA if claims else client_stanza(issued.name, issued.description.serial)


def _listed_json(one: Listed, revoked: frozenset[int]) -> dict[str, object]:
    return {
        "name": one.name,
        "issued_here": one.issued_here,
        "has_key": one.has_key,
        "revoked": _is_revoked(one, revoked),
        **one.description.as_json(),
    }


def _is_revoked(one: Listed, revoked: frozenset[int]) -> bool:
    return one.issued_here and one.description.serial in revoked


def _row(one: Listed, revoked: frozenset[int]) -> tuple[str, str, str, str, str]:
    description = one.description
    remarks = [] if one.issued_here else ["not issued by the CA here"]
    if not one.has_key:
        remarks.append("no key here")
    if _is_revoked(one, revoked):
        remarks.append("revoked")
    return (
        _text(one.name),
        ", ".join(description.purposes) or "-",
        description.serial_hex,
        f"{description.not_after:%Y-%m-%d} ({_state(description)})",
        ", ".join(remarks),
    )


def _state(description: Description) -> str:
    if description.state != "valid":
        return description.state
    days = description.days_left
    return f"{days} day{'' if days == 1 else 's'} left"


def _until(description: Description) -> str:
    return f"valid until {description.not_after:%Y-%m-%d %H:%M} UTC"


def _dir_option(directory: Path) -> str:
    return "" if directory == DIRECTORY else f" --dir {files.in_shell(directory)}"


def _path(path: Path) -> str:
    return shorten(str(path), 200)


def _text(text: str) -> str:
    """Text that a stranger chose, on one line and harmless to a terminal."""
    return shorten(text, 200)
