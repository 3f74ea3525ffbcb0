"""The contents of the distribution: all of the package, and nothing else beside it."""

from __future__ import annotations

from pathlib import Path

from tests.packaging.distribution import Distribution

__all__ = ["check_contents"]

PACKAGE = "asgi_ratelimit/"


def check_contents(root: Path, distribution: Distribution) -> None:
    """RuntimeError if a file is missing, or does not belong there."""
    expected = _files_of_the_package(root)
    scripts = {name for name in expected if name.endswith(".lua")}
    if not scripts or f"{PACKAGE}py.typed" not in expected:
        raise RuntimeError(f"{root / PACKAGE} has no scripts or no py.typed")
    in_wheel = {name for name in distribution.in_wheel if ".dist-info/" not in name}
    _compare("wheel", in_wheel, expected)
    _compare("sdist", {name for name in distribution.in_sdist if name.startswith(PACKAGE)}, expected)
    print(f"contents: {len(expected)} files, among them py.typed and {', '.join(sorted(scripts))}", flush=True)


def _files_of_the_package(root: Path) -> set[str]:
    files = (file for file in (root / PACKAGE).rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    return {file.relative_to(root).as_posix() for file in files}


def _compare(archive: str, contents: set[str], expected: set[str]) -> None:
    if contents != expected:
        missing, unexpected = sorted(expected - contents), sorted(contents - expected)
        raise RuntimeError(f"the {archive} lacks {missing} and has {unexpected}")
