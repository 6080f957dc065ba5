"""The table of a run in the README, between two marks: `python -m bench --readme README.md`.

python -m bench.readme FILE README.md    later, out of what --json has written
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .report import as_table, significant

BEGIN = "<!-- Made by `python -m bench --readme README.md`: change nothing up to the end mark. -->"
END = "<!-- End of what the bench has made. -->"


class NoPlace(Exception):
    """A file without the two marks."""


def write(document: Mapping[str, Any], readme: Path) -> None:
    """Replaces what is between the marks.

    Raises:
        NoPlace: they are not there.
    """
    text = readme.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise NoPlace(f"{readme} has no place for the table: {BEGIN} and {END}")
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
    said = f"Medians of {run.get('rounds')} rounds, {run.get('date')}, {where}. {versions}."
    return "\n\n".join([as_table(table, left=2), said])


def _against_best(work: Mapping[str, Any]) -> str:
    ratio = work["ratios"].get(work["best"])
    if ratio is None:
        return "–"
    return f"{ratio['median']:.2f} ({ratio['least']:.2f}–{ratio['greatest']:.2f}), {work['best']}"


def main() -> None:
    """Writes what an earlier run has written with --json."""
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    write(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))


if __name__ == "__main__":
    main()
