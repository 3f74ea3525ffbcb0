"""The public names and their options, and which of them some source files use."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterable, Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import is_typeddict

import asgi_ratelimit

__all__ = ["MODULES", "names", "names_used", "options", "options_used"]

Option = tuple[str, str]  # a class or function, and a parameter
VARIABLE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
ADDED = ("add_middleware", "Middleware")  # their first argument is a class, and the options are that class's
INNER = {"asgi_ratelimit.limits", "asgi_ratelimit.memory"}  # users import their names from the package itself
NOT_CALLED_BY_USERS = {
    "Attempt", "CallerLimits", "DiscordEvent", "KeyCounts", "Limit", "LimiterCounts", "Observers", "Outage", "Outcome",
    "Period", "Snapshot", "StoreEvent", "Usage", "Waiting", "by_user",
}  # fmt: skip


def _public_modules() -> Iterator[str]:
    """The package and its rooms, as far as they list public names."""
    yield "asgi_ratelimit"
    for module in iter_modules(asgi_ratelimit.__path__, "asgi_ratelimit."):
        if module.ispkg and module.name not in INNER and hasattr(import_module(module.name), "__all__"):
            yield module.name


MODULES = tuple(_public_modules())


def names(module: str) -> set[str]:
    return set(import_module(module).__all__)


def options(module: str) -> set[Option]:
    """Every parameter of every class and function that users call."""
    return {(name, option) for name in names(module) - NOT_CALLED_BY_USERS for option in _options_of(module, name)}


def _options_of(module: str, name: str) -> list[str]:
    public = getattr(import_module(module), name)
    is_raised = isinstance(public, type) and issubclass(public, BaseException)
    if is_raised or is_typeddict(public) or not (isinstance(public, type) or inspect.isfunction(public)):
        return []
    parameters = inspect.signature(public).parameters.values()
    return [parameter.name for parameter in parameters if parameter.kind not in VARIABLE]


def names_used(files: Iterable[Path]) -> set[str]:
    return {node.id for file in files for node in ast.walk(_tree(file)) if isinstance(node, ast.Name)}


def options_used(files: Iterable[Path]) -> set[Option]:
    calls = [node for file in files for node in ast.walk(_tree(file)) if isinstance(node, ast.Call)]
    return {option for call in calls for option in _options_in(call)}


def _options_in(call: ast.Call) -> Iterator[Option]:
    name, arguments = _name(call.func), call.args
    if name in ADDED and arguments:
        name, arguments = _name(arguments[0]), [ast.Name("app"), *arguments[1:]]
    for keyword in call.keywords:
        yield name, keyword.arg or ""
    for option, _ in zip(_positional(name), arguments, strict=False):
        yield name, option


def _name(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _positional(name: str) -> list[str]:
    return next((_options_of(module, name) for module in MODULES if name in names(module)), [])


@cache
def _tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))
