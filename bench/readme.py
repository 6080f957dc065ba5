"""The table of a run in the README, between two marks: `python -m bench --readme README.md`.

python -m bench.readme FILE README.md    later, out of what --json has written
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .report import NotAReport, as_table, read, significant

BEGIN = "<!-- Made by `python -m bench --readme README.md`: change nothing up to the end mark. -->"
END = "<!-- End of what the bench has made. -->"
_PLACES = ("--json", "--svg", "--readme")


class NoPlace(Exception):
    """A file without the two marks; the text says what they are."""


def require(readme: Path) -> tuple[str, str]:
    """What is before the marks, and what is after them.

    Raises:
        NoPlace: they are not there; what to do about it.
    """
    if not readme.is_file():
        raise NoPlace(f"{readme} is no file: name one that has the lines {BEGIN} and {END}")
    before, begin, rest = readme.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise NoPlace(f"{readme} has no place for the table: add the lines {BEGIN} and, below it, {END}")
    return before, after


def write(document: Mapping[str, Any], readme: Path) -> None:
    """Replaces what is between the marks. Raises: as `require`."""
    before, after = require(readme)
    readme.write_text(f"{before}{BEGIN}\n\n{summary(document)}\n\n{END}{after}")


def summary(document: Mapping[str, Any]) -> str:
    """One worker: the median of each proxy, the ratio to the cheapest peer; and what was run where."""
    names = [about["name"] for about in document["proxies"]]
    table = [["work", "unit", *names, f"{names[0]} / best peer"]]
    for work in document["passes"][0]["works"]:
        cells = [
            significant(work["proxies"][name]["median"]) if name in work["proxies"] else "–" for name in names
        ]
        table.append([work["title"], work["unit"], *cells, _against_best(work)])
    versions = "; ".join(f"{about['product']} with {about['tls']}" for about in document["proxies"])
    run, machine = document["run"], document["machine"]
    where = f"{machine.get('cpus')} CPUs ({machine.get('cpu')}), Linux {machine.get('kernel')}"
    where += f", {machine.get('congestion control')} over the loopback"
    how = f"`{_asked(run['command'])}`: medians of {run.get('rounds')} rounds"
    how += f", peers {run['peers']}" if "peers" in run else ""
    said = f"{how}, {run.get('date')}, {where}. {versions}."
    return "\n\n".join([as_table(table, left=2), said])


def _asked(command: str) -> str:
    """The command without the files that it wrote: they change no number, and are somebody's own."""
    words = iter(shlex.split(command))
    kept = []
    for word in words:
        option, _, value = word.partition("=")
        if option not in _PLACES:
            kept.append(word)
        elif not value:
            next(words, None)
    return shlex.join(kept)


def _against_best(work: Mapping[str, Any]) -> str:
    ratio = work["ratios"].get(work["best"])
    if ratio is None:
        return "–"
    return f"{ratio['median']:.2f} ({ratio['least']:.2f}–{ratio['greatest']:.2f}), {work['best']}"


def main() -> None:
    """Writes what an earlier run has written with --json."""
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    try:
        write(read(Path(sys.argv[1])), Path(sys.argv[2]))
    except (NoPlace, NotAReport, OSError) as failure:
        raise SystemExit(f"bench.readme: {failure}") from None


if __name__ == "__main__":
    main()
