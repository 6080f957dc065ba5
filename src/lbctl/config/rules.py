"""Rules that take more than one field, applied together with the field rules so that one run reports all.

They look at the tree as it was written, because a model only exists once nothing is wrong: each rule
passes over values of the wrong type, which the field rules report.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import InitErrorDetails

from lbctl.config import alert_rules, clashes, references, store_rules, unsupported, upstream_rules
from lbctl.config.faults import Fault

M = TypeVar("M")

_RULES: tuple[Callable[[dict[str, Any]], Iterator[Fault]], ...] = (
    references.faults,
    clashes.faults,
    store_rules.faults,
    upstream_rules.faults,
    alert_rules.faults,
)


def validate(data: Any, handler: Callable[[Any], M]) -> M:
    """Run the field rules (`handler`) and the rules of this module over a tree.

    Raises:
        pydantic.ValidationError: every fault of both kinds.
    """
    if not isinstance(data, dict):
        return handler(data)
    tree = _plain(data)
    faults: list[Fault] = [*unsupported.take_out(tree)]
    for rule in _RULES:
        faults.extend(rule(tree))
    details = [_detail(fault) for fault in faults]
    try:
        config = handler(references.with_default_class(tree))
    except ValidationError as error:
        details.extend(_field_errors(error, faults))
    if details:
        raise ValidationError.from_exception_data("Config", details)
    return config


def _plain(value: Any) -> Any:
    """A copy of a tree, without the model instances Python code may mix in: rules read plain values."""
    if isinstance(value, BaseModel):
        value = {name: getattr(value, name) for name in value.model_fields_set}
    if isinstance(value, dict):
        return {key: _plain(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(child) for child in value]
    return value


def _detail(fault: Fault) -> InitErrorDetails:
    return InitErrorDetails(type="value_error", loc=fault.path, input=None, ctx={"error": fault})


def _field_errors(error: ValidationError, faults: list[Fault]) -> Iterator[InitErrorDetails]:
    """Errors of the fields, without those that only follow from a key that was taken out."""
    gutted = {fault.path[:-1] for fault in faults if isinstance(fault, unsupported.Unsupported)}
    for line in error.errors(include_url=False):
        if line["type"] == "missing" and line["loc"][:-1] in gutted:
            continue
        yield InitErrorDetails(
            type=line["type"], loc=line["loc"], input=line["input"], ctx=line.get("ctx", {})
        )
