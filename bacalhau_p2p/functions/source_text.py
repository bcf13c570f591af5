"""The source of a function or class, and the names that it takes from around itself."""

from __future__ import annotations

import ast
import builtins
import inspect
import linecache
import symtable
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import CellType, FunctionType
from typing import Any

from bacalhau_p2p.errors import InvalidFunction

Described = FunctionType | type
"""What has a source that can be sent."""

REMOVED = "_bacalhau_p2p_decorator"
"""An attribute of decorators that are not sent."""


@dataclass(frozen=True, slots=True)
class SourceText:
    """The text of one definition, as it stands in its file but for decorators that are not sent."""

    name: str
    file: str
    line: int
    """The number of its first line in its file, from 1."""
    text: str
    names: frozenset[str]
    """Those that it takes from around itself."""
    annotations: frozenset[str]
    """Those in its annotations, which are not evaluated where it runs."""
    imports: frozenset[str]
    """The modules that it imports where nothing catches that one is missing."""
    chains: frozenset[str]
    """What it reads from those names, such as `os.path.join`."""


def source_of(described: Described) -> SourceText:
    """Raises InvalidFunction if its source cannot be read or is more than a definition."""
    name = described.__name__
    try:
        lines, line = inspect.getsourcelines(described)
        file = Path(inspect.getsourcefile(described) or "unknown").name
    except (OSError, TypeError):
        found = _in_a_cell(described)
        if found is not None:
            return found
        raise InvalidFunction(
            f"the source of {name} cannot be read: define it in a file or in a notebook"
        ) from None
    return _described_by(described, "".join(lines), line, file)


def _in_a_cell(described: Described) -> SourceText | None:
    """The source of a class that was defined in a cell of a notebook: of these, Python 3.11 does not know the
    file. The last cell that defines one of this name is the one."""
    if isinstance(described, FunctionType) or described.__qualname__ != described.__name__:
        return None
    for file, entry in reversed(list(linecache.cache.items())):
        if "ipykernel_" not in file and not file.startswith("<ipython-input"):
            continue
        lines = entry[2] if len(entry) > 2 else []
        for node in _statements("".join(lines)):
            if isinstance(node, ast.ClassDef) and node.name == described.__name__:
                first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
                text = "".join(lines[first - 1 : node.end_lineno])
                return _described_by(described, text, first, Path(file).name)
    return None


def _statements(text: str) -> list[ast.stmt]:
    try:
        return ast.parse(text).body
    except SyntaxError:  # of a cell that was not Python, or failed
        return []


def _described_by(described: Described, text: str, line: int, file: str) -> SourceText:
    """Raises InvalidFunction if the text is not one definition of that name."""
    name = described.__name__
    if text[:1].isspace():  # inside something else; without moving lines, so that strings stay as they are
        text, line = "if True:\n" + text, line - 1
    try:
        definition = _definition(ast.parse(text), name)
    except SyntaxError as error:
        raise InvalidFunction(f"the source of {name} cannot be read by itself: {error.msg}") from None
    if isinstance(described, FunctionType) and not _is_of(definition, line, described):
        raise InvalidFunction(f"{file} has changed since {name} was imported: start this program again")
    for decorator in _removed(definition, scope_of(described)):
        text = _without_lines(text, decorator.lineno, decorator.end_lineno or decorator.lineno)
        definition.decorator_list.remove(decorator)
    annotations = frozenset(_strip_annotations(definition))
    return SourceText(
        name=name,
        file=file,
        line=line,
        text=text,
        names=frozenset(_free_names(definition)),
        annotations=annotations,
        imports=frozenset(_imports(definition, name)),
        chains=frozenset(_chains(definition)),
    )


def scope_of(described: Described) -> Mapping[str, Any]:
    """What the names around a function or class stand for."""
    functions = [described] if isinstance(described, FunctionType) else list(_methods(described))
    scope: dict[str, Any] = {}
    if functions:
        scope.update(functions[0].__globals__)
    else:
        scope.update(vars(inspect.getmodule(described)))
    for function in functions:
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            if name != "__class__" and _is_filled(cell):
                scope[name] = cell.cell_contents
    return scope


def _methods(kind: type) -> Iterator[FunctionType]:
    for value in vars(kind).values():
        found = getattr(value, "fget", None) or getattr(value, "__func__", None) or value
        found = inspect.unwrap(found) if callable(found) else found
        if isinstance(found, FunctionType) and found.__module__ == kind.__module__:
            yield found


def _is_filled(cell: CellType) -> bool:
    try:
        return cell.cell_contents is not None or True
    except ValueError:
        return False


def _is_of(definition: _Definition, line: int, function: FunctionType) -> bool:
    """Whether a definition, whose text begins at this line, may be that of the function.

    Its file may have been edited since it was imported. Its arguments and its last line are compared.
    """
    if isinstance(definition, ast.ClassDef):
        return False
    code, given = function.__code__, definition.args
    names = [each.arg for each in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    last = max((number for _, _, number in code.co_lines() if number), default=0)
    end = line - 1 + (definition.end_lineno or 0)
    return names == list(code.co_varnames[: len(names)]) and code.co_firstlineno <= last <= end


_Definition = ast.FunctionDef | ast.ClassDef


def _definition(tree: ast.Module, name: str) -> _Definition:
    """The one definition of this name that the tree is, alone or in an `if True`."""
    body = tree.body
    if len(body) == 1 and isinstance(body[0], ast.If):
        body = body[0].body
    found = body[0] if len(body) == 1 else None
    if isinstance(found, ast.AsyncFunctionDef):
        raise InvalidFunction(f"{name} is async: a job runs a plain function")
    if not isinstance(found, ast.FunctionDef | ast.ClassDef) or found.name != name:
        raise InvalidFunction(f"the source of {name} is not a definition of its own: use def")
    return found


def _removed(definition: _Definition, scope: Mapping[str, Any]) -> list[ast.expr]:
    """The decorators that are not sent."""
    return [each for each in definition.decorator_list if hasattr(_evaluated(each, scope), REMOVED)]


def _evaluated(decorator: ast.expr, scope: Mapping[str, Any]) -> object:
    """What a decorator is, or what makes it; None if that is more than a name."""
    if isinstance(decorator, ast.Call):
        return _evaluated(decorator.func, scope)
    if isinstance(decorator, ast.Attribute):
        return getattr(_evaluated(decorator.value, scope), decorator.attr, None)
    return scope.get(decorator.id) if isinstance(decorator, ast.Name) else None


def _without_lines(text: str, first: int, last: int) -> str:
    lines = text.splitlines(keepends=True)
    lines[first - 1 : last] = ["\n"] * (last - first + 1)
    return "".join(lines)


def _strip_annotations(definition: _Definition) -> Iterator[str]:
    """Remove all annotations of arguments and results; the names in them."""
    for node in ast.walk(definition):
        found: list[ast.expr | None] = []
        if isinstance(node, ast.arg):
            found.append(node.annotation)
            node.annotation = None
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.append(node.returns)
            node.returns = None
        elif isinstance(node, ast.AnnAssign):
            found.append(node.annotation)
            node.annotation = ast.Constant(None)
        for annotation in found:
            if annotation is not None:
                yield from _names_in(annotation)


def _names_in(annotation: ast.expr) -> Iterator[str]:
    for node in ast.walk(annotation):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            try:
                yield from _names_in(ast.parse(node.value, mode="eval").body)
            except SyntaxError:
                continue  # a text in a Literal


def _free_names(definition: _Definition) -> Iterator[str]:
    try:
        table = symtable.symtable(ast.unparse(definition), "<function>", "exec")
    except SyntaxError as error:
        what = error.msg.replace("no binding for nonlocal ", "it assigns to the nonlocal ")
        raise InvalidFunction(f"{definition.name} cannot be sent: {what}") from None
    yield from (each.get_name() for each in table.get_symbols() if each.is_referenced())
    waiting: list[Any] = table.get_children()
    while waiting:
        inner = waiting.pop()
        waiting += inner.get_children()
        yield from (s.get_name() for s in inner.get_symbols() if s.is_global() and s.is_referenced())


def _imports(definition: _Definition, name: str) -> Iterator[str]:
    for node in _uncaught(definition):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level or node.module is None:
                raise InvalidFunction(f"{name} imports from its own package: import by the full name")
            yield node.module


def _uncaught(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those in a `try`."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.Try):
            yield from _uncaught(child)


def _chains(definition: _Definition) -> Iterator[str]:
    for node in ast.walk(definition):
        if isinstance(node, ast.Attribute):
            parts: list[str] = []
            below: ast.expr = node
            while isinstance(below, ast.Attribute):
                parts.append(below.attr)
                below = below.value
            if isinstance(below, ast.Name):
                yield ".".join([below.id, *reversed(parts)])


def is_builtin(name: str) -> bool:
    return hasattr(builtins, name)
