"""The rules for README and documentation: links, lengths, codes, figures and names."""

from __future__ import annotations

import importlib
import re
import tomllib
from pathlib import Path

import pytest

import asgi_ratelimit
from asgi_ratelimit.warnings import CODES
from tests.docs.markdown import DOCS, PAGES, README, ROOT, rows

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
ADDRESS: str = PROJECT["urls"]["Documentation"]
_FIGURE = re.compile(r"\d+(?:[ .,]\d+)*")


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def test_the_readme_has_at_most_200_lines() -> None:
    assert len(text_of(README).splitlines()) <= 200


def test_the_readme_has_absolute_links_only() -> None:
    targets = re.findall(r"\]\(([^)]+)\)", text_of(README))
    assert targets
    assert [target for target in targets if not target.startswith("https://")] == []
    assert not re.search(r"^\[[^\]]+\]:", text_of(README), re.MULTILINE)


def test_the_address_of_the_documentation_is_the_same_everywhere() -> None:
    assert f"site_url: {ADDRESS}\n" in text_of(ROOT / "mkdocs.yml")
    for page in PAGES:
        for address in re.findall(r"https://[\w.-]*readthedocs\.io[^\s)>]*", text_of(page)):
            if "asgi-ratelimit" in address:
                assert address.startswith(ADDRESS), page


def test_the_readme_names_the_supported_frameworks_and_servers() -> None:
    text = text_of(README)
    for name in ("Litestar", "Quart", "Django", "BlackSheep", "hypercorn", "granian"):
        assert name in text
        assert name in text_of(DOCS / "frameworks.md")


def test_the_targets_of_make_exist() -> None:
    makefile = text_of(ROOT / "Makefile")
    for page in PAGES:
        for target in re.findall(r"`make ([\w-]+)`", text_of(page)):
            assert f"\n{target}:" in makefile, f"{page.name}: make {target}"


def test_the_extras_exist() -> None:
    extras = {*PROJECT["optional-dependencies"]}
    for page in PAGES:
        for named in re.findall(r"asgi-ratelimit-discord\[([\w,]+)\]", text_of(page)):
            assert set(named.split(",")) <= extras, page
    assert {row[0] for row in rows(DOCS / "index.md")} >= {f"`{extra}`" for extra in extras}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_page_installs_the_other_project(page: Path) -> None:
    assert not re.search(r"pip install [\"']?asgi-ratelimit(?!-discord)", text_of(page))


def test_every_warning_is_explained_and_no_other() -> None:
    codes = [row[0].strip("`") for row in rows(DOCS / "warnings.md") if row[0].startswith("`ARL")]
    assert codes == sorted(CODES)


def test_the_codes_that_pages_name_exist() -> None:
    for page in PAGES:
        assert set(re.findall(r"ARL\d+", text_of(page))) <= {*CODES}, page


def test_the_quoted_figures_are_those_of_the_benchmarks() -> None:
    results: dict[str, str] = {}
    for label, *cells in rows(ROOT / "benchmarks" / "RESULTS.md"):
        results[label] = results.get(label, "") + " | ".join(["", *cells])
    for label, *cells in [*rows(DOCS / "performance.md"), *rows(DOCS / "overload.md")]:
        if not _FIGURE.search("".join(cells)):
            continue  # a heading
        assert label in results, f"no result is called {label!r}"
        missing = {*_FIGURE.findall(" | ".join(cells))} - {*_FIGURE.findall(results[label])}
        assert not missing, f"{label}: {missing}"


def test_the_files_that_the_architecture_names_exist() -> None:
    text = text_of(DOCS / "architecture.md")
    for path in re.findall(r"`((?:\w+/)*\w+\.(?:py|lua)|(?:\w+/)+)`", text):
        assert any((root / path).exists() for root in (ROOT, Path(asgi_ratelimit.__file__).parent)), path


@pytest.mark.parametrize(
    "name",
    [None, "admin", "discord", "fastapi", "interactions", "load", "login", "observe", "redis", "sync", "testing"],
)
def test_every_public_name_is_in_the_reference(name: str | None) -> None:
    module = importlib.import_module("asgi_ratelimit" if name is None else f"asgi_ratelimit.{name}")
    page = text_of(DOCS / "api" / f"{name or 'asgi_ratelimit'}.md")
    for public in module.__all__:
        elsewhere = name == "discord" and public == "InteractionLimit"
        assert f"\n::: {module.__name__}.{public}\n" in page or elsewhere, public
