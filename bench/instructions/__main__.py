"""`python -m bench.instructions`: counts what the hot paths cost, and holds them to the budget."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence

from . import budget
from .budget import Budget
from .counted import PATHS
from .counting import ALLOCATIONS, CannotCount, Spent, architecture, count, find_valgrind, tools

WITHIN, GROWN, NOT_COUNTED = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """0: within the budget, or a new one was written; 1: something has grown; 2: it cannot be said."""
    options = _parser().parse_args(arguments)
    place = budget.place(architecture())
    try:
        valgrind = find_valgrind()
        allowed = None if options.update else budget.load(place)
        made_with = tools(valgrind)
        spent = count(valgrind, options.path or [])
    except FileNotFoundError:
        print(f"instructions: no budget for {architecture()}: --update makes {place}", file=sys.stderr)
        return NOT_COUNTED
    except CannotCount as problem:
        print(f"instructions: {problem}", file=sys.stderr)
        return NOT_COUNTED
    counted = Budget(made_with, {key: one.cost for key, one in spent.items()})
    print(table(spent))
    print(dearest(spent, options.top))
    if allowed is None:
        budget.save(place, counted)
        print(f"The new budget is in {place}.")
        return WITHIN
    return _judge(allowed, counted, everything=not options.path)


def _judge(allowed: Budget, counted: Budget, *, everything: bool) -> int:
    found = budget.compare(allowed, counted, everything=everything)
    for note in found.notes:
        print(f"note: {note}")
    for fault in found.faults:
        print(f"FAILED: {fault}")
    if not found.faults:
        print("All within the budget.")
    return GROWN if found.faults else WITHIN


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.instructions", description=__doc__)
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--update", action="store_true", help="write a new budget instead of comparing")
    choice.add_argument(
        "--path", action="append", choices=[path.key for path in PATHS], help="only this one (repeatable)"
    )
    parser.add_argument(
        "--top", type=int, default=0, metavar="N", help="also show where each path spends most, N places"
    )
    return parser


def table(spent: Mapping[str, Spent]) -> str:
    """What one unit of each path costs, as Markdown."""
    rows = ["| path | lbcore | TLS library | system calls | allocations |", "|---|---:|---:|---|---|"]
    for key, one in spent.items():
        calls = {name: n for name, n in one.cost.calls.items() if name not in ALLOCATIONS}
        heap = {name: n for name, n in one.cost.calls.items() if name in ALLOCATIONS}
        numbers = f"{one.cost.instructions:.1f} | {one.tls_library:.0f}"
        rows.append(f"| {key} | {numbers} | {_list(calls)} | {_list(heap)} |")
    return "\n".join(rows)


def _list(calls: Mapping[str, float]) -> str:
    most_first = sorted(calls.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count:g} {name}" for name, count in most_first)


def dearest(spent: Mapping[str, Spent], count: int) -> str:
    """The functions and lines of lbcore where most is spent."""
    rows = []
    for key, one in spent.items() if count > 0 else ():
        rows.append(f"\n{key}: {one.cost.instructions:.1f} instructions for one {one.cost.unit}")
        rows += [f"{most:10.1f}  {name}" for name, most in (*one.functions[:count], *one.lines[:count])]
    return "\n".join(rows)


if __name__ == "__main__":
    sys.exit(main())
