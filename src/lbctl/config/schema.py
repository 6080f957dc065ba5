"""The JSON Schema of the configuration file, for editors; made from the model, so it cannot drift."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import TypeAdapter

from lbctl.config.model import Config, Section

_VARIABLE = r"\$\{[A-Za-z_][A-Za-z0-9_]*\}"


def schema() -> dict[str, Any]:
    """The schema of one configuration file (draft 2020-12)."""
    made: dict[str, Any] = Config.model_json_schema()
    for section in Section.__subclasses__():
        _spell_defaults(section, made if section is Config else made["$defs"][section.__name__])
    made = _as_written(made)
    made["properties"]["include"] = {
        "type": "array",
        "items": {"type": "string", "minLength": 1},
        "description": "Further files that hold clients: only; names or patterns, relative to this file.",
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **made,
        "title": "lbctl configuration",
        "description": "The configuration file of lbctl.",
    }


def _spell_defaults(section: type[Section], schema_of_it: dict[str, Any]) -> None:
    """Defaults as the file spells them: "30s" where the model has 30.0."""
    for name, field in section.model_fields.items():
        if not field.is_required() and field.default_factory is None:
            kind: Any = field.annotation
            for item in field.metadata:
                kind = Annotated[kind, item]
            written = TypeAdapter(kind).dump_python(field.default, mode="json")
            schema_of_it["properties"][name]["default"] = written


def _as_written(node: Any) -> Any:
    """What the file may hold: no null, and `${NAME}` wherever text has a pattern."""
    if isinstance(node, list):
        return [_as_written(item) for item in node if item != {"type": "null"}]
    if not isinstance(node, dict):
        return node
    result = {key: _as_written(value) for key, value in node.items() if value is not None}
    if isinstance(result.get("pattern"), str):
        result["pattern"] = f"{result['pattern']}|{_VARIABLE}"
    if isinstance(result.get("anyOf"), list) and len(result["anyOf"]) == 1:
        result |= result.pop("anyOf")[0]
    return result
