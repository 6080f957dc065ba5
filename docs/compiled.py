"""A Sphinx directive for the compiled modules: signatures and types from the stubs, the rest from docstrings.

    .. compiled:: lbcore.Application

Compiled functions tell neither their types nor, for constructors, their arguments; their stubs tell both and
no more. Tests hold the stubs to the modules, so what stands here is what is there.
"""

import ast
import inspect
import textwrap
from importlib import import_module
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.ext.napoleon import GoogleDocstring
from sphinx.util.docutils import SphinxDirective

INDENT = "   "

Function = ast.FunctionDef | ast.AsyncFunctionDef

class Compiled(SphinxDirective):
    """One public class or function of a compiled module."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        module, _, name = self.arguments[0].rpartition(".")
        thing = getattr(import_module(module), name)
        stub = Stub(thing.__module__)
        self.env.note_dependency(str(stub.path))
        node, options = stub.top[thing.__name__], [f":module: {module}"]
        if isinstance(node, ast.FunctionDef):
            text = self.entry("function", f"{name}{stub.signature(node)}", options, thing)
        else:
            options.append(f":canonical: {thing.__module__}.{thing.__name__}")
            text = self.of_class(name, options, node, thing, stub)
        return self.parse_text_to_nodes(text)

    def of_class(self, name: str, options: list[str], node: ast.ClassDef, thing: type, stub: "Stub") -> str:
        """A class and everything public in it."""
        members = [each for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)]
        constructors = [stub.signature(each, returns=False) for each in members if each.name == "__init__"]
        text = self.entry("class", name + "".join(constructors), options, thing)
        for member in members:
            if not member.name.startswith("_") and not is_setter(member):
                text += textwrap.indent(self.of_member(member, thing, stub), INDENT)
        return text

    def of_member(self, node: Function, owner: type, stub: "Stub") -> str:
        """A method or a property."""
        member = inspect.getattr_static(owner, node.name)
        if any(isinstance(each, ast.Name) and each.id == "property" for each in node.decorator_list):
            assert node.returns is not None
            return self.entry("property", node.name, [f":type: {stub.text(node.returns)}"], member)
        options = [":async:"] if isinstance(node, ast.AsyncFunctionDef) else []
        return self.entry("method", f"{node.name}{stub.signature(node)}", options, member)

    def entry(self, kind: str, signature: str, options: list[str], thing: object) -> str:
        """The reST of one of them, from its docstring."""
        doc = str(GoogleDocstring(inspect.getdoc(thing) or "", self.config))
        inside = textwrap.indent("\n".join([*options, "", doc, "", ""]), INDENT)
        return f".. py:{kind}:: {signature}\n{inside}"


def is_setter(member: Function) -> bool:
    """The second half of a property."""
    return any(isinstance(each, ast.Attribute) and each.attr == "setter" for each in member.decorator_list)


class Stub:
    """The `.pyi` beside a compiled module.

    Args:
        module: its dotted name.

    Attributes:
        top: its classes and functions by name.
    """

    def __init__(self, module: str) -> None:
        file = import_module(module).__file__
        assert file is not None
        self.path = Path(file).with_name(f"{module.rpartition('.')[2]}.pyi")
        body = ast.parse(self.path.read_text()).body
        self.top = {node.name: node for node in body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
        self._names = _Qualified({name: f"{module}.{name}" for name in self.top})
        for node in body:
            if isinstance(node, ast.ImportFrom) and node.module is not None:
                self._names.known |= {each.name: f"{node.module}.{each.name}" for each in node.names}

    def signature(self, node: Function, *, returns: bool = True) -> str:
        """Arguments and result, without `self`."""
        arguments = self._names.visit(ast.parse(ast.unparse(node)).body[0].args)  # type: ignore[attr-defined]
        if arguments.args and arguments.args[0].arg == "self":
            del arguments.args[0]
        result = f" -> {self.text(node.returns)}" if returns and node.returns is not None else ""
        return f"({ast.unparse(arguments)}){result}"

    def text(self, node: ast.expr) -> str:
        """A type, with whole names."""
        return ast.unparse(self._names.visit(ast.parse(ast.unparse(node), mode="eval").body))


class _Qualified(ast.NodeTransformer):
    """Replaces the project's names by whole ones, so that they become links."""

    def __init__(self, known: dict[str, str]) -> None:
        self.known = known

    def visit_Name(self, node: ast.Name) -> ast.expr:
        name = self.known.get(node.id, "")
        return ast.parse(name, mode="eval").body if name.startswith("lbcore.") else node


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_directive("compiled", Compiled)
    return {"parallel_read_safe": True}
