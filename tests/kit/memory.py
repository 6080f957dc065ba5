"""What the process and its pipes hold."""

from __future__ import annotations

from pathlib import Path


def anonymous_bytes() -> int:
    """Resident memory that is not a file's."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise LookupError("no RssAnon in /proc/self/status")


def pipe_ends() -> int:
    """Descriptors of this process that are ends of pipes: splice needs two for each."""
    count = 0
    for entry in Path("/proc/self/fd").iterdir():
        try:
            count += str(entry.readlink()).startswith("pipe:")
        except OSError:
            continue  # it was the listing's own
    return count
