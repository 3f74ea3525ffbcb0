"""A dependency that stands as a plain default, or in a list, without Depends: it would never be called."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

__all__ = ["NoPlainDefault"]

_DECORATORS = ("limit", "shared_limit")  # of other libraries


class NoPlainDefault:
    """The base of dependencies. FastAPI takes a default without Depends for a query parameter's, and copies it."""

    def __deepcopy__(self, memo: object) -> NoReturn:
        name = type(self).__name__
        raise TypeError(
            f"a {name} that is the plain default of a parameter is never called, so it limits nothing: write "
            f"Annotated[..., Depends({name}(...))], or dependencies=[Depends({name}(...))]"
        )

    if not TYPE_CHECKING:  # else every attribute would pass a type check

        def __getattr__(self, attribute: str) -> Any:
            name = type(self).__name__
            advice = ""
            if attribute == "dependency":  # FastAPI looks for it in `dependencies=`
                advice = f". A {name} needs its Depends: write dependencies=[Depends({name}(...))]"
            elif attribute in _DECORATORS:
                advice = f'. It is no decorator: write @app.get("/", dependencies=[Depends({name}(...))])'
            raise AttributeError(f"{name!r} object has no attribute {attribute!r}{advice}", name=attribute, obj=self)
