"""What the model found wrong, in the operator's words."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from lbctl.config import shape
from lbctl.config.faults import Fault, Path, did_you_mean

_MISSING: dict[Path, str] = {
    ("version",): "missing; write version: 1",
    ("apps",): "missing; a configuration needs at least one app",
}


def faults(error: ValidationError) -> Iterator[Fault]:
    """One fault for each line of a validation error of `Config`."""
    for line in error.errors(include_url=False):
        yield _fault(line)


def _fault(line: ErrorDetails) -> Fault:
    own = line.get("ctx", {}).get("error")
    if isinstance(own, Fault):
        return own
    path: Path = line["loc"]
    if path and path[-1] == "[key]":
        return Fault(path[:-1], _message(line, path[:-1]), at="key")
    if line["type"] == "extra_forbidden":
        hint = did_you_mean(str(path[-1]), shape.known_keys(path[:-1]))
        return Fault(path, f"unknown key{hint}", at="key")
    return Fault(path, _message(line, path))


def _message(line: ErrorDetails, path: Path) -> str:
    match line["type"]:
        case "value_error":
            return str(line["ctx"]["error"])
        case "missing":
            return _MISSING.get(path, "missing; it has no default")
        case "model_type" | "dict_type" | "mapping_type":
            return "expected a mapping of keys and values"
        case "tuple_type":
            return "expected a list"
        case "string_type":
            return "expected text"
        case "literal_error":
            return _choice(line, path)
    return line["msg"]


def _choice(line: ErrorDetails, path: Path) -> str:
    words = [str(choice) for choice in shape.choices(shape.at(path))]
    hint = did_you_mean(str(line["input"]), words)
    return f"expected {' or '.join(words)}{hint}"
