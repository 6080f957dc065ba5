#!/usr/bin/env python3
"""Makes the demo's certificates: `python certs/make_certs.py [DIR]`, by default next to this script.

Missing files are made, existing ones are kept; nothing is overwritten.
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
try:
    from lbctl.certificates import demo_certificates
    from lbctl.errors import LbctlError
except ModuleNotFoundError as missing:
    if missing.name != "lbctl":
        raise
    sys.exit("lbctl is not installed; run: pip install .")


def main(arguments: list[str]) -> int:
    """Make the set and say what is there."""
    if len(arguments) > 1 or (arguments and arguments[0].startswith("-")):
        sys.stderr.write(f"{__doc__}")
        return 0 if arguments[0] in ("-h", "--help") else 64
    try:
        made = demo_certificates(Path(arguments[0]) if arguments else HERE)
    except LbctlError as error:
        sys.stderr.write(f"make_certs.py: error: {error}\n")
        return 1
    state = "new CA" if made.created else "kept"
    sys.stdout.write(
        f"{made.directory}: {state}, SHA-256 {made.ca_fingerprint}\n"
        f"valid until {made.not_after:%Y-%m-%d %H:%M} UTC\n"
    )
    for client in (made.alice, made.mallory):
        sys.stdout.write(f"{client.name:<8} serial {client.serial:016X}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
