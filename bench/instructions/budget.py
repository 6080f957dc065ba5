"""The budget: what each hot path may cost, and with which tools that was counted.

One file for each processor architecture, in budgets/. README.md says what follows from other tools than the
budget's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

GROWTH_MAX = 0.05  # of instructions; calls may not grow at all
SUSPICIOUS = 0.5  # with less than this part of its budget, a path was hardly counted
_ROUNDING = 0.001  # calls per unit are kept with two decimals
_FOLDER = Path(__file__).with_name("budgets")


@dataclass(frozen=True)
class Cost:
    """Of one unit of a path.

    Attributes:
        unit: what one unit is.
        instructions: of lbcore's own code, without the TLS library and libc.
        calls: from there to what enters the kernel or allocates: name of the function -> how often.
    """

    unit: str
    instructions: float
    calls: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Budget:
    """Of all paths.

    Attributes:
        made_with: tool -> version.
        paths: key -> what it costs.
    """

    made_with: Mapping[str, str]
    paths: Mapping[str, Cost]


@dataclass(frozen=True)
class Comparison:
    """Sentences: what fails, and what is worth knowing."""

    faults: tuple[str, ...]
    notes: tuple[str, ...]


def place(architecture: str) -> Path:
    """The file for an architecture."""
    return _FOLDER / f"{architecture}.json"


def load(path: Path) -> Budget:
    """Raises OSError: there is none."""
    data = json.loads(path.read_text())
    paths = {key: Cost(**cost) for key, cost in data["paths"].items()}
    return Budget(data["made_with"], paths)


def save(path: Path, budget: Budget) -> None:
    """Sorted where order says nothing, so that a change shows in a diff."""
    data = {
        "made_with": dict(sorted(budget.made_with.items())),
        "paths": {
            key: {
                "unit": cost.unit,
                "instructions": cost.instructions,
                "calls": dict(sorted(cost.calls.items())),
            }
            for key, cost in budget.paths.items()
        },
    }
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(data, indent=2) + "\n")


def compare(budget: Budget, counted: Budget, *, everything: bool = True) -> Comparison:
    """What was counted against what it may be; `everything`: no path was left out on purpose."""
    faults: list[str] = []
    notes: list[str] = []
    for key, cost in counted.paths.items():
        if key not in budget.paths:
            faults.append(f"{key} has no budget: --update gives it one.")
            continue
        allowed = budget.paths[key]
        faults.extend(_grown(key, allowed, cost))
        faults.extend(_hardly_counted(key, allowed, cost))
        notes.extend(_shrunk(key, allowed, cost))
    if everything:
        gone = [key for key in budget.paths if key not in counted.paths]
        faults.extend(f"{key} has a budget and was not counted: --update takes it out." for key in gone)
    tools = _other_tools(budget.made_with, counted.made_with)
    if tools:
        notes.insert(0, _about_tools(tools))
        if faults:
            faults.append(_ABOUT_FAULTS)
    return Comparison(tuple(faults), tuple(notes))


def _grown(key: str, allowed: Cost, cost: Cost) -> list[str]:
    found = []
    if cost.instructions > allowed.instructions * (1 + GROWTH_MAX):
        found.append(
            f"{key}: {cost.instructions:.1f} instructions of lbcore for one {cost.unit}, "
            f"{_change(allowed, cost)} than the budget's {allowed.instructions:.1f} "
            f"(it may grow by {GROWTH_MAX:.0%})."
        )
    for name, count in sorted(cost.calls.items()):
        before = allowed.calls.get(name, 0)
        if count > before + _ROUNDING:
            found.append(f"{key}: {name} is called {count:g} times for one {cost.unit}, not {before:g}.")
    return found


def _hardly_counted(key: str, allowed: Cost, cost: Cost) -> list[str]:
    """What is too good to be believed without being said."""
    found = []
    if cost.instructions < allowed.instructions * SUSPICIOUS:
        found.append(
            f"{key}: {cost.instructions:.1f} instructions for one {cost.unit}, {_change(allowed, cost)} than "
            "the budget's: either it was not counted, or --update says that it has become so cheap."
        )
    for name, before in sorted(allowed.calls.items()):
        if before > 0 and cost.calls.get(name, 0) == 0:
            found.append(f"{key}: {name} is not called any more: not counted, or --update says so.")
    return found


def _shrunk(key: str, allowed: Cost, cost: Cost) -> list[str]:
    """What could be kept, if the budget followed."""
    found = []
    if cost.instructions < allowed.instructions * (1 - GROWTH_MAX):
        found.append(
            f"{key}: {cost.instructions:.1f} instructions, {_change(allowed, cost)} "
            f"than the budget's {allowed.instructions:.1f}: --update keeps it so."
        )
    for name, before in sorted(allowed.calls.items()):
        count = cost.calls.get(name, 0)
        if count < before - _ROUNDING:
            found.append(f"{key}: {name} is called {count:g} times, not {before:g}: --update keeps it so.")
    return found


def _change(allowed: Cost, cost: Cost) -> str:
    percent = (cost.instructions / allowed.instructions - 1) * 100
    return f"{abs(percent):.1f} % {'more' if percent > 0 else 'less'}"


def _other_tools(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    return [
        f"{tool} {before.get(tool, 'unknown')} (here: {now.get(tool, 'unknown')})"
        for tool in sorted({*before, *now})
        if before.get(tool) != now.get(tool)
    ]


def _about_tools(tools: list[str]) -> str:
    return (
        f"The budget was made with other tools: {', '.join(tools)}. It is compared all the same, but they "
        "move the instructions, too, up or down; calls they do not move. Make a budget with these tools, on "
        "a state of the source that is known to be good: --update."
    )


_ABOUT_FAULTS = (
    "The tools are not the budget's, and may be the reason. To tell: go back to the last commit that passed, "
    "build it, --update there with these tools, and compare again here."
)
