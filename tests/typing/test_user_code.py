"""Pyright finds nothing in a user's code that is right, and something in each mistake."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from tests.support.pyright import Finding, check
from tests.typing import public_api
from tests.typing.mistakes import MISTAKES, PREAMBLE

USER_CODE = sorted((Path(__file__).parent / "user_code").glob("[!_]*.py"))


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, list[Finding]]:
    """Of every file, in one run."""
    folder = tmp_path_factory.mktemp("typing")
    for number, mistake in enumerate(MISTAKES.values()):
        _file_of(folder, number).write_text(f"{PREAMBLE}{mistake}\n", encoding="utf-8")
    by_file: dict[Path, list[Finding]] = {_named(folder, file): [] for file in _files(folder)}
    for finding in check(folder, _files(folder)):
        by_file[_named(folder, finding.file)].append(finding)
    return by_file


def _files(folder: Path) -> Iterator[Path]:
    yield from USER_CODE
    for number in range(len(MISTAKES)):
        yield _file_of(folder, number)


def _file_of(folder: Path, number: int) -> Path:
    return folder / f"mistake_{number}.py"


def _named(folder: Path, file: Path) -> Path:
    """Without the temporary folder."""
    return Path(file.name) if file.parent == folder else file


@pytest.mark.parametrize("file", USER_CODE, ids=lambda file: file.stem)
def test_nothing_is_found_in_code_that_is_right(file: Path, findings: dict[Path, list[Finding]]) -> None:
    assert findings[file] == []


@pytest.mark.parametrize("number", range(len(MISTAKES)), ids=list(MISTAKES))
def test_a_mistake_is_found_where_it_is(number: int, findings: dict[Path, list[Finding]]) -> None:
    lines = {finding.line for finding in findings[_file_of(Path(), number)]}
    assert lines == {PREAMBLE.count("\n") + 1}


@pytest.mark.filterwarnings("ignore:'audioop' is deprecated:DeprecationWarning")  # discord.py's
@pytest.mark.parametrize("file", USER_CODE, ids=lambda file: file.stem)
def test_code_that_is_right_runs(file: Path) -> None:
    import_module(f"tests.typing.user_code.{file.stem}")


@pytest.mark.parametrize("module", public_api.MODULES)
def test_the_checked_code_uses_every_public_name(module: str) -> None:
    assert public_api.names(module) - public_api.names_used(USER_CODE) == set()


@pytest.mark.parametrize("module", public_api.MODULES)
def test_the_checked_code_uses_every_option(module: str) -> None:
    assert public_api.options(module) - public_api.options_used(USER_CODE) == set()
