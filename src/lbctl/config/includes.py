"""`include:`: one flat list of further files, which hold `clients:` and nothing else."""

from __future__ import annotations

import glob
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lbctl.config import document
from lbctl.config.document import Document
from lbctl.config.faults import Fault, did_you_mean

_ALLOWED = ("version", "clients")


def merge(main: Document, base: Path, environ: Mapping[str, str]) -> None:
    """Read the files that `include` names and add their clients to the main document, in place.

    Takes `include` out of the tree. Problems are added to the main document's.

    Args:
        main: the document of the named file.
        base: the directory of that file.
        environ: where ``${NAME}`` is looked up.
    """
    patterns = main.tree.pop("include", [])
    if not isinstance(patterns, list):
        _note(main, Fault(("include",), "expected a list of file names or patterns"))
        return
    seen: set[Path] = set()
    for index, pattern in enumerate(patterns):
        if pattern is None:
            continue
        if not isinstance(pattern, str) or not pattern:
            _note(main, Fault(("include", index), "expected a file name or pattern"))
            continue
        for path in _files(base, pattern):
            if path.resolve() not in seen:
                seen.add(path.resolve())
                _merge_one(main, index, path, environ)


def _files(base: Path, pattern: str) -> list[Path]:
    """The files of one entry: all that match, or the one that is named, whether it is there or not."""
    if not glob.has_magic(pattern):
        return [base / pattern]
    return [base / match for match in sorted(glob.glob(pattern, root_dir=base))]  # noqa: PTH207 - root_dir


def _merge_one(main: Document, index: int, path: Path, environ: Mapping[str, str]) -> None:
    try:
        data = document.read_bytes(path)
    except OSError as error:
        _note(main, Fault(("include", index), f"cannot read {path}: {error.strerror}"))
        return
    part = document.parse(data, str(path), environ)
    if part.tree is None and not part.problems:
        return  # an inventory without a client in it
    if isinstance(part.tree, dict):
        _check_keys(part)
        _merge_clients(main, part)
    elif not part.problems:
        _note(part, Fault((), "expected a mapping with the key 'clients'"))
    main.problems.extend(part.problems)


def _check_keys(part: Document) -> None:
    for key in part.tree:
        if key == "include":
            _note(part, Fault((key,), "an included file cannot include others", at="key"))
        elif key not in _ALLOWED:
            hint = did_you_mean(key, _ALLOWED)
            _note(part, Fault((key,), f"an included file may hold 'clients' only{hint}", at="key"))
    version = part.tree.get("version", 1)
    if version != 1 or isinstance(version, bool):
        _note(part, Fault(("version",), "expected 1"))


def _merge_clients(main: Document, part: Document) -> None:
    ours: Any = main.tree.setdefault("clients", {})
    theirs = part.tree.get("clients", {})
    if not isinstance(theirs, dict):
        _note(part, Fault(("clients",), "expected a mapping of keys and values"))
        return
    for name, client in theirs.items():
        path = ("clients", name)
        if not isinstance(ours, dict):
            return  # the main file's own mistake, reported there
        if name in ours:
            first = main.places.get(path)
            where = f" (first at {first.origin()})" if first is not None else ""
            _note(part, Fault(path, f"the same client twice{where}", at="key"))
            continue
        ours[name] = client
    main.places.take_over(part.places, set(theirs) - _duplicates(main, theirs))
    main.skipped |= {path for path in part.skipped if path[:1] == ("clients",)}


def _duplicates(main: Document, theirs: dict[str, Any]) -> set[str]:
    return {name for name in theirs if main.places.get(("clients", name)) is not None}


def _note(part: Document, fault: Fault) -> None:
    part.problems.append(part.places.problem(fault))
