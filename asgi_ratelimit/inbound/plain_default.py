"""A dependency that stands as a plain default, without Depends: it would never be called."""

from __future__ import annotations

from typing import NoReturn

__all__ = ["NoPlainDefault"]


class NoPlainDefault:
    """The base of dependencies. FastAPI takes a default without Depends for a query parameter's, and copies it."""

    def __deepcopy__(self, memo: object) -> NoReturn:
        name = type(self).__name__
        raise TypeError(
            f"a {name} that is the plain default of a parameter is never called, so it limits nothing: write "
            f"Annotated[..., Depends({name}(...))], or dependencies=[Depends({name}(...))]"
        )
