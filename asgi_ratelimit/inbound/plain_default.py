"""A dependency that stands as a plain default, or in a list, without Depends: it would never be called."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

__all__ = ["NoPlainDefault"]

_NO_DECORATOR = 'It is no decorator: write @app.get("/", dependencies=[Depends({0}(...))])'


class _Missing:
    """An attribute that other libraries, or FastAPI, look for in vain. The error has an advice."""

    def __init__(self, advice: str) -> None:
        self._advice, self._attribute = advice, ""

    def __set_name__(self, owner: type, name: str) -> None:
        self._attribute = name

    def __get__(self, instance: object, owner: type) -> NoReturn:
        name = owner.__name__
        raise AttributeError(
            f"{name!r} object has no attribute {self._attribute!r}. {self._advice.format(name)}",
            name=self._attribute,
            obj=instance,
        )


class NoPlainDefault:
    """The base of dependencies. FastAPI takes a default without Depends for a query parameter's, and copies it."""

    def __deepcopy__(self, memo: object) -> NoReturn:
        name = type(self).__name__
        raise TypeError(
            f"a {name} that is the plain default of a parameter is never called, so it limits nothing: write "
            f"Annotated[..., Depends({name}(...))], or dependencies=[Depends({name}(...))]"
        )

    if not TYPE_CHECKING:  # a type check is to find them missing
        dependency = _Missing("A {0} needs its Depends: write dependencies=[Depends({0}(...))]")
        limit, shared_limit = _Missing(_NO_DECORATOR), _Missing(_NO_DECORATOR)
