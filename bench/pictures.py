"""Pictures of a run, out of its JSON: `python -m bench --svg DIR`.

    python -m bench.pictures FILE DIR    later, out of what --json has written

The same numbers make the same bytes with the same matplotlib. Nothing is painted behind, and text and lines
are of a grey that can be read on white and on black.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .report import AS_PACKAGED, PERCENTILES, NotAReport, read, significant

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_GREY = "#7d8590"
_COLOURS = ("#2f81f7", "#79a8f0", "#d29922", "#3fb950", "#a371f7", "#db6d28", "#e05d8c")
_STYLE: Any = {  # matplotlib has a literal for every key
    "svg.hashsalt": "bench",  # ids in the file do not change from run to run
    "svg.fonttype": "none",  # text stays text
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": _GREY,
    "axes.labelcolor": _GREY,
    "axes.edgecolor": _GREY,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": _GREY,
    "ytick.color": _GREY,
}
_COLUMNS = 2

Json = Mapping[str, Any]


class NoPictures(Exception):
    """matplotlib is not installed; the text says how to get it."""


def require() -> None:
    """Raises NoPictures when nothing can be drawn."""
    if find_spec("matplotlib") is None:
        raise NoPictures("pictures need matplotlib: pip install '.[bench]'")


def draw(document: Json, folder: Path) -> list[Path]:
    """Writes cpu.svg, memory.svg and latency.svg for one worker; one without numbers is left out.

    Raises:
        NoPictures: matplotlib is not installed.
    """
    require()
    import matplotlib

    folder.mkdir(parents=True, exist_ok=True)
    names = [about["name"] for about in document["proxies"]]
    colours = dict(zip(names, cycle(_COLOURS), strict=False))  # each has its name beside it
    works = document["passes"][0]["works"]
    note = "peers as packaged" if document["run"].get("peers") == AS_PACKAGED else ""
    drawn = []
    with matplotlib.rc_context(_STYLE):
        for name, chosen, panel in _PICTURES:
            panels = [work for work in works if chosen(work)]
            if panels:
                drawn.append(_save(_panels(panels, panel, colours, note), folder / name))
    return drawn


def _save(figure: Figure, path: Path) -> Path:
    figure.savefig(path, transparent=True, bbox_inches="tight", metadata={"Date": None, "Creator": None})
    return path


def _panels(works: Sequence[Json], panel: Panel, colours: Mapping[str, str], note: str) -> Figure:
    """One small chart for each work, since their units differ; below `note`, if there is one."""
    from matplotlib.figure import Figure

    columns = min(_COLUMNS, len(works))
    rows = -(-len(works) // columns)
    height = 0.6 + 0.28 * len(colours)
    figure = Figure(figsize=(4.6 * columns, height * rows), layout="constrained")
    for work, axes in zip(works, figure.subplots(rows, columns, squeeze=False).flat, strict=False):
        panel(axes, work, colours)
    if note:
        figure.suptitle(note)
    for axes in figure.axes[len(works) :]:
        axes.remove()
    return figure


def _bars(axes: Axes, work: Json, colours: Mapping[str, str]) -> None:
    """Medians as bars with their numbers, and a line from the least to the greatest round."""
    proxies = {name: work["proxies"][name] for name in colours if name in work["proxies"]}
    names, medians = list(proxies), [numbers["median"] for numbers in proxies.values()]
    below = [numbers["median"] - numbers["least"] for numbers in proxies.values()]
    above = [numbers["greatest"] - numbers["median"] for numbers in proxies.values()]
    bars = axes.barh(
        names, medians, xerr=(below, above), color=[colours[name] for name in names], ecolor=_GREY, height=0.7
    )
    most = max(numbers["greatest"] for numbers in proxies.values())
    for bar, numbers in zip(bars, proxies.values(), strict=True):
        middle = bar.get_y() + bar.get_height() / 2
        axes.text(numbers["greatest"] + 0.02 * most, middle, significant(numbers["median"]), va="center")
    axes.set_title(f"{work['title']}, {work['unit']}", loc="left")
    axes.set_xlim(0, most * 1.18)
    axes.invert_yaxis()
    axes.xaxis.set_visible(False)
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(axis="y", length=0)


def _dots(axes: Axes, work: Json, colours: Mapping[str, str]) -> None:
    """The percentiles of each proxy on one line, with a mark of its own for each."""
    from matplotlib.ticker import LogLocator, NullFormatter

    proxies = {
        name: numbers["latency"]
        for name in colours
        if (numbers := work["proxies"].get(name)) is not None and numbers["latency"]
    }
    for row, (name, latency) in enumerate(proxies.items()):
        values = [latency[percentile]["median"] for percentile in PERCENTILES]
        axes.plot(values, [row] * len(values), color=colours[name], linewidth=1.5)
        for value, marker in zip(values, "os^", strict=True):
            axes.plot(value, row, marker=marker, color=colours[name], markersize=6)
    for percentile, marker in zip(PERCENTILES, "os^", strict=True):
        axes.plot([], [], marker, color=_GREY, label=percentile)
    axes.set_title(f"{work['title']}, µs", loc="left")
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_yticks(range(len(proxies)), list(proxies))
    axes.set_ylim(len(proxies) - 0.4, -0.6)
    axes.grid(axis="x", color=_GREY, alpha=0.3)
    axes.tick_params(axis="y", length=0)
    axes.legend(frameon=False, ncols=3, loc="upper left", bbox_to_anchor=(0, -0.12), labelcolor=_GREY)


Panel = Callable[["Axes", Json, Mapping[str, str]], None]


def _has_latency(work: Json) -> bool:
    return work["reads"] == "latency" and any(numbers["latency"] for numbers in work["proxies"].values())


_PICTURES: tuple[tuple[str, Callable[[Json], bool], Panel], ...] = (
    ("cpu.svg", lambda work: work["reads"] == "cpu", _bars),
    ("memory.svg", lambda work: work["reads"] == "memory", _bars),
    ("latency.svg", _has_latency, _dots),
)


def main() -> None:
    """Draws what an earlier run has written with --json."""
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    try:
        drawn = draw(read(Path(sys.argv[1])), Path(sys.argv[2]))
    except (NoPictures, NotAReport, OSError) as failure:
        raise SystemExit(f"bench.pictures: {failure}") from None
    for path in drawn:
        print(path)


if __name__ == "__main__":
    main()
