"""The documentation builds without a warning, its links and the README's resolve, and it needs no other server."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.docs.markdown import README, ROOT
from tests.docs.test_pages import ADDRESS

_LOADS = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}
_NOT_LOADED = {"canonical", "next", "prev"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


class Page(HTMLParser):
    """The anchors of a page, and the addresses that a browser loads for it."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.loads: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors.add(given.get("id", ""))
        if tag in _LOADS and given.get("rel") not in _NOT_LOADED:
            self.loads.append(given.get(_LOADS[tag], ""))


def page_at(site: Path, path: str) -> Page:
    return Page((site / path / "index.html").read_text(encoding="utf-8"))


def test_the_links_of_the_readme_resolve(site: Path) -> None:
    links = re.findall(rf"\]\({re.escape(ADDRESS)}([^)]*)\)", README.read_text(encoding="utf-8"))
    assert len(links) >= 15
    for link in links:
        path, _, anchor = link.partition("#")
        assert (site / path / "index.html").exists(), link
        assert anchor in {*page_at(site, path).anchors, ""}, link


def test_no_page_loads_anything_from_another_server(site: Path) -> None:
    pages = [*site.rglob("*.html")]
    assert len(pages) >= 25
    for page in pages:
        loads = Page(page.read_text(encoding="utf-8")).loads
        assert [address for address in loads if re.match(r"(\w+:)?//", address)] == [], page
    for style in site.rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*[\"']?(https?:)?//", style.read_text(encoding="utf-8")), style


def test_the_reference_shows_names_signatures_and_options(site: Path) -> None:
    html = (site / "api/asgi_ratelimit/index.html").read_text(encoding="utf-8")
    signature = re.sub(r"<[^>]+>|\s", "", html[html.index('id="asgi_ratelimit.FixedWindow"') :][:6000])
    assert "FixedWindow(rate:str|Rate,*,name:" in signature
    assert re.search(r"<li><code>scope</code>: ", html)
    anchors = page_at(site, "api/asgi_ratelimit").anchors
    assert {"asgi_ratelimit.Limiter", "asgi_ratelimit.Limiter.try_acquire", "asgi_ratelimit.TokenBucket"} <= anchors
